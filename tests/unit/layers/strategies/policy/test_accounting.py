"""Tests of agent/layers/strategies/policy/accounting.py: units, balances of the wallet, reserves and bookings by block."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.strategies.policy import accounting
from agent.model import Holding, StepInput, UnreadableItem
from tests.support.builders import ETHER, opening, split, step_input, strategy, with_snapshot
from tests.support.constants import USD
from tests.support.tokens import USDC, WETH


@pytest.mark.parametrize(
    ("units", "value_before", "value_after", "last_unit_nav", "new_units"),
    [
        pytest.param(100, 3, 4, 10**12, 33, id="issued, rounded down"),
        pytest.param(100, 3, 2, 10**12, -34, id="burnt, rounded down"),
        pytest.param(100, 3, 3, 10**12, 0, id="unchanged"),
        pytest.param(100, 3, 4, 8 * 10**11, 33, id="at its value, whatever the record"),
        pytest.param(0, 0, 5, 0, 5_000_000, id="first units"),
        pytest.param(7, 0, 5, 0, 4_999_993, id="units without a value"),
        pytest.param(0, 3, 5, 0, 5_000_000, id="value without units"),
        pytest.param(0, 0, 5, 8 * 10**11, 6_250_000, id="first units again"),
        pytest.param(0, 0, 5, 3 * 10**12, 1_666_666, id="first units again, rounded down"),
    ],
)
def test_units_are_issued_and_burnt_at_the_value_before(
    units: int, value_before: int, value_after: int, last_unit_nav: int, new_units: int
) -> None:
    assert accounting.units_to_issue(units, Fraction(value_before), Fraction(value_after), last_unit_nav) == new_units


@pytest.mark.parametrize(
    ("value", "units", "nav"),
    [
        pytest.param(1, 10**6, 10**12, id="a millionth"),
        pytest.param(2, 3, 2 * 10**18 // 3, id="rounded down"),
        pytest.param(1, 0, None, id="no units"),
    ],
)
def test_nav_is_the_value_of_a_unit_rounded_down(value: int, units: int, nav: int | None) -> None:
    assert accounting.nav_per_unit(Fraction(value), units) == nav


@pytest.mark.parametrize(
    ("includes_native", "weth_raw"), [(True, 5 * ETHER // 2 + ETHER), (False, 5 * ETHER // 2)], ids=["native", "wrapped alone"]
)
def test_balances_count_native_coin_of_a_native_asset(includes_native: bool, weth_raw: int) -> None:
    step = step_input()
    assets = tuple(replace(asset, includes_native=includes_native and asset.token == WETH) for asset in step.portfolio.assets)

    balances = accounting.wallet_balances(step.snapshot, replace(step.portfolio, assets=assets))

    assert balances == {WETH.address: weth_raw, USDC.address: 5_000 * USD}


STEP = step_input()


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(with_snapshot(STEP, holdings=(*STEP.snapshot.holdings, Holding(USDC.address, 1))), id="two answers"),
        pytest.param(with_snapshot(STEP, holdings=STEP.snapshot.holdings[1:]), id="no answer"),
        pytest.param(with_snapshot(STEP, unreadable_items=(UnreadableItem("USDC", USDC.address, "no code"),)), id="unreadable"),
    ],
)
def test_balances_are_unknown_without_one_answer_for_each(step: StepInput) -> None:
    assert accounting.wallet_balances(step.snapshot, step.portfolio) is None


@pytest.mark.parametrize(
    ("reserve_raw", "reserved_raw"),
    [pytest.param(1_000, 1_000, id="a part"), pytest.param(5_000, 5_000, id="all"), pytest.param(5_001, 5_000, id="a unit more")],
)
def test_reserves_are_at_most_the_balance(reserve_raw: int, reserved_raw: int) -> None:
    assets = tuple(replace(asset, reserve_raw=reserve_raw if asset.token == USDC else 0) for asset in STEP.portfolio.assets)

    reserves = accounting.reserved_balances(replace(STEP.portfolio, assets=assets), STEP.limits, {WETH.address: 9, USDC.address: 5_000})

    assert reserves == {WETH.address: 0, USDC.address: reserved_raw}


@pytest.mark.parametrize(("block", "coins_raw"), [(1_000, 2_000 * USD), (1_001, 0)], ids=["of the head", "a block later"])
def test_booking_counts_from_its_block_on(block: int, coins_raw: int) -> None:
    config = split(strategy("a", 10_000, {"USDC": 10_000}))

    books_update = accounting.open_books(STEP.with_config(config), config, opening({"a": {"USDC": 2_000}}, block=block))

    assert books_update.total_raw(USDC.address) == coins_raw
