"""What binds: where reference prices come from, every limit, and how a plan becomes a transaction."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction

from agent.model.chain import CodeHash
from agent.model.pace import Pace


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
class Execution:
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
    pace: Pace = field(default_factory=Pace)
