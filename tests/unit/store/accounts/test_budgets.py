"""Budgets over 24 hours of chain time, booked once per intent, and the movements ledger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from sqlalchemy import event, text

from agent.errors import OperatorNeeded
from agent.model import Intent, IntentKind, IntentState, NavPerShare, Reviews, TokenRefusal, Transfer
from agent.store import Store, open_store
from agent.store.accounts.budgets import MAX_REVIEWS, BudgetStore
from agent.units import NATIVE
from tests.support.constants import DAY_S
from tests.support.movements import Movement, movements
from tests.support.records.intents import ended_intent
from tests.support.stores import store_fixture
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, OTHER, START_S, WALLET, grant, tx

TOKEN_A = "0x" + "Aa" * 20
TOKEN_B = "0x" + "Bb" * 20
MINED = 1
REVERTED = 0
"""Statuses of a receipt."""
Mark = Callable[[BudgetStore, tuple[TokenRefusal, ...]], None]
SWAP = IntentKind.SWAP
APPROVE = IntentKind.APPROVE
CANCEL = IntentKind.CANCEL
PAYOUT = IntentKind.PAYOUT


store = store_fixture(begins_step=True)


def book(
    store: Store,
    intent: Intent,
    *,
    turnover: Fraction | int = 0,
    loss: Fraction | int = 0,
    gas_wei: int = 0,
    at_s: int = START_S,
    outflow: Fraction | int = 0,
) -> None:
    store.budgets.book_intent(intent, Fraction(turnover), Fraction(loss), gas_wei, at_s, Fraction(outflow))


def sums_of_a_day(store: Store, at_s: int = START_S) -> tuple[Fraction, Fraction, int]:
    """Turnover, loss and gas of the 24 hours before."""
    budgets = store.budgets.history(at_s).budgets
    return budgets.turnover_24h, budgets.loss_24h, budgets.gas_24h_wei


# --- Sums of a day.


def test_new_store_has_an_empty_history(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/new.db", CHAIN_ID, WALLET)

    history = store.budgets.history(START_S)
    store.close()

    budgets = history.budgets
    assert (budgets.turnover_24h, budgets.loss_24h, budgets.gas_24h_wei, budgets.outflow_24h, budgets.loss_total) == (0, 0, 0, 0, 0)
    assert history.failures.reverts_in_row == 0
    assert (history.reviews, history.started_s) == (Reviews(None, None), None)


@pytest.mark.parametrize(
    ("age_s", "sums"),
    [
        pytest.param(0, (10, 3, 5), id="now"),
        pytest.param(DAY_S - 1, (10, 3, 5), id="just within"),
        pytest.param(DAY_S, (0, 0, 0), id="a day old"),
        pytest.param(DAY_S + 1, (0, 0, 0), id="older"),
    ],
)
def test_entry_counts_for_24_hours_of_chain_time(store: Store, age_s: int, sums: tuple[int, int, int]) -> None:
    book(store, ended_intent(store, 0), turnover=10, loss=3, gas_wei=5)

    assert sums_of_a_day(store, START_S + age_s) == sums


@pytest.mark.parametrize(
    ("at_s", "frees_s"),
    [
        pytest.param(START_S, START_S + DAY_S, id="now"),
        pytest.param(START_S + DAY_S - 1, START_S + DAY_S, id="first just within"),
        pytest.param(START_S + DAY_S, START_S + 60 + DAY_S, id="first a day old"),
        pytest.param(START_S + 60 + DAY_S, None, id="both older"),
    ],
)
def test_turnover_frees_when_its_oldest_trade_is_a_day_old(store: Store, at_s: int, frees_s: int | None) -> None:
    """An approval turns nothing over."""
    for nonce, (turnover, booked_s) in enumerate(((0, START_S - 60), (10, START_S), (5, START_S + 60))):
        book(store, ended_intent(store, nonce), turnover=turnover, at_s=booked_s)

    assert store.budgets.history(at_s).budgets.turnover_frees_s == frees_s


def test_window_rolls_and_does_not_start_anew_at_midnight(store: Store) -> None:
    midnight_s = START_S - START_S % DAY_S + DAY_S

    for nonce, at_s in enumerate((midnight_s - 3600, midnight_s - 1, midnight_s + 1)):
        book(store, ended_intent(store, nonce), loss=10, at_s=at_s)

    assert store.budgets.history(midnight_s + 2).budgets.loss_24h == 30
    assert store.budgets.history(midnight_s - 3600 + DAY_S).budgets.loss_24h == 20


def test_clock_set_back_a_day_resets_no_budget(store: Store) -> None:
    book(store, ended_intent(store, 0), turnover=10, loss=3, gas_wei=5)

    assert sums_of_a_day(store, START_S - 2 * DAY_S) == (10, 3, 5)


def test_amounts_beyond_any_database_integer_are_exact(store: Store) -> None:
    intent = ended_intent(store, 0, transfers=(Transfer(TOKEN_A, OTHER, WALLET, 2**255 + 1),))

    book(store, intent, turnover=Fraction(2**300, 7), loss=Fraction(2**200, 3), gas_wei=2**100)

    assert sums_of_a_day(store) == (Fraction(2**300, 7), Fraction(2**200, 3), 2**100)
    assert {movement.delta_raw for movement in movements(store) if movement.token == TOKEN_A} == {2**255 + 1}


def test_trade_that_gained_makes_no_room_for_losses(store: Store) -> None:
    for nonce, loss in enumerate((-50, 20)):
        book(store, ended_intent(store, nonce), loss=loss)

    assert store.budgets.history(START_S).budgets.loss_24h == 20


def test_loss_since_the_start_forgets_nothing(store: Store) -> None:
    """Each loss is rounded up to the books' grain."""
    book(store, ended_intent(store, 0), loss=4)
    book(store, ended_intent(store, 1), loss=-9, at_s=START_S + 1)
    book(store, ended_intent(store, 2, status=REVERTED), loss=Fraction(1, 3), at_s=START_S + 40 * DAY_S)

    budgets = store.budgets.history(START_S + 100 * DAY_S).budgets

    assert budgets.loss_24h == 0
    assert Fraction(13, 3) <= budgets.loss_total < Fraction(13, 3) + Fraction(1, 10**12)


def test_payouts_of_a_day_add_up(store: Store) -> None:
    for nonce, outflow in enumerate((Fraction(5, 3), 0, 7)):
        book(store, ended_intent(store, nonce, kind=PAYOUT), at_s=START_S + nonce, outflow=outflow)

    assert store.budgets.history(START_S + 2).budgets.outflow_24h == Fraction(26, 3)
    assert store.budgets.history(START_S + DAY_S).budgets.outflow_24h == 7


@pytest.mark.parametrize(
    ("kind", "status", "non_trade_loss", "reverted_loss"),
    [
        pytest.param(SWAP, MINED, 0, 0, id="swap"),
        pytest.param(SWAP, REVERTED, 30, 30, id="reverted swap"),
        pytest.param(APPROVE, MINED, 30, 0, id="approval"),
        pytest.param(APPROVE, REVERTED, 30, 30, id="reverted approval"),
        pytest.param(CANCEL, MINED, 30, 0, id="cancel"),
        pytest.param(PAYOUT, MINED, 0, 0, id="payout"),
    ],
)
def test_wasted_gas_is_of_reverts_approvals_and_cancels(
    store: Store, kind: IntentKind, status: int, non_trade_loss: int, reverted_loss: int
) -> None:
    """It counts at the value at which it was booked; that of reverts since the start."""
    book(store, ended_intent(store, 0), loss=1, gas_wei=2)
    book(store, ended_intent(store, 1, kind=kind, status=status), loss=30, gas_wei=500)

    now, later = (store.budgets.history(at_s).budgets for at_s in (START_S, START_S + DAY_S))

    assert (now.gas_24h_wei, now.non_trade_loss_24h, now.reverted_loss_total) == (502, non_trade_loss, reverted_loss)
    assert (later.gas_24h_wei, later.non_trade_loss_24h, later.reverted_loss_total) == (0, 0, reverted_loss)


@pytest.mark.parametrize("is_final", [pytest.param(True, id="final"), pytest.param(False, id="mined")])
def test_reverted_swap_is_no_rebalance_and_its_gas_is_a_loss(store: Store, is_final: bool) -> None:
    book(store, ended_intent(store, 0, status=REVERTED, is_final=is_final), loss=4, gas_wei=11)

    history = store.budgets.history(START_S)

    assert history.reviews.last_rebalance_s is None
    assert (history.budgets.loss_24h, history.budgets.gas_24h_wei, history.budgets.reverted_loss_total) == (4, 11, 4)


@pytest.mark.parametrize("store_kind", ["memory"])
def test_cached_history_ends_with_its_first_day_old_entry(store: Store) -> None:
    """Asked in the order of a run, so that each answer may be the one before it."""
    for nonce, at_s in enumerate((START_S, START_S + 10)):
        book(store, ended_intent(store, nonce), gas_wei=1, at_s=at_s)

    asked_s = (START_S + 10, START_S + DAY_S - 1, START_S + DAY_S, START_S + DAY_S + 9, START_S + DAY_S + 10, START_S)

    assert [store.budgets.history(at_s).budgets.gas_24h_wei for at_s in asked_s] == [2, 2, 1, 1, 0, 2]


def test_later_loss_counts_approvals_and_no_futures(store: Store) -> None:
    """A stop of the whole wallet compares what the unit is worth without the agent's own costs."""
    assert store.orders.replace_orders((), NavPerShare(Fraction(1), START_S, (), ()), 0)

    for nonce, kind in enumerate((SWAP, SWAP, APPROVE, IntentKind.FUTURES)):
        book(store, ended_intent(store, nonce, kind=kind), loss=10**nonce, at_s=START_S + min(nonce, 1))

    nav = store.budgets.history(START_S + 3).orders.nav_per_share
    assert nav.later_loss == 10 + 100


# --- What is booked.


def test_booking_an_intent_twice_changes_nothing(store: Store) -> None:
    intent = ended_intent(store, 0, transfers=(Transfer(TOKEN_A, WALLET, OTHER, 5),))
    book(store, intent, turnover=10, loss=Fraction(1, 3), gas_wei=7)

    book(store, intent, turnover=99, loss=99, gas_wei=99, at_s=START_S + 5)

    history = store.budgets.history(START_S)
    assert sums_of_a_day(store) == (10, Fraction(1, 3), 7)
    assert Fraction(1, 3) <= history.budgets.loss_total < 1
    assert history.reviews.last_rebalance_s == START_S
    assert len(movements(store)) == 2


def test_reorganisation_takes_back_what_was_booked(store: Store) -> None:
    book(store, ended_intent(store, 0), loss=3)
    intent = ended_intent(store, 1, transfers=(Transfer(TOKEN_A, WALLET, OTHER, 5),), is_final=False)
    book(store, intent, turnover=10, loss=4, gas_wei=7, outflow=1)

    store.journal.advance(intent.id, IntentState.BROADCAST, START_S + 1)

    history = store.budgets.history(START_S)
    assert sums_of_a_day(store) == (0, 3, 0)
    assert (history.budgets.outflow_24h, history.budgets.loss_total) == (0, 3)
    assert {movement.block_number for movement in movements(store)} == {0}


def test_changed_receipt_is_not_booked(store: Store) -> None:
    """Another process has seen a reorganisation; the next cycle books the new receipt."""
    intent = ended_intent(store, 0)
    moved = replace(intent, receipt=replace(intent.receipt, block_number=intent.receipt.block_number + 1))

    book(store, moved, turnover=1, loss=2, gas_wei=3)

    assert store.budgets.history(START_S).budgets.gas_24h_wei == 0
    assert store.journal.unbooked_intents() == (intent,)


def test_what_is_mined_and_not_booked_is_listed_until_it_is(store: Store) -> None:
    first = ended_intent(store, 0)
    second = ended_intent(store, 1, status=REVERTED)
    listed = [store.journal.unbooked_intents()]

    for intent in (first, second):
        book(store, intent)
        listed.append(store.journal.unbooked_intents())

    assert listed == [(first, second), (second,), ()]


def test_movements_are_the_net_of_the_receipt_and_the_gas(store: Store) -> None:
    transfers = (
        Transfer(TOKEN_A, WALLET, OTHER, 100),
        Transfer(TOKEN_A, OTHER, WALLET, 30),
        Transfer(TOKEN_B, OTHER, WALLET, 7),
        Transfer(TOKEN_B, OTHER, TOKEN_A, 1000),
    )
    intent = ended_intent(store, 4, transfers=transfers)

    book(store, intent)

    assert set(movements(store)) == {
        Movement(TOKEN_A, -70, "swap", 4, START_S, intent.tx_hash),
        Movement(TOKEN_B, 7, "swap", 4, START_S, intent.tx_hash),
        Movement(NATIVE, -intent.receipt.gas_cost_wei, "gas", 4, START_S, intent.tx_hash),
    }


def test_token_that_came_back_has_no_movement(store: Store) -> None:
    transfers = (Transfer(TOKEN_A, WALLET, OTHER, 100), Transfer(TOKEN_A, OTHER, WALLET, 100))

    book(store, ended_intent(store, 0, transfers=transfers))

    assert [movement.token for movement in movements(store)] == [NATIVE]


# --- Failures in a row.


@pytest.mark.parametrize(
    ("ends", "reverts_in_row"),
    [
        pytest.param("s", 0, id="success"),
        pytest.param("r", 1, id="revert"),
        pytest.param("rr", 2, id="two reverts"),
        pytest.param("rsr", 1, id="success between"),
        pytest.param("rcr", 2, id="cancel between"),
        pytest.param("rs", 0, id="success at last"),
        pytest.param("araara", 2, id="approvals between"),
        pytest.param("arx", 2, id="reverted approval"),
    ],
)
def test_reverts_in_a_row_end_with_a_success(store: Store, ends: str, reverts_in_row: int) -> None:
    """Every try approves anew and takes back what is left over; the swaps are what matters (T6)."""
    kind_and_status_by_letter = {
        "s": (SWAP, MINED),
        "r": (SWAP, REVERTED),
        "a": (APPROVE, MINED),
        "x": (APPROVE, REVERTED),
        "c": (CANCEL, MINED),
    }

    for nonce, letter in enumerate(ends):
        kind, status = kind_and_status_by_letter[letter]
        ended_intent(store, nonce, kind=kind, status=status)

    assert store.budgets.history(START_S).failures.reverts_in_row == reverts_in_row


@pytest.mark.parametrize("store_kind", ["file"])
def test_reverts_in_a_row_are_counted_from_few_rows(store: Store) -> None:
    """Eighty trades that succeeded, then one that did not: only a few of the newest are read, whatever lies before them."""
    for nonce in range(80):
        ended_intent(store, nonce)
    ended_intent(store, 80, status=REVERTED)
    rows: list[object] = []

    def counted(_cursor: object, row: tuple[object, ...]) -> tuple[object, ...]:
        rows.append(row)
        return row

    if store.db.engine.dialect.name == "sqlite":
        event.listen(store.db.engine, "checkout", lambda raw, *_: setattr(raw, "row_factory", counted))
    else:
        event.listen(store.db.engine, "after_cursor_execute", lambda _db, cursor, *_: rows.extend([None] * cursor.rowcount))

    assert store.budgets.history(START_S).failures.reverts_in_row == 1
    assert 0 < len(rows) < 40


@pytest.mark.parametrize(("reverts", "is_stopped"), [(2, False), (3, True)])
def test_third_revert_in_a_row_stops_until_resumed(store: Store, reverts: int, is_stopped: bool) -> None:
    for nonce in range(reverts):
        book(store, ended_intent(store, nonce, status=REVERTED))
    before = store.budgets.history(START_S).failures

    store.pause_switch.resume("seen", START_S)

    resumed = store.budgets.history(START_S).failures
    assert before.is_stopped is is_stopped
    assert (resumed.is_stopped, resumed.reverts_in_row) == (False, 0)


def test_revert_after_a_resume_is_the_first_in_a_row(store: Store) -> None:
    book(store, ended_intent(store, 0, status=REVERTED))
    store.pause_switch.resume("seen", START_S)

    book(store, ended_intent(store, 1, status=REVERTED))

    assert store.budgets.history(START_S).failures.reverts_in_row == 1


@pytest.mark.parametrize(
    ("token", "earlier_mark", "later_mark", "approval_cycles"),
    [
        pytest.param(TOKEN_A, None, None, 1, id="not refused"),
        pytest.param(TOKEN_A, BudgetStore.mark_submission_refusals, None, 1, id="approved again since"),
        pytest.param(TOKEN_A, None, BudgetStore.mark_submission_refusals, 0, id="refused at submission"),
        pytest.param(TOKEN_A, None, BudgetStore.mark_ignored_approvals, 0, id="ignored"),
        pytest.param(TOKEN_A, BudgetStore.mark_submission_refusals, BudgetStore.mark_ignored_approvals, 0, id="refused and ignored"),
        pytest.param(TOKEN_A, BudgetStore.mark_ignored_approvals, BudgetStore.mark_submission_refusals, 0, id="ignored and refused"),
        pytest.param(TOKEN_B, None, BudgetStore.mark_submission_refusals, 1, id="another token refused"),
    ],
)
def test_approvals_up_to_a_refusal_of_their_token_do_not_count(
    store: Store, token: str, earlier_mark: Mark | None, later_mark: Mark | None, approval_cycles: int
) -> None:
    refusals = (TokenRefusal(token, START_S, 1, "refused"),)

    for nonce, mark in enumerate((earlier_mark, later_mark)):
        ended_intent(store, nonce, kind=APPROVE, to=TOKEN_A)
        if mark is not None:
            mark(store.budgets, refusals)

    assert store.budgets.history(START_S).failures.approval_cycles_in_row == approval_cycles


# --- Reviews.


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        pytest.param(APPROVE, MINED, id="approval"),
        pytest.param(CANCEL, MINED, id="cancel"),
        pytest.param(PAYOUT, MINED, id="payout"),
        pytest.param(IntentKind.UNWRAP, MINED, id="unwrap"),
        pytest.param(SWAP, REVERTED, id="reverted swap"),
    ],
)
def test_last_rebalance_is_that_of_a_swap_alone(store: Store, kind: IntentKind, status: int) -> None:
    book(store, ended_intent(store, 0))

    book(store, ended_intent(store, 1, kind=kind, status=status), at_s=START_S + 5)

    assert store.budgets.history(START_S + 9).reviews.last_rebalance_s == START_S


def test_last_rebalance_is_the_newest_in_any_order(store: Store) -> None:
    for nonce, at_s in enumerate((START_S + 5, START_S + 9, START_S + 7)):
        book(store, ended_intent(store, nonce), at_s=at_s)

    assert store.budgets.history(START_S + 9).reviews.last_rebalance_s == START_S + 9


def test_newest_review_is_remembered(store: Store) -> None:
    store.budgets.mark_review(START_S)

    store.budgets.mark_review(START_S + 9)

    assert store.budgets.history(START_S).reviews.last_review_s == START_S + 9


def test_reviews_by_schedule_outlive_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/trimtab.db"
    for at_s, names in (
        (START_S, ("review every 86400", "execution every 604800")),
        (START_S + 5, ("review every 86400",)),
        (START_S + 7, ()),
    ):
        store = open_store(url, CHAIN_ID, WALLET)
        store.budgets.mark_review(at_s, 250_000, names)
        store.close()
    store = open_store(url, CHAIN_ID, WALLET)

    reviews = store.budgets.history(START_S + 9).reviews
    store.close()

    assert reviews.by_schedule == (("execution every 604800", START_S), ("review every 86400", START_S + 5))
    assert (reviews.last_review_s, reviews.delay_ppm) == (START_S + 7, 250_000)


@pytest.mark.parametrize("store_kind", ["memory"])
def test_oldest_reviews_by_schedule_are_dropped(store: Store) -> None:
    for number in range(MAX_REVIEWS + 3):
        store.budgets.mark_review(START_S + number, 0, (f"review every {1_800 + number}",))

    reviews = store.budgets.history(START_S + 99).reviews

    assert reviews.by_schedule == tuple((f"review every {1_800 + number}", START_S + number) for number in range(3, MAX_REVIEWS + 3))


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param("{", id="no json"),
        pytest.param("7", id="no list"),
        pytest.param('[["review every 86400"]]', id="no time"),
        pytest.param('[["review every 86400", "soon"]]', id="no number"),
    ],
)
def test_damaged_reviews_need_the_operator(tmp_path: Path, damaged: str) -> None:
    store = open_store(f"sqlite:///{tmp_path}/trimtab.db", CHAIN_ID, WALLET)
    store.budgets.mark_review(START_S, 0, ("review every 86400",))
    with store.db.write("damage") as db:
        db.execute(text("UPDATE meta SET value = :value WHERE key = 'reviews'"), {"value": damaged})

    with raises_code(OperatorNeeded, "damaged", "reviews"):
        store.budgets.history(START_S)

    store.close()


# --- Marks.


@pytest.mark.parametrize(
    ("age_s", "tip_wei"),
    [(0, 7), (DAY_S - 1, 7), (DAY_S, 0)],
)
def test_demanded_tip_is_forgotten_after_a_day(store: Store, age_s: int, tip_wei: int) -> None:
    store.budgets.mark_demanded_tip(7, START_S)

    assert store.budgets.history(START_S + age_s).demanded_tip_wei == tip_wei
    assert store.budgets.demanded_tip_wei(START_S + age_s) == tip_wei


@pytest.mark.parametrize("store_kind", ["memory"])
def test_cached_history_ends_with_the_demanded_tip(store: Store) -> None:
    book(store, ended_intent(store, 0), at_s=START_S + 10)
    store.budgets.mark_demanded_tip(7, START_S)

    times_s = [START_S + 10, START_S + DAY_S - 1, START_S + DAY_S]

    assert [store.budgets.history(at_s).demanded_tip_wei for at_s in times_s] == [7, 7, 0]


def test_depegged_tokens_are_kept_until_replaced(store: Store) -> None:
    store.budgets.mark_depegged((TOKEN_A, TOKEN_B))
    before = store.budgets.history(START_S).depegged_tokens

    store.budgets.mark_depegged(())

    assert before == (TOKEN_A, TOKEN_B)
    assert store.budgets.history(START_S).depegged_tokens == ()


def test_unreadable_balances_are_kept_until_replaced(store: Store) -> None:
    store.budgets.mark_unreadable(((TOKEN_A, START_S), (TOKEN_B, START_S + 7)))
    before = store.budgets.history(START_S).unread_since_s_by_token

    store.budgets.mark_unreadable(((TOKEN_B, START_S + 7),))

    assert before == ((TOKEN_A, START_S), (TOKEN_B, START_S + 7))
    assert store.budgets.history(START_S).unread_since_s_by_token == ((TOKEN_B, START_S + 7),)


# --- The nonce that the chain has reached.


def test_expected_nonce_follows_what_the_chain_used_up(store: Store) -> None:
    store.journal.adopt_nonce(3, START_S)
    adopted = store.journal.expected_nonce()
    ended_intent(store, 3)
    ended_intent(store, 4, status=REVERTED)

    dropped = store.journal.add_intent("s", tx(5), grant(), "swap", START_S, None)
    store.journal.advance(dropped.id, IntentState.CANCELLED, START_S)

    assert (adopted, store.journal.expected_nonce()) == (3, 5)


def test_new_store_expects_no_nonce(store: Store) -> None:
    assert store.journal.expected_nonce() is None


@pytest.mark.parametrize("adopted", [2, 11])
def test_adopted_nonce_outweighs_what_came_before(store: Store, adopted: int) -> None:
    store.journal.adopt_nonce(8, START_S)
    ended_intent(store, 8)

    store.journal.adopt_nonce(adopted, START_S)

    assert store.journal.expected_nonce() == adopted
