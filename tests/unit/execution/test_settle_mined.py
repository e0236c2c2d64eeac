"""Tests of settle_mined in agent/execution/settlement.py: books that go on whatever lies in receipt, store or header (T6, T11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent import codec
from agent.execution.settlement import settle_mined
from agent.model import MAX_BLOCK_LEAD_S, Holding, Intent, IntentKind, Payout, PricePoint, Snapshot, StepInput, Transfer
from agent.ports import Grant
from agent.store import Store
from agent.units import NATIVE
from tests.support import builders
from tests.support.constants import DAY_S, ETHER
from tests.support.decisions.exits import outcome_of, step_with_stops
from tests.support.stores import store_fixture
from tests.support.transactions import GWEI, OTHER, WALLET, grant, receipt, record_sent, tx

WETH = builders.token("WETH").address
USDC = builders.token("USDC").address
STRANGER = builders.address("a foreign token")
DOLLAR = 10**6
ETHER_VALUE = builders.PRICES["WETH"] * DOLLAR
WEI_VALUE = Fraction(ETHER_VALUE, ETHER)
GAS_WEI = 50_000 * 2 * GWEI
GAS_VALUE = GAS_WEI * WEI_VALUE


store = store_fixture("memory")


def step_with(weth: int = 10, usdc: int = 20_000) -> StepInput:
    """Return a step of the wallet with these whole coins."""
    step = builders.step_input()
    raw_by_token = {WETH: weth * ETHER, USDC: usdc * DOLLAR}
    holdings = tuple(Holding(holding.token, raw_by_token.get(holding.token, holding.raw)) for holding in step.snapshot.holdings)
    return replace(step, snapshot=replace(step.snapshot, owner=WALLET, holdings=holdings))


STEP = step_with()
UNPRICED = replace(STEP, snapshot=replace(STEP.snapshot, feeds=(), pools=()))
SNAPSHOT = STEP.snapshot


def mine(
    store: Store,
    *transfers: Transfer,
    input_json: str | None = None,
    kind: IntentKind = IntentKind.SWAP,
    value_wei: int = 0,
    granted: Grant | None = None,
    **receipt_changes: Any,
) -> Intent:
    """Record a transaction of STEP, mined with these events."""
    store.steps.begin("s", 1, codec.dumps(STEP) if input_json is None else input_json)
    intent = store.journal.add_intent("s", replace(tx(0), value_wei=value_wei), granted or grant(kind), "", 1, None)
    block = replace(receipt("0xaa", 1, "0x01"), transfers=transfers, **receipt_changes)
    return record_sent(store.journal, intent, "0xaa", 1, receipt=block)


def unneeded_step() -> StepInput:
    raise AssertionError("current prices are not needed")


def loss_of_day(
    store: Store, snapshot: Snapshot = SNAPSHOT, current_step: Callable[[], StepInput] = unneeded_step, before: Snapshot | None = None
) -> Fraction:
    """Settle what is mined and return the loss of the last day."""
    settle_mined(store, snapshot, current_step, before)
    return store.budgets.history(snapshot.head.timestamp_s).budgets.loss_24h


# --- Prices of the step, or current ones


def test_foreign_event_that_takes_from_us_books_nothing(store: Store) -> None:
    """Any contract that a swap touches may emit a Transfer from our wallet; it must neither block nor count."""
    mine(store, Transfer(STRANGER, WALLET, OTHER, 10**30))

    assert loss_of_day(store) == GAS_VALUE
    assert store.journal.unbooked_intents() == ()


@pytest.mark.parametrize("input_json", ["{}", "not JSON", '{"from": "another version"}'], ids=["no fields", "not JSON", "another version"])
def test_unreadable_step_is_booked_at_current_prices(store: Store, input_json: str) -> None:
    mine(store, Transfer(WETH, WALLET, OTHER, ETHER), input_json=input_json)

    assert loss_of_day(store, current_step=lambda: STEP) == ETHER_VALUE + GAS_VALUE
    assert store.journal.unbooked_intents() == ()


def test_current_prices_prove_no_gain(store: Store) -> None:
    mine(store, Transfer(USDC, OTHER, WALLET, 5_000 * DOLLAR), input_json="{}")

    assert loss_of_day(store, current_step=lambda: STEP) == GAS_VALUE


@pytest.mark.parametrize(
    ("transfers", "value_wei", "loss"),
    [
        pytest.param((Transfer(WETH, WALLET, OTHER, ETHER),), 0, ETHER_VALUE, id="a token"),
        pytest.param((), ETHER, ETHER_VALUE, id="native coin, which has no event"),
        pytest.param((Transfer(WETH, WALLET, OTHER, 1),), 0, WEI_VALUE, id="one base unit"),
    ],
)
def test_spend_without_a_price_waits_for_it(store: Store, transfers: tuple[Transfer, ...], value_wei: int, loss: Fraction) -> None:
    mine(store, *transfers, Transfer(USDC, OTHER, WALLET, 0), input_json="{}", value_wei=value_wei)

    assert loss_of_day(store, current_step=lambda: UNPRICED) == 0
    assert len(store.journal.unbooked_intents()) == 1
    assert loss_of_day(store, current_step=lambda: STEP) == loss + GAS_VALUE


@pytest.mark.parametrize(
    ("transfers", "fields"),
    [
        pytest.param((Transfer(WETH, OTHER, WALLET, ETHER),), {}, id="an asset received"),
        pytest.param((Transfer(STRANGER, WALLET, OTHER, ETHER),), {}, id="a foreign token spent"),
        pytest.param((), {"value_wei": ETHER, "status": 0}, id="native coin of a revert"),
    ],
)
def test_only_an_asset_that_was_spent_needs_a_price(store: Store, transfers: tuple[Transfer, ...], fields: dict[str, int]) -> None:
    mine(store, *transfers, input_json="{}", **fields)

    settle_mined(store, SNAPSHOT, lambda: UNPRICED)

    assert store.journal.unbooked_intents() == ()


# --- Balances before and after


@pytest.mark.parametrize(
    ("kind", "weth_after", "loss"),
    [
        pytest.param(IntentKind.SWAP, 9, ETHER_VALUE, id="swap"),
        pytest.param(IntentKind.UNWRAP, 9, ETHER_VALUE, id="unwrap"),
        pytest.param(IntentKind.APPROVE, 9, 0, id="approval"),
        pytest.param(IntentKind.SWAP, 10, 0, id="swap without a fall"),
    ],
)
def test_balance_fall_without_an_event_is_a_loss_of_a_trade(store: Store, kind: IntentKind, weth_after: int, loss: Fraction) -> None:
    mine(store, kind=kind)

    assert loss_of_day(store, step_with(weth_after).snapshot, before=SNAPSHOT) == loss + GAS_VALUE


def test_balance_fall_of_known_balances_is_an_external_transfer(store: Store) -> None:
    """It counts once: as a decrease of the wallet, not as a loss of the swap."""
    raw_by_token = {holding.token: holding.raw for holding in SNAPSHOT.holdings}
    store.balances.record(SNAPSHOT, raw_by_token, (), 0)
    mine(store)
    after = step_with(weth=9)
    later = replace(after, snapshot=replace(after.snapshot, head=replace(SNAPSHOT.head, number=SNAPSHOT.head.number + 1)))

    assert loss_of_day(store, later.snapshot, lambda: later, SNAPSHOT) == ETHER_VALUE + GAS_VALUE
    assert store.budgets.history(SNAPSHOT.head.timestamp_s).budgets.decrease_24h == ETHER_VALUE


def test_unread_balance_is_no_loss(store: Store) -> None:
    mine(store)
    unread = replace(SNAPSHOT, holdings=tuple(holding for holding in SNAPSHOT.holdings if holding.token != WETH))

    assert loss_of_day(store, unread, before=SNAPSHOT) == GAS_VALUE


@pytest.mark.parametrize(("missing_wei", "loss"), [(0, 0), (1, WEI_VALUE)], ids=["all arrived", "one wei short"])
def test_unwrapping_costs_its_gas_once_by_balances(store: Store, missing_wei: int, loss: Fraction) -> None:
    """The wallet's native coin falls by the gas, which is booked by itself."""
    mine(store, wrap_transfers=(Transfer(WETH, WALLET, NATIVE, ETHER),))
    after = replace(step_with(weth=9).snapshot, native_wei=SNAPSHOT.native_wei + ETHER - GAS_WEI - missing_wei)

    assert loss_of_day(store, after, before=SNAPSHOT) == loss + GAS_VALUE


# --- Purposes


def test_granted_payout_is_no_loss(store: Store) -> None:
    paid = Transfer(USDC, WALLET, OTHER, 7 * DOLLAR)
    granted = replace(grant(IntentKind.PAYOUT), payout=Payout(USDC, OTHER, 7 * DOLLAR, 0, 1))
    mine(store, paid, kind=IntentKind.PAYOUT, granted=granted)

    assert loss_of_day(store) == GAS_VALUE
    assert store.budgets.history(SNAPSHOT.head.timestamp_s).budgets.outflow_24h == 7 * DOLLAR


@pytest.mark.parametrize(("is_exit", "turnover"), [(True, 0), (False, ETHER_VALUE)], ids=["exit", "rebalance"])
def test_swap_has_the_turnover_of_its_plan(store: Store, is_exit: bool, turnover: Fraction) -> None:
    plan = outcome_of(step_with_stops("WETH")).plan
    plan = replace(plan, decision=replace(plan.decision, is_exit=is_exit))  # type: ignore[type-var]  # a rebalance
    swapped = (Transfer(WETH, WALLET, OTHER, ETHER), Transfer(USDC, OTHER, WALLET, int(ETHER_VALUE)))
    mine(store, *swapped, granted=replace(grant(), plan=plan))

    settle_mined(store, SNAPSHOT, unneeded_step)

    assert store.budgets.history(SNAPSHOT.head.timestamp_s).budgets.turnover_24h == turnover


# --- Times


def test_header_from_the_future_books_no_later_than_clock(store: Store) -> None:
    """A rebalance remembered for next year would halt every step until then."""
    mine(store)
    future_head = replace(SNAPSHOT.head, timestamp_s=SNAPSHOT.head.timestamp_s + 10**8)

    settle_mined(store, replace(SNAPSHOT, head=future_head), unneeded_step)

    assert store.budgets.history(0).reviews.last_rebalance_s == SNAPSHOT.now_s + MAX_BLOCK_LEAD_S


def test_clock_set_back_takes_nothing_out_of_the_day(store: Store) -> None:
    mine(store)

    assert loss_of_day(store, replace(SNAPSHOT, now_s=SNAPSHOT.now_s - 7 * DAY_S)) == GAS_VALUE


# --- Gas while the native coin has no price


@pytest.mark.parametrize("kind", [IntentKind.APPROVE, IntentKind.CANCEL, IntentKind.SWAP])
@pytest.mark.parametrize(
    ("ages_s", "value"),
    [
        pytest.param((), Fraction(0), id="never priced"),
        pytest.param((3_600,), GAS_VALUE, id="an hour old"),
        pytest.param((7 * DAY_S,), GAS_VALUE, id="a week old"),
        pytest.param((7 * DAY_S + 1,), Fraction(0), id="older"),
        pytest.param((2 * DAY_S, 3_600), GAS_VALUE, id="the newest"),
    ],
)
def test_gas_without_a_price__counts_at_the_last_recorded_one(
    store: Store, kind: IntentKind, ages_s: tuple[int, ...], value: Fraction
) -> None:
    mine(store, kind=kind, input_json=codec.dumps(UNPRICED))
    now_s = SNAPSHOT.head.timestamp_s
    for age_s in ages_s:
        price = WEI_VALUE if age_s == ages_s[-1] else 2 * WEI_VALUE
        store.prices.record(UNPRICED.portfolio.numeraire.address, [PricePoint(WETH, now_s - age_s, price)])
    settle_mined(store, SNAPSHOT, unneeded_step)
    assert store.budgets.history(now_s).budgets.loss_total == value
