"""Simulation commands: backtest, stress, tune."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.display.output import Document, ask, cell, emit, err, interactive, out, say
from agent.cli.display.terminal import interruptible
from agent.cli.options import AsJson, Heading, Yes, command
from agent.errors import ConfigError
from agent.units import decimal_text, price_text, value_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.backtest.data import FundingSummary
    from agent.backtest.simulate import SimulationResult
    from agent.backtest.stress.run import StressResult
    from agent.backtest.tune.jobs import WorkEstimate


FREE = "0 wei"
FIGURES = (
    ("CAGR", "cagr"),
    ("volatility a year", "volatility"),
    ("Sharpe ratio", "sharpe"),
    ("maximum drawdown", "max_drawdown"),
)
Target = Annotated[str, typer.Option("--target", help="Targets in percent: BTC=50,ETH=30,USD=20.")]
Cost = Annotated[str, typer.Option("--cost", help="Pool fee, as a share of the amount swapped.")]
Depth = Annotated[
    str, typer.Option("--depth", help="Depth of each pool on each side, in the numeraire.")
]
Pool = Annotated[
    str,
    typer.Option("--pool", help="v2, v3 over the full range, or a Solidly pair: volatile, stable."),
]
Value = Annotated[
    str, typer.Option("--value", help="Initial value of the wallet, in the numeraire.")
]
GasPrices = Annotated[
    Path | None, typer.Option("--gas-prices", help="CSV or Parquet: time, gas_price_wei.")
]
Native = Annotated[str, typer.Option("--native", help="The asset that pays for gas.")]
Latency = Annotated[
    int, typer.Option("--latency", min=0, help="Bars between sending a swap and its execution.")
]
Numeraire = Annotated[
    str, typer.Option("--numeraire", help="Unit of account; the asset without prices in the file.")
]
TryConfig = Annotated[
    Path | None, typer.Option("--config", "-c", help="The config to try out, in place of --target.")
]
Every = Annotated[
    str,
    typer.Option(
        "--every", help="Rebalance interval, such as 7d; with --band it acts only outside the band."
    ),
]
Destination = Annotated[str, typer.Option("--destination", help="target, band or halfway.")]
Html = Annotated[
    Path | None,
    typer.Option("--html", help="Write an HTML report to this file, and its JSON beside it."),
]
Names = Annotated[str, typer.Option("--as", help="Map a symbol of the file to an asset: BTC=WBTC.")]
Sample = Annotated[bool, typer.Option("--sample", help="The bundled prices of 2021.")]
SHOWN = 0.00005
"""Smallest log return that is shown."""


@command(Heading.TEST, 10)
@interruptible
def backtest(
    prices: Annotated[
        Path | None,
        typer.Option(
            "--prices",
            help="CSV or Parquet: time, symbol, close; or time and a column for each symbol.",
        ),
    ] = None,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample", help="The bundled prices of 2021; with --native also its gas prices."
        ),
    ] = False,
    config: TryConfig = None,
    target: Target = "",
    band: Annotated[
        str,
        typer.Option(
            "--band", help="10%rel of the target or 5%abs in points; BTC=5%abs for one asset."
        ),
    ] = "",
    every: Every = "",
    destination: Destination = "target",
    cost: Cost = "10bps",
    depth: Depth = "1000000000",
    pool: Pool = "v2",
    value: Value = "10000",
    gas: Annotated[str, typer.Option("--gas", help="Gas price, such as 20 gwei.")] = FREE,
    gas_prices: GasPrices = None,
    native: Native = "",
    flow: Annotated[
        list[str] | None,
        typer.Option("--flow", help="A deposit or withdrawal: 2021-03-01=+1000; repeatable."),
    ] = None,
    flows: Annotated[
        Path | None,
        typer.Option("--flows", help="CSV or Parquet of deposits and withdrawals: time, amount."),
    ] = None,
    flows_in: Annotated[
        str,
        typer.Option(
            "--flows-in", help="Pay deposits and withdrawals in the numeraire, or pro-rata."
        ),
    ] = "numeraire",
    gone: Annotated[
        str,
        typer.Option("--gone", help="When prices of an asset end: halt, or hold it and continue."),
    ] = "halt",
    pool_state: Annotated[
        list[str] | None,
        typer.Option(
            "--pool-state", help="A real V3 pool by token0/token1: WBTC/WETH=pool.json; repeatable."
        ),
    ] = None,
    decimals: Annotated[
        str, typer.Option("--decimals", help="Token decimals: WBTC=8; default 18.")
    ] = "",
    latency: Latency = 0,
    numeraire: Numeraire = "",
    names: Annotated[
        str, typer.Option("--as", help="Symbols of the files and ours: BTC=WBTC.")
    ] = "",
    funding: Annotated[
        Path | None,
        typer.Option(
            "--funding",
            help=(
                "CSV or Parquet: time, symbol, rate; reports funding a short of each holding would"
                " earn."
            ),
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed, for example of jitter.")] = 0,
    every_bar: Annotated[
        bool, typer.Option("--every-bar", help="Evaluate quiet bars too: slower, same trades.")
    ] = False,
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """Back-tests the agent on recorded prices and simulated pools. Sends nothing."""
    from agent import app as api

    if html is not None:
        api.check_report_path(html)
    file = api.prices_file(prices, sample)
    if sample and native and gas_prices is None and gas == FREE:
        gas_prices = api.sample()[1]
    market = api.MarketOptions(
        cost,
        depth,
        value,
        pool,
        gas,
        latency,
        seed,
        gas_prices=gas_prices,
        flows=tuple(flow or ()),
        flow_file=flows,
        flows_in=flows_in,
        gone=gone,
        pool_states=tuple(pool_state or ()),
    )
    shown = nullcontext() if as_json or not err.is_terminal else err.status("reading prices")
    with shown as status:

        def tell(done: int, bars: int) -> None:
            if status is not None:
                status.update(f"bar {done} of {bars}")

        portfolio = api.PortfolioOptions(
            config, target, band, every, destination, numeraire, native, names, decimals
        )
        found = api.backtest(
            file, market, portfolio, every_bar=every_bar, funding=funding, progress=tell
        )
    made = document(found)
    if html is not None:
        made["report"] = [str(path) for path in api.write_report(found, html)]
    emit(made, as_json, lambda: _show(made))


def document(found: SimulationResult) -> dict[str, Any]:
    """Document of a backtest. Values as decimal strings in the numeraire, ratios as decimal
    strings; null if a figure is unknown.
    """
    from agent import app as api

    def money(amount: Fraction) -> str:
        return value_text(amount, found.decimals, 18)

    return {
        "final_value": money(found.final_value),
        "hold_value": money(found.hold_value),
        "start_value": money(found.start_value),
        "twr": f"{found.twr:.6f}",
        "hold_twr": f"{found.hold_twr:.6f}",
        "numeraire": found.numeraire,
        "rebalances": sum(one.succeeded for one in found.rebalances),
        "turnover": value_text(found.turnover, 0, 6),
        "costs": {
            "fees": money(found.fees),
            "impact": money(found.impact),
            "gas": money(found.gas),
            "total": money(found.fees + found.impact + found.gas),
        },
        "gas_counted": found.gas_counted,
        "figures": {
            name: {
                key: None if math.isnan(number) else f"{number:.6f}"
                for key, number in asdict(one).items()
            }
            for name, one in zip(("rebalanced", "held"), api.backtest_figures(found), strict=True)
        },
        "harvest": (
            None
            if found.premium is None
            else {name: f"{number:.6f}" for name, number in asdict(found.premium).items()}
        ),
        "funding": None if found.funding is None else _funding(found.funding, money),
        "from": int(found.times_s[0]),
        "until": int(found.times_s[-1]),
        "bars": found.bars,
        "looked": found.evaluated,
        "halted": found.halted,
        "refused": dict(found.refused),
        "kept": dict(found.kept),
        "weights_bps": {
            symbol: round(float(w) * 10_000)
            for symbol, w in zip(found.symbols, found.weights[-1], strict=True)
        },
        "trades": [
            {
                "time": one.time_s,
                "turnover": money(one.turnover),
                "fees": money(one.fees),
                "impact": money(one.impact),
                "gas": money(one.gas),
                "succeeded": one.succeeded,
            }
            for one in found.rebalances
        ],
        "flows": [
            {"time": one.time_s, "value": money(one.value), "before": money(one.before)}
            for one in found.flows
        ],
        "taxes": {
            "lots": found.lots,
            "years": {str(one.year): money(one.realised) for one in found.taxes},
        },
        "ended": [
            {
                "symbol": one.symbol,
                "amount": decimal_text(one.raw, one.decimals),
                "price": price_text(one.price, one.decimals, found.decimals),
                "at": one.time_s,
                "value": money(one.value),
                "share": None if one.share is None else f"{float(one.share):.6f}",
            }
            for one in found.ended
        ],
        "notes": list(found.notes),
        "config_hash": found.config_hash,
        "data_hash": found.data_hash,
        "seed": found.seed,
        "versions": dict(found.versions),
    }


def _funding(found: FundingSummary, money: Callable[[Fraction], str]) -> Document:
    def share(yearly: float | None) -> str | None:
        return None if yearly is None else f"{yearly:.6f}"

    return {
        "total": money(found.total),
        "yearly": share(found.yearly),
        "intervals": sum(len(one.payments) for one in found.carries),
        "assets": {
            one.symbol: {
                "carry": money(one.total),
                "yearly": share(one.yearly),
                "notional": money(one.notional),
                "intervals": len(one.payments),
                "from": int(one.times_s[0]),
                "until": int(one.times_s[-1]),
            }
            for one in found.carries
        },
        "data_hash": found.digest,
    }


def format_premium(earned: Document, twr: float, hold_twr: float) -> str:
    """Format the log return against holding and its parts; the remainder is gas and external
    transfers.
    """
    part = {name: f"{100 * float(number):+.3f}%" for name, number in earned.items()}
    advantage = float(earned["advantage"])
    ahead = math.log((1 + twr) / (1 + hold_twr)) if min(twr, hold_twr) > -1 else advantage
    beside = ahead - advantage
    rest = (
        f", and {100 * beside:+.3f}% from gas money and flows, which are outside the portfolio"
        if abs(beside) >= SHOWN
        else ""
    )
    return (
        f"log return against holding {100 * (ahead if rest else advantage):+.3f}%:"
        f" {part['excess_growth']} from rebalancing itself, {part['off_target']} from weights off"
        f" target, less {part['dispersion']} that holding has from winners growing, less"
        f" {part['costs']} of costs{rest}"
    )


def _show(made: Document) -> None:
    _show_figures(made)
    _show_returns(made)
    if made["halted"]:
        say(f"{made['halted']} bars without a decision: something was stale or contradictory")
    for what, times in made["kept"].items():
        say(f"held {times} times by {what}, though something was to be done")
    for why, times in made["refused"].items():
        say(f"refused {times} times: {why}")
    for note in made["notes"]:
        say(note)
    if "report" in made:
        say(f"report: {made['report'][0]}, as data: {made['report'][1]}")
    say(f"config {made['config_hash'][:16]}, data {made['data_hash'][:16]}, seed {made['seed']}")


def _show_figures(made: Document) -> None:
    """Print the table of values, figures, costs and the owner's transfers."""
    from agent.cli.display.tables import money, table

    unit, figures = made["numeraire"], made["figures"]
    shown = table(f"{made['bars']} bars, values in {unit}", ("what",), ("rebalanced", "held"))
    shown.add_row("start value", money(made["start_value"]), money(made["start_value"]))
    shown.add_row("final value", money(made["final_value"]), money(made["hold_value"]))
    for name, key in FIGURES:
        form = "{:.2f}" if key == "sharpe" else "{:.2%}"
        shown.add_row(
            name,
            *(
                "–" if (one := figures[whose][key]) is None else form.format(float(one))
                for whose in figures
            ),
        )
    for kind in ("fees", "impact", "gas"):
        counted = kind != "gas" or made["gas_counted"]
        shown.add_row(f"cost: {kind}", money(made["costs"][kind]) if counted else "not counted")
    for one in made["flows"]:
        day = datetime.fromtimestamp(one["time"], UTC).date()
        shown.add_row(
            f"{day}: {'taken out' if one['value'].startswith('-') else 'put in'}",
            money(one["value"].lstrip("-")),
        )
    out.print(shown)


def _show_returns(made: Document) -> None:
    """Print the lines on gas, returns, turnover, rebalancing premium and funding."""
    if not made["gas_counted"]:
        say(
            "Gas is not counted: name the asset that pays it (--native), and its price (--gas or"
            " --gas-prices; --sample has its own)."
        )
    if made["flows"]:
        say(
            f"time-weighted return {100 * float(made['twr']):+.2f}%, held"
            f" {100 * float(made['hold_twr']):+.2f}%"
        )
    say(f"{made['rebalances']} rebalances, turnover {made['turnover']} times the portfolio")
    if (earned := made["harvest"]) is not None:
        say(format_premium(earned, float(made["twr"]), float(made["hold_twr"])))
    if (funding := made["funding"]) is not None:
        _show_funding(funding, made["numeraire"])


def _show_funding(made: Document, unit: str) -> None:
    from agent.cli.display.tables import money, table

    shown = table(f"funding, in {unit}", ("asset",), ("got", "a year"))
    for name, one in (*made["assets"].items(), ("all", {**made, "carry": made["total"]})):
        a_year = "" if one["yearly"] is None else f"{100 * float(one['yearly']):+.2f}%"
        shown.add_row(name, money(one["carry"]), a_year)
    out.print(shown)
    say(
        f"{made['intervals']:,} payments to shorts as large as what was held, below zero by them: "
        "no position was simulated, and nothing of it is in the values above"
    )


# --- `trimtab stress`: a policy over simulated paths, and the live step over stress scenarios.


ASKED_FROM_S = 120.0
"""Work of more seconds than this needs a confirmation."""
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
            "--step-paths", help="Paths per scenario, with the live step; the first as recorded."
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
        str, typer.Option("--crash", help="Price drop in a crash, of every asset but dollars.")
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
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Stress-tests losses, turnover and time outside the bands over thousands of paths and market
    breakdowns.

    Sends nothing.
    """
    from agent import app as api

    if html is not None:
        api.check_report_path(html)
    file = api.prices_file(prices, sample)
    prepared = api.prepare_stress(
        file,
        api.MarketOptions(cost=cost, depth=depth, value=value, pool=pool, gas=gas, seed=seed),
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
        api.PortfolioOptions(config, target, band, every, destination, numeraire, native, names),
        limits=limits,
    )
    _ask_first(prepared.seconds, yes)
    with nullcontext() if as_json or not err.is_terminal else err.status("making paths") as status:

        def tell(case: str, done: int, count: int) -> None:
            if status is not None:
                status.update(f"{case}: path {done} of {count}")

        found = api.run_stress(prepared, tell, cores)
    made = stress_document(found)
    if html is not None:
        made["report"] = [str(path) for path in api.write_stress_report(found, html)]
    emit(made, as_json, lambda: _stress_show(made))


def _ask_first(seconds: float, yes: bool) -> None:
    """Raise ConfigError if it takes long and was not confirmed."""
    if seconds <= ASKED_FROM_S or yes:
        return
    cost = f"this may take {seconds / 60:,.0f} minutes of one core"
    if not interactive():
        raise ConfigError(
            cost, "add --yes, or try fewer paths (--paths, --step-paths) or shorter ones (--bars)"
        )
    if not ask(f"{cost}: go on?"):
        raise ConfigError(
            "nothing was tried", "try fewer paths (--paths, --step-paths) or shorter ones (--bars)"
        )


def stress_document(found: StressResult) -> dict[str, Any]:
    """Document of a stress test. Shares and ratios as decimal strings of six places; null if there
    is nothing to measure.
    """
    from agent.app import stress_figures

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


def _stress_show(made: Document) -> None:
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
        "A loss below zero is a gain; turnover in portfolios and the share of bars outside a band"
        " are medians."
    )
    for case in made["cases"]:
        notes = [f"{case['halted']} bars halted"] if case["halted"] else []
        notes += [f"{times} times refused by {why}" for why, times in case["refused"].items()]
        if notes:
            say(f"{case['name']}: {', '.join(notes)}")
    for name, why in made["left_out"].items():
        say(f"skipped: {name}: {why}")
    for told_of in made["notes"]:
        say(told_of)
    if "report" in made:
        say(f"report: {made['report'][0]}, as data: {made['report'][1]}")
    say(f"config {made['config_hash'][:16]}, data {made['data_hash'][:16]}, seed {made['seed']}")


def _percent(share: str) -> str:
    return f"{100 * float(share):.2f} %"


# --- `trimtab tune`: search for the best band, interval and destination, and a test of its
# significance.


SHADES = "·░▒▓█"
"""From the lowest objective to the highest."""
ROWS = 10
NUMBERED = 8
"""A map of more columns has shades alone."""


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
            "--every", help="Intervals to try: 1d,7d,28d. With --band also both together."
        ),
    ] = "",
    destination: Annotated[
        str, typer.Option("--destination", help="target, halfway, band; several with commas.")
    ] = "target",
    allocator: Annotated[
        str,
        typer.Option(
            "--allocator",
            help=(
                "fixed, or kinds of portfolio.weights that need prices alone; several with commas."
            ),
        ),
    ] = "fixed",
    trigger: Annotated[
        str, typer.Option("--trigger", help="Only these kinds: band, every, hybrid.")
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
    """Searches settings on three quarters of the data and tests the best on the rest. Says so if
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
    shown = nullcontext() if as_json or not err.is_terminal else err.status("measuring")
    with shown as status:

        def tell(done: int, runs: int) -> None:
            if status is not None:
                status.update(f"{done:,} of {runs:,} runs")

        def confirm(estimate: WorkEstimate) -> bool:
            if as_json or not interactive():
                return False
            if status is not None:
                status.stop()
            answer = ask(f"This is {estimate.words}. Begin?")
            if status is not None:
                status.start()
            return answer

        found = api.run_tune(
            search,
            cores=cores,
            scheduler=scheduler,
            folder=folder,
            confirm=None if yes else confirm,
            progress=tell,
        )
    made = api.tune_document(found)
    if html is not None:
        made["report"] = [str(path) for path in api.write_tune_report(found, html)]
    emit(made, as_json, lambda: _tune_show(made))


def _tune_show(made: Document) -> None:
    from agent.cli.display.tables import amount, table

    growth = made["objective"] == "growth"
    head = (
        f"{made['settings']:,} settings, ranked by {made['objective']} a year in the first three"
        " quarters"
    )
    ranked = table(head, ("setting",), (made["objective"], "over hold", "costs", "trades"))
    for one in made["ranked"][:ROWS]:
        own = _tune_percent(one["objective"]) if growth else one["objective"][:-3]
        ranked.add_row(
            cell(one["label"]),
            own,
            _tune_percent(one["over_hold"]),
            amount(one["costs"], 2),
            str(one["rebalances"]),
        )
    out.print(ranked)
    _show_map(made["stability"], growth)
    folds = table(
        f"Walk-forward, {made['walk_forward']['walk']}",
        ("chosen in the past",),
        ("over hold", "over calendar"),
    )
    for one in made["walk_forward"]["folds"]:
        folds.add_row(
            cell(one["chosen"]),
            _tune_percent(one["over_hold"]),
            _tune_percent(one["over_calendar"]),
        )
    if made["walk_forward"]["folds"]:
        out.print(folds)
    if (risk := made["overfitting"]) is not None:
        say(
            f"Chance of over-fitting: {float(risk['probability']):.0%} ({risk['ways']:,} ways to"
            " halve the data)"
        )
    if (sure := made["deflated_sharpe"]) is not None:
        say(
            f"Deflated Sharpe ratio of the excess over hold, {sure['trials']} trials:"
            f" {float(sure['probability']):.1%}"
        )
    if made["resumed"]:
        say(f"{made['resumed']:,} runs were done before")
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
            mark = SHADES[min(len(SHADES) - 1, int(share * len(SHADES)))] * 2
            number = (
                f" {_tune_percent(value) if growth else value[:-4]}" if len(row) <= NUMBERED else ""
            )
            text = f"{mark}{number}"
            cells.append(cell(f"[{text}]" if [i, j] == stable["best"] else text))
        shown.add_row(cell(label), *cells)
    out.print(shown)
    near = stable["neighbours"]
    if near is not None:
        drop, most = (
            f"{100 * float(near[key]):.2f} points" if growth else near[key]
            for key in ("mean_fall", "largest_fall")
        )
        say(
            f"One grid step from the best it falls by {drop} on the mean, {most} at most, among"
            f" {near['count']} neighbours"
        )


def _tune_percent(text: str) -> str:
    return f"{100 * float(text):+.2f} %"
