"""3,000 dollars at 1 gwei under the trigger of init: deposits, withdrawals, a crash beside a deposit, a kill, a stop, trading again."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent.localchain import LocalChain
from tests.support.agents import fund
from tests.support.constants import DAY_S, HOME
from tests.support.scenes import HOUR_S, beyond_triggers, scene_on

TARGETS = {"WETH": "50%", "WBTC": "30%", "USDC": "20%"}
ON_TARGET = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}
SEND = ("--send", "--yes")


@pytest.mark.slow
def test_money_comes_and_goes_and_nothing_stays_open(
    chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fund(chain, {"USDC": 3_000})
    with scene_on(chain, tmp_path, "1", capfd, monkeypatch) as scene:
        ending = scene.init(TARGETS, "--use-cash", "10000").splitlines()
        assert "With 10,000 USDC: about 3 rebalances and 2.2 USDC a year, simulated, at 1 gwei, the gas price of ordinary days." in ending
        scene.edit_file("payout_addresses = []", f'payout_addresses = ["{HOME}"]')
        scene.run("trust", "--yes")
        assert scene.ask("status")["least_total"]["enough"] is True
        assert scene.ask("rebalance", *SEND)["outcome"] == "done"
        assert scene.weights() == ON_TARGET
        assert "is less" not in scene.moment()["status"]["least_total"]["text"], "not repeated after what was executed"
        scene.require_rest()

        scene.deposit(200)
        invest_document = scene.ask("invest", *SEND)
        assert invest_document["outcome"] == "hold"
        assert (
            "the deposit stays uninvested for now: no purchase is worth its cost yet; all within their ranges" in invest_document["reason"]
        )
        assert beyond_triggers(scene.ask("status")) == {}

        assert scene.ask("withdraw", "500", "--to", HOME, *SEND)["sale"] is None
        paid = scene.moment()
        assert paid["status"]["decision"]["kind"] == "hold", "the cash is low, and waiting for more is cheaper"
        assert beyond_triggers(paid["status"]) == {}
        assert (paid["pnl"]["periods"][-1]["deposits"], paid["pnl"]["periods"][-1]["withdrawals"]) == ("200", "500")
        assert (paid["pnl"]["not_final"], paid["pnl"]["reserved"]) == (0, "0")
        assert float(paid["pnl"]["periods"][-1]["profit"]) == pytest.approx(-2.72, abs=0.01)
        scene.require_rest()

        short = scene.ask("withdraw", "600", "--to", HOME, *SEND)
        assert [leg["token_in"] for leg in short["sale"]["legs"]] == ["WETH"], "furthest above its target of what is left"
        assert scene.paid_to(HOME) == 1_100 * 10**6
        assert 0 < chain.balance("USDC") < 600 * 10**6 // 100, "raised: what lacks and the margin for its costs"
        assert beyond_triggers(scene.ask("status")) == {"WETH": "over", "WBTC": "over"}
        chain.warp(HOUR_S)
        scene.confirm_prices()
        coins = {symbol: chain.balance(symbol) for symbol in ("WETH", "WBTC")}
        assert scene.ask("rebalance", *SEND)["outcome"] == "done"
        assert all(chain.balance(symbol) < raw for symbol, raw in coins.items()), "the overweight is sold for cash"
        settled = scene.ask("status")
        assert beyond_triggers(settled) == {}
        weights = {asset["symbol"]: asset for asset in settled["zone"]["assets"]}
        for symbol in coins:
            assert weights[symbol]["weight_bps"] == pytest.approx(weights[symbol]["no_trade_bps"][1], abs=2), "to its edge"
        assert settled["decision"]["kind"] == "hold"
        scene.require_rest()

        scene.run("edit", "--set", "limits.daily_loss=0.2%", "--yes")
        scene.deposit(6_000)
        output = scene.say("invest", *SEND)
        assert "done: invest the deposit; part 1 of about 2: the worst case of the whole trade exceeds" in output
        waits = scene.ask("status")
        assert beyond_triggers(waits) == {"WETH": "under", "WBTC": "under"}, "the rest is left to the rule"
        assert waits["decision"]["codes"] == ["policy.cooldown"]

        chain.move_market({"WETH": 2_100})
        scene.gwei = Fraction(12)
        chain.warp(HOUR_S)
        scene.confirm_prices()
        assert "refused: daily_loss" in scene.ask("rebalance", *SEND, code=10)["reason"]
        scene.run("edit", "--set", "limits.daily_loss=1%", "--yes")
        scene.gwei = Fraction(30)
        dear = scene.ask("rebalance", *SEND)
        assert dear["outcome"] == "hold", dear["reason"]
        assert "a swap with its approval costs 12.348 of gas" in dear["reason"]
        assert "WETH: 1889.77 USDC off target: plan_cost allows 9.45; gas 12.35 + fees 0.94 + impact 0.22" in dear["reason"]
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
        stop_output = scene.say("stop", "--to-stable", "--send-to", HOME)
        assert "The stop goes ahead; the payout waits: payout_per_day" in stop_output
        stopped = scene.say("stop", "--to-stable", "--send-to", HOME, *SEND, code=11)
        assert "unfinished: the payout waits" in stopped
        assert scene.weights() == {"WETH": 0, "WBTC": 0, "USDC": 10_000}
        assert scene.paid_to(HOME) == 2_000 * 10**6, "1,100 of the withdrawals and 900 now"
        halted = scene.moment()
        assert halted["pnl"]["periods"][-1]["withdrawals"] == "2000"
        assert "trimtab stop --send continues, trimtab resume restarts trading" in halted["status"]["decision"]["reason"]
        scene.require_rest()
        assert scene.ask("rebalance", *SEND, code=10)["outcome"] == "halt"
        chain.warp(DAY_S + 100)
        scene.run("stop", *SEND, code=11)
        assert scene.paid_to(HOME) == 4_000 * 10**6
        scene.moment()

        assert "a confirmation is needed" in scene.say("resume", code=2), "it would buy back, so it asks, and there is no terminal"
        scene.run("resume", "--yes")
        again = scene.ask("rebalance", *SEND)
        assert again["outcome"] == "done"
        bought = scene.weights()
        assert bought == {"WETH": 745, "WBTC": 2_255, "USDC": 7_000}, "within limits.turnover, some of both, what saves most first"
        scene.moment()
        scene.require_rest()
        assert "match" in scene.say("books", "check")
