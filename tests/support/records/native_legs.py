"""Legs that wrap, unwrap or trade native coin."""

from __future__ import annotations

from dataclasses import replace

from agent.model import Leg, LegPlace
from agent.planning.gas import build_unwrap_leg, build_wrap_leg
from tests.support.signing import USDC, USDT, WBTC, WETH, leg, plan_of

W = LegPlace.WALLET
R = LegPlace.ROUTER
SELL = leg(WETH, USDC, 10**18, 3_000_000_000)
SELL_V2 = leg(WETH, USDT, 2 * 10**17, 590_000_000, venue="uniswap_v2")
BUY = leg(USDC, WETH, 300_000_000, 10**17, sink=R)


def by_value(swap: Leg) -> tuple[Leg, Leg]:
    return build_wrap_leg(WETH, swap.amount_in_raw, R), replace(swap, source=R)


HUB = (leg(WBTC, WETH, 800_000, 2 * 10**17, sink=R), leg(WETH, USDT, 2 * 10**17, 590_000_000, source=R))
PLANS = {
    "paid by value, then a hub": plan_of(*by_value(SELL), *by_value(SELL_V2), *HUB),
    "wrapped to the wallet": plan_of(build_wrap_leg(WETH, 4 * 10**17, W), SELL, SELL_V2),
    "refilled from the wallet": plan_of(SELL, *HUB, build_unwrap_leg(WETH, 5 * 10**16)),
    "refilled from what is bought": plan_of(
        BUY, build_unwrap_leg(WETH, BUY.amount_out_raw, R, BUY.min_out_raw), leg(USDT, USDC, 10**8, 99_000_000)
    ),
}
ONLY = plan_of(build_unwrap_leg(WETH, 5 * 10**16))
