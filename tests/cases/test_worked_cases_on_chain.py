"""The worked cases of the requirements from snapshot to receipt: what is triggered is what is traded, on real contracts."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest

from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import Rebalance
from tests.support.agents import ROOMY, agent_on, fund, off_target, purse, require_exact, require_exact_rebalance, swap_of, yes
from tests.support.on_chain.worked_cases import require_traded

QUARTERS = dict.fromkeys(("WETH", "WBTC", "LINK", "USDC"), "25%")
W2_TARGETS = {"WBTC": "50%", "WETH": "30%", "USDC": "20%"}
W3_TARGETS = {"WBTC": "30%", "WETH": "30%", "LINK": "40%"}
FIFTEEN_POINTS = {"kind": "threshold", "absolute": "15%"}
W4_TARGETS = {"WBTC": "50%", "WETH": "30%", "LINK": "20%"}
HALVES = {"WETH": "50%", "USDC": "50%"}
ANY_COST = {"limits.plan_cost": "off", "limits.min_trade": "5"}
"""For portfolios so small that gas alone is more than half a percent of what they trade."""


NO_DOLLARS = {
    "portfolio.numeraire": "WETH",
    "portfolio.max_live_value": "40",
    "limits.min_trade": "0.003",
    "limits.pool_min_value": "15",
    "limits.plan_cost": "1%",
}
"""The template's amounts in WETH, where no stable token is held; a pool of 0.3 % and gas cost just more than half a percent."""


@pytest.mark.parametrize(("scale", "limits"), [(1, ANY_COST), (80, {})], ids=["dollar for dollar", "under the template limits"])
def test_w1__one_winner_pays_for_the_loser_and_the_others(
    chain: LocalChain, tmp_path: Path, scale: int, limits: Mapping[str, object]
) -> None:
    fund(chain, dict.fromkeys(QUARTERS, 250 * scale))
    usd = chain.deployed_world.prices_usd
    chain.move_market({"WETH": usd["WETH"] * Fraction(13, 10), "WBTC": usd["WBTC"] * Fraction(8, 10)})
    with agent_on(chain, tmp_path, limits, QUARTERS) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes)
        swap_of(outcome)
        require_exact(chain, outcome, before)
        ideal = {"WETH": -68.75, "WBTC": 56.25, "LINK": 6.25, "USDC": 6.25}
        require_traded(chain, before, {symbol: usd * scale for symbol, usd in ideal.items()}, within=0.4 * scale)
        assert max(off_target(chain, QUARTERS).values()) <= 10


def test_w2__800_of_the_overweight_buys_300_and_500_at_once(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WBTC": 5_800, "WETH": 2_700, "USDC": 1_500})
    with agent_on(chain, tmp_path, targets=W2_TARGETS) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes)
        swap_of(outcome)
        require_exact(chain, outcome, before)
        assert isinstance(outcome.decision, Rebalance)
        assert [drift.symbol for drift in outcome.decision_result.drifts if drift.is_outside_band] == ["WBTC", "USDC"]
        require_traded(chain, before, {"WBTC": -800, "WETH": 300, "USDC": 500}, within=1.5)
        assert max(off_target(chain, W2_TARGETS).values()) <= 10
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD


def test_w3_the_spot_part_alts_that_doubled_pay_for_both_others(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WBTC": 3_000, "WETH": 3_000, "LINK": 4_000})
    chain.move_market({"LINK": chain.deployed_world.prices_usd["LINK"] * 2})
    with agent_on(chain, tmp_path, NO_DOLLARS | {"policy.trigger": FIFTEEN_POINTS}, W3_TARGETS) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes)
        swap_of(outcome)
        require_exact(chain, outcome, before)
        assert [drift.symbol for drift in outcome.decision_result.drifts if drift.is_outside_band] == ["LINK"]
        require_traded(chain, before, {"LINK": -2_400, "WBTC": 1_200, "WETH": 1_200}, within=12)
        assert max(off_target(chain, W3_TARGETS).values()) <= 10


def test_w6__grown_crypto_fills_the_stable_reserve_again(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 3_500, "USDC": 6_500})
    with agent_on(chain, tmp_path, targets={"WETH": "20%", "USDC": "80%"}) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes)
        swap_of(outcome)
        require_exact(chain, outcome, before)
        require_traded(chain, before, {"WETH": -1_500, "USDC": 1_500}, within=3)


def test_w4_one_asset_that_doubled_alone_is_sold_for_both_others(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WBTC": 5_000, "WETH": 3_000, "LINK": 2_000})
    chain.move_market({"LINK": chain.deployed_world.prices_usd["LINK"] * 2})
    with agent_on(chain, tmp_path, NO_DOLLARS, W4_TARGETS) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes)
        swap_of(outcome)
        require_exact(chain, outcome, before)
        assert [drift.weight_bps for drift in outcome.decision_result.drifts] == [4_167, 2_500, 3_333]
        require_traded(chain, before, {"LINK": -1_600, "WBTC": 1_000, "WETH": 600}, within=8)
        assert max(off_target(chain, W4_TARGETS).values()) <= 10


def test_w8__band_is_left_at_minus_18_2_and_plus_22_2_percent(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    start = chain.deployed_world.prices_usd["WETH"]
    with agent_on(chain, tmp_path, ROOMY, HALVES) as agent:
        for percent in ("22.1", "-18.1"):
            chain.move_market({"WETH": start * (1 + Fraction(percent) / 100)})
            assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD, percent
        for percent, grows in (("22.3", "USDC"), ("-18.3", "WETH")):
            mark = chain.snapshot()
            chain.move_market({"WETH": start * (1 + Fraction(percent) / 100)})
            outcome = agent.plan()
            assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
            assert outcome.plan is not None
            assert {agent.portfolio.token(leg.token_out).symbol for leg in outcome.plan.legs} == {grows}
            chain.revert(mark)
        chain.move_market({"WETH": start * Fraction(817, 1000)})
        outcome = require_exact_rebalance(chain, agent)
        assert max(off_target(chain, HALVES).values()) <= 10
