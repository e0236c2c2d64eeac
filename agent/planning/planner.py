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
    BELOW_MIN_TRADE,
    FixedPoint,
    find_fixed_point,
    net_utility,
    sell_exits_whole,
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

__all__ = ["NothingPlanned", "Quote", "plan", "plan_swap", "quote"]

# --- Evaluation of a zone's plan: the risk that it removes against its cost.


def zone_saving(
    problem: Problem, goal: Goal, risk: TrackingRisk, planned: Plan, delta_raw: Mapping[str, int]
) -> RiskCostTradeoff:
    """Return the risk that `planned` saves over the horizon at reference prices, and its costs,
    missing approvals included.

    `delta_raw` is the change of each token by its swaps in base units, native coin counted as its
    wrapped token.
    """
    values_before = {node.address: node.value for node in problem.assets}
    values_after = {
        token: value + delta_raw.get(token, 0) * problem.price(token)
        for token, value in values_before.items()
    }
    cost = planned.cost
    return RiskCostTradeoff(
        before=_penalty(problem, goal, risk, values_before),
        after=_penalty(problem, goal, risk, values_after),
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


GOAL_TOLERANCE = Fraction(1, 100_000)
"""Tolerance for the float error of a goal, as a fraction of the portfolio (a tenth of a basis
point).
"""
TURNOVER_PER_DRIFT = Fraction(105, 100)
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
    values_before = [node.value for node in problem.nodes]
    values_after = [
        node.value + draft.delta_raw.get(node.address, 0) * node.price for node in problem.nodes
    ]
    total = sum(values_after, Fraction(0))
    slack = total * GOAL_TOLERANCE + sum(
        (problem.price(leg.token_in) + problem.price(leg.token_out) for leg in draft.legs),
        Fraction(0),
    )
    low = [Fraction(share) for share in objective.low.tolist()]
    high = [Fraction(share) for share in objective.high.tolist()]
    past_goal = [
        node.label
        for node, start, end, low_share, high_share in zip(
            problem.nodes, values_before, values_after, low, high, strict=True
        )
        if node.is_asset
        and not min(start, low_share * total) - slack
        <= end
        <= max(start, high_share * total) + slack
    ]
    if past_goal:
        return f"move {' and '.join(past_goal)} past its goal"
    gain = total - sum(values_before, Fraction(0))
    corrected = _deviation(values_before, low, high) - _deviation(values_after, low, high)
    if gain > 0 and draft.turnover(problem) > TURNOVER_PER_DRIFT * (corrected + gain) + slack:
        return "turn over more than the drift"
    return ""


def _deviation(values: Sequence[Value], low: Sequence[Fraction], high: Sequence[Fraction]) -> Value:
    """Return the value to move: the deviation beyond the goals on the larger side."""
    total = sum(values, Fraction(0))
    above = sum(
        (
            max(Fraction(0), value - high_share * total)
            for value, high_share in zip(values, high, strict=True)
        ),
        Fraction(0),
    )
    below = sum(
        (
            max(Fraction(0), low_share * total - value)
            for value, low_share in zip(values, low, strict=True)
        ),
        Fraction(0),
    )
    return max(above, below)


def best_paying_pool(problem: Problem, draft: PlanDraft, overshoot: str) -> tuple[str, str]:
    """Return the pool of the best paying leg at reference prices, and the reason to exclude it:
    with it the plan would do what `overshoot` says, such as "move WETH past its goal".
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
    return best.pool, f"{why}: with it the plan would {overshoot}"


# --- One-sided goals: tokens that must not move, and tokens that a draft moves the wrong way.


NOT_TRADABLE = "policy.only leaves it as it is"


def untradable_tokens(problem: Problem, goal: Goal) -> dict[int, str]:
    """Return tokens that are neither sold nor bought, by index, with the reason."""
    untradable = set(goal.unsold) & set(goal.unbought)
    return {
        index: NOT_TRADABLE
        for index, node in enumerate(problem.nodes)
        if node.address in untradable
    }


def wrong_side_tokens(problem: Problem, goal: Goal, draft: PlanDraft) -> dict[int, str]:
    """Return the tokens, by index, that a draft trades against the goal's `unsold` or
    `unbought`; they must not move.

    The search may violate these bounds slightly, through float error or pool gains that it did
    not count; this check is exact.
    """
    traded_wrongly = {token for token in goal.unsold if draft.delta_raw.get(token, 0) < 0}
    traded_wrongly |= {token for token in goal.unbought if draft.delta_raw.get(token, 0) > 0}
    return {
        index: NOT_TRADABLE
        for index, node in enumerate(problem.nodes)
        if node.address in traded_wrongly
    }


COARSE_LOSS = 1e-4
"""Loss of a swap to whole base units, per unit of drift, above which a second search ignores such
losses.
"""
MAX_TIGHTENINGS = 6
"""Maximum number of times that a zone's bound on a swap's unit cost is tightened."""
MAX_TIGHTENING_FACTOR = Fraction(19, 20)
"""Largest factor by which one tightening multiplies the bound: each lowers it by at least 5 %."""
GAS_MULTIPLE = Fraction(5, 4)
"""Multiple of the gas that has to fit within limits.plan_cost; the margin is for impact."""


class NothingPlanned(Refused):
    """No move is possible or worth its cost within the limits. `kept_by` names the cost or size
    limit, or LOCKED, if that is the only obstacle, which makes the result a hold instead of a
    refusal; empty otherwise. `drift` is the value that would have to move, numeraire base units,
    `off_target` the assets off target with their reasons.
    """

    def __init__(
        self,
        message: str,
        verdicts: Sequence[Verdict] = (),
        remedy: str = "",
        kept_by: str = "",
        drift: Value = Fraction(0),
        off_target: Sequence[SkippedItem] = (),
    ) -> None:
        super().__init__(message, verdicts, remedy)
        self.kept_by, self.drift, self.off_target = kept_by, drift, tuple(off_target)


def plan(
    step: StepInput,
    decision: Rebalance,
    references: ReferencePrices | None = None,
    *,
    turnover_cap: tuple[Value, str] | None = None,
    between: Collection[str] = (),
) -> Plan:
    """Return the swaps towards the decision's goal within all bounds; `skipped` has every part that
    does not fit.

    A zone's plan has its saving and cost; the caller decides if it is worthwhile. `references`
    replace the prices of the step's own pools, for a simulated step. `turnover_cap` is the largest
    turnover of the plan, with the name of the limit that sets it. `between` restricts the pools to
    those between these tokens. Raises Refused with verdicts if no sensible plan exists: a price or
    balance is missing, the day's turnover is used up, or every move is dust, above plan_cost, or
    without a route.
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
    numeraire_index = problem.index_by_token[step.portfolio.numeraire.address]
    if decision.exit:
        objective = objective_for_exit(objective, numeraire_index)
        problem = replace(problem, ranges={})  # floors of exits: reference.price_ranges
    budget, turnover_limit = (
        (None, "") if decision.exit else turnover_left(step, problem.total, decision.apart)
    )
    # once amounts are approved, the turnover limit that sized them is not reported again
    is_limit_reportable = budget is not None and not step.progress.spend_caps
    if turnover_cap is not None and (budget is None or turnover_cap[0] < budget):
        budget, turnover_limit, is_limit_reportable = *turnover_cap, False
    if decision.exit:
        unmoved = _unmoved_by_exit(step.portfolio, problem, objective)
    else:
        unmoved = untradable_tokens(problem, decision.goal)
    graph, fixed_point = _within_plan_cost(
        problem, objective, decision.goal, budget, step.limits.min_trade, unmoved
    )
    if decision.exit:
        fixed_point = sell_exits_whole(graph, fixed_point, numeraire_index, step.limits.min_trade)
    unlimited = None
    if is_limit_reportable and (
        fixed_point.turnover_binds
        or not fixed_point.draft.legs
        or BELOW_MIN_TRADE in fixed_point.unmoved.values()
    ):
        with suppress(Refused):  # only used to report the binding bound
            unlimited = _within_plan_cost(
                problem, objective, decision.goal, None, step.limits.min_trade, unmoved
            )
    skipped = skipped_items(step, graph, objective, fixed_point, turnover_limit, unlimited)
    if not fixed_point.draft.legs:
        if budget is not None and unlimited is not None and unlimited[1].draft.legs:
            binding_limit = (turnover_limit, budget)
        else:
            binding_limit = None
        raise _nothing_planned(step, problem, objective.off_goal, skipped, binding_limit)
    if decision.exit and not {item.what for item in skipped} & {
        node.label for node in problem.assets if node.address != step.portfolio.numeraire.address
    }:
        skipped = [
            item for item in skipped if item.what != step.portfolio.numeraire.label
        ]  # the numeraire is off target only by the exit's cost
    planned = assemble_plan(
        step,
        problem,
        decision,
        fixed_point.draft,
        skipped,
        gap_bps(graph, objective, fixed_point, budget),
    )
    risk = decision.goal.risk
    if risk is None:
        return planned
    return replace(
        planned,
        saving=zone_saving(problem, decision.goal, risk, planned, fixed_point.draft.delta_raw),
    )


def _unmoved_by_exit(
    portfolio: Portfolio, problem: Problem, objective: PlanObjective
) -> dict[int, str]:
    """Return the tokens that an exit does not trade, by index: all on target, except the
    numeraire, for which it sells.
    """
    total, numeraire = float(problem.total), portfolio.numeraire.address
    on_target = (objective.low * total <= objective.held) & (
        objective.held <= objective.high * total
    )
    return {
        index: "an exit trades no other token"
        for index, node in enumerate(problem.nodes)
        if node.is_asset and node.address != numeraire and on_target[index]
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
    whole units, it is run again with that loss ignored, because counting it may exclude a pool that
    is worth using. If pools are dropped for plan_cost, coarse tokens are left unmoved while that
    improves the result.
    """
    arguments = (problem, objective, goal, budget, min_trade)
    graph, best, has_dropped = _iterate_within_plan_cost(*arguments, unmoved)
    if max((edge.curves.rounding_loss for edge in graph.pool_edges), default=0.0) > COARSE_LOSS:
        with suppress(Refused):
            _, fixed_point, also_drops = _iterate_within_plan_cost(
                *arguments, unmoved, counts_units=False
            )
            if net_utility(graph, objective, fixed_point.draft) > net_utility(
                graph, objective, best.draft
            ):
                best, has_dropped = fixed_point, also_drops
    for token, why in coarse_tokens(problem).items() if has_dropped else ():
        if token in best.unmoved:
            continue
        more_unmoved = {**unmoved, token: why}
        try:
            other_graph, fixed_point, _ = _iterate_within_plan_cost(*arguments, more_unmoved)
        except Refused:
            continue
        if net_utility(other_graph, objective, fixed_point.draft) > net_utility(
            graph, objective, best.draft
        ):
            graph, best, unmoved = other_graph, fixed_point, more_unmoved
    return graph, best


def _iterate_within_plan_cost(
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
    tightened first. Tokens in `unmoved` (by index, with the reason) stay unmoved.
    """
    scale, limit_bps = max(objective.off_goal, float(problem.total) / BPS), problem.plan_cost_bps
    if objective.risk is None or limit_bps is None:
        max_unit_cost = None
    else:
        max_unit_cost = Fraction(limit_bps, BPS)
    graph = build_pool_graph(problem, scale, max_unit_cost, counts_units=counts_units)
    tightenings = 0
    dropped: dict[str, str] = {}
    while True:
        fixed_point = find_fixed_point(graph, objective, budget, min_trade, dropped, unmoved)
        wrong_side = wrong_side_tokens(problem, goal, fixed_point.draft)
        if wrong_side.keys() - unmoved.keys():
            unmoved = {**unmoved, **wrong_side}
            continue
        overshoot = overshoot_reason(problem, objective, fixed_point.draft)
        if overshoot:
            pool, why = best_paying_pool(problem, fixed_point.draft, overshoot)
            dropped[pool] = why
            continue
        cost, turnover = fixed_point.draft.cost(problem), fixed_point.draft.turnover(problem)
        if limit_bps is None or cost.total * BPS <= limit_bps * turnover:
            return graph, fixed_point, bool(dropped)
        gas = cost.gas + cost.approvals
        swaps_may_cost, swaps_cost = Fraction(limit_bps, BPS) * turnover - gas, cost.total - gas
        if (
            max_unit_cost is not None
            and tightenings < MAX_TIGHTENINGS
            and 0 < swaps_may_cost < swaps_cost
        ):
            max_unit_cost = (
                max_unit_cost * min(swaps_may_cost / swaps_cost, MAX_TIGHTENING_FACTOR)
            ).limit_denominator(10**9)
            tightenings = tightenings + 1
            graph = build_pool_graph(problem, scale, max_unit_cost, counts_units=counts_units)
        else:
            dropped[_dearest_pool(problem, fixed_point.draft)] = f"{OVER_COST} of {limit_bps} bps"


def _dearest_pool(problem: Problem, draft: PlanDraft) -> str:
    """Return a pool of the sequence of swaps with the highest cost per unit moved, gas included:
    the pool that the fewest legs of the plan use.
    """

    def unit_cost(chain: list[int]) -> Fraction:
        first_leg, last_leg = draft.legs[chain[0]], draft.legs[chain[-1]]
        value_in = first_leg.amount_in_raw * problem.price(first_leg.token_in)
        value_out = last_leg.amount_out_raw * problem.price(last_leg.token_out)
        return (
            value_in
            - value_out
            + sum(draft.leg_gas[leg] for leg in chain) * problem.gas_unit_value
            + len(chain) * problem.leg_data_fee
        ) / value_in

    use_counts = Counter(leg.pool for leg in draft.legs)
    dearest_chain = max(draft.chains(), key=unit_cost)
    return min((draft.legs[leg].pool for leg in dearest_chain), key=lambda pool: use_counts[pool])


def _nothing_planned(
    step: StepInput,
    problem: Problem,
    drift: float,
    skipped: list[SkippedItem],
    binding_limit: tuple[str, Value] | None,
) -> NothingPlanned:
    """Return the refusal of a plan without legs, with its limits; `binding_limit` is the binding
    turnover limit and its remainder.
    """
    numeraire, limits = step.portfolio.numeraire, step.limits
    amount = f"{value_text(Fraction(round(drift)), numeraire.decimals, 2)} {numeraire.label}"
    verdicts = []
    if limits.min_trade is not None:
        min_trade_text = f"{value_text(limits.min_trade, numeraire.decimals, 2)} {numeraire.label}"
        verdicts.append(
            Verdict(
                "min_trade",
                f"{amount} to move",
                min_trade_text,
                Fraction(drift) >= limits.min_trade,
            )
        )
    if problem.plan_cost_bps is not None:
        verdicts.append(
            Verdict("plan_cost", "no cheaper route", f"{problem.plan_cost_bps} bps", False)
        )
    reasons = "; ".join(f"{item.what}: {item.why}" for item in skipped) or "holdings are on target"
    if binding_limit is not None:
        left_text = f"{value_text(binding_limit[1], numeraire.decimals, 2)} {numeraire.label}"
        return NothingPlanned(
            f"nothing to trade of a drift of {amount}: {binding_limit[0]} leaves {left_text}, "
            f"which is too little for a trade; {reasons}",
            (
                Verdict(
                    binding_limit[0].removeprefix("limits."), f"{amount} to move", left_text, False
                ),
            ),
            f"raise {binding_limit[0]}, or wait until the last day's trades are 24 h old",
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
    limit_by_label = {item.what: item.kept_by for item in skipped}
    limit_by_node = {
        node: limit_by_label[node.label] for node in problem.assets if node.label in limit_by_label
    }
    costly_candidates = [
        node.address for node, limit in limit_by_node.items() if limit not in (MIN_TRADE, LOCKED)
    ]
    if costly_candidates and _too_dear(problem, costly_candidates, Fraction(round(drift))):
        return PLAN_COST
    if not limit_by_node or not all(limit_by_node.values()):
        return ""
    if LOCKED in limit_by_node.values():
        return LOCKED
    if PLAN_COST in limit_by_node.values():
        return PLAN_COST
    return MIN_TRADE


def _too_dear(problem: Problem, off_target: Sequence[str], drift: Value) -> bool:
    """True if gas and pool fees alone come close to limits.plan_cost, so that no market price would
    justify the trade.
    """
    if problem.plan_cost_bps is None:
        return False
    fees = [
        min(
            (
                pool.fee_pips
                for pool in problem.pools.values()
                if token in (pool.token0, pool.token1)
            ),
            default=0,
        )
        for token in off_target
    ]
    cost_room = drift * (Fraction(problem.plan_cost_bps, BPS) - Fraction(max(fees), PIPS))
    return (
        cost_room
        < GAS_MULTIPLE
        * (max(1, len(off_target) - 1) * LEG_GAS + APPROVAL_GAS)
        * problem.gas_unit_value
    )
