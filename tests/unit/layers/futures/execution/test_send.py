"""Tests of agent/layers/futures/execution: sets that are checked before they are sent, and what the cycle keeps of sent orders."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent import codec
from agent.errors import Retryable, UnsendableTransaction
from agent.execution.resumption import new_cycle
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import StepPorts, StepResult
from agent.layers.futures.execution.cycle import MAX_ACTIONS
from agent.layers.futures.execution.order_sets import skip_unsendable_set
from agent.layers.futures.execution.send import FUTURES_SENDER
from agent.layers.futures.planning.plans import OPEN_HEDGE
from agent.layers.futures.requests import MarginAccountRequest
from agent.layers.futures.state import FuturesCycle, with_policy
from agent.model import (
    AgentCycle,
    Cycle,
    CycleEnd,
    HedgeChoices,
    Intent,
    IntentKind,
    IntentState,
    Plan,
    StepInput,
    Verdict,
)
from agent.model.futures import (
    FuturesPlan,
    FuturesPolicy,
    HedgeComparison,
    MarginDeposit,
    StopOrder,
)
from agent.store.store import Store
from tests.support.builders import NOW_S, OWNER
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import THREE, TWO, wide_book, with_index_at
from tests.support.perpetuals.needs import BUY, SELL
from tests.support.perpetuals.parts import outcome_of
from tests.support.perpetuals.steps import EMPTY, OVER, futures_of, step_of
from tests.support.plans import proposed_plan
from tests.support.stores import store_fixture
from tests.support.transactions import receipt, tx

NO_FILL = UnsendableTransaction("no fill", (Verdict("simulation", "no fill", "a part", False),))
BEGUN = new_cycle(AgentCycle(), NOW_S)
store = store_fixture("memory", wallet=OWNER)


# --- Sets of longs and shorts


class FakeComposer:
    """A composer that refuses the orders of a market."""

    def __init__(self, refused_market: str, error: Exception = NO_FILL) -> None:
        self.refused_market = refused_market
        self.error = error
        self.markets: list[str] = []

    def layer_transaction(self, _step: StepInput, plan: Plan) -> None:
        market = plan.layer(FuturesPlan).orders[0].market
        self.markets.append(market)
        if market == self.refused_market:
            raise self.error


def planned_set(store: Store, policy: FuturesPolicy = TWO) -> StepOutcome:
    """Return the planned set of a policy, written as a step; by default a long of ETH, then a short of BTC."""
    outcome = outcome_of(with_policy(step_of(with_index_at(wide_book(2_000), NOW_S)), policy))
    assert outcome.kind is OutcomeKind.PLANNED
    store.steps.begin(outcome.step_id, NOW_S, codec.dumps(outcome.step_input))
    return outcome


def skip_unsendable(store: Store, composer: FakeComposer, outcome: StepOutcome) -> StepResult | None:
    transactor: Any = SimpleNamespace(composer=composer)
    return skip_unsendable_set(StepPorts(cast(Any, None), store, transactor), BEGUN, outcome)


def test_set__leg_that_cannot_be_sent_is_left_out_first(store: Store) -> None:
    outcome = planned_set(store)
    result = skip_unsendable(store, FakeComposer("BTC"), outcome)
    assert dict(result.cycle.layer(FuturesCycle).order_divisors).keys() == {"BTC"}
    assert store.steps.get(outcome.step_id).summary.outcome == "refused"


@pytest.mark.parametrize(
    ("policy", "refused_market", "markets", "is_skipped"),
    [
        pytest.param(TWO, "ETH", ["BTC"], False, id="the first only when it is sent"),
        pytest.param(THREE, "SOL", ["BTC", "SOL"], True, id="all others before"),
    ],
)
def test_set__later_legs_are_composed_before_the_first_is_sent(
    store: Store, policy: FuturesPolicy, refused_market: str, markets: list[str], is_skipped: bool
) -> None:
    composer = FakeComposer(refused_market)
    assert (skip_unsendable(store, composer, planned_set(store, policy)) is not None) is is_skipped
    assert composer.markets == markets


def test_set__fault_of_an_endpoint_ends_the_step(store: Store) -> None:
    with pytest.raises(Retryable, match="down"):
        skip_unsendable(store, FakeComposer("BTC", Retryable("down")), planned_set(store))


@pytest.mark.parametrize(
    ("kind", "fields", "side"),
    [
        pytest.param(OutcomeKind.PLANNED, {"completes_set": True}, 1, id="completes a set"),
        pytest.param(OutcomeKind.PLANNED, {"set_goals": ()}, 1, id="has no goals"),
        pytest.param(OutcomeKind.PLANNED, {}, -1, id="one side"),
        pytest.param(OutcomeKind.DECLINED, {}, 1, id="not planned"),
    ],
)
def test_set__that_is_begun_or_no_set_is_not_checked(store: Store, kind: OutcomeKind, fields: dict[str, Any], side: int) -> None:
    outcome = planned_set(store)
    layer_plan = futures_of(outcome.plan)
    first, second = layer_plan.orders
    layer_plan = replace(layer_plan, **{"orders": (first, replace(second, size_raw=side * second.size_raw))} | fields)
    composer = FakeComposer("BTC")
    assert skip_unsendable(store, composer, replace(outcome, kind=kind, plan=outcome.plan.with_layer(layer_plan))) is None
    assert composer.markets == []


# --- What the cycle keeps


def after_sent(
    layer_plan: FuturesPlan, cycle: Cycle = BEGUN, status: int = 1, choices: HedgeChoices | None = None, **futures: Any
) -> Cycle:
    """Return the cycle after a plan's first action, which had done this with futures before."""
    state = IntentState.FINAL if status else IntentState.REVERTED
    intent = Intent("i", "s", IntentKind.FUTURES, state, tx(0), "order", NOW_S, None, "0x1", receipt("0x1", 1, "0x1", status), None)
    plan = proposed_plan(step_of(EMPTY)).with_layer(layer_plan).with_layer(choices or HedgeChoices())
    outcome = replace(outcome_of(step_of(OVER)), kind=OutcomeKind.DONE if status else OutcomeKind.FAILED, plan=plan)
    return FUTURES_SENDER.after_sent(cycle.with_layer(FuturesCycle(**futures)).with_transaction(intent), outcome, plan, intent)


DEPOSIT = MarginDeposit(1)
OPENING = FuturesPlan((BUY,), "drift", "")
REDUCTION = FuturesPlan((SELL,), "leverage", "", is_reducing=True)
STOP = StopOrder("ETH", -1, 1, 1)


@pytest.mark.parametrize(
    ("layer_plan", "earlier", "has_reduced"),
    [
        pytest.param(REDUCTION, False, True, id="reduction"),
        pytest.param(replace(OPENING, orders=(SELL, BUY)), False, True, id="reduction before an opening"),
        pytest.param(OPENING, False, False, id="opening"),
        pytest.param(OPENING, True, True, id="opening after a reduction"),
        pytest.param(replace(REDUCTION, orders=(), account_actions=(DEPOSIT,)), False, True, id="deposit"),
        pytest.param(replace(REDUCTION, orders=(), trigger="resting_stop", resting_actions=(STOP,)), False, False, id="stop"),
    ],
)
def test_after_sent__reduction_or_deposit_lets_nothing_open(layer_plan: FuturesPlan, earlier: bool, has_reduced: bool) -> None:
    assert after_sent(layer_plan, has_reduced=earlier).layer(FuturesCycle).has_reduced is has_reduced


def test_after_sent__each_reduced_market_is_kept() -> None:
    own = after_sent(REDUCTION, reduced_markets=("BTC",)).layer(FuturesCycle)
    assert own.reduced_markets == ("BTC", "ETH")
    assert own.reduction_goals == (("ETH", 19 * E18),)


@pytest.mark.parametrize(("earlier", "end"), [(MAX_ACTIONS - 2, CycleEnd.OPEN), (MAX_ACTIONS - 1, CycleEnd.STEP_LIMIT)])
def test_after_sent__cycle_ends_at_its_most_actions(earlier: int, end: CycleEnd) -> None:
    assert after_sent(OPENING, action_count=earlier).end_state is end


def test_after_sent__request_of_the_owner_is_done() -> None:
    cycle = replace(BEGUN, request=MarginAccountRequest(DEPOSIT))
    assert after_sent(FuturesPlan((), "", "", (DEPOSIT,), is_reducing=True), cycle).end_state is CycleEnd.DONE


@pytest.mark.parametrize(("status", "is_kept"), [(1, True), (0, False)], ids=["filled", "failed"])
def test_after_sent__hedge_that_failed_is_not_counted_as_opened(status: int, is_kept: bool) -> None:
    costs = (Fraction(1),) * 9
    sale = HedgeComparison("0xA", *costs, 86_400, is_hedged=False)
    hedge = replace(sale, is_hedged=True)
    cycle = after_sent(FuturesPlan((SELL,), OPEN_HEDGE, ""), status=status, choices=HedgeChoices(comparisons=(sale, hedge)))
    assert cycle.layer(FuturesCycle).hedge_comparisons == ((hedge,) if is_kept else ())
