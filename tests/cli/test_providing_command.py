"""The commands where liquidity is to be moved: what a dry run shows, what is sent, what history and explain tell of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent import wiring
from agent.localchain import LocalChain
from tests.cli.tools import CommandResult
from tests.support import agents
from tests.support.on_chain.lp_actions import V3, config_with_targets

Run = Callable[..., CommandResult]


def test_a_wanted_range_is_shown_sent_and_told_like_a_swap(
    chain: LocalChain, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tests that share this chain may have moved its time away from the machine's.
    monkeypatch.setattr(wiring.SystemClock, "now_s", lambda _: chain.clock.now_s())
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    agents.agent_config(chain, tmp_path, config_with_targets(chain, V3), {"WETH": "50%", "USDC": "50%"})
    trusted = run("trust", "--yes", "--json")
    assert trusted.code == 0, trusted
    assert {"uniswap_v2 router", "uniswap_v3 position manager"} <= {row["role"] for row in trusted.json["contracts"]}

    dry = run("rebalance", "--json")
    assert dry.code == 0, dry
    [action] = dry.json["actions"]
    assert (action["kind"], action["pool"], action["token_id"]) == ("provide", chain.address_by_pool[V3], None)
    assert dry.json["legs"] == []
    assert dry.json["decision"]["kind"] == "adjustliquidity"
    words = run("plan").out
    for word in ("Liquidity, one transaction each", "provide", "at least", "plans again", "gas"):
        assert word.lower() in words.lower()

    done = run("rebalance", "--send", "--yes", "--json").json
    assert done["outcome"] == "done"
    assert [sent["kind"] for sent in done["transactions"]] == ["approve", "approve", "liquidity"]
    assert {sent["status"] for sent in done["transactions"]} == {"final"}
    assert "provide" in done["transactions"][-1]["note"]
    assert [item["planned_raw"] for item in done["realised"]] == [item["realised_raw"] for item in done["realised"]] != []

    history = run("history", "--json").json
    sent_in = next(step for step in history["steps"] if any(sent["kind"] == "liquidity" for sent in step["transactions"]))
    document = run("explain", sent_in["step"], "--json").json
    for word in ("It decided to move liquidity", "1 action with liquidity", "provide", "final, transaction 0x"):
        assert any(word in line for line in document["sentences"]), (word, document["sentences"])

    [position] = run("lp", "--json").json["positions"]
    assert position["token_id"] is not None
    assert {symbol: int(raw) for symbol, raw in position["entry_raw"].items()} == {
        item["symbol"]: -int(item["realised_raw"]) for item in done["realised"]
    }
    again = run("rebalance", "--send", "--yes", "--json").json
    assert (again["outcome"], again["transactions"]) == ("hold", [])
