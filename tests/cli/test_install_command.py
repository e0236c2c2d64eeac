"""trimtab install: shows its units, writes and starts them, and removes them. systemd is not booted: systemctl notes its words."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.app.start import units
from agent.errors import EXIT_HUNG, EXIT_OPERATOR, EXIT_REFUSED, EXIT_USAGE
from tests.cli.tools import CommandResult
from tests.support.agents import config
from tests.support.commands.checks import require_command
from tests.support.text import mentions

Bare = Callable[..., CommandResult]
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "PrivateUsers": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "RestrictSUIDSGID": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "UMask": "0077",
    "LimitCORE": "0",
}
TELEGRAM = '[telegram]\ntoken_env = "TRIMTAB_TELEGRAM"\nchats = [1]\n'
RUN = "trimtab.service"
SERVE = "trimtab-serve.service"
BOT = "trimtab-telegram.service"


@pytest.fixture
def owned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config with a bot, in a home of its own; `systemctl` and `loginctl` write their words into `calls`."""
    path = config(tmp_path)
    path.write_text(f"{path.read_text()}{TELEGRAM}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "mine.db").touch()
    monkeypatch.setattr(units, "SYSTEM_FOLDER", tmp_path / "system")
    for name in ("systemctl", "loginctl"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            f'#!/bin/sh\necho "{name} $@" >> "{tmp_path}/calls"\n[ ! -e "{tmp_path}/fails" ] || {{ echo no such bus >&2; exit 1; }}\n'
        )
        program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return path


def calls(folder: Path) -> list[str]:
    noted = folder / "calls"
    return noted.read_text().splitlines() if noted.exists() else []


def unit(text: str) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",), delimiters=("=",))
    parsed.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys keep their case
    parsed.read_string(text)
    return parsed


def units_of(bare: Bare, path: Path, *args: str) -> dict[str, configparser.ConfigParser]:
    result = bare("install", "--config", str(path), *args, "--json")
    assert result.code == 0, result.why
    return {Path(unit_document["path"]).name: unit(unit_document["text"]) for unit_document in result.json["units"]}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
def test_config_of_an_unknown_user__has_no_system_unit(bare: Bare, owned: Path) -> None:
    os.chown(owned, 54_321, -1)
    result = bare("install", "run", "--config", str(owned), "--system", "--json")
    assert result.code == EXIT_USAGE
    assert "is no user of this machine" in result.json["error"]["message"]


@pytest.mark.parametrize("system", [(), ("--system",)])
def test_units__are_hardened_and_restart_only_what_that_helps(bare: Bare, owned: Path, system: tuple[str, ...]) -> None:
    os.chown(owned, 1, -1) if system and os.geteuid() == 0 else None
    if system and owned.owner() == "root":
        pytest.skip("only root gives files to another user")
    unit_by_name = units_of(bare, owned, *system, "--send", "--yes")
    assert set(unit_by_name) == {RUN, SERVE, BOT}
    for name, parsed in unit_by_name.items():
        service = parsed["Service"]
        program, *words = shlex.split(service["ExecStart"])
        assert Path(program).name == "trimtab"
        require_command(words)
        assert words[1:3] == ["--config", str(owned)]
        assert ("--send" in words) is (name == RUN)
        assert {key: service[key] for key in HARDENED} == HARDENED
        assert f"-{owned.parent}" in service["ReadWritePaths"].split()
        assert (service["Restart"], service["KillSignal"]) == ("on-failure", "SIGTERM")
        prevented = {int(code) for code in service["RestartPreventExitStatus"].split()}
        assert prevented == {EXIT_USAGE, EXIT_OPERATOR}
        assert not prevented & {EXIT_REFUSED, EXIT_HUNG}
        assert service["Type"] == ("notify" if name == RUN else "exec")
        assert ("WatchdogSec" in service) is (name == RUN)
        assert ("InaccessiblePaths" in service) is ("UnsetEnvironment" in service) is (name != RUN)
        assert service.get("User") == (owned.owner() if system else None)
        assert parsed["Install"]["WantedBy"] == ("multi-user.target" if system else "default.target")
    assert unit_by_name[SERVE]["Service"]["InaccessiblePaths"] == f"-{owned.parent / 'wallet.json'}"
    assert not calls(owned.parent)
    assert not list(owned.parent.glob("s*/**/*.service"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here; the units are parsed above")
def test_systemd_finds_no_fault_with_written_units(bare: Bare, owned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = bare("install", "--config", str(owned), "--write")
    assert result.code == 0, result.why
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(owned.parent))
    written = sorted((owned.parent / "settings" / "systemd" / "user").iterdir())
    done = subprocess.run(["systemd-analyze", "verify", "--user", *written], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if any(path.name in line for path in written)] == []  # others' units may have faults
    assert len(written) == 3


def test_units__are_written_started_and_removed_apart(bare: Bare, owned: Path) -> None:
    folder = owned.parent / "settings" / "systemd" / "user"
    env_file = owned.parent / "environment"
    env_file.write_text("RPC_A=x\n")
    env_file.chmod(0o644)
    assert bare("install", "run", "--config", str(owned), "--env-file", str(env_file)).code == 0
    assert env_file.stat().st_mode & 0o777 == 0o644, "only --write changes a file"
    result = bare("install", "run", "--config", str(owned), "--env-file", str(env_file), "--write")
    assert result.code == 0, result.why
    service = unit((folder / RUN).read_text())["Service"]
    assert service["EnvironmentFile"] == str(env_file)
    assert env_file.stat().st_mode & 0o777 == 0o600
    assert "--send" not in service["ExecStart"]
    assert calls(owned.parent) == [
        "loginctl enable-linger",
        *(f"systemctl --user {words}" for words in ("daemon-reload", f"enable {RUN}", f"restart {RUN}")),
    ]
    other = config(owned.parent, "other")
    for words in ((), ("--remove",)):
        refused = bare("install", "run", "--config", str(other), *words, "--write")
        assert refused.code == 2
        assert mentions(refused.err, "is not a unit of", "--name")
    assert bare("install", "--config", str(owned), "--remove").code == 0
    assert (folder / RUN).exists()
    assert bare("install", "--config", str(owned), "--remove", "--write").code == 0
    assert not list(folder.iterdir())
    assert calls(owned.parent)[-2:] == [f"systemctl --user disable --now {RUN}", "systemctl --user daemon-reload"]
    gone = bare("install", "--config", str(owned), "--remove")
    assert (gone.code, mentions(gone.err, "no such unit")) == (2, True)


def test_a_unit_that_does_not_start_asks_for_the_operator(bare: Bare, owned: Path) -> None:
    (owned.parent / "fails").touch()
    result = bare("install", "run", "--config", str(owned), "--write")
    assert result.code == EXIT_OPERATOR
    assert mentions(result.err, "no such bus", f"journalctl --user -u {RUN}")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--send",), "--offer"),
        (("--yes",), "--send"),
        (("--send", "--yes", "--offer"), "--send"),
        (("--name", "a b"), "--name"),
        (("--every", "soon"), "--every"),
        (("--env-file", "nowhere"), "--env-file"),
        (("--config", "unopened.toml"), "trimtab trust"),
    ],
)
def test_what_no_service_can_run_is_named(
    bare: Bare, owned: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], named: str
) -> None:
    config(owned.parent, "unopened")
    monkeypatch.chdir(owned.parent)
    result = bare("install", "--config", str(owned), *words, "--write")
    assert result.code == 2
    assert named in result.err
    assert not calls(owned.parent)


def test_a_path_that_systemd_would_misread_is_refused(bare: Bare, owned: Path) -> None:
    folder = owned.parent / "my %h books"
    folder.mkdir()
    result = bare("install", "--config", str(config(folder)))
    assert result.code == 2
    assert mentions(result.err, "misread")
