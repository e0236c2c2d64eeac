"""`trimtab tune`, as it is typed: its document and words, what it asks and refuses, killed processes, and a cluster that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import app as api
from agent.app.research.kept_reports import list_reports, read_report
from agent.backtest.tune.grid import PolicyChoice
from agent.backtest.tune.jobs import AllocatorSchedule, RunEngine, TuneJob, WorkEstimate, estimate_work, spec_for_choice
from agent.backtest.tune.statistics import Objective
from agent.backtest.workers import run_on_cluster
from agent.cli.research.portfolio_texts import portfolio_options
from agent.cli.research.trial_texts import parse_grid
from agent.config.networks.presets import ETHEREUM_PRESET, TemplateAsset
from agent.config.writing.template import render_config
from agent.errors import ConfigError, Retryable
from agent.localchain.nodes import free_port
from agent.model import AllocationMethod, Every, HybridTrigger, Threshold
from tests.cli.tools import TRIMTAB, CommandResult
from tests.support import agents
from tests.support.backtests import DAY_S, walks
from tests.support.text import mentions, raises_code, raises_field

pytest.importorskip("numba")

Bare = Callable[..., CommandResult]
HOURLY = Path(__file__).parents[3] / "shared" / "data" / "prices" / "hourly_2021-04_2022-12.parquet"
WISHES = ("--target", "A=40,B=30,USD=30")
PORTFOLIO = portfolio_options(target="A=40,B=30,USD=30")
BANDS = ("--band", "15%rel..40%rel:6", "--objective", "growth")


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    """Fourteen days of two assets."""
    table = walks(1, 14)
    path = tmp_path / "prices.csv"
    rows = [f"{time_s},{a},{b}" for time_s, (a, b) in zip(table.times_s, table.closes, strict=True)]
    path.write_text("\n".join(["time,A,B", *rows]) + "\n")
    return path


def test_the_sample_gives_a_document_that_says_what_it_claims(bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = agents.config(tmp_path, "trimtab")
    page = tmp_path / "report.html"
    result = bare(
        "tune", "--sample", "--target", "BTC=50,USD=50", "--band", "2%rel..40%rel:6", "--every", "7d,28d",
        "--objective", "growth", "--html", str(page), "--keep", "--json",
    )  # fmt: skip
    assert result.code == 0, result.why
    document = result.json
    assert document["settings"] == 6 + 6 * 2 + 2
    assert document["engines"] == {"kernel": 21}
    claims = document["last_quarter"]["excess_intervals"]
    supported = all(float(claim["low"]) > 0 for claim in claims) and float(document["overfitting"]["probability"]) < 0.5
    assert document["recommendation"]["label"] == document["best" if supported else "baseline"]["label"]
    assert ("No edge" in document["verdict"][-1]) != supported
    assert [float(claim["low"]) <= float(claim["mean"]) <= float(claim["high"]) for claim in claims] == [True, True]
    assert len(document["walk_forward"]["folds"]) == 4
    assert float(document["ranked"][0]["objective"]) == max(float(setting["objective"]) for setting in document["ranked"])
    assert document["best"] == document["ranked"][0]
    row, column = document["stability"]["best"]
    assert document["stability"]["values"][row][column] == document["best"]["objective"]
    assert "Stability of" in page.read_text()
    assert page.with_suffix(".json").is_file()
    (reports,) = list_reports(config)["reports"]
    assert reports["name"].endswith("-tune.html")
    assert b"Stability of" in read_report(config, reports["name"])
    assert reports["figures"]


def test_tune_by_default__looks_for_the_least_loss(bare: Bare, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    words = ("tune", "--sample", "--target", "BTC=50,ETH=30,USD=20")
    result = bare(*words, "--html", str(page), "--json")
    assert result.code == 0, result.why
    document = result.json
    assert document["objective"] == "tracking"
    assert document["engines"] == {"kernel": document["settings"] + 1}
    assert document["recommendation"]["label"] == document["baseline"]["label"] == document["safe_default"] == "tracking normal"
    assert "Recommended: tracking normal" in document["verdict"][-1]
    ranked = [float(setting["loss_bps"]) for setting in document["ranked"]]
    assert ranked == sorted(ranked)
    assert document["ranked"][0]["strictness"] is not None
    assert "Loss in the last quarter" in page.read_text()
    command_result = bare(*words)
    for word in (
        "ranked by loss",
        "Loss by band and destination",
        "tracking normal",
        "the loss rises by",
        "1 % of tracking error is worth 0.5 bps",
    ):
        assert word in command_result.out
    assert 'In the config, [policy]: trigger = { kind = "tracking", strictness = "normal" }' in command_result.out
    assert "To simulate it: trimtab backtest … --tracking normal" in command_result.out
    options = document["recommendation"]["backtest_options"].split()
    assert bare("backtest", "--sample", "--target", "BTC=100,USD=0", *options, "--json").code == 0


def test_its_words_name_the_map_the_risk_and_the_default(bare: Bare) -> None:
    result = bare("tune", "--sample", "--target", "BTC=50,USD=50", "--band", "5%rel,10%rel", "--every", "7d", "--objective", "sharpe")
    assert result.code == 0, result.why
    shown_labels = [line.split("  ")[0] for line in result.out.splitlines()]
    assert "every 28 days" in shown_labels, "the calendar that it has to beat, which is none of the grid"
    for word in (
        "Sharpe ratio by band and interval",
        "Walk-forward, anchored",
        "Probability of overfitting",
        "In the last quarter of the data",
    ):
        assert word in result.out
    assert "[" in result.out
    assert "One grid step from the best" in result.out


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--every", "7d", "--grid", "destination=band", "--objective", "growth"), "the grid is empty"),
        (("--grid", "tracking=lax"), "--grid tracking: 'lax'"),
        (("--grid", "zone=30d"), "--grid zone: a zone needs limits.plan_cost"),
        (("--grid", "zone=30m"), "--grid zone: 30 min is outside"),
        (("--target", "A=60,B=40"), "tracking trades against USD"),
        (("--band", "5%rel", "--objective", "luck"), "--objective: 'luck'"),
        (("--band", "5%rel", "--walk", "back"), "--walk: 'back'"),
        (("--band", "5%rel", "--walk", "folds=0"), "--walk folds: 0"),
        (("--band", "5%rel", "--grid", "allocator=market_cap"), "--grid allocator: 'market_cap'"),
        (("--band", "5%rel", "--grid", "allocator=hrp,window=2d"), "--grid window: shorter than 3 steps"),
        (("--band", "5%rel", "--objective", "calendar=40d"), "is outside the valid intervals"),
        (("--band", "5%rel", "--market", "gas=20 gwei"), "--market gas: the native coin has no price"),
        (("--band", "5%rel", "--objective", "calendar=7d"), "--objective calendar: with the objective tracking"),
        (("--band", "5%rel", "--objective", "calendar=28d"), "--objective calendar: with the objective tracking"),
        (("--band", "5%rel", "--grid", "window=30d"), "--grid window: only an allocator uses it"),
        (("--band", "5%rel", "--grid", "window=60d"), "--grid window: only an allocator uses it"),
        (("--band", "5%rel", "--grid", "rechoose=7d"), "--grid rechoose: only an allocator uses it"),
        (("--grid", "tracking=strict,destination=halfway"), "--grid destination: tracking and zones have their own"),
        (("--band", "5%rel", "--sample"), "--prices or --sample"),
        (("--band", "5%rel", "--config", "trimtab.toml"), "--target: the config sets it"),
    ],
)
def test_a_mistake_in_a_search_is_named(bare: Bare, prices: Path, more: tuple[str, ...], named: str) -> None:
    result = bare("tune", "--prices", str(prices), *WISHES, *more, "--json")
    assert result.code == 2
    assert named in result.json["error"]["message"]


def test_an_enormous_search_is_not_begun_unasked(bare: Bare, prices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "agent.app.research.trials.estimate_work",
        lambda job, rest, cores: WorkEstimate(len(job.choices), job.table.bar_count, 40_000.0, 2, 3),
    )
    line = ("tune", "--prices", str(prices), *WISHES, *BANDS, "--json", "--out", str(tmp_path / "kept"))
    result = bare(*line)
    assert result.code == 10
    assert mentions(result.error["message"], "7 runs", "11 bars", "11 h 6 min", "2 cores", "5 h 33 min")
    assert "--yes" in result.error["remedy"]
    assert not list((tmp_path / "kept").glob("*.parquet"))
    assert bare(*line, "--yes").code == 0


def test_somebody_at_a_terminal_is_asked_with_the_estimate(bare: Bare, prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "agent.app.research.trials.estimate_work",
        lambda job, rest, cores: WorkEstimate(len(job.choices), job.table.bar_count, 40_000.0, 1, 3),
    )
    monkeypatch.setattr("agent.cli.research.trials.is_interactive", lambda: True)
    questions: list[str] = []
    for answer in (False, True):
        monkeypatch.setattr("agent.cli.research.trials.ask", lambda question, answer=answer: questions.append(question) or answer)
        assert bare("tune", "--prices", str(prices), *WISHES, *BANDS).code == (0 if answer else 10)
    assert len(questions) == 2
    assert questions[0] == questions[1]
    assert mentions(questions[0], "7 runs", "11 bars", "11 h 6 min")


def test_a_config_is_searched_by_the_full_step_with_its_limits(tmp_path: Path) -> None:
    weth = ETHEREUM_PRESET.tokens[0]
    usdc = ETHEREUM_PRESET.tokens[2]
    assets = [TemplateAsset("WETH", weth.address, "50%", weth.feed), TemplateAsset("USDC", usdc.address, "50%", usdc.feed)]
    config = tmp_path / "trimtab.toml"
    prices = tmp_path / "prices.csv"
    config.write_text(render_config(ETHEREUM_PRESET, weth.address, assets, [], "USDC", [("RPC_A", "one"), ("RPC_B", "two")]))
    closes = [100, 101, 125, 125, 90, 90, 120, 120, 100, 100, 125, 125, 90, 90]
    prices.write_text("\n".join(["time,WETH", *(f"2021-01-{day:02},{close}" for day, close in enumerate(closes, 1))]) + "\n")
    tune_spec = api.prepare_tune(prices, api.MarketOptions(), api.TuneOptions(parse_grid("10%rel", "7d")), api.PortfolioOptions(config))
    job = TuneJob(tune_spec.table, tune_spec.backtest, tune_spec.settings, tune_spec.grid.choices(), (0, 1), tune_spec.allocator_schedule)
    assert {job.engine(choice) for choice in job.choices} == {RunEngine.FULL}
    tried = spec_for_choice(tune_spec.backtest, job.choices[1], tune_spec.allocator_schedule, DAY_S)
    assert tried.policy.trigger == HybridTrigger(Threshold(None, 1_000), Every(7 * DAY_S))
    assert tried.limits == tune_spec.backtest.limits
    assert tried.limits.max_live_value == 1_000 * 10**tune_spec.backtest.portfolio.numeraire.decimals


def test_the_estimate_is_measured_on_the_runs_that_are_left(prices: Path) -> None:
    tune_spec = api.prepare_tune(
        prices,
        api.MarketOptions(),
        api.TuneOptions(parse_grid("30%rel,40%rel"), objective=Objective.GROWTH, without_kernel=True),
        PORTFOLIO,
    )
    job = TuneJob(
        tune_spec.table, tune_spec.backtest, tune_spec.settings, tune_spec.grid.choices(), (0, 1), tune_spec.allocator_schedule, True
    )
    work_estimate = estimate_work(job, job.chunks(), 2)
    assert (work_estimate.run_count, work_estimate.measured_run_count, work_estimate.cores, work_estimate.bars) == (2, 2, 2, 14)
    assert work_estimate.core_s > 0
    assert work_estimate.wall_s == work_estimate.core_s / 2


def gone(process: int) -> bool:
    """Whether no such process runs any more; a dead one that nobody fetched does not run."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(what: Callable[[], Any], why: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_search__goes_on_with_nothing_lost_or_repeated(bare: Bare, prices: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    line = ("tune", "--prices", str(prices), *WISHES, *BANDS, "--run", "full", "--yes", "--json", "--out", str(folder))
    process = subprocess.Popen([*TRIMTAB, *line, "--run", "cores=2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: len(list(folder.glob("runs-*.parquet"))) >= 2 or process.poll() is not None, "it did nothing")
    workers = [int(text) for text in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.kill()
    process.wait(60)
    before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("runs-*.parquet")}
    assert len(workers) >= 2
    assert 2 <= len(before) < 7
    until(lambda: all(gone(worker) for worker in workers), "a process outlived the search that began it")
    result = bare(*line, "--run", "cores=1")
    assert result.code == 0, result.why
    assert result.json["resumed"] == len(before)
    after = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("runs-*.parquet")}
    assert len(after) == 7
    assert {name: after[name] for name in before} == before
    quick = bare("tune", "--prices", str(prices), *WISHES, *BANDS, "--json")
    assert [setting["label"] for setting in quick.json["ranked"]] == [setting["label"] for setting in result.json["ranked"]]
    assert result.json["engines"] == {"full": 7}


CLUSTERS = """
import os, signal, sys
from distributed import LocalCluster
from agent.backtest.tune import jobs
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for port in sys.stdin:
    if os.fork() == 0:
        made = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1", scheduler_port=int(port),
                            dashboard_address=None)
        print(os.getpid(), flush=True)
        signal.pause()
"""
"""For each port in its input, a scheduler with one worker in a process of its own, which has imported what it needs."""


@pytest.fixture
def clusters() -> Iterator[Callable[[int], AbstractContextManager[int]]]:
    """A cluster at a port while a block lasts, by its process."""
    pytest.importorskip("distributed")
    with subprocess.Popen([sys.executable, "-c", CLUSTERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin = process.stdin
        heard = process.stdout

        @contextmanager
        def cluster(port: int) -> Iterator[int]:
            print(port, file=stdin, flush=True)
            cluster_port = int(heard.readline())
            try:
                yield cluster_port
            finally:
                if not gone(cluster_port):
                    os.kill(cluster_port, signal.SIGKILL)

        yield cluster


@pytest.mark.slow
def test_dead_scheduler__is_named_and_the_next_goes_on(
    prices: Path, tmp_path: Path, clusters: Callable[[int], AbstractContextManager[int]]
) -> None:
    folder = tmp_path / "kept"
    port = free_port()
    tune_spec = api.prepare_tune(
        prices,
        api.MarketOptions(),
        api.TuneOptions(parse_grid("20%rel..40%rel:5"), objective=Objective.GROWTH, without_kernel=True),
        PORTFOLIO,
    )
    address = f"tcp://127.0.0.1:{port}"
    with clusters(port) as first:
        short = replace(tune_spec, allocator_schedule=AllocatorSchedule(DAY_S, DAY_S))
        bad = TuneJob(
            short.table,
            short.backtest,
            short.settings,
            (PolicyChoice(Every(DAY_S), allocator=AllocationMethod.HRP),),
            (0, 1),
            short.allocator_schedule,
        )
        with raises_field("--grid", "window", "3 steps"):
            list(run_on_cluster(bad, bad.chunks(), address))  # what a run raises comes back as it was

        def pull(done: int, _runs: int) -> None:
            if done == 2:
                os.kill(first, signal.SIGKILL)

        with pytest.raises(Retryable) as caught:
            api.run_tune(tune_spec, scheduler=address, folder=folder, progress=pull)
    assert mentions(caught.value.message, "--run scheduler", f"{address}", "lost")
    assert "are kept" in caught.value.message
    assert "same command" in caught.value.remedy
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("runs-*.parquet")}
    assert 2 <= len(before) < 6
    with clusters(port):
        tune_result = api.run_tune(tune_spec, scheduler=address, folder=folder)
    assert tune_result.resumed_run_count == len(before)
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("runs-*.parquet") if path.name in before} == before
    here = api.run_tune(replace(tune_spec, uses_full_step=False))
    assert len(tune_result.run_results) == 5
    assert all(
        run_result.value_by_mark == pytest.approx(other.value_by_mark, rel=1e-5)
        for run_result, other in zip(tune_result.run_results, here.run_results, strict=True)
    )


def test_a_scheduler_that_is_not_there_is_named(prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    tune_spec = api.prepare_tune(prices, api.MarketOptions(), api.TuneOptions(parse_grid("20%rel"), without_kernel=True), PORTFOLIO)
    monkeypatch.setattr("agent.backtest.workers.SCHEDULER_TIMEOUT_S", 1)
    with raises_code(Retryable, "scheduler"):
        api.run_tune(tune_spec, scheduler=f"tcp://127.0.0.1:{free_port()}")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError) as caught:
        api.run_tune(tune_spec, scheduler="tcp://127.0.0.1:1")
    assert caught.value.remedy == "pip install 'trimtab[cluster]'"


@pytest.mark.slow
def test_real_prices_are_searched(bare: Bare) -> None:
    if not HOURLY.is_file():
        pytest.skip(f"{HOURLY} is not there: real prices are kept beside the project")
    result = bare(
        "tune", "--prices", str(HOURLY), "--target", "BTC=40,ETH=30,USDT=30", "--band", "5%rel,20%rel", "--every", "7d",
        "--objective", "growth", "--json",
    )  # fmt: skip
    assert result.code == 0, result.why
    assert result.json["bars"] == 15_257
    assert result.json["engines"] == {"kernel": 6}
    assert [excess_interval["periods"] for excess_interval in result.json["last_quarter"]["excess_intervals"]] == [158, 158]
