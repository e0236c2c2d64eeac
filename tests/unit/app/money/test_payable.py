"""What a stop leaves in the wallet although it sells and pays: gas money and reserves."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agent.app.money.payable import kept_back_text
from agent.model import Holding
from tests.support.builders import ETHER, step_input, token, with_snapshot


@pytest.mark.parametrize(
    ("native_wei", "reserves", "text"),
    [
        pytest.param(0, {}, "", id="nothing"),
        pytest.param(ETHER // 100, {}, "0.01 of native coin for gas stays in the wallet", id="gas money"),
        pytest.param(0, {"WETH": 1}, "1 WETH of reserve stays in the wallet", id="reserve"),
        pytest.param(1, {"USDC": 7}, "0 of native coin for gas, 7 USDC of reserve stay in the wallet", id="both"),
    ],
)
def test_kept_back_text__names_gas_money_and_reserves(native_wei: int, reserves: Mapping[str, int], text: str) -> None:
    step = step_input({"WETH": 5_000, "USDC": 5_000}, reserves=reserves)
    assert kept_back_text(with_snapshot(step, native_wei=native_wei)) == text


def test_kept_back_text__names_what_is_there_of_a_reserve() -> None:
    step = step_input({"WETH": 5_000, "USDC": 5_000}, reserves={"WETH": 9})
    step = with_snapshot(step, native_wei=0, holdings=(Holding(token("WETH").address, ETHER // 4),))
    assert kept_back_text(step) == "0.25 WETH of reserve stays in the wallet"
