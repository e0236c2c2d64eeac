"""Transfers of a margin account at Hyperliquid: which rows move collateral, and how much."""

from __future__ import annotations

from typing import Any

import pytest

from agent.errors import Retryable
from agent.venues.hyperliquid.account import parse_transfers
from tests.support.builders import OWNER

OTHER = "0x" + "22" * 20


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
    ],
)
def test_a_row_moves_its_amount_and_pays_its_fee_and_spot_rows_move_nothing(delta: dict[str, Any], moved_raw: int) -> None:
    rows = [{"time": 5, "delta": delta}, {"time": 3, "delta": {"type": "deposit", "usdc": "1"}}]
    assert parse_transfers(rows, OWNER) == (moved_raw + 1_000_000, 2, 5)


@pytest.mark.parametrize(
    "delta", [{"type": "deposit"}, {"type": "deposit", "usdc": "0.0000001"}, {"type": "withdraw", "usdc": "1", "fee": "x"}, 7]
)
def test_an_amount_that_is_none_is_no_transfer(delta: object) -> None:
    with pytest.raises(Retryable):
        parse_transfers([{"time": 5, "delta": delta}], OWNER)
