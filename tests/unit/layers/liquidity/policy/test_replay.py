"""Tests of agent/layers/liquidity/policy/replay.py: actions that fail on the snapshot's positions and pools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.liquidity.policy.replay import replay_actions
from agent.model import LpAction, Provide, StepInput, Withdraw
from tests.support.builders import with_snapshot
from tests.support.decisions.liquidity_plans import COLLECT, PROVIDE, WITHDRAW, passing_plan_starting_with
from tests.support.lp_worlds import book, lp_target, planned, world
from tests.support.text import mentions


def fault_of(step: StepInput, action: LpAction) -> str:
    """Return why the replay of one action fails; empty if it does not."""
    return replay_actions(book(step), (action,)).fault or ""


def without_targets(step: StepInput) -> StepInput:
    return replace(step, portfolio=replace(step.portfolio, lp_targets=()))


def without_pool(step: StepInput) -> StepInput:
    return with_snapshot(step, pools=step.snapshot.pools[:-1])


@pytest.mark.parametrize("kind", [PROVIDE, WITHDRAW, COLLECT])
@pytest.mark.parametrize("price", [None, 0], ids=["unknown", "zero"])
def test_action_needs_prices_of_both_tokens(kind: str, price: int | None) -> None:
    step, plan = passing_plan_starting_with(kind)
    action = plan.layer_actions[0]
    position_book = book(step)

    for token in (action.token0, action.token1):
        other_prices = {other: known_price for other, known_price in position_book.prices.items() if other != token}
        prices = other_prices if price is None else other_prices | {token: Fraction(price)}
        fault = replay_actions(replace(position_book, prices=prices), (action,)).fault
        assert mentions(fault, "action 1", "reference price", token)


def withdrawal_of(liquidity_share: Fraction, excess: int = 0) -> tuple[StepInput, Withdraw]:
    """Return a step and the withdrawal of this share of a position's liquidity, and so many units more."""
    step, plan = passing_plan_starting_with(WITHDRAW)
    action = plan.layer_actions[0]
    assert isinstance(action, Withdraw)
    return step, replace(action, liquidity=int(action.position_liquidity * liquidity_share) + excess)


@pytest.mark.parametrize(
    ("share", "excess", "fault"),
    [
        pytest.param(Fraction(0), 1, "", id="one unit"),
        pytest.param(Fraction(1), 0, "", id="all"),
        pytest.param(Fraction(0), 0, "of liquidity, not 0", id="none"),
        pytest.param(Fraction(1), 1, "of liquidity, not", id="one unit more"),
    ],
)
def test_withdrawal_takes_from_one_unit_to_all(share: Fraction, excess: int, fault: str) -> None:
    actual_fault = fault_of(*withdrawal_of(share, excess))

    assert (actual_fault == "") is (fault == "")
    assert fault in actual_fault


@pytest.mark.parametrize(
    "ticks",
    [
        pytest.param((198_479, 202_140), id="lower tick off the spacing"),
        pytest.param((198_480, 202_141), id="upper tick off the spacing"),
        pytest.param((202_140, 198_480), id="reversed"),
        pytest.param((198_480, 198_480), id="of no width"),
        pytest.param((198_480, 887_280), id="above all prices"),
        pytest.param((-887_280, 202_140), id="below all prices"),
    ],
)
def test_mint_needs_a_valid_range(ticks: tuple[int, int]) -> None:
    step = world(targets=[lp_target(2_000)])

    assert "is not a valid range of" in fault_of(step, replace(planned(step).layer_actions[0], ticks=ticks))  # type: ignore[call-arg]  # a Provide


GROWN: Provide = passing_plan_starting_with(PROVIDE)[1].layer_actions[0]  # type: ignore[assignment]  # it provides
SAME: Callable[[StepInput], StepInput] = lambda step: step  # noqa: E731


@pytest.mark.parametrize(
    ("change", "action_fields", "fault"),
    [
        pytest.param(without_targets, {}, "no liquidity target of this kind", id="no target"),
        pytest.param(SAME, {"fee_pips": 500}, "no liquidity target of this kind", id="a target of another fee"),
        pytest.param(SAME, {"contract": "0xother"}, "no liquidity target of this kind", id="another manager"),
        pytest.param(without_pool, {}, "is not in the snapshot", id="pool not read"),
        pytest.param(SAME, {"ticks": None}, "a V3 pool needs a range", id="no range"),
        pytest.param(SAME, {"ticks": (GROWN.ticks[0] - 60, GROWN.ticks[1])}, "does not have the range", id="another range"),  # type: ignore[index]
        pytest.param(SAME, {"token_id": 7}, "is not a confirmed position", id="another position"),
        pytest.param(SAME, {"desired_raw": (0, 0)}, "it provides no liquidity", id="nothing"),
    ],
)
def test_provision_needs_its_target_pool_and_position(
    change: Callable[[StepInput], StepInput], action_fields: dict[str, object], fault: str
) -> None:
    step, _ = passing_plan_starting_with(PROVIDE)

    assert fault_of(step, GROWN) == ""
    assert fault in fault_of(change(step), replace(GROWN, **action_fields))  # type: ignore[arg-type]  # keywords are field names


def test_replay_keeps_the_actions_before_the_fault() -> None:
    step, plan = passing_plan_starting_with(COLLECT)
    first, second = plan.layer_actions

    replay = replay_actions(book(step), (first, replace(second, pool="0xother")))

    assert [simulation.action for simulation in replay.simulations] == [first]
    assert mentions(replay.fault, "action 2", "0xother")
