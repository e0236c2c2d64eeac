"""Run the chunks of a search on local cores or on a Dask cluster."""

from __future__ import annotations

import atexit
import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from importlib.metadata import version
from multiprocessing import connection, get_context, parent_process
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from agent.errors import ConfigError, ErrorCode, Refused, Retryable, TrimtabError, printable_text
from agent.foreign_text import failure_text, failure_words
from agent.interrupts import allow_termination, interrupts_blocked

if TYPE_CHECKING:
    from agent.backtest.tune.jobs import RunResult, TuneChunk, TuneJob


C = TypeVar("C")
R = TypeVar("R")
C_contra = TypeVar("C_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
_QUEUED_PER_PROCESS = 2
"""Chunks queued per process, so that none is idle."""
_job: ChunkJob[Any, Any] | None = None


class ChunkJob(Protocol[C_contra, R_co]):
    """Work in chunks that can run independently and in other processes."""

    def run(self, chunk: C_contra, /) -> R_co:
        """Return the result of a chunk."""


def run_in_processes(
    job: ChunkJob[C, R], chunks: Sequence[C], processes: int, lost_message: str
) -> Iterator[tuple[C, R]]:
    """Yield the chunks with their results, in order of completion, from that many processes.

    Raises the errors of a chunk; Retryable with the message `lost_message` if a process died. An
    error, an interrupt and a caller that needs no more results end the processes at once.
    """
    # Spawn fresh processes: a fork would share this process's threads and open databases.
    with ProcessPoolExecutor(processes, get_context("spawn"), _init_process, (job,)) as executor:
        chunk_by_future: dict[Future[R], C] = {}
        remaining_chunks = iter(chunks)
        try:
            while True:
                while (
                    len(chunk_by_future) < _QUEUED_PER_PROCESS * processes
                    and (chunk := next(remaining_chunks, None)) is not None
                ):
                    with interrupts_blocked():
                        chunk_by_future[executor.submit(_run_in_process, chunk)] = chunk
                if not chunk_by_future:
                    return
                for future in wait(chunk_by_future, return_when=FIRST_COMPLETED).done:
                    yield chunk_by_future.pop(future), future.result()
        except BrokenProcessPool:
            raise Retryable(
                lost_message,
                "run the same command again, with fewer cores if memory is short",
                code=ErrorCode.WORKER,
            ) from None
        except BaseException:
            for process in list((executor._processes or {}).values()):
                process.kill()  # the executor waits for the chunks that they run
            raise


def _init_process(job: ChunkJob[Any, Any]) -> None:
    """Set up a new process: its job, and a thread that ends it with its parent."""
    global _job  # noqa: PLW0603  set once in each process of the pool
    _job = job
    signal.signal(signal.SIGTERM, lambda _signal, _frame: _exit_now())
    allow_termination()
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with_parent, args=(parent.sentinel,), daemon=True).start()


def _exit_with_parent(sentinel: int) -> None:
    connection.wait([sentinel])
    _exit_now()


def _exit_now() -> None:
    """Exit immediately and silently, after removing temporary folders."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    atexit._run_exitfuncs()
    os._exit(1)


def _run_in_process(chunk: Any) -> Any:
    if _job is None:
        raise RuntimeError("a worker process did not start")
    return _job.run(chunk)


ChunkResult: TypeAlias = "tuple[TuneChunk, list[RunResult]]"
RESULTS_KEPT_HINT = "finished runs are kept if --out names a folder"


def run_locally(job: TuneJob, chunks: Sequence[TuneChunk], cores: int) -> Iterator[ChunkResult]:
    """Yield the chunks with their results in order of completion.

    Raises the errors of a run; Retryable if a process dies.
    """
    from agent.backtest.tune.jobs import RunEngine

    for chunk in chunks:
        if chunk.engine is RunEngine.KERNEL:
            yield chunk, job.run(chunk, cores)
    full_engine_chunks = [chunk for chunk in chunks if chunk.engine is RunEngine.FULL]
    if min(cores, len(full_engine_chunks)) > 1:
        yield from run_in_processes(
            job,
            full_engine_chunks,
            min(cores, len(full_engine_chunks)),
            f"a process of the search died, perhaps for lack of memory; {RESULTS_KEPT_HINT}",
        )
    else:
        yield from ((chunk, job.run(chunk)) for chunk in full_engine_chunks)


SCHEDULER_TIMEOUT_S = 10
"""Timeout for the scheduler's first answer and for reconnecting."""
_SCHEDULER_PATTERN = re.compile(r"(tcp|tls|ws|wss)://[^\s/@]+:[0-9]{1,5}")


def check_scheduler_address(scheduler_address: str) -> None:
    """Raise ConfigError for an invalid scheduler address."""
    if _SCHEDULER_PATTERN.fullmatch(scheduler_address) is None:
        raise ConfigError(
            f"--run scheduler: {printable_text(scheduler_address)[:80]!r} is not an address",
            "write it as dask prints it: tcp://HOST:8786",
        )


def run_on_cluster(
    job: ChunkJob[C, R], chunks: Sequence[C], scheduler_address: str, hint: str = RESULTS_KEPT_HINT
) -> Iterator[tuple[C, R]]:
    """Yield the chunks with their results in order of completion; each chunk is sent to one worker.

    Dask unpickles the workers' answers here: only use a scheduler that may run code on this
    machine. If all workers leave, this waits for a new worker. Raises ConfigError without the
    package, without workers, or for workers of another version; Retryable if the scheduler does not
    answer or dies; and the errors of a run.
    """
    distributed = _import_distributed()
    client = _connect(distributed, scheduler_address)
    try:
        _require_workers(client)
        yield from _cluster_results(distributed, client, job, chunks, hint)
    except (
        OSError,
        TimeoutError,
        distributed.CancelledError,
        distributed.comm.CommClosedError,
    ) as error:
        raise Retryable(
            f"--run scheduler: {scheduler_address} was lost: {failure_words(error)}; {hint}",
            "restart it, then run the same command again",
            code=ErrorCode.SCHEDULER,
        ) from None
    finally:
        client.close(timeout=1)


def run_chunk(job: ChunkJob[C, R], chunk: C) -> R:
    """Run a chunk on a worker."""
    return job.run(chunk)


def local_version() -> str:
    """Return the version of this package on the executing machine."""
    return version("trimtab")


def _import_distributed() -> Any:
    try:
        return import_module("distributed")
    except ImportError:
        raise ConfigError(
            "--run scheduler needs the package distributed", "pip install 'trimtab[cluster]'"
        ) from None


def _connect(distributed: Any, scheduler_address: str) -> Any:
    try:
        return distributed.Client(
            scheduler_address, timeout=SCHEDULER_TIMEOUT_S, set_as_default=False
        )
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise Retryable(
            f"--run scheduler: {scheduler_address} does not answer: {failure_text(error)}",
            "start one with: dask scheduler, dask worker ADDRESS",
            code=ErrorCode.SCHEDULER,
        ) from None


def _require_workers(client: Any) -> None:
    version_by_worker = client.run(local_version)
    if not version_by_worker:
        raise ConfigError(
            "--run scheduler: it has no workers", "start a worker with: dask worker ADDRESS"
        )
    other_versions = sorted(
        {
            worker_version
            for worker_version in version_by_worker.values()
            if worker_version != local_version()
        }
    )
    if other_versions:
        raise ConfigError(
            f"--run scheduler: workers have trimtab {', '.join(other_versions)}, this machine has {local_version()}",
            "install the same version on both",
        )


def _cluster_results(
    distributed: Any, client: Any, job: ChunkJob[C, R], chunks: Sequence[C], hint: str
) -> Iterator[tuple[C, R]]:
    job_future = client.scatter(job, broadcast=True, hash=False)
    chunk_by_future = {
        client.submit(run_chunk, job_future, chunk, pure=False): chunk for chunk in chunks
    }
    for chunk_future in distributed.as_completed(list(chunk_by_future), loop=client.loop):
        if chunk_future.status == "error":
            raise _worker_error(chunk_future.exception(timeout=SCHEDULER_TIMEOUT_S), hint)
        run_results: R = chunk_future.result(timeout=SCHEDULER_TIMEOUT_S)
        yield chunk_by_future.pop(chunk_future), run_results
        chunk_future.release()


def _worker_error(error: BaseException, hint: str) -> TrimtabError:
    """Return the error that a run raised on its worker; wrap foreign errors, such as repeatedly
    lost workers.
    """
    if isinstance(error, TrimtabError):
        return error
    return Refused(
        f"--run scheduler: a worker failed: {failure_text(error)}; {hint}",
        remedy="see the log of the worker",
        code=ErrorCode.WORKER,
    )
