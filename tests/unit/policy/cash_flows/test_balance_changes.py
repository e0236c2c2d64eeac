"""Balances against the books: what our own transactions explain, what they do not, and what becomes of that."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.execution.settlement import settle_mined
from agent.model import ExternalTransferKind, Halt, HaltCode, IntentKind, IntentState, Transfer, UnreadableItem
from agent.policy.cash_flows import balance_changes
from agent.policy.decide import decide
from agent.store import Store
from agent.units import NATIVE
from tests.support import builders
from tests.support.ledgers import COIN, DAY_S, DOLLAR, GAS_WEI, LEDGER_USDC, LEDGER_WETH, PRICE, at, looked, moved, opened, remembered
from tests.support.movements import movements
from tests.support.stores import store_fixture
from tests.support.text import mentions
from tests.support.transactions import CHAIN_ID, OTHER, WALLET, grant, receipt, tx

store = store_fixture("file", wallet=WALLET, chain_id=CHAIN_ID, wrapped_native=LEDGER_WETH.address)


# what is explained
def test_first_snapshot_opens_the_books(store: Store) -> None:
    assert opened(store, at()) == []
    assert {(o.token, o.raw) for o in store.balances.expected().openings} == {
        (LEDGER_WETH.address, 10 * COIN),
        (LEDGER_USDC.address, 20_000 * DOLLAR),
        (NATIVE, COIN),
    }


def test_own_transactions_are_explained_to_the_wei(store: Store) -> None:
    looked(store, at())
    moved(
        store,
        3,
        1_001,
        Transfer(LEDGER_WETH.address, WALLET, OTHER, COIN),
        Transfer(LEDGER_USDC.address, OTHER, WALLET, 1_990 * DOLLAR),
        value_wei=7,
    )
    after = at(1_002, "9", 21_990, native=COIN - GAS_WEI - 7)
    assert opened(store, after) == []
    assert opened(store, at(1_003, "9", 21_990, native=COIN - GAS_WEI - 8)) == [(NATIVE, -1, False)]


def test_transaction_above_the_snapshot_is_not_expected_yet(store: Store) -> None:
    looked(store, at())
    moved(store, 3, 1_005, Transfer(LEDGER_WETH.address, WALLET, OTHER, COIN))
    assert opened(store, at(1_004)) == []
    assert opened(store, at(1_005, "9", native=COIN - GAS_WEI)) == []


def test_reorganised_transaction_is_no_flow(store: Store) -> None:
    looked(store, at())
    moved(store, 3, 1_001, Transfer(LEDGER_WETH.address, WALLET, OTHER, COIN))
    looked(store, at(1_002, "9", native=COIN - GAS_WEI))
    (intent,) = store.journal.open_intents()
    store.journal.advance(intent.id, IntentState.BROADCAST, 2)
    assert opened(store, at(1_002)) == []


def test_snapshot_with_a_missing_receipt_is_not_compared(store: Store) -> None:
    looked(store, at())
    moved(store, 3, 1_001, Transfer(LEDGER_WETH.address, WALLET, OTHER, COIN))
    (intent,) = store.journal.open_intents()
    store.journal.advance(intent.id, IntentState.BROADCAST, 2)
    assert opened(store, at(1_002, "9", nonce_latest=4)) == []
    assert opened(store, at(1_002, "9", nonce_latest=3)) == [(LEDGER_WETH.address, -COIN, True)]


def test_snapshot_from_before_the_books_is_not_compared(store: Store) -> None:
    looked(store, at(1_000))
    looked(store, at(1_001, "10.01"))
    before = store.balances.expected()
    assert opened(store, at(1_000)) == [(LEDGER_WETH.address, COIN // 100, False)]
    assert store.balances.expected() == before


def test_false_height_keeps_no_later_snapshot_from_comparison(store: Store) -> None:
    """An only endpoint that lies once must not end the search for losses."""
    looked(store, at(1_000))
    looked(store, at(10**9))
    old = at(1_001, "9", now_s=builders.NOW_S + 3_600)
    assert opened(store, old) == [], "a block of an hour ago may be from before the books"
    assert opened(store, at(1_002, "9")) == [(LEDGER_WETH.address, -COIN, True)]
    assert {opening.block for opening in store.balances.expected().openings} == {1_002}


def test_unread_balance_keeps_its_books(store: Store) -> None:
    looked(store, at())
    unread = at(1_001, "1", unreadable_items=(UnreadableItem("balance", LEDGER_WETH.address, "reverts"),))
    assert opened(store, unread) == []
    assert opened(store, at(1_002)) == []


def test_old_final_transactions_join_the_opening(store: Store) -> None:
    looked(store, at())
    for nonce in range(3, 6):
        moved(store, nonce, 998 + nonce, Transfer(LEDGER_WETH.address, WALLET, OTHER, COIN))
        (intent,) = store.journal.open_intents()
        store.journal.advance(intent.id, IntentState.FINAL, 2)
    native = COIN - 3 * GAS_WEI
    looked(store, at(1_010, "7", native=native))
    assert {change.block for change in store.balances.expected().own_changes} == {1_001, 1_002, 1_003}
    looked(store, at(1_258, "7", native=native))
    assert {change.block for change in store.balances.expected().own_changes} == {1_003}
    looked(store, at(2_000, "7", native=native))
    assert store.balances.expected().own_changes == ()
    assert opened(store, at(2_001, "7", native=native)) == []


@pytest.mark.parametrize("kind", [IntentKind.CANCEL, IntentKind.SWAP])
def test_replacement_after_a_reorganisation_is_explained(store: Store, kind: IntentKind) -> None:
    looked(store, at())
    moved(store, 3, 1_001, Transfer(LEDGER_WETH.address, WALLET, OTHER, COIN))
    (swap,) = store.journal.open_intents()
    assert swap.receipt is not None
    store.journal.advance(swap.id, IntentState.BROADCAST, 2)
    other = store.journal.add_intent("s", tx(3), grant(kind), "in its place", 2, None, replaces=swap.id)
    store.journal.advance(other.id, IntentState.SIGNED, 2, tx_hash="0x" + "c" * 64)
    store.journal.advance(other.id, IntentState.BROADCAST, 2)
    store.journal.advance(other.id, IntentState.MINED, 2, receipt=receipt("0x" + "c" * 64, 1_001, "0x" + "d" * 64))
    store.journal.advance(other.id, IntentState.FINAL, 2)
    store.journal.advance(swap.id, IntentState.CANCELLED if kind is IntentKind.CANCEL else IntentState.REPLACED, 2)
    looked(store, at(1_002, native=COIN - GAS_WEI))
    store.journal.advance(other.id, IntentState.BROADCAST, 3)
    store.journal.advance(swap.id, IntentState.BROADCAST, 3)
    store.journal.advance(swap.id, IntentState.MINED, 3, receipt=replace(swap.receipt, block_number=1_003))
    assert opened(store, at(1_004, "9", native=COIN - GAS_WEI)) == []


def test_opening_keeps_transactions_of_an_unread_balance(store: Store) -> None:
    """Else our own sale would be a loss, and our own purchase would hide one."""
    looked(store, at())
    moved(store, 3, 1_001, Transfer(LEDGER_WETH.address, WALLET, OTHER, COIN))
    native = COIN - GAS_WEI
    looked(store, at(1_002, "9", native=native))
    (intent,) = store.journal.open_intents()
    store.journal.advance(intent.id, IntentState.FINAL, 2)
    looked(store, at(1_300, "9", native=native, unreadable_items=(UnreadableItem("balance", LEDGER_WETH.address, "reverts"),)))
    assert store.balances.expected().own_changes == ()
    assert opened(store, at(1_301, "9", native=native)) == []
    assert opened(store, at(1_302, "8", native=native)) == [(LEDGER_WETH.address, -COIN, True)]


def test_only_the_configured_token_unwraps_native_coin(store: Store) -> None:
    """Any contract that a swap touches may emit a Withdrawal."""
    looked(store, at())
    events = (Transfer(LEDGER_USDC.address, WALLET, NATIVE, 5), Transfer(LEDGER_WETH.address, WALLET, NATIVE, COIN))
    moved(store, 3, 1_001, to=LEDGER_WETH.address, wrap_transfers=events)
    (intent,) = store.journal.unbooked_intents()
    store.budgets.book_intent(intent, Fraction(0), Fraction(0), GAS_WEI, 5)
    assert {(m.token, m.delta_raw, m.kind) for m in movements(store) if m.token == NATIVE} == {
        (NATIVE, COIN, "swap"),
        (NATIVE, -GAS_WEI, "gas"),
    }
    assert intent.balance_changes(WALLET, LEDGER_WETH.address)[NATIVE] == COIN - GAS_WEI


# what is not
def test_small_deposit_halts_nothing(store: Store) -> None:
    looked(store, at())
    step = looked(store, at(1_005, "10.1"))
    (flow,) = step.history.cash_flows.unexplained_transfers
    assert (flow.token, flow.delta_raw, flow.value) == (LEDGER_WETH.address, COIN // 10, PRICE // 10)
    assert (flow.since_block, flow.block, flow.exceeds_jump_limit, flow.id) == (1_000, 1_005, False, 1)
    assert not isinstance(decide(step).decision, Halt)
    assert step.history.budgets.loss_24h == 0
    assert opened(store, at(1_006, "10.1")) == [(LEDGER_WETH.address, COIN // 10, False)]


def test_increase_beyond_the_limit_halts_until_explained(store: Store) -> None:
    looked(store, at())
    step = looked(store, at(1_005, "11"))
    decision = decide(step).decision
    assert isinstance(decision, Halt)
    assert decision.codes == (HaltCode.BALANCE_CHANGE,)
    assert mentions(decision.reason, "WETH", "1 (2000 USDC)")
    assert "2027-01-16 08:00:00 UTC" in decision.reason
    assert "trimtab flows confirm 1;" in decision.reason
    (flow,) = step.history.cash_flows.unexplained_transfers
    for flows in ((replace(flow, id=0),), (flow, replace(flow, id=2))):
        cash_flows = replace(step.history.cash_flows, unexplained_transfers=flows)
        reason = balance_changes.halt_reason(step.portfolio, step.limits, cash_flows)
        assert "trimtab flows confirm NUMBER, or all, of those that trimtab flows lists;" in reason
    store.balances.classify(1, None, 5)
    assert not isinstance(decide(remembered(store, at(1_006, "11"))).decision, Halt)


@pytest.mark.parametrize(("weth", "halts"), [("10.39", False), ("10.41", True), ("9.61", False), ("9.59", True)])
def test_jump_limit_is_a_share_of_the_smaller_portfolio(store: Store, weth: str, halts: bool) -> None:
    looked(store, at())
    (flow,) = looked(store, at(1_001, weth)).history.cash_flows.unexplained_transfers
    value = abs(flow.value or 0)
    base = min(Fraction(40_000 * DOLLAR), Fraction(40_000 * DOLLAR) + (flow.value or 0))
    assert (value * 10_000 > 200 * base) is halts
    assert flow.exceeds_jump_limit is halts


def test_small_changes_of_a_day_add_up_to_the_limit(store: Store) -> None:
    looked(store, at())
    for number in range(1, 4):
        step = looked(store, at(1_000 + number, f"10.{number}"))
        assert not any(flow.exceeds_jump_limit for flow in step.history.cash_flows.unexplained_transfers)
    assert looked(store, at(1_004, "10.5")).history.cash_flows.unexplained_transfers[-1].exceeds_jump_limit
    fresh = looked(store, at(1_005, "10.6", later_s=DAY_S + 1)).history.cash_flows.unexplained_transfers[-1]
    assert not fresh.exceeds_jump_limit


def test_decrease_is_a_loss_for_a_day(store: Store) -> None:
    looked(store, at())
    step = looked(store, at(1_001, "9.9"))
    assert step.history.budgets.loss_24h == PRICE // 10
    assert looked(store, at(1_002, "9.9", later_s=DAY_S - 1)).history.budgets.loss_24h == PRICE // 10
    assert looked(store, at(1_003, "9.9", later_s=DAY_S)).history.budgets.loss_24h == 0
    now_s = step.snapshot.head.timestamp_s
    store.balances.classify(1, ExternalTransferKind.LOSS, 5)
    assert store.budgets.history(now_s).budgets.loss_24h == PRICE // 10


def test_withdrawal_is_no_loss(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, "9.9"))
    store.balances.classify(1, ExternalTransferKind.WITHDRAWAL, 5)
    past = store.budgets.history(builders.NOW_S)
    assert (past.budgets.loss_24h, past.cash_flows.unexplained_transfers) == (0, ())


def test_increase_does_not_offset_a_decrease(store: Store) -> None:
    """Two tokens at once: nobody may assume that one was exchanged for the other."""
    looked(store, at())
    assert looked(store, at(1_001, "9.9", 20_200)).history.budgets.loss_24h == PRICE // 10


def test_dry_run_sees_the_change_and_writes_nothing(store: Store) -> None:
    looked(store, at())
    step = remembered(store, at(1_001, "9"))
    assert [(flow.id, flow.exceeds_jump_limit) for flow in step.history.cash_flows.unexplained_transfers] == [(0, True)]
    assert step.history.budgets.loss_24h == PRICE
    assert isinstance(decide(step).decision, Halt)
    assert store.balances.transfers() == ()


def test_decrease_during_a_trade_is_counted_once(store: Store) -> None:
    """What the events of the trade do not say is a flow; the trade's own loss leaves it out."""
    before = at()
    looked(store, before)
    moved(store, 3, 1_001)
    after = at(1_002, "9.9", native=COIN - GAS_WEI)
    settle_mined(store, after.snapshot, lambda: after, before.snapshot)
    gas = Fraction(GAS_WEI * 2_000 * DOLLAR, COIN)
    assert store.budgets.history(builders.NOW_S).budgets.loss_24h == PRICE // 10 + gas


def test_record_refuses_a_second_write_of_a_flow(store: Store) -> None:
    looked(store, at())
    later = at(1_001, "10.1")
    books = store.balances.expected()
    transfers = balance_changes.unrecorded_changes(later, books)
    assert store.balances.record(later.snapshot, balance_changes.balances_of(later.snapshot), transfers, books.version)
    assert not store.balances.record(later.snapshot, balance_changes.balances_of(later.snapshot), transfers, books.version)
    assert len(store.balances.transfers()) == 1


@pytest.mark.parametrize("clock_s", [-30 * DAY_S, -DAY_S, DAY_S])
def test_wrong_clock_takes_no_decrease_out_of_the_day(store: Store, clock_s: int) -> None:
    looked(store, at())
    fell = at(1_001, "9.9", now_s=builders.NOW_S + clock_s)
    assert looked(store, fell).history.budgets.loss_24h == PRICE // 10
    assert store.budgets.history(builders.NOW_S + DAY_S - 1).budgets.loss_24h == PRICE // 10
    assert store.budgets.history(builders.NOW_S + DAY_S).budgets.loss_24h == 0


def test_midnight_starts_no_new_day(store: Store) -> None:
    midnight_s = DAY_S - builders.NOW_S % DAY_S
    looked(store, at())
    looked(store, at(1_001, "9.9", later_s=midnight_s - 1))
    looked(store, at(1_002, "9.8", later_s=midnight_s + 1))
    assert store.budgets.history(builders.NOW_S + midnight_s + 2).budgets.loss_24h == 2 * PRICE // 10


def test_header_from_the_future_hides_no_other_flow(store: Store) -> None:
    looked(store, at())
    looked(store, at(1_001, "10.1", later_s=400 * DAY_S))
    for number in range(2, 4):
        looked(store, at(1_000 + number, f"10.{number}"))
    assert looked(store, at(1_004, "10.5")).history.cash_flows.unexplained_transfers[-1].exceeds_jump_limit
