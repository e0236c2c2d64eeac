"""Plans that go beyond the drift: what pools pay above the reference is no reason to move anything (T9)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from agent.planning.aims import Aim
from agent.planning.problem import Problem
from agent.planning.rounding import Draft
from agent.units import Value

HAIR = Fraction(1, 100_000)
"""Part of the portfolio, a tenth of a basis point: what integers and float noise may miss a goal by."""
CHURN = Fraction(105, 100)
"""Turnover per unit of drift corrected and of money found on the way."""


def beyond(problem: Problem, aim: Aim, draft: Draft) -> str:
    """What a draft does beyond correcting the drift, in exact numbers; empty when nothing.

    It sells a token below its goal's low share of the final total, or buys one above its high one (what was beyond a goal
    before may stay there); or it gains, and turns over more than the drift and the gain. In a zone tokens may cross their
    targets, since those that move together make up for each other: nothing is said of it.
    """
    if aim.risk is not None:
        return ""
    before = [node.value for node in problem.nodes]
    after = [node.value + draft.delta.get(node.address, 0) * node.price for node in problem.nodes]
    total = sum(after, Fraction(0))
    low, high = [Fraction(share) for share in aim.low.tolist()], [Fraction(share) for share in aim.high.tolist()]
    passed = [
        node.label
        for node, start, end, least, most in zip(problem.nodes, before, after, low, high, strict=True)
        if node.is_asset
        and not min(start, least * total) - total * HAIR - node.price <= end <= max(start, most * total) + total * HAIR + node.price
    ]
    if passed:
        return f"move {' and '.join(passed)} past its goal"
    found = total - sum(before, Fraction(0))
    corrected = _off(before, low, high) - _off(after, low, high)
    if found > 0 and draft.turnover(problem) > CHURN * (corrected + found) + total * HAIR:
        return "turn over more than the drift"
    return ""


def _off(values: Sequence[Value], low: Sequence[Fraction], high: Sequence[Fraction]) -> Value:
    """Value that has to move: beyond the goals on the side that has more of it."""
    total = sum(values, Fraction(0))
    above = sum((max(Fraction(0), value - most * total) for value, most in zip(values, high, strict=True)), Fraction(0))
    below = sum((max(Fraction(0), least * total - value) for value, least in zip(values, low, strict=True)), Fraction(0))
    return max(above, below)


def best_paying(problem: Problem, draft: Draft) -> str:
    """The pool of the leg that pays most per unit at reference prices."""
    return max(
        draft.legs, key=lambda leg: leg.amount_out_raw * problem.price(leg.token_out) / (leg.amount_in_raw * problem.price(leg.token_in))
    ).pool
