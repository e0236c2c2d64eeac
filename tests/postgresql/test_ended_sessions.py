"""Sessions that an operator or a fail-over ends before each statement of what is written: it is there once, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count

import pytest
from sqlalchemy import event

from agent.errors import PassingFault
from agent.model import Control, ControlKind, ControlOrigin, ControlState, IntentState
from agent.store import Store
from agent.store.controls import ControlStateChange
from tests.support.postgresql import Opener, Server
from tests.support.transactions import START_S, grant, receipt, tx

TX_HASH = "0x" + "ab" * 32
BLOCK_HASH = "0x" + "cd" * 32
CONTROL_ID = "c0"


def advance(state: IntentState, **facts: object) -> Callable[[Store], object]:
    """Return the write that brings the only transaction to a state."""
    return lambda store: store.journal.advance(store.journal.intents()[0].id, state, START_S, **facts)


def add_intent(store: Store) -> None:
    store.journal.add_intent("s", tx(7), grant(), "i", START_S, None)


def queue_control(store: Store) -> None:
    store.controls.queue(Control(CONTROL_ID, ControlKind.RESUME, (), "", "owner", ControlOrigin.API, START_S, START_S + 300))


def take_control(store: Store) -> None:
    assert store.controls.take(store.controls.queued_controls()[0].number, START_S)


def finish_control(store: Store) -> None:
    number = store.controls.taken_controls()[0].number
    store.controls.finish([ControlStateChange(number, ControlState.DONE)], START_S)


WRITES: Mapping[str, Callable[[Store], object]] = {
    "begin": lambda store: store.steps.begin("s", START_S, "{}"),
    "intent": add_intent,
    "signed": advance(IntentState.SIGNED, tx_hash=TX_HASH),
    "sent": advance(IntentState.BROADCAST),
    "mined": advance(IntentState.MINED, receipt=receipt(TX_HASH, 5, BLOCK_HASH)),
    "final": advance(IntentState.FINAL),
    "end": lambda store: store.steps.end("s", "done", "swapped", None, "rebalance"),
    "queued control": queue_control,
    "taken control": take_control,
    "finished control": finish_control,
    "pause": lambda store: store.pause_switch.pause("lunch", START_S),
    "resume": lambda store: store.pause_switch.resume("back", START_S + 1),
}
"""What is written from the beginning of a step to its end, and what an owner writes beside it; in this order."""


def facts_of(store: Store) -> str:
    """What the store says of all these."""
    journal = store.journal
    intents = journal.intents()
    facts = (
        [(step.id, step.outcome) for step in store.steps.newest(9)],
        [(intent.state, [change.new_state for change in journal.transitions(intent.id)]) for intent in intents],
        [(control_event.control_id, control_event.state) for control_event in store.controls.events()],
        store.pause_switch.read(),
    )
    return repr(facts)


@contextmanager
def sessions_ended_before(store: Store, number: int, server: Server) -> Iterator[list[int]]:
    """End all sessions once, before the statement of that number inside; yield a list with the number once they were."""
    numbers = count()
    strikes: list[int] = []

    def check(*_: object) -> None:
        if next(numbers) == number:
            strikes.append(number)
            server.end_sessions()

    event.listen(store.db.engine, "before_cursor_execute", check)
    yield strikes
    event.remove(store.db.engine, "before_cursor_execute", check)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITES)
def test_statement__its_session_is_ended__is_repeated_or_passes(opened: Opener, server: Server, name: str) -> None:
    write = WRITES[name]
    earlier_writes = list(WRITES.values())[: list(WRITES).index(name)]
    facts_after: set[str] = set()
    for number in count():
        store = opened(f"0x{number + 1:040x}")
        for earlier_write in earlier_writes:
            earlier_write(store)
        facts_before = facts_of(store)
        with sessions_ended_before(store, number, server) as strikes:
            has_passed = writes_once(store, write)
        if not has_passed and facts_of(store) == facts_before:
            write(store)
        facts_after.add(facts_of(store))
        assert len(facts_after) == 1, f"before statement {number}"
        assert facts_before not in facts_after
        if not strikes:
            break
    assert has_passed
    assert number >= 3, "a write begins for its wallet, leaves a mark, and writes"


def writes_once(store: Store, write: Callable[[Store], object]) -> bool:
    """Write; return False after a fault that passes."""
    try:
        write(store)
    except PassingFault:
        return False
    return True
