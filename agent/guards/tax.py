"""Guard on the taxable gain of a plan, by the lots of the ledger and all that is mined or on its way."""

from __future__ import annotations

from fractions import Fraction

from agent.books.plans import planned_gains
from agent.guards.case import Case, Measured
from agent.model import Rebalance
from agent.units import Value, value_text


def year_limit(case: Case, limit: Value) -> Measured:
    """What this plan would realise at its predicted amounts, with what the year has realised already, losses taken off.

    A plan that realises no gain passes, and so do exits and what was asked for by hand. Gas counts as the plan expects it.
    """
    tax, plan, decision = case.step.history.tax, case.plan, case.plan.decision
    if tax is None or not plan.legs or not isinstance(decision, Rebalance):
        return Measured("no gain", True)
    at_s, coin = case.step.snapshot.head.timestamp_s, case.step.portfolio.wrapped_native
    found = planned_gains(plan, tax, case.prices, case.numeraire.address, coin, at_s)
    gain = sum((one.gain for one in found), Fraction(0))
    free = " (not held back)" if decision.by_hand or case.sells_only() else ""
    words = f"{_money(case, gain)} with {_money(case, tax.realised)} realised this year{free}"
    return Measured(words, bool(free) or gain <= max(limit - tax.realised, Fraction(0)))


def limit_words(limit: Value, currency: str, label: str, decimals: int) -> str:
    """The limit in the reporting currency."""
    return f"{value_text(limit, decimals)} {currency or label} a year"


def _money(case: Case, value: Value) -> str:
    tax = case.step.history.tax
    return f"{value_text(value, case.numeraire.decimals)} {(tax.currency if tax else '') or case.numeraire.label}"
