"""Significance of the best of many settings: deflated Sharpe ratio, probability of overfitting,
bootstrap, walk-forward, verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from math import ceil, e, log10, sqrt

import numpy as np
from numpy.typing import NDArray

from agent.backtest.tune.grid import NO_STOP, RULE, PolicyChoice, band_text
from agent.floats import RETURN_ERROR, FloatArray, column_dispersions, dispersion, dispersion_floor
from agent.model import NoTradeZone, OrderKind
from agent.policy.triggers.tracking_rule import TrackingLoss
from agent.units import BPS, format_duration

EULER_GAMMA = 0.5772156649015329
MAX_BLOCKS = 16
MIN_BLOCKS = 4
MIN_PERIODS_PER_BLOCK = 4
"""Limits of the cross-validation. 16 blocks as in the examples of Bailey et al. 2017: 12,870 ways
to halve them.
"""
_MAX_VALUES_PER_PASS = 4_000_000
"""Maximum number of values processed at once: 32 MB."""


class Objective(Enum):
    """Objective of the ranking: least loss against a perfect tracker (agent/backtest/tune/loss.py),
    mean log return, or Sharpe ratio of log returns.
    """

    TRACKING = "tracking"
    GROWTH = "growth"
    SHARPE = "sharpe"

    def annual_factor(self, periods_per_year: float) -> float:
        """Return the factor from a score per period to that of a year."""
        return sqrt(periods_per_year) if self is Objective.SHARPE else periods_per_year


@dataclass(frozen=True, slots=True)
class DeflatedSharpe:
    """Sharpe ratio per period of the best of `trial_count`, the ratio expected by luck alone, and
    the probability that the true ratio exceeds it.
    """

    sharpe: float
    threshold: float
    trial_count: int
    probability: float


@dataclass(frozen=True, slots=True)
class OverfittingEstimate:
    """Share of the `split_count` ways to halve `block_count` equal blocks of the data in which the
    best setting of one half was below the median in the other.
    """

    probability: float
    split_count: int
    block_count: int


def objective_scores(returns: FloatArray, objective: Objective) -> FloatArray:
    """Return the objective of each column of `returns[period, setting]`, per period: log returns, or
    for Objective.TRACKING losses below zero, so that more is always better. A constant column has a
    Sharpe ratio of zero.
    """
    means: FloatArray = returns.mean(axis=0)
    if objective is not Objective.SHARPE:
        return means
    return _ratios(means, column_dispersions(returns, degrees_lost=0))


def _ratios(means: FloatArray, deviations: FloatArray) -> FloatArray:
    """Return means over deviations; zero where the deviation is."""
    ratios: FloatArray = np.divide(
        means, deviations, out=np.zeros_like(means), where=deviations > 0
    )
    return ratios


@dataclass(frozen=True, slots=True)
class _BlockSums:
    """Sums by block and setting of returns less the mean of their setting, and of the squares of
    these differences: the variance of half of the blocks follows from them without cancellation.
    `deviation_floors` are the deviations up to which the returns of a setting are equal.
    """

    means: FloatArray
    sums: FloatArray
    square_sums: FloatArray
    deviation_floors: FloatArray

    def scores(self, block_masks: FloatArray, periods: int, objective: Objective) -> FloatArray:
        """Return the objective of each setting over the blocks of each mask, `periods` in all."""
        mean_differences = block_masks @ self.sums / periods
        means: FloatArray = self.means + mean_differences
        if objective is not Objective.SHARPE:
            return means
        variances = block_masks @ self.square_sums / periods - mean_differences**2
        deviations = np.sqrt(np.maximum(variances, 0.0))
        return _ratios(means, np.where(deviations > self.deviation_floors, deviations, 0.0))


def _block_sums(block_returns: FloatArray) -> _BlockSums:
    """Return the sums of `block_returns[block, period, setting]`."""
    means = block_returns.mean(axis=(0, 1))
    differences = block_returns - means
    largest_returns = np.abs(block_returns).max(axis=(0, 1)).tolist()
    return _BlockSums(
        means,
        differences.sum(axis=1),
        (differences**2).sum(axis=1),
        np.array(
            [dispersion_floor(largest_return, RETURN_ERROR) for largest_return in largest_returns]
        ),
    )


def expected_maximum(variance: float, trials: int) -> float:
    """Return the expected best Sharpe ratio of `trials` trials without skill; `variance` is that of
    their ratios.

    Bailey & López de Prado 2014, "The Deflated Sharpe Ratio", equation 1: sqrt(V)·((1 - γ)·Z⁻¹(1 -
    1/N) + γ·Z⁻¹(1 - 1/(N·e))).
    """
    from scipy.stats import norm

    if trials < 2:
        return 0.0
    quantile = (1.0 - EULER_GAMMA) * norm.ppf(1.0 - 1.0 / trials) + EULER_GAMMA * norm.ppf(
        1.0 - 1.0 / (trials * e)
    )
    return sqrt(max(variance, 0.0)) * float(quantile)


def probabilistic_sharpe(
    sharpe: float, threshold: float, periods: int, skew: float, kurtosis: float
) -> float:
    """Return the probability that the true Sharpe ratio per period is above `threshold`; `kurtosis`
    is 3 for a normal distribution.

    Bailey & López de Prado 2014, equation 2. Assumes independent returns.
    """
    from scipy.stats import norm

    variance_factor = 1.0 - skew * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2
    return float(
        norm.cdf((sharpe - threshold) * sqrt(periods - 1) / sqrt(max(variance_factor, 1e-12)))
    )


def deflated_sharpe(returns: FloatArray, best_column: int) -> DeflatedSharpe | None:
    """Compare the Sharpe ratio of column `best_column` of `returns[period, trial]` with the best
    expected by luck alone.

    None if that column is constant, or periods are too few.
    """
    from scipy.stats import kurtosis, skew

    best_returns = returns[:, best_column]
    if len(best_returns) < MIN_PERIODS_PER_BLOCK or not dispersion(best_returns):
        return None
    sharpes = objective_scores(returns, Objective.SHARPE)
    trial_count = returns.shape[1]
    variance = float(np.var(sharpes, ddof=1)) if trial_count > 1 else 0.0
    threshold = expected_maximum(variance, trial_count)
    probability = probabilistic_sharpe(
        float(sharpes[best_column]),
        threshold,
        len(best_returns),
        float(skew(best_returns)),
        float(kurtosis(best_returns, fisher=False)),
    )
    return DeflatedSharpe(float(sharpes[best_column]), threshold, trial_count, probability)


def overfitting_probability(
    returns: FloatArray, objective: Objective
) -> OverfittingEstimate | None:
    """Return the probability of backtest overfitting, by combinatorially symmetric cross-validation
    over `returns[period, setting]`.

    Bailey, Borwein, López de Prado & Zhu 2017, "The Probability of Backtest Overfitting", section
    3: the periods are cut into an even number of equal blocks, as many as have a few periods each,
    16 at most; the rest at the start is not used. For each choice of half of the blocks, the best
    setting there is ranked among all settings in the other half. Equal settings share a rank, and a
    setting exactly at the median counts one half. None for fewer than two settings, or too few
    periods.
    """
    period_count, setting_count = returns.shape
    block_count = min(MAX_BLOCKS, period_count // MIN_PERIODS_PER_BLOCK // 2 * 2)
    if setting_count < 2 or block_count < MIN_BLOCKS:
        return None
    block_periods = period_count // block_count
    block_returns = returns[period_count - block_periods * block_count :].reshape(
        block_count, block_periods, setting_count
    )
    block_sums = _block_sums(block_returns)
    block_halves = list(combinations(range(block_count), block_count // 2))
    half_masks = np.zeros((len(block_halves), block_count))
    for row, half_blocks in enumerate(block_halves):
        half_masks[row, list(half_blocks)] = 1.0
    half_periods = block_periods * block_count // 2
    rows_per_pass = max(1, _MAX_VALUES_PER_PASS // setting_count)
    below_count = 0.0
    for first_split in range(0, len(block_halves), rows_per_pass):
        chosen_half_masks = half_masks[first_split : first_split + rows_per_pass]
        chosen_half_scores = block_sums.scores(chosen_half_masks, half_periods, objective)
        other_half_scores = block_sums.scores(1.0 - chosen_half_masks, half_periods, objective)
        below_count += _count_below_median(chosen_half_scores, other_half_scores)
    return OverfittingEstimate(below_count / len(block_halves), len(block_halves), block_count)


def _count_below_median(chosen_half_scores: FloatArray, other_half_scores: FloatArray) -> float:
    """Return the number of rows in which the setting with the best of `chosen_half_scores` is below
    the median of `other_half_scores`; a setting exactly at the median counts one half.
    """
    split_rows = np.arange(len(chosen_half_scores))
    best_scores = other_half_scores[split_rows, chosen_half_scores.argmax(axis=1)][:, None]
    tolerance = 1e-12 * np.maximum(1e-3, np.abs(best_scores))
    lower_counts = (other_half_scores < best_scores - tolerance).sum(axis=1)
    higher_counts = (other_half_scores > best_scores + tolerance).sum(axis=1)
    return float((lower_counts < higher_counts).sum() + 0.5 * (lower_counts == higher_counts).sum())


CONFIDENCE_LEVEL = 0.95
RESAMPLE_COUNT = 4_000
MIN_BOOTSTRAP_BLOCKS = 6
MIN_INTERVAL_PERIODS = 30
"""Minimum number of periods for an interval: the resampled means of a few numbers vary too little.
"""


@dataclass(frozen=True, slots=True)
class ConfidenceInterval:
    """Mean per period, and the ends of its two-sided interval; `mean_block_periods` is the mean
    length of drawn blocks, in periods.
    """

    mean: float
    low: float
    high: float
    period_count: int
    mean_block_periods: float

    def scaled(self, factor: float) -> ConfidenceInterval:
        """Return the interval scaled by a factor, such as the periods of a year."""
        return ConfidenceInterval(
            self.mean * factor,
            self.low * factor,
            self.high * factor,
            self.period_count,
            self.mean_block_periods,
        )


def block_length(series: FloatArray) -> float:
    """Return the mean block length, in periods, that best estimates the variance of the mean, at
    least 1.

    Politis & White 2004, "Automatic Block-Length Selection for the Dependent Bootstrap", section 3,
    with the correction of Patton, Politis & White 2009: (2·G²/D)^(1/3)·n^(1/3), G = Σ
    λ(k/M)·|k|·R(k), D = 2·g(0)², g(0) = Σ λ(k/M)·R(k), with the flat-top window λ and M twice the
    lag beyond which correlations are insignificant.
    """
    n = len(series)
    centred = series - series.mean()
    variance = float(centred @ centred) / n
    if not dispersion(series):
        return 1.0
    insignificant_run = max(5, ceil(sqrt(log10(n))))
    max_lag = min(n - 1, ceil(sqrt(n)) + insignificant_run)
    autocovariances = np.array(
        [float(centred[: n - k] @ centred[k:]) / n for k in range(max_lag + 1)]
    )
    is_insignificant = np.abs(autocovariances[1:] / variance) < 2.0 * sqrt(log10(n) / n)
    insignificant_starts = [
        k
        for k in range(len(is_insignificant) - insignificant_run + 1)
        if is_insignificant[k : k + insignificant_run].all()
    ]
    significant_lags = np.nonzero(~is_insignificant)[0]
    last_significant_lag = 1
    if insignificant_starts:
        last_significant_lag = insignificant_starts[0]
    elif len(significant_lags):
        last_significant_lag = int(significant_lags[-1]) + 1
    window_lags = min(2 * max(last_significant_lag, 1), max_lag)
    k = np.arange(1, window_lags + 1)
    window = np.clip(2.0 * (1.0 - k / window_lags), 0.0, 1.0)
    slope_sum = 2.0 * float((window * k * autocovariances[1 : window_lags + 1]).sum())
    level_sum = float(autocovariances[0]) + 2.0 * float(
        (window * autocovariances[1 : window_lags + 1]).sum()
    )
    if level_sum <= 1e-12 * variance:
        return 1.0
    return float(
        np.clip(
            (slope_sum**2 / level_sum**2 * n) ** (1.0 / 3.0), 1.0, ceil(min(3.0 * sqrt(n), n / 3.0))
        )
    )


def resampled_means(
    series: FloatArray, mean_block_periods: float, resample_count: int, seed: int
) -> FloatArray:
    """Return the means of `resample_count` resamples: blocks from random places on the circle of
    periods, each ending after a period with probability 1 / `mean_block_periods`.

    Politis & Romano 1994, "The Stationary Bootstrap", section 2.
    """
    random_generator = np.random.default_rng(seed)
    n = len(series)
    drawn_indices = random_generator.integers(0, n, resample_count)
    sums = series[drawn_indices].copy()
    for _ in range(n - 1):
        is_block_end = random_generator.random(resample_count) < 1.0 / mean_block_periods
        drawn_indices = np.where(
            is_block_end, random_generator.integers(0, n, resample_count), (drawn_indices + 1) % n
        )
        sums += series[drawn_indices]
    return sums / n


def bootstrap_interval(
    series: FloatArray,
    seed: int,
    resample_count: int = RESAMPLE_COUNT,
) -> ConfidenceInterval | None:
    """Return the mean with the widened two-sided interval that contains CONFIDENCE_LEVEL of the resampled
    means; None for fewer than MIN_INTERVAL_PERIODS.

    Resampled means of short and dependent series vary too little: at 250 periods, 91 % of plain 95
    % intervals contain the true mean. Therefore blocks are twice as long as is optimal for the
    variance, which halves the bias, but at most a sixth of the data, so that there are at least six
    blocks. Both ends are widened by sqrt(n / (n - block)), which undoes the effect of centring, and
    by the ratio of Student's distribution with n / block - 1 degrees of freedom to the normal
    distribution.
    """
    from scipy.stats import norm
    from scipy.stats import t as student

    n = len(series)
    if n < MIN_INTERVAL_PERIODS:
        return None
    mean_block_periods = min(2.0 * block_length(series), n / MIN_BOOTSTRAP_BLOCKS)
    mean = float(series.mean())
    tail_probability = (1.0 - CONFIDENCE_LEVEL) / 2.0
    low_deviation, high_deviation = np.quantile(
        resampled_means(series, mean_block_periods, resample_count, seed) - mean,
        [tail_probability, 1.0 - tail_probability],
    )
    widening = sqrt(n / (n - mean_block_periods)) * float(
        student.ppf(tail_probability, n / mean_block_periods - 1.0) / norm.ppf(tail_probability)
    )
    return ConfidenceInterval(
        mean,
        mean + widening * float(low_deviation),
        mean + widening * float(high_deviation),
        n,
        mean_block_periods,
    )


@dataclass(frozen=True, slots=True)
class GridAxis:
    """One axis of the grid: the labels of its values in order."""

    name: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """The objective over two axes, other parameters as in the best setting; where the grid has none
    with these, that of the best with others; NaN where it has no setting. `best_cell` is the cell of
    the best setting.
    """

    row_axis: GridAxis
    column_axis: GridAxis
    scores: FloatArray
    best_cell: tuple[int, int]


@dataclass(frozen=True, slots=True)
class NeighbourComparison:
    """Decline of the objective from the best setting to its neighbours, one step away on one axis:
    on average, and at most.

    `median_decline` is the decline to the median of all settings, for comparison.
    """

    neighbour_count: int
    mean_decline: float
    largest_decline: float
    median_decline: float


def _band_sort_key(choice: PolicyChoice) -> tuple[int, int]:
    """Return the kind of range and its width, the strictest rule and the longest horizon first."""
    if choice.horizon_s is not None:
        return (-2, -choice.horizon_s)
    if isinstance(choice.trigger, NoTradeZone):
        return (-1, -round(choice.trigger.risk.cost_bps * 100))
    band = choice.band
    if band is None:
        return (2, 0)
    if band.absolute_bps is None:
        return (0, band.relative_bps or 0)
    return (1, band.absolute_bps)


def _schedule_order(choice: PolicyChoice) -> tuple[int, int]:
    if choice.every_s is None:
        return (0, 0)
    return (1, choice.every_s)


def _stop_order(choice: PolicyChoice) -> tuple[int, int]:
    if choice.stop is None or choice.stop.kind is None:
        return (0, 0)
    return (1 if choice.stop.kind is OrderKind.STOP_LOSS else 2, choice.stop.share_bps)


def _band_label(choice: PolicyChoice) -> str:
    if choice.rule_label:
        return choice.rule_label
    if choice.horizon_s is not None:
        return f"zone {format_duration(choice.horizon_s)}"
    return "no band" if choice.band is None else band_text(choice.band)


_AXES: tuple[
    tuple[str, Callable[[PolicyChoice], tuple[int, int] | str], Callable[[PolicyChoice], str]], ...
] = (
    ("band", _band_sort_key, _band_label),
    (
        "interval",
        _schedule_order,
        lambda c: "no interval" if c.every_s is None else format_duration(c.every_s),
    ),
    ("stop", _stop_order, lambda c: NO_STOP.label if c.stop is None else c.stop.label),
    ("destination", lambda c: c.destination.value, lambda c: c.destination.value),
    ("allocator", lambda c: c.allocator.value, lambda c: c.allocator.value),
)
_ORDERED_AXIS_COUNT = 3
"""Number of ordered axes, which come first; on the others all values are neighbours."""


def _grid_indices(
    choices: Sequence[PolicyChoice],
) -> tuple[NDArray[np.int64], list[GridAxis], list[list[object]]]:
    """Return the position of each choice on every axis, the axes, and their values: zones, the
    tracking rule, then relative bands, then absolute bands, then none.
    """
    grid_indices = []
    axes = []
    values_by_axis = []
    for axis_name, value_of, label_of in _AXES:
        label_by_value = {value_of(choice): label_of(choice) for choice in choices}
        axis_values = (
            sorted(label_by_value, key=str)
            if axis_name in ("destination", "allocator")
            else sorted(label_by_value)
        )
        index_by_value = {axis_value: i for i, axis_value in enumerate(axis_values)}
        grid_indices.append([index_by_value[value_of(choice)] for choice in choices])
        axes.append(
            GridAxis(axis_name, tuple(label_by_value[axis_value] for axis_value in axis_values))
        )
        values_by_axis.append(list[object](axis_values))
    return np.array(grid_indices, dtype=np.int64).T, axes, values_by_axis


def heat_map(choices: Sequence[PolicyChoice], scores: FloatArray, best_index: int) -> HeatMap:
    """Return the heat map over the two axes with the most values; bands run down if they are one of
    the two.
    """
    grid_indices, axes, _ = _grid_indices(choices)
    largest_axes = sorted(range(len(axes)), key=lambda axis: -len(axes[axis].labels))[:2]
    row_axis, column_axis = sorted(largest_axes)
    cell_scores = np.full((len(axes[row_axis].labels), len(axes[column_axis].labels)), np.nan)
    other_axes = [axis for axis in range(len(axes)) if axis not in (row_axis, column_axis)]
    is_as_best = (grid_indices == grid_indices[best_index])[:, other_axes].all(axis=1)
    for index in np.lexsort((scores, is_as_best)):  # what a cell shows comes last
        choice_indices = grid_indices[index]
        cell_scores[choice_indices[row_axis], choice_indices[column_axis]] = scores[index]
    return HeatMap(
        axes[row_axis],
        axes[column_axis],
        cell_scores,
        (int(grid_indices[best_index][row_axis]), int(grid_indices[best_index][column_axis])),
    )


def compare_neighbours(
    choices: Sequence[PolicyChoice], scores: FloatArray, best_index: int
) -> NeighbourComparison | None:
    """Compare the best setting with its neighbours: the next width of the same kind, the next
    interval or stop, and every other destination and allocator.

    None without neighbours.
    """
    grid_indices, _, values_by_axis = _grid_indices(choices)
    distances = np.abs(grid_indices - grid_indices[best_index])
    is_neighbour = np.zeros(len(choices), dtype=bool)
    for axis in range(len(_AXES)):
        differs_only_on_axis = (np.delete(distances, axis, axis=1) == 0).all(axis=1) & (
            distances[:, axis] > 0
        )
        if axis < _ORDERED_AXIS_COUNT:
            best_value = values_by_axis[axis][grid_indices[best_index][axis]]
            is_same_kind = np.array(
                [axis_value[0] == best_value[0] for axis_value in values_by_axis[axis]]  # type: ignore[index]  # ordered axes have pairs
            )
            differs_only_on_axis &= (distances[:, axis] == 1) & is_same_kind[grid_indices[:, axis]]
        is_neighbour |= differs_only_on_axis
    if not is_neighbour.any():
        return None
    declines = float(scores[best_index]) - scores[is_neighbour]
    return NeighbourComparison(
        int(is_neighbour.sum()),
        float(declines.mean()),
        float(declines.max()),
        float(scores[best_index] - np.median(scores)),
    )


DATA_PART_COUNT = 4
"""Number of equal parts of the data. The search does not use the last."""
ROLLING_PIECE_COUNT = 2
"""Number of pieces of a rolling window; an anchored window begins with as many."""


class WalkForwardMode(Enum):
    """Window of walk-forward: anchored at the start of the data, or of a fixed length."""

    ANCHORED = "anchored"
    ROLLING = "rolling"


@dataclass(frozen=True, slots=True)
class Fold:
    """Periods to choose in, and later periods to evaluate, as half-open ranges."""

    choice_start: int
    evaluation_start: int
    evaluation_end: int


@dataclass(frozen=True, slots=True)
class FoldResult:
    """Index of the setting chosen in a fold, its objective in the periods of the choice
    (`in_sample_score`) and in the evaluated ones (`out_of_sample_score`), and its `returns`, of which
    the objective is made, in the latter.
    """

    fold: Fold
    choice_index: int
    in_sample_score: float
    out_of_sample_score: float
    returns: FloatArray


def last_quarter_start(bar_count: int) -> int:
    """Return the first bar of the last quarter."""
    return bar_count - bar_count // DATA_PART_COUNT


def make_folds(periods: int, fold_count: int, mode: WalkForwardMode) -> tuple[Fold, ...]:
    """Return that many folds over equal pieces; none if a piece would have fewer than two
    periods.
    """
    piece_count = fold_count + ROLLING_PIECE_COUNT
    if periods < 2 * piece_count:
        return ()
    piece_starts = [periods * piece // piece_count for piece in range(piece_count + 1)]
    first_piece = ROLLING_PIECE_COUNT
    return tuple(
        Fold(
            0 if mode is WalkForwardMode.ANCHORED else piece_starts[piece - ROLLING_PIECE_COUNT],
            piece_starts[piece],
            piece_starts[piece + 1],
        )
        for piece in range(first_piece, piece_count)
    )


def walk_forward(
    returns: FloatArray, objective: Objective, folds: tuple[Fold, ...]
) -> tuple[FoldResult, ...]:
    """Return the best of `returns[period, setting]` in each fold, evaluated in the periods that
    follow; the first of equal settings.
    """
    fold_results = []
    for fold in folds:
        scores = objective_scores(returns[fold.choice_start : fold.evaluation_start], objective)
        best_column = int(scores.argmax())
        evaluation_returns = returns[fold.evaluation_start : fold.evaluation_end]
        fold_results.append(
            FoldResult(
                fold,
                best_column,
                float(scores[best_column]),
                float(objective_scores(evaluation_returns[:, [best_column]], objective)[0]),
                evaluation_returns[:, best_column],
            )
        )
    return tuple(fold_results)


GROWTH_TOLERANCE = 1e-6
"""Log growth, or loss as a share of the portfolio, per year that counts as zero."""
OVERFITTING_THRESHOLD = 0.5
"""Probability of overfitting from which the best setting is not recommended."""


@dataclass(frozen=True, slots=True)
class Excess:
    """Excess over a benchmark in the last quarter: log return, or with `is_loss` loss saved as a
    share of the portfolio, per year; None if periods are too few for an interval.
    """

    benchmark: str
    interval: ConfidenceInterval | None
    is_loss: bool = False

    @property
    def is_above_zero(self) -> bool:
        """True if the whole interval is above zero, by more than floating-point error."""
        return self.interval is not None and self.interval.low > GROWTH_TOLERANCE

    @property
    def text(self) -> str:
        """The claim as a sentence."""
        if self.interval is None:
            return (
                f"against {self.benchmark}: fewer than {MIN_INTERVAL_PERIODS} periods, too few for an"
                " interval"
            )
        interval = self.interval
        if max(abs(interval.low), abs(interval.high)) <= GROWTH_TOLERANCE:
            return f"against {self.benchmark}: the same in every period"
        interval_text = (
            f"{CONFIDENCE_LEVEL * 100:.0f} % interval {self.amount_text(interval.low)} to"
            f" {self.amount_text(interval.high)}"
        )
        kind = "of loss saved" if self.is_loss else "in log growth"
        return (
            f"against {self.benchmark}: {self.amount_text(interval.mean)} a year {kind},"
            f" {interval_text}"
        )

    def amount_text(self, share: float) -> str:
        """Format an amount of this excess."""
        return format_bps(share) if self.is_loss else format_signed_percent(share)


@dataclass(frozen=True, slots=True)
class TuneVerdict:
    """Verdict on a setting: whether it is recommended, the reasons, and otherwise the safe
    default.
    """

    is_recommended: bool
    sentences: tuple[str, ...]
    safe_default: str


def format_bps(share: float) -> str:
    """Format a share of the portfolio as 1.23 bps; a value rounded to zero has no minus sign."""
    return f"{round(share * BPS, 2) + 0.0:.2f} bps"


def format_signed_percent(share: float) -> str:
    """Format a share as +1.23 %; a value rounded to zero has no minus sign."""
    return f"{round(share * 100, 2) + 0.0:+.2f} %"


def judge_choice(
    best_choice: PolicyChoice,
    calendar_choice: PolicyChoice,
    claims: tuple[Excess, ...],
    overfitting: OverfittingEstimate | None,
    settings_judged: int = 1,
) -> TuneVerdict:
    """Recommend `best_choice` if every claim holds and the probability of overfitting is below one
    half; otherwise `calendar_choice`, which trades by schedule only, is the safe default.

    `overfitting` is None if only one setting was tried. `settings_judged` counts the settings
    evaluated in the last quarter so far.
    """
    is_overfit = _is_overfit(overfitting)
    sentences = [
        f"In the last quarter of the data, which the search did not use, {best_choice.label} returned,"
        f" after costs, {claim.text}."
        for claim in claims
    ]
    sentences += _repeated_sentences(settings_judged)
    default_text = (
        f"{calendar_choice.label}, which keeps weights near their targets with few trades, without a claim"
        " of higher returns"
    )
    if all(claim.is_above_zero for claim in claims) and not is_overfit:
        sentences.append(
            "Recommended. The claim is the lower end of each interval, and holds for similar markets only."
        )
        return TuneVerdict(True, tuple(sentences), default_text)
    if is_overfit and overfitting is not None:
        sentences.append(_overfitting_sentence(overfitting))
    unbeaten_benchmarks = [claim.benchmark for claim in claims if not claim.is_above_zero]
    edge_text = (
        f"No edge over {' and '.join(unbeaten_benchmarks)}" if unbeaten_benchmarks else "No edge"
    )
    sentences.append(f"{edge_text} was found, so the safe default is recommended: {default_text}.")
    return TuneVerdict(False, tuple(sentences), default_text)


def judge_loss(
    best_choice: PolicyChoice,
    claim: Excess,
    best_loss: TrackingLoss,
    rule_loss: TrackingLoss,
    overfitting: OverfittingEstimate | None,
    settings_judged: int = 1,
) -> TuneVerdict:
    """Recommend `best_choice` if it loses less than the tracking rule in the last quarter, by more
    than its noise, and the probability of overfitting is below one half; otherwise the rule. The
    losses are those of the last quarter.
    """
    if best_choice == RULE:
        comparison = f"{RULE.label} lost {_loss_text(best_loss)}; it is the rule to beat"
    else:
        comparison = (
            f"{best_choice.label} lost {_loss_text(best_loss)}, {RULE.label} {_loss_text(rule_loss)}:"
            f" {claim.text}"
        )
    sentences = [
        f"In the last quarter of the data, which the search did not use, {comparison}.",
        *_repeated_sentences(settings_judged),
    ]
    is_recommended = claim.is_above_zero and not _is_overfit(overfitting)
    if is_recommended:
        sentences.append(
            f"Recommended: {best_choice.label}. The claim is the lower end of the interval, and holds"
            " for similar markets only."
        )
    else:
        if overfitting is not None and _is_overfit(overfitting):
            sentences.append(_overfitting_sentence(overfitting))
        sentences.append(
            f"No setting loses less than the rule by more than chance explains. Recommended:"
            f" {RULE.label}."
        )
    return TuneVerdict(is_recommended, tuple(sentences), RULE.label)


def _loss_text(loss: TrackingLoss) -> str:
    return (
        f"{format_bps(loss.total)} a year ({loss.costs * BPS:.2f} of costs, {loss.drift * BPS:.2f} of"
        " drift)"
    )


def _is_overfit(overfitting: OverfittingEstimate | None) -> bool:
    return overfitting is not None and overfitting.probability >= OVERFITTING_THRESHOLD


def _overfitting_sentence(overfitting: OverfittingEstimate) -> str:
    return (
        "The best of one half of the data was below the median in the other in"
        f" {overfitting.probability * 100:.0f} % of {overfitting.split_count:,} ways to halve it: the best setting here"
        " is not predictive."
    )


def _repeated_sentences(settings_judged: int) -> list[str]:
    """Return what to say if the last quarter was looked at for other settings before."""
    if settings_judged <= 1:
        return []
    return [
        f"{settings_judged} settings of this search were evaluated in that quarter so far, so"
        " the best of them is overstated."
    ]
