"""Minimum portfolio size, so that every leg is worth its trade (R1.5), and number of assets (R1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from agent.model import AssetDrift, Portfolio, Snapshot, StepInput
from agent.policy.drift import investable_total
from agent.reference import ReferencePrices
from agent.units import BPS, Price, Value, value_text

MIN_ASSETS = 2
MOST = 12
"""More assets work, with a warning."""
EASY = 6
"""Number of assets above which a warning suggests fewer; more still work."""
LEG_GAS = 150_000
"""Gas units of one swap in a multicall, in round figures; plans carry their own estimate."""
APPROVAL_GAS = 46_000
"""Gas units of one approval transaction of a plain ERC-20 token, from no allowance to some."""
GAS_MULTIPLE = 20
"""A leg must be worth at least this many times its gas."""


def smallest_total(portfolio: Portfolio, leg_value: Value) -> Value:
    """Return the smallest investable total at which every asset's target is worth `leg_value`,
    numeraire base units.
    """
    smallest_bps = min(asset.target_bps for asset in portfolio.assets if asset.target_bps > 0)
    return leg_value * BPS / smallest_bps


def leg_gas_value(snapshot: Snapshot, native_price: Price, units: int = LEG_GAS) -> Value:
    """Return the gas cost of one leg now, or of `units`; `native_price` is numeraire base units per wei."""
    base_wei = snapshot.head.base_fee_wei
    gas_price_wei = snapshot.gas_price_wei if base_wei is None else base_wei + snapshot.priority_fee_wei
    return Fraction(units * gas_price_wei) * native_price


def warnings(portfolio: Portfolio) -> tuple[str, ...]:
    """Return warnings on the portfolio's size; never a reason to refuse."""
    return tuple(asset_count_warnings(len(portfolio.assets), MOST))


def asset_count_warnings(count: int, above: int = EASY) -> list[str]:
    """Return a warning if `count` assets are more than `above` (R1.1)."""
    if count <= above:
        return []
    more = f"{count} assets are more than {MOST}" if count > MOST else f"{count} assets"
    return [f"{more}: 4 to 6 are easier to manage and cheaper to rebalance"]


def too_small_reason(step: StepInput, drifts: Sequence[AssetDrift]) -> str:
    """Return why the total is too small to invest; empty if it is not (R1.5)."""
    value = investable_total(drifts)
    if value == 0:
        held = any(drift.raw > 0 for drift in drifts)
        return "all balances are reserved; nothing can be invested" if held else "the wallet holds none of the portfolio's assets"
    if step.limits.min_trade is None:
        return ""
    least = smallest_total(step.portfolio, step.limits.min_trade)
    if value >= least:
        return ""
    return (
        f"the investable total of {format_money(step, value)} makes the smallest target smaller than min_trade "
        f"{format_money(step, step.limits.min_trade)}; at least {format_money(step, least)} is needed"
    )


def gas_too_high_reason(step: StepInput, drifts: Sequence[AssetDrift], references: ReferencePrices) -> str:
    """Return why gas is too expensive to trade now (R1.5); empty if it is not, or if min_trade is off.

    Without a reference price of native coin no plan passes its cost guard, so that this check is not needed.
    """
    native = references.prices.get(step.portfolio.wrapped_native)
    if native is None or step.limits.min_trade is None:
        return ""
    leg = leg_gas_value(step.snapshot, native.price) * GAS_MULTIPLE
    least = smallest_total(step.portfolio, leg)
    if investable_total(drifts) >= least:
        return ""
    needs = f"which needs a total of {format_money(step, least)}"
    return f"gas is too expensive now: {GAS_MULTIPLE} times that of a swap is {format_money(step, leg)}, {needs}"


def not_worth_reason(step: StepInput, references: ReferencePrices, moved: Value) -> str:
    """Return why a correction of this value is not worth trading: its cost in numbers, and the limit that decides."""
    limit, native = step.limits.plan_cost_bps, references.prices.get(step.portfolio.wrapped_native)
    if limit is None or native is None:
        return f"too small to trade: {format_money(step, moved)} to move, limits.min_trade is {format_money(step, step.limits.min_trade)}"
    gas, most = leg_gas_value(step.snapshot, native.price), moved * Fraction(limit, BPS)
    return (
        f"not worth its cost: moving {format_money(step, moved)} may cost {format_money(step, most)} (limits.plan_cost, {limit} bps); "
        f"one swap costs about {format_money(step, gas)} of gas, plus pool fees"
    )


def format_money(step: StepInput, value: Value | None) -> str:
    """A value in whole coins of the numeraire."""
    numeraire = step.portfolio.numeraire
    return f"{value_text(value or Fraction(0), numeraire.decimals, 2)} {numeraire.label}"
