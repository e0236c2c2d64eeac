"""Thousands of mutations of each allowed transaction about liquidity: none is signed (threat T4)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product

import pytest
from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.tokens import encode_approve
from agent.errors import Refused
from agent.model import Provide, UnsignedTx
from agent.signing.calldata import UndecodableCalldata
from agent.signing.liquidity import CollectOwed, DecreaseAndCollect, LiquidityCall, decode
from agent.units import NATIVE, UINT256_MAX
from tests.support import signing
from tests.support.samples import examples
from tests.support.signables import cut_or_lengthened, edited_words, flipped_bits, overwritten, signs, with_bytes
from tests.support.signing import (
    ACTIONS,
    ADD,
    APPROVALS,
    CHANGES,
    INCREASE,
    LP_RULES,
    MANAGER,
    MINT,
    NOW_S,
    PAIR,
    PROVIDING_ALLOWED,
    ROUTER,
    STRANGER,
    TOKENS,
    V2_ROUTER,
    WALLET,
    WITHDRAW_V2,
    action_tx,
    signer,
    tx,
)

SIGNER = signer(LP_RULES)
is_signed = partial(signs, SIGNER)
ADDRESSES = st.sampled_from([*TOKENS, ROUTER, MANAGER, V2_ROUTER, PAIR, WALLET, STRANGER, NATIVE]) | st.binary(
    min_size=20, max_size=20
).map(to_checksum_address)
AMOUNTS = st.integers(0, UINT256_MAX) | st.sampled_from([0, 1, 10**18, 2**128 - 1, UINT256_MAX])
PAIRS = st.tuples(AMOUNTS, AMOUNTS)


def without_deadline(call: LiquidityCall) -> tuple[LiquidityCall, int]:
    """A call without its deadline, and the deadline."""
    if isinstance(call, CollectOwed):
        return call, NOW_S + 1
    if isinstance(call, DecreaseAndCollect):
        return replace(call, decrease=replace(call.decrease, deadline_s=0)), call.decrease.deadline_s
    return replace(call, deadline_s=0), call.deadline_s


def harmless(original: UnsignedTx, mutated: UnsignedTx) -> bool:
    """Only the deadline moved, and stayed within its window: the one freedom that there is."""
    try:
        (original_call, _), (mutated_call, deadline_s) = (
            without_deadline(decode(bytes.fromhex(transaction_.data[2:]))) for transaction_ in (original, mutated)
        )
    except UndecodableCalldata:
        return False
    return replace(mutated, data=original.data) == original and original_call == mutated_call and NOW_S < deadline_s <= NOW_S + 90


@pytest.mark.parametrize("name", PROVIDING_ALLOWED)
def test_no_call_with_one_flipped_bit_is_signed(name: str) -> None:
    transaction, grant = PROVIDING_ALLOWED[name]
    assert is_signed(transaction, grant)
    for mutated in flipped_bits(transaction):
        assert not is_signed(mutated, grant) or harmless(transaction, mutated)


@pytest.mark.parametrize("name", PROVIDING_ALLOWED)
def test_no_call_with_an_edited_word_is_signed(name: str) -> None:
    transaction, grant = PROVIDING_ALLOWED[name]
    for mutated in edited_words(transaction):
        assert not is_signed(mutated, grant) or harmless(transaction, mutated)


@pytest.mark.parametrize("name", PROVIDING_ALLOWED)
def test_no_cut_or_lengthened_calldata_is_signed(name: str) -> None:
    transaction, grant = PROVIDING_ALLOWED[name]
    for mutated in cut_or_lengthened(transaction):
        assert not is_signed(mutated, grant)


@examples(100)
@given(
    name=st.sampled_from(sorted(PROVIDING_ALLOWED)),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=40)), min_size=1, max_size=4),
)
def test_no_random_overwriting_of_calldata_is_signed(name: str, edits: list[tuple[int, bytes]]) -> None:
    transaction, grant = PROVIDING_ALLOWED[name]
    mutated = overwritten(transaction, edits)
    assert mutated.data == transaction.data or not is_signed(mutated, grant) or harmless(transaction, mutated)


@examples(140)
@given(data=st.data())
def test_no_call_that_differs_from_the_action_is_signed(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(ACTIONS)))
    action = ACTIONS[name]
    is_provision = isinstance(action, Provide)
    fields = {
        "token_id": st.integers(0, UINT256_MAX),
        "token0": ADDRESSES,
        "token1": ADDRESSES,
        "liquidity": st.integers(1, 2**128 - 1),
        "min_raw": PAIRS,
        "desired_raw": PAIRS,
        "fee_pips": st.integers(0, 2**24 - 1),
        "ticks": st.tuples(st.integers(-(2**23), 2**23 - 1), st.integers(-(2**23), 2**23 - 1)),
    }
    known_fields = [
        field
        for field in fields
        if hasattr(action, field) and getattr(action, field) is not None and (field, is_provision) != ("liquidity", True)
    ]
    field = data.draw(st.sampled_from(known_fields))
    changed_action = replace(action, **{field: data.draw(fields[field])})
    wallet = data.draw(st.just(WALLET) | ADDRESSES)
    try:
        mutated = action_tx(changed_action, wallet)
    except Refused:
        return  # the encoder refuses it before the signer sees it
    original, grant = CHANGES[name]
    assert mutated == original or not is_signed(mutated, grant)


@examples(100)
@given(name=st.sampled_from(sorted(APPROVALS)), token=ADDRESSES, spender=ADDRESSES, raw=AMOUNTS)
def test_no_approval_with_other_terms_is_signed(name: str, token: str, spender: str, raw: int) -> None:
    transaction, grant = APPROVALS[name]
    mutated = tx(token, encode_approve(spender, raw))
    assert mutated == transaction or not is_signed(mutated, grant)


APPROVALS_OF = {
    "mint": {(TOKENS[number], MANAGER, raw) for number in (0, 1) for raw in (0, MINT.desired_raw[number])},
    "increase": {(TOKENS[number], MANAGER, raw) for number in (0, 1) for raw in (0, INCREASE.desired_raw[number])},
    "add": {(TOKENS[number], V2_ROUTER, raw) for number in (0, 1) for raw in (0, ADD.desired_raw[number])},
    "withdraw v2": {(PAIR, V2_ROUTER, raw) for raw in (0, WITHDRAW_V2.liquidity)},
    "withdraw v3": set[tuple[str, str, int]](),
    "collect": set[tuple[str, str, int]](),
}
"""Token, spender and base units of every approval that an action may need."""


@pytest.mark.parametrize("name", ACTIONS)
def test_approval_is_signed_only_for_what_its_action_takes(name: str) -> None:
    """Even where the grant itself names the approval: a planner that was fooled lets nobody else spend."""
    amounts = {raw + by for terms in APPROVALS_OF.values() for _, _, raw in terms for by in (-1, 0, 1) if raw + by >= 0} | {UINT256_MAX}
    signed = set()
    for terms in product((*TOKENS, PAIR, STRANGER), (MANAGER, V2_ROUTER, ROUTER, PAIR, WALLET, STRANGER), amounts):
        token, spender, raw = terms
        grant = replace(APPROVALS["approve manager"][1], approval_terms=terms, layer_action=ACTIONS[name])
        if is_signed(tx(token, encode_approve(spender, raw)), grant):
            signed.add(terms)
    assert signed == APPROVALS_OF[name]


@examples(100)
@given(name=st.sampled_from(sorted(PROVIDING_ALLOWED)), data=st.data())
def test_no_transaction_with_a_field_outside_its_grant_is_signed(name: str, data: st.DataObject) -> None:
    transaction, grant = PROVIDING_ALLOWED[name]
    field, values = data.draw(
        st.sampled_from(
            [
                ("chain_id", st.integers(0, 2**64).filter(lambda n: n != transaction.chain_id)),
                ("to", ADDRESSES.filter(lambda to: to != transaction.to)),
                ("value_wei", st.integers(1, 10**24)),
                ("gas", st.integers(grant.max_gas_wei // transaction.max_fee_wei + 1, 2**63) | st.integers(-5, 20_999)),
                ("max_fee_wei", st.integers(grant.max_gas_wei // transaction.gas + 1, 2**200) | st.none()),
                ("max_priority_fee_wei", st.integers(transaction.max_fee_wei + 1, 2**200) | st.none()),
                ("gas_price_wei", st.integers(0, 2**200)),
                (
                    "data",
                    st.sampled_from(
                        [other_name.data for other_name, _ in PROVIDING_ALLOWED.values() if other_name.data != transaction.data]
                    ),
                ),
            ]
        )
    )
    assert not is_signed(replace(transaction, **{field: data.draw(values)}), grant)


ALL_ALLOWED = PROVIDING_ALLOWED | signing.ALLOWED


@pytest.mark.parametrize("name", ALL_ALLOWED)
def test_transaction_is_signed_on_its_own_grant_alone(name: str) -> None:
    transaction, _ = ALL_ALLOWED[name]

    assert {granted for granted, (_, grant) in ALL_ALLOWED.items() if is_signed(transaction, grant)} == {name}


@examples(60)
@given(data=st.binary(max_size=600))
def test_no_random_calldata_is_signed(data: bytes) -> None:
    for transaction, grant in PROVIDING_ALLOWED.values():
        mutated = with_bytes(transaction, data)
        assert mutated == transaction or not is_signed(mutated, grant)
