"""Limit orders that a cycle closes: those that are filled or have expired, for good, by chain time, and only if it can send."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from agent import codec
from agent.app import cycles
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import ExecutionState, LimitOrder, StepInput
from agent.store import Store
from agent.store.executions import ORDER, add_execution
from tests.support import builders
from tests.support.stores import store_fixture
from tests.support.transactions import OTHER, START_S, WALLET, grant, receipt, record_sent, tx

NOW_S = builders.NOW_S
HASH = f"0x{1:064x}"
DEADLINE_S = builders.step_input().execution.deadline_s


store = store_fixture("memory")


def add_order(store: Store, until_s: int) -> str:
    return store.executions.add_limit_order(LimitOrder("", WALLET, OTHER, 5, Fraction(2), until_s, NOW_S)).id


def fill(store: Store, order_id: str) -> None:
    store.steps.begin("s", START_S, "{}")
    store.executions.begin_attempt(order_id, 0, "s", NOW_S)
    swap = store.journal.add_intent("s", tx(0), grant(), "swap", START_S, None)
    record_sent(store.journal, swap, HASH, receipt=receipt(HASH, 5, "0x05"))


def later(step: StepInput, seconds: int) -> StepInput:
    head = replace(step.snapshot.head, timestamp_s=step.snapshot.head.timestamp_s + seconds)
    return replace(step, snapshot=replace(step.snapshot, head=head))


def run_cycle(store: Store, monkeypatch: pytest.MonkeyPatch, *, sends: bool, lasts_s: int = 0) -> None:
    step = builders.step_input()
    result: Any = SimpleNamespace()
    outcome = StepOutcome("s", OutcomeKind.HOLD, "", step, result, None, input_after=later(step, lasts_s) if lasts_s else None)
    monkeypatch.setattr(cycles.engine, "run_cycle", lambda *_: outcome)
    transactor: Any = "transactor" if sends else None
    context: Any = SimpleNamespace(store=store, readers=None)
    cycles.run_policy_cycle(context, transactor)


def states(store: Store) -> list[ExecutionState]:
    return [order.state for order in store.executions.limit_orders()]


@pytest.mark.parametrize(
    ("sends", "lasts_s", "state", "why"),
    [
        pytest.param(True, 500 - DEADLINE_S, ExecutionState.OPEN, "", id="a transaction sent now is in time"),
        pytest.param(True, 501 - DEADLINE_S, ExecutionState.EXPIRED, "expires", id="a second too late"),
        pytest.param(True, 499, ExecutionState.EXPIRED, "expires", id="the second before its end"),
        pytest.param(True, 500, ExecutionState.EXPIRED, "expired", id="its end, during the trades"),
        pytest.param(False, 500, ExecutionState.OPEN, "", id="a dry run writes nothing"),
    ],
)
def test_order__expires_by_chain_time_after_the_trades(
    store: Store, monkeypatch: pytest.MonkeyPatch, sends: bool, lasts_s: int, state: ExecutionState, why: str
) -> None:
    add_order(store, NOW_S + 500)
    run_cycle(store, monkeypatch, sends=sends, lasts_s=lasts_s)
    (order,) = store.executions.limit_orders()
    assert (order.state, order.why.partition(" ")[0]) == (state, why)


def test_order__filled__is_ended_as_filled_and_not_filled_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, add_order(store, NOW_S + 10))
    other_id = add_order(store, NOW_S + 10_000)
    run_cycle(store, monkeypatch, sends=True)
    assert states(store) == [ExecutionState.FILLED, ExecutionState.OPEN]
    assert store.executions.open_execution_ids() == (other_id,)
    with store.db.read("read the executions") as db:
        stored_states = db.exec_driver_sql("SELECT state FROM executions ORDER BY seq").scalars().all()
    assert stored_states == [ExecutionState.FILLED.value, ExecutionState.OPEN.value], "also if a reorg removes the swap"


def test_order__expires_however_many_came_after_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are listed: an open order is looked at until it ends."""
    add_order(store, NOW_S + 500)
    with store.db.write("record many orders") as db:
        terms_json = codec.dumps(LimitOrder("", WALLET, OTHER, 5, Fraction(2), NOW_S, NOW_S))
        for number in range(1_000):
            add_execution(db, ORDER, NOW_S + number, terms_json)
        db.exec_driver_sql("UPDATE executions SET state = 'ended' WHERE seq > 1")
    run_cycle(store, monkeypatch, sends=True, lasts_s=500)
    assert store.executions.open_execution_ids() == ()
