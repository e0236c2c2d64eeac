"""Uniswap V3: a pool for two tokens and a fee tier, with liquidity in ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from agent.amm.v3.pool import V3Pool
from agent.chain.lens import (
    FACTORY,
    FEE,
    FEE_AMOUNT_TICK_SPACING,
    GET_POOL,
    SLOT0,
    TOKEN0,
    TOKEN1,
    CallItem,
    CallStatus,
    LensAnswer,
    address_call,
    answer_uint,
    answer_words,
    uint_word,
)
from agent.chain.pools.reading import PoolRef, V3Reader
from agent.chain.second_quote import ContractCall, input_abis, view_abi
from agent.errors import ConfigError
from agent.model import Leg
from agent.venues.kinds.venue import AmmVenue

INIT_CODE_HASH = "0xe34f199b19b2b4f47f68442619d555527d244f78a3297ea89325f843f87b8b54"
"""keccak256 of UniswapV3Pool's creation code; PoolAddress.POOL_INIT_CODE_HASH."""
FACTORY_ARTIFACT = "@uniswap/v3-core/artifacts/contracts/UniswapV3Factory.sol/UniswapV3Factory.json"
POOL_ARTIFACT = "@uniswap/v3-core/artifacts/contracts/UniswapV3Pool.sol/UniswapV3Pool.json"
"""Contracts in npm packages."""
_TICK_SPACING_BOUND = 16_384
"""UniswapV3Factory.enableFeeAmount requires a smaller tick spacing."""
_NAMED_POOL_SELECTORS = (TOKEN0, TOKEN1, FEE)
_GET_POOL_ABI = view_abi("getPool", input_abis("address", "address", "uint24"), 1)
_QUOTE_PARAMS = input_abis("address", "address", "uint256", "uint24", "uint160")
_QUOTE_ABI = view_abi(
    "quoteExactInputSingle", [{"name": "", "type": "tuple", "components": _QUOTE_PARAMS}], 4
)


class UniswapV3(AmmVenue):
    """See AmmVenue. Pools are searched over `fee_tiers` (pips)."""

    pool_class = V3Pool
    reader = V3Reader()
    router_factory_selector: ClassVar[bytes] = FACTORY
    uniswap_python_version: ClassVar[int | None] = 3

    @property
    def default_init_code_hash(self) -> str:
        """See AmmVenue."""
        return INIT_CODE_HASH

    @property
    def uniswap_python_quoter(self) -> str:
        """See AmmVenue: the first Quoter, which not every chain has."""
        return self.quoter_v1

    def search_calls(self, pairs: Sequence[tuple[str, str]]) -> list[CallItem]:
        """See AmmVenue: for each fee tier, or with the fee of each named pool."""
        if self.pools is None:
            return [
                self._get_pool_call(*pair, fee_pips)
                for pair in pairs
                for fee_pips in self.fee_tiers
            ]
        return [
            CallItem(pool, selector) for pool in self.pools for selector in _NAMED_POOL_SELECTORS
        ]

    def candidates(
        self, pairs: Sequence[tuple[str, str]], answers: Sequence[LensAnswer]
    ) -> list[PoolRef]:
        """See AmmVenue."""
        if self.pools is None:
            pairs_and_fees = [(pair, fee_pips) for pair in pairs for fee_pips in self.fee_tiers]
            return [
                self._ref(pool, *pair, fee_pips)
                for (pair, fee_pips), answer in zip(pairs_and_fees, answers, strict=True)
                if (pool := self.factory_pool(answer)) is not None
            ]
        answer_count = len(_NAMED_POOL_SELECTORS)
        return [
            self._named_ref(pool, answers[answer_count * index : answer_count * (index + 1)])
            for index, pool in enumerate(self.pools)
        ]

    def check_calls(self, pool: PoolRef) -> list[CallItem]:
        """See AmmVenue: the tier's tick spacing too."""
        return [
            self._get_pool_call(pool.token0, pool.token1, pool.fee_pips),
            CallItem(
                self.factory, FEE_AMOUNT_TICK_SPACING + uint_word(pool.fee_pips), likely_gas=5_000
            ),
            CallItem(pool.address, SLOT0, max_answer_bytes=224),
        ]

    def checked_pool(self, pool: PoolRef, answers: Sequence[LensAnswer]) -> PoolRef | None:
        """See AmmVenue: the pool with its tick spacing. Raises ConfigError also if the factory has
        no such tier.
        """
        self.require_created_by_factory(pool, answers[0])
        slot0_words = answer_words(answers[2], 1)
        if isinstance(slot0_words, CallStatus) or slot0_words[0] == 0:
            return None
        tick_spacing = answer_uint(answers[1], 24)
        if isinstance(tick_spacing, CallStatus) or not 0 < tick_spacing < _TICK_SPACING_BOUND:
            raise ConfigError(
                f"venues.{self.name}.factory {self.factory}: no tick spacing for {pool.fee_pips} pips",
                "check the address",
            )
        return replace(pool, tick_spacing=tick_spacing)

    def pool_lookup_call(self, leg: Leg, tier: int) -> ContractCall:
        """See AmmVenue."""
        return self.factory, _GET_POOL_ABI, (leg.token_in, leg.token_out, leg.fee_pips)

    def quote_call(self, leg: Leg, amount_in_raw: int, tier: int) -> ContractCall:
        """See AmmVenue: QuoterV2.quoteExactInputSingle."""
        arguments = (leg.token_in, leg.token_out, amount_in_raw, leg.fee_pips, 0)
        return self.quoter, _QUOTE_ABI, (arguments,)

    def _get_pool_call(self, token0: str, token1: str, fee_pips: int) -> CallItem:
        return CallItem(
            self.factory,
            address_call(GET_POOL, token0, token1) + uint_word(fee_pips),
            likely_gas=8_000,
        )

    def _ref(self, pool: str, token0: str, token1: str, fee_pips: int) -> PoolRef:
        return PoolRef(pool, self.name, self.reader, token0, token1, fee_pips)

    def _named_ref(self, pool: str, answers: Sequence[LensAnswer]) -> PoolRef:
        fee_pips = answer_uint(answers[2], 24)
        pool_tokens = self.pool_token(pool, answers[0]), self.pool_token(pool, answers[1])
        if isinstance(fee_pips, CallStatus):
            raise ConfigError(
                f"venues.{self.name}.pools: {pool}: {fee_pips.why} (fee)", "is it a V3 pool?"
            )
        return self._ref(pool, *pool_tokens, fee_pips)
