"""Margin accounts by market, in thousandths of a coin."""

from __future__ import annotations

from dataclasses import replace

from agent.model.futures import FuturesPolicy, FuturesTarget, MarginAccount
from tests.support.perpetuals.accounts import account, market
from tests.support.perpetuals.plans import ROUGH, with_index_of_now

LOT = 10**15
WIDE = replace(ROUGH, max_leverage_bps=60_000, max_utilisation_bps=10_000, stress_move_bps=0)
TWO = FuturesPolicy((FuturesTarget("ETH", 6_000), FuturesTarget("BTC", -4_000)), 20_000, 500, WIDE)
THREE = replace(TWO, targets=(FuturesTarget("ETH", 5_000), FuturesTarget("BTC", -3_000), FuturesTarget("SOL", -2_000)))


def wide_book(collateral: int = 10_000, **lots: int) -> MarginAccount:
    """Positions by market in thousandths of a coin: ETH at 2,000, BTC at 30,000, SOL at 100."""
    sizes = {name: size * LOT for name, size in lots.items() if size}
    return with_index_of_now(account(collateral, sizes, market("ETH"), market("BTC", 30_000), market("SOL", 100)))


def with_market(margin_account: MarginAccount, name: str, **changes: object) -> MarginAccount:
    """The account with a changed market."""
    markets = tuple(replace(perp, **changes) if perp.market == name else perp for perp in margin_account.markets)  # type: ignore[arg-type]
    return replace(margin_account, markets=markets)


def with_index_at(margin_account: MarginAccount, time_s: int) -> MarginAccount:
    return replace(margin_account, markets=tuple(replace(perp, index_s=time_s) for perp in margin_account.markets))
