"""Which bars need no look: those at which a whole step would surely hold, told from prices and times alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.backtest.columns import prices_of
from agent.backtest.wanted import LEAVE
from agent.backtest.world import World
from agent.execution.outcome import Outcome, OutcomeKind
from agent.model import Cron, Every, Hold, Hybrid, Style, Threshold
from agent.policy.bands import band
from agent.reference.peg import is_dollar
from agent.units import BPS

SURE = 1e-6
"""Distance to a band's edge, as a share of the portfolio, below which the exact step decides: far above what floats lose."""
AT_ONCE = 0


class Quiet:
    """Finds the next bar at which something may be due, for policies of bands or of one schedule alone; of any other: every bar.

    Under bands a bar is quiet where every weight is inside its band by more than SURE, under a schedule while no review is due: there
    `decide` holds, and nothing that it remembers changes. While a price is stale it halts; the first bar of those is looked at, all of
    them where it goes on without it. Prices of a bar are compared with the holdings of now, so that no later bar counts.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._fits, self._leaves = _plain(world), world.settings.gone == LEAVE
        self._by_time = not isinstance(world.wanted.policy.trigger, Threshold)
        self._due_s = AT_ONCE
        if not self._fits:
            return
        portfolio, trigger = world.wanted.portfolio, world.wanted.policy.trigger
        tokens = [asset.token for asset in portfolio.assets]
        self._prices = prices_of(world.wanted, world.table, world.closes, tokens)
        edges = [band(trigger, asset.target_bps, asset.band, asset.max_bps) for asset in portfolio.assets]
        self._bands = np.array([(float(low) / BPS, float(high) / BPS) for low, high in edges])
        named = dict.fromkeys(token.address for token in (*tokens, portfolio.numeraire))
        used = [world.columns[one] for one in named if one in world.columns]
        self._stale: NDArray[np.bool_] = np.logical_or.reduce(world.stale[:, used], axis=1)

    def looked(self, outcome: Outcome | None) -> None:
        """Remembers when the schedule is due next, by the last look; at once where its review is not done."""
        if outcome is None or outcome.kind is OutcomeKind.HALT:
            return
        waits = isinstance(outcome.decision, Hold) and outcome.decision.kept_by == ""
        done = outcome.kind in (OutcomeKind.HOLD, OutcomeKind.DONE) and (outcome.decided.reviewed or waits)
        self._due_s = outcome.decided.next_s or AT_ONCE if done else AT_ONCE

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

    def waited(self, start: int, end: int) -> int:
        """At how many of those a weight is outside its band while the schedule is not due; none where there is no band."""
        if not self._fits or not isinstance(self._world.wanted.policy.trigger, Hybrid) or end <= start:
            return 0
        return int((self._outside(start, end, 0) & ~self._stale[start:end]).sum())

    def _loud(self, start: int, end: int) -> NDArray[np.bool_]:
        stale = self._stale[start:end]
        begins = stale if self._leaves else stale & ~self._stale[start - 1 : end - 1]
        due = self._world.table.times_s[start:end] >= self._due_s if self._by_time else self._outside(start, end, SURE)
        found: NDArray[np.bool_] = (due & ~stale) | begins
        return found

    def _outside(self, start: int, end: int, margin: float) -> NDArray[np.bool_]:
        """Whether any weight is beyond its band, or closer to an edge than `margin`."""
        portfolio, balances = self._world.wanted.portfolio, self._world.wallet.balances
        held = np.array([balances[a.token.address] / 10.0**a.token.decimals for a in portfolio.assets])
        values = held * self._prices[start:end]
        weights = values / values.sum(axis=1, keepdims=True)
        found: NDArray[np.bool_] = ((weights < self._bands[:, 0] + margin) | (weights > self._bands[:, 1] - margin)).any(axis=1)
        return found


def _plain(world: World) -> bool:
    """Whether bands around fixed targets, or one schedule without jitter, are all that can make this policy act, and nothing else is
    remembered between looks.
    """
    wanted = world.wanted
    portfolio, limits, trigger = wanted.portfolio, wanted.limits, wanted.policy.trigger
    known = isinstance(trigger, Threshold) or (isinstance(trigger, Every | Cron | Hybrid) and wanted.policy.jitter_bps == 0)
    if not isinstance(trigger, Threshold):
        known = known and all(asset.max_bps is None for asset in portfolio.assets)  # which any bar may exceed
    plain = known and wanted.split is None and wanted.policy.only is None
    fixed = portfolio.weights is None and not portfolio.orders.terms and wanted.execution.pace.style is Style.MARKET
    whole = all(asset.reserve_raw == 0 for asset in portfolio.assets)
    pegged = limits.depeg_bps is not None and any(is_dollar(a.token) and a.token.address in world.columns for a in portfolio.assets)
    return plain and fixed and whole and not pegged
