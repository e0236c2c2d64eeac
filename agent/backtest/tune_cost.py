"""What a search will take, measured on a few of its settings before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from agent.backtest.simulate import run
from agent.backtest.tune_job import Chunk, Engine, Job, wanted_of
from agent.policy.words import span

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
