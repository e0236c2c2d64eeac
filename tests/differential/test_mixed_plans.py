"""Random plans over every kind of pool, mined up to 300 seconds after their snapshot."""

from __future__ import annotations

import pytest

from scripts.check.mixed_plans import run_plans


@pytest.mark.slow
def test_plans_over_every_kind__keep_minimums_or_revert() -> None:
    outcomes = run_plans(range(30))
    assert {leg.venue for outcome in outcomes if outcome.plan for leg in outcome.plan.legs} == {
        "uniswap_v2", "uniswap_v3", "uniswap_v4", "pancake_v3", "slipstream",
    }  # fmt: skip
    assert [str(outcome) for outcome in outcomes if outcome.failure] == []
