"""Corrections over time: as documents, and the arithmetic of rounds as a table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent.cli.output import cell
from agent.units import value_text

if TYPE_CHECKING:
    from rich.console import Console

    from agent.cli.tables import FigureTable
    from agent.model import Pacing, Portfolio, StepInput, Underway

Document = dict[str, Any]
PARTS = ("moved", "fees", "impact", "skew", "gas", "waiting", "rest", "total")


def pacing(found: Pacing | None, portfolio: Portfolio) -> Document | None:
    """What each number of rounds would cost, and which is chosen; None where nothing was compared. Values in the numeraire."""
    if found is None:
        return None
    decimals = portfolio.numeraire.decimals
    options = [
        {"rounds": option.rounds, **{part: value_text(getattr(option, part), decimals) for part in PARTS}} for option in found.options
    ]
    return {"chosen": found.chosen, "why": found.why, "options": options}


def campaign(step: StepInput) -> Document | None:
    """The correction that was under way when a step began; None where there was none. Values in the numeraire, at its start's prices."""
    return None if step.history.campaign is None else underway(step.history.campaign, step.portfolio)


def underway(under: Underway, portfolio: Portfolio) -> Document:
    """How far it is."""
    begun, decimals = under.campaign, portfolio.numeraire.decimals
    return {
        "id": under.id,
        "style": begun.pace.style.value,
        "purchase": None if begun.purchase is None else begun.purchase.value,
        "began": _utc(begun.began_s),
        "expires": _utc(begun.expires_s),
        "rounds_done": under.done,
        "rounds_about": begun.rounds,
        "next": _utc(under.next_s),
        "wish": value_text(begun.wish, decimals),
        "moved": value_text(under.moved, decimals),
        "spent": value_text(under.spent, decimals),
        "budget": None if begun.budget is None else value_text(begun.budget, decimals),
    }


def show(console: Console, document: Document) -> None:
    """Where a correction over time stands, and what rounds would cost; nothing where there is neither."""
    if document.get("campaign") is not None:
        console.print(cell(sentence(document["campaign"], document["numeraire"])))
    if document.get("pacing") is not None:
        console.print(table(document["pacing"], document["numeraire"]))


def table(found: Document, numeraire: str) -> FigureTable:
    """The comparison, a row for each number of rounds."""
    from agent.cli.tables import money
    from agent.cli.tables import table as empty

    made = empty(f"Rounds against one, in {numeraire}: {found['why']}", (), ("rounds", *PARTS))
    for option in found["options"]:
        chosen = option["rounds"] == found["chosen"]
        figures = [str(option["rounds"]), *(money(option[part]) for part in PARTS)]
        made.add_row(*(cell(text, "bold" if chosen else "") for text in figures))
    return made


def corrections(found: list[Document]) -> FigureTable:
    """Corrections over time, with where each stands or how it ended."""
    from agent.cli.tables import table as empty

    made = empty("Corrections over time", ("id", "style", "began", "next", "state"), ("rounds",))
    for item in found:
        done, state = f"{item['rounds_done']} of ~{item['rounds_about']}", f"{item['state']}: {item['why']}".rstrip(": ")
        made.add_row(cell(item["id"]), item["style"], item["began"], item["next"] or "", cell(state), done)
    return made


def sentence(found: Document, numeraire: str) -> str:
    """Where a correction stands, in one sentence."""
    if found["purchase"] is not None:
        parts = max(found["rounds_about"], found["rounds_done"] + 1)
        bought = f"{found['moved']} of {found['wish']} {numeraire} moved"
        return f"{found['purchase'].capitalize()}: {found['rounds_done']} of {parts} parts done, {bought}; next at {found['next']} UTC"
    budget = "no budget" if found["budget"] is None else f"a budget of {found['budget']}"
    return (
        f"Under way since {found['began']}: {found['style']}, {found['rounds_done']} of about {found['rounds_about']} rounds done, "
        f"{found['moved']} of {found['wish']} {numeraire} moved, {found['spent']} lost against the prices at its start of {budget}; "
        f"next {found['next']}, over {found['expires']}"
    )


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
