"""Other planners on the same problem under the same bounds: swaps one after another, and a router's grid of 5 % slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from graphlib import CycleError, TopologicalSorter

from agent.amm import pools as amm
from agent.amm.swap_errors import BeyondKnownTicks, ContractRevert
from agent.amm.v2_pool import V2Pool
from agent.amm.v3.math import get_sqrt_ratio_at_tick
from agent.amm.v3.pool import V3Pool
from agent.model import LegPlace, Plan, Pool, Rebalance, StepInput
from agent.planning import planner
from agent.planning.problem import Problem, build_problem
from agent.planning.rounding import PlanDraft, RouteSimulator
from agent.planning.routes import Route
from agent.planning.solver.utility import PlanObjective, objective_for_goal, turnover_left
from agent.reference import reference_prices
from agent.units import BPS as UNIT_BPS
from agent.units import Value, floor_int
from tests.support.planning_worlds import rebalance_to_targets

# --- Independent execution of a plan, without the planner or the library's pools: swaps by the contracts' formulas, in integers.


Q96 = 2**96
PIPS = 10**6
BPS = 10**4


def _up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


@dataclass
class Pair:
    """A V2 pair."""

    reserves: dict[str, int]
    fee_pips: int

    def swap(self, token_in: str, amount_in: int) -> int:
        (token_out,) = set(self.reserves) - {token_in}
        after_fee = amount_in * (PIPS - self.fee_pips)
        paid = after_fee * self.reserves[token_out] // (self.reserves[token_in] * PIPS + after_fee)
        self.reserves[token_in] += amount_in
        self.reserves[token_out] -= paid
        return paid

    def price(self, token_in: str) -> Fraction:
        (token_out,) = set(self.reserves) - {token_in}
        return Fraction(self.reserves[token_out], self.reserves[token_in])


@dataclass
class Ranges:
    """A V3 pool."""

    token0: str
    fee_pips: int
    root: int
    tick: int
    liquidity: int
    net: dict[int, int]
    known: tuple[int, int]
    spacing: int

    def swap(self, token_in: str, amount_in: int) -> int:
        down = token_in == self.token0
        remaining = amount_in
        paid = 0
        while remaining:
            edge = self._next(down)
            goal = get_sqrt_ratio_at_tick(edge)
            net_left = remaining * (PIPS - self.fee_pips) // PIPS
            whole = self._in(down, self.root, goal)
            reached = goal if net_left >= whole else self._root_after(down, net_left)
            taken = self._in(down, self.root, reached)
            paid += self._out(down, self.root, reached)
            if reached == goal:
                remaining -= taken + _up(taken * self.fee_pips, PIPS - self.fee_pips)
                assert not remaining or self.known[0] < edge < self.known[1], "a plan stays within the ticks read"
                self.liquidity += (-1 if down else 1) * self.net.get(edge, 0)
                self.tick = edge - 1 if down else edge
            else:
                remaining = 0
            self.root = reached
        return paid

    def _next(self, down: bool) -> int:
        """Return the next initialised tick, or the end of its word of the bitmap, where the contract rounds too
        (TickBitmap.nextInitializedTickWithinOneWord).
        """
        word = 256 * self.spacing
        if down:
            return max([*(tick for tick in self.net if tick <= self.tick), self.tick // word * word, self.known[0]])
        end = (self.tick // self.spacing + 1) * self.spacing // word * word + word - self.spacing
        return min([*(tick for tick in self.net if tick > self.tick), end, self.known[1]])

    def _in(self, down: bool, start: int, end: int) -> int:
        low, high = sorted((start, end))
        if down:
            return _up(_up((self.liquidity << 96) * (high - low), high), low)
        return _up(self.liquidity * (high - low), Q96)

    def _out(self, down: bool, start: int, end: int) -> int:
        low, high = sorted((start, end))
        if down:
            return self.liquidity * (high - low) // Q96
        return (self.liquidity << 96) * (high - low) // high // low

    def _root_after(self, down: bool, net_in: int) -> int:
        if down:
            return _up((self.liquidity << 96) * self.root, (self.liquidity << 96) + net_in * self.root)
        return self.root + net_in * Q96 // self.liquidity

    def price(self, token_in: str) -> Fraction:
        price = Fraction(self.root * self.root, Q96 * Q96)
        return price if token_in == self.token0 else 1 / price


def pools_of(step: StepInput) -> dict[str, Pair | Ranges]:
    """Return tradable copies of the snapshot's pools."""
    pools: dict[str, Pair | Ranges] = {}
    for pool in step.snapshot.pools:
        match pool:
            case V2Pool():
                pools[pool.address] = Pair({pool.token0: pool.reserve0, pool.token1: pool.reserve1}, pool.fee_pips)
            case V3Pool():
                net = {tick.index: tick.liquidity_net for tick in pool.ticks}
                ends = pool.known_from_tick, pool.known_to_tick
                pools[pool.address] = Ranges(
                    pool.token0, pool.fee_pips, pool.sqrt_price_x96, pool.tick, pool.liquidity, net, ends, pool.tick_spacing
                )
    return pools


@dataclass
class PlanEffect:
    """Effect of a plan: changes of the wallet by token, in base units, and all kinds of violations."""

    moved: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def check(self, holds: bool, kind: str) -> None:
        if not holds and kind not in self.wrong:
            self.wrong.append(kind)


def carry_out(step: StepInput, plan: Plan, price: Callable[[str], Fraction]) -> PlanEffect:
    """Execute a plan as a router would: a wallet leg spends its amount, a router leg all of its token in the router."""
    effect = PlanEffect()
    now = pools_of(step)
    router = dict[str, int]()
    limits = step.limits
    start = pools_of(step)
    edges: dict[str, set[str]] = {}
    for leg in plan.legs:
        spent = leg.amount_in_raw if leg.source is LegPlace.WALLET else router.pop(leg.token_in, 0)
        effect.check(spent == leg.amount_in_raw > 0, "amount in")
        paid = now[leg.pool].swap(leg.token_in, spent)
        effect.check(paid == leg.amount_out_raw, "amount out")
        if leg.source is LegPlace.WALLET:
            effect.moved[leg.token_in] = effect.moved.get(leg.token_in, 0) - spent
        book = router if leg.sink is LegPlace.ROUTER else effect.moved
        book[leg.token_out] = book.get(leg.token_out, 0) + paid
        impact = Fraction(limits.price_impact_bps if limits.price_impact_bps is not None else BPS, BPS)
        rate = max(Fraction(0), 1 - Fraction(leg.fee_pips, PIPS) - impact) * (1 - Fraction(limits.slippage_bps or 0, BPS))
        fair = max(1, int(spent * price(leg.token_in) / price(leg.token_out) * rate))
        effect.check(fair <= leg.min_out_raw <= paid, "floor")
        if limits.price_impact_bps is not None:
            effect.check(now[leg.pool].price(leg.token_in) >= start[leg.pool].price(leg.token_in) * (1 - impact), "impact")
        edges.setdefault(leg.token_out, set()).add(leg.token_in)
    effect.check(not router, "left in the router")
    try:
        TopologicalSorter(edges).prepare()
    except CycleError:
        effect.check(False, "circle")
    _check_wallet(step, plan, effect, price)
    return effect


def _check_wallet(step: StepInput, plan: Plan, effect: PlanEffect, price: Callable[[str], Fraction]) -> None:
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    limits = step.limits
    assets = {asset.token.address: asset for asset in step.effective_assets}
    effect.check(all(raw == 0 for at, raw in effect.moved.items() if at not in assets), "hub")
    after = {at: raw_by_token[at] + effect.moved.get(at, 0) for at in assets}
    effect.check(
        all(after[at] <= raw_by_token[at] for at, asset in assets.items() if asset.target_bps == 0), "bought at a target of nothing"
    )
    effect.check(after == dict(plan.holdings_after), "holdings")
    effect.check(all(after[at] >= min(raw_by_token[at], asset.reserve_raw) for at, asset in assets.items()), "reserve")
    moves = {at: (after[at] - raw_by_token[at]) * price(at) for at in assets}
    turnover = sum(map(abs, moves.values()), Fraction(0)) / 2
    before = sum((raw_by_token[at] * price(at) for at in assets), Fraction(0))
    effect.check(turnover == plan.turnover, "turnover told")
    if limits.turnover_bps is not None:
        effect.check(turnover * BPS <= before * limits.turnover_bps, "limits.turnover")
    lost = -sum(moves.values(), Fraction(0)) + plan.cost.gas + plan.cost.approval_gas
    effect.check(lost == plan.cost.total, "cost told")
    if limits.plan_cost_bps is not None:
        effect.check(lost * BPS <= limits.plan_cost_bps * turnover, "limits.plan_cost")
    if limits.min_trade is not None:
        effect.check(all(abs(move) >= limits.min_trade for move in moves.values() if move), "limits.min_trade")


SWAPS = 60
"""Maximum number of swaps of a peer; each corrects one token completely unless a bound stops it."""
SLICES = 20
PART = Fraction(98, 100)
"""Part of the correction made by one swap, so that costs and gains move no token past its goal, and turnover not past its limit."""
Hops = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Peer:
    """A rebalancer by pairs: it sells the token furthest above its goal for the one furthest below."""

    problem: Problem
    objective: PlanObjective
    walk: RouteSimulator
    budget: Value | None
    edges: set[tuple[str, str]] = field(default_factory=set)
    ways: dict[tuple[int, int], list[Hops]] = field(default_factory=dict)
    """Routes between two tokens, valid while `edges` is unchanged."""
    known: dict[tuple[Hops, int], tuple[list[Pool], Fraction, int]] = field(default_factory=dict)
    """By route and amount: the pools' states, the value per unit paid at reference prices, and the amount taken."""

    def ends(self) -> list[Value]:
        """Return the value of each token now."""
        return [node.value + self.walk.draft.delta_raw.get(node.address, 0) * node.price for node in self.problem.nodes]

    def off(self) -> list[Value]:
        """Return the value above each goal share of the present total (negative: below it)."""
        ends = self.ends()
        total = sum(ends, Fraction(0))
        return [end - Fraction(float(share)) * total for end, share in zip(ends, self.objective.low_shares, strict=True)]

    def routes(self, source: int, target: int) -> list[Hops]:
        """Return routes of one pool, or of two through any token between, that form no cycle with the swaps so far."""
        if (source, target) not in self.ways:
            self.ways[source, target] = [hops for hops in self._all_routes(source, target) if not self._closes(hops)]
        return self.ways[source, target]

    def _closes(self, hops: Hops) -> bool:
        edges = self.edges | set(self._edges(hops))
        return any(self._leads(edges, end, start) for start, end in self._edges(hops))

    def gone(self, hops: Hops) -> None:
        """Record a swap through these pools."""
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
        nodes = self.problem.nodes
        pools = self.problem.pools.values()
        start = nodes[source].address
        end = nodes[target].address
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
        """Return (taken, paid) of a route now, as much as its pools' bounds allow; (0, 0) if it pays nothing."""
        for _ in range(4):
            amount = amount_raw
            for pool, token_in in hops:
                room = self.walk.remaining_input(pool, token_in)
                if amount > room:
                    amount_raw = amount_raw * max(room, 0) // amount if amount else 0
                    break
                try:
                    amount = self.walk.current_pools[pool].quote(token_in, amount) if amount else 0
                except (BeyondKnownTicks, ContractRevert):
                    return 0, 0
            else:
                return (amount_raw, amount) if amount else (0, 0)
        return 0, 0

    def rate(self, hops: Hops, amount_raw: int) -> tuple[Fraction, int]:
        """Return the value paid per value taken of a route now, and the base units taken; cached while its pools are unchanged."""
        states = [self.walk.current_pools[pool] for pool, _ in hops]
        before = self.known.get((hops, amount_raw))
        if before is not None and all(state is other for state, other in zip(before[0], states, strict=True)):
            return before[1:]
        taken, paid = self.pays(hops, amount_raw)
        start = hops[0][1]
        end = amm.token_out(states[-1], hops[-1][1])
        rate = paid * self.problem.price(end) / (taken * self.problem.price(start)) if taken else Fraction(0)
        self.known[hops, amount_raw] = states, rate, taken
        return rate, taken

    def best(self, source: int, target: int, amount_raw: int) -> tuple[Hops, int] | None:
        """Return the route that pays most per unit for the amount, and the amount that it takes; None if all cost too much."""
        limit_bps = self.problem.plan_cost_bps
        best_offer: tuple[Fraction, int, Hops] | None = None
        for hops in self.routes(source, target):
            rate, taken = self.rate(hops, amount_raw)
            if (
                taken
                and (limit_bps is None or rate * UNIT_BPS >= UNIT_BPS - limit_bps)
                and (best_offer is None or (rate, taken) > best_offer[:2])
            ):
                best_offer = (rate, taken, hops)
        return None if best_offer is None else (best_offer[2], best_offer[1])

    def rebalance(self, slices: int) -> PlanDraft:
        """Trade pairs until no correction is possible; each amount in `slices` parts, each part by the route that is then the best."""
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
                offer = self.best(source, target, part) if part > 0 else None
                if offer is not None:
                    taken = self.walk.run(Route(offer[0]), [offer[1]])[0]
                    if taken:
                        self.gone(offer[0])
                    moved += taken
            if moved * 20 < raw or raw <= 1:
                done.add((source, target))
        return self.walk.draft


def sequential(step: StepInput, decision: Rebalance, slices: int = 1) -> PlanDraft:
    """Swap one pair after another, each through the best single route of one or two pools, like rebalancing bots."""
    problem = build_problem(step, reference_prices(step))
    peer = Peer(problem, objective_for_goal(problem, decision.goal), RouteSimulator(problem), turnover_left(step, problem.total)[0])
    return peer.rebalance(slices)


def grid(step: StepInput, decision: Rebalance) -> PlanDraft:
    """Swap one pair after another, each split over routes in slices of 5 %, like smart order routers."""
    return sequential(step, decision, SLICES)


def objective(step: StepInput, decision: Rebalance, delta: dict[str, int]) -> Value:
    """Return the value less the penalty for the distance from the goal, in numeraire base units, real gains included."""
    problem = build_problem(step, reference_prices(step))
    ends = [node.value + delta.get(node.address, 0) * node.price for node in problem.nodes]
    return objective_for_goal(problem, decision.goal).utility(1.0, {}).exact_utility_of(ends)


def replayed_plan(step: StepInput) -> Plan:
    """Return the planner's plan, which `carry_out` finds right."""
    plan = planner.plan(step, rebalance_to_targets(step))
    prices = reference_prices(step).reference_by_token
    assert carry_out(step, plan, lambda at: prices[at].price).wrong == []
    return plan
