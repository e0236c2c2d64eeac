"""The value of all holdings at a step: what of each balance is managed, and when the value is unknown."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.execution.bookkeeping import entry_prices, valuation
from agent.model import Holding, StepInput, Valuation, ValuedHolding
from agent.reference import reference_prices
from agent.units import NATIVE
from tests.support.builders import ETHER, step_input, token, with_snapshot, without_feed

WETH = token("WETH").address
USDC = token("USDC").address
USD = 10**6
FLOOR_WEI = ETHER // 20
"""limits.native_floor."""


def world(weth_wei: int = 2 * ETHER, usdc: int = 4_000, coin_wei: int = ETHER, usdc_reserve: int = 0, *, native: bool = False) -> StepInput:
    step = step_input()
    assets = tuple(
        replace(
            asset,
            includes_native=native and asset.token.address == WETH,
            reserve_raw=usdc_reserve * USD if asset.token.address == USDC else 0,
        )
        for asset in step.portfolio.assets
    )
    holdings = (Holding(WETH, weth_wei), Holding(USDC, usdc * USD))
    return with_snapshot(replace(step, portfolio=replace(step.portfolio, assets=assets)), holdings=holdings, native_wei=coin_wei)


def valued(step: StepInput) -> Valuation:
    result = valuation(step, entry_prices(step.portfolio, reference_prices(step)))
    assert result is not None
    return result


def holding(step: StepInput, token_: str) -> ValuedHolding:
    (result,) = [valued_holding for valued_holding in valued(step).holdings if valued_holding.token == token_]
    return result


def managed(step: StepInput) -> dict[str, int]:
    return {valued_holding.token: valued_holding.managed_raw for valued_holding in valued(step).holdings}


def test_valuation__is_the_sum_of_all_holdings_and_the_coin() -> None:
    """2 WETH and 1 ether at 2,000, and 4,000 USDC."""
    assert valued(world()).value == 10_000 * USD


def test_valuation__has_block_and_time_of_the_step() -> None:
    step = world()

    assert (valued(step).block, valued(step).chain_s) == (step.snapshot.head.number, step.snapshot.head.timestamp_s)


def test_valuation__holding_keeps_balance_price_and_target() -> None:
    assert holding(world(), WETH) == ValuedHolding(WETH, 2 * ETHER, 0, Fraction(2_000 * USD, ETHER), 5_000)


def test_managed__coin_that_is_no_asset_is_not() -> None:
    assert managed(world()) == {WETH: 2 * ETHER, USDC: 4_000 * USD, NATIVE: 0}


@pytest.mark.parametrize(("reserve", "usdc"), [(0, 4_000), (500, 3_500), (3_999, 1), (4_000, 0), (4_001, 0)])
def test_managed_excludes_the_reserve_up_to_the_balance(reserve: int, usdc: int) -> None:
    assert managed(world(usdc_reserve=reserve))[USDC] == usdc * USD


@pytest.mark.parametrize(
    ("coin_wei", "weth_wei", "coin_managed", "weth_managed"),
    [
        (ETHER, ETHER, ETHER - FLOOR_WEI, ETHER),
        (FLOOR_WEI, ETHER, 0, ETHER),
        (FLOOR_WEI - 1, ETHER, 0, ETHER - 1),
        (0, ETHER, 0, ETHER - FLOOR_WEI),
        (0, FLOOR_WEI, 0, 0),
        (0, FLOOR_WEI - 1, 0, 0),
        (1, 0, 0, 0),
    ],
    ids=[
        "coin above the floor",
        "coin at the floor",
        "coin one wei below",
        "no coin",
        "token at the floor",
        "token one wei below",
        "one wei of coin",
    ],
)
def test_managed_takes_the_native_floor_from_the_coin_first(coin_wei: int, weth_wei: int, coin_managed: int, weth_managed: int) -> None:
    amounts = managed(world(weth_wei, coin_wei=coin_wei, native=True))

    assert (amounts[NATIVE], amounts[WETH]) == (coin_managed, weth_managed)


def test_valuation__unread_balance_leaves_it_unknown() -> None:
    step = world()

    unread = with_snapshot(step, holdings=step.snapshot.holdings[:1])

    assert valuation(unread, entry_prices(step.portfolio, reference_prices(step))) is None


def test_valuation__price_that_is_unknown_leaves_it_unknown() -> None:
    step = without_feed(world(), "WETH")

    assert valuation(step, entry_prices(step.portfolio, reference_prices(step))) is None


def test_valuation__balance_of_nothing_is_known() -> None:
    assert valued(world(weth_wei=0, usdc=0, coin_wei=0)).value == 0
