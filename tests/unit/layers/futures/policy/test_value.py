"""The margin account as part of the portfolio: total, weights, caps, and what is never spent or guessed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.errors import Refused
from agent.layers.futures.policy.exposure import exposures
from agent.layers.futures.policy.needs import spot_value_in_quote
from agent.layers.futures.state import futures_policy, hold_futures, margin_account, with_policy
from agent.layers.strategies.policy.netting import net_strategies
from agent.margin import account as margin
from agent.model import (
    MARGIN_PLACE,
    PORTFOLIO_SUBJECT,
    ExitFailures,
    Halt,
    HaltCode,
    Hold,
    NavPerShare,
    OrderKind,
    OrdersConfig,
    OrderStage,
    OrderTerms,
    Rebalance,
    ScreenedToken,
    StepInput,
    TokenFinding,
)
from agent.model.futures import MarginAccount
from agent.planning.proposals import propose_rebalance
from agent.policy import failures
from agent.policy.cash_flows.transfers import goal_to_invest
from agent.policy.decide import current_drifts, decide
from agent.policy.drift import band_edge_prices, compute_drifts, investable_total, portfolio_total
from agent.policy.orders.conditional import advance_orders, updated_nav_record
from agent.policy.quarantine import quarantine_tokens
from agent.reference import reference_prices
from tests.support.builders import (
    NOW_S,
    brought_up,
    opening,
    split,
    step_input,
    strategy,
    threshold,
    with_feed,
    with_history,
    with_limits,
)
from tests.support.perpetuals.hedges import E6, E18
from tests.support.perpetuals.steps import EVEN, OVER, book
from tests.support.perpetuals.values import OURS, USDC, step_with_margin
from tests.support.plans import proposed_plan, verdict

SKEWED = {"WETH": 8_000, "USDC": 2_000}
LONG = book(2_500, E18)
FALLEN = margin.with_moved_marks(LONG, {"ETH": Fraction(-1, 2)})
ROOMY = {"turnover_bps": None, "daily_turnover_bps": None}


def apart(step: StepInput) -> StepInput:
    """Return the step of a config without futures.margin_in_weights."""
    return with_policy(step, replace(futures_policy(step), margin_in_weights=False))


def total(step: StepInput) -> Fraction:
    return investable_total(current_drifts(step)) / E6


def exposed_values(step: StepInput) -> list[Fraction]:
    """Return the spot values that the exposures of the step's futures show."""
    own = exposures(margin_account(step.snapshot), futures_policy(step), current_drifts(step))
    return [price_exposure.spot / E6 for price_exposure in own]


def nav(step: StepInput, nav_per_share: NavPerShare | None = None) -> NavPerShare:
    """Return the value per share after a step, that started from this record."""
    step = with_history(step, nav_per_share=nav_per_share)
    return updated_nav_record(step, reference_prices(step).price_by_token, current_drifts(step))


def test_margin__counts_in_the_total_and_as_its_collateral() -> None:
    weth, usdc = current_drifts(step_with_margin(book(2_500)))
    assert (usdc.raw_at(MARGIN_PLACE), usdc.locked_raw, weth.raw_at(MARGIN_PLACE)) == (2_500 * E6, 2_500 * E6, 0)
    assert investable_total((weth, usdc)) == 12_500 * E6
    assert (weth.weight_bps, usdc.weight_bps) == (4_000, 6_000)
    assert usdc.investable_raw == 5_000 * E6, "none of the margin can be spent by a swap"


GAINED = margin.with_moved_marks(LONG, {"ETH": Fraction(1, 10)})
OWING = replace(GAINED, positions=(replace(GAINED.positions[0], funding_pending_raw=50 * E18),))


@pytest.mark.parametrize(
    ("margin_account", "value"), [(LONG, 12_500), (GAINED, 12_700), (OWING, 12_650)], ids=["even", "profit", "profit less funding"]
)
def test_margin__profit_and_funding_of_positions_change_the_total(margin_account: MarginAccount, value: int) -> None:
    assert total(step_with_margin(margin_account)) == value


def test_spot_multiple__leaves_the_margin_out() -> None:
    step = step_with_margin(book(2_500))
    assert spot_value_in_quote(step, current_drifts(step)) == 10_000 * E18
    assert exposed_values(step) == [5_000, 7_500], "shown as the weights count"


def test_deposit__moves_no_weight() -> None:
    before = current_drifts(step_with_margin(book(0)))
    after = current_drifts(step_with_margin(book(3_000), {"WETH": 5_000, "USDC": 2_000}))
    assert [drift.share for drift in before] == [drift.share for drift in after]
    assert band_edge_prices(before) == band_edge_prices(after)


# --- Margin beside the weights: futures.margin_in_weights is off


def test_margin_beside_the_weights__changes_no_weight_or_trade() -> None:
    steps = [step_with_margin(book(0), SKEWED), apart(step_with_margin(book(6_000), SKEWED))]
    alone, beside = (proposed_plan(with_limits(step, **ROOMY)) for step in steps)
    assert len({tuple(drift.share for drift in current_drifts(step)) for step in steps}) == 1
    assert [leg.amount_in_raw for leg in alone.legs] == [leg.amount_in_raw for leg in beside.legs] != []
    assert alone.weights_after_bps == beside.weights_after_bps
    assert proposed_plan(step_with_margin(book(6_000), SKEWED)).legs == (), "margin as the stable asset hides the drift"


def test_margin_beside_the_weights__counts_in_total_and_exposure() -> None:
    step = apart(step_with_margin(LONG))
    drifts = current_drifts(step)
    assert (investable_total(drifts), portfolio_total(step, drifts)) == (10_000 * E6, 12_500 * E6)
    assert spot_value_in_quote(step, drifts) == 10_000 * E18
    assert exposed_values(step)[:2] == [5_000, 7_500]


@pytest.mark.parametrize("in_weights", [True, False])
@pytest.mark.parametrize(("cap", "passed"), [(12_500, True), (12_499, False)], ids=["at the cap", "a dollar above"])
def test_managed_value_cap__counts_margin(in_weights: bool, cap: int, passed: bool) -> None:
    step = step_with_margin(book(2_500), SKEWED)
    step = step if in_weights else apart(step)
    capped = with_limits(step, max_live_value=Fraction(cap * E6))
    assert verdict("max_live_value", capped, proposed_plan(step)).passed is passed


def test_policy_without_the_key__is_read_as_counting_margin() -> None:
    off = replace(OURS, margin_in_weights=False)
    written = codec.to_jsonable(off)
    assert codec.from_jsonable(type(OURS), written) == off
    del written["margin_in_weights"]
    assert codec.from_jsonable(type(OURS), written) == OURS


# --- What is never spent or guessed


def test_rebalance__spends_no_margin() -> None:
    plan = proposed_plan(with_limits(step_with_margin(book(6_000), {"WETH": 1_000, "USDC": 3_000}), **ROOMY))
    assert plan.legs
    assert sum(leg.amount_in_raw for leg in plan.legs if leg.token_in == USDC) <= 3_000 * E6


def test_unknown_margin__holds_a_rebalance_and_names_the_reason() -> None:
    assert isinstance(decide(step_with_margin(book(0), SKEWED)).decision, Rebalance)
    decision = decide(step_with_margin(None, SKEWED, futures_unknown="free margin could not be read")).decision
    assert isinstance(decision, Halt)
    assert decision.codes == (HaltCode.FUTURES,)
    assert "free margin could not be read" in decision.reason


def test_spot_proposal_in_place_of_orders__keeps_the_total() -> None:
    failed = (ExitFailures("ETH", failures.MAX_REVERTS_IN_ROW, 0, NOW_S - 10),)
    result = propose_rebalance(with_history(step_with_margin(OVER), failed_exits=failed)).decision_result
    assert investable_total(result.drifts) == 20_000 * E6
    assert not isinstance(result.decision, Hold)


def test_reason_of_a_layer_on_hold__is_read_back() -> None:
    step = step_with_margin(OVER)
    step = hold_futures(replace(step, progress=replace(step.progress, spot_hold_reason="why not")), "why")
    assert codec.from_jsonable(StepInput, codec.to_jsonable(step)) == step


@pytest.mark.parametrize("is_apart", [False, True], ids=["in the weights", "beside the weights"])
def test_value_per_share__falls_with_futures(is_apart: bool) -> None:
    long, fallen = (apart(step) if is_apart else step for step in map(step_with_margin, (LONG, FALLEN)))
    assert (nav(long).nav, nav(fallen, nav(long)).nav) == (1, Fraction(115, 125))


def test_value_per_share__is_unchanged_by_a_deposit() -> None:
    deposited = replace(LONG, collateral_raw=LONG.collateral_raw + 1_000 * E18)
    after = nav(step_with_margin(deposited, {"WETH": 5_000, "USDC": 4_000}), nav(step_with_margin(LONG)))
    assert after.nav == 1
    assert nav(step_with_margin(margin.with_moved_marks(deposited, {"ETH": Fraction(1, 8)})), after).nav == Fraction(1_275, 1_250)


HEDGED = book(2_500, -2 * E18)
"""A short of about as much as the wallet holds."""
STOP = OrderTerms(PORTFOLIO_SUBJECT, OrderKind.STOP_LOSS, None, 2_000)


def with_stop(account: MarginAccount | None, ether_price: int, unknown_reason: str = "") -> StepInput:
    """Return the step of a portfolio with a stop loss of 20 %, at a price of ether."""
    step = step_with_margin(account, futures_unknown=unknown_reason)
    step = with_feed(step, "WETH", answer=ether_price * 10**8)
    return replace(step, portfolio=replace(step.portfolio, orders=OrdersConfig((STOP,))))


@pytest.mark.parametrize(
    ("account", "ether_price", "stage"),
    [
        pytest.param(None, 1_000, OrderStage.ARMED, id="what the short gained is unknown"),
        pytest.param(None, 2_000, OrderStage.ARMED, id="unknown at the same price"),
        pytest.param(HEDGED, 1_000, OrderStage.FIRED, id="the short gained nothing"),
    ],
)
def test_portfolio_stop__waits_while_the_account_is_unknown(account: MarginAccount | None, ether_price: int, stage: OrderStage) -> None:
    first = advance_orders(with_stop(HEDGED, 2_000)).history.orders
    step = with_stop(account, ether_price, "" if account else "not read")
    after = advance_orders(replace(step, history=replace(step.history, orders=first))).history.orders
    assert [order.stage for order in (*first.states, *after.states)] == [OrderStage.ARMED, stage]
    assert (after == first) is (account is None)


def test_value_per_share__is_read_back() -> None:
    assert nav(step_input(values=EVEN)).margin is None
    assert codec.from_jsonable(NavPerShare, codec.to_jsonable(nav(step_with_margin(LONG)))) == nav(step_with_margin(LONG))


def test_deposit__waits_while_the_account_is_unknown() -> None:
    with pytest.raises(Refused, match="the margin account is unknown: not read"):
        goal_to_invest(step_with_margin(None, futures_unknown="not read"), {USDC: 100 * E6})
    assert goal_to_invest(step_with_margin(book(0), {"WETH": 4_000, "USDC": 6_000}), {USDC: 500 * E6}).weights


def test_strategies__do_not_own_the_margin_and_the_goal_counts_it() -> None:
    strategies = split(strategy("core", 10_000, EVEN, threshold(500)))
    step = step_with_margin(book(5_000), {"WETH": 6_000, "USDC": 4_000}).with_config(strategies)
    step = brought_up(step, opening({"core": {"WETH": 3, "USDC": 4_000}}))
    goal = net_strategies(step, reference_prices(step).price_by_token).goal
    assert [weight.low for weight in goal.weights] == [Fraction(1, 3), Fraction(2, 3)], "5,000 of 15,000, and 5,000 with the margin"


def test_margin_in_a_quarantined_token__counts_nowhere() -> None:
    step = quarantine_tokens(step_with_margin(book(2_500)), [ScreenedToken(USDC, TokenFinding.CODE_CHANGED)])
    assert investable_total(compute_drifts(step, reference_prices(step).price_by_token)) == 5_000 * E6
