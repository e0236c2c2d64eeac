"""Tests of agent/layers/liquidity/execution/booking.py: the loss of a mined action, at one set of prices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest

from agent import codec
from agent.amm.lp import position_changes, positions
from agent.amm.v3.math import get_tick_at_sqrt_ratio
from agent.execution import settlement
from agent.model import (
    Collect,
    Holding,
    LiquidityAdded,
    LpAction,
    LpPosition,
    LpV3Position,
    Provide,
    StepInput,
    Transfer,
    Withdraw,
)
from agent.store import Store
from tests.support import builders, lp_worlds
from tests.support.builders import OWNER, with_snapshot
from tests.support.lp_worlds import PRICES, TOKENS
from tests.support.signing import grant_of
from tests.support.stores import store_fixture
from tests.support.tokens import WETH
from tests.support.transactions import START_S, receipt, record_sent, tx

GAS_WEI = 50_000 * 2 * 10**9
GAS_VALUE = GAS_WEI * PRICES[WETH.address]
POOL = builders.address("pool")
PRICE0, PRICE1 = (PRICES[token] for token in TOKENS)
ROUNDING = float(4 * (PRICE0 + PRICE1))
"""Value of the rounding of both contracts."""

store = store_fixture(wallet=OWNER)


def step_with(*pool_positions: LpPosition) -> StepInput:
    """Return a step of WETH and USDC with these positions, all confirmed."""
    step = builders.step_input()
    confirmed = tuple(map(lp_worlds.confirmed_position, pool_positions))
    return replace(with_snapshot(step, positions=pool_positions), portfolio=replace(step.portfolio, positions=confirmed))


def reference_position() -> LpV3Position:
    """Return a position around the reference price, where its pool stands, with uncollected fees."""
    sqrt_price_x96 = positions.sqrt_price_x96(PRICE0 / PRICE1)
    tick = get_tick_at_sqrt_ratio(sqrt_price_x96) // 60 * 60
    position = lp_worlds.v3(tick - 6_000, tick + 6_000, 10**15, tick)
    return replace(position, pool=POOL, sqrt_price_x96=sqrt_price_x96, owed=(7_000, 9_000), core_owed=(7_000, 9_000))


POSITION = reference_position()
FEES = positions.uncollected_fees(POSITION)
STEP = step_with(POSITION)


def withdrawal(part: int = 1) -> Withdraw:
    """Return the withdrawal of this part of the position."""
    liquidity = POSITION.liquidity // part
    amounts_raw = positions.principal(POSITION, liquidity)
    return Withdraw(
        "uniswap_v3", POSITION.manager, 42, POOL, *TOKENS, liquidity, amounts_raw, amounts_raw, FEES, 1, "test", POSITION.liquidity
    )


def provision(token_id: int | None, liquidity: int, ticks: tuple[int, int] | None = None) -> Provide:
    """Return a provision that takes the amounts of this liquidity, rounded up."""
    principal = positions.principal(POSITION, liquidity)
    amounts_raw = (principal[0] + 1, principal[1] + 1)
    return Provide(
        "uniswap_v3", POSITION.manager, token_id, POOL, *TOKENS, 3_000, ticks, liquidity, amounts_raw, amounts_raw, amounts_raw, 1, "test"
    )


def payout(action: Withdraw) -> tuple[int, int]:
    """Return the amounts and fees that a withdrawal pays."""
    return action.amounts_raw[0] + action.fees_raw[0], action.amounts_raw[1] + action.fees_raw[1]


def add_mined(
    store: Store,
    action: LpAction,
    net_raw: tuple[int, int],
    *added: LiquidityAdded,
    step_json: str = codec.dumps(STEP),
    status: int = 1,
) -> None:
    """Add a mined intent of an action whose receipt moved so many base units into the wallet."""
    store.steps.begin("s", START_S, step_json)
    intent = store.journal.add_intent("s", tx(0), grant_of(action), "liquidity", START_S, None)
    transfers = tuple(
        Transfer(token, *((POOL, OWNER) if raw > 0 else (OWNER, POOL)), abs(raw)) for token, raw in zip(TOKENS, net_raw, strict=True)
    )
    mined_receipt = replace(receipt("0x01", 5, "0xb", status), transfers=transfers if status else (), liquidity_added=added)
    record_sent(store.journal, intent, "0x01", receipt=mined_receipt)


@dataclass(frozen=True)
class DayTotals:
    """What the last day has booked: `loss` above gas and turnover in numeraire base units, gas in wei."""

    loss: Fraction
    turnover: Fraction
    gas_wei: int


def settle(store: Store, step: StepInput = STEP, step_after: StepInput | None = None) -> DayTotals:
    """Settle all mined intents, twice, and return the totals; `step_after` was read right after the action."""
    snapshot = (step_after or step).snapshot
    for _ in range(2):
        settlement.settle_mined(store, snapshot, lambda: step, snapshot_before=None if step_after is None else step.snapshot)
    budgets = store.budgets.history(step.snapshot.head.timestamp_s).budgets
    assert store.journal.unbooked_intents() == ()
    return DayTotals(budgets.loss_24h - GAS_VALUE, budgets.turnover_24h, budgets.gas_24h_wei)


# --- by the receipt


@pytest.mark.parametrize("part", [1, 3], ids=["all", "a third"])
def test_withdrawal_that_pays_its_value_loses_only_gas(store: Store, part: int) -> None:
    add_mined(store, withdrawal(part), payout(withdrawal(part)))

    totals = settle(store)

    assert (totals.turnover, totals.gas_wei) == (0, GAS_WEI)
    assert 0 <= totals.loss <= ROUNDING


def test_withdrawal_that_pays_less_loses_the_difference(store: Store) -> None:
    amount0_raw, amount1_raw = payout(withdrawal())
    missing_raw = amount1_raw // 10
    add_mined(store, withdrawal(), (amount0_raw, amount1_raw - missing_raw))

    assert settle(store).loss == pytest.approx(missing_raw * PRICE1, rel=1e-6)


@pytest.mark.parametrize("paid_times", [1, 2], ids=["its value", "twice its token0"])
def test_mint_loses_what_is_paid_above_the_reference(store: Store, paid_times: int) -> None:
    action = provision(None, POSITION.liquidity, (POSITION.tick_lower, POSITION.tick_upper))
    amount0_raw, amount1_raw = action.amounts_raw
    added = LiquidityAdded(POSITION.manager, 43, POSITION.liquidity, (paid_times * amount0_raw, amount1_raw), OWNER)
    add_mined(store, action, (-paid_times * amount0_raw, -amount1_raw), added, step_json=codec.dumps(step_with()))

    totals = settle(store, step_with())

    assert totals.turnover == 0
    assert totals.loss == pytest.approx((paid_times - 1) * amount0_raw * PRICE0, rel=1e-6, abs=ROUNDING)


def test_collected_fees_are_no_gain_and_no_loss(store: Store) -> None:
    add_mined(store, Collect("uniswap_v3", POSITION.manager, 42, POOL, *TOKENS, FEES, 1, "test"), FEES)

    assert settle(store).loss == 0


def test_added_liquidity_keeps_the_fees_of_its_position(store: Store) -> None:
    action = provision(42, POSITION.liquidity // 2)
    added = LiquidityAdded(POSITION.manager, 42, action.liquidity, action.amounts_raw, None)
    add_mined(store, action, (-action.amounts_raw[0], -action.amounts_raw[1]), added)

    assert 0 <= settle(store).loss <= ROUNDING


@pytest.mark.parametrize(
    ("step_json", "status"),
    [pytest.param(codec.dumps(STEP), 0, id="reverted"), pytest.param("{}", 1, id="plan step unreadable")],
)
def test_action_without_a_known_effect_loses_its_gas(store: Store, step_json: str, status: int) -> None:
    add_mined(store, withdrawal(), (0, 0), step_json=step_json, status=status)

    assert settle(store) == DayTotals(Fraction(0), Fraction(0), GAS_WEI)


# --- by the snapshots before and after


def step_after(part: int, received_raw: tuple[int, int], change: Callable[[StepInput], StepInput]) -> StepInput:
    """Return the step after the withdrawal of a part, whose wallet received so much."""
    received_by_token = dict(zip(TOKENS, received_raw, strict=True))
    holdings = tuple(Holding(holding.token, holding.raw + received_by_token[holding.token]) for holding in STEP.snapshot.holdings)
    rest = position_changes.after_withdrawal(POSITION, POSITION.liquidity // part)
    return change(with_snapshot(STEP, holdings=holdings, positions=(rest,)))


def unread(step: StepInput) -> StepInput:
    return with_snapshot(step, positions=())


def without_weth(step: StepInput) -> StepInput:
    return with_snapshot(step, holdings=tuple(holding for holding in step.snapshot.holdings if holding.token != WETH.address))


@pytest.mark.parametrize(
    ("part", "change", "counts"),
    [
        pytest.param(1, lambda step: step, True, id="all"),
        pytest.param(2, lambda step: step, True, id="half"),
        pytest.param(1, unread, True, id="all, no longer read"),
        pytest.param(2, unread, False, id="half, the rest not read"),
    ],
)
def test_snapshots_count_where_they_are_worse_than_the_receipt(
    store: Store, part: int, change: Callable[[StepInput], StepInput], counts: bool
) -> None:
    """A token that lies in its events hides no loss. A position that was not read proves none, but one withdrawn wholly is not read."""
    amount0_raw, amount1_raw = payout(withdrawal(part))
    add_mined(store, withdrawal(part), (amount0_raw, amount1_raw))

    totals = settle(store, step_after=step_after(part, (amount0_raw, amount1_raw // 2), change))

    lost_raw = amount1_raw - amount1_raw // 2
    assert totals.loss == pytest.approx(lost_raw * PRICE1 if counts else 0, abs=ROUNDING)


def test_snapshots_compare_only_balances_read_in_both(store: Store) -> None:
    """A balance of WETH that was not read after the action is no loss of all of it."""
    amount0_raw, amount1_raw = payout(withdrawal())
    add_mined(store, withdrawal(), (amount0_raw, amount1_raw))

    totals = settle(store, step_after=step_after(1, (amount0_raw, amount1_raw), without_weth))

    assert totals.loss < amount1_raw * PRICE1 + ROUNDING


def test_snapshots_count_a_position_that_stays_on_both_sides(store: Store) -> None:
    other = replace(POSITION, token_id=43)
    step = step_with(POSITION, other)
    received_raw = payout(withdrawal())
    add_mined(store, withdrawal(), received_raw, step_json=codec.dumps(step))

    after = step_after(1, received_raw, lambda after: with_snapshot(after, positions=(*after.snapshot.positions, other)))

    assert settle(store, step, after).loss == pytest.approx(0, abs=ROUNDING)


def test_snapshots_that_are_better_hide_no_loss_of_the_receipt(store: Store) -> None:
    amount0_raw, amount1_raw = payout(withdrawal())
    add_mined(store, withdrawal(), (amount0_raw, amount1_raw // 2))

    totals = settle(store, step_after=step_after(1, (amount0_raw, amount1_raw), lambda step: step))

    assert totals.loss == pytest.approx((amount1_raw - amount1_raw // 2) * PRICE1, rel=1e-6, abs=ROUNDING)
