"""Tests of agent/signing/calldata.py and of what is not encoded for the router: hex that is no calldata, plans that cannot run."""

from __future__ import annotations

import pytest

from agent.errors import Refused
from agent.model import LegPlace, Plan
from agent.signing.calldata import UndecodableCalldata, decode
from agent.venues.calldata import encode_multicall
from tests.support.signing import DEADLINE_S, PLAN, USDC, WALLET, WBTC, WETH, leg, plan_of
from tests.support.text import raises_code

R = LegPlace.ROUTER


@pytest.mark.parametrize(
    ("plan", "code", "figure"),
    [
        pytest.param(plan_of(), "no_legs", "", id="no legs"),
        pytest.param(plan_of(leg(WETH, USDC, 1, 0)), "amount", "must be above zero", id="buys nothing"),
        pytest.param(plan_of(leg(WETH, USDC, 0, 5)), "amount", "must be above zero", id="sells nothing"),
        pytest.param(plan_of(leg(WETH, USDC, 5, 500, venue="curve")), "venue", "'curve'", id="another venue"),
        pytest.param(plan_of(leg(WETH, USDC, 5, 500, sink=R)), "router_balance", "leaves", id="left in the router"),
        pytest.param(plan_of(leg(WETH, USDC, 5, 500, source=R)), "router_balance", "no earlier leg", id="not in the router"),
        pytest.param(
            plan_of(leg(WETH, USDC, 5, 500, sink=R), leg(WBTC, USDC, 5, 500, source=R)), "router_balance", "no earlier leg",
            id="another token in the router",
        ),
    ],
)  # fmt: skip
def test_plan_that_cannot_run_in_the_router_is_not_encoded(plan: Plan, code: str, figure: str) -> None:
    with raises_code(Refused, code, figure):
        encode_multicall(plan, WALLET, DEADLINE_S)


def test_plan_without_a_deadline_is_not_encoded() -> None:
    with raises_code(Refused, "deadline"):
        encode_multicall(PLAN, WALLET, 0)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("", id="nothing"),
        pytest.param("0x", id="no function"),
        pytest.param("0x0", id="half a byte"),
        pytest.param("0xzz", id="no hex"),
        pytest.param("095ea7b3", id="no 0x"),
        pytest.param("0x 095ea7b3", id="a space"),
        pytest.param("0x095ea7b3", id="no arguments"),
        pytest.param("0x095ea7b3" + "00" * 64 + "zz", id="no hex at the end"),
        pytest.param("0x095ea7b3" + f"{1 << 160:064x}" + "00" * 32, id="an address of 161 bits"),
    ],
)
def test_what_is_no_calldata_is_not_decoded(data: str) -> None:
    with pytest.raises(UndecodableCalldata):
        decode(data)
