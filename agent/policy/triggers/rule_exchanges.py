"""The exchanges of an asset by the tracking rule, and the shares between which none is worth its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.model import AssetDrift, TrackingRisk
from agent.policy.risk import IntMatrix, common_parts, exchange_variance
from agent.units import PIPS

ON_TARGET = Fraction(0)
ONE_MILLIONTH = Fraction(1, PIPS)


@dataclass(frozen=True, slots=True)
class RuleExchange:
    """The exchange of an asset with the token `other`: how far it deviates, and its widths. All are
    shares of the portfolio, the widths in millionths.
    """

    other: str
    deviation: Fraction
    edge_ppm: int
    trigger_ppm: int

    @property
    def excess(self) -> Fraction:
        """How far the deviation is beyond the edge."""
        return abs(self.deviation) - Fraction(self.edge_ppm, PIPS)


@dataclass(frozen=True, slots=True)
class TradedRange:
    """Shares at which an asset is traded: from beyond `trigger_low` and `trigger_high` back to `low`
    and `high`, trigger_low ≤ low ≤ high ≤ trigger_high.
    """

    low: Fraction
    high: Fraction
    trigger_low: Fraction
    trigger_high: Fraction


@dataclass(frozen=True, slots=True)
class RuleExchanges:
    """The exchanges of all assets. `slope_parts` are Σx for the deviations x from the targets, in
    parts of 1/`deviation_unit`; Σ is `sigma`.
    """

    risk: TrackingRisk
    tokens: Sequence[str]
    numeraire: str
    sigma: IntMatrix
    slope_parts: Sequence[int]
    deviation_unit: int

    def of(self, drift: AssetDrift) -> list[RuleExchange]:
        """Return the exchanges of an asset, that with the numeraire first; none without a width.

        The deviation of the exchange d = eᵢ − eⱼ is dᵀΣx / dᵀΣd: against the numeraire the asset's
        own deviation and what the correlated ones add to it. An asset without a target leaves as a
        whole, so only its own share counts: it is not held for what the others lack.
        """
        return [
            RuleExchange(
                exchange.other,
                self._deviation(drift.token, exchange.other) if drift.target_bps else drift.share,
                exchange.edge_ppm,
                exchange.trigger_ppm,
            )
            for exchange in exchanges_at_target(self.risk, drift.token, self.numeraire)
        ]

    def _deviation(self, token: str, other_token: str) -> Fraction:
        index = self.tokens.index(token)
        other = self.tokens.index(other_token)
        variance = exchange_variance(self.sigma, index, other)
        return Fraction(
            self.slope_parts[index] - self.slope_parts[other], variance * self.deviation_unit
        )


def exchanges_at_target(risk: TrackingRisk, token: str, numeraire: str) -> list[RuleExchange]:
    """Return the exchanges of an asset once all are at their targets, that with the numeraire first;
    none without a width.
    """
    own = [
        RuleExchange(numeraire, ON_TARGET, width.edge_ppm, width.trigger_ppm)
        for width in risk.widths
        if width.token == token
    ]
    pairs = [
        RuleExchange(
            pair.second_token if pair.first_token == token else pair.first_token,
            ON_TARGET,
            pair.edge_ppm,
            pair.trigger_ppm,
        )
        for pair in risk.pair_widths
        if token in (pair.first_token, pair.second_token)
    ]
    return own + pairs if own else []


def traded_range(share: Fraction, exchanges: Sequence[RuleExchange]) -> TradedRange:
    """Return the shares between which no exchange of an asset, now at `share`, is traded. That with
    the numeraire comes first: where another one's range does not meet it, the nearer edge of the
    first counts.
    """
    centres, unit = common_parts(
        [ONE_MILLIONTH, *(share - exchange.deviation for exchange in exchanges)]
    )
    millionth = centres[0]
    ranges = [
        (centre, exchange.edge_ppm * millionth, exchange.trigger_ppm * millionth)
        for centre, exchange in zip(centres[1:], exchanges, strict=True)
    ]
    centre, edge, trigger = ranges[0]
    low = centre - edge
    high = centre + edge
    trigger_low = centre - trigger
    trigger_high = centre + trigger
    for centre, edge, trigger in ranges[1:]:
        trigger_low = max(trigger_low, min(centre - trigger, high))
        trigger_high = min(trigger_high, max(centre + trigger, low))
        narrowed_low = min(max(low, centre - edge), high)
        high = max(min(high, centre + edge), low)
        low = narrowed_low
    return TradedRange(
        Fraction(low, unit),
        Fraction(high, unit),
        Fraction(trigger_low, unit),
        Fraction(trigger_high, unit),
    )
