"""What the owner asked of a running bot beside trading: money paid out or set aside, and the end of the bot."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class RequestKind(Enum):
    """A withdrawal of some money, or the end of the bot."""

    WITHDRAW = "withdraw"
    STOP = "stop"


class RequestState(Enum):
    """OPEN until everything of it is done; RELEASED where its owner took it back."""

    OPEN = "open"
    DONE = "done"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Payment:
    """Base units of an asset that leave, or are set aside; with `native` they are paid as native coin, `token` being its wrapped one."""

    token: str
    raw: int
    native: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """How far a withdrawal is that is raised in parts: `done` of about `count`, the next from `next_s` on; a run goes on with it until
    `until_s`. Both in chain time. `lacked_raw` is what lacked in base units when the part under way began; 0 while none is.
    """

    count: int
    done: int
    next_s: int
    until_s: int
    lacked_raw: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `to` is the confirmed payout address (None: nothing is paid). `to_stable`: everything is sold for the numeraire.

    `payments` of a withdrawal are fixed when it is asked for; a stop pays what there is in the end. `asked_s` is chain time.
    `parts` says how far one is that the market does not give at once (None: it is raised in one plan).
    """

    id: int
    kind: RequestKind
    payments: tuple[Payment, ...]
    to: str | None
    to_stable: bool
    state: RequestState
    asked_s: int
    parts: Parts | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A payment of an open withdrawal that was not made yet: so much of the asset is no part of the portfolio any more.

    `parts` is that of its withdrawal.
    """

    request: int
    payment: Payment
    parts: Parts | None = None


@dataclass(frozen=True, slots=True)
class Payout:
    """One transaction that pays: `token` (units.NATIVE for the native coin) to `to`, exactly `raw` base units, for a request.

    `most_raw` is the most that limits.payout_per_day leaves for it, worked out apart from the amount.
    """

    token: str
    to: str
    raw: int
    most_raw: int
    request: int
