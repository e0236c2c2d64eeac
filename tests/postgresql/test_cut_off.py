"""A worker that reaches the chain but no longer its database: another takes its wallets, and nothing is sent twice."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.localchain import LocalChain
from agent.model import IntentKind, IntentState
from tests.support.fleets import add_portfolio, wallet_of
from tests.support.postgresql import Server
from tests.support.workers import bring_to_present, has_swapped, journals, served_counts, until, worker

DATABASE_PORT = 5432
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Machine:
    """A network namespace, and the device at this end of its line."""

    namespace: str
    device: str
    database_host: str

    @property
    def prefix(self) -> Sequence[str]:
        """What a command begins with that runs on the machine."""
        return ("ip", "netns", "exec", self.namespace)

    def cut(self) -> None:
        """The database's address is on nobody's device: what is sent there is lost, and nobody says so."""
        _ip("addr", "del", f"{self.database_host}/24", "dev", self.device)

    def mend(self) -> None:
        _ip("addr", "add", f"{self.database_host}/24", "dev", self.device)


def new_database_host() -> str:
    """An address of a network that no other test has: they run beside one another."""
    return f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.1"


@contextmanager
def separate_machine(database_host: str, database_socket: Path, chain_port: int) -> Iterator[Machine]:
    """A machine that reaches the database of this socket at this address, and the chain at 127.0.0.1 and its port."""
    number = secrets.token_hex(3)
    machine = Machine(f"trimtab{number}", f"tt{number}", database_host)
    if os.geteuid() != 0 or subprocess.run(["ip", "netns", "add", machine.namespace], capture_output=True, check=False).returncode != 0:
        pytest.skip("a network of its own needs root's rights and iproute2")
    with ExitStack() as cleanup:
        cleanup.callback(_ip, "netns", "del", machine.namespace)
        far_device = f"ff{number}"
        _ip("link", "add", machine.device, "type", "veth", "peer", "name", far_device, "netns", machine.namespace)
        _ip("link", "set", machine.device, "up")
        machine.mend()
        for command in (
            ("link", "set", "lo", "up"),
            ("link", "set", far_device, "up"),
            ("addr", "add", f"{database_host.removesuffix('.1')}.2/24", "dev", far_device),
        ):
            _ip("-n", machine.namespace, *command)
        cleanup.enter_context(_forwarding(socket.create_server((database_host, DATABASE_PORT)), lambda: _connect_unix(database_socket)))
        chain_listener = _listen_in(machine.namespace, chain_port)
        cleanup.enter_context(_forwarding(chain_listener, lambda: socket.create_connection(("127.0.0.1", chain_port))))
        yield machine


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _connect_unix(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    return connection


def _listen_in(namespace: str, port: int) -> socket.socket:
    """A listener on the loopback of a namespace: a socket stays in the one in which its thread was."""
    listeners: list[socket.socket] = []

    def listen() -> None:
        with Path("/run/netns", namespace).open() as file:
            if _libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        listeners.append(socket.create_server(("127.0.0.1", port)))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    return listeners[0]


@contextmanager
def _forwarding(listener: socket.socket, connect: Callable[[], socket.socket]) -> Iterator[None]:
    """Join each connection to one of the other kind, until the block ends."""
    threading.Thread(target=_accept, args=(listener, connect), daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _accept(listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
    with suppress(OSError):
        while True:
            near, _ = listener.accept()
            far = connect()
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


ACCOUNTS = {"one": 4, "two": 5, "three": 6, "four": 7}
TOO_MUCH_WETH = {"WETH": 8_000, "USDC": 2_000}
BACK_S = 15
"""Time for a worker to notice that it was replaced, once it reaches its database again."""


def folders(chain: LocalChain, tmp_path: Path, url: str, database_host: str) -> tuple[Path, Path]:
    """The configs of four portfolios as they reach the database here, and from a machine of its own."""
    near = tmp_path / "clients"
    far = tmp_path / "far"
    near.mkdir()
    for name, account in ACCOUNTS.items():
        path = add_portfolio(chain, tmp_path, name, account, TOO_MUCH_WETH, {"store.url": url})
        path.rename(near / path.name)
        path.with_name("trimtab.store.secret").rename(near / f"{name}.store.secret")
    shutil.copytree(near, far)
    far_url = url.replace("@/", f"@{database_host}:{DATABASE_PORT}/").partition("?")[0]
    for config in far.glob("*.toml"):
        config.write_text(config.read_text().replace(url, far_url))
    return near, far


@pytest.mark.slow
@pytest.mark.parametrize("written_at_cut", [1, 2, 4])
def test_worker_cut_off_from_its_database__sends_nothing(
    chain: LocalChain, tmp_path: Path, server: Server, url: str, written_at_cut: int
) -> None:
    database_host = new_database_host()
    near, far = folders(chain, tmp_path, url, database_host)
    wallets = {name: wallet_of(account, chain) for name, account in ACCOUNTS.items()}
    nonces = {name: chain.w3.eth.get_transaction_count(wallet) for name, wallet in wallets.items()}  # type: ignore[arg-type]
    chain_port = int(str(chain.url).rpartition(":")[2])

    def served() -> list[int]:
        """How many of the four each process serves."""
        return sorted(served_counts(url, list(wallets.values())).values())

    bring_to_present(chain)
    with (
        separate_machine(database_host, server.folder / ".s.PGSQL.5432", chain_port) as machine,
        worker(far, tmp_path / "first.log", prefix=machine.prefix) as first,
    ):
        until(lambda: sum(map(len, journals(near, list(ACCOUNTS)))) >= written_at_cut, 60)
        machine.cut()
        with worker(near, tmp_path / "second.log"):
            until(lambda: 4 in served(), 60)
            until(lambda: all(map(has_swapped, journals(near, list(ACCOUNTS)))), 60)
            machine.mend()
            time.sleep(BACK_S)
            until(lambda: served() == [2, 2], 60)
            assert first.poll() is None
    for name, intents in zip(ACCOUNTS, journals(near, list(ACCOUNTS)), strict=True):
        mined = [intent for intent in intents if intent.state is IntentState.FINAL]
        sent_count = chain.w3.eth.get_transaction_count(wallets[name]) - nonces[name]  # type: ignore[arg-type]
        assert sent_count == len(mined), name
        assert sum(intent.kind is IntentKind.SWAP for intent in mined) == 1, name
