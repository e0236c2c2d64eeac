"""trimtab strategies: its document and table, the owner's word on the books, whose deposits are; status, plan and explain with them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from agent.localchain import LocalChain
from tests.cli.tools import CommandResult, Desk
from tests.support import agents
from tests.support.commands.strategies import with_idle
from tests.support.on_chain.strategies import TWO, strategies
from tests.support.text import mentions


def require_the_wallet(chain: LocalChain, document: dict[str, Any]) -> None:
    """All strategies together hold what the wallet does."""
    for symbol in TWO:
        raws = [int(item["raw"]) for strategy in document["strategies"] for item in strategy["holdings"] if item["symbol"] == symbol]
        assert sum(raws) == chain.balance(symbol)


def test_strategies__show_how_each_stands_and_what_was_internal(
    chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]
) -> None:
    agents.trusted_config(chain, tmp_path, strategies("60%", "40%"), TWO)
    agents.fund(chain, {"WETH": 20_000, "USDC": 20_000})
    strategies_document = run("strategies", "--json").json
    assert [(strategy["name"], strategy["share_bps"], strategy["return_bps"]) for strategy in strategies_document["strategies"]] == [
        ("up", 6_000, 0),
        ("down", 4_000, 0),
    ]
    require_the_wallet(chain, strategies_document)
    weth = next(item for item in strategies_document["together"]["netted"] if item["symbol"] == "WETH")
    assert [round(Fraction(weth[key])) for key in ("bought", "sold", "crossed", "net")] == [4_800, 3_200, 3_200, 1_600]
    assert strategies_document["together"]["acting"] == ["up", "down"]
    assert Fraction(strategies_document["together"]["saved_fees"]) > 0
    for document in (run("status", "--json").json, run("plan", "--json").json):
        assert document["strategies"]["acting"] == ["up", "down"]
    done = run("rebalance", "--send", "--yes", "--json")
    assert done.code == 0
    assert done.json["outcome"] == "done"
    after = run("strategies", "--json").json
    require_the_wallet(chain, after)
    assert after["strategies"][1]["costs"] == "0"
    assert Fraction(after["strategies"][0]["costs"]) > 0
    output = run("strategies").out
    assert "up" in output
    assert "active" in output
    assert "60.0" in output
    assert "unknown" in output
    step = next(item for item in run("history", "--json").json["steps"] if item["outcome"] == "done")
    words = "\n".join(run("explain", step["step"], "--json").json["sentences"])
    assert mentions(words, "up", "acted")
    assert "exchanged between strategies, never in the market" in words
    assert "pool fees" in words


def test_other_number_of_strategies__halts_until_taken_over(chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]) -> None:
    agents.trusted_config(chain, tmp_path, strategies("60%", "40%"), TWO)
    agents.fund(chain, {"WETH": 20_000, "USDC": 20_000})
    assert run("rebalance", "--send", "--yes", "--json").code == 0
    assert run("strategies", "apply", "--yes").code == 2, "nothing to take over"
    agents.agent_config(chain, tmp_path, with_idle(), TWO)
    halted = run("rebalance", "--send", "--yes", "--json")
    assert halted.code == 10
    assert "idle" in halted.json["reason"]
    assert "strategies apply" in halted.json["reason"]
    result = run("strategies", "apply", "--json")
    assert result.code == 2
    assert "--yes" in result.err
    taken = run("strategies", "apply", "--yes", "--json")
    assert taken.code == 0
    assert taken.json["applied"] is True
    require_the_wallet(chain, taken.json)
    assert [(strategy["name"], strategy["target_share_bps"]) for strategy in taken.json["strategies"]] == [
        ("up", 5_000),
        ("down", 4_000),
        ("idle", 1_000),
    ]
    assert [abs(strategy["share_bps"] - strategy["target_share_bps"]) <= 1 for strategy in taken.json["strategies"]] == [True] * 3
    assert run("rebalance", "--send", "--yes", "--json").code == 0
    require_the_wallet(chain, run("strategies", "--json").json)


def test_strategies_of_75_to_25_are_brought_back_to_60_to_40(chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]) -> None:
    """W5, its strategies' part: one was given more, capital goes to the other in kind, and the market sees what is left of it."""
    wide = {"limits.balance_jump": "off", "portfolio.max_live_value": "off", "split": {"relative": "20%"}}
    agents.trusted_config(chain, tmp_path, {**strategies("60%", "40%"), **wide}, TWO)
    agents.fund(chain, {"WETH": 20_000, "USDC": 20_000})
    assert run("rebalance", "--send", "--yes", "--json").code == 0
    assert run("strategies", "deposits-to", "nobody").code == 2
    assert run("strategies", "deposits-to", "up", "--json").json == {"flows_to": "up"}
    capital = {strategy["name"]: Fraction(strategy["capital"]) for strategy in run("strategies", "--json").json["strategies"]}
    chain.set_balance("USDC", chain.balance("USDC") + round((3 * capital["down"] - capital["up"]) * agents.USD))
    drifted = run("strategies", "--json").json
    assert [strategy["share_bps"] for strategy in drifted["strategies"]] == [7_500, 2_500]
    assert drifted["strategies"][1]["return_bps"] == 0
    assert Fraction(drifted["strategies"][1]["capital"]) == capital["down"]
    (moved,) = drifted["together"]["capital_moved"]
    whole = Fraction(drifted["total_value"])
    assert (moved["from"], moved["to"]) == ("up", "down")
    assert abs(Fraction(moved["value"]) - whole * 15 / 100) < 1
    assert [strategy["target_share_bps"] for strategy in drifted["strategies"]] == [6_000, 4_000]
    assert run("rebalance", "--send", "--yes", "--json").code == 0
    document = run("strategies", "--json").json
    require_the_wallet(chain, document)
    shares = [Fraction(strategy["capital"]) / Fraction(document["total_value"]) for strategy in document["strategies"]]
    assert abs(shares[0] - Fraction(6, 10)) < Fraction(1, 1_000)


def test_without_strategies_the_command_says_so(anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]) -> None:
    agents.trusted_config(anvil_chain, tmp_path, {}, TWO)
    result = run("strategies")
    assert result.code == 2
    assert "no [[strategies]]" in result.err
    assert run("status", "--json").json["strategies"] is None


def test_missing_strategies__are_said_and_nothing_is_asked(desk: Desk) -> None:
    for command in (("strategies",), ("strategies", "apply"), ("strategies", "apply", "--yes")):
        error = desk.ask(*command, want=2)["error"]
        assert "[[strategies]]" in error["message"], command
