"""What may leave in a day: every payment at the reference price of its token, with what left in the 24 hours before."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.guards.table import judge_payout
from agent.model import Payout
from agent.units import NATIVE
from tests.support.builders import ETHER, address, history, step_input, token, with_limits

WETH, USDC = token("WETH").address, token("USDC").address
HOME = address("home")


@pytest.mark.parametrize(
    ("token_paid", "raw", "paid_before", "limit", "passed"),
    [
        (WETH, ETHER, 0, 2_000, True),
        (WETH, ETHER + 1, 0, 2_000, False),
        (NATIVE, ETHER + 1, 0, 2_000, False),
        (WETH, ETHER, 500, 2_500, True),
        (WETH, ETHER, 501, 2_500, False),
        (USDC, 2_000 * 10**6, 0, 2_000, True),
        (USDC, 2_000 * 10**6 + 1, 0, 2_000, False),
    ],
)
def test_a_payment_counts_at_its_price_and_with_what_left_before(
    token_paid: str, raw: int, paid_before: int, limit: int, passed: bool
) -> None:
    step = with_limits(step_input(values={"WETH": 6_000, "USDC": 4_000}), payout_per_day=Fraction(limit * 10**6))
    step = replace(step, history=history(outflow_24h=Fraction(paid_before * 10**6)))
    (judged,) = (
        verdict for verdict in judge_payout(step, Payout(token_paid, HOME, raw, raw, 1), (HOME,)) if verdict.guard == "payout_per_day"
    )
    assert judged.passed is passed
    assert judged.measured_text.startswith(f"{2_000 + paid_before} USDC") or not passed
