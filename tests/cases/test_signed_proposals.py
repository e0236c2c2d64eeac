"""Proposals of a Safe that are signed already: what a pause cannot take back, their rejection, and what is executed after all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent import app as api
from agent import wiring
from agent.app.agent import Agent
from agent.app.cycles import ignore_progress
from agent.app.documents import fill, owner
from agent.app.documents.status import status_document
from agent.app.money import hard_pause, shutdown
from agent.app.money.transfers import list_transfers
from agent.app.records import kill_switch, maintenance
from agent.chain.safe import SafeContract, SafeOwnersSigner
from agent.cli import emergency
from agent.cli.display.terminal import Spinner
from agent.errors import ConfigError, OperatorNeeded, Refused, Retryable
from agent.execution.executor import AwaitingExternalSignature, ProposingExecutor
from agent.execution.step_context import OutcomeKind
from agent.figures import format_figure
from agent.localchain import LocalChain
from agent.localchain.world import dev_accounts as accounts
from agent.model import IntentKind, IntentState, UnsignedTx
from agent.signing.batches import BATCH_CONTRACT, BatchedCall, encode_batch
from agent.signing.safe_tx import safe_tx_fields, typed_data
from agent.units import format_time, value_text
from tests.cli.tools import in_process
from tests.support.agents import reopened_agent, yes
from tests.support.on_chain.proposals import proposal, safe_of
from tests.support.on_chain.safe_proposals import EXECUTOR, FIRST, SECOND, hand_signature, open_proposal, sign_and_send
from tests.support.text import mentions, raises_code, raises_field
from tests.support.wallets import SafeWallet


@pytest.fixture
def scene(anvil_chain: LocalChain, tmp_path: Path) -> Iterator[tuple[Agent, SafeWallet, dict[str, Any]]]:
    """An agent whose Safe, with two of three owners, has a batch of an approval and a swap that waits."""
    safe, loaded = safe_of(anvil_chain, tmp_path, makes_batches=True)
    with reopened_agent(anvil_chain, loaded) as agent:
        yield agent, safe, proposal(agent)


def pause_hard(agent: Agent, *, send: bool = True) -> dict[str, Any]:
    report = hard_pause.pause_hard(agent.context.loaded_config, "test", send=send, is_confirmed=send, confirm=yes)
    return dict(hard_pause.hard_pause_document(report, send))


def states(agent: Agent) -> list[tuple[str, str]]:
    return [(intent.kind.value, intent.state.value) for intent in reversed(agent.context.store.journal.intents())]


def rejections(agent: Agent) -> list[str | None]:
    """The transactions that executed rejections."""
    return [intent.tx_hash for intent in agent.context.store.journal.intents() if intent.kind is IntentKind.CANCEL]


def resume(agent: Agent) -> None:
    api.resume(agent.context.loaded_config.path, lambda _: True)


def test_hard_pause__enough_signatures__proposes_the_rejection(scene: tuple[Agent, SafeWallet, dict[str, Any]]) -> None:
    agent, safe, swap = scene
    sign_and_send(agent, FIRST, SECOND)
    until = f"until {format_time(swap['expires_s'])}"
    document = pause_hard(agent)
    assert (document["hard"], document["outcome"]) == (True, "unfinished")
    for words in ("2 of 2 signatures", swap["id"], until, f"empty call of {safe.address} to itself at nonce 0", "proposal sign"):
        assert words in document["message"], words
    assert "cancelled" not in document["message"]
    assert states(agent) == [("swap", "planned"), ("cancel", "planned")]
    assert pause_hard(agent)["outcome"] == "unfinished"
    swap_document, rejection = api.list_proposals(agent)["proposals"]
    assert (swap_document["id"], swap_document["state"]) == (swap["id"], "waiting")
    assert rejection["description"] == f"reject: {swap['description']}; test"
    assert f'The proposal {rejection["id"]} ("{rejection["description"]}") awaits' in "\n".join(agent.status().warnings)
    assert (rejection["purpose"], rejection["to"], rejection["nonce"], rejection["signed_by"]) == ("cancel", safe.address, 0, [])
    commands = f"trimtab proposal sign {rejection['id']}, and anyone execute it with trimtab proposal execute {rejection['id']} --send"
    assert commands in document["message"]
    assert commands in "\n".join(agent.status().warnings)
    sign_and_send(agent, FIRST, SECOND)
    assert len(agent.context.store.proposals.signatures(rejection["id"])) == 2
    not_taken_back = (f"trimtab proposal execute {rejection['id']} --send", "once it is executed or has expired", "is not taken back")
    for proposal_id, error_type, words in (
        (swap["id"], Refused, (f"waits for its rejection, {rejection['id']}", *not_taken_back)),
        ("0a1b", ConfigError, ("is not the proposal that waits", f"write {rejection['id']}")),
    ):
        with pytest.raises(error_type) as refusal:
            api.execute_proposal(agent, EXECUTOR, proposal_id, send=True, confirm=yes)
        assert mentions(str(refusal.value), *words)
    assert api.execute_proposal(agent, EXECUTOR, rejection["id"], send=True, confirm=yes)["outcome"] == "executed"
    assert safe.nonce() == 1
    assert pause_hard(agent)["outcome"] in ("done", "clear")
    assert states(agent) == [("swap", "cancelled"), ("cancel", "final")]
    assert api.list_proposals(agent)["proposals"] == []
    resume(agent)
    assert proposal(agent)["safe_tx"]["nonce"] == "1"


def test_shown_file__says_what_the_store_knows_against_signing_it(
    scene: tuple[Agent, SafeWallet, dict[str, Any]], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader has a wallet of their own, which no refusal of trimtab stops."""
    agent, _, swap = scene
    monkeypatch.setenv("COLUMNS", "400")
    loaded = agent.context.loaded_config

    def shown(name: str) -> tuple[int, str]:
        output = in_process(capfd, monkeypatch, "proposal", "show", str(tmp_path / name), "--config", str(loaded.path))
        return output.code, " ".join(output.out.split())

    def save(name: str) -> None:
        (tmp_path / name).write_text(json.dumps(api.proposal_typed_data(agent, None)))

    save("swap.json")
    sign_and_send(agent, FIRST, SECOND)
    api.pause(loaded.path, "test")
    code, text = shown("swap.json")
    assert (code, mentions(text, swap["id"], "while trimtab is paused (test", ": do not sign it.")) == (10, True)
    pause_hard(agent)
    code, text = shown("swap.json")
    rejection = api.list_proposals(agent)["proposals"][-1]
    assert (code, mentions(text, swap["id"], f"waits for its rejection, {rejection['id']}: do not sign it.")) == (10, True)
    assert "sign it only if" not in text
    save("rejection.json")
    code, text = shown("rejection.json")
    assert code == 0, "a hard pause allows it"
    assert mentions(text, f'{rejection["id"]} ("reject: approve the router for', '; test"), which waits.', "sign it only if")
    assert mentions(text, f"Signatures of the proposal {swap['id']}: 2; whoever has enough of them can execute it until")
    assert f"the rejection {rejection['id']} awaits" in agent.status().waits_for
    monkeypatch.setattr("agent.app.money.proposal_files.time", SimpleNamespace(time=lambda: rejection["expires_s"]))
    assert (shown("rejection.json")[0], "which has expired at" in shown("rejection.json")[1]) == (10, True)


def test_resume__names_the_rejection_that_still_waits(
    scene: tuple[Agent, SafeWallet, dict[str, Any]], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _, swap = scene
    path = agent.context.loaded_config.path
    sign_and_send(agent, FIRST)
    assert "rejected" not in api.resume(path, lambda _: True), "no rejection waits"
    sign_and_send(agent, SECOND)
    monkeypatch.setattr(emergency, "is_interactive", lambda: True)
    questions: list[str] = []

    def ask(_: object, question: str, show: Callable[[], None]) -> bool:
        show()
        return not questions.append(question)

    monkeypatch.setattr(Spinner, "ask", ask)
    before = in_process(capfd, monkeypatch, "pause", "--hard", "--send", "--config", str(path))
    assert mentions(before.err, f"Signatures of the proposal {swap['id']}: 2", "rejection is not taken back, not even when the pause ends")
    assert questions == ["Paused. Cancel and revoke all of this?"]
    _, rejection = api.list_proposals(agent)["proposals"]
    listed = in_process(capfd, monkeypatch, "proposal", "list", "--config", str(path)).out
    assert "void once its rejection below is executed" in listed
    assert "until trimtab resume" not in listed
    resumed = in_process(capfd, monkeypatch, "resume", "--config", str(path))
    assert mentions(resumed.err, f"The proposal {swap['id']} waits for its rejection", rejection["id"], "is not taken back")


def test_executed_rejection__warns_of_the_same_trade(
    scene: tuple[Agent, SafeWallet, dict[str, Any]], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _, _ = scene
    sign_and_send(agent, FIRST, SECOND)
    config = ("--config", str(agent.context.loaded_config.path))
    for title in ("Proposed", "Waiting"):
        output = in_process(capfd, monkeypatch, "cancel", "--send", "--yes", *config)
        assert (output.code, output.err.strip().startswith(f"{title}: ")) == (11, True), output.err
    sign_and_send(agent, FIRST, SECOND)
    output = in_process(capfd, monkeypatch, "proposal", "execute", "--key", "test_account=0", "--send", "--yes", *config)
    assert mentions(output.out, "Next: trimtab edit", "if what was rejected is not wanted", "plans anew, and may propose the same")


def test_previews_of_a_cancel__list_no_rejection_that_waits(scene: tuple[Agent, SafeWallet, dict[str, Any]]) -> None:
    agent, _, swap = scene
    loaded = agent.context.loaded_config
    pending = maintenance.pending_transactions(loaded)
    assert pending["advice"] == f"To cancel them: trimtab cancel --send; it withdraws the proposal {swap['id']}"
    sign_and_send(agent, FIRST, SECOND)
    pause_hard(agent)
    assert states(agent) == [("swap", "planned"), ("cancel", "planned")]
    for transactions in (
        pause_hard(agent, send=False)["cancel"],
        maintenance.pending_transactions(loaded)["transactions"],
        fill(owner.ShutdownDocument, shutdown.stop(agent, confirm=lambda _: True), agent.portfolio)["cancel"],
    ):
        assert [(transaction["kind"], transaction["nonce"]) for transaction in transactions] == [("swap", 0)]
    assert maintenance.pending_transactions(loaded)["advice"].startswith("To cancel them: trimtab cancel --send")


def test_preview_of_a_cancel__says_what_the_signatures_make_of_it(
    anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _, swap = scene

    def no_answer(_: SafeContract) -> int:
        raise Retryable("no endpoint answers")

    def effect() -> str:
        advice = maintenance.pending_transactions(agent.context.loaded_config)["advice"]
        return advice.removeprefix("To cancel them: trimtab cancel --send; it ")

    sign_and_send(agent, FIRST)
    assert effect() == f"withdraws the proposal {swap['id']} (1 of 2 signatures)"
    sign_and_send(agent, SECOND)
    rejects = (
        f"proposes the rejection of the proposal {swap['id']}, for the owners to sign, since 2 of 2 signatures let anyone execute the"
        " proposal"
    )
    assert effect() == rejects
    assert pause_hard(agent, send=False)["message"].endswith(f"to cancel and revoke: trimtab pause --hard --send; it {rejects}")
    resume(agent)
    assert f"trimtab stop --send {rejects}" in shutdown.stop(agent, confirm=yes).reason.splitlines()
    with monkeypatch.context() as unread:
        unread.setattr(SafeContract, "threshold", no_answer)
        assert effect() == (
            f"withdraws the proposal {swap['id']}, or proposes its rejection if enough owners of the Safe have signed, which the chain"
            " does not say now: no endpoint answers"
        )
    with monkeypatch.context() as offline:
        offline.setattr(SafeContract, "owners", lambda _: [accounts()[0].address])
        assert effect() == f"withdraws the proposal {swap['id']} (0 of 2 signatures)", "only present owners count"
    pause_hard(agent)
    assert effect() == rejects.replace("proposes", "keeps", 1)
    anvil_chain.warp(1_801)
    assert effect() == f"withdraws the proposal {swap['id']}, which has expired"


def test_preview_of_a_cancel__paused__names_what_cancels(scene: tuple[Agent, SafeWallet, dict[str, Any]]) -> None:
    """What takes no transaction is withdrawn while paused too."""
    agent, _, _ = scene
    api.pause(agent.context.loaded_config.path, "test")

    def advice() -> str:
        return maintenance.pending_transactions(agent.context.loaded_config)["advice"]

    assert advice().startswith("To cancel them: trimtab cancel --send;")
    assert [transaction["status"] for transaction in maintenance.cancel(agent)["transactions"]] == ["cancelled"]
    resume(agent)
    proposal(agent)
    sign_and_send(agent, FIRST, SECOND)
    api.pause(agent.context.loaded_config.path, "test")
    proposal_path = agent.context.loaded_config.proposals_path / f"{open_proposal(agent)['id']}.json"
    with raises_code(Refused, "kill_switch"):
        maintenance.cancel(agent)
    assert proposal_path.exists(), "it waits on"
    assert advice().startswith("To cancel them while paused: trimtab pause --hard --send")
    assert "rejection" in pause_hard(agent)["message"]
    assert not proposal_path.exists(), "nobody is to sign what is rejected"


def test_hard_pause__executed_by_others_all_the_same__is_booked(scene: tuple[Agent, SafeWallet, dict[str, Any]]) -> None:
    agent, safe, swap = scene
    sign_and_send(agent, FIRST, SECOND)
    pause_hard(agent)
    safe.execute(swap)
    (warning,) = [text for text in agent.status().warnings if f"The proposal {swap['id']} " in text]
    assert mentions(warning, "nonce is used by it or its rejection (trimtab proposal list names which was executed): trimtab")
    document = pause_hard(agent)
    assert "was mined before it could be cancelled" in document["message"]
    assert "signatures given elsewhere still count" not in document["message"], "the rejection is void"
    require_booked(agent, swap)
    assert ("cancel", "cancelled") in states(agent)


def test_executed_in_place_of_its_rejection__says_so(
    scene: tuple[Agent, SafeWallet, dict[str, Any]], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, safe, swap = scene
    monkeypatch.setenv("COLUMNS", "400")
    sign_and_send(agent, FIRST, SECOND)
    pause_hard(agent)
    rejection = api.list_proposals(agent)["proposals"][-1]
    sign_and_send(agent, FIRST, SECOND)
    tx_hash = safe.execute(swap)
    with pytest.raises(Refused, match=f"is used: not executed: {tx_hash} executed the proposal {swap['id']} at its nonce"):
        api.execute_proposal(agent, EXECUTOR, proposal_id=rejection["id"], send=True, confirm=yes)
    resume(agent)
    output = in_process(capfd, monkeypatch, "rebalance", "--send", "--yes", "--config", str(agent.context.loaded_config.path))
    assert mentions(output.out, f"Booked: executed in {tx_hash} at ", f"although its rejection {rejection['id']} was proposed")
    reason = next(step["reason"] for step in api.history(agent.context.loaded_config.path)["steps"] if tx_hash in step["reason"])
    assert mentions(reason, "although its rejection")


def require_booked(agent: Agent, swap: dict[str, Any]) -> None:
    """The swap is final in the journal and in the budgets, explains every change of a balance, and the portfolio is where it should be."""
    resume(agent)
    assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
    store = agent.context.store
    (intent,) = [intent for intent in store.journal.intents() if intent.id == swap["id"]]
    assert intent.state is IntentState.FINAL
    assert store.journal.unbooked_intents() == ()
    assert store.budgets.history(agent.context.clock.now_s()).budgets.turnover_24h > 0
    assert list_transfers(agent)["flows"] == []


@pytest.mark.parametrize("adopts", [True, False], ids=["adopt", "next look"])
def test_dropped__executed_by_others_all_the_same__is_booked(scene: tuple[Agent, SafeWallet, dict[str, Any]], adopts: bool) -> None:
    """One signature was recorded here, so that it was withdrawn; the owners signed elsewhere."""
    agent, safe, swap = scene
    sign_and_send(agent, FIRST)
    assert pause_hard(agent)["outcome"] == "done"
    assert states(agent) == [("swap", "cancelled")]
    safe.execute(swap)
    if adopts:
        assert agent.resync_nonce() == 1
    require_booked(agent, swap)
    assert states(agent) == [("swap", "final")]


@pytest.mark.parametrize(
    ("withdraw", "settle", "command"),
    [
        pytest.param(maintenance.cancel, lambda agent: agent.resync_nonce(), "trimtab rebalance --send", id="adopt"),
        pytest.param(maintenance.cancel, lambda agent: None, "trimtab rebalance --send", id="rebalance"),
        pytest.param(pause_hard, pause_hard, "trimtab pause --hard --send", id="hard pause"),
    ],
)
def test_withdrawn__executed_by_others__is_no_flow_before_it_is_booked(
    scene: tuple[Agent, SafeWallet, dict[str, Any]],
    withdraw: Callable[[Agent], object],
    settle: Callable[[Agent], object],
    command: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is left to confirm: a flow that was confirmed would be booked a second time as the swap."""
    agent, safe, swap = scene
    config = str(agent.context.loaded_config.path)
    sign_and_send(agent, FIRST)
    withdraw(agent)
    assert list_transfers(agent)["flows"] == []
    safe.execute(swap)
    used_text = f"nonce 0 is used, and may have executed the proposal {swap['id']}"
    status = agent.status()
    assert mentions(status.warnings, used_text, f"{command} settles it")
    assert "flow" not in status.decision_result.decision.reason
    assert mentions(in_process(capfd, monkeypatch, "flows", "--config", config).out, used_text, "--send settles it")
    assert api.classify_transfers(config, "all")["confirmed"] == []
    settle(agent)
    require_booked(agent, swap)
    assert agent.context.store.balances.transfers() == ()
    assert not mentions(agent.status().warnings, "is used")


def test_explained_execution__compares_its_cost_without_gas(scene: tuple[Agent, SafeWallet, dict[str, Any]]) -> None:
    """The plan's cost has the gas, the Safe's books have none."""
    agent, safe, swap = scene
    safe.execute(swap)
    require_booked(agent, swap)
    store = agent.context.store
    (intent,) = store.journal.intents()
    plan = store.journal.grant(intent.id).plan
    assert plan is not None
    cost_text = format_figure(value_text(plan.cost.without_gas, agent.portfolio.numeraire.decimals, 18), "cost", "-")
    assert plan.cost.gas > 0
    (sentence,) = [text for text in api.explain(agent.context.loaded_config.path, intent.step_id)["sentences"] if "as booked" in text]
    assert sentence == f"It cost {cost_text} USDC as booked, as expected without the gas, which its executor paid."


@pytest.mark.parametrize("words", ["rebalance", "invest", "reconcile"])
def test_withdrawn__executed_in_place_of_the_next__is_named(
    anvil_chain: LocalChain,
    scene: tuple[Agent, SafeWallet, dict[str, Any]],
    words: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the list, and by a command that books it, whatever that does itself."""
    agent, safe, swap = scene
    monkeypatch.setenv("COLUMNS", "400")
    maintenance.cancel(agent)
    anvil_chain.warp(5)
    renewed = proposal(agent)
    tx_hash = safe.execute(swap)
    (waiting,) = api.list_proposals(agent)["proposals"]
    assert (waiting["id"], waiting["ending"]) == (renewed["id"], f"not executed: {tx_hash} executed the proposal {swap['id']} at its nonce")
    output = in_process(capfd, monkeypatch, words, "--send", "--yes", "--config", str(agent.context.loaded_config.path))
    booked_text = output.out if words == "rebalance" else output.err
    assert mentions(booked_text, f"Booked: executed in {tx_hash} at ", swap["id"])
    assert renewed["id"] not in booked_text


def reject_elsewhere(chain: LocalChain, safe: SafeWallet, nonce: int, data: str = "0x") -> str:
    """Make the call that *Reject* in Safe{Wallet} makes, or with `data` another of the Safe to itself; return its transaction."""
    tx = UnsignedTx(chain.chain_id, nonce, safe.address, 0, data, 0, None, None, 1)
    return safe.execute({"safe_tx": safe_tx_fields(tx), "typed_data": typed_data(safe.address, tx)})


@pytest.mark.parametrize(
    ("signed_here", "is_cancelled", "dies_at"),
    [
        pytest.param(0, False, "", id="waits"),
        pytest.param(2, False, "", id="signed"),
        pytest.param(0, True, "", id="dropped"),
        pytest.param(2, True, "", id="its rejection proposed"),
        pytest.param(0, False, "after:planned", id="process ends once it is recorded"),
        pytest.param(0, True, "after:signed", id="process ends once its transaction is recorded"),
    ],
)
def test_rejection_in_another_wallet__frees_the_nonce_without_an_operator(
    anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet, dict[str, Any]], signed_here: int, is_cancelled: bool, dies_at: str
) -> None:
    agent, safe, swap = scene
    sign_and_send(agent, *(FIRST, SECOND)[:signed_here])
    if is_cancelled and signed_here:
        with pytest.raises(AwaitingExternalSignature):
            maintenance.cancel(agent)
    elif is_cancelled:
        maintenance.cancel(agent)
    tx_hash = reject_elsewhere(anvil_chain, safe, 0)
    if dies_at:
        with suppress(KeyboardInterrupt, Refused, Retryable):
            maintenance.reconcile(agent, progress=dying_at(dies_at))
    renewed = proposal(agent)
    assert (renewed["safe_tx"]["nonce"], renewed["id"] != swap["id"]) == ("1", True)
    assert mentions(renewed["description"], "like the one rejected at", "(nonce 0)")
    status = agent.status()
    assert mentions(status.warnings[0], "like the one rejected at", "trimtab pause --hard --send")
    assert mentions(status.waits_for, renewed["id"], "awaits 2 signatures")
    (rejection,) = [intent for intent in agent.context.store.journal.intents() if intent.kind is IntentKind.CANCEL and intent.tx_hash]
    assert (rejection.tx_hash, rejection.state) == (tx_hash, IntentState.FINAL)
    assert ("swap", "cancelled") in states(agent)
    first_step = api.history(agent.context.loaded_config.path)["steps"][-1]
    was_withdrawn = is_cancelled and not signed_here
    assert (first_step["outcome"], tx_hash in first_step["reason"]) == ("cancelled" if was_withdrawn else "rejected", not was_withdrawn)
    reject_elsewhere(anvil_chain, safe, 1)
    used_text = agent.status().warnings[0]
    assert mentions(used_text, renewed["id"], "its nonce is used")
    assert "trimtab pause --hard --send" not in used_text


def test_other_call_of_the_safe_to_itself__needs_the_operator(
    anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet, dict[str, Any]]
) -> None:
    agent, safe, _ = scene
    reject_elsewhere(anvil_chain, safe, 0, safe.contract.encode_abi("enableModule", [accounts()[8].address]))
    with pytest.raises(OperatorNeeded, match="a different transaction"):
        agent.rebalance(send=True, confirm=yes)
    with pytest.raises(OperatorNeeded, match=r"^paused hard, but not all is cancelled and revoked: .*a different transaction"):
        pause_hard(agent)
    assert IntentKind.CANCEL not in [intent.kind for intent in agent.context.store.journal.intents()]
    agent.resync_nonce()
    assert not list(agent.context.loaded_config.proposals_path.iterdir()), "nobody is asked to sign a void call"


def test_run__under_a_hard_pause__proposes_the_rejection(scene: tuple[Agent, SafeWallet, dict[str, Any]]) -> None:
    agent, _, swap = scene
    sign_and_send(agent, FIRST, SECOND)
    agent.context.store.pause_switch.pause("test", agent.context.clock.now_s(), hard=True)
    for _ in range(2):
        (waiting,) = agent.run(send=True, confirm=yes, once=True)
        assert isinstance(waiting, AwaitingExternalSignature)
        assert (waiting.proposal["purpose"], waiting.proposal["id"] != swap["id"]) == ("cancel", True)
    assert states(agent) == [("swap", "planned"), ("cancel", "planned")]


def test_cancel__process_ends_before__proposes_the_same(scene: tuple[Agent, SafeWallet, dict[str, Any]]) -> None:
    agent, _, swap = scene
    sign_and_send(agent, FIRST, SECOND)
    with pytest.raises(KeyboardInterrupt):
        maintenance.cancel(agent, progress=dying_at("after:planned"))
    with pytest.raises(AwaitingExternalSignature) as awaiting:
        maintenance.cancel(agent)
    assert states(agent) == [("swap", "planned"), ("cancel", "planned")]
    assert awaiting.value.proposal["id"] != swap["id"]
    assert [document["purpose"] for document in api.list_proposals(agent)["proposals"]] == ["swap", "cancel"]


@pytest.mark.parametrize("count", [0, 2], ids=["withdrawn", "rejected"])
def test_cancelled__history_and_pending_transactions_say_so(scene: tuple[Agent, SafeWallet, dict[str, Any]], count: int) -> None:
    agent, _, swap = scene
    path = agent.context.loaded_config.path
    (waiting_step,) = api.history(path)["steps"]
    assert waiting_step["outcome"] == "waiting"
    open_why = open_proposal(agent)["why"]
    assert open_why
    sign_and_send(agent, *(FIRST, SECOND)[:count])
    if count:
        with pytest.raises(AwaitingExternalSignature):
            maintenance.cancel(agent)
        sign_and_send(agent, FIRST, SECOND)
        assert api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)["outcome"] == "executed"
    else:
        maintenance.cancel(agent)
    assert api.pending_transactions(path)["waiting"] == 0
    (step,) = api.history(path)["steps"]
    assert (step["step"], step["outcome"]) == (waiting_step["step"], "rejected" if count else "cancelled")
    why = f"rejected by the owners: {rejections(agent)[0]} is an empty call" if count else "not executed: cancelled by trimtab cancel"
    assert step["reason"].startswith(f'{open_why}; "{swap["description"]}" was {why}')
    explanation = " ".join(api.explain(path, step["step"])["sentences"])
    assert "awaits" not in explanation
    assert why in explanation


def test_withdrawn__every_command_says_that_signatures_still_count(
    scene: tuple[Agent, SafeWallet, dict[str, Any]],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent, _, swap = scene
    monkeypatch.setenv("COLUMNS", "400")
    config = ("--config", str(agent.context.loaded_config.path))
    for words in (("cancel", "--send", "--yes"), ("pause", "--hard", "--send", "--yes"), ("stop", "--send", "--yes")):
        output = in_process(capfd, monkeypatch, *words, *config)
        until = f"until {format_time(swap['expires_s'])}"
        assert mentions(
            output.out + output.err, "is withdrawn, but signatures given elsewhere still count", until, "at nonce 0 makes it void"
        )
        assert api.list_proposals(agent)["proposals"] == []
        resume(agent)
        swap = proposal(agent)
    sign_and_send(agent, FIRST, SECOND)
    previewed = in_process(capfd, monkeypatch, "stop", *config)
    assert f"signatures of the proposal {swap['id']}: 2" in previewed.out
    api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
    assert maintenance.cancel(agent)["withdrawn"] == []


def test_withdrawn_with_a_signature__is_rejected_by_the_next_cancel(
    anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet, dict[str, Any]]
) -> None:
    """The missing signature may have been given in a wallet, where nobody here sees it."""
    agent, safe, _ = scene
    loaded = agent.context.loaded_config
    (intent,) = agent.context.store.journal.open_intents()
    signatures = {accounts()[number].address: bytes.fromhex(hand_signature(agent, number)[2:]) for number in (5, 6)}
    assert "proposes its rejection" not in pause_hard(agent)["message"], "nobody has signed"
    resume(agent)
    assert maintenance.pending_transactions(loaded)["transactions"] == []
    swap_id = proposal(agent)["id"]
    sign_and_send(agent, FIRST)
    (text,) = maintenance.cancel(agent)["withdrawn"]
    assert text.endswith("makes it void: the next trimtab cancel --send proposes its rejection")
    assert pause_hard(agent)["outcome"] in ("done", "clear"), "a hard pause rejects only what enough have signed"
    resume(agent)
    pending = maintenance.pending_transactions(loaded)
    assert [row["id"] for row in pending["transactions"]] == [swap_id]
    rejects = f"proposes the rejection of the proposal {swap_id}, for the owners to sign, since with 1 of 2 signatures here"
    assert rejects in pending["advice"]
    api.pause(loaded.path, "test")
    advice = maintenance.pending_transactions(loaded)["advice"]
    assert advice.startswith(
        "To cancel them while paused: trimtab pause --hard --send, which also sets allowances to zero, then trimtab cancel"
    )
    resume(agent)
    assert "can be executed" not in " ".join(agent.status().warnings)
    with pytest.raises(AwaitingExternalSignature, match="1 signature, and perhaps others given elsewhere, of the proposal"):
        maintenance.cancel(agent)
    rejection_id = open_proposal(agent)["id"]
    pause_hard(agent)
    with pytest.raises(AwaitingExternalSignature):
        maintenance.cancel(agent)
    assert open_proposal(agent)["id"] == rejection_id, "neither a pause nor another cancel withdraws it"
    sign_and_send(agent, FIRST, SECOND)
    assert api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)["outcome"] == "executed"
    execution = SafeContract(agent.context.transport, safe.address).execution_data(intent.tx, signatures)
    with pytest.raises(RuntimeError, match="GS026"):
        anvil_chain.node.rpc("eth_call", {"from": accounts()[9].address, "to": safe.address, "data": execution}, "latest")


def test_cancel__expired_swap__lists_it_alone_and_as_void(anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet, dict[str, Any]]) -> None:
    agent, _, _ = scene
    assert len(maintenance.cancel(agent)["transactions"]) == 1
    proposal(agent)
    anvil_chain.warp(1_801)
    document = maintenance.cancel(agent)
    assert (len(document["transactions"]), document["withdrawn"]) == (1, [])


@pytest.mark.parametrize("is_rejected", [False, True], ids=["withdrawn", "rejected"])
def test_signature_of_an_earlier_proposal__is_named_with_its_owner(
    anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet, dict[str, Any]], is_rejected: bool
) -> None:
    agent, _, swap = scene
    signature = hand_signature(agent, 7)
    if is_rejected:
        sign_and_send(agent, FIRST, SECOND)
        with pytest.raises(AwaitingExternalSignature):
            maintenance.cancel(agent)
    else:
        maintenance.cancel(agent)
        anvil_chain.warp(5)
        proposal(agent)
    with raises_field("signature", f"by {accounts()[7].address}, of the earlier proposal {swap['id']}", swap["description"]):
        api.collect_signatures(agent, [signature])
    with raises_field("signature", "is not an owner"):
        api.collect_signatures(agent, [signature[:-2] + ("1c" if signature.endswith("1b") else "1b")])


def test_cancel__more_signatures_than_needed__counts_them(scene: tuple[Agent, SafeWallet, dict[str, Any]]) -> None:
    agent, _, swap = scene
    sign_and_send(agent, FIRST, SECOND, {"test_account": 7})
    with pytest.raises(AwaitingExternalSignature) as awaiting:
        maintenance.cancel(agent)
    first_line, second_line = awaiting.value.message.split("\n")
    assert first_line.startswith(f'"reject: {swap["description"]}; cancelled by trimtab cancel" is proposed')
    assert second_line.startswith(f"3 signatures (2 needed) of the proposal {swap['id']} exist")


def dying_at(event: str) -> Any:
    def progress(text: str) -> None:
        if "rejection" in text or text == event:
            raise KeyboardInterrupt

    return progress


def test_rejection__expires_with_what_it_rejects(anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet, dict[str, Any]]) -> None:
    agent, safe, swap = scene
    sign_and_send(agent, FIRST, SECOND)
    with pytest.raises(AwaitingExternalSignature):
        maintenance.cancel(agent)
    anvil_chain.warp(1_801)
    assert proposal(agent)["id"] != swap["id"]
    assert states(agent) == [("swap", "cancelled"), ("cancel", "cancelled"), ("swap", "planned")]
    assert safe.nonce() == 0


def test_rejection__any_field_changed__is_refused_by_the_signer(scene: tuple[Agent, SafeWallet, dict[str, Any]]) -> None:
    agent, safe, _ = scene
    sign_and_send(agent, FIRST, SECOND)
    with pytest.raises(AwaitingExternalSignature):
        maintenance.cancel(agent)
    rejection = agent.context.store.journal.open_intents()[-1]
    assert rejection.kind is IntentKind.CANCEL
    stranger = accounts()[8].address
    batch = encode_batch([BatchedCall(safe.address, b"")])
    enable_module = safe.contract.encode_abi("enableModule", [stranger])
    assert judge(agent, rejection.tx) is None
    for changes in (
        {"to": stranger},
        {"value_wei": 1},
        {"data": enable_module},
        {"data": "0x00"},
        {"to": BATCH_CONTRACT, "data": batch},
        {"nonce": rejection.tx.nonce + 1},
        {"chain_id": 1},
    ):
        assert judge(agent, replace(rejection.tx, **changes)), changes
    swap_grant = agent.context.store.journal.grant(agent.context.store.journal.open_intents()[0].id)
    assert judge(agent, rejection.tx, grant=swap_grant), "a swap's grant permits no rejection"


def judge(agent: Agent, tx: UnsignedTx, grant: Any = None) -> str | None:
    """Return the rule by which the Safe's signer refuses this call in place of the rejection; None if it signs."""
    journal = agent.context.store.journal
    grant = grant or journal.grant(journal.open_intents()[-1].id)
    with wiring.open_transactor(agent.context, yes, ignore_progress, signs=False) as transactor:
        assert isinstance(transactor.executor, ProposingExecutor)
        assert isinstance(transactor.executor.external_signer, SafeOwnersSigner)
        try:
            transactor.executor.external_signer.require_signable(tx, grant)
        except Refused as refusal:
            return refusal.guards[0]
        except Retryable as error:
            return error.message
    return None


@pytest.mark.parametrize("hard", [False, True])
def test_pause__with_signatures__says_what_they_still_allow(scene: tuple[Agent, SafeWallet, dict[str, Any]], hard: bool) -> None:
    agent, _, swap = scene
    sign_and_send(agent, FIRST, SECOND)
    texts = pause_hard(agent, send=False)["message"] if hard else " ".join(api.pause(agent.context.loaded_config.path, "test")["signed"])
    for words in (f"signatures of the proposal {swap['id']}: 2", f"until {format_time(swap['expires_s'])}", "rejection"):
        assert words in texts
    assert open_proposal(agent)["state"] == "waiting"


@pytest.mark.parametrize(
    ("owners", "advice"),
    [
        pytest.param((FIRST,), ("proposed no more", "another transaction at nonce"), id="withdrawn"),
        pytest.param((FIRST, SECOND), ("void once its rejection is executed", "trimtab proposal list"), id="rejected"),
    ],
)
def test_hard_pause_after_signatures__does_not_advise_what_is_done(
    scene: tuple[Agent, SafeWallet, dict[str, Any]],
    owners: tuple[dict[str, Any], ...],
    advice: tuple[str, ...],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent, *_ = scene
    path = agent.context.loaded_config.path
    sign_and_send(agent, *owners)
    assert mentions(api.pause(path, "test")["signed"][0], "trimtab pause --hard --send withdraws it")
    pause_hard(agent)
    (text,) = api.pause(path, "test")["signed"]
    assert mentions(text, f": {len(owners)};", *advice)
    paused = in_process(capfd, monkeypatch, "pause", "--config", str(path)).out
    assert mentions(paused, "Still paused hard: ", "Only rejections, cancellations and revocations of allowances are sent")
    assert "withdraws it" not in text


def test_pause_with_signatures__is_described_alike_everywhere(
    scene: tuple[Agent, SafeWallet, dict[str, Any]], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _, swap = scene
    path = agent.context.loaded_config.path
    sign_and_send(agent, FIRST, SECOND)
    assert status_document(agent.status())["pause_signed"] == [], "what is not paused"
    signed_texts = api.pause(path, "test")["signed"]
    assert f"signatures of the proposal {swap['id']}: 2" in signed_texts[0]
    assert status_document(agent.status())["pause_signed"] == signed_texts
    assert kill_switch.shown_pause(path)["pause_signed"] == signed_texts
    monkeypatch.setenv("COLUMNS", "400")
    output = in_process(capfd, monkeypatch, "status", "--config", str(path))
    assert f"resume --config {path}; but signatures of the proposal {swap['id']}: 2" in output.out


def test_command_line__names_the_signatures_and_the_empty_call(
    scene: tuple[Agent, SafeWallet, dict[str, Any]], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _, swap = scene
    sign_and_send(agent, FIRST, SECOND)
    monkeypatch.setenv("COLUMNS", "400")
    config = ("--config", str(agent.context.loaded_config.path))
    output = in_process(capfd, monkeypatch, "pause", *config)
    assert (output.code, f"Signatures of the proposal {swap['id']}: 2" in output.err) == (0, True)
    output = in_process(capfd, monkeypatch, "pause", "--hard", "--send", "--yes", *config)
    assert (output.code, "2 of 2 signatures" in output.out) == (11, True)
    output = in_process(capfd, monkeypatch, "proposal", "list", *config)
    assert "an empty call of this Safe to itself" in output.out
    assert f"(waiting; void once its rejection below is executed, {swap['id']})" in output.out
    assert output.out.count("void once") == 1
