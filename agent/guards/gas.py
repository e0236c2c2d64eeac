"""Guards of gas: price, gas per day, native coin left."""

from __future__ import annotations

from typing import Any

from agent.guards.case import GuardCase, GuardMeasurement
from agent.guards.guard import Guard, format_gwei, format_native, limited
from agent.model import TopUp
from agent.policy import failures
from agent.policy.futures.emergency import gas_per_day_wei, is_emergency, step_fee_ceiling_wei
from agent.units import NATIVE

NO_GAS = GuardMeasurement("no gas", True)
"""Measurement for orders at an off-chain futures venue."""


def gas_price(case: GuardCase, limit_wei: int) -> GuardMeasurement:
    """Return the current gas price. The same limit bounds the fee cap of the transaction."""
    if case.needs_no_gas():
        return NO_GAS
    price = case.gas_price_wei()
    if is_emergency(case.plan):
        most = step_fee_ceiling_wei(case.step, case.plan)
        limit = "off" if most is None else f"{format_gwei(most)} in an emergency"
        return GuardMeasurement(format_gwei(price), most is None or price <= most, limit)
    return GuardMeasurement(format_gwei(price), price <= limit_wei)


def gas_per_day(case: GuardCase, limit_wei: int) -> GuardMeasurement:
    """Return the gas of the last 24 h of chain time plus the most that this plan may burn. An exit
    that is retried after failures gets half of the limit; the other half is left for other
    transactions.
    """
    if case.needs_no_gas():
        return NO_GAS
    futures = case.step.futures
    if futures is not None and is_emergency(case.plan):
        most = gas_per_day_wei(futures.limits, case.step.limits) or limit_wei
        spent = case.step.history.emergency_gas_24h_wei + case.worst_gas_wei()
        text = f"{format_native(most)} of emergencies"
        return GuardMeasurement(format_native(spent), spent <= most, text)
    case.require_known_day()
    total = case.step.history.gas_24h_wei + case.worst_gas_wei()
    own = failures.exit_failures(case.step.history, failures.exit_name(case.plan))
    if failures.retry_wait_s(own) == 0:
        return GuardMeasurement(format_native(total), total <= limit_wei)
    limit_wei //= 2
    after = f"{format_native(limit_wei)} after {own.reverts} reverts of this exit"
    return GuardMeasurement(format_native(total), total <= limit_wei, after)


def native_floor(case: GuardCase, limit_wei: int) -> GuardMeasurement:
    """Return the native coin left if this plan burns its largest gas, net of wrapping and
    unwrapping. A gas money refill passes if the wallet can pay its gas and it unwraps more than
    that gas.
    """
    if case.needs_no_gas():
        return NO_GAS
    balance_wei, gas_wei = case.step.snapshot.native_wei, case.worst_gas_wei()
    unwrapped_wei = case.replay.moved.get(NATIVE, 0)
    left_wei = balance_wei + unwrapped_wei - gas_wei
    if isinstance(case.plan.decision, TopUp):
        return GuardMeasurement(
            f"{format_native(left_wei)} after unwrapping {format_native(unwrapped_wei)}",
            gas_wei <= balance_wei and gas_wei < unwrapped_wei,
        )
    if is_emergency(case.plan):
        return GuardMeasurement(format_native(left_wei), left_wei >= 0, "0 in an emergency")
    return GuardMeasurement(format_native(left_wei), left_wei >= limit_wei)


GAS_GUARDS: tuple[Guard[Any], ...] = (
    limited(
        "gas_price",
        lambda limits: limits.gas_price_wei,
        gas_price,
        "wait for cheaper gas, or raise limits.gas_price",
    ),
    limited(
        "gas_per_day",
        lambda limits: limits.gas_per_day_wei,
        gas_per_day,
        "wait until older transactions are 24 h old, or raise limits.gas_per_day",
    ),
    limited(
        "native_floor",
        lambda limits: limits.native_floor_wei,
        native_floor,
        "send native coin to the wallet, or lower limits.native_floor",
    ),
)
"""Guards judged after all others, in the order of their verdicts."""
