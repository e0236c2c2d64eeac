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
from typing import Any, TypeVar, TypeVarTuple

from agent.errors import OperatorNeeded, Retryable, TrimtabError, internal_error
from agent.foreign_text import failure_words
from agent.interrupts import allow_termination, interrupts_blocked

Documents = dict[str, Any]
DocumentRead = Callable[[str], Documents]
"""A function that returns documents of a config, by name."""
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
