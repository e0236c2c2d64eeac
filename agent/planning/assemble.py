"""The plan in full: predictions after the legs, cost, expiry, and for everything left undone the reason."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from agent.model import Plan, Rebalance, Skipped, StepInput
from agent.planning.aims import Aim
from agent.planning.market import Market
from agent.planning.paths import MAX_LEGS
from agent.planning.problem import UNBOUNDED_BPS, Problem
from agent.planning.rounding import Draft
from agent.planning.settle import Settled
from agent.units import largest_remainder, value_text

WORTH_SAYING = 1e-5
"""Part of the total (a tenth of a basis point) below which a rest is rounding, not something left undone."""


def assemble(step: StepInput, problem: Problem, decision: Rebalance, draft: Draft, skipped: Sequence[Skipped]) -> Plan:
    """A plan of these legs. Guards have not judged it yet; there is no certificate."""
    held = {holding.token: holding.raw for holding in step.snapshot.holdings}
    after = tuple((node.address, held[node.address] + draft.delta.get(node.address, 0)) for node in problem.assets)
    values = [node.value + draft.delta.get(node.address, 0) * node.price for node in problem.assets]
    return Plan(
        block=step.snapshot.head.number,
        decision=decision,
        legs=tuple(draft.legs),
        holdings_after=after,
        weights_after_bps=tuple(zip((node.address for node in problem.assets), largest_remainder(values), strict=True)),
        cost=draft.cost(problem),
        turnover=draft.turnover(problem),
        gross_volume=draft.gross,
        gas_units=draft.gas_units,
        gap_bps=None,
        verdicts=(),
        skipped=tuple(skipped),
        expires_block=step.snapshot.head.number + step.execution.expire_blocks,
    )


def left_undone(
    step: StepInput, market: Market, aim: Aim, goal: Sequence[tuple[float, float]], settled: Settled, turnover_limit: str
) -> list[Skipped]:
    """What the plan leaves out, each with its reason. `goal` are the wanted shares of the final total by node."""
    problem, draft = market.problem, settled.draft
    found = list(problem.notes)
    found += [Skipped(f"pool {pool}", why) for pool, why in settled.dropped.items()]
    if settled.part < 1:
        moved = value_text(draft.turnover(problem), step.portfolio.numeraire.decimals, 2)
        found.append(
            Skipped(
                "part of the drift", f"{turnover_limit} lets this plan move {moved}; it goes {settled.part:.0%} of the way, evenly for all"
            )
        )
    ends = [has + float(draft.delta.get(node.address, 0) * node.price) for has, node in zip(aim.held, problem.nodes, strict=True)]
    total = sum(ends)
    rests = [max(low * total - end, end - high * total, 0.0) for end, (low, high) in zip(ends, goal, strict=True)]
    for token, node in enumerate(problem.nodes):
        rest, high = rests[token], goal[token][1]
        short = abs(ends[token] - settled.wanted[token])
        if rest <= WORTH_SAYING * total:
            continue
        if aim.is_locked(token, high * total):
            found.append(Skipped(node.label, f"{_money(step, rest)} above its goal stay in liquidity positions, which swaps do not spend"))
        elif token in settled.still:
            found.append(Skipped(node.label, f"{_money(step, rest)} from its goal stays: {settled.still[token]}"))
        elif short > WORTH_SAYING * total:
            found.append(Skipped(node.label, f"{_money(step, rest)} from its goal stays: {_why(market, settled, token, aim)}"))
        elif settled.part == 1:
            fixed = [i in settled.still or aim.is_locked(i, ask * total) for i, (_, ask) in enumerate(goal)]
            stay = [problem.nodes[i].label for i, is_fixed in enumerate(fixed) if is_fixed and rests[i] > WORTH_SAYING * total]
            found.append(Skipped(node.label, f"{_money(step, rest)} from its goal stays: {' and '.join(stay)} would be the other side"))
    return found


def _why(market: Market, settled: Settled, token: int, aim: Aim) -> str:
    """Why a token does not get where it should: no route, the impact bound, a limit of routes, or what the market asks."""
    problem = market.problem
    sells = aim.held[token] > settled.wanted[token]
    own = [arc for arc in market.arcs if (arc.source if sells else arc.target) == token]
    if not own:
        return "no usable pool trades it"
    if not _connected(market, settled, token, sells):
        return "no route of usable pools joins it with a token that needs the other side"
    if settled.held_back:
        return "this step has approved no more"
    full = sorted({arc.pool for arc in own} & settled.draft.full) or sorted(settled.draft.full)
    parts = []
    if full and problem.impact_bps != UNBOUNDED_BPS:
        parts.append(f"{', '.join(full)} take no more within limits.price_impact of {problem.impact_bps} bps")
    elif full:
        parts.append(f"the ticks read end in {', '.join(full)}")
    if problem.plan_cost_bps is not None:
        parts.append(f"{'elsewhere ' if full else ''}the market or its gas asks more than limits.plan_cost of {problem.plan_cost_bps} bps")
    return "; ".join(parts) or "the usable pools take no more"


def _connected(market: Market, settled: Settled, token: int, sells: bool) -> bool:
    """True when a chain that is not too long joins the token with one that is to move the other way."""
    held, wanted = [float(node.value) for node in market.problem.nodes], settled.wanted
    others = {i for i in range(len(held)) if (wanted[i] > held[i] if sells else wanted[i] < held[i])}
    reached = {token}
    for _ in range(MAX_LEGS):
        reached |= {arc.target if sells else arc.source for arc in market.arcs if (arc.source if sells else arc.target) in reached}
    return bool(reached & others)


def _money(step: StepInput, value: float) -> str:
    numeraire = step.portfolio.numeraire
    return f"{value_text(Fraction(round(value)), numeraire.decimals, 2)} {numeraire.label}"
