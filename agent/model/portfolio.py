"""The configuration of a step: portfolio, policy, orders, execution, reference prices and
limits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction

from agent.model.liquidity import ConfirmedPosition, LpTarget
from agent.model.market import CodeHash
from agent.model.triggers import Threshold, Trigger
from agent.model.weights import AllocatorConfig
from agent.units import NATIVE, Price, Token

# --- Orders: entries and exits by price, and their state.


PORTFOLIO = "portfolio"
"""Subject of an order on the whole portfolio, in place of a token's address; its price is the NAV
per share.
"""


class OrderKind(Enum):
    """Kind of an order: buy at or below a price; sell at or below one, at or above one, or a
    distance below the highest price.
    """

    ENTRY = "entry"
    STOP_LOSS = "stop_loss"
    TAKE_PROFIT = "take_profit"
    TRAILING_STOP = "trailing_stop"


class OrderStage(Enum):
    """Stage of an order.

    WAITING: its price is not fixed yet. ARMED: its price is watched. FIRED: an exit is being sold,
    an entry may be bought. DONE: sold, and out of the market until the owner arms it again. OFF:
    switched off by the owner.
    """

    WAITING = "waiting"
    ARMED = "armed"
    FIRED = "fired"
    DONE = "done"
    OFF = "off"


class WeightReallocation(Enum):
    """Destination of the weight of an asset that is out or awaits its entry: the numeraire, or the
    other assets in proportion.
    """

    CASH = "cash"
    REDISTRIBUTE = "redistribute"


@dataclass(frozen=True, slots=True)
class OrderTerms:
    """One order of the config. Exactly one of `price` and `share_bps` is set.

    `price` is in numeraire base units per token base unit; for a trailing stop, its distance from
    the highest price. `share_bps` is the distance from the price at arming (for exits of an asset
    with an entry: from the entry); for a trailing stop, from the highest price.
    """

    token: str
    kind: OrderKind
    price: Price | None = None
    share_bps: int | None = None


@dataclass(frozen=True, slots=True)
class OrdersConfig:
    """The orders of a portfolio.

    An order is armed once its price is `hysteresis_bps` away from its level, and a closed entry
    reopens that far below its level. An entry above the current price fills at once: refused with
    `refuse_filled`, else reported.
    """

    terms: tuple[OrderTerms, ...] = ()
    absent: WeightReallocation = WeightReallocation.CASH
    hysteresis_bps: int = 100
    refuse_filled: bool = False


NO_ORDERS = OrdersConfig()


@dataclass(frozen=True, slots=True)
class ConditionalOrder:
    """State of one order.

    `basis` is the price that a share counts from, `mark` the highest confirmed price of a trailing
    stop, `at` the price at which it fired or closed (None: not yet), `since_s` the chain time of
    its last change of stage. Prices of the portfolio are its NAV per share, which began at 1.
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
        """Unique key of the order: token and kind."""
        return self.token, self.kind

    @property
    def is_exit(self) -> bool:
        """True if the order sells."""
        return self.kind is not OrderKind.ENTRY


@dataclass(frozen=True, slots=True)
class NavPerShare:
    """NAV per share at an earlier cycle: `worth` with these holdings (token, base units) at these
    prices.

    Deposits and withdrawals do not change it: it follows the price gains of those holdings. `lost`
    is the loss by the agent's transactions since, gas included, in numeraire base units.
    """

    worth: Fraction
    at_s: int
    holdings: tuple[tuple[str, int], ...]
    prices: tuple[tuple[str, Price], ...]
    lost: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class BlockedExit:
    """An asset that an order sells but that cannot be sold now: `why`, and the owner's remedy. Its
    holdings stay.
    """

    token: str
    why: str
    remedy: str


@dataclass(frozen=True, slots=True)
class SubmissionRefusal:
    """An exit that passed every guard and was refused at submission.

    `why` is the reason, `times` the number of refusals in a row, `at_s` the chain time of the last.
    """

    token: str
    at_s: int
    times: int
    why: str


# --- Portfolio and policy: assets, targets, trigger, destination.


@dataclass(frozen=True, slots=True)
class Asset:
    """One target: weight in bps of the investable total, `reserve_raw` base units outside the
    portfolio, `feed` its USD price feed. With `native` the token is the wrapped native coin, and
    the wallet's native coin counts with it. `rebasing_bps` is the largest daily change of its
    balance without a transfer, of rebasing and interest-bearing tokens. `band` replaces the
    trigger's. Above `max_bps` of the portfolio it is not bought.
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
    """Assets whose weights sum to 10,000; `hubs` are tokens that routes may pass through,
    `hub_feeds` their USD feeds.

    `wrapped_native` prices gas; it should be an asset or a hub. `positions` are the liquidity
    positions that count, `lp_targets` the target liquidity, `orders` the entries and exits.
    `weights` is the allocator of the targets; None leaves them fixed.
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
        """USD price feed of the token at `address`; None if it has none."""
        feeds = {asset.token.address: asset.feed for asset in self.assets} | dict(self.hub_feeds)
        return feeds.get(address)

    def feeds(self) -> tuple[str, ...]:
        """Every price feed, each once."""
        found = [asset.feed for asset in self.assets if asset.feed is not None] + [
            feed for _, feed in self.hub_feeds
        ]
        return tuple(dict.fromkeys(found))

    def token(self, address: str) -> Token:
        """The token at `address`; KeyError when it is neither asset nor hub, nor the native
        coin.
        """
        if address == NATIVE:
            return Token(NATIVE, "native", 18)
        for token in (*(a.token for a in self.assets), *self.hubs, self.numeraire):
            if token.address == address:
                return token
        raise KeyError(address)


class Destination(Enum):
    """Destination of a triggered rebalance: target, nearer edge of the band, halfway, or as far as
    it pays.
    """

    TARGET = "target"
    BAND = "band"
    HALFWAY = "halfway"
    ZONE = "zone"


class TradeSide(Enum):
    """Side of a rebalance that is traded (defined in agent/policy/drift.py)."""

    SELL = "sell"
    BUY = "buy"
    WINNERS = "winners"
    LOSERS = "losers"


@dataclass(frozen=True, slots=True)
class Policy:
    """Trigger, destination and constraints of rebalancing.

    BAND needs a trigger with a band; ZONE and the no-trade zone require each other. A price trigger
    must also fire on the prices of the `confirm_blocks` preceding blocks. A schedule is delayed by
    up to `jitter_bps` of its interval, at random. With `only` a single side is traded.
    """

    trigger: Trigger
    destination: Destination
    cooldown_s: int
    confirm_blocks: int = 0
    jitter_bps: int = 0
    only: TradeSide | None = None


# --- Gradual execution: the owner's settings, and the cost of each number of slices.


class ExecutionStyle(Enum):
    """At once; in slices if that is cheaper; over a stated time; or only at a limit price."""

    MARKET = "market"
    ROUNDS = "rounds"
    TWAP = "twap"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class ExecutionPace:
    """Timing of execution, from [execution]. Shares in bps.

    ROUNDS: up to `max_rounds` slices, `interval_s` apart on average, assuming that pools recover
    half of their move within `recovery_s`. TWAP: `max_rounds` slices over `over_s`. Sizes differ by
    up to `size_jitter_bps` of an equal share, times by up to `time_jitter_bps` of the mean.
    `budget_bps` of the moved value is the largest loss against the prices at the start (None: off).
    `waiting_bps_hour` is the cost of waiting one hour with the remainder; None takes the zone's
    risk. LIMIT: at most `limit_bps` worse than the prices at the start (negative: that much
    better), within `patience_s`.
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
    """Cost of a rebalance in this many equal slices, numeraire base units at the current reference
    prices.

    `gas` includes that of approvals. `waiting` prices delay, `rest` the part that is never moved.
    `moved` is the turnover of all slices together.
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
        """Total of all compared costs."""
        return self.fees + self.impact + self.skew + self.gas + self.waiting + self.rest


@dataclass(frozen=True, slots=True)
class SlicingComparison:
    """Costs by number of slices: all `options`, fewest first, the `chosen` number, and `why`."""

    options: tuple[SlicingCost, ...]
    chosen: int
    why: str


# --- Constraints: reference prices and execution settings.


class PriceSource(Enum):
    """Source of a reference price: Chainlink feed, V3 TWAP, or spot (local chains only unless
    allowed).
    """

    FEED = "feed"
    TWAP = "twap"
    SPOT = "spot"


@dataclass(frozen=True, slots=True)
class ReferenceConfig:
    """Sources of the reference price in order of preference; a feed older than `feed_max_age_s`
    does not count. `feed_ages` overrides this age by feed, in seconds. `mean_pools` are the pools
    whose TWAPs count, with their pinned code; None allows every pool of the snapshot. Nothing is
    traded while `sequencer_feed` reports a rollup's sequencer down, and until it has been up for
    `sequencer_grace_s`.
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
        """The sequencer's feed, if any."""
        return () if self.sequencer_feed is None else (self.sequencer_feed,)

    def max_age_s(self, feed: str) -> int:
        """Maximum age of that feed's round, in seconds."""
        return dict(self.feed_ages).get(feed, self.feed_max_age_s)


@dataclass(frozen=True, slots=True)
class ExecutionConfig:
    """Settings that turn a plan into a transaction. `router` is the spender's address,
    `router_kind` its encoder's name.

    `liquidity` are (venue, contract) through which liquidity is provided and withdrawn: V2 router,
    V3 position manager. `pace` selects immediate or gradual execution.
    """

    router_kind: str
    router: str
    deadline_s: int
    expire_blocks: int
    pinned: tuple[str, ...]
    liquidity: tuple[tuple[str, str], ...] = ()
    pace: ExecutionPace = field(default_factory=ExecutionPace)
