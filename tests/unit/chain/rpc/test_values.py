"""What a node sends becomes values, or an error that names what was asked; never a guess."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.rpc import hex_data, parse_bytes, parse_fault, parse_head, parse_quantity, parse_recipient
from agent.errors import Retryable
from agent.model import Head
from tests.support.text import raises_code

BLOCK = {"number": "0x10", "hash": "0x" + "aB" * 32, "timestamp": "0x6553f100", "baseFeePerGas": "0x3b9aca00"}


@given(st.integers(0, 2**256 - 1))
def test_a_quantity_is_read_back(value: int) -> None:
    assert parse_quantity(hex(value), "a number") == value


@pytest.mark.parametrize("value", [None, 7, "", "0x", "7", "0xzz", "-0x1", "0x" + "1" * 65, "0x 1", ["0x1"], True, "0x1\n"])
def test_what_is_no_quantity_is_an_error_that_names_it(value: Any) -> None:
    with raises_code(Retryable, "answer", "gas price"):
        parse_quantity(value, "gas price")


@given(st.binary(max_size=99))
def test_data_is_read_back(raw: bytes) -> None:
    assert parse_bytes(hex_data(raw), "data", len(raw)) == parse_bytes(hex_data(raw), "data") == raw


@pytest.mark.parametrize("value", [None, 7, "", "ab", "0xa", "0xzz", b"\1", "0x" + "11" * 31, "0x" + "11" * 33])
def test_data_of_another_length__is_an_error_that_names_it(value: Any) -> None:
    with raises_code(Retryable, "answer", "block hash"):
        parse_bytes(value, "block hash", 32)


def test_recipient__is_an_address_or_none_for_a_creation() -> None:
    assert parse_recipient("0xd8da6bf26964af9d7eed9e03e53415d37aa96045") == "0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045"
    assert parse_recipient(None) == parse_recipient("") == ""


@pytest.mark.parametrize("value", ["0x", "ab" * 20, "0x" + "ab" * 19, "0x" + "ab" * 21, "0x" + "zz" * 20, 7, [], {}, True])
def test_a_recipient_that_is_no_address_is_an_error(value: Any) -> None:
    """Found by fuzzing: checksums of such text raise errors that are not ours."""
    with raises_code(Retryable, "answer", "recipient"):
        parse_recipient(value)


def test_a_header_is_read_with_and_without_base_fee() -> None:
    legacy = {name: value for name, value in BLOCK.items() if name != "baseFeePerGas"}
    assert parse_head(BLOCK, 5) == Head(5, 16, "0x" + "ab" * 32, 0x6553F100, 10**9)
    assert parse_head(legacy, 5).base_fee_wei is None


@pytest.mark.parametrize(
    "block",
    [None, "0x1", [], {}, *({**BLOCK, name: "?"} for name in BLOCK), *({**BLOCK, name: hex(2**63)} for name in ("number", "timestamp"))],
)
def test_a_header_that_is_none_is_an_error(block: Any) -> None:
    with raises_code(Retryable, "answer"):
        parse_head(block, 5)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_any_error_object_becomes_a_harmless_fault(error: Any) -> None:
    for given_error in (error, {"code": error, "message": error, "data": error}):
        fault = parse_fault(given_error)
        assert isinstance(fault.code, int)
        assert not set(fault.message) & set('\x1b\x00\n\r[]<>{}|=`$"@')
        assert len(fault.message) <= 200
