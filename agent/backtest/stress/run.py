"""Stress tests: a policy over thousands of simulated paths by the kernel, and the live step over
stress scenarios.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from math import isnan

import numpy as np
from numpy.typing import NDArray

from agent.backtest.data import PriceTable, forward_fill, select_spec_symbols
from agent.backtest.settings import BacktestSpec, SimulationSettings
from agent.backtest.simulate import spec_digest
from agent.backtest.stress.paths import (
    ReturnHistory,
    Scenario,
    Severity,
    apply_scenario,
    check_block,
    inapplicable_scenarios,
    mean_block_length,
    return_history,
)
from agent.backtest.stress.work import (
    PathMetrics,
    PieceKind,
    PieceResult,
    StressPiece,
    StressWork,
    kernel_setting_or_reason,
    measure_by_kernel,
    run_sequentially,
)
from agent.errors import ConfigError
from agent.model import schedules_of
from agent.policy.triggers.rules import is_plain

Progress = Callable[[str, int, int], None]
"""Called with the case, and its numbers of finished paths and of all paths."""
PieceRunner = Callable[
    [StressWork, Sequence[StressPiece]], Iterable[tuple[StressPiece, PieceResult]]
]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
WORST = 0.05
"""Share of worst paths that the expected shortfall averages."""
MOST_PATHS, MOST_BARS = 1_000_000, 1_000_000
MOST_CELLS = 20_000_000_000
"""Maximum number of bars over all paths; more would take days."""
KERNEL_S, KERNEL_CELL_S, STEP_S, QUIET_S = 1e-3, 1.5e-7, 0.03, 0.003
"""Estimated seconds per kernel path, per price in a kernel path, per evaluated bar of a live step,
and per bar of a band-only policy.
"""


@dataclass(frozen=True, slots=True)
class StressSpec:
    """Size of the test: `paths` of each method run by the kernel, and `step_paths` for each
    scenario run by the live step, each `bars` long.

    `block` is the mean block length, None for the rule of Politis & White. Without `drift` prices
    have no mean growth. With `named`, every scenario was requested by name; otherwise inapplicable
    scenarios are skipped and reported.
    """

    paths: int
    step_paths: int
    bars: int
    scenarios: tuple[Scenario, ...]
    severity: Severity
    block: float | None = None
    drift: bool = True
    named: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError naming the option that is invalid or far too large."""
        for name, number, most in (
            ("--paths", self.paths, MOST_PATHS),
            ("--step-paths", self.step_paths, MOST_PATHS),
        ):
            if not 1 <= number <= most:
                raise ConfigError(f"{name}: {number}", f"use 1 to {most:,} paths")
        if not 3 <= self.bars <= MOST_BARS:
            raise ConfigError(f"--bars: {self.bars}", f"a path has 3 to {MOST_BARS:,} bars")
        if (
            cells := self.bars * (2 * self.paths + self.step_paths * (len(self.scenarios) + 1))
        ) > MOST_CELLS:
            raise ConfigError(
                f"--paths: {cells:,} bars in total would take days",
                "use fewer paths, or shorter paths with --bars",
            )


@dataclass(frozen=True, slots=True)
class StressCase:
    """One kind of paths with its results, computed `by` "kernel" or "step". `refused` counts
    refusals by limit.
    """

    name: str
    by: str
    measured: tuple[PathMetrics, ...]
    refused: tuple[tuple[str, int], ...] = ()

    def values(self, name: str) -> NDArray[np.float64]:
        """Return one measure of every path."""
        return np.array([getattr(one, name) for one in self.measured], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class StressResult:
    """All cases, skipped scenarios with reasons, and the data needed to repeat the test.

    `kernel_off` is the largest relative difference between kernel and live step in the final value
    of the calm paths; None if the kernel does not support the policy.
    """

    cases: tuple[StressCase, ...]
    skipped: tuple[tuple[str, str], ...]
    bars: int
    interval_s: int
    moves: int
    block: float
    jump_rate: float
    kernel_off: float | None
    notes: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...]
    seed: int
    config_hash: str
    data_hash: str
    versions: tuple[tuple[str, str], ...]


def estimate_s(spec: StressSpec, wanted: BacktestSpec, settings: SimulationSettings) -> float:
    """Return the estimated seconds on one core, an approximate upper bound."""
    trigger = wanted.policy.trigger
    quick = (
        is_plain(trigger)
        and not schedules_of(trigger)
        and wanted.split is None
        and wanted.portfolio.weights is None
    )
    bar_s = QUIET_S if quick and not settings.looks_at_all else STEP_S
    step_s = spec.step_paths * (len(spec.scenarios) + 1) * spec.bars * bar_s
    if isinstance(kernel_setting_or_reason(wanted, settings), str):
        return 2 * step_s
    return step_s + 2 * spec.paths * (
        KERNEL_S + spec.bars * len(wanted.portfolio.assets) * KERNEL_CELL_S
    )


def run_stress_test(
    wanted: BacktestSpec,
    table: PriceTable,
    settings: SimulationSettings,
    spec: StressSpec,
    progress: Progress | None = None,
    share: PieceRunner = run_sequentially,
) -> StressResult:
    """Run the test on paths that begin at the newest prices of the table.

    Each path depends on the seed and its number, not on the count of paths. `share` may run the
    pieces of work in any order, with identical results. Raises ConfigError for too few prices, an
    invalid block length, and a named scenario that does not apply.
    """
    table = select_spec_symbols(wanted, table)
    past = return_history(table, spec.drift)
    block = mean_block_length(past) if spec.block is None else spec.block
    check_block(block, past)
    recorded = _recorded(table, spec.bars)
    skipped = list[tuple[str, str]]()
    if spec.named:  # reject inapplicable scenarios before any path runs
        for scenario in spec.scenarios:
            apply_scenario(scenario, wanted, recorded, settings, spec.severity)
    else:
        skipped = inapplicable_scenarios(spec.scenarios, wanted, recorded, settings, spec.severity)
    work = StressWork.of(wanted, settings, spec.severity, past, block, recorded)
    scenarios = (Scenario.CALM, *(one for one in spec.scenarios if one.value not in dict(skipped)))
    pieces = work.pieces(spec.paths, spec.step_paths, scenarios)
    done = _all(work, pieces, share, progress or (lambda *_: None))
    calm = {
        one.start: found
        for one, found in zip(pieces, done, strict=True)
        if one.kind is PieceKind.STRESSED and one.scenario is Scenario.CALM
    }
    if isinstance(work.setting, str):
        skipped.append(
            ("kernel", f"it does not support {work.setting}; those paths ran in the live step")
        )
    return StressResult(
        cases=_cases(pieces, done),
        skipped=tuple(skipped),
        bars=spec.bars,
        interval_s=past.interval_s,
        moves=len(past.returns),
        block=block,
        jump_rate=work.jumps.rate,
        kernel_off=_kernel_off(work, calm),
        notes=(*table.notes, *_left_out(table, past)),
        parameters=(
            *_parameter_texts(spec),
            ("start_value", str(settings.start_value)),
            ("fee_pips", str(settings.fee_pips)),
        ),
        seed=settings.seed,
        config_hash=sha256(f"{spec_digest(wanted, settings)}\n{spec!r}".encode()).hexdigest(),
        data_hash=table.digest,
        versions=(*calm[0].versions, ("numba", version("numba"))),
    )


def _all(
    work: StressWork, pieces: Sequence[StressPiece], share: PieceRunner, progress: Progress
) -> list[PieceResult]:
    """Return the results of all pieces in the order of the pieces, not of their completion."""
    found, counts, whole = dict[StressPiece, PieceResult](), dict[str, int](), dict[str, int]()
    for piece in pieces:
        whole[piece.name] = whole.get(piece.name, 0) + piece.end - piece.start
    for piece, done in share(work, pieces):
        found[piece] = done
        counts[piece.name] = counts.get(piece.name, 0) + piece.end - piece.start
        progress(piece.name, counts[piece.name], whole[piece.name])
    return [found[piece] for piece in pieces]


def _cases(pieces: Sequence[StressPiece], done: Sequence[PieceResult]) -> tuple[StressCase, ...]:
    cases = []
    for name in dict.fromkeys(piece.name for piece in pieces):
        mine = [
            (piece, found) for piece, found in zip(pieces, done, strict=True) if piece.name == name
        ]
        refused: dict[str, int] = {}
        for why, times in (one for _, found in mine for one in found.refused):
            refused[why] = refused.get(why, 0) + times
        by = "kernel" if mine[0][0].kind is PieceKind.KERNEL else "step"
        cases.append(
            StressCase(
                name,
                by,
                tuple(one for _, found in mine for one in found.measured),
                tuple(sorted(refused.items())),
            )
        )
    return tuple(cases)


def _kernel_off(work: StressWork, calm: Mapping[int, PieceResult]) -> float | None:
    """Return the largest difference between kernel and live step (see StressResult). `calm` has the
    live step's results of the calm paths, by number.

    Paths with gaps are excluded, since kernel and step wait differently.
    """
    if isinstance(work.setting, str):
        return None
    value, off = float(work.settings.start_value), []
    for number, found in calm.items():
        path = work.calm(number)
        if not np.isnan(path.closes).any():
            loss = measure_by_kernel(work.wanted, work.setting, path, value).loss
            off.append(abs((1 - loss) / found.grown[0] - 1))
    return max(off, default=None)


def expected_shortfall(losses: NDArray[np.float64], worst: float = WORST) -> float:
    """Return the mean of the `worst` share of losses; if that is not a whole number of paths, the
    last path counts in part, and if it is less than one path, this is the worst loss.

    Acerbi & Tasche (2002), "On the coherence of expected shortfall", (4.1).
    """
    ordered = np.sort(losses)[::-1]
    weights = np.clip(max(worst * len(ordered), 1.0) - np.arange(len(ordered)), 0, 1)
    return float(ordered @ weights / weights.sum())


def quantiles(values: NDArray[np.float64]) -> tuple[float, ...] | None:
    """Return the values at QUANTILES, interpolated linearly; None if any value is NaN."""
    if any(isnan(value) for value in values):
        return None
    return tuple(float(one) for one in np.quantile(values, QUANTILES))


def _recorded(table: PriceTable, bars: int) -> PriceTable:
    """Return the last `bars` bars up to the newest at which every asset has a price. Raises
    ConfigError if there are fewer.
    """
    end = _complete(table)
    if end < bars:
        raise ConfigError(f"--bars: {bars}, but the file has {end}", f"use {end} or fewer")
    here = slice(end - bars, end)
    closes = table.closes[here].copy()
    closes[0] = forward_fill(table.closes)[end - bars]
    return replace(table, times_s=table.times_s[here], closes=closes, notes=())


def _complete(table: PriceTable) -> int:
    """Return the number of bars up to the newest at which every asset has a price."""
    known = np.logical_and.reduce(~np.isnan(table.closes), axis=1)
    return int(np.nonzero(known)[0][-1]) + 1


def _left_out(table: PriceTable, past: ReturnHistory) -> list[str]:
    incomplete = table.bars - _complete(table)
    notes = []
    if past.left_out:
        notes.append(f"{past.left_out} returns with a missing price are skipped")
    if incomplete:
        notes.append(
            f"the recorded path ends {incomplete} bars before the end of the data, because an asset has no price after it"
        )
    return notes


def _parameter_texts(spec: StressSpec) -> tuple[tuple[str, str], ...]:
    severity = spec.severity
    return (
        ("paths", str(spec.paths)),
        ("step_paths", str(spec.step_paths)),
        ("bars", str(spec.bars)),
        ("block", "by rule" if spec.block is None else f"{spec.block:g}"),
        ("drift", "as recorded" if spec.drift else "none"),
        ("crash", f"{severity.crash_bps} bps over {severity.crash_bars} bars"),
        ("depeg", f"{severity.depeg_bps} bps"),
        ("gas", f"{severity.gas_wei} wei"),
        ("depth", str(severity.depth_part)),
    )
