"""Risk estimates for the no-trade zone, with the allocators' returns and covariance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agent.model import PricePoint
from agent.units import BPS
from agent.weights.returns import ReturnsWindow, compute_returns, shrunk_covariance


@dataclass(frozen=True, slots=True)
class RiskEstimate:
    """Annual volatilities by token and the correlation of each pair once, in bps, from
    `return_count` returns between `from_s` and `until_s`.
    """

    volatilities_bps: tuple[tuple[str, int], ...]
    correlations_bps: tuple[tuple[str, str, int], ...]
    return_count: int
    from_s: int
    until_s: int


def estimate_risk(
    window: ReturnsWindow,
    tokens: Sequence[str],
    label_by_token: Mapping[str, str],
    prices: Sequence[PricePoint],
    now_s: int,
) -> RiskEstimate:
    """Return the estimated risk of `tokens`, at least one. Raises Refused for prices that are
    missing, too old or constant, or a token that is a combination of others.
    """
    returns = compute_returns(window, tokens, label_by_token, prices, now_s)
    annual_covariance = shrunk_covariance(returns, label_by_token)
    volatilities = np.sqrt(np.diag(annual_covariance))
    correlations = annual_covariance / np.outer(volatilities, volatilities)
    index_pairs = [(row, column) for row in range(len(tokens)) for column in range(row)]
    return RiskEstimate(
        tuple(
            (token, _to_bps(float(volatility)))
            for token, volatility in zip(tokens, volatilities, strict=True)
        ),
        tuple(
            (tokens[column], tokens[row], _to_bps(float(correlations[row, column])))
            for row, column in index_pairs
        ),
        len(returns.simple_returns),
        returns.from_s,
        returns.until_s,
    )


def _to_bps(share: float) -> int:
    """Return basis points, rounded half to even, the only form in which these floats reach
    decisions.
    """
    return round(share * BPS)
