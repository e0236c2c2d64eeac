"""Gradual execution of a rebalance, and manual limit orders: terms and progress."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.model.plan import Goal
from agent.model.portfolio import Destination, ExecutionPace, TradeSide


@dataclass(frozen=True, slots=True)
class SliceDraw:
    """Random draws, in millionths (0 to 999,999), for the size of a slice and for the wait after
    it.
    """

    size_ppm: int
    wait_ppm: int


@dataclass(frozen=True, slots=True)
class BudgetCarryover:
    """Used part of a budget that successive gradual executions share.

    The budget ends at chain time `until_s`, set by the first execution. `wish` is the largest value
    that any execution was to move and `spent` the total loss, in numeraire base units. `arrival`
    are the prices against which the next execution is also measured (empty: its own start prices).
    """

    until_s: int
    wish: Fraction
    spent: Fraction
    arrival: tuple[tuple[str, Fraction], ...] = ()


class PurchaseKind(Enum):
    """Purchase not caused by drift: the first purchase of a portfolio, or an invested deposit."""

    FIRST = "first purchase"
    TOP_UP = "top-up"


@dataclass(frozen=True, slots=True)
class GradualExecution:
    """Terms of one gradual execution, fixed at its start. Values are in numeraire base units.

    It trades towards `goal` while the config's `targets_bps`, `destination`, `only` and `pace` stay
    unchanged. `arrival` are the reference prices by token at its start; value and loss are measured
    at these prices. `wish` is the value to move, on the `sides` (token, +1 to buy or -1 to sell),
    in `rounds` equal slices. `budget` is the largest loss, gas included (None: off). No slice
    begins after `ends_s`, and the execution expires at `expires_s`. `first` decides the size of the
    first slice. `before` is the used part of a shared budget. `purchase` marks a purchase in parts,
    towards the targets at its start; `came` is the amount that a top-up invests, base units by
    token.
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
    """Progress of the gradual execution `campaign`, from the receipts of its transactions.

    `done` counts slices. `moved` and `spent` are values at arrival prices; `spent` is value given
    less value received, plus the gas of every mined transaction. The next slice is due at chain
    time `next_s`; `draw` decides its size and is stored before the previous slice is sent. `sold`
    are the base units sold, by token.
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
    """One slice: its number, the share `part` of the remaining value to trade, and that value
    `left` in numeraire base units.
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
