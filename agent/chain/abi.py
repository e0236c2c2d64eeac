"""Calldata of the few view functions that reading asks for, byte by byte: no ABI machinery on the hot path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BALANCE_OF = bytes.fromhex("70a08231")
ALLOWANCE = bytes.fromhex("dd62ed3e")
DECIMALS = bytes.fromhex("313ce567")
SYMBOL = bytes.fromhex("95d89b41")
LATEST_ROUND_DATA = bytes.fromhex("feaf968c")
AGGREGATOR = bytes.fromhex("245a7bfc")
MIN_ANSWER = bytes.fromhex("22adbc78")
MAX_ANSWER = bytes.fromhex("70da2f67")
DESCRIPTION = bytes.fromhex("7284e416")
GET_PAIR = bytes.fromhex("e6a43905")
GET_POOL = bytes.fromhex("1698ee82")
TOKEN0 = bytes.fromhex("0dfe1681")
TOKEN1 = bytes.fromhex("d21220a7")
FEE = bytes.fromhex("ddca3f43")
FEE_AMOUNT_TICK_SPACING = bytes.fromhex("22afcccb")
GET_RESERVES = bytes.fromhex("0902f1ac")
SLOT0 = bytes.fromhex("3850c7bd")
TICK_SPACING = bytes.fromhex("d0c93a7c")
FACTORY = bytes.fromhex("c45a0155")
FEE_TO = bytes.fromhex("017e7e58")
TOTAL_SUPPLY = bytes.fromhex("18160ddd")
K_LAST = bytes.fromhex("7464fc3d")
OWNER_OF = bytes.fromhex("6352211e")
TOKEN_OF_OWNER_BY_INDEX = bytes.fromhex("2f745c59")
MANAGER_POSITIONS = bytes.fromhex("99fbab88")
POOL_POSITIONS = bytes.fromhex("514ea4bf")
TICKS = bytes.fromhex("f30dba93")
FEE_GROWTH_GLOBAL_0 = bytes.fromhex("f3058399")
FEE_GROWTH_GLOBAL_1 = bytes.fromhex("46141319")
PRICE_0_CUMULATIVE = bytes.fromhex("5909c0d5")


def word(value: int) -> bytes:
    """An unsigned integer as one ABI word."""
    return value.to_bytes(32, "big")


def signed_word(value: int) -> bytes:
    """A signed integer as one ABI word."""
    return value.to_bytes(32, "big", signed=True)


def signed(value: int) -> int:
    """A word as the signed integer it stands for."""
    return value - (value >> 255 << 256)


def address_word(address: str) -> bytes:
    """A 0x-hex address as one ABI word."""
    return bytes.fromhex(address[2:]).rjust(32, b"\0")


def address_call(selector: bytes, *addresses: str) -> bytes:
    """Calldata of a function whose arguments are addresses."""
    return selector + b"".join(address_word(address) for address in addresses)


def allowance_call(owner: str, spender: str) -> bytes:
    """ERC-20 allowance(owner, spender)."""
    return address_call(ALLOWANCE, owner, spender)


def abi_encode(types: Sequence[str], values: Sequence[Any]) -> bytes:
    """Values as the ABI encodes them, by eth-abi, which is loaded when something is encoded: looking does without."""
    from eth_abi.abi import encode

    return encode(types, values)


def abi_decode(types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    """Values of ABI data, by eth-abi. Raises its DecodingError."""
    from eth_abi.abi import decode

    return decode(types, data)
