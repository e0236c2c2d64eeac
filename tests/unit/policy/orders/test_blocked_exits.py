"""An exit that cannot be done: it is said with its remedy, and everything else goes on, other exits, liquidity and rebalancing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from agent import codec
from agent.app.alerting import RunFacts, cycle_alerts
from agent.app.positions.orders import orders_document, standing_orders
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome
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
    OrderTerms,
    PastPrices,
    Pool,
    PriceSource,
    StepInput,
    TokenRefusal,
)
from agent.planning import planner, proposals, requests
from agent.planning.planner import NothingPlanned
from agent.planning.proposals import Proposer
from agent.policy.decide import decide, is_exit_due
from agent.policy.orders.blocked_exits import exclude_blocked_exits
from agent.policy.orders.exits import apply_orders
from agent.reference import late_twap_tokens, price_inputs, reference_prices
from agent.reference.floors import fair_floor
from agent.units import Token, format_time
from agent.venues.composer import leg_floors
from tests.support.builders import (
    ETHER,
    NOW_S,
    Number,
    brought_up,
    split,
    step_input,
    strategy,
    v2_pool,
    v3_pool,
    with_feed,
    with_history,
    with_limits,
    with_snapshot,
    without_feed,
)
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
from tests.support.decisions.native_coin import native_step
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.lp_worlds import lp_target, quiet, ranged, world
from tests.support.plans import assert_refused, evidence, verdict
from tests.support.standing_orders import price_of, terms
from tests.support.text import blocked, mentions

ORACLE = "oracle_deviation"
AGREED = v3_pool(LINK, USDC, 10, twap_price=10)
APART = v3_pool(LINK, USDC, 10, twap_price=8)
"""The feed of LINK says 10, its mean 8: not a mean that is late in a fall."""
BOTH_SOURCES = (PriceSource.FEED, PriceSource.TWAP)


def evaluated(step: StepInput, propose: Proposer = proposals.propose_rebalance, **evidence_fields: Any) -> StepOutcome:
    return evaluation.evaluate_input(step, propose, FakeEvidenceSource(**evidence_fields), "abc")


def assert_sells(outcome: StepOutcome, token: Token) -> None:
    """Require a plan that sells this token for USDC, and trades nothing else."""
    assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
    assert sold_symbols(outcome.plan) == {token.address, USDC.address}


def assert_halts(outcome: StepOutcome, *words: str) -> None:
    """Require a halt whose reason mentions each of the words."""
    assert outcome.kind is OutcomeKind.HALT, outcome.reason
    assert mentions(outcome.reason, *words), outcome.reason


def assert_replayed(outcome: StepOutcome) -> None:
    """Require that the recorded step plans the same."""
    step = codec.loads(StepInput, codec.dumps(outcome.step_input))
    assert evaluation.evaluate_input_once(step, proposals.propose_rebalance, FakeEvidenceSource(), "abc").plan == outcome.plan


def raw_after(outcome: StepOutcome, token: Token) -> int:
    return dict(outcome.plan.holdings_after)[token.address]


def with_balances(step: StepInput, raw_by_token: Mapping[str, int]) -> StepInput:
    """Return the step whose wallet has these balances."""
    return with_snapshot(
        step, holdings=tuple(replace(holding, raw=raw_by_token.get(holding.token, holding.raw)) for holding in step.snapshot.holdings)
    )


def two_sources(*symbols: str, pools: tuple[Pool, ...], values: Mapping[str, Number] | None = None) -> StepInput:
    """Return a step in which stops of these have fired, where a feed and a mean are compared."""
    step = step_with_stops(*symbols, pools=(*MARKET, *pools), values=values)
    return replace(step, reference=replace(step.reference, sources=BOTH_SOURCES))


# --- An exit without a market, or whose pool is refused


def test_stop_without_a_market_holds_nothing_else_up() -> None:
    outcome = outcome_of(step_with_stops("LINK", values=HEAVY))
    assert outcome.kind is OutcomeKind.PLANNED
    assert sold_symbols(outcome.plan) <= {WETH.address, WBTC.address, USDC.address}
    assert mentions(outcome.reason, "WETH", "62.5 %")
    assert blocked(outcome) == [LINK.address]
    assert "usable pool" in outcome.reason
    assert "trimtab orders disarm LINK" in outcome.reason
    assert outcome.step_input.history.orders.states[0].stage is FIRED, "it is tried again at each look"


def test_blocked_exit_counts_neither_in_total_nor_in_weights() -> None:
    outcome = outcome_of(step_with_stops("LINK", values=HEAVY))
    raw_before = {holding.token: holding.raw for holding in outcome.step_input.snapshot.holdings}
    weights = dict(outcome.plan.weights_after_bps)
    expected_bps = {WETH.address: 3_750, WBTC.address: 3_750, USDC.address: 2_500}
    assert raw_after(outcome, LINK) == raw_before[LINK.address]
    assert all(abs(weights[token] - bps) < 10 for token, bps in expected_bps.items()), "of the 80 that are left: no cash is raised for it"
    assert weights[LINK.address] == 0
    assert [item.why for item in outcome.plan.skipped if item.subject == "token LINK"] != []


@pytest.mark.parametrize(
    ("pools", "words"),
    [
        pytest.param((MARKET[0], SOUND), ("stop_loss", "LINK"), id="without a market"),
        pytest.param((MARKET[0], DEAR, SOUND), ("WBTC", ORACLE), id="refused for its pool"),
    ],
)
def test_exit_refused_for_its_pool_holds_back_only_its_asset(pools: tuple[Pool, ...], words: tuple[str, ...]) -> None:
    outcome = outcome_of(step_with_stops("LINK", "WBTC", pools=pools))
    assert_sells(outcome, LINK)
    assert outcome.plan.is_exit
    assert raw_after(outcome, LINK) == 0
    assert blocked(outcome) == [WBTC.address]
    assert mentions(outcome.reason, *words)
    assert all(verdict.passed for verdict in outcome.plan.verdicts)


def test_exit_refused_for_its_pool_lets_a_rebalance_go_on() -> None:
    outcome = outcome_of(step_with_stops("LINK", values=HEAVY, pools=(*MARKET, OFF)))
    assert outcome.kind is OutcomeKind.PLANNED
    assert LINK.address not in sold_symbols(outcome.plan)


def test_exits_are_plans_of_their_own_in_portfolio_order() -> None:
    step = step_with_stops("LINK", "WBTC", "WETH", pools=(*MARKET, SOUND))
    reasons = []
    for token in (WETH, WBTC, LINK):
        outcome = outcome_of(step)
        assert_sells(outcome, token)
        assert outcome.decision_result.exit_token == token.address
        assert not outcome.decision_result.blocked_exits
        reasons.append(outcome.reason.rpartition("; ")[2])
        step = with_balances(step, dict(outcome.plan.holdings_after))
    assert outcome_of(step).plan is None or not outcome_of(step).plan.is_exit
    assert reasons[:2] == [
        "WETH is sold first, then WBTC, LINK, each in its own transaction", "WBTC is sold first, then LINK, each in its own transaction",
    ]  # fmt: skip
    assert "in its own" not in reasons[2]


@pytest.mark.parametrize(
    ("refusals", "first"),
    [
        pytest.param({WETH: 2, WBTC: 1}, LINK, id="never"),
        pytest.param({WBTC: 2, WETH: 2, LINK: 3}, WETH, id="as often as another"),
    ],
)
def test_exit_that_was_refused_less_often_goes_first(refusals: dict[Token, int], first: Token) -> None:
    step = step_with_stops("LINK", "WBTC", "WETH", pools=(*MARKET, SOUND))
    refused = tuple(TokenRefusal(token.address, 1, count, "no") for token, count in refusals.items())
    assert outcome_of(with_history(step, submission_refusals=refused)).decision_result.exit_token == first.address


@pytest.mark.parametrize(
    ("ago_s", "count", "time_text"),
    [
        pytest.param(10, 3, "in the next cycle", id="last free retry"),
        pytest.param(599, 4, f"from {format_time(NOW_S + 1)} on", id="a second before its back-off ends"),
        pytest.param(600, 4, "in the next cycle", id="back-off has ended"),
        pytest.param(-1, 4, "in the next cycle", id="refused in the future"),
    ],
)
def test_orders__say_when_an_exit_behind_another_is_retried(ago_s: int, count: int, time_text: str) -> None:
    """WETH goes first, since WBTC was refused more often; of WBTC the document says its own time."""
    step = step_with_stops("WBTC", "WETH", pools=(*MARKET, SOUND))
    refused_s = step.snapshot.head.timestamp_s - ago_s
    step = with_history(step, submission_refusals=(TokenRefusal(WBTC.address, refused_s, count, "the token refused the transfer"),))
    (line,) = orders_document(step)["blocked_exits"]
    assert f"; it is retried {time_text};" in line


def test_blocked_exit_alone_is_a_hold() -> None:
    outcome = outcome_of(step_with_stops("LINK"))
    assert outcome.kind is OutcomeKind.HOLD
    assert isinstance(outcome.decision, Hold)
    assert blocked(outcome) == [LINK.address]
    assert mentions(outcome.reason, "closest", "bands", "LINK")


def with_fired_stop(step: StepInput, stop: OrderTerms, base_price: Fraction, event_price: Fraction) -> StepInput:
    """Return the step after a stop has fired at this price, or value per share."""
    order = ConditionalOrder(stop.token, STOP, FIRED, stop, 1, base_price, None, event_price)
    return replace(with_history(step, states=(order,)), portfolio=replace(step.portfolio, orders=OrdersConfig((stop,))))


def test_portfolio_stop_with_nothing_sellable_holds() -> None:
    step = step_with_stops(values={"WETH": 0, "WBTC": 0, "LINK": 2_000, "USDC": 0})
    outcome = outcome_of(apply_orders(with_fired_stop(step, terms("", STOP, None, 2_000), Fraction(1), Fraction(1, 2))))
    assert outcome.kind is OutcomeKind.HOLD
    assert "nothing else" in outcome.reason
    assert "trimtab orders disarm portfolio" in outcome.reason


def test_liquidity_is_withdrawn_while_the_wallet_part_is_blocked() -> None:
    step = world([ranged(2_000, 1_600, 2_500)], [lp_target(2_000)], trigger=quiet())
    step = with_fired_stop(step, terms("WETH", STOP, 2_100), price_of("WETH", 2_500), price_of("WETH", 2_000))
    step = apply_orders(with_limits(step, pool_min_value=Fraction(10**18)))
    assert decide(step).decision.is_exit, "the wallet's part would go first"
    proposal = proposals.propose_rebalance(step)
    assert isinstance(proposal.decision_result.decision, AdjustLiquidity)
    assert proposal.plan.layer_actions
    assert blocked(proposal.decision_result) == [WETH.address]


@pytest.mark.parametrize("others", [(DEAR, MARKET[0]), (MARKET[0],)], ids=["pushed", "drained"])
def test_exit_is_not_held_up_by_the_pool_of_another_asset(others: tuple[Pool, ...]) -> None:
    """What is not traded needs no price in a pool."""
    outcome = outcome_of(step_with_stops("LINK", pools=(*others, SOUND)))
    assert_sells(outcome, LINK)
    rebalance = replace(outcome.plan, decision=replace(outcome.plan.decision, is_exit=False))
    assert_refused(verdict(ORACLE, outcome.step_input, rebalance), "WBTC")


def test_refused_exit__unknown_day__advises_no_higher_limit() -> None:
    step = with_history(step_with_stops("LINK", pools=(*MARKET, SOUND)), unknown_reason="block 7 cannot be read")
    refused = evaluation.evaluate_input_once(step, proposals.propose_rebalance, FakeEvidenceSource(), "abc")
    exit_ = evaluation.refused_exit(refused)
    assert "daily_loss measured unknown: block 7" in exit_.why
    assert exit_.remedy == "a higher limit does not help; see the message"


def test_refused_exit_is_none_once_it_is_excluded() -> None:
    step = step_with_stops("LINK", pools=(*MARKET, OFF))
    refused = evaluation.evaluate_input_once(step, proposals.propose_rebalance, FakeEvidenceSource(), "abc")
    exit_ = evaluation.refused_exit(refused)
    assert (refused.kind, exit_.token) == (OutcomeKind.REFUSED, LINK.address)
    assert evaluation.refused_exit(replace(refused, step_input=exclude_blocked_exits(refused.step_input, [exit_]))) is None


def test_refusal_for_the_whole_wallet_blocks_no_exit() -> None:
    outcome = evaluated(step_with_stops("WBTC"), paused=True, pause_reason="by hand")
    assert (outcome.kind, outcome.decision_result.blocked_exits) == (OutcomeKind.REFUSED, ())


def test_refusal_beside_a_blocked_exit_names_the_exit_too() -> None:
    outcome = outcome_of(step_with_stops("LINK", values=HEAVY, pools=(v2_pool(WETH, WBTC, "1/30", 1),)))
    assert outcome.kind is OutcomeKind.REFUSED
    assert "LINK" in outcome.reason
    assert blocked(outcome) == [LINK.address]


def test_limit_order_may_sell_beside_a_blocked_exit() -> None:
    order = LimitOrder("o", WETH.address, USDC.address, 10**17, Fraction(1_000, 10**12), 2_000_000_000, 1)
    proposal = proposals.orders_proposer((order,))(step_with_stops("LINK"))
    assert proposal.decision_result.filled_order_id == "o"
    assert proposal.plan is not None
    assert blocked(proposal.decision_result) == [LINK.address], "it is named all the same"


def test_limit_order_may_sell_a_token_whose_exit_is_blocked() -> None:
    order = LimitOrder("o", LINK.address, USDC.address, 10**18, Fraction(1, 10**12), 2_000_000_000, 1)
    dear = with_limits(step_with_stops("LINK", pools=(*MARKET, SOUND)), plan_cost_bps=1)
    propose = proposals.single_order_proposer(order)
    assert sold_symbols(propose(dear).plan) == {LINK.address, USDC.address}
    first = propose(with_limits(dear, plan_cost_bps=200))
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
    assert (alert.kind, alert.is_lasting) == (AlertKind.ORDER, True)
    assert mentions(alert.text, "LINK", "order")
    assert "trimtab orders disarm LINK" in alert.text
    again = codec.loads(StepInput, codec.dumps(outcome.step_input))
    assert again == outcome.step_input
    assert proposals.decision_after_plan(again).decision == outcome.decision, "explain says the same"


def test_blocked_exit_is_sold_once_there_is_a_market() -> None:
    assert outcome_of(step_with_stops("LINK")).decision_result.blocked_exits
    outcome = outcome_of(step_with_stops("LINK", pools=(*MARKET, SOUND)))
    assert outcome.plan.is_exit
    assert not outcome.decision_result.blocked_exits
    assert raw_after(outcome, LINK) == 0


@pytest.mark.parametrize("health", [StrategyHealth.ACTIVE, StrategyHealth.PAUSED])
def test_strategies_go_on_while_an_exit_is_blocked(health: StrategyHealth) -> None:
    calm = strategy("calm", 5_000, {"WETH": 5_000, "LINK": 2_000, "USDC": 3_000})
    bold = strategy("bold", 5_000, {"WETH": 3_000, "WBTC": 5_000, "LINK": 2_000})
    step = step_with_stops("LINK", values={"WETH": 4_000, "WBTC": 2_000, "LINK": 2_000, "USDC": 2_000})
    step = apply_effective_targets(brought_up(step.with_config(split(calm, bold)), None))
    books = step.layer(StrategiesState).books
    first, *others = books.strategy_books
    first = replace(first, state=replace(first.state, health=health))
    outcome = outcome_of(step.with_layer(StrategiesState(replace(books, strategy_books=(first, *others)))))
    assert blocked(outcome) == [LINK.address]
    assert outcome.kind is OutcomeKind.PLANNED
    assert LINK.address not in sold_symbols(outcome.plan)
    netting = outcome.decision_result.layer(StrategiesResult).netting
    assert all(dict(wish.values_to_trade)[LINK.address] == 0 for wish in netting.adjustments)


def test_exit_without_a_market_cannot_be_planned_by_itself() -> None:
    """What every look would end with."""
    step = step_with_stops("LINK")
    decision = decide(step).decision
    assert decision.is_exit
    with pytest.raises(NothingPlanned):
        planner.plan(step, decision)


def test_orders_name_the_guard_that_refuses_an_exit() -> None:
    step = step_with_stops("LINK", pools=(*MARKET, OFF))
    stored = SimpleNamespace(orders_and_version=lambda: (step.history.orders.states, 1))
    executions = SimpleNamespace(open_limit_orders=list)
    proposals = SimpleNamespace(proposal_blocks=dict)
    desk = SimpleNamespace(store=SimpleNamespace(executions=executions, orders=stored, proposals=proposals))
    agent: Any = SimpleNamespace(step_input=lambda: step, plan=lambda: outcome_of(step), context=desk)
    assert orders_document(step)["blocked_exits"] == []
    (line,) = standing_orders(agent)["blocked_exits"]
    assert mentions(line, "LINK", ORACLE)


# --- Sources that contradict each other


def test_exit_is_sold_while_sources_of_another_asset_disagree() -> None:
    step = two_sources("WBTC", "LINK", pools=(SOUND, APART))
    outcome = outcome_of(step)
    assert outcome.kind is OutcomeKind.PLANNED
    assert sold_symbols(outcome.plan) == {WBTC.address, USDC.address}
    assert mentions(outcome.reason, "nothing else is traded", "contradict", "LINK"), "the conflict is named"
    assert_halts(outcome_of(with_balances(step, {WBTC.address: 0})), "LINK")


def assert_sold_whole_at_its_feed(outcome: StepOutcome) -> None:
    """Require that all WETH is sold, with a floor of its reference price, which every guard passes."""
    assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
    assert raw_after(outcome, WETH) == 0
    assert all(verdict.passed for verdict in outcome.plan.verdicts)
    market = reference_prices(outcome.step_input).price_by_token[WETH.address]
    leg = outcome.plan.legs[0]
    floor = fair_floor(leg.amount_in_raw, market, Fraction(1), leg.fee_pips, 100, 30)
    assert leg_floors(outcome.step_input, outcome.plan)[0] == floor <= leg.min_out_raw


def step_in_a_fall(feed: int, spot: int, mean: int, before: tuple[int, ...] = (), oracle_deviation_bps: int = 100) -> StepInput:
    """Return a step in which a stop of WETH has fired; spot prices of its one pool, now and at the blocks before, newest first."""
    pools = tuple(v3_pool(WETH, USDC, price, 3_000_000, twap_price=mean) for price in (spot, *before))
    step = with_feed(step_with_stops("WETH", pools=(pools[0], MARKET[1], SOUND)), "WETH", answer=feed * 10**8)
    step = with_limits(step, oracle_deviation_bps=oracle_deviation_bps, price_impact_bps=100, slippage_bps=30)
    head = step.snapshot.head
    past = tuple(PastPrices(replace(head, number=head.number - n), step.snapshot.feeds, (pool,)) for n, pool in enumerate(pools[1:], 1))
    reference = replace(step.reference, sources=BOTH_SOURCES, uses_worse_source=True)
    return with_snapshot(replace(step, reference=reference), past_prices=past)


@pytest.mark.parametrize("mean", [2_025, 2_029])
def test_stop_is_sold_whole_while_the_mean_follows_late(mean: int) -> None:
    """Nobody pays the mean any more: as the floor of an exit it would hold the stop until the fall ends."""
    assert_sold_whole_at_its_feed(outcome_of(step_in_a_fall(2_000, 2_000, mean, oracle_deviation_bps=150)))


@pytest.mark.parametrize(("mean", "halts"), [(2_019, False), (2_021, True), (2_100, True), (2_800, True)])
def test_stop_is_sold_at_the_feed_while_only_the_mean_is_late(mean: int, halts: bool) -> None:
    """2,021 is beyond oracle_deviation of 1 %: the stop no longer waits until the mean has followed, and nothing else is traded."""
    outcome = outcome_of(step_in_a_fall(2_000, 2_000, mean))
    assert_sold_whole_at_its_feed(outcome)
    rebalance = outcome_of(with_history(outcome.step_input, states=()))
    assert (rebalance.kind is OutcomeKind.HALT and "contradict" in rebalance.reason) is halts


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
    outcome = outcome_of(step)
    assert late_tokens(step) == frozenset()
    assert outcome.kind in (OutcomeKind.HALT, OutcomeKind.REFUSED)
    assert WETH.address not in (sold_symbols(outcome.plan) if outcome.plan else ())


IN_A_FALL = step_in_a_fall(2_000, 2_000, 2_100)


@pytest.mark.parametrize(
    ("step", "late"),
    [
        pytest.param(IN_A_FALL, {WETH.address}, id="feed first"),
        *[
            pytest.param(replace(IN_A_FALL, reference=replace(IN_A_FALL.reference, sources=sources)), frozenset(), id=name)
            for name, sources in (("mean first", BOTH_SOURCES[::-1]), ("feed alone", BOTH_SOURCES[:1]), ("mean alone", BOTH_SOURCES[1:]))
        ],
        pytest.param(with_limits(IN_A_FALL, oracle_deviation_bps=None), frozenset(), id="no limit"),
        pytest.param(with_feed(IN_A_FALL, "WETH", updated_at_s=1), frozenset(), id="dead feed"),
    ],
)
def test_mean_is_late_only_beside_a_feed_that_comes_first(step: StepInput, late: frozenset[str]) -> None:
    assert late_tokens(step) == late


@pytest.mark.parametrize(("mean", "exit_token"), [(1_900, WBTC), (2_100, WETH), (4_000, WETH)])
def test_exit_is_sold_while_sources_of_native_coin_disagree(mean: int, exit_token: Token) -> None:
    """In a fall of everything the mean of the native coin is late too, and WETH itself is sold at its feed; whoever pushes it would
    hold every stop back.
    """
    pools = (SOUND, v3_pool(WETH, USDC, 2_000, twap_price=mean))
    outcome = outcome_of(two_sources("WBTC", pools=pools))
    assert_sells(outcome, WBTC)
    assert all(verdict.passed for verdict in outcome.plan.verdicts)
    own = outcome_of(two_sources("WETH", "WBTC", pools=pools))
    assert (own.kind, own.decision_result.exit_token) == (OutcomeKind.PLANNED, exit_token.address)


def test_exit_through_a_hub_is_judged_by_the_hub_too() -> None:
    """Its route is known to the guards alone."""
    step = two_sources("LINK", pools=(SOUND,))
    plan = outcome_of(step).plan
    through = replace(plan, legs=(replace(plan.legs[0], token_out=WBTC.address), *plan.legs[1:]))
    off = with_snapshot(step, pools=(*step.snapshot.pools, v3_pool(WBTC, USDC, 60_000, twap_price=90_000)))
    case = build_guard_case(off, plan, evidence(off, plan))
    assert WBTC.address not in (case.judged_tokens() or ())
    assert WBTC.address in (replace(case, plan=through).judged_tokens() or ())


def test_exit_is_not_refused_for_a_stale_feed_of_another_asset() -> None:
    """LINK has its mean to fall back on."""
    assert_sells(outcome_of(with_feed(two_sources("WBTC", pools=(SOUND, AGREED)), "LINK", updated_at_s=1)), WBTC)
    assert outcome_of(two_sources("LINK", pools=(SOUND, AGREED))).kind is OutcomeKind.PLANNED
    refused = outcome_of(with_feed(two_sources("LINK", pools=(SOUND, AGREED)), "LINK", updated_at_s=1))
    assert refused.kind is OutcomeKind.REFUSED
    assert {verdict.guard for verdict in refused.refusal_verdicts if not verdict.passed} == {"feed_health"}


def test_selling_everything_skips_only_assets_in_conflict() -> None:
    step = two_sources(pools=(SOUND, APART))
    for token in (WETH, WBTC):
        outcome = evaluated(step, requests.propose_selling_everything)
        assert (outcome.kind, outcome.decision_result.exit_token) == (OutcomeKind.PLANNED, token.address)
        step = exclude_blocked_exits(outcome.step_input, [BlockedExit(token.address, "sold", "")])
    outcome = evaluated(step, requests.propose_selling_everything)
    assert outcome.kind is not OutcomeKind.PLANNED
    assert any(exit_.token == LINK.address and ORACLE in exit_.why for exit_ in outcome.decision_result.blocked_exits)
    without_cash = exclude_blocked_exits(with_balances(step, {USDC.address: 0}), [BlockedExit(LINK.address, "its pools disagree", "")])
    outcome = evaluated(without_cash, requests.propose_selling_everything)
    assert mentions(outcome.reason, requests.SOLD_OUT_TEXT, "LINK", "its pools disagree")


KEPT_WEI = ETHER * 18 // 100
"""Native coin of which 0.02 are the floor, and 0.16 pay a step of two million gas."""


@pytest.mark.parametrize(
    ("native_wei", "wrapped_usd", "is_kept"),
    [
        pytest.param(KEPT_WEI, 0, True, id="nothing beyond the gas of a step"),
        pytest.param(KEPT_WEI, 1, True, id="dust of wrapped coin"),
        pytest.param(KEPT_WEI, 100, False, id="wrapped coin"),
        pytest.param(ETHER, 0, False, id="more than the gas of a step"),
    ],
)
def test_exit_of_native_coin_names_the_gas_that_keeps_it(native_wei: int, wrapped_usd: int, is_kept: bool) -> None:
    step = native_step(
        native_wei, wrapped_usd, 5_000, native_floor_wei=ETHER // 50, gas_price_wei=None, plan_cost_bps=None, min_trade=Fraction(10**7)
    )
    head = replace(step.snapshot.head, base_fee_wei=40 * 10**9)
    step = with_snapshot(step, head=head, priority_fee_wei=0)

    outcome = evaluated(step, requests.sell_out_proposer(WETH.address))

    assert (outcome.kind is OutcomeKind.PLANNED) is not is_kept
    assert ("is kept for gas, which may cost 80 gwei now" in outcome.reason) is is_kept


def test_selling_out_needs_only_its_own_price() -> None:
    step = two_sources(pools=(SOUND, APART))
    assert_sells(evaluated(step, requests.sell_out_proposer(WBTC.address)), WBTC)
    assert evaluated(step, requests.sell_out_proposer(LINK.address)).kind is OutcomeKind.HALT


@pytest.mark.parametrize(("link_pool", "link_stage"), [(AGREED, FIRED), (APART, OrderStage.ARMED)], ids=["agree", "disagree"])
def test_stop_fires_while_sources_of_another_asset_disagree(link_pool: Pool, link_stage: OrderStage) -> None:
    step = two_sources(pools=(SOUND, link_pool))
    wbtc, link = (terms(symbol, STOP, level) for symbol, level in (("WBTC", 80_000), ("LINK", 15)))
    armed = tuple(
        ConditionalOrder(stop.token, STOP, OrderStage.ARMED, stop, 1, price_of(symbol, high), None, price_of(symbol, high))
        for stop, symbol, high in ((wbtc, "WBTC", 90_000), (link, "LINK", 20))
    )
    portfolio = replace(step.portfolio, orders=OrdersConfig((wbtc, link)))
    step = replace(with_history(step, states=armed), policy=replace(step.policy, confirm_blocks=0), portfolio=portfolio)
    stages = {order.token: order.stage for order in apply_orders(step).history.orders.states}
    assert stages == {WBTC.address: FIRED, LINK.address: link_stage}


def test_exit_is_due_as_long_as_it_would_be_sold() -> None:
    """Also beside an asset without a price, or one whose sources disagree."""
    disagreeing = two_sources("WBTC", pools=(SOUND, APART))
    sold = step_with_stops("WBTC", values={"WETH": 5_000, "WBTC": 0, "LINK": 2_000, "USDC": 3_000})
    assert mentions(decide(disagreeing).decision.reason, "nothing else is traded", "contradict", "LINK")
    assert [is_exit_due(step) for step in (step_with_stops("WBTC"), step_with_unpriced_stop("WBTC"), disagreeing)] == [True] * 3
    assert [is_exit_due(step) for step in (step_with_stops(), sold)] == [False] * 2


# --- A price that is missing


@pytest.mark.parametrize("symbols", [("WBTC",), ("LINK", "WBTC")], ids="-".join)
def test_exit_is_sold_while_another_asset_has_no_price(symbols: tuple[str, ...]) -> None:
    outcome = outcome_of(step_with_unpriced_stop(*symbols))
    assert_sells(outcome, WBTC)
    assert mentions(outcome.reason, "nothing else is traded", "LINK", "no reference price")
    assert_replayed(outcome)


@pytest.mark.parametrize(("lost", "kind"), [(85, OutcomeKind.REFUSED), (60, OutcomeKind.PLANNED)])
def test_unpriced_asset_counts_as_nothing_for_daily_loss(lost: int, kind: OutcomeKind) -> None:
    """One per cent of 8,000, not of 10,000."""
    step = with_limits(step_with_unpriced_stop("WBTC"), daily_loss_bps=100)
    assert outcome_of(with_history(step, loss_24h=Fraction(lost * 10**6))).kind is kind


def test_refused_exit_buys_nothing_while_a_price_is_missing() -> None:
    """The portfolio without the unpriced asset is for exits alone."""
    step = step_with_unpriced_stop("WBTC", values={"WETH": 5_000, "WBTC": 1_000, "LINK": 2_000, "USDC": 2_000})
    outcome = outcome_of(with_snapshot(step, pools=(MARKET[0], DEAR, SOUND)))
    assert_halts(outcome, "LINK", "no reference price", "WBTC")
    assert isinstance(decide(codec.loads(StepInput, codec.dumps(outcome.step_input))).decision, Halt), "nor in a replay"


def test_selling_everything_sells_what_has_a_price() -> None:
    step = step_with_unpriced_stop()
    for token in (WETH, WBTC):
        outcome = evaluated(step, requests.propose_selling_everything)
        assert (outcome.kind, outcome.decision_result.exit_token) == (OutcomeKind.PLANNED, token.address)
        step = with_balances(step, {token.address: 0})
    outcome = evaluated(step, requests.propose_selling_everything)
    assert outcome.kind is OutcomeKind.REFUSED
    assert mentions(outcome.reason, "LINK", "price")


@pytest.mark.parametrize(("symbol", "kind", "level"), [("WBTC", STOP, 70_000), ("LINK", OrderKind.TAKE_PROFIT, 5)], ids=["other", "own"])
def test_exit_is_sold_beside_an_order_that_contradicts_its_price(symbol: str, kind: OrderKind, level: int) -> None:
    """Neither the exit of another asset waits nor, once its stop has fired, that of its own; purchases do."""
    step = step_with_stops("LINK", pools=(*MARKET, SOUND), values=HEAVY)
    wrong = terms(symbol, kind, level)
    orders = (*step.history.orders.states, ConditionalOrder(wrong.token, kind, OrderStage.WAITING, wrong, 1))
    portfolio = replace(step.portfolio, orders=OrdersConfig((*step.portfolio.orders.terms, wrong)))
    step = apply_orders(replace(with_history(step, states=orders), portfolio=portfolio))
    outcome = outcome_of(step)
    assert_sells(outcome, LINK)
    assert mentions(outcome.reason, "nothing else is traded", "contradicts the price", symbol)
    assert_halts(outcome_of(with_balances(step, {LINK.address: 0})))
    assert_sells(evaluated(step, requests.sell_out_proposer(WBTC.address)), WBTC)


# --- A balance that is unknown


POOLS = (*MARKET, SOUND, v2_pool(LINK, WBTC, Fraction(10, 59_000), 50_000_000))


def with_unread_balance(*symbols: str, answers: Sequence[int] = (), unread: Token = WBTC, **fields: Any) -> StepInput:
    """Return a step in which stops of these have fired, and a balance is not read, or read as these."""
    step = step_with_stops(*symbols, pools=POOLS, **fields)
    holdings = [holding for holding in step.snapshot.holdings if holding.token != unread.address]
    return with_snapshot(step, holdings=(*holdings, *(Holding(unread.address, raw) for raw in answers)))


@pytest.mark.parametrize("answers", [(), (5, 6)], ids=["unread", "two answers"])
def test_exit_is_sold_while_another_balance_is_unknown(answers: tuple[int, ...]) -> None:
    """Its token would halt every stop by hiding its balance now and then; it is not sold through that token either."""
    outcome = outcome_of(with_unread_balance("LINK", "WBTC", answers=answers))
    assert_sells(outcome, LINK)
    assert mentions(outcome.reason, "nothing else is traded", "balance of WBTC")
    assert_replayed(outcome)
    ended = evaluated(with_unread_balance(answers=answers), requests.propose_selling_everything)
    assert (ended.kind, ended.decision_result.exit_token) == (OutcomeKind.PLANNED, WETH.address)


WBTC_APART = v3_pool(WBTC, USDC, 60_000, twap_price=30_000)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        pytest.param(two_sources("WBTC", pools=(SOUND, WBTC_APART)), ("contradict", "WBTC"), id="sources of its own price disagree"),
        pytest.param(two_sources(pools=(SOUND, APART), values=HEAVY), ("contradict", "LINK"), id="rebalance beside sources that disagree"),
        pytest.param(step_with_unpriced_stop("LINK"), (), id="exit without its own price"),
        pytest.param(without_feed(step_with_stops("WBTC", pools=(*MARKET, SOUND)), "WETH"), (), id="exit without that of gas"),
        pytest.param(step_with_unpriced_stop(values=HEAVY), ("LINK", "no reference price"), id="rebalance without a price"),
        pytest.param(with_unread_balance(values=HEAVY), (), id="purchases beside an unread balance"),
        pytest.param(with_unread_balance(values=HEAVY, answers=(5, 6)), (), id="purchases beside two answers"),
        pytest.param(with_unread_balance("WBTC"), (), id="exit of an unread balance"),
        pytest.param(with_unread_balance("WBTC", answers=(5, 6)), (), id="exit of two answers"),
        pytest.param(with_unread_balance("LINK", unread=USDC), (), id="balance of the numeraire"),
    ],
)
def test_rebalance_or_own_exit_halts_on_what_is_not_known(step: StepInput, words: tuple[str, ...]) -> None:
    assert_halts(outcome_of(step), *words)


def test_blocked_exit_without_a_price_refuses_no_other_exit() -> None:
    step = exclude_blocked_exits(step_with_stops("LINK", "WBTC", pools=(*MARKET, SOUND)), [BlockedExit(LINK.address, "it reverted", "")])
    assert_sells(outcome_of(without_feed(step, "LINK")), WBTC)


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
    outcome = evaluated(step, requests.propose_selling_everything)
    assert outcome.kind is OutcomeKind.HOLD
    assert mentions(outcome.reason, "nothing more can be sold", "WBTC stays")
