"""Slipstream of Aerodrome and Velodrome: pools are clones (EIP-1167), by tick spacing in place of a
fee tier, and their fee is read with their state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from eth_utils.crypto import keccak

from agent.amm.v3.pool import V3Pool
from agent.amm.v3.slipstream import FEE_WINDOW_S, DynamicFee, SlipstreamPool
from agent.chain.lens import (
    FEE,
    SLOT0,
    TOKEN0,
    TOKEN1,
    CallItem,
    CallStatus,
    IndirectCallItem,
    LensAnswer,
    LensItem,
    address_call,
    answer_uint,
    answer_words,
    to_signed,
    uint_word,
)
from agent.chain.pools.observations import OBSERVE_GAS, observe_calldata
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
CONFIG_WORDS_WITH_INITIAL_FEE = 5
"""DynamicSwapFeeModule.dynamicFeeConfig since July 2026: base fee, cap, scaling, whether there is an
initial fee, and that; before, the first three.
"""
MAX_FEE_PIPS = 100_000
"""CLFactory.getSwapFee ignores a larger fee of a module."""
SWAP_FEE_MODULE = bytes.fromhex("23c43a51")
TICK_SPACING_TO_FEE = bytes.fromhex("380dc1c2")
DYNAMIC_FEE_CONFIG = bytes.fromhex("5bb525ff")
DEFAULT_SCALING_FACTOR = bytes.fromhex("ba743e38")
DEFAULT_FEE_CAP = bytes.fromhex("dcf4eb27")
SECONDS_AGO = bytes.fromhex("633dd145")
SECONDS_PER_OBSERVATION = 2
ZERO_FEE_INDICATOR = 420
"""DynamicSwapFeeModule.MIN_SECONDS_AGO, and the base fee that stands for 0."""
INCLUSION_DELAY_S = 4
"""Expected time from the block that was read to the block of the swap: two of OP Stack's."""
_CLONE_PREFIX = "3d602d80600a3d3981f3363d3d373d3d3d363d73"
_CLONE_SUFFIX = "5af43d82803e903d91602b57fd5bf3"
"""Creation code of a clone, around the implementation's address (EIP-1167)."""
_GET_POOL_ABI = view_abi("getPool", input_abis("address", "address", "int24"), 1)
_QUOTE_PARAMS = input_abis("address", "address", "uint256", "int24", "uint160")
_QUOTE_ABI = view_abi(
    "quoteExactInputSingle", [{"name": "", "type": "tuple", "components": _QUOTE_PARAMS}], 4
)


@dataclass(frozen=True, slots=True)
class SlipstreamReader(V3Reader):
    """Reads a pool's ranges and the fee that its next swap pays: under DynamicSwapFeeModule that of
    a swap `inclusion_delay_s` seconds after the block, else the fee at the block. `factory` names
    the module.
    """

    depends_on_caller: ClassVar[bool] = True
    pool_class: type[V3Pool] = SlipstreamPool
    factory: str = ""
    inclusion_delay_s: int = INCLUSION_DELAY_S

    def tier(self, pool: PoolRef) -> int:
        """See PoolReader."""
        return pool.tick_spacing

    def items(self, pool: PoolRef, tick_window: int, twap_window_s: int) -> list[LensItem]:
        """See PoolReader."""
        ages_s = (FEE_WINDOW_S, FEE_WINDOW_S - self.inclusion_delay_s, 0)
        spacing_calldata = TICK_SPACING_TO_FEE + uint_word(pool.tick_spacing)
        return [
            *V3Reader.items(self, pool, tick_window, twap_window_s),
            CallItem(pool.address, FEE, gas_cap=FEE_GAS, likely_gas=40_000),
            CallItem(
                pool.address, observe_calldata(ages_s), 320, gas_cap=OBSERVE_GAS, likely_gas=60_000
            ),
            CallItem(self.factory, spacing_calldata, likely_gas=6_000),
            self._module_item(
                address_call(DYNAMIC_FEE_CONFIG, pool.address), 32 * CONFIG_WORDS_WITH_INITIAL_FEE
            ),
            *(
                self._module_item(setting_selector)
                for setting_selector in (DEFAULT_SCALING_FACTOR, DEFAULT_FEE_CAP, SECONDS_AGO)
            ),
        ]

    def _module_item(self, calldata: bytes, answer_bytes: int = 32) -> IndirectCallItem:
        call = CallItem(self.factory, calldata, answer_bytes)
        return IndirectCallItem(self.factory, SWAP_FEE_MODULE, call, likely_gas=15_000)

    def state(
        self, pool: PoolRef, answers: Sequence[LensAnswer], twap_window_s: int
    ) -> V3Pool | CallStatus:
        """See PoolReader."""
        pool_state = V3Reader.state(self, pool, answers, twap_window_s)
        fee_pips = answer_uint(answers[1], 24)
        if isinstance(fee_pips, CallStatus):
            return fee_pips
        if not isinstance(pool_state, SlipstreamPool):
            return pool_state
        if fee_pips > MAX_FEE_PIPS:
            return CallStatus.MALFORMED
        fee_at_block, fee_at_inclusion = (
            _dynamic_fee(pool_state, answers[2:], delay_s)
            for delay_s in (0, self.inclusion_delay_s)
        )
        if fee_at_block is None or fee_at_inclusion is None:
            return replace(pool_state, fee_pips=fee_pips)
        # An observation of the block itself ends its initial fee.
        possible_fees = (fee_at_block, replace(fee_at_block, initial_pips=None))
        if fee_pips not in [fee.pips(pool_state.tick) for fee in possible_fees]:
            return replace(pool_state, fee_pips=fee_pips)
        return replace(
            pool_state,
            fee_pips=fee_at_inclusion.pips(pool_state.tick),
            dynamic_fee=fee_at_inclusion,
        )


def _dynamic_fee(
    pool: SlipstreamPool, answers: Sequence[LensAnswer], delay_s: int
) -> DynamicFee | None:
    """Return the fee by DynamicSwapFeeModule.getFee, `delay_s` seconds after the block if nobody
    trades until then; None if the module is another, or has another window.
    """
    initial_words = answer_words(answers[2], CONFIG_WORDS_WITH_INITIAL_FEE)
    setting_words = [
        answer_words(answer, word_count)
        for answer, word_count in zip(answers[1:], (1, 3, 1, 1, 1), strict=True)
    ]
    known_words = [
        word
        for words_or_status in setting_words
        if not isinstance(words_or_status, CallStatus)
        for word in words_or_status
    ]
    if len(known_words) < 7:
        return None
    (
        tier_pips,
        base_pips,
        cap_pips,
        scaling_factor,
        default_scaling_factor,
        default_cap_pips,
        window_s,
    ) = known_words
    if scaling_factor == 0:
        scaling_factor = default_scaling_factor
        cap_pips = default_cap_pips
    if window_s != FEE_WINDOW_S or cap_pips > MAX_FEE_PIPS:
        return None
    if base_pips == ZERO_FEE_INDICATOR:
        return DynamicFee(base_pips=0, cap_pips=0, scaling=0, mean_tick=None)
    base_pips = base_pips or tier_pips
    initial_pips = None
    if not isinstance(initial_words, CallStatus) and initial_words[3]:
        initial_pips = initial_words[4] or base_pips
        if initial_words[4] == ZERO_FEE_INDICATOR:
            initial_pips = 0
        if initial_pips > MAX_FEE_PIPS:
            return None
    mean_tick = _mean_tick(pool, answers[0], delay_s)
    return DynamicFee(base_pips, cap_pips, scaling_factor, mean_tick, initial_pips)


def _mean_tick(pool: SlipstreamPool, observe_answer: LensAnswer, delay_s: int) -> int | None:
    """Return the mean tick of FEE_WINDOW_S as the module rounds it, towards zero; None where it
    counts none. `observe_answer` is CLPool.observe at the two starts of the window, and now.
    """
    words = answer_words(observe_answer, 6)
    if isinstance(words, CallStatus) or pool.observation_counts is None:
        return None
    if pool.observation_counts[0] < FEE_WINDOW_S // SECONDS_PER_OBSERVATION:
        return None
    cumulative_at_start, cumulative_at_later_start, cumulative_now = (
        to_signed(word) for word in words[3:]
    )
    tick_seconds = (
        cumulative_now
        + pool.tick * delay_s
        - (cumulative_at_later_start if delay_s else cumulative_at_start)
    )
    return tick_seconds // FEE_WINDOW_S if tick_seconds >= 0 else -(-tick_seconds // FEE_WINDOW_S)


class Slipstream(AmmVenue):
    """See AmmVenue. Pools are searched over `tick_spacings`."""

    pool_class = SlipstreamPool

    @property
    def reader(self) -> SlipstreamReader:
        """Reader of its pools."""
        return SlipstreamReader(factory=self.factory)

    @property
    def default_init_code_hash(self) -> str:
        """See AmmVenue: that of a clone of the implementation."""
        implementation_hex = self.pool_implementation[2:].lower()
        return "0x" + keccak(hexstr=_CLONE_PREFIX + implementation_hex + _CLONE_SUFFIX).hex()

    def search_calls(self, pairs: Sequence[tuple[str, str]]) -> list[CallItem]:
        """See AmmVenue: for each tick spacing, or with the spacing of each named pool."""
        if self.pools is None:
            return [
                self._get_pool_call(*pair, tick_spacing)
                for pair in pairs
                for tick_spacing in self.tick_spacings
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
                (pair, tick_spacing) for pair in pairs for tick_spacing in self.tick_spacings
            ]
            return [
                self._ref(pool, *pair, tick_spacing)
                for (pair, tick_spacing), answer in zip(pairs_and_spacings, answers, strict=True)
                if (pool := self.factory_pool(answer)) is not None
            ]
        return [
            self._named_ref(pool, answers[3 * index : 3 * index + 3])
            for index, pool in enumerate(self.pools)
        ]

    def check_calls(self, pool: PoolRef) -> list[CallItem]:
        """See AmmVenue."""
        return [
            self._get_pool_call(pool.token0, pool.token1, pool.tick_spacing),
            CallItem(pool.address, SLOT0, max_answer_bytes=192, gas_cap=POOL_GAS),
        ]

    def checked_pool(self, pool: PoolRef, answers: Sequence[LensAnswer]) -> PoolRef | None:
        """See AmmVenue."""
        self.require_created_by_factory(pool, answers[0])
        slot0_words = answer_words(answers[1], 1)
        return None if isinstance(slot0_words, CallStatus) or slot0_words[0] == 0 else pool

    def pool_lookup_call(self, leg: Leg, tier: int) -> ContractCall:
        """See AmmVenue."""
        return self.factory, _GET_POOL_ABI, (leg.token_in, leg.token_out, tier)

    def quote_call(self, leg: Leg, amount_in_raw: int, tier: int) -> ContractCall:
        """See AmmVenue: Slipstream's QuoterV2.quoteExactInputSingle."""
        arguments = (leg.token_in, leg.token_out, amount_in_raw, tier, 0)
        return self.quoter, _QUOTE_ABI, (arguments,)

    def _get_pool_call(self, token0: str, token1: str, tick_spacing: int) -> CallItem:
        return CallItem(
            self.factory,
            address_call(GET_POOL, token0, token1) + uint_word(tick_spacing),
            likely_gas=8_000,
        )

    def _ref(self, pool: str, token0: str, token1: str, tick_spacing: int) -> PoolRef:
        return PoolRef(pool, self.name, self.reader, token0, token1, 0, tick_spacing)

    def _named_ref(self, pool: str, answers: Sequence[LensAnswer]) -> PoolRef:
        tick_spacing = answer_uint(answers[2], 23)
        pool_tokens = self.pool_token(pool, answers[0]), self.pool_token(pool, answers[1])
        if isinstance(tick_spacing, CallStatus):
            raise ConfigError(
                f"venues.{self.name}.pools: {pool}: {tick_spacing.why} (tick spacing)",
                "is it a pool of Slipstream?",
            )
        return self._ref(pool, *pool_tokens, tick_spacing)
