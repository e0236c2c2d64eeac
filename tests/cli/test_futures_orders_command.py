"""The commands where futures are to be opened: what a dry run shows, what is sent, what history and explain tell of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.localchain.perpetuals import LocalPerps
from tests.cli.tools import CommandResult
from tests.support import agents
from tests.support.futures import EVEN, futures_config_changes

Run = Callable[..., CommandResult]


def test_futures_orders_are_shown_sent_and_told_like_swaps(perps_chain: LocalPerps, tmp_path: Path, perps_run: Run) -> None:
    perps = perps_chain
    chain = perps_chain.chain
    run = perps_run
    agents.fund(chain, {"WETH": 50_000, "USDC": 50_000})
    perps.deposit(chain.wallet.address, 10_000 * 10**6)
    agents.agent_config(chain, tmp_path, futures_config_changes(perps, {"WETH": "60%", "WBTC": "-40%"}), EVEN)
    trusted = run("trust", "--yes", "--json")
    assert trusted.code == 0, trusted

    dry = run("rebalance", "--json")
    assert dry.code == 0, dry
    assert (dry.json["decision"]["kind"], dry.json["legs"]) == ("adjustfutures", [])
    words = run("plan")
    assert words.code == 0, words
    assert "futures" in words.out.lower(), words

    done = run("rebalance", "--send", "--yes", "--json").json
    assert done["outcome"] == "done", done
    assert [sent["kind"] for sent in done["transactions"]] == ["futures", "futures"]
    assert {sent["status"] for sent in done["transactions"]} == {"final"}
    assert all("open futures: " in sent["note"] for sent in done["transactions"])

    history = run("history", "--json").json
    sent_in = next(step for step in history["steps"] if any(sent["kind"] == "futures" for sent in step["transactions"]))
    document = run("explain", sent_in["step"], "--json").json
    for word in ("It decided to send futures orders", "of futures, expected cost", "open futures: ", "final, transaction 0x"):
        assert any(word in line for line in document["sentences"]), (word, document["sentences"])
    again = run("rebalance", "--send", "--yes", "--json").json
    assert (again["outcome"], again["transactions"]) == ("hold", [])
