"""An unsigned transaction as eth-account takes it, what of it is hashed, and its bytes once somebody has signed the hash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from eth_utils.crypto import keccak

from agent.model import SignedTx, UnsignedTx

Vrs = tuple[int, int, int]
"""Recovery bit (0 or 1), r and s of a signature."""


def fields_of(tx: UnsignedTx) -> dict[str, Any]:
    """The fields that eth-account signs; type 2 (EIP-1559) when there is a max fee, else legacy with EIP-155."""
    fields: dict[str, Any] = {
        "chainId": tx.chain_id,
        "nonce": tx.nonce,
        "to": tx.to,
        "value": tx.value_wei,
        "data": tx.data,
        "gas": tx.gas,
    }
    if tx.max_fee_wei is None:
        return {**fields, "gasPrice": tx.gas_price_wei}
    return {**fields, "type": 2, "maxFeePerGas": tx.max_fee_wei, "maxPriorityFeePerGas": tx.max_priority_fee_wei}


@dataclass(frozen=True, slots=True)
class _Signature:
    vrs: Vrs


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """Stands in for eth-account's key: the hash is signed by whoever `sign` reaches."""

    sign: Callable[[bytes], Vrs]

    def sign_msg_hash(self, digest: bytes) -> _Signature:
        return _Signature(self.sign(bytes(digest)))


def signed_by(tx: UnsignedTx, sign: Callable[[bytes], Vrs]) -> SignedTx:
    """The transaction with the signature that `sign` gives for its 32-byte hash (keccak256 of EIP-1559's or EIP-155's payload)."""
    from eth_account._utils.signing import sign_transaction_dict

    elsewhere = cast(Any, _Elsewhere(sign))
    raw = bytes(sign_transaction_dict(elsewhere, fields_of(tx))[3])  # type: ignore[no-untyped-call,unused-ignore]  # untyped in eth-account 0.11
    return SignedTx(raw, "0x" + bytes(keccak(raw)).hex())
