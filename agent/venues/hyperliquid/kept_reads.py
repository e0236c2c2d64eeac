"""Answers of the venue that change rarely: kept for minutes, and used with their age while a newer
one cannot be read, because a reduction needs only account and prices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from agent.errors import Retryable
from agent.units import rough_duration

T = TypeVar("T")
MAX_KEPT_S = 86_400
"""Longest time for which a value is used without a newer one, seconds."""


class AccountModeStore(Protocol):
    """Record of the account's mode at the venue, which must be known also after a restart."""

    def account_mode(self, account: str) -> tuple[str, int]:
        """Return the recorded mode and its time in Unix seconds; ("", 0) without one."""

    def record_account_mode(self, account: str, mode: str, at_s: int) -> None:
        """Record the mode of an account. Raises PassingFault if that is not possible now."""


@dataclass(frozen=True, slots=True)
class KeptValue(Generic[T]):
    """A value of the venue; None if there is none of the last day. `fault` says why it may be old,
    with its age; empty if it is current. `is_of_basis` is false if what it depends on has changed
    since it was read. `is_new` is true if it was read just now.
    """

    value: T | None
    fault: str = ""
    is_of_basis: bool = True
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    value: Any
    read_s: int
    basis: object


class KeptReads:
    """The newest answers by name. A value is read again once it is older than its `fresh_s`, or
    once its `basis` (what it depends on, such as the account's cash) has changed.
    """

    def __init__(self, now_s: Callable[[], int], *, keeps_fresh: bool) -> None:
        """Set the clock. Without `keeps_fresh` every value is read in each look."""
        self._now_s = now_s
        self._keeps_fresh = keeps_fresh
        self._entries: dict[str, _Entry] = {}

    def read(
        self, name: str, read_value: Callable[[], T], fresh_s: int, basis: object = None
    ) -> KeptValue[T]:
        """Return the kept value, a new one, or the last one with the reason why there is no new
        one.
        """
        entry = self._entries.get(name)
        now_s = self._now_s()
        age_s = MAX_KEPT_S + 1 if entry is None else now_s - entry.read_s
        if (
            entry is not None
            and self._keeps_fresh
            and entry.basis == basis
            and 0 <= age_s < fresh_s
        ):
            return KeptValue(entry.value)
        try:
            value = read_value()
        except Retryable as error:
            if entry is None or not 0 <= age_s <= MAX_KEPT_S:
                return KeptValue(None, error.message, is_of_basis=False)
            fault = f"{error.message}; the value in use is {rough_duration(age_s)} old"
            return KeptValue(entry.value, fault, entry.basis == basis)
        self._entries[name] = _Entry(value, now_s, basis)
        return KeptValue(value, is_new=True)

    def has(self, name: str) -> bool:
        """Return whether a value of this name is kept."""
        return name in self._entries

    def restore(self, name: str, value: object, read_s: int) -> None:
        """Keep a value of an earlier process, which is read again once it can be."""
        self._entries[name] = _Entry(value, read_s, object())

    def drop(self, name: str) -> None:
        """Keep no value of this name."""
        self._entries.pop(name, None)

    def forget(self, name: str) -> None:
        """Let a value be read again in the next look, because an action may have changed it."""
        if (entry := self._entries.get(name)) is not None:
            self._entries[name] = _Entry(entry.value, entry.read_s, object())
