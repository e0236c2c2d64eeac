"""A store that a process opens a second time keeps its locks: else another process, which closes it last as it believes, deletes the
write-ahead log under the first one, and what that commits from then on is lost (POSIX drops all locks of a process on a file with the
first descriptor of it that the process closes).
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

from agent.store import open_store
from tests.support.transactions import CHAIN_ID, WALLET

READ = """
import sqlite3, sys
store = sqlite3.connect(sys.argv[1])
print(*store.execute("SELECT reason FROM pauses ORDER BY seq"))
store.close()
"""


def test_commits_after_a_second_opening_reach_other_processes(tmp_path: Path) -> None:
    file = tmp_path / "trimtab.db"

    def seen_elsewhere() -> str:
        return subprocess.run([sys.executable, "-c", READ, str(file)], capture_output=True, text=True, check=True).stdout

    store = open_store(f"sqlite:///{file}", CHAIN_ID, WALLET)
    store.pause_switch.pause("first", 1)

    open_store(f"sqlite:///{file}", CHAIN_ID, WALLET).close()

    assert "first" in seen_elsewhere()
    store.pause_switch.pause("second", 2)
    assert "second" in seen_elsewhere()
    store.close()
    with sqlite3.connect(file) as connection:
        assert len(connection.execute("SELECT reason FROM pauses").fetchall()) == 2
