"""Strict parsing of a node's answers: quantities, bytes, headers, faults; anything else is an
error, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eth_utils.address import to_checksum_address

from agent.errors import Retryable
from agent.model import Head

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
_FOREIGN = re.compile(r"[^A-Za-z0-9 .,:;_/()'#+-]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_MAX_MESSAGE = 200
_SECRET_LENGTH = 6


RpcCall = tuple[str, list[Any]]
"""Method and params of one JSON-RPC call."""


@dataclass(frozen=True, slots=True)
class RpcFault:
    """A JSON-RPC error of one call. `message` is reduced to harmless characters (T17); `data` is
    revert data as 0x-hex or "".
    """

    code: int
    message: str
    data: str = ""


class CallFailed(Retryable):
    """A node answered one call with an error; `fault` is that answer."""

    def __init__(self, message: str, fault: RpcFault, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.fault = fault


def require_result(name: str, method: str, answer: object) -> object:
    """Return the answer; raise CallFailed for a fault."""
    if isinstance(answer, RpcFault):
        raise CallFailed(f"{name} refused {method}: {answer.message}", answer)
    return answer


def parse_quantity(value: object, what: str) -> int:
    """Non-negative integer of a JSON-RPC quantity. Raises Retryable naming `what`."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise Retryable(f"the endpoint's answer for {what} is not a number")


def parse_bytes(value: object, what: str, length: int | None = None) -> bytes:
    """Parse bytes of JSON-RPC data, exactly `length` of them if given. Raises Retryable naming
    `what`.
    """
    if isinstance(value, str) and _DATA.fullmatch(value):
        raw = bytes.fromhex(value[2:])
        if length is None or len(raw) == length:
            return raw
    raise Retryable(
        f"the endpoint's answer for {what} is not {'data' if length is None else f'{length} bytes'}"
    )


def parse_recipient(value: object) -> str:
    """Parse the checksummed recipient of a transaction; "" for a contract creation. Raises
    Retryable on anything else.
    """
    return (
        ""
        if value is None or value == ""
        else str(to_checksum_address(parse_bytes(value, "a recipient", 20)))
    )


def hex_data(raw: bytes) -> str:
    """0x-hex of bytes."""
    return "0x" + raw.hex()


def parse_head(block: object, chain_id: int) -> Head:
    """Head of an `eth_getBlockBy…` answer. Raises Retryable if fields are missing or malformed."""
    if not isinstance(block, Mapping):
        raise Retryable("the endpoint has no such block")
    base_fee = block.get("baseFeePerGas")
    return Head(
        chain_id=chain_id,
        number=_moderate(parse_quantity(block.get("number"), "block number"), "block number"),
        hash=hex_data(parse_bytes(block.get("hash"), "block hash", 32)),
        timestamp_s=_moderate(
            parse_quantity(block.get("timestamp"), "block timestamp"), "block timestamp"
        ),
        base_fee_wei=None if base_fee is None else parse_quantity(base_fee, "base fee"),
    )


def _moderate(value: int, what: str) -> int:
    """A number that every store can keep. Raises Retryable for any other."""
    if value >= 2**63:
        raise Retryable(f"the endpoint's answer for {what} is beyond all sense")
    return value


def scrub(message: str, secrets: Sequence[str] = ()) -> str:
    """`message` without URLs and `secrets`, harmless characters only, cut to a line."""
    for secret in sorted((s for s in secrets if len(s) >= _SECRET_LENGTH), key=len, reverse=True):
        message = message.replace(secret, "(secret)")
    plain = _FOREIGN.sub("?", _URL.sub("(url)", message))
    return plain[:_MAX_MESSAGE]


def parse_fault(error: object) -> RpcFault:
    """RpcFault of a JSON-RPC error object, however odd."""
    if not isinstance(error, Mapping):
        return RpcFault(0, scrub(str(error)))
    code = error.get("code")
    data = error.get("data")
    if isinstance(data, Mapping):
        data = data.get("data")
    found = re.search(r"0x(?:[0-9a-fA-F]{2})*", data) if isinstance(data, str) else None
    return RpcFault(
        code if isinstance(code, int) else 0,
        scrub(str(error.get("message", "no message"))),
        found.group(0).lower() if found else "",
    )
