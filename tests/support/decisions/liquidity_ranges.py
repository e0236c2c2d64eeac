"""Liquidity positions that earn fees in their range."""

from __future__ import annotations

from fractions import Fraction

from agent.model import StepInput
from tests.support.lp_worlds import USD, lp_target, ranged, roomy, world


# fees
def earning_step(share_bps: int, above: int | None = 50, usd: int = 1_600, **changes: object) -> StepInput:
    """Fees of 60 dollars and 0.03 WETH: 120 in all."""
    fees = (60 * USD, 3 * 10**16)
    own = ranged(usd, 1_800, 2_200, owed=fees, core_owed=fees)
    target = lp_target(share_bps, compound_above=None if above is None else Fraction(above * USD))
    return world([own], [target], bounds=roomy(plan_cost_bps=200), **changes)  # type: ignore[arg-type]  # keywords of world
