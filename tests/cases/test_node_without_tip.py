"""Nodes that take no transaction at the tip that they suggest, or suggest none: rebalances and stops are sent all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.app.money import shutdown
from agent.app.start.doctor.checks import doctor as api_doctor
from agent.config.networks import typical_fees
from agent.errors import NotAccepted
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import IntentKind, IntentState
from tests.support.agents import ROOMY, agent_on, allow, fund, reopened_agent, require_rebalance, trusted_config, yes
from tests.support.scenes import HOUR_S, scene_on
from tests.support.text import raises_code
from tests.support.tips import GWEI, NAMELESS, NO_METHOD, WORDINGS, DemandingNode, serving_demands

TARGETS = {"WETH": "50%", "USDC": "50%"}
HELD = {"WETH": 60_000, "USDC": 40_000}


QUICK = ("geth", "erigon")


@pytest.mark.parametrize("wording", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in WORDINGS])
def test_a_rebalance_pays_the_tip_that_the_node_demands(anvil_chain: LocalChain, tmp_path: Path, wording: str) -> None:
    node = DemandingNode(anvil_chain.transport, GWEI, wording)
    fund(anvil_chain, HELD)
    with agent_on(anvil_chain, tmp_path, ROOMY, TARGETS, [node.transport]) as agent:
        outcome = require_rebalance(agent)
        paid = [intent.tx.tip_wei for intent in outcome.transactions]
        assert all(GWEI <= tip <= 2 * GWEI for tip in paid)
        assert len(paid) == 2, "the approval and the swap"
        assert node.refused == ([GWEI // 10] if wording not in NAMELESS else [GWEI // 10, GWEI // 5, 2 * GWEI // 5, 4 * GWEI // 5])
        assert outcome.step_input.snapshot.priority_fee_wei == paid[-1], "the plan of the swap counts it"
        assert agent.context.store.journal.open_intents() == ()


ROLLUP = {**ROOMY, "limits.gas_price": "3 gwei"}


def as_cheap_as_a_rollup(chain: LocalChain) -> DemandingNode:
    """Return a node that suggests a thousandth of the tip that it takes, on a chain with a base fee as low."""
    chain.node.rpc("anvil_setNextBlockBaseFeePerGas", hex(GWEI // 200))  # type: ignore[attr-defined]  # anvil
    chain.mine()
    fund(chain, HELD)
    return DemandingNode(chain.transport, GWEI, suggested=hex(GWEI // 1000))


@pytest.mark.parametrize("refused", ["approval", "swap"])
def test_stop_of_many_times_its_plan__is_sent_within_the_ceiling(anvil_chain: LocalChain, tmp_path: Path, refused: str) -> None:
    node = as_cheap_as_a_rollup(anvil_chain)
    if refused == "swap":
        allow(anvil_chain, "WETH")
    with agent_on(anvil_chain, tmp_path, ROLLUP, TARGETS, [node.transport]) as agent:
        ended = shutdown.stop(agent, to_stable=True, send=True, confirm=lambda _: True)
        assert ended.state == "stopped", ended.reason
        assert node.refused == [GWEI // 1000]
        assert IntentKind.CANCEL not in {intent.kind for intent in agent.context.store.journal.intents()}
    assert anvil_chain.balance("WETH") < 1_000


def test_rebalance_of_many_times_its_plan__is_planned_again(anvil_chain: LocalChain, tmp_path: Path) -> None:
    node = as_cheap_as_a_rollup(anvil_chain)
    allow(anvil_chain, "WETH")
    loaded = trusted_config(anvil_chain, tmp_path, ROLLUP, TARGETS)
    with reopened_agent(anvil_chain, loaded, [node.transport]) as agent:
        require_rebalance(agent, OutcomeKind.FAILED)
        states = {intent.kind: intent.state for intent in agent.context.store.journal.intents()}
        assert states[IntentKind.SWAP] is IntentState.CANCELLED
        assert states[IntentKind.CANCEL] is IntentState.FINAL
    with reopened_agent(anvil_chain, loaded, [node.transport]) as agent:
        done = require_rebalance(agent)
        assert done.step_input.snapshot.priority_fee_wei == GWEI
        assert node.refused == [GWEI // 1000], "a new process remembers what nodes take"
        rows = [row for row in api_doctor(loaded, [node.transport])["checks"] if row["check"] == "tip"]
        assert [(row["state"], "1 gwei" in row["finding"]) for row in rows] == [("warn", True)]


@pytest.mark.parametrize("suggested", [NO_METHOD, None, "a gwei", hex(GWEI // 10)], ids=["no method", "null", "text", "too low"])
def test_with_a_least_tip_in_the_config_nothing_is_refused(anvil_chain: LocalChain, tmp_path: Path, suggested: object) -> None:
    node = DemandingNode(anvil_chain.transport, GWEI, suggested=suggested)
    fund(anvil_chain, HELD)
    with agent_on(anvil_chain, tmp_path, {**ROOMY, "execution.min_tip": "1 gwei"}, TARGETS, [node.transport]) as agent:
        outcome = require_rebalance(agent)
        assert [intent.tx.tip_wei for intent in outcome.transactions] == [GWEI, GWEI]
        assert node.refused == []


@pytest.mark.parametrize("suggested", [NO_METHOD, None, [], "-0x1"], ids=["no method", "null", "a list", "negative"])
def test_without_a_suggested_tip_the_usual_one_is_paid(anvil_chain: LocalChain, tmp_path: Path, suggested: object) -> None:
    node = DemandingNode(anvil_chain.transport, 1, suggested=suggested)
    fund(anvil_chain, HELD)
    loaded = trusted_config(anvil_chain, tmp_path, ROOMY, TARGETS)
    with reopened_agent(anvil_chain, loaded, [node.transport]) as agent:
        outcome = require_rebalance(agent)
        assert {intent.tx.tip_wei for intent in outcome.transactions} == {typical_fees(anvil_chain.chain_id).priority_fee_wei}
    (row,) = [row for row in api_doctor(loaded, [node.transport])["checks"] if row["check"] == "tip of demanding"]
    assert (row["state"], "eth_maxPriorityFeePerGas" in row["finding"], "0.05 gwei" in row["finding"]) == ("warn", True, True)


@pytest.mark.parametrize(
    ("needed", "gas_price", "guard"),
    [(5 * GWEI, "off", ""), (5 * GWEI + 1, "off", "tip"), (3 * GWEI, "3 gwei", "gas_price"), (6 * GWEI, "3 gwei", "tip")],
    ids=["the most that is signed", "more than is signed", "above the ceiling", "above both"],
)
def test_no_demand_raises_the_tip_above_the_owners_bounds(
    anvil_chain: LocalChain, tmp_path: Path, needed: int, gas_price: str, guard: str
) -> None:
    node = DemandingNode(anvil_chain.transport, needed)
    fund(anvil_chain, HELD)
    with agent_on(anvil_chain, tmp_path, {**ROOMY, "limits.gas_price": gas_price}, TARGETS, [node.transport]) as agent:
        if not guard:
            require_rebalance(agent)
            return
        with raises_code(NotAccepted, guard, f"{needed} wei") as refused:
            agent.rebalance(send=True, confirm=yes)
        assert [verdict.guard for verdict in refused.value.verdicts if not verdict.passed] == [guard]
        assert all(not intent.succeeded for intent in agent.context.store.journal.intents())


@pytest.mark.slow
def test_a_small_portfolio_lives_with_a_node_without_tips(
    chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From init on: the purchase at a refused tip, the stop loss, and what doctor says."""
    fund(chain, {"USDC": 20_000})
    tips: list[int] = []
    with scene_on(chain, tmp_path, "0.05", capfd, monkeypatch) as scene, serving_demands(str(chain.url), GWEI, tips.append) as url:
        monkeypatch.setenv("RPC_A", url)
        scene.init({"WETH": "50%", "WBTC": "30%", "USDC": "20%"}, "--use-cash", "20000")
        scene.say("trust", "--yes")
        assert "does not answer eth_maxPriorityFeePerGas" in " ".join(scene.say("doctor").split())
        assert "done: first purchase" in scene.say("rebalance", "--send", "--yes")
        assert tips[0] == GWEI // 20, "the usual tip of the network"
        assert set(tips[1:]) == {GWEI}
        assert "a node refused less than 1 gwei" in " ".join(scene.say("doctor").split())
        scene.say("orders", "set", "--yes", "WETH", "--stop-loss", "15%")
        scene.say("rebalance", "--send", "--yes")
        chain.warp(HOUR_S)
        chain.move_market({"WETH": 2_400})
        scene.confirm_prices()
        assert "all of it is sold for USDC" in scene.say("rebalance", "--send", "--yes")
        assert scene.weights()["WETH"] == 0
        assert set(tips[1:]) == {GWEI}
        scene.require_rest()
