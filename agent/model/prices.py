"""One price of the past, as it was written down or read from a file or a chain."""

from __future__ import annotations

from dataclasses import dataclass

from agent.units import Price


@dataclass(frozen=True, slots=True)
class PricePoint:
    """Worth of one token at chain time `at_s`: numeraire base units per token base unit."""

    token: str
    at_s: int
    price: Price
