"""Kinds of exchanges with pools, each with its discovery and second quotes.

A new kind needs a module in this package, an entry in VENUE_KINDS, and its pools in
agent.amm.POOL_KINDS.
"""

from __future__ import annotations

from agent.venues.kinds.pancake_v3 import PancakeV3
from agent.venues.kinds.slipstream import Slipstream
from agent.venues.kinds.uniswap_v2 import UniswapV2
from agent.venues.kinds.uniswap_v3 import UniswapV3
from agent.venues.kinds.uniswap_v4 import UniswapV4, UniswapV4Native
from agent.venues.kinds.venue import AmmVenue

VENUE_KINDS: dict[str, type[AmmVenue]] = {
    kind.pool_class.kind: kind
    for kind in (UniswapV2, UniswapV3, PancakeV3, Slipstream, UniswapV4, UniswapV4Native)
}
"""Kinds of venues by their name in the config."""
