"""Which Uniswap V3 pools exist: asked of the factory over all fee tiers, or named by the owner and then checked against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.chain.abi import FEE, FEE_AMOUNT_TICK_SPACING, GET_POOL, SLOT0, TOKEN0, TOKEN1, address_call, word
from agent.chain.lens import Answer, CallItem, Status, uint, words
from agent.chain.watch import PoolKind, PoolRef
from agent.errors import ConfigError
from agent.venues.uniswap_v2 import pool_address, pool_tokens, require_made_by

_MOST_SPACING = 16_384
"""UniswapV3Factory.enableFeeAmount allows less."""


@dataclass(frozen=True, slots=True)
class UniswapV3:
    """One deployment of the V3 contracts; `pools` is the owner's explicit list, None to search over `fee_tiers` (pips)."""

    name: str
    factory: str
    fee_tiers: tuple[int, ...]
    pools: tuple[str, ...] | None = None

    def find_items(self, pairs: Sequence[tuple[str, str]]) -> list[CallItem]:
        """What to ask first: the factory for every pair and tier, or each named pool for its tokens and fee."""
        if self.pools is None:
            return [self._get_pool(*pair, fee) for pair in pairs for fee in self.fee_tiers]
        return [CallItem(pool, selector) for pool in self.pools for selector in (TOKEN0, TOKEN1, FEE)]

    def found(self, pairs: Sequence[tuple[str, str]], answers: Sequence[Answer]) -> list[PoolRef]:
        """Candidates from the answers to find_items. Raises ConfigError when the factory or a named pool is no such contract."""
        if self.pools is None:
            asked = [(pair, fee) for pair in pairs for fee in self.fee_tiers]
            addresses = [pool_address(self.name, self.factory, answer) for answer in answers]
            return [self._ref(pool, *pair, fee) for (pair, fee), pool in zip(asked, addresses, strict=True) if pool is not None]
        return [self._named(pool, answers[3 * i : 3 * i + 3]) for i, pool in enumerate(self.pools)]

    def check_items(self, pool: PoolRef) -> list[CallItem]:
        """What to ask of a candidate: does the factory know it, its tier's tick spacing, and has it a price."""
        return [
            self._get_pool(pool.token0, pool.token1, pool.fee_pips),
            CallItem(self.factory, FEE_AMOUNT_TICK_SPACING + word(pool.fee_pips), likely_gas=5_000),
            CallItem(pool.address, SLOT0, longest=224),
        ]

    def has_price(self, pool: PoolRef, answers: Sequence[Answer]) -> bool:
        """Whether the pool is initialised. Raises ConfigError when the factory did not make it."""
        require_made_by(self.name, self.factory, pool, pool_address(self.name, self.factory, answers[0]))
        price = words(answers[2], 1)
        return not isinstance(price, Status) and price[0] > 0

    def spacing(self, answers: Sequence[Answer]) -> int:
        """Tick spacing from the answers to check_items. Raises ConfigError when the factory has no such tier."""
        read = uint(answers[1], 24)
        if isinstance(read, Status) or not 0 < read < _MOST_SPACING:
            raise ConfigError(f"venues.{self.name}.factory {self.factory}: no tick spacing for a fee tier", "check the address")
        return read

    def _get_pool(self, token0: str, token1: str, fee_pips: int) -> CallItem:
        return CallItem(self.factory, address_call(GET_POOL, token0, token1) + word(fee_pips), likely_gas=8_000)

    def _ref(self, pool: str, token0: str, token1: str, fee_pips: int) -> PoolRef:
        return PoolRef(pool, self.name, PoolKind.V3, token0, token1, fee_pips)

    def _named(self, pool: str, answers: Sequence[Answer]) -> PoolRef:
        token0, token1 = pool_tokens(self.name, pool, answers[:2])
        fee = uint(answers[2], 24)
        if isinstance(fee, Status):
            raise ConfigError(f"venues.{self.name}.pools: {pool}: {fee.why} (fee)", "is it a V3 pool?")
        return self._ref(pool, token0, token1, fee)
