"""3,000 dollars at 1 gwei and bands, from init on: deposits, a withdrawal, a crash beside a top-up, a kill, a stop, and trading again."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent.localchain import LocalChain
from tests.support.agents import fund
from tests.support.bands import BAND_LINES, TRACKING_LINE
from tests.support.scenes import HOUR_S, scene_on

TARGETS = {"WETH": "50%", "WBTC": "30%", "USDC": "20%"}
ON_TARGET = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}
HOME = "0x00000000000000000000000000000000000A11cE"
DAY_S = 86_500
SEND = ("--send", "--yes")


@pytest.mark.slow
def test_money_comes_and_goes_and_nothing_stays_open(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = anvil_chain
    fund(chain, {"USDC": 3_000})
    with scene_on(chain, tmp_path, "1", capfd, monkeypatch) as scene:
        ending = scene.init(TARGETS, "--use-cash", "10000").splitlines()
        assert "With 10,000 USDC: about 4 trades and 3.0 USDC a year at 1 gwei." in ending
        scene.edit_file(TRACKING_LINE, BAND_LINES)
        scene.edit_file("payout_addresses = []", f'payout_addresses = ["{HOME}"]')
        scene.run("trust", "--yes")
        assert "corrections wait until they are worth their cost" in scene.ask("status")["least_total"]["text"]
        assert scene.ask("rebalance", *SEND)["outcome"] == "done"
        assert scene.weights() == ON_TARGET
        assert "is less" not in scene.moment()["status"]["least_total"]["text"], "not repeated after what was executed"
        scene.require_rest()

        scene.deposit(200)
        kept = scene.ask("invest", *SEND)
        assert kept["outcome"] == "hold"
        assert "WETH: 100 USDC off target: plan_cost allows 0.5; gas 0.59 + fees 0.05" in kept["reason"]
        assert "WBTC: 60 USDC off target: plan_cost allows 0.3; gas 0.59 + fees 0.18" in kept["reason"]
        assert scene.moment()["pnl"]["periods"][-1]["deposits"] == "200"

        assert scene.ask("withdraw", "500", "--to", HOME, *SEND)["state"] == "paid"
        paid = scene.moment()
        assert paid["pnl"]["periods"][-1]["withdrawals"] == "500"
        assert (paid["pnl"]["not_final"], paid["pnl"]["reserved"]) == (0, "0")
        assert float(paid["pnl"]["periods"][-1]["profit"]) == pytest.approx(-2.72, abs=0.01)
        scene.require_rest()

        scene.run("edit", "--set", "limits.daily_loss=0.2%", "--yes")
        scene.deposit(6_000)
        said = scene.say("invest", *SEND)
        assert "Top-up: 1 of 2 parts done, 2,279.93 USDC traded of a deposit of 6,000.00 USDC" in said
        (top_up,) = scene.ask("limit")["gradual_executions"]
        waits = scene.moment()
        assert f"trimtab limit --cancel {top_up['id']} ends it" in waits["status"]["decision"]["reason"]

        chain.move_market({"WETH": 2_100})
        scene.gwei = Fraction(12)
        scene.confirm_prices()
        lossy = scene.ask("rebalance", *SEND)
        assert lossy["outcome"] == "hold", "it ends after one hold that is due"
        assert "waiting for limits.daily_loss" in lossy["reason"]
        assert f"trimtab limit --cancel {top_up['id']} ends it" in lossy["reason"]
        scene.run("edit", "--set", "limits.daily_loss=1%", "--yes")
        scene.gwei = Fraction(30)
        dear = scene.ask("rebalance", *SEND)
        assert dear["outcome"] == "hold"
        assert "is over: the rest is not worth its cost (limits.plan_cost 50 bps)" in dear["reason"]
        assert [row["state"] for row in scene.ask("limit")["gradual_executions"]] == ["ended"]
        scene.moment()
        scene.gwei = Fraction(1)
        chain.warp(HOUR_S)
        scene.confirm_prices()
        before = scene.ask("txs")["next_nonce"]
        scene.killed_at_send(1, "rebalance", *SEND)
        resumed = scene.ask("rebalance", *SEND)
        assert resumed["outcome"] == "done", resumed["reason"]
        sent = [row for row in scene.ask("txs")["transactions"] if row["nonce"] >= before]
        assert sorted(row["kind"] for row in sent) == ["approve", "swap"], "the approval of the killed process is used"
        assert scene.ask("rebalance", *SEND)["outcome"] == "hold"
        scene.moment()
        scene.require_rest()

        scene.run("edit", "--set", "limits.payout_per_day=2000", "--yes")
        shown = scene.say("stop", "--to-stable", "--send-to", HOME)
        assert "The stop goes ahead; the payout waits: payout_per_day" in shown
        stopped = scene.say("stop", "--to-stable", "--send-to", HOME, *SEND, code=11)
        assert "unfinished: the payout waits" in stopped
        assert scene.weights() == {"WETH": 0, "WBTC": 0, "USDC": 10_000}
        assert scene.paid_to(HOME) == 2_000 * 10**6, "500 of the withdrawal and 1,500 now"
        halted = scene.moment()
        assert halted["pnl"]["periods"][-1]["withdrawals"] == "2000"
        assert "trimtab stop continues, trimtab resume restarts trading" in halted["status"]["decision"]["reason"]
        scene.require_rest()
        assert scene.ask("rebalance", *SEND, code=10)["outcome"] == "halt"
        chain.warp(DAY_S)
        scene.run("stop", *SEND, code=11)
        assert scene.paid_to(HOME) == 4_000 * 10**6
        scene.moment()

        assert "a confirmation is needed" in scene.say("resume", code=2), "it would buy back, so it asks, and there is no terminal"
        scene.run("resume", "--yes")
        again = scene.ask("rebalance", *SEND)
        assert again["outcome"] == "done"
        assert scene.weights() == {"WETH": 3_000, "WBTC": 0, "USDC": 7_000}, "it buys back within limits.turnover"
        scene.moment()
        scene.require_rest()
        assert "match" in scene.say("books", "check")
