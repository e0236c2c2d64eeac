"""A call of a Safe as the typed data and hash that its owners sign.

Names follow the contract: Safe.sol, `getTransactionHash`, `encodeTransactionData`, versions 1.3.0
and 1.4.1.
"""

from __future__ import annotations

from typing import Any

from eth_utils.crypto import keccak

from agent.model import UnsignedTx
from agent.units import NATIVE

CALL_OPERATION = 0
"""Operation of a plain call. Delegate calls, which run arbitrary code as the Safe, are never
proposed.
"""
SAFE_TX_FIELDS = (
    ("address", "to"),
    ("uint256", "value"),
    ("bytes", "data"),
    ("uint8", "operation"),
    ("uint256", "safeTxGas"),
    ("uint256", "baseGas"),
    ("uint256", "gasPrice"),
    ("address", "gasToken"),
    ("address", "refundReceiver"),
    ("uint256", "nonce"),
)
_DOMAIN_FIELDS = (("uint256", "chainId"), ("address", "verifyingContract"))


def safe_tx_fields(tx: UnsignedTx) -> dict[str, Any]:
    """Return the fields of a SafeTx equivalent to `tx`, with the Safe's nonce; its executor pays
    the gas without refund.
    """
    return {
        "to": tx.to,
        "value": tx.value_wei,
        "data": tx.data,
        "operation": CALL_OPERATION,
        "safeTxGas": 0,
        "baseGas": 0,
        "gasPrice": 0,
        "gasToken": NATIVE,
        "refundReceiver": NATIVE,
        "nonce": tx.nonce,
    }


def typed_data(safe: str, tx: UnsignedTx) -> dict[str, Any]:
    """Return the EIP-712 data of the SafeTx for `eth_signTypedData_v4`."""
    return {
        "types": {
            "EIP712Domain": [
                {"type": abi_type, "name": field_name} for abi_type, field_name in _DOMAIN_FIELDS
            ],
            "SafeTx": [
                {"type": abi_type, "name": field_name} for abi_type, field_name in SAFE_TX_FIELDS
            ],
        },
        "primaryType": "SafeTx",
        "domain": {"chainId": tx.chain_id, "verifyingContract": safe},
        "message": safe_tx_fields(tx),
    }


def safe_tx_hash(safe: str, tx: UnsignedTx) -> str:
    """Return the hash that the owners sign: 0x-hex of Safe.getTransactionHash, computed here."""
    from eth_account.messages import encode_typed_data

    signable_message = encode_typed_data(full_message=typed_data(safe, tx))
    return (
        "0x"
        + keccak(
            b"\x19" + signable_message.version + signable_message.header + signable_message.body
        ).hex()
    )
