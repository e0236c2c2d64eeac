"""Programs of two versions on one database: side by side after an addition, one after the other after a removal."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import ErrorCode, OperatorNeeded, PassingFault
from agent.store import Store, opening
from agent.store.migrations.schema import REVISIONS
from agent.store.postgresql import fencing, session
from tests.support.postgresql import Opener, Server
from tests.support.transactions import START_S

NEXT = "0002"
AFTER_NEXT = "0003"
MIGRATION = """
from alembic import op

revision = "{version}"
down_revision = "{before}"


def upgrade():
    op.execute("{statement}")
"""
ADDITION = "ALTER TABLE steps ADD COLUMN note text"
REMOVAL = "ALTER TABLE steps DROP COLUMN request_json"


@pytest.fixture
def become(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this program one of a later version, whose migration is one statement."""
    folder = Path(shutil.copytree(opening.MIGRATIONS_FOLDER, tmp_path / "migrations"))
    monkeypatch.setattr(opening, "MIGRATIONS_FOLDER", folder)

    def become(version: str, statement: str, oldest_reader: str) -> None:
        before = opening.REVISIONS[-1]
        script = MIGRATION.format(version=version, before=before, statement=statement)
        (folder / "versions" / f"{version}_later.py").write_text(script)
        monkeypatch.setattr(opening, "REVISIONS", (*opening.REVISIONS, version))
        monkeypatch.setattr(opening, "OLDEST_READER", oldest_reader)

    return become


@pytest.fixture
def become_older(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes this program the first version again."""
    return lambda: monkeypatch.setattr(opening, "REVISIONS", REVISIONS)


def write_step(store: Store, step_id: str) -> None:
    store.steps.begin(step_id, START_S, "{}")
    store.steps.end(step_id, "hold", "", None, "hold")


def test_after_an_addition_both_versions_write(opened: Opener, become: Callable[..., None], become_older: Callable[[], None]) -> None:
    first = opened()
    become(NEXT, ADDITION, REVISIONS[-1])
    second = opened()
    write_step(second, "by the newer")
    write_step(first, "by the older")
    become_older()
    write_step(opened(), "by an older one that starts later")
    assert [summary.id for summary in second.steps.newest(9)] == ["by an older one that starts later", "by the older", "by the newer"]


def test_after_a_removal_an_older_program_is_refused(opened: Opener, become: Callable[..., None], become_older: Callable[[], None]) -> None:
    opened()
    become(NEXT, REMOVAL, NEXT)
    opened()
    become_older()
    with pytest.raises(OperatorNeeded, match="install") as refusal:
        opened()
    assert refusal.value.code is ErrorCode.STORE_VERSION


def test_a_removal_waits_for_processes_of_older_versions(
    opened: Opener, url: str, become: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    engine = session.server_engine(session.make_url(url))
    older_process = fencing.LockSession(engine)
    older_process.join("workers")
    become(NEXT, ADDITION, REVISIONS[-1])
    opened()
    become(AFTER_NEXT, REMOVAL, AFTER_NEXT)
    with pytest.raises(PassingFault, match="still run"):
        opened()
    write_step(store, "goes on")
    older_process.close()
    monkeypatch.setattr(fencing, "REVISIONS", (*REVISIONS, NEXT, AFTER_NEXT))
    newer_process = fencing.LockSession(engine)
    newer_process.join("workers")
    assert opened().steps.newest(1)[0].id == "goes on"
    newer_process.close()


def test_killed_older_process__holds_up_no_removal(server: Server, opened: Opener, url: str, become: Callable[..., None]) -> None:
    opened()
    fencing.LockSession(session.server_engine(session.make_url(url))).join("workers")
    become(NEXT, REMOVAL, NEXT)
    with pytest.raises(PassingFault):
        opened()
    server.end_sessions()
    opened()
