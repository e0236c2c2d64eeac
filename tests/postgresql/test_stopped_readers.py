"""A process that is stopped while it reads an answer within a write: its transaction holds up no other machine."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import PassingFault
from agent.store.postgresql import fencing
from tests.support.postgresql import Opener
from tests.support.transactions import CHAIN_ID, START_S, WALLET

STOPPED_READER = """
import os, signal, sys
from pathlib import Path
from agent.store import open_store
from agent.store.postgresql import fencing
fencing.BEAT_S = 0.2
url, chain, wallet, place = sys.argv[1:]
store = open_store(url, int(chain), wallet, secret_place=Path(place))
with store.db.serving(), store.db.acting(), store.db.write("stand still") as db:
    db.connection.dbapi_connection.pgconn.send_query(b"SELECT repeat('x', 50000000)")
    print("reading", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture
def stopped_reader(opened: Opener, url: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that serves the wallet, and stands still in a write whose answer it has not taken."""
    opened()  # creates the tables
    command = [sys.executable, "-c", STOPPED_READER, url, str(CHAIN_ID), WALLET, str(tmp_path / "trimtab.store")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    yield process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()


@pytest.mark.usefixtures("stopped_reader")
def test_stopped_reader__is_replaced_and_holds_up_no_write(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fencing, "LEASE_S", 1.5)
    store = opened()
    with pytest.raises(PassingFault, match="lock timeout"), store.db.write("wait for it"):
        pass

    with store.db.serving(), store.db.acting():
        store.pause_switch.pause("replaced", START_S)

    state = store.pause_switch.read()
    assert state is not None
    assert state.reason == "replaced"
    for session in fencing._sessions.values():
        session.close()
    fencing._sessions.clear()
