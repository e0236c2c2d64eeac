"""Orders that keep an asset out of the market: entry, stop loss, take profit, trailing stop; and how each of them stands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.units import Price

PORTFOLIO = "portfolio"
"""In place of a token's address: the order is for the whole, by what a unit of it is worth."""


class OrderKind(Enum):
    """What an order does: buys only at or below a price, or sells at or below one, at or above one, or so far below the highest."""

    ENTRY = "entry"
    STOP_LOSS = "stop_loss"
    TAKE_PROFIT = "take_profit"
    TRAILING_STOP = "trailing_stop"


class OrderStage(Enum):
    """Where an order stands.

    WAITING: its price is not fixed yet. ARMED: it watches. FIRED: an exit is being sold, an entry may be bought. DONE: sold, and
    out until its owner arms it anew. OFF: its owner has taken it out of force.
    """

    WAITING = "waiting"
    ARMED = "armed"
    FIRED = "fired"
    DONE = "done"
    OFF = "off"


class Absent(Enum):
    """Where the weight of an asset goes that is out, or waits for its entry: into the numeraire, or to the others in proportion."""

    CASH = "cash"
    REDISTRIBUTE = "redistribute"


@dataclass(frozen=True, slots=True)
class Terms:
    """One order of the config. Exactly one of `price` and `share_bps`.

    `price` is in numeraire base units per token base unit, of a trailing stop its distance from the highest price; `share_bps` is
    how far from the price at arming (of exits of an asset that has an entry: from the entry) it lies, of a trailing stop from the highest.
    """

    token: str
    kind: OrderKind
    price: Price | None = None
    share_bps: int | None = None


@dataclass(frozen=True, slots=True)
class Orders:
    """The orders of a portfolio. `hysteresis_bps` is how far from its level a price must be for an order to be armed, and how far
    below it for an entry that closed to open again. An entry above the price fills at once: refused with `refuse_filled`, else told.
    """

    terms: tuple[Terms, ...] = ()
    absent: Absent = Absent.CASH
    hysteresis_bps: int = 100
    refuse_filled: bool = False


NO_ORDERS = Orders()


@dataclass(frozen=True, slots=True)
class Order:
    """How one order stands. `basis` is the price that a share counts from, `mark` the highest confirmed price of a trailing stop,
    `at` the price that it fired or closed at (None: not yet), `since_s` the chain time of its last change of stage. Of the
    portfolio prices are what a unit of it is worth, which began at 1.
    """

    token: str
    kind: OrderKind
    stage: OrderStage
    terms: Terms
    since_s: int
    basis: Price | None = None
    mark: Price | None = None
    at: Price | None = None

    @property
    def key(self) -> tuple[str, OrderKind]:
        """What there is one of."""
        return self.token, self.kind

    @property
    def is_exit(self) -> bool:
        """Whether it sells."""
        return self.kind is not OrderKind.ENTRY


@dataclass(frozen=True, slots=True)
class UnitValue:
    """What a unit of the portfolio was worth at an earlier look: `worth` with these holdings (token, base units) at these prices.

    What came or went since does not change it: the worth follows what those holdings gained or lost in price. `lost` is what
    the agent's transactions have lost since, gas included, in numeraire base units.
    """

    worth: Fraction
    at_s: int
    holdings: tuple[tuple[str, int], ...]
    prices: tuple[tuple[str, Price], ...]
    lost: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class StuckExit:
    """An asset that an order sells and that cannot be sold now, `why`, and what its owner can do about it. It keeps what it has."""

    token: str
    why: str
    remedy: str


@dataclass(frozen=True, slots=True)
class LateRefusal:
    """An exit that passed every guard and was refused when it was about to be sent, `why`: `times` in a row, the last at `at_s` of
    chain time.
    """

    token: str
    at_s: int
    times: int
    why: str
