"""Tests of agent/layers/gradual/documents.py: sentences on a past step, and the comparison of slices in a plan's document."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.gradual.documents import plan_keys, sentences
from agent.layers.gradual.state import ExecutionProgress, GradualState
from agent.model import Plan, SlicingComparison, SlicingCost
from tests.support.builders import step_input
from tests.support.constants import USD
from tests.support.gradual_execution import STORED_EXECUTION
from tests.support.plans import sell_weth
from tests.support.text import mentions

PROGRESS = ExecutionProgress("e", STORED_EXECUTION, 2, Fraction(900 * USD), Fraction(4 * USD), 0, STORED_EXECUTION.first_draw)
COMPARISON = SlicingComparison((SlicingCost(2, *(Fraction(cost * USD) for cost in (1_000, 1, 2, 4, 8, 16, 32))),), 2, "cheaper")


def plan_with(comparison: SlicingComparison | None) -> Plan:
    return replace(sell_weth(step_input()), slicing_comparison=comparison)


@pytest.mark.parametrize(
    ("max_loss", "budget_text"),
    [
        pytest.param(Fraction(30 * USD), "4 USDC lost of a budget of 30 USDC", id="a budget"),
        pytest.param(None, "without a budget", id="none"),
    ],
)
def test_sentence_has_the_progress_of_an_execution(max_loss: Fraction | None, budget_text: str) -> None:
    progress = replace(PROGRESS, execution=replace(STORED_EXECUTION, max_loss=max_loss))

    [sentence] = sentences(step_input().with_layer(GradualState(progress=progress)), None)

    assert mentions(sentence, "2 of about 3 slices done", "900 USDC of 3000 USDC moved", budget_text)


def test_sentences_have_the_cost_of_each_number_of_slices() -> None:
    heading, option = sentences(step_input(), plan_with(COMPARISON))

    assert heading == "Slices compared with one trade: cheaper."
    assert mentions(option, "2: 63 USDC in total", "fees 1 USDC", "impact 6 USDC", "gas 8 USDC", "waiting 16 USDC", "not executed 32 USDC")


def test_sentences_are_none_without_an_execution_or_a_comparison() -> None:
    assert sentences(step_input(), plan_with(None)) == []
    assert sentences(step_input(), None) == []


def test_document_of_a_plan_has_its_comparison() -> None:
    portfolio = step_input().portfolio
    document = plan_keys(plan_with(COMPARISON), portfolio)["pacing"]

    assert (document["chosen"], document["why"], [option["rounds"] for option in document["options"]]) == (2, "cheaper", [2])
    assert plan_keys(plan_with(None), portfolio) == {"pacing": None}
