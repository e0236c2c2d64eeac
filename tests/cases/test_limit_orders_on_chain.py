"""Open limit orders on a real chain: filled once the pools pay it, through a restart; expired, and cancelled by name."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent.app.agent import Agent
from agent.errors import ConfigError, OperatorNeeded
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.gradual.store import GradualExecutionStore
from agent.localchain import LocalChain
from agent.model import IntentKind, LimitOrder
from tests.support.agents import ROOMY, agent_on, allowances, at_send, fund, purse, reopened_agent, require_rebalance, trusted_config, yes
from tests.support.gradual_execution import LARGE, OFF, TARGETS
from tests.support.on_chain.limit_orders import place
from tests.support.text import mentions, raises_code, raises_field

HELD = {"WETH": 5_000, "USDC": 5_000}
LIMIT = LARGE | {"execution.style": "limit", "execution.limit": "-1%", "execution.patience": "4h"}


def looks(agent: Agent, count: int) -> list[StepOutcome]:
    outcomes: list[StepOutcome] = []
    for outcome in agent.run(send=True, confirm=yes, every="30s"):
        assert isinstance(outcome, StepOutcome), outcome
        outcomes.append(outcome)
        if len(outcomes) == count:
            return outcomes
    return outcomes


def order_of(agent: Agent) -> LimitOrder:
    (order,) = agent.context.store.executions.limit_orders()
    return order


def test_order__survives_a_restart_and_is_filled_at_its_price(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    loaded = trusted_config(chain, tmp_path, ROOMY, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        before = purse(chain)
        order, outcome = place(agent, "3100")
        assert (order.state, outcome.kind) == ("open", OutcomeKind.HOLD)
        assert "price is 29" in outcome.reason
    with reopened_agent(chain, loaded) as agent:
        assert [outcome.kind for outcome in looks(agent, 2)] == [OutcomeKind.HOLD, OutcomeKind.HOLD]
        assert purse(chain).raw == before.raw
        chain.move_market({"WETH": Fraction(3_130)})
        assert order_of(agent).state == "open"
        filled = looks(agent, 1)[0]
        assert filled.kind is OutcomeKind.DONE, filled.reason
        assert order_of(agent).state == "filled"
        after = purse(chain)
        later = looks(agent, 1)[0]
        done = [intent for intent in agent.context.store.journal.intents() if intent.kind is IntentKind.SWAP and intent.succeeded]
    assert before.raw["WETH"] - after.raw["WETH"] == 5 * 10**16
    assert after.raw["USDC"] - before.raw["USDC"] >= 155 * 10**6, "3,100 for each, fee and impact included"
    assert len(done) == 1
    assert later.kind is not OutcomeKind.DONE
    listed = api.orders_and_executions(loaded.path)["orders"]
    assert [row["state"] for row in listed] == ["filled"]
    assert mentions(listed[0]["note"], "sell 0.05 WETH", "3100 USDC")


def test_order_at_its_price__is_filled_at_once_or_expires(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    moved: list[str] = []

    def rises(text: str) -> None:
        if "its price is" in text and not moved:
            moved.append(text)
            chain.move_market({"WETH": Fraction(3_130)})

    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        before = purse(chain)
        preview, looked = place(agent, "2990", send=False)
        assert (preview.id, looked.kind) == ("", OutcomeKind.PLANNED)
        assert agent.context.store.executions.limit_orders() == ()
        order, outcome = place(agent, "2990")
        assert (order.state, outcome.kind) == ("filled", OutcomeKind.DONE)
        assert purse(chain).raw["USDC"] - before.raw["USDC"] >= Fraction(14_950, 100) * 10**6
        order, outcome = place(agent, "3100", wait=True, progress=rises)
        assert (order.state, outcome.kind) == ("filled", OutcomeKind.DONE)
        before = purse(chain)
        placed, _ = place(agent, "4000", until="2m")
        late, waited_outcome = place(agent, "4000", until="2m", wait=True)
        assert f"order {placed.id} was placed before, until 20" in waited_outcome.reason
        assert (late.state, waited_outcome.kind) == ("expired", OutcomeKind.HOLD)
        assert purse(chain).raw == before.raw


def test_pause__fills_no_order_and_no_old_one_late(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        place(agent, "3100", until="2h")
        agent.context.kill_switch.pause("looking away", chain.now_s())
        chain.move_market({"WETH": Fraction(3_130)})
        before = purse(chain)
        refused = looks(agent, 1)[0]
        assert refused.kind is OutcomeKind.REFUSED
        assert refused.decision_result.filled_order_id != ""
        chain.warp(7_200)
        agent.context.kill_switch.resume("back", chain.now_s())
        assert looks(agent, 1)[0].transactions == ()
        assert order_of(agent).state == "expired"
        assert purse(chain) == before


def test_an_order_is_cancelled_by_name_and_only_once(anvil_chain: LocalChain, tmp_path: Path) -> None:
    fund(anvil_chain, HELD)
    loaded = trusted_config(anvil_chain, tmp_path, ROOMY, TARGETS)
    with reopened_agent(anvil_chain, loaded) as agent:
        order, _ = place(agent, "4000")
    assert api.cancel_order_or_execution(loaded.path, order.id) == {"cancelled": order.id}
    with raises_field("--cancel", "neither an open limit order nor"):
        api.cancel_order_or_execution(loaded.path, order.id)
    with reopened_agent(anvil_chain, loaded) as agent:
        assert order_of(agent).state == "cancelled"
        anvil_chain.move_market({"WETH": Fraction(4_100)}, twap_follows=False)
        assert all(outcome.transactions == () or outcome.decision_result.filled_order_id == "" for outcome in looks(agent, 1))


def test_a_price_or_a_time_that_is_none_is_named(anvil_chain: LocalChain, tmp_path: Path) -> None:
    bad = [
        ("0", "4h", "--price"),
        ("-1", "4h", "--price"),
        ("3000", "yesterday", "--until"),
        ("3000", "2020-01-01T00:00Z", "is not after the newest block, of 20"),
        ("3000", "0s", "is not after the newest block"),
        ("3000", "90s", r"within execution.deadline \(1 min 30 s\) of the newest block"),
        ("3000", "2027-01-31T18:00", "time zone"),
        ("3000", "91d", "90 days"),
    ]
    with agent_on(anvil_chain, tmp_path, ROOMY, TARGETS) as agent:
        for price, until, named in bad:
            with pytest.raises(ConfigError, match=named):
                place(agent, price, until, send=False)


def test_rebalance_for_a_better_price__waits_and_is_done(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, OFF)
    with agent_on(chain, tmp_path, LIMIT, TARGETS) as agent:
        waits = require_rebalance(agent, OutcomeKind.HOLD)
        assert "its price" in waits.reason
        (campaign,) = agent.context.store.layer_repository(GradualExecutionStore).newest_executions()
        assert campaign.state == "open"
        with raises_code(OperatorNeeded, "execution_open"):
            agent.context.store.layer_repository(GradualExecutionStore).begin(campaign.progress.execution)
        assert "its price" in agent.rebalance(send=True, confirm=yes).reason
        chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * Fraction(103, 100)}, twap_follows=False)
        before = purse(chain)
        require_rebalance(agent)
        after = purse(chain)
        ended = agent.rebalance(send=True, confirm=yes)
        (campaign,) = agent.context.store.layer_repository(GradualExecutionStore).newest_executions()
    assert mentions(campaign.why, "done at")
    assert ended.kind is OutcomeKind.HOLD
    sold = before.raw["WETH"] - after.raw["WETH"]
    assert (after.raw["USDC"] - before.raw["USDC"]) * 10**18 >= sold * 3_000 * 10**6 * Fraction(101, 100)


def test_price_gone_during_an_approval__lets_nothing_else_pass(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 6_500, "USDC": 3_500})
    requests: list[str] = []

    def only_the_order(outcome: StepOutcome) -> bool:
        requests.append(outcome.decision_result.filled_order_id)
        return outcome.decision_result.filled_order_id != ""

    with reopened_agent(chain, trusted_config(chain, tmp_path, ROOMY, TARGETS)) as agent:
        order = agent.context.store.executions.add_limit_order(
            LimitOrder(
                "",
                chain.tokens["WETH"].address,
                chain.tokens["USDC"].address,
                5 * 10**16,
                Fraction(2_950 * 10**6, 10**18),
                agent.step_input().snapshot.head.timestamp_s + 14_400,
                0,
            )
        )
        fallen = at_send(1, lambda: chain.move_market({"WETH": Fraction(2_930)}))
        (outcome,) = agent.run(send=True, confirm=only_the_order, once=True, progress=fallen)
        swapped = [intent for intent in agent.context.store.journal.intents() if intent.kind is IntentKind.SWAP]
        assert requests[0] == order.id, outcome
        assert swapped == [], outcome
        assert set(allowances(chain).values()) == {0}
