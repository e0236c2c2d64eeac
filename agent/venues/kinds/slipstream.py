"""Slipstream of Aerodrome and Velodrome: pools are clones (EIP-1167), by tick spacing in place of a fee
tier, and their fee is read with their state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from eth_utils.crypto import keccak

from agent.amm.v3.pool import V3Pool
from agent.amm.v3.slipstream import SlipstreamPool
from agent.chain.lens import (
    FEE,
    SLOT0,
    TOKEN0,
    TOKEN1,
    CallItem,
    CallStatus,
    LensAnswer,
    LensItem,
    address_call,
    answer_uint,
    answer_words,
    uint_word,
)
from agent.chain.pools.reading import POOL_GAS, PoolRef, V3Reader
from agent.chain.second_quote import ContractCall, input_abis, view_abi
from agent.errors import ConfigError
from agent.model import Leg
from agent.venues.kinds.venue import AmmVenue

GET_POOL = bytes.fromhex("28af8d0b")
"""CLFactory.getPool(address,address,int24)."""
TICK_SPACING = bytes.fromhex("d0c93a7c")
FEE_GAS = 300_000
"""Gas of CLPool.fee: its module may take 200,000 (CLFactory.getSwapFee)."""
MAX_FEE_PIPS = 100_000
"""CLFactory.getSwapFee ignores a larger fee of a module."""
_CLONE_PREFIX, _CLONE_SUFFIX = (
    "3d602d80600a3d3981f3363d3d373d3d3d363d73",
    "5af43d82803e903d91602b57fd5bf3",
)
"""Creation code of a clone, around the implementation's address (EIP-1167)."""
_GET_POOL_ABI = view_abi("getPool", input_abis("address", "address", "int24"), 1)
_QUOTE_PARAMS = input_abis("address", "address", "uint256", "int24", "uint160")
_QUOTE_ABI = view_abi(
    "quoteExactInputSingle", [{"name": "", "type": "tuple", "components": _QUOTE_PARAMS}], 4
)


class SlipstreamReader(V3Reader):
    """Reads a pool's ranges, and its fee at the block."""

    def tier(self, pool: PoolRef) -> int:
        """See PoolReader."""
        return pool.tick_spacing

    def items(self, pool: PoolRef, tick_window: int, twap_window_s: int) -> list[LensItem]:
        """See PoolReader."""
        fee_item = CallItem(pool.address, FEE, gas=FEE_GAS, likely_gas=40_000)
        return [*super().items(pool, tick_window, twap_window_s), fee_item]

    def state(
        self, pool: PoolRef, answers: Sequence[LensAnswer], twap_window_s: int
    ) -> V3Pool | CallStatus:
        """See PoolReader."""
        read_pool, fee_pips = (
            super().state(pool, answers, twap_window_s),
            answer_uint(answers[1], 24),
        )
        if isinstance(fee_pips, CallStatus):
            return fee_pips
        if isinstance(read_pool, CallStatus) or fee_pips > MAX_FEE_PIPS:
            return read_pool if isinstance(read_pool, CallStatus) else CallStatus.MALFORMED
        return replace(read_pool, fee_pips=fee_pips)


class Slipstream(AmmVenue):
    """See AmmVenue. Pools are searched over `tick_spacings`."""

    pool_class = SlipstreamPool
    reader: ClassVar[V3Reader] = SlipstreamReader(SlipstreamPool)

    @property
    def default_init_code_hash(self) -> str:
        """See AmmVenue: that of a clone of the implementation."""
        implementation = self.pool_implementation[2:].lower()
        return "0x" + keccak(hexstr=_CLONE_PREFIX + implementation + _CLONE_SUFFIX).hex()

    def search_calls(self, pairs: Sequence[tuple[str, str]]) -> list[CallItem]:
        """See AmmVenue: for each tick spacing, or with the spacing of each named pool."""
        if self.pools is None:
            return [
                self._get_pool(*pair, spacing) for pair in pairs for spacing in self.tick_spacings
            ]
        return [
            CallItem(pool, selector)
            for pool in self.pools
            for selector in (TOKEN0, TOKEN1, TICK_SPACING)
        ]

    def candidates(
        self, pairs: Sequence[tuple[str, str]], answers: Sequence[LensAnswer]
    ) -> list[PoolRef]:
        """See AmmVenue."""
        if self.pools is None:
            pairs_and_spacings = [
                (pair, spacing) for pair in pairs for spacing in self.tick_spacings
            ]
            return [
                self._ref(pool, *pair, spacing)
                for (pair, spacing), answer in zip(pairs_and_spacings, answers, strict=True)
                if (pool := self.factory_pool(answer)) is not None
            ]
        return [
            self._named_ref(pool, answers[3 * index : 3 * index + 3])
            for index, pool in enumerate(self.pools)
        ]

    def check_calls(self, pool: PoolRef) -> list[CallItem]:
        """See AmmVenue."""
        return [
            self._get_pool(pool.token0, pool.token1, pool.tick_spacing),
            CallItem(pool.address, SLOT0, max_answer_bytes=192, gas=POOL_GAS),
        ]

    def checked(self, pool: PoolRef, answers: Sequence[LensAnswer]) -> PoolRef | None:
        """See AmmVenue."""
        self.require_own(pool, answers[0])
        price = answer_words(answers[1], 1)
        return None if isinstance(price, CallStatus) or price[0] == 0 else pool

    def find_call(self, leg: Leg, tier: int) -> ContractCall:
        """See AmmVenue."""
        return self.factory, _GET_POOL_ABI, (leg.token_in, leg.token_out, tier)

    def quote_call(self, leg: Leg, amount_in_raw: int, tier: int) -> ContractCall:
        """See AmmVenue: Slipstream's QuoterV2.quoteExactInputSingle."""
        arguments = (leg.token_in, leg.token_out, amount_in_raw, tier, 0)
        return self.quoter, _QUOTE_ABI, (arguments,)

    def quoted(self, words: Sequence[int]) -> int:
        """See AmmVenue."""
        return words[0]

    def _get_pool(self, token0: str, token1: str, spacing: int) -> CallItem:
        return CallItem(
            self.factory,
            address_call(GET_POOL, token0, token1) + uint_word(spacing),
            likely_gas=8_000,
        )

    def _ref(self, pool: str, token0: str, token1: str, spacing: int) -> PoolRef:
        return PoolRef(pool, self.name, self.reader, token0, token1, 0, spacing)

    def _named_ref(self, pool: str, answers: Sequence[LensAnswer]) -> PoolRef:
        spacing = answer_uint(answers[2], 23)
        tokens = self.pool_token(pool, answers[0]), self.pool_token(pool, answers[1])
        if isinstance(spacing, CallStatus):
            raise ConfigError(
                f"venues.{self.name}.pools: {pool}: {spacing.why} (tick spacing)",
                "is it a pool of Slipstream?",
            )
        return self._ref(pool, *tokens, spacing)
