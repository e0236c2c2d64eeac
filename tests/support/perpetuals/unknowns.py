"""Margin accounts of which something is not known."""

from __future__ import annotations

from dataclasses import replace

from agent.model.futures import FuturesTarget, MarginAccount
from tests.support.builders import NOW_S
from tests.support.perpetuals.accounts import account, market
from tests.support.perpetuals.steps import FUTURES_POLICY

STALE_S = NOW_S - 10_000
HALVES = replace(FUTURES_POLICY, targets=(FuturesTarget("ETH", 5_000), FuturesTarget("BTC", 5_000)))


def two_market_account(collateral: int, eth: int, btc: int, eth_s: int = NOW_S - 60, btc_s: int = STALE_S) -> MarginAccount:
    """ETH at 2,000 and BTC at 30,000; the index of BTC is stale unless said."""
    sizes = {name: size for name, size in (("ETH", eth), ("BTC", btc)) if size}
    margin_account = account(collateral, sizes, market("ETH"), market("BTC", 30_000))
    ages = {"ETH": eth_s, "BTC": btc_s}
    return replace(margin_account, markets=tuple(replace(perp, index_s=ages[perp.market]) for perp in margin_account.markets))
