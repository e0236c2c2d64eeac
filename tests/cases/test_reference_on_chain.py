"""Sources of prices on a real chain: feeds whose bounds, rounds or sequencer say no, and pools whose memory is too short."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from agent import engine, wiring
from agent.app.cycles import ignore_progress
from agent.app.start.doctor.checks import doctor
from agent.artifacts import own_artifact
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import AgentCycle
from tests.support.agents import ROOMY, agent_on, fund, purse, reopened_agent, trusted_config, yes
from tests.support.attacks import attack
from tests.support.text import mentions

OFF_TARGET = {"WETH": 50_000, "USDC": 30_000}
TWO = {"WETH": "50%", "USDC": "50%"}


def rows(chain: LocalChain, folder: Path, changes: dict[str, object] | None = None) -> dict[str, dict[str, Any]]:
    """What the doctor says, by check."""
    loaded = trusted_config(chain, folder, changes)
    return {row["check"]: row for row in doctor(loaded, [chain.transport], chain.clock.now_s)["checks"]}


def test_aggregator_at_its_bound__stops_everything_by_name(chain: LocalChain, tmp_path: Path) -> None:
    proxy = chain.deploy(attack("FeedProxy"), chain.feed_addresses["WETH"])
    fund(chain, OFF_TARGET)
    before = purse(chain)
    changes = {**ROOMY, "portfolio.assets.0.feed": proxy, "reference.kind": ["feed"]}
    with agent_on(chain, tmp_path, changes, TWO) as agent:
        assert agent.plan().kind is OutcomeKind.PLANNED
        price = chain.feed_contract("WETH").functions.latestRoundData().call()[1]
        chain.send(chain.feed_contract("WETH").functions.setBounds(1, price))
        outcome = agent.rebalance(send=True, confirm=yes)
    assert outcome.kind is OutcomeKind.HALT
    assert mentions(outcome.reason, "maximum answer", f"{price}")
    assert purse(chain) == before


def test_missing_or_foreign_feed__stops_everything_by_name(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, OFF_TARGET)
    before = purse(chain)

    def outcome(feed: str, *kinds: str) -> StepOutcome:
        changes = {**ROOMY, "portfolio.assets.0.feed": feed, "reference.kind": list(kinds)}
        with agent_on(chain, tmp_path / f"{feed} {len(kinds)}", changes, TWO) as agent:
            return agent.rebalance(send=True, confirm=yes)

    missing = outcome(chain.wallet.address, "feed")
    assert missing.kind is OutcomeKind.HALT
    assert mentions(missing.reason, "WETH", "no contract at this address")
    other = outcome(chain.feed_addresses["LINK"], "feed")
    assert other.kind is OutcomeKind.REFUSED
    assert mentions(other.reason, chain.address_by_pool["v3 WETH/USDC 500"], "times the reference price")
    beside_a_mean = outcome(chain.feed_addresses["LINK"], "feed", "twap")
    assert beside_a_mean.kind is OutcomeKind.HALT
    assert mentions(beside_a_mean.reason, "WETH", "off its feed")
    assert purse(chain) == before


def test_sequencer_that_was_down__is_waited_for_in_its_grace(chain: LocalChain, tmp_path: Path) -> None:
    uptime = chain.deploy(own_artifact("PriceFeed"), "L2 Sequencer Uptime Status Feed", 0)
    contract = chain.contract(uptime, own_artifact("PriceFeed")).functions
    fund(chain, OFF_TARGET)
    changes = {**ROOMY, "reference.sequencer_feed": uptime, "reference.sequencer_grace": "1h"}
    with agent_on(chain, tmp_path, changes, TWO) as agent:
        assert "uptime feed" in agent.rebalance(send=True, confirm=yes).reason
        chain.send(contract.push(1))
        down = agent.rebalance(send=True, confirm=yes)
        chain.send(contract.push(0))
        chain.warp(3_500)
        early = agent.rebalance(send=True, confirm=yes)
        by_hand = agent.swap("WETH", "USDC", "1", send=True, confirm=yes)
        chain.warp(200)
        done = agent.rebalance(send=True, confirm=yes)
    assert [down.kind, early.kind, by_hand.kind] == [OutcomeKind.HALT, OutcomeKind.HALT, OutcomeKind.REFUSED]
    assert "sequencer" in down.reason
    assert "up again for only 35" in early.reason
    assert "sequencer" in by_hand.reason
    assert done.kind is OutcomeKind.DONE, done.reason


def test_the_doctor_says_whose_feed_a_feed_is_and_what_bounds_it(chain: LocalChain, tmp_path: Path) -> None:
    mixed_up = {"portfolio.assets.1.feed": chain.feed_addresses["LINK"]}  # of WBTC
    rows_by_subject = rows(chain, tmp_path, mixed_up)
    assert rows_by_subject["feed WETH"]["state"] == "ok"
    assert mentions(rows_by_subject["feed WETH"]["finding"], "WETH / USD", "0.00000001")
    assert rows_by_subject["feed WBTC"]["state"] == "warn"
    assert "make sure" in rows_by_subject["feed WBTC"]["remedy"]
    assert rows_by_subject["TWAPs"]["state"] == "ok"
    harmful = chain.deploy(own_artifact("PriceFeed"), "\x1b[31mWBTC / USD", 8)
    chain.send(chain.contract(harmful, own_artifact("PriceFeed")).functions.push(60_000 * 10**8))
    row = rows(chain, tmp_path / "harmful", {"portfolio.assets.1.feed": harmful})["feed WBTC"]
    assert (row["state"], row["finding"][:7]) == ("warn", "? / USD")
    chain.send(chain.feed_contract("LINK").functions.setRound(9, -5, 11, 12, 9))
    assert rows(chain, tmp_path / "broken")["feed LINK"]["finding"] == "it answers -5"


def test_dollar_off_its_peg__stops_trading_until_well_back(chain: LocalChain, tmp_path: Path) -> None:
    feed = chain.feed_contract("USDC").functions
    fund(chain, OFF_TARGET)
    before = purse(chain)
    loaded = trusted_config(chain, tmp_path, {**ROOMY, "limits.oracle_deviation": "off"}, TWO)
    ends = []
    for cents in ("97.9", "98.5", "98.9"):
        chain.send(feed.push(int(float(cents) * 10**6)))
        with reopened_agent(chain, loaded) as agent:  # a new process each time: what it knows of the peg lies in the store
            ends.append(agent.rebalance(send=True, confirm=yes))
    assert [end.kind for end in ends] == [OutcomeKind.HALT] * 3
    assert all(mentions(end.reason, "USDC", "peg") for end in ends)
    assert purse(chain) == before
    chain.send(feed.push(10**8))
    with reopened_agent(chain, loaded) as agent:
        assert agent.status().decision_result.decision.reason.startswith("WETH at")
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
        assert agent.context.store.budgets.history(chain.now_s()).depegged_tokens == ()


def test_a_review_is_late_by_what_was_drawn_at_the_last_one(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 40_000, "USDC": 40_000})
    timed = {**ROOMY, "policy.trigger": {"kind": "time", "every": "2h"}, "policy.jitter": "50%"}
    with agent_on(chain, tmp_path, timed, TWO) as agent, wiring.open_transactor(agent.context, yes, ignore_progress) as transactor:

        def step(chance: float) -> StepOutcome:
            return engine.run_cycle(replace(agent.context.readers, chance=lambda: chance), AgentCycle(), agent.context.store, transactor)

        first = step(0.75)
        assert first.decision_result.is_reviewed, first.reason
        seen_s = first.step_input.snapshot.head.timestamp_s
        assert agent.context.store.budgets.history(seen_s).reviews.delay_ppm == 750_000
        due_s = seen_s + 7_200 + 2_700  # three quarters of the hour that half of two hours comes to
        for at_s, due in ((seen_s + 7_200, False), (due_s - 60, False), (due_s + 60, True)):
            chain.warp(at_s - chain.now_s())
            assert step(0.5).decision_result.is_reviewed is due
