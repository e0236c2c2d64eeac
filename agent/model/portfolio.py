"""Orders that keep an asset out of the market: entry, stop loss, take profit, trailing stop; and how each of them stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction

from agent.model.liquidity import ConfirmedPosition, LpTarget
from agent.model.market import CodeHash
from agent.model.weights import AllocatorConfig
from agent.units import NATIVE, Price, Token

# --- What standing off the targets costs: the owner's aversion, volatilities and correlations; and what a plan saves of it.


@dataclass(frozen=True, slots=True)
class RiskEstimationWindow:
    """What volatilities are estimated from: returns of each `step_s` within `window_s` of recorded prices, of which each token needs
    `min_returns`, the newest price at most `max_age_s` old.
    """

    window_s: int
    step_s: int
    min_returns: int
    max_age_s: int


@dataclass(frozen=True, slots=True)
class TrackingRisk:
    """Prices a deviation d from the targets at ½·λ·V·dᵀΣd·H: V the portfolio's value, Σ the covariance a year, H the horizon in years.

    λ comes from `cost_bps`: what 1 % of tracking error is worth, bps of the portfolio a year, so that λ = 2 · cost_bps.
    `volatilities_bps` are annual, by token address; `correlations_bps` say each pair of tokens once. With `measuring` they are those
    that the owner told, and a step completes them from recorded prices: `measured` says from what, `unmeasured` why it could not.
    """

    cost_bps: Fraction
    horizon_s: int
    volatilities_bps: tuple[tuple[str, int], ...]
    correlations_bps: tuple[tuple[str, str, int], ...]
    measuring: RiskEstimationWindow | None = None
    measured: str = ""
    unmeasured: str = ""


@dataclass(frozen=True, slots=True)
class NoTradeZone:
    """Acts when a plan saves more risk than it costs, and goes as far as its last unit does."""

    risk: TrackingRisk


@dataclass(frozen=True, slots=True)
class RiskCostTradeoff:
    """What a plan saves of the risk over the horizon, and what it costs, in numeraire base units.

    `skew` is below zero where pools pay more than the reference: that may make the exchange free, and never more. `approvals`
    is the gas of those that the plan still needs.
    """

    before: Fraction
    after: Fraction
    fees: Fraction
    impact: Fraction
    skew: Fraction
    gas: Fraction
    approvals: Fraction

    @property
    def saved(self) -> Fraction:
        """Risk that the plan takes away."""
        return self.before - self.after

    @property
    def cost(self) -> Fraction:
        """Everything that it is weighed against."""
        return max(self.fees + self.impact + self.skew, Fraction(0)) + self.gas + self.approvals

    @property
    def worth_it(self) -> bool:
        """Whether more is saved than paid."""
        return self.saved > self.cost


# --- When to act: bands, schedules, events of the market, and several of them at once.


@dataclass(frozen=True, slots=True)
class Threshold:
    """Acts when a weight is strictly further from target than the band.

    `absolute_bps` in percentage points of the portfolio, `relative_bps` in bps of the target; with both the narrower
    band counts.
    """

    absolute_bps: int | None
    relative_bps: int | None


@dataclass(frozen=True, slots=True)
class Every:
    """Acts when `every_s` seconds have passed since the last rebalance or review (1,800 to 2,419,200)."""

    every_s: int


@dataclass(frozen=True, slots=True)
class Cron:
    """Acts when a five-field cron time in `timezone` has passed since the last review."""

    expression: str
    timezone: str


Schedule = Every | Cron


@dataclass(frozen=True, slots=True)
class HybridTrigger:
    """Reviews on `schedule`, acts only if `threshold` is exceeded then."""

    threshold: Threshold
    schedule: Schedule


@dataclass(frozen=True, slots=True)
class StagedTrigger:
    """Reviews on `review` and says what it would do; acts on `execution` alone, with a `threshold` only beyond its band."""

    review: Schedule
    execution: Schedule
    threshold: Threshold | None = None


@dataclass(frozen=True, slots=True)
class Drawdown:
    """Acts when the price of a token is strictly more than `fall_bps` below its highest of the last `within_s` seconds.

    `tokens` are the addresses that count; none named: every asset but the numeraire.
    """

    fall_bps: int
    within_s: int
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VolatilityJump:
    """Acts when the volatility of the last `short_s` seconds is strictly more than `factor_bps` of that of the `long_s` before them.

    `tokens` as in Drawdown.
    """

    short_s: int
    long_s: int
    factor_bps: int
    tokens: tuple[str, ...] = ()


MarketEventTrigger = Drawdown | VolatilityJump
SingleTrigger = Threshold | Every | Cron | HybridTrigger | StagedTrigger | Drawdown | VolatilityJump


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Acts when any of several triggers does, each by its own band and its own schedule."""

    triggers: tuple[SingleTrigger, ...]


Trigger = Threshold | Every | Cron | HybridTrigger | StagedTrigger | Drawdown | VolatilityJump | AnyOf | NoTradeZone


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


class WeightReallocation(Enum):
    """Where the weight of an asset goes that is out, or waits for its entry: into the numeraire, or to the others in proportion."""

    CASH = "cash"
    REDISTRIBUTE = "redistribute"


@dataclass(frozen=True, slots=True)
class OrderTerms:
    """One order of the config. Exactly one of `price` and `share_bps`.

    `price` is in numeraire base units per token base unit, of a trailing stop its distance from the highest price; `share_bps` is
    how far from the price at arming (of exits of an asset that has an entry: from the entry) it lies, of a trailing stop from the highest.
    """

    token: str
    kind: OrderKind
    price: Price | None = None
    share_bps: int | None = None


@dataclass(frozen=True, slots=True)
class OrdersConfig:
    """The orders of a portfolio. `hysteresis_bps` is how far from its level a price must be for an order to be armed, and how far
    below it for an entry that closed to open again. An entry above the price fills at once: refused with `refuse_filled`, else told.
    """

    terms: tuple[OrderTerms, ...] = ()
    absent: WeightReallocation = WeightReallocation.CASH
    hysteresis_bps: int = 100
    refuse_filled: bool = False


NO_ORDERS = OrdersConfig()


@dataclass(frozen=True, slots=True)
class ConditionalOrder:
    """How one order stands. `basis` is the price that a share counts from, `mark` the highest confirmed price of a trailing stop,
    `at` the price that it fired or closed at (None: not yet), `since_s` the chain time of its last change of stage. Of the
    portfolio prices are what a unit of it is worth, which began at 1.
    """

    token: str
    kind: OrderKind
    stage: OrderStage
    terms: OrderTerms
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
class NavPerShare:
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
class BlockedExit:
    """An asset that an order sells and that cannot be sold now, `why`, and what its owner can do about it. It keeps what it has."""

    token: str
    why: str
    remedy: str


@dataclass(frozen=True, slots=True)
class SubmissionRefusal:
    """An exit that passed every guard and was refused when it was about to be sent, `why`: `times` in a row, the last at `at_s` of
    chain time.
    """

    token: str
    at_s: int
    times: int
    why: str


# --- What the owner wants: the portfolio and its targets, when to act, and how far to go.


@dataclass(frozen=True, slots=True)
class Asset:
    """One target: weight in bps of the investable total, `reserve_raw` base units left alone, `feed` its USD price feed.

    With `native` the token is the wrapped native coin, and the wallet's native coin counts with it. `rebasing_bps` is what its
    balance may change by in a day without any transfer, as those of rebasing and interest-bearing tokens do. `band` is its own, in
    place of that of the trigger. Above `max_bps` of the portfolio nothing more of it is bought.
    """

    token: Token
    target_bps: int
    reserve_raw: int
    feed: str | None = None
    native: bool = False
    rebasing_bps: int = 0
    band: Threshold | None = None
    max_bps: int | None = None


@dataclass(frozen=True, slots=True)
class Portfolio:
    """Assets whose weights sum to 10,000; `hubs` are tokens that routes may pass through, `hub_feeds` their USD feeds.

    `wrapped_native` prices gas; it should be an asset or a hub. `positions` are the liquidity positions that count,
    `lp_targets` the liquidity that is wanted, `orders` what keeps an asset out of the market. `weights` says how
    the targets are chosen; None leaves them as they are.
    """

    numeraire: Token
    assets: tuple[Asset, ...]
    hubs: tuple[Token, ...]
    wrapped_native: str
    hub_feeds: tuple[tuple[str, str], ...] = ()
    positions: tuple[ConfirmedPosition, ...] = ()
    lp_targets: tuple[LpTarget, ...] = ()
    weights: AllocatorConfig | None = None
    orders: OrdersConfig = NO_ORDERS

    def feed(self, address: str) -> str | None:
        """USD price feed of the token at `address`; None when it has none."""
        feeds = {asset.token.address: asset.feed for asset in self.assets} | dict(self.hub_feeds)
        return feeds.get(address)

    def feeds(self) -> tuple[str, ...]:
        """Every price feed, each once."""
        found = [asset.feed for asset in self.assets if asset.feed is not None] + [feed for _, feed in self.hub_feeds]
        return tuple(dict.fromkeys(found))

    def token(self, address: str) -> Token:
        """The token at `address`; KeyError when it is neither asset nor hub, nor the native coin."""
        if address == NATIVE:
            return Token(NATIVE, "native", 18)
        for token in (*(a.token for a in self.assets), *self.hubs, self.numeraire):
            if token.address == address:
                return token
        raise KeyError(address)


class Destination(Enum):
    """Where a triggered rebalance goes: the target, the nearer edge of the band, half of the way, or as far as it pays."""

    TARGET = "target"
    BAND = "band"
    HALFWAY = "halfway"
    ZONE = "zone"


class TradeSide(Enum):
    """Which side of a rebalance is traded (agent/policy/drift.py says exactly what)."""

    SELL = "sell"
    BUY = "buy"
    WINNERS = "winners"
    LOSERS = "losers"


@dataclass(frozen=True, slots=True)
class Policy:
    """When to act and how far to go; destination BAND needs a trigger that has a band, ZONE goes with a Zone and nothing else does.

    What prices make a trigger ask for must be asked for by those of the `confirm_blocks` blocks before, too. A schedule is due
    up to `jitter_bps` of its interval late, at random. With `only` one side alone is traded.
    """

    trigger: Trigger
    destination: Destination
    cooldown_s: int
    confirm_blocks: int = 0
    jitter_bps: int = 0
    only: TradeSide | None = None


# --- How a correction is spread over time: what the owner allows, and what each number of rounds would cost.


class ExecutionStyle(Enum):
    """At once; in rounds where they are cheaper; over a stated time; or only at a price that is good enough."""

    MARKET = "market"
    ROUNDS = "rounds"
    TWAP = "twap"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class ExecutionPace:
    """What [execution] says of time. Shares in bps.

    ROUNDS: up to `max_rounds`, `interval_s` apart on average, while pools go half of the way back to where they were within
    `recovery_s`. TWAP: `max_rounds` over `over_s`. Sizes differ by up to `size_jitter_bps` of a fair share, times by up to
    `time_jitter_bps` of the mean. `budget_bps` of what is moved may be lost against the prices at the start (None: off).
    `waiting_bps_hour` is what an hour's wait costs of what is still to be moved; None takes the zone's risk.
    LIMIT: no more than `limit_bps` worse than the prices at the start, or so much better where it is below zero, within
    `patience_s`.
    """

    style: ExecutionStyle = ExecutionStyle.MARKET
    max_rounds: int = 1
    interval_s: int = 0
    over_s: int = 0
    recovery_s: int = 0
    size_jitter_bps: int = 0
    time_jitter_bps: int = 0
    budget_bps: int | None = None
    waiting_bps_hour: Fraction | None = None
    limit_bps: int = 0
    patience_s: int = 0


@dataclass(frozen=True, slots=True)
class SlicingCost:
    """What it costs to do a correction in so many equal rounds, numeraire base units at the reference prices of now.

    `gas` includes that of approvals. `waiting` prices what is moved later, `rest` what is not moved at all. `moved` is the
    turnover of all rounds together.
    """

    rounds: int
    moved: Fraction
    fees: Fraction
    impact: Fraction
    skew: Fraction
    gas: Fraction
    waiting: Fraction
    rest: Fraction

    @property
    def total(self) -> Fraction:
        """Everything that is compared."""
        return self.fees + self.impact + self.skew + self.gas + self.waiting + self.rest


@dataclass(frozen=True, slots=True)
class SlicingComparison:
    """The comparison of one round with several: each in `options`, fewest first, the one that is `chosen`, and `why`."""

    options: tuple[SlicingCost, ...]
    chosen: int
    why: str


# --- What binds: where reference prices come from, every limit, and how a plan becomes a transaction.


class PriceSource(Enum):
    """Source of a reference price: Chainlink feed, V3 TWAP, or spot (local chains only unless allowed)."""

    FEED = "feed"
    TWAP = "twap"
    SPOT = "spot"


@dataclass(frozen=True, slots=True)
class ReferenceConfig:
    """Sources of the reference price in order of preference; a feed older than `feed_max_age_s` does not count.

    `feed_ages` are other ages by feed, in seconds. `mean_pools` are the pools whose means count, with the code that was pinned;
    None lets every pool of the snapshot count. While the sequencer of a rollup is down by `sequencer_feed`, and until it has
    been up again for `sequencer_grace_s`, nothing is traded.
    """

    kinds: tuple[PriceSource, ...]
    twap_window_s: int
    feed_max_age_s: int
    feed_ages: tuple[tuple[str, int], ...] = ()
    mean_pools: tuple[CodeHash, ...] | None = None
    sequencer_feed: str | None = None
    sequencer_grace_s: int = 0

    @property
    def uptime(self) -> tuple[str, ...]:
        """The sequencer's feed, where there is one."""
        return () if self.sequencer_feed is None else (self.sequencer_feed,)

    def max_age_s(self, feed: str) -> int:
        """Greatest age of that feed's round, in seconds."""
        return dict(self.feed_ages).get(feed, self.feed_max_age_s)


@dataclass(frozen=True, slots=True)
class Limits:
    """Every limit of the config; None means switched off by name.

    Values in numeraire base units: max_live_value, min_trade, pool_min_value, payout_per_day. Gas in wei. A limit that is on and
    whose data are missing refuses. `token_screen` says whether tokens are tried out before each plan.
    `balance_jump_wait_s` is chain time after which a rise beyond balance_jump counts as a deposit (None: at the next look).
    `first_purchase_s` is the time between two parts of a first purchase or top-up (None: limits of turnover bind them).
    """

    price_impact_bps: int | None
    slippage_bps: int | None
    plan_cost_bps: int | None
    turnover_bps: int | None
    daily_turnover_bps: int | None
    daily_loss_bps: int | None
    oracle_deviation_bps: int | None
    second_quote_deviation_bps: int | None
    depeg_bps: int | None
    gas_price_wei: int | None
    gas_per_day_wei: int | None
    native_floor_wei: int | None
    head_age_s: int | None
    min_trade: Fraction | None
    pool_min_value: Fraction | None
    impermanent_loss_bps: int | None
    balance_jump_bps: int | None
    max_live_value: Fraction | None
    lp_max_weight_bps: int | None = None
    total_loss_bps: int | None = None
    native_top_up_wei: int | None = None
    token_screen: bool | None = True
    payout_per_day: Fraction | None = Fraction(0)
    balance_jump_wait_s: int | None = 86_400
    first_purchase_s: int | None = None


@dataclass(frozen=True, slots=True)
class ExecutionConfig:
    """How a plan becomes a transaction. `router` is the spender's address, `router_kind` its encoder's name.

    `liquidity` are (venue, contract) through which liquidity is provided and taken out: V2 router, V3 position manager.
    `pace` says whether a correction is done at once or over time.
    """

    router_kind: str
    router: str
    deadline_s: int
    expire_blocks: int
    pinned: tuple[str, ...]
    liquidity: tuple[tuple[str, str], ...] = ()
    pace: ExecutionPace = field(default_factory=ExecutionPace)
