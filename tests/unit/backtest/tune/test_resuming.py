"""A search that was stopped goes on where it was: nothing is lost, nothing is done twice, and no other search is mixed in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest

from agent.backtest.tune import jobs
from agent.backtest.tune import search as tune_module
from agent.backtest.tune.jobs import STAMP_FILE, AllocatorSchedule, RunResult, TuneChunk, TuneJob
from agent.backtest.tune.report import tune_document
from agent.backtest.tune.search import TuneSpec
from agent.backtest.tune.statistics import Objective
from agent.backtest.workers import run_locally
from agent.errors import ConfigError, OperatorNeeded
from tests.support.backtests import DAY_S, search, tune_result_of, walks
from tests.support.text import mentions, raises_field

pytest.importorskip("numba")


@pytest.fixture
def tune_spec(monkeypatch: pytest.MonkeyPatch) -> TuneSpec:
    """Thirty settings, three to a chunk."""
    monkeypatch.setattr(jobs, "KERNEL_CHUNK_RUNS", 3)
    return search(walks(1, 80), band="1%rel..30%rel:10", every="7d", destination="target,halfway")


class PowerLost(Exception):
    """It is off."""


class InterruptedWork:
    """Work that notes what it did, and loses power after so many chunks."""

    def __init__(self, until: int = 10**9) -> None:
        self.done: list[int] = []
        self.until = until

    def __call__(self, job: TuneJob, rest: Sequence[TuneChunk]) -> Iterator[tuple[TuneChunk, list[RunResult]]]:
        for chunk, run_result in run_locally(job, rest, 1):
            if len(self.done) == self.until:
                raise PowerLost
            self.done.append(chunk.index)
            yield chunk, run_result


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """What tells each file from one that was written anew."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("runs-*.parquet")}


def test_a_search_goes_on_where_it_stopped(tune_spec: TuneSpec, tmp_path: Path) -> None:
    whole = tune_result_of(tune_spec)
    first = InterruptedWork(until=4)
    with pytest.raises(PowerLost):
        tune_result_of(tune_spec, tmp_path, first)
    before = files(tmp_path)
    assert len(before) == 4
    (tmp_path / ".runs-0000012-0000015.parquet.x.draft").write_bytes(b"half a file")
    second = InterruptedWork()
    tune_result = tune_result_of(tune_spec, tmp_path, second)
    assert sorted(first.done + second.done) == list(range(len(files(tmp_path))))  # each once
    assert {name: files(tmp_path)[name] for name in before} == before
    assert tune_result.resumed_run_count == 12
    assert not list(tmp_path.glob(".*.draft"))
    assert all(
        np.array_equal(run_result.value_by_mark, other.value_by_mark)
        for run_result, other in zip(whole.run_results, tune_result.run_results, strict=True)
    )
    assert (whole.verdict, whole.claims) == (tune_result.verdict, tune_result.claims)
    third = InterruptedWork()
    assert tune_result_of(tune_spec, tmp_path, third).verdict == whole.verdict
    assert third.done == []


def test_the_files_are_a_table_that_others_can_read(tune_spec: TuneSpec, tmp_path: Path) -> None:
    tune_result = tune_result_of(tune_spec, tmp_path)
    frame = polars.read_parquet(tmp_path / "runs-*.parquet")
    assert frame["run_number"].sort().to_list() == list(range(len(tune_result.choices) + 1))  # and the calendar rule
    row = frame.filter(polars.col("run_number") == tune_result.best_index).to_dicts()[0]
    choice = tune_result.choices[tune_result.best_index]
    assert (row["every_s"], row["destination"], row["allocator"]) == (choice.every_s, choice.destination.value, "fixed")
    assert row["values"] == tune_result.run_results[tune_result.best_index].value_by_mark.tolist()


def test_another_search_is_not_mixed_in(tune_spec: TuneSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune_result_of(tune_spec, tmp_path)
    closes = tune_spec.table.closes.copy()
    closes[-1, 0] += 0.01
    others = {
        "the grid": replace(tune_spec, grid=replace(tune_spec.grid, intervals_s=(DAY_S,))),
        "the prices": replace(tune_spec, table=replace(tune_spec.table, closes=closes)),
        "the portfolio or the market": replace(tune_spec, settings=replace(tune_spec.settings, fee_pips=999)),
        "the options of the search": replace(tune_spec, allocator_schedule=AllocatorSchedule(DAY_S, 9 * DAY_S)),
    }
    for named, other in others.items():
        with pytest.raises(ConfigError) as caught:
            tune_result_of(other, tmp_path)
        assert mentions(caught.value.message, "another search", f"{named}")
        assert "another folder" in caught.value.remedy
    monkeypatch.setattr(tune_module, "version", lambda _name: "9.9.9")
    with raises_field("--out", "of trimtab"):
        tune_result_of(tune_spec, tmp_path)


def test_what_is_judged_otherwise_needs_no_run_again(tune_spec: TuneSpec, tmp_path: Path) -> None:
    tune_result_of(tune_spec, tmp_path)
    again = InterruptedWork()
    tune_result_of(replace(tune_spec, fold_count=2), tmp_path, again)
    assert again.done == []


def test_last_quarter_seen_for_another_setting__is_reported(tune_spec: TuneSpec, tmp_path: Path) -> None:
    tune_spec = replace(tune_spec, table=walks(7, 80))
    first = tune_result_of(tune_spec, tmp_path)
    again = tune_result_of(tune_spec, tmp_path)
    assert (first.judged_setting_count, first.verdict) == (1, again.verdict)
    other = tune_result_of(replace(tune_spec, objective=Objective.SHARPE), tmp_path)
    assert other.best_index != first.best_index
    assert (other.judged_setting_count, tune_document(other)["last_quarter"]["settings_judged"]) == (2, 2)
    assert any("2 settings" in sentence for sentence in other.verdict.sentences)
    assert not any("were evaluated" in sentence for sentence in first.verdict.sentences)


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda folder: next(folder.glob("runs-*.parquet")).write_bytes(b"PAR1"), "is damaged"),
        (lambda folder: (folder / STAMP_FILE).write_text("{"), "is not valid JSON"),
        (lambda folder: (folder / STAMP_FILE).unlink(), "files that do not belong to a search"),
        (lambda folder: next(folder.glob("runs-*.parquet")).rename(folder / "runs-0000003-0000006.parquet"), "do not fit"),
    ],
)
def test_a_folder_that_was_harmed_is_refused(tune_spec: TuneSpec, tmp_path: Path, harm: object, named: str) -> None:
    with pytest.raises(PowerLost):
        tune_result_of(tune_spec, tmp_path, InterruptedWork(until=1))
    assert callable(harm)
    harm(tmp_path)
    with pytest.raises(ConfigError) as caught:
        tune_result_of(tune_spec, tmp_path)
    assert named in caught.value.message
    assert caught.value.remedy


def test_two_searches_never_write_into_one_folder(tune_spec: TuneSpec, tmp_path: Path) -> None:
    searches: list[str] = []

    def meanwhile(_done: int, _runs: int) -> None:
        if not searches:
            with pytest.raises(OperatorNeeded) as caught:
                tune_result_of(tune_spec, tmp_path)
            searches.append(caught.value.message)

    tune_result_of(tune_spec, tmp_path, progress=meanwhile)
    assert "another search" in searches[0]
    assert json.loads((tmp_path / STAMP_FILE).read_text())["format"] == tune_module.FORMAT_VERSION
