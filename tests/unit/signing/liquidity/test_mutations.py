"""Calls and approvals of liquidity that differ from the granted action: none is signed (threat T4)."""

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
from agent.model import Provide
from agent.units import NATIVE, UINT256_MAX
from tests.support.samples import examples
from tests.support.signables import signs
from tests.support.signing import (
    ACTIONS,
    ADD,
    APPROVALS,
    CHANGES,
    INCREASE,
    LP_RULES,
    MANAGER,
    MINT,
    PAIR,
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
