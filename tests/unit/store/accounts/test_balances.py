"""Balances in the store: which day's transactions are known, what deposits are accepted or excluded, what a classification changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.model import (
    ExpectedBalances,
    ExternalTransaction,
    ExternalTransfer,
    ExternalTransferKind,
    IntentState,
    OwnBalanceChange,
    UnreadableItem,
)
from agent.policy.cash_flows.balance_changes import ACCEPTANCE_WINDOW_S
from agent.store import Store, open_store
from agent.store.accounts.balances import MAX_OPEN_TRANSFERS, MAX_RECENT_TRANSFERS
from agent.units import NATIVE
from tests.support.ledgers import COIN, DAY_S, GAS_WEI, LEDGER_USDC, LEDGER_WETH, PRICE, at, looked, moved
from tests.support.records.transfers import NOW_S, record_transfers, transfer
from tests.support.stores import store_fixture
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, WALLET

OUTSIDE = ExternalTransaction("0x0a", 1_001, NOW_S, Fraction(10), Fraction(3), 7, ((LEDGER_WETH.address, -5),), 0, Fraction(2))


store = store_fixture("memory", begins_step=True)


# --- Transactions of the wallet that the agent did not send.


def test_external_transaction_counts_a_day_and_its_loss_forever(store: Store) -> None:
    store.balances.record_prior_day((OUTSIDE, replace(OUTSIDE, tx_hash="0x0b", loss=Fraction(-9))), 1)

    last, after = (store.budgets.history(NOW_S + age_s).budgets for age_s in (DAY_S - 1, DAY_S))

    assert (last.turnover_24h, last.loss_24h, last.gas_24h_wei, last.outflow_24h, last.loss_total) == (20, 3, 14, 4, 3)
    assert (after.turnover_24h, after.loss_24h, after.gas_24h_wei, after.outflow_24h, after.loss_total) == (0, 0, 0, 0, 3)


def test_external_transaction_is_recorded_once_and_never_ours(store: Store) -> None:
    moved(store, 0, 1_001)
    own = replace(OUTSIDE, tx_hash=f"0x{0:064x}")
    store.balances.record_prior_day((OUTSIDE, own, OUTSIDE), 1)

    store.balances.record_prior_day((OUTSIDE,), 1)

    assert store.budgets.history(NOW_S).budgets.gas_24h_wei == OUTSIDE.gas_wei


@pytest.mark.parametrize(("block", "changes"), [(1_000, ()), (1_001, (OwnBalanceChange(LEDGER_WETH.address, -5, 1_001),))])
def test_external_transaction_explains_after_the_openings(store: Store, block: int, changes: tuple[OwnBalanceChange, ...]) -> None:
    looked(store, at(1_000))

    store.balances.record_prior_day((replace(OUTSIDE, block=block),), 1)

    assert store.balances.expected().own_changes == changes


def test_external_transaction_explains_an_older_opening(store: Store) -> None:
    looked(store, at(1_000))
    looked(store, at(1_010, unreadable_items=(UnreadableItem("balance of WETH", LEDGER_WETH.address, "no answer"),)))
    outside = replace(OUTSIDE, block=1_005, changes=((LEDGER_WETH.address, -5), (LEDGER_USDC.address, 7)))

    store.balances.record_prior_day((outside,), 1)

    assert store.balances.expected().own_changes == (OwnBalanceChange(LEDGER_WETH.address, -5, 1_005),)


def test_external_transactions_of_one_block_are_in_order_of_nonce(store: Store) -> None:
    looked(store, at(1_000))
    first = replace(OUTSIDE, tx_hash="0x0b", nonce=0, changes=((LEDGER_USDC.address, 7),))

    store.balances.record_prior_day((replace(OUTSIDE, nonce=1), first), 2)

    assert [change.token for change in store.balances.expected().own_changes] == [LEDGER_USDC.address, LEDGER_WETH.address]


def test_prior_day_is_known_a_day_after_the_first_failure(store: Store) -> None:
    assert not store.balances.is_prior_day_known(NOW_S + 2 * DAY_S)
    store.balances.mark_prior_day_failed(NOW_S)
    store.balances.mark_prior_day_failed(NOW_S + 500)
    assert not store.balances.is_prior_day_known(NOW_S + DAY_S - 1)
    assert store.balances.is_prior_day_known(NOW_S + DAY_S)


def test_adoption_forgets_a_day_not_read_up_to_its_nonce(store: Store) -> None:
    store.positions.record_scan((), NOW_S)
    store.balances.record_prior_day((), 5)

    store.journal.adopt_nonce(5, NOW_S)

    assert store.balances.is_prior_day_known(NOW_S)
    assert store.positions.is_scanned()
    store.journal.adopt_nonce(6, NOW_S)
    assert not store.balances.is_prior_day_known(NOW_S)
    assert not store.positions.is_scanned()


# --- Deposits that nobody explained.


def test_accepted_deposit_is_listed_a_day_or_until_classified(store: Store) -> None:
    record_transfers(store, transfer(), transfer(2 * COIN))
    first, second = store.balances.transfers()
    record_transfers(store, *(replace(flow, kind=ExternalTransferKind.ACCEPTED) for flow in (first, second)), later_s=60)
    acceptance_time_s = NOW_S + 60

    def listed(now_s: int) -> list[int]:
        return [flow.id for flow in store.budgets.history(now_s).cash_flows.accepted_deposits]

    assert listed(acceptance_time_s + DAY_S - 1) == [first.id, second.id]
    assert listed(acceptance_time_s + DAY_S) == []
    store.balances.classify(first.id, ExternalTransferKind.GIFT, 5)
    assert listed(acceptance_time_s) == [second.id]


def test_classified_transfer_is_not_accepted_afterwards(store: Store) -> None:
    record_transfers(store, transfer())
    (flow,) = store.balances.transfers()
    store.balances.classify(flow.id, ExternalTransferKind.GIFT, 5)

    record_transfers(store, replace(flow, kind=ExternalTransferKind.ACCEPTED, value=Fraction(1)))

    assert store.balances.transfers() == (replace(flow, kind=ExternalTransferKind.GIFT),)


@pytest.mark.parametrize(
    ("later_s", "since_s"),
    [(1, 0), (ACCEPTANCE_WINDOW_S - 1, 0), (ACCEPTANCE_WINDOW_S, ACCEPTANCE_WINDOW_S), (-1, -1)],
)
def test_deposits_block_since_the_first_of_a_window(store: Store, later_s: int, since_s: int) -> None:
    record_transfers(store, transfer(exceeds_jump_limit=True))

    record_transfers(store, transfer(exceeds_jump_limit=True, chain_s=NOW_S + later_s))

    assert store.budgets.history(NOW_S).cash_flows.first_increase_s == NOW_S + since_s


@pytest.mark.parametrize(
    ("explained", "since_s"),
    [
        pytest.param((1, 2), None, id="all that block"),
        pytest.param((1,), NOW_S, id="one of two that block"),
        pytest.param((3,), NOW_S, id="another"),
    ],
)
def test_explained_deposits_end_their_window(store: Store, explained: tuple[int, ...], since_s: int | None) -> None:
    record_transfers(store, transfer(exceeds_jump_limit=True), transfer(exceeds_jump_limit=True), transfer(5))

    for transfer_id in explained:
        store.balances.classify(transfer_id, ExternalTransferKind.DEPOSIT, NOW_S + 60)

    assert store.budgets.history(NOW_S).cash_flows.first_increase_s == since_s


def test_accepted_deposit_keeps_its_window(store: Store) -> None:
    record_transfers(store, transfer(exceeds_jump_limit=True), transfer(5))
    (blocking, _) = store.balances.transfers()
    record_transfers(store, replace(blocking, kind=ExternalTransferKind.ACCEPTED))

    store.balances.classify(None, None, NOW_S + 60)
    store.balances.classify(blocking.id, ExternalTransferKind.GIFT, NOW_S + 60)

    assert store.budgets.history(NOW_S).cash_flows.first_increase_s == NOW_S


@pytest.mark.parametrize(
    "harmless",
    [transfer(), transfer(-COIN, exceeds_jump_limit=True), transfer(exceeds_jump_limit=True, kind=ExternalTransferKind.GAS_MONEY)],
)
def test_harmless_transfer_begins_no_window(store: Store, harmless: ExternalTransfer) -> None:
    record_transfers(store, harmless)

    assert store.budgets.history(NOW_S).cash_flows.first_increase_s is None


def test_excluded_deposits_stay_so_until_classified(store: Store) -> None:
    record_transfers(store, transfer(5), transfer(7), transfer(-3), transfer(11, token=LEDGER_USDC.address))

    assert store.budgets.history(NOW_S).cash_flows.excluded_increases_raw == ()
    record_transfers(store, transfer(100))
    store.balances.exclude_unexplained_deposits(4)
    store.balances.exclude_unexplained_deposits(1)
    assert dict(store.budgets.history(NOW_S).cash_flows.excluded_increases_raw) == {LEDGER_WETH.address: 12, LEDGER_USDC.address: 11}
    store.balances.classify(1, None, 5)
    assert dict(store.budgets.history(NOW_S).cash_flows.excluded_increases_raw) == {LEDGER_WETH.address: 7, LEDGER_USDC.address: 11}


def test_dust_hides_no_halting_deposit_loss_or_sum(store: Store) -> None:
    record_transfers(store, transfer(exceeds_jump_limit=True), transfer(-COIN), *[transfer(1)] * (MAX_OPEN_TRANSFERS + 3))

    flows = store.budgets.history(NOW_S).cash_flows

    assert [flow.id for flow in flows.unexplained_transfers] == [1, 2, *range(6, MAX_OPEN_TRANSFERS + 6)]
    assert flows.unexplained_increases_raw == ((LEDGER_WETH.address, COIN + MAX_OPEN_TRANSFERS + 3),)


@pytest.mark.parametrize("number", [MAX_OPEN_TRANSFERS, MAX_OPEN_TRANSFERS + 1])
def test_deposits_sum_up_though_not_all_are_listed(store: Store, number: int) -> None:
    record_transfers(store, *[transfer(1)] * number)

    flows = store.budgets.history(NOW_S).cash_flows

    assert len(flows.unexplained_transfers) == MAX_OPEN_TRANSFERS
    assert flows.unexplained_increases_raw == ((LEDGER_WETH.address, number),)


def test_few_deposits_sum_up_without_the_decreases_between_them(store: Store) -> None:
    record_transfers(store, transfer(5), transfer(-2), transfer(7))

    assert store.budgets.history(NOW_S).cash_flows.unexplained_increases_raw == ((LEDGER_WETH.address, 12),)


# --- Decreases.


def test_unpriced_decrease_makes_its_day_unknown(store: Store) -> None:
    record_transfers(store, transfer(-COIN, value=None))

    assert store.budgets.history(NOW_S + DAY_S - 1).budgets.unknown_reason
    assert store.budgets.history(NOW_S + DAY_S).budgets.unknown_reason == ""


@pytest.mark.parametrize(
    ("value", "value_afterwards"), [pytest.param(PRICE, PRICE, id="valued"), pytest.param(None, Fraction(-7), id="without a price")]
)
def test_explained_loss_is_valued_once_and_stays_explained(store: Store, value: int | None, value_afterwards: Fraction | int) -> None:
    record_transfers(store, transfer(-COIN, value=value))
    store.balances.classify(1, ExternalTransferKind.LOSS, 5)
    (recorded,) = store.balances.transfers()

    record_transfers(store, replace(recorded, value=Fraction(-7), kind=None, chain_s=NOW_S + 1))

    assert store.balances.transfers() == (replace(recorded, value=value_afterwards),)


def test_transfers_after_a_loss_without_a_price_do_not_hide_it(store: Store) -> None:
    record_transfers(store, transfer(-COIN, value=None), transfer(-COIN, value=None))
    store.balances.classify(1, ExternalTransferKind.LOSS, 5)
    store.balances.classify(2, ExternalTransferKind.WITHDRAWAL, 5)
    record_transfers(store, *[transfer(1)] * MAX_RECENT_TRANSFERS)

    assert [flow.id for flow in store.balances.expected().transfers[:2]] == [1, 3]


def test_old_decrease_counts_in_the_total_loss_alone(store: Store) -> None:
    record_transfers(store, transfer(-COIN), transfer(-COIN, chain_s=NOW_S - DAY_S))

    budgets = store.budgets.history(NOW_S).budgets

    assert (budgets.loss_24h, budgets.decrease_24h) == (PRICE, PRICE)
    assert (budgets.loss_total, budgets.decrease_total) == (2 * PRICE, 2 * PRICE)


def test_restoring_increase_closes_unclassified_decreases(store: Store) -> None:
    record_transfers(store, transfer(-1), transfer(-2), transfer(-3))
    store.balances.classify(2, ExternalTransferKind.LOSS, 5)
    record_transfers(store, transfer(3, undone_ids=(1, 2), kind=ExternalTransferKind.UNDONE))

    kinds = [flow.kind for flow in store.balances.transfers()]

    assert kinds == [ExternalTransferKind.UNDONE, ExternalTransferKind.LOSS, None, ExternalTransferKind.UNDONE]


# --- What the owner says.


def test_classify_defaults_to_deposit_and_withdrawal(store: Store) -> None:
    record_transfers(store, transfer(1), transfer(-1))

    classified = store.balances.classify(None, None, 5)

    assert [flow.kind for flow in classified] == [ExternalTransferKind.DEPOSIT, ExternalTransferKind.WITHDRAWAL]
    assert store.balances.transfers() == classified
    assert store.balances.classify(None, None, 5) == ()


@pytest.mark.parametrize(
    ("flow_id", "kind"),
    [
        (1, ExternalTransferKind.LOSS),
        (1, ExternalTransferKind.WITHDRAWAL),
        (2, ExternalTransferKind.GIFT),
        (2, ExternalTransferKind.DEPOSIT),
    ],
)
def test_classify_refuses_a_kind_of_the_other_direction(store: Store, flow_id: int, kind: ExternalTransferKind) -> None:
    record_transfers(store, transfer(1), transfer(-1))

    with pytest.raises(ConfigError, match="can only be a"):
        store.balances.classify(flow_id, kind, 5)
    assert [flow.kind for flow in store.balances.transfers()] == [None, None]


@pytest.mark.parametrize(
    ("flow_id", "kind", "code"),
    [
        pytest.param(1, ExternalTransferKind.DEPOSIT, "flow_confirmed", id="classified"),
        pytest.param(2, None, "unknown", id="the next"),
        pytest.param(2**63 - 1, None, "unknown", id="largest id"),
        pytest.param(2**80, None, "unknown", id="no id of a database"),
        pytest.param(10**30, None, "unknown", id="far above"),
    ],
)
def test_a_transfer_is_classified_once_and_must_exist(store: Store, flow_id: int, kind: ExternalTransferKind | None, code: str) -> None:
    record_transfers(store, transfer(1))
    store.balances.classify(1, ExternalTransferKind.GIFT, 5)

    with raises_code(ConfigError, code):
        store.balances.classify(flow_id, kind, 5)


def test_unmined_payment_is_no_own_change(store: Store) -> None:
    looked(store, at(1_000))

    moved(store, 3, 1_001, value_wei=7)

    assert store.balances.expected().own_changes == (OwnBalanceChange(NATIVE, -GAS_WEI - 7, 1_001),)
    (own,) = store.journal.open_intents()
    store.journal.advance(own.id, IntentState.BROADCAST, 2)
    expected = store.balances.expected()
    assert expected.own_changes == ()
    assert expected.unsettled_nonce == 3


# --- Balances of a look that are written at its end.


def openings_of(store: Store) -> dict[str, tuple[int, int]]:
    """Base units and block of each opening."""
    return {opening.token: (opening.raw, opening.block) for opening in store.balances.expected().openings}


@pytest.fixture
def explained(tmp_path: Path) -> Iterator[tuple[Store, ExpectedBalances]]:
    """Return a store in which a look at block 1,001 has queued the same balances as at 1,000, and what it expected."""
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET, LEDGER_WETH.address)
    store.balances.record_explained(at(1_000).snapshot, {LEDGER_WETH.address: COIN}, lambda _: True)
    with store.db.queueing():
        expected, is_explained = store.balances.record_explained(at(1_001).snapshot, {LEDGER_WETH.address: COIN}, lambda _: True)
    assert is_explained
    yield store, expected
    store.close()


def test_explained_balances_are_written_at_the_end_of_a_look(explained: tuple[Store, ExpectedBalances]) -> None:
    store, expected = explained
    assert expected.openings == store.balances.expected().openings
    assert openings_of(store) == {LEDGER_WETH.address: (COIN, 1_000)}, "the stored ones explain as much until then"

    store.db.flush()

    assert openings_of(store) == {LEDGER_WETH.address: (COIN, 1_001)}


def test_explained_balances_do_not_replace_another_process_s(explained: tuple[Store, ExpectedBalances], tmp_path: Path) -> None:
    store, expected = explained
    other = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET, LEDGER_WETH.address)
    assert other.balances.record(at(1_002).snapshot, {LEDGER_WETH.address: 5}, (), expected.version)
    other.close()

    store.db.flush()

    assert openings_of(store) == {LEDGER_WETH.address: (5, 1_002)}


def test_balances_that_nothing_explains_are_not_written(store: Store) -> None:
    assert not store.balances.record_explained(at(1_000).snapshot, {LEDGER_WETH.address: COIN}, lambda _: False)[1]
    assert openings_of(store) == {}
