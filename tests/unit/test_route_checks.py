"""What the doctor finds about routes between assets: their cost against limits.plan_cost, and pairs without one."""

from __future__ import annotations

import pytest

from agent.app.documents.owner import OK, WARN
from agent.app.start.route_checks import route_checks
from agent.model import StepInput
from tests.support.builders import price_of, step_input, token, v2_pool, with_limits, with_snapshot, without_feed
from tests.support.text import mentions

TARGETS = {"WBTC": 4_000, "WETH": 3_000, "LINK": 1_000, "USDC": 2_000}
DEPTH = 10**8


def step_with(fee_pips: int, plan_cost_bps: int | None, symbols: tuple[str, ...] = ("WBTC", "WETH", "LINK")) -> StepInput:
    """A pool of each of these with the numeraire."""
    pools = [v2_pool(token(symbol), token("USDC"), price_of(symbol), DEPTH, fee_pips=fee_pips) for symbol in symbols]
    return with_limits(step_input(TARGETS, pools=pools), plan_cost_bps=plan_cost_bps)


@pytest.mark.parametrize(
    ("fee_pips", "plan_cost_bps", "pairs"),
    [(3_000, 50, 3), (3_000, 60, 0), (3_000, 59, 3), (500, 50, 0), (10_000, 99, 6), (10_000, None, 0)],
)
def test_route_dearer_than_plan_cost__warns_of_each_pair(fee_pips: int, plan_cost_bps: int | None, pairs: int) -> None:
    """Two coins are exchanged through the numeraire, for the fees of two pools."""
    lines = list(route_checks(step_with(fee_pips, plan_cost_bps)))
    warnings = [line for line in lines if line[1] == WARN]
    assert len(warnings) == pairs
    assert bool(warnings) is (lines[-1][1] != OK)
    if pairs:
        assert mentions(warnings[0][2], "WBTC and WETH", f"limits.plan_cost allows {plan_cost_bps}", "not corrected")


def test_route__cost_is_that_of_the_cheapest() -> None:
    step = step_with(3_000, 50)
    direct = v2_pool(token("WBTC"), token("WETH"), price_of("WBTC") / price_of("WETH"), DEPTH // 1_000, fee_pips=500)
    lines = list(route_checks(with_snapshot(step, pools=(*step.snapshot.pools, direct))))
    named = " ".join(finding for _, state, finding, _ in lines if state == WARN)
    assert "WBTC and WETH" not in named
    assert mentions(named, "WBTC and LINK", "WETH and LINK", "59.9 bps")


@pytest.mark.parametrize("missing", ["WBTC", "WETH", "LINK"])
def test_asset_without_a_pool__warns_of_its_pairs(missing: str) -> None:
    others = tuple(symbol for symbol in ("WBTC", "WETH", "LINK") if symbol != missing)
    findings = [finding for _, state, finding, _ in route_checks(step_with(500, 50, others)) if state == WARN]
    assert len(findings) == 3
    assert all(mentions(finding, "no usable pool connects", missing) for finding in findings)


def test_asset_without_a_price__is_left_to_its_own_row() -> None:
    step = step_with(500, 50, ("WBTC", "WETH"))
    lines = list(route_checks(without_feed(step, "LINK")))
    assert [state for _, state, _, _ in lines] == [OK]
