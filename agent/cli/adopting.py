"""The command by which an owner says that this store goes on for the wallet: adopt."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Yes
from agent.cli.output import ask, emit, note, require_answerable, say, waiting
from agent.errors import EXIT_REFUSED


def adopt(
    config: ConfigPath = DEFAULT_CONFIG,
    nothing_lost: Annotated[
        bool, typer.Option("--nothing-lost", help="Confirms that the wallet had no losses in the last 24 h outside this store.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Resyncs to the wallet's current nonce after another program used the wallet or the store was restored. Sends nothing."""
    from agent import api

    if not yes:
        require_answerable(yes)
        note("Whatever else uses this wallet must have stopped: two at once could trade twice.")
        if not ask("Go on from the chain's present nonce?"):
            emit({"nonce": None}, as_json, lambda: say("Nothing was adopted."))
            raise typer.Exit(EXIT_REFUSED)
    with api.open_agent(config) as agent, waiting("Reading the chain"):
        document = {"nonce": agent.adopt(nothing_lost=nothing_lost)}
    emit(document, as_json, lambda: say(f"Adopted: the next transaction has nonce {document['nonce']}."))
