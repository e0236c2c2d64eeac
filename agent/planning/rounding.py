"""Paths in exact integers: each leg simulated on the state that the legs before it left, every bound checked on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from agent.amm import pools as amm
from agent.amm.errors import BeyondKnownTicks, Reverts
from agent.model import Cost, Funding, Leg, PoolState, V3Pool
from agent.planning.floors import fair_floor, min_out
from agent.planning.gas import gas_value, leg_units, plan_units
from agent.planning.payments import paid
from agent.planning.problem import UNBOUNDED_BPS, Problem
from agent.units import BPS, Value, floor_int

CRUMB = 10**12
"""One part in so many of an approval, as much as floating point may miss of it, goes with the last route."""
RETRIES = 12
"""How often a route is shortened until all its legs fit; each try aims at the leg that did not."""


@dataclass(frozen=True, slots=True)
class Route:
    """Pools to go through, first to last, with the token that enters each, and the wanted amount of the first token."""

    hops: tuple[tuple[str, str], ...]
    amount_raw: int


@dataclass(slots=True)
class Draft:
    """Legs so far with what they do. `barred` names pools whose leg fell below its fair floor, with the reason."""

    legs: list[Leg] = field(default_factory=list)
    leg_gas: list[int] = field(default_factory=list)
    delta: dict[str, int] = field(default_factory=dict)
    sold: dict[str, int] = field(default_factory=dict)
    bought: dict[str, int] = field(default_factory=dict)
    full: set[str] = field(default_factory=set)
    barred: dict[str, str] = field(default_factory=dict)
    fees: Value = Fraction(0)
    impact: Value = Fraction(0)
    skew: Value = Fraction(0)
    gross: Value = Fraction(0)

    def gas_units(self, problem: Problem) -> int:
        """Gas of the transaction, payment in native coin included; none without legs."""
        return plan_units(problem.gas, paid(problem.coin, self.legs), sum(self.leg_gas))

    def chains(self) -> list[list[int]]:
        """Positions of the legs of each chain, in order."""
        starts = [number for number, leg in enumerate(self.legs) if leg.source is Funding.WALLET]
        return [list(range(a, b)) for a, b in zip(starts, [*starts[1:], len(self.legs)], strict=True)]

    def cost(self, problem: Problem) -> Cost:
        """Cost of all legs in numeraire base units."""
        return Cost(self.fees, self.impact, self.skew, gas_value(self.gas_units(problem), 1, problem.gas_unit_value))

    def turnover(self, problem: Problem) -> Value:
        """Half the sum of absolute changes of holdings in value."""
        return sum((abs(raw) * problem.price(token) for token, raw in self.delta.items()), Fraction(0)) / 2


@dataclass(frozen=True, slots=True)
class _Run:
    """One leg simulated: the pool before and after it."""

    token_in: str
    token_out: str
    swapped: amm.Swapped
    before: PoolState


class Walk:
    """Runs routes on the changing state of the pools and keeps what they did in `draft`."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.now: dict[str, PoolState] = dict(problem.pools)
        self.draft = Draft()
        self._room: dict[tuple[str, str], int] = {}
        self._spent: dict[tuple[str, str], int] = {}

    def spendable(self, token: str) -> int:
        """Base units of the wallet's investable balance that no leg has taken yet."""
        node = self.problem.nodes[self.problem.position[token]]
        return node.spendable_raw - self.draft.sold.get(token, 0)

    def run(self, route: Route) -> int:
        """Trades up to the wanted amount along a route, as much as bounds and balance let; base units really taken."""
        source = route.hops[0][1]
        left = self.spendable(source)
        amount = min(route.amount_raw, left)
        if self._is_crumb(source, left - amount):
            amount = left
        for _ in range(RETRIES):
            if amount <= 0:
                return 0
            runs, share = self._attempt(route, amount)
            if share is None:
                return self._book(runs)
            amount = min(amount - 1, floor_int(amount * share))
        return 0

    def _is_crumb(self, token: str, raw: int) -> bool:
        """Whether so little of what is approved would stay that only floating point left it: an allowance to take back."""
        node = self.problem.nodes[self.problem.position[token]]
        return node.cap_raw is not None and raw * CRUMB <= node.cap_raw

    def _attempt(self, route: Route, amount: int) -> tuple[list[_Run], Fraction | None]:
        """Runs without booking, and the share of the amount to try next; no share when everything fits."""
        runs: list[_Run] = []
        for pool_address, token_in in route.hops:
            before = self.now[pool_address]
            room = self.room(pool_address, token_in)
            if amount > room:
                self.draft.full.add(pool_address)
                return runs, Fraction(room, amount)
            try:
                swapped = amm.swap_exact_in(before, token_in, amount)
            except BeyondKnownTicks as error:
                self.draft.full.add(pool_address)
                return runs, Fraction(min(error.largest_raw, amount - 1), amount)
            except Reverts:
                return runs, Fraction(0)
            if amm.move_bps(self.problem.pools[pool_address], swapped.after, token_in) > self.problem.impact_bps:
                self.draft.full.add(pool_address)
                return runs, Fraction(BPS - 1, BPS)
            if swapped.amount_in_raw != amount or swapped.amount_out_raw <= 0:
                return runs, Fraction(0)
            runs.append(_Run(token_in, amm.token_out(before, token_in), swapped, before))
            amount = swapped.amount_out_raw
        return runs, None

    def room(self, pool_address: str, token_in: str) -> int:
        """Base units the pool still takes within its bounds; none once it has traded the other way."""
        key = (pool_address, token_in)
        start = self.problem.pools[pool_address]
        if (pool_address, amm.token_out(start, token_in)) in self._spent:
            return 0
        if key not in self._room:
            self._room[key] = self.problem.room(start, token_in)
        return self._room[key] - self._spent.get(key, 0)

    def _book(self, runs: Sequence[_Run]) -> int:
        legs = [self._leg(run, first=number == 0, last=number == len(runs) - 1) for number, run in enumerate(runs)]
        for leg in legs:
            if leg.min_out_raw > leg.amount_out_raw:
                self.draft.barred[leg.pool] = (
                    f"pays {leg.amount_out_raw} base units where the reference price asks for at least {leg.min_out_raw}"
                )
                return 0
        for run, leg in zip(runs, legs, strict=True):
            key = (leg.pool, leg.token_in)
            self._spent[key] = self._spent.get(key, 0) + leg.amount_in_raw
            self.now[leg.pool] = run.swapped.after
            self._price_in(run, leg)
        draft, given, got = self.draft, runs[0], runs[-1]
        draft.legs += legs
        raw_in, raw_out = given.swapped.amount_in_raw, got.swapped.amount_out_raw
        draft.sold[given.token_in] = draft.sold.get(given.token_in, 0) + raw_in
        draft.bought[got.token_out] = draft.bought.get(got.token_out, 0) + raw_out
        draft.delta[given.token_in] = draft.delta.get(given.token_in, 0) - raw_in
        draft.delta[got.token_out] = draft.delta.get(got.token_out, 0) + raw_out
        return raw_in

    def _leg(self, run: _Run, first: bool, last: bool) -> Leg:
        problem, swapped = self.problem, run.swapped
        floor = fair_floor(
            swapped.amount_in_raw,
            problem.price(run.token_in),
            problem.price(run.token_out),
            amm.fee_pips(run.before),
            BPS if problem.impact_bps == UNBOUNDED_BPS else problem.impact_bps,
            problem.slippage_bps or 0,
        )
        return Leg(
            pool=run.before.address,
            venue=run.before.venue,
            token_in=run.token_in,
            token_out=run.token_out,
            fee_pips=amm.fee_pips(run.before),
            amount_in_raw=swapped.amount_in_raw,
            amount_out_raw=swapped.amount_out_raw,
            min_out_raw=max(1, min_out(swapped.amount_out_raw, floor, problem.slippage_bps)),
            fee_raw=swapped.fee_raw,
            impact_bps=amm.move_bps(run.before, swapped.after, run.token_in),
            source=Funding.WALLET if first else Funding.ROUTER,
            sink=Funding.WALLET if last else Funding.ROUTER,
        )

    def _price_in(self, run: _Run, leg: Leg) -> None:
        """Splits what a leg loses at reference prices: fee, impact against the pool's price in the snapshot, and its skew."""
        problem, draft = self.problem, self.draft
        price_in, price_out = problem.price(leg.token_in), problem.price(leg.token_out)
        net_raw = leg.amount_in_raw - leg.fee_raw
        unmoved = net_raw * amm.marginal_price(problem.pools[leg.pool], leg.token_in) * price_out
        draft.fees += leg.fee_raw * price_in
        draft.impact += unmoved - leg.amount_out_raw * price_out
        draft.skew += net_raw * price_in - unmoved
        draft.gross += leg.amount_in_raw * price_in
        after, moved = run.swapped.after, False
        if isinstance(run.before, V3Pool) and isinstance(after, V3Pool):
            start = problem.pools[leg.pool]  # the oracle writes once in a block
            moved = run.before.tick != after.tick and isinstance(start, V3Pool) and start.tick == run.before.tick
        draft.leg_gas.append(leg_units(run.before, run.swapped.ticks_crossed, run.swapped.steps, problem.gas.router, moved))


def run_all(problem: Problem, routes: Sequence[Route]) -> Walk:
    """Runs routes in order. What one cannot take goes to the next that joins the same two tokens, so that nothing overshoots.

    What sells native coin goes first: SwapRouter02 pays anything in wrapped coin with native coin while some is there.
    """
    walk = Walk(problem)
    coin = problem.coin
    if coin is not None and coin.free_wei:
        routes = sorted(routes, key=lambda route: route.hops[0][1] != coin.token)
    left: dict[tuple[str, str], int] = {}
    for route in routes:
        last_pool, last_in = route.hops[-1]
        ends = (route.hops[0][1], amm.token_out(problem.pools[last_pool], last_in))
        wanted = route.amount_raw + left.get(ends, 0)
        left[ends] = wanted - walk.run(Route(route.hops, wanted))
    return walk
