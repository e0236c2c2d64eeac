"""Perpetual futures: markets, positions, the margin account and orders.

Signs: a size is positive for a long and negative for a short. `funding_pending_raw` and
`funding_daily` are positive when the holder of a long pays. An open notional is the amount that
opening added to the account's quote balance: negative for a long, positive for a short.
Sizes are base units of the market's asset; amounts are base units of the quote, in which
collateral and profit are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.units import Price, Token


class PerpOrderKind(Enum):
    """Kind of a futures order."""

    MARKET = "market"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class MarginTier:
    """Margin rates of the part of a notional above `above_raw` quote base units, in parts per
    million. Rates apply to their part only, as tax brackets do.
    """

    above_raw: int
    initial_ppm: int
    maintenance_ppm: int


@dataclass(frozen=True, slots=True)
class PerpMarket:
    """A perpetual market at a block.

    `market` is its name at the venue: the base token's address, or the coin. `asset` is the
    portfolio's token with the same price (empty: none). `lot_raw` is the smallest step of a size in
    base units, `tick` that of a price. `mark` and `index` are quote base units per base unit of
    size; `index_s` is the chain time of the index. `funding_daily` is the share of notional that
    longs pay to shorts a day (negative: shorts pay). `fee_ppm` is a share of notional.
    """

    market: str
    symbol: str
    asset: str
    size_decimals: int
    lot_raw: int
    tick: Price
    tiers: tuple[MarginTier, ...]
    fee_ppm: int
    mark: Price
    index: Price
    index_s: int
    funding_daily: Fraction
    is_paused: bool = False

    @property
    def unit(self) -> int:
        """Base units of a size of one."""
        return int(10**self.size_decimals)


@dataclass(frozen=True, slots=True)
class Position:
    """A position in one market. `funding_pending_raw` is owed by the account (negative: owed to
    it) and not settled yet.
    """

    market: str
    size_raw: int
    open_notional_raw: int
    funding_pending_raw: int = 0

    @property
    def is_long(self) -> bool:
        """True for a long position."""
        return self.size_raw > 0

    @property
    def entry(self) -> Price:
        """Average entry price, quote base units per base unit of size; zero without a size."""
        return Fraction(-self.open_notional_raw, self.size_raw) if self.size_raw else Fraction(0)


@dataclass(frozen=True, slots=True)
class MarginAccount:
    """The collateral of a venue and the positions that it carries, cross-margined.

    `collateral_raw` is the deposited balance, `realised_raw` the profit realised and not settled
    into it yet, both in quote base units. `settlement_raw` is one base unit of the collateral token
    in quote base units: 10^12 where a quote of 18 decimals is settled in USDC. With
    `initial_on_debt` one rate of initial margin counts the quote owed and the shorts (Perpetual
    Protocol v2), else the notional (Hyperliquid).
    """

    quote: Token
    settlement_raw: int
    collateral_raw: int
    realised_raw: int
    positions: tuple[Position, ...]
    markets: tuple[PerpMarket, ...]
    initial_on_debt: bool = True

    def market(self, name: str) -> PerpMarket:
        """Return the market of this name. Raises KeyError."""
        for market in self.markets:
            if market.market == name:
                return market
        raise KeyError(name)

    def size_raw(self, name: str) -> int:
        """Return the size held in a market, zero without a position."""
        return sum(position.size_raw for position in self.positions if position.market == name)


@dataclass(frozen=True, slots=True)
class PerpOrder:
    """An order of `size_raw` (negative: sell). `bound_raw` is the most quote that a buy may pay,
    or the least that a sale must bring, for the whole size.
    """

    market: str
    size_raw: int
    kind: PerpOrderKind
    bound_raw: int
    is_reduce_only: bool


@dataclass(frozen=True, slots=True)
class MarginDeposit:
    """A deposit of `raw` base units of the collateral token into the account."""

    raw: int


@dataclass(frozen=True, slots=True)
class MarginWithdrawal:
    """A withdrawal of `raw` base units of the collateral token to the account's own address."""

    raw: int


@dataclass(frozen=True, slots=True)
class DelegateChange:
    """The right of `delegate` to trade for the account: given or ended. A delegate withdraws
    nothing.
    """

    delegate: str
    is_allowed: bool


FuturesAction = PerpOrder | MarginDeposit | MarginWithdrawal | DelegateChange
"""One transaction of the futures layer."""


@dataclass(frozen=True, slots=True)
class FuturesGrant:
    """The one transaction that may be signed, with the account of the snapshot that it was judged
    on. `is_emergency` allows a reduction the wider bound of emergencies.
    """

    action: FuturesAction
    account: MarginAccount
    is_emergency: bool = False


@dataclass(frozen=True, slots=True)
class FuturesLimits:
    """Limits of the futures layer; shares in basis points of one."""

    max_leverage_bps: int
    """Maximum gross notional over account value."""
    max_utilisation_bps: int
    """Maximum share of the account value that is not free."""
    max_position_bps: int
    """Maximum share of one position in the gross notional."""
    spot_multiple_bps: int
    """Maximum gross notional over the value of the spot portfolio; zero: unlimited."""
    stress_move_bps: int
    """Simultaneous adverse move of all positions that the account has to survive."""
    slippage_bps: int
    """Distance of an order's bound from the index."""
    hysteresis_bps: int
    """Distance below its limit at which a reduction ends."""
    emergency_distance_bps: int
    """Distance to liquidation below which positions are closed ahead of the liquidator."""
    emergency_slippage_bps: int
    """Distance of such an order's bound from the index."""
    max_basis_bps: int
    """Distance of mark and index above which nothing is opened."""
    index_age_s: int
    """Age of the index above which nothing is traded."""
    reduction_per_day_bps: int = 0
    """Notional that reductions may close in 24 h, emergencies apart, per account value (zero:
    unlimited)."""


@dataclass(frozen=True, slots=True)
class FuturesTarget:
    """Target of one market: its share of the futures notional in basis points, negative for a
    short.
    """

    market: str
    weight_bps: int


@dataclass(frozen=True, slots=True)
class FuturesPolicy:
    """Targets of the futures layer. `leverage_bps` is the target of gross notional per account
    value; a market's notional is its weight of that. `band_bps` is the drift of a weight that
    triggers, in points of the gross notional (zero: none does). `collateral` is the address of the
    portfolio's token that margin is deposited in (empty: none, nothing is deposited), `account` that
    of the trader whose margin account is read.
    """

    targets: tuple[FuturesTarget, ...]
    leverage_bps: int
    band_bps: int
    limits: FuturesLimits
    collateral: str = ""
    account: str = ""


@dataclass(frozen=True, slots=True)
class FuturesPlan:
    """Orders of one step, in the order in which they are sent, with the reason.

    `trigger` names their cause (empty: none). `top_up_raw` is collateral to deposit
    before them, in its own base units. `is_reducing` is true if every order only makes a position
    smaller; cost, turnover and cooldown do not block such a plan. `refused` are orders that
    were cut or left out, with the reason.
    """

    orders: tuple[PerpOrder, ...]
    trigger: str
    reason: str
    top_up_raw: int = 0
    is_reducing: bool = False
    is_emergency: bool = False
    refused: tuple[str, ...] = ()
