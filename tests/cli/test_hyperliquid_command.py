"""The commands with Hyperliquid as the futures venue: doctor, positions, margin, funding, plan, and what is sent and told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent import wiring
from agent.localchain import LocalChain
from tests.cli.tools import Said
from tests.support import agents
from tests.support.futures import EVEN
from tests.support.hyperliquid import AGENT, AGENT_ENV, ETH_AND_BTC, venue_changes, venue_for

Run = Callable[..., Said]


def test_commands_show_send_and_tell_orders_of_hyperliquid(
    anvil_chain: LocalChain, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = anvil_chain
    # Tests that share this chain may have moved its time away from the machine's.
    monkeypatch.setattr(wiring.SystemClock, "now_s", lambda _: chain.clock.now_s())
    monkeypatch.setenv(AGENT_ENV, AGENT.key.hex())
    agents.fund(chain, {"WETH": 50_000, "USDC": 50_000})
    with venue_for(chain) as server:
        agents.agent_config(chain, tmp_path, venue_changes(server, ETH_AND_BTC), EVEN)
        assert run("trust", "--yes", "--json").code == 0
        checks = {row["check"]: row for row in run("doctor", "--json").json["checks"]}
        assert checks["futures account"]["state"] == "ok" and "10000 USDC on the testnet" in checks["futures account"]["found"]
        assert checks["futures agent"]["state"] == "ok"

        assert checks["futures agent key"]["found"] == "from agent_key_env"
        assert "approves no agent at Hyperliquid" in run("delegate", "--send", "--yes").err

        shown = run("margin", "--json").json
        assert shown["unknown"] == "" and shown["margin"]["value"] == "10000"
        assert [order["symbol"] for order in shown["plan"]["orders"]] and shown["plan"]["top_up_raw"] == "0"
        words = run("plan")
        assert words.code == 0 and "futures" in words.out.lower(), words

        done = run("rebalance", "--send", "--yes", "--json").json
        assert done["outcome"] == "done", done
        assert [(sent["kind"], sent["status"]) for sent in done["transactions"]] == [("futures", "final")] * 2
        held = run("positions", "--json").json["positions"]
        assert {(one["symbol"], one["side"]) for one in held} == {("ETH", "long"), ("BTC", "short")}
        rates = run("funding", "--json").json
        assert {market["symbol"] for market in rates["markets"]} == {"ETH", "BTC"}
        status = run("status", "--json").json["futures"]
        assert status["unknown"] == "" and status["broken"] == []
        again = run("rebalance", "--send", "--yes", "--json").json
        assert (again["outcome"], again["transactions"]) == ("hold", [])
        assert run("run", "--once", "--send", "--yes").code == 0

        reduced = run("deleverage", "--to", "1x", "--send", "--yes", "--json").json
        assert reduced["outcome"] == "done" and float(run("margin", "--json").json["margin"]["leverage"]) <= 1
        deposit = run("margin", "--deposit", "100", "--send", "--yes")
        assert deposit.code == 2 and "moves no margin at Hyperliquid" in deposit.err + deposit.out, deposit

        sent = run("txs", "--json").json["transactions"]
        assert {(one["kind"], one["status"], one["max_fee_wei"], one["gas_used"]) for one in sent} == {("futures", "final", "0", 0)}
        assert run("reconcile", "--json").code == 0
        step = run("history", "--json").json["steps"][0]["step"]
        assert run("explain", step).code == 0
        server.agents = []
        server.move("ETH", "-40/100")
        server.seed("ETH")
        held_up = run("rebalance", "--send", "--yes", "--json").json
        assert (held_up["outcome"], held_up["transactions"]) == ("hold", []) and "trimtab delegate" in held_up["reason"], held_up
        server.read_faults["*"] = 503
        down = run("margin", "--json")
        assert down.code == 10 and "HTTP 503" in down.json["unknown"], down
        checks = {row["check"]: row for row in run("doctor", "--json").json["checks"]}
        assert checks["futures account"]["state"] == "fail"

        server.read_faults.clear()
        chain.node.mine_at(chain.now_s() + 3_700)
        assert run("run", "--once").code == 0
        made = run("pnl", "--json").json["periods"][0]
        assert (made["deposits"], made["futures"]["transferred"]) == ("0", "0"), "margin at the venue is no deposit from outside"
        assert made["futures"]["profit"] == made["profit"] != "0"


def test_a_run_with_an_expired_agent_key_starts_holds_futures_and_trades_spot(
    anvil_chain: LocalChain, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = anvil_chain
    monkeypatch.setattr(wiring.SystemClock, "now_s", lambda _: chain.clock.now_s())
    monkeypatch.setenv(AGENT_ENV, AGENT.key.hex())
    agents.fund(chain, {"WETH": 70_000, "USDC": 30_000})
    with venue_for(chain) as server:
        agents.agent_config(chain, tmp_path, venue_changes(server, ETH_AND_BTC), EVEN)
        assert run("trust", "--yes").code == 0
        server.agents[0].until_ms = server.now_ms + 1_000
        for _ in range(2):
            done = run("run", "--once", "--send", "--yes", "--json")
            assert done.code == 0, done
            assert "trimtab delegate --send" in done.json["decision"]["reason"], done
        assert {one["kind"] for one in run("txs", "--json").json["transactions"]} == {"approve", "swap"}
        assert "trimtab delegate --send" in run("status", "--json").json["futures"]["blocked"]
        assert "trimtab delegate --send" in run("status").out and "trimtab delegate --send" in run("margin").out
        checks = {row["check"]: row for row in run("doctor", "--json").json["checks"]}
        assert (checks["futures agent"]["state"], checks["futures agent"]["remedy"]) == ("warn", "trimtab delegate --send")
        assert server.bodies[1:] == [], "nothing but the approval of the first key was posted"
