"""The command about orders that wait for their price, and swaps that become such orders: limit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath
from agent.cli.output import Waiting, ask, cell, emit, note, out, say, waiting
from agent.errors import EXIT_OK, EXIT_REFUSED

Document = dict[str, Any]
FAR_BPS = 2_000
"""A limit further from the market than that is asked about: it is often the price the other way round."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What was asked for, as it was typed."""

    token_in: str
    token_out: str
    amount: str
    limit: str
    until: str
    wait: bool
    verbose: bool = False


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(limit)


def limit(
    cancel: Annotated[str | None, typer.Option("--cancel", help="Id of the order or correction to cancel.")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Lists limit orders (trimtab swap --limit) and corrections in progress."""
    from agent import api

    if cancel is not None:
        done = api.cancel_waiting(config, cancel)
        emit(done, as_json, lambda: say(f"Ended: {cancel}. What was sent already is not taken back."))
        return
    document = api.waiting_orders(config)
    emit(document, as_json, lambda: _show(document))


def place(config: Path, terms: Terms, *, send: bool, yes: bool, as_json: bool) -> int:
    """Places an order, or shows what it would do; returns the exit code."""
    from agent import api
    from agent.cli.portfolio import READING, confirmer, show_outcome

    with api.open_agent(config) as agent, waiting(READING) as wait:
        order, outcome = api.swap_at(
            agent,
            (terms.token_in, terms.token_out),
            terms.amount,
            terms.limit,
            terms.until,
            send=send,
            wait=terms.wait,
            confirm=confirmer(agent, yes, wait, verbose=terms.verbose),
            progress=wait.update,
            sure=lambda prices: yes or _far(prices, wait),
        )
        prices = api.limit_prices(order, outcome.step_input)
        with wait.aside():
            told: dict[str, object] = {"order": api.order_document(order), "prices": prices}
            code = show_outcome(outcome, as_json, agent, sent=send, extra=told, verbose=terms.verbose)
            if not as_json:
                say(_words(prices))
                say(f"Order {order.id or '(not placed)'}: {order.note}; {order.state} {order.why}".rstrip())
    if order.state in ("filled", "open") and outcome.kind.value not in ("declined", "failed"):
        return EXIT_OK
    return code or EXIT_REFUSED


def _words(prices: Document) -> str:
    """Limit and market, both ways round, and how far they are apart."""
    market = "the market's price is not known"
    if prices["market"] is not None:
        market = f"market {' or '.join(prices['market'])}; the limit is {prices['off_bps'] / 100:+.2f} % from it"
    return f"Limit {' or '.join(prices['limit'])}; {market}."


def _far(prices: Document, wait: Waiting) -> bool:
    """Asks where the limit is further from the market than anybody usually means."""
    if prices["off_bps"] is None or abs(prices["off_bps"]) <= FAR_BPS:
        return True
    with wait.aside():
        note(_words(prices))
        return ask(f"The limit is more than {FAR_BPS // 100} % from the market. Is it meant so?")


def _show(document: Document) -> None:
    from agent.cli import rounds, tables

    if not document["orders"] and not document["corrections"]:
        say("No limit orders and no corrections under way. To place an order: trimtab swap --price, or --limit")
        return
    made = tables.table("Orders that wait for their price", ("id", "order", "until", "state"))
    for item in document["orders"]:
        made.add_row(cell(item["id"]), cell(item["what"]), item["until"], cell(f"{item['state']} {item['why']}".rstrip()))
    out.print(made)
    out.print(rounds.corrections(document["corrections"]))
