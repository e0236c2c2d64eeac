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
from agent.reference import is_dollar
from agent.units import BPS

Floats = NDArray[np.float64]
FEWEST_RETURNS = 30
"""Minimum number of returns for blocks and covariances."""
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

    `left_out` counts the bars without a return because an asset had no price at or before them.
    """

    symbols: tuple[str, ...]
    returns: Floats
    last: Floats
    end_s: int
    interval_s: int
    left_out: int


@dataclass(frozen=True, slots=True)
class JumpDiffusion:
    """Random walk of log returns per bar with jumps common to all assets.

    A bar has a normal move and Poisson(`rate`) normal jumps: Merton (1976), "Option pricing when
    underlying stock returns are discontinuous", for vectors.
    """

    drift: Floats
    covariance: Floats
    rate: float
    jump_mean: Floats
    jump_covariance: Floats


def return_history(table: PriceTable, drift: bool = True) -> ReturnHistory:
    """Return log returns between neighbouring bars at which every asset has a price; without
    `drift` the mean growth of prices is removed. Raises ConfigError for too few.
    """
    known: NDArray[np.bool_] = np.logical_and.reduce(~np.isnan(table.closes), axis=1)
    usable = known[1:] & known[:-1]
    with np.errstate(invalid="ignore"):
        returns = np.diff(np.log(table.closes), axis=0)[usable]
    if len(returns) < FEWEST_RETURNS:
        raise ConfigError(
            f"--prices: {len(returns)} moves between bars at which all assets have a price",
            f"{FEWEST_RETURNS} or more are required",
        )
    if not drift:
        # remove the mean growth of prices, not that of their logarithms
        returns = returns - np.log(np.exp(returns).mean(axis=0))
    last = forward_fill(table.closes)[-1]
    return ReturnHistory(
        table.symbols,
        returns,
        last,
        int(table.times_s[-1]),
        table.interval_s,
        table.bars - 1 - len(returns),
    )


def bootstrap_path(
    past: ReturnHistory, bars: int, block: float, chance: np.random.Generator
) -> PriceTable:
    """Return a path of `bars` by the stationary bootstrap: blocks of geometric length, `block` on
    average, that start anywhere and wrap around.

    All assets keep their joint moves. Politis & Romano (1994), "The stationary bootstrap".
    """
    count, moves = len(past.returns), bars - 1
    begins = chance.random(moves) < 1 / block
    begins[:1] = True
    starts = chance.integers(0, count, moves)
    at = np.maximum.accumulate(np.where(begins, np.arange(moves), 0))
    rows = (starts[at] + np.arange(moves) - at) % count
    return _table(past, past.returns[rows])


def jump_diffusion_path(
    past: ReturnHistory, model: JumpDiffusion, bars: int, chance: np.random.Generator
) -> PriceTable:
    """Return a path of `bars` by the jump diffusion."""
    moves, assets = bars - 1, len(past.symbols)
    normal = chance.standard_normal((moves, assets)) @ _root(model.covariance).T
    times = chance.poisson(model.rate, moves)[:, None]
    jumps = times * model.jump_mean + np.sqrt(times) * (
        chance.standard_normal((moves, assets)) @ _root(model.jump_covariance).T
    )
    return _table(past, model.drift + normal + jumps)


def fit_jump_diffusion(past: ReturnHistory) -> JumpDiffusion:
    """Fit the model: bars at which any asset moved more than JUMP_DEVIATIONS are jumps, all others
    are the diffusion.

    Threshold as in Mancini (2009), "Non-parametric threshold estimation for models with stochastic
    diffusion coefficient and jumps", with the median absolute deviation as scale, which jumps
    hardly change.
    """
    returns = past.returns
    centre = np.median(returns, axis=0)
    scale = MAD_TO_DEVIATION * np.median(np.abs(returns - centre), axis=0)
    wild = (np.abs(returns - centre) > JUMP_DEVIATIONS * np.where(scale > 0, scale, np.inf)).any(
        axis=1
    )
    calm = returns[~wild]
    if len(calm) < 2:
        calm, wild = returns, np.zeros(len(returns), dtype=np.bool_)
    drift, covariance = calm.mean(axis=0), _covariance(calm)
    sizes = returns[wild] - drift
    zero = np.zeros(len(past.symbols))
    if not len(sizes):
        return JumpDiffusion(drift, covariance, 0.0, zero, np.zeros_like(covariance))
    spread = np.zeros_like(covariance)
    if len(sizes) > 1:  # a bar with a jump also has its normal move; subtract its covariance
        spread = _covariance(sizes) - covariance
    return JumpDiffusion(
        drift, covariance, float(wild.mean()), sizes.mean(axis=0), _not_negative(spread)
    )


def mean_block_length(past: ReturnHistory) -> float:
    """Return the mean block length by the rule of Politis & White
    (agent/backtest/tune/statistics.py), the longest of all assets, at most the length of the data.

    The rule is applied to absolute returns, since volatility clusters and direction is nearly
    independent of the past.
    """
    lengths = [
        block_length(np.abs(past.returns[:, column])) for column in range(past.returns.shape[1])
    ]
    return min(max(lengths), float(len(past.returns)))


def check_block(block: float, past: ReturnHistory) -> None:
    """Raise ConfigError for a block shorter than one bar, or longer than the data."""
    if not 1 <= block <= len(past.returns):
        raise ConfigError(
            f"--block: {block:g} of {len(past.returns)} moves",
            "use at least 1, and no more than the data have",
        )


def _table(past: ReturnHistory, returns: Floats) -> PriceTable:
    paths = past.last * np.exp(np.vstack([np.zeros(len(past.symbols)), np.cumsum(returns, axis=0)]))
    times = past.end_s + past.interval_s * np.arange(len(paths), dtype=np.int64)
    return PriceTable(past.symbols, times, paths)


def _covariance(returns: Floats) -> Floats:
    covariance: Floats = np.atleast_2d(np.cov(returns, rowvar=False))
    return covariance


def _root(covariance: Floats) -> Floats:
    """Return the matrix square root of the covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    root: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def _not_negative(matrix: Floats) -> Floats:
    """Return the nearest positive semidefinite matrix."""
    root = _root(matrix)
    nearest: Floats = root @ root.T
    return nearest


class Scenario(Enum):
    """Stress scenario; CALM leaves the path unchanged."""

    CALM = "calm"
    CRASH = "crash"
    DEPEG = "depeg"
    GAS = "gas-spike"
    POOL = "illiquid-pool"
    ORACLE = "oracle-outage"


@dataclass(frozen=True, slots=True)
class Severity:
    """Severity of scenarios.

    A crash reduces every price except those of dollars and the numeraire by `crash_bps` over
    `crash_bars`, from a flat market and without recovery; a dollar loses `depeg_bps` of its value; gas costs `gas_wei`;
    pools have `depth_part` of their depth.
    """

    crash_bps: int = 5_000
    crash_bars: int = 24
    depeg_bps: int = 1_000
    gas_wei: int = 500 * 10**9
    depth_part: Fraction = Fraction(1, 1_000)

    def __post_init__(self) -> None:
        """Raise ConfigError naming the option that is invalid."""
        for name, share in (("--crash", self.crash_bps), ("--depeg", self.depeg_bps)):
            if not 0 < share < BPS:
                raise ConfigError(
                    f"{name}: {share / 100:g}%", "write a price drop above 0 and below 100%"
                )
        if self.crash_bars < 1:
            raise ConfigError(
                f"--crash-bars: {self.crash_bars}", "write a duration of 1 bar or more"
            )
        if not 0 < self.depth_part <= 1:
            raise ConfigError(
                f"--thin: {float(self.depth_part):g}",
                "write the remaining share of the depth, above 0 and at most 1",
            )
        if self.gas_wei <= 0:
            raise ConfigError(
                f"--gas-spike: {self.gas_wei} wei", "write a price above 0, such as 500 gwei"
            )


@dataclass(frozen=True, slots=True)
class StressedPath:
    """A path with a scenario applied.

    `unit` is the value of one numeraire coin at each bar, in the file's unit: below 1 while the
    numeraire is off its peg, else 1.
    """

    table: PriceTable
    settings: SimulationSettings
    unit: NDArray[np.float64]


def apply_scenario(
    scenario: Scenario,
    spec: BacktestSpec,
    table: PriceTable,
    settings: SimulationSettings,
    severity: Severity,
) -> StressedPath:
    """Apply the scenario to the middle third of the path. A crash starts there from a flat market and
    has no recovery, so that no trend of the path hides it.

    Raises ConfigError if the scenario does not apply to this portfolio.
    """
    first = max(1, table.bars // 3)
    end = max(first + 1, 2 * table.bars // 3)
    plain = StressedPath(table, settings, np.ones(table.bars))
    match scenario:
        case Scenario.CALM:
            return plain
        case Scenario.CRASH:
            return replace(plain, table=_crashed(spec, table, severity, first))
        case Scenario.DEPEG:
            return _depegged(spec, plain, severity, slice(first, end))
        case Scenario.GAS:
            _require_priced_gas(spec, table)
            prices = settings.gas_wei
            if isinstance(prices, int):
                prices = [prices] * table.bars
            spike = [severity.gas_wei] * (end - first)
            spiked = (*prices[:first], *spike, *prices[end:])
            return replace(plain, settings=replace(settings, gas_wei=spiked))
        case Scenario.POOL:
            return replace(
                plain, settings=replace(settings, thin=(first, end, severity.depth_part))
            )
        case Scenario.ORACLE:
            return replace(plain, settings=replace(settings, silent=(first, end)))


def inapplicable_scenarios(
    scenarios: Sequence[Scenario],
    spec: BacktestSpec,
    table: PriceTable,
    settings: SimulationSettings,
    severity: Severity,
) -> list[tuple[str, str]]:
    """Return the scenarios that do not apply to this portfolio, with the reason."""
    reasons = []
    for scenario in scenarios:
        try:
            apply_scenario(scenario, spec, table, settings, severity)
        except ConfigError as error:
            reasons.append((scenario.value, error.message.removeprefix(f"{scenario.value}: ")))
    return reasons


def dollar_symbol(spec: BacktestSpec) -> str:
    """Return the symbol of the first dollar asset. Raises ConfigError if there is none."""
    symbol = next(
        (asset.token.symbol for asset in spec.portfolio.assets if is_dollar(asset.token)), None
    )
    if symbol is None:
        raise ConfigError(
            "depeg: no asset of this portfolio has a dollar symbol",
            "omit depeg from --scenarios",
        )
    return symbol


def _crashed(spec: BacktestSpec, table: PriceTable, severity: Severity, first: int) -> PriceTable:
    numeraire = spec.portfolio.numeraire.symbol
    safe = {token.symbol for token in spec.tokens if is_dollar(token)} | {numeraire}
    crashing = [column for column, symbol in enumerate(table.symbols) if symbol not in safe]
    if not crashing:
        raise ConfigError(
            "crash: every asset of this portfolio is a dollar or the numeraire",
            "omit crash from --scenarios",
        )
    done = np.clip((np.arange(table.bars) - first + 1) / severity.crash_bars, 0, 1)
    closes = _flat(table, first)
    closes[:, crashing] *= ((1 - severity.crash_bps / BPS) ** done)[:, None]
    return replace(table, closes=closes)


def _flat(table: PriceTable, first: int) -> NDArray[np.float64]:
    """Return the closes without a trend: constant before the bar `first`, then with the path's moves
    less their mean, so that they end where they began. Gaps stay.
    """
    filled = forward_fill(table.closes)
    logs = np.log(filled[first - 1 :])
    share = np.linspace(0, 1, len(logs))[:, None]
    moves = logs - logs[0] - share * (logs[-1] - logs[0])
    closes = np.repeat(filled[:1], table.bars, axis=0)
    closes[first - 1 :] *= np.exp(moves)
    closes[np.isnan(table.closes)] = np.nan
    return closes


def _depegged(
    spec: BacktestSpec, plain: StressedPath, severity: Severity, during: slice
) -> StressedPath:
    symbol, table = dollar_symbol(spec), plain.table
    factor = np.ones(table.bars)
    factor[during] = 1 - severity.depeg_bps / BPS
    if symbol in table.symbols:
        closes = table.closes.copy()
        closes[:, table.symbols.index(symbol)] *= factor
        depegged = replace(table, closes=closes)
    else:
        depegged = replace(
            table, symbols=(*table.symbols, symbol), closes=np.column_stack([table.closes, factor])
        )
    unit = factor if symbol == spec.portfolio.numeraire.symbol else plain.unit
    return replace(plain, table=depegged, unit=unit)


def _require_priced_gas(spec: BacktestSpec, table: PriceTable) -> None:
    if not has_gas_price(spec, table):
        raise ConfigError(
            "gas-spike: the native coin has no price",
            "name its asset: --native ETH",
        )
