"""The cost-aware zone as a document: what standing off costs, the bands of each asset, and a plan on the scales."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from agent.units import BPS, decimal_text, value_text

if TYPE_CHECKING:
    from agent.model import Portfolio, Saving
    from agent.policy.zone import ZoneView

Document = dict[str, Any]
PARTS = ("fees", "impact", "skew", "gas", "approvals")


def document(found: ZoneView | None, portfolio: Portfolio) -> Document | None:
    """None where no zone decides. Values in the numeraire, edges in bps of the portfolio, marginal figures in bps of what is moved."""
    if found is None:
        return None

    def money(value: Fraction) -> str:
        return value_text(value, portfolio.numeraire.decimals)

    def weighed(saving: Saving) -> Document:
        parts = {name: money(getattr(saving, name)) for name in PARTS}
        return {"saved_risk": money(saving.saved), "cost": money(saving.cost), **parts, "worth_it": saving.worth_it}

    pair = found.pair
    return {
        "risk": money(found.risk),
        "horizon_s": found.horizon_s,
        "swap_gas": money(found.gas),
        "measured": found.measured or None,
        "pair": None
        if pair is None
        else {
            "sell": portfolio.token(pair.source).label,
            "buy": portfolio.token(pair.target).label,
            "saves_bps": decimal_text(round(pair.saves * BPS * 100), 2),
            "costs_bps": decimal_text(round(pair.costs * BPS * 100), 2),
        },
        "assets": [
            {
                "symbol": portfolio.token(item.token).label,
                "no_trade_bps": [round(item.low * BPS), round(item.high * BPS)],
                "trigger_bps": [round(item.trigger_low * BPS), round(item.trigger_high * BPS)],
            }
            for item in found.intervals
        ],
        "plan": None if found.saving is None else weighed(found.saving),
    }
