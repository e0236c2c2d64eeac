"""Where the store of a config is, and its opening without a chain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from sqlalchemy import select

from agent.config.loaded import LoadedConfig, store_place
from agent.store.database.connection import LIVE, PAPER
from agent.store.files.pause import KillSwitch, pause_file
from agent.store.files.users import open_user_file, users_path
from agent.store.opening import open_server_users, open_store, sqlite_path
from agent.store.store import RowReader, Store, rows_of_file
from agent.store.tables import Base, PinRow
from agent.store.users import UserStore


def store_file(loaded_config: LoadedConfig) -> Path:
    """Return the path of the store's SQLite file, or for PostgreSQL the place of its local files."""
    return store_place(loaded_config.store_url, loaded_config.path, is_paper=loaded_config.is_paper)


def is_in_file(loaded_config: LoadedConfig) -> bool:
    """Return whether the store of this config is a file of SQLite."""
    return sqlite_path(loaded_config.store_url) is not None


def store_text(loaded_config: LoadedConfig) -> str:
    """Return where the store of this config is, for a message."""
    return str(store_file(loaded_config)) if is_in_file(loaded_config) else "PostgreSQL"


def has_store(loaded_config: LoadedConfig) -> bool:
    """Return whether the store of this config has been created."""
    if is_in_file(loaded_config):
        return store_file(loaded_config).is_file()
    from agent.store.postgresql.session import is_known_wallet  # loaded only for PostgreSQL

    return is_known_wallet(loaded_config.store_url, server_key(loaded_config))


def server_key(loaded_config: LoadedConfig) -> str:
    """Return the key of the config's store in a database of PostgreSQL."""
    from agent.store.postgresql.session import store_key  # loaded only for PostgreSQL

    config = loaded_config.config
    return store_key(config.chain.chain_id, config.wallet.address, store_kind(loaded_config))


def store_kind(loaded_config: LoadedConfig) -> str:
    """Return the kind of data of the config's store, live or paper."""
    return PAPER if loaded_config.is_paper else LIVE


def open_users(loaded_config: LoadedConfig) -> UserStore:
    """Return the users of the dashboard of this config."""
    if is_in_file(loaded_config):
        return open_user_file(users_path(store_file(loaded_config)))
    return open_server_users(loaded_config.store_url, server_key(loaded_config))


@contextmanager
def open_store_offline(
    loaded_config: LoadedConfig, *, checks_and_migrates: bool = True
) -> Iterator[tuple[Store, KillSwitch]]:
    """Open the store and the kill switch without connecting to a chain; without
    `checks_and_migrates` faster, as `open_store` says.
    """
    chain_table = loaded_config.config.chain
    store = open_store(
        loaded_config.store_url,
        chain_table.chain_id,
        loaded_config.config.wallet.address,
        chain_table.wrapped_native,
        store_kind(loaded_config),
        checks_and_migrates=checks_and_migrates,
        secret_place=store_file(loaded_config),
    )
    try:
        yield store, KillSwitch(pause_file(store_file(loaded_config)), store.pause_switch)
    finally:
        store.close()


def trades_on_paper_alone(loaded_config: LoadedConfig) -> bool:
    """Return whether a config has a paper store, and no pins with which a live run could trade."""
    return has_store(replace(loaded_config, is_paper=True)) and not live_rows_of(loaded_config)(
        PinRow
    )


def live_rows_of(loaded_config: LoadedConfig) -> RowReader:
    """Return the reader of the live store's rows, which paper trading only reads."""
    live_config = replace(loaded_config, is_paper=False)
    if is_in_file(live_config):
        return partial(rows_of_file, store_file(live_config))
    if not has_store(live_config):
        return lambda _: []

    def rows_of(model: type[Base]) -> list[dict[str, object]]:
        with (
            open_store_offline(live_config) as (live_store, _),
            live_store.db.read("copy rows") as db,
        ):
            return [dict(row) for row in db.execute(select(model.__table__)).mappings()]

    return rows_of
