"""Puts the holdings of a finished simulation beside funding rates: the carry of each symbol, and what is missing, in words."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import partial

import numpy as np
from numpy.typing import NDArray

from agent.backtest.funding import Funding, FundingSeries, carry, digest, told, within
from agent.backtest.world import World
from agent.units import Token, Value


def funded(world: World, series: Sequence[FundingSeries]) -> tuple[Funding, tuple[str, ...]]:
    """The carry of each series, in its order, and notes; what the simulation's portfolio lacks counts zero."""
    tokens, bars_s = {token.symbol: token for token in world.tokens}, world.table.times_s
    told_from = np.array([one.bar for one in world.told])
    carries, notes = [], []
    for one in series:
        token = tokens.get(one.symbol)
        carries.append(carry(one, bars_s, partial(_held, world, token, told_from)))
        notes += told(one, bars_s)
        if token is None:
            notes.append(f"funding: {one.symbol} is not held, its rates count zero")
        elif (stood := _stood(world, one)) > 0:
            notes.append(f"funding: at {stood} times {one.symbol} had no price, the last one stood in")
    with_rates = {one.symbol for one in series} | {world.money.symbol}
    without = [asset.token.symbol for asset in world.wanted.portfolio.assets if asset.token.symbol not in with_rates]
    if without:
        notes.append(f"funding: no rates of {', '.join(without)}, what a short of it would have got is not known")
    return Funding(tuple(carries), digest(series)), tuple(notes)


def _held(world: World, token: Token | None, told_from: NDArray[np.int64], bar: int) -> Value:
    """What was held of it after that bar, at the bar's price."""
    if token is None:
        return Fraction(0)
    newest = int(np.searchsorted(told_from, bar, side="right")) - 1
    return world.told[newest].balances.get(token.address, 0) * world.price(token, bar)


def _stood(world: World, series: FundingSeries) -> int:
    """At how many times of the series an older price stood in."""
    if series.symbol not in world.table.symbols:
        return 0
    bars = np.searchsorted(world.table.times_s, series.times_s[within(series, world.table.times_s)], side="right") - 1
    return int(np.isnan(world.table.closes[bars, world.table.symbols.index(series.symbol)]).sum())
