"""Moments in the life of a transaction, for progress display and tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.model import Intent


@dataclass(frozen=True, slots=True)
class SubmissionEvent:
    """One moment in the life of a transaction, for progress display and tests.

    Names: `before:<state>` and `after:<state>` around each durable write, `before:send`,
    `after:send`, `fate-unknown`, `not-taken`, `waiting`, `confirming`. `intent` is its state at
    that moment, None before it was written.
    """

    name: str
    intent: Intent | None
    text: str = ""


OnEvent = Callable[[SubmissionEvent], None]


def ignore_event(_event: SubmissionEvent) -> None:
    """Discard the event."""
