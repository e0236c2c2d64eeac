"""The transition table: every state with every event, every guard, in the table, in a real store, and as drawn in docs/journal.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest

from agent.model import Intent, IntentEvent, IntentKind, IntentState
from agent.store import Store
from agent.store.transitions import (
    ENDED_IN_BLOCK_STATE_NAMES,
    NONCE_USED_STATE_NAMES,
    NONCE_USED_STATES,
    OPEN_STATE_NAMES,
    OPEN_STATES,
    RULE_BY_EVENT,
    TRANSITION_RULES,
    TRANSITIONS,
    PastFacts,
    TransitionFacts,
    TransitionRule,
)
from tests.support.movements import movements
from tests.support.transactions import START_S, Memory, grant, receipt, tx

PAGE = Path(__file__).parents[3] / "docs" / "journal.md"
S = IntentState
E = IntentEvent
SWAP = IntentKind.SWAP
CANCEL = IntentKind.CANCEL
DRAWN = {
    (S.PLANNED, E.SIGN): S.SIGNED, (S.PLANNED, E.DROP): S.CANCELLED,
    (S.SIGNED, E.SEND): S.BROADCAST, (S.SIGNED, E.DROP): S.CANCELLED,
    (S.BROADCAST, E.SEND): S.BROADCAST, (S.BROADCAST, E.MINE): S.MINED,
    (S.BROADCAST, E.LOSE): S.REPLACED, (S.BROADCAST, E.YIELD): S.CANCELLED,
    (S.MINED, E.MINE): S.MINED, (S.MINED, E.UNMINE): S.BROADCAST, (S.MINED, E.CONFIRM): S.FINAL, (S.MINED, E.FAIL): S.REVERTED,
    (S.FINAL, E.MINE): S.MINED, (S.FINAL, E.UNMINE): S.BROADCAST,
    (S.REVERTED, E.MINE): S.MINED, (S.REVERTED, E.UNMINE): S.BROADCAST,
    (S.REPLACED, E.REOPEN): S.BROADCAST, (S.CANCELLED, E.REOPEN): S.BROADCAST, (S.CANCELLED, E.SIGN): S.SIGNED,
}  # fmt: skip
"""Written a second time, so that no slip in the table stays unseen."""
TARGET = {
    E.SIGN: S.SIGNED, E.DROP: S.CANCELLED, E.SEND: S.BROADCAST, E.MINE: S.MINED, E.UNMINE: S.BROADCAST, E.CONFIRM: S.FINAL,
    E.FAIL: S.REVERTED, E.LOSE: S.REPLACED, E.YIELD: S.CANCELLED, E.REOPEN: S.BROADCAST,
}  # fmt: skip
HASH = "0x" + "ab" * 32
RIVAL = "0x" + "cd" * 32
NOW = START_S


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Memory:
    return Memory(tmp_path_factory.mktemp("store"))


@pytest.fixture
def store(memory: Memory) -> Store:
    """The real store, in memory and empty."""
    memory.connection.deserialize(memory.empty)
    memory.store.steps.begin("s", NOW, "{}")
    return memory.store


def current(store: Store, intent_id: str) -> Intent:
    return next(intent for intent in store.journal.intents() if intent.id == intent_id)


def all_rows(store: Store) -> list[list[tuple[object, ...]]]:
    """Return everything that a move could change."""
    tables = ("intents", "transitions", "budgets", "movements", "liquidity")
    with store.db.engine.connect() as connection:
        return [[tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {table}")] for table in tables]


def add(store: Store, kind: IntentKind = SWAP, replaces: str | None = None) -> str:
    """Add a PLANNED intent."""
    return store.journal.add_intent("s", tx(0), grant(kind), "test", NOW, None, replaces=replaces).id


def advance(store: Store, intent_id: str, tx_hash: str, states: Iterable[IntentState], status: int = 1) -> None:
    """Move an intent through these states."""
    for state in states:
        block = receipt(tx_hash, 1, "0x01", status) if state is S.MINED else None
        store.journal.advance(intent_id, state, NOW, tx_hash=tx_hash if state is S.SIGNED else None, receipt=block)


PATHS = {
    S.PLANNED: (),
    S.SIGNED: (S.SIGNED,),
    S.BROADCAST: (S.SIGNED, S.BROADCAST),
    S.MINED: (S.SIGNED, S.BROADCAST, S.MINED),
    S.FINAL: (S.SIGNED, S.BROADCAST, S.MINED, S.FINAL),
    S.REVERTED: (S.SIGNED, S.BROADCAST, S.MINED, S.REVERTED),
    S.REPLACED: (S.SIGNED, S.BROADCAST),
    S.CANCELLED: (S.SIGNED, S.BROADCAST),
}
"""States by which an intent usually comes to a state, before a rival ends it."""
RIVALS = {S.REPLACED: SWAP, S.CANCELLED: CANCEL}
"""Kind of the final rival that ends an intent so."""


def add_in(store: Store, state: IntentState, rival: IntentKind | None = None) -> str:
    """Add an intent in `state`, reached the usual way; `rival` took its nonce and is final."""
    intent_id = add(store)
    advance(store, intent_id, HASH, PATHS[state], 0 if state is S.REVERTED else 1)
    if (rival_kind := RIVALS.get(state, rival)) is not None:
        advance(store, add(store, rival_kind, intent_id), RIVAL, PATHS[S.FINAL])
    if state in RIVALS:
        store.journal.advance(intent_id, state, NOW)
    return intent_id


Builder = Callable[[Store], str]
"""What adds an intent to a store and returns its id."""


def intent_in(state: IntentState, rival: IntentKind | None = None) -> Builder:
    return lambda store: add_in(store, state, rival)


def revert_in_block(store: Store) -> str:
    intent_id = add(store)
    advance(store, intent_id, HASH, PATHS[S.MINED], status=0)
    return intent_id


def reopenable(state: IntentState) -> Builder:
    """Return what adds an intent that ended so by a rival whose block is gone."""

    def build(store: Store) -> str:
        intent_id = add_in(store, state)
        (rival,) = [intent for intent in store.journal.intents() if intent.id != intent_id]
        store.journal.advance(rival.id, S.BROADCAST, NOW)
        return intent_id

    return build


def withdraw_proposal(store: Store) -> str:
    """Add a proposal that was withdrawn unsent."""
    return store.journal.advance(add(store), S.CANCELLED, NOW).id


READY: dict[tuple[IntentState, IntentEvent], Builder] = {
    (S.BROADCAST, E.LOSE): intent_in(S.BROADCAST, SWAP),
    (S.BROADCAST, E.YIELD): intent_in(S.BROADCAST, CANCEL),
    (S.MINED, E.FAIL): revert_in_block,
    (S.REPLACED, E.REOPEN): reopenable(S.REPLACED),
    (S.CANCELLED, E.REOPEN): reopenable(S.CANCELLED),
    (S.CANCELLED, E.SIGN): withdraw_proposal,
}
"""Where a plain intent in that state is not enough."""


def brings(event: IntentEvent, block: int = 2) -> dict[str, object]:
    """What comes with an event."""
    if event is E.SIGN:
        return {"tx_hash": HASH}
    return {"receipt": receipt(HASH, block, "0x02")} if event is E.MINE else {}


def test_the_table_is_the_one_that_was_drawn_twice() -> None:
    assert {key: row.state_after for key, row in RULE_BY_EVENT.items()} == DRAWN
    assert len(RULE_BY_EVENT) == len(TRANSITION_RULES) == len({(row.state_before, row.state_after) for row in TRANSITION_RULES})
    assert set(TRANSITIONS) == set(IntentState)
    assert {S.PLANNED, S.SIGNED, S.BROADCAST, S.MINED} == OPEN_STATES
    assert {event for _, event in DRAWN} == set(IntentEvent)


@pytest.mark.parametrize(("state", "event"), DRAWN, ids=lambda value: value.value)
def test_drawn_event_moves_to_its_state(store: Store, state: IntentState, event: IntentEvent) -> None:
    intent_id = READY.get((state, event), intent_in(state))(store)
    assert current(store, intent_id).state is state
    earlier_moves = store.journal.transitions(intent_id)

    moved = store.journal.advance(intent_id, DRAWN[state, event], NOW, event=event, note="why", **brings(event))

    assert moved.state is DRAWN[state, event]
    assert (moved.receipt is not None) == (moved.state in NONCE_USED_STATES)
    *moves, last = store.journal.transitions(intent_id)
    assert tuple(moves) == earlier_moves
    assert (last.old_state, last.new_state, last.note) == (state, moved.state, "why")


@pytest.mark.parametrize(("state", "event"), [pair for pair in product(S, E) if pair not in DRAWN], ids=lambda value: value.value)
def test_other_event_changes_nothing(store: Store, state: IntentState, event: IntentEvent) -> None:
    intent_id = intent_in(state)(store)
    rows = all_rows(store)

    with pytest.raises(ValueError, match=rf"{event.value}.*{state.value}"):
        store.journal.advance(intent_id, TARGET[event], NOW, event=event, **brings(event))
    assert all_rows(store) == rows


EVENT_BY_STATES = {(before, after): event for (before, event), after in DRAWN.items()}


@pytest.mark.parametrize(("before", "after"), EVENT_BY_STATES, ids=lambda value: value.value)
def test_drawn_pair_of_states_is_allowed(store: Store, before: IntentState, after: IntentState) -> None:
    event = EVENT_BY_STATES[before, after]
    intent_id = READY.get((before, event), intent_in(before))(store)

    assert after in TRANSITIONS[before]
    assert store.journal.advance(intent_id, after, NOW, **brings(event)).state is after


@pytest.mark.parametrize(
    ("before", "after"), [pair for pair in product(S, S) if pair not in EVENT_BY_STATES], ids=lambda value: value.value
)
def test_other_pair_of_states_is_refused(store: Store, before: IntentState, after: IntentState) -> None:
    intent_id = intent_in(before)(store)
    rows = all_rows(store)

    assert after not in TRANSITIONS[before]
    with pytest.raises(ValueError, match=rf"{before.value} to {after.value}"):
        store.journal.advance(intent_id, after, NOW, tx_hash=HASH, receipt=receipt(HASH, 2, "0x02"))
    assert all_rows(store) == rows


def test_an_event_that_leads_elsewhere_than_it_says_is_refused(store: Store) -> None:
    intent_id = add_in(store, S.MINED)

    with pytest.raises(ValueError, match=r"broadcast.*unmine.*final"):
        store.journal.advance(intent_id, S.FINAL, NOW, event=E.UNMINE)
    with pytest.raises(ValueError, match="send"):  # a resend would take the receipt away
        store.journal.advance(intent_id, S.BROADCAST, NOW, event=E.SEND)
    assert current(store, intent_id).receipt is not None


# guards
MINED_HERE = receipt(HASH, 1, "0x01")
MINED_THERE = receipt(HASH, 2, "0x02")
SENT = PastFacts(may_have_been_sent=True)
FACTS = TransitionFacts(HASH, read_past=lambda: SENT)


def beside(final_peer_kind: IntentKind) -> TransitionFacts:
    """Facts of a sent intent beside another of its nonce that ended in a block."""
    return replace(FACTS, read_past=lambda: replace(SENT, final_peer_kind=final_peer_kind))


PASS: dict[tuple[IntentState, IntentEvent], TransitionFacts] = {
    **dict.fromkeys([(S.PLANNED, E.SIGN), (S.SIGNED, E.SEND), (S.CANCELLED, E.SIGN)], TransitionFacts(HASH)),
    **dict.fromkeys([(S.PLANNED, E.DROP), (S.SIGNED, E.DROP)], TransitionFacts(None)),
    **dict.fromkeys([(S.BROADCAST, E.SEND), (S.MINED, E.UNMINE), (S.FINAL, E.UNMINE), (S.REVERTED, E.UNMINE)], FACTS),
    (S.BROADCAST, E.MINE): replace(FACTS, receipt=MINED_HERE),
    (S.BROADCAST, E.LOSE): beside(IntentKind.SWAP),
    (S.BROADCAST, E.YIELD): beside(IntentKind.CANCEL),
    **dict.fromkeys(
        [(S.MINED, E.MINE), (S.FINAL, E.MINE), (S.REVERTED, E.MINE)], replace(FACTS, stored_receipt=MINED_HERE, receipt=MINED_THERE)
    ),
    (S.MINED, E.CONFIRM): replace(FACTS, stored_receipt=MINED_HERE),
    (S.MINED, E.FAIL): replace(FACTS, stored_receipt=replace(MINED_HERE, status=0)),
    **dict.fromkeys([(S.REPLACED, E.REOPEN), (S.CANCELLED, E.REOPEN)], FACTS),
}
_SAME = replace(FACTS, stored_receipt=MINED_HERE, receipt=MINED_HERE)
_ADOPTED = replace(FACTS, stored_receipt=MINED_HERE, receipt=MINED_THERE, is_nonce_adopted=True)
_FOREIGN = replace(FACTS, receipt=receipt(RIVAL, 1, "0x01"))
REFUSE: dict[tuple[IntentState, IntentEvent], tuple[TransitionFacts, ...]] = {
    **dict.fromkeys(
        [(S.PLANNED, E.SIGN), (S.SIGNED, E.SEND), (S.BROADCAST, E.SEND), (S.MINED, E.UNMINE)],
        (replace(FACTS, tx_hash=None),),
    ),
    **dict.fromkeys([(S.PLANNED, E.DROP), (S.SIGNED, E.DROP)], (FACTS,)),
    (S.CANCELLED, E.SIGN): (TransitionFacts(None), FACTS, TransitionFacts(HASH, is_nonce_adopted=True)),
    (S.BROADCAST, E.MINE): (FACTS, _FOREIGN),
    (S.BROADCAST, E.LOSE): (FACTS, beside(IntentKind.CANCEL)),
    (S.BROADCAST, E.YIELD): (FACTS, beside(IntentKind.SWAP), replace(FACTS, is_nonce_adopted=True)),
    (S.MINED, E.MINE): (FACTS, _FOREIGN, _SAME),
    (S.MINED, E.CONFIRM): (FACTS, replace(FACTS, stored_receipt=replace(MINED_HERE, status=0))),
    (S.MINED, E.FAIL): (FACTS, replace(FACTS, stored_receipt=MINED_HERE)),
    **dict.fromkeys([(S.FINAL, E.MINE), (S.REVERTED, E.MINE)], (FACTS, _FOREIGN, _SAME, _ADOPTED)),
    **dict.fromkeys([(S.FINAL, E.UNMINE), (S.REVERTED, E.UNMINE)], (_ADOPTED,)),
    **dict.fromkeys(
        [(S.REPLACED, E.REOPEN), (S.CANCELLED, E.REOPEN)],
        (
            TransitionFacts(HASH),
            beside(IntentKind.SWAP),
            beside(IntentKind.CANCEL),
            replace(FACTS, is_nonce_adopted=True),
        ),
    ),
}


@pytest.mark.parametrize("row", TRANSITION_RULES, ids=lambda row: f"{row.state_before.value}-{row.event.value}")
def test_every_guard_passes_what_it_should_and_refuses_the_rest(row: TransitionRule) -> None:
    assert row.guard(PASS[row.state_before, row.event]) is None
    for facts in REFUSE[row.state_before, row.event]:
        assert row.guard(facts), facts


def adopted(state: IntentState) -> Builder:
    """Return what adds an intent in this state and adopts its nonce."""

    def build(store: Store) -> str:
        intent_id = add_in(store, state)
        store.journal.adopt_nonce(0, NOW)
        return intent_id

    return build


def drop_signed(store: Store) -> str:
    intent_id = add_in(store, S.SIGNED)
    store.journal.advance(intent_id, S.CANCELLED, NOW)
    return intent_id


@pytest.mark.parametrize(
    ("build", "event", "fields", "reason"),
    [
        pytest.param(intent_in(S.PLANNED), E.SIGN, {}, "without a hash", id="no hash"),
        pytest.param(intent_in(S.BROADCAST), E.MINE, {}, "without a receipt", id="no receipt"),
        pytest.param(
            intent_in(S.BROADCAST), E.MINE, {"receipt": receipt(RIVAL, 1, "0x01")}, "of another transaction", id="foreign receipt"
        ),
        pytest.param(intent_in(S.MINED), E.MINE, {"receipt": receipt(HASH, 1, "0x01")}, "that it has already", id="same receipt"),
        pytest.param(revert_in_block, E.CONFIRM, {}, "receipt of a success", id="confirm a revert"),
        pytest.param(intent_in(S.MINED), E.FAIL, {}, "receipt of a revert", id="fail a success"),
        pytest.param(intent_in(S.BROADCAST), E.LOSE, {}, "nothing else at its nonce is final", id="lose alone"),
        pytest.param(intent_in(S.BROADCAST, CANCEL), E.LOSE, {}, "nothing else at its nonce is final", id="lose to a cancel"),
        pytest.param(intent_in(S.BROADCAST), E.YIELD, {}, "no cancel of it is final", id="yield alone"),
        pytest.param(intent_in(S.BROADCAST, SWAP), E.YIELD, {}, "no cancel of it is final", id="yield to a swap"),
        pytest.param(intent_in(S.REPLACED), E.REOPEN, {}, "another transaction at its nonce is final", id="reopen beside a final swap"),
        pytest.param(intent_in(S.CANCELLED), E.REOPEN, {}, "another transaction at its nonce is final", id="reopen beside a final cancel"),
        pytest.param(drop_signed, E.REOPEN, {}, "its bytes never left", id="reopen unsent"),
        pytest.param(adopted(S.FINAL), E.UNMINE, {}, "has adopted a nonce", id="unmine after an adoption"),
        pytest.param(
            adopted(S.REVERTED), E.MINE, {"receipt": receipt(HASH, 2, "0x02")}, "has adopted a nonce", id="mine after an adoption"
        ),
    ],
)
def test_guard_that_refuses_changes_nothing(
    store: Store, build: Builder, event: IntentEvent, fields: dict[str, object], reason: str
) -> None:
    intent_id = build(store)
    rows = all_rows(store)

    with pytest.raises(ValueError, match=reason):
        store.journal.advance(intent_id, TARGET[event], NOW, event=event, **fields)
    assert all_rows(store) == rows


def books_of(store: Store) -> tuple[object, ...]:
    """Return turnover, loss and gas of the day, and the time of the last rebalance."""
    history = store.budgets.history(NOW)
    return history.budgets.turnover_24h, history.budgets.loss_24h, history.budgets.gas_24h_wei, history.reviews.last_rebalance_s


@pytest.mark.parametrize("event", [E.MINE, E.UNMINE])
def test_a_reorganisation_takes_what_was_booked_out_of_the_books(store: Store, event: IntentEvent) -> None:
    intent_id = add_in(store, S.FINAL)

    store.budgets.book_intent(current(store, intent_id), Fraction(3), Fraction(5), 7, NOW)

    assert books_of(store) == (3, 5, 7, NOW)
    assert movements(store) != ()
    store.journal.advance(intent_id, TARGET[event], NOW, event=event, **brings(event))
    assert books_of(store) == (0, 0, 0, None)
    assert movements(store) == ()
    assert [intent.id for intent in store.journal.unbooked_intents()] == ([intent_id] if event is E.MINE else [])


# docs/journal.md
def test_the_page_lists_every_line_of_the_table_with_its_guard() -> None:
    cells = [[cell.strip() for cell in text.strip("|").split("|")] for text in PAGE.read_text().splitlines() if text.startswith("|")]

    listed = [tuple(row) for row in cells if len(row) == 5 and row[0] in {state.value for state in S}]

    assert [row[:4] for row in listed] == [
        (row.state_before.value, row.event.value, row.state_after.value, row.condition) for row in TRANSITION_RULES
    ]
    assert all(row[4] for row in listed)


def test_the_drawing_is_the_table() -> None:
    (drawing,) = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", PAGE.read_text(), re.DOTALL)

    arrows = {(before, event, after) for before, after, event in re.findall(r"^ +(\w+) --> (\w+): (\w+)$", drawing, re.MULTILINE)}

    assert arrows == {(row.state_before.value, row.event.value, row.state_after.value) for row in TRANSITION_RULES}
    assert "[*] --> planned" in drawing


def test_names_of_states_have_one_order_in_every_process() -> None:
    """Statements that list them are then the same text, which a database compiles once."""
    assert OPEN_STATE_NAMES == ("broadcast", "mined", "planned", "signed")
    assert NONCE_USED_STATE_NAMES == ("final", "mined", "reverted")
    assert ENDED_IN_BLOCK_STATE_NAMES == ("final", "reverted")
