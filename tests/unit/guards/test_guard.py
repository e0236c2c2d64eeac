"""Tests of agent/guards/guard.py: when a guard is off, what missing data do, and how measurements and limits read."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.guards.case import GuardCase, GuardMeasurement, MissingData, build_guard_case
from agent.guards.guard import fixed_guard, format_native, format_ratio, limit_guard
from agent.model import Verdict
from agent.units import BPS, format_gwei
from tests.support.builders import ETHER, GWEI, step_input, with_limits
from tests.support.plans import evidence, sell_weth

CASE = build_guard_case(step_input(), sell_weth(step_input()), evidence(step_input(), sell_weth(step_input())))


@pytest.mark.parametrize(
    ("slippage_bps", "judged"),
    [
        pytest.param(None, Verdict("slippage", "not measured", "off", True), id="off"),
        pytest.param(0, Verdict("slippage", "1 bps", "0 bps", False), id="zero is a limit"),
        pytest.param(30, Verdict("slippage", "1 bps", "30 bps", True), id="thirty"),
    ],
)
def test_guard_is_off_without_a_limit_alone(slippage_bps: int | None, judged: Verdict) -> None:
    step = with_limits(step_input(), slippage_bps=slippage_bps)
    guard = limit_guard(
        "slippage", lambda limits: limits.slippage_bps, lambda case, limit_bps: GuardMeasurement("1 bps", limit_bps >= 1), "trade less"
    )

    assert guard.judge(build_guard_case(step, sell_weth(step), evidence(step, sell_weth(step)))) == judged


def test_guard_refuses_missing_data() -> None:
    def measure(case: GuardCase) -> GuardMeasurement:
        raise MissingData("the pool was not read")

    assert fixed_guard("depth", "deep", measure, "wait").judge(CASE) == Verdict(
        "depth", "unknown: the pool was not read", "deep", passed=False, is_known=False
    )


def test_guard_takes_the_first_measurement_that_applies() -> None:
    guard = fixed_guard("depth", "deep", lambda case: GuardMeasurement("its own", True), "wait")
    layered_guard = guard.measured_by(lambda case, limit: None, lambda case, limit: GuardMeasurement("of a layer", False, "less"))

    assert layered_guard.judge(CASE) == Verdict("depth", "of a layer", "less", False)
    assert guard.measured_by(lambda case, limit: None).judge(CASE) == Verdict("depth", "its own", "deep", True)


@pytest.mark.parametrize(
    ("key", "value", "limit_text"),
    [
        pytest.param("price_impact", 100, "100 bps", id="a share"),
        pytest.param("head_age", 90, "90 s", id="a duration"),
        pytest.param("gas_price", 60 * GWEI, "60 gwei", id="a gas price"),
        pytest.param("native_floor", ETHER // 20, "at least 0.05 native", id="a minimum of native coin"),
        pytest.param("pool_min_value", Fraction(50_000 * 10**6), "at least 50000 USDC", id="a minimum of money"),
    ],
)
def test_limit_guard_formats_its_limit_by_the_unit_of_its_key(key: str, value: object, limit_text: str) -> None:
    guard = limit_guard(key, lambda limits: value, lambda case, limit: GuardMeasurement("", True), "")

    assert guard.judge(CASE).limit == limit_text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        pytest.param(Fraction(100, BPS), "100 bps", id="at a limit of 100"),
        pytest.param(Fraction(100, BPS) + Fraction(1, 10**12), "100.01 bps", id="least above it"),
    ],
)
def test_ratio_above_a_limit_never_reads_as_the_limit(share: Fraction, text: str) -> None:
    assert format_ratio(share) == text


def test_gas_prices_and_native_coin_read_to_the_last_wei() -> None:
    assert format_gwei(GWEI + 1) == "1.000000001 gwei"
    assert format_native(ETHER - 1) == "0.999999999999999999 native"
