"""Tests of agent/app/records/ledger.py: when a new book opens, so that no transaction is in neither book or in both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.app.records.ledger import open_new_book
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.errors import Refused
from agent.execution import settlement
from agent.execution.bookkeeping import update_ledger
from agent.model import IntentState
from agent.store import Store
from agent.store.files.locks import LockHeld, wallet_lock
from agent.wiring import lock_arguments, open_store_offline
from tests.support import agents
from tests.support.ledgers import at, moved
from tests.support.text import mentions, raises_code


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedConfig:
    path = agents.config(tmp_path)
    path.write_text(path.read_text().replace('wallet_wait = "2m"', 'wallet_wait = "1s"'))
    return load_config(path)


@pytest.fixture
def store(loaded: LoadedConfig) -> Iterator[Store]:
    with open_store_offline(loaded) as (store, _):
        look(store, 1_000)
        yield store


def look(store: Store, block: int) -> None:
    step = at(block)
    update_ledger(store, step, settlement.settle_mined(store, step.snapshot, lambda: step))


def finalise(store: Store) -> None:
    for intent in store.journal.open_intents():
        store.journal.advance(intent.id, IntentState.FINAL, 1)


def revert(store: Store) -> None:
    for intent in store.journal.open_intents():
        assert intent.receipt is not None
        store.journal.advance(intent.id, IntentState.REVERTED, 1, receipt=replace(intent.receipt, status=0))


def test_new_book_opens_once_every_transaction_is_entered(loaded: LoadedConfig, store: Store) -> None:
    moved(store, 0, 1_001)
    finalise(store)
    look(store, 1_002)

    document = open_new_book(loaded.path, "anew")

    book = store.ledger.current_book()
    assert book is not None
    assert (document["number"], document["note"]) == (book.number, "anew")
    assert store.ledger.entries() == ()


@pytest.mark.parametrize("end", [lambda _: None, finalise, revert], ids=["mined", "final and not entered", "reverted and not entered"])
def test_new_book_waits_for_every_transaction(loaded: LoadedConfig, store: Store, end) -> None:
    moved(store, 0, 1_001)
    end(store)
    before = store.ledger.current_book()
    (intent,) = store.journal.intents()

    with raises_code(Refused, "open_transaction") as refusal:
        open_new_book(loaded.path, "anew")

    assert mentions(refusal.value.message, intent.tx_hash, "ledger")
    assert store.ledger.current_book() == before


def test_new_book_waits_for_a_cycle_under_way(loaded: LoadedConfig, store: Store) -> None:
    before = store.ledger.current_book()

    with wallet_lock(*lock_arguments(loaded)), pytest.raises(LockHeld):
        open_new_book(loaded.path, "anew")

    assert store.ledger.current_book() == before
