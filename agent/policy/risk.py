"""Exact cost of tracking risk, and the consistency of volatilities and correlations.

Not trading costs ½·λ·V·dᵀΣd·H, where d is the deviation in shares, Σ the annual covariance, H the
horizon in years and V the value. It is the mean-variance loss of tracking error (Leland, Optimal
Portfolio Management with Transactions Costs and Capital Gains Taxes, 1999). 1 % of tracking error
is dᵀΣd = 1/10,000, so that λ/2 is its annual cost in bps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import NoTradeZone, Policy, StepInput, TrackingRisk
from agent.policy.targets import trusted_time_s
from agent.units import BPS, YEAR_S, Value, format_duration, format_time
from agent.weights.returns import RiskEstimate, estimate_risk

LEAST_VOLATILITY_BPS = 10
"""Minimum annual volatility, 0.1 %: even a stable token moves, and two riskless tokens could be
swapped endlessly.
"""
MOST_VOLATILITY_BPS = 100_000
MOST_CORRELATION_BPS = 9_900
SHORTEST_HORIZON_S = 3_600
LONGEST_HORIZON_S = YEAR_S
MOST_COST_BPS = 100
"""Upper bound, above which 1 % of tracking error would cost more than 1 % a year."""
OWN_RISK = Fraction(1, 1000)
"""Least eigenvalue of the correlations: every mix of tokens keeps some risk."""

Matrix = list[list[Fraction]]


def aversion(risk: TrackingRisk) -> Fraction:
    """Return λ·H: the marginal cost per unit of deviation and annual variance."""
    return 2 * risk.cost_bps * Fraction(risk.horizon_s, YEAR_S)


def correlations(risk: TrackingRisk, tokens: Sequence[str]) -> Matrix:
    """Return the correlation matrix in the order of `tokens`. Raises KeyError if a pair is
    missing.
    """
    known = {frozenset(pair): Fraction(bps, BPS) for *pair, bps in risk.correlations_bps}
    return [
        [Fraction(1) if token == other else known[frozenset((token, other))] for other in tokens]
        for token in tokens
    ]


def volatilities(risk: TrackingRisk, tokens: Sequence[str]) -> list[Fraction]:
    """Return annual volatilities as shares of one, in the order of `tokens`. Raises KeyError if one
    is missing.
    """
    known = dict(risk.volatilities_bps)
    return [Fraction(known[token], BPS) for token in tokens]


def covariance(risk: TrackingRisk, tokens: Sequence[str]) -> Matrix:
    """Return the annual Σ: volatility · volatility · correlation."""
    spread = volatilities(risk, tokens)
    related = correlations(risk, tokens)
    return [
        [spread[i] * spread[j] * related[i][j] for j in range(len(tokens))]
        for i in range(len(tokens))
    ]


def matrix_times_vector(matrix: Matrix, vector: Sequence[Fraction]) -> list[Fraction]:
    """Return matrix times vector."""
    return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]


def dot(one: Sequence[Fraction], other: Sequence[Fraction]) -> Fraction:
    """Return the sum of products."""
    return sum((a * b for a, b in zip(one, other, strict=True)), Fraction(0))


def penalty(
    risk: TrackingRisk,
    tokens: Sequence[str],
    targets: Sequence[Fraction],
    values: Sequence[Value],
    total: Value,
) -> Value:
    """Return the cost over the horizon of holding `values` instead of `targets`, in a portfolio
    worth `total` at the decision.
    """
    whole = sum(values, Fraction(0))
    off = [value - target * whole for value, target in zip(values, targets, strict=True)]
    return (
        aversion(risk) / (2 * total) * dot(off, matrix_times_vector(covariance(risk, tokens), off))
    )


def faults(risk: TrackingRisk, labels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (fault with its key, remedy) for each fault of the risk. `labels` are all assets by
    address.
    """
    if not 0 < risk.cost_bps <= MOST_COST_BPS:
        fault = (
            f"{float(risk.cost_bps):g} bps is out of range: it must be above 0 and at most"
            f" {MOST_COST_BPS} bps a year"
        )
        yield (
            f"policy.trigger.tracking_error_cost: {fault}",
            'write the annual cost of 1 % of tracking error, such as "0.5bps"',
        )
    if not SHORTEST_HORIZON_S <= risk.horizon_s <= LONGEST_HORIZON_S:
        yield (
            f"policy.trigger.horizon: {risk.horizon_s} s is not between 1h and 365d",
            'write the time until the next review, such as "30d"',
        )
    known = dict(risk.volatilities_bps)
    for address, label in labels.items():
        if address not in known:
            yield (
                f"policy.risk.volatilities: {label} is missing",
                f'write its annual volatility, such as {label} = "60%"',
            )
        elif not LEAST_VOLATILITY_BPS <= known[address] <= MOST_VOLATILITY_BPS:
            fault = f"{label} = {known[address] / 100:g}% is not between 0.1% and 1000%"
            yield (
                f"policy.risk.volatilities: {fault}",
                'even a stable token moves: write at least "0.1%"',
            )
    yield from _pairs(risk, labels)


def _pairs(risk: TrackingRisk, labels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    known = {
        frozenset((correlations_bp, other)): bps
        for correlations_bp, other, bps in risk.correlations_bps
    }
    tokens, complete = list(labels), True
    for number, token in enumerate(tokens):
        for other in tokens[:number]:
            pair, bps = f"{labels[other]}/{labels[token]}", known.get(frozenset((token, other)))
            if bps is None:
                complete = False
                yield (
                    f"policy.risk.correlations: {pair} is missing",
                    f'write "{pair}" = "50%", or correlation = "…" for all that are not named',
                )
            elif abs(bps) > MOST_CORRELATION_BPS:
                complete = False
                yield (
                    f"policy.risk.correlations: {pair} = {bps / 100:g}% is beyond 99%",
                    'write "99%" for tokens that move as one',
                )
    broken = first_contradiction(correlations(risk, tokens)) if complete else None
    if broken is not None:
        yield (
            (
                f"policy.risk.correlations: the values of {labels[tokens[broken]]} "
                "contradict the others (the matrix is not positive"
                " semidefinite)"
            ),
            "bring them nearer to 0%, or take all of them from one table of prices",
        )


def first_contradiction(related: Matrix) -> int | None:
    """Return the row at which a correlation matrix stops being positive definite, its least
    eigenvalue below OWN_RISK; None if it never does. Exact pivots of Gaussian elimination: all are
    positive if and only if the matrix is positive definite (Sylvester).
    """
    rows = [
        [entry - (OWN_RISK if i == j else 0) for j, entry in enumerate(row)]
        for i, row in enumerate(related)
    ]
    for number, row in enumerate(rows):
        if row[number] <= 0:
            return number
        for below in rows[number + 1 :]:
            part = below[number] / row[number]
            below[number:] = [
                entry - part * above
                for entry, above in zip(below[number:], row[number:], strict=True)
            ]
    return None


# --- Covariances of a zone from recorded prices, for values that are not configured.


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
