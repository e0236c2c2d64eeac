"""Guards of the layers, and their costs of a plan."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from agent.guards.case import GuardCase, GuardMeasurement
from agent.guards.guard import Guard
from agent.layers.futures import guards as futures
from agent.layers.tax import guards as tax

PLAN_GUARDS: tuple[Guard[Any], ...] = (tax.YEAR_LIMIT,)
"""Guards of a layer's limits, after those of losses and before those of weights and sizes."""
LAYER_GUARDS: tuple[Guard[Any], ...] = futures.FUTURES_GUARDS
"""Guards of plans that act in a layer, after all others."""
PLAN_COSTS: tuple[Callable[[GuardCase, int], GuardMeasurement | None], ...] = (futures.plan_cost,)
"""Cost of a plan that acts in a layer against a limit in basis points; None for any other plan."""
WORST_COSTS: tuple[Callable[[GuardCase], Fraction], ...] = (futures.worst_cost,)
"""Largest cost of a plan's actions in a layer, besides gas, in numeraire base units; zero for any
other plan.
"""
