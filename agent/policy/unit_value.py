"""What a unit of the portfolio is worth: what it gained or lost in price and by its own trades, whatever was put in or taken out.

Time-weighted: over each span in which holdings stayed alike, the worth follows what those holdings are worth at the prices of
now against those of then, less what the agent's transactions have lost meanwhile (the true time-weighted return: whatever comes
or goes starts a new span). A withdrawal changes holdings and no worth. What positions earn in fees, or lose to impermanent loss, within a
span is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from agent.model import AssetDrift, StepInput, UnitValue
from agent.units import Price, floor_int

FIGURES = 10**12
"""Parts of a unit to which its worth is kept, rounded down: products of exact fractions would grow without end."""
MOVED = Fraction(1, 1_000)
"""Part of the portfolio by which holdings must differ for a new span to begin, so that dust makes nobody write."""


def worth_at(kept: UnitValue | None, prices: Mapping[str, Price]) -> Fraction:
    """What a unit is worth at these prices; 1 before anything was written down. Tokens that lack a price then or now stay out."""
    if kept is None:
        return Fraction(1)
    then = dict(kept.prices)
    both = [(raw, then[token], prices[token]) for token, raw in kept.holdings if token in then and token in prices]
    before = sum((raw * price for raw, price, _ in both), Fraction(0))
    after = sum((raw * price for raw, _, price in both), Fraction(0)) - kept.lost
    return kept.worth if before <= 0 else max(Fraction(0), kept.worth * after / before)


def known_at(kept: UnitValue | None, prices: Mapping[str, Price]) -> bool:
    """Whether these prices tell what a unit is worth: without that of one holding it would be another portfolio's."""
    return kept is None or all(token in prices for token, raw in kept.holdings if raw)


def carried(step: StepInput, prices: Mapping[str, Price], drifts: Sequence[AssetDrift]) -> UnitValue:
    """What is to be written down: the same while holdings are alike, else a new span that begins at this block."""
    kept = step.history.unit_value
    held = {drift.token: drift.investable_raw + drift.lp_raw for drift in drifts}
    had = {} if kept is None else dict(kept.holdings)
    if kept is not None and had.keys() == held.keys():
        moved = sum((abs(raw - had[token]) * prices[token] for token, raw in held.items()), Fraction(0))
        if moved <= MOVED * sum((drift.value for drift in drifts), Fraction(0)):
            return kept
    worth = Fraction(floor_int(worth_at(kept, prices) * FIGURES), FIGURES)
    kept_prices = tuple((token, prices[token]) for token in held)
    return UnitValue(worth, step.snapshot.head.timestamp_s, tuple(held.items()), kept_prices)
