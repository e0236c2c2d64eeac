"""How workers on several machines share the portfolios of a folder: each serves its part, and takes
over what a worker that is gone has left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Engine, make_url

from agent.config.load import load_config
from agent.errors import ConfigError, TrimtabError
from agent.observe.logs import Log
from agent.store.database.connection import LIVE
from agent.store.database.errors import database_errors
from agent.store.files.locks import LockHeld
from agent.store.opening import open_server, sqlite_path
from agent.store.postgresql.fencing import lock_session
from agent.store.postgresql.session import serving_lock_name, store_key

SHARE_CHECK_S = 2.0
"""Seconds between two looks at the database: how many workers live, and what nobody serves."""
ORPHANED_S = 20.0
"""Time after which a portfolio that nobody serves is taken beyond the share: a worker that lives may
lack its config or its key.
"""


class FleetShare:
    """The part of the portfolios that this worker may serve: all, divided by the workers that live,
    and those that none of them serves. What it serves beyond its part it leaves to a worker that has
    a place for it and asks. A thread looks at the database, so that one that does not answer holds up
    no look; what was known last then counts.

    `engine` is that of the database, `store_keys` are the keys of the portfolios' stores by the path
    of their config.
    """

    def __init__(
        self, engine: Engine, store_keys: Mapping[Path, str], portfolio_count: int
    ) -> None:
        self.engine = engine
        self.store_keys = store_keys
        self._session = lock_session(engine)
        self._lock_names = {path: serving_lock_name(key) for path, key in store_keys.items()}
        self._portfolio_count = portfolio_count
        self._share = 0
        self._free_since_s: dict[str, float] = {}
        self._own_requests: dict[str, str] = {}
        """Marks of the sessions that hold the locks of this worker's requests, by their names."""
        self._requested_names: set[str] = set()
        self._ending = threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="trimtab share").start()

    def largest_count(self) -> int:
        """Return the number of portfolios that this worker may serve now."""
        return self._share

    def is_orphaned(self, config_path: Path) -> bool:
        """Return whether nobody has served a portfolio for some time."""
        free_since_s = self._free_since_s.get(self._lock_names.get(config_path, ""))
        return free_since_s is not None and time.monotonic() - free_since_s >= ORPHANED_S

    def is_served_elsewhere(self, config_path: Path) -> bool:
        """Return whether another process serves a portfolio. Raises PassingFault."""
        lock_name = self._lock_names.get(config_path)
        return lock_name is not None and self._session.is_held_elsewhere(lock_name)

    def request(self, config_path: Path) -> None:
        """Ask the worker that serves a portfolio to leave it, if it serves it beyond its part. Raises
        PassingFault.
        """
        name = _request_name(self._lock_names[config_path])
        with suppress(LockHeld):  # asked for already
            self._own_requests[name] = self._session.take(name)

    def withdraw_requests(self) -> None:
        """Ask for nothing: this worker has no place."""
        while self._own_requests:
            self._session.release(*self._own_requests.popitem())

    def is_requested(self, config_path: Path) -> bool:
        """Return whether another worker asks for a portfolio."""
        lock_name = self._lock_names.get(config_path, "")
        return _request_name(lock_name) in self._requested_names

    def leave(self) -> None:
        """Leave the workers, so that the others serve more."""
        self._ending.set()
        self.withdraw_requests()
        with suppress(TrimtabError):
            self._session.join("")

    def _watch(self) -> None:
        while not self._ending.is_set():
            with suppress(TrimtabError):
                self._share = -(-self._portfolio_count // self._session.group_size())
                free_names = self._session.free_of(sorted(set(self._lock_names.values())))
                now_s = time.monotonic()
                known_s = self._free_since_s
                self._free_since_s = {name: known_s.get(name, now_s) for name in free_names}
                request_names = {_request_name(name) for name in self._lock_names.values()}
                unasked_names = self._session.free_of(sorted(request_names))
                self._requested_names = request_names - unasked_names - set(self._own_requests)
            self._ending.wait(SHARE_CHECK_S)


def _request_name(lock_name: str) -> str:
    """Return the name of the lock of the worker that asks for a portfolio, from that of the one that
    serves it.
    """
    return f"request to {lock_name}"


def join_workers(config_paths: Sequence[Path], group_name: str) -> FleetShare:
    """Join the workers of these portfolios, the stores of which are in one database. Raises
    ConfigError for a store in a file, or in another database than the first.
    """
    url = ""
    store_keys = {}
    for config_path in config_paths:
        try:
            loaded_config = load_config(config_path)
            store_url = loaded_config.store_url
        except TrimtabError as error:  # its portfolio tells its owner, and waits
            Log().warning("not readable", config=str(config_path), message=error.message)
            continue
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
        config = loaded_config.config
        store_keys[config_path] = store_key(config.chain.chain_id, config.wallet.address, LIVE)
    if not url:
        raise ConfigError("no config of the folder can be read", "correct one of them")
    with database_errors("join the workers"):
        engine = open_server(make_url(url), migrates=True)
    lock_session(engine).join(group_name)
    return FleetShare(engine, store_keys, len(config_paths))
