"""What the owner wants: portfolio, triggers, limits; and StepInput, the whole of what one step decides from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.model.chain import CodeHash, Snapshot
from agent.model.flows import Flow
from agent.model.liquidity import LpTarget
from agent.model.positions import ConfirmedPosition
from agent.model.risk import Zone
from agent.model.screening import ScreenedToken
from agent.units import NATIVE, Token


@dataclass(frozen=True, slots=True)
class Asset:
    """One target: weight in bps of the investable total, `reserve_raw` base units left alone, `feed` its USD price feed.

    With `native` the token is the wrapped native coin, and the wallet's native coin counts with it. `rebasing_bps` is what its
    balance may change by in a day without any transfer, as those of rebasing and interest-bearing tokens do.
    """

    token: Token
    target_bps: int
    reserve_raw: int
    feed: str | None = None
    native: bool = False
    rebasing_bps: int = 0


@dataclass(frozen=True, slots=True)
class Portfolio:
    """Assets whose weights sum to 10,000; `hubs` are tokens that routes may pass through, `hub_feeds` their USD feeds.

    `wrapped_native` prices gas; it should be an asset or a hub. `positions` are the liquidity positions that count,
    `lp_targets` the liquidity that is wanted.
    """

    numeraire: Token
    assets: tuple[Asset, ...]
    hubs: tuple[Token, ...]
    wrapped_native: str
    hub_feeds: tuple[tuple[str, str], ...] = ()
    positions: tuple[ConfirmedPosition, ...] = ()
    lp_targets: tuple[LpTarget, ...] = ()

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
class Hybrid:
    """Reviews on `schedule`, acts only if `threshold` is exceeded then."""

    threshold: Threshold
    schedule: Schedule


Trigger = Threshold | Every | Cron | Hybrid | Zone


@dataclass(frozen=True, slots=True)
class Policy:
    """When to act and how far to go; destination BAND needs a trigger that has a band, ZONE goes with a Zone and nothing else does.

    What prices make a trigger ask for must be asked for by those of the `confirm_blocks` blocks before, too. A schedule is due
    up to `jitter_bps` of its interval late, at random.
    """

    trigger: Trigger
    destination: Destination
    cooldown_s: int
    confirm_blocks: int = 0
    jitter_bps: int = 0


class ReferenceKind(Enum):
    """Source of a reference price: Chainlink feed, V3 TWAP, or spot (local chains only unless allowed)."""

    FEED = "feed"
    TWAP = "twap"
    SPOT = "spot"


@dataclass(frozen=True, slots=True)
class Reference:
    """Sources of the reference price in order of preference; a feed older than `feed_max_age_s` does not count.

    `feed_ages` are other ages by feed, in seconds. `mean_pools` are the pools whose means count, with the code that was pinned;
    None lets every pool of the snapshot count. While the sequencer of a rollup is down by `sequencer_feed`, and until it has
    been up again for `sequencer_grace_s`, nothing is traded.
    """

    kinds: tuple[ReferenceKind, ...]
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

    Values in numeraire base units: max_live_value, min_trade, pool_min_value. Gas in wei. A limit that is on and
    whose data are missing refuses. `token_screen` says whether tokens are tried out before each plan.
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
    native_top_up_wei: int | None = None
    token_screen: bool | None = True


@dataclass(frozen=True, slots=True)
class Execution:
    """How a plan becomes a transaction. `router` is the spender's address, `router_kind` its encoder's name.

    `liquidity` are (venue, contract) through which liquidity is provided and taken out: V2 router, V3 position manager.
    """

    router_kind: str
    router: str
    deadline_s: int
    expire_blocks: int
    pinned: tuple[str, ...]
    liquidity: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class History:
    """What the store remembers that a decision needs. Values in numeraire base units over the last 24 h of chain time.

    `last_rebalance_s` and `last_liquidity_s` are chain times of the newest swap, and action with liquidity, that succeeded.
    `reverts_in_row` and `approvals_in_row` (steps that only approved) count since the last swap that succeeded, or since the
    owner resumed. `flows` are changes of balances that nobody has explained yet, whose falls are part of the loss. `unknown` says
    why the last 24 h cannot be told; then limits of a day refuse. `undecided` are liquidity positions of the wallet that the
    store does not know and that the owner has to take over or forget. The schedule's next review is late by `delay_ppm`
    millionths of its window, drawn at the last one. `depegged` are dollars that left their peg and are not back at it yet.
    """

    last_rebalance_s: int | None
    last_review_s: int | None
    turnover_24h: Fraction
    loss_24h: Fraction
    gas_24h_wei: int
    reverts_in_row: int
    started_s: int | None
    approvals_in_row: int = 0
    last_liquidity_s: int | None = None
    flows: tuple[Flow, ...] = ()
    unknown: str = ""
    undecided: tuple[str, ...] = ()
    delay_ppm: int = 0
    depegged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepInput:
    """The whole of what one step decides from; the same input gives the same decision and plan.

    `spend_caps` are (token, base units) that legs may take from the wallet at most: what this step has approved already.
    `spent_gas_wei` is the gas money of those approvals: it still counts where native coin does, so that they are used up.
    `acted` says that this step has moved liquidity already: what it began is not held back by the bands of shares.
    `quarantine` are tokens that are left as they are; the portfolio then says what is wanted of the others.
    """

    snapshot: Snapshot
    portfolio: Portfolio
    policy: Policy
    reference: Reference
    limits: Limits
    execution: Execution
    history: History
    spend_caps: tuple[tuple[str, int], ...] = ()
    spent_gas_wei: int = 0
    acted: bool = False
    quarantine: tuple[ScreenedToken, ...] = ()
