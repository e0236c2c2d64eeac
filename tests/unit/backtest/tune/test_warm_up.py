"""What an allocator traded while it gathered prices is in no figure of a search: worth, costs and turnover are of the marks alone."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.backtest.settings import make_spec
from agent.backtest.simulate import simulate
from agent.backtest.tune.grid import PolicyChoice
from agent.backtest.tune.jobs import TuneJob, buy_and_hold_values, spec_for_choice
from agent.model import Every, Threshold
from tests.support.backtests import DAY_S, FAIR, TERMS, WALKING, walks, with_reserve

pytest.importorskip("numba")


def test_all_figures_of_a_run_begin_with_its_first_mark() -> None:
    table = walks(3, 24)
    choice = PolicyChoice(Every(7 * DAY_S))
    spec = make_spec(WALKING, Every(7 * DAY_S), "USD", interval_s=table.interval_s)
    whole = simulate(spec_for_choice(spec, choice, TERMS, DAY_S), table, FAIR)
    assert [rebalance.bar for rebalance in whole.rebalances] == [7, 14, 21]
    job = TuneJob(table, spec, FAIR, (choice,), tuple(range(7, 24)), TERMS, uses_full_step=True)
    warm = job.run(job.chunks()[0])[0]
    grown = float(whole.equity[-1] / whole.equity[7])
    scale = 10**whole.decimals
    assert (warm.final_value, warm.value_by_mark[0]) == pytest.approx((10_000 * grown, 10_000))
    assert warm.value_by_mark[-1] == pytest.approx(warm.final_value)
    assert warm.rebalance_count == 2  # at 14 and 21: the first value is that after the trades of bar 7
    ratio = Fraction(10_000) / Fraction(float(whole.equity[7]))
    later = whole.rebalances[1:]
    assert warm.costs == pytest.approx(float(sum(result.fees + result.impact + result.gas for result in later) * ratio / scale))
    assert warm.turnover == pytest.approx(float(sum(result.turnover for result in later) * ratio / scale))


@pytest.mark.parametrize(("symbol", "coins"), [("USD", 3_000), ("A", 30)])
def test_run_with_a_reserve__begins_where_holding_begins(symbol: str, coins: int) -> None:
    table = walks(3, 24)
    spec = with_reserve(make_spec(WALKING, Threshold(4_999, None), "USD", interval_s=table.interval_s), symbol, coins)
    marks = tuple(range(8, 24))
    job = TuneJob(table, spec, FAIR, (PolicyChoice(Threshold(4_999, None)),), marks, TERMS, uses_full_step=True)
    run = job.run(job.chunks()[0])[0]
    hold_values = buy_and_hold_values(spec, FAIR, table, marks)
    assert run.value_by_mark[0] == pytest.approx(hold_values[0])
    assert run.final_value == pytest.approx(run.value_by_mark[-1])
