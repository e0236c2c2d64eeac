"""What is to be done: drift, decision, goal, legs, cost, verdicts; and the Evidence that guards judge a plan by."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.model.liquidity import LpAction
from agent.model.market import ScreenedToken
from agent.model.portfolio import RiskCostTradeoff, SlicingComparison, Threshold, TrackingRisk


@dataclass(frozen=True, slots=True)
class AssetDrift:
    """Where one asset stands. `raw` is the wallet's balance, `investable_raw` that less its reserve: only this can be spent.

    `lp_raw` is what confirmed liquidity positions hold of it; `value` and weights count both, the reserve taken off.
    `share` is the exact weight; `weight_bps` its largest-remainder rounding. Bands act on strictly beyond: below
    `band_low_bps` or above `band_high_bps` (exact fractions, since 10 % of 333 bps is no integer). `own_band` is that of the
    asset, `max_bps` the most that it may be.
    """

    token: str
    symbol: str
    raw: int
    investable_raw: int
    price: Fraction
    value: Fraction
    share: Fraction
    weight_bps: int
    target_bps: int
    drift_bps: int
    band_low_bps: Fraction
    band_high_bps: Fraction
    outside: bool
    lp_raw: int = 0
    own_band: Threshold | None = None
    max_bps: int | None = None


@dataclass(frozen=True, slots=True)
class GoalWeight:
    """Wanted share of the investable total after fees for one asset: a point (low == high) or an interval."""

    token: str
    low: Fraction
    high: Fraction


@dataclass(frozen=True, slots=True)
class Goal:
    """Wanted shares of all assets, in the portfolio's order; with a `risk` to go towards as far as that pays.

    Of tokens in `unsold` nothing is sold, of those in `unbought` nothing bought, whatever that leaves undone; of those
    in `sell_at_most` no more than so many base units are sold.
    """

    weights: tuple[GoalWeight, ...]
    risk: TrackingRisk | None = None
    unsold: tuple[str, ...] = ()
    unbought: tuple[str, ...] = ()
    sell_at_most: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Hold:
    """No trade now, with the reason and when to look next (None: at the next tick).

    `kept_by` names the setting that kept back what a trigger asked for; empty where none asked.
    """

    reason: str
    next_s: int | None = None
    kept_by: str = ""


@dataclass(frozen=True, slots=True)
class Halt:
    """Something is unknown, stale or contradictory: do nothing, tell the owner why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rebalance:
    """A trigger fired: restore the goal.

    With `exit` something has to go into the numeraire, whatever the cooldown and the limits of turnover say: they do not count
    what an exit sells for the numeraire, while all other limits judge it like any plan. `by_hand` says that no trigger asked for it:
    it is accounted apart from the strategy. `by_owner` is what its owner asks of the strategy, an investment or a transition.
    `apart` is the value that it moves for a purchase or a withdrawal: limits of turnover, which are for drift, do not count it.
    """

    reason: str
    goal: Goal
    exit: bool = False
    by_hand: bool = False
    by_owner: bool = False
    apart: Fraction = Fraction(0)

    @property
    def by_trigger(self) -> bool:
        """Whether the policy's trigger asked for it: cooldown, schedules and events count from such a one alone."""
        return not (self.exit or self.by_hand or self.by_owner)


@dataclass(frozen=True, slots=True)
class AdjustLiquidity:
    """Liquidity is to be taken out, collected or provided, within budget and maximal weight; swaps follow in a later plan.

    With `pools` targets in these alone are followed: an exit takes out what it sells, and leaves all other liquidity as it is.
    """

    reason: str
    pools: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TopUp:
    """Too little native coin is left for gas: the wallet unwraps `raw` of its wrapped coin, in a transaction of its own."""

    reason: str
    raw: int


Decision = Hold | Halt | Rebalance | AdjustLiquidity | TopUp


@dataclass(frozen=True, slots=True)
class Verdict:
    """One guard's judgement. `guard` is the limit's name in the config."""

    guard: str
    measured: str
    limit: str
    passed: bool


class LegFunding(Enum):
    """Whose balance a leg spends or fills: the wallet's, or what the previous leg left in the router."""

    WALLET = "wallet"
    ROUTER = "router"


@dataclass(frozen=True, slots=True)
class Leg:
    """One swap in one pool, amounts in base units.

    Legs run in order. A leg with source ROUTER spends all that the legs before it left in the router in `token_in`;
    `amount_in_raw` is then the prediction. `fee_raw` is in token_in. `impact_bps` is the move of the pool's marginal
    price, fees excluded, rounded up. `min_out_raw` is the floor of design section 6.
    """

    pool: str
    venue: str
    token_in: str
    token_out: str
    fee_pips: int
    amount_in_raw: int
    amount_out_raw: int
    min_out_raw: int
    fee_raw: int
    impact_bps: int
    source: LegFunding
    sink: LegFunding


@dataclass(frozen=True, slots=True)
class PlanCost:
    """Predicted cost in numeraire base units: pool fees, price impact, skew of pools off the reference, gas of the transaction, and
    gas of the approvals that it still needs.
    """

    fees: Fraction
    impact: Fraction
    skew: Fraction
    gas: Fraction
    approvals: Fraction = Fraction(0)

    @property
    def total(self) -> Fraction:
        """Sum of all parts."""
        return self.fees + self.impact + self.skew + self.gas + self.approvals


@dataclass(frozen=True, slots=True)
class SkippedItem:
    """Something the plan left undone, and why: the impact bound, dust, a missing route.

    `kept_by` names the limit of cost or size where the move is possible and not worth it; empty otherwise.
    """

    what: str
    why: str
    kept_by: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Predictions that can be checked: legs, balances and weights after, cost, expiry. Values in numeraire base units.

    `turnover` is half the sum of absolute changes of holdings in value; `gross_volume` the sum over legs.
    `gap_bps` is the certificate (None: nothing to certify). `verdicts` is empty until guards have judged. `actions` are done with
    liquidity positions, one transaction each, in order; a plan has either actions or legs, since swaps are planned anew
    on what the actions leave. `holdings_after` are token balances; `native_after_wei` is the native coin beside them, its gas not
    taken off (None: it stays). `saving` weighs the plan of a zone, `pacing` one round against several.
    """

    block: int
    decision: Rebalance | AdjustLiquidity | TopUp
    legs: tuple[Leg, ...]
    holdings_after: tuple[tuple[str, int], ...]
    weights_after_bps: tuple[tuple[str, int], ...]
    cost: PlanCost
    turnover: Fraction
    gross_volume: Fraction
    gas_units: int
    gap_bps: Fraction | None
    verdicts: tuple[Verdict, ...]
    skipped: tuple[SkippedItem, ...]
    expires_block: int
    actions: tuple[LpAction, ...] = ()
    native_after_wei: int | None = None
    saving: RiskCostTradeoff | None = None
    pacing: SlicingComparison | None = None

    @property
    def exits(self) -> bool:
        """Whether limits of turnover leave what it sells for the numeraire alone."""
        return isinstance(self.decision, Rebalance) and self.decision.exit


@dataclass(frozen=True, slots=True)
class SecondQuote:
    """What an independent library says one leg's pool pays; `error` where it could not say."""

    leg: int
    amount_out_raw: int | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What guards need beyond the snapshot, gathered for one plan just before it is judged.

    `paused` is None when the kill switch could not be read, which counts as paused (T14). `trusted` are the pinned
    (address, code hash) pairs of `trimtab trust`. `quorum` says that enough operators agreed. A limit that is
    on and whose evidence is missing refuses. `screens` says of each token that the plan moves how it moves (None: not tried).
    """

    paused: bool | None
    pause_reason: str
    trusted: tuple[tuple[str, str], ...]
    second_quotes: tuple[SecondQuote, ...]
    quorum: bool
    now_s: int
    screens: tuple[ScreenedToken, ...] | None = None
