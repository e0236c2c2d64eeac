"""`trimtab tune`: search for the best band, interval and destination, with significance tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.display.output import Document, ask, cell, emit, interactive, out, say
from agent.cli.display.terminal import interruptible
from agent.cli.options import AsJson, Heading, Yes, command

if TYPE_CHECKING:
    from agent.backtest.tune.jobs import WorkEstimate
from agent.cli.backtest import (
    Cost,
    Depth,
    GasPrices,
    Html,
    Latency,
    Names,
    Native,
    Numeraire,
    Pool,
    Sample,
    Target,
    Value,
    progress_display,
)

SHADES = "·░▒▓█"
"""Shades from the lowest objective to the highest."""


ROWS = 10


NUMBERED = 8
"""Maximum number of columns of a map with numbers. Wider maps have only shades."""


@command(Heading.TEST, 20)
@interruptible
def tune(
    prices: Annotated[
        Path | None, typer.Option("--prices", help="CSV or Parquet as for backtest.")
    ] = None,
    sample: Sample = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="The config whose setting is searched, in place of --target."
        ),
    ] = None,
    target: Target = "",
    band: Annotated[
        str,
        typer.Option(
            "--band", help="Bands to try: 1%rel..30%rel:12 are twelve; 5%abs,10%abs are two."
        ),
    ] = "",
    every: Annotated[
        str,
        typer.Option(
            "--every", help="Intervals to try: 1d,7d,28d; with --band also both together."
        ),
    ] = "",
    destination: Annotated[
        str, typer.Option("--destination", help="target, halfway, band; comma-separated.")
    ] = "target",
    allocator: Annotated[
        str,
        typer.Option(
            "--allocator",
            help="fixed, or kinds of portfolio.weights that only need prices; comma-separated.",
        ),
    ] = "fixed",
    trigger: Annotated[
        str, typer.Option("--trigger", help="Only these triggers: band, every, hybrid.")
    ] = "",
    calendar: Annotated[
        str,
        typer.Option("--calendar", help="Benchmark: rebalancing to the targets at this interval."),
    ] = "28d",
    objective: Annotated[str, typer.Option("--objective", help="growth, or sharpe.")] = "growth",
    walk: Annotated[
        str, typer.Option("--walk", help="anchored (windows from the first bar) or rolling.")
    ] = "anchored",
    folds: Annotated[int, typer.Option("--folds", help="Number of walk-forward folds.")] = 4,
    window: Annotated[str, typer.Option("--window", help="Lookback of allocators.")] = "60d",
    rechoose: Annotated[
        str, typer.Option("--rechoose", help="Interval between choices of allocators.")
    ] = "7d",
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Use the full step for every setting instead of the fast kernel."
        ),
    ] = False,
    cost: Cost = "10bps",
    depth: Depth = "1000000000",
    pool: Pool = "v2",
    value: Value = "10000",
    gas: Annotated[
        str, typer.Option("--gas", help="Gas price, such as 20 gwei; needs the full step.")
    ] = "0 wei",
    gas_prices: GasPrices = None,
    native: Native = "",
    latency: Latency = 0,
    numeraire: Numeraire = "",
    names: Names = "",
    seed: Annotated[int, typer.Option("--seed", help="Random seed.")] = 0,
    cores: Annotated[int, typer.Option("--cores", min=0, help="Number of cores; 0 is all.")] = 0,
    scheduler: Annotated[
        str, typer.Option("--scheduler", help="Dask scheduler for the full step: tcp://HOST:8786.")
    ] = "",
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for all results; an interrupted search continues there."
        ),
    ] = None,
    html: Html = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Searches settings on three quarters of the data and tests the best on the rest. Reports if
    there is no edge.
    """
    from agent import app as api

    if html is not None:
        api.check_report_path(html)
    file = api.prices_file(prices, sample)
    market = api.MarketOptions(cost, depth, value, pool, gas, latency, seed, gas_prices=gas_prices)
    grids = api.TuneOptions(
        band,
        every,
        destination,
        allocator,
        trigger,
        calendar,
        objective,
        walk,
        folds,
        window,
        rechoose,
        full,
    )
    portfolio = api.PortfolioOptions(
        config, target, numeraire=numeraire, native=native, names=names
    )
    search = api.prepare_tune(file, market, grids, portfolio)
    with progress_display("measuring", as_json) as status:

        def progress(done: int, runs: int) -> None:
            if status is not None:
                status.update(f"{done:,} of {runs:,} runs")

        def confirm(estimate: WorkEstimate) -> bool:
            if as_json or not interactive():
                return False
            if status is not None:
                status.stop()
            answer = ask(f"The search has {estimate.words}. Start?")
            if status is not None:
                status.start()
            return answer

        result = api.run_tune(
            search,
            cores=cores,
            scheduler=scheduler,
            folder=folder,
            confirm=None if yes else confirm,
            progress=progress,
        )
    document = api.tune_document(result)
    if html is not None:
        document["report"] = [str(path) for path in api.write_tune_report(result, html)]
    emit(document, as_json, lambda: _show(document))


def _show(made: Document) -> None:
    from agent.cli.display.tables import amount, table

    growth = made["objective"] == "growth"
    head = (
        f"{made['settings']:,} settings, ranked by {made['objective']} per year in the first three"
        " quarters"
    )
    ranked = table(head, ("setting",), (made["objective"], "over hold", "costs", "trades"))
    for one in made["ranked"][:ROWS]:
        ranked.add_row(
            cell(one["label"]),
            _percent(one["objective"]) if growth else one["objective"][:-3],
            _percent(one["over_hold"]),
            amount(one["costs"], 2),
            str(one["rebalances"]),
        )
    out.print(ranked)
    _show_map(made["stability"], growth)
    folds = table(
        f"Walk-forward, {made['walk_forward']['walk']}",
        ("chosen setting",),
        ("over hold", "over calendar"),
    )
    for one in made["walk_forward"]["folds"]:
        folds.add_row(
            cell(one["chosen"]),
            _percent(one["over_hold"]),
            _percent(one["over_calendar"]),
        )
    if made["walk_forward"]["folds"]:
        out.print(folds)
    if (risk := made["overfitting"]) is not None:
        say(
            f"Probability of overfitting: {float(risk['probability']):.0%} ({risk['ways']:,} ways"
            " to halve the data)"
        )
    if (deflated := made["deflated_sharpe"]) is not None:
        say(
            f"Deflated Sharpe ratio of the excess over hold, {deflated['trials']} trials:"
            f" {float(deflated['probability']):.1%}"
        )
    if made["resumed"]:
        say(f"{made['resumed']:,} runs were loaded from an earlier search")
    for note in (*made["notes"], *made["verdict"]):
        say(note)
    say(
        f"grid {made['grid_hash'][:16]}, config {made['config_hash'][:16]}, data"
        f" {made['data_hash'][:16]}, seed {made['seed']}"
    )


def _show_map(stable: Document, growth: bool) -> None:
    """Show the objective over two axes as shades; the best cell is in brackets."""
    from agent.cli.display.tables import table

    if len(stable["rows"]) * len(stable["columns"]) < 2:
        return
    known = [float(value) for row in stable["values"] for value in row if value is not None]
    low, high = min(known), max(known)
    shown = table(
        f"{'Growth' if growth else 'Sharpe ratio'} by {stable['down']} and {stable['across']}",
        (stable["down"], *stable["columns"]),
    )
    for i, (label, row) in enumerate(zip(stable["rows"], stable["values"], strict=True)):
        cells = []
        for j, value in enumerate(row):
            if value is None:
                cells.append(cell(""))
                continue
            share = (float(value) - low) / (high - low) if high > low else 1.0
            text = SHADES[min(len(SHADES) - 1, int(share * len(SHADES)))] * 2
            if len(row) <= NUMBERED:
                text += f" {_percent(value) if growth else value[:-4]}"
            cells.append(cell(f"[{text}]" if [i, j] == stable["best"] else text))
        shown.add_row(cell(label), *cells)
    out.print(shown)
    near = stable["neighbours"]
    if near is not None:
        mean, most = near["mean_fall"], near["largest_fall"]
        if growth:
            mean, most = (f"{100 * float(fall):.2f} points" for fall in (mean, most))
        say(
            f"One grid step from the best, over {near['count']} neighbours, the objective falls by"
            f" {mean} on average, {most} at most"
        )


def _percent(text: str) -> str:
    return f"{100 * float(text):+.2f} %"
