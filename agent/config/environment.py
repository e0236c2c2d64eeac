"""`.env` beside the config: variables that the environment lacks, such as the URLs of endpoints. It is a secret like a keystore."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from agent.store.private import require_private

NAME = ".env"
OURS = "TRIMTAB_"
"""What every variable that no config names begins with, such as TRIMTAB_KEYSTORE_PASSWORD."""


def take(folder: Path, wanted: Iterable[str]) -> None:
    """Sets the variables of `folder`/.env that are `wanted`, or begin with TRIMTAB_, and are not set yet: the environment wins.

    All else in the file is left alone. Raises ConfigError for a line that is no NAME=VALUE, and where others may read or write the
    file, or own it, although something is taken from it; nothing of its content is repeated.
    """
    file = folder / NAME
    try:
        with file.open(encoding="utf-8") as lines:
            mode, read = os.fstat(lines.fileno()).st_mode, dict(_lines(file, lines))
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({type(error).__name__})", "make it a text that you may read, or remove it") from None
    names = {*wanted}
    found = {name: value for name, value in read.items() if (name in names or name.startswith(OURS)) and name not in os.environ}
    if found and mode & 0o077:
        raise ConfigError(f"{file}: others can read or change it (mode {mode & 0o777:04o}), and it holds secrets", f"run: chmod 600 {file}")
    if found:
        require_private(file, NAME)
    os.environ.update(found)


def named(table: Any) -> Iterator[str]:
    """Every environment variable that a config names: the values of keys that end with "_env"."""
    if isinstance(table, dict):
        for key, value in table.items():
            if key.endswith("_env") and isinstance(value, str):
                yield value
            else:
                yield from named(value)
    elif isinstance(table, list):
        for inner in table:
            yield from named(inner)


def _lines(file: Path, lines: Any) -> Iterator[tuple[str, str]]:
    from dotenv.parser import parse_stream

    for binding in parse_stream(lines):
        if binding.error or (binding.key is not None and binding.value is None):
            raise ConfigError(f"{file}: line {binding.original.line} is not NAME=VALUE", "correct it, or put a # before it")
        if binding.key is not None and binding.value is not None:
            yield binding.key, binding.value
