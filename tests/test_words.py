"""Names and sentences of the code: they exist, hold one thought, and use the words of the glossary."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.syntax_trees import ROOT, identifiers, modules, named, nodes, tree_of


def test_every_module_says_what_it_answers() -> None:
    assert not named((path, ast.get_docstring(tree_of(path)) is None) for path in modules())


def is_packed(node: ast.AST) -> bool:
    """Whether an assignment holds several unrelated ones: no swap, rotation or step of a recurrence, no unpacking of a value."""
    if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)):
        return False
    targets = {ast.unparse(target) for target in node.targets[0].elts}
    return targets.isdisjoint(ast.unparse(value) for value in node.value.elts)


def test_an_assignment_holds_one_thought() -> None:
    scripts = [*(ROOT / "scripts").rglob("*.py")]
    assert not named((path, {node.lineno for node in nodes(path) if is_packed(node)}) for path in (*modules(), *scripts))


@pytest.mark.parametrize(
    ("statement", "packed"), [("a, b = x, y", True), ("a, b.c = f(x), 0", True), ("a, b = b, a", False), ("a, b = f(x)", False)]
)
def test_what_holds_two_thoughts_is_noticed(statement: str, packed: bool) -> None:
    assert is_packed(ast.parse(statement).body[0]) == packed


OTHERS_NAMES = {
    "ADDRESS_THIS", "AFTER_SWAP_RETURNS_DELTA_FLAG", "BEFORE_SWAP_RETURNS_DELTA_FLAG", "CPF_NU", "Canceled", "ECC_SECG_P256K1",
    "ECDSA_SHA_256", "FEE_GROWTH_GLOBAL0_OFFSET", "MIN_SECONDS_AGO", "MR_IB", "POOL_INIT_CODE_HASH",
    "Rejected", "_24h", "encodeTransactionData", "eth_signTypedData_v4", "robust",
}  # fmt: skip
"""What docstrings name of contracts, venues, key services and command lines."""
LONGEST_NAMING_TEXT = 60
"""Letters of a string that may be a name, a key or a call of the code; a longer one is prose."""


def documented_names(text: str) -> set[str]:
    """Names in back-ticks, and constants."""
    return {*re.findall(r"`([a-zA-Z_]\w+)(?:\(\))?`", text), *re.findall(r"\b([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+)\b", text)}


def code_names(node: ast.AST) -> set[str]:
    """Names of a node, and the words of a short string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return set(re.findall(r"\w+", node.value)) if len(node.value) <= LONGEST_NAMING_TEXT else set()
    return {name for field in ("id", "attr", "arg", "name") if isinstance(name := getattr(node, field, None), str)}


def docstrings(path: Path) -> Iterator[str]:
    """Docstrings of modules, classes and functions, and strings below constants and fields."""
    for node in nodes(path):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def test_what_a_docstring_names_exists() -> None:
    known = {name for path in modules() for node in nodes(path) for name in code_names(node)}
    unknown = {path: {name for text in docstrings(path) for name in documented_names(text)} - known for path in modules()}
    assert not named((path, names - OTHERS_NAMES) for path, names in unknown.items())
    assert {name for names in unknown.values() for name in names} == OTHERS_NAMES, "an exception that no docstring needs"


def test_no_two_classes_have_one_name() -> None:
    homes: dict[str, list[str]] = {}
    for path in modules():
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert not {name: where for name, where in homes.items() if len(where) > 1}


GONE = {
    "announcer", "announcers", "arcs", "ballot", "ballots", "campaign", "campaigns", "carrier", "carriers", "circles", "courier",
    "couriers", "crumb", "crumbs", "eyes", "hands", "keyless", "laid", "lean", "letters", "onlooker", "osring", "remembered", "sleeve",
    "sleeves", "strays", "stuck", "taker", "vouched", "wishes",
}  # fmt: skip
"""Words that docs/glossary.md replaced: in no identifier of agent/."""
NO_VARIABLE = {"aim", "desk", "harvest", "heard", "letter", "panel", "stray", "tidy", "wish"}
"""Words that stay as fields and attributes, most of them because they are stored: no local variable or parameter has these names."""
GONE_FROM_TEXT = {
    "announcer", "ballot", "campaign", "courier", "crumb", "desk", "eyes", "hands", "onlooker", "osring", "sleeve", "stray", "vouched",
    "wish", "wishe",
}  # fmt: skip
"""In no page of docs/, not in README.md and not in the help of a command, in the singular or with an s."""


def variables(tree: ast.AST) -> set[str]:
    """Return the parameters and the variables that functions assign."""
    names: set[str] = set()
    waiting = [(tree, False)]
    while waiting:
        node, inside = waiting.pop()
        inside = inside or isinstance(node, ast.FunctionDef)
        if inside and isinstance(node, ast.arg):
            names.add(node.arg)
        elif inside and isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        waiting += [(child, inside) for child in ast.iter_child_nodes(node)]
    return names


def test_identifiers_use_the_words_of_the_glossary() -> None:
    old = {}
    for path in modules():
        names = identifiers(nodes(path))
        words = set(re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", " ".join(names)).lower().replace("_", " ").split(" "))
        if bad := (words & GONE) | (variables(tree_of(path)) & NO_VARIABLE if names & NO_VARIABLE else set()):
            old[str(path.relative_to(ROOT))] = bad
    assert not old


def test_documents_and_help_use_the_words_of_the_glossary() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests" / "golden" / "help").glob("*.txt")]
    pattern = re.compile(rf"(?<![\w`./])({'|'.join(sorted(GONE_FROM_TEXT))})s?(?![\w`])", re.IGNORECASE)
    old = {path.name: sorted(set(pattern.findall(path.read_text(encoding="utf-8")))) for path in pages}
    assert len(pages) > 60
    assert not {name: words for name, words in old.items() if words}
