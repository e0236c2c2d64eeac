"""How far a plan can be from the best one: the dual of the same concave problem against what the exact legs achieve.

The problem: all usable pools, each within its impact bound, the ticks read and the floor of a leg, trade any amounts so that the
portfolio ends at y. Hubs end empty, and what a plan left in one counts as lost; turnover keeps to its limit, nothing is sold that
lies in positions or is not approved, and what counts is the worth of y (agent/planning/worth.py): value at reference prices less the
price of what is off the goal. Any multipliers give a bound on the worth of every such plan (weak duality), so that an imprecise
solve makes the reported gap larger, never smaller.

Two bounds are worked out, and the higher one counts. For the first a pool that pays more than the reference counts as free, not as
profit: its rates above the reference are levelled to just below it (a hundredth of a basis point). The second takes what pools
really pay, for plans that run through the tokens in the order of this one and move none past its goal
(agent/planning/course.py). Arbitrage for its own sake, which the planner never does, is part of neither. Whether another order
would bring more is proven by the search for it in most markets; where very many pools contradict each other it is only tried.

Not part of it: gas, limits.min_trade and the number of legs on a route. What a plan leaves undone because of them, and what is lost
to integers, counts in its gap. Nor is what a snapshot hides: a gap of zero on a skewed snapshot is a perfect plan for that snapshot.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from agent.planning.aims import Aim
from agent.planning.market import Market
from agent.planning.settle import Settled
from agent.units import BPS, Value, ceil_int

FLOAT_ERROR = Fraction(1, 10**12)
"""Relative error of the bound's floating-point sums, taken off the plan's side."""
DIGITS = 10**6
"""A gap is rounded up to a millionth of a basis point."""


def gap_bps(market: Market, aim: Aim, settled: Settled, budget: Value | None) -> Fraction:
    """(bound − achieved) / max(turnover, 1 bp of the total), in bps, rounded up; the larger of both gaps, at least zero."""
    problem, draft, scale = market.problem, settled.draft, Fraction(market.scale)
    held = [node.value / scale for node in problem.nodes]
    moved = [draft.delta.get(node.address, 0) * node.price / scale for node in problem.nodes]
    ends = [has + (move if node.is_asset else min(move, Fraction(0))) for has, move, node in zip(held, moved, problem.nodes, strict=True)]
    search = aim.search(market.scale, np.zeros(len(held)), {}, None if budget is None else float(budget))
    bound = search.solve(market.counted).bound
    if settled.course is not None:
        rows = settled.course.rows(market.real, market.rows())
        bound = max(bound, settled.course.search(search).solve(market.real.rows(rows)).bound)
    total = sum(held, Fraction(0))
    basis = max(draft.turnover(problem) / scale, total / BPS)
    return rounded_gap(Fraction(bound) - search.worth.exactly(ends) + FLOAT_ERROR * total, basis)


def rounded_gap(short: Fraction, basis: Fraction) -> Fraction:
    """`short` of the bound per unit of `basis`, in bps, rounded up to a millionth; below zero it is float noise, and zero."""
    return Fraction(max(0, ceil_int(short / basis * BPS * DIGITS)), DIGITS)
