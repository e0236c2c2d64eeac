"""The lock files of a wallet: both or neither are taken, their owner alone may use them, and the errors name holder and remedy."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest

from agent.errors import ErrorCode, OperatorNeeded, PassingFault
from agent.store.files import locks
from agent.store.files.locks import (
    LockHeld,
    WalletLocks,
    is_service_locked,
    lock_path,
    machine_lock_paths,
    service_lock,
    service_lock_path,
    store_lock_path,
    wait_for_lock,
    wallet_lock,
)
from tests.support.text import raises_code
from tests.support.transactions import WALLET

OWN_PID = f"{os.getpid()}\n"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Let no umask of the machine take permissions that the code should not give."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "x.lock"


def is_free(path: Path) -> bool:
    try:
        with wallet_lock(WalletLocks(path, 1, WALLET)):
            return True
    except LockHeld:
        return False


def test_lock__its_files_are_readable_by_their_owner_alone(path: Path) -> None:
    with wallet_lock(WalletLocks(path, 1, WALLET)):
        assert mode(path) == 0o600
        assert mode(path.with_suffix(".pid")) == 0o600


def test_lock__its_new_folder_is_its_owner_s_alone(path: Path) -> None:
    with wallet_lock(WalletLocks(path, 1, WALLET)):
        assert mode(path.parent) == 0o700


def test_lock__missing_folders_above_its_folder_are_created(tmp_path: Path) -> None:
    with wallet_lock(WalletLocks(tmp_path / "a" / "b" / "x.lock", 1, WALLET)):
        assert (tmp_path / "a" / "b" / "x.pid").read_text() == OWN_PID


def test_lock__longer_text_of_an_earlier_process_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    path.with_suffix(".pid").write_text("4294967295\n" * 9)
    with wallet_lock(WalletLocks(path, 1, WALLET)):
        assert path.with_suffix(".pid").read_text() == OWN_PID


def test_lock__is_free_after_an_error_of_its_holder(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), wallet_lock(WalletLocks(path, 1, WALLET)):
        raise ZeroDivisionError
    assert not path.with_suffix(".pid").exists()
    assert is_free(path)


def test_lock__pid_file_that_is_gone_does_not_keep_the_lock(path: Path) -> None:
    with wallet_lock(WalletLocks(path, 1, WALLET)):
        path.with_suffix(".pid").unlink()

    assert is_free(path)


def test_lock_is_free_though_its_pid_file_cannot_be_removed(path: Path) -> None:
    with wallet_lock(WalletLocks(path, 1, WALLET)):
        path.with_suffix(".pid").unlink()
        path.with_suffix(".pid").mkdir()

    path.with_suffix(".pid").rmdir()

    assert is_free(path)


def test_second_lock__equal_to_the_first_is_taken_once(path: Path) -> None:
    with wallet_lock(WalletLocks(path, 1, WALLET, path)):
        assert not is_free(path)

    assert is_free(path)


def test_second_lock__both_have_the_pid_of_their_holder(path: Path, tmp_path: Path) -> None:
    beside = tmp_path / "t.db.lock"
    with wallet_lock(WalletLocks(path, 1, WALLET, beside)):
        assert [file.with_suffix(".pid").read_text() for file in (path, beside)] == [OWN_PID, OWN_PID]


def test_second_lock__both_are_held_and_then_free(path: Path, tmp_path: Path) -> None:
    beside = tmp_path / "t.db.lock"
    with wallet_lock(WalletLocks(path, 1, WALLET, beside)):
        assert (is_free(path), is_free(beside)) == (False, False)

    assert (is_free(path), is_free(beside)) == (True, True)


def test_second_lock__first_one_is_let_go_if_the_second_is_held(path: Path, tmp_path: Path) -> None:
    beside = tmp_path / "t.db.lock"
    with wallet_lock(WalletLocks(beside, 1, WALLET)):
        with pytest.raises(LockHeld, match=r"t\.db\.pid"), wallet_lock(WalletLocks(path, 1, WALLET, beside)):
            raise AssertionError("two held the lock")
        assert is_free(path)
        assert not path.with_suffix(".pid").exists()


def test_second_lock_holder_keeps_its_pid_file(path: Path, tmp_path: Path) -> None:
    beside = tmp_path / "t.db.lock"
    with wallet_lock(WalletLocks(beside, 1, WALLET)):
        with pytest.raises(LockHeld), wallet_lock(WalletLocks(path, 1, WALLET, beside)):
            raise AssertionError("two held the lock")
        assert beside.with_suffix(".pid").read_text() == OWN_PID


def test_second_lock__is_untouched_if_the_first_is_held(path: Path, tmp_path: Path) -> None:
    beside = tmp_path / "t.db.lock"
    with wallet_lock(WalletLocks(path, 1, WALLET)):
        with pytest.raises(LockHeld), wallet_lock(WalletLocks(path, 1, WALLET, beside)):
            raise AssertionError("two held the lock")
        assert not beside.exists()


def test_service_lock__both_are_held_and_neither_is_the_wallet_s(path: Path, tmp_path: Path) -> None:
    beside = tmp_path / "t.db.lock"
    with service_lock(WalletLocks(path, 1, WALLET, beside)):
        assert [service_lock_path(file).with_suffix(".pid").read_text() for file in (path, beside)] == [OWN_PID, OWN_PID]
        assert (is_free(path), is_free(beside)) == (True, True)


def test_service_lock_beside_the_store_keeps_a_second_run_out(path: Path, tmp_path: Path) -> None:
    beside = tmp_path / "t.db.lock"

    with (
        service_lock(WalletLocks(beside, 1, WALLET)),
        pytest.raises(LockHeld) as refusal,
        service_lock(WalletLocks(path, 1, WALLET, beside)),
    ):
        raise AssertionError("two runs served")
    assert refusal.value.code is ErrorCode.WALLET_SERVED
    assert str(tmp_path / "t.db.service.pid") in refusal.value.message


def test_lock_in_a_file_for_a_folder_names_path_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(OperatorNeeded) as error, wallet_lock(WalletLocks(tmp_path / "file" / "x.lock", 1, WALLET)):
        raise AssertionError("held a lock that is not there")
    assert not isinstance(error.value, LockHeld)
    assert error.value.message.startswith(f"cannot lock {tmp_path / 'file' / 'x.lock'}: ")
    assert (error.value.remedy, error.value.code) == ("make its folder writable for this user", ErrorCode.LOCK)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's right to write everywhere."""
    user = os.geteuid()
    os.seteuid(65_534 if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)


def test_lock__folder_that_is_not_writable_asks_for_the_operator(tmp_path: Path) -> None:
    with wallet_lock(WalletLocks(tmp_path / "first.lock", 1, WALLET)):
        pass  # imports what locks, which nobody may not read
    tmp_path.chmod(0o500)

    with as_nobody(), pytest.raises(OperatorNeeded) as error, wallet_lock(WalletLocks(tmp_path / "x.lock", 1, WALLET)):
        raise AssertionError("held a lock that is not there")
    tmp_path.chmod(0o700)
    assert (error.value.remedy, error.value.code) == ("make its folder writable for this user", ErrorCode.LOCK)


def test_lock__link_in_the_place_of_its_file_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")

    with raises_code(OperatorNeeded, "lock"), wallet_lock(WalletLocks(path, 1, WALLET)):
        raise AssertionError("held another file")
    assert not (tmp_path / "elsewhere").exists()


def test_lock__holder_that_serves_the_wallet_is_named_as_the_run(path: Path) -> None:
    with service_lock(WalletLocks(path, 1, WALLET)), wallet_lock(WalletLocks(path, 1, WALLET)):
        with pytest.raises(LockHeld) as refusal, wallet_lock(WalletLocks(path, 1, WALLET)):
            raise AssertionError("two held the lock")
        assert "it is the run" in refusal.value.remedy


def test_lock__holder_beside_a_run_is_not_named_as_the_run(path: Path) -> None:
    with service_lock(WalletLocks(path, 1, WALLET)), wallet_lock(WalletLocks(path, 1, WALLET)):
        path.with_suffix(".pid").write_text("1\n")
        with pytest.raises(LockHeld) as refusal, wallet_lock(WalletLocks(path, 1, WALLET)):
            raise AssertionError("two held the lock")
        assert "answer its prompt" in refusal.value.remedy


def test_lock__two_unknown_holders_are_not_taken_for_one_run(path: Path) -> None:
    with service_lock(WalletLocks(path, 1, WALLET)), wallet_lock(WalletLocks(path, 1, WALLET)):
        path.with_suffix(".pid").unlink()
        service_lock_path(path).with_suffix(".pid").unlink()
        with pytest.raises(LockHeld) as refusal, wallet_lock(WalletLocks(path, 1, WALLET)):
            raise AssertionError("two held the lock")
        assert "answer its prompt" in refusal.value.remedy


def reports_of_waiting(
    path: Path, beside: Path | None, patience_s: float, further_lock: Callable[[], AbstractContextManager[object]] = nullcontext
) -> tuple[list[float], list[str]]:
    """Return the pauses and the reports of a wait in vain."""
    pauses: list[float] = []
    reports: list[str] = []
    with (
        pytest.raises(LockHeld),
        wait_for_lock(
            WalletLocks(path, 1, WALLET, beside),
            patience_s=patience_s,
            sleep=pauses.append,
            report_holder=reports.append,
            further_lock=further_lock,
        ),
    ):
        raise AssertionError("two held the lock")
    return pauses, reports


@pytest.mark.parametrize(("patience_s", "pauses"), [(0, 0), (0.25, 1), (0.26, 2), (0.5, 2)])
def test_waiting__lasts_for_the_patience_and_no_pause_longer(path: Path, patience_s: float, pauses: int) -> None:
    with wallet_lock(WalletLocks(path, 1, WALLET)):
        assert reports_of_waiting(path, None, patience_s)[0] == [0.25] * pauses


def test_waiting__ends_as_soon_as_the_lock_is_free(path: Path) -> None:
    pauses: list[float] = []
    with ExitStack() as holder:
        holder.enter_context(wallet_lock(WalletLocks(path, 1, WALLET)))

        def let_go(pause_s: float) -> None:
            pauses.append(pause_s)
            holder.close()

        with wait_for_lock(WalletLocks(path, 1, WALLET), patience_s=60, sleep=let_go, report_holder=lambda _: None):
            assert path.with_suffix(".pid").read_text() == OWN_PID
            assert not is_free(path)

    assert pauses == [0.25]
    assert is_free(path)


def test_waiting__for_the_run_names_the_run(path: Path) -> None:
    with service_lock(WalletLocks(path, 1, WALLET)), wallet_lock(WalletLocks(path, 1, WALLET)):
        assert reports_of_waiting(path, None, 0.25)[1] == [
            f"Waiting for the wallet: the run (process {os.getpid()}) is acting for it; trimtab pause acts at once"
        ]


def test_waiting__for_a_holder_on_another_machine_says_what_its_lock_says(path: Path) -> None:
    @contextmanager
    def lock_of_database() -> Iterator[None]:
        raise LockHeld("another trimtab (of 10.0.0.2) already acts for the wallet")
        yield

    assert reports_of_waiting(path, None, 0.25, lock_of_database)[1] == [
        "Waiting for the wallet: another trimtab (of 10.0.0.2) already acts for the wallet; trimtab pause acts at once"
    ]
    assert is_free(path)


def test_waiting__for_a_holder_of_the_second_lock_names_that_one(path: Path, tmp_path: Path) -> None:
    beside = tmp_path / "t.db.lock"
    with wallet_lock(WalletLocks(beside, 1, WALLET)):
        beside.with_suffix(".pid").write_text("77\n")
        assert reports_of_waiting(path, beside, 0.25)[1] == [
            "Waiting for the wallet: another command (process 77) is acting for it; trimtab pause acts at once"
        ]


def test_waiting__for_a_holder_of_the_first_lock_names_that_one(path: Path, tmp_path: Path) -> None:
    beside = tmp_path / "t.db.lock"
    with wallet_lock(WalletLocks(path, 1, WALLET)), wallet_lock(WalletLocks(beside, 1, WALLET)):
        path.with_suffix(".pid").write_text("66\n")
        beside.with_suffix(".pid").write_text("77\n")
        assert "(process 66)" in reports_of_waiting(path, beside, 0.25)[1][0]


def test_lock_path__names_chain_and_wallet_in_lower_case() -> None:
    assert lock_path(10, WALLET, None, local_chain=False).name == f"10-{WALLET.lower()}.lock"


def test_lock_path_of_a_local_chain_without_a_store() -> None:
    assert lock_path(10, WALLET, None, local_chain=True) == lock_path(10, WALLET, None, local_chain=False)


def test_lock_path_of_a_local_chain_with_a_store(tmp_path: Path) -> None:
    assert lock_path(10, WALLET, tmp_path / "t.db", local_chain=True) == tmp_path / "t.db.lock"


def test_lock_path__of_a_store_keeps_the_whole_name_of_its_file(tmp_path: Path) -> None:
    assert store_lock_path(tmp_path / "t.db") == tmp_path / "t.db.lock"
    assert service_lock_path(tmp_path / "t.db.lock") == tmp_path / "t.db.service.lock"


def test_lock__another_thread_releases_it(path: Path) -> None:
    held_lock = wallet_lock(WalletLocks(path, 1, WALLET))
    held_lock.__enter__()
    release = threading.Thread(target=held_lock.__exit__, args=(None, None, None))
    release.start()

    release.join()

    assert is_free(path)


@pytest.mark.parametrize("pid", ["0", OWN_PID, "4194305"], ids=["every process", "a living process", "no process"])
def test_service__is_known_by_its_lock_and_not_by_a_number(path: Path, pid: str) -> None:
    pid_file = service_lock_path(path).with_suffix(".pid")
    with service_lock(WalletLocks(path, 1, WALLET)):
        pid_file.write_text(pid)  # as another container numbers it
        assert is_service_locked(path)
        assert pid_file.exists()

    pid_file.write_text(pid)  # as a killed run leaves it

    assert not is_service_locked(path)
    assert not pid_file.exists()


def test_service__starts_while_somebody_looks_for_it(path: Path) -> None:
    with ExitStack() as look:
        look.enter_context(service_lock(WalletLocks(path, 1, WALLET)))
        end_of_look = threading.Timer(0.02, look.close)
        end_of_look.start()
        with service_lock(WalletLocks(path, 1, WALLET)):
            end_of_look.join()
            assert is_service_locked(path)


def test_service__without_a_pid_file_is_not_looked_for(path: Path) -> None:
    assert not is_service_locked(path)
    assert not path.parent.exists()


def test_service__whose_lock_cannot_be_opened_is_unknown(path: Path) -> None:
    service_lock_path(path).mkdir(parents=True)
    service_lock_path(path).with_suffix(".pid").touch()

    with pytest.raises(PassingFault, match="cannot lock"):
        is_service_locked(path)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that all users of a machine may write."""
    folder = tmp_path / "machine"
    folder.mkdir()
    monkeypatch.setattr(locks, "MACHINE_FOLDERS", (tmp_path / "missing", folder))
    return folder


def lock_in_state_folder(monkeypatch: pytest.MonkeyPatch, folder: Path, chain_id: int = 10) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return lock_path(chain_id, WALLET, folder / "t.db", local_chain=False)


def test_wallet__has_one_lock_for_all_state_folders_of_a_user(machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service and a command with stores of their own."""
    service = lock_in_state_folder(monkeypatch, tmp_path / "service")
    with (
        wallet_lock(WalletLocks(service, 10, WALLET, tmp_path / "service.db.lock")),
        service_lock(WalletLocks(service, 10, WALLET, tmp_path / "service.db.lock")),
    ):
        command = lock_in_state_folder(monkeypatch, tmp_path / "command")
        assert command != service
        for take in (wallet_lock, service_lock):
            with (
                pytest.raises(LockHeld, match=f"process {os.getpid()}"),
                take(WalletLocks(command, 10, WALLET, tmp_path / "command.db.lock")),
            ):
                raise AssertionError("two held the wallet")
        assert reports_of_waiting(command, None, 0.25)[1] == [
            f"Waiting for the wallet: the run (process {os.getpid()}) is acting for it; trimtab pause acts at once"
        ]
        with wallet_lock(WalletLocks(lock_in_state_folder(monkeypatch, tmp_path / "command", 11), 11, WALLET)):
            pass
    with wallet_lock(WalletLocks(command, 10, WALLET)):
        pass
    assert not [*tmp_path.rglob("*.pid")]


def foreign_file(place: Path) -> None:
    place.write_text("")


def link_elsewhere(place: Path) -> None:
    place.symlink_to(place.parent)


def open_to_others(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)


def read_only(place: Path) -> None:
    place.parent.chmod(0o500)


@pytest.mark.parametrize("take_place", [foreign_file, link_elsewhere, open_to_others, read_only])
def test_wallet__is_not_blocked_by_what_others_put_in_the_place(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take_place: Callable[[Path], None]
) -> None:
    wallet_lock_file = lock_in_state_folder(monkeypatch, tmp_path / "state")
    with wallet_lock(WalletLocks(wallet_lock_file, 10, WALLET)):
        assert machine_lock_paths(wallet_lock_file)
    (machine / f"trimtab-{os.geteuid()}").rename(tmp_path / "away")
    take_place(machine / f"trimtab-{os.geteuid()}")
    with as_nobody() if take_place is read_only else nullcontext():
        assert machine_lock_paths(wallet_lock_file) == ()
    with wallet_lock(WalletLocks(wallet_lock_file, 10, WALLET)):
        pass
    machine.chmod(0o700)
    assert len([*machine.iterdir()]) <= 1


def test_lock_outside_the_state_folder__is_no_lock_of_the_machine(machine: Path, tmp_path: Path) -> None:
    """Such as that of a local chain, or of a paper run."""
    assert machine_lock_paths(tmp_path / "t.db.lock") == ()
    assert [*machine.iterdir()] == []
