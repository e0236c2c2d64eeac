"""The text of a config that may be kept: its values in one canonical form, without comments, and without anything that is secret."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from typing import Any

HIDDEN = "(secret)"
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_KEY = re.compile(r"(0x)?[0-9a-fA-F]{64}")
_PHRASE = re.compile(r"([A-Za-z]+\s+){11,}[A-Za-z]+")
_PLAIN_STORE = "sqlite:///"


def kept(values: Mapping[str, Any]) -> str:
    """TOML of these values. Whatever is, or looks like, a URL, a key or a recovery phrase is hidden, wherever it stands."""
    import tomlkit

    return tomlkit.dumps(_cleaned(values))


def changes(before: str, after: str) -> tuple[str, ...]:
    """Lines that were taken away ("- …") and added ("+ …") between two kept texts, each under its table."""
    lines = difflib.unified_diff(_placed(before), _placed(after), n=0, lineterm="")
    return tuple(f"{line[0]} {line[1:]}" for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))


def is_secret(value: str) -> bool:
    """Whether a text looks like a URL, a key or a recovery phrase; the plain file of a store is none."""
    if value.startswith(_PLAIN_STORE):
        value = value.removeprefix(_PLAIN_STORE)
    return any(pattern.search(value) for pattern in (_URL, _KEY, _PHRASE))


def _cleaned(value: Any) -> Any:
    match value:
        case dict():
            return {HIDDEN if is_secret(name) else name: _cleaned(inner) for name, inner in value.items()}
        case list():
            return [_cleaned(inner) for inner in value]
        case str() if is_secret(value):
            return HIDDEN
        case _:
            return value


def _placed(text: str) -> list[str]:
    """Each value with the names of all tables that it stands in, so that a line tells where it belongs."""
    import tomlkit

    found: list[str] = []

    def walk(value: Any, place: str) -> None:
        match value:
            case dict():
                for name, inner in value.items():
                    walk(inner, f"{place}.{name}" if place else name)
            case list() if any(isinstance(inner, dict) for inner in value):
                for number, inner in enumerate(value):
                    walk(inner, f"{place}.{inner.get('symbol', number) if isinstance(inner, dict) else number}")
            case _:
                found.append(f"{place} = {tomlkit.item(value).as_string()}")

    walk(tomllib.loads(text), "")
    return found
