"""Proposals: the decision on a snapshot and its plan. Pure, so any step can be proposed again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from agent.amm.swap_errors import KnownTicksExceeded
from agent.errors import Refused
from agent.layers import planning as layers
from agent.layers import sales
from agent.layers.policy import acts_beside_spot, without_swaps
from agent.model import (
    PORTFOLIO,
    AdjustFutures,
    BlockedExit,
    Halt,
    Hold,
    LayerDecision,
    LegFunding,
    LimitOrder,
    Limits,
    OrderStates,
    Plan,
    Portfolio,
    PurchaseKind,
    PurchaseProgress,
    Rebalance,
    Snapshot,
    StepInput,
    TopUp,
)
from agent.planning import gas_refill, partial_plans, planner
from agent.planning.limit_swaps import limit_swap
from agent.planning.plan_builder import LOCKED, MIN_TRADE, PLAN_COST
from agent.planning.purchases import plan_purchase
from agent.planning.rounding import plan_pools_out_of_ticks
from agent.planning.why_not import ALLOWED
from agent.policy import minimum, quarantine
from agent.policy.cash_flows import balance_changes, cash_limit, purchases, transfers
from agent.policy.decide import decide
from agent.policy.decision import DecisionResult
from agent.policy.orders import blocked_exits
from agent.policy.orders import conditional as conditional_orders
from agent.policy.orders.conditional import expiry_reason
from agent.policy.triggers.no_trade_zone import no_plan_reason, uneconomic_plan_reason
from agent.units import format_time


@dataclass(frozen=True, slots=True)
class Proposal:
    """A decision on one snapshot with its drifts, and a plan if it trades.

    `step` is the decision's step if it differs from the given one: with exits blocked, or with
    amounts newly excluded or restored. `ticks_end` is true if an order or slice waits for a price
    that further ticks might reach.
    """

    decided: DecisionResult
    plan: Plan | None
    step: StepInput | None = None
    ticks_end: bool = False


class RefusedWithBlockedExits(Refused):
    """Refusal of a plan with blocked exits; `step` is its step."""

    def __init__(self, step: StepInput, why: Refused) -> None:
        super().__init__(
            "; ".join(
                part
                for part in (
                    why.message,
                    blocked_exits.format_blocked_exits(step),
                    step.excluded.reason,
                )
                if part
            ),
            why.verdicts,
            why.remedy,
            code=why.code,
        )
        self.step = step


HOLDING_CAUSES = (PLAN_COST, MIN_TRADE, LOCKED)
"""Causes for which a fired trigger holds instead of refusing: the trade is not worth its cost, or
swaps cannot spend the excess.
"""
Proposer = Callable[[StepInput], Proposal]


def rebalance(step_input: StepInput) -> Proposal:
    """Return the strategy's proposal: trade if a trigger fires, and in a zone only if the plan
    saves more risk than it costs. Exits come first, one per plan. An exit that the market cannot
    absorb within the limits is excluded, and the rest continues. An unexplained increase that lifts
    the portfolio above portfolio.max_live_value is excluded too.
    """
    return _rebalanced(step_input, _exits_first(step_input))


def _rebalanced(step_input: StepInput, first: Proposal) -> Proposal:
    """Return the proposal after exits were tried."""
    if first.plan is not None:
        return first
    step = first.step or step_input
    try:
        proposal = _beside_purchase(step, first.decided)
        return replace(proposal, step=proposal.step or first.step)
    except Refused as why:
        if first.step is not None or step.excluded.reason:
            raise RefusedWithBlockedExits(step, why) from None
        raise


def _beside_purchase(step: StepInput, decided: DecisionResult) -> Proposal:
    """Return the proposal. If the open purchase waits or is refused, and a trigger would fire even
    after it, the trigger's trade ends the purchase, whose rest is drift.

    In a divided wallet each part of the purchase already follows the combined goal.
    """
    active = step.history.cash_flows.purchase
    if active is None or step.divides_wallet:
        return _carried_out(step, decided)
    try:
        waiting = _carried_out(step, decided)
    except Refused:
        if (proposal := _trigger_beside(step, active)) is None:
            raise
        return proposal
    if (
        waiting.plan
        or waiting.decided.purchase.ended
        or not isinstance(waiting.decided.decision, Hold)
    ):
        return waiting
    return _trigger_beside(step, active) or waiting


def _trigger_beside(step: StepInput, active: PurchaseProgress) -> Proposal | None:
    """Return the trade of a trigger that fires although the rest of the purchase will be bought;
    None without one.
    """
    rest = purchases.with_purchase(step, None)
    try:
        bought = replace(purchases.after_purchase(step), history=rest.history)
        if not isinstance(decide(bought).decision, Rebalance):
            return None
        proposal = _carried_out(rest, decide(rest))
    except Refused:
        return None
    if proposal.plan is None:
        return None
    return _purchase_ended(proposal, active, "a trigger acts, and its rest is drift now")


def _purchase_ended(found: Proposal, active: PurchaseProgress, why: str) -> Proposal:
    """Return the proposal made without the purchase, with the end of the purchase."""
    step = found.step
    if step is not None:
        step = purchases.with_purchase(step, active)
    ended = replace(found.decided.purchase, ended=why)
    return replace(found, decided=replace(found.decided, purchase=ended), step=step)


def _rest_not_worth_it(
    step: StepInput,
    active: PurchaseProgress,
    decided: DecisionResult,
    nothing: planner.NothingPlanned,
) -> Proposal:
    """Return the decision on the rest of a purchase as ordinary drift: it is not worth its cost, so
    the purchase ends.
    """
    why = f"the rest is {_worthless(step.snapshot, step.portfolio, step.limits, decided, nothing)}"
    over = Hold(purchases.end_text(active.terms, why))
    rest = purchases.with_purchase(step, None)
    try:
        proposal = _carried_out(rest, decide(rest))
    except Refused as refusal:
        hold = replace(over, reason=f"{over.reason}; {refusal.message}")
        proposal = Proposal(decided.held(hold), None)
    else:
        if isinstance(decision := proposal.decided.decision, Hold):
            hold = replace(decision, reason=f"{over.reason}; {decision.reason}")
            proposal = replace(proposal, decided=replace(proposal.decided, decision=hold))
    return _purchase_ended(proposal, active, why)


def _carried_out(step: StepInput, decided: DecisionResult) -> Proposal:
    match decided.decision:
        case Rebalance() as decision:
            return _or_beside_spot(step, decision, _planned(step, decided, decision))
        case LayerDecision():
            return _in_layer(step, decided)
        case TopUp() as decision:
            return Proposal(decided, gas_refill.plan_top_up(step, decision))
        case Hold() | Halt():
            return Proposal(decided, None)


def _or_beside_spot(step: StepInput, decision: Rebalance, spot: Proposal) -> Proposal:
    """Return the proposal of the layers that act beside the spot portfolio if its trade is not
    worth its cost, so that a remaining spot drift does not delay them.
    """
    hold = spot.decided.decision
    if not acts_beside_spot(step) or step.progress.spot_held or not decision.by_trigger:
        return spot
    if not isinstance(hold, Hold) or hold.kept_by not in HOLDING_CAUSES:
        return spot
    why = hold.reason.removeprefix(f"{decision.reason}; ")
    step_input = replace(step, progress=replace(step.progress, spot_held=f"spot: {why}"))
    instead = _carried_out(step_input, decide(step_input))
    return spot if instead.plan is None else replace(instead, step=step_input)


def _in_layer(step: StepInput, decided: DecisionResult) -> Proposal:
    """Return the plan of a layer's decision; if the layer can do nothing, the proposal without
    it, with the reason.
    """
    result = layers.PLANS[type(decided.decision)](step, decided)
    if isinstance(result, Plan):
        return Proposal(replace(decided, decision=result.decision), result)
    return _carried_out(result, decide(result))


def _exits_first(step_input: StepInput) -> Proposal:
    """Return the first exit that can be sold now, with its plan; else the decision without blocked
    or backing-off exits.

    Only an exit may spend amounts excluded above portfolio.max_live_value.
    """
    whole = step = cash_limit.restore_excluded(step_input)
    decided = decide(step)
    plan: Plan | None = None
    if (priced := _without_unpriced(step, decided)) is not step:
        step, decided = priced, decide(priced)
    while (
        (token := decided.exit_token)
        and plan is None
        and isinstance(decision := decided.decision, Rebalance)
    ):
        exit_plan = blocked_exits.backing_off(
            step.snapshot, step.history.failures, token
        ) or planned_exit(step, decision, token)
        if isinstance(exit_plan, Plan):
            plan = exit_plan
        else:
            step = blocked_exits.exclude_blocked_exits(step, [exit_plan])
            decided = decide(step)
    if (
        plan is None
        and (left := cash_limit.exclude_unexplained_rises(step_input if step is whole else step))
        is not step
    ):
        step, decided = left, decide(left)
    return Proposal(decided, plan, None if step is step_input else step)


def _without_unpriced(step: StepInput, decided: DecisionResult) -> StepInput:
    """Return the step without unpriced assets if they block another asset's exit; that exit goes
    before a reduction of futures.
    """
    if not isinstance(decided.decision, Halt | AdjustFutures):
        return step
    priced = quarantine.exclude_unpriced(step)
    return step if priced is step or isinstance(decide(priced).decision, Halt) else priced


def planned_exit(step: StepInput, decision: Rebalance, token: str) -> Plan | BlockedExit:
    """Return the plan that sells the token completely, or why none of it can be sold now. After a
    failure it is sold without a route through another token, if the market allows, because that
    token may be at fault.
    """
    if blocked_exits.avoids_other_tokens(step.history, step.progress.direct, token):
        between = (token, step.portfolio.numeraire.address)
        if isinstance(plan := _planned_exit(step, decision, token, between), Plan):
            return plan
    return _planned_exit(step, decision, token)


def _planned_exit(
    step: StepInput, decision: Rebalance, token: str, between: Collection[str] = ()
) -> Plan | BlockedExit:
    try:
        plan = planner.plan(step, decision, between=between)
    except planner.NothingPlanned as nothing:
        label = step.portfolio.token(token).label
        costly = (item.why for item in nothing.off if item.what == label and ALLOWED in item.why)
        return BlockedExit(token, next(costly, nothing.message), blocked_exits.REMEDY)
    if token in _sold(step.portfolio, plan):
        return plan
    whys = {item.what: item.why for item in plan.skipped}
    why = whys.get(
        step.portfolio.token(token).label, "the market absorbs none of it within the limits"
    )
    return BlockedExit(token, why, blocked_exits.REMEDY)


def decision_at(step_input: StepInput) -> DecisionResult:
    """Return the decision after its plan: a hold if the plan is not worth its cost, and blocked
    exits excluded.

    A refused plan leaves the decision unchanged.
    """
    step_input = cash_limit.exclude_unexplained_rises(step_input)
    decided = decide(step_input)
    tried = (
        decided.zone is not None
        or bool(decided.exit_token)
        or _without_unpriced(step_input, decided) is not step_input
        or step_input.history.cash_flows.purchase is not None
        or bool(
            step_input.excluded.reason
            and decide(cash_limit.restore_excluded(step_input)).exit_token
        )
    )
    if not tried and not isinstance(decided.decision, Rebalance):
        return decided
    try:
        if tried:
            decision_result = rebalance(step_input).decided
        else:
            decision_result = _worth_it(step_input, decided)
    except Refused:
        return decided
    is_held = (
        isinstance(decision_result.decision, Hold)
        and decision_result.decision.kept_by in HOLDING_CAUSES
    )
    return decision_result if is_held or tried else decided


def _worth_it(step: StepInput, decided: DecisionResult) -> DecisionResult:
    """Return the decision, or a hold if the plan, not split into parts, is not worth its cost.

    Raises Refused if the plan is refused for any other reason.
    """
    if isinstance(decision := decided.decision, Rebalance) and decided.zone is None:
        try:
            sales.plan_sales(step, decision)
        except planner.NothingPlanned as nothing:
            if not nothing.kept_by:
                raise
            return _not_worth_it(step, decided, decision, nothing).decided
    return decided


def _planned(step_input: StepInput, decided: DecisionResult, decision: Rebalance) -> Proposal:
    """Return the plan; in a zone without a move that saves more than it costs, the liquidity moves
    or a hold.
    """
    zone = decided.zone
    try:
        if decision.apart and zone is None:
            return Proposal(*plan_purchase(step_input, decided, decision, PurchaseKind.FIRST))
        plan = partial_plans.plan_within_daily_loss(step_input, decision)
    except planner.NothingPlanned as nothing:
        if zone is None:
            if not nothing.kept_by:
                raise
            active = step_input.history.cash_flows.purchase
            if active is not None and decided.purchase.due is not None:
                return _rest_not_worth_it(step_input, active, decided, nothing)
            return _not_worth_it(step_input, decided, decision, nothing)
        return _without_swaps(
            step_input,
            decided,
            no_plan_reason(decision.reason, nothing.message, zone, step_input.portfolio),
        )
    if isinstance(plan.decision, Rebalance):
        decision = plan.decision
        decided = replace(decided, decision=decision)
    if zone is None or plan.saving is None:
        for change in layers.INSTEAD_OF_SALE:
            decided, plan = change(step_input, decided, decision, plan)
        if isinstance(plan.decision, Rebalance):
            return _in_time(step_input, decided, plan.decision, plan)
        return Proposal(decided, plan)
    weighed = replace(decided, zone=replace(zone, saving=plan.saving))
    if plan.saving.worth_it:
        return _in_time(step_input, weighed, decision, plan)
    return _without_swaps(
        step_input,
        weighed,
        uneconomic_plan_reason(decision.reason, plan.saving, step_input.portfolio, zone.horizon_s),
    )


def _in_time(step: StepInput, decided: DecisionResult, decision: Rebalance, plan: Plan) -> Proposal:
    decided, scheduled = layers.schedule(step, decided, decision, plan)
    return Proposal(
        decided,
        scheduled,
        ticks_end=scheduled is None and bool(plan_pools_out_of_ticks(step, plan.legs)),
    )


def _not_worth_it(
    step: StepInput, decided: DecisionResult, decision: Rebalance, nothing: planner.NothingPlanned
) -> Proposal:
    """Return the hold for a trade above limits.plan_cost or below limits.min_trade, or without an
    excess that swaps can spend; its review counts as done.
    """
    if decided.next_s is None:
        again = ""
    else:
        again = f"; next review {format_time(decided.next_s)}"
    why = _not_worth_why(step.snapshot, step.portfolio, step.limits, decided, nothing)
    hold = Hold(
        f"{decision.reason}; {why}{again}",
        decided.next_s,
        nothing.kept_by,
    )
    return Proposal(
        decided.held(
            hold, _worthless(step.snapshot, step.portfolio, step.limits, decided, nothing)
        ),
        None,
    )


def _worthless(
    snapshot: Snapshot,
    portfolio: Portfolio,
    limits: Limits,
    decided: DecisionResult,
    nothing: planner.NothingPlanned,
) -> str:
    """Return why an execution ends, in short, with the value that is left."""
    short = _not_worth_why(snapshot, portfolio, limits, decided, nothing).partition(":")[0]
    return f"{short}: {minimum.format_money(portfolio, nothing.drift)} to move"


def _not_worth_why(
    snapshot: Snapshot,
    portfolio: Portfolio,
    limits: Limits,
    decided: DecisionResult,
    nothing: planner.NothingPlanned,
) -> str:
    if nothing.kept_by == LOCKED:
        return nothing.message
    compared = [item for item in nothing.off if ALLOWED in item.why]
    if compared:
        why = "; ".join(f"{item.what} {item.why}" for item in compared)
        return f"not worth its cost (limits.plan_cost {limits.plan_cost_bps} bps): {why}"
    if nothing.kept_by == MIN_TRADE:
        return minimum.too_small_to_trade(portfolio, limits, nothing.drift)
    return minimum.not_worth_reason(snapshot, portfolio, limits, decided.references, nothing.drift)


def _without_swaps(step: StepInput, decided: DecisionResult, why: str) -> Proposal:
    """Return what layers do, or the hold of a zone in which no swap saves more than it costs."""
    decision = without_swaps(step, decided.references.by_token, Hold(why))
    decided = replace(decided, decision=decision)
    return Proposal(decided, None) if isinstance(decision, Hold) else _in_layer(step, decided)


def manual_swap(token_in: str, token_out: str, amount_in_raw: int) -> Proposer:
    """Return the proposer of one manual swap, without triggers but with guards."""

    def propose(step_input: StepInput) -> Proposal:
        step = cash_limit.exclude_unexplained_rises(step_input)
        plan = planner.plan_swap(step, token_in, token_out, amount_in_raw)
        decided = decide(step)  # a due slice stays due, and a triggered exit is not included
        return Proposal(
            replace(decided.alone(plan.decision), exit_token=""),
            plan,
            step,
        )

    return propose


def waiting_orders(orders: Sequence[LimitOrder]) -> Proposer:
    """Return a proposer that fills the first of `orders` whose price is reached, and otherwise
    rebalances.

    No order is filled on unknown, stale or contradictory data. Exits go first, and no limit order
    buys a token that an exit order keeps out of the market.
    """

    def propose(step_input: StepInput) -> Proposal:
        first = _exits_first(step_input)
        filled, ended = None, False
        decision = first.decided.decision
        reduces = isinstance(decision, AdjustFutures) and decision.is_reducing
        waits = isinstance(decision, Halt) or reduces
        if not waits and first.plan is None:
            filled, _, ended = _filled(step_input, first.decided, orders)
        if filled is not None:
            return filled
        proposal = _rebalanced(step_input, first)
        return replace(proposal, ticks_end=proposal.ticks_end or ended)

    return propose


def _filled(
    step_input: StepInput, decided: DecisionResult, orders: Sequence[LimitOrder]
) -> tuple[Proposal | None, str, bool]:
    """Return the first order whose price is reached; otherwise why the last one waits, and whether
    more ticks might reach its price.
    """
    why, ended, step_input = "", False, cash_limit.exclude_unexplained_rises(step_input)
    for order in orders:
        if (
            why := expiry_reason(step_input.snapshot, step_input.execution, order)
            or _out(step_input.portfolio, step_input.history.orders, order)
            or balance_changes.halt_reason(
                step_input.portfolio, step_input.limits, step_input.history.cash_flows
            )
            or transfers.open_withdrawal_reason(step_input)
        ):
            continue
        try:
            plan, why = limit_swap(
                step_input, order.token_in, order.token_out, order.amount_in_raw, order.price
            )
        except KnownTicksExceeded as end:
            why, ended = end.message, True
            continue
        if plan is not None:
            filled = replace(decided.held(plan.decision), reviewed=False, order=order.id)
            return Proposal(filled, plan, step_input, ended), "", ended
    return None, why, ended


def _out(portfolio: Portfolio, orders: OrderStates, order: LimitOrder) -> str:
    """Return why the order's purchase is blocked: an exit order keeps its token out of the market
    and would sell it again. Empty otherwise.
    """
    known = orders.states
    if order.token_out == portfolio.numeraire.address:
        return ""
    by = conditional_orders.fired_exit_order(
        known, PORTFOLIO
    ) or conditional_orders.fired_exit_order(known, order.token_out)
    if by is None:
        return ""
    return (
        f"waits: {portfolio.token(order.token_out).label} is kept out of the market by"
        f" {conditional_orders.order_name(portfolio, by)}"
    )


def single_order(order: LimitOrder) -> Proposer:
    """Return the proposer of a single order, which holds, with the reason, until its price is
    reached.
    """

    def propose(step_input: StepInput) -> Proposal:
        first = _exits_first(step_input)
        decided = first.decided
        if isinstance(decided.decision, Halt):
            return Proposal(replace(decided, reviewed=False), None)
        why, ended = f"waits: {decided.decision.reason}", False
        if first.plan is None:
            filled, why, ended = _filled(step_input, decided, (order,))
            if filled is not None:
                return filled
        return Proposal(
            decided.alone(Hold(why)),
            None,
            ticks_end=ended,
        )

    return propose


def _sold(portfolio: Portfolio, plan: Plan) -> tuple[str, ...]:
    """Return the tokens that legs take from the wallet, except the numeraire, in the portfolio's
    order.
    """
    taken = {
        portfolio.held_as(leg.token_in) for leg in plan.legs if leg.source is LegFunding.WALLET
    }
    return tuple(
        asset.token.address
        for asset in portfolio.assets
        if asset.token.address in taken - {portfolio.numeraire.address}
    )
