"""The account of portfolio.use_cash in the store: which transfers, payments and payouts it does not contain yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from agent.model import CashAccount, ExternalTransaction, Intent, IntentKind, IntentState, Transfer
from agent.store import Store
from agent.units import NATIVE
from tests.support.ledgers import LEDGER_USDC, LEDGER_WETH, at, looked
from tests.support.records.transfers import record_transfers, transfer
from tests.support.stores import store_fixture
from tests.support.transactions import OTHER, START_S, WALLET, grant, receipt, record_sent, tx

ACCOUNT = CashAccount(LEDGER_USDC.address, 100, 50, 10)


store = store_fixture("memory", begins_step=True)


def outside(number: int, block: int, *changes: tuple[str, int]) -> ExternalTransaction:
    return ExternalTransaction(f"0x{number:02x}", block, START_S, Fraction(0), Fraction(0), 1, changes, number)


def payout(store: Store, nonce: int) -> Intent:
    """A payment of USDC whose bytes were sent."""
    intent = store.journal.add_intent("s", tx(nonce), grant(IntentKind.PAYOUT), "payout", START_S, None)
    return record_sent(store.journal, intent, f"0x{nonce:064x}")


def settle(store: Store, intent: Intent, raw: int, status: int = 1) -> None:
    moved = (Transfer(LEDGER_USDC.address, WALLET, OTHER, raw),) if status else ()
    mined = replace(receipt(str(intent.tx_hash), 5, "0x05", status), transfers=moved)
    store.journal.advance(intent.id, IntentState.MINED, START_S, receipt=mined)
    store.journal.advance(intent.id, IntentState.FINAL if status else IntentState.REVERTED, START_S)


def test_transfers_count_after_the_account_up_to_the_block(store: Store) -> None:
    own = transfer(5, token=LEDGER_USDC.address)
    later = transfer(-7, token=LEDGER_USDC.address, block=1_002)

    record_transfers(store, own, later, transfer(9, token=LEDGER_WETH.address))

    assert store.cash.record(ACCOUNT, 0)
    read = {block: store.cash.read(LEDGER_USDC.address, block) for block in (1_000, 1_001, 1_002)}
    assert {block: memory.changes for block, memory in read.items()} == {1_000: (), 1_001: (5,), 1_002: (5, -7)}
    assert {block: memory.newest_transfer_id for block, memory in read.items()} == {1_000: 0, 1_001: 3, 1_002: 3}
    assert store.cash.record(replace(ACCOUNT, newest_transfer_id=1), 1)
    assert store.cash.read(LEDGER_USDC.address, 1_002).changes == (-7,)


def test_external_payment_counts_once_and_a_trade_never(store: Store) -> None:
    looked(store, at(1_000))
    payment = outside(1, 1_002, (LEDGER_USDC.address, -5), (NATIVE, -1))
    trade = outside(2, 1_001, (LEDGER_USDC.address, -3), (LEDGER_WETH.address, 4))
    later = outside(3, 1_003, (LEDGER_USDC.address, 8))

    store.balances.record_prior_day((payment, trade, later), 1)

    assert store.cash.record(ACCOUNT, 0)
    memory = store.cash.read(LEDGER_USDC.address, 1_002)
    assert (memory.changes, memory.counted_tx_hashes) == ((-5,), ("0x02", "0x01"))
    assert store.cash.read(LEDGER_USDC.address, 1_003).changes == (-5, 8)
    assert store.cash.record(replace(ACCOUNT, counted_tx_hashes=memory.counted_tx_hashes), 1)
    assert store.cash.read(LEDGER_USDC.address, 1_003).changes == (8,)


def test_external_transactions__of_one_block__count_in_order_of_nonce(store: Store) -> None:
    looked(store, at(1_000))
    later = outside(2, 1_002, (LEDGER_USDC.address, -5))
    first = outside(1, 1_002, (LEDGER_USDC.address, 8))
    store.balances.record_prior_day((later, first), 3)
    assert store.cash.record(ACCOUNT, 0)
    assert store.cash.read(LEDGER_USDC.address, 1_002).changes == (8, -5)


def test_changes_are_in_the_order_of_their_blocks(store: Store) -> None:
    looked(store, at(1_000))
    record_transfers(store, transfer(5, token=LEDGER_USDC.address, block=1_003))

    store.balances.record_prior_day((outside(1, 1_002, (LEDGER_USDC.address, -7)),), 1)

    assert store.cash.record(ACCOUNT, 0)
    assert store.cash.read(LEDGER_USDC.address, 1_003).changes == (-7, 5)


def test_final_payouts_count_up_to_the_first_that_is_open(store: Store) -> None:
    """A reorganisation may undo the others, and the account takes them in their order."""
    first, second, third, fourth = (payout(store, nonce) for nonce in range(4))

    assert store.cash.record(ACCOUNT, 0)
    settle(store, first, 10)
    settle(store, second, 20, status=0)
    settle(store, fourth, 40)
    memory = store.cash.read(LEDGER_USDC.address, 9)
    assert (memory.payouts_raw, memory.newest_intent_seq) == ((10,), 2)
    settle(store, third, 30)
    memory = store.cash.read(LEDGER_USDC.address, 9)
    assert (memory.payouts_raw, memory.newest_intent_seq) == ((10, 30, 40), 4)
    assert store.cash.record(replace(ACCOUNT, newest_intent_seq=1), 1)
    assert store.cash.read(LEDGER_USDC.address, 9).payouts_raw == (30, 40)


def drop_unsent(store: Store, nonce: int) -> Intent:
    """A payment that its external signer was offered, and that expired."""
    intent = store.journal.add_intent("s", tx(nonce), grant(IntentKind.PAYOUT), "payout", START_S, None)
    return store.journal.advance(intent.id, IntentState.CANCELLED, START_S)


@pytest.mark.parametrize("paid_before", [0, 1, 2])
def test_dropped_payout_that_its_signer_executes_late__counts(store: Store, paid_before: int) -> None:
    for nonce in range(paid_before):
        settle(store, payout(store, nonce), 10)
    dropped = drop_unsent(store, paid_before)
    assert store.cash.record(ACCOUNT, 0)
    memory = store.cash.read(LEDGER_USDC.address, 9)
    assert memory.payouts_raw == (10,) * paid_before
    assert store.cash.record(replace(ACCOUNT, newest_intent_seq=memory.newest_intent_seq), 1)

    settle(store, record_sent(store.journal, dropped, "0x0d"), 20)

    assert store.cash.read(LEDGER_USDC.address, 9).payouts_raw == (20,)


def take_nonce(store: Store, nonce: int) -> None:
    settle(store, payout(store, nonce), 30)


def adopt_next_nonce(store: Store, nonce: int) -> None:
    store.journal.adopt_nonce(nonce + 1, START_S)


@pytest.mark.parametrize(
    ("use_nonce", "payouts_raw"),
    [pytest.param(take_nonce, (10, 30), id="by another payout"), pytest.param(adopt_next_nonce, (10,), id="by a foreign transaction")],
)
def test_dropped_payout_whose_nonce_is_used__holds_up_no_other(
    store: Store, use_nonce: Callable[[Store, int], None], payouts_raw: tuple[int, ...]
) -> None:
    settle(store, payout(store, 0), 10)
    drop_unsent(store, 1)
    use_nonce(store, 1)
    assert store.cash.record(ACCOUNT, 0)
    assert store.cash.read(LEDGER_USDC.address, 9).payouts_raw == payouts_raw
    settle(store, payout(store, 2), 40)
    assert store.cash.read(LEDGER_USDC.address, 9).payouts_raw == (*payouts_raw, 40)


def test_account_is_written_once_for_each_reading(store: Store) -> None:
    assert store.cash.record(ACCOUNT, 0)
    assert not store.cash.record(replace(ACCOUNT, taken_raw=1), 0)
    memory = store.cash.read(LEDGER_USDC.address, 9)
    assert (memory.account, memory.version) == (ACCOUNT, 1)
    payout(store, 0)
    record_transfers(store, transfer(5))
    other = store.cash.read(LEDGER_WETH.address, 1_001)
    assert (other.account, other.changes, other.payouts_raw, other.newest_transfer_id, other.newest_intent_seq, other.version) == (
        None,
        (),
        (),
        1,
        1,
        1,
    )


def test_a_forgotten_account_lets_no_earlier_reading_write(store: Store) -> None:
    store.cash.forget()

    assert store.cash.record(ACCOUNT, 0)
    store.cash.forget()
    assert store.cash.read(LEDGER_USDC.address, 9).account is None
    assert not store.cash.record(ACCOUNT, 1)
    assert store.cash.record(ACCOUNT, 2)
