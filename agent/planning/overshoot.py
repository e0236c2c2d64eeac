"""Plans that go beyond the drift: what pools pay above the reference is no reason to move anything (T9)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from agent.model import Leg
from agent.planning.aims import Aim
from agent.planning.draft import Draft
from agent.planning.problem import Problem
from agent.units import Value

HAIR = Fraction(1, 100_000)
"""Part of the portfolio, a tenth of a basis point: what float noise may miss a goal by, beside a base unit for each end of a leg."""
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
    slack = total * HAIR + sum((problem.price(leg.token_in) + problem.price(leg.token_out) for leg in draft.legs), Fraction(0))
    low, high = [Fraction(share) for share in aim.low.tolist()], [Fraction(share) for share in aim.high.tolist()]
    passed = [
        node.label
        for node, start, end, least, most in zip(problem.nodes, before, after, low, high, strict=True)
        if node.is_asset and not min(start, least * total) - slack <= end <= max(start, most * total) + slack
    ]
    if passed:
        return f"move {' and '.join(passed)} past its goal"
    found = total - sum(before, Fraction(0))
    corrected = _off(before, low, high) - _off(after, low, high)
    if found > 0 and draft.turnover(problem) > CHURN * (corrected + found) + slack:
        return "turn over more than the drift"
    return ""


def _off(values: Sequence[Value], low: Sequence[Fraction], high: Sequence[Fraction]) -> Value:
    """Value that has to move: beyond the goals on the side that has more of it."""
    total = sum(values, Fraction(0))
    above = sum((max(Fraction(0), value - most * total) for value, most in zip(values, high, strict=True)), Fraction(0))
    below = sum((max(Fraction(0), least * total - value) for value, least in zip(values, low, strict=True)), Fraction(0))
    return max(above, below)


def best_paying(problem: Problem, draft: Draft, too_far: str) -> tuple[str, str]:
    """The pool of the leg that pays most per unit at reference prices, and why it is done without: with it the plan goes `too_far`."""

    def rate(leg: Leg) -> Fraction:
        return leg.amount_out_raw * problem.price(leg.token_out) / (leg.amount_in_raw * problem.price(leg.token_in))

    best = max(draft.legs, key=rate)
    why = "pays above the reference price" if rate(best) > 1 else "exchanges too few base units to hit a goal"
    return best.pool, f"{why}: with it the plan would {too_far}"
