"""Keyrings for tests: one in memory, one that breaks, one that keeps everything readable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keyring
from keyring.backend import KeyringBackend


class InMemory(KeyringBackend):
    """Keeps what it is given as long as the process lives."""

    priority = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password


class Locked(InMemory):
    """Raises with everything it was given in its message, as a backend may."""

    def get_password(self, service: str, username: str) -> str | None:
        raise RuntimeError(f"{service} {username} is locked")


class Full(InMemory):
    """Can be read, not written."""

    def set_password(self, service: str, username: str, password: str) -> None:
        raise RuntimeError(f"cannot store {password}")


class PlaintextKeyring(InMemory):
    """By its name one of keyrings.alt, which write into a readable file."""


@contextmanager
def using(backend: KeyringBackend) -> Iterator[KeyringBackend]:
    """`backend` as the system's keyring while the block lasts."""
    before = keyring.get_keyring()
    keyring.set_keyring(backend)
    try:
        yield backend
    finally:
        keyring.set_keyring(before)
