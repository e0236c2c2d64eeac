"""What the tracking rule loses about a year, by its formula."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from agent.policy.triggers.tracking_rule import TokenRule, TrackingLoss


def expected_loss(
    rules: Mapping[int, TokenRule],
    covariance: Sequence[Sequence[float]],
    numeraire: int,
    risk_aversion: float,
) -> TrackingLoss:
    """Return about what the rule loses: λ·s·(a + b)²/12 of costs and λ·s·(a² + b²)/12 of drift for
    each token by itself, divided by Σⱼ rᵢⱼ² over the correlations of the exchanges with the
    numeraire, because one trade corrects what the correlated ones share. `covariance` has reduced
    correlations, as `token_rules` gets them.
    """
    exchange_covariance = {
        (i, j): covariance[i][j]
        - covariance[i][numeraire]
        - covariance[numeraire][j]
        + covariance[numeraire][numeraire]
        for i in rules
        for j in rules
    }
    costs = []
    drifts = []
    for i, rule in rules.items():
        variance = exchange_covariance[i, i]
        shared = math.fsum(
            exchange_covariance[i, j]
            * exchange_covariance[i, j]
            / (variance * exchange_covariance[j, j])
            for j in rules
        )
        scale = risk_aversion * variance / 12 / shared
        width_sum = rule.edge + rule.trigger
        costs.append(scale * width_sum * width_sum)
        drifts.append(scale * (rule.edge * rule.edge + rule.trigger * rule.trigger))
    return TrackingLoss(math.fsum(costs), math.fsum(drifts))
