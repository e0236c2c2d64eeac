"""A search for the least loss against a perfect tracker: what is measured, what it is compared with, and when the rule is kept."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from agent.app.research.trials import searched_grid
from agent.backtest.settings import SimulatedTokens, make_spec
from agent.backtest.simulate import simulate
from agent.backtest.tune.grid import RULE, PolicyChoice
from agent.backtest.tune.jobs import RunEngine, RunResult, TuneJob
from agent.backtest.tune.loss import RISK_AVERSION, step_losses
from agent.backtest.tune.report import tune_document, tune_page
from agent.backtest.tune.search import TuneResult, yearly_loss
from agent.backtest.tune.statistics import (
    ConfidenceInterval,
    Excess,
    Objective,
    OverfittingEstimate,
    compare_neighbours,
    heat_map,
    judge_loss,
    last_quarter_start,
)
from agent.backtest.world import TransactionCost
from agent.cli.research.portfolio_texts import portfolio_options
from agent.cli.research.trial_texts import parse_grid
from agent.config.tables.triggers import TriggerTable, build_trigger
from agent.errors import ConfigError
from agent.model import Destination, Every, NoTradeZone, RiskEstimationWindow, Threshold
from agent.policy.triggers.no_trade_zone import build_tracking
from agent.policy.triggers.tracking_rule import TrackingLoss
from agent.units import BPS
from tests.support.backtests import DECIMALS, FAIR, TERMS, WALKING, exact, grid_of, result_of, search, tune_result_of, walks
from tests.support.constants import DAY_S
from tests.support.text import mentions

pytest.importorskip("numba")

GRID = {"band": "2%rel,10%rel,20%rel", "destination": "target,band", "tracking": "relaxed,normal,strict", "objective": Objective.TRACKING}


def loss_of(tune_result: TuneResult, choice_index: int) -> TrackingLoss:
    """Return what a setting lost a year in the first three quarters."""
    return yearly_loss(tune_result.run_results[choice_index], tune_result.years)


def test_least_loss__wins_by_costs_and_tracking_error() -> None:
    tune_result = tune_result_of(search(walks(1, 240, 0.02), **GRID))  # type: ignore[arg-type]  # fields of a search
    losses = [loss_of(tune_result, index) for index in range(len(tune_result.choices))]
    assert tune_result.scores.tolist() == pytest.approx([-loss.total for loss in losses])
    assert tune_result.best_index == int(np.argmin([loss.total for loss in losses]))
    run = tune_result.run_results[tune_result.best_index]
    years = tune_result.years
    tracking_error = np.sqrt(run.active_variance_by_mark[-1] / years)
    assert losses[tune_result.best_index].drift == pytest.approx(RISK_AVERSION / 2 * tracking_error**2)
    assert losses[tune_result.best_index].costs == pytest.approx(run.cost_share_by_mark[-1] / years)
    assert years == pytest.approx(179 / 365)
    document = tune_document(tune_result)
    ranked = [float(setting["objective"]) for setting in document["ranked"]]
    assert ranked == sorted(ranked)
    assert ranked[0] == pytest.approx(losses[tune_result.best_index].total * BPS, abs=1e-6)
    best = document["best"]
    assert float(best["costs_bps"]) + float(best["drift_bps"]) == pytest.approx(float(best["loss_bps"]), abs=2e-6)
    assert float(best["trades_yearly"]) == pytest.approx(run.rebalance_count / years, abs=0.01)
    assert document["deflated_sharpe"] is None
    assert any("1 % of tracking error is worth 0.5 bps" in note for note in document["notes"])


def test_kernel_and_full_step_lose_the_same() -> None:
    tune_spec = search(walks(3, 48), band="8%rel", destination="target,halfway", tracking="normal", objective=Objective.TRACKING)
    quick = tune_result_of(tune_spec)
    whole = tune_result_of(replace(tune_spec, uses_full_step=True))
    assert dict(quick.run_counts_by_engine) == {"kernel": 4}
    assert dict(whole.run_counts_by_engine) == {"full": 4}
    for index in range(3):
        assert loss_of(quick, index).costs == pytest.approx(loss_of(whole, index).costs, rel=0.02)
        assert loss_of(quick, index).drift == pytest.approx(loss_of(whole, index).drift, rel=0.02)
        assert quick.run_results[index].rebalance_count == whole.run_results[index].rebalance_count > 0
    assert quick.best_index == whole.best_index


def test_gas_leaving_asset_or_limit__takes_the_full_step() -> None:
    def engines(**changes: object) -> set[RunEngine]:
        tune_spec = search(walks(5, 40), tracking="normal", **changes)  # type: ignore[arg-type]  # fields of a search
        job = TuneJob(tune_spec.table, tune_spec.backtest, tune_spec.settings, (RULE,), (0, 1), TERMS)
        return {job.engine(choice) for choice in job.choices}

    assert engines() == {RunEngine.KERNEL}
    assert engines(settings=replace(FAIR, gas_price_wei=10**9)) == {RunEngine.FULL}
    leaving = make_spec({"A": 7_000, "B": 0, "USD": 3_000}, Every(86_400), "USD", interval_s=86_400)
    assert engines(backtest=leaving) == {RunEngine.FULL}
    limited = search(walks(5, 40)).backtest
    assert engines(backtest=replace(limited, limits=replace(limited.limits, plan_cost_bps=50))) == {RunEngine.FULL}


def test_last_quarter__judges_a_choice_and_changes_none() -> None:
    table = walks(1, 240, 0.02)
    closes = table.closes.copy()
    closes[last_quarter_start(240) :] *= np.linspace(1, 2, 60)[:, None] ** np.array([1, -1])
    first, second = (tune_result_of(search(prices, **GRID)) for prices in (table, replace(table, closes=closes)))  # type: ignore[arg-type]  # fields
    assert first.scores.tolist() == second.scores.tolist()
    assert first.overfitting == second.overfitting
    (claim,) = first.claims
    assert claim.is_loss
    assert claim.benchmark == "the rule (tracking normal)"
    best, rule = first.last_quarter_results
    years = float(first.last_quarter_times_s[-1] - first.last_quarter_times_s[0]) / (365 * 86_400)
    assert claim.interval.mean == pytest.approx(yearly_loss(rule, years).total - yearly_loss(best, years).total, rel=1e-6, abs=1e-12)
    assert claim != second.claims[0] or first.choices[first.best_index] == RULE


@pytest.mark.parametrize("window_days", [0, 20, 60])
def test_last_quarter__measures_risk_from_its_first_bar(window_days: int) -> None:
    tune_spec = search(walks(1, 160, 0.02), band="", tracking="normal", objective=Objective.TRACKING, uses_full_step=True)
    zone = build_tracking("normal")
    if window_days:
        zone = NoTradeZone(replace(zone.risk, estimation_window=RiskEstimationWindow(window_days * DAY_S, DAY_S, 15, 2 * DAY_S)))
    spec = replace(tune_spec.backtest, policy=replace(tune_spec.backtest.policy, trigger=zone, destination=Destination.ZONE))
    last, _ = tune_result_of(replace(tune_spec, backtest=spec)).last_quarter_results
    first_bar = last_quarter_start(160) - (window_days + 1 if window_days else 0)
    equity = simulate(spec, tune_spec.table.bars(first_bar, 160), FAIR).equity[-40:]
    assert last.value_by_mark / last.value_by_mark[0] == pytest.approx(equity / equity[0], rel=1e-9)


def saved(low: float) -> Excess:
    return Excess("the rule (tracking normal)", ConfidenceInterval(low + 1e-4, low, low + 2e-4, 100, 3.0), is_loss=True)


BAND = PolicyChoice(Threshold(None, 1_000), Destination.BAND)
LOSSES = (TrackingLoss(2e-4, 1e-4), TrackingLoss(3e-4, 2e-4))


@pytest.mark.parametrize(
    ("choice", "claim", "chance", "recommended", "reason"),
    [
        pytest.param(BAND, saved(1e-5), 0.1, True, "Recommended: band 10 % rel, to band.", id="saves more than its noise"),
        pytest.param(BAND, saved(1e-5), None, True, "Recommended: band 10 % rel, to band.", id="chance unknown"),
        pytest.param(BAND, saved(-1e-5), 0.1, False, "Recommended: tracking normal.", id="loses more"),
        pytest.param(BAND, saved(1e-9), 0.1, False, "Recommended: tracking normal.", id="saves too little"),
        pytest.param(BAND, saved(1e-5), 0.5, False, "below the median in the other in 50 %", id="overfitted"),
        pytest.param(BAND, Excess("the rule", None, is_loss=True), 0.1, False, "fewer than 30 periods", id="too few periods"),
        pytest.param(
            RULE,
            Excess("the rule", ConfidenceInterval(0.0, 0.0, 0.0, 100, 3.0), is_loss=True),
            0.1,
            False,
            "tracking normal lost 3.00 bps a year (2.00 of costs, 1.00 of drift); it is the rule to beat",
            id="the rule itself",
        ),
    ],
)
def test_rule__is_kept_unless_another_loses_less_beyond_noise(
    choice: PolicyChoice, claim: Excess, chance: float | None, recommended: bool, reason: str
) -> None:
    risk = None if chance is None else OverfittingEstimate(chance, 70, 8)
    verdict = judge_loss(choice, claim, *LOSSES, risk)
    text = " ".join(verdict.sentences)
    assert verdict.is_recommended == recommended
    assert reason in text
    assert verdict.safe_default == "tracking normal"
    assert choice == RULE or mentions(text, "tracking normal 5.00 bps a year (3.00 of costs, 2.00 of drift)")
    assert "2 settings" in " ".join(judge_loss(choice, claim, *LOSSES, risk, 2).sentences)


@pytest.mark.parametrize(
    ("objective", "factor"), [(Objective.GROWTH, 365.0), (Objective.SHARPE, 365**0.5), (Objective.TRACKING, -365.0 * BPS)]
)
def test_scores_of_folds_are_those_of_a_year(objective: Objective, factor: float) -> None:
    tune_result = tune_result_of(search(walks(3, 120), **{**GRID, "objective": objective}))  # type: ignore[arg-type]  # fields
    folds = tune_document(tune_result)["walk_forward"]["folds"]
    for fold, (result, _) in zip(folds, tune_result.fold_results_and_excesses, strict=True):
        assert float(fold["in_sample"]) == pytest.approx(result.in_sample_score * factor, abs=1e-5)
        assert float(fold["out_of_sample"]) == pytest.approx(result.out_of_sample_score * factor, abs=1e-5)


def test_walk_forward__has_the_dates_of_its_periods_across_a_gap() -> None:
    table = walks(3, 200)
    is_kept = np.ones(200, dtype=bool)
    is_kept[40:100] = False
    tune_result = tune_result_of(search(replace(table, times_s=table.times_s[is_kept], closes=table.closes[is_kept]), **GRID))  # type: ignore[arg-type]  # fields
    (section,) = [section for section in tune_page(tune_result).sections if section.title == "Walk-forward"]
    times_s = tune_result.spec.table.times_s
    folds = [fold_result.fold for fold_result, _ in tune_result.fold_results_and_excesses]
    assert [row[1] for row in section.tables[0].rows] == [
        f"{datetime.fromtimestamp(times_s[fold.evaluation_start], UTC):%Y-%m-%d}" for fold in folds
    ]
    ends = [period + 1 for fold in folds for period in range(fold.evaluation_start, fold.evaluation_end)]
    assert section.charts[0]["data"][0]["x"] == (1000 * times_s[ends]).tolist()


def test_the_document_names_the_rule_where_nothing_beats_it() -> None:
    tune_result = tune_result_of(search(walks(2, 240, 0.02), band="2%rel,4%rel", objective=Objective.TRACKING))
    assert not tune_result.verdict.is_recommended
    document = tune_document(tune_result)
    assert [setting["label"] for setting in document["ranked"]][-1] == "tracking normal", "the rule, which is none of the grid"
    assert len(document["ranked"]) == document["settings"] + 1
    assert document["recommendation"]["backtest_options"] == "--tracking normal"
    assert document["recommendation"]["config"] == 'trigger = { kind = "tracking", strictness = "normal" }'
    assert document["baseline"]["label"] == document["safe_default"] == "tracking normal"
    assert all(fold["over_hold"] is None for fold in document["walk_forward"]["folds"])
    for fold, (result, excesses) in zip(document["walk_forward"]["folds"], tune_result.fold_results_and_excesses, strict=True):
        assert float(fold["out_of_sample"]) > 0
        assert float(fold["over_baseline"]) == pytest.approx(float(excesses[0].mean()) * 365 * BPS, abs=1e-5)
        assert float(fold["out_of_sample"]) == pytest.approx(-float(result.returns.mean()) * 365 * BPS, abs=1e-5)


def test_map__shows_losses_beside_the_rule_and_its_strictnesses() -> None:
    tune_result = tune_result_of(search(walks(1, 240, 0.02), **GRID))  # type: ignore[arg-type]  # fields of a search
    rule_index = tune_result.choices.index(RULE)
    tune_result = replace(tune_result, best_index=rule_index)
    loss_map = heat_map(tune_result.choices, tune_result.scores, rule_index)
    assert loss_map.row_axis.labels == ("tracking strict", "tracking normal", "tracking relaxed", "2 % rel", "10 % rel", "20 % rel")
    assert loss_map.column_axis.labels == ("band", "target", "zone")
    assert loss_map.best_cell == (1, 2)
    near = compare_neighbours(tune_result.choices, tune_result.scores, rule_index)
    assert near.neighbour_count == 2
    values = tune_document(replace(tune_result, heat_map=loss_map, neighbours=near))["stability"]["values"]
    assert float(values[1][2]) == pytest.approx(loss_of(tune_result, rule_index).total * BPS, abs=1e-6)
    assert values[1][0] is None
    page = tune_page(replace(tune_result, heat_map=loss_map, neighbours=near))
    marker = next(section for section in page.sections if section.title == "Stability of the optimum").charts[0]["data"][0]["marker"]
    assert min(marker["color"]) > 0
    assert marker["reversescale"]
    assert page.sections[0].charts[0]["title"] == "Loss in the last quarter"


def test_active_returns__are_against_targets_without_reserves() -> None:
    result = result_of(bars=120, every=30)
    targets = result.targets.copy()
    targets[60:] = [0.6, 0.3, 0.1]
    record = TransactionCost(50, 0, exact(100), exact(2), exact(3), exact(5), False, True)
    result = replace(result, targets=targets, rebalances=(*result.rebalances, record))
    spec = make_spec(
        {"BTC": 5_000, "ETH": 3_000, "USD": 2_000}, Every(86_400), "USD", tokens=SimulatedTokens(decimals_by_symbol={"USD": DECIMALS})
    )
    cost_shares, square_sums = step_losses(spec, result)
    returns = result.prices[1:] / result.prices[:-1] - 1
    active = ((result.weights - targets)[:-1] * returns).sum(axis=1)
    assert square_sums == pytest.approx(np.append(0.0, np.cumsum(active**2)))
    assert cost_shares[50] - cost_shares[49] == pytest.approx(10 / (result.equity[50] + 10))
    assert cost_shares[-1] > cost_shares[50]
    assets = tuple(replace(asset, reserve_raw=500 * 10**DECIMALS if asset.token.symbol == "USD" else 0) for asset in spec.portfolio.assets)
    reserved = replace(spec, portfolio=replace(spec.portfolio, assets=assets))
    values = result.weights * result.equity[:, None]
    values[:, 2] -= 500
    active = ((values / values.sum(axis=1, keepdims=True) - targets)[:-1] * returns).sum(axis=1)
    assert step_losses(reserved, result)[1] == pytest.approx(np.append(0.0, np.cumsum(active**2)))


def test_tax_is_a_cost_of_the_period_that_owes_it() -> None:
    values = np.array([100.0, 110.0, 120.0])
    run = RunResult(0, 120.0, 0.0, 0.0, 0, values, 0, np.array([0.0, 0.0, 1.1]), np.array([0.0, 0.1, 0.1]), np.array([0.0, 0.0, 0.02]))
    assert run.costs_and_tax.tolist() == pytest.approx([0.1, 0.01])
    assert run.trading_costs.tolist() == pytest.approx([0.1, 0.0])
    assert run.drifts.tolist() == pytest.approx([0.0, 0.01])
    loss = yearly_loss(run, 0.5)
    assert (loss.costs, loss.drift) == pytest.approx((0.22, 0.02))


def test_a_search_for_the_least_loss_goes_on_where_it_stopped(tmp_path: Path) -> None:
    tune_spec = search(walks(1, 80), **GRID)  # type: ignore[arg-type]  # fields of a search
    first = tune_result_of(tune_spec, tmp_path)
    again = tune_result_of(tune_spec, tmp_path)
    assert again.resumed_run_count == len(first.choices) + 1
    assert again.scores.tolist() == first.scores.tolist()
    assert again.verdict == first.verdict


def test_usual_search__has_the_rule_beside_bands_and_intervals() -> None:
    choices = searched_grid(parse_grid(), Objective.TRACKING).choices()
    assert RULE in choices
    assert PolicyChoice(Threshold(None, 1_000), Destination.TARGET) in choices
    assert PolicyChoice(Every(28 * 86_400)) in choices
    assert len([choice for choice in choices if choice.strictness]) == 3
    named = searched_grid(parse_grid("5%rel"), Objective.TRACKING).choices()
    assert [choice.label for choice in named] == ["band 5 % rel", "tracking relaxed", "tracking normal", "tracking strict"]
    by_strictness = searched_grid(parse_grid(tracking="strict"), Objective.TRACKING).choices()
    assert [choice.label for choice in by_strictness] == ["tracking strict"]
    by_growth = searched_grid(parse_grid(), Objective.GROWTH).choices()
    assert set(by_growth) == {choice for choice in choices if choice.strictness is None}
    for texts in ({"destination": "target"}, {"trigger": "band"}):
        with pytest.raises(ConfigError, match="tracking and zones have their own"):
            searched_grid(parse_grid(tracking="strict", **texts), Objective.GROWTH)


def test_every_setting_is_what_its_options_and_its_config_say() -> None:
    table = walks(1, 20)
    target = ",".join(f"{symbol}={bps / 100:g}" for symbol, bps in WALKING.items())
    for choice in grid_of("5%rel,2%abs", "7d", destination="target,halfway,band", tracking="relaxed,normal,strict").choices():
        words = choice.backtest_options.replace("--", "").split()
        named = dict(zip(words[::2], words[1::2], strict=True))
        options = portfolio_options(
            target=target,
            band=named.get("band", ""),
            every=named.get("every", ""),
            destination=named.get("destination", ""),
            tracking=named.get("tracking", ""),
        )
        policy = options.spec(table).policy
        assert (policy.trigger, policy.destination) == (choice.trigger, choice.destination)
        keys = tomllib.loads(choice.config_text)
        read: TriggerTable = TypeAdapter(TriggerTable).validate_python(keys["trigger"])
        assert build_trigger(read, {}) == choice.trigger
        assert keys.get("destination", choice.destination.value) == choice.destination.value


def test_zones__are_tried_by_the_full_step_with_a_cost_limit() -> None:
    tune_spec = search(walks(4, 16), band="5%rel", objective=Objective.TRACKING)
    limits = replace(tune_spec.backtest.limits, plan_cost_bps=100)
    grid = grid_of(tracking="normal", zone="1d,300d")
    tune_result = tune_result_of(replace(tune_spec, grid=grid, backtest=replace(tune_spec.backtest, limits=limits)))
    assert dict(tune_result.run_counts_by_engine) == {"full": 4}
    assert [choice.label for choice in tune_result.choices] == ["tracking normal", "zone 1 day", "zone 300 days"]
    short, long = (tune_result.run_results[index].rebalance_count for index in (1, 2))
    assert short < long  # the longer a deviation would last, the more is corrected
    assert tune_result.heat_map.row_axis.labels == ("zone 300 days", "zone 1 day", "tracking normal")
    keys = tomllib.loads(tune_result.choices[1].config_text)
    read: TriggerTable = TypeAdapter(TriggerTable).validate_python(keys["trigger"])
    assert build_trigger(read, {}) == tune_result.choices[1].trigger


def test_rule_without_a_target_numeraire__is_refused() -> None:
    with pytest.raises(ConfigError, match="tracking trades against USD") as caught:
        portfolio_options(target="A=60,B=40").spec(walks(1, 20))
    assert "USD=0" in caught.value.remedy
