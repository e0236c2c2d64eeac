"""Backup and restore of a store: consistent copies and integrity checks. Nothing is sent from a
copy until `trimtab adopt` (T8).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.errors import ConfigError, ErrorCode, OperatorNeeded
from agent.files import sync_folder
from agent.store.database.errors import database_errors

COPY_KEY = "copy_of"
"""Key that marks a copy until it is adopted."""
STORE_KIND_KEY = "books"
"""Key that holds the kind of data; only a paper store has it."""
_LOG_SUFFIXES = ("-wal", "-journal")
_COMPANION_SUFFIXES = (*_LOG_SUFFIXES, "-shm")
"""Suffixes of the logs, and of all files, that SQLite keeps beside the database."""


@dataclass(frozen=True, slots=True)
class StoreFileInfo:
    """Metadata of a store's file. `copy_origin` has the source and time of a copy that is not
    adopted yet (else None); `store_kind` is "live" or "paper".
    """

    version: str
    wallet: str
    chain_id: str
    copy_origin: str | None
    store_kind: str = "live"


def backup(source: Path, target: Path, force: bool = False) -> int:
    """Copy the store at `source`, which may be in use, to `target`; return its size in bytes.

    The copy is written to a temporary file that only its owner can read, checked, then renamed to
    `target`. Raises ConfigError if the file exists and `force` is not given, OperatorNeeded if the
    store is damaged or the copy cannot be written.
    """
    _require_usable_target(target, force)
    if target.exists() and source.samefile(target):
        raise ConfigError(
            f"{target} is the store itself", "use another file name", code=ErrorCode.SAME_FILE
        )
    if any(target.with_name(target.name + suffix).exists() for suffix in _COMPANION_SUFFIXES):
        raise ConfigError(
            f"{target} looks like a store in use: it has a write-ahead log",
            "use another file name",
            code=ErrorCode.IN_USE,
        )
    with database_errors("make the backup"), _draft_beside(target) as draft_file:
        _write_copy(source, draft_file)
        draft_file.replace(target)
        sync_folder(target.parent)
    return target.stat().st_size


def restore(
    source: Path,
    target: Path,
    wallet: str,
    chain_id: int,
    known_versions: tuple[str, ...],
    force: bool = False,
) -> Path | None:
    """Replace the store at `target` with the backup at `source`; return the new path of the
    previous store, None if there was none.

    With `force` the previous store is renamed, never overwritten. The restored store is marked as a
    copy until it is adopted. The caller holds the wallet's lock. Changes nothing if it raises
    ConfigError or OperatorNeeded.
    """
    if not source.is_file():
        raise ConfigError(
            f"backup {source}: there is no such file", "use a file written by trimtab db backup"
        )
    if target.exists() and source.samefile(target):
        raise ConfigError(
            f"{source} is the store itself",
            "use a file written by trimtab db backup",
            code=ErrorCode.SAME_FILE,
        )
    backup_info = inspect_store_file(source)
    if backup_info.wallet.lower() != wallet.lower() or backup_info.chain_id != str(chain_id):
        raise OperatorNeeded(
            f"backup {source}: belongs to wallet {backup_info.wallet} on chain {backup_info.chain_id}, the"
            f" config says {wallet} on chain {chain_id}",
            "use a backup of this wallet and chain",
            code=ErrorCode.STORE_OWNER,
        )
    if backup_info.store_kind != "live":
        raise OperatorNeeded(
            f"backup {source}: holds {backup_info.store_kind} data, which cannot become live data",
            "use a backup of the live store",
            code=ErrorCode.PAPER,
        )
    if backup_info.version not in known_versions:
        raise OperatorNeeded(
            f"backup {source}: has store version {backup_info.version}, which this trimtab does not know;"
            f" its own version is {known_versions[-1]}",
            "install the trimtab that wrote the backup",
            code=ErrorCode.STORE_VERSION,
        )
    _require_usable_target(target, force)
    require_no_orphaned_log(target)
    with (
        database_errors("restore the backup"),
        _draft_beside(target) as draft_file,
        ExitStack() as undo,
    ):
        _write_copy(source, draft_file)
        previous_file = _move_aside(target, undo) if target.exists() else None
        draft_file.replace(target)
        undo.pop_all()
        sync_folder(target.parent)
    return previous_file


def require_no_orphaned_log(store_path: Path) -> None:
    """Raise ConfigError if SQLite's log of a store is beside `store_path`, and the store itself is
    gone: SQLite would apply the log to the next file of that name, or delete it.
    """
    # Logs first: a store that is created meanwhile is no missing one.
    log_files = [
        log_file
        for suffix in _LOG_SUFFIXES
        if (log_file := store_path.with_name(store_path.name + suffix)).exists()
    ]
    if log_files and not store_path.exists():
        raise ConfigError(
            f"{store_path} is gone, but not its log {log_files[0].name}, which has its last entries",
            "rename the log like the store that it belongs to, or move it to another folder",
            code=ErrorCode.IN_USE,
        )


def inspect_store_file(path: Path, copied_file: Path | None = None) -> StoreFileInfo:
    """Check a store's file without writing, and return its metadata. With `copied_file` that is read
    in place of the store at `path`, which the errors name.

    Checks pages, foreign keys, and that each transaction has the state of its last transition; one
    that another program added has no seal and does not count.
    Raises OperatorNeeded, naming the damage.
    """
    with database_errors(f"read {path}"), closing(open_read_only(copied_file or path)) as store:
        try:
            page_check = store.execute("PRAGMA integrity_check(1)").fetchone()[0]
            table_names = {
                table_name
                for (table_name,) in store.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table'"
                )
            }
        except sqlite3.DatabaseError as error:
            raise _damaged_file_error(path, str(error)) from None
        if not {"alembic_version", "meta", "intents", "transitions"} <= table_names:
            raise OperatorNeeded(
                f"{path} is not a trimtab store",
                "use a file written by trimtab db backup",
                code=ErrorCode.NOT_A_STORE,
            )
        if page_check != "ok":
            raise _damaged_file_error(path, page_check)
        dangling_row = store.execute("PRAGMA foreign_key_check").fetchone()
        if dangling_row is not None:
            raise _damaged_file_error(
                path, f"a row of {dangling_row[0]} refers to a row that does not exist"
            )
        mismatch_row = store.execute(_SELECT_MISMATCH).fetchone()
        if mismatch_row is not None:
            intent_id, state, last_state = mismatch_row
            raise _damaged_file_error(
                path,
                f"transaction {intent_id} is {state}, but its last transition led to {last_state}",
            )
        fact_by_key = dict(store.execute("SELECT key, value FROM meta"))
        version_row = store.execute("SELECT version_num FROM alembic_version").fetchone()
    if not (version_row and version_row[0]):
        raise _damaged_file_error(path, "its version is missing")
    return StoreFileInfo(
        version_row[0],
        fact_by_key.get("wallet", "nobody"),
        fact_by_key.get("chain_id", "none"),
        fact_by_key.get(COPY_KEY),
        fact_by_key.get(STORE_KIND_KEY, "live"),
    )


_SELECT_MISMATCH = """
SELECT intents.id, intents.state, transitions.new_state FROM intents
LEFT JOIN transitions ON transitions.seq =
 (SELECT MAX(seq) FROM transitions WHERE intent_id = intents.id AND seal <> '')
WHERE transitions.new_state IS NULL OR transitions.new_state <> intents.state LIMIT 1
"""


def _damaged_file_error(path: Path, reason: str) -> OperatorNeeded:
    return OperatorNeeded(
        f"{path} is damaged: {reason}",
        "keep the file, restore another backup (trimtab db restore), compare it with the chain",
        code=ErrorCode.DAMAGED,
    )


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open a read-only connection; other processes may write meanwhile."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=5
    )


def _write_copy(source: Path, draft_file: Path) -> None:
    """Copy all committed data to a single file without a write-ahead log, mark it as a copy, and
    check it. SQLite's online backup works while the source is being written.
    """
    with (
        closing(open_read_only(source)) as source_store,
        closing(sqlite3.connect(draft_file, isolation_level=None)) as copied_store,
    ):
        source_store.backup(copied_store)
        copied_store.execute("PRAGMA journal_mode = DELETE")
        copied_store.execute("PRAGMA synchronous = FULL")
    with closing(sqlite3.connect(draft_file, isolation_level=None)) as copied_store:
        copied_store.execute(
            "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
            (COPY_KEY, f"{source.name}, {_utc_now_text()}"),
        )
    inspect_store_file(source, draft_file)


@contextmanager
def _draft_beside(target: Path) -> Iterator[Path]:
    """Yield a new owner-only file beside `target`, and remove it unless it was renamed."""
    if not target.parent.is_dir():
        raise ConfigError(
            f"folder {str(target.parent)!r} does not exist; create it or use another folder"
        )
    draft_file = target.with_name(f"{target.name}.{os.getpid()}.part")
    draft_file.unlink(missing_ok=True)
    os.close(os.open(draft_file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield draft_file
    finally:
        for file_name in (
            draft_file.name,
            *(draft_file.name + suffix for suffix in _COMPANION_SUFFIXES),
        ):
            draft_file.with_name(file_name).unlink(missing_ok=True)


def _require_usable_target(target: Path, force: bool) -> None:
    if target.is_dir():
        raise ConfigError(f"{target} is a folder", "use a file name in it")
    if target.exists() and not force:
        raise ConfigError(
            f"{target} exists and is not overwritten",
            "name another file, or add --force",
            code=ErrorCode.EXISTS,
        )


def _move_aside(target: Path, undo: ExitStack) -> Path:
    """Give the store a second name, and rename its log, which must not be lost or applied to the next
    store; `undo` takes both back.
    """
    renamed_name = f"{target.name}.before-restore-{_utc_now_text().replace(':', '')}"
    previous_file = target.with_name(renamed_name)
    name_number = 1
    while previous_file.exists():
        name_number += 1
        previous_file = target.with_name(f"{renamed_name}-{name_number}")
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(target, isolation_level=None, timeout=5)) as old_store,
    ):
        # A damaged store keeps its log, which is renamed below.
        old_store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.link(target, previous_file)
    undo.callback(_move_back, target, previous_file)
    _rename_companions(target, previous_file)
    return previous_file


def _move_back(target: Path, previous_file: Path) -> None:
    """Undo `_move_aside`, unless another store has replaced the one at `target`."""
    if previous_file.samefile(target):
        _rename_companions(previous_file, target)
        previous_file.unlink()


def _rename_companions(store_file: Path, renamed_file: Path) -> None:
    for suffix in _COMPANION_SUFFIXES:
        if (companion_file := store_file.with_name(store_file.name + suffix)).exists():
            companion_file.replace(renamed_file.with_name(renamed_file.name + suffix))


def _utc_now_text() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
