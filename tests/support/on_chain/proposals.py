"""A Safe on a local chain, and what is proposed to its owners."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.app.agent import Agent
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from tests.support.agents import ROOMY, Changes, fund, reopened_agent, trusted_config, yes
from tests.support.wallets import SafeWallet, deploy_safe

TWO = {"WETH": "50%", "USDC": "50%"}
PROPOSING: Changes = ROOMY | {"wallet.test_account": None, "wallet.mode": "propose", "execution.deadline": "30m", "chain.confirmations": 1}
Signs = Callable[[dict[str, Any]], str]


def proposal(agent: Agent) -> dict[str, Any]:
    """What a rebalance proposes, as its file says it."""
    with pytest.raises(AwaitingExternalSignature) as caught:
        agent.rebalance(send=True, confirm=yes)
    path = Path(caught.value.proposal_path)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    written: dict[str, Any] = json.loads(path.read_text())
    assert written == json.loads(json.dumps(caught.value.proposal))
    return written


def rounds(agent: Agent, signs: Signs) -> list[dict[str, Any]]:
    """Proposals until the portfolio is where it should be, each signed and sent by somebody else."""
    proposals: list[dict[str, Any]] = []
    for _ in range(6):
        try:
            outcome = agent.rebalance(send=True, confirm=yes)
        except AwaitingExternalSignature as waiting:
            proposals.append(waiting.proposal)
            assert signs(waiting.proposal).startswith("0x")
            continue
        assert outcome.kind is OutcomeKind.HOLD, outcome.reason
        return proposals
    raise AssertionError([outcome["description"] for outcome in proposals])


def safe_of(
    chain: LocalChain, folder: Path, *changes: tuple[str, object], makes_batches: bool = False, targets: dict[str, str] = TWO
) -> tuple[SafeWallet, Any]:
    """A Safe with money, and a config that proposes to its owners; it holds no native coin."""
    safe = deploy_safe(chain, makes_batches=makes_batches)
    fund(chain, {})
    chain.set_balance("WETH", 3 * 10**18, owner=safe.address)
    through: Changes = PROPOSING | {"wallet.address": safe.address, "wallet.safe": True, "limits.native_floor": "off"} | dict(changes)
    return safe, trusted_config(chain, folder, through, targets, vouched=False)


def killer_at_event(number: int) -> Callable[[str], None]:
    """A progress listener with which the process ends at its `number`-th event."""
    event_count = 0

    def progress(_: str) -> None:
        nonlocal event_count
        event_count += 1
        if event_count == number:
            raise KeyboardInterrupt

    return progress


@pytest.fixture
def scene(anvil_chain: LocalChain, tmp_path: Path) -> Iterator[tuple[Agent, SafeWallet]]:
    """An agent whose Safe, with two of three owners, has a batch of an approval and a swap that waits."""
    safe, loaded = safe_of(anvil_chain, tmp_path, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent:
        proposal(agent)
        yield agent, safe
