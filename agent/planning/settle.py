"""Rounds between the continuous core and exact integers, until the final weights hit the aim with all costs in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from agent.errors import Refused
from agent.planning.aims import Aim
from agent.planning.dual import Arc, Solution, Wish, solve
from agent.planning.market import Market, choose
from agent.planning.paths import Routes, decompose
from agent.planning.rounding import Draft, Route, run_all
from agent.units import Value, floor_int

ROUNDS = 12
"""Most rounds; two or three are usual, each limit that first has to be met takes one more."""
SETTLED = 1e-6
"""Change of the final total and of the correction, per unit of the total, at which rounds end."""
SLACK = 1 - 5e-5
"""Taken off a turnover that has to shrink, more than the solve resolves, so that it does not end above its limit again."""
WORTH_A_ROUTE = 1e-6
"""Part of the scale above which a cut chain is worth another way."""
DUST = "less than limits.min_trade"
ROUNDED_RAW = 16
FUZZ = 1e-12
"""Base units by which paths, each rounded down, may miss an approved amount, and what floating point may: the wish is that much
above it, so that the legs, which stop exactly there, leave no crumb of the approval."""
UNAPPROVED = 1e-5
"""Part of the total, a tenth of a basis point, above which it is said that approvals bound the plan."""
UNMOVED = 1e-9
"""Part of the total below which a token counts as where it should be."""


@dataclass(slots=True)
class Settled:
    """Where the rounds ended: legs, the last solution, what was wanted, and what was left out by reason.

    `part` is the share of the way that turnover allows; `still` says why tokens do not move, by position; `dropped`
    pools are left out. `star` is the one token besides neutral hubs that routes pass through, once longer chains had to be cut.
    `held_back` says that more would be sold than the step has approved.
    """

    draft: Draft
    solution: Solution
    wanted: list[float]
    part: float = 1.0
    still: dict[int, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    star: int | None = None
    held_back: bool = False


def settle(market: Market, aim: Aim, reach: float, budget: Value | None, min_trade: Value | None, dropped: Mapping[str, str]) -> Settled:
    """Plans for `aim`. `reach` prices a unit off it, `budget` bounds turnover, tokens that move less than `min_trade` stay put.

    `dropped` are pools to do without, with the reason.
    """
    problem, scale, whole = market.problem, market.scale, sum(aim.held)
    state = Settled(Draft(), Solution((), ()), list(aim.held), dropped=dict(dropped))
    total, error = whole, [0.0] * len(aim.held)
    least = 0.0 if min_trade is None else float(min_trade)
    caps = [
        math.inf if node.cap_raw is None else float((node.cap_raw + ROUNDED_RAW) * node.price) * (1 + FUZZ) / scale
        for node in problem.nodes
    ]
    if budget is not None:
        moved = sum(max(0.0, has - want) for has, want in zip(aim.held, aim.wanted(total, 1.0, ()), strict=True))
        state.part = min(1.0, float(budget) / moved) if moved > 0 else 1.0
    pruned = False
    for _ in range(ROUNDS):
        state.wanted = _wanted(aim, total, state, least)
        corrected = [want - miss for want, miss in zip(state.wanted, error, strict=True)]
        givers, keepers = _roles(aim.held, state.wanted, whole)
        wishes = [Wish(has / scale, want / scale, want / scale, reach) for has, want in zip(aim.held, corrected, strict=True)]
        arcs = _arcs(market, state, givers, keepers, state.star)
        choice = choose(market, arcs, wishes, 0.0 if pruned else least / scale, state.solution.prices or None)
        pruned = True
        state.dropped |= choice.dropped
        state.solution = choice.solution
        order = sorted(range(len(wishes)), key=lambda token: state.solution.prices[token])
        unbound = decompose(state.solution.flows, order, givers, keepers)
        routes = unbound.within(caps)
        state.held_back = (unbound.taken - routes.taken) * scale > UNAPPROVED * whole
        state.draft = run_all(problem, to_routes(market, routes)).draft
        if state.star is None and any(path.taken > WORTH_A_ROUTE for path in routes.cut):
            state.star, pruned = _best_star(market, state, wishes, givers, keepers), False
            continue
        if _shrink(market, state, budget, min_trade):
            continue
        ends = [has + float(_gained(market, state.draft, token)) for token, has in enumerate(aim.held)]
        missed = [end - guess * scale for end, guess in zip(ends, _foreseen(aim.held, scale, routes), strict=True)]
        moved_on = max(abs(sum(ends) - total), *(abs(a - b) for a, b in zip(missed, error, strict=True)))
        total, error = sum(ends), missed
        if moved_on <= SETTLED * whole:
            break
    if _shrink(market, state, budget, min_trade):
        raise Refused(
            "no plan keeps to limits.turnover and limits.min_trade at once", remedy="raise limits.turnover or lower limits.min_trade"
        )
    return state


def _arcs(market: Market, state: Settled, givers: frozenset[int], keepers: frozenset[int], star: int | None) -> list[Arc]:
    """Arcs that start at a token that is to shrink or end at one that is to grow, so that two neutral hubs never follow each other.

    With a `star` only direct and one-hub routes are left: from givers to keepers, through neutral hubs, or through the star.
    """
    if not givers or not keepers:
        return []
    open_arcs = [arc for arc in market.arcs if arc.pool not in state.dropped and (arc.source in givers or arc.target in keepers)]
    if star is None:
        return open_arcs
    starts, ends = givers - {star}, keepers - {star}
    begin = [arc for arc in open_arcs if arc.source in starts and arc.target not in starts]
    finish = [arc for arc in open_arcs if arc.source not in starts and arc.source not in ends and arc.target in ends]
    return begin + finish


def _best_star(market: Market, state: Settled, wishes: Sequence[Wish], givers: frozenset[int], keepers: frozenset[int]) -> int:
    """The token that is most worth passing through when every route may have one hub only."""
    worth = [solve(wishes, _arcs(market, state, givers, keepers, star)).worth(wishes) for star in range(len(wishes))]
    return max(range(len(worth)), key=lambda star: (worth[star], -star))


def _wanted(aim: Aim, total: float, state: Settled, least: float) -> list[float]:
    """Final values wanted; tokens whose whole move would be dust are set still, one after the other, smallest first."""
    while True:
        wanted = aim.wanted(total, state.part, state.still)
        moves = [
            (abs(want - has), token) for token, (want, has) in enumerate(zip(wanted, aim.held, strict=True)) if token not in state.still
        ]
        dust = [(size, token) for size, token in moves if 0 < size < least]
        if not dust:
            return wanted
        state.still[min(dust)[1]] = DUST


def _roles(held: Sequence[float], wanted: Sequence[float], whole: float) -> tuple[frozenset[int], frozenset[int]]:
    """Tokens that are to shrink, and tokens that are to grow."""
    pairs = list(enumerate(zip(held, wanted, strict=True)))
    givers = frozenset(token for token, (has, want) in pairs if has - want > UNMOVED * whole)
    return givers, frozenset(token for token, (has, want) in pairs if want - has > UNMOVED * whole)


def to_routes(market: Market, routes: Routes) -> list[Route]:
    """Paths as integer routes, direct ones first, so that chains find what they compete for already priced."""
    nodes = market.problem.nodes
    result = []
    for path in sorted(routes.paths, key=lambda path: len(path.flows)):
        amount_raw = floor_int(Fraction(path.taken) * Fraction(market.scale) / nodes[path.source].price)
        hops = tuple((flow.arc.pool, nodes[flow.arc.source].address) for flow in path.flows)
        result.append(Route(hops, amount_raw))
    return result


def _gained(market: Market, draft: Draft, token: int) -> Value:
    node = market.problem.nodes[token]
    return draft.delta.get(node.address, 0) * node.price


def _foreseen(held: Sequence[float], scale: float, routes: Routes) -> list[float]:
    """What the paths would leave of each token by the curves, in units of the scale."""
    ends = [has / scale for has in held]
    for path in routes.paths:
        arriving = path.taken
        for flow in path.flows:
            arriving *= flow.paid / flow.taken
        ends[path.source] -= path.taken
        ends[path.target] += arriving
    return ends


def _shrink(market: Market, state: Settled, budget: Value | None, min_trade: Value | None) -> bool:
    """Takes back what breaks a limit: too much turnover, a token that moves less than min_trade, a pool below its floor."""
    problem, draft, again = market.problem, state.draft, False
    for pool, why in draft.barred.items():
        if pool not in state.dropped:
            state.dropped[pool], again = why, True
    turnover = draft.turnover(problem)
    if budget is not None and turnover > budget:
        state.part *= float(budget / turnover) * SLACK
        again = True
    if min_trade is not None:
        for token, raw in (*draft.sold.items(), *draft.bought.items()):
            position = problem.position[token]
            if raw * problem.price(token) < min_trade and position not in state.still:
                state.still[position] = DUST
                again = True
    return again
