"""Approvals are signed to the unit that was granted, to pinned spenders, for known tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_abi import encode as abi_encode

from agent.chain.tokens import encode_approve
from agent.model import LegPlace, UnsignedTx
from agent.signing.calldata import selector
from agent.units import UINT256_MAX
from tests.support.signing import (
    APPROVE,
    APPROVE_GRANT,
    CANCEL,
    PLAN,
    RESET,
    RESET_GRANT,
    ROUTER,
    STRANGER,
    SWAP,
    USDC,
    USDT,
    WBTC,
    WETH,
    leg,
    plan_of,
    refused,
    signer,
    tx,
)


@pytest.mark.parametrize(
    ("rule", "transaction"),
    [
        ("spender", tx(USDT, encode_approve(STRANGER, 500_000_000))),
        ("spender", tx(USDT, encode_approve(STRANGER, 0))),
        ("approval_amount", tx(USDT, encode_approve(ROUTER, 500_000_001))),
        ("approval_amount", tx(USDT, encode_approve(ROUTER, UINT256_MAX))),
        ("approval_amount", tx(USDT, encode_approve(ROUTER, 0))),
        ("contract", tx(USDC, encode_approve(ROUTER, 500_000_000))),
        ("contract", tx(STRANGER, encode_approve(ROUTER, 500_000_000))),
        ("contract", tx(ROUTER, encode_approve(ROUTER, 500_000_000))),
        ("call", tx(USDT, encode_approve(ROUTER, 500_000_000) + "00")),
        ("kind", tx(USDT, "0x" + (selector("transfer(address,uint256)") + abi_encode(["address", "uint256"], [STRANGER, 1])).hex())),
        ("call", tx(USDT, "0x" + (selector("increaseAllowance(address,uint256)") + abi_encode(["address", "uint256"], [ROUTER, 1])).hex())),
        ("kind", SWAP),
        ("kind", CANCEL),
    ],
)
def test_approval_other_than_the_granted_one_is_refused(rule: str, transaction: UnsignedTx) -> None:
    refused(transaction, APPROVE_GRANT, rule)


def test_unlimited_approval_is_refused_even_if_granted() -> None:
    grant = replace(APPROVE_GRANT, approval_terms=(USDT, ROUTER, UINT256_MAX))
    refused(tx(USDT, encode_approve(ROUTER, UINT256_MAX)), grant, "approval_amount")


def test_approval_beyond_the_plan_is_refused_even_if_granted() -> None:
    assert signer().sign(APPROVE, replace(APPROVE_GRANT, plan=PLAN)).signed_bytes
    grant = replace(APPROVE_GRANT, plan=PLAN, approval_terms=(USDT, ROUTER, 500_000_001))
    refused(tx(USDT, encode_approve(ROUTER, 500_000_001)), grant, "approval_amount")


def test_approval_of_what_a_leg_hands_on_is_refused() -> None:
    """The router spends its own balance there; an allowance for it would remain."""
    legs = (
        leg(WBTC, WETH, 800_000, 2 * 10**17, sink=LegPlace.ROUTER),
        leg(WETH, USDT, 2 * 10**17, 590_000_000, source=LegPlace.ROUTER),
    )
    grant = replace(APPROVE_GRANT, plan=plan_of(*legs), approval_terms=(WETH, ROUTER, 2 * 10**17))
    refused(tx(WETH, encode_approve(ROUTER, 2 * 10**17)), grant, "approval_amount")


def test_spender_no_longer_pinned_is_only_set_to_zero() -> None:
    grant = replace(RESET_GRANT, approval_terms=(USDT, STRANGER, 0))
    assert signer().sign(tx(USDT, encode_approve(STRANGER, 0)), grant).signed_bytes
    refused(tx(USDT, encode_approve(STRANGER, 5)), replace(grant, approval_terms=(USDT, STRANGER, 5)), "spender")
    refused(RESET, replace(RESET_GRANT, approval_terms=(USDT, STRANGER, 0)), "spender")


def test_approval_covers_every_leg_that_spends_the_token() -> None:
    spent_raw = sum(planned.amount_in_raw for planned in PLAN.legs if planned.token_in == WETH)
    grant = replace(APPROVE_GRANT, plan=PLAN, approval_terms=(WETH, ROUTER, spent_raw))
    assert signer().sign(tx(WETH, encode_approve(ROUTER, spent_raw)), grant).signed_bytes
    first_raw = PLAN.legs[0].amount_in_raw
    refused(tx(WETH, encode_approve(ROUTER, first_raw)), replace(grant, approval_terms=(WETH, ROUTER, first_raw)), "approval_amount")


def test_allowance_is_revoked_from_any_granted_spender() -> None:
    reset_grant = replace(RESET_GRANT, approval_terms=(USDT, STRANGER, 0))
    assert signer().sign(tx(USDT, encode_approve(STRANGER, 0)), reset_grant).signed_bytes
    assert signer().sign(RESET, replace(RESET_GRANT, plan=PLAN)).signed_bytes
    refused(tx(USDT, encode_approve(STRANGER, 1)), replace(RESET_GRANT, approval_terms=(USDT, STRANGER, 1)), "spender")
