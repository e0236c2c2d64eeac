"""What the keys of a config mean, by the docstrings below the fields of its tables."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin

from agent.config.schema import Config
from agent.config.tables.fields import ConfigTable, inner_tables

NEXT_SENTENCE = ". "
STATED_DEFAULT = "; default: "


@cache
def key_meaning(key_path: str) -> str:
    """Return the first sentence about a key, such as `policy.cooldown` or, below the name of a table
    in a list, `portfolio.hubs.DAI.feed`, and the words that it may be; empty for no key.
    """
    tables: list[type[ConfigTable]] = [Config]
    text = ""
    words: dict[str, None] = {}
    for key in key_path.split("."):
        tables_with_key = [table for table in tables if key in table.model_fields]
        if tables_with_key:
            text = next(filter(None, (field_text(table, key) for table in tables_with_key)), "")
            annotations = [table.model_fields[key].annotation for table in tables_with_key]
            tables = [table for annotation in annotations for table in inner_tables(annotation)]
            words = dict.fromkeys(word for part in annotations for word in _words(part))
    text = (
        text.partition(STATED_DEFAULT)[0].partition(NEXT_SENTENCE)[0].rstrip(".").replace("`", "")
    )
    return f"{text}; choices: {', '.join(words)}" if len(words) > 1 else text


def _words(annotation: Any) -> Iterator[str]:
    """Yield the words that a value, or each of a list, may be."""
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        yield from annotation
    elif get_origin(annotation) is Literal:
        yield from get_args(annotation)
    elif get_origin(annotation) is not dict:
        for part in get_args(annotation):
            yield from _words(part)


def field_text(table: type[ConfigTable], key: str) -> str:
    """Return the description of a key of a table, or the docstring below it, on one line."""
    owner = next(owner for owner in table.__mro__ if key in inspect.get_annotations(owner))
    return table.model_fields[key].description or _docstrings(owner).get(key, "")


@cache
def _docstrings(owner: type) -> dict[str, str]:
    nodes = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(owner))))
    table_class = next(node for node in nodes if isinstance(node, ast.ClassDef))
    return {
        key.target.id: " ".join(below.value.value.split())
        for key, below in pairwise(table_class.body)
        if isinstance(key, ast.AnnAssign)
        and isinstance(key.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
