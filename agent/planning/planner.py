"""Planner: the swaps towards a goal, with their pools, order, cost and minimum outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

from agent.errors import ErrorCode, Refused
from agent.model import (
    Goal,
    OptimalityGap,
    Plan,
    Rebalance,
    RiskCostTradeoff,
    SkippedItem,
    StepInput,
    TrackingRisk,
    Verdict,
)
from agent.planning.cost_reasons import coarse_tokens
from agent.planning.plan_builder import (
    LOCKED_EXCESS,
    MIN_TRADE_LIMIT,
    PLAN_COST_LIMIT,
    assemble_plan,
    gap_bps,
    skipped_items,
)
from agent.planning.problem import PoolGraph, Problem, build_pool_graph, build_problem
from agent.planning.rounding import PlanDraft
from agent.planning.solver.draft_checks import (
    MAX_WEIGHT_REASON,
    best_paying_pool,
    excess_purchases,
    overshoot_reason,
    untradable_tokens,
    wrong_side_tokens,
)
from agent.planning.solver.drop_reasons import DropCause, DropReason
from agent.planning.solver.fixed_point import (
    BELOW_MIN_TRADE,
    FixedPoint,
    find_fixed_point,
    net_utility,
    sell_exits_whole,
)
from agent.planning.solver.utility import (
    DAILY_TURNOVER_LIMIT,
    PlanObjective,
    bought_by_exit,
    leaving_tokens,
    objective_for_exit,
    objective_for_goal,
    turnover_left,
    until_freed,
    without_max_weights,
)
from agent.planning.swaps import Quote, plan_swap, quote
from agent.policy.minimum import APPROVAL_GAS, LEG_GAS, lowest_fee_pips
from agent.policy.risk import tracking_cost
from agent.reference import ReferencePrices, reference_prices
from agent.units import BPS, PIPS, Value

__all__ = ["NothingPlanned", "Quote", "plan", "plan_swap", "quote"]


def zone_saving(
    problem: Problem, goal: Goal, risk: TrackingRisk, zone_plan: Plan, delta_raw: Mapping[str, int]
) -> RiskCostTradeoff:
    """Return the risk that `zone_plan` saves over the horizon at reference prices, and its costs,
    missing approvals included.

    `delta_raw` is the change of each token by its swaps in base units, native coin counted as its
    wrapped token.
    """
    values_before = {node.address: node.value for node in problem.assets}
    values_after = {
        token: value_before + delta_raw.get(token, 0) * problem.price(token)
        for token, value_before in values_before.items()
    }
    cost = zone_plan.cost
    return RiskCostTradeoff(
        risk_before=_risk_penalty(problem, goal, risk, values_before),
        risk_after=_risk_penalty(problem, goal, risk, values_after),
        fees=cost.fees,
        impact=cost.impact,
        skew=cost.skew,
        gas=cost.gas,
        approval_gas=cost.approval_gas,
    )


def _risk_penalty(
    problem: Problem, goal: Goal, risk: TrackingRisk, value_by_token: dict[str, Value]
) -> Value:
    tokens = [weight.token for weight in goal.weights]
    return tracking_cost(
        risk,
        tokens,
        [weight.low for weight in goal.weights],
        [value_by_token[token] for token in tokens],
        problem.total,
    )


NOTABLE_ROUNDING_LOSS = 1e-4
"""Rounding loss of a swap, per unit of drift, above which a second search ignores such losses."""
MAX_TIGHTENINGS = 6
"""Maximum number of times that a zone's bound on a swap's unit cost is tightened."""
MAX_TIGHTENING_FACTOR = Fraction(19, 20)
"""Largest factor by which one tightening multiplies the bound: each lowers it by at least 5 %."""
MAX_RISK_TRIALS = 6
"""Number of lower prices of risk with which a zone is planned again where limits.plan_cost binds."""
GAS_MULTIPLE = Fraction(5, 4)
"""Multiple of the gas that has to fit within limits.plan_cost; the margin is for impact."""


class NothingPlanned(Refused):
    """No move is possible or worth its cost within the limits.

    `limiting_rule` is the only obstacle: the name of a limit of cost or size, or LOCKED. The
    decision is then a hold instead of a refusal. It is empty for any other obstacle. `drift_value`
    is the value that would have to move, in numeraire base units, `off_target_items` the assets off
    target with their reasons. `turnover_note` is a turnover limit that leaves less than that value
    beside `limiting_rule`; empty if none does.
    """

    def __init__(
        self,
        message: str,
        verdicts: Sequence[Verdict] = (),
        remedy: str = "",
        limiting_rule: str = "",
        drift_value: Value = Fraction(0),
        off_target_items: Sequence[SkippedItem] = (),
        turnover_note: str = "",
    ) -> None:
        super().__init__(message, verdicts, remedy)
        self.limiting_rule = limiting_rule
        self.drift_value = drift_value
        self.off_target_items = tuple(off_target_items)
        self.turnover_note = turnover_note


def plan(
    step: StepInput,
    decision: Rebalance,
    references: ReferencePrices | None = None,
    *,
    turnover_cap: tuple[Value, str] | None = None,
    allowed_pool_tokens: Collection[str] = (),
) -> Plan:
    """Return the swaps towards the decision's goal within all bounds; `skipped` has every part that
    does not fit.

    A zone's plan has its saving and cost; the caller decides if it is worthwhile. `references`
    replace the prices of the step's own pools, for a simulated step. `turnover_cap` is the largest
    turnover of a plan that is no exit, with the name of the limit that sets it. `allowed_pool_tokens` restricts
    the pools to those between these tokens. Raises Refused with verdicts if no sensible plan
    exists: a price or balance is missing, the day's turnover is used up, or every move is dust,
    above plan_cost, or without a route.
    """
    problem = build_problem(step, references or reference_prices(step))
    if allowed_pool_tokens:
        problem = problem.with_pools_between(allowed_pool_tokens)
    if problem.total <= 0:
        raise Refused(
            "nothing to invest: every balance is zero or reserved",
            remedy="fund the wallet or lower the reserves",
            code=ErrorCode.EMPTY,
        )
    objective = objective_for_goal(problem, decision.goal)
    problem = replace(problem, leaving_tokens=leaving_tokens(problem, decision.goal))
    if decision.is_exit:
        return _plan_exit(step, decision, problem, objective)
    return _plan_goal(step, decision, problem, objective, turnover_cap)


@dataclass(frozen=True, slots=True)
class TurnoverLimit:
    """Largest turnover of a plan (None: unlimited), and the name of the limit that sets it.
    `is_reportable` is true if the plan says what the limit holds back.
    """

    value: Value | None
    name: str
    is_reportable: bool

    def within(self, turnover_cap: tuple[Value, str] | None) -> TurnoverLimit:
        """Return the smaller of this limit and a caller's, who reports it."""
        if turnover_cap is None or (self.value is not None and turnover_cap[0] >= self.value):
            return self
        return TurnoverLimit(*turnover_cap, is_reportable=False)


def _plan_exit(
    step: StepInput, decision: Rebalance, problem: Problem, objective: PlanObjective
) -> Plan:
    """Return the swaps of an exit, which sells only what it has to, for the numeraire or for the
    token that a withdrawal is short of. It has no turnover limit.
    """
    goal = decision.goal
    numeraire_index = problem.index_by_token[step.portfolio.numeraire.address]
    bought_token = bought_by_exit(problem, goal, numeraire_index)
    bought_label = problem.nodes[bought_token].label
    problem = replace(problem, price_ranges={})  # floors of exits: reference.price_ranges
    objective = without_max_weights(objective)
    if bought_token == numeraire_index:
        objective = objective_for_exit(objective, numeraire_index)
    full_graph = _full_graph(problem, objective)
    graph, fixed_point = _best_within_plan_cost(
        full_graph,
        objective,
        goal,
        None,
        step.limits.min_trade,
        _unmoved_by_exit(problem, goal, bought_token),
    )
    fixed_point = sell_exits_whole(graph, fixed_point, bought_token, step.limits.min_trade)
    skips = skipped_items(step, graph, objective, fixed_point, "", None)
    if not fixed_point.draft.legs:
        no_limit = TurnoverLimit(None, "", is_reportable=False)
        raise _nothing_planned(step, problem, objective, skips, no_limit)
    sold_labels = {node.label for node in problem.assets} - {bought_label}
    if not {skipped_item.subject for skipped_item in skips} & sold_labels:
        # the bought token is off target only by the exit's cost
        skips = [skipped_item for skipped_item in skips if skipped_item.subject != bought_label]
    gap = OptimalityGap(partial(gap_bps, full_graph, objective, fixed_point, None))
    return assemble_plan(step, problem, decision, fixed_point.draft, skips, gap)


def _plan_goal(
    step: StepInput,
    decision: Rebalance,
    problem: Problem,
    objective: PlanObjective,
    turnover_cap: tuple[Value, str] | None,
) -> Plan:
    """Return the swaps towards a goal within the turnover limits; a zone's with saving and cost."""
    goal = decision.goal
    max_turnover, limit_name = turnover_left(step, problem.total, decision.exempt_turnover)
    # once amounts are approved, the turnover limit that sized them is not reported again
    is_reportable = max_turnover is not None and not step.progress.spend_caps
    limit = TurnoverLimit(max_turnover, limit_name, is_reportable).within(turnover_cap)
    unmoved_tokens = untradable_tokens(problem, goal)
    full_graph = _full_graph(problem, objective)
    graph, fixed_point = _best_within_plan_cost(
        full_graph, objective, goal, limit.value, step.limits.min_trade, unmoved_tokens
    )
    unlimited_result = None
    if limit.is_reportable and (
        fixed_point.turnover_binds
        or not fixed_point.draft.legs
        or BELOW_MIN_TRADE in fixed_point.unmoved_tokens.values()
    ):
        with suppress(Refused):  # only used to report the binding bound
            unlimited_result = _best_within_plan_cost(
                full_graph, objective, goal, None, step.limits.min_trade, unmoved_tokens
            )
    skips = skipped_items(step, graph, objective, fixed_point, limit.name, unlimited_result)
    if not fixed_point.draft.legs:
        is_decisive = unlimited_result is not None and bool(unlimited_result[1].draft.legs)
        raise _nothing_planned(step, problem, objective, skips, limit, is_decisive=is_decisive)
    gap = OptimalityGap(partial(gap_bps, full_graph, objective, fixed_point, limit.value))
    swap_plan = assemble_plan(step, problem, decision, fixed_point.draft, skips, gap)
    if goal.risk is None:
        return swap_plan
    tradeoff = zone_saving(problem, goal, goal.risk, swap_plan, fixed_point.draft.delta_raw)
    return replace(swap_plan, zone_tradeoff=tradeoff)


def _unmoved_by_exit(problem: Problem, goal: Goal, bought_token: int) -> dict[int, str]:
    """Return the tokens that an exit does not trade, by index: all on target, except the one that
    it buys.
    """
    weight_by_token = {weight.token: weight for weight in goal.weights}
    total = problem.total
    return {
        index: "an exit trades no other token"
        for index, node in enumerate(problem.nodes)
        if node.is_asset
        and index != bought_token
        and weight_by_token[node.address].low * total
        <= node.value
        <= weight_by_token[node.address].high * total
    }


def _max_unit_cost(problem: Problem, objective: PlanObjective) -> Fraction | None:
    """Return the largest cost of a unit of a single swap, per unit of value: plan_cost in a zone,
    where the utility has no price for it; None elsewhere.
    """
    if objective.risk is None or problem.plan_cost_bps is None:
        return None
    return Fraction(problem.plan_cost_bps, BPS)


def _full_graph(
    problem: Problem, objective: PlanObjective, *, counts_rounding: bool = True
) -> PoolGraph:
    """Return the graph of every swap that the limits allow for `objective`."""
    return build_pool_graph(
        problem,
        max(objective.value_off_goal, float(problem.total) / BPS),
        _max_unit_cost(problem, objective),
        counts_rounding=counts_rounding,
    )


@dataclass(frozen=True, slots=True)
class _PlanSearch:
    """What a plan is searched with: the swaps of `graph`, the objective, the goal, and the bounds of
    the turnover and of the smallest trade. Where limits.plan_cost binds in a zone, the bound on a
    unit's cost is tightened up to `max_tightenings` times before pools are dropped.
    """

    graph: PoolGraph
    objective: PlanObjective
    goal: Goal
    max_turnover: Value | None
    min_trade: Value | None
    max_tightenings: int = MAX_TIGHTENINGS
    counts_rounding: bool = True


@dataclass(frozen=True, slots=True)
class _CostLimitedResult:
    """Result of the search within limits.plan_cost: `graph` has the swaps that it chose from.
    `is_cost_bound` is true if without that limit the plan would cost more.
    """

    graph: PoolGraph
    fixed_point: FixedPoint
    has_dropped_pools: bool
    is_cost_bound: bool

    def utility(self, objective: PlanObjective) -> float:
        """Return the utility for `objective` less gas, in units of the graph's scale."""
        return net_utility(self.graph, objective, self.fixed_point.draft)


def _best_within_plan_cost(
    full_graph: PoolGraph,
    objective: PlanObjective,
    goal: Goal,
    max_turnover: Fraction | None,
    min_trade: Fraction | None,
    unmoved_tokens: Mapping[int, str],
) -> tuple[PoolGraph, FixedPoint]:
    """Return the best result of the iteration within plan_cost, and its graph: `full_graph`, or the
    part of it whose units cost less. Where swaps may lose NOTABLE_ROUNDING_LOSS to whole units, it is
    run again with that loss ignored, because counting it may exclude a pool that is worth using. If
    pools are dropped for plan_cost, coarse tokens are left unmoved while that improves the result.
    """
    problem = full_graph.problem
    search = _PlanSearch(full_graph, objective, goal, max_turnover, min_trade)
    best_result = _result_within_plan_cost(search, unmoved_tokens)
    if best_result.is_cost_bound and objective.risk is not None:
        best_result = _best_where_plan_cost_binds(best_result, search, unmoved_tokens)
    if (
        max((edge.curves.rounding_loss for edge in best_result.graph.pool_edges), default=0.0)
        > NOTABLE_ROUNDING_LOSS
    ):
        graph_without_loss = _full_graph(problem, objective, counts_rounding=False)
        retry_search = replace(search, graph=graph_without_loss, counts_rounding=False)
        with suppress(Refused):
            retry_result = replace(
                _result_within_plan_cost(retry_search, unmoved_tokens), graph=best_result.graph
            )
            if retry_result.utility(objective) > best_result.utility(objective):
                best_result = retry_result
    for token, why in coarse_tokens(problem).items() if best_result.has_dropped_pools else ():
        if token in best_result.fixed_point.unmoved_tokens:
            continue
        more_unmoved_tokens = {**unmoved_tokens, token: why}
        try:
            retry_result = _result_within_plan_cost(search, more_unmoved_tokens)
        except Refused:
            continue
        if retry_result.utility(objective) > best_result.utility(objective):
            best_result = retry_result
            unmoved_tokens = more_unmoved_tokens
    return best_result.graph, best_result.fixed_point


def _best_where_plan_cost_binds(
    tightened_result: _CostLimitedResult, search: _PlanSearch, unmoved_tokens: Mapping[int, str]
) -> _CostLimitedResult:
    """Return the best of the results that a zone reaches within plan_cost: with the bound on a
    unit's cost tightened, with pools dropped instead, and as for less risk. Each is better than the
    others for some pools.
    """
    results = [tightened_result, *_results_for_less_risk(search, unmoved_tokens)]
    with suppress(Refused):
        results.append(_result_within_plan_cost(replace(search, max_tightenings=0), unmoved_tokens))
    return max(results, key=lambda result: result.utility(search.objective))


def _results_for_less_risk(
    search: _PlanSearch, unmoved_tokens: Mapping[int, str]
) -> Iterator[_CostLimitedResult]:
    """Yield results for a lower price of risk, which trades only what costs less for each unit of
    risk: halved until plan_cost no longer binds, then bisected.
    """
    within = Fraction(0)
    beyond = Fraction(1)
    for _ in range(MAX_RISK_TRIALS):
        factor = (within + beyond) / 2
        objective = search.objective.with_risk_factor(factor)
        try:
            result = _result_within_plan_cost(replace(search, objective=objective), unmoved_tokens)
        except Refused:  # nothing is worth its cost
            within = factor
            continue
        yield result
        if result.is_cost_bound:
            beyond = factor
        else:
            within = factor


def _result_within_plan_cost(
    search: _PlanSearch, unmoved_tokens: Mapping[int, str]
) -> _CostLimitedResult:
    """Return the result of the iteration within plan_cost. While the plan with its gas costs more
    per unit moved, a pool of the most expensive sequence of swaps is dropped; while the plan goes
    beyond the drift, the best paying pool. In a zone no unit of a single swap costs more than
    plan_cost, but a sequence of swaps may, so that bound is tightened first; if that leaves nothing,
    pools are dropped instead. Tokens in `unmoved_tokens` (by index, with the reason) stay unmoved.
    """
    problem = search.graph.problem
    objective = search.objective
    graph = search.graph
    max_tightenings = search.max_tightenings
    plan_cost_bps = problem.plan_cost_bps
    max_unit_cost = _max_unit_cost(problem, objective)
    tightening_count = 0
    is_cost_bound = False
    dropped_pools: dict[str, DropReason] = {}
    while True:
        fixed_point = find_fixed_point(
            graph,
            objective,
            search.max_turnover,
            search.min_trade,
            dropped_pools,
            unmoved_tokens,
        )
        wrong_side_reasons = wrong_side_tokens(problem, search.goal, fixed_point.draft)
        if wrong_side_reasons.keys() - unmoved_tokens.keys():
            unmoved_tokens = {**unmoved_tokens, **wrong_side_reasons}
            continue
        excess_by_token = excess_purchases(problem, objective, fixed_point.draft)
        if excess_by_token:
            for token, excess in excess_by_token.items():
                if objective.max_values[token] <= objective.held_values[token]:
                    unmoved_tokens = {**unmoved_tokens, token: MAX_WEIGHT_REASON}
                objective = objective.with_less_bought(token, float(excess))
            continue
        overshoot = overshoot_reason(problem, objective, fixed_point.draft)
        if overshoot:
            pool, why = best_paying_pool(problem, fixed_point.draft, overshoot)
            dropped_pools[pool] = DropReason(DropCause.OVERSHOOT, why)
            continue
        cost = fixed_point.draft.cost(problem)
        turnover = fixed_point.draft.turnover(problem)
        if plan_cost_bps and tightening_count and not fixed_point.draft.legs:
            # each smaller plan bears more gas a unit: fewer swaps may cost less than smaller ones
            tightening_count = 0
            max_tightenings = 0
            max_unit_cost = _max_unit_cost(problem, objective)
            graph = search.graph
            dropped_pools.clear()
            continue
        if plan_cost_bps is None or cost.total * BPS <= plan_cost_bps * turnover:
            return _CostLimitedResult(graph, fixed_point, bool(dropped_pools), is_cost_bound)
        is_cost_bound = True
        allowed_cost = Fraction(plan_cost_bps, BPS) * turnover
        allowed_swap_cost = allowed_cost - cost.gas - cost.approval_gas
        if (
            max_unit_cost is not None
            and tightening_count < max_tightenings
            and 0 < allowed_swap_cost < cost.without_gas
        ):
            max_unit_cost = (
                max_unit_cost * min(allowed_swap_cost / cost.without_gas, MAX_TIGHTENING_FACTOR)
            ).limit_denominator(10**9)
            tightening_count = tightening_count + 1
            graph = build_pool_graph(
                problem,
                graph.scale,
                max_unit_cost,
                counts_rounding=search.counts_rounding,
            )
        else:
            dropped_pools[_costliest_pool(problem, fixed_point.draft)] = DropReason(
                DropCause.OVER_COST, f"{DropCause.OVER_COST.value} of {plan_cost_bps} bps"
            )


def _costliest_pool(problem: Problem, draft: PlanDraft) -> str:
    """Return a pool of the sequence of swaps with the highest cost per unit moved, gas included:
    the pool that the fewest legs of the plan use.
    """

    def unit_cost(leg_indices: list[int]) -> Fraction:
        first_leg = draft.legs[leg_indices[0]]
        last_leg = draft.legs[leg_indices[-1]]
        value_in = first_leg.amount_in_raw * problem.price(first_leg.token_in)
        value_out = last_leg.amount_out_raw * problem.price(last_leg.token_out)
        return (
            value_in
            - value_out
            + sum(draft.leg_gas_units[leg_index] for leg_index in leg_indices)
            * problem.gas_unit_value
            + len(leg_indices) * problem.leg_data_fee
        ) / value_in

    pool_use_counts = Counter(leg.pool for leg in draft.legs)
    costliest_indices = max(draft.leg_chains(), key=unit_cost)
    return min(
        (draft.legs[index].pool for index in costliest_indices),
        key=lambda pool: pool_use_counts[pool],
    )


def _nothing_planned(
    step: StepInput,
    problem: Problem,
    objective: PlanObjective,
    skips: list[SkippedItem],
    limit: TurnoverLimit,
    *,
    is_decisive: bool = False,
) -> NothingPlanned:
    """Return the refusal of a plan without legs, with the limits that bind, the decisive one first,
    then the assets, then the pools. `is_decisive` is true if there is a plan without the turnover
    limit `limit`.
    """
    numeraire = step.portfolio.numeraire
    drift_value = Fraction(round(objective.value_off_goal))
    drift_text = numeraire.money_text(drift_value)
    limiting_rule = _hold_cause(problem, skips, objective.value_off_goal)
    limit_text = ""
    turnover_note = ""
    if limit.value is not None and is_decisive:
        limit_text = f"{_left_text(step, limit)}, which is too little for a trade; "
    elif limit.value is not None and limit.is_reportable and limit.value < drift_value:
        turnover_note = _left_text(step, limit, "only ")
    if limiting_rule == PLAN_COST_LIMIT and not is_decisive:
        limit_text = f"{PLAN_COST_LIMIT} of {problem.plan_cost_bps} bps allows no trade"
        limit_text += f", and {turnover_note}; " if turnover_note else "; "
    asset_labels = {node.label for node in problem.assets}
    pool_counts = Counter(
        skipped_item.why for skipped_item in skips if skipped_item.subject.startswith("pool ")
    )
    reason_texts = dict.fromkeys(
        f"each of {pool_counts[skipped_item.why]} pools: {skipped_item.why}"
        if pool_counts[skipped_item.why] > 1
        else f"{skipped_item.subject}: {skipped_item.why}"
        for skipped_item in sorted(skips, key=lambda item: item.subject not in asset_labels)
    )
    reasons_text = "; ".join(reason_texts) or "holdings are on target"
    message = f"nothing to trade of a drift of {drift_text}: {limit_text}{reasons_text}"
    if limit.value is not None and is_decisive:
        turnover_left_text = numeraire.money_text(limit.value)
        is_freed = limit.name == DAILY_TURNOVER_LIMIT and step.history.budgets.turnover_24h > 0
        wait_text = ", or wait until the last day's trades are 24 h old" if is_freed else ""
        return NothingPlanned(
            message,
            (
                Verdict(
                    limit.name.removeprefix("limits."),
                    f"{drift_text} to move",
                    turnover_left_text,
                    False,
                ),
            ),
            f"raise {limit.name}{wait_text}",
            drift_value=drift_value,
        )
    return NothingPlanned(
        message,
        _cost_verdicts(step, problem, drift_value),
        "see the reasons; trimtab status shows the drift of each asset",
        limiting_rule,
        drift_value,
        [
            skipped_item
            for skipped_item in skips
            if skipped_item.subject in asset_labels - {numeraire.label}
        ],
        turnover_note,
    )


def _left_text(step: StepInput, limit: TurnoverLimit, adverb: str = "") -> str:
    """Return what a turnover limit leaves, such as "limits.daily_turnover leaves 12 USDC until …"."""
    left_text = step.portfolio.numeraire.money_text(limit.value or Fraction(0))
    return f"{limit.name} leaves {adverb}{left_text}{until_freed(step, limit.name)}"


def _cost_verdicts(step: StepInput, problem: Problem, drift_value: Value) -> list[Verdict]:
    """Return the verdicts of limits.min_trade and limits.plan_cost on moving this value."""
    verdicts = []
    money_text = step.portfolio.numeraire.money_text
    if (min_trade := step.limits.min_trade) is not None:
        verdicts.append(
            Verdict(
                "min_trade",
                f"{money_text(drift_value)} to move",
                money_text(min_trade),
                drift_value >= min_trade,
            )
        )
    if problem.plan_cost_bps is not None:
        verdicts.append(
            Verdict("plan_cost", "no cheaper route", f"{problem.plan_cost_bps} bps", False)
        )
    return verdicts


def _hold_cause(problem: Problem, skips: Sequence[SkippedItem], drift_value: float) -> str:
    """Return the limit of cost or size that alone blocks every asset off target, or LOCKED if there
    is no other excess to sell; empty if anything else does.
    """
    rule_by_label = {skipped_item.subject: skipped_item.limiting_rule for skipped_item in skips}
    rule_by_node = {
        node: rule_by_label[node.label] for node in problem.assets if node.label in rule_by_label
    }
    costly_candidates = [
        node.address
        for node, limiting_rule in rule_by_node.items()
        if limiting_rule not in (MIN_TRADE_LIMIT, LOCKED_EXCESS)
    ]
    if costly_candidates and _is_too_costly(
        problem, costly_candidates, Fraction(round(drift_value))
    ):
        return PLAN_COST_LIMIT
    if not rule_by_node or not all(rule_by_node.values()):
        return ""
    if LOCKED_EXCESS in rule_by_node.values():
        return LOCKED_EXCESS
    if PLAN_COST_LIMIT in rule_by_node.values():
        return PLAN_COST_LIMIT
    return MIN_TRADE_LIMIT


def _is_too_costly(problem: Problem, tokens_off_target: Sequence[str], drift_value: Value) -> bool:
    """True if gas and pool fees alone come close to limits.plan_cost, so that no market price would
    justify the trade.
    """
    if problem.plan_cost_bps is None:
        return False
    lowest_fees_pips = [
        lowest_fee_pips(problem.pools.values(), token) or 0 for token in tokens_off_target
    ]
    cost_left_for_gas = drift_value * (
        Fraction(problem.plan_cost_bps, BPS) - Fraction(max(lowest_fees_pips), PIPS)
    )
    return (
        cost_left_for_gas
        < GAS_MULTIPLE
        * (max(1, len(tokens_off_target) - 1) * LEG_GAS + APPROVAL_GAS)
        * problem.gas_unit_value
    )
