"""Commands about whole portfolios: templates, export-profile, import-profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Yes
from agent.cli.output import ask, cell, emit, err, interactive, out, say, waiting
from agent.errors import EXIT_REFUSED

if TYPE_CHECKING:
    from rich.console import Console

    from agent.api import Agent
    from agent.api.editing import Editing

Document = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    for command in (templates, export_profile, import_profile):
        app.command()(command)


def templates(
    network: Annotated[str, typer.Option("--network", help="Chain.")] = "ethereum",
    as_json: AsJson = False,
) -> None:
    """Lists the portfolio templates of init: holdings, triggers, limits."""
    from agent import api
    from agent.cli import tables

    document = api.templates(network)

    def show() -> None:
        made = tables.table(f"Templates on {network}", ("name", "what it holds", "when it acts", "limits"))
        for one in document["templates"]:
            held = ", ".join(f"{token['symbol']} {token['target']}" for token in one["tokens"])
            classes = ", ".join(f"{name} {bps / 100:g}%" for name, bps in one["shares_bps"].items())
            trigger = ", ".join(f"{name} {value}" for name, value in one["policy"]["trigger"].items() if name != "kind")
            when = f"{trigger}; to {one['policy']['destination']}; cooldown {one['policy']['cooldown']}"
            limits = ", ".join(f"{name} {value}" for name, value in one["limits"].items())
            notional = f"\nfutures at most {one['futures_notional']} of spot" if one["futures_notional"] else ""
            chosen = f"\nthen chosen by {one['weights']['kind']} every {one['weights']['every']}" if one["weights"] else ""
            made.add_row(cell(one["name"], "bold"), cell(f"{one['about']}\n{classes}\n{held}{chosen}"), cell(when), cell(limits + notional))
        out.print(made)
        say(f"Futures: {document['futures']}.")
        say("To start from one: trimtab init --template NAME --wallet ADDRESS --rpc VARIABLE=OPERATOR")

    emit(document, as_json, show)


def export_profile(
    file: Annotated[Path, typer.Argument(help="The file to write; never over one that is there.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Exports weights, trigger, bands, cooldown and limits to a shareable file, and nothing else."""
    from agent import api

    document = api.export_profile(config, file)

    def show() -> None:
        say(f"Written: {document['profile']}")
        say(f"SHA-256: {document['sha256']}; whoever takes it over can pin it by --sha256")
        if document["left_out"]:
            say(f"Not part of a profile, and left out: {', '.join(document['left_out'])}")

    emit(document, as_json, show)


def import_profile(
    file: Annotated[Path, typer.Argument(help="A file that export-profile wrote.")],
    sha256: Annotated[str | None, typer.Option("--sha256", help="Expected SHA-256 of the file.")] = None,
    token_list: Annotated[Path | None, typer.Option("--token-list", help="Token list file for more symbols.")] = None,
    token_list_sha256: Annotated[str | None, typer.Option("--token-list-sha256", help="Expected SHA-256 of the token list.")] = None,
    sell_others: Annotated[bool, typer.Option("--sell-others", help="Sell assets that are not in the profile.")] = False,
    in_rounds: Annotated[bool, typer.Option("--in-rounds", help="Allow a transition in parts, each within the limits.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Imports weights, trigger and tighter limits of a profile. Shows the transition and asks; sends nothing."""
    from agent import api
    from agent.api import editing as editing_api
    from agent.cli import documents, editing

    answerable = yes or interactive()  # a spinner takes the terminal's place
    with waiting("Reading the chain") as wait:

        def answer(found: Document, edited: Editing, agent: Agent | None) -> bool:
            if yes:
                return agent is None or editing_api.trusted(edited, agent)
            with wait.aside():
                _show(err, found)
                decimals = None if agent is None else documents.decimals(agent.portfolio)
                editing.show_editing(err, editing.editing_document(edited), decimals)
                return ask("Write this?")

        document = api.import_profile(
            config,
            file,
            answer if answerable else None,
            sha256=sha256,
            token_list=token_list,
            token_list_sha256=token_list_sha256,
            sell_others=sell_others,
            in_rounds=in_rounds,
        )
        document |= editing.editing_document(document.pop("editing"))

    def show() -> None:
        _show(out, document)
        editing.show_editing(out, document, None)

    emit(document, as_json, show)
    raise typer.Exit(EXIT_REFUSED if document["state"] == "declined" else 0)


def _show(console: Console, document: Document) -> None:
    from agent.cli import tables

    made = tables.table("Targets", ("token", "address", "found in"), ("before", "after"))
    for item in document["assets"]:
        before = "none" if item["before_bps"] is None else f"{item['before_bps'] / 100:g}%"
        made.add_row(cell(item["symbol"]), cell(item["address"]), item["source"], before, f"{item['after_bps'] / 100:g}%")
        if item["differs"]:
            made.add_row("", cell(f"the profile says {item['profile_address']}", "bold red"), "not used", "", "")
    console.print(made)
    for item in document["left_alone"]:
        console.print(cell(f"{item['symbol']} ({item['before_bps'] / 100:g}%) is no longer managed: what is held of it stays as it is."))
    for note in document["notes"]:
        console.print(cell(f"note: {note}", "yellow"))
    made = tables.table("Trigger and limits", ("key", "yours", "profile", "what becomes of it"))
    for item in document["policy"]:
        made.add_row(cell(item["key"]), cell(item["before"]), cell(item["after"]), "taken")
    for item in document["limits"]:
        told = f"taken: {item['why']}" if item["taken"] else f"left: {item['why']}"
        made.add_row(cell(item["key"]), cell(item["yours"]), cell(item["profile"]), cell(told, "" if item["taken"] else "dim"))
    console.print(made)
