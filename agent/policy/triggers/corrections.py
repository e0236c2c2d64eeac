"""What it costs to correct an asset now, and what it costs to leave it for a year.

An asset that deviates by x, beyond its edge a, is corrected by trading the share |x| − a of the
portfolio's value V against the numeraire, or another asset, with the unit cost c of the cheapest
route and the gas F of a swap, a share of V:

    correcting = V·(c·(|x| − a) + F),   waiting a year = V·½·λ·s·(x² − a²).

Waiting is the tracking error of a deviation that stays as it is for a year, less that of the edge,
where a correction ends; s is the annual variance of the asset's price in the other. Impact and
approvals come on top.

The two do not decide: prices move a deviation on or back within the year, and every trade pays its
gas again. So between edge and trigger an asset waits, although a year there may cost more than to
correct it (agent/policy/triggers/tracking_rule.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from agent.policy.risk import COVARIANCE_UNIT, IntMatrix, exchange_variance
from agent.policy.triggers.exchange_costs import ExchangeCosts
from agent.units import Value


@dataclass(frozen=True, slots=True)
class Correction:
    """Cost of trading an asset back to its edge now, and of a year of the deviation that this
    removes, both in value.
    """

    cost: Value
    waiting_year: Value


@dataclass(frozen=True, slots=True)
class CorrectionTerms:
    """What the corrections of all assets share: annual risk, its cost and covariances by the indices
    of the tokens; least costs per unit of value, taxes included; gas of a swap and value of the
    portfolio.
    """

    risk_aversion: Fraction
    sigma: IntMatrix
    unit_costs: ExchangeCosts
    leg_value: Value
    total_value: Value

    def correction(
        self, index: int, other: int, deviation: Fraction, traded_share: Fraction
    ) -> Correction | None:
        """Return the correction of the deviation of an asset's exchange with another by
        `traded_share`, shares of the portfolio. None within the edge, or without a route.
        """
        pair = (index, other) if deviation > 0 else (other, index)
        unit_cost = self.unit_costs.get(pair)
        if traded_share <= 0 or unit_cost is None:
            return None
        variance = Fraction(exchange_variance(self.sigma, index, other), 2 * COVARIANCE_UNIT)
        removed = traded_share * (2 * abs(deviation) - traded_share)
        return Correction(
            unit_cost * traded_share * self.total_value + self.leg_value,
            self.risk_aversion * variance * removed * self.total_value,
        )
