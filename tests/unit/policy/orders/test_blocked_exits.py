"""An exit that cannot be done: it is said with its remedy, and everything else goes on, other exits, liquidity and rebalancing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from agent import codec, guards
from agent.app.alerting import RunFacts
from agent.app.alerting import cycle_alerts as alerts
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
    Evidence,
    Halt,
    Hold,
    Holding,
    LimitOrder,
    OrderKind,
    OrdersConfig,
    OrderStage,
    PastPrices,
    Plan,
    Pool,
    PriceSource,
    Rebalance,
    StepInput,
    SubmissionRefusal,
)
from agent.planning import proposals, requests
from agent.planning.planner import NothingPlanned, plan
from agent.policy.decide import decide, is_exit_due
from agent.policy.orders.blocked_exits import exclude_blocked_exits
from agent.policy.orders.exits import apply_orders
from agent.reference import late_twap_tokens, price_inputs, reference_prices
from agent.reference.floors import fair_floor
from agent.venues.composer import leg_floors
from tests.support.builders import Number, brought_up, split, step_input, strategy, v2_pool, v3_pool, with_history, with_limits
from tests.support.decisions.exits import DEAR, FIRED, HEAVY, LINK, MARKET, OFF, SOUND, STOP, USDC, WBTC, WETH
from tests.support.decisions.exits import GuardEvidence as Sees
from tests.support.decisions.exits import outcome_of as judged
from tests.support.decisions.exits import sold_symbols as moved
from tests.support.decisions.exits import step_with_stops as fired
from tests.support.decisions.exits import step_with_unpriced_stop as unpriced
from tests.support.lp_worlds import quiet, ranged, world
from tests.support.lp_worlds import wanted as wanted_liquidity
from tests.support.plans import evidence
from tests.support.standing_orders import price_of, terms
from tests.support.text import blocked, mentions

ORACLE = "oracle_deviation"


def test_a_stop_without_any_market_holds_nothing_else_up_and_is_said_with_its_remedy() -> None:
    step = fired("LINK", values=HEAVY)
    found = judged(step)
    assert found.kind is OutcomeKind.PLANNED
    assert moved(found.plan) <= {WETH.address, WBTC.address, USDC.address}
    assert mentions(found.reason, "WETH", "62.5 %")
    assert blocked(found) == [LINK.address]
    assert "usable pool" in found.reason
    assert "trimtab orders disarm LINK" in found.reason
    assert found.step_input.history.orders.states[0].stage is FIRED, "it is tried again at each look"


@pytest.mark.parametrize("mean", [2_025, 2_029])
def test_a_stop_is_sold_whole_in_a_fall_that_the_mean_follows_late(mean: int) -> None:
    """Nobody pays the mean any more: as the floor of an exit it would hold the stop until the fall ends."""
    late = v3_pool(WETH, USDC, 2_000, 3_000_000, twap_price=mean)
    step = with_limits(fired("WETH", pools=(late, MARKET[1], SOUND)), oracle_deviation_bps=150, price_impact_bps=100, slippage_bps=30)
    found = judged(replace(step, reference=replace(step.reference, sources=(PriceSource.FEED, PriceSource.TWAP), uses_worse_source=True)))
    assert found.kind is OutcomeKind.PLANNED
    assert found.plan is not None
    assert dict(found.plan.holdings_after)[WETH.address] == 0
    assert all(one.passed for one in found.plan.verdicts)
    market = reference_prices(found.step_input).price_by_token[WETH.address]
    leg = found.plan.legs[0]
    assert leg_floors(found.step_input, found.plan)[0] == fair_floor(leg.amount_in_raw, market, Fraction(1), leg.fee_pips, 100, 30)


def test_what_is_stuck_keeps_what_it_has_and_counts_neither_in_the_total_nor_in_weights() -> None:
    found = judged(fired("LINK", values=HEAVY))
    assert found.plan is not None
    held = {holding.token: holding.raw for holding in found.step_input.snapshot.holdings}
    assert dict(found.plan.holdings_after)[LINK.address] == held[LINK.address]
    after = dict(found.plan.weights_after_bps)
    wanted_bps = {WETH.address: 3_750, WBTC.address: 3_750, USDC.address: 2_500}
    assert all(abs(after[one] - bps) < 10 for one, bps in wanted_bps.items()), "of the 80 that are left: no cash is raised for it"
    assert after[LINK.address] == 0
    assert [item.why for item in found.plan.skipped if item.subject == "token LINK"] != []


def test_an_exit_without_a_market_leaves_its_turn_to_the_next() -> None:
    found = judged(fired("LINK", "WBTC", pools=(MARKET[0], SOUND)))
    assert found.kind is OutcomeKind.PLANNED
    assert found.plan is not None
    assert found.plan.is_exit
    assert dict(found.plan.holdings_after)[LINK.address] == 0
    assert moved(found.plan) == {LINK.address, USDC.address}
    assert blocked(found) == [WBTC.address]
    assert mentions(found.reason, "stop_loss", "LINK")


def test_each_exit_is_a_plan_of_its_own_in_the_portfolio_s_order() -> None:
    step, sold = fired("LINK", "WBTC", "WETH", pools=(*MARKET, SOUND)), []
    while (found := judged(step)).plan is not None and found.plan.is_exit:
        assert moved(found.plan) == {found.decision_result.exit_token, USDC.address}
        assert not found.decision_result.blocked_exits
        sold.append((found.decision_result.exit_token, found.reason.rpartition("; ")[2]))
        held = tuple(replace(one, raw=dict(found.plan.holdings_after)[one.token]) for one in step.snapshot.holdings)
        step = replace(step, snapshot=replace(step.snapshot, holdings=held))
    assert [one for one, _ in sold] == [WETH.address, WBTC.address, LINK.address]
    assert sold[0][1] == "WETH is sold first, then WBTC, LINK, each in its own transaction"
    assert sold[1][1] == "WBTC is sold first, then LINK, each in its own transaction"
    assert "in its own" not in sold[2][1]


def test_an_exit_that_was_refused_less_often_goes_first() -> None:
    step = fired("LINK", "WBTC", "WETH", pools=(*MARKET, SOUND))
    refused = tuple(SubmissionRefusal(one.address, 1, times, "no") for one, times in ((WETH, 2), (WBTC, 1)))
    assert judged(with_history(step, submission_refusals=refused)).decision_result.exit_token == LINK.address
    both = (replace(refused[1], refusal_count=2), replace(refused[0]), SubmissionRefusal(LINK.address, 1, 3, "no"))
    assert judged(with_history(step, submission_refusals=both)).decision_result.exit_token == WETH.address


def test_where_nothing_else_is_to_be_done_it_holds_so_that_reviews_and_exchanges_inside_go_on() -> None:
    step = fired("LINK")
    found = judged(step)
    assert found.kind is OutcomeKind.HOLD
    assert isinstance(found.decision, Hold)
    assert blocked(found) == [LINK.address]
    assert mentions(found.reason, "closest", "bands", "LINK")


def test_the_whole_portfolio_out_with_nothing_sellable_holds_and_says_so() -> None:
    step = fired(values={"WETH": 0, "WBTC": 0, "LINK": 2_000, "USDC": 0})
    stop = terms("", STOP, None, 2_000)
    gone = ConditionalOrder("portfolio", STOP, FIRED, stop, 1, Fraction(1), None, Fraction(1, 2))
    step = apply_orders(replace(with_history(step, states=(gone,)), portfolio=replace(step.portfolio, orders=OrdersConfig((stop,)))))
    found = judged(step)
    assert found.kind is OutcomeKind.HOLD
    assert "nothing else" in found.reason
    assert "trimtab orders disarm portfolio" in found.reason


def test_liquidity_of_other_assets_is_taken_out_while_the_wallet_s_part_is_stuck() -> None:
    step = world([ranged(2_000, 1_600, 2_500)], [wanted_liquidity(2_000)], trigger=quiet())
    stop = terms("WETH", STOP, 2_100)
    gone = ConditionalOrder(stop.token, STOP, FIRED, stop, 1, price_of("WETH", 2_500), None, price_of("WETH", 2_000))
    step = replace(with_history(step, states=(gone,)), portfolio=replace(step.portfolio, orders=OrdersConfig((stop,))))
    step = apply_orders(with_limits(step, pool_min_value=Fraction(10**18)))
    first = decide(step).decision
    assert isinstance(first, Rebalance)
    assert first.is_exit, "the wallet's part would go first"
    found = proposals.propose_rebalance(step)
    assert isinstance(found.decision_result.decision, AdjustLiquidity)
    assert found.plan is not None
    assert found.plan.layer_actions
    assert [one.token for one in found.decision_result.blocked_exits] == [WETH.address]


def test_an_exit_that_the_guards_refuse_for_its_pool_holds_back_its_own_asset_alone() -> None:
    step = fired("LINK", "WBTC", pools=(MARKET[0], DEAR, SOUND))
    found = judged(step)
    assert found.kind is OutcomeKind.PLANNED
    assert moved(found.plan) == {LINK.address, USDC.address}
    assert blocked(found) == [WBTC.address]
    assert mentions(found.reason, "WBTC", "oracle_deviation")
    assert all(one.passed for one in found.plan.verdicts) if found.plan else False


def test_an_exit_whose_pool_is_refused_lets_the_ordinary_rebalance_go_on() -> None:
    step = fired("LINK", values=HEAVY, pools=(*MARKET, OFF))
    found = judged(step)
    assert found.kind is OutcomeKind.PLANNED
    assert LINK.address not in moved(found.plan)


def test_the_pool_of_another_asset_does_not_hold_an_exit_up() -> None:
    """Pushed or drained: what is not traded needs no price in a pool."""
    for others in ((DEAR, MARKET[0]), (MARKET[0],)):
        found = judged(fired("LINK", pools=(*others, SOUND)))
        assert found.kind is OutcomeKind.PLANNED
        assert found.plan is not None
        assert moved(found.plan) == {LINK.address, USDC.address}
        alone = replace(found.plan, decision=replace(found.plan.decision, is_exit=False))  # type: ignore[type-var]  # a rebalance
        (verdict,) = [one for one in guards.judge(found.step_input, alone, evidence(found.step_input, alone)) if one.guard == ORACLE]
        assert not verdict.passed
        assert "WBTC" in verdict.measured_text, "a rebalance waits for it"


def test_a_refusal_that_leaving_the_exit_alone_does_not_end_stays_one() -> None:
    refused = evaluation.evaluate_input_once(fired("LINK", pools=(*MARKET, OFF)), proposals.propose_rebalance, Sees(), "abc")
    blocked = evaluation.refused_exit(refused)
    assert refused.kind is OutcomeKind.REFUSED
    assert blocked is not None
    assert blocked.token == LINK.address
    assert evaluation.refused_exit(replace(refused, step_input=exclude_blocked_exits(refused.step_input, [blocked]))) is None


def test_what_is_refused_for_all_of_the_wallet_stays_a_refusal() -> None:
    class Paused(Sees):
        """The owner has paused."""

        def gather(self, step: StepInput, plan: Plan) -> Evidence:
            """Evidence with the kill switch on."""
            return evidence(step, plan, paused=True, pause_reason="by hand")

    found = evaluation.evaluate_input(fired("WBTC"), proposals.propose_rebalance, Paused(), "abc")
    assert found.kind is OutcomeKind.REFUSED
    assert found.decision_result.blocked_exits == ()


def test_a_refusal_of_what_goes_on_besides_names_the_exit_too() -> None:
    step = fired("LINK", values=HEAVY, pools=(v2_pool(WETH, WBTC, "1/30", 1),))
    found = judged(step)
    assert found.kind is OutcomeKind.REFUSED
    assert "LINK" in found.reason
    assert blocked(found) == [LINK.address]


def test_a_limit_order_by_hand_is_filled_and_may_sell_what_is_stuck() -> None:
    step = fired("LINK")
    order = LimitOrder("o", WETH.address, USDC.address, 10**17, Fraction(1_000, 10**12), 2_000_000_000, 1)
    found = proposals.orders_proposer((order,))(step)
    assert found.decision_result.filled_order_id == "o"
    assert found.plan is not None
    assert [one.token for one in found.decision_result.blocked_exits] == [LINK.address], "it is told all the same"
    dear = with_limits(fired("LINK", pools=(*MARKET, SOUND)), plan_cost_bps=1)
    sells = replace(order, token_in=LINK.address, amount_in_raw=10**18, price=Fraction(1, 10**12))
    by_hand = proposals.single_order_proposer(sells)(dear)
    assert by_hand.plan is not None
    assert moved(by_hand.plan) == {LINK.address, USDC.address}
    first = proposals.single_order_proposer(sells)(with_limits(dear, plan_cost_bps=200))
    assert first.plan is None
    assert mentions(first.decision_result.decision.reason, "stop_loss", "LINK"), "an exit that can be done goes first"


def test_status_orders_alerts_and_the_journal_tell_it() -> None:
    step = fired("LINK")
    decided = proposals.decision_after_plan(step)
    assert blocked(decided) == [LINK.address]
    assert "LINK" in decided.decision.reason
    assert not decided.exit_token
    assert ["LINK is" in line for line in orders_document(step)["blocked_exits"]] == [True]
    found = judged(step)
    (told,) = [one for one in alerts(found, RunFacts(False, "", None)) if one.key.startswith("blocked:")]
    assert told.kind is AlertKind.ORDER
    assert told.is_lasting
    assert mentions(told.text, "LINK", "order")
    assert "trimtab orders disarm LINK" in told.text
    again = codec.loads(StepInput, codec.dumps(found.step_input))
    assert again == found.step_input
    assert proposals.decision_after_plan(again).decision == found.decision, "explain says the same"


def test_once_there_is_a_market_it_is_sold() -> None:
    stuck = judged(fired("LINK"))
    assert stuck.decision_result.blocked_exits
    found = judged(fired("LINK", pools=(*MARKET, SOUND)))
    assert found.plan is not None
    assert found.plan.is_exit
    assert not found.decision_result.blocked_exits
    assert dict(found.plan.holdings_after)[LINK.address] == 0


@pytest.mark.parametrize("health", [StrategyHealth.ACTIVE, StrategyHealth.PAUSED])
def test_strategies_go_on_and_exchange_inside_while_an_exit_of_one_is_stuck(health: StrategyHealth) -> None:
    made = fired("LINK", values={"WETH": 4_000, "WBTC": 2_000, "LINK": 2_000, "USDC": 2_000})
    one = strategy("calm", 5_000, {"WETH": 5_000, "LINK": 2_000, "USDC": 3_000})
    other = strategy("bold", 5_000, {"WETH": 3_000, "WBTC": 5_000, "LINK": 2_000})
    step = apply_effective_targets(brought_up(made.with_config(split(one, other)), None))
    books = step.layer(StrategiesState).books
    assert books is not None
    states = (
        tuple(replace(strategy, state=replace(strategy.state, health=health)) for strategy in books.strategy_books[:1])
        + books.strategy_books[1:]
    )
    step = step.with_layer(StrategiesState(replace(books, strategy_books=states)))
    found = judged(step)
    assert [stuck.token for stuck in found.decision_result.blocked_exits] == [LINK.address]
    assert found.kind is OutcomeKind.PLANNED
    assert LINK.address not in moved(found.plan)
    netting = found.decision_result.layer(StrategiesResult).netting
    assert netting is not None
    assert all(dict(wish.values_to_trade)[LINK.address] == 0 for wish in netting.adjustments)


def test_the_exit_by_itself_cannot_be_planned() -> None:
    """What every look would end with."""
    step = fired("LINK")
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)
    assert decision.is_exit
    with pytest.raises(NothingPlanned):
        plan(step, decision)


def test_orders_name_the_guard_that_refuses_an_exit() -> None:
    step = fired("LINK", pools=(*MARKET, OFF))
    stored = SimpleNamespace(orders_and_version=lambda: (step.history.orders.states, 1))
    desk = SimpleNamespace(store=SimpleNamespace(executions=SimpleNamespace(limit_orders=list), orders=stored))
    agent: Any = SimpleNamespace(step_input=lambda: step, plan=lambda: judged(step), context=desk)
    assert orders_document(step)["blocked_exits"] == []
    (line,) = standing_orders(agent)["blocked_exits"]
    assert mentions(line, "LINK", "oracle_deviation")


AGREED = v3_pool(LINK, USDC, 10, twap_price=10)
APART = v3_pool(LINK, USDC, 10, twap_price=8)
"""The feed of LINK says 10, its mean 8: not a mean that is late in a fall."""


def two_sources(*symbols: str, pools: tuple[Pool, ...], values: Mapping[str, Number] | None = None) -> StepInput:
    """Stops of these have fired, where a feed and a mean are compared."""
    step = fired(*symbols, pools=(*MARKET, *pools), values=values)
    return replace(step, reference=replace(step.reference, sources=(PriceSource.FEED, PriceSource.TWAP)))


def test_an_exit_is_sold_while_the_sources_of_another_asset_disagree() -> None:
    step = two_sources("WBTC", "LINK", pools=(SOUND, APART))
    found = judged(step)
    assert found.kind is OutcomeKind.PLANNED
    assert moved(found.plan) == {WBTC.address, USDC.address}
    assert mentions(found.reason, "nothing else is traded", "contradict", "LINK"), "the conflict is told"
    gone = tuple(replace(one, raw=0) if one.token == WBTC.address else one for one in step.snapshot.holdings)
    left = judged(replace(step, snapshot=replace(step.snapshot, holdings=gone)))
    assert left.kind is OutcomeKind.HALT
    assert "LINK" in left.reason, "LINK itself waits"


def test_an_exit_waits_while_the_sources_of_its_own_price_disagree() -> None:
    apart = v3_pool(WBTC, USDC, 60_000, twap_price=30_000)
    found = judged(two_sources("WBTC", pools=(SOUND, apart)))
    assert found.kind is OutcomeKind.HALT
    assert mentions(found.reason, "contradict", "WBTC")


def falling(feed: int, spot: int, mean: int, before: tuple[int, ...] = ()) -> StepInput:
    """A stop of WETH has fired; spot prices of its one pool, now and at the blocks before, newest first."""
    pools = tuple(v3_pool(WETH, USDC, price, 3_000_000, twap_price=mean) for price in (spot, *before))
    step = with_limits(fired("WETH", pools=(pools[0], MARKET[1], SOUND)), oracle_deviation_bps=100, price_impact_bps=100, slippage_bps=30)
    head, feeds = (
        step.snapshot.head,
        tuple(replace(one, answer=feed * 10**8) if one.answer == 2_000 * 10**8 else one for one in step.snapshot.feeds),
    )
    past = tuple(PastPrices(replace(head, number=head.number - n), feeds, (pool,)) for n, pool in enumerate(pools[1:], 1))
    sources = replace(step.reference, sources=(PriceSource.FEED, PriceSource.TWAP), uses_worse_source=True)
    return replace(step, reference=sources, snapshot=replace(step.snapshot, feeds=feeds, past_prices=past))


@pytest.mark.parametrize("mean", [2_019, 2_021, 2_100, 2_800])
def test_a_stop_is_sold_at_the_feed_in_a_fall_that_the_mean_alone_follows_late(mean: int) -> None:
    """2,021 is beyond oracle_deviation of 1 %: the stop no longer waits until the mean has followed."""
    found = judged(falling(2_000, 2_000, mean))
    assert found.kind is OutcomeKind.PLANNED, found.reason
    assert found.plan is not None, found.reason
    assert dict(found.plan.holdings_after)[WETH.address] == 0
    assert all(one.passed for one in found.plan.verdicts)
    market = reference_prices(found.step_input).price_by_token[WETH.address]
    leg = found.plan.legs[0]
    floor = fair_floor(leg.amount_in_raw, market, Fraction(1), leg.fee_pips, 100, 30)
    assert leg_floors(found.step_input, found.plan)[0] == floor <= leg.min_out_raw
    rebalance = judged(with_history(found.step_input, states=()))
    waits = rebalance.kind is OutcomeKind.HALT and "contradict" in rebalance.reason
    assert waits is (mean > 2_020), "nothing else is traded beyond the limit"


def late(step: StepInput) -> frozenset[str]:
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
def test_no_pool_that_is_pushed_and_no_feed_alone_makes_a_mean_late(feed: int, spot: int, mean: int, before: tuple[int, ...]) -> None:
    """A pool pushed below the feed, a feed that fell without the pools, or pools pushed to a false feed for a block or two: no sale."""
    step = falling(feed, spot, mean, before)
    assert late(step) == frozenset()
    found = judged(step)
    assert found.kind in (OutcomeKind.HALT, OutcomeKind.REFUSED)
    assert WETH.address not in (moved(found.plan) if found.plan else ())


def test_a_mean_is_late_only_beside_a_feed_that_comes_first() -> None:
    step = falling(2_000, 2_000, 2_100)
    assert late(step) == {WETH.address}
    for kinds in ((PriceSource.TWAP, PriceSource.FEED), (PriceSource.FEED,), (PriceSource.TWAP,)):
        assert late(replace(step, reference=replace(step.reference, sources=kinds))) == frozenset()
    assert late(with_limits(step, oracle_deviation_bps=None)) == frozenset()
    old = tuple(replace(one, updated_at_s=1) for one in step.snapshot.feeds)
    assert late(replace(step, snapshot=replace(step.snapshot, feeds=old))) == frozenset(), "a dead feed is no price"


@pytest.mark.parametrize("mean", [1_900, 2_100, 4_000])
def test_an_exit_is_sold_while_the_sources_of_the_native_coin_disagree(mean: int) -> None:
    """In a fall of everything the mean of the native coin is late too; whoever pushes it would hold every stop back."""
    apart = v3_pool(WETH, USDC, 2_000, twap_price=mean)
    found = judged(two_sources("WBTC", pools=(SOUND, apart)))
    assert found.kind is OutcomeKind.PLANNED
    assert moved(found.plan) == {WBTC.address, USDC.address}
    assert found.plan is not None
    assert all(one.passed for one in found.plan.verdicts)
    own = judged(two_sources("WETH", "WBTC", pools=(SOUND, apart)))
    assert own.kind is OutcomeKind.PLANNED
    assert own.decision_result.exit_token == (WBTC if mean < 2_000 else WETH).address, "in a fall WETH itself is sold at its feed"


def test_an_exit_through_a_hub_whose_sources_disagree_is_refused() -> None:
    """Its route is known to the guards alone."""
    step = two_sources("LINK", pools=(SOUND,))
    plan = judged(step).plan
    assert plan is not None
    through = replace(plan, legs=(replace(plan.legs[0], token_out=WBTC.address), *plan.legs[1:]))
    apart = v3_pool(WBTC, USDC, 60_000, twap_price=90_000)
    off = replace(step, snapshot=replace(step.snapshot, pools=(*step.snapshot.pools, apart)))
    assert WBTC.address not in (build_guard_case(off, plan, evidence(off, plan)).judged_tokens() or ())
    case = build_guard_case(off, plan, evidence(off, plan))
    assert WBTC.address in (replace(case, plan=through).judged_tokens() or ())


def test_a_rebalance_is_judged_by_the_sources_of_every_asset() -> None:
    found = judged(two_sources(pools=(SOUND, APART), values=HEAVY))
    assert found.kind is OutcomeKind.HALT
    assert mentions(found.reason, "contradict", "LINK")


def test_a_stale_feed_of_another_asset_refuses_no_exit() -> None:
    """LINK has its mean to fall back on."""
    step = two_sources("WBTC", pools=(SOUND, AGREED))
    old = tuple(replace(one, updated_at_s=1) if one.answer == 10 * 10**8 else one for one in step.snapshot.feeds)
    step = replace(step, snapshot=replace(step.snapshot, feeds=old))
    found = judged(step)
    assert found.kind is OutcomeKind.PLANNED
    assert moved(found.plan) == {WBTC.address, USDC.address}
    assert judged(two_sources("LINK", pools=(SOUND, AGREED))).kind is OutcomeKind.PLANNED
    alone = fired("LINK", pools=(*MARKET, SOUND, AGREED))
    alone = replace(alone, reference=step.reference, snapshot=replace(alone.snapshot, feeds=old))
    refused = judged(alone)
    assert refused.kind is OutcomeKind.REFUSED
    assert {one.guard for one in refused.refusal_verdicts if not one.passed} == {"feed_health"}


def test_the_end_of_a_bot_sells_what_a_conflict_of_other_prices_does_not_concern() -> None:
    step, sold = two_sources(pools=(SOUND, APART)), []
    while (outcome := evaluation.evaluate_input(step, requests.propose_selling_everything, Sees(), "abc")).plan is not None:
        if outcome.kind is not OutcomeKind.PLANNED:
            break
        sold.append(outcome.decision_result.exit_token)
        step = exclude_blocked_exits(outcome.step_input, [BlockedExit(sold[-1], "sold", "")])
    assert sold == [WETH.address, WBTC.address]
    assert any(one.token == LINK.address and ORACLE in one.why for one in outcome.decision_result.blocked_exits)
    removed = evaluation.evaluate_input(two_sources(pools=(SOUND, APART)), requests.sell_out_proposer(WBTC.address), Sees(), "abc")
    assert removed.kind is OutcomeKind.PLANNED
    assert moved(removed.plan) == {WBTC.address, USDC.address}
    held = evaluation.evaluate_input(two_sources(pools=(SOUND, APART)), requests.sell_out_proposer(LINK.address), Sees(), "abc")
    assert held.kind is OutcomeKind.HALT


def test_a_stop_fires_while_the_sources_of_another_asset_disagree() -> None:
    def stages(pools: tuple[Pool, ...]) -> dict[str, OrderStage]:
        step = two_sources(pools=pools)
        symbols = {"WBTC": (90_000, 80_000), "LINK": (20, 15)}
        wished = tuple(terms(symbol, STOP, level) for symbol, (_, level) in symbols.items())
        armed = tuple(
            ConditionalOrder(one.token, STOP, OrderStage.ARMED, one, 1, price_of(symbol, high), None, price_of(symbol, high))
            for one, (symbol, (high, _)) in zip(wished, symbols.items(), strict=True)
        )
        portfolio = replace(step.portfolio, orders=OrdersConfig(wished))
        policy = replace(step.policy, confirm_blocks=0)
        found = apply_orders(replace(with_history(step, states=armed), policy=policy, portfolio=portfolio))
        return {one.token: one.stage for one in found.history.orders.states}

    assert stages((SOUND, AGREED)) == {WBTC.address: FIRED, LINK.address: FIRED}
    assert stages((SOUND, APART)) == {WBTC.address: FIRED, LINK.address: OrderStage.ARMED}


def test_an_exit_is_due_as_long_as_it_would_be_sold() -> None:
    """Also beside an asset without a price, or one whose sources disagree."""
    disagreeing = two_sources("WBTC", pools=(SOUND, APART))
    assert mentions(decide(disagreeing).decision.reason, "nothing else is traded", "contradict", "LINK")
    assert [is_exit_due(step) for step in (fired("WBTC"), unpriced("WBTC"), disagreeing)] == [True] * 3
    assert not is_exit_due(fired())
    sold = fired("WBTC", values={"WETH": 5_000, "WBTC": 0, "LINK": 2_000, "USDC": 3_000})
    assert not is_exit_due(sold)


def test_an_exit_is_sold_while_another_asset_has_no_price() -> None:
    for symbols in (("WBTC",), ("LINK", "WBTC")):
        found = judged(unpriced(*symbols))
        assert found.kind is OutcomeKind.PLANNED
        assert moved(found.plan) == {WBTC.address, USDC.address}
        assert mentions(found.reason, "nothing else is traded", "LINK", "no reference price")
        again = codec.loads(StepInput, codec.dumps(found.step_input))
        assert evaluation.evaluate_input_once(again, proposals.propose_rebalance, Sees(), "abc").plan == found.plan, (
            "a replay plans the same"
        )


def test_an_asset_without_a_price_counts_as_nothing_where_losses_are_compared() -> None:
    step = with_limits(unpriced("WBTC"), daily_loss_bps=100)
    lost = with_history(step, loss_24h=Fraction(85 * 10**6))
    assert judged(lost).kind is OutcomeKind.REFUSED, "one per cent of 8,000, not of 10,000"
    assert judged(with_history(step, loss_24h=Fraction(60 * 10**6))).kind is OutcomeKind.PLANNED


def test_where_the_exit_is_refused_nothing_is_bought_while_a_price_is_missing() -> None:
    """The portfolio without the unpriced asset is for exits alone."""
    values = {"WETH": 5_000, "WBTC": 1_000, "LINK": 2_000, "USDC": 2_000}
    step = unpriced("WBTC", values=values)
    dear = replace(step, snapshot=replace(step.snapshot, pools=(MARKET[0], DEAR, SOUND)))
    found = judged(dear)
    assert found.kind is OutcomeKind.HALT
    assert mentions(found.reason, "LINK", "no reference price", "WBTC")
    again = codec.loads(StepInput, codec.dumps(found.step_input))
    assert isinstance(decide(again).decision, Halt), "nor in a replay"


def test_without_a_price_of_its_own_or_of_gas_no_exit_is_sold() -> None:
    assert judged(unpriced("LINK")).kind is OutcomeKind.HALT
    step = fired("WBTC", pools=(*MARKET, SOUND))
    feeds = tuple(one for one in step.snapshot.feeds if one.answer != 2_000 * 10**8)
    assert judged(replace(step, snapshot=replace(step.snapshot, feeds=feeds))).kind is OutcomeKind.HALT


def test_a_missing_price_still_halts_every_rebalance() -> None:
    found = judged(unpriced(values=HEAVY))
    assert found.kind is OutcomeKind.HALT
    assert mentions(found.reason, "LINK", "no reference price")


def test_the_end_of_a_bot_sells_everything_that_has_a_price() -> None:
    step, sold = unpriced(), []
    while (outcome := evaluation.evaluate_input(step, requests.propose_selling_everything, Sees(), "abc")).kind is OutcomeKind.PLANNED:
        sold.append(outcome.decision_result.exit_token)
        held = tuple(replace(one, raw=0) if one.token in sold else one for one in step.snapshot.holdings)
        step = replace(step, snapshot=replace(step.snapshot, holdings=held))
    assert sold == [WETH.address, WBTC.address]
    assert outcome.kind is OutcomeKind.REFUSED
    assert mentions(outcome.reason, "LINK", "price")


def test_an_order_that_contradicts_its_price_halts_no_exit() -> None:
    """Neither the exit of another asset nor, once its stop has fired, that of its own."""
    for symbol, kind, level in (("WBTC", STOP, 70_000), ("LINK", OrderKind.TAKE_PROFIT, 5)):
        step, wrong = fired("LINK", pools=(*MARKET, SOUND), values=HEAVY), terms(symbol, kind, level)
        waiting = ConditionalOrder(wrong.token, kind, OrderStage.WAITING, wrong, 1)
        book = OrdersConfig((*step.portfolio.orders.terms, wrong))
        orders = (*step.history.orders.states, waiting)
        step = apply_orders(replace(with_history(step, states=orders), portfolio=replace(step.portfolio, orders=book)))
        found = judged(step)
        assert found.kind is OutcomeKind.PLANNED
        assert moved(found.plan) == {LINK.address, USDC.address}
        assert mentions(found.reason, "nothing else is traded", "contradicts the price", symbol)
        gone = tuple(replace(one, raw=0) if one.token == LINK.address else one for one in step.snapshot.holdings)
        assert judged(replace(step, snapshot=replace(step.snapshot, holdings=gone))).kind is OutcomeKind.HALT, "purchases wait"
        sold = evaluation.evaluate_input(step, requests.sell_out_proposer(WBTC.address), Sees(), "abc")
        assert sold.kind is OutcomeKind.PLANNED
        assert moved(sold.plan) == {WBTC.address, USDC.address}


def hidden(step: StepInput, *more: Holding) -> StepInput:
    """The balance of WBTC is not read, or read as these."""
    held = tuple(one for one in step.snapshot.holdings if one.token != WBTC.address)
    return replace(step, snapshot=replace(step.snapshot, holdings=(*held, *more)))


@pytest.mark.parametrize("answers", [(), (5, 6)])
def test_an_exit_is_sold_while_the_balance_of_another_asset_is_unknown(answers: tuple[int, ...]) -> None:
    """Its token would halt every stop by hiding its balance now and then."""
    more = [Holding(WBTC.address, raw) for raw in answers]
    pools = (*MARKET, SOUND, v2_pool(LINK, WBTC, Fraction(10, 59_000), 50_000_000))
    found = judged(hidden(fired("LINK", "WBTC", pools=pools), *more))
    assert found.kind is OutcomeKind.PLANNED
    assert moved(found.plan) == {LINK.address, USDC.address}, "nor sold through it"
    assert mentions(found.reason, "nothing else is traded", "balance of WBTC")
    again = codec.loads(StepInput, codec.dumps(found.step_input))
    assert evaluation.evaluate_input_once(again, proposals.propose_rebalance, Sees(), "abc").plan == found.plan, "a replay plans the same"
    assert judged(hidden(fired(values=HEAVY, pools=pools), *more)).kind is OutcomeKind.HALT, "purchases wait"
    assert judged(hidden(fired("WBTC", pools=pools), *more)).kind is OutcomeKind.HALT
    ended = evaluation.evaluate_input(hidden(fired(pools=pools), *more), requests.propose_selling_everything, Sees(), "abc")
    assert ended.kind is OutcomeKind.PLANNED
    assert ended.decision_result.exit_token == WETH.address
    numeraire = fired("LINK", pools=pools)
    held = tuple(one for one in numeraire.snapshot.holdings if one.token != USDC.address)
    assert judged(replace(numeraire, snapshot=replace(numeraire.snapshot, holdings=held))).kind is OutcomeKind.HALT


def test_a_blocked_exit_without_a_price_refuses_no_other_exit() -> None:
    step = exclude_blocked_exits(fired("LINK", "WBTC", pools=(*MARKET, SOUND)), [BlockedExit(LINK.address, "it reverted", "")])
    feeds = tuple(one for one in step.snapshot.feeds if one.answer != 10 * 10**8)
    found = judged(replace(step, snapshot=replace(step.snapshot, feeds=feeds)))
    assert found.kind is OutcomeKind.PLANNED
    assert moved(found.plan) == {WBTC.address, USDC.address}


@pytest.mark.timeout(120)
def test_the_sale_of_everything_through_dear_pools_ends() -> None:
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
    outcome = evaluation.evaluate_input(step, requests.propose_selling_everything, Sees())
    assert outcome.kind is OutcomeKind.HOLD
    assert mentions(outcome.reason, "nothing more can be sold", "WBTC stays")
