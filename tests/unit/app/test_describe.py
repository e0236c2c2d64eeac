"""Tests of agent/app/describe.py: a limit in the question before sending."""

from __future__ import annotations

import pytest

from agent.app.describe import limit_text


@pytest.mark.parametrize(
    ("name", "limit", "text"),
    [
        pytest.param("token_screen", True, "on", id="switch on"),
        pytest.param("token_screen", False, "off", id="switch off"),
        pytest.param("slippage", None, "off", id="limit off"),
        pytest.param("slippage", 30, "0.3 %", id="share"),
        pytest.param("head_age", 90, "1 min 30 s", id="duration"),
        pytest.param("gas_price", 60 * 10**9, "60 gwei", id="gas price"),
        pytest.param("native_floor", "0.05", "0.05 native", id="native coin"),
        pytest.param("min_trade", "100", "100 USDC", id="coins"),
        pytest.param("max_weight", {"any": 4_000, "WETH": 5_500, "USDC": 7_000}, "any 40 %, WETH 55 %, USDC 70 %", id="share by asset"),
        pytest.param("i_accept", ["slippage", "plan_cost"], "slippage, plan_cost", id="names"),
        pytest.param("i_accept", [], "none", id="no name"),
    ],
)
def test_limit__is_shown_with_its_unit(name: str, limit: bool | int | str | list[str] | dict[str, int] | None, text: str) -> None:
    assert limit_text(name, limit, "USDC") == text
