"""Purchases in parts (limits.first_purchase): terms, progress, and their part of a decision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction


class PurchaseKind(Enum):
    """Purchase not caused by drift: the first purchase of a portfolio, or an invested deposit."""

    FIRST = "first purchase"
    TOP_UP = "top-up"


@dataclass(frozen=True, slots=True)
class Purchase:
    """Terms of one purchase in parts, fixed at its start. Values are in numeraire base units.

    `value_to_move` is the value to move in about `part_count` parts, one every `interval_s` seconds
    until chain time `expires_s`. `arrival_prices` are the reference prices by token at its start;
    value and loss are measured at these prices. `deposits` is the amount that a top-up invests,
    base units by token.
    """

    kind: PurchaseKind
    value_to_move: Fraction
    part_count: int
    interval_s: int
    arrival_prices: tuple[tuple[str, Fraction], ...]
    began_s: int
    expires_s: int
    deposits: tuple[tuple[str, int], ...] = ()

    @property
    def style(self) -> str:
        """Style of its parts, as of a gradual execution."""
        return "rounds"

    @property
    def max_loss(self) -> None:
        """Largest loss against the arrival prices: no limit of its own."""
        return


@dataclass(frozen=True, slots=True)
class PurchaseProgress:
    """Progress of a purchase, from the receipts of its transactions.

    `parts_done` counts parts. `moved_value` and `lost_value` are values at arrival prices;
    `lost_value` is value given less value received, plus the gas of every mined transaction. The
    next part is due at chain time `next_s`. `sold_raw_by_token` are the base units sold, by token.
    """

    id: str
    terms: Purchase
    parts_done: int
    moved_value: Fraction
    lost_value: Fraction
    next_s: int
    sold_raw_by_token: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PurchasePart:
    """One part: its number, the share `share` of the remaining value to trade, and that value
    `remaining_value` in numeraire base units.
    """

    number: int
    share: Fraction
    remaining_value: Fraction


@dataclass(frozen=True, slots=True)
class PurchaseResult:
    """What a decision means for purchases. `due_part` is the part to trade now, `end_reason` why the
    active purchase ends (empty: it does not), `new_purchase` the one that starts with the decision.
    """

    due_part: PurchasePart | None = None
    end_reason: str = ""
    new_purchase: Purchase | None = None

    def without_trades(self) -> PurchaseResult:
        """Return what remains of this result if the step trades nothing."""
        return replace(self, due_part=None, new_purchase=None)


NO_PURCHASE = PurchaseResult()
"""Part of a decision that concerns no purchase."""
