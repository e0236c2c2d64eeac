"""How alike different years rank the settings of a search, as JSON: Spearman's correlation between
each two years of the losses, and for comparison of the growth, of the settings that `trimtab tune`
tries by default.

    .venv/bin/python scripts/bench/tune_ranks.py --data ../shared/data/prices

Daily prices of BTC and ETH, whole years; hourly prices with LINK of 2021 (from April) and 2022.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.app.research.trials import USUAL_GRID, searched_grid
from agent.backtest.data import PriceTable, read_table
from agent.backtest.settings import SimulationSettings, make_spec
from agent.backtest.tune.jobs import AllocatorSchedule, RunResult, TuneJob
from agent.backtest.tune.search import log_returns, yearly_loss
from agent.backtest.tune.statistics import Objective
from agent.model import Every

DAY_S = 86_400
COIN = Fraction(1)
PORTFOLIOS = {
    "daily_2017_2023.parquet": {"BTC": 5_000, "ETH": 3_000, "USD": 2_000},
    "hourly_2021-04_2022-12.parquet": {"BTC": 4_000, "ETH": 3_000, "LINK": 1_000, "USD": 2_000},
}
FEES_BPS = (5, 30)
MIN_DAYS = 200
"""Days that a year of prices needs to count."""


def yearly_bars(table: PriceTable) -> dict[int, tuple[int, int]]:
    """Return the first bar, and that after the last, of each year (UTC) with enough days."""
    bars_by_year: dict[int, list[int]] = {}
    for bar, time_s in enumerate(table.times_s.tolist()):
        bars_by_year.setdefault(datetime.fromtimestamp(time_s, UTC).year, []).append(bar)
    return {
        year: (bars[0], bars[-1] + 1)
        for year, bars in bars_by_year.items()
        if len(bars) * table.interval_s >= MIN_DAYS * DAY_S
    }


def runs_of(table: PriceTable, targets: dict[str, int], fee_bps: int) -> tuple[RunResult, ...]:
    """Return the runs of the default grid, marked daily."""
    spec = make_spec(targets, Every(28 * DAY_S), "USD", interval_s=table.interval_s)
    settings = SimulationSettings(10**9 * COIN, fee_bps * 100, 50_000 * COIN)
    choices = searched_grid(USUAL_GRID, Objective.TRACKING).choices()
    marks = tuple(range(0, table.bar_count, max(1, DAY_S // table.interval_s)))
    schedule = AllocatorSchedule(7 * DAY_S, 60 * DAY_S)
    job = TuneJob(table, spec, settings, choices, marks, schedule)
    return tuple(run for chunk in job.chunks() for run in job.run(chunk))


def scores_of(table: PriceTable, runs: Sequence[RunResult]) -> dict[str, list[float]]:
    """Return loss and growth a year of each setting."""
    years = float(table.times_s[-1] - table.times_s[0]) / (365 * DAY_S)
    return {
        "loss": [yearly_loss(run, years).total for run in runs],
        "growth": [float(log_returns(run.value_by_mark).sum()) / years for run in runs],
    }


def rank_rows(data: Path) -> list[dict[str, Any]]:
    """Return the rank correlations of each two years of each file and fee."""
    rows = []
    for name, targets in PORTFOLIOS.items():
        table = read_table(data / name).select([symbol for symbol in targets if symbol != "USD"])
        for fee_bps in FEES_BPS:
            scores_by_year = {}
            for year, (start, end) in yearly_bars(table).items():
                part = table.bars(start, end)
                scores_by_year[year] = scores_of(part, runs_of(part, targets, fee_bps))
            for first, second in combinations(scores_by_year, 2):
                correlations = {
                    kind: round(
                        float(
                            spearmanr(
                                scores_by_year[first][kind], scores_by_year[second][kind]
                            ).statistic
                        ),
                        3,
                    )
                    for kind in ("loss", "growth")
                }
                rows.append(
                    {"file": name, "fee_bps": fee_bps, "years": [first, second]} | correlations
                )
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and least correlation of losses and of growth."""
    return {
        kind: {
            "mean": round(statistics.mean(row[kind] for row in rows), 3),
            "least": min(row[kind] for row in rows),
        }
        for kind in ("loss", "growth")
    }


def main() -> None:
    """Print all pairs of years, and their summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/prices"))
    rows = rank_rows(parser.parse_args().data)
    print(json.dumps({"pairs": rows, "summary": summary(rows)}, indent=1))


if __name__ == "__main__":
    main()
