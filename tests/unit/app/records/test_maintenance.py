"""What the owner's cancel answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from agent import wiring
from agent.app.records import maintenance
from agent.model import Intent
from agent.store import Store
from tests.support.stores import store_fixture
from tests.support.transactions import START_S, grant, tx

store = store_fixture("memory")


def planned_intent(store: Store, nonce: int) -> Intent:
    return store.journal.add_intent("s", tx(nonce), grant(), "swap", START_S, None)


def test_cancel__names_what_a_run_sent_while_it_waited_for_the_wallet(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running cycle holds the wallet's lock, and sends until it lets it go."""
    store.steps.begin("s", START_S, "{}")
    earlier = planned_intent(store, 1)

    @contextmanager
    def open_after_a_cycle(*_: Any) -> Iterator[Any]:
        planned_intent(store, 2)
        yield SimpleNamespace(executor=SimpleNamespace(cancel_pending=lambda _why: None))

    monkeypatch.setattr(wiring, "open_transactor", open_after_a_cycle)
    clock = SimpleNamespace(now_s=lambda: START_S)
    agent: Any = SimpleNamespace(context=SimpleNamespace(store=store, clock=clock))
    transactions = maintenance.cancel(agent)["transactions"]
    assert [transaction["nonce"] for transaction in transactions] == [earlier.tx.nonce, 2]
