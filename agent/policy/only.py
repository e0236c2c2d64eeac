"""One side of a rebalance alone: what is sold or bought under policy.only, and where the proceeds or the money come from.

- sell: what is above its goal is sold down to it. Nothing is bought: the proceeds wait in the numeraire, which is not spent.
- buy: what is below its goal is bought with what the numeraire has above its own target; where that is too little, each gets
  the same part of what it lacks. Nothing else is sold.
- winners: what is above its band is sold down to its goal; the proceeds go to all that is below target, in proportion to what
  each lacks. What is above target within its band is left alone.
- losers: what is below its band is bought up to its goal; it is paid for by all that is above target, in proportion to what
  each has too much. What is below target within its band is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from agent.model import AssetDrift, Goal, GoalWeight, Only
from agent.units import BPS

Changes = dict[str, Fraction]
"""Changes of shares by token; what is not in it is not moved."""


def narrowed(drifts: Sequence[AssetDrift], goal: Goal, only: Only | None, numeraire: str) -> Goal:
    """The goal where one side alone is traded, as above; the same without `only`.

    All else may neither be sold nor bought; under sell and buy the numeraire takes the other side, so that it may grow, or shrink,
    alone.
    """
    if only is None:
        return goal
    off = {one.token: min(max(one.share, want.low), want.high) - one.share for one, want in zip(drifts, goal.weights, strict=True)}
    match only:
        case Only.SELL:
            changes = {token: change for token, change in off.items() if change < 0 and token != numeraire}
        case Only.BUY:
            lacks = {token: change for token, change in off.items() if change > 0 and token != numeraire}
            changes = _scaled(lacks, max(Fraction(0), -_short(drifts).get(numeraire, Fraction(0))))
        case Only.WINNERS:
            sold = {one.token: off[one.token] for one in drifts if one.outside and off[one.token] < 0}
            changes = sold | _scaled({token: lack for token, lack in _short(drifts).items() if lack > 0}, -sum(sold.values()))
        case Only.LOSERS:
            bought = {one.token: off[one.token] for one in drifts if one.outside and off[one.token] > 0}
            changes = bought | _scaled({token: lack for token, lack in _short(drifts).items() if lack < 0}, sum(bought.values()))
    return _goal(drifts, changes, numeraire if only in (Only.SELL, Only.BUY) else None, only is Only.SELL)


def _short(drifts: Sequence[AssetDrift]) -> Changes:
    """What each share lacks of its target; below zero where it has too much."""
    return {one.token: Fraction(one.target_bps, BPS) - one.share for one in drifts}


def _scaled(wanted: Mapping[str, Fraction], money: Fraction | int) -> Changes:
    """`wanted`, all of one sign, in the same proportion, so that they sum to `money` at most."""
    whole = abs(sum(wanted.values(), Fraction(0)))
    part = min(Fraction(1), money / whole) if whole else Fraction(0)
    return {token: change * part for token, change in wanted.items() if part}


def _goal(drifts: Sequence[AssetDrift], changes: Changes, money: str | None, grows: bool) -> Goal:
    """Points for all: what is not moved stays at its share. `money` takes the other side of what is not balanced in itself."""
    rest = -sum(changes.values(), Fraction(0))
    ends = {one.token: one.share + changes.get(one.token, rest if one.token == money else Fraction(0)) for one in drifts}
    sold = {token for token, change in changes.items() if change < 0}
    bought = {token for token, change in changes.items() if change > 0}
    if money is not None:
        (bought if grows else sold).add(money)
    return Goal(
        tuple(GoalWeight(token, share, share) for token, share in ends.items()),
        None,
        tuple(token for token in ends if token not in sold),
        tuple(token for token in ends if token not in bought),
    )
