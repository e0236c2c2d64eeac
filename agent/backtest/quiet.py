"""Which bars need no look: those at which a whole step would surely hold, told from prices alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.backtest.wanted import LEAVE
from agent.backtest.world import World
from agent.model import Style, Threshold
from agent.policy.bands import band
from agent.reference.peg import is_dollar
from agent.units import BPS

SURE = 1e-6
"""Distance to a band's edge, as a share of the portfolio, below which the exact step decides: far above what floats lose."""


class Quiet:
    """Finds the next bar at which something may be due, for policies of bands alone; of any other it says: every bar.

    A bar is quiet only where every weight is inside its band by more than SURE: there `decide` holds, and nothing that it remembers
    changes. While a price is stale it halts; the first bar of those is looked at, all of them where it goes on without it. Prices of a bar
    are compared with the holdings of
    now, so that no later bar counts.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._fits, self._leaves = _bands_alone(world), world.settings.gone == LEAVE
        if not self._fits:
            return
        wanted, table = world.wanted, world.table
        portfolio = wanted.portfolio
        columns = {address: table.symbols.index(symbol) for address, symbol in wanted.symbols if symbol in table.symbols}
        ones, closes = np.ones(table.bars), np.take_along_axis(world.closes, world.newest, axis=0)
        unit = closes[:, columns[portfolio.numeraire.address]] if portfolio.numeraire.address in columns else ones
        tokens = [asset.token for asset in portfolio.assets]
        self._prices = np.column_stack([closes[:, columns[t.address]] if t.address in columns else ones for t in tokens]) / unit[:, None]
        trigger = wanted.policy.trigger
        edges = [band(trigger, asset.target_bps, asset.band) for asset in portfolio.assets]
        self._bands = np.array([(float(low) / BPS, float(high) / BPS) for low, high in edges])
        used = [columns[one] for one in dict.fromkeys((*(t.address for t in tokens), portfolio.numeraire.address)) if one in columns]
        self._stale: NDArray[np.bool_] = np.logical_or.reduce(world.stale[:, used], axis=1)

    def next_bar(self, after: int) -> int:
        """The first bar later than `after` that has to be looked at; the number of bars when there is none."""
        bars = self._world.table.bars
        if not self._fits or after + 1 >= bars:
            return after + 1
        start, size = after + 1, 64
        while start < bars:
            end = min(bars, start + size)
            loud = self._loud(start, end)
            if loud.any():
                return start + int(np.argmax(loud))
            start, size = end, 2 * size
        return bars

    def halted(self, start: int, end: int) -> int:
        """How many of the bars from `start` to before `end`, none of them looked at, have a price that is stale."""
        return int(self._stale[start:end].sum()) if self._fits and not self._leaves else 0

    def _loud(self, start: int, end: int) -> NDArray[np.bool_]:
        portfolio, balances = self._world.wanted.portfolio, self._world.wallet.balances
        held = np.array([balances[a.token.address] / 10.0**a.token.decimals for a in portfolio.assets])
        values = held * self._prices[start:end]
        weights = values / values.sum(axis=1, keepdims=True)
        outside = (weights <= self._bands[:, 0] + SURE) | (weights >= self._bands[:, 1] - SURE)
        stale = self._stale[start:end]
        begins = stale if self._leaves else stale & ~self._stale[start - 1 : end - 1]
        found: NDArray[np.bool_] = (outside.any(axis=1) & ~stale) | begins
        return found


def _bands_alone(world: World) -> bool:
    """Whether bands around fixed targets are all that can make this policy act, and nothing is remembered between looks."""
    wanted = world.wanted
    portfolio, limits = wanted.portfolio, wanted.limits
    plain = isinstance(wanted.policy.trigger, Threshold) and wanted.split is None and wanted.policy.only is None
    fixed = portfolio.weights is None and not portfolio.orders.terms and wanted.execution.pace.style is Style.MARKET
    whole = all(asset.reserve_raw == 0 for asset in portfolio.assets)
    moving = {address for address, symbol in wanted.symbols if symbol in world.table.symbols}
    pegged = limits.depeg_bps is not None and any(is_dollar(a.token) and a.token.address in moving for a in portfolio.assets)
    return plain and fixed and whole and not pegged and limits.native_top_up_wei is None
