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
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from multiprocessing import connection, get_context, parent_process
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from agent.errors import ConfigError, ErrorCode, Refused, Retryable, TrimtabError, printable_text

if TYPE_CHECKING:
    from agent.backtest.tune.jobs import RunResult, TuneChunk, TuneJob


C = TypeVar("C")
R = TypeVar("R")
C_contra = TypeVar("C_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
_AHEAD = 2
"""Chunks queued per process, so that none is idle."""
_job: ChunkWorker[Any, Any] | None = None


class ChunkWorker(Protocol[C_contra, R_co]):
    """Work in chunks that can run independently and in other processes."""

    def do(self, chunk: C_contra, /) -> R_co:
        """Return the result of a chunk."""


def run_in_processes(
    job: ChunkWorker[C, R], chunks: Sequence[C], processes: int, lost: str
) -> Iterator[tuple[C, R]]:
    """Yield the chunks with their results, in order of completion, from that many processes.

    Raises the errors of a chunk; Retryable with the message `lost` if a process died.
    """
    # Spawn fresh processes: a fork would share this process's threads and open databases.
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
            raise Retryable(
                lost,
                "run the same command again, with fewer --cores if memory is short",
                code=ErrorCode.WORKER,
            ) from None
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Block Ctrl-C in processes started inside. A terminal signals them too, but their parent ends
    them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(job: ChunkWorker[Any, Any]) -> None:
    """Set up a new process: its job, and a thread that ends it with its parent."""
    global _job  # noqa: PLW0603  set once in each process of the pool
    _job = job
    signal.signal(signal.SIGTERM, lambda _signal, _frame: _leave())
    above = parent_process()
    if above is not None:
        threading.Thread(target=_end_with, args=(above.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    _leave()


def _leave() -> None:
    """Exit immediately and silently, after removing temporary folders."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    atexit._run_exitfuncs()
    os._exit(1)


def _do(chunk: Any) -> Any:
    if _job is None:
        raise RuntimeError("a worker process did not start")
    return _job.do(chunk)


ChunkResult: TypeAlias = "tuple[TuneChunk, list[RunResult]]"
RESULTS_KEPT_HINT = "finished runs are kept if --out names a folder"


def run_locally(job: TuneJob, chunks: Sequence[TuneChunk], cores: int) -> Iterator[ChunkResult]:
    """Yield the chunks with their results in order of completion.

    Raises the errors of a run; Retryable if a process dies.
    """
    from agent.backtest.tune.jobs import RunEngine

    for chunk in chunks:
        if chunk.engine is RunEngine.KERNEL:
            yield chunk, job.do(chunk, cores)
    steps = [chunk for chunk in chunks if chunk.engine is RunEngine.FULL]
    if min(cores, len(steps)) > 1:
        yield from run_in_processes(
            job,
            steps,
            min(cores, len(steps)),
            f"a process of the search died, perhaps for lack of memory; {RESULTS_KEPT_HINT}",
        )
    else:
        yield from ((chunk, job.do(chunk)) for chunk in steps)


PATIENCE_S = 10
"""Timeout for the scheduler's first answer and for reconnecting."""
_ADDRESS = re.compile(r"(tcp|tls|ws|wss)://[^\s/@]+:[0-9]{1,5}")


def check_address(address: str) -> None:
    """Raise ConfigError for an invalid scheduler address."""
    if _ADDRESS.fullmatch(address) is None:
        raise ConfigError(
            f"--scheduler: {printable_text(address)[:80]!r} is not an address",
            "write it as dask prints it: tcp://HOST:8786",
        )


def run_on_cluster(
    job: TuneJob, chunks: Sequence[TuneChunk], address: str
) -> Iterator[ChunkResult]:
    """Yield the chunks with their results in order of completion; each chunk is sent to one worker.

    Dask unpickles the workers' answers here: only use a scheduler that may run code on this
    machine. If all workers leave, this waits for a new worker. Raises ConfigError without the
    package, without workers, or for workers of another version; Retryable if the scheduler does not
    answer or dies; and the errors of a run.
    """
    distributed = _package()
    client = _connected(distributed, address)
    try:
        _require_workers(client)
        yield from _answers(distributed, client, job, chunks)
    except (
        OSError,
        TimeoutError,
        distributed.CancelledError,
        distributed.comm.CommClosedError,
    ) as error:
        raise Retryable(
            f"--scheduler: {address} was lost ({type(error).__name__}); {RESULTS_KEPT_HINT}",
            "restart it, then run the same command again",
            code=ErrorCode.SCHEDULER,
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
        raise ConfigError(
            "--scheduler needs the package distributed", "pip install 'trimtab[cluster]'"
        ) from None


def _connected(distributed: Any, address: str) -> Any:
    try:
        return distributed.Client(address, timeout=PATIENCE_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise Retryable(
            f"--scheduler: {address} does not answer ({type(error).__name__})",
            "start one with: dask scheduler, dask worker ADDRESS",
            code=ErrorCode.SCHEDULER,
        ) from None


def _require_workers(client: Any) -> None:
    versions = client.run(local_version)
    if not versions:
        raise ConfigError(
            "--scheduler: it has no workers", "start a worker with: dask worker ADDRESS"
        )
    others = sorted({text for text in versions.values() if text != local_version()})
    if others:
        raise ConfigError(
            f"--scheduler: workers have trimtab {', '.join(others)}, this machine has {local_version()}",
            "install the same version on both",
        )


def _answers(
    distributed: Any, client: Any, job: TuneJob, chunks: Sequence[TuneChunk]
) -> Iterator[ChunkResult]:
    shared = client.scatter(job, broadcast=True, hash=False)
    waiting = {client.submit(run_chunk, shared, chunk, pure=False): chunk for chunk in chunks}
    for future in distributed.as_completed(list(waiting), loop=client.loop):
        if future.status == "error":
            raise _failed(future.exception(timeout=PATIENCE_S))
        run_results: list[RunResult] = future.result(timeout=PATIENCE_S)
        yield waiting.pop(future), run_results
        future.release()


def _failed(error: BaseException) -> TrimtabError:
    """Return the error that a run raised on its worker; wrap foreign errors, such as repeatedly
    lost workers.
    """
    if isinstance(error, TrimtabError):
        return error
    return Refused(
        f"--scheduler: a worker failed: {type(error).__name__}; {RESULTS_KEPT_HINT}",
        remedy="see its log",
        code=ErrorCode.WORKER,
    )
