"""What a plan does, worked out once more without the planner or the library's pools: swaps by the contracts' formulas, in integers.

V2 is UniswapV2Library.getAmountOut; V3 is the loop of UniswapV3Pool.swap with SwapMath.computeSwapStep, from initialised tick to
tick. Only TickMath's table of constants is the library's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from graphlib import CycleError, TopologicalSorter

from agent.amm.v3.tick_math import get_sqrt_ratio_at_tick
from agent.model import LegFunding, Plan, StepInput, V2Pool, V3Pool
from tests.support.builders import price_of

Q96, PIPS, BPS = 2**96, 10**6, 10**4


def _up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


@dataclass
class Pair:
    """A V2 pair."""

    reserves: dict[str, int]
    fee_pips: int

    def swap(self, token_in: str, amount_in: int) -> int:
        (token_out,) = set(self.reserves) - {token_in}
        kept = amount_in * (PIPS - self.fee_pips)
        paid = kept * self.reserves[token_out] // (self.reserves[token_in] * PIPS + kept)
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

    def swap(self, token_in: str, amount_in: int) -> int:
        down, left, paid = token_in == self.token0, amount_in, 0
        while left:
            edge = self._next(down)
            goal = get_sqrt_ratio_at_tick(edge)
            net_left = left * (PIPS - self.fee_pips) // PIPS
            whole = self._in(down, self.root, goal)
            reached = goal if net_left >= whole else self._root_after(down, net_left)
            taken = self._in(down, self.root, reached)
            paid += self._out(down, self.root, reached)
            if reached == goal:
                left -= taken + _up(taken * self.fee_pips, PIPS - self.fee_pips)
                assert not left or edge in self.net, "a plan stays within the ticks read"
                self.liquidity += (-1 if down else 1) * self.net.get(edge, 0)
                self.tick = edge - 1 if down else edge
            else:
                left = 0
            self.root = reached
        return paid

    def _next(self, down: bool) -> int:
        """The next initialised tick, or where the ticks read end."""
        if down:
            return max((tick for tick in self.net if tick <= self.tick), default=self.known[0])
        return min((tick for tick in self.net if tick > self.tick), default=self.known[1])

    def _in(self, down: bool, start: int, end: int) -> int:
        high, low = max(start, end), min(start, end)
        if down:
            return _up(_up((self.liquidity << 96) * (high - low), high), low)
        return _up(self.liquidity * (high - low), Q96)

    def _out(self, down: bool, start: int, end: int) -> int:
        high, low = max(start, end), min(start, end)
        if down:
            return self.liquidity * (high - low) // Q96
        return (self.liquidity << 96) * (high - low) // high // low

    def _root_after(self, down: bool, net_in: int) -> int:
        if down:
            return _up((self.liquidity << 96) * self.root, (self.liquidity << 96) + net_in * self.root)
        return self.root + net_in * Q96 // self.liquidity

    def price(self, token_in: str) -> Fraction:
        found = Fraction(self.root * self.root, Q96 * Q96)
        return found if token_in == self.token0 else 1 / found


def pools_of(step: StepInput) -> dict[str, Pair | Ranges]:
    """The snapshot's pools, to be traded in."""
    found: dict[str, Pair | Ranges] = {}
    for pool in step.snapshot.pools:
        match pool:
            case V2Pool():
                found[pool.address] = Pair({pool.token0: pool.reserve0, pool.token1: pool.reserve1}, pool.fee_pips)
            case V3Pool():
                net = {tick.index: tick.liquidity_net for tick in pool.ticks}
                ends = pool.known_from_tick, pool.known_to_tick
                found[pool.address] = Ranges(pool.token0, pool.fee_pips, pool.sqrt_price_x96, pool.tick, pool.liquidity, net, ends)
    return found


@dataclass
class Carried:
    """What a plan did: changes of the wallet by token, base units, and everything that is wrong with it, by kind."""

    moved: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def check(self, holds: bool, kind: str) -> None:
        if not holds and kind not in self.wrong:
            self.wrong.append(kind)


def unit_price(step: StepInput, address: str, prices: dict[str, object]) -> Fraction:
    """Numeraire base units per base unit."""
    of = step.portfolio.token(address)
    return price_of(of.symbol, prices) * Fraction(10) ** (step.portfolio.numeraire.decimals - of.decimals)  # type: ignore[arg-type]


def carry_out(step: StepInput, plan: Plan, price: Callable[[str], Fraction]) -> Carried:
    """Carries a plan out as a router would: a wallet leg spends its amount, a router leg all that is there of its token."""
    found, now, router, limits = Carried(), pools_of(step), dict[str, int](), step.limits
    start = pools_of(step)
    edges: dict[str, set[str]] = {}
    for leg in plan.legs:
        spent = leg.amount_in_raw if leg.source is LegFunding.WALLET else router.pop(leg.token_in, 0)
        found.check(spent == leg.amount_in_raw > 0, "amount in")
        paid = now[leg.pool].swap(leg.token_in, spent)
        found.check(paid == leg.amount_out_raw, "amount out")
        if leg.source is LegFunding.WALLET:
            found.moved[leg.token_in] = found.moved.get(leg.token_in, 0) - spent
        book = router if leg.sink is LegFunding.ROUTER else found.moved
        book[leg.token_out] = book.get(leg.token_out, 0) + paid
        impact = Fraction(limits.price_impact_bps if limits.price_impact_bps is not None else BPS, BPS)
        rate = max(Fraction(0), 1 - Fraction(leg.fee_pips, PIPS) - impact) * (1 - Fraction(limits.slippage_bps or 0, BPS))
        fair = max(1, int(spent * price(leg.token_in) / price(leg.token_out) * rate))
        found.check(fair <= leg.min_out_raw <= paid, "floor")
        if limits.price_impact_bps is not None:
            found.check(now[leg.pool].price(leg.token_in) >= start[leg.pool].price(leg.token_in) * (1 - impact), "impact")
        edges.setdefault(leg.token_out, set()).add(leg.token_in)
    found.check(not router, "left in the router")
    try:
        TopologicalSorter(edges).prepare()
    except CycleError:
        found.check(False, "circle")
    _check_wallet(step, plan, found, price)
    return found


def _check_wallet(step: StepInput, plan: Plan, found: Carried, price: Callable[[str], Fraction]) -> None:
    held, limits = {holding.token: holding.raw for holding in step.snapshot.holdings}, step.limits
    assets = {asset.token.address: asset for asset in step.portfolio.assets}
    found.check(all(raw == 0 for at, raw in found.moved.items() if at not in assets), "hub")
    after = {at: held[at] + found.moved.get(at, 0) for at in assets}
    found.check(all(after[at] <= held[at] for at, asset in assets.items() if asset.target_bps == 0), "bought at a target of nothing")
    found.check(after == dict(plan.holdings_after), "holdings")
    found.check(all(after[at] >= min(held[at], asset.reserve_raw) for at, asset in assets.items()), "reserve")
    moves = {at: (after[at] - held[at]) * price(at) for at in assets}
    turnover, before = sum(map(abs, moves.values()), Fraction(0)) / 2, sum((held[at] * price(at) for at in assets), Fraction(0))
    found.check(turnover == plan.turnover, "turnover told")
    if limits.turnover_bps is not None:
        found.check(turnover * BPS <= before * limits.turnover_bps, "limits.turnover")
    lost = -sum(moves.values(), Fraction(0)) + plan.cost.gas + plan.cost.approvals
    found.check(lost == plan.cost.total, "cost told")
    if limits.plan_cost_bps is not None:
        found.check(lost * BPS <= limits.plan_cost_bps * turnover, "limits.plan_cost")
    if limits.min_trade is not None:
        found.check(all(abs(move) >= limits.min_trade for move in moves.values() if move), "limits.min_trade")
