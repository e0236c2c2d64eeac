"""Tests of agent/layers/gradual/policy.py: sizes, waits, ends and budgets of slices, and when one is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.gradual.policy import (
    MILLION,
    NO_JITTER,
    TARGETS_CHANGED_REASON,
    SliceDecision,
    budget_left,
    carried_budget,
    decide_slice,
    end_if_invalid,
    execution_deadlines,
    execution_signals,
    find_prior_carryover,
    invalidation_reason,
    jitter_factor,
    mean_interval_s,
    slice_fraction,
    slice_value,
    slice_wait_s,
)
from agent.layers.gradual.state import BudgetCarryover, ExecutionProgress, GradualExecution, GradualResult, GradualState, SliceDraw
from agent.model import (
    Destination,
    ExecutionPace,
    ExecutionStyle,
    Goal,
    GoalWeight,
    Hold,
    PastPrices,
    Rebalance,
    StepInput,
    TopUp,
    TradeSide,
)
from agent.policy.decide import current_drifts, decide
from agent.policy.native_coin import unwrap_cost_wei
from agent.policy.one_sided import target_weights
from agent.reference import reference_prices
from agent.units import Token, format_time
from tests.support.builders import NOW_S, feed_round, history, split, step_input, strategy, with_history, with_limits, with_snapshot
from tests.support.constants import ETHER, USD
from tests.support.gradual_execution import PACE, later, paced
from tests.support.text import mentions
from tests.support.tokens import USDC, WBTC, WETH

TWAP = replace(PACE, style=ExecutionStyle.TWAP, max_rounds=8, twap_duration_s=14_400)
LIMIT = replace(PACE, style=ExecutionStyle.LIMIT, patience_s=7_200)
EVEN = replace(PACE, size_jitter_bps=0)
EVEN_DRAW = SliceDraw((MILLION - 1) // 2, (MILLION - 1) // 2)
HALVES = Goal(tuple(GoalWeight(token.address, Fraction(1, 2), Fraction(1, 2)) for token in (WETH, USDC)))
SIDES = ((WETH.address, -1), (USDC.address, 1))


def execution(pace: ExecutionPace = PACE, **changes: object) -> GradualExecution:
    """Return an execution of four slices that sells 1,000 dollars of WETH, from now on for 4,800 s and ten minutes of grace."""
    plain = GradualExecution(
        pace=pace,
        targets_bps=target_weights(step_input().effective_assets),
        destination=Destination.TARGET,
        goal=HALVES,
        arrival_prices=(),
        side_by_token=SIDES,
        value_to_move=Fraction(1_000 * USD),
        rounds=4,
        max_loss=None,
        began_s=NOW_S,
        ends_s=NOW_S + 4_800,
        expires_s=NOW_S + 5_400,
        first_draw=SliceDraw(0, 0),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names


def progress(pace: ExecutionPace = PACE, terms: Mapping[str, object] | None = None, **changes: object) -> ExecutionProgress:
    """Return the progress of an execution whose next slice is due now; `terms` are changes of its terms."""
    plain = ExecutionProgress("e", execution(pace, **(terms or {})), 0, Fraction(0), Fraction(0), NOW_S, EVEN_DRAW)
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names


def step_under(under: ExecutionProgress, weth_usd: Fraction | int = 6_000, usdc_usd: Fraction | int = 4_000) -> StepInput:
    """Return a step of WETH and USDC, half of each wanted, under an execution."""
    step = paced(step_input(values={"WETH": weth_usd, "USDC": usdc_usd}), under.execution.pace)
    return step.with_layer(GradualState(progress=under))


def decision_of(step: StepInput) -> SliceDecision:
    decision = decide_slice(step, current_drifts(step), reference_prices(step).price_by_token)
    assert decision is not None
    return decision


# --- sizes and waits


@pytest.mark.parametrize(
    ("draw_ppm", "jitter_bps", "factor"),
    [
        pytest.param(0, 3_000, Fraction(7, 10), id="least"),
        pytest.param(MILLION - 1, 3_000, Fraction(13, 10), id="most"),
        pytest.param(123, 0, Fraction(1), id="no jitter"),
    ],
)
def test_jitter_is_even_around_one(draw_ppm: int, jitter_bps: int, factor: Fraction) -> None:
    assert jitter_factor(draw_ppm, jitter_bps) == factor


def test_draw_without_jitter_is_the_mean() -> None:
    for ppm in (NO_JITTER.size_ppm, NO_JITTER.wait_ppm):
        assert abs(jitter_factor(ppm, 5_000) - 1) < Fraction(1, MILLION)


@pytest.mark.parametrize(("ppm", "side"), [(0, -1), (MILLION - 1, 1)], ids=["least", "most"])
def test_size_and_wait_vary_by_their_own_draw_and_jitter(ppm: int, side: int) -> None:
    """Slices of 250 dollars vary by 20 %, waits of 600 s by half."""
    terms = execution(replace(PACE, size_jitter_bps=2_000, time_jitter_bps=5_000))
    size_draw = replace(EVEN_DRAW, size_ppm=ppm)
    wait_draw = replace(EVEN_DRAW, wait_ppm=ppm)

    assert slice_value(terms, size_draw) == 250 * USD * (1 + Fraction(side, 5))
    assert slice_wait_s(terms, wait_draw) == 600 + 300 * side
    assert abs(slice_value(terms, wait_draw) - 250 * USD) < 250
    assert abs(slice_wait_s(terms, size_draw) - 600) <= 1


@pytest.mark.parametrize(
    ("remaining", "fraction"),
    [
        pytest.param(1_000, Fraction(1, 4), id="four slices"),
        pytest.param(251, Fraction(250, 251), id="a unit more than one"),
        pytest.param(250, Fraction(1), id="one slice"),
        pytest.param(249, Fraction(1), id="a unit less"),
    ],
)
def test_slice_is_at_most_the_remainder(remaining: int, fraction: Fraction) -> None:
    assert slice_fraction(execution(EVEN, value_to_move=Fraction(1_000)), SliceDraw(0, 0), Fraction(remaining)) == fraction


@pytest.mark.parametrize(
    ("pace", "rounds", "interval_s"),
    [
        pytest.param(PACE, 4, 600, id="configured"),
        pytest.param(TWAP, 7, 2_057, id="part of the duration"),
        pytest.param(replace(TWAP, twap_duration_s=3), 8, 1, id="a second at least"),
    ],
)
def test_interval_is_configured_or_part_of_the_duration(pace: ExecutionPace, rounds: int, interval_s: int) -> None:
    assert mean_interval_s(pace, rounds) == interval_s


@pytest.mark.parametrize(
    ("pace", "rounds", "duration_s", "grace_s"),
    [
        pytest.param(PACE, 4, 2 * 4 * 600, 600, id="rounds"),
        pytest.param(TWAP, 8, 14_400, 1_800, id="fixed duration"),
        pytest.param(LIMIT, 1, 7_200, 0, id="limit price"),
    ],
)
def test_deadlines_leave_an_interval_of_grace(pace: ExecutionPace, rounds: int, duration_s: int, grace_s: int) -> None:
    assert execution_deadlines(pace, rounds, 1_000) == (1_000 + duration_s, 1_000 + duration_s + grace_s)


# --- a slice that is due


@pytest.mark.parametrize(
    ("age_s", "decision_type"),
    [pytest.param(-1, Hold, id="a second early"), pytest.param(0, Rebalance, id="due"), pytest.param(1, Rebalance, id="a second late")],
)
def test_slice_is_due_from_its_time_on(age_s: int, decision_type: type[Hold | Rebalance]) -> None:
    decision = decision_of(step_under(progress(parts_done=1, next_s=NOW_S - age_s)))

    assert isinstance(decision.decision, decision_type)
    assert "slice 2 of about 4" in decision.decision.reason
    assert (decision.due_slice is None) is (decision_type is Hold)


def test_slice_that_waits_names_its_time() -> None:
    decision = decision_of(step_under(progress(next_s=NOW_S + 300))).decision

    assert isinstance(decision, Hold)
    assert decision.reason.endswith(f": due {format_time(NOW_S + 300)}")
    assert decision.limiting_rule == "execution.style"


@pytest.mark.parametrize(
    ("pace", "spare_s", "remaining_usd", "fraction"),
    [
        pytest.param(EVEN, 300, 500, Fraction(1, 2), id="another may follow"),
        pytest.param(EVEN, 299, 500, Fraction(1), id="none may follow"),
        pytest.param(EVEN, -599, 500, Fraction(1), id="none may follow, late"),
        pytest.param(EVEN, 299, 501, Fraction(250, 501), id="paused almost to its end"),
        pytest.param(EVEN, -599, 1_000, Fraction(1, 4), id="paused beyond its end"),
        pytest.param(LIMIT, 300, 1_000, Fraction(1), id="limit price"),
    ],
)
def test_slice_is_the_whole_remainder_if_it_is_the_last(pace: ExecutionPace, spare_s: int, remaining_usd: int, fraction: Fraction) -> None:
    """Waits are 300 s at least; of four slices random ones leave half at most, and a pause leaves more."""
    under = progress(pace, {"ends_s": NOW_S + spare_s, "expires_s": NOW_S + spare_s + 600})

    decision = decision_of(step_under(under, 5_000 + remaining_usd, 5_000 - remaining_usd))

    assert (decision.due_slice.number, decision.due_slice.traded_share) == (1, fraction)
    assert decision.due_slice.remaining_value == remaining_usd * USD


def test_slice_ignores_cooldown_and_band() -> None:
    step = with_history(step_under(progress()), last_rebalance_s=NOW_S - 10)

    decision_result = decide(step)

    assert isinstance(decision_result.decision, Rebalance)
    assert decision_result.layer(GradualResult).due_slice is not None


def test_slice_waits_for_gas_money() -> None:
    """Coin that pays for the unwrapping and not for the slice: the refill comes first, and the slice is decided again."""
    step = with_limits(step_under(progress()), native_top_up_wei=ETHER // 10)
    step = with_snapshot(step, native_wei=unwrap_cost_wei(step.snapshot, step.limits))

    decision_result = decide(step)

    assert isinstance(decision_result.decision, TopUp)
    assert decision_result.layer(GradualResult).due_slice is None


@pytest.mark.parametrize(
    ("past_prices", "decision_type"),
    [
        pytest.param((2_000, 2_000), Rebalance, id="confirmed"),
        pytest.param((2_000, 1_000), Hold, id="reversed at one block"),
        pytest.param((), Hold, id="blocks missing"),
    ],
)
def test_slice_needs_the_blocks_before_to_agree(past_prices: tuple[int, ...], decision_type: type[Hold | Rebalance]) -> None:
    """T3: prices of one block fire no slice."""
    step = step_under(progress())
    head = step.snapshot.head
    past_blocks = tuple(
        PastPrices(
            replace(head, number=head.number - back),
            tuple(weth_feed if feed.feed == weth_feed.feed else feed for feed in step.snapshot.feeds),
            step.snapshot.pools,
        )
        for back, weth_feed in enumerate((feed_round("WETH", price) for price in past_prices), 1)
    )
    step = with_snapshot(replace(step, policy=replace(step.policy, confirm_blocks=2)), past_prices=past_blocks)

    decision = decision_of(step).decision

    assert isinstance(decision, decision_type)
    assert not isinstance(decision, Hold) or decision.limiting_rule == "policy.confirm_blocks"


@pytest.mark.parametrize(
    ("weth_usd", "signals"),
    [
        pytest.param(6_000, {("too much", WETH.address), ("too little", USDC.address)}, id="in its direction"),
        pytest.param(4_000, set(), id="against it"),
    ],
)
def test_signals_are_of_tokens_that_move_in_the_first_direction(weth_usd: int, signals: set[tuple[str, str]]) -> None:
    step = step_under(progress(), weth_usd, 10_000 - weth_usd)

    assert execution_signals(step, reference_prices(step).price_by_token) == signals


def test_signals_are_none_without_an_execution() -> None:
    assert execution_signals(step_input(), {}) == frozenset()


@pytest.mark.parametrize(
    ("weth_usd", "wbtc_usd", "side_by_token"),
    [
        pytest.param(3_000, 2_000, {WETH: -1, WBTC: 1, USDC: -1}, id="a sale turned into a purchase"),
        pytest.param(5_000, 1_000, {WETH: -1, WBTC: 1, USDC: 1}, id="a purchase turned into a sale"),
    ],
)
def test_remainder_is_the_larger_side_in_the_first_direction(weth_usd: int, wbtc_usd: int, side_by_token: dict[Token, int]) -> None:
    """4,000, 3,000 and 3,000 are wanted: 2,000 are left in both, though 1,000 turned; less than a tenth of a slice counts as turned."""
    targets = {WETH: 4_000, WBTC: 3_000, USDC: 3_000}
    step = step_input(
        {token.symbol: bps for token, bps in targets.items()},
        {"WETH": weth_usd, "WBTC": wbtc_usd, "USDC": 10_000 - weth_usd - wbtc_usd},
    )
    goal = Goal(tuple(GoalWeight(token.address, Fraction(bps, 10_000), Fraction(bps, 10_000)) for token, bps in targets.items()))
    terms = {
        "goal": goal,
        "targets_bps": target_weights(step.effective_assets),
        "side_by_token": tuple((token.address, side) for token, side in side_by_token.items()),
        "value_to_move": Fraction(80_000 * USD),
    }
    under = progress(EVEN, terms, draw=SliceDraw(0, 0))

    decision = decision_of(paced(step, EVEN).with_layer(GradualState(progress=under)))

    assert round(decision.due_slice.remaining_value / USD) == 2_000


# --- how it ends


@pytest.mark.parametrize(
    ("weth_usd", "parts_done", "min_trade_usd", "reason"),
    [
        pytest.param(5_010, 0, 10, "", id="min_trade left"),
        pytest.param(Fraction(501_000 - 1, 100), 0, 10, "the drift is gone", id="less than min_trade left"),
        pytest.param(Fraction(501_000 - 1, 100), 1, 10, "done in 1 slice", id="after a slice"),
        pytest.param(5_000, 2, 10, "done in 2 slices", id="nothing left"),
        pytest.param(4_975, 2, 10, "done in 2 slices", id="overshot by a tenth of a slice"),
        pytest.param(4_974, 2, 10, "reversed after 2 slices: WETH would now have to be bought instead of sold", id="overshot by more"),
        pytest.param(4_960, 1, 40, "done in 1 slice", id="overshot by min_trade"),
        pytest.param(4_959, 1, 40, "reversed after 1 slice", id="overshot by more than min_trade"),
    ],
)
def test_execution_ends_with_its_drift(weth_usd: Fraction | int, parts_done: int, min_trade_usd: int, reason: str) -> None:
    """Slices are of 250 dollars."""
    step = with_limits(step_under(progress(parts_done=parts_done), weth_usd, 10_000 - weth_usd), min_trade=Fraction(min_trade_usd * USD))

    end_reason = decision_of(step).end_reason

    assert bool(end_reason) is bool(reason)
    assert reason in end_reason


@pytest.mark.parametrize(
    ("seconds", "reasons"),
    [
        pytest.param(5_399, (), id="a second before its expiry"),
        pytest.param(5_400, ("time ended", "1000 USDC remain"), id="at its expiry"),
    ],
)
def test_execution_ends_at_its_expiry(seconds: int, reasons: tuple[str, ...]) -> None:
    end_reason = decision_of(later(step_under(progress()), seconds)).end_reason

    assert bool(end_reason) is bool(reasons)
    assert mentions(end_reason, *reasons)


@pytest.mark.parametrize(
    ("lost_value", "max_loss", "reason"),
    [
        pytest.param(10 * USD - 1, Fraction(10 * USD), "", id="a unit less"),
        pytest.param(10 * USD, Fraction(10 * USD), "its budget is 10 USDC", id="all of it"),
        pytest.param(10**15, None, "", id="no budget"),
    ],
)
def test_execution_ends_with_its_budget(lost_value: int, max_loss: Fraction | None, reason: str) -> None:
    end_reason = decision_of(step_under(progress(terms={"max_loss": max_loss}, lost_value=Fraction(lost_value)))).end_reason

    assert bool(end_reason) is bool(reason)
    assert reason in end_reason


@pytest.mark.parametrize(
    ("pace", "parts_done", "reason"),
    [
        pytest.param(LIMIT, 0, "", id="limit price, nothing done"),
        pytest.param(LIMIT, 1, "done at its price", id="limit price, done"),
        pytest.param(PACE, 1, "", id="slices"),
    ],
)
def test_execution_at_a_limit_price_ends_with_its_trade(pace: ExecutionPace, parts_done: int, reason: str) -> None:
    assert decision_of(step_under(progress(pace, parts_done=parts_done))).end_reason == reason


def with_targets(step: StepInput, *targets_bps: int) -> StepInput:
    assets = tuple(replace(asset, target_bps=bps) for asset, bps in zip(step.portfolio.assets, targets_bps, strict=True))
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


STEP = step_under(progress())
TINY_TARGET = step_under(progress(terms={"targets_bps": ((WETH.address, 9_990), (USDC.address, 10))}))


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        pytest.param(STEP, "", id="nothing"),
        pytest.param(with_targets(STEP, 5_025, 4_975), "", id="targets by as much as data move them"),
        pytest.param(with_targets(STEP, 5_026, 4_974), TARGETS_CHANGED_REASON, id="targets by a bp more"),
        pytest.param(with_targets(TINY_TARGET, 9_985, 15), "", id="a small target by a little"),
        pytest.param(with_targets(TINY_TARGET, 10_000, 0), TARGETS_CHANGED_REASON, id="a small target to zero"),
        pytest.param(
            replace(STEP, portfolio=replace(STEP.portfolio, assets=STEP.portfolio.assets[::-1])), TARGETS_CHANGED_REASON, id="the order"
        ),
        pytest.param(
            replace(STEP, policy=replace(STEP.policy, destination=Destination.HALFWAY)), "policy.destination was changed", id="destination"
        ),
        pytest.param(replace(STEP, policy=replace(STEP.policy, trade_side=TradeSide.SELL)), "policy.only was changed", id="trade side"),
        pytest.param(paced(STEP, max_rounds=3), "[execution] was changed", id="pace"),
        pytest.param(
            STEP.with_config(split(strategy("own", 10_000, {"WETH": 5_000, "USDC": 5_000}))),
            "parts of the wallet have targets of their own now",
            id="strategies",
        ),
    ],
)
def test_execution_ends_if_its_terms_changed(step: StepInput, reason: str) -> None:
    assert invalidation_reason(step) == reason
    assert (decide_slice(step, current_drifts(step), reference_prices(step).price_by_token) is None) is bool(reason)
    assert end_if_invalid(step, decide(step)).layer(GradualResult).end_reason == reason


def test_terms_are_not_compared_without_an_execution() -> None:
    assert invalidation_reason(step_input()) == ""
    assert decide_slice(step_input(), (), {}) is None


def test_cooldown_counts_from_the_end_of_an_execution() -> None:
    step = step_input(values={"WETH": 7_000, "USDC": 3_000}, past=history()).with_layer(GradualState(ended_s=NOW_S - 3_599))
    decision = decide(step).decision

    assert isinstance(decision, Hold)
    assert "gradual execution" in decision.reason
    assert isinstance(decide(step.with_layer(GradualState(ended_s=NOW_S - 3_600))).decision, Rebalance)


# --- budgets that executions share


@pytest.mark.parametrize(
    ("intended_value", "carryover", "budget"),
    [
        pytest.param(1_000, None, 10, id="its own"),
        pytest.param(1_000, BudgetCarryover(9, Fraction(1_000), Fraction(4)), 6, id="less what was lost"),
        pytest.param(1_000, BudgetCarryover(9, Fraction(3_000), Fraction(4)), 10, id="its own of a larger one"),
        pytest.param(1_000, BudgetCarryover(9, Fraction(500), Fraction(4)), 6, id="less what a smaller one lost"),
        pytest.param(2_000, BudgetCarryover(9, Fraction(1_000), Fraction(4)), 16, id="of the largest"),
        pytest.param(100, BudgetCarryover(9, Fraction(1_000), Fraction(4)), 1, id="its own small one"),
        pytest.param(1_000, BudgetCarryover(9, Fraction(1_000), Fraction(10)), 0, id="used up"),
        pytest.param(1_000, BudgetCarryover(9, Fraction(1_000), Fraction(11)), 0, id="exceeded"),
    ],
)
def test_budget_of_several_executions_is_that_of_the_largest(intended_value: int, carryover: BudgetCarryover | None, budget: int) -> None:
    """1 % of the value."""
    assert budget_left(PACE, Fraction(intended_value), carryover) == budget


def test_budget_may_be_off() -> None:
    assert budget_left(replace(PACE, max_loss_bps=None), Fraction(1_000), BudgetCarryover(9, Fraction(1_000), Fraction(4))) is None


PRICES = (("A", Fraction(3)),)


@pytest.mark.parametrize(
    ("lost_value", "why", "prior", "carryover"),
    [
        pytest.param(5, "done", None, BudgetCarryover(NOW_S + 5_400, Fraction(1_000), Fraction(5)), id="loss"),
        pytest.param(-5, "done", None, BudgetCarryover(NOW_S + 5_400, Fraction(1_000), Fraction(0)), id="gain"),
        pytest.param(
            5,
            TARGETS_CHANGED_REASON,
            None,
            BudgetCarryover(NOW_S + 5_400, Fraction(1_000), Fraction(5), PRICES),
            id="targets changed",
        ),
        pytest.param(
            5,
            "done",
            BudgetCarryover(9, Fraction(4_000), Fraction(6)),
            BudgetCarryover(9, Fraction(4_000), Fraction(11)),
            id="loss after a loss",
        ),
        pytest.param(
            -5,
            "done",
            BudgetCarryover(9, Fraction(400), Fraction(6)),
            BudgetCarryover(9, Fraction(1_000), Fraction(6)),
            id="gain after a loss",
        ),
    ],
)
def test_carryover_adds_losses_and_no_gains(lost_value: int, why: str, prior: BudgetCarryover | None, carryover: BudgetCarryover) -> None:
    terms = {"arrival_prices": PRICES, "carryover": prior, "value_to_move": Fraction(1_000)}

    assert carried_budget(progress(terms=terms, lost_value=Fraction(lost_value)), why) == carryover


@pytest.mark.parametrize(("until_s", "is_shared"), [(NOW_S + 1, True), (NOW_S, False)], ids=["a second before", "at its end"])
def test_carryover_ends_with_the_time_of_the_first(until_s: int, is_shared: bool) -> None:
    carryover = BudgetCarryover(until_s, Fraction(1_000), Fraction(5))

    assert find_prior_carryover(step_input().with_layer(GradualState(carryover=carryover))) == (carryover if is_shared else None)


def test_carryover_is_that_of_the_execution_that_ends_now() -> None:
    under = progress(terms={"arrival_prices": PRICES}, lost_value=Fraction(7))
    step = with_targets(step_under(under), 6_000, 4_000)

    assert find_prior_carryover(step) == BudgetCarryover(NOW_S + 5_400, Fraction(1_000 * USD), Fraction(7), PRICES)
