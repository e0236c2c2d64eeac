"""Rows of triggers: notation in the config, rules of a class, and the result of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from agent.model import AssetDrift, History, Portfolio, Trigger

Signal = tuple[str, str]
"""Price signal: a kind, and its token."""


@dataclass(frozen=True, slots=True)
class TriggerInput:
    """Input of an evaluation at block time `now_s`. `drifts` carry the trigger's bands.

    A schedule's review is late by `history.delay_ppm` millionths of its window, `jitter_bps` of the
    time since the last review.
    """

    drifts: Sequence[AssetDrift]
    now_s: int
    history: History
    jitter_bps: int = 0


@dataclass(frozen=True, slots=True)
class TriggerResult:
    """A trigger's result. `next_s` is the next due time of a schedule; None means the next tick.

    `due` is true if a schedule asked for a review now, whether or not something is to be done;
    `reviews` are the names under which the store keeps such schedules. `by_time` is true if a
    schedule fired it regardless of prices; else `signals` are the price signals that did. `waits_s`
    is the execution time of this review's result.
    """

    fired: bool
    reason: str
    next_s: int | None
    due: bool = False
    reviews: tuple[str, ...] = ()
    by_time: bool = False
    signals: tuple[Signal, ...] = ()
    waits_s: int | None = None


@dataclass(frozen=True, slots=True)
class TriggerRules:
    """Rules of one class of agent/model/triggers.py.

    `validate` raises ConfigError for a trigger that could never fire, or has invalid numbers.
    `history_s` are the seconds of recorded prices that it needs. `plain` is true if nothing but its
    band and its schedule decides: a back-test then skips the bars in between, and may compile the
    rest.
    """

    validate: Callable[[Any], None]
    evaluate: Callable[[Any, TriggerInput], TriggerResult]
    describe: Callable[[Any, Portfolio], str]
    history_s: Callable[[Any], int] = lambda _: 0
    plain: bool = False


class KeyUnit(Enum):
    """Unit of a key, and what `build` gets: bps, seconds, a text, bps a year, or token addresses.

    Without symbols all assets but the numeraire count.
    """

    SHARE = "share"
    DURATION = "duration"
    TEXT = "text"
    SYMBOLS = "symbols"
    YEARLY_COST = "yearly cost"


@dataclass(frozen=True, slots=True)
class TriggerNotation:
    """Notation of one kind of trigger in the config.

    `build` takes the values of `keys` in order; a key that is not `required` may be None. `hint`
    explains the kind in a new config; without it the kind is only named there.
    """

    kind: str
    keys: Mapping[str, KeyUnit]
    build: Callable[..., Trigger]
    hint: str = ""
    required: bool = False
