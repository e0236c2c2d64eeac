"""Reference prices and their checks: feeds, TWAPs, pegs, and the sequencer of a rollup."""

from agent.reference.checks import (
    depeg_fault,
    depegged_tokens,
    price_fault,
    sequencer_fault,
    source_conflict,
)
from agent.reference.prices import (
    ReferencePrice,
    ReferencePrices,
    UnpricedToken,
    reference_prices,
    reference_prices_at,
    spot_prices,
)

__all__ = [
    "ReferencePrice",
    "ReferencePrices",
    "UnpricedToken",
    "depeg_fault",
    "depegged_tokens",
    "price_fault",
    "reference_prices",
    "reference_prices_at",
    "sequencer_fault",
    "source_conflict",
    "spot_prices",
]
