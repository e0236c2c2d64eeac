"""Commands about allocator weights, recorded prices and pool observations: weights, prices,
oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent import app as api
from agent.cli.display.terminal import (
    Document,
    ask,
    emit,
    err,
    note,
    out,
    require_answerable,
    safe_text,
    say,
    show_spinner,
)
from agent.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    Heading,
    OnPaper,
    Send,
    Yes,
    command,
    command_group,
    mark_paper,
    paper_or_live,
)
from agent.errors import EXIT_REFUSED, OUTCOME_EXIT_CODES, ConfigError
from agent.units import format_bps, format_duration, minute_text

if TYPE_CHECKING:
    from rich.console import Console

    from agent.cli.display.tables import FigureTable


prices_group = command_group(
    Heading.DATA, 50, "prices", "Recorded prices used by triggers and allocators.", has_default=True
)


@command(Heading.DATA, 40)
def weights(
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help="Use this choice, though a price or a weight jumps. Trades follow it.",
        ),
    ] = False,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            help="A strategy's choice; default: the only one with an allocator.",
            show_default=False,
        ),
    ] = "",
    config: ConfigPath = DEFAULT_CONFIG,
    paper: OnPaper = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Shows the weights that the allocator would choose now, with its data and reason, and the last
    choice. Records no choice without --accept.
    """
    if accept:
        require_answerable(yes)
    with (
        show_spinner("Reading the chain") as spinner,
        api.open_agent(paper_or_live(config, paper)) as agent,
    ):

        def confirm(choice: Document) -> bool:
            console = err if as_json else out
            return yes or spinner.ask("Use these weights?", lambda: _show_weights(console, choice))

        document = mark_paper(
            api.weights(agent, strategy=strategy, accept=confirm if accept else None), paper
        )
    emit(document, as_json, lambda: _show_weights(out, document))
    if accept and not document["accepted"]:
        raise typer.Exit(EXIT_REFUSED)


@prices_group.callback()
def prices(
    context: typer.Context, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False
) -> None:
    """Lists the recorded prices with their source and period."""
    if context.invoked_subcommand is not None:
        return

    with show_spinner("Reading the chain"), api.open_agent(config) as agent:
        document = api.recorded_price_spans(agent)
    emit(document, as_json, lambda: _show_prices(document))


@prices_group.command("import")
def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            help="A price file: CSV, Parquet or JSON of an exchange or data site; or the name of published data in the config."
        ),
    ],
    symbol_pairs: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            help="Map a symbol of the file to an asset: BTC=WBTC; repeatable.",
            show_default=False,
        ),
    ] = None,
    bar: Annotated[
        str,
        typer.Option(
            "--bar",
            help=(
                "Time from a row's timestamp to its close; default: the bar of files with open, high"
                " and low, else 0s."
            ),
        ),
    ] = "",
    check: Annotated[bool, typer.Option("--check", help="Only check the file.")] = False,
    accept_jumps: Annotated[
        bool,
        typer.Option(
            "--accept-jumps",
            help=(
                "Import prices that jump and come back, or are far from today's reference price or"
                " from recorded ones."
            ),
        ),
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Imports missing hours from a price file, or from published data by its name in the config,
    downloaded once and kept. Repeating it changes nothing.
    """
    with show_spinner("Reading the file"), api.open_agent(config) as agent:
        document = api.import_prices(agent, file, symbol_pairs or [], bar, check, accept_jumps)
    emit(document, as_json, lambda: _show_import(document))


@prices_group.command()
def fetch(
    source: Annotated[
        str | None,
        typer.Option(
            "--source", help="feed or pools; default: reference.kind.", show_default=False
        ),
    ] = None,
    back: Annotated[str, typer.Option("--back", help="How far back to fetch.")] = "90d",
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Fetches missing hours from earlier rounds of price feeds and from V3 observations."""
    with show_spinner("Reading feeds and pools"), api.open_agent(config) as agent:
        document = api.fetch_prices(agent, source, back)
    emit(document, as_json, lambda: _show_fetched_prices(document))


@prices_group.command()
def forget(
    source: Annotated[str, typer.Argument(help="import, feed or pools.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Removes the prices of one source, except the agent's own records."""
    with show_spinner("Reading the chain"), api.open_agent(config) as agent:
        document = api.forget_prices(agent, source)
    emit(
        document, as_json, lambda: say(f"{document['removed']} prices of source {source} removed.")
    )


def _weights_table(document: Document, newest: str) -> FigureTable:
    """Return the weights of each asset, of which `newest` are those of the newest choice."""
    from agent.cli.display import tables

    title = " of strategy ".join(
        filter(None, (f"Weights by {document['kind']}", document["strategy"]))
    )
    weight_columns = ("target", "chosen", newest)
    table = tables.table(
        title,
        ("asset", "limits", "data"),
        weight_columns,
        column_order=("asset", *weight_columns, "limits", "data"),
    )
    for asset in document["assets"]:
        limits_text = data_text = ""
        if asset["fixed"]:
            limits_text = "fixed"
        elif asset["limits_bps"] is not None:
            limits_text = "{} to {}".format(*map(tables.bps_percent_text, asset["limits_bps"]))
        if asset["volatility"] is not None:
            data_text = f"annual volatility {float(asset['volatility']) * 100:.1f} %"
        elif asset["supply_raw"] is not None:
            data_text = f"supply by {asset['supply_source']}"
        weight_cells = (
            tables.bps_percent_text(asset[f"{column}_bps"]) for column in weight_columns
        )
        table.add_row(asset["symbol"], *weight_cells, limits_text, data_text)
    return table


def _show_weights(console: Console, document: Document) -> None:
    newest = "now" if document["waiting"] is None else "waiting"
    console.print(_weights_table(document, newest))
    if document["correlations"]:
        console.print(_correlations_table(document))
    if (last_choice := document["chosen"]) is not None:
        console.print(
            safe_text(
                f"Chosen {_utc_text(last_choice['at_s'])} from"
                f" {last_choice['price_source']}{_span_text(last_choice)}: {last_choice['why']}."
            )
        )
        console.print(
            safe_text(
                f"The next choice is due {'now' if document['due'] else _utc_text(document['next_s'])}."
            )
        )
    elif document["waiting"] is None and not document["accepted"]:
        console.print(
            safe_text("Nothing chosen yet: the next cycle of trimtab run or rebalance chooses.")
        )
    if (newest_choice := document[newest]) is not None:
        state = "Now" if newest == "now" else "Waiting for the owner"
        console.print(
            safe_text(
                f"{state}, from {newest_choice['price_source']}{_span_text(newest_choice)}: {newest_choice['why']}."
            )
        )
    if document["accepted"]:
        console.print(safe_text("Accepted: the next cycle uses these weights."))
    if document["turnover_bps"]:
        console.print(
            safe_text(f"That would move {format_bps(document['turnover_bps'])} of the portfolio.")
        )
    if document["fault"]:
        console.print(safe_text(f"No weights can be chosen now: {document['fault']}", "bold red"))


def _correlations_table(document: Document) -> FigureTable:
    """Return the lower triangle of the correlation matrix."""
    from agent.cli.display import tables

    correlations = document["correlations"]
    symbols = list(
        dict.fromkeys(symbol for symbol_pair in correlations for symbol in symbol_pair.split("/"))
    )
    column_symbols = symbols[:-1]
    table = tables.table("Correlations", ("",), column_symbols)
    for row_symbol in symbols[1:]:
        cells = [
            correlations.get(f"{column_symbol}/{row_symbol}") for column_symbol in column_symbols
        ]
        table.add_row(
            row_symbol,
            *("" if correlation is None else f"{float(correlation):.2f}" for correlation in cells),
        )
    return table


def _show_prices(document: Document) -> None:
    from agent.cli.display import tables

    table = tables.table(
        f"Recorded prices in {document['numeraire']}",
        ("token", "source", "from", "until"),
        ("hours",),
        rows=(
            (
                price_span["symbol"],
                price_span["source"],
                _utc_text(price_span["from_s"]),
                _utc_text(price_span["until_s"]),
                str(price_span["hours"]),
            )
            for price_span in document["prices"]
        ),
    )
    if document["prices"]:
        out.print(table)
    if document["missing"]:
        say(
            f"No prices of {', '.join(document['missing'])}: the agent's cycles record them;"
            " trimtab prices import and trimtab prices fetch add more."
        )


def _show_import(document: Document) -> None:
    from agent.cli.display import tables

    if document["sha256"]:
        say(f"Kept: {document['file']}, SHA-256 {document['sha256']}")
    if not document["prices"]:
        say(f"Checked: {document['unit']}. To use them: portfolio.weights.supplies")
        return
    table = tables.table(
        f"Closes in {document['unit']}",
        ("token", "from", "until", "every", "gaps"),
        ("rows", "hours", "new"),
        column_order=("token", "rows", "hours", "new", "from", "until", "every", "gaps"),
    )
    for imported_series in document["prices"]:
        gaps_text = "none"
        if imported_series["gaps"]:
            gaps_text = f"{imported_series['gaps']}, the longest {format_duration(imported_series['longest_gap_s'])}"
        count_cells = (
            str(imported_series["rows"]),
            str(imported_series["hours"]),
            str(imported_series["new"]),
        )
        table.add_row(
            imported_series["symbol"],
            *count_cells,
            _utc_text(imported_series["from_s"]),
            _utc_text(imported_series["until_s"]),
            format_duration(imported_series["interval_s"]),
            gaps_text,
        )
    out.print(table)
    for remark in document["remarks"]:
        say(f"{remark['text']}.")
    if document["skipped"]:
        say(f"Skipped, not tokens of the config: {', '.join(document['skipped'])}.")
    if document["checked_only"]:
        say("Nothing was written: --check.")


def _show_fetched_prices(document: Document) -> None:
    from agent.cli.display import tables

    out.print(
        tables.table(
            "Prices from the chain",
            ("token", "source", "from", "until", "remark"),
            ("hours", "new"),
            column_order=("token", "source", "hours", "new", "from", "until", "remark"),
            rows=(
                (
                    fetched_series["symbol"],
                    fetched_series["source"],
                    str(fetched_series["hours"]),
                    str(fetched_series["new"]),
                    _utc_text(fetched_series["from_s"]),
                    _utc_text(fetched_series["until_s"]),
                    fetched_series["why"],
                )
                for fetched_series in document["prices"]
            ),
        )
    )


def _span_text(choice: Document) -> str:
    if choice["from_s"] is None:
        return ""
    return f", {_utc_text(choice['from_s'])} to {_utc_text(choice['until_s'])}"


def _utc_text(unix_s: int | None) -> str:
    return "" if unix_s is None else f"{minute_text(unix_s)} UTC"


@command(Heading.DATA, 60)
def oracle(
    pool: Annotated[str | None, typer.Argument(help="Address of a V3 pool to extend.")] = None,
    new_capacity: Annotated[
        int | None, typer.Option("--to", help="Number of price observations to keep.")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Checks that V3 observations cover reference.twap_window; with POOL and --to, extends one
    pool's observations.
    """
    if (pool is None) != (new_capacity is None):
        raise ConfigError(
            "oracle: POOL and --to are used together", "for example: trimtab oracle 0x… --to 151"
        )
    if send and pool is None:
        raise ConfigError(
            "--send needs POOL and --to",
            "trimtab oracle lists the pools",
        )
    if send:
        require_answerable(yes)
    with show_spinner("Reading the chain") as spinner, api.open_agent(config) as agent:
        if pool is None or new_capacity is None:
            observations = api.observations(agent)
            with spinner.hidden():
                emit(observations, as_json, lambda: _show_observations(observations))
            return

        def confirm(document: Document) -> bool:
            with spinner.hidden():
                _show_cost(document, note if as_json else say)
                return yes or ask(f"Extend {document['pool']} to {document['to']} observations?")

        document = api.raise_observations(
            agent, pool, new_capacity, send=send, confirm=confirm, progress=spinner.update
        )
        with spinner.hidden():
            emit(document, as_json, lambda: _show_extension(document, send))
    raise typer.Exit(OUTCOME_EXIT_CODES.get(document["outcome"], 0))


def _show_observations(document: Document) -> None:
    from agent.cli.display import tables

    title = (
        f"TWAP over {format_duration(document['window_s'])} at block {document['block']}; {document['enough']}"
        " observations are enough"
    )
    table = tables.table(
        title,
        ("pool", "pair", "TWAP"),
        ("fee", "observations", "next"),
        column_order=("pool", "pair", "fee", "observations", "next", "TWAP"),
    )
    for pool in document["pools"]:
        figure_cells = (
            f"{pool['fee_pips'] / 10_000:g} %",
            str(pool["observations"]),
            str(pool["observations_next"]),
        )
        table.add_row(
            pool["pool"], "/".join(pool["tokens"]), *figure_cells, pool["why"] or "sufficient"
        )
    out.print(table)


def _show_cost(document: Document, print_line: Callable[[str], None]) -> None:
    from agent.figures import format_figure

    token_pair = "/".join(document["tokens"])
    current_capacity = document["observations_next"]
    print_line(
        f"{document['pool']} ({token_pair}): from {current_capacity} to {document['to']} price observations"
    )
    cost_text = f"{document['cost_native']} native coin"
    if document["cost"] is not None:
        cost_text += f", {format_figure(document['cost'], 'cost')} in the numeraire"
    if document["most_native"] is not None:
        cost_text += f"; {document['most_native']} at most"
    print_line(f"About {document['gas_units']} gas: {cost_text}")


def _show_extension(document: Document, send_allowed: bool) -> None:
    if document["increase"] == 0:
        say(
            f"{document['pool']} already has {document['observations_next']} observations; nothing"
            " to do."
        )
        return
    if not send_allowed:
        _show_cost(document, say)
        note("Nothing was sent. To send it, add --send.")
    for transaction in document["transactions"]:
        say(
            f"{transaction['kind']} {transaction['status']} in block {transaction['block']}: {transaction['hash']}"
        )
    if document["outcome"] == "done":
        say(
            "The pool's TWAP is usable once its observations (one per block with a trade) cover"
            " the window."
        )
    elif send_allowed:
        note(
            f"{document['outcome']}: {'at most gas was spent' if document['transactions'] else 'nothing changed'}"
        )
