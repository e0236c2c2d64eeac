"""Addresses of pools, from who makes them (EIP-1014). Only this maker with this code can have put a
contract there.
"""

from __future__ import annotations

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.model import SPACING_SHIFT, PoolMaker, SwapStyle


def pool_address(maker: PoolMaker, token_a: str, token_b: str, tier: int) -> str:
    """Return the checksummed address of the maker's pool for two tokens in either order: of a V2
    factory (UniswapV2Library.pairFor), else of its tier (PoolAddress.computeAddress); of V4 the
    PoolId (PoolIdLibrary.toId).
    """
    sorted_tokens = sorted(bytes.fromhex(token[2:]) for token in (token_a, token_b))
    if maker.style is SwapStyle.V4:
        tick_spacing, fee_pips = divmod(tier, 1 << SPACING_SHIFT)
        fee_and_spacing = fee_pips.to_bytes(32, "big") + tick_spacing.to_bytes(32, "big")
        currencies = b"".join(token.rjust(32, b"\0") for token in sorted_tokens)
        return (
            "0x"
            + keccak(currencies + fee_and_spacing + bytes.fromhex(maker.init_code_hash[2:])).hex()
        )
    if maker.style is SwapStyle.V2:
        salt = keccak(b"".join(sorted_tokens))
    else:
        padded_tokens = [token.rjust(32, b"\0") for token in sorted_tokens]
        salt = keccak(b"".join(padded_tokens) + tier.to_bytes(32, "big"))
    create2_prefix = b"\xff" + bytes.fromhex(maker.address[2:]) + salt
    return str(
        to_checksum_address(keccak(create2_prefix + bytes.fromhex(maker.init_code_hash[2:]))[12:])
    )
