"""The exchanges of an asset by the tracking rule, and the shares between which none is worth its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.model import AssetDrift, TrackingRisk
from agent.policy.risk import IntMatrix, exchange_variance
from agent.units import PIPS

ON_TARGET = Fraction(0)


@dataclass(frozen=True, slots=True)
class RuleExchange:
    """The exchange of an asset with the token `other`: how far it deviates, and its widths. All in
    shares of the portfolio.
    """

    other: str
    deviation: Fraction
    edge: Fraction
    trigger: Fraction

    @property
    def excess(self) -> Fraction:
        """How far the deviation is beyond the edge."""
        return abs(self.deviation) - self.edge


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
                exchange.edge,
                exchange.trigger,
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
        _at_target(numeraire, width.edge_ppm, width.trigger_ppm)
        for width in risk.widths
        if width.token == token
    ]
    pairs = [
        _at_target(
            pair.second_token if pair.first_token == token else pair.first_token,
            pair.edge_ppm,
            pair.trigger_ppm,
        )
        for pair in risk.pair_widths
        if token in (pair.first_token, pair.second_token)
    ]
    return own + pairs if own else []


def _at_target(other: str, edge_ppm: int, trigger_ppm: int) -> RuleExchange:
    return RuleExchange(other, ON_TARGET, Fraction(edge_ppm, PIPS), Fraction(trigger_ppm, PIPS))


def traded_range(share: Fraction, exchanges: Sequence[RuleExchange]) -> TradedRange:
    """Return the shares between which no exchange of an asset, now at `share`, is traded. That with
    the numeraire comes first: where another one's range does not meet it, the nearer edge of the
    first counts.
    """
    first, *others = exchanges
    centre = share - first.deviation
    low = centre - first.edge
    high = centre + first.edge
    trigger_low = centre - first.trigger
    trigger_high = centre + first.trigger
    for exchange in others:
        centre = share - exchange.deviation
        trigger_low = max(trigger_low, min(centre - exchange.trigger, high))
        trigger_high = min(trigger_high, max(centre + exchange.trigger, low))
        narrowed_low = min(max(low, centre - exchange.edge), high)
        high = max(min(high, centre + exchange.edge), low)
        low = narrowed_low
    return TradedRange(low, high, trigger_low, trigger_high)
