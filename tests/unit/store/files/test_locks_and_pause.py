"""The lock and the kill switch: one process at a time, and unreadable means paused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import event

from agent.app.records.kill_switch import pause_by_file
from agent.errors import OperatorNeeded, Refused
from agent.store import open_store
from agent.store.files.locks import LockHeld, WalletLocks, lock_path, service_lock, service_lock_path, wait_for_lock, wallet_lock
from agent.store.files.pause import KillSwitch, pause_file
from tests.support.text import mentions, raises_code
from tests.support.transactions import CHAIN_ID, START_S, WALLET

HOLD = """
import sys
from pathlib import Path
from agent.store.files.locks import WalletLocks, wallet_lock
with wallet_lock(WalletLocks(Path(sys.argv[1]), 1, sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def switch(tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path}/trimtab.db", CHAIN_ID, WALLET)
    yield KillSwitch(pause_file(tmp_path / "trimtab.db"), store.pause_switch)
    store.close()


def held_elsewhere(path: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path), WALLET], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    return child


def test_a_second_process_is_locked_out_and_told_by_whom(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    child = held_elsewhere(path)
    try:
        with (
            raises_code(OperatorNeeded, "lock", f"process {child.pid}", WALLET, "chain 1", tmp_path / "x.pid"),
            wallet_lock(WalletLocks(path, 1, WALLET)),
        ):
            raise AssertionError("two held the lock")
    finally:
        child.communicate()
    with wallet_lock(WalletLocks(path, 1, WALLET)):
        assert (tmp_path / "x.pid").read_text() == f"{os.getpid()}\n"

    assert not (tmp_path / "x.pid").exists()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    child = held_elsewhere(path)
    child.kill()
    child.communicate()
    with wallet_lock(WalletLocks(path, 1, WALLET)):
        assert (tmp_path / "x.pid").read_text() == f"{os.getpid()}\n"


CONTEND = """
import sys, time
from pathlib import Path
from agent.store.files.locks import WalletLocks, wait_for_lock
path, count = Path(sys.argv[1]), Path(sys.argv[1]).with_suffix(".count")
for _ in range(25):
    with wait_for_lock(WalletLocks(path, 1, sys.argv[2]), patience_s=600, sleep=lambda _: time.sleep(0.001), report_holder=lambda _: None):
        before = int(count.read_text())
        time.sleep(0.001)
        count.write_text(str(before + 1))
"""


def test_waiting_processes_have_the_lock_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    count = tmp_path / "x.count"
    count.write_text("0")

    children = [subprocess.Popen([sys.executable, "-c", CONTEND, str(path), WALLET]) for _ in range(3)]

    assert [child.wait(120) for child in children] == [0, 0, 0]
    assert count.read_text() == "75", "two read and wrote at once"


def test_who_waits_in_vain_is_told_for_whom_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    reports = []
    child = held_elsewhere(path)
    slept = []
    waits = {"patience_s": 1, "sleep": slept.append, "report_holder": reports.append}
    try:
        with raises_code(LockHeld, "lock", "1 s") as refusal, wait_for_lock(WalletLocks(path, 1, WALLET), **waits):
            raise AssertionError("two held the lock")
        assert mentions(refusal.value.remedy, "answer", "prompt")
        assert len(set(reports)) == 1
        assert mentions(reports[0], "wallet", f"process {child.pid}")
        assert sum(slept) == 1
        service_lock_path(path).with_suffix(".pid").write_text(f"{child.pid}\n")  # the holder is a run
        with pytest.raises(LockHeld) as refusal, wait_for_lock(WalletLocks(path, 1, WALLET), **waits):
            raise AssertionError("two held the lock")
        assert "middle of" in refusal.value.remedy
        assert f"process {child.pid}" in reports[-1]
    finally:
        child.communicate()


def test_a_wallet_has_one_run_beside_whom_others_act(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with service_lock(WalletLocks(path, 1, WALLET)):
        with wallet_lock(WalletLocks(path, 1, WALLET)):
            assert (tmp_path / "x.service.pid").read_text() == (tmp_path / "x.pid").read_text() == f"{os.getpid()}\n"
        with raises_code(LockHeld, "wallet_served", f"process {os.getpid()}"), service_lock(WalletLocks(path, 1, WALLET)):
            raise AssertionError("two served")

    assert not (tmp_path / "x.service.pid").exists()
    with service_lock(WalletLocks(path, 1, WALLET)):
        pass


def test_lock_beside_the_store_joins_other_state_folders(tmp_path: Path) -> None:
    service = tmp_path / "service" / "x.lock"
    shell = tmp_path / "shell" / "x.lock"
    beside = tmp_path / "t.db.lock"
    reports = []
    waits = {"patience_s": 0.5, "sleep": lambda _: None, "report_holder": reports.append}
    with wallet_lock(WalletLocks(service, 1, WALLET, beside)):
        with raises_code(LockHeld, "lock", "/t.db.pid"), wait_for_lock(WalletLocks(shell, 1, WALLET, beside), **waits):
            raise AssertionError("two held the wallet")
        assert reports
        assert all(f"process {os.getpid()}" in line for line in reports)
        with wallet_lock(WalletLocks(shell, 1, WALLET, tmp_path / "other.db.lock")):
            pass  # what was taken before the lock that was missing is let go of
    with service_lock(WalletLocks(service, 1, WALLET, beside)):
        with raises_code(LockHeld, "wallet_served"), service_lock(WalletLocks(shell, 1, WALLET, beside)):
            raise AssertionError("two served")
        with wallet_lock(WalletLocks(shell, 1, WALLET, beside)):
            pass

    assert not [*tmp_path.rglob("*.pid")]


def test_a_pid_file_with_foreign_text_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with wallet_lock(WalletLocks(path, 1, WALLET)):
        (tmp_path / "x.pid").write_text("\x1b[31m12")
        with raises_code(OperatorNeeded, "lock", "process unknown"), wallet_lock(WalletLocks(path, 1, WALLET)):
            raise AssertionError("two held the lock")


def test_a_lock_that_cannot_be_taken_asks_for_the_operator(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with raises_code(OperatorNeeded, "lock"), wallet_lock(WalletLocks(tmp_path / "file" / "x.lock", 1, WALLET)):
        raise AssertionError("held a lock that is not there")


def test_wallet_has_one_lock_a_machine_but_on_local_chains(tmp_path: Path) -> None:
    first = tmp_path / "a.db"
    second = tmp_path / "b.db"

    assert lock_path(1, WALLET, first, local_chain=False) == lock_path(1, WALLET.lower(), second, local_chain=False)
    assert lock_path(1, WALLET, None, local_chain=False) != lock_path(10, WALLET, None, local_chain=False)
    assert lock_path(31337, WALLET, first, local_chain=True) == tmp_path / "a.db.lock"


def test_nothing_paused_means_not_paused(switch: KillSwitch) -> None:
    assert switch.is_paused() is False


def test_the_file_alone_pauses(switch: KillSwitch) -> None:
    switch.file.touch()

    assert switch.is_paused() is True
    assert str(switch.file) in switch.read().reason


def test_a_dangling_link_in_the_files_place_pauses(switch: KillSwitch) -> None:
    switch.file.symlink_to("nowhere")

    assert switch.is_paused() is True


def test_the_store_alone_pauses(switch: KillSwitch, tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/trimtab.db", CHAIN_ID, WALLET)
    store.pause_switch.pause("maintenance", START_S)

    store.close()

    assert switch.read().paused is True
    assert switch.read().reason == "maintenance"


def test_pause_and_resume_turn_both(switch: KillSwitch) -> None:
    switch.pause("by hand", START_S)

    assert switch.file.exists()
    assert switch.is_paused() is True
    switch.resume("by hand", START_S)
    assert not switch.file.exists()
    assert switch.is_paused() is False


def test_pause__beside_a_pipe_at_the_file__waits_for_nobody(tmp_path: Path, switch: KillSwitch, monkeypatch: pytest.MonkeyPatch) -> None:
    open_file = os.open

    def open_at_once(path: Path, flags: int, mode: int) -> int:
        assert flags & os.O_NONBLOCK, "it would block for ever"
        return open_file(path, flags, mode)

    monkeypatch.setattr(os, "open", open_at_once)
    os.mkfifo(switch.file)
    switch.pause("by hand", START_S)
    assert switch._store.read().paused
    config_file = tmp_path / "trimtab.toml"
    config_file.write_text('[store]\nurl = "sqlite:///trimtab.db"\n')
    with pytest.raises(OperatorNeeded, match="is damaged"):
        pause_by_file(config_file, OperatorNeeded("the store is damaged"))


def test_a_file_that_cannot_be_looked_at_counts_as_paused(tmp_path: Path, switch: KillSwitch) -> None:
    (tmp_path / "plain").write_text("")

    unreadable = KillSwitch(tmp_path / "plain" / "trimtab.db.paused", switch._store)

    assert unreadable.is_paused() is None
    assert "be read" in unreadable.read().reason


def test_kill_switch__that_is_not_off_refuses_with_its_reason(tmp_path: Path, switch: KillSwitch) -> None:
    (tmp_path / "plain").write_text("")
    unreadable = KillSwitch(tmp_path / "plain" / "trimtab.db.paused", switch._store)
    switch.require_off()
    switch.pause("smoke", START_S)
    with pytest.raises(Refused) as paused:
        switch.require_off()
    with pytest.raises(Refused) as unread:
        unreadable.require_off()
    assert (paused.value.message, paused.value.remedy) == (
        "the kill switch is on (smoke); nothing is sent",
        "trimtab resume, or omit --send",
    )
    assert mentions(unread.value.message, "the kill switch cannot be read", "nothing is sent")
    assert "is on" not in unread.value.message


def test_a_store_that_cannot_be_read_counts_as_paused(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/trimtab.db", CHAIN_ID, WALLET)
    with store.db.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE pauses RENAME TO pauses_aside")

    is_paused = KillSwitch(tmp_path / "p", store.pause_switch).is_paused()

    with store.db.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE pauses_aside RENAME TO pauses")
    assert is_paused is None
    store.close()


def test_a_pause_works_on_a_full_disk(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/trimtab.db", CHAIN_ID, WALLET)

    def full(_connection, _cursor, statement, *_rest) -> None:
        if statement.startswith("INSERT"):
            raise OSError(28, "No space left on device")

    event.listen(store.db.engine, "before_cursor_execute", full)
    switch = KillSwitch(pause_file(tmp_path / "trimtab.db"), store.pause_switch)

    switch.pause("stop", START_S)

    assert switch.is_paused() is True
    with raises_code(OperatorNeeded, "pause", "cannot pause"):
        KillSwitch(tmp_path / "does not exist" / "p", store.pause_switch).pause("stop", START_S)
    with raises_code(OperatorNeeded, "store", "No space left on device"):
        switch.resume("go", START_S)
    assert switch.is_paused() is True
    store.close()
