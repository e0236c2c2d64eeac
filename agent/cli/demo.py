"""The story that `trimtab demo` tells, from a balanced portfolio through a moving market to a signed rebalance."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from agent import api
from agent.cli import documents, tables

Document = dict[str, Any]


def play(console: Console) -> Document:
    """Runs the demo and prints it to `console`; returns everything as one document."""
    with console.status("Starting an embedded chain with Uniswap V2 and V3"), api.demo_world() as world:
        agent = world.agent
        decimals = {asset.token.label: asset.token.decimals for asset in agent.portfolio.assets}
        before = documents.status(agent.status())
        _say(console, 1, "A wallet with three tokens at their targets")
        console.print(tables.holdings(before))

        moves = world.move_market()
        _say(console, 2, "The market moves: " + ", ".join(f"{symbol} {text}" for symbol, text in moves.items()))
        drifted = documents.status(agent.status())
        console.print(tables.holdings(drifted))
        console.print(tables.decision(drifted))

        _say(console, 3, "The plan, its cost, and what every guard says")
        planned = documents.plan(agent.plan())
        tables.show_plan(console, planned, decimals)

        _say(console, 4, "Signed and sent: approvals first, then the whole rebalance in one transaction")
        outcome = agent.rebalance(send=True, confirm=lambda _: True, progress=lambda _: None)
        done = documents.rebalance(outcome, agent.realised(outcome))
        if outcome.after is not None:
            done["weights_after_bps"] = agent.weights(outcome.after)
        console.print(tables.transactions(done))
        console.print(tables.realised(done, decimals))
        now = {item["symbol"]: item["weight_bps"] for item in drifted["holdings"]}
        targets = {item["symbol"]: item["target_bps"] for item in drifted["holdings"]}
        console.print(tables.weights(now, done["weights_after_bps"], targets))

        _say(console, 5, "The next look")
        held = documents.plan(agent.plan())
        console.print(tables.decision(held))
        return {"before": before, "moves": moves, "drifted": drifted, "plan": planned, "rebalance": done, "next": held}


def _say(console: Console, number: int, text: str) -> None:
    console.print()
    console.print(Panel(Text(text, style="bold"), border_style="cyan", title=str(number), title_align="left"))
