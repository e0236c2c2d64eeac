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
    tokens = sorted(bytes.fromhex(token[2:]) for token in (token_a, token_b))
    if maker.style is SwapStyle.V4:
        spacing, fee_pips = divmod(tier, 1 << SPACING_SHIFT)
        numbers = fee_pips.to_bytes(32, "big") + spacing.to_bytes(32, "big")
        currencies = b"".join(token.rjust(32, b"\0") for token in tokens)
        return "0x" + keccak(currencies + numbers + bytes.fromhex(maker.init_code_hash[2:])).hex()
    if maker.style is SwapStyle.V2:
        salt = keccak(b"".join(tokens))
    else:
        words = [token.rjust(32, b"\0") for token in tokens]
        salt = keccak(b"".join(words) + tier.to_bytes(32, "big"))
    deployment = b"\xff" + bytes.fromhex(maker.address[2:]) + salt
    return str(
        to_checksum_address(keccak(deployment + bytes.fromhex(maker.init_code_hash[2:]))[12:])
    )
