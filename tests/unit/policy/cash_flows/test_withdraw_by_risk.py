"""A withdrawal under the tracking rule raises its cash from the overweight, whatever its size, and sells nothing beyond it."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.model import Payment, PendingPayment
from agent.planning.requests import raise_money_proposer
from agent.policy.cash_flows import transfers
from agent.policy.native_coin import held_balances
from agent.units import BPS
from tests.support.builders import raw, token, with_limits
from tests.support.decisions.tracking import DEPTH, balance_changes, pools_of, tracking_step
from tests.support.tokens import USDC

COST_BPS = 50
SLIPPAGE_BPS = 30


@pytest.mark.parametrize(
    ("dollars", "overweight"),
    [
        pytest.param(18_000, {"WETH"}, id="one asset covers it"),
        pytest.param(26_000, {"WETH", "LINK"}, id="to the targets of one"),
        pytest.param(30_000, {"WETH", "LINK"}, id="WBTC is overweight of what is left, least of all"),
    ],
)
def test_withdrawal_sells_the_overweight_for_its_cash_alone(dollars: int, overweight: set[str]) -> None:
    """WBTC is far below its target, the cash of 16,000 is above its own."""
    values = balance_changes(WETH=3_000, WBTC=-6_000, LINK=2_000)
    step = with_limits(tracking_step(values, pools=pools_of(DEPTH, 500)), plan_cost_bps=COST_BPS, slippage_bps=SLIPPAGE_BPS)
    step = transfers.reserve_claims(step, (PendingPayment(0, Payment(USDC.address, raw(dollars, USDC))),))
    short_raw = transfers.shortfall_raw(step.portfolio, step.limits, held_balances(step), USDC.address)
    assert short_raw == raw(dollars - values["USDC"], USDC)
    plan = raise_money_proposer(USDC.address)(step).plan
    changes = plan.wallet_changes()
    raised_raw = changes.pop(USDC.address)
    assert {symbol for symbol in values if changes.get(token(symbol).address)} == overweight
    assert all(change_raw < 0 for change_raw in changes.values())
    assert short_raw <= raised_raw <= short_raw * (1 + Fraction(COST_BPS + SLIPPAGE_BPS, BPS)), "no more than its costs may take"
