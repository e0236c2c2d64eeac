"""Holdings whose prices ended before the simulation did: how much of each, and what of the final value rests on a price that old."""

from __future__ import annotations

from datetime import UTC, datetime

from agent.backtest.result import Ended
from agent.backtest.world import World
from agent.units import Value, decimal_text, price_text, value_text

SHOWN = 2
"""Decimal places of a value in words."""


def ended(world: World, final_value: Value) -> tuple[Ended, ...]:
    """Those whose last price is too old for a step to go by at the world's bar, which is its last."""
    found = []
    for token in world.tokens:
        column, raw = world.columns.get(token.address), world.wallet.balances.get(token.address, 0)
        if column is None or token == world.money or not raw or not world.stale[world.bar, column]:
            continue
        price, value = world.prices[token.address], raw * world.prices[token.address]
        at_s = int(world.table.times_s[world.newest[world.bar, column]])
        found.append(Ended(token.label, token.decimals, raw, price, at_s, value, value / final_value if final_value > 0 else None))
    return tuple(found)


def words(one: Ended, money: str, decimals: int) -> str:
    """In a sentence."""
    day = datetime.fromtimestamp(one.time_s, UTC).strftime("%Y-%m-%d %H:%M")
    share = "" if one.share is None else f", {float(100 * one.share):.2f} % of the final value"
    return (
        f"{decimal_text(one.raw, one.decimals)} {one.symbol} have no price after {day} UTC: at that of then, "
        f"{price_text(one.price, one.decimals, decimals, 6)} {money}, they are {value_text(one.value, decimals, SHOWN)} {money}{share}"
    )
