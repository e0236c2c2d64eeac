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
from agent.policy.triggers import price_confirmation
from agent.policy.triggers.bands import Signal
from agent.units import BPS, Price, Value, ceil_int, format_time, value_text

# --- Slice arithmetic: size and time of the next slice, with random draws.


MILLION = 1_000_000
EVEN = SliceDraw(MILLION // 2, MILLION // 2)
"""Draw without jitter, for an execution that has no stored draw."""
MAX_DURATION_FACTOR = 2
"""Longest duration of ROUNDS as a multiple of the expected duration."""


def jitter_factor(ppm: int, jitter_bps: int) -> Fraction:
    """Map a draw in millionths to a factor from 1 - jitter to 1 + jitter, uniform."""
    jitter = Fraction(jitter_bps, BPS)
    return 1 - jitter + 2 * jitter * Fraction(ppm, MILLION - 1)


def mean_slice_value(execution: GradualExecution) -> Value:
    """Return the mean value of a slice, numeraire base units."""
    return execution.wish / execution.rounds


def slice_value(execution: GradualExecution, draw: SliceDraw) -> Value:
    """Return the value of the next slice, before `slice_fraction` caps it at the remainder. Draws
    are independent, so no slice predicts another (T15).
    """
    return mean_slice_value(execution) * jitter_factor(
        draw.size_ppm, execution.pace.size_jitter_bps
    )


def slice_fraction(execution: GradualExecution, draw: SliceDraw, left: Value) -> Fraction:
    """Return the next slice as a fraction of `left`; 1 if no more than one slice remains."""
    value = slice_value(execution, draw)
    return Fraction(1) if left <= value else value / left


def mean_interval_s(pace: ExecutionPace, rounds: int) -> int:
    """Return the mean time between two slices, seconds."""
    return max(1, pace.over_s // rounds if pace.style is ExecutionStyle.TWAP else pace.interval_s)


def slice_wait_s(execution: GradualExecution, draw: SliceDraw) -> int:
    """Return the seconds from one slice to the next."""
    return ceil_int(
        mean_interval_s(execution.pace, execution.rounds)
        * jitter_factor(draw.wait_ppm, execution.pace.time_jitter_bps)
    )


def execution_deadlines(pace: ExecutionPace, rounds: int, began_s: int) -> tuple[int, int]:
    """Return the last chain time at which a slice may begin, and the expiry one mean interval
    later, in case the agent was paused.
    """
    if pace.style is ExecutionStyle.LIMIT:
        return began_s + pace.patience_s, began_s + pace.patience_s
    mean_s = mean_interval_s(pace, rounds)
    if pace.style is ExecutionStyle.TWAP:
        length_s = pace.over_s
    else:
        length_s = MAX_DURATION_FACTOR * rounds * mean_s
    return began_s + length_s, began_s + length_s + mean_s


SAME_BPS = 25
"""Largest target change that is ignored: allocators and strategies move targets a little every
cycle.
"""
TARGETS_CHANGED = "the portfolio's targets changed"
"""Reason of an execution ended by changed targets; the next execution continues with its prices and
budget.
"""
REVERSAL_DIVISOR = 10
"""Divisor of a mean slice: an overshoot above 1/10 of it counts as a price reversal; less is
rounding of slices.
"""


@dataclass(frozen=True, slots=True)
class SliceDecision:
    """Decision on the current gradual execution.

    `round` is the due slice, `ended` the reason if it is over.
    """

    decision: Decision
    round: ExecutionSlice | None = None
    ended: str = ""


def invalidation_reason(step: StepInput) -> str:
    """Return why the execution's terms no longer match config or targets; empty while they match,
    or without an execution.
    """
    under = step.layer(GradualState).progress
    if under is None:
        return ""
    begun = under.execution
    if step.divides_wallet:
        return "parts of the wallet have targets of their own now"
    if _other(dict(target_weights(step.effective_assets)), dict(begun.targets_bps)):
        return TARGETS_CHANGED
    if step.policy.destination is not begun.destination:
        return "policy.destination was changed"
    if step.policy.only is not begun.only:
        return "policy.only was changed"
    if step.execution.pace == begun.pace:
        return ""
    return "[execution] was changed"


def _other(now_bps: Mapping[str, int], then_bps: Mapping[str, int]) -> bool:
    """True if tokens, their order or targets differ; a target that becomes zero or non-zero always
    differs.
    """
    if [*now_bps] != [*then_bps]:
        return True
    return any(
        abs(bps - then_bps[token]) > SAME_BPS or (bps == 0) != (then_bps[token] == 0)
        for token, bps in now_bps.items()
    )


def decide_slice(
    step: StepInput, drifts: Sequence[AssetDrift], prices: Mapping[str, Price]
) -> SliceDecision | None:
    """Return the decision on the current execution; None if there is none or its terms no longer
    match.
    """
    under = step.layer(GradualState).progress
    if under is None or invalidation_reason(step):
        return None
    begun, now_s = under.execution, step.snapshot.head.timestamp_s
    left = _left(drifts, begun)
    if why := _over(
        step.portfolio, step.limits, step.snapshot.head.timestamp_s, drifts, under, left
    ):
        return SliceDecision(
            Hold(over_text(begun, why)),
            ended=why,
        )
    began, rest = format_time(begun.began_s), _money(step.portfolio, left)
    if begun.pace.style is not ExecutionStyle.LIMIT:
        message = f"slice {under.done + 1} of about {begun.rounds} from {began}, {rest} to move"
    else:
        message = f"the limit-price correction started {began}, {rest} still to trade"
    if now_s < under.next_s:
        return SliceDecision(
            Hold(f"{message}: due {format_time(under.next_s)}", under.next_s, "execution.style")
        )
    execution_slice = ExecutionSlice(under.done + 1, _part(under, left, now_s), left)
    if not_yet := price_confirmation.unconfirmed_reason(step, prices, execution_signals):
        return SliceDecision(
            Hold(
                f"{message}; but {not_yet}; checked again in the next cycle",
                kept_by="policy.confirm_blocks",
            )
        )
    return SliceDecision(
        Rebalance(message, partial_goal(drifts, begun.goal, execution_slice.part)), execution_slice
    )


def over_text(begun: GradualExecution, why: str) -> str:
    """Return the text of an execution's end."""
    return f"the gradual execution from {format_time(begun.began_s)} is over: {why}"


def execution_signals(step: StepInput, prices: Mapping[str, Price]) -> frozenset[Signal]:
    """Return the signals of tokens that still have to move in the execution's direction. Raises
    Refused.
    """
    under = step.layer(GradualState).progress
    if under is None:
        return frozenset()
    lacks = corrections(compute_drifts(step, prices), under.execution.goal)
    sides = dict(under.execution.sides)
    return frozenset(
        ("too little" if lack > 0 else "too much", token)
        for token, lack in lacks.items()
        if lack * sides.get(token, 0) > 0
    )


def prior_budget_use(step: StepInput) -> BudgetCarryover | None:
    """Return the shared budget used by earlier executions, for a new one; None if the new one has
    its own. It comes from the execution that ends in this cycle, or from the store until the first
    execution's time is over.
    """
    under = step.layer(GradualState).progress
    if under is None:
        carryover = step.layer(GradualState).carried
    else:
        carryover = carried_budget(under, invalidation_reason(step))
    if carryover is not None and step.snapshot.head.timestamp_s < carryover.until_s:
        return carryover
    return None


def carried_budget(under: ExecutionProgress, why: str) -> BudgetCarryover:
    """Return the used budget that an execution ended by `why` carries over; gains do not enlarge
    the budget.
    """
    begun = under.execution
    before = begun.before or BudgetCarryover(begun.expires_s, Fraction(0), Fraction(0))
    lost = before.spent + max(Fraction(0), under.spent)
    return BudgetCarryover(
        before.until_s,
        max(before.wish, begun.wish),
        lost,
        begun.arrival if why == TARGETS_CHANGED else (),
    )


def budget_left(
    pace: ExecutionPace, intended_value: Value, before: BudgetCarryover | None
) -> Value | None:
    """Return the remaining budget of an execution of this value; None without a budget.

    Executions that share a budget may together lose no more than the largest alone.
    """
    if pace.budget_bps is None:
        return None
    part = Fraction(pace.budget_bps, BPS)
    own = intended_value * part
    if before is None:
        return own
    return max(Fraction(0), min(own, max(intended_value, before.wish) * part - before.spent))


def format_budget(portfolio: Portfolio, begun: GradualExecution) -> str:
    """Format an execution's budget, and mark the remainder of a shared one."""
    budget = _money(portfolio, begun.budget or Fraction(0))
    if begun.before is None:
        return budget
    return f"{budget}, the remainder of a budget shared until {format_time(begun.before.until_s)}"


def _part(under: ExecutionProgress, left: Value, now_s: int) -> Fraction:
    """Return the fraction of the remainder to trade now; all if no further slice could begin in
    time.
    """
    begun = under.execution
    soonest_s = mean_interval_s(begun.pace, begun.rounds) * jitter_factor(
        0, begun.pace.time_jitter_bps
    )
    if begun.pace.style is ExecutionStyle.LIMIT or now_s + soonest_s > begun.ends_s:
        return Fraction(1)
    return slice_fraction(begun, under.draw, left)


def _over(
    portfolio: Portfolio,
    limits: Limits,
    now_s: int,
    drifts: Sequence[AssetDrift],
    under: ExecutionProgress,
    left: Value,
) -> str:
    """Return why there will be no further slice; empty while there may be one."""
    begun, least = under.execution, limits.min_trade or Fraction(0)
    rounds = "1 slice" if under.done == 1 else f"{under.done} slices"
    if begun.pace.style is ExecutionStyle.LIMIT and under.done:
        return "done at its price"
    if turned := _turned(drifts, begun, max(least, mean_slice_value(begun) / REVERSAL_DIVISOR)):
        return f"prices reversed after {rounds}: {turned}"
    if left == 0 or left < least:
        if under.done:
            return f"done in {rounds}"
        return "the drift is gone"
    if now_s >= begun.expires_s:
        return (
            f"its time ended {format_time(begun.expires_s)} after {rounds};"
            f" {_money(portfolio, left)} remain"
        )
    if begun.budget is not None and under.spent >= begun.budget:
        lost = f"it has lost {_money(portfolio, under.spent)} against the prices at its start"
        return f"after {rounds} {lost}, its budget is {format_budget(portfolio, begun)}"
    return ""


def _left(drifts: Sequence[AssetDrift], begun: GradualExecution) -> Value:
    """Return the value that still has to move in the initial direction."""
    lacks, sides = corrections(drifts, begun.goal), dict(begun.sides)
    sold = sum(
        (-lack for token, lack in lacks.items() if lack < 0 and sides.get(token) == -1), Fraction(0)
    )
    bought = sum(
        (lack for token, lack in lacks.items() if lack > 0 and sides.get(token) == 1), Fraction(0)
    )
    return max(sold, bought)


def _turned(drifts: Sequence[AssetDrift], begun: GradualExecution, least: Value) -> str:
    sides = dict(begun.sides)
    for drift, lack in zip(drifts, corrections(drifts, begun.goal).values(), strict=True):
        if abs(lack) > least and lack * sides.get(drift.token, 0) < 0:
            return (
                f"{drift.symbol} would now have to be {'bought' if lack > 0 else 'sold'} instead of"
                f" {'sold' if lack > 0 else 'bought'}"
            )
    return ""


def _money(portfolio: Portfolio, value: Value) -> str:
    numeraire = portfolio.numeraire
    return f"{value_text(value, numeraire.decimals, 2)} {numeraire.label}"


# --- Parts in the decision of a step.


def continue_execution(context: DecisionContext) -> DecisionResult | None:
    """Trade the due slice of a gradual execution, or wait for it."""
    step, prices = context.step, context.prices
    if (slice_decision := decide_slice(step, context.drifts, prices)) is None:
        return None
    part = GradualResult(slice_decision.round, slice_decision.ended)
    result = context.result(slice_decision.decision).with_layer(part)
    if part.due is not None and (first := native_coin.top_up(step, result.decision)):
        return result.held(first)
    return result


def end_if_invalid(step: StepInput, result: DecisionResult) -> DecisionResult:
    """Return the decision with the end of an execution whose terms no longer match."""
    if not (invalid := invalidation_reason(step)):
        return result
    return result.with_layer(replace(result.layer(GradualResult), ended=invalid))
