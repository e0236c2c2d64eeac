"""What doctor says of the agent key of Hyperliquid: missing, not there yet, readable by others, in place."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.app.start.venue import _agent_key_check
from agent.config.load import parse_config
from agent.config.tables.futures import HyperliquidTable
from tests.support.configs.futures import HYPERLIQUID
from tests.support.configs.samples import config_text


def table(key: str) -> HyperliquidTable:
    futures = parse_config(config_text() + HYPERLIQUID.replace('agent_keystore = "agent.json"', key)).futures
    assert isinstance(futures, HyperliquidTable)
    return futures


@pytest.mark.parametrize(
    ("key", "mode", "state", "reason"),
    [
        pytest.param("", None, "warn", "no order can be sent", id="no key"),
        pytest.param('agent_keyring = "trimtab/agent"', None, "ok", "from agent_keyring", id="keyring"),
        pytest.param('agent_keystore = "agent.json"', None, "warn", "does not exist", id="missing keystore"),
        pytest.param('agent_keystore = "agent.json"', 0o644, "fail", "readable by others (mode 0644)", id="readable keystore"),
        pytest.param('agent_keystore = "agent.json"', 0o600, "ok", "keystore ", id="private keystore"),
    ],
)
def test_the_agent_key_is_found_without_opening_it(tmp_path: Path, key: str, mode: int | None, state: str, reason: str) -> None:
    if mode is not None:
        (tmp_path / "agent.json").write_text("{}")
        (tmp_path / "agent.json").chmod(mode)
    _, key_check, text_of, _ = _agent_key_check(table(key), tmp_path)
    assert key_check == state
    assert reason in text_of
