"""An update and the way back, as docs/how-to.md tells them: the oldest store, then a live one by its commands."""

from __future__ import annotations

import lzma
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from agent import codec
from agent.model import IntentState, StepInput
from agent.store import open_store
from agent.store.files.backup import inspect_store_file
from agent.store.migrations.schema import REVISIONS
from agent.store.tables import Base
from tests.cli.tools import Desk
from tests.support.stores import install_later_version

OLDEST = Path(__file__).parents[1] / "data" / "store_0001.sql.xz"
"""A store by the first version: a rebalance on the local chain, a pause, a stop loss."""
SWAP = ("--in", "USDC", "--out", "WETH", "--amount", "300")
LOCAL_CHAIN = 31_337
WALLET = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


def test_oldest_store__is_brought_forward_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trimtab.db"
    with closing(sqlite3.connect(path)) as file:
        file.executescript(lzma.decompress(OLDEST.read_bytes()).decode())
    path.chmod(0o600)
    assert inspect_store_file(path).version == REVISIONS[0]
    store = open_store(f"sqlite:///{path}", LOCAL_CHAIN, WALLET)
    assert inspect_store_file(path).version == REVISIONS[-1]
    assert path.with_name(f"{path.name}.before-{REVISIONS[-1]}").exists() is (REVISIONS[0] != REVISIONS[-1])
    with store.db.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    assert [intent.state for intent in store.journal.intents()] == [IntentState.FINAL] * 2
    steps = store.steps.newest(9)
    assert len(steps) == 3
    assert all(isinstance(codec.loads(StepInput, store.steps.input_json(step.id) or ""), StepInput) for step in steps)
    store.close()


@pytest.mark.slow
def test_update_and_way_back__send_nothing_before_adopt(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = str(tmp_path / "before.db")
    steps = str(tmp_path / "steps")
    store = desk.config.with_name("trimtab.db")
    assert desk.ask("run", "--once", "--send", "--yes", "--record", steps)["outcome"] == "done"
    desk.ask("db", "backup", backup)
    traded = desk.ask("txs")["transactions"]

    with monkeypatch.context() as patch:  # the new version
        later = install_later_version(patch, tmp_path)
        assert desk.ask("replay", steps)["different"] == 0
        assert desk.run("doctor").code == 0
        assert desk.ask("run", "--once", "--send", "--yes")["outcome"] == "hold"
        assert desk.ask("txs")["transactions"] == traded
        desk.ask("swap", *SWAP, "--send", "--yes")
        assert inspect_store_file(store).version == later
        assert inspect_store_file(store.with_name(f"{store.name}.before-{later}")).version == REVISIONS[-1]

    refused = desk.ask("status", want=12)["error"]  # the old one again
    assert later in refused["message"]
    kept_count = desk.ask("db", "restore", backup, "--force")["kept"]
    assert inspect_store_file(Path(kept_count)).version == later
    assert desk.ask("swap", *SWAP, "--send", "--yes", want=12)["error"]["code"] == "foreign_nonce"
    desk.ask("adopt", "--yes")
    assert desk.ask("txs")["transactions"] == traded
    assert desk.run("books", "check").code == 0  # the swap of the new version was read from the chain
    assert "All balance changes are explained" in desk.run("flows").out
    assert desk.ask("run", "--once", "--send", "--yes")["outcome"] == "hold"
