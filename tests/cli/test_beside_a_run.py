"""Commands beside a run that goes on, each a process of its own: one has the wallet at a time, and each finds what the others left."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import filelock
import pytest

from tests.cli.tools import Desk, ForkedCommand, attach, first_document, forked, start
from tests.support.commands.interruption import until_something_waits
from tests.support.commands.sending import nonce, process_with_lock
from tests.support.constants import HOME

PAY = ("withdraw", "10", "--to", HOME, "--send", "--yes", "--again")  # the same payment several times, on purpose


@pytest.fixture
def home(desk: Desk) -> Desk:
    """A desk whose owner has confirmed where money may go, on target already."""
    desk.edit(("payout_addresses = []", f'payout_addresses = ["{HOME}"]'))
    desk.edit(('cooldown = "10s"', 'cooldown = "0s"'))
    assert desk.run("trust", "--yes").code == 0
    assert desk.ask("rebalance", "--send", "--yes")["outcome"] == "done"
    return desk


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple[str, int]]]:
    """Every taking and letting go of a wallet's lock by this process and its children, in order: what is written under the lock."""
    file = tmp_path / "trace"
    file.touch()

    class Traced(filelock.FileLock):
        """A lock that says when it is held."""

        def acquire(self, *args: Any, **more: Any) -> Any:
            has_lock = super().acquire(*args, **more)
            self._say("takes")
            return has_lock

        def release(self, force: bool = False) -> None:
            if self.is_locked:  # it is let go of once more when it is thrown away
                self._say("leaves")
            super().release(force)

        def _say(self, what: str) -> None:
            if not self.lock_file.endswith(".service.lock"):
                with file.open("ab", buffering=0) as stream:
                    stream.write(f"{what} {os.getpid()}\n".encode())

    monkeypatch.setattr(filelock, "FileLock", Traced)
    return lambda: [(line.split()[0], int(line.split()[1])) for line in file.read_text().splitlines()]


def require_one_at_a_time(commands: list[tuple[str, int]], killed: set[int]) -> set[int]:
    """Nobody took the wallet while a process that lives had it; who ever had it."""
    holder: int | None = None
    for what, pid in commands:
        if what == "takes":
            assert holder is None or holder in killed, f"{pid} took what {holder} had"
            holder = pid
        elif holder == pid:
            holder = None
    return {pid for what, pid in commands if what == "takes"}


@contextmanager
def running(desk: Desk, every: str = "1s") -> Iterator[ForkedCommand]:
    """A run that sends and looks again and again; ended in the end, well."""
    child = forked(desk, "run", "--every", every, "--send", "--yes", "--json")
    try:
        looked(child, 1)
        yield child
    except BaseException:
        child.told(signal.SIGKILL)
        os.waitpid(child.pid, 0)
        raise
    child.told(signal.SIGTERM)
    assert child.ended(120).code == 0, child.err.read_text()


def looked(child: ForkedCommand, times: int) -> None:
    """Waits until it has looked so often, from now on."""
    had = child.out.read_text().count("\n") if child.out.exists() else 0
    end = time.monotonic() + 120
    while not child.out.exists() or child.out.read_text().count("\n") < had + times:
        assert time.monotonic() < end, child.err.read_text()
        assert os.waitpid(child.pid, os.WNOHANG)[0] == 0, child.err.read_text()
        time.sleep(0.02)


def require_each_nonce_once(desk: Desk, since: int) -> list[dict[str, Any]]:
    """The chain's transactions since then are those of the journal, one for each nonce, and all is at an end; those of the journal."""
    known = desk.ask("txs", "--limit", "200")["transactions"]
    assert not any(transaction["open"] for transaction in known), known
    final = [transaction for transaction in known if transaction["status"] == "final" and transaction["nonce"] >= since]
    assert sorted(transaction["nonce"] for transaction in final) == list(range(since, nonce(desk)))
    assert max(Counter(transaction["hash"] for transaction in known if transaction["hash"]).values()) == 1
    for transaction in final:
        assert desk.node.rpc("eth_getTransactionReceipt", transaction["hash"])["status"] == "0x1"
    return final


def descendants(pid: int) -> set[int]:
    """The processes that a process has started, and theirs."""
    child_ids = {int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()}
    return child_ids.union(*map(descendants, child_ids))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("fastapi") is None and not os.environ.get("CI"), reason="needs the extra dashboard")
def test_dashboard_that_hangs_or_dies__is_unnoticed_by_the_run(home: Desk) -> None:
    process = start("serve", "--port", "0", "--json", "--config", str(home.config))
    readers = set[int]()
    try:
        with running(home) as run:
            address = first_document(process)["url"]
            for page in ("", "plan"):  # the first of a page begins its reads
                assert urlopen(address + page).status == 200
            host, port = address.split("/")[2].split(":")
            streams = [socket.create_connection((host, int(port)), timeout=60) for _ in range(50)]
            for link in streams:  # all but one read nothing
                link.sendall(f"GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            received = b""
            for count in (1, 2):  # the first event is that of the page itself
                while received.count(b"event: changed") < count:
                    received += (part := streams[0].recv(4096))
                    assert part, received
                looked(run, 2)
            assert os.getpriority(os.PRIO_PROCESS, process.pid) > os.getpriority(os.PRIO_PROCESS, run.pid), "pages yield to the run"
            readers = descendants(process.pid)
            assert readers, "it reads in processes of its own"
            for pid in readers:
                os.kill(pid, signal.SIGSTOP)
            home.node.rpc("evm_mine")
            looked(run, 2)
            process.kill()
            process.wait()
            looked(run, 2)
            for pid in readers:
                os.kill(pid, signal.SIGCONT)
            end = time.monotonic() + 20
            while any(Path(f"/proc/{pid}").exists() for pid in readers):
                assert time.monotonic() < end, "a process of the dashboard outlives it"
                time.sleep(0.05)
            looked(run, 1)
            for link in streams:
                link.close()
        assert not [line for line in run.err.read_text().splitlines() if "locked" in line or "error" in line.lower()]
    finally:
        process.kill()
        process.wait()
        for pid in readers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()
    assert home.ask("books", "check")["sound"]


def test_money_commands__work_while_a_run_goes_on(home: Desk, trace: Callable[[], list[tuple[str, int]]]) -> None:
    chain = attach(home)
    before = nonce(home)
    with running(home) as child:
        paid = home.ask(*PAY)
        assert (paid["state"], chain.balance("USDC", HOME)) == ("paid", 10_000_000)
        looked(child, 2)  # what was paid is nothing unexplained to the run
        assert '"outcome": "hold"' in child.out.read_text().splitlines()[-1]
        both = [forked(home, *PAY, "--json") for _ in range(2)]
        swapped = home.ask("swap", "--in", "WETH", "--out", "USDC", "--amount", "0.2", "--send", "--yes")
        assert swapped["outcome"] == "done"
        assert [transaction.ended(120).json["state"] for transaction in both] == ["paid", "paid"]
        assert chain.balance("USDC", HOME) == 30_000_000
        assert home.ask("rehearse", "--send", "--yes")["state"] == "done"
        looked(child, 1)
        second = home.ask("run", "--send", "--yes", want=12)["error"]
        assert f"process {child.pid}" in second["message"]
        assert "already serves" in home.ask("db", "restore", str(home.config), want=12)["error"]["message"]
    final = require_each_nonce_once(home, before)
    assert Counter(transaction["kind"] for transaction in final)["payout"] == 3
    takers = require_one_at_a_time(trace(), set())
    assert {child.pid, os.getpid(), *(transaction.pid for transaction in both)} <= takers


@pytest.mark.slow
def test_run__takes_up_an_edit_after_its_transaction(desk: Desk) -> None:
    before = nonce(desk)
    desk.node.rpc("evm_setAutomine", False)
    child = forked(desk, "run", "--every", "1s", "--send", "--yes", "--json")
    try:
        until_something_waits(desk, child)
        assert desk.ask("edit", "--set", "policy.cooldown=2h", "--yes")["state"] == "written"
        time.sleep(1)
        assert "config reloaded" not in child.err.read_text(), "its transaction waits"
        desk.node.rpc("evm_setAutomine", True)
        desk.node.mine(1)
        looked(child, 3)
    finally:
        child.told(signal.SIGTERM)
        output = child.ended(120)
    assert output.code == 0
    assert "Traceback" not in output.err
    assert "edited config" in " ".join(output.err.split())
    assert '"outcome": "done"' in output.out.splitlines()[0]
    require_each_nonce_once(desk, before)


MOMENTS = (
    "SELECT 1",
    "SELECT count(*) FROM requests",
    "SELECT count(*) FROM intents WHERE kind = 'payout'",
    "SELECT count(*) FROM intents WHERE kind = 'payout' AND state NOT IN ('planned', 'signed')",
    "SELECT count(*) FROM requests WHERE state = 'done'",
)
"""How far a withdrawal has come: from nothing that is written down to its end."""


def until_it_came_so_far(desk: Desk, trace: Callable[[], list[tuple[str, int]]], command: ForkedCommand, question: str, than: int) -> None:
    """Waits until the command has the wallet, and the store answers with more than it did before."""
    end = time.monotonic() + 120
    while ("takes", command.pid) not in trace() or (question != MOMENTS[0] and pid_of_question(desk, question) <= than):
        assert time.monotonic() < end, command.err.read_text()
        time.sleep(0.001)


def pid_of_question(desk: Desk, question: str) -> int:
    with closing(sqlite3.connect(f"file:{desk.config.parent}/trimtab.db?mode=ro", uri=True)) as store:
        return int(store.execute(question).fetchone()[0])


@pytest.mark.slow
def test_withdrawal_killed_beside_a_run__is_paid_once(home: Desk, trace: Callable[[], list[tuple[str, int]]]) -> None:
    chain = attach(home)
    before = nonce(home)
    killed = set()
    with running(home) as child:
        for question in MOMENTS:
            than = pid_of_question(home, question)
            command = forked(home, *PAY, "--json")
            until_it_came_so_far(home, trace, command, question, than)
            command.told(signal.SIGKILL)
            os.waitpid(command.pid, 0)
            killed.add(command.pid)
            looked(child, 1)
        for withdrawal in home.ask("withdraw")["withdrawals"]:
            if withdrawal["state"] == "open":
                assert home.ask("withdraw", "--resume", str(withdrawal["number"]), "--send", "--yes")["state"] == "paid"
        looked(child, 1)
    final = require_each_nonce_once(home, before)
    states = Counter(withdrawal["state"] for withdrawal in home.ask("withdraw")["withdrawals"])
    payouts = Counter(transaction["kind"] for transaction in final)["payout"]
    assert set(states) == {"done"}
    assert payouts == states["done"] >= 3
    assert chain.balance("USDC", HOME) == 10_000_000 * payouts
    assert killed <= require_one_at_a_time(trace(), killed)


@pytest.mark.slow
def test_run__follows_a_killed_command_s_payment_first(home: Desk, trace: Callable[[], list[tuple[str, int]]]) -> None:
    chain = attach(home)
    before = nonce(home)
    with running(home, every="5s") as child:
        child.told(signal.SIGSTOP)  # in the rest after a look
        chain.set_balance("WETH", 2 * chain.balance("WETH"))
        assert home.ask("flows")["flows"]
        assert home.run("flows", "confirm", "all").code == 0  # now there is something to do for the next look
        home.node.rpc("evm_setAutomine", False)
        command = forked(home, *PAY)
        until_something_waits(home, command)
        command.told(signal.SIGKILL)
        os.waitpid(command.pid, 0)
        had = trace().count(("takes", child.pid))
        child.told(signal.SIGCONT)
        end = time.monotonic() + 120
        while trace().count(("takes", child.pid)) == had:
            assert time.monotonic() < end, child.err.read_text()
            time.sleep(0.01)
        home.node.mine(1)
        home.node.rpc("evm_setAutomine", True)
        looked(child, 1)
    kinds = [
        transaction["kind"] for transaction in sorted(require_each_nonce_once(home, before), key=lambda transaction: transaction["nonce"])
    ]
    assert kinds[0] == "payout"
    assert "swap" in kinds[1:], "what the run did came after it"
    number = str(home.ask("withdraw")["withdrawals"][0]["number"])
    again = home.ask("withdraw", "--resume", number, "--send", "--yes")
    assert (again["state"], again["transactions"], chain.balance("USDC", HOME)) == ("paid", [], 10_000_000)


@pytest.mark.slow
def test_run__waits_for_a_command_that_asks(home: Desk) -> None:
    home.edit(("[store]", '[service]\nwallet_wait = "1s"\n\n[store]'))
    home.run("edit", "--confirm", "--yes")
    with running(home) as child, process_with_lock(home) as pid:
        looked(child, 1)
        busy = child.out.read_text().splitlines()[-1]
        assert f"process {pid}" in busy
        assert "waited 1 s" in busy
        refused = home.ask(*PAY, want=12)["error"]
        assert f"process {pid}" in refused["message"]
        assert "end it" in refused["remedy"]
    assert home.ask(*PAY)["state"] == "paid"


def test_stopped_run__ends_before_it_acts_again(home: Desk) -> None:
    child = forked(home, "run", "--every", "1h", "--send", "--yes", "--json")
    looked(child, 1)
    stopped = home.ask("stop", "--send", "--yes")
    assert stopped["state"] == "stopped"
    output = child.ended()
    assert (output.code, len(output.out.splitlines())) == (0, 1)
