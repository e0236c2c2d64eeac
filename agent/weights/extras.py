"""Optional packages of some allocators, loaded on first use, since that takes seconds."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from agent.errors import needs_analysis


def import_extra(module_name: str) -> Any:
    """Import and return a module. Raises Refused if the extra `analysis` is not installed."""
    with needs_analysis(", or use a different kind"):
        return import_module(module_name)
