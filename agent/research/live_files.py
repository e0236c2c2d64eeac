"""Functions of research in files beside a config, as its tables name them (docs/signals.md)."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.config.tables.fields import ConfigTable
from agent.config.tables.messages import describe_errors
from agent.config.tables.weights import SignalTable
from agent.errors import ConfigError
from agent.foreign_text import failure_words

SIGNAL_TIMEOUT = "10s"


@dataclass(frozen=True, slots=True)
class SignalSource:
    """The name of a signal, and its table in a config as TOML."""

    name: str
    block: str


def signal_source(function: Callable[..., Any], path: str | Path, argument: str) -> SignalSource:
    """Return the signal that a function of a file is. Raises ConfigError, which names the `argument`,
    for a file that cannot be read or does not define the function.
    """
    file_path = Path(path)
    name = getattr(function, "__name__", "")
    try:
        source = file_path.read_bytes()
        statements = ast.parse(source).body
    except OSError as error:
        raise ConfigError(
            f"{argument}: {file_path.name} cannot be read: {failure_words(error)}",
            "put the function into a file such as trend.py",
        ) from None
    except (SyntaxError, ValueError) as error:
        raise ConfigError(
            f"{argument}: {file_path.name} cannot be read as Python: {error}",
            "correct it; the file has the function and what it imports",
        ) from None
    if name not in [
        statement.name for statement in statements if isinstance(statement, ast.FunctionDef)
    ]:
        raise ConfigError(
            f"{argument}: {file_path.name} has no function {name or repr(function)}",
            "put it there, with def and what it imports",
        )
    keys = {
        "timeout": SIGNAL_TIMEOUT,
        "file": f"{file_path.name}:{name}",
        "sha256": hashlib.sha256(source).hexdigest(),
    }
    return SignalSource(name, f"[signals.{name}]\n{checked_lines(SignalTable, keys)}")


def checked_lines(table: type[ConfigTable], text_by_key: Mapping[str, str]) -> str:
    """Return the keys of a table, a line for each. Raises ConfigError for what a config refuses."""
    try:
        table.model_validate(text_by_key)
    except ValidationError as error:
        mistakes = "; ".join(describe_errors(error, dict(text_by_key), table))
        raise ConfigError(f"config: {mistakes}", "correct it, see docs/signals.md") from None
    return "".join(f'{key} = "{text}"\n' for key, text in text_by_key.items())


def inline_table(text_by_key: Mapping[str, str]) -> str:
    """Return a table in one line of TOML."""
    keys = ", ".join(f'{key} = "{text}"' for key, text in text_by_key.items())
    return f"{{ {keys} }}"
