"""What is sold for money that is wanted, and where money that came goes; what is set aside, how much a day may pay: pure."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Refused
from agent.execution.step_context import OutcomeKind
from agent.guards import table
from agent.model import (
    AdjustLiquidity,
    ExternalTransfer,
    ExternalTransferKind,
    Halt,
    Hold,
    Payment,
    Payout,
    PendingPayment,
    Rebalance,
    StepInput,
    Withdraw,
)
from agent.planning import requests
from agent.policy.cash_flows import transfers
from agent.policy.decide import decide
from agent.policy.drift import investable_total
from agent.policy.native_coin import held_balances
from agent.reference import reference_prices
from agent.units import NATIVE, UINT256_MAX
from tests.support.builders import NOW_S, OWNER, address, history, raw, step_input, token, with_history, with_limits
from tests.support.decisions import exits as stuck
from tests.support.lp_worlds import ranged, wanted, world
from tests.support.text import mentions, raises_code

WETH, WBTC, USDC = token("WETH"), token("WBTC"), token("USDC")
TARGETS = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}
HOME = address("home")
Coins = int | Fraction


def standing(**values: Coins) -> StepInput:
    return step_input(TARGETS, {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000} | values)


def wanting(step: StepInput, coins: Coins) -> StepInput:
    """So much USDC is set aside, written down nowhere."""
    return transfers.reserve_claims(step, (PendingPayment(0, Payment(USDC.address, raw(coins, USDC))),))


def moved(step: StepInput, goal: object) -> dict[str, Fraction]:
    """Change of each asset's value that the goal asks for, in whole coins."""
    drifts = decide(step).drifts
    whole = investable_total(drifts)
    return {one.symbol: (wanted.low * whole - one.value) / 10**6 for one, wanted in zip(drifts, goal.weights, strict=True)}  # type: ignore[attr-defined]


def test_the_asset_furthest_above_its_target_is_sold_first_and_little_more_than_lacks() -> None:
    step = wanting(standing(WETH=5_600, WBTC=2_400), 2_500)
    assert transfers.shortfall_raw(step.portfolio, step.limits, held_balances(step), USDC.address) == raw(500, USDC)
    change = moved(step, transfers.goal_to_raise_shortfall(step, USDC.address))
    assert change["WBTC"] == 0
    assert change["WETH"] == -change["USDC"]
    assert 500 < change["USDC"] < 505


def test_nothing_falls_below_its_target_while_another_is_above() -> None:
    step = wanting(standing(WETH=6_000, WBTC=3_200, USDC=800), 3_000)
    change = moved(step, transfers.goal_to_raise_shortfall(step, USDC.address))
    left = Fraction(10_000 - 3_000)
    assert 6_000 + change["WETH"] >= left / 2 - 1
    assert 3_200 + change["WBTC"] >= left * 3 / 10 - 1


@given(weth=st.integers(100, 9_000), wbtc=st.integers(100, 9_000), usdc=st.integers(0, 5_000), part=st.integers(1, 99))
def test_what_is_sold_always_covers_what_lacks_and_nothing_is_bought_besides(weth: int, wbtc: int, usdc: int, part: int) -> None:
    coins = usdc + Fraction((weth + wbtc) * part, 100)
    step = wanting(standing(WETH=weth, WBTC=wbtc, USDC=usdc), coins)
    goal = transfers.goal_to_raise_shortfall(step, USDC.address)
    change = moved(step, goal)
    assert sum(wanted.low for wanted in goal.weights) == 1
    assert all(wanted.low >= 0 for wanted in goal.weights)
    assert change["USDC"] >= coins - usdc - Fraction(1, 10**5)
    assert change["WETH"] <= 0
    assert change["WBTC"] <= 0


def test_more_than_everything_is_refused_with_both_numbers() -> None:
    step = wanting(standing(), 10_001)
    with raises_code(Refused, "holdings", "1 USDC", "8000 USDC") as refused:
        transfers.goal_to_raise_shortfall(step, USDC.address)
    assert [(v.guard, v.measured_text, v.limit) for v in refused.value.verdicts] == [("holdings", "8001 USDC", "8000 USDC")]


def test_a_market_that_gives_less_than_a_withdrawal_asks_is_refused_with_what_is_short() -> None:
    """Two pools of 3,000 dollars each side give far less than 4,000 within the impact limit."""
    step = step_input(TARGETS, {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}, depth=3_000)
    step = with_limits(step, pool_min_value=None, min_trade=None, plan_cost_bps=None)
    with raises_code(Refused, "withdrawal") as refused:
        requests.raise_money_proposer(USDC.address)(wanting(step, 6_000))
    assert [(one.guard, one.passed) for one in refused.value.verdicts] == [("withdrawal", False)]


@given(part=st.integers(1, 10_000))
def test_parts_are_the_same_of_every_asset_to_the_unit_below(part: int) -> None:
    step = standing(WETH=4_321, WBTC=2_718, USDC=3_141)
    value = Fraction(raw(4_321 + 2_718 + 3_141, USDC) * part, 10_000)
    free, parts = transfers.investable_balances(step), transfers.proportional_amounts(step, value)
    whole = sum(free[one] * (transfers.token_price(step.portfolio, reference_prices(step), one) or 0) for one in free)
    assert all(parts.get(one, 0) == free[one] * value // whole for one in free)


@pytest.mark.parametrize(
    ("came", "held", "sold", "bought"),
    [
        ({"USDC": 1_000}, {"USDC": 3_000}, {"USDC": 800}, {"WETH": 500, "WBTC": 300}),
        ({"WETH": 1_000}, {"WETH": 6_000}, {"WETH": 500}, {"WBTC": 300, "USDC": 200}),
        ({"USDC": 1_000}, {"USDC": 2_000}, {}, {}),
        ({"USDC": 100}, {"USDC": 2_100, "WETH": 5_500, "WBTC": 2_500}, {"USDC": 80}, {"WBTC": 80}),
    ],
)
def test_what_came_goes_where_it_lacks_and_nothing_else_is_sold(
    came: dict[str, int], held: dict[str, int], sold: dict[str, int], bought: dict[str, int]
) -> None:
    step = standing(**held)
    tokens = {"USDC": USDC, "WETH": WETH}
    rose = {
        tokens[symbol].address: raw(Fraction(coins, 2_000 if symbol == "WETH" else 1), tokens[symbol]) for symbol, coins in came.items()
    }
    change = {symbol: round(value) for symbol, value in moved(step, transfers.goal_to_invest(step, rose)).items() if value}
    assert change == {name: -coins for name, coins in sold.items()} | bought


def test_where_all_is_set_aside_there_is_nothing_to_sell_and_a_stop_goes_on() -> None:
    step = transfers.reserve_claims(standing(WETH=0, WBTC=0), (PendingPayment(0, Payment(USDC.address, raw(2_000, USDC))),))
    found = requests.propose_selling_everything(step)
    assert found.plan is None
    assert isinstance(found.decision_result.decision, Hold)
    assert "to sell" in found.decision_result.decision.reason


def test_what_swaps_cost_is_taken_from_what_came_and_from_nothing_else() -> None:
    step = with_limits(standing(WETH=4_000, WBTC=3_000, USDC=3_000), turnover_bps=None)
    came = raw(900, USDC)
    found = requests.invest_proposer({USDC.address: came})(step)
    assert found.plan is not None
    change = {
        token_: after - held.raw for held in step.snapshot.holdings for token_, after in found.plan.holdings_after if token_ == held.token
    }
    assert 0 < -change[USDC.address] <= came
    assert change[WBTC.address] == 0 < change[WETH.address]


def test_limits_of_turnover_are_freed_for_what_came_only_where_purchases_have_limits_of_their_own() -> None:
    """With `first_purchase` off an investment counts against turnover like a rebalance."""
    step = with_limits(standing(WETH=4_000, WBTC=3_000, USDC=3_000), turnover_bps=None)
    for first_purchase_s, freed in ((None, 0), (600, 900 * 10**6)):
        found = requests.invest_proposer({USDC.address: raw(900, USDC)})(with_limits(step, first_purchase_s=first_purchase_s))
        assert isinstance(found.decision_result.decision, Rebalance)
        assert found.plan is not None
        assert found.decision_result.decision.exempt_turnover == freed
        assert found.decision_result.decision.by_owner


def test_at_the_end_no_liquidity_is_wanted_whatever_its_targets_say() -> None:
    step = world([ranged(1_500, 1_800, 2_200)], [wanted(1_500)])
    assert isinstance(decide(step).decision, Hold)
    found = requests.propose_selling_everything(step)
    assert isinstance(found.decision_result.decision, AdjustLiquidity)
    assert found.plan is not None
    (action,) = found.plan.layer_actions
    assert isinstance(action, Withdraw)
    assert action.liquidity == action.position_liquidity


def test_a_withdrawal_leaves_alone_what_came_unexplained() -> None:
    """No more than there is beside what is set aside already; explained, harmless and lost money keeps nothing back."""
    rise = ExternalTransfer(1, USDC.address, raw(500, USDC), Fraction(500 * 10**6), 1, 2, NOW_S, True, None)
    smaller = replace(rise, id=2, delta_raw=raw(300, USDC))

    def kept(*flows: ExternalTransfer, claims: tuple[PendingPayment, ...] = ()) -> dict[str, int]:
        step = transfers.reserve_pending_deposits(
            transfers.reserve_withdrawals(replace(standing(), history=history(unexplained_transfers=flows, pending_payments=claims)))
        )
        return {asset.token.symbol: asset.reserve_raw for asset in step.portfolio.assets}

    nothing = {"WETH": 0, "WBTC": 0, "USDC": 0}
    assert kept() == nothing
    assert kept(rise) == nothing | {"USDC": raw(500, USDC)}
    assert kept(rise, smaller) == nothing | {"USDC": raw(800, USDC)}
    for other in (
        replace(rise, exceeds_jump_limit=False),
        replace(rise, kind=ExternalTransferKind.DEPOSIT),
        replace(rise, delta_raw=-rise.delta_raw),
    ):
        assert kept(other) == nothing
        assert kept(other, smaller) == nothing | {"USDC": raw(300, USDC)}
    assert kept(replace(rise, delta_raw=raw(2_500, USDC))) == nothing | {"USDC": raw(2_000, USDC)}, "all that there is"
    claimed = (PendingPayment(1, Payment(USDC.address, raw(1_800, USDC))), PendingPayment(2, Payment(WETH.address, 5)))
    assert kept(rise, claims=claimed) == {"WETH": 5, "WBTC": 0, "USDC": raw(2_300, USDC)}
    step = replace(standing(), history=history(unexplained_transfers=(replace(rise, delta_raw=raw(2_500, USDC)),)))
    assets = tuple(replace(asset, reserve_raw=raw(300, USDC) if asset.token == USDC else 7) for asset in step.portfolio.assets)
    left = transfers.reserve_pending_deposits(replace(step, portfolio=replace(step.portfolio, assets=assets))).portfolio.assets
    assert [asset.reserve_raw for asset in left] == [7, 7, raw(2_000, USDC)], "the reserve stays beneath"
    native = replace(rise, token=NATIVE, delta_raw=7)
    assert kept(native) == nothing | {"WETH": 7}, "native coin is taken for its wrapped token"


def test_what_is_set_aside_is_no_part_of_the_portfolio_and_stops_everything_while_it_lacks() -> None:
    claims = (PendingPayment(4, Payment(USDC.address, raw(1_500, USDC))),)
    step = transfers.reserve_withdrawals(replace(standing(), history=history(pending_payments=claims)))
    assert {one.symbol: one.investable_raw for one in decide(step).drifts}["USDC"] == raw(500, USDC)
    assert transfers.open_withdrawal_reason(step) == ""
    assert not isinstance(decide(step).decision, Halt)
    short = transfers.reserve_withdrawals(replace(standing(USDC=1_000), history=history(pending_payments=claims)))
    decided = decide(short).decision
    assert isinstance(decided, Halt)
    assert mentions(decided.reason, "withdrawal 4", "500 USDC")
    assert "--resume 4" in decided.reason


def test_a_planned_withdrawal_says_what_it_lacks_and_names_no_number() -> None:
    planned = (PendingPayment(0, Payment(USDC.address, raw(1_500, USDC))),)
    short = transfers.reserve_claims(standing(USDC=1_000), planned)
    assert transfers.open_withdrawal_reason(short) == "this withdrawal is short of 500 USDC"


def test_a_withdrawal_that_lacks_something_holds_no_exit_back() -> None:
    fired = stuck.step_with_stops("WBTC", pools=(*stuck.MARKET, stuck.SOUND))
    claims = (PendingPayment(4, Payment(USDC.address, raw(2_500, USDC))),)
    step = transfers.reserve_withdrawals(with_history(fired, pending_payments=claims))
    assert "withdrawal 4 is short of 500 USDC" in transfers.open_withdrawal_reason(step)
    found = stuck.outcome_of(step)
    assert found.kind is OutcomeKind.PLANNED, found.reason
    assert found.decision_result.exit_token == WBTC.address, found.reason
    assert found.plan is not None
    assert found.plan.is_exit
    (after,) = [held for token_, held in found.plan.holdings_after if token_ == USDC.address]
    assert after > raw(4_900, USDC), "what is raised by it fills what is set aside"


def test_a_stopped_bot_halts_by_name() -> None:
    decided = decide(replace(standing(), history=history(stop_reason="the bot was stopped by its owner"))).decision
    assert isinstance(decided, Halt)
    assert "stopped" in decided.reason


def test_a_day_pays_what_its_limit_leaves_and_nothing_where_it_cannot_be_told() -> None:
    limited = with_limits(standing(), payout_per_day=Fraction(1_000 * 10**6))
    some = replace(limited, history=history(outflow_24h=Fraction(400 * 10**6)))
    assert transfers.max_payout_raw(some, USDC.address) == 600 * 10**6
    assert transfers.max_payout_raw(some, NATIVE) == 3 * 10**17 == transfers.max_payout_raw(some, WETH.address)
    assert transfers.max_payout_raw(replace(limited, history=history(unknown_reason="who knows")), USDC.address) == 0
    assert transfers.max_payout_raw(with_limits(standing(), payout_per_day=None), USDC.address) == UINT256_MAX
    assert transfers.max_payout_raw(standing(), USDC.address) == 0, "a limit that nobody wrote permits nothing"


def test_each_guard_on_a_payment_says_no_by_its_name() -> None:
    step = with_limits(standing(), payout_per_day=Fraction(5_000 * 10**6))
    fine = Payout(USDC.address, HOME, 2_000 * 10**6, 0, 1)

    def failing(payout: Payout, at: StepInput = step, confirmed: tuple[str, ...] = (HOME,)) -> list[str]:
        return [v.guard for v in table.judge_payout(at, payout, confirmed) if not v.passed]

    assert failing(fine) == []
    assert failing(fine, confirmed=()) == ["payout_address"]
    assert failing(replace(fine, to=OWNER)) == ["payout_address"]
    assert failing(replace(fine, raw=2_000 * 10**6 + 1)) == ["balance"]
    assert failing(replace(fine, raw=5_000 * 10**6 + 1)) == ["payout_per_day", "balance"]
    assert failing(fine, replace(step, history=history(unknown_reason="who knows"))) == ["payout_per_day"]
    other = transfers.reserve_withdrawals(replace(step, history=history(pending_payments=(PendingPayment(9, Payment(USDC.address, 1)),))))
    assert failing(fine, other) == ["balance"]
    assert failing(replace(fine, request_id=9), other) == [], "what another set aside is not paid"
    assert [v.guard for v in table.judge_payout_permission(step, (fine,), (HOME,), paused=True) if not v.passed] == ["kill_switch"]
    with raises_code(Refused, "payout_address"):
        table.require_payout_allowed(table.judge_payout(step, replace(fine, to=OWNER), (HOME,)))
