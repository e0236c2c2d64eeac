"""Commands on the embedded chain: localchain and demo."""

from __future__ import annotations

import io
import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from agent import app as api
from agent.cli.display import plan_tables, tables
from agent.cli.display.output import emit, note, say
from agent.cli.options import AsJson, Heading, command
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.app.documents.setup import DemoDocument, LocalChainDocument

PICTURE_COLUMNS = 100


@command(Heading.TRY, 20)
def localchain(
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="Port of the local chain.")
    ] = 8545,
    write_config: Annotated[
        Path | None, typer.Option("--write-config", help="Write a config for this chain.")
    ] = None,
    move: Annotated[
        list[str] | None,
        typer.Option("--move", help="Move a price on the chain at --port: WBTC=+30%; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Runs a local chain (anvil) with Uniswap V2 and V3, tokens, price feeds and a funded wallet
    until stopped.

    With --move it moves prices on a running one: pools, feeds and mean prices follow at once.
    """
    from agent import app as api

    if move:
        if write_config is not None:
            raise ConfigError(
                "--write-config: --move changes a chain that is up already",
                "leave one of them away",
            )
        found = api.move_market(port, move)

        def report() -> None:
            from agent.cli.display.tables import amount

            for symbol, by in found["moved"].items():
                say(f"{symbol} {by}: {amount(found['prices_usd'][symbol])} USD")

        emit(found, as_json, report)
        return

    def ready(document: LocalChainDocument) -> None:
        def show() -> None:
            place = (
                f"chain {document['chain_id']} with {len(document['pools'])} pools at"
                f" {document['url']}"
            )
            note(f"Ready: {place}; wallet {document['wallet']}. Stop with Ctrl-C.")
            if write_config is not None:
                note(
                    "Config written, its contracts pinned. Try: trimtab status --config"
                    f" {write_config}"
                )

        emit(document, as_json, show)

    note(f"Starting the chain on port {port} and deploying the contracts")
    api.serve_localchain(port, write_config, ready)


@command(Heading.TRY, 10)
def demo(
    as_json: AsJson = False,
    svg: Annotated[
        Path | None, typer.Option("--svg", help="Also save the output as a picture.", hidden=True)
    ] = None,
) -> None:
    """Rebalances a wallet on an embedded chain, end to end. Needs no key, RPC or account."""
    from agent.cli.display.output import Output

    file = io.StringIO() if as_json else None
    columns, drawn = (None, None) if svg is None else (PICTURE_COLUMNS, True)
    console = Output(
        file=file, record=svg is not None, highlight=False, width=columns, force_terminal=drawn
    )
    document = run_demo(console)
    if svg is not None:
        _save_picture(svg, console.export_svg(title="trimtab demo", unique_id="demo"))
    emit(
        document,
        as_json,
        lambda: say("Try it yourself: trimtab localchain --write-config local.toml"),
    )


def _save_picture(path: Path, svg: str) -> None:
    """Save the picture without the fonts that Rich would load from the network."""
    try:
        path.write_text(
            re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL), encoding="utf-8"
        )
    except OSError as error:
        raise ConfigError(
            f"--svg {path}: {error.strerror}", "choose an existing writable folder"
        ) from None


# --- The scenes of `trimtab demo`: a balanced portfolio, a market move, a signed rebalance.


def run_demo(console: Console) -> DemoDocument:
    """Run the demo and print it to `console`; return everything as one document."""
    from agent.app.documents import plans
    from agent.app.documents.status import status

    starting = (
        nullcontext()
        if console.record
        else console.status("Starting an embedded chain with Uniswap V2 and V3")
    )
    with starting, api.demo_world() as world:
        agent = world.agent
        decimals = plans.decimals(agent.portfolio)
        before = status(agent.status())
        _chapter(console, 1, "A wallet with three tokens, each on target")
        console.print(tables.holdings(before))

        moves = world.move_market()
        _chapter(
            console,
            2,
            "The market moves: " + ", ".join(f"{symbol} {text}" for symbol, text in moves.items()),
        )
        drifted = status(agent.status())
        console.print(tables.holdings(drifted), tables.decision(drifted), sep="\n")

        _chapter(
            console, 3, "The plan: swaps over V2 and V3 pools, their cost and every guard's verdict"
        )
        planned = plans.plan(agent.plan())
        plan_tables.show_plan(console, planned, decimals, with_decision=False, verbose=True)

        _chapter(
            console, 4, "Signed and sent: approvals, then the whole rebalance in one transaction"
        )
        outcome = agent.rebalance(send=True, confirm=lambda _: True, progress=lambda _: None)
        done = plans.rebalance(outcome, agent.realised(outcome))
        if outcome.after is not None:
            done["weights_after_bps"] = agent.weights(outcome.after)
        console.print(tables.transactions(done), tables.realised(done, decimals), sep="\n")

        _chapter(console, 5, "Balanced again; the next cycle holds and says why")
        after = status(agent.status())
        held = plans.plan(agent.plan())
        console.print(tables.holdings(after), tables.decision(held), sep="\n")
    console.print(
        Text(
            "All of this ran on real Uniswap contracts, on a chain inside this process.",
            style="dim",
        )
    )
    return {
        "before": before,
        "moves": moves,
        "drifted": drifted,
        "plan": planned,
        "rebalance": done,
        "after": after,
        "next": held,
    }


def _chapter(console: Console, number: int, text: str) -> None:
    title = Text(f"{number}  {text}", style="bold")
    console.print(
        Rule(title, align="left", style="cyan", characters="─") if console.is_terminal else title
    )
