"""The transaction service of a Safe on loopback, in the documented shapes of its API; it has no chain and one Safe.

safe-transaction-service 5.18 and later: POST /api/v2/safes/{address}/multisig-transactions/ proposes a call with the signature of an
owner, 201; GET /api/v2/multisig-transactions/{safe_tx_hash}/ has its fields and `confirmations`, 404 with JSON if it is unknown; POST
/api/v1/multisig-transactions/{safe_tx_hash}/confirmations/ adds a signature, 201. What it refuses is 422 with a reason. The first two
are deprecated in v1, and unknown here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from eth_account import Account
from eth_account.messages import SignableMessage
from eth_utils.address import is_checksum_address
from eth_utils.crypto import keccak

from agent.chain.lens import abi_encode
from tests.support.fakes.http_server import LoopbackHandler, listening

PREFIX = "/tx-service/local"
"""Path before that of the API, as the service of several networks has it."""
KEY = "canary-of-a-key"
DOMAIN_TYPE = keccak(text="EIP712Domain(uint256 chainId,address verifyingContract)")
SAFE_TX_TYPE = keccak(
    text="SafeTx(address to,uint256 value,bytes data,uint8 operation,uint256 safeTxGas,uint256 baseGas,uint256 gasPrice,"
    "address gasToken,address refundReceiver,uint256 nonce)"
)
SHAPE = {
    "to": str, "value": str, "data": str, "operation": int, "safeTxGas": int, "baseGas": int, "gasPrice": int, "gasToken": str,
    "refundReceiver": str, "nonce": int, "contractTransactionHash": str, "sender": str, "signature": str, "origin": str,
}  # fmt: skip
ADDRESSES = ("to", "gasToken", "refundReceiver", "sender")
Answer = tuple[int, object]


@dataclass
class FakeSafeService:
    """The service: its calls by hash, each with its confirmations. `answers` are given first, whatever is asked: status and body, JSON
    or bytes.
    """

    safe: str
    chain_id: int
    owners: tuple[str, ...]
    url: str = ""
    calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def confirm(self, call_hash: str, signature: str) -> None:
        """Add what stands for a signature, unchecked."""
        self.calls[call_hash]["confirmations"].append({"owner": self.owners[0], "signature": signature, "signatureType": "EOA"})

    def signers(self, call_hash: str) -> list[str]:
        return [confirmation["owner"] for confirmation in self.calls[call_hash]["confirmations"]]

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        self.requests.append(f"{method} {path}")
        if self.answers:
            return self.answers.pop(0)
        if method == "POST" and path == f"/v2/safes/{self.safe}/multisig-transactions/":
            return self._propose(body)
        if match := re.fullmatch(r"/v1/multisig-transactions/(0x[0-9a-f]{64})/confirmations/", path):
            if method != "POST" or match[1] not in self.calls:
                return 404, {}
            return self._add(match[1], body) if set(body) == {"signature"} else (422, {"nonFieldErrors": ["shape"]})
        match = re.fullmatch(r"/v2/multisig-transactions/(0x[0-9a-f]{64})/", path)
        if method != "GET" or match is None:
            return 404, b"<h1>Not Found</h1>"
        if match[1] not in self.calls:
            return 404, {"detail": "No MultisigTransaction matches the given query."}
        return 200, self.calls[match[1]] | {name: str(self.calls[match[1]][name]) for name in ("nonce", "safeTxGas", "baseGas", "gasPrice")}

    def _propose(self, body: dict[str, Any]) -> Answer:
        if {name: type(value) for name, value in body.items()} != SHAPE:
            return 422, {"nonFieldErrors": ["shape"]}
        if not all(is_checksum_address(body[name]) for name in ADDRESSES):
            return 422, {"nonFieldErrors": ["Address is not checksumed"]}
        call_hash = body["contractTransactionHash"]
        if call_hash != "0x" + keccak(b"\x19\x01" + self._domain() + self._struct(body)).hex():
            return 422, {"nonFieldErrors": ["Contract-transaction-hash does not match"]}
        if self._recovered(body, body["signature"]) != body["sender"]:
            return 422, {"nonFieldErrors": ["Signature does not match sender"]}
        self.calls[call_hash] = {**body, "safe": self.safe, "safeTxHash": call_hash, "confirmations": []}
        return self._add(call_hash, body)

    def _add(self, call_hash: str, body: dict[str, Any]) -> Answer:
        owner = self._recovered(self.calls[call_hash], body["signature"])
        if owner not in self.owners:
            return 422, {"signature": [f"Signer={owner} is not an owner"]}
        if owner not in self.signers(call_hash):
            confirmation = {"owner": owner, "signature": body["signature"], "signatureType": "EOA", "transactionHash": None}
            self.calls[call_hash]["confirmations"].append(confirmation)
        return 201, {}

    def _recovered(self, call: dict[str, Any], signature: str) -> str:
        message = SignableMessage(b"\x01", self._domain(), self._struct(call))
        return str(Account.recover_message(message, signature=bytes.fromhex(signature[2:])))

    def _domain(self) -> bytes:
        return keccak(abi_encode(["bytes32", "uint256", "address"], [DOMAIN_TYPE, self.chain_id, self.safe]))

    @staticmethod
    def _struct(call: dict[str, Any]) -> bytes:
        types = ["bytes32", "address", "uint256", "bytes32", *["uint256"] * 4, "address", "address", "uint256"]
        names = ("operation", "safeTxGas", "baseGas", "gasPrice", "gasToken", "refundReceiver", "nonce")
        data_hash = keccak(bytes.fromhex(call["data"][2:]))
        return keccak(abi_encode(types, [SAFE_TX_TYPE, call["to"], int(call["value"]), data_hash, *(call[name] for name in names)]))


@contextmanager
def serving(service: FakeSafeService) -> Iterator[FakeSafeService]:
    """Serve it; a request needs the key, and paths begin with PREFIX and /api."""

    class Handler(LoopbackHandler):
        def do_GET(self) -> None:
            self.serve("GET", {})

        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            self.serve("POST", json.loads(self.body()))

        def serve(self, method: str, body: dict[str, Any]) -> None:
            status: int = 401
            answer: object = {"detail": "Authentication credentials were not provided."}
            if self.headers["Authorization"] == f"Bearer {KEY}":
                status, answer = service.answer(method, self.path.removeprefix(f"{PREFIX}/api"), body)
            place = {"Location": f"{service.url}/elsewhere"} if status in (301, 308) else {}
            self.reply(status, answer if isinstance(answer, bytes) else json.dumps(answer).encode(), **place)

    with listening(Handler) as port:
        service.url = f"http://127.0.0.1:{port}{PREFIX}"
        yield service
