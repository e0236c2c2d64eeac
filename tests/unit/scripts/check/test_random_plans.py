"""The script of random plans finds nothing wrong with ours, and gives another solver the pools as they are."""

import json
from fractions import Fraction

import pytest

from agent.reference import reference_prices
from agent.reference.floors import least_rate
from agent.units import BPS
from scripts.check import random_plans
from tests.support.planning_worlds import KINDS


@pytest.mark.parametrize("kind", random_plans.PROBLEMS_BY_KIND)
def test_a_few_plans_of_each_kind_have_nothing_wrong(kind: str) -> None:
    tally = random_plans.plan_problems(kind, range(5), 1)
    assert tally.errors == []
    assert tally.counts["planned"] == len(tally.gaps_bps) >= 3
    assert tally.counts["leftovers"] == tally.counts["violations"] == 0


def test_another_solver_gets_each_pool_up_to_its_bound() -> None:
    for seed in range(40):
        step = KINDS["hubs"](seed)
        prices = reference_prices(step).price_by_token
        for pool in step.snapshot.pools:
            token_out = {pool.token0: pool.token1, pool.token1: pool.token0}
            for token_in in token_out:
                curve_ranges = random_plans.curve_ranges(step, pool, token_in, prices, Fraction(1))
                least = least_rate(pool.fee_pips, step.limits.price_impact_bps or BPS, step.limits.slippage_bps or 0)
                rate = least * prices[token_in] / prices[token_out[token_in]]
                room = pool.best_amount_in(token_in, rate, step.limits.price_impact_bps or BPS) * prices[token_in]
                if curve_ranges is None:
                    assert room <= max(prices[token_in], 1)
                    continue
                keep, roots, depths = json.loads(json.dumps(curve_ranges))
                total = sum(depth * (1 / end - 1 / top) for top, end, depth in zip(roots[:-1], roots[1:], depths, strict=True) if end < top)
                assert total / keep == pytest.approx(float(room), rel=1e-3, abs=float(prices[token_in]) * 50 + 1)
