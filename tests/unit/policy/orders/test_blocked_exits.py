"""An exit that cannot be done: it is said with its remedy, and everything else goes on, other exits, liquidity and rebalancing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from agent import codec, guards
from agent.app.alerting import RunFacts, cycle_alerts
from agent.app.positions.orders import orders_document, standing_orders
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind
from agent.guards.case import build_guard_case
from agent.layers.inputs import apply_effective_targets
from agent.layers.strategies.policy.decide import StrategiesResult
from agent.layers.strategies.state import StrategiesState, StrategyHealth
from agent.model import (
    AdjustLiquidity,
    AlertKind,
    BlockedExit,
    ConditionalOrder,
    Halt,
    Hold,
    Holding,
    LimitOrder,
    OrderKind,
    OrdersConfig,
    OrderStage,
    PastPrices,
    Pool,
    PriceSource,
    Rebalance,
    StepInput,
    TokenRefusal,
)
from agent.planning import planner, proposals, requests
from agent.planning.planner import NothingPlanned
from agent.policy.decide import decide, is_exit_due
from agent.policy.orders.blocked_exits import exclude_blocked_exits
from agent.policy.orders.exits import apply_orders
from agent.reference import late_twap_tokens, price_inputs, reference_prices
from agent.reference.floors import fair_floor
from agent.venues.composer import leg_floors
from tests.support.builders import Number, brought_up, split, step_input, strategy, v2_pool, v3_pool, with_history, with_limits
from tests.support.decisions.exits import (
    DEAR,
    FIRED,
    HEAVY,
    LINK,
    MARKET,
    OFF,
    SOUND,
    STOP,
    USDC,
    WBTC,
    WETH,
    outcome_of,
    sold_symbols,
    step_with_stops,
    step_with_unpriced_stop,
)
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.lp_worlds import quiet, ranged, wanted, world
from tests.support.plans import evidence
from tests.support.standing_orders import price_of, terms
from tests.support.text import blocked, mentions

ORACLE = "oracle_deviation"


def test_stop_without_a_market_holds_nothing_else_up() -> None:
    step = step_with_stops("LINK", values=HEAVY)
    outcome = outcome_of(step)
    assert outcome.kind is OutcomeKind.PLANNED
    assert sold_symbols(outcome.plan) <= {WETH.address, WBTC.address, USDC.address}
    assert mentions(outcome.reason, "WETH", "62.5 %")
    assert blocked(outcome) == [LINK.address]
    assert "usable pool" in outcome.reason
    assert "trimtab orders disarm LINK" in outcome.reason
    assert outcome.step_input.history.orders.states[0].stage is FIRED, "it is tried again at each look"


@pytest.mark.parametrize("mean", [2_025, 2_029])
def test_stop_is_sold_whole_while_the_mean_follows_late(mean: int) -> None:
    """Nobody pays the mean any more: as the floor of an exit it would hold the stop until the fall ends."""
    late_pool = v3_pool(WETH, USDC, 2_000, 3_000_000, twap_price=mean)
    step = with_limits(
        step_with_stops("WETH", pools=(late_pool, MARKET[1], SOUND)), oracle_deviation_bps=150, price_impact_bps=100, slippage_bps=30
    )
    outcome = outcome_of(
        replace(step, reference=replace(step.reference, sources=(PriceSource.FEED, PriceSource.TWAP), uses_worse_source=True))
    )
    assert outcome.kind is OutcomeKind.PLANNED
    assert outcome.plan is not None
    assert dict(outcome.plan.holdings_after)[WETH.address] == 0
    assert all(verdict.passed for verdict in outcome.plan.verdicts)
    market = reference_prices(outcome.step_input).price_by_token[WETH.address]
    leg = outcome.plan.legs[0]
    assert leg_floors(outcome.step_input, outcome.plan)[0] == fair_floor(leg.amount_in_raw, market, Fraction(1), leg.fee_pips, 100, 30)


def test_blocked_exit_counts_neither_in_total_nor_in_weights() -> None:
    outcome = outcome_of(step_with_stops("LINK", values=HEAVY))
    assert outcome.plan is not None
    raw_before = {holding.token: holding.raw for holding in outcome.step_input.snapshot.holdings}
    assert dict(outcome.plan.holdings_after)[LINK.address] == raw_before[LINK.address]
    after = dict(outcome.plan.weights_after_bps)
    expected_bps = {WETH.address: 3_750, WBTC.address: 3_750, USDC.address: 2_500}
    assert all(abs(after[token] - bps) < 10 for token, bps in expected_bps.items()), "of the 80 that are left: no cash is raised for it"
    assert after[LINK.address] == 0
    assert [item.why for item in outcome.plan.skipped if item.subject == "token LINK"] != []


def test_exit_without_a_market_leaves_its_turn_to_the_next() -> None:
    outcome = outcome_of(step_with_stops("LINK", "WBTC", pools=(MARKET[0], SOUND)))
    assert outcome.kind is OutcomeKind.PLANNED
    assert outcome.plan is not None
    assert outcome.plan.is_exit
    assert dict(outcome.plan.holdings_after)[LINK.address] == 0
    assert sold_symbols(outcome.plan) == {LINK.address, USDC.address}
    assert blocked(outcome) == [WBTC.address]
    assert mentions(outcome.reason, "stop_loss", "LINK")


def test_exits_are_plans_of_their_own_in_portfolio_order() -> None:
    step = step_with_stops("LINK", "WBTC", "WETH", pools=(*MARKET, SOUND))
    sold = []
    while (outcome := outcome_of(step)).plan is not None and outcome.plan.is_exit:
        assert sold_symbols(outcome.plan) == {outcome.decision_result.exit_token, USDC.address}
        assert not outcome.decision_result.blocked_exits
        sold.append((outcome.decision_result.exit_token, outcome.reason.rpartition("; ")[2]))
        holdings = tuple(replace(holding, raw=dict(outcome.plan.holdings_after)[holding.token]) for holding in step.snapshot.holdings)
        step = replace(step, snapshot=replace(step.snapshot, holdings=holdings))
    assert [token for token, _ in sold] == [WETH.address, WBTC.address, LINK.address]
    assert sold[0][1] == "WETH is sold first, then WBTC, LINK, each in its own transaction"
    assert sold[1][1] == "WBTC is sold first, then LINK, each in its own transaction"
    assert "in its own" not in sold[2][1]


def test_exit_that_was_refused_less_often_goes_first() -> None:
    step = step_with_stops("LINK", "WBTC", "WETH", pools=(*MARKET, SOUND))
    refused = tuple(TokenRefusal(token.address, 1, times, "no") for token, times in ((WETH, 2), (WBTC, 1)))
    assert outcome_of(with_history(step, submission_refusals=refused)).decision_result.exit_token == LINK.address
    both = (replace(refused[1], refusal_count=2), replace(refused[0]), TokenRefusal(LINK.address, 1, 3, "no"))
    assert outcome_of(with_history(step, submission_refusals=both)).decision_result.exit_token == WETH.address


def test_blocked_exit_alone_is_a_hold() -> None:
    step = step_with_stops("LINK")
    outcome = outcome_of(step)
    assert outcome.kind is OutcomeKind.HOLD
    assert isinstance(outcome.decision, Hold)
    assert blocked(outcome) == [LINK.address]
    assert mentions(outcome.reason, "closest", "bands", "LINK")


def test_portfolio_stop_with_nothing_sellable_holds() -> None:
    step = step_with_stops(values={"WETH": 0, "WBTC": 0, "LINK": 2_000, "USDC": 0})
    stop = terms("", STOP, None, 2_000)
    gone = ConditionalOrder("portfolio", STOP, FIRED, stop, 1, Fraction(1), None, Fraction(1, 2))
    step = apply_orders(replace(with_history(step, states=(gone,)), portfolio=replace(step.portfolio, orders=OrdersConfig((stop,)))))
    outcome = outcome_of(step)
    assert outcome.kind is OutcomeKind.HOLD
    assert "nothing else" in outcome.reason
    assert "trimtab orders disarm portfolio" in outcome.reason


def test_liquidity_is_withdrawn_while_the_wallet_part_is_blocked() -> None:
    step = world([ranged(2_000, 1_600, 2_500)], [wanted(2_000)], trigger=quiet())
    stop = terms("WETH", STOP, 2_100)
    gone = ConditionalOrder(stop.token, STOP, FIRED, stop, 1, price_of("WETH", 2_500), None, price_of("WETH", 2_000))
    step = replace(with_history(step, states=(gone,)), portfolio=replace(step.portfolio, orders=OrdersConfig((stop,))))
    step = apply_orders(with_limits(step, pool_min_value=Fraction(10**18)))
    first = decide(step).decision
    assert isinstance(first, Rebalance)
    assert first.is_exit, "the wallet's part would go first"
    proposal = proposals.propose_rebalance(step)
    assert isinstance(proposal.decision_result.decision, AdjustLiquidity)
    assert proposal.plan is not None
    assert proposal.plan.layer_actions
    assert [blocked_exit.token for blocked_exit in proposal.decision_result.blocked_exits] == [WETH.address]


def test_exit_refused_for_its_pool_holds_back_only_its_asset() -> None:
    step = step_with_stops("LINK", "WBTC", pools=(MARKET[0], DEAR, SOUND))
    outcome = outcome_of(step)
    assert outcome.kind is OutcomeKind.PLANNED
    assert sold_symbols(outcome.plan) == {LINK.address, USDC.address}
    assert blocked(outcome) == [WBTC.address]
    assert mentions(outcome.reason, "WBTC", "oracle_deviation")
    assert all(verdict.passed for verdict in outcome.plan.verdicts) if outcome.plan else False


def test_exit_refused_for_its_pool_lets_a_rebalance_go_on() -> None:
    step = step_with_stops("LINK", values=HEAVY, pools=(*MARKET, OFF))
    outcome = outcome_of(step)
    assert outcome.kind is OutcomeKind.PLANNED
    assert LINK.address not in sold_symbols(outcome.plan)


def test_exit_is_not_held_up_by_the_pool_of_another_asset() -> None:
    """Pushed or drained: what is not traded needs no price in a pool."""
    for others in ((DEAR, MARKET[0]), (MARKET[0],)):
        outcome = outcome_of(step_with_stops("LINK", pools=(*others, SOUND)))
        assert outcome.kind is OutcomeKind.PLANNED
        assert outcome.plan is not None
        assert sold_symbols(outcome.plan) == {LINK.address, USDC.address}
        alone = replace(outcome.plan, decision=replace(outcome.plan.decision, is_exit=False))  # type: ignore[type-var]  # a rebalance
        (verdict,) = [
            verdict for verdict in guards.judge(outcome.step_input, alone, evidence(outcome.step_input, alone)) if verdict.guard == ORACLE
        ]
        assert not verdict.passed
        assert "WBTC" in verdict.measured_text, "a rebalance waits for it"


def test_refused_exit_is_none_once_it_is_excluded() -> None:
    refused = evaluation.evaluate_input_once(
        step_with_stops("LINK", pools=(*MARKET, OFF)), proposals.propose_rebalance, FakeEvidenceSource(), "abc"
    )
    blocked = evaluation.refused_exit(refused)
    assert refused.kind is OutcomeKind.REFUSED
    assert blocked is not None
    assert blocked.token == LINK.address
    assert evaluation.refused_exit(replace(refused, step_input=exclude_blocked_exits(refused.step_input, [blocked]))) is None


def test_refusal_for_the_whole_wallet_blocks_no_exit() -> None:
    paused = FakeEvidenceSource(paused=True, pause_reason="by hand")
    outcome = evaluation.evaluate_input(step_with_stops("WBTC"), proposals.propose_rebalance, paused, "abc")
    assert outcome.kind is OutcomeKind.REFUSED
    assert outcome.decision_result.blocked_exits == ()


def test_refusal_beside_a_blocked_exit_names_the_exit_too() -> None:
    step = step_with_stops("LINK", values=HEAVY, pools=(v2_pool(WETH, WBTC, "1/30", 1),))
    outcome = outcome_of(step)
    assert outcome.kind is OutcomeKind.REFUSED
    assert "LINK" in outcome.reason
    assert blocked(outcome) == [LINK.address]


def test_limit_order_may_sell_a_token_whose_exit_is_blocked() -> None:
    step = step_with_stops("LINK")
    order = LimitOrder("o", WETH.address, USDC.address, 10**17, Fraction(1_000, 10**12), 2_000_000_000, 1)
    proposal = proposals.orders_proposer((order,))(step)
    assert proposal.decision_result.filled_order_id == "o"
    assert proposal.plan is not None
    assert [blocked_exit.token for blocked_exit in proposal.decision_result.blocked_exits] == [LINK.address], "it is told all the same"
    dear = with_limits(step_with_stops("LINK", pools=(*MARKET, SOUND)), plan_cost_bps=1)
    sells = replace(order, token_in=LINK.address, amount_in_raw=10**18, price=Fraction(1, 10**12))
    by_hand = proposals.single_order_proposer(sells)(dear)
    assert by_hand.plan is not None
    assert sold_symbols(by_hand.plan) == {LINK.address, USDC.address}
    first = proposals.single_order_proposer(sells)(with_limits(dear, plan_cost_bps=200))
    assert first.plan is None
    assert mentions(first.decision_result.decision.reason, "stop_loss", "LINK"), "an exit that can be done goes first"


def test_blocked_exit_is_in_status_orders_alerts_and_journal() -> None:
    step = step_with_stops("LINK")
    decision_result = proposals.decision_after_plan(step)
    assert blocked(decision_result) == [LINK.address]
    assert "LINK" in decision_result.decision.reason
    assert not decision_result.exit_token
    assert ["LINK is" in line for line in orders_document(step)["blocked_exits"]] == [True]
    outcome = outcome_of(step)
    (alert,) = [alert for alert in cycle_alerts(outcome, RunFacts(False, "", None)) if alert.key.startswith("blocked:")]
    assert alert.kind is AlertKind.ORDER
    assert alert.is_lasting
    assert mentions(alert.text, "LINK", "order")
    assert "trimtab orders disarm LINK" in alert.text
    again = codec.loads(StepInput, codec.dumps(outcome.step_input))
    assert again == outcome.step_input
    assert proposals.decision_after_plan(again).decision == outcome.decision, "explain says the same"


def test_blocked_exit_is_sold_once_there_is_a_market() -> None:
    stuck = outcome_of(step_with_stops("LINK"))
    assert stuck.decision_result.blocked_exits
    outcome = outcome_of(step_with_stops("LINK", pools=(*MARKET, SOUND)))
    assert outcome.plan is not None
    assert outcome.plan.is_exit
    assert not outcome.decision_result.blocked_exits
    assert dict(outcome.plan.holdings_after)[LINK.address] == 0


@pytest.mark.parametrize("health", [StrategyHealth.ACTIVE, StrategyHealth.PAUSED])
def test_strategies_go_on_while_an_exit_is_blocked(health: StrategyHealth) -> None:
    base_step = step_with_stops("LINK", values={"WETH": 4_000, "WBTC": 2_000, "LINK": 2_000, "USDC": 2_000})
    calm = strategy("calm", 5_000, {"WETH": 5_000, "LINK": 2_000, "USDC": 3_000})
    bold = strategy("bold", 5_000, {"WETH": 3_000, "WBTC": 5_000, "LINK": 2_000})
    step = apply_effective_targets(brought_up(base_step.with_config(split(calm, bold)), None))
    books = step.layer(StrategiesState).books
    assert books is not None
    states = (
        tuple(replace(strategy, state=replace(strategy.state, health=health)) for strategy in books.strategy_books[:1])
        + books.strategy_books[1:]
    )
    step = step.with_layer(StrategiesState(replace(books, strategy_books=states)))
    outcome = outcome_of(step)
    assert [stuck.token for stuck in outcome.decision_result.blocked_exits] == [LINK.address]
    assert outcome.kind is OutcomeKind.PLANNED
    assert LINK.address not in sold_symbols(outcome.plan)
    netting = outcome.decision_result.layer(StrategiesResult).netting
    assert netting is not None
    assert all(dict(wish.values_to_trade)[LINK.address] == 0 for wish in netting.adjustments)


def test_exit_without_a_market_cannot_be_planned_by_itself() -> None:
    """What every look would end with."""
    step = step_with_stops("LINK")
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)
    assert decision.is_exit
    with pytest.raises(NothingPlanned):
        planner.plan(step, decision)


def test_orders_name_the_guard_that_refuses_an_exit() -> None:
    step = step_with_stops("LINK", pools=(*MARKET, OFF))
    stored = SimpleNamespace(orders_and_version=lambda: (step.history.orders.states, 1))
    desk = SimpleNamespace(store=SimpleNamespace(executions=SimpleNamespace(open_limit_orders=list), orders=stored))
    agent: Any = SimpleNamespace(step_input=lambda: step, plan=lambda: outcome_of(step), context=desk)
    assert orders_document(step)["blocked_exits"] == []
    (line,) = standing_orders(agent)["blocked_exits"]
    assert mentions(line, "LINK", "oracle_deviation")


AGREED = v3_pool(LINK, USDC, 10, twap_price=10)
APART = v3_pool(LINK, USDC, 10, twap_price=8)
"""The feed of LINK says 10, its mean 8: not a mean that is late in a fall."""


def two_sources(*symbols: str, pools: tuple[Pool, ...], values: Mapping[str, Number] | None = None) -> StepInput:
    """Stops of these have fired, where a feed and a mean are compared."""
    step = step_with_stops(*symbols, pools=(*MARKET, *pools), values=values)
    return replace(step, reference=replace(step.reference, sources=(PriceSource.FEED, PriceSource.TWAP)))


def test_exit_is_sold_while_sources_of_another_asset_disagree() -> None:
    step = two_sources("WBTC", "LINK", pools=(SOUND, APART))
    outcome = outcome_of(step)
    assert outcome.kind is OutcomeKind.PLANNED
    assert sold_symbols(outcome.plan) == {WBTC.address, USDC.address}
    assert mentions(outcome.reason, "nothing else is traded", "contradict", "LINK"), "the conflict is told"
    gone = tuple(replace(holding, raw=0) if holding.token == WBTC.address else holding for holding in step.snapshot.holdings)
    outcome_after_sale = outcome_of(replace(step, snapshot=replace(step.snapshot, holdings=gone)))
    assert outcome_after_sale.kind is OutcomeKind.HALT
    assert "LINK" in outcome_after_sale.reason, "LINK itself waits"


def test_exit_waits_while_sources_of_its_own_price_disagree() -> None:
    apart = v3_pool(WBTC, USDC, 60_000, twap_price=30_000)
    outcome = outcome_of(two_sources("WBTC", pools=(SOUND, apart)))
    assert outcome.kind is OutcomeKind.HALT
    assert mentions(outcome.reason, "contradict", "WBTC")


def step_in_a_fall(feed: int, spot: int, mean: int, before: tuple[int, ...] = ()) -> StepInput:
    """A stop of WETH has fired; spot prices of its one pool, now and at the blocks before, newest first."""
    pools = tuple(v3_pool(WETH, USDC, price, 3_000_000, twap_price=mean) for price in (spot, *before))
    step = with_limits(
        step_with_stops("WETH", pools=(pools[0], MARKET[1], SOUND)), oracle_deviation_bps=100, price_impact_bps=100, slippage_bps=30
    )
    head = step.snapshot.head
    feeds = tuple(
        replace(feed_round, answer=feed * 10**8) if feed_round.answer == 2_000 * 10**8 else feed_round for feed_round in step.snapshot.feeds
    )
    past = tuple(PastPrices(replace(head, number=head.number - n), feeds, (pool,)) for n, pool in enumerate(pools[1:], 1))
    sources = replace(step.reference, sources=(PriceSource.FEED, PriceSource.TWAP), uses_worse_source=True)
    return replace(step, reference=sources, snapshot=replace(step.snapshot, feeds=feeds, past_prices=past))


@pytest.mark.parametrize("mean", [2_019, 2_021, 2_100, 2_800])
def test_stop_is_sold_at_the_feed_while_only_the_mean_is_late(mean: int) -> None:
    """2,021 is beyond oracle_deviation of 1 %: the stop no longer waits until the mean has followed."""
    outcome = outcome_of(step_in_a_fall(2_000, 2_000, mean))
    assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
    assert outcome.plan is not None, outcome.reason
    assert dict(outcome.plan.holdings_after)[WETH.address] == 0
    assert all(verdict.passed for verdict in outcome.plan.verdicts)
    market = reference_prices(outcome.step_input).price_by_token[WETH.address]
    leg = outcome.plan.legs[0]
    floor = fair_floor(leg.amount_in_raw, market, Fraction(1), leg.fee_pips, 100, 30)
    assert leg_floors(outcome.step_input, outcome.plan)[0] == floor <= leg.min_out_raw
    rebalance = outcome_of(with_history(outcome.step_input, states=()))
    waits = rebalance.kind is OutcomeKind.HALT and "contradict" in rebalance.reason
    assert waits is (mean > 2_020), "nothing else is traded beyond the limit"


def late_tokens(step: StepInput) -> frozenset[str]:
    return late_twap_tokens(price_inputs(step), step.limits.oracle_deviation_bps)


@pytest.mark.parametrize(
    ("feed", "spot", "mean", "before"),
    [
        (2_000, 1_979, 2_100, ()),
        (2_000, 1_600, 2_100, ()),
        (2_000, 2_021, 2_100, ()),
        (2_000, 2_100, 2_100, ()),
        (2_000, 2_000, 1_979, ()),
        (1_000, 1_000, 2_000, (2_000,)),
        (1_000, 1_000, 2_000, (1_000, 2_000)),
    ],
    ids=["pushed", "pushed far", "above", "feed alone fell", "mean below", "pushed in this block", "pushed in two blocks"],
)
def test_mean_is_not_late_for_a_pushed_pool_or_a_lone_feed(feed: int, spot: int, mean: int, before: tuple[int, ...]) -> None:
    """A pool pushed below the feed, a feed that fell without the pools, or pools pushed to a false feed for a block or two: no sale."""
    step = step_in_a_fall(feed, spot, mean, before)
    assert late_tokens(step) == frozenset()
    outcome = outcome_of(step)
    assert outcome.kind in (OutcomeKind.HALT, OutcomeKind.REFUSED)
    assert WETH.address not in (sold_symbols(outcome.plan) if outcome.plan else ())


def test_mean_is_late_only_beside_a_feed_that_comes_first() -> None:
    step = step_in_a_fall(2_000, 2_000, 2_100)
    assert late_tokens(step) == {WETH.address}
    for kinds in ((PriceSource.TWAP, PriceSource.FEED), (PriceSource.FEED,), (PriceSource.TWAP,)):
        assert late_tokens(replace(step, reference=replace(step.reference, sources=kinds))) == frozenset()
    assert late_tokens(with_limits(step, oracle_deviation_bps=None)) == frozenset()
    old = tuple(replace(feed_round, updated_at_s=1) for feed_round in step.snapshot.feeds)
    assert late_tokens(replace(step, snapshot=replace(step.snapshot, feeds=old))) == frozenset(), "a dead feed is no price"


@pytest.mark.parametrize("mean", [1_900, 2_100, 4_000])
def test_exit_is_sold_while_sources_of_native_coin_disagree(mean: int) -> None:
    """In a fall of everything the mean of the native coin is late too; whoever pushes it would hold every stop back."""
    apart = v3_pool(WETH, USDC, 2_000, twap_price=mean)
    outcome = outcome_of(two_sources("WBTC", pools=(SOUND, apart)))
    assert outcome.kind is OutcomeKind.PLANNED
    assert sold_symbols(outcome.plan) == {WBTC.address, USDC.address}
    assert outcome.plan is not None
    assert all(verdict.passed for verdict in outcome.plan.verdicts)
    own = outcome_of(two_sources("WETH", "WBTC", pools=(SOUND, apart)))
    assert own.kind is OutcomeKind.PLANNED
    assert own.decision_result.exit_token == (WBTC if mean < 2_000 else WETH).address, "in a fall WETH itself is sold at its feed"


def test_exit_through_a_hub_is_judged_by_the_hub_too() -> None:
    """Its route is known to the guards alone."""
    step = two_sources("LINK", pools=(SOUND,))
    plan = outcome_of(step).plan
    assert plan is not None
    through = replace(plan, legs=(replace(plan.legs[0], token_out=WBTC.address), *plan.legs[1:]))
    apart = v3_pool(WBTC, USDC, 60_000, twap_price=90_000)
    off = replace(step, snapshot=replace(step.snapshot, pools=(*step.snapshot.pools, apart)))
    assert WBTC.address not in (build_guard_case(off, plan, evidence(off, plan)).judged_tokens() or ())
    case = build_guard_case(off, plan, evidence(off, plan))
    assert WBTC.address in (replace(case, plan=through).judged_tokens() or ())


def test_rebalance_is_judged_by_the_sources_of_every_asset() -> None:
    outcome = outcome_of(two_sources(pools=(SOUND, APART), values=HEAVY))
    assert outcome.kind is OutcomeKind.HALT
    assert mentions(outcome.reason, "contradict", "LINK")


def test_exit_is_not_refused_for_a_stale_feed_of_another_asset() -> None:
    """LINK has its mean to fall back on."""
    step = two_sources("WBTC", pools=(SOUND, AGREED))
    old = tuple(
        replace(feed_round, updated_at_s=1) if feed_round.answer == 10 * 10**8 else feed_round for feed_round in step.snapshot.feeds
    )
    step = replace(step, snapshot=replace(step.snapshot, feeds=old))
    outcome = outcome_of(step)
    assert outcome.kind is OutcomeKind.PLANNED
    assert sold_symbols(outcome.plan) == {WBTC.address, USDC.address}
    assert outcome_of(two_sources("LINK", pools=(SOUND, AGREED))).kind is OutcomeKind.PLANNED
    alone = step_with_stops("LINK", pools=(*MARKET, SOUND, AGREED))
    alone = replace(alone, reference=step.reference, snapshot=replace(alone.snapshot, feeds=old))
    refused = outcome_of(alone)
    assert refused.kind is OutcomeKind.REFUSED
    assert {verdict.guard for verdict in refused.refusal_verdicts if not verdict.passed} == {"feed_health"}


def test_selling_everything_skips_only_assets_in_conflict() -> None:
    step = two_sources(pools=(SOUND, APART))
    sold = []
    while (outcome := evaluation.evaluate_input(step, requests.propose_selling_everything, FakeEvidenceSource(), "abc")).plan is not None:
        if outcome.kind is not OutcomeKind.PLANNED:
            break
        sold.append(outcome.decision_result.exit_token)
        step = exclude_blocked_exits(outcome.step_input, [BlockedExit(sold[-1], "sold", "")])
    assert sold == [WETH.address, WBTC.address]
    assert any(blocked_exit.token == LINK.address and ORACLE in blocked_exit.why for blocked_exit in outcome.decision_result.blocked_exits)
    sold_out = evaluation.evaluate_input(
        two_sources(pools=(SOUND, APART)), requests.sell_out_proposer(WBTC.address), FakeEvidenceSource(), "abc"
    )
    assert sold_out.kind is OutcomeKind.PLANNED
    assert sold_symbols(sold_out.plan) == {WBTC.address, USDC.address}
    halted = evaluation.evaluate_input(
        two_sources(pools=(SOUND, APART)), requests.sell_out_proposer(LINK.address), FakeEvidenceSource(), "abc"
    )
    assert halted.kind is OutcomeKind.HALT


def test_stop_fires_while_sources_of_another_asset_disagree() -> None:
    def stages(pools: tuple[Pool, ...]) -> dict[str, OrderStage]:
        step = two_sources(pools=pools)
        symbols = {"WBTC": (90_000, 80_000), "LINK": (20, 15)}
        wished = tuple(terms(symbol, STOP, level) for symbol, (_, level) in symbols.items())
        armed = tuple(
            ConditionalOrder(order.token, STOP, OrderStage.ARMED, order, 1, price_of(symbol, high), None, price_of(symbol, high))
            for order, (symbol, (high, _)) in zip(wished, symbols.items(), strict=True)
        )
        portfolio = replace(step.portfolio, orders=OrdersConfig(wished))
        policy = replace(step.policy, confirm_blocks=0)
        advanced_step = apply_orders(replace(with_history(step, states=armed), policy=policy, portfolio=portfolio))
        return {order.token: order.stage for order in advanced_step.history.orders.states}

    assert stages((SOUND, AGREED)) == {WBTC.address: FIRED, LINK.address: FIRED}
    assert stages((SOUND, APART)) == {WBTC.address: FIRED, LINK.address: OrderStage.ARMED}


def test_exit_is_due_as_long_as_it_would_be_sold() -> None:
    """Also beside an asset without a price, or one whose sources disagree."""
    disagreeing = two_sources("WBTC", pools=(SOUND, APART))
    assert mentions(decide(disagreeing).decision.reason, "nothing else is traded", "contradict", "LINK")
    assert [is_exit_due(step) for step in (step_with_stops("WBTC"), step_with_unpriced_stop("WBTC"), disagreeing)] == [True] * 3
    assert not is_exit_due(step_with_stops())
    sold = step_with_stops("WBTC", values={"WETH": 5_000, "WBTC": 0, "LINK": 2_000, "USDC": 3_000})
    assert not is_exit_due(sold)


def test_exit_is_sold_while_another_asset_has_no_price() -> None:
    for symbols in (("WBTC",), ("LINK", "WBTC")):
        outcome = outcome_of(step_with_unpriced_stop(*symbols))
        assert outcome.kind is OutcomeKind.PLANNED
        assert sold_symbols(outcome.plan) == {WBTC.address, USDC.address}
        assert mentions(outcome.reason, "nothing else is traded", "LINK", "no reference price")
        again = codec.loads(StepInput, codec.dumps(outcome.step_input))
        assert evaluation.evaluate_input_once(again, proposals.propose_rebalance, FakeEvidenceSource(), "abc").plan == outcome.plan, (
            "a replay plans the same"
        )


def test_unpriced_asset_counts_as_nothing_for_daily_loss() -> None:
    step = with_limits(step_with_unpriced_stop("WBTC"), daily_loss_bps=100)
    lost = with_history(step, loss_24h=Fraction(85 * 10**6))
    assert outcome_of(lost).kind is OutcomeKind.REFUSED, "one per cent of 8,000, not of 10,000"
    assert outcome_of(with_history(step, loss_24h=Fraction(60 * 10**6))).kind is OutcomeKind.PLANNED


def test_refused_exit_buys_nothing_while_a_price_is_missing() -> None:
    """The portfolio without the unpriced asset is for exits alone."""
    values = {"WETH": 5_000, "WBTC": 1_000, "LINK": 2_000, "USDC": 2_000}
    step = step_with_unpriced_stop("WBTC", values=values)
    dear = replace(step, snapshot=replace(step.snapshot, pools=(MARKET[0], DEAR, SOUND)))
    outcome = outcome_of(dear)
    assert outcome.kind is OutcomeKind.HALT
    assert mentions(outcome.reason, "LINK", "no reference price", "WBTC")
    again = codec.loads(StepInput, codec.dumps(outcome.step_input))
    assert isinstance(decide(again).decision, Halt), "nor in a replay"


def test_exit_needs_its_own_price_and_that_of_gas() -> None:
    assert outcome_of(step_with_unpriced_stop("LINK")).kind is OutcomeKind.HALT
    step = step_with_stops("WBTC", pools=(*MARKET, SOUND))
    feeds = tuple(feed_round for feed_round in step.snapshot.feeds if feed_round.answer != 2_000 * 10**8)
    assert outcome_of(replace(step, snapshot=replace(step.snapshot, feeds=feeds))).kind is OutcomeKind.HALT


def test_rebalance_halts_on_a_missing_price() -> None:
    outcome = outcome_of(step_with_unpriced_stop(values=HEAVY))
    assert outcome.kind is OutcomeKind.HALT
    assert mentions(outcome.reason, "LINK", "no reference price")


def test_selling_everything_sells_what_has_a_price() -> None:
    step = step_with_unpriced_stop()
    sold = []
    while (
        outcome := evaluation.evaluate_input(step, requests.propose_selling_everything, FakeEvidenceSource(), "abc")
    ).kind is OutcomeKind.PLANNED:
        sold.append(outcome.decision_result.exit_token)
        holdings = tuple(replace(holding, raw=0) if holding.token in sold else holding for holding in step.snapshot.holdings)
        step = replace(step, snapshot=replace(step.snapshot, holdings=holdings))
    assert sold == [WETH.address, WBTC.address]
    assert outcome.kind is OutcomeKind.REFUSED
    assert mentions(outcome.reason, "LINK", "price")


def test_exit_is_sold_beside_an_order_that_contradicts_its_price() -> None:
    """Neither the exit of another asset nor, once its stop has fired, that of its own."""
    for symbol, kind, level in (("WBTC", STOP, 70_000), ("LINK", OrderKind.TAKE_PROFIT, 5)):
        step = step_with_stops("LINK", pools=(*MARKET, SOUND), values=HEAVY)
        wrong = terms(symbol, kind, level)
        waiting = ConditionalOrder(wrong.token, kind, OrderStage.WAITING, wrong, 1)
        book = OrdersConfig((*step.portfolio.orders.terms, wrong))
        orders = (*step.history.orders.states, waiting)
        step = apply_orders(replace(with_history(step, states=orders), portfolio=replace(step.portfolio, orders=book)))
        outcome = outcome_of(step)
        assert outcome.kind is OutcomeKind.PLANNED
        assert sold_symbols(outcome.plan) == {LINK.address, USDC.address}
        assert mentions(outcome.reason, "nothing else is traded", "contradicts the price", symbol)
        gone = tuple(replace(holding, raw=0) if holding.token == LINK.address else holding for holding in step.snapshot.holdings)
        assert outcome_of(replace(step, snapshot=replace(step.snapshot, holdings=gone))).kind is OutcomeKind.HALT, "purchases wait"
        sold = evaluation.evaluate_input(step, requests.sell_out_proposer(WBTC.address), FakeEvidenceSource(), "abc")
        assert sold.kind is OutcomeKind.PLANNED
        assert sold_symbols(sold.plan) == {WBTC.address, USDC.address}


def with_unread_balance(step: StepInput, *more: Holding) -> StepInput:
    """The balance of WBTC is not read, or read as these."""
    holdings = tuple(holding for holding in step.snapshot.holdings if holding.token != WBTC.address)
    return replace(step, snapshot=replace(step.snapshot, holdings=(*holdings, *more)))


@pytest.mark.parametrize("answers", [(), (5, 6)])
def test_exit_is_sold_while_another_balance_is_unknown(answers: tuple[int, ...]) -> None:
    """Its token would halt every stop by hiding its balance now and then."""
    more = [Holding(WBTC.address, raw) for raw in answers]
    pools = (*MARKET, SOUND, v2_pool(LINK, WBTC, Fraction(10, 59_000), 50_000_000))
    outcome = outcome_of(with_unread_balance(step_with_stops("LINK", "WBTC", pools=pools), *more))
    assert outcome.kind is OutcomeKind.PLANNED
    assert sold_symbols(outcome.plan) == {LINK.address, USDC.address}, "nor sold through it"
    assert mentions(outcome.reason, "nothing else is traded", "balance of WBTC")
    again = codec.loads(StepInput, codec.dumps(outcome.step_input))
    assert evaluation.evaluate_input_once(again, proposals.propose_rebalance, FakeEvidenceSource(), "abc").plan == outcome.plan, (
        "a replay plans the same"
    )
    assert outcome_of(with_unread_balance(step_with_stops(values=HEAVY, pools=pools), *more)).kind is OutcomeKind.HALT, "purchases wait"
    assert outcome_of(with_unread_balance(step_with_stops("WBTC", pools=pools), *more)).kind is OutcomeKind.HALT
    ended = evaluation.evaluate_input(
        with_unread_balance(step_with_stops(pools=pools), *more), requests.propose_selling_everything, FakeEvidenceSource(), "abc"
    )
    assert ended.kind is OutcomeKind.PLANNED
    assert ended.decision_result.exit_token == WETH.address
    numeraire = step_with_stops("LINK", pools=pools)
    holdings = tuple(holding for holding in numeraire.snapshot.holdings if holding.token != USDC.address)
    assert outcome_of(replace(numeraire, snapshot=replace(numeraire.snapshot, holdings=holdings))).kind is OutcomeKind.HALT


def test_blocked_exit_without_a_price_refuses_no_other_exit() -> None:
    step = exclude_blocked_exits(step_with_stops("LINK", "WBTC", pools=(*MARKET, SOUND)), [BlockedExit(LINK.address, "it reverted", "")])
    feeds = tuple(feed_round for feed_round in step.snapshot.feeds if feed_round.answer != 10 * 10**8)
    outcome = outcome_of(replace(step, snapshot=replace(step.snapshot, feeds=feeds)))
    assert outcome.kind is OutcomeKind.PLANNED
    assert sold_symbols(outcome.plan) == {WBTC.address, USDC.address}


@pytest.mark.timeout(120)
def test_selling_everything_through_costly_pools_ends() -> None:
    """The best selection of pools for the last exit saves less than its gas: an equal one is no better, and the search ends."""
    bps = {"WETH": 4_000, "WBTC": 2_500, "LINK": 1_500, "USDC": 2_000}
    values = {"WETH": 10**7, "WBTC": 10**7, "LINK": 10, "USDC": 10**7}
    deep = 10**12
    places = [
        v2_pool(WBTC, LINK, 6_000, deep),
        v2_pool(USDC, LINK, Fraction(999, 10_000), deep),
        v2_pool(LINK, USDC, Fraction(99, 10), deep),
        v3_pool(WETH, LINK, 100_000, 100),
        v3_pool(LINK, USDC, Fraction(25, 2), deep),
    ]
    step = step_input(bps, values, {"WETH": 10**6, "WBTC": 60_000, "LINK": 10}, pools=places, kinds=(PriceSource.FEED,))
    outcome = evaluation.evaluate_input(step, requests.propose_selling_everything, FakeEvidenceSource())
    assert outcome.kind is OutcomeKind.HOLD
    assert mentions(outcome.reason, "nothing more can be sold", "WBTC stays")
