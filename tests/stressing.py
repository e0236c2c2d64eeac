"""Portfolios, prices and wishes for stress tests, so that tests say only what differs."""

from __future__ import annotations

from dataclasses import replace

from agent.backtest.data import PriceTable
from agent.backtest.settings import OPEN_LIMITS, Settings, Wanted, simple
from agent.backtest.simulate import SimulationResult, simulate
from agent.backtest.stress.paths import Scenario, Severity, lay
from agent.backtest.stress.run import Wish
from tests.simulating import BAND, DEEP, HALVES, hourly

BARS = 18
BEGINS, ENDS = 6, 12
"""The middle third."""
RISES_AT = BEGINS


def risen() -> PriceTable:
    """BTC at 100, and from the first bar of the middle third on at 130: 56.5 % of a half, beyond a band of five points."""
    return hourly(BTC=[100.0] * RISES_AT + [130.0] * (BARS - RISES_AT))


def guarded(**limits: object) -> Wanted:
    """Half BTC, which pays the gas, half USD, with these limits and no others."""
    return simple(HALVES, BAND, "USD", native="BTC", limits=replace(OPEN_LIMITS, **limits))  # type: ignore[arg-type]  # checked by replace


def under(
    scenario: Scenario, wanted: Wanted, table: PriceTable, settings: Settings = DEEP, severity: Severity | None = None
) -> SimulationResult:
    """The live step with the scenario laid over the prices."""
    laid = lay(scenario, wanted, table, settings, severity or Severity(crash_bars=3))
    return simulate(wanted, laid.table, laid.settings)


def wish(paths: int = 20, step_paths: int = 1, bars: int = 40, scenarios: tuple[Scenario, ...] = (), **others: object) -> Wish:
    """A small one."""
    return Wish(paths, step_paths, bars, scenarios, Severity(), **others)  # type: ignore[arg-type]  # field names, checked at run time
