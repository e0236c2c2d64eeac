"""Whole rebalances signed by a key service that never signs the same way twice, its process killed in between too (design 9)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.app.agent import Agent, open_agent
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.localchain.world import WALLET_INDEX
from agent.localchain.world import dev_accounts as accounts
from agent.model import IntentKind, IntentState
from agent.signing.remote_key import RemoteKey, address_from_public_key
from tests.support.agents import ROOMY, Changes, fund, off_target, purse, require_exact, trusted, yes
from tests.unit.test_remote_key import KeyService

TWO = {"WETH": "50%", "USDC": "50%"}
KEYLESS: Changes = ROOMY | {"wallet.test_account": None}


@pytest.fixture
def service() -> Iterator[KeyService]:
    """The wallet's key lies in a service."""
    made = KeyService(int(accounts()[WALLET_INDEX].private_key, 16))
    yield made
    made.close()


@contextmanager
def signing_by(service: KeyService, chain: LocalChain, loaded: LoadedConfig) -> Iterator[Agent]:
    """An agent whose config names no key: the program hands one in."""
    key = RemoteKey(address_from_public_key(service.public_key()), service.sign)
    with open_agent(loaded, transports=[chain.transport], clock=chain.clock, key=key) as agent:
        yield agent


def test_a_rebalance_is_signed_by_a_service(anvil_chain: LocalChain, tmp_path: Path, service: KeyService) -> None:
    chain = anvil_chain
    fund(chain, {"WETH": 10_000})
    with signing_by(service, chain, trusted(chain, tmp_path, KEYLESS, TWO)) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes)
        require_exact(chain, outcome, before)
        assert len(service.asked) == len(outcome.transactions) == 2


@pytest.mark.parametrize("at", ["after:signed", "before:send", "after:send"])
def test_a_killed_process_whose_signature_cannot_be_repeated_trades_once(
    anvil_chain: LocalChain, tmp_path: Path, service: KeyService, at: str
) -> None:
    """What never left is dropped, what may have left and is nowhere is cancelled at its nonce, what arrived is followed."""
    chain = anvil_chain
    fund(chain, {"WETH": 10_000})
    loaded, nonce = trusted(chain, tmp_path, KEYLESS, TWO), purse(chain).nonce

    def die(event: str) -> None:
        if event == at:
            raise KeyboardInterrupt

    with signing_by(service, chain, loaded) as agent, pytest.raises(KeyboardInterrupt):
        agent.rebalance(send=True, confirm=yes, progress=die)
    with signing_by(service, chain, loaded) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert max(off_target(chain, TWO).values()) < 50
        intents = agent.context.store.journal.intents()
        final = [intent for intent in intents if intent.state is IntentState.FINAL]
        assert sorted(intent.tx.nonce for intent in final) == list(range(nonce, purse(chain).nonce)), "each nonce once"
        cancels = [intent for intent in final if intent.kind is IntentKind.CANCEL]
        assert len(cancels) == (at == "before:send")
        assert [intent.kind for intent in final].count(IntentKind.SWAP) == 1


def test_a_key_that_is_handed_in_is_checked_like_any_other(anvil_chain: LocalChain, tmp_path: Path, service: KeyService) -> None:
    """Of another wallet it signs nothing, and on a fork only published test keys do: what is signed there is valid elsewhere."""
    chain = anvil_chain
    loaded = trusted(chain, tmp_path, KEYLESS | {"wallet.address": accounts()[8].address}, TWO)
    with signing_by(service, chain, loaded) as agent, pytest.raises(ConfigError, match="the key"):
        agent.resync_nonce()
    stranger = KeyService()
    try:
        fork = trusted(chain, tmp_path / "fork", KEYLESS | {"chain.fork": True}, TWO)
        with signing_by(stranger, chain, fork) as agent, pytest.raises(ConfigError, match="test key"):
            agent.resync_nonce()
    finally:
        stranger.close()
