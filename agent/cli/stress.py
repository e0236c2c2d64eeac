"""`trimtab stress`: a policy over prices that could have been, and the live step over markets that break."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.interrupting import interruptible
from agent.cli.options import AsJson, Yes
from agent.cli.output import ask, emit, err, interactive, out, say
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.backtest.stress import StressResult

Document = dict[str, Any]
ASKED_FROM_S = 120.0
"""What takes longer is asked about first."""
SHOWN = ("50%", "95%")


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(interruptible(stress))


def stress(
    prices: Annotated[
        Path | None, typer.Option("--prices", help="CSV or Parquet as for backtest; paths start at its newest prices.")
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="The bundled prices of 2021.")] = False,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The config to try out, in place of --target.")] = None,
    target: Annotated[str, typer.Option("--target", help="Targets in percent: BTC=50,ETH=30,USD=20.")] = "",
    band: Annotated[str, typer.Option("--band", help="10%rel of the target or 5%abs in points.")] = "",
    every: Annotated[str, typer.Option("--every", help="Rebalance interval, such as 7d; with --band it acts only outside the band.")] = "",
    destination: Annotated[str, typer.Option("--destination", help="target, band or halfway.")] = "target",
    limits: Annotated[str, typer.Option("--limits", help="Limits without a config: usual (as init writes) or off.")] = "usual",
    paths: Annotated[int, typer.Option("--paths", help="Paths per method, with the fast kernel.")] = 2_000,
    step_paths: Annotated[int, typer.Option("--step-paths", help="Paths per scenario, with the live step; the first as recorded.")] = 3,
    bars: Annotated[int, typer.Option("--bars", help="Length of a path in bars; 0: 720, or all of the file.")] = 0,
    scenarios: Annotated[str, typer.Option("--scenarios", help="crash,depeg,gas-spike,illiquid-pool,oracle-outage; or all.")] = "all",
    block: Annotated[str, typer.Option("--block", help="Average length of resampled blocks in bars; default: automatic.")] = "",
    drift: Annotated[str, typer.Option("--drift", help="recorded, or none for zero average drift.")] = "recorded",
    crash: Annotated[str, typer.Option("--crash", help="Price drop in a crash, of every asset but dollars.")] = "50%",
    crash_bars: Annotated[int, typer.Option("--crash-bars", help="Duration of the crash in bars.")] = 24,
    depeg: Annotated[str, typer.Option("--depeg", help="Price drop of a dollar in a depeg.")] = "10%",
    gas_spike: Annotated[str, typer.Option("--gas-spike", help="Gas price during a spike.")] = "500 gwei",
    thin: Annotated[str, typer.Option("--thin", help="Remaining pool depth.")] = "0.001",
    cost: Annotated[str, typer.Option("--cost", help="Pool fee, as a share of the amount swapped.")] = "10bps",
    depth: Annotated[str, typer.Option("--depth", help="Depth of each pool on each side, in the numeraire.")] = "1000000000",
    pool: Annotated[str, typer.Option("--pool", help="v2, or v3 with liquidity over the full range.")] = "v2",
    value: Annotated[str, typer.Option("--value", help="Initial value of the wallet, in the numeraire.")] = "10000",
    gas: Annotated[str, typer.Option("--gas", help="Normal gas price, such as 20 gwei.")] = "0 wei",
    native: Annotated[str, typer.Option("--native", help="The asset that pays for gas.")] = "",
    numeraire: Annotated[str, typer.Option("--numeraire", help="Unit of account; the asset without prices in the file.")] = "",
    names: Annotated[str, typer.Option("--as", help="Map a symbol of the file to an asset: BTC=WBTC.")] = "",
    seed: Annotated[int, typer.Option("--seed", help="Random seed; the same seed gives the same paths.")] = 0,
    cores: Annotated[int, typer.Option("--cores", min=0, help="Number of cores; 0 is all. Results do not depend on it.")] = 0,
    html: Annotated[Path | None, typer.Option("--html", help="Write a self-contained HTML report to this file.")] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Stress-tests losses, turnover and time outside the bands over thousands of paths and market breakdowns.

    Sends nothing.
    """
    from agent import api

    if html is not None:
        api.check_report_path(html)
    file = api.prices_file(prices, sample)
    prepared = api.prepare_stress(
        file,
        api.Market(cost=cost, depth=depth, value=value, pool=pool, gas=gas, seed=seed),
        api.Shocks(paths, step_paths, bars, scenarios, block, drift, crash, crash_bars, depeg, gas_spike, thin),
        config=config,
        target=target,
        band=band,
        every=every,
        destination=destination,
        numeraire=numeraire,
        native=native,
        names=names,
        limits=limits,
    )
    _ask_first(prepared.seconds, yes)
    with nullcontext() if as_json or not err.is_terminal else err.status("making paths") as status:

        def tell(case: str, done: int, count: int) -> None:
            if status is not None:
                status.update(f"{case}: path {done} of {count}")

        found = api.run_stress(prepared, tell, cores)
    made = document(found)
    if html is not None:
        made["report"] = [str(path) for path in api.write_stress_report(found, html)]
    emit(made, as_json, lambda: _show(made))


def _ask_first(seconds: float, yes: bool) -> None:
    """Raises ConfigError where it takes long and nobody says that it may."""
    if seconds <= ASKED_FROM_S or yes:
        return
    cost = f"this may take {seconds / 60:,.0f} minutes of one core"
    if not interactive():
        raise ConfigError(cost, "add --yes, or try fewer paths (--paths, --step-paths) or shorter ones (--bars)")
    if not ask(f"{cost}: go on?"):
        raise ConfigError("nothing was tried", "try fewer paths (--paths, --step-paths) or shorter ones (--bars)")


def document(found: StressResult) -> Document:
    """Shares and ratios as decimal strings of six places; null where there is nothing to measure."""
    from agent.api import stress_figures

    return {
        "cases": [
            {
                "name": case.name,
                "by": case.by,
                "paths": len(case.measured),
                **stress_figures(case),
                "rebalances": sum(one.rebalances for one in case.measured),
                "halted": sum(one.halted for one in case.measured),
                "refused": dict(case.refused),
            }
            for case in found.cases
        ],
        "left_out": dict(found.skipped),
        "bars": found.bars,
        "interval_s": found.interval_s,
        "made_from_moves": found.moves,
        "block": f"{found.block:.6f}",
        "jumps_per_bar": f"{found.jump_rate:.6f}",
        "kernel_off": None if found.kernel_off is None else f"{found.kernel_off:.3e}",
        "notes": list(found.notes),
        "parameters": dict(found.parameters),
        "seed": found.seed,
        "config_hash": found.config_hash,
        "data_hash": found.data_hash,
        "versions": dict(found.versions),
    }


def _show(made: Document) -> None:
    from agent.cli.tables import table

    names = (*(f"loss {name}" for name in SHOWN), "shortfall", "turnover", "outside")
    shown = table(f"{made['bars']} bars each; shortfall is the mean of the worst 5 %", ("case",), ("paths", *names))
    for case in made["cases"]:
        loss, turnover, outside = case["loss"], case["turnover"], case["outside_bands"]
        shown.add_row(
            case["name"],
            str(case["paths"]),
            *(_percent(loss["quantiles"][name]) for name in SHOWN),
            _percent(loss["expected_shortfall"]),
            f"{float(turnover['quantiles']['50%']):.2f}",
            "–" if outside is None else _percent(outside["quantiles"]["50%"]),
        )
    out.print(shown)
    say("A loss below zero is a gain; turnover in portfolios and the share of bars outside a band are medians.")
    for case in made["cases"]:
        told = [f"{case['halted']} bars halted"] if case["halted"] else []
        told += [f"{times} times refused by {why}" for why, times in case["refused"].items()]
        if told:
            say(f"{case['name']}: {', '.join(told)}")
    for name, why in made["left_out"].items():
        say(f"left out: {name}: {why}")
    for told_of in made["notes"]:
        say(told_of)
    if "report" in made:
        say(f"report: {made['report'][0]}, as data: {made['report'][1]}")
    say(f"config {made['config_hash'][:16]}, data {made['data_hash'][:16]}, seed {made['seed']}")


def _percent(share: str) -> str:
    return f"{100 * float(share):.2f} %"
