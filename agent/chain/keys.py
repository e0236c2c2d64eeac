"""Loads the signing key from where the config says, and keeps it out of everything that could be read later (T18)."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from eth_account import Account
from eth_account.hdaccount import key_from_seed
from eth_account.signers.local import LocalAccount
from eth_keyfile.keyfile import decode_keyfile_json

from agent.errors import ConfigError, OperatorNeeded
from agent.model import SignedTx

LOCAL_CHAIN_IDS = (31337, 131277322940537)
"""anvil's and eth-tester's."""
TEST_MNEMONIC = "test test test test test test test test test test test junk"
"""The published mnemonic of anvil and hardhat: whoever sends money to its accounts loses it within seconds."""
TEST_ACCOUNTS = 20
MAX_KEYSTORE_BYTES = 64 * 1024


class Secret:
    """Text that shows itself to nobody who does not ask for it by name; it cannot be pickled or copied."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """The text itself."""
        return self.__text

    def __repr__(self) -> str:
        return "Secret(hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled or copied")


class Key:
    """A private key that can sign, and shows nothing but its address; it cannot be pickled or copied."""

    __slots__ = ("__account", "address")

    def __init__(self, account: LocalAccount) -> None:
        self.__account = account
        self.address: str = account.address

    def sign(self, fields: Mapping[str, Any]) -> SignedTx:
        """Signed bytes of the transaction and their hash. Raises OperatorNeeded when the fields cannot be signed."""
        signed = self._try(fields)
        if isinstance(signed, str):
            raise OperatorNeeded(f"the transaction cannot be signed: {signed}")
        return signed

    def _try(self, fields: Mapping[str, Any]) -> SignedTx | str:
        """An error is returned, not raised: its traceback would hold the library's frames, and those hold the key."""
        try:
            signed = self.__account.sign_transaction(dict(fields))  # type: ignore[no-untyped-call]  # eth-account 0.11 has no types here
        except Exception as error:  # whatever it is, it must not leave this frame
            return type(error).__name__
        return SignedTx(bytes(signed.rawTransaction), "0x" + bytes(signed.hash).hex())

    def __repr__(self) -> str:
        return f"Key({self.address})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key is not pickled or copied")


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


KeySource = KeystoreFile | KeyEnv | KeyPrompt | TestAccount

Ask = Callable[[str], str]
"""Shows a prompt and returns what was typed, unseen (getpass.getpass)."""


def load_key(source: KeySource, chain_id: int, *, ask: Ask | None, fork: bool = False) -> Key:
    """The key that `source` names, checked against the chain it is for.

    `ask` is None where nobody can be asked. With `fork` (a copy of a live chain, under its chain id) only published test
    keys are accepted; elsewhere they are accepted on local chain ids only.
    Raises ConfigError naming the field and the remedy; no message, traceback or local variable of it holds the key.
    """
    local = chain_id in LOCAL_CHAIN_IDS
    match source:
        case TestAccount(index):
            if not (local or fork):
                raise ConfigError(
                    f"wallet.test_account: its key is published and chain {chain_id} is not a local one",
                    "use wallet.keystore or wallet.key_env",
                )
            if not 0 <= index < TEST_ACCOUNTS:
                raise ConfigError(f"wallet.test_account: {index} is not between 0 and {TEST_ACCOUNTS - 1}")
            return Key(Account.from_key(_test_key(index)))
        case KeystoreFile(path, password_env):
            found = _open_keystore(_read_private(path), _password(path, password_env, ask), path)
        case KeyEnv(name):
            found = _parse(_variable(name), f"wallet.key_env {name}")
        case KeyPrompt():
            if ask is None:
                raise ConfigError("the key must be typed and nobody can be asked", "run in a terminal, or set wallet.keystore")
            found = _parse(Secret(ask("Private key: ")), "the typed key")
    if isinstance(found, ConfigError):
        raise found
    published = _is_published(found.address)
    if published and not (local or fork):
        raise ConfigError(f"the key of {found.address} is published, and chain {chain_id} is not a local one", "use a key of your own")
    if fork and not published:
        raise ConfigError(
            f"the key of {found.address} is not a test key, and this is a fork: what is signed here is valid on chain {chain_id}",
            "use wallet.test_account",
        )
    return found


def disable_core_dumps() -> None:
    """Forbids core files of this process and its children: they would hold the key."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


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


def _read_private(path: Path) -> bytes:
    """The file's bytes, if only its owner may read it. What is open is what is checked."""
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise ConfigError(f"wallet.keystore: {path} is not a file", "name the keystore file itself")
            if state.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(
                    f"wallet.keystore: others than its owner may use {path} (mode {stat.S_IMODE(state.st_mode):04o})",
                    f"run: chmod 600 {path}",
                )
            return file.read(MAX_KEYSTORE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"wallet.keystore: {path} cannot be read ({error.strerror})", "check the path") from None


def _open_keystore(raw: bytes, password: Secret, path: Path) -> Key | ConfigError:
    """The key inside; an error is returned, not raised, so that the frames that saw the key are gone when it is shown."""
    try:
        sheet = json.loads(raw) if len(raw) <= MAX_KEYSTORE_BYTES else None
    except ValueError:
        sheet = None
    if not isinstance(sheet, dict) or sheet.get("version") != 3:
        return ConfigError(f"wallet.keystore: {path} is not a version 3 keystore", "write one with eth-account, geth or foundry")
    try:
        return Key(Account.from_key(decode_keyfile_json(sheet, password.reveal().encode())))
    except ValueError as error:
        if "MAC mismatch" in str(error):
            return ConfigError(f"wallet.keystore: wrong password for {path}", "type the password that it was written with")
    except Exception:  # noqa: S110 the library raises whatever its JSON lacks; it is told below, without its frames
        pass
    return ConfigError(f"wallet.keystore: {path} is damaged", "restore it from its backup")


def _parse(text: Secret, field: str) -> Key | ConfigError:
    """The key of 64 hex digits with or without 0x; errors are returned, as in `_open_keystore`."""
    try:
        raw = bytes.fromhex(text.reveal().strip().removeprefix("0x"))
        if len(raw) == 32:
            return Key(Account.from_key(raw))
    except Exception:  # noqa: S110 told below, without the value and without the frames that hold it
        pass
    return ConfigError(f"{field} is not a private key", "it has 64 hex digits")


def _is_published(address: str) -> bool:
    """Whether the key of `address` is one of the test mnemonic's or of eth-tester's (the numbers from 1)."""
    published = (_test_key(i) for i in range(TEST_ACCOUNTS))
    small = (i.to_bytes(32, "big") for i in range(1, TEST_ACCOUNTS + 1))
    return any(Account.from_key(key).address == address for keys in (published, small) for key in keys)


def _test_key(index: int) -> bytes:
    """Private key of BIP-44 path m/44'/60'/0'/0/index; seed by BIP-39 (PBKDF2-HMAC-SHA512, salt "mnemonic", 2048 rounds)."""
    return bytes(key_from_seed(_test_seed(), f"m/44'/60'/0'/0/{index}"))


@cache
def _test_seed() -> bytes:
    return hashlib.pbkdf2_hmac("sha512", TEST_MNEMONIC.encode(), b"mnemonic", 2048)
