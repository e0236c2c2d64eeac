"""Commands before the first trade: init, doctor, trust."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Yes
from agent.cli.output import emit, err, out, waiting
from agent.errors import EXIT_REFUSED, ConfigError


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    for command in (init, doctor, trust):
        app.command()(command)


def init(
    wallet: Annotated[str, typer.Option("--wallet", help="Address of the wallet.")],
    target: Annotated[list[str], typer.Option("--target", help="SYMBOL=SHARE, once per token: WETH=50%.")],
    rpc: Annotated[list[str], typer.Option("--rpc", help="VARIABLE=OPERATOR, once per endpoint; the variable holds the URL.")],
    network: Annotated[str, typer.Option("--network", help="Which chain.")] = "ethereum",
    numeraire: Annotated[str, typer.Option("--numeraire", help="Symbol that values are counted in.")] = "USDC",
    token_list: Annotated[Path | None, typer.Option("--token-list", help="A token list file to resolve symbols by.")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Writes a commented config to start from. Shows the addresses; nothing is sent."""
    from agent import api

    targets, endpoints = [_pair(text, "--target") for text in target], [_pair(text, "--rpc") for text in rpc]
    document = api.initialise(config, network, wallet, targets, numeraire, endpoints, token_list)

    def show() -> None:
        table = Table(title=f"Written: {document['config']}", title_justify="left")
        for name in ("token", "target", "address", "price feed"):
            table.add_column(name)
        for asset in document["assets"]:
            table.add_row(asset["symbol"], asset["target"], asset["address"], asset["feed"] or "none: a pool's TWAP")
        out.print(table)
        out.print("Compare the addresses with a source you trust. Next:")
        for line in document["next"]:
            out.print(f"  {line}", markup=False)

    emit(document, as_json, show)


def doctor(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Checks config, endpoints, contracts, tokens, prices, key, store and clock, and says what to do."""
    from agent import api

    with waiting("Checking", as_json):
        document = api.doctor(config)

    def show() -> None:
        table = Table(title="Doctor", title_justify="left")
        for name in ("check", "", "found", "what to do"):
            table.add_column(name)
        marks = {"ok": Text("ok", style="green"), "warn": Text("note", style="yellow"), "fail": Text("fails", style="bold red")}
        for row in document["checks"]:
            table.add_row(row["check"], marks[row["state"]], Text(row["found"]), Text(row["remedy"]))
        out.print(table)

    emit(document, as_json, show)
    raise typer.Exit(document["exit"])


def trust(config: ConfigPath = DEFAULT_CONFIG, yes: Yes = False, as_json: AsJson = False) -> None:
    """Pins every contract of the config and the pools found by address and code hash; nothing else is ever called."""
    from agent import api

    with waiting("Reading code hashes", as_json):
        document = api.trust(config, confirm=False)

    def show() -> None:
        table = Table(title=f"Contracts at block {document['block']}", title_justify="left")
        for name in ("what", "address", "code hash", "state"):
            table.add_column(name)
        for row in document["contracts"]:
            table.add_row(row["what"], row["address"], row["code_hash"][:18] + "…", Text(row["state"], style=_STATES.get(row["state"], "")))
        out.print(table)

    if not yes:
        if as_json or not err.is_terminal:
            emit(document, as_json, show)
            err.print("Nothing was pinned. Add --yes to pin these.")
            raise typer.Exit(EXIT_REFUSED)
        show()
        if not typer.confirm("Pin these?", err=True):
            raise typer.Exit(EXIT_REFUSED)
    document = api.trust(config, confirm=True)
    emit(document, as_json, lambda: out.print(f"Pinned {len(document['contracts'])} contracts."))


_STATES = {"new": "yellow", "CHANGED": "bold red"}


def _pair(text: str, field: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name or not value:
        raise ConfigError(f"{field}: {text!r} is not NAME=VALUE", "for example WETH=50%")
    return name, value
