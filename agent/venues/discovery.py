"""Pool discovery: the pools of a portfolio from the configured factories, or named and checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from agent.chain.lens import (
    FEE,
    FEE_AMOUNT_TICK_SPACING,
    GET_PAIR,
    GET_POOL,
    GET_RESERVES,
    SLOT0,
    TOKEN0,
    TOKEN1,
    CallItem,
    CallStatus,
    LensAnswer,
    address_call,
    answer_uint,
    answer_words,
    query_lens,
    uint_word,
)
from agent.chain.rpc import Transport
from agent.chain.watch import PoolKind, PoolRef
from agent.errors import ConfigError
from agent.signing.calldata import address_from_word
from agent.units import Token

FEE_PIPS = 3000
"""Fee of 0.3 %, fixed in UniswapV2Pair.swap."""


@dataclass(frozen=True, slots=True)
class UniswapV2:
    """One deployment of the V2 contracts; `pools` is the config's list, None to search."""

    name: str
    factory: str
    pools: Sequence[str] | None = None

    def search_calls(self, pairs: Sequence[tuple[str, str]]) -> list[CallItem]:
        """Return the first calls: the factory's pool for every pair, or the tokens of each named
        pool.
        """
        if self.pools is None:
            return [self._get_pair(token0, token1) for token0, token1 in pairs]
        return [CallItem(pool, selector) for pool in self.pools for selector in (TOKEN0, TOKEN1)]

    def candidates(
        self, pairs: Sequence[tuple[str, str]], answers: Sequence[LensAnswer]
    ) -> list[PoolRef]:
        """Return candidates from the answers to search_calls. Raises ConfigError if the factory or
        a named pool is not a contract of this kind.
        """
        if self.pools is None:
            addresses = [pool_address(self.name, self.factory, answer) for answer in answers]
            return [
                self._ref(pool, *pair)
                for pair, pool in zip(pairs, addresses, strict=True)
                if pool is not None
            ]
        return [
            self._ref(pool, *pool_tokens(self.name, pool, answers[2 * i : 2 * i + 2]))
            for i, pool in enumerate(self.pools)
        ]

    def check_calls(self, pool: PoolRef) -> list[CallItem]:
        """Return the calls that check a candidate: the factory's pool, and its reserves."""
        return [
            self._get_pair(pool.token0, pool.token1),
            CallItem(pool.address, GET_RESERVES, max_answer_bytes=96),
        ]

    def has_price(self, pool: PoolRef, answers: Sequence[LensAnswer]) -> bool:
        """True if the pair has reserves. Raises ConfigError if the factory did not create it."""
        require_made_by(
            self.name, self.factory, pool, pool_address(self.name, self.factory, answers[0])
        )
        reserves = answer_words(answers[1], 2)
        return not isinstance(reserves, CallStatus) and reserves[0] > 0 and reserves[1] > 0

    def _get_pair(self, token0: str, token1: str) -> CallItem:
        return CallItem(self.factory, address_call(GET_PAIR, token0, token1), likely_gas=8_000)

    def _ref(self, pool: str, token0: str, token1: str) -> PoolRef:
        return PoolRef(pool, self.name, PoolKind.V2, token0, token1, FEE_PIPS)


def pool_address(venue: str, factory: str, answer: LensAnswer) -> str | None:
    """Return the pool in a factory's answer, None for the zero address. Raises ConfigError if the
    contract is not a factory.
    """
    address_int = answer_uint(answer, 160)
    if isinstance(address_int, CallStatus):
        raise ConfigError(
            f"venues.{venue}.factory {factory}: {address_int.why}",
            "check the address and the chain id",
        )
    return address_from_word(address_int) if address_int else None


def pool_tokens(venue: str, pool: str, answers: Sequence[LensAnswer]) -> tuple[str, str]:
    """Return token0 and token1 of a named pool. Raises ConfigError if it is not a pool."""
    return _pool_token(venue, pool, answers[0]), _pool_token(venue, pool, answers[1])


def _pool_token(venue: str, pool: str, answer: LensAnswer) -> str:
    address_int = answer_uint(answer, 160)
    if isinstance(address_int, CallStatus):
        raise ConfigError(
            f"venues.{venue}.pools: {pool}: {address_int.why}", "check the address and the chain id"
        )
    return address_from_word(address_int)


def require_made_by(venue: str, factory: str, pool: PoolRef, factory_pool: str | None) -> None:
    """Raise ConfigError unless this is the factory's pool for these tokens, because anyone can
    deploy a similar contract.
    """
    if factory_pool != pool.address:
        raise ConfigError(
            f"venues.{venue}.pools: {pool.address} was not created by the factory {factory}",
            "remove it; it may be a trap",
        )


_SPACING_BOUND = 16_384
"""UniswapV3Factory.enableFeeAmount requires a smaller tick spacing."""


@dataclass(frozen=True, slots=True)
class UniswapV3:
    """One deployment of the V3 contracts; `pools` is the config's list, None to search over
    `fee_tiers` (pips).
    """

    name: str
    factory: str
    fee_tiers: Sequence[int]
    pools: Sequence[str] | None = None

    def search_calls(self, pairs: Sequence[tuple[str, str]]) -> list[CallItem]:
        """Return the first calls: the factory's pool for every pair and tier, or the tokens and fee
        of each named pool.
        """
        if self.pools is None:
            return [self._get_pool(*pair, fee) for pair in pairs for fee in self.fee_tiers]
        return [
            CallItem(pool, selector) for pool in self.pools for selector in (TOKEN0, TOKEN1, FEE)
        ]

    def candidates(
        self, pairs: Sequence[tuple[str, str]], answers: Sequence[LensAnswer]
    ) -> list[PoolRef]:
        """Return candidates from the answers to search_calls. Raises ConfigError if the factory or
        a named pool is not a contract of this kind.
        """
        if self.pools is None:
            pairs_and_fees = [(pair, fee) for pair in pairs for fee in self.fee_tiers]
            addresses = [pool_address(self.name, self.factory, answer) for answer in answers]
            return [
                self._ref(pool, *pair, fee)
                for (pair, fee), pool in zip(pairs_and_fees, addresses, strict=True)
                if pool is not None
            ]
        return [
            self._named_ref(pool, answers[3 * i : 3 * i + 3]) for i, pool in enumerate(self.pools)
        ]

    def check_calls(self, pool: PoolRef) -> list[CallItem]:
        """Return the calls that check a candidate: the factory's pool, the tier's tick spacing, and
        the price.
        """
        return [
            self._get_pool(pool.token0, pool.token1, pool.fee_pips),
            CallItem(
                self.factory, FEE_AMOUNT_TICK_SPACING + uint_word(pool.fee_pips), likely_gas=5_000
            ),
            CallItem(pool.address, SLOT0, max_answer_bytes=224),
        ]

    def has_price(self, pool: PoolRef, answers: Sequence[LensAnswer]) -> bool:
        """True if the pool is initialised. Raises ConfigError if the factory did not create it."""
        require_made_by(
            self.name, self.factory, pool, pool_address(self.name, self.factory, answers[0])
        )
        price = answer_words(answers[2], 1)
        return not isinstance(price, CallStatus) and price[0] > 0

    def spacing(self, answers: Sequence[LensAnswer]) -> int:
        """Return the tick spacing from the answers to check_calls. Raises ConfigError if the
        factory has no such tier.
        """
        tick_spacing = answer_uint(answers[1], 24)
        if isinstance(tick_spacing, CallStatus) or not 0 < tick_spacing < _SPACING_BOUND:
            raise ConfigError(
                f"venues.{self.name}.factory {self.factory}: no tick spacing for a fee tier",
                "check the address",
            )
        return tick_spacing

    def _get_pool(self, token0: str, token1: str, fee_pips: int) -> CallItem:
        return CallItem(
            self.factory,
            address_call(GET_POOL, token0, token1) + uint_word(fee_pips),
            likely_gas=8_000,
        )

    def _ref(self, pool: str, token0: str, token1: str, fee_pips: int) -> PoolRef:
        return PoolRef(pool, self.name, PoolKind.V3, token0, token1, fee_pips)

    def _named_ref(self, pool: str, answers: Sequence[LensAnswer]) -> PoolRef:
        token0, token1 = pool_tokens(self.name, pool, answers[:2])
        fee = answer_uint(answers[2], 24)
        if isinstance(fee, CallStatus):
            raise ConfigError(
                f"venues.{self.name}.pools: {pool}: {fee.why} (fee)", "is it a V3 pool?"
            )
        return self._ref(pool, token0, token1, fee)


AmmVenue = UniswapV2 | UniswapV3


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
    pairs = [
        (token_a, token_b) if int(token_a, 16) < int(token_b, 16) else (token_b, token_a)
        for token_a, token_b in combinations(token_by_address, 2)
    ]
    calls_by_venue = [venue.search_calls(pairs) for venue in venues]
    answers = iter(query_lens(transport, [item for items in calls_by_venue for item in items]))
    candidate_by_address = {
        pool.address: (venue, pool)
        for venue, items in zip(venues, calls_by_venue, strict=True)
        for pool in venue.candidates(pairs, [next(answers) for _ in items])
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
    pools = tuple(_with_price(transport, candidates))
    _require_pools(pools, list(tokens))
    return pools


def _with_price(
    transport: Transport, candidates: Sequence[tuple[AmmVenue, PoolRef]]
) -> Iterator[PoolRef]:
    """Check every candidate and yield those with a price, because anyone can create an
    empty pool.
    """
    calls_by_candidate: list[list[CallItem]] = [
        venue.check_calls(pool) for venue, pool in candidates
    ]
    answers = iter(query_lens(transport, [item for items in calls_by_candidate for item in items]))
    for (venue, pool), items in zip(candidates, calls_by_candidate, strict=True):
        pool_answers: list[LensAnswer] = [next(answers) for _ in items]
        if venue.has_price(pool, pool_answers):
            spacing = venue.spacing(pool_answers) if isinstance(venue, UniswapV3) else 0
            yield replace(pool, tick_spacing=spacing)
        elif venue.pools is not None:
            raise ConfigError(
                f"venues.{venue.name}.pools: {pool.address} has no price yet",
                "remove it, or wait until it holds liquidity",
            )


def _require_pools(pools: Sequence[PoolRef], tokens: Sequence[Token]) -> None:
    traded_tokens = {address for pool in pools for address in (pool.token0, pool.token1)}
    untraded = [token.label for token in tokens if token.address not in traded_tokens]
    if untraded:
        raise ConfigError(
            f"no pool of the configured venues trades {', '.join(untraded)}",
            "add a venue, a fee tier or a hub token, or drop the asset",
        )
