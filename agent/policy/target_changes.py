"""Replacement of targets, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import (
    Allocation,
    AllocationMethod,
    AllocatorConfig,
    History,
    InitialWeights,
    Portfolio,
    Snapshot,
    StepInput,
)
from agent.policy.targets import (
    choose_allocation,
    format_allocation,
    is_allocation_due,
    valid_allocation,
)
from agent.reference import reference_prices
from agent.weights.allocators import AllocatorData


def with_targets(step: StepInput, targets_bps: Mapping[str, int], why: str) -> StepInput:
    """Return the step with these effective targets by token address, which sum to 10,000 over all
    assets; each decision reports `why`.
    """
    return replace(
        step,
        targets=replace(
            step.targets,
            effective_bps=tuple(targets_bps.items()),
            reasons=(*step.targets.reasons, why),
        ),
    )


AHEAD_S = 30
"""Seconds by which a block's time may be ahead of the agent's clock; later times are not
trusted."""


def apply_allocation(step: StepInput) -> StepInput:
    """Return the step with the allocator's targets, and the allocation in its history.

    A due allocation is chosen here from the step alone, so that equal steps give equal choices; the
    engine stores it. If the choice fails, the last one is valid for `keep`; before the first,
    `until_chosen` applies. Otherwise `history.unchosen` has the reason, and decide halts.
    """
    weights = step.portfolio.weights
    if weights is None or weights.method is AllocationMethod.FIXED:
        return step
    assets, now_s = step.portfolio.assets, trusted_time_s(step.snapshot)
    last = valid_allocation(weights, assets, step.history.allocation)
    if not is_allocation_due(weights, assets, last, now_s) and last is not None:
        return _with(step, last, format_allocation(last))
    try:
        chosen = choose_allocation(weights, assets, allocator_inputs(step), last)
    except Refused as missing:
        return _without(step, weights, last, missing.message)
    return _with(step, chosen, format_allocation(chosen))


def allocator_inputs(step: StepInput) -> AllocatorData:
    """Return the allocator's data: recorded prices, supplies, the signal's answer, and current
    prices. Only the numeraire has a current price if the policy requires confirmed prices.
    """
    portfolio = step.portfolio
    current = {portfolio.numeraire.address: Fraction(1)}
    if step.policy.confirm_blocks == 0:
        current |= reference_prices(step).by_token
    names = {asset.token.address: asset.token.label for asset in portfolio.assets}
    return AllocatorData(
        trusted_time_s(step.snapshot),
        step.history.prices,
        names,
        step.snapshot.supplies,
        current,
        next((answer for state in step.history.layers for answer in state.weights_answers), None),
    )


def allocation_history_s(portfolio: Portfolio, last: Allocation | None, now_s: int) -> int:
    """Return the seconds of prices a choice needs, one price per `step_s`; 0 while none is due,
    so that few steps carry them.
    """
    weights = portfolio.weights
    if weights is None or not is_allocation_due(weights, portfolio.assets, last, now_s):
        return 0
    if weights.method.needs_window:
        return weights.window_s + weights.step_s
    return weights.max_age_s


def trusted_time_s(snapshot: Snapshot) -> int:
    """Return chain time, capped at AHEAD_S ahead of the agent's clock, because a header from the
    future must not fix a choice (T6).
    """
    return min(snapshot.head.timestamp_s, snapshot.now_s + AHEAD_S)


def missing_weights_reason(history: History) -> str:
    """Return why missing weights block trading; empty if there are weights."""
    if history.unchosen:
        return f"no target weights: {history.unchosen}"
    return ""


def _with(step: StepInput, chosen: Allocation, why: str) -> StepInput:
    history = replace(step.history, allocation=chosen, unchosen="")
    return with_targets(replace(step, history=history), dict(chosen.weights_bps), why)


def _without(
    step: StepInput, weights: AllocatorConfig, last: Allocation | None, why: str
) -> StepInput:
    """Return the step with the last allocation while it is valid, after a choice failed."""
    if (
        last is not None
        and trusted_time_s(step.snapshot) <= last.at_s + weights.every_s + weights.keep_s
    ):
        return _with(
            step,
            last,
            f"{format_allocation(last)}; kept, because no new weights could be chosen: {why}",
        )
    if last is None and weights.until_chosen is InitialWeights.TARGETS:
        reason = (
            f"targets of the config, until weights by {weights.method.value} can be chosen: {why}"
        )
        return replace(
            step,
            history=replace(step.history, allocation=None),
            targets=replace(step.targets, reasons=(*step.targets.reasons, reason)),
        )
    if last is None:
        stood = ""
    else:
        stood = "; the last ones are older than portfolio.weights.keep"
    return replace(
        step,
        history=replace(
            step.history, allocation=None, unchosen=f"{weights.method.value}: {why}{stood}"
        ),
    )
