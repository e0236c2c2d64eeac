"""Simulated price paths: block bootstrap or jump diffusion of recorded returns, and stress
scenarios applied to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from agent.backtest.data import PriceTable, forward_fill, has_gas_price
from agent.backtest.settings import BacktestSpec, SimulationSettings
from agent.backtest.tune.statistics import block_length
from agent.errors import ConfigError
from agent.floats import RETURN_ERROR, FloatArray, dispersion_floor
from agent.reference import is_dollar
from agent.units import BPS, format_bps

MIN_RETURNS = 30
"""Minimum number of returns for blocks and covariances."""
MAX_INTERVALS = 5
"""Time between bars, in medians, beyond which a move is that of a gap. Weekends and holidays
without daily prices stay within it."""
JUMP_DEVIATIONS = 4.0
"""Robust standard deviations beyond which a move of any asset is a jump."""
MAD_TO_DEVIATION = 1.4826
"""Factor from median absolute deviation to standard deviation, for normal numbers."""


class PathMethod(Enum):
    """Method that generates paths."""

    BLOCKS = "blocks"
    JUMPS = "jumps"


@dataclass(frozen=True, slots=True)
class ReturnHistory:
    """Source of paths: log returns by bar and asset, the prices at which paths start, and the
    interval of bars in seconds.

    `skipped_returns` counts the bars without a return because an asset had no price at or before
    them, `gap_returns` those that are too long after the bar before them.
    """

    symbols: tuple[str, ...]
    returns: FloatArray
    start_prices: FloatArray
    end_s: int
    interval_s: int
    skipped_returns: int
    gap_returns: int = 0


@dataclass(frozen=True, slots=True)
class JumpDiffusion:
    """Random walk of log returns per bar with jumps common to all assets.

    A bar has a normal move and Poisson(`jumps_per_bar`) normal jumps: Merton (1976), "Option
    pricing when underlying stock returns are discontinuous", for vectors.
    """

    drift: FloatArray
    covariance: FloatArray
    jumps_per_bar: float
    jump_mean: FloatArray
    jump_covariance: FloatArray


def return_history(table: PriceTable, with_drift: bool = True) -> ReturnHistory:
    """Return log returns between neighbouring bars at which every asset has a price, except over
    more than MAX_INTERVALS; without `with_drift` the mean growth of prices is removed. Raises
    ConfigError for too few.
    """
    has_all_prices: NDArray[np.bool_] = np.logical_and.reduce(~np.isnan(table.closes), axis=1)
    is_priced = has_all_prices[1:] & has_all_prices[:-1]
    is_gap = is_priced & (np.diff(table.times_s) > MAX_INTERVALS * table.interval_s)
    with np.errstate(invalid="ignore"):
        returns = np.diff(np.log(table.closes), axis=0)[is_priced & ~is_gap]
    if len(returns) < MIN_RETURNS:
        raise ConfigError(
            f"--prices: {len(returns)} moves between bars at which all assets have a price",
            f"{MIN_RETURNS} or more are required",
        )
    if not with_drift:
        # remove the mean growth of prices, not that of their logarithms
        returns = returns - np.log(np.exp(returns).mean(axis=0))
    start_prices = forward_fill(table.closes)[-1]
    return ReturnHistory(
        table.symbols,
        returns,
        start_prices,
        int(table.times_s[-1]),
        table.interval_s,
        int((~is_priced).sum()),
        int(is_gap.sum()),
    )


def bootstrap_path(
    history: ReturnHistory, bars: int, mean_block_bars: float, generator: np.random.Generator
) -> PriceTable:
    """Return a path of `bars` by the stationary bootstrap: blocks of geometric length,
    `mean_block_bars` on average, that start anywhere and wrap around.

    All assets keep their joint moves. Politis & Romano (1994), "The stationary bootstrap".
    """
    return_count = len(history.returns)
    move_count = bars - 1
    is_block_start = generator.random(move_count) < 1 / mean_block_bars
    is_block_start[:1] = True
    random_rows = generator.integers(0, return_count, move_count)
    block_starts = np.maximum.accumulate(np.where(is_block_start, np.arange(move_count), 0))
    return_rows = (random_rows[block_starts] + np.arange(move_count) - block_starts) % return_count
    return _path_table(history, history.returns[return_rows])


def jump_diffusion_path(
    history: ReturnHistory, jump_model: JumpDiffusion, bars: int, generator: np.random.Generator
) -> PriceTable:
    """Return a path of `bars` by the jump diffusion."""
    move_count = bars - 1
    asset_count = len(history.symbols)
    diffusion = (
        generator.standard_normal((move_count, asset_count))
        @ _matrix_square_root(jump_model.covariance).T
    )
    jump_counts = generator.poisson(jump_model.jumps_per_bar, move_count)[:, None]
    jumps = jump_counts * jump_model.jump_mean + np.sqrt(jump_counts) * (
        generator.standard_normal((move_count, asset_count))
        @ _matrix_square_root(jump_model.jump_covariance).T
    )
    return _path_table(history, jump_model.drift + diffusion + jumps)


def fit_jump_diffusion(history: ReturnHistory) -> JumpDiffusion:
    """Fit the model: bars at which any asset moved more than JUMP_DEVIATIONS are jumps, all others
    are the diffusion.

    Threshold as in Mancini (2009), "Non-parametric threshold estimation for models with stochastic
    diffusion coefficient and jumps", with the median absolute deviation as scale, which jumps
    hardly change.
    """
    returns = history.returns
    medians = np.median(returns, axis=0)
    deviations = MAD_TO_DEVIATION * np.median(np.abs(returns - medians), axis=0)
    deviation_floors = [
        dispersion_floor(median_size, RETURN_ERROR)  # that of the largest would hide jumps
        for median_size in np.abs(medians).tolist()
    ]
    scales = np.where(deviations > deviation_floors, deviations, np.inf)
    is_jump = (np.abs(returns - medians) > JUMP_DEVIATIONS * scales).any(axis=1)
    calm_returns = returns[~is_jump]
    if len(calm_returns) < 2:
        calm_returns = returns
        is_jump = np.zeros(len(returns), dtype=np.bool_)
    drift = calm_returns.mean(axis=0)
    covariance = _covariance(calm_returns)
    jump_sizes = returns[is_jump] - drift
    no_jump = np.zeros(len(history.symbols))
    if not len(jump_sizes):
        return JumpDiffusion(drift, covariance, 0.0, no_jump, np.zeros_like(covariance))
    jump_covariance = np.zeros_like(covariance)
    if len(jump_sizes) > 1:  # a bar with a jump also has its normal move; subtract its covariance
        jump_covariance = _covariance(jump_sizes) - covariance
    return JumpDiffusion(
        drift,
        covariance,
        float(is_jump.mean()),
        jump_sizes.mean(axis=0),
        _nearest_semidefinite(jump_covariance),
    )


def mean_block_length(history: ReturnHistory) -> float:
    """Return the mean block length by the rule of Politis & White
    (agent/backtest/tune/statistics.py), the longest of all assets, at most the length of the data.

    The rule is applied to absolute returns, since volatility clusters and direction is nearly
    independent of the past.
    """
    block_lengths = [
        block_length(np.abs(history.returns[:, column]))
        for column in range(history.returns.shape[1])
    ]
    return min(max(block_lengths), float(len(history.returns)))


def require_block_length(mean_block_bars: float, history: ReturnHistory) -> None:
    """Raise ConfigError for a block shorter than one bar, or longer than the data."""
    if not 1 <= mean_block_bars <= len(history.returns):
        raise ConfigError(
            f"--paths block: {mean_block_bars:g} of {len(history.returns)} moves",
            "use at least 1, and no more than the data have",
        )


def _path_table(history: ReturnHistory, returns: FloatArray) -> PriceTable:
    closes = history.start_prices * np.exp(
        np.vstack([np.zeros(len(history.symbols)), np.cumsum(returns, axis=0)])
    )
    times_s = history.end_s + history.interval_s * np.arange(len(closes), dtype=np.int64)
    return PriceTable(history.symbols, times_s, closes)


def _covariance(returns: FloatArray) -> FloatArray:
    covariance: FloatArray = np.atleast_2d(np.cov(returns, rowvar=False))
    return covariance


def _matrix_square_root(covariance: FloatArray) -> FloatArray:
    """Return the matrix square root of the covariance, which may be singular."""
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    square_root: FloatArray = eigenvectors * np.sqrt(np.maximum(eigenvalues, 0.0))
    return square_root


def _nearest_semidefinite(matrix: FloatArray) -> FloatArray:
    """Return the nearest positive semidefinite matrix."""
    square_root = _matrix_square_root(matrix)
    nearest_matrix: FloatArray = square_root @ square_root.T
    return nearest_matrix


class SpotScenario(Enum):
    """Stress scenario; CALM leaves the path unchanged."""

    CALM = "calm"
    CRASH = "crash"
    DEPEG = "depeg"
    GAS = "gas-spike"
    POOL = "illiquid-pool"
    ORACLE = "oracle-outage"
    SHOCK = "shock"


STRESS_SCENARIOS = tuple(
    scenario for scenario in SpotScenario if scenario not in (SpotScenario.CALM, SpotScenario.SHOCK)
)
"""Scenarios that a test asks for by name."""


USUAL_CRASH_BARS = 24
"""Duration of a crash or shock, in bars."""


@dataclass(frozen=True, slots=True)
class SpotSeverity:
    """Severity of scenarios.

    A crash reduces every price except those of dollars and the numeraire by `crash_bps` over
    `crash_bars` (None: USUAL_CRASH_BARS, or those that a short path has left), from a flat market
    and without recovery; a dollar loses `depeg_bps` of its value;
    gas costs `gas_price_wei`; pools have `depth_part` of their depth. A shock changes the prices of
    the symbols in `shocks` by basis points, all others stay, like a crash over `crash_bars`.
    """

    crash_bps: int = 5_000
    crash_bars: int | None = None
    depeg_bps: int = 1_000
    gas_price_wei: int = 500 * 10**9
    depth_part: Fraction = Fraction(1, 1_000)
    shocks: tuple[tuple[str, int], ...] = ()

    @property
    def shocks_text(self) -> str:
        """Return the shocks as text, such as "ALT -5000 bps"; empty without any."""
        return ", ".join(f"{symbol} {shock_bps:+d} bps" for symbol, shock_bps in self.shocks)

    def __post_init__(self) -> None:
        """Raise ConfigError naming the option that is invalid."""
        for option, drop_bps in (
            ("--scenarios crash", self.crash_bps),
            ("--scenarios depeg", self.depeg_bps),
        ):
            if not 0 < drop_bps < BPS:
                raise ConfigError(
                    f"{option}: {format_bps(drop_bps)}",
                    "write a price drop above 0 and below 100 %",
                )
        if self.crash_bars is not None and self.crash_bars < 1:
            raise ConfigError(
                f"--scenarios crash-bars: {self.crash_bars}", "write a duration of 1 bar or more"
            )
        if not 0 < self.depth_part <= 1:
            raise ConfigError(
                f"--scenarios thin: {float(self.depth_part):g}",
                "write the remaining share of the depth, above 0 and at most 1",
            )
        if self.gas_price_wei <= 0:
            raise ConfigError(
                f"--scenarios gas-spike: {self.gas_price_wei} wei",
                "write a price above 0, such as 500 gwei",
            )


@dataclass(frozen=True, slots=True)
class StressedPath:
    """A path with a scenario applied.

    `numeraire_values` is the value of one numeraire coin at each bar, in the file's unit: below 1
    while the numeraire is off its peg, else 1.
    """

    table: PriceTable
    settings: SimulationSettings
    numeraire_values: FloatArray


def apply_scenario(
    scenario: SpotScenario,
    spec: BacktestSpec,
    table: PriceTable,
    settings: SimulationSettings,
    severity: SpotSeverity,
) -> StressedPath:
    """Apply the scenario to the middle third of the path. A crash or shock starts there from a flat
    market and has no recovery, so that no trend of the path hides it.

    Raises ConfigError if the scenario does not apply to this portfolio.
    """
    start_bar = max(1, table.bar_count // 3)
    end_bar = max(start_bar + 1, 2 * table.bar_count // 3)
    unstressed_path = StressedPath(table, settings, np.ones(table.bar_count))
    match scenario:
        case SpotScenario.CALM:
            return unstressed_path
        case SpotScenario.CRASH:
            return replace(unstressed_path, table=_crashed_table(spec, table, severity, start_bar))
        case SpotScenario.DEPEG:
            return _depegged_path(spec, unstressed_path, severity, slice(start_bar, end_bar))
        case SpotScenario.GAS:
            _require_priced_gas(spec, table)
            gas_prices = settings.gas_price_wei
            if isinstance(gas_prices, int):
                gas_prices = [gas_prices] * table.bar_count
            spiked_gas_wei = [severity.gas_price_wei] * (end_bar - start_bar)
            prices_with_spike = (*gas_prices[:start_bar], *spiked_gas_wei, *gas_prices[end_bar:])
            return replace(
                unstressed_path, settings=replace(settings, gas_price_wei=prices_with_spike)
            )
        case SpotScenario.POOL:
            return replace(
                unstressed_path,
                settings=replace(
                    settings, thin_pool_bars=(start_bar, end_bar, severity.depth_part)
                ),
            )
        case SpotScenario.ORACLE:
            return replace(
                unstressed_path, settings=replace(settings, silent_feed_bars=(start_bar, end_bar))
            )
        case SpotScenario.SHOCK:
            return _shocked_path(spec, unstressed_path, severity, start_bar)


def inapplicable_scenarios(
    scenarios: Sequence[SpotScenario],
    spec: BacktestSpec,
    table: PriceTable,
    settings: SimulationSettings,
    severity: SpotSeverity,
) -> list[tuple[str, str]]:
    """Return the scenarios that do not apply to this portfolio, with the reason."""
    names_and_reasons = []
    for scenario in scenarios:
        try:
            apply_scenario(scenario, spec, table, settings, severity)
        except ConfigError as error:
            names_and_reasons.append(
                (scenario.value, error.message.removeprefix(f"{scenario.value}: "))
            )
    return names_and_reasons


def dollar_symbol(spec: BacktestSpec) -> str:
    """Return the symbol of the first dollar asset. Raises ConfigError if there is none."""
    first_symbol = next(
        (asset.token.symbol for asset in spec.portfolio.assets if is_dollar(asset.token.symbol)),
        None,
    )
    if first_symbol is None:
        raise ConfigError(
            "depeg: no asset of this portfolio has a dollar symbol",
            "omit depeg from --scenarios",
        )
    return first_symbol


def _crashed_table(
    spec: BacktestSpec, table: PriceTable, severity: SpotSeverity, start_bar: int
) -> PriceTable:
    numeraire = spec.portfolio.numeraire.symbol
    stable_symbols = {token.symbol for token in spec.tokens if is_dollar(token.symbol)} | {
        numeraire
    }
    crashing_columns = [
        column for column, symbol in enumerate(table.symbols) if symbol not in stable_symbols
    ]
    if not crashing_columns:
        raise ConfigError(
            "crash: every asset of this portfolio is a dollar or the numeraire",
            "omit crash from --scenarios",
        )
    closes = _closes_without_trend(table, start_bar)
    closes[:, crashing_columns] *= (
        (1 - severity.crash_bps / BPS) ** _crash_progress(table, severity, start_bar)
    )[:, None]
    return replace(table, closes=closes)


def _crash_progress(table: PriceTable, severity: SpotSeverity, start_bar: int) -> FloatArray:
    """Return the share of a crash or shock that has happened at each bar. Raises ConfigError if the
    path ends before it does.
    """
    bars_left = table.bar_count - start_bar
    crash_bars = severity.crash_bars or min(USUAL_CRASH_BARS, bars_left)
    if crash_bars > bars_left:
        raise ConfigError(
            f"crash-bars: {crash_bars} bars from bar {start_bar} of a path of {table.bar_count}",
            f"write --scenarios crash-bars={bars_left} or less, or a longer path",
        )
    progress: FloatArray = np.clip((np.arange(table.bar_count) - start_bar + 1) / crash_bars, 0, 1)
    return progress


def _shocked_path(
    spec: BacktestSpec, unstressed_path: StressedPath, severity: SpotSeverity, start_bar: int
) -> StressedPath:
    table = unstressed_path.table
    shocked_path = replace(
        unstressed_path, table=replace(table, closes=_closes_without_trend(table, start_bar))
    )
    progress = _crash_progress(table, severity, start_bar)
    for symbol, shock_bps in severity.shocks:
        shocked_path = _with_moved_price(
            spec, shocked_path, symbol, (1 + shock_bps / BPS) ** progress
        )
    return shocked_path


def _closes_without_trend(table: PriceTable, start_bar: int) -> FloatArray:
    """Return the closes without a trend: constant before `start_bar`, then with the path's
    moves less their mean, so that they end where they began. Gaps stay.
    """
    filled_closes = forward_fill(table.closes)
    log_closes = np.log(filled_closes[start_bar - 1 :])
    elapsed_share = np.linspace(0, 1, len(log_closes))[:, None]
    detrended_moves = log_closes - log_closes[0] - elapsed_share * (log_closes[-1] - log_closes[0])
    closes = np.repeat(filled_closes[:1], table.bar_count, axis=0)
    closes[start_bar - 1 :] *= np.exp(detrended_moves)
    closes[np.isnan(table.closes)] = np.nan
    return closes


def _depegged_path(
    spec: BacktestSpec, unstressed_path: StressedPath, severity: SpotSeverity, depeg_bars: slice
) -> StressedPath:
    dollar_price = np.ones(unstressed_path.table.bar_count)
    dollar_price[depeg_bars] = 1 - severity.depeg_bps / BPS
    return _with_moved_price(spec, unstressed_path, dollar_symbol(spec), dollar_price)


def _with_moved_price(
    spec: BacktestSpec, path: StressedPath, symbol: str, price_factors: FloatArray
) -> StressedPath:
    """Return the path with the price of a symbol multiplied at each bar; a symbol without a column
    had the price 1.
    """
    table = path.table
    if symbol in table.symbols:
        closes = table.closes.copy()
        closes[:, table.symbols.index(symbol)] *= price_factors
        moved_table = replace(table, closes=closes)
    else:
        moved_table = replace(
            table,
            symbols=(*table.symbols, symbol),
            closes=np.column_stack([table.closes, price_factors]),
        )
    is_numeraire = symbol == spec.portfolio.numeraire.symbol
    return replace(
        path,
        table=moved_table,
        numeraire_values=price_factors if is_numeraire else path.numeraire_values,
    )


def _require_priced_gas(spec: BacktestSpec, table: PriceTable) -> None:
    if not has_gas_price(spec, table):
        raise ConfigError(
            "gas-spike: the native coin has no price",
            "name its asset: --native ETH",
        )
