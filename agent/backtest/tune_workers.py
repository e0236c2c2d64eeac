"""Does the chunks of a search on this machine: those of the kernel on all cores by threads, whole steps by processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.backtest.tune_job import Chunk, Engine, Found, Job
from agent.backtest.workers import by_processes

Done = tuple[Chunk, list[Found]]


def local(job: Job, chunks: Sequence[Chunk], cores: int) -> Iterator[Done]:
    """The chunks with what came of them, in the order in which they are done. Raises what a run raises; Retryable for a lost process."""
    for chunk in chunks:
        if chunk.engine is Engine.KERNEL:
            yield chunk, job.do(chunk, cores)
    steps = [chunk for chunk in chunks if chunk.engine is Engine.FULL]
    if min(cores, len(steps)) > 1:
        kept = "; what was done before is kept where --out names a folder"
        yield from by_processes(job, steps, min(cores, len(steps)), f"a process of the search died, perhaps for lack of memory{kept}")
    else:
        yield from ((chunk, job.do(chunk)) for chunk in steps)
