"""The process that reads for the dashboard: it ends whatever moment it is interrupted in."""

from __future__ import annotations

import ast
import inspect
import re
from concurrent.futures import process
from pathlib import Path

import pytest

from agent.app.controls import queue
from agent.errors import OperatorNeeded, TrimtabError
from agent.ports.users import UsersPlace
from agent.web import app_modules
from agent.web.reading import AppProcess, _call


def test_process_interrupted_at_its_start__stops_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: process._ExecutorManagerThread) -> None:
        raise KeyboardInterrupt

    reading = AppProcess()
    with monkeypatch.context() as patched:
        patched.setattr(process._ExecutorManagerThread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reading.submit(app_modules.queue.warm_up, "")
    reading.stop()
    assert reading.submit(app_modules.queue.warm_up, "").result() is None, "it begins again"
    reading.stop()


def test_a_file_that_may_not_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose user does not own the files says which."""
    file = tmp_path / "trimtab.db.users"
    for error in (PermissionError(13, "Permission denied", str(file)), IsADirectoryError(21, "Is a directory", file)):
        with pytest.raises(OperatorNeeded, match=re.escape(f"{file}: {error.strerror}")) as named:
            refused_by(error, monkeypatch)
        assert "uid and group" in named.value.remedy
    with pytest.raises(TrimtabError, match="internal error at"):
        refused_by(OSError(28, "No space left on device"), monkeypatch)
    with pytest.raises(TrimtabError, match="internal error at"):
        refused_by(ValueError(f"{file} with a secret"), monkeypatch)


def refused_by(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(queue, "warm_up", fail)
    _call(app_modules.queue.warm_up)


def test_the_process_itself_names_the_file(tmp_path: Path) -> None:
    """A real process, and a folder where the file should be."""
    folder = tmp_path / "trimtab.db.users"
    folder.mkdir()
    reading = AppProcess()
    try:
        with pytest.raises(TrimtabError, match=re.escape(str(folder))):
            reading.submit(app_modules.users.known_users, UsersPlace(str(folder))).result()
    finally:
        reading.stop()


def test_each_module_has_the_name_that_type_checkers_see() -> None:
    imports = [node for node in ast.walk(ast.parse(inspect.getsource(app_modules))) if isinstance(node, ast.ImportFrom)]
    checked = {
        alias.name: f"{node.module}.{alias.name}"
        for node in imports
        for alias in node.names
        if str(node.module).startswith(("agent.app", "agent.fleet"))
    }
    assert {name: module.__name__ for name, module in vars(app_modules).items() if isinstance(module, app_modules.AppModule)} == checked


def test_function__cannot_be_called_by_the_serving_process() -> None:
    with pytest.raises(TypeError):
        app_modules.queue.warm_up("")
