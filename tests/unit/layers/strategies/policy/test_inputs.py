"""Strategies whose weights an allocator chooses: the same as for a whole portfolio, written down by strategy, or a halt by name."""

from __future__ import annotations

from dataclasses import replace

from agent.execution.step_memory import part_history_spans
from agent.layers.strategies.policy.inputs import choose_weights
from agent.layers.strategies.state import CapitalSplit, StrategiesState, Strategy
from agent.model import AllocationMethod, Halt, HaltCode, StepInput
from agent.policy.decide import decide
from agent.policy.target_changes import apply_allocation
from tests.support.builders import NOW_S, books_of, brought_up, split, step_input, strategy
from tests.support.planning_worlds import DAY_S, PLAIN, allocator, bps_of, moves, recorded, weighed
from tests.support.text import mentions

VOLATILITY = allocator(AllocationMethod.INVERSE_VOLATILITY)


def by(weights: object, name: str = "parity", share_bps: int = 5_000) -> Strategy:
    return replace(strategy(name, share_bps, PLAIN), allocator=weights)  # type: ignore[arg-type]  # an allocator


def shared(*parts: Strategy, step: StepInput) -> StepInput:
    return brought_up(step.with_config(split(*parts)))


def test_a_strategy_chooses_what_a_portfolio_would() -> None:
    prices = recorded(moves())
    whole = bps_of(apply_allocation(weighed(VOLATILITY, prices)))
    assert whole != PLAIN
    step = replace(step_input(targets_bps=PLAIN), history=replace(step_input().history, prices=prices))
    shared_step = shared(by(VOLATILITY), strategy("fixed", 5_000, PLAIN), step=step)
    assert shared_step.divides_wallet
    symbols = {asset.token.address: asset.token.symbol for asset in shared_step.portfolio.assets}
    assert {symbols[token]: bps for token, bps in shared_step.config(CapitalSplit).strategies[0].weights_bps} == whole
    assert [name for name, _ in books_of(shared_step).allocation_by_strategy] == ["parity"]
    assert abs(bps_of(shared_step)["WETH"] - (whole["WETH"] + PLAIN["WETH"]) / 2) <= 1


def test_strategy__keeps_its_weights_while_a_jump_waits() -> None:
    prices = recorded(moves())
    limited = replace(VOLATILITY, max_change_bps=500)
    parts = (by(limited), strategy("fixed", 5_000, PLAIN))
    step = replace(step_input(targets_bps=PLAIN), history=replace(step_input().history, prices=prices))
    books = books_of(shared(*parts, step=step))
    first = dict(books.allocation_by_strategy)["parity"]
    weights_bps = dict(first.weights_bps)
    moved = max(weights_bps, key=lambda address: weights_bps[address])
    other = min(weights_bps, key=lambda address: weights_bps[address])
    weights_bps[moved] -= 501
    weights_bps[other] += 501
    last = replace(first, at_s=first.at_s - 8 * DAY_S, weights_bps=tuple(weights_bps.items()))
    due = StrategiesState(replace(books, allocation_by_strategy=(("parity", last),)))
    waiting = choose_weights(step.with_config(split(*parts)).with_layer(due))
    assert dict(books_of(waiting).allocation_by_strategy)["parity"] == last
    assert any(mentions(reason, "strategy parity", "max_change of 5 %", "trimtab weights --accept") for reason in waiting.targets.reasons)


def test_a_strategy_without_weights_halts_by_name() -> None:
    decision_result = decide(shared(by(VOLATILITY), strategy("fixed", 5_000, PLAIN), step=step_input(targets_bps=PLAIN)))
    assert isinstance(decision_result.decision, Halt)
    assert decision_result.decision.codes == (HaltCode.STRATEGIES,)
    assert mentions(decision_result.decision.reason, "parity", "inverse_volatility")


def test_prices__are_read_back_as_far_as_a_due_choice_needs() -> None:
    step = replace(step_input(targets_bps=PLAIN), history=replace(step_input().history, prices=recorded(moves())))
    shared_step = shared(by(VOLATILITY), strategy("fixed", 5_000, PLAIN), step=step)
    assert shared_step.divides_wallet
    assert part_history_spans(shared_step.portfolio, shared_step.layer_configs, shared_step.snapshot.head.timestamp_s, {}) == [
        (91 * DAY_S, DAY_S)
    ]
    last = dict(books_of(shared_step).allocation_by_strategy)
    assert part_history_spans(shared_step.portfolio, shared_step.layer_configs, shared_step.snapshot.head.timestamp_s, last) == []
    head = replace(shared_step.snapshot.head, timestamp_s=NOW_S + 8 * DAY_S)
    later = replace(shared_step, snapshot=replace(shared_step.snapshot, head=head))
    assert part_history_spans(later.portfolio, later.layer_configs, later.snapshot.head.timestamp_s, last) == [(91 * DAY_S, DAY_S)]
    assert part_history_spans(step.portfolio, step.layer_configs, step.snapshot.head.timestamp_s, {}) == []
