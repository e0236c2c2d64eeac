"""Steps with a no-trade zone, and where its edges should be."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import sqrt
from typing import Any

from agent.model import StepInput
from agent.policy.decide import decide
from agent.policy.triggers.no_trade_zone import ZoneView
from tests.support.builders import GWEI, token, with_snapshot, zoned

HALF = {"WETH": 5_000, "USDC": 5_000}
WETH, USDC, WBTC, LINK = (token(symbol) for symbol in ("WETH", "USDC", "WBTC", "LINK"))
PRICES = {WETH.address: Fraction(2_000, 10**12), USDC.address: Fraction(1)}
V = 100_000
FEE = 0.003
GAS_UNITS = 150_000 + 46_000
"""One swap in a multicall, and its approval."""


def zone_step(share: Fraction | str = "1/2", risk: dict[str, Any] | None = None, gwei: Fraction | str = "11/10", **step: Any) -> StepInput:
    """WETH and USDC worth 100,000 with that share of WETH at 2,000 USDC, gas at that price."""
    value_by_symbol = {"WETH": Fraction(share) * V, "USDC": (1 - Fraction(share)) * V}
    step_with_zone = zoned(HALF, value_by_symbol, risk, **{"depth": 10**9, **step})
    wei = int(Fraction(gwei) * GWEI)
    return with_snapshot(step_with_zone, priority_fee_wei=0, head=replace(step_with_zone.snapshot.head, base_fee_wei=wei))


def view(step: StepInput) -> ZoneView:
    zone_view = decide(step).zone
    assert zone_view is not None
    return zone_view


def edges(step: StepInput, number: int = 0) -> tuple[float, float]:
    """(distance of the no-trade edge, distance of the trigger) above the target."""
    interval = view(step).intervals[number]
    target = step.effective_assets[number].target_bps / 10_000
    return float(interval.high) - target, float(interval.trigger_high) - target


def pair_edge(fee: float = FEE, cost_bps: float = 0.5, days: float = 30, variance: float = 0.8**2 + 0.005**2) -> float:
    """c / (λ·H·σ²): where the last unit saves what it costs (Davis-Norman 1990; Leland 1999), σ that of one token in the other."""
    return fee / (2 * cost_bps * days / 365 * variance)


def pair_gap(gas: float, total: float = V, cost_bps: float = 0.5, days: float = 30, variance: float = 0.8**2 + 0.005**2) -> float:
    """√(2F / (λ·H·σ²·V)): how much further out the whole way back to the edge pays its gas F."""
    return sqrt(2 * gas / (2 * cost_bps * days / 365 * variance * total))
