"""The store's file: backup, restore, check and upgrade, without any chain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent import wiring
from agent.config.load import LoadedConfig, load_config
from agent.errors import ConfigError
from agent.store.files import backup
from agent.store.files.locks import service_lock, wallet_lock
from agent.store.opening import REVISIONS, upgrade

Document = dict[str, Any]


def backup_store(config: Path | str, target: Path, force: bool = False) -> Document:
    """Make a consistent copy of the store, which may be in use. Raises ConfigError if the file
    exists.
    """
    source = wiring.store_file(load_config(config))
    _require(source)
    return {"backup": str(target), "bytes": backup.backup(source, target, force)}


def restore_store(config: Path | str, source: Path, force: bool = False) -> Document:
    """Replace the store by a backup; nothing is sent before it is adopted. The earlier store is
    kept beside it.
    """
    loaded = load_config(config)
    chain, wallet = loaded.config.chain, loaded.config.wallet.address
    target = wiring.store_file(loaded)
    with _alone(loaded):
        kept = backup.restore(source, target, wallet, chain.chain_id, REVISIONS, force)
    return {
        "store": str(target),
        "kept": None if kept is None else str(kept),
        "next": "trimtab db adopt",
    }


def check_store(config: Path | str) -> Document:
    """Check every page of the store and its consistency. Raises OperatorNeeded with the damage
    found.
    """
    path = wiring.store_file(load_config(config))
    _require(path)
    found = backup.inspect_store_file(path)
    return {
        "store": str(path),
        "bytes": path.stat().st_size,
        "version": found.version,
        "present_version": REVISIONS[-1],
        "wallet": found.wallet,
        "chain_id": found.chain_id,
        "copy": found.copy,
    }


def upgrade_store(config: Path | str) -> Document:
    """Upgrade the store to the present version; a backup is kept beside it. Every command does so
    automatically.
    """
    loaded = load_config(config)
    _require(wiring.store_file(loaded))
    with _alone(loaded):
        before, now, kept = upgrade(loaded.store_url)
    return {"before": before, "version": now, "backup": None if kept is None else str(kept)}


@contextmanager
def _alone(loaded: LoadedConfig) -> Iterator[None]:
    """Exclude other processes of the wallet, and runs between cycles too, while the file is
    replaced.
    """
    with service_lock(*wiring.lock_locations(loaded)), wallet_lock(*wiring.lock_locations(loaded)):
        yield


def _require(path: Path) -> None:
    if not path.is_file():
        raise ConfigError(
            f"store.url: there is no store at {path}",
            "it is made by the first command that needs it",
        )
