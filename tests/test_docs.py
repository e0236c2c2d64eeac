"""The documents are true: every test, file and command that they name is there, every promise is listed once, nothing leaks."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from typer.main import get_command

from agent.cli.main import app
from agent.config.schema import Config
from agent.layers.config import LayerTables
from agent.model import IntentState
from agent.store.transitions import TRANSITIONS
from tests.support.pages_of_docs import FENCE, ROOT, rows

REQUIREMENTS = ROOT / "docs" / "requirements.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
EXECUTION = ROOT / "docs" / "execution.md"
THREATS_PAGE = ROOT / "docs" / "threats.md"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "scripts" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

GROUPS = {1: 8, 2: 6, 3: 10, 4: 8, 5: 4, 6: 8, 7: 18, 8: 11, 9: 8, 10: 4, 14: 2}
"""How many promises each group has; R7 itself is one too, about every guard."""
CASES = 8
THREATS = 45
NUMBERS = [
    *(f"R{group}.{number}" for group, count in GROUPS.items() for number in range(1, count + 1)),
    "R7",
    *(f"W{number}" for number in range(1, CASES + 1)),
    *(f"T{number}" for number in range(1, THREATS + 1)),
]

NAMED_TEST = re.compile(r"tests/[\w/]+\.py::[\w:]+")
ROUTER = re.compile(r" \((both routers|early|SwapRouter02|Rebalancer)\)$")
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^|[\s/])trimtab +([^|&;#\n]*)")
OUR_FILES = (".py", ".sol", ".md", ".lock", ".svg", "Makefile")
"""Endings of files that are ours when a document names them; .toml, .json and .db are mostly the reader's own."""


@functools.cache
def functions_of(path: Path) -> frozenset[str]:
    """Names as pytest knows them, without parameters: functions, and methods behind their class."""
    functions: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            functions.add(node.name)
        if isinstance(node, ast.ClassDef):
            functions |= {
                f"{node.name}::{sub.name}" for sub in node.body if isinstance(sub, ast.FunctionDef) and sub.name.startswith("test")
            }
    return frozenset(functions)


@functools.cache
def git_files(*which: str) -> tuple[str, ...]:
    """Files that are there, as git lists them."""
    listed = subprocess.run(["git", "ls-files", "-z", *which], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(name for name in listed.split("\0") if name and (ROOT / name).is_file())


def tracked() -> tuple[str, ...]:
    """Files that git knows, and new ones that it does not ignore: what a commit would hold."""
    return git_files("--cached", "--others", "--exclude-standard")


def code_of(path: Path) -> Iterator[str]:
    """Every piece of code in a document: spans, and the lines of blocks that are no program text."""
    text = path.read_text(encoding="utf-8")
    for language, block in FENCE.findall(text):
        if language in ("", "bash", "sh"):
            yield from block.splitlines()
    yield from SPAN.findall(FENCE.sub("", text))


def commands_of(path: Path) -> Iterator[list[str]]:
    """Words after `trimtab` of every command that a document shows."""
    for piece in code_of(path):
        for rest in COMMAND.findall(piece):
            if words := rest.split("  ")[0].split():
                yield words


def canonical(name: str) -> str:
    return name.lower().replace("_", "-")


# docs/requirements.md
def test_every_number_is_listed_exactly_once() -> None:
    counted = Counter(cells[0] for cells in rows(REQUIREMENTS.read_text(encoding="utf-8")) if re.fullmatch(r"[RWT]\d+(\.\d+)?", cells[0]))
    assert not {number: counted[number] for number in NUMBERS if counted[number] != 1}
    assert not set(counted) - set(NUMBERS)


def test_promise__names_its_place_and_a_test_or_not_yet() -> None:
    for cells in rows(REQUIREMENTS.read_text(encoding="utf-8")):
        if not re.fullmatch(r"[RWT]\d+(\.\d+)?", cells[0]):
            continue
        assert len(cells) == 3, f"{cells[0]} has {len(cells)} columns"
        assert re.search(r"\S \((.*[`\]].*)\)$", cells[1]) or cells[2] == "not yet", f"{cells[0]} does not say where"
        assert NAMED_TEST.search(cells[2]) or cells[2] == "not yet", f"{cells[0]} neither names a test nor says not yet"


def test_every_named_test_exists() -> None:
    named = [(path.name, *name.split("::", 1)) for path in DOCUMENTS for name in NAMED_TEST.findall(path.read_text(encoding="utf-8"))]
    assert len(named) > 100, "the pattern no longer finds the tests that docs/requirements.md names"
    missing = [f"{document}: {file}::{name}" for document, file, name in named if not exists(file, name)]
    assert not missing


def exists(file: str, name: str) -> bool:
    return (ROOT / file).is_file() and name in functions_of(ROOT / file)


def test_every_test_that_the_page_on_futures_names_exists() -> None:
    """By its path, or by its name alone in the files of the two tables."""
    text = (ROOT / "docs" / "futures.md").read_text(encoding="utf-8")
    here = functions_of(ROOT / "tests/differential/test_perp_signs.py") | functions_of(ROOT / "tests/cases/test_futures_faults.py")
    assert not [named for named in NAMED_TEST.findall(text) if not exists(*named.split("::", 1))]
    assert {span for span in SPAN.findall(text) if span.startswith("test_")} == set(here)


def test_methods_and_parametrised_tests_are_found_by_name(tmp_path: Path) -> None:
    file = tmp_path / "test_sample.py"
    file.write_text("@mark.parametrize('x', [1])\ndef test_a(x): ...\nclass TestB:\n    def test_c(self): ...\n    def helper(self): ...\n")
    assert functions_of(file) == {"test_a", "TestB::test_c"}


# docs/threats.md
def test_every_attack_names_its_threat_its_router_and_a_test() -> None:
    attacks = [cells for cells in rows(THREATS_PAGE.read_text(encoding="utf-8")) if cells[0] != "threat"]
    assert all(len(cells) == 3 and cells[1] and NAMED_TEST.search(cells[2]) for cells in attacks)
    assert {attack for _, attack, _ in attacks if not ROUTER.search(attack)} == set()
    assert {cells[0] for cells in attacks} >= {"T1", "T5", "T6", "T8", "T9", "T11"}
    assert {cells[0] for cells in attacks} <= set(NUMBERS)


def test_what_is_said_to_run_on_both_routers_does() -> None:
    """Some test of such a row takes the router as a parameter, or a test of its own names the Rebalancer."""
    for cells in rows(THREATS_PAGE.read_text(encoding="utf-8")):
        if cells[1].endswith("(both routers)"):
            files = {name.split("::")[0] for name in NAMED_TEST.findall(cells[2])}
            assert any("swap_router_02" in text and "rebalancer" in text for text in map(read, files)), cells[1]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# what documents point at
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        at = (path.parent / file).resolve() if file else path
        assert at.exists(), f"{path.name} links to {target}"
        if heading:
            heads = re.findall(r"^#+ +(.*)$", at.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, f"{path.name} links to {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_exists(path: Path) -> None:
    known = set(tracked())
    names = {Path(name).name for name in known}
    folders = {str(parent) for name in known for parent in Path(name).parents}
    for piece in code_of(path):
        for word in piece.split():
            name = word.split("::")[0].strip(",;:()\"'")
            if "*" in name or "<" in name or "…" in name:
                continue
            if name.endswith("/") and not name.startswith("/") and "://" not in name:
                assert {name[:-1], f"agent/{name[:-1]}"} & folders, f"{path.name} names the folder {name}"
            elif name.endswith(OUR_FILES):
                assert name in known or f"agent/{name}" in known or ("/" not in name and name in names), f"{path.name} names {name}"


@functools.cache
def command_line() -> click.Command:
    """The tree of commands, which takes 0.1 s to build."""
    return get_command(app)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_is_named_exists_with_its_options(path: Path) -> None:
    group = command_line()
    known = group.commands  # type: ignore[attr-defined]  # click's Group, which Typer makes of several commands
    shared = {option for param in group.params for option in param.opts} | {"--help"}
    for words in commands_of(path):
        if words[0].startswith("-"):
            assert words[0] in shared, f"{path.name}: trimtab {words[0]}"
            continue
        if words[0] == "help":
            assert {*words[1:2]} <= {"all", "COMMAND", *known}, f"{path.name}: trimtab {' '.join(words)}"
            continue
        assert words[0] in known, f"{path.name}: trimtab {words[0]}"
        command = known[words[0]]
        if len(words) > 1 and not words[1].startswith("-") and (below := getattr(command, "commands", None)) is not None:
            assert words[1] in below or set(words[1]) <= set(".…|"), f"{path.name}: trimtab {words[0]} {words[1]}"
            command = below.get(words[1], command)
        options = {option for param in command.params for option in param.opts} | {"--help"}
        unknown = [word for word in words[1:] if word.startswith("-") and word.split("=")[0] not in options]
        assert not unknown, f"{path.name}: trimtab {words[0]} {' '.join(unknown)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_target_and_script_that_is_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for piece in code_of(path):
        for target in re.findall(r"^make +([\w-]+)", piece):
            assert target in targets, f"{path.name}: make {target}"
        for script, options in re.findall(r"(scripts/[\w/]+\.py)([^#|;&\n]*)", piece):
            text = (ROOT / script).read_text(encoding="utf-8")
            unknown = [word for word in options.split() if word.startswith("--") and f'"{word}"' not in text]
            assert not unknown, f"{path.name}: {script} {' '.join(unknown)}"


def test_every_script_is_listed_once() -> None:
    page = ROOT / "scripts" / "README.md"
    listed = Counter(LINK.findall(page.read_text(encoding="utf-8")))
    scripts = [str(path.relative_to(page.parent)) for path in map(ROOT.joinpath, tracked()) if page.parent in path.parents and path != page]
    assert listed == Counter(scripts)


def test_every_command_is_in_the_requirements() -> None:
    named = {words[0] for words in commands_of(REQUIREMENTS)}
    assert not set(command_line().commands) - named  # type: ignore[attr-defined]  # click's Group, as above


# what must not be in the repository
NEEDLES = [
    *("/".join(("", *parts, "")) for parts in (("work", "main"), ("work", "shared"), ("root",), ("home", "user"), ("Users",))),
    *(".".join(parts) for parts in (("registry", "npmjs", "org"), ("pypi", "org"), ("files", "pythonhosted", "org"))),
    *(".".join(parts) for parts in (("registry", "yarnpkg", "com"), ("npm", "pkg", "github", "com"), ("proxy", "golang", "org"))),
]
"""Paths of the machine that built it, and hosts of package registries, put together here so that this file holds none."""


NPM_FOLDERS = ("contracts", "contracts/perps", "contracts/safe-kit")


def test_no_tracked_file_holds_a_machine_path_or_a_registry_host() -> None:
    places = []
    for name in tracked():
        data = (ROOT / name).read_bytes()
        if b"\0" in data:
            continue
        text = data.decode("utf-8", "replace")
        places += [f"{name}: {needle}" for needle in (*NEEDLES, str(ROOT) + "/") if needle in text]
    assert not places


def test_locks_name_no_place_to_fetch_from() -> None:
    entries = {
        f"{folder}: {name}": entry
        for folder in NPM_FOLDERS
        for name, entry in json.loads((ROOT / folder / "package-lock.json").read_text(encoding="utf-8"))["packages"].items()
    }
    assert len(entries) > 200
    assert not [name for name, entry in entries.items() if "resolved" in entry]


# docs/dependencies.md
def declared() -> dict[str, str]:
    """Version, as far as it is exact, of every direct dependency by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = [*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()]
    requirements = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(item for group in groups for item in group),
    ]
    packages = {}
    for item in requirements:
        name, rest = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?(.*)", item).groups()  # type: ignore[union-attr]  # every line of pyproject.toml fits
        packages[canonical(name)] = rest[2:] if rest.startswith("==") else ""
    for folder in NPM_FOLDERS:
        manifest = json.loads((ROOT / folder / "package.json").read_text(encoding="utf-8"))
        packages |= {**manifest.get("dependencies", {}), **manifest.get("devDependencies", {})}
    return packages


def documented() -> list[tuple[str, str]]:
    """(name, version) pairs of the first column: `name` or `name` version, several by commas."""
    cells_found = []
    for cells in rows((ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")):
        cells_found += [(canonical(name), version) for name, version in re.findall(r"`([^`]+)` ?([\w.-]*)", cells[0])]
    return cells_found


def test_dependencies_page__lists_each_direct_one_once() -> None:
    counted = Counter(name for name, _ in documented())
    assert not {name: count for name, count in counted.items() if count > 1}
    assert set(counted) == set(declared())


def test_dependencies_gives_exact_versions_as_they_are_pinned() -> None:
    requirements = declared()
    assert not {name: version for name, version in documented() if version and version != requirements[name]}


def test_every_dependency_has_a_reason() -> None:
    assert all(cells[1] for cells in rows((ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")))


@pytest.mark.parametrize("table", sorted(Config.model_fields))
def test_a_table_of_the_config_has_a_page(table: str) -> None:
    """Requirements and the threats, which name keys only, are no pages of it."""
    pages = {path for path in (ROOT / "docs").glob("*.md") if path not in (REQUIREMENTS, THREATS_PAGE)}
    assert any(re.search(rf"\[{table}[\].]|`{table}\.", page.read_text(encoding="utf-8")) for page in pages)


@pytest.mark.parametrize("table", sorted(LayerTables.model_fields))
def test_a_layer_with_a_table_has_a_row_of_requirements(table: str) -> None:
    text = REQUIREMENTS.read_text(encoding="utf-8")
    assert f"({table}.md" in text or re.search(rf"`{table}[.`]", text)


# docs/architecture.md
def test_the_rooms_are_those_of_the_package_in_their_order() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    stages = next(contract["layers"][::-1] for contract in contracts if contract["type"] == "layers")
    levels = [stage.split(" : ")[0].removeprefix("agent.") for stage in stages]
    listed = [
        cells[0].strip("`")
        for cells in rows(ARCHITECTURE.read_text(encoding="utf-8"))
        if len(cells) == 3 and "`" in cells[0] and "/" not in cells[0]
    ]
    package_rooms = {
        Path(name).parts[1].removesuffix(".py") for name in git_files("--cached") if name.startswith("agent/") and name.endswith(".py")
    }
    assert listed == [package for package in levels if package in package_rooms]
    assert package_rooms - {*levels} == {"__init__", "__main__", "layers"} & package_rooms
    beside = {name for stage in stages for name in stage.split(" : ")[1:]}
    modules = {
        name.removesuffix(".py").replace("/", ".")
        for name in git_files("--cached", "--others", "--exclude-standard")
        if name.endswith(".py")
    }
    parts = [name.split(".") for name in modules if name.startswith("agent.layers.") and not name.endswith("__init__")]
    assert beside == {".".join(names[:4]) for names in parts}


def test_the_states_are_those_of_the_journal() -> None:
    states = {state.value: state for state in IntentState}
    listed = {cells[0]: cells[1] for cells in rows(EXECUTION.read_text(encoding="utf-8")) if cells[0] in states}
    assert {states[name]: {states[after] for after in text.split(", ") if after} for name, text in listed.items()} == TRANSITIONS


def test_the_back_test_of_the_readme_counts_gas() -> None:
    (command,) = re.findall(r"^\.venv/bin/trimtab backtest .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert "--native" in command


def test_the_first_screen_of_the_readme_names_the_set_up() -> None:
    first_screen = (ROOT / "README.md").read_text().partition("\n## ")[0]
    assert "serve --setup" in first_screen
