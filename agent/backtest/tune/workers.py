"""Run the chunks of a search on local cores or on a Dask cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

from agent.backtest.tune.jobs import RunEngine, RunResult, TuneChunk, TuneJob
from agent.backtest.workers import run_in_processes
from agent.errors import ConfigError, Refused, Retryable, TrimtabError, printable_text

# --- Chunks on this machine: kernel chunks in threads, whole steps in processes.


ChunkResult = tuple[TuneChunk, list[RunResult]]


def run_locally(job: TuneJob, chunks: Sequence[TuneChunk], cores: int) -> Iterator[ChunkResult]:
    """Yield the chunks with their results in order of completion.

    Raises the errors of a run; Retryable if a process dies.
    """
    for chunk in chunks:
        if chunk.engine is RunEngine.KERNEL:
            yield chunk, job.do(chunk, cores)
    steps = [chunk for chunk in chunks if chunk.engine is RunEngine.FULL]
    if min(cores, len(steps)) > 1:
        kept = "; what was done before is kept where --out names a folder"
        yield from run_in_processes(job, steps, min(cores, len(steps)), f"a process of the search died, perhaps for lack of memory{kept}")
    else:
        yield from ((chunk, job.do(chunk)) for chunk in steps)


PATIENCE_S = 10
"""Timeout for the scheduler's first answer and for reconnecting."""
_ADDRESS = re.compile(r"(tcp|tls|ws|wss)://[^\s/@]+:[0-9]{1,5}")
RESULTS_KEPT_HINT = "what was done before is kept where --out names a folder"


def check_address(address: str) -> None:
    """Raise ConfigError for an invalid scheduler address."""
    if _ADDRESS.fullmatch(address) is None:
        raise ConfigError(f"--scheduler: {printable_text(address)[:80]!r} is not an address", "write it as dask prints it: tcp://HOST:8786")


def run_on_cluster(job: TuneJob, chunks: Sequence[TuneChunk], address: str) -> Iterator[ChunkResult]:
    """Yield the chunks with their results in order of completion; each chunk is sent to a worker
    once. Dask unpickles the workers' answers here: name only a scheduler that you trust to run code
    on this machine. Raises ConfigError without the package, without workers, or for workers of
    another version; Retryable if the scheduler does not answer or dies; and the errors of a run. If
    all workers leave, it waits for a new one.
    """
    distributed = _package()
    client = _connected(distributed, address)
    try:
        _require_workers(client)
        yield from _answers(distributed, client, job, chunks)
    except (OSError, TimeoutError, distributed.CancelledError, distributed.comm.CommClosedError) as error:
        raise Retryable(
            f"--scheduler: {address} was lost ({type(error).__name__}); {RESULTS_KEPT_HINT}",
            "restart it, then run the same command again",
        ) from None
    finally:
        client.close(timeout=1)


def run_chunk(job: TuneJob, chunk: TuneChunk) -> list[RunResult]:
    """Run a chunk on a worker."""
    return job.do(chunk)


def local_version() -> str:
    """Return the version of this package on the executing machine."""
    return version("trimtab")


def _package() -> Any:
    try:
        return import_module("distributed")
    except ImportError:
        raise ConfigError("--scheduler needs the package distributed", "pip install 'trimtab[cluster]'") from None


def _connected(distributed: Any, address: str) -> Any:
    try:
        return distributed.Client(address, timeout=PATIENCE_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise Retryable(
            f"--scheduler: {address} does not answer ({type(error).__name__})", "start one with: dask scheduler, dask worker ADDRESS"
        ) from None


def _require_workers(client: Any) -> None:
    found = client.run(local_version)
    if not found:
        raise ConfigError("--scheduler: it has no workers", "start some with: dask worker ADDRESS")
    others = sorted({text for text in found.values() if text != local_version()})
    if others:
        raise ConfigError(
            f"--scheduler: workers have trimtab {', '.join(others)}, here is {local_version()}", "install the same version there"
        )


def _answers(distributed: Any, client: Any, job: TuneJob, chunks: Sequence[TuneChunk]) -> Iterator[ChunkResult]:
    shared = client.scatter(job, broadcast=True, hash=False)
    waiting = {client.submit(run_chunk, shared, chunk, pure=False): chunk for chunk in chunks}
    for future in distributed.as_completed(list(waiting), loop=client.loop):
        if future.status == "error":
            raise _failed(future.exception(timeout=PATIENCE_S))
        found: list[RunResult] = future.result(timeout=PATIENCE_S)
        yield waiting.pop(future), found
        future.release()


def _failed(error: BaseException) -> TrimtabError:
    """Return the error that a run raised on its worker; wrap foreign errors, such as repeatedly
    lost workers.
    """
    if isinstance(error, TrimtabError):
        return error
    return Refused(f"--scheduler: a worker failed: {type(error).__name__}; {RESULTS_KEPT_HINT}", remedy="see its log")
