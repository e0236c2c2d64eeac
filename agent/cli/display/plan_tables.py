"""Tables of plans: trades, cost, worst case and failed guards on one screen; everything with
--verbose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from rich.console import Console

from agent.cli.display.futures_tables import fills_table, show_comparisons, show_futures_summary
from agent.cli.display.status_tables import (
    decision_notice,
    realised_changes_table,
    transactions_table,
    transfers_table,
    zone_table,
)
from agent.cli.display.tables import (
    FigureTable,
    Notice,
    amount,
    bps_percent_text,
    coins,
    cost_text,
    document_table,
    figure_cell,
    money_text,
    six_figures,
    table,
)
from agent.cli.display.terminal import Document, safe_text, say
from agent.figures import Column, columns, format_figure, replace_pool_addresses
from agent.units import short_address, value_text

ACTION_AMOUNT_KEYS = ("amounts_raw", "min_raw", "fees_raw")
MAX_REPEATED_LENGTH = 80
"""Longest measured value, in characters, that a table of guards repeats."""
WORST_CASE_TEXT = "minimums only, prices off by oracle_deviation"
"""What the worst case of a plan assumes."""
SLICE_COST_KEYS = ("moved", "fees", "impact", "skew", "gas", "waiting", "rest", "total")
MAX_SWAP_ROWS = 6
MAX_SWAP_ROWS_IF_REFUSED = 2
"""Number of swaps on the short screen of 24 lines, and the smaller number shown together with
failed guards.
"""


def weights_text(weights_bps: Mapping[str, int]) -> str:
    """Format weights in bps by symbol."""
    return ", ".join(f"{symbol} {bps_percent_text(bps)}" for symbol, bps in weights_bps.items())


def show_plan(
    console: Console,
    plan_document: Document,
    decimals_by_symbol: dict[str, int],
    *,
    verbose: bool = False,
    with_decision: bool = True,
    details_option: str = "--json",
) -> None:
    """Print a plan. `details_option` is the option that shows the omitted details."""
    if with_decision:
        console.print(decision_notice(plan_document))
    is_refused = plan_document["outcome"] == "refused"
    if plan_document["legs"]:
        max_rows = MAX_SWAP_ROWS_IF_REFUSED if is_refused else MAX_SWAP_ROWS
        if verbose:
            max_rows = len(plan_document["legs"])
        console.print(legs_table(plan_document, decimals_by_symbol, max_rows))
        if len(plan_document["legs"]) > max_rows:
            console.print(safe_text(f"and {len(plan_document['legs']) - max_rows} more swaps"))
    if plan_document["actions"]:
        console.print(actions_table(plan_document["actions"], decimals_by_symbol))
        console.print(
            safe_text(
                "After each action the agent plans again, within the same limits, and sends the next."
            )
        )
    show_comparisons(console, plan_document)
    if verbose:
        _show_details(console, plan_document)
    else:
        _show_plan_summary(console, plan_document, details_option)
    if plan_document["flows"]:
        console.print(transfers_table(plan_document["flows"]))
    for action in plan_document.get("futures_actions", ()):
        console.print(safe_text(f"To send: {action}"))
    if "futures" in plan_document:
        show_futures_summary(console, plan_document)
    if is_refused:
        reason = plan_document["reason"]
        if not verbose:
            reason = replace_pool_addresses(reason, plan_document["pools"])
        title = "refused: nothing was exchanged"
        console.print(Notice(reason.removeprefix("refused: "), title, "red"))


def show_step_results(
    console: Console, document: Document, decimals_by_symbol: dict[str, int]
) -> None:
    """Print the transactions of a step, and their changes to wallet and futures."""
    console.print(transactions_table(document))
    data_fee_wei = sum(int(sent_tx.get("data_fee_wei", 0)) for sent_tx in document["transactions"])
    if data_fee_wei:
        data_fee_text = value_text(Fraction(data_fee_wei), 18)
        console.print(safe_text(f"Data fee of the rollup, beside gas: {data_fee_text} native coin"))
    filled_notes = {fill["note"] for fill in document.get("fills") or ()}
    for transaction in document["transactions"]:  # margin moves and delegates
        if transaction["kind"] == "futures" and transaction["note"] not in filled_notes:
            console.print(safe_text(f"Futures: {transaction['note']}: {transaction['status']}"))
    if document["realised"]:
        console.print(realised_changes_table(document, decimals_by_symbol))
    if document.get("fills"):
        console.print(fills_table(document["fills"]))


def _show_plan_summary(console: Console, document: Document, details_option: str) -> None:
    """Print cost, worst case and weights in one line each, failed guards and the number of omitted
    details; of a plan that is not refused, also why each asset stays off target.
    """
    unit = document["numeraire"]
    if document["legs"] or document["actions"]:
        cost_parts_text = ", ".join(
            f"{cost_name} {cost_text(amount_text)}"
            for cost_name, amount_text in document["cost"].items()
            if cost_name != "total" and float(amount_text)
        )
        summary_text = (
            f"Cost: {cost_text(document['cost']['total'])} {unit}, for"
            f" {money_text(document['turnover'])} {unit} of turnover"
        )
        console.print(
            safe_text(f"{summary_text} ({cost_parts_text})" if cost_parts_text else summary_text)
        )
        if (worst_case := document.get("worst_case")) is not None:
            console.print(
                safe_text(f"Worst case: {cost_text(worst_case)} {unit}: {WORST_CASE_TEXT}")
            )
    if document["outcome"] != "refused" and document["legs"] and document["weights_after_bps"]:
        console.print(safe_text(f"Weights after: {weights_text(document['weights_after_bps'])}"))
    if document["zone"] is not None and document["zone"]["plan"] is not None:
        zone_plan = document["zone"]["plan"]
        console.print(
            safe_text(
                f"Zone: saves {cost_text(zone_plan['saved_risk'])} {unit} of risk for"
                f" {cost_text(zone_plan['cost'])} {unit}"
            )
        )
    if (tax_report := document.get("tax")) is not None and tax_report["disposals"]:
        console.print(
            safe_text(
                f"Taxable gain: {_gain_text(tax_report, tax_report['currency'])}, by {tax_report['method']}"
            )
        )
    if document.get("gradual_execution") is not None:
        console.print(safe_text(format_execution(document["gradual_execution"], unit)))
    if document["outcome"] != "refused":
        show_off_target_assets(console, document)
    failed_verdicts = [verdict for verdict in document["verdicts"] if not verdict["passed"]]
    if failed_verdicts:
        console.print(guards_table(failed_verdicts, document["pools"]))
    if document["verdicts"]:
        guards_text = (
            f"Guards: {len(document['verdicts']) - len(failed_verdicts)} of {len(document['verdicts'])}"
            " passed"
        )
        if document["skipped"]:
            guards_text += f"; {len(document['skipped'])} pools or assets skipped"
        console.print(
            safe_text(
                f"{guards_text} (details: {details_option})", "bold red" if failed_verdicts else ""
            )
        )


def show_off_target_assets(console: Console, document: Document) -> None:
    """Print one line for each asset that a plan leaves off target, with the reason."""
    for skipped_move in document["skipped"]:
        if skipped_move["subject"] in document["weights_after_bps"]:  # an asset
            reason = replace_pool_addresses(skipped_move["why"], document["pools"])
            console.print(safe_text(f"{skipped_move['subject']} stays {reason}", "yellow"))


def _show_details(console: Console, plan_document: Document) -> None:
    for pool in dict.fromkeys(leg["pool"] for leg in plan_document["legs"]):
        console.print(safe_text(f"{plan_document['pools'].get(pool, 'pool')}: {pool}", "dim"))
    if plan_document["legs"] or plan_document["actions"]:
        console.print(costs_table(plan_document))
    if plan_document["zone"] is not None:
        console.print(zone_table(plan_document["zone"], plan_document["numeraire"]))
    show_tax(console, plan_document.get("tax"))
    show_execution(console, plan_document)
    if plan_document["verdicts"]:
        console.print(guards_table(plan_document["verdicts"], plan_document["pools"]))
    for skipped_move in plan_document["skipped"]:
        console.print(
            safe_text(
                "Skipped"
                f" {replace_pool_addresses(skipped_move['subject'], plan_document['pools'], keeps_addresses=True)}:"
                f" {replace_pool_addresses(skipped_move['why'], plan_document['pools'])}",
                "yellow",
            )
        )


def legs_table(
    document: Document, decimals_by_symbol: dict[str, int], max_rows: int
) -> FigureTable:
    """Return a table of the first `max_rows` swaps of a plan."""

    def coins_text(raw: str, symbol: str) -> str:
        return format_figure(raw, f"coins:{decimals_by_symbol[symbol]}")

    figure_table = document_table(
        "Swaps",
        [
            Column("number", "#", "text"),
            *columns(
                "LegDocument",
                "pool",
                "amount_in_raw",
                "amount_out_raw",
                "min_out_raw",
                "impact_bps",
            ),
        ],
        (),
    )
    for swap_number, leg in enumerate(document["legs"][:max_rows], 1):
        pool_name = document["pools"].get(
            leg["pool"], f"{short_address(leg['pool'])} {leg['fee_pips'] / 10_000:g} %"
        )
        figure_table.add_row(
            str(swap_number) + (" ↳" if leg["source"] == "router" else ""),
            pool_name,
            f"{coins_text(leg['amount_in_raw'], leg['token_in'])} {leg['token_in']}",
            f"{coins_text(leg['amount_out_raw'], leg['token_out'])} {leg['token_out']}",
            coins_text(leg["min_out_raw"], leg["token_out"]),
            format_figure(leg["impact_bps"], "percent", "-"),
        )
    return figure_table


def show_quote(
    console: Console, quote_document: Document, decimals_by_symbol: dict[str, int]
) -> None:
    """Print a whole quote."""
    console.print(legs_table(quote_document, decimals_by_symbol, MAX_SWAP_ROWS))
    if len(quote_document["legs"]) > MAX_SWAP_ROWS:
        console.print(
            safe_text(f"and {len(quote_document['legs']) - MAX_SWAP_ROWS} more swaps (all: --json)")
        )
    token_in = quote_document["token_in"]
    token_out = quote_document["token_out"]
    sold_coins, bought_coins = (
        amount(coins(quote_document[amount_key], decimals_by_symbol[token]), 18)
        for amount_key, token in (("amount_in_raw", token_in), ("amount_out_raw", token_out))
    )
    console.print(
        safe_text(
            f"{sold_coins} {token_in} would buy {bought_coins} {token_out}; fees {cost_text(quote_document['fee'])}"
            f" {quote_document['numeraire']}"
        )
    )


def costs_table(plan_document: Document) -> FigureTable:
    """Return a table of the plan's cost, in the numeraire."""
    figure_table = table(f"Cost in {plan_document['numeraire']}", ("part",), ("amount",))
    figure_table.show_header = False
    cost = plan_document["cost"]
    for column in columns(
        "CostDocument", "fees", "impact", "skew", "gas", "approvals", "funding", "total", "data_fee"
    ):
        if column.path in cost:
            label = "of gas, the rollup's data fee" if column.path == "data_fee" else column.label
            style = "bold" if column.path == "total" else ""
            figure_table.add_row(label, figure_cell(cost, column), style=style)
    for column in columns("PlanDocument", "worst_case", "turnover"):
        if plan_document.get(column.path) is not None:
            figure_table.add_row(column.label, figure_cell(plan_document, column))
    if plan_document.get("gap_bps") is not None:
        figure_table.add_row(
            "optimality gap, at most",
            f"{plan_document['gap_bps']:.3f} bps of turnover, gas and min_trade included",
        )
    return figure_table


def guards_table(verdicts: Sequence[Document], pools: dict[str, str]) -> FigureTable:
    """Return a table of guards with their measured values and limits."""
    first_guard_by_text: dict[str, str] = {}
    for verdict in verdicts:
        first_guard_by_text.setdefault(verdict["measured"], verdict["guard"])

    def measured_text(verdict: Document) -> str:
        first_guard = first_guard_by_text[verdict["measured"]]
        if len(verdict["measured"]) > MAX_REPEATED_LENGTH and first_guard != verdict["guard"]:
            return f"as {first_guard}"
        return replace_pool_addresses(verdict["measured"], pools)

    return document_table(
        "Guards",
        columns("VerdictDocument", "passed", "guard", "measured", "limit"),
        verdicts,
        {
            "passed": lambda verdict: (
                safe_text("✓", "green") if verdict["passed"] else safe_text("refused", "bold red")
            ),
            "measured": measured_text,
            "limit": lambda verdict: replace_pool_addresses(verdict["limit"], pools),
        },
    )


def parameters_table(parameter_texts: dict[str, str]) -> FigureTable:
    """Return a table of every parameter that binds the transaction."""
    figure_table = table("Parameters", ("name", "value"))
    figure_table.show_header = False
    for parameter_name, parameter_text in parameter_texts.items():
        figure_table.add_row(parameter_name, parameter_text)
    return figure_table


def signing_text(parameter_texts: dict[str, str]) -> str:
    """Describe the signer and the submission of a plan in one sentence."""
    return (
        f"Signs: {parameter_texts['key']}, for {parameter_texts['wallet']} on chain {parameter_texts['chain']}; to"
        f" {parameter_texts['submission'].partition(':')[0]}"
    )


def _gain_text(tax_report: Document, unit: str = "") -> str:
    """Format the gain of a plan, or why it is unknown."""
    if tax_report["gain"] is None:
        return f"unknown ({tax_report['unknown']})"
    return f"{money_text(tax_report['gain'])} {unit}".rstrip()


def show_tax(console: Console, tax_report: Document | None) -> None:
    """Print the gain that a plan would realise, if [tax] is configured."""
    if tax_report is None or not tax_report["disposals"]:
        return
    figure_table = table(
        f"Taxable gain of this plan in {tax_report['currency']}, by {tax_report['method']}",
        ("sells",),
        ("proceeds", "cost basis", "gain", "days held"),
    )
    for disposal in tax_report["disposals"]:
        days_text = (
            ""
            if disposal["oldest_days"] is None
            else f"{disposal['newest_days']} to {disposal['oldest_days']}"
        )
        figure_table.add_row(
            disposal["symbol"],
            money_text(disposal["proceeds"]),
            "unknown" if disposal["cost"] is None else money_text(disposal["cost"]),
            "unknown" if disposal["gain"] is None else money_text(disposal["gain"]),
            days_text,
        )
    figure_table.add_row("all", "", "", _gain_text(tax_report), "")
    console.print(figure_table)
    limit_text = ""
    if tax_report["year_limit"] is not None:
        limit_text = f" of at most {money_text(tax_report['year_limit'])}"
    say(f"Realised this year: {money_text(tax_report['realised_this_year'])}{limit_text}.")


def actions_table(actions: Sequence[Document], decimals_by_symbol: dict[str, int]) -> FigureTable:
    """Return a table of liquidity actions with their amounts and minimums."""
    figure_table = table(
        "Liquidity, one transaction each",
        ("", "position", "token", "why"),
        ("amount", "at least", "fees"),
        column_order=("", "position", "token", "amount", "at least", "fees", "why"),
    )
    for action in actions:
        kind = action["kind"]
        position = action["position"]
        reason = action["reason"]
        for symbol in action["tokens"]:
            figure_table.add_row(
                kind,
                position,
                symbol,
                *(
                    ""
                    if action[amount_key] is None
                    else six_figures(coins(action[amount_key][symbol], decimals_by_symbol[symbol]))
                    for amount_key in ACTION_AMOUNT_KEYS
                ),
                reason,
            )
            kind = position = reason = ""
    return figure_table


def show_execution(console: Console, plan_document: Document) -> None:
    """Print the progress of a gradual execution and the cost of slices, if there are any."""
    if plan_document.get("gradual_execution") is not None:
        console.print(
            safe_text(
                format_execution(plan_document["gradual_execution"], plan_document["numeraire"])
            )
        )
    if plan_document.get("pacing") is not None:
        console.print(slices_table(plan_document["pacing"], plan_document["numeraire"]))


def slices_table(pacing: Document, numeraire: str) -> FigureTable:
    """Return a table of the costs by number of slices."""
    figure_table = table(
        f"Slices compared with one trade, in {numeraire}: {pacing['why']}",
        (),
        ("slices", *SLICE_COST_KEYS),
    )
    for pacing_option in pacing["options"]:
        is_chosen = pacing_option["rounds"] == pacing["chosen"]
        figure_texts = [
            str(pacing_option["rounds"]),
            *(money_text(pacing_option[cost_key]) for cost_key in SLICE_COST_KEYS),
        ]
        figure_table.add_row(
            *(safe_text(figure_text, "bold" if is_chosen else "") for figure_text in figure_texts)
        )
    return figure_table


def executions_table(executions: Sequence[Document]) -> FigureTable:
    """Return a table of gradual executions, with progress and state."""
    return table(
        "Gradual executions",
        ("id", "style", "began", "next", "state"),
        ("slices",),
        rows=(
            (
                execution["id"],
                execution["style"],
                execution["began"],
                execution["next"] or "",
                f"{execution['state']}: {execution['why']}".rstrip(": "),
                f"{execution['parts_done']} of ~{_estimated_parts(execution)}",
            )
            for execution in executions
        ),
    )


def _estimated_parts(execution: Document) -> int:
    """Return the number of parts, at least one more than are done while the execution is open."""
    parts_done = int(execution["parts_done"])
    is_open = bool(execution.get("state", "open") == "open")
    return max(int(execution["parts_about"]), parts_done + is_open)


def format_execution(execution: Document, numeraire: str) -> str:
    """Describe the progress of a gradual execution in one sentence."""
    if execution["purchase"] is not None:
        traded_text = money_text(execution["moved"])
        total_text = money_text(execution["to_move"])
        # A part of a deposit stays in the numeraire by its target; a first purchase trades all of it.
        amounts_text = (
            f"{traded_text} {numeraire} traded of a deposit of {total_text} {numeraire}"
            if execution["purchase"] == "top-up"
            else f"{traded_text} of {total_text} {numeraire} traded"
        )
        return (
            f"{execution['purchase'].capitalize()}: {execution['parts_done']} of {_estimated_parts(execution)} parts done,"
            f" {amounts_text}; next at {execution['next']} UTC"
        )
    budget_text = "no budget" if execution["budget"] is None else f"budget {execution['budget']}"
    return (
        f"Under way since {execution['began']}: {execution['style']}, {execution['parts_done']} of about"
        f" {execution['parts_about']} slices done, {execution['moved']} of {execution['to_move']} {numeraire}"
        f" moved, {execution['spent']} lost against arrival prices ({budget_text}); next {execution['next']},"
        f" expires {execution['expires']}"
    )
