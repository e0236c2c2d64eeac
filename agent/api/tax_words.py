"""The taxable gain of a plan as a document; loads no chain."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from agent.books.plans import planned_gains
from agent.model import Plan, StepInput
from agent.reference import reference_prices
from agent.units import value_text


def document(step: StepInput, plan: Plan | None) -> dict[str, Any] | None:
    """What each token would realise by the lot rule, and how the year stands; None without [tax]."""
    tax, numeraire = step.history.tax, step.portfolio.numeraire
    if tax is None:
        return None

    def money(value: Fraction) -> str:
        return value_text(value, numeraire.decimals)

    prices = {token: found.price for token, found in reference_prices(step).prices.items()}
    at_s, coin = step.snapshot.head.timestamp_s, step.portfolio.wrapped_native
    gains = () if plan is None or not plan.legs else planned_gains(plan, tax, prices, numeraire.address, coin, at_s)
    left = None if tax.year_limit is None else max(Fraction(0), tax.year_limit - tax.realised)
    return {
        "method": tax.method.value,
        "currency": tax.currency or numeraire.label,
        "gain": money(sum((one.gain for one in gains), Fraction(0))),
        "disposals": [
            {
                "symbol": step.portfolio.token(one.token).label,
                "raw": str(one.raw),
                "proceeds": money(one.proceeds),
                "cost": money(one.cost),
                "gain": money(one.gain),
                "oldest_days": None if one.oldest_s is None else max(0, at_s - one.oldest_s) // 86_400,
                "newest_days": None if one.newest_s is None else max(0, at_s - one.newest_s) // 86_400,
            }
            for one in gains
        ],
        "realised_this_year": money(tax.realised),
        "year_limit": None if tax.year_limit is None else money(tax.year_limit),
        "left_this_year": None if left is None else money(left),
    }


def words(step: StepInput, plan: Plan | None) -> list[str]:
    """The same in a sentence; nothing without [tax] or without a plan that disposes of something."""
    found = document(step, plan)
    if found is None or not found["disposals"]:
        return []
    limit = "" if found["year_limit"] is None else f" of at most {found['year_limit']}"
    unit = found["currency"]
    return [
        f"By {found['method']} it would realise {found['gain']} {unit}; {found['realised_this_year']} {unit}{limit} stood realised then."
    ]
