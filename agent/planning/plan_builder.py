"""The complete plan: predictions after the legs, cost, expiry, optimality gap, and skipped items
with reasons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from agent.floats import FloatArray
from agent.layers import questions
from agent.model import (
    Leg,
    Limits,
    OptimalityGap,
    Plan,
    Portfolio,
    Rebalance,
    SkippedItem,
    StepInput,
    wallet_changes,
)
from agent.planning.cost_reasons import cost_reason
from agent.planning.gas import with_payment_legs
from agent.planning.problem import OVERPAYING_REASON, PoolEdge, PoolGraph, Problem
from agent.planning.rounding import UNNAMED_FRACTION, PlanDraft, pools_out_of_ticks
from agent.planning.routes import MAX_LEGS
from agent.planning.solver.charges import bound_with_charges
from agent.planning.solver.drop_reasons import COARSE_UNIT_PHRASE, DropCause, DropReason
from agent.planning.solver.fixed_point import BELOW_MIN_TRADE, FixedPoint
from agent.planning.solver.token_order import order_tokens
from agent.planning.solver.utility import PlanObjective
from agent.policy import native_coin
from agent.policy.cash_flows import transfers
from agent.reference.floors import UNBOUNDED_BPS
from agent.units import (
    BPS,
    NATIVE,
    PIPS,
    Value,
    ceil_int,
    cents_text,
    largest_remainder,
    value_text,
)

PLAN_COST_LIMIT = "limits.plan_cost"
CUT_BY_TURNOVER = "part of the drift"
"""Subject of what a turnover limit leaves out of a plan."""
MIN_TRADE_LIMIT = "limits.min_trade"
LOCKED_EXCESS = "locked"
"""Cause of a drift whose excess is in liquidity positions or margin, which swaps cannot spend."""
SAME_DEVIATION = 0.999
"""Fraction of a token's deviation above which its deviation without the turnover limit counts as
equal.
"""
UnlimitedResult = tuple[PoolGraph, FixedPoint]
"""Result of the iteration without the turnover limit."""
MIN_REPORTED = float(UNNAMED_FRACTION)
"""Fraction of the total (a tenth of a basis point) below which a remainder is rounding error."""


def assemble_plan(
    step: StepInput,
    problem: Problem,
    decision: Rebalance,
    draft: PlanDraft,
    skips: Sequence[SkippedItem],
    gap: OptimalityGap,
) -> Plan:
    """Return the plan of a draft's legs, not judged by guards yet."""
    balances_raw = {holding.token: holding.raw for holding in step.snapshot.holdings}
    legs = with_payment_legs(problem.wrapped_native, draft.legs)
    balance_changes_raw = wallet_changes(legs)
    holdings_after = tuple(
        (node.address, balances_raw[node.address] + balance_changes_raw.get(node.address, 0))
        for node in problem.assets
    )
    held_raw = native_coin.held_balances(step)
    values_after = []
    for node in problem.assets:
        delta_raw = draft.delta_raw.get(node.address, 0)
        if delta_raw > 0:  # what is bought covers the reserve and claims first
            short_raw = transfers.shortfall_raw(step.portfolio, step.limits, held_raw, node.address)
            delta_raw = max(0, delta_raw - short_raw)
        values_after.append(node.value + delta_raw * node.price)
    return Plan(
        block=step.snapshot.head.number,
        decision=decision,
        legs=legs,
        holdings_after=holdings_after,
        weights_after_bps=tuple(
            zip(
                (node.address for node in problem.assets),
                largest_remainder(values_after) if any(values_after) else [0] * len(values_after),
                strict=True,
            )
        ),
        cost=draft.cost(problem),
        turnover=draft.turnover(problem),
        gross_volume=draft.gross_volume,
        gas_units=draft.gas_units(problem),
        gap=gap,
        verdicts=(),
        skipped=tuple(skips),
        expires_block=step.snapshot.head.number + step.execution.expire_blocks,
        native_after_wei=step.snapshot.native_wei + balance_changes_raw[NATIVE]
        if NATIVE in balance_changes_raw
        else None,
    )


@dataclass(frozen=True, slots=True)
class _Remainder:
    """A token that stays off target, with the result that explains it. `counterparts` are the
    tokens off target on the other side. `turnover_limit_name` names the turnover limit if it binds
    (`turnover_binds`), otherwise it is empty.
    """

    token_index: int
    value: float
    is_excess: bool
    counterparts: tuple[int, ...]
    turnover_binds: bool
    turnover_limit_name: str
    graph: PoolGraph
    fixed_point: FixedPoint

    def moves_as_needed(self, source: int, target: int) -> bool:
        """True if an exchange moves the token in the missing direction."""
        moved_token = source if self.is_excess else target
        return moved_token == self.token_index


@dataclass(frozen=True, slots=True)
class _OffTargetReason:
    """Why a token stays off target. `limit` is the limit of cost or size, or LOCKED_EXCESS, if that
    alone keeps it there; `is_cost` is true if it stays there because of its cost, `is_below_floor`
    if every pool pays less than its floor.
    """

    why: str
    limit: str = ""
    is_cost: bool = False
    is_below_floor: bool = False

    @property
    def is_costly(self) -> bool:
        """True if the cost keeps it there, alone or with the state of the pools."""
        return self.is_cost or self.limit == PLAN_COST_LIMIT


def skipped_items(
    step: StepInput,
    graph: PoolGraph,
    objective: PlanObjective,
    fixed_point: FixedPoint,
    turnover_limit_name: str,
    unlimited_result: UnlimitedResult | None,
) -> list[SkippedItem]:
    """Return everything that the plan skips, each with its reason. `unlimited_result` is the result
    without the turnover limit, if that limit may bind: a token that is as far off target without
    the limit is not kept there by the limit, so its reason is taken from that result.
    """
    problem = graph.problem
    draft = fixed_point.draft
    skips = list(problem.exclusions)
    skips += [
        SkippedItem(f"pool {pool}", reason.text)
        for pool, reason in fixed_point.dropped_pools.items()
    ]
    skips += [
        SkippedItem(f"pool {pool}", OVERPAYING_REASON) for pool, _, _ in graph.overpaying_directions
    ]
    skips += _fee_waits(step.portfolio, problem, draft.legs)
    if fixed_point.turnover_binds and (
        unlimited_result is None
        or unlimited_result[1].draft.turnover(problem) > draft.turnover(problem)
    ):
        turnover_text = cents_text(draft.turnover(problem), step.portfolio.numeraire.decimals)
        why = (
            f"{turnover_limit_name} allows this plan {turnover_text}; the cheapest trades go first"
        )
        skips.append(SkippedItem(CUT_BY_TURNOVER, why))
    total, shortfalls, excesses = _shortfalls_and_excesses(problem, objective, draft)
    unlimited_deviations = None
    if unlimited_result is not None:
        _, unlimited_shortfalls, unlimited_excesses = _shortfalls_and_excesses(
            problem, objective, unlimited_result[1].draft
        )
        unlimited_deviations = np.maximum(unlimited_shortfalls, unlimited_excesses)
    for token, node in enumerate(problem.nodes):
        deviation_value = max(float(shortfalls[token]), float(excesses[token]), 0.0)
        is_partly_sold = (
            node.address in problem.leaving_tokens
            and 0 < draft.sold_raw.get(node.address, 0) < node.spendable_raw
        )
        if not node.is_asset or (deviation_value <= MIN_REPORTED * total and not is_partly_sold):
            continue
        is_excess = bool(excesses[token] > 0)
        locked_excess = _locked_excess(problem, objective, draft, token, total)
        if is_excess and locked_excess:
            place_names = (layer.place_name(step) for layer in questions.LAYERS)
            places_text = " or ".join(place_name for place_name in place_names if place_name)
            why = f"{_money_text(step.portfolio, locked_excess)} above its target are in {places_text}, which swaps cannot spend"
            skips.append(SkippedItem(node.label, why, LOCKED_EXCESS))
            continue
        opposite_deviations = shortfalls if is_excess else excesses
        counterparts = tuple(
            int(index) for index in np.flatnonzero(opposite_deviations > MIN_REPORTED * total)
        )
        turnover_binds = fixed_point.turnover_binds
        explaining_result = (graph, fixed_point)
        if unlimited_result is not None and unlimited_deviations is not None:
            turnover_binds = bool(unlimited_deviations[token] < deviation_value * SAME_DEVIATION)
            if not turnover_binds:
                explaining_result = unlimited_result
        binding_limit_name = turnover_limit_name if turnover_binds else ""
        remainder = _Remainder(
            token,
            deviation_value,
            is_excess,
            counterparts,
            turnover_binds,
            binding_limit_name,
            *explaining_result,
        )
        reason = _off_target_reason(step.limits, objective, total, remainder)
        cost_text = ""
        if reason.is_costly and node.address != step.portfolio.numeraire.address:
            counterpart_addresses = [problem.nodes[index].address for index in counterparts]
            cost_text = cost_reason(
                step.portfolio,
                problem,
                node.address,
                Fraction(round(deviation_value)),
                is_excess,
                counterpart_addresses,
            )
        deviation_text = _money_text(step.portfolio, deviation_value)
        message = f"{deviation_text} off target: {cost_text or reason.why}"
        skips.append(
            SkippedItem(node.label, message, reason.limit, bool(cost_text), reason.is_below_floor)
        )
    return skips


def _fee_waits(portfolio: Portfolio, problem: Problem, legs: Sequence[Leg]) -> list[SkippedItem]:
    """Return what it would save to wait in each pool in use whose fee falls while nobody trades."""
    wait_items = []
    for address in dict.fromkeys(leg.pool for leg in legs):
        pool = problem.pools[address]
        if pool.idle_fee is None or pool.idle_fee.pips >= pool.fee_pips:
            continue
        rise_pips = pool.fee_pips - pool.idle_fee.pips
        sold_value = sum(
            (
                leg.amount_in_raw * problem.price(leg.token_in)
                for leg in legs
                if leg.pool == address
            ),
            Fraction(0),
        )
        fee_text, rise_text = (
            value_text(Fraction(pips), 4, 4) for pips in (pool.fee_pips, rise_pips)
        )
        why = (
            f"its fee is {fee_text} %, {rise_text} % above its base after a move of its price;"
            f" {pool.idle_fee.after_s} s without trades in it would save"
            f" {_money_text(portfolio, float(sold_value * rise_pips / PIPS))}"
        )
        wait_items.append(SkippedItem(f"waiting for pool {address}", why))
    return wait_items


def _locked_excess(
    problem: Problem, objective: PlanObjective, draft: PlanDraft, token_index: int, total: float
) -> float:
    """Return the value of a token above its goal that no swap can spend; 0 if more is left that
    swaps can, which then has the reason.
    """
    node = problem.nodes[token_index]
    locked_value = float(objective.locked_values[token_index])
    locked_excess = locked_value - float(objective.high_shares[token_index]) * total
    change_value = float(draft.delta_raw.get(node.address, 0) * node.price)
    spendable_value = float(objective.held_values[token_index]) + change_value - locked_value
    return locked_excess if locked_excess > 0 and locked_excess >= spendable_value else 0.0


def _off_target_reason(
    limits: Limits, objective: PlanObjective, total: float, remainder: _Remainder
) -> _OffTargetReason:
    """Return why a token stays off target."""
    unmoved_tokens = remainder.fixed_point.unmoved_tokens
    problem = remainder.graph.problem
    nodes = problem.nodes
    if remainder.value < nodes[remainder.token_index].price:
        label = nodes[remainder.token_index].label
        return _OffTargetReason(
            f"{COARSE_UNIT_PHRASE} {label} is worth more than the drift", MIN_TRADE_LIMIT
        )
    if remainder.token_index in unmoved_tokens:
        return _unmoved_reason(limits, remainder)
    locked_tokens = {
        index
        for index in range(len(nodes))
        if _locked_excess(problem, objective, remainder.fixed_point.draft, index, total)
    }
    if remainder.counterparts and (locked_tokens | set(unmoved_tokens)).issuperset(
        remainder.counterparts
    ):
        why = f"{' and '.join(nodes[index].label for index in remainder.counterparts)} cannot be traded against it"
        if not remainder.is_excess and locked_tokens.issuperset(remainder.counterparts):
            return _OffTargetReason(why, LOCKED_EXCESS)
        are_dust = all(
            unmoved_tokens.get(index) == BELOW_MIN_TRADE for index in remainder.counterparts
        )
        return _OffTargetReason(
            why, MIN_TRADE_LIMIT if are_dust and not remainder.turnover_binds else ""
        )
    return _market_reason(remainder, weighs_risk=objective.risk is not None)


def _unmoved_reason(limits: Limits, remainder: _Remainder) -> _OffTargetReason:
    """Return why a token is not moved at all; bounds may leave only a small amount of a large
    remainder.
    """
    why = remainder.fixed_point.unmoved_tokens[remainder.token_index]
    min_trade = limits.min_trade
    is_dust = why == BELOW_MIN_TRADE and not remainder.turnover_binds
    if min_trade is None or not remainder.value >= min_trade:
        return _OffTargetReason(why, MIN_TRADE_LIMIT if is_dust else "")
    if remainder.turnover_binds:
        return _OffTargetReason(
            f"the amount that {remainder.turnover_limit_name} allows is {BELOW_MIN_TRADE}"
        )
    causes = {reason.cause for reason in remainder.fixed_point.dropped_pools.values()}
    if causes & {DropCause.GAS, DropCause.OVER_COST}:
        why = f"the amount that gas and the pools' bounds allow is {BELOW_MIN_TRADE}"
        return _OffTargetReason(why, PLAN_COST_LIMIT if is_dust else "")
    return _OffTargetReason(f"the amount that the pools' bounds allow is {BELOW_MIN_TRADE}")


def _market_reason(remainder: _Remainder, weighs_risk: bool) -> _OffTargetReason:
    """Return why the market does not bring a token to its goal: no route, impact bound, turnover
    limit, cost.
    """
    graph = remainder.graph
    fixed_point = remainder.fixed_point
    useful_edges = [
        edge
        for edge in graph.pool_edges
        if remainder.moves_as_needed(edge.token_in_index, edge.token_out_index)
    ]
    if not useful_edges:
        shut_directions = [
            (pool, source)
            for pool, source, target in graph.directions_below_floor
            if remainder.moves_as_needed(source, target)
        ]
        pools_text = ", ".join(pool for pool, _ in shut_directions)
        if weighs_risk and any(
            graph.problem.max_input(graph.problem.pools[pool], graph.problem.nodes[source].address)
            for pool, source in shut_directions
        ):
            plan_cost_text = f"limits.plan_cost of {graph.problem.plan_cost_bps} bps"
            return _OffTargetReason(
                f"with its gas {pools_text} costs more than {plan_cost_text}", PLAN_COST_LIMIT
            )
        if shut_directions:
            return _OffTargetReason(
                f"{pools_text} pays less than the floor set by the reference price",
                is_below_floor=True,
            )
        return _OffTargetReason("no usable pool trades it")
    if not _is_connected(
        graph, remainder.token_index, remainder.is_excess, frozenset(remainder.counterparts)
    ):
        return _OffTargetReason(
            "no route of usable pools connects it to a token off target on the other side"
        )
    useful_pools = {edge.pool_address for edge in useful_edges}
    if useful_pools <= fixed_point.dropped_pools.keys():
        return _dropped_reason(
            remainder, {fixed_point.dropped_pools[pool] for pool in useful_pools}
        )
    if remainder.turnover_limit_name:
        return _OffTargetReason(
            f"{remainder.turnover_limit_name} allows no more; the cheapest trades go first"
        )
    if fixed_point.approval_binds:
        wrapped_native = graph.problem.wrapped_native
        if (
            wrapped_native is not None
            and wrapped_native.native_counts
            and wrapped_native.approved_raw is None
        ):
            return _OffTargetReason("the rest of the native coin is kept for gas")
        return _OffTargetReason("this step has not approved more")
    return _bounds_reason(remainder, useful_edges, weighs_risk)


def _dropped_reason(remainder: _Remainder, drop_reasons: set[DropReason]) -> _OffTargetReason:
    """Return why every pool of a token was dropped."""
    plan_cost_bps = remainder.graph.problem.plan_cost_bps
    is_costly = all(reason.is_costly for reason in drop_reasons)
    is_over_cost = any(reason.cause is DropCause.OVER_COST for reason in drop_reasons)
    gas_text = DropCause.GAS.value
    if (
        is_costly and remainder.turnover_limit_name
    ):  # the limit determines how much gas is worth paying
        gas_text += f" within {remainder.turnover_limit_name}"
    elif is_costly and plan_cost_bps is not None and not is_over_cost:
        gas_text += f" within limits.plan_cost of {plan_cost_bps} bps"
    reasons_text = "; ".join(
        gas_text if reason.cause is DropCause.GAS else reason.text
        for reason in sorted(drop_reasons, key=lambda reason: reason.text)
    )
    limit_name = PLAN_COST_LIMIT if is_costly and not remainder.turnover_limit_name else ""
    return _OffTargetReason(f"no pool of it is used: {reasons_text}", limit_name)


def _bounds_reason(
    remainder: _Remainder, useful_edges: Sequence[PoolEdge], weighs_risk: bool
) -> _OffTargetReason:
    """Return why the used pools accept no more of a token: their bounds, their ticks, or
    the cost.
    """
    problem = remainder.graph.problem
    draft = remainder.fixed_point.draft
    full_pools = sorted({edge.pool_address for edge in useful_edges} & draft.full_pools) or sorted(
        draft.full_pools
    )
    elsewhere_text = "elsewhere " if full_pools else ""
    reasons = []
    exhausted_tick_pools = pools_out_of_ticks(problem.pools, draft.legs, problem.impact_bps)
    if exhausted_tick_pools and set(full_pools) & set(exhausted_tick_pools):
        reasons.append(f"the ticks read end at {', '.join(exhausted_tick_pools)}")
    elif full_pools and problem.impact_bps != UNBOUNDED_BPS:
        reasons.append(
            f"{', '.join(full_pools)} {'accepts' if len(full_pools) == 1 else 'accept'} no more"
            f" within limits.price_impact of {problem.impact_bps} bps and above the floor"
        )
    elif full_pools:
        reasons.append(
            f"{', '.join(full_pools)} {'holds' if len(full_pools) == 1 else 'hold'} no more"
        )
    if weighs_risk:
        reasons.append(
            f"{elsewhere_text}the next unit costs more than the risk it saves, or than limits.plan_cost"
        )
    elif problem.plan_cost_bps is not None:
        reasons.append(
            f"{elsewhere_text}trading it would cost more than limits.plan_cost of {problem.plan_cost_bps} bps"
        )
    why = "; ".join(reasons) or "the usable pools accept no more"
    if problem.plan_cost_bps is None or full_pools or weighs_risk:
        return _OffTargetReason(why)
    fees_pips = [
        problem.pools[edge.pool_address].fee_for(problem.nodes[edge.token_in_index].address)
        for edge in useful_edges
    ]
    # If the fee is lower, the cost comes from pools off the reference.
    if all(fee_pips * BPS >= problem.plan_cost_bps * PIPS for fee_pips in fees_pips):
        return _OffTargetReason(why, PLAN_COST_LIMIT)
    return _OffTargetReason(why, is_cost=True)


def _shortfalls_and_excesses(
    problem: Problem, objective: PlanObjective, draft: PlanDraft
) -> tuple[float, FloatArray, FloatArray]:
    """Return the total after a draft, and each token's shortfall and excess against its goal."""
    values_after = [
        value_before + float(draft.delta_raw.get(node.address, 0) * node.price)
        for value_before, node in zip(objective.held_values, problem.nodes, strict=True)
    ]
    total = math.fsum(values_after)
    return (
        total,
        objective.low_shares * total - values_after,
        values_after - objective.high_shares * total,
    )


def _is_connected(
    graph: PoolGraph, token: int, is_excess: bool, counterparts: frozenset[int]
) -> bool:
    """True if a chain of pools joins the token with one that moves the other way."""
    edges = [(edge.token_in_index, edge.token_out_index) for edge in graph.pool_edges]
    if not is_excess:
        edges = [(target, source) for source, target in edges]
    reached_tokens = {token}
    for _ in range(MAX_LEGS):
        reached_tokens |= {
            edge_end for edge_start, edge_end in edges if edge_start in reached_tokens
        }
    return bool(reached_tokens & counterparts)


def _money_text(portfolio: Portfolio, value: float) -> str:
    return portfolio.numeraire.money_text(Fraction(round(value)))


# --- Optimality gap of a plan: the dual of the same concave problem against the utility of the
# exact legs.
#
# The problem: all usable pools, within impact bound, ticks read and leg floor, trade any amounts so
# that the portfolio ends at y. Hubs end empty, turnover stays within its limit, and nothing is sold
# from positions or without approval. The objective is the utility of y
# (agent/planning/solver/utility.py). Any multipliers bound it (weak duality), so an imprecise solve
# only enlarges the reported gap.
#
# The gap is against the higher of two bounds. In the first a rate above the reference counts as
# just below it (a hundredth of a basis point). The second takes real rates, for plans in the token
# order of this one that move no token past its goal (agent/planning/solver/token_order.py). Neither
# includes arbitrage. The search proves the order best in most markets; with dozens of contradicting
# pools it stops early.
#
# Gas counts on both sides as the least base gas of a transaction, and for each direction of a pool in
# use the least that a swap through it adds. Gas of ticks, of tokens and of further legs through one
# pool is not part of the problem. limits.min_trade, limits.plan_cost of the whole plan and the legs
# per route are not either; their effect and integer rounding count in the gap. In a zone no unit of
# a swap costs more than limits.plan_cost; that the search lowers this bound until the plan as a whole
# costs no more is not part of the problem. A gap of zero on a skewed snapshot is the best plan for
# that snapshot.


FLOAT_ERROR = Fraction(1, 10**12)
"""Relative error of the bound's floating-point sums, counted against the plan."""
CLOSE_GAP = Fraction(1, 10 * BPS)
"""Gap, per unit of turnover, up to which a bound is not improved where there are many pools."""
FEW_DIRECTIONS = 40
CLOSE_GAP_FOR_FEW = CLOSE_GAP / 1_000
"""The same for at most FEW_DIRECTIONS directions of pools."""
MAX_BRANCHES = 24
"""Maximum number of subproblems of the bound, each of which decides one pool."""
STEPS_PER_BPS = 10**6
"""Steps per basis point to which a gap is rounded up."""


def gap_bps(
    graph: PoolGraph, objective: PlanObjective, fixed_point: FixedPoint, max_turnover: Value | None
) -> Fraction:
    """Return (bound − achieved) / max(turnover, 1 bp of the total), in bps, rounded up; the larger
    of both gaps, at least zero.
    """
    problem = graph.problem
    draft = fixed_point.draft
    scale = Fraction(graph.scale)
    values_before = [node.value / scale for node in problem.nodes]
    value_changes = [
        draft.delta_raw.get(node.address, 0) * node.price / scale for node in problem.nodes
    ]
    values_after = [
        value_before + (value_change if node.is_asset else min(value_change, Fraction(0)))
        for value_before, value_change, node in zip(
            values_before, value_changes, problem.nodes, strict=True
        )
    ]
    optimizer = objective.optimizer(
        graph.scale,
        np.zeros(len(values_before)),
        {},
        None if max_turnover is None else float(max_turnover),
    )
    total = sum(values_before, Fraction(0))
    turnover_basis = max(draft.turnover(problem) / scale, total / BPS)
    used_directions = {(leg.pool, problem.index_by_token[leg.token_in]) for leg in draft.legs}
    achieved_utility = optimizer.utility.exact_utility_of(values_after) - Fraction(
        graph.least_gas(used_directions)
    )
    close_gap = CLOSE_GAP_FOR_FEW if len(graph.pool_edges) <= FEW_DIRECTIONS else CLOSE_GAP
    close_bound = float(achieved_utility + close_gap * turnover_basis) + graph.base_gas
    bound_problems = [(optimizer, graph.counted_after_charges, graph.rows())]
    if graph.pays_above_reference:
        # A whole sale has no order of its own, and its draft counts no gain above the reference.
        token_order = fixed_point.token_order or order_tokens(graph, graph.rows(), optimizer)
        curve_rows = token_order.rows(graph.real_curves, graph.rows())
        bound_problems.append(
            (token_order.restrict(optimizer), graph.real_after_charges, curve_rows)
        )
    bound = -math.inf
    for gap_optimizer, charged_curves, curve_rows in bound_problems:
        enough_bound = max(close_bound, bound)
        bound = max(
            bound,
            bound_with_charges(
                charged_curves, curve_rows, gap_optimizer.solve, MAX_BRANCHES, enough_bound
            ),
        )
    best_utility = max(
        optimizer.utility.exact_utility_of(values_before),
        Fraction(bound) - Fraction(graph.base_gas),
    )
    return rounded_gap(best_utility - achieved_utility + FLOAT_ERROR * total, turnover_basis)


def rounded_gap(shortfall: Fraction, turnover_basis: Fraction) -> Fraction:
    """Return the shortfall per unit of `turnover_basis` in bps, rounded up to a millionth; zero for
    a negative one, which is float noise.
    """
    return Fraction(
        max(0, ceil_int(shortfall / turnover_basis * BPS * STEPS_PER_BPS)), STEPS_PER_BPS
    )
