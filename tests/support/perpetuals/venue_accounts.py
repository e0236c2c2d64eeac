"""Accounts and open orders as Hyperliquid answers them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from agent.signing.futures import LIMIT_TAG

NOW_S = 1_790_000_000
MARKS = {"ETH": 2_000, "BTC": 30_000, "DOGE": 1}
LIMIT = "0x" + LIMIT_TAG.hex() + "11" * 12


def account_state(usd: int = 10_000, maintenance: str = "", **coins: int) -> dict[str, Any]:
    """An account of whole coins at 10x of at most 40x, whose purchases have cost their value."""
    values = {coin: abs(size) * MARKS.get(coin, 5) for coin, size in coins.items()}
    gross = sum(values.values())
    net = sum(size * MARKS.get(coin, 5) for coin, size in coins.items())
    summary = {"accountValue": str(usd), "totalRawUsd": str(usd - net), "totalNtlPos": str(gross), "totalMarginUsed": str(gross // 10)}
    return {
        "time": NOW_S * 1000,
        "marginSummary": summary,
        "crossMarginSummary": summary,
        "crossMaintenanceMarginUsed": maintenance or str(Fraction(gross * 10, 8).__floor__() / 100),
        "assetPositions": [
            {
                "position": {
                    "coin": coin,
                    "szi": str(size),
                    "positionValue": str(values[coin]),
                    "unrealizedPnl": "0",
                    "leverage": {"type": "cross", "value": 10},
                    "maxLeverage": 40,
                }
            }
            for coin, size in coins.items()
        ],
    }


def open_order(cloid: str, coin: str = "ETH", **changes: object) -> dict[str, object]:
    row: dict[str, object] = {"cloid": cloid, "coin": coin, "side": "B", "sz": "1", "origSz": "2", "limitPx": "1900", "triggerPx": "2100"}
    return row | {"timestamp": NOW_S * 1000, "reduceOnly": False} | changes
