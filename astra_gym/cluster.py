"""Spread work over a Ray cluster: the processors of this machine, or of many."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")

RETRIES = 3
"""How often a job is given out again after its worker has died: one that kills every worker must come to an end."""
CONNECT_SECONDS = 5.0


def import_ray() -> ModuleType:
    """Ray.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(f'ray: cannot be imported ({error}); pip install "astra-gym[ray]"') from error
    return ray


@contextmanager
def joined(address: str) -> Iterator[None]:
    """Within this context, this process belongs to a Ray cluster; it stays in one that it belongs to already.

    Args:
        address: "local" starts a cluster of this machine's processors, which ends with the context; "auto" or host:port
            joins one that this machine is part of (``ray start``).

    Raises:
        ConnectionError: if there is no such cluster, it runs other versions of Ray or Python, or cannot be started.
        ImportError: if Ray is not installed.
        ValueError: if the address is none.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    doing = "start a cluster here" if address == "local" else f"join {address!r}"
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to Ray's makers unasked
        options["include_dashboard"] = False
    else:
        _require_reachable(address)
    try:
        ray.init(address=address, **options)
    except Exception as error:  # a machine that is too busy to start one, for instance, raises just that
        ray.shutdown()
        raise ConnectionError(f"ray: cannot {doing} ({' '.join(str(error).split())})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_reachable(address: str) -> None:
    """Ray itself tries for minutes and then ends the process."""
    target = os.environ.get("RAY_ADDRESS") or address if address == "auto" else address  # as Ray does
    if target == "auto":
        return
    host, colon, port = target.rpartition(":")
    if not colon or not host or "/" in host or not port.isdigit():
        raise ValueError(f"ray: got the address {target!r}, allowed are 'local', 'auto' and host:port")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"ray: no cluster answers at {target} ({error})") from error


def processors() -> tuple[int, int]:
    """Those of the joined cluster, and those of its largest machine."""
    ray = import_ray()
    machines = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return sum(machines), max(machines)


def spread(
    function: Callable[..., T], jobs: Sequence[tuple], num_cpus: int = 1, num_gpus: int = 0
) -> Iterator[tuple[int, T]]:
    """Call ``function(*job)`` for each job on the workers of the joined cluster.

    A job whose worker or machine dies is given out again. Jobs beyond those that keep the cluster busy wait here, so
    that results do not pile up. Whoever stops asking for results, or is interrupted, calls the running jobs off.

    Args:
        function: found by its module and name on every machine.
        jobs: its arguments.
        num_cpus: processors, and so threads, of a worker.
        num_gpus: of a worker.

    Yields:
        The job's index and what the function returned, as they come.

    Raises:
        RuntimeError: if the workers of one job die again and again.
        Exception: what the function raises.
    """
    ray = import_ray()
    remote = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=RETRIES)(function)
    waiting = iter(enumerate(jobs))
    running: dict[Any, int] = {}
    try:
        while True:
            room = max(1, 2 * processors()[0] // num_cpus) - len(running)
            running |= {remote.remote(*job): index for index, job in islice(waiting, max(0, room))}
            if not running:
                return
            (done, *_), _ = ray.wait(list(running))
            index = running.pop(done)
            yield index, _result(ray, done, f"{function.__name__}, job {index + 1} of {len(jobs)}")
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _result(ray: ModuleType, reference: Any, label: str) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause or error) from None
    except ray.exceptions.RayError as error:
        reason = str(error).partition("\n")[0]
        raise RuntimeError(f"ray: {label} was lost {RETRIES + 1} times ({reason})") from error
