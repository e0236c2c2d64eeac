"""Series and figures of a simulation: growth without transfers, daily samples, rolling figures,
thinned charts; and its JSON document.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.backtest.funding import FundingSummary
from agent.backtest.report.agreement import require_agreement
from agent.backtest.result import SimulationResult
from agent.errors import require_analysis_package
from agent.floats import FloatArray, column_dispersions, dispersion
from agent.units import DAY_S, YEAR_S, Value, decimal_text, price_text, value_text

Indices = NDArray[np.int64]
MAX_POINTS = 2_400
"""Points of a chart about 800 pixels wide; each column keeps its ends and extremes."""
WINDOW_S = 90 * DAY_S
MIN_SAMPLES = 20
"""Minimum number of samples of a rolling window, and of days for annualised growth."""


def downsample_indices(columns: Sequence[FloatArray], max_points: int = MAX_POINTS) -> Indices:
    """Return about `max_points` ascending indices for a chart: the first, last, least and greatest
    value of equal buckets. Jugel, Jerzak, Hackenbroich, Markl (2014), "M4: A Visualization-Oriented
    Time Series Data Aggregation", VLDB 7(10).
    """
    bar_count = len(columns[0])
    if bar_count <= max_points:
        return np.arange(bar_count)
    bucket_count = max(1, max_points // (2 + 2 * len(columns)))
    bucket_edges = np.linspace(0, bar_count, bucket_count + 1).astype(np.int64)
    picked_indices = [bucket_edges[:-1], bucket_edges[1:] - 1]
    for column in columns:
        buckets = [column[start:end] for start, end in pairwise(bucket_edges.tolist())]
        has_values = [not np.isnan(bucket).all() for bucket in buckets]
        for arg_extreme in (np.nanargmin, np.nanargmax):
            picked_indices.append(
                np.array(
                    [
                        start + arg_extreme(bucket)
                        for bucket, start, has_value in zip(
                            buckets, bucket_edges, has_values, strict=False
                        )
                        if has_value
                    ],
                    dtype=np.int64,
                )
            )
    return np.unique(np.concatenate(picked_indices))


@dataclass(frozen=True, slots=True)
class GrowthSeries:
    """Growth of one unit of the portfolio, and of one unit of buy and hold, starting at 1 before
    the first bar's trades, net of transfers.

    `years` is the time from the first bar to the last, in years of 365 days. `sample_bars` are the
    last bars of each UTC day, or every bar if bars are longer than a day. `samples_per_year` is
    their number in a year of 365 days; `returns` and `hold_returns` are between samples.
    """

    unit_growth: FloatArray
    hold_unit_growth: FloatArray
    years: float
    sample_bars: Indices
    samples_per_year: float
    returns: FloatArray
    hold_returns: FloatArray

    @property
    def window_samples(self) -> int:
        """Return the samples of a rolling window: ninety days, or a quarter of a shorter run; 0 if
        too few are left.
        """
        sample_count = min(round(WINDOW_S / YEAR_S * self.samples_per_year), len(self.returns) // 4)
        return sample_count if sample_count >= MIN_SAMPLES else 0


def growth_series(simulation_result: SimulationResult) -> GrowthSeries:
    """Return the growth of both portfolios and their samples. Raises Refused for a result whose
    figures contradict each other.
    """
    raw_per_coin = 10.0**simulation_result.decimals
    start_value = float(simulation_result.start_value) / raw_per_coin
    transfers = simulation_result.transfers
    growth = growth_series_of_units(
        simulation_result.times_s,
        _unit_growth(
            simulation_result.equity,
            [(transfer.bar, transfer.value_before, transfer.value) for transfer in transfers],
            raw_per_coin,
            start_value,
        ),
        _unit_growth(
            simulation_result.hold_equity,
            [(transfer.bar, transfer.hold_value_before, transfer.value) for transfer in transfers],
            raw_per_coin,
            start_value,
        ),
    )
    require_agreement(
        simulation_result, float(growth.unit_growth[-1]), float(growth.hold_unit_growth[-1])
    )
    return growth


def growth_series_of_units(
    times_s: Indices, portfolio_growth: FloatArray, hold_growth: FloatArray
) -> GrowthSeries:
    """Return the growth of two units and their samples."""
    days = times_s // DAY_S
    sample_bars = np.append(np.nonzero(np.diff(days))[0], len(days) - 1)
    # from the total time, since weekends and other days without prices have no samples
    sample_spacing_s = (
        float(np.diff(times_s[sample_bars]).mean()) if len(sample_bars) > 1 else float(DAY_S)
    )
    returns, hold_returns = (
        _growth_factors(unit_growth[sample_bars][1:], unit_growth[sample_bars][:-1]) - 1
        for unit_growth in (portfolio_growth, hold_growth)
    )
    return GrowthSeries(
        portfolio_growth,
        hold_growth,
        float(times_s[-1] - times_s[0]) / YEAR_S,
        sample_bars,
        YEAR_S / sample_spacing_s,
        returns,
        hold_returns,
    )


def _unit_growth(
    equity: FloatArray,
    transfers: Sequence[tuple[int, Value, Value]],
    raw_per_coin: float,
    start_value: float,
) -> FloatArray:
    """Return the growth of one unit of `start_value`, including the costs of the first bar's
    trades; zero once everything is lost, whatever is paid in then. Time-weighted: a bar is split at
    each of its transfers, which are (bar, value before, transfer) in the order in which they were
    made.
    """
    period_starts = np.concatenate([[start_value], equity[:-1]])
    earlier_factors = np.ones(len(equity))
    for bar, value_before, transfer_value in transfers:
        if period_starts[bar]:
            earlier_factors[bar] *= float(value_before) / raw_per_coin / period_starts[bar]
        period_starts[bar] = float(value_before + transfer_value) / raw_per_coin
    factors = _growth_factors(equity, period_starts)
    growth: FloatArray = np.cumprod(earlier_factors * factors, dtype=np.float64)
    return growth


def _growth_factors(ends: FloatArray, starts: FloatArray) -> FloatArray:
    """Return the growth of each period; 1 for one that starts at zero."""
    factors: FloatArray = np.divide(ends, starts, out=np.ones(len(ends)), where=starts != 0)
    return factors


def with_owner_transfers(
    unit_growth: FloatArray, simulation_result: SimulationResult
) -> FloatArray:
    """Return the value, in whole coins, of a portfolio with growth `unit_growth` and with the
    simulation's start value and transfers, which buy nothing once the growth is zero.
    """
    raw_per_coin = 10.0**simulation_result.decimals
    units = np.full(len(unit_growth), float(simulation_result.start_value) / raw_per_coin)
    for flow in simulation_result.transfers:
        if unit_growth[flow.bar]:
            units[flow.bar :] += float(flow.value) / raw_per_coin / unit_growth[flow.bar]
    value_with_transfers: FloatArray = unit_growth * units
    return value_with_transfers


def calendar_benchmark(
    prices: FloatArray, shares: FloatArray, times_s: NDArray[np.int64], interval_s: int
) -> FloatArray:
    """Return the growth of a portfolio rebalanced to `shares` at the first bar of every period,
    without costs.
    """
    unit_growth = np.empty(len(prices))
    start_level = 1.0
    period_start = 0
    period_ends = [*(np.nonzero(np.diff((times_s - times_s[0]) // interval_s))[0] + 1), len(prices)]
    for period_end in period_ends:
        end_bar = min(
            int(period_end) + 1, len(prices)
        )  # the next period begins where this one ends
        unit_growth[period_start:end_bar] = start_level * (
            prices[period_start:end_bar] / prices[period_start] @ shares
        )
        period_start = int(period_end)
        start_level = float(unit_growth[end_bar - 1])
    return unit_growth


def drawdown_series(unit_growth: FloatArray) -> FloatArray:
    """Return the drawdown: the relative distance below the highest value so far, zero or less. The
    first is 1, that before the first bar's trades.
    """
    highest_growth = np.maximum(np.maximum.accumulate(unit_growth), 1.0)
    drawdowns: FloatArray = unit_growth / highest_growth - 1
    return drawdowns


@dataclass(frozen=True, slots=True)
class RiskMetrics:
    """Risk figures of the whole run, from its samples; per year, NaN if unknown.

    `mean_excess` is the mean log growth less that of holding, `mean_excess_error` its standard
    error for independent samples; NaN after a total loss. Rolling figures end at each sample from the first full window on.
    """

    sharpe: float
    hold_sharpe: float
    volatility: float
    hold_volatility: float
    tracking_error: float
    mean_excess: float
    mean_excess_error: float
    rolling_sharpe: FloatArray
    rolling_hold_sharpe: FloatArray
    rolling_tracking_error: FloatArray


def risk_metrics(growth: GrowthSeries) -> RiskMetrics:
    """Compute risk metrics with empyrical-reloaded. Sharpe ratios use a risk-free rate of zero, and
    are NaN for equal returns. Raises Refused if it is not installed.
    """
    with require_analysis_package():
        import empyrical
    samples_per_year = growth.samples_per_year
    excess_returns = growth.returns - growth.hold_returns
    window_samples = growth.window_samples
    has_samples = len(excess_returns) > 1
    mean_excess = mean_excess_error = float("nan")

    def volatility(returns: FloatArray) -> float:
        if not has_samples:
            return float("nan")
        return dispersion(returns) * math.sqrt(samples_per_year)

    def sharpe(returns: FloatArray) -> float:
        if not (has_samples and dispersion(returns)):
            return float("nan")
        return float(empyrical.sharpe_ratio(returns, annualization=samples_per_year))

    def rolling(rolling_metric: object, returns: FloatArray) -> FloatArray:
        if not window_samples or not callable(rolling_metric):
            return np.empty(0)
        return np.asarray(
            rolling_metric(returns, window=window_samples, annualization=samples_per_year)
        )

    def rolling_sharpe(returns: FloatArray) -> FloatArray:
        ratios = rolling(empyrical.roll_sharpe_ratio, returns)
        if not len(ratios):
            return ratios
        windows = np.lib.stride_tricks.sliding_window_view(returns, window_samples)
        return np.where(column_dispersions(windows.T) > 0, ratios, np.nan)

    if has_samples and min(growth.returns.min(), growth.hold_returns.min()) > -1:
        log_excesses = np.log1p(growth.returns) - np.log1p(growth.hold_returns)
        mean_excess = float(log_excesses.mean() * samples_per_year)
        mean_excess_error = float(
            dispersion(log_excesses) / math.sqrt(len(log_excesses)) * samples_per_year
        )
    return RiskMetrics(
        sharpe=sharpe(growth.returns),
        hold_sharpe=sharpe(growth.hold_returns),
        volatility=volatility(growth.returns),
        hold_volatility=volatility(growth.hold_returns),
        tracking_error=volatility(excess_returns),
        mean_excess=mean_excess,
        mean_excess_error=mean_excess_error,
        rolling_sharpe=rolling_sharpe(growth.returns),
        rolling_hold_sharpe=rolling_sharpe(growth.hold_returns),
        rolling_tracking_error=rolling(empyrical.roll_annual_volatility, excess_returns),
    )


@dataclass(frozen=True, slots=True)
class PerformanceMetrics:
    """Annual growth: that of the whole run to the power of a year of 365 days by its time, NaN for
    less than MIN_SAMPLES days. Volatility and Sharpe ratio of the samples (risk-free rate zero), NaN
    for less than two of them. The maximum drawdown, zero or less.
    """

    cagr: float
    volatility: float
    sharpe: float
    max_drawdown: float


def simulation_performance(
    simulation_result: SimulationResult,
) -> tuple[PerformanceMetrics, PerformanceMetrics]:
    """Return the metrics of the rebalanced portfolio and of buy and hold, without transfers."""
    return performance(growth_series(simulation_result))


def performance(growth: GrowthSeries) -> tuple[PerformanceMetrics, PerformanceMetrics]:
    """Return the metrics of both units."""
    risk = risk_metrics(growth)

    def metrics_of(unit_growth: FloatArray, volatility: float, sharpe: float) -> PerformanceMetrics:
        is_long_enough = growth.years * YEAR_S >= MIN_SAMPLES * DAY_S and unit_growth[-1] >= 0
        return PerformanceMetrics(
            float(unit_growth[-1] ** (1 / growth.years)) - 1 if is_long_enough else float("nan"),
            volatility,
            sharpe,
            float(drawdown_series(unit_growth).min()),
        )

    return (
        metrics_of(growth.unit_growth, risk.volatility, risk.sharpe),
        metrics_of(growth.hold_unit_growth, risk.hold_volatility, risk.hold_sharpe),
    )


def unit_changes(simulation_result: SimulationResult) -> FloatArray:
    """Return the relative change of each asset's amount at each bar, positive for purchases."""
    units = simulation_result.units
    larger_units = np.maximum(np.abs(units[:-1]), np.abs(units[1:]))
    relative_changes = np.divide(
        np.diff(units, axis=0),
        larger_units,
        out=np.zeros_like(larger_units),
        where=larger_units > 0,
    )
    return np.vstack([np.zeros(units.shape[1]), relative_changes])


def backtest_document(simulation_result: SimulationResult) -> dict[str, Any]:
    """Return the document of a backtest. Values are decimal strings in the numeraire, ratios
    decimal strings; unknown figures are null.
    """

    def money(amount: Fraction) -> str:
        return value_text(amount, simulation_result.decimals, 18)

    return {
        "final_value": money(simulation_result.final_value),
        "hold_value": money(simulation_result.hold_value),
        "start_value": money(simulation_result.start_value),
        "twr": f"{simulation_result.twr:z.6f}",
        "hold_twr": f"{simulation_result.hold_twr:z.6f}",
        "numeraire": simulation_result.numeraire,
        "rebalances": sum(record.succeeded for record in simulation_result.rebalances),
        "turnover": value_text(simulation_result.turnover_ratio, 0, 6),
        "costs": {
            "fees": money(simulation_result.fees),
            "impact": money(simulation_result.impact),
            "gas": money(simulation_result.gas),
            "total": money(
                simulation_result.fees + simulation_result.impact + simulation_result.gas
            ),
        },
        "gas_counted": simulation_result.is_gas_counted,
        "figures": {
            name: {
                metric_name: None if math.isnan(metric_value) else f"{metric_value:z.6f}"
                for metric_name, metric_value in asdict(metrics).items()
            }
            for name, metrics in zip(
                ("rebalanced", "held"), simulation_performance(simulation_result), strict=True
            )
        },
        "rebalancing_premium": (
            None
            if simulation_result.premium is None
            else {
                name: f"{metric_value:z.6f}"
                for name, metric_value in asdict(simulation_result.premium).items()
            }
        ),
        "funding": None
        if simulation_result.funding is None
        else _funding_document(simulation_result.funding, money),
        "from": int(simulation_result.times_s[0]),
        "until": int(simulation_result.times_s[-1]),
        "bars": simulation_result.bar_count,
        "evaluated_bars": simulation_result.evaluated_bar_count,
        "halted_bars": simulation_result.halted_bar_count,
        "refused": dict(simulation_result.refusal_counts),
        "held_back": dict(simulation_result.holds_by_setting),
        "weights_bps": {
            symbol: round(float(weight) * 10_000)
            for symbol, weight in zip(
                simulation_result.symbols, simulation_result.weights[-1], strict=True
            )
        },
        "trades": [
            {
                "time": rebalance.time_s,
                "turnover": money(rebalance.turnover),
                "fees": money(rebalance.fees),
                "impact": money(rebalance.impact),
                "gas": money(rebalance.gas),
                "succeeded": rebalance.succeeded,
            }
            for rebalance in simulation_result.rebalances
        ],
        "flows": [
            {"time": flow.time_s, "value": money(flow.value), "before": money(flow.value_before)}
            for flow in simulation_result.transfers
        ],
        "realised_gains": {
            "lot_rule": simulation_result.lot_rule,
            "years": {
                str(gain.year): money(gain.realised) for gain in simulation_result.yearly_gains
            },
            **(
                {
                    "futures": {
                        str(futures_gain.year): money(futures_gain.realised)
                        for futures_gain in simulation_result.futures_yearly_gains
                    }
                }
                if simulation_result.futures_yearly_gains
                else {}
            ),
        },
        "delisted": [
            {
                "symbol": holding.symbol,
                "amount": decimal_text(holding.balance_raw, holding.decimals),
                "price": price_text(holding.price, holding.decimals, simulation_result.decimals),
                "time": holding.priced_at_s,
                "value": money(holding.value),
                "share": None if holding.share is None else f"{float(holding.share):.6f}",
            }
            for holding in simulation_result.delisted_holdings
        ],
        "notes": list(simulation_result.notes),
        **_health_document(simulation_result),
        "config_hash": simulation_result.config_hash,
        "data_hash": simulation_result.data_hash,
        "seed": simulation_result.seed,
        "versions": dict(simulation_result.versions),
    }


def _health_document(simulation_result: SimulationResult) -> dict[str, Any]:
    """Return the health of strategies at the end, and its changes; nothing without strategies."""
    if not simulation_result.final_health:
        return {}
    return {
        section_key: [
            {
                "time": record.time_s,
                "name": record.name,
                "health": record.health,
                "sharpe": (
                    None
                    if record.sharpe_milli is None
                    else value_text(Fraction(record.sharpe_milli), 3, 3)
                ),
                "reason": record.reason,
            }
            for record in health_records
        ]
        for section_key, health_records in (
            ("strategies", simulation_result.final_health),
            ("health", simulation_result.health_changes),
        )
    }


def _funding_document(funding: FundingSummary, money: Callable[[Fraction], str]) -> dict[str, Any]:
    def rate_text(yearly_rate: float | None) -> str | None:
        return None if yearly_rate is None else f"{yearly_rate:.6f}"

    return {
        "total": money(funding.total),
        "yearly_rate": rate_text(funding.yearly_rate),
        "intervals": sum(len(funding_carry.payments) for funding_carry in funding.carries),
        "assets": {
            carry.symbol: {
                "carry": money(carry.total),
                "yearly_rate": rate_text(carry.yearly_rate),
                "notional": money(carry.mean_notional),
                "intervals": len(carry.payments),
                "from": int(carry.times_s[0]),
                "until": int(carry.times_s[-1]),
            }
            for carry in funding.carries
        },
        "data_hash": funding.digest,
    }
