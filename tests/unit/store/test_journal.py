"""Tests of agent/store/journal: steps, intents that share a nonce, adopted nonces, and the lists that a restart begins with."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from agent import codec
from agent.errors import OperatorNeeded, PassingFault
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
from agent.store.database.rows import decode_json
from tests.support.signing import PLAN
from tests.support.stores import store_fixture
from tests.support.text import raises_code
from tests.support.transactions import OTHER, START_S, WALLET, grant, receipt, tx

NOW_S = START_S + 9
APPROVE, CANCEL, LIQUIDITY, SWAP, UNWRAP = (
    IntentKind.APPROVE, IntentKind.CANCEL, IntentKind.LIQUIDITY, IntentKind.SWAP, IntentKind.UNWRAP,
)  # fmt: skip
PLANNED, SIGNED, BROADCAST, MINED, FINAL, REVERTED, REPLACED, CANCELLED = IntentState
PATHS = {
    PLANNED: (),
    SIGNED: (SIGNED,),
    BROADCAST: (SIGNED, BROADCAST),
    MINED: (SIGNED, BROADCAST, MINED),
    FINAL: (SIGNED, BROADCAST, MINED, FINAL),
    REVERTED: (SIGNED, BROADCAST, MINED, REVERTED),
}
"""States by which an intent usually comes to a state."""


store = store_fixture("file", begins_step=True)


def hash_of(intent: Intent) -> str:
    return f"0x{int(intent.id, 16):064x}"


def add(store: Store, nonce: int = 0, kind: IntentKind = SWAP, replaces: Intent | None = None, step_id: str = "s") -> Intent:
    """Add a PLANNED intent."""
    replaced_id = None if replaces is None else replaces.id
    return store.journal.add_intent(step_id, tx(nonce), grant(kind), "test", NOW_S, None, replaces=replaced_id)


def advance(store: Store, intent: Intent, *states: IntentState, status: int = 1) -> Intent:
    """Move an intent through these states, with a hash of its own and a receipt of this status."""
    for state in states:
        intent = store.journal.advance(
            intent.id,
            state,
            NOW_S,
            tx_hash=hash_of(intent) if state is SIGNED else None,
            receipt=receipt(hash_of(intent), 5, "0x05", status) if state is MINED else None,
        )
    return intent


def add_in(store: Store, state: IntentState, nonce: int = 0, **fields: Any) -> Intent:
    """Add an intent and move it to `state` the usual way; `fields` as of `add`."""
    return advance(store, add(store, nonce, **fields), *PATHS[state], status=int(state is not REVERTED))


def ids(intents: Iterable[Intent]) -> list[str]:
    return [intent.id for intent in intents]


# --- Steps


def test_step_is_read_as_it_was_written(store: Store) -> None:
    store.steps.begin("t", START_S + 1, '{"a":1}')
    store.steps.end("t", "hold", "in band", PLAN, "hold")

    record = store.steps.get("t")

    assert (record.input_json, record.plan_json) == ('{"a":1}', codec.dumps(PLAN))
    assert (record.summary.decision, record.summary.reason, record.summary.outcome) == ("hold", "in band", "hold")


def test_unknown_step_is_none_and_cannot_end(store: Store) -> None:
    assert store.steps.get("unknown") is None
    with pytest.raises(KeyError):
        store.steps.end("unknown", "hold", "", None, "hold")


@pytest.mark.parametrize(
    ("limit", "before_step_id", "step_ids"),
    [
        pytest.param(10, None, ["t", "s"], id="all"),
        pytest.param(1, None, ["t"], id="the newest"),
        pytest.param(1, "t", ["s"], id="before the newest"),
        pytest.param(1, "s", [], id="before the oldest"),
    ],
)
def test_steps_are_listed_newest_first(store: Store, limit: int, before_step_id: str | None, step_ids: list[str]) -> None:
    store.steps.begin("t", START_S, "{}")

    assert [summary.id for summary in store.steps.newest(limit, before_step_id)] == step_ids


@pytest.mark.parametrize("by_hand", [True, False])
def test_intent_is_by_hand_if_the_plan_of_its_step_is(store: Store, by_hand: bool) -> None:
    intent = add(store)
    assert not store.steps.is_by_hand(intent.id), "no plan yet"

    plan = replace(PLAN, decision=Rebalance("by command", Goal(()), by_hand=by_hand))
    store.steps.end("s", "rebalance", "by command", plan, "done")

    assert store.steps.is_by_hand(intent.id) is by_hand


def test_proposal_keeps_its_newest_block(store: Store) -> None:
    assert store.proposals.proposal_blocks() == {}

    for intent_id, block in (("a", 5), ("b", 6), ("a", 7)):
        store.proposals.mark_proposed(intent_id, block)

    assert store.proposals.proposal_blocks() == {"a": 7, "b": 6}


# --- One intent


def test_intent_is_read_as_it_was_written(store: Store) -> None:
    granted = replace(grant(), approval_terms=(OTHER, WALLET, 2**255))
    intent = store.journal.add_intent("s", tx(7), granted, "approve", START_S, 99)
    advance(store, intent, SIGNED, BROADCAST)
    block = replace(receipt(hash_of(intent), 3, "0x03"), transfers=(Transfer(OTHER, WALLET, OTHER, 2**200),))
    store.journal.advance(intent.id, MINED, START_S, receipt=block)

    (stored,) = store.journal.open_intents()

    assert (stored.tx, stored.tx_hash, stored.receipt, stored.deadline_s) == (tx(7), hash_of(intent), block, 99)
    assert store.journal.grant(intent.id).approval_terms == (OTHER, WALLET, 2**255)
    assert store.journal.intents("s") == store.journal.intents() == store.journal.intents_at(7) == (stored,)
    assert store.journal.intents_at(8) == ()


@pytest.mark.parametrize(
    ("state", "new_state", "fields", "reason"),
    [
        pytest.param(PLANNED, SIGNED, {}, "without a hash", id="no hash"),
        pytest.param(SIGNED, BROADCAST, {"tx_hash": "0x" + "cd" * 32}, "already has hash", id="another hash"),
        pytest.param(BROADCAST, MINED, {}, "without a receipt", id="no receipt"),
        pytest.param(PLANNED, BROADCAST, {}, "cannot go from planned to broadcast", id="a state left out"),
        pytest.param(SIGNED, MINED, {"event": IntentEvent.SEND}, "to broadcast by send, not to mined", id="event of another state"),
    ],
)
def test_advance_needs_the_facts_of_the_new_state(
    store: Store, state: IntentState, new_state: IntentState, fields: dict[str, Any], reason: str
) -> None:
    intent = add_in(store, state)

    with pytest.raises(ValueError, match=reason):
        store.journal.advance(intent.id, new_state, NOW_S, **fields)
    assert [intent.state for intent in store.journal.intents()] == [state]


def test_transitions_keep_states_hash_and_note(store: Store) -> None:
    intent = add_in(store, BROADCAST)
    add_in(store, BROADCAST, nonce=1)

    transitions = store.journal.transitions(intent.id)

    assert [(row.old_state, row.new_state, row.tx_hash, row.note) for row in transitions] == [
        (None, PLANNED, None, "test"),
        (PLANNED, SIGNED, hash_of(intent), ""),
        (SIGNED, BROADCAST, hash_of(intent), ""),
    ]
    assert store.journal.newest_transition_s() == NOW_S


@pytest.mark.parametrize("statement", ["DELETE FROM transitions", "UPDATE transitions SET new_state = 'final'"], ids=["delete", "update"])
def test_transitions_are_only_ever_added(store: Store, statement: str) -> None:
    add(store)

    with pytest.raises(OperatorNeeded, match=r"ever added|permission denied"), store.db.write("change") as connection:
        connection.exec_driver_sql(statement)


# --- Intents that share a nonce


def test_nonce_is_free_again_once_its_intent_is_dropped(store: Store) -> None:
    advance(store, add(store), CANCELLED)

    assert add(store).replaced_intent_id is None


def test_database_refuses_two_open_intents_at_one_nonce(store: Store) -> None:
    add(store)

    with pytest.raises(OperatorNeeded, match=r"intents\.nonce|one_open_intent_per_nonce"), store.db.write("copy") as connection:
        connection.exec_driver_sql(
            "INSERT INTO intents (id, step_id, kind, state, nonce, tx_json, grant_z, note, created_s) "
            "SELECT 'other', step_id, kind, state, nonce, tx_json, grant_z, note, created_s FROM intents"
        )


@pytest.mark.parametrize(
    ("state", "kind", "new_kind"),
    [
        pytest.param(BROADCAST, SWAP, SWAP, id="by its kind"),
        pytest.param(BROADCAST, SWAP, CANCEL, id="by a cancel"),
        pytest.param(BROADCAST, CANCEL, CANCEL, id="a cancel by a cancel"),
    ],
)
def test_sent_intent_is_replaced_once(store: Store, state: IntentState, kind: IntentKind, new_kind: IntentKind) -> None:
    intent = add_in(store, state, kind=kind)

    assert add(store, kind=new_kind, replaces=intent).replaced_intent_id == intent.id

    with raises_code(PassingFault, "open_transaction"):
        add(store, kind=new_kind, replaces=intent)


@pytest.mark.parametrize(
    ("state", "kind", "new_kind"),
    [
        pytest.param(PLANNED, SWAP, SWAP, id="not signed"),
        pytest.param(PLANNED, SWAP, CANCEL, id="not signed, by a cancel"),
        pytest.param(SIGNED, SWAP, SWAP, id="not sent"),
        pytest.param(SIGNED, SWAP, CANCEL, id="not sent, by a cancel"),
        pytest.param(BROADCAST, SWAP, APPROVE, id="by another kind"),
        pytest.param(BROADCAST, CANCEL, SWAP, id="a cancel by a swap"),
        pytest.param(MINED, SWAP, SWAP, id="mined"),
        pytest.param(MINED, SWAP, CANCEL, id="mined, by a cancel"),
    ],
)
def test_unsent_intent_or_another_kind_is_not_replaced(store: Store, state: IntentState, kind: IntentKind, new_kind: IntentKind) -> None:
    intent = add_in(store, state, kind=kind)

    with raises_code(PassingFault, "open_transaction"):
        add(store, kind=new_kind, replaces=intent)
    assert ids(store.journal.open_intents()) == [intent.id]


def test_replacement_of_an_ended_intent_is_refused(store: Store) -> None:
    intent = add_in(store, FINAL)

    with pytest.raises(ValueError, match="no open transaction at nonce 0 can be replaced by a swap"):
        add(store, replaces=intent)


def test_cancel_without_target_replaces_the_only_open_intent(store: Store) -> None:
    swap = add_in(store, BROADCAST)

    assert add(store, kind=CANCEL).replaced_intent_id == swap.id


@pytest.mark.parametrize(
    "open_kinds",
    [
        pytest.param([SWAP, SWAP], id="a swap and its replacement"),
        pytest.param([SWAP, CANCEL], id="a swap and its cancel"),
        pytest.param([CANCEL], id="a cancel alone"),
    ],
)
def test_cancel_without_target_joins_no_family_and_no_cancel(store: Store, open_kinds: list[IntentKind]) -> None:
    family: list[Intent] = []
    for kind in open_kinds:
        family.append(add_in(store, BROADCAST, kind=kind, replaces=family[-1] if family else None))

    with raises_code(PassingFault, "open_transaction", "nonce 0"):
        add(store, kind=CANCEL)
    assert ids(store.journal.open_intents()) == ids(family)


def test_swap_without_target_joins_no_open_intent(store: Store) -> None:
    swap = add_in(store, BROADCAST)

    with raises_code(PassingFault, "open_transaction", "nonce 0"):
        add(store)
    assert ids(store.journal.open_intents()) == [swap.id]


@pytest.mark.parametrize("end", [FINAL, REVERTED])
def test_replaced_intents_are_lost_once_the_last_has_ended(store: Store, end: IntentState) -> None:
    first = add_in(store, BROADCAST)
    second = add_in(store, BROADCAST, replaces=first)
    third = add_in(store, BROADCAST, replaces=second)
    for states in ((), (MINED,)):
        advance(store, third, *states, status=int(end is FINAL))
        with pytest.raises(ValueError, match="nothing else at its nonce is final"):
            advance(store, first, REPLACED)

    advance(store, third, end)

    assert [advance(store, intent, REPLACED).state for intent in (first, second)] == [REPLACED, REPLACED]


def test_final_intent_of_an_earlier_nonce_replaces_none(store: Store) -> None:
    """A reorganisation removed it long ago, and the operator has adopted the nonce since."""
    earlier = add_in(store, FINAL)
    store.journal.adopt_nonce(0, NOW_S)
    later = add_in(store, BROADCAST)

    with pytest.raises(ValueError, match="nothing else at its nonce is final"):
        advance(store, later, REPLACED)
    assert ids(store.journal.intents_at(0)) == [earlier.id, later.id]


def test_reopenable_is_what_was_lost_while_its_rival_is_open(store: Store) -> None:
    swap = add_in(store, BROADCAST)
    cancel = add_in(store, FINAL, kind=CANCEL, replaces=swap)
    advance(store, swap, CANCELLED)
    assert store.journal.reopenable_intents_at(0) == (), "the cancel is final"

    store.journal.advance(cancel.id, BROADCAST, NOW_S, event=IntentEvent.UNMINE)
    assert ids(store.journal.reopenable_intents_at(0)) == [swap.id]
    assert store.journal.reopenable_intents_at(1) == ()

    store.journal.advance(swap.id, BROADCAST, NOW_S, event=IntentEvent.REOPEN)
    assert store.journal.reopenable_intents_at(0) == (), "the swap is open itself"


def test_intent_never_sent_or_before_adoption_stays_ended(store: Store) -> None:
    advance(store, add(store), CANCELLED)
    assert store.journal.reopenable_intents_at(0) == (), "no other intent"

    swap = add_in(store, BROADCAST)
    advance(store, add_in(store, SIGNED, replaces=swap), CANCELLED)
    assert store.journal.reopenable_intents_at(0) == (), "its bytes never left, though what it replaced is open"

    store.journal.adopt_nonce(1, NOW_S)
    advance(store, swap, REPLACED)
    assert store.journal.reopenable_intents_at(0) == (), "the operator has adopted the nonce"


# --- Adopted nonces


def test_adopted_nonce_settles_the_intents_before_it_alone(store: Store) -> None:
    before = add_in(store, BROADCAST)
    store.journal.adopt_nonce(1, NOW_S)
    after = add_in(store, BROADCAST, nonce=1)

    assert advance(store, before, REPLACED).state is REPLACED
    with pytest.raises(ValueError, match="nothing else at its nonce is final"):
        advance(store, after, REPLACED)
    with pytest.raises(ValueError, match="has adopted a nonce"):
        store.journal.advance(before.id, BROADCAST, NOW_S, event=IntentEvent.REOPEN)


@pytest.mark.parametrize(
    ("ended_nonces", "expected_nonce"),
    [
        pytest.param([], 3, id="none since"),
        pytest.param([3], 4, id="one since"),
        pytest.param([3, 4], 5, id="two since"),
        pytest.param([1], 3, id="a lower one"),
        pytest.param([3, FIRST_VENUE_NONCE], 4, id="an order of a venue"),
    ],
)
def test_expected_nonce_follows_what_was_used_since_the_adoption(store: Store, ended_nonces: list[int], expected_nonce: int) -> None:
    assert store.journal.expected_nonce() is None
    add_in(store, FINAL, nonce=9)
    store.journal.adopt_nonce(3, NOW_S)
    for nonce in ended_nonces:
        add_in(store, REVERTED if nonce == 4 else FINAL, nonce)
    add_in(store, BROADCAST, nonce=7)

    assert store.journal.expected_nonce() == expected_nonce


@pytest.mark.parametrize(
    ("nonces", "newest_nonce"),
    [
        pytest.param([], 0, id="no order"),
        pytest.param([FIRST_VENUE_NONCE - 1], 0, id="one below the first"),
        pytest.param([5, FIRST_VENUE_NONCE], FIRST_VENUE_NONCE, id="the first"),
        pytest.param([FIRST_VENUE_NONCE + 1, FIRST_VENUE_NONCE], FIRST_VENUE_NONCE + 1, id="the highest, not the last"),
    ],
)
def test_newest_venue_nonce_ignores_the_chain(store: Store, nonces: list[int], newest_nonce: int) -> None:
    for nonce in nonces:
        add(store, nonce)

    assert store.journal.newest_venue_nonce() == newest_nonce


def test_adoption_after_an_earlier_one_releases_withdrawals(store: Store) -> None:
    """The wallet was used elsewhere meanwhile; before the first adoption it was not."""
    store.requests.record(RequestKind.WITHDRAW, (Payment(OTHER, 5),), OTHER, False, START_S)

    store.journal.adopt_nonce(0, NOW_S)
    assert [request.state for request in store.requests.newest()] == [RequestState.OPEN]

    store.journal.adopt_nonce(7, NOW_S)
    assert [request.state for request in store.requests.newest()] == [RequestState.RELEASED]


# --- Lists


def test_intents_are_newest_first_and_of_a_step_oldest_first(store: Store) -> None:
    store.steps.begin("t", START_S, "{}")
    first = add(store)
    second = add(store, nonce=1)
    of_other_step = add(store, nonce=2, step_id="t")

    assert ids(store.journal.intents(limit=2)) == [of_other_step.id, second.id]
    assert ids(store.journal.intents("s")) == [first.id, second.id]
    assert ids(store.journal.open_intents()) == [first.id, second.id, of_other_step.id]


def test_ended_in_block_excludes_venues_and_what_was_adopted(store: Store) -> None:
    add_in(store, FINAL)
    store.journal.adopt_nonce(1, NOW_S)
    final = add_in(store, FINAL, nonce=1)
    reverted = add_in(store, REVERTED, nonce=2)
    add_in(store, FINAL, nonce=FIRST_VENUE_NONCE)
    add_in(store, BROADCAST, nonce=3)

    assert ids(store.journal.intents_ended_in_block(9)) == [reverted.id, final.id]
    assert ids(store.journal.intents_ended_in_block(1)) == [reverted.id]


@pytest.mark.parametrize(
    ("kind", "state", "outcome", "is_listed"),
    [
        pytest.param(SWAP, FINAL, "failed", True, id="final swap"),
        pytest.param(SWAP, MINED, "failed", True, id="mined swap"),
        pytest.param(LIQUIDITY, FINAL, "failed", True, id="final liquidity"),
        pytest.param(LIQUIDITY, MINED, "failed", True, id="mined liquidity"),
        pytest.param(SWAP, FINAL, "", True, id="step without outcome"),
        pytest.param(SWAP, FINAL, "done", False, id="another outcome"),
        pytest.param(SWAP, REVERTED, "failed", False, id="reverted"),
        pytest.param(SWAP, BROADCAST, "failed", False, id="pending"),
        pytest.param(APPROVE, FINAL, "failed", False, id="approval"),
        pytest.param(UNWRAP, FINAL, "failed", False, id="unwrap"),
    ],
)
def test_successful_trades_are_those_of_a_step_outcome(
    store: Store, kind: IntentKind, state: IntentState, outcome: str, is_listed: bool
) -> None:
    intent = add_in(store, state, kind=kind)
    if outcome:
        store.steps.end("s", "rebalance", "", None, outcome)

    assert ids(store.journal.successful_trades("failed", "")) == ([intent.id] if is_listed else [])


def test_successful_trades_are_oldest_first(store: Store) -> None:
    trades = [add_in(store, FINAL, nonce=nonce) for nonce in range(3)]

    assert ids(store.journal.successful_trades("")) == ids(trades)


# --- Decoded rows are kept for the next read, but not for ever.

LONG = "0x" + "ab" * 10_000
ROWS: dict[str, Callable[[int], object]] = {
    "a transaction with much calldata": lambda number: tx(number, LONG),
    "a receipt with many events": lambda number: replace(
        receipt(f"0x{number:064x}", 5, "0x05"), transfers=(Transfer(LONG, OTHER, OTHER, 1),)
    ),
    "a grant with a plan": lambda number: replace(grant(), plan=replace(PLAN, skipped=(SkippedItem(f"{number}{LONG}", ""),))),
    "a short transaction": tx,
}


@pytest.mark.parametrize("row_of", ROWS.values(), ids=ROWS.keys())
def test_decoded_rows_of_many_transactions_take_little_memory(row_of: Callable[[int], object]) -> None:
    """A run that traded a thousand times held their plans, 150 kilobytes for each."""
    texts = [codec.dumps(row_of(number)) for number in range(400)]
    row_type = type(row_of(0))
    gc.collect()
    tracemalloc.start()
    try:
        for text in texts:
            assert codec.dumps(decode_json(row_type, "".join(text))) == text
        gc.collect()
        memory_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert memory_bytes < 1_500_000
    assert decode_json(row_type, texts[-1]) is decode_json(row_type, texts[-1]), "the last row stays decoded"
