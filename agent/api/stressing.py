"""A stress test from what a command line says: the prices and wishes of a backtest, how many paths, and what is to go wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from agent.api.backtesting import Market, from_config, from_options, priced, require_priced_gas
from agent.api.reporting import write_pages
from agent.backtest.fast import cores_here
from agent.backtest.stress import MOST_BARS, Progress, StressResult, Wish, estimate_s, stress
from agent.backtest.stress_report import figures as stress_figures
from agent.backtest.stress_report import page
from agent.backtest.stress_scenarios import Scenario, Severity
from agent.backtest.stress_work import Done, Piece, Work, one_by_one
from agent.backtest.table import PriceTable
from agent.backtest.wanted import Settings, Wanted
from agent.backtest.workers import by_processes
from agent.config.build import starting_limits
from agent.config.fields import parse_gas_price_wei
from agent.config.load import load_config
from agent.errors import ConfigError
from agent.units import parse_raw, parse_share_bps

USUAL_BARS = 720
"""A month of hours."""
PLACES = 18
SHARED_FROM_S = 15.0
"""What takes one core less is done here: other processes take seconds to begin."""
LOST = "a process of the stress test died, perhaps for lack of memory"
__all__ = ["Prepared", "Shocks", "prepare_stress", "run_stress", "stress_figures", "write_stress_report"]


@dataclass(frozen=True, slots=True)
class Shocks:
    """What is to be tried, as it is written. `scenarios` "all" are those that the portfolio can meet; `block` empty is by rule."""

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

    def wish(self, table: PriceTable) -> Wish:
        """The same as numbers. Raises ConfigError naming the option."""
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
        return Wish(
            paths=self.paths,
            step_paths=self.step_paths,
            bars=self.bars or min(USUAL_BARS, table.bars),
            scenarios=_scenarios(self.scenarios),
            severity=severity,
            block=float(_number(self.block, "--block")) if self.block else None,
            drift=self.drift == "recorded",
            named=self.scenarios != "all",
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that a stress test needs, checked, and how many seconds it may take on one core."""

    wanted: Wanted
    table: PriceTable
    settings: Settings
    wish: Wish
    seconds: float


def prepare_stress(
    prices: Path,
    market: Market,
    shocks: Shocks,
    *,
    config: Path | None = None,
    target: str = "",
    band: str = "",
    every: str = "",
    destination: str = "target",
    numeraire: str = "",
    native: str = "",
    names: str = "",
    limits: str = "usual",
) -> Prepared:
    """As `backtest` reads them. Without a config the `limits` are "usual", those that `trimtab init` writes, or "off".

    Raises ConfigError naming the option.
    """
    table = priced(prices, names)
    settings = market.settings(every_bar=False)
    if config is not None:
        if target or band or every:
            raise ConfigError("--config: says targets and triggers itself", "leave --target, --band and --every away")
        wanted = from_config(load_config(config))
    else:
        if limits not in ("usual", "off"):
            raise ConfigError(f"--limits: {limits!r}", "choose usual or off")
        wanted = from_options(table, target, band, every, destination, numeraire, native)
        if limits == "usual":
            wanted = replace(wanted, limits=starting_limits(wanted.portfolio.numeraire))
    require_priced_gas(settings, wanted, table)
    wish = shocks.wish(table)
    return Prepared(wanted, table, settings, wish, estimate_s(wish, wanted, settings))


def run_stress(prepared: Prepared, progress: Progress | None = None, cores: int = 0) -> StressResult:
    """See agent/backtest/stress.py; on so many cores, 0 is all, which changes nothing of the result. What takes a few seconds is done
    here. Raises ConfigError for what does not fit the prices, Retryable for a process that died.
    """
    many = cores or cores_here()

    def share(work: Work, pieces: Sequence[Piece]) -> Iterator[tuple[Piece, Done]]:
        return by_processes(work, pieces, min(many, len(pieces)), LOST)

    alone = many == 1 or prepared.seconds < SHARED_FROM_S
    return stress(prepared.wanted, prepared.table, prepared.settings, prepared.wish, progress, one_by_one if alone else share)


def write_stress_report(found: StressResult, path: Path) -> tuple[Path, Path]:
    """Writes the page, and beside it the same as JSON; returns both paths. Raises ConfigError where nothing can be written."""
    return write_pages(page(found), path)


def _scenarios(text: str) -> tuple[Scenario, ...]:
    every = tuple(one for one in Scenario if one is not Scenario.CALM)
    if text == "all":
        return every
    known = {one.value: one for one in every}
    asked = [part.strip() for part in text.split(",") if part.strip()]
    strange = [name for name in asked if name not in known]
    if strange or not asked:
        raise ConfigError(f"--scenarios: {(strange or [text])[0]!r}", f"choose from {', '.join(known)}, or all")
    return tuple(known[name] for name in dict.fromkeys(asked))


def _number(text: str, option: str) -> Fraction:
    return Fraction(parse_raw(text, PLACES, option), 10**PLACES)
