"""Signs what the table of rules allows, with a key held in this process, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from agent.chain.keys import Key
from agent.chain.rules import SigningRules, check, check_typed
from agent.errors import ConfigError
from agent.model import SignedTx, UnsignedTx
from agent.ports import Grant


class LocalSigner:
    """ports.Signer over a key in memory. The same transaction gives the same bytes (RFC 6979, by eth-account)."""

    def __init__(self, key: Key, rules: SigningRules) -> None:
        if key.address != rules.wallet:
            raise ConfigError(f"wallet.address {rules.wallet} is not the address of the key, {key.address}", "correct one of the two")
        self._key = key
        self._rules = rules

    def __repr__(self) -> str:
        return f"LocalSigner({self.address})"

    @property
    def address(self) -> str:
        """Checksummed address of the key."""
        return self._key.address

    def sign(self, tx: UnsignedTx, grant: Grant) -> SignedTx:
        """Signed bytes and their hash. Raises Refused naming the rule that says no."""
        check(tx, grant, self._rules)
        return self._key.sign(_fields(tx))

    def sign_typed(self, typed_data: Mapping[str, object], grant: Grant) -> NoReturn:
        """Always raises Refused: typed data passes the same gate, whose table for it is empty."""
        check_typed(typed_data)


def _fields(tx: UnsignedTx) -> dict[str, Any]:
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
