"""What happens while an owner of a Safe reads the question: the answer signs and executes nothing that is refused by then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import app as api
from agent.app.agent import Agent
from agent.errors import Refused
from agent.localchain import LocalChain
from agent.model import UnsignedTx
from agent.signing.safe_tx import safe_tx_fields, typed_data
from tests.support.agents import meanwhile, reopened_agent
from tests.support.on_chain.proposals import proposal, safe_of
from tests.support.on_chain.safe_proposals import EXECUTOR, FIRST, SECOND, open_proposal, sign_and_send
from tests.support.wallets import SafeWallet

THIRD = {"test_account": 7}
Scene = tuple[Agent, SafeWallet]


@pytest.fixture
def scene(anvil_chain: LocalChain, tmp_path: Path) -> Iterator[Scene]:
    """An agent whose Safe, with two of three owners, has a batch that two of them have signed."""
    safe, loaded = safe_of(anvil_chain, tmp_path, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent:
        proposal(agent)
        sign_and_send(agent, FIRST, SECOND)
        yield agent, safe


def move_weth(chain: LocalChain, percent: int) -> None:
    chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * (100 + percent) / 100}, twap_follows=False)


def reject(safe: SafeWallet) -> None:
    """The owners execute a rejection in a wallet of their own."""
    tx = UnsignedTx(safe.chain.chain_id, 0, safe.address, 0, "0x", 0, None, None, 1)
    safe.execute({"safe_tx": safe_tx_fields(tx), "typed_data": typed_data(safe.address, tx)})


EVENTS: dict[str, tuple[Callable[[Scene], object], str]] = {
    "paused": (lambda scene: scene[0].context.store.pause_switch.pause("test", scene[0].context.clock.now_s()), "kill switch"),
    "stale": (lambda scene: move_weth(scene[1].chain, 19), "is stale"),
    "failing": (lambda scene: move_weth(scene[1].chain, -10), "would fail now"),
    "expired": (lambda scene: scene[1].chain.warp(1_801), "is expired"),
    "used": (lambda scene: reject(scene[1]), "is used"),
}


@pytest.mark.parametrize("event", EVENTS)
def test_question__what_happens_meanwhile__stops_the_signature(scene: Scene, event: str) -> None:
    agent, _ = scene
    happens, words = EVENTS[event]
    signers = open_proposal(agent)["signed_by"]
    with pytest.raises(Refused, match=words):
        api.sign_proposal(agent, THIRD, None, meanwhile(lambda: happens(scene)))
    assert open_proposal(agent)["signed_by"] == signers


@pytest.mark.parametrize("event", EVENTS)
def test_question__what_happens_meanwhile__stops_the_execution(scene: Scene, event: str) -> None:
    agent, safe = scene
    happens, words = EVENTS[event]
    with pytest.raises(Refused, match=words):
        api.execute_proposal(agent, EXECUTOR, send=True, confirm=meanwhile(lambda: happens(scene)))
    assert agent.context.store.proposals.execution(open_proposal(agent)["id"]) is None
    assert safe.nonce() == (1 if event == "used" else 0)


def test_question__owner_is_removed_meanwhile__nothing_is_executed(scene: Scene) -> None:
    """The first of the two who signed: with the others the call lacks a signature."""
    agent, safe = scene
    chain = safe.chain
    former_owner = open_proposal(agent)["signed_by"][0]

    def remove_owner() -> None:
        owners = safe.contract.functions.getOwners().call()
        place = owners.index(former_owner)
        before = owners[place - 1] if place else f"0x{1:040x}"
        call = safe.contract.encode_abi("removeOwner", [before, former_owner, 2])
        chain.node.rpc("anvil_impersonateAccount", safe.address)
        chain.node.rpc("anvil_setBalance", safe.address, hex(10**18))
        chain.node.rpc("eth_sendTransaction", {"from": safe.address, "to": safe.address, "data": call})
        chain.mine()

    with pytest.raises(Refused, match="1 of 2 signatures"):
        api.execute_proposal(agent, EXECUTOR, send=True, confirm=meanwhile(remove_owner))
    assert agent.context.store.proposals.execution(open_proposal(agent)["id"]) is None
    assert safe.nonce() == 0
