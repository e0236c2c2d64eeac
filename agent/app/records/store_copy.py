"""Copying a store into another database."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent import wiring
from agent.app.records.maintenance import exclusive_locks, require_store
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.errors import ErrorCode, PassingFault, Refused
from agent.files import create_file
from agent.foreign_text import failure_words
from agent.store.files.pause import has_pause_file, pause_file
from agent.store.files.secret import ensure_secret, find_secret, secret_path
from agent.store.postgresql.copying import (
    copy_rows,
    copy_users,
    require_new,
    require_original,
)

if TYPE_CHECKING:
    from agent.app.documents.records import StoreCopyDocument


def copy_store(config: Path | str, target_url: str) -> StoreCopyDocument:
    """Copy the live store into the database at `target_url`, a file of SQLite or PostgreSQL, with
    its secret and its users. No process may serve the wallet. The config stays as it is.

    Raises Refused if the target has a store of this wallet, or another secret lies beside it.
    """
    loaded_config = load_config(config)
    require_store(loaded_config)
    target_config = with_store_url(loaded_config, target_url)
    with exclusive_locks(loaded_config):
        source_place = wiring.store_file(loaded_config)
        target_place = wiring.store_file(target_config)
        if source_place == target_place:
            raise Refused(
                "the target is the store itself", remedy="name another database, or another file"
            )
        with (
            wiring.open_store_offline(loaded_config) as (source, _),
            source.db.serving(),
            source.db.acting(),
        ):
            require_original(source.db)
            _copy_secret(source_place, target_place)
            with wiring.open_store_offline(target_config) as (target, _):
                require_new(target.db)  # before its pause: a store that is in use goes on
                _copy_pause(source_place, target_place)
                # last the rows, with which the source is a copy: until then it can be repeated
                copy_users(wiring.open_users(loaded_config), wiring.open_users(target_config))
                row_counts = copy_rows(source.db, target.db, int(time.time()))
    return {
        "rows": row_counts,
        "secret": str(secret_path(target_place)),
        "next": "write the target into store.url; the old store sends nothing until trimtab adopt",
    }


def with_store_url(loaded_config: LoadedConfig, url: str) -> LoadedConfig:
    """Return the config with another store."""
    store_table = loaded_config.config.store.model_copy(update={"url": url})
    config = loaded_config.config.model_copy(update={"store": store_table})
    return replace(loaded_config, config=config)


def _copy_secret(source_place: Path, target_place: Path) -> None:
    """Copy the secret that seals rows; a store on PostgreSQL opens with it alone."""
    source_secret = ensure_secret(source_place)
    target_secret = find_secret(target_place)
    if target_secret is not None and target_secret != source_secret:
        raise Refused(
            f"{secret_path(target_place)} is the secret of another store",
            remedy="move it away; without it that store's rows do not count",
        )
    if target_secret is None:
        _create_private(secret_path(target_place), source_secret.hex().encode())


def _copy_pause(source_place: Path, target_place: Path) -> None:
    """Pause by file beside the target if the source is, before the rows: without them nothing
    trades. Whatever lies at that path pauses.
    """
    if has_pause_file(source_place) and not has_pause_file(target_place):
        _create_private(pause_file(target_place), b"")


def _create_private(path: Path, content: bytes) -> None:
    try:
        create_file(path, content)
    except OSError as error:
        raise PassingFault(
            f"cannot write {path}: {failure_words(error)}",
            "free space on its disk and make its folder writable",
            code=ErrorCode.FILE,
        ) from error
