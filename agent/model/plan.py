"""Plans and their parts: drift, decision, goal, legs, cost and verdicts; and the Evidence that
guards judge a plan by.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from fractions import Fraction

from agent.model.liquidity import LpAction
from agent.model.market import ScreenedToken
from agent.model.portfolio import SlicingComparison
from agent.model.triggers import RiskCostTradeoff, Threshold, TrackingRisk


@dataclass(frozen=True, slots=True)
class AssetDrift:
    """Balance, weight and band of one asset.

    `raw` is the wallet's balance, `investable_raw` that less its reserve: only this can be spent.
    `lp_raw` is the amount in confirmed liquidity positions; `value` and weights count both, less
    the reserve. `share` is the exact weight; `weight_bps` its largest-remainder rounding. Bands act
    on strictly beyond: below `band_low_bps` or above `band_high_bps` (exact fractions, since 10 %
    of 333 bps is not an integer). `own_band` is the asset's band, `max_bps` its maximum weight.
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
    """Wanted share of the investable total after fees for one asset: a point (low == high) or an
    interval.
    """

    token: str
    low: Fraction
    high: Fraction


@dataclass(frozen=True, slots=True)
class Goal:
    """Target weights of all assets, in the portfolio's order; with a `risk`, as far towards them as
    trading pays. Tokens in `unsold` are never sold and tokens in `unbought` never bought, whatever
    remains undone. `sell_at_most` caps the base units sold of a token.
    """

    weights: tuple[GoalWeight, ...]
    risk: TrackingRisk | None = None
    unsold: tuple[str, ...] = ()
    unbought: tuple[str, ...] = ()
    sell_at_most: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Hold:
    """No trade now, with the reason and the time of the next evaluation (None: the next tick).

    `kept_by` names the setting that held back a fired trigger; empty if none fired.
    """

    reason: str
    next_s: int | None = None
    kept_by: str = ""


class HaltCode(StrEnum):
    """Causes of a halt for programs; the reason tells them to people."""

    ASSETS = "assets"
    BALANCE = "balance"
    BALANCE_CHANGE = "balance_jump"
    DEPEG = "depeg"
    DESTINATION = "destination"
    EMPTY = "empty"
    LEDGER = "ledger"
    MIN_TRADE = "min_trade"
    ORACLE_DEVIATION = "oracle_deviation"
    ORDERS = "orders"
    POSITIONS = "positions"
    QUARANTINE = "quarantine"
    REFERENCE_PRICE = "reference_price"
    SEQUENCER = "sequencer"
    STOPPED = "stopped"
    STORE_AHEAD = "store_ahead"
    STRATEGIES = "strategies"
    TARGETS = "targets"
    WEIGHTS = "weights"
    WITHDRAWAL = "withdrawal"
    ZONE = "zone"


@dataclass(frozen=True, slots=True)
class Halt:
    """Unknown, stale or contradictory data: do not trade, and report the reason. `codes` are its
    causes, each once, in the order of the reason.
    """

    reason: str
    codes: tuple[HaltCode, ...] = ()


@dataclass(frozen=True, slots=True)
class Rebalance:
    """A trigger fired: trade towards the goal.

    `exit` marks an order that sells for the numeraire regardless of cooldown and limits of
    turnover: they do not count its sales for the numeraire, and all other limits apply. `by_hand`
    marks a manual trade, accounted apart from the strategy. `by_owner` marks a request of the owner
    to the strategy: an investment or a transition. `apart` is the value moved for a purchase or a
    withdrawal, which limits of turnover do not count, since they are for drift.
    """

    reason: str
    goal: Goal
    exit: bool = False
    by_hand: bool = False
    by_owner: bool = False
    apart: Fraction = Fraction(0)

    @property
    def by_trigger(self) -> bool:
        """True if the policy's trigger fired; only such a rebalance restarts cooldown, schedules
        and events.
        """
        return not (self.exit or self.by_hand or self.by_owner)


@dataclass(frozen=True, slots=True)
class AdjustLiquidity:
    """Withdraw, collect or provide liquidity, within budget and maximum weight; swaps follow in a
    later plan. With `pools` only the targets in these are followed: an exit withdraws the liquidity
    that it sells and leaves the rest unchanged.
    """

    reason: str
    pools: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TopUp:
    """Refill of gas money: the wallet unwraps `raw` of its wrapped coin, in a separate
    transaction.
    """

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
    """Source or destination of a leg's tokens: the wallet, or the router's balance left by the
    previous leg.
    """

    WALLET = "wallet"
    ROUTER = "router"


@dataclass(frozen=True, slots=True)
class Leg:
    """One swap in one pool, amounts in base units.

    Legs run in order. A leg with source ROUTER spends all that the legs before it left in the
    router in `token_in`; `amount_in_raw` is then the prediction. `fee_raw` is in token_in.
    `impact_bps` is the move of the pool's marginal price, fees excluded, rounded up. `min_out_raw`
    is the floor of design section 6.
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
    """Predicted cost in numeraire base units.

    Pool fees, price impact, skew of pools off the reference, gas of the transaction, and gas of the
    approvals that it still needs.
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
    """An item not carried out, and why: impact bound, dust, no route. `kept_by` names the limit of
    cost or size if the move is possible but not worth it; empty otherwise.
    """

    what: str
    why: str
    kept_by: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Predictions that can be checked: legs, balances and weights after, cost, expiry. Values in
    numeraire base units.

    `turnover` is half the sum of absolute changes of holdings in value; `gross_volume` the sum over
    legs. `gap_bps` is the optimality certificate (None: nothing to certify). `verdicts` is empty
    until guards have judged. `actions` on liquidity positions are one transaction each, in order; a
    plan has either actions or legs, since swaps are planned anew after the actions.
    `holdings_after` are token balances; `native_after_wei` is the native coin beside them, before
    gas (None: unchanged). `saving` weighs the plan of a no-trade zone, `pacing` compares numbers of
    slices.
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
        """True if limits of turnover ignore its sales for the numeraire."""
        return isinstance(self.decision, Rebalance) and self.decision.exit


@dataclass(frozen=True, slots=True)
class SecondQuote:
    """Output of one leg's pool by an independent library; `error` if there is none."""

    leg: int
    amount_out_raw: int | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Inputs of the guards beyond the snapshot, gathered for one plan just before it is judged.

    `paused` is None if the kill switch could not be read, which counts as paused (T14). `trusted`
    are the pinned (address, code hash) pairs of `trimtab trust`. `quorum` is true if enough
    operators agreed. A limit that is on and whose evidence is missing refuses. `screens` are the
    transfer tests of the plan's tokens (None: not run).
    """

    paused: bool | None
    pause_reason: str
    trusted: tuple[tuple[str, str], ...]
    second_quotes: tuple[SecondQuote, ...]
    quorum: bool
    now_s: int
    screens: tuple[ScreenedToken, ...] | None = None
