"""`trimtab stress`: a policy on simulated paths, the live step on stress scenarios, and a futures
book under margin calls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli.backtest import (
    ContractSize,
    Cost,
    Depth,
    Destination,
    Every,
    Names,
    Native,
    Numeraire,
    PerpVenue,
    Pool,
    Reserve,
    Sample,
    StartMargin,
    Target,
    TargetLeverage,
    TryConfig,
    Value,
    progress_display,
    show_provenance,
)
from agent.cli.display.futures import show_futures_stress
from agent.cli.display.output import Document, ask, emit, interactive, out, say
from agent.cli.display.terminal import interruptible
from agent.cli.options import AsJson, Heading, Yes, command
from agent.cli.whatif import (
    FUTURES,
    FuturesTarget,
    MaxLeverage,
    MaxUtilisation,
    Stress,
)
from agent.errors import ConfigError

ASKED_FROM_S = 120.0
"""Estimated duration, seconds, above which a confirmation is needed."""
STRESS_SHOWN = ("50%", "95%")


@command(Heading.TEST, 30)
@interruptible
def stress(
    prices: Annotated[
        Path | None,
        typer.Option(
            "--prices", help="CSV or Parquet as for backtest; paths start at its newest prices."
        ),
    ] = None,
    sample: Sample = False,
    config: TryConfig = None,
    target: Target = "",
    band: Annotated[
        str, typer.Option("--band", help="10%rel of the target or 5%abs in points.")
    ] = "",
    every: Every = "",
    destination: Destination = "target",
    limits: Annotated[
        str,
        typer.Option("--limits", help="Limits without a config: usual (as init writes) or off."),
    ] = "usual",
    paths: Annotated[
        int, typer.Option("--paths", help="Paths per method, with the fast kernel.")
    ] = 2_000,
    step_paths: Annotated[
        int,
        typer.Option(
            "--step-paths",
            help="Paths per scenario, with the live step; the first is the recorded path.",
        ),
    ] = 3,
    bars: Annotated[
        int, typer.Option("--bars", help="Length of a path in bars; 0: 720, or all of the file.")
    ] = 0,
    scenarios: Annotated[
        str,
        typer.Option(
            "--scenarios", help="crash,depeg,gas-spike,illiquid-pool,oracle-outage; or all."
        ),
    ] = "all",
    block: Annotated[
        str,
        typer.Option(
            "--block", help="Average length of resampled blocks in bars; default: automatic."
        ),
    ] = "",
    drift: Annotated[
        str, typer.Option("--drift", help="recorded, or none for zero average drift.")
    ] = "recorded",
    crash: Annotated[
        str, typer.Option("--crash", help="Price drop in a crash, except of dollars.")
    ] = "50%",
    crash_bars: Annotated[
        int, typer.Option("--crash-bars", help="Duration of the crash in bars.")
    ] = 24,
    depeg: Annotated[
        str, typer.Option("--depeg", help="Price drop of a dollar in a depeg.")
    ] = "10%",
    gas_spike: Annotated[
        str, typer.Option("--gas-spike", help="Gas price during a spike.")
    ] = "500 gwei",
    thin: Annotated[str, typer.Option("--thin", help="Remaining pool depth.")] = "0.001",
    cost: Cost = "10bps",
    depth: Depth = "1000000000",
    pool: Pool = "v2",
    value: Value = "10000",
    gas: Annotated[str, typer.Option("--gas", help="Normal gas price, such as 20 gwei.")] = "0 wei",
    native: Native = "",
    numeraire: Numeraire = "",
    names: Names = "",
    seed: Annotated[
        int, typer.Option("--seed", help="Random seed; the same seed gives the same paths.")
    ] = 0,
    cores: Annotated[
        int,
        typer.Option(
            "--cores", min=0, help="Number of cores; 0 is all. Results do not depend on it."
        ),
    ] = 0,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a self-contained HTML report to this file.")
    ] = None,
    futures_target: FuturesTarget = "",
    leverage: TargetLeverage = "2x",
    margin: StartMargin = "",
    reserve: Reserve = "",
    max_leverage: MaxLeverage = "4x",
    max_utilisation: MaxUtilisation = "80%",
    stress: Stress = "10%",
    lot: ContractSize = "",
    venue: PerpVenue = "",
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds",
            min=1,
            max=10_000,
            help="Seeds of the crash with a rally.",
            rich_help_panel=FUTURES,
        ),
    ] = 50,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Stress-tests losses, turnover and time outside the bands over thousands of paths and market
    breakdowns.

    With --futures-target also stresses a futures book with margin calls; without --target only the
    book. Sends nothing.
    """
    from agent import app as api

    has_spot = bool(target) or config is not None or not futures_target
    if html is not None:
        if not has_spot:
            raise ConfigError(
                "--html: a futures book without a portfolio has no page",
                "use --json, or add --target",
            )
        api.check_report_path(html)
    file = api.prices_file(prices, sample)
    market = api.MarketOptions(cost=cost, depth=depth, value=value, pool=pool, gas=gas, seed=seed)
    portfolio = api.PortfolioOptions(
        config, target, band, every, destination, numeraire, native, names
    )
    seconds = 0.0
    if has_spot:
        prepared = api.prepare_stress(
            file,
            market,
            api.StressOptions(
                paths,
                step_paths,
                bars,
                scenarios,
                block,
                drift,
                crash,
                crash_bars,
                depeg,
                gas_spike,
                thin,
            ),
            portfolio,
            limits=limits,
        )
        seconds += prepared.seconds
    if futures_target:
        book = api.prepare_futures_stress(
            file,
            api.FuturesBookOptions(
                target=futures_target,
                leverage=leverage,
                margin=margin,
                reserve=reserve,
                max_leverage=max_leverage,
                max_utilisation=max_utilisation,
                stress=stress,
                lot=lot,
                venue=venue,
            ),
            market,
            portfolio,
            bars=bars,
            paths=step_paths,
            seeds=seeds,
        )
        seconds += api.futures_stress_seconds(book)
    _confirm_duration(seconds, yes)
    document: dict[str, Any] = {}
    with progress_display("making paths", as_json) as status:

        def progress(case: str, done: int, count: int) -> None:
            if status is not None:
                status.update(f"{case}: path {done} of {count}")

        if has_spot:
            result = api.run_stress(prepared, progress, cores)
            document = api.stress_document(result)
        if futures_target:
            document["futures"] = api.stress_futures(book, progress)
    if html is not None:
        document["report"] = [str(path) for path in api.write_stress_report(result, html)]
    emit(document, as_json, lambda: _show(document))


def _confirm_duration(seconds: float, yes: bool) -> None:
    """Raise ConfigError if the test takes long and is not confirmed."""
    if seconds <= ASKED_FROM_S or yes:
        return
    cost = f"this may take {seconds / 60:,.0f} minutes on one core"
    if not interactive():
        raise ConfigError(
            cost, "add --yes, or use fewer paths (--paths, --step-paths) or shorter paths (--bars)"
        )
    if not ask(f"{cost}. Continue?"):
        raise ConfigError(
            "declined: no path was run",
            "use fewer paths (--paths, --step-paths) or shorter paths (--bars)",
        )


def _show(made: Document) -> None:
    if "cases" in made:
        _show_stress(made)
    if "futures" in made:
        show_futures_stress(made["futures"])


def _show_stress(made: Document) -> None:
    from agent.cli.display.tables import table

    names = (*(f"loss {name}" for name in STRESS_SHOWN), "shortfall", "turnover", "outside")
    shown = table(
        f"{made['bars']} bars each; shortfall is the mean of the worst 5 %",
        ("case",),
        ("paths", *names),
    )
    for case in made["cases"]:
        loss, turnover, outside = case["loss"], case["turnover"], case["outside_bands"]
        shown.add_row(
            case["name"],
            str(case["paths"]),
            *(_percent(loss["quantiles"][name]) for name in STRESS_SHOWN),
            _percent(loss["expected_shortfall"]),
            f"{float(turnover['quantiles']['50%']):.2f}",
            "–" if outside is None else _percent(outside["quantiles"]["50%"]),
        )
    out.print(shown)
    say(
        "A negative loss is a gain. Turnover, in portfolios, and the share of bars outside a band"
        " are medians."
    )
    for case in made["cases"]:
        notes = [f"{times} times refused by {why}" for why, times in case["refused"].items()]
        if case["halted"]:
            notes.insert(0, f"{case['halted']} bars halted")
        if notes:
            say(f"{case['name']}: {', '.join(notes)}")
    for name, why in made["left_out"].items():
        say(f"skipped: {name}: {why}")
    for note in made["notes"]:
        say(note)
    show_provenance(made)


def _percent(share: str) -> str:
    return f"{100 * float(share):.2f} %"
