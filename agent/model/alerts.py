"""What the owner is told when he does not look: an alert, what was told of it, and what is on its way to whom."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class AlertKind(Enum):
    """What an alert is about."""

    PRICE = "price"
    REVIEW = "review"
    REBALANCE = "rebalance"
    REFUSAL = "refusal"
    HALT = "halt"
    ERROR = "error"
    LOW_GAS = "low_gas"
    ORDER = "order"
    PAUSED = "paused"
    HEARTBEAT = "heartbeat"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Alert:
    """Something to tell. `key` names it: the same key is not told again within its cooldown.

    One that is `lasting` holds for as long as it is handed in at each look; the others happen once each.
    """

    kind: AlertKind
    key: str
    text: str
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class AlertState:
    """What is known of one key. `since_s` is since when it lasts, None where it does not; `untold` how often it happened since it
    was told last, at `told_s`; `raised_s` when the newest of these began, which is the order of telling. Unix seconds.
    """

    key: str
    kind: AlertKind
    text: str
    raised_s: int
    since_s: int | None = None
    untold: int = 0
    told_s: int | None = None


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """One alert on its way to one target. `id` is its number in the store."""

    id: int
    target: str
    kind: AlertKind
    text: str
    made_s: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a letter: empty `why` where it arrived."""

    letter: AlertMessage
    why: str
    at_s: int


@dataclass(frozen=True, slots=True)
class AlertTargetState:
    """How a target did: last success and failure in Unix seconds, failures in a row with the last reason, letters given up
    because too many waited, and letters that still wait.
    """

    name: str
    delivered_s: int | None = None
    failed_s: int | None = None
    failures: int = 0
    why: str = ""
    lost: int = 0
    waiting: int = 0
