"""Text of a config for the store: canonical values without comments and secrets."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "(secret)"
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_KEY = re.compile(r"(0x)?[0-9a-fA-F]{64}")
_PHRASE = re.compile(r"([A-Za-z]+\s+){11,}[A-Za-z]+")
SQLITE = "sqlite:///"


def redacted_text(values: Mapping[str, Any]) -> str:
    """Return canonical TOML of the values with URLs, keys and recovery phrases redacted."""
    import tomlkit

    return tomlkit.dumps(_redacted(values))


def config_diff(before: str, after: str) -> tuple[str, ...]:
    """Return the removed ("- …") and added ("+ …") values between two stored texts, each with its
    path.
    """
    lines = difflib.unified_diff(_value_lines(before), _value_lines(after), n=0, lineterm="")
    return tuple(
        f"{line[0]} {line[1:]}"
        for line in lines
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    )


def is_secret(value: str) -> bool:
    """Return whether a text looks like a URL, key or recovery phrase. A plain SQLite path does not
    count.
    """
    if value.startswith(SQLITE):
        value = value.removeprefix(SQLITE)
    return any(pattern.search(value) for pattern in (_URL, _KEY, _PHRASE))


def _redacted(value: Any) -> Any:
    match value:
        case dict():
            return {
                HIDDEN if is_secret(name) else name: _redacted(inner)
                for name, inner in value.items()
            }
        case list():
            return [_redacted(inner) for inner in value]
        case str() if is_secret(value):
            return HIDDEN
        case _:
            return value


def _value_lines(text: str) -> list[str]:
    """Return one line for each value, with its path."""
    import tomlkit

    return [
        f"{path} = {tomlkit.item(value).as_string()}"
        for path, value in leaf_values(tomllib.loads(text))
    ]


def leaf_values(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value in tables and lists of tables with its path, as `trimtab edit --set` takes
    it: a table in a list has its symbol, its name or its number from 0.
    """
    match value:
        case dict():
            for name, inner in value.items():
                yield from leaf_values(inner, f"{path}.{name}" if path else name)
        case list() if any(isinstance(inner, dict) for inner in value):
            for number, inner in enumerate(value):
                tags = inner if isinstance(inner, dict) else {}
                yield from leaf_values(
                    inner, f"{path}.{tags.get('symbol', tags.get('name', number))}"
                )
        case _:
            yield path, value
