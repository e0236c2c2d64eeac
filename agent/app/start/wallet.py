"""Wallet keys: create and import them, change the password, show the address."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from eth_account import Account

from agent import wiring
from agent.config.load import load_config
from agent.config.secrets.key_sources import key_source
from agent.config.tables.fields import parse_address, parse_keyring, parse_variable
from agent.errors import ConfigError, ErrorCode
from agent.foreign_text import read_json
from agent.key_variables import process_environment
from agent.signing import keys
from agent.signing.secret import PrivateKey, Secret, disable_core_dumps, parse_private_key

if TYPE_CHECKING:
    from agent.app.documents.owner import KeyAddressDocument, NewKeyDocument, NewPasswordDocument

Ask = Callable[[str], str]
"""Prompt that returns the hidden input."""
MAX_INPUT_LENGTH = 4096
LAST_STANDARD_STREAM = 2
MAX_ACCOUNTS = 2**31


@dataclass(frozen=True, slots=True)
class PasswordSource:
    """Source of a password: the environment variable `env`, the open file descriptor `fd`, or a
    prompt. `env_option` and `fd_option` are the options that errors name. `variables` are those of
    a config; None for the environment, in which the command line names one.
    """

    env: str | None = None
    fd: int | None = None
    env_option: str = "--password-env"
    fd_option: str = "--password-fd"
    variables: Mapping[str, str] | None = field(default=None, repr=False)

    @property
    def is_unattended(self) -> bool:
        """True if the password comes from a variable or a descriptor, not from a prompt."""
        return self.env is not None or self.fd is not None

    @property
    def given_option(self) -> str:
        """The option that names the variable or the descriptor."""
        return self.env_option if self.fd is None else self.fd_option


def create_wallet(
    keystore_path: Path | None,
    keyring: str | None,
    password_source: PasswordSource,
    ask: Ask | None,
) -> NewKeyDocument:
    """Create a random key in an encrypted keystore file, in the keyring, or both; the key itself is
    never shown. Raises ConfigError.
    """
    disable_core_dumps()
    keyring_entry = _free_keyring_entry(keystore_path, keyring, password_source)
    password = None if keystore_path is None else new_password(password_source, ask)
    return _store_key(PrivateKey(Account.create()), keystore_path, keyring_entry, password)


def import_wallet(
    keystore_path: Path | None,
    keyring: str | None,
    password_source: PasswordSource,
    ask: Ask | None,
    account_index: int = 0,
) -> NewKeyDocument:
    """Import a private key (64 hex digits), or account `account_index` of a recovery phrase: typed without
    echo, or read from standard input if there is no terminal. The key is stored as by
    `create_wallet`. Raises ConfigError.
    """
    disable_core_dumps()
    keyring_entry = _free_keyring_entry(keystore_path, keyring, password_source)
    if not 0 <= account_index < MAX_ACCOUNTS:
        raise ConfigError(
            f"--index: {account_index} is not the number of an account", "the first one is 0"
        )
    # raise errors that need no prompt before the first prompt
    asks_no_password = password_source.is_unattended or ask is None
    password = (
        new_password(password_source, ask)
        if keystore_path is not None and asks_no_password
        else None
    )
    if ask is None:
        key_text = _read_standard_input()
        key_origin = "standard input"
    else:
        key_text = Secret(ask("Private key or recovery phrase: "))
        key_origin = "the typed key"
    private_key = parse_private_key(key_text, key_origin, account_index)
    if isinstance(private_key, ConfigError):
        raise private_key
    if keystore_path is not None and password is None:
        password = new_password(password_source, ask)
    return _store_key(private_key, keystore_path, keyring_entry, password)


def change_password(
    keystore_path: Path, old_source: PasswordSource, new_source: PasswordSource, ask: Ask | None
) -> NewPasswordDocument:
    """Encrypt a keystore file with another password. On ConfigError the file is unchanged."""
    disable_core_dumps()
    private_key = keys.change_password(
        keystore_path,
        _existing_password(keystore_path, old_source, ask),
        new_password(new_source, ask),
    )
    return {
        "address": private_key.address,
        "keystore": str(keystore_path),
        "warnings": [f"copies and backups of {keystore_path} still open with the old password"],
    }


def wallet_address(
    keystore_file: Path | None,
    keyring: str | None,
    config_path: Path | None,
    password_source: PasswordSource,
    ask: Ask | None,
    verify: bool,
) -> KeyAddressDocument:
    """Return the key's address, as stated by the file or the config; with `verify`, or from a
    keyring, computed from the key itself. Raises ConfigError.
    """
    disable_core_dumps()
    if (
        sum(address_source is not None for address_source in (keystore_file, keyring, config_path))
        > 1
    ):
        raise ConfigError(
            "--keystore, --keyring and --config exclude each other", "give one of them"
        )
    if keyring is not None or config_path is not None:
        _require_no_password(password_source)
    if keyring is not None:
        entry_text = parse_keyring(keyring, "--keyring")
        return {
            "address": keys.load_from_keyring(_split_keyring_entry(entry_text)).address,
            "keyring": entry_text,
            "verified": True,
        }
    if config_path is not None:
        return _config_address(config_path, ask, verify)
    keystore_path = keystore_file or Path("wallet.json")
    keystore_bytes = keys.read_private_file(keystore_path)
    if not verify:
        return {
            "address": stated_address(keystore_bytes, keystore_path),
            "keystore": str(keystore_path),
            "verified": False,
        }
    private_key = keys.open_keystore(
        keystore_bytes, _existing_password(keystore_path, password_source, ask), keystore_path
    )
    if isinstance(private_key, ConfigError):
        raise private_key
    _require_stated_address(keystore_bytes, keystore_path, private_key.address)
    return {"address": private_key.address, "keystore": str(keystore_path), "verified": True}


def _config_address(config_path: Path, ask: Ask | None, verify: bool) -> KeyAddressDocument:
    loaded_config = load_config(config_path)
    configured_address = loaded_config.config.wallet.address
    chain = loaded_config.config.chain
    if verify and loaded_config.config.wallet.signer_url_env is not None:
        wiring.require_signer_has_key(loaded_config)
    elif verify:
        key_address = keys.load_key(
            key_source(loaded_config), chain.chain_id, ask=ask, is_fork=chain.fork
        ).address
        if key_address != configured_address:
            raise ConfigError(
                f"wallet.address {configured_address} is not the address of the key, {key_address}",
                "correct one of the two",
            )
    return {"address": configured_address, "config": str(config_path), "verified": verify}


def stated_address(keystore_bytes: bytes, keystore_path: Path) -> str:
    """Return the address stored in a keystore in clear text. Raises ConfigError without one."""
    try:
        address = read_json(keystore_bytes.decode())["address"]
        return parse_address("0x" + str(address).lower().removeprefix("0x"))
    except (ValueError, KeyError, TypeError, ConfigError):
        raise ConfigError(
            f"{keystore_path} does not state its address",
            "add --verify and its password",
            code=ErrorCode.UNKNOWN,
        ) from None


def _require_stated_address(keystore_bytes: bytes, keystore_path: Path, address: str) -> None:
    """Raise ConfigError if a keystore states another address than that of its key. It may state
    none.
    """
    try:
        stated = stated_address(keystore_bytes, keystore_path)
    except ConfigError:
        return
    if stated != address:
        raise ConfigError(
            f"{keystore_path} states the address {stated}, but its key has {address}",
            f"fund only {address}, and find out who changed the file",
        )


def _read_standard_input() -> Secret:
    """Return the first line of standard input."""
    try:
        return Secret(sys.stdin.readline(MAX_INPUT_LENGTH))
    except (OSError, UnicodeDecodeError, AttributeError):
        pass
    raise ConfigError(
        "standard input cannot be read",
        "type the key in a terminal, or pipe it in as one line of text",
    )


def _split_keyring_entry(entry_text: str) -> tuple[str, str]:
    service, _, user = entry_text.partition("/")
    return service, user


def _require_no_password(password_source: PasswordSource) -> None:
    if password_source.is_unattended:
        raise ConfigError(
            f"{password_source.given_option}: only the file that --keystore names has a password here",
            "use --keystore, or omit the password",
        )


def _free_keyring_entry(
    keystore_path: Path | None, keyring: str | None, password_source: PasswordSource
) -> tuple[str, str] | None:
    """Return the keyring entry, if any. Raises ConfigError, before any prompt, if the destination
    holds a key already.
    """
    if keystore_path is None:
        _require_no_password(password_source)
    keyring_entry = (
        None if keyring is None else _split_keyring_entry(parse_keyring(keyring, "--keyring"))
    )
    if keystore_path is not None:
        keys.require_free_path(keystore_path)
    if keyring_entry is not None:
        keys.require_free_keyring_entry(keyring_entry)
    return keyring_entry


def _store_key(
    private_key: PrivateKey,
    keystore_path: Path | None,
    keyring_entry: tuple[str, str] | None,
    password: Secret | None,
) -> NewKeyDocument:
    warnings = []
    if keystore_path is not None and password is not None:
        keys.write_keystore(keystore_path, private_key, password)
        warnings.append(
            f"anyone with {keystore_path} and its password controls the funds; without them the funds are"
            " lost: keep a copy of each, apart"
        )
    if keyring_entry is not None:
        try:
            keys.save_to_keyring(keyring_entry, private_key)
        except ConfigError as error:
            keystore_note = (
                "" if keystore_path is None else f"; the keystore {keystore_path} is written"
            )
            raise ConfigError(error.message + keystore_note, error.remedy) from None
        if keystore_path is None:
            warnings.append(
                "the key exists only in this keyring: add --keystore FILE to write a copy"
            )
    if keys.is_published(private_key.address):
        warnings.append(
            "this key is published: funds sent to it on a live chain are lost, and trimtab refuses"
            " it there"
        )
    return {
        "address": private_key.address,
        "keystore": None if keystore_path is None else str(keystore_path),
        "keyring": None if keyring_entry is None else "/".join(keyring_entry),
        "warnings": warnings,
        "config": [
            f'address = "{private_key.address}"',
            f'keyring = "{"/".join(keyring_entry)}"'
            if keyring_entry is not None
            else f"keystore = {json.dumps(str(keystore_path))}",
        ],
    }


def _existing_password(
    keystore_path: Path, password_source: PasswordSource, ask: Ask | None
) -> Secret:
    password = _password_of_source(password_source)
    if password is not None:
        return password
    if ask is None:
        raise ConfigError(
            f"{keystore_path} needs its password, and there is no terminal to ask for it",
            f"{password_source.env_option} NAME, or run in a terminal",
        )
    return Secret(ask(f"Password of {keystore_path}: "))


def new_password(password_source: PasswordSource, ask: Ask | None) -> Secret:
    """Return a password for encryption, typed twice or from its source. Raises ConfigError for a
    weak one.
    """
    password = _password_of_source(password_source)
    if password is not None:
        keys.require_strong_password(password)
        return password
    if ask is None:
        remedy = (
            f"{password_source.env_option} NAME with the name of an environment variable, or run in a"
            " terminal"
        )
        raise ConfigError("a password is needed, and there is no terminal to ask for it", remedy)
    password = Secret(ask("New password: "))
    keys.require_strong_password(password)  # before it is typed again
    if Secret(ask("Again: ")).reveal() != password.reveal():
        raise ConfigError(
            "the two passwords differ; nothing was written", "type the same one twice"
        )
    return password


def _password_of_source(password_source: PasswordSource) -> Secret | None:
    if password_source.env is not None and password_source.fd is not None:
        raise ConfigError(
            f"{password_source.env_option} and {password_source.fd_option} are both given",
            "give one of them",
        )
    if password_source.env is not None:
        variable_name = parse_variable(password_source.env, password_source.env_option)
        variables = process_environment()
        if password_source.variables is not None:
            variables = password_source.variables
        if variable_name not in variables:
            raise ConfigError(
                f"{password_source.env_option}: the environment variable {variable_name} is not set",
                f"export {variable_name} before starting",
            )
        return Secret(variables[variable_name])
    return (
        None
        if password_source.fd is None
        else _password_from_descriptor(password_source.fd, password_source.fd_option)
    )


def _password_from_descriptor(descriptor: int, option: str) -> Secret:
    """Return the first line of an open descriptor, without its line end."""
    if descriptor <= LAST_STANDARD_STREAM:
        raise ConfigError(
            f"{option}: {descriptor} is a standard stream",
            f"open another, such as {option} 3 with 3< in the shell",
        )
    try:
        with os.fdopen(os.dup(descriptor), "rb") as password_stream:
            return Secret(
                password_stream.readline(MAX_INPUT_LENGTH)
                .removesuffix(b"\n")
                .removesuffix(b"\r")
                .decode()
            )
    except OSError as error:
        raise ConfigError(
            f"{option}: descriptor {descriptor} cannot be read ({error.strerror})",
            f"open it: {option} 3 with 3< in the shell",
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(
            f"{option}: descriptor {descriptor} holds no text", "write the password as UTF-8"
        ) from None
