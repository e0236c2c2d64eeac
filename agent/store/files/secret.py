"""Secret of an installation, in a file beside the store and never in it: write access to the store
alone is not enough to seal a control or a row of its logs.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from agent.errors import ConfigError, ErrorCode, OperatorNeeded, PassingFault
from agent.files import sync_folder
from agent.foreign_text import failure_words
from agent.store.files.locks import require_trusted_writers

SECRET_BYTES = 32


def secret_path(store_file: Path) -> Path:
    """Return the path of the secret, such as trimtab.db.secret."""
    return store_file.with_name(store_file.name + ".secret")


def ensure_secret(store_file: Path) -> bytes:
    """Return the secret beside a store; create it at first use.

    Raises ConfigError if others may read or write it, PassingFault if it cannot be read or written,
    OperatorNeeded if it is damaged.
    """
    path = secret_path(store_file)
    if (secret := find_secret(store_file)) is not None:
        return secret
    try:
        _write_secret(path)
    except OSError as error:
        raise _secret_error(path, "written", failure_words(error)) from error
    secret = find_secret(store_file)
    if secret is None:
        raise _secret_error(path, "read", "it was removed")
    return secret


def find_secret(store_file: Path) -> bytes | None:
    """Return the secret beside a store; None if there is none. Raises like `ensure_secret`,
    and writes nothing.
    """
    path = secret_path(store_file)
    try:
        if not path.exists():
            return None
        require_trusted_writers(path, "secret")
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(
                f"secret: others may read {path} (mode {mode:04o})", f"run: chmod 600 {path}"
            )
        secret = bytes.fromhex(path.read_text(encoding="ascii"))
    except OSError as error:
        raise _secret_error(path, "read", failure_words(error)) from error
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise OperatorNeeded(
            f"{path} does not hold {SECRET_BYTES} bytes", _REMEDY, code=ErrorCode.FILE
        )
    return secret


_REMEDY = (
    "restore it, or remove it to make a new one: queued controls are then refused, and rows that it"
    " sealed do not count"
)


def _secret_error(path: Path, action: str, reason: str) -> PassingFault:
    return PassingFault(f"{path} cannot be {action}: {reason}", _REMEDY, code=ErrorCode.FILE)


def _write_secret(path: Path) -> None:
    """Write a new secret atomically; of two simultaneous processes, the first one determines it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
        sync_folder(path.parent)  # rows that it seals must not outlive it
    finally:
        draft.unlink()
