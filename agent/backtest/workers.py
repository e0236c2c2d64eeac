"""Run work in chunks on processes of this machine."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from typing import Any, Protocol, TypeVar

from agent.errors import Retryable

C = TypeVar("C")
R = TypeVar("R")
C_contra = TypeVar("C_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
_AHEAD = 2
"""Chunks queued per process, so that none is idle."""
_job: ChunkWorker[Any, Any] | None = None


class ChunkWorker(Protocol[C_contra, R_co]):
    """Work whose chunks can run independently, in other processes too."""

    def do(self, chunk: C_contra, /) -> R_co:
        """Result of a chunk."""


def run_in_processes(job: ChunkWorker[C, R], chunks: Sequence[C], processes: int, lost: str) -> Iterator[tuple[C, R]]:
    """Yield the chunks with their results, in order of completion, from that many processes.

    Raises the errors of a chunk; Retryable saying `lost` for a process that died.
    """
    # Fresh processes: a fork would share this process's threads and open databases.
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (job,)) as pool:
        waiting: dict[Future[R], C] = {}
        rest = iter(chunks)
        try:
            while True:
                while len(waiting) < _AHEAD * processes and (chunk := next(rest, None)) is not None:
                    with _sigint_blocked():
                        waiting[pool.submit(_do, chunk)] = chunk
                if not waiting:
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool:
            raise Retryable(lost, "run the same command again, with fewer --cores if memory is short") from None
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Block Ctrl-C in processes started inside, which a terminal signals too: their parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(job: ChunkWorker[Any, Any]) -> None:
    """Set up a new process: the job, and a watch that ends it with its parent, which may be killed."""
    global _job  # noqa: PLW0603  what a process of a pool knows is its own, and set once
    _job = job
    signal.signal(signal.SIGTERM, lambda _signal, _frame: _leave())
    above = parent_process()
    if above is not None:
        threading.Thread(target=_end_with, args=(above.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    _leave()


def _leave() -> None:
    """Exit at once and silently, after removing temporary folders."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    atexit._run_exitfuncs()
    os._exit(1)


def _do(chunk: Any) -> Any:
    if _job is None:
        raise RuntimeError("a worker process did not start")
    return _job.do(chunk)
