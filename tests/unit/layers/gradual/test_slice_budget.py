"""One budget against the prices of the start: who moves the targets, or ends a correction, gets no second one in its time (T15)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import codec
from agent.layers.gradual.policy import TARGETS_CHANGED_REASON, budget_left, carried_budget, find_prior_carryover, slice_wait_s
from agent.layers.gradual.state import BudgetCarryover, ExecutionProgress, GradualExecution, GradualResult, GradualState, SliceDraw
from agent.model import ExecutionPace, ExecutionStyle, StepInput
from agent.planning import proposals
from tests.support.builders import step_input
from tests.support.constants import USD
from tests.support.gradual_execution import PACE, later, market, paced, roomy, step_after_plan

TWAP = replace(PACE, style=ExecutionStyle.TWAP, max_rounds=8, twap_duration_s=14_400, max_loss_bps=60)
Moves = Callable[[StepInput, int], StepInput]


def drifted(pace: ExecutionPace = TWAP) -> StepInput:
    """200,000 of 1,000,000 have to move through a pair of 20 million on each side."""
    step = roomy(step_input(None, {"WETH": 700_000, "USDC": 300_000}, depth=20_000_000, cooldown_s=0), max_live_value=None)
    return paced(step, pace)


def aimed(step: StepInput, weth_bps: int) -> StepInput:
    """Other targets, as an allocator or a trailing order leaves them."""
    assets = tuple(replace(asset, target_bps=bps) for asset, bps in zip(step.portfolio.assets, (weth_bps, 10_000 - weth_bps), strict=True))
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


@dataclass
class Wander:
    """What was begun in the time that the first had, and what every round lost at the prices that it counts from."""

    begun: list[GradualExecution] = field(default_factory=list)
    lost: Fraction = Fraction(0)
    rounds: int = 0
    said: list[str] = field(default_factory=list)


def wander(step: StepInput, dice: random.Random, moves: Moves, looks: int = 60) -> Wander:
    """Looks every ten minutes at targets and a market that `moves` changes before each; remembers as the store does."""
    done = Wander()
    under = None
    spent = None
    until_s = None
    for look in range(looks):
        step = moves(step, look)
        now_s = step.snapshot.head.timestamp_s
        if until_s is not None and now_s >= until_s:
            break
        draw = SliceDraw(int(dice.random() * 1_000_000), int(dice.random() * 1_000_000))
        step = step.with_layer(GradualState(progress=under, carryover=spent if under is None else None, draw=draw))
        proposal = proposals.propose_rebalance(step)
        done.said.append(proposal.decision_result.decision.reason)
        if proposal.decision_result.layer(GradualResult).end_reason and under is not None:
            under, spent = None, carried_budget(under, proposal.decision_result.layer(GradualResult).end_reason)
        if proposal.plan is not None:
            assert proposal.decision_result.layer(GradualResult).due_slice is not None, "nothing goes around the budget"
            if (begins := proposal.decision_result.layer(GradualResult).new_execution) is not None:
                done.begun.append(begins)
                until_s = until_s or begins.expires_s
                under = ExecutionProgress(f"c{look}", begins, 0, Fraction(0), Fraction(0), begins.began_s, begins.first_draw)
            assert under is not None
            own = _lost(step, proposal.plan.holdings_after, dict(under.execution.arrival_prices)) + proposal.plan.cost.gas
            done.lost += own
            done.rounds += 1
            under = replace(
                under,
                parts_done=under.parts_done + 1,
                moved_value=under.moved_value + proposal.plan.turnover,
                lost_value=under.lost_value + own,
            )
            under = replace(under, next_s=now_s + slice_wait_s(under.execution, draw), draw=draw)
            step = step_after_plan(step, proposal.plan, 600)
        else:
            step = later(step, 600)
    return done


def _lost(step: StepInput, after: tuple[tuple[str, int], ...], prices: dict[str, Fraction]) -> Fraction:
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    return -sum(((raw - raw_by_token[token]) * prices[token] for token, raw in after), Fraction(0))


def largest(done: Wander) -> Fraction:
    """The budget of the largest of them."""
    return max(slice.value_to_move for slice in done.begun) * Fraction(TWAP.max_loss_bps or 0, 10_000)


@given(seed=st.integers(0, 10**6), far=st.integers(30, 900), fall=st.integers(0, 30))
@settings(max_examples=5, deadline=None)
def test_wandering_targets__spend_no_more_than_one_budget(seed: int, far: int, fall: int) -> None:
    """The market falls a little with every look, and every look has other targets: without one budget each would start anew."""
    dice = random.Random(seed)

    def moves(step: StepInput, look: int) -> StepInput:
        falling = market(step, Fraction(2_000) * (1 - Fraction(fall * look, 10_000)))
        return aimed(falling, 5_000 + dice.randint(-far, far))

    done = wander(drifted(), dice, moves)
    assert done.begun
    assert done.lost <= largest(done)


def test_falling_market__stops_a_re_aimed_correction_too() -> None:
    def moves(step: StepInput, look: int) -> StepInput:
        return aimed(market(step, Fraction(2_000) * (1 - Fraction(look, 400))), 5_000 - 40 * (look % 2))

    done = wander(drifted(), random.Random(3), moves)
    assert len(done.begun) > 1, "it is begun anew with every other target"
    assert [slice.carryover is None for slice in done.begun] == [True] + [False] * (len(done.begun) - 1)
    re_aimed = [slice for slice in done.begun if slice.carryover is not None and slice.carryover.arrival_prices]
    assert re_aimed
    assert all(slice.arrival_prices == slice.carryover.arrival_prices for slice in re_aimed if slice.carryover is not None)
    assert re_aimed[0].arrival_prices == done.begun[0].arrival_prices, "it goes on counting from the first prices"
    assert 0 < done.lost <= largest(done)
    assert any("shared until" in reason for reason in done.said), "it is said"


def test_targets_that_go_to_and_fro_spend_one_budget_and_stop() -> None:
    """An allocator that cannot decide would turn the portfolio around for ever."""
    done = wander(drifted(), random.Random(5), lambda step, look: aimed(step, 5_000 if look % 4 < 2 else 9_000))
    assert done.lost <= largest(done)


def test_budget_left__scales_with_what_is_left_to_move() -> None:
    pace = replace(TWAP, max_loss_bps=100)
    before = BudgetCarryover(9_999, Fraction(1_000), Fraction(4))
    assert budget_left(pace, Fraction(1_000), None) == 10
    assert budget_left(pace, Fraction(100), before) == 1, "no more than its own part"
    assert budget_left(pace, Fraction(900), before) == 6, "no more than is left"
    assert budget_left(pace, Fraction(2_000), before) == 16, "of the largest that was to be moved"
    assert budget_left(pace, Fraction(900), replace(before, lost_value=Fraction(11))) == 0
    assert budget_left(replace(pace, max_loss_bps=None), Fraction(900), before) is None


def test_gains_make_no_room_and_the_time_is_that_of_the_first() -> None:
    proposal = proposals.propose_rebalance(drifted())
    first = proposal.decision_result.layer(GradualResult).new_execution
    assert first is not None
    gained = ExecutionProgress("c", first, 2, Fraction(10), Fraction(-500), 0, first.first_draw)
    carryover = carried_budget(gained, TARGETS_CHANGED_REASON)
    assert (carryover.lost_value, carryover.until_s, carryover.arrival_prices) == (0, first.expires_s, first.arrival_prices)
    second = replace(
        first,
        carryover=replace(carryover, lost_value=Fraction(7)),
        expires_s=first.expires_s + 10**6,
        value_to_move=first.value_to_move * 2,
    )
    after = carried_budget(replace(gained, execution=second, lost_value=Fraction(5)), "done in 2 rounds")
    assert (after.lost_value, after.until_s, after.value_to_move, after.arrival_prices) == (
        12,
        first.expires_s,
        first.value_to_move * 2,
        (),
    )


def test_next_execution__has_its_own_budget_after_the_first_s_time() -> None:
    step = drifted()
    now_s = step.snapshot.head.timestamp_s
    for until_s, fresh in ((now_s + 1, False), (now_s, True)):
        spent = BudgetCarryover(until_s, Fraction(200_000 * USD), Fraction(1_199 * USD))
        proposal = proposals.propose_rebalance(step.with_layer(GradualState(carryover=spent)))
        assert (proposal.decision_result.layer(GradualResult).new_execution is not None) == fresh
        assert find_prior_carryover(step.with_layer(GradualState(carryover=spent))) == (None if fresh else spent)


@pytest.mark.parametrize("style", [ExecutionStyle.ROUNDS, ExecutionStyle.TWAP])
def test_move_at_once__is_a_round_of_the_same_budget(style: ExecutionStyle) -> None:
    step = drifted(replace(PACE, style=style, twap_duration_s=3_600, max_loss_bps=60, recovery_s=10**6, max_rounds=2))
    least = replace(step, limits=replace(step.limits, min_trade=Fraction(150_000 * USD)))
    assert proposals.propose_rebalance(least).decision_result.layer(GradualResult).due_slice is None, "one round, without a budget"
    spent = BudgetCarryover(2 * 10**9, Fraction(200_000 * USD), Fraction(1_199 * USD))
    shared = least.with_layer(replace(least.layer(GradualState), carryover=spent))
    proposal = proposals.propose_rebalance(shared)
    assert proposal.plan is None
    assert "shared until" in proposal.decision_result.decision.reason


@pytest.mark.parametrize("style", [ExecutionStyle.ROUNDS, ExecutionStyle.TWAP])
def test_targets_moved_before_a_round__do_not_evade_the_budget(style: ExecutionStyle) -> None:
    step = drifted(replace(PACE, style=style, twap_duration_s=3_600, max_loss_bps=60))
    first = proposals.propose_rebalance(step).decision_result.layer(GradualResult).new_execution
    assert first is not None
    assert first.max_loss is not None
    nearly = ExecutionProgress("c", first, 1, Fraction(0), first.max_loss * Fraction(11, 10), first.began_s, first.first_draw)
    approved = replace(
        aimed(step, 4_900), progress=replace(aimed(step, 4_900).progress, spend_caps=((step.portfolio.assets[0].token.address, 10**18),))
    )
    proposal = proposals.propose_rebalance(approved.with_layer(replace(step.layer(GradualState), progress=nearly)))
    assert proposal.decision_result.layer(GradualResult).end_reason == TARGETS_CHANGED_REASON
    assert proposal.plan is None
    assert "shared until" in proposal.decision_result.decision.reason


def test_approved_round__keeps_its_price_though_targets_moved() -> None:
    step = drifted(ExecutionPace(ExecutionStyle.LIMIT, limit_bps=-100, patience_s=14_400))
    waits = proposals.propose_rebalance(step)
    assert waits.plan is None
    assert waits.decision_result.layer(GradualResult).new_execution is not None
    under = ExecutionProgress(
        "c",
        waits.decision_result.layer(GradualResult).new_execution,
        0,
        Fraction(0),
        Fraction(0),
        waits.decision_result.layer(GradualResult).new_execution.began_s,
        waits.decision_result.layer(GradualResult).new_execution.first_draw,
    )
    moved = replace(
        aimed(step, 4_900), progress=replace(aimed(step, 4_900).progress, spend_caps=((step.portfolio.assets[0].token.address, 10**20),))
    )
    proposal = proposals.propose_rebalance(moved.with_layer(replace(step.layer(GradualState), progress=under)))
    assert proposal.plan is None
    assert "its price" in proposal.decision_result.decision.reason


def test_execution_without_one_before_it__is_read_without_the_field() -> None:
    step = drifted()
    begun = proposals.propose_rebalance(step).decision_result.layer(GradualResult).new_execution
    written = codec.to_jsonable(begun)
    del written["carryover"]
    assert codec.from_jsonable(GradualExecution, written) == begun
