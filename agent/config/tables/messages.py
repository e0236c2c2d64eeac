"""Messages of validation errors, in place of pydantic's: field (with the name of its asset), value, and remedy."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agent.units import safe_label

SECRET_WORDS = ("url", "key")
"""Parts of the names of keys whose values may be secrets. Errors do not repeat them."""
NAME_KEYS = ("symbol", "name", "operator", "pool", "pair", "token_id")
"""Keys that identify an entry of a list."""
MAX_SHOWN_CHARS = 80
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_TYPE_TEXTS = {
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
    """Return one line for each error of `data` against `root`, with field, value and remedy.
    Possible secrets are not repeated.
    """
    lines = []
    for item in error.errors(include_url=False):
        names, tables = _path_and_tables(item, data, root)
        key = ".".join(names)
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key; {_suggestion(str(item['loc'][-1]), tables, root)}")
        elif item["type"] == "missing":
            lines.append(f"{key}: missing; trimtab init writes every key with an initial value")
        else:
            message = _message(item)
            if not any(word in key for word in SECRET_WORDS):
                message = _with_value_in_list(message, item["input"])
                is_own_message = item["type"] in ("value_error", "union_tag_invalid")
                message += _value_text(item["input"], message if is_own_message else "")
            lines.append(f"{key}: {message}" if key else message)
    return lines


def _with_value_in_list(message: str, value: object) -> str:
    """Return the message with an entered text as the only entry of its example list."""
    if not isinstance(value, str) or len(value) > MAX_SHOWN_CHARS:
        return message
    entry = value if value.isdecimal() else json.dumps(value)
    return message.replace("[1, 2]", f"[{entry}]")


def _value_text(value: object, message: str) -> str:
    """Return the value in brackets; empty if it is a table or already in the message."""
    if isinstance(value, dict | list) or (text := repr(value)) in message:
        return ""
    if len(text) > MAX_SHOWN_CHARS:
        text = text[:MAX_SHOWN_CHARS] + "…"
    return f" (got {text})"


def _message(item: ErrorDetails) -> str:
    """Describe the mistake without its field; pydantic's wording is not shown."""
    kind, context = item["type"], item.get("ctx", {})
    if kind == "value_error":
        return item["msg"].removeprefix("Value error, ")
    if kind == "literal_error":
        return f"choose from {context['expected']}"
    if kind == "union_tag_invalid":
        return f"{context['tag']!r} is not a kind; choose from {context['expected_tags']}"
    if kind == "union_tag_not_found":
        return f"{context['discriminator']} is missing; set it".replace("'", "")
    if kind in _BOUNDS:
        bound, key = _BOUNDS[kind]
        return f"write {bound} {context[key]}"
    if kind in ("too_short", "too_long"):
        bound, key = (
            ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        )
        return f"{context['actual_length']} entries; write {bound} {context[key]}"
    if kind == "string_too_short":
        return "it is empty; write text"
    if kind == "string_pattern_mismatch":
        max_length = re.search(r"\{1,(\d+)\}", context["pattern"])
        count = "only" if max_length is None else f"1 to {max_length[1]}"
        return f"write {count} letters, digits, . _ or -"
    for start, description in _TYPE_TEXTS.items():
        if kind.startswith(start):
            return f"write {description}"
    return "write another value"


def _suggestion(key: str, tables: Sequence[type[BaseModel]], root: type[BaseModel]) -> str:
    """Suggest the closest known key for an unknown one, or the table that it belongs to."""
    keys = {name for table in tables for name in table.model_fields}
    if matches := difflib.get_close_matches(key, keys, 1, 0.6):
        return f"did you mean {matches[0]}?"
    sections = [
        name
        for name, section in root.model_fields.items()
        for table in _models(section.annotation)
        if key in table.model_fields
    ]
    if len(sections) == 1:
        return f"it belongs in [{sections[0]}]"
    return "remove it or check its spelling"


def _path_and_tables(
    item: ErrorDetails, data: object, root: type[BaseModel]
) -> tuple[list[str], list[type[BaseModel]]]:
    """Return the path of the field with list entries by name, and the tables that its last key may
    belong to.

    Pydantic's path also contains the assumed kind of table.
    """
    names: list[str] = []
    tables: list[type[BaseModel]] = [root]
    for part in item["loc"]:
        is_missing = item["type"] == "missing" and part == item["loc"][-1]
        if isinstance(part, int):
            data = data[part] if isinstance(data, list) and part < len(data) else None
            key = "kind" if names == ["venues"] else ""
            names.append(_name(data, key) or str(part))
        elif isinstance(data, dict) and (part in data or is_missing):
            is_printable = part.isprintable() and len(part) <= MAX_SHOWN_CHARS
            names.append(part if is_printable else "(a key that cannot be shown)")
            data = data.get(part)
            if part != item["loc"][-1]:
                fields = [
                    table.model_fields[part] for table in tables if part in table.model_fields
                ]
                inner_tables = [model for info in fields for model in _models(info.annotation)]
                tables = inner_tables or tables
        else:
            tables = [table for table in tables if part in _kinds_of(table)] or tables
    return names, tables


def _name(entry: object, own_key: str) -> str:
    """Return the name of an entry by NAME_KEYS, or by a key of its list; empty without a name that
    may be shown.
    """
    if not isinstance(entry, Mapping):
        return ""
    name = next(
        (str(entry[key]) for key in (*NAME_KEYS, own_key) if isinstance(entry.get(key), str | int)),
        "",
    )
    return name if _ADDRESS.fullmatch(name) else safe_label(name, "")


def _kinds_of(table: type[BaseModel]) -> tuple[str, ...]:
    """Return the kinds, or the venue, that select a table of a union."""
    names = [name for name in ("kind", "venue") if name in table.model_fields]
    return tuple(kind for name in names for kind in get_args(table.model_fields[name].annotation))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield every table type in an annotation, including those in lists, unions and annotated
    types.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
