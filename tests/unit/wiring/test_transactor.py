"""Tests of agent/wiring/transactor.py: an approval of an agent's key that was posted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.config.load import parse_config
from agent.config.tables.futures import HyperliquidTable
from agent.errors import ErrorCode, Retryable
from agent.venues.hyperliquid.client import HyperliquidAgent
from agent.wiring import transactor
from tests.support.builders import address
from tests.support.configs.futures import HYPERLIQUID
from tests.support.configs.samples import config_text
from tests.support.fakes.clock import FakeClock

KEY = address("agent key")
UNTIL_MS = 10**15
UNREAD = Retryable("did not answer a read", "try again", code=ErrorCode.ANSWER)


def approver_with(monkeypatch: pytest.MonkeyPatch, posted: Exception | None, *lists: Exception | None) -> transactor.AgentApprover:
    """An approver whose post ends like this, and whose venue lists the agents in turn; None is an empty list."""
    config = parse_config(config_text() + HYPERLIQUID)
    assert isinstance(config.futures, HyperliquidTable)
    trust = SimpleNamespace(
        take_approval_nonce=lambda now_ms: now_ms, record_agent_expiry=lambda *_: None, agent_expiry_ms=lambda _address: None
    )
    context = SimpleNamespace(config=config, clock=FakeClock(), store=SimpleNamespace(trust=trust))
    approver = transactor.AgentApprover(cast(Any, context), config.futures)
    remaining_lists = iter(lists)

    def read_agents() -> tuple[HyperliquidAgent, ...]:
        fault = next(remaining_lists)
        if isinstance(fault, Exception):
            raise fault
        return ()

    def post(*_arguments: object) -> None:
        if posted is not None:
            raise posted

    monkeypatch.setattr(approver._client, "agents", read_agents)
    monkeypatch.setattr(transactor, "post_approval", post)
    for name in ("new_approval", "approval_action", "approval_message"):
        monkeypatch.setattr(transactor, name, lambda *_arguments: None)
    return approver


@pytest.mark.parametrize(
    ("posted", "lists"),
    [
        pytest.param(UNREAD, (UNREAD,), id="neither post nor list answers"),
        pytest.param(None, (UNREAD, UNREAD), id="list fails twice"),
        pytest.param(UNREAD, (None,), id="post fails, not listed"),
        pytest.param(None, (None,), id="not listed"),
    ],
)
def test_approval__that_was_posted_and_not_confirmed_may_be_sent(
    monkeypatch: pytest.MonkeyPatch, posted: Exception | None, lists: tuple[Exception | None, ...]
) -> None:
    signer = cast(Any, SimpleNamespace(address=address("wallet"), sign=lambda *_: {}))
    with pytest.raises(Retryable, match="was sent and may be in force") as fault:
        approver_with(monkeypatch, posted, *lists).approve(signer, KEY, UNTIL_MS)
    assert fault.value.code == ErrorCode.UNKNOWN_IF_SENT
