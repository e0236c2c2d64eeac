"""Whether the contract at an address is our Rebalancer, made for the factories of the config; and what to send to make one."""

from __future__ import annotations

from collections.abc import Mapping

from agent.artifacts import own
from agent.chain.abi import abi_encode
from agent.chain.rpc import Transport
from agent.errors import ConfigError
from agent.units import NATIVE
from agent.venues.rebalancer import V2_VENUE, V3_VENUE

V2_INIT_CODE_HASH = "0x96e8ac4277198ff8b6f785478aa9a39f403cb768dd02cbee326c3e7da348845f"
"""keccak256 of UniswapV2Pair's creation code; UniswapV2Library.pairFor."""
V3_INIT_CODE_HASH = "0xe34f199b19b2b4f47f68442619d555527d244f78a3297ea89325f843f87b8b54"
"""keccak256 of UniswapV3Pool's creation code; PoolAddress.POOL_INIT_CODE_HASH."""


def creation_code(wrapped_native: str, factories: Mapping[str, str]) -> str:
    """0x-hex data of the transaction without recipient that deploys a Rebalancer for these factories, by name of the venue.

    A venue that is not used is the zero address: it made no pool.
    """
    v2, v3 = factories.get(V2_VENUE, NATIVE), factories.get(V3_VENUE, NATIVE)
    words = [wrapped_native, v2, _bytes(V2_INIT_CODE_HASH), v3, _bytes(V3_INIT_CODE_HASH)]
    return own("Rebalancer").bytecode + abi_encode(["address", "address", "bytes32", "address", "bytes32"], words).hex()


def require_ours(transport: Transport, address: str, wrapped_native: str, factories: Mapping[str, str]) -> None:
    """Raises ConfigError unless the code at `address` is, byte for byte, what `creation_code` would put there now."""
    answers = transport.batch(
        [
            ("eth_call", [{"data": creation_code(wrapped_native, factories)}, "latest"]),
            ("eth_getCode", [address, "latest"]),
        ]
    )
    expected, found = (answer.lower() if isinstance(answer, str) else "" for answer in answers)
    if len(expected) <= 2 or expected != found:
        raise ConfigError(
            f"execution.rebalancer: the code at {address} is not this version's Rebalancer for the factories of the config",
            "deploy it with the data that scripts/rebalancer_code.py prints, or use swap_router_02",
        )


def _bytes(word: str) -> bytes:
    return bytes.fromhex(word[2:])
