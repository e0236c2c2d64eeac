"""The covariances of a zone from recorded prices, where its owner told none: what they are, or why they are not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import Policy, StepInput, TrackingRisk, Zone
from agent.policy import risk as risks
from agent.policy import words
from agent.policy.allocation import believed_s
from agent.units import BPS
from agent.weights.measured import Measured, measure

Pairs = Mapping[frozenset[str], int]
TOWARDS_NONE = Fraction(99, 100)
"""By how much correlations are drawn together at a time, until every mix of tokens keeps some risk of its own."""


def needs(policy: Policy) -> tuple[int, int]:
    """(seconds, step in seconds) of recorded prices that the zone measures; (0, 0) where it measures nothing."""
    risk = policy.trigger.risk if isinstance(policy.trigger, Zone) else None
    window = None if risk is None else risk.measuring
    return (0, 0) if window is None else (window.window_s + window.step_s, window.step_s)


def measured(step: StepInput) -> StepInput:
    """The step with the volatilities and correlations of its recorded prices in its zone; what the owner told stays as it is.

    The numeraire, whose price in itself never moves, counts with the least volatility there is and goes with nothing. Where prices
    are missing or too old, `unmeasured` says so, and the zone holds.
    """
    trigger = step.policy.trigger
    if not isinstance(trigger, Zone) or trigger.risk.measuring is None:
        return step
    risk, names = trigger.risk, {asset.token.address: asset.token.label for asset in step.portfolio.assets}
    told = {step.portfolio.numeraire.address: risks.LEAST_VOLATILITY_BPS} | dict(risk.volatilities_bps)
    asked = [token for token in names if token not in told]
    try:
        found = measure(trigger.risk.measuring, asked, names, step.history.prices, believed_s(step.snapshot)) if asked else None
    except Refused as why:
        return _with(step, replace(risk, unmeasured=why.message))
    spread = told | {token: _within(bps) for token, bps in (() if found is None else found.volatilities_bps)}
    pairs_found = () if found is None else found.correlations_bps
    known = {frozenset((one, other)): bps for one, other, bps in (*pairs_found, *risk.correlations_bps)}
    pairs = [(one, other) for number, other in enumerate(names) for one in [*names][:number]]
    related = _possible({pair: _close(known.get(frozenset(pair), 0)) for pair in pairs}, [*names])
    complete = replace(
        risk,
        volatilities_bps=tuple((token, spread[token]) for token in names),
        correlations_bps=tuple((*pair, bps) for pair, bps in related.items()),
    )
    return _with(step, replace(complete, measured=_words(complete, names, found)))


def _with(step: StepInput, risk: TrackingRisk) -> StepInput:
    return replace(step, policy=replace(step.policy, trigger=Zone(risk)))


def _within(bps: int) -> int:
    return min(max(bps, risks.LEAST_VOLATILITY_BPS), risks.MOST_VOLATILITY_BPS)


def _close(bps: int) -> int:
    return min(max(bps, -risks.MOST_CORRELATION_BPS), risks.MOST_CORRELATION_BPS)


def _possible(pairs: dict[tuple[str, str], int], tokens: list[str]) -> dict[tuple[str, str], int]:
    """The correlations, drawn towards none until prices could move like that: rounding, or what was told of some, may contradict."""
    while risks.first_contradiction(_matrix(pairs, tokens)) is not None:
        pairs = {pair: int(bps * TOWARDS_NONE) for pair, bps in pairs.items()}
    return pairs


def _matrix(pairs: Mapping[tuple[str, str], int], tokens: list[str]) -> risks.Matrix:
    known: Pairs = {frozenset(pair): bps for pair, bps in pairs.items()}
    return [[Fraction(1) if one == other else Fraction(known[frozenset((one, other))], BPS) for other in tokens] for one in tokens]


def _words(risk: TrackingRisk, names: Mapping[str, str], found: Measured | None) -> str:
    """What was measured, and of what."""
    if found is None or risk.measuring is None:
        return "volatilities as told"
    spread, own = dict(risk.volatilities_bps), [token for token, _ in found.volatilities_bps]
    listed = [f"{names[token]} {spread[token] / 100:g} %" for token in own]
    listed += [f"{names[one]}/{names[other]} {bps / 100:g} %" for one, other, bps in risk.correlations_bps if one in own and other in own]
    of = f"{found.count} returns over {words.span(risk.measuring.step_s)}, {words.moment(found.from_s)} to {words.moment(found.until_s)}"
    return f"volatilities a year and correlations of {of}: {', '.join(listed)}"
