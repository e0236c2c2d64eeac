"""Years of real prices rank settings by loss alike, which is why a search by loss can choose."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("numba")

from scripts.bench.tune_ranks import PORTFOLIOS, rank_rows, summary

DATA = Path(__file__).parents[5] / "shared" / "data" / "prices"


@pytest.mark.slow
def test_two_years__rank_losses_more_alike_than_growth() -> None:
    if not all((DATA / name).is_file() for name in PORTFOLIOS):
        pytest.skip(f"no prices in {DATA}: they are kept beside the project")
    rows = rank_rows(DATA)
    assert len(rows) == 2 * (15 + 1)  # two fees; six years of days, two of hours
    backtest_summary = summary(rows)
    assert backtest_summary["loss"]["mean"] > 0.8
    assert backtest_summary["loss"]["least"] > 0.6
    assert backtest_summary["growth"]["mean"] < backtest_summary["loss"]["mean"]
