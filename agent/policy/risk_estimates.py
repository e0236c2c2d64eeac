"""Volatilities and correlations of a zone: as configured, else measured from recorded prices, else
usual ones of the token's class.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import NoTradeZone, Policy, Portfolio, StepInput, TrackingRisk, Trigger
from agent.policy.risk import (
    MAX_CORRELATION_BPS,
    MAX_VOLATILITY_BPS,
    MIN_VOLATILITY_BPS,
    correlation_matrix_bps,
    first_contradicting_row,
)
from agent.units import format_bps, format_duration, format_time
from agent.weights.asset_classes import class_correlation_bps, class_of, class_volatility_bps
from agent.weights.risk_estimates import RiskEstimate, estimate_risk

BpsByPair = dict[frozenset[str], int]
SHRINK_FACTOR = Fraction(19, 20)
"""Factor by which correlations are shrunk, repeatedly, until every mix of tokens keeps some risk.
"""


def price_history_and_step_s(
    policy: Policy, other_triggers: Iterable[Trigger] = ()
) -> tuple[int, int]:
    """Return (seconds, step in seconds) of recorded prices that zones measure, all of them in the
    same way; (0, 0) if they measure nothing.
    """
    for trigger in (policy.trigger, *other_triggers):
        window = trigger.risk.estimation_window if isinstance(trigger, NoTradeZone) else None
        if window is not None:
            return (window.window_s + window.step_s, window.step_s)
    return (0, 0)


def complete_risk(step: StepInput) -> StepInput:
    """Return the step with all volatilities and correlations of its zone. The numeraire, whose own
    price is constant, has the least volatility and no correlation, unless configured.
    """
    trigger = step.policy.trigger
    if not isinstance(trigger, NoTradeZone):
        return step
    estimate, no_sample_reason = _estimate(step, trigger.risk)
    completed = _completed(step.portfolio, trigger.risk, estimate, no_sample_reason)
    return replace(step, policy=replace(step.policy, trigger=NoTradeZone(completed)))


def unmeasured_risk(portfolio: Portfolio, risk: TrackingRisk) -> TrackingRisk:
    """Return the risk with all volatilities and correlations, as `complete_risk` does without
    recorded prices.
    """
    return _completed(portfolio, risk, None)


def _label_by_token(portfolio: Portfolio) -> dict[str, str]:
    return {asset.token.address: asset.token.label for asset in portfolio.assets}


def _configured_volatilities(portfolio: Portfolio, risk: TrackingRisk) -> dict[str, int]:
    """Return annual volatilities by token, bps: the owner's, and the least for the numeraire."""
    return {portfolio.numeraire.address: MIN_VOLATILITY_BPS} | dict(risk.volatilities_bps)


def _completed(
    portfolio: Portfolio,
    risk: TrackingRisk,
    estimate: RiskEstimate | None,
    no_sample_reason: str = "",
) -> TrackingRisk:
    label_by_token = _label_by_token(portfolio)
    numeraire = portfolio.numeraire
    configured_bps = _configured_volatilities(portfolio, risk)
    measured_bps = {} if estimate is None else dict(estimate.volatilities_bps)
    volatility_by_token = {
        token: configured_bps.get(token)
        or _bounded_volatility(
            measured_bps.get(token) or class_volatility_bps(label, numeraire.label)
        )
        for token, label in label_by_token.items()
    }
    known_bps_by_pair = {
        frozenset((first_token, second_token)): bps
        for first_token, second_token, bps in (
            *(() if estimate is None else estimate.correlations_bps),
            *risk.correlations_bps,
        )
    }
    tokens = [*label_by_token]
    bps_by_pair: BpsByPair = {}
    for index, second_token in enumerate(tokens):
        for first_token in tokens[:index]:
            pair = frozenset((first_token, second_token))
            bps = known_bps_by_pair.get(pair)
            if bps is None:
                bps = _class_correlation_bps(portfolio, first_token, second_token)
            bps_by_pair[pair] = _bounded_correlation(bps)
    configured_pairs = {frozenset(pair) for *pair, _ in risk.correlations_bps}
    bps_by_pair = _shrink_to_consistent(bps_by_pair, tokens, configured_pairs)
    completed = replace(
        risk,
        volatilities_bps=tuple(volatility_by_token.items()),
        correlations_bps=tuple(
            (first_token, second_token, bps_by_pair[frozenset((first_token, second_token))])
            for index, second_token in enumerate(tokens)
            for first_token in tokens[:index]
        ),
    )
    sample_text = _sample_text(
        completed, label_by_token, estimate, configured_bps, no_sample_reason
    )
    return replace(completed, sample_text=sample_text)


def _estimate(step: StepInput, risk: TrackingRisk) -> tuple[RiskEstimate | None, str]:
    """Return the estimate of the tokens without a configured volatility for which recorded prices
    suffice (None if they suffice for none), and why they do not suffice for the others.
    """
    window = risk.estimation_window
    label_by_token = _label_by_token(step.portfolio)
    configured_bps = _configured_volatilities(step.portfolio, risk)
    unconfigured_tokens = [token for token in label_by_token if token not in configured_bps]
    if window is None or not unconfigured_tokens:
        return None, ""

    def estimate_of(tokens: Sequence[str]) -> RiskEstimate:
        return estimate_risk(
            window, tokens, label_by_token, step.history.prices, step.snapshot.trusted_time_s
        )

    def is_measurable(token: str) -> bool:
        try:
            estimate_of([token])
        except Refused:
            return False
        return True

    try:
        return estimate_of(unconfigured_tokens), ""
    except Refused as refusal:
        no_sample_reason = refusal.message
    measurable_tokens = [token for token in unconfigured_tokens if is_measurable(token)]
    if not measurable_tokens:
        return None, no_sample_reason
    try:
        return estimate_of(measurable_tokens), no_sample_reason
    except Refused as refusal:
        return None, refusal.message


def _class_correlation_bps(portfolio: Portfolio, first_token: str, second_token: str) -> int:
    numeraire = portfolio.numeraire
    if numeraire.address in (first_token, second_token):
        return 0
    return class_correlation_bps(
        portfolio.token(first_token).label,
        portfolio.token(second_token).label,
        numeraire.label,
    )


def _bounded_volatility(bps: int) -> int:
    return min(max(bps, MIN_VOLATILITY_BPS), MAX_VOLATILITY_BPS)


def _bounded_correlation(bps: int) -> int:
    return min(max(bps, -MAX_CORRELATION_BPS), MAX_CORRELATION_BPS)


def _shrink_to_consistent(
    bps_by_pair: BpsByPair, tokens: Sequence[str], configured_pairs: Collection[frozenset[str]]
) -> BpsByPair:
    """Scale correlations towards zero until they are consistent, because rounding, configured
    values or classes may contradict them; the configured ones only if nothing else is left.
    """
    while first_contradicting_row(correlation_matrix_bps(bps_by_pair, tokens)) is not None:
        is_rest_gone = not any(
            bps for pair, bps in bps_by_pair.items() if pair not in configured_pairs
        )
        bps_by_pair = {
            pair: int(bps * SHRINK_FACTOR) if is_rest_gone or pair not in configured_pairs else bps
            for pair, bps in bps_by_pair.items()
        }
    return bps_by_pair


def _sample_text(
    risk: TrackingRisk,
    label_by_token: Mapping[str, str],
    estimate: RiskEstimate | None,
    configured_bps: Mapping[str, int],
    no_sample_reason: str,
) -> str:
    """Return where the volatilities are from, with those that are not configured."""
    volatility_bps_by_token = dict(risk.volatilities_bps)
    measured_tokens = [] if estimate is None else [token for token, _ in estimate.volatilities_bps]
    texts = []
    if estimate is not None and risk.estimation_window is not None:
        estimate_texts = [
            f"{label_by_token[token]} {format_bps(volatility_bps_by_token[token])}"
            for token in measured_tokens
        ]
        estimate_texts += [
            f"{label_by_token[first_token]}/{label_by_token[second_token]} {format_bps(bps)}"
            for first_token, second_token, bps in risk.correlations_bps
            if first_token in measured_tokens and second_token in measured_tokens
        ]
        texts.append(
            f"annual volatilities and correlations from {estimate.return_count} returns over"
            f" {format_duration(risk.estimation_window.step_s)}, {format_time(estimate.from_s)} to"
            f" {format_time(estimate.until_s)}: {', '.join(estimate_texts)}"
        )
    class_texts = [
        f"{label} {format_bps(volatility_bps_by_token[token])} ({class_of(label).value})"
        for token, label in label_by_token.items()
        if token not in measured_tokens and token not in configured_bps
    ]
    if class_texts:
        reason_text = no_sample_reason and f" ({no_sample_reason})"
        texts.append(f"usual volatilities of their classes{reason_text}: {', '.join(class_texts)}")
    return "; ".join(texts) or "volatilities as configured"
