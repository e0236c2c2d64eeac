"""Does the chunks of a search on this machine: the kernel's on all cores by threads, those of the full step by processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process

from agent.backtest.tune_job import Chunk, Engine, Found, Job
from agent.errors import Retryable

Done = tuple[Chunk, list[Found]]
_AHEAD = 2
"""Chunks that wait for each process, so that none is idle."""
_job: Job | None = None


def cores_here() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local(job: Job, chunks: Sequence[Chunk], cores: int) -> Iterator[Done]:
    """The chunks with what came of them, in the order in which they are done. Raises what a run raises; Retryable for a lost process."""
    for chunk in chunks:
        if chunk.engine is Engine.KERNEL:
            yield chunk, job.do(chunk, cores)
    steps = [chunk for chunk in chunks if chunk.engine is Engine.FULL]
    if min(cores, len(steps)) > 1:
        yield from _by_processes(job, steps, min(cores, len(steps)))
    else:
        yield from ((chunk, job.do(chunk)) for chunk in steps)


def _by_processes(job: Job, chunks: Sequence[Chunk], processes: int) -> Iterator[Done]:
    # Fresh processes: this one has threads and open databases, which a copy of it would share.
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (job,)) as pool:
        waiting: dict[Future[list[Found]], Chunk] = {}
        rest = iter(chunks)
        try:
            while True:
                while len(waiting) < _AHEAD * processes and (chunk := next(rest, None)) is not None:
                    waiting[pool.submit(_do, chunk)] = chunk
                if not waiting:
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool:
            raise Retryable(
                "a process of the search died, perhaps for lack of memory; what was done before is kept where --out names a folder",
                "run the same command again, with fewer --cores if memory is short",
            ) from None
        finally:
            for future in waiting:
                future.cancel()


def _begin(job: Job) -> None:
    """In a new process: the job, and a watch that ends it with whoever began it, who may be killed and unable to."""
    global _job  # noqa: PLW0603  what a process of a pool knows is its own, and set once
    _job = job
    above = parent_process()
    if above is not None:
        threading.Thread(target=_end_with, args=(above.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _do(chunk: Chunk) -> list[Found]:
    if _job is None:
        raise RuntimeError("a process of the pool was not begun")
    return _job.do(chunk)
