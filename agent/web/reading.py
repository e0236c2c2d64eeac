"""Processes that read the store and the chain. The process that serves pages loads neither, and
imports no module that could sign.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar, TypeVarTuple

from agent.errors import OperatorNeeded, Retryable, TrimtabError, internal_error
from agent.foreign_text import failure_words
from agent.interrupts import allow_termination, interrupts_blocked

Documents = dict[str, Any]
DocumentRead = Callable[[str], Documents]
"""A function that returns documents of a config, by name."""
STOP_TIMEOUT_S = 10
Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class AppProcess:
    """A process that calls functions of `agent.app`, one at a time; restarted if it died.
    `niceness` lowers its priority.
    """

    def __init__(self, niceness: int = 0) -> None:
        self._niceness = niceness
        self._pool: ProcessPoolExecutor | None = None

    def submit(
        self, function: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Future[Result]:
        """Call a function of agent/web/app_modules.py in the process. The future has its result, or
        raises its TrimtabError.
        """
        if self._pool is None:
            self._pool = self._new_pool()
        try:
            with interrupts_blocked():
                return self._pool.submit(_call, function, *arguments)
        except BrokenProcessPool:
            self._pool = self._new_pool()
            with interrupts_blocked():
                return self._pool.submit(_call, function, *arguments)

    async def call(
        self, function: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result:
        """Return the result of a function of agent/web/app_modules.py. Raises its TrimtabError, and
        Retryable if the process died.
        """
        try:
            return await asyncio.wrap_future(self.submit(function, *arguments))
        except TrimtabError:
            raise
        except Exception as error:
            message = f"the reading process ended: {failure_words(error)}"
            raise Retryable(message, "try again") from None

    def stop(self) -> None:
        """End the process, even during a read."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.kill()
            with suppress(RuntimeError):  # interrupted while the pool began its thread
                self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), _init_process, (self._niceness,)
        )


class ServingProcess:
    """A process that serves from its start until it is stopped, or until this process ends.
    `function` is called with the arguments after a function that it calls once, with its address,
    as soon as it answers.
    """

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        spawn_context = multiprocessing.get_context("spawn")
        self._receiver, sender = spawn_context.Pipe(duplex=False)
        self._process: SpawnProcess = spawn_context.Process(
            target=_serve_in_process, args=(sender, function, *arguments)
        )
        try:
            with interrupts_blocked():
                self._process.start()
            sender.close()
        except BaseException:
            self.stop()
            raise

    def wait(self) -> str:
        """Return the address once it answers; call it once. Raises the TrimtabError of the function,
        and Retryable if the process ended before.
        """
        try:
            address_or_error = self._receiver.recv()
        except EOFError:
            address_or_error = Retryable("the process ended before it answered", "try again")
        except BaseException:
            self.stop()
            raise
        if isinstance(address_or_error, TrimtabError):
            self.stop()
            raise address_or_error
        return str(address_or_error)

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def stop(self) -> None:
        """End it, with its own processes."""
        if self._process.pid is None:  # interrupted before its start
            return
        self._process.terminate()
        self._process.join(STOP_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve_in_process(sender: Connection, function: Callable[..., None], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    allow_termination()
    end_with_parent()
    try:
        _call(function, sender.send, *arguments)
    except TrimtabError as error:
        sender.send(error)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of the function with this function's module and name. Every error is a
    TrimtabError.
    """
    try:
        loaded_function: Callable[..., Any] = getattr(
            import_module(function.__module__), function.__name__
        )
        return loaded_function(*arguments)
    except TrimtabError:
        raise
    except OSError as error:
        if error.filename is None:
            raise internal_error(error, "see trimtab status") from None
        raise OperatorNeeded(
            f"{error.filename}: {failure_words(error)}",
            "give this process's user access to it (uid and group of a container: docs/service.md)",
        ) from None
    except Exception as error:
        raise internal_error(error, "see trimtab status") from None


def _init_process(niceness: int) -> None:
    """Set the niceness, ignore Ctrl-C, which the parent handles, and exit when the parent does."""
    os.nice(niceness)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    allow_termination()
    end_with_parent()


def end_with_parent() -> None:
    """Exit as soon as the process that started this one has ended."""
    if (parent := multiprocessing.parent_process()) is not None:

        def exit_after_parent() -> None:
            parent.join()
            os._exit(0)

        threading.Thread(target=exit_after_parent, daemon=True).start()
