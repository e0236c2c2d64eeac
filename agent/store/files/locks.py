"""Locks of a wallet, and permission checks.

Only one process at a time acts for a wallet, and only one run serves it. The operating system
releases a lock when its process ends.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_state_path

from agent.errors import ConfigError, ErrorCode, OperatorNeeded, PassingFault
from agent.foreign_text import failure_words
from agent.units import rough_duration

POLL_S = 0.25
"""Seconds between attempts to get a lock, much less than the pause between two cycles of a run."""
LOOK_PATIENCE_S = 0.1
"""Seconds for which `is_service_locked`, which takes the lock for a moment, keeps nobody from it."""
MACHINE_FOLDERS = (Path("/run/lock"), Path("/tmp"))  # noqa: S108  own folders in it are checked
"""Folders in which any user may make a folder that no other user can remove."""
UNKNOWN_PID = "unknown"
"""Text in place of a process id that cannot be read."""


class LockHeld(OperatorNeeded):
    """Raised when another process already holds the wallet's lock, or already serves the wallet."""


def lock_path(chain_id: int, wallet: str, store_file: Path | None, *, local_chain: bool) -> Path:
    """Return the path of the lock of a wallet on a chain, in the state folder; `machine_lock_paths`
    join other state folders, `store_lock_path` other users of the store.

    Local chains share their chain id and test wallets, so their lock is beside the store's file.
    """
    if local_chain and store_file is not None:
        return store_lock_path(store_file)
    return user_state_path("trimtab") / f"{chain_id}-{wallet.lower()}.lock"


def store_lock_path(store_file: Path) -> Path:
    """Return the path of the lock beside a store, shared by all users of the store even with
    different state folders.
    """
    return store_file.with_name(store_file.name + ".lock")


def machine_lock_paths(wallet_lock_file: Path) -> tuple[Path, ...]:
    """Return the paths of further locks of the wallet, which processes of this user with other state
    folders share, in each of MACHINE_FOLDERS that can be written; none for a lock outside the state
    folder. A folder that another user has put in the place is left alone, so that nobody can block
    the wallet.
    """
    if wallet_lock_file.parent != user_state_path("trimtab"):
        return ()
    lock_paths = []
    for machine_folder in MACHINE_FOLDERS:
        own_folder = machine_folder / f"trimtab-{os.geteuid()}"
        with suppress(OSError):
            own_folder.mkdir(mode=0o700, exist_ok=True)
            status = own_folder.lstat()
            is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if is_own and not status.st_mode & 0o022 and os.access(own_folder, os.W_OK):
                lock_paths.append(own_folder / wallet_lock_file.name)
    return tuple(lock_paths)


def service_lock_path(wallet_lock_file: Path) -> Path:
    """Return the path of the lock of the run that serves the wallet, beside the wallet's at
    `wallet_lock_file`.
    """
    return wallet_lock_file.with_suffix(".service.lock")


@dataclass(frozen=True, slots=True)
class WalletLocks:
    """The locks of a wallet: its own, and one beside the store, for a store shared by processes of
    different users.
    """

    wallet_lock_file: Path
    chain_id: int
    wallet: str
    store_lock_file: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of all locks, each once."""
        machine_files = machine_lock_paths(self.wallet_lock_file)
        lock_files = (self.wallet_lock_file, self.store_lock_file, *machine_files)
        return tuple(dict.fromkeys(filter(None, lock_files)))


@contextmanager
def wallet_lock(locks: WalletLocks) -> Iterator[None]:
    """Hold the wallet's locks; only their holder signs, sends, or changes the journal. Raises
    LockHeld at once, naming the holder and its pid file; OperatorNeeded if a lock cannot be taken.
    """
    with _all_locks(locks.files, lambda lock_file: _lock_held_error(lock_file, locks)):
        yield


@contextmanager
def wait_for_lock(
    wallet_locks: WalletLocks,
    *,
    patience_s: float,
    sleep: Callable[[float], None],
    report_holder: Callable[[str], None],
    further_lock: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[None]:
    """Hold the locks like `wallet_lock`, and `further_lock`, but wait up to `patience_s` for another
    process, which `report_holder` reports.

    Raises LockHeld after that time.
    """
    waited_s = 0.0
    with ExitStack() as locks:
        while True:
            has_files = False
            try:
                with ExitStack() as taken:
                    taken.enter_context(wallet_lock(wallet_locks))
                    has_files = True
                    taken.enter_context(further_lock())
                    locks.enter_context(taken.pop_all())
                break
            except LockHeld as error:
                if waited_s >= patience_s:
                    raise LockHeld(
                        f"{error.message}; waited {rough_duration(int(patience_s))} for it",
                        error.remedy,
                        code=ErrorCode.LOCK,
                    ) from None
                holder_text = (
                    error.message  # of a lock that has no pid file here
                    if has_files
                    else f"{_holder_text(wallet_locks.files)} is acting for it"
                )
                report_holder(f"Waiting for the wallet: {holder_text}; trimtab pause acts at once")
            sleep(POLL_S)
            waited_s += POLL_S
        yield


@contextmanager
def service_lock(locks: WalletLocks) -> Iterator[None]:
    """Hold the service lock for a whole run; the wallet's locks are taken for each cycle. Raises
    LockHeld at once.
    """

    def service_held_error(lock_file: Path) -> LockHeld:
        pid_file = lock_file.with_suffix(".pid")
        return LockHeld(
            f"another run (process {_holder_pid(pid_file)}) already serves {locks.wallet} on chain"
            f" {locks.chain_id}; see {pid_file}",
            "stop that run first: its service manager, or its process; other commands can run"
            " beside it",
            code=ErrorCode.WALLET_SERVED,
        )

    with _all_locks(
        tuple(map(service_lock_path, locks.files)),
        service_held_error,
        LOOK_PATIENCE_S,
    ):
        yield


def is_service_locked(store_lock_file: Path) -> bool:
    """Return whether a run holds the service lock beside a store. Its process id says nothing: the
    run may be in another container, and another process may have the number of a killed one, whose
    pid file is removed. Raises PassingFault.
    """
    lock_file = service_lock_path(store_lock_file)
    if not os.path.lexists(lock_file.with_suffix(".pid")):
        return False
    try:
        with _lock(lock_file, lambda _: LockHeld("the wallet is served"), patience_s=0.0):
            return False
    except LockHeld:
        return True


@contextmanager
def _all_locks(
    lock_files: Sequence[Path], lock_error: Callable[[Path], LockHeld], patience_s: float = 0.0
) -> Iterator[None]:
    """Take all locks or none, each with its pid file."""
    with ExitStack() as locks:
        for lock_file in lock_files:
            locks.enter_context(_lock(lock_file, lock_error, patience_s))
            _write_pid(lock_file.with_suffix(".pid"))
        yield


@contextmanager
def _lock(
    lock_file: Path, lock_error: Callable[[Path], LockHeld], patience_s: float
) -> Iterator[None]:
    # filelock imports asyncio, which most commands do not need
    from filelock import FileLock, Timeout

    # a run may be closed by another thread than the one that opened it
    lock = FileLock(lock_file, timeout=patience_s, mode=0o600, thread_local=False)
    try:
        lock_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire(poll_interval=LOOK_PATIENCE_S / 5)
    except Timeout:
        raise lock_error(lock_file) from None
    except OSError as error:
        raise PassingFault(
            f"cannot lock {lock_file}: {failure_words(error)}",
            "make its folder writable for this user",
            code=ErrorCode.LOCK,
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            lock_file.with_suffix(".pid").unlink(missing_ok=True)
        lock.release()


def _lock_held_error(lock_file: Path, locks: WalletLocks) -> LockHeld:
    pid_file = lock_file.with_suffix(".pid")
    remedy = "wait until it is done, answer its prompt, or end it"
    if _is_held_by_run(lock_file):
        remedy = "it is the run, in the middle of a cycle; try again later or see its log"
    return LockHeld(
        f"another trimtab (process {_holder_pid(pid_file)}) already acts for {locks.wallet} on chain"
        f" {locks.chain_id}; see {pid_file}",
        remedy,
        code=ErrorCode.LOCK,
    )


def _holder_text(lock_files: Sequence[Path]) -> str:
    """Return who holds the first of these locks that names its holder."""
    lock_file = next(
        (file for file in lock_files if _holder_pid(file.with_suffix(".pid")) != UNKNOWN_PID),
        lock_files[0],
    )
    holder = "the run" if _is_held_by_run(lock_file) else "another command"
    return f"{holder} (process {_holder_pid(lock_file.with_suffix('.pid'))})"


def _is_held_by_run(lock_file: Path) -> bool:
    """True if the lock's holder is the run that serves the wallet."""
    pid = _holder_pid(lock_file.with_suffix(".pid"))
    return pid != UNKNOWN_PID and pid == _holder_pid(
        service_lock_path(lock_file).with_suffix(".pid")
    )


def _write_pid(pid_file: Path) -> None:
    try:
        descriptor = os.open(pid_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{os.getpid()}\n")
    except OSError as error:
        raise PassingFault(
            f"cannot write {pid_file}: {failure_words(error)}",
            "free space on its disk and make its folder writable",
            code=ErrorCode.FILE,
        ) from error


def _holder_pid(pid_file: Path) -> str:
    """Return the process id of a pid file; UNKNOWN_PID if it has none."""
    try:
        pid_text = pid_file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return UNKNOWN_PID
    return pid_text if pid_text.isdecimal() else UNKNOWN_PID


_COMPANION_SUFFIXES = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite reads beside the database."""


def require_trusted_writers(
    path: Path, description: str, *, checks_companions: bool = False
) -> None:
    """Raise ConfigError, with the chmod that repairs it, if others may write `path` or its folder.
    `description` names it in the message.

    File and folder must belong to this user or root and be writable by their owner alone. A folder
    may also be writable by the user's own group if that has no other members (which a umask of 002
    creates), or be sticky like /tmp, where only owners can remove files. With `checks_companions`
    SQLite's files beside it are checked too. A missing file passes.
    """
    for file in _with_companions(path, checks_companions):
        if (status := _file_status(file)) is not None:
            _require_owner(status, file, description)
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise _writable_error(description, file, status)
    for folder in dict.fromkeys((path.absolute().parent, path.resolve().parent)):
        if (status := _file_status(folder)) is not None:
            _require_owner(status, folder, f"the folder of {description}")
            if not _is_folder_protected(status):
                raise _writable_error(f"the folder of {description}", folder, status)


def make_private(path: Path, description: str, *, checks_companions: bool = False) -> None:
    """Check like `require_trusted_writers`, then take the permissions of others from files of this user.
    Raises ConfigError if that is not possible. A file of root's keeps its mode: root chose it.
    """
    require_trusted_writers(path, description, checks_companions=checks_companions)
    for file in _with_companions(path, checks_companions):
        status = _file_status(file)
        if status is None or status.st_uid != os.geteuid() or not status.st_mode & 0o077:
            continue
        try:
            file.chmod(stat.S_IMODE(status.st_mode) & 0o700)
        except FileNotFoundError:  # SQLite has removed it meanwhile
            continue
        except OSError:
            raise ConfigError(
                f"{description}: others may read {file} (mode {stat.S_IMODE(status.st_mode):04o})",
                f"run: chmod go-rwx {shlex.quote(str(file))}",
            ) from None


def _with_companions(path: Path, includes_companions: bool) -> tuple[Path, ...]:
    return path, *(
        path.with_name(path.name + suffix) for suffix in _COMPANION_SUFFIXES if includes_companions
    )


def _is_folder_protected(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_ISVTX:
        return True
    if status.st_mode & stat.S_IWOTH:
        return False
    return not status.st_mode & stat.S_IWGRP or _is_only_member(status.st_gid)


def _is_only_member(gid: int) -> bool:
    """True if `gid` is the id of the user's own group, and that has no other members."""
    try:
        this_user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    other_members = [
        other_user
        for other_user in pwd.getpwall()
        if other_user.pw_gid == gid and other_user.pw_uid != this_user.pw_uid
    ]
    return (
        this_user.pw_gid == gid and not other_members and set(group.gr_mem) <= {this_user.pw_name}
    )


def _file_status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # the caller reports the error when it reads the file
        return None


def _require_owner(status: os.stat_result, path: Path, description: str) -> None:
    if status.st_uid not in (os.geteuid(), 0):
        raise ConfigError(
            f"{description}: {path} belongs to another user (uid {status.st_uid}), who can change it",
            "run as that user, or make your own copy",
        )


def _writable_error(description: str, path: Path, status: os.stat_result) -> ConfigError:
    mode = stat.S_IMODE(status.st_mode)
    return ConfigError(
        f"{description}: others may write {path} (mode {mode:04o})",
        f"run: chmod go-w {shlex.quote(str(path))}",
    )
