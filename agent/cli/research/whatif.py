"""`trimtab whatif`: drift, trades and alert prices for values on the command line, without a
chain.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated

import typer

from agent import app as api
from agent.cli.display.terminal import Document, emit, interruptible, note, out, safe_text, say
from agent.cli.options import AsJson, GroupedOption, Heading, command
from agent.figures import format_figure
from agent.units import decimal_text, value_text

if TYPE_CHECKING:
    from agent.app.research.whatif import AlertPrices, WhatIf


ALERT_NOTE = (
    "An alert price assumes that only its asset's price moves. If several prices move,"
    " assets leave their bands at other prices."
)


Shock = Annotated[
    list[str] | None,
    typer.Option(
        "--shock", help="Moves the price of one asset first: ALT=-50%, ALT=+30%; repeatable."
    ),
]
FUTURES = GroupedOption(
    "--futures",
    (
        "notional",
        "target",
        "band",
        "margin",
        "leverage",
        "leverage-band",
        "max-leverage",
        "max-utilisation",
        "max-position",
        "spot-multiple",
        "stress",
        "lot",
        "hedge",
        "tax",
        "funding",
        "horizon",
    ),
    unnamed="notional",
)
Futures = Annotated[
    list[str] | None,
    typer.Option(
        "--futures",
        help=(
            "Futures notional, negative for a short, then NAME=VALUE:"
            " BTC=10500,ETH=-2000,leverage=2x,margin=5000. Names: target (weights in percent), band,"
            " margin, leverage, leverage-band, max-leverage, max-utilisation, max-position,"
            " spot-multiple, stress, lot, hedge, and with horizon tax and funding; repeatable."
        ),
    ),
]


@command(Heading.TRY, 30, FUTURES)
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
        str,
        typer.Option("--price", help="Current prices, for alert prices and lots: BTC=58000."),
    ] = "",
    destination: Annotated[
        str, typer.Option("--destination", help="target, or halfway.")
    ] = "target",
    only: Annotated[
        str, typer.Option("--only", help="Trade one side only: sell, buy, winners or losers.")
    ] = "",
    numeraire: Annotated[str, typer.Option("--numeraire", help="Unit of account.")] = "",
    native: Annotated[
        str,
        typer.Option(
            "--native",
            help="Price of the native coin in the same unit, for gas; default: the usual dollars.",
        ),
    ] = "",
    network: Annotated[
        str, typer.Option("--network", help="Network of the gas: ethereum (default), base, …")
    ] = "",
    shock: Shock = None,
    futures: Futures = None,
    as_json: AsJson = False,
) -> None:
    """Shows what a rebalance would do with these values, and alert prices. Needs no chain and no
    config.

    With --futures it adds leverage, margin, orders in contracts, and with hedge the hedge of
    overweight assets.
    """
    from agent.app.research.whatif import SHOCK_OPTION
    from agent.cli.research.value_texts import (
        parse_bands,
        parse_fraction,
        parse_member,
        parse_shocks,
        parse_targets,
    )
    from agent.cli.research.whatif_texts import futures_options, parse_fractions, parse_prices
    from agent.config.networks import ETHEREUM, NETWORKS
    from agent.config.tables.fields import parse_choice, parse_pairs
    from agent.errors import ConfigError
    from agent.model import Destination, TradeSide

    futures_texts = FUTURES.parse(futures)
    notional = futures_texts.get("notional", "")
    if futures_texts and not notional:
        raise ConfigError(
            "--futures: no market is named",
            "name each market with its notional, such as --futures BTC=0",
        )
    what_if = api.what_if(
        api.WhatIfOptions(
            parse_targets(target),
            parse_fractions(value, "--value"),
            *parse_bands(band),
            parse_prices(price),
            parse_member(destination, "--destination", (Destination.TARGET, Destination.HALFWAY)),
            parse_member(only, "--only", TradeSide) if only else None,
            numeraire,
            parse_fraction(native, "--native") if native else None,
            parse_choice(
                network or ETHEREUM.name,
                "--network",
                {preset.name: preset.fees for preset in NETWORKS},
            ),
            parse_shocks(shock, SHOCK_OPTION),
            tuple(parse_pairs(notional, "--futures")) if notional else (),
        )
    )
    document = what_if_document(what_if)
    if notional:
        futures_book = futures_options(futures_texts, price)
        if shock:
            futures_book = api.shocked_futures(
                futures_book, what_if.shock_bps_by_symbol, what_if.total
            )
        futures_document = api.what_if_futures(
            futures_book, what_if.value_by_symbol, what_if.trades
        )
        document = {**document, "trades": futures_document["trades"], "futures": futures_document}
    emit(document, as_json, lambda: _show_what_if(document))


def what_if_document(what_if: WhatIf) -> Document:
    """Return the document of a what-if. Values are decimal strings in the given unit, rounded
    half-even to 18 places.
    """
    shock_fields: Document = {}
    if what_if.shock_bps_by_symbol:
        shock_fields = {
            "shock": dict(what_if.shock_bps_by_symbol),
            "total_before": _value_text(what_if.total_before),
        }
    return {
        "total": _value_text(what_if.total),
        "triggered": list(what_if.symbols_outside),
        "decision": {"kind": "rebalance" if what_if.acts else "hold", "reason": what_if.reason},
        "trades": {
            symbol: _value_text(exact_value) for symbol, exact_value in what_if.trades.items()
        },
        "to_target": {
            symbol: _value_text(exact_value)
            for symbol, exact_value in what_if.trades_to_target.items()
        },
        "weights_bps": {drift.symbol: drift.weight_bps for drift in what_if.drifts},
        "assets": [
            {
                "symbol": drift.symbol,
                "value": decimal_text(drift.raw, 18),
                "weight_bps": drift.weight_bps,
                "target_bps": drift.target_bps,
                "drift_bps": drift.drift_bps,
                "band_bps": (
                    [round(drift.band_low_bps), round(drift.band_high_bps)]
                    if what_if.has_band
                    else None
                ),
                "outside": drift.symbol in what_if.symbols_outside,
            }
            for drift in what_if.drifts
        ],
        "alert_prices": {
            symbol: _alert_document(alert)
            for symbol, alert in what_if.alert_prices_by_symbol.items()
        },
        "alert_note": ALERT_NOTE,
        "least_total": list(what_if.minimum_totals),
        "warnings": list(what_if.warnings),
        **shock_fields,
    }


def _alert_document(alert: AlertPrices) -> Document:
    def edge_texts(price: Fraction | None) -> tuple[str, str] | tuple[None, None]:
        if price is None:
            return None, None
        return _value_text(price), value_text((price / alert.price - 1) * 100, 0, 2)

    low_price, low_change = edge_texts(alert.low)
    high_price, high_change = edge_texts(alert.high)
    return {
        "price": _value_text(alert.price),
        "low": low_price,
        "high": high_price,
        "low_change_percent": low_change,
        "high_change_percent": high_change,
        "low_missing_reason": alert.low_missing_reason,
        "high_missing_reason": alert.high_missing_reason,
    }


def _value_text(exact_value: Fraction) -> str:
    return value_text(exact_value, 0, 18)


def _show_what_if(document: Document) -> None:
    from agent.cli.display.tables import bps_percent_text, money_text, range_text, table

    figure_table = table(
        f"Total {money_text(document['total'])}",
        ("asset",),
        ("value", "weight", "target", "band", "trade"),
    )
    alerts_table = table("Alert prices", ("asset",), ("now", "low", "", "high", " "))
    for asset in document["assets"]:
        symbol = asset["symbol"]
        alert = document["alert_prices"][asset["symbol"]]
        figure_table.add_row(
            safe_text(symbol, "bold red" if asset["outside"] else ""),
            money_text(asset["value"]),
            bps_percent_text(asset["weight_bps"]),
            bps_percent_text(asset["target_bps"]),
            range_text(asset["band_bps"]),
            _signed_text(document["trades"][symbol], money_text),
        )
        alerts_table.add_row(
            symbol,
            _price_text(alert["price"]),
            *_edge_cells(alert, "low"),
            *_edge_cells(alert, "high"),
        )
    if "shock" in document:
        shock_text = ", ".join(
            f"{symbol} {shock_bps / 100:+g} %" for symbol, shock_bps in document["shock"].items()
        )
        say(
            f"After the shock {shock_text}: total {money_text(document['total'])}, before"
            f" {money_text(document['total_before'])}."
        )
    out.print(figure_table)
    say(f"{document['decision']['kind']}: {document['decision']['reason']}")
    out.print(alerts_table)
    for symbol, alert in document["alert_prices"].items():
        for reason in dict.fromkeys(
            filter(None, (alert["low_missing_reason"], alert["high_missing_reason"]))
        ):
            say(f"No alert price of {symbol}: {reason}")
    say(document["alert_note"])
    for least_total in document["least_total"]:
        say(least_total["text"])
    for warning in document["warnings"]:
        note(warning)
    if "futures" in document:
        _show_futures(document["futures"])


def _show_futures(document: Document) -> None:
    from agent.cli.display.futures_tables import leverage_text
    from agent.cli.display.tables import bps_percent_text, money_text, table

    margin_multiple = leverage_text(document["leverage"])
    out.print(
        table(
            f"Futures: {money_text(document['gross'])} notional, {margin_multiple} of {money_text(document['margin'])} margin",
            ("market",),
            ("notional", "weight", "target", "order", "contracts", "liquidated at"),
            rows=(
                (
                    market["symbol"],
                    money_text(market["notional"]),
                    bps_percent_text(market["weight_bps"]),
                    bps_percent_text(market["target_bps"]),
                    _signed_text(market["order_notional"], money_text),
                    _signed_text(market["order_size"], _price_text),
                    "never"
                    if market["liquidation_price"] is None
                    else _price_text(market["liquidation_price"]),
                )
                for market in document["markets"]
            ),
        )
    )
    say(
        f"long {money_text(document['long'])}, short {money_text(document['short'])}, net {money_text(document['net'])}"
    )
    for breach in document["breaches"]:
        say(f"{breach['limit']}: {breach['measured']}, limit {breach['allowed']}")
    if document["triggers"]:
        say(f"Triggered: {', '.join(document['triggers'])}")
    else:
        say("Nothing triggers.")
    for order_note in document["notes"]:
        say(order_note)
    say(
        f"Notional after all orders {money_text(document['gross_after'])},"
        f" {leverage_text(document['leverage_after'])} of the margin"
    )
    for hedge in document["hedges"]:
        say(
            f"{hedge['symbol']}: sell {money_text(hedge['sell'])}, short {money_text(hedge['short'])};"
            f" net exposure {money_text(hedge['net_exposure'])}"
        )
        if "reason" in hedge:
            say(hedge["reason"])
    exposure_text = ", ".join(
        f"{symbol} {money_text(exposure)}" for symbol, exposure in document["net_exposure"].items()
    )
    say(f"Net exposure after trades and orders, spot and futures: {exposure_text}")


def _signed_text(amount_text: str, format_value: Callable[[str], str]) -> str:
    return (
        format_value(amount_text)
        if amount_text.startswith("-") or amount_text == "0"
        else f"+{format_value(amount_text)}"
    )


def _price_text(price: str) -> str:
    return format_figure(price, "price")


def _edge_cells(alert: Document, side: str) -> tuple[str, str]:
    if alert[side] is None:
        return "none", ""
    return _price_text(alert[side]), f"{_signed_text(alert[f'{side}_change_percent'], str)} %"
