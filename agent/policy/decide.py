"""Decision at a block: hold, halt, rebalance, adjust futures or move liquidity, always with the
reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.layers import policy as layers
from agent.layers.futures.policy.hedges import hedge_need
from agent.layers.futures.policy.needs import ORDER_GAS, emergency_need, futures_need, futures_note
from agent.model import (
    AdjustLiquidity,
    AssetDrift,
    Decision,
    Goal,
    Halt,
    HaltCode,
    Hold,
    NoTradeZone,
    Rebalance,
    StepInput,
)
from agent.policy import failures, minimum, native_coin, quarantine, targets
from agent.policy.cash_flows import balance_changes, cash_limit, purchases, transfers
from agent.policy.decision import (
    FAULTS_OF_SOME_ASSETS,
    Decider,
    DecisionContext,
    DecisionResult,
    first_fault,
    halt_with,
    spares_exits,
)
from agent.policy.drift import corrections, investable_total, rebalance_goal, restrict_to_side
from agent.policy.liquidity import decide as liquidity_moves
from agent.policy.liquidity.book import WithdrawMove
from agent.policy.minimum import format_money
from agent.policy.orders import blocked_exits, exits
from agent.policy.quarantine import Fault, decision_faults
from agent.policy.strategies import netting
from agent.policy.triggers import bands, no_trade_zone, rules
from agent.policy.triggers.bands import TriggerResult
from agent.policy.triggers.no_trade_zone import ZoneView
from agent.policy.triggers.rules import evaluate_trigger
from agent.reference import ReferencePrices, reference_prices
from agent.units import Price, Value, format_time

AFTER_HEDGE = "the rest of the rebalance, alongside its hedge"
FAULTS_OF_SPOT = FAULTS_OF_SOME_ASSETS | {
    HaltCode.REFERENCE_PRICE,
    HaltCode.QUARANTINE,
    HaltCode.BALANCE,
    HaltCode.POSITIONS,
    HaltCode.ZONE,
    HaltCode.STRATEGIES,
}
"""Faults of the spot portfolio, which do not affect futures reductions."""


def decide(step: StepInput) -> DecisionResult:
    """Decide from the step input alone; equal inputs give equal decisions.

    Raises ConfigError for an invalid schedule. The reason always names tokens in quarantine,
    blocked exits, and increases accepted as deposits.
    """
    result = replace(_first_result(step), stuck=step.stuck)
    for finish in layers.FINISHES:
        result = finish(step, result)
    notes = (
        quarantine.format_quarantine(step),
        blocked_exits.format_blocked_exits(step),
        step.excluded.reason,
        cash_limit.unused_text(step),
        balance_changes.format_accepted_deposits(step),
        futures_note(step, result.drifts),
    )
    message = "; ".join(part for part in (result.decision.reason, *notes) if part)
    return replace(result, decision=replace(result.decision, reason=message))


def _halt_on_faults(context: DecisionContext) -> DecisionResult | None:
    """Halt while an input of the decision is unknown, stale or contradictory.

    If only the prices or orders of some assets are at fault, exits that do not depend on these
    prices are sold. Futures that breach a limit are reduced despite FAULTS_OF_SPOT, futures near
    liquidation despite any fault.
    """
    faults = decision_faults(context.step, context.references)
    if not faults:
        return None
    halted = halt_with(faults)
    sold = None
    if spares_exits(halted):
        sold = _escape_liquidation(context) or _sell_triggered_exits(context)
    sold = sold or _reduce_without_prices(context, halted)
    if sold is None:
        return DecisionResult(halted, (), context.references)
    reason = f"{sold.decision.reason}; nothing else is traded: {halted.reason}"
    return replace(sold, decision=replace(sold.decision, reason=reason))


def _reduce_without_prices(context: DecisionContext, halted: Halt) -> DecisionResult | None:
    """Reduce futures by the venue's own figures alone, without prices of the spot portfolio."""
    step = context.step
    if context.stop:
        return None
    need = emergency_need(step)
    if need is None and {*halted.codes} <= FAULTS_OF_SPOT:
        need = futures_need(step, ())
    if need is None or not need.is_reducing:
        return None
    return DecisionResult(need, (), context.references)


def _escape_liquidation(context: DecisionContext) -> DecisionResult | None:
    """Close futures positions near liquidation, before the spot portfolio; only stops block it
    (during faults _halt_on_faults does it). Gas is topped up first only if it is not enough for one
    order.
    """
    step = context.step
    if context.stop or (need := emergency_need(step)) is None:
        return None
    short = step.snapshot.native_wei < native_coin.least_wei(step, ORDER_GAS)
    return context.result((native_coin.top_up(step, need) if short else None) or need)


def _sell_triggered_exits(context: DecisionContext) -> DecisionResult | None:
    """Sell the assets of triggered exit orders, one at a time."""
    if context.stop:
        return None
    step, drifts = context.step, context.drifts
    if (leaving := exits.triggered_exit(step, drifts, context.prices)) is None:
        return None
    first = native_coin.top_up(step, leaving)
    if first is None and isinstance(leaving, Rebalance):
        return replace(context.result(leaving), exit_token=exits.exit_tokens(step, drifts)[0])
    return context.result(first or leaving)


def _reduce_futures(context: DecisionContext) -> DecisionResult | None:
    """Reduce futures positions that breach a limit; only stops block it, and faults other than
    FAULTS_OF_SPOT.
    """
    if context.stop or context.step.futures is None:
        return None
    need = futures_need(context.step, context.drifts)
    if need is None or not need.is_reducing:
        return None
    return context.result(native_coin.top_up(context.step, need) or need)


def _close_hedges(context: DecisionContext) -> DecisionResult | None:
    """Close a hedge for which a closing rule holds; only faults and stops block it."""
    if context.stop or context.step.futures is None:
        return None
    need = hedge_need(context.step, context.drifts)
    if need is None:
        return None
    return context.result(native_coin.top_up(context.step, need) or need)


def _open_futures(context: DecisionContext, result: DecisionResult) -> DecisionResult:
    """Replace a hold of the spot portfolio with orders towards the futures targets, unless
    failures, withdrawals or unexplained changes block them.
    """
    step = context.step
    result = _held_spot(step, result)
    if step.futures is None or not isinstance(result.decision, Hold):
        return result
    if context.held_back or failures.is_stopped(step.history) or step.excluded.exits_only:
        return result
    need = futures_need(step, context.drifts)
    if need is None or need.is_reducing:
        return result
    decision = native_coin.top_up(step, need) or need
    reason = f"{decision.reason}; spot: {result.decision.reason}"
    return replace(result, decision=replace(decision, reason=reason))


def _held_spot(step: StepInput, result: DecisionResult) -> DecisionResult:
    """Replace a rebalance whose plan the guards refused with a hold, and one while an exit waits
    for its blocks: what is bought of the asset now would be sold in the next cycle. Exits continue.
    """
    decision = result.decision
    if not isinstance(decision, Rebalance) or decision.exit:
        return result
    if step.progress.spot_held:
        hold = Hold(f"{decision.reason}; {step.progress.spot_held}", result.next_s)
    elif step.history.orders.states and (waiting := exits.unconfirmed_notes(step, exits_only=True)):
        hold = _unconfirmed_hold(decision.reason, "; ".join(waiting))
    else:
        return result
    return replace(result.held(hold), reviewed=False, is_netting_only=False)


def _sell_only_exits(context: DecisionContext) -> DecisionResult | None:
    """Only sell triggered exits and reduce futures while an asset without a price is excluded."""
    if not (lacking := context.step.excluded.exits_only):
        return None
    if (sold := _sell_triggered_exits(context) or _reduce_futures(context)) is None:
        halt = halt_with([Fault(HaltCode.REFERENCE_PRICE, lacking)])
        return DecisionResult(halt, (), context.references)
    reason = f"{sold.decision.reason}; nothing else is traded: {lacking}"
    return replace(sold, decision=replace(sold.decision, reason=reason))


def _halt_when_stopped(context: DecisionContext) -> DecisionResult | None:
    """Halt after failures, if ledger and chain differ, with unconfirmed positions, or without
    target weights.
    """
    stop = context.stop or first_fault(
        (HaltCode.WEIGHTS, targets.missing_weights_reason(context.step))
    )
    if stop is None:
        return None
    return context.result(halt_with((*context.held_back, stop)))


def _stop_below_minimum(context: DecisionContext) -> DecisionResult | None:
    """Halt, or hold with blocked exits, if the total is too small to rebalance."""
    if context.held_back or not (reason := minimum.too_small_reason(context.step, context.drifts)):
        return None
    if context.step.stuck:
        return context.result(Hold(f"nothing else is traded: {reason}"))
    code = HaltCode.MIN_TRADE
    if investable_total(context.drifts) == 0:
        code = HaltCode.EMPTY
    return context.result(halt_with([Fault(code, reason)]))


def _withdraw_liquidity_over_limit(context: DecisionContext) -> DecisionResult | None:
    """Withdraw liquidity above its limits."""
    step, prices = context.step, context.prices
    too_much = liquidity_moves.limit_adjustment(step, prices)
    if not too_much.over:
        return None
    not_yet = rules.unconfirmed_reason(step, prices, rules.limit_signals)
    out: Hold | AdjustLiquidity = AdjustLiquidity(too_much.reason)
    if not_yet:
        out = _unconfirmed_hold(too_much.reason, not_yet)
    return context.result(native_coin.top_up(step, out) or out)


def _wait_for_money_flows(context: DecisionContext) -> DecisionResult | None:
    """Wait while a withdrawal is open, a balance change unexplained, or the margin unknown."""
    if not context.held_back:
        return None
    halt, next_s = halt_with(context.held_back), transfers.next_part_s(context.step)
    if next_s is None:
        return context.result(halt)
    return context.result(Hold(halt.reason, next_s, "limits.first_purchase"))


def _continue_purchase(context: DecisionContext) -> DecisionResult | None:
    """Trade the due part of the active purchase, or wait for it."""
    step = context.step
    if (part := purchases.decide_part(step, context.drifts)) is None:
        return None
    decision, purchase = part
    result = replace(context.result(decision), purchase=purchase)
    if step.split is not None:
        result = replace(result, netting=netting.net_strategies(step, context.prices))
    if purchase.due is not None and (first := native_coin.top_up(step, decision)):
        return result.held(first)
    return result


def _rebalance_strategies(context: DecisionContext) -> DecisionResult | None:
    """Rebalance each strategy by its own trigger and cooldown, all towards one goal; the remainder
    after internal netting must be worth a trade.
    """
    step, drifts, prices = context.step, context.drifts, context.prices
    if step.split is None:
        return None
    netted = netting.net_strategies(step, prices)
    trigger = bands.apply_max_weight(step, drifts, netted.answer)
    goal = netted.goal if netted.answer.fired else bands.reduction_goal(drifts)
    decision: Decision = _hold(trigger)
    reviewed = trigger.due
    if trigger.fired:
        decision, reviewed = _act(step, drifts, context.references, trigger, goal)
    if isinstance(decision, Rebalance) and not netted.answer.fired:
        decision, reviewed = _confirmed(step, prices, decision, reviewed, False)
    is_netting_only = (
        netted.answer.fired
        and isinstance(decision, Hold)
        and not _worth_it(step, _largest(drifts, netted.goal))
    )
    if (first := native_coin.top_up(step, decision)) is not None:
        return replace(context.result(first), next_s=trigger.next_s, netting=netted)
    return replace(
        context.result(decision),
        reviewed=reviewed,
        reviews=trigger.reviews if reviewed else (),
        next_s=trigger.next_s,
        netting=netted,
        is_netting_only=is_netting_only,
    )


def _rebalance_on_trigger(context: DecisionContext) -> DecisionResult:
    """Rebalance if the trigger fires; else adjust liquidity towards its targets, or hold."""
    step, prices = context.step, context.prices
    trigger, zone, drifts = _evaluate_portfolio_trigger(context)
    trigger = bands.apply_max_weight(step, drifts, trigger)
    if step.progress.after_hedge and zone is None:
        # The preceding blocks already confirmed the rebalance before its hedge.
        trigger = replace(trigger, fired=True, reason=AFTER_HEDGE, by_time=True)
    decision: Decision
    if trigger.fired:
        decision, reviewed = _act(step, drifts, context.references, trigger)
        if isinstance(decision, Rebalance):
            decision, reviewed = _confirmed(step, prices, decision, reviewed, trigger.by_time)
        if isinstance(decision, Rebalance) and (
            withdrawal := _withdraw_liquidity_first(step, prices)
        ):
            decision, reviewed = withdrawal, False
    else:
        decision = liquidity_or_hold(step, prices, _hold(_forecast(step, drifts, trigger)))
        reviewed = trigger.due
    if (first := native_coin.top_up(step, decision)) is not None:
        decision, reviewed = first, False
    return DecisionResult(
        decision,
        drifts,
        context.references,
        reviewed,
        zone,
        trigger.reviews if reviewed else (),
        trigger.next_s,
    )


def _evaluate_portfolio_trigger(
    context: DecisionContext,
) -> tuple[TriggerResult, ZoneView | None, tuple[AssetDrift, ...]]:
    """Return the trigger's result, the zone if the trigger is one, and the drifts with its
    bands.
    """
    step, drifts, trigger = context.step, context.drifts, context.step.policy.trigger
    if not isinstance(trigger, NoTradeZone):
        result = evaluate_trigger(
            trigger, drifts, step.snapshot.head.timestamp_s, step.history, step.policy.jitter_bps
        )
        return result, None, drifts
    if trigger.risk.unmeasured:
        return no_trade_zone.unmeasured_result(trigger.risk), None, drifts
    zone, drifts = no_trade_zone.evaluate_zone(step, trigger.risk, drifts, context.prices)
    result = no_trade_zone.zone_result(zone, drifts)
    if bands.must_reduce_weight(step, drifts):
        result = replace(result, fired=False)
    return result, zone, drifts


DECIDERS: tuple[Decider, ...] = (
    _halt_on_faults,
    _escape_liquidation,
    _sell_only_exits,
    _sell_triggered_exits,
    _reduce_futures,
    _close_hedges,
    _halt_when_stopped,
    _stop_below_minimum,
    _withdraw_liquidity_over_limit,
    _wait_for_money_flows,
    _continue_purchase,
    *layers.BEFORE_TRIGGERS,
    _rebalance_strategies,
    _rebalance_on_trigger,
)
"""The deciders in order; the first result is the decision. Only stops block an escape from
liquidation; only stops and faults, with the exceptions in _halt_on_faults, block an exit, a futures
reduction and the closing of a hedge. Liquidity above its limits is withdrawn before any rebalance,
even while an open withdrawal blocks rebalances.
"""


def _first_result(step: StepInput) -> DecisionResult:
    context = DecisionContext(step, reference_prices(step))
    result = next(result for decider in DECIDERS if (result := decider(context)) is not None)
    return _open_futures(context, result)


def current_drifts(step: StepInput) -> tuple[AssetDrift, ...]:
    """Return weight and target of each asset, for reports; empty if balances or prices are
    unknown.
    """
    return halt_for(step, "").drifts


def halt_for(step: StepInput, reason: str) -> DecisionResult:
    """Return a halt for a reason outside of the step, with drifts and prices for its report."""
    context = DecisionContext(step, reference_prices(step))
    drifts = () if decision_faults(step, context.references) else context.drifts
    return DecisionResult(Halt(reason), drifts, context.references, stuck=step.stuck)


def _confirmed(
    step: StepInput, prices: Mapping[str, Price], decision: Rebalance, reviewed: bool, by_time: bool
) -> tuple[Decision, bool]:
    """Return the rebalance if a schedule caused it or the preceding blocks confirm it; else a hold
    whose review stays due.
    """
    not_yet = "" if by_time else rules.unconfirmed_reason(step, prices, rules.trigger_signals)
    if not_yet:
        return _unconfirmed_hold(decision.reason, not_yet), False
    return decision, reviewed


def _unconfirmed_hold(reason: str, not_yet: str) -> Hold:
    return Hold(
        f"{reason}; but {not_yet}; checked again in the next cycle", kept_by="policy.confirm_blocks"
    )


def _hold(trigger: TriggerResult) -> Hold:
    when = "checked again in the next cycle"
    if trigger.next_s is not None:
        when = f"next review {format_time(trigger.next_s)}"
    reason = trigger.reason
    if when not in reason:
        reason = f"{reason}; {when}"
    return Hold(reason, trigger.next_s)


def _forecast(
    step: StepInput, drifts: tuple[AssetDrift, ...], trigger: TriggerResult
) -> TriggerResult:
    """Return the result of a review that executes later, with the trades it would make now."""
    if trigger.waits_s is None:
        return trigger
    least = max(Fraction(1), step.limits.min_trade or Fraction(1))
    values = corrections(drifts, _rebalance_goal_now(step, drifts)).values()
    trades = [
        f"{'sell' if value < 0 else 'buy'} {format_money(step, abs(value))} of {drift.symbol}"
        for drift, value in zip(drifts, values, strict=True)
        if drift.token != step.portfolio.numeraire.address and abs(value) >= least
    ]
    message = "nothing large enough for a trade"
    if trades:
        message = f"a rebalance would {', '.join(trades)}"
    reason = (
        f"{trigger.reason}; {message}; executed from {format_time(trigger.waits_s)} on, at"
        " the prices then"
    )
    return replace(trigger, reason=reason)


def _rebalance_goal_now(step: StepInput, drifts: tuple[AssetDrift, ...]) -> Goal:
    """Return the goal of a rebalance now."""
    trigger, policy = step.policy.trigger, step.policy
    if isinstance(trigger, NoTradeZone):
        if bands.must_reduce_weight(step, drifts):
            return bands.reduction_goal(drifts)
        return replace(rebalance_goal(drifts, policy.destination), risk=trigger.risk)
    goal = bands.cap_goal(drifts, rebalance_goal(drifts, policy.destination))
    return restrict_to_side(drifts, goal, policy.only, step.portfolio.numeraire.address)


def _withdraw_liquidity_first(
    step: StepInput, prices: Mapping[str, Price]
) -> AdjustLiquidity | Hold | None:
    """Return the withdrawals of the liquidity targets; they precede swaps, which cannot spend
    liquidity.

    Provisions wait until no swap is due. No withdrawals during the cooldown after an action,
    because oscillating prices would move liquidity in every cycle.
    """
    if _cooldown(step, liquidity_too=True) or failures.is_stopped(step.history):
        return None
    try:
        adjustment = liquidity_moves.target_adjustment(step, prices)
    except Refused:
        return None
    if not any(isinstance(move, WithdrawMove) for move in adjustment.moves):
        return None
    if not_yet := rules.unconfirmed_reason(step, prices, rules.liquidity_signals, every=True):
        return _unconfirmed_hold(adjustment.reason, not_yet)
    return AdjustLiquidity(adjustment.reason)


def liquidity_or_hold(
    step: StepInput, prices: Mapping[str, Price], hold: Hold
) -> Hold | AdjustLiquidity:
    """Return the moves of the liquidity targets outside the cooldown; else the hold, with the
    skipped moves and their reasons.
    """
    try:
        adjustment = liquidity_moves.target_adjustment(step, prices)
    except Refused as unknown:
        return replace(hold, reason=f"{hold.reason}; liquidity is unchanged: {unknown.message}")
    left = "".join(f"; {item.what}: {item.why}" for item in adjustment.skipped)
    if not adjustment.moves:
        return replace(hold, reason=hold.reason + left)
    if failures.is_stopped(step.history):
        return replace(
            hold,
            reason=(
                f"{hold.reason}; {adjustment.reason}, but too many transactions failed in a row:"
                " trimtab resume"
            ),
        )
    if cooldown := _cooldown(step, liquidity_too=True):
        return replace(
            hold,
            reason=f"{hold.reason}; {adjustment.reason}; {cooldown[0]}",
            next_s=hold.next_s or cooldown[1],
        )
    if not_yet := rules.unconfirmed_reason(step, prices, rules.liquidity_signals, every=True):
        return replace(hold, reason=f"{hold.reason}; {adjustment.reason}, but {not_yet}")
    return AdjustLiquidity(adjustment.reason)


def _act(
    step: StepInput,
    drifts: tuple[AssetDrift, ...],
    references: ReferencePrices,
    trigger: TriggerResult,
    combined_goal: Goal | None = None,
) -> tuple[Decision, bool]:
    """Return the decision of a fired trigger, and whether its review is done.

    The decision is a hold within the cooldown, while gas is too expensive, or if no correction is
    worth a trade; else a rebalance. `combined_goal` is that of several strategies.
    """
    # Each strategy has its own cooldown.
    if combined_goal is None and (cooldown := _cooldown(step)):
        return Hold(f"{trigger.reason}; {cooldown[0]}", cooldown[1], "policy.cooldown"), False
    if expensive := minimum.gas_too_high_reason(step, drifts, references):
        return Hold(f"{trigger.reason}; {expensive}", kept_by="gas"), False
    first = purchases.is_first_purchase(step)
    if combined_goal is not None:
        goal = combined_goal
    elif first and not isinstance(step.policy.trigger, NoTradeZone):
        goal = purchases.purchase_goal(step, drifts)
    else:
        goal = _rebalance_goal_now(step, drifts)
    largest = _largest(drifts, goal)
    if not _worth_it(step, largest):
        return _not_worth_a_trade(step, largest, trigger), trigger.due
    if first:
        name = purchases.first_rebalance_name(step, drifts, goal)
        allowance = purchases.turnover_allowance(step)
        return Rebalance(f"{name}; {trigger.reason}", goal, apart=allowance), trigger.due
    return Rebalance(trigger.reason, goal), trigger.due


def _not_worth_a_trade(step: StepInput, largest: Value, trigger: TriggerResult) -> Hold:
    """Return the hold of a fired trigger whose largest correction is too small, or on the side that
    policy.only excludes.
    """
    message, kept_by = f"{trigger.reason}; nothing to do", ""
    if step.policy.only is not None:
        message += f" under policy.only = {step.policy.only.value}"
        kept_by = "policy.only"
    if largest:
        message += (
            f": the largest correction is {format_money(step, largest)}, min_trade"
            f" {format_money(step, step.limits.min_trade)}"
        )
        kept_by = "limits.min_trade"
    return replace(_hold(TriggerResult(False, message, trigger.next_s)), kept_by=kept_by)


def _largest(drifts: tuple[AssetDrift, ...], wanted: Goal) -> Value:
    return max(abs(value) for value in corrections(drifts, wanted).values())


def _worth_it(step: StepInput, largest: Value) -> bool:
    """True if the largest correction is worth a trade."""
    return largest > 0 and largest >= (step.limits.min_trade or 0)


def _cooldown(step: StepInput, liquidity_too: bool = False) -> tuple[str, int] | None:
    """Return the reason and the end of the cooldown; None outside a cooldown.

    Rebalances start a cooldown for rebalances and liquidity, liquidity actions only for liquidity.
    """
    history = step.history
    done = [
        (history.reviews.last_rebalance_s, "rebalance"),
        *(last_end(step) for last_end in layers.LAST_ENDS),
        (history.last_liquidity_s if liquidity_too else None, "liquidity action"),
    ]
    last_s, what = max(
        ((at_s, what) for at_s, what in done if at_s is not None), default=(None, "")
    )
    if last_s is None or step.snapshot.head.timestamp_s >= last_s + step.policy.cooldown_s:
        return None
    until_s = last_s + step.policy.cooldown_s
    reason = (
        f"but the last {what} was at {format_time(last_s)} and the cooldown lasts until"
        f" {format_time(until_s)}"
    )
    return reason, until_s
