"""Keyrings for tests: in memory, failing, and one that stores plain text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keyring
from keyring.backend import KeyringBackend


class MemoryKeyring(KeyringBackend):
    """Keeps its entries as long as the process lives."""

    priority = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password


class FailingKeyring(MemoryKeyring):
    """Raises errors that contain its arguments, as a backend may."""

    def get_password(self, service: str, username: str) -> str | None:
        raise RuntimeError(f"{service} {username} is locked")


@contextmanager
def using(backend: KeyringBackend) -> Iterator[KeyringBackend]:
    """Use `backend` as the system's keyring during the block."""
    before = keyring.get_keyring()
    keyring.set_keyring(backend)
    try:
        yield backend
    finally:
        keyring.set_keyring(before)
