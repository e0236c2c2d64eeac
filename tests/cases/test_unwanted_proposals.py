"""Proposals of a Safe that the owner's later commands contradict: an ended stop, edited targets, a payout address that was removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import app as api
from agent.app.agent import Agent
from agent.app.documents.past.waiting import cancel_order_or_execution
from agent.app.money.transfers import WithdrawalRequest, withdraw
from agent.app.records import maintenance
from agent.app.settings.editing import TextEdit, edit
from agent.config.load import load_config
from agent.config.writing.edits import ConfigChanges, apply_changes
from agent.errors import Refused
from agent.execution.executor import AwaitingExternalSignature
from agent.localchain import LocalChain
from agent.store.store import ConfigChanged
from tests.cli.tools import in_process
from tests.support.agents import reopened_agent, yes
from tests.support.constants import HOME
from tests.support.on_chain.limit_orders import place
from tests.support.on_chain.proposals import proposal, safe_of
from tests.support.on_chain.safe_proposals import EXECUTOR, FIRST, SECOND, open_proposal, sign_and_send
from tests.support.text import mentions


@pytest.mark.parametrize("makes_batches", [True, False], ids=["sale", "approval for it"])
@pytest.mark.parametrize("change", [api.arm_orders, api.disarm_orders])
def test_sale_of_an_ended_stop__is_neither_signed_nor_executed(
    anvil_chain: LocalChain,
    tmp_path: Path,
    change: Callable[[Agent, str], Any],
    makes_batches: bool,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Enough signatures exist already: every command names the way to its rejection."""
    stop = ("portfolio.assets.0.stop_loss", "10%")
    _, loaded = safe_of(anvil_chain, tmp_path, stop, makes_batches=makes_batches)
    price = anvil_chain.deployed_world.prices_usd["WETH"]
    ended_text = "is stale, the order that it sells for was armed again or switched off"
    with reopened_agent(anvil_chain, loaded) as agent:
        proposal(agent)
        maintenance.cancel(agent)
        anvil_chain.move_market({"WETH": price * 8 / 10}, twap_follows=False)
        anvil_chain.mine(4)
        sale = proposal(agent)
        sign_and_send(agent, FIRST, SECOND)
        file = loaded.proposals_path / f"{sale['id']}.json"
        assert api.read_proposal_file(file, loaded.path)["fault"] == ""
        document = change(agent, "WETH")
        assert api.read_proposal_file(file, loaded.path)["fault"].startswith(ended_text)
        assert mentions(document["stale"], sale["id"], ended_text, "do not sign it", "trimtab cancel --send")
        with pytest.raises(Refused, match=ended_text) as refused:
            api.sign_proposal(agent, {"test_account": 7}, None, yes)
        assert mentions(refused.value.remedy, "trimtab cancel --send proposes its rejection")
        with pytest.raises(Refused, match=ended_text):
            api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
        listed = in_process(capfd, monkeypatch, "proposal", "list", "--config", str(loaded.path)).out
        assert mentions(listed, "(stale, ", "must not be signed now: the order that it sells for")
        assert mentions(agent.status().warnings, ended_text)
        anvil_chain.move_market({"WETH": price * 6 / 10}, twap_follows=False)
        assert open_proposal(agent)["state"] == "stale", "also while the call would fail, which may pass"
        with pytest.raises(AwaitingExternalSignature, match=ended_text):
            agent.rebalance(send=True, confirm=yes)
        with pytest.raises(AwaitingExternalSignature, match=f"signatures of the proposal {sale['id']} exist"):
            maintenance.cancel(agent)


@pytest.mark.parametrize("by_run", [False, True])
def test_swap_of_a_cancelled_limit_order__is_not_signed(anvil_chain: LocalChain, tmp_path: Path, by_run: bool) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent:
        with pytest.raises(AwaitingExternalSignature):
            place(agent, "1000")
        if by_run:
            maintenance.cancel(agent)
            (waiting,) = agent.run(send=True, confirm=yes, once=True)
            assert isinstance(waiting, AwaitingExternalSignature)
        sign_and_send(agent, FIRST)
        (order,) = agent.context.store.executions.limit_orders()
        cancel_order_or_execution(loaded.path, order.id)
        with pytest.raises(Refused, match="is stale, its limit order was cancelled") as refused:
            api.sign_proposal(agent, SECOND, None, yes)
        assert refused.value.code == "proposal", "its minimums are not at fault"
        assert mentions(refused.value.remedy, "trimtab cancel --send withdraws it")


def edited(chain: LocalChain, path: Path, changes: ConfigChanges) -> str:
    """Edit the config, and return the warnings."""
    text_edit = TextEdit(lambda text: apply_changes(text, changes))
    return " ".join(edit(path, text_edit, confirm=lambda *_: True, transports=[chain.transport], clock=chain.clock).warnings)


def test_edit__names_the_proposal_that_waits(anvil_chain: LocalChain, tmp_path: Path) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent:
        waiting = proposal(agent)
        sign_and_send(agent, FIRST, SECOND)
    warnings = edited(anvil_chain, loaded.path, ConfigChanges(targets=(("WETH", "55%"), ("USDC", "45%"))))
    assert mentions(warnings, waiting["id"], "waits, made for the config before this edit", "trimtab cancel --send")
    with reopened_agent(anvil_chain, loaded) as agent, pytest.raises(AwaitingExternalSignature):
        maintenance.cancel(agent)
    warnings = edited(anvil_chain, loaded.path, ConfigChanges(targets=(("WETH", "50%"), ("USDC", "50%"))))
    assert "made for the config" not in warnings, "its rejection waits"


def test_payment_whose_address_was_removed__is_stale_and_names_the_cancel(anvil_chain: LocalChain, tmp_path: Path) -> None:
    payee = ("wallet.payout_addresses", [HOME])
    _, loaded = safe_of(anvil_chain, tmp_path, payee, targets={"WETH": "100%", "USDC": "0%"})
    with reopened_agent(anvil_chain, loaded) as agent:
        with pytest.raises(AwaitingExternalSignature):
            withdraw(agent, WithdrawalRequest("0.25", "WETH", to=HOME), send=True, confirm=lambda _: True)
        payment = open_proposal(agent)
        sign_and_send(agent, FIRST, SECOND)
    warnings = edited(anvil_chain, loaded.path, ConfigChanges(key_settings=(("wallet.payout_addresses", "[]"),)))
    assert mentions(warnings, payment["id"], "made for the config before this edit", "trimtab cancel --send")
    with reopened_agent(anvil_chain, load_config(loaded.path)) as agent:
        with pytest.raises(Refused, match=f"is stale, {HOME} is no confirmed address") as refused:
            api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
        assert mentions(refused.value.remedy, "trimtab cancel --send proposes its rejection")
        assert mentions(open_proposal(agent)["state"], "stale")
        (warning,) = [text for text in agent.status().warnings if payment["id"] in text]
        assert mentions(warning, f"is stale, {HOME} is no confirmed address", "do not sign it", "trimtab cancel --send")
        with pytest.raises(AwaitingExternalSignature, match=r"is stale, .* rule 'recipient'") as waiting:
            agent.rebalance(send=True, confirm=yes)
        assert "proposal execute" not in waiting.value.remedy
        with pytest.raises(AwaitingExternalSignature, match=f"signatures of the proposal {payment['id']} exist"):
            maintenance.cancel(agent)


def test_trade_that_the_signer_refuses_after_an_edit__is_stale_in_status_too(anvil_chain: LocalChain, tmp_path: Path) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent:
        waiting = proposal(agent)
    edited(anvil_chain, loaded.path, ConfigChanges(key_settings=(("execution.deadline", "5m"),)))
    with reopened_agent(anvil_chain, load_config(loaded.path)) as agent:
        with pytest.raises(Refused, match=r"is stale, .* rule 'deadline'"):
            api.sign_proposal(agent, FIRST, None, yes)
        assert mentions(open_proposal(agent)["failure"], "rule 'deadline'")
        status = agent.status()
        (warning,) = [text for text in status.warnings if waiting["id"] in text]
        assert mentions(warning, "is stale, the signer refuses by rule 'deadline'", "do not sign it", "trimtab cancel --send")
        assert mentions(status.waits_for, "is stale, the signer refuses by rule 'deadline'")


@pytest.mark.parametrize("act", ["sign", "execute"])
def test_edit_while_a_proposal_is_shown__is_not_passed_over(anvil_chain: LocalChain, tmp_path: Path, act: str) -> None:
    """A payout address is removed at the prompt."""
    payee = ("wallet.payout_addresses", [HOME])
    safe, loaded = safe_of(anvil_chain, tmp_path, payee, targets={"WETH": "100%", "USDC": "0%"})

    def edit_and_confirm(_: object) -> bool:
        return bool(edited(anvil_chain, loaded.path, ConfigChanges(key_settings=(("wallet.payout_addresses", "[]"),))))

    with reopened_agent(anvil_chain, loaded) as agent:
        with pytest.raises(AwaitingExternalSignature):
            withdraw(agent, WithdrawalRequest("0.25", "WETH", to=HOME), send=True, confirm=lambda _: True)
        sign_and_send(agent, FIRST, *[SECOND] * (act == "execute"))
        signed_by = open_proposal(agent)["signed_by"]
        with pytest.raises(ConfigChanged):
            if act == "sign":
                api.sign_proposal(agent, SECOND, None, edit_and_confirm)
            else:
                api.execute_proposal(agent, EXECUTOR, send=True, confirm=edit_and_confirm)
        assert safe.nonce() == 0
    with reopened_agent(anvil_chain, load_config(loaded.path)) as agent:
        assert open_proposal(agent)["signed_by"] == signed_by
