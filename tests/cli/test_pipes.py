"""Commands where output is piped, full or in ASCII, by -h and -V, and completed by the shell: as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from agent.cli.main import app, main
from tests.cli.tools import TRIMTAB, in_process

WHATIF = ("whatif", "--target", "BTC=50,ETH=30,USD=20", "--value", "BTC=5800,ETH=2700,USD=1500", "--band", "10%rel")
MANY = ",".join(f"ASSET{number}={{0}}" for number in range(10))
LONG = ("whatif", "--target", f"{MANY.format(9)},USD=10", "--value", f"{MANY.format(100)},USD=5000", "--band", "10%rel")


def repeats(*values: Any) -> list[Any]:
    """Cases that go the way of one before them."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def spoken(*args: str, out: Any = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")}
    return subprocess.run([*TRIMTAB, *args], stdout=out, stderr=subprocess.PIPE, text=True, env=settings | environment, check=False)


@pytest.mark.parametrize(
    "args", [("templates", "--json"), ("--help",), *repeats(WHATIF, ("--version",), (*WHATIF, "--json"))], ids=" ".join
)
def test_a_full_disk_ends_with_a_clean_error(args: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = spoken(*args, out=full)
    assert done.returncode == 12, done
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "No space left on device" in done.stderr


def test_a_full_disk_for_messages_too_keeps_the_exit_code() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*TRIMTAB, "whatif", "--target", "BTC=½"], stdout=full, stderr=full, check=False)
    assert done.returncode in (2, 12)


def test_a_reader_that_had_enough_ends_it_quietly() -> None:
    line = " ".join(f"'{part}'" for part in (*TRIMTAB, *WHATIF))
    done = subprocess.run(["bash", "-c", f"{line} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=False)
    assert done.stdout.strip() in ("0", "12")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("args", "code"),
    [(("templates",), 12), (("--help",), 0)],
    ids=str,
)
def test_a_pipe_that_is_closed_loses_the_output(args: tuple[str, ...], code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = spoken(*args, out=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (code, "")


# Either setting makes Python write ASCII.
ASCII = {"PYTHONIOENCODING": "ascii"}
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("args", "environment"),
    [
        (WHATIF, ASCII),
        (("--help",), PLAIN),
        (("whatif", "--target", "BTC=½"), PLAIN),
        pytest.param(WHATIF, PLAIN, marks=pytest.mark.slow),
        pytest.param(("templates",), PLAIN, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_an_ascii_terminal_gets_plain_signs(args: tuple[str, ...], environment: dict[str, str]) -> None:
    done = spoken(*args, **environment)
    assert done.returncode in (0, 2), done
    assert (done.stdout + done.stderr).isascii()
    assert "Traceback" not in done.stderr
    assert "codec" not in done.stderr


def test_piped_text_breaks_where_its_sentences_do(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    done = in_process(capfd, monkeypatch, *LONG)
    assert done.code == 0, done
    assert max(map(len, done.out.splitlines())) > 120
    monkeypatch.setenv("COLUMNS", "400")
    wide = in_process(capfd, monkeypatch, *LONG).out
    assert [line.rstrip() for line in done.out.splitlines()] == [line.rstrip() for line in wide.splitlines()]


@pytest.mark.parametrize("args", [("-h",), ("plan", "-h"), ("orders", "set", "-h")], ids=" ".join)
def test_h_is_help_everywhere(args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["trimtab", *args])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "Usage: trimtab" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["-V", pytest.param("--version", marks=pytest.mark.slow)])
def test_the_version_is_told(option: str) -> None:
    assert spoken(option).stdout == f"trimtab {version('trimtab')}\n"


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", ".bashrc"),
        pytest.param("zsh", ".zshrc", marks=pytest.mark.slow),
        pytest.param("fish", ".config/fish/completions/trimtab.fish", marks=pytest.mark.slow),
    ],
)
def test_completion_is_installed_and_completes(shell: str, file: str, tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("trimtab"))
    settings = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run([program, "--install-completion", shell], capture_output=True, text=True, env=settings, check=False)
    assert done.returncode == 0, done
    assert (tmp_path / file).is_file()
    variables = {"_TRIMTAB_COMPLETE": "complete_bash", "COMP_WORDS": "trimtab reb", "COMP_CWORD": "1"}
    assert "rebalance" in subprocess.run([program], capture_output=True, text=True, env=settings | variables, check=False).stdout
    assert app.info.name == "trimtab"
