"""Spread work over processes of this machine; over many machines: :mod:`astra_gym.cluster`."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes that draw to no screen, compute with one thread each and end when this one is killed.

    Whoever leaves the context early calls off what has not begun.

    Raises:
        RuntimeError: if one of them is killed, for instance because memory is short.
    """
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _prepare_worker)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise RuntimeError(
            "workers: one died (is memory short?); what was finished is kept, the same command goes on from there"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_worker() -> None:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ["OMP_NUM_THREADS"] = "1"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
