"""Hedges that replace sales: the comparison for each asset that a rebalance would sell, and the
order that shorts one instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from agent.errors import Refused
from agent.layers import sales
from agent.layers.futures.planning.orders import market_order, no_opening_reason
from agent.layers.futures.planning.plans import (
    HEDGE_MARGIN,
    OPEN_HEDGE,
    closing_plan,
    futures_plan,
    vault_approval_raw,
)
from agent.layers.futures.policy.exposure import quote_per_numeraire
from agent.layers.futures.policy.hedge_closing import hedges_after_order, is_hedge_closed_lately
from agent.layers.futures.policy.hedges import (
    comparison_text,
    margin_share,
    short_costs,
    with_choice,
)
from agent.layers.futures.policy.needs import (
    ORDER_GAS,
    back_off_reason,
    cooldown_reason,
    depositable_raw,
    futures_fault,
    reopening_s,
    spot_value_in_quote,
    stale_market_reasons,
)
from agent.layers.futures.policy.targets import stale_index_reason
from agent.layers.futures.state import (
    FuturesConfig,
    futures_policy,
    futures_progress,
    futures_state,
    margin_account,
)
from agent.margin.contract_sizes import size_for_notional_raw, untradable_reason
from agent.margin.state import after_action, breaches, largest_allowed_raw, margin_state
from agent.model import (
    AdjustFutures,
    AssetDrift,
    Destination,
    FuturesLimits,
    FuturesPlan,
    FuturesPolicy,
    FuturesReading,
    Hedge,
    HedgeChoices,
    HedgeComparison,
    HedgePolicy,
    MarginAccount,
    MarginDeposit,
    PerpMarket,
    Plan,
    Portfolio,
    Rebalance,
    Snapshot,
    StepInput,
)
from agent.planning import planner
from agent.policy.decision import DecisionResult
from agent.policy.drift import investable_total, rebalance_goal
from agent.reference import ReferencePrices, reference_prices
from agent.units import BPS, Value, ceil_int, decimal_text, floor_int

DEPOSIT_MULTIPLE = Fraction(105, 100)
"""Deposit as a multiple of a short's margin, because marks move between the deposit and the
order.
"""
ZERO = Fraction(0)


@dataclass(frozen=True, slots=True)
class HedgeContext:
    """A step with [futures.hedge] and a known margin account, and the drifts of its decision."""

    step: StepInput
    drifts: tuple[AssetDrift, ...]
    policy: FuturesPolicy
    hedge_policy: HedgePolicy
    account: MarginAccount


def hedge_instead(
    step: StepInput, decision_result: DecisionResult, decision: Rebalance, sale_plan: Plan
) -> tuple[DecisionResult, Plan]:
    """Return decision and plan of the first hedge that is cheaper than its part of the sale, else
    the sale; either plan has the comparisons. Only sales by the policy's trigger are hedged: not
    exits, purchases, manual trades or slices, and not with a divided wallet.
    """
    policy = futures_policy(step)
    if policy is None or policy.hedge_policy is None or not decision.by_trigger:
        return decision_result, sale_plan
    account = margin_account(step.snapshot)
    if (
        account is None
        or _hedging_fault(step, policy)
        or decision.exempt_turnover
        or step.history.execution is not None
    ):
        return decision_result, sale_plan
    context = HedgeContext(step, decision_result.drifts, policy, policy.hedge_policy, account)
    comparisons: list[HedgeComparison] = []
    hedged_tokens = {hedge.token for hedge in policy.hedges}
    change_raw_by_token = step.portfolio.asset_changes(sale_plan.wallet_changes())
    numeraire = step.portfolio.numeraire.address
    excesses_and_drifts = [
        (
            min(-change_raw_by_token[asset_drift.token] * asset_drift.price, asset_drift.value),
            asset_drift,
        )
        for asset_drift in decision_result.drifts
        if change_raw_by_token.get(asset_drift.token, 0) < 0
        and asset_drift.token not in (numeraire, policy.collateral, *hedged_tokens)
        and market_of(step.snapshot, asset_drift.token) is not None
    ]
    for excess, drift in sorted(
        excesses_and_drifts,
        key=lambda excess_and_drift: (-excess_and_drift[0], excess_and_drift[1].token),
    ):
        short_value = excess * policy.hedge_policy.ratio_bps / BPS
        hedge_comparison, short = compare_with_sale(
            context, decision, sale_plan, drift, excess, short_value
        )
        comparisons.append(hedge_comparison)
        if hedge_comparison.is_hedged:
            reason = f"{_comparison_text(step.portfolio, hedge_comparison)}; {decision.reason}"
            plan = _opening_plan(context, hedge_comparison, short, reason)
            plan = plan.with_layer(HedgeChoices(tuple(comparisons)))
            return decision_result.without_trades(plan.decision).unreviewed(), plan
    if not comparisons:
        return decision_result, sale_plan
    comparison_texts = "; ".join(
        _comparison_text(step.portfolio, asset_comparison) for asset_comparison in comparisons
    )
    decision = replace(decision, reason=f"{decision.reason}; {comparison_texts}")
    plan = replace(sale_plan, decision=decision).with_layer(HedgeChoices(tuple(comparisons)))
    return replace(decision_result, decision=decision), plan


def _hedging_fault(step: StepInput, policy: FuturesPolicy) -> str:
    """Return why nothing can be hedged, by a trigger or by the owner; empty if it can."""
    if step.divides_wallet:
        return "the strategies' weights count no hedge, and would sell the hedged part too"
    return futures_progress(step).hold_reason or futures_fault(step.snapshot, policy)


def compare_with_sale(
    context: HedgeContext,
    decision: Rebalance,
    sale_plan: Plan,
    drift: AssetDrift,
    excess: Value,
    short_value: Value,
) -> tuple[HedgeComparison, Short]:
    """Return the comparison with the sale, and the short of `short_value` of one asset. The
    sale costs the difference between the whole plan and the plan that remains beside the hedge,
    both on the step's pools.
    """
    step = context.step
    hedge_policy = context.hedge_policy
    market = market_of(step.snapshot, drift.token)
    short = Short(0, "it has no futures market")
    if market is not None:
        short = _sized_short(context, drift, market, short_value)
    if market is None or not short.size_raw:
        return _comparison_without_short(drift, excess, hedge_policy.horizon_s, short.why), short
    hedged_value = (
        -short.size_raw * market.index / quote_per_numeraire(step.snapshot, step.portfolio)
    )
    fees, funding, required_margin, capital_cost = short_costs(
        market,
        hedged_value,
        hedge_policy.horizon_s,
        margin_share(market, context.policy),
        hedge_policy.capital_cost_bps,
    )
    basis_cost = max(ZERO, 1 - market.mark / market.index) * hedged_value
    plan_beside = _plan_beside_hedge(step, decision, sale_plan, drift, hedged_value)
    saved_fees, saved_impact = _fees_and_impact(sale_plan)
    saved_tax = _tax(context, sale_plan)
    order_gas_value = (
        _order_gas_value(step.snapshot, step.portfolio, reference_prices(step))
        if context.account.is_on_chain
        else ZERO
    )
    if plan_beside is not None:
        fees_beside, impact_beside = _fees_and_impact(plan_beside)
        saved_fees -= fees_beside
        saved_impact -= impact_beside
        saved_tax -= _tax(context, plan_beside)
    comparison = HedgeComparison(
        token=drift.token,
        excess=excess,
        hedged_value=hedged_value,
        sale_fees=saved_fees,
        sale_impact=saved_impact,
        sale_tax=saved_tax,
        hedge_fees=fees + basis_cost + 2 * order_gas_value,
        hedge_funding=funding,
        capital_cost=capital_cost,
        required_margin=required_margin,
        horizon_s=hedge_policy.horizon_s,
        reason=short.why,
    )
    limit_bps = step.limits.plan_cost_bps
    if (
        limit_bps is not None
        and (fees / 2 + basis_cost + order_gas_value) * BPS > limit_bps * hedged_value
    ):
        return replace(comparison, reason="its order would cost more than limits.plan_cost"), Short(
            0, ""
        )
    chosen_comparison = with_choice(
        comparison, hedged_value * hedge_policy.min_saving_bps / BPS, counts_income=False
    )
    return chosen_comparison, short


def _comparison_without_short(
    drift: AssetDrift, excess: Value, horizon_s: int, reason: str
) -> HedgeComparison:
    return HedgeComparison(
        token=drift.token,
        excess=excess,
        hedged_value=ZERO,
        sale_fees=ZERO,
        sale_impact=ZERO,
        sale_tax=ZERO,
        hedge_fees=ZERO,
        hedge_funding=ZERO,
        capital_cost=ZERO,
        required_margin=ZERO,
        horizon_s=horizon_s,
        reason=reason,
    )


def market_of(snapshot: Snapshot, token: str) -> PerpMarket | None:
    """Return the market with the same price as a token; None without one."""
    account = margin_account(snapshot)
    markets = () if account is None else account.markets
    return next((market for market in markets if market.asset == token), None)


@dataclass(frozen=True, slots=True)
class Short:
    """A possible short: its size (zero: none), why it is smaller than wanted, and the collateral to
    deposit first, in base units.
    """

    size_raw: int
    why: str
    deposit_raw: int = 0


def _smallest_short_fault(
    account: MarginAccount,
    market: PerpMarket,
    limits: FuturesLimits,
    spot_value: Value | None,
    target_leverage_bps: int,
) -> str:
    """Return why no short keeps the limits: too little margin, or the limits broken by one lot."""
    smallest_order = market_order(
        market, -market.lot_raw, limits.slippage_bps, is_reduce_only=False
    )
    state = margin_state(after_action(account, smallest_order), limits, target_leverage_bps)
    limit_breaches = breaches(state, limits, spot_value)
    if not limit_breaches or {breach.limit_name for breach in limit_breaches} - {
        "max_position",
        "spot_multiple",
    }:
        return "the margin account is too small for a short"
    breach_texts = "; ".join(
        f"{breach.limit_name} {breach.measured_text}, limit {breach.limit_text}"
        for breach in limit_breaches
    )
    return f"a short of any size would break {breach_texts}"


def _sized_short(
    context: HedgeContext, drift: AssetDrift, market: PerpMarket, short_value: Value
) -> Short:
    """Return the short of a value, in whole lots, within every limit. Missing margin may be
    deposited from the wallet.
    """
    step = context.step
    drifts = context.drifts
    policy = context.policy
    account = context.account
    if block_reason := _no_short_reason(step, policy, drift, market):
        return Short(0, block_reason)
    short_value, value_fault = _value_with_room(context, drift, short_value)
    if value_fault:
        return Short(0, value_fault)
    if short_value < (step.limits.min_trade or 0):
        return Short(0, "the part to short is below limits.min_trade")
    wanted_size_raw = size_for_notional_raw(
        market, -short_value * quote_per_numeraire(step.snapshot, step.portfolio)
    )
    if not wanted_size_raw:
        lot_text = decimal_text(market.lot_raw, market.size_decimals)
        return Short(0, f"the part to short is below one lot of {lot_text}")
    spot_value = spot_value_in_quote(step, drifts)

    def largest_short_raw(deposit_raw: int) -> int:
        collateral_raw = account.collateral_raw + deposit_raw * account.collateral_unit_raw
        funded_account = replace(account, collateral_raw=collateral_raw)
        limits = policy.limits
        target_leverage_bps = policy.leverage_bps
        return largest_allowed_raw(
            funded_account, market.market, wanted_size_raw, limits, spot_value, target_leverage_bps
        )

    short_raw = largest_short_raw(0)
    deposit_raw = 0
    if short_raw != wanted_size_raw and (
        possible_deposit_raw := _deposit_raw(context, market, short_value)
    ):
        funded_short_raw = largest_short_raw(possible_deposit_raw)
        if abs(funded_short_raw) > abs(short_raw):
            short_raw = funded_short_raw
            deposit_raw = possible_deposit_raw
    if not short_raw:
        return Short(
            0,
            _smallest_short_fault(account, market, policy.limits, spot_value, policy.leverage_bps),
        )
    if cut_reason := untradable_reason(account, market, short_raw, policy.limits.slippage_bps):
        return Short(0, cut_reason)
    cut_reason = "" if short_raw == wanted_size_raw else "cut to what the margin account allows"
    return Short(short_raw, cut_reason, deposit_raw)


def _value_with_room(
    context: HedgeContext, drift: AssetDrift, short_value: Value
) -> tuple[Value, str]:
    """Return the part of a short's value that targets can count as sold, and why there is none:
    beyond the excess over the target without hedges the short would be closed at once, and beyond
    its maximum, or what the targets of other hedged assets leave, no target could be raised.
    """
    total_value = investable_total(context.drifts)
    target_bps = context.step.config(FuturesConfig).target_before_hedges_bps(drift)
    hedged_tokens = {hedge.token for hedge in context.policy.hedges}
    hedged_bps = sum(other.target_bps for other in context.drifts if other.token in hedged_tokens)
    max_bps = BPS if drift.max_bps is None else drift.max_bps
    for top_value, fault in (
        (drift.value, "without hedges it is not above its target"),
        (total_value * max_bps / BPS, "its maximum is not above its target"),
        (total_value * (BPS - hedged_bps) / BPS, "other hedges leave no room in the targets"),
    ):
        short_value = min(short_value, top_value - total_value * target_bps / BPS)
        if short_value <= 0:
            return ZERO, fault
    return short_value, ""


def _no_short_reason(
    step: StepInput, policy: FuturesPolicy, drift: AssetDrift, market: PerpMarket
) -> str:
    """Return why an asset may not be hedged in a market now at any size; empty if it may."""
    if any(hedge.token == drift.token for hedge in policy.hedges):
        return "it already has a hedge"
    if not step.config(FuturesConfig).target_before_hedges_bps(drift):
        return "its target is 0 %"
    if is_hedge_closed_lately(step.snapshot, policy, futures_state(step), drift.token):
        return "its last hedge was closed within one horizon"
    return (
        cooldown_reason(reopening_s(policy, futures_state(step)), step.snapshot.head.timestamp_s)
        or back_off_reason(step.snapshot, step.history, market.market)
        or step.snapshot.layer(FuturesReading).stale_reason()
        or no_opening_reason(market, policy)
        or stale_index_reason(market, policy, step.snapshot.head.timestamp_s)
    )


def _deposit_raw(context: HedgeContext, market: PerpMarket, short_value: Value) -> int:
    """Return the deposit for a short of this value, capped at the wallet's balance; an approved
    deposit is kept unchanged.
    """
    step = context.step
    policy = context.policy
    if not policy.vault:
        return 0
    available_raw = depositable_raw(step, context.drifts)
    approved_raw = vault_approval_raw(step.snapshot, step.progress.spend_caps, policy)
    if 0 < approved_raw <= available_raw:
        return approved_raw
    required_margin = (
        short_value
        * quote_per_numeraire(step.snapshot, step.portfolio)
        * margin_share(market, policy)
        * DEPOSIT_MULTIPLE
    )
    return min(available_raw, ceil_int(required_margin / context.account.collateral_unit_raw))


def _plan_beside_hedge(
    step: StepInput, decision: Rebalance, sale_plan: Plan, drift: AssetDrift, hedged_value: Value
) -> Plan | None:
    """Return the plan of the rebalance without the hedged part of the sale; None if nothing is left
    to trade.
    """
    change_raw_by_token = step.portfolio.asset_changes(sale_plan.wallet_changes())
    sold_raw = -change_raw_by_token.get(drift.token, 0)
    max_sold_raw = max(0, sold_raw - floor_int(hedged_value / drift.price))
    goal = decision.goal.with_sale_caps({drift.token: max_sold_raw})
    try:
        return sales.plan_sales(step, replace(decision, goal=goal))
    except planner.NothingPlanned:
        return None


def _fees_and_impact(plan: Plan) -> tuple[Value, Value]:
    """Return a plan's fees with gas, and its impact."""
    cost = plan.cost
    return cost.fees + cost.gas + cost.approval_gas, cost.impact + cost.skew


def _order_gas_value(
    snapshot: Snapshot, portfolio: Portfolio, references: ReferencePrices
) -> Value:
    """Return the gas of one futures order."""
    native_price = references.price_by_token.get(portfolio.wrapped_native, ZERO)
    return ORDER_GAS * snapshot.current_gas_price_wei * native_price


def _tax(context: HedgeContext, plan: Plan) -> Value:
    """Return the tax on the gains that a plan realises, net of the year's losses, in numeraire base
    units; zero without [tax]. Raises NothingPlanned if the gains are unknown.
    """
    tax_rate_bps = context.hedge_policy.tax_rate_bps
    return sales.taxed_gain(context.step, plan) * tax_rate_bps / BPS if tax_rate_bps else ZERO


def _opening_plan(
    context: HedgeContext,
    comparison: HedgeComparison,
    short: Short,
    reason: str,
    *,
    by_owner: bool = False,
) -> Plan:
    """Return the plan of the order that opens a hedge, or of the deposit needed first."""
    step = context.step
    policy = context.policy
    market = market_of(step.snapshot, comparison.token)
    if market is None:
        raise ValueError("a hedge needs a market")
    if short.deposit_raw:
        deposit = MarginDeposit(short.deposit_raw)
        layer_plan = FuturesPlan(
            (),
            HEDGE_MARGIN,
            _comparison_text(step.portfolio, comparison),
            (deposit,),
            hedges=futures_state(step).hedges,
        )
        decision = AdjustFutures(
            f"futures: margin is deposited for a hedge; {reason}",
            is_reducing=False,
            by_owner=by_owner,
        )
        return futures_plan(step, decision, layer_plan, context.account, context.drifts)
    size_raw = short.size_raw
    order = market_order(market, size_raw, policy.limits.slippage_bps, is_reduce_only=False)
    now_s = step.snapshot.head.timestamp_s
    hedge = Hedge(market.market, comparison.token, size_raw, now_s, comparison.sale_cost)
    layer_plan = FuturesPlan(
        (order,),
        OPEN_HEDGE,
        _comparison_text(step.portfolio, comparison),
        hedges=hedges_after_order(
            step.snapshot, policy, futures_state(step), market.market, size_raw, hedge
        ),
    )
    decision = AdjustFutures(f"futures: {reason}", is_reducing=False, by_owner=by_owner)
    return futures_plan(step, decision, layer_plan, context.account, context.drifts)


def _comparison_text(portfolio: Portfolio, comparison: HedgeComparison) -> str:
    label = portfolio.token(comparison.token).label
    return comparison_text(comparison, label, portfolio.numeraire.decimals)


def owner_hedge_plan(
    step: StepInput, decision_result: DecisionResult, token: str, ratio_bps: int
) -> Plan:
    """Return the plan that hedges `ratio_bps` of a token's excess over target at any cost that the
    limits allow. Raises Refused with the reason if there is none.
    """
    label = step.portfolio.token(token).label
    policy = futures_policy(step)
    drifts = decision_result.drifts
    if policy is None or policy.hedge_policy is None:
        raise Refused(
            f"{label} cannot be hedged: [futures.hedge] is missing",
            remedy="add [futures.hedge] with its horizon, min_saving, tax_rate and capital_cost",
        )
    if fault := _hedging_fault(step, policy):
        raise Refused(f"{label} cannot be hedged: {fault}", remedy="see trimtab margin")
    account = margin_account(step.snapshot)
    if account is None:
        raise ValueError("a hedge needs a margin account")
    context = HedgeContext(step, drifts, policy, policy.hedge_policy, account)
    drift = next((asset_drift for asset_drift in drifts if asset_drift.token == token), None)
    if drift is None:
        raise Refused(
            f"{label} cannot be hedged: prices or balances are missing",
            remedy="see trimtab status",
        )
    target_before_hedges_bps = step.config(FuturesConfig).target_before_hedges_bps(drift)
    excess = drift.value - investable_total(drifts) * target_before_hedges_bps / BPS
    if excess <= 0:
        raise Refused(f"{label} is not above its target", remedy="see trimtab status")
    decision = Rebalance("", rebalance_goal(drifts, Destination.TARGET), by_owner=True)
    try:
        sale_plan = sales.plan_sales(step, decision)
    except planner.NothingPlanned as error:
        raise Refused(
            f"{label} cannot be hedged: none of it would be sold, {error.message}",
            remedy="see trimtab status",
        ) from None
    short_value = excess * ratio_bps / BPS
    comparison, short = compare_with_sale(context, decision, sale_plan, drift, excess, short_value)
    if not short.size_raw:
        raise Refused(f"{label} cannot be hedged: {comparison.reason}", remedy="see trimtab margin")
    comparison = replace(comparison, is_hedged=True, reason="requested by the owner")
    plan = _opening_plan(
        context, comparison, short, _comparison_text(step.portfolio, comparison), by_owner=True
    )
    return plan.with_layer(HedgeChoices((comparison,)))


def owner_closing_plan(step: StepInput, decision_result: DecisionResult, token: str) -> Plan:
    """Return the plan that closes a token's hedge. Raises Refused if that is not possible now."""
    label = step.portfolio.token(token).label
    policy = futures_policy(step)
    account = margin_account(step.snapshot)
    hedge = next(
        (candidate for candidate in (policy.hedges if policy else ()) if candidate.token == token),
        None,
    )
    if account is None or hedge is None:
        raise ValueError(f"{label} has no open hedge")
    if fault := futures_progress(step).hold_reason or stale_market_reasons(
        step.snapshot, policy
    ).get(hedge.market):
        raise Refused(
            f"the hedge of {label} cannot be closed: {fault}", remedy="see trimtab margin"
        )
    reason = f"futures: the hedge of {label} is closed by the owner"
    layer_plan = closing_plan(step.snapshot, policy, hedge.market, reason)
    if not layer_plan.orders:
        raise Refused(
            f"the hedge of {label} cannot be closed: {'; '.join(layer_plan.refusal_texts)}",
            remedy="wait until the market trades again",
        )
    size_raw = layer_plan.orders[0].size_raw
    layer_plan = replace(
        layer_plan,
        hedges=hedges_after_order(
            step.snapshot,
            policy,
            futures_state(step),
            hedge.market,
            size_raw,
            closes=True,
        ),
    )
    decision = AdjustFutures(
        reason, layer_plan.is_reducing, by_owner=True, closed_hedge_market=hedge.market
    )
    return futures_plan(step, decision, layer_plan, account, decision_result.drifts)
