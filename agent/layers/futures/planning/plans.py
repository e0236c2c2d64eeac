"""The futures layer's actions as a plan of the step, from its snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.layers.futures.planning.orders import (
    EarlierActions,
    cut_reductions,
    market_order,
    plan_futures,
    smaller_orders,
    top_up_raw,
)
from agent.layers.futures.policy.books import (
    SizesByMarket,
    goals_after,
    is_two_sided,
    orders_to_goals,
)
from agent.layers.futures.policy.exposure import (
    account_fault,
    expected_funding,
    quote_per_numeraire,
)
from agent.layers.futures.policy.hedge_closing import hedges_after_order
from agent.layers.futures.policy.needs import (
    ORDER_GAS,
    RESTING_STOP,
    STOPS_CHANGE_REASON,
    account_for_planning,
    back_off_reason,
    blocking_market_reasons,
    depositable_raw,
    due_futures_adjustment,
    due_stops,
    open_reduction_goals,
    reduction_budget_left,
    reopening_s,
    spot_value_in_quote,
    stale_market_reasons,
)
from agent.layers.futures.policy.targets import (
    LIMIT_TRIGGERS,
    LIQUIDATION,
    REDUCING_TRIGGERS,
    FuturesTrigger,
)
from agent.layers.futures.state import (
    FuturesState,
    futures_policy,
    futures_progress,
    futures_state,
    hold_futures,
    margin_account,
    planned_futures,
)
from agent.margin.contract_sizes import untradable_reason
from agent.margin.state import breaches_after, is_reduction
from agent.model import (
    AdjustFutures,
    AssetDrift,
    Decision,
    DelegateChange,
    FuturesAction,
    FuturesPlan,
    FuturesPolicy,
    Hedge,
    History,
    Limits,
    MarginAccount,
    MarginDeposit,
    MarginWithdrawal,
    OrderCancel,
    PerpMarket,
    PerpOrder,
    PerpOrderKind,
    Plan,
    PlanCost,
    Portfolio,
    SkippedItem,
    Snapshot,
    StepInput,
    StopOrder,
)
from agent.planning.approval_gas import with_data_fee
from agent.policy.decision import DecisionResult
from agent.policy.step_faults import decision_faults
from agent.reference import reference_prices
from agent.units import BPS, ceil_int, floor_int, largest_remainder

DEPOSIT_GAS = 250_000
WITHDRAWAL_GAS = 1_500_000
DELEGATE_GAS = 80_000
"""Measured gas of a deposit, a withdrawal and a delegate change."""
PPM = 1_000_000
CLOSE_HEDGE = "close_hedge"
"""Trigger of the order that closes a hedge."""
OPEN_HEDGE = "hedge"
"""Trigger of the order that opens a hedge."""
HEDGE_MARGIN = "hedge_margin"
"""Trigger of the deposit that a hedge needs first."""
TARGET_TRIGGERS = (
    FuturesTrigger.DRIFT.value,
    FuturesTrigger.LEVERAGE_DRIFT.value,
    FuturesTrigger.SCHEDULE.value,
)
"""Triggers of orders towards the targets."""
HEDGE_CLOSING_TRIGGERS = (*(trigger.value for trigger in REDUCING_TRIGGERS), LIQUIDATION)
"""Triggers whose purchases close hedges first."""


def plan_decision(step: StepInput, decision_result: DecisionResult) -> Plan | StepInput:
    """Return the plan of the decision; if no action is possible now, the step in which the layer
    does nothing, with the reason.
    """
    decision = decision_result.decision
    if not isinstance(decision, AdjustFutures):
        raise TypeError(f"{type(decision).__name__} is not a decision of the futures layer")
    plan_or_reason = plan_adjustment(step, decision, decision_result.drifts)
    if isinstance(plan_or_reason, Plan):
        return plan_or_reason
    reason = decision.reason.partition("; spot: ")[0]  # the spot proposal repeats its own reason
    obstacle = plan_or_reason.removeprefix(
        f"{reason.removeprefix('futures: ')}, but "
    )  # it repeats the reason
    return hold_futures(step, f"{reason}, but {obstacle}")


def without_refused_plan(
    step: StepInput, decision: Decision, plan: Plan | None, why: str
) -> StepInput | None:
    """Return the step in which the layer does nothing, because the guards refused its plan; None
    for the owner's requests and for positions that would be opened, which come last anyway.
    """
    if (
        not isinstance(decision, AdjustFutures)
        or decision.by_owner
        or futures_progress(step).hold_reason
    ):
        return None
    if not (decision.is_reducing or decision.closed_hedge_market or _opens_hedge(plan)):
        return None
    return hold_futures(step, f"futures: {why}")


def _opens_hedge(plan: Plan | None) -> bool:
    """True if a plan opens a hedge or deposits margin for one; without the hedge the asset
    is sold.
    """
    triggers = (OPEN_HEDGE, HEDGE_MARGIN)
    return plan is not None and plan.layer(FuturesPlan).trigger in triggers


def plan_adjustment(
    step: StepInput, decision: AdjustFutures, drifts: Iterable[AssetDrift]
) -> Plan | str:
    """Return the plan of the futures layer, or why no action is possible now. Markets that back off
    after failures are skipped.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    drifts = tuple(drifts)
    if account is None or policy is None:
        return account_fault(step.snapshot, policy) or "the margin account is unknown"
    if decision.closed_hedge_market:
        draft_layer_plan = closing_plan(
            step.snapshot, futures_policy(step), decision.closed_hedge_market, decision.reason
        )
    else:
        planning_account = account_for_planning(step, drifts) or account
        draft_layer_plan = plan_futures(
            planning_account,
            policy,
            spot_value_in_quote(step, drifts),
            step.snapshot.head.timestamp_s,
            deposit_at_hand_raw(step, drifts),
            vault_approval_raw(step.snapshot, step.progress.spend_caps, policy),
            EarlierActions(
                open_reduction_goals(step),
                [
                    market.market
                    for market in account.markets
                    if back_off_reason(step.snapshot, step.history, market.market)
                ],
                reopening_s(policy, futures_state(step)),
            ),
        )
        if planning_account is not account:
            draft_layer_plan = beside_resting_orders(
                account, policy, draft_layer_plan, spot_value_in_quote(step, drifts)
            )
        draft_layer_plan = _closing_hedges_first(
            step.snapshot, step.history, futures_policy(step), draft_layer_plan
        )
    draft_layer_plan = _completing_set(
        account, policy, draft_layer_plan, futures_state(step).set_goals
    )
    draft_layer_plan = _in_parts(
        account, policy, draft_layer_plan, dict(futures_progress(step).order_divisors)
    )
    orders = []
    refusal_reasons = list(draft_layer_plan.refusal_texts)
    for order in draft_layer_plan.orders:
        if back_off := back_off_reason(
            step.snapshot,
            step.history,
            order.market,
            is_emergency=draft_layer_plan.is_emergency,
        ):
            refusal_reasons.append(f"{account.market(order.market).symbol}: {back_off}")
        else:
            orders.append(order)
    if budget_cut := _cut_to_budget(step, draft_layer_plan, orders, drifts):
        orders, cut_note = budget_cut
        refusal_reasons.append(cut_note)
    stop_changes = (
        ()
        if orders or draft_layer_plan.account_actions
        else due_stops(step.snapshot, step.history, futures_policy(step))
    )
    if budget_cut and not orders and not stop_changes:
        return "; ".join(refusal_reasons)
    if stop_changes:
        draft_layer_plan = FuturesPlan(
            (), RESTING_STOP, STOPS_CHANGE_REASON, resting_actions=stop_changes
        )
    elif not orders and not draft_layer_plan.account_actions:
        if not (deposit_raw := _last_resort_deposit_raw(step, draft_layer_plan, drifts)):
            return "; ".join([draft_layer_plan.reason, *refusal_reasons])
        draft_layer_plan = replace(
            draft_layer_plan,
            reason=f"{draft_layer_plan.trigger} is above its limit and no reduction is possible now:"
            " margin is deposited",
            account_actions=(MarginDeposit(deposit_raw),),
            is_emergency=False,
        )
    layer_plan = replace(
        draft_layer_plan,
        orders=as_limit_orders(account, policy, draft_layer_plan.trigger, orders),
        refusal_texts=tuple(refusal_reasons),
        is_reducing=all(order.is_reduce_only for order in orders),
        hedges=hedges_after_first_order(
            step.snapshot,
            futures_policy(step),
            futures_state(step),
            () if draft_layer_plan.account_actions else orders,
            closes_hedges=bool(decision.closed_hedge_market)
            or draft_layer_plan.trigger in HEDGE_CLOSING_TRIGGERS,
        ),
        set_goals=_set_goals(account, draft_layer_plan, orders, futures_state(step).set_goals),
    )
    decision = replace(decision, is_reducing=layer_plan.is_reducing)
    plan = futures_plan(step, decision, layer_plan, account, drifts)
    return uneconomic_reason(step.snapshot, step.portfolio, step.limits, plan, account) or plan


def _completing_set(
    account: MarginAccount,
    policy: FuturesPolicy,
    layer_plan: FuturesPlan,
    set_goals: SizesByMarket,
) -> FuturesPlan:
    """Return the plan of its reductions and of those of its orders that lead to the goals of an
    earlier set, cut to them; the plan itself if none does. The set is completed before another
    begins, and no reduction waits for it.
    """
    if layer_plan.trigger not in TARGET_TRIGGERS:
        return layer_plan
    slippage_bps = policy.limits.slippage_bps
    size_by_market = {
        market_id: size_raw
        for market_id, size_raw in orders_to_goals(account, layer_plan.orders, set_goals).items()
        if not untradable_reason(account, account.market(market_id), size_raw, slippage_bps)
    }
    if not size_by_market:
        return layer_plan
    orders = tuple(
        market_order(
            account.market(order.market),
            size_by_market.get(order.market, order.size_raw),
            slippage_bps,
            is_reduce_only=order.is_reduce_only,
        )
        for order in layer_plan.orders
        if order.market in size_by_market or order.is_reduce_only
    )
    return replace(layer_plan, orders=orders, completes_set=True)


def _in_parts(
    account: MarginAccount,
    policy: FuturesPolicy,
    layer_plan: FuturesPlan,
    divisor_by_market: dict[str, int],
) -> FuturesPlan:
    """Return the plan with the orders of thin pools divided. If longs and shorts are opened
    together, all are divided alike. The cost of a part is judged by itself.
    """
    opening_markets = {order.market for order in layer_plan.orders if not order.is_reduce_only}
    divisors = [divisor_by_market.get(market_id, 1) for market_id in opening_markets]
    if layer_plan.trigger in TARGET_TRIGGERS and is_two_sided(layer_plan.orders):
        divisor_by_market |= dict.fromkeys(opening_markets, max(divisors))
    orders = smaller_orders(account, layer_plan, policy.limits, divisor_by_market)
    completes = layer_plan.completes_set and orders == layer_plan.orders
    return replace(layer_plan, orders=orders, completes_set=completes)


def _set_goals(
    account: MarginAccount,
    layer_plan: FuturesPlan,
    orders: Sequence[PerpOrder],
    earlier_goals: SizesByMarket,
) -> SizesByMarket:
    """Return the goals that the orders of a plan lead to: those of the set that they complete, or
    their own; empty for orders that do not lead to the targets.
    """
    if layer_plan.completes_set:
        return earlier_goals
    return goals_after(account, orders) if layer_plan.trigger in TARGET_TRIGGERS else ()


def beside_resting_orders(
    account: MarginAccount,
    policy: FuturesPolicy,
    layer_plan: FuturesPlan,
    spot_value: Fraction | None,
) -> FuturesPlan:
    """Return a plan that was made as if the resting orders were filled, without its orders in their
    markets, and without openings that would breach a limit until they are filled. If only those
    orders would breach a limit, or bring liquidation near, nothing is reduced: they end first.
    """
    if layer_plan.is_emergency or layer_plan.trigger in {
        trigger.value for trigger in LIMIT_TRIGGERS
    }:
        return FuturesPlan((), "", "resting orders would breach a limit")
    markets_with_order = {order.market for order in account.resting_orders}
    orders = [order for order in layer_plan.orders if order.market not in markets_with_order]
    account_breaches = breaches_after(
        account, orders, policy.limits, spot_value, policy.leverage_bps
    )

    def waiting_reason(order: PerpOrder) -> str:
        if order.market in markets_with_order:
            return "an order rests at the venue"
        if not account_breaches or is_reduction(account, order):
            return ""
        breach = account_breaches[0]
        return f"{breach.limit_name} would be {breach.measured_text} until the resting orders are filled"

    orders_and_reasons = [(order, waiting_reason(order)) for order in layer_plan.orders]
    return replace(
        layer_plan,
        orders=tuple(order for order, reason in orders_and_reasons if not reason),
        refusal_texts=(
            *layer_plan.refusal_texts,
            *(
                f"{account.market(order.market).symbol}: {reason}"
                for order, reason in orders_and_reasons
                if reason
            ),
        ),
    )


def current_futures_plan(
    step: StepInput,
    policy: FuturesPolicy,
    drifts: Sequence[AssetDrift],
    spot_value: Fraction | None,
) -> FuturesPlan | None:
    """Return the plan of now beside the orders that rest, with orders that await a confirmation;
    None without an account.
    """
    account = margin_account(step.snapshot)
    now_s = step.snapshot.head.timestamp_s
    if account is None or (planning_account := account_for_planning(step, drifts)) is None:
        return None
    plan = plan_futures(
        planning_account,
        replace(policy, manual_triggers=()),
        spot_value,
        now_s,
        depositable_raw(step, drifts),
        earlier=EarlierActions(opens_from_s=reopening_s(futures_policy(step), futures_state(step))),
    )
    if planning_account is not account:
        plan = beside_resting_orders(account, policy, plan, spot_value)
    return replace(plan, orders=as_limit_orders(account, policy, plan.trigger, plan.orders))


def plan_and_hold_reason(
    step: StepInput,
    policy: FuturesPolicy,
    drifts: Sequence[AssetDrift],
    spot_value: Fraction | None,
) -> tuple[FuturesPlan | None, str]:
    """Return the plan of now without the orders that wait in their market, and why the agent sends
    none of it (empty if it does, or waits for a confirmation).
    """
    plan = current_futures_plan(step, policy, drifts, spot_value)
    if plan is None or not plan.actions:
        return plan, ""
    if futures_progress(step).hold_reason:
        return plan, futures_progress(step).hold_reason
    if (due_adjustment := due_futures_adjustment(step, drifts)) is None:
        return plan, ""
    plan_or_reason = plan_adjustment(step, due_adjustment, drifts)
    if isinstance(plan_or_reason, str):
        return plan, plan_or_reason
    if (
        adjusted_plan := planned_futures(plan_or_reason)
    ) is not None and adjusted_plan.trigger == plan.trigger:
        return adjusted_plan, ""
    return plan, ""


def as_limit_orders(
    account: MarginAccount, policy: FuturesPolicy, trigger: str, orders: Iterable[PerpOrder]
) -> tuple[PerpOrder, ...]:
    """Return the orders, with openings to the targets at an off-chain venue as orders of
    `policy.order_kind`. A limit order has its bound as its price, a post-only one the middle of the
    book if that is better.
    """
    if account.is_on_chain or not policy.order_kind.can_rest or trigger not in TARGET_TRIGGERS:
        return tuple(orders)
    return tuple(
        order
        if order.is_reduce_only or is_reduction(account, order)
        else _limit_order(account.market(order.market), order, policy.order_kind)
        for order in orders
    )


def _limit_order(market: PerpMarket, order: PerpOrder, kind: PerpOrderKind) -> PerpOrder:
    bound_raw = order.bound_raw
    if kind is PerpOrderKind.POST_ONLY:
        mid_value = abs(order.size_raw) * (market.mid or market.mark)
        if order.size_raw > 0:
            bound_raw = min(bound_raw, ceil_int(mid_value))
        else:
            bound_raw = max(bound_raw, floor_int(mid_value))
    return replace(order, kind=kind, bound_raw=bound_raw)


def _cut_to_budget(
    step: StepInput,
    layer_plan: FuturesPlan,
    orders: Sequence[PerpOrder],
    drifts: tuple[AssetDrift, ...],
) -> tuple[list[PerpOrder], str] | None:
    """Return the reductions of a plan, all cut by the same share to the remainder of
    futures.limits.max_reduction_per_day, with a note; None if they are within it. The openings of a
    cut plan are not sent.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    reduction_orders = [order for order in orders if order.is_reduce_only]
    if account is None or policy is None or layer_plan.is_emergency or not reduction_orders:
        return None
    if layer_plan.trigger == CLOSE_HEDGE:
        return None
    budget_left = reduction_budget_left(step, spot_value_in_quote(step, drifts))
    notional = sum(
        (abs(order.size_raw) * account.market(order.market).index for order in reduction_orders),
        Fraction(0),
    )
    if budget_left is None or notional <= budget_left:
        return None
    cut_orders = cut_reductions(account, reduction_orders, policy.limits, budget_left / notional)
    limit_key = "futures.limits.max_reduction_per_day"
    if not cut_orders:
        return [], f"{limit_key} is used up: only reductions that the index requires are sent"
    return (
        cut_orders,
        f"the reductions are cut to {float(budget_left / notional) * 100:.2f} %, which {limit_key} leaves",
    )


def uneconomic_reason(
    snapshot: Snapshot, portfolio: Portfolio, limits: Limits, plan: Plan, account: MarginAccount
) -> str:
    """Return why the orders of a plan are not worth their cost: fees and basis at the mark, plus
    gas, exceed limits.plan_cost. Empty if they do not, for reductions and closed hedges, and for
    orders that complete a set, whose cost was judged as a whole.
    """
    limit_bps = limits.plan_cost_bps
    layer_plan = planned_futures(plan)
    if limit_bps is None or layer_plan is None or layer_plan.is_reducing or not layer_plan.orders:
        return ""
    if layer_plan.trigger == CLOSE_HEDGE or layer_plan.completes_set:
        return ""
    cost = Fraction(0)
    notional = Fraction(0)
    for order in layer_plan.orders:
        market = account.market(order.market)
        basis_cost = order.size_raw * (market.mark - market.index)
        cost += max(Fraction(0), basis_cost)
        cost += abs(order.size_raw) * market.mark * market.fee_ppm / PPM
        notional += abs(order.size_raw) * market.index
    numeraire_in_quote = quote_per_numeraire(snapshot, portfolio)
    cost = cost / numeraire_in_quote + plan.cost.gas
    notional = notional / numeraire_in_quote
    if cost * BPS <= limit_bps * notional:
        return ""
    return (
        f"its orders cost {ceil_int(cost / notional * BPS)} bps, above limits.plan_cost of"
        f" {limit_bps} bps; it waits for cheaper gas or a larger order"
    )


def _last_resort_deposit_raw(
    step: StepInput, layer_plan: FuturesPlan, drifts: tuple[AssetDrift, ...]
) -> int:
    """Return the deposit to make if all reductions are refused or failing, for example because a
    pool is held beyond their bounds: the depositable balance, at most the amount that restores the
    limits. Zero for other plans and those without reductions, while an index is stale, and below
    limits.min_trade.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if account is None or policy is None or layer_plan.trigger not in HEDGE_CLOSING_TRIGGERS:
        return 0
    if (
        not layer_plan.orders
        or not account.is_on_chain
        or blocking_market_reasons(step.snapshot, policy)
    ):
        return 0
    restoring_deposit_raw = top_up_raw(account, policy, None, policy.limits.hysteresis_bps)
    max_deposit_raw = deposit_at_hand_raw(step, drifts)
    approved_deposit_raw = vault_approval_raw(step.snapshot, step.progress.spend_caps, policy)
    deposit_raw = (
        approved_deposit_raw
        if 0 < approved_deposit_raw <= max_deposit_raw
        else min(restoring_deposit_raw, max_deposit_raw)
    )
    return deposit_raw if deposit_raw >= step.limits.smallest_trade else 0


def deposit_at_hand_raw(step: StepInput, drifts: Sequence[AssetDrift]) -> int:
    """Return what the step may deposit (`depositable_raw`). While a spot price or balance is
    missing or contradictory the drifts do not count, as in the guard.
    """
    return depositable_raw(step, () if decision_faults(step, reference_prices(step)) else drifts)


def vault_approval_raw(
    snapshot: Snapshot, spend_caps: tuple[tuple[str, int], ...], policy: FuturesPolicy
) -> int:
    """Return the deposit approved for the vault in this step; zero if there is none."""
    spend_cap_raw = dict(spend_caps).get(policy.collateral, 0)
    allowance_by_token_and_spender = {
        (allowance.token, allowance.spender): allowance.raw for allowance in snapshot.allowances
    }
    return (
        spend_cap_raw
        if allowance_by_token_and_spender.get((policy.collateral, policy.vault)) == spend_cap_raw
        else 0
    )


def hedges_after_first_order(
    snapshot: Snapshot,
    policy: FuturesPolicy | None,
    state: FuturesState,
    orders: Sequence[PerpOrder],
    *,
    closes_hedges: bool,
) -> tuple[Hedge, ...]:
    """Return the hedges after the first order, the current ones without; with `closes_hedges` a
    purchase reduces the hedge of its market.
    """
    if not orders:
        return state.hedges
    first_order = orders[0]
    return hedges_after_order(
        snapshot,
        policy,
        state,
        first_order.market,
        first_order.size_raw,
        closes=closes_hedges and first_order.size_raw > 0,
    )


def closing_plan(
    snapshot: Snapshot, policy: FuturesPolicy | None, market: str, reason: str
) -> FuturesPlan:
    """Return the order that buys back the hedges of a market. If the market also has a larger long
    the order opens, and guards judge it whole.
    """
    account = margin_account(snapshot)
    if account is None or policy is None:
        return FuturesPlan((), CLOSE_HEDGE, reason)
    size_raw = -policy.hedge_size_raw(market)
    perp_market = account.market(market)
    if why := untradable_reason(account, perp_market, size_raw, policy.limits.slippage_bps):
        return FuturesPlan((), CLOSE_HEDGE, reason, refusal_texts=(why,))
    order = market_order(perp_market, size_raw, policy.limits.slippage_bps, is_reduce_only=True)
    is_reducing = is_reduction(account, order)
    return FuturesPlan(
        (replace(order, is_reduce_only=is_reducing),), CLOSE_HEDGE, reason, is_reducing=is_reducing
    )


def _closing_hedges_first(
    snapshot: Snapshot, history: History, policy: FuturesPolicy | None, layer_plan: FuturesPlan
) -> FuturesPlan:
    """Return the plan or, if closing a hedge provides a reduction that a limit requires, the plan
    that closes the first such hedge.
    """
    reducing_triggers = {trigger.value for trigger in REDUCING_TRIGGERS}
    if not layer_plan.orders or layer_plan.trigger not in reducing_triggers or policy is None:
        return layer_plan
    for hedge in policy.hedges:
        hedge_plan = closing_plan(snapshot, policy, hedge.market, "")
        blocked_reason = stale_market_reasons(snapshot, policy).get(
            hedge.market
        ) or back_off_reason(snapshot, history, hedge.market)
        if hedge_plan.is_reducing and not blocked_reason:
            reason = f"{layer_plan.trigger} is above its limit; close a hedge first"
            return replace(hedge_plan, trigger=layer_plan.trigger, reason=reason)
    return layer_plan


def futures_plan(
    step: StepInput,
    decision: AdjustFutures,
    layer_plan: FuturesPlan,
    account: MarginAccount,
    drifts: tuple[AssetDrift, ...],
) -> Plan:
    """Return the plan. The wallet changes by gas and moved collateral; fees are paid from the
    margin account.
    """
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    policy = futures_policy(step)
    collateral_change_by_token = (
        {}
        if policy is None
        else {policy.collateral: sum(map(collateral_change_raw, layer_plan.actions))}
    )
    prices = reference_prices(step).price_by_token
    asset_values = [drift.value for drift in drifts]
    weights_bps = (
        largest_remainder(asset_values) if sum(asset_values) > 0 else [0] * len(asset_values)
    )
    gas_units = sum(map(action_gas, layer_plan.actions)) if account.is_on_chain else 0
    native_price = prices.get(step.portfolio.wrapped_native, Fraction(0))
    snapshot = step.snapshot
    gas_price_wei = snapshot.current_gas_price_wei
    fees_raw = sum((fee_raw(account, order) for order in layer_plan.orders), 0)
    zero = Fraction(0)
    horizon_s = 0 if policy is None else policy.funding_horizon_s
    plan = Plan(
        block=snapshot.head.number,
        decision=decision,
        legs=(),
        holdings_after=tuple(
            (
                asset.token.address,
                raw_by_token.get(asset.token.address, 0)
                + collateral_change_by_token.get(asset.token.address, 0),
            )
            for asset in step.portfolio.assets
        ),
        weights_after_bps=tuple(
            (drift.token, bps) for drift, bps in zip(drifts, weights_bps, strict=True)
        ),
        cost=PlanCost(
            fees_raw / quote_per_numeraire(step.snapshot, step.portfolio),
            zero,
            zero,
            gas_units * gas_price_wei * native_price,
            funding=funding_raw(account, layer_plan.orders, horizon_s)
            / quote_per_numeraire(step.snapshot, step.portfolio),
        ),
        turnover=zero,
        gross_volume=zero,
        gas_units=gas_units,
        gap=None,
        verdicts=(),
        skipped=tuple(SkippedItem("futures", why) for why in layer_plan.refusal_texts),
        expires_block=snapshot.head.number + step.execution.expire_blocks,
        layers=(layer_plan,),
    )
    return with_data_fee(step, plan, native_price)


def action_gas(action: FuturesAction) -> int:
    """Return the expected gas of an action."""
    match action:
        case PerpOrder():
            return ORDER_GAS
        case MarginDeposit():
            return DEPOSIT_GAS
        case MarginWithdrawal():
            return WITHDRAWAL_GAS
        case DelegateChange():
            return DELEGATE_GAS
        case StopOrder() | OrderCancel():
            return 0


def collateral_change_raw(action: FuturesAction) -> int:
    """Return the collateral that an action moves into the wallet, in base units; negative for a
    deposit.
    """
    match action:
        case MarginDeposit(amount_raw):
            return -amount_raw
        case MarginWithdrawal(amount_raw):
            return amount_raw
        case PerpOrder() | DelegateChange() | StopOrder() | OrderCancel():
            return 0


def funding_raw(account: MarginAccount, orders: Iterable[PerpOrder], horizon_s: int) -> Fraction:
    """Return the additional funding that orders are expected to pay over a horizon, in quote base
    units (negative: saved or received).
    """
    markets_and_sizes = ((account.market(order.market), order.size_raw) for order in orders)
    return sum(
        (
            expected_funding(market, size_raw * market.mark, horizon_s)
            for market, size_raw in markets_and_sizes
        ),
        Fraction(0),
    )


def fee_raw(account: MarginAccount, order: PerpOrder) -> int:
    """Return the fee of an order at its bound, quote base units, rounded up."""
    market = account.market(order.market)
    fee_base_value = max(Fraction(order.bound_raw), abs(order.size_raw) * market.mark)
    return ceil_int(fee_base_value * market.fee_ppm / PPM)
