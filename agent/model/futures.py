"""Perpetual futures: markets, positions, the margin account and orders.

Signs: a size is positive for a long and negative for a short. `funding_pending_raw` and
`funding_daily` are positive when the holder of a long pays. An open notional is the change of the
account's quote balance when the position was opened: negative for a long, positive for a short.
Sizes are base units of the market's asset; amounts are base units of the quote, in which collateral
and profit are counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.model.parts import LayerDecision, LayerGrant, LayerPlan, LayerReading
from agent.model.triggers import Schedule
from agent.units import Price, Token

MARGIN_ACCOUNT_ITEM = "margin account"
"""Name of the margin account in the list of unreadable items."""
MARGIN_PLACE = "margin"
"""Name of the margin account among the places of holdings, and under which failed deposits into it
are counted.
"""


class PerpOrderKind(Enum):
    """Kind of a futures order."""

    MARKET = "market"
    LIMIT = "limit"
    POST_ONLY = "post_only"
    """A limit order that the venue rejects if it would fill at once."""

    @property
    def can_rest(self) -> bool:
        """True if what is not filled at once stays in the book."""
        return self is not PerpOrderKind.MARKET


@dataclass(frozen=True, slots=True)
class MarginTier:
    """Margin rates of the part of a notional above `above_raw` quote base units, in parts per
    million. Each rate applies only to its part, as in tax brackets.
    """

    above_raw: int
    initial_ppm: int
    maintenance_ppm: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PerpMarket:
    """A perpetual market at a block. `market` is its name at the venue: the base token's address,
    or the coin. `asset` is the portfolio's token with the same price (empty: none). `lot_raw` is
    the size increment in base units, `min_notional_raw` the smallest notional of an order at its
    bound. `mark` and `index` are quote base units per base
    unit of size; `index_s` is the chain time of the index. `funding_daily` is the share of notional
    that longs pay to shorts a day (negative: shorts pay). `fee_ppm` is a share of notional.
    `is_configured` is false for a market that the config does not name, in which someone else
    opened a position. `mid` is the middle of the order book (zero: unknown). `is_isolated` is true
    for a market that is set to isolated margin, in which no order is sent; it is paused too.
    """

    market: str
    symbol: str
    asset: str
    size_decimals: int
    lot_raw: int
    tiers: tuple[MarginTier, ...]
    fee_ppm: int
    mark: Price
    index: Price
    index_s: int
    funding_daily: Fraction
    is_paused: bool = False
    min_notional_raw: int = 0
    is_configured: bool = True
    mid: Price = Fraction(0)
    is_isolated: bool = False

    @property
    def unit(self) -> int:
        """Base units in a size of one."""
        return int(10**self.size_decimals)

    def is_on_losing_side(self, position_raw: int, trigger_raw: int) -> bool:
        """True if a position is worth less to its holder at the trigger of its stop, in quote base
        units, than at both mark and index.
        """
        values = (abs(position_raw) * self.mark, abs(position_raw) * self.index)
        return trigger_raw < min(values) if position_raw > 0 else trigger_raw > max(values)


@dataclass(frozen=True, slots=True)
class Position:
    """A position in one market. `funding_pending_raw` is unsettled funding: positive if the account
    owes it, negative if it receives it.
    """

    market: str
    size_raw: int
    open_notional_raw: int
    funding_pending_raw: int = 0

    def reduction_raw(self, size_raw: int) -> int:
        """Return the signed size of an order that reduces the position by `size_raw`."""
        return -size_raw if self.is_long else size_raw

    @property
    def is_long(self) -> bool:
        """True for a long position."""
        return self.size_raw > 0

    @property
    def entry_price(self) -> Price:
        """Average entry price, quote base units per base unit of size; zero without a size."""
        return Fraction(-self.open_notional_raw, self.size_raw) if self.size_raw else Fraction(0)


@dataclass(frozen=True, slots=True)
class VenuePayment:
    """Funding of one market that the venue itself settled at chain time `at_s`; `paid_raw` is
    negative if received.
    """

    market: str
    at_s: int
    paid_raw: int


@dataclass(frozen=True, slots=True)
class RestingStop:
    """A stop of the agent that rests at an off-chain venue. `size_raw` is negative if it sells,
    `trigger_price` the mark at which the venue sends it as a reduction.
    """

    market: str
    size_raw: int
    trigger_price: Price
    cloid: str


@dataclass(frozen=True, slots=True)
class RestingOrder:
    """A limit order of the agent that rests at an off-chain venue. `size_raw` is what is not filled
    of `original_size_raw`, both negative if it sells; `placed_s` is the venue's time at which it
    was placed.
    """

    market: str
    size_raw: int
    original_size_raw: int
    price: Price
    placed_s: int
    cloid: str


@dataclass(frozen=True, slots=True)
class MarginAccount:
    """A cross-margined account: collateral and positions. `collateral_raw` is the deposited balance
    and `realised_raw` the realised profit that is not settled into it yet, both in quote base
    units. `collateral_unit_raw` is one base unit of the collateral token in quote base units: 10^12
    if a quote of 18 decimals is settled in USDC. Initial margin applies to the quote owed and the
    shorts if `initial_on_debt` is set (Perpetual Protocol v2), otherwise to the notional
    (Hyperliquid). An off-chain venue (`is_on_chain` false) takes orders as signed messages without
    gas; no deposit is sent to it. `unbooked_payments` are funding payments that the venue settled
    without a transaction and that are not yet in the ledger, oldest first; they are part of
    `realised_raw`. `unknown_row_kinds` are kinds of the venue's ledger rows that are not known to
    move margin or not: `collateral_raw` may lack them, so the split into deposits and profit is
    uncertain. `resting_stops` are the agent's resting stops, `resting_orders` its resting limit
    orders, which only open. `isolated_markets` are the markets of isolated positions, which are not
    in `positions` and whose margin counts as lost.
    """

    quote: Token
    collateral_unit_raw: int
    collateral_raw: int
    realised_raw: int
    positions: tuple[Position, ...]
    markets: tuple[PerpMarket, ...]
    initial_on_debt: bool = True
    is_on_chain: bool = True
    unbooked_payments: tuple[VenuePayment, ...] = ()
    unknown_row_kinds: tuple[str, ...] = ()
    resting_stops: tuple[RestingStop, ...] = ()
    resting_orders: tuple[RestingOrder, ...] = ()
    isolated_markets: tuple[str, ...] = ()

    def market(self, market_name: str) -> PerpMarket:
        """Return the market of this name. Raises KeyError."""
        for market in self.markets:
            if market.market == market_name:
                return market
        raise KeyError(market_name)

    def size_raw(self, market_name: str) -> int:
        """Return the size held in a market, zero without a position."""
        return sum(
            position.size_raw for position in self.positions if position.market == market_name
        )


class StaleReadKind(Enum):
    """What of an off-chain account may be old: reductions need none of it."""

    ORDERS = "open orders"
    MODE = "account mode"
    FEES = "fees"
    LEVERAGE = "leverage settings"
    TRANSFERS = "transfers"
    FUNDING = "funding payments"
    AGENTS = "approved agents"
    MARKETS = "configured markets"


@dataclass(frozen=True, slots=True)
class StaleRead:
    """A part of the account that could not be read, with the reason and the age of the value in
    use.
    """

    kind: StaleReadKind
    reason: str


@dataclass(frozen=True, slots=True)
class FuturesReading(LayerReading):
    """What a snapshot has read of the margin account."""

    account: MarginAccount | None = None
    """None: there is none, or it is not known for certain."""
    unknown_reason: str = ""
    """Reason why it is not known."""
    blocked_reason: str = ""
    """Reason why the venue accepts no order from this agent's key; empty: it does."""
    key_approval_expires_s: int = 0
    """Expiry of the key's approval, Unix seconds; zero: none."""
    is_passing: bool = False
    """True if the account is unknown by a fault that passes by itself."""
    stale_reads: tuple[StaleRead, ...] = ()
    """Parts of the account that may be old. While there are any, nothing is opened."""

    def stale_reason(self, *kinds: StaleReadKind) -> str:
        """Return why parts of these kinds (without any: of all kinds) may be old; empty if none
        is.
        """
        return "; ".join(
            f"{stale.kind.value}: {stale.reason}"
            for stale in self.stale_reads
            if not kinds or stale.kind in kinds
        )

    def needs_no_gas(self, decision: LayerDecision) -> bool:
        """True for orders at an off-chain venue."""
        is_off_chain = self.account is not None and not self.account.is_on_chain
        return isinstance(decision, AdjustFutures) and is_off_chain


UNREAD_ACCOUNT = MarginAccount(Token("", "", 18), 1, 0, 0, (), ())
"""Placeholder for a grant that needs no account: a delegate can be revoked even while the account
is unknown.
"""


@dataclass(frozen=True, slots=True)
class MarginBaseline:
    """A margin account at one block, in quote base units; `open_profit_raw` is unrealised profit
    less pending funding. The difference between two baselines with equal collateral is the
    account's result.
    """

    collateral_raw: int
    realised_raw: int
    open_profit_raw: int

    def result_raw(self, earlier_baseline: MarginBaseline) -> int:
        """Return the result since an earlier baseline. After a deposit or a withdrawal only the
        result of open positions is known.
        """
        profit_raw = self.open_profit_raw - earlier_baseline.open_profit_raw
        if self.collateral_raw == earlier_baseline.collateral_raw:
            profit_raw += self.realised_raw - earlier_baseline.realised_raw
        return profit_raw


@dataclass(frozen=True, slots=True)
class PerpOrder:
    """An order of `size_raw` (negative: sell). `bound_raw` is the maximum quote of a buy, or the
    minimum of a sale, for the whole size.
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
    """Grant or revocation of the right of `delegate` to trade for the account. A delegate cannot
    withdraw.
    """

    delegate: str
    is_allowed: bool


@dataclass(frozen=True, slots=True)
class StopOrder:
    """A resting order that closes a position of `-size_raw` once the mark reaches its trigger, only
    as a reduction. `trigger_raw` is the quote of the whole size at the trigger, `bound_raw` the
    minimum of a sale, or the maximum of a buy, once it is triggered.
    """

    market: str
    size_raw: int
    trigger_raw: int
    bound_raw: int


@dataclass(frozen=True, slots=True)
class OrderCancel:
    """The cancel of a resting stop or limit order, named by its client order id."""

    market: str
    cloid: str


RestingAction = StopOrder | OrderCancel
"""A stop to rest at an off-chain venue, or the end of a resting order; no position changes at
once.
"""
AccountAction = MarginDeposit | MarginWithdrawal | DelegateChange
"""A transaction on the margin account that is not a trade."""
FuturesAction = PerpOrder | AccountAction | RestingAction
"""One transaction of the futures layer."""


@dataclass(frozen=True, slots=True)
class Hedge:
    """A short that replaces a sale of `token`. `size_raw` is negative, and zero once the hedge is
    closed. `at_s` is the chain time when it was opened, or closed. `sale_cost` is the cost that the
    sale would have had, in numeraire base units.
    """

    market: str
    token: str
    size_raw: int
    at_s: int
    sale_cost: Fraction


@dataclass(frozen=True, slots=True)
class FuturesGrant(LayerGrant):
    """The one transaction that may be signed, and the account of the snapshot on which it was
    judged. `is_emergency` allows a reduction the wider bound of emergencies. `hedges_before` are
    the open hedges before this transaction, `hedges` those after it if it fills completely. A
    reduction counts in futures.limits.max_reduction_per_day if `is_budgeted`. `set_goals` are those
    of its plan.
    """

    action: FuturesAction
    account: MarginAccount
    is_emergency: bool = False
    hedges: tuple[Hedge, ...] = ()
    hedges_before: tuple[Hedge, ...] = ()
    is_budgeted: bool = True
    set_goals: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class FuturesLimits:
    """Limits of the futures layer; shares in basis points."""

    max_leverage_bps: int
    """Maximum gross notional over account value."""
    max_utilisation_bps: int
    """Maximum initial margin over account value."""
    max_position_bps: int
    """Maximum share of one position in the gross notional."""
    spot_multiple_bps: int
    """Maximum gross notional over the value of the spot portfolio (zero: unlimited)."""
    stress_move_bps: int
    """Simultaneous adverse move of all markets that the account has to survive."""
    slippage_bps: int
    """Distance of an order's bound from the index."""
    hysteresis_bps: int
    """Distance below the limit at which a reduction ends."""
    emergency_distance_bps: int
    """Distance to liquidation below which positions are closed ahead of the liquidator."""
    emergency_slippage_bps: int
    """Distance of an emergency order's bound from the index."""
    max_basis_bps: int
    """Distance between mark and index above which no position is opened."""
    index_age_s: int
    """Age of the index above which futures are not traded."""
    reduction_per_day_bps: int = 0
    """Notional that reductions may close in 24 h, without emergencies, as a share of the account
    value (zero: unlimited).
    """
    top_up_per_day_bps: int | None = 0
    """Collateral that the agent may deposit in 24 h, as a share of the spot portfolio (zero:
    nothing; None: unlimited).
    """
    emergency_gas_price_wei: int = 0
    """Maximum gas price in an emergency (zero: a multiple of limits.gas_price)."""
    emergency_gas_per_day_wei: int = 0
    """Maximum gas cost of emergencies in 24 h (zero: limits.gas_per_day)."""
    emergency_cooldown_s: int = 0
    """Time after an emergency in which no position is opened (zero: none)."""
    resting_stop_bps: int = 0
    """Distance to liquidation at which a stop that rests at an off-chain venue closes a position
    (zero: none rest).
    """


@dataclass(frozen=True, slots=True)
class FuturesTarget:
    """Target of one market: its share of the futures notional in basis points, negative for a
    short.
    """

    market: str
    weight_bps: int


@dataclass(frozen=True, slots=True)
class HedgePolicy:
    """Terms of hedges that replace sales; shares in basis points."""

    ratio_bps: int
    """Share of an overweight that is shorted instead of sold."""
    horizon_s: int
    """Expected holding time, after which a hedge is closed."""
    min_saving_bps: int
    """Minimum saving of a hedge against the sale, as a share of the hedged value."""
    tax_rate_bps: int
    """Tax rate on realised gains."""
    capital_cost_bps: int
    """Annual cost of the margin that a hedge requires."""


@dataclass(frozen=True, slots=True)
class HedgeComparison:
    """Cost of selling and of shorting the excess of an overweight asset, in numeraire base units.
    `is_hedged` is true if the short is planned, for this `reason`. The sale costs fees, gas, impact
    and tax. The short costs fees and gas of opening and closing, expected funding over the horizon
    (negative: received), and the cost of the required `required_margin`. `excess` is the value to
    sell.
    """

    token: str
    excess: Fraction
    hedged_value: Fraction
    sale_fees: Fraction
    sale_impact: Fraction
    sale_tax: Fraction
    hedge_fees: Fraction
    hedge_funding: Fraction
    capital_cost: Fraction
    required_margin: Fraction
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
        return self.hedge_fees + self.hedge_funding + self.capital_cost


@dataclass(frozen=True, slots=True)
class HedgeChoices(LayerPlan):
    """Comparisons of a sale with a hedge, for each overweight asset of a plan."""

    comparisons: tuple[HedgeComparison, ...] = ()


@dataclass(frozen=True, slots=True)
class FuturesPolicy:
    """Targets of the futures layer. `leverage_bps` is the target of gross notional over account
    value, and a market's target notional is its weight times the total target notional. A drift
    beyond its band triggers orders: `band_bps` for a weight, in points of the gross notional (zero:
    off), and `leverage_band_bps` for the gross notional, as a share of its target. Addresses:
    `collateral` is the portfolio's token in which margin is deposited (empty: no deposits),
    `trader` the trader whose margin account is read, `vault` the contract that takes deposits,
    `delegate` the key that the account may allow to trade (empty: none). The triggers in
    `manual_triggers` act only in a step that the user started; other steps only report them.
    `funding_horizon_s` is the time over which expected funding counts as a cost and as drift (zero:
    it does not count). `hedge_policy` has the terms of hedges that replace sales (None: no hedges),
    and `hedges` are the open ones, which are not part of the targets. `margin_in_weights` says
    whether the margin account counts in the spot weights, as its collateral; records without it
    counted it. At the times of `schedule` orders lead to the targets also inside the bands (None:
    never), and `is_review_due` is true in a step at such a time. Openings to the targets are orders of `order_kind` and rest for at most
    `order_time_s`.
    """

    targets: tuple[FuturesTarget, ...]
    leverage_bps: int
    band_bps: int
    limits: FuturesLimits
    collateral: str = ""
    trader: str = ""
    leverage_band_bps: int = 0
    configured_leverage_bps: int = 0
    """The configured leverage if signals or strategies set `leverage_bps`; otherwise zero."""
    manual_triggers: tuple[str, ...] = ()
    vault: str = ""
    delegate: str = ""
    funding_horizon_s: int = 0
    hedge_policy: HedgePolicy | None = None
    hedges: tuple[Hedge, ...] = ()
    margin_in_weights: bool = True
    order_kind: PerpOrderKind = PerpOrderKind.MARKET
    order_time_s: int = 0
    schedule: Schedule | None = None
    is_review_due: bool = False

    def hedge_size_raw(self, market: str) -> int:
        """Return the size of a market's open hedges together, which is that of a short."""
        return sum(hedge.size_raw for hedge in self.hedges if hedge.market == market)


@dataclass(frozen=True, slots=True)
class MarketGrowthInputs:
    """Markets at a block: index prices and daily funding by market, the leverage of the target
    notional, and the margin account's part of all capital.
    """

    prices: Mapping[str, Price]
    funding_daily: Mapping[str, Fraction]
    leverage: Fraction
    margin_share: Fraction


@dataclass(frozen=True, slots=True)
class FuturesPlan(LayerPlan):
    """Actions of one step in sending order, first those on the account, then the orders, last the
    changes of resting stops, with the reason. `trigger` names their cause (empty: none, or the
    owner). `is_reducing` is true if every action only deposits or makes a position smaller; cost,
    turnover and cooldown do not block such a plan. `refusal_texts` are orders that were cut or
    skipped, with the reason. `hedges` are the hedges after the first order. `set_goals` are the
    sizes, by market, at which a set of orders to the targets ends, whose cost is judged as a whole;
    `completes_set` is true for orders that only reduce, or lead to the goals of an earlier plan.
    """

    orders: tuple[PerpOrder, ...] = ()
    trigger: str = ""
    reason: str = ""
    account_actions: tuple[AccountAction, ...] = ()
    is_reducing: bool = False
    is_emergency: bool = False
    refusal_texts: tuple[str, ...] = ()
    hedges: tuple[Hedge, ...] = ()
    resting_actions: tuple[RestingAction, ...] = ()
    """Changes of resting stops."""
    set_goals: tuple[tuple[str, int], ...] = ()
    completes_set: bool = False

    @property
    def acts(self) -> bool:
        """See LayerPlan."""
        return True

    @property
    def actions(self) -> tuple[FuturesAction, ...]:
        """All actions, in sending order."""
        return (*self.account_actions, *self.orders, *self.resting_actions)

    @property
    def action_count(self) -> int:
        """See LayerPlan."""
        return len(self.actions)

    @property
    def exit_name(self) -> str:
        """Market of the first reduction, MARGIN_PLACE for a deposit, trigger and market for resting
        stops; empty for any other plan.
        """
        if not self.is_reducing:
            return ""
        if self.account_actions:
            return MARGIN_PLACE
        if self.orders:
            return self.orders[0].market
        return f"{self.trigger} {self.resting_actions[0].market}"

    @property
    def top_up_raw(self) -> int:
        """Deposited collateral, in its own base units."""
        return sum(
            action.raw for action in self.account_actions if isinstance(action, MarginDeposit)
        )


@dataclass(frozen=True, slots=True)
class AdjustFutures(LayerDecision):
    """Actions of the futures layer: deposits or reductions that a limit requires, orders towards
    the targets, or a request of the owner. Cost, turnover, cooldown and open withdrawals never
    block a reduction. `closed_hedge_market` is the market whose hedge is closed; empty for any
    other order.
    """

    is_reducing: bool
    by_owner: bool = False
    closed_hedge_market: str = ""
