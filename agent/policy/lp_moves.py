"""What may be wanted of liquidity positions, before it becomes exact actions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from agent.model import ConfirmedPosition, LpTarget, LpV2Position, LpV3Position, Skipped
from agent.units import Value


@dataclass(frozen=True, slots=True)
class Out:
    """Takes `liquidity` out of a position."""

    one: ConfirmedPosition
    position: LpV2Position | LpV3Position
    liquidity: int
    reason: str


@dataclass(frozen=True, slots=True)
class Fees:
    """Collects what a V3 position has earned."""

    one: ConfirmedPosition
    position: LpV3Position
    reason: str


@dataclass(frozen=True, slots=True)
class In:
    """Provides at most `desired` base units: to the position `one`, or where that is None to a new one of `ticks` (V2 has none)."""

    target: LpTarget
    one: ConfirmedPosition | None
    ticks: tuple[int, int] | None
    desired: tuple[int, int]
    reason: str


Move = Out | Fees | In


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be done, in order, and why; what is left and why. `over` says that a budget is exceeded: an exit.

    An exit without moves cannot be done now: `skipped` says what stands in its way.
    """

    moves: tuple[Move, ...]
    reason: str
    skipped: tuple[Skipped, ...]
    over: bool = False


NOTHING = Wish((), "", ())


@dataclass(frozen=True, slots=True)
class Bounds:
    """What liquidity may lose and weigh, in shares of the portfolio; None where it is off."""

    loss: Fraction | None
    weight: Fraction | None

    def scaled(self, by: Fraction) -> Bounds:
        """A part of both."""
        return Bounds(None if self.loss is None else self.loss * by, None if self.weight is None else self.weight * by)


@dataclass(frozen=True, slots=True)
class Load:
    """What liquidity is expected to lose and is worth, and the portfolio's total, numeraire base units."""

    loss: Value
    weight: Value
    total: Value

    def within(self, bounds: Bounds) -> bool:
        """Whether both are at or below their bounds."""
        return not self.over_loss(bounds) and not self.over_weight(bounds)

    def over_loss(self, bounds: Bounds) -> bool:
        """Whether the expected loss is above its bound."""
        return bounds.loss is not None and self.loss > bounds.loss * self.total

    def over_weight(self, bounds: Bounds) -> bool:
        """Whether the worth is above its bound."""
        return bounds.weight is not None and self.weight > bounds.weight * self.total
