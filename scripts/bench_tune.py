"""Speed-up of a search with the full step by a second worker: the same runs on Dask clusters of one
worker and of two, as JSON.

Each worker is a process with one thread on this machine, and completes some runs before the clock
starts. Each has its own session, since a busy machine may divide its cores by session. The clusters
take turns. `load` is the load of the machine, whose other programs can only slow the runs; the
figures are meaningful only on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from functools import partial

import numpy as np
from distributed import Client

from agent.backtest.data import make_price_table
from agent.backtest.settings import SimulationSettings, make_spec
from agent.backtest.sweep import available_cores
from agent.backtest.tune.grid import GridOptions, parse_grid
from agent.backtest.tune.jobs import AllocatorSchedule, TuneChunk, TuneJob
from agent.backtest.workers import run_locally, run_on_cluster
from agent.localchain.nodes import free_port
from agent.model import Every

DAY_S = 86_400
WARM_UP_CHUNKS = 4


def make_job(settings: int, bars: int) -> TuneJob:
    """Return a search of bands over two daily random walks; all settings take about the same time."""
    paths = np.round(
        100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.03, (bars, 2)), axis=0)), 6
    )
    table = make_price_table(
        [1_600_000_000 + DAY_S * bar for bar in range(bars)],
        {"A": paths[:, 0].tolist(), "B": paths[:, 1].tolist()},
    )
    spec = make_spec(
        {"A": 4_000, "B": 3_000, "USD": 3_000}, Every(28 * DAY_S), "USD", interval_s=DAY_S
    )
    grid = parse_grid(GridOptions(f"8%rel..12%rel:{settings}", "", "target", ""))
    market = SimulationSettings(Fraction(10**8), 1_000, Fraction(10_000))
    return TuneJob(
        table,
        spec,
        market,
        grid.choices(),
        (0, bars - 1),
        AllocatorSchedule(7 * DAY_S, 60 * DAY_S),
        uses_full_step=True,
    )


def run_duration_s(
    run_job: Callable[[TuneJob, Sequence[TuneChunk]], Iterable[object]], job: TuneJob
) -> float:
    began_s = time.perf_counter()
    chunk_count = len(list(run_job(job, job.chunks())))
    duration_s = time.perf_counter() - began_s
    if chunk_count != len(job.choices):
        raise SystemExit(f"{chunk_count} of {len(job.choices)} runs were done")
    return duration_s


def start_process(module: str, *args: str, stack: ExitStack) -> None:
    """Start a scheduler or worker, which ends with the stack."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.{module}", *args, "--no-dashboard"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    stack.callback(process.wait)
    stack.callback(process.kill)


def start_cluster(
    workers: int, job: TuneJob, stack: ExitStack
) -> Callable[[TuneJob, Sequence[TuneChunk]], Iterable[object]]:
    """Start a cluster of `workers`, warm it up, and return the function that runs jobs on it."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    start_process("dask_scheduler", "--host", "127.0.0.1", "--port", str(port), stack=stack)
    for _ in range(workers):
        start_process("dask_worker", address, "--nthreads", "1", "--no-nanny", stack=stack)
    with Client(address, timeout=120, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=120)
    run_job = partial(run_on_cluster, scheduler_address=address)
    list(
        run_job(
            job,
            [
                TuneChunk(-1 - i, 0, 1, job.chunks()[0].engine)
                for i in range(WARM_UP_CHUNKS * workers)
            ],
        )
    )
    return run_job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=int, default=16)
    parser.add_argument("--bars", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--processes",
        action="store_true",
        help="also measure local processes, including their start",
    )
    options = parser.parse_args()
    job = make_job(options.settings, options.bars)
    load_averages: list[float] = []
    durations_by_workers: dict[int, list[float]] = {1: [], 2: []}
    with ExitStack() as stack:
        run_job_by_workers = {
            workers: start_cluster(workers, job, stack) for workers in durations_by_workers
        }
        for _ in range(options.rounds):
            for workers, durations in durations_by_workers.items():
                durations.append(run_duration_s(run_job_by_workers[workers], job))
            load_averages.append(os.getloadavg()[0])
    result = {
        "runs": len(job.choices),
        "bars": options.bars,
        "cores": available_cores(),
        "one_worker_s": [round(number, 2) for number in durations_by_workers[1]],
        "two_workers_s": [round(number, 2) for number in durations_by_workers[2]],
        "speedup_of_best": round(min(durations_by_workers[1]) / min(durations_by_workers[2]), 2),
        "speedup_of_median": round(
            statistics.median(durations_by_workers[1]) / statistics.median(durations_by_workers[2]),
            2,
        ),
        "load": [round(number, 1) for number in load_averages],
    }
    if options.processes:
        result["processes_s"] = {
            str(cores): round(run_duration_s(partial(run_locally, cores=cores), job), 2)
            for cores in (1, 2)
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
