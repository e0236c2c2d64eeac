"""The paths of a stress test as work that can be shared out: each depends on its number alone, so that one core or many find the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from agent.backtest.fast_settings import Setting
from agent.backtest.simulate import SimulationResult, simulate
from agent.backtest.stress_kernel import Measured, by_kernel, drawdown, edges_of, known, outside
from agent.backtest.stress_paths import Jumps, Method, Past, jumped, jumps_of, resampled
from agent.backtest.stress_scenarios import Laid, Scenario, Severity, lay
from agent.backtest.table import PriceTable
from agent.backtest.wanted import Settings, Wanted

BLOCKS, JUMPS = "resampled blocks", "jump diffusion"
NAMES = {Method.BLOCKS: BLOCKS, Method.JUMPS: JUMPS}
KERNEL_PIECE = 200
"""Paths of the kernel that are done together: some tenths of a second."""


class Kind(Enum):
    """How a path is made, and by what it is gone through."""

    KERNEL = "kernel"
    STEP = "step"
    LAID = "laid"
    """The live step over calm paths, the recorded one first, with a scenario laid over each."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Paths from `start` to before `end` of the case `name`."""

    name: str
    kind: Kind
    method: Method
    scenario: Scenario
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a piece. Of the live step also by which limits it was refused and how often, what each path grew to as a share of its
    start, and the versions of what ran.
    """

    measured: tuple[Measured, ...]
    refused: tuple[tuple[str, int], ...] = ()
    grown: tuple[float, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Work:
    """What every path needs; `recorded` is the one that was, as long as all others. `setting` is the policy as the kernel takes it, or why
    it does not.
    """

    wanted: Wanted
    settings: Settings
    severity: Severity
    past: Past
    block: float
    recorded: PriceTable
    setting: Setting | str
    jumps: Jumps

    @classmethod
    def of(
        cls, wanted: Wanted, settings: Settings, severity: Severity, past: Past, block: float, recorded: PriceTable
    ) -> Work:  # fmt: skip
        """With what follows from these."""
        return cls(wanted, settings, severity, past, block, recorded, known(wanted, settings), jumps_of(past))

    def pieces(self, paths: int, step_paths: int, scenarios: Sequence[Scenario]) -> tuple[Piece, ...]:
        """All of it, case after case; a path of the live step is a piece by itself."""
        return tuple(self._each(paths, step_paths, scenarios))

    def _each(self, paths: int, step_paths: int, scenarios: Sequence[Scenario]) -> Iterator[Piece]:
        for method in Method:
            if isinstance(self.setting, str):
                yield from (Piece(NAMES[method], Kind.STEP, method, Scenario.CALM, one, one + 1) for one in range(step_paths))
            else:
                for start in range(0, paths, KERNEL_PIECE):
                    yield Piece(NAMES[method], Kind.KERNEL, method, Scenario.CALM, start, min(paths, start + KERNEL_PIECE))
        for scenario in scenarios:
            yield from (Piece(scenario.value, Kind.LAID, Method.BLOCKS, scenario, one, one + 1) for one in range(step_paths))

    def do(self, piece: Piece) -> Done:
        """One piece, wherever it is. Raises what a simulation raises."""
        numbers = range(piece.start, piece.end)
        if piece.kind is Kind.KERNEL and not isinstance(self.setting, str):
            value = float(self.settings.start_value)
            return Done(tuple(by_kernel(self.wanted, self.setting, self.path(piece.method, one), value) for one in numbers))
        (number,) = numbers
        path = self.calm(number) if piece.kind is Kind.LAID else self.path(piece.method, number)
        laid = lay(piece.scenario, self.wanted, path, self.settings, self.severity)
        found = simulate(self.wanted, laid.table, laid.settings)
        grown = float(found.equity[-1] / found.equity[0])
        return Done((_measured(self.wanted, laid, found),), found.refused, (grown,), found.versions)

    def path(self, method: Method, number: int) -> PriceTable:
        """The path of that number, of a generator of its own."""
        chance = np.random.default_rng([self.settings.seed, list(Method).index(method), number])
        if method is Method.BLOCKS:
            return resampled(self.past, self.recorded.bars, self.block, chance)
        return jumped(self.past, self.jumps, self.recorded.bars, chance)

    def calm(self, number: int) -> PriceTable:
        """The recorded path, then resampled ones."""
        return self.path(Method.BLOCKS, number - 1) if number else self.recorded


def one_by_one(work: Work, pieces: Sequence[Piece]) -> Iterator[tuple[Piece, Done]]:
    """Each piece with what came of it, in their order, by this process."""
    return ((piece, work.do(piece)) for piece in pieces)


def _measured(wanted: Wanted, laid: Laid, found: SimulationResult) -> Measured:
    worth: NDArray[np.float64] = found.equity * laid.unit
    return Measured(
        loss=1 - float(worth[-1] / worth[0]),
        drawdown=drawdown(worth),
        behind=1 - float(found.equity[-1] / found.hold[-1]),
        turnover=float(found.turnover),
        outside=outside(found.weights, edges_of(wanted)),
        rebalances=sum(one.succeeded for one in found.rebalances),
        halted=found.halted,
        refused=sum(times for _, times in found.refused),
    )
