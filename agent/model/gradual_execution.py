"""Gradual execution of a rebalance, and manual limit orders: terms and progress."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.model.plan import Goal
from agent.model.portfolio import Destination, ExecutionPace, TradeSide


@dataclass(frozen=True, slots=True)
class SliceDraw:
    """Random draw in millionths (0 to 999,999) for the size of a slice and for the wait after
    it.
    """

    size_ppm: int
    wait_ppm: int


@dataclass(frozen=True, slots=True)
class BudgetCarryover:
    """Budget that earlier gradual executions have used of a shared one.

    It ends at chain time `until_s`, set by the first of them. `wish` is the largest value that one
    of them was to move and `spent` their total loss, in numeraire base units. `arrival` are the
    prices that measure the next one too (empty: its own).
    """

    until_s: int
    wish: Fraction
    spent: Fraction
    arrival: tuple[tuple[str, Fraction], ...] = ()


class PurchaseKind(Enum):
    """Purchases that are not drift: the first purchase of a portfolio, and an invested deposit."""

    FIRST = "first purchase"
    TOP_UP = "top-up"


@dataclass(frozen=True, slots=True)
class GradualExecution:
    """Terms of one gradual execution, fixed at its start. Values in numeraire base units.

    It trades towards `goal` while the config's `targets_bps` by token, `destination`, `only` and
    `pace` stay unchanged. `arrival` are the reference prices by token at its start; everything is
    measured against them. `wish` is the value to move at those prices, by `sides` (token, +1 to buy
    or -1 to sell), in `rounds` equal slices. `budget` is the largest loss against them, gas
    included. No slice begins after `ends_s`, and the execution expires at `expires_s`. `first`
    decides the size of the first slice. `before` is the budget that earlier executions have used.
    `purchase` marks a purchase in parts, to the targets of its start; `came` is the amount that a
    top-up invests, base units by token.
    """

    pace: ExecutionPace
    targets_bps: tuple[tuple[str, int], ...]
    destination: Destination
    goal: Goal
    arrival: tuple[tuple[str, Fraction], ...]
    sides: tuple[tuple[str, int], ...]
    wish: Fraction
    rounds: int
    budget: Fraction | None
    began_s: int
    ends_s: int
    expires_s: int
    first: SliceDraw
    only: TradeSide | None = None
    before: BudgetCarryover | None = None
    purchase: PurchaseKind | None = None
    came: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ExecutionProgress:
    """Progress of a gradual execution, by the receipts of its transactions.

    `done` counts slices, `moved` and `spent` are values at arrival prices. `spent` is value given
    less value received, plus the gas of every mined transaction. The next slice is due at chain
    time `next_s`; `draw` decides its size and was stored before the slice before it. `sold` are
    base units by token that the wallet gave.
    """

    id: str
    campaign: GradualExecution
    done: int
    moved: Fraction
    spent: Fraction
    next_s: int
    draw: SliceDraw
    sold: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ExecutionSlice:
    """One slice: number, `part` of the remainder to trade, and the remainder `left`, numeraire base
    units.
    """

    number: int
    part: Fraction
    left: Fraction


@dataclass(frozen=True, slots=True)
class LimitOrder:
    """A manual limit order: sell `amount_in_raw` base units of `token_in` for `token_out` at
    `price` or better.

    `price` is base units of `token_out` per base unit of `token_in`, fees and impact included. The
    order expires at chain time `until_s`. `state` is "open", "filled", "cancelled" or "expired",
    with the reason in `why`; `note` describes the order.
    """

    id: str
    token_in: str
    token_out: str
    amount_in_raw: int
    price: Fraction
    until_s: int
    begun_s: int
    state: str = "open"
    why: str = ""
    note: str = ""
