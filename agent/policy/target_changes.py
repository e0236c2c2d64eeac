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
    SignalAnswer,
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


def apply_allocation(step: StepInput) -> StepInput:
    """Return the step with the allocator's targets, and the allocation in its history.

    A due allocation is chosen here from the step alone, so that equal steps give equal choices; the
    engine stores it. If the choice fails, the last one stays valid for `max_overdue_s`; before the
    first, `until_chosen` applies. Otherwise `history.allocation_fault` has the reason, and decide
    halts.
    """
    allocator = step.portfolio.allocator
    if allocator is None or allocator.method is AllocationMethod.FIXED:
        return step
    assets = step.portfolio.assets
    now_s = step.snapshot.trusted_time_s
    last_allocation = valid_allocation(allocator, assets, step.history.allocation)
    if (
        not is_allocation_due(allocator, assets, last_allocation, now_s)
        and last_allocation is not None
    ):
        last_choice_text = format_allocation(last_allocation)
        if allocator.signal is not None and (answer := _signal_answer(step)) and answer.why:
            last_choice_text += f"; signal {answer.name} gives no new weights: {answer.why}"
        return _with_allocation(step, last_allocation, last_choice_text)
    try:
        allocation = choose_allocation(
            allocator, assets, allocator_inputs(step), step.history.allocation
        )
    except Refused as refusal:
        choice_fault = refusal.message
        if step.history.price_fault and allocator.method.needs_window:
            choice_fault += f"; past prices could not be read: {step.history.price_fault}"
        return _with_last_allocation(step, allocator, last_allocation, choice_fault)
    return _with_allocation(step, allocation, format_allocation(allocation))


def allocator_inputs(step: StepInput) -> AllocatorData:
    """Return the allocator's data: recorded prices, supplies, the signal's answer, and current
    prices. Only the numeraire has a current price if the policy requires confirmed prices.
    """
    portfolio = step.portfolio
    current_prices = {portfolio.numeraire.address: Fraction(1)}
    if step.policy.confirm_blocks == 0:
        current_prices |= reference_prices(step).price_by_token
    label_by_token = {asset.token.address: asset.token.label for asset in portfolio.assets}
    return AllocatorData(
        step.snapshot.trusted_time_s,
        step.history.prices,
        label_by_token,
        step.snapshot.supplies,
        current_prices,
        _signal_answer(step),
    )


def _signal_answer(step: StepInput) -> SignalAnswer | None:
    return next(
        (
            allocator_answer
            for layer_state in step.history.layers
            for allocator_answer in layer_state.allocator_answers
        ),
        None,
    )


def allocation_history_s(
    portfolio: Portfolio, last_allocation: Allocation | None, now_s: int
) -> int:
    """Return the seconds of prices a choice needs, one price per `step_s`; 0 while none is due,
    so that few steps carry them.
    """
    allocator = portfolio.allocator
    if allocator is None or not is_allocation_due(
        allocator, portfolio.assets, last_allocation, now_s
    ):
        return 0
    if allocator.method.needs_window:
        return allocator.window_s + allocator.step_s
    return allocator.max_age_s


def missing_weights_reason(history: History) -> str:
    """Return why missing weights block trading; empty if there are weights."""
    if history.allocation_fault:
        return f"no target weights: {history.allocation_fault}"
    return ""


def _with_allocation(step: StepInput, allocation: Allocation, why: str) -> StepInput:
    history = replace(step.history, allocation=allocation, allocation_fault="")
    return with_targets(replace(step, history=history), dict(allocation.weights_bps), why)


def _with_last_allocation(
    step: StepInput,
    allocator: AllocatorConfig,
    last_allocation: Allocation | None,
    choice_fault: str,
) -> StepInput:
    """Return the step with the last allocation while it is valid, after a choice failed. The
    targets of the config replace no weights that were chosen under other settings, and no first
    weights whose prices an endpoint failed to give.
    """
    if (
        last_allocation is not None
        and step.snapshot.trusted_time_s
        <= last_allocation.at_s + allocator.every_s + allocator.max_overdue_s
    ):
        return _with_allocation(
            step,
            last_allocation,
            f"{format_allocation(last_allocation)}; kept, because no new weights could be chosen: {choice_fault}",
        )
    awaits_prices = bool(step.history.price_fault) and allocator.method.needs_window
    if (
        step.history.allocation is None
        and allocator.initial_weights is InitialWeights.TARGETS
        and not awaits_prices
    ):
        initial_targets_reason = f"targets of the config, until weights by {allocator.method.value} can be chosen: {choice_fault}"
        return replace(
            step,
            targets=replace(step.targets, reasons=(*step.targets.reasons, initial_targets_reason)),
        )
    if last_allocation is None:
        expired_text = ""
    else:
        expired_text = "; the last weights are too old (portfolio.weights.keep)"
    method = allocator.method.value
    method_text = "" if choice_fault.startswith(f"{method} ") else f"{method}: "
    return replace(
        step,
        history=replace(
            step.history,
            allocation=None,
            allocation_fault=f"{method_text}{choice_fault}{expired_text}",
        ),
    )
