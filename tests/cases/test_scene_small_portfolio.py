"""500 dollars at 0.05 gwei, by the commands from init on: purchase, drift, a stop loss, and the re-entry that its owner armed."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.localchain import LocalChain
from tests.support.agents import fund
from tests.support.scenes import HOUR_S, scene_on

TARGETS = {"WETH": "50%", "WBTC": "30%", "USDC": "20%"}
ON_TARGET = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}


@pytest.mark.slow
def test_small_portfolio__trades_where_worth_it_also_after_a_stop(
    chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fund(chain, {"USDC": 500})
    with scene_on(chain, tmp_path, "0.05", capfd, monkeypatch) as scene:
        ending = scene.init(TARGETS, "--use-cash", "500").splitlines()
        assert any(line.startswith("With 500 USDC: not worth it here at 1 gwei") for line in ending)
        assert any(line.startswith("About 3 rebalances and 0.11 USDC a year, simulated, at 0.05 gwei") for line in ending)
        assert "14 contracts are pinned" in scene.say("trust", "--yes")
        assert "Minimum total at 0.05 gwei: 86.5 USDC" in scene.say("doctor"), "WBTC is exchanged by way of WETH, in two pools of 0.05 %"

        assert scene.say("status").count("first purchase") == 1
        assert scene.ask("plan")["outcome"] == "planned"
        assert "done: first purchase" in scene.say("rebalance", "--send", "--yes")
        bought = scene.moment()
        assert scene.weights() == ON_TARGET
        assert float(bought["pnl"]["periods"][-1]["profit"]) == pytest.approx(-0.33, abs=0.01), "fees and gas"
        scene.require_rest()

        chain.move_market({"WETH": 3_240})
        assert "hold: all within their ranges" in scene.say("rebalance", "--send", "--yes")
        assert scene.moment()["status"]["total_value"] == "519.713359"
        chain.warp(HOUR_S)
        chain.move_market({"WETH": 5_300})
        scene.confirm_prices()
        corrected = scene.ask("rebalance", "--send", "--yes")
        assert corrected["outcome"] == "done"
        assert "WETH at 63.85 %, target 50 %, is beyond 50.18-62.77 %" in corrected["reason"], "WETH and WBTC have a rule of their own"
        assert scene.weights() == {"WETH": 5_156, "WBTC": 2_912, "USDC": 1_932}, "to the edges, not to the targets"
        after = scene.moment()
        assert "is less" not in after["status"]["least_total"]["text"], "what was just corrected was worth it"
        scene.require_rest()

        scene.say("orders", "set", "--yes", "WETH", "--stop-loss", "15%")
        scene.say("rebalance", "--send", "--yes")
        assert scene.order("stop_loss")["stage"] == "armed"
        chain.warp(HOUR_S)
        chain.move_market({"WETH": 3_700})
        scene.confirm_prices()
        assert "all of it is sold for USDC" in scene.say("rebalance", "--send", "--yes")
        assert scene.weights() == {"WETH": 0, "WBTC": 3_450, "USDC": 6_550}
        assert scene.order("stop_loss")["stage"] == "done"
        scene.moment()
        scene.require_rest()

        output = scene.say("orders", "set", "--yes", "WETH", "--entry", "2900")
        assert "29.00%" not in output
        assert "2900%" not in output, "a price far above a hundred is no forgotten share"
        armed = scene.say("orders", "arm", "WETH", "--yes")
        assert "The next rebalance buys back what was sold of WETH, only at or below its entry" in armed
        assert "hold" in scene.say("rebalance", "--send", "--yes")
        assert scene.order("entry")["stage"] == "armed"
        chain.warp(HOUR_S)
        chain.move_market({"WETH": 2_850})
        scene.confirm_prices()
        part = scene.say("rebalance", "--send", "--yes")
        assert "WETH stays" in part
        assert "limits.turnover allows no more" in part
        assert "daily_turnover" not in part, "exits of the same day leave room for the re-entry"
        chain.warp(HOUR_S)
        chain.refresh_feeds()
        scene.confirm_prices()
        assert scene.ask("rebalance", "--send", "--yes")["outcome"] == "done"
        assert scene.weights() == {"WETH": 4_504, "WBTC": 3_451, "USDC": 2_045}, "bought up to the edges"
        last = scene.moment()
        assert last["pnl"]["periods"][-1]["rebalances"] == 5
        assert "match" in scene.say("books", "check")
        scene.require_rest()
