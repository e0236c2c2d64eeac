"""Wording of validation errors: field by the name of its asset, value, and remedy, in place of
pydantic's messages.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agent.units import safe_label

SECRETS = ("url", "key")
"""Parts of the names of keys whose values are never repeated in an error: secrets, or places where
secrets are pasted by mistake."""
NAMES = ("symbol", "name", "operator", "pool", "pair", "token_id")
"""Keys that identify an entry of a list."""
LONGEST = 80
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_KINDS = {
    "string": "a text in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list such as [1, 2]",
    "tuple": "a list such as [1, 2]",
    "dict": "a table such as { WETH = 1 }",
    "model": "a table such as [limits]",
}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}


def describe_errors(error: ValidationError, data: object, root: type[BaseModel]) -> list[str]:
    """One line for each error of `data` against `root`, naming field, value and remedy; possible
    secrets are not repeated.
    """
    lines = []
    for item in error.errors(include_url=False):
        names, tables = _walked(item, data, root)
        where = ".".join(names)
        if item["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key; {_meant(str(item['loc'][-1]), tables, root)}")
        elif item["type"] == "missing":
            lines.append(
                f"{where}: missing; trimtab init writes every key with a value to start from"
            )
        else:
            message = _said(item)
            secret = any(word in where for word in SECRETS)
            ours = item["type"] in ("value_error", "union_tag_invalid")
            got = "" if secret else _got(item["input"], message if ours else "")
            lines.append(f"{where}: {message}{got}" if where else message)
    return lines


def _got(value: object, message: str) -> str:
    """The value, if the message does not contain it yet."""
    shown = repr(value) if not isinstance(value, dict | list) else ""
    return (
        ""
        if not shown or shown in message
        else f" (got {shown if len(shown) <= LONGEST else shown[:LONGEST] + '…'})"
    )


def _said(item: ErrorDetails) -> str:
    """The mistake without its field; pydantic's own wording is for programmers and is never
    shown.
    """
    kind, about = item["type"], item.get("ctx", {})
    if kind == "value_error":
        return item["msg"].removeprefix("Value error, ")
    if kind == "literal_error":
        return f"choose from {about['expected']}"
    if kind == "union_tag_invalid":
        return f"{about['tag']!r} is none of the kinds; choose from {about['expected_tags']}"
    if kind == "union_tag_not_found":
        return f"{about['discriminator']} is missing; write which".replace("'", "")
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"write {words} {about[key]}"
    if kind in ("too_short", "too_long"):
        few = kind == "too_short"
        return (
            f"{about['actual_length']} entries; write {'at least' if few else 'at most'}"
            f" {about['min_length' if few else 'max_length']}"
        )
    if kind == "string_too_short":
        return "it is empty; write a text"
    if kind == "string_pattern_mismatch":
        most = re.search(r"\{1,(\d+)\}", about["pattern"])
        return f"write {f'1 to {most[1]}' if most else 'only'} letters, digits, . _ or -"
    return (
        "write"
        f" {next((words for start, words in _KINDS.items() if kind.startswith(start)), 'another value')}"
    )


def _meant(key: str, tables: Sequence[type[BaseModel]], root: type[BaseModel]) -> str:
    """Suggestion for an unknown key: the closest known key, or the table that it belongs to."""
    known = {name for table in tables for name in table.model_fields}
    if near := difflib.get_close_matches(key, known, 1, 0.6):
        return f"did you mean {near[0]}?"
    homes = [
        name
        for name, field in root.model_fields.items()
        for table in _models(field.annotation)
        if key in table.model_fields
    ]
    return f"it belongs into [{homes[0]}]" if len(homes) == 1 else "remove it or check its spelling"


def _walked(
    item: ErrorDetails, data: object, root: type[BaseModel]
) -> tuple[list[str], list[type[BaseModel]]]:
    """Path of the field with list entries by name, and the tables that its last key may belong to.

    Pydantic's path also contains the kind of table it assumed.
    """
    names: list[str] = []
    tables: list[type[BaseModel]] = [root]
    for part in item["loc"]:
        lacking = item["type"] == "missing" and part == item["loc"][-1]
        if isinstance(part, int):
            data = data[part] if isinstance(data, list) and part < len(data) else None
            names.append(_name(data) or str(part))
        elif isinstance(data, dict) and (part in data or lacking):
            names.append(
                part
                if part.isprintable() and len(part) <= LONGEST
                else "(a key that cannot be shown)"
            )
            data = data.get(part)
            if part != item["loc"][-1]:
                fields = [
                    table.model_fields[part] for table in tables if part in table.model_fields
                ]
                tables = [
                    model for field in fields for model in _models(field.annotation)
                ] or tables
        else:
            tables = [table for table in tables if part in _kinds_of(table)] or tables
    return names, tables


def _name(entry: object) -> str:
    """Name of an entry; empty if it has none that may be shown."""
    if not isinstance(entry, Mapping):
        return ""
    found = next((str(entry[key]) for key in NAMES if isinstance(entry.get(key), str | int)), "")
    return found if _ADDRESS.fullmatch(found) else safe_label(found, "")


def _kinds_of(table: type[BaseModel]) -> tuple[str, ...]:
    return get_args(table.model_fields["kind"].annotation) if "kind" in table.model_fields else ()


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every table that a field may hold, through lists, unions and annotations."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
