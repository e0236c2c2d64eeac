"""Runs user-defined signals, each in a separate process without the environment's secrets. After an
error, an invalid answer or a timeout there are no new targets, only the reason.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from agent.errors import ConfigError
from agent.foreign_text import failure_text, read_json
from agent.layers.signals.policy import checked_answer
from agent.model import SignalAnswer, SignalRequest, SignalSettings, SignalView
from agent.signals.worker import read_pinned, signal_package

MAX_ANSWER_BYTES = 65_536
PASSED_VARIABLES = ("PATH", "LANG", "LC_ALL", "HOME", "SYSTEMROOT", "VIRTUAL_ENV")
"""Environment variables passed to a signal's process; they exclude endpoints, keys and
passwords.
"""


class _Worker:
    """One running process of a signal, and `source`, which provides what it runs."""

    def __init__(self, settings: SignalSettings, folder: Path | None, source: str) -> None:
        self.source = source
        environment = {
            variable: os.environ[variable]
            for variable in PASSED_VARIABLES
            if variable in os.environ
        }
        python_path = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(  # noqa: S603 our own program; the name is that of the config
            [sys.executable, "-m", "agent.signals.worker", *_worker_arguments(settings, folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment | {"PYTHONPATH": python_path, "PYTHONHASHSEED": "0"},
            text=False,
        )

    def ask(self, request_line: str, timeout_s: float) -> str:
        """Return the answer to one line. Raises TimeoutError, and OSError if the process ended."""
        worker_output = self.process.stdout
        worker_input = self.process.stdin
        if worker_output is None or worker_input is None:
            raise OSError("its process has no pipe")
        end_s = time.monotonic() + timeout_s
        os.set_blocking(worker_input.fileno(), False)
        self._write(worker_input, request_line.encode() + b"\n", end_s)
        answer_bytes = b""
        while not answer_bytes.endswith(b"\n"):
            ready_pipes, _, _ = select.select(
                [worker_output], [], [], max(0.0, end_s - time.monotonic())
            )
            if not ready_pipes:
                raise TimeoutError
            chunk = os.read(worker_output.fileno(), MAX_ANSWER_BYTES)
            if not chunk:
                raise OSError("its process ended")
            answer_bytes += chunk
            if len(answer_bytes) > MAX_ANSWER_BYTES:
                raise OSError("its answer is too long")
        return answer_bytes.decode()

    @staticmethod
    def _write(worker_input: IO[bytes], unsent_bytes: bytes, end_s: float) -> None:
        while unsent_bytes:
            _, ready_pipes, _ = select.select(
                [], [worker_input], [], max(0.0, end_s - time.monotonic())
            )
            if not ready_pipes:
                raise TimeoutError
            unsent_bytes = unsent_bytes[os.write(worker_input.fileno(), unsent_bytes) :]

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _worker_arguments(settings: SignalSettings, folder: Path | None) -> list[str]:
    if not settings.file:
        return [settings.name]
    function_name = settings.file.rpartition(":")[2]
    path = _file_path(settings, folder)
    return [settings.name, str(path.absolute()), function_name, settings.sha256]


def _file_path(settings: SignalSettings, folder: Path | None) -> Path:
    return (folder or Path()) / settings.file.rpartition(":")[0]


START_ALLOWANCE_S = 20
"""Time allowed for a process to start, in addition to the signal's timeout."""


class SignalRunner(Protocol):
    """Answers the signals that are due."""

    def answers(self, requests: Sequence[SignalRequest]) -> tuple[SignalAnswer, ...]:
        """Return the answer to each request, in order."""


class SignalHost:
    """Runner of requested signals, each in a process that starts at its first request. Files of
    signals are in `folder`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._workers: dict[str, _Worker] = {}
        weakref.finalize(self, _stop_all, self._workers)

    def answers(self, requests: Sequence[SignalRequest]) -> tuple[SignalAnswer, ...]:
        """Return the answer to each request, in order."""
        return tuple(self._answer(request) for request in requests)

    def fault(self, settings: SignalSettings) -> str:
        """Return why a signal that is not due could not be started; empty if it could."""
        try:
            _source(settings)
            if settings.file:
                read_pinned(_file_path(settings, self._folder), settings.sha256)
        except ConfigError as error:
            return error.message
        return ""

    def close(self) -> None:
        """End all processes."""
        _stop_all(self._workers)

    def _answer(self, request: SignalRequest) -> SignalAnswer:
        settings = request.settings
        empty_answer = SignalAnswer(settings.name, request.owner)
        if request.why:
            return _failed_answer(empty_answer, request.why)
        try:
            source = _source(settings)
        except ConfigError as error:
            return _failed_answer(empty_answer, error.message)
        timeout_s = float(settings.timeout_s)
        worker = self._workers.get(settings.name)
        try:
            if worker is None:
                worker = self._workers[settings.name] = _Worker(settings, self._folder, source)
                timeout_s += START_ALLOWANCE_S
            reply = read_json(worker.ask(_request_line(request.view), timeout_s))
        except TimeoutError:
            why = f"it gave no answer within {settings.timeout_s} s"
        except (OSError, ValueError) as error:
            why = f"it failed: {failure_text(error)}"
        else:
            return checked_answer(request, reply, worker.source)
        if worker is not None:
            self._workers.pop(settings.name).stop()
        return _failed_answer(empty_answer, why)


def _source(settings: SignalSettings) -> str:
    """Return what provides a signal. Raises ConfigError if no package or several do."""
    if settings.file:
        return f"{settings.file} {settings.sha256[:12]}"
    return signal_package(settings.name)


def _failed_answer(answer: SignalAnswer, why: str) -> SignalAnswer:
    return SignalAnswer(answer.name, answer.owner, why=why)


def _stop_all(workers: dict[str, _Worker]) -> None:
    while workers:
        workers.popitem()[1].stop()


def _request_line(view: SignalView) -> str:
    view_fields: dict[str, Any] = {
        "now_s": view.now_s,
        "numeraire": view.numeraire,
        "prices": {
            symbol: [[bar.at_s, bar.close] for bar in bars] for symbol, bars in view.prices.items()
        },
        "weights": dict(view.weights),
        "futures": dict(view.futures),
        "markets": dict(view.markets),
        "options": dict(view.options),
        "free": list(view.free),
        "targets": dict(view.targets),
    }
    return json.dumps(view_fields, sort_keys=True, allow_nan=False)
