"""limits.max_weight as a trigger: a weight above it is brought down whatever the policy's trigger waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from agent.model import AssetDrift, Goal, GoalWeight, Only, StepInput
from agent.policy import words
from agent.policy.triggers import Fired, Signal
from agent.units import BPS

BELOW_BPS = 50
"""How far below its limit a weight ends that is brought down to it, so that the next small rise asks for nothing."""
BUYS = (Only.BUY, Only.LOSERS)
"""Sides under which nothing is sold for being too much."""


def over(drifts: Sequence[AssetDrift]) -> tuple[AssetDrift, ...]:
    """Assets above their limit. One whose target is its limit is left to the trigger: any rise would ask."""
    return tuple(one for one in drifts if one.max_bps is not None and one.target_bps < one.max_bps < one.share * BPS)


def signals(drifts: Sequence[AssetDrift]) -> frozenset[Signal]:
    """The same as what prices ask for."""
    return frozenset(("above limits.max_weight", one.token) for one in over(drifts))


def fired(step: StepInput, drifts: Sequence[AssetDrift], answer: Fired) -> Fired:
    """The trigger's answer; where it does not fire, the limit's. A zone's gives way: what it weighs may be less than the limit demands."""
    if answer.fired or not asks(step, drifts):
        return answer
    told = "; ".join(
        f"{one.symbol} at {words.percent(one.share)} is above limits.max_weight of {(one.max_bps or 0) / 100:g} %" for one in over(drifts)
    )
    return replace(answer, fired=True, reason=told, by_time=False, signals=tuple(sorted(signals(drifts))), waits_s=None)


def asks(step: StepInput, drifts: Sequence[AssetDrift]) -> bool:
    """Whether a weight has to be brought down."""
    return step.policy.only not in BUYS and bool(over(drifts))


def bounded(drifts: Sequence[AssetDrift], goal: Goal) -> Goal:
    """The goal, with points above a limit moved to just below it; what that frees goes to what lacks most of its target, in proportion."""
    ends = {one.token: _end(one) for one in over(drifts)}
    points = {one.token: min(one.low, ends.get(one.token, one.low)) for one in goal.weights}
    if any(one.low != one.high for one in goal.weights) or all(points[one.token] == one.low for one in goal.weights):
        return goal
    return replace(goal, weights=_filled(drifts, points))


def down(drifts: Sequence[AssetDrift]) -> Goal:
    """Only what is above its limit is sold, to just below it; what lacks of its target is bought for it."""
    ends = {one.token: _end(one) for one in over(drifts)}
    return Goal(_filled(drifts, {one.token: ends.get(one.token, one.share) for one in drifts}))


def _end(one: AssetDrift) -> Fraction:
    return Fraction(max(one.target_bps, (one.max_bps or BPS) - BELOW_BPS), BPS)


def _filled(drifts: Sequence[AssetDrift], points: dict[str, Fraction]) -> tuple[GoalWeight, ...]:
    """The points with what they lack of one spread over what is below its target, by how much that is."""
    lacks = {one.token: max(Fraction(0), Fraction(one.target_bps, BPS) - points[one.token]) for one in drifts}
    rest, whole = 1 - sum(points.values(), Fraction(0)), sum(lacks.values(), Fraction(0))
    ends = {token: point + (rest * lacks[token] / whole if whole else Fraction(0)) for token, point in points.items()}
    return tuple(GoalWeight(token, end, end) for token, end in ends.items())
