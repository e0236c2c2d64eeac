"""Tests of agent/layers/tax/guards.py: the guard year_limit."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.app.documents.plans import tax_document
from agent.layers.tax.state import TaxState
from agent.model import Halt, OpenLot, Plan, Rebalance, StepInput
from agent.policy.decide import decide
from tests.support.builders import ETHER, address, step_input, with_snapshot
from tests.support.constants import USD
from tests.support.plans import assert_refused, verdict
from tests.support.taxes import overweight_step, plan_gain, rebalance_plan, with_lots, with_tax
from tests.support.text import mentions
from tests.support.tokens import WETH

JUST = Fraction(1, 10**9)


def with_decision(plan: Plan, **changes: bool) -> Plan:
    assert isinstance(plan.decision, Rebalance)
    return replace(plan, decision=replace(plan.decision, **changes))  # type: ignore[arg-type]  # keywords are field names


@pytest.mark.parametrize("excess", [Fraction(0), JUST], ids=["exactly the rest", "just more"])
@pytest.mark.parametrize("realised_usd", [0, 200, -200])
def test_year_limit_allows_exactly_the_rest_of_the_year(realised_usd: int, excess: Fraction) -> None:
    step = overweight_step(None, realised_usd)
    plan = rebalance_plan(step)
    limited_step = with_tax(step, year_limit=realised_usd * USD + plan_gain(step, plan) - excess)

    assert verdict("year_limit", limited_step, plan).passed is not bool(excess)


def test_year_limit_refuses_a_plan_of_before_other_sales() -> None:
    plan = rebalance_plan(overweight_step(300))
    judged = verdict("year_limit", overweight_step(300, realised_usd=200), plan)

    assert "realised" in verdict("year_limit", overweight_step(300), plan).measured_text
    assert_refused(judged, "200 USDC")
    assert judged.limit == "300 USDC a year"


def test_year_limit_measures_in_the_reporting_currency() -> None:
    step = with_tax(overweight_step(300), currency="EUR")
    judged = verdict("year_limit", step, rebalance_plan(overweight_step(300)))

    assert judged.limit == "300 EUR a year"
    assert judged.measured_text.count(" EUR") == 2


@pytest.mark.parametrize("realised_usd", [300, 500], ids=["used up", "exceeded before"])
@pytest.mark.parametrize("cost_usd", [2_100, 2_500], ids=["a small loss", "a large loss"])
def test_year_limit_passes_losses_of_a_year_that_is_used_up(realised_usd: int, cost_usd: int) -> None:
    """A small loss does not bring the year back within its limit."""
    step = overweight_step(300, realised_usd, cost_usd)

    assert verdict("year_limit", step, rebalance_plan(step)).passed


@pytest.mark.parametrize(("is_bought", "passed"), [(True, True), (False, False)], ids=["bought", "sold"])
def test_year_limit_passes_the_gas_of_purchases_alone(is_bought: bool, passed: bool) -> None:
    """The same year, which is used up: WETH gains where it is sold, and where it pays the gas of its own purchase."""
    values = {"WETH": 3_000, "USDC": 5_000} if is_bought else {"WETH": 5_000, "USDC": 3_000}
    lots = [OpenLot(WETH.address, 3 * ETHER, Fraction(3_000 * USD), 1)]
    step = with_lots(step_input(values=values), lots, year_limit=Fraction(0))
    plan = rebalance_plan(with_tax(step, year_limit=None))

    assert plan_gain(step, plan) > 0
    assert verdict("year_limit", step, plan).passed is passed


@pytest.mark.parametrize(
    ("step", "limit"),
    [
        pytest.param(overweight_step(None), "off", id="no limit"),
        pytest.param(overweight_step(None).with_layer(TaxState()), "off", id="no tax table"),
    ],
)
def test_year_limit_may_be_off(step: StepInput, limit: str) -> None:
    assert verdict("year_limit", step, rebalance_plan(overweight_step(None))).limit == limit


@pytest.mark.parametrize("changes", [{"is_exit": True}, {"by_hand": True}], ids=["an exit", "by hand"])
def test_year_limit_is_not_applied_to_exits_and_swaps_by_hand(changes: dict[str, bool]) -> None:
    step = overweight_step(0, realised_usd=500)
    plan = rebalance_plan(overweight_step(None))

    judged = verdict("year_limit", step, with_decision(plan, **changes))

    assert not verdict("year_limit", step, plan).passed
    assert judged.passed
    assert "(not applied)" in judged.measured_text


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        pytest.param({}, False, id="rebalance"),
        pytest.param({"is_exit": True}, True, id="exit"),
        pytest.param({"by_hand": True}, True, id="by hand"),
    ],
)
def test_year_limit__is_unknown_while_rates_cannot_be_read(changes: dict[str, bool], passed: bool) -> None:
    step = with_tax(overweight_step(10_000), lots=(), fault="tax.rates eur.csv: line 3 is no rate")
    judged = verdict("year_limit", step, with_decision(rebalance_plan(overweight_step(None)), **changes))
    assert (judged.passed, judged.is_known) == (passed, passed)
    assert judged.measured_text.startswith("unknown: tax.rates eur.csv: line 3 is no rate")


def test_gain__of_a_plan_is_unknown_while_rates_cannot_be_read() -> None:
    step = with_tax(overweight_step(None), lots=(), fault="tax.rates eur.csv: line 3 is no rate")
    document = tax_document(step, rebalance_plan(overweight_step(None)))
    assert document is not None
    assert (document["gain"], document["unknown"]) == (None, "tax.rates eur.csv: line 3 is no rate")


def test_year_limit_passes_a_plan_without_swaps() -> None:
    step = overweight_step(0, realised_usd=500)
    plan = replace(rebalance_plan(overweight_step(None)), legs=())

    assert verdict("year_limit", step, plan).measured_text == "no gain"


@pytest.mark.parametrize(
    ("changes", "gas_price_wei", "passed"),
    [
        pytest.param({}, 10**9, False, id="a rebalance"),
        pytest.param({}, 0, True, id="free gas"),
        pytest.param({"is_exit": True}, 10**9, True, id="an exit"),
        pytest.param({"by_hand": True}, 10**9, True, id="by hand"),
    ],
)
def test_year_limit_is_unknown_while_gas_cannot_be_valued(changes: dict[str, bool], gas_price_wei: int, passed: bool) -> None:
    """Gas is disposed of, too."""
    step = overweight_step(10_000)
    plan = with_decision(rebalance_plan(step), **changes)
    step = with_snapshot(step, gas_price_wei=gas_price_wei, head=replace(step.snapshot.head, base_fee_wei=None))
    unpriced_step = replace(step, portfolio=replace(step.portfolio, wrapped_native=address("unpriced")))

    judged = verdict("year_limit", unpriced_step, plan)

    assert verdict("year_limit", step, plan).passed
    assert (judged.passed, judged.is_known) == (passed, passed)
    assert judged.measured_text.startswith("unknown") is (gas_price_wei > 0)


@pytest.mark.parametrize(("pays_gas", "is_known"), [(True, False), (False, True)], ids=["own key", "Safe"])
def test_gain__of_all_that_the_lots_have__is_known_where_others_pay_the_gas(pays_gas: bool, is_known: bool) -> None:
    """The gas of a Safe's call, which its executor pays, takes no lot of the Safe."""
    plan = rebalance_plan(overweight_step(None))
    lot = OpenLot(WETH.address, -plan.wallet_changes()[WETH.address], Fraction(1_000 * USD), 1)
    document = tax_document(with_tax(overweight_step(None), lots=(lot,), pays_gas=pays_gas), plan)
    assert document is not None
    assert (document["gain"] is not None, not document["unknown"]) == (is_known, is_known)


def test_ledger_that_differs_from_the_chain_halts() -> None:
    step = overweight_step(None)
    decision = decide(replace(step, history=replace(step.history, ledger_mismatch="ledger and chain disagree at block 1: WETH"))).decision

    assert isinstance(decision, Halt)
    assert mentions(decision.reason, "ledger", "chain")
