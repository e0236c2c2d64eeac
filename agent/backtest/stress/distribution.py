"""Distribution of results over paths: quantiles, expected shortfall, returns and end values."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
WORST_SHARE = 0.05
"""Share of worst paths that the expected shortfall averages."""


def expected_shortfall(losses: NDArray[np.float64], worst_share: float = WORST_SHARE) -> float:
    """Return the mean of the `worst_share` share of losses; if that is not a whole number of paths,
    the last path counts in part, and if it is less than one path, this is the worst loss.

    Acerbi & Tasche (2002), "On the coherence of expected shortfall", (4.1).
    """
    losses_descending = np.sort(losses)[::-1]
    weights = np.clip(
        max(worst_share * len(losses_descending), 1.0) - np.arange(len(losses_descending)), 0, 1
    )
    return float(losses_descending @ weights / weights.sum())


def quantiles(values: NDArray[np.float64]) -> tuple[float, ...] | None:
    """Return the values at QUANTILES, interpolated linearly; None if any value is NaN."""
    if any(isnan(value) for value in values):
        return None
    return tuple(float(quantile) for quantile in np.quantile(values, QUANTILES))


def outcome_distributions(losses: NDArray[np.float64], start_value: float) -> dict[str, Any]:
    """Return the distributions of return and end value, in coins of the numeraire; their worst is
    the least.
    """
    returns = -losses
    distributions: dict[str, Any] = {}
    for name, values, digits in (
        ("return", returns, 6),
        ("end_value", start_value * (1 + returns), 2),
    ):
        quantile_values = quantiles(values)
        distributions[name] = quantile_values and {
            "mean": f"{values.mean():.{digits}f}",
            "worst": f"{values.min():.{digits}f}",
            "expected_shortfall": f"{-expected_shortfall(-values):.{digits}f}",
            "quantiles": {
                f"{q:.0%}": f"{value:.{digits}f}"
                for q, value in zip(QUANTILES, quantile_values, strict=True)
            },
        }
    return distributions
