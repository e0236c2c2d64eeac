"""What a thing is worth, and whether that may be acted on: reference prices, their sources, and the sequencer of a rollup."""

from agent.reference.prices import References, RefPrice, Unpriced, prices_at, reference_prices, spot_prices
from agent.reference.sequencer import sequencer_fault

__all__ = ["RefPrice", "References", "Unpriced", "prices_at", "reference_prices", "sequencer_fault", "spot_prices"]
