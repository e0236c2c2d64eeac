"""`trimtab backtest`: the live step on recorded prices."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.interrupting import interruptible
from agent.cli.options import AsJson
from agent.cli.output import emit, err, out, say
from agent.units import decimal_text, price_text, value_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.backtest.funding import Funding
    from agent.backtest.simulate import SimulationResult

Document = dict[str, Any]
FREE = "0 wei"
FIGURES = (("CAGR", "cagr"), ("volatility a year", "volatility"), ("Sharpe ratio", "sharpe"), ("maximum drawdown", "max_drawdown"))
SHOWN = 0.00005
"""What is less, in logarithms, is not told."""


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(interruptible(backtest))


def backtest(
    prices: Annotated[
        Path | None, typer.Option("--prices", help="CSV or Parquet: time, symbol, close; or time and a column for each symbol.")
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="The bundled prices of 2021; with --native also its gas prices.")] = False,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The config to try out, in place of --target.")] = None,
    target: Annotated[str, typer.Option("--target", help="Targets in percent: BTC=50,ETH=30,USD=20.")] = "",
    band: Annotated[str, typer.Option("--band", help="10%rel of the target or 5%abs in points; BTC=5%abs for one asset.")] = "",
    every: Annotated[str, typer.Option("--every", help="Rebalance interval, such as 7d; with --band it acts only outside the band.")] = "",
    destination: Annotated[str, typer.Option("--destination", help="target, band or halfway.")] = "target",
    cost: Annotated[str, typer.Option("--cost", help="Pool fee, as a share of the amount swapped.")] = "10bps",
    depth: Annotated[str, typer.Option("--depth", help="Depth of each pool on each side, in the numeraire.")] = "1000000000",
    pool: Annotated[str, typer.Option("--pool", help="v2, or v3 with liquidity over the full range.")] = "v2",
    value: Annotated[str, typer.Option("--value", help="Initial value of the wallet, in the numeraire.")] = "10000",
    gas: Annotated[str, typer.Option("--gas", help="Gas price, such as 20 gwei.")] = FREE,
    gas_prices: Annotated[Path | None, typer.Option("--gas-prices", help="CSV or Parquet: time, gas_price_wei.")] = None,
    native: Annotated[str, typer.Option("--native", help="The asset that pays for gas.")] = "",
    flow: Annotated[list[str] | None, typer.Option("--flow", help="A deposit or withdrawal: 2021-03-01=+1000; repeatable.")] = None,
    flows: Annotated[Path | None, typer.Option("--flows", help="CSV or Parquet of deposits and withdrawals: time, amount.")] = None,
    flows_in: Annotated[str, typer.Option("--flows-in", help="Pay deposits and withdrawals in the numeraire, or pro-rata.")] = "numeraire",
    gone: Annotated[str, typer.Option("--gone", help="When prices of an asset end: halt, or leave it alone and continue.")] = "halt",
    pool_state: Annotated[
        list[str] | None, typer.Option("--pool-state", help="A real V3 pool by token0/token1: WBTC/WETH=pool.json; repeatable.")
    ] = None,
    decimals: Annotated[str, typer.Option("--decimals", help="Token decimals: WBTC=8; default 18.")] = "",
    latency: Annotated[int, typer.Option("--latency", min=0, help="Bars between sending a swap and its execution.")] = 0,
    numeraire: Annotated[str, typer.Option("--numeraire", help="Unit of account; the asset without prices in the file.")] = "",
    names: Annotated[str, typer.Option("--as", help="Symbols of the files and ours: BTC=WBTC.")] = "",
    funding: Annotated[
        Path | None,
        typer.Option("--funding", help="CSV or Parquet: time, symbol, rate; reports funding a short of each holding would earn."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed, for example of jitter.")] = 0,
    every_bar: Annotated[bool, typer.Option("--every-bar", help="Evaluate quiet bars too: slower, same trades.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write an HTML report to this file, and its JSON beside it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Back-tests the agent on recorded prices and simulated pools. Sends nothing."""
    from agent import api

    if html is not None:
        api.check_report_path(html)
    file = api.prices_file(prices, sample)
    if sample and native and gas_prices is None and gas == FREE:
        gas_prices = api.sample()[1]
    market = api.Market(
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

        found = api.backtest(
            file,
            market,
            config=config,
            target=target,
            band=band,
            every=every,
            destination=destination,
            numeraire=numeraire,
            native=native,
            names=names,
            decimals=decimals,
            every_bar=every_bar,
            funding=funding,
            progress=tell,
        )
    made = document(found)
    if html is not None:
        made["report"] = [str(path) for path in api.write_report(found, html)]
    emit(made, as_json, lambda: _show(made))


def document(found: SimulationResult) -> Document:
    """Values as decimal strings in the numeraire, ratios as decimal strings; null where a figure is not known."""
    from agent import api

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
            name: {key: None if math.isnan(number) else f"{number:.6f}" for key, number in asdict(one).items()}
            for name, one in zip(("rebalanced", "held"), api.backtest_figures(found), strict=True)
        },
        "harvest": None if found.harvest is None else {name: f"{number:.6f}" for name, number in asdict(found.harvest).items()},
        "funding": None if found.funding is None else _funding(found.funding, money),
        "from": int(found.times_s[0]),
        "until": int(found.times_s[-1]),
        "bars": found.bars,
        "looked": found.looked,
        "halted": found.halted,
        "refused": dict(found.refused),
        "kept": dict(found.kept),
        "weights_bps": {symbol: round(float(w) * 10_000) for symbol, w in zip(found.symbols, found.weights[-1], strict=True)},
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
        "flows": [{"time": one.time_s, "value": money(one.value), "before": money(one.before)} for one in found.flows],
        "taxes": {"lots": found.lots, "years": {str(one.year): money(one.realised) for one in found.taxes}},
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


def _funding(found: Funding, money: Callable[[Fraction], str]) -> Document:
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


def harvest_words(earned: Document, twr: float, hold_twr: float) -> str:
    """The log return against holding, as the values above it tell, and its parts; what they lack is gas money and flows."""
    part = {name: f"{100 * float(number):+.3f}%" for name, number in earned.items()}
    advantage = float(earned["advantage"])
    ahead = math.log((1 + twr) / (1 + hold_twr)) if min(twr, hold_twr) > -1 else advantage
    beside = ahead - advantage
    rest = f", and {100 * beside:+.3f}% from gas money and flows, which are beside the portfolio" if abs(beside) >= SHOWN else ""
    return (
        f"log return against holding {100 * (ahead if rest else advantage):+.3f}%: {part['excess_growth']} from rebalancing itself,"
        f" {part['off_target']} from weights off target, less {part['dispersion']} that holding has from winners growing,"
        f" less {part['costs']} of costs{rest}"
    )


def _show(made: Document) -> None:
    from agent.cli.tables import money, table

    unit, figures = made["numeraire"], made["figures"]
    shown = table(f"{made['bars']} bars, values in {unit}", ("what",), ("rebalanced", "held"))
    shown.add_row("start value", money(made["start_value"]), money(made["start_value"]))
    shown.add_row("final value", money(made["final_value"]), money(made["hold_value"]))
    for name, key in FIGURES:
        form = "{:.2f}" if key == "sharpe" else "{:.2%}"
        shown.add_row(name, *("–" if (one := figures[whose][key]) is None else form.format(float(one)) for whose in figures))
    for kind in ("fees", "impact", "gas"):
        counted = kind != "gas" or made["gas_counted"]
        shown.add_row(f"cost: {kind}", money(made["costs"][kind]) if counted else "not counted")
    for one in made["flows"]:
        day = datetime.fromtimestamp(one["time"], UTC).date()
        shown.add_row(f"{day}: {'taken out' if one['value'].startswith('-') else 'put in'}", money(one["value"].lstrip("-")))
    out.print(shown)
    if not made["gas_counted"]:
        say("Gas is not counted: name the asset that pays it (--native), and its price (--gas or --gas-prices; --sample has its own).")
    if made["flows"]:
        say(f"time-weighted return {100 * float(made['twr']):+.2f}%, held {100 * float(made['hold_twr']):+.2f}%")
    say(f"{made['rebalances']} rebalances, turnover {made['turnover']} times the portfolio")
    if (earned := made["harvest"]) is not None:
        say(harvest_words(earned, float(made["twr"]), float(made["hold_twr"])))
    if (funding := made["funding"]) is not None:
        _show_funding(funding, unit)
    if made["halted"]:
        say(f"{made['halted']} bars without a decision: something was stale or contradictory")
    for what, times in made["kept"].items():
        say(f"held {times} times by {what}, though something was to be done")
    for why, times in made["refused"].items():
        say(f"refused {times} times: {why}")
    for told in made["notes"]:
        say(told)
    if "report" in made:
        say(f"report: {made['report'][0]}, as data: {made['report'][1]}")
    say(f"config {made['config_hash'][:16]}, data {made['data_hash'][:16]}, seed {made['seed']}")


def _show_funding(made: Document, unit: str) -> None:
    from agent.cli.tables import money, table

    shown = table(f"funding, in {unit}", ("asset",), ("got", "a year"))
    for name, one in (*made["assets"].items(), ("all", {**made, "carry": made["total"]})):
        a_year = "" if one["yearly"] is None else f"{100 * float(one['yearly']):+.2f}%"
        shown.add_row(name, money(one["carry"]), a_year)
    out.print(shown)
    say(
        f"{made['intervals']:,} payments to shorts as large as what was held, below zero by them: "
        "no position was simulated, and nothing of it is in the values above"
    )
