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
from tests.support.tokens import USDC, WETH

CEILING = 11_000


def step_with_gift(gift: int, ceiling: int | None = CEILING, **rises: int) -> StepInput:
    """10,000 USDC in three assets and a gift of some more USDC; what rose unexplained by symbol, base units."""
    values = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000 + gift}
    step = step_input(
        {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000},
        values,
        past=history(unexplained_increases_raw=increases_raw(rises or {"USDC": raw(gift, USDC)})),
    )
    return with_limits(step, max_live_value=None if ceiling is None else Fraction(raw(ceiling, USDC)))


def increases_raw(increases: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple((token(symbol).address, amount) for symbol, amount in increases.items())


def reserves(step: StepInput) -> dict[str, int]:
    return {asset.token.symbol: asset.reserve_raw for asset in step.portfolio.assets}


def test_gift_above_max_live_value_is_excluded_by_name() -> None:
    excluded = exclude_unexplained_increases(step_with_gift(1_500))
    assert reserves(excluded) == {"WETH": 0, "WBTC": 0, "USDC": raw(1_500, USDC)}
    assert mentions(excluded.exclusions.reason, "1500 USDC", "excluded", "portfolio.max_live_value")
    assert investable_total(decide(excluded).drifts) == raw(10_000, USDC)
    assert excluded.exclusions.reason in decide(excluded).decision.reason


def test_excluded_increase_stays_excluded_until_explained() -> None:
    below = step_with_gift(900)
    before = with_history(below, excluded_increases_raw=((USDC.address, raw(600, USDC)),))
    assert exclude_unexplained_increases(below) is below
    assert reserves(exclude_unexplained_increases(before))["USDC"] == raw(600, USDC), "what came later is managed"
    explained = with_history(before, unexplained_increases_raw=())
    assert exclude_unexplained_increases(explained) is explained


def test_proceeds_of_a_sold_gift_are_excluded() -> None:
    sold = step_with_gift(1_500, WETH=4 * ETHER)
    price = next(drift.price for drift in decide(sold).drifts if drift.symbol == "WETH")
    there = next(drift.investable_raw for drift in decide(sold).drifts if drift.symbol == "WETH")
    excluded = exclude_unexplained_increases(with_history(sold, unexplained_increases_raw=((WETH.address, there + ETHER // 10),)))
    assert reserves(excluded) == {"WETH": there, "WBTC": 0, "USDC": ceil(price * ETHER / 10)}
    assert restore_excluded_amounts(excluded) == replace(
        sold, history=excluded.history, exclusions=replace(sold.exclusions, raw_by_token=excluded.exclusions.raw_by_token)
    )


def test_increase_up_to_max_live_value_is_not_excluded() -> None:
    for step in (step_with_gift(1_000), step_with_gift(1_500, None), step_with_gift(0, unexplained_increases_raw=0)):
        assert exclude_unexplained_increases(step) is step
    assert exclude_unexplained_increases(step_with_gift(1_001)).exclusions.reason


def test_exclusion_is_at_most_the_balance_beside_the_reserve() -> None:
    step = step_with_gift(1_500, USDC=raw(9_000, USDC))
    assets = tuple(replace(asset, reserve_raw=raw(300, USDC) if asset.token == USDC else 0) for asset in step.portfolio.assets)
    excluded = exclude_unexplained_increases(replace(step, portfolio=replace(step.portfolio, assets=assets)))
    assert reserves(excluded)["USDC"] == raw(3_500, USDC)
    assert excluded.exclusions.reason.startswith("3200 USDC")
    fell = step_with_gift(1_500, USDC=-5)
    assert exclude_unexplained_increases(fell) is fell


def test_exclusion_happens_once() -> None:
    excluded = exclude_unexplained_increases(step_with_gift(1_500))
    assert exclude_unexplained_increases(excluded) is excluded


def test_native_increase_is_excluded_where_it_is_an_asset() -> None:
    step = step_with_gift(1_500)
    step = with_history(step, unexplained_increases_raw=((WETH.address, ETHER // 4), (NATIVE, ETHER // 2)))
    assert reserves(exclude_unexplained_increases(step)) == {"WETH": ETHER // 4, "WBTC": 0, "USDC": 0}
    assets = tuple(replace(asset, includes_native=asset.token == WETH) for asset in step.portfolio.assets)
    native = replace(step, portfolio=replace(step.portfolio, assets=assets))
    assert reserves(exclude_unexplained_increases(native)) == {"WETH": 3 * ETHER // 4, "WBTC": 0, "USDC": 0}


def test_exclusion_needs_a_price() -> None:
    step = step_with_gift(1_500)
    blind = replace(step, snapshot=replace(step.snapshot, feeds=()), reference=replace(step.reference, sources=(PriceSource.FEED,)))
    assert exclude_unexplained_increases(blind) is blind


def test_strategies_do_not_hold_an_excluded_increase() -> None:
    shares = split(strategy("one", 6_000, {"WETH": 5_000, "USDC": 5_000}), strategy("two", 4_000, {"WBTC": 8_000, "USDC": 2_000}))
    step = brought_up(exclude_unexplained_increases(step_with_gift(1_500).with_config(shares)))
    assert sums_to_the_wallet(step)
    assert sum(book.balance_raw(USDC.address) for book in books_of(step).strategy_books) == raw(2_000, USDC)
    assert investable_total(decide(step).drifts) == raw(10_000, USDC)
    assert mentions(decide(step).decision.reason, "1500 USDC", "excluded")


def test_restored_amounts_serve_exits_but_not_in_quarantine() -> None:
    step = step_with_gift(1_500)
    excluded = exclude_unexplained_increases(step)
    restored = restore_excluded_amounts(excluded)
    assert reserves(restored) == reserves(step)
    assert not restored.exclusions.reason
    assert exclude_unexplained_increases(restored) == excluded, "the same is left alone again"
    quarantined = quarantine_tokens(excluded, [ScreenedToken(USDC.address, TokenFinding.PAUSED, "")])
    assert reserves(restore_excluded_amounts(quarantined)) == reserves(quarantined)
    assert restore_excluded_amounts(step) is step


def test_whole_gift_is_excluded_again_beside_a_blocked_exit() -> None:
    restored = restore_excluded_amounts(exclude_unexplained_increases(step_with_gift(1_500)))
    small = blocked_exits.exclude_blocked_exits(restored, [BlockedExit(WETH.address, "no market", "")])
    assert reserves(exclude_unexplained_increases(small))["USDC"] == raw(1_500, USDC)


def test_investable_deposits_fit_below_the_limit_oldest_first() -> None:
    flows = tuple(increase(number, usd) for number, usd in ((1, 1_500), (2, 400), (3, 550), (4, 100)))
    step = step_with_gift(sum(flow.delta_raw for flow in flows) // 10**6)
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


def test_excluded_amounts_have_their_reasons() -> None:
    step = step_with_gift(1_500)
    assets = tuple(replace(asset, reserve_raw=raw(300, USDC) if asset.token == USDC else 0) for asset in step.portfolio.assets)
    step = replace(step, portfolio=replace(step.portfolio, assets=assets))
    step = exclude_unexplained_increases(transfers.reserve_claims(step, (PendingPayment(4, Payment(USDC.address, raw(100, USDC))),)))
    assert [(token, amount, why.split(",")[0]) for token, amount, why in excluded_amounts(step)] == [
        (USDC.address, raw(100, USDC), "withdrawal 4"),
        (USDC.address, raw(1_500, USDC), "unexplained"),
        (USDC.address, raw(300, USDC), "configured reserve"),
    ]
    assert [why for _, _, why in excluded_amounts(restore_excluded_amounts(step))] == ["withdrawal 4", "configured reserve"]
    assert excluded_amounts(step_with_gift(1_000)) == ()
    quarantined = quarantine_tokens(step, [ScreenedToken(USDC.address, TokenFinding.PAUSED, "")])
    assert excluded_amounts(quarantined) == (), "told as quarantine"


def increase(number: int, usd: int) -> ExternalTransfer:
    """A rise of so many USDC that nobody has explained."""
    return ExternalTransfer(number, USDC.address, raw(usd, USDC), Fraction(raw(usd, USDC)), 1, 2, 1, False, None)
