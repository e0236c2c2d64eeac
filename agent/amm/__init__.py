"""Exact pool mathematics in pure integers, with names as in the contracts, and the table of pool
kinds.

A new kind needs a module in this package and an entry in POOL_KINDS.
"""

from __future__ import annotations

from agent.amm.v2_pool import V2Pool
from agent.amm.v3.pancake import PancakeV3Pool
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.slipstream import SlipstreamPool
from agent.amm.v3.uniswap_v4 import V4NativePool, V4Pool
from agent.model import NATIVE_VENUE, Pool, SwapStyle

POOL_KINDS: dict[str, type[Pool]] = {
    kind.kind: kind
    for kind in (V2Pool, V3Pool, PancakeV3Pool, SlipstreamPool, V4Pool, V4NativePool)
}
"""Pool kinds by their name in legs and config."""
POOL_KIND_BY_CURVE_NAME = {
    curve_name: kind for kind in POOL_KINDS.values() for curve_name in kind.curve_names
}
"""Pool kinds by curve name, as used in backtest settings."""


def pool_kind(venue: str) -> type[Pool] | None:
    """Return the kind of a venue's pools, None if it is not known. A venue is a kind, or a kind with
    a label, such as "uniswap_v3/second", where the config has several deployments of it.
    """
    return POOL_KINDS.get(venue.partition("/")[0])


def swap_style(venue: str) -> SwapStyle | None:
    """Return how swaps at a venue are paid, None if it is not known."""
    if venue == NATIVE_VENUE:
        return SwapStyle.NATIVE
    pool_class = pool_kind(venue)
    return None if pool_class is None else pool_class.style
