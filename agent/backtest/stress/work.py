"""Work of a stress test in pieces. Each path depends only on its number, so the result is
independent of the number of cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agent.backtest.data import PriceTable, prices_in_numeraire
from agent.backtest.settings import BacktestSpec, SimulationSettings
from agent.backtest.stress.paths import (
    JumpDiffusion,
    PathMethod,
    ReturnHistory,
    SpotScenario,
    SpotSeverity,
    StressedPath,
    apply_scenario,
    bootstrap_path,
    fit_jump_diffusion,
    jump_diffusion_path,
)
from agent.backtest.sweep import (
    CONSTANT_PRODUCT_KINDS,
    DESTINATION_CODES,
    KernelResult,
    KernelSetting,
    prepare_prices,
    run_kernel,
    simulated_costs,
)
from agent.backtest.tune.kernel_rule import is_rule_supported, kernel_rule
from agent.floats import FloatArray
from agent.model import ExecutionStyle, NoTradeZone
from agent.policy.drift import band, has_band
from agent.policy.triggers.rules import band_and_interval, is_band_and_schedule_only
from agent.units import BPS

if TYPE_CHECKING:  # processes that only run the kernel load neither engine nor store
    from agent.backtest.result import SimulationResult


WEIGHT_TOLERANCE = 1e-6
"""Tolerance at a band's edge, for rounding and float errors of a correction to the edge."""


@dataclass(frozen=True, slots=True)
class PathMetrics:
    """Results of one path: final loss, maximum drawdown, both from the value before the first bar's
    trades, and shortfall against holding, as shares.

    Turnover is in portfolios; `outside_share` is the share of bars that ended with a weight outside
    its band (NaN: no bands).
    """

    loss: float
    drawdown: float
    hold_shortfall: float
    turnover: float
    outside_share: float
    rebalance_count: int
    halted_bar_count: int = 0
    refusal_count: int = 0


def kernel_setting_or_reason(
    spec: BacktestSpec, settings: SimulationSettings
) -> KernelSetting | str:
    """Return the policy as a kernel setting, or the reason why the kernel does not support it."""
    portfolio = spec.portfolio
    policy = spec.policy
    trigger = spec.policy.trigger
    follows_rule = isinstance(trigger, NoTradeZone) and is_rule_supported(spec, trigger)
    unsupported_features = (
        (spec.split is not None, "several strategies"),
        (bool(spec.layers), "a setting such as [holding]"),
        (portfolio.allocator is not None, "an allocator"),
        (bool(portfolio.orders.terms), "orders"),
        (any(asset.reserve_raw for asset in portfolio.assets), "reserves"),
        (any(asset.band is not None for asset in portfolio.assets), "bands of single assets"),
        (any(asset.max_bps is not None for asset in portfolio.assets), "limits.max_weight"),
        (spec.execution.pace.style is not ExecutionStyle.MARKET, "gradual execution"),
        (policy.trade_side is not None, "trading one side only"),
        (not follows_rule and policy.destination not in DESTINATION_CODES, "this destination"),
        (settings.latency_bars > 0, "latency"),
        (bool(settings.flows), "deposits and withdrawals"),
        (bool(settings.recorded_pools), "recorded pools"),
        (settings.pool_kind not in CONSTANT_PRODUCT_KINDS, "this pool curve"),
        (
            is_band_and_schedule_only(trigger)
            and has_band(trigger)
            and band_and_interval(trigger) is None,
            "calendar schedules",
        ),
    )
    for is_unsupported, feature in unsupported_features:
        if is_unsupported:
            return feature
    if not follows_rule and band_and_interval(trigger) is None:
        return "this trigger"
    min_trade = 0.0
    if spec.limits.min_trade is not None:
        min_trade = float(spec.limits.min_trade / 10**portfolio.numeraire.decimals)
    targets = tuple(asset.target_bps for asset in portfolio.assets)
    costs = simulated_costs(spec, settings)
    rule = None
    if isinstance(trigger, NoTradeZone):
        rule = kernel_rule(spec, trigger, costs)
    return KernelSetting(
        targets, trigger, policy.destination, costs, policy.cooldown_s, min_trade, rule
    )


def band_edges(spec: BacktestSpec) -> FloatArray | None:
    """Return the edges of each asset's band around its configured target, as shares; None if no
    weight can leave a band.
    """
    if (
        not has_band(spec.policy.trigger)
        or spec.portfolio.allocator is not None
        or spec.split is not None
    ):
        return None
    edges_bps = [
        band(spec.policy.trigger, asset.target_bps, asset.band, asset.max_bps)
        for asset in spec.portfolio.assets
    ]
    return np.array(
        [[float(low_bps) / BPS, float(high_bps) / BPS] for low_bps, high_bps in edges_bps]
    )


def measure_by_kernel(
    spec: BacktestSpec, setting: KernelSetting, table: PriceTable, start_value: float
) -> PathMetrics:
    """Measure one path without gaps by the kernel, without gas, limits and stale prices."""
    tokens = [asset.token for asset in spec.portfolio.assets]
    prices = prices_in_numeraire(spec, table, table.closes, tokens)
    kernel_result = run_kernel(
        prepare_prices([token.symbol for token in tokens], table.times_s, prices),
        setting,
        start_value,
    )
    units = _units_by_bar(kernel_result)
    asset_values = units * prices
    portfolio_values = asset_values.sum(axis=1)
    turnover = 0.0
    for bar in kernel_result.rebalance_bars:
        units_before = units[max(bar - 1, 0)]
        traded_value = float(np.abs((units[bar] - units_before) * prices[bar]).sum())
        turnover += 0.5 * traded_value / float(portfolio_values[bar])
    return PathMetrics(
        loss=1 - float(portfolio_values[-1] / portfolio_values[0]),
        drawdown=max_drawdown(portfolio_values),
        hold_shortfall=1 - kernel_result.final_value / kernel_result.hold_value,
        turnover=turnover,
        outside_share=share_outside_bands(
            asset_values / portfolio_values[:, None], band_edges(spec)
        ),
        rebalance_count=kernel_result.rebalance_count,
    )


def share_outside_bands(weights: FloatArray, edge_shares: FloatArray | None) -> float:
    """Return the share of bars that end with a weight outside its band; NaN without bands."""
    if edge_shares is None:
        return float("nan")
    low_edges = edge_shares[:, 0] - WEIGHT_TOLERANCE
    high_edges = edge_shares[:, 1] + WEIGHT_TOLERANCE
    return float(((weights < low_edges) | (weights > high_edges)).any(axis=1).mean())


def max_drawdown(portfolio_values: FloatArray) -> float:
    """Return the largest decline from an earlier maximum, as a share of that maximum."""
    return float((1 - portfolio_values / np.maximum.accumulate(portfolio_values)).max())


def _units_by_bar(kernel_result: KernelResult) -> FloatArray:
    """Return the units at the end of each bar."""
    recorded_rows = np.where(
        kernel_result.holdings.any(axis=1), np.arange(len(kernel_result.holdings)), 0
    )
    units: FloatArray = kernel_result.holdings[np.maximum.accumulate(recorded_rows)]
    return units


BLOCKS_NAME = "resampled blocks"
JUMPS_NAME = "jump diffusion"
METHOD_NAMES = {PathMethod.BLOCKS: BLOCKS_NAME, PathMethod.JUMPS: JUMPS_NAME}
KERNEL_PIECE_PATHS = 200
"""Kernel paths per piece; a piece takes a few tenths of a second."""


class PieceKind(Enum):
    """Kind of work: the engine, and whether a scenario is applied."""

    KERNEL = "kernel"
    STEP = "step"
    STRESSED = "stressed"
    """The live step over calm paths (the recorded path first), each with a scenario applied."""


@dataclass(frozen=True, slots=True)
class StressPiece:
    """Paths [`start`, `end`) of the case `case_name`."""

    case_name: str
    kind: PieceKind
    method: PathMethod
    scenario: SpotScenario
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PieceResult:
    """Result of a piece; for the live step also refusals by limit, the final value of each path as
    a share of its start (`growth_factors`), and versions.
    """

    path_metrics: tuple[PathMetrics, ...]
    refusals: tuple[tuple[str, int], ...] = ()
    growth_factors: tuple[float, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StressWork:
    """Input of every path. `recorded_path` is the recorded path, as long as all others.
    `kernel_setting_or_reason` is the policy as a kernel setting, or the reason why the kernel does
    not support it.
    """

    backtest: BacktestSpec
    settings: SimulationSettings
    severity: SpotSeverity
    history: ReturnHistory
    mean_block_bars: float
    recorded_path: PriceTable
    kernel_setting_or_reason: KernelSetting | str
    jump_model: JumpDiffusion

    @classmethod
    def prepare(
        cls,
        spec: BacktestSpec,
        settings: SimulationSettings,
        severity: SpotSeverity,
        history: ReturnHistory,
        mean_block_bars: float,
        recorded_path: PriceTable,
    ) -> StressWork:
        """Build the work with its derived fields."""
        return cls(
            spec,
            settings,
            severity,
            history,
            mean_block_bars,
            recorded_path,
            kernel_setting_or_reason(spec, settings),
            fit_jump_diffusion(history),
        )

    def pieces(
        self, paths: int, step_paths: int, scenarios: Sequence[SpotScenario]
    ) -> tuple[StressPiece, ...]:
        """Return all pieces, case after case; each path of the live step is one piece."""
        return tuple(self._iterate_pieces(paths, step_paths, scenarios))

    def _iterate_pieces(
        self, paths: int, step_paths: int, scenarios: Sequence[SpotScenario]
    ) -> Iterator[StressPiece]:
        for method in PathMethod:
            if isinstance(self.kernel_setting_or_reason, str):
                yield from (
                    StressPiece(
                        METHOD_NAMES[method],
                        PieceKind.STEP,
                        method,
                        SpotScenario.CALM,
                        path_number,
                        path_number + 1,
                    )
                    for path_number in range(step_paths)
                )
            else:
                for start in range(0, paths, KERNEL_PIECE_PATHS):
                    yield StressPiece(
                        METHOD_NAMES[method],
                        PieceKind.KERNEL,
                        method,
                        SpotScenario.CALM,
                        start,
                        min(paths, start + KERNEL_PIECE_PATHS),
                    )
        for scenario in scenarios:
            yield from (
                StressPiece(
                    scenario.value,
                    PieceKind.STRESSED,
                    PathMethod.BLOCKS,
                    scenario,
                    path_number,
                    path_number + 1,
                )
                for path_number in range(step_paths)
            )

    def run(self, piece: StressPiece) -> PieceResult:
        """Run one piece, in any process. Raises the errors of a simulation."""
        path_numbers = range(piece.start, piece.end)
        if piece.kind is PieceKind.KERNEL and not isinstance(self.kernel_setting_or_reason, str):
            start_value = float(self.settings.start_value)
            return PieceResult(
                tuple(
                    measure_by_kernel(
                        self.backtest,
                        self.kernel_setting_or_reason,
                        self.path(piece.method, path_number),
                        start_value,
                    )
                    for path_number in path_numbers
                )
            )
        from agent.backtest.simulate import simulate

        (path_number,) = path_numbers
        if piece.kind is PieceKind.STRESSED:
            path = self.calm_path(path_number)
        else:
            path = self.path(piece.method, path_number)
        stressed_path = apply_scenario(
            piece.scenario, self.backtest, path, self.settings, self.severity
        )
        simulation_result = simulate(self.backtest, stressed_path.table, stressed_path.settings)
        growth_factor = float(simulation_result.equity[-1] / simulation_result.equity[0])
        return PieceResult(
            (_path_metrics(self.backtest, stressed_path, simulation_result),),
            simulation_result.refusal_counts,
            (growth_factor,),
            simulation_result.versions,
        )

    def path(self, method: PathMethod, path_number: int) -> PriceTable:
        """Return the path with that number, from its own random generator."""
        generator = np.random.default_rng(
            [self.settings.seed, list(PathMethod).index(method), path_number]
        )
        if method is PathMethod.BLOCKS:
            return bootstrap_path(
                self.history, self.recorded_path.bar_count, self.mean_block_bars, generator
            )
        return jump_diffusion_path(
            self.history, self.jump_model, self.recorded_path.bar_count, generator
        )

    def calm_path(self, path_number: int) -> PriceTable:
        """Return the recorded path for number 0, then resampled ones."""
        return self.path(PathMethod.BLOCKS, path_number - 1) if path_number else self.recorded_path


def run_sequentially(
    work: StressWork, pieces: Sequence[StressPiece]
) -> Iterator[tuple[StressPiece, PieceResult]]:
    """Run the pieces in order in this process, and yield each with its result."""
    return ((piece, work.run(piece)) for piece in pieces)


def _path_metrics(
    spec: BacktestSpec, stressed_path: StressedPath, simulation_result: SimulationResult
) -> PathMetrics:
    start_value = float(simulation_result.start_value) / 10**simulation_result.decimals
    values_before_and_at_bars = np.concatenate([[start_value], simulation_result.equity])
    peg_values = stressed_path.numeraire_values
    portfolio_values: NDArray[np.float64] = values_before_and_at_bars * np.concatenate(
        [peg_values[:1], peg_values]
    )
    return PathMetrics(
        loss=1 - float(portfolio_values[-1] / portfolio_values[0]),
        drawdown=max_drawdown(portfolio_values),
        hold_shortfall=1 - float(simulation_result.equity[-1] / simulation_result.hold_equity[-1]),
        turnover=float(simulation_result.turnover_ratio),
        outside_share=share_outside_bands(simulation_result.weights, band_edges(spec)),
        rebalance_count=sum(rebalance.succeeded for rebalance in simulation_result.rebalances),
        halted_bar_count=simulation_result.halted_bar_count,
        refusal_count=sum(count for _, count in simulation_result.refusal_counts),
    )
