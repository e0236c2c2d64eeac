"""Worlds and empty stores that are made once for all processes of a test run: real ones, kept as they were made, and taken up by others."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import URL, Engine

from agent.localchain import WORLD, LocalChain, open_eth_tester
from agent.localchain.nodes import TesterNode
from agent.store import opening

RUN = "PYTEST_XDIST_TESTRUNUID"
_GENESIS_S = 1
"""Of a node whose chain is replaced by a kept one."""
_TURNS = count(0xC0FFEE)


def tester_world(shared: Path) -> LocalChain:
    """A world on eth-tester, as deployed by whichever process of the run came first; `shared` is a folder of them all."""
    run = os.environ.get(RUN)
    if run is None:  # one process alone
        return _deployed()
    kept = shared / f"eth-tester-{run}.pickle"
    with FileLock(kept.with_suffix(".lock")):
        if kept.exists():
            return _restored(kept.read_bytes())
        chain = _deployed()
        kept.write_bytes(_state(chain))
        return chain


@contextmanager
def one_case(chain: LocalChain) -> Iterator[None]:
    """What it does to a chain on anvil is undone at its end; it begins with a block of its own."""
    mark, rpc = chain.snapshot(), chain.node.rpc  # type: ignore[attr-defined]  # always anvil here
    rpc("anvil_setCoinbase", f"0x{next(_TURNS):040x}")  # alike blocks would be forgotten together
    chain.node.mine_at(chain.now_s() + 1)
    try:
        yield
    finally:
        rpc("anvil_dropAllTransactions")  # what waits outlives a snapshot
        rpc("evm_setAutomine", True)
        chain.revert(mark)


def _deployed() -> LocalChain:
    with open_eth_tester() as chain:
        return chain


def _state(chain: LocalChain) -> bytes:
    blocks = _blocks(chain)
    return pickle.dumps((dict(blocks.chaindb.db.wrapped_db.kv_store), blocks.header, chain.books, chain.addresses))


def _restored(state: bytes) -> LocalChain:
    stored, header, books, addresses = pickle.loads(state)
    chain = LocalChain(TesterNode(_GENESIS_S, WORLD.wallet_native_wei), WORLD)
    blocks, chain.books, chain.addresses = _blocks(chain), books, addresses
    database = blocks.chaindb.db.wrapped_db.kv_store
    database.clear()
    database.update(stored)
    blocks.header = header
    return chain


def _blocks(chain: LocalChain) -> Any:
    """py-evm's chain: the pending block's header, and a database in memory for all else."""
    assert isinstance(chain.node, TesterNode)
    return chain.node.tester.backend.chain


@contextmanager
def compiled_once() -> Iterator[None]:
    """While it lasts, all stores on SQLite share what SQLAlchemy knows of the dialect and has compiled for it: engines are many here."""
    make = opening.create_engine
    first: dict[str, Engine] = {}

    def made(place: URL) -> Engine:
        engine = make(place)
        known = first.setdefault(place.drivername, engine)
        if known is not engine:
            engine.dialect = engine.pool._dialect = known.dialect
            engine._compiled_cache = known._compiled_cache
        return engine

    opening.create_engine = made
    try:
        yield
    finally:
        opening.create_engine = make
