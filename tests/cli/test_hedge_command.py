"""`trimtab hedge`: what a dry run compares, what is sent, what history tells of it, and mistakes named with their remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent import wiring
from agent.localchain import LocalChain
from tests.cli.tools import CommandResult
from tests.support import agents
from tests.support.futures import EVEN, futures_table
from tests.support.perps import perps_on

Run = Callable[..., CommandResult]
TERMS = {"horizon": "30d", "min_saving": "0.5%", "tax_rate": "25%", "capital_cost": "4%"}


def test_a_hedge_is_compared_sent_told_and_closed(chain: LocalChain, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests that share this chain may have moved its time away from the machine's.
    monkeypatch.setattr(wiring.SystemClock, "now_s", lambda _: chain.clock.now_s())
    agents.fund(chain, {"WETH": 80_000, "USDC": 40_000})
    perps = perps_on(chain)
    perps.deposit(chain.wallet.address, 20_000 * 10**6)
    table = futures_table(perps, {"WETH": "0%"}, "0x")
    table["markets"][0]["asset"] = "WETH"
    changes = {**agents.ROOMY, "portfolio.max_live_value": "1000000", "futures": table | {"hedge": TERMS}}
    agents.agent_config(chain, tmp_path, changes, EVEN)
    trusted = run("trust", "--yes", "--json")
    assert trusted.code == 0, trusted

    for args, reason in (
        (("USDC",), "hedge: USDC has no futures market"),
        (("DOGE",), "hedge: 'DOGE' is not a configured token"),
        (("WETH", "--ratio", "120%"), "--ratio: 120%"),
        (("WETH", "--ratio", "50%", "--close"), "--ratio: cannot be combined with --close"),
    ):
        wrong = run("hedge", *args, "--json")
        assert wrong.code == 2, wrong
        assert wrong.json["error"]["message"].startswith(reason), wrong

    dry = run("hedge", "WETH", "--json")
    assert dry.code == 0, dry
    (compared,) = dry.json["comparisons"]
    assert (compared["symbol"], compared["choice"], compared["days"]) == ("WETH", "hedge", "30")
    assert dry.json["decision"]["kind"] == "adjustfutures"
    assert len(dry.json["futures_actions"]) == 1
    output = run("hedge", "WETH").out
    assert "sale or short of" in output, output
    assert "expected funding" in output, output

    done = run("hedge", "WETH", "--ratio", "25%", "--send", "--yes", "--json").json
    assert done["outcome"] == "done", done
    assert [sent["kind"] for sent in done["transactions"]] == ["futures"], done
    history = run("history", "--json").json
    step = next(step for step in history["steps"] if any(sent["kind"] == "futures" for sent in step["transactions"]))
    document = run("explain", step["step"], "--json").json
    assert any("a sale costs" in line for line in document["sentences"]), document["sentences"]
    assert "in WETH is hedged" in run("status").out

    closed = run("hedge", "WETH", "--close", "--send", "--yes", "--json").json
    assert closed["outcome"] == "done", closed
    assert "reduce futures: buy" in closed["transactions"][0]["note"], closed
    assert run("hedge", "WETH", "--close", "--json").json["decision"]["reason"] == "WETH has no open hedge"
