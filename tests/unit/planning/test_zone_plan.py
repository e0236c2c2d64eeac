"""A zone's plans: they save more than they cost, go as far as the last unit pays, and no other amount would do better."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent import app as api
from agent.amm import pools
from agent.model import Allowance, Hold, Plan, Rebalance, StepInput
from agent.planning.proposals import Proposal, decision_after_plan, propose_rebalance
from agent.policy import minimum
from agent.policy.decide import decide
from agent.units import BPS, PIPS
from tests.support.builders import ROUTER, token, v2_pool, with_limits, with_snapshot
from tests.support.decisions.zone_plans import COIN, deep_step, unit_value
from tests.support.decisions.zones import GAS_UNITS, V, pair_edge, pair_gap, zone_step
from tests.support.plans import proposed_plan
from tests.support.samples import examples
from tests.support.text import mentions
from tests.support.tokens import USDC, WETH

PER_UNIT = 2 * 0.5 * 30 / 365 * 0.640025 / V
"""Risk of a dollar of deviation per dollar, in a month at a cost of half a basis point."""


def gas_of(gwei: float) -> float:
    """Return the dollars that the planner counts for one swap and its approval at that gas price."""
    plan = proposed_plan(zone_step("9/10", gwei=0, depth=10**12))
    assert len(plan.legs) == 1
    return (plan.gas_units + minimum.APPROVAL_GAS) * gwei * 1e-9 * 2_000


def values_after(step: StepInput, plan: Plan) -> dict[str, float]:
    """Return the dollars of each asset after a plan."""
    return {at: float(raw * unit_value(step, at)) / COIN for at, raw in plan.holdings_after}


def rate_after(step: StepInput, plan: Plan) -> float:
    """Return what the pool pays for the next unit of WETH after the plan's leg, fee included, as a share of its price."""
    (pool,) = step.snapshot.pools
    after = pool.swap(plan.legs[0].token_in, plan.legs[0].amount_in_raw).pool_after
    return float(pools.marginal_price(after, WETH.address)) * 10**12 / 2_000 * (1 - pool.fee_pips / PIPS)


def share_after(step: StepInput, plan: Plan, symbol: str = "WETH") -> float:
    values = values_after(step, plan)
    return values[token(symbol).address] / sum(values.values())


def assert_hold(proposal: Proposal) -> str:
    """Require a hold without a plan, and return its reason."""
    assert proposal.plan is None
    assert isinstance(proposal.decision_result.decision, Hold)
    return proposal.decision_result.decision.reason


def test_zone_plan_trades_to_the_edge_and_no_further() -> None:
    """A unit of WETH sold brings 0.997: the deviation falls by 0.9985 and 0.003 is lost, so that it stops at 0.003 / 0.9985 / k."""
    step = deep_step("3/5")
    proposal = propose_rebalance(step)
    saving = proposal.plan.zone_tradeoff
    value_left = 0.003 / 0.9985 / PER_UNIT
    sold = (0.1 * V - value_left) / 0.9985
    assert value_left == pytest.approx(pair_edge() * V, rel=2e-3)
    assert proposal.plan.legs[0].amount_in_raw * 2_000 / 10**18 == pytest.approx(sold, rel=1e-5)
    assert share_after(step, proposal.plan) == pytest.approx(0.5 + value_left / (V - 0.003 * sold), abs=1e-6)
    assert float(saving.risk_before) / COIN == pytest.approx(0.5 * PER_UNIT * (0.1 * V) ** 2, rel=1e-9)
    assert float(saving.risk_after) / COIN == pytest.approx(0.5 * PER_UNIT * value_left**2, rel=2e-5)
    assert float(saving.fees) / COIN == pytest.approx(0.003 * sold, rel=1e-5)
    assert float(saving.gas + saving.approval_gas) / COIN == pytest.approx(gas_of(1.1), rel=1e-6)
    assert saving.covers_cost
    assert proposal.decision_result.zone.plan_tradeoff == saving


@pytest.mark.parametrize(("gwei", "cost_bps"), [(1, "1/2"), (16, "1/2"), (4, "2")])
def test_zone_plan_fires_where_the_square_root_law_says(gwei: int, cost_bps: str) -> None:
    """The first share at which the whole engine trades, by bisection, against the formula at the gas that the plan really has."""
    low = Fraction(1, 2)
    high = Fraction(9, 10)
    while high - low > Fraction(1, 20_000):
        middle = (low + high) / 2
        fires = propose_rebalance(deep_step(middle, gwei=gwei, risk={"cost_bps": Fraction(cost_bps)})).plan is not None
        low, high = (low, middle) if fires else (middle, high)
    cost = float(Fraction(cost_bps))
    edge = 0.5 + pair_edge(cost_bps=cost) + pair_gap(gas_of(gwei), cost_bps=cost)
    assert float(high) == pytest.approx(edge, abs=2e-4)
    assert GAS_UNITS * gwei * 1e-9 * 2_000 > gas_of(gwei), "the band that status shows errs on the side of waiting"


def test_zone_plan_that_saves_less_than_its_gas_is_a_hold() -> None:
    step = deep_step("29/50", gwei=5)
    proposal = propose_rebalance(step)
    reason = assert_hold(proposal)
    saving = proposal.decision_result.zone.plan_tradeoff
    assert 0 < saving.saved_risk < saving.cost
    gas, approval_gas = (float(value) / COIN for value in (saving.gas, saving.approval_gas))
    costs = f"(fees 6.8759, impact 0, skew 0, gas {gas:.4g}, approvals {approval_gas:.4g})"
    assert mentions(reason, "outside", "WETH to USDC", "42.08 bps", "30 bps", costs)
    assert all(words in reason for words in ("whole plan", "30 days"))
    assert decision_after_plan(step) == proposal.decision_result
    assert isinstance(decide(step).decision, Rebalance), "the zone alone does not know the plan"
    assert isinstance(decision_after_plan(deep_step("29/50", gwei=1)).decision, Rebalance)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        pytest.param(deep_step("14/25", gwei=50), "gas costs", id="no pool is worth its gas"),
        pytest.param(with_limits(deep_step("57/100"), min_trade=Fraction(5_000 * COIN)), "7000 USDC", id="below min_trade"),
    ],
)
def test_zone_holds_where_nothing_is_worth_a_trade(step: StepInput, words: str) -> None:
    assert words in assert_hold(propose_rebalance(step))


def test_zone_plan_counts_only_missing_approvals() -> None:
    def approval_gas(raw: int) -> Fraction:
        allowed = (Allowance(WETH.address, ROUTER, raw), Allowance(USDC.address, ROUTER, 0))
        return proposed_plan(with_snapshot(deep_step("3/5"), allowances=allowed)).zone_tradeoff.approval_gas / COIN

    single_approval = Fraction(46_000 * 11 * 2_000, 10 * 10**9)
    assert (approval_gas(0), approval_gas(10**20), approval_gas(1)) == (single_approval, 0, 2 * single_approval)


def test_zone_does_not_trade_for_the_gain_of_a_pool() -> None:
    """The pool pays 1 % too much for WETH: inside the zone nothing fires, outside the swap costs its gas."""
    generous = [v2_pool(WETH, USDC, 2_020, 10**12)]
    assert propose_rebalance(deep_step("11/20", pools=generous)).plan is None
    plan = proposed_plan(deep_step("3/5", pools=generous))
    assert plan.zone_tradeoff.skew < 0
    assert plan.zone_tradeoff.cost == plan.zone_tradeoff.gas + plan.zone_tradeoff.approval_gas
    assert share_after(deep_step("3/5"), plan) >= 0.5, "and is no reason to go past the target"


def test_zone_plan_skipped_names_the_next_unit() -> None:
    plan = proposed_plan(deep_step("3/5"))
    assert {item.subject for item in plan.skipped} == {"WETH", "USDC"}
    assert all("next unit" in item.why for item in plan.skipped)


@pytest.mark.parametrize("step", [deep_step("3/5"), deep_step("14/25", gwei=50), deep_step("1/2")], ids=["trades", "waits", "on target"])
def test_saved_step_proposes_the_same_zone_plan(step: StepInput) -> None:
    outcome = api.plan_saved_input(api.input_text(step))
    proposal = propose_rebalance(step)
    assert (outcome.decision_result, outcome.plan) == (proposal.decision_result, proposal.plan)
    assert outcome.decision_result == decision_after_plan(step)


@examples(10)
@given(
    share=st.integers(500, 9_500),
    depth=st.sampled_from([10**6, 10**7, 10**9]),
    gwei=st.sampled_from([0, 1, 30]),
    cost=st.sampled_from([Fraction(1, 4), 1, 4]),
)
@example(share=500, depth=10**6, gwei=0, cost=4).via("its worst case is more than limits.daily_loss")
def test_zone_plan_is_the_best_amount_in_a_single_pool(share: int, depth: int, gwei: int, cost: Fraction) -> None:
    """Brute force over amounts, in exact quotes: what is saved less what is paid, against the plan's."""
    step = with_limits(
        zone_step(Fraction(share, BPS), {"cost_bps": cost}, gwei=gwei, depth=depth, ),
        turnover_bps=None, daily_turnover_bps=None, daily_loss_bps=None, min_trade=None, pool_min_value=None, plan_cost_bps=5_000,
        price_impact_bps=2_000,
    )  # fmt: skip
    pool = step.snapshot.pools[0]
    sold = WETH if share > 5_000 else USDC
    raw_by_token = {h.token: h.raw for h in step.snapshot.holdings}
    gas = gas_of(gwei)
    before = (share / BPS - 0.5) * V

    def net(amount_raw: int) -> float:
        """In dollars; the deviation is that from half of what is left."""
        if amount_raw <= 0:
            return 0.0
        moved = {sold.address: -amount_raw, pools.token_out(pool, sold.address): pool.quote(sold.address, amount_raw)}
        ends = {at: float((raw + moved[at]) * unit_value(step, at)) / COIN for at, raw in raw_by_token.items()}
        off = (ends[WETH.address] - ends[USDC.address]) / 2
        return float(cost) * PER_UNIT * (before**2 - off**2) - (V - sum(ends.values())) - gas

    most = min(raw_by_token[sold.address], pool.max_in(sold.address, 2_000))
    best = max((net(int(most * k / 1_000)), k) for k in range(1, 1_001))
    plan = propose_rebalance(step).plan
    if plan is None:
        assert best[0] <= 0.01, "holding was best, to a cent"
        return
    achieved = float(plan.zone_tradeoff.saved_risk - plan.zone_tradeoff.cost) / COIN
    assert achieved == pytest.approx(net(plan.legs[0].amount_in_raw), abs=1e-3)
    assert achieved > 0
    assert achieved >= best[0] - 0.01


def test_zone_plan_ends_where_the_last_unit_saves_its_fee() -> None:
    """In a pool that moves: the marginal price after the plan, fee included, against the marginal risk there."""
    step = with_limits(deep_step("7/10", depth=10**7), plan_cost_bps=500)
    plan = proposed_plan(step)
    rate = rate_after(step, plan)
    ends = values_after(step, plan)
    assert PER_UNIT * (ends[WETH.address] - ends[USDC.address]) / 2 * (1 + rate) / 2 == pytest.approx(1 - rate, rel=1e-3)


def test_zone_plan_pays_at_most_plan_cost_for_a_unit() -> None:
    step = with_limits(deep_step("7/10", risk={"cost_bps": 50}, depth=10**7), plan_cost_bps=40)
    assert 0.00398 < 1 - rate_after(step, proposed_plan(step)) <= 0.004 * (1 + 1e-3)
