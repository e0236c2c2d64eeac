"""Multicalls and approvals that differ from what was granted: none is signed (threat T4)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.tokens import encode_approve
from agent.errors import Refused
from agent.model import LegPlace
from agent.units import NATIVE, UINT256_MAX
from agent.venues.calldata import encode_multicall
from tests.support.samples import examples
from tests.support.signables import signs
from tests.support.signing import (
    ALLOWED,
    DEADLINE_S,
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
ADDRESSES = st.sampled_from([WETH, USDC, USDT, ROUTER, WALLET, STRANGER, NATIVE]) | st.binary(min_size=20, max_size=20).map(
    to_checksum_address
)
AMOUNTS = st.integers(0, UINT256_MAX) | st.sampled_from([0, 1, 10**18, UINT256_MAX])


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
