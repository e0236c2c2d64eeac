"""Strategies over one wallet: what the owner wants of each, what its books hold, and what moved them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.model.ledger import ExternalTransfer
from agent.model.portfolio import Destination, Threshold, Trigger
from agent.model.transactions import Intent
from agent.model.weights import Allocation, AllocatorConfig

STRATEGY_UNITS = "units"
"""Stands for a strategy's own units where a token's address is asked for."""
UNALLOCATED = ""
"""Whose the wallet's balance is that is left alone: reserves, and native coin for gas."""


@dataclass(frozen=True, slots=True)
class StrategyHealthRule:
    """Cuts a strategy to its floor once its Sharpe ratio over `window_s` was below `limit_milli` for `period_s`, and lets it back once
    it was at or above `recover_milli` for `recover_s`. Ratios are annual, in thousandths, without a riskless rate.
    """

    limit_milli: int
    recover_milli: int
    window_s: int
    period_s: int
    recover_s: int


@dataclass(frozen=True, slots=True)
class Strategy:
    """One strategy: its share of the capital, its weights by token address in bps (sum 10,000), when it acts and how far it goes.

    `floor_bps` is the share of the capital that the health rule leaves it; None as `health` switches the rule off. With an
    `allocator` its weights are chosen from data, and those here count until then.
    """

    name: str
    share_bps: int
    weights_bps: tuple[tuple[str, int], ...]
    trigger: Trigger
    destination: Destination
    cooldown_s: int
    floor_bps: int = 0
    health: StrategyHealthRule | None = None
    allocator: AllocatorConfig | None = None


@dataclass(frozen=True, slots=True)
class CapitalSplit:
    """How capital is split over strategies, shares summing to 10,000; beyond `band` of a share the split itself is restored."""

    strategies: tuple[Strategy, ...]
    band: Threshold


class StrategyHealth(Enum):
    """Whether a strategy works with its share, or waits at its floor in the numeraire."""

    ACTIVE = "active"
    PAUSED = "paused"


class StrategyBookingKind(Enum):
    """What moved the books of strategies."""

    OPEN = "open"
    TRADE = "trade"
    CROSS = "cross"
    FLOW = "flow"
    ASIDE = "aside"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class StrategyBooking:
    """One thing that happened to the books: (strategy, token or UNITS, base units with sign). `source` says what it was, once each.

    `acted` are the strategies whose own wish it carried out, `costs` what a trade cost each, in numeraire base units.
    """

    source: str
    kind: StrategyBookingKind
    block: int
    at_s: int
    changes: tuple[tuple[str, str, int], ...]
    acted: tuple[str, ...] = ()
    costs: tuple[tuple[str, Fraction], ...] = ()


@dataclass(frozen=True, slots=True)
class StrategyState:
    """What is remembered of a strategy beside its holdings.

    `since_s` is when `health` began, `turning_s` since when its Sharpe ratio asks for the other state. `unit` is the value of a unit
    when it was last noted and `index` what the health rule is judged by: the same, and while paused what the weights would have
    made of it at the prices `marks`. Both in 10^-12.
    """

    name: str
    health: StrategyHealth
    since_s: int
    reason: str = ""
    turning_s: int | None = None
    sharpe_milli: int | None = None
    noted_s: int | None = None
    unit: int = 10**12
    index: int = 10**12
    marks: tuple[tuple[str, Fraction], ...] = ()


@dataclass(frozen=True, slots=True)
class StrategyBook:
    """The books of one strategy: base units by token, its units, and the chain time of its last rebalance."""

    name: str
    holdings: tuple[tuple[str, int], ...]
    units: int
    state: StrategyState
    last_rebalance_s: int | None = None
    costs: Fraction = Fraction(0)

    def raw(self, token: str) -> int:
        """Base units of a token."""
        return dict(self.holdings).get(token, 0)


@dataclass(frozen=True, slots=True)
class StrategyBooks:
    """All strategies at one block; `fault` says why they cannot be told, `pending` are bookings that are not written down yet.

    `choices` are the weights that allocators chose last, by strategy; `unchosen` says which strategy has none to go by, and why.
    """

    sleeves: tuple[StrategyBook, ...]
    fault: str = ""
    pending: tuple[StrategyBooking, ...] = ()
    turn: int = 0
    choices: tuple[tuple[str, Allocation], ...] = ()
    unchosen: str = ""

    @property
    def named(self) -> dict[str, StrategyBook]:
        """By name."""
        return {sleeve.name: sleeve for sleeve in self.sleeves}


@dataclass(frozen=True, slots=True)
class NavPoint:
    """A strategy's unit value and health index at a time, in 10^-12."""

    at_s: int
    unit: int
    index: int


@dataclass(frozen=True, slots=True)
class StrategyLedger:
    """What the store has of strategies: bookings oldest first, states, and what happened to the wallet that is not booked yet.

    `earlier` are (transaction, block, changes of balances) of what the wallet sent without this store. `flows_to` is the strategy
    that deposits and withdrawals are of (None: shared by capital).
    """

    bookings: tuple[StrategyBooking, ...] = ()
    states: tuple[StrategyState, ...] = ()
    intents: tuple[Intent, ...] = ()
    flows: tuple[ExternalTransfer, ...] = ()
    earlier: tuple[tuple[str, int, tuple[tuple[str, int], ...]], ...] = ()
    flows_to: str | None = None
    turn: int = 0
