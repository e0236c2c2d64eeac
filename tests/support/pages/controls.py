"""Controls in the store of a config: those queued, plans that were shown, and what the log of users says of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.config.load import load_config
from agent.model import ControlKind, ShownPlan
from agent.store import Store, open_store
from agent.store.files.secret import ensure_secret
from agent.store.files.users import open_user_file
from tests.support.sites import Site


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


def shown_document(config: Path, kind: ControlKind, number: int, arguments: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    """The document of a plan that was shown, as its preview stores it."""
    plan = ShownPlan(kind, arguments, (("number", str(number)),), (), int(time.time()), "[[], {}]")
    plan = plan.sealed(ensure_secret(config.parent / "mine.db"))
    with store_of(config) as store:
        (store.controls.store_offer if kind is ControlKind.CONFIRM else store.controls.record_shown)(plan)
    return {"plan_hash": plan.hash, "reason": "", "moves": ["-1 WETH"], "document": {}}


def last_event(site: Site) -> tuple[str, str, str]:
    event = open_user_file(site.file).events(1)[0]
    return event.kind.value, event.user, event.detail
