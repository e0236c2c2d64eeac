"""What to do at this block: hold, halt, rebalance or move liquidity, always with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from agent.errors import Refused
from agent.model import (
    AdjustLiquidity,
    AssetDrift,
    BlockedExit,
    Decision,
    ExecutionSlice,
    Goal,
    GradualExecution,
    Halt,
    HaltCode,
    Hold,
    NoTradeZone,
    Rebalance,
    StepInput,
)
from agent.policy import (
    exits,
    failures,
    gradual_execution,
    minimum,
    native_coin,
    quarantine,
    targets,
)
from agent.policy.cash_flows import balance_changes, purchase, withdrawals
from agent.policy.drift import (
    compute_drifts,
    corrections,
    investable_total,
    rebalance_goal,
    restrict_to_side,
)
from agent.policy.faults import Fault, decision_faults
from agent.policy.liquidity import decide as lp_wish
from agent.policy.liquidity import valuation
from agent.policy.liquidity.book import WithdrawMove
from agent.policy.minimum import format_money
from agent.policy.strategies import netting
from agent.policy.strategies.netting import NettingResult
from agent.policy.triggers import bands, no_trade_zone, rules
from agent.policy.triggers.bands import TriggerResult
from agent.policy.triggers.no_trade_zone import ZoneView
from agent.policy.triggers.rules import evaluate_trigger
from agent.reference import (
    ReferencePrices,
    reference_prices,
)
from agent.units import Price, Value, format_time

PRICE_CONFLICTS = frozenset((HaltCode.DEPEG, HaltCode.ORACLE_DEVIATION))
"""Faults of the prices of some assets, which concern no exit of another one."""


def is_price_conflict(halt: Halt) -> bool:
    """True if only prices of some assets contradict each other: exits of others may go on."""
    return bool(halt.codes) and {*halt.codes} <= PRICE_CONFLICTS


def _halt(faults: Sequence[Fault]) -> Halt:
    codes = dict.fromkeys(fault.code for fault in faults)
    return Halt("; ".join(fault.message for fault in faults), tuple(codes))


@dataclass(frozen=True, slots=True)
class DecisionResult:
    """A decision with what it rests on. `drifts` is empty when balances or prices are unknown.

    `reviewed` says that a schedule was due and its review is now done, so that the next one counts
    from this block; `reviews` are what the store remembers such schedules by. `next_s` is when a
    schedule is due next. `zone` is there when a Zone decides: its Rebalance stands only if the plan
    saves more than it costs. `round` is what a campaign is due to do, `ended` why the one that was
    under way is not any more, and `begins` is one that begins with this decision. `order` is the
    limit order that it fills. `sleeves` is what strategies want where several share the wallet; it
    `crosses` when only they exchange something, no market. `exit_token` is the asset that an exit
    sells with this decision (empty: none), `stuck` are exits that cannot be done now.
    """

    decision: Decision
    drifts: tuple[AssetDrift, ...]
    references: ReferencePrices
    reviewed: bool = False
    zone: ZoneView | None = None
    reviews: tuple[str, ...] = ()
    next_s: int | None = None
    round: ExecutionSlice | None = None
    ended: str = ""
    begins: GradualExecution | None = None
    order: str = ""
    sleeves: NettingResult | None = None
    is_netting_only: bool = False
    exit_token: str = ""
    stuck: tuple[BlockedExit, ...] = ()

    @property
    def asks(self) -> Decision:
        """The decision; exchanges between strategies count as the rebalance that prices asked
        for.
        """
        if self.is_netting_only and self.sleeves is not None:
            return Rebalance(self.decision.reason, self.sleeves.goal)
        return self.decision


def decide(step: StepInput) -> DecisionResult:
    """Decide from the snapshot alone; equal inputs give equal decisions.

    Raises ConfigError for an invalid schedule. The reason always names tokens in quarantine,
    blocked exits, and increases accepted as deposits.
    """
    found = replace(_first_result(step), stuck=step.stuck)
    if renounced := gradual_execution.invalidation_reason(step):
        found = replace(found, ended=renounced)
    besides = (
        quarantine.format_quarantine(step),
        exits.format_blocked_exits(step),
        step.aside,
        balance_changes.format_accepted_deposits(step),
    )
    message = "; ".join(part for part in (found.decision.reason, *besides) if part)
    return replace(found, decision=replace(found.decision, reason=message))


@dataclass(frozen=True)
class DecisionContext:
    """A step with its reference prices. What several deciders need is worked out on first use,
    prices and drifts only without faults.
    """

    step: StepInput
    references: ReferencePrices

    @cached_property
    def prices(self) -> Mapping[str, Price]:
        """Reference prices by token, in the numeraire's base units per base unit."""
        return self.references.by_token

    @cached_property
    def drifts(self) -> tuple[AssetDrift, ...]:
        """Weight against target of each asset."""
        return compute_drifts(self.step, self.prices)

    @cached_property
    def stop(self) -> Fault | None:
        """Return why nothing may be traded; None if it may."""
        step = self.step
        return _first_fault(
            (HaltCode.STOPPED, step.history.stopped),
            (HaltCode.LEDGER, step.history.books),
            (HaltCode.POSITIONS, valuation.undecided_positions_reason(step)),
        )

    @cached_property
    def held_back(self) -> tuple[Fault, ...]:
        """Return why only exits and withdrawals of liquidity are allowed; empty if rebalances are
        allowed too.
        """
        reasons = (
            (HaltCode.WITHDRAWAL, withdrawals.open_withdrawal_reason(self.step)),
            (HaltCode.BALANCE_CHANGE, balance_changes.halt_reason(self.step)),
        )
        return tuple(Fault(code, reason) for code, reason in reasons if reason)

    def result(self, decision: Decision) -> DecisionResult:
        """Return the decision with its inputs."""
        return DecisionResult(decision, self.drifts, self.references)


def _first_fault(*reasons: tuple[HaltCode, str]) -> Fault | None:
    return next((Fault(code, reason) for code, reason in reasons if reason), None)


Decider = Callable[[DecisionContext], DecisionResult | None]
"""Decides a step, or returns None to leave it to the next decider."""


def _halt_on_faults(context: DecisionContext) -> DecisionResult | None:
    """Halt while anything the decision rests on is unknown, stale or contradictory. While only
    prices of some assets contradict each other, exits that do not depend on them are sold.
    """
    faults = decision_faults(context.step, context.references)
    if not faults:
        return None
    halted = _halt(faults)
    sold = _sell_triggered_exits(context) if is_price_conflict(halted) else None
    if sold is None:
        return DecisionResult(halted, (), context.references)
    reason = f"{sold.decision.reason}; nothing else is traded: {halted.reason}"
    return replace(sold, decision=replace(sold.decision, reason=reason))


def _sell_triggered_exits(context: DecisionContext) -> DecisionResult | None:
    """Sell what triggered orders take out of the portfolio, one asset at a time."""
    if context.stop:
        return None
    step, drifts = context.step, context.drifts
    if (leaving := exits.triggered_exit(step, drifts, context.prices)) is None:
        return None
    first = native_coin.top_up(step, leaving)
    if first is None and isinstance(leaving, Rebalance):
        return replace(context.result(leaving), exit_token=exits.exit_tokens(step, drifts)[0])
    return context.result(first or leaving)


def _halt_when_stopped(context: DecisionContext) -> DecisionResult | None:
    """Halt after failures or a disagreement of the ledger, with undecided positions, and without
    target weights.
    """
    stop = context.stop or _first_fault(
        (HaltCode.WEIGHTS, targets.missing_weights_reason(context.step))
    )
    return None if stop is None else context.result(_halt((*context.held_back, stop)))


def _stop_below_minimum(context: DecisionContext) -> DecisionResult | None:
    """Trade nothing with a total too small to rebalance."""
    if context.held_back or not (reason := minimum.too_small_reason(context.step, context.drifts)):
        return None
    if context.step.stuck:
        return context.result(Hold(f"nothing else is traded: {reason}"))
    empty = investable_total(context.drifts) == 0
    return context.result(_halt([Fault(HaltCode.EMPTY if empty else HaltCode.MIN_TRADE, reason)]))


def _withdraw_liquidity_over_limit(context: DecisionContext) -> DecisionResult | None:
    """Withdraw liquidity above its limits."""
    step, prices = context.step, context.prices
    too_much = lp_wish.limit_adjustment(step, prices)
    if not too_much.over:
        return None
    not_yet = rules.unconfirmed_reason(step, prices, rules.limit_signals)
    out: Hold | AdjustLiquidity = AdjustLiquidity(too_much.reason)
    if not_yet:
        out = _unconfirmed_hold(too_much.reason, not_yet)
    return context.result(native_coin.top_up(step, out) or out)


def _wait_for_money_flows(context: DecisionContext) -> DecisionResult | None:
    """Wait while a withdrawal is open or a balance change is unexplained."""
    if not context.held_back:
        return None
    halt, next_s = _halt(context.held_back), withdrawals.next_part_s(context.step)
    return context.result(
        halt if next_s is None else Hold(halt.reason, next_s, "limits.first_purchase")
    )


def _continue_gradual_execution(context: DecisionContext) -> DecisionResult | None:
    """Trade the due slice of a gradual execution, or wait for it."""
    step, prices = context.step, context.prices
    if (slice_decision := gradual_execution.decide_slice(step, context.drifts, prices)) is None:
        return None
    if slice_decision.round is None:
        first = None
    else:
        first = native_coin.top_up(step, slice_decision.decision)
    return replace(
        context.result(first or slice_decision.decision),
        round=None if first else slice_decision.round,
        ended=slice_decision.ended,
        sleeves=None if step.split is None else netting.net_strategies(step, prices),
    )


def _rebalance_strategies(context: DecisionContext) -> DecisionResult | None:
    """Rebalance each strategy by its own trigger and cooldown, all towards one goal; the remainder
    after internal netting must be worth a trade.
    """
    step, drifts, prices = context.step, context.drifts, context.prices
    if step.split is None:
        return None
    view = netting.net_strategies(step, prices)
    answer = bands.apply_max_weight(step, drifts, view.answer)
    wanted = view.goal if view.answer.fired else bands.reduction_goal(drifts)
    decision, reviewed = (
        _act(step, drifts, context.references, answer, wanted)
        if answer.fired
        else (_hold(answer), answer.due)
    )
    if isinstance(decision, Rebalance) and not view.answer.fired:
        decision, reviewed = _confirmed(step, prices, decision, reviewed, False)
    crosses = (
        view.answer.fired
        and isinstance(decision, Hold)
        and not _worth_it(step, _largest(drifts, view.goal))
    )
    if (first := native_coin.top_up(step, decision)) is not None:
        return replace(context.result(first), next_s=answer.next_s, sleeves=view)
    reviews = answer.reviews if reviewed else ()
    return DecisionResult(
        decision,
        drifts,
        context.references,
        reviewed,
        None,
        reviews,
        answer.next_s,
        sleeves=view,
        is_netting_only=crosses,
    )


def _rebalance_on_trigger(context: DecisionContext) -> DecisionResult:
    """Rebalance where the trigger fires; else adjust liquidity towards its targets, or hold."""
    step, prices = context.step, context.prices
    answer, zone, drifts = _evaluate_portfolio_trigger(context)
    answer = bands.apply_max_weight(step, drifts, answer)
    if answer.fired:
        decision, reviewed = _act(step, drifts, context.references, answer)
        if isinstance(decision, Rebalance):
            decision, reviewed = _confirmed(step, prices, decision, reviewed, answer.by_time)
        if isinstance(decision, Rebalance):
            out_first = _withdraw_liquidity_first(step, prices)
        else:
            out_first = None
        decision, reviewed = (decision, reviewed) if out_first is None else (out_first, False)
    else:
        decision = liquidity_or_hold(step, prices, _hold(_forecast(step, drifts, answer)))
        reviewed = answer.due
    first = native_coin.top_up(step, decision)
    if first is not None:
        return DecisionResult(first, drifts, context.references, False, zone, next_s=answer.next_s)
    return DecisionResult(
        decision,
        drifts,
        context.references,
        reviewed,
        zone,
        answer.reviews if reviewed else (),
        answer.next_s,
    )


def _evaluate_portfolio_trigger(
    context: DecisionContext,
) -> tuple[TriggerResult, ZoneView | None, tuple[AssetDrift, ...]]:
    """The trigger's answer, the zone where it is one, and the drifts with its bands."""
    step, drifts, trigger = context.step, context.drifts, context.step.policy.trigger
    if not isinstance(trigger, NoTradeZone):
        answer = evaluate_trigger(
            trigger, drifts, step.snapshot.head.timestamp_s, step.history, step.policy.jitter_bps
        )
        return answer, None, drifts
    if trigger.risk.unmeasured:
        return no_trade_zone.unmeasured_result(trigger.risk), None, drifts
    zone, drifts = no_trade_zone.evaluate_zone(step, trigger.risk, drifts, context.prices)
    answer = no_trade_zone.zone_result(zone, drifts)
    return (
        replace(answer, fired=False) if bands.must_reduce_weight(step, drifts) else answer,
        zone,
        drifts,
    )


DECIDERS: tuple[Decider, ...] = (
    _halt_on_faults,
    _sell_triggered_exits,
    _halt_when_stopped,
    _stop_below_minimum,
    _withdraw_liquidity_over_limit,
    _wait_for_money_flows,
    _continue_gradual_execution,
    _rebalance_strategies,
    _rebalance_on_trigger,
)
"""All deciders in order; the first result counts. Only faults and stops block an exit. Liquidity
above its limits is withdrawn before any rebalance, even while an open withdrawal blocks rebalances.
"""


def _first_result(step: StepInput) -> DecisionResult:
    context = DecisionContext(step, reference_prices(step))
    return next(found for decider in DECIDERS if (found := decider(context)) is not None)


def current_drifts(step: StepInput) -> tuple[AssetDrift, ...]:
    """Weight against target of each asset, for reports; decides nothing. Empty when balances or
    prices are unknown.
    """
    return halt_for(step, "").drifts


def halt_for(step: StepInput, reason: str) -> DecisionResult:
    """Return a halt for a reason outside of the step, with the drifts and prices of its report;
    decides nothing.
    """
    context = DecisionContext(step, reference_prices(step))
    drifts = () if decision_faults(step, context.references) else context.drifts
    return DecisionResult(Halt(reason), drifts, context.references, stuck=step.stuck)


def _confirmed(
    step: StepInput, prices: Mapping[str, Price], decision: Rebalance, reviewed: bool, by_time: bool
) -> tuple[Decision, bool]:
    """Return the rebalance if the preceding blocks confirm it, or no price caused it; else a hold
    whose review stays due.
    """
    not_yet = "" if by_time else rules.unconfirmed_reason(step, prices, rules.trigger_signals)
    return (_unconfirmed_hold(decision.reason, not_yet), False) if not_yet else (decision, reviewed)


def _unconfirmed_hold(reason: str, not_yet: str) -> Hold:
    return Hold(
        f"{reason}; but {not_yet}; checked again at the next tick", kept_by="policy.confirm_blocks"
    )


def _hold(answer: TriggerResult) -> Hold:
    if answer.next_s is None:
        when = "checked again at the next tick"
    else:
        when = f"next review {format_time(answer.next_s)}"
    return Hold(
        answer.reason if when in answer.reason else f"{answer.reason}; {when}", answer.next_s
    )


def _forecast(
    step: StepInput, drifts: tuple[AssetDrift, ...], answer: TriggerResult
) -> TriggerResult:
    """Describe what a review with later execution would do now."""
    if answer.waits_s is None:
        return answer
    found = [
        f"{'sell' if value < 0 else 'buy'} {format_money(step, abs(value))} of {drift.symbol}"
        for drift, value in zip(
            drifts, corrections(drifts, _wanted(step, drifts)).values(), strict=True
        )
        if drift.token != step.portfolio.numeraire.address
        and abs(value) >= max(Fraction(1), step.limits.min_trade or Fraction(1))
    ]
    if found:
        message = f"a rebalance would {', '.join(found)}"
    else:
        message = "nothing large enough for a trade"
    return replace(
        answer,
        reason=(
            f"{answer.reason}; {message}; executed from {format_time(answer.waits_s)} on, at"
            " the prices then"
        ),
    )


def _wanted(step: StepInput, drifts: tuple[AssetDrift, ...]) -> Goal:
    """Return the goal of a rebalance now."""
    trigger, policy = step.policy.trigger, step.policy
    if isinstance(trigger, NoTradeZone):
        if bands.must_reduce_weight(step, drifts):
            return bands.reduction_goal(drifts)
        return replace(rebalance_goal(drifts, policy.destination), risk=trigger.risk)
    wanted = bands.cap_goal(drifts, rebalance_goal(drifts, policy.destination))
    return restrict_to_side(drifts, wanted, policy.only, step.portfolio.numeraire.address)


def _withdraw_liquidity_first(
    step: StepInput, prices: Mapping[str, Price]
) -> AdjustLiquidity | Hold | None:
    """Return withdrawals for liquidity targets, before swaps, which could not spend that liquidity.

    Provisions wait until no swap is due. During the cooldown after an action none is withdrawn:
    oscillating prices would move liquidity in every cycle.
    """
    if _cooldown(step, liquidity_too=True) or failures.is_stopped(step.history):
        return None
    try:
        wanted = lp_wish.target_adjustment(step, prices)
    except Refused:
        return None
    if not any(isinstance(move, WithdrawMove) for move in wanted.moves):
        return None
    not_yet = rules.unconfirmed_reason(step, prices, rules.liquidity_signals, every=True)
    return _unconfirmed_hold(wanted.reason, not_yet) if not_yet else AdjustLiquidity(wanted.reason)


def liquidity_or_hold(
    step: StepInput, prices: Mapping[str, Price], hold: Hold
) -> Hold | AdjustLiquidity:
    """Return the moves of the liquidity targets, unless within the cooldown; else the hold, with
    skipped moves and reasons.
    """
    try:
        wanted = lp_wish.target_adjustment(step, prices)
    except Refused as unknown:
        return replace(hold, reason=f"{hold.reason}; liquidity is unchanged: {unknown.message}")
    left = "".join(f"; {item.what}: {item.why}" for item in wanted.skipped)
    if not wanted.moves:
        return replace(hold, reason=hold.reason + left)
    if failures.is_stopped(step.history):
        return replace(
            hold,
            reason=(
                f"{hold.reason}; {wanted.reason}, but too many transactions failed in a row:"
                " trimtab resume"
            ),
        )
    resting = _cooldown(step, liquidity_too=True)
    if resting:
        return replace(
            hold,
            reason=f"{hold.reason}; {wanted.reason}; {resting[0]}",
            next_s=hold.next_s or resting[1],
        )
    not_yet = rules.unconfirmed_reason(step, prices, rules.liquidity_signals, every=True)
    if not_yet:
        return replace(hold, reason=f"{hold.reason}; {wanted.reason}, but {not_yet}")
    return AdjustLiquidity(wanted.reason)


def _act(
    step: StepInput,
    drifts: tuple[AssetDrift, ...],
    references: ReferencePrices,
    answer: TriggerResult,
    together: Goal | None = None,
) -> tuple[Decision, bool]:
    """Return the rebalance of a fired trigger, unless within the cooldown, gas is too expensive, or
    nothing is worth a trade; and whether the review is done.
    """
    resting = _cooldown(step) if together is None else None  # each strategy has its own cooldown
    if resting:
        return Hold(f"{answer.reason}; {resting[0]}", resting[1], "policy.cooldown"), False
    dear = minimum.gas_too_high_reason(step, drifts, references)
    if dear:
        return Hold(f"{answer.reason}; {dear}", kept_by="gas"), False
    first = purchase.is_first_purchase(step)
    wanted = together or (
        purchase.purchase_goal(step, drifts)
        if first and not isinstance(step.policy.trigger, NoTradeZone)
        else _wanted(step, drifts)
    )
    largest = _largest(drifts, wanted)
    if not _worth_it(step, largest):
        if largest == 0:
            least = ""
        else:
            least = (
                f": the largest correction is {format_money(step, largest)}, min_trade"
                f" {format_money(step, step.limits.min_trade)}"
            )
        side = "" if step.policy.only is None else f" under policy.only = {step.policy.only.value}"
        hold = _hold(
            TriggerResult(False, f"{answer.reason}; nothing to do{side}{least}", answer.next_s)
        )
        return (
            replace(hold, kept_by="limits.min_trade" if largest else "policy.only" if side else ""),
            answer.due,
        )
    if first:
        return (
            Rebalance(
                f"{purchase.first_rebalance_name(step, drifts, wanted)}; {answer.reason}",
                wanted,
                apart=purchase.turnover_allowance(step),
            ),
            answer.due,
        )
    return Rebalance(answer.reason, wanted), answer.due


def _largest(drifts: tuple[AssetDrift, ...], wanted: Goal) -> Value:
    return max(abs(value) for value in corrections(drifts, wanted).values())


def _worth_it(step: StepInput, largest: Value) -> bool:
    """True if the largest correction is worth a trade."""
    return largest > 0 and largest >= (step.limits.min_trade or 0)


def _cooldown(step: StepInput, liquidity_too: bool = False) -> tuple[str, int] | None:
    """Until when the last rebalance forbids another; None when it does not. Liquidity rests after
    both, rebalances after their like.
    """
    history = step.history
    done = [
        (history.last_rebalance_s, "rebalance"),
        (history.campaign_ended_s, "correction over time"),
        (history.last_liquidity_s if liquidity_too else None, "action with liquidity"),
    ]
    last_s, what = max(
        ((at_s, what) for at_s, what in done if at_s is not None), default=(None, "")
    )
    if last_s is None or step.snapshot.head.timestamp_s >= last_s + step.policy.cooldown_s:
        return None
    until_s = last_s + step.policy.cooldown_s
    return (
        (
            f"but the last {what} was at {format_time(last_s)} and the cooldown lasts until"
            f" {format_time(until_s)}"
        ),
        until_s,
    )
