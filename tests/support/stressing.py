"""Portfolios, prices and wishes for stress tests, so that tests say only what differs."""

from __future__ import annotations

from dataclasses import replace

from agent.backtest.data import PriceTable
from agent.backtest.settings import PERMISSIVE_LIMITS, BacktestSpec, SimulationSettings, make_spec
from agent.backtest.simulate import SimulationResult, simulate
from agent.backtest.stress.paths import Scenario, Severity, apply_scenario
from agent.backtest.stress.run import StressSpec
from tests.support.simulating import BAND, DEEP, HALVES, hourly

BARS = 18
BEGINS, ENDS = 6, 12
"""The middle third."""
RISES_AT = BEGINS


def risen() -> PriceTable:
    """BTC at 100, and from the first bar of the middle third on at 130: 56.5 % of a half, beyond a band of five points."""
    return hourly(BTC=[100.0] * RISES_AT + [130.0] * (BARS - RISES_AT))


def guarded(**limits: object) -> BacktestSpec:
    """Half BTC, which pays the gas, half USD, with these limits and no others."""
    return make_spec(HALVES, BAND, "USD", native="BTC", limits=replace(PERMISSIVE_LIMITS, **limits))  # type: ignore[arg-type]  # checked by replace


def under(
    scenario: Scenario, wanted: BacktestSpec, table: PriceTable, settings: SimulationSettings = DEEP, severity: Severity | None = None
) -> SimulationResult:
    """The live step with the scenario laid over the prices."""
    laid = apply_scenario(scenario, wanted, table, settings, severity or Severity(crash_bars=3))
    return simulate(wanted, laid.table, laid.settings)


def wish(paths: int = 20, step_paths: int = 1, bars: int = 40, scenarios: tuple[Scenario, ...] = (), **others: object) -> StressSpec:
    """A small one."""
    return StressSpec(paths, step_paths, bars, scenarios, Severity(), **others)  # type: ignore[arg-type]  # field names, checked at run time
