"""Drift, decision, goal, plan with its legs, cost and verdicts, the evidence for the guards, and
the terms and progress of gradual executions and limit orders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from fractions import Fraction
from functools import cached_property

from agent.errors import Verdict
from agent.model.market import ScreenedToken
from agent.model.parts import LayerAction, LayerDecision, LayerPlan, T, part_of, with_part
from agent.model.portfolio import SlicingComparison
from agent.model.triggers import RiskCostTradeoff, Threshold, TrackingRisk
from agent.units import BPS, format_percent


@dataclass(frozen=True, slots=True)
class AssetDrift:
    """Balance, weight and band of one asset, whose label is `symbol`.

    `raw` is the wallet's balance; `investable_raw` is that balance less the reserve, the spendable
    maximum. `raw_by_outside_place` are the base units outside the wallet, by the name of the place,
    such as the value of an account; `value` and weights count them too. `share` is the exact
    weight, `weight_bps` its rounding by largest remainder. The asset is `is_outside_band` if its
    weight is strictly below `band_low_bps` or above `band_high_bps`; the bounds are fractions,
    because 10 % of 333 bps is not an integer. `own_band` replaces the trigger's band, `max_bps` is
    the maximum weight.
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
    is_outside_band: bool
    own_band: Threshold | None = None
    max_bps: int | None = None
    raw_by_outside_place: tuple[tuple[str, int], ...] = ()

    @property
    def weight_text(self) -> str:
        """The weight as a reason, an alert or a table shows it: weights add up to 100.00 %."""
        return format_percent(Fraction(self.weight_bps, BPS))

    @property
    def locked_raw(self) -> int:
        """Base units that count towards the weight but cannot be spent by a swap."""
        return sum(raw for _, raw in self.raw_by_outside_place)

    def raw_at(self, place: str) -> int:
        """Return the base units at a place outside the wallet."""
        return dict(self.raw_by_outside_place).get(place, 0)


@dataclass(frozen=True, slots=True)
class GoalWeight:
    """Target share of one asset in the investable total after fees: a point (low == high) or an
    interval.
    """

    token: str
    low: Fraction
    high: Fraction


@dataclass(frozen=True, slots=True)
class Goal:
    """Target weights of all assets, in the portfolio's order.

    With a `risk` the plan stops where further trading costs more than it saves. Tokens in
    `never_sold` are never sold and tokens in `never_bought` never bought, even if the goal is
    missed. `max_sold_raw_by_token` caps the base units sold of a token.

    Half in WETH, of USDC between 45 and 55 %, and no WETH is sold for it:

    >>> weth, usdc = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"
    >>> point = GoalWeight(weth, low=Fraction(1, 2), high=Fraction(1, 2))
    >>> interval = GoalWeight(usdc, low=Fraction(45, 100), high=Fraction(55, 100))
    >>> goal = Goal((point, interval), never_sold=(weth,))
    """

    weights: tuple[GoalWeight, ...]
    risk: TrackingRisk | None = None
    never_sold: tuple[str, ...] = ()
    never_bought: tuple[str, ...] = ()
    max_sold_raw_by_token: tuple[tuple[str, int], ...] = ()

    def with_sale_caps(self, cap_raw_by_token: Mapping[str, int]) -> Goal:
        """Return the goal with these caps on the base units sold too; the smaller of two counts."""
        caps_raw = dict(self.max_sold_raw_by_token)
        for token, cap_raw in cap_raw_by_token.items():
            caps_raw[token] = min(cap_raw, caps_raw.get(token, cap_raw))
        return replace(self, max_sold_raw_by_token=tuple(sorted(caps_raw.items())))


@dataclass(frozen=True, slots=True)
class Hold:
    """No trade now, and why.

    `limiting_rule` names the setting that held back a fired trigger; empty if no trigger fired.

    >>> Hold("WETH at 56 % is above its band 45-55 %; but the cooldown lasts", limiting_rule="cooldown").reason
    'WETH at 56 % is above its band 45-55 %; but the cooldown lasts'
    """

    reason: str
    limiting_rule: str = ""


class HaltCode(StrEnum):
    """Cause of a halt, as a code for programs."""

    ASSETS = "assets"
    BALANCE = "balance"
    BALANCE_CHANGE = "balance_jump"
    DATA_FEE = "data_fee"
    DEPEG = "depeg"
    DESTINATION = "destination"
    EMPTY = "empty"
    FUTURES = "futures"
    HARD_PAUSE = "hard_pause"
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
    """No trade, because data are unknown, stale or contradictory, or because something blocks
    trading, such as a stop, an open withdrawal or too small a total.

    `codes` are the causes, each once, in the order of the reason.

    >>> Halt("the feed of WETH is 2 h old", (HaltCode.REFERENCE_PRICE,)).codes[0].value
    'reference_price'
    """

    reason: str
    codes: tuple[HaltCode, ...] = ()


@dataclass(frozen=True, slots=True)
class Rebalance:
    """A trade towards the goal, because a trigger or an order fired or the owner requested it.

    `is_exit` marks an order that sells for the numeraire: neither cooldown nor turnover limits
    apply to this sale, all other limits do. `by_hand` marks a manual trade, which is reported
    separately from the strategy. `by_owner` marks an investment or a transition that the owner
    requested. `exempt_turnover` is the value moved for a purchase or a withdrawal: turnover limits
    are for drift and exclude it. `title` is why in short, for the title of its transaction; that of a
    manual trade has none.

    >>> goal = Goal((GoalWeight("0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", Fraction(1), Fraction(1)),))
    >>> Rebalance("WETH at 44 % is below its band 45-55 %", goal).by_trigger
    True
    >>> Rebalance("stop loss of WETH", goal, is_exit=True).by_trigger
    False
    """

    reason: str
    goal: Goal
    is_exit: bool = False
    by_hand: bool = False
    by_owner: bool = False
    exempt_turnover: Fraction = Fraction(0)
    title: str = "rebalance"

    @property
    def by_trigger(self) -> bool:
        """True unless an order fired or the owner requested it: the trigger fired, or it is a part
        of the first purchase. Only such a rebalance restarts cooldown, schedules and events.
        """
        return not (self.is_exit or self.by_hand or self.by_owner)


@dataclass(frozen=True, slots=True)
class TopUp:
    """Refill of gas money: the wallet unwraps `raw` of its wrapped coin, in a separate
    transaction.
    """

    reason: str
    raw: int


Decision = Hold | Halt | Rebalance | TopUp | LayerDecision


def decision_name(decision_type: type[Decision]) -> str:
    """Return the name that the journal and the documents give a decision, such as "hold"."""
    return decision_type.__name__.lower()


class LegPlace(Enum):
    """Source or destination of a leg's tokens: the wallet, or the router's balance left by the
    previous leg.
    """

    WALLET = "wallet"
    ROUTER = "router"


NATIVE_VENUE = "wrapped_native"
"""Venue of a leg that wraps the native coin (token_in is NATIVE) or unwraps it (token_out is)."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One swap in one pool, amounts in base units.

    Legs run in order. A leg with source ROUTER spends the router's whole balance of `token_in`;
    `amount_in_raw` is then a prediction. `fee_raw` is in token_in. `impact_bps` is the move of the
    pool's marginal price, fees excluded, rounded up. `min_out_raw` is the minimum output, from the
    simulation and the reference price (docs/limits.md).

    One WETH for 2,998.5 USDC in a pool of 5 bps, from the wallet to the wallet:

    >>> leg = Leg(
    ...     pool="0x88e6A0c2dDD26FEEb64F039a2c41296FcB3f5640",
    ...     venue="uniswap_v3",
    ...     token_in="0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2",
    ...     token_out="0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48",
    ...     fee_pips=500,
    ...     amount_in_raw=10**18,
    ...     amount_out_raw=2_998_500_000,
    ...     min_out_raw=2_983_507_500,
    ...     fee_raw=5 * 10**14,
    ...     impact_bps=1,
    ...     source=LegPlace.WALLET,
    ...     sink=LegPlace.WALLET,
    ... )
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
    source: LegPlace
    sink: LegPlace


@dataclass(frozen=True, slots=True)
class PlanCost:
    """Predicted cost in numeraire base units.

    `skew` is the cost of pool prices that differ from the reference, `gas` that of the transaction,
    `approval_gas` the gas of missing approvals. `funding` is the additional funding expected from
    futures orders over `futures.funding_horizon` (negative: saved or received). `data_fee` is the
    part of `gas` and `approval_gas` that rollups charge beyond gas.
    """

    fees: Fraction
    impact: Fraction
    skew: Fraction
    gas: Fraction
    approval_gas: Fraction = Fraction(0)
    funding: Fraction = Fraction(0)
    data_fee: Fraction = Fraction(0)

    @property
    def total(self) -> Fraction:
        """Sum of all parts."""
        return self.without_gas + self.gas + self.approval_gas

    @property
    def without_gas(self) -> Fraction:
        """Sum of all parts but gas; below zero if skew or funding gain more."""
        return self.fees + self.impact + self.skew + self.funding


@dataclass(frozen=True, slots=True)
class SkippedItem:
    """A trade or token that the plan skips, and the reason, such as impact bound, dust or no route.

    `limiting_rule` names the cost or size limit if the trade is possible but not worthwhile, and is
    "locked" if the excess is in positions or margin; empty otherwise. `is_too_costly` is true for
    an asset that costs more to move than limits.plan_cost allows, `is_below_floor` if all its pools
    pay less than their floor; the latter is not stored.
    """

    subject: str
    why: str
    limiting_rule: str = ""
    is_too_costly: bool = False
    is_below_floor: bool = field(default=False, compare=False)


class OptimalityGap:
    """Proven bound of what a better plan could save, in bps of the turnover.

    It takes a tenth of the time of a plan or more, and some plans are discarded unread, so it is
    reckoned when `bps` is first read.
    """

    def __init__(self, reckon_bps: Callable[[], Fraction]) -> None:
        self._reckon_bps = reckon_bps

    @classmethod
    def of_bps(cls, bps: Fraction) -> OptimalityGap:
        """Return the gap of a known bound."""
        return cls(lambda: bps)

    @cached_property
    def bps(self) -> Fraction:
        """The bound; what it is reckoned from is released."""
        bps = self._reckon_bps()
        self._reckon_bps = lambda: bps
        return bps

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OptimalityGap) and self.bps == other.bps

    def __hash__(self) -> int:
        return int(self.bps)

    def __repr__(self) -> str:
        return f"OptimalityGap.of_bps({self.bps!r})"

    def __reduce__(self) -> tuple[Callable[[Fraction], OptimalityGap], tuple[Fraction]]:
        return OptimalityGap.of_bps, (self.bps,)


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of a step: legs or liquidity actions, and their predicted results. Values are in
    numeraire base units.

    `turnover` is half the sum of absolute changes of holdings in value; `gross_volume` is the value
    sold, summed over legs. `gap` is the proven bound of the optimality gap (None: nothing to prove).
    `verdicts` is empty until the guards have judged the plan. `layer_actions` on
    liquidity positions are one transaction each, in order; a plan has either actions or legs, since
    swaps are planned again after the actions. `holdings_after` are token balances;
    `native_after_wei` is the native balance before gas (None: unchanged). `zone_tradeoff` is the
    trade-off of a no-trade zone, `slicing_comparison` the comparison of numbers of slices. `layers`
    are the parts of the layers.
    """

    block: int
    decision: Rebalance | TopUp | LayerDecision
    legs: tuple[Leg, ...]
    holdings_after: tuple[tuple[str, int], ...]
    weights_after_bps: tuple[tuple[str, int], ...]
    cost: PlanCost
    turnover: Fraction
    gross_volume: Fraction
    gas_units: int
    gap: OptimalityGap | None
    verdicts: tuple[Verdict, ...]
    skipped: tuple[SkippedItem, ...]
    expires_block: int
    layer_actions: tuple[LayerAction, ...] = ()
    native_after_wei: int | None = None
    zone_tradeoff: RiskCostTradeoff | None = None
    slicing_comparison: SlicingComparison | None = None
    layers: tuple[LayerPlan, ...] = ()

    @property
    def gap_bps(self) -> Fraction | None:
        """The bound of the gap in bps of the turnover; None if there is nothing to prove."""
        return None if self.gap is None else self.gap.bps

    def layer(self, part_type: type[T]) -> T:
        """Return the part of a layer."""
        return part_of(self.layers, part_type)

    def with_layer(self, part: LayerPlan) -> Plan:
        """Return the plan with this part of a layer."""
        return replace(self, layers=with_part(self.layers, part))

    @property
    def is_exit(self) -> bool:
        """True if turnover limits exclude the plan's sales for the numeraire."""
        return isinstance(self.decision, Rebalance) and self.decision.is_exit

    @property
    def acts_in_layer(self) -> bool:
        """True if the plan acts in a layer other than liquidity, whose acts are
        `layer_actions`.
        """
        return any(part.acts for part in self.layers)

    @property
    def action_count(self) -> int:
        """Number of the plan's actions on liquidity positions and in layers, each a transaction."""
        return len(self.layer_actions) + sum(part.action_count for part in self.layers)

    @property
    def is_swap(self) -> bool:
        """True if the plan swaps: it neither moves liquidity nor acts in another layer."""
        return not self.layer_actions and not self.acts_in_layer

    @property
    def is_emergency(self) -> bool:
        """True if the plan may pay the fees of an emergency."""
        return any(part.is_emergency for part in self.layers)

    def wallet_changes(self) -> dict[str, int]:
        """Return the predicted net change of each wallet balance, in base units."""
        return wallet_changes(self.legs)


def wallet_changes(legs: Sequence[Leg]) -> dict[str, int]:
    """Return the predicted net change of each wallet balance by the legs, in base units; native
    coin before gas under NATIVE.
    """
    change_raw_by_token: dict[str, int] = {}
    for leg in legs:
        if leg.source is LegPlace.WALLET:
            change_raw_by_token[leg.token_in] = (
                change_raw_by_token.get(leg.token_in, 0) - leg.amount_in_raw
            )
        if leg.sink is LegPlace.WALLET:
            change_raw_by_token[leg.token_out] = (
                change_raw_by_token.get(leg.token_out, 0) + leg.amount_out_raw
            )
    return change_raw_by_token


@dataclass(frozen=True, slots=True)
class SecondQuote:
    """Output of one leg by an independent quote; `error` if there is none. `sources` are the names
    of those that quoted it, all alike.
    """

    leg_index: int
    amount_out_raw: int | None
    error: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """Inputs of the guards beyond the snapshot, read for one plan just before it is judged.

    `paused` is None if the kill switch could not be read, which counts as paused (T14).
    `pinned_code_hashes` are the pinned (address, code hash) pairs of `trimtab trust`. `has_quorum`
    is true if enough operators agreed. `screened_tokens` are the transfer tests of the plan's
    tokens (None: not run). An active limit with missing evidence refuses the plan.
    """

    paused: bool | None
    pause_reason: str
    pinned_code_hashes: tuple[tuple[str, str], ...]
    second_quotes: tuple[SecondQuote, ...]
    has_quorum: bool
    now_s: int
    screened_tokens: tuple[ScreenedToken, ...] | None = None


class ExecutionState(StrEnum):
    """State of an execution in several steps: a purchase, a limit order, or one of a layer."""

    OPEN = "open"
    ENDED = "ended"
    CANCELLED = "cancelled"
    FILLED = "filled"
    """Of a limit order only."""
    EXPIRED = "expired"
    """Of a limit order only."""


@dataclass(frozen=True, slots=True)
class LimitOrder:
    """A manual limit order: sell `amount_in_raw` base units of `token_in` for `token_out` at
    `price` or better.

    `price` is base units of `token_out` per base unit of `token_in`, fees and impact included. The
    order expires at chain time `until_s`. `why` is the reason of its state; `note` describes it.
    """

    id: str
    token_in: str
    token_out: str
    amount_in_raw: int
    price: Fraction
    until_s: int
    begun_s: int
    state: ExecutionState = ExecutionState.OPEN
    why: str = ""
    note: str = ""
