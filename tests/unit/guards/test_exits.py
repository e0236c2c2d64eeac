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
from tests.support.decisions.exit_plans import with_exit
from tests.support.lp_worlds import planned, ranged, wanted, world
from tests.support.plans import Swap, evidence, plan_of, sell_weth

WETH, WBTC, USDC = token("WETH"), token("WBTC"), token("USDC")
WEIGHTS = {"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}
SPARED = {"balance_jump", "max_live_value", "daily_loss", "total_loss", "reverts_in_row", "max_weight"}
"""Guards that let more of an exit pass, but for those of turnover and of taxes."""


def step_that_only_exits_pass(**past_fields: object) -> StepInput:
    """All that an exit passes and nothing else does: a fall and a gift beyond their limits, three reverts, a cap that is exceeded."""
    step = step_input(WEIGHTS, pools=[v2_pool(WETH, USDC, 2_000), v2_pool(WBTC, USDC, 60_000), v2_pool(WETH, WBTC, Fraction(1, 30))])
    lost_value = Fraction(9_000 * 10**6)
    flows = tuple(ExternalTransfer(1, WETH.address, sign, sign * lost_value, 1, 2, builders.NOW_S, True, None) for sign in (-1, 1))
    past_history = history(
        unexplained_transfers=flows,
        loss_24h=lost_value,
        loss_total=lost_value,
        decrease_24h=lost_value,
        decrease_total=lost_value,
        reverts_in_row=3,
        **past_fields,
    )
    capped_assets = tuple(replace(verdict_, max_bps=100) for verdict_ in step.portfolio.assets)
    step = replace(step, history=past_history, portfolio=replace(step.portfolio, assets=capped_assets))
    limits = {"daily_loss_bps": 5_000, "total_loss_bps": 5_000, "plan_cost_bps": None, "price_impact_bps": None, "slippage_bps": 30}
    return with_limits(step, max_live_value=Fraction(1), turnover_bps=None, daily_turnover_bps=None, min_trade=None, **limits)


def refusing_guards(step: StepInput, plan: Plan) -> set[str]:
    return {verdict_.guard for verdict_ in guards.judge(step, plan, evidence(step, plan)) if not verdict_.passed}


def sale_and_purchases(step: StepInput, *tokens: str) -> Plan:
    """Half a WETH for the numeraire, and some of it for each of these."""
    weth, wbtc, _ = step.snapshot.pools
    pool_by_token = {WETH.address: weth, WBTC.address: wbtc}
    sale = Swap(weth, WETH.address, raw(Fraction(1, 2), WETH))
    return plan_of(step, [sale, *(Swap(pool_by_token[verdict_], USDC.address, raw(300, USDC)) for verdict_ in tokens)])


def test_a_sale_for_the_numeraire_passes_them_as_an_exit_alone() -> None:
    step = step_that_only_exits_pass()
    assert refusing_guards(step, with_exit(sell_weth(step))) & SPARED == set()
    assert refusing_guards(step, with_exit(sell_weth(step), exits=False)) >= SPARED


@pytest.mark.parametrize("raw_in", [1_000, 300 * 10**6])
def test_a_decision_that_says_exit_and_buys_another_asset_passes_none_of_them(raw_in: int) -> None:
    step = step_that_only_exits_pass()
    sale = Swap(step.snapshot.pools[0], WETH.address, raw(Fraction(1, 2), WETH))
    plan = with_exit(plan_of(step, [sale, Swap(step.snapshot.pools[1], USDC.address, raw_in)]))
    assert refusing_guards(step, plan) >= SPARED


def test_an_exit_into_another_asset_passes_none_of_them() -> None:
    step = step_that_only_exits_pass()
    plan = with_exit(plan_of(step, [Swap(step.snapshot.pools[2], WETH.address, raw(Fraction(1, 2), WETH))]))
    assert refusing_guards(step, plan) >= SPARED


def test_what_the_numeraire_buys_is_no_exit() -> None:
    step = step_that_only_exits_pass()
    plan = with_exit(plan_of(step, [Swap(step.snapshot.pools[1], USDC.address, raw(300, USDC))]))
    assert refusing_guards(step, plan) >= SPARED


def with_shortfall(step: StepInput, whole: Fraction) -> StepInput:
    """A withdrawal of WBTC is open that lacks so much of it."""
    balance_raw = next(verdict_.raw for verdict_ in step.snapshot.holdings if verdict_.token == WBTC.address)
    return transfers.reserve_claims(step, (PendingPayment(1, Payment(WBTC.address, balance_raw + raw(whole, WBTC))),))


def test_what_a_withdrawal_lacks_is_bought_and_no_more() -> None:
    free_step = step_that_only_exits_pass()
    step = with_shortfall(free_step, Fraction(1, 300))  # 200 USDC of WBTC
    pool = step.snapshot.pools[1]
    plan_of_shortfall = with_exit(plan_of(step, [Swap(pool, USDC.address, raw(201, USDC))]))
    assert refusing_guards(step, plan_of_shortfall) & SPARED == set()
    assert refusing_guards(free_step, plan_of_shortfall) >= SPARED, "nothing is lacking"
    past_fields = with_exit(plan_of(step, [Swap(pool, USDC.address, raw(260, USDC))]))
    assert refusing_guards(step, past_fields) >= SPARED, "more than it may take"
    other_plan = with_exit(plan_of(step, [Swap(step.snapshot.pools[0], USDC.address, raw(201, USDC))]))
    assert refusing_guards(step, other_plan) >= SPARED, "another asset"


def test_gas_money_and_liquidity_that_also_swap_are_no_exit() -> None:
    step = step_that_only_exits_pass()
    top_up = replace(sell_weth(step), decision=TopUp("short of gas", 1))
    assert refusing_guards(step, top_up) >= {"balance_jump", "max_live_value", "reverts_in_row"}
    lp = world([ranged(2_000, 1_800, 2_200)], [wanted(1_000)])
    withdrawal = planned(lp)
    assert withdrawal.layer_actions
    assert not any(isinstance(action, Provide) for action in withdrawal.layer_actions)
    gift = (ExternalTransfer(1, WETH.address, 1, Fraction(10**12), 1, 2, builders.NOW_S, True, None),)
    lp = with_history(lp, unexplained_transfers=gift)
    assert "balance_jump" not in refusing_guards(lp, withdrawal)
    swaps = plan_of(step, [Swap(step.snapshot.pools[0], USDC.address, raw(300, USDC))])
    assert "balance_jump" in refusing_guards(lp, replace(withdrawal, legs=swaps.legs))


def test_an_exit_by_name_alone_realises_no_gain_beyond_the_year_s() -> None:
    step = step_that_only_exits_pass()
    plan = with_exit(sale_and_purchases(step, WBTC.address))
    assert "(not applied)" in year_limit_text(step, with_exit(sell_weth(step)))
    assert "(not applied)" not in year_limit_text(step, plan)


def year_limit_text(step: StepInput, plan: Plan) -> str:
    """What the guard of taxes measures."""
    step = step.with_layer(TaxState(TaxInputs(LotMethod.FIFO, "", Fraction(1), (), Fraction(0), Fraction(0))))
    return next(verdict_.measured_text for verdict_ in guards.judge(step, plan, evidence(step, plan)) if verdict_.guard == "year_limit")
