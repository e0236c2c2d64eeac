"""Old steps are removed, what led to a transaction stays, and so does the first one, from which schedules count."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from agent.store import Store
from agent.store.journal.steps import MAX_PRUNED
from tests.support.stores import prune, store_fixture
from tests.support.transactions import CHAIN_ID, START_S, WALLET, grant, new_store, tx

store = store_fixture("file", wallet=WALLET, chain_id=CHAIN_ID)


def record_steps(store: Store, first: int, count: int) -> None:
    for number in range(first, first + count):
        store.steps.begin(f"s{number}", START_S + number, "{}")
        store.steps.end(f"s{number}", "hold", "", None, "hold")


def step_numbers(store: Store) -> list[int]:
    return sorted(int(line.id[1:]) for line in store.steps.newest(10_000))


def test_the_newest_the_first_and_those_with_a_transaction_stay(store: Store) -> None:
    record_steps(store, 0, 20)
    store.journal.add_intent("s4", tx(0), grant(), "swap", START_S, None)

    began = store.budgets.history(START_S).started_s

    assert prune(store, 5) == 13
    assert step_numbers(store) == [0, 4, 15, 16, 17, 18, 19]
    assert store.budgets.history(START_S).started_s == began
    assert prune(store, 5) == 0
    assert store.steps.input_json("s4") == "{}"


def test_wallets_that_write_in_turn__each_keep_their_newest(store: Store, tmp_path: Path) -> None:
    """On PostgreSQL the steps of all wallets are numbered in one row."""
    (tmp_path / "other").mkdir()
    with closing(new_store("file", tmp_path / "other")) as other:
        for number in range(20):
            record_steps(store, number, 1)
            record_steps(other, 3 * number, 3)
        assert prune(store, 5) == 14
        assert prune(other, 50) == 9
        assert step_numbers(store) == [0, 15, 16, 17, 18, 19]
        assert step_numbers(other) == [0, *range(10, 60)]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_few_looks_are_all_kept(store: Store, count: int) -> None:
    record_steps(store, 0, count)

    assert prune(store, 5) == 0
    assert len(step_numbers(store)) == count


def test_an_old_store_is_cleaned_piece_by_piece(store: Store) -> None:
    record_steps(store, 0, MAX_PRUNED + 100)

    assert prune(store, 10) == MAX_PRUNED
    assert prune(store, 10) == 89
    assert len(step_numbers(store)) == 11


def test_file_stops_growing_once_steps_are_pruned(store: Store, tmp_path: Path) -> None:
    def pages() -> int:
        with store.db.engine.connect() as connection:
            return int(connection.exec_driver_sql("PRAGMA page_count").scalar() or 0)

    sizes = []
    for turn in range(6):
        for number in range(turn * 60, turn * 60 + 60):
            store.steps.begin(f"s{number}", START_S, "x" * 200_000)
            store.steps.end(f"s{number}", "hold", "", None, "hold")
            prune(store, 50)
        sizes.append(pages())

    assert sizes[-1] == sizes[2]
