"""Uniswap V4: pools of one PoolManager, each a PoolId derived from two currencies, fee, tick
spacing and hooks. What hooks do is unknown, so that pools with hooks are those of a venue of their
own, which the config names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.amm.v3.pool import V3Pool
from agent.amm.v3.uniswap_v4 import MAX_PROTOCOL_FEE, V4NativePool, V4Pool, protocol_fees
from agent.chain.lens import EXTSLOAD, CallItem, CallStatus, LensAnswer, LensItem, answer_uint
from agent.chain.pools.reading import POOL_GAS, PoolRef, V3Reader
from agent.chain.second_quote import ContractCall, input_abis, view_abi
from agent.errors import ConfigError
from agent.model import SPACING_SHIFT, Leg
from agent.signing.pool_makers import pool_address
from agent.units import NATIVE
from agent.venues.kinds.venue import AmmVenue

POOLS_SLOT = 6
"""StateLibrary.POOLS_SLOT: the mapping of pools in the PoolManager."""
_FEE_GROWTH_OFFSETS = (1, 2)
"""StateLibrary.FEE_GROWTH_GLOBAL0_OFFSET, and that of the other token."""
_POOL_MANAGER_ABI = view_abi("poolManager", [], 1)
_POOL_KEY_ABI = {
    "name": "",
    "type": "tuple",
    "components": input_abis("address", "address", "uint24", "int24", "address"),
}
_QUOTE_PARAMS = [_POOL_KEY_ABI, *input_abis("bool", "uint128", "bytes")]
_QUOTE_ABI = view_abi(
    "quoteExactInputSingle", [{"name": "", "type": "tuple", "components": _QUOTE_PARAMS}], 2
)


def _slot_calldata(pool_id: str, offset: int = 0) -> bytes:
    """Return the call of a word of the pool's state (Pool.State)."""
    state_slot = int.from_bytes(keccak(bytes.fromhex(pool_id[2:]) + POOLS_SLOT.to_bytes(32, "big")))
    return EXTSLOAD + (state_slot + offset).to_bytes(32, "big")


@dataclass(frozen=True, slots=True)
class V4Reader(V3Reader):
    """Reads a pool's ranges, and its fees from its first word, by PoolManager.extsload."""

    def tier(self, pool: PoolRef) -> int:
        """See PoolReader."""
        return pool.tick_spacing << SPACING_SHIFT | pool.fee_pips

    def unwritten_calldata(self, pool: PoolRef) -> Sequence[bytes]:
        """See PoolReader."""
        return [_slot_calldata(pool.address, offset) for offset in _FEE_GROWTH_OFFSETS]

    def items(self, pool: PoolRef, tick_window: int, twap_window_s: int) -> list[LensItem]:
        """See PoolReader: without a TWAP, which V4 does not keep."""
        slot0_item = CallItem(
            pool.contract, _slot_calldata(pool.address), gas_cap=POOL_GAS, likely_gas=6_000
        )
        return [*V3Reader.items(self, pool, tick_window, 0), slot0_item]

    def state(
        self, pool: PoolRef, answers: Sequence[LensAnswer], twap_window_s: int
    ) -> V3Pool | CallStatus:
        """See PoolReader. MALFORMED if the pool's fee is not that of its key, or if the protocol's
        is larger than the PoolManager allows.
        """
        pool_state = V3Reader.state(self, pool, answers, 0)
        slot0 = answer_uint(answers[1])
        if not isinstance(pool_state, V4Pool):
            return pool_state
        if isinstance(slot0, CallStatus):
            return slot0
        protocol_fee = slot0 >> 184 & 0xFFFFFF
        fee_pips = slot0 >> 208 & 0xFFFFFF
        if fee_pips != pool.fee_pips or max(protocol_fees(protocol_fee)) > MAX_PROTOCOL_FEE:
            return CallStatus.MALFORMED
        return replace(pool_state, manager=self.manager, protocol_fee=protocol_fee)


@dataclass(frozen=True, slots=True)
class UniswapV4(AmmVenue):
    """See AmmVenue. `factory` is the PoolManager; pools are searched over `tiers`, each a fee
    (pips) and a tick spacing, with the hooks of the venue.
    """

    pool_class: ClassVar[type[V4Pool]] = V4Pool

    def currency(self, token: str) -> str:
        """Return what the contract's pools have for a token."""
        return token

    def _pool_id(self, token_a: str, token_b: str, tier: int) -> str:
        return pool_address(self.maker, self.currency(token_a), self.currency(token_b), tier)

    def require_derived(self, pool: PoolRef) -> None:
        """See AmmVenue: every PoolId is derived here."""

    @property
    def default_init_code_hash(self) -> str:
        """See AmmVenue: the word of the hooks, zeros without."""
        return "0x" + self.hooks[2:].rjust(64, "0").lower()

    def search_calls(self, pairs: Sequence[tuple[str, str]]) -> list[CallItem]:
        """See AmmVenue: the first word of each pool that there could be."""
        return [self._slot0_item(pool) for pool in self._refs(pairs)]

    def candidates(
        self, pairs: Sequence[tuple[str, str]], answers: Sequence[LensAnswer]
    ) -> list[PoolRef]:
        """See AmmVenue: those with a price."""
        return [
            pool
            for pool, answer in zip(self._refs(pairs), answers, strict=True)
            if self._slot0_word(answer)
        ]

    def check_calls(self, pool: PoolRef) -> list[CallItem]:
        """See AmmVenue: nothing, as a PoolId is a hash of all that makes the pool."""
        return []

    def checked_pool(self, pool: PoolRef, answers: Sequence[LensAnswer]) -> PoolRef | None:
        """See AmmVenue."""
        return pool

    def pool_lookup_call(self, leg: Leg, tier: int) -> ContractCall:
        """See AmmVenue: the PoolManager whose pools the quoter quotes."""
        return self.quoter, _POOL_MANAGER_ABI, ()

    def confirms_pool(self, leg: Leg, tier: int, address_int: int) -> bool:
        """See AmmVenue."""
        pool_id = self._pool_id(leg.token_in, leg.token_out, tier)
        return pool_id == leg.pool and address_int == int(self.factory, 16)

    def quote_call(self, leg: Leg, amount_in_raw: int, tier: int) -> ContractCall:
        """See AmmVenue: V4Quoter.quoteExactInputSingle."""
        tick_spacing, fee_pips = divmod(tier, 1 << SPACING_SHIFT)
        currency_in = self.currency(leg.token_in)
        currency_out = self.currency(leg.token_out)
        currencies = sorted((currency_in, currency_out), key=lambda currency: int(currency, 16))
        hooks = to_checksum_address(self.maker.init_code_hash[-40:])
        pool_key = (*currencies, fee_pips, tick_spacing, hooks)
        zero_for_one = currency_in == currencies[0]
        return self.quoter, _QUOTE_ABI, ((pool_key, zero_for_one, amount_in_raw, b""),)

    def _refs(self, pairs: Sequence[tuple[str, str]]) -> list[PoolRef]:
        reader = V4Reader(self.pool_class, self.factory)
        pool_refs = [
            PoolRef("", self.name, reader, *pair, *fee_and_spacing)
            for pair in self._tradable_pairs(pairs)
            for fee_and_spacing in self.tiers
        ]
        return [
            replace(
                pool_ref, address=self._pool_id(pool_ref.token0, pool_ref.token1, pool_ref.tier)
            )
            for pool_ref in pool_refs
        ]

    def _tradable_pairs(self, pairs: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
        return pairs

    def _slot0_item(self, pool: PoolRef) -> CallItem:
        return CallItem(self.factory, _slot_calldata(pool.address), likely_gas=6_000)

    def _slot0_word(self, answer: LensAnswer) -> int:
        slot0 = answer_uint(answer)
        if isinstance(slot0, CallStatus):
            raise ConfigError(
                f"venues.{self.name}.factory {self.factory}: {slot0.why}",
                "write the address of V4's PoolManager on this chain",
            )
        return slot0


@dataclass(frozen=True, slots=True)
class UniswapV4Native(UniswapV4):
    """See UniswapV4: pools of the native coin, which trade its wrapped form by conversion."""

    pool_class: ClassVar[type[V4Pool]] = V4NativePool

    def currency(self, token: str) -> str:
        """See UniswapV4: the native coin for its wrapped form."""
        return NATIVE if token == self.wrapped_native else token

    def _tradable_pairs(self, pairs: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
        """Return the pairs with wrapped coin, which comes first, as the zero address does."""
        wrapped_native = self.wrapped_native
        return [
            pair if pair[0] == wrapped_native else pair[::-1]
            for pair in pairs
            if wrapped_native in pair
        ]
