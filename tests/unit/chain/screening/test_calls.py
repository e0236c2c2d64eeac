"""Tests of agent/chain/screening/calls.py: transfers and approvals that are tried, within balance and allowance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from agent.chain.screening.calls import SingleCall, approval_calls, single_calls
from agent.chain.screening.moves import TokenMove
from agent.model import Allowance, Snapshot
from tests.support.builders import OWNER, ROUTER, address, step_input, v2_pool
from tests.support.tokens import USDC, WETH

POOL = v2_pool(WETH, USDC, 10, 50_000)
MOVE = TokenMove(WETH.address, POOL, 1_000)


def snapshot_of(balance_raw: int = 0, allowance_by_spender: Mapping[str, int] | None = None) -> Snapshot:
    """Return a snapshot in which the wallet has so much WETH and these allowances of it, and others of USDC."""
    snapshot = step_input().snapshot
    holdings = tuple(replace(holding, raw=balance_raw) if holding.token == WETH.address else holding for holding in snapshot.holdings)
    allowances = [Allowance(WETH.address, spender, raw) for spender, raw in (allowance_by_spender or {}).items()]
    return replace(snapshot, holdings=holdings, allowances=(Allowance(USDC.address, ROUTER, 9), *allowances))


def amounts(calls: Iterable[SingleCall]) -> list[tuple[str, int]]:
    """Return role and base units of each call."""
    return [(call.role.value, int(call.rpc_call[1][0]["data"][-64:], 16)) for call in calls]


@pytest.mark.parametrize(
    ("balance_raw", "allowances", "tried"),
    [
        pytest.param(400, {ROUTER: 300}, [("payee", 1_000), ("wallet", 400), ("spender", 300)], id="within both"),
        pytest.param(400, {}, [("payee", 1_000), ("wallet", 400), ("spender", 0)], id="no allowance"),
        pytest.param(400, {address("another"): 8}, [("payee", 1_000), ("wallet", 400), ("spender", 0)], id="another's allowance"),
        pytest.param(1_000, {ROUTER: 1_000}, [("payee", 1_000), ("wallet", 1_000), ("spender", 1_000)], id="all"),
        pytest.param(5_000, {ROUTER: 9_000}, [("payee", 1_000), ("wallet", 1_000), ("spender", 1_000)], id="more than is moved"),
        pytest.param(0, {ROUTER: 9_000}, [("payee", 1_000)], id="no balance"),
    ],
)
def test_single_calls_stay_within_balance_and_allowance(balance_raw: int, allowances: dict[str, int], tried: list[tuple[str, int]]) -> None:
    move = replace(MOVE, payee=ROUTER, spender=ROUTER)

    assert amounts(single_calls(snapshot_of(balance_raw, allowances), move, "latest")) == tried


@pytest.mark.parametrize(
    ("accounts", "roles"),
    [({}, []), ({"payee": OWNER}, ["payee"]), ({"spender": ROUTER}, ["wallet", "spender"])],
    ids=["neither", "payee", "spender"],
)
def test_single_calls_are_those_of_the_move_s_accounts(accounts: dict[str, str], roles: list[str]) -> None:
    calls = single_calls(snapshot_of(400), replace(MOVE, **accounts), "latest")  # type: ignore[arg-type]  # field names

    assert [role for role, _ in amounts(calls)] == roles


@pytest.mark.parametrize(
    ("allowances", "tried"),
    [
        pytest.param({}, [], id="not read"),
        pytest.param({ROUTER: 0}, [("approval", 1_000)], id="none"),
        pytest.param({ROUTER: 1}, [("reset", 0), ("approval", 1_000)], id="one base unit"),
        pytest.param({ROUTER: 999}, [("reset", 0), ("approval", 1_000)], id="one base unit too little"),
        pytest.param({ROUTER: 1_000}, [], id="enough"),
    ],
)
def test_approvals_of_a_sale_are_those_it_needs(allowances: dict[str, int], tried: list[tuple[str, int]]) -> None:
    sales = [replace(MOVE, raw=raw, spender=ROUTER) for raw in (400, 600)]

    assert amounts(approval_calls(snapshot_of(0, allowances), sales, ROUTER, "latest")) == tried


@pytest.mark.parametrize(
    ("allowances", "tried"),
    [
        pytest.param({}, [], id="not read"),
        pytest.param({ROUTER: 0}, [], id="none"),
        pytest.param({ROUTER: 5}, [("reset", 0), ("approval", 600)], id="some left"),
        pytest.param({ROUTER: 599}, [("reset", 0), ("approval", 600)], id="one base unit too little"),
        pytest.param({ROUTER: 600}, [], id="enough for the largest"),
    ],
)
def test_approvals_before_a_purchase_are_those_of_a_later_sale(allowances: dict[str, int], tried: list[tuple[str, int]]) -> None:
    purchases = [replace(MOVE, raw=raw, payee=ROUTER) for raw in (400, 600, 500)]

    assert amounts(approval_calls(snapshot_of(0, allowances), purchases, ROUTER, "latest")) == tried
