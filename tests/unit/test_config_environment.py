"""`.env` beside the config gives the variables that the environment lacks; it is refused where others can read it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from agent.config.load import load_config, load_config_text
from agent.config.secrets.env_file import load_env_file
from agent.errors import ConfigError
from tests.unit.test_config import text

CANARY = "canary7f3a"


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    with mock.patch.dict(os.environ):
        for name in ("RPC_A", "RPC_B", "TRIMTAB_KEYSTORE_PASSWORD"):
            os.environ.pop(name, None)
        yield


def beside(folder: Path, content: str, mode: int = 0o600) -> Path:
    """A config with a .env beside it."""
    path, env = folder / "trimtab.toml", folder / ".env"
    path.write_text(text())
    path.chmod(0o600)
    env.write_text(content)
    env.chmod(mode)
    return path


def test_what_the_config_names_is_taken_from_the_file_beside_it(tmp_path: Path) -> None:
    path = beside(tmp_path, f'# endpoints\nRPC_A=https://a.example/{CANARY}\nexport RPC_B="https://b.example/x y"\n\n')
    rpc = load_config(path).config.chain.rpc
    assert [one.read_url() for one in rpc] == [f"https://a.example/{CANARY}", "https://b.example/x y"]


def test_the_environment_wins(tmp_path: Path) -> None:
    os.environ["RPC_A"] = "https://outside.example"
    rpc = load_config(beside(tmp_path, "RPC_A=https://a.example\nRPC_B=https://b.example\n")).config.chain.rpc
    assert [one.read_url() for one in rpc] == ["https://outside.example", "https://b.example"]


def test_nothing_is_taken_that_no_config_names_but_our_own(tmp_path: Path) -> None:
    load_config(beside(tmp_path, "RPC_A=a\nLD_PRELOAD=evil.so\nPATH=/evil\nTRIMTAB_KEYSTORE_PASSWORD=pw\n"))
    assert "LD_PRELOAD" not in os.environ
    assert os.environ.get("PATH") != "/evil"
    assert os.environ["TRIMTAB_KEYSTORE_PASSWORD"] == "pw"


def test_a_dollar_sign_in_a_password_is_one(tmp_path: Path) -> None:
    load_config(beside(tmp_path, "TRIMTAB_KEYSTORE_PASSWORD=a${HOME}b\n"))
    assert os.environ["TRIMTAB_KEYSTORE_PASSWORD"] == "a${HOME}b"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o602])
def test_a_file_that_others_can_read_or_change_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = beside(tmp_path, f"RPC_A=https://a.example/{CANARY}\n", mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}") as caught:
        load_config(path)
    assert caught.value.remedy == f"run: chmod 600 {path.with_name('.env')}"
    assert CANARY not in str(caught.value)
    assert "RPC_A" not in os.environ
    load_config(path, checks_permissions=False)  # a pause has to work whatever lies there


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = beside(tmp_path, "RPC_A=https://a.example\n")
    os.chown(path.with_name(".env"), 4_711, 4_711)
    with pytest.raises(ConfigError, match="another user"):
        load_config(path)
    assert "RPC_A" not in os.environ


def test_the_file_of_another_program_is_nothing_to_us(tmp_path: Path) -> None:
    load_config(beside(tmp_path, "DATABASE_URL=postgres://x\n", 0o644))
    assert "DATABASE_URL" not in os.environ


@pytest.mark.parametrize("line", ["RPC_A", "= x", "A B", f"{CANARY} {CANARY}"])
def test_a_line_that_is_no_assignment_is_named_by_its_number_and_not_repeated(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=r"\.env.*line 2.*NAME=VALUE") as caught:
        load_config(beside(tmp_path, f"# first\n{line}\n"))
    assert CANARY not in str(caught.value)


def test_without_the_file_nothing_happens_and_what_is_no_text_is_named(tmp_path: Path) -> None:
    load_env_file(tmp_path, ["RPC_A"])
    load_env_file(tmp_path / "nowhere", ["RPC_A"])
    (tmp_path / ".env").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="be read"):
        load_env_file(tmp_path, ["RPC_A"])


def test_a_text_that_is_not_in_its_file_yet_takes_it_too(tmp_path: Path) -> None:
    path = beside(tmp_path, "RPC_A=https://a.example\n")
    assert load_config_text(text(), path, "edited").config.chain.rpc[0].read_url() == "https://a.example"
