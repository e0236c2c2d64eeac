"""Deployment of Rebalancer: its code, and the one address that it has on every chain.

The CREATE2 deployer of most chains takes a salt and creation code. The contract has neither
constructor arguments nor immutable values, so its address and its code are the same everywhere,
and depend on nobody's wallet.
"""

from __future__ import annotations

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.artifacts import own_artifact
from agent.signing.deployment_rules import CREATE2_DEPLOYER, SALT


def rebalancer_init_code() -> bytes:
    """Return the creation code of Rebalancer, from the artifact of this version."""
    return bytes.fromhex(own_artifact("Rebalancer").bytecode[2:])


def rebalancer_init_hash() -> str:
    """Return the 0x-hex keccak256 of Rebalancer's creation code."""
    return "0x" + keccak(rebalancer_init_code()).hex()


def rebalancer_address() -> str:
    """Return the checksummed address of Rebalancer on every chain (EIP-1014)."""
    deployer = bytes.fromhex(CREATE2_DEPLOYER[2:])
    return str(
        to_checksum_address(keccak(b"\xff" + deployer + SALT + keccak(rebalancer_init_code()))[12:])
    )


def rebalancer_code_hash() -> str:
    """Return the 0x-hex keccak256 of Rebalancer's code on a chain, as EXTCODEHASH gives it."""
    return "0x" + keccak(hexstr=own_artifact("Rebalancer").runtime_code).hex()
