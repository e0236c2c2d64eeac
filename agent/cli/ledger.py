"""Ledger commands: pnl, export, books check, books journal, books lots, books open."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated

import typer
from rich.console import Console

from agent import app as api
from agent.cli.display.futures_tables import FUTURES_TAX_NOTE
from agent.cli.display.tables import (
    FigureTable,
    amount,
    document_table,
    figure_cell,
    money_text,
    six_figures,
    table,
)
from agent.cli.display.terminal import (
    READING_CHAIN_TEXT,
    Document,
    emit,
    note,
    out,
    safe_text,
    say,
    show_spinner,
    spaced_time,
)
from agent.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    Heading,
    OnPaper,
    command,
    command_group,
    mark_paper,
    paper_or_live,
)
from agent.figures import columns, format_figure
from agent.units import decimal_text, pluralize

GAS_LOTS_NOTE = (
    "Realised gains, unlike profit, include gas money: it shares lots with the wrapped coin, oldest"
    " first."
)
books_group = command_group(
    Heading.DATA, 70, "books", "The double-entry ledger: check, list, restart."
)


@command(Heading.LOOK, 60)
def pnl(
    period: Annotated[str, typer.Option("--period", help="day, week, month, year or all.")] = "all",
    benchmark: Annotated[
        str | None,
        typer.Option("--benchmark", help="Held token as benchmark; default: the numeraire."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=400, help="Number of newest periods.")
    ] = 12,
    now: Annotated[
        bool, typer.Option("--now", help="Read the chain first and record the current value.")
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    paper: OnPaper = False,
    as_json: AsJson = False,
) -> None:
    """Shows profit and loss per period against holding and a benchmark. Lists costs, realised and
    unrealised gains.
    """
    config_or_paper = paper_or_live(config, paper)
    unbooked_text = ""
    if now:
        with show_spinner(READING_CHAIN_TEXT), api.open_agent(config_or_paper) as agent:
            unbooked_text = api.refresh_ledger(agent)
    document = mark_paper(api.pnl(config_or_paper, period, benchmark, limit), paper)
    if unbooked_text:
        reasons = (document.get("uncertain"), f"newest balances are not valued: {unbooked_text}")
        document["uncertain"] = "; ".join(filter(None, reasons))
    emit(document, as_json, lambda: show_pnl(out, document))


@command(Heading.DATA, 80)
def export(
    folder: Annotated[str, typer.Option("--out", help="Output folder.")],
    kind: Annotated[str, typer.Option("--format", help="rotki, csv or parquet.")] = "csv",
    native: Annotated[
        str | None,
        typer.Option(
            "--native-asset", help="rotki's name of the native coin; required if it is not ETH."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    paper: OnPaper = False,
    as_json: AsJson = False,
) -> None:
    """Writes the ledger to files: rotki's generic trades and events, plain CSV, or Parquet."""
    document = mark_paper(
        api.export(paper_or_live(config, paper), kind, folder, force, native), paper
    )

    def show() -> None:
        for file in document["files"]:
            say(f"{document['folder']}/{file['name']}: {file['rows']} rows")
        if any(file["name"].startswith("futures") for file in document["files"]):
            note(f"Futures: {FUTURES_TAX_NOTE}.")

    emit(document, as_json, show)


@books_group.command()
def check(
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Rewrite entries that differ from their receipts.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Read only the store, not the chain.")
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Checks that each entry balances and matches its receipt, and that the sum matches the chain.

    Exit code 0 if all match, 12 if not.
    """
    from agent.errors import EXIT_OPERATOR

    document = api.check_books(config, rebuild)
    document["chain"] = None
    if not offline:
        with show_spinner(READING_CHAIN_TEXT), api.open_agent(config) as agent:
            document["chain"] = chain_comparison = api.compare_with_chain(agent)
        document["sound"] = document["sound"] and not chain_comparison["disagreement"]
    emit(document, as_json, lambda: show_check(document))
    raise typer.Exit(0 if document["sound"] else EXIT_OPERATOR)


@books_group.command()
def journal(
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=100_000, help="Number of entries, newest first.")
    ] = 20,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Lists the newest entries with their postings. Reads only the store."""
    document = api.list_entries(config, limit)
    emit(document, as_json, lambda: show_journal(out, document))


@books_group.command()
def lots(
    method: Annotated[
        str | None,
        typer.Option(
            "--method", help="fifo, lifo, hifo or average; default: tax.method, else fifo."
        ),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    paper: OnPaper = False,
    as_json: AsJson = False,
) -> None:
    """Shows the open tax lots of each asset with entry prices, their value at the newest valuation,
    and the gains realised this year. Reads only the store.
    """
    document = mark_paper(api.tax_lots(paper_or_live(config, paper), method), paper)
    emit(document, as_json, lambda: show_lots(out, document))


@books_group.command("open")
def open_books(
    reason: Annotated[str, typer.Option("--reason", help="Reason, for the record.")] = "",
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Restarts the ledger at the balances of the next cycle. Earlier entries are kept but no longer
    compared.
    """
    document = api.open_new_book(config, reason)
    emit(
        document,
        as_json,
        lambda: say(
            f"Ledger {document['number']} is open; it starts at the balances of the next cycle."
        ),
    )


EXCLUDED_VALUE_LABELS = (("gas_money", "of native coin for gas"), ("reserved", "in reserves"))


def show_pnl(console: Console, document: Document) -> None:
    """Print one row per period, then unrealised gains, hints and statistics."""
    unit = document["numeraire"]
    since = spaced_time(document["since"])
    until = spaced_time(document["until"])
    title = f"Profit and loss in {unit}, {since} to {until} UTC; benchmark: {document['benchmark']}"
    shown_columns = columns(
        "PeriodDocument",
        "from",
        "end_value",
        "deposits",
        "withdrawals",
        "profit",
        "twr_bps",
        "mwr_bps",
        "hold_return_bps",
        "benchmark_return_bps",
        "against_holding",
        "rebalances",
        "costs.fees",
        "costs.impact",
        "costs.gas",
        "realised",
    )
    if document["periods"]:
        console.print(
            document_table(
                title,
                shown_columns,
                document["periods"],
                {"from": lambda period: period["from"][:10]},
            )
        )
        say(_start_text(document["periods"], unit))
    else:
        say(
            f"No profit or loss yet: {document['why_empty']}. Try again later: trimtab pnl --now,"
            " or trimtab run."
        )
    if unbooked_count := document["not_final"] - document["mined_since"]:
        say(
            f"Not booked yet: {pluralize(unbooked_count, 'mined transaction')}. Value, profit,"
            " unrealised gains and withdrawals include this; rebalances, their costs and realised"
            " gains do not. trimtab pnl --now books what is final."
        )
    if document["mined_since"]:
        say(
            f"Not booked yet: {pluralize(document['mined_since'], 'mined transaction')} after {until} UTC."
            " No figure includes this: trimtab pnl --now values the portfolio with it."
        )
    excluded_values = [
        f"{money_text(document[value_key])} {unit} {description}"
        for value_key, description in EXCLUDED_VALUE_LABELS
        if document[value_key] != "0"
    ]
    if excluded_values:
        say(f"Not included: {' and '.join(excluded_values)}.")
    say(
        f"Unrealised by {document['method']}, reserves included, without gas money:"
        f" {money_text(document['unrealised'])} {unit}."
    )
    for period in document["periods"]:
        _show_period_notes(console, period, unit)
    _show_taxes(console, document)
    if uncertainty := document.get("uncertain"):
        console.print(safe_text(f"Uncertain: {uncertainty}.", "yellow"))
    if document["unpriced"]:
        console.print(
            safe_text(
                f"Without a price, counted at zero: {', '.join(document['unpriced'])}",
                "yellow",
            )
        )


def _start_text(periods: Sequence[Document], unit: str) -> str:
    """Return the value before the first period, and what gas money paid in all: with the flows of the
    table they make its profit add up.
    """
    start_text = f"Value at the start, {periods[0]['from'][:10]}: {money_text(periods[0]['start_value'])} {unit}"
    from_gas_money = sum(Decimal(period["from_gas_money"]) for period in periods)
    if from_gas_money:
        start_text += f"; from gas money: {money_text(f'{from_gas_money:f}')} {unit}"
    return f"{start_text}."


def _show_taxes(console: Console, document: Document) -> None:
    """Print the realised gains by year, and what they count."""
    if (tax_report := document["tax"]) is not None and tax_report["years"]:
        years_text = ", ".join(
            f"{year} {money_text(gain)}" for year, gain in tax_report["years"].items()
        )
        limit_text = ""
        if tax_report["year_limit"] is not None:
            limit_text = f"; at most {tax_report['year_limit']} a year"
        say(
            f"Realised by {tax_report['method']} in {tax_report['currency']}: {years_text}{limit_text}."
        )
    if document["gas_money"] != "0" and any(
        float(period["realised"]) for period in document["periods"]
    ):
        say(GAS_LOTS_NOTE)
    if tax_report is not None and (futures_gains := tax_report.get("futures")):
        years_text = ", ".join(
            f"{year} {money_text(futures_gain)}" for year, futures_gain in futures_gains.items()
        )
        say(
            f"Futures, apart from these gains, in {tax_report['currency']}: {years_text}; {FUTURES_TAX_NOTE}."
        )
    if tax_report is not None and tax_report["rate_warning"]:
        console.print(safe_text(tax_report["rate_warning"], "yellow"))


def _show_period_notes(console: Console, period: Document, unit: str) -> None:
    """Print refusals, alerts, manual swaps, futures, hint and statistics of a period."""
    if period["refusals"] or period["alerts"]:
        say(
            f"{period['from'][:10]}: trades: {period['trades']}, refusals: {period['refusals']},"
            f" alerts: {period['alerts']}"
        )
    if period["manual_swaps"]["swaps"]:
        manual_swaps = period["manual_swaps"]
        say(
            f"{period['from'][:10]}: {manual_swaps['swaps']} manual"
            f" {'swap' if manual_swaps['swaps'] == 1 else 'swaps'} changed"
            f" {money_text(manual_swaps['effect'])}, not included above."
        )
    if (futures_figures := period.get("futures")) is not None:
        say(format_futures(period["from"][:10], futures_figures, unit))
    if period["hint"]:
        console.print(safe_text(f"{period['from'][:10]}: {period['hint']}", "yellow"))
    if (statistics := period["statistics"]) is not None:
        statistics_text = statistics.get("missing") or ", ".join(
            f"{statistic_name.replace('_', ' ')} {statistics[statistic_name]}"
            for statistic_name in ("volatility", "sharpe", "max_drawdown")
        )
        say(f"{period['from'][:10]}: over {statistics['days']} days {statistics_text}.")


def format_futures(day: str, futures_profit: Document, unit: str) -> str:
    """Return the components of a period's futures profit as text."""
    parts_text = f"price {money_text(futures_profit['price'])}, trading fees {_paid_as_gain_text(futures_profit['fees'])}"
    profit_text = (
        f"{day}: futures made {money_text(futures_profit['profit'])} {unit} of the profit: {parts_text}, funding"
        f" {_paid_as_gain_text(futures_profit['funding'])}; realised {money_text(futures_profit['realised'])}."
    )
    if futures_profit["transferred"] != "0":
        profit_text += f" {money_text(futures_profit['transferred'])} was transferred into the margin account from outside."
    return profit_text


def _paid_as_gain_text(paid_text: str) -> str:
    """Format a paid amount as a result: negative if paid."""
    return money_text(
        paid_text.removeprefix("-")
        if paid_text.startswith("-") or paid_text == "0"
        else f"-{paid_text}"
    )


def show_costs_and_weights(console: Console, document: Document) -> None:
    """Print the costs of past steps, and weights over time, unless the ledger is empty."""
    steps_with_cost = [step for step in document["steps"] if step["cost"] is not None]
    if steps_with_cost:
        console.print(
            document_table(
                "Costs",
                columns(
                    "PastStepDocument",
                    "step",
                    "cost.fees",
                    "cost.impact",
                    "cost.gas",
                    "cost.total",
                    "execution.difference",
                ),
                steps_with_cost,
                {"execution.difference": _plan_difference_text},
            )
        )
    futures_steps = [
        (step["step"], step["futures"]) for step in document["steps"] if "futures" in step
    ]
    if futures_steps:
        figure_table = table(
            "Futures, settled",
            ("step",),
            ("fees", "funding paid", "realised"),
            rows=(
                (
                    step,
                    *(six_figures(futures_costs[name]) for name in ("fees", "funding", "realised")),
                )
                for step, futures_costs in futures_steps
            ),
        )
        console.print(figure_table)
    if document["values"]:
        symbols = list(
            dict.fromkeys(
                name for valuation in document["values"] for name in valuation["weights_bps"]
            )
        )
        valuation_rows = []
        for valuation in document["values"]:
            weights_bps = (valuation["weights_bps"].get(name) for name in symbols)
            time_text = spaced_time(valuation["time"])
            valuation_rows.append(
                (
                    time_text,
                    money_text(valuation["value"]),
                    *(weight_text(weight_bps) for weight_bps in weights_bps),
                )
            )
        console.print(
            table_of_rows("Weights over time", ("time (UTC)", "value", *symbols), valuation_rows)
        )


def _plan_difference_text(step: Document) -> str:
    """Return the value of realised less planned amounts; empty without a swap."""
    if step["execution"] is None:
        return ""
    difference = step["execution"]["difference"]
    return "unknown" if difference is None else format_figure(difference, "cost+", "-")


def table_of_rows(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]
) -> FigureTable:
    """Return a table whose first column names the row; the others are figures."""
    return table(title, headings[:1], headings[1:], rows=rows)


def show_journal(console: Console, document: Document) -> None:
    """Print one row per posting; the first two of an entry have its time and kind."""
    figure_table = table(
        "Journal", ("entry", "account"), ("amount", f"value in {document['numeraire']}")
    )
    for entry in document["entries"]:
        kind = f"{entry['kind']}, manual" if entry["manual"] else entry["kind"]
        head_cells = [spaced_time(entry["time"][:16]), kind]
        for posting_index, posting in enumerate(entry["postings"]):
            figure_table.add_row(
                head_cells[posting_index] if posting_index < len(head_cells) else "",
                f"{posting['account']}:{posting['token']}",
                amount(decimal_text(int(posting["raw"]), posting["decimals"]), 8),
                "" if posting["value"] is None else money_text(posting["value"]),
            )
        for event in entry.get("futures", ()):
            value_text = money_text(event["value"]) if event["value"] else ""
            figure_table.add_row(
                "",
                f"futures:{event['symbol']}, {event['event']}",
                amount(event["amount"], 8),
                value_text,
            )
    console.print(figure_table)


def show_lots(console: Console, document: Document) -> None:
    """Print one row per asset and per lot, then the gains realised in the year."""
    unit = document["currency"]
    valued_at = document["valued"]
    valuation_text = f"values of {spaced_time(valued_at)} UTC" if valued_at else "no valuation yet"
    title = f"Tax lots by {document['method']}, in {unit}, {valuation_text}"
    shown_columns = columns(
        "AssetLotsDocument",
        "symbol",
        "amount",
        "entry_price",
        "cost",
        "value",
        "unrealised",
        "realised",
    )
    figure_table = document_table(title, shown_columns, ())
    for asset in document["assets"]:
        figure_table.add_row(
            *(figure_cell(asset, column) for column in shown_columns), style="bold"
        )
        if len(asset["lots"]) > 1:
            for lot in asset["lots"]:
                lot_cells = (figure_cell(lot, column) for column in shown_columns[1:-1])
                figure_table.add_row(f"  {lot['acquired'][:10]}", *lot_cells)
    console.print(figure_table)
    if unbooked_count := document["not_final"]:
        say(
            f"Not booked yet: {pluralize(unbooked_count, 'mined transaction')}, not final. The lots and"
            " realised gains are those before."
        )
    if (gas_lots := document["gas_money"]) is not None:
        gas_figures_text = ", ".join(
            f"{column.label} {figure_cell(gas_lots, column)}" for column in shown_columns[3:6]
        )
        say(
            f"Gas money, in no total: {amount(gas_lots['amount'], 8)} {gas_lots['symbol']}, {gas_figures_text}."
        )
    if document["year"] is not None:
        say(f"Realised in {document['year']} so far: {money_text(document['realised'])} {unit}.")
        if gas_lots is not None and float(document["realised"]):
            say(GAS_LOTS_NOTE)
    for asset in document["assets"]:
        if asset["unmatched"] != "0":
            say(
                f"{amount(asset['unmatched'], 8)} {asset['symbol']} was sold or withdrawn without a"
                " recorded purchase; it counts without a gain."
            )
    if document["unpriced"]:
        say(f"Without a price, counted at zero: {', '.join(document['unpriced'])}.")


def show_check(document: Document) -> None:
    """Print the differences of the ledger, or that there are none."""
    rebuild_command = "trimtab books check --rebuild"
    if document["unbalanced"]:
        say(f"Entries that do not balance: {', '.join(document['unbalanced'])}.")
    kept_ids = [entry_id for entry_id in document["differing"] if entry_id in document["unaudited"]]
    if rebuilt_ids := [entry_id for entry_id in document["differing"] if entry_id not in kept_ids]:
        remedy = "rewritten" if document["rebuilt"] else f"{rebuild_command} rewrites them"
        say(f"Entries that differ from their receipts: {', '.join(rebuilt_ids)}; {remedy}.")
    if kept_ids:
        say(
            f"Entries whose amounts differ from their receipts: {', '.join(kept_ids)}; this version"
            " cannot read their steps, so they are kept: check with the version that wrote them."
        )
    if unaudited_count := len(document["unaudited"]):
        say(
            f"Of {pluralize(unaudited_count, 'transaction')}, whose steps this version cannot read, only"
            " the amounts are compared."
        )
    for difference in document["misstated"]:
        remedy = "recomputed" if document["rebuilt"] else f"{rebuild_command} recomputes them"
        say(f"Running sums: {difference}; {remedy}.")
    for symbol, missing_raw in document["missing_lots"].items():
        say(
            f"{missing_raw} base units of {symbol} were sold or withdrawn without a recorded purchase; they"
            " count without a gain."
        )
    if document["chain"] is not None and document["chain"]["disagreement"]:
        say(document["chain"]["disagreement"])
    if document["sound"]:
        chain_text = ""
        if document["chain"] is not None:
            chain_text = f", and the sum matches the chain at block {document['chain']['block']}"
        say(f"{document['entries']} entries balance and match their transactions{chain_text}.")


def weight_text(weight_bps: float | None) -> str:
    """Format a weight as percent: -12 bps as -0.12 %; empty if unknown. A rounded zero has no
    sign.
    """
    return "" if weight_bps is None else f"{weight_bps / 100:z.2f} %"
