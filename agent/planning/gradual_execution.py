"""Comparison of slice counts: each is simulated in exact integers, on pools that recover between
slices.

cost(n) = Σ (fees + impact + skew + gas with approvals) + waiting + rest. Impact of a trade grows
with its square where pools are smooth, so that n slices on recovering pools pay about 1/n of it
(Almgren, Chriss, "Optimal Execution of Portfolio Transactions", 2000, with temporary impact); gas
and waiting grow with n.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.amm.pools import KnownTicksExceeded
from agent.errors import Refused
from agent.floats import DECIMAL
from agent.model import (
    ExecutionPace,
    ExecutionProgress,
    ExecutionStyle,
    Goal,
    GoalWeight,
    GradualExecution,
    Hold,
    Holding,
    Leg,
    LegFunding,
    NoTradeZone,
    Plan,
    Rebalance,
    SliceDraw,
    SlicingComparison,
    SlicingCost,
    StepInput,
    Verdict,
)
from agent.planning import planner
from agent.planning.gas import NATIVE_VENUE, approval_gas_units, swap_spend
from agent.planning.rounding import plan_pools_out_of_ticks
from agent.policy import native_coin
from agent.policy.cash_flows import balance_changes
from agent.policy.decide import DecisionResult
from agent.policy.drift import compute_drifts, corrections, investable_total
from agent.policy.gradual_execution import (
    MILLION,
    budget_left,
    decide_slice,
    execution_deadlines,
    format_budget,
    partial_goal,
    prior_budget_use,
    target_weights,
)
from agent.policy.risk import penalty
from agent.reference import ReferencePrices, reference_prices
from agent.units import BPS, NATIVE, Price, Value, ceil_int, format_time, price_text, value_text

HOUR_S = 3_600
PRECISION = 10**12
"""Precision of the remaining impact, rounded up: a pool never recovers more than assumed."""


def compare_slice_counts(
    step: StepInput, decision: Rebalance, goal: Goal, whole: Plan, references: ReferencePrices
) -> SlicingComparison:
    """Return the cost of reaching `goal` in one slice, which is `whole`, and in each count up to
    execution.pace.max_rounds.

    Slices are equal and a mean interval apart; prices stay constant. No slice is smaller than
    limits.min_trade.
    """
    pace, prices = step.execution.pace, references.by_token
    intended_value = value_to_move(step, goal, prices)
    tried = [
        _SliceSimulation(step, decision, goal, references, prices, pace, count)
        for count in range(1, max_slices(step, intended_value) + 1)
    ]
    costs = [trial.cost(intended_value, whole if trial.count == 1 else None) for trial in tried]
    options = tuple(replace(cost, rest=cost.rest * _dearest(step, costs)) for cost in costs)
    chosen = min(options, key=lambda option: (option.total, option.rounds))
    return SlicingComparison(options, chosen.rounds, _why(step, options[0], chosen, options))


def value_to_move(step: StepInput, goal: Goal, prices: Mapping[str, Price]) -> Value:
    """Return the value to sell, or to buy if that is more, until the goal is reached."""
    lacks = corrections(compute_drifts(step, prices), goal).values()
    return max(
        sum((-lack for lack in lacks if lack < 0), Fraction(0)),
        sum((lack for lack in lacks if lack > 0), Fraction(0)),
    )


def max_slices(step: StepInput, intended_value: Value) -> int:
    """Return the largest slice count within the config that keeps slices above limits.min_trade; at
    least one.
    """
    pace, least = step.execution.pace, step.limits.min_trade
    smallest = 1 - Fraction(pace.size_jitter_bps, BPS)
    return (
        pace.max_rounds
        if not least
        else max(1, min(pace.max_rounds, int(intended_value * smallest / least)))
    )


def remaining_impact(seconds: int, half_life_s: int) -> Fraction:
    """Return the fraction of a price move left after this time: 2^(-seconds / half-life), rounded
    up.
    """
    share = DECIMAL.power(2, DECIMAL.divide(-seconds, half_life_s))
    return Fraction(min(PRECISION, int(share * PRECISION) + 1), PRECISION)


@dataclass(slots=True)
class _SliceSimulation:
    """Simulation of `count` slices in sequence; each changes the step of the next."""

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
                fees, impact, skew = (
                    fees + plan.cost.fees,
                    impact + plan.cost.impact,
                    skew + plan.cost.skew,
                )
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
        except Refused:  # the remainder counts as rest
            return None

    def _sold(self, plan: Plan) -> Value:
        held = {holding.token: holding.raw for holding in self.step.snapshot.holdings}
        changes = {token: raw - held[token] for token, raw in plan.holdings_after}
        if plan.native_after_wei is not None:
            coin = self.step.portfolio.wrapped_native
            changes[coin] = (
                changes.get(coin, 0) + plan.native_after_wei - self.step.snapshot.native_wei
            )
        return sum(
            (-raw * self.prices[token] for token, raw in changes.items() if raw < 0), Fraction(0)
        )

    def _waiting(self, unmoved: Value) -> Value:
        """Return the cost of one interval with this value unmoved; without waiting_bps_hour, the
        zone's risk of the present drift.
        """
        trigger = self.step.policy.trigger
        if self.pace.waiting_bps_hour is None and isinstance(trigger, NoTradeZone):
            drifts = compute_drifts(self.step, self.prices)
            values, tokens = [one.value for one in drifts], [one.token for one in drifts]
            points = [Fraction(one.target_bps, BPS) for one in drifts]
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
            replace(one, raw=max(0, one.raw - spent.get(one.token, 0)))
            if one.spender == step.execution.router
            else one
        )
        for one in snapshot.allowances
    )
    return replace(
        step,
        snapshot=replace(
            snapshot,
            pools=tuple(pools[pool.address] for pool in snapshot.pools),
            holdings=tuple(
                Holding(one.token, after.get(one.token, one.raw)) for one in snapshot.holdings
            ),
            allowances=allowances,
            native_wei=(
                snapshot.native_wei if plan.native_after_wei is None else plan.native_after_wei
            ),
        ),
        history=replace(step.history, turnover_24h=step.history.turnover_24h + plan.turnover),
    )


def _dearest(step: StepInput, costs: list[SlicingCost]) -> Fraction:
    """Return the price of an unmoved unit: limits.plan_cost, else the highest unit cost of all
    counts.
    """
    if step.limits.plan_cost_bps is not None:
        return Fraction(step.limits.plan_cost_bps, BPS)
    return max((_paid(cost) / cost.moved for cost in costs if cost.moved > 0), default=Fraction(0))


def _paid(cost: SlicingCost) -> Value:
    return cost.fees + cost.impact + cost.skew + cost.gas + cost.waiting


def _why(
    step: StepInput, one: SlicingCost, chosen: SlicingCost, options: tuple[SlicingCost, ...]
) -> str:
    numeraire = step.portfolio.numeraire

    def money(value: Value) -> str:
        return f"{value_text(value, numeraire.decimals, 2)} {numeraire.label}"

    if len(options) == 1:
        return "the amount is too small for more than one slice"
    if chosen.rounds == 1:
        best = min(options[1:], key=lambda option: option.total)
        return (
            f"one trade costs {money(one.total)}, {best.rounds} slices would cost"
            f" {money(best.total)}"
        )
    swaps = (one.fees + one.impact + one.skew + one.rest) - (
        chosen.fees + chosen.impact + chosen.skew + chosen.rest
    )
    more = (chosen.gas + chosen.waiting) - (one.gas + one.waiting)
    return (
        f"{chosen.rounds} slices cost {money(chosen.total)}, one trade {money(one.total)}:"
        f" {money(swaps)} less for pools, {money(more)} more for gas and waiting"
    )


# --- Plans within the remainder of limits.daily_loss: if the worst case of the whole exceeds it,
# plan a part.


DAILY_LOSS = "limits.daily_loss"
TRIES = 8
"""Maximum number of plans tried."""
MARGIN = Fraction(99, 100)
"""Fraction of the estimate requested: unit costs of a smaller plan differ slightly."""
SHOWN_BPS = 10
"""Rounding of a suggested setting: up to a tenth of a percent."""


def plan_within_daily_loss(step: StepInput, decision: Rebalance, whole: Plan | None = None) -> Plan:
    """Return a plan whose worst case fits the remainder of limits.daily_loss: the whole plan, or a
    part with the cheapest moves first. Exits are never reduced. If no part is worth a trade, the
    whole plan is returned, which the guard refuses. `whole` is the result of planner.plan_after_tax
    if known. Raises Refused like it.
    """
    whole = whole or planner.plan_after_tax(step, decision)
    if decision.exit or (room := daily_loss_left(step)) is None:
        return whole
    if fits_daily_loss(step, whole):
        return _named(step, decision, whole, whole) if step.spend_caps else whole
    found, loses = whole, worst_case_loss(step, whole)
    for _ in range(TRIES):
        gas = worst_case_gas(step, found)
        if room <= gas or loses <= gas:
            return whole
        try:
            found = planner.plan_after_tax(
                step, decision, (found.turnover * (room - gas) / (loses - gas) * MARGIN, DAILY_LOSS)
            )
        except planner.NothingPlanned:
            return whole
        if (loses := worst_case_loss(step, found)) <= room:
            return _named(step, decision, found, whole)
    return whole


def fits_daily_loss(step: StepInput, found: Plan) -> bool:
    """True if the plan's worst case fits the remainder of limits.daily_loss; for an exit its
    predicted cost, as in the guard.
    """
    room = daily_loss_left_for_exits(step) if found.exits else daily_loss_left(step)
    return (
        room is None
        or max(found.cost.total if found.exits else worst_case_loss(step, found), Fraction(0))
        <= room
    )


def _named(step: StepInput, decision: Rebalance, found: Plan, whole: Plan) -> Plan:
    """Mark the plan as a part if limits.daily_loss is the reason; this step's approvals are not."""
    whole = plan_before_approvals(step, decision, whole)
    if fits_daily_loss(step, whole) or not found.turnover:
        return found
    parts = max(2, ceil_int(whole.turnover / found.turnover))
    message = (
        f"{decision.reason}; part 1 of about {parts}:"
        f" {partial_plan_reason(step, worst_case_loss(step, whole))}"
    )
    return replace(found, decision=replace(decision, reason=message))


def plan_before_approvals(step: StepInput, decision: Rebalance, whole: Plan) -> Plan:
    """Return `whole`, the step's plan, as it would be without approvals."""
    return (
        planner.plan_after_tax(replace(step, spend_caps=()), decision) if step.spend_caps else whole
    )


def daily_loss_left(step: StepInput) -> Value | None:
    """Return the remainder of limits.daily_loss, numeraire base units; None without a limit, or for
    an unknown day, which refuses.
    """
    limit_bps, history = step.limits.daily_loss_bps, step.history
    return (
        None
        if limit_bps is None or history.unknown
        else _total(step) * Fraction(limit_bps, BPS) - history.loss_24h
    )


def daily_loss_left_for_exits(step: StepInput) -> Value | None:
    """Return the remainder of limits.daily_loss for an exit, which answers only for losses by
    trades.
    """
    history, room = step.history, daily_loss_left(step)
    lost = history.fell_24h + history.wasted_24h_wei * reference_prices(step).by_token.get(
        step.portfolio.wrapped_native, Fraction(0)
    )
    return None if room is None else room + min(lost, max(Fraction(0), history.loss_24h))


def worst_case_loss(
    step: StepInput, found: Plan, prices: Mapping[str, Price] | None = None
) -> Value:
    """Return the largest possible loss of a plan: every leg at its minimum, gas and approvals at
    their highest price. Valued at present reference prices by default; numeraire base units.
    """
    known = with_native(step, reference_prices(step).by_token if prices is None else prices)
    got = (
        leg.min_out_raw * known.get(leg.token_out, Fraction(0))
        for leg in swap_legs(found)
        if leg.sink is LegFunding.WALLET
    )
    return value_sold(found, known) - sum(got, Fraction(0)) + worst_case_gas(step, found, known)


def worst_case_gas(
    step: StepInput, found: Plan, prices: Mapping[str, Price] | None = None
) -> Value:
    """Return the gas part of the worst case."""
    known = with_native(step, reference_prices(step).by_token if prices is None else prices)
    units = ceil_int((found.gas_units + approval_gas_units(step, found)) * native_coin.GAS_MARGIN)
    return units * native_coin.worst_price_wei(step) * known.get(NATIVE, Fraction(0))


def partial_plan_reason(step: StepInput, worst: Value) -> str:
    """Return why only a part is traded now, when the rest follows, and the setting that would allow
    all at once.
    """
    limit_bps, whole = step.limits.daily_loss_bps or 0, _total(step)
    wanted_bps = (
        ceil_int((max(step.history.loss_24h, Fraction(0)) + worst) * BPS / whole / SHOWN_BPS)
        * SHOWN_BPS
        if whole
        else 0
    )
    return (
        f"the worst case of the whole exceeds what {DAILY_LOSS} of {limit_bps / 100:g}% leaves; the"
        " rest follows as the day's losses "
        f'age, and {DAILY_LOSS} = "{wanted_bps / 100:g}%" would allow it in one trade'
    )


def daily_loss_wait_reason(step: StepInput) -> str:
    """Return why no part is traded now."""
    numeraire, lost = step.portfolio.numeraire, step.history.loss_24h
    amounts = (
        value_text(value, numeraire.decimals, 2)
        for value in (lost, (daily_loss_left(step) or Fraction(0)) + lost)
    )
    return (
        f"waits for {DAILY_LOSS}: {' of '.join(amounts)} {numeraire.label} were lost in 24 h; the"
        " next part follows as those losses age"
    )


def value_sold(found: Plan, prices: Mapping[str, Price]) -> Value:
    """Return the value that a plan takes from the wallet, at these prices."""
    given = (
        leg.amount_in_raw * prices.get(leg.token_in, Fraction(0))
        for leg in swap_legs(found)
        if leg.source is LegFunding.WALLET
    )
    return sum(given, Fraction(0))


def swap_legs(found: Plan) -> list[Leg]:
    """Return the legs that exchange tokens, without wrapping and unwrapping of the wallet's native
    coin.
    """
    return [leg for leg in found.legs if leg.venue != NATIVE_VENUE or leg.source is not leg.sink]


def with_native(step: StepInput, prices: Mapping[str, Price]) -> dict[str, Price]:
    """Return the prices with the native coin at its wrapped token's price."""
    return {**prices, NATIVE: prices.get(step.portfolio.wrapped_native, Fraction(0))}


def _total(step: StepInput) -> Value:
    return investable_total(compute_drifts(step, reference_prices(step).by_token))


# --- Schedule of a plan: sent at once, begun as gradual execution, or held until its limit price.


EVEN = SliceDraw(MILLION // 2, MILLION // 2)
"""Draw assumed before one exists: an equal share."""
ScheduledPlan = tuple[DecisionResult, Plan | None]


def schedule_plan(
    step: StepInput, decided: DecisionResult, decision: Rebalance, whole: Plan
) -> ScheduledPlan:
    """Return the decision and its plan by execution.style.

    Exits, manual trades and amounts already approved in this step are never spread over time.
    Approved amounts still obey the limit price and a shared budget.
    """
    pace = step.execution.pace
    if decided.round is not None:
        return _plan_slice(step, decided, whole)
    if (
        pace.style is ExecutionStyle.MARKET
        or decision.exit
        or decision.by_hand
        or step.split is not None
    ):
        return decided, whole
    goal = _reached(decision.goal, whole)
    if pace.style is ExecutionStyle.LIMIT:
        execution = _new_gradual_execution(step, decided, goal, 1)
        return _at_price(step, replace(decided, begins=execution), whole, execution)
    pacing, count = None, 1
    if pace.style is ExecutionStyle.ROUNDS and not step.spend_caps:
        pacing = compare_slice_counts(step, decision, goal, whole, decided.references)
        count = pacing.chosen
    elif not step.spend_caps:
        count = max_slices(step, value_to_move(step, goal, _paced_prices(decided)))
    if count == 1 and (pace.budget_bps is None or prior_budget_use(step) is None):
        return decided, replace(whole, pacing=pacing)
    return _begin_gradual_execution(
        step,
        decided,
        decision,
        replace(whole, pacing=pacing),
        _new_gradual_execution(step, decided, goal, count),
    )


def limit_reached(plan: Plan, prices: Mapping[str, Price], least: Value) -> bool:
    """True if the plan's exact outputs are worth at least `least` at these prices."""
    return _brings(plan, prices) >= least


def with_raised_minimums(plan: Plan, prices: Mapping[str, Price], least: Value) -> Plan:
    """Return the plan with minimums raised to a total of `least` at these prices, so that the chain
    enforces the limit too. Each minimum rises to an equal fraction of its leg's predicted output,
    never above the output and never below its old value. A leg paid out in native coin keeps its
    minimum.
    """
    brings = _brings(plan, prices)
    if brings <= 0:
        return plan
    legs = tuple(
        (
            replace(
                leg,
                min_out_raw=max(
                    leg.min_out_raw,
                    min(leg.amount_out_raw, ceil_int(leg.amount_out_raw * least / brings)),
                ),
            )
            if leg.sink is LegFunding.WALLET and leg.venue != NATIVE_VENUE
            else leg
        )
        for leg in plan.legs
    )
    return replace(plan, legs=legs)


def _begin_gradual_execution(
    step: StepInput,
    decided: DecisionResult,
    decision: Rebalance,
    whole: Plan,
    execution: GradualExecution,
) -> ScheduledPlan:
    """Return the first slice of a gradual execution, decided like each later slice."""
    under = ExecutionProgress(
        "", execution, 0, Fraction(0), Fraction(0), execution.began_s, execution.first
    )
    begun = replace(step, history=replace(step.history, campaign=under))
    found = decide_slice(begun, decided.drifts, _paced_prices(decided))
    if found is None or found.round is None or not isinstance(found.decision, Rebalance):
        why = decision.reason if found is None else f"{decision.reason}; {found.decision.reason}"
        return (
            replace(decided, decision=Hold(why), reviewed=False),
            None,
        )  # a plan that may not begin in slices is not sent at once either
    first = replace(
        decision, reason=f"{decision.reason}; {found.decision.reason}", goal=found.decision.goal
    )
    plan = plan_within_daily_loss(step, first)
    return _plan_slice(
        begun,
        replace(decided, decision=first, round=found.round, begins=execution),
        replace(plan, pacing=whole.pacing),
    )


def _plan_slice(step: StepInput, decided: DecisionResult, plan: Plan) -> ScheduledPlan:
    """Return a slice within the budget; otherwise end the execution."""
    under = step.history.campaign
    if under is None:
        return decided, plan
    begun = under.campaign
    if begun.pace.style is ExecutionStyle.LIMIT:
        return _at_price(step, decided, plan, begun)
    worst = worst_case_loss(step, plan, dict(begun.arrival))
    if begun.budget is None or under.spent + worst <= begun.budget:
        return decided, plan
    why = (
        f"slice {under.done + 1} may cost {_money(step, worst)} at worst;"
        f" {_money(step, under.spent)} of its budget of {format_budget(step, begun)} is spent"
    )
    return (
        replace(
            decided,
            decision=Hold(
                balance_changes.append_excluded(step, f"the gradual execution is over: {why}")
            ),
            round=None,
            ended=why,
            begins=None,
        ),
        None,
    )


def _at_price(
    step: StepInput, decided: DecisionResult, plan: Plan, execution: GradualExecution
) -> ScheduledPlan:
    """Return the plan if it pays enough at the initial prices; else wait."""
    prices = with_native(step, dict(execution.arrival))
    least = value_sold(plan, prices) * Fraction(BPS - execution.pace.limit_bps, BPS)
    if limit_reached(plan, prices, least):
        return decided, with_raised_minimums(plan, prices, least)
    why = (
        f"{decided.decision.reason}; waits for its price: it would yield"
        f" {_money(step, _brings(plan, prices))} and needs {_money(step, least)}, at the prices of"
        f" {format_time(execution.began_s)}, until {format_time(execution.expires_s)}"
    )
    return replace(decided, decision=Hold(why), round=None), None


def _new_gradual_execution(
    step: StepInput, decided: DecisionResult, goal: Goal, count: int
) -> GradualExecution:
    pace, prices, now_s = (
        step.execution.pace,
        _paced_prices(decided),
        step.snapshot.head.timestamp_s,
    )
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
        targets_bps=target_weights(step),
        destination=step.policy.destination,
        goal=goal,
        arrival=tuple(sorted(arrival.items())),
        sides=tuple((token, 1 if lack > 0 else -1) for token, lack in lacks.items() if lack),
        wish=intended_value,
        rounds=count,
        budget=budget_left(pace, intended_value, before),
        began_s=now_s,
        ends_s=ends_s,
        expires_s=expires_s,
        first=step.history.draw or EVEN,
        only=step.policy.only,
        before=before,
    )


def _reached(goal: Goal, whole: Plan) -> Goal:
    """Return the goal of a gradual execution; for a zone, the weights of its plan, since going
    further does not pay.
    """
    if goal.risk is None:
        return goal
    return Goal(
        tuple(
            GoalWeight(token, Fraction(bps, BPS), Fraction(bps, BPS))
            for token, bps in whole.weights_after_bps
        )
    )


def _brings(plan: Plan, prices: Mapping[str, Price]) -> Value:
    return sum(
        (
            leg.amount_out_raw * prices.get(leg.token_out, Fraction(0))
            for leg in swap_legs(plan)
            if leg.sink is LegFunding.WALLET
        ),
        Fraction(0),
    )


def _paced_prices(decided: DecisionResult) -> dict[str, Price]:
    return decided.references.by_token


def _money(step: StepInput, value: Value) -> str:
    numeraire = step.portfolio.numeraire
    return f"{value_text(value, numeraire.decimals, 2)} {numeraire.label}"


def limit_swap(
    step: StepInput, token_in: str, token_out: str, amount_in_raw: int, price: Fraction
) -> tuple[Plan | None, str]:
    """Return a manual swap at `price` or better with minimums to match; else None and why it waits.

    `price` is base units of `token_out` per base unit of `token_in`, against the exact output with
    fees and impact. Raises KnownTicksExceeded if more ticks of its pools might give it.
    """
    try:
        plan = planner.plan_swap(step, token_in, token_out, amount_in_raw)
    except KnownTicksExceeded as end:
        raise KnownTicksExceeded(
            f"it cannot be planned now: {end.message}", end.verdicts[0], end.remedy, end.pools
        ) from None
    except Refused as refusal:
        return None, f"it cannot be planned now: {refusal.message}"
    units = {
        token_out: Fraction(1),
        **({NATIVE: Fraction(1)} if token_out == step.portfolio.wrapped_native else {}),
    }
    least = amount_in_raw * price
    if limit_reached(plan, units, least):
        return with_raised_minimums(plan, units, least), ""
    why = (
        "its price is"
        f" {_shown(_brings(plan, units) / amount_in_raw, step, token_in, token_out)} now"
    )
    if pools := plan_pools_out_of_ticks(step, plan.legs):
        raise KnownTicksExceeded(
            why, Verdict("known_ticks", "all that were read", "more of them", False), "", pools
        )
    return None, why


def _shown(price: Fraction, step: StepInput, token_in: str, token_out: str) -> str:
    from_, to = step.portfolio.token(token_in), step.portfolio.token(token_out)
    return f"{price_text(price, from_.decimals, to.decimals)} {to.label} per {from_.label}"
