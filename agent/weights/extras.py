"""Optional packages of some allocators, loaded on first use, since that takes seconds."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from agent.errors import require_analysis_package


def import_extra(module_name: str) -> Any:
    """Import and return a module. Raises Refused if the extra `analysis` is not installed."""
    with require_analysis_package(", or use a different kind"):
        return import_module(module_name)
