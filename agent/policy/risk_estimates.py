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
    first_contradicting_row,
)
from agent.policy.target_changes import trusted_time_s
from agent.units import BPS, format_duration, format_time
from agent.weights.risk_estimates import RiskEstimate, estimate_risk

BpsByPair = Mapping[frozenset[str], int]
SHRINK_FACTOR = Fraction(99, 100)
"""Factor by which correlations are shrunk, repeatedly, until every mix of tokens keeps some risk.
"""


def price_history_and_step_s(policy: Policy) -> tuple[int, int]:
    """Return (seconds, step in seconds) of recorded prices that the zone measures; (0, 0) if it
    measures nothing.
    """
    risk = policy.trigger.risk if isinstance(policy.trigger, NoTradeZone) else None
    measuring = None if risk is None else risk.estimation_window
    if measuring is None:
        return (0, 0)
    return (measuring.window_s + measuring.step_s, measuring.step_s)


def apply_measured_risk(step: StepInput) -> StepInput:
    """Return the step with its zone's volatilities and correlations from recorded prices;
    configured values take precedence. The numeraire, whose own price is constant, gets the minimum
    volatility and no correlation. If prices are missing or too old, `no_sample_reason` has the
    reason, and the zone holds.
    """
    trigger = step.policy.trigger
    if not isinstance(trigger, NoTradeZone) or trigger.risk.estimation_window is None:
        return step
    risk = trigger.risk
    label_by_token = {asset.token.address: asset.token.label for asset in step.portfolio.assets}
    known_volatilities_bps = {step.portfolio.numeraire.address: MIN_VOLATILITY_BPS} | dict(
        risk.volatilities_bps
    )
    unconfigured_tokens = [token for token in label_by_token if token not in known_volatilities_bps]
    try:
        if unconfigured_tokens:
            estimate = estimate_risk(
                trigger.risk.estimation_window,
                unconfigured_tokens,
                label_by_token,
                step.history.prices,
                trusted_time_s(step.snapshot),
            )
        else:
            estimate = None
    except Refused as refusal:
        return _with_risk(step, replace(risk, no_sample_reason=refusal.message))
    all_volatilities_bps = known_volatilities_bps | {
        token: _bounded_volatility(bps)
        for token, bps in (() if estimate is None else estimate.volatilities_bps)
    }
    estimated_correlations = () if estimate is None else estimate.correlations_bps
    known_bps_by_pair = {
        frozenset((token_a, token_b)): bps
        for token_a, token_b, bps in (*estimated_correlations, *risk.correlations_bps)
    }
    token_pairs = [
        (token_a, token_b)
        for index, token_b in enumerate(label_by_token)
        for token_a in [*label_by_token][:index]
    ]
    consistent_bps_by_pair = _shrink_to_consistent(
        {
            token_pair: _bounded_correlation(known_bps_by_pair.get(frozenset(token_pair), 0))
            for token_pair in token_pairs
        },
        [*label_by_token],
    )
    complete_risk = replace(
        risk,
        volatilities_bps=tuple((token, all_volatilities_bps[token]) for token in label_by_token),
        correlations_bps=tuple(
            (*token_pair, bps) for token_pair, bps in consistent_bps_by_pair.items()
        ),
    )
    return _with_risk(
        step,
        replace(complete_risk, sample_text=_measured_text(complete_risk, label_by_token, estimate)),
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
    while first_contradicting_row(_correlation_matrix(bps_by_pair, tokens)) is not None:
        bps_by_pair = {
            token_pair: int(bps * SHRINK_FACTOR) for token_pair, bps in bps_by_pair.items()
        }
    return bps_by_pair


def _correlation_matrix(bps_by_pair: Mapping[tuple[str, str], int], tokens: list[str]) -> Matrix:
    bps_by_token_set: BpsByPair = {
        frozenset(token_pair): bps for token_pair, bps in bps_by_pair.items()
    }
    return [
        [
            Fraction(1)
            if token == other_token
            else Fraction(bps_by_token_set[frozenset((token, other_token))], BPS)
            for other_token in tokens
        ]
        for token in tokens
    ]


def _measured_text(
    risk: TrackingRisk, label_by_token: Mapping[str, str], estimate: RiskEstimate | None
) -> str:
    """Format the measured values and their sample."""
    if estimate is None or risk.estimation_window is None:
        return "volatilities as configured"
    volatility_bps_by_token, estimated_tokens = (
        dict(risk.volatilities_bps),
        [token for token, _ in estimate.volatilities_bps],
    )
    estimate_texts = [
        f"{label_by_token[token]} {volatility_bps_by_token[token] / 100:g} %"
        for token in estimated_tokens
    ]
    estimate_texts += [
        f"{label_by_token[token_a]}/{label_by_token[token_b]} {bps / 100:g} %"
        for token_a, token_b, bps in risk.correlations_bps
        if token_a in estimated_tokens and token_b in estimated_tokens
    ]
    sample_text = (
        f"{estimate.return_count} returns over {format_duration(risk.estimation_window.step_s)},"
        f" {format_time(estimate.from_s)} to {format_time(estimate.until_s)}"
    )
    return f"annual volatilities and correlations from {sample_text}: {', '.join(estimate_texts)}"
