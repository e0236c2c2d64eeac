"""Wallet files, their passwords and who types them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from eth_account import Account

from agent.signing.keys import KeystoreFile, load_key

GOOD = "four random words here"
OTHER = "another set of random words"
KEY = "c0ffee" + "5eed" * 14 + "42"
ADDRESS = Account.from_key(bytes.fromhex(KEY)).address


def typist(*lines: str) -> Callable[[str], str]:
    """Somebody who types these lines, one per prompt."""
    answers: Iterator[str] = iter(lines)
    return lambda prompt: next(answers)


def address_in_file(path: Path, password: str) -> str:
    return load_key(KeystoreFile(path), 1, ask=lambda prompt: password).address
