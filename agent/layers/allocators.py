"""Allocators by method, core and layers together."""

from __future__ import annotations

from collections.abc import Mapping

from agent.layers.futures.weights import futures_volatility_weights
from agent.layers.signals.weights import signal_weights
from agent.model import AllocationMethod
from agent.weights import allocators
from agent.weights.allocators import Allocator

ALLOCATORS: Mapping[AllocationMethod, Allocator] = {
    **allocators.ALLOCATORS,
    AllocationMethod.SIGNAL: signal_weights,
    AllocationMethod.FUTURES_VOLATILITY: futures_volatility_weights,
}
