"""Exact pool mathematics in pure integers, with names as in the contracts, and the table of pool
kinds.

A new kind needs a module in this package and an entry in POOL_KINDS.
"""

from __future__ import annotations

from agent.amm.solidly import SolidlyPool
from agent.amm.v2_pool import V2Pool
from agent.amm.v3.pool import V3Pool
from agent.model import Pool

POOL_KINDS: dict[str, type[Pool]] = {kind.kind: kind for kind in (V2Pool, V3Pool, SolidlyPool)}
"""Pool kinds by their name in legs and config. Reading, calldata and signing have separate
tables."""
FORMS = {form: kind for kind in POOL_KINDS.values() for form in kind.forms}
"""Pool kinds by curve name, as used in backtest settings."""
