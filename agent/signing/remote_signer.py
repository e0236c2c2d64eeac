"""Remote signer: a JSON-RPC service that holds the wallet's key and signs whole transactions.

`eth_signTransaction` and `eth_accounts` are methods of the Ethereum JSON-RPC API; Web3Signer and
nodes with unlocked accounts have them. What a service returns is compared with what it was
asked to sign, byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rlp
from eth_account import Account

from agent.errors import ErrorCode, PassingFault, Retryable, TrimtabError
from agent.model import SignedTx, UnsignedTx
from agent.signing.remote_key import CURVE_ORDER
from agent.signing.rules import Vrs, sign_with

RemoteCall = Callable[[str, list[Any]], object]
"""Calls a JSON-RPC method with its parameters and returns its result. Raises TrimtabError."""
_EIP1559_TYPE = 2
_EIP155_FIRST_V = 35


class RemoteSigner:
    """Implements ports.SigningKey over a JSON-RPC service that signs transactions of `address`."""

    def __init__(self, address: str, call: RemoteCall) -> None:
        self.address = address
        self._call = call

    def __repr__(self) -> str:
        return f"RemoteSigner({self.address})"

    def sign_transaction(self, tx: UnsignedTx) -> SignedTx:
        """Sign as ports.SigningKey. Raises Retryable if the service does not sign, PassingFault for
        anything but this transaction with a signature of this wallet.
        """
        answer = self._ask("eth_signTransaction", [_request(self.address, tx)])
        raw_hex = answer.get("raw") if isinstance(answer, dict) else answer
        try:
            signed_tx = _read_signed(str(raw_hex), tx)
            signer_address = str(Account.recover_transaction(signed_tx.signed_bytes))
        except Exception:  # the libraries raise many errors for bytes that are no transaction
            raise _wrong_answer(self.address, "it has other bytes") from None
        if signer_address != self.address:
            raise _wrong_answer(self.address, f"it is signed by {signer_address}")
        return signed_tx

    def accounts(self) -> list[str]:
        """Return the addresses, in lower case, that the service signs for. Raises Retryable."""
        answer = self._ask("eth_accounts", [])
        if not isinstance(answer, list):
            raise Retryable(
                "the remote signer's answer to eth_accounts is not a list",
                "check the service and its address in wallet.signer_url_env, then try again",
                code=ErrorCode.KEY_SERVICE,
            )
        return [str(account).lower() for account in answer]

    def _ask(self, method: str, parameters: list[Any]) -> object:
        try:
            return self._call(method, parameters)
        except TrimtabError as error:
            raise Retryable(
                f"the remote signer does not answer {method}: {error.message}",
                "nothing was sent; check the service, its address in wallet.signer_url_env and its"
                " permissions, then try again",
                code=ErrorCode.KEY_SERVICE,
            ) from None


def _request(address: str, tx: UnsignedTx) -> dict[str, str]:
    """Return the transaction as the parameter of eth_signTransaction."""
    request = {
        "from": address,
        "gas": hex(tx.gas),
        "value": hex(tx.value_wei),
        "data": tx.data,
        "nonce": hex(tx.nonce),
        "chainId": hex(tx.chain_id),
    }
    if tx.to:
        request["to"] = tx.to
    if tx.max_fee_wei is not None and tx.max_priority_fee_wei is not None:
        request["maxFeePerGas"] = hex(tx.max_fee_wei)
        request["maxPriorityFeePerGas"] = hex(tx.max_priority_fee_wei)
    elif tx.gas_price_wei is not None:
        request["gasPrice"] = hex(tx.gas_price_wei)
    return request


def _read_signed(raw_hex: str, tx: UnsignedTx) -> SignedTx:
    """Return the signed transaction of an answer. Raises ValueError if it is another one than `tx`."""
    raw_transaction = bytes.fromhex(raw_hex.removeprefix("0x"))
    vrs = _signature(raw_transaction, tx.chain_id)
    signed_tx = sign_with(tx, lambda _: vrs)
    if signed_tx.signed_bytes != raw_transaction:
        raise ValueError
    return signed_tx


def _signature(raw_transaction: bytes, chain_id: int) -> Vrs:
    """Return recovery bit, r and s of a signed transaction of EIP-1559 or EIP-155. Raises ValueError
    for an s in the upper half of the order, which nodes refuse (EIP-2).
    """
    is_typed = raw_transaction[0] == _EIP1559_TYPE
    fields = rlp.decode(raw_transaction[1:] if is_typed else raw_transaction)
    v, r, s = (int.from_bytes(field, "big") for field in fields[-3:])
    if 2 * s > CURVE_ORDER:
        raise ValueError
    recovery_bit = v if is_typed else v - _EIP155_FIRST_V - 2 * chain_id
    return recovery_bit, r, s


def _wrong_answer(address: str, reason: str) -> PassingFault:
    return PassingFault(
        f"the remote signer's answer is not this transaction, signed by {address} ({reason})",
        "check that the service signs with the key of this address and changes no field",
        code=ErrorCode.SIGNATURE,
    )
