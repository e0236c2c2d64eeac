"""Steps in a store whose recorder writes them into files, with the engine's decisions."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select
from sqlalchemy import event as database_event

from agent import codec
from agent.app.agent import Agent
from agent.app.research.offline import plan_step_input
from agent.model import Allocation, StepInput
from agent.store import Store, open_store, opening
from agent.store.files.recorder import RecorderLimits, StepRecorder
from agent.store.journal.steps import delete_old_steps
from agent.store.migrations.schema import REVISIONS
from agent.store.tables import AllocationRow, PinRow
from tests.support import builders
from tests.support.transactions import CHAIN_ID, START_S, WALLET, Killed, new_store


def prune(store: Store, kept_count: int) -> int:
    """Delete old steps at once; return their number."""
    with store.db.write("remove old steps") as db:
        return delete_old_steps(db, kept_count)


def store_fixture(
    kind: str = "",
    *,
    wallet: str = WALLET,
    wrapped_native: str = "",
    chain_id: int = CHAIN_ID,
    begins_step: bool = False,
    fill: Callable[[Store], object] = lambda _: None,
) -> Callable[..., Iterator[Store]]:
    """Return the fixture `store` of a module: a new store of the kind, or of each kind, filled by `fill`.

    With `begins_step` the step `s` has begun before.
    """

    def opened(kind: str, folder: Path) -> Iterator[Store]:
        store = new_store(kind, folder, wallet, wrapped_native, chain_id)
        if begins_step:
            store.steps.begin("s", START_S, "{}")
        fill(store)
        yield store
        store.close()

    @pytest.fixture(name="store")
    def of_kind(tmp_path: Path) -> Iterator[Store]:
        yield from opened(kind, tmp_path)

    @pytest.fixture(name="store")
    def of_each_kind(store_kind: str, tmp_path: Path) -> Iterator[Store]:
        yield from opened(store_kind, tmp_path)

    return of_kind if kind else of_each_kind


DIGEST = "ab" * 32
ROOMY = RecorderLimits(1_000, 10**9)
DRIFTED = {"WETH": 7_000, "USDC": 3_000}
STEPS = (builders.step_input(), builders.step_input(values=DRIFTED), builders.without_feed(builders.step_input(values=DRIFTED), "WETH"))
"""Steps that hold, rebalance and halt."""


@contextmanager
def store_lock(store_file: Path) -> Iterator[None]:
    """Let another program hold the store's write lock."""
    other = sqlite3.connect(store_file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


def recorded_steps(folder: Path, steps: Sequence[StepInput] = STEPS, bounds: RecorderLimits = ROOMY) -> Path:
    """Record these steps, each under its own id, and return the folder of the files. A second call continues there."""
    store = open_store(f"sqlite:///{folder}/trimtab.db", 31_337, builders.OWNER)
    place = folder / "steps"
    store.steps.on_step_recorded = StepRecorder(place, DIGEST, "live", bounds).write_step
    for number, step in enumerate(steps, len(store.steps.newest(1_000))):
        name = f"{number:012x}"
        outcome = plan_step_input(step)
        store.steps.begin(name, step.snapshot.now_s, codec.dumps(step))
        store.steps.end(name, type(outcome.decision).__name__.lower(), outcome.reason, outcome.plan, outcome.kind.value)
    store.close()
    return place


def files(folder: Path) -> list[Path]:
    """Return the recorded steps, oldest first."""
    return sorted(folder.glob("step-*.json"))


def edit_step_file(path: Path, **fields: Any) -> None:
    """Rewrite a file with other values under some keys; a__b is key b in a, and a value of None removes the key."""
    document = json.loads(path.read_text())
    for place, value in fields.items():
        *way, key = place.split("__")
        at = document
        for part in way:
            at = at[part]
        at.pop(key, None)
        if value is not None:
            at[key] = value
    path.write_text(json.dumps(document))


# --- A later version of this program, whose migration changes and fills the store.


_LATER = """
import sqlalchemy as sa
from alembic import op

revision = "{version}"
down_revision = "{before}"


def upgrade():
    op.create_table("later", sa.Column("name", sa.Text, primary_key=True))
    op.add_column("configs", sa.Column("later", sa.Text))
    op.execute("INSERT INTO later SELECT id FROM steps")
    op.execute("UPDATE configs SET later = config_hash")
    op.execute("DELETE FROM openings")
"""


def install_later_version(patch: pytest.MonkeyPatch, folder: Path) -> str:
    """Make this program one of a later version, for which every store is an older one; return that version."""
    version = f"{len(REVISIONS) + 1:04}"
    scripts = Path(shutil.copytree(opening.MIGRATIONS_FOLDER, folder / "later_migrations"))
    (scripts / "versions" / f"{version}_later.py").write_text(_LATER.format(version=version, before=REVISIONS[-1]))
    patch.setattr(opening, "MIGRATIONS_FOLDER", scripts)
    patch.setattr(opening, "REVISIONS", (*REVISIONS, version))
    return version


# --- End of a process at a chosen moment of a step, simulated in this process: the store is opened again. Blocks may be held back.


@contextmanager
def dying(agent: Agent, die_at: int | None) -> Iterator[Callable[[str], None]]:
    """Yield a progress listener that ends the process at the moment with this number, if one is given."""
    engine = agent.context.store.db.engine
    moments = count(1)
    writing = False

    def passed() -> None:
        if next(moments) == die_at:
            raise Killed

    def progress(event: str) -> None:
        if event in ("before:send", "after:send") or event.startswith("nonce "):
            passed()

    def executed(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal writing
        writing = writing or statement.startswith(("INSERT", "UPDATE", "DELETE"))

    def committed(_connection: object) -> None:
        nonlocal writing
        if writing:
            writing = False
            passed()

    heard = (("before_cursor_execute", executed), ("commit", committed))
    for name, listener in heard:
        database_event.listen(engine, name, listener)
    try:
        yield progress
    finally:
        for name, listener in heard:
            database_event.remove(engine, name, listener)


def unpin(store: Store, address: str) -> None:
    """Remove the pin of a contract, which no command does."""
    with store.trust.db.write("unpin a contract") as db:
        assert db.execute(delete(PinRow).where(PinRow.address == address)).rowcount == 1


def pins(store: Store) -> list[tuple[str, str, int]]:
    """Return address, code hash and time of every pin."""
    with store.trust.db.read("read the pins") as db:
        return [tuple(row) for row in db.execute(select(PinRow.address, PinRow.code_hash, PinRow.pinned_s).order_by(PinRow.address))]


def chosen_weights(store: Store) -> list[Allocation]:
    """Return all recorded choices of the portfolio, newest first."""
    with store.allocations.db.read("read chosen weights") as db:
        texts = db.scalars(select(AllocationRow.allocation_json).where(AllocationRow.owner == "").order_by(AllocationRow.seq.desc()))
        return [codec.loads(Allocation, text) for text in texts]
