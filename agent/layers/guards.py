"""Guards of the layers that judge every plan."""

from __future__ import annotations

from typing import Any

from agent.guards.guard import Guard
from agent.layers.tax import guards as tax

PLAN_GUARDS: tuple[Guard[Any], ...] = (tax.YEAR_LIMIT,)
"""Guards of a layer's limits, after those of losses and before those of weights and sizes."""
