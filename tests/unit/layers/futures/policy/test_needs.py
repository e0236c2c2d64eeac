"""What futures may do at a block: deposits, budgets, cooldowns and back-offs, at exact amounts and seconds."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.app.alerting import RunFacts, cycle_alerts
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.policy.needs import (
    AGENT_KEY_WARNING_S,
    agent_key_ends_soon,
    back_off_reason,
    cooldown_reason,
    deleverage_sizes,
    depositable_raw,
    index_requires_reduction,
    reduction_budget_left,
    reopening_s,
    spendable_collateral_raw,
    spot_value_in_quote,
)
from agent.layers.futures.state import FuturesState
from agent.margin import account as margin
from agent.model import MARGIN_PLACE, AdjustFutures, ExitFailures, Hold, StepInput
from agent.policy import failures
from agent.policy.decide import current_drifts, decide
from tests.support.builders import NOW_S, with_history, with_snapshot
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import LOT
from tests.support.perpetuals.needs import UNIT, USDC, in_usdc, policy
from tests.support.perpetuals.plans import pair_book
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, OVER, PUSHED, step_of

# Deposits: 5,000 of USDC and 5,000 of WETH are in the wallet.


def depositable(step: StepInput, *, has_prices: bool = True) -> int:
    return depositable_raw(step, current_drifts(step) if has_prices else ())


@pytest.mark.parametrize(
    ("top_up_bps", "topped_up", "coins"),
    [
        pytest.param(None, 9_000, 5_000, id="limit off"),
        pytest.param(3_000, 0, 3_000, id="nothing deposited"),
        pytest.param(3_000, 2_000, 1_000, id="part deposited"),
        pytest.param(3_000, 3_000, 0, id="all deposited"),
        pytest.param(3_000, 4_000, 0, id="more than all"),
        pytest.param(10_000, 0, 5_000, id="more than at hand"),
    ],
)
def test_depositable__is_what_the_wallet_and_the_day_leave(top_up_bps: int | None, topped_up: int, coins: int) -> None:
    step = step_of(in_usdc(OVER), policy(top_up_bps), top_up_value_24h=Fraction(topped_up * UNIT))
    assert depositable(step) == coins * UNIT


def test_depositable__without_prices_is_a_share_of_the_collateral() -> None:
    step = step_of(in_usdc(OVER), policy(3_000), top_up_value_24h=Fraction(500 * UNIT))
    assert depositable(step, has_prices=False) == 1_000 * UNIT


def test_depositable__part_of_a_base_unit_is_not_deposited() -> None:
    step = step_of(in_usdc(OVER), policy(3_000), top_up_value_24h=Fraction(1, 3))
    assert depositable(step) == 3_000 * UNIT - 1


def test_depositable__failed_deposits_back_off() -> None:
    failed = (ExitFailures(MARGIN_PLACE, failures.MAX_REVERTS_IN_ROW, 0, NOW_S),)
    assert depositable(step_of(in_usdc(OVER), policy(), failed_exits=failed)) == 0


def test_collateral__reserve_of_the_asset_is_not_spendable() -> None:
    step = step_of(in_usdc(OVER), policy())
    assets = tuple(replace(asset, reserve_raw=1_200 * UNIT) if asset.token.address == USDC else asset for asset in step.portfolio.assets)
    portfolio = replace(step.portfolio, assets=assets)
    assert spendable_collateral_raw(step.snapshot, portfolio, step.limits, USDC) == 3_800 * UNIT


def test_collateral__reserve_above_the_balance_leaves_nothing() -> None:
    step = step_of(in_usdc(OVER), policy())
    assets = tuple(replace(asset, reserve_raw=6_000 * UNIT) if asset.token.address == USDC else asset for asset in step.portfolio.assets)
    assert spendable_collateral_raw(step.snapshot, replace(step.portfolio, assets=assets), step.limits, USDC) == 0


# Budgets, cooldowns and back-offs


def budget_left(reduced: int, **changes: object) -> Fraction | None:
    step = with_history(step_of(PUSHED, **changes), reduced_notional_24h=Fraction(reduced * UNIT))
    budget = reduction_budget_left(step, spot_value_in_quote(step, current_drifts(step)))
    return None if budget is None else budget / E18


@pytest.mark.parametrize(("reduced", "budget"), [(0, 17_000), (5_000, 12_000), (16_829, 171), (16_830, 0), (20_000, 0)])
def test_reduction_budget__rest_of_a_hundredth_counts_as_used(reduced: int, budget: int) -> None:
    """2x of 8,500 are 17,000."""
    assert margin.account_value_raw(PUSHED) == 8_500 * E18
    assert budget_left(reduced) == budget


def test_reduction_budget__unknown_day_is_judged_by_the_guard() -> None:
    assert budget_left(0, unknown_reason="a gap") is None


def test_reduction_budget__reduction_the_index_requires_has_none() -> None:
    step = step_of(OVER)
    assert reduction_budget_left(step, spot_value_in_quote(step, current_drifts(step))) is None


def test_required_by_index__pushed_mark_alone_requires_nothing() -> None:
    step = step_of(PUSHED)
    assert not index_requires_reduction(step.snapshot, FUTURES_POLICY, None)


@pytest.mark.parametrize(("now_s", "waits"), [(99, True), (100, False), (101, False)])
def test_cooldown__ends_at_its_second(now_s: int, waits: bool) -> None:
    assert bool(cooldown_reason(100, now_s)) is waits


@pytest.mark.parametrize(
    ("cooldown_s", "last_s", "from_s"),
    [
        pytest.param(600, 1_000, 1_600, id="after an emergency"),
        pytest.param(0, 1_000, 0, id="off"),
        pytest.param(600, None, 0, id="no emergency"),
    ],
)
def test_cooldown__begins_at_the_newest_emergency(cooldown_s: int, last_s: int | None, from_s: int) -> None:
    assert reopening_s(policy(emergency_cooldown_s=cooldown_s), FuturesState(last_emergency_s=last_s)) == from_s


@pytest.mark.parametrize(("later_s", "waits"), [(-1, True), (0, False)])
def test_back_off__market_is_tried_again_at_the_second_it_names(later_s: int, waits: bool) -> None:
    failure = ExitFailures("ETH", failures.MAX_REVERTS_IN_ROW, 0, NOW_S - 10**6)
    wait_s = failures.retry_wait_s(failure)
    failure = replace(failure, at_s=NOW_S - wait_s - later_s)
    step = step_of(OVER, failed_exits=(failure,))
    assert bool(back_off_reason(step.snapshot, step.history, "ETH")) is waits


def test_back_off__emergency_waits_for_its_shorter_time_at_most() -> None:
    failure = ExitFailures("ETH", failures.MAX_REVERTS_IN_ROW + 20, 0, NOW_S - failures.FIRST_WAIT_S)
    step = step_of(OVER, failed_exits=(failure,))
    waits = [bool(back_off_reason(step.snapshot, step.history, "ETH", is_emergency=is_emergency)) for is_emergency in (True, False)]
    assert waits == [False, True]


@pytest.mark.parametrize(("end_s", "warns"), [(0, False), (NOW_S + AGENT_KEY_WARNING_S - 1, True), (NOW_S + AGENT_KEY_WARNING_S, False)])
def test_approval__warning_begins_within_its_time_of_the_end(end_s: int, warns: bool) -> None:
    assert agent_key_ends_soon(with_snapshot(step_of(EMPTY), key_approval_expires_s=end_s).snapshot) is warns


# Spot and futures together


# Plans


def test_trigger_that_waits_for_a_person__orders_nothing() -> None:
    changed_futures_policy = replace(FUTURES_POLICY, manual_triggers=("leverage",))
    decision = decide(step_of(OVER, changed_futures_policy)).decision
    assert isinstance(decision, Hold)
    assert "futures: leverage is above its limit; futures.ask requires a confirmation: trimtab rebalance --send" in decision.reason
    assert isinstance(decide(step_of(OVER)).decision, AdjustFutures)
    assert isinstance(decide(step_of(EMPTY, changed_futures_policy)).decision, AdjustFutures)
    assert isinstance(decide(step_of(EMPTY, replace(changed_futures_policy, manual_triggers=("drift",)))).decision, Hold)


def test_an_alert_carries_the_orders_that_wait_for_a_person() -> None:
    step = step_of(OVER, replace(FUTURES_POLICY, manual_triggers=("leverage",)))
    outcome = StepOutcome("step", OutcomeKind.HOLD, "a reason", step, decide(step), None)
    texts = [alert.text for alert in cycle_alerts(outcome, RunFacts(False, "", None)) if alert.key.startswith("futures:")]
    assert len(texts) == 1
    assert texts[0].startswith("Futures actions await confirmation (leverage); leverage 4.00x of at most 3x, utilisation")
    assert texts[0].endswith("It would close 5.75 of 20 ETH (long). Run: trimtab rebalance --send")


@pytest.mark.parametrize(
    ("eth", "slippage_bps", "order"),
    [
        pytest.param(10, 0, -5_006, id="long without slippage"),
        pytest.param(10, 2_000, -6_258, id="long with slippage"),
        pytest.param(-10, 0, 5_006, id="short without slippage"),
        pytest.param(-10, 2_000, 6_260, id="short with slippage"),
    ],
)
def test_deleverage__reduction_pays_for_its_fee_and_slippage(eth: int, slippage_bps: int, order: int) -> None:
    """From 2x to 1x: 10,000 of 20,000 · (1 - cost), where the fee of 1 ‰ counts on the larger of value and bound."""
    assert deleverage_sizes(pair_book(10_000, eth * E18), Fraction(1), ["ETH"], slippage_bps) == {"ETH": order * LOT}


def test_deleverage__leverage_that_is_reached_needs_no_order() -> None:
    assert deleverage_sizes(pair_book(10_000, 5 * E18), Fraction(1), ["ETH"], 0) == {}


def test_deleverage__account_in_debt_closes_everything() -> None:
    account = replace(pair_book(0, 5 * E18), realised_raw=-E18)
    assert deleverage_sizes(account, Fraction(1), ["ETH"], 0) == {"ETH": -5 * E18}
