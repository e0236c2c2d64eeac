"""Commands about keys: wallet create, import, change-password, address. No key and no password is ever an argument."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli.options import AsJson
from agent.cli.output import emit, note, say

DEFAULT_FILE = Path("wallet.json")
File = Annotated[Path | None, typer.Option("--keystore", help="The keystore file.", show_default="wallet.json, unless --keyring is given")]
Ring = Annotated[str | None, typer.Option("--keyring", help="SERVICE/NAME in the keyring of the operating system.")]
Env = Annotated[str | None, typer.Option("--password-env", help="Name of the environment variable that holds the password.")]
Descriptor = Annotated[int | None, typer.Option("--password-fd", help="Open file descriptor to read the password from.")]
group = typer.Typer(help="Creates and stores keys. Keys and passwords are typed hidden, never passed as arguments.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    for command in (create, address):
        group.command()(command)
    group.command("import")(take_over)
    group.command("change-password")(change_password)
    app.add_typer(group, name="wallet")


def create(
    keystore: File = None, keyring: Ring = None, password_env: Env = None, password_fd: Descriptor = None, as_json: AsJson = False
) -> None:
    """Creates a random key in a keystore file, in the keyring, or in both."""
    from agent import api

    made = api.create_wallet(_file(keystore, keyring), keyring, api.Password(password_env, password_fd), _ask())
    _made(made, as_json)


def take_over(
    keystore: File = None,
    keyring: Ring = None,
    index: Annotated[int, typer.Option("--index", help="Account index of a recovery phrase.")] = 0,
    password_env: Env = None,
    password_fd: Descriptor = None,
    as_json: AsJson = False,
) -> None:
    """Imports a private key or a recovery phrase, typed hidden or from standard input."""
    from agent import api

    made = api.import_wallet(_file(keystore, keyring), keyring, api.Password(password_env, password_fd), _ask(), index)
    _made(made, as_json)


def change_password(
    keystore: Annotated[Path, typer.Option("--keystore", help="The keystore file.")] = DEFAULT_FILE,
    password_env: Env = None,
    password_fd: Descriptor = None,
    new_password_env: Annotated[str | None, typer.Option("--new-password-env", help="The same, for the new password.")] = None,
    new_password_fd: Annotated[int | None, typer.Option("--new-password-fd", help="The same, for the new password.")] = None,
    as_json: AsJson = False,
) -> None:
    """Changes the password of a keystore file."""
    from agent import api

    old = api.Password(password_env, password_fd)
    new = api.Password(new_password_env, new_password_fd, "--new-password-env", "--new-password-fd")
    document = api.change_password(keystore, old, new, _ask())
    emit(document, as_json, lambda: say(f"{document['keystore']} of {document['address']} has a new password."))
    _warn(document)


def address(
    keystore: Annotated[Path | None, typer.Option("--keystore", help="The keystore file.", show_default="wallet.json")] = None,
    keyring: Ring = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The config file, in place of a key.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Unlock the key and compare its address; asks for the password.")] = False,
    password_env: Env = None,
    password_fd: Descriptor = None,
    as_json: AsJson = False,
) -> None:
    """Shows the address of a key."""
    from agent import api

    document = api.wallet_address(keystore, keyring, config, api.Password(password_env, password_fd), _ask(), verify)
    emit(document, as_json, lambda: say(document["address"]))


def _file(keystore: Path | None, keyring: str | None) -> Path | None:
    return DEFAULT_FILE if keystore is None and keyring is None else keystore


def _ask() -> Callable[[str], str] | None:
    """Who can be asked: nobody where standard input is no terminal."""
    return getpass.getpass if sys.stdin.isatty() else None


def _made(document: dict[str, Any], as_json: bool) -> None:
    def show() -> None:
        say(f"Address: {document['address']}")
        if document["keystore"]:
            say(f"Keystore: {document['keystore']}")
        if document["keyring"]:
            say(f"Keyring: {document['keyring']}")
        say("In the config, under [wallet]:")
        for line in document["config"]:
            say(f"  {line}")

    emit(document, as_json, show)
    _warn(document)


def _warn(document: dict[str, Any]) -> None:
    for warning in document["warnings"]:
        note(f"Note: {warning}.")
