"""Tests of agent/planning/cost_reasons.py: what moving an asset costs beside limits.plan_cost, and which outcome that makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest

from agent.app import describe
from agent.app.alerting import RunFacts, cycle_alerts
from agent.cli.options import PrintStyle
from agent.cli.portfolio import show_outcome
from agent.errors import EXIT_OK, OUTCOME_EXIT_CODES, Refused
from agent.execution import evaluation
from agent.execution.step_context import REVIEW_DONE_KINDS, OutcomeKind, StepOutcome
from agent.model import AlertKind, DataFeeQuote, Every, Hold, Pool, StepInput, Threshold
from agent.planning import planner, proposals
from agent.planning.cost_reasons import RouteCost, cheapest_route, coarse_tokens, cost_reason, format_route
from agent.planning.problem import Problem, TokenNode, build_problem
from agent.policy.minimum import APPROVAL_GAS, LEG_GAS
from agent.reference import reference_prices
from tests.support.builders import GWEI, step_input, token, v2_pool, v3_pool, with_limits, with_snapshot
from tests.support.constants import HOUR_S
from tests.support.planning_worlds import DAI, DEEP, USDC, WBTC, WETH, plan_refusal, rebalance_to_targets, two, without_gas
from tests.support.text import raises_code

COIN = 10**6
AMPLE_RAW = 2**255
DEEP_PAIR = v2_pool(WETH, USDC, 2_000, DEEP)
SECOND_PAIR = v2_pool(WETH, USDC, 2_000, DEEP, "second")
POOL = v3_pool(WETH, USDC, 2_000, 1_000_000)
SHORT_OF_TICKS = replace(POOL, ticks=(), known_from_tick=POOL.tick - 1, known_to_tick=POOL.tick + 1)
VALUE = Fraction(1_000 * COIN)
"""Value to move, a thousand USDC, of which plan_cost allows five."""


def problem_with(*pools: Pool, approved: bool = True, gas_value: Fraction = Fraction(0)) -> Problem:
    """Return the problem of WETH, DAI and USDC at a plan_cost of 50 bps, in which a leg's gas is worth `gas_value`."""
    step = step_input({"WETH": 4_000, "DAI": 2_000, "USDC": 4_000}, pools=pools or (DEEP_PAIR,))
    problem = build_problem(with_limits(step, plan_cost_bps=50, pool_min_value=None), reference_prices(step))
    allowances = dict.fromkeys((WETH.address, DAI.address, USDC.address), AMPLE_RAW if approved else 0)
    return replace(problem, gas_unit_value=gas_value / LEG_GAS, gas_inputs=replace(problem.gas_inputs, allowances=allowances))


def weth_route(problem: Problem, is_sale: bool = True, counterparts: Sequence[str] = (USDC.address,)) -> RouteCost | None:
    return cheapest_route(problem, WETH.address, VALUE, is_sale, counterparts)


def weth_reason(problem: Problem, counterparts: Sequence[str] = (USDC.address,), value: Fraction = VALUE) -> str:
    return cost_reason(step_input().portfolio, problem, WETH.address, value, True, counterparts)


# --- The cheapest route


@pytest.mark.parametrize(
    ("is_sale", "counterparts", "tokens"),
    [
        pytest.param(True, [USDC.address], (WETH.address, USDC.address), id="sold"),
        pytest.param(False, [USDC.address], (USDC.address, WETH.address), id="bought"),
        pytest.param(True, [WETH.address, USDC.address], (WETH.address, USDC.address), id="not against itself"),
    ],
)
def test_route_runs_between_token_and_counterpart(is_sale: bool, counterparts: list[str], tokens: tuple[str, ...]) -> None:
    assert weth_route(problem_with(), is_sale, counterparts).tokens == tokens


@pytest.mark.parametrize(
    ("problem", "counterparts"),
    [
        pytest.param(problem_with(DEEP_PAIR, SECOND_PAIR), [WETH.address], id="only the token itself"),
        pytest.param(problem_with(), [DAI.address], id="no pool of the counterpart"),
        pytest.param(problem_with(), [], id="no counterpart"),
        pytest.param(problem_with(SHORT_OF_TICKS), [USDC.address], id="ticks end before the amount"),
    ],
)
def test_route_is_none_where_nothing_joins_the_tokens(problem: Problem, counterparts: list[str]) -> None:
    assert weth_route(problem, True, counterparts) is None


def test_route_adds_up_fee_impact_and_gas_of_a_swap() -> None:
    """Half a WETH into 50 million: the fee is 0.3 %, the impact 1,000 of 100,000,000 twice."""
    problem = problem_with(approved=False, gas_value=Fraction(3 * COIN))
    out_raw = DEEP_PAIR.quote(WETH.address, 10**18 // 2)

    route = weth_route(problem)

    assert route.moved_value == VALUE
    assert route.fees == 3 * COIN
    assert route.impact == VALUE - 3 * COIN - out_raw > 0
    assert route.gas == Fraction(3 * COIN) * (LEG_GAS + APPROVAL_GAS) / LEG_GAS
    assert route.second_hop == 0
    assert route.total == route.gas + route.fees + route.impact


def test_route_of_two_swaps_has_the_second_with_its_gas_apart() -> None:
    problem = problem_with(v2_pool(WETH, DAI, 2_000, DEEP, fee_pips=500), v2_pool(DAI, USDC, 1, DEEP), gas_value=Fraction(2 * COIN))

    route = weth_route(problem)

    assert route.tokens == (WETH.address, DAI.address, USDC.address)
    assert route.fees == COIN // 2
    assert route.gas == 2 * COIN
    assert route.second_hop == pytest.approx(5 * COIN, rel=1e-3)


def test_route_counts_the_data_fee_of_each_leg() -> None:
    fee = {"data_fee": DataFeeQuote(10**12, 10**15, 7, 7), "wei_value": Fraction(1, 10**9)}
    problem = problem_with(v2_pool(WETH, DAI, 2_000, DEEP), v2_pool(DAI, USDC, 1, DEEP))
    costly_problem = replace(problem, **fee)

    route = weth_route(costly_problem)
    free_route = weth_route(problem)

    assert route.gas == costly_problem.leg_data_fee > 0
    assert route.total - free_route.total == 2 * costly_problem.leg_data_fee


def test_route_counts_no_gain_of_a_pool_above_the_reference() -> None:
    assert weth_route(problem_with(v2_pool(WETH, USDC, 2_020, DEEP))).impact == 0


def test_route_passes_by_a_pool_whose_ticks_end() -> None:
    assert weth_route(problem_with(SHORT_OF_TICKS, DEEP_PAIR)) == weth_route(problem_with(DEEP_PAIR))


def test_route_is_the_cheapest_in_all() -> None:
    """The shallow pool has the lower fee and the larger impact."""
    route = weth_route(problem_with(v2_pool(WETH, USDC, 2_000, 100_000, "shallow", fee_pips=500), DEEP_PAIR))

    assert route.fees == 3 * COIN


def test_format_route_shows_labels_cost_and_limit() -> None:
    problem = problem_with(gas_value=Fraction(2 * COIN))
    route = weth_route(problem)
    assert route is not None

    assert format_route(problem, route) == "WETH to USDC 50.2 bps, limit 50 bps"


# --- Its comparison with the limit


def gas_value_at_the_limit() -> Fraction:
    """Return the gas with which the cheapest route costs exactly what plan_cost allows."""
    return VALUE * Fraction(50, 10_000) - weth_route(problem_with()).total


@pytest.mark.parametrize(
    ("beyond_value", "has_reason"),
    [pytest.param(0, False, id="at the limit"), pytest.param(Fraction(1, 10**6), True, id="a millionth of a base unit beyond")],
)
def test_cost_reason_is_empty_up_to_the_limit(beyond_value: Fraction, has_reason: bool) -> None:
    assert bool(weth_reason(problem_with(gas_value=gas_value_at_the_limit() + beyond_value))) is has_reason


def test_cost_reason_lists_only_costs_that_there_are() -> None:
    assert weth_reason(problem_with(gas_value=Fraction(5 * COIN))) == "plan_cost allows 5; gas 5 + fees 3 + impact 0.02"


def test_cost_reason_goes_by_the_numeraire_without_a_counterpart() -> None:
    problem = problem_with(gas_value=Fraction(5 * COIN))

    assert weth_reason(problem, counterparts=()) == weth_reason(problem)


@pytest.mark.parametrize(
    "problem",
    [
        pytest.param(replace(problem_with(gas_value=VALUE), plan_cost_bps=None), id="limit off"),
        pytest.param(problem_with(gas_value=VALUE).with_pools_between([WETH.address]), id="no route"),
    ],
)
def test_cost_reason_is_empty_without_limit_or_route(problem: Problem) -> None:
    assert weth_reason(problem) == ""


@pytest.mark.parametrize("value", [Fraction("13.58"), Fraction("0.4"), Fraction(40)])
def test_cost_reason_shows_the_digits_above_the_limit(value: Fraction) -> None:
    """A fee of 30 bps and gas of a little more than 20 bps of the value: with two digits both sides were 0.07."""
    moved_value = value * COIN
    problem = problem_with(gas_value=moved_value * Fraction("0.0020001"))

    limit, costs = weth_reason(problem, value=moved_value).removeprefix("plan_cost allows ").split("; ")

    assert sum(Fraction(part.rsplit(" ", 1)[1]) for part in costs.split(" + ")) > Fraction(limit)


# --- Coarse tokens


@pytest.mark.parametrize(
    ("unit_prices", "is_asset", "indices"),
    [
        pytest.param([100, 101, 102, 99], True, [2, 1], id="a bp of the portfolio is not coarse"),
        pytest.param([105, 101, 104, 103], True, [0, 2, 3], id="the three of the dearest units"),
        pytest.param([99, 1, 50, 2], True, [], id="none"),
        pytest.param([200], False, [], id="no hub"),
    ],
)
def test_coarse_tokens_have_units_of_more_than_a_bp(unit_prices: list[int], is_asset: bool, indices: list[int]) -> None:
    """The portfolio is worth a million; every set of eight would be 256 plans."""
    nodes = [TokenNode(token(f"C{k}").address, f"C{k}", Fraction(price), 0, is_asset) for k, price in enumerate(unit_prices)]
    rest = TokenNode(USDC.address, "USDC", Fraction(1), 10**6, True)

    assert list(coarse_tokens(replace(problem_with(), nodes=(*nodes, rest)))) == indices


# --- Outcomes of steps


def small_drift_step(weth: int = 5_030, gwei: int = 10, **limits: object) -> StepInput:
    """A weekly schedule that is due, with a drift of 30 dollars whose gas costs dollars."""
    step = with_limits(two(weth, 10_000 - weth, [DEEP_PAIR]), **limits)
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=gwei * GWEI))
    return replace(step, policy=replace(step.policy, trigger=Every(7 * 24 * HOUR_S)))


def outcome_of(step: StepInput) -> StepOutcome:
    return evaluation.evaluate_input(step, proposals.propose_rebalance, None)


def test_small_drift_under_a_schedule_is_a_reviewed_hold() -> None:
    outcome = outcome_of(small_drift_step(min_trade=None))

    assert outcome.kind is OutcomeKind.HOLD, outcome.reason
    assert isinstance(outcome.decision, Hold)
    assert outcome.decision.limiting_rule == "limits.plan_cost"
    assert "limits.plan_cost 50 bps): WETH 30 USDC off target: plan_cost allows 0.15; " in outcome.reason
    assert outcome.decision_result.is_reviewed
    assert outcome.decision_result.due_schedules
    assert outcome.kind in REVIEW_DONE_KINDS
    assert not outcome.refusal_verdicts


def test_hold_for_cost_sends_no_alert() -> None:
    facts = RunFacts(paused=False, heartbeat_fault="", low_gas_wei=None)
    alert_kinds = {alert.kind for alert in cycle_alerts(outcome_of(small_drift_step(min_trade=None)), facts)}

    assert not alert_kinds & {AlertKind.REFUSAL, AlertKind.HALT, AlertKind.ERROR}


def test_hold_shows_the_cost_of_each_asset_beside_the_limit() -> None:
    """At 10 gwei and 2,000 dollars a swap is 3 dollars of gas, an approval 0.92; WBTC is bought by way of WETH."""
    pools = [DEEP_PAIR, v3_pool(WBTC, WETH, 30, DEEP, 3_000)]
    step = step_input({"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}, {"WETH": 1_000, "WBTC": 0, "USDC": 2_000}, pools=pools)
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=10 * GWEI), priority_fee_wei=0)

    outcome = outcome_of(with_limits(step, plan_cost_bps=50))

    assert outcome.kind is OutcomeKind.HOLD
    *_, weth_text, wbtc_text = outcome.reason.split("off target: ")
    assert weth_text.startswith("plan_cost allows 2.5; gas 3.92 + fees 1.5")
    assert wbtc_text == "plan_cost allows 4.5; gas 3.92 + fees 2.7 + second hop 5.69 + impact 0.02"


def test_hold_below_min_trade_names_no_cost() -> None:
    """14.88 dollars to move are 8.34 of WETH and 6.54 of WBTC, each below the ten of limits.min_trade; gas is nearly free."""
    values = {"WETH": Fraction("171.72"), "WBTC": Fraction("128.5"), "USDC": Fraction("149.92")}
    step = step_input({"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}, values, trigger=Threshold(None, 1_000))
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=GWEI // 1_000), priority_fee_wei=0)

    outcome = outcome_of(with_limits(step, plan_cost_bps=50, min_trade=Fraction(10 * COIN)))

    assert outcome.kind is OutcomeKind.HOLD, outcome.reason
    assert "too small to trade: of 14.88 USDC to move, each asset's part is below limits.min_trade of 10 USDC" in outcome.reason
    assert "plan_cost" not in outcome.reason


def test_gas_above_any_benefit_is_a_hold() -> None:
    """Pools that lead elsewhere say only that plan_cost is exceeded: gas alone decides."""
    targets = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}
    pools = [v2_pool(WETH, USDC, 2_000, DEEP, fee_pips=500), v3_pool(WBTC, WETH, 30, DEEP), v3_pool(WBTC, WETH, 30, DEEP, 3_000)]
    step = step_input(targets, {"WETH": 0, "WBTC": 0, "USDC": 3_000}, pools=pools)

    outcome = outcome_of(with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=45 * GWEI)))

    assert outcome.kind is OutcomeKind.HOLD, outcome.reason
    assert "plan_cost allows" in outcome.reason


def test_turnover_that_leaves_dust_is_a_refusal() -> None:
    step = with_limits(small_drift_step(weth=5_300, gwei=0), min_trade=Fraction(250 * COIN), turnover_bps=200)

    assert outcome_of(step).kind is OutcomeKind.REFUSED


def test_pool_below_its_floor_is_a_refusal() -> None:
    step = two(6_500, 3_500, [v2_pool(WETH, USDC, 1_900, DEEP)])

    with raises_code(Refused, "plan_cost"):
        planner.plan(step, rebalance_to_targets(step))

    assert outcome_of(step).kind is OutcomeKind.REFUSED


@pytest.mark.parametrize(
    ("plan_cost_bps", "limiting_rule"),
    [pytest.param(5, "limits.plan_cost", id="fee takes all of the limit"), pytest.param(6, "", id="price of the pool is to blame")],
)
def test_nothing_planned_blames_plan_cost_only_for_fees(plan_cost_bps: int, limiting_rule: str) -> None:
    pool = v3_pool(WETH, USDC, 1_990, DEEP, fee_pips=500)
    step = without_gas(with_limits(two(6_500, 3_500, [pool]), plan_cost_bps=plan_cost_bps))

    refusal = plan_refusal(step)

    assert refusal.limiting_rule == limiting_rule


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (OutcomeKind.HOLD, EXIT_OK),
        (OutcomeKind.DONE, EXIT_OK),
        (OutcomeKind.PLANNED, EXIT_OK),
        (OutcomeKind.REFUSED, 10),
        (OutcomeKind.HALT, 10),
        (OutcomeKind.DECLINED, 10),
        (OutcomeKind.FAILED, 11),
    ],
)
def test_outcome_kind_has_its_exit_code(kind: OutcomeKind, exit_code: int) -> None:
    assert OUTCOME_EXIT_CODES.get(kind.value, EXIT_OK) == exit_code


def test_outcome_names_a_skipped_asset_once(capsys: pytest.CaptureFixture[str]) -> None:
    """WETH is bought; WBTC, about 20 dollars off, is not worth its gas."""
    pools = [DEEP_PAIR, v3_pool(WBTC, USDC, 60_000, DEEP, 3_000)]
    values = {"WETH": 3_000, "WBTC": 2_980, "USDC": 4_020}
    step = with_limits(step_input({"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}, values, pools=pools), plan_cost_bps=50)
    planned = outcome_of(step)
    assert planned.kind is OutcomeKind.PLANNED, planned.reason
    done = replace(planned, kind=OutcomeKind.DONE)
    wbtc_text, _ = describe.off_target_reasons(done)  # the other line is of the dollars that would pay for it

    assert wbtc_text.startswith("WBTC stays ")
    assert " USDC off target: plan_cost allows " in wbtc_text
    assert "; gas " in wbtc_text
    for outcome, send_allowed in ((done, True), (planned, False)):
        show_outcome(outcome, None, PrintStyle(as_json=False, verbose=False), send_allowed=send_allowed)
        printed_text = " ".join(capsys.readouterr().out.split())
        assert printed_text.count("WBTC stays") == printed_text.count(wbtc_text) == 1
