"""Packages that only some allocators need: loaded when they are used, since they take seconds; where missing, said with the remedy."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from agent.errors import Refused


def extra(module: str) -> Any:
    """The module. Raises Refused where the extra `analysis` is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        raise Refused(f"{missing.name} is not installed", remedy="pip install 'trimtab[analysis]', or take another kind") from None
