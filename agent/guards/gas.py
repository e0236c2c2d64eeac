"""Guards on gas money: its price, what a day may burn, what must stay in the wallet."""

from __future__ import annotations

from agent.guards.case import Case, Measured
from agent.guards.words import gwei, native
from agent.model import TopUp
from agent.units import NATIVE


def gas_price(case: Case, limit_wei: int) -> Measured:
    """Price of a unit of gas now; the fee cap of the transaction is held to the same limit when it is sent."""
    price = case.gas_price_wei()
    return Measured(gwei(price), price <= limit_wei)


def gas_per_day(case: Case, limit_wei: int) -> Measured:
    """Gas money of the last 24 h of chain time and the most that this plan may burn."""
    case.require_known_day()
    total = case.step.history.gas_24h_wei + case.worst_gas_wei()
    return Measured(native(total), total <= limit_wei)


def native_floor(case: Case, limit_wei: int) -> Measured:
    """Native coin that is left when this plan burns the most it may; what it wraps and unwraps counts.

    A plan that only refills passes wherever its own gas is there and less than it unwraps, since below the floor nothing else can.
    """
    had_wei, gas_wei = case.step.snapshot.native_wei, case.worst_gas_wei()
    turned_wei = case.replay.moved.get(NATIVE, 0)
    left_wei = had_wei + turned_wei - gas_wei
    if isinstance(case.plan.decision, TopUp):
        return Measured(f"{native(left_wei)} after unwrapping {native(turned_wei)}", gas_wei <= had_wei and gas_wei < turned_wei)
    return Measured(native(left_wei), left_wei >= limit_wei)
