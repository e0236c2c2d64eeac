"""The one order in which targets are changed, and that a change is told."""

from __future__ import annotations

from agent.layers.inputs import apply_effective_targets
from agent.policy.target_changes import with_targets
from tests.support.builders import step_input


def test_targets_are_those_of_the_owner_without_changes() -> None:
    step = step_input()
    assert apply_effective_targets(step) == step


def test_other_targets_are_told_with_their_reason() -> None:
    step = step_input()
    first, *rest = (asset.token.address for asset in step.portfolio.assets)
    other = with_targets(step, {first: 10_000} | dict.fromkeys(rest, 0), "all of it in one, for a reason")
    assert [asset.target_bps for asset in other.effective_assets] == [10_000, *([0] * len(rest))]
    assert other.targets.reasons == ("all of it in one, for a reason",)
    assert other.snapshot is step.snapshot
