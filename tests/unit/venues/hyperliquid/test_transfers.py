"""Transfers of a margin account at Hyperliquid: which rows move collateral, and how much."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.errors import Retryable
from agent.layers.futures.policy.targets import uncertain_profit_reason
from agent.model.futures import UNREAD_ACCOUNT
from agent.venues.hyperliquid.account import parse_transfers
from tests.support.builders import OWNER
from tests.support.text import raises_code

OTHER = "0x" + "22" * 20


def sent(user: str, to: str, source: str, target: str, **changes: str) -> dict[str, Any]:
    row = {"type": "send", "user": user, "destination": to, "sourceDex": source, "destinationDex": target, "token": "USDC"}
    return row | {"amount": "25.0", "usdcValue": "25.0", "fee": "1.0", "nativeTokenFee": "0.0", "feeToken": ""} | changes


@pytest.mark.parametrize(
    ("delta", "moved_raw"),
    [
        ({"type": "deposit", "usdc": "10.5"}, 10_500_000),
        ({"type": "withdraw", "usdc": "10.5", "fee": "1.0"}, -11_500_000),
        ({"type": "accountClassTransfer", "usdc": "2", "toPerp": True}, 2_000_000),
        ({"type": "accountClassTransfer", "usdc": "2", "toPerp": False}, -2_000_000),
        ({"type": "internalTransfer", "usdc": "3", "destination": OWNER, "fee": "1.0"}, 3_000_000),
        ({"type": "internalTransfer", "usdc": "3", "destination": OTHER, "fee": "1.0"}, -4_000_000),
        ({"type": "subAccountTransfer", "usdc": "3", "destination": OTHER}, -3_000_000),
        ({"type": "spotTransfer", "token": "HYPE", "amount": "1", "fee": "0.00000012"}, 0),
        ({"type": "vaultCreate", "vault": OTHER, "usdc": "100", "fee": "100"}, -200_000_000),
        ({"type": "vaultDeposit", "vault": OTHER, "usdc": "5000.0"}, -5_000_000_000),
        ({"type": "vaultDistribution", "vault": OTHER, "usdc": "7"}, 7_000_000),
        ({"type": "vaultLeaderCommission", "user": OWNER, "usdc": "88.403549"}, 88_403_549),
        (
            {"type": "vaultWithdraw", "vault": OTHER, "user": OWNER, "requestedUsd": "5300", "commission": "70", "closingCost": "0.9",
             "basis": "5000.0", "netWithdrawnUsd": "5229.0475130001"},
            5_229_047_513,
        ),
        (sent(OWNER, OTHER, "", ""), -26_000_000),
        (sent(OTHER, OWNER, "", ""), 25_000_000),
        (sent(OWNER, OWNER, "", "spot"), -26_000_000),
        (sent(OWNER, OWNER, "spot", ""), 25_000_000),
        (sent(OWNER, OWNER, "", "xyz", fee="0.0"), -25_000_000),
        (sent(OWNER, OTHER, "spot", "spot", token="HYPE"), 0),
        (sent(OWNER, OWNER, "spot", "xyz"), 0),
        (sent(OWNER, OTHER, "", "", feeToken="HYPE"), -25_000_000),
    ],
)  # fmt: skip
def test_row__moves_its_amount_and_fee_and_spot_rows_nothing(delta: dict[str, Any], moved_raw: int) -> None:
    rows = [{"time": 5, "delta": delta}, {"time": 3, "delta": {"type": "deposit", "usdc": "1"}}]
    assert parse_transfers(rows, OWNER) == (moved_raw + 1_000_000, ())


@pytest.mark.parametrize(
    ("delta", "kind"),
    [
        ({"type": "rewardsClaim", "amount": "5"}, "rewardsClaim"),
        ({"type": "somethingNew", "usdc": "5"}, "somethingNew"),
        ({"type": "\x1b[31m"}, "without a printable name"),
        ({"type": "vaultWithdraw", "user": OTHER, "netWithdrawnUsd": "5"}, "vaultWithdraw"),
        (sent(OWNER, OTHER, "", "", token="USDH"), "send"),
        ({"type": "send", "user": OWNER, "destination": OTHER, "amount": "5", "token": "USDC"}, "send"),
    ],
)
def test_a_kind_that_is_not_known_is_named_and_moves_nothing(delta: dict[str, Any], kind: str) -> None:
    rows = [{"time": 5, "delta": delta}, {"time": 6, "delta": {"type": "deposit", "usdc": "1"}}]
    assert parse_transfers([*rows, *rows], OWNER) == (2_000_000, (kind,))


def test_unknown_kind__makes_the_account_s_profit_uncertain() -> None:
    account = replace(UNREAD_ACCOUNT, unknown_row_kinds=("rewardsClaim", "somethingNew"))
    assert "rewardsClaim, somethingNew" in uncertain_profit_reason(account)
    assert not uncertain_profit_reason(UNREAD_ACCOUNT)


@pytest.mark.parametrize(
    ("delta", "reason"),
    [
        pytest.param({"type": "deposit"}, "usdc is not a decimal", id="no amount"),
        pytest.param({"type": "deposit", "usdc": "1e-7"}, "usdc is not a decimal", id="exponent"),
        pytest.param({"type": "withdraw", "usdc": "1", "fee": "x"}, "fee is not a decimal", id="fee of a letter"),
        pytest.param({"type": "vaultWithdraw", "user": OWNER}, "netWithdrawnUsd is not a decimal", id="vault without amount"),
        pytest.param(7, "a transfer has an unexpected format", id="number"),
        pytest.param({"type": 3}, "a transfer has an unexpected format", id="type as a number"),
        pytest.param({}, "a transfer has an unexpected format", id="no type"),
    ],
)
def test_an_amount_that_is_none_is_no_transfer(delta: object, reason: str) -> None:
    with raises_code(Retryable, "answer", reason):
        parse_transfers([{"time": 5, "delta": delta}], OWNER)
