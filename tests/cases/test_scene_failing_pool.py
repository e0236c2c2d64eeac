"""A stop loss beside a pool without money, by the commands from init on: the deepest pool of the pair keeps price and liquidity, but has
one base unit of the numeraire left, and four healthy pools stand beside it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.app.start.doctor.checks import doctor
from agent.localchain import LocalChain
from tests.support.agents import fund
from tests.support.scenes import scene_on
from tests.support.text import mentions

TARGETS = {"WETH": "40%", "WBTC": "20%", "USDC": "25%", "USDT": "15%"}
POOL = "v3 WETH/USDC 500"


def test_a_stop_loss_sells_beside_a_pool_without_money(
    chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fund(chain, {"WETH": 2_000, "WBTC": 1_000, "USDC": 1_250, "USDT": 750})
    pool = chain.address_by_pool[POOL]
    with scene_on(chain, tmp_path, "0.05", capfd, monkeypatch) as scene:
        scene.init(TARGETS, "--ceiling", "10000")
        scene.say("trust", "--yes")
        scene.say("orders", "set", "--yes", "WETH", "--stop-loss", "2700")
        scene.say("rebalance", "--send", "--yes")
        assert scene.order("stop_loss")["stage"] == "armed"
        assert "cannot send" not in scene.say("doctor")

        chain.move_market({"WETH": 2_500})
        chain.set_balance("USDC", 1, pool)
        scene.confirm_prices()
        checks = doctor(scene.config, now_s=chain.clock.now_s)["checks"]
        (row,) = [check for check in checks if check["check"] == "pool of USDC"]
        assert row["state"] == "warn", row
        assert mentions(row["finding"], pool, "cannot send")

        sold = scene.ask("rebalance", "--send", "--yes")
        assert sold["outcome"] == "done", sold["reason"]
        assert mentions(sold["reason"], "stop_loss", "WETH")
        assert pool not in {leg["pool"] for leg in sold["legs"]}
        assert chain.balance("WETH") == 0
        assert scene.order("stop_loss")["stage"] == "done"
        assert scene.weights()["USDC"] > 6_000, "USDC is no reserve, and nothing else was bought with it"
        scene.require_rest()

        pools = [pool.address for pool in chain.deployed_world.pool_by_name.values() if "USDC" in pool.name]
        money = {address: chain.balance("USDC", address) for address in pools}
        for address in pools:
            chain.set_balance("USDC", 1, address)
        unsold = scene.ask("stop", "--to-stable", "--send", "--yes", code=11)
        assert unsold["state"] == "unfinished", unsold["reason"]
        assert mentions(unsold["unsold"], "WBTC", "USDT")
        for address in pools:
            chain.set_balance("USDC", 1 if address == pool else money[address], address)
        stopped = scene.ask("stop", "--to-stable", "--send", "--yes")
        assert (stopped["state"], stopped["unsold"]) == ("stopped", ""), stopped["reason"]
        assert {symbol: chain.balance(symbol) for symbol in ("WETH", "WBTC", "USDT")} == {"WETH": 0, "WBTC": 0, "USDT": 0}
