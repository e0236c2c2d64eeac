"""What a thing is worth: the price that weights, triggers, costs and floors go by (design section 6, reference prices)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.amm import pools, twap
from agent.model import FeedRound, PastPrices, PoolState, ReferenceKind, StepInput, V2Pool, V3Pool
from agent.reference import means, rounds
from agent.units import Price, Token, floor_int, safe_label


@dataclass(frozen=True, slots=True)
class RefPrice:
    """Worth of one token: numeraire base units per token base unit, where it comes from, and the figures behind it."""

    token: str
    price: Price
    source: ReferenceKind
    detail: str


@dataclass(frozen=True, slots=True)
class Unpriced:
    """A token without a price, and what each source lacked."""

    token: str
    label: str
    why: str


@dataclass(frozen=True, slots=True)
class References:
    """Prices by token address, for every asset and hub, the numeraire (exactly 1) and wrapped native, as far as known."""

    prices: dict[str, RefPrice]
    unpriced: tuple[Unpriced, ...]


@dataclass(frozen=True, slots=True)
class _Market:
    """A price in some other token, and how much stands behind it: virtual base units of the token itself."""

    price: Fraction
    depth_raw: int
    pools: int


_Measure = Callable[[PoolState, str], _Market | None]
"""What a pool says of one of its tokens in terms of the other; None where it cannot say."""


class _NoPrice(Exception):
    """One source has no price; the message says why."""


def reference_prices(step: StepInput) -> References:
    """The price of each token by the first configured source that has one; whoever has none is named with the reasons."""
    prices: dict[str, RefPrice] = {}
    unpriced: list[Unpriced] = []
    for address, label in _wanted(step):
        found, why = _first(step, address)
        if found is None:
            unpriced.append(Unpriced(address, label, why))
        else:
            prices[address] = found
    return References(prices, tuple(unpriced))


def prices_at(step: StepInput, past: PastPrices) -> References:
    """The same by what an earlier block says: its feeds, its pools, its time, and the blocks before it."""
    before = tuple(other for other in step.snapshot.past if other.head.number < past.head.number)
    then = replace(step.snapshot, head=past.head, feeds=past.feeds, pools=past.pools, past=before)
    return reference_prices(replace(step, snapshot=then))


def spot_prices(step: StepInput) -> dict[str, Price]:
    """What the pools say at this very block, for comparison with the reference; tokens that no pool prices are left out."""
    prices: dict[str, Price] = {}
    for address, _ in _wanted(step):
        try:
            prices[address] = _price(step, address, ReferenceKind.SPOT).price
        except _NoPrice:
            continue
    return prices


def _wanted(step: StepInput) -> list[tuple[str, str]]:
    """(address, label) of everything that something is valued in, without repeats."""
    portfolio = step.portfolio
    tokens: tuple[Token, ...] = (*(asset.token for asset in portfolio.assets), *portfolio.hubs, portfolio.numeraire)
    labels = {portfolio.wrapped_native: portfolio.wrapped_native} | {token.address: token.label for token in reversed(tokens)}
    order = dict.fromkeys([*(token.address for token in tokens), portfolio.wrapped_native])
    return [(address, labels[address]) for address in order]


def _first(step: StepInput, address: str) -> tuple[RefPrice | None, str]:
    """The price by the first source that has one, or the reasons of all of them."""
    reasons = []
    for kind in step.reference.kinds:
        try:
            return _price(step, address, kind), ""
        except _NoPrice as reason:
            reasons.append(f"{kind.value}: {reason}")
    return None, "; ".join(reasons) or "no source of reference prices is configured"


def _price(step: StepInput, address: str, kind: ReferenceKind) -> RefPrice:
    if address == step.portfolio.numeraire.address:
        return RefPrice(address, Fraction(1), kind, "the numeraire")
    match kind:
        case ReferenceKind.FEED:
            price, detail = _by_feeds(step, address)
        case ReferenceKind.TWAP:
            window_s = step.reference.twap_window_s
            try:
                market = _by_pools(step, address, lambda pool, token: _mean_market(step, pool, token), f"a mean over {window_s} s")
            except _NoPrice as none:
                raise _NoPrice(f"{none}{_lacking(step, address)}") from None
            price, detail = market.price, f"mean over {window_s} s of {market.pools} pool(s)"
        case ReferenceKind.SPOT:
            market = _by_pools(step, address, _spot_market, "liquidity at its price")
            price, detail = market.price, f"spot price of {market.pools} pool(s) at block {step.snapshot.head.number}"
    return RefPrice(address, price, kind, detail)


def _by_feeds(step: StepInput, address: str) -> tuple[Fraction, str]:
    """USD price of the token over USD price of the numeraire, each from a round that counts."""
    numeraire = step.portfolio.numeraire
    token, own = _round(step, address)
    _, unit = _round(step, numeraire.address)
    whole = Fraction(own.answer, 10**own.decimals) / Fraction(unit.answer, 10**unit.decimals)
    age_s = step.snapshot.head.timestamp_s - min(own.updated_at_s, unit.updated_at_s)
    return whole * Fraction(10) ** (numeraire.decimals - token.decimals), f"round {own.round_id} of feed {own.feed}, {age_s} s old"


def _round(step: StepInput, address: str) -> tuple[Token, FeedRound]:
    """The token's latest feed round, if it is complete and fresh. Raises _NoPrice saying which condition fails."""
    feed = step.portfolio.feed(address)
    label = _label(step, address)
    if feed is None:
        raise _NoPrice(f"{label} has no feed")
    answer = next((round_ for round_ in step.snapshot.feeds if round_.feed == feed), None)
    if answer is None:
        why = next((f": {item.why}" for item in step.snapshot.quarantined if item.address == feed), "")
        raise _NoPrice(f"the feed of {label} was not read{why}")
    fault = rounds.fault(step, answer)
    if fault:
        raise _NoPrice(f"the feed of {label} {fault}")
    return step.portfolio.token(address), answer


def _label(step: StepInput, address: str) -> str:
    try:
        return step.portfolio.token(address).label
    except KeyError:
        return safe_label("", address)


def _mean_market(step: StepInput, pool: PoolState, token: str) -> _Market | None:
    """Time-weighted mean price and harmonic mean liquidity of a pool whose mean counts.

    Time-weighted: what somebody adds for a few blocks gives a pool hardly more weight.
    """
    if not isinstance(pool, V3Pool) or means.outside(step, pool):
        return None
    price = twap.price(pool, token)
    return _Market(price, _virtual_raw(pool.twap_liquidity or 0, price), 1)


def _lacking(step: StepInput, address: str) -> str:
    """Why the V3 pools of a token with the numeraire or a hub do not count, each with its remedy."""
    others = {step.portfolio.numeraire.address, *(hub.address for hub in step.portfolio.hubs)} - {address}
    near = [pool for pool in step.snapshot.pools if isinstance(pool, V3Pool) and {pool.token0, pool.token1} - others == {address}]
    return "".join(f"; pool {pool.address}: {why}" for pool in near if (why := means.outside(step, pool)))


def _spot_market(pool: PoolState, token: str) -> _Market | None:
    """Marginal price and what stands at it now, where the pool holds something."""
    if isinstance(pool, V2Pool):
        if min(pool.reserve0, pool.reserve1) <= 0:
            return None
        return _Market(pools.marginal_price(pool, token), pool.reserve0 if token == pool.token0 else pool.reserve1, 1)
    if min(pool.liquidity, pool.sqrt_price_x96) <= 0:
        return None
    price = pools.marginal_price(pool, token)
    return _Market(price, _virtual_raw(pool.liquidity, price), 1)


def _virtual_raw(liquidity: int, price: Fraction) -> int:
    """L/√P, the virtual reserve of a token in base units: what moving its price costs, alike for V2 and all tiers of V3."""
    return math.isqrt(floor_int(liquidity**2 / price))


def _by_pools(step: StepInput, address: str, measure: _Measure, lack: str) -> _Market:
    """Price in the numeraire over all pools with it and all routes through one hub, weighted by depth.

    A route counts with the depth of its thinner half, so that a thin pool behind a deep one gains no weight.
    """
    numeraire = step.portfolio.numeraire.address
    routes = [_between(step, address, numeraire, measure)]
    for hub in step.portfolio.hubs:
        if hub.address not in (address, numeraire):
            routes.append(_chained(_between(step, address, hub.address, measure), _between(step, hub.address, numeraire, measure)))
    market = _weighted(route for route in routes if route is not None)
    if market is None:
        raise _NoPrice(f"no pool of {_label(step, address)} with the numeraire or a hub has {lack}")
    return market


def _between(step: StepInput, token: str, other: str, measure: _Measure) -> _Market | None:
    """All pools of one pair together."""
    pair = {token, other}
    found = [measure(pool, token) for pool in step.snapshot.pools if {pool.token0, pool.token1} == pair]
    return _weighted(market for market in found if market is not None)


def _chained(first: _Market | None, second: _Market | None) -> _Market | None:
    if first is None or second is None:
        return None
    carried = floor_int(second.depth_raw / first.price)
    return _Market(first.price * second.price, min(first.depth_raw, carried), first.pools + second.pools)


def _weighted(markets: Iterable[_Market]) -> _Market | None:
    """Mean price by depth; None when nothing has any."""
    deep = [market for market in markets if market.depth_raw > 0]
    total_raw = sum(market.depth_raw for market in deep)
    if not deep:
        return None
    return _Market(sum((m.price * m.depth_raw for m in deep), Fraction(0)) / total_raw, total_raw, sum(m.pools for m in deep))
