"""Where files lie: folders stay small, tests lie beside what they test, and nobody imports a test."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.syntax_trees import AGENT, ROOT, modules, named

MOST_ENTRIES = 20


def entries_by_folder(paths: Iterable[Path], top: Path) -> dict[Path, set[str]]:
    """Names of what lies in each folder below the top."""
    folders: dict[Path, set[str]] = {}
    for path in paths:
        for folder in path.parents:
            if top in folder.parents:
                folders.setdefault(folder, set()).add(path.relative_to(folder).parts[0])
    return folders


def test_a_folder_holds_at_most_twenty_entries() -> None:
    """agent/ itself apart, whose entries are the packages; and of agent/layers the registries count, not the layers."""
    folders = entries_by_folder(modules(), AGENT)
    folders[AGENT / "layers"] = {name for name in folders[AGENT / "layers"] if name.endswith(".py")}
    assert not named((folder, entries) for folder, entries in folders.items() if len(entries) > MOST_ENTRIES)


TESTS = ROOT / "tests"
UNIT = TESTS / "unit"
NOT_SPLIT = {TESTS / name for name in ("cases", "cli", "differential", "faults", "support")}
"""Folders of tests that hold more."""


def test_a_folder_of_tests_holds_at_most_twenty_entries() -> None:
    """tests/unit itself apart, whose entries are the packages of agent/."""
    folders = entries_by_folder(TESTS.rglob("*.py"), TESTS)
    assert {folder for folder, entries in folders.items() if len(entries) > MOST_ENTRIES and folder != UNIT} == NOT_SPLIT


def is_beside_its_code(path: Path) -> bool:
    """Whether a unit file lies where a package or a module lies, in a folder of its name; those of tests/unit itself have a module's."""
    folder = path.relative_to(UNIT).parent
    home = (ROOT if folder.parts[:1] == ("scripts",) else AGENT) / folder
    if home == AGENT:
        return (AGENT / path.name.removeprefix("test_")).is_file()
    return any(home.glob("*.py")) or home.with_suffix(".py").is_file()


def test_a_unit_file_lies_where_its_code_lies() -> None:
    """tests/unit/guards/test_market.py for agent/guards/market.py, tests/unit/scripts for scripts; scenes over several packages apart."""
    files = [path for path in UNIT.rglob("*.py") if UNIT / "scenarios" not in path.parents]
    assert len(files) > 400
    assert [str(path.relative_to(ROOT)) for path in files if not is_beside_its_code(path)] == []


@pytest.mark.parametrize("name", ["test_market.py", "guard/test_market.py", "scripts/guards/test_market.py"])
def test_a_unit_file_without_a_home_is_noticed(name: str) -> None:
    assert not is_beside_its_code(UNIT / name)


IMPORT_OF_A_TEST_FILE = re.compile(r"^ *(?:from|import) tests(?:\.\w+)*(?:\.| import (?:\([^)]*|[^(\n]*)\b)test_\w+", re.MULTILINE)


def test_no_test_file_is_imported() -> None:
    """What several files of tests use lies in tests/support."""
    paths = [*TESTS.rglob("*.py")]
    assert len(paths) > 800
    assert not named((path, IMPORT_OF_A_TEST_FILE.findall(path.read_text(encoding="utf-8"))) for path in paths)


@pytest.mark.parametrize(
    ("code", "is_noticed"),
    [
        ("from tests.unit.web.test_login import certificate", True),
        ("def f():\n    import tests.cli.test_api", True),
        ("from tests.unit.web import test_login as login", True),
        ("from tests.unit.web import (\n    forms,\n    test_login,\n)", True),
        ("from tests.support.pages.certificates import certificate", False),
        ("from tests.support.text import latest_text", False),
    ],
    ids=["names of it", "in a function", "the file", "the file among others", "support", "part of a name"],
)
def test_an_import_of_a_test_file_is_noticed(code: str, is_noticed: bool) -> None:
    assert bool(IMPORT_OF_A_TEST_FILE.search(code)) == is_noticed


def test_each_scene_of_the_list_is_a_test() -> None:
    listed = (ROOT / "tests/scenes.txt").read_text().splitlines()[1:]
    names_by_file: dict[str, set[str]] = {}
    for line in listed:
        file, _, name = line.partition("::")
        names_by_file.setdefault(file, set()).add(name.partition("[")[0])
    assert names_by_file
    for file, names in names_by_file.items():
        defined = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)}
        assert names <= defined, f"{file}: gone {sorted(names - defined)}; scripts/make/scene_tests.py writes the list anew"
