"""Books that go on whatever lies in a receipt, in the store, or in a header's time (T6, T11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent import codec
from agent.execution.settlement import MAX_CLOCK_LEAD_S, settle_mined
from agent.model import History, Holding, Intent, IntentKind, IntentState, Snapshot, StepInput, Transfer
from agent.store import Store, open_store
from agent.units import NATIVE
from tests.support import builders
from tests.support.transactions import CHAIN_ID, GWEI, OTHER, WALLET, grant, receipt, tx

WETH, USDC = builders.token("WETH"), builders.token("USDC")
STRANGER = builders.address("a token nobody asked for")
COIN, DOLLAR = 10**18, 10**6


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET)


def step(weth: int = 10, usdc: int = 20_000) -> StepInput:
    source = builders.step_input()
    raw_by_token = {WETH.address: weth * COIN, USDC.address: usdc * DOLLAR}
    holdings = tuple(Holding(holding.token, raw_by_token.get(holding.token, holding.raw)) for holding in source.snapshot.holdings)
    return replace(source, snapshot=replace(source.snapshot, owner=WALLET, holdings=holdings))


def swapped(
    store: Store, step_input: StepInput, *transfers: Transfer, text: str | None = None, value_wei: int = 0, status: int = 1
) -> Intent:
    """A swap of that step, mined with these events."""
    store.steps.begin("s", 1, codec.dumps(step_input) if text is None else text)
    intent = store.journal.add_intent("s", IntentKind.SWAP, replace(tx(0), value_wei=value_wei), grant(), "swap", 1, None)
    store.journal.advance(intent.id, IntentState.SIGNED, 1, tx_hash="0xaa")
    store.journal.advance(intent.id, IntentState.BROADCAST, 1)
    mined = replace(receipt("0xaa", 1, "0x01"), transfers=transfers, status=status)
    return store.journal.advance(intent.id, IntentState.MINED, 1, receipt=mined)


def never() -> StepInput:
    raise AssertionError("present prices are not needed")


def booked(store: Store, snapshot: Snapshot, present: Callable[[], StepInput] = never, before: Snapshot | None = None) -> History:
    settle_mined(store, snapshot, present, before)
    return store.budgets.history(snapshot.head.timestamp_s)


def gas_value(step_input: StepInput) -> Fraction:
    return Fraction(50_000 * 2 * GWEI, COIN) * builders.PRICES["WETH"] * DOLLAR


def test_foreign_event_that_takes_from_us_books_nothing(store: Store) -> None:
    """Any contract that a swap touches may emit a Transfer from our wallet; it must neither block nor count."""
    source = step()
    swapped(store, source, Transfer(STRANGER, WALLET, OTHER, 10**30))
    history = booked(store, source.snapshot)
    assert store.journal.unbooked_intents() == ()
    assert history.budgets.loss_24h == gas_value(source)


@pytest.mark.parametrize("text", ["{}", "not JSON", '{"from": "another version"}'])
def test_unreadable_step_is_booked_at_current_prices(store: Store, text: str) -> None:
    source = step()
    swapped(store, source, Transfer(WETH.address, WALLET, OTHER, COIN), text=text)
    history = booked(store, source.snapshot, lambda: source)
    assert store.journal.unbooked_intents() == ()
    assert history.budgets.loss_24h == builders.PRICES["WETH"] * DOLLAR + gas_value(source)


def test_current_prices_prove_no_gain(store: Store) -> None:
    source = step()
    swapped(store, source, Transfer(USDC.address, OTHER, WALLET, 5_000 * DOLLAR), text="{}")
    assert booked(store, source.snapshot, lambda: source).budgets.loss_24h == gas_value(source)


def test_unpriced_spend_waits_for_its_price(store: Store) -> None:
    source = step()
    swapped(store, source, Transfer(WETH.address, WALLET, OTHER, COIN), Transfer(USDC.address, OTHER, WALLET, DOLLAR), text="{}")
    blind = replace(source, snapshot=replace(source.snapshot, feeds=(), pools=()))
    assert booked(store, source.snapshot, lambda: blind).budgets.loss_24h == 0
    assert len(store.journal.unbooked_intents()) == 1
    assert booked(store, source.snapshot, lambda: source).budgets.loss_24h > 0


def test_native_spend_waits_for_the_price_of_its_token(store: Store) -> None:
    """A swap of 1 ETH has no event of what was spent, and must not be booked as free of loss."""
    source = step()
    swapped(store, source, Transfer(USDC.address, OTHER, WALLET, DOLLAR), text="{}", value_wei=COIN)
    blind = replace(source, snapshot=replace(source.snapshot, feeds=(), pools=()))
    assert booked(store, source.snapshot, lambda: blind).budgets.loss_24h == 0
    assert len(store.journal.unbooked_intents()) == 1
    lost = builders.PRICES["WETH"] * DOLLAR - DOLLAR
    assert booked(store, source.snapshot, lambda: source).budgets.loss_24h == lost + gas_value(source)


def test_reverted_native_spend_needs_no_price(store: Store) -> None:
    source = step()
    swapped(store, source, text="{}", value_wei=COIN, status=0)
    booked(store, source.snapshot, lambda: replace(source, snapshot=replace(source.snapshot, feeds=(), pools=())))
    assert store.journal.unbooked_intents() == ()


@pytest.mark.parametrize("moved", [Transfer(WETH.address, OTHER, WALLET, COIN), Transfer(STRANGER, WALLET, OTHER, COIN)])
def test_only_an_asset_that_was_spent_needs_a_price(store: Store, moved: Transfer) -> None:
    source = step()
    swapped(store, source, moved, text="{}")
    booked(store, source.snapshot, lambda: replace(source, snapshot=replace(source.snapshot, feeds=(), pools=())))
    assert store.journal.unbooked_intents() == ()


def test_unread_balance_is_no_loss(store: Store) -> None:
    source = step()
    swapped(store, source)
    unread = replace(source.snapshot, holdings=tuple(h for h in source.snapshot.holdings if h.token != WETH.address))
    assert booked(store, unread, before=source.snapshot).budgets.loss_24h == gas_value(source)


def test_balance_fall_without_an_event_is_a_loss(store: Store) -> None:
    source = step(weth=10)
    swapped(store, source)
    fewer = step(weth=9).snapshot
    assert booked(store, fewer, before=source.snapshot).budgets.loss_24h == builders.PRICES["WETH"] * DOLLAR + gas_value(source)


def test_header_from_the_future_books_no_later_than_clock(store: Store) -> None:
    """A rebalance remembered for next year would halt every step until then."""
    source = step()
    swapped(store, source)
    year = replace(source.snapshot.head, timestamp_s=source.snapshot.head.timestamp_s + 10**8)
    settle_mined(store, replace(source.snapshot, head=year), never)
    assert store.budgets.history(0).reviews.last_rebalance_s == source.snapshot.now_s + MAX_CLOCK_LEAD_S


def test_clock_set_back_takes_nothing_out_of_the_day(store: Store) -> None:
    source = step()
    swapped(store, source)
    settle_mined(store, replace(source.snapshot, now_s=source.snapshot.now_s - 7 * 86_400), never)
    assert store.budgets.history(source.snapshot.head.timestamp_s).budgets.loss_24h == gas_value(source)


def test_unwrapping_costs_its_gas_once_also_by_balances(store: Store) -> None:
    """The wallet's native coin falls by the gas, which is booked by itself."""
    source = step()
    gas_wei = 50_000 * 2 * GWEI
    after = replace(step(weth=9).snapshot, native_wei=source.snapshot.native_wei + COIN - gas_wei)
    intent = swapped(store, source)
    assert intent.receipt is not None
    unwrapped = replace(intent.receipt, wrap_transfers=(Transfer(WETH.address, WALLET, NATIVE, COIN),))
    store.journal.advance(intent.id, IntentState.MINED, 1, receipt=unwrapped)
    assert booked(store, after, before=source.snapshot).budgets.loss_24h == gas_value(source)
