"""Worker processes."""

import os
import signal
import subprocess
import sys

import pytest

KEEPS_BUSY = """
import os, time
from astra_gym.processes import worker_pool

if __name__ == "__main__":
    with worker_pool(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(tmp_path, how):
    script = tmp_path / "keeps_busy.py"
    script.write_text(KEEPS_BUSY)
    environment = dict(os.environ, PYTHONPATH=os.getcwd())
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    worker = int(parent.stdout.readline())
    parent.send_signal(how)
    try:
        parent.communicate(timeout=60)  # the pipe closes when its last writer has ended
    except subprocess.TimeoutExpired:
        os.kill(worker, signal.SIGKILL)
        pytest.fail(f"worker {worker} goes on after its parent")
