"""Imports point one way, pure packages stay pure and calculate alike on every machine; proven from the syntax trees."""

from __future__ import annotations

import ast
import gc
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.syntax_trees import AGENT, ROOT, imported_names, modules, named, nodes

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


def test_modules_that_connect__load_web3_only_then() -> None:
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


def test_other_names_of_os_are_no_way_to_the_environment() -> None:
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
