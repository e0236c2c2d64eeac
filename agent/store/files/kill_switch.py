"""The kill switch: a file beside the store, or the switch inside it; an unreadable switch counts as paused (T14)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.errors import OperatorNeeded, TrimtabError


class PauseStore(Protocol):
    """Part of a store that the kill switch uses; `paused()` has `.paused` and `.reason`."""

    def paused(self) -> PauseRecord:
        """Present state of the switch in the store."""
        ...

    def pause(self, reason: str, now_s: int, hard: bool = False) -> None:
        """Turn the switch on; one at hard stays there until `resume`."""
        ...

    def resume(self, reason: str, now_s: int) -> None:
        """Turn the switch off."""
        ...


class PauseRecord(Protocol):
    """State of the switch in the store."""

    @property
    def paused(self) -> bool:
        """True if the switch is on."""
        ...

    @property
    def reason(self) -> str:
        """Reason for the last change."""
        ...

    @property
    def hard(self) -> bool:
        """True if pending transactions are cancelled and allowances revoked as well."""
        ...


@dataclass(frozen=True, slots=True)
class KillSwitchState:
    """State of both switches; `paused` is None if they could not be read: treat None as True.

    `hard` asks to cancel pending transactions and to revoke allowances: those transactions alone may be sent.
    """

    paused: bool | None
    reason: str
    hard: bool = False


def pause_file(store_file: Path) -> Path:
    """Path of the file whose presence pauses the agent: `touch trimtab.db.paused` needs no program and no free disk."""
    return store_file.with_name(store_file.name + ".paused")


class KillSwitch:
    """Kill switch: paused if either the file or the store says so, or if either cannot be read."""

    def __init__(self, file: Path, store: PauseStore) -> None:
        self.file = file
        self._store = store

    def read(self) -> KillSwitchState:
        """Read the present state of both switches."""
        try:
            present = _present(self.file)
            position = self._store.paused()
        except (OSError, TrimtabError) as error:
            return KillSwitchState(None, f"the kill switch cannot be read: {error}")
        if present:
            return KillSwitchState(True, position.reason if position.paused else f"{self.file} exists", position.paused and position.hard)
        return KillSwitchState(position.paused, position.reason, position.paused and position.hard)

    def is_paused(self) -> bool | None:
        """True when paused, None when unreadable; only False lets anything be sent."""
        return self.read().paused

    def is_hard(self) -> bool:
        """True if the switch was read and is at hard; an unreadable switch lets nothing be sent, not even cancels."""
        stopped = self.read()
        return stopped.paused is True and stopped.hard

    def pause(self, reason: str, now_s: int, hard: bool = False) -> None:
        """Pause by both switches; one is enough if the other cannot be written. Raises OperatorNeeded if neither can.

        Hard needs the store, where cancels are recorded: without it OperatorNeeded is raised, and the agent is paused all the same.
        """
        failures = []
        try:
            os.close(os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o600))
        except OSError as error:
            failures.append(str(error))
        try:
            self._store.pause(reason, now_s, hard)
        except TrimtabError as error:
            failures.append(error.message)
            if hard and len(failures) == 1:
                raise OperatorNeeded(
                    f"paused by {self.file}, but not hard: {error.message}", "free the store's disk, then trimtab pause --hard again"
                ) from error
        if len(failures) > 1:
            raise OperatorNeeded(f"cannot pause: {'; '.join(failures)}", "stop the process itself (SIGTERM)")

    def resume(self, reason: str, now_s: int) -> None:
        """Resume by both switches: the store first, so that a failure leaves the file and with it the pause."""
        self._store.resume(reason, now_s)
        try:
            self.file.unlink(missing_ok=True)
        except OSError as error:
            raise OperatorNeeded(f"cannot remove {self.file}: {error}", "remove it; nothing is sent while it exists") from error


def _present(file: Path) -> bool:
    try:
        file.lstat()
    except FileNotFoundError:
        return False
    return True
