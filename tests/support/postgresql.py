"""A server of PostgreSQL for tests: of Debian's package, as an ordinary user, on a socket in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.store import Store

Opener = Callable[..., Store]
"""Opens the store of a wallet in the test's database."""
ROLE = "trimtab"
OPERATOR = "operator"
START_S = 30
FAST = ("fsync=off", "full_page_writes=off", "max_connections=200", "shared_buffers=32MB")
"""Tests kill processes, not the machine: what is written need not reach the disk."""


def programs() -> Path | None:
    """The folder of the newest server's programs; None without one."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].parent
    program_path = shutil.which("postgres")
    return None if program_path is None else Path(program_path).resolve().parent


@dataclass(frozen=True)
class Server:
    """A server, and how to reach it."""

    folder: Path
    programs: Path

    def url(self, database: str = "store", role: str = ROLE) -> str:
        return f"postgresql+psycopg://{role}@/{database}?host={self.folder}"

    def run(self, sql: str, database: str = "postgres") -> str:
        """What the operator's statement prints."""
        command = [
            str(self.programs / "psql"),
            "-h",
            str(self.folder),
            "-U",
            OPERATOR,
            "-qAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
            database,
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def await_replay_of(self, primary: Server) -> None:
        """Wait until this standby shows what the primary has written so far."""
        written = primary.run("SELECT pg_current_wal_flush_lsn()")
        deadline_s = time.monotonic() + 20
        while self.run(f"SELECT pg_last_wal_replay_lsn() >= '{written}'") != "t":
            assert time.monotonic() < deadline_s, "the standby does not catch up"
            time.sleep(0.05)

    def end_sessions(self) -> None:
        """End every session of trimtab, as an operator or a fail-over does."""
        self.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'")

    def new_database(self, name: str) -> str:
        """The URL of a new database that belongs to the role of trimtab."""
        self.run(f"CREATE DATABASE {name} OWNER {ROLE}")
        return self.url(name)

    def control(self, action: str, *options: str) -> None:
        """Start, stop or restart the server."""
        command = [str(self.programs / "pg_ctl"), "-D", str(self.folder / "data"), "-w", "-t", str(START_S), "-l", str(self.folder / "log")]
        settings = " ".join(f"-c {setting}" for setting in FAST)
        subprocess.run(
            [*command, "-o", f"-k {self.folder} -c listen_addresses= {settings}", *options, action],
            check=True,
            stdout=subprocess.DEVNULL,
            **_as_ordinary_user(self.folder),
        )


@contextmanager
def standby_of(primary: Server) -> Iterator[Server]:
    """A standby that has each commit before the primary answers it; that of a session with a choice of its own it may show later."""
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as name:
        server = Server(Path(name), primary.programs)
        user = _as_ordinary_user(server.folder)
        if user:
            shutil.chown(name, str(user["user"]))
        command = [str(primary.programs / "pg_basebackup"), "-h", str(primary.folder), "-U", OPERATOR, "-D", f"{name}/data", "-R"]
        subprocess.run([*command, "-X", "stream", "--checkpoint=fast"], check=True, stdout=subprocess.DEVNULL, **user)  # type: ignore[call-overload]
        server.control("start")
        primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.run("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
        primary.run("SELECT pg_reload_conf()")
        deadline_s = time.monotonic() + 20
        while "sync" not in primary.run("SELECT sync_state FROM pg_stat_replication").split():
            assert time.monotonic() < deadline_s, "the standby is not synchronous"
            time.sleep(0.05)
        try:
            yield server
        finally:
            server.control("stop", "-m", "immediate")


@contextmanager
def running_server(parent: Path = Path("/tmp")) -> Iterator[Server]:
    """A server with the role of trimtab in a folder below `parent`, stopped and removed at the end."""
    programs_path = programs()
    if programs_path is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is missing: apt-get install postgresql")
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with tempfile.TemporaryDirectory(prefix="pg", dir=parent) as name:
        server = Server(Path(name), programs_path)
        user = _as_ordinary_user(server.folder)
        if user:
            shutil.chown(name, user["user"])
        command = [str(programs_path / "initdb"), "-D", f"{name}/data", "-A", "trust", "-U", OPERATOR, "--no-sync", "--locale=C.UTF-8"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **user)
        server.control("start")
        try:
            server.run(f"CREATE ROLE {ROLE} LOGIN")
            yield server
        finally:
            with suppress(subprocess.CalledProcessError):  # a test has stopped it
                server.control("stop", "-m", "immediate")


def _as_ordinary_user(folder: Path) -> dict[str, object]:
    """Arguments of a process that is not root's, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return {}
    return {
        "user": "nobody",
        "group": "nogroup",
        "extra_groups": [],
        "cwd": str(folder),
        "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    }
