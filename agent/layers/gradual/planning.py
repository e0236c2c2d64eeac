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
from agent.floats import DECIMAL
from agent.layers.gradual.policy import (
    EVEN,
    budget_left,
    decide_slice,
    execution_deadlines,
    format_budget,
    prior_budget_use,
)
from agent.layers.gradual.state import (
    ExecutionProgress,
    GradualExecution,
    GradualResult,
    GradualState,
)
from agent.model import (
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
from agent.planning.gas import NATIVE_VENUE
from agent.planning.limit_swaps import limit_reached, output_value, with_raised_minimums
from agent.planning.partial_plans import (
    plan_within_daily_loss,
    value_sold,
    with_native,
    worst_case_loss,
)
from agent.policy.cash_flows import cash_limit
from agent.policy.decision import DecisionResult
from agent.policy.drift import compute_drifts, corrections
from agent.policy.one_sided import partial_goal, target_weights
from agent.policy.risk import penalty
from agent.reference import ReferencePrices
from agent.units import (
    BPS,
    Price,
    Value,
    format_time,
    sign_of,
    value_text,
)

HOUR_S = 3_600
PRECISION = 10**12
"""Denominator of the remaining impact, rounded up so that recovery is not overestimated."""


def compare_slice_counts(
    step: StepInput, decision: Rebalance, goal: Goal, whole: Plan, references: ReferencePrices
) -> SlicingComparison:
    """Return the cost of reaching `goal` in one slice (plan `whole`) and in each number of slices
    up to execution.pace.max_rounds. Slices are equal and a mean interval apart, at constant prices.
    No slice is smaller than limits.min_trade.
    """
    pace, prices = step.execution.pace, references.by_token
    intended_value = value_to_move(step, goal, prices)
    tried = [
        _SliceSimulation(step, decision, goal, references, prices, pace, count)
        for count in range(1, max_slices(step.limits, step.execution, intended_value) + 1)
    ]
    costs = [trial.cost(intended_value, whole if trial.count == 1 else None) for trial in tried]
    options = tuple(replace(cost, rest=cost.rest * _dearest(step.limits, costs)) for cost in costs)
    chosen = min(options, key=lambda option: (option.total, option.rounds))
    return SlicingComparison(
        options, chosen.rounds, _why(step.portfolio, options[0], chosen, options)
    )


def value_to_move(step: StepInput, goal: Goal, prices: Mapping[str, Price]) -> Value:
    """Return the value to sell, or to buy if that is more, until the goal is reached."""
    lacks = corrections(compute_drifts(step, prices), goal).values()
    return max(
        sum((-lack for lack in lacks if lack < 0), Fraction(0)),
        sum((lack for lack in lacks if lack > 0), Fraction(0)),
    )


def max_slices(limits: Limits, execution: ExecutionConfig, intended_value: Value) -> int:
    """Return the largest slice count within the config that keeps slices above limits.min_trade; at
    least one.
    """
    pace, least = execution.pace, limits.min_trade
    smallest = 1 - Fraction(pace.size_jitter_bps, BPS)
    if not least:
        return pace.max_rounds
    return max(1, min(pace.max_rounds, int(intended_value * smallest / least)))


def remaining_impact(seconds: int, half_life_s: int) -> Fraction:
    """Return the fraction of a price move left after this time: 2^(-seconds / half-life), rounded
    up.
    """
    share = DECIMAL.power(2, DECIMAL.divide(-seconds, half_life_s))
    return Fraction(min(PRECISION, int(share * PRECISION) + 1), PRECISION)


@dataclass(slots=True)
class _SliceSimulation:
    """Simulation of `count` slices in sequence; each slice changes the input of the next."""

    step: StepInput
    decision: Rebalance
    goal: Goal
    references: ReferencePrices
    prices: Mapping[str, Price]
    pace: ExecutionPace
    count: int

    def cost(self, intended_value: Value, whole: Plan | None) -> SlicingCost:
        """Return the cost; `rest` is the value that is never moved. `whole` is the plan of a single
        slice, if known.
        """
        fees = impact = skew = gas = waiting = moved = sold = Fraction(0)
        left = remaining_impact(self.pace.interval_s, self.pace.recovery_s)
        start = {pool.address: pool for pool in self.step.snapshot.pools}
        for number in range(1, self.count + 1):
            plan = whole or self._plan(Fraction(1, self.count - number + 1))
            if plan is not None:
                fees = fees + plan.cost.fees
                impact = impact + plan.cost.impact
                skew = skew + plan.cost.skew
                gas += plan.cost.gas + plan.cost.approvals
                moved += plan.turnover
                sold += self._sold(plan)
                self.step = _after(self.step, plan)
            if number < self.count:
                waiting += self._waiting(max(Fraction(0), intended_value - sold))
                pools = tuple(
                    pool.recovered(start[pool.address], left) for pool in self.step.snapshot.pools
                )
                self.step = replace(self.step, snapshot=replace(self.step.snapshot, pools=pools))
        return SlicingCost(
            self.count,
            moved,
            fees,
            impact,
            skew,
            gas,
            waiting,
            max(Fraction(0), intended_value - sold),
        )

    def _plan(self, part: Fraction) -> Plan | None:
        goal = partial_goal(compute_drifts(self.step, self.prices), self.goal, part)
        try:
            return planner.plan(self.step, replace(self.decision, goal=goal), self.references)
        except Refused:  # count the remainder as rest
            return None

    def _sold(self, plan: Plan) -> Value:
        balances = {holding.token: holding.raw for holding in self.step.snapshot.holdings}
        changes = {token: raw - balances[token] for token, raw in plan.holdings_after}
        if plan.native_after_wei is not None:
            coin = self.step.portfolio.wrapped_native
            changes[coin] = (
                changes.get(coin, 0) + plan.native_after_wei - self.step.snapshot.native_wei
            )
        return sum(
            (-raw * self.prices[token] for token, raw in changes.items() if raw < 0), Fraction(0)
        )

    def _waiting(self, unmoved: Value) -> Value:
        """Return the cost of leaving this value unmoved for one interval; without waiting_bps_hour,
        the zone's risk of the current drift.
        """
        trigger = self.step.policy.trigger
        if self.pace.waiting_bps_hour is None and isinstance(trigger, NoTradeZone):
            drifts = compute_drifts(self.step, self.prices)
            values, tokens = (
                [asset_drift.value for asset_drift in drifts],
                [drift.token for drift in drifts],
            )
            points = [Fraction(drift.target_bps, BPS) for drift in drifts]
            standing = penalty(trigger.risk, tokens, points, values, sum(values, Fraction(0)))
            return standing * Fraction(self.pace.interval_s, trigger.risk.horizon_s)
        return (
            unmoved
            * (self.pace.waiting_bps_hour or 0)
            / BPS
            * Fraction(self.pace.interval_s, HOUR_S)
        )


def _after(step: StepInput, plan: Plan) -> StepInput:
    """Return the step after the plan: pools, balances, allowances, and the turnover of the day."""
    pools = {pool.address: pool for pool in step.snapshot.pools}
    for leg in plan.legs:
        if leg.venue != NATIVE_VENUE:
            pools[leg.pool] = pools[leg.pool].swap(leg.token_in, leg.amount_in_raw).after
    after, spent = dict(plan.holdings_after), swap_spend(plan.legs)
    snapshot = step.snapshot
    allowances = tuple(
        (
            replace(allowance, raw=max(0, allowance.raw - spent.get(allowance.token, 0)))
            if allowance.spender == step.execution.router
            else allowance
        )
        for allowance in snapshot.allowances
    )
    return replace(
        step,
        snapshot=replace(
            snapshot,
            pools=tuple(pools[pool.address] for pool in snapshot.pools),
            holdings=tuple(
                Holding(holding.token, after.get(holding.token, holding.raw))
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
                step.history.budgets, turnover_24h=step.history.budgets.turnover_24h + plan.turnover
            ),
        ),
    )


def _dearest(limits: Limits, costs: list[SlicingCost]) -> Fraction:
    """Return the price of an unmoved unit: limits.plan_cost, else the highest unit cost of all
    counts.
    """
    if limits.plan_cost_bps is not None:
        return Fraction(limits.plan_cost_bps, BPS)
    return max((_paid(cost) / cost.moved for cost in costs if cost.moved > 0), default=Fraction(0))


def _paid(cost: SlicingCost) -> Value:
    return cost.fees + cost.impact + cost.skew + cost.gas + cost.waiting


def _why(
    portfolio: Portfolio, one: SlicingCost, chosen: SlicingCost, options: tuple[SlicingCost, ...]
) -> str:
    numeraire = portfolio.numeraire

    def money(value: Value) -> str:
        return f"{value_text(value, numeraire.decimals, 2)} {numeraire.label}"

    if len(options) == 1:
        return "the amount is too small for more than one slice"
    if chosen.rounds == 1:
        best = min(options[1:], key=lambda option: option.total)
        return (
            f"one trade costs {money(one.total)}, and {best.rounds} "
            f"slices would cost {money(best.total)}"
        )
    swaps = (one.fees + one.impact + one.skew + one.rest) - (
        chosen.fees + chosen.impact + chosen.skew + chosen.rest
    )
    more = (chosen.gas + chosen.waiting) - (one.gas + one.waiting)
    return (
        f"{chosen.rounds} slices cost {money(chosen.total)}, one trade {money(one.total)}:"
        f" {money(swaps)} less for pools, {money(more)} more for gas and waiting"
    )


# --- Schedule of a plan: sent at once, begun as gradual execution, or held until its limit price.


ScheduledPlan = tuple[DecisionResult, Plan | None]


def schedule_plan(
    step: StepInput, decided: DecisionResult, decision: Rebalance, whole: Plan
) -> ScheduledPlan:
    """Return the decision and its plan by execution.style.

    Exits, manual trades and amounts already approved in this step are never sliced. Approved
    amounts still keep the limit price and the shared budget.
    """
    pace = step.execution.pace
    if decided.layer(GradualResult).due is not None:
        return _plan_slice(step, decided, whole)
    if (
        pace.style is ExecutionStyle.MARKET
        or decision.exit
        or decision.by_hand
        or step.divides_wallet
    ):
        return decided, whole
    goal = _reached(decision.goal, whole)
    if pace.style is ExecutionStyle.LIMIT:
        execution = _new_gradual_execution(step, decided, goal, 1)
        return _at_price(
            step.portfolio,
            decided.with_layer(replace(decided.layer(GradualResult), begins=execution)),
            whole,
            execution,
        )
    pacing, count = None, 1
    if pace.style is ExecutionStyle.ROUNDS and not step.progress.spend_caps:
        pacing = compare_slice_counts(step, decision, goal, whole, decided.references)
        count = pacing.chosen
    elif not step.progress.spend_caps:
        count = max_slices(
            step.limits, step.execution, value_to_move(step, goal, _paced_prices(decided))
        )
    if count == 1 and (pace.budget_bps is None or prior_budget_use(step) is None):
        return decided, replace(whole, pacing=pacing)
    return _begin_gradual_execution(
        step,
        decided,
        decision,
        replace(whole, pacing=pacing),
        _new_gradual_execution(step, decided, goal, count),
    )


def _begin_gradual_execution(
    step: StepInput,
    decided: DecisionResult,
    decision: Rebalance,
    whole: Plan,
    execution: GradualExecution,
) -> ScheduledPlan:
    """Return the first slice of a gradual execution, decided in the same way as later slices."""
    under = ExecutionProgress(
        "", execution, 0, Fraction(0), Fraction(0), execution.began_s, execution.first
    )
    begun = step.with_layer(replace(step.layer(GradualState), progress=under))
    slice_decision = decide_slice(begun, decided.drifts, _paced_prices(decided))
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
            replace(decided, decision=Hold(why), reviewed=False),
            None,
        )  # a plan that may not begin in slices may not be sent at once either
    first = replace(
        decision,
        reason=f"{decision.reason}; {slice_decision.decision.reason}",
        goal=slice_decision.decision.goal,
    )
    plan = plan_within_daily_loss(step, first)
    return _plan_slice(
        begun,
        replace(decided, decision=first).with_layer(
            GradualResult(slice_decision.due_slice, decided.layer(GradualResult).ended, execution)
        ),
        replace(plan, pacing=whole.pacing),
    )


def _plan_slice(step: StepInput, decided: DecisionResult, plan: Plan) -> ScheduledPlan:
    """Return a slice that fits the budget; otherwise the end of the execution."""
    under = step.layer(GradualState).progress
    if under is None:
        return decided, plan
    begun = under.execution
    if begun.pace.style is ExecutionStyle.LIMIT:
        return _at_price(step.portfolio, decided, plan, begun)
    worst = worst_case_loss(step, plan, dict(begun.arrival))
    if begun.budget is None or under.spent + worst <= begun.budget:
        return decided, plan
    why = (
        f"slice {under.done + 1} may cost {_money(step.portfolio, worst)} at worst;"
        f" {_money(step.portfolio, under.spent)} of its budget of {format_budget(step.portfolio, begun)} is spent"
    )
    return (
        replace(
            decided,
            decision=Hold(
                cash_limit.append_excluded(step.excluded, f"the gradual execution is over: {why}")
            ),
        ).with_layer(GradualResult(ended=why)),
        None,
    )


def _at_price(
    portfolio: Portfolio, decided: DecisionResult, plan: Plan, execution: GradualExecution
) -> ScheduledPlan:
    """Return the plan if it pays enough at the initial prices, else wait."""
    prices = with_native(portfolio, dict(execution.arrival))
    least = value_sold(plan, prices) * Fraction(BPS - execution.pace.limit_bps, BPS)
    if limit_reached(plan, prices, least):
        return decided, with_raised_minimums(plan, prices, least)
    why = (
        f"{decided.decision.reason}; waiting for its price: it would yield"
        f" {_money(portfolio, output_value(plan, prices))} and needs {_money(portfolio, least)}, at the prices of"
        f" {format_time(execution.began_s)}, until {format_time(execution.expires_s)}"
    )
    part = replace(decided.layer(GradualResult), due=None)
    return replace(decided, decision=Hold(why)).with_layer(part), None


def _new_gradual_execution(
    step: StepInput, decided: DecisionResult, goal: Goal, count: int
) -> GradualExecution:
    pace = step.execution.pace
    prices = _paced_prices(decided)
    now_s = step.snapshot.head.timestamp_s
    intended_value, before = value_to_move(step, goal, prices), prior_budget_use(step)
    ends_s, expires_s = execution_deadlines(pace, count, now_s)
    arrival = prices | (
        {}
        if before is None
        else {token: price for token, price in before.arrival if token in prices}
    )
    lacks = corrections(decided.drifts, goal)
    return GradualExecution(
        pace=pace,
        targets_bps=target_weights(step.effective_assets),
        destination=step.policy.destination,
        goal=goal,
        arrival=tuple(sorted(arrival.items())),
        sides=tuple((token, sign_of(lack)) for token, lack in lacks.items() if lack),
        wish=intended_value,
        rounds=count,
        budget=budget_left(pace, intended_value, before),
        began_s=now_s,
        ends_s=ends_s,
        expires_s=expires_s,
        first=step.layer(GradualState).draw or EVEN,
        only=step.policy.only,
        before=before,
    )


def _reached(goal: Goal, whole: Plan) -> Goal:
    """Return the goal of a gradual execution; in a zone the weights after its plan, because further
    trading costs more than it saves.
    """
    if goal.risk is None:
        return goal
    return Goal(
        tuple(
            GoalWeight(token, Fraction(bps, BPS), Fraction(bps, BPS))
            for token, bps in whole.weights_after_bps
        )
    )


def _paced_prices(decided: DecisionResult) -> dict[str, Price]:
    return decided.references.by_token


def _money(portfolio: Portfolio, value: Value) -> str:
    numeraire = portfolio.numeraire
    return f"{value_text(value, numeraire.decimals, 2)} {numeraire.label}"
