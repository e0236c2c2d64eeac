"""Orders by hand that wait, and corrections over time, from the store alone: listed, and ended by name."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent import wiring
from agent.config.load import load_config
from agent.errors import ConfigError
from agent.model import LimitOrder, Plan, StepInput
from agent.store.campaigns import PastCampaign
from agent.units import Value, value_text

Document = dict[str, Any]


def waiting_orders(config: Path | str) -> Document:
    """Orders by hand and corrections over time, newest first, from the store alone."""
    with wiring.books(load_config(config)) as (store, _):
        orders = [order_document(order) for order in reversed(store.orders())]
        return {"orders": orders, "corrections": [correction(one) for one in store.campaigns()]}


def cancel_waiting(config: Path | str, wanted: str) -> Document:
    """Ends an order or a correction over time by its id; what is sent already is not taken back. Raises ConfigError."""
    with wiring.books(load_config(config)) as (store, _):
        if not store.end_campaign(wanted, "cancelled", "by its owner", int(time.time())):
            raise ConfigError(f"--cancel: {wanted!r} is no order that waits and no correction under way", "see trimtab limit")
    return {"cancelled": wanted}


def correction(one: PastCampaign) -> Document:
    """A correction over time as a document; values in numeraire base units as decimal strings of whole units."""
    under = one.underway
    begun = under.campaign
    return {
        "id": under.id,
        "style": begun.pace.style.value,
        "state": one.state,
        "why": one.why,
        "began": utc(begun.began_s),
        "expires": utc(begun.expires_s),
        "rounds_done": under.done,
        "rounds_about": begun.rounds,
        "next": utc(under.next_s) if one.state == "open" else None,
        "wish_raw": str(round(begun.wish)),
        "moved_raw": str(round(under.moved)),
        "spent_raw": str(round(under.spent)),
        "budget_raw": None if begun.budget is None else str(round(begun.budget)),
    }


def told(step: StepInput, plan: Plan | None) -> list[str]:
    """Of a past step: where a correction over time stood, and what rounds would have cost against one; nothing where there was neither."""
    numeraire, words = step.portfolio.numeraire, []

    def money(value: Value) -> str:
        return f"{value_text(value, numeraire.decimals, 2)} {numeraire.label}"

    if (under := step.history.campaign) is not None:
        budget = "without a budget" if under.campaign.budget is None else f"of a budget of {money(under.campaign.budget)}"
        words.append(
            f"A correction was under way since {utc(under.campaign.began_s)}: {under.done} of about {under.campaign.rounds} rounds done, "
            f"{money(under.moved)} of {money(under.campaign.wish)} moved, {money(under.spent)} lost {budget}."
        )
    if plan is not None and plan.pacing is not None:
        words.append(f"Rounds against one: {plan.pacing.why}.")
        words += [
            f"  {one.rounds}: {money(one.total)} in all, fees {money(one.fees)}, impact {money(one.impact + one.skew)}, gas "
            f"{money(one.gas)}, waiting {money(one.waiting)}, left undone {money(one.rest)}."
            for one in plan.pacing.options
        ]
    return words


def order_document(order: LimitOrder) -> Document:
    """An order by hand as a document."""
    return {"id": order.id, "what": order.note, "until": utc(order.until_s), "state": order.state, "why": order.why}


def utc(seconds: int) -> str:
    """A chain time for people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
