"""The journal's answers: which intents are listed, what shares a nonce, what an adopted nonce settles, which proposals are open."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent import codec
from agent.errors import PassingFault
from agent.model import (
    FIRST_VENUE_NONCE,
    Goal,
    Intent,
    IntentEvent,
    IntentKind,
    IntentState,
    Payment,
    Rebalance,
    RequestKind,
    RequestState,
    SkippedItem,
    Transfer,
)
from agent.store import Store
from agent.store.database import decode_json
from tests.support.movements import movements
from tests.support.signing import PLAN
from tests.support.text import raises_code
from tests.support.transactions import OTHER, START_S, grant, new_store, receipt, tx

NOW_S = START_S + 9


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = new_store("memory", tmp_path)
    opened.steps.begin("s", START_S, "{}")
    yield opened
    opened.close()


def hash_of(number: int) -> str:
    return f"0x{number:064x}"


def sent(
    store: Store, number: int, nonce: int = 0, replaces: Intent | None = None, kind: IntentKind = IntentKind.SWAP, step: str = "s"
) -> Intent:
    """An intent whose bytes were sent, with the hash of its number."""
    older = None if replaces is None else replaces.id
    intent = store.journal.add_intent(step, kind, tx(nonce), grant(kind), "test", NOW_S, None, replaces=older)
    store.journal.advance(intent.id, IntentState.SIGNED, NOW_S, tx_hash=hash_of(number))
    return store.journal.advance(intent.id, IntentState.BROADCAST, NOW_S)


def ended(store: Store, intent: Intent, status: int = 1) -> Intent:
    mined = receipt(str(intent.tx_hash), 5, "0x05", status)
    store.journal.advance(intent.id, IntentState.MINED, NOW_S, receipt=mined)
    return store.journal.advance(intent.id, IntentState.FINAL if status else IntentState.REVERTED, NOW_S)


def ids(intents: object) -> list[str]:
    return [intent.id for intent in intents]  # type: ignore[attr-defined]  # a sequence of intents


# --- Intents that share a nonce.


def test_a_replaced_transaction_is_lost_only_once_its_replacement_is_final(store: Store) -> None:
    first = sent(store, 1)
    bump = sent(store, 2, replaces=first)
    with pytest.raises(ValueError, match="nothing else at its nonce is final"):
        store.journal.advance(first.id, IntentState.REPLACED, NOW_S)
    store.journal.advance(bump.id, IntentState.MINED, NOW_S, receipt=receipt(hash_of(2), 5, "0x05"))
    with pytest.raises(ValueError, match="nothing else at its nonce is final"):
        store.journal.advance(first.id, IntentState.REPLACED, NOW_S)
    store.journal.advance(bump.id, IntentState.FINAL, NOW_S)
    assert store.journal.advance(first.id, IntentState.REPLACED, NOW_S).state is IntentState.REPLACED


def test_a_reverted_replacement_has_used_the_nonce_of_every_one_before_it(store: Store) -> None:
    first = sent(store, 1)
    second = sent(store, 2, replaces=first)
    third = sent(store, 3, replaces=second)
    ended(store, third, status=0)
    for older in (first, second):
        assert store.journal.advance(older.id, IntentState.REPLACED, NOW_S).state is IntentState.REPLACED


def test_a_final_transaction_of_an_earlier_use_of_the_nonce_is_no_replacement(store: Store) -> None:
    """A reorganisation removed it long ago, and the operator has adopted the nonce since."""
    earlier = ended(store, sent(store, 1))
    store.journal.adopt_nonce(0, NOW_S)
    later = sent(store, 2)
    with pytest.raises(ValueError, match="nothing else at its nonce is final"):
        store.journal.advance(later.id, IntentState.REPLACED, NOW_S)
    assert ids(store.journal.intents_at(0)) == [earlier.id, later.id]


def test_an_adopted_nonce_settles_the_intents_before_it_and_none_after(store: Store) -> None:
    before = sent(store, 1)
    store.journal.adopt_nonce(1, NOW_S)
    after = sent(store, 2, nonce=1)
    assert store.journal.advance(before.id, IntentState.REPLACED, NOW_S).state is IntentState.REPLACED
    with pytest.raises(ValueError, match="nothing else at its nonce is final"):
        store.journal.advance(after.id, IntentState.REPLACED, NOW_S)
    with pytest.raises(ValueError, match="has adopted a nonce"):
        store.journal.advance(before.id, IntentState.BROADCAST, NOW_S, event=IntentEvent.REOPEN)


@pytest.mark.parametrize("used", [0, 1, 2])
def test_the_next_nonce_is_the_adopted_one_or_one_more_than_was_used_since(store: Store, used: int) -> None:
    ended(store, sent(store, 1, nonce=9))
    store.journal.adopt_nonce(3, NOW_S)
    for number in range(used):
        ended(store, sent(store, 10 + number, nonce=3 + number), status=number % 2)
    sent(store, 20, nonce=7)
    assert store.journal.expected_nonce() == 3 + used


def test_adoption__after_an_earlier_one__releases_withdrawals(store: Store) -> None:
    """The wallet was used elsewhere meanwhile; before the first adoption it was not."""
    store.requests.record(RequestKind.WITHDRAW, (Payment(OTHER, 5),), OTHER, False, START_S)
    store.journal.adopt_nonce(0, NOW_S)
    assert [request.state for request in store.requests.newest()] == [RequestState.OPEN]
    store.journal.adopt_nonce(7, NOW_S)
    assert [request.state for request in store.requests.newest()] == [RequestState.RELEASED]


def test_an_order_at_a_venue_uses_no_nonce_of_the_chain(store: Store) -> None:
    store.journal.adopt_nonce(3, NOW_S)
    ended(store, sent(store, 1, nonce=FIRST_VENUE_NONCE))
    ended(store, sent(store, 2, nonce=3))
    assert store.journal.expected_nonce() == 4
    assert store.journal.newest_venue_nonce() == FIRST_VENUE_NONCE


def test_a_lower_nonce_that_was_used_since_does_not_lower_the_next(store: Store) -> None:
    store.journal.adopt_nonce(3, NOW_S)
    ended(store, sent(store, 1, nonce=1))
    assert store.journal.expected_nonce() == 3


# --- Lists.


def test_a_cancel_alone_at_its_nonce_is_joined_by_no_other(store: Store) -> None:
    cancel = sent(store, 1, kind=IntentKind.CANCEL)
    with raises_code(PassingFault, "open_transaction", "nonce 0"):
        sent(store, 2, kind=IntentKind.CANCEL)
    assert ids(store.journal.open_intents()) == [cancel.id]


def test_the_newest_intents_are_listed_newest_first_and_those_of_a_step_oldest_first(store: Store) -> None:
    store.steps.begin("t", START_S, "{}")
    one, two, other = sent(store, 1), sent(store, 2, nonce=1), sent(store, 3, nonce=2, step="t")
    assert ids(store.journal.intents(limit=2)) == [other.id, two.id]
    assert ids(store.journal.intents("s")) == [one.id, two.id]
    assert ids(store.journal.open_intents()) == [one.id, two.id, other.id]


def test_transactions_that_ended_in_a_block_are_listed_since_the_adoption_without_orders_of_venues(store: Store) -> None:
    ended(store, sent(store, 1))
    store.journal.adopt_nonce(1, NOW_S)
    final, reverted = ended(store, sent(store, 2, nonce=1)), ended(store, sent(store, 3, nonce=2), status=0)
    ended(store, sent(store, 4, nonce=FIRST_VENUE_NONCE))
    sent(store, 5, nonce=3)
    assert ids(store.journal.intents_ended_in_block(9)) == [reverted.id, final.id]
    assert ids(store.journal.intents_ended_in_block(1)) == [reverted.id]


def test_successes_are_listed_by_the_outcome_of_their_step(store: Store) -> None:
    store.steps.begin("t", START_S, "{}")
    store.steps.end("t", "rebalance", "", None, "failed")
    unfinished, failed = ended(store, sent(store, 1)), ended(store, sent(store, 2, nonce=1, step="t"))
    ended(store, sent(store, 3, nonce=2), status=0)
    ended(store, sent(store, 4, nonce=3, kind=IntentKind.APPROVE))
    ended(store, sent(store, 5, nonce=4, kind=IntentKind.UNWRAP))
    position = ended(store, sent(store, 6, nonce=5, kind=IntentKind.LIQUIDITY))
    mined = sent(store, 7, nonce=6)
    store.journal.advance(mined.id, IntentState.MINED, NOW_S, receipt=receipt(hash_of(7), 5, "0x05"))
    assert ids(store.journal.successful_trades("")) == [unfinished.id, position.id, mined.id]
    assert ids(store.journal.successful_trades("failed", "")) == [unfinished.id, failed.id, position.id, mined.id]
    assert store.journal.successful_trades("done") == ()


def test_every_move_of_an_intent_is_listed_with_its_states_hash_and_note(store: Store) -> None:
    intent = sent(store, 1)
    sent(store, 2, nonce=1)
    moves = [(move.old_state, move.new_state, move.tx_hash, move.note) for move in store.journal.transitions(intent.id)]
    assert moves == [
        (None, IntentState.PLANNED, None, "test"),
        (IntentState.PLANNED, IntentState.SIGNED, hash_of(1), ""),
        (IntentState.SIGNED, IntentState.BROADCAST, hash_of(1), ""),
    ]
    assert store.journal.newest_transition_s() == NOW_S


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_transaction_is_by_hand_if_its_steps_plan_is(store: Store, by_hand: bool) -> None:
    intent = sent(store, 1)
    assert not store.steps.is_by_hand(intent.id)
    plan = replace(PLAN, decision=Rebalance("asked", Goal(()), by_hand=by_hand))
    store.steps.end("s", "rebalance", "asked", codec.dumps(plan), "done")
    assert store.steps.is_by_hand(intent.id) is by_hand


def test_a_proposal_is_kept_by_its_intent_with_its_newest_block(store: Store) -> None:
    assert store.proposals.proposal_blocks() == {}
    store.proposals.mark_proposed("a", 5)
    store.proposals.mark_proposed("b", 6)
    store.proposals.mark_proposed("a", 7)
    assert store.proposals.proposal_blocks() == {"a": 7, "b": 6}


def test_a_receipt_that_a_reorganisation_removes_is_gone_and_its_booking_with_it(store: Store) -> None:
    intent = ended(store, sent(store, 1))
    store.budgets.book_intent(intent, Fraction(5), Fraction(3), 7, START_S)
    assert store.budgets.history(START_S).budgets.loss_total == 3
    again = store.journal.advance(intent.id, IntentState.BROADCAST, NOW_S)
    assert again.receipt is None
    budgets = store.budgets.history(START_S).budgets
    assert (budgets.turnover_24h, budgets.loss_24h, budgets.loss_total, budgets.gas_24h_wei) == (0, 0, 0, 0)
    assert movements(store) == ()


# Decoded rows are kept for the next read, but not for ever.
LONG = "0x" + "ab" * 10_000
DECODED: dict[str, Callable[[int], object]] = {
    "a transaction with much calldata": lambda number: tx(number, LONG),
    "a receipt with many events": lambda number: replace(receipt(hash_of(number), 5, "0x05"), transfers=(Transfer(LONG, OTHER, OTHER, 1),)),
    "a grant with a plan": lambda number: replace(grant(), plan=replace(PLAN, skipped=(SkippedItem(f"{number}{LONG}", ""),))),
    "a short transaction": tx,
}


@pytest.mark.parametrize("value_of", DECODED.values(), ids=DECODED.keys())
def test_decoded_rows_of_many_transactions_take_little_memory(value_of: Callable[[int], object]) -> None:
    """A run that traded a thousand times held their plans, 150 kilobytes for each."""
    texts = [codec.dumps(value_of(number)) for number in range(400)]
    kind = type(value_of(0))
    gc.collect()
    tracemalloc.start()
    try:
        for text in texts:
            assert codec.dumps(decode_json(kind, "".join(text))) == text
        gc.collect()
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 1_500_000
    assert decode_json(kind, texts[-1]) is decode_json(kind, texts[-1]), "the last one is kept"
