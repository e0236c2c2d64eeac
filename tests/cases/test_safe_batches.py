"""Approvals and the rebalance of a real Safe as one call of the real MultiSendCallOnly: proposed, judged, signed, executed, settled."""

from __future__ import annotations

from pathlib import Path

import pytest
from eth_utils.crypto import keccak

from agent import app as api
from agent.app.agent import Agent
from agent.artifacts import npm_artifact
from agent.errors import Refused
from agent.execution.evaluation import MAX_INEFFECTIVE_APPROVALS
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.localchain.safe import BATCH_ARTIFACT
from agent.model import IntentKind, IntentState
from agent.signing.batches import BATCH_CONTRACT, decode_batch
from tests.support.agents import reopened_agent, yes
from tests.support.attacks import attack
from tests.support.on_chain.bad_tokens import replace_token
from tests.support.on_chain.proposals import killer_at_event, proposal, rounds, safe_of, scene
from tests.support.on_chain.refusing_tokens import FORGETTING
from tests.support.on_chain.safe_proposals import EXECUTOR, FIRST, SECOND, hand_signature, open_proposal, sign_and_send
from tests.support.samples import slow
from tests.support.text import mentions
from tests.support.wallets import SafeWallet

__all__ = ["scene"]


def require_settled(agent: Agent, safe: SafeWallet, symbols: tuple[str, ...]) -> None:
    """One call of the Safe is final, booked once, and leaves no allowance."""
    (intent,) = agent.context.store.journal.intents()
    assert (intent.kind, intent.state, safe.nonce()) == (IntentKind.SWAP, IntentState.FINAL, 1)
    assert agent.context.store.journal.unbooked_intents() == ()
    budgets = agent.context.store.budgets.history(agent.context.clock.now_s()).budgets
    assert budgets.turnover_24h > 0 == budgets.gas_24h_wei
    router = safe.chain.addresses.swap_router_02
    for symbol in symbols:
        assert safe.chain.token_contract(symbol).functions.allowance(safe.address, router).call() == 0
    assert not list(agent.context.loaded_config.proposals_path.iterdir())


def test_batch__two_owners_sign__approval_and_swap_execute(scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    (intent,) = agent.context.store.journal.open_intents()
    approval, trade = decode_batch(intent.tx.data)
    document = open_proposal(agent)
    router = safe.chain.addresses.swap_router_02
    assert (document["to"], document["function"], document["spender"]) == (BATCH_CONTRACT, "multiSend", None)
    (leg,) = document["legs"]
    sold = {"token": "WETH", "decimals": 18, "amount_raw": leg["amount_in_raw"]}
    assert document["calls"] == [
        {"to": safe.chain.tokens["WETH"].address, "function": "approve", "value_wei": "0", "spender": router, "recipients": [], **sold},
        {"to": router, "function": "multicall", "value_wei": "0", "spender": None, "recipients": [safe.address], **dict.fromkeys(sold)},
    ]
    assert "WETH" in document["why"]
    assert 0 < float(document["cost"]) < float(document["worst_case"])
    assert sum(document["weights_after_bps"].values()) == 10_000
    assert document["description"].startswith("approve the router for ")
    assert api.proposal_typed_data(agent, None)["message"]["operation"] == 1
    exported = api.export_proposal(agent)["transactions"]
    assert exported == [{"to": call.to, "value": "0", "data": call.data_hex} for call in (approval, trade)]
    sign_and_send(agent, FIRST)
    api.collect_signatures(agent, [hand_signature(agent, 7)])
    assert api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)["outcome"] == "executed"
    assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
    require_settled(agent, safe, ("WETH",))


def test_batch__two_tokens_are_sold__both_approvals_are_in_it(anvil_chain: LocalChain, tmp_path: Path) -> None:
    targets = {"WETH": "20%", "LINK": "20%", "USDC": "60%"}
    safe, loaded = safe_of(anvil_chain, tmp_path, makes_batches=True, targets=targets)
    anvil_chain.set_balance("LINK", int(9_000 * 10**18 / anvil_chain.deployed_world.prices_usd["LINK"]), owner=safe.address)
    with reopened_agent(anvil_chain, loaded) as agent:
        (document,) = rounds(agent, safe.execute)
        calls = decode_batch(document["safe_tx"]["data"])
        assert {call.to for call in calls[:-1]} == {anvil_chain.tokens[symbol].address for symbol in ("WETH", "LINK")}
        require_settled(agent, safe, ("WETH", "LINK"))


@pytest.mark.parametrize(
    ("router", "makes_batches", "how"),
    [
        ("swap_router_02", True, "ignores"),
        ("swap_router_02", False, "ignores"),
        ("rebalancer", True, "ignores"),
        ("rebalancer", True, "halves"),
    ],
    ids=["batches", "single calls", "batches with the Rebalancer", "half of them, batches with the Rebalancer"],
)
def test_safe__token_ignores_approvals__is_left_out_alone(
    anvil_chain: LocalChain, tmp_path: Path, router: str, makes_batches: bool, how: str
) -> None:
    """Before, the simulation of the batch failed at each look, and single approvals were proposed without end."""
    address = replace_token(anvil_chain, "GUEST", attack("ForgetfulToken"), "GUEST", "GUEST", 18)
    token = anvil_chain.contract(address, attack("ForgetfulToken"))
    spender = getattr(anvil_chain.addresses, router)
    targets = {"WETH": "20%", "GUEST": "20%", "USDC": "60%"}
    safe, loaded = safe_of(anvil_chain, tmp_path, ("execution.router", router), makes_batches=makes_batches, targets=targets)
    anvil_chain.send(token.functions.forget(safe.address, FORGETTING[how]))
    anvil_chain.set_balance("GUEST", int(9_000 * 10**18 / anvil_chain.deployed_world.prices_usd["GUEST"]), owner=safe.address)
    with reopened_agent(anvil_chain, loaded) as agent:
        documents = rounds(agent, safe.execute)
        approvals = [document for document in documents if document["purpose"] == "approve"]
        approved = [document["safe_tx"]["to"] for document in approvals if document["description"].startswith("approve ")]
        (trade,) = [document for document in documents if document["purpose"] == "swap"]
        weth = anvil_chain.tokens["WETH"].address
        if makes_batches:
            assert approved == [address] * MAX_INEFFECTIVE_APPROVALS
            assert [call.to for call in decode_batch(trade["safe_tx"]["data"])] == [weth, spender]
        else:
            assert sorted(approved) == sorted([*[address] * MAX_INEFFECTIVE_APPROVALS, weth])
        leftovers = documents[documents.index(trade) + 1 :]
        assert [document["safe_tx"]["to"] for document in leftovers] == ([address] if how == "halves" else [])
        assert token.functions.allowance(safe.address, spender).call() == 0
        next_outcome = agent.rebalance(send=True, confirm=yes)
        assert [screened.token for screened in next_outcome.step_input.targets.quarantined_tokens] == [address]
        assert next_outcome.kind is OutcomeKind.HOLD


def test_batch__would_fail__its_call_and_reason_are_named(anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet]) -> None:
    """The market moves away from the minimums, so the swap fails after the approval."""
    agent, safe = scene
    sign_and_send(agent, FIRST, SECOND)
    prices = anvil_chain.deployed_world.prices_usd
    anvil_chain.move_market({"WETH": prices["WETH"] * 9 / 10}, twap_follows=False)
    document = open_proposal(agent)
    assert document["state"] == "failing"
    assert anvil_chain.addresses.swap_router_02 in document["failure"]
    assert "Too little received" in document["failure"]
    with pytest.raises(Refused, match="would fail now"):
        api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
    assert safe.nonce() == 0


def test_batch__handler_is_removed__nobody_is_told_to_execute_it(anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet]) -> None:
    """Without a handler the Safe answers every simulation with success."""
    agent, safe = scene
    sign_and_send(agent, FIRST, SECOND)
    handler_slot = keccak(text="fallback_manager.handler.address").hex()
    anvil_chain.node.ask([("anvil_setStorageAt", [safe.address, f"0x{handler_slot}", f"0x{0:064x}"])])
    assert open_proposal(agent)["state"] == "stale"
    with pytest.raises(AwaitingExternalSignature) as waiting:
        agent.rebalance(send=True, confirm=yes)
    assert waiting.value.reverts is None
    refusal = f"rule 'contract': got {BATCH_CONTRACT}, allows no batch, since the Safe has no fallback handler that simulates"
    for text in (" ".join(agent.status().warnings), f"{waiting.value.message} {waiting.value.remedy}"):
        assert mentions(text, "is stale", refusal, "do not sign it, nor execute it")
        assert "trimtab proposal execute" not in text


def test_safe__without_a_handler__proposes_the_approval_alone(anvil_chain: LocalChain, tmp_path: Path) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path)
    anvil_chain.node.ask([("anvil_setCode", [BATCH_CONTRACT, npm_artifact(BATCH_ARTIFACT).runtime_code])])
    with reopened_agent(anvil_chain, loaded) as agent, pytest.raises(AwaitingExternalSignature) as waiting:
        agent.rebalance(send=True, confirm=yes)
    assert (waiting.value.proposal["purpose"], waiting.value.proposal["safe_tx"]["operation"]) == ("approve", 0)
    assert "no fallback handler" in waiting.value.remedy
    assert safe.nonce() == 0


@pytest.mark.parametrize("number", [2, *slow([4]), 6])
def test_batch__process_ends_meanwhile__is_booked_once(anvil_chain: LocalChain, tmp_path: Path, number: int) -> None:
    """Around the intent's first write, and around each move of its settling."""
    safe, loaded = safe_of(anvil_chain, tmp_path, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent, pytest.raises((KeyboardInterrupt, AwaitingExternalSignature)):
        agent.rebalance(send=True, confirm=yes, progress=killer_at_event(number))
    with reopened_agent(anvil_chain, loaded) as agent:
        safe.execute(proposal(agent))
        with pytest.raises(KeyboardInterrupt):
            agent.rebalance(send=True, confirm=yes, progress=killer_at_event(number))
    with reopened_agent(anvil_chain, loaded) as agent:
        assert rounds(agent, safe.execute) == []
        (last,) = [intent for intent in agent.context.store.journal.intents() if intent.state is not IntentState.CANCELLED]
        assert (last.kind, last.state, safe.nonce()) == (IntentKind.SWAP, IntentState.FINAL, 1)
        assert agent.context.store.journal.unbooked_intents() == ()
