"""Tests of agent/layers/liquidity/policy/minimums.py: the least amounts that an action may be signed with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.errors import Refused
from agent.layers.liquidity.policy.minimums import minimum_amounts
from agent.model import Collect, LpAction, PriceSource, Provide, StepInput, Withdraw
from tests.support.builders import with_limits, without_feed
from tests.support.decisions.liquidity_plans import COLLECT, PROVIDE, WITHDRAW, passing_plan_starting_with
from tests.support.text import raises_code
from tests.support.tokens import WETH


def step_and_action(kind: str) -> tuple[StepInput, LpAction]:
    step, plan = passing_plan_starting_with(kind)
    return step, plan.layer_actions[0]


@pytest.mark.parametrize("kind", [PROVIDE, WITHDRAW])
def test_minimums_are_those_of_the_plan_in_the_band(kind: str) -> None:
    step, action = step_and_action(kind)
    assert isinstance(action, Provide | Withdraw)
    wide_step = with_limits(step, oracle_deviation_bps=500)

    assert minimum_amounts(step, action) == action.min_raw
    assert all(raw < usual_raw for raw, usual_raw in zip(minimum_amounts(wide_step, action), action.min_raw, strict=True))


def test_minimums_of_a_collection_are_zero() -> None:
    step, action = step_and_action(COLLECT)

    assert isinstance(action, Collect)
    assert minimum_amounts(step, action) == (0, 0)


def test_minimums_are_those_of_the_position_that_grows() -> None:
    """The contract does not read the range of the action."""
    step, action = step_and_action(PROVIDE)
    assert isinstance(action, Provide)
    shifted_action = replace(action, ticks=(action.ticks[0] - 6_000, action.ticks[1]))
    minted_action = replace(shifted_action, token_id=None)

    assert minimum_amounts(step, shifted_action) == minimum_amounts(step, action)
    assert minimum_amounts(step, minted_action) != minimum_amounts(step, action)


@pytest.mark.parametrize("kind", [PROVIDE, WITHDRAW])
def test_minimums_need_the_position_in_the_wallet(kind: str) -> None:
    step, action = step_and_action(kind)

    with pytest.raises(Refused, match="is not a position of the wallet"):
        minimum_amounts(step, replace(action, token_id=7))


@pytest.mark.parametrize("kind", [PROVIDE, WITHDRAW, COLLECT])
def test_minimums_need_a_price_of_each_token_and_a_band(kind: str) -> None:
    step, action = step_and_action(kind)
    feed_step = replace(step, reference=replace(step.reference, sources=(PriceSource.FEED,)))

    with raises_code(Refused, "reference_price", WETH.address):
        minimum_amounts(without_feed(feed_step, "WETH"), action)
    with pytest.raises(Refused, match="both off"):
        minimum_amounts(with_limits(step, oracle_deviation_bps=None, slippage_bps=None), action)
