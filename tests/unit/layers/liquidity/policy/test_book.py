"""Tests of agent/layers/liquidity/policy/book.py: exposure, spendable balances, moves to the base unit, and the price band."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.amm.lp import position_changes, positions
from agent.layers.futures.state import with_policy
from agent.layers.liquidity.policy.book import (
    LiquidityExposure,
    LiquidityLimits,
    PositionBook,
    liquidity_limits,
    max_pool_deviation_bps,
    price_deviation_reason,
)
from agent.model import ConfirmedPosition, LpV3Position, StepInput
from tests.support.builders import ETHER, with_snapshot
from tests.support.lp_worlds import TOKENS, USD, USDC, WETH, book, lp_target, paired, ranged, roomy, world
from tests.support.perpetuals.needs import in_usdc
from tests.support.perpetuals.steps import EMPTY
from tests.support.perpetuals.values import OURS

TENTH = LiquidityLimits(Fraction(1, 100), Fraction(1, 10))
"""Limits of 1 % loss and 10 % weight."""
JUST = Fraction(1, 10**9)


# --- limits and exposure


@pytest.mark.parametrize(
    ("loss", "value", "is_within"),
    [
        pytest.param(0, 0, True, id="no liquidity"),
        pytest.param(10, 100, True, id="at both limits"),
        pytest.param(11, 100, False, id="one unit of loss beyond"),
        pytest.param(10, 101, False, id="one unit of weight beyond"),
    ],
)
def test_exposure_may_equal_both_limits(loss: int, value: int, is_within: bool) -> None:
    assert LiquidityExposure(Fraction(loss), Fraction(value), Fraction(1_000)).is_within(TENTH) is is_within


def test_exposure_is_not_bound_by_limits_that_are_off() -> None:
    assert LiquidityExposure(Fraction(999), Fraction(999), Fraction(1_000)).is_within(LiquidityLimits(None, None))


def test_limits_scale_together_and_stay_off() -> None:
    assert TENTH.scaled(Fraction(1, 2)) == LiquidityLimits(Fraction(1, 200), Fraction(1, 20))
    assert LiquidityLimits(None, Fraction(1)).scaled(Fraction(1, 2)) == LiquidityLimits(None, Fraction(1, 2))


def test_liquidity_limits_are_those_of_the_config() -> None:
    assert liquidity_limits(roomy(impermanent_loss_bps=100, lp_max_weight_bps=1_000)) == TENTH
    assert liquidity_limits(roomy(impermanent_loss_bps=None, lp_max_weight_bps=None)) == LiquidityLimits(None, None)


def test_exposure_counts_wallet_positions_and_margin() -> None:
    step = world([paired(2_000)])
    hedged_step = with_policy(with_snapshot(step, futures=in_usdc(EMPTY)), OURS)

    exposure = book(step).exposure()

    assert exposure.portfolio_value - exposure.value == 8_000 * USD
    assert book(hedged_step).exposure().portfolio_value - exposure.portfolio_value == 10_000 * USD


@pytest.mark.parametrize(
    ("balance_usd", "total_usd"),
    [
        pytest.param(501, 4_001, id="a dollar above"),
        pytest.param(500, 4_000, id="at the reserve"),
        pytest.param(499, 4_000, id="a dollar below"),
        pytest.param(0, 4_000, id="empty"),
    ],
)
def test_exposure_counts_a_balance_below_its_reserve_as_zero(balance_usd: int, total_usd: int) -> None:
    """500 USDC are reserved beside 4,000 in WETH."""
    position_book = book(world(reserves={"USDC": 500}))
    balances = {**position_book.wallet_raw_by_token, USDC.address: balance_usd * USD}

    assert replace(position_book, wallet_raw_by_token=balances).exposure().portfolio_value == total_usd * USD


# --- spendable balances: 4,000 USDC


@pytest.mark.parametrize(
    ("reserve_usd", "uncertain_raw", "spendable_raw"),
    [
        pytest.param(0, 0, 4_000 * USD, id="all"),
        pytest.param(500, 300 * USD, 3_700 * USD, id="less reserve and uncertain"),
        pytest.param(500, 4_000 * USD, 0, id="all uncertain"),
        pytest.param(500, 4_001 * USD, 0, id="more than all uncertain"),
    ],
)
def test_spendable_is_the_certain_balance_above_the_reserve(reserve_usd: int, uncertain_raw: int, spendable_raw: int) -> None:
    position_book = book(world(reserves={"USDC": reserve_usd}))

    assert replace(position_book, uncertain_raw_by_token={USDC.address: uncertain_raw}).spendable_raw(USDC.address) == spendable_raw


@pytest.mark.parametrize(
    ("approved_raw", "uncertain_raw", "spendable_raw"),
    [
        pytest.param(0, 0, 0, id="none"),
        pytest.param(100, 0, 100, id="a part"),
        pytest.param(4_000 * USD, 0, 4_000 * USD, id="the balance"),
        pytest.param(4_001 * USD, 0, 4_000 * USD, id="more than the balance"),
        pytest.param(4_000 * USD, 1, 4_000 * USD - 1, id="an uncertain unit of it"),
    ],
)
def test_spendable_is_at_most_this_step_s_approval(approved_raw: int, uncertain_raw: int, spendable_raw: int) -> None:
    step = world()
    position_book = book(replace(step, progress=replace(step.progress, spend_caps=((USDC.address, approved_raw),))))

    assert replace(position_book, uncertain_raw_by_token={USDC.address: uncertain_raw}).spendable_raw(USDC.address) == spendable_raw


def test_spendable_is_zero_for_a_token_that_is_no_asset() -> None:
    assert book(world()).spendable_raw("0xother") == 0


FLOOR_WEI = ETHER // 20


def native_world(coin_wei: int) -> StepInput:
    """Return a step with 2 WETH, which counts together with this much native coin; 0.05 stay for gas."""
    step = world()
    assets = tuple(replace(asset, includes_native=asset.token == WETH) for asset in step.portfolio.assets)
    return with_snapshot(replace(step, portfolio=replace(step.portfolio, assets=assets)), native_wei=coin_wei)


@pytest.mark.parametrize(
    ("coin_wei", "spendable_wei"),
    [
        pytest.param(FLOOR_WEI + 1, 2 * ETHER, id="one wei above the floor"),
        pytest.param(FLOOR_WEI, 2 * ETHER, id="at the floor"),
        pytest.param(FLOOR_WEI - 1, 2 * ETHER - 1, id="one wei below the floor"),
        pytest.param(0, 2 * ETHER - FLOOR_WEI, id="no coin"),
    ],
)
def test_spendable_leaves_the_native_floor_and_no_coin(coin_wei: int, spendable_wei: int) -> None:
    """Native coin is not wrapped to be provided."""
    assert book(native_world(coin_wei)).spendable_raw(WETH.address) == spendable_wei


def test_counted_raw_adds_the_coin_above_its_floor() -> None:
    position_book = book(native_world(ETHER))

    assert [position_book.counted_raw(asset) for asset in position_book.step.portfolio.assets if asset.includes_native] == [
        3 * ETHER - FLOOR_WEI
    ]


# --- moves


def earning_book() -> tuple[PositionBook, ConfirmedPosition, LpV3Position]:
    """Return a book with one range that has uncollected fees of both tokens."""
    position = ranged(2_000, 1_800, 2_200, owed=(10**7, 10**15), core_owed=(10**7, 10**15))
    position_book = book(world([position], [lp_target(1_000)]))
    return position_book, position_book.position_states[0][0], position


def wallet_change(before: PositionBook, after: PositionBook) -> tuple[int, ...]:
    """Return the change of the wallet, in the order of the pool's tokens."""
    return tuple(after.wallet_raw_by_token[token] - before.wallet_raw_by_token[token] for token in TOKENS)


def uncertain(position_book: PositionBook) -> tuple[int, ...]:
    return tuple(position_book.uncertain_raw_by_token.get(token, 0) for token in TOKENS)


def test_withdrawal_brings_all_fees_and_certain_minimums() -> None:
    before, confirmed_position, position = earning_book()
    half = position.liquidity // 2
    principal = positions.principal(position, half)
    fees = positions.uncollected_fees(position)
    rest = position_changes.after_withdrawal(position, half)
    last_principal = positions.principal(rest, 1)

    after = before.after_withdrawal(confirmed_position, half, (principal[0] - 3, principal[1] - 5))
    after_another = after.after_withdrawal(confirmed_position, 1, (0, 0))

    assert min(*principal, *fees) > 0
    assert wallet_change(before, after) == (principal[0] + fees[0], principal[1] + fees[1])
    assert uncertain(after) == (3, 5)
    assert after.position_state_of(confirmed_position) == rest
    assert uncertain(after_another) == (3 + last_principal[0], 5 + last_principal[1])


def test_collection_brings_certain_fees() -> None:
    before, confirmed_position, position = earning_book()

    after = before.after_collection(confirmed_position)

    assert wallet_change(before, after) == positions.uncollected_fees(position)
    assert uncertain(after) == (0, 0)
    assert after.position_state_of(confirmed_position) == position_changes.after_collect(position)


def test_provision_and_mint_take_their_amounts_to_the_unit() -> None:
    before, confirmed_position, position = earning_book()

    after_provision = before.after_provision(confirmed_position, 10, (7, 9))
    after_mint = before.after_mint(lp_target(1_000), position, (7, 9))

    for after in (after_provision, after_mint):
        assert wallet_change(before, after) == (-7, -9)
        assert uncertain(after) == (0, 0)
    assert after_provision.position_state_of(confirmed_position) == position_changes.after_provision(position, 10, (7, 9))
    assert len(after_mint.position_states) == 2


def test_pair_value_is_both_amounts_at_their_prices() -> None:
    raw_by_token = {WETH.address: ETHER, USDC.address: 5 * USD}

    assert book(world()).pair_value(lp_target(1_000), (raw_by_token[TOKENS[0]], raw_by_token[TOKENS[1]])) == 2_005 * USD


def test_overpayment_is_zero_for_liquidity_gained_below_its_value() -> None:
    before = book(world([paired(2_000)]))
    after = before.after_provision(before.position_states[0][0], 10**15, (1, 1))

    assert before.overpayment(lp_target(1_000), (1, 1), after) == 0


# --- the price of a pool


@pytest.mark.parametrize(
    ("oracle_bps", "slippage_bps", "price", "is_usable"),
    [
        pytest.param(150, 30, Fraction(1_015, 1_000), True, id="at the oracle limit"),
        pytest.param(150, 30, Fraction(1_015, 1_000) + JUST, False, id="above the oracle limit"),
        pytest.param(150, 30, Fraction(985, 1_000), True, id="at the lower oracle limit"),
        pytest.param(150, 30, Fraction(985, 1_000) - JUST, False, id="below the oracle limit"),
        pytest.param(None, 30, Fraction(1_003, 1_000), True, id="at the slippage"),
        pytest.param(None, 30, Fraction(1_003, 1_000) + JUST, False, id="above the slippage"),
        pytest.param(None, 30, Fraction(1_000, 1_003), True, id="at the lower slippage"),
        pytest.param(None, 30, Fraction(1_000, 1_003) - JUST, False, id="below the slippage"),
        pytest.param(150, None, Fraction(1_015, 1_000), True, id="slippage off"),
        pytest.param(None, None, Fraction(1), False, id="both off"),
        pytest.param(150, 30, None, False, id="no price"),
    ],
)
def test_pool_price_is_usable_up_to_the_edge_of_its_band(
    oracle_bps: int | None, slippage_bps: int | None, price: Fraction | None, is_usable: bool
) -> None:
    limits = roomy(oracle_deviation_bps=oracle_bps, slippage_bps=slippage_bps)

    assert (price_deviation_reason(limits, price, Fraction(1)) == "") is is_usable


@pytest.mark.parametrize(
    ("oracle_bps", "slippage_bps", "band_bps"),
    [
        pytest.param(150, 30, 180, id="both"),
        pytest.param(None, 30, 30, id="slippage alone"),
        pytest.param(150, None, 150, id="oracle alone"),
        pytest.param(0, 0, 0, id="limits of zero"),
        pytest.param(None, None, None, id="both off"),
    ],
)
def test_max_pool_deviation_is_the_sum_of_both_limits(oracle_bps: int | None, slippage_bps: int | None, band_bps: int | None) -> None:
    assert max_pool_deviation_bps(roomy(oracle_deviation_bps=oracle_bps, slippage_bps=slippage_bps)) == band_bps
