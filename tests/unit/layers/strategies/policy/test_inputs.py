"""Tests of agent/layers/strategies/policy/inputs.py: weights that an allocator chooses for a strategy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.execution.step_memory import part_history_spans
from agent.layers.strategies.policy.inputs import choose_weights
from agent.layers.strategies.state import CapitalSplit, StrategiesState, Strategy
from agent.model import Allocation, AllocationMethod, AllocatorConfig, Halt, HaltCode, StepInput
from agent.policy.decide import decide
from agent.policy.target_changes import apply_allocation
from tests.support.builders import NOW_S, books_of, brought_up, split, step_input, strategy
from tests.support.constants import DAY_S
from tests.support.planning_worlds import PLAIN, allocator, bps_of, moves, recorded, weighed
from tests.support.text import mentions

VOLATILITY = allocator(AllocationMethod.INVERSE_VOLATILITY)
FIXED = strategy("fixed", 5_000, PLAIN)
PRICES = recorded(moves())
PRICED_STEP = replace(step_input(targets_bps=PLAIN), history=replace(step_input().history, prices=PRICES))


def chosen_by(weights: AllocatorConfig) -> Strategy:
    return replace(strategy("parity", 5_000, PLAIN), allocator=weights)


def shared_by(step: StepInput, *strategies: Strategy) -> StepInput:
    return brought_up(step.with_config(split(*strategies)))


SHARED_STEP = shared_by(PRICED_STEP, chosen_by(VOLATILITY), FIXED)


def test_strategy_chooses_the_weights_that_a_portfolio_would() -> None:
    portfolio_bps = bps_of(apply_allocation(weighed(VOLATILITY, PRICES)))
    symbol_by_address = {asset.token.address: asset.token.symbol for asset in SHARED_STEP.portfolio.assets}
    parity = SHARED_STEP.config(CapitalSplit).strategies[0]

    assert SHARED_STEP.divides_wallet
    assert {symbol_by_address[token]: bps for token, bps in parity.weights_bps} == portfolio_bps != PLAIN
    assert [name for name, _ in books_of(SHARED_STEP).allocation_by_strategy] == ["parity"]
    assert abs(bps_of(SHARED_STEP)["WETH"] - (portfolio_bps["WETH"] + PLAIN["WETH"]) / 2) <= 1


def with_largest_change(allocation: Allocation, change_bps: int) -> Allocation:
    """Return the allocation of a week before that differs by this much in two weights."""
    weights_bps = dict(allocation.weights_bps)
    weights_bps[max(weights_bps, key=lambda token: weights_bps[token])] -= change_bps
    weights_bps[min(weights_bps, key=lambda token: weights_bps[token])] += change_bps
    return replace(allocation, at_s=allocation.at_s - 8 * DAY_S, weights_bps=tuple(weights_bps.items()))


@pytest.mark.parametrize(("change_bps", "waits"), [(500, False), (501, True)], ids=["at max_change", "a bp more"])
def test_strategy_keeps_its_weights_while_a_jump_waits(change_bps: int, waits: bool) -> None:
    strategies = (chosen_by(replace(VOLATILITY, max_change_bps=500)), FIXED)
    books = books_of(shared_by(PRICED_STEP, *strategies))
    allocation = with_largest_change(dict(books.allocation_by_strategy)["parity"], change_bps)
    state = StrategiesState(replace(books, allocation_by_strategy=(("parity", allocation),)))

    step = choose_weights(PRICED_STEP.with_config(split(*strategies)).with_layer(state))

    assert (dict(books_of(step).allocation_by_strategy)["parity"] == allocation) is waits
    assert (
        any(mentions(reason, "strategy parity", "max_change of 5 %", "trimtab weights --accept") for reason in step.targets.reasons)
        is waits
    )


def test_strategy_without_weights_halts_by_name() -> None:
    decision = decide(shared_by(step_input(targets_bps=PLAIN), chosen_by(VOLATILITY), FIXED)).decision

    assert isinstance(decision, Halt)
    assert decision.codes == (HaltCode.STRATEGIES,)
    assert mentions(decision.reason, "parity", "inverse_volatility")


def test_strategy_whose_weights_are_too_old_names_its_own_key() -> None:
    books = books_of(SHARED_STEP)
    allocation = dict(books.allocation_by_strategy)["parity"]
    expired = replace(allocation, at_s=allocation.at_s - 100 * DAY_S)
    state = StrategiesState(replace(books, allocation_by_strategy=(("parity", expired),)))
    unpriced_step = step_input(targets_bps=PLAIN).with_config(split(chosen_by(VOLATILITY), FIXED)).with_layer(state)

    fault = books_of(choose_weights(unpriced_step)).allocation_fault

    assert "the last weights are too old (strategies.parity.allocator.keep)" in fault


@pytest.mark.parametrize(
    ("step", "has_chosen", "now_s", "spans"),
    [
        pytest.param(SHARED_STEP, False, NOW_S, [(91 * DAY_S, DAY_S)], id="no choice yet"),
        pytest.param(SHARED_STEP, True, NOW_S, [], id="a choice that is not due"),
        pytest.param(SHARED_STEP, True, NOW_S + 8 * DAY_S, [(91 * DAY_S, DAY_S)], id="a choice that is due"),
        pytest.param(PRICED_STEP, False, NOW_S, [], id="no strategies"),
    ],
)
def test_prices_are_read_as_far_back_as_a_due_choice_needs(
    step: StepInput, has_chosen: bool, now_s: int, spans: list[tuple[int, int]]
) -> None:
    allocation_by_owner = dict(books_of(SHARED_STEP).allocation_by_strategy) if has_chosen else {}

    assert part_history_spans(step.portfolio, step.layer_configs, now_s, allocation_by_owner) == spans
