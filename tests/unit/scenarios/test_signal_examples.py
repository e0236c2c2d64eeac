"""The two examples of signals: their rules on made prices, and a backtest of each on the sample."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from agent import app as api
from agent.backtest.result import SimulationResult
from agent.model.weights import SignalTargets, SignalView
from tests.support.configs.futures import FUTURES
from tests.support.configs.weights import config_text
from tests.support.signals import install
from tests.support.studies.signal_views import view

EXAMPLES = Path(__file__).parents[3] / "examples" / "signals"


def install_examples(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Install the two examples."""
    parts = {"trend": "trimtab_signal_examples.trend:targets", "mean-reversion": "trimtab_signal_examples.mean_reversion:targets"}
    install(monkeypatch, folder, parts, name="trimtab-signal-examples")
    monkeypatch.syspath_prepend(str(EXAMPLES))


RISING, FALLING, FLAT = ([100.0 + day * step for day in range(40)] for step in (1, -1, 0))
SIGNAL = """kind = "signal"
signal = "{name}"
every = "1d"
window = "31d"
step = "1d"
min_history = "10d"
max_age = "2d"
keep = "3d"
churn = "1%"
until_chosen = "targets"
[signals.{name}]
timeout = "10s"
"""


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Callable[[SignalView], SignalTargets]]:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    return lambda name: import_module(f"trimtab_signal_examples.{name}").targets  # type: ignore[no-any-return]


def test_the_trend_holds_what_rises_and_shorts_what_falls(example: Callable[[str], Callable[[SignalView], SignalTargets]]) -> None:
    answer = example("trend")(view({"ETH": "WETH", "BTC": "WBTC"}, WETH=RISING, WBTC=FALLING))
    assert answer == SignalTargets({"WETH": 0.5, "USDC": 0.5}, {"ETH": 0.5, "BTC": -0.5})
    assert example("trend")(view(WETH=FLAT)) == SignalTargets({"USDC": 1.0})


def test_the_buffer_keeps_a_holding_near_its_mean(example: Callable[[str], Callable[[SignalView], SignalTargets]]) -> None:
    near = [*[100.0] * 39, 99.0]
    view_near = view(WETH=near)
    assert example("trend")(view_near).spot == {"USDC": 1.0}
    view_near = replace(view_near, weights={"WETH": 1.0, "USDC": 0.0})
    assert example("trend")(view_near).spot == {"WETH": 1.0, "USDC": 0.0}


def test_mean_reversion_buys_what_fell_and_sells_what_rose(example: Callable[[str], Callable[[SignalView], SignalTargets]]) -> None:
    spot = example("mean_reversion")(view(WETH=RISING, WBTC=FALLING, LINK=FLAT)).spot
    assert sum(spot.values()) == pytest.approx(1)
    assert spot["WETH"] < spot["LINK"] == 0.25 < spot["WBTC"]


def config_file(folder: Path, name: str, more: str = "") -> Path:
    """A config on the sample's prices that leaves the example all room."""
    config = folder / "trimtab.toml"
    text = config_text(SIGNAL.format(name=name))
    for limit in ("turnover", "daily_turnover", "daily_loss", "total_loss"):
        text = "\n".join(f'{limit} = "off"' if line.startswith(f"{limit} =") else line for line in text.splitlines())
    text = text.replace("[limits]", '[limits]\ni_accept = ["daily_loss"]', 1)
    text = text.replace("confirm_blocks = 3", "confirm_blocks = 0").replace('max_live_value = "1000"', 'max_live_value = "off"')
    config.write_text(text + more)
    return config


def first_days(folder: Path, days: int = 30) -> Path:
    """The first days of the sample."""
    file = folder / "prices.csv"
    file.write_text("\n".join(api.prices_file(None, True).read_text().splitlines()[: days + 1]) + "\n")
    return file


@pytest.mark.slow
def test_futures_of_a_signal_are_simulated_with_its_spot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_examples(monkeypatch, tmp_path / "installed")
    changes = (
        ('band = "5%"', 'band = "5%"\nleverage_band = "20%"'),
        ('max_position = "70%"', 'max_position = "100%"'),
        ('symbol = "WBTC"', 'symbol = "WBTC"\nasset = "WBTC"'),
    )
    futures = FUTURES
    for old, new in changes:
        futures = futures.replace(old, new, 1)
    config = config_file(tmp_path, "trend", futures)
    file = first_days(tmp_path, 50)
    portfolio = api.PortfolioOptions(config, symbol_by_file_symbol={"BTC": "WBTC", "ETH": "WETH"})
    book = api.FuturesBookOptions(config=config, margin_raw=5_000 * 10**18)
    backtest_futures = api.backtest_futures(file, book, api.MarketOptions(), portfolio)
    assert isinstance(backtest_futures, SimulationResult)
    assert len(backtest_futures.futures_weights) > 5
    shorts = [fill for fill in backtest_futures.futures.agent_book.fills if fill.size_raw < 0]
    assert len(shorts) > 3
    assert backtest_futures.futures.agent_book.bars_above_limit == 0
    first = backtest_futures.futures_weights[0][0]
    assert backtest_futures.futures.agent_book.fills[0].size_raw > 0
    assert first > 0, "until the first answer the config's own weights hold, as live"


@pytest.mark.parametrize(("name", "runs"), [pytest.param("trend", 2, marks=pytest.mark.slow), ("mean-reversion", 1)])
@pytest.mark.slow
def test_an_example_runs_over_the_sample(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, runs: int) -> None:
    install_examples(monkeypatch, tmp_path / "installed")
    config = config_file(tmp_path, name)
    file = first_days(tmp_path)
    portfolio = api.PortfolioOptions(config, symbol_by_file_symbol={"BTC": "WBTC", "ETH": "WETH"})
    documents = [api.backtest(file, api.MarketOptions(), portfolio) for _ in range(runs)]
    assert len(documents[0].rebalances) > 3
    assert len({tuple(row) for row in documents[0].targets.tolist()}) >= 3
    assert all(document.equity.tolist() == documents[0].equity.tolist() for document in documents)
