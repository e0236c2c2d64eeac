"""Covariances of a zone from recorded prices, for values that are not configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import NoTradeZone, Policy, StepInput, TrackingRisk
from agent.policy.risk import (
    MAX_CORRELATION_BPS,
    MAX_VOLATILITY_BPS,
    MIN_VOLATILITY_BPS,
    Matrix,
    first_contradiction,
)
from agent.policy.target_changes import trusted_time_s
from agent.units import BPS, format_duration, format_time
from agent.weights.risk_estimates import RiskEstimate, estimate_risk

BpsByPair = Mapping[frozenset[str], int]
SHRINK_FACTOR = Fraction(99, 100)
"""Factor by which correlations are shrunk, repeatedly, until every mix of tokens keeps some risk.
"""


def price_history_needed(policy: Policy) -> tuple[int, int]:
    """Return (seconds, step in seconds) of recorded prices that the zone measures; (0, 0) if it
    measures nothing.
    """
    risk = policy.trigger.risk if isinstance(policy.trigger, NoTradeZone) else None
    window = None if risk is None else risk.measuring
    if window is None:
        return (0, 0)
    return (window.window_s + window.step_s, window.step_s)


def apply_measured_risk(step: StepInput) -> StepInput:
    """Return the step with its zone's volatilities and correlations from recorded prices;
    configured values take precedence. The numeraire, whose own price is constant, gets the minimum
    volatility and no correlation. If prices are missing or too old, `unmeasured` has the reason,
    and the zone holds.
    """
    trigger = step.policy.trigger
    if not isinstance(trigger, NoTradeZone) or trigger.risk.measuring is None:
        return step
    risk = trigger.risk
    labels = {asset.token.address: asset.token.label for asset in step.portfolio.assets}
    known_volatilities_bps = {step.portfolio.numeraire.address: MIN_VOLATILITY_BPS} | dict(
        risk.volatilities_bps
    )
    unset_tokens = [token for token in labels if token not in known_volatilities_bps]
    try:
        if unset_tokens:
            estimate = estimate_risk(
                trigger.risk.measuring,
                unset_tokens,
                labels,
                step.history.prices,
                trusted_time_s(step.snapshot),
            )
        else:
            estimate = None
    except Refused as refusal:
        return _with_risk(step, replace(risk, unmeasured=refusal.message))
    all_volatilities_bps = known_volatilities_bps | {
        token: _bounded_volatility(bps)
        for token, bps in (() if estimate is None else estimate.volatilities_bps)
    }
    estimated_correlations = () if estimate is None else estimate.correlations_bps
    correlation_of = {
        frozenset((first, other)): bps
        for first, other, bps in (*estimated_correlations, *risk.correlations_bps)
    }
    pairs = [(first, other) for index, other in enumerate(labels) for first in [*labels][:index]]
    correlation_bps_by_pair = _shrink_to_consistent(
        {pair: _bounded_correlation(correlation_of.get(frozenset(pair), 0)) for pair in pairs},
        [*labels],
    )
    complete_risk = replace(
        risk,
        volatilities_bps=tuple((token, all_volatilities_bps[token]) for token in labels),
        correlations_bps=tuple((*pair, bps) for pair, bps in correlation_bps_by_pair.items()),
    )
    return _with_risk(
        step, replace(complete_risk, measured=_measured_text(complete_risk, labels, estimate))
    )


def _with_risk(step: StepInput, risk: TrackingRisk) -> StepInput:
    return replace(step, policy=replace(step.policy, trigger=NoTradeZone(risk)))


def _bounded_volatility(bps: int) -> int:
    return min(max(bps, MIN_VOLATILITY_BPS), MAX_VOLATILITY_BPS)


def _bounded_correlation(bps: int) -> int:
    return min(max(bps, -MAX_CORRELATION_BPS), MAX_CORRELATION_BPS)


def _shrink_to_consistent(
    bps_by_pair: dict[tuple[str, str], int], tokens: list[str]
) -> dict[tuple[str, str], int]:
    """Scale correlations towards zero until they are consistent, because rounding or configured
    values may contradict them.
    """
    while first_contradiction(_matrix(bps_by_pair, tokens)) is not None:
        bps_by_pair = {pair: int(bps * SHRINK_FACTOR) for pair, bps in bps_by_pair.items()}
    return bps_by_pair


def _matrix(bps_by_pair: Mapping[tuple[str, str], int], tokens: list[str]) -> Matrix:
    correlation_of: BpsByPair = {frozenset(pair): bps for pair, bps in bps_by_pair.items()}
    return [
        [
            Fraction(1)
            if token == other
            else Fraction(correlation_of[frozenset((token, other))], BPS)
            for other in tokens
        ]
        for token in tokens
    ]


def _measured_text(
    risk: TrackingRisk, labels: Mapping[str, str], estimate: RiskEstimate | None
) -> str:
    """Format the measured values and their sample."""
    if estimate is None or risk.measuring is None:
        return "volatilities as configured"
    volatility_bps, estimated_tokens = (
        dict(risk.volatilities_bps),
        [token for token, _ in estimate.volatilities_bps],
    )
    value_texts = [
        f"{labels[token]} {volatility_bps[token] / 100:g} %" for token in estimated_tokens
    ]
    value_texts += [
        f"{labels[first]}/{labels[other]} {bps / 100:g} %"
        for first, other, bps in risk.correlations_bps
        if first in estimated_tokens and other in estimated_tokens
    ]
    sample_text = (
        f"{estimate.count} returns over {format_duration(risk.measuring.step_s)},"
        f" {format_time(estimate.from_s)} to {format_time(estimate.until_s)}"
    )
    return f"annual volatilities and correlations from {sample_text}: {', '.join(value_texts)}"
