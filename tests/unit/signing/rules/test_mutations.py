"""Mutations of the transactions of agent/signing/rules.py, thousands of each: none is signed (threat T4)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.tokens import encode_approve
from agent.errors import Refused
from agent.model import LegPlace, UnsignedTx
from agent.signing.calldata import Multicall, decode
from agent.signing.terms import TIP_CAP_WEI
from agent.units import NATIVE, UINT256_MAX
from agent.venues.calldata import encode_multicall
from tests.support.samples import examples
from tests.support.signables import cut_or_lengthened, edited_words, flipped_bits, overwritten, signs, with_bytes
from tests.support.signing import (
    ALLOWED,
    DEADLINE_S,
    MAX_FEE_WEI,
    NONCE,
    NOW_S,
    PLAN,
    ROUTER,
    STRANGER,
    SWAP,
    SWAP_GRANT,
    USDC,
    USDT,
    WALLET,
    WETH,
    plan_of,
    signer,
    tx,
)

SIGNER = signer()
is_signed = partial(signs, SIGNER)
CALLS = {name: pair for name, pair in ALLOWED.items() if name != "cancel"}
ADDRESSES = st.sampled_from([WETH, USDC, USDT, ROUTER, WALLET, STRANGER, NATIVE]) | st.binary(min_size=20, max_size=20).map(
    to_checksum_address
)
AMOUNTS = st.integers(0, UINT256_MAX) | st.sampled_from([0, 1, 10**18, UINT256_MAX])


def harmless(original: UnsignedTx, mutated: UnsignedTx) -> bool:
    """Return whether only the deadline moved, and stayed within its window: the one freedom that a swap has."""
    original_call = decode(original.data)
    mutated_call = decode(mutated.data)
    return (
        replace(mutated, data=original.data) == original
        and isinstance(original_call, Multicall)
        and isinstance(mutated_call, Multicall)
        and original_call.calls == mutated_call.calls
        and NOW_S < mutated_call.deadline_s <= NOW_S + 90
    )


@pytest.mark.parametrize("name", CALLS)
def test_no_call_with_one_flipped_bit_is_signed(name: str) -> None:
    transaction, grant = CALLS[name]
    assert is_signed(transaction, grant)
    for mutated in flipped_bits(transaction):
        assert not is_signed(mutated, grant) or harmless(transaction, mutated)


@pytest.mark.parametrize("name", CALLS)
def test_no_call_with_an_edited_word_is_signed(name: str) -> None:
    transaction, grant = CALLS[name]
    for mutated in edited_words(transaction):
        assert not is_signed(mutated, grant) or harmless(transaction, mutated)


@pytest.mark.parametrize("name", CALLS)
def test_no_cut_or_lengthened_calldata_is_signed(name: str) -> None:
    transaction, grant = CALLS[name]
    for mutated in cut_or_lengthened(transaction):
        assert not is_signed(mutated, grant)


@examples(100)
@given(
    name=st.sampled_from(sorted(CALLS)),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=40)), min_size=1, max_size=4),
)
def test_no_random_overwriting_of_calldata_is_signed(name: str, edits: list[tuple[int, bytes]]) -> None:
    transaction, grant = CALLS[name]
    mutated = overwritten(transaction, edits)
    assert mutated.data == transaction.data or not is_signed(mutated, grant) or harmless(transaction, mutated)


@examples(60)
@given(data=st.binary(max_size=600))
def test_no_random_calldata_is_signed(data: bytes) -> None:
    for transaction, grant in ALLOWED.values():
        mutated = with_bytes(transaction, data)
        assert mutated == transaction or not is_signed(mutated, grant)


@examples(100)
@given(data=st.data())
def test_no_multicall_that_differs_from_the_plan_is_signed(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(PLAN.legs) - 1))
    field, values = data.draw(
        st.sampled_from(
            [
                ("token_in", ADDRESSES),
                ("token_out", ADDRESSES),
                ("fee_pips", st.integers(0, 2**24 - 1)),
                ("amount_in_raw", AMOUNTS),
                ("min_out_raw", AMOUNTS),
                ("venue", st.sampled_from(["uniswap_v2", "uniswap_v3"])),
                ("source", st.sampled_from(LegPlace)),
                ("sink", st.sampled_from(LegPlace)),
            ]
        )
    )
    legs = list(PLAN.legs)
    legs[number] = replace(legs[number], **{field: data.draw(values)})
    wallet = data.draw(st.just(WALLET) | ADDRESSES)
    try:
        mutated = tx(ROUTER, encode_multicall(plan_of(*legs), wallet, DEADLINE_S))
    except Refused:
        return  # the encoder refuses it before the signer sees it
    assert mutated.data == SWAP.data or not is_signed(mutated, SWAP_GRANT)


@examples(60)
@given(token=ADDRESSES, spender=ADDRESSES, raw=AMOUNTS)
def test_no_approval_with_other_terms_is_signed(token: str, spender: str, raw: int) -> None:
    transaction, grant = ALLOWED["approve"]
    mutated = tx(token, encode_approve(spender, raw))
    assert mutated == transaction or not is_signed(mutated, grant)


@examples(100)
@given(name=st.sampled_from(sorted(ALLOWED)), data=st.data())
def test_no_transaction_with_a_field_outside_its_grant_is_signed(name: str, data: st.DataObject) -> None:
    transaction, grant = ALLOWED[name]
    field, values = data.draw(
        st.sampled_from(
            [
                ("nonce", st.integers(-5, 2**64).filter(lambda n: n != NONCE) | st.sampled_from([NONCE - 1, NONCE + 1])),
                ("chain_id", st.integers(0, 2**64).filter(lambda n: n != transaction.chain_id)),
                ("to", ADDRESSES.filter(lambda to: to != transaction.to)),
                ("value_wei", st.integers(1, 10**24)),
                ("gas", st.integers(grant.max_gas_wei // transaction.max_fee_wei + 1, 2**63) | st.integers(-5, 20_999)),
                ("max_fee_wei", st.integers(MAX_FEE_WEI + 1, 2**200) | st.just(MAX_FEE_WEI + 1) | st.none()),
                ("max_priority_fee_wei", st.integers(TIP_CAP_WEI + 1, 2**200) | st.just(TIP_CAP_WEI + 1) | st.none()),
                ("gas_price_wei", st.integers(0, 2**200)),
                ("data", st.sampled_from([other_name.data for key, (other_name, _) in ALLOWED.items() if key != name])),
            ]
        )
    )
    assert not is_signed(replace(transaction, **{field: data.draw(values)}), grant)


@pytest.mark.parametrize("name", ALLOWED)
def test_transaction_is_signed_on_its_own_grant_alone(name: str) -> None:
    transaction, _ = ALLOWED[name]

    assert {granted for granted, (_, grant) in ALLOWED.items() if is_signed(transaction, grant)} == {name}
