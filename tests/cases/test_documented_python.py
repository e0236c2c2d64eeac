"""Every Python block of README and docs runs as it is written, against a real chain where it opens the agent."""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import shutil
import sys
from collections.abc import Collection
from dataclasses import replace
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from agent.app.agent import Agent
from agent.app.research.backtests import sample_files
from agent.errors import ConfigError
from agent.library import LibraryAgent, open_agent
from agent.localchain import LocalChain
from agent.localchain.world import WALLET_INDEX
from agent.localchain.world import dev_accounts as accounts
from scripts.check.documented_python import PythonBlock, check_types, python_blocks
from tests.cli.tools import blocks
from tests.support.agent_names import METHODS_BY_COMMAND
from tests.support.agents import ROOMY, Changes, fund, purse, reopened_agent, trusted_config, yes
from tests.support.on_chain.proposals import proposal, safe_of
from tests.support.on_chain.weights import TARGETS as WEIGHED_TARGETS
from tests.support.on_chain.weights import WEIGHED
from tests.support.records.key_services import KeyService
from tests.support.studies.signal_views import view
from tests.support.workers import bring_to_present

TARGETS = {"WETH": "50%", "USDC": "50%"}
BLOCKS_BY_PAGE = {page: list(blocks) for page, blocks in groupby(python_blocks(), lambda block: block.file_name.rpartition("_")[0])}


def run(block: PythonBlock, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, object], str]:
    """The names that the block defines, and what it prints, in a folder with trimtab.toml."""
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": "documented"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.source, f"{block.page}:{block.line}", "exec"), names)
    return names, printed.getvalue()


def configured(chain: LocalChain, folder: Path, changes: Changes | None = None) -> None:
    fund(chain, {"WETH": 10_000})
    trusted_config(chain, folder, ROOMY | dict(changes or {}), TARGETS)


def test_each_block_has_a_test_of_its_own() -> None:
    """A new block needs one below."""
    assert {page: len(blocks) for page, blocks in BLOCKS_BY_PAGE.items()} == {"README": 1, "keys": 1, "python": 10, "signals": 1}


def test_the_block_of_readme_prints_a_decision_and_plans(anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(anvil_chain, tmp_path)
    names, printed = run(BLOCKS_BY_PAGE["README"][0], tmp_path, monkeypatch)
    assert printed.strip()
    assert names["outcome"].plan.legs  # type: ignore[attr-defined]  # what the block plans


def test_the_block_of_keys_signs_by_a_service(anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3, which is not a dependency, asks a service that holds the wallet's key."""
    configured(anvil_chain, tmp_path, {"wallet.test_account": None})
    before = purse(anvil_chain)
    service = KeyService(int(accounts()[WALLET_INDEX].private_key, 16))
    kms = SimpleNamespace(
        sign=lambda Message, **_: {"Signature": service.sign(Message)}, get_public_key=lambda **_: {"PublicKey": service.public_key()}
    )
    monkeypatch.setitem(sys.modules, "boto3", SimpleNamespace(client=lambda _: kms))  # type: ignore[arg-type]  # it stands in for a module
    run(BLOCKS_BY_PAGE["keys"][0], tmp_path, monkeypatch)
    assert len(service.asked) == purse(anvil_chain).nonce - before.nonce > 0
    service.close()


def test_the_block_of_signals_returns_whole_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, _ = run(BLOCKS_BY_PAGE["signals"][0], tmp_path, monkeypatch)
    for closes, share in (([1.0] * 30 + [2.0], 0.6), ([2.0] * 30 + [1.0], 0.2), ([1.0] * 31, 0.2)):
        targets = names["targets"](view(WETH=closes))  # type: ignore[operator]  # what the block defines
        assert targets.spot == {"WETH": share, "USDC": pytest.approx(1 - share)}


@pytest.fixture
def folder_of_prices(tmp_path: Path) -> Path:
    shutil.copy(sample_files()[0], tmp_path / "prices.csv")
    return tmp_path


def test_first_python_block__prints_a_result_and_writes_a_report(folder_of_prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = BLOCKS_BY_PAGE["python"][0]
    _, printed = run(block, folder_of_prices, monkeypatch)
    line = printed.splitlines()[0]
    assert line.partition(" trades")[0] in block.source
    assert (folder_of_prices / "report.html").stat().st_size > 100_000


def test_the_second_block_of_python_compares_five_triggers(folder_of_prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, printed = run(BLOCKS_BY_PAGE["python"][1], folder_of_prices, monkeypatch)
    assert [line.partition(":")[0] for line in printed.splitlines()] == [
        "rule",
        "band of a tenth",
        "band of 5 points",
        "weekly",
        "weekly, if beyond a tenth",
    ]


def test_the_third_block_of_python_searches_and_stresses(folder_of_prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = BLOCKS_BY_PAGE["python"][2]
    _, printed = run(block, folder_of_prices, monkeypatch)
    lines = printed.splitlines()
    assert lines[0].rpartition(",")[0] in block.source
    assert lines[-1].startswith("StressTest(4 cases of 30 bars, worst: crash")


def test_the_fourth_block_of_python_pays_gas(folder_of_prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, printed = run(BLOCKS_BY_PAGE["python"][3], folder_of_prices, monkeypatch)
    assert float(printed) > 0


def test_the_fifth_block_of_python_asks_a_function(folder_of_prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, printed = run(BLOCKS_BY_PAGE["python"][4], folder_of_prices, monkeypatch)
    backtest, search = printed.splitlines()
    assert backtest.startswith("Backtest(2021-01-01 to 2021-06-30")
    assert search.startswith("Tuning(2 settings, best: band ")


def test_the_sixth_block_of_python_asks_a_trigger(folder_of_prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, printed = run(BLOCKS_BY_PAGE["python"][5], folder_of_prices, monkeypatch)
    band, function = (int(line.partition(": ")[2].partition(" ")[0]) for line in printed.splitlines())
    assert band > function > 0


def test_the_seventh_block_of_python_asks_an_estimator(folder_of_prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, _ = run(BLOCKS_BY_PAGE["python"][6], folder_of_prices, monkeypatch)
    *_, btc, eth, usd = names["result"].weights.row(-1)  # type: ignore[attr-defined]  # what the block defines
    assert btc > eth > usd


class Term:
    """A term of an objective, which sums and multiples are too."""

    def __sub__(self, other: object) -> Term:
        return self

    def __rmul__(self, factor: float) -> Term:
        return self


def cvxportfolio_stand_in(markets: list[pd.DataFrame]) -> SimpleNamespace:
    """The documented shape of cvxportfolio (execute, UserProvidedMarketData): the policy moves all to the asset that rose most."""

    def market_data(returns: pd.DataFrame, *, cash_key: str, min_history: pd.Timedelta, online_usage: bool) -> pd.DataFrame:
        assert (returns.columns[-1], min_history, online_usage) == (cash_key, pd.Timedelta(0), True)
        markets.append(returns)
        return returns

    def execute(holdings: pd.Series, market: pd.DataFrame, t: object = None) -> tuple[pd.Series, object, None]:
        assert list(holdings.index) == list(market.columns)
        target_holdings = pd.Series(0.0, holdings.index)
        target_holdings[market.iloc[:-1].mean().idxmax()] = 1.0
        return target_holdings - holdings, market.index[-1], None

    return SimpleNamespace(
        ReturnsForecast=Term,
        FullCovariance=Term,
        LongOnly=Term,
        LeverageLimit=lambda leverage: Term(),
        SinglePeriodOptimization=lambda objective, constraints: SimpleNamespace(execute=execute),
        UserProvidedMarketData=market_data,
    )


def test_the_eighth_block_of_python_asks_a_policy(folder_of_prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    markets: list[pd.DataFrame] = []
    monkeypatch.setitem(sys.modules, "cvxportfolio", cvxportfolio_stand_in(markets))  # type: ignore[arg-type]  # it stands in for a module
    names, _ = run(BLOCKS_BY_PAGE["python"][7], folder_of_prices, monkeypatch)
    closes = pd.read_csv(folder_of_prices / "prices.csv", index_col=0)[["BTC", "ETH"]]
    for market in markets:
        assert market.iloc[-1].drop("USD").isna().all(), "the bar that begins has no return yet"
        expected = closes.pct_change().shift(-1).loc[f"{market.index[0]:%Y-%m-%d}" :].head(len(market) - 1)
        assert market.iloc[:-1][["BTC", "ETH"]].to_numpy() == pytest.approx(expected.to_numpy())
    weights = names["result"].weights.drop("time")  # type: ignore[attr-defined]  # what the block defines
    winner = markets[-1].iloc[:-1].mean().idxmax()
    assert weights[winner][-1] > 0.9


@pytest.mark.slow
def test_the_eighth_block_of_python_runs_with_cvxportfolio(folder_of_prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cvxportfolio", reason="cvxportfolio is installed by make slow")
    names, _ = run(BLOCKS_BY_PAGE["python"][7], folder_of_prices, monkeypatch)
    weights = names["result"].weights.drop("time")  # type: ignore[attr-defined]  # what the block defines
    assert weights.row(0) == pytest.approx((0.5, 0.5, 0))
    assert weights.n_unique() > 3
    assert weights.min_horizontal().min() >= 0


@pytest.mark.parametrize("number", [6, 7], ids=["skfolio", "cvxportfolio"])
def test_adapter_of_a_library_has_ten_lines_at_most(number: int) -> None:
    (function,) = [node for node in ast.parse(BLOCKS_BY_PAGE["python"][number].source).body if isinstance(node, ast.FunctionDef)]
    assert function.end_lineno is not None
    assert function.end_lineno - function.lineno < 10


def test_the_last_block_of_python_plans(anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(anvil_chain, tmp_path)
    _, printed = run(BLOCKS_BY_PAGE["python"][8], tmp_path, monkeypatch)
    assert printed.startswith("OutcomeKind.")


def test_the_tenth_block_of_python_trades_on_paper(anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(anvil_chain, tmp_path)
    weth_before = anvil_chain.balance("WETH")
    with blocks(str(anvil_chain.url)):
        names, printed = run(BLOCKS_BY_PAGE["python"][9], tmp_path, monkeypatch)
    assert printed.startswith("OutcomeKind.DONE"), "cash buys at once"
    assert "PortfolioStatus(block " in printed
    with blocks(str(anvil_chain.url)):
        _, printed = run(BLOCKS_BY_PAGE["python"][9], tmp_path, monkeypatch)
    assert printed.startswith("OutcomeKind.HOLD"), "a second run of the same script goes on"
    assert names["agent"].on_paper  # type: ignore[attr-defined]  # what the block defines
    assert anvil_chain.balance("WETH") == weth_before
    with pytest.raises(ConfigError, match=r"^paper trading has already started; value would apply"), open_agent(paper=True, value=5):
        pass
    with open_agent(paper=True) as agent:
        assert agent.on_paper
        for amount in (1, 1.0, Decimal(1), "1"):
            assert int(agent.quote("WETH", "USDC", amount)["amount_out_raw"]) > 0
        with pytest.raises(ConfigError, match=r"token_in: 'WTH' is not a configured token"):
            agent.quote("WTH", "USDC", 1)
        with pytest.raises(ConfigError, match=r"amount must be above 0 \(for example amount=0.1\)"):
            agent.quote("WETH", "USDC", 0)


@pytest.mark.parametrize(("item", "lines"), [(Agent, 3), (open_agent, 1), (LibraryAgent, 2)], ids=["Agent", "open_agent", "LibraryAgent"])
def test_the_example_of_an_agent_runs(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, item: Any, lines: int
) -> None:
    configured(anvil_chain, tmp_path)
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(item, item.__name__, globs={"open_agent": open_agent})
    bring_to_present(anvil_chain)
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example) == (0, lines)


def run_examples(chain: LocalChain, agent: LibraryAgent, names: Collection[str]) -> None:
    """Run the examples of these methods, each at a block of its time: on a busy machine all take longer than a block may be old."""
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=False)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for name in names:
        (example,) = finder.find(getattr(LibraryAgent, name), name, extraglobs={"agent": agent})
        assert example.examples, name
        bring_to_present(chain)
        runner.run(example)
    assert runner.summarize() == (0, runner.tries)


def test_the_examples_of_an_agents_methods_run(anvil_chain: LocalChain, tmp_path: Path) -> None:
    configured(anvil_chain, tmp_path)
    with open_agent(tmp_path / "trimtab.toml") as agent:
        run_examples(anvil_chain, agent, [name for name in METHODS_BY_COMMAND.values() if name not in ("proposals", "pnl", "weights")])
        agent.rebalance(send=True, confirm=yes)
        run_examples(anvil_chain, agent, ["pnl"])


def test_the_example_of_weights_runs_for_an_allocator(anvil_chain: LocalChain, tmp_path: Path) -> None:
    loaded = trusted_config(anvil_chain, tmp_path, WEIGHED, WEIGHED_TARGETS)
    with open_agent(loaded.path) as agent:
        run_examples(anvil_chain, agent, ["weights"])


def test_the_example_of_proposals_runs_for_a_safe(anvil_chain: LocalChain, tmp_path: Path) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent:
        proposal(agent)
        run_examples(anvil_chain, LibraryAgent(agent.context), ["proposals"])


@pytest.mark.slow
def test_mypy_accepts_the_blocks_and_names_a_wrong_attribute() -> None:
    assert check_types(python_blocks()) == ""
    wrong = [replace(block, source=block.source.replace("decision_result", "decided")) for block in python_blocks()]
    assert "decided" in check_types(wrong)
