"""Changes one order's levels in trimtab.toml and leaves everything else of the file as its owner wrote it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from agent.config.fields import OFF
from agent.config.load import parse_config
from agent.errors import ConfigError
from agent.model import PORTFOLIO, OrderKind

KINDS = tuple(kind.value for kind in OrderKind)


def edited(path: Path, subject: str, levels: Mapping[str, str]) -> tuple[str, dict[str, tuple[str | None, str | None]]]:
    """The file's text with these levels by kind, "off" takes one away, and what changes as (before, after).

    Raises ConfigError for a file that cannot be read, a subject that is no asset, or a config that would be refused.
    """
    try:
        document: Any = tomlkit.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    table = _table(document, subject)
    changes: dict[str, tuple[str | None, str | None]] = {}
    for kind, level in levels.items():
        before = table.get(kind)
        after = None if level == OFF else level
        if before == after:
            continue
        changes[kind] = (None if before is None else str(before), after)
        if after is None:
            del table[kind]
        else:
            table[kind] = after
    text = tomlkit.dumps(document)
    parse_config(text, f"{path} with the new levels")
    return text, changes


def written(path: Path, text: str, mode: int | None = None) -> None:
    """Puts the new text in the file's place, whole or not at all, with this mode or the one that the file has."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.draft")
    try:
        mode = path.stat().st_mode & 0o777 if mode is None else mode
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())  # line ends stay as they are
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}", "make room, and its folder writable, then run it again") from None
    finally:
        with suppress(OSError):
            draft.unlink()


def _table(document: Any, subject: str) -> Any:
    """The asset's table, or that of the portfolio's orders, made where it is not there yet."""
    portfolio = document.get("portfolio", {})
    if subject == PORTFOLIO:
        if "orders" not in portfolio:
            portfolio["orders"] = tomlkit.table()
        return portfolio["orders"]
    assets = portfolio.get("assets", [])
    found = next((asset for asset in assets if asset.get("symbol") == subject), None)
    if found is None:
        known = ", ".join(str(asset.get("symbol")) for asset in assets)
        raise ConfigError(f"orders: {subject!r} is no asset of {PORTFOLIO}", f"choose from {known}, {PORTFOLIO}")
    return found
