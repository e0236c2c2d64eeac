"""Commands about alerts: alerts, alerts test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from agent.cli.display.output import Document, cell, emit, note, out, say, spinner
from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Heading, command_group
from agent.errors import EXIT_RETRYABLE

if TYPE_CHECKING:
    from agent.cli.display.tables import FigureTable


group = command_group(
    Heading.LOOK,
    70,
    "alerts",
    "Shows alert prices of each asset, alert targets, and which messages were delivered.",
    has_default=True,
)


@group.callback()
def alerts(
    context: typer.Context, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False
) -> None:
    """Shows alert-low and alert-high of each asset with the distance now, what is on, and how each
    target did.
    """
    if context.invoked_subcommand is not None:
        return
    from agent import app as api

    with spinner("Reading the chain"), api.open_agent(config) as agent:
        document = api.alerts(agent)

    def show() -> None:
        out.print(_assets(document))
        if document["targets"]:
            out.print(_targets(document))
        else:
            say("No alert targets configured: add [[alerts.targets]] (docs/alerts.md).")
        for item in document["open"]:
            out.print(
                cell(
                    f"{item['since'] or 'before'}:"
                    f" {item['text']}{' (not sent yet)' if item['waits'] else ''}"
                )
            )

    emit(document, as_json, show)


@group.command()
def test(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Sends a test message to each target. Exit code 11 if one was not delivered."""
    from agent import app as api

    with spinner("Sending to each target"):
        document = api.try_targets(config)

    def show() -> None:
        for item in document["targets"]:
            say(
                f"{item['name']}:"
                f" {'delivered' if item['delivered'] else 'NOT delivered, ' + item['why']}"
            )

    emit(document, as_json, show)
    if not document["reached"]:
        note(
            "  What to do: check the address in its variable, and whether the service is up; then"
            " try again"
        )
        raise typer.Exit(EXIT_RETRYABLE)


def _assets(document: Document) -> FigureTable:
    from agent.cli.display import tables

    made = tables.table(
        "Alert prices", ("token", "stands"), ("price", "alert-low", "to go", "alert-high", "to go ")
    )
    for item in document["assets"]:
        made.add_row(
            cell(item["symbol"]),
            cell(item["side"], "bold red" if item["side"] != "inside" else ""),
            tables.brief(item["price"]),
            tables.brief(item["alert_low"]) if item["alert_low"] else "none",
            _percent(item["to_low_bps"]),
            tables.brief(item["alert_high"]) if item["alert_high"] else "none",
            _percent(item["to_high_bps"]),
        )
    return made


def _targets(document: Document) -> FigureTable:
    from agent.cli.display import tables

    made = tables.table("Targets", ("name", "hears", "delivered last", "failed last"), ("waiting",))
    for item in document["targets"]:
        failed = (
            f"{item['failed']}: {item['why']}, {item['failures_in_row']} in a row"
            if item["failures_in_row"]
            else item["failed"] or "never"
        )
        name = item["name"] if item["ready"] else f"{item['name']} ({item['url_env']} is not set)"
        made.add_row(
            cell(name),
            cell(", ".join(item["events"])),
            item["delivered"] or "never",
            cell(failed),
            str(item["waiting"]),
        )
    return made


def _percent(bps: int | None) -> str:
    return "" if bps is None else f"{bps / 100:+.1f} %"
