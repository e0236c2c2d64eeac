"""Margin accounts whose markets change."""

from __future__ import annotations

from dataclasses import replace

from agent.model.futures import FuturesPolicy, FuturesTarget, MarginAccount
from tests.support.perpetuals.plans import ROUGH

LOT = 10**15
PLAIN = replace(ROUGH, stress_move_bps=0, max_utilisation_bps=10_000, slippage_bps=0)
LONGS = FuturesPolicy((FuturesTarget("ETH", 5_000), FuturesTarget("BTC", 5_000)), 20_000, 500, PLAIN)


def with_market_fields(account: MarginAccount, name: str, **changes: object) -> MarginAccount:
    """The account with another market of this name."""
    markets = tuple(replace(perp, **changes) if perp.market == name else perp for perp in account.markets)  # type: ignore[arg-type]
    return replace(account, markets=markets)
