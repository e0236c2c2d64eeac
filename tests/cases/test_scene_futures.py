"""A futures book at 2x beside 10,000 dollars under the trigger of init: a rally, a crash with a paused market, funding, margin."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent.localchain.perpetuals import LocalPerps
from tests.support.agents import fund
from tests.support.scenes import HOUR_S, Scene, beyond_triggers, scene_on

TARGETS = {"WETH": "50%", "WBTC": "30%", "USDC": "20%"}
MARKETS = ("--futures", "moderate", "--futures-target", "WETH=60%", "--futures-target", "WBTC=-40%")
SEND = ("--send", "--yes")


def leverage(scene: Scene) -> float:
    return float(scene.ask("margin")["margin"]["leverage"])


@pytest.mark.slow
def test_a_book_at_two_times_goes_through_a_rally_and_a_crash(
    perps_chain: LocalPerps, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    perps = perps_chain
    chain = perps_chain.chain
    monkeypatch.setattr(chain, "perps", perps)
    fund(chain, {"USDC": 10_000})
    with scene_on(chain, tmp_path, "1", capfd, monkeypatch) as scene:
        scene.init(TARGETS, "--use-cash", "10000", "--ceiling", "40000", *MARKETS)
        assert "25 contracts are pinned" in scene.say("trust", "--yes")
        assert scene.ask("rebalance", *SEND)["outcome"] == "done"
        assert "Dry run: nothing was sent" in scene.say("margin", "--deposit", "1500")
        assert "deposit 1,500 USDC as margin: final" in scene.say("margin", "--deposit", "1500", *SEND)
        opened = scene.ask("rebalance", *SEND)
        assert [row["kind"] for row in opened["transactions"]] == ["futures", "futures"]
        assert "no rebalance follows before" in opened["reason"], "the margin was spot's cash, so that its coins are overweight"
        assert leverage(scene) == pytest.approx(2, abs=0.01)
        first = scene.moment(now=True)
        assert beyond_triggers(first["status"]) == {"WETH": "over", "WBTC": "over"}
        assert float(first["pnl"]["periods"][-1]["profit"]) == pytest.approx(-15.6, abs=0.2), "fees and gas"
        scene.require_rest()

        scene.move_futures(perps, WETH=Fraction("1.55"), WBTC=Fraction("1.3"))
        sold = scene.ask("rebalance", *SEND)
        assert sold["outcome"] == "done"
        assert "WETH at 63.79 %, target 50 %, is beyond" in sold["reason"]
        assert "WBTC at 32.1 %, target 30 %: the others have too much that moves with it" in sold["reason"]
        assert {leg["token_in"] for leg in sold["legs"]} == {"WETH"}
        assert leverage(scene) == pytest.approx(2.04, abs=0.02), "a long and a short that both moved"
        rallied = scene.moment(now=True)
        assert beyond_triggers(rallied["status"]) == {}
        assert float(rallied["pnl"]["value"]) == pytest.approx(14_268, abs=5)
        scene.move_futures(perps, WETH=Fraction("1.9") / Fraction("1.55"), WBTC=Fraction("1.4") / Fraction("1.3"))
        waits = scene.ask("rebalance", *SEND)
        assert waits["outcome"] == "hold"
        assert "all within their ranges; closest is WETH" in waits["reason"]
        assert "its orders cost" in scene.say("margin"), "orders that are not worth their gas wait, with their cost"
        scene.moment(now=True)
        scene.require_rest()

        chain.send(perps.exchange.functions.setMaxTickCrossedWithinBlock(perps.markets["WBTC"].base_token, 0))
        scene.move_futures(perps, paused=("WBTC",), WETH=Fraction("0.6"), WBTC=Fraction("0.8"))
        assert "Paused by the venue: WBTC. No order there until it opens" in scene.say("status")
        crashed = scene.ask("rebalance", *SEND)
        assert crashed["outcome"] == "done", crashed["reason"]
        assert "all within their ranges" in crashed["reason"], "spot waits, and the leverage does not"
        assert {row["kind"] for row in crashed["transactions"]} == {"futures"}
        assert "WBTC is paused" in scene.say("margin")
        assert not [row for row in scene.ask("margin")["limits"] if row["broken"]]
        assert scene.ask("margin")["margin"]["leverage"] < "2.76", "the open market was reduced"
        assert any(float(row["pending"]) < 0 for row in scene.ask("funding")["markets"]), "the short is paid"
        fallen = scene.moment(now=True)
        assert "futures made" in scene.say("pnl")
        assert fallen["status"]["futures"]["paused"] == ["WBTC"]
        scene.require_rest()

        chain.warp(HOUR_S)
        scene.move_futures(perps, paused=("WBTC",), WETH=Fraction("2.2"))
        recovered = scene.ask("rebalance", *SEND)
        assert recovered["outcome"] == "done", recovered["reason"]
        assert "WETH" in recovered["reason"].split("is beyond")[0], "spot goes on beside a paused market"
        assert "swap" in {row["kind"] for row in recovered["transactions"]}
        assert "final" in scene.say("margin", "--withdraw", "200", *SEND)
        last = scene.moment(now=True)["status"]
        assert beyond_triggers(last) == {}
        assert last["futures"]["paused"] == ["WBTC"]
        scene.require_rest()
        assert "match" in scene.say("books", "check")
