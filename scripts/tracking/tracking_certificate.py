"""Certificates of plans of the tracking rule, for scripts/bench/bench_tracking.py.

Markets of two to six assets at the reference prices, drifts of up to 70 % of the targets, class figures,
any strictness and gas of 0.01 to 20 gwei. In every second market each asset has one pool with the
numeraire, as in a backtest; in the others up to 16 pools are between any tokens. Each plan's gap is
compared with what other plans reach: for other weights of the risk, and for half of the turnover. A
plan is worth its value after fees and impact less risk and the least gas of its swaps, as the
certificate counts it, and costs at most limits.plan_cost, as all plans do. No other plan may be worth
more than plan and gap together.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import STRICTNESS_COST_BPS, Destination, Plan, Rebalance, StepInput
from agent.planning.planner import plan
from agent.planning.problem import build_pool_graph, build_problem
from agent.planning.solver.utility import objective_for_goal
from agent.policy.decide import decide
from agent.policy.risk_estimates import complete_risk
from agent.policy.triggers.no_trade_zone import build_tracking
from agent.reference import reference_prices
from agent.units import BPS, Value
from tests.support.builders import step_input, with_limits, with_snapshot
from tests.support.planning_worlds import PRICES, SYMBOLS, random_pools

RISK_FACTORS = (Fraction(4, 5), Fraction(49, 50), Fraction(51, 50), Fraction(5, 4))
"""Factors on λ of the plans to compare with."""
PORTFOLIO_USD = 100_000
MAX_DRIFT = 0.7
FLOAT_TOLERANCE = Fraction(1, 10**10)
"""Share of the portfolio that the float error of a risk may be worth."""


@dataclass(frozen=True)
class Certificate:
    """Gap of a plan, and how far the best other plan is above plan and gap; zero if none is.
    `base_units_bps` is what one base unit of each token of each swap is worth: amounts are whole base
    units, so that a gap below it may be of no better plan. All in bps of the turnover.
    """

    gap_bps: Fraction
    missing_bps: Fraction
    base_units_bps: Fraction


def tracking_step(seed: int) -> StepInput:
    """Return the step of that number, with the tracking rule as trigger."""
    dice = random.Random(f"certificate {seed}")
    count = dice.randint(2, 6)
    symbols = SYMBOLS[:count]
    target_bps = dict.fromkeys(symbols, BPS // count)
    target_bps[symbols[0]] += BPS - sum(target_bps.values())
    values = {
        symbol: Fraction(
            PORTFOLIO_USD * bps / BPS * (1 + dice.uniform(-MAX_DRIFT, MAX_DRIFT))
        ).limit_denominator(100)
        for symbol, bps in target_bps.items()
    }
    depth = 10 ** dice.uniform(5.5, 7.5)
    if seed % 2:
        pools = random_pools(dice, symbols, dice.randint(count, 16), depth, 0.0)
    else:
        pools = tuple(
            pool
            for symbol in symbols[1:]
            for pool in random_pools(dice, (symbols[0], symbol), 1, depth, 0.0)
        )
    trigger = build_tracking(dice.choice(list(STRICTNESS_COST_BPS)))
    step = step_input(
        target_bps, values, PRICES, pools=pools, trigger=trigger, destination=Destination.ZONE
    )
    step = with_limits(step, turnover_bps=None, daily_turnover_bps=None, min_trade=None)
    base_fee_wei = int(10 ** dice.uniform(7, 10.3))
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=base_fee_wei))
    return complete_risk(step)


def certificates(seeds: Iterable[int]) -> Iterator[Certificate]:
    """Yield the certificates of the plans of those steps that fire."""
    for seed in seeds:
        step = tracking_step(seed)
        decision = decide(step).decision
        if not isinstance(decision, Rebalance):
            continue
        rule_plan = _plan_or_none(step, decision)
        if rule_plan is not None and rule_plan.gap_bps is not None:
            yield _certificate(step, decision, rule_plan, rule_plan.gap_bps)


def _certificate(
    step: StepInput, decision: Rebalance, rule_plan: Plan, gap_bps: Fraction
) -> Certificate:
    other_plans = [
        _plan_or_none(step, _with_risk_factor(decision, risk_factor))
        for risk_factor in RISK_FACTORS
    ]
    other_plans.append(_plan_or_none(step, decision, rule_plan.turnover / 2))
    worths = [
        _worth(step, decision, other_plan) for other_plan in (rule_plan, *other_plans) if other_plan
    ]
    problem = build_problem(step, reference_prices(step))
    basis = max(rule_plan.turnover, problem.total / BPS)
    excess = max(worths) - worths[0] - FLOAT_TOLERANCE * problem.total
    base_units_value = sum(
        (problem.price(leg.token_in) + problem.price(leg.token_out) for leg in rule_plan.legs),
        Fraction(0),
    )
    return Certificate(
        gap_bps,
        max(Fraction(0), excess / basis * BPS - gap_bps),
        base_units_value / basis * BPS,
    )


def _with_risk_factor(decision: Rebalance, risk_factor: Fraction) -> Rebalance:
    """Return the decision with another price of risk."""
    risk = decision.goal.risk
    if risk is None:
        return decision
    goal = replace(decision.goal, risk=replace(risk, cost_bps=risk.cost_bps * risk_factor))
    return replace(decision, goal=goal)


def _plan_or_none(
    step: StepInput, decision: Rebalance, max_turnover: Value | None = None
) -> Plan | None:
    """Return the plan; None without one."""
    turnover_cap = None if max_turnover is None else (max_turnover, "half")
    try:
        return plan(step, decision, turnover_cap=turnover_cap)
    except Refused:
        return None


def _worth(step: StepInput, decision: Rebalance, swap_plan: Plan) -> Fraction:
    """Return the utility after a plan less its least gas, numeraire base units."""
    problem = build_problem(step, reference_prices(step))
    objective = objective_for_goal(problem, decision.goal)
    scale = max(objective.value_off_goal, float(problem.total) / BPS)
    graph = build_pool_graph(problem, scale)
    raw_after = dict(swap_plan.holdings_after)
    values_after = [
        raw_after.get(node.address, 0) * node.price / Fraction(scale) for node in problem.nodes
    ]
    used_directions = {(leg.pool, problem.index_by_token[leg.token_in]) for leg in swap_plan.legs}
    utility = objective.utility(scale, {}).exact_utility_of(values_after)
    return (utility - Fraction(graph.least_gas(used_directions))) * Fraction(scale)
