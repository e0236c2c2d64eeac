"""A Safe as the wallet: what its owners sign for one call, its own nonce, and whether it has carried a call out.

Names follow the contract: Safe.sol, `getTransactionHash`, `encodeTransactionData`, versions 1.3.0 and 1.4.1.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from eth_utils.crypto import keccak

from agent.chain.abi import abi_decode, abi_encode
from agent.chain.rpc import Transport
from agent.chain.wire import hex_data, octets
from agent.errors import ConfigError, OperatorNeeded, Retryable, TrimtabError
from agent.model import Head, PastPrices, SignedTx, Snapshot, UnsignedTx
from agent.ports import Reader, Sender, Simulation, TxSeen
from agent.units import NATIVE

VERSIONS = ("1.3.0", "1.4.1")
"""Versions whose domain has a chain id, and which undo a call that fails (GS013): such a call leaves no trace."""
CALL = 0
"""Operation: a plain call. The other one, a delegate call, would run foreign code as the Safe; it is never proposed."""
_FIELDS = (
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
_DOMAIN = (("uint256", "chainId"), ("address", "verifyingContract"))


def safe_tx(tx: UnsignedTx) -> dict[str, Any]:
    """The fields of a SafeTx that does what `tx` does, with the Safe's nonce; whoever executes it pays the gas and gets nothing back."""
    return {
        "to": tx.to,
        "value": tx.value_wei,
        "data": tx.data,
        "operation": CALL,
        "safeTxGas": 0,
        "baseGas": 0,
        "gasPrice": 0,
        "gasToken": NATIVE,
        "refundReceiver": NATIVE,
        "nonce": tx.nonce,
    }


def typed_data(safe: str, tx: UnsignedTx) -> dict[str, Any]:
    """EIP-712 data of the SafeTx, as `eth_signTypedData_v4` takes it."""
    return {
        "types": {
            "EIP712Domain": [{"type": kind, "name": name} for kind, name in _DOMAIN],
            "SafeTx": [{"type": kind, "name": name} for kind, name in _FIELDS],
        },
        "primaryType": "SafeTx",
        "domain": {"chainId": tx.chain_id, "verifyingContract": safe},
        "message": safe_tx(tx),
    }


def safe_tx_hash(safe: str, tx: UnsignedTx) -> str:
    """What the owners sign: 0x-hex of Safe.getTransactionHash, worked out here."""
    from eth_account.messages import encode_typed_data

    message = encode_typed_data(full_message=typed_data(safe, tx))
    return hex_data(keccak(b"\x19" + message.version + message.header + message.body))


@dataclass(frozen=True, slots=True)
class SafeContract:
    """Reads the Safe at `address` through `line`, by the newest block that enough operators agree on unless another is named."""

    line: Transport
    address: str

    def require_known(self) -> None:
        """Raises ConfigError when there is no Safe of a known version at the address."""
        try:
            version = str(self._view("VERSION()", [], [], ["string"])[0])
        except TrimtabError:
            version = ""
        if version not in VERSIONS:
            raise ConfigError(
                f"wallet.safe: {self.address} is no Safe of version {' or '.join(VERSIONS)}",
                "correct wallet.address, or leave wallet.safe out for a wallet with a key",
            )

    def nonce(self, at: object = "latest") -> int:
        """Number of calls that the Safe has carried out: the next one's nonce."""
        return int(self._view("nonce()", [], [], ["uint256"], at)[0])

    def require_hash(self, tx: UnsignedTx) -> str:
        """The hash to sign. Raises OperatorNeeded when the Safe itself works out another."""
        ours, fields = safe_tx_hash(self.address, tx), safe_tx(tx)
        values = [octets(fields[name], name) if kind == "bytes" else fields[name] for kind, name in _FIELDS]
        signature = f"getTransactionHash({','.join(kind for kind, _ in _FIELDS)})"
        theirs = hex_data(self._view(signature, [kind for kind, _ in _FIELDS], values, ["bytes32"])[0])
        if theirs != ours:
            raise OperatorNeeded(
                f"the Safe {self.address} works out another hash for this call, {theirs} instead of {ours}", "do not sign it; report this"
            )
        return ours

    def _view(self, signature: str, kinds: list[str], values: list[Any], answers: list[str], at: object = "latest") -> tuple[Any, ...]:
        data = hex_data(keccak(text=signature)[:4] + abi_encode(kinds, values))
        raw = octets(self.line.call("eth_call", [{"to": self.address, "data": data}, at]), signature)
        try:
            return tuple(abi_decode(answers, raw))
        except Exception as error:  # eth-abi has many errors of its own
            raise Retryable(
                f"{signature} of {self.address} is answered by what no Safe says ({type(error).__name__})",
                "check wallet.address and the endpoint",
            ) from None


@dataclass(frozen=True, slots=True)
class SafeReader:
    """ports.Reader whose nonce is the Safe's own, at the snapshot's block: an account of a contract has none that counts."""

    reader: Reader
    safe: SafeContract

    def snapshot(self) -> Snapshot:
        """See ports.Reader."""
        found = self.reader.snapshot()
        nonce = self.safe.nonce({"blockHash": found.head.hash, "requireCanonical": True})
        return replace(found, nonce_latest=nonce, nonce_pending=nonce)

    def past(self, head: Head, blocks: int) -> tuple[PastPrices, ...]:
        """See ports.Reader."""
        return self.reader.past(head, blocks)

    def deeper(self, snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
        """See ports.Reader."""
        return self.reader.deeper(snapshot, pools)


@dataclass(frozen=True, slots=True)
class SafeSender:
    """ports.Sender for a Safe: its own nonce, calls simulated as from it, and gas that others pay. Sends nothing."""

    sender: Sender
    safe: SafeContract

    def simulate(self, tx: UnsignedTx, sender: str) -> Simulation:
        """See ports.Sender; whether the Safe could pay for gas is not asked, since it does not."""
        return self.sender.simulate(replace(tx, gas=0), sender)

    def send(self, signed: SignedTx) -> None:
        """Always raises: a Safe sends nothing by itself."""
        raise OperatorNeeded("a Safe sends no transactions by itself", "its owners sign what is proposed, and anybody executes it")

    def look(self, tx_hash: str) -> TxSeen:
        """See ports.Sender; the receipt says what it cost the Safe: no gas."""
        seen = self.sender.look(tx_hash)
        return seen if seen.receipt is None else replace(seen, receipt=replace(seen.receipt, effective_gas_price_wei=0))

    def nonces(self, owner: str) -> tuple[int, int]:
        """See ports.Sender; the Safe's own nonce, twice: what waits for it is in no mempool."""
        nonce = self.safe.nonce()
        return nonce, nonce

    def head(self) -> Head:
        """See ports.Sender."""
        return self.sender.head()

    def block_hash(self, number: int) -> str | None:
        """See ports.Sender."""
        return self.sender.block_hash(number)
