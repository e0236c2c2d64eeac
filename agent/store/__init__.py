"""The persistent store of one wallet, on SQLAlchemy with Alembic migrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.store.opening import open_memory_store, open_store
    from agent.store.store import Store


__all__ = ["Store", "open_memory_store", "open_store"]


def __getattr__(name: str) -> object:
    """Load SQLAlchemy on first use, because locks and the transition table do not need it."""
    if name in ("open_memory_store", "open_store"):
        from agent.store import opening

        return getattr(opening, name)
    if name == "Store":
        from agent.store.store import Store

        return Store
    raise AttributeError(name)
