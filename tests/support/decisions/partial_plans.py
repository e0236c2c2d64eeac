"""Purchases that limits split in parts."""

from __future__ import annotations

from fractions import Fraction

from agent.model import StepInput
from tests.support.builders import with_limits
from tests.support.decisions.purchases import money_step


def partial_purchase_step(loss: Fraction = Fraction(0), **limits: object) -> StepInput:
    """Ten thousand dollars that a first purchase would halve at a worst case of about 0.36 % of them."""
    return with_limits(money_step(loss_24h=loss), **({"daily_loss_bps": 14} | limits))  # type: ignore[arg-type]  # fields of Limits
