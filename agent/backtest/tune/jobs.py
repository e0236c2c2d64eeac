"""One search as work that can be shared out: its runs in chunks, each run by the fast kernel or by the full step."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from agent.backtest.data import PriceTable, carried, prices_of
from agent.backtest.kernel.sweep import Setting, bars_of, costs_of, sweep
from agent.backtest.settings import OPEN_LIMITS, Settings, Wanted
from agent.backtest.simulate import run, simulate
from agent.backtest.tune.grid import Choice
from agent.config.weights import HOUR_S, LONGEST_WINDOW_S
from agent.errors import ConfigError, OperatorNeeded
from agent.model import Method, Style, UntilChosen, Weights
from agent.policy.text import span
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


# --- What a search has done so far, as Parquet files in a folder: each written whole or not at all, so that a killed search goes on.


STAMP = "search.json"
NAMES = {
    "format": "the format of the files",
    "version": "the version of trimtab",
    "grid": "the grid",
    "data": "the prices",
    "settings": "the portfolio or the market",
    "search": "how the search is made",
}
"""What a search is known by, as its stamp and as words."""
_COLUMNS = ("run", "final_value", "turnover", "costs", "rebalances")


class Kept:
    """What is done: in the folder, or in memory alone where there is none. One process at a time writes there."""

    def __init__(self, folder: Path | None, stamp: Mapping[str, str], runs: Sequence[Choice]) -> None:
        self._folder, self._stamp, self._runs = folder, dict(stamp), runs
        self.done: dict[str, list[Found]] = {}

    @contextmanager
    def opened(self) -> Iterator[Kept]:
        """Reads what an earlier run left, and holds the folder. Raises ConfigError for a folder of another search, or of something
        else, OperatorNeeded while another process writes there.
        """
        if self._folder is None:
            yield self
            return
        lock = FileLock(self._folder / ".lock")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise OperatorNeeded(f"--out: another search writes into {self._folder}", "wait for it, or name another folder") from None
        except OSError as error:
            raise _unwritable(self._folder, error) from None
        try:
            self._read(self._folder)
            yield self
        finally:
            lock.release()

    def _read(self, folder: Path) -> None:
        for left in folder.glob(".*.part"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        path, files = folder / STAMP, sorted(folder.glob("*.parquet"))
        if not path.is_file():
            if files:
                raise ConfigError(f"--out: {folder} holds files that are no search of this kind", "name an empty folder")
            _write(path, json.dumps(self._stamp, indent=1).encode())
            return
        _require_same(path, self._stamp)
        for file in files:
            self.done[file.stem] = _founds(file)

    def key(self, chunk: Chunk) -> str:
        """The name of a chunk's file."""
        return f"runs-{chunk.start:07d}-{chunk.end:07d}"

    def keep(self, key: str, found: list[Found], choices: Sequence[Choice]) -> None:
        """Written to the disk before it counts as done."""
        if self._folder is not None:
            frame = _polars().DataFrame(_rows(found, choices))
            _write(self._folder / f"{key}.parquet", frame)
        self.done[key] = found


def _polars() -> Any:
    return import_module("polars")


def _rows(found: list[Found], choices: Sequence[Choice]) -> dict[str, Any]:
    bands = [choice.band for choice in choices]
    return {
        **{name: [getattr(one, name) for one in found] for name in _COLUMNS},
        "band_absolute_bps": [None if band is None else band.absolute_bps for band in bands],
        "band_relative_bps": [None if band is None else band.relative_bps for band in bands],
        "every_s": [choice.every_s for choice in choices],
        "destination": [choice.destination.value for choice in choices],
        "allocator": [choice.allocator.value for choice in choices],
        "values": [one.values.tolist() for one in found],
    }


def _founds(path: Path) -> list[Found]:
    try:
        frame = _polars().read_parquet(path)
        return [_found(row) for row in frame.iter_rows(named=True)]
    except Exception:  # whatever a broken file makes the library say
        raise ConfigError(f"--out: {path} is damaged", "remove that file; its runs are done anew") from None


def _found(row: Mapping[str, Any]) -> Found:
    final, turnover, costs = (float(row[name]) for name in ("final_value", "turnover", "costs"))
    return Found(int(row["run"]), final, turnover, costs, int(row["rebalances"]), np.array(row["values"], dtype=np.float64))


def _require_same(path: Path, stamp: Mapping[str, str]) -> None:
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise ConfigError(f"--out: {path} says nothing that can be read", "name an empty folder")
    others = [words for name, words in NAMES.items() if before.get(name) != stamp[name]]
    if others:
        raise ConfigError(
            f"--out: {path.parent} holds another search: {', '.join(others)} differ", "name another folder, or repeat the command of then"
        )


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"--out: {path} cannot be written: {error.strerror or error}", "name a folder that you may write, or make room; what is done stays"
    )


def _write(path: Path, content: Any) -> None:
    """See `_put`. Raises ConfigError where nothing can be written."""
    try:
        _put(path, content)
    except OSError as error:
        raise _unwritable(path, error) from None


def _put(path: Path, content: Any) -> None:
    """Bytes or a table, beside it, to the disk, and renamed: a kill leaves the file whole, or not there."""
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content.write_parquet(file)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


# --- What a search will take, measured on a few of its settings before it starts.


ASK_ABOVE_S = 300
"""A search that takes longer is asked for first."""
QUICK_RUNS = 2_000
"""So many runs of the kernel are not worth measuring."""
KERNEL_SAMPLES, STEP_SAMPLES, SAMPLE_S = 8, 3, 2.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """Runs that are still to do, over how many bars, the work in seconds of one core, and how many cores share it."""

    runs: int
    bars: int
    core_s: float
    cores: int
    measured: int

    @property
    def wall_s(self) -> float:
        """How long that is."""
        return self.core_s / self.cores

    @property
    def words(self) -> str:
        """In a sentence."""
        shared = "" if self.cores == 1 else f", on {self.cores} cores about {span(round(self.wall_s))}"
        return f"{self.runs:,} runs over {self.bars:,} bars: about {span(max(1, round(self.core_s)))} of one core{shared}"


def estimated(job: Job, chunks: Sequence[Chunk], cores: int) -> Estimate:
    """Runs a few settings, evenly spread, each of the full step for two seconds at most and then scaled by the bars that are left."""
    kernel = [run for chunk in chunks if chunk.engine is Engine.KERNEL for run in range(chunk.start, chunk.end)]
    steps = [chunk.start for chunk in chunks if chunk.engine is Engine.FULL]
    total, measured = 0.0, 0
    if len(kernel) > QUICK_RUNS:
        some = _spread(kernel, KERNEL_SAMPLES)
        job.do(Chunk(0, some[0], some[0] + 1, Engine.KERNEL))  # loads and compiles
        for one in some:
            begun = time.perf_counter()
            job.do(Chunk(0, one, one + 1, Engine.KERNEL))
            total += (time.perf_counter() - begun) / len(some) * len(kernel)
        measured += len(some)
    if steps:
        some = _spread(steps, STEP_SAMPLES)
        total += sum(_step_s(job, one) for one in some) / len(some) * len(steps)
        measured += len(some)
    return Estimate(len(kernel) + len(steps), job.table.bars, total, max(1, cores), measured)


def _spread(runs: Sequence[int], most: int) -> list[int]:
    count = min(most, len(runs))
    return [runs[round(i * (len(runs) - 1) / max(1, count - 1))] for i in range(count)]


def _step_s(job: Job, one: int) -> float:
    """How long a run of the full step would take, from its first bars."""
    wanted = wanted_of(job.wanted, job.runs[one], job.terms, job.table.interval_s)
    begun = time.perf_counter()
    with run(wanted, job.table, job.settings) as going:
        while going.next():
            passed = time.perf_counter() - begun
            if passed > SAMPLE_S:
                return passed * job.table.bars / (going.world.bar + 1)
    return time.perf_counter() - begun
