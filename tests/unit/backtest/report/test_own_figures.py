"""Figures of back-tests with transfers, against plain loops over their journals: document, page and the figures before they are rounded."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, replace
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("empyrical")

from agent.backtest.data import PriceTable
from agent.backtest.report.backtest import backtest_page, excess_return
from agent.backtest.report.sections import BacktestAnalysis
from agent.backtest.report.series import backtest_document, growth_series, performance, risk_metrics
from agent.backtest.result import SimulationResult
from agent.backtest.settings import OwnerTransfer, make_spec
from agent.backtest.simulate import SimulationRun
from agent.model import Entry, EntryKind, Every, HybridTrigger, Threshold, Trigger
from tests.support.backtests import DAY_S, DEEP, START_S, WALKING, walks
from tests.support.quantstats_figures import quantstats_figures
from tests.unit.backtest.report import own_figures
from tests.unit.backtest.report.own_figures import History, JournalLine

EXACT = {"rel": 1e-9, "abs": 1e-9}
TRIGGERS: tuple[Trigger, ...] = (
    Every(10 * DAY_S),
    Threshold(800, None),
    Threshold(None, 3_000),
    HybridTrigger(Threshold(1_000, None), Every(14 * DAY_S)),
)
"""Few rebalances each: a step with one takes a tenth of a second."""
WALLET = "assets:wallet"
FEES = "expenses:fees"


def random_transfers(chance: random.Random, days: int) -> dict[int, list[int]]:
    """Return up to five transfers on some days, a few percent of what is left at most where they leave."""
    transfers: dict[int, list[int]] = {}
    paid_in = 10_000
    for bar in sorted(chance.sample(range(1, days), chance.randint(0, 6))):
        for _ in range(chance.randint(1, 5)):
            amount = chance.choice((-1, 1)) * chance.randint(1, paid_in // 20)
            paid_in += amount
            transfers.setdefault(bar, []).append(amount)
    return transfers


def simulated_history(seed: int) -> tuple[SimulationResult, History, dict[str, float]]:
    """Return a random run of the agent's step, its history for the plain loops, and its first coins."""
    chance = random.Random(seed)
    days = chance.randint(22, 36)
    table = walks(seed, days, volatility=chance.choice((0.01, 0.03, 0.06)))
    transfers = random_transfers(chance, days)
    flows = tuple(OwnerTransfer(START_S + DAY_S * bar, Fraction(amount)) for bar, amounts in transfers.items() for amount in amounts)
    settings = replace(DEEP, depth=Fraction(10 ** chance.randint(5, 8)), flows=flows)
    spec = make_spec(WALKING, chance.choice(TRIGGERS), "USD", interval_s=DAY_S)
    with SimulationRun(spec, table, settings) as run:
        while run.evaluate_next_bar():
            pass
        result = run.finish()
        entries = run.context.store.ledger.entries()
    symbols = {asset.token.address: asset.token.symbol for asset in spec.portfolio.assets}
    lines = [journal_line(entry, table, symbols) for entry in entries]
    start: dict[str, float] = dict.fromkeys(symbols.values(), 0.0)
    for entry, line in zip(entries, lines, strict=True):
        if entry.kind is EntryKind.OPENING:
            start = {symbol: start[symbol] + line.coins.get(symbol, 0.0) for symbol in start}
    prices = {symbol: table.closes[:, column].tolist() for column, symbol in enumerate(table.symbols)} | {"USD": [1.0] * days}
    targets = {symbol: share / 10_000 for symbol, share in WALKING.items()}
    return result, History(prices, "USD", targets, lines, transfers), start


def journal_line(entry: Entry, table: PriceTable, symbols: dict[str, str]) -> JournalLine:
    """Return what an entry changed of the portfolio's coins."""
    coins: dict[str, float] = {}
    for posting in entry.postings:
        if posting.account == WALLET and posting.token in symbols:
            symbol = symbols[posting.token]
            coins[symbol] = coins.get(symbol, 0.0) + posting.raw / 1e18
    fees = math.fsum(float(posting.value) / 1e18 for posting in entry.postings if posting.account == FEES and posting.value is not None)
    return JournalLine(int(np.searchsorted(table.times_s, entry.chain_s)), entry.kind is EntryKind.TRADE, coins, fees)


def require_equal_figures(seed: int) -> None:
    """Compare every figure of one random run with the plain loops."""
    result, history, start = simulated_history(seed)
    after = own_figures.coins_by_bar(history)
    start_value = float(result.start_value) / 1e18
    values = own_figures.unit_values(history, after, start_value)
    held_coins = own_figures.held_coins(history, start)
    hold_values = own_figures.unit_values(history, held_coins, start_value)
    growth = growth_series(result)
    risk = risk_metrics(growth)

    assert result.equity.tolist() == pytest.approx([history.value(after[bar], bar) for bar in history.bars], **EXACT)
    assert result.hold_equity.tolist() == pytest.approx([history.value(held_coins[bar], bar) for bar in history.bars], **EXACT)
    assert growth.unit_growth.tolist() == pytest.approx(values, **EXACT)
    assert growth.hold_unit_growth.tolist() == pytest.approx(hold_values, **EXACT)
    assert (result.twr, result.hold_twr) == pytest.approx((values[-1] - 1, hold_values[-1] - 1), **EXACT)
    own_path = own_figures.path_figures(values)
    own_hold_path = own_figures.path_figures(hold_values)
    for metrics, own_metrics in zip(performance(growth), (own_path, own_hold_path), strict=True):
        assert asdict(metrics) == pytest.approx(asdict(own_metrics), **EXACT)
    assert (risk.mean_excess, risk.mean_excess_error) == pytest.approx(own_figures.mean_excess(values, hold_values), **EXACT)
    own_excesses = [
        own - of_hold for own, of_hold in zip(own_figures.daily_returns(values), own_figures.daily_returns(hold_values), strict=True)
    ]
    assert risk.tracking_error == pytest.approx(own_figures.stdev(own_excesses) * math.sqrt(365), **EXACT)
    assert excess_return(BacktestAnalysis(result, growth, risk)) == pytest.approx(values[-1] / hold_values[-1] - 1, **EXACT)
    assert float(result.turnover_ratio) == pytest.approx(own_figures.turnover(history, after), **EXACT)
    losses = own_figures.trade_losses(history)
    assert float(result.fees + result.impact) / 1e18 == pytest.approx(math.fsum(loss for _, loss in losses), rel=1e-9, abs=1e-8)
    assert float(result.fees) / 1e18 == pytest.approx(math.fsum(line.fees for line in history.lines), **EXACT)
    assert result.premium is not None
    assert asdict(result.premium) == pytest.approx(own_figures.premium_parts(history, after, start), **EXACT)

    document = backtest_document(result)
    own_texts = {
        "final_value": history.value(after[-1], history.bars[-1]),
        "hold_value": history.value(held_coins[-1], history.bars[-1]),
        "twr": values[-1] - 1,
        "hold_twr": hold_values[-1] - 1,
        "turnover": own_figures.turnover(history, after),
    }
    for name, own_value in own_texts.items():
        assert float(document[name]) == pytest.approx(own_value, rel=1e-9, abs=5.1e-7)
    assert document["rebalances"] == len(losses)
    assert sum(round(float(flow["value"])) for flow in document["flows"]) == sum(map(sum, history.transfers.values()))
    for name, own_metrics in (("rebalanced", own_path), ("held", own_hold_path)):
        for metric_name, own_metric in asdict(own_metrics).items():
            assert float(document["figures"][name][metric_name]) == pytest.approx(own_metric, rel=1e-9, abs=5.1e-7)

    facts = {fact.name: fact for fact in backtest_page(result).facts}
    assert page_number(facts["Final value, USD"].value) == pytest.approx(own_texts["final_value"], abs=0.0101)  # rounded down
    assert page_number(facts["Excess return"].value) / 100 == pytest.approx(values[-1] / hold_values[-1] - 1, abs=5.1e-5)
    assert page_number(facts["Maximum drawdown"].value) / 100 == pytest.approx(own_path.max_drawdown, abs=5.1e-4)
    assert page_number(facts["Sharpe ratio"].value) == pytest.approx(own_path.sharpe, abs=0.0051)
    assert page_number(facts["Costs"].value) / 100 == pytest.approx(math.fsum(loss for _, loss in losses) / start_value, abs=5.1e-5)


def page_number(text: str) -> float:
    """Return the number of a cell of the page; a dash is zero."""
    plain = text.replace("−", "-").replace("–", "0").replace("%", "").replace(",", "").replace("\N{NARROW NO-BREAK SPACE}", "")
    return float(plain.replace(" ", ""))


@pytest.mark.parametrize("seed", range(4))
def test_each_figure_is_that_of_plain_loops(seed: int) -> None:
    require_equal_figures(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first_seed", range(100, 600, 50))
def test_figures__of_500_histories_are_those_of_plain_loops(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 50):
        require_equal_figures(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first_seed", range(100, 600, 50))
def test_figures__of_500_histories_are_those_of_quantstats(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 50):
        result, _, _ = simulated_history(seed)
        growth = growth_series(result)
        paths = ((growth.unit_growth, result.twr), (growth.hold_unit_growth, result.hold_twr))
        for metrics, (unit_growth, whole_return) in zip(performance(growth), paths, strict=True):
            figures = quantstats_figures(own_figures.daily_returns(unit_growth.tolist()))
            assert asdict(figures) == pytest.approx({"whole_return": whole_return, **asdict(metrics)}, **EXACT)
