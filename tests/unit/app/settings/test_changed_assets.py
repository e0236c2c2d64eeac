"""What an edit that removes assets would leave unmanaged: in the wallet, as native coin, in liquidity."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.app.settings.changed_assets import Leftover, leftover_lines, list_leftovers
from agent.errors import Refused
from agent.model import StepInput
from agent.policy import native_coin
from tests.support.builders import ETHER, with_snapshot
from tests.support.lp_worlds import USDC, WETH, paired, world

GAS_MONEY_WEI = native_coin.floor_wei(world().limits) + native_coin.worst_gas_cost_wei(world().snapshot, world().limits)


def native_world(free_wei: int, wrapped_raw: int = 0) -> StepInput:
    """The native coin is an asset, `free_wei` of it beyond the gas money."""
    step = world()
    assets = tuple(replace(asset, includes_native=asset.token == WETH) for asset in step.portfolio.assets)
    holdings = tuple(replace(holding, raw=wrapped_raw) if holding.token == WETH.address else holding for holding in step.snapshot.holdings)
    step = replace(step, portfolio=replace(step.portfolio, assets=assets))
    return with_snapshot(step, native_wei=GAS_MONEY_WEI + free_wei, holdings=holdings)


@pytest.mark.parametrize(
    ("free_wei", "wrapped_raw", "amount"),
    [(5 * ETHER, 0, "5"), (0, 2 * ETHER, "2"), (5 * ETHER, 2 * ETHER, "7")],
    ids=["coin", "wrapped", "both"],
)
def test_leftovers__native_coin_counts_with_its_wrapped_token(free_wei: int, wrapped_raw: int, amount: str) -> None:
    assert list_leftovers(native_world(free_wei, wrapped_raw), {USDC.address}) == [Leftover("WETH", amount, False)]


def test_leftovers__gas_money_is_none() -> None:
    assert list_leftovers(native_world(0), {USDC.address}) == []


def test_leftovers__coin_beside_an_asset_that_stays_is_none() -> None:
    assert [leftover.symbol for leftover in list_leftovers(native_world(5 * ETHER), {WETH.address})] == ["USDC"]


def test_leftovers__liquidity_of_the_asset_counts() -> None:
    step = world([paired(4_000)])
    emptied = with_snapshot(step, holdings=tuple(replace(holding, raw=0) for holding in step.snapshot.holdings))
    [leftover] = list_leftovers(emptied, {USDC.address})
    assert (leftover.symbol, leftover.amount, leftover.is_dust) == ("WETH", "1", False)


def test_leftovers__position_that_was_not_read_is_refused() -> None:
    with pytest.raises(Refused):
        list_leftovers(with_snapshot(world([paired(4_000)]), positions=()), {USDC.address})


def test_leftovers__balance_that_was_not_read_is_unknown() -> None:
    assert list_leftovers(with_snapshot(world(), holdings=()), {USDC.address}) == [Leftover("WETH", "?", False)]


def test_leftover_lines__remedy_names_every_asset_worth_selling() -> None:
    leftovers = [Leftover("WETH", "5", False), Leftover("DUST", "1", True), Leftover("LINK", "7", False)]
    with pytest.raises(Refused) as refused:
        leftover_lines(leftovers, keep_holdings=False)
    assert "--target WETH=0% --target LINK=0% and a rebalance" in refused.value.remedy
