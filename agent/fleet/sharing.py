"""How workers on several machines share the portfolios of a folder: each serves its part, and takes
over what a worker that is gone has left.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import make_url

from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError, TrimtabError
from agent.store.database import LIVE
from agent.store.opening import sqlite_path
from agent.store.postgresql.fencing import LockSession, lock_session
from agent.store.postgresql.session import server_engine, serving_lock_name, store_key

SHARE_CHECK_S = 2.0
"""Seconds between two checks how many workers live."""


class FleetShare:
    """The part of the portfolios that this worker may serve: all, divided by the workers that
    live.
    """

    def __init__(self, session: LockSession, portfolio_count: int) -> None:
        self._session = session
        self._portfolio_count = portfolio_count
        self._checked_s = -SHARE_CHECK_S
        self._share = 0

    def largest_count(self) -> int:
        """Return the number of portfolios that this worker may serve now. While the database does
        not answer, the last one counts: what it serves waits for the database by itself.
        """
        now_s = time.monotonic()
        if now_s - self._checked_s >= SHARE_CHECK_S:
            self._checked_s = now_s
            try:
                self._share = -(-self._portfolio_count // self._session.group_size())
            except TrimtabError:
                return self._share
        return self._share

    def is_served_elsewhere(self, loaded_config: LoadedConfig) -> bool:
        """Return whether another process serves the wallet of a config. Raises PassingFault."""
        config = loaded_config.config
        key = store_key(config.chain.chain_id, config.wallet.address, LIVE)
        return self._session.is_held_elsewhere(serving_lock_name(key))


def join_workers(config_paths: Sequence[Path], group_name: str) -> FleetShare:
    """Join the workers of these portfolios, the stores of which are in one database. Raises
    ConfigError for a store in a file, or in another database than the first.
    """
    url = ""
    for config_path in config_paths:
        try:
            store_url = load_config(config_path).store_url
        except TrimtabError:
            continue  # its portfolio tells its owner, and waits
        if sqlite_path(store_url) is not None:
            raise ConfigError(
                f"{config_path}: store.url: workers share stores on PostgreSQL",
                "trimtab db copy moves a store; trimtab run serves one in a file",
            )
        if url not in ("", store_url):
            raise ConfigError(
                f"{config_path}: store.url: another database than that of the first portfolio",
                "name one database in all configs of the folder",
            )
        url = store_url
    if not url:
        raise ConfigError("no config of the folder can be read", "correct one of them")
    session = lock_session(server_engine(make_url(url)))
    session.join(group_name)
    return FleetShare(session, len(config_paths))
