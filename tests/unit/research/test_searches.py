"""Searches and stress tests from Python: the commands' own results, frames of them, errors that name the argument."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from agent import research
from agent.app.research import trials
from agent.app.research.backtests import USUAL_MARKET, MarketOptions, sample_files
from agent.backtest import workers
from agent.backtest.stress.run import stress_document
from agent.backtest.tune.grid import PolicyChoice
from agent.backtest.tune.jobs import AllocatorSchedule, spec_for_choice
from agent.backtest.tune.report import tune_document
from agent.cli.research.portfolio_texts import portfolio_options
from agent.cli.research.trial_texts import parse_grid
from agent.errors import ConfigError
from agent.model import AllocationMethod, NoTradeZone, TrackingRisk, WeightLimit
from agent.policy.triggers.no_trade_zone import build_tracking
from agent.research import backtests
from agent.research.allocators import allocator_of
from agent.research.inputs import cores_and_scheduler, read_inputs
from agent.signals import SignalView
from agent.units import BPS

PRICES = sample_files()[0]
TARGETS = {"BTC": 0.4, "ETH": 0.3, "USD": 0.3}
BANDS = [research.band(0.1), research.band(0.2)]
STRICTNESSES = [research.tracking(name) for name in ("relaxed", "normal", "strict")]


def test_search_is_that_of_the_command() -> None:
    options = trials.TuneOptions(parse_grid("10%rel,20%rel", "7d", destination="target,halfway"))
    spec = trials.prepare_tune(PRICES, MarketOptions(), options, portfolio_options(target="BTC=40,ETH=30,USD=30"))
    expected = tune_document(trials.run_tune(spec, cores=1))
    triggers = [*BANDS, research.every("7d"), *STRICTNESSES]
    result = research.tune(PRICES, TARGETS, triggers, destinations=["target", "halfway"], combined=True)
    assert result.document == expected


def test_stress_test_is_that_of_the_command() -> None:
    options = trials.StressOptions(paths=20, scenarios=(research.Scenario.CRASH,), bars=60)
    portfolio = portfolio_options(target="BTC=40,ETH=30,USD=30", band="10%rel")
    prepared_test = trials.prepare_stress(PRICES, USUAL_MARKET, options, portfolio)
    expected = stress_document(trials.run_stress(prepared_test, cores=1))
    result = research.stress(PRICES, TARGETS, research.band(0.1), paths=20, scenarios=["crash"], bars=60)
    assert result.document == expected


def test_search__has_a_frame_picture_report_and_best_trigger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress: list[tuple[int, int]] = []
    result = research.tune(
        pl.read_csv(PRICES, infer_schema_length=None).select("time", "BTC", "ETH"),
        TARGETS,
        [*BANDS, research.every("28d")],
        objective="growth",
        progress=lambda finished, total: progress.append((finished, total)),
    )
    frame = result.frame()
    assert frame["score"].to_list() == sorted(frame["score"], reverse=True)
    assert frame["loss_bps"].to_list() == pytest.approx((frame["costs_bps"] + frame["drift_bps"]).to_list())
    assert set(frame["setting"]) == {"band 10 % rel", "band 20 % rel", "every 28 days"}
    assert progress[-1] == (4, 4), "with the setting to beat"
    assert frame["setting"][0] in repr(result)
    again = research.backtest(PRICES, TARGETS, result.best, destination=result.best_destination, start="2021-01-01", end="2021-10-01")
    assert again.summary.trades > 0
    figure = result.plot()
    assert set(figure.data[0].y) == {"10 % rel", "20 % rel", "no band"}
    assert "band 20 % rel" in result.report(tmp_path / "search.html").read_text()
    assert result._repr_html_().count("<li>") == len(result.verdict)
    assert "more in frame()" not in result._repr_html_()
    monkeypatch.setattr("agent.research.tuning.SHOWN_SETTINGS", len(frame) - 1)
    assert "<p>1 more in frame()</p>" in result._repr_html_()
    assert {"best", "frame", "plot", "verdict"} <= set(dir(result))


def test_stress_test_has_frames_a_picture_and_a_report(tmp_path: Path) -> None:
    cases: set[str] = set()
    result = research.stress(
        PRICES, TARGETS, research.band(0.1), paths=20, scenarios=["crash"], bars=60, progress=lambda case, *_: cases.add(case)
    )
    frame = result.frame()
    paths = result.paths
    assert set(frame["case"]) == cases == {"resampled blocks", "jump diffusion", "calm", "crash"}
    for case, count, worst in frame.select("case", "paths", "loss_worst").rows():
        losses = paths.filter(pl.col("case") == case)["loss"]
        assert len(losses) == count
        assert losses.max() == worst
    assert repr(result).startswith("StressTest(4 cases of 60 bars, worst: crash, mean loss ")
    assert [box.name for box in result.plot().data] == frame["case"].to_list()
    assert "crash" in result.report(tmp_path / "stress.html").read_text()
    assert "crash" in result._repr_html_()
    assert {"document", "frame", "notes", "paths", "plot"} <= set(dir(result))


@pytest.mark.parametrize("method", ["equal", "inverse_volatility", "risk_parity"])
def test_allocator_of_a_setting_is_that_of_its_run(method: str) -> None:
    choice = PolicyChoice(BANDS[0], allocator=AllocationMethod(method))
    spec = read_inputs(PRICES, TARGETS, BANDS[0], {}).spec
    config = spec_for_choice(spec, choice, AllocatorSchedule(7 * 86_400, 60 * 86_400), 86_400).portfolio.allocator
    assert config is not None
    again = read_inputs(PRICES, TARGETS, BANDS[0], {}, allocator=allocator_of(spec.portfolio, config)).spec.portfolio.allocator
    assert again is not None
    assert all(bounds == WeightLimit(bounds.token, 0, BPS) for bounds in again.limits)
    if method == "equal":
        assert (again.every_s, again.max_overdue_s, again.fixed_tokens) == (config.every_s, config.max_overdue_s, config.fixed_tokens)
    else:
        assert replace(again, limits=(), max_change_bps=config.max_change_bps) == config


def test_best_setting_has_its_allocator() -> None:
    prices = pl.read_csv(PRICES, infer_schema_length=None).select("time", "BTC", "ETH").head(40)
    search = research.tune(prices, TARGETS, BANDS[:1], allocators=["equal"])
    assert search.frame()["setting"].to_list() == ["band 10 % rel, weights equal", "tracking normal"]
    assert repr(search.best_allocator) == ("allocator('equal', every='7d', keep='60d', churn='0%', until_chosen='targets', fixed=['USD'])")
    assert search.recommended_allocator is None, "the tracking rule keeps the targets"


@pytest.mark.parametrize(("paths", "is_empty"), [(19, True), (20, False)])
def test_worst_twentieth_of_few_paths_is_empty_and_says_why(paths: int, is_empty: bool) -> None:
    result = research.stress(PRICES, TARGETS, research.band(0.1), paths=paths, step_paths=3, bars=30, scenarios=["crash"])
    counts = dict(result.frame().select("case", "paths").rows())
    assert counts == {"resampled blocks": paths, "jump diffusion": paths, "calm": 3, "crash": 3}
    empty_cases = [case for case, count in counts.items() if count < 20]
    for column in ("loss_95", "drawdown_95"):
        assert result.frame().filter(pl.col(column).is_null())["case"].to_list() == empty_cases
        assert result.frame().schema[column] == pl.Float64
    assert f"loss_95 and drawdown_95 need 20 paths, fewer have {', '.join(empty_cases)}" in result.notes
    assert ("resampled blocks" in empty_cases) is is_empty


def test_horizon_of_a_stress_test_is_its_bars() -> None:
    test = research.stress(PRICES, TARGETS, research.band(0.1), paths=10, scenarios=["crash"], horizon="60d")
    assert repr(test).startswith("StressTest(4 cases of 60 bars, ")


PARTIAL_PRICES = {
    "an asset starts late": lambda prices: prices.with_columns(ETH=pl.when(pl.int_range(pl.len()) >= 60).then("ETH")),
    "an asset ends early": lambda prices: prices.with_columns(ETH=pl.when(pl.int_range(pl.len()) < 40).then("ETH")),
    "only another symbol has all times": lambda prices: prices.with_columns(
        SOL=20.0, ETH=pl.when(pl.int_range(pl.len()) >= 60).then("ETH"), BTC=pl.when(pl.int_range(pl.len()) >= 60).then("BTC")
    ),
}


@pytest.mark.parametrize("name", PARTIAL_PRICES)
def test_paths_are_as_long_as_the_prices_of_all_assets(tmp_path: Path, name: str) -> None:
    prices = PARTIAL_PRICES[name](pl.read_csv(PRICES, infer_schema_length=None).select("time", "BTC", "ETH").head(100))
    test = research.stress(prices, TARGETS, research.band(0.1), paths=2, scenarios=["crash"])
    assert f"{test!r}".startswith("StressTest(4 cases of 40 bars, ")
    prices.write_csv(path := tmp_path / "prices.csv")
    portfolio = portfolio_options(target="BTC=40,ETH=30,USD=30", band="10%rel")
    prepared_test = trials.prepare_stress(path, USUAL_MARKET, trials.StressOptions(paths=2), portfolio)
    assert prepared_test.stress_spec.path_bars == 40
    with pytest.raises(ConfigError, match="horizon: 41 days is 41 bars of 1 day, the prices have 40"):
        research.stress(prices, TARGETS, research.band(0.1), horizon="41d")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"horizon": "60d", "bars": 60}, "horizon: bars give the length already .give one of the two"),
        ({"horizon": "23h"}, "horizon: 23 h is shorter than a bar of 1 day .write for example horizon=.30 days"),
        ({"horizon": "soon"}, "horizon: 'soon' is not a duration"),
    ],
)
def test_a_wrong_horizon_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        research.stress(PRICES, TARGETS, research.band(0.1), **arguments)


@pytest.mark.parametrize(
    ("is_supported", "objective", "label", "destination"),
    [
        pytest.param(True, "tracking", "band 20 % rel, to halfway", "halfway", id="tracking, supported"),
        pytest.param(False, "tracking", "tracking normal", "zone", id="tracking, not supported"),
        pytest.param(True, "growth", "band 20 % rel, to halfway", "halfway", id="growth, supported"),
        pytest.param(False, "growth", "every 14 days", "target", id="growth, not supported"),
    ],
)
def test_what_is_recommended_is_the_best_if_supported_else_the_setting_to_beat(
    is_supported: bool, objective: str, label: str, destination: str
) -> None:
    calendar = {"calendar": "14d"} if objective == "growth" else {}
    search = research.tune(PRICES, TARGETS, [research.band(0.2)], destinations=["halfway"], objective=objective, **calendar)
    result = replace(search._result, verdict=replace(search._result.verdict, is_recommended=is_supported))
    search = research.Tuning(result)
    assert (search.best, search.best_destination.value) == (research.band(0.2), "halfway")
    assert (search.recommended == search.best) == is_supported
    assert search.recommended_destination.value == destination
    assert repr(search) == f"Tuning(1 setting, best: band 20 % rel, to halfway, recommended: {label})"
    assert tune_document(result)["recommendation"]["label"] == label
    again = research.backtest(PRICES, TARGETS, search.recommended, destination=search.recommended_destination, end="2021-02-01")
    assert again.summary.trades > 0


@pytest.mark.parametrize(
    ("objective", "triggers", "recommended"),
    [
        pytest.param("tracking", BANDS, "tracking normal", id="the rule, not tried"),
        pytest.param("tracking", [*BANDS, research.tracking()], "tracking normal", id="the rule, tried"),
        pytest.param("growth", BANDS, "every 28 days", id="the calendar, not tried"),
    ],
)
def test_search__marks_the_recommended_setting_in_its_tables(
    objective: str, triggers: list[Any], recommended: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = research.tune(PRICES, TARGETS, triggers, objective=objective)
    frame = search.frame()
    assert frame.filter(pl.col("recommended"))["setting"].to_list() == [recommended]
    assert len(frame) == 3
    assert f"{recommended} (recommended)" in search.report(tmp_path / "search.html").read_text()
    monkeypatch.setattr("agent.research.tuning.SHOWN_SETTINGS", 1)
    assert recommended in search._repr_html_().partition("<table")[2]


def test_usual_searches_need_no_trigger() -> None:
    by_loss = research.tune(PRICES, TARGETS, allocators=["fixed"])
    again = research.backtest(PRICES, TARGETS, by_loss.best, destination=by_loss.best_destination, end="2021-02-01")
    assert again.summary.trades > 0
    by_growth = research.tune(PRICES, TARGETS, objective="growth")
    assert {"tracking normal", "every 7 days"} <= set(by_loss.frame()["setting"])
    assert {"band 10 % rel", "every 7 days"} <= set(by_growth.frame()["setting"])
    assert not any("tracking" in setting for setting in by_growth.frame()["setting"])


def test_the_picture_has_every_setting_that_has_a_cell() -> None:
    triggers = [*BANDS, research.every("7d"), research.tracking("normal")]
    search = research.tune(PRICES, TARGETS, triggers, destinations=["target", "halfway"])
    figure = search.plot()
    (heat,) = figure.data
    loss_by_cell = {(row, column): heat.z[i][j] for i, row in enumerate(heat.y) for j, column in enumerate(heat.x)}
    for row in search.frame().iter_rows(named=True):
        trigger_text = row["setting"].split(",")[0]
        band = "no band" if trigger_text == "every 7 days" else trigger_text.removeprefix("band ")
        assert loss_by_cell[band, row["destination"]] == pytest.approx(row["loss_bps"])
    assert figure.layout.title.text == "Loss, bps a year by band and destination"
    assert (heat.colorbar.title.text, heat.reversescale) == ("loss, bps a year", True)
    assert "loss, bps" in heat.hovertemplate


def test_a_usual_search_may_combine_its_bands_and_intervals() -> None:
    settings = set(research.tune(PRICES, TARGETS, allocators=["fixed"], combined=True).frame()["setting"])
    assert {"tracking normal", "band 10 % rel", "every 7 days", "band 10 % rel, every 7 days"} <= settings


def tuned(*triggers: object, **arguments: object) -> Callable[[], object]:
    chosen = {"triggers": triggers} if triggers else {}
    return lambda: research.tune(PRICES, TARGETS, **chosen, **arguments)  # type: ignore[arg-type]  # wrong on purpose


def stressed(**arguments: object) -> Callable[[], object]:
    return lambda: research.stress(PRICES, TARGETS, research.band(0.1), **arguments)  # type: ignore[arg-type]  # wrong on purpose


def in_cash(view: SignalView) -> dict[str, float]:
    return {"USD": 1}


WRONG = {
    "a band at an interval": (tuned(research.every("7d", research.band(0.1))), "triggers: a band at an interval"),
    "a text": (tuned("10%rel"), "triggers: '10%rel' cannot be searched over"),
    "tracking after tax": (tuned(build_tracking("normal", after_tax=True)), "triggers: NoTradeZone cannot be searched over"),
    "tracking at another cost": (tuned(NoTradeZone(TrackingRisk(1, None, (), ()))), "triggers: NoTradeZone cannot be searched over"),
    "a short interval": (tuned(research.every("60s")), "triggers: 1 min is outside"),
    "an unknown objective": (tuned(objective="profit"), "objective: 'profit'"),
    "an unknown destination": (tuned(*BANDS, destinations=["edge"]), "destinations: 'edge'"),
    "an unknown destination of a usual search": (tuned(destinations=["edge"]), "destinations: 'edge'"),
    "an unknown allocator": (tuned(*BANDS, allocators=["best"]), "allocators: 'best'"),
    "a calendar of a second": (tuned(calendar="1s"), "calendar: 1 s is outside"),
    "a calendar beside tracking": (tuned(calendar="7d"), "calendar: with the objective tracking"),
    "the usual calendar beside tracking": (tuned(calendar="28d"), "calendar: with the objective tracking"),
    "a destination of tracking": (tuned(research.tracking("strict"), destinations=["halfway"]), "destinations: tracking has its own"),
    "fewer cores than none": (tuned(jobs=-1), "jobs: -1"),
    "more cores than any machine has": (tuned(jobs=10**400), "jobs: a number of too many digits"),
    "a thousand and one cores": (stressed(jobs=1_001), "jobs: 1001"),
    "a text of cores": (tuned(jobs="four"), "jobs: 'four'"),
    "an empty text of cores": (tuned(jobs=""), "jobs: an empty text"),
    "bands to combine with nothing": (tuned(*BANDS, combined=True), "combined: "),
    "an interval to combine with nothing": (tuned(research.every("7d"), combined=True), "combined: "),
    "tracking to combine with nothing": (tuned(research.tracking(), combined=True), "combined: "),
    "no prices for a search": (tuned(start="2021-12-30"), "prices: the first three quarters"),
    "no number": (tuned(value="dear"), "value: 'dear'"),
    "no paths": (stressed(paths=0), "paths: 0"),
    "no paths of the live step": (stressed(step_paths=0), "step_paths: 0"),
    "deposits of a search": (tuned(*BANDS, flows={"2021-03-01": 5}), "flows: deposits would count as gains"),
    "deposits of a stress test": (stressed(flows={"2021-03-01": 5}), "flows: deposits would count as gains"),
    "a signal of a search in several processes": (tuned(*BANDS, signal=in_cash, jobs=2), "jobs: 2, but a function"),
    "a signal of a stress test in several processes": (stressed(signal=in_cash, jobs=2), "jobs: 2, but a function"),
    "a signal in a folder": (tuned(*BANDS, signal=in_cash, folder="runs"), "folder: it cannot tell the runs of a function"),
    "a signal beside allocators": (tuned(*BANDS, signal=in_cash, allocators=["equal"]), "allocators: signal chooses"),
    "an allocator beside allocators": (tuned(*BANDS, allocator=in_cash, allocators=["equal"]), "allocators: allocator chooses"),
    "too long paths": (stressed(bars=10**7), "bars: 10000000"),
    "paths of less than no bar": (stressed(bars=-1), "bars: -1"),
    "an unknown scenario": (stressed(scenarios=["flood"]), "scenarios: 'flood'"),
    "a scenario of none": (stressed(scenarios=[research.Scenario.CALM]), "scenarios: 'calm' is a case of each test"),
    "the same by its name": (stressed(scenarios=["crash", "calm"]), "scenarios: 'calm' is a case of each test"),
    "a scenario of given changes": (stressed(scenarios=[research.Scenario.SHOCK]), "scenarios: 'shock'"),
    "gas of no target": (stressed(scenarios=["gas-spike"]), "scenarios: gas-spike needs the price of the native coin"),
    "a joined text": (tuned(*BANDS, destinations=["target,halfway"]), "destinations: 'target,halfway'"),
    "costs of a text": (tuned(costs="0.003"), "costs: '0.003' are no Costs"),
    "cores of another kind": (stressed(jobs="four"), "jobs: 'four' is not an address"),
    "an unknown network": (stressed(network="bsae"), "network: 'bsae'"),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        call()
    assert error.value.message.startswith(message)
    assert error.value.remedy
    assert "--" not in f"{error.value.message} {error.value.remedy}"


def test_gas_without_a_price__is_named_as_an_argument_is_written() -> None:
    with pytest.raises(ConfigError) as error:
        stressed(scenarios=["gas-spike"])()
    assert error.value.remedy == 'name its asset: native="ETH"'


@pytest.mark.parametrize("call", [tuned(fee=0.1), stressed(fee=0.1)])
def test_unknown_arguments_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match=r"fee: no such argument \(did you mean costs\? write costs=research.Costs\(fee=0.003\)\)"):
        call()


def test_jobs_are_cores_or_a_client_of_dask() -> None:
    address = "tcp://127.0.0.1:8786"
    client = SimpleNamespace(scheduler=SimpleNamespace(address=address))
    assert cores_and_scheduler(4) == (4, "")
    assert cores_and_scheduler(client) == cores_and_scheduler(address) == (0, address)
    with pytest.raises(ConfigError, match=r"jobs: SimpleNamespace of Dask is closed \(open a new one\)"):
        cores_and_scheduler(SimpleNamespace(scheduler=None))


def test_a_client_of_dask_that_is_awaited_is_refused_with_what_to_write() -> None:
    """It answers in the loop of this thread, which waits for the search."""
    distributed = pytest.importorskip("distributed")
    words = r"jobs: an asynchronous Client .* \(write jobs=Client\(…\), without asynchronous=True\)"

    async def search() -> None:
        async with distributed.Client(asynchronous=True, processes=False, n_workers=1, dashboard_address=None) as client:
            with pytest.raises(ConfigError, match=words):
                research.compare(PRICES, TARGETS, BANDS, jobs=client)

    asyncio.run(search())


def test_a_client_of_dask_runs_searches_comparisons_and_stress_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    prices = pl.read_csv(PRICES, infer_schema_length=None).select("time", "BTC", "ETH").head(40)
    sent: list[object] = []
    on_cluster = workers.run_on_cluster

    def count_work(*work: Any) -> Any:
        sent.append(type(work[0]).__name__)
        return on_cluster(*work)

    monkeypatch.setattr(trials, "run_on_cluster", count_work)
    monkeypatch.setattr(backtests, "run_on_cluster", count_work)

    def run(jobs: object) -> tuple[pl.DataFrame, ...]:
        search = research.tune(prices, TARGETS, BANDS[:1], allocators=["equal"], jobs=jobs)
        comparison = research.compare(prices, TARGETS, BANDS, jobs=jobs)
        test = research.stress(prices, TARGETS, BANDS[0], paths=4, bars=20, scenarios=["crash"], jobs=jobs)
        return search.frame(), comparison.frame(), test.paths

    with distributed.Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        on_dask = run(client)
    assert list(dict.fromkeys(sent)) == ["TuneJob", "Trials", "StressWork"]
    for frame, expected in zip(on_dask, run(1), strict=True):
        assert frame.equals(expected)
