"""Signers who are not here: what is shown to the owner of a wallet, or to the owners of a Safe, after the same gate as a key's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.chain.found import executed_in, used_by
from agent.chain.panel import Panel
from agent.chain.rpc import Transport
from agent.chain.rules import Nonces, SigningRules, check
from agent.chain.safe import SafeContract, SafeSender, safe_tx, safe_tx_hash, typed_data
from agent.chain.unsigned import fields_of
from agent.chain.wire import hex_data
from agent.model import UnsignedTx
from agent.ports import Carried, ForeignSigner, Grant, Sender


@dataclass(frozen=True, slots=True)
class WalletOwner:
    """ports.ForeignSigner: somebody with the wallet's key, who signs and sends the transaction as it is proposed.

    Fees and gas are his to change: what counts is nonce, recipient, value and data.
    """

    rules: SigningRules
    nonces: Callable[[], Nonces]
    panel: Panel
    sender: Sender

    @property
    def address(self) -> str:
        """Checksummed address of the wallet."""
        return self.rules.wallet

    def require(self, tx: UnsignedTx, grant: Grant) -> None:
        """See ports.ForeignSigner."""
        check(tx, grant, self.rules, self.nonces())

    def shown(self, tx: UnsignedTx) -> Mapping[str, Any]:
        """The transaction as wallets take it, and the hash that is signed."""
        from eth_account._utils.legacy_transactions import serializable_unsigned_transaction_from_dict

        fields = {name: hex(value) if isinstance(value, int) else value for name, value in fields_of(tx).items()}
        unsigned = serializable_unsigned_transaction_from_dict(fields_of(tx))  # type: ignore[no-untyped-call,unused-ignore]  # untyped in 0.11
        return {"kind": "transaction", "from": self.address, "transaction": fields, "signing_hash": hex_data(bytes(unsigned.hash()))}

    def carried(self, tx: UnsignedTx, since_block: int) -> Carried | None:
        """See ports.ForeignSigner."""
        head = self.sender.head().number
        found = used_by(self.panel, self.address, tx.nonce, since_block, head)
        if found is None:
            return None
        same = (found.to, found.value_wei, found.data) == (tx.to, tx.value_wei, tx.data.lower())
        return Carried(found.tx_hash, found.block, same)


@dataclass(frozen=True, slots=True)
class SafeOwners:
    """ports.ForeignSigner: the owners of a Safe, who sign the hash of one call; anybody executes it then."""

    rules: SigningRules
    nonces: Callable[[], Nonces]
    panel: Panel
    sender: Sender
    safe: SafeContract

    @property
    def address(self) -> str:
        """Checksummed address of the Safe."""
        return self.rules.wallet

    def require(self, tx: UnsignedTx, grant: Grant) -> None:
        """See ports.ForeignSigner; also that the Safe itself works out the hash that is shown."""
        check(replace(tx, gas=max(tx.gas, 21_000)), grant, self.rules, self.nonces())
        self.safe.require_hash(tx)

    def shown(self, tx: UnsignedTx) -> Mapping[str, Any]:
        """The SafeTx with its hash, and the typed data that gives it."""
        fields = {name: str(value) if name in ("value", "nonce") else value for name, value in safe_tx(tx).items()}
        digest = safe_tx_hash(self.address, tx)
        signed = {**typed_data(self.address, tx), "message": fields}  # as text: wallets read numbers of JSON to 53 bits only
        return {"kind": "safe", "safe": self.address, "safe_tx": fields, "safe_tx_hash": digest, "typed_data": signed}

    def carried(self, tx: UnsignedTx, since_block: int) -> Carried | None:
        """See ports.ForeignSigner; another call at the same nonce of the Safe has no hash that would be known here."""
        found = executed_in(self.panel, self.address, safe_tx_hash(self.address, tx), since_block, self.sender.head().number)
        return None if found is None else Carried(found.tx_hash, found.block, True)


def foreign_signer(
    rules: SigningRules, nonces: Callable[[], Nonces], panel: Panel, sender: Sender, line: Transport, *, safe: bool
) -> tuple[ForeignSigner, Sender]:
    """Who signs for the wallet of `rules`, and the sender that knows its nonce. Raises ConfigError when it is no Safe as said."""
    if not safe:
        return WalletOwner(rules, nonces, panel, sender), sender
    contract = SafeContract(line, rules.wallet)
    contract.require_known()
    through = SafeSender(sender, contract)
    return SafeOwners(rules, nonces, panel, through, contract), through
