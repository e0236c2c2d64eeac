"""A deposit that stays as it is: the reason is the weight of what was deposited, never that all is on target."""

from __future__ import annotations

import pytest

from agent.model import Hold, StepInput
from agent.planning.requests import invest_proposer
from agent.policy.cash_flows.transfers import kept_deposit_reason
from tests.support.builders import raw, step_input, v3_pool, with_limits
from tests.support.tokens import USDC, WETH

TARGETS = {"WETH": 4_000, "USDC": 6_000}


def held(weth: int, usdc: int) -> StepInput:
    pools = [v3_pool(WETH, USDC, 2_000, fee_pips=500)]
    return step_input(TARGETS, {"WETH": weth, "USDC": usdc}, pools=pools)


@pytest.mark.parametrize("first_purchase_s", [None, 3_600], ids=["at once", "in parts"])
@pytest.mark.parametrize(
    ("weth", "usdc", "weight"),
    [
        pytest.param(8_000, 2_000, "20.00", id="80 % ether"),
        pytest.param(4_000, 6_000, "60.00", id="40 % ether"),
        pytest.param(9_999, 1, "0.01", id="99.99 % ether"),
    ],
)
def test_deposit_of_an_underweight_asset_names_its_weight(weth: int, usdc: int, weight: str, first_purchase_s: int | None) -> None:
    step = with_limits(held(weth, usdc), first_purchase_s=first_purchase_s)
    proposal = invest_proposer({USDC.address: raw(min(usdc, 500), USDC)})(step)
    decision = proposal.decision_result.decision
    assert isinstance(decision, Hold)
    assert f"USDC is at {weight} % of 60.00 %" in decision.reason, decision.reason
    assert "on target" not in decision.reason


def test_deposit_of_an_overweight_asset_is_not_kept() -> None:
    assert kept_deposit_reason(held(8_000, 2_000), {WETH.address: raw(1, WETH)}) == ""
    assert kept_deposit_reason(held(2_000, 8_000), {USDC.address: raw(1, USDC)}) == ""
