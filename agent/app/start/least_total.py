"""Minimum portfolio totals as documents: of a running agent, of a new config, and of command-line
values.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from agent.config.build import build_policy
from agent.config.schema import Config
from agent.model import StepInput, review_interval_s
from agent.policy.drift import band
from agent.policy.minimum import (
    GWEI,
    USUAL_PIPS,
    AssetThreshold,
    MinimumTotalInputs,
    compute_minimum_total,
    correction_drift,
    format_minimum_total,
    minimum_total_inputs,
    suggested_settings,
)
from agent.reference import reference_prices
from agent.units import PIPS, Value, value_text

if TYPE_CHECKING:
    from agent.app.documents.status import LeastTotalDocument

GAS_WEI = (GWEI // 20, GWEI, 30 * GWEI)
"""Gas prices of estimates without a chain: 0.05, 1 and 30 gwei."""
NATIVE_USD = 3_000
"""Dollars per native coin in estimates without a chain."""
PLACES = 6
"""Decimals of a value in coins: one coin may be worth thousands."""


def least_total_now(step: StepInput, total: Value) -> LeastTotalDocument | None:
    """Minimum total of a running agent, at the present gas price; None if plan_cost is off or gas
    has no price.
    """
    terms = minimum_total_inputs(step, reference_prices(step))
    return (
        None
        if terms is None
        else least_total_document(
            terms, total, step.portfolio.numeraire.decimals, step.portfolio.numeraire.label
        )
    )


def least_total_document(
    terms: MinimumTotalInputs, total: Value | None, decimals: int, unit: str
) -> LeastTotalDocument:
    """Document of the minimum total, with the settings to change if `total` (None: unknown) is
    below it; values as decimal strings.
    """
    found, ways = (
        compute_minimum_total(terms),
        () if total is None else suggested_settings(terms, total),
    )
    message = format_minimum_total(
        terms, (found.total or Fraction(0)) if total is None else total, decimals, unit
    )
    enough = None if total is None else found.total is not None and total >= found.total
    return {
        "total": (
            None
            if found.total is None
            else value_text(found.total, decimals, min(decimals, PLACES))
        ),
        "first_purchase": (
            None
            if found.purchase is None
            else value_text(found.purchase, decimals, min(decimals, PLACES))
        ),
        "unit": unit,
        "by": found.binding_limit,
        "gas_gwei": value_text(Fraction(terms.gas_price_wei, GWEI), 0, 4),
        "pool_fee_percent": value_text(Fraction(100 * terms.fee_pips, PIPS), 0, 4),
        "corrections_a_year": value_text(found.a_year, 0, 1),
        "cost_a_year": value_text(found.year_cost, decimals, min(decimals, PLACES)),
        "enough": enough,
        "changes": list(ways),
        "summary": message,
        "text": (
            message
            if found.total is None or not ways
            else f"{message} To change that: {'; or '.join(ways)}."
        ),
    }


def least_totals_of_config(config: Config, dollars: Fraction) -> list[LeastTotalDocument]:
    """Minimum totals of a new config, at three gas prices; `dollars` per coin of the numeraire.
    Empty if plan_cost is off.
    """
    table, trigger = config.portfolio, build_policy(config).trigger
    if config.limits.plan_cost is None:
        return []
    rows = [
        (
            one.symbol,
            one.target,
            correction_drift(trigger, one.target, band(trigger, one.target, one.band)),
        )
        for one in table.assets
    ]
    least_trade, wei_value = (
        Fraction(config.limits.min_trade or "0"),
        Fraction(NATIVE_USD) / dollars / 10**18,
    )
    return _rows(
        rows,
        table.numeraire,
        config.limits.plan_cost,
        least_trade,
        wei_value,
        review_interval_s(trigger),
    )


def above_ceiling_lines(rows: Sequence[LeastTotalDocument], ceiling: str | None) -> list[str]:
    """Warning that portfolio.max_live_value is below the minimum total, by gas price; empty if it
    is off.
    """
    dear = [
        row
        for row in rows
        if row["total"] is not None
        and ceiling is not None
        and Fraction(row["total"]) > Fraction(ceiling)
    ]
    if not dear:
        return []
    at = " and ".join(f"at {row['gas_gwei']} gwei ({row['total']} {row['unit']})" for row in dear)
    below = f"portfolio.max_live_value of {ceiling} {dear[0]['unit']} is below the least total {at}"
    return [
        f"{below}: corrections are held back there, and the cap allows no more. Raise"
        " max_live_value, or change a setting named below."
    ]


def least_totals_of_values(
    rows: Sequence[tuple[str, int, Fraction]],
    home: str,
    plan_cost_bps: int,
    min_trade: Value,
    native: Fraction,
    total: Value,
) -> list[LeastTotalDocument]:
    """Minimum totals of targets on the command line: (symbol, target in bps, drift at a
    correction), at three gas prices.

    Totals are in whole units of value.
    """
    return _rows(rows, home, plan_cost_bps, min_trade, native / 10**18, None, total)


def _rows(
    rows: Sequence[tuple[str, int, Fraction]],
    home: str,
    plan_cost_bps: int,
    min_trade: Value,
    wei_value: Fraction,
    every_s: int | None,
    total: Value | None = None,
) -> list[LeastTotalDocument]:
    assets = tuple(AssetThreshold(name, bps, drift) for name, bps, drift in rows if name != home)
    home_bps = next((bps for name, bps, _ in rows if name == home), 0)
    unit = 10**PLACES
    made = [
        MinimumTotalInputs(
            assets,
            home_bps,
            plan_cost_bps,
            min_trade * unit,
            USUAL_PIPS,
            wei,
            wei_value * unit,
            every_s,
        )
        for wei in GAS_WEI
    ]
    return [
        least_total_document(
            terms, None if total is None else total * unit, PLACES, home or "units"
        )
        for terms in made
    ]
