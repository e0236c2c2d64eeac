"""`trimtab whatif`: drift, trades and alert prices of values on the command line, without a
chain.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.display.output import Document, cell, emit, note, out, say
from agent.cli.display.terminal import interruptible
from agent.cli.options import AsJson, Heading, command
from agent.units import decimal_text, value_text

if TYPE_CHECKING:
    from agent.app.offline import AlertPrices, WhatIf


ALONE = (
    "An alert price assumes that only its asset moves; when several move, bands are left at other"
    " prices."
)


@command(Heading.TRY, 30)
@interruptible
def whatif(
    target: Annotated[
        str, typer.Option("--target", help="Targets in percent: BTC=50,ETH=30,USD=20.")
    ],
    value: Annotated[
        str, typer.Option("--value", help="Current values in one unit: BTC=5800,ETH=2700,USD=1500.")
    ],
    band: Annotated[
        str,
        typer.Option(
            "--band", help="10%rel of the target or 5%abs in points; BTC=5%abs for one asset."
        ),
    ] = "",
    price: Annotated[
        str, typer.Option("--price", help="Current prices, for alert prices: BTC=58000.")
    ] = "",
    destination: Annotated[
        str, typer.Option("--destination", help="target, or halfway.")
    ] = "target",
    only: Annotated[
        str, typer.Option("--only", help="Trade one side only: sell, buy, winners or losers.")
    ] = "",
    numeraire: Annotated[str, typer.Option("--numeraire", help="Unit of account.")] = "",
    native: Annotated[
        str, typer.Option("--native", help="Price of the native coin in the same unit, for gas.")
    ] = "3000",
    as_json: AsJson = False,
) -> None:
    """Shows what a rebalance would do with these values, and alert prices. Needs no chain and no
    config.
    """
    from agent import app as api

    found = api.what_if(
        target,
        value,
        band,
        price=price,
        destination=destination,
        only=only,
        numeraire=numeraire,
        native=native,
    )
    made = document(found)
    emit(made, as_json, lambda: _show(made))


def document(found: WhatIf) -> Document:
    """Return the document of the answer.

    Values as decimal strings in the given unit, rounded half-even at the 18th place.
    """
    return {
        "total": _text(found.total),
        "triggered": list(found.triggered),
        "decision": {"kind": "rebalance" if found.acts else "hold", "reason": found.reason},
        "trades": {symbol: _text(amount) for symbol, amount in found.trades.items()},
        "to_target": {symbol: _text(amount) for symbol, amount in found.to_target.items()},
        "weights_bps": {drift.symbol: drift.weight_bps for drift in found.drifts},
        "assets": [
            {
                "symbol": drift.symbol,
                "value": decimal_text(drift.raw, 18),
                "weight_bps": drift.weight_bps,
                "target_bps": drift.target_bps,
                "drift_bps": drift.drift_bps,
                "band_bps": (
                    [round(drift.band_low_bps), round(drift.band_high_bps)]
                    if found.banded
                    else None
                ),
                "outside": drift.symbol in found.triggered,
            }
            for drift in found.drifts
        ],
        "alert_prices": {symbol: _alert(alert) for symbol, alert in found.alerts.items()},
        "alert_note": ALONE,
        "least_total": list(found.least),
        "warnings": list(found.warnings),
    }


def _alert(alert: AlertPrices) -> Document:
    return {
        "price": _text(alert.price),
        "low": None if alert.low is None else _text(alert.low),
        "high": None if alert.high is None else _text(alert.high),
        "low_change_percent": None if alert.low is None else _change(alert.low, alert.price),
        "high_change_percent": None if alert.high is None else _change(alert.high, alert.price),
        "why_low": alert.why_low,
        "why_high": alert.why_high,
    }


def _text(value: Fraction) -> str:
    return value_text(value, 0, 18)


def _change(price: Fraction, now: Fraction) -> str:
    return value_text((price / now - 1) * 100, 0, 2)


def _show(made: Document) -> None:
    from agent.cli.display.tables import bps, money, table

    shown = table(
        f"Total {money(made['total'])}", ("asset",), ("value", "weight", "target", "band", "trade")
    )
    prices = table("Alert prices", ("asset",), ("now", "low", "", "high", " "))
    for one in made["assets"]:
        symbol, alert = one["symbol"], made["alert_prices"][one["symbol"]]
        band = (
            "none"
            if one["band_bps"] is None
            else "-".join(f"{edge / 100:g}" for edge in one["band_bps"])
        )
        shown.add_row(
            cell(symbol, "bold red" if one["outside"] else ""),
            money(one["value"]),
            bps(one["weight_bps"]),
            bps(one["target_bps"]),
            band,
            _signed(made["trades"][symbol], money),
        )
        prices.add_row(
            cell(symbol), _price(alert["price"]), *_at(alert, "low"), *_at(alert, "high")
        )
    out.print(shown)
    say(f"{made['decision']['kind']}: {made['decision']['reason']}")
    out.print(prices)
    for symbol, alert in made["alert_prices"].items():
        for why in dict.fromkeys(filter(None, (alert["why_low"], alert["why_high"]))):
            say(f"No alert price of {symbol}: {why}")
    say(made["alert_note"])
    for one in made["least_total"]:
        say(one["text"])
    for warning in made["warnings"]:
        note(warning)


def _signed(text: str, shown: Callable[[str], str]) -> str:
    return shown(text) if text.startswith("-") or text == "0" else f"+{shown(text)}"


def _price(text: str) -> str:
    from agent.cli.display.tables import brief

    return brief(text)


def _at(alert: Document, side: str) -> tuple[str, str]:
    if alert[side] is None:
        return "none", ""
    return _price(alert[side]), f"{_signed(alert[f'{side}_change_percent'], str)} %"
