"""Guard of the taxable gain of a plan, from the open lots of the ledger and of pending
transactions.
"""

from __future__ import annotations

from fractions import Fraction

from agent.accounting.tax_lots import planned_gains
from agent.guards.case import GuardCase, GuardMeasurement, MissingData
from agent.guards.guard import Guard
from agent.layers.tax.state import TaxState
from agent.layers.tax.year import is_within_year, total_gain
from agent.model import Rebalance, StepInput
from agent.units import Value, value_text


def year_limit(case: GuardCase, limit: Value) -> GuardMeasurement:
    """Return the predicted taxable gain of this plan and the gain realised this year, net of
    losses. Plans without a gain, exits and manual requests pass.

    Raises MissingData if gas, which is disposed of, cannot be valued, or an exchange rate not be
    read.
    """
    tax_inputs = case.step.layer(TaxState).inputs
    plan = case.plan
    decision = case.plan.decision
    if tax_inputs is None or not plan.legs or not isinstance(decision, Rebalance):
        return GuardMeasurement("no gain", True)
    snapshot = case.step.snapshot
    wrapped_native = case.step.portfolio.wrapped_native
    is_applied = not decision.by_hand and not case.is_sell_only()
    unknown_reason = tax_inputs.fault
    if not unknown_reason and snapshot.current_gas_price_wei and wrapped_native not in case.prices:
        unknown_reason = (
            "gas cannot be valued, since the wrapped native coin has no reference price"
        )
    if unknown_reason:
        if is_applied:
            raise MissingData(unknown_reason)
        return GuardMeasurement(f"unknown: {unknown_reason} (not applied)", True)
    plan_gains = planned_gains(
        plan,
        tax_inputs,
        case.prices,
        case.numeraire.address,
        wrapped_native,
        snapshot.head.timestamp_s,
    )
    gain_text = f"{_money_text(case, total_gain(plan_gains))} with {_money_text(case, tax_inputs.realised_gain)} realised this year"
    if not is_applied:
        return GuardMeasurement(f"{gain_text} (not applied)", True)
    return GuardMeasurement(
        gain_text,
        is_within_year(case.step.portfolio, plan, plan_gains, limit - tax_inputs.realised_gain),
    )


def format_year_limit(limit: Value, currency: str, numeraire_label: str, decimals: int) -> str:
    """Format the limit in the reporting currency."""
    return f"{value_text(limit, decimals)} {currency or numeraire_label} a year"


def _money_text(case: GuardCase, value: Value) -> str:
    tax_inputs = case.step.layer(TaxState).inputs
    currency = (tax_inputs.currency if tax_inputs else "") or case.numeraire.label
    return f"{value_text(value, case.numeraire.decimals)} {currency}"


def _year_limit(step: StepInput) -> Fraction | None:
    """Return the annual limit of realised gains; None without one."""
    tax_inputs = step.layer(TaxState).inputs
    return None if tax_inputs is None else tax_inputs.year_limit


def _year_limit_text(limit: Fraction, step: StepInput) -> str:
    numeraire = step.portfolio.numeraire
    tax_inputs = step.layer(TaxState).inputs
    return format_year_limit(
        limit,
        "" if tax_inputs is None else tax_inputs.currency,
        numeraire.label,
        numeraire.decimals,
    )


YEAR_LIMIT = Guard(
    "year_limit",
    _year_limit,
    _year_limit_text,
    year_limit,
    "sell less of the assets with gains, wait for the new year, or raise tax.year_limit",
)
