"""Documents of plans: their weights before; of liquidity actions, amounts by symbol, None where a kind of action has none."""

from __future__ import annotations

import pytest

from agent.app.documents.plans import action_document, plan_document
from agent.execution import evaluation
from agent.planning import proposals
from agent.policy.decide import current_drifts
from tests.support.builders import step_input
from tests.support.decisions.liquidity_plans import COLLECT, PROVIDE, WITHDRAW, passing_plan_starting_with
from tests.support.fakes.evidence import FakeEvidenceSource

ABSENT = {
    PROVIDE: {"fees_raw"},
    WITHDRAW: {"ticks", "desired_raw"},
    COLLECT: {"liquidity", "ticks", "amounts_raw", "desired_raw", "min_raw"},
}


@pytest.mark.parametrize("kind", ABSENT)
def test_action__has_what_its_kind_has_and_none_else(kind: str) -> None:
    step, plan = passing_plan_starting_with(kind)
    action = plan.layer_actions[0]
    document = action_document(action, step.portfolio)
    assert document["kind"] == kind
    assert {key for key, value in document.items() if value is None} - {"token_id"} == ABSENT[kind]
    for key in ("amounts_raw", "desired_raw", "min_raw", "fees_raw"):
        amounts_by_symbol = document.get(key)
        if amounts_by_symbol is not None:
            amounts_raw = tuple(int(raw) for raw in amounts_by_symbol.values())
            assert (list(amounts_by_symbol), amounts_raw) == (document["tokens"], getattr(action, key))


@pytest.mark.parametrize("weth_value", [3_000, 5_000, 8_000])
def test_plan__has_the_weights_at_its_block(weth_value: int) -> None:
    step = step_input(values={"WETH": weth_value, "USDC": 5_000})
    outcome = evaluation.evaluate_input(step, proposals.propose_rebalance, FakeEvidenceSource())
    document = plan_document(outcome)
    labels = {asset.token.address: asset.token.label for asset in step.portfolio.assets}
    assert document["weights_before_bps"] == {labels[drift.token]: drift.weight_bps for drift in current_drifts(step)}
    assert (document["weights_before_bps"] == document["weights_after_bps"]) is (not document["legs"])
