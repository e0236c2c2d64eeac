"""Rises that nobody explained, above portfolio.max_live_value, are left alone: pure."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil

from agent.errors import Refused
from agent.model import BlockedExit, ExternalTransfer, Payment, PendingPayment, PriceSource, ScreenedToken, StepInput, TokenFinding
from agent.policy.cash_flows import transfers
from agent.policy.cash_flows.cash_limit import exclude_unexplained_increases, excluded_amounts, restore_excluded_amounts
from agent.policy.cash_flows.transfers import investable_deposits
from agent.policy.decide import decide
from agent.policy.drift import investable_total
from agent.policy.orders import blocked_exits
from agent.policy.quarantine import quarantine_tokens
from agent.units import NATIVE
from tests.support.builders import (
    ETHER,
    books_of,
    brought_up,
    history,
    raw,
    split,
    step_input,
    strategy,
    sums_to_the_wallet,
    token,
    with_history,
    with_limits,
)
from tests.support.text import mentions, raises_code

WETH, WBTC, USDC = token("WETH"), token("WBTC"), token("USDC")
CEILING = 11_000


def gifted(gift: int, ceiling: int | None = CEILING, **rises: int) -> StepInput:
    """10,000 USDC in three assets and a gift of some more USDC; what rose unexplained by symbol, base units."""
    held = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000 + gift}
    step = step_input(
        {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000},
        held,
        past=history(unexplained_increases_raw=_rises(rises or {"USDC": raw(gift, USDC)})),
    )
    return with_limits(step, max_live_value=None if ceiling is None else Fraction(raw(ceiling, USDC)))


def _rises(found: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple((token(symbol).address, amount) for symbol, amount in found.items())


def reserves(step: StepInput) -> dict[str, int]:
    return {asset.token.symbol: asset.reserve_raw for asset in step.portfolio.assets}


def test_a_gift_above_the_ceiling_is_a_reserve_and_named() -> None:
    left = exclude_unexplained_increases(gifted(1_500))
    assert reserves(left) == {"WETH": 0, "WBTC": 0, "USDC": raw(1_500, USDC)}
    assert mentions(left.exclusions.reason, "1500 USDC", "excluded", "portfolio.max_live_value")
    assert investable_total(decide(left).drifts) == raw(10_000, USDC)
    assert left.exclusions.reason in decide(left).decision.reason


def test_what_was_left_alone_once_stays_so_below_the_ceiling_until_it_is_explained() -> None:
    below = gifted(900)
    before = with_history(below, excluded_increases_raw=((USDC.address, raw(600, USDC)),))
    assert exclude_unexplained_increases(below) is below
    assert reserves(exclude_unexplained_increases(before))["USDC"] == raw(600, USDC), "what came later is managed"
    told = with_history(before, unexplained_increases_raw=())
    assert exclude_unexplained_increases(told) is told


def test_what_an_exit_sold_of_a_gift_is_left_alone_in_the_numeraire() -> None:
    sold = gifted(1_500, WETH=4 * ETHER)
    price = next(one.price for one in decide(sold).drifts if one.symbol == "WETH")
    there = next(one.investable_raw for one in decide(sold).drifts if one.symbol == "WETH")
    left = exclude_unexplained_increases(with_history(sold, unexplained_increases_raw=((WETH.address, there + ETHER // 10),)))
    assert reserves(left) == {"WETH": there, "WBTC": 0, "USDC": ceil(price * ETHER / 10)}
    assert restore_excluded_amounts(left) == replace(
        sold, history=left.history, exclusions=replace(sold.exclusions, raw_by_token=left.exclusions.raw_by_token)
    )


def test_at_the_ceiling_or_without_one_nothing_is_left_alone() -> None:
    for step in (gifted(1_000), gifted(1_500, None), gifted(0, unexplained_increases_raw=0)):
        assert exclude_unexplained_increases(step) is step
    assert exclude_unexplained_increases(gifted(1_001)).exclusions.reason


def test_no_more_is_left_alone_than_there_is_beside_the_reserve() -> None:
    step = gifted(1_500, USDC=raw(9_000, USDC))
    kept = tuple(replace(asset, reserve_raw=raw(300, USDC) if asset.token == USDC else 0) for asset in step.portfolio.assets)
    left = exclude_unexplained_increases(replace(step, portfolio=replace(step.portfolio, assets=kept)))
    assert reserves(left)["USDC"] == raw(3_500, USDC)
    assert left.exclusions.reason.startswith("3200 USDC")
    fell = gifted(1_500, USDC=-5)
    assert exclude_unexplained_increases(fell) is fell


def test_what_is_left_alone_is_found_once() -> None:
    left = exclude_unexplained_increases(gifted(1_500))
    assert exclude_unexplained_increases(left) is left


def test_native_coin_that_rose_is_left_alone_where_it_is_an_asset() -> None:
    step = gifted(1_500)
    step = with_history(step, unexplained_increases_raw=((WETH.address, ETHER // 4), (NATIVE, ETHER // 2)))
    assert reserves(exclude_unexplained_increases(step)) == {"WETH": ETHER // 4, "WBTC": 0, "USDC": 0}
    assets = tuple(replace(asset, includes_native=asset.token == WETH) for asset in step.portfolio.assets)
    native = replace(step, portfolio=replace(step.portfolio, assets=assets))
    assert reserves(exclude_unexplained_increases(native)) == {"WETH": 3 * ETHER // 4, "WBTC": 0, "USDC": 0}


def test_without_a_price_nothing_changes() -> None:
    step = gifted(1_500)
    blind = replace(step, snapshot=replace(step.snapshot, feeds=()), reference=replace(step.reference, sources=(PriceSource.FEED,)))
    assert exclude_unexplained_increases(blind) is blind


def test_no_strategy_holds_what_is_left_alone() -> None:
    shares = split(strategy("one", 6_000, {"WETH": 5_000, "USDC": 5_000}), strategy("two", 4_000, {"WBTC": 8_000, "USDC": 2_000}))
    step = brought_up(exclude_unexplained_increases(gifted(1_500).with_config(shares)))
    assert sums_to_the_wallet(step)
    assert sum(one.balance_raw(USDC.address) for one in books_of(step).strategy_books) == raw(2_000, USDC)
    assert investable_total(decide(step).drifts) == raw(10_000, USDC)
    assert mentions(decide(step).decision.reason, "1500 USDC", "excluded")


def test_an_exit_takes_it_and_what_is_sealed_stays_sealed() -> None:
    step = gifted(1_500)
    left = exclude_unexplained_increases(step)
    back = restore_excluded_amounts(left)
    assert reserves(back) == reserves(step)
    assert not back.exclusions.reason
    assert exclude_unexplained_increases(back) == left, "the same is left alone again"
    shut = quarantine_tokens(left, [ScreenedToken(USDC.address, TokenFinding.PAUSED, "")])
    assert reserves(restore_excluded_amounts(shut)) == reserves(shut)
    assert restore_excluded_amounts(step) is step


def test_all_of_a_gift_is_left_alone_again_though_an_exit_made_the_rest_small() -> None:
    back = restore_excluded_amounts(exclude_unexplained_increases(gifted(1_500)))
    small = blocked_exits.exclude_blocked_exits(back, [BlockedExit(WETH.address, "no market", "")])
    assert reserves(exclude_unexplained_increases(small))["USDC"] == raw(1_500, USDC)


def test_what_fits_below_the_ceiling_may_be_invested_the_oldest_first() -> None:
    flows = tuple(rise(number, usd) for number, usd in ((1, 1_500), (2, 400), (3, 550), (4, 100)))
    step = gifted(sum(flow.delta_raw for flow in flows) // 10**6)
    step = with_history(step, unexplained_transfers=flows)
    assert [flow.id for flow in investable_deposits(step, flows)] == [2, 3], (
        "1,000 may come: 1,500 do not fit, 950 of the next do, and 100 more do not"
    )
    assert investable_deposits(exclude_unexplained_increases(step), flows) == investable_deposits(step, flows)
    assert investable_deposits(step, flows[1:2]) == flows[1:2], "what its owner names counts alone"
    with raises_code(Refused, "max_live_value", "1500 USDC", "10000 USDC", "11000 USDC"):
        investable_deposits(step, flows[:1])
    unlimited = with_limits(step, max_live_value=None)
    assert investable_deposits(unlimited, flows) == flows
    assert investable_deposits(step, ()) == ()


def test_all_that_is_no_part_of_the_portfolio_is_told_with_its_reason() -> None:
    step = gifted(1_500)
    assets = tuple(replace(asset, reserve_raw=raw(300, USDC) if asset.token == USDC else 0) for asset in step.portfolio.assets)
    step = replace(step, portfolio=replace(step.portfolio, assets=assets))
    step = exclude_unexplained_increases(transfers.reserve_claims(step, (PendingPayment(4, Payment(USDC.address, raw(100, USDC))),)))
    assert [(token, amount, why.split(",")[0]) for token, amount, why in excluded_amounts(step)] == [
        (USDC.address, raw(100, USDC), "withdrawal 4"),
        (USDC.address, raw(1_500, USDC), "unexplained"),
        (USDC.address, raw(300, USDC), "configured reserve"),
    ]
    assert [why for _, _, why in excluded_amounts(restore_excluded_amounts(step))] == ["withdrawal 4", "configured reserve"]
    assert excluded_amounts(gifted(1_000)) == ()
    shut = quarantine_tokens(step, [ScreenedToken(USDC.address, TokenFinding.PAUSED, "")])
    assert excluded_amounts(shut) == (), "told as quarantine"


def rise(number: int, usd: int) -> ExternalTransfer:
    """A rise of so many USDC that nobody has explained."""
    return ExternalTransfer(number, USDC.address, raw(usd, USDC), Fraction(raw(usd, USDC)), 1, 2, 1, False, None)
