"""`trimtab paper`: the live step on the live chain, with nothing signed and nothing sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Record
from agent.cli.output import Waiting, note
from agent.cli.run import LogLines, looking

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.api import Agent
    from agent.execution.outcome import Outcome

BANNER = "PAPER: real prices and pools, simulated swaps. No key is read, nothing is signed, nothing is sent."


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(paper)


def paper(
    config: ConfigPath = DEFAULT_CONFIG,
    once: Annotated[bool, typer.Option("--once", help="Run one step, then exit.")] = False,
    every: Annotated[str, typer.Option("--every", help="Interval between looks, such as 10m.")] = "10m",
    value: Annotated[str, typer.Option("--value", help="Start with this value in the numeraire, spread over the targets.")] = "",
    start: Annotated[str, typer.Option("--start", help="Start with these balances: BTC=0.5,USDC=1000.")] = "",
    native: Annotated[str, typer.Option("--native", help="Native coins for gas, with --value or --start.")] = "1",
    as_json: AsJson = False,
    log_format: LogLines = None,
    record: Record = None,
) -> None:
    """Paper-trades like run --send: exact pools of the next block, own wallet and books.

    It starts with the real wallet's balances, or with --value or --start. The books are in paper.db beside the live store; status,
    history, explain, pnl and export show them with --paper. Without --once it runs until stopped. Sends no alerts.
    """
    from agent import api

    clock = api.StoppableClock()
    opened = api.open_paper(config, api.Start(value, start, native), clock=clock, record=record)
    note(BANNER)

    def confirming(_agent: Agent, _wait: Waiting) -> Callable[[Outcome], bool]:
        return api.agreed

    raise typer.Exit(looking(opened, clock, confirming, send=True, every=every, once=once, as_json=as_json, log_format=log_format))
