"""The systemd unit and the container file: they verify, they are hardened, and every command in them exists."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from agent.cli.main import app
from agent.errors import EXIT_HUNG, EXIT_OPERATOR, EXIT_USAGE

ROOT = Path(__file__).parent.parent.parent
UNIT = ROOT / "scripts" / "trimtab.service"
CONTAINER = ROOT / "scripts" / "Containerfile"
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "CapabilityBoundingSet": "",
    "RestrictSUIDSGID": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "UMask": "0077",
    "LimitCORE": "0",
    "User": "trimtab",
}


def unit() -> configparser.ConfigParser:
    found = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",), delimiters=("=",))
    found.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys keep their case
    found.read_string(UNIT.read_text())
    return found


def require_command(words: list[str]) -> None:
    """`trimtab` with these words is a command with options that exist, and the values they take."""
    command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]  # click's Group, which Typer makes of several commands
    command.make_parser(command.context_class(command)).parse_args(words[1:])
    options = {option: param for param in command.params for option in param.opts}
    assert all(word in options for word in words[1:] if word.startswith("-")), words


def test_the_unit_starts_a_command_that_exists() -> None:
    program, *words = shlex.split(unit()["Service"]["ExecStart"])
    assert Path(program).name == "trimtab"
    require_command(words)


def test_a_command_with_an_unknown_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="--nowhere"):
        require_command(["run", "--nowhere"])


def test_the_unit_is_hardened_and_starts_again_only_what_that_helps() -> None:
    service = unit()["Service"]
    assert {key: service[key] for key in HARDENED} == HARDENED
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"].split() == [str(EXIT_USAGE), str(EXIT_OPERATOR)]
    assert str(EXIT_HUNG) not in service["RestartPreventExitStatus"].split()
    assert (service["Type"], service["KillSignal"]) == ("notify", "SIGTERM")
    assert not [key for key in service if "PASSWORD" in service[key].upper() or "://" in service[key]]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here; the unit is parsed above")
def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path) -> None:
    """With the program's own path in the place of /opt/trimtab, which is not on this machine."""
    program = shlex.split(unit()["Service"]["ExecStart"])[0]
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(program, str(Path(sys.executable).with_name("trimtab"))))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", "\n".join(line for line in CONTAINER.read_text().splitlines() if not line.startswith("#")))
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def test_the_container_runs_trimtab_itself_and_not_as_root() -> None:
    found = instructions()
    last = dict(found[max(i for i, (name, _) in enumerate(found) if name == "FROM") :])
    assert json.loads(last["ENTRYPOINT"]) == ["trimtab"], "the exec form: signals reach the program"
    require_command(json.loads(last["CMD"]))
    assert last["USER"].split(":")[0].isdecimal()
    assert int(last["USER"].split(":")[0]) > 0
    assert last["STOPSIGNAL"] == "SIGTERM"
    program, *words = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])
    require_command(words)
    assert (program, words[0]) == ("trimtab", "health")
    assert words[words.index("--config") + 1] in json.loads(last["CMD"]), "the config of the run beside it"


def test_what_the_container_copies_is_there_and_no_secret_is_built_in() -> None:
    for name, value in instructions():
        if name == "COPY" and not value.startswith("--from"):
            for source in value.split()[:-1]:
                assert (ROOT / source).exists(), source
        assert name not in ("ADD", "ARG")
        assert "://" not in value
    assert any("--require-hashes" in value for _, value in instructions())
