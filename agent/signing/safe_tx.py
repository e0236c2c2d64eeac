"""A call of a Safe as the typed data and hash that its owners sign.

Names follow the contract: Safe.sol, `getTransactionHash`, `encodeTransactionData`, versions 1.3.0
and 1.4.1.
"""

from __future__ import annotations

from typing import Any

from eth_utils.crypto import keccak

from agent.errors import ConfigError
from agent.model import UnsignedTx
from agent.signing.batches import is_batch
from agent.units import NATIVE

CALL_OPERATION = 0
"""Operation of a plain call."""
DELEGATE_CALL_OPERATION = 1
"""Operation of a batch alone, since a delegate call runs the called code as the Safe."""
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
SIGNATURE_BYTES = 65
"""Length of an owner's signature: r and s of 32 bytes each, then v."""
TYPED_DATA_V = (27, 28)
"""v of a signature of the typed data."""
ETH_SIGN_V = (31, 32)
"""v of a signature of the hash as a message (eth_sign), raised by 4 for the contract."""
_DOMAIN_FIELDS = (("uint256", "chainId"), ("address", "verifyingContract"))


def safe_tx_fields(tx: UnsignedTx) -> dict[str, Any]:
    """Return the fields of a SafeTx equivalent to `tx`, with the Safe's nonce; its executor pays
    the gas without refund.
    """
    return {
        "to": tx.to,
        "value": tx.value_wei,
        "data": tx.data,
        "operation": DELEGATE_CALL_OPERATION if is_batch(tx.to, tx.data) else CALL_OPERATION,
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


def signature_owner(safe: str, tx: UnsignedTx, signature: bytes) -> str:
    """Return the checksummed address whose key signed the call (Safe.checkNSignatures): the typed
    data, or its hash by eth_sign. A signature of another call gives an arbitrary address. Raises
    ConfigError for bytes that are no such signature.
    """
    from eth_account import Account
    from eth_account.messages import encode_defunct, encode_typed_data

    if len(signature) != SIGNATURE_BYTES:
        raise ConfigError(
            f"signature: {len(signature)} bytes instead of {SIGNATURE_BYTES}",
            "give r, s and v as 0x and 130 hex digits",
        )
    *r_and_s, v = signature
    if v not in TYPED_DATA_V + ETH_SIGN_V:
        remedy = "sign with the key of an owner; contracts as owners are not supported"
        if v in (0, 1):
            remedy = (
                f"if the wallet signs typed data and counts v from 0, write {v + TYPED_DATA_V[0]:x} as"
                " the last two digits; contracts as owners are not supported"
            )
        raise ConfigError(
            f"signature: v is {v} instead of 27 or 28 (typed data), or 31 or 32 (eth_sign)", remedy
        )
    message = encode_typed_data(full_message=typed_data(safe, tx))
    if v in ETH_SIGN_V:
        message = encode_defunct(hexstr=safe_tx_hash(safe, tx))
        v -= ETH_SIGN_V[0] - TYPED_DATA_V[0]
    try:
        return str(Account.recover_message(message, signature=bytes((*r_and_s, v))))
    except Exception:  # each library of curves raises its own errors
        raise ConfigError(
            "signature: no key makes these bytes", "copy the whole signature again"
        ) from None
