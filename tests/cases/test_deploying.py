"""The Rebalancer is deployed once by the wallet: through journal and signer, after a kill too, and its code is compared."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from eth_utils.crypto import keccak

from agent.app.agent import Agent, open_agent
from agent.app.documents.owner import DeploymentDocument
from agent.app.money.deployment import PRECEDED, PRECEDED_AFTER_SENDING, deploy_rebalancer, rebalancer_deployment
from agent.config.loaded import LoadedConfig
from agent.errors import OperatorNeeded, Refused
from agent.localchain import LocalChain
from agent.model import IntentKind, IntentState
from agent.signing.deployment_rules import CREATE2_DEPLOYER, encode_deployment
from agent.venues.deployment import rebalancer_address, rebalancer_code_hash, rebalancer_init_code
from tests.faults.rig import in_child
from tests.support.agents import ROOMY, agent_config, agent_on, purse, reopened_agent, trusted_config
from tests.support.markets.step_kills import every_run
from tests.support.rollups import op_stack
from tests.support.text import raises_code, raises_field

AT_REBALANCER = ROOMY | {"execution.router": "rebalancer", "execution.rebalancer": rebalancer_address()}
NEVER_SIGNED = ["after:planned", "before:signed"]
MOMENTS = [*NEVER_SIGNED, "after:signed", *(f"{moment}:{act}" for act in ("send", "mined", "final") for moment in ("before", "after"))]


def agreed(_: DeploymentDocument) -> bool:
    return True


def code_at(chain: LocalChain) -> str:
    return "0x" + keccak(bytes(chain.w3.eth.get_code(rebalancer_address()))).hex()


def require_deployed_once(chain: LocalChain, agent: Agent, nonce: int, native_wei: int) -> None:
    """One transaction of the wallet, final and booked; the code is this version's."""
    assert code_at(chain) == rebalancer_code_hash()
    after = purse(chain)
    store = agent.context.store
    assert after.nonce == nonce + 1
    assert store.journal.open_intents() == ()
    assert store.journal.unbooked_intents() == ()
    (sent,) = [intent for intent in store.journal.intents() if intent.receipt is not None]
    assert sent.receipt is not None
    assert (sent.kind, sent.state, sent.tx.value_wei) == (IntentKind.DEPLOY, IntentState.FINAL, 0)
    assert native_wei - after.native_wei == sent.receipt.gas_cost_wei
    assert store.budgets.history(chain.now_s()).budgets.gas_24h_wei == sent.receipt.gas_cost_wei


def test_it_is_deployed_once_for_a_config_that_already_names_it(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = agent_config(chain, tmp_path, AT_REBALANCER)
    assert (rebalancer_deployment(loaded)["outcome"], rebalancer_deployment(loaded)["deployed"]) == ("planned", False)
    deployment_documents: list[DeploymentDocument] = []
    with op_stack(chain, monkeypatch) as node:
        before = purse(chain)
        with open_agent(loaded, transports=[node.transport], clock=chain.clock, allows_undeployed_rebalancer=True) as agent:
            agent.context.store.balances.record_prior_day((), before.nonce)
            done = deploy_rebalancer(agent, confirm=lambda document: not deployment_documents.append({**document}))
            require_deployed_once(chain, agent, before.nonce, before.native_wei)
            assert deploy_rebalancer(agent, confirm=pytest.fail)["outcome"] == "hold"
            (step,) = agent.context.store.steps.newest(5)
            assert (step.decision, step.outcome) == ("deploy", "done")
    (expected_hashes,) = deployment_documents
    (sent,) = done["transactions"]
    assert (done["outcome"], done["deployed"], expected_hashes["outcome"]) == ("done", True, "planned")
    assert float(expected_hashes["most_gas_native"] or 0) * 10**18 >= sent["gas_used"] * int(sent["gas_price_wei"])
    assert float(expected_hashes["most_data_fee_native"] or 0) * 10**18 >= int(sent["data_fee_wei"]) > 0
    loaded = trusted_config(chain, tmp_path, AT_REBALANCER)
    with reopened_agent(chain, loaded) as agent:
        assert rebalancer_address() in agent.context.store.trust.pins()


@pytest.mark.parametrize("moment", every_run(MOMENTS, {"after:send"}))
def test_killed_at_any_moment_it_is_deployed_exactly_once(chain: LocalChain, tmp_path: Path, moment: str) -> None:
    loaded = trusted_config(chain, tmp_path, ROOMY)
    before = purse(chain)

    def killed() -> None:
        chain.__dict__.pop("transport", None)  # a connection of its own
        deploy(chain, loaded, lambda event: os.kill(os.getpid(), signal.SIGKILL) if event == moment else None)

    assert in_child(killed) == -signal.SIGKILL
    chain.__dict__.pop("transport", None)
    outcome = deploy(chain, loaded)["outcome"]
    assert outcome == ("done" if moment in NEVER_SIGNED else "hold")
    with reopened_agent(chain, loaded) as agent:
        require_deployed_once(chain, agent, before.nonce, before.native_wei)


def deploy(chain: LocalChain, loaded: LoadedConfig, progress: object = None) -> DeploymentDocument:
    """Deploy by a new agent, which looks at each moment of the transaction."""
    with reopened_agent(chain, loaded) as agent:
        return deploy_rebalancer(agent, confirm=agreed, progress=progress or str)  # type: ignore[arg-type]


def test_deployment__needs_yes_code_deployer_and_no_pause(chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(chain, tmp_path, ROOMY) as agent:
        before = purse(chain)
        assert deploy_rebalancer(agent, confirm=lambda _: False)["outcome"] == "declined"
        agent.context.kill_switch.pause("looking", chain.now_s())
        with raises_code(Refused, "kill_switch"):
            deploy_rebalancer(agent, confirm=agreed)
        agent.context.kill_switch.resume("looked", chain.now_s())
        chain.transport.call("anvil_setCode", [rebalancer_address(), "0x6001"])
        with pytest.raises(OperatorNeeded, match=rebalancer_code_hash()) as caught:
            deploy_rebalancer(agent, confirm=agreed)
        assert "do not use" in caught.value.remedy
        chain.transport.call("anvil_setCode", [rebalancer_address(), "0x"])
        for code in ("0x", "0x6001"):
            chain.transport.call("anvil_setCode", [CREATE2_DEPLOYER, code])
            with raises_field("chain.chain_id", CREATE2_DEPLOYER):
                deploy_rebalancer(agent, confirm=agreed)
        assert purse(chain) == before


def test_other_code_after_the_receipt__is_named_within_its_gas(chain: LocalChain, tmp_path: Path) -> None:
    def forge(event: str) -> None:
        if event == "after:final":
            chain.transport.call("anvil_setCode", [rebalancer_address(), "0x6001"])

    with agent_on(chain, tmp_path, ROOMY) as agent:
        poor = replace(agent.context, limits=replace(agent.context.limits, gas_per_day_wei=10**14))
        with raises_code(Refused, "signer.gas_cost"):
            deploy_rebalancer(Agent(poor), confirm=agreed)
        with pytest.raises(OperatorNeeded, match=rebalancer_code_hash()):
            deploy_rebalancer(agent, confirm=agreed, progress=forge)
        assert code_at(chain) != rebalancer_code_hash()


def deploy_by_another(chain: LocalChain) -> None:
    sender = chain.w3.eth.accounts[7]
    sent = chain.w3.eth.send_transaction({"from": sender, "to": CREATE2_DEPLOYER, "data": encode_deployment(rebalancer_init_code())})
    assert chain.w3.eth.wait_for_transaction_receipt(sent)["status"] == 1


@pytest.mark.parametrize(
    ("moment", "reason"), [("confirm", PRECEDED), ("after:signed", PRECEDED_AFTER_SENDING), ("before:send", PRECEDED_AFTER_SENDING)]
)
def test_preceded_deployment__loses_its_gas_at_most(chain: LocalChain, tmp_path: Path, moment: str, reason: str) -> None:
    def precede(event: str) -> None:
        if event == moment:
            deploy_by_another(chain)

    def confirm(_: DeploymentDocument) -> bool:
        precede("confirm")
        return True

    with agent_on(chain, tmp_path, ROOMY) as agent:
        before = purse(chain)
        document = deploy_rebalancer(agent, confirm=confirm, progress=precede)
        assert (document["outcome"], document["deployed"], document["reason"]) == ("hold", True, reason)
        assert code_at(chain) == rebalancer_code_hash()
        assert purse(chain).nonce - before.nonce == len(document["transactions"]) == (0 if reason == PRECEDED else 1)
        assert agent.context.store.journal.open_intents() == ()
