"""Collateral needs, and futures policies that name them."""

from __future__ import annotations

from dataclasses import replace

from agent.model.futures import FuturesPolicy, MarginAccount, PerpOrder, PerpOrderKind
from tests.support.builders import OWNER, token
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.steps import FUTURES_POLICY, LIMITS

USDC = token("USDC").address
VAULT = "0x" + "7" * 40
UNIT = 10**6
BUY = PerpOrder("ETH", E18, PerpOrderKind.MARKET, 2_020 * E18, is_reduce_only=False)
SELL = PerpOrder("ETH", -E18, PerpOrderKind.MARKET, 1_980 * E18, is_reduce_only=True)


def in_usdc(margin_account: MarginAccount) -> MarginAccount:
    return replace(margin_account, collateral_unit_raw=10**12)


def policy(top_up_bps: int | None = None, **limits: int) -> FuturesPolicy:
    changed = replace(LIMITS, top_up_per_day_bps=top_up_bps, **limits)
    return replace(FUTURES_POLICY, limits=changed, collateral=USDC, trader=OWNER, vault=VAULT)
