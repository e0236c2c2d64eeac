"""Locks of a wallet: one process acts for it at a time, and one serves it. The operating system releases them when a process dies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from platformdirs import user_state_path

from agent.errors import OperatorNeeded

POLL_S = 0.25
"""Interval between attempts to get a lock: much shorter than the pause between two cycles of a run."""
UNKNOWN = "unknown"


class LockHeld(OperatorNeeded):
    """Raised when another process holds the wallet, or serves it already."""


def lock_path(chain_id: int, wallet: str, store_file: Path | None, *, local_chain: bool) -> Path:
    """Path of the lock of a wallet on a chain: one per machine, for all stores.

    Local chains share their chain id and test wallets, so their lock is beside the store's file.
    """
    if local_chain and store_file is not None:
        return store_lock_path(store_file)
    return user_state_path("trimtab") / f"{chain_id}-{wallet.lower()}.lock"


def store_lock_path(store_file: Path) -> Path:
    """Path of the lock beside a store: all users of the store share it, even with different state folders."""
    return store_file.with_name(store_file.name + ".lock")


def service_lock_path(path: Path) -> Path:
    """Path of the lock of the run that serves the wallet, beside the wallet's own at `path`."""
    return path.with_suffix(".service.lock")


@contextmanager
def wallet_lock(path: Path, chain_id: int, wallet: str, beside: Path | None = None) -> Iterator[None]:
    """Hold the wallet while inside: only its holder signs, sends, or moves the journal.

    With `beside` that lock is taken too, for a store shared by processes with different state folders. Raises LockHeld at once if another
    process has it, with that process and its pid file; OperatorNeeded if the lock cannot be taken.
    """
    with _all(path, beside, lambda one: _in_use(one, chain_id, wallet)):
        yield


@contextmanager
def wait_for_lock(
    path: Path,
    chain_id: int,
    wallet: str,
    beside: Path | None = None,
    *,
    patience_s: float,
    sleep: Callable[[float], None],
    tell: Callable[[str], None],
) -> Iterator[None]:
    """Hold the wallet like `wallet_lock`, but wait for another process to release it; `tell` is called with its holder.

    Raises LockHeld after `patience_s`.
    """
    waited_s = 0.0
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(wallet_lock(path, chain_id, wallet, beside))
                break
            except LockHeld as other:
                if waited_s >= patience_s:
                    raise LockHeld(f"{other.message}; waited {patience_s:.0f} s for it", other.remedy) from None
                tell(f"Waiting for the wallet: {_who(path, beside)} is acting for it")
            sleep(POLL_S)
            waited_s += POLL_S
        yield


@contextmanager
def service_lock(path: Path, chain_id: int, wallet: str, beside: Path | None = None) -> Iterator[None]:
    """Hold the service lock for a whole run, beside the wallet's locks, which it takes per cycle. Raises LockHeld at once."""

    def taken(place: Path) -> LockHeld:
        pid_file = place.with_suffix(".pid")
        return LockHeld(
            f"another run (process {_holder(pid_file)}) already serves {wallet} on chain {chain_id}; see {pid_file}",
            "stop that run first: its service manager, or its process; other commands can run beside it",
        )

    with _all(service_lock_path(path), None if beside is None else service_lock_path(beside), taken):
        yield


@contextmanager
def _all(path: Path, beside: Path | None, taken: Callable[[Path], LockHeld]) -> Iterator[None]:
    """Take both locks or none, each with its pid file."""
    with ExitStack() as held:
        for place in (path,) if beside in (None, path) else (path, beside):
            held.enter_context(_lock(place, taken))
            _write(place.with_suffix(".pid"))
        yield


@contextmanager
def _lock(path: Path, taken: Callable[[Path], LockHeld]) -> Iterator[None]:
    from filelock import FileLock, Timeout  # it imports asyncio, which read-only commands do not need

    lock = FileLock(path, timeout=0, mode=0o600)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise taken(path) from None
    except OSError as error:
        raise OperatorNeeded(f"cannot lock {path}: {error}", "make its folder writable for this user") from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.with_suffix(".pid").unlink(missing_ok=True)
        lock.release()


def _in_use(path: Path, chain_id: int, wallet: str) -> LockHeld:
    pid_file = path.with_suffix(".pid")
    remedy = "wait until it is done, answer its question, or end it; two at a time could trade twice"
    if _serves(path):
        remedy = "it is the run, in the middle of a cycle: try again after it; its log shows its state"
    return LockHeld(f"another trimtab (process {_holder(pid_file)}) already acts for {wallet} on chain {chain_id}; see {pid_file}", remedy)


def _who(path: Path, beside: Path | None) -> str:
    place = path if beside is None or _holder(path.with_suffix(".pid")) != UNKNOWN else beside
    kind = "the run" if _serves(place) else "another command"
    return f"{kind} (process {_holder(place.with_suffix('.pid'))})"


def _serves(path: Path) -> bool:
    """True if the wallet's holder is the run that serves it."""
    holder = _holder(path.with_suffix(".pid"))
    return holder != UNKNOWN and holder == _holder(service_lock_path(path).with_suffix(".pid"))


def _write(pid_file: Path) -> None:
    try:
        descriptor = os.open(pid_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{os.getpid()}\n")
    except OSError as error:
        raise OperatorNeeded(f"cannot write {pid_file}: {error}", "free space on its disk and make its folder writable") from error


def _holder(pid_file: Path) -> str:
    """Digits of the pid file, and nothing else of it."""
    try:
        text = pid_file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return UNKNOWN
    return text if text.isdecimal() else UNKNOWN
