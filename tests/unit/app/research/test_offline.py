"""Deciding from a file: what no chain could have said is refused before anything is reckoned with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.app.research.offline import input_text, plan_saved_input
from agent.errors import ConfigError
from agent.execution.step_context import OutcomeKind
from agent.model import StepInput
from tests.support import builders


def token(step: StepInput, decimals: int) -> StepInput:
    first, *others = step.portfolio.assets
    changed = replace(first, token=replace(first.token, decimals=decimals))
    return replace(step, portfolio=replace(step.portfolio, assets=(changed, *others)))


def feed(step: StepInput, decimals: int) -> StepInput:
    first, *others = step.snapshot.feeds
    return builders.with_snapshot(step, feeds=(replace(first, decimals=decimals), *others))


@pytest.mark.parametrize("place", [token, feed])
@pytest.mark.parametrize("decimals", [-1, 256, 10**40])
def test_decimals_that_no_contract_answers_are_refused_at_once(place: object, decimals: int) -> None:
    """Ten to the power of them would be reckoned until the end of time."""
    assert plan_saved_input(input_text(builders.step_input())).kind is OutcomeKind.HOLD
    with pytest.raises(ConfigError, match="decimals"):
        plan_saved_input(input_text(place(builders.step_input(), decimals)))  # type: ignore[operator]  # one of the two above
