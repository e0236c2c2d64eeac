"""A real PgBouncer in transaction mode is refused by its name, however it treats the settings of a start."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.errors import OperatorNeeded
from agent.store import open_store
from agent.store.postgresql import session
from tests.support.postgresql import ROLE, Opener, Server
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, WALLET

PORT = 6432
START_S = 20.0
SETTINGS = """
[databases]
* = host={folder} user={role}

[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {own_folder}
auth_type = any
pool_mode = transaction
ignore_startup_parameters = {ignored}
"""


def find_program() -> str:
    path = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("PgBouncer is missing: apt-get install pgbouncer")
        pytest.skip("PgBouncer is not installed (Debian: apt-get install pgbouncer)")
    return path


@contextmanager
def running_pooler(server: Server, ignored: str) -> Iterator[Path]:
    """A pooler before the server, reached by a socket in the yielded folder; it drops these settings of a start."""
    program = find_program()
    with tempfile.TemporaryDirectory(prefix="pgb", dir="/tmp") as name:  # a socket's path is short
        folder = Path(name)
        file = folder / "pgbouncer.ini"
        file.write_text(SETTINGS.format(folder=server.folder, role=ROLE, own_folder=folder, port=PORT, ignored=ignored))
        command = [program, str(file)]
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(folder, "nobody", "nogroup")
            command[1:1] = ["-u", "nobody"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline_s = time.monotonic() + START_S
            while not (folder / f".s.PGSQL.{PORT}").exists():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            yield folder
        finally:
            process.terminate()
            process.wait(START_S)


@pytest.mark.parametrize(
    "ignored", ["extra_float_digits", "extra_float_digits, options"], ids=["refused at the start", "dropped in silence"]
)
def test_a_pooler_in_transaction_mode_is_refused_by_name(server: Server, opened: Opener, url: str, tmp_path: Path, ignored: str) -> None:
    opened()
    database = url.partition("@/")[2].partition("?")[0]
    with running_pooler(server, ignored) as folder:
        pooled_url = f"postgresql+psycopg://{ROLE}@/{database}?host={folder}&port={PORT}"
        with raises_code(OperatorNeeded, "store", "PgBouncer"):
            open_store(pooled_url, CHAIN_ID, WALLET, secret_place=tmp_path / "trimtab.store")
        session._engines.pop(session.make_url(pooled_url).render_as_string(hide_password=False)).dispose()
