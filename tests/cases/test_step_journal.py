"""What the store remembers of a step, whichever way it ended, and that the remembered input decides and plans the same again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent import codec
from agent.app.agent import Agent
from agent.app.documents.past import step_history
from agent.config.loaded import LoadedConfig
from agent.errors import Retryable
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.figures import format_figure
from agent.localchain import LocalChain
from agent.model import Collect, IntentKind, IntentState, Plan, StepInput
from agent.planning import planner, proposals
from agent.policy.decide import decide
from agent.units import value_text
from tests.support.agents import ROOMY, allow, at_send, fund, reopened_agent, require_rebalance, swap_of, trusted_config, yes
from tests.support.fakes.transport import RecordingTransport
from tests.support.movements import movements

TARGETS = {"WETH": "50%", "USDC": "50%"}
DRIFTED = {"WETH": 60_000, "USDC": 30_000}
ON_TARGET = {"WETH": 45_000, "USDC": 45_000}


def hold(chain: LocalChain, agent: Agent) -> StepOutcome:
    fund(chain, ON_TARGET)
    return agent.rebalance(send=True, confirm=yes)


def halt(chain: LocalChain, agent: Agent) -> StepOutcome:
    fund(chain, {})
    return agent.rebalance(send=True, confirm=yes)


def planned(_: LocalChain, agent: Agent) -> StepOutcome:
    return agent.rebalance()


def refused(_: LocalChain, agent: Agent) -> StepOutcome:
    agent.context.kill_switch.pause("test", 1)
    return agent.rebalance(send=True, confirm=yes)


def declined(_: LocalChain, agent: Agent) -> StepOutcome:
    return agent.rebalance(send=True, confirm=lambda _: False)


def done(_: LocalChain, agent: Agent) -> StepOutcome:
    return agent.rebalance(send=True, confirm=yes)


def failed(chain: LocalChain, agent: Agent) -> StepOutcome:
    price = chain.deployed_world.prices_usd["WETH"] * Fraction(9, 10)
    return agent.rebalance(send=True, confirm=yes, progress=at_send(1, lambda: chain.move_market({"WETH": price})))


WAYS: dict[OutcomeKind, Callable[[LocalChain, Agent], StepOutcome]] = {
    OutcomeKind.HOLD: hold,
    OutcomeKind.HALT: halt,
    OutcomeKind.PLANNED: planned,
    OutcomeKind.REFUSED: refused,
    OutcomeKind.DECLINED: declined,
    OutcomeKind.DONE: done,
    OutcomeKind.FAILED: failed,
}


def remembered(loaded: LoadedConfig, chain: LocalChain, step_id: str) -> tuple[StepInput, Plan | None, str | None]:
    """Input, plan and outcome of a step as the store has them."""
    with reopened_agent(chain, loaded) as agent:
        record = agent.context.store.steps.get(step_id)
    assert record is not None
    plan = None if record.plan_json is None else codec.loads(Plan, record.plan_json)
    return codec.loads(StepInput, record.input_json), plan, record.summary.outcome


@pytest.mark.parametrize("kind", OutcomeKind, ids=lambda kind: kind.value)
def test_every_way_out_of_a_step_is_written_down_and_can_be_told(chain: LocalChain, tmp_path: Path, kind: OutcomeKind) -> None:
    fund(chain, DRIFTED)
    allow(chain, "WETH")
    loaded = trusted_config(chain, tmp_path, ROOMY, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        outcome = WAYS[kind](chain, agent)
        assert outcome.kind is kind, outcome.reason
    step_input, plan, ended = remembered(loaded, chain, outcome.step_id)
    assert step_input == outcome.step_input
    assert plan == outcome.plan
    assert ended == kind.value
    line = next(step for step in step_history.history(loaded.path)["steps"] if step["step"] == outcome.step_id)
    assert (line["outcome"], line["decision"]) == (kind.value, type(outcome.decision).__name__.lower())
    assert [t["hash"] for t in line["transactions"]] == [i.tx_hash for i in outcome.transactions if i.step_id == outcome.step_id]
    explanation = step_history.explain(loaded.path, outcome.step_id)
    assert explanation["outcome"] == kind.value
    assert outcome.reason in explanation["sentences"][-2]
    assert all(
        str(intent.tx_hash) in "".join(explanation["sentences"]) for intent in outcome.transactions if intent.step_id == outcome.step_id
    )


@pytest.mark.parametrize("is_approved", [False, True], ids=["approval first", "approved before"])
def test_explained_step__has_its_booked_cost_against_the_whole_plan(chain: LocalChain, tmp_path: Path, is_approved: bool) -> None:
    fund(chain, DRIFTED)
    if is_approved:
        allow(chain, "WETH")
    loaded = trusted_config(chain, tmp_path, ROOMY, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        outcome = require_rebalance(agent)
        chain.mine(5)
        agent.rebalance(send=True, confirm=yes)  # books what is final
        first_step = agent.context.store.steps.newest(10)[-1]
    history = step_history.history(loaded.path)["steps"]
    costs = [Fraction(step["cost"]["total"]) for step in history if step["cost"]]
    assert len(costs) == 2 - is_approved
    _, first_plan, _ = remembered(loaded, chain, first_step.id)
    assert first_plan is not None
    planned = first_plan.cost.total / 10**6
    [sentence] = [text for text in step_history.explain(loaded.path, outcome.step_id)["sentences"] if "as booked" in text]
    difference = format_figure(value_text(sum(costs) - planned, 0, 18), "cost+", "-")
    assert f"{difference} USDC against the {float(planned):,.2f} that were expected." in sentence
    assert ("for its approvals" in sentence) is not is_approved


@pytest.mark.parametrize("part", ["approval", "reverted swap", "first of two actions"])
def test_step_that_did_a_part_of_its_plan__has_its_own_cost_alone(chain: LocalChain, tmp_path: Path, part: str) -> None:
    fund(chain, DRIFTED)
    if part != "approval":
        allow(chain, "WETH")
    loaded = trusted_config(chain, tmp_path, ROOMY, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        outcome = failed(chain, agent) if part == "reverted swap" else require_rebalance(agent)
        chain.mine(5)
        agent.rebalance(send=True, confirm=yes)  # books what is final
        steps = agent.context.store.steps
        [step_id] = {step.id for step in steps.newest(10) if step.outcome == "planned"} if part == "approval" else {outcome.step_id}
        if part == "first of two actions":
            assert outcome.plan is not None
            leg = outcome.plan.legs[0]
            collect = Collect("uniswap_v3", "0xManager", 7, leg.pool, leg.token_in, leg.token_out, (1_000, 2_000), 90_000, "fees")
            two_actions = replace(outcome.plan, layer_actions=(collect, collect))
            steps.end(step_id, "adjustliquidity", "", two_actions, "done")
    [cost] = [step["cost"] for step in step_history.history(loaded.path)["steps"] if step["step"] == step_id]
    assert cost is not None
    sentences = step_history.explain(loaded.path, step_id)["sentences"]
    assert [text for text in sentences if "as booked" in text] == [f"It cost {format_figure(cost['total'], 'cost')} USDC as booked."]


def test_the_remembered_input_decides_and_plans_the_same(chain: LocalChain, tmp_path: Path) -> None:
    """The same verdicts too, from the evidence of the moment; and an input saved before an approval differs from the one after it."""
    fund(chain, DRIFTED)
    loaded = trusted_config(chain, tmp_path, ROOMY, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        sent, _, _ = swap_of(outcome)
        steps = agent.context.store.steps.newest(10)
    assert len(steps) == 2
    assert {step.outcome for step in steps} == {"planned", "done"}
    plans = []
    for step in steps:
        step_input, plan, _ = remembered(loaded, chain, step.id)
        assert plan is not None
        decided = decide(step_input)
        assert decided.decision == plan.decision
        again_planned = planner.plan(step_input, plan.decision)
        assert replace(again_planned, verdicts=plan.verdicts) == plan
        judged = evaluation.evaluate_input(step_input, proposals.propose_rebalance, None)
        assert judged.plan == again_planned
        plans.append(plan)
    assert plans[0] == sent
    assert plans[1].block < plans[0].block


def test_every_move_of_a_transaction_is_on_record_in_order(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, DRIFTED)
    loaded = trusted_config(chain, tmp_path, ROOMY, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        for intent in outcome.transactions:
            moves = [move.new_state for move in agent.context.store.journal.transitions(intent.id)]
            assert moves == [
                IntentState.PLANNED, IntentState.SIGNED, IntentState.BROADCAST, IntentState.MINED, IntentState.FINAL,
            ]  # fmt: skip
        assert agent.context.store.journal.unbooked_intents() == ()
        deltas: dict[str, int] = {}
        for movement in movements(agent.context.store):
            deltas[movement.token] = deltas.get(movement.token, 0) + movement.delta_raw
        _, _, receipt = swap_of(outcome)
        assert all(deltas[token] == raw for token, raw in receipt.net_transfers(chain.wallet.address).items() if raw)


def test_endpoint_gone_in_mid_step__is_followed_later(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, DRIFTED)
    allow(chain, "WETH")
    loaded = trusted_config(chain, tmp_path, ROOMY, TARGETS)
    gone = False

    def unplug(_: int) -> None:
        if gone:
            raise Retryable("the endpoint is away")

    def progress(event: str) -> None:
        nonlocal gone
        gone = gone or event == "after:send"

    with reopened_agent(chain, loaded, [RecordingTransport(chain.transport, "local", before=unplug)]) as agent:
        with pytest.raises(Retryable, match="the endpoint is away"):
            agent.rebalance(send=True, confirm=yes, progress=progress)
        (swap,) = agent.context.store.journal.intents()
        assert swap.state is IntentState.BROADCAST
    assert {step["outcome"] for step in step_history.history(loaded.path)["steps"]} == {"error"}
    with reopened_agent(chain, loaded) as agent:
        next_outcome = require_rebalance(agent, OutcomeKind.HOLD)
        swaps = [intent for intent in agent.context.store.journal.intents() if intent.kind is IntentKind.SWAP]
        assert [intent.state for intent in swaps] == [IntentState.FINAL]
        assert next_outcome.step_input.history.budgets.turnover_24h > 0
