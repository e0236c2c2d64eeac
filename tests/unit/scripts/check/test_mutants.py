"""The mistakes that make mutants breaks a file with: each compiles, is another program, and stands where something runs."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from scripts.check.mistakes import make_mutant, possible_mistakes
from scripts.check.mutants import RunOnceNames
from scripts.check.pure import expand_patterns

SOURCE = '''
def paid(amount: int | None, fee: int = 3) -> int | None:
    """Text that says nothing."""
    if amount is None or amount <= 0:
        raise ValueError(f"{amount:>8}")
    amount -= fee
    if (
        amount == fee
    ):
        fee = 4
    return max(amount // 2, not fee)
'''


def test_each_mistake_is_another_program_and_annotations_stay(tmp_path: Path) -> None:
    (tmp_path / "paid.py").write_text(SOURCE)
    mistakes = [make_mutant(tmp_path, *possible_mistake) for possible_mistake in possible_mistakes(tmp_path, "paid.py")]
    right = ast.unparse(ast.parse(SOURCE))
    assert all(compile(mistake.source, "paid.py", "exec") and mistake.source != right for mistake in mistakes)
    assert len({mistake.source for mistake in mistakes}) == len(mistakes)
    changes = {(mistake.line, mistake.change) for mistake in mistakes}
    assert {
        (2, "3 -> 4"),
        (4, "amount <= 0 -> amount < 0"),
        (4, "amount <= 0 -> amount > 0"),
        (4, "amount is None -> amount is not None"),
        (5, "raise ValueError(f'{amount:>8}') -> pass"),
        (6, "amount -= fee -> pass"),
        (8, "if amount == fee: -> if not amount == fee:"),
        (11, "amount // 2 -> -(-amount // 2)"),
        (11, "not fee -> fee"),
        (11, "return max(amount // 2, not fee) -> return None"),
    } <= changes
    assert all("int | None" in mistake.source.splitlines()[0] for mistake in mistakes)


PLAIN = """
POLL_S, DAY_S = 3, 5
WAIT_S = 30
FEE_BPS = 30

@dataclass(frozen=True, slots=True)
class Row:
    size: int = 7

def read(pairs, most=MAX_ROWS):
    if len(pairs) > WAIT_S:
        raise ValueError(f"{len(pairs) + 1} pairs", 2)
    return dict(zip(pairs, pairs, strict=True)), fetch(timeout=9)

def downgrade():
    raise NotImplementedError("no way back")

name = mapped_column(String(40))
"""


def test_texts_declarations_and_chosen_numbers__are_no_mistakes(tmp_path: Path) -> None:
    (tmp_path / "read.py").write_text(PLAIN)
    changes = {make_mutant(tmp_path, *place).change.split(" -> ")[0] for place in possible_mistakes(tmp_path, "read.py")}
    assert changes == {
        "3", "5", "30", "7", "len(pairs) > WAIT_S", "if len(pairs) > WAIT_S:", "raise ValueError(f'{len(pairs) + 1} pairs', 2)",
        "return (dict(zip(pairs, pairs, strict=True)), fetch(timeout=9))",
    }  # fmt: skip
    assert sum(make_mutant(tmp_path, *place).line == 3 for place in possible_mistakes(tmp_path, "read.py")) == 0


QUERIES = """
LIMIT = 5
_newest = cache(lambda: select(LIMIT))

@cache
def _oldest():
    return _newest().reversed()

def rows(db):
    return db.rows(
        _oldest(),
    )
"""


def test_what_runs_once_in_a_process_is_used_where_it_is_named(tmp_path: Path) -> None:
    """Only the first test of a process runs the line of a cached query; the tests of its users decide about a mistake in it."""
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "queries.py").write_text(QUERIES)
    (tmp_path / "agent" / "other.py").write_text("_newest = 1\nprint(_newest, LIMIT)\n")
    names = RunOnceNames(tmp_path)
    used = {place for place in names.using_lines("agent/queries.py", 3) if place[0].endswith("queries.py")}
    assert {line for _, line in used} >= {7, 10, 11}
    assert ("agent/other.py", 2) not in names.using_lines("agent/queries.py", 3)
    assert ("agent/other.py", 2) in names.using_lines("agent/queries.py", 2)
    assert names.using_lines("agent/queries.py", 10) == set()


ROOT = Path(__file__).parents[4]
MONEY = (
    "amm",
    "chain",
    "execution",
    "guards",
    "layers",
    "margin",
    "model",
    "planning",
    "policy",
    "reference",
    "signing",
    "store",
    "venues",
    "web",
)


def makefile_list(name: str) -> str:
    """The value of a variable of the Makefile, with those that it names."""
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    value = re.search(rf"^{name} \??:?= (.*)$", text, re.MULTILINE)
    assert value is not None, name
    return re.sub(r"\$\(([A-Z]+)\)", lambda inner: makefile_list(inner[1]), value[1])


@pytest.mark.parametrize("package", MONEY)
def test_every_file_of_money_code_is_broken(package: str) -> None:
    patterns = expand_patterns(makefile_list("MUTATED"))
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "agent" / package).rglob("*.py")]
    assert [file for file in files if not any(fnmatch(file, pattern) for pattern in patterns)] == []


@pytest.mark.parametrize("name", ["NEAR_TESTS", "PLAIN_TESTS"])
def test_every_test_file_that_the_makefile_names_is_there(name: str) -> None:
    """make drops a name without a file silently."""
    value = makefile_list(name)
    named = list[str]()
    for prefix, stems in re.findall(r"addprefix (\S+?),([^)]*)\)", value):
        named += [prefix + stem for stem in stems.split()]
    if not named:
        named = re.sub(r"\$\(wildcard ([^)]*)\)", r"\1", value).split()
    assert len(named) > 10
    assert [path for path in named if not list(ROOT.glob(path))] == []
