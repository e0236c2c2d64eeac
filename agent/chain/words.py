"""Reads calldata word by word, and only in its one canonical encoding."""

from __future__ import annotations

from functools import lru_cache

from eth_utils.address import to_checksum_address

from agent.errors import Refused

WORD = 32


@lru_cache(maxsize=4_096)
def address_of(value: int) -> str:
    """Checksummed address of an ABI word below 2^160. It takes a hash, and the same few are read again and again."""
    return str(to_checksum_address(value.to_bytes(20, "big")))


class NotUnderstood(Refused):
    """Calldata that is not the canonical encoding of a known call."""


class Words:
    """Arguments read word by word; `end` proves that nothing was left over."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def uint(self, bits: int = 256) -> int:
        """The next word as an unsigned integer of `bits` bits, higher bits zero."""
        value = int.from_bytes(self.take(WORD), "big")
        if value >> bits:
            raise NotUnderstood(f"calldata: a number does not fit its {bits} bits")
        return value

    def signed(self, bits: int = 256) -> int:
        """The next word as a signed integer of `bits` bits, its sign carried through the whole word."""
        value = int.from_bytes(self.take(WORD), "big", signed=True)
        if not -(1 << bits - 1) <= value < 1 << bits - 1:
            raise NotUnderstood(f"calldata: a number does not fit its {bits} bits")
        return value

    def address(self) -> str:
        """The next word as a checksummed address."""
        return address_of(self.uint(160))

    def exactly(self, expected: int, what: str) -> None:
        """The next word, which canonical encoding fixes."""
        if self.uint() != expected:
            raise NotUnderstood(f"calldata: {what} is not where it belongs")

    def count(self, most: int, what: str) -> int:
        """The next word as a length of at most `most`."""
        value = self.uint()
        if value > most:
            raise NotUnderstood(f"calldata: {value} {what}, at most {most} are understood")
        return value

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        part = self._data[self._at : self._at + length]
        if len(part) != length:
            raise NotUnderstood("calldata: it ends too early")
        self._at += length
        return part

    def padded(self, length: int) -> bytes:
        """`length` bytes followed by zeros up to a whole word."""
        part = self.take(length)
        if any(self.take(-length % WORD)):
            raise NotUnderstood("calldata: padding is not zero")
        return part

    def end(self) -> None:
        """Raises unless everything was read."""
        if self._at != len(self._data):
            raise NotUnderstood("calldata: bytes are left over")
