"""An exit's whole amount, tried in exact integers before what the search leaves unsold is believed.

The search weighs the last unit of what leaves against its cost. An exit is judged as a whole: where all that is left of a token can be
sold within impact bounds, floors and plan_cost, it is, whatever the last unit brings, and whatever a solve says.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from agent.planning.choice import Choice, Chooser
from agent.planning.draft import Draft
from agent.planning.dual import Solution, solve
from agent.planning.market import Market
from agent.planning.paths import Routes, decompose
from agent.planning.problem import Problem
from agent.planning.responses import Stack
from agent.planning.rounding import run_all
from agent.planning.settle import DUST, Settled, legs_of, to_routes
from agent.planning.worth import must_sell
from agent.units import BPS, Value

ANY_PRICE = 0.9
"""Range of the dual price of what is sold: at whatever it brings, within impact bounds and floors."""
SOLD = 1 - 1e-7
"""Part of a token from which on a solve sells all of it."""
TRIES = 4
"""Most times that it is tried anew without pools that pay less than their floor."""


def sold_whole(market: Market, settled: Settled, into: int, min_trade: Value | None) -> Settled:
    """The same with legs that sell tokens that leave whole, where those found leave some of one and these keep to all limits.

    What is set still stays so, and what is worth less than `min_trade`.
    """
    problem = market.problem
    goes = [i for i in range(len(problem.nodes)) if i != into and _may_go(problem, settled, i, min_trade or Fraction(0))]
    if all(_left(problem, settled.draft, i) == 0 for i in goes):
        return settled
    free = replace(market, real=market.counted)  # nothing runs in a circle where no pool pays more than the reference
    dropped: dict[str, str] = {}
    for _ in range(TRIES):
        draft, sold = _drafted(free, goes, into, dropped)
        if not draft.barred.keys() - dropped.keys():
            break
        dropped |= draft.barred
    limit_bps = problem.plan_cost_bps
    whole = bool(sold) and all(_left(problem, draft, i) == 0 for i in sold)
    less = any(_left(problem, settled.draft, i) > 0 for i in sold)
    none = all(problem.nodes[i].address not in settled.draft.sold for i in goes if i not in sold)
    cheap = limit_bps is None or draft.cost(problem).total * BPS <= limit_bps * draft.turnover(problem)
    return replace(settled, draft=draft, course=None, bounded=False) if whole and less and none and cheap else settled


def _may_go(problem: Problem, settled: Settled, token: int, least: Value) -> bool:
    """Whether all of a token is to be sold, and enough of it to be worth a trade."""
    node = problem.nodes[token]
    known = node.address in problem.leaving and settled.still.get(token, DUST) == DUST
    return known and node.spendable_raw > 0 and node.spendable_raw * node.price >= least


def _left(problem: Problem, draft: Draft, token: int) -> int:
    """Base units of a token that a draft leaves of what may be spent."""
    node = problem.nodes[token]
    return node.spendable_raw + draft.delta.get(node.address, 0)


def _drafted(market: Market, goes: list[int], into: int, dropped: dict[str, str]) -> tuple[Draft, list[int]]:
    """Legs that sell those of these tokens that pools take whole, for the most, gas counted; and which those are."""
    nodes, rows = market.problem.nodes, market.rows(dropped)
    stack, sold = market.real.rows(rows), list(goes)
    while sold:
        start = np.array([float(node.spendable_raw * node.price) / market.scale if i in sold else 0.0 for i, node in enumerate(nodes)])
        program = must_sell(start, {i: 0.0 for i in range(len(nodes)) if i != into}, ANY_PRICE)
        full = solve(program, stack)
        moved = full.moved(stack)
        taken = [i for i in sold if -moved[i] >= SOLD * start[i]]
        if taken == sold:
            break
        sold = taken
    if not sold:
        return Draft(), []

    def seek(part: Stack, near: Solution | None) -> Solution:
        """The best flows; worth nothing where they leave some of it."""
        found = solve(program, part, near)
        gone = found.moved(part)
        return found if all(-gone[i] >= SOLD * start[i] for i in sold) else replace(found, bound=-np.inf)

    def routes(choice: Choice) -> Routes:
        order = np.argsort(choice.solution.prices, kind="stable").tolist()
        return decompose(choice.flows, order, frozenset(sold), frozenset({into}))

    chosen = Chooser(market, seek, 0.0, lambda choice: legs_of(routes(choice))).best(rows, full)
    return run_all(market.problem, to_routes(market, routes(chosen)), lambda made: float(made.turnover(market.problem))), sold
