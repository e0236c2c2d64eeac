"""A plan's taxable gain before it is sent, and a limit of the year that trims sales of what gains; exits go all the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import codec, guards
from agent.accounting.export import parse_rates
from agent.accounting.tax_lots import Lots, _TokenLots, max_sellable_raw, planned_gains
from agent.errors import ConfigError
from agent.layers import sales
from agent.layers.gradual.state import GradualResult
from agent.layers.tax.planning import taxed_gain
from agent.layers.tax.state import TaxState
from agent.model import ExecutionStyle, Halt, LotMethod, OpenLot, Plan, Rebalance, StepInput, TaxInputs, Verdict
from agent.planning import planner, proposals, requests
from agent.planning.proposals import Proposer
from agent.policy.decide import decide
from agent.reference import reference_prices
from tests.support import builders
from tests.support.gradual_execution import PACE
from tests.support.plans import approved, evidence
from tests.support.text import mentions, raises_code, raises_field

WETH = builders.token("WETH").address
USDC = builders.token("USDC").address
DOLLAR = 10**6
ETH = 10**18


def overweight(limit: int | None, realised: int = 0, cost: int = 1_000, method: LotMethod = LotMethod.FIFO) -> StepInput:
    """3.5 WETH of 2,000 and 3,000 USDC, half of each wanted: one WETH has to go. What each had cost is `cost`."""
    step = builders.step_input(values={"WETH": 7_000, "USDC": 3_000})
    lots = tuple(OpenLot(WETH, ETH // 2, Fraction(cost * DOLLAR, 2), number) for number in range(7))
    most = None if limit is None else Fraction(limit * DOLLAR)
    tax = TaxInputs(method, "", Fraction(1), lots, Fraction(realised * DOLLAR), most)
    return step.with_layer(TaxState(tax))


def planned(step: StepInput) -> Plan:
    plan = proposals.propose_rebalance(step).plan
    assert plan is not None
    return plan


def gain(step: StepInput, plan: Plan) -> Fraction:
    prices = reference_prices(step).price_by_token
    tax = step.layer(TaxState).inputs
    assert tax is not None
    gains = planned_gains(plan, tax, prices, USDC, step.portfolio.wrapped_native, step.snapshot.head.timestamp_s)
    return sum((gain.gain for gain in gains), Fraction(0)) / DOLLAR


def test_a_plan_tells_what_it_realises() -> None:
    step = overweight(None)
    plan = planned(step)
    sold = -plan.wallet_changes()[WETH]
    assert gain(step, plan) == pytest.approx(float(sold * 1_000) / ETH, rel=0.01)
    assert gain(overweight(None, cost=3_000), plan) < 0


def test_the_years_limit_trims_what_gains_and_says_so() -> None:
    step = overweight(300)
    plan = planned(step)
    free = planned(overweight(None))
    assert 290 < gain(step, plan) <= 300
    assert -plan.wallet_changes()[WETH] < -free.wallet_changes()[WETH]
    assert any(item.subject == "WETH" and mentions(item.why, "tax.year_limit", "300 USDC") for item in plan.skipped)
    assert plan.decision == free.decision


def test_first_try__plans_for_a_thousandth_less_than_is_left() -> None:
    """One WETH gains 1,000; in millionths of a WETH."""
    assert round(-planned(overweight(300)).wallet_changes()[WETH] / 10**12) == 299_700


def test_pool_above_the_reference__takes_a_thousandth_off_each_try() -> None:
    """A WETH gains nearly 1,003 there, so that the first two tries gain more than 300; in millionths of a WETH."""
    step = overweight(300)
    step = builders.with_snapshot(step, pools=(builders.v2_pool(builders.token("WETH"), builders.token("USDC"), 2_010, 1_000_000),))
    assert round(-planned(step).wallet_changes()[WETH] / 10**12) == 299_101


@pytest.mark.parametrize(("less", "is_trimmed"), [(Fraction(0), False), (Fraction(1, 10**9), True)])
def test_plan_that_gains_exactly_the_rest__is_not_trimmed(less: Fraction, is_trimmed: bool) -> None:
    step = overweight(None, realised=200)
    plan = planned(step)
    tax = step.layer(TaxState).inputs
    assert tax is not None
    limit = tax.realised_gain + gain(step, plan) * DOLLAR - less
    limited = planned(step.with_layer(TaxState(replace(tax, year_limit=limit))))
    assert (limited.wallet_changes() != plan.wallet_changes()) is is_trimmed


def test_the_first_of_several_rounds_stays_within_the_year_too() -> None:
    step = overweight(300)
    pace = replace(PACE, style=ExecutionStyle.TWAP, max_rounds=2, twap_duration_s=14_400)
    spread = replace(step, execution=replace(step.execution, pace=pace))
    proposal = proposals.propose_rebalance(spread)
    assert proposal.decision_result.layer(GradualResult).new_execution is not None
    assert proposal.decision_result.layer(GradualResult).new_execution.rounds == 2
    assert proposal.plan is not None
    assert 0 < gain(spread, proposal.plan) <= 300


def test_a_year_that_is_used_up_sells_nothing_that_gains() -> None:
    with raises_code(planner.NothingPlanned, "plan_cost", "tax.year_limit", "300 USDC"):
        planned(overweight(300, realised=300))


def judged(step: StepInput, plan: Plan) -> Verdict:
    return next(verdict for verdict in guards.judge(step, plan, evidence(step, plan)) if verdict.guard == "year_limit")


def test_guard__refuses_a_plan_above_the_year_s_rest_by_then() -> None:
    step = overweight(300)
    plan = planned(step)
    assert judged(step, plan).passed
    assert "realised" in judged(step, plan).measured_text
    later = overweight(300, realised=200)  # what was sent meanwhile has used up most of it
    verdicts = judged(later, plan)
    assert not verdicts.passed
    assert verdicts.limit == "300 USDC a year"
    assert "200 USDC" in verdicts.measured_text
    assert judged(overweight(300, realised=300, cost=2_500), plan).passed, "what loses goes"
    assert judged(overweight(None), plan).limit == "off"


@pytest.mark.parametrize(("less", "passes"), [(Fraction(0), True), (Fraction(1, 10**9), False)])
@pytest.mark.parametrize("realised", [0, 200, -200])
def test_year_limit__gain_equal_to_the_rest_passes(realised: int, less: Fraction, passes: bool) -> None:
    step = overweight(None, realised)
    plan = planned(step)
    tax = step.layer(TaxState).inputs
    assert tax is not None
    limit = tax.realised_gain + gain(step, plan) * DOLLAR - less
    assert judged(step.with_layer(TaxState(replace(tax, year_limit=limit))), plan).passed is passes


@pytest.mark.parametrize(("realised", "taxed"), [(0, 1), (500, 1), (-500, Fraction(1, 2)), (-2_000, 0)])
def test_taxed_gain__losses_of_the_year_are_set_off_first(realised: int, taxed: Fraction) -> None:
    """In thousandths of the gain."""
    step = overweight(None)
    plan = planned(step)
    tax = step.layer(TaxState).inputs
    assert tax is not None
    whole = gain(step, plan) * DOLLAR
    after_losses = step.with_layer(TaxState(replace(tax, realised_gain=Fraction(realised, 1_000) * whole)))
    assert taxed_gain(after_losses, plan) == taxed * whole


def test_taxed_gain__without_a_tax_table_is_none() -> None:
    step = overweight(None)
    assert taxed_gain(step.with_layer(TaxState()), planned(step)) == 0


@pytest.mark.parametrize("free", [{"is_exit": True}, {"by_hand": True}])
def test_the_guard_holds_no_exit_back_and_no_swap_by_hand(free: dict[str, bool]) -> None:
    step = overweight(0, realised=500)
    plan = planned(overweight(None))
    assert isinstance(plan.decision, Rebalance)
    assert not judged(step, plan).passed
    verdicts = judged(step, replace(plan, decision=replace(plan.decision, **free)))
    assert verdicts.passed
    assert "(not applied)" in verdicts.measured_text


@pytest.mark.parametrize(
    ("changes", "gas_price_wei", "passes"),
    [
        pytest.param({}, 10**9, False, id="a rebalance"),
        pytest.param({}, 0, True, id="free gas"),
        pytest.param({"is_exit": True}, 10**9, True, id="an exit"),
        pytest.param({"by_hand": True}, 10**9, True, id="by hand"),
    ],
)
def test_year_limit__is_unknown_where_gas_cannot_be_valued(changes: dict[str, bool], gas_price_wei: int, passes: bool) -> None:
    plan = planned(overweight(10_000))
    assert isinstance(plan.decision, Rebalance)
    plan = replace(plan, decision=replace(plan.decision, **changes))
    step = overweight(10_000)
    step = builders.with_snapshot(step, gas_price_wei=gas_price_wei, head=replace(step.snapshot.head, base_fee_wei=None))
    unpriced = replace(step, portfolio=replace(step.portfolio, wrapped_native=builders.address("unpriced")))
    assert judged(step, plan).passed
    verdict = judged(unpriced, plan)
    assert verdict.passed is passes
    assert verdict.measured_text.startswith("unknown") is (gas_price_wei > 0)


@pytest.mark.parametrize("proposer", [requests.rebalance_to_targets, requests.invest_proposer({})], ids=["edit", "invest"])
def test_owner_s_trade_of_a_strategy__keeps_to_the_year_too(proposer: Proposer) -> None:
    """An edit onto the targets sells what gains within what is left, and nothing where nothing is."""
    free = proposer(overweight(None)).plan
    used = proposer(overweight(300, realised=300)).plan
    trimmed = proposer(overweight(300)).plan
    assert used is None or gain(overweight(None), used) <= 0
    assert trimmed is None or gain(overweight(None), trimmed) <= 300
    if proposer is requests.rebalance_to_targets:
        assert free is not None
        assert gain(overweight(None), free) > 300
        assert trimmed is not None


def test_losses_go_whatever_the_year_realised() -> None:
    step = overweight(0, realised=500, cost=2_500)
    assert planned(step).wallet_changes() == planned(overweight(None, cost=2_500)).wallet_changes()


def test_highest_cost_first__leaves_room_oldest_first_has_used() -> None:
    lots = tuple(OpenLot(WETH, ETH, Fraction(cost * DOLLAR), at_s) for at_s, cost in ((1, 500), (2, 1_995), (3, 1_990)))
    step = approved(overweight(100))
    known = step.layer(TaxState).inputs
    assert known is not None

    def by(method: LotMethod) -> int:
        tax = replace(known, lots=lots, method=method)
        return -planned(step.with_layer(TaxState(tax))).wallet_changes()[WETH]

    assert by(LotMethod.HIFO) == -planned(approved(overweight(None))).wallet_changes()[WETH] > 2 * by(LotMethod.FIFO)


def test_an_exit_is_never_held_back() -> None:
    step = overweight(0, realised=100)
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)
    plan = sales.plan_sales(step, replace(decision, is_exit=True))
    assert plan.wallet_changes()[WETH] < 0


def test_standing__is_part_of_the_step_and_repeats_the_plan() -> None:
    step = overweight(300)
    assert planned(codec.loads(StepInput, codec.dumps(step))) == planned(step)


def test_a_ledger_that_disagrees_with_the_chain_halts_by_name() -> None:
    step = overweight(None)
    changed_step = replace(step, history=replace(step.history, ledger_mismatch="ledger and chain disagree at block 1: WETH"))
    decision = decide(changed_step).decision
    assert isinstance(decision, Halt)
    assert mentions(decision.reason, "ledger", "chain")


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 5_000)), min_size=1, max_size=6),
    st.integers(0, 3_000),
    st.sampled_from(LotMethod),
)
def test_sellable__gains_at_most_its_room_and_one_unit_more_not(parts: list[tuple[int, int]], room: int, method: LotMethod) -> None:
    lots = [OpenLot(WETH, raw, Fraction(cost), number) for number, (raw, cost) in enumerate(parts)]
    total = sum(lot.raw for lot in lots)
    price = Fraction(100)

    def gains(raw: int) -> list[Fraction]:
        taken = Lots(method, lots).dispose(WETH, raw, Fraction(0))
        ends = [Fraction(0)]
        total = Fraction(0)
        for lot in taken:
            total += lot.raw * price - lot.cost
            ends.append(total)
        return ends

    most = max_sellable_raw(lots, method, WETH, price, Fraction(room), total)
    assert max(gains(most)) <= room
    assert most == total or max(gains(most + 1)) > room


def slow(lots: list[OpenLot], method: LotMethod, price: Fraction, gain: Fraction, most_raw: int) -> int:
    """The definition: the longest stretch from the start that at no lot's end, nor at its own, has realised more."""

    def worst(raw: int) -> Fraction:
        total = highest = Fraction(0)
        for taken in Lots(method, lots).dispose(WETH, raw, Fraction(0)):
            total += taken.raw * price - taken.cost
            highest = max(highest, total)
        return highest

    return max((raw for raw in range(most_raw + 1) if worst(raw) <= gain), default=0)


@given(
    st.lists(st.tuples(st.integers(1, 25), st.integers(0, 3_000)), min_size=1, max_size=6),
    st.integers(-5, 2_000),
    st.integers(0, 100),
    st.sampled_from(LotMethod),
)
def test_sellable__is_found_in_one_pass_as_by_definition(parts: list[tuple[int, int]], room: int, less: int, method: LotMethod) -> None:
    lots = [OpenLot(WETH, raw, Fraction(cost), number) for number, (raw, cost) in enumerate(parts)]
    most = max(0, sum(lot.raw for lot in lots) - less)
    assert max_sellable_raw(lots, method, WETH, Fraction(100), Fraction(room), most) == slow(
        lots, method, Fraction(100), Fraction(room), most
    )


def test_lots_are_gone_through_once_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    lots = [OpenLot(WETH, ETH, Fraction(number), number) for number in range(300)]
    taken = []
    take = _TokenLots.take
    monkeypatch.setattr(_TokenLots, "take", lambda pile, most: taken.append(most) or take(pile, most))  # type: ignore[func-returns-value]  # None, then the lot
    max_sellable_raw(lots, LotMethod.HIFO, WETH, Fraction(1), Fraction(ETH) * 250, 300 * ETH)
    assert len(taken) <= 300


RATES = ["time,rate", "2026-01-01,0.92", "2026-02-01T12:00:00+00:00,0.90", "1780000000,0.85"]


def test_day_without_hyphens__is_that_day() -> None:
    table = parse_rates("tax.rates eur.csv", ["time,rate", "20260131,0.92", "1782000000,0.9"])
    assert table.times_s == (int(datetime(2026, 1, 31, tzinfo=UTC).timestamp()), 1_782_000_000)
    with raises_field("tax.rates", "line 2"):
        parse_rates("tax.rates eur.csv", ["time,rate", "1769817,0.92"])


def test_a_rate_counts_from_its_time_on() -> None:
    table = parse_rates("tax.rates eur.csv", RATES)
    assert [table.at(at_s) for at_s in (1_767_225_600, 1_769_947_199, 1_769_947_200, 1_790_000_000)] == [
        Fraction(92, 100), Fraction(92, 100), Fraction(9, 10), Fraction(85, 100),
    ]  # fmt: skip
    with raises_field("tax.rates", "2025-12-31"):
        table.at(1_767_225_599)


def test_how_old_the_rate_is_that_counts_can_be_told() -> None:
    table = parse_rates("tax.rates eur.csv", RATES)
    assert [table.age_s(at_s) for at_s in (1_767_225_600, 1_767_225_601, 1_780_000_000 + 40 * 86_400)] == [0, 1, 40 * 86_400]
    with raises_field("tax.rates", "no rate"):
        table.age_s(1_767_225_599)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "empty"), (["time,rate"], "empty"), (["2026-01-01,1"], "line 1 is not"), ([*RATES, "2026-01-01,1"], "line 5 is not later"),
        ([RATES[0], "2026-01-01;1"], "line 2"), ([RATES[0], "yesterday,1"], "is not a time"), ([RATES[0], "2026-01-01,0"], "not a rate"),
        ([RATES[0], "2026-01-01,-1"], "not a rate"), ([RATES[0], "2026-01-01,nan"], "not a rate"),
        ([RATES[0], "2026-01-01,1e99"], "not a rate"),
        ([RATES[0], "2026-01-01,=1+1"], "not a rate"),
    ],
)  # fmt: skip
def test_a_broken_rate_table_is_named_line_by_line(lines: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_rates("tax.rates eur.csv", lines)
