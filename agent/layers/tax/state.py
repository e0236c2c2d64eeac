"""State of the layer: inputs of a plan's taxable gain."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model import LayerState, TaxInputs


@dataclass(frozen=True, slots=True)
class TaxState(LayerState):
    """Inputs of a plan's taxable gain; None: unknown, or none is asked for."""

    inputs: TaxInputs | None = None
