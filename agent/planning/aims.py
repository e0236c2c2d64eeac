"""Where each token should end: shares of the final total from a goal, the turnover that is left, and what is too small to move."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.errors import Refused
from agent.model import Goal, StepInput, Verdict
from agent.planning.dual import WIDE, Wish, solve
from agent.planning.market import Market, open_market
from agent.planning.problem import Problem
from agent.units import BPS, Value

HAIR = 5e-5
"""Half a basis point: how far inside a band's edge a move ends, so that rounding does not leave it outside."""
ROUNDS = 3
"""Fixed-point rounds over the final total when an interval goal is settled."""


@dataclass(frozen=True, slots=True)
class Aim:
    """Shares of the final total, one per node (hubs zero), the values held now, and what of them lies in liquidity positions."""

    held: tuple[float, ...]
    shares: tuple[float, ...]
    locked: tuple[float, ...]

    def is_locked(self, token: int, most: float) -> bool:
        """Whether a token's part in positions alone is worth more than `most`."""
        return self.locked[token] > most

    def wanted(self, total: float, part: float, still: Container[int]) -> list[float]:
        """Final values that sum to `total`, going `part` of the way; tokens in `still` stay what they are.

        No token is sold below what lies in positions. What is left unbalanced is taken from the larger side, evenly, so that no
        token is moved past its share.
        """
        moves = [
            0.0 if token in still else part * (max(share * total, locked) - has)
            for token, (share, has, locked) in enumerate(zip(self.shares, self.held, self.locked, strict=True))
        ]
        sold = -sum(move for move in moves if move < 0)
        bought = sum(move for move in moves if move > 0)
        cost = sum(self.held) - total
        sell_part = min(1.0, (bought + cost) / sold) if sold > 0 else 0.0
        buy_part = min(1.0, max(0.0, sold - cost) / bought) if bought > 0 else 0.0
        return [has + move * (sell_part if move < 0 else buy_part) for has, move in zip(self.held, moves, strict=True)]


def reach_of(problem: Problem) -> float:
    """Price of one unit of value off its goal: half of plan_cost, since moving a unit removes two deviations."""
    return WIDE if problem.plan_cost_bps is None else problem.plan_cost_bps / BPS / 2


def aim_at(problem: Problem, goal: Goal) -> Aim:
    """Shares of the final total that the goal asks for; where it leaves room, those that are cheapest to reach."""
    by_token = {weight.token: weight for weight in goal.weights}
    if set(by_token) != {node.address for node in problem.assets}:
        raise Refused("the goal names other tokens than the portfolio's assets", remedy="decide and plan from the same input")
    held, locked = (tuple(map(float, values)) for values in zip(*((node.value, node.locked) for node in problem.nodes), strict=True))
    whole = sum(held)
    intervals = []
    for node in problem.nodes:
        weight = by_token.get(node.address)
        low, high = (float(weight.low), float(weight.high)) if weight else (0.0, 0.0)
        hair = min(HAIR, (high - low) / 4)
        intervals.append((low + hair, high - hair))
    if all(low == high for low, high in intervals):
        return Aim(held, tuple(low for low, _ in intervals), locked)
    spans = [(low * whole, high * whole) for low, high in intervals]
    above = sum(max(0.0, has - high) for has, (_, high) in zip(held, spans, strict=True))
    below = sum(max(0.0, low - has) for has, (low, _) in zip(held, spans, strict=True))
    sides = [_one_sided(has / whole, low, high, above >= below) for has, (low, high) in zip(held, intervals, strict=True)]
    market = open_market(problem, max(above, below, whole / BPS), no_gain=True)
    return Aim(held, _cheapest(market, held, sides), locked)


def _one_sided(share: float, low: float, high: float, buyers: bool) -> tuple[float, float]:
    """Where a token may end when outside ones go just to their edge: the rest only buys, or only sells, to keep the balance."""
    if buyers:
        return (high, high) if share > high else (max(low, share), high)
    return (low, low) if share < low else (low, min(high, share))


def _cheapest(market: Market, held: Sequence[float], intervals: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """Shares within intervals by the cheapest trades; here a unit off its goal is priced at plan_cost, since one side may be inside."""
    reach = min(WIDE, 2 * reach_of(market.problem))
    now = [value / market.scale for value in held]
    total, ends, prices = sum(now), now, None
    for _ in range(ROUNDS):
        wishes = [Wish(has, low * total, high * total, reach) for has, (low, high) in zip(now, intervals, strict=True)]
        solution = solve(wishes, market.arcs, prices)
        ends, prices = solution.ends(wishes), solution.prices
        total = sum(ends)
    return tuple(end / total for end in ends)


def turnover_left(step: StepInput, total: Value) -> tuple[Value | None, str]:
    """Value that this plan may still move, and the limit that says so. Raises Refused when nothing is left of the day's."""
    limits, found = step.limits, []
    if limits.turnover_bps is not None:
        found.append((total * Fraction(limits.turnover_bps, BPS), "limits.turnover"))
    if limits.daily_turnover_bps is not None:
        day = total * Fraction(limits.daily_turnover_bps, BPS)
        left = day - step.history.turnover_24h
        if left <= 0:
            raise Refused(
                "the turnover of the last 24 hours has used up limits.daily_turnover",
                (Verdict("daily_turnover", f"{float(step.history.turnover_24h / total):.2%}", f"{float(day / total):.2%}", False),),
                "wait until the trades of the last day are older than 24 hours",
            )
        found.append((left, "limits.daily_turnover"))
    return min(found, default=(None, ""), key=lambda item: item[0])
