"""The futures layer's orders as a plan of the step, from its snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from agent.model import AdjustFutures, AssetDrift, Plan, PlanCost, SkippedItem, StepInput
from agent.model.futures import FuturesPlan, MarginAccount, PerpOrder
from agent.planning.futures import plan_futures
from agent.policy.futures.decide import (
    backing_off,
    futures_fault,
    quote_per_numeraire,
    spot_value_in_quote,
)
from agent.reference import reference_prices
from agent.units import ceil_int, largest_remainder

ORDER_GAS = 1_100_000
"""Gas of an order: up to 1.08 million were measured on the real contracts."""
PPM = 1_000_000


def plan_adjustment(
    step: StepInput, decision: AdjustFutures, drifts: Iterable[AssetDrift]
) -> Plan | str:
    """Return the plan of the futures layer, or why no order is possible now.

    Orders in a market that waits after failures are left out. No collateral is deposited.
    """
    account, policy, drifts = step.snapshot.futures, step.futures, tuple(drifts)
    if account is None or policy is None or (fault := futures_fault(step)):
        return fault or "the margin account is not known"
    planned = plan_futures(
        account, policy, spot_value_in_quote(step, drifts), step.snapshot.head.timestamp_s
    )
    orders, refused = [], list(planned.refused)
    for order in planned.orders:
        if waits := backing_off(step, order.market):
            refused.append(f"{account.market(order.market).symbol}: {waits}")
        else:
            orders.append(order)
    if not orders:
        return "; ".join([planned.reason, *refused])
    futures = replace(
        planned,
        orders=tuple(orders),
        refused=tuple(refused),
        is_reducing=all(order.is_reduce_only for order in orders),
    )
    decision = replace(decision, is_reducing=futures.is_reducing)
    return _plan(step, decision, futures, account, drifts)


def _plan(
    step: StepInput,
    decision: AdjustFutures,
    futures: FuturesPlan,
    account: MarginAccount,
    drifts: tuple[AssetDrift, ...],
) -> Plan:
    """Return the plan: the wallet changes by gas alone, fees are paid by the margin account."""
    held = {holding.token: holding.raw for holding in step.snapshot.holdings}
    values = [drift.value for drift in drifts]
    weights = largest_remainder(values) if sum(values) > 0 else [0] * len(values)
    gas_units = ORDER_GAS * len(futures.orders)
    coin = reference_prices(step).by_token.get(step.portfolio.wrapped_native, Fraction(0))
    base, snapshot = step.snapshot.head.base_fee_wei, step.snapshot
    price_wei = snapshot.gas_price_wei if base is None else base + snapshot.priority_fee_wei
    fees = sum((fee_raw(account, order) for order in futures.orders), 0)
    zero = Fraction(0)
    return Plan(
        block=snapshot.head.number,
        decision=decision,
        legs=(),
        holdings_after=tuple(
            (asset.token.address, held.get(asset.token.address, 0))
            for asset in step.portfolio.assets
        ),
        weights_after_bps=tuple(
            (drift.token, bps) for drift, bps in zip(drifts, weights, strict=True)
        ),
        cost=PlanCost(fees / quote_per_numeraire(step), zero, zero, gas_units * price_wei * coin),
        turnover=zero,
        gross_volume=zero,
        gas_units=gas_units,
        gap_bps=None,
        verdicts=(),
        skipped=tuple(SkippedItem("futures", why) for why in futures.refused),
        expires_block=snapshot.head.number + step.execution.expire_blocks,
        futures=futures,
    )


def fee_raw(account: MarginAccount, order: PerpOrder) -> int:
    """Return the fee of an order at its bound, quote base units, rounded up."""
    market = account.market(order.market)
    notional = max(Fraction(order.bound_raw), abs(order.size_raw) * market.mark)
    return ceil_int(notional * market.fee_ppm / PPM)
