"""Plans of the tracking rule that trade two assets, and income that moves weights under it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.futures.state import with_policy
from agent.model import Destination, Hold, Rebalance, StepInput
from agent.policy.decide import decide
from agent.policy.risk_estimates import complete_risk
from agent.policy.triggers.no_trade_zone import build_tracking
from tests.support import lp_worlds
from tests.support.builders import GWEI, history, with_limits, with_snapshot
from tests.support.decisions.tracking import TARGETS, TRADED_S, balance_changes, interval, tracking_step, weights_after
from tests.support.perpetuals.steps import book
from tests.support.perpetuals.values import OURS
from tests.support.plans import proposed_plan

HALVES = {"WETH": 5_000, "USDC": 5_000}


@pytest.mark.parametrize(("ether", "bitcoin"), [(6_000, 5_000), (-7_000, -7_000), (8_000, -8_000)], ids=["sells", "buys", "swaps"])
def test_tracking_plan_trades_two_assets_near_their_edges(ether: int, bitcoin: int) -> None:
    """The deviation that counts, each asset's own and what the other adds to it, is that of the edge once the plan is done."""
    step = with_limits(
        tracking_step(balance_changes(WETH=ether, WBTC=bitcoin)), plan_cost_bps=None
    )  # two legs at 0.3 % cost more than its 0.5 %
    plan = proposed_plan(step)
    symbols = {step.portfolio.token(address).symbol for leg in plan.legs for address in (leg.token_in, leg.token_out)}
    assert symbols == {"WETH", "WBTC", "USDC"}
    after = weights_after(step)
    assert after["LINK"] == pytest.approx(TARGETS["LINK"] / 100, abs=0.05)
    balanced = tracking_step({symbol: Fraction(round(share * 100), 10_000) * 50_000 for symbol, share in after.items()})
    assert isinstance(decide(balanced).decision, Hold)
    for symbol, dollars in (("WETH", ether), ("WBTC", bitcoin)):
        row = interval(balanced, symbol)
        edge = row.high if dollars > 0 else row.low
        half_width = (row.high - row.low) / 2
        assert abs(Fraction(round(after[symbol] * 100), 10_000) - edge) < half_width / 4, symbol


# income


def with_fees(usdc: int, collected: bool = False) -> StepInput:
    """Half WETH, half USDC, 2,000 dollars of them in a position whose fees are this many USDC; on target without them."""
    owed = lp_worlds.NO_FEES if collected else (usdc * lp_worlds.USD, 0)
    step = lp_worlds.world(
        [lp_worlds.ranged(2_000, 1_500, 2_666, owed=owed, core_owed=owed)],
        values={"WETH": 24_000, "USDC": 24_000 + (usdc if collected else 0)},
        trigger=build_tracking("normal"),
        destination=Destination.ZONE,
        past=history(last_rebalance_s=TRADED_S),
        cooldown_s=0,
    )
    head = replace(step.snapshot.head, base_fee_wei=GWEI // 4)
    return complete_risk(with_snapshot(step, priority_fee_wei=0, head=head))


@pytest.mark.parametrize("collected", [False, True], ids=["owed", "collected"])
@pytest.mark.parametrize(("usdc", "fires"), [(0, False), (4_000, False), (11_000, True)])
def test_liquidity_fees_wait_until_worth_a_trade(usdc: int, fires: bool, collected: bool) -> None:
    """11,000 USDC leave WETH at 41 %, beyond its range of 7 points."""
    decision = decide(with_fees(usdc, collected)).decision
    assert isinstance(decision, Rebalance if fires else Hold), decision.reason


@pytest.mark.parametrize(("settled", "fires"), [(0, False), (4_000, False), (11_000, True)])
def test_settled_funding_waits_until_worth_a_trade(settled: int, fires: bool) -> None:
    """Funding that a market paid is margin, which counts as USDC: the wallet's own buys WETH."""
    step = tracking_step({"WETH": 25_000, "USDC": 22_500}, targets=HALVES)
    account = replace(book(2_500 + settled), collateral_unit_raw=10**12)
    decision = decide(with_policy(with_snapshot(step, futures=account), replace(OURS, targets=()))).decision
    assert isinstance(decision, Rebalance if fires else Hold), decision.reason
