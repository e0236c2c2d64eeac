"""One server of PostgreSQL for each process of tests; each test has a database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from agent.store import Store, open_store
from agent.store.postgresql import session
from tests.support.postgresql import Opener, Server, running_server
from tests.support.transactions import CHAIN_ID, WALLET

_numbers = count()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """The URL of a new database."""
    name = f"store{next(_numbers)}"
    yield server.new_database(name)
    for address in list(session._engines):
        session._engines.pop(address).dispose()


@pytest.fixture
def opened(url: str, tmp_path: Path) -> Iterator[Opener]:
    """Opens stores in the database, of one wallet unless told, with the secret of this machine."""
    stores: list[Store] = []

    def open_one(wallet: str = WALLET, *, kind: str = "live", machine: Path = tmp_path) -> Store:
        stores.append(open_store(url, CHAIN_ID, wallet, store_kind=kind, secret_place=machine / "trimtab.store"))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()
