"""Allocators of the layers, and all allocators by method."""

from __future__ import annotations

from collections.abc import Mapping

from agent.layers.futures.weights import futures_volatility_weights
from agent.layers.signals.weights import signal_weights
from agent.model import AllocationMethod
from agent.weights import allocators
from agent.weights.allocators import Allocator

ALLOCATORS: Mapping[AllocationMethod, Allocator] = {
    AllocationMethod.SIGNAL: signal_weights,
    AllocationMethod.FUTURES_VOLATILITY: futures_volatility_weights,
}


def allocator_of(method: AllocationMethod) -> Allocator:
    """Return the allocator of a method."""
    return allocators.ALLOCATORS.get(method) or ALLOCATORS[method]
