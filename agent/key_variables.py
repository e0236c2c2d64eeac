"""Processes that need no key: started as programs of their own, they and their children have neither
a key nor the password of one in their environment.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.foreign_text import read_toml

NO_KEYS_MARK = "TRIMTAB_NO_KEYS"
"""Variable that marks such a process; its children inherit it."""
_PASSWORD_VARIABLE = re.compile("TRIMTAB_[A-Z0-9_]*PASSWORD")


def process_environment() -> Mapping[str, str]:
    """Return the environment of this process. Only what begins a command or loads a config reads it;
    a config's variables are values of its tables.
    """
    return os.environ


def reads_no_keys() -> bool:
    """Return whether this process may not read a key from its environment or `.env`."""
    return NO_KEYS_MARK in os.environ


def holds_key(variable: str, key_variables: Sequence[str]) -> bool:
    """Return whether `variable` holds a key or its password; `key_variables` are those that
    the config names for keys.
    """
    return variable in key_variables or _PASSWORD_VARIABLE.fullmatch(variable) is not None


def named_key_variables(
    config_part: Any, endings: tuple[str, ...] = ("key_env", "signer_url_env")
) -> Iterator[str]:
    """Yield the variables that a config names for keys: the texts of its keys with these endings."""
    if isinstance(config_part, dict):
        for key, setting in config_part.items():
            if key.endswith(endings) and isinstance(setting, str):
                yield setting
            else:
                yield from named_key_variables(setting, endings)
    elif isinstance(config_part, list):
        for list_entry in config_part:
            yield from named_key_variables(list_entry, endings)


def drop_key_variables(config_paths: Sequence[Path]) -> None:
    """Mark this process, so that it reads no keys. If its environment holds a key of these configs or
    a password, start it anew without them: the system shows the first environment of a process for
    as long as it runs. Does nothing if another Python program calls the command: its
    arguments, and its environment, are not the command's.
    """
    arguments = sys.argv[1:]
    if not arguments or sys.orig_argv[-len(arguments) :] != arguments:
        return
    key_variables: list[str] = []
    for config_path in config_paths:
        with suppress(OSError, ValueError):  # reported when it is loaded
            key_variables += named_key_variables(read_toml(config_path.read_text(encoding="utf-8")))
    environment = {
        name: value for name, value in os.environ.items() if not holds_key(name, key_variables)
    }
    if len(environment) < len(os.environ):
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, {**environment, NO_KEYS_MARK: "1"})  # noqa: S606  this program
    os.environ[NO_KEYS_MARK] = "1"
