"""The native coin: its investable part, the gas floor, and unwrapping to refill it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from agent.errors import Refused
from agent.model import (
    Asset,
    Decision,
    Halt,
    Hold,
    LayerDecision,
    Limits,
    Portfolio,
    Rebalance,
    Snapshot,
    StepInput,
    TopUp,
    UnsignedTx,
    Verdict,
)
from agent.model.rollups import MAX_FEE_RISE
from agent.units import UINT256_MAX, ceil_int, decimal_text

STEP_GAS = 2_000_000
"""Gas units that the transactions of one step may need. Their cost at the worst price is kept on
top of limits.native_floor.
"""
STEP_BYTES = (16_384,) * 2
"""Largest calldata of the transactions of one step, for their data fee on rollups."""
UNWRAP_GAS = 36_000
"""Gas units of WETH9.withdraw by a wallet that keeps some wrapped coin: 35,116 on the embedded
chain."""
UNWRAP_BYTES = 512
"""Largest calldata of an unwrapping, a payment or another single call."""
GAS_MARGIN = Fraction(5, 4)
"""Gas limit of a transaction as a multiple of the estimate."""
MIN_UNWRAP_GAS_MULTIPLE = 4
"""Multiple of the unwrapping gas below which wrapped coin stays wrapped."""


@dataclass(frozen=True, slots=True)
class NativeView:
    """Native coin and its wrapped token: whether the coin counts in the portfolio, its reserve, and
    its refill level. `wrapped_raw` is None if the wrapped token's balance was not read, `symbol` if
    the token is not in the portfolio.
    """

    symbol: str | None
    counts_in_portfolio: bool
    native_wei: int
    wrapped_raw: int | None
    kept_wei: int
    top_up_wei: int | None


def native_view(snapshot: Snapshot, portfolio: Portfolio, limits: Limits) -> NativeView:
    """Return the native coin's balances and settings, for status."""
    asset = wrapped_asset(portfolio)
    return NativeView(
        symbol=None if asset is None else asset.token.label,
        counts_in_portfolio=has_native_asset(portfolio),
        native_wei=snapshot.native_wei,
        wrapped_raw=next(
            (
                holding.raw
                for holding in snapshot.holdings
                if holding.token == portfolio.wrapped_native
            ),
            None,
        ),
        kept_wei=floor_wei(limits),
        top_up_wei=limits.native_top_up_wei,
    )


def wrapped_asset(portfolio: Portfolio) -> Asset | None:
    """Return the asset whose token is the wrapped native coin, even if the native coin itself does
    not count.
    """
    return portfolio.find_asset(portfolio.wrapped_native)


def has_native_asset(portfolio: Portfolio) -> bool:
    """True if the native coin counts as an asset, together with its wrapped token."""
    return any(asset.includes_native for asset in portfolio.assets)


def held_balances(step: StepInput) -> dict[str, int]:
    """Return the base units of each asset by token; the native asset includes native coin. The cost
    of this step's approvals is added back, so that the plan after them equals the plan before.
    """
    balances_raw = {holding.token: holding.raw for holding in step.snapshot.holdings}
    for asset in step.portfolio.assets:
        if asset.includes_native and asset.token.address in balances_raw:
            balances_raw[asset.token.address] += (
                step.snapshot.native_wei + step.progress.spent_gas_wei
            )
    return balances_raw


def reserved_raw(limits: Limits, asset: Asset) -> int:
    """Return the base units outside the portfolio: the reserve, and limits.native_floor for the
    native asset.
    """
    return asset.reserve_raw + (floor_wei(limits) if asset.includes_native else 0)


def full_reserve_raw(balances_raw: Mapping[str, int], limits: Limits, asset: Asset) -> int:
    """Return a reserve in base units that makes the whole asset unspendable without raising its
    shortfall. If the balance is unknown, the reserve exceeds every possible balance.
    """
    balance_raw = balances_raw.get(asset.token.address)
    if balance_raw is None:
        return UINT256_MAX
    return max(asset.reserve_raw, balance_raw - (floor_wei(limits) if asset.includes_native else 0))


def floor_wei(limits: Limits) -> int:
    """Return the native coin that is never spent, wei."""
    return limits.native_floor_wei or 0


def worst_gas_price_wei(snapshot: Snapshot, limits: Limits) -> int:
    """Return the highest price of a unit of gas in this step: two base fees and the priority fee,
    at most limits.gas_price.
    """
    return capped_gas_price_wei(snapshot, limits.gas_price_wei)


def capped_gas_price_wei(snapshot: Snapshot, ceiling_wei: int | None) -> int:
    """Return two base fees and the priority fee, at most the ceiling (None: off)."""
    base_fee_wei = snapshot.head.base_fee_wei
    if base_fee_wei is None:
        gas_price_wei = snapshot.gas_price_wei
    else:
        gas_price_wei = 2 * base_fee_wei + snapshot.priority_fee_wei
    return gas_price_wei if ceiling_wei is None else min(gas_price_wei, ceiling_wei)


def gas_cost_with_margin_wei(snapshot: Snapshot, gas_units: int) -> int:
    """Return the cost of this much gas at the current price, with its margin, in wei."""
    gas_limit_units = ceil_int(gas_units * GAS_MARGIN)
    return gas_limit_units * snapshot.current_gas_price_wei + snapshot.max_fee_beyond_gas_wei(
        gas_limit_units, UNWRAP_BYTES
    )


def worst_gas_cost_wei(snapshot: Snapshot, limits: Limits) -> int:
    """Return the worst-case gas cost of this step, in wei."""
    worst_fee_wei = MAX_FEE_RISE * snapshot.max_fee_beyond_gas_wei(STEP_GAS, *STEP_BYTES)
    return STEP_GAS * worst_gas_price_wei(snapshot, limits) + worst_fee_wei


def data_fee_cap_wei(snapshot: Snapshot, tx: UnsignedTx, *, revokes: bool = False) -> int | None:
    """Return the most that the exact transaction may pay beyond its gas; None on chains without
    such a fee. If the fee was not read, raises Refused, or returns None for a transaction that
    revokes an allowance.
    """
    if revokes and snapshot.data_fee_unknown_reason:
        return None
    if unknown_reason := snapshot.data_fee_unknown_reason:
        verdict = Verdict("data_fee", unknown_reason, "read", False)
        raise Refused(
            "the rollup's data fee is unknown", (verdict,), "check the endpoints of [[chain.rpc]]"
        )
    if snapshot.data_fee is None:
        return None
    return MAX_FEE_RISE * snapshot.max_fee_beyond_gas_wei(tx.gas, len(tx.data) // 2 - 1)


def wrappable_wei(snapshot: Snapshot, portfolio: Portfolio, limits: Limits) -> int:
    """Return the native coin that legs may wrap, wei: the balance less floor and margin; zero
    unless the native coin is an asset.
    """
    if not has_native_asset(portfolio):
        return 0
    return max(0, snapshot.native_wei - floor_wei(limits) - worst_gas_cost_wei(snapshot, limits))


def refill_raw(snapshot: Snapshot, limits: Limits, spent_gas_wei: int) -> int:
    """Return the wrapped coin that a plan should unwrap for gas now; zero while floor and margin
    are held, or with top-up off. It refills to limits.native_top_up, at least to floor and margin,
    so that the plan itself can be sent.
    """
    target_wei = limits.native_top_up_wei
    least_needed_wei = floor_wei(limits) + worst_gas_cost_wei(snapshot, limits)
    native_wei = snapshot.native_wei + spent_gas_wei
    if target_wei is None or native_wei >= least_needed_wei:
        return 0
    return max(target_wei, least_needed_wei) - native_wei


def unwrappable_raw(snapshot: Snapshot, portfolio: Portfolio) -> int:
    """Return the wrapped coin that may be unwrapped for gas: all of a native asset's, else the part
    above the asset's reserve.
    """
    asset = wrapped_asset(portfolio)
    balance_raw = {holding.token: holding.raw for holding in snapshot.holdings}.get(
        portfolio.wrapped_native, 0
    )
    if asset is None:
        return 0
    if asset.includes_native:
        return balance_raw
    return max(0, balance_raw - asset.reserve_raw)


def unwrap_cost_wei(snapshot: Snapshot, limits: Limits) -> int:
    """Return the highest cost of a separate unwrapping, wei."""
    gas_units = ceil_int(UNWRAP_GAS * GAS_MARGIN)
    worst_fee_wei = MAX_FEE_RISE * snapshot.max_fee_beyond_gas_wei(gas_units, UNWRAP_BYTES)
    return gas_units * worst_gas_price_wei(snapshot, limits) + worst_fee_wei


def top_up(step: StepInput, decision: Decision) -> TopUp | None:
    """Return the unwrapping that must precede `decision` because native coin is too low; None if
    there is enough. The threshold of a hold is limits.native_floor; that of other decisions is the
    step's own gas, since a plan that can be sent includes its refill. It also returns None if too
    little can be unwrapped, if gas is too expensive and the decision is a hold, and for decisions
    that send no transaction.
    """
    if isinstance(decision, LayerDecision) and any(
        reading.needs_no_gas(decision) for reading in step.snapshot.layers
    ):
        return None
    native_wei = step.snapshot.native_wei
    max_cost_wei = unwrap_cost_wei(step.snapshot, step.limits)
    match decision:
        case Hold():
            needed_wei = floor_wei(step.limits)
            requirement_text = "limits.native_floor"
        case Rebalance() | LayerDecision():
            needed_wei = worst_gas_cost_wei(step.snapshot, step.limits)
            requirement_text = "this step's worst-case gas"
        case Halt() | TopUp():
            return None
    unwrapped_raw = min(
        refill_raw(step.snapshot, step.limits, step.progress.spent_gas_wei),
        unwrappable_raw(step.snapshot, step.portfolio),
    )
    is_gas_expensive = (
        step.limits.gas_price_wei is not None
        and step.snapshot.current_gas_price_wei > step.limits.gas_price_wei
    )
    if (
        native_wei >= needed_wei
        or unwrapped_raw < max(1, MIN_UNWRAP_GAS_MULTIPLE * max_cost_wei)
        or native_wei < max_cost_wei
        or (is_gas_expensive and isinstance(decision, Hold))
    ):
        return None
    token = step.portfolio.token(step.portfolio.wrapped_native)
    shortage_text = (
        f"{decimal_text(native_wei, 18)} native coin is less than {requirement_text} of"
        f" {decimal_text(needed_wei, 18)}"
    )
    return TopUp(
        f"{shortage_text}: unwraps {decimal_text(unwrapped_raw, token.decimals)} {token.label} first; then:"
        f" {decision.reason}",
        unwrapped_raw,
    )
