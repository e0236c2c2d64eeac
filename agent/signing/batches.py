"""Batches: several calls of a Safe as one, by a delegate call of MultiSendCallOnly.

Names and layout follow MultiSendCallOnly.sol, version 1.4.1. It makes calls only, all or none, and
drops the reason of one that fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eth_utils.address import to_checksum_address

from agent.signing.calldata import (
    MAX_CALLS,
    WORD_BYTES,
    CalldataReader,
    UndecodableCalldata,
    data_bytes,
    selector,
)

BATCH_CONTRACT = "0x9641d764fc13c8B624c04430C7356C1C7C8102e2"
"""MultiSendCallOnly 1.4.1, at this address on every chain that has it (safe-deployments)."""
BATCH_CODE_HASH = "0xecd5bd14a08c5d2122379900b2f272bdf107a7e92423c10dd5fe3254386c9939"
"""keccak256 of its code."""
MULTI_SEND = selector("multiSend(bytes)")
_MAX_BATCH_BYTES = 1 << 17
_HEADER_BYTES = 1 + 20 + WORD_BYTES + WORD_BYTES
"""Operation, recipient, value and length of data before the data of each call."""


@dataclass(frozen=True, slots=True)
class BatchedCall:
    """A plain call in a batch, without value."""

    to: str
    data: bytes

    @property
    def data_hex(self) -> str:
        """Its calldata as 0x-hex."""
        return "0x" + self.data.hex()


def is_batch(to: str, data: str) -> bool:
    """True for the one call that a Safe makes as a delegate call."""
    return to == BATCH_CONTRACT and data.startswith("0x" + MULTI_SEND.hex())


def plain_calls(to: str, data: str) -> tuple[BatchedCall, ...]:
    """Return the plain calls that a call of a Safe makes: those of a batch, or itself. Raises
    UndecodableCalldata.
    """
    return decode_batch(data) if is_batch(to, data) else (BatchedCall(to, data_bytes(data)),)


def encode_batch(calls: Sequence[BatchedCall]) -> str:
    """Return 0x-hex calldata of multiSend with these calls."""
    packed_calls = b"".join(
        bytes(1)
        + bytes.fromhex(call.to[2:])
        + bytes(WORD_BYTES)
        + len(call.data).to_bytes(WORD_BYTES, "big")
        + call.data
        for call in calls
    )
    words = WORD_BYTES.to_bytes(WORD_BYTES, "big") + len(packed_calls).to_bytes(WORD_BYTES, "big")
    padding = bytes(-len(packed_calls) % WORD_BYTES)
    return "0x" + (MULTI_SEND + words + packed_calls + padding).hex()


def decode_batch(data: str) -> tuple[BatchedCall, ...]:
    """Return the calls of 0x-hex calldata. Raises UndecodableCalldata unless it is the one encoding
    of at least one plain call without value.
    """
    batch_bytes = data_bytes(data)
    if batch_bytes[:4] != MULTI_SEND:
        raise UndecodableCalldata(f"calldata: function 0x{batch_bytes[:4].hex()} is no batch")
    words = CalldataReader(batch_bytes[4:])
    words.require_word(WORD_BYTES, "the calls")
    packed_calls = words.take_padded(words.take_length(_MAX_BATCH_BYTES, "bytes in a batch"))
    words.require_end()
    calls: list[BatchedCall] = []
    while packed_calls:
        reader = CalldataReader(packed_calls)
        if reader.take(1) != bytes(1):
            raise UndecodableCalldata("calldata: a batch may contain plain calls only")
        recipient = str(to_checksum_address(reader.take(20)))
        if reader.uint():
            raise UndecodableCalldata("calldata: a call in a batch sends native coin")
        call_bytes = reader.take(reader.take_length(1 << 16, "bytes in a call"))
        calls.append(BatchedCall(recipient, call_bytes))
        packed_calls = packed_calls[_HEADER_BYTES + len(call_bytes) :]
    if not 0 < len(calls) <= MAX_CALLS:
        raise UndecodableCalldata(f"calldata: {len(calls)} calls in a batch")
    if encode_batch(calls) != data.lower():
        raise UndecodableCalldata("calldata: another encoding of the same batch")
    return tuple(calls)
