"""Proposals for the owner's requests: raise or invest money, sell everything, apply an
edit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.layers import sales
from agent.layers.planning import PLANNERS
from agent.layers.requests import PROPOSERS
from agent.model import (
    AdjustFutures,
    AdjustLiquidity,
    AgentCycle,
    AssetDrift,
    BlockedExit,
    Decision,
    Destination,
    Halt,
    HaltCode,
    Hold,
    Invest,
    LayerRequest,
    Limits,
    ManualAction,
    NoTradeZone,
    Plan,
    PlanRequest,
    Portfolio,
    PurchaseKind,
    RaiseForWithdrawal,
    Rebalance,
    SellEntireBalance,
    SellEverything,
    Snapshot,
    StepInput,
    StepRequest,
    Swap,
    SwapAtPrice,
    TopUp,
    Unwrap,
    Verdict,
    decision_name,
)
from agent.planning import gas_refill, partial_plans, planner
from agent.planning.proposals import (
    Proposal,
    Proposer,
    manual_swap_proposer,
    orders_proposer,
    plan_exit,
    propose_rebalance,
    single_order_proposer,
    taxed_tradeoff,
)
from agent.planning.purchase_plans import plan_proportional_part
from agent.planning.purchases import plan_purchase
from agent.policy import native_coin, quarantine
from agent.policy.cash_flows import cash_limit, purchases, transfers
from agent.policy.decide import decide
from agent.policy.decision import spares_exits
from agent.policy.drift import compute_drifts, investable_total, rebalance_goal
from agent.policy.orders import exits
from agent.policy.orders.exits import exit_goal, exit_price_fault
from agent.policy.triggers.no_trade_zone import tradeoff_reason, within_ranges_text
from agent.reference import reference_prices
from agent.units import ceil_int, decimal_text

INVESTMENT_TITLE = "invest the deposit"
SOLD_OUT_TEXT = "nothing more can be sold"
"""Beginning of the hold after the sale of everything; the assets that stay follow, with reasons."""


def raise_money_proposer(token: str) -> Proposer:
    """Return the proposer that sells for the shortfall of `token`.

    It sells all at once if it can. Otherwise it sells in parts: as much of each asset as its market
    absorbs or, if limits.daily_loss allows less, the same fraction of each. Without
    limits.first_purchase it refuses to sell in parts.
    """

    def propose(step: StepInput) -> Proposal:
        label = step.portfolio.token(token).label
        goal = transfers.goal_to_raise_shortfall(step, token)
        title = f"raise {label} for a withdrawal"
        decision = Rebalance(
            title,
            goal,
            is_exit=True,
            exempt_turnover=transfers.gross_sale_value(step, token),
            title=title,
        )
        plan = planner.plan(step, decision)
        if step.limits.first_purchase_s is not None:
            part_plan = _part_of_sale(step, plan, decision, token)
            if part_plan is not None:
                return _owner_proposal(step, part_plan.decision, part_plan)
        _require_raised(step.snapshot, step.portfolio, step.limits, plan, token)
        if parts_done := transfers.parts_done(step, token):
            part_text = f"part {parts_done + 1} of {parts_done + 1}"
            decision = replace(decision, reason=f"{decision.reason}, {part_text}")
            plan = replace(plan, decision=decision)
        return _owner_proposal(step, plan.decision, plan)

    return propose


def _part_of_sale(
    step: StepInput, whole_plan: Plan, decision: Rebalance, token: str
) -> Plan | None:
    """Return the next part of a sale for the shortfall of `token`; None if the whole is possible, or
    a part would not raise anything.
    """

    def uncovered_raw(plan: Plan) -> int:
        return uncovered_after_plan_raw(step.snapshot, step.portfolio, step.limits, plan, token)

    part_plan = whole_plan
    if not partial_plans.fits_daily_loss(step, whole_plan):
        decision_result = replace(decide(step), decision=decision)
        part_plan, _ = plan_proportional_part(step, decision_result, decision, whole_plan)
    elif uncovered_raw(whole_plan) <= 0:
        return None
    short_before_raw = transfers.shortfall_raw(
        step.portfolio, step.limits, native_coin.held_balances(step), token
    )
    short_after_raw = uncovered_raw(part_plan)
    raised_raw = short_before_raw - short_after_raw
    is_part = short_after_raw > 0 or uncovered_raw(whole_plan) > 0
    if raised_raw <= 0 or not is_part:
        return None
    parts_done = transfers.parts_done(step, token)
    part_count = parts_done + ceil_int(Fraction(short_before_raw, raised_raw))
    reason = f"{decision.reason}, part {parts_done + 1} of about {part_count}"
    return replace(part_plan, decision=replace(decision, reason=reason))


def invest_proposer(deposits: Mapping[str, int], included_purchase_id: str = "") -> Proposer:
    """Return the proposer that invests deposits in underweight assets; it holds if they are too
    small for a trade.

    The remainder of the active purchase `included_purchase_id` (its id) is included; any other
    active purchase is this request, already begun.
    """

    def propose(step: StepInput) -> Proposal:
        usable_raw = cash_limit.usable_deposits(
            step.portfolio.numeraire, step.history.cash_flows.cash, deposits
        )
        reason = cash_limit.append_exclusions(step.exclusions, INVESTMENT_TITLE)
        if usable_raw != dict(deposits):
            reason = (
                f"{reason}; {cash_limit.use_cash_remedy(step.portfolio, step.history.cash_flows)}"
            )
        if not usable_raw:
            return _uninvested_proposal(
                step, cash_limit.use_cash_remedy(step.portfolio, step.history.cash_flows)
            )
        active_purchase = step.history.cash_flows.purchase
        if isinstance(step.policy.trigger, NoTradeZone) and active_purchase is None:
            return _invest_by_risk(step, usable_raw, reason)
        if step.limits.first_purchase_s is None:
            decision = Rebalance(
                reason,
                transfers.goal_to_invest(step, usable_raw),
                by_owner=True,
                title=INVESTMENT_TITLE,
            )
            try:
                plan = partial_plans.plan_within_daily_loss(step, decision)
            except planner.NothingPlanned as no_plan:
                kept_reason = transfers.kept_deposit_reason(step, usable_raw)
                return _uninvested_proposal(step, kept_reason or no_plan.message)
            return _owner_proposal(step, plan.decision, plan)
        if active_purchase is None or active_purchase.id == included_purchase_id:
            step = _with_new_investment(step, usable_raw)
        decision_result = _owner_proposal(step, Hold(""), None).decision_result
        decision = Rebalance(
            reason,
            purchases.purchase_goal(step, decision_result.drifts),
            by_owner=True,
            exempt_turnover=purchases.turnover_allowance(step),
            title=INVESTMENT_TITLE,
        )
        decision_result = replace(decision_result, decision=decision)
        try:
            decision_result, part_plan = plan_purchase(
                step, decision_result, decision, PurchaseKind.TOP_UP
            )
        except planner.NothingPlanned as no_plan:
            kept_reason = transfers.kept_deposit_reason(step, usable_raw)
            return _uninvested_proposal(step, kept_reason or no_plan.message)
        return Proposal(decision_result, part_plan, step)

    return propose


def _with_new_investment(step: StepInput, deposits: Mapping[str, int]) -> StepInput:
    cash_flows = replace(
        step.history.cash_flows, newly_invested_raw=tuple(sorted(deposits.items()))
    )
    return replace(step, history=replace(step.history, cash_flows=cash_flows))


def _invest_by_risk(step: StepInput, deposits: Mapping[str, int], reason: str) -> Proposal:
    """Return the investment that a trigger which weighs risk makes now, without waiting for the
    trigger: as far as the next unit saves more than it costs. It holds if the plan as a whole does
    not, because another deposit, or prices, may make it worth its cost.
    """
    if step.limits.first_purchase_s is not None:
        step = _with_new_investment(step, deposits)
    prices = reference_prices(step).price_by_token
    goal, zone, drifts = transfers.weighed_goal_to_invest(step, prices, deposits)
    decision = Rebalance(
        reason,
        goal,
        by_owner=True,
        exempt_turnover=purchases.turnover_allowance(step),
        title=INVESTMENT_TITLE,
    )
    try:
        plan = partial_plans.plan_within_daily_loss(step, decision)
    except planner.NothingPlanned as no_plan:
        return _uninvested_proposal(step, within_ranges_text(zone, drifts) or no_plan.message)
    if plan.zone_tradeoff is not None:
        tradeoff = taxed_tradeoff(step, plan, plan.zone_tradeoff)
        plan = replace(plan, zone_tradeoff=tradeoff)
        if not tradeoff.covers_cost:
            return _uninvested_proposal(step, tradeoff_reason(tradeoff, step.portfolio, zone))
    return replace(_owner_proposal(step, plan.decision, plan), changed_step=step)


def _uninvested_proposal(step: StepInput, why: str) -> Proposal:
    message = f"the deposit stays uninvested for now: {why}"
    return _owner_proposal(step, Hold(cash_limit.append_exclusions(step.exclusions, message)), None)


def propose_selling_everything(step: StepInput) -> Proposal:
    """Sell everything for the numeraire: first what layers free, then one asset per plan; hold once
    nothing more can be sold. As for any exit, unexplained increases do not block the sale; they are
    sold too.
    """
    whole_step = cash_limit.restore_excluded_amounts(step)
    priced_step = quarantine.exclude_unpriced_assets(whole_step)
    return replace(_sell_all_assets(priced_step, whole_step), changed_step=priced_step)


def _sell_all_assets(step: StepInput, whole_step: StepInput) -> Proposal:
    """Sell as `propose_selling_everything` does. An asset of `whole_step` without a price is not in
    `step`: it stays and does not block the others.
    """
    has_unpriced_assets = len(step.portfolio.assets) < len(whole_step.portfolio.assets)
    halt_decision: Halt | None = None
    layer_refusal: Refused | None = None
    for layer_planner in PLANNERS.values():
        match layer_planner.plan_release(step):
            case Plan() as plan:
                return _owner_proposal(step, plan.decision, plan)
            case Halt() as halt if not spares_exits(halt):
                return _owner_proposal(step, halt, None)
            case Halt() as halt:
                halt_decision = halt
            case Refused() as refusal:  # a manipulated pool must not delay the wallet's assets
                layer_refusal = refusal
    drifts = compute_drifts(step, reference_prices(step).price_by_token)
    quarantine_notes = _quarantine_notes(step)
    keeps_assets = has_unpriced_assets or quarantine_notes or step.blocked_exits
    if investable_total(drifts) == 0 and not keeps_assets:
        return _owner_proposal(
            step, Hold("nothing to sell: all balances are zero or reserved"), None
        )
    numeraire = step.portfolio.numeraire.address
    blocked_exits = [*step.blocked_exits]
    for asset_drift in exits.sort_exits(
        step.history,
        [drift for drift in drifts if drift.token != numeraire and drift.investable_raw],
    ):
        sale_or_block = _sell_out_token(
            step, drifts, asset_drift.token, "sell everything for the numeraire"
        )
        if isinstance(sale_or_block, Proposal):
            return sale_or_block
        blocked_exits.append(sale_or_block)
    if has_unpriced_assets:
        _require_priced(whole_step)
    if layer_refusal is not None:
        raise layer_refusal
    if halt_decision is not None:
        return _owner_proposal(step, halt_decision, None)
    kept_asset_notes = [
        f"{step.portfolio.token(blocked_exit.token).label} stays: {blocked_exit.why}"
        for blocked_exit in blocked_exits
        if blocked_exit.why
    ]
    unsold_reasons = (*kept_asset_notes, *quarantine_notes)
    proposal = _owner_proposal(step, Hold("; ".join([SOLD_OUT_TEXT, *unsold_reasons])), None)
    decision_result = replace(proposal.decision_result, unsold_reasons=unsold_reasons)
    return replace(proposal, decision_result=decision_result)


def _require_priced(step: StepInput) -> None:
    """Raise Refused if an asset has no price."""
    compute_drifts(step, reference_prices(step).price_by_token)


def _quarantine_notes(step: StepInput) -> list[str]:
    """Return a note on each token that stays because it is in quarantine."""
    raw_by_token = native_coin.held_balances(step)
    return [
        f"{step.portfolio.token(screened_token.token).label} stays: in quarantine: {screened_token.why}"
        for screened_token in step.targets.quarantined_tokens
        if screened_token.token != step.portfolio.numeraire.address
        and raw_by_token.get(screened_token.token, 0)
    ]


def sell_out_proposer(token: str) -> Proposer:
    """Return the proposer that sells all of one token for the numeraire, to the last base unit, and
    then holds.
    """

    def propose(step: StepInput) -> Proposal:
        restored_step = cash_limit.restore_excluded_amounts(step)
        return replace(propose_sale(restored_step), changed_step=restored_step)

    def propose_sale(step: StepInput) -> Proposal:
        label = step.portfolio.token(token).label
        decision_result = decide(step)
        drifts = decision_result.drifts
        if isinstance(decision_result.decision, Halt) and not drifts:
            if not spares_exits(decision_result.decision) or exit_price_fault(step, token):
                return _owner_proposal(step, decision_result.decision, None)
            drifts = compute_drifts(step, reference_prices(step).price_by_token)
        blocked_reasons = [
            blocked_exit.why for blocked_exit in step.blocked_exits if blocked_exit.token == token
        ]
        if not blocked_reasons and not any(
            drift.token == token and drift.investable_raw for drift in drifts
        ):
            return _owner_proposal(step, Hold(f"no {label} is left to sell"), None)
        if not blocked_reasons:
            sale_or_block = _sell_out_token(step, drifts, token, f"sell all {label}")
            if isinstance(sale_or_block, Proposal):
                return sale_or_block
            blocked_reasons = [sale_or_block.why]
        return _owner_proposal(
            step, Hold(f"no more {label} can be sold: {blocked_reasons[0]}"), None
        )

    return propose


def _sell_out_token(
    step: StepInput, drifts: Sequence[AssetDrift], token: str, reason: str
) -> Proposal | BlockedExit:
    """Return the owner's sale of this whole token balance for the numeraire, or why none of it can
    be sold now.
    """
    goal = exit_goal(step.portfolio, drifts, token)
    plan = plan_exit(step, Rebalance(reason, goal, is_exit=True, title=reason), token)
    if isinstance(plan, BlockedExit):
        return plan
    proposal = _owner_proposal(step, plan.decision, plan)
    return replace(proposal, decision_result=replace(proposal.decision_result, exit_token=token))


def rebalance_to_targets(step: StepInput) -> Proposal:
    """Propose a rebalance to the targets after an edit, regardless of trigger and cooldown: in
    full, or the part that limits.daily_loss allows.
    """
    return _propose_targets(step, partial_plans.plan_within_daily_loss)


def rebalance_wholly_to_targets(step: StepInput) -> Proposal:
    """Propose a rebalance to the targets in full; the guards judge it against limits.daily_loss."""
    return _propose_targets(step, sales.plan_sales)


def _propose_targets(
    step: StepInput, plan_decision: Callable[[StepInput, Rebalance], Plan]
) -> Proposal:
    decision_result = decide(step)
    if isinstance(decision_result.decision, Halt):
        return Proposal(decision_result, None)
    if why := transfers.open_withdrawal_reason(step):
        return Proposal(replace(decision_result, decision=Halt(why, (HaltCode.WITHDRAWAL,))), None)
    try:
        title = "the transition to these targets"
        decision = Rebalance(
            cash_limit.append_exclusions(step.exclusions, title),
            rebalance_goal(decision_result.drifts, Destination.TARGET),
            by_owner=True,
            title=title,
        )
        plan = plan_decision(step, decision)
    except planner.NothingPlanned as no_plan:
        return _owner_proposal(step, Hold(no_plan.message), None)
    return _owner_proposal(step, plan.decision, plan)


def unwrap_proposer(raw: int) -> Proposer:
    """Return the proposer that unwraps this amount of the wrapped native coin for a payout."""

    def propose(step: StepInput) -> Proposal:
        token = step.portfolio.token(step.portfolio.wrapped_native)
        decision = TopUp(
            f"{decimal_text(raw, token.decimals)} {token.label} is unwrapped for a payout", raw
        )
        return _owner_proposal(step, decision, gas_refill.plan_top_up(step, decision))

    return propose


def _owner_proposal(step: StepInput, decision: Decision, plan: Plan | None) -> Proposal:
    """Return a manual proposal, which neither trades nor ends a due slice and needs no price
    signal.
    """
    decision_result = decide(step)
    return Proposal(
        replace(decision_result.postponed_for(decision), zone=None, exit_token=""),
        plan,
    )


def uncovered_after_plan_raw(
    snapshot: Snapshot, portfolio: Portfolio, limits: Limits, plan: Plan, token: str
) -> int:
    """Return the base units of a claim on `token` that the plan's prediction leaves uncovered; 0 or
    less if it covers them.
    """
    asset = portfolio.asset(token)
    balance_after_raw = dict(plan.holdings_after)[token]
    if asset.includes_native:
        balance_after_raw += (
            snapshot.native_wei if plan.native_after_wei is None else plan.native_after_wei
        )
    return native_coin.reserved_raw(limits, asset) - balance_after_raw


def _require_raised(
    snapshot: Snapshot, portfolio: Portfolio, limits: Limits, plan: Plan, token_address: str
) -> None:
    """Raise Refused unless the plan's prediction covers the claim."""
    short_raw = uncovered_after_plan_raw(snapshot, portfolio, limits, plan, token_address)
    if short_raw > 0:
        token = portfolio.token(token_address)
        amount_text = f"{decimal_text(short_raw, token.decimals)} {token.label}"
        reasons_text = (
            "; ".join(
                f"{skipped_item.subject}: {skipped_item.why}" for skipped_item in plan.skipped
            )
            or "the limits allow no more"
        )
        raise Refused(
            f"{amount_text} less than requested can be raised now: {reasons_text}",
            (Verdict("withdrawal", f"{amount_text} short", "the whole amount in one plan", False),),
            "withdraw less, or set limits.first_purchase, which raises it in parts",
        )


# --- Proposer and requester of a stored request, so that a recorded step replays identically.


AGENT_REQUESTER = "agent"
"""Requester of the agent's own strategy."""


def proposer(request: PlanRequest) -> Proposer:
    """Return the proposer of a request; equal inputs give equal proposals."""
    match request:
        case AgentCycle():
            if request.orders:
                return orders_proposer(request.orders)
            return propose_rebalance
        case Swap():
            return manual_swap_proposer(request.token_in, request.token_out, request.amount_in_raw)
        case SwapAtPrice():
            return single_order_proposer(request.order)
        case Invest():
            return invest_proposer(dict(request.deposits), request.purchase_id)
        case RaiseForWithdrawal():
            return raise_money_proposer(request.token)
        case Unwrap():
            return unwrap_proposer(request.raw)
        case SellEverything():
            return propose_selling_everything
        case SellEntireBalance():
            return sell_out_proposer(request.token)
        case LayerRequest():
            return PROPOSERS[type(request)](request)


AGENT_DECISIONS = tuple(
    map(decision_name, (Hold, Halt, Rebalance, AdjustLiquidity, TopUp, AdjustFutures))
)
"""Decisions of the agent. All others, such as payouts, are made by the owner."""


def is_owner_step(
    request: StepRequest | None, decision: str | None, outcome: str | None, plan: Plan | None
) -> bool:
    """Return whether the owner asked for a recorded step, by its request or its plan; by its
    decision and outcome if an old record lacks the request.
    """
    if plan is not None and isinstance(plan.decision, Rebalance) and plan.decision.by_hand:
        return True
    if request is not None or decision is None:
        return not isinstance(request, AgentCycle | None)
    # a halt with any other outcome was recorded by a cancel or a revocation
    is_manual_halt = decision == "halt" and outcome not in ("halt", "error")
    return decision not in AGENT_DECISIONS or is_manual_halt


def requester_name(request: StepRequest) -> str:
    """Return the requester: the policy, or the owner's command."""
    match request:
        case AgentCycle():
            return AGENT_REQUESTER
        case ManualAction() | LayerRequest():
            return request.command
        case Swap():
            return "swap"
        case SwapAtPrice():
            return "swap --price"
        case Invest():
            return "invest"
        case RaiseForWithdrawal() | Unwrap():
            return "withdraw"
        case SellEverything():
            return "stop"
        case SellEntireBalance():
            return "edit --remove"
