"""One search as work that can be shared out: its runs in chunks, each run by the fast kernel or by the full step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from agent.backtest.columns import prices_of
from agent.backtest.fast import sweep
from agent.backtest.fast_prices import bars_of
from agent.backtest.fast_settings import Setting, costs_of
from agent.backtest.simulate import simulate
from agent.backtest.table import PriceTable, carried
from agent.backtest.tune_grid import Choice
from agent.backtest.wanted import OPEN_LIMITS, Settings, Wanted
from agent.config.weights import HOUR_S, LONGEST_WINDOW_S
from agent.errors import ConfigError
from agent.model import Method, Style, UntilChosen, Weights
from agent.units import BPS

Floats = NDArray[np.float64]
KERNEL_CHUNK = 512
DAY_S = 86_400
FEWEST_FREE = 2


class Engine(Enum):
    """What runs a setting: the kernel of fixed weights, or the step that trades live."""

    KERNEL = "kernel"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Terms:
    """How allocators look at prices: chosen anew every `every_s` from the last `window_s`."""

    every_s: int
    window_s: int


@dataclass(frozen=True, slots=True)
class Found:
    """What one run came to, in whole coins of the numeraire; `values` are its worth at the job's marks, after trading.

    All of it from the first mark on, as if the run had begun there with the market's start: what was traded at that bar or before it,
    while an allocator gathered its prices, is in no figure.
    """

    run: int
    final_value: float
    turnover: float
    costs: float
    rebalances: int
    values: Floats


@dataclass(frozen=True, slots=True)
class Chunk:
    """Runs from `start` to before `end`, done and kept together."""

    number: int
    start: int
    end: int
    engine: Engine


@dataclass(frozen=True, slots=True)
class Job:
    """Runs over one table, which holds the wanted symbols alone, each with a price in its first row. `marks` are rising bars."""

    table: PriceTable
    wanted: Wanted
    settings: Settings
    runs: tuple[Choice, ...]
    marks: tuple[int, ...]
    terms: Terms
    full: bool = False

    def engine(self, choice: Choice) -> Engine:
        """The kernel where it knows all that matters, and was not ruled out."""
        fits = not self.full and choice.allocator is Method.FIXED and kernel_knows(self.wanted, self.settings)
        return Engine.KERNEL if fits else Engine.FULL

    def chunks(self) -> tuple[Chunk, ...]:
        """All runs, in order: many of the kernel together, each of the full step by itself."""
        found: list[Chunk] = []
        for number, choice in enumerate(self.runs):
            engine, last = self.engine(choice), found[-1] if found else None
            if last is not None and last.engine is engine is Engine.KERNEL and last.end - last.start < KERNEL_CHUNK:
                found[-1] = replace(last, end=number + 1)
            else:
                found.append(Chunk(len(found), number, number + 1, engine))
        return tuple(found)

    def do(self, chunk: Chunk, cores: int | None = 1) -> list[Found]:
        """The runs of a chunk; the kernel takes `cores` at once. Raises what a simulation raises."""
        if chunk.engine is Engine.KERNEL:
            return self._by_kernel(chunk, cores)
        return [self._by_step(run) for run in range(chunk.start, chunk.end)]

    def _by_kernel(self, chunk: Chunk, cores: int | None) -> list[Found]:
        tokens, start = [asset.token for asset in self.wanted.portfolio.assets], float(self.settings.start_value)
        prices = prices_of(self.wanted, self.table, self.table.closes, tokens)
        bars = bars_of([token.symbol for token in tokens], self.table.times_s, prices)
        settings = [kernel_setting(self.wanted, self.settings, choice) for choice in self.runs[chunk.start : chunk.end]]
        done = sweep(bars, settings, start, marks=self.marks, cores=cores)
        return [
            Found(
                chunk.start + i, float(done.final_value[i]), float(done.turnover[i]), float(done.costs[i]), int(done.rebalances[i]),
                done.values[i],
            )
            for i in range(len(settings))
        ]  # fmt: skip

    def _by_step(self, run: int) -> Found:
        done = simulate(wanted_of(self.wanted, self.runs[run], self.terms, self.table.interval_s), self.table, self.settings)
        first, values = self.marks[0], done.equity[list(self.marks)]
        whole = Fraction(float(values[0])) / self.settings.start_value if first else Fraction(1)  # a start before the marks warms up
        scale = 10**done.decimals * whole
        counted = [one for one in done.rebalances if one.bar > first]
        return Found(
            run,
            float(done.final_value / scale),
            float(sum((one.turnover for one in counted), Fraction(0)) / scale),
            float(sum((one.fees + one.impact + one.gas for one in counted), Fraction(0)) / scale),
            sum(one.succeeded for one in counted),
            np.ascontiguousarray(values / float(whole)),
        )


def kernel_knows(wanted: Wanted, settings: Settings) -> bool:
    """Whether fixed weights, fees and depth are all that there is: no gas, delay, limits, reserves, orders, strategies, own bands."""
    portfolio, policy = wanted.portfolio, wanted.policy
    plain = Settings(settings.depth, settings.fee_pips, settings.start_value, settings.pool, seed=settings.seed)
    whole = all(asset.reserve_raw == 0 and asset.band is None and asset.max_bps is None for asset in portfolio.assets)
    free = wanted.split is None and portfolio.weights is None and not portfolio.orders.terms and policy.only is None
    return settings == plain and whole and free and wanted.limits == OPEN_LIMITS and wanted.execution.pace.style is Style.MARKET


def kernel_setting(wanted: Wanted, settings: Settings, choice: Choice) -> Setting:
    """A choice as the kernel takes it: each asset has a pool with the numeraire."""
    targets = tuple(asset.target_bps for asset in wanted.portfolio.assets)
    return Setting(targets, choice.trigger, choice.destination, costs_of(wanted, settings), wanted.policy.cooldown_s)


def wanted_of(wanted: Wanted, choice: Choice, terms: Terms, interval_s: int) -> Wanted:
    """The wishes with this choice's trigger, destination and allocator."""
    policy = replace(wanted.policy, trigger=choice.trigger, destination=choice.destination)
    weights = wanted.portfolio.weights if choice.allocator is Method.FIXED else _weights(wanted, choice.allocator, terms, interval_s)
    return replace(wanted, policy=policy, portfolio=replace(wanted.portfolio, weights=weights))


def _weights(wanted: Wanted, method: Method, terms: Terms, interval_s: int) -> Weights:
    """The numeraire stays at its target, so that all allocators share out the same rest; until enough is known, targets count."""
    money = wanted.portfolio.numeraire.address
    free = [asset for asset in wanted.portfolio.assets if asset.token.address != money]
    if len(free) < FEWEST_FREE:
        raise ConfigError("--allocator: has fewer than two assets to choose weights for", "name more in --target, or leave it out")
    step_s = max(DAY_S, interval_s)
    if not HOUR_S <= terms.every_s <= LONGEST_WINDOW_S:
        raise ConfigError(f"--rechoose: {terms.every_s} s", "write a time from 1h to 730d: live, prices are recorded once an hour")
    if terms.window_s > LONGEST_WINDOW_S:
        raise ConfigError(f"--window: {terms.window_s // DAY_S} d, more than a live allocator may look back", "write 730d or less")
    least = max(2, len(free) + 1)
    if terms.window_s < least * step_s:
        raise ConfigError(
            f"--window: shorter than {least} steps of {step_s // DAY_S} d, which {len(free)} assets need",
            f"write {least * step_s // DAY_S}d or more",
        )
    fixed = tuple(asset.token.address for asset in wanted.portfolio.assets if asset.token.address == money)
    returns = max(least, terms.window_s // step_s // 2)
    return Weights(
        method, terms.every_s, terms.window_s, step_s, returns, 3 * step_s, terms.window_s, 0, UntilChosen.TARGETS, fixed, ()
    )  # fmt: skip


def piece(table: PriceTable, start: int, end: int) -> PriceTable:
    """Bars from `start` to before `end`; where the first of them lacks a price, the newest before it stands."""
    closes = table.closes[start:end].copy()
    closes[0] = carried(table.closes[: start + 1])[-1]
    return replace(table, times_s=table.times_s[start:end], closes=closes, notes=())


def part_of(settings: Settings, start: int, end: int) -> Settings:
    """The same market for those bars alone."""
    gas = settings.gas_wei
    return settings if isinstance(gas, int) else replace(settings, gas_wei=tuple(gas[start:end]))


def held(wanted: Wanted, settings: Settings, table: PriceTable, marks: Sequence[int]) -> Floats:
    """What a wallet that begins at its targets, with its reserves, is worth at the marks when nothing is ever traded; whole coins."""
    assets = wanted.portfolio.assets
    prices = prices_of(wanted, table, carried(table.closes), [asset.token for asset in assets])
    shares = np.array([asset.target_bps / BPS for asset in assets])
    units = float(settings.start_value) * shares / prices[marks[0]]
    units += np.array([asset.reserve_raw / 10.0**asset.token.decimals for asset in assets])
    found: Floats = prices[list(marks)] @ units
    return found
