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
    CashAccount,
    CashMemory,
    ExpectedBalances,
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
from agent.policy.cash_flows import cash_limit, transfers
from agent.policy.decide import decide
from agent.policy.drift import investable_total
from agent.policy.native_coin import held_balances
from agent.reference import reference_prices
from agent.units import NATIVE, UINT256_MAX
from tests.support.builders import NOW_S, OWNER, address, history, raw, step_input, with_history, with_limits
from tests.support.decisions import exits
from tests.support.lp_worlds import lp_target, ranged, world
from tests.support.text import mentions, raises_code
from tests.support.tokens import USDC, WBTC, WETH

TARGETS = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}
HOME = address("home")
Coins = int | Fraction


def portfolio_step(**values: Coins) -> StepInput:
    return step_input(TARGETS, {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000} | values)


def step_with_claim(step: StepInput, coins: Coins) -> StepInput:
    """So much USDC is set aside, written down nowhere."""
    return transfers.reserve_claims(step, (PendingPayment(0, Payment(USDC.address, raw(coins, USDC))),))


def value_changes(step: StepInput, goal: object) -> dict[str, Fraction]:
    """Change of each asset's value that the goal asks for, in whole coins."""
    drifts = decide(step).drifts
    whole = investable_total(drifts)
    return {drift.symbol: (weight.low * whole - drift.value) / 10**6 for drift, weight in zip(drifts, goal.weights, strict=True)}  # type: ignore[attr-defined]


def test_shortfall_goal_sells_the_most_overweight_asset_first() -> None:
    step = step_with_claim(portfolio_step(WETH=5_600, WBTC=2_400), 2_500)
    assert transfers.shortfall_raw(step.portfolio, step.limits, held_balances(step), USDC.address) == raw(500, USDC)
    change = value_changes(step, transfers.goal_to_raise_shortfall(step, USDC.address))
    assert change["WBTC"] == 0
    assert change["WETH"] == -change["USDC"]
    assert 500 < change["USDC"] < 505


def test_shortfall_goal_sells_only_what_is_above_its_target() -> None:
    step = step_with_claim(portfolio_step(WETH=6_000, WBTC=3_200, USDC=800), 3_000)
    change = value_changes(step, transfers.goal_to_raise_shortfall(step, USDC.address))
    total_left = Fraction(10_000 - 3_000)
    assert 6_000 + change["WETH"] >= total_left / 2 - 1
    assert 3_200 + change["WBTC"] >= total_left * 3 / 10 - 1


@given(weth=st.integers(100, 9_000), wbtc=st.integers(100, 9_000), usdc=st.integers(0, 5_000), part=st.integers(1, 99))
def test_shortfall_goal_covers_the_shortfall_and_buys_nothing(weth: int, wbtc: int, usdc: int, part: int) -> None:
    coins = usdc + Fraction((weth + wbtc) * part, 100)
    step = step_with_claim(portfolio_step(WETH=weth, WBTC=wbtc, USDC=usdc), coins)
    goal = transfers.goal_to_raise_shortfall(step, USDC.address)
    change = value_changes(step, goal)
    assert sum(weight.low for weight in goal.weights) == 1
    assert all(weight.low >= 0 for weight in goal.weights)
    assert change["USDC"] >= coins - usdc - Fraction(1, 10**5)
    assert change["WETH"] <= 0
    assert change["WBTC"] <= 0


def test_shortfall_beyond_all_holdings_is_refused() -> None:
    step = step_with_claim(portfolio_step(), 10_001)
    with raises_code(Refused, "holdings", "1 USDC", "8000 USDC") as refused:
        transfers.goal_to_raise_shortfall(step, USDC.address)
    assert [(v.guard, v.measured_text, v.limit) for v in refused.value.verdicts] == [("holdings", "8001 USDC", "8000 USDC")]


def test_withdrawal_beyond_what_the_market_gives_is_refused() -> None:
    """Two pools of 3,000 dollars each side give far less than 4,000 within the impact limit."""
    step = step_input(TARGETS, {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}, depth=3_000)
    step = with_limits(step, pool_min_value=None, min_trade=None, plan_cost_bps=None)
    with raises_code(Refused, "withdrawal") as refused:
        requests.raise_money_proposer(USDC.address)(step_with_claim(step, 6_000))
    assert [(verdict.guard, verdict.passed) for verdict in refused.value.verdicts] == [("withdrawal", False)]


@given(part=st.integers(1, 10_000))
def test_proportional_amounts_are_rounded_down_alike(part: int) -> None:
    step = portfolio_step(WETH=4_321, WBTC=2_718, USDC=3_141)
    value = Fraction(raw(4_321 + 2_718 + 3_141, USDC) * part, 10_000)
    balances = transfers.investable_balances(step)
    parts = transfers.proportional_amounts(step, value)
    whole = sum(
        balances[token_address] * (transfers.token_price(step.portfolio, reference_prices(step), token_address) or 0)
        for token_address in balances
    )
    assert all(parts.get(token_address, 0) == balances[token_address] * value // whole for token_address in balances)


@pytest.mark.parametrize(
    ("increase", "values", "sold", "bought"),
    [
        pytest.param({"USDC": 1_000}, {"USDC": 3_000}, {"USDC": 800}, {"WETH": 500, "WBTC": 300}, id="dollars"),
        pytest.param({"WETH": 1_000}, {"WETH": 6_000}, {"WETH": 500}, {"WBTC": 300, "USDC": 200}, id="ether"),
        pytest.param({"USDC": 1_000}, {"USDC": 2_000}, {}, {}, id="underweight dollars"),
        pytest.param(
            {"USDC": 100}, {"USDC": 2_100, "WETH": 5_500, "WBTC": 2_500}, {"USDC": 80}, {"WBTC": 80}, id="dollars, another underweight"
        ),
    ],
)
def test_goal_to_invest_sells_only_the_increase(
    increase: dict[str, int], values: dict[str, int], sold: dict[str, int], bought: dict[str, int]
) -> None:
    step = portfolio_step(**values)
    tokens = {"USDC": USDC, "WETH": WETH}
    rose = {
        tokens[symbol].address: raw(Fraction(coins, 2_000 if symbol == "WETH" else 1), tokens[symbol]) for symbol, coins in increase.items()
    }
    change = {symbol: round(value) for symbol, value in value_changes(step, transfers.goal_to_invest(step, rose)).items() if value}
    assert change == {name: -coins for name, coins in sold.items()} | bought


def test_selling_everything_holds_where_all_is_reserved() -> None:
    step = transfers.reserve_claims(portfolio_step(WETH=0, WBTC=0), (PendingPayment(0, Payment(USDC.address, raw(2_000, USDC))),))
    proposal = requests.propose_selling_everything(step)
    assert proposal.plan is None
    assert isinstance(proposal.decision_result.decision, Hold)
    assert "to sell" in proposal.decision_result.decision.reason


def test_invest_pays_its_costs_from_the_deposit() -> None:
    step = with_limits(portfolio_step(WETH=4_000, WBTC=3_000, USDC=3_000), turnover_bps=None)
    deposit_raw = raw(900, USDC)
    proposal = requests.invest_proposer({USDC.address: deposit_raw})(step)
    assert proposal.plan is not None
    change = {
        token_: after - holding.raw
        for holding in step.snapshot.holdings
        for token_, after in proposal.plan.holdings_after
        if token_ == holding.token
    }
    assert 0 < -change[USDC.address] <= deposit_raw
    assert change[WBTC.address] == 0 < change[WETH.address]


@pytest.mark.parametrize(
    ("first_purchase_s", "freed"),
    [
        pytest.param(None, 0, id="off"),
        pytest.param(600, 900 * 10**6, id="on"),
    ],
)
def test_invest_is_exempt_from_turnover_only_with_first_purchase(first_purchase_s: int | None, freed: int) -> None:
    """With `first_purchase` off an investment counts against turnover like a rebalance."""
    step = with_limits(portfolio_step(WETH=4_000, WBTC=3_000, USDC=3_000), turnover_bps=None)
    proposal = requests.invest_proposer({USDC.address: raw(900, USDC)})(with_limits(step, first_purchase_s=first_purchase_s))
    assert isinstance(proposal.decision_result.decision, Rebalance)
    assert proposal.plan is not None
    assert proposal.decision_result.decision.exempt_turnover == freed
    assert proposal.decision_result.decision.by_owner


def test_selling_everything_withdraws_liquidity() -> None:
    step = world([ranged(1_500, 1_800, 2_200)], [lp_target(1_500)])
    assert isinstance(decide(step).decision, Hold)
    proposal = requests.propose_selling_everything(step)
    assert isinstance(proposal.decision_result.decision, AdjustLiquidity)
    (action,) = proposal.plan.layer_actions
    assert isinstance(action, Withdraw)
    assert action.liquidity == action.position_liquidity


def test_withdrawal_leaves_an_unexplained_increase() -> None:
    """No more than there is beside what is set aside already; explained, harmless and lost money keeps nothing back."""
    rise = ExternalTransfer(1, USDC.address, raw(500, USDC), Fraction(500 * 10**6), 1, 2, NOW_S, True, None)
    smaller = replace(rise, id=2, delta_raw=raw(300, USDC))

    def reserves(*flows: ExternalTransfer, claims: tuple[PendingPayment, ...] = ()) -> dict[str, int]:
        step = transfers.reserve_pending_deposits(
            transfers.reserve_withdrawals(replace(portfolio_step(), history=history(unexplained_transfers=flows, pending_payments=claims)))
        )
        return {asset.token.symbol: asset.reserve_raw for asset in step.portfolio.assets}

    nothing = {"WETH": 0, "WBTC": 0, "USDC": 0}
    assert reserves() == nothing
    assert reserves(rise) == nothing | {"USDC": raw(500, USDC)}
    assert reserves(rise, smaller) == nothing | {"USDC": raw(800, USDC)}
    for other in (
        replace(rise, exceeds_jump_limit=False),
        replace(rise, kind=ExternalTransferKind.DEPOSIT),
        replace(rise, delta_raw=-rise.delta_raw),
    ):
        assert reserves(other) == nothing
        assert reserves(other, smaller) == nothing | {"USDC": raw(300, USDC)}
    assert reserves(replace(rise, delta_raw=raw(2_500, USDC))) == nothing | {"USDC": raw(2_000, USDC)}, "all that there is"
    claimed = (PendingPayment(1, Payment(USDC.address, raw(1_800, USDC))), PendingPayment(2, Payment(WETH.address, 5)))
    assert reserves(rise, claims=claimed) == {"WETH": 5, "WBTC": 0, "USDC": raw(2_300, USDC)}
    step = replace(portfolio_step(), history=history(unexplained_transfers=(replace(rise, delta_raw=raw(2_500, USDC)),)))
    assets = tuple(replace(asset, reserve_raw=raw(300, USDC) if asset.token == USDC else 7) for asset in step.portfolio.assets)
    assets_left = transfers.reserve_pending_deposits(replace(step, portfolio=replace(step.portfolio, assets=assets))).portfolio.assets
    assert [asset.reserve_raw for asset in assets_left] == [7, 7, raw(2_000, USDC)], "the reserve stays beneath"
    native = replace(rise, token=NATIVE, delta_raw=7)
    assert reserves(native) == nothing | {"WETH": 7}, "native coin is taken for its wrapped token"


@pytest.mark.parametrize(
    ("unused", "rise", "reserved"),
    [
        pytest.param(1_000, 1_000, 1_000, id="all of it is left alone"),
        pytest.param(400, 1_000, 1_000, id="a part of it is in use"),
        pytest.param(1_000, 300, 1_000, id="beside what was left alone before"),
        pytest.param(0, 300, 300, id="all of it is in use"),
    ],
)
def test_increase_left_alone_by_use_cash__is_reserved_once(unused: int, rise: int, reserved: int) -> None:
    flow = ExternalTransfer(1, USDC.address, raw(rise, USDC), Fraction(rise * 10**6), 1, 2, NOW_S, True, None)
    limit = 2_000 - unused
    step = replace(portfolio_step(), history=history(unexplained_transfers=(flow,)))
    step = replace(step, portfolio=replace(step.portfolio, use_cash_raw=raw(limit, USDC)))
    account = CashAccount(USDC.address, raw(limit, USDC), raw(limit, USDC), raw(unused, USDC))
    nothing_expected = ExpectedBalances((), (), (), None, 0)
    step = cash_limit.reserve_unused_cash(step, CashMemory(account, (), (), 0, 0, (), 0), nothing_expected)

    assets = transfers.reserve_pending_deposits(step).portfolio.assets

    assert {asset.token.symbol: asset.reserve_raw for asset in assets}["USDC"] == raw(reserved, USDC)


def test_reserved_payment_halts_while_it_is_short() -> None:
    claims = (PendingPayment(4, Payment(USDC.address, raw(1_500, USDC))),)
    step = transfers.reserve_withdrawals(replace(portfolio_step(), history=history(pending_payments=claims)))
    assert {drift.symbol: drift.investable_raw for drift in decide(step).drifts}["USDC"] == raw(500, USDC)
    assert transfers.open_withdrawal_reason(step) == ""
    assert not isinstance(decide(step).decision, Halt)
    short = transfers.reserve_withdrawals(replace(portfolio_step(USDC=1_000), history=history(pending_payments=claims)))
    decision = decide(short).decision
    assert isinstance(decision, Halt)
    assert mentions(decision.reason, "withdrawal 4", "500 USDC")
    assert "--resume 4" in decision.reason


@pytest.mark.parametrize(
    ("above_raw", "failing_guards"), [pytest.param(0, [], id="all that is free"), pytest.param(1, ["balance"], id="a base unit more")]
)
def test_withdrawal_sends_no_more_than_free_cash(above_raw: int, failing_guards: list[str]) -> None:
    """Of 2,000 USDC, 300 are the reserve and 400 set aside for another withdrawal."""
    step = with_limits(portfolio_step(), payout_per_day=None)
    assets = tuple(
        replace(asset, reserve_raw=raw(300, USDC)) if asset.token.address == USDC.address else asset for asset in step.portfolio.assets
    )
    another = PendingPayment(9, Payment(USDC.address, raw(400, USDC)))
    step = replace(step, portfolio=replace(step.portfolio, assets=assets), history=history(pending_payments=(another,)))
    step = transfers.reserve_withdrawals(step)
    payment_raw = raw(1_300, USDC) + above_raw

    verdicts = table.judge_payout(step, Payout(USDC.address, HOME, payment_raw, 0, 4), (HOME,))
    claimed_step = transfers.reserve_claims(step, (PendingPayment(0, Payment(USDC.address, payment_raw)),))

    assert [verdict.guard for verdict in verdicts if not verdict.passed] == failing_guards
    assert transfers.shortfall_raw(claimed_step.portfolio, step.limits, held_balances(step), USDC.address) == above_raw
    assert ("is short of 0.000001 USDC" in transfers.open_withdrawal_reason(claimed_step)) is bool(above_raw)


def test_payment_whose_nonce_is_used__is_not_reserved_and_halts() -> None:
    """It may be in the block whose balances are read, so that its amount would be subtracted twice."""
    payment = Payment(USDC.address, raw(1_500, USDC))
    claims = (PendingPayment(4, payment, open_nonce=7), PendingPayment(5, Payment(WETH.address, 5)))

    def at_nonce(nonce: int) -> StepInput:
        step = portfolio_step()
        snapshot = replace(step.snapshot, nonce_latest=nonce)
        return transfers.reserve_withdrawals(replace(step, snapshot=snapshot, history=history(pending_payments=claims)))

    waiting = at_nonce(7)
    assert {drift.symbol: drift.investable_raw for drift in decide(waiting).drifts}["USDC"] == raw(500, USDC)
    assert transfers.open_withdrawal_reason(waiting) == ""
    used = at_nonce(8)
    assert {drift.symbol: drift.investable_raw for drift in decide(used).drifts}["USDC"] == raw(2_000, USDC)
    decision = decide(used).decision
    assert isinstance(decision, Halt)
    assert mentions(decision.reason, "withdrawal 4", "1500 USDC", "may be paid", "not booked yet", "trimtab withdraw --resume 4")
    assert "withdrawal 4" not in [reason for _, _, reason in cash_limit.excluded_amounts(used)]
    assert transfers.reserve_pending_deposits(used).portfolio == used.portfolio
    payout = Payout(USDC.address, HOME, raw(2_000, USDC), 0, 4)
    (balance,) = [v for v in table.judge_payout(used, payout, (HOME,)) if v.guard == "balance"]
    assert balance.passed


def test_planned_withdrawal_says_what_it_is_short_of() -> None:
    planned = (PendingPayment(0, Payment(USDC.address, raw(1_500, USDC))),)
    short = transfers.reserve_claims(portfolio_step(USDC=1_000), planned)
    assert transfers.open_withdrawal_reason(short) == "this withdrawal is short of 500 USDC"


def test_withdrawal_that_is_short_holds_no_exit_back() -> None:
    step_with_stop = exits.step_with_stops("WBTC", pools=(*exits.MARKET, exits.SOUND))
    claims = (PendingPayment(4, Payment(USDC.address, raw(2_500, USDC))),)
    step = transfers.reserve_withdrawals(with_history(step_with_stop, pending_payments=claims))
    assert "withdrawal 4 is short of 500 USDC" in transfers.open_withdrawal_reason(step)
    outcome = exits.outcome_of(step)
    assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
    assert outcome.decision_result.exit_token == WBTC.address, outcome.reason
    assert outcome.plan.is_exit
    (after,) = [raw_after for token_, raw_after in outcome.plan.holdings_after if token_ == USDC.address]
    assert after > raw(4_900, USDC), "what is raised by it fills what is set aside"


def test_stopped_portfolio_halts_by_name() -> None:
    decision = decide(replace(portfolio_step(), history=history(stop_reason="the bot was stopped by its owner"))).decision
    assert isinstance(decision, Halt)
    assert "stopped" in decision.reason


def test_max_payout_is_what_the_daily_limit_leaves() -> None:
    limited = with_limits(portfolio_step(), payout_per_day=Fraction(1_000 * 10**6))
    some = replace(limited, history=history(outflow_24h=Fraction(400 * 10**6)))
    assert transfers.max_payout_raw(some, USDC.address) == 600 * 10**6
    assert transfers.max_payout_raw(some, NATIVE) == 3 * 10**17 == transfers.max_payout_raw(some, WETH.address)
    assert transfers.max_payout_raw(replace(limited, history=history(unknown_reason="who knows")), USDC.address) == 0
    assert transfers.max_payout_raw(with_limits(portfolio_step(), payout_per_day=None), USDC.address) == UINT256_MAX
    assert transfers.max_payout_raw(portfolio_step(), USDC.address) == 0, "a limit that nobody wrote permits nothing"


def test_payout_guards_refuse_by_name() -> None:
    step = with_limits(portfolio_step(), payout_per_day=Fraction(5_000 * 10**6))
    fine = Payout(USDC.address, HOME, 2_000 * 10**6, 0, 1)

    def failing_guards(payout: Payout, at: StepInput = step, confirmed: tuple[str, ...] = (HOME,)) -> list[str]:
        return [v.guard for v in table.judge_payout(at, payout, confirmed) if not v.passed]

    assert failing_guards(fine) == []
    assert failing_guards(fine, confirmed=()) == ["payout_address"]
    assert failing_guards(replace(fine, to=OWNER)) == ["payout_address"]
    assert failing_guards(replace(fine, raw=2_000 * 10**6 + 1)) == ["balance"]
    assert failing_guards(replace(fine, raw=5_000 * 10**6 + 1)) == ["payout_per_day", "balance"]
    assert failing_guards(fine, replace(step, history=history(unknown_reason="who knows"))) == ["payout_per_day"]
    other = transfers.reserve_withdrawals(replace(step, history=history(pending_payments=(PendingPayment(9, Payment(USDC.address, 1)),))))
    assert failing_guards(fine, other) == ["balance"]
    assert failing_guards(replace(fine, request_id=9), other) == [], "what another set aside is not paid"
    assert [v.guard for v in table.judge_payout_permission(step, (fine,), (HOME,), paused=True) if not v.passed] == ["kill_switch"]
    with raises_code(Refused, "payout_address"):
        table.require_payout_allowed(table.judge_payout(step, replace(fine, to=OWNER), (HOME,)))
