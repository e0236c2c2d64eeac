"""Single operations of a submission: what stays in the journal if one fails, and which answers of the nodes count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.chain.sender import OutcomeUnknown, TipRefused
from agent.errors import OperatorNeeded, Retryable
from agent.execution.submitter import Submitter
from agent.model import Intent, IntentKind, IntentState, SignedTx, UnsignedTx
from agent.ports import Grant
from agent.signing.terms import TIP_CAP_WEI
from tests.support.signing import ESCAPE, futures_grant
from tests.support.text import raises_code
from tests.support.transactions import GWEI, START_S, Bench, bench, grant, killed_at, lost_in_broadcast, patient, tx, when_sent

S = IntentState


def submitter(setup: Bench) -> Submitter:
    return setup.executor()._submitter


def only_state(setup: Bench) -> IntentState:
    """Return the state of the journal's one intent."""
    (intent,) = setup.store.journal.intents()
    return intent.state


@pytest.mark.parametrize(
    ("granted", "ceilings"), [(grant(), (7, 11)), (futures_grant(ESCAPE, is_emergency=True), (70, 110))], ids=["usual", "emergency"]
)
def test_gas_ceilings__are_per_gas_and_then_per_day(tmp_path: Path, granted: Grant, ceilings: tuple[int, int]) -> None:
    settings = replace(bench(tmp_path).settings, max_fee_wei=7, gas_per_day_wei=11, emergency_gas_ceilings=(70, 110))
    assert settings.gas_ceilings_of(granted) == ceilings


def test_launch__drops_what_an_unreachable_signer_did_not_sign(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    setup.signer.refuse = Retryable("the remote signer does not answer")
    with pytest.raises(Retryable):
        setup.run()
    assert (only_state(setup), setup.chain.sent) == (S.CANCELLED, [])


def test_launch__drops_what_it_signed_if_the_head_cannot_be_read(tmp_path: Path) -> None:
    setup = bench(tmp_path)

    def disconnect(event: object) -> None:
        if getattr(event, "name", "") == "after:signed":
            setup.chain.offline = 1

    setup.on_event = disconnect
    with pytest.raises(Retryable):
        setup.run()
    assert (only_state(setup), setup.chain.sent) == (S.CANCELLED, [])


def planned(setup: Bench, unsigned: UnsignedTx) -> Intent:
    """Return a new intent in the journal."""
    setup.store.steps.begin("step", START_S, "{}")
    return submitter(setup).record_intent("step", IntentKind.SWAP, unsigned, grant(), "swap", None)


def test_send__refuses_what_ended_in_a_block(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    intent = setup.run()
    with pytest.raises(ValueError, match="send"):
        submitter(setup).send(intent, setup.signer.signed[0])
    assert setup.chain.sent == [intent.tx_hash]


def test_drop__refuses_what_was_sent_though_its_cancel_is_final(tmp_path: Path) -> None:
    setup = patient(tmp_path)

    def revert_or_mine() -> None:
        setup.chain.simulation = "execution reverted"
        if len(setup.chain.sent) > 1:
            setup.chain.mine(setup.chain.sent[-1])

    when_sent(setup, 1, revert_or_mine)
    killed_at(setup, "after:final")
    (swap,) = (intent for intent in setup.store.journal.open_intents() if intent.kind is IntentKind.SWAP)
    with pytest.raises(ValueError, match="drop"):
        submitter(setup).drop(swap, "its cancel is final")


def test_send__waits_for_what_a_node_may_have_though_another_demands_too_high_a_tip(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    refusal = TipRefused("tip too low", min_tip_wei=TIP_CAP_WEI + 1)
    setup.chain.send_error = OutcomeUnknown("no answer", "", refusal)
    assert setup.run().state is S.FINAL


def test_send__records_any_gas_price_that_a_node_demands(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    legacy_tx = replace(tx(0), max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=GWEI)
    intent = planned(setup, legacy_tx)
    setup.chain.send_error = TipRefused("gas price too low", min_tip_wei=3 * GWEI)
    with pytest.raises(TipRefused):
        submitter(setup).launch(intent, grant(), None)
    assert submitter(setup).demanded_tip_wei == 3 * GWEI


def test_mined_hash__is_unknown_if_the_endpoints_need_the_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = bench(tmp_path)

    def refuse(_owner: str, _nonce: int) -> str:
        raise OperatorNeeded("the endpoints contradict each other")

    monkeypatch.setattr(setup.chain, "mined_tx_hash", refuse, raising=False)
    assert submitter(setup).mined_hash(0) is None


def test_sign_again__grants_the_present_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = lost_in_broadcast(tmp_path)
    (intent,) = setup.store.journal.open_intents()
    times_s: list[int] = []
    sign = setup.signer.sign

    def record_time(unsigned: UnsignedTx, granted: Grant) -> SignedTx:
        times_s.append(granted.now_s)
        return sign(unsigned, granted)

    monkeypatch.setattr(setup.signer, "sign", record_time)
    submitter(setup).sign_again(intent, START_S + 50)
    assert times_s == [START_S + 50]


def count_nonces(setup: Bench, monkeypatch: pytest.MonkeyPatch, answers: list[tuple[int, int]]) -> list[int]:
    """Let the chain answer with these next nonces, latest and pending, at each poll; return the polls' numbers."""
    polls: list[int] = []

    def answer(_owner: str) -> tuple[int, int]:
        polls.append(len(polls))
        return answers[polls[-1]]

    monkeypatch.setattr(setup.chain, "nonces", answer)
    return polls


@pytest.mark.parametrize("low", [(0, 0), (0, 2)], ids=["not pending", "pending again"])
def test_await_mined__ends_at_the_fifth_low_nonce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, low: tuple[int, int]) -> None:
    setup = bench(tmp_path)
    polls = count_nonces(setup, monkeypatch, [low] * 6)
    with raises_code(Retryable, "reorg"):
        submitter(setup).await_mined(1)
    assert len(polls) == 5


def test_await_mined__counts_low_nonces_in_a_row_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = bench(tmp_path)
    count_nonces(setup, monkeypatch, [(0, 0)] * 4 + [(1, 1)] + [(0, 0)])
    assert submitter(setup).await_mined(1) is None


def test_await_mined__forgets_an_error_before_the_last_poll(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)
    setup.chain.offline = 1
    assert submitter(setup).await_mined(0) is None


def test_await_mined__acts_on_no_poll_that_failed(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)
    setup.chain.offline = 10
    waits_s: list[float] = []
    with pytest.raises(Retryable):
        submitter(setup).await_mined(0, waits_s.append)
    assert waits_s == []


def test_record_mined__moves_the_loser_out_of_its_block_first(tmp_path: Path) -> None:
    setup = patient(tmp_path, mined_timeout_s=3)
    with pytest.raises(Retryable):
        setup.run()
    original, bump = setup.chain.sent
    setup.chain.mine(original)
    submitter(setup).record_mined(0)
    setup.chain.reorg(1)
    setup.chain.mine(bump)
    setup.events.clear()
    submitter(setup).record_mined(0)
    assert [event.name for event in setup.events if event.name.startswith("after:")] == ["after:broadcast", "after:mined"]
