"""The configuration of a step: portfolio, policy, orders, execution, reference prices and
limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from fractions import Fraction

from agent.model.futures import MarginBaseline
from agent.model.liquidity import ConfirmedPosition, LpTarget
from agent.model.market import CodeHash
from agent.model.triggers import Threshold, Trigger
from agent.model.weights import AllocatorConfig
from agent.units import NATIVE, Price, Token

# --- Conditional orders (entries and exits by price), and their state.


PORTFOLIO_SUBJECT = "portfolio"
"""Subject of an order on the whole portfolio, in place of a token address; its price is the NAV per
share.
"""


class OrderKind(Enum):
    """Kind of an order: buy at or below a price; sell at or below a price, at or above a price, or
    at a distance below the highest price; or only notify the owner, once, at or above a price or at
    or below it.
    """

    ENTRY = "entry"
    STOP_LOSS = "stop_loss"
    TAKE_PROFIT = "take_profit"
    TRAILING_STOP = "trailing_stop"
    ALERT_ABOVE = "alert_above"
    ALERT_BELOW = "alert_below"


PRICE_ALERTS = (OrderKind.ALERT_ABOVE, OrderKind.ALERT_BELOW)
"""Kinds that trade nothing."""


class OrderStage(Enum):
    """Stage of an order.

    WAITING: its price is not fixed yet. ARMED: its price is watched. FIRED: the exit is being sold,
    the entry may be bought, or the price alert is over. DONE: the asset is sold and stays out of
    the market until the owner arms the order again. OFF: switched off by the owner.
    """

    WAITING = "waiting"
    ARMED = "armed"
    FIRED = "fired"
    DONE = "done"
    OFF = "off"


class WeightReallocation(Enum):
    """Destination of the weight of an asset that was sold or awaits its entry: the numeraire, or
    the remaining assets in proportion.
    """

    CASH = "cash"
    REDISTRIBUTE = "redistribute"


@dataclass(frozen=True, slots=True)
class OrderTerms:
    """One order of the config. Exactly one of `price` and `share_bps` is set.

    `price` is in numeraire base units per token base unit. `share_bps` is the distance from the
    price at arming, or from the entry price for exits of an asset with an entry. For a trailing
    stop both are the distance from the highest price.
    """

    token: str
    kind: OrderKind
    price: Price | None = None
    share_bps: int | None = None


@dataclass(frozen=True, slots=True)
class OrdersConfig:
    """The orders of a portfolio.

    `reallocation` says where the weight of an asset goes that was sold or awaits its entry.
    The price must be `hysteresis_bps` away from the level of an exit when the exit is armed; a
    closed entry reopens once the price is that far below its level. An entry above the current
    price would fill at once: it is refused with `refuses_filled_entries`, otherwise reported.
    """

    terms: tuple[OrderTerms, ...] = ()
    reallocation: WeightReallocation = WeightReallocation.CASH
    hysteresis_bps: int = 100
    refuses_filled_entries: bool = False

    @property
    def without_alerts(self) -> OrdersConfig:
        """The orders that trade."""
        return replace(
            self,
            terms=tuple(
                order_terms for order_terms in self.terms if order_terms.kind not in PRICE_ALERTS
            ),
        )


NO_ORDERS = OrdersConfig()


@dataclass(frozen=True, slots=True)
class ConditionalOrder:
    """State of one order.

    `base_price` is the price from which `share_bps` counts, `highest_price` the highest confirmed
    price of a trailing stop, `event_price` the price at which the order fired or closed (None: not
    yet), `since_s` the chain time of the last change of stage, of a sold exit that of its firing.
    Prices of the portfolio are its NAV per share, 1 at the start.
    """

    token: str
    kind: OrderKind
    stage: OrderStage
    terms: OrderTerms
    since_s: int
    base_price: Price | None = None
    highest_price: Price | None = None
    event_price: Price | None = None

    @property
    def key(self) -> tuple[str, OrderKind]:
        """Unique key of the order: token and kind."""
        return self.token, self.kind

    @property
    def is_exit(self) -> bool:
        """True if the order sells."""
        return self.kind is not OrderKind.ENTRY and self.kind not in PRICE_ALERTS


@dataclass(frozen=True, slots=True)
class NavPerShare:
    """NAV per share `nav` of an earlier cycle, with its holdings (token, base units) and prices.

    The current NAV follows from the price gains of these holdings, so deposits and withdrawals do
    not change it. `later_loss` is the later loss by the agent's transactions, gas included, in
    numeraire base units. `margin` is the margin account of that cycle, whose result counts too
    (None: no account).
    """

    nav: Fraction
    at_s: int
    holdings: tuple[tuple[str, int], ...]
    prices: tuple[tuple[str, Price], ...]
    later_loss: Fraction = Fraction(0)
    margin: MarginBaseline | None = None


@dataclass(frozen=True, slots=True)
class BlockedExit:
    """An exit that cannot be carried out now, with the reason and the owner's remedy. The holdings
    of `token` stay. `excluded_raw` of them (base units) count in the portfolio value to which the
    losses of other exits are compared.
    """

    token: str
    why: str
    remedy: str
    excluded_raw: int = 0


@dataclass(frozen=True, slots=True)
class TokenRefusal:
    """Consecutive refusals by or because of a token: of its exits at submission, which had passed
    every guard, or of its approvals, which it ignored. The list that it is in says which.

    `why` is the reason of the newest, `refusal_count` their number, `at_s` the chain time of the
    newest.
    """

    token: str
    at_s: int
    refusal_count: int
    why: str


@dataclass(frozen=True, slots=True)
class ExitFailures:
    """Failures of one exit in the last 24 h of chain time, since it last succeeded or the owner
    resumed.

    `exit_name` is its name by `failures.exit_name`. `revert_count` are transactions and orders, of
    which `free_revert_count` cost no gas, `approval_cycle_count` cycles that only approved; `at_s` is
    the chain time of the newest.
    """

    exit_name: str
    revert_count: int
    approval_cycle_count: int
    at_s: int
    free_revert_count: int = 0


# --- Portfolio and policy: assets, targets, trigger, destination.


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset and its target weight, in bps of the investable total.

    `reserve_raw` base units stay outside the portfolio. `feed` is the USD price feed. If
    `includes_native` is set, the token is the wrapped native coin, and the wallet's native coin
    counts with it. `max_rebase_bps` is the largest daily balance change of a rebasing or
    interest-bearing token without a transfer. `band` replaces the trigger's band. Above `max_bps`
    of the portfolio the asset is not bought.
    """

    token: Token
    target_bps: int
    reserve_raw: int
    feed: str | None = None
    includes_native: bool = False
    max_rebase_bps: int = 0
    band: Threshold | None = None
    max_bps: int | None = None


@dataclass(frozen=True, slots=True)
class Portfolio:
    """Assets, whose target weights sum to 10,000, with hubs, liquidity, orders and allocator.

    Routes may pass through the `hubs`; `hub_feeds` are their USD feeds. The price of
    `wrapped_native` is the price of gas; the token should be an asset or a hub. `positions` are the
    confirmed liquidity positions, `lp_targets` the target liquidity. `allocator` is the allocator
    that chooses the targets (None: fixed targets). `use_cash_raw` is the most numeraire that the
    agent takes from the wallet (None: all of it).

    60 % WETH with the native coin, 40 % USDC, of which 100 stay outside:

    >>> weth = Token("0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "WETH", 18)
    >>> usdc = Token("0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "USDC", 6)
    >>> portfolio = Portfolio(
    ...     numeraire=usdc,
    ...     assets=(
    ...         Asset(weth, target_bps=6_000, reserve_raw=0, includes_native=True),
    ...         Asset(usdc, target_bps=4_000, reserve_raw=100 * usdc.unit),
    ...     ),
    ...     hubs=(),
    ...     wrapped_native=weth.address,
    ... )
    >>> portfolio.token(weth.address).symbol
    'WETH'
    """

    numeraire: Token
    assets: tuple[Asset, ...]
    hubs: tuple[Token, ...]
    wrapped_native: str
    hub_feeds: tuple[tuple[str, str], ...] = ()
    positions: tuple[ConfirmedPosition, ...] = ()
    lp_targets: tuple[LpTarget, ...] = ()
    allocator: AllocatorConfig | None = None
    orders: OrdersConfig = NO_ORDERS
    use_cash_raw: int | None = None

    @property
    def has_pool_positions(self) -> bool:
        """True if it has, or is to have, positions in pools."""
        return bool(self.positions or self.lp_targets)

    def feed(self, address: str) -> str | None:
        """Return the USD price feed of the token at `address`; None without a feed."""
        feed_by_token = {asset.token.address: asset.feed for asset in self.assets} | dict(
            self.hub_feeds
        )
        return feed_by_token.get(address)

    def feeds(self) -> tuple[str, ...]:
        """Return every price feed once."""
        asset_feeds = [asset.feed for asset in self.assets if asset.feed is not None]
        hub_feeds = [feed for _, feed in self.hub_feeds]
        return tuple(dict.fromkeys(asset_feeds + hub_feeds))

    def pricing_token(self, address: str) -> str:
        """Return the token at whose price a transfer of `address` is valued: the wrapped token for
        native coin, else itself.
        """
        return self.wrapped_native if address == NATIVE else address

    def asset_changes(self, change_raw_by_token: Mapping[str, int]) -> dict[str, int]:
        """Return changes of balances by token with those of native coin as its wrapped token's."""
        change_raw_by_asset: dict[str, int] = {}
        for address, change_raw in change_raw_by_token.items():
            token = self.pricing_token(address)
            change_raw_by_asset[token] = change_raw_by_asset.get(token, 0) + change_raw
        return change_raw_by_asset

    def asset(self, address: str) -> Asset:
        """Return the asset of the token at `address`. Raises KeyError for other tokens."""
        asset = self.find_asset(address)
        if asset is None:
            raise KeyError(address)
        return asset

    def find_asset(self, address: str) -> Asset | None:
        """Return the asset of the token at `address`; None for other tokens."""
        return next((asset for asset in self.assets if asset.token.address == address), None)

    def token(self, address: str) -> Token:
        """Return the asset, hub, numeraire or native coin at `address`. Raises KeyError for other
        tokens.
        """
        token = self.find_token(address)
        if token is None:
            raise KeyError(address)
        return token

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Assets, hubs and the numeraire, which may be one of them."""
        return (*(asset.token for asset in self.assets), *self.hubs, self.numeraire)

    def find_token(self, address: str) -> Token | None:
        """Return the asset, hub, numeraire or native coin at `address`; None for other tokens."""
        if address == NATIVE:
            return Token(NATIVE, "native", 18)
        return next((token for token in self.tokens if token.address == address), None)


class Destination(Enum):
    """Destination of a rebalance: the target, the nearer edge of the band, halfway between, or the
    point where further trading costs more than it saves.
    """

    TARGET = "target"
    BAND = "band"
    HALFWAY = "halfway"
    ZONE = "zone"


class TradeSide(Enum):
    """Restriction of a rebalance: only sales, only purchases, only sales of assets above their
    bands (winners), or only purchases of those below them (agent/policy/one_sided.py).
    """

    SELL = "sell"
    BUY = "buy"
    WINNERS = "winners"
    LOSERS = "losers"


@dataclass(frozen=True, slots=True)
class Policy:
    """Trigger, destination and constraints of rebalancing.

    Destination BAND needs a trigger with a band; ZONE and the no-trade zone require each other. A
    price trigger must also fire at the prices of the `confirm_blocks` preceding blocks. A schedule
    is delayed at random by up to `jitter_bps` of its interval. `trade_side` restricts trades to one
    side.
    """

    trigger: Trigger
    destination: Destination
    cooldown_s: int
    confirm_blocks: int = 0
    jitter_bps: int = 0
    trade_side: TradeSide | None = None


# --- Gradual execution: the owner's settings, and the cost of each number of slices.


class ExecutionStyle(Enum):
    """Execution style: at once, in slices if that is cheaper, over a fixed time, or at a limit
    price.
    """

    MARKET = "market"
    ROUNDS = "rounds"
    TWAP = "twap"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class ExecutionPace:
    """Timing of execution, from [execution]. Shares in bps.

    ROUNDS: up to `max_rounds` slices, `interval_s` apart on average; pools are assumed to recover
    half of a price move within `recovery_s`. TWAP: `max_rounds` slices over `twap_duration_s`.
    LIMIT: at most `limit_bps` worse than the prices at the start (negative: better), within
    `patience_s`. Slice sizes vary by up to `size_jitter_bps` of an equal share, waits by up to
    `time_jitter_bps` of the mean. `max_loss_bps` of the moved value is the largest loss against the
    prices at the start (None: off). `waiting_bps_hour` is the hourly cost of delaying the remainder
    (None: the risk of the no-trade zone).
    """

    style: ExecutionStyle = ExecutionStyle.MARKET
    max_rounds: int = 1
    interval_s: int = 0
    twap_duration_s: int = 0
    recovery_s: int = 0
    size_jitter_bps: int = 0
    time_jitter_bps: int = 0
    max_loss_bps: int | None = None
    waiting_bps_hour: Fraction | None = None
    limit_bps: int = 0
    patience_s: int = 0


@dataclass(frozen=True, slots=True)
class SlicingCost:
    """Cost of a rebalance in `slice_count` equal slices, in numeraire base units at current
    reference prices.

    `turnover` is the turnover of all slices together. `gas` includes approvals. `skew` is the cost
    of pool prices that differ from the reference, `delay_cost` that of delay, `unmoved_cost` that
    of the part never moved.
    """

    slice_count: int
    turnover: Fraction
    fees: Fraction
    impact: Fraction
    skew: Fraction
    gas: Fraction
    delay_cost: Fraction
    unmoved_cost: Fraction

    @property
    def total(self) -> Fraction:
        """Sum of all costs."""
        return self.fees + self.impact + self.skew + self.gas + self.delay_cost + self.unmoved_cost


@dataclass(frozen=True, slots=True)
class SlicingComparison:
    """Costs by number of slices: all `options`, fewest slices first, the `chosen_count` number, and
    the reason.
    """

    options: tuple[SlicingCost, ...]
    chosen_count: int
    why: str


# --- Settings of reference prices and of execution.


class PriceSource(Enum):
    """Source of a reference price: Chainlink feed, V3 TWAP, or spot (local chains only unless
    allowed).
    """

    FEED = "feed"
    TWAP = "twap"
    SPOT = "spot"


@dataclass(frozen=True, slots=True)
class ReferenceConfig:
    """Sources of reference prices, `sources` in order of preference.

    A feed round older than `feed_max_age_s` does not count; `max_age_s_by_feed` overrides this age
    by feed, in seconds. `twap_pools` are the pools whose TWAPs count, with their pinned code (None:
    every pool of the snapshot). Nothing is traded while `sequencer_feed` reports a rollup's
    sequencer down, and until it has been up for `sequencer_grace_s`. `uses_worse_source`: minimums
    and costs use the worse for the wallet of the sources that agree, and worst cases include
    limits.oracle_deviation; steps recorded before this rule lack the field. `short_window_s` is the
    window of a second, shorter TWAP that joins them where TWAPs are a source (0: none); steps
    recorded before there was one lack it.
    """

    sources: tuple[PriceSource, ...]
    twap_window_s: int
    feed_max_age_s: int
    max_age_s_by_feed: tuple[tuple[str, int], ...] = ()
    twap_pools: tuple[CodeHash, ...] | None = None
    sequencer_feed: str | None = None
    sequencer_grace_s: int = 0
    uses_worse_source: bool = False
    short_window_s: int = 0

    @property
    def uptime_feeds(self) -> tuple[str, ...]:
        """The sequencer's uptime feed, if any."""
        return () if self.sequencer_feed is None else (self.sequencer_feed,)

    def max_age_s(self, feed: str) -> int:
        """Return the maximum age of a round of `feed`, in seconds: of several tokens' own ages the
        least.
        """
        own_ages_s = [age_s for own_feed, age_s in self.max_age_s_by_feed if own_feed == feed]
        return min(own_ages_s, default=self.feed_max_age_s)


@dataclass(frozen=True, slots=True)
class PortfolioIdentity:
    """Where a portfolio is: name or chain id of its network, and its wallet's address. `is_local` is
    true for a local chain or a fork, whose coins are worth nothing.
    """

    network: str
    is_local: bool
    wallet: str


@dataclass(frozen=True, slots=True)
class ExecutionConfig:
    """Settings for turning a plan into a transaction.

    `router` is the spender's address, `router_kind` the name of its encoder, `pinned` the contracts
    whose code is compared with the hash in the store. `contract_by_venue` are the (venue, contract)
    pairs that provide and withdraw liquidity: V2 router, V3 position manager. `pace` selects
    immediate or gradual execution. `sweeps_outputs` is true if SwapRouter02 collects the outputs of
    V3 legs and sweeps them to the wallet, which costs gas; steps recorded before it did lack the
    field. `min_tip_wei` is the least tip per unit of gas.
    """

    router_kind: str
    router: str
    deadline_s: int
    expire_blocks: int
    pinned: tuple[str, ...]
    contract_by_venue: tuple[tuple[str, str], ...] = ()
    pace: ExecutionPace = field(default_factory=ExecutionPace)
    sweeps_outputs: bool = False
    min_tip_wei: int = 0

    def position_contract(self, venue: str) -> str:
        """Return the contract through which positions at a venue change; empty if there is none."""
        return dict(self.contract_by_venue).get(venue, "")
