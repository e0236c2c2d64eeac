"""The story that `trimtab demo` tells, from a balanced portfolio through a moving market to a signed rebalance."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from agent import api
from agent.cli import documents, tables

Document = dict[str, Any]


def play(console: Console) -> Document:
    """Runs the demo and prints it to `console`; returns everything as one document."""
    with console.status("Starting an embedded chain with Uniswap V2 and V3"), api.demo_world() as world:
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
        tables.show_plan(console, planned, decimals, with_decision=False)

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
    console.print(Rule(Text(f"{number}  {text}", style="bold"), align="left", style="cyan", characters="─"))
