"""Guards that let exits pass more work out by themselves what an exit is: a decision that says so is not believed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import guards
from agent.layers.tax.state import TaxState
from agent.model import ExternalTransfer, LotMethod, Payment, PendingPayment, Plan, Provide, StepInput, TaxInputs, TopUp
from agent.policy.cash_flows import transfers
from tests.support import builders
from tests.support.builders import history, raw, step_input, token, v2_pool, with_history, with_limits
from tests.support.decisions.exit_plans import with_exit as said
from tests.support.lp_worlds import planned, ranged, wanted, world
from tests.support.plans import Swap, evidence, plan_of, sell_weth

WETH, WBTC, USDC = token("WETH"), token("WBTC"), token("USDC")
WEIGHTS = {"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}
SPARED = {"balance_jump", "max_live_value", "daily_loss", "total_loss", "reverts_in_row", "max_weight"}
"""Guards that let more of an exit pass, but for those of turnover and of taxes."""


def hostile(**more: object) -> StepInput:
    """All that an exit passes and nothing else does: a fall and a gift beyond their limits, three reverts, a cap that is exceeded."""
    step = step_input(WEIGHTS, pools=[v2_pool(WETH, USDC, 2_000), v2_pool(WBTC, USDC, 60_000), v2_pool(WETH, WBTC, Fraction(1, 30))])
    lost = Fraction(9_000 * 10**6)
    flows = tuple(ExternalTransfer(1, WETH.address, sign, sign * lost, 1, 2, builders.NOW_S, True, None) for sign in (-1, 1))
    past = history(
        unexplained_transfers=flows, loss_24h=lost, loss_total=lost, decrease_24h=lost, decrease_total=lost, reverts_in_row=3, **more
    )
    capped = tuple(replace(one, max_bps=100) for one in step.portfolio.assets)
    step = replace(step, history=past, portfolio=replace(step.portfolio, assets=capped))
    limits = {"daily_loss_bps": 5_000, "total_loss_bps": 5_000, "plan_cost_bps": None, "price_impact_bps": None, "slippage_bps": 30}
    return with_limits(step, max_live_value=Fraction(1), turnover_bps=None, daily_turnover_bps=None, min_trade=None, **limits)


def refusing(step: StepInput, plan: Plan) -> set[str]:
    return {one.guard for one in guards.judge(step, plan, evidence(step, plan)) if not one.passed}


def buying(step: StepInput, *tokens: str) -> Plan:
    """Half a WETH for the numeraire, and some of it for each of these."""
    weth, wbtc, _ = step.snapshot.pools
    into = {WETH.address: weth, WBTC.address: wbtc}
    sale = Swap(weth, WETH.address, raw(Fraction(1, 2), WETH))
    return plan_of(step, [sale, *(Swap(into[one], USDC.address, raw(300, USDC)) for one in tokens)])


def test_a_sale_for_the_numeraire_passes_them_as_an_exit_alone() -> None:
    step = hostile()
    assert refusing(step, said(sell_weth(step))) & SPARED == set()
    assert refusing(step, said(sell_weth(step), exits=False)) >= SPARED


@pytest.mark.parametrize("raw_in", [1_000, 300 * 10**6])
def test_a_decision_that_says_exit_and_buys_another_asset_passes_none_of_them(raw_in: int) -> None:
    step = hostile()
    sale = Swap(step.snapshot.pools[0], WETH.address, raw(Fraction(1, 2), WETH))
    bought = said(plan_of(step, [sale, Swap(step.snapshot.pools[1], USDC.address, raw_in)]))
    assert refusing(step, bought) >= SPARED


def test_an_exit_into_another_asset_passes_none_of_them() -> None:
    step = hostile()
    plan = said(plan_of(step, [Swap(step.snapshot.pools[2], WETH.address, raw(Fraction(1, 2), WETH))]))
    assert refusing(step, plan) >= SPARED


def test_what_the_numeraire_buys_is_no_exit() -> None:
    step = hostile()
    plan = said(plan_of(step, [Swap(step.snapshot.pools[1], USDC.address, raw(300, USDC))]))
    assert refusing(step, plan) >= SPARED


def lacking(step: StepInput, whole: Fraction) -> StepInput:
    """A withdrawal of WBTC is open that lacks so much of it."""
    held = next(one.raw for one in step.snapshot.holdings if one.token == WBTC.address)
    return transfers.reserve_claims(step, (PendingPayment(1, Payment(WBTC.address, held + raw(whole, WBTC))),))


def test_what_a_withdrawal_lacks_is_bought_and_no_more() -> None:
    free = hostile()
    step = lacking(free, Fraction(1, 300))  # 200 USDC of WBTC
    pool = step.snapshot.pools[1]
    raised = said(plan_of(step, [Swap(pool, USDC.address, raw(201, USDC))]))
    assert refusing(step, raised) & SPARED == set()
    assert refusing(free, raised) >= SPARED, "nothing is lacking"
    more = said(plan_of(step, [Swap(pool, USDC.address, raw(260, USDC))]))
    assert refusing(step, more) >= SPARED, "more than it may take"
    other = said(plan_of(step, [Swap(step.snapshot.pools[0], USDC.address, raw(201, USDC))]))
    assert refusing(step, other) >= SPARED, "another asset"


def test_gas_money_and_liquidity_that_also_swap_are_no_exit() -> None:
    step = hostile()
    top_up = replace(sell_weth(step), decision=TopUp("short of gas", 1))
    assert refusing(step, top_up) >= {"balance_jump", "max_live_value", "reverts_in_row"}
    lp = world([ranged(2_000, 1_800, 2_200)], [wanted(1_000)])
    out = planned(lp)
    assert out.layer_actions
    assert not any(isinstance(action, Provide) for action in out.layer_actions)
    gift = (ExternalTransfer(1, WETH.address, 1, Fraction(10**12), 1, 2, builders.NOW_S, True, None),)
    lp = with_history(lp, unexplained_transfers=gift)
    assert "balance_jump" not in refusing(lp, out)
    swaps = plan_of(step, [Swap(step.snapshot.pools[0], USDC.address, raw(300, USDC))])
    assert "balance_jump" in refusing(lp, replace(out, legs=swaps.legs))


def test_an_exit_by_name_alone_realises_no_gain_beyond_the_year_s() -> None:
    step = hostile()
    plan = said(buying(step, WBTC.address))
    assert "(not applied)" in year(step, said(sell_weth(step)))
    assert "(not applied)" not in year(step, plan)


def year(step: StepInput, plan: Plan) -> str:
    """What the guard of taxes measures."""
    step = step.with_layer(TaxState(TaxInputs(LotMethod.FIFO, "", Fraction(1), (), Fraction(0), Fraction(0))))
    return next(one.measured_text for one in guards.judge(step, plan, evidence(step, plan)) if one.guard == "year_limit")
