"""Pool discovery: the pools of a portfolio from the configured factories, or named and checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from agent.chain.lens import (
    CallItem,
    CallStatus,
    LensAnswer,
    LensItem,
    answer_uint,
    query_lens,
)
from agent.chain.pools.reading import PoolRef
from agent.chain.rpc import Transport
from agent.errors import ConfigError
from agent.signing.calldata import address_from_word
from agent.units import Token
from agent.venues.kinds.venue import AmmVenue


def discover_pools(
    transport: Transport, venues: Sequence[AmmVenue], tokens: Sequence[Token], hubs: Sequence[Token]
) -> tuple[PoolRef, ...]:
    """Return every pool with a price that trades two of `tokens` and `hubs`, in the order of
    venues, pairs and fee tiers, with two requests.

    Raises ConfigError if a named pool is foreign, forged or without a price, if an address is not a
    factory, or if a token has no pool; Retryable from the endpoint.
    """
    token_by_address = {token.address: token for token in (*tokens, *hubs)}
    # each sorted as the contracts do, by address as a number
    token_pairs = [
        (token_a, token_b) if int(token_a, 16) < int(token_b, 16) else (token_b, token_a)
        for token_a, token_b in combinations(token_by_address, 2)
    ]
    calls_by_venue = [venue.search_calls(token_pairs) for venue in venues]
    lens_answers = iter(
        query_lens(
            transport, [lens_call for venue_calls in calls_by_venue for lens_call in venue_calls]
        )
    )
    candidate_by_address = {
        pool.address: (venue, pool)
        for venue, venue_calls in zip(venues, calls_by_venue, strict=True)
        for pool in venue.candidates(token_pairs, [next(lens_answers) for _ in venue_calls])
    }
    candidates = tuple(candidate_by_address.values())
    for venue, pool in candidates:
        foreign_tokens = [
            address for address in (pool.token0, pool.token1) if address not in token_by_address
        ]
        if foreign_tokens:
            raise ConfigError(
                f"venues.{venue.name}.pools: {pool.address} trades {' and '.join(foreign_tokens)}, "
                "which are neither assets nor hubs",
                "remove the pool, or add the token to portfolio.hubs",
            )
    pools = tuple(_priced_pools(transport, candidates))
    _require_traded_tokens(pools, list(tokens))
    return pools


def require_router_factories(transport: Transport, router: str, venues: Sequence[AmmVenue]) -> None:
    """Raise ConfigError unless SwapRouter02 at `router` trades in the pools of each venue's factory:
    on some chains it is older than Uniswap V2 there, and has no factory for pairs.
    """
    calls: list[LensItem] = [CallItem(router, venue.router_factory_selector) for venue in venues]
    for venue, answer in zip(venues, query_lens(transport, calls), strict=True):
        factory_int = answer_uint(answer, 160)
        router_factory = (
            None if isinstance(factory_int, CallStatus) else address_from_word(factory_int)
        )
        if router_factory != venue.factory:
            raise ConfigError(
                f"venues.{venue.name}.factory: {venue.factory} is not the factory of SwapRouter02"
                f" at {router}, which names {router_factory or 'none'}",
                'remove this venue, correct the addresses, or use router = "rebalancer"',
            )


def _priced_pools(
    transport: Transport, candidates: Sequence[tuple[AmmVenue, PoolRef]]
) -> Iterator[PoolRef]:
    """Check every candidate and yield those with a price, because anyone can create an
    empty pool.
    """
    calls_by_candidate: list[list[CallItem]] = [
        venue.check_calls(pool) for venue, pool in candidates
    ]
    lens_answers = iter(
        query_lens(
            transport,
            [lens_call for candidate_calls in calls_by_candidate for lens_call in candidate_calls],
        )
    )
    for (venue, pool), candidate_calls in zip(candidates, calls_by_candidate, strict=True):
        pool_answers: list[LensAnswer] = [next(lens_answers) for _ in candidate_calls]
        if (checked_pool := venue.checked_pool(pool, pool_answers)) is not None:
            yield checked_pool
        elif venue.pools is not None:
            raise ConfigError(
                f"venues.{venue.name}.pools: {pool.address} has no price yet",
                "remove it, or wait until it is funded",
            )


def _require_traded_tokens(pools: Sequence[PoolRef], tokens: Sequence[Token]) -> None:
    traded_tokens = {address for pool in pools for address in (pool.token0, pool.token1)}
    untraded_labels = [token.label for token in tokens if token.address not in traded_tokens]
    if untraded_labels:
        raise ConfigError(
            f"no pool of the configured venues trades {', '.join(untraded_labels)}",
            "add a venue, a fee tier or a hub token, or drop the asset",
        )
