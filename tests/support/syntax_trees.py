"""Syntax trees of modules, each read once: what they import and name."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "agent"


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a file, its tree gone through once for all tests."""
    return tuple(ast.walk(tree_of(path)))


def imported_names(path: Path) -> set[str]:
    guards = [node for node in nodes(path) if isinstance(node, ast.If) and "TYPE_CHECKING" in identifiers(ast.walk(node.test))]
    guarded = {id(node) for guard in guards for node in ast.walk(guard)}
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import) and id(node) not in guarded:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and id(node) not in guarded:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


NAMES = {
    kind: tuple(field for field in ("id", "attr", "arg", "name", "asname") if field in kind._fields)
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
}
"""Of each kind of node the fields that hold a name."""


def identifiers(every: Iterable[ast.AST]) -> set[str]:
    """Return every name that nodes define or use."""
    return {name for node in every for field in NAMES[type(node)] if isinstance(name := getattr(node, field), str)}


@functools.cache
def modules() -> list[Path]:
    return sorted(path for path in AGENT.rglob("*.py") if "migrations" not in path.parts)


def named(node: Iterable[tuple[Path, object]]) -> dict[str, object]:
    """What was found by file, where anything was: a test over all files names each that fails."""
    return {str(path.relative_to(ROOT)): wrong for path, wrong in node if wrong}
