"""What others do with the same problem under the same bounds: swaps one after another, and a router's grid of 5 % slices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from agent.amm import pools as amm
from agent.amm.errors import BeyondKnownTicks, ContractRevert
from agent.model import PoolState, Rebalance, StepInput
from agent.planning.draft import PlanDraft
from agent.planning.problem import PlanObjective, Problem, build_problem, objective_for_goal, turnover_left
from agent.planning.rounding import RouteSimulator
from agent.planning.routes import Route
from agent.reference import reference_prices
from agent.units import BPS, Value, floor_int

SWAPS = 60
"""Most swaps of a peer: each mends one token wholly, unless a bound stops it."""
SLICES = 20
PART = Fraction(98, 100)
"""Of the way that one swap goes, so that costs and gains on it take no token past its goal, or turnover past its limit."""
Hops = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Peer:
    """A rebalancing by pairs: the token that is most above its goal is sold for the one most below it."""

    problem: Problem
    objective: PlanObjective
    walk: RouteSimulator
    budget: Value | None
    edges: set[tuple[str, str]] = field(default_factory=set)
    ways: dict[tuple[int, int], list[Hops]] = field(default_factory=dict)
    """Routes between two tokens, for as long as the edges are the same."""
    known: dict[tuple[Hops, int], tuple[list[PoolState], Fraction, int]] = field(default_factory=dict)
    """Pools as a route found them for an amount, what a unit paid there by reference prices, and how much was taken."""

    def ends(self) -> list[Value]:
        """Value of each token now."""
        return [node.value + self.walk.draft.delta.get(node.address, 0) * node.price for node in self.problem.nodes]

    def off(self) -> list[Value]:
        """Value above (below zero: lacking to) each goal share of the total now."""
        ends = self.ends()
        total = sum(ends, Fraction(0))
        return [end - Fraction(float(share)) * total for end, share in zip(ends, self.objective.low, strict=True)]

    def routes(self, source: int, target: int) -> list[Hops]:
        """Direct pools, and two pools through any token between, that close no circle with the swaps so far."""
        if (source, target) not in self.ways:
            self.ways[source, target] = [hops for hops in self._all_routes(source, target) if not self._closes(hops)]
        return self.ways[source, target]

    def _closes(self, hops: Hops) -> bool:
        edges = self.edges | set(self._edges(hops))
        return any(self._leads(edges, end, start) for start, end in self._edges(hops))

    def gone(self, hops: Hops) -> None:
        """Notes a swap by these pools."""
        if new := set(self._edges(hops)) - self.edges:
            self.edges |= new
            self.ways.clear()

    def _edges(self, hops: Hops) -> list[tuple[str, str]]:
        return [(token_in, amm.token_out(self.problem.pools[pool], token_in)) for pool, token_in in hops]

    @staticmethod
    def _leads(edges: set[tuple[str, str]], start: str, end: str) -> bool:
        reached = {start}
        for _ in range(len(edges)):
            reached |= {target for source, target in edges if source in reached}
        return end in reached

    def _all_routes(self, source: int, target: int) -> Iterator[Hops]:
        nodes, pools = self.problem.nodes, self.problem.pools.values()
        start, end = nodes[source].address, nodes[target].address
        for first in pools:
            if start not in (first.token0, first.token1):
                continue
            middle = amm.token_out(first, start)
            if middle == end:
                yield ((first.address, start),)
                continue
            for second in pools:
                if {middle, end} == {second.token0, second.token1}:
                    yield ((first.address, start), (second.address, middle))

    def pays(self, hops: Hops, amount_raw: int) -> tuple[int, int]:
        """(taken, paid) of a route now, as much as its pools' bounds let; (0, 0) where it pays nothing."""
        for _ in range(4):
            amount = amount_raw
            for pool, token_in in hops:
                room = self.walk.room(pool, token_in)
                if amount > room:
                    amount_raw = amount_raw * max(room, 0) // amount if amount else 0
                    break
                try:
                    amount = amm.quote_exact_in(self.walk.now[pool], token_in, amount) if amount else 0
                except (BeyondKnownTicks, ContractRevert):
                    return 0, 0
            else:
                return (amount_raw, amount) if amount else (0, 0)
        return 0, 0

    def rate(self, hops: Hops, amount_raw: int) -> tuple[Fraction, int]:
        """Value paid per value taken of a route now, and base units taken. What its pools said before they say while they stay."""
        states = [self.walk.now[pool] for pool, _ in hops]
        before = self.known.get((hops, amount_raw))
        if before is not None and all(one is other for one, other in zip(before[0], states, strict=True)):
            return before[1:]
        taken, paid = self.pays(hops, amount_raw)
        start, end = hops[0][1], amm.token_out(states[-1], hops[-1][1])
        rate = paid * self.problem.price(end) / (taken * self.problem.price(start)) if taken else Fraction(0)
        self.known[hops, amount_raw] = states, rate, taken
        return rate, taken

    def best(self, source: int, target: int, amount_raw: int) -> tuple[Hops, int] | None:
        """The route that pays most per unit for the amount, and how much of it it takes; None if none is cheap enough."""
        limit_bps = self.problem.plan_cost_bps
        found: tuple[Fraction, int, Hops] | None = None
        for hops in self.routes(source, target):
            rate, taken = self.rate(hops, amount_raw)
            if taken and (limit_bps is None or rate * BPS >= BPS - limit_bps) and (found is None or (rate, taken) > found[:2]):
                found = (rate, taken, hops)
        return None if found is None else (found[2], found[1])

    def rebalance(self, slices: int) -> PlanDraft:
        """Pairs until nothing is left that can be mended; each amount in `slices` parts, every part by the best route then."""
        done: set[tuple[int, int]] = set()
        for _ in range(SWAPS):
            off = self.off()
            pairs = [(i, j) for i in range(len(off)) for j in range(len(off)) if off[i] > 0 > off[j] and (i, j) not in done]
            if not pairs:
                break
            source, target = max(pairs, key=lambda pair: min(off[pair[0]], -off[pair[1]]))
            amount = min(off[source], -off[target])
            if self.budget is not None:
                amount = min(amount, self.budget - self.walk.draft.turnover(self.problem))
            if amount * 10**6 < self.problem.total:
                done.add((source, target))
                continue
            amount *= PART
            raw = min(floor_int(amount / self.problem.nodes[source].price), self.walk.spendable(self.problem.nodes[source].address))
            moved = 0
            for number in range(slices):
                part = raw * (number + 1) // slices - raw * number // slices
                found = self.best(source, target, part) if part > 0 else None
                if found is not None:
                    taken = self.walk.run(Route(found[0]), [found[1]])[0]
                    if taken:
                        self.gone(found[0])
                    moved += taken
            if moved * 20 < raw or raw <= 1:
                done.add((source, target))
        return self.walk.draft


def open_peer(step: StepInput, decision: Rebalance) -> Peer:
    """A peer at its start."""
    problem = build_problem(step, reference_prices(step))
    return Peer(problem, objective_for_goal(problem, decision.goal), RouteSimulator(problem), turnover_left(step, problem.total)[0])


def sequential(step: StepInput, decision: Rebalance) -> PlanDraft:
    """One swap after another, each through the best single route of one or two pools, as rebalancing bots do."""
    return open_peer(step, decision).rebalance(1)


def grid(step: StepInput, decision: Rebalance) -> PlanDraft:
    """The same, each swap split over routes in slices of 5 %, as smart order routers do."""
    return open_peer(step, decision).rebalance(SLICES)


def objective(step: StepInput, decision: Rebalance, delta: dict[str, int]) -> Value:
    """Value less the price of what is off the goal, numeraire base units, real gains included."""
    problem = build_problem(step, reference_prices(step))
    ends = [node.value + delta.get(node.address, 0) * node.price for node in problem.nodes]
    return objective_for_goal(problem, decision.goal).worth(1.0, {}).exactly(ends)
