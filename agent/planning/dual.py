"""The continuous core: prices at which every token ends where it should, and what each pool then trades.

Minimises over ν the dual of: maximise Σ Uᵢ(yᵢ), y = h + Σ pool flows (Angeris, Evans, Chitra, Boyd, "Optimal Routing for
Constant Function Market Makers", 2022; Diamandis et al., 2023). Pools answer prices by themselves, so that one solve over as
many variables as tokens settles all exchanges, splits and hubs at once. Amounts are values in units of `scale`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from agent.planning.responses import NOTHING, Answer, Curve

EDGE = 5e-5
"""Half a basis point: how wide the corner of an interval goal is rounded off, so that the dual is smooth."""
MUST = 1e6
"""Price of a unit off a wish that must be met."""
WIDE = 0.5
"""Price range when the plan cost limit is off: a move may lose two thirds of its value before it stays undone."""
OPTIONS = {"maxiter": 400, "maxcor": 12, "ftol": 0.0, "gtol": 1e-7, "maxls": 40}
"""Of L-BFGS-B: ends on the imbalance per unit of scale alone."""
ENOUGH = 1e-5
"""Imbalance below which the solve is not started again from where it ended."""
RESTARTS = 6
"""L-BFGS-B sometimes stalls at a corner of the price range; with its memory emptied it goes on."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Wish:
    """What one token should end with: between low and high, held now; each unit off costs `reach` per unit of value.

    A hub has held = low = high = 0. `fixed` pins the token's price to 1: it takes whatever arrives (the output of a swap).
    `must` says that no saving makes up for being off (the input of a swap).
    """

    held: float
    low: float
    high: float
    reach: float
    fixed: bool = False
    must: bool = False


@dataclass(frozen=True, slots=True)
class Arc:
    """One direction of one pool between two tokens, by their positions."""

    pool: str
    source: int
    target: int
    curve: Curve


@dataclass(frozen=True, slots=True)
class Flow:
    """What one arc trades at the dual prices; `surplus` bounds from below what the arc brings over doing without it."""

    arc: Arc
    taken: float
    paid: float
    surplus: float
    ranges: int


@dataclass(frozen=True, slots=True)
class Solution:
    """Dual prices by token, and the flows they cause."""

    prices: tuple[float, ...]
    flows: tuple[Flow, ...]

    def ends(self, wishes: Sequence[Wish]) -> list[float]:
        """What each token ends with."""
        held = [wish.held for wish in wishes]
        for flow in self.flows:
            held[flow.arc.source] -= flow.taken
            held[flow.arc.target] += flow.paid
        return held

    def worth(self, wishes: Sequence[Wish]) -> float:
        """The primal objective: value held at the end less the price of what is off its goal."""
        total = 0.0
        for wish, end in zip(wishes, self.ends(wishes), strict=True):
            off = 0.0 if wish.fixed else max(wish.low - end, end - wish.high, 0.0)
            total += end - (MUST if wish.must else wish.reach) * off
        return total


def solve(wishes: Sequence[Wish], arcs: Sequence[Arc], start: Sequence[float] | None = None) -> Solution:
    """Dual prices within 1 ± reach that balance flows with wishes, and the flows. `start` are prices of an earlier solve."""
    reach = np.array([0.0 if wish.fixed else wish.reach for wish in wishes])
    unit = float(reach.max(initial=0.0)) or 1.0
    edge = reach / unit
    at = np.zeros(len(wishes)) if start is None else np.clip((np.array(start) - 1) / unit, -edge, edge)

    def scaled(z: Numbers) -> tuple[float, Numbers]:
        value, slope = _dual(wishes, arcs, [1 + unit * x for x in z.tolist()])
        return value / unit, np.array(slope)

    for _ in range(RESTARTS if arcs else 0):
        found = minimize(scaled, at, jac=True, method="L-BFGS-B", bounds=list(zip(-edge, edge, strict=True)), options=OPTIONS)
        at = found.x
        if _imbalance(scaled(at)[1], at, edge) <= ENOUGH:
            break
    prices = tuple(1 + unit * x for x in at.tolist())
    return Solution(prices, _flows(arcs, prices))


def _imbalance(slope: Numbers, at: Numbers, edge: Numbers) -> float:
    """Largest slope that a price within its range could still follow down."""
    free_down, free_up = at > -edge, at < edge
    return float(max(np.max(slope * free_down, initial=0.0), np.max(-slope * free_up, initial=0.0)))


def _answer(arc: Arc, prices: Sequence[float]) -> Answer:
    curve = arc.curve
    ratio = prices[arc.source] / prices[arc.target]
    if ratio >= curve.best_rate:
        return NOTHING
    return curve.answer(ratio)


def _flows(arcs: Sequence[Arc], prices: Sequence[float]) -> tuple[Flow, ...]:
    flows = []
    for arc in arcs:
        answer = _answer(arc, prices)
        if answer.taken > 0:
            flows.append(Flow(arc, answer.taken, answer.paid, answer.surplus * prices[arc.target], answer.ranges))
    return tuple(flows)


def _dual(wishes: Sequence[Wish], arcs: Sequence[Arc], prices: Sequence[float]) -> tuple[float, list[float]]:
    """Dual function less its constant part, and its slope: what each token would be left with too much of."""
    value, slope = 0.0, []
    for wish, price in zip(wishes, prices, strict=True):
        wanted, below = _conjugate(wish, price)
        value += below + (price - 1) * wish.held
        slope.append(wish.held - wanted)
    for arc in arcs:
        answer = _answer(arc, prices)
        if answer.taken > 0:
            value += prices[arc.target] * answer.surplus
            slope[arc.source] -= answer.taken
            slope[arc.target] += answer.paid
    return value, slope


def _conjugate(wish: Wish, price: float) -> tuple[float, float]:
    """(amount wanted at this price, conjugate of the wish there), for prices within reach."""
    middle, half, below = (wish.low + wish.high) / 2, (wish.high - wish.low) / 2, 1 - price
    if half <= 0:
        return middle, below * middle
    if abs(below) < EDGE:
        return middle + half * below / EDGE, below * middle + half * below * below / (2 * EDGE)
    return (wish.high if below > 0 else wish.low), below * middle + half * (abs(below) - EDGE / 2)
