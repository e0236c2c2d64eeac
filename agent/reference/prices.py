"""Reference prices of tokens, used for weights, triggers, costs and floors (docs/prices.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.amm import pools
from agent.model import (
    FeedRound,
    PastPrices,
    Pool,
    Portfolio,
    PriceSource,
    ReferenceConfig,
    Snapshot,
    StepInput,
)
from agent.units import Price, Token, floor_int, safe_label

MAX_OBSERVATIONS = 65_535
"""Largest number of observations of a pool (uint16)."""
_SECONDS_PER_BLOCK = {1: 12, 10: 2, 137: 2, 8453: 2}
"""Minimum seconds per observation by chain, because a pool writes at most one per block; 1 for
other chains.
"""


def twap_rejection(snapshot: Snapshot, reference: ReferenceConfig, pool: Pool) -> str:
    """Return the reason why the TWAP of a pool does not count, with the remedy; empty if it counts:
    the pool is pinned, and its observations cover the whole window.
    """
    unpinned = pin_rejection(snapshot, reference, pool)
    if unpinned:
        return unpinned
    window_s = reference.twap_window_s
    if pool.mean_window_s is not None and pool.mean_window_s >= window_s:
        return ""
    kept = _kept(snapshot.head.chain_id, window_s, pool)
    return f"its oldest observation is less than {window_s} s old{kept}"


def pin_rejection(snapshot: Snapshot, reference: ReferenceConfig, pool: Pool) -> str:
    """Return the reason why a pool does not match the owner's pins; empty if it matches, or if
    there are no pins.
    """
    pins = reference.mean_pools
    if pins is None:
        return ""
    pinned = next((pin.hash for pin in pins if pin.address == pool.address), None)
    if pinned is None:
        return "it is not pinned: run trimtab trust"
    current = next(
        (code.hash for code in snapshot.code_hashes if code.address == pool.address), None
    )
    if current == pinned:
        return ""
    return "its code differs from the pinned code: find out why before trimtab trust"


def required_observations(chain_id: int, window_s: int) -> int:
    """Return the number of observations that cover the window even if each block writes one."""
    return min(MAX_OBSERVATIONS, -(-window_s // _SECONDS_PER_BLOCK.get(chain_id, 1)) + 1)


def _kept(chain_id: int, window_s: int, pool: Pool) -> str:
    if pool.observations is None:
        return ""
    kept, coming = pool.observations
    enough = required_observations(chain_id, window_s)
    if coming >= enough:
        return f"; it will keep {coming} observations, filled by the next trades"
    soon = f", soon {coming}" if coming > kept else ""
    return f", it keeps {kept}{soon}: run trimtab oracle {pool.address} --to {enough}"


def feed_round_fault(snapshot: Snapshot, reference: ReferenceConfig, answer: FeedRound) -> str:
    """Return the fault of a round (AggregatorV3Interface.latestRoundData); empty if it is valid:
    complete, fresh, within the bounds of its aggregator, and no earlier round. Ages are by block
    timestamp.
    """
    now_s = snapshot.head.timestamp_s
    fault = (
        incomplete_round_fault(answer, now_s)
        or answer_bound_fault(answer)
        or round_regression_fault(snapshot, answer)
    )
    age_s, limit_s = now_s - answer.updated_at_s, reference.max_age_s(answer.feed)
    if not fault and age_s > limit_s:
        return f"is {age_s} s old, the limit is {limit_s} s"
    return fault


def incomplete_round_fault(answer: FeedRound, now_s: int) -> str:
    """Return why a round is incomplete: no positive answer, not started or finished, carried over,
    or dated after the block.
    """
    if answer.answer <= 0:
        return f"answers {answer.answer}"
    if answer.updated_at_s <= 0 or answer.started_at_s <= 0:
        return f"has an unfinished round {answer.round_id}"
    if answer.answered_in_round < answer.round_id:
        return (
            f"returned round {answer.round_id} with the price of round {answer.answered_in_round}"
        )
    latest_s = max(answer.updated_at_s, answer.started_at_s)
    return f"is dated {latest_s - now_s} s after the block" if latest_s > now_s else ""


def answer_bound_fault(answer: FeedRound) -> str:
    """Return why an answer may be clipped at a bound of its aggregator; empty if it is within the
    bounds.
    """
    if answer.min_answer is not None and answer.answer <= answer.min_answer:
        return (
            f"answers {answer.answer}, its minimum answer is "
            f"{answer.min_answer}: the real price may"
            " be lower"
        )
    if answer.max_answer is not None and answer.answer >= answer.max_answer:
        return (
            f"answers {answer.answer}, its maximum answer is {answer.max_answer}: the real price"
            " may be higher"
        )
    return ""


def round_regression_fault(snapshot: Snapshot, answer: FeedRound) -> str:
    """Return a fault if the round is lower than at an earlier block, for example because the feed
    was replaced; empty otherwise.
    """
    before = [
        (feed_round.round_id, past.head.number)
        for past in snapshot.past
        for feed_round in past.feeds
        if feed_round.feed == answer.feed
    ]
    highest, block = max(before, default=(0, 0))
    if highest <= answer.round_id:
        return ""
    return f"fell from round {highest} at block {block} to round {answer.round_id}"


@dataclass(frozen=True, slots=True)
class ReferencePrice:
    """Reference price of a token in numeraire base units per token base unit; `detail` describes
    the source.
    """

    token: str
    price: Price
    source: PriceSource
    detail: str


@dataclass(frozen=True, slots=True)
class UnpricedToken:
    """A token without a price, and the reason by source."""

    token: str
    label: str
    why: str


@dataclass(frozen=True, slots=True)
class ReferencePrices:
    """Known prices by token address: of assets, hubs, the numeraire (exactly 1) and the wrapped
    native coin.
    """

    prices: dict[str, ReferencePrice]
    unpriced: tuple[UnpricedToken, ...]

    @property
    def by_token(self) -> dict[str, Price]:
        """Prices by token address, as a new dict."""
        return {token: reference.price for token, reference in self.prices.items()}


@dataclass(frozen=True, slots=True)
class _Market:
    """A price in another token, its depth (virtual base units of the priced token), and the number
    of pools.
    """

    price: Fraction
    depth_raw: int
    pools: int


_Measure = Callable[[Pool, str], _Market | None]
"""Market of a pool for one of its tokens; None if unknown."""


class _NoPrice(Exception):
    """A source that has no price; the message is the reason."""


@dataclass(frozen=True, slots=True)
class PriceInputs:
    """What reference prices are derived from: the feeds and pools of a block, the tokens, and the
    sources.
    """

    snapshot: Snapshot
    portfolio: Portfolio
    reference: ReferenceConfig

    def at(self, past: PastPrices) -> PriceInputs:
        """Return the inputs at an earlier block: its head, feeds and pools, and the blocks before
        it.
        """
        before = tuple(
            earlier for earlier in self.snapshot.past if earlier.head.number < past.head.number
        )
        snapshot = replace(
            self.snapshot, head=past.head, feeds=past.feeds, pools=past.pools, past=before
        )
        return replace(self, snapshot=snapshot)

    def only(self, kind: PriceSource) -> PriceInputs:
        """Return the inputs with a single source."""
        return replace(self, reference=replace(self.reference, kinds=(kind,)))


def price_inputs(step: StepInput) -> PriceInputs:
    """Return what the reference prices of a step are derived from."""
    return PriceInputs(step.snapshot, step.portfolio, step.reference)


def reference_prices(step: StepInput) -> ReferencePrices:
    """Return the reference prices of a step."""
    return prices_from(price_inputs(step))


def prices_from(inputs: PriceInputs) -> ReferencePrices:
    """Return the price of each token from the first configured source that has one, and the reasons
    for missing prices.

    The result is cached per snapshot, sources and tokens, so a step with new targets or history
    keeps its prices.
    """
    portfolio = inputs.portfolio
    feeds = tuple((asset.token, asset.feed) for asset in portfolio.assets)
    key = (
        inputs.reference,
        feeds,
        portfolio.hubs,
        portfolio.hub_feeds,
        portfolio.numeraire,
        portfolio.wrapped_native,
    )
    return inputs.snapshot.derived(key, lambda: _calculate_prices(inputs))


def _calculate_prices(inputs: PriceInputs) -> ReferencePrices:
    prices: dict[str, ReferencePrice] = {}
    unpriced: list[UnpricedToken] = []
    for address, label in _tokens_to_price(inputs.portfolio):
        price, why = _first(inputs, address)
        if price is None:
            unpriced.append(UnpricedToken(address, label, why))
        else:
            prices[address] = price
    return ReferencePrices(prices, tuple(unpriced))


def spot_prices(inputs: PriceInputs) -> dict[str, Price]:
    """Return the spot prices of tokens at this block, for comparison with the reference; tokens
    without one are missing.
    """
    prices: dict[str, Price] = {}
    for address, _ in _tokens_to_price(inputs.portfolio):
        try:
            prices[address] = _price(inputs, address, PriceSource.SPOT).price
        except _NoPrice:
            continue
    return prices


def _tokens_to_price(portfolio: Portfolio) -> list[tuple[str, str]]:
    """Return (address, label) of all assets, hubs, the numeraire and the wrapped native coin,
    without duplicates.
    """
    tokens: tuple[Token, ...] = (
        *(asset.token for asset in portfolio.assets),
        *portfolio.hubs,
        portfolio.numeraire,
    )
    labels = {portfolio.wrapped_native: portfolio.wrapped_native} | {
        token.address: token.label for token in reversed(tokens)
    }
    order = dict.fromkeys([*(token.address for token in tokens), portfolio.wrapped_native])
    return [(address, labels[address]) for address in order]


def _first(inputs: PriceInputs, address: str) -> tuple[ReferencePrice | None, str]:
    """Return the price from the first source that has one, or None and the reasons of all
    sources.
    """
    reasons = []
    for kind in inputs.reference.kinds:
        try:
            return _price(inputs, address, kind), ""
        except _NoPrice as reason:
            reasons.append(f"{kind.value}: {reason}")
    return None, "; ".join(reasons) or "no source of reference prices is configured"


def _price(inputs: PriceInputs, address: str, kind: PriceSource) -> ReferencePrice:
    if address == inputs.portfolio.numeraire.address:
        return ReferencePrice(address, Fraction(1), kind, "the numeraire")
    match kind:
        case PriceSource.FEED:
            price, detail = _by_feeds(inputs, address)
        case PriceSource.TWAP:
            window_s = inputs.reference.twap_window_s
            try:
                market = _by_pools(
                    inputs,
                    address,
                    lambda pool, token: _twap_market(inputs, pool, token),
                    f"a mean over {window_s} s",
                )
            except _NoPrice as reason:
                raise _NoPrice(f"{reason}{_rejected_pools(inputs, address)}") from None
            price, detail = market.price, f"mean over {window_s} s of {market.pools} pool(s)"
        case PriceSource.SPOT:
            market = _by_pools(inputs, address, _spot_market, "liquidity at its price")
            price = market.price
            detail = f"spot price of {market.pools} pool(s) at block {inputs.snapshot.head.number}"
    return ReferencePrice(address, price, kind, detail)


def _by_feeds(inputs: PriceInputs, address: str) -> tuple[Fraction, str]:
    """Return the token's USD price divided by the numeraire's, each from a valid round, and the
    source.
    """
    numeraire = inputs.portfolio.numeraire
    token, usd = _round(inputs, address)
    _, unit = _round(inputs, numeraire.address)
    whole = Fraction(usd.answer, 10**usd.decimals) / Fraction(unit.answer, 10**unit.decimals)
    age_s = inputs.snapshot.head.timestamp_s - min(usd.updated_at_s, unit.updated_at_s)
    return (
        whole * Fraction(10) ** (numeraire.decimals - token.decimals),
        f"round {usd.round_id} of feed {usd.feed}, {age_s} s old",
    )


def _round(inputs: PriceInputs, address: str) -> tuple[Token, FeedRound]:
    """Return the token's latest feed round. Raises _NoPrice if it is missing or invalid."""
    feed = inputs.portfolio.feed(address)
    label = _label(inputs.portfolio, address)
    if feed is None:
        raise _NoPrice(f"{label} has no feed")
    answer = next((round_ for round_ in inputs.snapshot.feeds if round_.feed == feed), None)
    if answer is None:
        reasons = (f": {item.why}" for item in inputs.snapshot.quarantined if item.address == feed)
        why = next(reasons, "")
        raise _NoPrice(f"the feed of {label} was not read{why}")
    fault = feed_round_fault(inputs.snapshot, inputs.reference, answer)
    if fault:
        raise _NoPrice(f"the feed of {label} {fault}")
    return inputs.portfolio.token(address), answer


def _label(portfolio: Portfolio, address: str) -> str:
    try:
        return portfolio.token(address).label
    except KeyError:
        return safe_label("", address)


def _twap_market(inputs: PriceInputs, pool: Pool, token: str) -> _Market | None:
    """Return the time-weighted mean price and harmonic mean liquidity of a pool with a valid TWAP,
    else None.

    Liquidity added for a few blocks hardly changes this depth.
    """
    if not pool.keeps_observations or twap_rejection(inputs.snapshot, inputs.reference, pool):
        return None
    return _Market(pool.mean_price(token), pool.mean_depth(token), 1)


def _rejected_pools(inputs: PriceInputs, address: str) -> str:
    """Return why the V3 pools that pair a token with the numeraire or a hub have no valid TWAP,
    each with the remedy.
    """
    hubs = {inputs.portfolio.numeraire.address, *(hub.address for hub in inputs.portfolio.hubs)}
    hubs -= {address}
    candidates = [
        pool
        for pool in inputs.snapshot.pools
        if pool.keeps_observations and {pool.token0, pool.token1} - hubs == {address}
    ]
    return "".join(
        f"; pool {pool.address}: {why}"
        for pool in candidates
        if (why := twap_rejection(inputs.snapshot, inputs.reference, pool))
    )


def _spot_market(pool: Pool, token: str) -> _Market | None:
    """Return the pool's marginal price and current depth; None for an empty pool."""
    depth_raw = pool.spot_depth(token)
    return None if depth_raw <= 0 else _Market(pools.marginal_price(pool, token), depth_raw, 1)


def _by_pools(inputs: PriceInputs, address: str, measure: _Measure, lack: str) -> _Market:
    """Return the price in the numeraire over all direct pools and all routes through one hub,
    weighted by depth.

    A route has the depth of its thinner half, so a thin pool behind a deep one gains no weight.
    Raises _NoPrice without a market.
    """
    numeraire = inputs.portfolio.numeraire.address
    routes = [_between(inputs.snapshot, address, numeraire, measure)]
    for hub in inputs.portfolio.hubs:
        if hub.address not in (address, numeraire):
            routes.append(
                _chained(
                    _between(inputs.snapshot, address, hub.address, measure),
                    _between(inputs.snapshot, hub.address, numeraire, measure),
                )
            )
    market = _weighted(route for route in routes if route is not None)
    if market is None:
        raise _NoPrice(
            f"no pool of {_label(inputs.portfolio, address)} with the numeraire or a hub has {lack}"
        )
    return market


def _between(snapshot: Snapshot, token: str, other: str, measure: _Measure) -> _Market | None:
    """Return the market of all pools of one pair."""
    pair = {token, other}
    markets = [
        measure(pool, token) for pool in snapshot.pools if {pool.token0, pool.token1} == pair
    ]
    return _weighted(market for market in markets if market is not None)


def _chained(first: _Market | None, second: _Market | None) -> _Market | None:
    if first is None or second is None:
        return None
    carried = floor_int(second.depth_raw / first.price)
    return _Market(
        first.price * second.price, min(first.depth_raw, carried), first.pools + second.pools
    )


def _weighted(markets: Iterable[_Market]) -> _Market | None:
    """Return the mean price weighted by depth; None without depth."""
    deep = [market for market in markets if market.depth_raw > 0]
    total_raw = sum(market.depth_raw for market in deep)
    if not deep:
        return None
    return _Market(
        sum((m.price * m.depth_raw for m in deep), Fraction(0)) / total_raw,
        total_raw,
        sum(m.pools for m in deep),
    )
