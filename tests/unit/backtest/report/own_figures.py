"""Figures of a back-test by plain loops over its journal, prices and transfers: none of the agent's code, of NumPy or of empyrical."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import covariance, fmean, stdev

DAYS_A_YEAR = 365


@dataclass(frozen=True, slots=True)
class JournalLine:
    """What one entry of the journal changed in the wallet, in coins by symbol, at the bar of its time."""

    bar: int
    is_trade: bool
    coins: Mapping[str, float]
    fees: float


@dataclass(frozen=True, slots=True)
class History:
    """Prices in the unit by symbol, the unit among them at one; targets as shares; transfers by bar in their order."""

    prices: Mapping[str, Sequence[float]]
    unit: str
    targets: Mapping[str, float]
    lines: Sequence[JournalLine]
    transfers: Mapping[int, Sequence[float]]

    @property
    def bars(self) -> range:
        """Return the bars."""
        return range(len(self.prices[self.unit]))

    def value(self, coins: Mapping[str, float], bar: int) -> float:
        """Return the value of an amount of coins at the prices of a bar."""
        return math.fsum(amount * self.prices[symbol][bar] for symbol, amount in coins.items())


def coins_by_bar(history: History) -> list[dict[str, float]]:
    """Return what the wallet holds after each bar, by adding up the journal."""
    coins = dict.fromkeys(history.prices, 0.0)
    after = []
    for bar in history.bars:
        for line in history.lines:
            if line.bar == bar:
                for symbol, change in line.coins.items():
                    coins[symbol] += change
        after.append(dict(coins))
    return after


def unit_values(history: History, after: Sequence[Mapping[str, float]], start_value: float) -> list[float]:
    """Return the value of one unit of a fund after each bar: a transfer buys or returns units at their value of its moment."""
    units = start_value
    values = []
    for bar in history.bars:
        total = history.value(after[bar - 1], bar) if bar else start_value
        for amount in history.transfers.get(bar, ()):
            units += amount * units / total
            total += amount
        values.append(history.value(after[bar], bar) / units)
    return values


def held_coins(history: History, start: Mapping[str, float]) -> list[dict[str, float]]:
    """Return buy and hold after each bar: deposits buy at the targets, withdrawals take the same share of every coin."""
    coins = dict(start)
    after = []
    for bar in history.bars:
        for amount in history.transfers.get(bar, ()):
            if amount > 0:
                for symbol, share in history.targets.items():
                    coins[symbol] += amount * share / history.prices[symbol][bar]
            else:
                factor = 1 + amount / history.value(coins, bar)
                coins = {symbol: coins_of_symbol * factor for symbol, coins_of_symbol in coins.items()}
        after.append(dict(coins))
    return after


@dataclass(frozen=True, slots=True)
class PathFigures:
    """Annual growth, volatility, Sharpe ratio and maximum drawdown of daily values of one unit."""

    cagr: float
    volatility: float
    sharpe: float
    max_drawdown: float


def path_figures(values: Sequence[float]) -> PathFigures:
    """Return the figures of one value a day."""
    returns = daily_returns(values)
    highest = values[0]
    deepest = 0.0
    for value in values:
        highest = max(highest, value)
        deepest = min(deepest, value / highest - 1)
    spread = stdev(returns)
    return PathFigures(
        values[-1] ** (DAYS_A_YEAR / len(returns)) - 1,
        spread * math.sqrt(DAYS_A_YEAR),
        fmean(returns) / spread * math.sqrt(DAYS_A_YEAR),
        deepest,
    )


def daily_returns(values: Sequence[float]) -> list[float]:
    """Return the return of each day."""
    return [after / before - 1 for before, after in pairwise(values)]


def mean_excess(values: Sequence[float], hold_values: Sequence[float]) -> tuple[float, float]:
    """Return the annual mean of daily log growth beyond that of holding, and its standard error."""
    excesses = [
        math.log1p(own) - math.log1p(hold_return)
        for own, hold_return in zip(daily_returns(values), daily_returns(hold_values), strict=True)
    ]
    return fmean(excesses) * DAYS_A_YEAR, stdev(excesses) / math.sqrt(len(excesses)) * DAYS_A_YEAR


def turnover(history: History, after: Sequence[Mapping[str, float]]) -> float:
    """Return half of what each trade moved, over the value after its bar, added up."""
    return math.fsum(
        math.fsum(abs(change) * history.prices[symbol][line.bar] for symbol, change in line.coins.items())
        / 2
        / history.value(after[line.bar], line.bar)
        for line in history.lines
        if line.is_trade
    )


def trade_losses(history: History) -> list[tuple[int, float]]:
    """Return for each trade its bar, and what it took of the value at the prices of that bar."""
    return [(line.bar, -history.value(line.coins, line.bar)) for line in history.lines if line.is_trade]


def premium_parts(history: History, after: Sequence[Mapping[str, float]], start: Mapping[str, float]) -> dict[str, float]:
    """Return the parts of the growth beyond holding: Fernholz (2002), (1.1.20), bar by bar."""
    symbols = list(history.prices)
    logs = [{symbol: math.log(history.prices[symbol][bar]) for symbol in symbols} for bar in history.bars]
    steps = [{symbol: later[symbol] - earlier[symbol] for symbol in symbols} for earlier, later in pairwise(logs)]
    start_value = history.value(start, 0)
    first = {symbol: start[symbol] * history.prices[symbol][0] / start_value for symbol in symbols}
    grown = []
    mixed = []
    off_target = []
    for bar, step in enumerate(steps):
        total = history.value(after[bar], bar)
        weights = {symbol: after[bar][symbol] * history.prices[symbol][bar] / total for symbol in symbols}
        grown.append(math.log(math.fsum(weights[symbol] * math.exp(step[symbol]) for symbol in symbols)))
        mixed.append(math.fsum(weights[symbol] * step[symbol] for symbol in symbols))
        off_target.append(math.fsum((weights[symbol] - first[symbol]) * step[symbol] for symbol in symbols))
    whole = {symbol: logs[-1][symbol] - logs[0][symbol] for symbol in symbols}
    hold_growth = math.log(math.fsum(first[symbol] * math.exp(whole[symbol]) for symbol in symbols))
    losses: dict[int, float] = {}
    for bar, loss in trade_losses(history):
        losses[bar] = losses.get(bar, 0.0) + loss
    costs = -math.fsum(math.log1p(-loss / (history.value(after[bar], bar) + loss)) for bar, loss in losses.items())
    excess_growth = math.fsum(grown) - math.fsum(mixed)
    moves = {symbol: [step[symbol] for step in steps] for symbol in symbols}
    expected = math.fsum(first[symbol] * covariance(moves[symbol], moves[symbol]) for symbol in symbols) - math.fsum(
        first[symbol] * first[other] * covariance(moves[symbol], moves[other]) for symbol in symbols for other in symbols
    )
    return {
        "advantage": math.fsum(grown) - costs - hold_growth,
        "excess_growth": excess_growth,
        "off_target": math.fsum(off_target),
        "dispersion": hold_growth - math.fsum(first[symbol] * whole[symbol] for symbol in symbols),
        "costs": costs,
        "excess_growth_yearly": excess_growth / len(steps) * DAYS_A_YEAR,
        "expected_yearly": expected / 2 * DAYS_A_YEAR,
    }
