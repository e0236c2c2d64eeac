"""The signer's rule for deployments: exactly the granted creation code, by the CREATE2 deployer."""

from __future__ import annotations

from eth_utils.crypto import keccak

from agent.model import UnsignedTx
from agent.ports import Grant
from agent.signing.terms import SigningRules, refuse

CREATE2_DEPLOYER = "0x4e59b44847b379578588920cA78FbF26c0B4956C"
"""Arachnid's deterministic-deployment-proxy: its calldata is a salt, then creation code."""
SALT = bytes(32)


def judge_deployment(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """Raise Refused, with the failed rule, unless this creation code may be deployed."""
    if grant.init_code_hash is None:
        refuse("deployment", "a deployment", "none: the grant names no creation code")
    if tx.to != CREATE2_DEPLOYER:
        refuse("contract", tx.to, f"the CREATE2 deployer {CREATE2_DEPLOYER}")
    salt = data[: len(SALT)]
    init_code_hash = "0x" + keccak(data[len(SALT) :]).hex()
    if salt != SALT:
        refuse("salt", "0x" + salt.hex(), "0x" + SALT.hex())
    for allowed_hash in (grant.init_code_hash, rules.init_code_hash):
        if init_code_hash != allowed_hash:
            refuse("init_code_hash", init_code_hash, f"exactly {allowed_hash}")


def encode_deployment(init_code: bytes) -> str:
    """Return 0x-hex calldata of CREATE2_DEPLOYER that deploys this creation code."""
    return "0x" + (SALT + init_code).hex()
