"""Gradual execution at this block: due, waiting, or ended with a reason; slice sizes, times and
budget.

Only the terms of an execution are stored. Each slice is decided again from the snapshot, and the
execution ends once its terms no longer match.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.layers.gradual.state import (
    BudgetCarryover,
    ExecutionProgress,
    ExecutionSlice,
    GradualExecution,
    GradualResult,
    GradualState,
    SliceDraw,
)
from agent.model import (
    AssetDrift,
    Decision,
    ExecutionPace,
    ExecutionStyle,
    Hold,
    Limits,
    Portfolio,
    Rebalance,
    StepInput,
)
from agent.policy import native_coin
from agent.policy.decision import DecisionContext, DecisionResult
from agent.policy.drift import compute_drifts, corrections
from agent.policy.one_sided import partial_goal, target_weights
from agent.policy.triggers import bands, price_confirmation
from agent.policy.triggers.bands import PriceSignal
from agent.units import BPS, Price, Value, ceil_int, format_time

MILLION = 1_000_000
NO_JITTER = SliceDraw(MILLION // 2, MILLION // 2)
"""Draw in the middle, for an execution that has no stored draw; its factor differs from 1 by less
than a millionth.
"""
MAX_DURATION_FACTOR = 2
"""Longest duration of ROUNDS as a multiple of the expected duration."""


def jitter_factor(draw_ppm: int, jitter_bps: int) -> Fraction:
    """Map a draw in millionths to a factor from 1 - jitter to 1 + jitter, uniform."""
    jitter_share = Fraction(jitter_bps, BPS)
    return 1 - jitter_share + 2 * jitter_share * Fraction(draw_ppm, MILLION - 1)


def mean_slice_value(execution: GradualExecution) -> Value:
    """Return the mean value of a slice, numeraire base units."""
    return execution.value_to_move / execution.rounds


def slice_value(execution: GradualExecution, draw: SliceDraw) -> Value:
    """Return the value of the next slice, before `slice_fraction` caps it at the remainder. Draws
    are independent, so no slice predicts another (T15).
    """
    return mean_slice_value(execution) * jitter_factor(
        draw.size_ppm, execution.pace.size_jitter_bps
    )


def slice_fraction(
    execution: GradualExecution, draw: SliceDraw, remaining_value: Value
) -> Fraction:
    """Return the next slice as a fraction of `remaining_value`; 1 if no more than one slice is
    left.
    """
    next_slice_value = slice_value(execution, draw)
    return (
        Fraction(1) if remaining_value <= next_slice_value else next_slice_value / remaining_value
    )


def mean_interval_s(pace: ExecutionPace, rounds: int) -> int:
    """Return the mean time between two slices, seconds."""
    return max(
        1, pace.twap_duration_s // rounds if pace.style is ExecutionStyle.TWAP else pace.interval_s
    )


def slice_wait_s(execution: GradualExecution, draw: SliceDraw) -> int:
    """Return the seconds from one slice to the next."""
    return ceil_int(
        mean_interval_s(execution.pace, execution.rounds)
        * jitter_factor(draw.wait_ppm, execution.pace.time_jitter_bps)
    )


def execution_deadlines(pace: ExecutionPace, rounds: int, began_s: int) -> tuple[int, int]:
    """Return the chain time by which the slices shall end, and the expiry one mean interval later,
    for a last slice whose random wait ends after it; none begins from then on.
    """
    if pace.style is ExecutionStyle.LIMIT:
        return began_s + pace.patience_s, began_s + pace.patience_s
    interval_s = mean_interval_s(pace, rounds)
    if pace.style is ExecutionStyle.TWAP:
        duration_s = pace.twap_duration_s
    else:
        duration_s = MAX_DURATION_FACTOR * rounds * interval_s
    return began_s + duration_s, began_s + duration_s + interval_s


IGNORED_CHANGE_BPS = 25
"""Largest target change that is ignored: allocators and strategies move targets a little every
cycle.
"""
TARGETS_CHANGED_REASON = "the portfolio's targets changed"
"""Reason of an execution ended by changed targets; the next execution continues with its prices and
budget. Stores of earlier runs have it in these words.
"""
REVERSAL_DIVISOR = 10
"""Divisor of a mean slice: an overshoot above 1/10 of it counts as a price reversal; less is
rounding of slices.
"""


@dataclass(frozen=True, slots=True)
class SliceDecision:
    """Decision on the current gradual execution.

    `due_slice` is the slice to trade now, `end_reason` the reason if it is over.
    """

    decision: Decision
    due_slice: ExecutionSlice | None = None
    end_reason: str = ""


def invalidation_reason(step: StepInput) -> str:
    """Return why the execution's terms no longer match config or targets; empty while they match,
    or without an execution.
    """
    progress = step.layer(GradualState).progress
    if progress is None:
        return ""
    execution = progress.execution
    if step.divides_wallet:
        return "parts of the wallet have targets of their own now"
    if _targets_differ(dict(target_weights(step.effective_assets)), dict(execution.targets_bps)):
        return TARGETS_CHANGED_REASON
    if step.policy.destination is not execution.destination:
        return "policy.destination was changed"
    if step.policy.trade_side is not execution.trade_side:
        return "policy.only was changed"
    if step.execution.pace == execution.pace:
        return ""
    return "[execution] was changed"


def _targets_differ(
    current_bps_by_token: Mapping[str, int], initial_bps_by_token: Mapping[str, int]
) -> bool:
    """True if tokens, their order or targets differ; a target that becomes zero or non-zero always
    differs.
    """
    if [*current_bps_by_token] != [*initial_bps_by_token]:
        return True
    return any(
        abs(bps - initial_bps_by_token[token]) > IGNORED_CHANGE_BPS
        or (bps == 0) != (initial_bps_by_token[token] == 0)
        for token, bps in current_bps_by_token.items()
    )


def decide_slice(
    step: StepInput, drifts: Sequence[AssetDrift], prices: Mapping[str, Price]
) -> SliceDecision | None:
    """Return the decision on the current execution; None if there is none or its terms no longer
    match.
    """
    progress = step.layer(GradualState).progress
    if progress is None or invalidation_reason(step):
        return None
    execution = progress.execution
    now_s = step.snapshot.head.timestamp_s
    remaining_value = _remaining_value(drifts, execution)
    if why := _end_reason(
        step.portfolio,
        step.limits,
        step.snapshot.head.timestamp_s,
        drifts,
        progress,
        remaining_value,
    ):
        return SliceDecision(
            Hold(end_text(execution, why)),
            end_reason=why,
        )
    began_text = format_time(execution.began_s)
    remaining_text = step.portfolio.numeraire.money_text(remaining_value)
    if execution.pace.style is not ExecutionStyle.LIMIT:
        slice_text = f"slice {progress.parts_done + 1} of about {execution.rounds} from {began_text}, {remaining_text} to move"
    else:
        slice_text = (
            f"the limit-price correction started {began_text}, {remaining_text} still to trade"
        )
    if now_s < progress.next_s:
        return SliceDecision(
            Hold(
                f"{slice_text}: due {format_time(progress.next_s)}",
                "execution.style",
            )
        )
    execution_slice = ExecutionSlice(
        progress.parts_done + 1,
        _fraction_to_trade(progress, remaining_value, now_s),
        remaining_value,
    )
    if wait_reason := price_confirmation.unconfirmed_reason(step, prices, execution_signals):
        return SliceDecision(
            Hold(
                f"{slice_text}; but {wait_reason}; checked again in the next cycle",
                limiting_rule="policy.confirm_blocks",
            )
        )
    return SliceDecision(
        Rebalance(slice_text, partial_goal(drifts, execution.goal, execution_slice.traded_share)),
        execution_slice,
    )


def end_text(execution: GradualExecution, why: str) -> str:
    """Return the text of an execution's end."""
    return f"the gradual execution from {format_time(execution.began_s)} is over: {why}"


def execution_signals(step: StepInput, prices: Mapping[str, Price]) -> frozenset[PriceSignal]:
    """Return the signals of tokens that still have to move in the execution's direction. Raises
    Refused.
    """
    progress = step.layer(GradualState).progress
    if progress is None:
        return frozenset()
    correction_by_token = corrections(compute_drifts(step, prices), progress.execution.goal)
    side_by_token = dict(progress.execution.side_by_token)
    return frozenset(
        (bands.TOO_LITTLE if correction > 0 else bands.TOO_MUCH, token)
        for token, correction in correction_by_token.items()
        if correction * side_by_token.get(token, 0) > 0
    )


def find_prior_carryover(step: StepInput) -> BudgetCarryover | None:
    """Return the shared budget used by earlier executions, for a new one; None if the new one has
    its own. It comes from the execution that ends in this cycle, or from the store until the first
    execution's time is over.
    """
    progress = step.layer(GradualState).progress
    if progress is None:
        carryover = step.layer(GradualState).carryover
    else:
        carryover = carried_budget(progress, invalidation_reason(step))
    if carryover is not None and step.snapshot.head.timestamp_s < carryover.until_s:
        return carryover
    return None


def carried_budget(progress: ExecutionProgress, why: str) -> BudgetCarryover:
    """Return the used budget that an execution ended by `why` carries over; gains do not enlarge
    the budget.
    """
    execution = progress.execution
    prior_carryover = execution.carryover or BudgetCarryover(
        execution.expires_s, Fraction(0), Fraction(0)
    )
    spent_value = prior_carryover.lost_value + max(Fraction(0), progress.lost_value)
    return BudgetCarryover(
        prior_carryover.until_s,
        max(prior_carryover.value_to_move, execution.value_to_move),
        spent_value,
        execution.arrival_prices if why == TARGETS_CHANGED_REASON else (),
    )


def budget_left(
    pace: ExecutionPace, intended_value: Value, prior_carryover: BudgetCarryover | None
) -> Value | None:
    """Return the remaining budget of an execution of this value; None without a budget.

    Executions that share a budget may together lose no more than the largest alone.
    """
    if pace.max_loss_bps is None:
        return None
    budget_share = Fraction(pace.max_loss_bps, BPS)
    own_budget = intended_value * budget_share
    if prior_carryover is None:
        return own_budget
    return max(
        Fraction(0),
        min(
            own_budget,
            max(intended_value, prior_carryover.value_to_move) * budget_share
            - prior_carryover.lost_value,
        ),
    )


def format_budget(portfolio: Portfolio, execution: GradualExecution) -> str:
    """Format an execution's budget, and mark the remainder of a shared one."""
    budget_text = portfolio.numeraire.money_text(execution.max_loss or Fraction(0))
    if execution.carryover is None:
        return budget_text
    return f"{budget_text}, the remainder of a budget shared until {format_time(execution.carryover.until_s)}"


def _fraction_to_trade(progress: ExecutionProgress, remaining_value: Value, now_s: int) -> Fraction:
    """Return the fraction of the remainder to trade now; all if no further slice could begin in
    time, unless it is more than random slices leave: value_to_move / √rounds. Such a rest of a
    pause is sliced until the expiry.
    """
    execution = progress.execution
    if execution.pace.style is ExecutionStyle.LIMIT:
        return Fraction(1)
    shortest_wait_s = mean_interval_s(execution.pace, execution.rounds) * jitter_factor(
        0, execution.pace.time_jitter_bps
    )
    is_last = now_s + shortest_wait_s > execution.ends_s
    if is_last and remaining_value**2 * execution.rounds <= execution.value_to_move**2:
        return Fraction(1)
    return slice_fraction(execution, progress.draw, remaining_value)


def _end_reason(
    portfolio: Portfolio,
    limits: Limits,
    now_s: int,
    drifts: Sequence[AssetDrift],
    progress: ExecutionProgress,
    remaining_value: Value,
) -> str:
    """Return why there will be no further slice; empty while there may be one."""
    execution = progress.execution
    min_value = limits.min_trade or Fraction(0)
    slices_text = "1 slice" if progress.parts_done == 1 else f"{progress.parts_done} slices"
    if execution.pace.style is ExecutionStyle.LIMIT and progress.parts_done:
        return "done at its price"
    if reversal := _reversal_text(
        drifts, execution, max(min_value, mean_slice_value(execution) / REVERSAL_DIVISOR)
    ):
        return f"prices reversed after {slices_text}: {reversal}"
    if remaining_value == 0 or remaining_value < min_value:
        if progress.parts_done:
            return f"done in {slices_text}"
        return "the drift is gone"
    if now_s >= execution.expires_s:
        return (
            f"its time ended {format_time(execution.expires_s)} after {slices_text};"
            f" {portfolio.numeraire.money_text(remaining_value)} remain"
        )
    if execution.max_loss is not None and progress.lost_value >= execution.max_loss:
        loss_text = f"it has lost {portfolio.numeraire.money_text(progress.lost_value)} against the prices at its start"
        return (
            f"after {slices_text} {loss_text}, its budget is {format_budget(portfolio, execution)}"
        )
    return ""


def _remaining_value(drifts: Sequence[AssetDrift], execution: GradualExecution) -> Value:
    """Return the value that still has to move in the initial direction."""
    correction_by_token = corrections(drifts, execution.goal)
    side_by_token = dict(execution.side_by_token)
    value_to_sell = sum(
        (
            -correction
            for token, correction in correction_by_token.items()
            if correction < 0 and side_by_token.get(token) == -1
        ),
        Fraction(0),
    )
    value_to_buy = sum(
        (
            correction
            for token, correction in correction_by_token.items()
            if correction > 0 and side_by_token.get(token) == 1
        ),
        Fraction(0),
    )
    return max(value_to_sell, value_to_buy)


def _reversal_text(
    drifts: Sequence[AssetDrift], execution: GradualExecution, min_value: Value
) -> str:
    side_by_token = dict(execution.side_by_token)
    for drift, correction in zip(drifts, corrections(drifts, execution.goal).values(), strict=True):
        if abs(correction) > min_value and correction * side_by_token.get(drift.token, 0) < 0:
            return (
                f"{drift.symbol} would now have to be {'bought' if correction > 0 else 'sold'} instead of"
                f" {'sold' if correction > 0 else 'bought'}"
            )
    return ""


def continue_execution(context: DecisionContext) -> DecisionResult | None:
    """Trade the due slice of a gradual execution, or wait for it."""
    step = context.step
    prices = context.prices
    if (slice_decision := decide_slice(step, context.drifts, prices)) is None:
        return None
    gradual_result = GradualResult(slice_decision.due_slice, slice_decision.end_reason)
    decision_result = context.result(slice_decision.decision).with_layer(gradual_result)
    if gradual_result.due_slice is not None and (
        top_up := native_coin.top_up(step, decision_result.decision)
    ):
        return decision_result.without_trades(top_up)
    return decision_result


def end_if_invalid(step: StepInput, decision_result: DecisionResult) -> DecisionResult:
    """Return the decision with the end of an execution whose terms no longer match."""
    if not (end_reason := invalidation_reason(step)):
        return decision_result
    return decision_result.with_layer(
        replace(decision_result.layer(GradualResult), end_reason=end_reason)
    )
