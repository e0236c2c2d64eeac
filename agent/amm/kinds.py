"""Kinds of pools that can be planned, judged and simulated. A new kind is a module beside this one and its line here."""

from __future__ import annotations

from agent.amm.v2 import V2Pool
from agent.amm.v3.pool import V3Pool
from agent.model import Pool

POOL_KINDS: dict[str, type[Pool]] = {kind.kind: kind for kind in (V2Pool, V3Pool)}
"""By the name that legs and the config have for them. Reading, calldata and signing have tables of their own."""
