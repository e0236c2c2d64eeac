"""Tests of agent/app/records/ledger.py: when a new book opens, so that no transaction is in neither book or in both; and what
a check of the books compares.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent import codec
from agent.app.records.ledger import check_books, open_new_book
from agent.cli.ledger import show_check
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.errors import Refused
from agent.execution import settlement
from agent.execution.bookkeeping import update_ledger
from agent.model import IntentState, Transfer
from agent.store import Store
from agent.store.files.locks import LockHeld, wallet_lock
from agent.wiring import wallet_locks
from tests.support import agents
from tests.support.ledgers import COIN, DOLLAR, LEDGER_USDC, LEDGER_WETH, at, finalise, moved
from tests.support.stores import store_fixture
from tests.support.text import mentions, raises_code
from tests.support.transactions import OTHER, WALLET


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedConfig:
    path = agents.config(tmp_path, "trimtab")
    path.write_text(path.read_text().replace('wallet_wait = "2m"', 'wallet_wait = "1s"'))
    return load_config(path)


def look(store: Store, block: int) -> None:
    step = at(block)
    update_ledger(store, step, settlement.settle_mined(store, step.snapshot, lambda: step))


store = store_fixture("file", chain_id=1, wrapped_native=LEDGER_WETH.address, fill=lambda store: look(store, 1_000))


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

    with wallet_lock(wallet_locks(loaded)), pytest.raises(LockHeld):
        open_new_book(loaded.path, "anew")

    assert store.ledger.current_book() == before


SALE = (Transfer(LEDGER_WETH.address, WALLET, OTHER, COIN), Transfer(LEDGER_USDC.address, OTHER, WALLET, 2_000 * DOLLAR))


def entered(store: Store, *transfers: Transfer) -> str:
    """Enter a transaction whose step this version cannot read any more, beside a step at other prices; return its id."""
    moved(store, 0, 1_001, *transfers)
    finalise(store)
    look(store, 1_002)
    store.steps.begin("s", 1, "{}")
    newest = at(1_003, later_s=86_400)
    feeds = tuple(replace(feed, answer=feed.answer * 2) for feed in newest.snapshot.feeds)
    store.steps.begin("t", 2, codec.dumps(replace(newest, snapshot=replace(newest.snapshot, feeds=feeds))))
    (entry,) = store.ledger.intent_entries()
    return entry.id


@pytest.mark.parametrize("transfers", [SALE, SALE[:1], ()], ids=["a sale", "a payment", "gas alone"])
def test_entry_of_an_unreadable_step_is_kept(loaded: LoadedConfig, store: Store, transfers: tuple[Transfer, ...]) -> None:
    entry_id = entered(store, *transfers)
    entries_before = store.ledger.entries()

    checked = check_books(loaded.path)
    assert (checked["unaudited"], checked["differing"], checked["sound"]) == ([entry_id], [], True)
    assert not check_books(loaded.path, rebuild=True)["rebuilt"]
    assert store.ledger.entries() == entries_before


def test_amounts_of_an_entry_of_an_unreadable_step_are_checked(
    loaded: LoadedConfig, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    entry_id = entered(store, *SALE)
    with store.db.write("tamper") as db:
        db.exec_driver_sql("UPDATE entries SET entry_json = replace(entry_json, '2000000000', '2000000001')")
    (tampered,) = store.ledger.intent_entries()

    for rebuild in (False, True):
        checked = check_books(loaded.path, rebuild)
        assert (checked["unaudited"], checked["differing"], checked["sound"]) == ([entry_id], [entry_id], False)
        show_check({**checked, "chain": None})
        words = " ".join(capsys.readouterr().out.split())
        assert mentions(words, f"receipts: {entry_id}", "so they are kept", "Of 1 transaction, whose", "only the amounts are compared")
        assert "rewrites them" not in words
    assert store.ledger.intent_entries() == (tampered,)


def test_readable_steps_are_audited_whole(loaded: LoadedConfig, store: Store) -> None:
    entry_id = entered(store, *SALE)
    later = at()
    head = replace(later.snapshot.head, timestamp_s=later.snapshot.head.timestamp_s + 1)
    store.steps.begin("s", 1, codec.dumps(replace(later, snapshot=replace(later.snapshot, head=head))))

    checked = check_books(loaded.path)
    assert (checked["unaudited"], checked["differing"], checked["sound"]) == ([], [entry_id], False)
    rebuilt = check_books(loaded.path, rebuild=True)
    assert (rebuilt["rebuilt"], rebuilt["sound"]) == (True, True)
