"""Covariances of a zone from recorded prices, for values that are not configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import NoTradeZone, Policy, StepInput, TrackingRisk
from agent.policy.risk import (
    LEAST_VOLATILITY_BPS,
    MOST_CORRELATION_BPS,
    MOST_VOLATILITY_BPS,
    Matrix,
    first_contradiction,
)
from agent.policy.target_changes import trusted_time_s
from agent.units import BPS, format_duration, format_time
from agent.weights.risk_estimates import RiskEstimate, estimate_risk

Pairs = Mapping[frozenset[str], int]
TOWARDS_NONE = Fraction(99, 100)
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
    names = {asset.token.address: asset.token.label for asset in step.portfolio.assets}
    volatilities = {step.portfolio.numeraire.address: LEAST_VOLATILITY_BPS} | dict(
        risk.volatilities_bps
    )
    estimated = [token for token in names if token not in volatilities]
    try:
        if estimated:
            estimate = estimate_risk(
                trigger.risk.measuring,
                estimated,
                names,
                step.history.prices,
                trusted_time_s(step.snapshot),
            )
        else:
            estimate = None
    except Refused as why:
        return _with(step, replace(risk, unmeasured=why.message))
    spread = volatilities | {
        token: _within(bps)
        for token, bps in (() if estimate is None else estimate.volatilities_bps)
    }
    pairs_found = () if estimate is None else estimate.correlations_bps
    known = {
        frozenset((name, other)): bps for name, other, bps in (*pairs_found, *risk.correlations_bps)
    }
    pairs = [(name, other) for number, other in enumerate(names) for name in [*names][:number]]
    related = _possible({pair: _close(known.get(frozenset(pair), 0)) for pair in pairs}, [*names])
    complete = replace(
        risk,
        volatilities_bps=tuple((token, spread[token]) for token in names),
        correlations_bps=tuple((*pair, bps) for pair, bps in related.items()),
    )
    return _with(step, replace(complete, measured=_words(complete, names, estimate)))


def _with(step: StepInput, risk: TrackingRisk) -> StepInput:
    return replace(step, policy=replace(step.policy, trigger=NoTradeZone(risk)))


def _within(bps: int) -> int:
    return min(max(bps, LEAST_VOLATILITY_BPS), MOST_VOLATILITY_BPS)


def _close(bps: int) -> int:
    return min(max(bps, -MOST_CORRELATION_BPS), MOST_CORRELATION_BPS)


def _possible(pairs: dict[tuple[str, str], int], tokens: list[str]) -> dict[tuple[str, str], int]:
    """Scale correlations towards zero until they are consistent, because rounding or configured
    values may contradict them.
    """
    while first_contradiction(_matrix(pairs, tokens)) is not None:
        pairs = {pair: int(bps * TOWARDS_NONE) for pair, bps in pairs.items()}
    return pairs


def _matrix(pairs: Mapping[tuple[str, str], int], tokens: list[str]) -> Matrix:
    known: Pairs = {frozenset(pair): bps for pair, bps in pairs.items()}
    return [
        [
            Fraction(1) if token == other else Fraction(known[frozenset((token, other))], BPS)
            for other in tokens
        ]
        for token in tokens
    ]


def _words(risk: TrackingRisk, names: Mapping[str, str], found: RiskEstimate | None) -> str:
    """Format the measured values and their sample."""
    if found is None or risk.measuring is None:
        return "volatilities as configured"
    spread, own = dict(risk.volatilities_bps), [token for token, _ in found.volatilities_bps]
    listed = [f"{names[token]} {spread[token] / 100:g} %" for token in own]
    listed += [
        f"{names[correlations_bp]}/{names[other]} {bps / 100:g} %"
        for correlations_bp, other, bps in risk.correlations_bps
        if correlations_bp in own and other in own
    ]
    of = (
        f"{found.count} returns over {format_duration(risk.measuring.step_s)},"
        f" {format_time(found.from_s)} to {format_time(found.until_s)}"
    )
    return f"annual volatilities and correlations from {of}: {', '.join(listed)}"
