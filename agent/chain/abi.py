"""Calldata of the few view functions that reading asks for, byte by byte: no ABI machinery on the hot path."""

from __future__ import annotations

from eth_utils.address import to_checksum_address

BALANCE_OF = bytes.fromhex("70a08231")
ALLOWANCE = bytes.fromhex("dd62ed3e")
DECIMALS = bytes.fromhex("313ce567")
SYMBOL = bytes.fromhex("95d89b41")
LATEST_ROUND_DATA = bytes.fromhex("feaf968c")
GET_PAIR = bytes.fromhex("e6a43905")
GET_POOL = bytes.fromhex("1698ee82")
TOKEN0 = bytes.fromhex("0dfe1681")
TOKEN1 = bytes.fromhex("d21220a7")
FEE = bytes.fromhex("ddca3f43")
FEE_AMOUNT_TICK_SPACING = bytes.fromhex("22afcccb")
GET_RESERVES = bytes.fromhex("0902f1ac")
SLOT0 = bytes.fromhex("3850c7bd")
TICK_SPACING = bytes.fromhex("d0c93a7c")


def word(value: int) -> bytes:
    """An unsigned integer as one ABI word."""
    return value.to_bytes(32, "big")


def address_word(address: str) -> bytes:
    """A 0x-hex address as one ABI word."""
    return bytes.fromhex(address[2:]).rjust(32, b"\0")


def address_call(selector: bytes, *addresses: str) -> bytes:
    """Calldata of a function whose arguments are addresses."""
    return selector + b"".join(address_word(address) for address in addresses)


def allowance_call(owner: str, spender: str) -> bytes:
    """ERC-20 allowance(owner, spender)."""
    return address_call(ALLOWANCE, owner, spender)


def address_of(value: int) -> str:
    """Checksummed address of an ABI word below 2^160."""
    return str(to_checksum_address(value.to_bytes(20, "big")))
