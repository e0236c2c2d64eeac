"""One process per wallet and chain: a lock that the operating system releases when the process dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_state_path

from agent.errors import OperatorNeeded


class Held(OperatorNeeded):
    """Another process holds the wallet."""


def lock_path(chain_id: int, wallet: str, store_file: Path | None, *, local_chain: bool) -> Path:
    """Where the lock of a wallet on a chain lies: one place per machine, whatever the store.

    Local chains share their chain id and test wallets, so that there the lock lies beside the store's file.
    """
    if local_chain and store_file is not None:
        return store_file.with_name(store_file.name + ".lock")
    return user_state_path("trimtab") / f"{chain_id}-{wallet.lower()}.lock"


@contextmanager
def wallet_lock(path: Path, chain_id: int, wallet: str) -> Iterator[None]:
    """Holds the lock while inside. Raises OperatorNeeded at once when another process holds it, naming its pid file."""
    pid_file = path.with_suffix(".pid")
    lock = FileLock(path, timeout=0, mode=0o600)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise Held(
            f"another trimtab (process {_holder(pid_file)}) already acts for {wallet} on chain {chain_id}; see {pid_file}",
            "stop that process first; two at once could trade twice",
        ) from None
    except OSError as error:
        raise OperatorNeeded(f"cannot lock {path}: {error}", "make its folder writable for this user") from error
    try:
        _write(pid_file)
        yield
    finally:
        with suppress(OSError):
            pid_file.unlink(missing_ok=True)
        lock.release()


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
        return "unknown"
    return text if text.isdecimal() else "unknown"
