"""A store whose rows are damaged, or whose files cannot be written: the operator is asked, nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from agent.errors import OperatorNeeded
from agent.execution import settlement
from agent.execution.bookkeeping import update_ledger
from agent.layers.sweep.store import INTERVAL_KEY, SweepStore
from agent.model import ExternalTransaction, IntentState, NavPerShare
from agent.store import Store, open_store, orders
from agent.store.accounts.balances import ACCEPTED_DEPOSITS, BLOCKED_SINCE, PRIOR_DAY_FAILED
from agent.store.accounts.budgets import DEMANDED_TIP, LAST_REVIEW, REVIEW_DELAY, UNREADABLE_BALANCES
from agent.store.accounts.failure_streaks import RESUMED_SEQ_KEY
from agent.store.accounts.nonces import ADOPTED_NONCE_KEY
from agent.store.database.errors import remedy
from agent.store.database.facts import ADOPTION_SEQ_KEY, read_facts, write_facts
from agent.store.files.locks import WalletLocks, wallet_lock
from agent.store.files.pause import KillSwitch
from agent.store.journal.proposals import PROPOSAL_KEY_PREFIX, SIGNATURES_KEY_PREFIX
from agent.store.store import MARKETS_KEY_PREFIX
from agent.units import NATIVE
from tests.support.ledgers import at, moved
from tests.support.movements import Movement, movements
from tests.support.stores import store_fixture
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, START_S, WALLET, bench, grant, new_store, tx


def add_swap(store: Store) -> None:
    store.journal.add_intent("s", tx(0), grant(), "swap", START_S, None)


store = store_fixture("file", begins_step=True, fill=add_swap)


def damage(store: Store, statement: str) -> None:
    with store.db.engine.connect() as connection:
        connection.exec_driver_sql(statement)
        connection.commit()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE intents SET state = 'signed', kind = 'theft'",
        "UPDATE intents SET tx_json = '{}'",
        "UPDATE intents SET tx_json = substr(tx_json, 1, 20)",
        "UPDATE intents SET receipt_json = '[]'",
    ],
)
def test_a_damaged_transaction_is_not_guessed_at(store: Store, statement: str) -> None:
    damage(store, statement)

    with raises_code(OperatorNeeded, "damaged"):
        store.journal.open_intents()


@pytest.mark.parametrize("changes_json", ['{"0xa": null}', '{"0xa": "x"}', "[]", "{"], ids=["null", "word", "list", "cut"])
def test_damaged_changes_of_an_external_transaction_are_named(tmp_path: Path, changes_json: str) -> None:
    store = new_store("memory", tmp_path)
    step = at()
    update_ledger(store, step, settlement.settle_mined(store, step.snapshot, lambda: step))
    store.balances.record_prior_day((ExternalTransaction("0x0a", 1_001, START_S, Fraction(0), Fraction(0), 0, (), 0),), 1)
    damage(store, f"UPDATE earlier SET changes_json = '{changes_json}'")
    for read in (store.balances.expected, store.ledger.entries, lambda: store.ledger.balances(1_002)):
        with pytest.raises(OperatorNeeded, match="damaged"):
            read()


@pytest.mark.parametrize("key", [ACCEPTED_DEPOSITS, BLOCKED_SINCE, PRIOR_DAY_FAILED])
def test_damaged_fact_of_balances__names_the_store(store: Store, key: str) -> None:
    with store.db.write("damage") as db:
        write_facts(db, {key: "x"})

    with pytest.raises(OperatorNeeded, match="damaged"):
        store.balances.is_prior_day_known(START_S)
        store.budgets.history(START_S)


def sign_first(store: Store) -> None:
    (intent,) = store.journal.open_intents()
    store.journal.advance(intent.id, IntentState.SIGNED, START_S, "0x0a")


@pytest.mark.parametrize(
    ("key", "read"),
    [
        pytest.param(ADOPTED_NONCE_KEY, lambda store: store.journal.expected_nonce(), id="nonce"),
        pytest.param(ADOPTION_SEQ_KEY, sign_first, id="signature"),
        pytest.param(f"{PROPOSAL_KEY_PREFIX}x", lambda store: store.proposals.proposal_blocks(), id="proposal"),
        pytest.param(LAST_REVIEW, lambda store: store.budgets.history(START_S), id="review"),
        pytest.param(REVIEW_DELAY, lambda store: store.budgets.history(START_S), id="delay of a review"),
        pytest.param(RESUMED_SEQ_KEY, lambda store: store.budgets.history(START_S), id="resumption"),
    ],
)
def test_damaged_number__asks_for_the_operator(store: Store, key: str, read: Callable[[Store], object]) -> None:
    store.journal.adopt_nonce(0, START_S)
    with store.db.write("damage") as db:
        write_facts(db, {key: "x"})
    with pytest.raises(OperatorNeeded, match=f"{key} is damaged"):
        read(store)


@pytest.mark.parametrize(
    ("statement", "read"),
    [
        pytest.param("UPDATE running SET raw = 'x'", lambda store: store.ledger.balances(1_002), id="balance of the ledger"),
        pytest.param("UPDATE running SET raw = ''", lambda store: store.ledger.find_misstatements(), id="balance that is checked"),
        pytest.param("UPDATE book_openings SET raw = '1.5'", lambda store: store.ledger.entries(), id="opening of the ledger"),
        pytest.param("UPDATE book_openings SET raw = 'x'", lambda store: store.ledger.find_misstatements(), id="opening that is checked"),
        pytest.param("UPDATE book_openings SET value = '1/0'", lambda store: store.ledger.entries(), id="value of an opening"),
        pytest.param("UPDATE openings SET raw = 'x'", lambda store: store.balances.expected(), id="balance expected"),
        pytest.param("UPDATE valuations SET value = 'x'", lambda store: store.valuations.between(), id="valuation"),
        pytest.param("UPDATE budgets SET gas_wei = 'x'", lambda store: store.budgets.history(START_S), id="gas of a budget"),
        pytest.param("UPDATE budgets SET loss = 'x'", lambda store: store.budgets.history(START_S), id="loss of a budget"),
        pytest.param("UPDATE budgets SET loss = 'x'", lambda store: store.ledger.find_misstatements(), id="loss that is checked"),
    ],
)
def test_damaged_amount__asks_for_the_operator(tmp_path: Path, statement: str, read: Callable[[Store], object]) -> None:
    store = new_store("memory", tmp_path)
    step = at()
    update_ledger(store, step, settlement.settle_mined(store, step.snapshot, lambda: step))
    moved(store, 0, 1_001)
    (intent,) = store.journal.open_intents()
    store.budgets.book_intent(intent, Fraction(1), Fraction(1), 1, START_S)
    read(store)

    damage(store, statement)
    store.db.cached_answers.clear()

    with raises_code(OperatorNeeded, "damaged"):
        read(store)


def nav_per_share(store: Store) -> object:
    assert store.orders.replace_orders((), NavPerShare(Fraction(1), START_S, (), ()), 0)
    (intent,) = store.journal.open_intents()
    store.budgets.book_intent(intent, Fraction(1), Fraction(1), 1, START_S + 1)
    damage(store, "UPDATE budgets SET loss = 'x'")
    with store.db.read("read the NAV") as db:
        return orders.nav_per_share(db, read_facts(db, orders.NAV_PER_SHARE_KEY))


def history(store: Store) -> object:
    return store.budgets.history(START_S)


def market_numbers(store: Store) -> object:
    return store.trust.market_numbers("mainnet")


def sweep_interval(store: Store) -> object:
    return store.layer_repository(SweepStore).interval_start_s("monthly")


def signatures(store: Store) -> object:
    return store.proposals.signatures("x")


@pytest.mark.parametrize(
    ("key", "fact", "read"),
    [
        pytest.param(DEMANDED_TIP, "5", history, id="tip without time"),
        pytest.param(DEMANDED_TIP, "x:5", history, id="tip that is a word"),
        pytest.param(DEMANDED_TIP, "5:x", history, id="tip of a time that is a word"),
        pytest.param(UNREADABLE_BALANCES, "0xa", history, id="unreadable balance without time"),
        pytest.param(UNREADABLE_BALANCES, "0xa:1:2", history, id="unreadable balance of two times"),
        pytest.param(MARKETS_KEY_PREFIX + "mainnet", "[]", market_numbers, id="list of markets"),
        pytest.param(MARKETS_KEY_PREFIX + "mainnet", '{"ETH": "x"}', market_numbers, id="number of a market"),
        pytest.param(MARKETS_KEY_PREFIX + "mainnet", "{", market_numbers, id="markets cut off"),
        pytest.param(INTERVAL_KEY, "[]", sweep_interval, id="interval without time"),
        pytest.param(INTERVAL_KEY, '["monthly", "x"]', sweep_interval, id="interval of a word"),
        pytest.param(INTERVAL_KEY, "5", sweep_interval, id="interval that is a number"),
        pytest.param(f"{SIGNATURES_KEY_PREFIX}x", "[]", signatures, id="list of signatures"),
        pytest.param(f"{SIGNATURES_KEY_PREFIX}x", "{", signatures, id="signatures cut off"),
        pytest.param(f"{SIGNATURES_KEY_PREFIX}x", '{"0xa": "zz"}', signatures, id="signature that is a word"),
        pytest.param("x", "x", nav_per_share, id="loss since a NAV per share"),
    ],
)
def test_damaged_fact__asks_for_the_operator(store: Store, key: str, fact: str, read: Callable[[Store], object]) -> None:
    with store.db.write("damage") as db:
        write_facts(db, {key: fact})

    with raises_code(OperatorNeeded, "damaged"):
        read(store)


def test_damaged_input_of_the_newest_step__asks_for_the_operator(store: Store) -> None:
    store.steps.begin("s", START_S, '{"portfolio": 1}')
    with raises_code(OperatorNeeded, "damaged"):
        store.steps.newest_input()


def test_a_damaged_grant_signs_nothing(store: Store) -> None:
    (intent,) = store.journal.open_intents()
    damage(store, "UPDATE intents SET grant_z = x'00'")

    with raises_code(OperatorNeeded, "damaged"):
        store.journal.grant(intent.id)
    with pytest.raises(KeyError):
        store.journal.grant("nothing")


def test_a_damaged_step_is_told_and_its_line_still_shown(store: Store) -> None:
    damage(store, "UPDATE steps SET input_z = x'00ff'")

    with raises_code(OperatorNeeded, "damaged"):
        store.steps.get("s")
    assert [line.id for line in store.steps.newest(5)] == ["s"]


def test_a_damaged_budget_counts_as_unknown_and_not_as_zero(store: Store) -> None:
    (intent,) = store.journal.open_intents()

    store.budgets.book_intent(intent, Fraction(1), Fraction(2), 3, START_S)

    assert store.budgets.history(START_S).budgets.loss_24h == 2
    damage(store, "UPDATE budgets SET loss = '1/0'")
    with raises_code(OperatorNeeded, "damaged", "budget entry"):
        store.budgets.history(START_S)


def test_native_coin_that_left_is_a_movement(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    intent = setup.run(value_wei=5)

    setup.store.budgets.book_intent(intent, Fraction(0), Fraction(0), 0, START_S)

    assert Movement(NATIVE, -5, "swap", 1, START_S, intent.tx_hash) in movements(setup.store)


def test_native_coin_of_a_reverted_transaction_did_not_leave(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    setup.chain.status = 0

    setup.store.budgets.book_intent(setup.run(value_wei=5), Fraction(0), Fraction(0), 0, START_S)

    assert [movement.kind for movement in movements(setup.store)] == ["gas"]


@pytest.mark.parametrize(
    ("message", "part"),
    [
        ("database or disk is full", "free space"),
        ("[Errno 28] No space left on device", "free space"),
        ("database is locked", "another program"),
        ("database disk image is malformed", "restore a backup"),
        ("disk I/O error", "check the disk"),
        ("[Errno 5] Input/output error", "check the disk"),
        ('could not read block 3 in file "base/1/2": Input/output error', "check the disk"),
        ("attempt to write a readonly database", "writable"),
        ("something new", "repair it"),
    ],
)
def test_every_failure_says_what_to_do(message: str, part: str) -> None:
    assert part in remedy(message)


def test_a_store_locked_by_another_program_asks_for_the_operator(tmp_path: Path, store: Store) -> None:
    other = open_store(f"sqlite:///{tmp_path}/trimtab.db", CHAIN_ID, WALLET)
    with other.db.engine.connect() as holder:
        holder.exec_driver_sql("ROLLBACK")
        holder.exec_driver_sql("BEGIN EXCLUSIVE")
        with store.db.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 10")
        with raises_code(OperatorNeeded, "store", "locked") as caught:
            store.steps.begin("t", START_S, "{}")
        assert "another program" in caught.value.remedy
    other.close()
    store.steps.begin("t", START_S, "{}")


def test_a_pid_file_that_cannot_be_written_keeps_the_lock_free(tmp_path: Path) -> None:
    (tmp_path / "x.pid").mkdir()

    with raises_code(OperatorNeeded, "file", "cannot write"), wallet_lock(WalletLocks(tmp_path / "x.lock", 1, WALLET)):
        raise AssertionError("held the lock without saying so")
    (tmp_path / "x.pid").rmdir()
    with wallet_lock(WalletLocks(tmp_path / "x.lock", 1, WALLET)):
        assert (tmp_path / "x.pid").exists()


def test_a_pause_file_that_cannot_be_removed_keeps_the_pause(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "paused"
    folder.mkdir()

    switch = KillSwitch(folder, store.pause_switch)

    assert switch.is_paused() is True
    with raises_code(OperatorNeeded, "pause", "cannot remove"):
        switch.resume("go", START_S)
    assert switch.is_paused() is True
