"""What actions with liquidity are booked as: wallet and positions together at one set of prices, gas, and no turnover."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.amm.lp import position_changes
from agent.amm.lp import positions as exact
from agent.amm.v3.math import get_tick_at_sqrt_ratio
from agent.execution import settlement
from agent.model import (  # fmt: skip
    Collect,
    Holding,
    IntentKind,
    IntentState,
    LiquidityAdded,
    LpAction,
    LpPosition,
    LpV3Position,
    Provide,
    Receipt,
    StepInput,
    Transfer,
    Withdraw,
)
from agent.reference import reference_prices
from agent.store import Store
from tests.support import builders, lp_worlds
from tests.support.signing import grant_of
from tests.support.stores import store_fixture
from tests.support.transactions import START_S, receipt, tx

TOKEN0, TOKEN1 = lp_worlds.TOKENS
GAS_WEI = 50_000 * 2 * 10**9
POOL = builders.address("pool")


def step_with(*positions: LpPosition) -> StepInput:
    """A wallet of WETH and USDC with these positions, all confirmed."""
    step = builders.step_input()
    confirmed = tuple(lp_worlds.confirmed_position(position) for position in positions)
    portfolio = replace(step.portfolio, positions=confirmed)
    return replace(step, portfolio=portfolio, snapshot=replace(step.snapshot, positions=positions))


def prices(step: StepInput) -> tuple[Fraction, Fraction]:
    price_by_token = reference_prices(step).price_by_token
    return price_by_token[TOKEN0], price_by_token[TOKEN1]


def at_reference(step: StepInput, width: int = 6_000, liquidity: int = 10**15) -> LpV3Position:
    """A position around the tick of the reference price, whose pool stands there."""
    price0, price1 = prices(step)
    at_x96 = exact.sqrt_price_x96(price0 / price1)
    tick = get_tick_at_sqrt_ratio(at_x96) // 60 * 60
    plain = lp_worlds.v3(tick - width, tick + width, liquidity, tick)
    return replace(plain, pool=POOL, sqrt_price_x96=at_x96, owed=(7_000, 9_000), core_owed=(7_000, 9_000))


store = store_fixture(wallet=builders.OWNER)


def mined(store: Store, step: StepInput, action: LpAction, net: tuple[int, int], *added: LiquidityAdded, status: int = 1) -> Receipt:
    """An action whose receipt moved so many base units into the wallet."""
    store.steps.begin("s", START_S, codec.dumps(step))
    intent = store.journal.add_intent("s", IntentKind.LIQUIDITY, tx(0), grant_of(action), "liquidity", START_S, None)
    store.journal.advance(intent.id, IntentState.SIGNED, START_S, tx_hash="0x01")
    store.journal.advance(intent.id, IntentState.BROADCAST, START_S)
    sides = [(POOL, builders.OWNER) if raw > 0 else (builders.OWNER, POOL) for raw in net]
    transfers = tuple(Transfer(token, *side, abs(raw)) for token, side, raw in zip((TOKEN0, TOKEN1), sides, net, strict=True))
    changed_receipt = replace(receipt("0x01", 5, "0xb", status), transfers=transfers if status else (), liquidity_added=added)
    store.journal.advance(intent.id, IntentState.MINED, START_S, receipt=changed_receipt)
    return changed_receipt


def booked(store: Store, step: StepInput, after: StepInput | None = None) -> tuple[Fraction, Fraction, int]:
    """(loss, turnover, gas) of the last day, once everything is booked; again changes nothing."""
    snapshot = step.snapshot if after is None else after.snapshot
    for _ in range(2):
        settlement.settle_mined(store, snapshot, lambda: step, snapshot_before=None if after is None else step.snapshot)
    assert store.journal.unbooked_intents() == ()
    history = store.budgets.history(step.snapshot.head.timestamp_s)
    return history.budgets.loss_24h, history.budgets.turnover_24h, history.budgets.gas_24h_wei


def gas_value(step: StepInput) -> Fraction:
    return GAS_WEI * reference_prices(step).reference_by_token[step.portfolio.wrapped_native].price


def withdraw(position: LpV3Position, liquidity: int) -> Withdraw:
    amounts = exact.principal(position, liquidity)
    fees = exact.uncollected_fees(position)
    return Withdraw(
        "uniswap_v3", position.manager, 42, POOL, TOKEN0, TOKEN1, liquidity, amounts, amounts, fees, 1, "test", position.liquidity
    )


def received(action: Withdraw) -> tuple[int, int]:
    return action.amounts_raw[0] + action.fees_raw[0], action.amounts_raw[1] + action.fees_raw[1]


@pytest.mark.parametrize("part", [1, 3])
def test_a_withdrawal_that_pays_what_it_stood_for_costs_its_gas(store: Store, part: int) -> None:
    step = step_with(position := at_reference(step_with()))
    action = withdraw(position, position.liquidity // part)
    mined(store, step, action, received(action))
    loss, turnover, gas = booked(store, step)
    assert turnover == 0
    assert gas == GAS_WEI
    assert 0 <= loss - gas_value(step) <= 4 * sum(prices(step)), "no more than the rounding of both contracts"


def test_a_withdrawal_that_pays_less_than_it_stood_for_is_a_loss(store: Store) -> None:
    step = step_with(position := at_reference(step_with()))
    action = withdraw(position, position.liquidity)
    whole = received(action)
    missing = whole[1] // 10
    mined(store, step, action, (whole[0], whole[1] - missing))
    loss, _, _ = booked(store, step)
    assert loss - gas_value(step) == pytest.approx(missing * prices(step)[1], rel=1e-6)


def test_mint__costs_its_gas_and_what_is_paid_above_the_reference(store: Store) -> None:
    step = step_with()
    position = at_reference(step)
    amounts = tuple(raw + 1 for raw in exact.principal(position))
    action = Provide(
        "uniswap_v3", position.manager, None, POOL, TOKEN0, TOKEN1, 3_000, (position.tick_lower, position.tick_upper),
        position.liquidity, amounts, amounts, amounts, 1, "test",
    )  # fmt: skip
    liquidity_added = LiquidityAdded(position.manager, 43, position.liquidity, (2 * amounts[0], amounts[1]), builders.OWNER)
    mined(store, step, action, (-2 * amounts[0], -amounts[1]), liquidity_added)
    loss, turnover, _ = booked(store, step)
    assert turnover == 0
    assert loss - gas_value(step) == pytest.approx(amounts[0] * prices(step)[0], rel=1e-6)


def test_fees_that_are_collected_are_no_gain_and_no_loss(store: Store) -> None:
    step = step_with(position := at_reference(step_with()))
    fees = exact.uncollected_fees(position)
    mined(store, step, Collect("uniswap_v3", position.manager, 42, POOL, TOKEN0, TOKEN1, fees, 1, "test"), fees)
    assert booked(store, step)[0] == gas_value(step)


def test_liquidity_added__keeps_the_position_s_fees(store: Store) -> None:
    step = step_with(position := at_reference(step_with()))
    half = position.liquidity // 2
    amounts = tuple(raw + 1 for raw in exact.principal(position, half))
    action = Provide("uniswap_v3", position.manager, 42, POOL, TOKEN0, TOKEN1, 3_000, None, half, amounts, amounts, amounts, 1, "test")
    mined(store, step, action, (-amounts[0], -amounts[1]), LiquidityAdded(position.manager, 42, half, amounts, None))
    loss, _, _ = booked(store, step)
    assert 0 <= loss - gas_value(step) <= 4 * sum(prices(step))


@pytest.mark.parametrize(("part", "unread"), [(1, False), (1, True), (2, False), (2, True)])
def test_snapshots__count_where_worse_than_the_receipt(store: Store, part: int, unread: bool) -> None:
    """A token that lies in its events hides no loss; a position that could not be read proves none, except that one taken out
    wholly is read no more and is nothing.
    """
    step = step_with(position := at_reference(step_with()))
    action = withdraw(position, position.liquidity // part)
    whole = received(action)
    mined(store, step, action, whole)
    book_after = position_changes.after_withdrawal(position, action.liquidity)
    came = {TOKEN0: whole[0], TOKEN1: whole[1] // 2}
    holdings = tuple(Holding(item.token, item.raw + came[item.token]) for item in step.snapshot.holdings)
    after = builders.with_snapshot(step, holdings=holdings, positions=() if unread else (book_after,))
    loss, _, _ = booked(store, step, after)
    expected = Fraction(0) if unread and part > 1 else (whole[1] - whole[1] // 2) * prices(step)[1]
    assert loss - gas_value(step) == pytest.approx(float(expected), abs=float(4 * sum(prices(step))))


def test_an_action_that_reverted_costs_its_gas(store: Store) -> None:
    step = step_with(position := at_reference(step_with()))
    mined(store, step, withdraw(position, position.liquidity), (0, 0), status=0)
    assert booked(store, step) == (gas_value(step), 0, GAS_WEI)


def test_missing_plan_step__leaves_only_gas_as_known_loss(store: Store) -> None:
    step = step_with(position := at_reference(step_with()))
    action = withdraw(position, position.liquidity)
    store.steps.begin("s", START_S, "{}")
    intent = store.journal.add_intent("s", IntentKind.LIQUIDITY, tx(0), grant_of(action), "liquidity", START_S, None)
    store.journal.advance(intent.id, IntentState.SIGNED, START_S, tx_hash="0x01")
    store.journal.advance(intent.id, IntentState.BROADCAST, START_S)
    store.journal.advance(intent.id, IntentState.MINED, START_S, receipt=receipt("0x01", 5, "0xb"))
    assert booked(store, step)[0] == gas_value(step)
