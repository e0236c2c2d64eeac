"""Proposals of a Safe judged at the prices now: what has become too cheap, would fail, or is paused is neither signed nor executed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agent import app as api
from agent import guards
from agent.app.agent import Agent
from agent.app.alerting import RunFacts, cycle_alerts
from agent.app.records import maintenance
from agent.chain.safe import SafeOwnersSigner
from agent.errors import Refused, Retryable
from agent.execution.executor import AwaitingExternalSignature
from agent.figures import reader_text
from agent.localchain import LocalChain
from agent.model import Plan, PriceSource, StepInput
from tests.cli.tools import in_process
from tests.support.agents import yes
from tests.support.on_chain.proposals import proposal, scene
from tests.support.on_chain.safe_proposals import EXECUTOR, FIRST, SECOND, hand_signature, open_proposal, sign_and_send
from tests.support.text import mentions
from tests.support.wallets import SafeWallet

__all__ = ["scene"]


def move_weth(chain: LocalChain, percent: int) -> None:
    """Move pools and feed; the mean of 30 minutes follows after the proposal's deadline only."""
    price = chain.deployed_world.prices_usd["WETH"]
    chain.move_market({"WETH": price * (100 + percent) / 100}, twap_follows=False)


def acts(agent: Agent) -> dict[str, Callable[[], Any]]:
    """What lets the call be executed, here or elsewhere."""
    return {
        "sign": lambda: api.sign_proposal(agent, {"test_account": 7}, None, yes),
        "sign --export": lambda: api.proposal_typed_data(agent, None),
        "export": lambda: api.export_proposal(agent),
        "execute": lambda: api.execute_proposal(agent, {}),
        "execute --send": lambda: api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes),
    }


def require_refused(agent: Agent, safe: SafeWallet, *words: str) -> None:
    """Every act is refused with these words, and nothing is executed or recorded."""
    signers = open_proposal(agent)["signed_by"]
    for name, act in acts(agent).items():
        with pytest.raises(Refused) as caught:
            act()
        text = f"{caught.value.message} {caught.value.remedy}"
        assert all(word in text for word in words), (name, text)
    assert open_proposal(agent)["signed_by"] == signers
    assert agent.context.store.proposals.execution(open_proposal(agent)["id"]) is None
    assert safe.nonce() == 0


def test_stale__price_19_percent_higher__is_refused_with_numbers(anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    sign_and_send(agent, FIRST)
    move_weth(anvil_chain, 19)
    document = open_proposal(agent)
    assert document["state"] == "stale"
    (leg,) = document["legs"]
    min_out = int(leg["min_out_raw"]) / 10**6
    assert f"has a minimum of {min_out:.6f}" in document["failure"]
    assert "USDC, the reference requires" in document["failure"]
    with pytest.raises(AwaitingExternalSignature) as waiting:
        agent.rebalance(send=True, confirm=yes)
    stale_words = f"is stale, {document['failure']}"
    assert stale_words in waiting.value.message
    assert "do not sign it" in waiting.value.remedy
    assert any(
        f"Stale, {reader_text(document['failure'])}" in alert.text for alert in cycle_alerts(waiting.value, RunFacts(False, "", None))
    )
    assert any(stale_words in warning for warning in agent.status().warnings)
    require_refused(agent, safe, document["id"], "the reference requires", "USDC", "trimtab cancel", "trimtab rebalance --send")
    maintenance.cancel(agent)
    anvil_chain.move_market({"WETH": anvil_chain.deployed_world.prices_usd["WETH"]})
    renewed = proposal(agent)
    assert renewed["id"] != document["id"]
    sign_and_send(agent, FIRST, SECOND)
    assert api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)["outcome"] == "executed"


def test_stale_while_paused__advice_is_one_that_the_pause_allows(
    anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _ = scene
    config = agent.context.loaded_config.path
    sign_and_send(agent, FIRST, SECOND)
    move_weth(anvil_chain, 19)
    api.pause(config, "test")
    with pytest.raises(AwaitingExternalSignature) as waiting:
        agent.rebalance(send=True, confirm=yes)
    with pytest.raises(Refused, match="the kill switch is on"):
        maintenance.cancel(agent)
    assert mentions(waiting.value.remedy, "do not sign it", "while paused: trimtab pause --hard --send")
    listed = in_process(capfd, monkeypatch, "proposal", "list", "--config", str(config)).out
    assert mentions(listed, "must not be signed now", "enough signatures still count: trimtab pause", "--hard --send withdraws")


@pytest.mark.parametrize(("percent", "state"), [(0, "waiting"), (1, "waiting"), (4, "stale")])
def test_stale__begins_where_the_limits_of_a_plan_end(
    anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet], percent: int, state: str
) -> None:
    agent, _ = scene
    move_weth(anvil_chain, percent)
    assert open_proposal(agent)["state"] == state


def test_stale__prices_unreadable__is_refused_and_says_why(
    anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, safe = scene
    real = guards.judge_minimums

    def without_feeds(step: StepInput, plan: Plan) -> guards.ProposalFault | None:
        reference = replace(step.reference, sources=(PriceSource.FEED,))
        return real(replace(step, snapshot=replace(step.snapshot, feeds=()), reference=reference), plan)

    monkeypatch.setattr(guards, "judge_minimums", without_feeds)
    assert open_proposal(agent)["state"] == "unchecked"
    words = ("has minimums that could not be checked", "unknown: no reference price of", "try again once the prices can be read")
    require_refused(agent, safe, *words)
    with pytest.raises(AwaitingExternalSignature) as waiting:
        agent.rebalance(send=True, confirm=yes)
    assert "it has minimums that could not be checked" in waiting.value.message
    assert "do not sign it" in waiting.value.remedy
    alerts = [alert.text for alert in cycle_alerts(waiting.value, RunFacts(False, "", None))]
    assert any(text.startswith("Its minimums could not be checked") for text in alerts)
    assert not any("Stale" in text for text in alerts)
    assert all("cancel" not in text for text in (waiting.value.message, waiting.value.remedy, *alerts))
    monkeypatch.undo()
    sign_and_send(agent, FIRST, SECOND)
    monkeypatch.setattr(guards, "judge_minimums", without_feeds)
    require_refused(agent, safe, *words)


def test_stale__refused_by_the_signer_while_prices_are_unreadable__is_to_be_withdrawn(
    scene: tuple[Agent, SafeWallet], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, safe = scene
    doubt = guards.ProposalFault(guards.FaultKind.UNCHECKED_MINIMUMS, "the prices now cannot be read: no answer")
    monkeypatch.setattr(guards, "judge_minimums", lambda step, plan: doubt)
    assert open_proposal(agent)["state"] == "unchecked"

    def refuse(*_: object) -> None:
        raise Refused("rule 'floor' refuses it", remedy="none")

    monkeypatch.setattr(SafeOwnersSigner, "require_signable", refuse)
    assert open_proposal(agent)["state"] == "stale"
    with pytest.raises(AwaitingExternalSignature) as waiting:
        agent.rebalance(send=True, confirm=yes)
    assert "trimtab cancel --send" in waiting.value.remedy
    require_refused(agent, safe, "is stale, rule 'floor' refuses it", "trimtab cancel")


def test_failing__price_10_percent_lower__nobody_is_told_to_execute_it(
    anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _ = scene
    sign_and_send(agent, FIRST, SECOND)
    move_weth(anvil_chain, -10)
    document = open_proposal(agent)
    assert document["state"] == "failing"
    with pytest.raises(AwaitingExternalSignature) as waiting:
        agent.rebalance(send=True, confirm=yes)
    assert mentions(waiting.value.message, "would revert now")
    warnings = " ".join(agent.status().warnings)
    assert mentions(warnings, document["id"], f"would fail now, {document['failure']}")
    for text in (warnings, waiting.value.remedy):
        assert mentions(text, "do not sign it, nor execute it", "trimtab cancel --send")
        assert "trimtab proposal execute" not in text


@pytest.mark.parametrize("unread", ["agent.chain.sender.QuorumSender.simulate", "agent.chain.safe.SafeContract.next_act"])
def test_unread__nobody_is_told_to_execute_it(scene: tuple[Agent, SafeWallet], monkeypatch: pytest.MonkeyPatch, unread: str) -> None:
    agent, _ = scene
    sign_and_send(agent, FIRST, SECOND)

    def fail(*_: object) -> None:
        raise Retryable("the operators disagree: A and B")

    monkeypatch.setattr(unread, fail)
    status = agent.status()
    warnings = " ".join(status.warnings)
    assert mentions(warnings, "could not be checked, the operators disagree: A and B: do not sign it, nor execute it")
    assert status.waits_for.endswith("could not be checked, the operators disagree: A and B")
    assert "trimtab proposal execute" not in warnings


def test_paused__list_status_and_collected_signatures_name_the_pause(
    scene: tuple[Agent, SafeWallet], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _ = scene
    sign_and_send(agent, FIRST)
    signature = hand_signature(agent, 7)
    agent.context.store.pause_switch.pause("test", agent.context.clock.now_s())
    config_words = ("--config", str(agent.context.loaded_config.path))
    collected = in_process(capfd, monkeypatch, "proposal", "collect", signature, *config_words)
    config_text = " ".join(config_words)
    advice = f"Next: trimtab resume {config_text}, then trimtab proposal execute {config_text} {open_proposal(agent)['id']}\n"
    assert collected.out.endswith(advice)
    listed = in_process(capfd, monkeypatch, "proposal", "list", *config_words)
    assert "paused: it is neither signed nor executed here until trimtab resume" in listed.out
    assert open_proposal(agent)["paused"]
    warnings = " ".join(agent.status().warnings)
    assert mentions(warnings, "end the pause (test, ", "with trimtab resume, then have anyone execute it")
    agent.context.store.pause_switch.resume("test", agent.context.clock.now_s())
    assert not open_proposal(agent)["paused"]
    assert "end the pause" not in " ".join(agent.status().warnings)


@pytest.mark.parametrize(("percent", "state"), [(-10, "failing"), (19, "stale")])
def test_prices_left__collected_signatures_do_not_ask_to_execute_it(
    anvil_chain: LocalChain,
    scene: tuple[Agent, SafeWallet],
    percent: int,
    state: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent, _ = scene
    sign_and_send(agent, FIRST)
    words = ("proposal", "collect", hand_signature(agent, 7), "--config", str(agent.context.loaded_config.path))
    move_weth(anvil_chain, percent)
    collected = in_process(capfd, monkeypatch, *words)
    advice = f"Next: do not execute it while it is {state}; trimtab proposal list --config {words[-1]} says why"
    assert advice in " ".join(collected.out.split()), collected.out


def test_stale__enough_signatures__nobody_is_told_to_execute_it(anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet]) -> None:
    agent, _ = scene
    sign_and_send(agent, FIRST, SECOND)
    move_weth(anvil_chain, 19)
    with pytest.raises(AwaitingExternalSignature) as waiting:
        agent.rebalance(send=True, confirm=yes)
    alerts = [alert.text for alert in cycle_alerts(waiting.value, RunFacts(False, "", None)) if "Stale" in alert.text]
    texts = (waiting.value.remedy, *alerts, *[text for text in agent.status().warnings if "is stale" in text])
    assert len(texts) == 3
    for text in texts:
        assert "trimtab cancel --send" in text
        assert "rejection" in text
        assert "proposal execute" not in text
    stale_id = open_proposal(agent)["id"]
    with pytest.raises(AwaitingExternalSignature):
        maintenance.cancel(agent)
    (sentence,) = [text for text in agent.status().warnings if text.startswith(f"The proposal {stale_id} ")]
    assert "its rejection" in sentence
    assert "trimtab cancel" not in sentence


def test_failing__is_not_signed_or_exported_and_says_what_to_do(anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    sign_and_send(agent, FIRST)
    move_weth(anvil_chain, -10)
    assert open_proposal(agent)["state"] == "failing"
    require_refused(agent, safe, "would fail now", "Too little received", "nor execute it: trimtab cancel --send withdraws it, and")


def test_paused__is_not_signed_exported_or_called_executable(anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    sign_and_send(agent, FIRST)
    api.collect_signatures(agent, [hand_signature(agent, 6)])
    move_weth(anvil_chain, -10)
    agent.context.store.pause_switch.pause("test", agent.context.clock.now_s())
    require_refused(agent, safe, "kill switch")
