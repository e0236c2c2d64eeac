"""Messages of validation errors, in place of pydantic's: field (with the name of its asset), value, and remedy."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agent.config.redaction import REDACTED, is_secret
from agent.config.tables.fields import (
    INIT_CODE_HASH_PATTERN,
    SHA256_PATTERN,
    SIGNAL_FILE_PATTERN,
    VENUE_LABEL_PATTERN,
    inner_tables,
)
from agent.units import safe_label

SECRET_WORDS = ("url", "key", "_env")
"""Parts of the names of keys whose values may be secrets, such as a token in place of the name of
its variable. Errors do not repeat them.
"""
NAME_KEYS = ("symbol", "name", "operator", "pool", "pair", "token_id")
"""Keys that identify an entry of a list."""
MAX_SHOWN_CHARS = 80
MAX_ADDRESS = 2**160 - 1
"""Largest number that a config has a use for; one above it may be a private key."""
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
_FORMS = {
    SIGNAL_FILE_PATTERN: "FILE.py:FUNCTION",
    SHA256_PATTERN: "64 hexadecimal digits in lower case, as sha256sum prints them",
    INIT_CODE_HASH_PATTERN: "0x and 64 hexadecimal digits in lower case",
    VENUE_LABEL_PATTERN: "1 to 20 letters in lower case, digits or _",
}
"""Forms of texts whose pattern is more than a set of characters."""
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}


def describe_errors(
    error: ValidationError,
    config_data: object,
    root: type[BaseModel],
    missing_text: str = "missing; a config of trimtab init shows it with a value",
) -> list[str]:
    """Return one line for each error of `config_data` against `root`, with field, value and remedy;
    `missing_text` for a missing key. Possible secrets are not repeated.
    """
    mistakes = []
    for error_details in error.errors(include_url=False):
        path_names, tables = _path_and_tables(error_details, config_data, root)
        config_key = ".".join(path_names)
        if error_details["type"] == "extra_forbidden":
            mistakes.append(
                f"{config_key}: unknown key; {_suggestion(str(error_details['loc'][-1]), tables, root)}"
            )
        elif error_details["type"] == "missing":
            list_key, _, entry_name = config_key.rpartition(".")
            is_entry = isinstance(error_details["loc"][-1], int)
            mistakes.append(
                f"{list_key}: entry {entry_name}, counted from 0, is missing"
                if is_entry
                else f"{config_key}: {missing_text}"
            )
        else:
            message = _message(error_details)
            entered_value = error_details["input"]
            if secret_forms := _secret_forms(entered_value):
                for secret in secret_forms:
                    message = message.replace(secret, REDACTED)
            elif not any(word in config_key for word in SECRET_WORDS):
                message = _with_value_in_list(message, entered_value)
                is_own_message = error_details["type"] in ("value_error", "union_tag_invalid")
                message += _value_text(entered_value, message if is_own_message else "")
            mistakes.append(f"{config_key}: {message}" if config_key else message)
    return mistakes


def _secret_forms(entered_value: object) -> list[str]:
    """Return the forms in which a message may have a value that may be a secret, such as a key that was
    written without quotes; empty for another value.
    """
    if isinstance(entered_value, str):
        return [entered_value] if is_secret(entered_value) else []
    if isinstance(entered_value, int) and entered_value > MAX_ADDRESS:
        return [f"{entered_value:#x}", str(entered_value)]
    return []


def _with_value_in_list(message: str, entered_value: object) -> str:
    """Return the message with an entered text as the only entry of its example list."""
    if not isinstance(entered_value, str) or len(entered_value) > MAX_SHOWN_CHARS:
        return message
    list_entry = entered_value if entered_value.isdecimal() else json.dumps(entered_value)
    return message.replace("[1, 2]", f"[{list_entry}]")


def _value_text(entered_value: object, message: str) -> str:
    """Return the value in brackets; empty if it is a table or already in the message."""
    if isinstance(entered_value, dict | list) or (shown_value := repr(entered_value)) in message:
        return ""
    if len(shown_value) > MAX_SHOWN_CHARS:
        shown_value = shown_value[:MAX_SHOWN_CHARS] + "…"
    return f" (got {shown_value})"


def _message(error_details: ErrorDetails) -> str:
    """Describe the mistake without its field; pydantic's wording is not shown."""
    error_type = error_details["type"]
    context = error_details.get("ctx", {})
    if error_type == "value_error":
        return error_details["msg"].removeprefix("Value error, ")
    if error_type == "literal_error":
        return f"choose from {context['expected']}"
    if error_type == "union_tag_invalid":
        return f"{context['tag']!r} is not a kind; choose from {context['expected_tags']}"
    if error_type == "union_tag_not_found":
        return f"{context['discriminator']} is missing; set it".replace("'", "")
    if error_type in _BOUNDS:
        comparison, context_key = _BOUNDS[error_type]
        return f"write {comparison} {context[context_key]}"
    if error_type in ("too_short", "too_long"):
        comparison, context_key = (
            ("at least", "min_length") if error_type == "too_short" else ("at most", "max_length")
        )
        return f"{context['actual_length']} entries; write {comparison} {context[context_key]}"
    if error_type == "string_too_short":
        return "it is empty; write text"
    if error_type == "string_too_long":
        return f"write at most {context['max_length']} characters"
    if error_type == "string_pattern_mismatch":
        return _form_text(context["pattern"])
    for type_prefix, description in _TYPE_TEXTS.items():
        if error_type.startswith(type_prefix):
            return f"write {description}"
    return "write another value"


def _form_text(pattern: str) -> str:
    if pattern in _FORMS:
        return f"write {_FORMS[pattern]}"
    max_length = re.search(r"\{1,(\d+)\}", pattern)
    length_text = "only" if max_length is None else f"1 to {max_length[1]}"
    return f"write {length_text} letters, digits, . _ or -"


def _suggestion(key: str, tables: Sequence[type[BaseModel]], root: type[BaseModel]) -> str:
    """Suggest the closest known key for an unknown one, or the table that it belongs to."""
    known_keys = {name for table in tables for name in table.model_fields}
    if close_keys := difflib.get_close_matches(key, known_keys, 1, 0.6):
        return f"did you mean {close_keys[0]}?"
    section_names = [
        name
        for name, section in root.model_fields.items()
        for table in inner_tables(section.annotation)
        if key in table.model_fields
    ]
    if len(section_names) == 1:
        return f"it belongs in [{section_names[0]}]"
    return "remove it or check its spelling"


def _path_and_tables(
    error_details: ErrorDetails, config_data: object, root: type[BaseModel]
) -> tuple[list[str], list[type[BaseModel]]]:
    """Return the path of the field with list entries by name, and the tables that its last key may
    belong to.

    Pydantic's path also contains the assumed kind of table.
    """
    path_names: list[str] = []
    tables: list[type[BaseModel]] = [root]
    last_index = len(error_details["loc"]) - 1
    for part_index, part in enumerate(error_details["loc"]):
        is_last = part_index == last_index
        is_missing = error_details["type"] == "missing" and is_last
        if isinstance(part, int):
            config_data = (
                config_data[part]
                if isinstance(config_data, list) and part < len(config_data)
                else None
            )
            name_key = "kind" if path_names == ["venues"] else ""
            path_names.append(_name(config_data, name_key) or str(part))
        elif isinstance(config_data, dict) and (part in config_data or is_missing):
            is_shown = part.isprintable() and len(part) <= MAX_SHOWN_CHARS and not is_secret(part)
            path_names.append(part if is_shown else "(a key that cannot be shown)")
            config_data = config_data.get(part)
            if not is_last:
                field_infos = [
                    table.model_fields[part] for table in tables if part in table.model_fields
                ]
                tables = [
                    table
                    for field_info in field_infos
                    for table in inner_tables(field_info.annotation)
                ] or tables
        else:
            tables = [table for table in tables if part in _kinds_of(table)] or tables
    return path_names, tables


def _name(entry: object, extra_name_key: str) -> str:
    """Return the name of an entry by NAME_KEYS, or by a key of its list; empty without a name that
    may be shown.
    """
    if not isinstance(entry, Mapping):
        return ""
    name = next(
        (
            str(entry[name_key])
            for name_key in (*NAME_KEYS, extra_name_key)
            if isinstance(entry.get(name_key), str | int)
        ),
        "",
    )
    if is_secret(name):
        return ""
    return name if _ADDRESS.fullmatch(name) else safe_label(name, "")


def _kinds_of(table: type[BaseModel]) -> tuple[str, ...]:
    """Return the kinds, or the venue, that select a table of a union."""
    kind_keys = [kind_key for kind_key in ("kind", "venue") if kind_key in table.model_fields]
    return tuple(
        kind for kind_key in kind_keys for kind in get_args(table.model_fields[kind_key].annotation)
    )
