"""Tests of agent/backtest/stress/work.py: which settings and limits the fast kernel does not simulate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.backtest.settings import BacktestSpec
from agent.backtest.stress.work import kernel_setting_or_reason
from agent.model import LIMITS, ExecutionStyle, TradeSide
from tests.support.backtests import DEEP, halves

Change = Callable[[BacktestSpec], BacktestSpec]


def assets_with(**fields: Any) -> Change:
    """Return a change of the first asset."""

    def change(spec: BacktestSpec) -> BacktestSpec:
        first, *others = spec.portfolio.assets
        return replace(spec, portfolio=replace(spec.portfolio, assets=(replace(first, **fields), *others)))

    return change


def in_limit_orders(spec: BacktestSpec) -> BacktestSpec:
    pace = replace(spec.execution.pace, style=ExecutionStyle.LIMIT)
    return replace(spec, execution=replace(spec.execution, pace=pace))


def selling_only(spec: BacktestSpec) -> BacktestSpec:
    return replace(spec, policy=replace(spec.policy, trade_side=TradeSide.SELL))


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        pytest.param(assets_with(max_bps=6_000), "limits.max_weight", id="max_weight"),
        pytest.param(assets_with(reserve_raw=1), "reserves", id="reserve"),
        pytest.param(in_limit_orders, "gradual execution", id="pace"),
        pytest.param(selling_only, "trading one side only", id="one side"),
    ],
)
def test_kernel__names_a_setting_that_it_does_not_simulate(change: Change, feature: str) -> None:
    assert kernel_setting_or_reason(change(halves()), DEEP) == feature


@pytest.mark.parametrize("key", sorted(LIMITS))
def test_kernel__of_the_limits_simulates_min_trade_alone(key: str) -> None:
    """The report says that its paths ran without limits; min_trade decides what is traded, and max_weight stands at the assets."""
    spec = halves()
    limited_spec = replace(spec, limits=replace(spec.limits, **{LIMITS[key].field_name: Fraction(10**18)}))
    setting = kernel_setting_or_reason(limited_spec, DEEP)
    assert not isinstance(setting, str)
    without_limit = kernel_setting_or_reason(spec, DEEP)
    assert not isinstance(without_limit, str)
    assert setting == replace(without_limit, min_trade=1.0 if key == "min_trade" else 0.0)
