"""Scripts run in this process."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.cli.tools import SECRET, CommandResult

SCRIPTS = Path(__file__).parents[3] / "scripts"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *args: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandResult:
    """A script's own main, in this process."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *args])
    capfd.readouterr()
    try:
        code = script(name).main()
    except SystemExit as ended:  # argparse
        code = ended.code
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    assert SECRET not in captured.out + captured.err
    return CommandResult(int(code or 0), captured.out, captured.err)
