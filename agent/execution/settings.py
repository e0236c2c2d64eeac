"""What the owner sets about execution, and what the executor tells while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.model import Intent


@dataclass(frozen=True, slots=True)
class Settings:
    """`confirmations` counts the block of the transaction itself. `max_fee_wei` is limits.gas_price (None: off).

    A transaction that waits longer than `bump_after_s` is sent again for more, or cancelled (None: it is left to wait).
    `gas_per_day_wei` is limits.gas_per_day (None: off).

    Waiting looks every `poll_s` seconds; after `mined_timeout_s` a transaction counts as late, after
    `final_timeout_s` a mined one is left for the next reconciliation to finish.
    """

    confirmations: int
    poll_s: float
    mined_timeout_s: float
    final_timeout_s: float
    max_fee_wei: int | None
    bump_after_s: float | None = None
    gas_per_day_wei: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One moment of a transaction's way, for progress display and for tests.

    Names: `before:<state>` and `after:<state>` around each durable write, `before:send`, `after:send`, `fate-unknown`,
    `not-taken`, `waiting`, `confirming`. `intent` is as it stood then, None before it was written.
    """

    name: str
    intent: Intent | None
    text: str = ""


OnEvent = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Listens to nothing."""
