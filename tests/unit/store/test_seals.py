"""Rows that only grow are sealed in a chain: what another program writes into the file neither replaces them nor counts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent.model import Control, ControlKind, ControlOrigin, ControlState, IntentState
from agent.store import Store, seals
from agent.store.controls import ControlStateChange
from agent.store.files.backup import backup
from agent.store.files.secret import secret_path
from agent.store.seals import SealReport
from tests.support.stores import store_fixture
from tests.support.transactions import START_S, grant, new_store, tx

CENTURY_S = 4_102_444_800
"""The year 2100."""
FORGED_LINE = (
    "INSERT INTO control_log (control_id, kind, origin, asked_by, state, code, reason, at_s)"
    f" VALUES ('x', 'resume', 'api', 'mallory', 'done', '', '', {CENTURY_S})"
)
FORGED_MOVE = "INSERT INTO transitions (intent_id, old_state, new_state, at_s, note) SELECT id, state, 'final', 1, 'forged' FROM intents"
REPLACED_LINE = (
    "REPLACE INTO control_log (seq, control_id, kind, origin, asked_by, state, code, reason, at_s)"
    " SELECT seq, control_id, kind, origin, 'mallory', state, code, reason, at_s FROM control_log"
)
REPLACED_MOVE = (
    "REPLACE INTO transitions (seq, intent_id, old_state, new_state, at_s, tx_hash, note)"
    " SELECT seq, intent_id, old_state, 'final', at_s, tx_hash, 'forged' FROM transitions"
)


def control(number: int = 1) -> Control:
    return Control(f"{number:032x}", ControlKind.RESUME, (), "", "owner", ControlOrigin.API, START_S, START_S + 300)


def queue_control_and_add_swap(store: Store) -> None:
    store.controls.queue(control())
    store.journal.add_intent("s", tx(0), grant(), "swap", START_S, None)


store = store_fixture("file", begins_step=True, fill=queue_control_and_add_swap)


def alter(store: Store, *statements: str) -> None:
    """Run statements as another program does that can write the file, with SQLite's defaults."""
    with closing(sqlite3.connect(str(store.db.engine.url.database), isolation_level=None)) as file:
        for statement in statements:
            file.execute(statement)


def only_move(store: Store) -> list[IntentState]:
    (intent,) = store.journal.intents()
    return [move.new_state for move in store.journal.transitions(intent.id)]


# --- The statements that the triggers did not see.


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(REPLACED_LINE, id="line replaced"),
        pytest.param(REPLACED_MOVE, id="transition replaced"),
        pytest.param(REPLACED_LINE.replace("REPLACE", "INSERT OR REPLACE"), id="line inserted or replaced"),
        pytest.param(REPLACED_MOVE.replace("REPLACE", "INSERT OR REPLACE"), id="transition inserted or replaced"),
    ],
)
def test_row_of_a_log_is_not_replaced(store: Store, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="only"):
        alter(store, statement)

    assert [event.asked_by for event in store.controls.events()] == ["owner"]
    assert only_move(store) == [IntentState.PLANNED]


@pytest.mark.parametrize("table", ["control_log", "transitions"])
@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("UPDATE OR REPLACE {} SET seq = 9", id="changed or replaced"),
        pytest.param("UPDATE OR IGNORE {} SET seq = 9", id="changed or ignored"),
        pytest.param("DELETE FROM {}", id="deleted"),
    ],
)
def test_row_of_a_log_is_neither_changed_nor_deleted(store: Store, table: str, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="only"):
        alter(store, statement.format(table))

    assert [report.row_count for report in store.seal_reports()] == [1, 1]


def test_unsealed_line_from_the_future_does_not_count(store: Store) -> None:
    alter(store, FORGED_LINE, FORGED_LINE.replace("(control_id", "(seq, control_id").replace("('x'", f"({2**63 - 1}, 'x'"))

    assert store.controls.log_number_and_time() == (1, START_S)
    assert store.controls.take(1, START_S + 1)
    store.controls.finish([ControlStateChange(1, ControlState.DONE)], START_S + 2)
    store.controls.queue(control(2))
    assert [event.state for event in store.controls.events()] == ["queued", "taken", "done", "queued"]
    assert [event.state for event in store.controls.events(after=1, limit=2)] == ["taken", "done"]
    assert store.controls.log_number_and_time() == (store.controls.events()[-1].sequence_number, START_S + 2)


def test_many_forged_lines_do_not_hide_a_genuine_one(store: Store) -> None:
    alter(store, *[FORGED_LINE] * 20)

    store.controls.queue(control(2))

    assert [event.asked_by for event in store.controls.events(after=1, limit=1)] == ["owner"]


def test_forged_line_takes_no_queued_control(store: Store) -> None:
    alter(store, FORGED_LINE.replace("'x'", f"'{control().id}'").replace("'done'", "'taken'"))

    assert store.controls.take(1, START_S)
    assert not store.controls.take(1, START_S)


def test_forged_transition_does_not_count(store: Store) -> None:
    alter(store, FORGED_MOVE)
    (intent,) = store.journal.intents()

    store.journal.advance(intent.id, IntentState.SIGNED, START_S + 1, tx_hash="0x" + "ab" * 32)

    assert only_move(store) == [IntentState.PLANNED, IntentState.SIGNED]
    assert store.journal.newest_transition_s() == START_S + 1


def test_forged_transition_blocks_no_backup(store: Store, tmp_path: Path) -> None:
    alter(store, FORGED_MOVE)

    assert backup(tmp_path / "trimtab.db", tmp_path / "copy.db") > 0


def test_unsealed_transition_that_may_have_sent_counts(store: Store) -> None:
    alter(store, FORGED_MOVE.replace("'final'", "'broadcast'"))
    (intent,) = store.journal.intents()

    with pytest.raises(ValueError, match="bytes may have left"):
        store.journal.advance(intent.id, IntentState.CANCELLED, START_S)


# --- The chain.


@pytest.mark.parametrize(
    ("column", "other_value"),
    [
        ("seq", "7"),
        ("control_id", "'x'"),
        ("kind", "'stop'"),
        ("origin", "'cli'"),
        ("asked_by", "'eve'"),
        ("state", "'done'"),
        ("code", "'x'"),
        ("reason", "'x'"),
        ("at_s", "1"),
        ("previous_seal", "'ab'"),
        ("seal", "'ab'"),
        pytest.param("reason", "x'00'", id="reason of another type"),
        pytest.param("seal", "7.5", id="seal of another type"),
        pytest.param("seal", "''", id="seal left out"),
    ],
)
def test_seal_covers_every_column(store: Store, column: str, other_value: str) -> None:
    store.controls.take(1, START_S)

    alter(store, "DROP TRIGGER control_log_no_update", f"UPDATE control_log SET {column} = {other_value} WHERE seq = 2")

    assert [event.state for event in store.controls.events()] == ["queued"]
    assert store.seal_reports()[0] == SealReport("control_log", row_count=2, unsealed_count=1, gap_count=0)


def test_genuine_line_does_not_count_a_second_time(store: Store) -> None:
    alter(store, "INSERT INTO control_log (control_id, kind, origin, asked_by, state, code, reason, at_s, previous_seal, seal)"
                 " SELECT control_id, kind, origin, asked_by, state, code, reason, at_s, previous_seal, seal FROM control_log")  # fmt: skip

    assert len(store.controls.events()) == 1


@pytest.mark.parametrize(
    ("deleted", "gap_count"),
    [
        pytest.param("seq = 1", 1, id="oldest"),
        pytest.param("seq = 2", 1, id="between"),
        pytest.param("seq IN (1, 3)", 2, id="two apart"),
        pytest.param("seq IN (2, 3)", 1, id="two in a row"),
        pytest.param("seq = 9", 0, id="none"),
    ],
)
def test_deleted_lines_leave_gaps_in_the_chain(store: Store, deleted: str, gap_count: int) -> None:
    for number in (2, 3, 4):
        store.controls.queue(control(number))

    alter(store, "DROP TRIGGER control_log_no_delete", f"DELETE FROM control_log WHERE {deleted}")

    assert [report.gap_count for report in store.seal_reports()] == [gap_count, 0]


def test_without_the_secret_nothing_that_was_sealed_counts(store: Store) -> None:
    path = secret_path(Path(str(store.db.engine.url.database)))

    path.rename(path.with_suffix(".kept"))

    assert store.controls.events() == ()
    assert not path.exists(), "reading makes no secret"
    store.controls.queue(control(2))
    assert [event.control_id for event in store.controls.events()] == [control(2).id]
    assert path.exists()
    assert [(report.row_count, report.unsealed_count, report.gap_count) for report in store.seal_reports()] == [(2, 1, 0), (1, 1, 0)]
    path.with_suffix(".kept").replace(path)
    assert [event.control_id for event in store.controls.events()] == [control().id]


def test_secret_that_cannot_be_read_stops_no_write(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process knows its own lines, and no other process accepts them."""
    path = secret_path(Path(str(store.db.engine.url.database)))
    path.chmod(0o640)

    store.controls.queue(control(2))

    assert [event.control_id for event in store.controls.events()] == [control(2).id]
    monkeypatch.setattr(seals, "_PROCESS_KEY", b"of another process")
    assert store.controls.events() == ()
    path.chmod(0o600)
    assert [event.control_id for event in store.controls.events()] == [control().id]


def test_store_in_memory_seals_nothing_and_reads_everything() -> None:
    store = new_store("memory", Path())

    store.controls.queue(replace(control(), id="1"))

    assert len(store.controls.events()) == 1
    assert [report.unsealed_count for report in store.seal_reports()] == [0, 0]
