"""Tests of agent/signing/rules.py for approvals: the granted amount to the unit, a pinned token, a pinned spender."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_abi import encode as abi_encode

from agent.chain.tokens import encode_approve
from agent.model import UnsignedTx
from agent.ports import Grant
from agent.signing.calldata import selector
from agent.units import UINT256_MAX
from tests.support.signing import (
    APPROVE,
    APPROVE_GRANT,
    CANCEL,
    RESET,
    RESET_GRANT,
    ROUTER,
    STRANGER,
    SWAP,
    USDC,
    USDT,
    assert_refused_by,
    signer,
    tx,
)

GRANTED_RAW = 500_000_000


def approve_tx(token: str, spender: str, raw: int) -> UnsignedTx:
    return tx(token, encode_approve(spender, raw))


def approval(token: str, spender: str, raw: int) -> tuple[UnsignedTx, Grant]:
    """Return an approval with the grant that names it."""
    return approve_tx(token, spender, raw), replace(APPROVE_GRANT, approval_terms=(token, spender, raw))


def call_of_usdt(signature: str, to: str) -> UnsignedTx:
    return tx(USDT, "0x" + (selector(signature) + abi_encode(["address", "uint256"], [to, 1])).hex())


@pytest.mark.parametrize(
    ("rule", "transaction"),
    [
        pytest.param("spender", approve_tx(USDT, STRANGER, GRANTED_RAW), id="a stranger"),
        pytest.param("spender", approve_tx(USDT, STRANGER, 0), id="zero for a stranger"),
        pytest.param("approval_amount", approve_tx(USDT, ROUTER, GRANTED_RAW + 1), id="one unit more"),
        pytest.param("approval_amount", approve_tx(USDT, ROUTER, GRANTED_RAW - 1), id="one unit less"),
        pytest.param("approval_amount", approve_tx(USDT, ROUTER, UINT256_MAX), id="unlimited"),
        pytest.param("approval_amount", approve_tx(USDT, ROUTER, 0), id="zero"),
        pytest.param("contract", approve_tx(USDC, ROUTER, GRANTED_RAW), id="another token"),
        pytest.param("contract", approve_tx(STRANGER, ROUTER, GRANTED_RAW), id="a stranger's token"),
        pytest.param("contract", approve_tx(ROUTER, ROUTER, GRANTED_RAW), id="the router itself"),
        pytest.param("call", tx(USDT, APPROVE.data + "00"), id="one byte more"),
        pytest.param("kind", call_of_usdt("transfer(address,uint256)", STRANGER), id="a transfer"),
        pytest.param("call", call_of_usdt("increaseAllowance(address,uint256)", ROUTER), id="an increase"),
        pytest.param("kind", SWAP, id="a swap"),
        pytest.param("kind", CANCEL, id="a cancel"),
    ],
)
def test_approval_other_than_the_granted_one_is_refused(rule: str, transaction: UnsignedTx) -> None:
    assert_refused_by(rule, transaction, APPROVE_GRANT)


@pytest.mark.parametrize(
    ("rule", "approval_and_grant"),
    [
        pytest.param("approval_amount", approval(USDT, ROUTER, UINT256_MAX), id="unlimited"),
        pytest.param("spender", approval(USDT, STRANGER, 1), id="one unit for a stranger"),
        pytest.param("contract", approval(STRANGER, ROUTER, 1), id="a token that is not pinned"),
        pytest.param("contract", approval(STRANGER, ROUTER, 0), id="a reset of a token that is not pinned"),
    ],
)
def test_approval_beyond_the_rules_is_refused_even_if_granted(rule: str, approval_and_grant: tuple[UnsignedTx, Grant]) -> None:
    assert_refused_by(rule, *approval_and_grant)


@pytest.mark.parametrize(
    "approval_and_grant",
    [
        pytest.param(approval(USDT, ROUTER, GRANTED_RAW), id="the granted amount"),
        pytest.param((RESET, RESET_GRANT), id="a reset"),
        pytest.param(approval(USDT, STRANGER, 0), id="a reset of a spender no longer pinned"),
    ],
)
def test_approval_of_the_granted_amount_or_of_zero_is_signed(approval_and_grant: tuple[UnsignedTx, Grant]) -> None:
    assert signer().sign(*approval_and_grant).signed_bytes


def test_reset_of_another_spender_than_granted_is_refused() -> None:
    assert_refused_by("spender", RESET, replace(RESET_GRANT, approval_terms=(USDT, STRANGER, 0)))
