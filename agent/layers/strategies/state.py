"""Strategies that share one wallet: settings, holdings, bookings and state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.model.layers import LayerConfig, LayerState
from agent.model.ledger import ExternalTransfer
from agent.model.portfolio import Destination
from agent.model.transactions import Intent
from agent.model.triggers import Threshold, Trigger
from agent.model.weights import Allocation, AllocatorConfig, OwnedAllocator

STRATEGY_UNITS = "units"
"""Key of a strategy's units (shares of its NAV), in place of a token address."""
NO_BAND = Threshold(None, None)
UNALLOCATED_HOLDER = ""
"""Holder of the unallocated balance: reserves, and native coin for gas."""


@dataclass(frozen=True, slots=True)
class StrategyHealthRule:
    """Rule that pauses and resumes a strategy by its Sharpe ratio over `window_s`.

    The strategy is paused at its floor after `period_s` below `limit_milli`, and resumed after
    `recover_s` at or above `recover_milli`. Ratios are annual, in thousandths, with a risk-free
    rate of zero.
    """

    limit_milli: int
    recover_milli: int
    window_s: int
    period_s: int
    recover_s: int


@dataclass(frozen=True, slots=True)
class Strategy:
    """One strategy: share of the capital, weights by token in bps (sum 10,000), trigger,
    destination and cooldown.

    `floor_bps` is the capital share of the strategy while its `health` rule pauses it (None: no
    rule). With an `allocator`, `weights_bps` apply until the first allocation. `market_bps` are
    signed weights by futures market: shares of the target notional of the strategy's part of the
    margin account.
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
    market_bps: tuple[tuple[str, int], ...] = ()


def with_allocator_keys(text: str, strategy_name: str) -> str:
    """Return a text about an allocator with the keys of this strategy's; unchanged without a name."""
    key = f"strategies.{strategy_name}.allocator"
    return text.replace("portfolio.weights", key) if strategy_name else text


@dataclass(frozen=True, slots=True)
class CapitalSplit(LayerConfig):
    """Split of the capital between strategies; shares sum to 10,000. Outside `band` the split is
    rebalanced. Without strategies the portfolio follows one policy.
    """

    strategies: tuple[Strategy, ...] = ()
    band: Threshold = NO_BAND

    @property
    def divides_wallet(self) -> bool:
        """See LayerConfig."""
        return bool(self.strategies)

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """See LayerConfig."""
        return tuple(strategy.trigger for strategy in self.strategies)

    @property
    def allocators(self) -> tuple[OwnedAllocator, ...]:
        """See LayerConfig."""
        return tuple(
            OwnedAllocator(strategy.name, strategy.allocator, strategy.weights_bps)
            for strategy in self.strategies
            if strategy.allocator is not None
        )


class StrategyHealth(Enum):
    """Health of a strategy: active with its share, or paused at its floor in the numeraire."""

    ACTIVE = "active"
    PAUSED = "paused"


class StrategyBookingKind(Enum):
    """Cause of a change in the holdings of strategies."""

    OPEN = "open"
    TRADE = "trade"
    CROSS = "cross"
    FLOW = "flow"
    RESERVE = "aside"
    RESPLIT = "change"


_TRANSFER_PREFIX = "flow "


def transfer_source(transfer_id: int) -> str:
    """Return the source of the booking of a recorded external transfer."""
    return f"{_TRANSFER_PREFIX}{transfer_id}"


@dataclass(frozen=True, slots=True)
class StrategyBooking:
    """One change in the holdings of strategies: (strategy, token or STRATEGY_UNITS, signed base
    units).

    `source` is its unique id. `requesters` are the strategies that requested the trade, `costs`
    their trade costs in numeraire base units.
    """

    source: str
    kind: StrategyBookingKind
    block: int
    at_s: int
    changes: tuple[tuple[str, str, int], ...]
    requesters: tuple[str, ...] = ()
    costs: tuple[tuple[str, Fraction], ...] = ()

    @property
    def transfer_id(self) -> int:
        """Id of the recorded external transfer; 0 if it books anything else."""
        id_text = self.source.removeprefix(_TRANSFER_PREFIX)
        return int(id_text) if id_text != self.source and id_text.isdecimal() else 0


@dataclass(frozen=True, slots=True)
class StrategyState:
    """State of a strategy beyond its holdings.

    `since_s` is the start of the current `health`, `opposite_since_s` the time since which the
    Sharpe ratio calls for the opposite state. `unit_nav` is the NAV per unit at `recorded_s`. The
    health rule measures `index`: it grows with the NAV per unit; while the strategy is paused, it
    grows as the strategy's weights would have, from the prices in `last_prices`. Both are in
    10^-12. `markets_read_s` is the time of the market prices there; None: that of the record.
    `late_markets` are those that the reading lacked, with the time of their price. `margin_share`
    is the margin account's part of the capital, as last known.
    """

    name: str
    health: StrategyHealth
    since_s: int
    reason: str = ""
    opposite_since_s: int | None = None
    sharpe_milli: int | None = None
    recorded_s: int | None = None
    unit_nav: int = 10**12
    index: int = 10**12
    last_prices: tuple[tuple[str, Fraction], ...] = ()
    markets_read_s: int | None = None
    late_markets: tuple[tuple[str, int | None], ...] = ()
    margin_share: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class StrategyBook:
    """Holdings of one strategy (base units by token), its units, state, and chain time of the last
    rebalance.
    """

    name: str
    holdings: tuple[tuple[str, int], ...]
    units: int
    state: StrategyState
    last_rebalance_s: int | None = None
    total_cost: Fraction = Fraction(0)

    def balance_raw(self, token: str) -> int:
        """Return base units of a token."""
        return dict(self.holdings).get(token, 0)


@dataclass(frozen=True, slots=True)
class StrategyBooks:
    """All strategies at one block.

    `fault` is the reason why holdings are unknown (empty: known), `unstored_bookings` are bookings
    not stored yet. `record_version` is that of the ledger that they were computed from.
    `allocation_by_strategy` are the last allocations by strategy; `allocation_fault` has the
    strategies without weights, with the reason. `unbooked_states` are the stored states while
    balances or prices are unknown, and with them all books.
    """

    strategy_books: tuple[StrategyBook, ...]
    fault: str = ""
    unstored_bookings: tuple[StrategyBooking, ...] = ()
    record_version: int = 0
    allocation_by_strategy: tuple[tuple[str, Allocation], ...] = ()
    allocation_fault: str = ""
    unbooked_states: tuple[StrategyState, ...] = ()

    @property
    def by_name(self) -> dict[str, StrategyBook]:
        """Books by strategy name."""
        return {book.name: book for book in self.strategy_books}


@dataclass(frozen=True, slots=True)
class StrategiesState(LayerState):
    """Strategies at a step's block; without books, not read yet."""

    books: StrategyBooks | None = None


@dataclass(frozen=True, slots=True)
class NavPoint:
    """NAV per unit and health index of a strategy at one time, in 10^-12."""

    at_s: int
    unit_nav: int
    index: int


@dataclass(frozen=True, slots=True)
class StrategyLedger:
    """Stored records of strategies: bookings (oldest first), states, and wallet changes not booked
    yet.

    `external_transactions` are wallet transactions that are not in the journal, as (transaction,
    block, balance changes). `transfer_strategy` is the strategy that gets deposits and withdrawals
    (None: all, in proportion to capital), `record_version` the version of the records, which
    bookings and a change of that strategy raise.
    """

    bookings: tuple[StrategyBooking, ...] = ()
    states: tuple[StrategyState, ...] = ()
    unbooked_intents: tuple[Intent, ...] = ()
    transfers: tuple[ExternalTransfer, ...] = ()
    external_transactions: tuple[tuple[str, int, tuple[tuple[str, int], ...]], ...] = ()
    transfer_strategy: str | None = None
    record_version: int = 0
