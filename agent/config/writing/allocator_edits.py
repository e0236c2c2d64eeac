"""Edits of an allocator's table when its assets change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomlkit

from agent.model import AllocationMethod, AllocationNeeds

_KINDS_OF_MARKETS = frozenset(
    method.value for method in AllocationMethod if method.needs is AllocationNeeds.MARKETS
)


def chooses_weights(allocator: Mapping[str, Any]) -> bool:
    """Return whether an allocator's table is of a kind that chooses weights of assets."""
    return allocator.get("kind") not in _KINDS_OF_MARKETS


def forget_choice(allocator: Any, symbol: str) -> None:
    """Remove an asset from the fixed and the limited ones of an allocator's table."""
    if symbol in allocator.get("fixed", ()):
        allocator["fixed"].remove(symbol)
    if "limits" in allocator:
        allocator["limits"].pop(symbol, None)


def fix_weight(allocator: Any, symbol: str) -> None:
    """Let an asset have its target in place of an allocator's choice."""
    if chooses_weights(allocator):
        fixed_symbols = tomlkit.array()
        fixed_symbols.extend([*allocator.get("fixed", ()), symbol])
        allocator["fixed"] = fixed_symbols
