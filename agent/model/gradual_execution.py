"""A correction that is under way over time, and orders by hand that wait for their price: what began them, and how far they are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.model.plan import Goal
from agent.model.portfolio import Destination, ExecutionPace, TradeSide


@dataclass(frozen=True, slots=True)
class SliceDraw:
    """Chance in millionths, from 0 to 999,999: for the size of a round, and for the wait after it."""

    size_ppm: int
    wait_ppm: int


@dataclass(frozen=True, slots=True)
class BudgetCarryover:
    """What corrections before one have taken of its budget, since they began in the time that the first of them had.

    `wish` is the largest value that one of them was to move and `spent` what they lost together, in numeraire base units; at chain
    time `until_s` this is over. `arrival` are the prices that the next counts from too (none: it has its own).
    """

    until_s: int
    wish: Fraction
    spent: Fraction
    arrival: tuple[tuple[str, Fraction], ...] = ()


class PurchaseKind(Enum):
    """What is no drift: the first purchase of a portfolio, and a deposit that is invested."""

    FIRST = "first purchase"
    TOP_UP = "top-up"


@dataclass(frozen=True, slots=True)
class GradualExecution:
    """One correction that is carried out over time, as it began. Values in numeraire base units.

    It goes towards `goal`, as long as the config's `targets_bps` by token, `destination`, `only` and `pace` stay what they were.
    `arrival` are the reference prices by token at its start, against which everything is counted; `wish` is the value that was
    to be moved at them, by `sides` (token, +1 to buy or -1 to sell), in `rounds` fair shares; `budget` is the most that may be
    lost against them, gas included. No round begins after `ends_s`, and at `expires_s` it is over. `first` decides the size of
    the first round. `before` is what others have taken of its budget already. `purchase` says that it is no correction of drift but
    a purchase in parts, to the targets of then; of a top-up `came` is what it invests, base units by token.
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
    """How far a campaign is, by the receipts of its transactions: rounds `done`, value `moved` and `spent` at arrival prices.

    `spent` is what was given less what was got, and the gas of everything that was mined for it. The next round is due at
    chain time `next_s`; `draw` decides its size, and was written down before the round before it. `sold` are base units by token that
    the wallet gave in its rounds.
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
    """One round of a campaign: its number, the `part` of what is left that it does, and what is left, numeraire base units."""

    number: int
    part: Fraction
    left: Fraction


@dataclass(frozen=True, slots=True)
class LimitOrder:
    """A swap by hand that waits: sell `amount_in_raw` base units of `token_in` for `token_out` at `price` or better.

    `price` is base units of `token_out` per base unit of `token_in`, fee and impact included; at chain time `until_s` it expires.
    `state` is "open", "filled", "cancelled" or "expired", with the reason in `why`; `note` says it in words.
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
