"""The allocators behind one port: facts in, shares of the free assets out, with a sentence on why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from agent.errors import Refused
from agent.floats import dot, times
from agent.model import Method, PricePoint, Supply, Weights
from agent.units import BPS, Price
from agent.weights import optimisers
from agent.weights.bounded import within
from agent.weights.returns import Floats, Returns, covariance, returns

GRID = 10**6
"""Parts that shares of an optimiser are rounded to: a hundredth of a basis point, many times what a solver leaves open. Equal ones
come out equal, and the largest remainder of their basis points is no matter of a solver's last digits.
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What an allocator may know of the world: chain time, recorded prices oldest first, coins that exist by the chain.

    `current` are prices of this very block, which count where none of the last `max_age_s` is recorded and the owner asks for no
    confirmation of prices over blocks. `names` are the tokens' labels.
    """

    now_s: int
    prices: tuple[PricePoint, ...]
    names: Mapping[str, str]
    supplies: tuple[Supply, ...] = ()
    current: Mapping[str, Price] | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """The free assets in the order of their addresses, bps of the portfolio that they share, and the bounds of each."""

    tokens: tuple[str, ...]
    total: int
    low: tuple[int, ...]
    high: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Shares of the free assets in bps, within their bounds up to rounding; `why` says how they came about, `data` from what."""

    shares: tuple[Fraction, ...]
    why: str
    data: str
    seen: Returns | None = None
    from_s: int | None = None
    until_s: int | None = None


Allocator = Callable[[Weights, Bounds, Facts], Wanted]
"""Raises Refused naming what is missing, too old, singular or zero."""


def equal(_weights: Weights, bounds: Bounds, _facts: Facts) -> Wanted:
    """The same share of each free asset."""
    shares = tuple(within([Fraction(1)] * len(bounds.tokens), bounds.low, bounds.high, bounds.total))
    return Wanted(shares, f"{len(bounds.tokens)} assets share {bounds.total / 100:g} % equally", "no data")


def market_cap(weights: Weights, bounds: Bounds, facts: Facts) -> Wanted:
    """In proportion to the value of all coins that exist, what a bound cuts off going to the others in proportion."""
    told = {one.token: one for one in (*facts.supplies, *weights.supplies)}
    caps, times, sources = [], [], []
    for token in bounds.tokens:
        name, supply = facts.names[token], told.get(token)
        if supply is None:
            raise Refused(f"the supply of {name} could not be read from its contract", remedy=_SUPPLIES)
        if supply.raw <= 0:
            raise Refused(f"the market cap of {name} is zero: {supply.source or 'its contract'} says that no coin exists", remedy=_SUPPLIES)
        price, at_s = _price(weights, facts, token)
        caps.append(supply.raw * price)
        times.append(at_s)
        sources.append(f"{name} by {supply.source or 'its contract'}")
    shares = within(caps, bounds.low, bounds.high, bounds.total)
    whole = sum(caps, Fraction(0))
    parts = ", ".join(f"{facts.names[t]} {float(cap / whole * 100):.2f} %" for t, cap in zip(bounds.tokens, caps, strict=True))
    held = [
        facts.names[t] for t, share, low, high in zip(bounds.tokens, shares, bounds.low, bounds.high, strict=True) if share in (low, high)
    ]
    cut = f"; held at a limit: {', '.join(held)}, the rest goes to the others in proportion" if held else ""
    why = f"shares of the market value of all coins: {parts}{cut}"
    return Wanted(tuple(shares), why, f"supply of {', '.join(sources)}, times the price", None, min(times), max(times))


def inverse_volatility(weights: Weights, bounds: Bounds, facts: Facts) -> Wanted:
    """In inverse proportion to volatility: w_i = (1/σ_i) / Σ (1/σ_j), from sample deviations."""
    seen = returns(weights, bounds.tokens, facts.names, facts.prices, facts.now_s)
    shares = within([Fraction(1 / float(v)) for v in seen.volatility], bounds.low, bounds.high, bounds.total)
    parts = ", ".join(f"{facts.names[t]} {v:.1%}" for t, v in zip(bounds.tokens, seen.volatility, strict=True))
    return _from_returns(tuple(shares), f"in inverse proportion to volatilities a year: {parts}", seen)


def minimum_variance(weights: Weights, bounds: Bounds, facts: Facts) -> Wanted:
    """The mix of least variance within the bounds."""
    seen, shares, matrix = _optimised(weights, bounds, facts, optimisers.minimum_variance)
    return _from_returns(_bps(shares, bounds), f"the mix that varies least: {_deviation(shares, matrix):.1%} a year", seen)


def risk_parity(weights: Weights, bounds: Bounds, facts: Facts) -> Wanted:
    """Each free asset carries the same share of the variance."""
    seen, shares, matrix = _optimised(weights, bounds, facts, optimisers.risk_parity)
    pulls = times(matrix, shares)
    parts = shares * pulls / dot(shares, pulls)
    said = ", ".join(f"{facts.names[t]} {part:.1%}" for t, part in zip(bounds.tokens, parts, strict=True))
    return _from_returns(_bps(shares, bounds), f"each asset carries its share of the variance: {said}", seen)


def hrp(weights: Weights, bounds: Bounds, facts: Facts) -> Wanted:
    """Hierarchical risk parity."""
    seen, shares, matrix = _optimised(weights, bounds, facts, optimisers.hrp)
    why = f"halves of the tree of correlations in inverse proportion to their variance: {_deviation(shares, matrix):.1%} a year"
    return _from_returns(_bps(shares, bounds), why, seen)


ALLOCATORS: Mapping[Method, Allocator] = {
    Method.EQUAL: equal,
    Method.MARKET_CAP: market_cap,
    Method.INVERSE_VOLATILITY: inverse_volatility,
    Method.MINIMUM_VARIANCE: minimum_variance,
    Method.RISK_PARITY: risk_parity,
    Method.HRP: hrp,
}


def _optimised(weights: Weights, bounds: Bounds, facts: Facts, optimiser: optimisers.Optimiser) -> tuple[Returns, Floats, Floats]:
    """(returns, shares that sum to 1, covariance a year)."""
    seen = returns(weights, bounds.tokens, facts.names, facts.prices, facts.now_s)
    matrix = covariance(seen, facts.names)
    low, high = (np.array(edge, dtype=np.float64) / bounds.total for edge in (bounds.low, bounds.high))
    return seen, optimiser(matrix, low, np.minimum(high, 1.0)), matrix


def _from_returns(shares: tuple[Fraction, ...], why: str, seen: Returns) -> Wanted:
    gaps = f", {seen.gaps} intervals left out for missing prices" if seen.gaps else ""
    return Wanted(shares, why, f"{len(seen.moves)} returns of each{gaps}", seen, seen.from_s, seen.until_s)


def _bps(shares: Floats, bounds: Bounds) -> tuple[Fraction, ...]:
    """Shares to the grid as bps that sum to the total, what the solver was off by spread in proportion."""
    exact = [Fraction(round(max(float(share), 0.0) * GRID), GRID) for share in shares]
    whole = sum(exact, Fraction(0))
    if whole <= 0 or abs(whole - 1) > Fraction(1, BPS):
        raise Refused(f"the optimiser found no weights: they sum to {float(whole):.6f}", remedy="look at portfolio.weights.limits")
    return tuple(share * bounds.total / whole for share in exact)


def _deviation(shares: Floats, matrix: Floats) -> float:
    return math.sqrt(dot(shares, times(matrix, shares)))


def _price(weights: Weights, facts: Facts, token: str) -> tuple[Price, int]:
    """(price, chain time) of the newest recorded price that is young enough, else of this block where that may count."""
    found = max((one for one in facts.prices if one.token == token and one.at_s <= facts.now_s), key=lambda one: one.at_s, default=None)
    if found is not None and facts.now_s - found.at_s <= weights.max_age_s:
        return found.price, found.at_s
    if facts.current is not None and token in facts.current:
        return facts.current[token], facts.now_s
    age = "none is recorded" if found is None else f"the newest is {(facts.now_s - found.at_s) / 3_600:.1f} h old"
    raise Refused(f"no price of {facts.names[token]} within max_age: {age}", remedy="the agent's next looks record it")


_SUPPLIES = "give it in the file of portfolio.weights.supplies, or name the token in portfolio.weights.fixed"
