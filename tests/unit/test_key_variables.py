"""Processes that need no key hold none: neither in their environment, as the system shows it, nor in that of their children."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent import key_variables
from agent.config.load import load_config
from agent.key_variables import NO_KEYS_MARK, drop_key_variables, holds_key, named_key_variables
from agent.store import open_store
from tests.cli.tools import first_document, start
from tests.support import agents

KEY = "canary-of-a-key"
PASSWORD = "canary-of-a-password"
PROGRAM = """
import os, subprocess, sys
from pathlib import Path
from agent.key_variables import drop_key_variables
drop_key_variables([Path(sys.argv[1])])
shown = [Path("/proc/self/environ").read_bytes(), subprocess.run(["env"], capture_output=True).stdout, repr(dict(os.environ)).encode()]
print(b"canary" + b"-of" in b"".join(shown), os.environ["KEPT"], os.getpid() == int(os.environ["SHELL_PID"]), sys.argv[2])
"""


def test_process_that_needs_no_key__is_started_without_them(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[wallet]\nkey_env = "MY_KEY"\n[futures]\nagent_key_env = "AGENT"\n')
    variables = {"MY_KEY": KEY, "AGENT": KEY, "TRIMTAB_KEYSTORE_PASSWORD": PASSWORD, "TRIMTAB_AGENT_PASSWORD": PASSWORD, "KEPT": "yes"}
    script = f'export SHELL_PID=$$; exec "{sys.executable}" -c "$PROGRAM" "{tmp_path}/a.toml" "two words"'
    done = subprocess.run(
        ["sh", "-c", script], env={**os.environ, **variables, "PROGRAM": PROGRAM}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False yes True two words\n"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the environment of a process is not shown")
def test_dashboard_server_and_children__hold_no_password(tmp_path: Path) -> None:
    path = agents.config(tmp_path)
    loaded = load_config(path)
    open_store(loaded.store_url, 1, loaded.config.wallet.address, loaded.config.chain.wrapped_native).close()
    (tmp_path / ".env").write_text(f"TRIMTAB_KEYSTORE_PASSWORD={PASSWORD}\n")
    (tmp_path / ".env").chmod(0o600)
    environment = {**os.environ, "TRIMTAB_KEYSTORE_PASSWORD": PASSWORD, "TRIMTAB_AGENT_PASSWORD": PASSWORD}
    process = start("serve", "--port", "0", "--json", "--config", str(path), env=environment, program=subprocess.Popen)
    try:
        first_document(process)  # its reading process has loaded the config
        family = [process.pid, *map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())]
        assert len(family) > 1
        for pid in family:
            assert PASSWORD.encode() not in Path(f"/proc/{pid}/environ").read_bytes(), Path(f"/proc/{pid}/cmdline").read_bytes()
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize("argv", [["trimtab", "serve"], ["a_program_without_arguments.py"]], ids=["other arguments", "none"])
def test_a_program_that_calls_the_command_keeps_its_environment(argv: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRIMTAB_KEYSTORE_PASSWORD", PASSWORD)
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("started anew"))
    drop_key_variables([tmp_path / "a.toml"])
    assert NO_KEYS_MARK not in os.environ
    assert os.environ["TRIMTAB_KEYSTORE_PASSWORD"] == PASSWORD


def test_children__read_no_key_from_the_file_by_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = agents.config(tmp_path)
    (tmp_path / ".env").write_text(f"TRIMTAB_KEYSTORE_PASSWORD={PASSWORD}\nTRIMTAB_OTHER=kept\n")
    (tmp_path / ".env").chmod(0o600)
    for name in ("TRIMTAB_KEYSTORE_PASSWORD", "TRIMTAB_OTHER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv(NO_KEYS_MARK, "1")
    variables = load_config(path).variables
    assert "TRIMTAB_KEYSTORE_PASSWORD" not in variables
    assert variables["TRIMTAB_OTHER"] == "kept"
    monkeypatch.delenv(NO_KEYS_MARK)
    assert load_config(path).variables["TRIMTAB_KEYSTORE_PASSWORD"] == PASSWORD


def test_which_variables_hold_a_key() -> None:
    named = tuple(named_key_variables({"wallet": {"key_env": "K"}, "chain": {"rpc": [{"url_env": "RPC_A"}]}, "f": {"agent_key_env": "A"}}))
    assert named == ("K", "A")
    assert [name for name in ("K", "A", "RPC_A", "TRIMTAB_KEYSTORE_PASSWORD", "TRIMTAB_X", "PASSWORD") if holds_key(name, named)] == [
        "K", "A", "TRIMTAB_KEYSTORE_PASSWORD"
    ]  # fmt: skip
    assert key_variables.reads_no_keys() is False
