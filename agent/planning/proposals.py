"""Proposals: the decision on a snapshot and its plan. Pure, so that any step can be proposed
again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.amm.pools import KnownTicksExceeded
from agent.errors import Refused
from agent.model import (
    PORTFOLIO,
    AdjustLiquidity,
    AgentCycle,
    AssetDrift,
    BlockedExit,
    Decision,
    Destination,
    ExecutionSlice,
    Goal,
    GradualExecution,
    Halt,
    HaltCode,
    Hold,
    Invest,
    LegFunding,
    LimitOrder,
    ManualAction,
    Plan,
    PlanRequest,
    PurchaseKind,
    RaiseForWithdrawal,
    Rebalance,
    SellEntireBalance,
    SellEverything,
    SliceDraw,
    StepInput,
    StepRequest,
    Swap,
    SwapAtPrice,
    TopUp,
    Unwrap,
    Verdict,
)
from agent.planning import gradual_execution, planner, swaps
from agent.planning.gradual_execution import limit_swap, schedule_plan
from agent.planning.liquidity import plan_liquidity
from agent.planning.plan_builder import MIN_TRADE, PLAN_COST
from agent.planning.rounding import plan_pools_out_of_ticks
from agent.policy import conditional_orders, exits, minimum, native_coin
from agent.policy.cash_flows import balance_changes, purchase, withdrawals
from agent.policy.cash_flows.balance_changes import DAY_S
from agent.policy.conditional_orders import expiry_reason
from agent.policy.decide import DecisionResult, decide, liquidity_or_hold
from agent.policy.drift import compute_drifts, corrections, investable_total, rebalance_goal
from agent.policy.exits import exit_goal
from agent.policy.gradual_execution import MILLION, partial_goal, target_weights
from agent.policy.triggers.no_trade_zone import no_plan_reason, uneconomic_plan_reason
from agent.reference import reference_prices
from agent.units import NATIVE, Value, ceil_int, decimal_text, format_time

# --- A purchase as a plan: whole if the pools take it, else the same fraction of every asset, so
# that no part is one-sided.


TRIES = 8
"""Plans in search of the part that all assets reach."""
WHOLE = Fraction(97, 100)
"""Part of an asset's shortfall that counts as filled, since fees and impact take the rest."""
USEFUL = Fraction(1, 4)
"""Fraction of limits.daily_loss below which a part waits for the next day, unless it is the
last."""
EVEN = SliceDraw(MILLION // 2, MILLION // 2)
PurchasePlan = tuple[DecisionResult, Plan | None]


def plan_purchase(
    step: StepInput, decided: DecisionResult, decision: Rebalance, kind: PurchaseKind
) -> PurchasePlan:
    """Return the purchase in one plan, or its next part; `begins` for the first of several.

    Returns no plan, and a hold, while the remainder of limits.daily_loss is too little for a
    further part. Raises Refused like the planner.
    """
    intended_value = _moves(decided, decision.goal)
    whole = planner.plan_after_tax(step, decision)
    plan, part = plan_proportional_part(step, decided, decision, whole)
    under = purchase.active_purchase(step)
    follows = under is not None and not step.history.invested
    if follows and not gradual_execution.fits_daily_loss(step, plan):
        held = Hold(
            f"{decision.reason}; {gradual_execution.daily_loss_wait_reason(step)}",
            kept_by=gradual_execution.DAILY_LOSS,
        )
        return replace(decided, decision=held, round=None), None
    if follows and under is not None:
        named = replace(
            decision, reason=f"{decision.reason}{_daily_loss_reason(step, decision, whole)}"
        )
        return replace(
            decided, decision=named, round=ExecutionSlice(under.done + 1, part, intended_value)
        ), replace(plan, decision=named)
    if part == 1 and kind is PurchaseKind.FIRST:
        return decided, plan
    if under is not None:
        kind = under.campaign.purchase or kind
    execution = _purchase_execution(
        step, decided, decision.goal, kind, intended_value, ceil_int(1 / part)
    )
    message = (
        decision.reason
        if part == 1
        else (
            f"{decision.reason};"
            f" {purchase.format_progress(execution, 0)}{_daily_loss_reason(step, decision, whole)}"
        )
    )
    named = replace(decision, reason=message)
    round_ = ExecutionSlice(1, part, intended_value)
    return replace(decided, decision=named, begins=execution, round=round_), replace(
        plan, decision=named
    )


def plan_proportional_part(
    step: StepInput, decided: DecisionResult, decision: Rebalance, whole: Plan
) -> tuple[Plan, Fraction]:
    """Return the plan, and the fraction of the goal it reaches: 1 if `whole`, or if an asset cannot
    move at all. If no fraction fits the remainder of limits.daily_loss, the plan may exceed it.
    """
    lacks = {
        token: value
        for token, value in corrections(decided.drifts, decision.goal).items()
        if abs(value) >= _least(step)
    }
    reached, fits = (
        min(_reached(step, decided, whole, lacks).values(), default=Fraction(1)),
        _part_that_fits(step, whole),
    )
    if fits == 1 and reached >= WHOLE:
        return whole, Fraction(1)
    if fits < 1 and not _useful(step):
        return whole, Fraction(1)
    part, found = Fraction(1), whole
    for _ in range(TRIES if lacks else 0):
        part *= min(
            fits, max(reached * Fraction(99, 100), Fraction(1, 2)) if reached < WHOLE else 1
        )
        part = part.limit_denominator(1_000)
        if part * min(abs(value) for value in lacks.values()) < _least(step):
            break
        wanted = {token: value * part for token, value in lacks.items()}
        try:
            found = planner.plan_after_tax(
                step, replace(decision, goal=partial_goal(decided.drifts, decision.goal, part))
            )
        except planner.NothingPlanned:
            break
        reached, fits = (
            min(_reached(step, decided, found, wanted).values(), default=Fraction(1)),
            _part_that_fits(step, found),
        )
        if fits == 1 and reached >= WHOLE:
            return replace(found, decision=decision), part
    if gradual_execution.fits_daily_loss(step, whole):
        return whole, Fraction(1)  # the plan names assets that cannot move; the others continue
    found = replace(
        gradual_execution.plan_within_daily_loss(step, decision, whole), decision=decision
    )
    return found, (
        min(Fraction(1), found.turnover / whole.turnover) if whole.turnover else Fraction(1)
    )


def _part_that_fits(step: StepInput, plan: Plan) -> Fraction:
    """Return the fraction of such a plan that fits limits.daily_loss: its gas whole, the rest in
    proportion.
    """
    if gradual_execution.fits_daily_loss(step, plan):
        return Fraction(1)
    if plan.exits:
        room, gas, loses = (
            gradual_execution.daily_loss_left_for_exits(step) or Fraction(0),
            plan.cost.gas + plan.cost.approvals,
            plan.cost.total,
        )
    else:
        room, gas, loses = (
            gradual_execution.daily_loss_left(step) or Fraction(0),
            gradual_execution.worst_case_gas(step, plan),
            gradual_execution.worst_case_loss(step, plan),
        )
    return (room - gas) / (loses - gas) * gradual_execution.MARGIN if room > gas else Fraction(0)


def _useful(step: StepInput) -> bool:
    """True if enough of limits.daily_loss remains for a part."""
    whole = gradual_execution.daily_loss_left(
        replace(step, history=replace(step.history, loss_24h=Fraction(0)))
    )
    return (
        whole is None or (gradual_execution.daily_loss_left(step) or Fraction(0)) >= whole * USEFUL
    )


def _daily_loss_reason(step: StepInput, decision: Rebalance, whole: Plan) -> str:
    """Return the note that limits.daily_loss makes this a part; empty if it does not. This step's
    approvals are not a reason.
    """
    if gradual_execution.daily_loss_left(step) is None:
        return ""
    whole = gradual_execution.plan_before_approvals(step, decision, whole)
    return (
        ""
        if gradual_execution.fits_daily_loss(step, whole)
        else (
            f"; {gradual_execution.partial_plan_reason(step, gradual_execution.worst_case_loss(step, whole))}"
        )
    )


def _reached(
    step: StepInput, decided: DecisionResult, plan: Plan, lacks: dict[str, Value]
) -> dict[str, Fraction]:
    """Return by token the fraction of its correction that the plan moves, without the numeraire,
    which pays the costs.
    """
    prices = {one.token: one.price for one in decided.drifts}
    moved = dict.fromkeys(prices, Fraction(0))
    for leg in plan.legs:
        for token, raw, outside in (
            (leg.token_in, -leg.amount_in_raw, leg.source is LegFunding.WALLET),
            (leg.token_out, leg.amount_out_raw, leg.sink is LegFunding.WALLET),
        ):
            known = step.portfolio.wrapped_native if token == NATIVE else token
            if outside and known in moved:
                moved[known] += raw * prices[known]
    home = step.portfolio.numeraire.address
    return {
        token: max(Fraction(0), moved[token] / value)
        for token, value in lacks.items()
        if token != home
    }


def _purchase_execution(
    step: StepInput,
    decided: DecisionResult,
    goal: Goal,
    kind: PurchaseKind,
    intended_value: Value,
    parts: int,
) -> GradualExecution:
    now_s, lacks = step.snapshot.head.timestamp_s, corrections(decided.drifts, goal)
    over_s = now_s + max(purchase.LASTS_S, (parts + 1) * DAY_S)
    return GradualExecution(
        pace=purchase.pace(step, parts),
        targets_bps=target_weights(step),
        destination=step.policy.destination,
        goal=goal,
        arrival=tuple(
            sorted((token, found.price) for token, found in decided.references.prices.items())
        ),
        sides=tuple((token, 1 if lack > 0 else -1) for token, lack in lacks.items() if lack),
        wish=purchase.turnover_allowance(step) if step.history.invested else intended_value,
        rounds=parts,
        budget=None,
        began_s=now_s,
        ends_s=over_s,
        expires_s=over_s,
        first=EVEN,
        only=step.policy.only,
        purchase=kind,
        came=(
            tuple(sorted(purchase.uninvested_deposits(step).items()))
            if kind is PurchaseKind.TOP_UP
            else ()
        ),
    )


def _moves(decided: DecisionResult, goal: Goal) -> Value:
    lacks = corrections(decided.drifts, goal).values()
    return max(
        sum((lack for lack in lacks if lack > 0), Fraction(0)),
        -sum((lack for lack in lacks if lack < 0), Fraction(0)),
    )


def _least(step: StepInput) -> Value:
    return max(step.limits.min_trade or Fraction(0), Fraction(1))


@dataclass(frozen=True, slots=True)
class Proposal:
    """A strategy's decision on one snapshot with its drifts, and a plan if it trades.

    `step` is the step it was decided from if that differs from the given one: with blocked exits,
    or with or without excluded amounts. `ticks_end` is true if something waits for a price that
    more ticks might give.
    """

    decided: DecisionResult
    plan: Plan | None
    step: StepInput | None = None
    ticks_end: bool = False


class RefusedWithBlockedExits(Refused):
    """Refusal of the plan made with blocked exits; `step` is its step."""

    def __init__(self, step: StepInput, why: Refused) -> None:
        super().__init__(
            "; ".join(
                part for part in (why.message, exits.format_blocked_exits(step), step.aside) if part
            ),
            why.verdicts,
            why.remedy,
            code=why.code,
        )
        self.step = step


NOT_WORTH_IT_LIMITS = (PLAN_COST, MIN_TRADE)
"""Limits whose hold means that a trade is not worth it."""
Proposer = Callable[[StepInput], Proposal]


def rebalance(step_input: StepInput) -> Proposal:
    """Return the strategy's proposal: trade if a trigger fires, and in a zone only if the plan
    saves more risk than it costs.

    Exits come first, one per plan; one that the market does not take within the limits is excluded,
    and the rest continues. So is an unexplained increase that lifts the portfolio above
    portfolio.max_live_value.
    """
    return _rebalanced(step_input, _exits_first(step_input))


def _rebalanced(step_input: StepInput, first: Proposal) -> Proposal:
    """Return the proposal after exits were tried."""
    if first.plan is not None:
        return first
    step = first.step or step_input
    try:
        return replace(_carried_out(step, first.decided), step=first.step)
    except Refused as why:
        if first.step is not None or step.aside:
            raise RefusedWithBlockedExits(step, why) from None
        raise


def _carried_out(step: StepInput, decided: DecisionResult) -> Proposal:
    match decided.decision:
        case Rebalance() as decision:
            return _planned(step, decided, decision)
        case AdjustLiquidity() as decision:
            return Proposal(decided, plan_liquidity(step, decision))
        case TopUp() as decision:
            return Proposal(decided, swaps.plan_top_up(step, decision))
        case Hold() | Halt():
            return Proposal(decided, None)


def _exits_first(step_input: StepInput) -> Proposal:
    """Return the first exit that can be done now, with its plan; else the decision without blocked
    or backing-off exits.

    Only an exit may spend amounts excluded above portfolio.max_live_value.
    """
    whole = step = balance_changes.restore_excluded(step_input)
    decided = decide(step)
    plan: Plan | None = None
    while (
        (token := decided.exit_token)
        and plan is None
        and isinstance(decision := decided.decision, Rebalance)
    ):
        found = exits.backing_off(step, token) or _planned_exit(step, decision, token)
        if isinstance(found, Plan):
            plan = found
        else:
            step = exits.exclude_blocked_exits(step, [found])
            decided = decide(step)
    if (
        plan is None
        and (
            left := balance_changes.exclude_unexplained_rises(step_input if step is whole else step)
        )
        is not step
    ):
        step, decided = left, decide(left)
    return Proposal(decided, plan, None if step is step_input else step)


def _planned_exit(step: StepInput, decision: Rebalance, token: str) -> Plan | BlockedExit:
    """Return the plan that sells this token out, or why nothing of it can be sold now."""
    try:
        plan = planner.plan(step, decision)
    except planner.NothingPlanned as nothing:
        return BlockedExit(token, nothing.message, exits.REMEDY)
    if token in _sold(step, plan):
        return plan
    whys = {item.what: item.why for item in plan.skipped}
    why = whys.get(
        step.portfolio.token(token).label, "the market takes none of it within the limits"
    )
    return BlockedExit(token, why, exits.REMEDY)


def decision_at(step_input: StepInput) -> DecisionResult:
    """Return the decision, with a zone's plan weighed, exits tried, and a hold if nothing is worth
    its cost.

    A refused plan leaves the decision unchanged.
    """
    step_input = balance_changes.exclude_unexplained_rises(step_input)
    decided = decide(step_input)
    tried = (
        decided.zone is not None
        or bool(decided.exit_token)
        or bool(
            step_input.aside and decide(balance_changes.restore_excluded(step_input)).exit_token
        )
    )
    if not tried and not isinstance(decided.decision, Rebalance):
        return decided
    try:
        found = rebalance(step_input).decided if tried else _worth_it(step_input, decided)
    except Refused:
        return decided
    held = isinstance(found.decision, Hold) and found.decision.kept_by in NOT_WORTH_IT_LIMITS
    return found if held or tried else decided


def _worth_it(step: StepInput, decided: DecisionResult) -> DecisionResult:
    """Return the decision, or a hold if nothing is worth its cost, judged by the whole plan without
    parts.

    Raises Refused if the plan is refused for any other reason.
    """
    if isinstance(decision := decided.decision, Rebalance) and decided.zone is None:
        try:
            planner.plan_after_tax(step, decision)
        except planner.NothingPlanned as nothing:
            if not nothing.kept_by:
                raise
            return _not_worth_it(step, decided, decision, nothing).decided
    return decided


def _planned(step_input: StepInput, decided: DecisionResult, decision: Rebalance) -> Proposal:
    """The plan; in a zone nothing instead where it would not save more than it costs, or where no
    move pays.
    """
    zone = decided.zone
    try:
        if decision.apart and zone is None:
            return Proposal(*plan_purchase(step_input, decided, decision, PurchaseKind.FIRST))
        plan = gradual_execution.plan_within_daily_loss(step_input, decision)
    except planner.NothingPlanned as nothing:
        if zone is None:
            if not nothing.kept_by:
                raise
            return _not_worth_it(step_input, decided, decision, nothing)
        return _liquidity_instead(
            step_input, decided, no_plan_reason(decision.reason, nothing.message, zone, step_input)
        )
    if isinstance(plan.decision, Rebalance):
        decision = plan.decision
        decided = replace(decided, decision=decision)
    if zone is None or plan.saving is None:
        return _in_time(step_input, decided, decision, plan)
    weighed = replace(decided, zone=replace(zone, saving=plan.saving))
    if plan.saving.worth_it:
        return _in_time(step_input, weighed, decision, plan)
    return _liquidity_instead(
        step_input,
        weighed,
        uneconomic_plan_reason(decision.reason, plan.saving, step_input, zone.horizon_s),
    )


def _in_time(step: StepInput, decided: DecisionResult, decision: Rebalance, plan: Plan) -> Proposal:
    decided, found = schedule_plan(step, decided, decision, plan)
    return Proposal(
        decided, found, ticks_end=found is None and bool(plan_pools_out_of_ticks(step, plan.legs))
    )


def _not_worth_it(
    step: StepInput, decided: DecisionResult, decision: Rebalance, nothing: planner.NothingPlanned
) -> Proposal:
    """Return a hold for a trade above limits.plan_cost or below limits.min_trade; the review counts
    as done.
    """
    again = "" if decided.next_s is None else f"; next review {format_time(decided.next_s)}"
    held = Hold(
        f"{decision.reason};"
        f" {minimum.not_worth_reason(step, decided.references, nothing.drift)}{again}",
        decided.next_s,
        nothing.kept_by,
    )
    return Proposal(
        replace(decided, decision=held, round=None, begins=None, is_netting_only=False), None
    )


def _liquidity_instead(step_input: StepInput, decided: DecisionResult, why: str) -> Proposal:
    """If no swap pays in a zone, follow the liquidity targets, as while no trigger fires."""
    prices = decided.references.by_token
    instead = liquidity_or_hold(step_input, prices, Hold(why))
    plan = plan_liquidity(step_input, instead) if isinstance(instead, AdjustLiquidity) else None
    return Proposal(replace(decided, decision=instead), plan)


def manual_swap(token_in: str, token_out: str, amount_in_raw: int) -> Proposer:
    """Return the proposer of one manual swap: without triggers, with guards."""

    def propose(step_input: StepInput) -> Proposal:
        step = balance_changes.exclude_unexplained_rises(step_input)
        plan = planner.plan_swap(step, token_in, token_out, amount_in_raw)
        found = decide(step)  # a due slice stays due, and a triggered exit is not included
        return Proposal(
            replace(
                found,
                decision=plan.decision,
                reviewed=False,
                round=None,
                ended="",
                is_netting_only=False,
                exit_token="",
            ),
            plan,
            step,
        )

    return propose


def waiting_orders(orders: Sequence[LimitOrder]) -> Proposer:
    """Return a strategy that fills the first of `orders` whose price is reached, and else
    rebalances. No order is filled on unknown, stale or contradictory data. Exits go first, and no
    order buys a token that its own orders keep out.
    """

    def propose(step_input: StepInput) -> Proposal:
        first = _exits_first(step_input)
        filled, ended = None, False
        if not isinstance(first.decided.decision, Halt) and first.plan is None:
            filled, _, ended = _filled(step_input, first.decided, orders)
        if filled is not None:
            return filled
        found = _rebalanced(step_input, first)
        return replace(found, ticks_end=found.ticks_end or ended)

    return propose


def _filled(
    step_input: StepInput, decided: DecisionResult, orders: Sequence[LimitOrder]
) -> tuple[Proposal | None, str, bool]:
    """Return the first order whose price is reached; else why the last one waits, and whether more
    ticks might reach it.
    """
    why, ended, step_input = "", False, balance_changes.exclude_unexplained_rises(step_input)
    for order in orders:
        if (
            why := expiry_reason(step_input, order)
            or _out(step_input, order)
            or balance_changes.halt_reason(step_input)
            or withdrawals.open_withdrawal_reason(step_input)
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
            filled = replace(
                decided, decision=plan.decision, reviewed=False, round=None, order=order.id
            )
            return Proposal(filled, plan, step_input, ended), "", ended
    return None, why, ended


def _out(step_input: StepInput, order: LimitOrder) -> str:
    """Return why the order's purchase is blocked: an order keeps that token out and would sell it
    again. Empty otherwise.
    """
    known, portfolio = step_input.history.orders, step_input.portfolio
    if order.token_out == portfolio.numeraire.address:
        return ""
    by = conditional_orders.fired_exit_order(
        known, PORTFOLIO
    ) or conditional_orders.fired_exit_order(known, order.token_out)
    return (
        ""
        if by is None
        else (
            f"waits: {portfolio.token(order.token_out).label} is out by"
            f" {conditional_orders.order_name(portfolio, by)}"
        )
    )


def single_order(order: LimitOrder) -> Proposer:
    """Return the proposer of a single order: until its price is reached it holds and reports the
    distance.
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
            replace(decided, decision=Hold(why), reviewed=False, round=None, ended=""),
            None,
            ticks_end=ended,
        )

    return propose


# --- Proposals of the owner's requests: money raised or invested, everything sold, an edit carried
# out.


def raise_money(token: str) -> Proposer:
    """Return the proposer that sells for the shortfall of `token`.

    It sells all of it at once; with limits.first_purchase, as much of each asset as its market
    allows, and parts follow. If limits.daily_loss allows less, it sells the same fraction of each.
    Otherwise it is refused.
    """

    def propose(step: StepInput) -> Proposal:
        label = step.portfolio.token(token).label
        goal = withdrawals.goal_to_raise(step, token)
        wanted = Rebalance(
            f"{label} is raised for a withdrawal",
            goal,
            exit=True,
            apart=withdrawals.gross_sale_value(step, token),
        )
        plan = planner.plan(step, wanted)
        done = withdrawals.parts_done(step, token)
        short = shortfall_raw(step, plan, token) > 0
        if step.limits.first_purchase_s is not None and (
            short or not gradual_execution.fits_daily_loss(step, plan)
        ):
            decided = replace(decide(step), decision=wanted)
            part = (
                plan
                if gradual_execution.fits_daily_loss(step, plan)
                else plan_proportional_part(step, decided, wanted, plan)[0]
            )
            lacks, left = withdrawals.shortfall_raw(step, token), shortfall_raw(step, part, token)
            if left < lacks and (short or left > 0):
                wanted = replace(
                    wanted,
                    reason=(
                        f"{wanted.reason}, part {done + 1} of about"
                        f" {done + ceil_int(Fraction(lacks, lacks - left))}"
                    ),
                )
                return _by_owner(step, wanted, replace(part, decision=wanted))
        _require_raised(step, plan, token)
        if done:
            plan = replace(
                plan,
                decision=replace(wanted, reason=f"{wanted.reason}, part {done + 1} of {done + 1}"),
            )
        return _by_owner(step, plan.decision, plan)

    return propose


def invest(came: Mapping[str, int], before: str = "") -> Proposer:
    """Return the proposer that spreads deposits over underweight assets; holds for less than a
    trade. Includes the remainder of the purchase `before` (its id), if under way; any other
    purchase under way is this one, already begun.
    """

    def propose(step: StepInput) -> Proposal:
        if step.limits.first_purchase_s is None:
            wanted = Rebalance(
                balance_changes.append_excluded(step, "what came is invested"),
                withdrawals.goal_to_invest(step, came),
                by_owner=True,
            )
            try:
                plan = gradual_execution.plan_within_daily_loss(step, wanted)
            except planner.NothingPlanned as nothing:
                return _by_owner(
                    step,
                    Hold(
                        balance_changes.append_excluded(
                            step, f"the deposit stays uninvested for now: {nothing.message}"
                        )
                    ),
                    None,
                )
            return _by_owner(step, plan.decision, plan)
        under = purchase.active_purchase(step)
        if under is None or under.id == before:
            step = replace(
                step, history=replace(step.history, invested=tuple(sorted(came.items())))
            )
        decided = _by_owner(step, Hold(""), None).decided
        message = balance_changes.append_excluded(step, "what came is invested")
        wanted = Rebalance(
            message,
            purchase.purchase_goal(step, decided.drifts),
            by_owner=True,
            apart=purchase.turnover_allowance(step),
        )
        decided = replace(decided, decision=wanted)
        try:
            decided, made = plan_purchase(step, decided, wanted, PurchaseKind.TOP_UP)
        except planner.NothingPlanned as nothing:
            return _by_owner(
                step,
                Hold(
                    balance_changes.append_excluded(
                        step, f"the deposit stays uninvested for now: {nothing.message}"
                    )
                ),
                None,
            )
        return Proposal(decided, made, step)

    return propose


def sell_everything(step: StepInput) -> Proposal:
    """Sell everything for the numeraire, liquidity first, then one asset per plan; hold once
    nothing more can be sold. Unexplained changes do not block it, as for any exit, and are sold
    too.
    """
    return replace(_everything_sold(given := balance_changes.restore_excluded(step)), step=given)


def _everything_sold(step: StepInput) -> Proposal:
    if step.portfolio.positions:
        none_wanted = replace(
            step,
            limits=replace(step.limits, lp_max_weight_bps=0),
            portfolio=replace(step.portfolio, lp_targets=()),
            history=replace(step.history, stopped="", flows=()),
        )
        out = decide(none_wanted).decision
        if isinstance(out, Halt):
            return _by_owner(step, out, None)
        if isinstance(out, AdjustLiquidity):
            plan = plan_liquidity(none_wanted, out)
            if plan is not None and plan.actions:
                return _by_owner(step, plan.decision, plan)
    drifts = compute_drifts(step, reference_prices(step).by_token)
    if investable_total(drifts) == 0:
        return _by_owner(
            step, Hold("there is nothing to sell: all balances are zero or set aside"), None
        )
    home, blocked = step.portfolio.numeraire.address, [*step.stuck]
    for one in exits.in_turn(
        step, [one for one in drifts if one.token != home and one.investable_raw]
    ):
        found = _sold_out(step, drifts, one.token, "everything is sold for the numeraire")
        if isinstance(found, Proposal):
            return found
        blocked.append(found)
    stays = [f"{step.portfolio.token(one.token).label} stays: {one.why}" for one in blocked]
    return _by_owner(step, Hold("; ".join(["nothing more is sold", *stays])), None)


def sell_out(token: str) -> Proposer:
    """Return the proposer that sells all of one token for the numeraire, to the last base unit, and
    nothing else; then it holds.
    """

    def sold_out(step: StepInput) -> Proposal:
        label, decided = step.portfolio.token(token).label, decide(step)
        drifts = decided.drifts
        if isinstance(decided.decision, Halt) and not drifts:
            return _by_owner(step, decided.decision, None)
        blocked = [one.why for one in step.stuck if one.token == token]
        if not blocked and not any(one.token == token and one.investable_raw for one in drifts):
            return _by_owner(step, Hold(f"nothing of {label} is left to sell"), None)
        if not blocked:
            found = _sold_out(step, drifts, token, f"{label} is sold out")
            if isinstance(found, Proposal):
                return found
            blocked = [found.why]
        return _by_owner(step, Hold(f"nothing more of {label} is sold: {blocked[0]}"), None)

    return lambda step: replace(
        sold_out(given := balance_changes.restore_excluded(step)), step=given
    )


def _sold_out(
    step: StepInput, drifts: Sequence[AssetDrift], token: str, reason: str
) -> Proposal | BlockedExit:
    """Return the owner's sale of all of this token for the numeraire, or why nothing of it can be
    sold now.
    """
    found = _planned_exit(
        step, Rebalance(reason, exit_goal(step.portfolio, drifts, token), exit=True), token
    )
    if isinstance(found, BlockedExit):
        return found
    proposal = _by_owner(step, found.decision, found)
    return replace(proposal, decided=replace(proposal.decided, exit_token=token))


def rebalance_to_targets(step: StepInput) -> Proposal:
    """Propose trading onto the targets regardless of trigger and cooldown, after an edit: all, or
    the part limits.daily_loss allows.
    """
    return _to_targets(step, gradual_execution.plan_within_daily_loss)


def rebalance_wholly_to_targets(step: StepInput) -> Proposal:
    """Propose trading onto the targets without a part for limits.daily_loss: the guards judge the
    whole.
    """
    return _to_targets(step, planner.plan_after_tax)


def _to_targets(step: StepInput, planned: Callable[[StepInput, Rebalance], Plan]) -> Proposal:
    decided = decide(step)
    if isinstance(decided.decision, Halt):
        return Proposal(decided, None)
    if why := withdrawals.open_withdrawal_reason(step):
        return Proposal(replace(decided, decision=Halt(why, (HaltCode.WITHDRAWAL,))), None)
    try:
        wanted = Rebalance(
            balance_changes.append_excluded(step, "the transition to these targets"),
            rebalance_goal(decided.drifts, Destination.TARGET),
            by_owner=True,
        )
        plan = planned(step, wanted)
    except planner.NothingPlanned as nothing:
        return _by_owner(step, Hold(nothing.message), None)
    return _by_owner(step, plan.decision, plan)


def unwrap(raw: int) -> Proposer:
    """Return the proposer that unwraps this much of the wrapped native coin for a payout."""

    def propose(step: StepInput) -> Proposal:
        token = step.portfolio.token(step.portfolio.wrapped_native)
        decision = TopUp(
            f"{decimal_text(raw, token.decimals)} {token.label} is unwrapped to be paid out", raw
        )
        return _by_owner(step, decision, swaps.plan_top_up(step, decision))

    return propose


def _sold(step: StepInput, plan: Plan) -> tuple[str, ...]:
    """Return the tokens that legs take from the wallet without the numeraire, in the portfolio's
    order.
    """
    portfolio = step.portfolio
    taken = {
        portfolio.wrapped_native if leg.token_in == NATIVE else leg.token_in
        for leg in plan.legs
        if leg.source is LegFunding.WALLET
    }
    return tuple(
        one.token.address
        for one in portfolio.assets
        if one.token.address in taken - {portfolio.numeraire.address}
    )


def _by_owner(step: StepInput, decision: Decision, plan: Plan | None) -> Proposal:
    """Return a manual proposal: it neither fills nor ends a due slice, and follows no price
    signal.
    """
    found = decide(step)
    return Proposal(
        replace(
            found,
            decision=decision,
            reviewed=False,
            zone=None,
            round=None,
            ended="",
            is_netting_only=False,
            exit_token="",
        ),
        plan,
    )


def shortfall_raw(step: StepInput, plan: Plan, token: str) -> int:
    """Return the base units of a claim on `token` that the plan's prediction leaves uncovered; 0 or
    less if it covers them.
    """
    asset = next(one for one in step.portfolio.assets if one.token.address == token)
    after = dict(plan.holdings_after)[token]
    if asset.native:
        after += (
            step.snapshot.native_wei if plan.native_after_wei is None else plan.native_after_wei
        )
    return native_coin.reserved_raw(step, asset) - after


def _require_raised(step: StepInput, plan: Plan, token: str) -> None:
    """Raise Refused unless the plan's prediction covers the claim."""
    asset = next(one for one in step.portfolio.assets if one.token.address == token)
    if (short := shortfall_raw(step, plan, token)) > 0:
        amount = f"{decimal_text(short, asset.token.decimals)} {asset.token.label}"
        left = (
            "; ".join(f"{item.what}: {item.why}" for item in plan.skipped)
            or "the limits leave no more"
        )
        raise Refused(
            f"{amount} less than requested can be raised now: {left}",
            (Verdict("withdrawal", f"{amount} short", "all of it in one plan", False),),
            "withdraw less, or set limits.first_purchase, which raises it in parts",
        )


# --- Proposer and requester of a stored request, so that a recorded step replays identically.


OWN_STRATEGY = "agent"
"""Requester of the agent's own strategy."""


def proposer(asked: PlanRequest) -> Proposer:
    """Return the proposer of a request; pure: equal inputs give equal proposals."""
    match asked:
        case AgentCycle():
            return waiting_orders(asked.orders) if asked.orders else rebalance
        case Swap():
            return manual_swap(asked.token_in, asked.token_out, asked.amount_in_raw)
        case SwapAtPrice():
            return single_order(asked.order)
        case Invest():
            return invest(dict(asked.came), asked.before)
        case RaiseForWithdrawal():
            return raise_money(asked.token)
        case Unwrap():
            return unwrap(asked.raw)
        case SellEverything():
            return sell_everything
        case SellEntireBalance():
            return sell_out(asked.token)


def requester_name(asked: StepRequest) -> str:
    """Return the requester: OWN_STRATEGY, or the owner's command."""
    match asked:
        case AgentCycle():
            return OWN_STRATEGY
        case ManualAction():
            return asked.what
        case Swap():
            return "swap"
        case SwapAtPrice():
            return "swap --limit"
        case Invest():
            return "invest"
        case RaiseForWithdrawal() | Unwrap():
            return "withdraw"
        case SellEverything():
            return "stop"
        case SellEntireBalance():
            return "edit --remove"
