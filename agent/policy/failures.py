"""Limits on consecutive failures, and the back-off of a failing exit, which outlasts an attacker
who makes it revert (T6, T20).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.model import (
    ExitFailures,
    History,
    LegPlace,
    Plan,
    Provide,
    StepInput,
    TopUp,
)
from agent.units import NATIVE

MAX_REVERTS_IN_ROW = 3
"""Consecutive reverts after which the operator must act: each burns gas, and three are unlikely to
be chance.
"""
MAX_APPROVALS_IN_ROW = 8
"""Approval cycles without a swap after which the operator must act: each approves and revokes, which
costs gas.
"""
FIRST_WAIT_S = 60
LONGEST_WAIT_S = 3_600
"""First and longest wait of an exit after too many of its own failures, in chain seconds; the wait
doubles with each failure that cost gas.
"""


def too_many_failures(reverts: int, approvals: int) -> bool:
    """True if consecutive failures stop the agent until the owner resumes it."""
    return reverts >= MAX_REVERTS_IN_ROW or approvals >= MAX_APPROVALS_IN_ROW


def is_stopped(history: History) -> bool:
    """True if rebalances and liquidity moves towards targets wait for the owner."""
    return history.failures.is_stopped or too_many_failures(
        history.failures.reverts_in_row, history.failures.approval_cycles_in_row
    )


def exit_name(plan: Plan) -> str:
    """Return the name that failures of a risk-reducing plan are counted under; empty for every
    other plan.

    It is the token sold (several are separated by spaces), the pool of the first withdrawal, or
    what a layer reduces; NATIVE for gas money.
    """
    if plan.acts_in_layer:
        return next(
            (layer_plan.exit_name for layer_plan in plan.layers if layer_plan.exit_name), ""
        )
    if plan.layer_actions:
        is_provision = any(isinstance(action, Provide) for action in plan.layer_actions)
        return "" if is_provision else plan.layer_actions[0].pool
    if isinstance(plan.decision, TopUp):
        return NATIVE
    if not plan.is_exit:
        return ""
    sold_tokens = {
        leg.token_out if leg.token_in == NATIVE else leg.token_in
        for leg in plan.legs
        if leg.source is LegPlace.WALLET and leg.token_out != NATIVE
    }
    return " ".join(sorted(sold_tokens))


def exit_failures(history: History, name: str) -> ExitFailures:
    """Return the failures of the exit of this name."""
    failures_by_exit = {failures.exit_name: failures for failures in history.failures.failed_exits}
    return failures_by_exit.get(name, ExitFailures(name, 0, 0, 0))


def retry_wait_s(failures: ExitFailures, *, is_emergency: bool = False) -> int:
    """Return the seconds of chain time that an exit waits after its newest failure; 0 below the
    limit of failures. An emergency waits FIRST_WAIT_S, and so does an exit whose failures cost no
    gas, such as rejections of an off-chain venue: only gas has to be saved.
    """
    if not too_many_failures(failures.revert_count, failures.approval_cycle_count):
        return 0
    if is_emergency:
        return FIRST_WAIT_S
    paid_revert_count = failures.revert_count - failures.free_revert_count
    excess_failures = max(
        paid_revert_count - MAX_REVERTS_IN_ROW,
        failures.approval_cycle_count - MAX_APPROVALS_IN_ROW,
    )
    return min(FIRST_WAIT_S << min(max(0, excess_failures), 16), LONGEST_WAIT_S)


def retry_at_s(failures: ExitFailures, *, is_emergency: bool = False) -> int:
    """Return the chain time from which an exit may be tried again, for planner and guard alike; 0
    below the limit of failures.
    """
    wait_s = retry_wait_s(failures, is_emergency=is_emergency)
    return failures.at_s + wait_s if wait_s else 0


def with_refused_markets(step: StepInput, refused_at_s: Mapping[str, int]) -> StepInput:
    """Return the step with these reductions, refused before sending (chain time by futures market),
    counted as too many reverts, so that they back off.
    """
    if not refused_at_s:
        return step
    refused_failures = tuple(
        ExitFailures(market_name, MAX_REVERTS_IN_ROW, 0, at_s)
        for market_name, at_s in refused_at_s.items()
    )
    other_failures = tuple(
        failures
        for failures in step.history.failures.failed_exits
        if failures.exit_name not in refused_at_s
    )
    return replace(
        step,
        history=replace(
            step.history,
            failures=replace(
                step.history.failures, failed_exits=(*refused_failures, *other_failures)
            ),
        ),
    )
