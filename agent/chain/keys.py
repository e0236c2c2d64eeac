"""Loads the signing key from where the config says, and keeps it out of everything that could be read later (T18)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agent.chain import osring
from agent.chain.keystore import open_keystore, read_private
from agent.chain.secret import KEY_PATH, Key, Secret, disable_core_dumps, key_of
from agent.errors import ConfigError
from agent.ports import SigningKey

__all__ = [
    "Ask",
    "HandedIn",
    "Key",
    "KeyEnv",
    "KeyPrompt",
    "KeySource",
    "KeyringEntry",
    "KeystoreFile",
    "Secret",
    "TestAccount",
    "disable_core_dumps",
    "is_published",
    "load_key",
]

LOCAL_CHAIN_IDS = (31337, 131277322940537)
"""anvil's and eth-tester's."""
TEST_MNEMONIC = "test test test test test test test test test test test junk"
"""The published mnemonic of anvil and hardhat: whoever sends money to its accounts loses it within seconds."""
TEST_ACCOUNTS = 20


@dataclass(frozen=True, slots=True)
class KeystoreFile:
    """An encrypted keystore (version 3). The password comes from the variable `password_env` if set, else from a prompt."""

    path: Path
    password_env: str = ""


@dataclass(frozen=True, slots=True)
class KeyEnv:
    """A private key in the environment variable `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class KeyPrompt:
    """A private key typed at a prompt."""


@dataclass(frozen=True, slots=True)
class TestAccount:
    """Account `index` of the published test mnemonic; on local chains only."""

    __test__ = False

    index: int


@dataclass(frozen=True, slots=True)
class KeyringEntry:
    """A key in the keyring of the operating system, under a service and a name."""

    service: str
    name: str


@dataclass(frozen=True, slots=True)
class HandedIn:
    """A key that the calling program has, such as one in a key service."""

    key: SigningKey


KeySource = KeystoreFile | KeyEnv | KeyPrompt | KeyringEntry | TestAccount | HandedIn

Ask = Callable[[str], str]
"""Shows a prompt and returns what was typed, unseen (getpass.getpass)."""


def load_key(source: KeySource, chain_id: int, *, ask: Ask | None, fork: bool = False) -> SigningKey:
    """The key that `source` names, checked against the chain it is for.

    `ask` is None where nobody can be asked. With `fork` (a copy of a live chain, under its chain id) only published test
    keys are accepted; elsewhere they are accepted on local chain ids only.
    Raises ConfigError naming the field and the remedy; no message, traceback or local variable of it holds the key.
    """
    disable_core_dumps()
    local = chain_id in LOCAL_CHAIN_IDS
    found: SigningKey | ConfigError
    match source:
        case HandedIn(key):
            found = key
        case TestAccount(index):
            if not (local or fork):
                raise ConfigError(
                    f"wallet.test_account: its key is published and chain {chain_id} is not a local one",
                    "use wallet.keystore or wallet.key_env",
                )
            if not 0 <= index < TEST_ACCOUNTS:
                raise ConfigError(f"wallet.test_account: {index} is not between 0 and {TEST_ACCOUNTS - 1}")
            return _account(_test_key(index))
        case KeystoreFile(path, password_env):
            found = open_keystore(read_private(path), _password(path, password_env, ask), path)
        case KeyEnv(name):
            found = key_of(_variable(name), f"wallet.key_env {name}")
        case KeyringEntry(service, name):
            found = osring.load((service, name))
        case KeyPrompt():
            if ask is None:
                raise ConfigError("the key must be typed and nobody can be asked", "run in a terminal, or set wallet.keystore")
            found = key_of(Secret(ask("Private key: ")), "the typed key")
    if isinstance(found, ConfigError):
        raise found
    published = is_published(found.address)
    if published and not (local or fork):
        raise ConfigError(f"the key of {found.address} is published, and chain {chain_id} is not a local one", "use a key of your own")
    if fork and not published:
        raise ConfigError(
            f"the key of {found.address} is not a test key, and this is a fork: what is signed here is valid on chain {chain_id}",
            "use wallet.test_account",
        )
    return found


def _variable(name: str) -> Secret:
    if not os.environ.get(name):
        raise ConfigError(f"wallet.key_env: the environment variable {name} is not set", f"export {name} before starting")
    return Secret(os.environ[name])


def _password(path: Path, password_env: str, ask: Ask | None) -> Secret:
    if password_env and os.environ.get(password_env):
        return Secret(os.environ[password_env])
    if ask is None:
        remedy = f"export {password_env} with its password" if password_env else "run in a terminal and type its password"
        raise ConfigError(f"wallet.keystore: {path} is locked and nobody can be asked for its password", remedy)
    return Secret(ask(f"Password of {path}: "))


def is_published(address: str) -> bool:
    """Whether the key of `address` is one of the test mnemonic's or of eth-tester's (the numbers from 1)."""
    return address in _published()


@cache
def _published() -> frozenset[str]:
    """Worked out once: each address takes milliseconds of elliptic curve."""
    mnemonic = (_test_key(i) for i in range(TEST_ACCOUNTS))
    small = (i.to_bytes(32, "big") for i in range(1, TEST_ACCOUNTS + 1))
    return frozenset(_account(key).address for keys in (mnemonic, small) for key in keys)


def _account(key: bytes) -> Key:
    from eth_account import Account

    return Key(Account.from_key(key))


def _test_key(index: int) -> bytes:
    """Private key of BIP-44 path m/44'/60'/0'/0/index; seed by BIP-39 (PBKDF2-HMAC-SHA512, salt "mnemonic", 2048 rounds)."""
    from eth_account.hdaccount import key_from_seed

    return bytes(key_from_seed(_test_seed(), f"{KEY_PATH}{index}"))


@cache
def _test_seed() -> bytes:
    return hashlib.pbkdf2_hmac("sha512", TEST_MNEMONIC.encode(), b"mnemonic", 2048)
