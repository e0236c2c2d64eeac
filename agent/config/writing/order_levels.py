"""Levels of one order in trimtab.toml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from agent.config.load import UNSAVED_REMEDY, edit_error, parse_config
from agent.config.tables.fields import OFF
from agent.config.writing.edits import insert_key
from agent.errors import ConfigError
from agent.foreign_text import bounded_toml, failure_text
from agent.model import PORTFOLIO_SUBJECT


def edit_order_levels(
    path: Path, subject: str, levels: Mapping[str, str]
) -> tuple[str, dict[str, tuple[str | None, str | None]]]:
    """Return the file's text with these levels by kind ("off" removes one), and the changes as
    (before, after).

    Raises ConfigError for a file that cannot be read, a subject that is not an asset, or an invalid
    result.
    """
    try:
        text_before = path.read_text(encoding="utf-8")
        document: Any = tomlkit.parse(bounded_toml(text_before))
    except (OSError, ValueError, TOMLKitError) as error:
        raise ConfigError(f"{path}: cannot be read: {failure_text(error)}") from None
    order_table = _order_table(document, subject)
    changes: dict[str, tuple[str | None, str | None]] = {}
    for kind, level in levels.items():
        old_level = order_table.get(kind)
        new_level = None if level == OFF else level
        if old_level == new_level:
            continue
        changes[kind] = (None if old_level is None else str(old_level), new_level)
        if new_level is None:
            del order_table[kind]
        elif old_level is not None:
            order_table[kind] = new_level
        else:
            insert_key(order_table, kind, new_level)
    config_text = tomlkit.dumps(document)
    try:
        parse_config(config_text, f"{path} with the new levels", UNSAVED_REMEDY)
    except ConfigError as error:
        raise edit_error(error, text_before, str(path)) from None
    return config_text, changes


def _order_table(document: Any, subject: str) -> Any:
    """Return the asset's table, or the portfolio's orders table, which is created if missing."""
    portfolio = document.get("portfolio", {})
    if subject == PORTFOLIO_SUBJECT:
        if "orders" not in portfolio:
            portfolio["orders"] = tomlkit.table()
        return portfolio["orders"]
    assets = portfolio.get("assets", [])
    table = next((asset for asset in assets if asset.get("symbol") == subject), None)
    if table is None:
        symbols = ", ".join(str(asset.get("symbol")) for asset in assets)
        raise ConfigError(
            f"orders: {subject!r} is not an asset of {PORTFOLIO_SUBJECT}",
            f"choose from {symbols}, {PORTFOLIO_SUBJECT}",
        )
    return table
