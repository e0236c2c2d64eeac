"""The story that `trimtab demo` tells, from a balanced portfolio through a moving market to a signed rebalance."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from agent import api
from agent.cli import documents, plan_tables, tables

Document = dict[str, Any]


def play(console: Console) -> Document:
    """Runs the demo and prints it to `console`; returns everything as one document."""
    starting = nullcontext() if console.record else console.status("Starting an embedded chain with Uniswap V2 and V3")
    with starting, api.demo_world() as world:
        agent = world.agent
        decimals = documents.decimals(agent.portfolio)
        before = documents.status(agent.status())
        _chapter(console, 1, "A wallet with three tokens, each on target")
        console.print(tables.holdings(before))

        moves = world.move_market()
        _chapter(console, 2, "The market moves: " + ", ".join(f"{symbol} {text}" for symbol, text in moves.items()))
        drifted = documents.status(agent.status())
        console.print(tables.holdings(drifted), tables.decision(drifted), sep="\n")

        _chapter(console, 3, "The plan: swaps over V2 and V3 pools, what they cost, what every guard says")
        planned = documents.plan(agent.plan())
        plan_tables.show_plan(console, planned, decimals, with_decision=False, verbose=True)

        _chapter(console, 4, "Signed and sent: approvals, then the whole rebalance in one transaction")
        outcome = agent.rebalance(send=True, confirm=lambda _: True, progress=lambda _: None)
        done = documents.rebalance(outcome, agent.realised(outcome))
        if outcome.after is not None:
            done["weights_after_bps"] = agent.weights(outcome.after)
        console.print(tables.transactions(done), tables.realised(done, decimals), sep="\n")

        _chapter(console, 5, "Balanced again; the next look holds, and says why")
        after = documents.status(agent.status())
        held = documents.plan(agent.plan())
        console.print(tables.holdings(after), tables.decision(held), sep="\n")
    console.print(Text("All of this ran on real Uniswap contracts, on a chain inside this process.", style="dim"))
    return {"before": before, "moves": moves, "drifted": drifted, "plan": planned, "rebalance": done, "after": after, "next": held}


def _chapter(console: Console, number: int, text: str) -> None:
    title = Text(f"{number}  {text}", style="bold")
    console.print(Rule(title, align="left", style="cyan", characters="─") if console.is_terminal else title)
