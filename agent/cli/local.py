"""Commands on the embedded chain: localchain and demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli.options import AsJson
from agent.cli.output import emit, note, say


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    for command in (localchain, demo):
        app.command()(command)


def localchain(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of the chain on this machine.")] = 8545,
    write_config: Annotated[
        Path | None, typer.Option("--write-config", help="Write a config for this chain, ready for every command.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A local chain (anvil) with real Uniswap V2 and V3, tokens, price feeds and a funded wallet; up until stopped."""
    from agent import api

    def ready(document: dict[str, Any]) -> None:
        def show() -> None:
            place = f"chain {document['chain_id']} with {len(document['pools'])} pools at {document['url']}"
            note(f"Ready: {place}; wallet {document['wallet']}. Stop with Ctrl-C.")
            if write_config is not None:
                note(f"Config written, its contracts pinned. Try: trimtab status --config {write_config}")

        emit(document, as_json, show)

    note(f"Starting the chain on port {port} and deploying the contracts")
    api.serve_localchain(port, write_config, ready)


def demo(
    as_json: AsJson = False,
    svg: Annotated[Path | None, typer.Option("--svg", help="Also save what was shown as a picture.", hidden=True)] = None,
) -> None:
    """The main job on an embedded chain: drift, plan, signed swap, balance again. No key, no RPC, no account."""
    from rich.console import Console

    from agent.cli import demo as show

    console = Console(record=svg is not None, quiet=as_json, highlight=False, width=None if svg is None else 118)
    document = show.play(console)
    if svg is not None:
        console.save_svg(str(svg), title="trimtab demo")
    emit(document, as_json, lambda: say("Try it yourself: trimtab localchain --write-config local.toml"))
