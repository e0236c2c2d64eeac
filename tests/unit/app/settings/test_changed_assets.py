"""What an edit that removes assets would leave unmanaged: in the wallet, as native coin, in liquidity."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from agent.app.settings import changed_assets
from agent.app.settings.changed_assets import Leftover, leftover_lines, list_leftovers
from agent.errors import Refused
from agent.model import ScreenedToken, StepInput, TokenFinding
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
    with pytest.raises(Refused, match="it was not read"):
        list_leftovers(with_snapshot(world([paired(4_000)]), positions=()), {USDC.address})


def test_leftovers__balance_that_was_not_read_is_unknown() -> None:
    assert list_leftovers(with_snapshot(world(), holdings=()), {USDC.address}) == [Leftover("WETH", None, False)]


def test_leftover_lines__remedy_names_every_asset_worth_selling() -> None:
    leftovers = [Leftover("WETH", "5", False), Leftover("DUST", "1", True), Leftover("LINK", "7", False)]
    with pytest.raises(Refused) as refused:
        leftover_lines(leftovers, keep_holdings=False)
    assert "--target WETH=0% --target LINK=0% and a rebalance" in refused.value.remedy


UNREAD = Leftover("XYZ", None, False)


@pytest.mark.parametrize("others", [[], [Leftover("WETH", "5", False)], [Leftover("DUST", "1", True)]], ids=["alone", "sellable", "dust"])
def test_leftover_lines__balance_that_was_not_read__is_not_sold(others: list[Leftover]) -> None:
    with pytest.raises(Refused, match="the balance of XYZ cannot be read") as refused:
        leftover_lines([*others, UNREAD], keep_holdings=False)
    assert "try again" in refused.value.remedy
    assert "--target" not in refused.value.remedy
    assert "--keep-holdings" in refused.value.remedy
    lines = leftover_lines([*others, UNREAD], keep_holdings=True)
    assert lines[-1] == "XYZ, whose balance cannot be read, stays where it is and leaves the portfolio"
    assert not any("?" in line or "None" in line for line in lines)


def _tradable(token: str) -> ScreenedToken:
    return ScreenedToken(token, TokenFinding.CLEAN)


@pytest.mark.parametrize(
    ("screened_tokens", "is_on", "note"),
    [
        pytest.param([WETH.address], True, "WETH was screened: transfers the exact amount", id="screened"),
        pytest.param([USDC.address], True, "WETH was not screened: no transfer of it can be simulated", id="another of its symbol"),
        pytest.param([], True, "WETH was not screened: no transfer of it can be simulated", id="no transfer"),
        pytest.param([], False, "WETH was not screened: limits.token_screen is off", id="off"),
    ],
)
def test_screening_notes__new_token__say_whether_it_was_screened(
    monkeypatch: pytest.MonkeyPatch, screened_tokens: list[str], is_on: bool, note: str
) -> None:
    step = world()
    context = SimpleNamespace(portfolio=step.portfolio, limits=SimpleNamespace(token_screen=is_on))
    monkeypatch.setattr(changed_assets, "screen_tokens", lambda *_: [("WETH", _tradable(token)) for token in screened_tokens])
    assert changed_assets._screening_notes(context, step, [WETH.address]) == [note]  # type: ignore[arg-type]  # only these fields are read
