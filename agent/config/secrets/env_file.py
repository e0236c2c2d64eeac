"""Variables of a config: of the environment, and of `.env` beside the config, a secret file that
gives those which the environment lacks, such as endpoint URLs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from agent.config.variables import Variables
from agent.errors import ConfigError
from agent.foreign_text import failure_words
from agent.key_variables import holds_key, process_environment, reads_no_keys
from agent.store.files.locks import require_trusted_writers

ENV_FILE = ".env"
ENV_PREFIX = "TRIMTAB_"
"""Prefix of variables that are accepted without being named in the config, such as
TRIMTAB_KEYSTORE_PASSWORD.
"""


def read_variables(
    folder: Path | None, names: Iterable[str], key_names: Iterable[str] = ()
) -> Variables:
    """Return the variables of a config: those of the process's environment, then of `folder`/.env;
    without a folder no file is read.

    Only variables in `names` or with prefix TRIMTAB_ are returned; in a process that needs no key
    neither those in `key_names` nor passwords. Raises ConfigError for a line that is not
    NAME=VALUE, or if the file gives a variable and another user owns it, or can read or write it.
    Error messages do not repeat the content.
    """
    accepted_names = {*names}
    secret_names = tuple(key_names) if reads_no_keys() else None

    def is_accepted(name: str) -> bool:
        is_named = name in accepted_names or name.startswith(ENV_PREFIX)
        return is_named and not (secret_names is not None and holds_key(name, secret_names))

    environment = process_environment()
    variables = Variables({name: value for name, value in environment.items() if is_accepted(name)})
    if folder is not None:
        variables |= _file_variables(
            folder / ENV_FILE, lambda name: is_accepted(name) and name not in environment
        )
    return variables


def _file_variables(env_file: Path, is_wanted: Callable[[str], bool]) -> dict[str, str]:
    """Return the wanted variables of the file; none without it."""
    try:
        with env_file.open(encoding="utf-8") as stream:
            file_mode = os.fstat(stream.fileno()).st_mode
            value_by_name = dict(_parse_lines(env_file, stream))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{env_file}: cannot be read: {failure_words(error)}",
            "make it a readable text file, or remove it",
        ) from None
    wanted_variables = {name: value for name, value in value_by_name.items() if is_wanted(name)}
    if wanted_variables and file_mode & 0o077:
        raise ConfigError(
            f"{env_file}: contains secrets, but others can read or change it (mode {file_mode & 0o777:04o})",
            f"run: chmod 600 {env_file}",
        )
    if wanted_variables:
        require_trusted_writers(env_file, ENV_FILE)
    return wanted_variables


def referenced_env_variables(table: Any) -> Iterator[str]:
    """Yield the environment variables that the config names: the values of keys ending in
    "_env".
    """
    if isinstance(table, dict):
        for key, toml_value in table.items():
            if key.endswith("_env") and isinstance(toml_value, str):
                yield toml_value
            else:
                yield from referenced_env_variables(toml_value)
    elif isinstance(table, list):
        for entry in table:
            yield from referenced_env_variables(entry)


def _parse_lines(env_file: Path, lines: Any) -> Iterator[tuple[str, str]]:
    from dotenv.parser import parse_stream

    for binding in parse_stream(lines):
        if binding.error or (binding.key is not None and binding.value is None):
            raise ConfigError(
                f"{env_file}: line {binding.original.line} is not NAME=VALUE",
                "correct it, or put a # before it",
            )
        if binding.key is not None and binding.value is not None:
            yield binding.key, binding.value
