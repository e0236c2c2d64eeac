"""Which Uniswap V2 pairs exist: asked of the factory, or named by the owner and then checked against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.chain.abi import GET_PAIR, GET_RESERVES, TOKEN0, TOKEN1, address_call
from agent.chain.lens import Answer, CallItem, Status, uint, words
from agent.chain.watch import PoolKind, PoolRef
from agent.chain.words import address_of
from agent.errors import ConfigError

FEE_PIPS = 3000
"""Fixed in UniswapV2Pair.swap: 0.3 %."""


@dataclass(frozen=True, slots=True)
class UniswapV2:
    """One deployment of the V2 contracts; `pools` is the owner's explicit list, None to search."""

    name: str
    factory: str
    pools: tuple[str, ...] | None = None

    def find_items(self, pairs: Sequence[tuple[str, str]]) -> list[CallItem]:
        """What to ask first: the factory for every pair, or each named pool for its tokens."""
        if self.pools is None:
            return [self._get_pair(token0, token1) for token0, token1 in pairs]
        return [CallItem(pool, selector) for pool in self.pools for selector in (TOKEN0, TOKEN1)]

    def found(self, pairs: Sequence[tuple[str, str]], answers: Sequence[Answer]) -> list[PoolRef]:
        """Candidates from the answers to find_items. Raises ConfigError when the factory or a named pool is no such contract."""
        if self.pools is None:
            addresses = [pool_address(self.name, self.factory, answer) for answer in answers]
            return [self._ref(pool, *pair) for pair, pool in zip(pairs, addresses, strict=True) if pool is not None]
        return [self._ref(pool, *pool_tokens(self.name, pool, answers[2 * i : 2 * i + 2])) for i, pool in enumerate(self.pools)]

    def check_items(self, pool: PoolRef) -> list[CallItem]:
        """What to ask of a candidate: does the factory know it, and has it a price."""
        return [self._get_pair(pool.token0, pool.token1), CallItem(pool.address, GET_RESERVES, longest=96)]

    def has_price(self, pool: PoolRef, answers: Sequence[Answer]) -> bool:
        """Whether the pair holds anything. Raises ConfigError when the factory did not make it."""
        require_made_by(self.name, self.factory, pool, pool_address(self.name, self.factory, answers[0]))
        reserves = words(answers[1], 2)
        return not isinstance(reserves, Status) and reserves[0] > 0 and reserves[1] > 0

    def _get_pair(self, token0: str, token1: str) -> CallItem:
        return CallItem(self.factory, address_call(GET_PAIR, token0, token1), likely_gas=8_000)

    def _ref(self, pool: str, token0: str, token1: str) -> PoolRef:
        return PoolRef(pool, self.name, PoolKind.V2, token0, token1, FEE_PIPS)


def pool_address(venue: str, factory: str, answer: Answer) -> str | None:
    """Pool in a factory's answer, None for the zero address. Raises ConfigError when it is no factory."""
    read = uint(answer, 160)
    if isinstance(read, Status):
        raise ConfigError(f"venues.{venue}.factory {factory}: {read.why}", "check the address and the chain id")
    return address_of(read) if read else None


def pool_tokens(venue: str, pool: str, answers: Sequence[Answer]) -> tuple[str, str]:
    """token0 and token1 of a named pool. Raises ConfigError when it is no pool."""
    return _pool_token(venue, pool, answers[0]), _pool_token(venue, pool, answers[1])


def _pool_token(venue: str, pool: str, answer: Answer) -> str:
    read = uint(answer, 160)
    if isinstance(read, Status):
        raise ConfigError(f"venues.{venue}.pools: {pool}: {read.why}", "check the address and the chain id")
    return address_of(read)


def require_made_by(venue: str, factory: str, pool: PoolRef, known: str | None) -> None:
    """Raises ConfigError unless the factory's pool for these tokens is this one: anyone can deploy something like a pool."""
    if known != pool.address:
        raise ConfigError(f"venues.{venue}.pools: {pool.address} was not made by the factory {factory}", "remove it; it may be a trap")
