"""Plans of gradual execution: the number of slices with the lowest cost, and the schedule of a
plan. Each slice count is simulated in exact integers, on pools that recover between slices: cost(n)
= Σ (fees + impact + skew + gas with approvals) + waiting + rest. On smooth pools the impact cost
grows with the square of the trade, so n slices on recovering pools pay about 1/n of it (Almgren,
Chriss, "Optimal Execution of Portfolio Transactions", 2000, with temporary impact); gas and waiting
grow with n.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.errors import Refused
from agent.floats import DECIMAL_CONTEXT
from agent.layers import sales
from agent.layers.gradual.policy import (
    NO_JITTER,
    budget_left,
    decide_slice,
    execution_deadlines,
    find_prior_carryover,
    format_budget,
)
from agent.layers.gradual.state import (
    ExecutionProgress,
    GradualExecution,
    GradualResult,
    GradualState,
)
from agent.model import (
    NATIVE_VENUE,
    AssetDrift,
    ExecutionConfig,
    ExecutionPace,
    ExecutionStyle,
    Goal,
    GoalWeight,
    Hold,
    Holding,
    Limits,
    NoTradeZone,
    Plan,
    Portfolio,
    Rebalance,
    SlicingComparison,
    SlicingCost,
    StepInput,
)
from agent.planning import planner
from agent.planning.approval_gas import swap_spend
from agent.planning.limit_swaps import limit_reached, output_value, with_raised_minimums
from agent.planning.partial_plans import (
    fits_daily_loss,
    plan_within_daily_loss,
    value_sold,
    with_native,
    worst_case_loss,
)
from agent.policy.cash_flows import cash_limit
from agent.policy.decision import DecisionResult
from agent.policy.drift import compute_drifts, corrections, investable_total
from agent.policy.one_sided import partial_goal, target_weights
from agent.policy.risk import tracking_cost
from agent.reference import ReferencePrices
from agent.units import BPS, HOUR_S, YEAR_S, Price, Value, format_time, sign_of

IMPACT_DENOMINATOR = 10**12
"""Denominator of the remaining impact, rounded up so that recovery is not overestimated."""


def compare_slice_counts(
    step: StepInput, decision: Rebalance, goal: Goal, single_plan: Plan, references: ReferencePrices
) -> SlicingComparison:
    """Return the cost of reaching `goal` in one slice (plan `single_plan`) and in each number of
    slices up to execution.pace.max_rounds. Slices are equal and a mean interval apart, at constant
    prices. No slice is smaller than limits.min_trade.
    """
    pace = step.execution.pace
    prices = references.price_by_token
    intended_value = value_to_move(step, goal, prices)
    simulations = [
        _SliceSimulation(step, decision, goal, references, prices, pace, slice_count)
        for slice_count in range(1, max_slices(step.limits, step.execution, intended_value) + 1)
    ]
    costs = [
        simulation.simulate(intended_value, single_plan if simulation.slice_count == 1 else None)
        for simulation in simulations
    ]
    options = tuple(
        replace(cost, unmoved_cost=cost.unmoved_cost * _unmoved_unit_cost(step.limits, costs))
        for cost in costs
    )
    cheapest_option = min(options, key=lambda option: (option.total, option.slice_count))
    return SlicingComparison(
        options,
        cheapest_option.slice_count,
        _comparison_text(step.portfolio, options[0], cheapest_option, options),
    )


def value_to_move(step: StepInput, goal: Goal, prices: Mapping[str, Price]) -> Value:
    """Return the value to sell, or to buy if that is more, until the goal is reached."""
    correction_values = corrections(compute_drifts(step, prices), goal).values()
    return max(
        sum((-correction for correction in correction_values if correction < 0), Fraction(0)),
        sum((correction for correction in correction_values if correction > 0), Fraction(0)),
    )


def max_slices(limits: Limits, execution: ExecutionConfig, intended_value: Value) -> int:
    """Return the largest slice count within the config that keeps slices above limits.min_trade; at
    least one.
    """
    pace = execution.pace
    min_trade = limits.min_trade
    smallest_share = 1 - Fraction(pace.size_jitter_bps, BPS)
    if not min_trade:
        return pace.max_rounds
    return max(1, min(pace.max_rounds, int(intended_value * smallest_share / min_trade)))


def remaining_impact(seconds: int, half_life_s: int) -> Fraction:
    """Return the fraction of a price move left after this time: 2^(-seconds / half-life), rounded
    up.
    """
    remaining_share = DECIMAL_CONTEXT.power(2, DECIMAL_CONTEXT.divide(-seconds, half_life_s))
    return Fraction(
        min(IMPACT_DENOMINATOR, int(remaining_share * IMPACT_DENOMINATOR) + 1), IMPACT_DENOMINATOR
    )


@dataclass(slots=True)
class _SliceSimulation:
    """Simulation of `slice_count` slices in sequence; each slice changes the input of the next."""

    step: StepInput
    decision: Rebalance
    goal: Goal
    references: ReferencePrices
    prices: Mapping[str, Price]
    pace: ExecutionPace
    slice_count: int

    def simulate(self, intended_value: Value, single_plan: Plan | None) -> SlicingCost:
        """Return the cost; `unfinished` is the value that is never moved. `single_plan` is the plan
        of a single slice, if known.
        """
        fees = impact = skew = gas = waiting_cost = moved_value = sold_value = Fraction(0)
        remaining_share = remaining_impact(self.pace.interval_s, self.pace.recovery_s)
        start_pool_by_address = {pool.address: pool for pool in self.step.snapshot.pools}
        for slice_number in range(1, self.slice_count + 1):
            plan = single_plan or self._plan(Fraction(1, self.slice_count - slice_number + 1))
            if plan is not None:
                fees = fees + plan.cost.fees
                impact = impact + plan.cost.impact
                skew = skew + plan.cost.skew
                gas += plan.cost.gas + plan.cost.approval_gas
                moved_value += plan.turnover
                sold_value += self._sold_value(plan)
                self.step = _step_after_plan(self.step, plan)
            if slice_number < self.slice_count:
                waiting_cost += self._waiting_cost(max(Fraction(0), intended_value - sold_value))
                pools = tuple(
                    pool.partly_recovered(start_pool_by_address[pool.address], remaining_share)
                    for pool in self.step.snapshot.pools
                )
                self.step = replace(self.step, snapshot=replace(self.step.snapshot, pools=pools))
        return SlicingCost(
            self.slice_count,
            moved_value,
            fees,
            impact,
            skew,
            gas,
            waiting_cost,
            max(Fraction(0), intended_value - sold_value),
        )

    def _plan(self, fraction: Fraction) -> Plan | None:
        goal = partial_goal(compute_drifts(self.step, self.prices), self.goal, fraction)
        decision = replace(self.decision, goal=goal)
        try:
            plan = planner.plan(self.step, decision, self.references)
            plan = plan_within_daily_loss(self.step, decision, plan)
        except Refused:  # count the remainder as rest
            return None
        return plan if fits_daily_loss(self.step, plan) else None

    def _sold_value(self, plan: Plan) -> Value:
        raw_by_token = {holding.token: holding.raw for holding in self.step.snapshot.holdings}
        change_raw_by_token = {
            token: token_raw - raw_by_token[token] for token, token_raw in plan.holdings_after
        }
        if plan.native_after_wei is not None:
            wrapped_native = self.step.portfolio.wrapped_native
            change_raw_by_token[wrapped_native] = (
                change_raw_by_token.get(wrapped_native, 0)
                + plan.native_after_wei
                - self.step.snapshot.native_wei
            )
        return sum(
            (
                -token_raw * self.prices[token]
                for token, token_raw in change_raw_by_token.items()
                if token_raw < 0
            ),
            Fraction(0),
        )

    def _waiting_cost(self, unmoved_value: Value) -> Value:
        """Return the cost of leaving this value unmoved for one interval; without waiting_bps_hour,
        the zone's risk of the current drift.
        """
        trigger = self.step.policy.trigger
        if self.pace.waiting_bps_hour is None and isinstance(trigger, NoTradeZone):
            drifts = compute_drifts(self.step, self.prices)
            asset_values = [asset_drift.value for asset_drift in drifts]
            tokens = [drift.token for drift in drifts]
            target_shares = [Fraction(drift.target_bps, BPS) for drift in drifts]
            drift_risk = tracking_cost(
                trigger.risk, tokens, target_shares, asset_values, sum(asset_values, Fraction(0))
            )
            horizon_s = trigger.risk.horizon_s or YEAR_S
            return drift_risk * Fraction(self.pace.interval_s, horizon_s)
        return (
            unmoved_value
            * (self.pace.waiting_bps_hour or 0)
            / BPS
            * Fraction(self.pace.interval_s, HOUR_S)
        )


def _step_after_plan(step: StepInput, plan: Plan) -> StepInput:
    """Return the step after the plan: pools, balances, allowances, and turnover and loss of the
    day.
    """
    pool_by_address = {pool.address: pool for pool in step.snapshot.pools}
    for leg in plan.legs:
        if leg.venue != NATIVE_VENUE:
            pool_by_address[leg.pool] = (
                pool_by_address[leg.pool].swap(leg.token_in, leg.amount_in_raw).pool_after
            )
    raw_after_by_token = dict(plan.holdings_after)
    spent_raw_by_token = swap_spend(plan.legs)
    snapshot = step.snapshot
    allowances = tuple(
        (
            replace(
                allowance, raw=max(0, allowance.raw - spent_raw_by_token.get(allowance.token, 0))
            )
            if allowance.spender == step.execution.router
            else allowance
        )
        for allowance in snapshot.allowances
    )
    return replace(
        step,
        snapshot=replace(
            snapshot,
            pools=tuple(pool_by_address[pool.address] for pool in snapshot.pools),
            holdings=tuple(
                Holding(holding.token, raw_after_by_token.get(holding.token, holding.raw))
                for holding in snapshot.holdings
            ),
            allowances=allowances,
            native_wei=(
                snapshot.native_wei if plan.native_after_wei is None else plan.native_after_wei
            ),
        ),
        history=replace(
            step.history,
            budgets=replace(
                step.history.budgets,
                turnover_24h=step.history.budgets.turnover_24h + plan.turnover,
                loss_24h=step.history.budgets.loss_24h + plan.cost.total,
            ),
        ),
    )


def _unmoved_unit_cost(limits: Limits, costs: list[SlicingCost]) -> Fraction:
    """Return the price of an unmoved unit: limits.plan_cost, else the highest unit cost of all
    counts.
    """
    if limits.plan_cost_bps is not None:
        return Fraction(limits.plan_cost_bps, BPS)
    return max(
        (_cost_without_rest(cost) / cost.turnover for cost in costs if cost.turnover > 0),
        default=Fraction(0),
    )


def _cost_without_rest(cost: SlicingCost) -> Value:
    return cost.fees + cost.impact + cost.skew + cost.gas + cost.delay_cost


def _comparison_text(
    portfolio: Portfolio,
    single_trade_cost: SlicingCost,
    cheapest_option: SlicingCost,
    options: tuple[SlicingCost, ...],
) -> str:
    money_text = portfolio.numeraire.money_text
    if len(options) == 1:
        return "the amount is too small for more than one slice"
    if cheapest_option.slice_count == 1:
        best_sliced_option = min(options[1:], key=lambda option: option.total)
        return (
            f"one trade costs {money_text(single_trade_cost.total)}, and {best_sliced_option.slice_count} "
            f"slices would cost {money_text(best_sliced_option.total)}"
        )
    pool_savings = (
        single_trade_cost.fees
        + single_trade_cost.impact
        + single_trade_cost.skew
        + single_trade_cost.unmoved_cost
    ) - (
        cheapest_option.fees
        + cheapest_option.impact
        + cheapest_option.skew
        + cheapest_option.unmoved_cost
    )
    added_costs = (cheapest_option.gas + cheapest_option.delay_cost) - (
        single_trade_cost.gas + single_trade_cost.delay_cost
    )
    return (
        f"{cheapest_option.slice_count} slices cost {money_text(cheapest_option.total)}, one trade {money_text(single_trade_cost.total)}:"
        f" {money_text(pool_savings)} less for pools, {money_text(added_costs)} more for gas and waiting"
    )


ScheduledPlan = tuple[DecisionResult, Plan | None]


def schedule_plan(
    step: StepInput, decision_result: DecisionResult, decision: Rebalance, single_plan: Plan
) -> ScheduledPlan:
    """Return the decision and its plan by execution.style.

    Exits, manual trades and amounts already approved in this step are never sliced. Approved
    amounts still keep the limit price and the shared budget.
    """
    pace = step.execution.pace
    if decision_result.layer(GradualResult).due_slice is not None:
        return _plan_slice(step, decision_result, single_plan)
    if (
        pace.style is ExecutionStyle.MARKET
        or decision.is_exit
        or decision.by_hand
        or step.divides_wallet
    ):
        return decision_result, single_plan
    goal = _execution_goal(step, decision_result, decision.goal, single_plan)
    if pace.style is ExecutionStyle.LIMIT:
        execution = _new_gradual_execution(step, decision_result, goal, 1)
        return _plan_at_price(
            step.portfolio,
            decision_result.with_layer(
                replace(decision_result.layer(GradualResult), new_execution=execution)
            ),
            single_plan,
            execution,
        )
    comparison = None
    slice_count = 1
    if pace.style is ExecutionStyle.ROUNDS and not step.progress.spend_caps:
        comparison = compare_slice_counts(
            step, decision, goal, single_plan, decision_result.references
        )
        slice_count = comparison.chosen_count
    elif not step.progress.spend_caps:
        slice_count = max_slices(
            step.limits,
            step.execution,
            value_to_move(step, goal, _reference_prices(decision_result)),
        )
    if slice_count == 1 and (pace.max_loss_bps is None or find_prior_carryover(step) is None):
        return decision_result, replace(single_plan, slicing_comparison=comparison)
    return _begin_gradual_execution(
        step,
        decision_result,
        decision,
        replace(single_plan, slicing_comparison=comparison),
        _new_gradual_execution(step, decision_result, goal, slice_count),
    )


def _begin_gradual_execution(
    step: StepInput,
    decision_result: DecisionResult,
    decision: Rebalance,
    single_plan: Plan,
    execution: GradualExecution,
) -> ScheduledPlan:
    """Return the first slice of a gradual execution, decided in the same way as later slices."""
    progress = ExecutionProgress(
        "", execution, 0, Fraction(0), Fraction(0), execution.began_s, execution.first_draw
    )
    begun_step = step.with_layer(replace(step.layer(GradualState), progress=progress))
    slice_decision = decide_slice(
        begun_step, decision_result.drifts, _reference_prices(decision_result)
    )
    if (
        slice_decision is None
        or slice_decision.due_slice is None
        or not isinstance(slice_decision.decision, Rebalance)
    ):
        if slice_decision is None:
            why = decision.reason
        else:
            why = f"{decision.reason}; {slice_decision.decision.reason}"
        return (
            replace(decision_result, decision=Hold(why)).unreviewed(),
            None,
        )  # a plan that may not begin in slices may not be sent at once either
    first_slice_decision = replace(
        decision,
        reason=f"{decision.reason}; {slice_decision.decision.reason}",
        goal=slice_decision.decision.goal,
    )
    plan = plan_within_daily_loss(step, first_slice_decision)
    return _plan_slice(
        begun_step,
        replace(decision_result, decision=first_slice_decision).with_layer(
            GradualResult(
                slice_decision.due_slice, decision_result.layer(GradualResult).end_reason, execution
            )
        ),
        replace(plan, slicing_comparison=single_plan.slicing_comparison),
    )


def _plan_slice(step: StepInput, decision_result: DecisionResult, plan: Plan) -> ScheduledPlan:
    """Return a slice that fits the budget; otherwise the end of the execution."""
    progress = step.layer(GradualState).progress
    if progress is None:
        return decision_result, plan
    execution = progress.execution
    if execution.pace.style is ExecutionStyle.LIMIT:
        return _plan_at_price(step.portfolio, decision_result, plan, execution)
    worst_loss = worst_case_loss(step, plan, dict(execution.arrival_prices))
    if execution.max_loss is None or progress.lost_value + worst_loss <= execution.max_loss:
        return decision_result, plan
    why = (
        f"slice {progress.parts_done + 1} may cost {step.portfolio.numeraire.money_text(worst_loss)} at worst;"
        f" {step.portfolio.numeraire.money_text(progress.lost_value)} of its budget of {format_budget(step.portfolio, execution)} is spent"
    )
    return (
        replace(
            decision_result,
            decision=Hold(
                cash_limit.append_exclusions(
                    step.exclusions, f"the gradual execution is over: {why}"
                )
            ),
        ).with_layer(GradualResult(end_reason=why)),
        None,
    )


def _plan_at_price(
    portfolio: Portfolio, decision_result: DecisionResult, plan: Plan, execution: GradualExecution
) -> ScheduledPlan:
    """Return the plan if it pays enough at the initial prices, else wait. A plan that pays enough at
    its start is sent without a record of an execution.
    """
    prices = with_native(portfolio, dict(execution.arrival_prices))
    min_output = value_sold(plan, prices) * Fraction(BPS - execution.pace.limit_bps, BPS)
    if limit_reached(plan, prices, min_output):
        return decision_result, with_raised_minimums(plan, prices, min_output)
    why = (
        f"{decision_result.decision.reason}; waiting for its price: it would yield"
        f" {portfolio.numeraire.money_text(output_value(plan, prices))} and needs"
        f" {portfolio.numeraire.money_text(min_output)}, at the prices of"
        f" {format_time(execution.began_s)}, until {format_time(execution.expires_s)}"
    )
    gradual_result = replace(decision_result.layer(GradualResult), due_slice=None)
    return replace(decision_result, decision=Hold(why)).with_layer(gradual_result), None


def _new_gradual_execution(
    step: StepInput, decision_result: DecisionResult, goal: Goal, slice_count: int
) -> GradualExecution:
    pace = step.execution.pace
    prices = _reference_prices(decision_result)
    now_s = step.snapshot.head.timestamp_s
    intended_value = value_to_move(step, goal, prices)
    prior_carryover = find_prior_carryover(step)
    ends_s, expires_s = execution_deadlines(pace, slice_count, now_s)
    arrival_prices = prices | (
        {}
        if prior_carryover is None
        else {token: price for token, price in prior_carryover.arrival_prices if token in prices}
    )
    correction_by_token = corrections(decision_result.drifts, goal)
    return GradualExecution(
        pace=pace,
        targets_bps=target_weights(step.effective_assets),
        destination=step.policy.destination,
        goal=goal,
        arrival_prices=tuple(sorted(arrival_prices.items())),
        side_by_token=tuple(
            (token, sign_of(correction))
            for token, correction in correction_by_token.items()
            if correction
        ),
        value_to_move=intended_value,
        rounds=slice_count,
        max_loss=budget_left(pace, intended_value, prior_carryover),
        began_s=now_s,
        ends_s=ends_s,
        expires_s=expires_s,
        first_draw=step.layer(GradualState).draw or NO_JITTER,
        trade_side=step.policy.trade_side,
        carryover=prior_carryover,
    )


def _execution_goal(
    step: StepInput, decision_result: DecisionResult, goal: Goal, single_plan: Plan
) -> Goal:
    """Return the goal of a gradual execution, as far as the limits on sales let it go; in a zone
    the weights after its plan, because further trading costs more than it saves.
    """
    if goal.risk is not None:
        return Goal(
            tuple(
                GoalWeight(token, Fraction(bps, BPS), Fraction(bps, BPS))
                for token, bps in single_plan.weights_after_bps
            )
        )
    caps_raw = dict(goal.with_sale_caps(sales.sale_caps(step, single_plan)).max_sold_raw_by_token)
    caps_raw |= dict.fromkeys(goal.never_sold, 0)
    prices = _reference_prices(decision_result)
    drifts = decision_result.drifts
    correction_by_token = corrections(drifts, goal)
    possible_by_token = {
        token: max(value, -caps_raw[token] * prices[token])
        if token in caps_raw and value < 0
        else value
        for token, value in correction_by_token.items()
    }
    if possible_by_token == correction_by_token:
        return goal
    purchase_share = _sold_value(possible_by_token) / _sold_value(correction_by_token)
    total_value = investable_total(drifts)

    def reachable_weight(drift: AssetDrift, weight: GoalWeight) -> GoalWeight:
        if not correction_by_token[drift.token]:
            return weight
        change = possible_by_token[drift.token]
        share = drift.share + change / total_value * (purchase_share if change > 0 else 1)
        return replace(weight, low=share, high=share)

    return replace(goal, weights=tuple(map(reachable_weight, drifts, goal.weights)))


def _sold_value(value_by_token: Mapping[str, Value]) -> Value:
    return sum((-value for value in value_by_token.values() if value < 0), Fraction(0))


def _reference_prices(decision_result: DecisionResult) -> dict[str, Price]:
    return decision_result.references.price_by_token
