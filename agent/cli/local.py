"""Commands for trying trimtab: localchain and demo, on local chains without key, RPC or account."""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from agent import app as api
from agent.cli.display import futures_tables, plan_tables, status_tables
from agent.cli.display.terminal import emit, note, say
from agent.cli.options import AsJson, Heading, command
from agent.errors import ConfigError, TrimtabError
from agent.key_variables import drop_key_variables

if TYPE_CHECKING:
    from agent.app.documents.futures import MarginDocument
    from agent.app.documents.owner import (
        CrashDocument,
        DemoDocument,
        FuturesDemoDocument,
        LiveDemoDocument,
        LocalChainDocument,
        UnreducedPositionsDocument,
    )
    from agent.app.documents.plans import RebalanceDocument
    from agent.app.local import FuturesDemoWorld, MarketMove
    from agent.execution.step_context import StepOutcome


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
    futures: Annotated[
        bool, typer.Option("--futures", help="Also deploy perpetual futures, with positions.")
    ] = False,
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            help="A stand-in of this network instead, with its fees, and 460 dollars: base.",
        ),
    ] = None,
    safe: Annotated[
        bool,
        typer.Option("--safe", help="A Safe of three test accounts has the portfolio as well."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Runs a local chain (anvil) with Uniswap V2 and V3, tokens, price feeds and a funded wallet
    until stopped.

    With --move it moves prices on a running chain: pools, feeds and TWAPs follow at once.
    """
    if move:
        if write_config is not None:
            raise ConfigError(
                "--write-config and --move cannot be combined: --move changes a running chain",
                "use one of them",
            )
        market_move = api.move_market(port, move)

        def show() -> None:
            from agent.figures import format_figure

            for symbol, move_text in market_move["moved"].items():
                say(
                    f"{symbol} {move_text}: {format_figure(market_move['prices_usd'][symbol], 'price')} USD"
                )

        emit(market_move, as_json, show)
        return

    def on_ready(document: LocalChainDocument) -> None:
        def show() -> None:
            chain_text = (
                f"chain {document['chain_id']} with {len(document['pools'])} pools at"
                f" {document['url']}"
            )
            note(f"Ready: {chain_text}; wallet {document['wallet']}. Stop with Ctrl-C.")
            if safe:
                note(
                    "The wallet is a Safe. Two of its owners must sign, with their published keys:"
                    f" --key test_account={' or '.join(document['owners'])}"
                )
            if write_config is not None:
                note(
                    "Config written, its contracts pinned. Try: trimtab status --config"
                    f" {write_config}"
                )

        emit(document, as_json, show)

    on_base = _is_base(network)
    if on_base and futures:
        raise ConfigError(
            "--futures and --network cannot be combined: the stand-in has no futures",
            "use one of them",
        )
    if safe and (on_base or futures):
        raise ConfigError(
            "--safe cannot be combined with --futures or --network", "use one of them"
        )
    note(f"Starting the chain on port {port} and deploying the contracts")
    api.serve_localchain(
        port, write_config, on_ready, futures=futures, on_base=on_base, is_safe=safe
    )


def _is_base(network: str | None) -> bool:
    """Return whether the stand-in of Base is wanted. Raises ConfigError for another network."""
    if network not in (None, "base"):
        raise ConfigError(
            f"--network: {network[:40]!r} has no stand-in", "write --network base, or omit it"
        )
    return network == "base"


@command(Heading.TRY, 10)
def demo(
    futures: Annotated[
        bool,
        typer.Option("--futures", help="With futures in addition to the tokens (needs anvil)."),
    ] = False,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="In the browser, live until stopped (needs anvil and the extra dashboard).",
        ),
    ] = False,
    network: Annotated[
        str | None,
        typer.Option(
            "--network", help="With 500 dollars on a stand-in of this network: base (needs anvil)."
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option("--port", min=0, max=65535, help="Port of --serve; 0 takes a free one."),
    ] = 8765,
    as_json: AsJson = False,
    svg: Annotated[
        Path | None,
        typer.Option("--svg", help="Also save the output as an SVG picture.", hidden=True),
    ] = None,
) -> None:
    """Rebalances a wallet on an embedded chain, end to end. Needs no key, RPC or account.

    With --futures also Perpetual Protocol v2: positions are opened, the market crashes twice, and
    leverage is reduced before liquidation. With --serve the dashboard shows a portfolio whose
    market replays recorded prices of 2021, a week every half minute, and each rebalance that
    follows. With --network base the wallet has 500 dollars, and each transaction pays the rollup's
    data fee.
    """
    on_base = _is_base(network)
    if on_base and (futures or serve):
        raise ConfigError(
            "--network cannot be combined with --futures or --serve", "use one of them"
        )
    if serve:
        if futures or svg is not None:
            raise ConfigError(
                "--serve cannot be combined with --futures or --svg", "use one of them"
            )
        run_live_demo(port, as_json)
        return
    from agent.cli.display.terminal import Output

    discarded_output = io.StringIO() if as_json else None
    picture_columns, force_terminal = (None, None) if svg is None else (PICTURE_COLUMNS, True)
    console = Output(
        file=discarded_output,
        record=svg is not None,
        highlight=False,
        width=picture_columns,
        force_terminal=force_terminal,
    )
    document = run_futures_demo(console) if futures else run_demo(console, on_base=on_base)
    if svg is not None:
        _save_picture(svg, console.export_svg(title="trimtab demo", unique_id="demo"))
    emit(
        document,
        as_json,
        lambda: say(
            "Try it yourself: trimtab localchain"
            f"{' --futures' if futures else ' --network base' if on_base else ''}"
            " --write-config local.toml"
        ),
    )


def _save_picture(path: Path, svg_text: str) -> None:
    """Save the picture without the fonts that Rich would load from the network."""
    try:
        path.write_text(
            re.sub(r"\s*@font-face \{.*?\}", "", svg_text, flags=re.DOTALL), encoding="utf-8"
        )
    except OSError as error:
        raise ConfigError(
            f"--svg {path}: {error.strerror}", "choose an existing writable folder"
        ) from None


def run_demo(console: Console, *, on_base: bool = False) -> DemoDocument:
    """Run the demo, `on_base` on the stand-in of Base, and print it to `console`; return everything
    as one document.
    """
    from agent.app.documents import plans
    from agent.app.documents.status import status_document

    start_display: AbstractContextManager[object] = nullcontext()
    if not console.record:
        start_display = console.status("Starting an embedded chain with Uniswap V2 and V3")
    open_world = api.base_demo_world if on_base else api.demo_world
    with start_display, open_world() as world:
        agent = world.agent
        decimals_by_symbol = plans.decimals_by_label(agent.portfolio)
        status_before = status_document(agent.status())
        _print_chapter(console, 1, "A wallet with three tokens, each on target")
        console.print(status_tables.holdings_table(status_before))

        market_moves = world.move_market()
        _print_chapter(
            console,
            2,
            "The market moves: "
            + ", ".join(f"{symbol} {move_text}" for symbol, move_text in market_moves.items()),
        )
        status_after_move = status_document(agent.status())
        console.print(
            status_tables.holdings_table(status_after_move),
            status_tables.decision_notice(status_after_move),
            sep="\n",
        )

        _print_chapter(
            console, 3, "The plan: swaps over V2 and V3 pools, their cost and every guard's verdict"
        )
        plan_document = plans.plan_document(agent.plan())
        plan_tables.show_plan(
            console, plan_document, decimals_by_symbol, with_decision=False, verbose=True
        )

        _print_chapter(
            console, 4, "Signed and sent: approvals, then the whole rebalance in one transaction"
        )
        outcome = agent.rebalance(send=True, confirm=lambda _: True, progress=lambda _: None)
        rebalance_document = plans.rebalance_document(outcome, agent.realised_changes(outcome))
        if outcome.input_after is not None:
            rebalance_document["weights_after_bps"] = agent.weights_at(outcome.input_after)
        plan_tables.show_step_results(console, rebalance_document, decimals_by_symbol)

        _print_chapter(console, 5, "Balanced again; the next cycle holds and says why")
        status_after = status_document(agent.status())
        plan_after = plans.plan_document(agent.plan())
        console.print(
            status_tables.holdings_table(status_after),
            status_tables.decision_notice(plan_after),
            sep="\n",
        )
    place_text = "on this machine" if on_base else "inside this process"
    console.print(
        Text(f"All of this ran on real Uniswap contracts, on a chain {place_text}.", style="dim")
    )
    document: DemoDocument = {
        "before": status_before,
        "moves": market_moves,
        "drifted": status_after_move,
        "plan": plan_document,
        "rebalance": rebalance_document,
        "after": status_after,
        "next": plan_after,
    }
    if world.year_cost_text:
        console.print(Text(world.year_cost_text, style="bold"))
        document["year"] = world.year_cost_text
    return document


def _print_chapter(console: Console, number: int, title_text: str) -> None:
    title = Text(f"{number}  {title_text}", style="bold")
    if console.is_terminal:
        console.print(Rule(title, align="left", style="cyan", characters="─"))
    else:
        console.print(title)


def run_live_demo(port: int, as_json: bool) -> None:
    """Play the demo and serve its dashboard until SIGINT or SIGTERM. Raises ConfigError without
    anvil, the extra, or a free port.
    """
    from agent.web.server import DashboardProcess, require_servable

    drop_key_variables([])
    require_servable(port)
    clock = api.SingleStopClock()
    with suppress(api.StopRequested), clock.listening(), ExitStack() as stack:
        note("Starting a local chain with Uniswap V2 and V3")
        with clock.interruptible():
            live_demo = stack.enter_context(api.live_demo(clock))
            dashboard = DashboardProcess(
                live_demo.config_path, port, api.DEMO_BANNER, live_demo.replay_path
            )
            stack.callback(dashboard.stop)
        dashboard_url = dashboard.address
        url_document: LiveDemoDocument = {
            "url": dashboard_url,
            "config": str(live_demo.config_path),
        }
        emit(
            url_document, as_json, lambda: _show_dashboard_url(dashboard_url, live_demo.config_path)
        )
        for event in live_demo.play():
            dashboard.require_alive()
            _show_event(event)


def _show_dashboard_url(dashboard_url: str, config: Path) -> None:
    say(api.DEMO_BANNER)
    say(f"Dashboard: {dashboard_url}. Stop with Ctrl-C.")
    say(f"In a second terminal: trimtab status --config {config}")


def _show_event(event: StepOutcome | TrimtabError | MarketMove) -> None:
    """Print a move of the market, a rebalance or an error."""
    if isinstance(event, api.MarketMove):
        moves_text = ", ".join(f"{symbol} {move_text}" for symbol, move_text in event.moves.items())
        note(f"Recorded prices of {event.date}: {moves_text}")
    elif isinstance(event, TrimtabError):
        note(f"{event.message}; trying again")
    elif event.transactions:
        note(f"{event.kind.value}: {event.reason}")


def run_futures_demo(console: Console) -> FuturesDemoDocument:
    """Run the demo with futures and print it to `console`; return everything as one document."""
    from agent.app.documents import futures as documents
    from agent.app.documents.status import status_document

    start_display: AbstractContextManager[object] = nullcontext()
    if not console.record:
        start_display = console.status("Starting an embedded chain with Perpetual Protocol v2")
    with start_display, api.futures_demo_world() as world:
        agent = world.agent
        _print_chapter(
            console, 1, "A wallet with three tokens, and 5,000 USDC of margin without positions"
        )
        status_before = status_document(agent.status())
        console.print(status_tables.holdings_table(status_before))
        futures_tables.show_futures_summary(console, status_before)

        _print_chapter(console, 2, "The first step opens a position in each market, at 3x leverage")
        opening_document = _run_futures_step(console, world)
        positions_document = documents.positions_document(api.current_futures_report(agent))
        console.print(futures_tables.futures_positions_table(positions_document))
        world.remember_positions()

        crashes: list[CrashDocument] = []
        for chapter_number, price_factors in enumerate(api.DEMO_CRASHES, 3):
            price_moves = world.crash(price_factors)
            moves_text = ", ".join(
                f"{symbol} {move_text}" for symbol, move_text in price_moves.items()
            )
            _print_chapter(
                console,
                chapter_number,
                f"The market falls: {moves_text}. Leverage is above its limit",
            )
            margin_document = documents.margin_document(api.current_futures_report(agent))
            futures_tables.show_margin(console, margin_document)
            reduction_document = _run_futures_step(console, world)
            margin_after = documents.margin_document(api.current_futures_report(agent))
            unreduced_positions = world.unreduced_positions()
            _show_without_agent(console, margin_after, unreduced_positions)
            crashes.append(
                {
                    "moves": price_moves,
                    "margin": margin_document,
                    "rebalance": reduction_document,
                    "after": margin_after,
                    "untouched": unreduced_positions,
                }
            )

        _print_chapter(console, 5, "A day with the perpetuals above their index: longs pay funding")
        world.pass_a_day_at_a_premium()
        funding_document = documents.funding_document(*api.futures_funding(agent, 7))
        futures_tables.show_funding(console, funding_document)

        _print_chapter(console, 6, "Portfolio and futures at the end")
        final_status = status_document(agent.status())
        final_positions = documents.positions_document(api.current_futures_report(agent))
        console.print(
            status_tables.holdings_table(final_status),
            futures_tables.futures_positions_table(final_positions),
            sep="\n",
        )
        futures_tables.show_futures_summary(console, final_status)
    console.print(
        Text(
            "All of this ran on the real contracts of Uniswap and Perpetual Protocol v2, on a chain"
            " on this machine.",
            style="dim",
        )
    )
    return {
        "before": status_before,
        "opened": opening_document,
        "positions": positions_document,
        "crashes": crashes,
        "funding": funding_document,
        "final": final_status,
        "remaining": final_positions,
    }


def _run_futures_step(console: Console, world: FuturesDemoWorld) -> RebalanceDocument:
    """Run one step, print its transactions, and return its document."""
    from agent.app.documents import plans

    outcome = world.agent.rebalance(send=True, confirm=lambda _: True, progress=lambda _: None)
    rebalance_document = plans.rebalance_document(outcome, world.agent.realised_changes(outcome))
    console.print(status_tables.transactions_table(rebalance_document))
    for transaction in rebalance_document["transactions"]:
        console.print(Text(f"  {transaction['note']}", style="dim"))
    console.print(Text(rebalance_document["reason"]))
    return rebalance_document


def _show_without_agent(
    console: Console, margin_after: MarginDocument, unreduced_positions: UnreducedPositionsDocument
) -> None:
    """Print the comparison of the account with the initial positions, had they not been reduced."""
    leverage = futures_tables.multiple_text(
        None if margin_after["margin"] is None else margin_after["margin"]["leverage"]
    )
    liquidation_text = (
        "liquidated" if unreduced_positions["is_liquidated"] else "not liquidated yet"
    )
    console.print(
        Text(
            f"Leverage is {leverage} now. Without the agent: {futures_tables.multiple_text(unreduced_positions['leverage'])},"
            f" {liquidation_text}.",
            style="bold",
        )
    )
