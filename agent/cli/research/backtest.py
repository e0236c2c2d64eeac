"""`trimtab backtest`: simulate the agent, and a futures book, on recorded prices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent import app as api
from agent.cli.display.futures_tables import show_futures_book
from agent.cli.display.terminal import Document, emit, err, interruptible, out, say
from agent.cli.options import AsJson, GroupedOption, Heading, command, config_option
from agent.errors import ConfigError

if TYPE_CHECKING:
    from rich.status import Status


FIGURE_KEYS = (
    ("CAGR", "cagr"),
    ("annual volatility", "volatility"),
    ("Sharpe ratio", "sharpe"),
    ("maximum drawdown", "max_drawdown"),
)
Target = Annotated[str, typer.Option("--target", help="Targets in percent: BTC=50,ETH=30,USD=20.")]
MARKET = GroupedOption(
    "--market",
    (
        "fee",
        "depth",
        "pool",
        "pool-state",
        "decimals",
        "gas",
        "gas-prices",
        "data-fee",
        "latency",
        "gone",
        "seed",
    ),
    numbers={"latency": None, "seed": None},
    files=frozenset({"gas-prices"}),
    lists=frozenset({"pool-state"}),
)
Market = Annotated[
    list[str] | None,
    typer.Option(
        "--market",
        help=(
            "The simulated market, NAME=VALUE: fee=10bps,depth=1000000000. Names: fee (of each pool),"
            " depth (of a pool's side), pool (v2, or v3 over the full range), pool-state (a recorded"
            " V3 pool: WBTC/WETH=pool.json), decimals (WBTC=8), gas (20 gwei), gas-prices (a file),"
            " data-fee, latency (bars), gone (halt or leave, if prices end), seed; repeatable."
        ),
    ),
]
FUTURES_BOOK = GroupedOption(
    "--futures",
    (
        "target",
        "leverage",
        "band",
        "margin",
        "reserve",
        "max-leverage",
        "max-utilisation",
        "spot-multiple",
        "stress",
        "lot",
        "fee",
        "slippage",
        "penalty",
        "bound",
    ),
    unnamed="target",
)
FuturesBook = Annotated[
    list[str] | None,
    typer.Option(
        "--futures",
        help=(
            "Futures: weights of the notional in percent, then NAME=VALUE:"
            " BTC=60,ETH=-40,leverage=3x,margin=10000. Names: leverage (2x), band (5%), margin"
            " (initial collateral; default --value), reserve (collateral in the wallet), max-leverage"
            " (4x), max-utilisation (80%), spot-multiple, stress (10%), lot (BTC=0.001), and the"
            " venue's fee (10bps), slippage (10bps), penalty (2.5%), bound (5%, an order's distance"
            " from the index); repeatable."
        ),
    ),
]
StartValue = Annotated[
    str, typer.Option("--value", help="Initial value of the wallet, in the numeraire.")
]
NativeAsset = Annotated[str, typer.Option("--native", help="The asset that pays for gas.")]
Numeraire = Annotated[
    str, typer.Option("--numeraire", help="Unit of account; the asset without prices in the file.")
]
SimulatedConfig = Annotated[
    Path | None, config_option("The config to simulate, in place of --target.")
]
RebalanceInterval = Annotated[
    str,
    typer.Option(
        "--every", help="Rebalance interval, such as 7d; with --band it acts only outside the band."
    ),
]
RebalanceDestination = Annotated[
    str,
    typer.Option("--destination", help="target (default), band or halfway; tracking has its own."),
]
Html = Annotated[
    Path | None,
    typer.Option("--html", help="Write an HTML report to this file, and its JSON beside it."),
]
KeepReport = Annotated[
    bool,
    typer.Option(
        "--keep", help="Keep the report for the dashboard, beside the store of the config."
    ),
]
SymbolMapping = Annotated[
    list[str] | None,
    typer.Option("--as", help="Map a symbol of the files to an asset: BTC=WBTC; repeatable."),
]
Sample = Annotated[bool, typer.Option("--sample", help="The bundled prices of 2021.")]
MIN_SHOWN_RETURN = 0.00005
"""Smallest log return that is printed."""


@command(Heading.TEST, 10, MARKET, FUTURES_BOOK)
@interruptible
def backtest(
    prices: Annotated[
        Path | None,
        typer.Option(
            "--prices",
            help="A file (CSV, Parquet, JSON), or a folder of those of an exchange or data site.",
        ),
    ] = None,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample", help="The bundled prices of 2021; with --native also its gas prices."
        ),
    ] = False,
    config: SimulatedConfig = None,
    target: Target = "",
    band: Annotated[
        str,
        typer.Option(
            "--band", help="10%rel of the target or 5%abs in points; BTC=5%abs for one asset."
        ),
    ] = "",
    every: RebalanceInterval = "",
    tracking: Annotated[
        str,
        typer.Option(
            "--tracking",
            help="Strictness of the tracking rule: relaxed, normal or strict; the default without"
            " --band and --every.",
        ),
    ] = "",
    destination: RebalanceDestination = "",
    market: Market = None,
    value: StartValue = "10000",
    native: NativeAsset = "",
    flow: Annotated[
        list[str] | None,
        typer.Option("--flow", help="A deposit or withdrawal: 2021-03-01=+1000; repeatable."),
    ] = None,
    flow_form: Annotated[
        str,
        typer.Option("--flows-in", help="Transfer the numeraire, or all assets pro-rata."),
    ] = "numeraire",
    numeraire: Numeraire = "",
    symbol_mapping: SymbolMapping = None,
    funding: Annotated[
        Path | None,
        typer.Option(
            "--funding",
            help=(
                "CSV or Parquet: time, symbol, rate; reports the funding of a short of each"
                " holding."
            ),
        ),
    ] = None,
    futures: FuturesBook = None,
    html: Html = None,
    keep: KeepReport = False,
    as_json: AsJson = False,
) -> None:
    r"""Backtests the agent on recorded prices and simulated pools. Sends nothing.

    With \[futures] in the config, or --futures, the backtest also trades futures, with funding and
    liquidations, and compares the result with holding the initial positions. --futures without
    --target trades futures alone.
    """
    from agent.cli.research.portfolio_texts import (
        futures_book_options,
        market_options,
        portfolio_options,
    )

    page_paths = report_paths("backtest", html, config, keep)
    price_path = api.prices_file(prices, sample)
    market_texts = MARKET.parse(market)
    decimals = market_texts.pop("decimals", "")
    has_gas_price = market_texts.keys() & {"gas", "gas_prices"}
    if sample and native and not has_gas_price:
        market_texts["gas_prices"] = api.sample_files()[1]
    simulated_market = market_options(market_texts, value=value, flows=flow, flow_form=flow_form)
    simulated_portfolio = portfolio_options(
        config,
        target=target,
        band=band,
        every=every,
        tracking=tracking,
        destination=destination,
        numeraire=numeraire,
        native=native,
        symbol_mapping=symbol_mapping,
        decimals=decimals,
    )
    futures_texts = FUTURES_BOOK.parse(futures)
    with progress_display("reading prices", as_json) as status:

        def progress(finished_bars: int, bar_count: int) -> None:
            if status is not None:
                status.update(f"bar {finished_bars} of {bar_count}")

        has_book = "target" in futures_texts
        if has_book or (not target and api.has_futures(config)):
            result = api.backtest_futures(
                price_path,
                futures_book_options(futures_texts, None if has_book else config),
                simulated_market,
                simulated_portfolio,
                funding=funding,
                progress=progress,
            )
        else:
            require_weights(futures_texts)
            result = api.backtest(
                price_path,
                simulated_market,
                simulated_portfolio,
                funding=funding,
                progress=progress,
            )
        backtest_document = api.backtest_document(result)
    write_reports(
        backtest_document, page_paths, lambda page_path: api.write_report(result, page_path)
    )
    emit(backtest_document, as_json, lambda: _show_backtest(backtest_document))


def require_weights(futures_texts: Mapping[str, Any]) -> None:
    """Raise ConfigError for options of a futures book without its weights."""
    if futures_texts and "target" not in futures_texts:
        raise ConfigError(
            "--futures: no weights are given", "write them first, such as --futures BTC=60,ETH=-40"
        )


def report_paths(
    report_kind: str, html: Path | None, config: Path | None, keep: bool
) -> list[Path]:
    """Return the paths of the report's pages: that of --html, and with --keep one in the folder
    beside the store. Raises ConfigError, before any work is done, if one cannot be written.
    """
    page_paths = [] if html is None else [html]
    if keep:
        page_paths.append(api.new_report_path(config, report_kind))
    for page_path in page_paths:
        api.check_report_path(page_path)
    return page_paths


def write_reports(
    document: dict[str, Any], page_paths: Sequence[Path], write: Callable[[Path], tuple[Path, Path]]
) -> None:
    """Write the report to each path, and add the paths of its files to the document."""
    if page_paths:
        document["report"] = [str(path) for page_path in page_paths for path in write(page_path)]


def progress_display(progress_text: str, as_json: bool) -> AbstractContextManager[Status | None]:
    """Show a progress text on stderr, at a terminal only and not with --json."""
    if as_json or not err.is_terminal:
        return nullcontext()
    return err.status(progress_text)


def format_premium(premium: Document, twr: float, hold_twr: float) -> str:
    """Format the log return against holding and its parts; the remainder is gas money and external
    transfers.
    """
    part_texts = {
        part_name: f"{100 * float(log_return):+.3f} %" for part_name, log_return in premium.items()
    }
    advantage = float(premium["advantage"])
    excess_return = advantage
    remainder_text = ""
    if min(twr, hold_twr) > -1:
        excess_return = math.log((1 + twr) / (1 + hold_twr))
    remainder = excess_return - advantage
    if abs(remainder) >= MIN_SHOWN_RETURN:
        remainder_text = f", and {100 * remainder:+.3f} % from gas money and external transfers"
    else:
        excess_return = advantage
    return (
        f"log return against holding {100 * excess_return:+.3f} %:"
        f" {part_texts['excess_growth']} from rebalancing itself, {part_texts['off_target']} from weights off"
        f" target, less {part_texts['dispersion']} that holding gains from growing winners, less"
        f" {part_texts['costs']} of costs{remainder_text}"
    )


def _show_backtest(backtest_document: Document) -> None:
    if "final_value" in backtest_document:
        _show_portfolio(backtest_document)
    if "futures" in backtest_document:
        show_futures_book(backtest_document["futures"])
        if "final_value" not in backtest_document:
            show_report(backtest_document)


def _show_portfolio(backtest_document: Document) -> None:
    _show_figures(backtest_document)
    _show_returns(backtest_document)
    for setting, times in backtest_document["held_back"].items():
        say(f"held {times} times by {setting}, although a trade was due")
    for reason, times in backtest_document["refused"].items():
        say(f"refused {times} times: {reason}")
    _show_health(backtest_document)
    for note in backtest_document["notes"]:
        say(note)
    show_provenance(backtest_document)


def _show_health(backtest_document: Document) -> None:
    """Print the health of strategies at the end, and each pause and return."""
    for event in backtest_document.get("health", ()):
        event_date = datetime.fromtimestamp(event["time"], UTC)
        say(
            f"{event_date:%Y-%m-%d} strategy {event['name']} is {event['health']}: {event['reason']}"
        )
    for strategy in backtest_document.get("strategies", ()):
        sharpe_text = (
            "not known yet" if strategy["sharpe"] is None else f"{float(strategy['sharpe']):.2f}"
        )
        say(
            f"strategy {strategy['name']}: {strategy['health']} at the end, Sharpe ratio {sharpe_text}"
        )


def show_report(document: Document) -> None:
    """Print the paths of the report's files, if there is one."""
    written_paths = document.get("report", [])
    for page_path, data_path in zip(written_paths[::2], written_paths[1::2], strict=True):
        say(f"report: {page_path}, as data: {data_path}")


def show_provenance(document: Document) -> None:
    """Print the report's files, and the run's hashes and seed."""
    show_report(document)
    say(
        f"config {document['config_hash'][:16]}, data {document['data_hash'][:16]},"
        f" seed {document['seed']}"
    )


def _show_figures(backtest_document: Document) -> None:
    """Print the table of values, figures, costs and the owner's transfers."""
    from agent.cli.display.tables import figure_text, money_text, table

    figures = backtest_document["figures"]
    figure_table = table(
        f"{backtest_document['bars']} bars, values in {backtest_document['numeraire']}",
        ("what",),
        ("rebalanced", "held"),
    )
    figure_table.add_row(
        "start value",
        money_text(backtest_document["start_value"]),
        money_text(backtest_document["start_value"]),
    )
    figure_table.add_row(
        "final value",
        money_text(backtest_document["final_value"]),
        money_text(backtest_document["hold_value"]),
    )
    for figure_name, figure_key in FIGURE_KEYS:
        figure_table.add_row(
            figure_name,
            *(
                figure_text(figure_key, figures[book_name][figure_key])
                for book_name in ("rebalanced", "held")
            ),
        )
    for kind in ("fees", "impact", "gas"):
        cost_text = money_text(backtest_document["costs"][kind])
        if kind == "gas" and not backtest_document["gas_counted"]:
            cost_text = "not counted"
        figure_table.add_row(f"cost: {kind}", cost_text)
    for flow in backtest_document["flows"]:
        flow_date = datetime.fromtimestamp(flow["time"], UTC).date()
        kind = "withdrawal" if flow["value"].startswith("-") else "deposit"
        figure_table.add_row(f"{flow_date}: {kind}", money_text(flow["value"].lstrip("-")))
    out.print(figure_table)


def _show_returns(backtest_document: Document) -> None:
    """Print the lines on gas, returns, turnover, rebalancing premium and funding."""
    if not backtest_document["gas_counted"]:
        say(
            "Gas is not counted: set the asset that pays it (--native) and its price (--market"
            " gas=20gwei or gas-prices=FILE; --sample has gas prices)."
        )
    if backtest_document["flows"]:
        say(
            f"time-weighted return {100 * float(backtest_document['twr']):+.2f} %, held"
            f" {100 * float(backtest_document['hold_twr']):+.2f} %"
        )
    say(
        f"{backtest_document['rebalances']} rebalances, turnover {backtest_document['turnover']} times the portfolio"
    )
    if (premium := backtest_document["rebalancing_premium"]) is not None:
        say(
            format_premium(
                premium, float(backtest_document["twr"]), float(backtest_document["hold_twr"])
            )
        )
    if (funding := backtest_document["funding"]) is not None:
        _show_funding(funding, backtest_document["numeraire"])


def _show_funding(funding_document: Document, unit: str) -> None:
    from agent.cli.display.tables import money_text, table

    figure_table = table(f"funding, in {unit}", ("asset",), ("received", "a year"))
    for asset_name, asset_funding in (
        *funding_document["assets"].items(),
        ("all", {**funding_document, "carry": funding_document["total"]}),
    ):
        yearly_rate_text = (
            ""
            if asset_funding["yearly_rate"] is None
            else f"{100 * float(asset_funding['yearly_rate']):+.2f} %"
        )
        figure_table.add_row(asset_name, money_text(asset_funding["carry"]), yearly_rate_text)
    out.print(figure_table)
    say(
        f"{funding_document['intervals']:,} funding payments to shorts as large as the holdings (negative:"
        " paid by the shorts); not simulated, and not included in the values above"
    )
