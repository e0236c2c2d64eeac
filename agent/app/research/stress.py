"""Stress tests: simulated paths and stress scenarios of a backtest's portfolio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from agent.app.research.backtests import MarketOptions, PortfolioOptions, require_priced_gas
from agent.backtest.data import PriceTable
from agent.backtest.settings import BacktestSpec, SimulationSettings
from agent.backtest.stress.paths import Scenario, Severity
from agent.backtest.stress.report import stress_document
from agent.backtest.stress.run import (
    MOST_BARS,
    StressResult,
    StressSpec,
    estimate_s,
    run_stress_test,
)
from agent.backtest.stress.run import Progress as StressProgress
from agent.backtest.stress.work import PieceResult, StressPiece, StressWork, run_sequentially
from agent.backtest.sweep import available_cores
from agent.backtest.workers import run_in_processes
from agent.config.build import starting_limits
from agent.config.fields import parse_gas_price_wei
from agent.errors import ConfigError
from agent.units import parse_raw, parse_share_bps

__all__ = ["stress_document"]

DEFAULT_BARS = 720
"""Default length of a path: one month of hourly bars."""
PLACES = 18
PARALLEL_FROM_S = 15.0
"""Estimated seconds on one core above which several processes share the work."""
LOST = "a process of the stress test died, perhaps for lack of memory"


@dataclass(frozen=True, slots=True)
class StressOptions:
    """Options of a stress test, as entered. `scenarios` "all" selects those that apply to the
    portfolio; an empty `block` is chosen from the data.
    """

    paths: int = 2_000
    step_paths: int = 3
    bars: int = 0
    scenarios: str = "all"
    block: str = ""
    drift: str = "recorded"
    crash: str = "50%"
    crash_bars: int = 24
    depeg: str = "10%"
    gas: str = "500 gwei"
    thin: str = "0.001"

    def spec(self, table: PriceTable) -> StressSpec:
        """Parse the options. Raises ConfigError naming the option."""
        if self.drift not in ("recorded", "none"):
            raise ConfigError(f"--drift: {self.drift!r}", "choose recorded or none")
        if self.bars < 0 or self.bars > MOST_BARS:
            raise ConfigError(f"--bars: {self.bars}", f"a path has 3 to {MOST_BARS:,} bars")
        severity = Severity(
            crash_bps=parse_share_bps(self.crash, "--crash"),
            crash_bars=self.crash_bars,
            depeg_bps=parse_share_bps(self.depeg, "--depeg"),
            gas_wei=parse_gas_price_wei(self.gas, "--gas-spike"),
            depth_part=_number(self.thin, "--thin"),
        )
        return StressSpec(
            paths=self.paths,
            step_paths=self.step_paths,
            bars=self.bars or min(DEFAULT_BARS, table.bars),
            scenarios=_scenarios(self.scenarios),
            severity=severity,
            block=float(_number(self.block, "--block")) if self.block else None,
            drift=self.drift == "recorded",
            named=self.scenarios != "all",
        )


@dataclass(frozen=True, slots=True)
class PreparedStressTest:
    """A checked stress test, and its estimated seconds on one core."""

    portfolio: BacktestSpec
    table: PriceTable
    settings: SimulationSettings
    test: StressSpec
    seconds: float


def prepare_stress(
    prices: Path,
    market: MarketOptions,
    shocks: StressOptions,
    portfolio: PortfolioOptions,
    *,
    limits: str = "usual",
) -> PreparedStressTest:
    """Check the options and build the stress test. Without a config, `limits` are "usual" (those of
    `trimtab init`) or "off". Raises ConfigError naming the option.
    """
    table = portfolio.load_prices(prices)
    settings = market.settings(every_bar=False)
    if portfolio.config is None and limits not in ("usual", "off"):
        raise ConfigError(f"--limits: {limits!r}", "choose usual or off")
    spec = portfolio.spec(table)
    if portfolio.config is None and limits == "usual":
        spec = replace(spec, limits=starting_limits(spec.portfolio.numeraire))
    require_priced_gas(settings, spec, table)
    test = shocks.spec(table)
    return PreparedStressTest(spec, table, settings, test, estimate_s(test, spec, settings))


def run_stress(
    prepared: PreparedStressTest, progress: StressProgress | None = None, cores: int = 0
) -> StressResult:
    """Run the stress test on `cores` cores (0: all); their number does not change the result.

    A short test runs in this process. Raises ConfigError if the options do not fit the prices,
    Retryable if a process died.
    """
    many = cores or available_cores()

    def share(
        work: StressWork, pieces: Sequence[StressPiece]
    ) -> Iterator[tuple[StressPiece, PieceResult]]:
        return run_in_processes(work, pieces, min(many, len(pieces)), LOST)

    alone = many == 1 or prepared.seconds < PARALLEL_FROM_S
    return run_stress_test(
        prepared.portfolio,
        prepared.table,
        prepared.settings,
        prepared.test,
        progress,
        run_sequentially if alone else share,
    )


def _scenarios(text: str) -> tuple[Scenario, ...]:
    known = {one.value: one for one in Scenario if one is not Scenario.CALM}
    if text == "all":
        return tuple(known.values())
    names = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError(
            f"--scenarios: {(unknown or [text])[0]!r}", f"choose from {', '.join(known)}, or all"
        )
    return tuple(known[name] for name in dict.fromkeys(names))


def _number(text: str, option: str) -> Fraction:
    return Fraction(parse_raw(text, PLACES, option), 10**PLACES)
