"""Tests of agent/layers/futures/execution: sets that are checked before they are sent, and what the cycle keeps of sent orders."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

import pytest

from agent import codec
from agent.errors import Retryable, UnsendableTransaction
from agent.execution.resumption import new_cycle
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import StepPorts
from agent.layers.futures.execution.cycle import MAX_ACTIONS
from agent.layers.futures.execution.order_sets import skip_unsendable_set
from agent.layers.futures.execution.send import FUTURES_SENDER
from agent.layers.futures.planning.plans import OPEN_HEDGE
from agent.layers.futures.requests import MarginAccountRequest
from agent.layers.futures.state import FuturesCycle, planned_futures, with_policy
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
    MarginAccount,
    MarginDeposit,
    StopOrder,
)
from agent.planning.proposals import propose_rebalance
from agent.store.store import Store
from tests.support.builders import NOW_S, OWNER
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import THREE, TWO, wide_book, with_index_at
from tests.support.perpetuals.needs import BUY, SELL
from tests.support.perpetuals.parts import outcome_of
from tests.support.perpetuals.steps import EMPTY, OVER, step_of
from tests.support.stores import store_fixture
from tests.support.transactions import receipt, tx

NO_FILL = UnsendableTransaction("no fill", (Verdict("simulation", "no fill", "a part", False),))


def plan_of(layer_plan: FuturesPlan) -> Plan:
    plan = propose_rebalance(step_of(EMPTY)).plan
    assert plan is not None
    return plan.with_layer(layer_plan)


# Sets of longs and shorts


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


store = store_fixture("memory", wallet=OWNER)


def set_of_two(store: Store) -> StepOutcome:
    """A long of ETH, then a short of BTC."""
    return written_set(store, TWO)


def written_set(store: Store, policy: FuturesPolicy) -> StepOutcome:
    """The planned set of a policy, written as a step."""
    outcome = outcome_of(with_policy(step_of(with_index_at(wide_book(2_000), NOW_S)), policy))
    assert outcome.kind is OutcomeKind.PLANNED
    store.steps.begin(outcome.step_id, NOW_S, codec.dumps(outcome.step_input))
    return outcome


def ports(store: Store, composer: FakeComposer) -> StepPorts:
    class FakeTransactor:
        def __init__(self) -> None:
            self.composer = composer

    return StepPorts(cast(Any, None), store, cast(Any, FakeTransactor()))


BEGUN = new_cycle(AgentCycle(), NOW_S)


def test_set__leg_that_cannot_be_sent_is_left_out_first(store: Store) -> None:
    outcome = set_of_two(store)
    result = skip_unsendable_set(ports(store, FakeComposer("BTC")), BEGUN, outcome)
    assert result is not None
    assert dict(result.cycle.layer(FuturesCycle).order_divisors).keys() == {"BTC"}
    record = store.steps.get(outcome.step_id)
    assert record is not None
    assert record.summary.outcome == "refused"


def test_set__first_leg_is_composed_when_it_is_sent(store: Store) -> None:
    composer = FakeComposer("ETH")
    assert skip_unsendable_set(ports(store, composer), BEGUN, set_of_two(store)) is None
    assert composer.markets == ["BTC"]


def test_set__later_legs_are_composed_before_the_first_is_sent(store: Store) -> None:
    composer = FakeComposer("SOL")
    assert skip_unsendable_set(ports(store, composer), BEGUN, written_set(store, THREE)) is not None
    assert composer.markets == ["BTC", "SOL"]


def test_set__fault_of_an_endpoint_ends_the_step(store: Store) -> None:
    with pytest.raises(Retryable):
        skip_unsendable_set(ports(store, FakeComposer("BTC", Retryable("down"))), BEGUN, set_of_two(store))


@pytest.mark.parametrize("change", ["completes a set", "has no goals", "one side", "not planned"])
def test_set__that_is_begun_or_no_set_is_not_checked(store: Store, change: str) -> None:
    outcome = set_of_two(store)
    assert outcome.plan is not None
    layer_plan = planned_futures(outcome.plan)
    assert layer_plan is not None
    first, second = layer_plan.orders
    changed = {
        "completes a set": replace(layer_plan, completes_set=True),
        "has no goals": replace(layer_plan, set_goals=()),
        "one side": replace(layer_plan, orders=(first, replace(second, size_raw=-second.size_raw))),
        "not planned": layer_plan,
    }[change]
    kind = OutcomeKind.DECLINED if change == "not planned" else outcome.kind
    composer = FakeComposer("BTC")
    assert skip_unsendable_set(ports(store, composer), BEGUN, replace(outcome, kind=kind, plan=outcome.plan.with_layer(changed))) is None
    assert composer.markets == []


# What the cycle keeps


NO_CHOICES = HedgeChoices()


def after_sent(
    layer_plan: FuturesPlan,
    futures_cycle: FuturesCycle | None = None,
    cycle: Cycle = BEGUN,
    status: int = 1,
    account: MarginAccount = OVER,
    choices: HedgeChoices = NO_CHOICES,
) -> Cycle:
    """The cycle after the first action of a plan."""
    state = IntentState.FINAL if status else IntentState.REVERTED
    intent = Intent("i", "s", IntentKind.FUTURES, state, tx(0), "order", NOW_S, None, "0x1", receipt("0x1", 1, "0x1", status), None)
    outcome = replace(outcome_of(step_of(account)), kind=OutcomeKind.DONE if status else OutcomeKind.FAILED)
    plan = plan_of(layer_plan).with_layer(choices)
    before = cycle.with_layer(futures_cycle or FuturesCycle())
    return FUTURES_SENDER.after_sent(before.with_transaction(intent), replace(outcome, plan=plan), plan, intent)


STOP = StopOrder("ETH", -1, 1, 1)


@pytest.mark.parametrize(
    ("layer_plan", "earlier", "has_reduced"),
    [
        (FuturesPlan((SELL,), "leverage", "", is_reducing=True), False, True),
        (FuturesPlan((SELL, BUY), "drift", ""), False, True),
        (FuturesPlan((BUY,), "drift", ""), False, False),
        (FuturesPlan((BUY,), "drift", ""), True, True),
        (FuturesPlan((), "leverage", "", (MarginDeposit(1),), is_reducing=True), False, True),
        (FuturesPlan((), "resting_stop", "", is_reducing=True, resting_actions=(STOP,)), False, False),
    ],
    ids=["reduction", "reduction before an opening", "opening", "opening after a reduction", "deposit", "stop"],
)
def test_after_sent__reduction_or_deposit_lets_nothing_open(layer_plan: FuturesPlan, earlier: bool, has_reduced: bool) -> None:
    assert after_sent(layer_plan, FuturesCycle(has_reduced=earlier)).layer(FuturesCycle).has_reduced is has_reduced


def test_after_sent__each_reduced_market_is_kept() -> None:
    reduction = FuturesPlan((SELL,), "leverage", "", is_reducing=True)
    own = after_sent(reduction, FuturesCycle(reduced_markets=("BTC",))).layer(FuturesCycle)
    assert own.reduced_markets == ("BTC", "ETH")
    assert own.reduction_goals == (("ETH", 19 * E18),)


@pytest.mark.parametrize(("earlier", "end"), [(MAX_ACTIONS - 2, CycleEnd.OPEN), (MAX_ACTIONS - 1, CycleEnd.STEP_LIMIT)])
def test_after_sent__cycle_ends_at_its_most_actions(earlier: int, end: CycleEnd) -> None:
    cycle = after_sent(FuturesPlan((BUY,), "drift", ""), FuturesCycle(action_count=earlier))
    assert cycle.end_state is end


def test_after_sent__request_of_the_owner_is_done() -> None:
    deposit = MarginDeposit(1)
    cycle = replace(BEGUN, request=MarginAccountRequest(deposit))
    assert after_sent(FuturesPlan((), "", "", (deposit,), is_reducing=True), cycle=cycle).end_state is CycleEnd.DONE


@pytest.mark.parametrize(("status", "is_kept"), [(1, True), (0, False)], ids=["filled", "failed"])
def test_after_sent__hedge_that_failed_is_not_told_as_opened(status: int, is_kept: bool) -> None:
    costs = (Fraction(1),) * 9
    sale = HedgeComparison("0xA", *costs, 86_400, is_hedged=False)
    hedge = replace(sale, is_hedged=True)
    cycle = after_sent(FuturesPlan((SELL,), OPEN_HEDGE, ""), status=status, choices=HedgeChoices(comparisons=(sale, hedge)))
    assert cycle.layer(FuturesCycle).hedge_comparisons == ((hedge,) if is_kept else ())
