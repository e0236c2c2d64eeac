"""Distribution of results over paths: quantiles, expected shortfall, returns and end values."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEDIAN = 0.5
QUANTILES = (0.05, 0.25, MEDIAN, 0.75, 0.95, 0.99)
ROUNDING_ERROR = 1e-9
FEW_PATHS_TEXT = (
    "A percentile needs a path beyond it: 5 % and 95 % twenty paths, 25 % and 75 % four, 99 % a hundred;"
    " with fewer it is left out (–)."
)
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


def quantiles(path_outcomes: NDArray[np.float64]) -> tuple[float | None, ...] | None:
    """Return the values at QUANTILES, interpolated linearly, with None at those that have less than
    a path beyond them, the median apart; None in place of all if any value is NaN.
    """
    if any(isnan(path_outcome) for path_outcome in path_outcomes):
        return None
    return tuple(
        float(np.quantile(path_outcomes, level))
        if _has_paths_beyond(level, path_outcomes)
        else None
        for level in QUANTILES
    )


def _has_paths_beyond(level: float, path_outcomes: NDArray[np.float64]) -> bool:
    share_beyond = min(level, 1 - level)
    return level == MEDIAN or share_beyond * len(path_outcomes) > 1 - ROUNDING_ERROR


def distribution_document(
    outcomes: NDArray[np.float64], decimal_places: int, *, is_loss: bool
) -> dict[str, Any] | None:
    """Return mean, worst value, expected shortfall and quantiles as decimal strings, None for a
    quantile of too few paths; None if a value is NaN. The worst loss is the greatest, the worst of other outcomes the least.
    """
    if (quantile_values := quantiles(outcomes)) is None:
        return None
    worst = outcomes.max() if is_loss else outcomes.min()
    shortfall = expected_shortfall(outcomes) if is_loss else -expected_shortfall(-outcomes)
    return {
        "mean": f"{outcomes.mean():.{decimal_places}f}",
        "worst": f"{worst:.{decimal_places}f}",
        "expected_shortfall": f"{shortfall:.{decimal_places}f}",
        "quantiles": {
            f"{level:.0%}": None
            if quantile_value is None
            else f"{quantile_value:.{decimal_places}f}"
            for level, quantile_value in zip(QUANTILES, quantile_values, strict=True)
        },
    }


def outcome_distributions(losses: NDArray[np.float64], start_value: float) -> dict[str, Any]:
    """Return the distributions of return and end value, in coins of the numeraire at what they were
    worth at the path's start; their worst is the least.
    """
    returns = -losses
    return {
        "return": distribution_document(returns, 6, is_loss=False),
        "end_value": distribution_document(start_value * (1 + returns), 2, is_loss=False),
    }
