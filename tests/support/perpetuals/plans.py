"""Margin accounts of ETH and BTC, and what they are after a plan."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

from agent.margin import account as margin
from agent.model.futures import FuturesLimits, FuturesPlan, FuturesPolicy, FuturesTarget, MarginAccount
from tests.support.perpetuals.accounts import E18, LIMITS, account, market

PLAN_S = 1_000
ROUGH = replace(LIMITS, stress_move_bps=1_000, slippage_bps=100)
HALVES = (FuturesTarget("ETH", 5_000), FuturesTarget("BTC", -5_000))
POLICY = FuturesPolicy(HALVES, 20_000, 500, ROUGH)
PLAIN = replace(ROUGH, stress_move_bps=0, max_utilisation_bps=10_000, slippage_bps=0)
LONGS = FuturesPolicy((FuturesTarget("ETH", 5_000), FuturesTarget("BTC", 5_000)), 20_000, 500, PLAIN)
RICH = Fraction(10**7 * E18)


LIMIT_NAMES = {field.name for field in fields(FuturesLimits)}


def policy_of(*weights_bps: int, **changes: Any) -> FuturesPolicy:
    """Return 2x and a band of 5 points with these weights of ETH and BTC, half each by default, and other limits or fields."""
    targets = tuple(FuturesTarget(name, bps) for name, bps in zip(("ETH", "BTC"), weights_bps, strict=False)) or LONGS.targets
    limits = replace(PLAIN, **{name: value for name, value in changes.items() if name in LIMIT_NAMES})
    policy_fields = {name: value for name, value in changes.items() if name not in LIMIT_NAMES}
    return replace(LONGS, **{"targets": targets, "limits": limits} | policy_fields)


def with_index_of_now(margin_account: MarginAccount) -> MarginAccount:
    """The same account with an index of now."""
    return replace(margin_account, markets=tuple(replace(perp, index_s=PLAN_S) for perp in margin_account.markets))


def pair_book(collateral: int, eth: int = 0, btc: int = 0) -> MarginAccount:
    return with_index_of_now(
        account(collateral, {"ETH": eth, "BTC": btc} if btc else {"ETH": eth} if eth else {}, market("ETH"), market("BTC", 30_000))
    )


def account_after_fills(margin_account: MarginAccount, plan: FuturesPlan) -> MarginAccount:
    """The account after every order was filled at the mark, fee included; a fill beyond its bound does not happen."""
    if plan.top_up_raw:
        margin_account = replace(
            margin_account, collateral_raw=margin_account.collateral_raw + plan.top_up_raw * margin_account.collateral_unit_raw
        )
    for order in plan.orders:
        value = margin.position_value_raw(margin_account.market(order.market), order.size_raw)
        fee = -(-abs(value) * margin_account.market(order.market).fee_ppm // margin.PPM)
        quote = -value - fee
        if (order.size_raw > 0 and -quote <= order.bound_raw) or (order.size_raw < 0 and quote >= order.bound_raw):
            margin_account = margin.with_trade(margin_account, order.market, order.size_raw, quote)
    return margin_account
