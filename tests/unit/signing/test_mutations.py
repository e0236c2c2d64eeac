"""Mutations of each transaction that some policy allows: a signer signs none that its policy does not (threat T4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import UnsignedTx
from tests.fuzz.signer import CEILING_WEI, TIP_WEI, allowed_calls, inside
from tests.support.samples import examples, slow
from tests.support.signables import SIGNABLES, WORD, calldata, flipped_bits, signs, with_bytes
from tests.support.signing import NONCE, ROUTER, STRANGER, USDC, WALLET, WETH, signer

FOREIGN = bytes(12) + bytes.fromhex(STRANGER[2:])
"""A stranger's address as a word."""


def edited_words(transaction: UnsignedTx) -> Iterator[UnsignedTx]:
    """Yield the transaction with each word of the arguments replaced by critical values, removed, doubled, or shifted by another word."""
    data = calldata(transaction)
    zero = bytes(WORD)
    one_word = (1).to_bytes(WORD, "big")
    two = (2).to_bytes(WORD, "big")
    most = b"\xff" * WORD
    for at in range(4, len(data), WORD):
        word = data[at : at + WORD]
        for other in (zero, one_word, most, two, FOREIGN, b"", word + word, zero + word):
            if other != word:
                yield with_bytes(transaction, data[:at] + other + data[at + WORD :])


def cut_or_lengthened(transaction: UnsignedTx) -> Iterator[UnsignedTx]:
    """Yield the transaction with its calldata cut after each byte, and with bytes appended."""
    data = calldata(transaction)
    for length in range(1, len(data)):
        yield with_bytes(transaction, data[:length])
    for tail in (b"\x00", b"\x01", bytes(WORD), bytes(44), data):
        yield with_bytes(transaction, data + tail)


def overwritten(transaction: UnsignedTx, edits: Sequence[tuple[int, bytes]]) -> UnsignedTx:
    """Return the transaction with parts written over its calldata, each at its place modulo the length."""
    data = bytearray(calldata(transaction))
    for anywhere, part in edits:
        at = anywhere % len(data)
        data[at : at + len(part)] = part[: len(data) - at]
    return with_bytes(transaction, bytes(data))


CALLS = [name for name, signable in SIGNABLES.items() if calldata(signable.tx) and not name.endswith("legacy fees")]
LONG_CALLS = {name for name in CALLS if len(calldata(SIGNABLES[name].tx)) > 600} - {"swap"}
"""Those whose bits take seconds to flip."""
ANY_NAME = st.sampled_from(sorted(SIGNABLES))
ANY_CALL = st.sampled_from(CALLS)


def is_signed_outside(name: str, mutated: UnsignedTx) -> bool:
    """Return whether the mutated transaction is signed and is not the allowed one within its windows of deadline, gas and fees."""
    signable = SIGNABLES[name]
    return signs(signer(signable.rules), mutated, signable.grant) and not inside(signable, mutated)


@pytest.mark.parametrize("name", [*(name for name in CALLS if name not in LONG_CALLS), *slow(sorted(LONG_CALLS))])
def test_no_call_with_one_flipped_bit_is_signed(name: str) -> None:
    assert [mutated.data for mutated in flipped_bits(SIGNABLES[name].tx) if is_signed_outside(name, mutated)] == []


@pytest.mark.parametrize("name", CALLS)
def test_no_call_with_an_edited_word_is_signed(name: str) -> None:
    assert [mutated.data for mutated in edited_words(SIGNABLES[name].tx) if is_signed_outside(name, mutated)] == []


@pytest.mark.parametrize("name", CALLS)
def test_no_cut_or_lengthened_calldata_is_signed(name: str) -> None:
    assert [mutated.data for mutated in cut_or_lengthened(SIGNABLES[name].tx) if is_signed_outside(name, mutated)] == []


@examples(300)
@given(name=ANY_CALL, edits=st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=40)), min_size=1, max_size=4))
def test_no_random_overwriting_of_calldata_is_signed(name: str, edits: list[tuple[int, bytes]]) -> None:
    assert not is_signed_outside(name, overwritten(SIGNABLES[name].tx, edits))


@examples(60)
@given(data=st.binary(max_size=600))
def test_no_random_arguments_are_signed(data: bytes) -> None:
    for name, signable in SIGNABLES.items():
        start = calldata(signable.tx)[: 4 + len(data) % 64]
        assert not is_signed_outside(name, with_bytes(signable.tx, start + data))


@examples(300)
@given(name=ANY_NAME, data=st.data())
def test_no_transaction_with_a_field_outside_its_grant_is_signed(name: str, data: st.DataObject) -> None:
    transaction = SIGNABLES[name].tx
    price = transaction.max_fee_wei or transaction.gas_price_wei
    assert price is not None
    most_gas = SIGNABLES[name].grant.max_gas_wei // price
    field, values = data.draw(
        st.sampled_from(
            [
                ("nonce", st.integers(-5, 2**64) | st.sampled_from([NONCE - 1, NONCE + 1])),
                ("chain_id", st.integers(0, 2**64)),
                ("to", st.sampled_from([WETH, USDC, ROUTER, WALLET, STRANGER])),
                ("value_wei", st.integers(0, 10**24) | st.sampled_from([transaction.value_wei - 1, transaction.value_wei + 1])),
                ("gas", st.integers(-5, 2**63) | st.sampled_from([20_999, most_gas, most_gas + 1])),
                ("max_fee_wei", st.integers(0, 2**200) | st.sampled_from([CEILING_WEI, CEILING_WEI + 1, None])),
                ("max_priority_fee_wei", st.integers(0, 2**200) | st.sampled_from([TIP_WEI, TIP_WEI + 1, None])),
                ("gas_price_wei", st.integers(0, 2**200) | st.sampled_from([CEILING_WEI, CEILING_WEI + 1, None])),
                ("data", st.sampled_from([signable.tx.data for signable in SIGNABLES.values()])),
            ]
        )
    )
    assert not is_signed_outside(name, replace(transaction, **{field: data.draw(values)}))


@pytest.mark.parametrize("name", SIGNABLES)
def test_transaction_is_signed_on_its_own_grant_alone(name: str) -> None:
    signable = SIGNABLES[name]
    signed = {other_name for other_name, other in SIGNABLES.items() if signs(signer(other.rules), signable.tx, other.grant)}
    assert signed == {other_name for other_name, other in SIGNABLES.items() if signable in allowed_calls(other)}
