"""Commands about balances that changed without the agent: flows, flows confirm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath
from agent.cli.output import cell, emit, out, say, waiting

if TYPE_CHECKING:
    from agent.cli.tables import FigureTable
    from agent.model import StepInput

Document = dict[str, Any]
group = typer.Typer(help="Balance changes not made by the agent.", invoke_without_command=True)


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    group.callback()(flows)
    group.command()(confirm)
    app.add_typer(group, name="flows")


def flows(
    context: typer.Context,
    config: ConfigPath = DEFAULT_CONFIG,
    everything: Annotated[bool, typer.Option("--all", help="Include explained changes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compares balances with the books and lists unexplained changes."""
    if context.invoked_subcommand is not None:
        return
    from agent import api

    with waiting("Reading the chain"), api.open_agent(config) as agent:
        document = api.flows(agent, everything)
    emit(document, as_json, lambda: show(document))


def confirm(
    number: Annotated[str, typer.Argument(help="Number of the change from trimtab flows, or all.")],
    kind: Annotated[
        str | None, typer.Option("--as", help="deposit or gift for a rise, withdrawal or loss for a fall.", show_default=False)
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Confirms a balance change: a deposit or a withdrawal by default. A withdrawal is not a loss."""
    from agent import api

    document = api.confirm_flows(config, number, kind)

    def told() -> None:
        for item in document["confirmed"]:
            say(f"Flow {item['id']}: {item['as']}.")
        if not document["confirmed"]:
            say("Every flow is explained.")

    emit(document, as_json, told)


def show(document: Document) -> None:
    """A whole list of flows."""
    if not document["flows"]:
        say("Every change of every balance is explained.")
        return
    out.print(table(document["flows"]))
    if document["halts"]:
        out.print(cell("Nothing is bought or rebalanced until these are explained or accepted: trimtab flows confirm", "bold red"))


def documents(step: StepInput) -> list[Document]:
    """Changes of balances that nobody has explained yet, as documents."""
    from agent.api import flow_words

    return [flow_words.document(step, flow) for flow in step.history.flows]


def left_alone(step: StepInput) -> list[Document]:
    """What of the wallet is no part of the portfolio now, each with the reason."""
    from agent.api import flow_words

    return flow_words.left_alone(step)


def left_table(found: list[Document]) -> FigureTable:
    """The same to be read."""
    from agent.cli import tables

    made = tables.table("Left alone", ("asset", "why"), ("amount",), order=("asset", "amount", "why"))
    for item in found:
        made.add_row(cell(item["symbol"]), item["amount"], cell(item["why"]))
    return made


def table(found: list[Document]) -> FigureTable:
    """Flows, newest first."""
    from agent.cli import tables

    made = tables.table("Changes that the books do not explain", ("id", "what", "told"))
    for item in found:
        said = item["told"] or ("counts as loss until told" if item["counts_as_loss"] else "not told")
        made.add_row(str(item["id"] or ""), cell(item["words"], "bold red" if item["halts"] else ""), cell(said))
    return made
