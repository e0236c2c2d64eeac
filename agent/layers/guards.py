"""Guards of the layers, and their costs of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from agent.guards.case import GuardCase, GuardMeasurement
from agent.guards.guard import Guard
from agent.layers.futures import guards as futures
from agent.layers.holding import guards as holding
from agent.layers.liquidity import guards as liquidity
from agent.layers.tax import guards as tax

LAYER_LIMIT_GUARDS: tuple[Guard[Any], ...] = (tax.YEAR_LIMIT, holding.HOLDING_GUARD)
"""Guards of a layer's limits, after those of losses and before those of weights and sizes."""
OUTSIDE_VALUE_GUARDS: tuple[Guard[Any], ...] = (*liquidity.POSITION_GUARDS,)
"""Guards of limits on what a layer has outside the wallet, after those of weights and sizes."""
LAYER_GUARDS: tuple[Guard[Any], ...] = (*futures.FUTURES_GUARDS,)
"""Guards of plans that act in a layer, after all others."""
PLAN_COSTS: tuple[Callable[[GuardCase, int], GuardMeasurement | None], ...] = (
    futures.plan_cost,
    liquidity.plan_cost,
)
"""Cost of a plan that acts in a layer against a limit in basis points; None for any other plan."""
WORST_COSTS: tuple[Callable[[GuardCase], Fraction], ...] = (futures.worst_cost,)
"""Largest cost of a plan's actions in a layer, besides gas, in numeraire base units; zero for any
other plan.
"""
Measure = Callable[[GuardCase], GuardMeasurement | None]
"""Measurement of a plan that acts in a layer; None for any other plan."""
SMALLEST_ACTIONS: tuple[Callable[[GuardCase, Fraction], GuardMeasurement | None], ...] = (
    liquidity.smallest_action,
)
"""Smallest action against a least value; None for a plan without actions."""
ACTION_SLIPPAGES: tuple[Callable[[GuardCase, int], GuardMeasurement | None], ...] = (
    liquidity.slippage,
)
"""Slippage of actions against a limit in basis points; None for a plan without actions."""
ACTION_FLOORS: tuple[Measure, ...] = (liquidity.measure_fair_floor,)
"""Minimums of actions against the reference price."""
OVERSPENT_ACTIONS: tuple[Measure, ...] = (liquidity.measure_overspending,)
"""Actions that spend more than the wallet has; None if there are none."""
MISPREDICTED_ACTIONS: tuple[Measure, ...] = (liquidity.measure_misprediction,)
"""Actions or final balances that the plan predicts otherwise; None if there are none."""
POOL_DEVIATIONS: tuple[Callable[[GuardCase], Iterator[tuple[Fraction, str]]], ...] = (
    liquidity.pool_deviations,
)
"""Relative deviations of the actions' pools from the reference, each with the pool's name."""
