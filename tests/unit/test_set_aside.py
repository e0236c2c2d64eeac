"""Rises that nobody explained, above portfolio.max_live_value, are left alone: pure."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.model import ReferenceKind, StepInput
from agent.policy.aside import set_aside
from agent.policy.decide import decide
from agent.policy.drift import total
from agent.units import NATIVE
from tests.builders import ETHER, history, raw, step_input, token, with_limits
from tests.sleeves import split, strategy

WETH, WBTC, USDC = token("WETH"), token("WBTC"), token("USDC")
CEILING = 11_000


def gifted(gift: int, ceiling: int | None = CEILING, **rises: int) -> StepInput:
    """10,000 USDC in three assets and a gift of some more USDC; what rose unexplained by symbol, base units."""
    held = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000 + gift}
    step = step_input({"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}, held, past=history(rises=_rises(rises or {"USDC": raw(gift, USDC)})))
    return with_limits(step, max_live_value=None if ceiling is None else Fraction(raw(ceiling, USDC)))


def _rises(found: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple((token(symbol).address, amount) for symbol, amount in found.items())


def reserves(step: StepInput) -> dict[str, int]:
    return {asset.token.symbol: asset.reserve_raw for asset in step.portfolio.assets}


def test_a_gift_above_the_ceiling_is_a_reserve_and_named() -> None:
    left = set_aside(gifted(1_500))
    assert reserves(left) == {"WETH": 0, "WBTC": 0, "USDC": raw(1_500, USDC)}
    assert left.aside.startswith("1500 USDC left alone: it came unexplained, above portfolio.max_live_value")
    assert total(decide(left).drifts) == raw(10_000, USDC) and left.aside in decide(left).decision.reason


def test_at_the_ceiling_or_without_one_nothing_is_left_alone() -> None:
    for step in (gifted(1_000), gifted(1_500, None), gifted(0, rises=0)):
        assert set_aside(step) is step
    assert set_aside(gifted(1_001)).aside


def test_no_more_is_left_alone_than_there_is_beside_the_reserve() -> None:
    step = gifted(1_500, USDC=raw(9_000, USDC))
    kept = tuple(replace(asset, reserve_raw=raw(300, USDC) if asset.token == USDC else 0) for asset in step.portfolio.assets)
    left = set_aside(replace(step, portfolio=replace(step.portfolio, assets=kept)))
    assert reserves(left)["USDC"] == raw(3_500, USDC)
    assert left.aside.startswith("3200 USDC")
    fell = gifted(1_500, USDC=-5)
    assert set_aside(fell) is fell


def test_what_is_left_alone_is_found_once() -> None:
    left = set_aside(gifted(1_500))
    assert set_aside(left) is left


def test_native_coin_that_rose_is_left_alone_where_it_is_an_asset() -> None:
    step = gifted(1_500)
    step = replace(step, history=replace(step.history, rises=((WETH.address, ETHER // 4), (NATIVE, ETHER // 2))))
    assert reserves(set_aside(step)) == {"WETH": ETHER // 4, "WBTC": 0, "USDC": 0}
    assets = tuple(replace(asset, native=asset.token == WETH) for asset in step.portfolio.assets)
    native = replace(step, portfolio=replace(step.portfolio, assets=assets))
    assert reserves(set_aside(native)) == {"WETH": 3 * ETHER // 4, "WBTC": 0, "USDC": 0}


def test_without_a_price_or_with_strategies_nothing_changes() -> None:
    step = gifted(1_500)
    blind = replace(step, snapshot=replace(step.snapshot, feeds=()), reference=replace(step.reference, kinds=(ReferenceKind.FEED,)))
    assert set_aside(blind) is blind
    shared = replace(step, split=split(strategy("one", 10_000, {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000})))
    assert set_aside(shared) is shared
