"""What a stop leaves in the wallet although it sells and pays: gas money and reserves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from agent.app.money.payable import kept_back_text
from agent.model import Holding
from tests.support.builders import ETHER, step_input, token, with_snapshot


@pytest.mark.parametrize(
    ("native_wei", "reserves", "text"),
    [
        pytest.param(0, {}, "", id="nothing"),
        pytest.param(ETHER // 100, {}, "0.01 of native coin for gas stays in the wallet", id="gas money"),
        pytest.param(0, {"WETH": 1}, "1 WETH held in reserve stays in the wallet", id="reserve"),
        pytest.param(1, {"USDC": 7}, "0 of native coin for gas, 7 USDC held in reserve stay in the wallet", id="both"),
    ],
)
def test_kept_back_text__names_gas_money_and_reserves(native_wei: int, reserves: Mapping[str, int], text: str) -> None:
    step = step_input({"WETH": 5_000, "USDC": 5_000}, reserves=reserves)
    assert kept_back_text(with_snapshot(step, native_wei=native_wei)) == text


def test_kept_back_text__names_what_is_there_of_a_reserve() -> None:
    step = step_input({"WETH": 5_000, "USDC": 5_000}, reserves={"WETH": 9})
    step = with_snapshot(step, native_wei=0, holdings=(Holding(token("WETH").address, ETHER // 4),))
    assert kept_back_text(step) == "0.25 WETH held in reserve stays in the wallet"


@pytest.mark.parametrize(
    ("wrapped_wei", "native_wei", "text"),
    [
        pytest.param(0, 202 * ETHER // 100, "0.02 of native coin for gas, 2 WETH held in reserve stay in the wallet", id="in native coin"),
        pytest.param(ETHER // 2, 3 * ETHER // 2, "2 WETH held in reserve stays in the wallet", id="in both, nothing for gas"),
        pytest.param(
            2 * ETHER, ETHER // 50, "0.02 of native coin for gas, 2 WETH held in reserve stay in the wallet", id="in wrapped coin"
        ),
        pytest.param(0, ETHER, "1 WETH held in reserve stays in the wallet", id="not all there"),
    ],
)
def test_kept_back_text__counts_native_coin_to_its_reserve_first(wrapped_wei: int, native_wei: int, text: str) -> None:
    step = step_input({"WETH": 5_000, "USDC": 5_000}, reserves={"WETH": 2})
    assets = tuple(replace(asset, includes_native=asset.token == token("WETH")) for asset in step.portfolio.assets)
    step = replace(step, portfolio=replace(step.portfolio, assets=assets))
    step = with_snapshot(step, native_wei=native_wei, holdings=(Holding(token("WETH").address, wrapped_wei),))
    assert kept_back_text(step) == text
