"""Names of kinds of exchanges, also of those whose pools are not simulated."""

from __future__ import annotations

from enum import StrEnum

from agent.amm.v2_pool import V2Pool
from agent.amm.v3.pancake import PancakeV3Pool
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.slipstream import SlipstreamPool
from agent.amm.v3.uniswap_v4 import V4Pool


class VenueKind(StrEnum):
    """Kind of an exchange; the value is its pools' kind."""

    V2 = V2Pool.kind
    V3 = V3Pool.kind
    V4 = V4Pool.kind
    PANCAKE_V2 = "pancake_v2"
    PANCAKE_V3 = PancakeV3Pool.kind
    SLIPSTREAM = SlipstreamPool.kind
