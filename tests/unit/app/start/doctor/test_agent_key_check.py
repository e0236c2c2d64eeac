"""What doctor says of the agent key of Hyperliquid: missing, not there yet, readable by others, in place."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from keyring.backend import KeyringBackend

from agent.app.start.venue import _agent_key_check
from agent.config.load import validated_config
from agent.config.loaded import LoadedConfig
from agent.config.variables import Variables
from tests.support.configs.futures import HYPERLIQUID
from tests.support.configs.samples import config_text
from tests.support.keyrings import FailingKeyring, MemoryKeyring, using

KEYRING_WITH_KEY = MemoryKeyring()
KEYRING_WITH_KEY.kept["trimtab", "agent"] = "0x1"


def config_with_key(key: str, folder: Path, variables: Variables | None = None) -> LoadedConfig:
    toml_values = tomllib.loads(config_text() + HYPERLIQUID.replace('agent_keystore = "agent.json"', key))
    config = validated_config(toml_values, "config", variables)
    return LoadedConfig(config, folder / "trimtab.toml", "0" * 64, toml_values, variables=variables or Variables())


@pytest.mark.parametrize(
    ("key", "mode", "state", "reason"),
    [
        pytest.param("", None, "warn", "no order can be signed", id="no key"),
        pytest.param('agent_keystore = "agent.json"', None, "warn", "does not exist", id="missing keystore"),
        pytest.param('agent_keystore = "agent.json"', 0o644, "fail", "readable by others (mode 0644)", id="readable keystore"),
        pytest.param('agent_keystore = "agent.json"', 0o600, "ok", "keystore ", id="private keystore"),
    ],
)
def test_agent_key__is_looked_for_and_not_loaded(tmp_path: Path, key: str, mode: int | None, state: str, reason: str) -> None:
    if mode is not None:
        (tmp_path / "agent.json").write_text("{}")
        (tmp_path / "agent.json").chmod(mode)
    _, key_check, text_of, _ = _agent_key_check(config_with_key(key, tmp_path))
    assert key_check == state
    assert reason in text_of


@pytest.mark.parametrize(
    ("variables", "state", "finding"),
    [
        pytest.param({}, "warn", "variable HL_KEY is not set", id="not set"),
        pytest.param({"HL_KEY": ""}, "warn", "variable HL_KEY is not set", id="empty"),
        pytest.param({"HL_KEY": "0x1"}, "ok", "variable HL_KEY", id="set"),
    ],
)
def test_agent_key__of_a_variable_is_looked_up(tmp_path: Path, variables: dict[str, str], state: str, finding: str) -> None:
    row = _agent_key_check(config_with_key('agent_key_env = "HL_KEY"', tmp_path, Variables(variables)))
    assert row[1:3] == (state, finding)


@pytest.mark.parametrize(
    ("backend", "state", "finding"),
    [
        (MemoryKeyring(), "warn", "trimtab/agent is not in the keyring"),
        (FailingKeyring(), "warn", "cannot read trimtab/agent"),
        (KEYRING_WITH_KEY, "ok", "keyring entry trimtab/agent"),
    ],
    ids=["missing", "locked", "present"],
)
def test_agent_key__of_a_keyring_is_looked_up(tmp_path: Path, backend: KeyringBackend, state: str, finding: str) -> None:
    with using(backend):
        row = _agent_key_check(config_with_key('agent_keyring = "trimtab/agent"', tmp_path))
    assert row[1] == state
    assert finding in row[2]
