"""How much a pool takes, and pays, down to a wanted marginal price: float response curves in value units, one per direction.

In value units every token is worth 1 at its reference price, so that a pool on the reference has marginal price 1. With
s the square root of the marginal price (token out per token in) and L the liquidity, a range takes L·(1/s₁ − 1/s₀) net of
fee and pays L·(s₀ − s₁) (Uniswap v3 whitepaper, section 6.2; a V2 pair is one range with L = √(x·y)).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from agent.model import PoolState, V2Pool, V3Pool
from agent.units import BPS, PIPS

SHADE = 5e-5
"""Half a basis point: the finest price difference that the continuous solve resolves.

Prices closer than this count as one, which keeps the dual well conditioned in pools far deeper than the portfolio.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """Response to a price: value in (gross of fee), value out, surplus over the asked price (in value out), ranges entered."""

    taken: float
    paid: float
    surplus: float
    ranges: int


NOTHING = Answer(0.0, 0.0, 0.0, 0)


@dataclass(frozen=True, slots=True)
class Curve:
    """One direction of one pool. `roots` descend from the start to the bound; prefix sums belong to each of them.

    `net_in[k]`, `out[k]` are cumulative to roots[k]; `over[k]` is ∫(s² − roots[k]²)·dx up to there, kept as a sum of
    positive terms, so that no digits cancel when two prices nearly meet.
    """

    keep: float
    roots: tuple[float, ...]
    depths: tuple[float, ...]
    net_in: tuple[float, ...]
    out: tuple[float, ...]
    over: tuple[float, ...]
    negated: tuple[float, ...]

    @property
    def best_rate(self) -> float:
        """Value out per value in of the first unit, after fee."""
        return self.keep * self.roots[0] * self.roots[0]

    @property
    def capacity(self) -> float:
        """Largest value in, gross of fee, within the bound."""
        return self.net_in[-1] / self.keep

    def answer(self, ratio: float) -> Answer:
        """The trade whose last unit still pays `ratio` of value out per value in, after fee."""
        root = math.sqrt(ratio / self.keep)
        if root >= self.roots[0]:
            return NOTHING
        last = len(self.roots) - 1
        if root <= self.roots[last]:
            edge = self.roots[last]
            taken, paid, gap = self.net_in[last], self.out[last], edge - root
            return Answer(taken / self.keep, paid, self.over[last] + gap * (edge + root) * taken, last)
        k = bisect_left(self.negated, -root) - 1
        edge, depth = self.roots[k], self.depths[k]
        gap = edge - root
        taken = self.net_in[k] + depth * gap / (root * edge)
        surplus = self.over[k] + gap * (edge + root) * self.net_in[k] + depth * gap * gap / edge
        return Answer(taken / self.keep, self.out[k] + depth * gap, surplus, k + 1)


def _v3_ranges(pool: V3Pool, downwards: bool) -> Iterator[tuple[float, float]]:
    """(far edge of the range as root of token out per token in, liquidity) from the current price to the known window."""
    liquidity = pool.liquidity
    if downwards:
        for tick in reversed(pool.ticks):
            if tick.index <= pool.tick:
                yield 1.0001 ** (tick.index / 2), float(liquidity)
                liquidity -= tick.liquidity_net
        yield 1.0001 ** (pool.known_from_tick / 2), float(liquidity)
    else:
        for tick in pool.ticks:
            if tick.index > pool.tick:
                yield 1.0001 ** (-tick.index / 2), float(liquidity)
                liquidity += tick.liquidity_net
        yield 1.0001 ** (-pool.known_to_tick / 2), float(liquidity)


def _start_and_ranges(pool: PoolState, token_in: str) -> tuple[float, list[tuple[float, float]]]:
    """Root of the marginal price before the trade, and the ranges beyond it. Nothing for a pool without reserves."""
    forward = token_in == pool.token0
    match pool:
        case V2Pool(reserve0=reserve0, reserve1=reserve1):
            reserve_in, reserve_out = (reserve0, reserve1) if forward else (reserve1, reserve0)
            if reserve_in <= 0 or reserve_out <= 0:
                return 0.0, []
            return math.sqrt(reserve_out / reserve_in), [(0.0, math.sqrt(reserve_in) * math.sqrt(reserve_out))]
        case V3Pool():
            if pool.sqrt_price_x96 <= 0:
                return 0.0, []
            root = pool.sqrt_price_x96 / 2**96
            return (root if forward else 1 / root), list(_v3_ranges(pool, forward))


def build_curve(
    pool: PoolState, token_in: str, price_in: Fraction, price_out: Fraction, scale: float, impact_bps: int, no_gain: bool
) -> Curve | None:
    """Curve of one direction in value units of `scale` numeraire base units; None when nothing can be traded that way.

    `impact_bps` bounds the move of the marginal price. With `no_gain` a unit never counts as worth more than what it costs
    at reference prices: a pool off the market is then free of charge, not a source of profit, and cycles cannot pay (T9).
    """
    start, ranges = _start_and_ranges(pool, token_in)
    if start <= 0:
        return None
    ratio = float(price_out / price_in)
    stretch, weight = math.sqrt(ratio), math.sqrt(float(price_in)) * math.sqrt(float(price_out)) / scale
    keep = 1 - pool.fee_pips / PIPS
    start *= stretch
    stop = start * math.sqrt(1 - min(impact_bps, BPS - 1) / BPS)
    edges: list[tuple[float, float]] = []
    at = start
    for raw_edge, raw_depth in ranges:
        edge = max(raw_edge * stretch, stop)
        if edge >= at:
            continue
        edges.append((edge, max(raw_depth, 0.0) * weight))
        at = edge
        if edge <= stop:
            break
    if no_gain:
        start, edges = _level_gain(start, edges, keep)
    return _sum_up(start, edges, keep)


def _level_gain(start: float, edges: list[tuple[float, float]], keep: float) -> tuple[float, list[tuple[float, float]]]:
    """Folds the part of a curve that pays more than the reference after fee into one range just below it."""
    top = math.sqrt((1 - SHADE) / keep)
    if start <= top:
        return start, edges
    bottom = top * (1 - SHADE)
    folded, at, rest = 0.0, start, []
    for edge, depth in edges:
        if at > bottom:
            cut = max(edge, bottom)
            folded += depth * (1 / cut - 1 / at)
            if edge < bottom:
                rest.append((edge, depth))
        else:
            rest.append((edge, depth))
        at = edge
    return top, [(bottom, folded / (1 / bottom - 1 / top)), *rest]


def _sum_up(start: float, edges: list[tuple[float, float]], keep: float) -> Curve | None:
    """Prefix sums; depth is capped where a whole unit of scale moves the price by less than SHADE."""
    roots, depths, net_in, out, over = [start], [], [0.0], [0.0], [0.0]
    for edge, depth in edges:
        capped, at = min(depth, 1 / SHADE), roots[-1]
        gap = at - edge
        depths.append(capped)
        over.append(over[-1] + gap * (at + edge) * net_in[-1] + capped * gap * gap / at)
        net_in.append(net_in[-1] + capped * gap / (at * edge))
        out.append(out[-1] + capped * gap)
        roots.append(edge)
    if net_in[-1] <= 0:
        return None
    return Curve(keep, tuple(roots), tuple(depths), tuple(net_in), tuple(out), tuple(over), tuple(-r for r in roots))
