"""The command about the memory of pools: oracle."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Send, Yes
from agent.cli.output import ask, cell, emit, note, out, require_answerable, say, waiting
from agent.errors import EXITS, ConfigError

Document = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(oracle)


def oracle(
    pool: Annotated[str | None, typer.Argument(help="Address of a V3 pool that is to remember more.")] = None,
    to: Annotated[int | None, typer.Option("--to", help="Number of price observations to keep.")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Checks that V3 observations cover reference.twap_window; with POOL and --to, extends one pool's observations."""
    from agent import api
    from agent.cli.documents import transaction

    if (pool is None) != (to is None):
        raise ConfigError("oracle: POOL and --to go together", "for example: trimtab oracle 0x… --to 151")
    if send and pool is None:
        raise ConfigError("--send: there is nothing to send without POOL and --to", "trimtab oracle shows the pools")
    if send:
        require_answerable(yes)
    with waiting("Reading the chain") as wait, api.open_agent(config) as agent:
        if pool is None or to is None:
            listed = api.observations(agent)
            with wait.aside():
                emit(listed, as_json, lambda: _list(listed))
            return

        def confirm(found: Document) -> bool:
            with wait.aside():
                if not as_json:
                    _cost(found)
                return yes or ask(f"Let {found['pool']} keep {found['to']} observations")

        document = api.raise_observations(agent, pool, to, send=send, confirm=confirm, progress=wait.update)
        document["transactions"] = [transaction(intent) for intent in document["transactions"]]
        with wait.aside():
            emit(document, as_json, lambda: _show(document, send))
    raise typer.Exit(EXITS.get(document["outcome"], 0))


def _list(document: Document) -> None:
    from agent.cli import tables

    title = f"Means over {document['window_s']} s at block {document['block']}; {document['enough']} observations are enough"
    made = tables.table(
        title, ("pool", "pair", "mean"), ("fee", "keeps", "to keep"), order=("pool", "pair", "fee", "keeps", "to keep", "mean")
    )
    for item in document["pools"]:
        figures = (f"{item['fee_pips'] / 10_000:g}%", str(item["observations"]), str(item["observations_next"]))
        made.add_row(item["pool"], cell("/".join(item["tokens"])), *figures, cell(item["why"] or "counts"))
    out.print(made)


def _cost(document: Document) -> None:
    worth = "" if document["cost"] is None else f", {document['cost']} in the numeraire"
    most = "" if document["most_native"] is None else f"; {document['most_native']} at most"
    pair, before = "/".join(document["tokens"]), document["observations_next"]
    say(f"{document['pool']} ({pair}) is to keep {document['to']} price observations, now {before}")
    say(f"About {document['gas_units']} gas: {document['cost_native']} native coin{worth}{most}")


def _show(document: Document, sent: bool) -> None:
    if document["rises"] == 0:
        say(f"{document['pool']} is to keep {document['observations_next']} observations already; there is nothing to do.")
        return
    if not sent:
        _cost(document)
        note("Nothing was sent. To send it, add --send.")
    for item in document["transactions"]:
        say(f"{item['kind']} {item['status']} in block {item['block']}: {item['hash']}")
    if document["outcome"] == "done":
        say("Its mean counts once its observations, one for each block with a trade, cover the window.")
    elif sent:
        note(f"{document['outcome']}: it stays as it is")
