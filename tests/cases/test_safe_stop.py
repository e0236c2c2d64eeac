"""A Safe that is stopped: its owners sign what the stop proposes, and the repeated command carries it on."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent import app as api
from agent.app.agent import Agent
from agent.app.money import hard_pause, revocation, shutdown, transfers
from agent.app.money.shutdown import ShutdownReport
from agent.app.records import maintenance
from agent.chain.safe import SafeReader
from agent.errors import Refused, Retryable
from agent.execution.executor import AwaitingExternalSignature, ProposingExecutor
from agent.localchain import LocalChain
from agent.localchain.world import dev_accounts
from agent.model import ExecutionState
from tests.cli.tools import in_process
from tests.support.agents import reopened_agent, yes
from tests.support.constants import ETHER, HOME
from tests.support.on_chain.limit_orders import place
from tests.support.on_chain.proposals import proposal, safe_of
from tests.support.on_chain.safe_proposals import EXECUTOR, FIRST, SECOND, open_proposal, sign_and_send
from tests.support.text import mentions

OTHER = dev_accounts()[8].address
PAYOUT = ("wallet.payout_addresses", [HOME, OTHER])


def stop(agent: Agent, **options: Any) -> ShutdownReport:
    return shutdown.stop(agent, send=True, confirm=lambda _: True, **options)


@pytest.mark.parametrize(
    ("to_stable", "purposes"),
    [pytest.param(False, ["payout"], id="paid"), pytest.param(True, ["approve", "swap", "payout"], id="sold and paid")],
)
def test_stop__keeps_what_its_owners_sign(anvil_chain: LocalChain, tmp_path: Path, to_stable: bool, purposes: list[str]) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT)
    with reopened_agent(anvil_chain, loaded) as agent:
        report = stop(agent, to_stable=to_stable, send_to=HOME)
        for purpose in purposes:
            proposal = open_proposal(agent)
            with pytest.raises(AwaitingExternalSignature) as awaiting:
                agent.rebalance(send=True, confirm=yes)
            assert mentions(awaiting.value.remedy, "then trimtab stop --send: it settles the proposal")
            assert (report.state, proposal["purpose"]) == ("unfinished", purpose)
            assert mentions(report.reason, "then trimtab stop --send: it settles the proposal")
            assert "earlier transaction" not in report.reason
            preview = shutdown.stop(agent, confirm=lambda _: True)
            assert preview.pending_intents == (), "it continues its own proposal"
            assert mentions(preview.reason, proposal["description"], "trimtab proposal list")
            sign_and_send(agent, FIRST, SECOND)
            repeated = stop(agent)
            assert mentions(repeated.reason, "awaits its execution (2 signatures collected, 2 needed)")
            assert open_proposal(agent)["id"] == proposal["id"]
            executed = api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
            assert (executed["outcome"], executed["next_command"]) == ("executed", "trimtab stop --send")
            report = stop(agent)
        assert (report.state, report.unpaid_holding_texts) == ("stopped", ())
    sold = anvil_chain.balance("USDC", HOME) > 8_900 * 10**6
    assert (sold, anvil_chain.balance("WETH", HOME)) == (to_stable, 0 if to_stable else 3 * ETHER)


@pytest.mark.parametrize("by_stop", [True, False], ids=["stop", "revoke"])
def test_proposed_revocation__waits_and_has_not_failed(anvil_chain: LocalChain, tmp_path: Path, by_stop: bool) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path)
    router = anvil_chain.addresses.swap_router_02
    anvil_chain.node.ask([("anvil_impersonateAccount", [safe.address]), ("anvil_setBalance", [safe.address, hex(ETHER)])])
    for symbol in ("USDC", "WETH"):
        anvil_chain.send(anvil_chain.token_contract(symbol).functions.approve(router, 7), safe.address, gas=100_000)
    with reopened_agent(anvil_chain, loaded) as agent:
        for symbol in ("WETH", "USDC"):
            if by_stop:
                assert mentions(stop(agent).reason, "trimtab proposal sign", "then trimtab stop --send: it settles the proposal")
            else:
                with pytest.raises(AwaitingExternalSignature, match="awaits 2 signatures") as awaiting:
                    revocation.revoke(agent, send=True, confirm=yes)
                assert mentions(awaiting.value.remedy, "trimtab proposal sign", "then run the command again")
            assert open_proposal(agent)["description"] == f"set the router's allowance of {symbol} to zero"
            (step,) = agent.context.store.steps.newest(1)
            assert (step.decision, step.outcome) == ("halt", "waiting")
            sign_and_send(agent, FIRST, SECOND)
            assert api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)["outcome"] == "executed"
        assert stop(agent).state == "stopped" if by_stop else revocation.revoke(agent, send=True, confirm=yes).state == "clear"


def test_proposal_that_a_stop_withdraws__history_says_so(anvil_chain: LocalChain, tmp_path: Path) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent:
        place(agent, "9000")
        swap = proposal(agent)
        assert stop(agent).state == "stopped"
        step = next(step for step in api.history(loaded.path)["steps"] if step["decision"] == "rebalance")
        assert step["outcome"] == "cancelled"
        assert step["reason"].endswith(f'"{swap["description"]}" was not executed: stopped by the owner')
        assert api.list_proposals(agent)["proposals"] == []
        (order,) = agent.context.store.executions.limit_orders()
        assert order.why == "stopped by the owner"


def test_stop_that_awaits_a_rejection__ends_orders_without_a_read(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent:
        place(agent, "9000")
        proposal(agent)
        sign_and_send(agent, FIRST, SECOND)
        cancel_pending = ProposingExecutor.cancel_pending

        def cancel_and_lose_the_chain(executor: ProposingExecutor, reason: str) -> Any:
            monkeypatch.setattr(SafeReader, "snapshot", lose)
            return cancel_pending(executor, reason)

        def lose(_: object) -> Any:
            monkeypatch.undo()
            raise Retryable("no endpoint answers")

        monkeypatch.setattr(ProposingExecutor, "cancel_pending", cancel_and_lose_the_chain)
        with suppress(Retryable):
            stop(agent, send_to=HOME)
        (order,) = agent.context.store.executions.limit_orders()
        assert order.state is ExecutionState.CANCELLED
        assert [document["purpose"] for document in api.list_proposals(agent)["proposals"]] == ["swap", "cancel"]


def begin_withdrawal(agent: Agent) -> None:
    with pytest.raises(Retryable):
        transfers.withdraw(agent, transfers.WithdrawalRequest("1000", "USDC", to=HOME), send=True, confirm=lambda _: True)


@pytest.mark.parametrize("signers", [(FIRST,), (FIRST, SECOND)], ids=["withdrawn", "rejected"])
@pytest.mark.parametrize(
    ("begin", "command"),
    [
        pytest.param(lambda agent: stop(agent, to_stable=True), "trimtab stop --send", id="stop"),
        pytest.param(begin_withdrawal, "trimtab withdraw --resume 1 --send", id="withdrawal"),
    ],
)
def test_stale_sale__names_the_command_that_proposes_it_anew(
    anvil_chain: LocalChain, tmp_path: Path, begin: Callable[[Agent], object], command: str, signers: tuple[dict[str, Any], ...]
) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent:
        begin(agent)
        sign_and_send(agent, *signers)
        anvil_chain.move_market({"WETH": anvil_chain.deployed_world.prices_usd["WETH"] * 119 / 100}, twap_follows=False)
        with pytest.raises(Refused) as refusal:
            api.sign_proposal(agent, SECOND, None, yes)
    assert mentions(refusal.value.remedy, "trimtab cancel --send", f"{command} plans anew")


def test_proposal_of_a_stop__is_continued_by_the_stop(anvil_chain: LocalChain, tmp_path: Path) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT)
    with reopened_agent(anvil_chain, loaded) as agent:
        stop(agent, send_to=HOME)
        with pytest.raises(AwaitingExternalSignature) as caught:
            agent.swap("WETH", "USDC", "0.1", send=True, confirm=yes)
        assert "trimtab withdraw" not in caught.value.remedy
        safe.execute(caught.value.proposal)
        (line,) = [text for text in agent.status().warnings if text.startswith("The proposal ")]
        assert mentions(line, "trimtab stop --send settles it")
        api.resume(loaded.path, lambda _: True)
        (line,) = [text for text in agent.status().warnings if text.startswith("The proposal ")]
        assert mentions(line, "trimtab rebalance --send settles it")


@pytest.mark.parametrize("is_executed", [True, False], ids=["executed", "another call"])
def test_used_nonce__nothing_is_said_to_wait_or_to_be_executable(
    anvil_chain: LocalChain, tmp_path: Path, is_executed: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT)
    with reopened_agent(anvil_chain, loaded) as agent:
        with pytest.raises(AwaitingExternalSignature) as caught:
            transfers.withdraw(agent, transfers.WithdrawalRequest("1", "WETH", to=HOME), send=True, confirm=lambda _: True)
        foreign = caught.value.proposal
        maintenance.cancel(agent)
        stop(agent, send_to=HOME)
        sign_and_send(agent, FIRST)
        waiting = open_proposal(agent)
        assert mentions(shutdown.stop(agent, confirm=lambda _: True).reason, "is proposed and waits", waiting["id"])
        own = json.loads((loaded.proposals_path / f"{waiting['id']}.json").read_text())
        safe.execute(own if is_executed else foreign)
        api.pause(loaded.path, "test")
        reasons = [shutdown.stop(agent, confirm=lambda _: True).reason, *agent.status().pause_signed]
        reasons.append(hard_pause.pause_hard(loaded, "test", send=False, is_confirmed=False, confirm=yes).signed_texts)
        list_text = in_process(capfd, monkeypatch, "proposal", "list", "--config", str(loaded.path)).out
    assert f"trimtab status --config {loaded.path} names the command that settles it" in " ".join(list_text.split())
    assert mentions(reasons[0], "nonce 0 is used", "trimtab stop --send settles it")
    assert not any(words in str(reason) for reason in reasons for words in ("proposed and waits", "signatures of the proposal"))


def test_rejection_of_a_payment__by_a_stop__goes_on_with_the_stop(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """Not with the withdrawal that it rejects."""
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT)
    with reopened_agent(anvil_chain, loaded) as agent:
        with pytest.raises(Retryable):
            transfers.withdraw(agent, transfers.WithdrawalRequest("1", "WETH", to=HOME), send=True, confirm=lambda _: True)
        sign_and_send(agent, FIRST, SECOND)
        assert mentions(stop(agent).reason, "2 of 2 signatures", "then trimtab stop --send")
        sign_and_send(agent, FIRST, SECOND)
        executed = api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
        assert (executed["outcome"], executed["next_command"]) == ("executed", "trimtab stop --send")
        assert stop(agent).state == "stopped"
        (withdrawal,) = transfers.list_withdrawals(agent)
        assert (withdrawal["state"], withdrawal["payments"][0]["state"]) == ("open", "rejected")


def test_stop__withdraws_what_it_has_not_proposed(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """A withdrawal of before, its own payment to another address, and that of a stop that was resumed."""
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT)
    with reopened_agent(anvil_chain, loaded) as agent:
        with pytest.raises(Retryable, match="is proposed and awaits 2 signatures"):
            transfers.withdraw(agent, transfers.WithdrawalRequest("1", "WETH", to=HOME), send=True, confirm=lambda _: True)
        recipients = [open_proposal(agent)["recipients"]]
        for address in (HOME, OTHER):
            assert shutdown.stop(agent, send_to=address, confirm=lambda _: True).pending_intents, "another call is withdrawn"
            stop(agent, send_to=address)
            recipients.append(open_proposal(agent)["recipients"])
        identity = open_proposal(agent)["id"]
        api.resume(loaded.path, lambda _: True)
        stop(agent, send_to=OTHER)
        assert recipients == [[HOME], [HOME], [OTHER]]
        assert open_proposal(agent)["id"] != identity
