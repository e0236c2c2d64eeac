"""Controls in the store of a config: those queued, plans that were shown, and what the log of users says of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.config.load import load_config
from agent.store import Store, open_store


@contextmanager
def store_of(config: Path) -> Iterator[Store]:
    """The store of the config."""
    loaded = load_config(config)
    store = open_store(loaded.store_url, 1, loaded.config.wallet.address, loaded.config.chain.wrapped_native)
    try:
        yield store
    finally:
        store.close()


def queued(config: Path) -> list[tuple[str, str, str]]:
    """Kind, requester and state of each control, oldest first."""
    with store_of(config) as store:
        return [
            (control.control.kind.value, control.control.asked_by, control.state.value) for control in reversed(store.controls.newest())
        ]
