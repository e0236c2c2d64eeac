"""Planner: from a goal to swaps, pools, order, cost and floors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

from agent.errors import ErrorCode, Refused
from agent.model import (
    Goal,
    Leg,
    Plan,
    Portfolio,
    Rebalance,
    RiskCostTradeoff,
    SkippedItem,
    StepInput,
    TrackingRisk,
    Verdict,
)
from agent.planning.plan_builder import (
    LOCKED,
    MIN_TRADE,
    PLAN_COST,
    assemble_plan,
    gap_bps,
    skipped_items,
)
from agent.planning.problem import PoolGraph, Problem, build_pool_graph, build_problem
from agent.planning.rounding import PlanDraft
from agent.planning.solver.fixed_point import (
    DUST,
    FixedPoint,
    find_fixed_point,
    sell_exits_whole,
    worth_of,
)
from agent.planning.solver.search import OVER_COST
from agent.planning.solver.utility import (
    PlanObjective,
    leaving_tokens,
    objective_for_exit,
    objective_for_goal,
    turnover_left,
)
from agent.planning.swaps import Quote, plan_swap, quote
from agent.planning.why_not import coarse_tokens
from agent.policy.minimum import APPROVAL_GAS, LEG_GAS
from agent.policy.risk import penalty
from agent.reference import ReferencePrices, reference_prices
from agent.units import BPS, PIPS, Value, value_text

# --- Evaluation of a zone's plan: the risk that it removes against its cost.


def zone_saving(
    problem: Problem, goal: Goal, risk: TrackingRisk, found: Plan, delta: Mapping[str, int]
) -> RiskCostTradeoff:
    """Return the risk that `found` saves over the horizon at reference prices, and its costs,
    missing approvals included.

    `delta` is the change of each token by its swaps in base units, native coin counted as its
    wrapped token.
    """
    before = {node.address: node.value for node in problem.assets}
    after = {
        token: value + delta.get(token, 0) * problem.price(token) for token, value in before.items()
    }
    cost = found.cost
    return RiskCostTradeoff(
        before=_penalty(problem, goal, risk, before),
        after=_penalty(problem, goal, risk, after),
        fees=cost.fees,
        impact=cost.impact,
        skew=cost.skew,
        gas=cost.gas,
        approvals=cost.approvals,
    )


def _penalty(problem: Problem, goal: Goal, risk: TrackingRisk, values: dict[str, Value]) -> Value:
    tokens = [weight.token for weight in goal.weights]
    return penalty(
        risk,
        tokens,
        [weight.low for weight in goal.weights],
        [values[token] for token in tokens],
        problem.total,
    )


# --- Plans beyond the drift: pool prices above the reference are no reason to trade (T9).


HAIR = Fraction(1, 100_000)
"""Tolerance for the float error of a goal, as a fraction of the portfolio (a tenth of a basis
point).
"""
CHURN = Fraction(105, 100)
"""Turnover allowed per unit of corrected drift and of gain."""


def overshoot_reason(problem: Problem, objective: PlanObjective, draft: PlanDraft) -> str:
    """Return how a draft goes beyond correcting the drift, in exact numbers; empty if it does not.

    A draft goes beyond if it sells a token below its goal's low share of the final total, or buys
    one above its high share (a token that was beyond its goal may stay there), or if it gains and
    turns over more than drift plus gain. Always empty in a zone, because correlated tokens may
    cross their targets and offset each other.
    """
    if objective.risk is not None:
        return ""
    before = [node.value for node in problem.nodes]
    after = [node.value + draft.delta.get(node.address, 0) * node.price for node in problem.nodes]
    total = sum(after, Fraction(0))
    slack = total * HAIR + sum(
        (problem.price(leg.token_in) + problem.price(leg.token_out) for leg in draft.legs),
        Fraction(0),
    )
    low = [Fraction(share) for share in objective.low.tolist()]
    high = [Fraction(share) for share in objective.high.tolist()]
    passed = [
        node.label
        for node, start, end, least, most in zip(
            problem.nodes, before, after, low, high, strict=True
        )
        if node.is_asset
        and not min(start, least * total) - slack <= end <= max(start, most * total) + slack
    ]
    if passed:
        return f"move {' and '.join(passed)} past its goal"
    found = total - sum(before, Fraction(0))
    corrected = _off(before, low, high) - _off(after, low, high)
    if found > 0 and draft.turnover(problem) > CHURN * (corrected + found) + slack:
        return "turn over more than the drift"
    return ""


def _off(values: Sequence[Value], low: Sequence[Fraction], high: Sequence[Fraction]) -> Value:
    """Return the value to move: the deviation beyond the goals on the larger side."""
    total = sum(values, Fraction(0))
    above = sum(
        (max(Fraction(0), value - most * total) for value, most in zip(values, high, strict=True)),
        Fraction(0),
    )
    below = sum(
        (max(Fraction(0), least * total - value) for value, least in zip(values, low, strict=True)),
        Fraction(0),
    )
    return max(above, below)


def best_paying(problem: Problem, draft: PlanDraft, too_far: str) -> tuple[str, str]:
    """Return the pool of the best paying leg at reference prices, and the reason to exclude it:
    with it the plan goes `too_far`.
    """

    def rate(leg: Leg) -> Fraction:
        return (
            leg.amount_out_raw
            * problem.price(leg.token_out)
            / (leg.amount_in_raw * problem.price(leg.token_in))
        )

    best = max(draft.legs, key=rate)
    if rate(best) > 1:
        why = "pays above the reference price"
    else:
        why = "exchanges too few base units to hit a goal"
    return best.pool, f"{why}: with it the plan would {too_far}"


# --- One-sided goals: tokens that must not move, and tokens that a draft moves the wrong way.


NOT_TRADABLE = "policy.only leaves it as it is"


def untradable_tokens(problem: Problem, goal: Goal) -> dict[int, str]:
    """Return tokens that are neither sold nor bought, by position, with the reason."""
    kept = set(goal.unsold) & set(goal.unbought)
    return {
        position: NOT_TRADABLE
        for position, node in enumerate(problem.nodes)
        if node.address in kept
    }


def wrong_side_tokens(problem: Problem, goal: Goal, draft: PlanDraft) -> dict[int, str]:
    """Return the tokens, by position, that a draft trades against the goal's `unsold` or
    `unbought`; they must not move.

    The search may violate these bounds slightly, through float error or pool gains that it did
    not count; this check is exact.
    """
    wrong = {token for token in goal.unsold if draft.delta.get(token, 0) < 0}
    wrong |= {token for token in goal.unbought if draft.delta.get(token, 0) > 0}
    return {
        position: NOT_TRADABLE
        for position, node in enumerate(problem.nodes)
        if node.address in wrong
    }


__all__ = ["NothingPlanned", "Quote", "plan", "plan_swap", "quote"]


COARSE_LOSS = 1e-4
"""Least loss of a swap to whole units, per unit of drift, for a search that leaves it out."""
TIGHTER = 6
"""Maximum number of times that a zone's bound on a swap's unit cost is tightened."""
SHRINK = Fraction(19, 20)
"""Largest factor of one tightening."""
NEARLY = Fraction(5, 4)
"""Multiple of the gas that has to fit within limits.plan_cost; the margin is for impact."""


class NothingPlanned(Refused):
    """No move is possible or worth its cost within the limits. `kept_by` names the cost or size
    limit, or LOCKED, if that is the only obstacle, which makes the result a hold instead of a
    refusal; empty otherwise. `drift` is the value that would have to move, numeraire base units,
    `off` the assets off target with their reasons.
    """

    def __init__(
        self,
        message: str,
        verdicts: Sequence[Verdict] = (),
        remedy: str = "",
        kept_by: str = "",
        drift: Value = Fraction(0),
        off: Sequence[SkippedItem] = (),
    ) -> None:
        super().__init__(message, verdicts, remedy)
        self.kept_by, self.drift, self.off = kept_by, drift, tuple(off)


def plan(
    step: StepInput,
    decision: Rebalance,
    references: ReferencePrices | None = None,
    *,
    most: tuple[Value, str] | None = None,
    between: Collection[str] = (),
) -> Plan:
    """Return the swaps towards the decision's goal within all bounds; `skipped` has every part that
    does not fit.

    A zone's plan has its saving and cost; the caller decides if it is worthwhile. `references`
    replace the prices of the step's own pools, for a simulated step. `most` bounds the plan's
    turnover, with the name of that limit. `between` restricts the pools to those between these
    tokens. Raises Refused with verdicts if no sensible plan exists: a price or balance is missing,
    the day's turnover is used up, or every move is dust, above plan_cost, or without a route.
    """
    problem = build_problem(step, references or reference_prices(step))
    if between:
        problem = problem.with_pools_between(between)
    if problem.total <= 0:
        raise Refused(
            "nothing to invest: every balance is zero or reserved",
            remedy="fund the wallet or lower the reserves",
            code=ErrorCode.EMPTY,
        )
    objective = objective_for_goal(problem, decision.goal)
    problem = replace(problem, leaving=leaving_tokens(problem, decision.goal))
    into = problem.position[step.portfolio.numeraire.address]
    if decision.exit:
        objective = objective_for_exit(objective, into)
        problem = replace(problem, ranges={})  # floors of exits: reference.price_ranges
    budget, turnover_limit = (
        (None, "") if decision.exit else turnover_left(step, problem.total, decision.apart)
    )
    # approved amounts were sized by that limit
    asks = budget is not None and not step.progress.spend_caps
    if most is not None and (budget is None or most[0] < budget):
        budget, turnover_limit, asks = *most, False
    if decision.exit:
        at_rest = _at_rest(step.portfolio, problem, objective)
    else:
        at_rest = untradable_tokens(problem, decision.goal)
    market, settled = _within_plan_cost(
        problem, objective, decision.goal, budget, step.limits.min_trade, at_rest
    )
    if decision.exit:
        settled = sell_exits_whole(market, settled, into, step.limits.min_trade)
    free = None
    if asks and (settled.bounded or not settled.draft.legs or DUST in settled.unmoved.values()):
        with suppress(Refused):  # only used to report the binding bound
            free = _within_plan_cost(
                problem, objective, decision.goal, None, step.limits.min_trade, at_rest
            )
    skipped = skipped_items(step, market, objective, settled, turnover_limit, free)
    if not settled.draft.legs:
        if budget is not None and free is not None and free[1].draft.legs:
            bound = (turnover_limit, budget)
        else:
            bound = None
        raise _nothing(step, problem, objective.off, skipped, bound)
    if decision.exit and not {one.what for one in skipped} & {
        node.label for node in problem.assets if node.address != step.portfolio.numeraire.address
    }:
        skipped = [
            skipped_item
            for skipped_item in skipped
            if skipped_item.what != step.portfolio.numeraire.label
        ]  # the numeraire is off target only by the exit's cost
    found = assemble_plan(
        step, problem, decision, settled.draft, skipped, gap_bps(market, objective, settled, budget)
    )
    risk = decision.goal.risk
    if risk is None:
        return found
    return replace(
        found, saving=zone_saving(problem, decision.goal, risk, found, settled.draft.delta)
    )


def _at_rest(portfolio: Portfolio, problem: Problem, objective: PlanObjective) -> dict[int, str]:
    """Return the tokens that an exit does not trade, by position: all on target, except the
    numeraire, for which it sells.
    """
    total, numeraire = float(problem.total), portfolio.numeraire.address
    within = (objective.low * total <= objective.held) & (objective.held <= objective.high * total)
    return {
        position: "an exit trades no other token"
        for position, node in enumerate(problem.nodes)
        if node.is_asset and node.address != numeraire and within[position]
    }


def _within_plan_cost(
    problem: Problem,
    objective: PlanObjective,
    goal: Goal,
    budget: Fraction | None,
    min_trade: Fraction | None,
    unmoved: Mapping[int, str],
) -> tuple[PoolGraph, FixedPoint]:
    """Return the best result of the iteration within plan_cost. Where swaps may lose COARSE_LOSS to
    whole units, it is also run without that loss, which may cost a pool that is worth it. If pools
    are dropped for plan_cost, coarse tokens are left unmoved while that improves the result.
    """
    terms = (problem, objective, goal, budget, min_trade)
    market, best, dropped = _one_within_plan_cost(*terms, unmoved)
    if max((edge.offer.lost for edge in market.pool_edges), default=0.0) > COARSE_LOSS:
        with suppress(Refused):
            _, settled, less = _one_within_plan_cost(*terms, unmoved, counts_units=False)
            if worth_of(market, objective, settled.draft) > worth_of(market, objective, best.draft):
                best, dropped = settled, less
    for token, why in coarse_tokens(problem).items() if dropped else ():
        if token in best.unmoved:
            continue
        left = {**unmoved, token: why}
        try:
            other, settled, _ = _one_within_plan_cost(*terms, left)
        except Refused:
            continue
        if worth_of(other, objective, settled.draft) > worth_of(market, objective, best.draft):
            market, best, unmoved = other, settled, left
    return market, best


def _one_within_plan_cost(
    problem: Problem,
    objective: PlanObjective,
    goal: Goal,
    budget: Fraction | None,
    min_trade: Fraction | None,
    unmoved: Mapping[int, str],
    *,
    counts_units: bool = True,
) -> tuple[PoolGraph, FixedPoint, bool]:
    """Return the result of the iteration within plan_cost, and whether pools were dropped for it.
    While the plan with its gas costs more per unit moved, a pool of the most expensive sequence of
    swaps is dropped; while the plan goes beyond the drift, the best paying pool. In a zone no unit
    of a single swap costs more than plan_cost, but a sequence of swaps may, so that bound is
    tightened first. Tokens in `unmoved` (by position, with the reason) stay unmoved.
    """
    scale, limit_bps = max(objective.off, float(problem.total) / BPS), problem.plan_cost_bps
    if objective.risk is None or limit_bps is None:
        dearest = None
    else:
        dearest = Fraction(limit_bps, BPS)
    market = build_pool_graph(problem, scale, dearest, counts_units=counts_units)
    tighter = 0
    dropped: dict[str, str] = {}
    while True:
        settled = find_fixed_point(market, objective, budget, min_trade, dropped, unmoved)
        wrong = wrong_side_tokens(problem, goal, settled.draft)
        if wrong.keys() - unmoved.keys():
            unmoved = {**unmoved, **wrong}
            continue
        too_far = overshoot_reason(problem, objective, settled.draft)
        if too_far:
            pool, why = best_paying(problem, settled.draft, too_far)
            dropped[pool] = why
            continue
        cost, moved = settled.draft.cost(problem), settled.draft.turnover(problem)
        if limit_bps is None or cost.total * BPS <= limit_bps * moved:
            return market, settled, bool(dropped)
        gas = cost.gas + cost.approvals
        left, swaps = Fraction(limit_bps, BPS) * moved - gas, cost.total - gas
        if dearest is not None and tighter < TIGHTER and 0 < left < swaps:
            dearest = (dearest * min(left / swaps, SHRINK)).limit_denominator(10**9)
            tighter = tighter + 1
            market = build_pool_graph(problem, scale, dearest, counts_units=counts_units)
        else:
            dropped[_dearest(problem, settled.draft)] = f"{OVER_COST} of {limit_bps} bps"


def _dearest(problem: Problem, draft: PlanDraft) -> str:
    """Return a pool of the sequence of swaps with the highest cost per unit moved, gas included:
    the pool that the fewest legs of the plan use.
    """

    def per_unit(chain: list[int]) -> Fraction:
        first, last = draft.legs[chain[0]], draft.legs[chain[-1]]
        given = first.amount_in_raw * problem.price(first.token_in)
        got = last.amount_out_raw * problem.price(last.token_out)
        return (
            given
            - got
            + sum(draft.leg_gas[leg] for leg in chain) * problem.gas_unit_value
            + len(chain) * problem.leg_data_fee
        ) / given

    uses = Counter(leg.pool for leg in draft.legs)
    worst = max(draft.chains(), key=per_unit)
    return min((draft.legs[leg].pool for leg in worst), key=lambda pool: uses[pool])


def _nothing(
    step: StepInput,
    problem: Problem,
    drift: float,
    skipped: list[SkippedItem],
    bound: tuple[str, Value] | None,
) -> NothingPlanned:
    """Return the refusal of a plan without legs, with its limits; `bound` is the binding turnover
    limit and its remainder.
    """
    numeraire, limits = step.portfolio.numeraire, step.limits
    amount = f"{value_text(Fraction(round(drift)), numeraire.decimals, 2)} {numeraire.label}"
    verdicts = []
    if limits.min_trade is not None:
        least = f"{value_text(limits.min_trade, numeraire.decimals, 2)} {numeraire.label}"
        verdicts.append(
            Verdict("min_trade", f"{amount} to move", least, Fraction(drift) >= limits.min_trade)
        )
    if problem.plan_cost_bps is not None:
        verdicts.append(
            Verdict("plan_cost", "no cheaper route", f"{problem.plan_cost_bps} bps", False)
        )
    reasons = "; ".join(f"{item.what}: {item.why}" for item in skipped) or "holdings are on target"
    if bound is not None:
        left = f"{value_text(bound[1], numeraire.decimals, 2)} {numeraire.label}"
        return NothingPlanned(
            f"nothing to trade of a drift of {amount}: {bound[0]} leaves {left}, "
            f"which is too little for a trade; {reasons}",
            (Verdict(bound[0].removeprefix("limits."), f"{amount} to move", left, False),),
            f"raise {bound[0]}, or wait until the last day's trades are 24 h old",
            drift=Fraction(round(drift)),
        )
    return NothingPlanned(
        f"nothing to trade of a drift of {amount}: {reasons}",
        verdicts,
        "see the reasons; trimtab status shows the drift of each asset",
        _kept_by(problem, skipped, drift),
        Fraction(round(drift)),
        [
            item
            for item in skipped
            if item.what in {node.label for node in problem.assets} - {numeraire.label}
        ],
    )


def _kept_by(problem: Problem, skipped: Sequence[SkippedItem], drift: float) -> str:
    """Return the limit of cost or size that alone blocks every asset off target, or LOCKED if there
    is no other excess to sell; empty if anything else does.
    """
    kept = {item.what: item.kept_by for item in skipped}
    found = {node: kept[node.label] for node in problem.assets if node.label in kept}
    large = [node.address for node, why in found.items() if why not in (MIN_TRADE, LOCKED)]
    if large and _too_dear(problem, large, Fraction(round(drift))):
        return PLAN_COST
    if not found or not all(found.values()):
        return ""
    if LOCKED in found.values():
        return LOCKED
    if PLAN_COST in found.values():
        return PLAN_COST
    return MIN_TRADE


def _too_dear(problem: Problem, off: Sequence[str], drift: Value) -> bool:
    """True if gas and pool fees alone come close to limits.plan_cost, so that no market price would
    justify the trade.
    """
    if problem.plan_cost_bps is None:
        return False
    fees = [
        min(
            (pool.fee_pips for pool in problem.pools.values() if one in (pool.token0, pool.token1)),
            default=0,
        )
        for one in off
    ]
    room = drift * (Fraction(problem.plan_cost_bps, BPS) - Fraction(max(fees), PIPS))
    return room < NEARLY * (max(1, len(off) - 1) * LEG_GAS + APPROVAL_GAS) * problem.gas_unit_value
