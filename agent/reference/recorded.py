"""Which reference prices of a look are written down for later: those that nothing contradicts and the blocks before confirm."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction

from agent.model import PastPrices, PricePoint, StepInput
from agent.reference.prices import prices_at, reference_prices
from agent.reference.sequencer import sequencer_fault
from agent.reference.sources import contradiction
from agent.units import Price

FIGURES = 18
"""Significant decimal figures that a recorded price keeps; the last one is rounded to the nearest, half to even."""
_ROUND = Context(prec=FIGURES, rounding=ROUND_HALF_EVEN)


def confirmed(step: StepInput, past: Sequence[PastPrices], at_s: int) -> tuple[PricePoint, ...]:
    """The price of each token but the numeraire: the median of this block and of the policy.confirm_blocks before it (T3).

    One block, or fewer than half of them, move no recorded price. A token that has no reference price in one of them is left
    out, and so is all while the blocks before are not known, the sequencer is down or two sources contradict each other.
    """
    wanted, head = step.policy.confirm_blocks, step.snapshot.head.number
    before = past[:wanted]
    if [one.head.number for one in before] != list(range(head - 1, head - 1 - wanted, -1)):
        return ()
    if sequencer_fault(step) or contradiction(step):
        return ()
    all_prices = [reference_prices(step).prices, *(prices_at(step, one).prices for one in before)]
    tokens = [token for token in all_prices[0] if token != step.portfolio.numeraire.address]
    known = [token for token in tokens if all(token in found for found in all_prices)]
    return tuple(PricePoint(token, at_s, rounded(_median([found[token].price for found in all_prices]))) for token in known)


def rounded(price: Price) -> Price:
    """The price to FIGURES significant figures: mean prices of pools have hundreds, which no later use needs."""
    with_figures: Decimal = _ROUND.divide(Decimal(price.numerator), Decimal(price.denominator))
    return Fraction(with_figures)


def _median(prices: Sequence[Price]) -> Price:
    """The lower of the two in the middle where their number is even."""
    return sorted(prices)[(len(prices) - 1) // 2]
