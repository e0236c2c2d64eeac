"""Whole rebalances signed by a key service that never signs the same way twice, its process killed in between too (design 9)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.chain import keys
from agent.chain.remote_key import RemoteKey, address_of
from agent.engine import OutcomeKind
from agent.localchain import LocalChain
from agent.localchain.accounts import WALLET
from agent.localchain.accounts import test_accounts as accounts
from agent.model import IntentKind, IntentState
from tests.agents import ROOMY, again, fund, off_target, purse, require_exact, trusted, yes
from tests.unit.test_remote_key import KeyService

TWO = {"WETH": "50%", "USDC": "50%"}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyService]:
    """The wallet's key lies in a service, and nowhere else."""
    made = KeyService(int(accounts()[WALLET].key, 16))
    monkeypatch.setattr(keys, "load_key", lambda *_, **__: RemoteKey(address_of(made.public_key()), made.sign))
    yield made
    made.close()


def test_a_rebalance_is_signed_by_a_service(anvil_chain: LocalChain, tmp_path: Path, service: KeyService) -> None:
    chain = anvil_chain
    fund(chain, {"WETH": 10_000})
    with again(chain, trusted(chain, tmp_path, ROOMY, TWO)) as agent:
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
    loaded, nonce = trusted(chain, tmp_path, ROOMY, TWO), purse(chain).nonce

    def die(event: str) -> None:
        if event == at:
            raise KeyboardInterrupt

    with again(chain, loaded) as agent, pytest.raises(KeyboardInterrupt):
        agent.rebalance(send=True, confirm=yes, progress=die)
    with again(chain, loaded) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert max(off_target(chain, TWO).values()) < 50
        intents = agent.desk.store.intents()
        final = [intent for intent in intents if intent.state is IntentState.FINAL]
        assert sorted(intent.tx.nonce for intent in final) == list(range(nonce, purse(chain).nonce)), "each nonce once"
        cancels = [intent for intent in final if intent.kind is IntentKind.CANCEL]
        assert len(cancels) == (at == "before:send")
        assert [intent.kind for intent in final].count(IntentKind.SWAP) == 1
