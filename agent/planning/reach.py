"""Where the ticks that were read end, and with them what a plan or a quote can tell of a pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction

from agent.amm import pools as amm
from agent.model import Leg, PoolState

FULL = Fraction(999, 1_000)
"""Part of what the ticks read take from which on a leg came to their end: the solve stops a little before a bound."""


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
