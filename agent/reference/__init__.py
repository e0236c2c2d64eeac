"""What a thing is worth, and whether that may be acted on: reference prices, their sources, and the sequencer of a rollup."""

from agent.reference.checks import contradiction, depeg_fault, depegged, sequencer_fault
from agent.reference.prices import References, RefPrice, Unpriced, prices_at, reference_prices, spot_prices

__all__ = [
    "RefPrice",
    "References",
    "Unpriced",
    "contradiction",
    "depeg_fault",
    "depegged",
    "prices_at",
    "reference_prices",
    "sequencer_fault",
    "spot_prices",
]
