"""Kinds of venues at which liquidity is provided."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from agent.amm.v2_pool import V2Pool
from agent.amm.v3.pool import V3Pool


class LpVenue(StrEnum):
    """Kind of venue of a liquidity position: LP tokens of a pair, or a token of a position manager.
    The value is the pools' kind.
    """

    V2 = V2Pool.kind
    V3 = V3Pool.kind


PairKind = Literal["uniswap_v2"]
RangeKind = Literal["uniswap_v3"]
"""Kinds of tables in the config: liquidity in a pair, and in a range of prices."""
