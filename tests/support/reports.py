"""Results of simulations made up from random walks, so that reports of any length are there at once."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from agent.backtest.result import AppliedTransfer, RebalanceRecord, SimulationResult, YearGain, rebalancing_premium

START_S = 1_609_459_200
"""2021-01-01, UTC."""
HOUR_S = 3_600
DECIMALS = 6
SCALE = 10**DECIMALS
START = 10_000.0
HOSTILE = '</script><script>window.bad=1</script><img src=x onerror="window.bad=1">'
LINK = '<a href="https://evil.example/">free</a>&lt;b&gt;'


def result_of(
    symbols: Sequence[str] = ("BTC", "ETH", "USD"),
    bars: int = 500,
    *,
    every: int = 100,
    cost: float = 0.001,
    seed: int = 1,
    bar_s: int = HOUR_S,
    volatility: float = 0.01,
    flows: Sequence[tuple[int, float]] = (),
    drift: float = 0.0,
    numeraire: str = "USD",
) -> SimulationResult:
    """Equal targets, brought back every so many bars (0: never) for `cost` of what moves; the last symbol is the numeraire."""
    count = len(symbols)
    steps = np.random.default_rng(seed).normal(drift, volatility, (bars, count))
    steps[0] = 0
    steps[:, -1] = 0
    prices = 100 * np.exp(np.cumsum(steps, axis=0))
    prices[:, -1] = 1.0
    units = START / count / prices[0]
    held = units.copy()
    equity, hold, weights = np.empty(bars), np.empty(bars), np.empty((bars, count))
    done, paid, shares, came = [], 0.0, np.zeros(bars), dict(flows)
    found = []
    for bar in range(bars):
        if bar in came:
            before, hold_before = units @ prices[bar], held @ prices[bar]
            found.append(AppliedTransfer(bar, START_S + bar * bar_s, exact(came[bar]), exact(before), exact(hold_before)))
            units, held = units * (1 + came[bar] / before), held * (1 + came[bar] / hold_before)
        whole = units @ prices[bar]
        if every and bar and bar % every == 0:
            moved = np.abs(units * prices[bar] - whole / count).sum() / 2
            taken = cost * moved
            paid, shares[bar] = paid + taken, taken / whole
            whole -= taken
            units = whole / count / prices[bar]
            done.append(RebalanceRecord(bar, START_S + bar * bar_s, exact(moved), exact(taken), Fraction(0), Fraction(0), True))
        equity[bar], hold[bar] = whole, held @ prices[bar]
        weights[bar] = units * prices[bar] / whole
    targets = np.full((bars, count), 1 / count)
    times_s = START_S + bar_s * np.arange(bars)
    return SimulationResult(
        symbols=tuple(symbols),
        numeraire=numeraire,
        decimals=DECIMALS,
        times_s=times_s,
        equity=equity,
        hold=hold,
        weights=weights,
        rebalances=tuple(done),
        final_value=exact(equity[-1]),
        hold_value=exact(hold[-1]),
        start_value=exact(START),
        turnover=sum((one.turnover / exact(equity[one.bar]) for one in done), Fraction(0)),
        fees=exact(paid),
        impact=Fraction(0),
        gas=Fraction(0),
        balances=(),
        bars=bars,
        looked=len(done) + 1,
        halted=0,
        refused=(("price_impact", 2),) if done else (),
        notes=(),
        config_hash="c0" * 32,
        data_hash="da" * 32,
        seed=seed,
        versions=(("trimtab", "0.1.0"),),
        flows=tuple(found),
        prices=prices,
        targets=targets,
        bands=np.stack([targets * 0.9, targets * 1.1], axis=2),
        taxes=(YearGain(2021, exact(12.5)), YearGain(2022, exact(-3.25))),
        parameters=(("depth", "1000000"), ("seed", str(seed))),
        harvest=rebalancing_premium(prices, weights, shares, times_s),
    )


def exact(coins: float) -> Fraction:
    """Base units of whole coins."""
    return Fraction(float(coins)) * SCALE
