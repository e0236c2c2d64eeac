"""Orders by hand that wait, and corrections over time, from the store alone: listed, and ended by name."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from agent import wiring
from agent.config.load import load_config
from agent.errors import ConfigError
from agent.model import LimitOrder, Plan, StepInput
from agent.reference import reference_prices
from agent.store.campaigns import PastCampaign
from agent.units import BPS, Value, ceil_int, decimal_text, parse_raw, price_text, value_text

Document = dict[str, Any]
LIMIT_DIGITS = 36


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


def limit_prices(order: LimitOrder, step: StepInput) -> Document:
    """The limit and the market's price, both ways round, in whole coins; `off_bps` is how far the limit is from the market, above zero
    where it asks for more. The market's are None where a reference price is missing.
    """
    sold, bought = (step.portfolio.token(token) for token in (order.token_in, order.token_out))
    known = reference_prices(step).prices
    market = known[sold.address].price / known[bought.address].price if {sold.address, bought.address} <= set(known) else None

    def both(price: Fraction) -> list[str]:
        return [
            f"{price_text(price, sold.decimals, bought.decimals)} {bought.label}/{sold.label}",
            f"{price_text(1 / price, bought.decimals, sold.decimals)} {sold.label}/{bought.label}",
        ]

    return {
        "limit": both(order.price),
        "market": None if not market else both(market),
        "off_bps": None if not market else round((order.price / market - 1) * BPS),
    }


def at_price(amount: str, unit: str, sold: str, bought: str) -> str:
    """What `--limit` takes, coins of `bought` for one of `sold`, of a price in either unit: bought/sold or sold/bought. Rounded up, so
    that nobody sells for less than was said. Raises ConfigError for another unit, or a price that is none.
    """
    price = Fraction(parse_raw(amount, LIMIT_DIGITS, "--price"), 10**LIMIT_DIGITS)
    if price == 0:
        raise ConfigError("--price: 0 is any price", f"write for example --price 3100 {bought}/{sold}")
    units = {f"{bought}/{sold}".lower(): price, f"{sold}/{bought}".lower(): 1 / price}
    found = units.get(unit.lower())
    if found is None:
        raise ConfigError(f"--price: {unit!r} is no price of this swap", f"write its unit as {bought}/{sold} or {sold}/{bought}")
    return decimal_text(ceil_int(found * 10**LIMIT_DIGITS), LIMIT_DIGITS)


def utc(seconds: int) -> str:
    """A chain time for people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
