"""Tests of agent/store/controls.py: the queue, shown plans, what the phone has handled and which code is open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.errors import Refused
from agent.model import Control, ControlKind, ControlOrigin, ControlState, ShownPlan
from agent.store import Store
from agent.store.controls import (
    MAX_CODES,
    MAX_QUEUED,
    MAX_SHOWN_PLANS,
    MAX_TRIES,
    MAX_UPDATE_GAP_S,
    OPEN_CODES_KEY,
    ControlStateChange,
    PhoneCode,
)
from agent.store.database.facts import write_facts
from tests.support.stores import store_fixture
from tests.support.text import raises_code
from tests.support.transactions import START_S

PLAN = ShownPlan(ControlKind.REBALANCE, (), (), (), START_S, "{}")


store = store_fixture("memory")


def control(number: int, kind: ControlKind = ControlKind.RESUME, asked_s: int = START_S, plan_hash: str = "") -> Control:
    return Control(f"{number:032x}", kind, (), plan_hash, "owner", ControlOrigin.API, asked_s, asked_s + 300)


def code(chat: int, digest: str = "right") -> PhoneCode:
    return PhoneCode(chat, digest, "rebalance", "", START_S + 100)


def test_a_pause_is_later_than_the_controls_before_it_alone(store: Store) -> None:
    before = store.controls.queue(control(1))
    pause = store.controls.record_done(control(2, ControlKind.PAUSE))

    after = store.controls.queue(control(3))

    assert [store.controls.pause_requested_after(number) for number in (before, pause, after)] == [True, False, False]


def test_control_done_at_once_is_logged_and_not_queued(store: Store) -> None:
    store.controls.record_done(control(1, ControlKind.PAUSE))

    assert not store.controls.has_queued()
    assert [event.state for event in store.controls.events()] == ["done"]


@pytest.mark.parametrize(
    "asked_s",
    [START_S, START_S + 1, START_S - 2, START_S - 3_600],
    ids=["in that second", "later", "by a clock two seconds behind", "by a clock set back an hour"],
)
def test_plan_takes_one_control_since_it_was_shown(store: Store, asked_s: int) -> None:
    store.controls.record_shown(PLAN)
    store.controls.queue(control(1, ControlKind.REBALANCE, asked_s, PLAN.hash))

    with raises_code(Refused, "plan_used"):
        store.controls.queue(control(2, ControlKind.REBALANCE, asked_s, PLAN.hash))


@pytest.mark.parametrize("asked_s", [START_S - 1, START_S, START_S + 3_600], ids=["before", "in that second", "by a clock an hour ahead"])
def test_plan_takes_a_control_after_those_before_it_was_shown(store: Store, asked_s: int) -> None:
    store.controls.record_shown(PLAN)
    store.controls.queue(control(1, ControlKind.REBALANCE, asked_s, PLAN.hash))

    store.controls.record_shown(replace(PLAN, after_control=store.controls.newest_number()))

    assert store.controls.queue(control(2, ControlKind.REBALANCE, START_S + 2, PLAN.hash)) == 2


def end_control(store: Store, state: ControlState) -> None:
    """Queue a control of PLAN and end it in this state."""
    store.controls.record_shown(PLAN)
    number = store.controls.queue(control(1, ControlKind.REBALANCE, START_S, PLAN.hash))
    store.controls.finish([ControlStateChange(number, state)], START_S + 1)


@pytest.mark.parametrize("state", [ControlState.REFUSED, ControlState.EXPIRED])
def test_plan_is_free_again_after_a_refused_or_expired_control(store: Store, state: ControlState) -> None:
    end_control(store, state)

    assert store.controls.queue(control(2, ControlKind.REBALANCE, START_S + 2, PLAN.hash)) == 2


@pytest.mark.parametrize("state", [ControlState.DONE, ControlState.FAILED])
def test_plan_is_used_up_by_a_control_that_acted(store: Store, state: ControlState) -> None:
    end_control(store, state)

    with raises_code(Refused, "plan_used"):
        store.controls.queue(control(2, ControlKind.REBALANCE, START_S + 2, PLAN.hash))


def test_a_plan_that_waits_is_confirmed_by_whoever_confirms_it(store: Store) -> None:
    """The offer ends with its first confirmation, which is checked where it is carried out."""
    store.controls.store_offer(PLAN)
    for number in (1, 2):
        assert store.controls.queue(control(number, ControlKind.CONFIRM, START_S, PLAN.hash))


def test_offered_plan_waits_until_the_next_offer(store: Store) -> None:
    store.controls.store_offer(PLAN)

    store.controls.record_shown(replace(PLAN, shown_at_s=START_S + 5))

    assert store.controls.offered_plan() == replace(PLAN, shown_at_s=START_S + 5)
    other = replace(PLAN, shown_json='{"a": 1}')
    store.controls.store_offer(other)
    assert (store.controls.offered_plan(), store.controls.shown_plan(PLAN.hash)) == (other, None)
    store.controls.end_offer()
    assert store.controls.offered_plan() is None


def test_an_end_is_written_to_the_controls_that_it_names_alone(store: Store) -> None:
    first = store.controls.queue(control(1))
    second = store.controls.queue(control(2))
    assert store.controls.take(first, START_S + 1)

    store.controls.finish([ControlStateChange(first, ControlState.FAILED, "code", "why", (("a", "b"),))], START_S + 2)

    newest, oldest = store.controls.newest()
    assert (newest.sequence_number, newest.state, newest.changed_s) == (second, ControlState.QUEUED, START_S)
    assert (oldest.state, oldest.code, oldest.reason, oldest.result_pairs) == (ControlState.FAILED, "code", "why", (("a", "b"),))
    assert not store.controls.take(first, START_S + 3)
    assert not store.controls.take(99, START_S + 3)


def test_finished_control_keeps_its_state(store: Store) -> None:
    number = store.controls.queue(control(1))
    store.controls.finish([ControlStateChange(number, ControlState.DONE)], START_S + 1)

    store.controls.finish([ControlStateChange(number, ControlState.FAILED)], START_S + 2)

    assert [record.state for record in store.controls.newest()] == [ControlState.DONE]
    assert [event.state for event in store.controls.events()] == ["queued", "done"]


def test_control_is_taken_once(store: Store) -> None:
    first = store.controls.queue(control(1))
    second = store.controls.queue(control(2))

    assert [store.controls.take(first, START_S), store.controls.take(first, START_S)] == [True, False]
    assert [queued.number for queued in store.controls.queued_controls()] == [second]
    assert [taken.number for taken in store.controls.taken_controls()] == [first]


def test_queue_holds_so_many_controls(store: Store) -> None:
    for number in range(MAX_QUEUED - 1):
        store.controls.queue(control(number))
    last = store.controls.queue(control(MAX_QUEUED))

    with raises_code(Refused, "queue_full", str(MAX_QUEUED)):
        store.controls.queue(control(MAX_QUEUED + 1))

    assert len(store.controls.queued_controls()) == MAX_QUEUED
    store.controls.finish([ControlStateChange(last, ControlState.DONE)], START_S)
    assert store.controls.queue(control(MAX_QUEUED + 2)) > last


# --- Shown plans


def shown_at(second: int) -> ShownPlan:
    return replace(PLAN, shown_json=f'{{"n": {second}}}', shown_at_s=START_S + second)


def test_newest_shown_plans_are_kept_beside_the_offer(store: Store) -> None:
    offer = shown_at(-1)
    store.controls.store_offer(offer)
    for second in range(MAX_SHOWN_PLANS):
        store.controls.record_shown(shown_at(second))
    assert store.controls.shown_plan(shown_at(0).hash) is not None

    store.controls.record_shown(shown_at(MAX_SHOWN_PLANS))

    assert store.controls.shown_plan(shown_at(0).hash) is None, "the oldest"
    assert store.controls.shown_plan(shown_at(1).hash) is not None
    assert store.controls.offered_plan() == offer


def test_altered_plan_is_not_shown(store: Store) -> None:
    store.controls.record_shown(PLAN)
    with store.db.write("alter") as db:
        db.exec_driver_sql("UPDATE shown_plans SET plan_json = replace(plan_json, 'rebalance', 'stop')")

    assert store.controls.shown_plan(PLAN.hash) is None


# --- The phone.


def test_an_update_of_the_phone_is_taken_once_and_none_before_it(store: Store) -> None:
    assert [store.telegram_bot.mark_update_handled(number, START_S) for number in (7, 7, 6, 8)] == [True, False, False, True]
    assert store.telegram_bot.last_update_number(START_S) == 8


@pytest.mark.parametrize(
    ("off_s", "is_known"),
    [(MAX_UPDATE_GAP_S, True), (-MAX_UPDATE_GAP_S, True), (MAX_UPDATE_GAP_S + 1, False), (-MAX_UPDATE_GAP_S - 1, False)],
)
def test_update_numbers_begin_anew_after_a_quiet_week(store: Store, off_s: int, is_known: bool) -> None:
    store.telegram_bot.mark_update_handled(7, START_S)

    assert store.telegram_bot.last_update_number(START_S + off_s) == (7 if is_known else 0)
    assert store.telegram_bot.mark_update_handled(3, START_S + off_s) is not is_known


def test_a_line_and_an_offer_are_reported_once(store: Store) -> None:
    assert [store.telegram_bot.mark_line_reported(number) for number in (2, 2, 1, 3)] == [True, False, False, True]
    assert store.telegram_bot.last_reported_number() == 3
    assert [store.telegram_bot.mark_offer_reported(plan_hash) for plan_hash in ("a", "a", "b", "a")] == [True, False, True, True]


@pytest.mark.parametrize(
    ("wrong", "answer"),
    [
        pytest.param(MAX_TRIES - 1, "right", id="one wrong answer fewer"),
        pytest.param(MAX_TRIES, None, id="the last wrong answer"),
    ],
)
def test_an_open_code_survives_all_wrong_answers_but_the_last(store: Store, wrong: int, answer: str | None) -> None:
    store.telegram_bot.store_code(code(1), START_S)
    for _ in range(wrong):
        assert store.telegram_bot.use_code(1, "wrong", START_S) is None
    used = store.telegram_bot.use_code(1, "right", START_S)
    assert (used.digest if used else None) == answer


def test_code_of_a_chat_leaves_those_of_others_open(store: Store) -> None:
    for chat in (1, 2, 3):
        store.telegram_bot.store_code(code(chat), START_S)

    assert store.telegram_bot.use_code(1, "right", START_S) == code(1)
    assert store.telegram_bot.use_code(2, "wrong", START_S) is None
    assert store.telegram_bot.use_code(2, "right", START_S) == replace(code(2), tries=1)
    assert store.telegram_bot.use_code(3, "right", START_S) == code(3)


@pytest.mark.parametrize(("after_s", "is_valid"), [(99, True), (100, False)])
def test_a_code_is_valid_before_it_expires(store: Store, after_s: int, is_valid: bool) -> None:
    store.telegram_bot.store_code(code(1), START_S)

    assert (store.telegram_bot.use_code(1, "right", START_S + after_s) is not None) is is_valid


def test_only_the_newest_codes_are_kept(store: Store) -> None:
    for chat in range(MAX_CODES + 1):
        store.telegram_bot.store_code(code(chat), START_S)

    answers = [store.telegram_bot.use_code(chat, "right", START_S) is not None for chat in range(MAX_CODES + 1)]

    assert answers == [False] + [True] * MAX_CODES


def test_code_works_once(store: Store) -> None:
    store.telegram_bot.store_code(code(1), START_S)

    assert store.telegram_bot.use_code(1, "right", START_S) == code(1)
    assert store.telegram_bot.use_code(1, "right", START_S) is None


@pytest.mark.parametrize("codes_json", ["{", "7", '[{"chat": 1}]'], ids=["cut", "no list", "no code"])
def test_damaged_codes_do_not_work_and_are_replaced(store: Store, codes_json: str) -> None:
    with store.db.write("damage") as db:
        write_facts(db, {OPEN_CODES_KEY: codes_json})
    assert store.telegram_bot.use_code(1, "right", START_S) is None

    store.telegram_bot.store_code(code(1), START_S)

    assert store.telegram_bot.use_code(1, "right", START_S) == code(1)
