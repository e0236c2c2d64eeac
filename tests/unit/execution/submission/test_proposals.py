"""What is proposed to a signer elsewhere, in every order of his act and ours; real wallets and Safes: tests/cases/test_proposals.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.app.alerting import _proposal_alerts
from agent.errors import OperatorNeeded, Retryable
from agent.execution.executor import AwaitingExternalSignature, ProposingExecutor
from agent.execution.submission.submitter import Submitter
from agent.guards import FaultKind, ProposalFault
from agent.model import Head, Intent, IntentKind, IntentState, Rebalance, UnsignedTx
from agent.ports import Grant, MinedTransaction, NextAct, Simulation
from agent.store.files.recorder import FileOutbox
from agent.wiring.signed_proposals import signed_proposal_texts
from tests.support.signing import COLLECT, USDC, WETH, WITHDRAW_V3, leg, plan_of
from tests.support.text import mentions, raises_code
from tests.support.transactions import GWEI, START_S, WALLET, Bench, bench, grant, tx

HASH = "0x" + "5" * 64
HEAD = Head(31337, 1, HASH, START_S, 1)
TOKEN = "0x" + "a" * 40
OTHER_TOKEN = "0x" + "b" * 40
APPROVAL = replace(grant(IntentKind.APPROVE), approval_terms=(TOKEN, WALLET, 50))


def trade(sold_raw: int, is_exit: bool = False) -> Grant:
    """Return the grant of a sale of WETH."""
    plan = plan_of(leg(WETH, USDC, sold_raw, 3 * sold_raw))
    decision = plan.decision
    assert isinstance(decision, Rebalance)
    return replace(grant(), plan=replace(plan, decision=replace(decision, is_exit=is_exit)))


class Owner:
    """Signs elsewhere: what he had mined is what the test says."""

    address = WALLET

    def __init__(self, setup: Bench) -> None:
        self.setup = setup
        self.same = True
        self.proposed_data: str | None = None

    def require_signable(self, _unsigned: UnsignedTx, _granted: Grant) -> None:
        """Everything may be shown."""

    def signing_json(self, unsigned: UnsignedTx) -> Mapping[str, Any]:
        return {"nonce": unsigned.nonce}

    def next_act(self, signed_by: Collection[str], proposal_id: str) -> NextAct:
        return NextAct("its signature", "sign it")

    def sufficient_signatures(self, signers: Collection[str]) -> str:
        return f"{len(signers)} of 1 signatures" if signers else ""

    def mines(self, nonce: int = 0, same: bool = True) -> None:
        self.same = same
        self.setup.chain.nonces_of[HASH] = nonce
        self.setup.chain.mine(HASH)

    def mined_at_nonce(self, unsigned: UnsignedTx, _since_block: int) -> MinedTransaction | None:
        if self.setup.chain.hides_bodies:
            return None
        status = self.setup.chain.status_of(HASH)
        same = self.same if self.proposed_data is None else unsigned.data == self.proposed_data
        return None if status.receipt is None else MinedTransaction(HASH, status.receipt.block_number, same)


def proposing(setup: Bench, owner: Owner, folder: Path) -> ProposingExecutor:
    submitter = Submitter(
        setup.store.journal,
        setup.store.budgets,
        setup.signer,
        setup.chain,
        setup.clock,
        setup.settings,
        lambda: setup.paused,
        is_hard_pause=lambda: setup.hard,
        proposed_ids=setup.store.proposals.proposal_blocks,
    )
    return ProposingExecutor(submitter, setup.store.proposals, lambda _: "run the command again", owner, FileOutbox(folder / "proposals"))


def proposed(folder: Path) -> tuple[Bench, Owner, ProposingExecutor]:
    """One swap that waits for its signer."""
    setup = bench(folder)
    owner = Owner(setup)
    executor = proposing(setup, owner, folder)
    setup.store.steps.begin("s", START_S, "{}")
    with pytest.raises(AwaitingExternalSignature):
        executor.run("s", tx(0), grant(), "swap")
    return setup, owner, executor


def test_hard_pause_settles_a_proposal_mined_meanwhile(tmp_path: Path) -> None:
    setup, owner, executor = proposed(tmp_path)
    owner.mines()
    setup.paused = setup.hard = True

    (ended,) = executor.cancel_pending("hard pause")

    assert (ended.state, ended.tx_hash) == (IntentState.FINAL, HASH)
    assert [intent.id for intent in setup.store.journal.unbooked_intents()] == [ended.id], "what it lost counts"
    assert not list((tmp_path / "proposals").iterdir())
    assert setup.store.journal.expected_nonce() == 1


@pytest.mark.parametrize(
    ("simulation", "reverts", "words"),
    [
        (Simulation(True, "", 1, HEAD), False, ("sign it, then",)),
        (Simulation(False, "its fee is too low", 0, HEAD), False, ("sign it, then",)),
        (Simulation(False, "Too little received", 0, HEAD, reverted=True), True, ("would revert now", "do not sign", "cancel --send")),
        (Retryable("the operators disagree"), None, ("could not be simulated: the operators disagree", "do not sign")),
        (Simulation(True, "", 1, HEAD, height_disagreement="one lags"), None, ("could not be simulated: one lags", "do not sign")),
    ],
    ids=["succeeds", "lacks a fee", "reverts", "unknown", "may be old"],
)
def test_waiting_proposal__says_whether_it_would_revert(
    tmp_path: Path, simulation: Simulation | Retryable, reverts: bool | None, words: tuple[str, ...]
) -> None:
    setup, _, executor = proposed(tmp_path)

    def simulate(*_: object) -> Simulation:
        if isinstance(simulation, Retryable):
            raise simulation
        return simulation

    setup.chain.simulate = simulate

    with pytest.raises(AwaitingExternalSignature) as waiting:
        executor.reconcile()
    assert waiting.value.reverts is reverts
    assert mentions(str(waiting.value), *words)
    assert ("do not sign" in waiting.value.remedy) is (reverts is not False)


def test_proposal_signed_with_higher_fees_is_booked_as_paid(tmp_path: Path) -> None:
    setup, owner, executor = proposed(tmp_path)
    setup.chain.gas_price_wei = 1_000 * GWEI
    owner.mines()

    (ended,) = executor.reconcile()

    assert ended.state is IntentState.FINAL
    assert ended.receipt.gas_cost_wei == 50_000 * 1_000 * GWEI > ended.tx.max_gas_cost_wei


def test_hard_pause_leaves_a_foreign_transaction_to_a_person(tmp_path: Path) -> None:
    setup, owner, executor = proposed(tmp_path)
    owner.mines(same=False)
    setup.paused = setup.hard = True

    with raises_code(OperatorNeeded, "nonce_used"):
        executor.cancel_pending("hard pause")
    (waiting,) = setup.store.journal.open_intents()
    assert waiting.state is IntentState.PLANNED
    assert executor.resync_nonce() == 1
    assert setup.store.journal.open_intents() == ()


def test_proposal_mined_in_its_last_second_is_settled(tmp_path: Path) -> None:
    """The block that has it comes while the chain is asked; the next one is after the deadline."""
    setup, owner, executor = proposed(tmp_path)
    head = setup.chain.head
    nonces = setup.chain.nonces
    requests: list[str] = []

    def between() -> None:
        if len(requests) == 1:
            owner.mines()
            setup.chain.timestamp_s = START_S + 90

    def asking_head():
        between()
        requests.append("head")
        return head()

    def asking_nonces(of: str):
        between()
        requests.append("nonces")
        return nonces(of)

    setup.chain.head = asking_head
    setup.chain.nonces = asking_nonces

    (ended,) = executor.reconcile()

    assert ended.state is IntentState.FINAL


def dropped_proposal(folder: Path) -> tuple[Owner, ProposingExecutor, Intent]:
    """Return a proposal that was dropped at its deadline, after an intent that was never signed."""
    setup = bench(folder)
    owner = Owner(setup)
    executor = proposing(setup, owner, folder)
    setup.store.steps.begin("s", START_S, "{}")
    unsigned = setup.store.journal.add_intent("s", tx(0), grant(), "never signed", START_S, None)
    setup.store.journal.advance(unsigned.id, IntentState.CANCELLED, START_S)
    with pytest.raises(AwaitingExternalSignature):
        executor.run("s", tx(0), grant(), "swap")
    setup.chain.timestamp_s = START_S + 90
    (dropped,) = executor.reconcile()
    assert dropped.state is IntentState.CANCELLED
    assert executor.reconcile() == []
    return owner, executor, dropped


def test_dropped_proposal_mined_later_is_booked(tmp_path: Path) -> None:
    owner, executor, dropped = dropped_proposal(tmp_path)
    owner.mines()

    executor.reconcile()

    journal = owner.setup.store.journal
    assert [intent.id for intent in journal.unbooked_intents()] == [dropped.id]
    assert {intent.id: intent.state for intent in journal.intents()}[dropped.id] is IntentState.FINAL
    assert journal.expected_nonce() == 1


def sign_and_expire(setup: Bench, folder: Path, granted: Grant, reconcile_count: int) -> tuple[ProposingExecutor, str]:
    """Sign a proposal, pass its deadline, and settle open transactions so often; return the executor, and what was said before it."""
    executor = proposing(setup, Owner(setup), folder)
    setup.store.steps.begin("s", START_S, "{}")
    with pytest.raises(AwaitingExternalSignature) as waiting:
        executor.run("s", tx(0), granted, "first")
    setup.store.proposals.add_signatures(waiting.value.proposal["id"], {WALLET: b"signature"})
    (signed_text,) = signed_proposal_texts(setup.store)
    setup.chain.timestamp_s = START_S + 90
    for _ in range(reconcile_count):
        executor.reconcile()
    return executor, signed_text


SETTLED = pytest.mark.parametrize("reconcile_count", [1, 0], ids=["dropped before", "open"])


@pytest.mark.parametrize(
    "granted",
    [
        pytest.param(replace(grant(IntentKind.LIQUIDITY), layer_action=COLLECT), id="collection of fees"),
        pytest.param(grant(IntentKind.PAYOUT), id="payment"),
    ],
)
@SETTLED
def test_signed_proposal_without_an_end_on_chain__is_rejected(tmp_path: Path, setup: Bench, granted: Grant, reconcile_count: int) -> None:
    executor, signed_text = sign_and_expire(setup, tmp_path, granted, reconcile_count)
    assert "at any time" in signed_text
    assert len(signed_proposal_texts(setup.store)) == 1
    with pytest.raises(AwaitingExternalSignature, match=r"1 of 1 signatures .+ can execute it at any time"):
        executor.cancel_pending("by the owner")


@pytest.mark.parametrize(
    "granted",
    [
        pytest.param(replace(grant(IntentKind.LIQUIDITY), layer_action=WITHDRAW_V3), id="withdrawal of liquidity"),
        pytest.param(grant(IntentKind.SWAP), id="swap"),
    ],
)
@SETTLED
def test_signed_proposal_past_its_end_on_chain__is_cancelled(tmp_path: Path, setup: Bench, granted: Grant, reconcile_count: int) -> None:
    executor, signed_text = sign_and_expire(setup, tmp_path, granted, reconcile_count)
    assert "at any time" not in signed_text
    executor.cancel_pending("by the owner")
    assert setup.store.journal.open_intents() == ()
    assert signed_proposal_texts(setup.store) == ()


@pytest.mark.parametrize(
    ("kind", "is_stale"),
    [(FaultKind.LOW_MINIMUMS, True), (FaultKind.NOT_ALLOWED, True), (FaultKind.UNCHECKED_MINIMUMS, False)],
    ids=["low", "not allowed", "unchecked"],
)
def test_waiting_proposal__has_a_fault__is_not_to_be_signed(tmp_path: Path, kind: FaultKind, is_stale: bool) -> None:
    _, _, executor = proposed(tmp_path)
    with pytest.raises(AwaitingExternalSignature) as caught:
        executor.reconcile()
    waiting = caught.value
    signing_remedy = waiting.remedy
    waiting.mark_fault(None)
    assert waiting.remedy == signing_remedy

    waiting.mark_fault(ProposalFault(kind, "the prices now cannot be read: no answer"))

    assert waiting.remedy.startswith("do not sign it, nor execute it")
    (alert,) = [alert for alert in _proposal_alerts(waiting) if "the prices now" in alert.text]
    for text in (waiting.message + waiting.remedy, alert.text):
        assert ("stale" in text.lower(), "trimtab cancel --send" in text) == (is_stale, is_stale)
        assert ("could not be checked" in text) != is_stale


def test_waiting_proposal__doubt_after_a_certain_fault__leaves_the_advice_to_withdraw(tmp_path: Path) -> None:
    _, _, executor = proposed(tmp_path)
    with pytest.raises(AwaitingExternalSignature) as caught:
        executor.reconcile()
    waiting = caught.value
    waiting.mark_fault(ProposalFault(FaultKind.NOT_ALLOWED, "the signer refuses"))
    message = waiting.message
    remedy = waiting.remedy
    waiting.mark_fault(ProposalFault(FaultKind.UNCHECKED_MINIMUMS, "the prices now cannot be read: no answer"))
    assert (waiting.message, waiting.remedy) == (message, remedy)
    assert "trimtab cancel --send" in remedy


@pytest.mark.parametrize(("paused", "asks_to_resume"), [(False, False), (True, True), (None, True)])
def test_waiting_proposal__kill_switch_on_or_unreadable__asks_to_resume_first(
    tmp_path: Path, paused: bool | None, asks_to_resume: bool
) -> None:
    setup, _, executor = proposed(tmp_path)
    setup.paused = paused
    with pytest.raises(AwaitingExternalSignature) as waiting:
        executor.reconcile()
    assert waiting.value.remedy.startswith("end the pause with trimtab resume, then ") == asks_to_resume


def test_foreign_transaction_after_a_dropped_proposal_is_named(tmp_path: Path) -> None:
    owner, executor, _ = dropped_proposal(tmp_path)
    owner.mines(same=False)

    with raises_code(OperatorNeeded, "foreign_nonce"):
        executor.reconcile()


def test_dropped_proposal_mined_for_the_next_drops_the_next(tmp_path: Path) -> None:
    setup, owner, executor = proposed(tmp_path)
    (first,) = setup.store.journal.open_intents()
    executor.cancel_pending("by the owner")

    with pytest.raises(AwaitingExternalSignature):
        executor.run("s", replace(tx(0), data="0x1234"), grant(), "another swap")
    owner.mines()
    owner.proposed_data = first.tx.data
    (second,) = executor.reconcile()
    states = {intent.id: intent.state for intent in setup.store.journal.intents()}
    assert (states[first.id], second.state) == (IntentState.FINAL, IntentState.CANCELLED)
    assert not list((tmp_path / "proposals").iterdir())


@pytest.mark.parametrize(
    "hidden", [("hides_bodies",), ("hides_receipts", "hides_hashes", "hides_bodies")], ids=["block", "block and receipt"]
)
def test_proposal_whose_transaction_is_hidden_is_waited_for(tmp_path: Path, hidden: tuple[str, ...]) -> None:
    setup, owner, executor = proposed(tmp_path)
    owner.mines()
    for name in hidden:
        setattr(setup.chain, name, True)
    setup.chain.timestamp_s = START_S + 200
    for act in (executor.reconcile, lambda: executor.cancel_pending("hard pause")):
        with raises_code(Retryable, "lag", "nonce 0", "neither the proposal"):
            act()
    for name in hidden:
        setattr(setup.chain, name, False)

    (ended,) = executor.reconcile()

    assert (ended.state, ended.tx_hash) == (IntentState.FINAL, HASH)


def test_proposal_in_a_block_waits_for_its_receipt(tmp_path: Path) -> None:
    """A Safe's sender finds no transaction by nonce, so that the hash in the journal is all that is known."""
    setup, owner, executor = proposed(tmp_path)
    owner.mines()
    (intent,) = setup.store.journal.open_intents()
    setup.store.journal.advance(intent.id, IntentState.SIGNED, START_S, tx_hash=HASH)
    setup.chain.hides_receipts = setup.chain.hides_hashes = setup.chain.hides_bodies = True

    with raises_code(Retryable, "lag", HASH):
        executor.reconcile()
    setup.chain.hides_receipts = False
    (ended,) = executor.reconcile()
    assert ended.state is IntentState.FINAL


@pytest.mark.parametrize(("now_s", "is_named"), [(START_S + 89, True), (START_S + 90, False)], ids=["before", "at"])
def test_withdrawn_swap_with_a_signature__is_named_until_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now_s: int, is_named: bool
) -> None:
    setup, _, executor = proposed(tmp_path)
    (intent,) = setup.store.journal.open_intents()
    setup.store.proposals.add_signatures(intent.id, {WALLET: b"signature"})
    monkeypatch.setattr(Owner, "sufficient_signatures", lambda *_: "")
    executor.cancel_pending("by the owner")
    assert intent.deadline_s == START_S + 90

    monkeypatch.setattr("agent.wiring.signed_proposals.time", SimpleNamespace(time=lambda: now_s))
    assert [intent.id in text for text in signed_proposal_texts(setup.store)] == [True] * is_named


@pytest.mark.parametrize(
    ("first", "again", "is_same"),
    [
        (grant(), grant(), True),
        (APPROVAL, APPROVAL, True),
        (APPROVAL, replace(APPROVAL, approval_terms=(TOKEN, WALLET, 55)), True),
        (APPROVAL, replace(APPROVAL, approval_terms=(TOKEN, WALLET, 56)), False),
        (APPROVAL, replace(APPROVAL, approval_terms=(OTHER_TOKEN, WALLET, 50)), False),
        (grant(), APPROVAL, False),
        (trade(1000), trade(1111), True),
        (trade(1000), trade(1112), False),
        (trade(1000), trade(1000, is_exit=True), False),
        (trade(1000, is_exit=True), trade(900, is_exit=True), True),
    ],
    ids=[
        "same call",
        "same approval",
        "approval of nearly the amount",
        "approval of another amount",
        "approval of another token",
        "another kind",
        "trade of nearly the amount",
        "trade of another amount",
        "exit of the amount of a trade",
        "exit of nearly the amount",
    ],
)
def test_trade_that_owners_rejected__is_named_when_proposed_again(tmp_path: Path, first: Grant, again: Grant, is_same: bool) -> None:
    setup = bench(tmp_path)
    owner = Owner(setup)
    executor = proposing(setup, owner, tmp_path)
    setup.store.steps.begin("s", START_S, "{}")
    with pytest.raises(AwaitingExternalSignature):
        executor.run("s", tx(0), first, "trade")
    owner.proposed_data = "0x"  # the owners executed an empty call
    owner.mines()
    executor.reconcile()

    with pytest.raises(AwaitingExternalSignature) as waiting:
        executor.run("s", tx(1), again, "trade")
    assert ("trade, like the one rejected at " in waiting.value.message, "(nonce 0)" in waiting.value.message) == (is_same, is_same)
    assert ("trimtab edit" in waiting.value.remedy) is is_same


@pytest.mark.parametrize("drops_again", [False, True], ids=["proposed again", "withdrawn again"])
def test_payment_proposed_again__its_signatures_are_named_once(tmp_path: Path, drops_again: bool) -> None:
    setup = bench(tmp_path)
    executor = proposing(setup, Owner(setup), tmp_path)
    setup.store.steps.begin("s", START_S, "{}")
    for is_last in (False, True):
        with pytest.raises(AwaitingExternalSignature) as waiting:
            executor.run("s", tx(0), grant(IntentKind.PAYOUT), "payment")
        proposal_id = waiting.value.proposal["id"]
        setup.store.proposals.add_signatures(proposal_id, {WALLET: b"signature"})
        if drops_again or not is_last:
            setup.store.journal.advance(proposal_id, IntentState.CANCELLED, START_S)

    (text,) = signed_proposal_texts(setup.store)
    assert text.startswith(f"signatures of the proposal {proposal_id}: 1; ")
