"""Guard of the taxable gain of a plan, from the open lots of the ledger and of pending
transactions.
"""

from __future__ import annotations

from fractions import Fraction

from agent.accounting.tax_lots import planned_gains
from agent.guards.case import GuardCase, GuardMeasurement
from agent.guards.guard import Guard
from agent.layers.tax.state import TaxState
from agent.model import Rebalance, StepInput
from agent.units import Value, value_text


def year_limit(case: GuardCase, limit: Value) -> GuardMeasurement:
    """Return the predicted taxable gain of this plan and the gain realised this year, net of
    losses.

    Plans without a gain, exits and manual requests pass.
    """
    tax, plan, decision = case.step.layer(TaxState).inputs, case.plan, case.plan.decision
    if tax is None or not plan.legs or not isinstance(decision, Rebalance):
        return GuardMeasurement("no gain", True)
    at_s, wrapped_native = case.step.snapshot.head.timestamp_s, case.step.portfolio.wrapped_native
    gains = planned_gains(plan, tax, case.prices, case.numeraire.address, wrapped_native, at_s)
    total_gain = sum((token_gain.gain for token_gain in gains), Fraction(0))
    text = f"{_money(case, total_gain)} with {_money(case, tax.realised)} realised this year"
    if decision.by_hand or case.is_sell_only():
        return GuardMeasurement(f"{text} (not applied)", True)
    return GuardMeasurement(text, total_gain <= max(limit - tax.realised, Fraction(0)))


def format_year_limit(limit: Value, currency: str, label: str, decimals: int) -> str:
    """Format the limit in the reporting currency."""
    return f"{value_text(limit, decimals)} {currency or label} a year"


def _money(case: GuardCase, value: Value) -> str:
    tax = case.step.layer(TaxState).inputs
    currency = (tax.currency if tax else "") or case.numeraire.label
    return f"{value_text(value, case.numeraire.decimals)} {currency}"


def _year_limit(step: StepInput) -> Fraction | None:
    """Return the annual limit of realised gains; None without one."""
    inputs = step.layer(TaxState).inputs
    return None if inputs is None else inputs.year_limit


def _year_limit_text(limit: Fraction, step: StepInput) -> str:
    numeraire, inputs = step.portfolio.numeraire, step.layer(TaxState).inputs
    return format_year_limit(
        limit, "" if inputs is None else inputs.currency, numeraire.label, numeraire.decimals
    )


YEAR_LIMIT = Guard(
    "year_limit",
    _year_limit,
    _year_limit_text,
    year_limit,
    "sell less of the assets with gains, wait for the new year, or raise tax.year_limit",
)
