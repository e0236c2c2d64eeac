"""The owner's futures commands on the real contracts: deleverage, deposit, withdraw, delegate; dry unless sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import EXIT_REFUSED, ConfigError
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from tests.cli.tools import CommandResult, blocks
from tests.support import agents
from tests.support.futures import EVEN, futures_config_changes
from tests.support.perps import WAD, read_now

Run = Callable[..., CommandResult]


@pytest.fixture
def run(perps_run: Run) -> Run:
    return perps_run


@pytest.fixture
def perps(perps_chain: LocalPerps, tmp_path: Path, run: Run) -> LocalPerps:
    """A trusted config, 10,000 of margin, and a position in each of two markets."""
    perps = perps_chain
    chain = perps_chain.chain
    agents.fund(chain, {"WETH": 30_000, "USDC": 30_000})
    perps.deposit(chain.wallet.address, 10_000 * 10**6)
    perps.trade(chain.wallet.address, "WETH", 4 * WAD)
    perps.trade(chain.wallet.address, "WBTC", -WAD // 10)
    changes = futures_config_changes(perps, {"WETH": "60%", "WBTC": "-40%"})
    changes["futures"] |= {"delegate": chain.accounts[4].address}  # type: ignore[operator]
    agents.agent_config(chain, tmp_path, changes, EVEN)
    assert run("trust", "--yes", "--json").code == 0
    return perps


def leverage_of(perps: LocalPerps) -> float:
    leverage = margin.leverage(read_now(perps, perps.chain.wallet.address))
    assert leverage is not None
    return float(leverage)


def test_deleverage_reduces_every_position_and_closes_a_market(perps: LocalPerps, run: Run) -> None:
    before = leverage_of(perps)
    dry = run("deleverage", "--to", "0.5x", "--json")
    assert (dry.code, dry.json["outcome"], leverage_of(perps)) == (0, "planned", before), dry
    result = run("deleverage", "--to", "0.5x")
    assert "back to futures.leverage of 2x" in result.err, "the next step opens to the targets again"
    words = result.out
    assert words.startswith("futures: the owner reduces"), words
    explained = run("explain").out
    assert "Futures: account value" in explained
    assert "leverage" in explained
    wrong = run("deleverage", "--to", "2")
    assert wrong.code == 2
    assert "such as 2x" in wrong.err
    assert "reduces all positions to a leverage of 0.5x" in words
    assert "To send: reduce futures: sell" in words
    assert len(dry.json["futures_actions"]) == 2
    done = run("deleverage", "--to", "0.5x", "--send", "--yes", "--json")
    assert (done.code, done.json["outcome"]) == (0, "done"), done
    assert len(done.json["transactions"]) == 2
    assert done.json["realised"] == []
    assert [(fill["symbol"], fill["side"]) for fill in done.json["fills"]] == [("WETH", "sell"), ("WBTC", "buy")]
    assert all(
        float(fill["fee"]) > 0 and fill["note"] == sent["note"]
        for fill, sent in zip(done.json["fills"], done.json["transactions"], strict=True)
    )
    assert all("reduce futures: " in sent["note"] for sent in done.json["transactions"])
    assert 0.4 < leverage_of(perps) <= 0.5
    words = run("deleverage", "--market", "WETH", "--to", "0.4x", "--send", "--yes").out
    assert "Planned against realised" not in words, words
    assert "Filled futures orders" in words, words
    deleverage_result = run("deleverage", "--to", "0.5x", "--send", "--yes", "--json")
    assert (deleverage_result.code, deleverage_result.json["outcome"], deleverage_result.json["transactions"]) == (0, "hold", [])
    closed = run("deleverage", "--market", "WBTC", "--send", "--yes", "--json")
    assert closed.json["outcome"] == "done", closed
    [position] = run("positions", "--json").json["positions"]
    assert position["symbol"] == "WETH"


def test_margin_is_deposited_and_withdrawn_by_command(perps: LocalPerps, run: Run) -> None:
    wallet = perps.chain.wallet.address
    before = read_now(perps, wallet).collateral_raw
    dry = run("margin", "--deposit", "500", "--json")
    assert (dry.code, dry.json["outcome"], read_now(perps, wallet).collateral_raw) == (0, "planned", before), dry
    assert dry.json["futures_actions"] == ["deposit 500 USDC as margin"]
    assert run("margin", "--deposit", "500", "--send", "--yes", "--json").json["outcome"] == "done"
    assert read_now(perps, wallet).collateral_raw - before == 500 * WAD
    newest = run("history", "--json").json["steps"][0]["step"]
    sentences = run("explain", newest, "--json").json["sentences"]
    assert any("The plan: 1 action of futures" in line for line in sentences), sentences
    assert "  1. deposit 500 USDC as margin." in sentences, sentences
    usdc = perps.chain.balance("USDC", wallet)
    assert run("margin", "--withdraw", "200", "--send", "--yes", "--json").json["outcome"] == "done"
    assert perps.chain.balance("USDC", wallet) - usdc == 200 * 10**6
    result = run("margin", "--deposit", "7", "--send", "--yes")
    assert "Futures: deposit 7 USDC as margin: " in result.out, result.out
    refused = run("margin", "--withdraw", "9999", "--send", "--yes", "--json")
    assert (refused.code, refused.json["outcome"]) == (EXIT_REFUSED, "refused"), refused
    assert run("margin", "--json").json["plan"] is not None
    symbols = {position["symbol"] for position in run("positions", "--json").json["positions"]}
    document = run("stop", "--json").json
    assert document["state"] == "planned"
    assert all(symbol in document["futures"] for symbol in symbols)
    assert run("stop", "--send", "--yes", "--json").json["state"] == "stopped"
    assert run("deleverage", "--to", "0x", "--send", "--yes", "--json").json["outcome"] == "done", "also after the stop"
    futures = run("stop", "--json").json["futures"]
    assert "margin" in futures
    assert not any(symbol in futures for symbol in symbols)
    usdc = perps.chain.balance("USDC", wallet)
    free_raw = margin.free_margin_raw(read_now(perps, wallet))
    emptied = run("margin", "--withdraw", "all", "--send", "--yes", "--json")
    assert emptied.json["outcome"] == "done", emptied
    assert perps.chain.balance("USDC", wallet) - usdc == free_raw * 10**6 // WAD
    assert free_raw > 9_000 * WAD
    assert margin.free_margin_raw(read_now(perps, wallet)) < WAD // 10**6
    nothing = run("margin", "--withdraw", "all", "--send", "--yes")
    assert (nothing.code, "no margin is free" in nothing.err) == (EXIT_REFUSED, True), nothing


def test_the_configured_delegate_may_trade_until_it_is_ended(perps: LocalPerps, run: Run) -> None:
    approval = perps.contract(perps.addresses.delegate_approval, "DelegateApproval").functions
    may_trade = approval.canOpenPositionFor(perps.chain.wallet.address, perps.chain.accounts[4].address)
    assert (run("delegate", "--json").json["outcome"], may_trade.call()) == ("planned", False)
    assert run("delegate", "--send", "--yes", "--json").json["outcome"] == "done"
    assert may_trade.call()
    assert run("delegate", "--end", "--send", "--yes", "--json").json["outcome"] == "done"
    assert not may_trade.call()


@pytest.mark.usefixtures("perps")
def test_wrong_options_are_named(run: Run) -> None:
    for words, why in (
        (("deleverage",), "--to, --market: at least one"),
        (("deleverage", "--to", "2"), "has no unit"),
        (("deleverage", "--market", "DOGE"), "is not a futures market"),
        (("margin", "--deposit", "1", "--withdraw", "1"), "cannot be combined"),
        (("margin", "--deposit", "0"), "must be above 0"),
        (("delegate", "--end", "--days", "9"), "--days and --end cannot be combined"),
        (("margin", "--send"), "--send needs --deposit or --withdraw"),
    ):
        result = run(*words)
        assert result.code == ConfigError("").exit_code
        assert why in result.err, result


def test_positions_margin_and_funding__show_the_paper_account(perps: LocalPerps, run: Run) -> None:
    for words in (("positions",), ("margin",), ("funding",)):
        missing = run(*words, "--paper", "--json")
        assert missing.code == 2
        assert "paper books" in missing.json["error"]["message"]
    with blocks(str(perps.chain.url)):
        begun = run("paper", "--once", "--margin", "5000", "--value", "20000")
    assert begun.code in (0, 11), begun
    live = run("margin", "--json").json
    paper = run("margin", "--paper", "--json").json
    assert (paper["book_kind"], paper["margin"]["collateral"]) == ("paper", "5000")
    assert "book_kind" not in live
    assert float(live["margin"]["collateral"]) > 9_000
    assert len(run("positions", "--json").json["positions"]) == 2
    on_paper = run("positions", "--paper", "--json").json
    assert on_paper["book_kind"] == "paper"
    assert on_paper["positions"] != run("positions", "--json").json["positions"]
    rates = run("funding", "--paper", "--json").json
    assert rates["book_kind"] == "paper"
    assert {market["symbol"] for market in rates["markets"]} == {"WETH", "WBTC"}
    assert run("margin", "--paper", "--deposit", "5").code == 2
    for words in (("positions",), ("margin",), ("funding",)):
        assert "PAPER" in run(*words, "--paper").err
