"""Payments of a real Safe: recipient and amount are read from the call itself, in the list, before a signature and in the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import pytest

from agent import app as api
from agent.app.agent import Agent
from agent.app.documents.status import status_document
from agent.app.money import hard_pause, transfers
from agent.app.records import adoption, maintenance
from agent.app.withdrawals.withdrawal_run import WithdrawalReport
from agent.chain.safe import SafeContract, SafeOwnersSigner
from agent.errors import Refused, Retryable
from agent.execution.executor import AwaitingExternalSignature
from agent.localchain import LocalChain
from agent.localchain.world import dev_accounts as accounts
from agent.model import RequestState, UnsignedTx
from agent.signing.safe_tx import safe_tx_fields, typed_data
from agent.store.files.locks import LockHeld
from agent.units import decimal_text
from tests.cli.tools import in_process
from tests.support.agents import USD, reopened_agent, yes
from tests.support.constants import ETHER, HOME
from tests.support.fakes.clock import FakeClock
from tests.support.on_chain.proposals import proposal, safe_of
from tests.support.on_chain.safe_proposals import EXECUTOR, FIRST, SECOND, hand_signature, open_proposal, sign_and_send
from tests.support.text import mentions, raises_code
from tests.support.wallets import SafeWallet, native_of

PAYOUT = ("wallet.payout_addresses", [HOME])
IN_WETH = {"WETH": "100%", "USDC": "0%"}
COIN = (("portfolio.assets.0.address", "native"), ("portfolio.assets.0.symbol", "ETH"))


def propose_payment(agent: Agent, amount: str, symbol: str) -> None:
    with pytest.raises(AwaitingExternalSignature):
        transfers.withdraw(agent, transfers.WithdrawalRequest(amount, symbol, to=HOME), send=True, confirm=lambda _: True)


def execute(agent: Agent) -> None:
    sign_and_send(agent, FIRST, SECOND)
    assert api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)["outcome"] == "executed"


def no_question(_: object) -> NoReturn:
    raise AssertionError("nothing is left to confirm")


def pause_hard(agent: Agent, *, send: bool = True) -> dict[str, Any]:
    report = hard_pause.pause_hard(agent.context.loaded_config, "test", send=send, is_confirmed=send, confirm=yes)
    return dict(hard_pause.hard_pause_document(report, send))


def proposal_file(agent: Agent) -> dict[str, Any]:
    (path,) = agent.context.loaded_config.proposals_path.iterdir()
    return dict(json.loads(path.read_text()))


def file_lines(agent: Agent) -> list[str]:
    (path,) = agent.context.loaded_config.proposals_path.iterdir()
    return api.read_proposal_file(path)["calls"]


def test_payment_of_a_token__names_recipient_and_amount(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT)
    weth = anvil_chain.tokens["WETH"].address
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        document = open_proposal(agent)
        (call,) = document["calls"]
        assert (call["to"], call["function"], call["value_wei"], call["recipients"]) == (weth, "transfer", "0", [HOME])
        assert (call["token"], call["amount_raw"]) == ("WETH", str(ETHER // 4))
        assert document["recipients"] == [HOME]
        assert file_lines(agent) == [f"pays {ETHER // 4} base units of the token {weth} (unknown) to {HOME} (unknown)"]
        list_text = in_process(capfd, monkeypatch, "proposal", "list", "--config", str(loaded.path)).out
        assert f"  pays 0.25 WETH to {HOME} (one of wallet.payout_addresses)\n" in list_text
        assert "executable until another call uses nonce 0" in list_text
        safe.execute(proposal_file(agent))
        assert anvil_chain.balance("WETH", HOME) == ETHER // 4
        list_text = in_process(capfd, monkeypatch, "proposal", "list", "--config", str(loaded.path)).out
        assert "(executed, " in list_text
        assert "at any time" not in list_text


def test_payment_of_native_coin__is_no_empty_call(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, *COIN)
    anvil_chain.node.rpc("anvil_setBalance", safe.address, hex(ETHER))
    with reopened_agent(anvil_chain, loaded) as agent:
        there = native_of(anvil_chain, HOME)
        propose_payment(agent, "0.25", "ETH")
        (call,) = open_proposal(agent)["calls"]
        assert (call["to"], call["value_wei"], call["recipients"]) == (HOME, str(ETHER // 4), [HOME])
        assert file_lines(agent) == [f"pays 0.25 of native coin to {HOME} (unknown)"]
        assert open_proposal(agent)["in_words"] == [f"pays 0.25 of native coin to {HOME} (one of wallet.payout_addresses)"]
        proposal_id = open_proposal(agent)["id"]
        execute(agent)
        assert native_of(anvil_chain, HOME) - there == ETHER // 4
        (intent,) = agent.context.store.journal.intents()
        for named_id in (None, proposal_id):  # it is settled, and no proposal is open
            again = api.execute_proposal(agent, EXECUTOR, named_id, send=True, confirm=no_question)
            assert (again["outcome"], again["transaction"], again["id"]) == ("executed", intent.tx_hash, proposal_id)
            assert again["executor"] == accounts()[EXECUTOR["test_account"]].address
        assert native_of(anvil_chain, HOME) - there == ETHER // 4


def test_payment_to_an_unconfirmed_address__is_refused_while_a_proposal_waits(anvil_chain: LocalChain, tmp_path: Path) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    stranger = accounts()[8].address
    with reopened_agent(anvil_chain, loaded) as agent:
        reserve = transfers.WithdrawalRequest("0.25", "WETH")
        assert transfers.withdraw(agent, reserve, send=True, confirm=lambda _: True).state == "reserved"
        propose_payment(agent, "0.5", "WETH")
        waiting = api.list_proposals(agent)
        for act in (
            lambda: transfers.withdraw(agent, replace(reserve, to=stranger, again=True), send=True, confirm=lambda _: True),
            lambda: transfers.resume_withdrawal(agent, 1, to=stranger, send=True, confirm=lambda _: True),
        ):
            with pytest.raises(Refused, match=f"payout_address: {stranger} is not a confirmed payout address"):
                act()
        assert [row["id"] for row in api.list_proposals(agent)["proposals"]] == [row["id"] for row in waiting["proposals"]]


@pytest.mark.parametrize("is_dropped", [False, True], ids=["still listed", "dropped"])
def test_signed_payment_past_its_deadline__is_rejected_by_a_hard_pause(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_dropped: bool
) -> None:
    """The chain knows no deadline of a payment: whoever has the signatures could execute it after the owner stopped everything."""
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        sign_and_send(agent, FIRST, SECOND)
        (intent,) = agent.context.store.journal.open_intents()
        payment = agent.context.store.proposals.signatures(intent.id)
        anvil_chain.warp(1_801)
        if is_dropped:
            agent.rebalance(send=True, confirm=yes)
            assert api.list_proposals(agent) == {"proposals": [], "held_up": ""}
            assert [text for text in api.pause(loaded.path, "test")["signed"] if intent.id in text]
            pause_document = pause_hard(agent, send=False)
            assert pause_document["outcome"] == "planned"
            assert mentions(pause_document["message"], intent.id, "at any time", "trimtab pause --hard --send")

        def refuse_lock(*_: object) -> NoReturn:
            raise LockHeld("another trimtab (process 7) already acts")

        with monkeypatch.context() as patch:
            patch.setattr(Agent, "cancel_and_revoke", refuse_lock)
            document = pause_hard(agent)
        assert document["outcome"] == "handed over"
        assert mentions(document["message"], intent.id, "at any time", "trimtab pause --hard --send")
        document = pause_hard(agent)
        assert document["outcome"] == "unfinished"
        assert "end the pause" not in document["message"], "a rejection is signed while hard paused"
        assert mentions(document["message"], "2 of 2 signatures", intent.id, "at any time", f"empty call of {safe.address}")
        sign_and_send(agent, FIRST)
        assert pause_hard(agent)["outcome"] == "unfinished"
        assert len(api.list_proposals(agent)["proposals"][-1]["signed_by"]) == 1, "the next look keeps the rejection and its signatures"
        execute(agent)
        assert pause_hard(agent)["outcome"] in ("done", "clear")
        assert "signed" not in api.pause(loaded.path, "test")
        execution = SafeContract(agent.context.transport, safe.address).execution_data(intent.tx, payment)
        with pytest.raises(RuntimeError, match="GS026"):
            anvil_chain.node.rpc("eth_call", {"from": HOME, "to": safe.address, "data": execution}, "latest")
        assert anvil_chain.balance("WETH", HOME) == 0


def test_signed_payment_past_its_deadline__is_named_and_rejected_by_a_cancel(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    config = ("--config", str(loaded.path))
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        sign_and_send(agent, FIRST)
        let_expire(agent, safe)
        assert "can be executed" not in " ".join(agent.status().warnings), "one signature is not enough"
        assert "since with 1 of 2 signatures here others" in " ".join(in_process(capfd, monkeypatch, "cancel", *config).err.split())
        with pytest.raises(AwaitingExternalSignature):
            transfers.resume_withdrawal(agent, 1, send=True, confirm=lambda _: True)
        sign_and_send(agent, SECOND)
        payment_id = open_proposal(agent)["id"]
        anvil_chain.warp(1_801)
        (warning,) = [text for text in agent.status().warnings if payment_id in text]
        assert mentions(warning, "has expired here; signed by enough, it stays executable", "nonce 0", "trimtab cancel --send")
        agent.rebalance(send=True, confirm=yes)
        (warning,) = [text for text in agent.status().warnings if payment_id in text]
        rejects = f"proposes the rejection of the proposal {payment_id}, for the owners to sign, since 2 of 2 signatures"
        assert mentions(warning, "waits no longer, but can be executed: trimtab cancel --send", rejects)
        assert mentions(" ".join(in_process(capfd, monkeypatch, "withdraw", *config).out.split()), "--release 1", "if enough owners")
        assert rejects in " ".join(in_process(capfd, monkeypatch, "cancel", *config).err.split())
        output = in_process(capfd, monkeypatch, "cancel", "--send", "--yes", *config)
        assert (output.code, open_proposal(agent)["purpose"]) == (11, "cancel")
        assert "waits no longer, but" not in " ".join(agent.status().warnings)
        execute(agent)
        step = next(step for step in api.history(loaded.path)["steps"] if step["step"] == agent.context.store.journal.intents()[1].step_id)
        assert (step["outcome"], "was rejected by the owners" in step["reason"]) == ("rejected", True)
        assert transfers.release_withdrawal(agent, 1).state is RequestState.RELEASED


def test_withdrawn_payment__signature_that_turns_up_and_release_name_the_cancel(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        sign_and_send(agent, FIRST)
        signature = hand_signature(agent, 6)
        maintenance.cancel(agent)
        with pytest.raises(Refused, match="no proposal waits") as refusal:
            api.collect_signatures(agent, [signature])
        assert mentions(refusal.value.remedy, "trimtab cancel --send can reject it if owners have signed it")
    released = in_process(capfd, monkeypatch, "withdraw", "--release", "1", "--config", str(loaded.path)).out
    assert mentions(released, "0.25 WETH returns to the portfolio; trimtab cancel", "--send can reject its payment if owners of a Safe")


def test_signatures_of_a_payment_asked_for_again__count_together(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """Owners sign a call and its nonce: with the first one's signature, kept, and the second one's it could be executed."""
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        sign_and_send(agent, FIRST)
        maintenance.cancel(agent)
        with pytest.raises(AwaitingExternalSignature):
            transfers.resume_withdrawal(agent, 1, send=True, confirm=lambda _: True)
        assert open_proposal(agent)["signed_by"] == [accounts()[5].address]
        sign_and_send(agent, SECOND)
        document = pause_hard(agent)
        assert document["outcome"] == "unfinished"
        assert mentions(document["message"], "2 of 2 signatures", "rejection is executed")
        execute(agent)
        assert pause_hard(agent)["outcome"] in ("done", "clear")
        assert anvil_chain.balance("WETH", HOME) == 0


def test_withdrawal_beside_a_proposal__says_that_it_is_not_recorded(anvil_chain: LocalChain, tmp_path: Path) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT)
    with reopened_agent(anvil_chain, loaded) as agent:
        proposal(agent)
        with pytest.raises(AwaitingExternalSignature, match=r"^the withdrawal is not recorded: an earlier proposal waits; ") as waiting:
            withdraw_again(agent)
        assert waiting.value.title == "Waiting"
        assert waiting.value.remedy.endswith("; then ask for the withdrawal again")
        assert withdrawal_states(agent) == []


@pytest.mark.parametrize(
    ("targets", "next_command"),
    [({"WETH": "50%", "USDC": "50%"}, "trimtab pause --hard --send"), (IN_WETH, "trimtab withdraw --resume 1")],
    ids=["trade", "payment"],
)
def test_rejection_while_paused__needs_no_end_of_the_pause(
    anvil_chain: LocalChain,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    targets: dict[str, str],
    next_command: str,
) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=targets)
    with reopened_agent(anvil_chain, loaded) as agent:
        if targets is IN_WETH:
            propose_payment(agent, "0.25", "WETH")
        else:
            proposal(agent)
        sign_and_send(agent, FIRST, SECOND)
        switch = agent.context.store.pause_switch
        switch.pause("test", agent.context.clock.now_s())
        with raises_code(Refused, "kill_switch", "trimtab pause --hard --send allows it") as refused:
            maintenance.cancel(agent)
        assert "resume" not in refused.value.remedy
        switch.resume("test", agent.context.clock.now_s())
        with pytest.raises(AwaitingExternalSignature):
            maintenance.cancel(agent)
        switch.pause("test", agent.context.clock.now_s())
        with raises_code(Refused, "kill_switch", "trimtab pause --hard --send allows it") as refused:
            sign_and_send(agent, FIRST)
        assert "resume" not in refused.value.remedy
        rejection = next(text for text in agent.status().warnings if '("reject: ' in text)
        assert mentions(rejection, "trimtab pause --hard --send; then have 2 of 3 owners sign it")
        config_words = ("--config", str(loaded.path))
        list_text = in_process(capfd, monkeypatch, "proposal", "list", *config_words).out
        (line,) = (line for line in list_text.splitlines() if "neither signed nor executed" in line)
        assert line.endswith(f"until trimtab pause --config {loaded.path} --hard --send")
        assert pause_hard(agent)["outcome"] == "unfinished"
        sign_and_send(agent, FIRST, SECOND)
        assert api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)["next_command"] == next_command
        assert pause_hard(agent)["outcome"] in ("done", "clear")


def withdrawal_states(agent: Agent) -> list[RequestState]:
    return [request.state for request in agent.context.store.requests.newest()]


def withdraw_again(agent: Agent) -> None:
    transfers.withdraw(agent, transfers.WithdrawalRequest("0.25", "WETH", to=HOME), send=True, confirm=lambda _: True)


def look(agent: Agent) -> None:
    list(agent.run(send=True, confirm=yes, once=True))


SETTLING: dict[str, Callable[[Agent], object]] = {
    "rebalance": lambda agent: agent.rebalance(send=True, confirm=yes),
    "run": look,
    "reconcile": maintenance.reconcile,
    "resume, dry": lambda agent: transfers.resume_withdrawal(agent, 1, confirm=lambda _: False),
    "resume": lambda agent: transfers.resume_withdrawal(agent, 1, send=True, confirm=lambda _: True),
}


@pytest.mark.parametrize("command", SETTLING)
def test_payment_executed_elsewhere__ends_its_withdrawal_once_settled(anvil_chain: LocalChain, tmp_path: Path, command: str) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        tx_hash = safe.execute(proposal_file(agent))
        report = SETTLING[command](agent)
        assert withdrawal_states(agent) == [RequestState.DONE]
        if isinstance(report, WithdrawalReport):
            assert report.state == "paid"
            assert tx_hash in report.reason
        with raises_code(Refused, "repeated_payment", f"has paid the same in {tx_hash}, recorded 20"):
            withdraw_again(agent)
        assert anvil_chain.balance("WETH", HOME) == ETHER // 4


def test_payment_executed_here__ends_its_withdrawal_and_names_it(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT)
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        sign_and_send(agent, FIRST, SECOND)
        command = ("proposal", "execute", "--key", "test_account=9", "--send", "--yes", "--config", str(loaded.path))
        executed_text = in_process(capfd, monkeypatch, *command).out
        assert executed_text.endswith(f"Next: trimtab withdraw --config {loaded.path} --resume 1\n")
        assert "can execute it" not in executed_text
        assert withdrawal_states(agent) == [RequestState.DONE]
        resume_text = in_process(capfd, monkeypatch, "withdraw", "--resume", "1", "--config", str(loaded.path)).out
        assert "already paid in 0x" in " ".join(resume_text.split())
        assert "Add --send" not in resume_text


@pytest.mark.parametrize("send", [False, True])
def test_resumed_payment_that_has_become_final__ends_its_withdrawal(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, send: bool
) -> None:
    """The profit says until then whether its figures include the payment."""

    def pnl_text() -> str:
        return " ".join(in_process(capfd, monkeypatch, "pnl", "--config", str(loaded.path)).out.split())

    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, ("chain.confirmations", 3), targets=IN_WETH)
    with reopened_agent(anvil_chain, loaded, clock=FakeClock(anvil_chain.now_s())) as agent:
        api.refresh_ledger(agent)
        propose_payment(agent, "0.25", "WETH")
        execute(agent)
        assert "Not booked yet: 1 mined transaction after 20" in pnl_text()
        assert "include them" not in pnl_text()
        assert transfers.resume_withdrawal(agent, 1, send=send, confirm=yes).state == "waiting"
        api.refresh_ledger(agent)
        assert "Not booked yet: 1 mined transaction. Value" in pnl_text()
        assert api.history(loaded.path)["steps"][0]["outcome"] == "done"
    anvil_chain.mine(3)
    with reopened_agent(anvil_chain, loaded) as agent:
        assert transfers.resume_withdrawal(agent, 1, send=send, confirm=yes).state == "paid"
        assert withdrawal_states(agent) == [RequestState.DONE]


def test_dry_withdrawal__of_a_safe__says_that_it_is_proposed_or_waits(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    withdraw = ("withdraw", "0.25", "--in", "WETH", "--to", HOME, "--config", str(loaded.path))
    before = " ".join(in_process(capfd, monkeypatch, *withdraw).out.split())
    assert mentions(before, "Dry run: nothing was proposed. Add --send to propose it to the owners.")
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.5", "WETH")
        waiting_id = open_proposal(agent)["id"]
    after = " ".join(in_process(capfd, monkeypatch, *withdraw).out.split())
    assert mentions(after, f"The proposal {waiting_id}", "waits, and nothing else is proposed meanwhile")


def test_steps_of_a_proposed_payment__wait_and_are_then_done(anvil_chain: LocalChain, tmp_path: Path) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        waiting_id = open_proposal(agent)["id"]
        (step,) = api.history(loaded.path)["steps"]
        assert step["outcome"] == "waiting"
        execute(agent)
        (step,) = api.history(loaded.path)["steps"]
        assert step["outcome"] == "done"
        assert mentions(step["reason"], waiting_id, "executed in 0x", " at 20")
        propose_payment(agent, "0.5", "WETH")
        sign_and_send(agent, FIRST)
        with suppress(AwaitingExternalSignature):
            maintenance.cancel(agent)
        assert api.history(loaded.path)["steps"][0]["outcome"] == "cancelled"


def test_payment_of_two__goes_on_with_the_other(anvil_chain: LocalChain, tmp_path: Path) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT)
    anvil_chain.set_balance("USDC", 6_000 * USD, owner=safe.address)
    with reopened_agent(anvil_chain, loaded) as agent:
        both = transfers.WithdrawalRequest("1000", pro_rata=True, to=HOME)
        with pytest.raises(AwaitingExternalSignature):
            transfers.withdraw(agent, both, send=True, confirm=lambda _: True)
        sign_and_send(agent, FIRST, SECOND)
        executed = api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
        assert executed["next_command"] == "trimtab withdraw --resume 1 --send"
        with pytest.raises(AwaitingExternalSignature):
            transfers.resume_withdrawal(agent, 1, send=True, confirm=lambda _: True)
        sign_and_send(agent, FIRST, SECOND)
        assert api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)["next_command"] == "trimtab withdraw --resume 1"
        assert withdrawal_states(agent) == [RequestState.DONE]


def test_commands_about_a_paid_or_rejected_payment__name_its_withdrawal(anvil_chain: LocalChain, tmp_path: Path) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        safe.execute(proposal_file(agent))
        (warning,) = [text for text in agent.status().warnings if "its nonce is used" in text]
        assert ": trimtab withdraw --resume 1 settles it and goes on" in warning
        with pytest.raises(Refused, match=r"trimtab withdraw --resume 1 settles it and goes on"):
            sign_and_send(agent, FIRST)
        transfers.resume_withdrawal(agent, 1, confirm=lambda _: False)
        propose_payment(agent, "0.5", "WETH")
        sign_and_send(agent, FIRST, SECOND)
        with pytest.raises(AwaitingExternalSignature):
            maintenance.cancel(agent)
        sign_and_send(agent, FIRST, SECOND)
        assert api.execute_proposal(agent, {})["next_command"] == "trimtab withdraw --resume 2"


def test_sale_of_a_withdrawal__goes_on_with_it(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """The command that began it would be refused as a repetition, and a rebalance does not pay it."""
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    with reopened_agent(anvil_chain, loaded) as agent:
        with pytest.raises(AwaitingExternalSignature, match="then trimtab withdraw --resume 1 --send:"):
            transfers.withdraw(agent, transfers.WithdrawalRequest("1000", "USDC", to=HOME), send=True, confirm=lambda _: True)
        assert open_proposal(agent)["purpose"] == "approve"
        sign_and_send(agent, FIRST, SECOND)
        assert api.execute_proposal(agent, {})["next_command"] == "trimtab withdraw --resume 1 --send"


def test_paid_withdrawal__is_not_released(anvil_chain: LocalChain, tmp_path: Path) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        with raises_code(Retryable, "open_transaction", "is pending", "trimtab cancel --send", "then, once", "withdraw --release 1"):
            transfers.release_withdrawal(agent, 1)
        assert withdrawal_states(agent) == [RequestState.OPEN]
        tx_hash = safe.execute(proposal_file(agent))
        with raises_code(Refused, "not_open", "withdrawal 1", tx_hash):
            transfers.release_withdrawal(agent, 1)
        assert withdrawal_states(agent) == [RequestState.DONE]


def test_same_withdrawal_after_its_payment_elsewhere__is_a_repetition(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """The command that proposed it, run again, as it is told to be."""
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        with pytest.raises(AwaitingExternalSignature, match="trimtab withdraw --resume 1 --send"):
            withdraw_again(agent)
        tx_hash = safe.execute(proposal_file(agent))
        with raises_code(Refused, "repeated_payment", "withdrawal 1 has paid the same", tx_hash):
            withdraw_again(agent)
        assert withdrawal_states(agent) == [RequestState.DONE]


def list_payments(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, config_path: Path) -> list[str]:
    """The state of the only withdrawal, and the transaction that paid each of its payments."""
    text = in_process(capfd, monkeypatch, "withdraw", "--json", "--config", str(config_path)).out
    (withdrawal,) = json.loads(text)["withdrawals"]
    return [withdrawal["state"], *(payment["paid_in"] for payment in withdrawal["payments"])]


def test_payment_of_a_released_withdrawal__is_not_repeated_unasked(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its signed proposal expired here, and whoever has the signatures executes it after the release."""
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        document = proposal_file(agent)
        anvil_chain.warp(1_801)
        agent.rebalance(send=True, confirm=yes)
        transfers.release_withdrawal(agent, 1)
        tx_hash = safe.execute(document)
        agent.rebalance(send=True, confirm=yes)
        assert withdrawal_states(agent) == [RequestState.RELEASED]
        assert list_payments(capfd, monkeypatch, loaded.path) == ["released", tx_hash]
        assert "released, then paid" in in_process(capfd, monkeypatch, "withdraw", "--config", str(loaded.path)).out
        with raises_code(Refused, "repeated_payment", "withdrawal 1", "released", tx_hash):
            withdraw_again(agent)


def test_payment_that_no_endpoint_shows__is_not_repeated_unasked_after_the_adoption(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        safe.execute(proposal_file(agent))
        with monkeypatch.context() as patch:
            patch.setattr(SafeOwnersSigner, "mined_at_nonce", lambda *_: None)
            with raises_code(Retryable, "lag"):
                agent.rebalance(send=True, confirm=yes)
            adopted = in_process(capfd, monkeypatch, "adopt", "--yes", "--config", str(loaded.path))
        assert mentions(adopted.out, "nonce 1", "Withdrawal 1 is released", "may have paid it")
        assert withdrawal_states(agent) == [RequestState.RELEASED]
        with raises_code(Refused, "repeated_payment", "withdrawal 1", "may have paid", "--again"):
            withdraw_again(agent)


def test_payment_executed_elsewhere__is_no_reserve_before_it_is_booked(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT)
    anvil_chain.set_balance("USDC", 6_000 * USD, owner=safe.address)
    with reopened_agent(anvil_chain, loaded) as agent:
        api.refresh_ledger(agent)
        value = Fraction(str(status_document(agent.status())["total_value"]))
        with pytest.raises(AwaitingExternalSignature):
            transfers.withdraw(agent, transfers.WithdrawalRequest("500", to=HOME), send=True, confirm=lambda _: True)
        assert Fraction(str(status_document(agent.status())["total_value"])) == value - 500
        safe.execute(proposal_file(agent))
        status = status_document(agent.status())
        assert Fraction(str(status["total_value"])) == value - 500
        unbooked = "withdrawal 1: 500 USDC may be paid and is not booked yet: trimtab withdraw --resume 1 books it"
        assert unbooked in status["decision"]["reason"]
        assert agent.rebalance(confirm=yes).plan is None
        api.refresh_ledger(agent)
        assert api.pnl(loaded)["periods"] == [], "a payment that is not booked is no loss"
        pnl_text = " ".join(in_process(capfd, monkeypatch, "pnl", "--now", "--config", str(loaded.path)).out.split())
        assert unbooked.replace("withdraw --", f"withdraw --config {loaded.path} --") in pnl_text
        transfers.resume_withdrawal(agent, 1, confirm=lambda _: False)
        api.refresh_ledger(agent)
        (period,) = api.pnl(loaded)["periods"]
        assert (period["withdrawals"], Fraction(period["profit"])) == ("500", 0)
        assert Fraction(str(status_document(agent.status())["total_value"])) == value - 500


def withdraw_share(agent: Agent) -> None:
    request = transfers.WithdrawalRequest("400", pro_rata=True, to=HOME)
    transfers.withdraw(agent, request, send=True, confirm=lambda _: True)


def test_released_share_that_is_partly_paid__says_so_and_is_not_repeated_unasked(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share of the rest has other amounts than the payment that the owners executed."""
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT)
    anvil_chain.set_balance("USDC", 6_000 * USD, owner=safe.address)
    with reopened_agent(anvil_chain, loaded) as agent:
        with pytest.raises(AwaitingExternalSignature):
            withdraw_share(agent)
        tx_hash = safe.execute(proposal_file(agent))
        (request,) = agent.context.store.requests.newest()
        weth_text, usdc_text = (
            f"{decimal_text(payment.raw, agent.portfolio.token(payment.token).decimals)} {agent.portfolio.token(payment.token).label}"
            for payment in request.payments
        )
        release = ("withdraw", "--release", "1", "--config", str(loaded.path))
        release_text = in_process(capfd, monkeypatch, *release).out
        assert f"Withdrawal 1: {weth_text} stays paid in {tx_hash}; {usdc_text} returns to the portfolio.\n" in release_text
        assert "released, partly paid" in release_text
        assert list_payments(capfd, monkeypatch, loaded.path) == ["released", tx_hash, ""]
        with raises_code(Refused, "repeated_payment", "withdrawal 1, since released, has paid part of the same", tx_hash):
            withdraw_share(agent)
        assert [request.id for request in agent.context.store.requests.newest()] == [1]


def test_signed_payment_that_expired_here__is_rejected_before_its_release(anvil_chain: LocalChain, tmp_path: Path) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        sign_and_send(agent, FIRST, SECOND)
        anvil_chain.warp(1_801)
        agent.rebalance(send=True, confirm=yes)
        with raises_code(Retryable, "open_transaction", "2 of 2 signatures", "at any time", "trimtab cancel --send"):
            transfers.release_withdrawal(agent, 1)
        assert withdrawal_states(agent) == [RequestState.OPEN]
        with pytest.raises(AwaitingExternalSignature):
            maintenance.cancel(agent)
        execute(agent)
        agent.rebalance(send=True, confirm=yes)
        assert transfers.release_withdrawal(agent, 1).state is RequestState.RELEASED
        assert anvil_chain.balance("WETH", HOME) == 0


def test_withdrawal_beside_a_waiting_trade__names_how_either_goes_on(anvil_chain: LocalChain, tmp_path: Path) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT)
    with reopened_agent(anvil_chain, loaded) as agent:
        proposal(agent)
        with pytest.raises(AwaitingExternalSignature) as caught:
            withdraw_again(agent)
        assert mentions(caught.value.remedy, "then run the command again", "or give it up: trimtab cancel --send withdraws it")
        maintenance.cancel(agent)
        propose_payment(agent, "0.25", "WETH")
        assert open_proposal(agent)["recipients"] == [HOME]


def test_trade_beside_the_sale_of_a_withdrawal__names_the_withdrawal(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """A rebalance would settle the sale, and buy back what it sold."""
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent:
        with pytest.raises(AwaitingExternalSignature):
            transfers.withdraw(agent, transfers.WithdrawalRequest("1000", "USDC", to=HOME), send=True, confirm=lambda _: True)
        with pytest.raises(AwaitingExternalSignature, match="then trimtab withdraw --resume 1 --send: it settles"):
            agent.rebalance(send=True, confirm=yes)
        anvil_chain.move_market({"WETH": anvil_chain.deployed_world.prices_usd["WETH"] * 119 / 100}, twap_follows=False)
        with pytest.raises(AwaitingExternalSignature, match="; then trimtab withdraw --resume 1 --send"):
            agent.rebalance(send=True, confirm=yes)


def reject(agent: Agent, safe: SafeWallet) -> None:
    sign_and_send(agent, FIRST, SECOND)
    with pytest.raises(AwaitingExternalSignature):
        maintenance.cancel(agent)
    execute(agent)


def let_expire(agent: Agent, safe: SafeWallet) -> None:
    safe.chain.warp(1_801)
    look(agent)


def execute_other_call(chain: LocalChain, safe: SafeWallet, to: str = HOME, data: str = "0x") -> str:
    tx = UnsignedTx(chain.chain_id, safe.nonce(), to, 0, data, 0, None, None, 1)
    return safe.execute({"safe_tx": safe_tx_fields(tx), "typed_data": typed_data(safe.address, tx)})


def be_replaced(agent: Agent, safe: SafeWallet) -> None:
    execute_other_call(safe.chain, safe)
    adoption.adopt(agent)


def pay_elsewhere(safe: SafeWallet, symbol: str, raw: int) -> str:
    """The hash of a transfer to HOME that the owners sign without trimtab."""
    transfer = safe.chain.token_contract(symbol).functions.transfer(HOME, raw)
    return execute_other_call(safe.chain, safe, transfer.address, transfer._encode_transaction_data())


@pytest.mark.parametrize("is_beside_a_proposal", [True, False])
def test_adopted_calls_of_a_safe__are_named_with_what_they_moved(
    anvil_chain: LocalChain,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_beside_a_proposal: bool,
) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        if not is_beside_a_proposal:
            execute(agent)
        first_nonce = safe.nonce()
        hashes = [pay_elsewhere(safe, "WETH", ETHER // 2), execute_other_call(anvil_chain, safe)]
        adopted_text = in_process(capfd, monkeypatch, "adopt", "--nothing-lost", "--yes", "--config", str(loaded.path)).out
    assert f"Adopted: the next transaction has nonce {first_nonce + 2}.\n" in adopted_text
    adopted_text = " ".join(adopted_text.split())
    assert f"Nonce {first_nonce}: {hashes[0]} sent 0.5 WETH to {HOME}." in adopted_text
    assert f"Nonce {first_nonce + 1}: {hashes[1]} moved no tokens." in adopted_text
    assert "Confirmed: nothing was lost in the last 24 h outside this store." in adopted_text
    assert mentions(adopted_text, "Next: trimtab flows ", "trimtab flows confirm ", "NUMBER, or all, explains it.")


def test_adopted_payment_of_a_dropped_proposal__is_named_as_its_own(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        document = proposal_file(agent)
        maintenance.cancel(agent)
        tx_hash = safe.execute(document)
        adopted_text = " ".join(in_process(capfd, monkeypatch, "adopt", "--yes", "--config", str(loaded.path)).out.split())
    assert f"Nonce 0: {tx_hash} sent 0.25 WETH to {HOME}. It is the proposal {document['id']}" in adopted_text
    assert "trimtab flows" not in adopted_text
    assert "Confirmed" not in adopted_text


PAYMENT_ENDS: dict[str, tuple[Callable[[Agent, SafeWallet], object], str]] = {
    "proposed": (lambda agent, _: sign_and_send(agent, FIRST), "open, proposed"),
    "cancelled": (lambda agent, _: maintenance.cancel(agent), "open, cancelled"),
    "rejected": (reject, "open, rejected"),
    "expired": (let_expire, "open, expired"),
    "replaced": (be_replaced, "released, replaced"),
    "executed": (lambda agent, _: execute(agent), "done"),
}


GIVEN_UP_TEXTS = {"cancelled": "was cancelled", "rejected": "was rejected by the owners", "expired": "has expired"}


@pytest.mark.parametrize("end", PAYMENT_ENDS)
def test_list_of_withdrawals__says_what_became_of_a_proposed_payment(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets=IN_WETH)
    act, state_text = PAYMENT_ENDS[end]
    monkeypatch.setenv("COLUMNS", "80")
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        act(agent, safe)
        list_text = in_process(capfd, monkeypatch, "withdraw", "--config", str(loaded.path)).out
        (withdrawal,) = transfers.list_withdrawals(agent)
        (payment,) = withdrawal["payments"]
        assert payment["state"] == ("paid" if end == "executed" else end)
        assert bool(payment["paid_in"]) == (end == "executed")
        assert f" {state_text} amount " in " ".join(list_text.split())
        is_given_up = end in ("cancelled", "rejected", "expired")
        commands = ["--resume 1 --send proposes it anew", "--release 1 returns it"]
        places = [" ".join(list_text.split()).find(f"trimtab withdraw --config {loaded.path} {command}") for command in commands]
        assert (min(places) >= 0) == is_given_up
        assert (places[0] > places[1]) == (end == "rejected"), "what the owners did not want comes last"
        assert anvil_chain.balance("WETH", HOME) == (ETHER // 4 if end == "executed" else 0)
        if is_given_up:
            resume_text = " ".join(in_process(capfd, monkeypatch, "withdraw", "--resume", "1", "--config", str(loaded.path)).out.split())
            assert f"Attention: the earlier payment {GIVEN_UP_TEXTS[end]}; trimtab withdraw --config" in resume_text
            shown_reasons: list[str] = []

            def confirm(report: WithdrawalReport) -> bool:
                shown_reasons.append(report.reason)
                return True

            with pytest.raises(AwaitingExternalSignature):
                transfers.resume_withdrawal(agent, 1, send=True, confirm=confirm)
            assert shown_reasons
            assert all(GIVEN_UP_TEXTS[end] in reason for reason in shown_reasons)
            assert transfers.list_withdrawals(agent)[0]["payments"][0]["state"] == "proposed"
