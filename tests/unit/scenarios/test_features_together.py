"""Withdrawals, orders, rounds, strategies and quarantine at the same time: none of them undoes what another one promised."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.guards import table
from agent.layers.gradual.planning import schedule_plan as in_time
from agent.layers.gradual.state import ExecutionProgress, GradualResult, GradualState, SliceDraw
from agent.layers.inputs import apply_effective_targets
from agent.model import (
    ConditionalOrder,
    Halt,
    Hold,
    LimitOrder,
    OrderKind,
    OrdersConfig,
    OrderStage,
    OrderTerms,
    Payment,
    Payout,
    PendingPayment,
    Rebalance,
    ScreenedToken,
    StepInput,
    TokenFinding,
)
from agent.planning import planner, proposals, requests
from agent.policy.cash_flows import transfers
from agent.policy.decide import decide
from agent.policy.native_coin import held_balances
from agent.policy.orders.exits import apply_orders
from agent.policy.quarantine import quarantine_tokens
from tests.support.builders import OWNER, brought_up, feed_address, raw, split, step_input, strategy, token, with_history, with_snapshot
from tests.support.gradual_execution import later, paced, roomy
from tests.support.standing_orders import price_of, terms, three
from tests.support.text import mentions
from tests.support.tokens import USDC, WBTC, WETH

TARGETS = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}
STOP = OrderKind.STOP_LOSS
ENTRY = OrderKind.ENTRY


def with_order(step: StepInput, symbol: str, kind: OrderKind, stage: OrderStage, price: int) -> StepInput:
    """The step with one order of the config, at this stage."""
    own = terms(symbol, kind, price)
    order = ConditionalOrder(own.token, kind, stage, own, 1, price_of(symbol, price), None, price_of(symbol, price))
    return replace(
        with_history(step, states=(*step.history.orders.states, order)), portfolio=replace(step.portfolio, orders=OrdersConfig((own,)))
    )


def claiming(step: StepInput, symbol: str, coins: Fraction | int) -> StepInput:
    coin = token(symbol)
    return with_history(step, pending_payments=(PendingPayment(3, Payment(coin.address, raw(coins, coin))),))


# withdrawals
def test_reserve_of_a_stopped_asset__lacks_nothing_and_is_payable() -> None:
    step = step_input(TARGETS, {"WETH": 1_000, "WBTC": 3_000, "USDC": 6_000})
    step = apply_orders(
        transfers.reserve_withdrawals(claiming(with_order(step, "WETH", STOP, OrderStage.DONE, 2_500), "WETH", Fraction(1, 2)))
    )
    assert transfers.shortfall_raw(step.portfolio, step.limits, held_balances(step), WETH.address) == 0
    assert not isinstance(decide(step).decision, Halt), decide(step).decision.reason
    (balance,) = [
        v for v in table.judge_payout(step, Payout(WETH.address, OWNER, raw(Fraction(1, 2), WETH), 0, 3), ()) if v.guard == "balance"
    ]
    assert balance.passed, balance


def test_reserve_in_quarantine__lacks_nothing_and_stops_no_other() -> None:
    step = step_input(TARGETS, {"WETH": 7_000, "WBTC": 2_000, "USDC": 1_000})
    step = transfers.reserve_withdrawals(claiming(step, "WBTC", Fraction(1, 100)))
    step = quarantine_tokens(step, [ScreenedToken(WBTC.address, TokenFinding.CODE_CHANGED)])
    assert transfers.shortfall_raw(step.portfolio, step.limits, held_balances(step), WBTC.address) == 0
    assert isinstance(decide(step).decision, Rebalance), decide(step).decision.reason


# rounds
def due_round() -> StepInput:
    """A correction in rounds whose second round is due now."""
    step = roomy(step_input(None, {"WETH": 700_000, "USDC": 300_000}, depth=20_000_000), max_live_value=None)
    step = paced(step, recovery_s=1)
    begins = proposals.propose_rebalance(step).decision_result.layer(GradualResult).new_execution
    under = ExecutionProgress("c1", begins, 1, Fraction(0), Fraction(0), begins.began_s, SliceDraw(500_000, 0))
    step = later(step.with_layer(replace(step.layer(GradualState), progress=under)), 1_000)
    assert decide(step).layer(GradualResult).due_slice is not None
    return step


def test_owner_s_own_trade__is_no_round_of_a_due_correction() -> None:
    step = transfers.reserve_claims(due_round(), (PendingPayment(0, Payment(USDC.address, raw(310_000, USDC))),))
    for outcome in (
        requests.raise_money_proposer(USDC.address)(step),
        requests.propose_selling_everything(due_round()),
        requests.rebalance_to_targets(due_round()),
        proposals.manual_swap_proposer(WETH.address, USDC.address, raw(1, WETH))(due_round()),
    ):
        assert outcome.plan is not None
        assert (
            outcome.decision_result.layer(GradualResult).due_slice,
            outcome.decision_result.layer(GradualResult).end_reason,
            outcome.decision_result.filled_order_id,
        ) == (None, "", "")


def test_stopped_small_asset__ends_a_correction_that_rebuys_it() -> None:
    step = due_round()
    small = tuple(replace(asset, target_bps=20 if asset.token == WETH else 9_980) for asset in step.portfolio.assets)
    begun = replace(
        step.layer(GradualState).progress.execution, targets_bps=tuple((asset.token.address, asset.target_bps) for asset in small)
    )
    under = replace(step.layer(GradualState).progress, execution=begun)
    step = replace(step, portfolio=replace(step.portfolio, assets=small)).with_layer(GradualState(under))
    assert "changed" not in decide(step).layer(GradualResult).end_reason
    out = tuple(replace(asset, target_bps=0 if asset.token == WETH else 10_000) for asset in small)
    assert mentions(decide(replace(step, portfolio=replace(step.portfolio, assets=out))).layer(GradualResult).end_reason, "changed")


def test_unconfirmed_correction__is_not_sent_all_at_once() -> None:
    step = roomy(step_input(None, {"WETH": 700_000, "USDC": 300_000}, depth=20_000_000), max_live_value=None)
    step = paced(step, recovery_s=1)
    step = replace(step, policy=replace(step.policy, confirm_blocks=3))
    decided = decide(replace(step, policy=replace(step.policy, confirm_blocks=0)))
    assert isinstance(decided.decision, Rebalance)
    timed_plan, plan = in_time(step, decided, decided.decision, planner.plan(step, decided.decision))
    assert isinstance(timed_plan.decision, Hold), timed_plan.decision
    assert plan is None, timed_plan.decision
    assert not timed_plan.is_reviewed
    assert timed_plan.layer(GradualResult).new_execution is None


# orders by hand
def test_exit__comes_before_a_manual_order_at_its_price() -> None:
    step = with_order(step_input(TARGETS, {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}), "WETH", STOP, OrderStage.FIRED, 2_500)
    step = apply_orders(step)
    buys = LimitOrder("o1", USDC.address, WETH.address, raw(500, USDC), Fraction(1), 2_000_000_000, 0)
    outcome = proposals.orders_proposer((buys,))(step)
    assert outcome.decision_result.filled_order_id == ""
    assert outcome.plan.is_exit
    alone = proposals.single_order_proposer(buys)(step)
    assert alone.plan is None
    assert isinstance(alone.decision_result.decision, Hold)
    assert mentions(alone.decision_result.decision.reason, "stop_loss", "WETH")


@pytest.mark.parametrize(
    ("bought", "stop", "waits"),
    [
        pytest.param("WETH", terms("WETH", STOP, 1_900), True, id="its own stop"),
        pytest.param("WETH", terms("", STOP, None, 500), True, id="stop of the portfolio"),
        pytest.param("WBTC", terms("WETH", STOP, 1_900), False, id="stop of another token"),
        pytest.param("WETH", terms("WETH", STOP, 1_500), False, id="stop that is far"),
    ],
)
def test_order_by_hand__waits_while_an_exit_of_its_token_awaits_blocks(bought: str, stop: OrderTerms, waits: bool) -> None:
    bot = three(stop)
    bot.confirm = 2
    bot.look({"WETH": 2_000, "WBTC": 60_000})
    calm = {"WETH": 2_000, "WBTC": 60_000}
    step = apply_orders(bot.seen({"WETH": 1_600, "WBTC": 60_000}, [calm, calm]))
    buys = LimitOrder("o1", USDC.address, token(bought).address, raw(100, USDC), Fraction(1, 10**9), 2_000_000_000, 0)

    proposal = proposals.single_order_proposer(buys)(step)

    assert (proposal.plan is None) is waits
    assert ("do not confirm it" in proposal.decision_result.decision.reason) is waits
    assert proposals.orders_proposer((buys,))(step).decision_result.filled_order_id == ("" if waits else "o1")


def test_an_order_by_hand_buys_nothing_that_an_exit_sold() -> None:
    plain_step = step_input(TARGETS, {"WETH": 0, "WBTC": 3_000, "USDC": 7_000})
    step = apply_orders(with_order(plain_step, "WETH", STOP, OrderStage.DONE, 2_500))

    def why(symbol: str, sold: str = "USDC", coins: Fraction | int = 500) -> str:
        limit_order = LimitOrder(
            "o1", token(sold).address, token(symbol).address, raw(coins, token(sold)), Fraction(1, 10**9), 2_000_000_000, 0
        )
        outcome = proposals.single_order_proposer(limit_order)(step)
        assert (outcome.plan is None) is ("waits: WETH" in outcome.decision_result.decision.reason), outcome.decision_result.decision.reason
        return outcome.decision_result.decision.reason

    assert mentions(why("WETH"), "WETH", "stop_loss")
    assert "kept out" not in why("WBTC")
    assert "kept out" not in why("USDC", "WBTC", Fraction(1, 100))


# the portfolio's own orders
def test_missing_price__leaves_unit_worth_unknown_and_fires_none() -> None:
    bot = three(terms("", STOP, None, 2_000), terms("", OrderKind.TRAILING_STOP, None, 2_000))
    bot.look({"WETH": 2_000, "WBTC": 60_000})
    moved = {"WETH": 2_800, "WBTC": 20_000}  # as a whole worth what it was, without WETH two fifths less
    unknown = bot.seen(moved)
    unknown = with_snapshot(unknown, feeds=tuple(feed for feed in unknown.snapshot.feeds if feed.feed != feed_address("WETH")))
    step = apply_orders(unknown)
    assert isinstance(decide(step).decision, Halt)
    assert {order.stage for order in step.history.orders.states} == {OrderStage.ARMED}
    bot.look(moved)
    assert set(bot.stages().values()) == {"armed"}


# strategies
def test_waiting_entry__keeps_strategies_from_buying_more() -> None:
    half = {"WETH": 5_000, "USDC": 5_000}
    changed_config = step_input(None, {"WETH": 2_000, "USDC": 8_000}).with_config(
        split(strategy("a", 5_000, half), strategy("b", 5_000, half))
    )
    step = apply_effective_targets(brought_up(with_order(changed_config, "WETH", ENTRY, OrderStage.ARMED, 1_500)))
    assert [asset.target_bps for asset in step.effective_assets] == [2_000, 8_000]
    decision_result = decide(step)
    assert not isinstance(decision_result.decision, Rebalance), decision_result.decision.reason
