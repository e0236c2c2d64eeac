"""A search net of tax: what a run owes at each mark, what the ranking and the verdict then count, and what the report says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from agent.app.research.trials import USUAL_GRID, TuneOptions, _tax_rule
from agent.backtest.settings import TaxRule
from agent.backtest.simulate import simulate, spec_digest
from agent.backtest.tune.jobs import RunEngine, TuneJob, spec_for_choice
from agent.backtest.tune.report import tune_document, tune_page
from agent.backtest.tune.search import TuneSpec
from agent.backtest.tune.taxes import tax_by_mark
from agent.cli.research.trial_texts import tune_options
from agent.config.load import parse_config
from agent.errors import ConfigError
from agent.model import LotMethod
from tests.support.backtests import DAY_S, FAIR, TERMS, search, swinging, tune_result_of, walks
from tests.support.configs.samples import config_text
from tests.support.samples import slow

pytest.importorskip("numba")
YEAR_2024_S = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
DAYS = [YEAR_2024_S + DAY_S * day for day in (-20, -10, -1, 5, 10)]
"""Three marks of 2023 and two of 2024."""


def taxed(tune_spec: TuneSpec, rate_bps: int, method: LotMethod = LotMethod.FIFO) -> TuneSpec:
    return replace(tune_spec, backtest=replace(tune_spec.backtest, tax=TaxRule(method, rate_bps=rate_bps)))


@pytest.mark.parametrize(
    ("gains", "taxes"),
    [
        ([], [0, 0, 0, 0, 0]),
        ([(-15, 100)], [0, 25, 25, 25, 25]),
        ([(-15, 100), (-5, -40)], [0, 25, 15, 15, 15]),
        ([(-15, -40), (-5, 100)], [0, 0, 15, 15, 15]),
        ([(-15, 100), (3, -400)], [0, 25, 25, 25, 25]),
        ([(-15, -400), (3, 100)], [0, 0, 0, 25, 25]),
        ([(-15, 100), (3, 100), (8, -20)], [0, 25, 25, 50, 45]),
        ([(-25, 100), (-20, 100)], [0, 0, 0, 0, 0]),
        ([(11, 100)], [0, 0, 0, 0, 0]),
    ],
)
def test_tax__is_that_of_each_years_gains_less_its_losses(gains: list[tuple[int, float]], taxes: list[float]) -> None:
    dated = [(YEAR_2024_S + DAY_S * day, gain) for day, gain in gains]
    assert tax_by_mark(dated, DAYS, 2_500).tolist() == taxes
    assert tax_by_mark(dated[::-1], DAYS, 0).tolist() == [0] * 5
    assert tax_by_mark(dated, DAYS, 10_000).tolist() == [4 * tax for tax in taxes]


@pytest.mark.parametrize("method", [LotMethod.AVERAGE, *slow(method for method in LotMethod if method is not LotMethod.AVERAGE)])
def test_run__owes_the_tax_of_the_lots_of_its_ledger(method: LotMethod) -> None:
    tune_spec = taxed(search(walks(21, 40), "5%rel"), 3_000, method)
    choice = tune_spec.grid.choices()[0]
    job = TuneJob(tune_spec.table, tune_spec.backtest, tune_spec.settings, (choice,), tuple(range(0, 40, 4)), TERMS)
    assert job.engine(choice) is RunEngine.FULL
    (result,) = job.run(job.chunks()[0])
    direct = simulate(spec_for_choice(tune_spec.backtest, choice, TERMS, DAY_S), tune_spec.table, FAIR)
    last_s = int(tune_spec.table.times_s[36])
    yearly: dict[int, Fraction] = {}
    for gain_s, gain in direct.dated_gains:
        if gain_s <= last_s:
            year = datetime.fromtimestamp(gain_s, UTC).year
            yearly[year] = yearly.get(year, Fraction(0)) + gain
    owed = sum(max(Fraction(0), gain) for gain in yearly.values()) * Fraction(3, 10) / 10**direct.decimals
    assert owed > 0
    assert result.tax_by_mark[-1] == pytest.approx(float(owed), rel=1e-9)
    assert (result.net_value_by_mark + result.tax_by_mark).tolist() == pytest.approx(result.value_by_mark.tolist())
    assert {gain.year: gain.realised for gain in direct.yearly_gains} == {
        year: sum((gain for gain_s, gain in direct.dated_gains if datetime.fromtimestamp(gain_s, UTC).year == year), Fraction(0))
        for year in {gain.year for gain in direct.yearly_gains}
    }


@pytest.mark.slow
def test_search__prefers_fewer_sales_when_they_are_taxed() -> None:
    """Swings of 30 % make a narrow band best before tax; half of each gain lost, it is dearer than a wide one."""
    tune_spec = search(swinging(48), "2%rel,60%rel")
    gross = tune_result_of(taxed(tune_spec, 0))
    net = tune_result_of(taxed(tune_spec, 9_900))
    assert net.gross_scores.tolist() == pytest.approx(gross.scores.tolist(), abs=2e-2)
    assert (net.scores <= net.gross_scores + 1e-12).all()
    assert (net.scores < net.gross_scores).any()
    returns = [np.log(run.net_value_by_mark[-1] / run.net_value_by_mark[0]) for run in net.run_results]
    assert net.best_index == int(np.argmax(returns))
    rule_note, best_note = tune_document(net)["notes"]
    assert "99 % tax" in rule_note
    assert "fifo" in rule_note
    assert net.choices[net.best_index].label in best_note
    assert ("it is the best before tax too" in best_note) == (int(net.gross_scores.argmax()) == net.best_index)
    assert tune_document(gross)["notes"] == []


@pytest.mark.slow
def test_search__judges_the_last_quarter_net_of_tax() -> None:
    tune_spec = search(swinging(40), "5%rel")
    gross = tune_result_of(replace(taxed(tune_spec, 0), uses_full_step=True))
    net = tune_result_of(taxed(tune_spec, 5_000))
    owed = net.last_quarter_results[0].tax_by_mark
    assert owed[-1] > 0
    assert gross.last_quarter_results[0].value_by_mark == pytest.approx(net.last_quarter_results[0].value_by_mark)
    assert net.scores[0] < gross.scores[0]
    (section,) = [section for section in tune_page(net).sections if section.title == "The last quarter"]
    after_tax = net.last_quarter_results[0].net_value_by_mark
    assert section.charts[0]["data"][0]["y"] == pytest.approx(after_tax / after_tax[0] - 1)


def test_search__resumes_with_its_taxes_alone(tmp_path: Path) -> None:
    tune_spec = taxed(search(walks(22, 40), "5%rel"), 2_500)
    first = tune_result_of(tune_spec, tmp_path / "out")
    again = tune_result_of(tune_spec, tmp_path / "out")
    assert again.scores.tolist() == first.scores.tolist()
    assert again.run_results[0].tax_by_mark.tolist() == first.run_results[0].tax_by_mark.tolist()
    with pytest.raises(ConfigError, match="the portfolio or the market"):
        tune_result_of(taxed(tune_spec, 2_600), tmp_path / "out")


def test_digest__tells_rates_apart() -> None:
    tune_spec = search(walks(1, 40))
    assert spec_digest(taxed(tune_spec, 0).backtest, FAIR) == spec_digest(tune_spec.backtest, FAIR)
    assert spec_digest(taxed(tune_spec, 1).backtest, FAIR) != spec_digest(tune_spec.backtest, FAIR)


@pytest.mark.parametrize(
    ("texts", "rule"),
    [
        ({}, TaxRule(LotMethod.HIFO, rate_bps=2_000)),
        ({"tax": "25%"}, TaxRule(LotMethod.HIFO, rate_bps=2_500)),
        ({"tax": "off"}, TaxRule(LotMethod.HIFO)),
        ({"tax": "2500bps", "lots": "average"}, TaxRule(LotMethod.AVERAGE, rate_bps=2_500)),
        ({"lots": "lifo"}, TaxRule(LotMethod.LIFO, rate_bps=2_000)),
    ],
)
def test_options__replace_rate_and_lots_of_the_config(texts: dict[str, str], rule: TaxRule) -> None:
    assert _tax_rule(TaxRule(LotMethod.HIFO, rate_bps=2_000), tune_options(USUAL_GRID, texts)) == rule


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        ({"tax": "0%"}, "--objective tax"),
        ({"tax": "101%"}, "--objective tax"),
        ({"tax": "25"}, "--objective tax"),
        ({"tax": "25%", "lots": "oldest"}, "--objective lots"),
        ({"lots": "fifo"}, "--objective lots"),
    ],
)
def test_options__refuse_a_tax_that_is_none(texts: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        _tax_rule(TaxRule(), tune_options(USUAL_GRID, texts))


@pytest.mark.parametrize("rate_bps", [0, 2_000], ids=["untaxed", "taxed"])
def test_options__refuse_lots_of_a_tax_that_is_off(rate_bps: int) -> None:
    with pytest.raises(ConfigError, match="--objective lots: there is no tax rate"):
        _tax_rule(TaxRule(rate_bps=rate_bps), TuneOptions(tax_bps=0, lots=LotMethod.HIFO))


@pytest.mark.parametrize(("rate", "bps"), [('"25%"', 2_500), ('"100%"', 10_000), ('"1bps"', 1)])
def test_config__has_the_rate(rate: str, bps: int) -> None:
    config = parse_config(config_text(('year_limit = "off"', f'year_limit = "off"\nrate = {rate} #')))
    assert config.tax.rate == bps


@pytest.mark.parametrize("rate", ['"0%"', '"101%"', "25", '"much"'])
def test_config__refuses_a_rate_that_is_none(rate: str) -> None:
    with pytest.raises(ConfigError, match=r"tax.*rate"):
        parse_config(config_text(('year_limit = "off"', f'year_limit = "off"\nrate = {rate} #')))
