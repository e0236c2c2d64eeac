"""Text of a config for the store: canonical values without comments and secrets."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from agent.foreign_text import read_toml

REDACTED = "(secret)"
_URL = re.compile(r"[a-z][a-z0-9+.-]{0,30}://", re.IGNORECASE)
_PRIVATE_KEY = re.compile(r"(0x)?[0-9a-fA-F]{64}")
_RECOVERY_PHRASE = re.compile(r"(?<![A-Za-z])(?:[A-Za-z]+\s+){11}[A-Za-z]")
SQLITE_PREFIX = "sqlite:///"
_FILE_HASH_KEY = "sha256"
_MARK_DIGITS = 4
"""Too few hex digits to test a guess of the secret, enough to tell an edited one."""


def redacted_text(toml_values: Mapping[str, Any]) -> str:
    """Return canonical TOML of the values with URLs, keys and recovery phrases redacted: each is
    replaced by a mark that differs from that of most other secrets.
    """
    import tomlkit

    return tomlkit.dumps(_redacted(toml_values))


def config_diff(earlier_text: str, later_text: str) -> tuple[str, ...]:
    """Return the removed ("- …") and added ("+ …") values between two stored texts, each with its
    path.
    """
    diff_lines = difflib.unified_diff(
        _value_lines(earlier_text), _value_lines(later_text), n=0, lineterm=""
    )
    return tuple(
        f"{line[0]} {line[1:]}"
        for line in diff_lines
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    )


def is_secret(text: str) -> bool:
    """Return whether a text looks like a URL, key or recovery phrase. A plain SQLite path does not
    count.
    """
    if text.startswith(SQLITE_PREFIX):
        text = text.removeprefix(SQLITE_PREFIX)
    return any(pattern.search(text) for pattern in (_URL, _PRIVATE_KEY, _RECOVERY_PHRASE))


def is_secret_value(key: str, text: str) -> bool:
    """Return whether the value of a key looks like a secret. The hash of a file is none."""
    return key != _FILE_HASH_KEY and is_secret(text)


def _redacted(toml_value: Any, key: str = "") -> Any:
    match toml_value:
        case dict():
            return {
                _mark(inner_key) if is_secret(inner_key) else inner_key: _redacted(
                    inner_value, inner_key
                )
                for inner_key, inner_value in toml_value.items()
            }
        case list():
            return [_redacted(inner_value) for inner_value in toml_value]
        case str() if is_secret_value(key, toml_value):
            return _mark(toml_value)
        case _:
            return toml_value


def _mark(secret: str) -> str:
    return f"(secret {hashlib.sha256(secret.encode()).hexdigest()[:_MARK_DIGITS]})"


def _value_lines(toml_text: str) -> list[str]:
    """Return one line for each value, with its path."""
    import tomlkit

    return [
        f"{path} = {tomlkit.item(value).as_string()}"
        for path, value in leaf_values(read_toml(toml_text))
    ]


def leaf_values(toml_value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value in tables and lists of tables with its path, as `trimtab edit --set` takes
    it: a table in a list has its symbol, its name or its number from 0.
    """
    match toml_value:
        case dict():
            for name, inner_value in toml_value.items():
                yield from leaf_values(inner_value, f"{path}.{name}" if path else name)
        case list() if any(isinstance(inner_value, dict) for inner_value in toml_value):
            for table_index, inner_value in enumerate(toml_value):
                inner_table = inner_value if isinstance(inner_value, dict) else {}
                yield from leaf_values(
                    inner_value,
                    f"{path}.{inner_table.get('symbol', inner_table.get('name', table_index))}",
                )
        case _:
            yield path, toml_value
