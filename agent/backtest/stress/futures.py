"""Margin-call stress of a futures book: losses from gaps, funding, a mark off its index and a
paused venue, with and without the agent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction

import numpy as np

from agent.backtest.data import PriceTable, forward_fill
from agent.backtest.futures.book import FundingPayment, FuturesPath, futures_path
from agent.backtest.futures.simulate import BookResult, FuturesSettings
from agent.backtest.futures_alone import simulate_book
from agent.backtest.stress.paths import bootstrap_path, mean_block_length, return_history
from agent.errors import ConfigError
from agent.units import BPS, DAY_S

MIN_BARS = 12
"""Minimum number of bars of a path, so that there are bars before, during and after a scenario."""
SECONDS_PER_BAR = 0.003
"""Measured upper bound for both books together."""
PRICE_PLACES = 12
CRASH_SHARE = 0.4
CRASH_BARS = 48
RALLY_SHARE = 0.6
RALLY_BARS = 72
NOISE_DEVIATION = 0.012
"""Standard deviation of a bar's move in a crash and rally: about 110 % annualised for hourly
bars.
"""
QUIET_BARS = 2
"""Bars after the first at its price; a book is opened in these three."""


Progress = Callable[[str, int, int], None]
"""Called with the scenario, and its numbers of finished paths and of all paths."""


class FuturesScenario(Enum):
    """Stress scenario of a futures book."""

    CALM = "calm"
    GAP_10 = "gap-10"
    GAP_20 = "gap-20"
    GAP_30 = "gap-30"
    FUNDING = "funding-spike"
    BASIS = "mark-off-index"
    PAUSE = "paused"
    CRASH_RALLY = "crash-rally"
    SHOCK = "shock"


GAP_BPS_BY_SCENARIO = {
    FuturesScenario.GAP_10: 1_000,
    FuturesScenario.GAP_20: 2_000,
    FuturesScenario.GAP_30: 3_000,
}


@dataclass(frozen=True, slots=True)
class FuturesSeverity:
    """Severity of scenarios. Moves and funding are adverse to each target: the price falls for a
    long.

    A funding spike costs `funding_daily_bps` of the notional per day. Marks are `basis_bps` off
    their index. A paused venue has no fills or liquidations for `pause_bars`, while prices move by
    `pause_bps`. `shocks` are changes of prices by symbol, in basis points and whatever the target.
    """

    funding_daily_bps: int = 300
    basis_bps: int = 1_000
    pause_bars: int = 24
    pause_bps: int = 2_000
    shocks: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class StressedBook:
    """One book over the paths of a scenario. Losses are shares of the start value (negative: a
    gain). `liquidated_path_count` counts the paths with a liquidation, `longest_above_limit_bars`
    is the largest number of consecutive bars above the leverage limit.
    """

    mean_loss: float
    worst_loss: float
    liquidated_path_count: int
    longest_above_limit_bars: int


@dataclass(frozen=True, slots=True)
class StressedScenario:
    """Both books over the paths of a scenario."""

    scenario: FuturesScenario
    path_count: int
    agent_book: StressedBook
    held_book: StressedBook


@dataclass(frozen=True, slots=True)
class FuturesStressSpec:
    """Spec of a stress test: `path_count` of the table's last `path_bars` for each scenario (the
    first as recorded, the others resampled), and one crash with a rally for each of `seed_count`.
    """

    table: PriceTable
    settings: FuturesSettings
    severity: FuturesSeverity
    path_bars: int
    path_count: int
    seed_count: int

    @property
    def scenarios(self) -> tuple[FuturesScenario, ...]:
        """Return the scenarios; a shock only if there is one."""
        return tuple(
            scenario
            for scenario in FuturesScenario
            if scenario is not FuturesScenario.SHOCK or self.severity.shocks
        )

    @property
    def estimated_s(self) -> float:
        """Estimated seconds on one core."""
        scenario_bars = (len(self.scenarios) - 1) * self.path_count * self.path_bars
        crash_bars = self.seed_count * (QUIET_BARS + CRASH_BARS + RALLY_BARS)
        return SECONDS_PER_BAR * (scenario_bars + crash_bars)


def run_futures_stress(
    spec: FuturesStressSpec, progress: Progress | None = None
) -> tuple[StressedScenario, ...]:
    """Run every scenario. Raises ConfigError for too few bars or paths."""
    if spec.path_bars < MIN_BARS or spec.path_bars > spec.table.bar_count:
        raise ConfigError(
            f"--paths bars: {spec.path_bars} of {spec.table.bar_count}",
            f"write {MIN_BARS} to {spec.table.bar_count}, the bars in the file",
        )
    if spec.path_count < 1:
        raise ConfigError("--paths step-paths: no path", "write 1 or more")
    calm_paths = _calm_paths(spec)
    scenarios = []
    for scenario in spec.scenarios:
        if scenario is FuturesScenario.CRASH_RALLY:
            paths = [
                crash_and_rally(spec.table, spec.settings.seed + seed)
                for seed in range(spec.seed_count)
            ]
        else:
            paths = [
                stressed_path(path, spec.settings, scenario, spec.severity) for path in calm_paths
            ]
        futures_results = []
        for path_number, path in enumerate(paths, 1):
            futures_results.append(simulate_book(path, spec.settings))
            if progress is not None:
                progress(scenario.value, path_number, len(paths))
        start_value_raw = spec.settings.start_value_raw
        scenarios.append(
            StressedScenario(
                scenario,
                len(paths),
                _stressed_book([result.agent_book for result in futures_results], start_value_raw),
                _stressed_book([result.held_book for result in futures_results], start_value_raw),
            )
        )
    return tuple(scenarios)


def stressed_path(
    path: FuturesPath,
    settings: FuturesSettings,
    scenario: FuturesScenario,
    severity: FuturesSeverity,
) -> FuturesPath:
    """Apply a scenario from a third of the way into the path. Gaps are permanent; funding and basis
    end with the second third.
    """
    weight_bps_by_market = {target.market: target.weight_bps for target in settings.policy.targets}
    target_signs = [
        1 if weight_bps_by_market.get(symbol, 0) >= 0 else -1 for symbol in path.symbols
    ]
    start_bar = path.bar_count // 3
    end_bar = 2 * path.bar_count // 3
    match scenario:
        case FuturesScenario.FUNDING:
            return _with_funding(
                path, target_signs, severity.funding_daily_bps, range(start_bar, end_bar)
            )
        case FuturesScenario.BASIS:
            price_moves = [-sign * Fraction(severity.basis_bps, BPS) for sign in target_signs]
            move_shares = dict.fromkeys(range(start_bar, end_bar), Fraction(1))
            return replace(
                path, mark_prices=_move_prices(path.mark_prices, price_moves, move_shares)
            )
        case FuturesScenario.PAUSE:
            paused_bars = range(start_bar, min(path.bar_count, start_bar + severity.pause_bars))
            price_moves = [-sign * Fraction(severity.pause_bps, BPS) for sign in target_signs]
            move_shares = {
                bar: Fraction(bar - start_bar + 1, len(paused_bars)) for bar in paused_bars
            }
            move_shares |= {bar: Fraction(1) for bar in range(paused_bars.stop, path.bar_count)}
            return replace(
                _move_index_and_marks(path, price_moves, move_shares),
                paused_bars=frozenset(paused_bars),
            )
        case _ if scenario in (*GAP_BPS_BY_SCENARIO, FuturesScenario.SHOCK):
            shock_bps_by_symbol = dict(severity.shocks)
            price_moves = [
                Fraction(shock_bps_by_symbol.get(symbol, 0), BPS)
                if scenario is FuturesScenario.SHOCK
                else -sign * Fraction(GAP_BPS_BY_SCENARIO[scenario], BPS)
                for symbol, sign in zip(path.symbols, target_signs, strict=True)
            ]
            return _move_index_and_marks(
                path, price_moves, {bar: Fraction(1) for bar in range(start_bar, path.bar_count)}
            )
        case _:
            return path


def crash_and_rally(table: PriceTable, seed: int) -> FuturesPath:
    """Return a path from the table's newest prices: a crash of 40 % over 48 bars, then a rally of
    60 % over 72, with noise common to all markets.
    """
    random_generator = np.random.default_rng(seed)
    log_moves = [0.0] * QUIET_BARS
    for price_move, move_bars in ((-CRASH_SHARE, CRASH_BARS), (RALLY_SHARE, RALLY_BARS)):
        log_moves += (
            np.log1p(price_move) / move_bars
            + random_generator.normal(0, NOISE_DEVIATION, move_bars)
        ).tolist()
    price_factors = np.exp(np.cumsum([0.0, *log_moves]))
    closes = forward_fill(table.closes)[-1] * price_factors[:, None]
    start_s = int(table.times_s[-1])
    interval_s = table.interval_s
    times_s = start_s + interval_s * np.arange(len(price_factors), dtype=np.int64)
    return futures_path(PriceTable(table.symbols, times_s, np.round(closes, PRICE_PLACES)))


def _calm_paths(spec: FuturesStressSpec) -> list[FuturesPath]:
    """Return the recorded last bars, then resampled ones; without funding."""
    table = spec.table
    recorded_table = replace(
        table,
        times_s=table.times_s[-spec.path_bars :],
        closes=forward_fill(table.closes)[-spec.path_bars :],
        first_ages_s=(),
    )
    paths = [futures_path(recorded_table)]
    if spec.path_count > 1:
        history = return_history(table)
        mean_block_bars = mean_block_length(history)
        for path_number in range(1, spec.path_count):
            random_generator = np.random.default_rng((spec.settings.seed, path_number))
            resampled_table = bootstrap_path(
                history, spec.path_bars, mean_block_bars, random_generator
            )
            paths.append(
                futures_path(
                    replace(resampled_table, closes=np.round(resampled_table.closes, PRICE_PLACES))
                )
            )
    return paths


PriceRows = tuple[tuple[Fraction, ...], ...]


def _move_prices(
    price_rows: PriceRows, price_moves: Sequence[Fraction], move_shares: dict[int, Fraction]
) -> PriceRows:
    """Return prices moved by a fraction of each column's move at the given bars."""
    return tuple(
        tuple(
            price * (1 + move * move_shares.get(bar, Fraction(0)))
            for price, move in zip(bar_prices, price_moves, strict=True)
        )
        for bar, bar_prices in enumerate(price_rows)
    )


def _move_index_and_marks(
    path: FuturesPath, price_moves: Sequence[Fraction], move_shares: dict[int, Fraction]
) -> FuturesPath:
    return replace(
        path,
        index_prices=_move_prices(path.index_prices, price_moves, move_shares),
        mark_prices=_move_prices(path.mark_prices, price_moves, move_shares),
    )


def _with_funding(
    path: FuturesPath, target_signs: Sequence[int], daily_bps: int, bars: range
) -> FuturesPath:
    """Return the path with an adverse payment for each target at each of these bars."""
    payments = list(path.payments)
    daily_rates = list(path.daily_rates)
    daily_rate = Fraction(daily_bps, BPS)
    for bar in bars:
        bar_rate = daily_rate * (path.times_s[bar] - path.times_s[bar - 1]) / DAY_S
        payments[bar] = tuple(
            FundingPayment(column, sign * bar_rate, bar) for column, sign in enumerate(target_signs)
        )
        daily_rates[bar] = tuple(sign * daily_rate for sign in target_signs)
    return replace(path, payments=tuple(payments), daily_rates=tuple(daily_rates))


def _stressed_book(books: Sequence[BookResult], start_value_raw: int) -> StressedBook:
    losses = [1 - book.final_value_raw / start_value_raw for book in books]
    return StressedBook(
        mean_loss=sum(losses) / len(losses),
        worst_loss=max(losses),
        liquidated_path_count=sum(bool(book.liquidations) for book in books),
        longest_above_limit_bars=max(book.longest_above_limit for book in books),
    )
