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
    if not pool.keeps_observations:
        return "it records no observations: give the token a price feed"
    pin_problem = pin_rejection(snapshot, reference, pool)
    if pin_problem:
        return pin_problem
    window_s = reference.twap_window_s
    if pool.mean_window_s is not None and pool.mean_window_s >= window_s:
        return ""
    observations_text = _observations_text(snapshot.head.chain_id, window_s, pool)
    return f"its oldest observation is less than {window_s} s old{observations_text}"


def short_mean_rejection(snapshot: Snapshot, reference: ReferenceConfig, pool: Pool) -> str:
    """Return the reason why the TWAP of a pool over reference.short_window does not count, with
    the remedy; empty if it counts.
    """
    short_reference = replace(reference, twap_window_s=reference.short_window_s)
    return twap_rejection(snapshot, short_reference, pool.over_short_window())


def pin_rejection(snapshot: Snapshot, reference: ReferenceConfig, pool: Pool) -> str:
    """Return the reason why a pool does not match the owner's pins; empty if it matches, or if
    there are no pins.
    """
    pins = reference.twap_pools
    if pins is None:
        return ""
    pinned_hash = next((pin.hash for pin in pins if pin.address == pool.address), None)
    if pinned_hash is None:
        return "it is not pinned: run trimtab trust"
    current_hash = next(
        (code.hash for code in snapshot.code_hashes if code.address == pool.address), None
    )
    if current_hash == pinned_hash:
        return ""
    return "its code differs from the pinned code: find out why before trimtab trust"


def required_observations(chain_id: int, window_s: int) -> int:
    """Return the number of observations that cover the window even if each block writes one."""
    return min(MAX_OBSERVATIONS, -(-window_s // _SECONDS_PER_BLOCK.get(chain_id, 1)) + 1)


def _observations_text(chain_id: int, window_s: int, pool: Pool) -> str:
    if pool.observation_counts is None:
        return ""
    observation_count, next_observation_count = pool.observation_counts
    required_observation_count = required_observations(chain_id, window_s)
    if next_observation_count >= required_observation_count:
        return f"; it will keep {next_observation_count} observations, filled by the next trades"
    next_text = (
        f", soon {next_observation_count}" if next_observation_count > observation_count else ""
    )
    return f", it keeps {observation_count}{next_text}: run trimtab oracle {pool.address} --to {required_observation_count}"


def feed_round_fault(snapshot: Snapshot, reference: ReferenceConfig, feed_round: FeedRound) -> str:
    """Return the fault of a round (AggregatorV3Interface.latestRoundData); empty if it is valid:
    complete, fresh, within the bounds of its aggregator, and no earlier round. Ages are by block
    timestamp.
    """
    now_s = snapshot.head.timestamp_s
    fault = (
        incomplete_round_fault(feed_round, now_s)
        or answer_bound_fault(feed_round)
        or round_regression_fault(snapshot, feed_round)
    )
    age_s = now_s - feed_round.updated_at_s
    limit_s = reference.max_age_s(feed_round.feed)
    if not fault and age_s > limit_s:
        return f"is {age_s} s old, the limit is {limit_s} s"
    return fault


def incomplete_round_fault(feed_round: FeedRound, now_s: int) -> str:
    """Return why a round is incomplete: no positive answer, not started or finished, carried over,
    or dated after the block.
    """
    if feed_round.answer <= 0:
        return f"answers {feed_round.answer}"
    if feed_round.updated_at_s <= 0 or feed_round.started_at_s <= 0:
        return f"has an unfinished round {feed_round.round_id}"
    if feed_round.answered_in_round < feed_round.round_id:
        return f"returned round {feed_round.round_id} with the price of round {feed_round.answered_in_round}"
    dated_s = max(feed_round.updated_at_s, feed_round.started_at_s)
    return f"is dated {dated_s - now_s} s after the block" if dated_s > now_s else ""


def answer_bound_fault(feed_round: FeedRound) -> str:
    """Return why an answer may be clipped at a bound of its aggregator; empty if it is within the
    bounds.
    """
    if feed_round.min_answer is not None and feed_round.answer <= feed_round.min_answer:
        return (
            f"answers {feed_round.answer}, its minimum answer is "
            f"{feed_round.min_answer}: the real price may"
            " be lower"
        )
    if feed_round.max_answer is not None and feed_round.answer >= feed_round.max_answer:
        return (
            f"answers {feed_round.answer}, its maximum answer is {feed_round.max_answer}: the real price"
            " may be higher"
        )
    return ""


def round_regression_fault(snapshot: Snapshot, feed_round: FeedRound) -> str:
    """Return a fault if the round is lower than at an earlier block, for example because the feed
    was replaced; empty otherwise.
    """
    earlier_rounds = [
        (past_round.round_id, past_block.head.number)
        for past_block in snapshot.past_prices
        for past_round in past_block.feeds
        if past_round.feed == feed_round.feed
    ]
    highest_round_id, block_number = max(earlier_rounds, default=(0, 0))
    if highest_round_id <= feed_round.round_id:
        return ""
    return (
        f"fell from round {highest_round_id} at block {block_number} to round {feed_round.round_id}"
    )


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

    reference_by_token: dict[str, ReferencePrice]
    unpriced: tuple[UnpricedToken, ...]

    @property
    def price_by_token(self) -> dict[str, Price]:
        """Prices by token address, as a new dict."""
        return {
            token: reference_price.price
            for token, reference_price in self.reference_by_token.items()
        }


@dataclass(frozen=True, slots=True)
class _PoolPrice:
    """A price in another token, its depth (virtual base units of the priced token), and the number
    of pools.
    """

    price: Fraction
    depth_raw: int
    pool_count: int


_PriceOfPool = Callable[[Pool, str], _PoolPrice | None]
"""Function that returns a pool's price of one of its tokens; None if unknown."""


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

    def at_block(self, past_block: PastPrices) -> PriceInputs:
        """Return the inputs at an earlier block: its head, feeds and pools, and the blocks before
        it.
        """
        earlier_blocks = tuple(
            earlier_block
            for earlier_block in self.snapshot.past_prices
            if earlier_block.head.number < past_block.head.number
        )
        snapshot = replace(
            self.snapshot,
            head=past_block.head,
            feeds=past_block.feeds,
            pools=past_block.pools,
            past_prices=earlier_blocks,
        )
        return replace(self, snapshot=snapshot)

    def with_source(self, source: PriceSource) -> PriceInputs:
        """Return the inputs with a single source."""
        return replace(self, reference=replace(self.reference, sources=(source,)))

    def over_short_window(self) -> PriceInputs:
        """Return the inputs with TWAPs over reference.short_window as their single source."""
        snapshot = self.snapshot.cached_value(
            "pools over the short window",
            lambda: replace(
                self.snapshot, pools=tuple(pool.over_short_window() for pool in self.snapshot.pools)
            ),
        )
        reference = replace(
            self.reference,
            sources=(PriceSource.TWAP,),
            twap_window_s=self.reference.short_window_s,
        )
        return replace(self, snapshot=snapshot, reference=reference)


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
    cache_key = (
        inputs.reference,
        feeds,
        portfolio.hubs,
        portfolio.hub_feeds,
        portfolio.numeraire,
        portfolio.wrapped_native,
    )
    return inputs.snapshot.cached_value(cache_key, lambda: _calculate_prices(inputs))


def _calculate_prices(inputs: PriceInputs) -> ReferencePrices:
    reference_price_by_token: dict[str, ReferencePrice] = {}
    unpriced_tokens: list[UnpricedToken] = []
    for address, label in _tokens_to_price(inputs.portfolio):
        reference_price, reason = _first_price(inputs, address)
        if reference_price is None:
            unpriced_tokens.append(UnpricedToken(address, label, reason))
        else:
            reference_price_by_token[address] = reference_price
    return ReferencePrices(reference_price_by_token, tuple(unpriced_tokens))


def short_mean_prices(inputs: PriceInputs) -> dict[str, Price]:
    """Return the TWAP of each token over reference.short_window. Tokens are missing if none of
    their pools has observations that cover it, all if there is no such window.
    """
    if not inputs.reference.short_window_s:
        return {}
    return prices_from(inputs.over_short_window()).price_by_token


def spot_prices(inputs: PriceInputs) -> dict[str, Price]:
    """Return the spot prices of tokens at this block, for comparison with the reference; tokens
    without one are missing.
    """
    spot_price_by_token: dict[str, Price] = {}
    for address, _ in _tokens_to_price(inputs.portfolio):
        try:
            spot_price_by_token[address] = _price_from_source(
                inputs, address, PriceSource.SPOT
            ).price
        except _NoPrice:
            continue
    return spot_price_by_token


def _tokens_to_price(portfolio: Portfolio) -> list[tuple[str, str]]:
    """Return (address, label) of all assets, hubs, the numeraire and the wrapped native coin,
    without duplicates.
    """
    tokens: tuple[Token, ...] = (
        *(asset.token for asset in portfolio.assets),
        *portfolio.hubs,
        portfolio.numeraire,
    )
    label_by_address = {portfolio.wrapped_native: portfolio.wrapped_native} | {
        token.address: token.label for token in reversed(tokens)
    }
    unique_addresses = dict.fromkeys(
        [*(token.address for token in tokens), portfolio.wrapped_native]
    )
    return [(address, label_by_address[address]) for address in unique_addresses]


def _first_price(inputs: PriceInputs, address: str) -> tuple[ReferencePrice | None, str]:
    """Return the price from the first source that has one, or None and the reasons of all
    sources.
    """
    reasons = []
    for source in inputs.reference.sources:
        try:
            return _price_from_source(inputs, address, source), ""
        except _NoPrice as reason:
            reasons.append(f"{source.value}: {reason}")
    return None, "; ".join(reasons) or "no source of reference prices is configured"


def _price_from_source(inputs: PriceInputs, address: str, source: PriceSource) -> ReferencePrice:
    if address == inputs.portfolio.numeraire.address:
        return ReferencePrice(address, Fraction(1), source, "the numeraire")
    match source:
        case PriceSource.FEED:
            price, detail = _feed_price(inputs, address)
        case PriceSource.TWAP:
            window_s = inputs.reference.twap_window_s
            try:
                pool_price = _price_in_numeraire(
                    inputs,
                    address,
                    lambda pool, token: _twap_price(inputs, pool, token),
                    f"a mean over {window_s} s",
                )
            except _NoPrice as reason:
                raise _NoPrice(f"{reason}{_rejected_pools_text(inputs, address)}") from None
            price = pool_price.price
            detail = f"mean over {window_s} s of {pool_price.pool_count} pool(s)"
        case PriceSource.SPOT:
            pool_price = _price_in_numeraire(inputs, address, _spot_price, "liquidity at its price")
            price = pool_price.price
            block = inputs.snapshot.head.number
            detail = f"spot price of {pool_price.pool_count} pool(s) at block {block}"
    return ReferencePrice(address, price, source, detail)


def _feed_price(inputs: PriceInputs, address: str) -> tuple[Fraction, str]:
    """Return the token's USD price divided by the numeraire's, each from a valid round, and the
    source.
    """
    numeraire = inputs.portfolio.numeraire
    token, token_round = _valid_round(inputs, address)
    _, numeraire_round = _valid_round(inputs, numeraire.address)
    whole_token_price = Fraction(token_round.answer, 10**token_round.decimals) / Fraction(
        numeraire_round.answer, 10**numeraire_round.decimals
    )
    head_s = inputs.snapshot.head.timestamp_s
    detail = f"round {token_round.round_id} of feed {token_round.feed}, {head_s - token_round.updated_at_s} s old"
    if numeraire_round.updated_at_s < token_round.updated_at_s:
        detail += f"; that of {numeraire.label} {head_s - numeraire_round.updated_at_s} s old"
    return (
        whole_token_price * Fraction(10) ** (numeraire.decimals - token.decimals),
        detail,
    )


def _valid_round(inputs: PriceInputs, address: str) -> tuple[Token, FeedRound]:
    """Return the token's latest feed round. Raises _NoPrice if it is missing or invalid."""
    feed = inputs.portfolio.feed(address)
    label = _label(inputs.portfolio, address)
    if feed is None:
        raise _NoPrice(f"{label} has no feed")
    feed_round = next(
        (reported_round for reported_round in inputs.snapshot.feeds if reported_round.feed == feed),
        None,
    )
    if feed_round is None:
        unread_texts = (
            f": {unreadable_item.why}"
            for unreadable_item in inputs.snapshot.unreadable_items
            if unreadable_item.address == feed
        )
        unread_text = next(unread_texts, "")
        raise _NoPrice(f"the feed of {label} was not read{unread_text}")
    fault = feed_round_fault(inputs.snapshot, inputs.reference, feed_round)
    if fault:
        raise _NoPrice(f"the feed of {label} {fault}")
    return inputs.portfolio.token(address), feed_round


def _label(portfolio: Portfolio, address: str) -> str:
    token = portfolio.find_token(address)
    return safe_label("", address) if token is None else token.label


def _twap_price(inputs: PriceInputs, pool: Pool, token: str) -> _PoolPrice | None:
    """Return the time-weighted mean price and harmonic mean liquidity of a pool with a valid TWAP,
    else None.

    Liquidity added for a few blocks hardly changes this depth.
    """
    if twap_rejection(inputs.snapshot, inputs.reference, pool):
        return None
    return _PoolPrice(pool.mean_price(token), pool.mean_depth(token), 1)


def _rejected_pools_text(inputs: PriceInputs, address: str) -> str:
    """Return why the pools in ranges that pair a token with the numeraire or a hub have no valid
    TWAP, each with the remedy.
    """
    quote_tokens = {
        inputs.portfolio.numeraire.address,
        *(hub_token.address for hub_token in inputs.portfolio.hubs),
    }
    quote_tokens -= {address}
    candidate_pools = [
        pool
        for pool in inputs.snapshot.pools
        if pool.tick_state is not None and {pool.token0, pool.token1} - quote_tokens == {address}
    ]
    return "".join(
        f"; pool {pool.address}: {rejection}"
        for pool in candidate_pools
        if (rejection := twap_rejection(inputs.snapshot, inputs.reference, pool))
    )


def _spot_price(pool: Pool, token: str) -> _PoolPrice | None:
    """Return the pool's marginal price and current depth; None for an empty pool."""
    depth_raw = pool.spot_depth(token)
    return None if depth_raw <= 0 else _PoolPrice(pools.marginal_price(pool, token), depth_raw, 1)


def _price_in_numeraire(
    inputs: PriceInputs, address: str, price_of_pool: _PriceOfPool, requirement: str
) -> _PoolPrice:
    """Return the price in the numeraire over all direct pools and all routes through one hub,
    weighted by depth.

    A route has the depth of its thinner half, so a thin pool behind a deep one gains no weight.
    Raises _NoPrice without such a price.
    """
    numeraire = inputs.portfolio.numeraire.address
    route_prices = [_pair_price(inputs.snapshot, address, numeraire, price_of_pool)]
    for hub in inputs.portfolio.hubs:
        if hub.address not in (address, numeraire):
            route_prices.append(
                _route_price(
                    _pair_price(inputs.snapshot, address, hub.address, price_of_pool),
                    _pair_price(inputs.snapshot, hub.address, numeraire, price_of_pool),
                )
            )
    pool_price = _mean_price(route_price for route_price in route_prices if route_price is not None)
    if pool_price is None:
        raise _NoPrice(
            f"no pool of {_label(inputs.portfolio, address)} with the numeraire or a hub has {requirement}"
        )
    return pool_price


def _pair_price(
    snapshot: Snapshot, token: str, other_token: str, price_of_pool: _PriceOfPool
) -> _PoolPrice | None:
    """Return the mean price over all pools of one pair."""
    token_pair = {token, other_token}
    pool_prices = [
        price_of_pool(pool, token)
        for pool in snapshot.pools
        if {pool.token0, pool.token1} == token_pair
    ]
    return _mean_price(pool_price for pool_price in pool_prices if pool_price is not None)


def _route_price(first_hop: _PoolPrice | None, second_hop: _PoolPrice | None) -> _PoolPrice | None:
    if first_hop is None or second_hop is None:
        return None
    second_depth_raw = floor_int(second_hop.depth_raw / first_hop.price)
    return _PoolPrice(
        first_hop.price * second_hop.price,
        min(first_hop.depth_raw, second_depth_raw),
        first_hop.pool_count + second_hop.pool_count,
    )


def _mean_price(pool_prices: Iterable[_PoolPrice]) -> _PoolPrice | None:
    """Return the mean price weighted by depth; None without depth."""
    deep_pool_prices = [pool_price for pool_price in pool_prices if pool_price.depth_raw > 0]
    total_depth_raw = sum(pool_price.depth_raw for pool_price in deep_pool_prices)
    if not deep_pool_prices:
        return None
    return _PoolPrice(
        sum(
            (
                deep_pool_price.price * deep_pool_price.depth_raw
                for deep_pool_price in deep_pool_prices
            ),
            Fraction(0),
        )
        / total_depth_raw,
        total_depth_raw,
        sum(deep_pool_price.pool_count for deep_pool_price in deep_pool_prices),
    )
