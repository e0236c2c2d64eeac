"""Which pools a portfolio can use: found through the configured factories in two requests, or named and checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Protocol

from agent.chain.ask import ask
from agent.chain.lens import Answer, CallItem
from agent.chain.rpc import Transport
from agent.chain.watch import PoolRef
from agent.errors import ConfigError
from agent.units import Token
from agent.venues.uniswap_v2 import UniswapV2
from agent.venues.uniswap_v3 import UniswapV3

Venue = UniswapV2 | UniswapV3


class V2Settings(Protocol):
    """[venues.uniswap_v2] as far as discovery needs it."""

    @property
    def factory(self) -> str:
        """UniswapV2Factory."""
        ...

    @property
    def pools(self) -> Sequence[str] | None:
        """Explicit list; None to search."""
        ...


class V3Settings(V2Settings, Protocol):
    """[venues.uniswap_v3] as far as discovery needs it."""

    @property
    def fee_tiers(self) -> Sequence[int]:
        """Pips."""
        ...


class VenueSettings(Protocol):
    """[venues] of the config."""

    @property
    def uniswap_v2(self) -> V2Settings | None:
        """None when the venue is not used."""
        ...

    @property
    def uniswap_v3(self) -> V3Settings | None:
        """None when the venue is not used."""
        ...


def discover(transport: Transport, venues: VenueSettings, tokens: Sequence[Token], hubs: Sequence[Token]) -> tuple[PoolRef, ...]:
    """Every pool with a price that trades two of `tokens` and `hubs`, in the order of venues, pairs and fee tiers.

    Two requests. Raises ConfigError when a named pool is foreign, forged or without price, when a factory is none, or
    when a token has no pool at all; Retryable from the endpoint.
    """
    known = {token.address: token for token in (*tokens, *hubs)}
    pairs = [_sorted_pair(a, b) for a, b in combinations(known, 2)]
    used = list(configured(venues))
    found = [venue.find_items(pairs) for venue in used]
    answers = iter(ask(transport, [item for items in found for item in items]))
    candidates = [
        (venue, pool) for venue, items in zip(used, found, strict=True) for pool in venue.found(pairs, [next(answers) for _ in items])
    ]
    for venue, pool in candidates:
        _require_known(venue, pool, known)
    pools = tuple(_with_price(transport, candidates))
    _require_pools(pools, list(tokens))
    return pools


def configured(venues: VenueSettings) -> Iterator[Venue]:
    """The venues that are used, by the names the config gives them."""
    if (v2 := venues.uniswap_v2) is not None:
        yield UniswapV2("uniswap_v2", v2.factory, None if v2.pools is None else tuple(dict.fromkeys(v2.pools)))
    if (v3 := venues.uniswap_v3) is not None:
        yield UniswapV3("uniswap_v3", v3.factory, tuple(v3.fee_tiers), None if v3.pools is None else tuple(dict.fromkeys(v3.pools)))


def _with_price(transport: Transport, candidates: Sequence[tuple[Venue, PoolRef]]) -> Iterator[PoolRef]:
    """Checks every candidate. What was found and has no price is left out: anyone can make an empty pool."""
    checks: list[list[CallItem]] = [venue.check_items(pool) for venue, pool in candidates]
    answers = iter(ask(transport, [item for items in checks for item in items]))
    for (venue, pool), items in zip(candidates, checks, strict=True):
        about: list[Answer] = [next(answers) for _ in items]
        if venue.has_price(pool, about):
            yield replace(pool, tick_spacing=venue.spacing(about)) if isinstance(venue, UniswapV3) else pool
        elif venue.pools is not None:
            raise ConfigError(f"venues.{venue.name}.pools: {pool.address} has no price yet", "remove it, or wait until it holds liquidity")


def _require_known(venue: Venue, pool: PoolRef, known: dict[str, Token]) -> None:
    foreign = [address for address in (pool.token0, pool.token1) if address not in known]
    if foreign:
        raise ConfigError(
            f"venues.{venue.name}.pools: {pool.address} trades {' and '.join(foreign)}, neither asset nor hub",
            "remove the pool, or add the token to portfolio.hubs",
        )


def _require_pools(pools: Sequence[PoolRef], tokens: Sequence[Token]) -> None:
    traded = {address for pool in pools for address in (pool.token0, pool.token1)}
    lonely = [token.label for token in tokens if token.address not in traded]
    if lonely:
        raise ConfigError(
            f"no pool of the configured venues trades {', '.join(lonely)}", "add a venue, a fee tier or a hub token, or drop the asset"
        )


def _sorted_pair(a: str, b: str) -> tuple[str, str]:
    """As the contracts sort: by the number that an address is."""
    return (a, b) if int(a, 16) < int(b, 16) else (b, a)
