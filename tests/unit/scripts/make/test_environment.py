"""The environment of a checkout: kept for the Python that made it, named and made anew for another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.make.environment import identity_of

ROOT = Path(__file__).parents[4]
BASE = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")
OTHERS = [path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if identity_of(path) not in {"", identity_of(BASE)}]


def make(environment: Path, python: str = BASE) -> str:
    """Make the environment as the Makefile does, without pip, and return what was printed."""
    command = [python, str(ROOT / "scripts" / "make" / "environment.py"), str(environment), "--without-pip"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def replace_python(environment: Path, script: str) -> None:
    python = environment / "bin" / "python"
    python.unlink()
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)


def dangle(environment: Path) -> None:
    python = environment / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")


def of_another_version(environment: Path) -> None:
    replace_python(environment, "echo /opt/other 3.12.0")


def of_another_place(environment: Path) -> None:
    replace_python(environment, f"echo /opt/other {sys.version.split()[0]}")


def that_crashes(environment: Path) -> None:
    replace_python(environment, "exit 127")


FOREIGN: dict[str, tuple[Callable[[Path], None], str]] = {
    "another version": (of_another_version, "it was made by the Python /opt/other 3.12.0"),
    "the same version in another place": (of_another_place, f"it was made by the Python /opt/other {sys.version.split()[0]}"),
    "a Python that was removed": (dangle, "its Python does not start"),
    "a Python that crashes": (that_crashes, "its Python does not start"),
}


@pytest.mark.parametrize(("change", "reason"), FOREIGN.values(), ids=FOREIGN.keys())
def test_an_environment_of_another_python_is_named_and_made_anew(tmp_path: Path, change: Callable[[Path], None], reason: str) -> None:
    environment = tmp_path / ".venv"
    assert make(environment) == ""
    (environment / ".demo").touch()
    change(environment)
    assert make(environment) == f"{environment} is made anew by the Python {identity_of(BASE)}: {reason}.\n"
    assert not (environment / ".demo").exists(), "nothing of it is left, nor the mark that it is installed"
    assert identity_of(str(environment / "bin" / "python")) == identity_of(BASE)
    assert make(environment) == ""


@pytest.mark.skipif(not OTHERS, reason="there is one Python here")
def test_a_second_python_of_this_machine_makes_it_anew_with_pip(tmp_path: Path) -> None:
    environment = tmp_path / ".venv"
    make(environment)
    for python in (OTHERS[0], BASE):
        command = [python, str(ROOT / "scripts" / "make" / "environment.py"), str(environment)]
        assert "is made anew" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert identity_of(str(environment / "bin" / "python")) == identity_of(python)
        subprocess.run([environment / "bin" / "python", "-m", "pip", "--version"], capture_output=True, check=True)


def test_the_same_python_keeps_what_is_installed(tmp_path: Path) -> None:
    environment = tmp_path / ".venv"
    make(environment)
    (environment / ".demo").touch()
    assert make(environment) == ""
    assert make(environment, str(environment / "bin" / "python")) == "", "from an active environment too"
    assert (environment / ".demo").exists()


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    assert make(tmp_path) == ""
    assert (tmp_path / "kept").read_text() == "mine"


def test_each_environment_of_the_makefile_is_made_by_the_script() -> None:
    text = (ROOT / "Makefile").read_text()
    assert "$(PYTHON) scripts/make/environment.py $(1)" in text
    assert "-m venv" not in text
