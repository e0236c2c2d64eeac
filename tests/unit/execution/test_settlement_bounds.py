"""Exact bounds of booking: turnover that limits exclude, gains that prove nothing, native coin, and the time that counts."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent import codec
from agent.execution import settlement
from agent.execution.settlement import BookingPrices, TradePurpose
from agent.execution.shortfall import shortfall_by_receipt
from agent.model import Intent, IntentKind, Payout, StepInput, Transfer
from agent.store.store import Store
from tests.support.builders import step_input
from tests.support.records.settlements import DAI, PRICES, ROUTER, USDC, WETH, settled_swap
from tests.support.transactions import OTHER, START_S, WALLET

SALE = Transfer(WETH, WALLET, ROUTER, 10)
"""Ten of a token at 2,000."""
GAS_PRICE = Fraction(1, 10**12)


def proceeds(raw: int) -> Transfer:
    return Transfer(USDC, ROUTER, WALLET, raw)


def booked(folder: Path, *transfers: Transfer, can_prove_gain: bool = True, **purpose: Any) -> tuple[Fraction, Store, Intent]:
    """Return loss, store and intent of a swap with these transfers."""
    setup, intent = settled_swap(folder, *transfers)
    prices = BookingPrices(PRICES, GAS_PRICE, can_prove_gain=can_prove_gain)
    loss = settlement.book_intent(setup.store.budgets, intent, WALLET, prices, START_S, purpose=TradePurpose(**purpose))
    return loss, setup.store, intent


@pytest.mark.parametrize(("exempt", "turnover"), [(0, 20_000), (19_999, 1), (20_000, 0), (20_001, 0)])
def test_turnover_is_less_the_exempt_part_and_not_negative(tmp_path: Path, exempt: int, turnover: int) -> None:
    _, store, _ = booked(tmp_path, SALE, proceeds(20_000), exempt_turnover=Fraction(exempt))
    assert store.budgets.history(START_S).budgets.turnover_24h == turnover


def test_a_gain_at_prices_of_another_time_costs_its_gas(tmp_path: Path) -> None:
    loss, _, intent = booked(tmp_path, SALE, proceeds(20_500), can_prove_gain=False)
    assert intent.receipt is not None
    assert loss == intent.receipt.gas_cost_wei * GAS_PRICE


def test_a_loss_at_prices_of_another_time_counts_in_full(tmp_path: Path) -> None:
    loss, _, intent = booked(tmp_path, SALE, proceeds(19_000), can_prove_gain=False)
    assert intent.receipt is not None
    assert loss == 1_000 + intent.receipt.gas_cost_wei * GAS_PRICE


def test_a_gain_at_its_own_prices_is_a_negative_loss(tmp_path: Path) -> None:
    loss, _, intent = booked(tmp_path, SALE, proceeds(20_500))
    assert intent.receipt is not None
    assert loss == -500 + intent.receipt.gas_cost_wei * GAS_PRICE


def with_value(folder: Path, to: str, value_wei: int, status: int = 1) -> Intent:
    """Return a mined intent that sent this value and unwrapped 7 wei to the wallet."""
    _, intent = settled_swap(folder)
    assert intent.receipt is not None
    unwrapped = (Transfer(WETH, WALLET, settlement.NATIVE, 7),)
    return replace(
        intent,
        tx=replace(intent.tx, to=to, value_wei=value_wei),
        receipt=replace(intent.receipt, status=status, wrap_transfers=unwrapped),
    )


@pytest.mark.parametrize(("to", "change_wei"), [(OTHER, 7 - 5), (WALLET, 7)])
def test_native_change_is_unwrapped_less_sent(tmp_path: Path, to: str, change_wei: int) -> None:
    assert with_value(tmp_path, to, 5).native_change_wei(WALLET, WETH) == change_wei


def test_a_reverted_transaction_moves_no_native_coin(tmp_path: Path) -> None:
    assert with_value(tmp_path, OTHER, 5, status=0).native_change_wei(WALLET, WETH) == 0


def at(block_s: int, now_s: int) -> StepInput:
    step = step_input()
    snapshot = replace(step.snapshot, head=replace(step.snapshot.head, timestamp_s=block_s), now_s=now_s)
    return replace(step, snapshot=snapshot)


LEAD_S = settlement.MAX_CLOCK_LEAD_S


@pytest.mark.parametrize(("block_s", "review_s"), [(900, 900), (1_000 + LEAD_S, 1_000 + LEAD_S), (1_001 + LEAD_S, 1_000 + LEAD_S)])
def test_review_time_is_at_most_a_little_after_the_clock(block_s: int, review_s: int) -> None:
    assert settlement.capped_chain_time_s(at(block_s, now_s=1_000).snapshot) == review_s


@pytest.mark.parametrize(
    ("block_s", "own_s", "chain_s"),
    [(900, None, 900), (2_000, None, 1_000 + LEAD_S), (2_000, 1_500, 1_500), (2_000, 500, 1_000 + LEAD_S), (1_400, 1_500, 1_400)],
)
def test_booking_time_is_between_its_step_and_the_clock(block_s: int, own_s: int | None, chain_s: int) -> None:
    own_step = None if own_s is None else at(own_s, now_s=own_s)
    assert settlement._booking_time_s(at(block_s, now_s=1_000).snapshot, own_step) == chain_s


@pytest.mark.parametrize(("more_wei", "left_wei"), [(-1, 0), (0, 0), (1, 1)])
def test_gas_leaves_no_native_coin_below_zero(tmp_path: Path, more_wei: int, left_wei: int) -> None:
    _, intent = settled_swap(tmp_path)
    assert intent.receipt is not None
    step = step_input()
    step = replace(step, snapshot=replace(step.snapshot, native_wei=intent.receipt.gas_cost_wei + more_wei))
    assert settlement.after_gas(step, intent).snapshot.native_wei == left_wei


def test_balances_with_native_coin_are_those_before_the_gas(tmp_path: Path) -> None:
    _, intent = settled_swap(tmp_path)
    assert intent.receipt is not None
    before = replace(step_input().snapshot, native_wei=10**18)
    after = replace(before, native_wei=10**18 - intent.receipt.gas_cost_wei - 5)
    balances = ({WETH: 3, USDC: 4}, {WETH: 1, USDC: 6})
    old, new = settlement._with_native(balances, (before, after), intent, WETH)
    assert old == {WETH: 3 + 10**18, USDC: 4}
    assert new == {WETH: 1 + 10**18 - 5, USDC: 6}


@pytest.mark.parametrize("balances", [({WETH: 1}, {}), ({WETH: 3}, {WETH: 2})])
def test_a_token_that_is_gone_or_less_is_lost_at_its_price(balances: tuple[dict[str, int], dict[str, int]]) -> None:
    assert settlement.trade_loss(*balances, PRICES, Fraction(0)) == 2_000


def test_the_step_of_a_transaction_is_read_from_the_store(tmp_path: Path) -> None:
    setup, intent = settled_swap(tmp_path)
    setup.store.steps.begin("own", START_S, codec.dumps(step_input()))
    assert settlement.originating_step(setup.store.steps, replace(intent, step_id="own")) == step_input()


@pytest.mark.parametrize("step_id", ["unknown", "step0"])
def test_a_step_that_is_missing_or_cannot_be_read_is_none(tmp_path: Path, step_id: str) -> None:
    setup, intent = settled_swap(tmp_path)
    assert settlement.originating_step(setup.store.steps, replace(intent, step_id=step_id)) is None


def test_a_transaction_without_plan_and_action_owes_nothing(tmp_path: Path) -> None:
    setup, intent = settled_swap(tmp_path)
    setup.store.steps.begin("own", START_S, codec.dumps(step_input()))
    assert shortfall_by_receipt(setup.store, replace(intent, step_id="own")) == {}


def test_a_token_without_price_that_did_not_change_costs_nothing() -> None:
    assert settlement.trade_loss({DAI: 5}, {DAI: 5}, PRICES, Fraction(0)) == 0


def test_a_payout_of_a_token_without_price_is_no_outflow(tmp_path: Path) -> None:
    _, store, _ = booked(tmp_path, Transfer(DAI, WALLET, ROUTER, 7), payout=Payout(DAI, ROUTER, 7, 0, 1))
    assert store.budgets.history(START_S).budgets.outflow_24h == 0


def booked_coin(folder: Path, value_wei: int, *wrapped: Transfer, payout: Payout | None = None) -> tuple[Fraction, Fraction, Fraction]:
    """Return loss, turnover and outflow of a transaction with this value of native coin, at no price of gas."""
    setup, intent = settled_swap(folder)
    assert intent.receipt is not None
    coin = replace(
        intent,
        kind=intent.kind if payout is None else IntentKind.PAYOUT,
        tx=replace(intent.tx, value_wei=value_wei),
        receipt=replace(intent.receipt, wrap_transfers=wrapped),
    )
    budgets = setup.store.budgets
    prices = BookingPrices(PRICES, Fraction(0), wrapped_native=WETH)
    loss = settlement.book_intent(budgets, coin, WALLET, prices, START_S, purpose=TradePurpose(payout))
    day = budgets.history(START_S).budgets
    return loss, day.turnover_24h, day.outflow_24h


def test_wrapped_coin_is_neither_loss_nor_turnover(tmp_path: Path) -> None:
    assert booked_coin(tmp_path, 5, Transfer(WETH, settlement.NATIVE, WALLET, 5)) == (0, 0, 0)


def test_native_coin_sent_for_nothing_is_lost(tmp_path: Path) -> None:
    assert booked_coin(tmp_path, 5)[0] == 5 * 2_000


def test_native_payout_is_an_outflow_at_its_token_s_price(tmp_path: Path) -> None:
    payout = Payout(settlement.NATIVE, OTHER, 5, 0, 1)
    assert booked_coin(tmp_path, 5, payout=payout) == (0, 0, 5 * 2_000)


def test_what_the_recipient_of_a_payout_unwraps_is_no_gain(tmp_path: Path) -> None:
    """The recipient of a payout, a contract, turns coins of its own into native coin meanwhile."""
    unwrapped = Transfer(WETH, ROUTER, settlement.NATIVE, 7)
    payout = Payout(settlement.NATIVE, ROUTER, 5, 0, 1)
    assert booked_coin(tmp_path, 5, unwrapped, payout=payout)[0] == 0
