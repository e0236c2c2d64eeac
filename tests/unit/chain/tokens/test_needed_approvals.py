"""Tests of agent/chain/tokens.py: which approvals a plan needs, and which allowances are left over."""

from __future__ import annotations

import pytest

from agent.chain.tokens import encode_approve, needed_approvals, nonzero_allowances
from agent.errors import Refused
from agent.model import Allowance
from agent.planning.approval_gas import swap_spend
from agent.signing.calldata import Approve, decode
from tests.support.builders import snapshot
from tests.support.signing import PLAN, ROUTER, STRANGER, USDT, WETH
from tests.support.text import raises_code

SPENT_WETH = 12 * 10**17
SPENT_USDT = 500_000_000


def test_swaps_spend_what_the_wallet_gives_by_token() -> None:
    assert swap_spend(PLAN.legs) == {WETH: SPENT_WETH, USDT: SPENT_USDT}


@pytest.mark.parametrize(
    ("weth_raw", "usdt_raw", "approvals"),
    [
        pytest.param(0, 0, ((WETH, SPENT_WETH), (USDT, SPENT_USDT)), id="none yet"),
        pytest.param(SPENT_WETH, SPENT_USDT, (), id="all in place"),
        pytest.param(SPENT_WETH - 1, SPENT_USDT, ((WETH, 0), (WETH, SPENT_WETH)), id="one wei too little is reset"),
        pytest.param(SPENT_WETH, 1, ((USDT, 0), (USDT, SPENT_USDT)), id="a rest is reset"),
        pytest.param(0, 1, ((USDT, 0), (USDT, SPENT_USDT), (WETH, SPENT_WETH)), id="resets come first"),
    ],
)
def test_approvals_are_exactly_what_the_wallet_spends_per_token(
    weth_raw: int, usdt_raw: int, approvals: tuple[tuple[str, int], ...]
) -> None:
    state = snapshot(allowances=(Allowance(WETH, ROUTER, weth_raw), Allowance(USDT, ROUTER, usdt_raw)))

    assert needed_approvals(PLAN, state, ROUTER) == approvals


def test_allowance_of_another_spender_does_not_count() -> None:
    state = snapshot(allowances=(Allowance(WETH, ROUTER, 2 * 10**18), Allowance(USDT, STRANGER, 10**12)))

    with raises_code(Refused, "allowance"):
        needed_approvals(PLAN, state, ROUTER)


def test_left_over_allowances_are_all_that_are_above_zero() -> None:
    state = snapshot(allowances=(Allowance(WETH, ROUTER, 0), Allowance(USDT, STRANGER, 1)))

    assert nonzero_allowances(state) == ((USDT, STRANGER),)


def test_approval_decodes_to_itself() -> None:
    assert decode(encode_approve(ROUTER, 7)) == Approve(ROUTER, 7)
