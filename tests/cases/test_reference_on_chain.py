"""Sources of prices on a real chain: feeds whose bounds, rounds or sequencer say no, and pools whose memory is too short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.api.checkup import doctor
from agent.artifacts import own
from agent.engine import OutcomeKind
from agent.localchain import LocalChain
from tests.agents import ROOMY, agent_on, fund, purse, trusted, yes
from tests.attacks import attack

OFF_TARGET = {"WETH": 50_000, "USDC": 30_000}
TWO = {"WETH": "50%", "USDC": "50%"}


def rows(chain: LocalChain, folder: Path, changes: dict[str, object] | None = None) -> dict[str, dict[str, Any]]:
    """What the doctor says, by check."""
    loaded = trusted(chain, folder, changes)
    return {row["check"]: row for row in doctor(loaded, [chain.transport], chain.clock.now_s)["checks"]}


def test_an_aggregator_that_stands_at_its_bound_stops_everything_by_name(tester_chain: LocalChain, tmp_path: Path) -> None:
    chain = tester_chain
    proxy = chain.deploy(attack("FeedProxy"), chain.feeds["WETH"])
    fund(chain, OFF_TARGET)
    before = purse(chain)
    changes = {**ROOMY, "portfolio.assets.0.feed": proxy, "reference.kind": ["feed"]}
    with agent_on(chain, tmp_path, changes, TWO) as agent:
        assert agent.plan().kind is OutcomeKind.PLANNED
        price = chain.feed_contract("WETH").functions.latestRoundData().call()[1]
        chain.send(chain.feed_contract("WETH").functions.setBounds(1, price))
        found = agent.rebalance(send=True, confirm=yes)
    assert found.kind is OutcomeKind.HALT
    assert f"its largest answer is {price}" in found.reason
    assert purse(chain) == before


def test_a_sequencer_that_was_down_is_waited_for_until_its_grace_is_over(tester_chain: LocalChain, tmp_path: Path) -> None:
    chain = tester_chain
    uptime = chain.deploy(own("PriceFeed"), "L2 Sequencer Uptime Status Feed", 0)
    contract = chain.contract(uptime, own("PriceFeed")).functions
    fund(chain, OFF_TARGET)
    changes = {**ROOMY, "reference.sequencer_feed": uptime, "reference.sequencer_grace": "1h"}
    with agent_on(chain, tmp_path, changes, TWO) as agent:
        assert "uptime feed was not read" in agent.rebalance(send=True, confirm=yes).reason
        chain.send(contract.push(1))
        down = agent.rebalance(send=True, confirm=yes)
        chain.send(contract.push(0))
        chain.warp(3_500)
        early = agent.rebalance(send=True, confirm=yes)
        by_hand = agent.swap("WETH", "USDC", "1", send=True, confirm=yes)
        chain.warp(200)
        done = agent.rebalance(send=True, confirm=yes)
    assert [down.kind, early.kind, by_hand.kind] == [OutcomeKind.HALT, OutcomeKind.HALT, OutcomeKind.REFUSED]
    assert "the sequencer is down" in down.reason
    assert "up again since 35" in early.reason
    assert "sequencer" in by_hand.reason
    assert done.kind is OutcomeKind.DONE, done.reason


def test_the_doctor_says_whose_feed_a_feed_is_and_what_bounds_it(tester_chain: LocalChain, tmp_path: Path) -> None:
    chain = tester_chain
    mixed_up = {"portfolio.assets.1.feed": chain.feeds["LINK"]}  # of WBTC
    found = rows(chain, tmp_path, mixed_up)
    assert found["feed WETH"]["state"] == "ok"
    assert "WETH / USD, from 0.00000001 to" in found["feed WETH"]["found"]
    assert found["feed WBTC"]["state"] == "warn"
    assert "make sure" in found["feed WBTC"]["remedy"]
    assert found["means"]["state"] == "ok"
    harmful = chain.deploy(own("PriceFeed"), "\x1b[31mWBTC / USD", 8)
    chain.send(chain.contract(harmful, own("PriceFeed")).functions.push(60_000 * 10**8))
    row = rows(chain, tmp_path / "harmful", {"portfolio.assets.1.feed": harmful})["feed WBTC"]
    assert (row["state"], row["found"][:7]) == ("warn", "? / USD")
    chain.send(chain.feed_contract("LINK").functions.setRound(9, -5, 11, 12, 9))
    assert rows(chain, tmp_path / "broken")["feed LINK"]["found"] == "it answers -5"
