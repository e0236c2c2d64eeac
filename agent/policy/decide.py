"""Decision at a block: hold, halt, rebalance, act in a layer or move liquidity, always with the
reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.layers import policy as layers
from agent.model import (
    AdjustLiquidity,
    AssetDrift,
    Decision,
    Halt,
    HaltCode,
    Hold,
    NoTradeZone,
    Rebalance,
    StepInput,
)
from agent.policy import failures, minimum, native_coin, quarantine, targets
from agent.policy import rebalance as rebalances
from agent.policy.cash_flows import balance_changes, cash_limit, purchases, transfers
from agent.policy.decision import (
    Decider,
    DecisionContext,
    DecisionResult,
    first_fault,
    first_result,
    halt_with,
    spares_exits,
)
from agent.policy.drift import corrections, investable_total
from agent.policy.liquidity import decide as liquidity_moves
from agent.policy.liquidity.book import WithdrawMove
from agent.policy.minimum import format_money
from agent.policy.orders import blocked_exits, exits
from agent.policy.quarantine import Fault, decision_faults
from agent.policy.triggers import bands, no_trade_zone, rules
from agent.policy.triggers.bands import TriggerResult
from agent.policy.triggers.no_trade_zone import ZoneView
from agent.policy.triggers.rules import evaluate_trigger
from agent.reference import reference_prices
from agent.units import Price, format_time


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
        *(note(step, result.drifts) for note in layers.NOTES),
    )
    message = "; ".join(part for part in (result.decision.reason, *notes) if part)
    return replace(result, decision=replace(result.decision, reason=message))


def _halt_on_faults(context: DecisionContext) -> DecisionResult | None:
    """Halt while an input of the decision is unknown, stale or contradictory.

    If only the prices or orders of some assets are at fault, exits that do not depend on these
    prices are sold; layers reduce what needs no prices of the spot portfolio.
    """
    faults = decision_faults(context.step, context.references)
    if not faults:
        return None
    halted = halt_with(faults)
    sold = None
    if spares_exits(halted):
        sold = first_result(layers.ESCAPES, context) or _sell_triggered_exits(context)
    for reduce in layers.WITHOUT_PRICES:
        sold = sold or reduce(context, halted)
    if sold is None:
        return DecisionResult(halted, (), context.references)
    reason = f"{sold.decision.reason}; nothing else is traded: {halted.reason}"
    return replace(sold, decision=replace(sold.decision, reason=reason))


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
        hold = rebalances.unconfirmed_hold(decision.reason, "; ".join(waiting))
    else:
        return result
    return replace(result.held(hold), reviewed=False)


def _sell_only_exits(context: DecisionContext) -> DecisionResult | None:
    """Only sell triggered exits and reduce what layers hold while an asset without a price is excluded."""
    if not (lacking := context.step.excluded.exits_only):
        return None
    if (sold := _sell_triggered_exits(context) or first_result(layers.REDUCTIONS, context)) is None:
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
        out = rebalances.unconfirmed_hold(too_much.reason, not_yet)
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
    for part_of in layers.BESIDE_PURCHASES:
        result = result.with_layer(part_of(context))
    if purchase.due is not None and (first := native_coin.top_up(step, decision)):
        return result.held(first)
    return result


def _rebalance_on_trigger(context: DecisionContext) -> DecisionResult:
    """Rebalance if the trigger fires; else adjust liquidity towards its targets, or hold."""
    step, prices = context.step, context.prices
    trigger, zone, drifts = _evaluate_portfolio_trigger(context)
    trigger = bands.apply_max_weight(step, drifts, trigger)
    if (reason := step.progress.continues) and zone is None:
        # The preceding blocks already confirmed the rebalance of which this is the rest.
        trigger = replace(trigger, fired=True, reason=reason, by_time=True)
    decision: Decision
    if trigger.fired:
        decision, reviewed = rebalances.rebalance_or_hold(step, drifts, context.references, trigger)
        if isinstance(decision, Rebalance):
            decision, reviewed = rebalances.confirm_rebalance(
                step, prices, decision, reviewed, trigger.by_time
            )
        if isinstance(decision, Rebalance) and (
            withdrawal := _withdraw_liquidity_first(step, prices)
        ):
            decision, reviewed = withdrawal, False
    else:
        decision = liquidity_or_hold(
            step, prices, rebalances.review_hold(_forecast(step, drifts, trigger))
        )
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
    *layers.ESCAPES,
    _sell_only_exits,
    _sell_triggered_exits,
    *layers.REDUCTIONS,
    *layers.CLOSINGS,
    _halt_when_stopped,
    _stop_below_minimum,
    _withdraw_liquidity_over_limit,
    _wait_for_money_flows,
    _continue_purchase,
    *layers.BEFORE_TRIGGERS,
    _rebalance_on_trigger,
)
"""The deciders in order; the first result is the decision. Only stops block an escape of a
layer; only stops and faults, with the exceptions in _halt_on_faults, block an exit and a reduction
of a layer. Liquidity above its limits is withdrawn before any rebalance,
even while an open withdrawal blocks rebalances.
"""


def _first_result(step: StepInput) -> DecisionResult:
    context = DecisionContext(step, reference_prices(step))
    result = next(result for decider in DECIDERS if (result := decider(context)) is not None)
    result = _held_spot(step, result)
    for change in layers.INSTEAD_OF_HOLD:
        result = change(context, result)
    return result


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


def _forecast(
    step: StepInput, drifts: tuple[AssetDrift, ...], trigger: TriggerResult
) -> TriggerResult:
    """Return the result of a review that executes later, with the trades it would make now."""
    if trigger.waits_s is None:
        return trigger
    least = max(Fraction(1), step.limits.min_trade or Fraction(1))
    values = corrections(drifts, rebalances.goal_now(step, drifts)).values()
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


def _withdraw_liquidity_first(
    step: StepInput, prices: Mapping[str, Price]
) -> AdjustLiquidity | Hold | None:
    """Return the withdrawals of the liquidity targets; they precede swaps, which cannot spend
    liquidity.

    Provisions wait until no swap is due. No withdrawals during the cooldown after an action,
    because oscillating prices would move liquidity in every cycle.
    """
    if rebalances.cooldown_left(step, liquidity_too=True) or failures.is_stopped(step.history):
        return None
    try:
        adjustment = liquidity_moves.target_adjustment(step, prices)
    except Refused:
        return None
    if not any(isinstance(move, WithdrawMove) for move in adjustment.moves):
        return None
    if not_yet := rules.unconfirmed_reason(step, prices, rules.liquidity_signals, every=True):
        return rebalances.unconfirmed_hold(adjustment.reason, not_yet)
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
    if cooldown := rebalances.cooldown_left(step, liquidity_too=True):
        return replace(
            hold,
            reason=f"{hold.reason}; {adjustment.reason}; {cooldown[0]}",
            next_s=hold.next_s or cooldown[1],
        )
    if not_yet := rules.unconfirmed_reason(step, prices, rules.liquidity_signals, every=True):
        return replace(hold, reason=f"{hold.reason}; {adjustment.reason}, but {not_yet}")
    return AdjustLiquidity(adjustment.reason)
