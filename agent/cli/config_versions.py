"""The versions of a config as tables and lines."""

from __future__ import annotations

from typing import Any

from agent.cli.output import cell, out, say

Document = dict[str, Any]


def show_all(document: Document) -> None:
    """Every version in a line."""
    from agent.cli import tables

    made = tables.table("Versions of the config", ("no.", "time", "how", "digest"))
    for one in document["configs"]:
        mark = " (this one)" if one["digest"] == document["present"] else ""
        made.add_row(str(one["number"]), cell(one["time"]), cell(one["how"]), cell(one["digest"][:16] + mark))
    out.print(made)
    if document["confirmed"] not in (None, document["present"]):
        say("The config of now is none that was confirmed: trimtab edit --confirm")


def show_one(document: Document) -> None:
    """What a version changed, then its text."""
    say(f"Version {document['number']} ({document['how']}), {document['digest']}")
    if document["before"] is not None:
        say(f"Changed since version {document['before']}:")
        for line in document["changes"] or ["comments or secrets alone"]:
            say(f"  {line}")
    say("")
    for line in (document["text"] or "its text was not kept").splitlines():
        say(line)
