"""What a goal asks for: shares of the final total by token, what a unit off them is worth, and the turnover that is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from agent.errors import Refused
from agent.floats import Numbers, times, total
from agent.model import Goal, StepInput, TrackingRisk, Verdict
from agent.planning.problem import Node, Problem
from agent.planning.worth import WIDE, Risk, Search, Worth, risk_of
from agent.policy.risk import aversion, correlations, volatilities
from agent.units import BPS, Value

ROUNDED_RAW = 16
"""Base units by which paths, each rounded down, may miss an approved amount."""
FUZZ = Fraction(1, 10**12)
"""What floating point may miss of it."""
REACH = 0.3
"""P of a zone's worth, which so never is what stops an exchange: the quadratic decides, and pools are bounded by plan_cost."""
MOST_SAVED = 0.25
"""Most that a zone's exchange may save per unit. At more the risk is scaled down: it outweighs any cost all the same."""
HAIR = 5e-5
"""Half a basis point: how far inside a band's edge a move ends, so that rounding does not leave it outside."""


@dataclass(frozen=True, slots=True)
class Aim:
    """Shares of the final total wanted by node (hubs zero), values held now, what a unit that has to move may cost, and θ.

    `least` is the value below which a token cannot be sold, since it lies in positions, is not approved or must not be sold; no
    token is bought beyond `most`. `off` is the value that has to move; in a zone `risk` prices what does not.
    """

    held: Numbers
    locked: Numbers
    least: Numbers
    most: Numbers
    low: Numbers
    high: Numbers
    hubs: tuple[int, ...]
    price: float
    lean: float
    off: float
    risk: Risk | None = None

    def worth(self, scale: float, still: Mapping[int, float]) -> Worth:
        """The worth in units of `scale`; tokens in `still` end at the value given there."""
        pinned = dict.fromkeys(self.hubs, 0.0) | {token: value / scale for token, value in still.items()}
        risk = None if self.risk is None else Risk(self.risk.volatility, self.risk.bend / scale)
        return Worth(self.low, self.high, self.price if risk is None else REACH, self.lean, pinned, risk)

    def search(self, scale: float, extra: Numbers, still: Mapping[int, float], budget: float | None) -> Search:
        """Looks for the best flows when pools give `extra` (in units of `scale`) beyond what they count for; `budget` bounds turnover."""
        held = self.held / scale
        bounds = self.least / scale, self.most / scale
        return Search(self.worth(scale, still), held, held + extra, *bounds, None if budget is None else budget / scale)


def aim_at(problem: Problem, goal: Goal) -> Aim:
    """The goal's shares, intervals a hair narrower; P is plan_cost."""
    by_token = {weight.token: weight for weight in goal.weights}
    if set(by_token) != {node.address for node in problem.assets}:
        raise Refused("the goal names other tokens than the portfolio's assets", remedy="decide and plan from the same input")
    wanted = [by_token.get(node.address) for node in problem.nodes]
    held = np.array([float(node.value) for node in problem.nodes])
    low = np.array([float(weight.low) if weight else 0.0 for weight in wanted])
    high = np.array([float(weight.high) if weight else 0.0 for weight in wanted])
    hair = np.minimum(HAIR, (high - low) / 4)
    low, high = low + hair, high - hair
    whole = total(held)
    above, below = total(np.maximum(held - high * whole, 0.0)), total(np.maximum(low * whole - held, 0.0))
    points = bool((low == high).all())
    lean = 0.5 if points or above + below <= 0 else above / (above + below)
    price = WIDE if problem.plan_cost_bps is None else min(problem.plan_cost_bps / BPS, WIDE)
    locked = np.array([float(node.locked) for node in problem.nodes])
    least = np.array([float(_kept(node, goal)) for node in problem.nodes])
    most = np.array([float(node.value) if node.address in goal.unbought else np.inf for node in problem.nodes])
    hubs = tuple(number for number, node in enumerate(problem.nodes) if not node.is_asset)
    risk = None if goal.risk is None else _risk(problem, goal.risk, held - low * whole)
    return Aim(held, locked, least, most, low, high, hubs, price, lean, max(above, below), risk)


def leaving(problem: Problem, goal: Goal) -> frozenset[str]:
    """Tokens of which the goal leaves nothing that can be spent: all of it is to be sold, to the last base unit."""
    high = {weight.token: weight.high for weight in goal.weights}
    return frozenset(node.address for node in problem.assets if high[node.address] * problem.total <= node.locked * (1 + FUZZ))


def for_exit(aim: Aim, into: int) -> Aim:
    """The aim of an exit into a token that lacks value: any amount of it is welcome, and what leaves saves the whole price by itself.

    Else the last part of what leaves would stay where pools pay more for the others, once the token has its share.
    """
    if aim.held[into] >= aim.low[into] * total(aim.held) or aim.high[into] >= 1:
        return aim
    high = aim.high.copy()
    high[into] = 1.0
    return replace(aim, high=high, lean=1.0)


def _risk(problem: Problem, risk: TrackingRisk, off: Numbers) -> Risk:
    """The zone's risk in value: its factor is λ·H / V. `off` is the deviation now."""
    tokens = [node.address for node in problem.assets]
    known = dict(zip(tokens, volatilities(risk, tokens), strict=True))
    spread = np.array([float(known.get(node.address, 0)) for node in problem.nodes])
    related = np.array([[float(entry) for entry in row] for row in correlations(risk, tokens)])
    factor = float(aversion(risk) / problem.total)
    slopes = factor * spread[: len(tokens)] * times(related, (spread * off)[: len(tokens)])
    return risk_of(spread, related, factor * min(1.0, MOST_SAVED / max(float(np.ptp(slopes)), MOST_SAVED)))


def _kept(node: Node, goal: Goal) -> Value:
    """Value below which the goal lets a token not go."""
    if node.address in goal.unsold:
        return node.value
    caps = dict(goal.sell_at_most)
    if node.address not in caps:
        return _least(node)
    return max(_least(node), node.value - caps[node.address] * node.price)


def _least(node: Node) -> Value:
    """What lies in positions, or is held beyond what the step has approved.

    The wish goes a hair beyond an approval, so that the legs, which stop exactly there, leave no crumb of it.
    """
    if node.cap_raw is None:
        return node.locked
    spendable = (node.cap_raw + ROUNDED_RAW) * node.price * (1 + FUZZ)
    return max(node.locked, node.value - spendable)


def turnover_left(step: StepInput, total: Value, apart: Value = Fraction(0)) -> tuple[Value | None, str]:
    """Value that this plan may still move, and the limit that says so; `apart` is moved beside the limits.

    Raises Refused when less than a trade is left of the day's, and nothing is apart.
    """
    limits, found = step.limits, []
    if limits.turnover_bps is not None:
        found.append((total * Fraction(limits.turnover_bps, BPS), "limits.turnover"))
    if limits.daily_turnover_bps is not None:
        day = total * Fraction(limits.daily_turnover_bps, BPS)
        left = day - step.history.turnover_24h
        if left <= (limits.min_trade or 0) and not apart:
            raise Refused(
                "the turnover of the last 24 hours has used up limits.daily_turnover",
                (Verdict("daily_turnover", f"{float(step.history.turnover_24h / total):.2%}", f"{float(day / total):.2%}", False),),
                "wait until the trades of the last day are older than 24 hours",
            )
        found.append((max(Fraction(0), left), "limits.daily_turnover"))
    least, name = min(found, default=(None, ""), key=lambda item: item[0])
    return (None if least is None else least + apart), name
