"""The complete plan: predictions after the legs, cost, expiry, optimality gap, and skipped items
with reasons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from agent.floats import FloatArray
from agent.model import Plan, Rebalance, SkippedItem, StepInput
from agent.planning.fixed_point import DUST, FixedPoint
from agent.planning.gas import balance_deltas, with_payment_legs
from agent.planning.pool_selection import COSTLY, DEAR, OVER_COST
from agent.planning.problem import FAR, UNBOUNDED_BPS, PoolGraph, Problem
from agent.planning.rounding import PlanDraft, pools_out_of_ticks
from agent.planning.routes import MAX_LEGS
from agent.planning.utility import PlanObjective
from agent.units import BPS, NATIVE, PIPS, Value, ceil_int, largest_remainder, value_text

PLAN_COST, MIN_TRADE = "limits.plan_cost", "limits.min_trade"
LIFTED = 0.999
"""Part of a token's deviation above which its remainder counts as equal without the limit of
turnover."""
Free = tuple[PoolGraph, FixedPoint]
WORTH_SAYING = 1e-5
"""Fraction of the total (a tenth of a basis point) below which a remainder is rounding error."""


def assemble_plan(
    step: StepInput,
    problem: Problem,
    decision: Rebalance,
    draft: PlanDraft,
    skipped: Sequence[SkippedItem],
    gap_bps: Fraction | None,
) -> Plan:
    """Return a plan of these legs with its certificate, not judged by guards yet."""
    held = {holding.token: holding.raw for holding in step.snapshot.holdings}
    legs = with_payment_legs(problem.coin, draft.legs)
    moved = balance_deltas(legs)
    after = tuple(
        (node.address, held[node.address] + moved.get(node.address, 0)) for node in problem.assets
    )
    values = [node.value + draft.delta.get(node.address, 0) * node.price for node in problem.assets]
    return Plan(
        block=step.snapshot.head.number,
        decision=decision,
        legs=legs,
        holdings_after=after,
        weights_after_bps=tuple(
            zip((node.address for node in problem.assets), largest_remainder(values), strict=True)
        ),
        cost=draft.cost(problem),
        turnover=draft.turnover(problem),
        gross_volume=draft.gross,
        gas_units=draft.gas_units(problem),
        gap_bps=gap_bps,
        verdicts=(),
        skipped=tuple(skipped),
        expires_block=step.snapshot.head.number + step.execution.expire_blocks,
        native_after_wei=step.snapshot.native_wei + moved[NATIVE] if NATIVE in moved else None,
    )


def skipped_items(
    step: StepInput,
    market: PoolGraph,
    objective: PlanObjective,
    settled: FixedPoint,
    turnover_limit: str,
    free: Free | None,
) -> list[SkippedItem]:
    """Return everything that the plan leaves undone, each with its reason.

    `free` is the result without the limit of turnover, if that may be what binds: a token that
    stays as far off there has another reason.
    """
    problem, draft = market.problem, settled.draft
    found = list(problem.notes)
    found += [SkippedItem(f"pool {pool}", why) for pool, why in settled.dropped.items()]
    found += [
        SkippedItem(
            f"pool {pool}", f"pays over {FAR:g} times the reference price: one of both is wrong"
        )
        for pool in market.far
    ]
    if settled.bounded and (
        free is None or free[1].draft.turnover(problem) > draft.turnover(problem)
    ):
        moved = value_text(draft.turnover(problem), step.portfolio.numeraire.decimals, 2)
        found.append(
            SkippedItem(
                "part of the drift",
                f"{turnover_limit} lets this plan move {moved}; what is cheapest to move goes"
                " first",
            )
        )
    total, below, above = _off(problem, objective, draft)
    stays = np.maximum(*_off(problem, objective, free[1].draft)[1:]) if free is not None else None
    for token, node in enumerate(problem.nodes):
        rest = max(float(below[token]), float(above[token]), 0.0)
        if rest <= WORTH_SAYING * total or not node.is_asset:
            continue
        others = [
            int(i)
            for i in np.flatnonzero((below if above[token] > 0 else above) > WORTH_SAYING * total)
        ]
        if above[token] > 0 and objective.locked[token] > objective.high[token] * total:
            found.append(
                SkippedItem(
                    node.label,
                    f"{_money(step, rest)} above its target are in liquidity positions, which swaps"
                    " do not spend",
                )
            )
            continue
        kept_by = ""
        bounded = settled.bounded if stays is None else bool(stays[token] < rest * LIFTED)
        seen, found_there = (market, settled) if free is None or bounded else free
        fixed = {
            i
            for i in range(len(below))
            if i in found_there.unmoved or objective.locked[i] > objective.high[i] * total
        }
        if token in found_there.unmoved:
            why = found_there.unmoved[token]
            kept_by = MIN_TRADE if why == DUST and not bounded else ""
            if step.limits.min_trade is not None and rest >= step.limits.min_trade:
                gas = "gas" if DEAR in found_there.dropped.values() else ""
                kept_by = PLAN_COST if gas and kept_by else ""
                if bounded:
                    bounds = [turnover_limit]
                else:
                    bounds = [bound for bound in (gas, "the pools' bounds") if bound]
                why = (
                    f"what {' and '.join(bounds)} {'lets' if bounded else 'let'} it move is {DUST}"
                )
        elif others and fixed.issuperset(others):
            why = f"{' and '.join(problem.nodes[i].label for i in others)} would be the other side"
            if not bounded and all(found_there.unmoved.get(i) == DUST for i in others):
                kept_by = MIN_TRADE
            else:
                kept_by = ""
        else:
            sells = bool(above[token] > 0)
            limit = turnover_limit if bounded else ""
            why, kept_by = _why(
                seen,
                found_there,
                token,
                sells,
                frozenset(others),
                limit,
                zone=objective.risk is not None,
            )
        found.append(SkippedItem(node.label, f"{_money(step, rest)} off target: {why}", kept_by))
    return found


def _why(  # noqa: C901
    market: PoolGraph,
    settled: FixedPoint,
    token: int,
    sells: bool,
    others: frozenset[int],
    turnover_limit: str,
    zone: bool,
) -> tuple[str, str]:
    """Return why a token misses its goal (no route, impact bound, limit of routes, market cost),
    and `kept_by`.

    `turnover_limit` is empty if it does not bind.
    """
    problem = market.problem
    own = [
        pool_edge
        for pool_edge in market.pool_edges
        if (pool_edge.source if sells else pool_edge.target) == token
    ]
    poor = [
        pool
        for pool, source, target in market.below_floor
        if (source if sells else target) == token
    ]
    if not own and poor:
        return f"{', '.join(poor)} pays less than the floor, for which the reference price asks", ""
    if not own:
        return "no usable pool trades it", ""
    if not _connected(market, token, sells, others):
        return "no route of usable pools joins it with a token that needs the other side", ""
    reasons = {settled.dropped.get(pool_edge.pool, "") for pool_edge in own}
    if "" not in reasons:
        why = f"no pool of it is used: {'; '.join(sorted(reasons))}"
        if not all(reason.startswith(COSTLY) for reason in reasons):
            return why, ""
        if DEAR in reasons and turnover_limit:  # the limit decides how much gas is worth paying
            return f"{why} within {turnover_limit}", ""
        if (
            DEAR in reasons
            and problem.plan_cost_bps is not None
            and not any(reason.startswith(OVER_COST) for reason in reasons)
        ):
            why += f" within limits.plan_cost of {problem.plan_cost_bps} bps"
        return why, "" if turnover_limit else PLAN_COST
    if turnover_limit:
        return f"{turnover_limit} is used up by what is cheaper to move", ""
    if settled.held_back:
        coin = problem.coin
        kept = coin is not None and coin.counts and coin.approved_raw is None
        return (
            (
                "the rest of the native coin is kept for gas"
                if kept
                else "this step has approved no more"
            ),
            "",
        )
    full = sorted({pool_edge.pool for pool_edge in own} & settled.draft.full) or sorted(
        settled.draft.full
    )
    parts = []
    ended = pools_out_of_ticks(problem.pools, settled.draft.legs, problem.impact_bps)
    if ended and set(full) & set(ended):
        parts.append(f"the ticks read end at {', '.join(ended)}")
    elif full and problem.impact_bps != UNBOUNDED_BPS:
        parts.append(
            f"{', '.join(full)} take no more within limits.price_impact of {problem.impact_bps} bps"
            " and above the floor"
        )
    elif full:
        parts.append(f"{', '.join(full)} hold no more")
    if zone:
        parts.append(
            f"{'elsewhere ' if full else ''}the next unit costs more than the risk it saves, or"
            " than limits.plan_cost"
        )
    elif problem.plan_cost_bps is not None:
        parts.append(
            f"{'elsewhere ' if full else ''}trading it would cost more than limits.plan_cost of"
            f" {problem.plan_cost_bps} bps"
        )
    fees = [problem.pools[pool_edge.pool].fee_pips for pool_edge in own]
    dear = problem.plan_cost_bps is not None and all(
        pips * BPS >= problem.plan_cost_bps * PIPS for pips in fees
    )  # else the pools are off
    return "; ".join(parts) or "the usable pools take no more", (
        PLAN_COST if dear and not full and not zone else ""
    )


def _off(
    problem: Problem, objective: PlanObjective, draft: PlanDraft
) -> tuple[float, FloatArray, FloatArray]:
    """Return the total after a draft, and each token's shortfall and excess against its goal."""
    ends = [
        has + float(draft.delta.get(node.address, 0) * node.price)
        for has, node in zip(objective.held, problem.nodes, strict=True)
    ]
    total = math.fsum(ends)
    return total, objective.low * total - ends, ends - objective.high * total


def _connected(market: PoolGraph, token: int, sells: bool, others: frozenset[int]) -> bool:
    """True if a chain within the length limit joins the token with one that moves the other way."""
    reached = {token}
    for _ in range(MAX_LEGS):
        reached |= {
            pool_edge.target if sells else pool_edge.source
            for pool_edge in market.pool_edges
            if (pool_edge.source if sells else pool_edge.target) in reached
        }
    return bool(reached & others)


def _money(step: StepInput, value: float) -> str:
    numeraire = step.portfolio.numeraire
    return f"{value_text(Fraction(round(value)), numeraire.decimals, 2)} {numeraire.label}"


# --- Optimality gap of a plan: the dual of the same concave problem against the utility of the
# exact legs.
# The problem: all usable pools, within impact bound, ticks read and leg floor, trade any amounts so
# that the portfolio ends at y. Hubs
# end empty, turnover keeps to its limit, and nothing is sold from positions or without approval.
# The objective is the utility of y
# (agent/planning/utility.py). Any multipliers bound it (weak duality), so that an imprecise solve
# only enlarges the reported gap.
# The gap is against the higher of two bounds. In the first a rate above the reference counts as
# just below it (a hundredth of a basis
# point). The second takes real rates, for plans in the token order of this one that move no token
# past its goal
# (agent/planning/cycles.py). Arbitrage for its own sake is part of neither. The search proves the
# order best in most markets; with very
# many contradicting pools it only tries.
# Not part of the problem: gas, limits.min_trade and the legs per route, whose effect and integer
# rounding count in the gap; and anything
# the snapshot hides: a gap of zero on a skewed snapshot is the best plan for that snapshot.


FLOAT_ERROR = Fraction(1, 10**12)
"""Relative error of the bound's floating-point sums, charged to the plan."""
DIGITS = 10**6
"""A gap is rounded up to a millionth of a basis point."""


def gap_bps(
    market: PoolGraph, objective: PlanObjective, settled: FixedPoint, budget: Value | None
) -> Fraction:
    """(bound − achieved) / max(turnover, 1 bp of the total), in bps, rounded up; the larger of both
    gaps, at least zero.
    """
    problem, draft, scale = market.problem, settled.draft, Fraction(market.scale)
    held = [node.value / scale for node in problem.nodes]
    moved = [draft.delta.get(node.address, 0) * node.price / scale for node in problem.nodes]
    ends = [
        has + (move if node.is_asset else min(move, Fraction(0)))
        for has, move, node in zip(held, moved, problem.nodes, strict=True)
    ]
    search = objective.search(
        market.scale, np.zeros(len(held)), {}, None if budget is None else float(budget)
    )
    bound = search.solve(market.counted).bound
    if settled.token_order is not None:
        rows = settled.token_order.rows(market.real, market.rows())
        bound = max(bound, settled.token_order.search(search).solve(market.real.rows(rows)).bound)
    total = sum(held, Fraction(0))
    basis = max(draft.turnover(problem) / scale, total / BPS)
    return rounded_gap(Fraction(bound) - search.worth.exactly(ends) + FLOAT_ERROR * total, basis)


def rounded_gap(short: Fraction, basis: Fraction) -> Fraction:
    """`short` of the bound per unit of `basis`, in bps, rounded up to a millionth; below zero it is
    float noise, and zero.
    """
    return Fraction(max(0, ceil_int(short / basis * BPS * DIGITS)), DIGITS)
