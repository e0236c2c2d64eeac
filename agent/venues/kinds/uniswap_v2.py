"""Uniswap V2 and its forks: one pair for two tokens, one fee for all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from agent.amm.v2_pool import V2Pool
from agent.chain.lens import (
    FACTORY_V2,
    GET_PAIR,
    GET_RESERVES,
    TOKEN0,
    TOKEN1,
    CallItem,
    CallStatus,
    LensAnswer,
    address_call,
    answer_words,
)
from agent.chain.pools.reading import PoolRef, V2Reader
from agent.chain.second_quote import ContractCall, NoSecondQuote, input_abis, view_abi
from agent.errors import ErrorCode
from agent.model import Leg
from agent.venues.kinds.venue import AmmVenue

FEE_PIPS = 3000
"""Fee of 0.3 %, fixed in UniswapV2Pair.swap and in UniswapV2Library, which Router02 quotes by."""
INIT_CODE_HASH = "0x96e8ac4277198ff8b6f785478aa9a39f403cb768dd02cbee326c3e7da348845f"
"""keccak256 of UniswapV2Pair's creation code; UniswapV2Library.pairFor."""
FACTORY_ARTIFACT = "@uniswap/v2-core/build/UniswapV2Factory.json"
PAIR_ARTIFACT = "@uniswap/v2-core/build/UniswapV2Pair.json"
ROUTER_ARTIFACT = "@uniswap/v2-periphery/build/UniswapV2Router02.json"
"""Contracts in npm packages."""
_READER = V2Reader()
_GET_PAIR_ABI = view_abi("getPair", input_abis("address", "address"), 1)
_GET_AMOUNTS_ABI = view_abi("getAmountsOut", input_abis("uint256", "address[]"), 4)
_TWO_AMOUNTS_HEADER = (32, 2)
"""Offset and length of getAmountsOut's list for a path of two tokens."""


class UniswapV2(AmmVenue):
    """See AmmVenue. `fee_pips` is the fee of its pairs, 0 for that of Uniswap."""

    pool_class = V2Pool
    router_factory_selector: ClassVar[bytes] = FACTORY_V2
    uniswap_python_version: ClassVar[int | None] = 2

    @property
    def default_init_code_hash(self) -> str:
        """See AmmVenue."""
        return INIT_CODE_HASH

    @property
    def uniswap_python_quoter(self) -> str:
        """See AmmVenue: Router02, whose arithmetic has the fee of Uniswap."""
        return self.router if self.pair_fee_pips == FEE_PIPS else ""

    @property
    def pair_fee_pips(self) -> int:
        """Fee of its pairs, in millionths."""
        return self.fee_pips or FEE_PIPS

    def search_calls(self, pairs: Sequence[tuple[str, str]]) -> list[CallItem]:
        """See AmmVenue."""
        if self.pools is None:
            return [self._get_pair_call(token0, token1) for token0, token1 in pairs]
        return [CallItem(pool, selector) for pool in self.pools for selector in (TOKEN0, TOKEN1)]

    def candidates(
        self, pairs: Sequence[tuple[str, str]], answers: Sequence[LensAnswer]
    ) -> list[PoolRef]:
        """See AmmVenue."""
        if self.pools is None:
            return [
                self._ref(pool, *pair)
                for pair, answer in zip(pairs, answers, strict=True)
                if (pool := self.factory_pool(answer)) is not None
            ]
        return [
            self._ref(
                pool,
                self.pool_token(pool, answers[2 * index]),
                self.pool_token(pool, answers[2 * index + 1]),
            )
            for index, pool in enumerate(self.pools)
        ]

    def check_calls(self, pool: PoolRef) -> list[CallItem]:
        """See AmmVenue: the price is in the reserves."""
        return [
            self._get_pair_call(pool.token0, pool.token1),
            CallItem(pool.address, GET_RESERVES, max_answer_bytes=96),
        ]

    def checked_pool(self, pool: PoolRef, answers: Sequence[LensAnswer]) -> PoolRef | None:
        """See AmmVenue."""
        self.require_created_by_factory(pool, answers[0])
        reserves = answer_words(answers[1], 2)
        has_price = not isinstance(reserves, CallStatus) and reserves[0] > 0 and reserves[1] > 0
        return pool if has_price else None

    def pool_lookup_call(self, leg: Leg, tier: int) -> ContractCall:
        """See AmmVenue."""
        return self.factory, _GET_PAIR_ABI, (leg.token_in, leg.token_out)

    def quote_call(self, leg: Leg, amount_in_raw: int, tier: int) -> ContractCall:
        """See AmmVenue: Router02.getAmountsOut; the router of a fork has the fork's fee."""
        if leg.fee_pips != self.pair_fee_pips:
            raise NoSecondQuote(
                f"the router of {self.name} quotes only pairs with a fee of"
                f" {self.pair_fee_pips} millionths",
                code=ErrorCode.FEE,
            )
        return self.router, _GET_AMOUNTS_ABI, (amount_in_raw, (leg.token_in, leg.token_out))

    def decode_quote(self, words: Sequence[int]) -> int:
        """See AmmVenue."""
        list_offset, amount_count, _, amount_out_raw = words
        if (list_offset, amount_count) != _TWO_AMOUNTS_HEADER:
            raise NoSecondQuote("Router02 did not return two amounts", code=ErrorCode.ANSWER)
        return amount_out_raw

    def _get_pair_call(self, token0: str, token1: str) -> CallItem:
        return CallItem(self.factory, address_call(GET_PAIR, token0, token1), likely_gas=8_000)

    def _ref(self, pool: str, token0: str, token1: str) -> PoolRef:
        return PoolRef(pool, self.name, _READER, token0, token1, self.pair_fee_pips)
