"""Budgets over 24 hours of chain time, booked once per intent, and the movements ledger."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from sqlalchemy import event, text

from agent.errors import OperatorNeeded
from agent.layers.futures.state import FuturesState
from agent.layers.futures.store import reduced_market
from agent.model import IntentKind, IntentState, NavPerShare, Transfer
from agent.model.futures import UNREAD_ACCOUNT, FuturesGrant, Hedge, MarginDeposit, OrderCancel, PerpOrder, PerpOrderKind, StopOrder
from agent.store import Store, open_store
from agent.store.accounts.budgets import MAX_REVIEWS
from agent.units import NATIVE
from tests.support.movements import Movement, movements
from tests.support.records.intents import ended_intent
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, OTHER, START_S, WALLET, grant, new_store, receipt, tx

DAY_S = 86_400
TOKEN_A, TOKEN_B = "0x" + "Aa" * 20, "0x" + "Bb" * 20


@pytest.fixture
def store(store_kind: str, tmp_path: Path):
    store = new_store(store_kind, tmp_path)
    store.steps.begin("s", START_S, "{}")
    yield store
    store.close()


def test_demanded_tip_is_forgotten_after_a_day(store: Store) -> None:
    store.budgets.mark_demanded_tip(7, START_S)

    times_s = [START_S, START_S + DAY_S - 1, START_S + DAY_S]

    assert [store.budgets.history(at_s).demanded_tip_wei for at_s in times_s] == [7, 7, 0]


def end_futures_order(store: Store, nonce: int, granted: FuturesGrant, status: int = 1, turnover: int = 0) -> None:
    tx_hash = f"0x{nonce:064x}"
    granted_whole = replace(grant(IntentKind.FUTURES), layer_grant=granted)
    intent = store.journal.add_intent("s", IntentKind.FUTURES, tx(nonce), granted_whole, "order", START_S, None)
    store.journal.advance(intent.id, IntentState.SIGNED, START_S, tx_hash=tx_hash)
    store.journal.advance(intent.id, IntentState.BROADCAST, START_S)
    store.journal.advance(intent.id, IntentState.MINED, START_S, receipt=receipt(tx_hash, nonce, f"0x{nonce:02x}", status))
    intent = store.journal.advance(intent.id, IntentState.FINAL if status else IntentState.REVERTED, START_S)
    store.budgets.book_intent(intent, Fraction(turnover), Fraction(0), 0, START_S + nonce)


def test_later_loss_counts_approvals_and_no_futures(store: Store) -> None:
    """A stop of the whole wallet compares what the unit is worth without the agent's own costs."""
    assert store.orders.replace_orders((), NavPerShare(Fraction(1), START_S, (), ()), 0)
    for nonce, (kind, at_s) in enumerate(
        ((IntentKind.SWAP, START_S), (IntentKind.SWAP, START_S + 1), (IntentKind.APPROVE, START_S + 2), (IntentKind.FUTURES, START_S + 3))
    ):
        store.budgets.book_intent(ended_intent(store, nonce, kind=kind), Fraction(0), Fraction(10**nonce), 0, at_s)
    nav = store.budgets.history(START_S + 3).orders.nav_per_share
    assert nav is not None
    assert nav.later_loss == 10 + 100


def test_resting_orders_change_no_hedge_and_are_no_failures(store: Store) -> None:
    hedge = Hedge("ETH", TOKEN_A, -5, START_S, Fraction(1))
    short = PerpOrder("ETH", -5, PerpOrderKind.MARKET, 1, is_reduce_only=False)
    end_futures_order(store, 1, FuturesGrant(short, UNREAD_ACCOUNT, hedges=(hedge,)))
    rests = PerpOrder("BTC", 5, PerpOrderKind.LIMIT, 1, is_reduce_only=False)
    for nonce, action in enumerate((rests, StopOrder("BTC", -5, 1, 1), OrderCancel("BTC", "0x01")), start=2):
        end_futures_order(store, nonce, FuturesGrant(action, UNREAD_ACCOUNT), status=int(action is not rests))

    history = store.budgets.history(START_S + 10)

    assert history.layer(FuturesState).hedges == (hedge,)
    assert history.failures.reverts_in_row == 0


@pytest.mark.parametrize(
    ("action", "market"),
    [
        (PerpOrder("ETH", -1, PerpOrderKind.MARKET, 1, True), "ETH"),
        (PerpOrder("ETH", 1, PerpOrderKind.MARKET, 1, False), ""),
        (MarginDeposit(1), ""),
    ],
    ids=["reduction", "opening", "deposit"],
)
def test_reduced_market__is_that_of_a_reduction(action: PerpOrder | MarginDeposit, market: str) -> None:
    assert reduced_market(replace(grant(IntentKind.FUTURES), layer_grant=FuturesGrant(action, UNREAD_ACCOUNT))) == market


@pytest.mark.parametrize(("is_emergency", "at_s"), [(True, START_S + 1), (False, None)])
def test_last_emergency__is_no_other_reduction(store: Store, is_emergency: bool, at_s: int | None) -> None:
    order = PerpOrder("ETH", -1, PerpOrderKind.MARKET, 1, is_reduce_only=True)

    end_futures_order(store, 1, FuturesGrant(order, UNREAD_ACCOUNT, is_emergency=is_emergency))

    assert store.budgets.history(START_S + 9).layer(FuturesState).last_emergency_s == at_s


def test_set_goals__are_those_of_the_newest_order_that_trades(store: Store) -> None:
    opening = PerpOrder("ETH", 5, PerpOrderKind.MARKET, 1, is_reduce_only=False)
    reducing = PerpOrder("BTC", -5, PerpOrderKind.MARKET, 1, is_reduce_only=True)
    rests = PerpOrder("SOL", 5, PerpOrderKind.LIMIT, 1, is_reduce_only=False)

    def goals(nonce: int) -> tuple[tuple[str, int], ...]:
        return store.budgets.history(START_S + nonce).layer(FuturesState).set_goals

    for nonce, order in enumerate((opening, reducing, rests), start=1):
        end_futures_order(store, nonce, FuturesGrant(order, UNREAD_ACCOUNT, set_goals=((order.market, nonce),)))
        assert goals(nonce) == ((order.market, nonce),)
    for nonce, action in enumerate((StopOrder("BTC", -5, 1, 1), OrderCancel("SOL", "0x01"), MarginDeposit(1)), start=4):
        end_futures_order(store, nonce, FuturesGrant(action, UNREAD_ACCOUNT))
        assert goals(nonce) == (("SOL", 3),)


def test_futures_day_counts_reductions_and_deposits_apart(store: Store) -> None:
    reduction = PerpOrder("ETH", -1, PerpOrderKind.MARKET, 1, is_reduce_only=True)
    for nonce, granted, turnover in (
        (1, FuturesGrant(reduction, UNREAD_ACCOUNT), 5),
        (2, FuturesGrant(MarginDeposit(1), UNREAD_ACCOUNT), 7),
        (3, FuturesGrant(reduction, UNREAD_ACCOUNT, is_emergency=True), 11),
    ):
        end_futures_order(store, nonce, granted, turnover=turnover)

    day = store.budgets.history(START_S + 9).layer(FuturesState)

    assert (day.reduced_notional_24h, day.top_up_value_24h) == (5, 7)


def test_set_goals__older_or_failed_order_that_rests_has_none(store: Store) -> None:
    opening = PerpOrder("ETH", 5, PerpOrderKind.MARKET, 1, is_reduce_only=False)
    rests = replace(opening, kind=PerpOrderKind.LIMIT)
    for nonce, order, status in ((1, rests, 1), (2, opening, 1), (3, rests, 0), (4, opening, 0)):
        end_futures_order(store, nonce, FuturesGrant(order, UNREAD_ACCOUNT, set_goals=(("ETH", nonce),)), status)

    assert store.budgets.history(START_S + 9).layer(FuturesState).set_goals == (("ETH", 2),)


def test_hedges__failed_order_changes_none(store: Store) -> None:
    hedge = Hedge("ETH", TOKEN_A, -5, START_S, Fraction(1))
    short = PerpOrder("ETH", -5, PerpOrderKind.MARKET, 1, is_reduce_only=False)
    end_futures_order(store, 1, FuturesGrant(short, UNREAD_ACCOUNT, hedges=(hedge,)))

    end_futures_order(store, 2, FuturesGrant(short, UNREAD_ACCOUNT), status=0)

    assert store.budgets.history(START_S + 9).layer(FuturesState).hedges == (hedge,)


def test_a_new_store_has_an_empty_history(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/new.db", CHAIN_ID, WALLET)

    history = store.budgets.history(START_S)

    assert (history.budgets.turnover_24h, history.budgets.loss_24h, history.budgets.gas_24h_wei, history.failures.reverts_in_row) == (
        0,
        0,
        0,
        0,
    )
    assert (history.reviews.last_rebalance_s, history.reviews.last_review_s, history.started_s) == (None, None, None)
    store.close()


def test_booking_an_intent_twice_changes_nothing(store: Store) -> None:
    intent = ended_intent(store, 0, transfers=(Transfer(TOKEN_A, WALLET, OTHER, 5),))
    store.budgets.book_intent(intent, Fraction(10), Fraction(1, 3), 7, START_S)
    before = store.budgets.history(START_S)

    store.budgets.book_intent(intent, Fraction(99), Fraction(99), 99, START_S + 5)

    assert store.budgets.history(START_S) == before
    assert len(movements(store)) == 2
    assert before.budgets.loss_24h == Fraction(1, 3)
    assert before.reviews.last_rebalance_s == START_S


@pytest.mark.parametrize(("age_s", "counts"), [(0, True), (DAY_S - 1, True), (DAY_S, False), (DAY_S + 1, False)])
def test_an_entry_counts_for_24_hours_of_chain_time(store: Store, age_s: int, counts: bool) -> None:
    store.budgets.book_intent(ended_intent(store, 0), Fraction(10), Fraction(3), 5, START_S)

    history = store.budgets.history(START_S + age_s)

    assert (history.budgets.turnover_24h, history.budgets.loss_24h, history.budgets.gas_24h_wei) == ((10, 3, 5) if counts else (0, 0, 0))


def test_the_window_rolls_and_does_not_start_anew_at_midnight(store: Store) -> None:
    midnight = START_S - START_S % DAY_S + DAY_S
    for nonce, when in enumerate((midnight - 3600, midnight - 1, midnight + 1)):
        store.budgets.book_intent(ended_intent(store, nonce), Fraction(1), Fraction(10), 1, when)

    assert store.budgets.history(midnight + 2).budgets.loss_24h == 30
    assert store.budgets.history(midnight - 3600 + DAY_S).budgets.loss_24h == 20


def test_a_clock_set_back_a_day_resets_no_budget(store: Store) -> None:
    store.budgets.book_intent(ended_intent(store, 0), Fraction(1), Fraction(10), 1, START_S)

    assert store.budgets.history(START_S - 2 * DAY_S).budgets.loss_24h == 10


def test_amounts_beyond_any_database_integer_are_exact(store: Store) -> None:
    intent = ended_intent(store, 0, transfers=(Transfer(TOKEN_A, OTHER, WALLET, 2**255 + 1),))
    store.budgets.book_intent(intent, Fraction(2**300, 7), Fraction(2**200, 3), 2**100, START_S)

    history = store.budgets.history(START_S)

    assert (history.budgets.turnover_24h, history.budgets.loss_24h, history.budgets.gas_24h_wei) == (
        Fraction(2**300, 7),
        Fraction(2**200, 3),
        2**100,
    )
    assert {m.delta_raw for m in movements(store) if m.token == TOKEN_A} == {2**255 + 1}


def test_movements_are_the_net_of_the_receipt_and_the_gas(store: Store) -> None:
    transfers = (
        Transfer(TOKEN_A, WALLET, OTHER, 100),
        Transfer(TOKEN_A, OTHER, WALLET, 30),
        Transfer(TOKEN_B, OTHER, WALLET, 7),
        Transfer(TOKEN_B, OTHER, TOKEN_A, 1000),
    )
    intent = ended_intent(store, 4, transfers=transfers)
    store.budgets.book_intent(intent, Fraction(1), Fraction(0), intent.receipt.gas_cost_wei, START_S)

    tx_hash = intent.tx_hash

    assert set(movements(store)) == {
        Movement(TOKEN_A, -70, "swap", 4, START_S, tx_hash),
        Movement(TOKEN_B, 7, "swap", 4, START_S, tx_hash),
        Movement(NATIVE, -intent.receipt.gas_cost_wei, "gas", 4, START_S, tx_hash),
    }


def test_reverts_in_a_row_end_with_a_success(store: Store) -> None:
    ended_intent(store, 0, status=0)
    ended_intent(store, 1, status=1)
    ended_intent(store, 2, status=0)
    ended_intent(store, 3, kind=IntentKind.CANCEL)

    ended_intent(store, 4, status=0)

    assert store.budgets.history(START_S).failures.reverts_in_row == 2
    ended_intent(store, 5, status=1)
    assert store.budgets.history(START_S).failures.reverts_in_row == 0


@pytest.mark.parametrize("store_kind", ["file"])
def test_reverts_in_a_row_are_counted_from_few_rows(store: Store) -> None:
    """Eighty trades that succeeded, then one that did not: only a few of the newest are read, whatever lies before them."""
    for nonce in range(80):
        ended_intent(store, nonce)
    ended_intent(store, 80, status=0)
    read: list[object] = []

    def counted(_cursor: object, row: tuple[object, ...]) -> tuple[object, ...]:
        read.append(row)
        return row

    if store.db.engine.dialect.name == "sqlite":
        event.listen(store.db.engine, "checkout", lambda raw, *_: setattr(raw, "row_factory", counted))
    else:
        event.listen(store.db.engine, "after_cursor_execute", lambda _db, cursor, *_: read.extend([None] * cursor.rowcount))

    assert store.budgets.history(START_S).failures.reverts_in_row == 1
    assert 0 < len(read) < 40


def test_approvals_between_reverts_do_not_end_the_row(store: Store) -> None:
    """Every try approves anew and takes back what is left over; the swaps are what matters (T6)."""
    for nonce in range(0, 9, 3):
        ended_intent(store, nonce, kind=IntentKind.APPROVE)
        ended_intent(store, nonce + 1, status=0)
        ended_intent(store, nonce + 2, kind=IntentKind.APPROVE)

    assert store.budgets.history(START_S).failures.reverts_in_row == 3
    ended_intent(store, 9, kind=IntentKind.APPROVE, status=0)
    assert store.budgets.history(START_S).failures.reverts_in_row == 4


def test_a_reverted_swap_is_no_rebalance_and_its_gas_is_a_loss(store: Store) -> None:
    store.budgets.book_intent(ended_intent(store, 0, status=0), Fraction(0), Fraction(4), 11, START_S)

    history = store.budgets.history(START_S)

    assert (history.reviews.last_rebalance_s, history.budgets.loss_24h, history.budgets.gas_24h_wei) == (None, 4, 11)


def test_the_loss_since_the_start_forgets_nothing(store: Store) -> None:
    store.budgets.book_intent(ended_intent(store, 0), Fraction(0), Fraction(4), 1, START_S)
    store.budgets.book_intent(ended_intent(store, 1), Fraction(0), Fraction(-9), 1, START_S + 1)
    store.budgets.book_intent(ended_intent(store, 2, status=0), Fraction(0), Fraction(1, 3), 1, START_S + 40 * 86_400)

    history = store.budgets.history(START_S + 100 * 86_400)

    assert history.budgets.loss_24h == 0
    assert Fraction(13, 3) <= history.budgets.loss_total < Fraction(13, 3) + Fraction(1, 10**12), (
        "each loss is rounded up to the books' grain"
    )


def test_what_is_mined_and_not_booked_is_listed_until_it_is(store: Store) -> None:
    first, second = ended_intent(store, 0), ended_intent(store, 1, status=0)

    assert store.journal.unbooked_intents() == (first, second)
    store.budgets.book_intent(first, Fraction(0), Fraction(0), 0, START_S)
    assert store.journal.unbooked_intents() == (second,)
    store.budgets.book_intent(second, Fraction(0), Fraction(0), 0, START_S)
    assert store.journal.unbooked_intents() == ()


def test_reviews_are_remembered(store: Store) -> None:
    store.budgets.mark_review(START_S)

    store.budgets.mark_review(START_S + 9)

    assert store.budgets.history(START_S).reviews.last_review_s == START_S + 9


def test_reviews_by_schedule_outlive_a_restart_up_to_a_limit(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/trimtab.db"
    marks = [(START_S, ("review every 86400", "execution every 604800")), (START_S + 5, ("review every 86400",)), (START_S + 7, ())]
    for at_s, names in marks:
        store = open_store(url, CHAIN_ID, WALLET)
        store.budgets.mark_review(at_s, 250_000, names)
        store.close()
    store = open_store(url, CHAIN_ID, WALLET)

    history = store.budgets.history(START_S + 9)

    assert history.reviews.by_schedule == (("execution every 604800", START_S), ("review every 86400", START_S + 5))
    assert (history.reviews.last_review_s, history.reviews.delay_ppm) == (START_S + 7, 250_000)
    for number in range(MAX_REVIEWS + 3):
        store.budgets.mark_review(START_S + 10 + number, 0, (f"review every {1_800 + number}",))
    names = [name for name, _ in store.budgets.history(START_S + 99).reviews.by_schedule]
    assert names == [f"review every {1_803 + number}" for number in range(MAX_REVIEWS)]
    store.close()


@pytest.mark.parametrize("damaged", ["{", "7", '[["review every 86400"]]', '[["review every 86400", "soon"]]'])
def test_damaged_reviews_need_the_operator(tmp_path: Path, damaged: str) -> None:
    store = open_store(f"sqlite:///{tmp_path}/trimtab.db", CHAIN_ID, WALLET)
    store.budgets.mark_review(START_S, 0, ("review every 86400",))
    with store.db.write("damage") as db:
        db.execute(text("UPDATE meta SET value = :value WHERE key = 'reviews'"), {"value": damaged})

    with raises_code(OperatorNeeded, "damaged", "reviews"):
        store.budgets.history(START_S)
    store.close()


def test_the_expected_nonce_follows_what_the_chain_used_up(store: Store) -> None:
    assert store.journal.expected_nonce() is None
    store.journal.adopt_nonce(3, START_S)
    assert store.journal.expected_nonce() == 3
    ended_intent(store, 3)
    ended_intent(store, 4, status=0)
    dropped = store.journal.add_intent("s", IntentKind.SWAP, tx(5), grant(), "swap", START_S, None)
    store.journal.advance(dropped.id, IntentState.CANCELLED, START_S)
    assert store.journal.expected_nonce() == 5


def test_an_adopted_nonce_outweighs_what_came_before(store: Store) -> None:
    store.journal.adopt_nonce(8, START_S)
    ended_intent(store, 8)

    store.journal.adopt_nonce(2, START_S)

    assert store.journal.expected_nonce() == 2


def test_a_trade_that_gained_makes_no_room_for_losses(store: Store) -> None:
    store.budgets.book_intent(ended_intent(store, 0), Fraction(1), Fraction(-50), 0, START_S)

    store.budgets.book_intent(ended_intent(store, 1), Fraction(1), Fraction(20), 0, START_S)

    assert store.budgets.history(START_S).budgets.loss_24h == 20


def test_wasted_gas_is_of_reverts_approvals_and_cancels(store: Store) -> None:
    spent = ((IntentKind.SWAP, 1, 2), (IntentKind.SWAP, 0, 30), (IntentKind.APPROVE, 1, 400), (IntentKind.CANCEL, 1, 5_000))
    for nonce, (kind, status, gas_wei) in enumerate(spent):
        store.budgets.book_intent(ended_intent(store, nonce, kind=kind, status=status), Fraction(0), Fraction(0), gas_wei, START_S)

    now, later = store.budgets.history(START_S).budgets, store.budgets.history(START_S + DAY_S).budgets

    assert (now.gas_24h_wei, now.non_trade_gas_24h_wei, now.reverted_gas_wei) == (5_432, 5_430, 30)
    assert (later.gas_24h_wei, later.non_trade_gas_24h_wei, later.reverted_gas_wei) == (0, 0, 30)


def test_revert__booked_before_it_is_final__is_no_success(store: Store) -> None:
    intent = store.journal.add_intent("s", IntentKind.SWAP, tx(0), grant(), "swap", START_S, None)
    store.journal.advance(intent.id, IntentState.SIGNED, START_S, tx_hash=f"0x{0:064x}")
    store.journal.advance(intent.id, IntentState.BROADCAST, START_S)
    intent = store.journal.advance(intent.id, IntentState.MINED, START_S, receipt=receipt(f"0x{0:064x}", 5, "0x05", 0))
    store.budgets.book_intent(intent, Fraction(0), Fraction(0), 7, START_S)

    history = store.budgets.history(START_S)

    assert history.reviews.last_rebalance_s is None
    assert (history.budgets.reverted_gas_wei, history.budgets.non_trade_gas_24h_wei) == (7, 7)


def test_payouts_of_a_day_add_up(store: Store) -> None:
    for nonce, outflow in enumerate((Fraction(5, 3), Fraction(0), Fraction(7))):
        intent = ended_intent(store, nonce, kind=IntentKind.PAYOUT)
        store.budgets.book_intent(intent, Fraction(0), Fraction(0), 1, START_S + nonce, outflow)

    assert store.budgets.history(START_S + 2).budgets.outflow_24h == Fraction(26, 3)
    assert store.budgets.history(START_S + DAY_S).budgets.outflow_24h == 7


def test_changed_receipt_is_not_booked(store: Store) -> None:
    """Another process has seen a reorganisation; the next cycle books the new receipt."""
    intent = ended_intent(store, 0)

    assert intent.receipt is not None
    moved = replace(intent, receipt=replace(intent.receipt, block_number=intent.receipt.block_number + 1))
    store.budgets.book_intent(moved, Fraction(1), Fraction(2), 3, START_S)
    assert store.budgets.history(START_S).budgets.gas_24h_wei == 0
    assert store.journal.unbooked_intents() == (intent,)


def test_last_rebalance_is_that_of_a_swap_alone(store: Store) -> None:
    store.budgets.book_intent(ended_intent(store, 0), Fraction(0), Fraction(0), 0, START_S)
    for nonce, kind in enumerate((IntentKind.APPROVE, IntentKind.CANCEL, IntentKind.PAYOUT, IntentKind.UNWRAP), start=1):
        store.budgets.book_intent(ended_intent(store, nonce, kind=kind), Fraction(0), Fraction(0), 0, START_S + nonce)

    store.budgets.book_intent(ended_intent(store, 5, status=0), Fraction(0), Fraction(0), 0, START_S + 5)

    assert store.budgets.history(START_S + 9).reviews.last_rebalance_s == START_S


def test_last_rebalance_is_the_newest_in_any_order(store: Store) -> None:
    for nonce, at_s in enumerate((START_S + 5, START_S + 9, START_S + 7)):
        store.budgets.book_intent(ended_intent(store, nonce), Fraction(0), Fraction(0), 0, at_s)

    assert store.budgets.history(START_S + 9).reviews.last_rebalance_s == START_S + 9


@pytest.mark.parametrize(("reverts", "is_stopped"), [(2, False), (3, True)])
def test_third_revert_in_a_row_stops_until_resumed(store: Store, reverts: int, is_stopped: bool) -> None:
    for nonce in range(reverts):
        store.budgets.book_intent(ended_intent(store, nonce, status=0), Fraction(0), Fraction(0), 1, START_S)

    assert store.budgets.history(START_S).failures.is_stopped is is_stopped
    store.pause_switch.resume("seen", START_S)
    resumed = store.budgets.history(START_S).failures
    assert (resumed.is_stopped, resumed.reverts_in_row) == (False, 0)
    store.budgets.book_intent(ended_intent(store, reverts, status=0), Fraction(0), Fraction(0), 1, START_S)
    assert store.budgets.history(START_S).failures.reverts_in_row == 1


def test_marked_tokens_are_kept_until_replaced(store: Store) -> None:
    store.budgets.mark_depegged((TOKEN_A, TOKEN_B))
    store.budgets.mark_unreadable(((TOKEN_A, START_S), (TOKEN_B, START_S + 7)))

    history = store.budgets.history(START_S)

    assert history.depegged_tokens == (TOKEN_A, TOKEN_B)
    assert history.unread_since_s_by_token == ((TOKEN_A, START_S), (TOKEN_B, START_S + 7))
    store.budgets.mark_depegged(())
    store.budgets.mark_unreadable(((TOKEN_B, START_S + 7),))
    history = store.budgets.history(START_S)
    assert (history.depegged_tokens, history.unread_since_s_by_token) == ((), ((TOKEN_B, START_S + 7),))


@pytest.mark.parametrize("store_kind", ["memory"])
def test_cached_history_ends_with_its_first_day_old_entry(store: Store) -> None:
    """Asked in the order of a run, so that each answer may be the one before it."""
    for nonce, at_s in enumerate((START_S, START_S + 10)):
        store.budgets.book_intent(ended_intent(store, nonce), Fraction(1), Fraction(0), 1, at_s)

    asked_s = (START_S + 10, START_S + DAY_S - 1, START_S + DAY_S, START_S + DAY_S + 9, START_S + DAY_S + 10, START_S)

    assert [store.budgets.history(at_s).budgets.gas_24h_wei for at_s in asked_s] == [2, 2, 1, 1, 0, 2]
