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

MARGIN_ACCOUNT = "margin account"
"""Name of the margin account among the items that could not be read."""


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
    base units, `tick` that of a price, `min_notional_raw` the smallest order at its bound. `mark` and
    `index` are quote base units per base unit of size; `index_s` is the chain time of the index.
    `funding_daily` is the share of notional that longs pay to shorts a day (negative: shorts pay).
    `fee_ppm` is a share of notional.
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
    min_notional_raw: int = 0

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
    Protocol v2), else the notional (Hyperliquid). A venue that is not `is_on_chain` takes orders as
    signed messages without gas, and no deposit is sent to it.
    """

    quote: Token
    settlement_raw: int
    collateral_raw: int
    realised_raw: int
    positions: tuple[Position, ...]
    markets: tuple[PerpMarket, ...]
    initial_on_debt: bool = True
    is_on_chain: bool = True

    def market(self, name: str) -> PerpMarket:
        """Return the market of this name. Raises KeyError."""
        for market in self.markets:
            if market.market == name:
                return market
        raise KeyError(name)

    def size_raw(self, name: str) -> int:
        """Return the size held in a market, zero without a position."""
        return sum(position.size_raw for position in self.positions if position.market == name)


UNREAD_ACCOUNT = MarginAccount(Token("", "", 18), 1, 0, 0, (), ())
"""Account of a grant that needs none: the end of a delegate while the account is not known."""


@dataclass(frozen=True, slots=True)
class MarginMark:
    """A margin account at one block, quote base units: `open_raw` is unrealised profit less pending
    funding. A difference of two marks without a change of collateral is the account's result.
    """

    collateral_raw: int
    realised_raw: int
    open_raw: int

    def result_raw(self, then: MarginMark) -> int:
        """Return the result since an earlier mark. After a deposit or a withdrawal only that of
        open positions is known.
        """
        result = self.open_raw - then.open_raw
        if self.collateral_raw == then.collateral_raw:
            result += self.realised_raw - then.realised_raw
        return result


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
class PerpQuote:
    """Amounts that an order would exchange, in base units: size, and quote without the fee."""

    size_raw: int
    quote_raw: int


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


AccountAction = MarginDeposit | MarginWithdrawal | DelegateChange
"""A transaction on the margin account that trades nothing."""
FuturesAction = PerpOrder | AccountAction
"""One transaction of the futures layer."""


@dataclass(frozen=True, slots=True)
class Hedge:
    """A short of `size_raw` (negative) in place of a sale of `token`; zero once it is closed.

    `at_s` is the chain time of its opening, of its closing once closed. `sale_cost` is what the sale
    would have cost, numeraire base units.
    """

    market: str
    token: str
    size_raw: int
    at_s: int
    sale_cost: Fraction


@dataclass(frozen=True, slots=True)
class FuturesGrant:
    """The one transaction that may be signed, with the account of the snapshot that it was judged
    on. `is_emergency` allows a reduction the wider bound of emergencies. `hedges` are those after
    this transaction if it is filled whole, `hedges_before` those that are open before it.
    """

    action: FuturesAction
    account: MarginAccount
    is_emergency: bool = False
    hedges: tuple[Hedge, ...] = ()
    hedges_before: tuple[Hedge, ...] = ()


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
    top_up_per_day_bps: int | None = 0
    """Collateral that the agent may deposit in 24 h, per value of the spot portfolio (zero: nothing;
    None: unlimited)."""
    emergency_gas_price_wei: int = 0
    """Most that a unit of gas may cost in an emergency (zero: a multiple of limits.gas_price)."""
    emergency_gas_per_day_wei: int = 0
    """Gas that emergencies may cost in 24 h (zero: as much as limits.gas_per_day)."""


@dataclass(frozen=True, slots=True)
class FuturesTarget:
    """Target of one market: its share of the futures notional in basis points, negative for a
    short.
    """

    market: str
    weight_bps: int


@dataclass(frozen=True, slots=True)
class HedgePolicy:
    """Terms of hedges in place of sales; shares in basis points of one."""

    ratio_bps: int
    """Share of an overweight that is shorted instead of sold."""
    horizon_s: int
    """Expected holding time, after which a hedge is closed."""
    min_saving_bps: int
    """How much cheaper than the sale a hedge has to be, per value hedged."""
    tax_rate_bps: int
    """Tax on realised gains."""
    capital_cost_bps: int
    """Yearly cost of the margin that a hedge ties up."""


@dataclass(frozen=True, slots=True)
class HedgeComparison:
    """A sale and a short of a part of an overweight, in numeraire base units. `is_hedged` says which
    is planned, `reason` why.

    The sale costs fees and gas, impact, and tax; the short fees and gas of opening and closing,
    expected funding over the horizon (negative: received), and the cost of `margin` tied up.
    `excess` is what would be sold.
    """

    token: str
    excess: Fraction
    hedged: Fraction
    sale_fees: Fraction
    sale_impact: Fraction
    sale_tax: Fraction
    hedge_fees: Fraction
    hedge_funding: Fraction
    hedge_capital: Fraction
    margin: Fraction
    horizon_s: int
    is_hedged: bool = False
    reason: str = ""

    @property
    def sale_cost(self) -> Fraction:
        """Cost of the sale."""
        return self.sale_fees + self.sale_impact + self.sale_tax

    @property
    def hedge_cost(self) -> Fraction:
        """Cost of the short, with expected funding."""
        return self.hedge_fees + self.hedge_funding + self.hedge_capital


@dataclass(frozen=True, slots=True)
class FuturesPolicy:
    """Targets of the futures layer. `leverage_bps` is the target of gross notional per account
    value; a market's notional is its weight of that. `band_bps` is the drift of a weight that
    triggers, in points of the gross notional (zero: none does), `leverage_band_bps` the drift
    of the gross notional that does, as a share of its target. `collateral` is the address of
    the portfolio's token that margin is deposited in (empty: none, nothing is deposited),
    `account` that of the trader whose margin account is read, `vault` that of the contract that
    takes deposits, `delegate` that of the key which the account may allow to trade (empty:
    none). The triggers in `ask` act only in a step that a person started; every other step
    reports them. `funding_horizon_s` is the time over which expected funding counts as a cost
    and as drift (zero: it does not count). `hedge` are the terms of hedges in place of sales
    (None: none is opened), `hedges` those that are open, apart from the targets.
    """

    targets: tuple[FuturesTarget, ...]
    leverage_bps: int
    band_bps: int
    limits: FuturesLimits
    collateral: str = ""
    account: str = ""
    leverage_band_bps: int = 0
    full_leverage_bps: int = 0
    """Leverage of the config where signals or strategies lower `leverage_bps`; zero: they do not."""
    ask: tuple[str, ...] = ()
    vault: str = ""
    delegate: str = ""
    funding_horizon_s: int = 0
    hedge: HedgePolicy | None = None
    hedges: tuple[Hedge, ...] = ()


@dataclass(frozen=True, slots=True)
class FuturesPlan:
    """Actions of one step, in the order in which they are sent, with the reason: first those on the
    account, then the orders.

    `trigger` names their cause (empty: none, or the owner). `is_reducing` is true if every action
    only deposits or makes a position smaller; cost, turnover and cooldown do not block such a plan.
    `refused` are orders that were cut or left out, with the reason. `hedges` are
    those after the first order.
    """

    orders: tuple[PerpOrder, ...]
    trigger: str
    reason: str
    account_actions: tuple[AccountAction, ...] = ()
    is_reducing: bool = False
    is_emergency: bool = False
    refused: tuple[str, ...] = ()
    hedges: tuple[Hedge, ...] = ()

    @property
    def actions(self) -> tuple[FuturesAction, ...]:
        """All actions, in the order in which they are sent."""
        return (*self.account_actions, *self.orders)

    @property
    def top_up_raw(self) -> int:
        """Collateral that is deposited, in its own base units."""
        return sum(one.raw for one in self.account_actions if isinstance(one, MarginDeposit))
