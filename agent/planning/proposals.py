"""Proposals: the decision on a snapshot and its plan. Pure, so any step can be proposed again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from agent.amm.swap_errors import KnownTicksExceeded
from agent.errors import Refused
from agent.layers import planning as layer_planning
from agent.layers import sales
from agent.layers.policy import decide_without_swaps
from agent.model import (
    PORTFOLIO_SUBJECT,
    AdjustFutures,
    BlockedExit,
    Decision,
    Halt,
    Hold,
    LayerDecision,
    LegPlace,
    LimitOrder,
    Limits,
    NoTradeZone,
    Plan,
    Portfolio,
    PurchaseKind,
    PurchaseProgress,
    Rebalance,
    RiskCostTradeoff,
    Snapshot,
    StepInput,
    TopUp,
)
from agent.planning import gas_refill, partial_plans, planner
from agent.planning.effect import EFFECT_RULE, little_effect_reason
from agent.planning.limit_swaps import plan_limit_swap
from agent.planning.plan_builder import (
    CUT_BY_TURNOVER,
    LOCKED_EXCESS,
    MIN_TRADE_LIMIT,
    PLAN_COST_LIMIT,
)
from agent.planning.purchases import plan_purchase
from agent.planning.rounding import plan_pools_out_of_ticks
from agent.planning.solver.utility import until_freed
from agent.policy import minimum, quarantine
from agent.policy.cash_flows import balance_changes, cash_limit, purchases, transfers
from agent.policy.decide import decide
from agent.policy.decision import DecisionResult
from agent.policy.orders import blocked_exits, exits
from agent.policy.orders import conditional as conditional_orders
from agent.policy.orders.conditional import expiry_reason
from agent.policy.triggers.no_trade_zone import no_plan_reason, uneconomic_plan_reason
from agent.units import format_time


@dataclass(frozen=True, slots=True)
class Proposal:
    """A decision on one snapshot with its drifts, and a plan if it trades.

    `changed_step` is the decision's step if it differs from the given one: with exits blocked, or
    with amounts newly excluded or restored. `needs_more_ticks` is true if an order or slice waits
    for a price that further ticks might reach.
    """

    decision_result: DecisionResult
    plan: Plan | None
    changed_step: StepInput | None = None
    needs_more_ticks: bool = False


class RefusedWithBlockedExits(Refused):
    """Refusal of a plan with blocked exits; `step` is its step."""

    def __init__(self, step: StepInput, refusal: Refused) -> None:
        super().__init__(
            "; ".join(
                message_part
                for message_part in (
                    refusal.message,
                    blocked_exits.format_blocked_exits(step),
                    step.exclusions.reason,
                )
                if message_part
            ),
            refusal.verdicts,
            refusal.remedy,
            code=refusal.code,
        )
        self.step = step


RISK_RULE = "policy.trigger"
"""Name of the rule in the hold of a trigger that weighs risk: the plan saves less than it costs."""
HOLD_CAUSES = (PLAN_COST_LIMIT, MIN_TRADE_LIMIT, LOCKED_EXCESS, EFFECT_RULE, RISK_RULE)
"""Causes for which a fired trigger holds instead of refusing: the trade is not worth its cost, swaps
cannot spend the excess, or it would leave most of the drift.
"""
Proposer = Callable[[StepInput], Proposal]
"""Function that proposes a step for an input."""


def propose_rebalance(step_input: StepInput) -> Proposal:
    """Return the strategy's proposal: trade if a trigger fires, and in a zone only if the plan
    saves more risk than it costs. Exits come first, one per plan. An exit that the market cannot
    absorb within the limits is excluded, and the rest continues. An unexplained increase that lifts
    the portfolio above portfolio.max_live_value is excluded too, and so is a token that ignores its
    approvals.
    """
    return _propose_among_approvable(
        step_input, lambda step: _propose_after_exits(step, _propose_exits_first(step))
    )


def _propose_among_approvable(step_input: StepInput, propose: Proposer) -> Proposal:
    """Return the proposal without the tokens that ignored their approvals."""
    step = quarantine.quarantine_ignored_approvals(step_input)
    proposal = propose(step)
    if step is step_input:
        return proposal
    return replace(proposal, changed_step=proposal.changed_step or step)


def _propose_after_exits(step_input: StepInput, exit_proposal: Proposal) -> Proposal:
    """Return the proposal after exits were tried."""
    if exit_proposal.plan is not None:
        return exit_proposal
    step = exit_proposal.changed_step or step_input
    try:
        proposal = _propose_beside_purchase(step, exit_proposal.decision_result)
        return replace(proposal, changed_step=proposal.changed_step or exit_proposal.changed_step)
    except Refused as refusal:
        if exit_proposal.changed_step is not None or step.exclusions.reason:
            raise RefusedWithBlockedExits(step, refusal) from None
        raise


def _propose_beside_purchase(step: StepInput, decision_result: DecisionResult) -> Proposal:
    """Return the proposal. If the open purchase waits or is refused, and a trigger would fire even
    after it, the trigger's trade ends the purchase, whose rest is drift.

    In a divided wallet each part of the purchase already follows the combined goal.
    """
    active_purchase = step.history.cash_flows.purchase
    if active_purchase is None or step.divides_wallet:
        return _propose_decision(step, decision_result)
    try:
        purchase_proposal = _propose_decision(step, decision_result)
    except Refused:
        if (proposal := _propose_trigger_trade(step, active_purchase)) is None:
            raise
        return proposal
    if (
        purchase_proposal.plan
        or purchase_proposal.decision_result.purchase_result.end_reason
        or not isinstance(purchase_proposal.decision_result.decision, Hold)
    ):
        return purchase_proposal
    return _propose_trigger_trade(step, active_purchase) or purchase_proposal


def _propose_trigger_trade(step: StepInput, active_purchase: PurchaseProgress) -> Proposal | None:
    """Return the trade of a trigger that fires although the rest of the purchase will be bought;
    None without one.
    """
    step_without_purchase = purchases.with_purchase(step, None)
    try:
        step_after_purchase = replace(
            purchases.step_after_purchase(step), history=step_without_purchase.history
        )
        if not isinstance(decide(step_after_purchase).decision, Rebalance):
            return None
        proposal = _propose_decision(step_without_purchase, decide(step_without_purchase))
    except Refused:
        return None
    if proposal.plan is None:
        return None
    return _with_purchase_ended(
        proposal, active_purchase, "a trigger acts, and its rest is drift now"
    )


def _with_purchase_ended(
    proposal: Proposal, active_purchase: PurchaseProgress, why: str
) -> Proposal:
    """Return the proposal made without the purchase, with the end of the purchase."""
    step = proposal.changed_step
    if step is not None:
        step = purchases.with_purchase(step, active_purchase)
    purchase_result = replace(proposal.decision_result.purchase_result, end_reason=why)
    return replace(
        proposal,
        decision_result=replace(proposal.decision_result, purchase_result=purchase_result),
        changed_step=step,
    )


def _propose_rest_as_drift(
    step: StepInput,
    active_purchase: PurchaseProgress,
    decision_result: DecisionResult,
    no_plan: planner.NothingPlanned,
) -> Proposal:
    """Return the decision on the rest of a purchase as ordinary drift: it is not worth its cost, so
    the purchase ends.
    """
    why = f"the rest is {_short_reason(step.snapshot, step.portfolio, step.limits, decision_result, no_plan)}"
    end_hold = Hold(purchases.end_text(active_purchase.terms, why))
    step_without_purchase = purchases.with_purchase(step, None)
    try:
        proposal = _propose_decision(step_without_purchase, decide(step_without_purchase))
    except Refused as refusal:
        hold = replace(end_hold, reason=f"{end_hold.reason}; {refusal.message}")
        proposal = Proposal(decision_result.without_trades(hold), None)
    else:
        if isinstance(decision := proposal.decision_result.decision, Hold):
            hold = replace(decision, reason=f"{end_hold.reason}; {decision.reason}")
            proposal = replace(
                proposal, decision_result=replace(proposal.decision_result, decision=hold)
            )
    return _with_purchase_ended(proposal, active_purchase, why)


def _propose_decision(step: StepInput, decision_result: DecisionResult) -> Proposal:
    match decision_result.decision:
        case Rebalance() as decision:
            return _or_layers_beside_spot(
                step, decision, _plan_rebalance(step, decision_result, decision)
            )
        case LayerDecision():
            return _propose_in_layer(step, decision_result)
        case TopUp() as decision:
            return Proposal(decision_result, gas_refill.plan_top_up(step, decision))
        case Hold() | Halt():
            return Proposal(decision_result, None)


def _or_layers_beside_spot(
    step: StepInput, decision: Rebalance, spot_proposal: Proposal
) -> Proposal:
    """Return the proposal of the layers that act beside the spot portfolio if its trade is not
    worth its cost, so that a remaining spot drift does not delay them.
    """
    hold = spot_proposal.decision_result.decision
    if not step.acts_beside_spot or step.progress.spot_hold_reason or not decision.by_trigger:
        return spot_proposal
    if not isinstance(hold, Hold) or hold.limiting_rule not in HOLD_CAUSES:
        return spot_proposal
    why = hold.reason.removeprefix(f"{decision.reason}; but ")
    step_input = replace(step, progress=replace(step.progress, spot_hold_reason=f"spot: {why}"))
    layer_proposal = _propose_decision(step_input, decide(step_input))
    return (
        spot_proposal
        if layer_proposal.plan is None
        else replace(layer_proposal, changed_step=step_input)
    )


def _propose_in_layer(step: StepInput, decision_result: DecisionResult) -> Proposal:
    """Return the plan of a layer's decision; if the layer can do nothing, the proposal without
    it, with the reason.
    """
    layer_planner = layer_planning.PLANNERS[type(decision_result.decision)]
    plan_or_step = layer_planner.plan_decision(step, decision_result)
    if isinstance(plan_or_step, Plan):
        return Proposal(replace(decision_result, decision=plan_or_step.decision), plan_or_step)
    return _propose_decision(plan_or_step, decide(plan_or_step))


def _propose_exits_first(step_input: StepInput) -> Proposal:
    """Return the first exit that can be sold now, with its plan; else the decision without blocked
    or backing-off exits.

    Only an exit may spend amounts excluded above portfolio.max_live_value.
    """
    restored_step = step = cash_limit.restore_excluded_amounts(step_input)
    decision_result = decide(step)
    plan: Plan | None = None
    if (priced_step := _without_unpriced(step, decision_result)) is not step:
        step = priced_step
        decision_result = decide(priced_step)
    while (
        (token := decision_result.exit_token)
        and plan is None
        and isinstance(decision := decision_result.decision, Rebalance)
    ):
        plan_or_blocked_exit = blocked_exits.backing_off_exit(
            step.snapshot, step.history.failures, token
        ) or plan_exit(step, decision, token)
        if isinstance(plan_or_blocked_exit, Plan):
            plan = plan_or_blocked_exit
        else:
            step = blocked_exits.exclude_blocked_exits(step, [plan_or_blocked_exit])
            decision_result = decide(step)
    if (
        plan is None
        and (
            step_without_increases := cash_limit.exclude_unexplained_increases(
                step_input if step is restored_step else step
            )
        )
        is not step
    ):
        step = step_without_increases
        decision_result = decide(step_without_increases)
    return Proposal(decision_result, plan, None if step is step_input else step)


def _without_unpriced(step: StepInput, decision_result: DecisionResult) -> StepInput:
    """Return the step without unpriced assets if they block another asset's exit; that exit goes
    before a reduction of futures.
    """
    if not isinstance(decision_result.decision, Halt | AdjustFutures):
        return step
    priced_step = quarantine.exclude_unpriced_assets(step)
    return (
        step
        if priced_step is step or isinstance(decide(priced_step).decision, Halt)
        else priced_step
    )


def plan_exit(step: StepInput, decision: Rebalance, token: str) -> Plan | BlockedExit:
    """Return the plan that sells the token completely, or why none of it can be sold now. After a
    failure it is sold without a route through another token, if the market allows, because that
    token may be at fault.
    """
    if gas_reason := exits.kept_for_gas_reason(step, token):
        return BlockedExit(token, gas_reason, "wait until gas is cheaper, or add native coin")
    if blocked_exits.avoids_other_tokens(step.history, step.progress.direct_route_tokens, token):
        only_tokens = (token, step.portfolio.numeraire.address)
        if isinstance(plan := _plan_exit_among(step, decision, token, only_tokens), Plan):
            return plan
    return _plan_exit_among(step, decision, token)


def _plan_exit_among(
    step: StepInput, decision: Rebalance, token: str, allowed_pool_tokens: Collection[str] = ()
) -> Plan | BlockedExit:
    try:
        plan = planner.plan(step, decision, allowed_pool_tokens=allowed_pool_tokens)
    except planner.NothingPlanned as no_plan:
        label = step.portfolio.token(token).label
        cost_reasons = (
            skipped_item.why
            for skipped_item in no_plan.off_target_items
            if skipped_item.subject == label and skipped_item.is_too_costly
        )
        return BlockedExit(token, next(cost_reasons, no_plan.message), blocked_exits.REMEDY)
    if token in _sold_tokens(step.portfolio, plan):
        return plan
    reason_by_subject = {skipped_item.subject: skipped_item.why for skipped_item in plan.skipped}
    why = reason_by_subject.get(
        step.portfolio.token(token).label, "the market absorbs none of it within the limits"
    )
    return BlockedExit(token, why, blocked_exits.REMEDY)


def decision_after_plan(step_input: StepInput) -> DecisionResult:
    """Return the decision after its plan: a hold, or what layers do, if the plan is not worth its
    cost, and blocked exits excluded.

    A refused plan leaves the decision unchanged.
    """
    step_input = cash_limit.exclude_unexplained_increases(step_input)
    initial_result = decide(step_input)
    needs_plan = (
        initial_result.zone is not None
        or bool(initial_result.exit_token)
        or _without_unpriced(step_input, initial_result) is not step_input
        or step_input.history.cash_flows.purchase is not None
        or bool(
            step_input.exclusions.reason
            and decide(cash_limit.restore_excluded_amounts(step_input)).exit_token
        )
    )
    if not needs_plan and not isinstance(initial_result.decision, Rebalance):
        return initial_result
    try:
        if needs_plan:
            decision_result = propose_rebalance(step_input).decision_result
        else:
            decision_result = _hold_unless_worth_it(step_input, initial_result)
    except Refused:
        return initial_result
    decision = decision_result.decision
    is_unforeseen = isinstance(decision, Hold) and decision.limiting_rule not in HOLD_CAUSES
    return initial_result if is_unforeseen and not needs_plan else decision_result


def _hold_unless_worth_it(step: StepInput, decision_result: DecisionResult) -> DecisionResult:
    """Return the decision, or a hold or what layers do if the plan, not split into parts, is not
    worth its cost.

    Raises Refused if the plan is refused for any other reason.
    """
    decision = decision_result.decision
    if not isinstance(decision, Rebalance) or decision.goal.risk is not None:
        return decision_result
    try:
        plan = sales.plan_sales(step, decision)
    except planner.NothingPlanned as no_plan:
        if not no_plan.limiting_rule:
            raise
        return _hold_not_worth_it(step, decision_result, decision, no_plan).decision_result
    if why := little_effect_reason(
        step, decision_result.references, decision_result.drifts, decision, plan
    ):
        return _hold_for(step, decision_result, decision, why, EFFECT_RULE, why).decision_result
    return decision_result


def _plan_rebalance(
    step_input: StepInput, decision_result: DecisionResult, decision: Rebalance
) -> Proposal:
    """Return the plan; if risk is weighed and no move saves more than it costs, what layers do or a
    hold.
    """
    zone = decision_result.zone if decision.goal.risk is not None else None
    try:
        if decision.exempt_turnover and zone is None:
            return Proposal(
                *plan_purchase(step_input, decision_result, decision, PurchaseKind.FIRST)
            )
        plan = partial_plans.plan_within_daily_loss(step_input, decision)
    except planner.NothingPlanned as no_plan:
        return _propose_without_plan(step_input, decision_result, decision, no_plan)
    if why := little_effect_reason(
        step_input, decision_result.references, decision_result.drifts, decision, plan
    ):
        return _hold_for(step_input, decision_result, decision, why, EFFECT_RULE, why)
    if isinstance(plan.decision, Rebalance):
        decision = plan.decision
        decision_result = replace(decision_result, decision=decision)
    if zone is not None and plan.zone_tradeoff is not None:
        tradeoff = taxed_tradeoff(step_input, plan, plan.zone_tradeoff)
        plan = replace(plan, zone_tradeoff=tradeoff)
        decision_result = replace(decision_result, zone=replace(zone, plan_tradeoff=tradeoff))
        if not tradeoff.covers_cost:
            return _propose_layers_or_hold(
                step_input,
                decision_result,
                Hold(
                    uneconomic_plan_reason(
                        decision.reason,
                        tradeoff,
                        step_input.portfolio,
                        zone,
                        _turnover_cut(step_input, plan),
                    ),
                    limiting_rule=RISK_RULE,
                ),
            )
    try:
        decision_result, amended_plan = layer_planning.amend_plan(step_input, decision_result, plan)
    except planner.NothingPlanned as no_plan:
        return _propose_without_plan(step_input, decision_result, decision, no_plan)
    return Proposal(
        decision_result,
        amended_plan,
        needs_more_ticks=(
            amended_plan is None and bool(plan_pools_out_of_ticks(step_input, plan.legs))
        ),
    )


def _turnover_cut(step: StepInput, plan: Plan) -> str:
    """Return what a turnover limit leaves of a plan, and until when; empty if none cuts it."""
    for item in plan.skipped:
        if item.subject == CUT_BY_TURNOVER:
            left_text = item.why.partition("; ")[0]
            return left_text + until_freed(step, left_text.partition(" ")[0])
    return ""


def _propose_without_plan(
    step_input: StepInput,
    decision_result: DecisionResult,
    decision: Rebalance,
    no_plan: planner.NothingPlanned,
) -> Proposal:
    """Return the proposal if nothing is worth its cost. Raises `no_plan` for any other obstacle."""
    zone = decision_result.zone if decision.goal.risk is not None else None
    if zone is not None:
        if _is_fired_below_floor(decision_result, no_plan):
            raise no_plan
        return _propose_layers_or_hold(
            step_input,
            decision_result,
            Hold(
                no_plan_reason(decision.reason, no_plan.message, zone, step_input.portfolio),
                limiting_rule=no_plan.limiting_rule or RISK_RULE,
            ),
        )
    if not no_plan.limiting_rule:
        raise no_plan
    active_purchase = step_input.history.cash_flows.purchase
    if active_purchase is not None and decision_result.purchase_result.due_part is not None:
        return _propose_rest_as_drift(step_input, active_purchase, decision_result, no_plan)
    return _hold_not_worth_it(step_input, decision_result, decision, no_plan)


def _is_fired_below_floor(decision_result: DecisionResult, no_plan: planner.NothingPlanned) -> bool:
    """Return whether an asset beyond its trigger has only pools that pay less than their floor. Such
    a market is at fault, unlike one in which trading costs more than it saves.
    """
    fired_labels = {drift.symbol for drift in decision_result.drifts if drift.is_outside_band}
    return any(
        item.subject in fired_labels and item.is_below_floor for item in no_plan.off_target_items
    )


def taxed_tradeoff(step: StepInput, plan: Plan, tradeoff: RiskCostTradeoff) -> RiskCostTradeoff:
    """Return the plan's tradeoff with the tax on its sales, unless the trigger's ranges count it."""
    trigger = step.policy.trigger
    if isinstance(trigger, NoTradeZone) and trigger.risk.after_tax:
        return tradeoff
    return replace(tradeoff, tax=sales.plan_tax(step, plan))


def _hold_not_worth_it(
    step: StepInput,
    decision_result: DecisionResult,
    decision: Rebalance,
    no_plan: planner.NothingPlanned,
) -> Proposal:
    """Return the hold, or what layers do, for a trade above limits.plan_cost or below
    limits.min_trade, or without an excess that swaps can spend; its review counts as done.
    """
    why = _not_worth_reason(step.snapshot, step.portfolio, step.limits, decision_result, no_plan)
    if no_plan.turnover_note:
        lead, separator, rest = why.partition(": ")
        why = f"{lead}, and {no_plan.turnover_note}{separator}{rest}"
    return _hold_for(
        step,
        decision_result,
        decision,
        why,
        no_plan.limiting_rule,
        _short_reason(step.snapshot, step.portfolio, step.limits, decision_result, no_plan),
    )


def _hold_for(
    step: StepInput,
    decision_result: DecisionResult,
    decision: Rebalance,
    why: str,
    limiting_rule: str,
    short_reason: str,
) -> Proposal:
    """Return the hold of a trade that is not made, or what layers do in place of a trigger's; its
    review counts as done.
    """
    review_text = ""
    if decision_result.next_s is not None:
        review_text = f"; next review {format_time(decision_result.next_s)}"
    hold = Hold(f"{decision.reason}; but {why}{review_text}", limiting_rule)
    held_result = decision_result.without_trades(hold, short_reason)
    if held_result.ends_execution or not decision.by_trigger:
        return Proposal(held_result, None)
    return _propose_layers_or_hold(step, held_result, hold)


def _short_reason(
    snapshot: Snapshot,
    portfolio: Portfolio,
    limits: Limits,
    decision_result: DecisionResult,
    no_plan: planner.NothingPlanned,
) -> str:
    """Return why an execution ends, in short, with the value that is left."""
    short_text = _not_worth_reason(snapshot, portfolio, limits, decision_result, no_plan).partition(
        ":"
    )[0]
    return f"{short_text}: {portfolio.numeraire.money_text(no_plan.drift_value)} to move"


def _not_worth_reason(
    snapshot: Snapshot,
    portfolio: Portfolio,
    limits: Limits,
    decision_result: DecisionResult,
    no_plan: planner.NothingPlanned,
) -> str:
    if no_plan.limiting_rule == LOCKED_EXCESS:
        return no_plan.message
    cost_items = [item for item in no_plan.off_target_items if item.is_too_costly]
    if cost_items:
        why = "; ".join(f"{skipped_item.subject} {skipped_item.why}" for skipped_item in cost_items)
        return f"not worth its cost (limits.plan_cost {limits.plan_cost_bps} bps): {why}"
    if no_plan.limiting_rule == MIN_TRADE_LIMIT:
        return minimum.too_small_to_trade_reason(portfolio, limits, no_plan.drift_value)
    return minimum.not_worth_reason(
        snapshot, portfolio, limits, decision_result.references, no_plan.drift_value
    )


def _propose_layers_or_hold(
    step: StepInput, decision_result: DecisionResult, hold: Hold
) -> Proposal:
    """Return what layers do in place of the hold of a swap that is not worth its cost."""
    decision = decide_without_swaps(step, decision_result.references.price_by_token, hold)
    decision_result = replace(decision_result, decision=decision)
    return (
        Proposal(decision_result, None)
        if isinstance(decision, Hold)
        else _propose_in_layer(step, decision_result)
    )


def manual_swap_proposer(token_in: str, token_out: str, amount_in_raw: int) -> Proposer:
    """Return the proposer of one manual swap, without triggers but with guards."""

    def propose(step_input: StepInput) -> Proposal:
        step = cash_limit.exclude_unexplained_increases(step_input)
        plan = planner.plan_swap(step, token_in, token_out, amount_in_raw)
        decision_result = decide(
            step
        )  # a due slice stays due, and a triggered exit is not included
        return Proposal(
            replace(decision_result.postponed_for(plan.decision), exit_token=""),
            plan,
            step,
        )

    return propose


def orders_proposer(orders: Sequence[LimitOrder]) -> Proposer:
    """Return a proposer that fills the first of `orders` whose price is reached, and otherwise
    rebalances.

    No order is filled on unknown, stale or contradictory data. Exits go first, and no limit order
    buys a token that an exit order keeps out of the market.
    """

    def propose(step_input: StepInput) -> Proposal:
        exit_proposal = _propose_exits_first(step_input)
        fill_proposal = None
        needs_more_ticks = False
        is_first = _goes_before_orders(exit_proposal.decision_result.decision)
        if not is_first and exit_proposal.plan is None:
            fill_proposal, _, needs_more_ticks = _propose_first_fill(
                step_input, exit_proposal.decision_result, orders
            )
        if fill_proposal is not None:
            return fill_proposal
        proposal = _propose_after_exits(step_input, exit_proposal)
        return replace(proposal, needs_more_ticks=proposal.needs_more_ticks or needs_more_ticks)

    return lambda step_input: _propose_among_approvable(step_input, propose)


def _goes_before_orders(decision: Decision) -> bool:
    """Return whether no limit order is filled before a decision: data that must not be acted on, or
    a due reduction of futures.
    """
    return isinstance(decision, Halt) or (
        isinstance(decision, AdjustFutures) and decision.is_reducing
    )


def _propose_first_fill(
    step_input: StepInput, decision_result: DecisionResult, orders: Sequence[LimitOrder]
) -> tuple[Proposal | None, str, bool]:
    """Return the first order whose price is reached; otherwise why the last one waits, and whether
    more ticks might reach its price.
    """
    why = ""
    needs_more_ticks = False
    step_input = cash_limit.exclude_unexplained_increases(step_input)
    for order in orders:
        if (
            why := expiry_reason(step_input.snapshot, step_input.execution, order)
            or _blocked_purchase_reason(step_input, order)
            or balance_changes.halt_reason(
                step_input.portfolio, step_input.limits, step_input.history.cash_flows
            )
            or transfers.open_withdrawal_reason(step_input)
        ):
            continue
        try:
            plan, why = plan_limit_swap(
                step_input, order.token_in, order.token_out, order.amount_in_raw, order.price
            )
        except KnownTicksExceeded as ticks_error:
            why = ticks_error.message
            needs_more_ticks = True
            continue
        if plan is not None:
            fill_result = decision_result.without_trades(plan.decision).unreviewed()
            fill_result = replace(fill_result, filled_order_id=order.id)
            return Proposal(fill_result, plan, step_input, needs_more_ticks), "", needs_more_ticks
    return None, why, needs_more_ticks


def _blocked_purchase_reason(step: StepInput, order: LimitOrder) -> str:
    """Return why the order's purchase is blocked: an exit order keeps its token out of the market
    and would sell it again, or would as soon as its blocks confirm it. Empty otherwise.
    """
    portfolio = step.portfolio
    if order.token_out == portfolio.numeraire.address:
        return ""
    exit_order = conditional_orders.fired_exit_order(step.history.orders.states, order.token_out)
    if exit_order is None:
        subjects = (order.token_out, PORTFOLIO_SUBJECT)
        notes = exits.unconfirmed_notes(step, exits_only=True, subjects=subjects)
        return f"waits: {'; '.join(notes)}" if notes else ""
    return (
        f"waits: {portfolio.token(order.token_out).label} is kept out of the market by"
        f" {conditional_orders.order_name(portfolio, exit_order)}"
    )


def single_order_proposer(order: LimitOrder) -> Proposer:
    """Return the proposer of a single order, which holds, with the reason, until its price is
    reached.
    """

    def propose(step_input: StepInput) -> Proposal:
        exit_proposal = _propose_exits_first(step_input)
        decision_result = exit_proposal.decision_result
        if isinstance(decision_result.decision, Halt):
            return Proposal(decision_result.unreviewed(), None)
        why = f"waits: {decision_result.decision.reason}"
        needs_more_ticks = False
        is_first = _goes_before_orders(decision_result.decision)
        if not is_first and exit_proposal.plan is None:
            fill_proposal, why, needs_more_ticks = _propose_first_fill(
                step_input, decision_result, (order,)
            )
            if fill_proposal is not None:
                return fill_proposal
        return Proposal(
            decision_result.postponed_for(Hold(why)),
            None,
            needs_more_ticks=needs_more_ticks,
        )

    return propose


def _sold_tokens(portfolio: Portfolio, plan: Plan) -> tuple[str, ...]:
    """Return the tokens that legs take from the wallet, except the numeraire, in the portfolio's
    order.
    """
    spent_tokens = {
        portfolio.pricing_token(leg.token_in) for leg in plan.legs if leg.source is LegPlace.WALLET
    }
    return tuple(
        asset.token.address
        for asset in portfolio.assets
        if asset.token.address in spent_tokens - {portfolio.numeraire.address}
    )
