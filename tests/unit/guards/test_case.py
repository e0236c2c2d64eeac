"""Tests of agent/guards/case.py: what counts as an exit by its legs and actions, whatever the decision is called, and what that passes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import guards
from agent.guards.case import GuardCase, MissingData, build_guard_case
from agent.layers.tax.state import TaxState
from agent.model import ExternalTransfer, LotMethod, Payment, PendingPayment, Plan, Provide, StepInput, TaxInputs, TopUp
from agent.policy.cash_flows import transfers
from agent.units import NATIVE
from tests.support.builders import (
    ETHER,
    NOW_S,
    history,
    raw,
    step_input,
    v2_pool,
    v3_pool,
    with_history,
    with_limits,
    with_snapshot,
    without_feed,
)
from tests.support.decisions.exit_plans import with_exit
from tests.support.lp_worlds import lp_target, planned, ranged, world
from tests.support.plans import Swap, evidence, plan_of, sell_weth, verdict
from tests.support.text import mentions
from tests.support.tokens import USDC, WBTC, WETH

WEIGHTS = {"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}
EXIT_GUARDS = {"balance_jump", "max_live_value", "daily_loss", "total_loss", "reverts_in_row", "max_weight"}
"""Guards that let more of an exit pass, but for those of turnover and of taxes."""
HALF_WETH = ETHER // 2
WETH_USDC = 0
WBTC_USDC = 1
WETH_WBTC = 2
"""Pools of `exits_only_step`, by their place in the snapshot."""


def exits_only_step() -> StepInput:
    """Return a step that exits alone pass: a fall and a gift beyond their limits, three reverts, a cap and weights that are exceeded."""
    step = step_input(WEIGHTS, pools=[v2_pool(WETH, USDC, 2_000), v2_pool(WBTC, USDC, 60_000), v2_pool(WETH, WBTC, Fraction(1, 30))])
    lost_value = Fraction(9_000 * 10**6)
    changes = tuple(ExternalTransfer(1, WETH.address, sign, sign * lost_value, 1, 2, NOW_S, True, None) for sign in (-1, 1))
    past = history(
        unexplained_transfers=changes,
        loss_24h=lost_value,
        loss_total=lost_value,
        decrease_24h=lost_value,
        decrease_total=lost_value,
        reverts_in_row=3,
    )
    assets = tuple(replace(asset, max_bps=100) for asset in step.portfolio.assets)
    step = replace(step, history=past, portfolio=replace(step.portfolio, assets=assets))
    off = dict.fromkeys(("turnover_bps", "daily_turnover_bps", "min_trade", "plan_cost_bps", "price_impact_bps"))
    return with_limits(step, max_live_value=Fraction(1), daily_loss_bps=5_000, total_loss_bps=5_000, slippage_bps=30, **off)


def refusing_guards(step: StepInput, plan: Plan) -> set[str]:
    return {judged.guard for judged in guards.judge(step, plan, evidence(step, plan)) if not judged.passed}


def swaps_plan(step: StepInput, *swaps: tuple[int, str, int]) -> Plan:
    """Return the plan with these swaps: (pool, token sold, base units)."""
    return plan_of(step, [Swap(step.snapshot.pools[pool_index], sold, amount_raw) for pool_index, sold, amount_raw in swaps])


# --- price


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        pytest.param(WETH.address, "the feed of WETH was not read", id="wrapped coin"),
        pytest.param(NATIVE, "the feed of WETH was not read", id="native coin, whose price is that of its wrapped token"),
        pytest.param("0x" + "77" * 20, "not a token of the portfolio", id="foreign token"),
    ],
)
def test_missing_price_names_its_reason(token: str, reason: str) -> None:
    step = without_feed(step_input(), "WETH")
    plan = sell_weth(step)

    with pytest.raises(MissingData) as fault:
        build_guard_case(step, plan, evidence(step, plan)).price(token)

    assert mentions(str(fault.value), reason)


# --- is_sell_only


def test_sale_for_the_numeraire_is_an_exit_if_its_decision_is() -> None:
    step = exits_only_step()

    assert not refusing_guards(step, with_exit(sell_weth(step))) & EXIT_GUARDS
    assert refusing_guards(step, with_exit(sell_weth(step), exits=False)) >= EXIT_GUARDS


@pytest.mark.parametrize(
    "swaps",
    [
        pytest.param([(WETH_USDC, WETH.address, HALF_WETH), (WBTC_USDC, USDC.address, 1_000)], id="sells and buys a little"),
        pytest.param([(WETH_USDC, WETH.address, HALF_WETH), (WBTC_USDC, USDC.address, 300 * 10**6)], id="sells and buys much"),
        pytest.param([(WETH_WBTC, WETH.address, HALF_WETH)], id="into another asset"),
        pytest.param([(WBTC_USDC, USDC.address, 300 * 10**6)], id="buys for the numeraire"),
    ],
)
def test_plan_that_buys_an_asset_is_no_exit_by_its_name(swaps: list[tuple[int, str, int]]) -> None:
    step = exits_only_step()

    assert refusing_guards(step, with_exit(swaps_plan(step, *swaps))) >= EXIT_GUARDS


def with_shortfall(step: StepInput, wbtc: Fraction) -> StepInput:
    """Return the step with an open withdrawal of WBTC that lacks so much of it."""
    balance_raw = next(holding.raw for holding in step.snapshot.holdings if holding.token == WBTC.address)
    claim = PendingPayment(1, Payment(WBTC.address, balance_raw + raw(wbtc, WBTC)))
    return transfers.reserve_claims(step, (claim,))


SHORTFALL_WBTC = Fraction(1, 300)
"""200 USDC of WBTC."""


@pytest.mark.parametrize(
    ("shortfall_wbtc", "pool_index", "usdc", "is_exit"),
    [
        pytest.param(SHORTFALL_WBTC, WBTC_USDC, 201, True, id="the shortfall"),
        pytest.param(Fraction(0), WBTC_USDC, 201, False, id="nothing lacks"),
        pytest.param(SHORTFALL_WBTC, WBTC_USDC, 260, False, id="more than the shortfall"),
        pytest.param(SHORTFALL_WBTC, WETH_USDC, 201, False, id="another asset"),
    ],
)
def test_purchase_of_a_withdrawal_s_shortfall_is_an_exit(shortfall_wbtc: Fraction, pool_index: int, usdc: int, is_exit: bool) -> None:
    step = with_shortfall(exits_only_step(), shortfall_wbtc) if shortfall_wbtc else exits_only_step()
    plan = with_exit(swaps_plan(step, (pool_index, USDC.address, usdc * 10**6)))

    assert refusing_guards(step, plan) & EXIT_GUARDS == (set() if is_exit else EXIT_GUARDS)


def case_of(step: StepInput, plan: Plan) -> GuardCase:
    return build_guard_case(step, plan, evidence(step, plan))


@pytest.mark.parametrize("min_trade", [None, Fraction(10 * 10**6)], ids=["min_trade off", "min_trade of 10 USDC"])
def test_purchase_of_a_shortfall_may_exceed_it_by_min_trade(min_trade: Fraction | None) -> None:
    step = with_limits(with_shortfall(exits_only_step(), SHORTFALL_WBTC), min_trade=min_trade)
    largest_raw = int(transfers.gross_sale_value(step, WBTC.address) + (min_trade or 0))

    def purchase(usdc_raw: int) -> Plan:
        return with_exit(swaps_plan(step, (WBTC_USDC, USDC.address, usdc_raw)))

    assert case_of(step, purchase(largest_raw)).is_sell_only()
    assert not case_of(step, purchase(largest_raw + 1)).is_sell_only()


def test_small_purchase_of_what_lacks_nothing_is_no_exit() -> None:
    step = with_limits(with_shortfall(exits_only_step(), SHORTFALL_WBTC), min_trade=Fraction(10 * 10**6))

    assert case_of(step, with_exit(swaps_plan(step, (WBTC_USDC, USDC.address, 15 * 10**6)))).is_sell_only()
    assert not case_of(step, with_exit(swaps_plan(step, (WETH_USDC, USDC.address, 15 * 10**6)))).is_sell_only()


def test_purchase_of_exactly_the_justified_value_is_an_exit() -> None:
    step = with_limits(with_shortfall(exits_only_step(), Fraction(1, 100)), min_trade=Fraction(700 * 10**6), slippage_bps=None)
    justified_value = transfers.gross_sale_value(step, WBTC.address)
    assert justified_value == 700 * 10**6
    plan = with_exit(swaps_plan(step, (WBTC_USDC, USDC.address, 1_400 * 10**6)))

    assert case_of(step, plan).is_sell_only()


# --- is_risk_reducing


def test_refill_of_gas_that_also_swaps_is_no_exit() -> None:
    step = exits_only_step()
    refill = replace(sell_weth(step), decision=TopUp("short of gas", 1))

    assert refusing_guards(step, refill) >= {"balance_jump", "max_live_value", "reverts_in_row"}


def test_withdrawal_of_liquidity_that_also_swaps_is_no_exit() -> None:
    step = world([ranged(2_000, 1_800, 2_200)], [lp_target(1_000)])
    withdrawal = planned(step)
    gift = ExternalTransfer(1, WETH.address, 1, Fraction(10**12), 1, 2, NOW_S, True, None)
    step = with_history(step, unexplained_transfers=(gift,))
    legs = plan_of(step, [Swap(step.snapshot.pools[0], USDC.address, raw(300, USDC))]).legs

    assert withdrawal.layer_actions
    assert not any(isinstance(action, Provide) for action in withdrawal.layer_actions)
    assert "balance_jump" not in refusing_guards(step, withdrawal)
    assert "balance_jump" in refusing_guards(step, replace(withdrawal, legs=legs))


def year_limit_text(step: StepInput, plan: Plan) -> str:
    """Return what the guard of taxes measures."""
    step = step.with_layer(TaxState(TaxInputs(LotMethod.FIFO, "", Fraction(1), (), Fraction(0), Fraction(0))))
    return verdict("year_limit", step, plan).measured_text


def test_plan_that_buys_an_asset_realises_no_gain_as_an_exit() -> None:
    step = exits_only_step()
    sale_and_purchase = swaps_plan(step, (WETH_USDC, WETH.address, HALF_WETH), (WBTC_USDC, USDC.address, 300 * 10**6))

    assert "(not applied)" in year_limit_text(step, with_exit(sell_weth(step)))
    assert "(not applied)" not in year_limit_text(step, with_exit(sale_and_purchase))


# --- judged_tokens, price_range, balances


@pytest.mark.parametrize(
    ("is_exit", "with_gas", "tokens"),
    [
        pytest.param(False, True, None, id="a rebalance judges all"),
        pytest.param(True, True, {WBTC.address, USDC.address, WETH.address}, id="an exit with gas"),
        pytest.param(True, False, {WBTC.address, USDC.address}, id="an exit without gas"),
    ],
)
def test_judged_tokens_of_an_exit_are_those_it_depends_on(is_exit: bool, with_gas: bool, tokens: set[str] | None) -> None:
    step = exits_only_step()
    plan = with_exit(swaps_plan(step, (WBTC_USDC, WBTC.address, 10**6)), exits=is_exit)

    assert case_of(step, plan).judged_tokens(with_gas=with_gas) == tokens


def test_judged_tokens_include_the_numeraire_that_no_leg_trades() -> None:
    step = exits_only_step()
    plan = with_exit(plan_of(step, []))

    assert USDC.address in (case_of(step, plan).judged_tokens() or set())


@pytest.mark.parametrize(("is_exit", "highest_usdc"), [(False, 2_020), (True, 2_000)], ids=["rebalance", "exit"])
def test_price_range_of_an_exit_is_the_reference_alone(is_exit: bool, highest_usdc: int) -> None:
    step = step_input(pools=[v2_pool(WETH, USDC, 2_000), v3_pool(WETH, USDC, 2_000, twap_price=2_020)])
    step = replace(step, reference=replace(step.reference, uses_worse_source=True))

    lowest, highest = case_of(step, with_exit(sell_weth(step), exits=is_exit)).price_range(WETH.address)

    assert lowest == Fraction(2_000 * 10**6, ETHER)
    assert float(highest * ETHER / 10**6) == pytest.approx(highest_usdc, rel=1e-4)


@pytest.mark.parametrize(
    ("reserve_raw", "spendable_raw", "investable_raw"),
    [
        pytest.param(0, 2 * ETHER + 9 * ETHER // 20, 2 * ETHER + 9 * ETHER // 20, id="both forms less the gas floor"),
        pytest.param(3 * ETHER, -11 * ETHER // 20, 0, id="below its reserve"),
    ],
)
def test_spendable_coin_is_above_floor_and_reserve(reserve_raw: int, spendable_raw: int, investable_raw: int) -> None:
    step = with_snapshot(step_input(values={"WETH": 4_000, "USDC": 4_000}), native_wei=ETHER // 2)
    weth_asset, usdc_asset = step.portfolio.assets
    weth_asset = replace(weth_asset, includes_native=True, reserve_raw=reserve_raw)
    step = replace(step, portfolio=replace(step.portfolio, assets=(weth_asset, usdc_asset)))
    case = case_of(step, sell_weth(step))

    assert case.balance_raw(NATIVE) == ETHER // 2
    assert case.spendable_raw(weth_asset) == spendable_raw
    assert case.investable_raw(weth_asset) == investable_raw
