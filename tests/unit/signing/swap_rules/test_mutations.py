"""Thousands of mutations of each allowed rebalance: none is signed (threat T4)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise

import pytest
from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Refused
from agent.model import LegPlace, UnsignedTx
from agent.signing.calldata import UndecodableCalldata, decode
from agent.units import NATIVE, UINT256_MAX
from agent.venues.calldata import RebalancerTerms
from tests.fuzz.signer import inside
from tests.support.samples import examples
from tests.support.signables import SIGNABLES, calldata, signs, with_bytes
from tests.support.signing import (
    DEADLINE_S,
    PLANS,
    PRICES,
    REBALANCER,
    REBALANCER_RULES,
    REBALANCES,
    ROUTER,
    STRANGER,
    SWAP,
    SWAP_GRANT,
    USDC,
    USDT,
    WALLET,
    WETH,
    conditions,
    encode_program,
    plan_of,
    signer,
    tx,
)

SIGNER = signer(REBALANCER_RULES)
is_signed = partial(signs, SIGNER)
ADDRESSES = st.sampled_from([WETH, USDC, USDT, ROUTER, REBALANCER, WALLET, STRANGER, NATIVE]) | st.binary(min_size=20, max_size=20).map(
    to_checksum_address
)
AMOUNTS = st.integers(0, 2**128 - 1) | st.sampled_from([0, 1, 10**18])
NAMES = st.sampled_from(sorted(PLANS))


@pytest.mark.parametrize("name", REBALANCES)
def test_no_rebalance_with_an_edited_byte_is_signed(name: str) -> None:
    transaction, grant = REBALANCES[name]
    data = calldata(transaction)
    for position in range(4, len(data)):
        byte = data[position : position + 1]
        for other in (b"\x00", b"\xff", b"\x01", b"", byte + byte, b"\x00" + byte):
            if other != byte:
                mutated = with_bytes(transaction, data[:position] + other + data[position + 1 :])
                assert not is_signed(mutated, grant) or inside(SIGNABLES[f"rebalancer, {name}"], mutated)


@examples(100)
@given(name=NAMES, swaps=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=3))
def test_no_rebalance_with_its_parts_in_another_order_is_signed(name: str, swaps: list[tuple[int, int]]) -> None:
    """Tokens, conditions and legs are exchanged with each other: every byte is one that was granted, in another place."""
    transaction, grant = REBALANCES[name]
    data = calldata(transaction)
    length = int.from_bytes(data[36:68], "big")
    program = data[68 : 68 + length]
    tail = data[68 + length :]
    watched, count, rows = program[5:8]
    cuts = [0, 24]
    for part, number in ((20, count), (40, watched), (53, rows), (44, len(PLANS[name].legs))):
        cuts += [cuts[-1] + part * (k + 1) for k in range(number)]
    parts = [program[a:b] for a, b in pairwise(cuts)]
    assert b"".join(parts) == program
    for first, other in swaps:
        a = first % len(parts)
        b = other % len(parts)
        if len(parts[a]) == len(parts[b]):
            parts[a], parts[b] = parts[b], parts[a]
    mutated = with_bytes(transaction, data[:68] + b"".join(parts) + tail)
    assert mutated.data == transaction.data or not is_signed(mutated, grant)


@examples(100)
@given(name=NAMES, data=st.data())
def test_no_rebalance_that_differs_from_the_plan_is_signed(name: str, data: st.DataObject) -> None:
    plan = PLANS[name]
    transaction, grant = REBALANCES[name]
    number = data.draw(st.integers(0, len(plan.legs) - 1))
    field, values = data.draw(
        st.sampled_from(
            [
                ("token_in", ADDRESSES),
                ("token_out", ADDRESSES),
                ("fee_pips", st.integers(0, 2**24 - 1)),
                ("amount_in_raw", AMOUNTS),
                ("min_out_raw", AMOUNTS),
                ("venue", st.sampled_from(["uniswap_v2", "uniswap_v3", "wrapped_native"])),
                ("source", st.sampled_from(LegPlace)),
                ("sink", st.sampled_from(LegPlace)),
            ]
        )
    )
    legs = list(plan.legs)
    legs[number] = replace(legs[number], **{field: data.draw(values)})
    prices = (
        dict.fromkeys((leg.token_in for leg in legs), Fraction(1)) | dict.fromkeys((leg.token_out for leg in legs), Fraction(1)) | PRICES
    )
    try:
        encoded = encode_program(plan_of(*legs), DEADLINE_S, RebalancerTerms(prices, conditions(plan).min_value_change_raw))
    except Refused:
        return  # the encoder refuses it before the signer sees it
    mutated = replace(transaction, data=encoded)
    assert same_meaning(mutated, transaction) or not is_signed(mutated, grant)


def same_meaning(mutated: UnsignedTx, transaction: UnsignedTx) -> bool:
    """A field that plays no part was changed: the predicted input of a leg that spends what an earlier one leaves."""
    try:
        return decode(mutated.data) == decode(transaction.data)
    except UndecodableCalldata:
        return False


@examples(60)
@given(name=NAMES, data=st.data())
def test_no_rebalance_under_other_conditions_is_signed(name: str, data: st.DataObject) -> None:
    plan = PLANS[name]
    transaction, grant = REBALANCES[name]
    terms = conditions(plan)
    token = data.draw(st.sampled_from(sorted(terms.prices)))
    price = data.draw(st.fractions(min_value=0, max_value=10**9))
    floor_raw = data.draw(st.just(terms.min_value_change_raw) | st.integers(-(2**127), 2**127 - 1))
    try:
        mutated = replace(transaction, data=encode_program(plan, DEADLINE_S, RebalancerTerms({**terms.prices, token: price}, floor_raw)))
    except Refused:
        return
    assert mutated.data == transaction.data or not is_signed(mutated, grant)


@examples(100)
@given(name=NAMES, data=st.data())
def test_no_rebalance_with_a_field_outside_its_grant_is_signed(name: str, data: st.DataObject) -> None:
    transaction, grant = REBALANCES[name]
    field, values = data.draw(
        st.sampled_from(
            [
                ("chain_id", st.integers(0, 2**64).filter(lambda n: n != transaction.chain_id)),
                ("to", ADDRESSES.filter(lambda to: to != transaction.to)),
                ("value_wei", st.integers(0, UINT256_MAX).filter(lambda n: n != transaction.value_wei)),
                ("gas", st.integers(grant.max_gas_wei // transaction.max_fee_wei + 1, 2**63) | st.integers(-5, 20_999)),
                ("max_fee_wei", st.integers(grant.max_gas_wei // transaction.gas + 1, 2**200) | st.none()),
                ("max_priority_fee_wei", st.integers(transaction.max_fee_wei + 1, 2**200) | st.none()),
                ("gas_price_wei", st.integers(0, 2**200)),
                ("data", st.sampled_from([SWAP.data, "0x", *(other.data for key, (other, _) in REBALANCES.items() if key != name)])),
            ]
        )
    )
    assert not is_signed(replace(transaction, **{field: data.draw(values)}), grant)


def test_no_rebalance_is_signed_on_the_grant_of_another() -> None:
    for name, (transaction, _) in REBALANCES.items():
        for other, (_, grant) in REBALANCES.items():
            assert is_signed(transaction, grant) == (name == other)
        assert not is_signed(transaction, SWAP_GRANT)
    assert not is_signed(tx(REBALANCER, SWAP.data), SWAP_GRANT)
