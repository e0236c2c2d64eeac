"""Calldata changed in every small way: what a signer must refuse, whatever it was given first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from agent.errors import Refused
from agent.model import UnsignedTx
from agent.ports import Grant, Signer
from tests.support.signing import STRANGER

WORD = 32
FOREIGN = bytes(12) + bytes.fromhex(STRANGER[2:])
"""A stranger's address as a word."""


def signs(signer: Signer, transaction: UnsignedTx, grant: Grant) -> bool:
    """Whether the signer signs; anything but a refusal by name is a failure of the test."""
    try:
        signer.sign(transaction, grant)
    except Refused as refusal:
        assert refusal.verdicts and refusal.verdicts[0].guard.startswith("signer.")
        return False
    return True


def calldata(transaction: UnsignedTx) -> bytes:
    """The data of a transaction."""
    return bytes.fromhex(transaction.data[2:])


def with_bytes(transaction: UnsignedTx, data: bytes) -> UnsignedTx:
    """The same transaction with other data."""
    return replace(transaction, data="0x" + data.hex())


def flipped_bits(transaction: UnsignedTx) -> Iterator[UnsignedTx]:
    """Each bit of the data flipped alone."""
    data = calldata(transaction)
    for at in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            yield with_bytes(transaction, bytes(flipped))


def edited_words(transaction: UnsignedTx) -> Iterator[UnsignedTx]:
    """Each word of the arguments replaced by telling values, dropped, doubled, or moved on by another."""
    data = calldata(transaction)
    zero, one, two, most = bytes(WORD), (1).to_bytes(WORD, "big"), (2).to_bytes(WORD, "big"), b"\xff" * WORD
    for at in range(4, len(data), WORD):
        word = data[at : at + WORD]
        for other in (zero, one, most, two, FOREIGN, b"", word + word, zero + word):
            if other != word:
                yield with_bytes(transaction, data[:at] + other + data[at + WORD :])


def cut_or_lengthened(transaction: UnsignedTx) -> Iterator[UnsignedTx]:
    """The data cut after each byte, and with something behind it."""
    data = calldata(transaction)
    for length in range(1, len(data)):
        yield with_bytes(transaction, data[:length])
    for tail in (b"\x00", b"\x01", bytes(WORD), data):
        yield with_bytes(transaction, data + tail)


def overwritten(transaction: UnsignedTx, edits: Sequence[tuple[int, bytes]]) -> UnsignedTx:
    """The data with parts written over it, each at its place modulo the length."""
    data = bytearray(calldata(transaction))
    for anywhere, part in edits:
        at = anywhere % len(data)
        data[at : at + len(part)] = part[: len(data) - at]
    return with_bytes(transaction, bytes(data))
