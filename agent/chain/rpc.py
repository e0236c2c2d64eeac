"""JSON-RPC: calls, faults, strict parsing of answers; the protocol of a transport."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import rlp
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.errors import ErrorCode, Retryable
from agent.model import Head

_QUANTITY_PATTERN = re.compile(r"0x[0-9a-fA-F]{1,64}")
_UNSAFE_CHARACTER = re.compile(r"[^A-Za-z0-9 .,:;_/()'#+-]")
_URL_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://\S+")
"""The length of a scheme is bounded, so that a long word is not searched from each of its letters."""
_MAX_MESSAGE_LENGTH = 200
_MIN_SECRET_LENGTH = 6


RpcCall = tuple[str, list[Any]]
"""Method and params of one JSON-RPC call."""


@dataclass(frozen=True, slots=True)
class RpcFault:
    """JSON-RPC error of one call. `message` has safe characters only (T17); `revert_data` is revert
    data as 0x-hex or "".
    """

    code: int
    message: str
    revert_data: str = ""


class CallFailed(Retryable):
    """A node answered a call with the error `fault`."""

    def __init__(self, message: str, fault: RpcFault, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.fault = fault


Log = Mapping[str, object]
"""Log entry of a receipt."""


def require_result(endpoint_name: str, method: str, answer: object) -> object:
    """Return the answer. Raises CallFailed for a fault."""
    if isinstance(answer, RpcFault):
        raise CallFailed(f"{endpoint_name} refused {method}: {answer.message}", answer)
    return answer


def parse_quantity(answer: object, subject: str) -> int:
    """Parse a JSON-RPC quantity, a non-negative integer. Raises Retryable naming `subject`."""
    if isinstance(answer, str) and _QUANTITY_PATTERN.fullmatch(answer):
        return int(answer, 16)
    raise Retryable(f"the endpoint's answer for {subject} is not a number", code=ErrorCode.ANSWER)


def parse_bytes(answer: object, subject: str, length: int | None = None) -> bytes:
    """Parse bytes of JSON-RPC data, exactly `length` of them if given. Raises Retryable naming
    `subject`.
    """
    if isinstance(answer, str) and answer.startswith("0x"):
        with suppress(ValueError):
            parsed_bytes = bytes.fromhex(answer[2:])
            # fromhex skips spaces, which are not data
            if len(answer) == 2 + 2 * len(parsed_bytes) and length in (None, len(parsed_bytes)):
                return parsed_bytes
    expected_text = "data" if length is None else f"{length} bytes"
    raise Retryable(
        f"the endpoint's answer for {subject} is not {expected_text}", code=ErrorCode.ANSWER
    )


def parse_recipient(answer: object) -> str:
    """Parse the recipient of a transaction, checksummed; "" for a contract creation. Raises
    Retryable for other values.
    """
    if answer is None or answer == "":
        return ""
    return str(to_checksum_address(parse_bytes(answer, "a recipient", 20)))


def block_ref_at_hash(block_hash: str) -> Any:
    """Return the parameter of a call at a block by its hash, while that is canonical (EIP-1898)."""
    return {"blockHash": block_hash, "requireCanonical": True}


def hex_data(data_bytes: bytes) -> str:
    """Return bytes as 0x-hex."""
    return "0x" + data_bytes.hex()


def parse_head(block: object, chain_id: int) -> Head:
    """Parse the header of an `eth_getBlockBy…` answer. Raises Retryable if fields are missing or
    malformed.
    """
    if not isinstance(block, Mapping):
        raise Retryable("the endpoint has no such block", code=ErrorCode.ANSWER)
    base_fee = block.get("baseFeePerGas")
    return Head(
        chain_id=chain_id,
        number=_parse_int64(block.get("number"), "block number"),
        hash=hex_data(parse_bytes(block.get("hash"), "block hash", 32)),
        timestamp_s=_parse_int64(block.get("timestamp"), "block timestamp"),
        base_fee_wei=None if base_fee is None else parse_quantity(base_fee, "base fee"),
    )


HASHED_HEADER_FIELDS = (
    ("parentHash", False), ("sha3Uncles", False), ("miner", False), ("stateRoot", False), ("transactionsRoot", False),
    ("receiptsRoot", False), ("logsBloom", False), ("difficulty", True), ("number", True), ("gasLimit", True), ("gasUsed", True),
    ("timestamp", True), ("extraData", False), ("mixHash", False), ("nonce", False), ("baseFeePerGas", True),
    ("withdrawalsRoot", False), ("blobGasUsed", True), ("excessBlobGas", True), ("parentBeaconBlockRoot", False),
    ("requestsHash", False),
)  # fmt: skip
"""Fields of a block header in their order, and whether each is a number (Yellow Paper, 4.4.3;
EIP-1559, EIP-4895, EIP-4844, EIP-4788, EIP-7685).
"""
_FIRST_OPTIONAL_FIELD = 15


def header_verifies(block: object, block_number: int) -> bool:
    """Return whether an `eth_getBlockBy…` answer is the header of block `block_number`: its hash is
    that of its fields. Anyone can compute such a header, but no altered copy of one passes.
    """
    if not isinstance(block, Mapping):
        return False
    try:
        header_fields: list[int | bytes] = []
        for field_index, (field_name, is_number) in enumerate(HASHED_HEADER_FIELDS):
            if (
                field_json := block.get(field_name)
            ) is None and field_index >= _FIRST_OPTIONAL_FIELD:
                break
            header_fields.append(
                parse_quantity(field_json, field_name)
                if is_number
                else parse_bytes(field_json, field_name)
            )
        is_same_number = parse_quantity(block.get("number"), "block number") == block_number
        computed_hash = keccak(rlp.encode(header_fields))
        return is_same_number and parse_bytes(block.get("hash"), "block hash", 32) == computed_hash
    except Retryable:
        return False


def _parse_int64(answer: object, subject: str) -> int:
    """Parse a quantity that fits a signed 64-bit column of the store."""
    quantity = parse_quantity(answer, subject)
    if quantity >= 2**63:
        raise Retryable(
            f"the endpoint's answer for {subject} is out of range", code=ErrorCode.ANSWER
        )
    return quantity


def scrub(message: str, secrets: Sequence[str] = ()) -> str:
    """Return `message` without URLs and `secrets`: at most 200 characters, all of them safe."""
    for secret in sorted(
        (s for s in secrets if len(s) >= _MIN_SECRET_LENGTH), key=len, reverse=True
    ):
        message = message.replace(secret, "(secret)")
    safe_message = _UNSAFE_CHARACTER.sub("?", _URL_PATTERN.sub("(url)", message))
    return safe_message[:_MAX_MESSAGE_LENGTH]


def parse_fault(error: object, secrets: Sequence[str] = ()) -> RpcFault:
    """Parse a JSON-RPC error object, without `secrets` in its message; missing and malformed fields
    get defaults.
    """
    if not isinstance(error, Mapping):
        return RpcFault(0, scrub(str(error), secrets))
    code = error.get("code")
    error_data = error.get("data")
    if isinstance(error_data, Mapping):
        error_data = error_data.get("data")
    revert_data = (
        re.search(r"0x(?:[0-9a-fA-F]{2})*", error_data) if isinstance(error_data, str) else None
    )
    return RpcFault(
        code if isinstance(code, int) else 0,
        scrub(str(error.get("message", "no message")), secrets),
        revert_data.group(0).lower() if revert_data else "",
    )


class EndpointOverloaded(Retryable):
    """The endpoint is rate limiting or temporarily failing; `retry_after_s` is the requested pause,
    None if unspecified.
    """

    def __init__(
        self, message: str, remedy: str = "", retry_after_s: float | None = None, *, code: str = ""
    ) -> None:
        super().__init__(message, remedy, code=code)
        self.retry_after_s = retry_after_s


class Transport(Protocol):
    """Connection to one endpoint."""

    @property
    def operator(self) -> str:
        """Operator of the endpoint, as declared in the config."""

    @property
    def name(self) -> str:
        """Operator and host for messages, never the URL."""

    @property
    def request_count(self) -> int:
        """HTTP requests so far, retries included."""

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """Return the results in the order of `calls`, with an RpcFault for each refused call.

        Raises Retryable (endpoint down, slow, overloaded, malformed answers) or PassingFault (not a
        node, no access). Only batches of reads are retried.
        """

    def call(self, method: str, params: list[Any]) -> Any:
        """Return one call's result. Raises CallFailed if the node answers with an error, else as
        `batch`.
        """


def topics_of(log: Log, event_topic: str, topic_count: int) -> list[object] | None:
    """Return the topics of a log entry if it has this event signature and number of topics, else
    None.
    """
    topics = log.get("topics")
    if isinstance(topics, list) and len(topics) == topic_count and topics[0] == event_topic:
        return topics
    return None


def emitter(log: Log) -> str:
    """Return the contract that emitted a log entry."""
    return to_checksum_address(parse_bytes(log.get("address"), "log address", 20))


def address_of(topic: object) -> str:
    """Return the address in a topic."""
    return to_checksum_address(parse_bytes(topic, "log topic", 32)[12:])
