"""Where the ticks that were read end, and with them what a plan or a quote can tell of a pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction

from agent.amm import pools as amm
from agent.model import Leg, PoolState, StepInput
from agent.planning.problem import UNBOUNDED_BPS

FULL = Fraction(999, 1_000)
"""Part of what the ticks read take from which on a leg came to their end: the solve stops a little before a bound."""


def ticks_end(step: StepInput, legs: Iterable[Leg]) -> tuple[str, ...]:
    """Pools in which the legs of a plan for this step come to the end of the ticks read, before limits.price_impact binds."""
    limit_bps = step.limits.price_impact_bps
    bound_bps = UNBOUNDED_BPS if limit_bps is None else min(limit_bps, UNBOUNDED_BPS)
    return at_their_end({pool.address: pool for pool in step.snapshot.pools}, legs, bound_bps)


def at_their_end(pools: Mapping[str, PoolState], legs: Iterable[Leg], impact_bps: int) -> tuple[str, ...]:
    """Pools in which the legs come to the end of the ticks read, before they have moved the price by `impact_bps`."""
    sold: Counter[tuple[str, str]] = Counter()
    for leg in legs:
        if leg.pool in pools:
            sold[leg.pool, leg.token_in] += leg.amount_in_raw
    return tuple(
        pool
        for (pool, token_in), raw in sorted(sold.items())
        if amm.ticks_end(pools[pool], token_in, impact_bps) and raw >= FULL * amm.max_in(pools[pool], token_in, impact_bps)
    )
