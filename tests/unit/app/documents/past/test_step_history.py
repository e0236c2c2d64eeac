"""An explained step says what it did: what the policy decided, or what the owner asked for."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent import codec, wiring
from agent.app.documents.past.step_history import NO_OUTCOME_REASON, _against_expected, explain
from agent.config.load import load_config
from agent.execution import evaluation
from agent.figures import reader_text
from agent.model import AgentCycle, LimitOrder, ManualAction, Plan, Rebalance, StepRequest, Swap, SwapAtPrice
from agent.planning import requests
from agent.units import utc_text
from tests.support import agents
from tests.support.builders import NOW_S, raw, step_input
from tests.support.tokens import USDC, WETH

STEP = step_input({"WETH": 6_000, "USDC": 4_000}, {"WETH": 9_000, "USDC": 1_000})
SWAP = Swap(WETH.address, USDC.address, raw(1, WETH))
ORDER = LimitOrder("order", USDC.address, WETH.address, raw(100, USDC), Fraction(10**9), NOW_S + 3_600, NOW_S)
DECIDED = "It decided to rebalance: "


def plan_of(request: AgentCycle | Swap) -> Plan:
    plan = evaluation.evaluate_input(STEP, requests.proposer(request), None).plan
    assert plan is not None
    return plan


def explained(
    folder: Path, request: StepRequest | None, decision: str | None, outcome: str = "", plan: Plan | None = None, reason: str = "why"
) -> list[str]:
    """The sentences about this step, recorded in the store of a config."""
    config = agents.config(folder)
    with wiring.open_store_offline(load_config(config)) as (store, _):
        store.steps.begin("s", NOW_S, codec.dumps(STEP), None if request is None else codec.dumps(request))
        if decision is not None:
            store.steps.end("s", decision, reason, plan, outcome)
    return explain(config)["sentences"]


@pytest.mark.parametrize(
    ("request_", "decision", "outcome", "sentence"),
    [
        pytest.param(ManualAction("revoke"), "halt", "done", "By the owner: revoke.", id="revocation"),
        pytest.param(ManualAction("pause --hard"), "retreat", "done", "By the owner: pause --hard.", id="hard pause"),
        pytest.param(ManualAction("deploy"), "deploy", "error", "By the owner: deploy.", id="deployment that failed"),
        pytest.param(ManualAction("payout"), "payout", "done", "By the owner: a payment of a withdrawal or a stop.", id="payout"),
        pytest.param(SWAP, "rebalance", "refused", "By the owner: swap.", id="refused swap"),
        pytest.param(SwapAtPrice(ORDER), "hold", "hold", "By the owner: swap --price.", id="order that waits"),
        pytest.param(SWAP, None, "", "By the owner: swap.", id="interrupted swap"),
        pytest.param(None, "halt", "done", "By the owner.", id="revocation of an old record"),
    ],
)
def test_explained_step__by_the_owner_has_no_policy_decision(
    tmp_path: Path, request_: StepRequest | None, decision: str | None, outcome: str, sentence: str
) -> None:
    sentences = explained(tmp_path, request_, decision, outcome)
    assert sentence in sentences
    assert DECIDED not in " ".join(sentences)


@pytest.mark.parametrize("request_", [AgentCycle(), None], ids=["requested by the agent", "old record"])
def test_explained_step__names_an_automatic_trade_by_its_reason(tmp_path: Path, request_: StepRequest | None) -> None:
    plan = plan_of(AgentCycle())
    assert isinstance(plan.decision, Rebalance)
    reworded_plan = replace(plan, decision=replace(plan.decision, reason="in words of an earlier version"))
    assert f"{DECIDED}in words of an earlier version" in explained(tmp_path, request_, "rebalance", "planned", reworded_plan)


@pytest.mark.parametrize(
    ("request_", "first_sentence"),
    [(AgentCycle(), DECIDED), (SWAP, "Manual: ")],
    ids=["by the policy", "by the owner"],
)
def test_explained_step__begins_with_the_decision_and_ends_with_identifiers(
    tmp_path: Path, request_: StepRequest, first_sentence: str
) -> None:
    sentences = explained(tmp_path, request_, "rebalance", "planned", plan_of(request_))
    head = STEP.snapshot.head
    identifiers = ("Step s: ", head.hash, f"chain {head.chain_id}")
    assert sentences[0].startswith(first_sentence)
    assert sentences[1] == f"That was at {utc_text(NOW_S)} UTC, at block {head.number}."
    assert all(part in sentences[-1] for part in identifiers)
    assert not any(part in sentence for sentence in sentences[:-1] for part in identifiers)


@pytest.mark.parametrize("request_", [SWAP, AgentCycle((ORDER,)), None], ids=["swap", "fill of an order", "old record"])
def test_explained_step__manual_trade_is_named_so(tmp_path: Path, request_: StepRequest | None) -> None:
    plan = plan_of(SWAP)
    sentences = explained(tmp_path, request_, "rebalance", "planned", plan)
    assert f"Manual: {plan.decision.reason}." in sentences
    assert DECIDED not in " ".join(sentences)


def test_explained_minimum__has_its_coin_so_that_it_is_written_as_other_amounts(tmp_path: Path) -> None:
    sentences = explained(tmp_path, AgentCycle(), "rebalance", "planned", plan_of(AgentCycle()))
    minimums = [reader_text(sentence) for sentence in sentences if "at least" in sentence]
    assert minimums
    assert all(re.search("at least [0-9,.]{1,12} [A-Z]+, in ", minimum) for minimum in minimums), minimums


def test_explained_step__without_an_outcome_says_why(tmp_path: Path) -> None:
    sentences = explained(tmp_path, AgentCycle(), None)
    assert sentences[-2] == f"Outcome: unfinished: {NO_OUTCOME_REASON}"
    assert any(sentence.startswith(DECIDED) for sentence in sentences)


@pytest.mark.parametrize(
    ("total", "sentence_end"),
    [
        pytest.param("0.2400003", ", as expected", id="shown-alike"),
        pytest.param("0.25", ": +0.01 USDC against the 0.24 that were expected", id="more"),
        pytest.param("0.22", ": -0.02 USDC against the 0.24 that were expected", id="less"),
    ],
)
def test_booked_cost__is_compared_with_the_expected_one_as_shown(total: str, sentence_end: str) -> None:
    assert _against_expected(Fraction(total), Fraction("0.24"), USDC) == sentence_end
