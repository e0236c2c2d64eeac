"""The shape of the house, proven from the syntax trees: imports point one way, pure packages stay pure."""

from __future__ import annotations

import ast
import functools
import gc
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.syntax_trees import AGENT, ROOT, identifiers, imported_names, nodes, tree_of

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
PURE = next(contract["source_modules"] for contract in CONTRACTS if contract["name"] == "The pure packages do no input or output")
"""Modules and packages that decide: they do no IO, and calculate the same on every machine."""
IMPURE_CALLS = {"open", "print", "input"}
ADAPTER_NAMERS = {"wiring", "localchain", "backtest", "chain", "venues", "store"}
"""Packages that may name adapters: their own, and those that wire them."""
ADAPTERS = {
    "agent.chain.snapshot.ChainReader",
    "agent.signing.rules.LocalSigner",
    "agent.chain.sender.NodeSender",
    "agent.chain.sender.QuorumSender",
    "agent.chain.providers.endpoint.EndpointProvider",
    "agent.chain.providers.eth_tester.EthTesterTransport",
    "agent.store.opening.open_store",
    "agent.venues.composer.RouterComposer",
}
SAME_MATH = {"ceil", "factorial", "floor", "fsum", "gcd", "inf", "isfinite", "isqrt", "lcm", "ldexp", "pi", "sqrt"}
"""Of math what is rounded once (IEEE 754) or exact; exp, log and pow are the C library's, which chooses them by processor."""
SAME_NUMPY = {
    "abs", "add", "append", "arange", "argsort", "array", "asarray", "ascontiguousarray", "bincount", "bool_", "clip", "concatenate",
    "count_nonzero", "cumsum", "diag", "errstate", "eye", "fill_diagonal", "flatnonzero", "float64", "full", "inf", "insert", "intp",
    "isfinite", "ix_", "maximum", "minimum", "ones", "outer", "ptp", "repeat", "searchsorted", "sqrt", "square", "unravel_index",
    "where", "zeros",
}  # fmt: skip
"""Of NumPy what is done entry by entry with one rounding, or summed by index (bincount, cumsum, add.accumulate)."""
OWN_ORDER = {"sum", "mean", "std", "var", "dot", "prod", "cumprod", "trace", "matmul"}
"""Methods of arrays that sum in an order of NumPy's choosing."""
EXACT_TOO = {"agent.floats.DECIMAL_CONTEXT", "agent.floats.dispersion_floor"}
"""Of agent/floats.py what calculates decimals and fractions too: a module that takes nothing else of it has no floats."""
IN_BLAS_OR_LIBM = {"statistics", "cmath", "scipy", "sklearn", "cvxpy"}
CHOOSES_WHAT_IS_READ = {"chain/watch.py"}
"""Outside the pure rooms: what decides which ticks a step sees."""
NOT_DECIDING = {"accounting/money_weighted.py": "rates of return that are shown; nothing is decided by it"}


@pytest.fixture(scope="module", autouse=True)
def trees_live_to_the_end() -> Iterator[None]:
    """The garbage collector goes through them neither now nor at the end."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


@functools.cache
def modules() -> list[Path]:
    return sorted(path for path in AGENT.rglob("*.py") if "migrations" not in path.parts)


def package(path: Path) -> str:
    return path.relative_to(AGENT).parts[0].removesuffix(".py")


def stages() -> list[list[str]]:
    """Modules of each stage of the first contract, the package of the core first."""
    return [[name.strip() for name in stage.split(":")] for stage in CONTRACTS[0]["layers"]]


def is_pure(module: str) -> bool:
    """Whether the contract of the pure packages names a module, or a package that holds it."""
    return any(re.fullmatch(re.escape(pattern).replace(r"\*", r"\w+") + r"(\.\w+)*", module) for pattern in PURE)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def pure_modules() -> list[Path]:
    return [path for path in modules() if is_pure(module_name(path))]


def named(node: Iterable[tuple[Path, object]]) -> dict[str, object]:
    """What was found by file, where anything was: a test over all files names each that fails."""
    return {str(path.relative_to(ROOT)): wrong for path, wrong in node if wrong}


def test_imports_keep_the_contracts() -> None:
    """Layers, no cycle, pure packages, web3's place and what the command line may not import: [tool.importlinter] in pyproject.toml."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_file_of_a_layer_has_a_stage() -> None:
    """The contract says nothing of what it does not list."""
    listed = {name for stage in stages() for name in stage}
    files = {path.relative_to(AGENT).parts[1:3] for path in modules() if path.relative_to(AGENT).parts[0] == "layers"}
    names = {".".join(("agent.layers", *parts)).removesuffix(".py") for parts in files if parts[-1] != "__init__.py"}
    assert names == {name for name in listed if name.startswith("agent.layers.")}


def test_pure_packages_open_and_print_nothing() -> None:
    assert len(pure_modules()) > 240
    assert not named((path, called(nodes(path)) & IMPURE_CALLS) for path in pure_modules())


def test_a_layer_s_file_beside_a_pure_stage_is_pure() -> None:
    pure_stages = [stage for stage in stages() if is_pure(stage[0])]
    assert any(stage[0] == "agent.policy" and "agent.layers.holding.policy" in stage for stage in pure_stages)
    assert [name for stage in pure_stages for name in stage if not is_pure(name)] == []


def test_a_package_that_may_touch_nothing_is_pure() -> None:
    """Of the table in docs/architecture.md."""
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", (ROOT / "docs/architecture.md").read_text(encoding="utf-8"), re.MULTILINE)
    untouching = {f"agent.{name}" for name, touched in rows if touched.startswith("nothing")}
    assert len(untouching) > 12
    assert untouching <= set(PURE)


def called(every: Iterable[ast.AST]) -> set[str]:
    """Names that are called as functions."""
    return {n.func.id for n in every if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}


def may_differ(every: Sequence[ast.AST]) -> list[str]:
    """Operations whose last bits, or order, are another machine's to choose; in modules with floats also ** and sum() of them."""
    used = {alias.name for node in every if isinstance(node, ast.Import) for alias in node.names}
    parts = [node for node in every if isinstance(node, ast.ImportFrom) and node.module]
    used |= {f"{node.module}.{alias.name}" for node in parts for alias in node.names}
    floats = "numpy" in used or any(name.startswith("agent.floats.") for name in used - EXACT_TOO)
    floats |= any(isinstance(node, ast.Attribute) and node.attr in {"sqrt", "fsum"} and ast.unparse(node.value) == "math" for node in every)
    names_found = [name for name in used if name.split(".")[0] in IN_BLAS_OR_LIBM]
    for node in every:
        match node:
            case ast.ImportFrom(module="math", names=names):
                names_found += [f"math.{alias.name}" for alias in names if alias.name not in SAME_MATH]
            case ast.Attribute(value=ast.Name(id="math"), attr=name) if name not in SAME_MATH:
                names_found.append(f"math.{name}")
            case ast.Attribute(value=ast.Name(id="np"), attr=name) if name not in SAME_NUMPY:
                names_found.append(f"np.{name}")
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id="np"), attr=ufunc), attr=name) if name != "accumulate":
                names_found.append(f"np.{ufunc}.{name}")
            case ast.Call(func=ast.Attribute(attr=name), keywords=keywords) if floats:
                if name in OWN_ORDER or (name in {"sort", "argsort"} and not any(keyword.arg == "kind" for keyword in keywords)):
                    names_found.append(f".{name}()")
            case ast.Call(func=ast.Name(id="hash" | "pow" as name)):
                names_found.append(f"{name}()")
            case ast.Call(func=ast.Name(id="sum"), args=[ast.GeneratorExp(elt=elt)]) if floats and is_whole(elt):
                pass
            case ast.Call(func=ast.Name(id="sum"), args=[_]) if floats:
                names_found.append("sum() without a Fraction to begin with")
            case ast.BinOp(op=ast.MatMult()):
                names_found.append("@")
            case ast.BinOp(left=base, op=ast.Pow(), right=power) if floats:
                if not (isinstance(base, ast.Constant) and isinstance(power, ast.Constant)):
                    names_found.append("**")
    return names_found


def is_whole(node: ast.AST) -> bool:
    """Whether an expression is base units or a count by its looks."""
    match node:
        case ast.Attribute(attr=name):
            return name.endswith("_raw")
        case ast.IfExp(body=body, orelse=orelse):
            return is_whole(body) and is_whole(orelse)
        case ast.Constant(value=value):
            return isinstance(value, int)
    return False


def test_pure_packages_calculate_the_same_on_every_machine() -> None:
    """docs/architecture.md, Determinism; tests/unit/scenarios/test_machines.py shows it on other machines."""
    names = {str(path.relative_to(AGENT)): path for path in modules()}
    deciding = {*pure_modules(), *(names[name] for name in CHOOSES_WHAT_IS_READ)} - {names[name] for name in NOT_DECIDING}
    assert not named((path, may_differ(nodes(path))) for path in sorted(deciding)), "take it from agent/floats.py"


@pytest.mark.parametrize(
    "text",
    ["import numpy as np\nnp.exp(x)", "import numpy as np\na @ b", "import numpy as np\na.sum()", "import math\nmath.log(x)", "hash(x)",
     "from math import pow", "import numpy as np\nnp.linalg.solve(a, b)", "import numpy as np\nnp.add.reduce(a)",
     "import numpy as np\nnp.argsort(a)", "from agent.floats import dot\nx ** 0.5", "from agent.floats import dot\nsum(xs)",
     "from scipy.stats import norm"],
)  # fmt: skip
def test_what_machines_calculate_differently_is_found(text: str) -> None:
    assert may_differ([*ast.walk(ast.parse(text))])


def test_only_the_wiring_names_adapters() -> None:
    others = [path for path in modules() if package(path) not in ADAPTER_NAMERS]
    assert not named((path, imported_names(path) & ADAPTERS) for path in others)


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


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(' '.join(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_help_loads_neither_libraries_nor_the_model() -> None:
    code = """
sys.argv = ['trimtab', '--help']
from agent.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code
"""
    loaded = loaded_by(code)
    assert "typer" in loaded
    assert not loaded & {"web3", "scipy", "numpy", "sqlalchemy", "eth_account", "uniswap", "agent.model"}


def test_commands_load_web3_only_to_connect() -> None:
    """Reading the store, a file or a config connects to nothing."""
    loaded = loaded_by(
        "import agent.app.agent, agent.wiring.transactor, agent.wiring.context, agent.chain.second_quote, agent.chain.sender"
    )
    assert {"agent.chain.endpoints", "sqlalchemy"} <= loaded
    assert not loaded & {"web3", "uniswap"}


def test_a_pure_module_loads_no_web3() -> None:
    assert not loaded_by("import agent.planning.planner") & {"web3", "sqlalchemy", "requests"}


NAME_FEATURES = {"app", "cli", "backtest", "research", "web", "config", "localchain", "paper", "observe", "wiring"}
"""Packages beside the core, which name features by nature: commands, pages, settings, back-tests."""


def test_a_layer_is_imported_by_the_registries_alone() -> None:
    """Neither the core nor another layer imports a layer's folder; agent/layers/STAGE.py does. A contract in pyproject.toml holds the
    first half.
    """
    layers = {path.parts[-2] for path in modules() if path.parent.parent == AGENT / "layers"}
    assert {"futures", "gradual", "liquidity", "signals", "strategies", "tax"} <= layers
    core = [path for path in modules() if package(path) not in NAME_FEATURES and path.parent != AGENT / "layers"]
    assert not named((path, layers_of(imported_names(path)) & layers - {*path.relative_to(AGENT).parts[1:2]}) for path in core)


def layers_of(names: Iterable[str]) -> set[str]:
    """Names of the layers among imported modules."""
    return {name.split(".")[2] for name in names if name.startswith("agent.layers.")}


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


READS_THE_ENVIRONMENT = {
    "agent/__init__.py": "threads of BLAS, which it reads once, as it is imported",
    "agent/key_variables.py": "the environment of a process without keys; the one function that returns it to the rest",
    "agent/config/secrets/env_file.py": "where variables become values of a config",
    "agent/app/start/guide.py": "set-up says which variables are set, before there is a config",
    "agent/app/start/wallet.py": "--password-env names a variable on the command line, not in a config",
    "agent/layers/signals/host.py": "PATH and language of a child process, which gets nothing else",
    "agent/observe/watch.py": "NOTIFY_SOCKET of systemd, which belongs to the process",
    "agent/cli/display/terminal.py": "COLUMNS of the terminal",
}
"""Files below the entry that may read the process's environment, each with its reason. Portfolios of one process share it (T43)."""


def test_variables_are_values_of_a_config_not_the_environments() -> None:
    readers = {str(path.relative_to(ROOT)) for path in modules() if reads_environment(nodes(path))}
    assert readers == set(READS_THE_ENVIRONMENT)


@pytest.mark.parametrize(
    "code",
    [
        "os.environ['X']",
        "os.getenv('X')",
        "os.environb.get(b'X')",
        "from os import environ",
        "from os import getenv as read",
        "process_environment()",
        "import os as system\nsystem.environ.update(x)",
    ],
)
def test_each_way_to_the_environment_is_noticed(code: str) -> None:
    assert reads_environment(ast.walk(ast.parse(code)))
    assert not reads_environment(ast.walk(ast.parse("os.path.join(a)\nvariables.environment\nfrom os import fsync")))


def reads_environment(syntax_nodes: Iterable[ast.AST]) -> bool:
    """Whether code names the process's environment."""
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "process_environment"}
    return any(
        (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.Name) and node.id in names)
        or (isinstance(node, ast.ImportFrom) and any(alias.name in names for alias in node.names))
        for node in syntax_nodes
    )


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
