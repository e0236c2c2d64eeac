"""The entry point: Ctrl-C while the commands load, and help that is cut by a pipe."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from agent import entry

ENTRY = [sys.executable, "-c", "from agent.entry import main; main()"]


def test_ctrl_c_while_the_commands_load_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Pressed:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "agent.cli.main":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "agent.cli.main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Pressed(), *sys.meta_path])
    monkeypatch.delattr("agent.cli.main", raising=False)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted: nothing was begun.\n"


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.1, 0.2, 0.3])
def test_ctrl_c_in_the_first_moments__ends_without_a_traceback(after_s: float) -> None:
    process = subprocess.Popen([*ENTRY, "status"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, output = process.communicate(timeout=60)
    assert "Traceback" not in output or "site.py" in output, output  # before that Python itself is loading


def test_help_that_is_cut_by_a_pipe_ends_with_0() -> None:
    process = subprocess.Popen([*ENTRY, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    error_text = process.stderr.read()
    assert (process.wait(60), error_text) == (0, "")
