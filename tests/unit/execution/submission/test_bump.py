"""What waits too long: sent again for more on its nonce, or cancelled, and written down before it leaves (T7)."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from agent.chain.sender import NonceUsed, SendRefused, TipRefused
from agent.errors import Retryable
from agent.model import IntentKind, IntentState, SignedTx
from tests.support.text import raises_code
from tests.support.transactions import GWEI, START_S, Killed, killed_at, patient, require_dearer, states, when_sent

S = IntentState
UNEVEN = "endpoints are 15 blocks apart"


def test_pending_swap_is_bumped_and_the_mined_one_returned(tmp_path: Path) -> None:
    setup = patient(tmp_path)
    when_sent(setup, 2, lambda: setup.chain.mine(setup.chain.sent[1]))
    ended = setup.run()

    original, bump = reversed(setup.store.journal.intents())

    assert (ended.id, ended.kind, ended.state, ended.succeeded) == (bump.id, IntentKind.SWAP, S.FINAL, True)
    assert original.state is S.REPLACED
    require_dearer([original, bump])
    assert (bump.tx.to, bump.tx.data, bump.tx.gas, bump.deadline_s) == (
        original.tx.to,
        original.tx.data,
        original.tx.gas,
        original.deadline_s,
    )
    assert setup.store.journal.open_intents() == ()
    assert [intent.id for intent in setup.store.journal.unbooked_intents()] == [bump.id]


def test_replacement_hash_is_stored_before_it_is_sent(tmp_path: Path) -> None:
    setup = patient(tmp_path)
    sends: list[tuple[str, list[str]]] = []
    setup.on_event = lambda event: (
        sends.append((str(event.intent.tx_hash), [str(i.tx_hash) for i in setup.store.journal.intents()]))
        if event.name == "before:send"
        else None
    )
    when_sent(setup, 3, setup.chain.mine)

    setup.run()

    assert len(sends) == 3
    assert all(sent_hash in stored_hashes for sent_hash, stored_hashes in sends)


def test_original_may_be_mined_though_it_was_bumped(tmp_path: Path) -> None:
    setup = patient(tmp_path)
    when_sent(setup, 2, lambda: setup.chain.mine(setup.chain.sent[0]))

    ended = setup.run()

    assert (ended.state, ended.tx_hash) == (S.FINAL, setup.chain.sent[0])
    assert states(setup) == [("swap", "final"), ("swap", "replaced")]


def test_swap_past_its_deadline_ends_cancelled(tmp_path: Path) -> None:
    setup = patient(tmp_path)

    def late() -> None:
        setup.chain.timestamp_s = START_S + 90
        if len(setup.chain.sent) == 2:
            setup.chain.mine(setup.chain.sent[1])

    setup.clock.on_sleep = late

    ended = setup.run()

    assert (ended.kind, ended.state, ended.succeeded) == (IntentKind.SWAP, S.CANCELLED, False)
    assert states(setup) == [("swap", "cancelled"), ("cancel", "final")]
    assert "deadline" in setup.store.journal.intents()[0].note


def test_swap_that_fails_at_the_head_is_cancelled(tmp_path: Path) -> None:
    setup = patient(tmp_path)

    def turned() -> None:
        setup.chain.simulation = "Too little received"
        if len(setup.chain.sent) == 2:
            setup.chain.mine(setup.chain.sent[1])

    setup.clock.on_sleep = turned

    assert setup.run().state is S.CANCELLED
    assert states(setup) == [("swap", "cancelled"), ("cancel", "final")]
    assert "Too little received" in setup.store.journal.intents()[0].note


def test_bump_waits_while_endpoints_are_not_level(tmp_path: Path) -> None:
    setup = patient(tmp_path, mined_timeout_s=10)
    when_sent(setup, 1, lambda: setattr(setup.chain, "height_disagreement", UNEVEN))

    with raises_code(Retryable, "not_mined"):
        setup.run()
    assert states(setup) == [("swap", "broadcast")]
    assert any(UNEVEN in event.text for event in setup.events)


def test_cancel_goes_out_while_endpoints_are_not_level(tmp_path: Path) -> None:
    setup = patient(tmp_path)

    def late() -> None:
        setup.chain.timestamp_s, setup.chain.height_disagreement = START_S + 90, UNEVEN
        if len(setup.chain.sent) == 2:
            setup.chain.mine(setup.chain.sent[1])

    setup.clock.on_sleep = late

    assert setup.run().state is S.CANCELLED
    assert states(setup) == [("swap", "cancelled"), ("cancel", "final")]


@pytest.mark.parametrize("paused", [True, None])
def test_bump_waits_while_paused(tmp_path: Path, paused: bool | None) -> None:
    setup = patient(tmp_path, mined_timeout_s=10)

    def pause() -> None:
        setup.paused = paused

    setup.clock.on_sleep = pause

    with raises_code(Retryable, "not_mined"):
        setup.run()
    assert len(setup.chain.sent) == 1
    assert states(setup) == [("swap", "broadcast")]
    assert any("kill switch" in event.text for event in setup.events)


def test_bump_that_a_node_refuses_is_bumped_again(tmp_path: Path) -> None:
    setup = patient(tmp_path)
    send = setup.chain.send
    refused = []

    def underpriced(signed) -> None:
        if len(setup.chain.sent) == 1 and not refused:
            refused.append(signed.hash)
            raise SendRefused("replacement transaction underpriced")
        send(signed)

    setup.chain.send = underpriced

    when_sent(setup, 2, lambda: setup.chain.mine(setup.chain.sent[1]))

    assert setup.run().state is S.FINAL
    assert states(setup) == [("swap", "replaced"), ("swap", "replaced"), ("swap", "final")]
    require_dearer(list(reversed(setup.store.journal.intents())))


@pytest.mark.parametrize("refused", [{1}, {1, 2}, {1, 2, 3}], ids=["a bump", "and its cancel", "and the next cancel"])
def test_bump_whose_demanded_tip_is_not_signed_is_cancelled(tmp_path: Path, refused: set[int]) -> None:
    """The only node takes the first transaction, and of later ones refuses these by a tip above what is ever signed."""
    setup = patient(tmp_path)
    send = setup.chain.send
    offers = count()

    def demand(signed: SignedTx) -> None:
        if next(offers) in refused:
            raise TipRefused("minimum needed 1000 gwei", min_tip_wei=1_000 * GWEI)
        send(signed)

    setup.chain.send = demand  # type: ignore[method-assign]
    when_sent(setup, 2, setup.chain.mine)

    assert setup.run().state is S.CANCELLED
    assert states(setup) == [("swap", "cancelled")] * 2 + [("cancel", "cancelled")] * (len(refused) - 1) + [("cancel", "final")]
    require_dearer(list(reversed(setup.store.journal.intents())))


def test_bump_after_the_block_of_the_original_ends_replaced(tmp_path: Path) -> None:
    setup = patient(tmp_path)
    send = setup.chain.send

    def too_late(signed) -> None:
        if setup.chain.sent:
            setup.chain.mine(setup.chain.sent[0])
            raise NonceUsed("nonce too low")
        send(signed)

    setup.chain.send = too_late

    ended = setup.run()

    assert (ended.state, ended.tx_hash) == (S.FINAL, setup.chain.sent[0])
    assert states(setup) == [("swap", "final"), ("swap", "replaced")]


def test_simulation_that_fails_once_mined_cancels_nothing(tmp_path: Path) -> None:
    setup = patient(tmp_path)
    simulate = setup.chain.simulate

    def mined_meanwhile(unsigned, sender):
        if setup.chain.sent and setup.chain.pool:
            setup.chain.mine(setup.chain.sent[0])
            return replace(simulate(unsigned, sender), ok=False, reason="STF")
        return simulate(unsigned, sender)

    setup.chain.simulate = mined_meanwhile

    assert setup.run().state is S.FINAL
    assert len(setup.chain.sent) == 1


@pytest.mark.parametrize("turn", ["bump", "cancel"])
@pytest.mark.parametrize(
    "at", ["after:planned", "before:signed", "after:signed", "before:broadcast", "after:broadcast", "before:send", "after:send"]
)
@pytest.mark.parametrize("lost", [False, True])
def test_process_killed_while_replacing_ends_the_nonce_once(tmp_path: Path, turn: str, at: str, lost: bool) -> None:
    setup = patient(tmp_path)

    def die(event) -> None:
        if event.name == at and event.intent is not None and event.intent.replaced_intent_id is not None:
            raise Killed

    def turned() -> None:
        if turn == "cancel":
            setup.chain.simulation = "Too little received"

    setup.on_event = die
    setup.clock.on_sleep = turned

    with pytest.raises(Killed):
        setup.run()
    setup.restart()
    if lost:
        setup.chain.pool.clear()
    stored_hashes = {intent.tx_hash for intent in setup.store.journal.intents() if intent.state is not S.CANCELLED}
    assert set(setup.chain.sent) <= stored_hashes
    setup.clock.on_sleep = lambda: setup.chain.mine(setup.chain.sent[-1]) if setup.chain.sent[-1] in setup.chain.pool else None
    setup.executor().reconcile()
    assert setup.store.journal.open_intents() == ()
    ended = [intent for intent in setup.store.journal.intents() if intent.state is S.FINAL]
    assert len(ended) == 1
    assert sum(len(block) for block in setup.chain.blocks) == 1


def test_pending_swap_of_an_ended_process_is_bumped_at_once(tmp_path: Path) -> None:
    setup = patient(tmp_path, bump_after_s=30)
    killed_at(setup, "after:send")
    setup.clock.time_s += 30
    when_sent(setup, 2, lambda: setup.chain.mine(setup.chain.sent[1]))

    setup.executor().reconcile()

    assert states(setup) == [("swap", "replaced"), ("swap", "final")]
    assert setup.clock.time_s < START_S + 40


def test_reconciliation_that_may_not_send_bumps_nothing(tmp_path: Path) -> None:
    setup = patient(tmp_path)
    killed_at(setup, "after:send")

    setup.executor().reconcile(may_send=False)

    assert len(setup.chain.sent) == 1


def test_next_transaction_waits_for_the_block_of_a_bump(tmp_path: Path) -> None:
    setup = patient(tmp_path, confirmations=2, final_timeout_s=0, mined_timeout_s=3)

    with raises_code(Retryable, "not_mined"):
        setup.run(0)
    assert states(setup) == [("swap", "broadcast"), ("swap", "broadcast")]
    with raises_code(Retryable, "open_transaction"):
        setup.run(1)
    setup.chain.mine(setup.chain.sent[1])
    setup.executor().reconcile(may_send=False)
    assert states(setup) == [("swap", "broadcast"), ("swap", "mined")]
    setup.chain.automine = True
    assert setup.run(1).state is S.MINED
    setup.executor().reconcile()
    assert [state for _, state in states(setup)] == ["replaced", "final", "mined"]
