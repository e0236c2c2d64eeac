"""`.env` beside the config: a secret file that sets missing variables, such as endpoint URLs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from agent.key_variables import holds_key, reads_no_keys
from agent.store.files.locks import require_trusted_writers

ENV_FILE = ".env"
ENV_PREFIX = "TRIMTAB_"
"""Prefix of variables that are accepted without being named in the config, such as
TRIMTAB_KEYSTORE_PASSWORD.
"""


def load_env_file(
    folder: Path, variables: Iterable[str], key_variables: Iterable[str] = ()
) -> None:
    """Load variables from `folder`/.env; existing variables take precedence.

    Only variables in `variables` or with prefix TRIMTAB_ are set; in a process that needs no key
    neither those in `key_variables` nor passwords. Raises ConfigError for a line that
    is not NAME=VALUE, or if the file sets a variable and another user owns it, or can read or write
    it. Error messages do not repeat the content.
    """
    env_file = folder / ENV_FILE
    try:
        with env_file.open(encoding="utf-8") as stream:
            file_mode, value_by_name = (
                os.fstat(stream.fileno()).st_mode,
                dict(_parse_lines(env_file, stream)),
            )
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{env_file}: cannot be read ({type(error).__name__})",
            "make it a readable text file, or remove it",
        ) from None
    accepted_names = {*variables}
    unset_variables = {
        name: value
        for name, value in value_by_name.items()
        if (name in accepted_names or name.startswith(ENV_PREFIX)) and name not in os.environ
    }
    if reads_no_keys():
        key_names = tuple(key_variables)
        unset_variables = {
            name: value for name, value in unset_variables.items() if not holds_key(name, key_names)
        }
    if unset_variables and file_mode & 0o077:
        raise ConfigError(
            f"{env_file}: contains secrets, but others can read or change it (mode {file_mode & 0o777:04o})",
            f"run: chmod 600 {env_file}",
        )
    if unset_variables:
        require_trusted_writers(env_file, ENV_FILE)
    os.environ.update(unset_variables)


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
