"""status, plan and explain under a zone: the added part of their documents, and their words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.figures import correction_text
from agent.localchain import LocalChain
from tests.cli.tools import CommandResult
from tests.support import agents
from tests.support.markets.tracking import tracking_policy
from tests.support.markets.zones import TARGETS, ZONE


def test_status_plan_and_explain__show_saved_risk_and_bands(
    anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    agents.trusted_config(anvil_chain, tmp_path, ZONE, TARGETS)
    agents.fund(anvil_chain, {"WETH": 54_000, "USDC": 46_000})
    status = run("status", "--json").json
    assert status["decision"]["kind"] == "rebalance"
    weth = next(item for item in status["zone"]["assets"] if item["symbol"] == "WETH")
    assert status["holdings"][0]["band_bps"] == weth["trigger_bps"]
    assert weth["trigger_bps"][0] < weth["no_trade_bps"][0] < 5_000 < weth["no_trade_bps"][1] < weth["trigger_bps"][1]
    plan = run("plan", "--json").json
    zone = plan["zone"]
    assert zone["plan"] == status["zone"]["plan"], "status decides by the same plan"
    assert zone["plan"]["covers_cost"] is True
    assert float(zone["plan"]["saved_risk"]) > float(zone["plan"]["cost"])
    assert {name: zone["plan"][name] for name in ("fees", "impact", "skew", "gas")} == {
        name: plan["cost"][name] for name in ("fees", "impact", "skew", "gas")
    }
    for words in (run("status").out, run("plan", "--verbose").out):
        for part in ("Zone: drift from the targets is a risk", "moves beyond", "back to", "A plan saves", "approvals"):
            assert part in words
    step = run("history", "--json")
    assert step.json["steps"] == [], "looking writes nothing"
    dry = run("rebalance")
    assert dry.code == 0, dry.out
    output = run("explain", run("history", "--json").json["steps"][0]["step"]).out
    assert "Being off target was a risk valued at" in output
    assert "A plan was estimated to save" in output


def test_a_zone_that_holds_shows_the_scales_all_the_same(
    anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]
) -> None:
    agents.trusted_config(anvil_chain, tmp_path, ZONE, TARGETS)
    agents.fund(anvil_chain, {"WETH": 50_400, "USDC": 49_600})
    plan = run("plan", "--json").json
    assert (plan["outcome"], plan["zone"]["plan"], plan["legs"]) == ("hold", None, [])
    assert float(plan["zone"]["pair"]["saving_bps"]) < float(plan["zone"]["pair"]["cost_bps"])
    result = run("plan")
    assert result.code == 0
    assert "no-trade zone" in " ".join(result.out.split())
    agents.agent_config(anvil_chain, tmp_path)
    assert run("status", "--json").json["zone"] is None


def test_tracking__status_and_plan_say_what_waiting_costs(
    anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    agents.trusted_config(anvil_chain, tmp_path, tracking_policy("normal"), TARGETS)
    agents.fund(anvil_chain, {"WETH": 60_000, "USDC": 40_000})
    status = run("status", "--json").json
    weth, usdc = status["zone"]["assets"]
    holding = status["holdings"][0]
    assert (weth["weight_bps"], weth["target_bps"]) == (holding["weight_bps"], holding["target_bps"])
    assert weth["no_trade_bps"] == holding["back_to_bps"]
    assert usdc["correction"] is None
    sentence = correction_text(weth, "USDC")
    for words in (run("status").out, run("plan", "--verbose").out):
        assert sentence in " ".join(words.split())
    agents.fund(anvil_chain, {"WETH": 50_000, "USDC": 50_000})
    assert "a trade back costs" not in run("status").out
