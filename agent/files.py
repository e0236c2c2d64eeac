"""The config files of a folder, and atomic file replacement: after a crash either the old or the new
file is complete.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

PAUSE_ENDING = ".paused"
"""Ending of the file beside a store whose presence pauses the agent."""
Content = bytes | Callable[[BinaryIO], object]
"""Bytes, or a function that writes to the open file."""


def folder_configs(folder: Path) -> list[Path]:
    """Return the *.toml files of a folder that are not hidden, sorted by name."""
    return sorted(path for path in folder.glob("*.toml") if not path.name.startswith("."))


def replace_file(path: Path, content: Content, mode: int = 0o600) -> None:
    """Replace a file: write a temporary file beside it, sync it and rename it.

    Raises OSError and leaves the target unchanged; a device or a pipe is none that can be replaced.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    temporary_path = path.with_name(f".{path.name}.{secrets.token_hex(6)}.draft")
    try:
        with os.fdopen(
            os.open(temporary_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb"
        ) as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        temporary_path.replace(path)
    finally:
        temporary_path.unlink(missing_ok=True)


def create_file(path: Path, content: bytes) -> None:
    """Create a file with its whole content or not at all. Raises FileExistsError, OSError."""
    temporary_path = path.with_name(f".{path.name}.{secrets.token_hex(6)}.draft")
    try:
        replace_file(temporary_path, content)
        os.link(temporary_path, path)
    finally:
        temporary_path.unlink(missing_ok=True)


def open_unlinked(path: str, flags: int, dir_fd: int | None = None) -> int:
    """Open a file for `open`, which closes a folder again; follow no link, wait for no pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd)


def sync_folder(folder: Path) -> None:
    """Sync a folder, which makes new file names durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
