"""Tables and sentences of a status and its decision, and of the transactions of a cycle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console

from agent.cli.display.tables import (
    FigureTable,
    Notice,
    amount,
    bps_percent_text,
    coins,
    cost_text,
    document_table,
    money_text,
    range_text,
    table,
)
from agent.cli.display.terminal import Document, WeightBar, safe_text
from agent.figures import (
    WITH_THE_OTHERS,
    Column,
    as_sentence,
    asset_range,
    columns,
    correction_text,
    format_figure,
    pause_exceptions,
    pause_text,
    ranges_beside_targets,
    stop_text,
)
from agent.units import format_duration

KIND_STYLES = {"hold": "green", "rebalance": "yellow", "adjustliquidity": "yellow", "halt": "red"}
STATE_STYLES = {
    "final": "green",
    "mined": "green",
    "reverted": "red",
    "cancelled": "yellow",
    "replaced": "red",
}


def own_range_text(asset: Document, edges_key: str, shown_key: str = "") -> str:
    """Format the range `shown_key` of an asset that moves beyond the range `edges_key`."""
    edges = asset_range(asset, edges_key)
    if edges.others_text:
        return WITH_THE_OTHERS
    return range_text(asset[shown_key or edges_key] if edges.is_own else None)


def holdings_table(status_document: Document, title: str = "Holdings") -> FigureTable:
    """Return a table of balances, prices, weights against targets and bands."""
    total_text = f"{money_text(status_document['total_value'])} {status_document['numeraire']}"
    full_bps = max(
        (
            max(holding["weight_bps"], holding["target_bps"])
            for holding in status_document["holdings"]
        ),
        default=0,
    )

    def is_outside(holding: Document) -> bool:
        return asset_range(holding).is_own and asset_range(holding).is_outside

    exposures = status_document.get("futures", {}).get("exposures", ())
    net_by_symbol = {exposure["symbol"]: money_text(exposure["net"]) for exposure in exposures}
    net_columns = [Column("net", "net exposure", "money")] if net_by_symbol else []
    return document_table(
        f"{title} at block {status_document['block']}: {total_text}",
        [
            *columns("HoldingDocument", "symbol", "amount", "price", "value", "weight_bps"),
            *net_columns,
            *columns("HoldingDocument", "target_bps"),
            Column("band_bps", "band", "percent"),
            Column("bar", "", "text"),
        ],
        status_document["holdings"],
        {
            "weight_bps": lambda holding: safe_text(
                bps_percent_text(holding["weight_bps"]), "bold red" if is_outside(holding) else ""
            ),
            "net": lambda holding: net_by_symbol.get(holding["symbol"], ""),
            "band_bps": lambda holding: own_range_text(holding, "band_bps"),
            "bar": lambda holding: WeightBar(
                holding["weight_bps"], holding["target_bps"], full_bps, is_outside(holding)
            ),
        },
    )


def _show_margin(console: Console, status_document: Document) -> None:
    """Print whether values and weights include the margin account; nothing without one."""
    margin_texts = [
        f"{coins(holding['margin_raw'], holding['decimals'])} {holding['symbol']}"
        for holding in status_document["holdings"]
        if "margin_raw" in holding
    ]
    if margin_texts:
        console.print(
            safe_text(
                f"Values and weights include margin: {', '.join(margin_texts)} (trimtab margin)"
            )
        )
    futures_summary = status_document.get("futures")
    if (
        futures_summary
        and not futures_summary["margin_in_weights"]
        and futures_summary["value"] != "0"
    ):
        margin_text = f"{money_text(futures_summary['value'])} {futures_summary['unit']}"
        margin_note = (
            f"The total includes margin of {margin_text}; weights are of the spot portfolio alone"
        )
        console.print(safe_text(margin_note))


def show_status(console: Console, status_document: Document, *, is_safe: bool = False) -> None:
    """Print a whole status."""
    if status_document["holdings"]:
        console.print(holdings_table(status_document))
        position_texts = [
            f"{coins(holding['lp_raw'], holding['decimals'])} {holding['symbol']}"
            for holding in status_document["holdings"]
            if holding["lp_raw"] != "0"
        ]
        if position_texts:
            console.print(
                safe_text(
                    f"Values and weights include liquidity positions: {', '.join(position_texts)}"
                    " (trimtab lp)"
                )
            )
    if unvalued_holdings := status_document.get("unvalued"):
        console.print(
            table(
                f"Holdings at block {status_document['block']}: total unknown",
                ("asset",),
                ("amount", "price"),
                rows=(
                    (
                        holding["symbol"],
                        "not readable" if holding["amount"] is None else amount(holding["amount"]),
                        "missing"
                        if holding["price"] is None
                        else format_figure(holding["price"], "price"),
                    )
                    for holding in unvalued_holdings
                ),
            )
        )
    _show_margin(console, status_document)
    console.print(safe_text(native_text(status_document["native"], is_safe=is_safe)))
    console.print(safe_text(format_trigger(status_document["trigger"])))
    if (minimum_total := status_document["least_total"]) is not None:
        console.print(
            safe_text(minimum_total["text"], "yellow" if minimum_total["enough"] is False else "")
        )
    for unreadable_item in status_document["quarantined"]:
        console.print(
            safe_text(
                f"Not readable: {unreadable_item['item']} {unreadable_item['address']}: {unreadable_item['why']}",
                "yellow",
            )
        )
    for token in status_document["screen"]:
        console.print(
            safe_text(
                f"In quarantine: {token['symbol']} {token['why']}. {token['remedy']}", "yellow"
            )
        )
    _show_price_alerts(console, status_document)
    for warning in status_document["warnings"]:
        console.print(safe_text(f"Note: {warning}", "yellow"))
    if status_document["excluded"]:
        console.print(excluded_holdings_table(status_document["excluded"]))
    if status_document["flows"]:
        console.print(transfers_table(status_document["flows"]))
    for standstill_text in _standstill_texts(status_document):
        console.print(safe_text(standstill_text, "bold yellow"))
    if status_document["zone"] is not None:
        console.print(zone_table(status_document["zone"], status_document["numeraire"]))
    console.print(decision_notice(status_document))


def _standstill_texts(status_document: Document) -> Iterator[str]:
    """Yield why nothing is sent: a pause, and a stop."""
    if status_document["paused"]:
        hardness = " hard" if status_document["pause_hard"] else ""
        yield (
            f"Paused{hardness}: {status_document['pause_reason']}."
            f" {as_sentence(pause_text(status_document['pause_hard']))} until: trimtab resume"
            f"{pause_exceptions(status_document)}"
        )
    if "stop" in status_document:
        yield f"{stop_text(status_document['stop'])}."


def _show_price_alerts(console: Console, status_document: Document) -> None:
    for holding in status_document["holdings"]:
        for alert_text in holding.get("price_alerts", ()):
            console.print(
                safe_text(f"Price alert: {alert_text}", "yellow" if ": fired" in alert_text else "")
            )


def native_text(native_document: Document, *, is_safe: bool = False) -> str:
    """Describe the native coin in one sentence."""
    text = f"Native coin: {amount(coins(native_document['native_wei'], 18))}"
    if native_document["kept_wei"] != "0":
        text += f", of which {coins(native_document['kept_wei'], 18)} are kept for gas"
    if native_document["counts_as_asset"]:
        wrapped_text = amount(coins(native_document["wrapped_raw"] or "0", 18))
        text += (
            f"; with {wrapped_text} wrapped it is the {native_document['symbol']} of the portfolio"
        )
    else:
        payer_text = (
            "who executes for the Safe pays the gas, and it" if is_safe else "it pays gas and"
        )
        text += f"; {payer_text} is not part of the portfolio"
    if native_document["top_up_wei"] is not None:
        text += f"; refilled up to {coins(native_document['top_up_wei'], 18)} by unwrapping"
    return text


def transactions_table(document: Document) -> FigureTable:
    """Return a table of sent transactions."""
    figure_table = table(
        "Transactions",
        ("kind", "status", "hash"),
        ("nonce", "block", "gas"),
        column_order=("kind", "nonce", "status", "block", "gas", "hash"),
    )
    for transaction in document["transactions"]:
        block_text = ""
        gas_text = ""
        if transaction["block"] is not None and transaction["block"] >= 0:
            block_text = str(transaction["block"])
            gas_text = f"{transaction['gas_used']:,}"
        figure_table.add_row(
            transaction["kind"],
            str(transaction["nonce"]),
            safe_text(transaction["status"], STATE_STYLES.get(transaction["status"], "yellow")),
            block_text,
            gas_text,
            transaction["hash"],
        )
    return figure_table


def realised_changes_table(document: Document, decimals_by_symbol: dict[str, int]) -> FigureTable:
    """Return a table of planned against realised change of each balance."""
    figure_table = table(
        "Planned against realised", ("token",), ("planned", "realised", "difference in base units")
    )
    for balance_change in document["realised"]:
        decimal_places = decimals_by_symbol[balance_change["symbol"]]
        planned_raw = balance_change["planned_raw"]
        actual_raw = balance_change["realised_raw"]
        figure_table.add_row(
            balance_change["symbol"],
            amount(coins(planned_raw, decimal_places)),
            amount(coins(actual_raw, decimal_places)),
            str(int(actual_raw) - int(planned_raw)),
        )
    return figure_table


def zone_table(zone_document: Document, numeraire: str) -> FigureTable:
    """Return a table of the zone: weight of each asset, beyond where it moves and what it is brought
    back to; cost of risk, of corrections, and the plan's trade-off.
    """
    risk_text = f"{cost_text(zone_document['risk'])} {numeraire} within {format_duration(zone_document['horizon_s'])}"
    figure_table = document_table(
        f"Zone: drift from the targets is a risk valued at {risk_text}, not money paid",
        columns(
            "ZoneAssetDocument",
            "symbol",
            "weight_bps",
            "target_bps",
            "trigger_bps",
            "no_trade_bps",
        ),
        zone_document["assets"],
        {
            "trigger_bps": lambda asset: own_range_text(asset, "trigger_bps"),
            "no_trade_bps": lambda asset: own_range_text(asset, "trigger_bps", "no_trade_bps"),
        },
    )
    notes = [
        text for asset in zone_document["assets"] if (text := correction_text(asset, numeraire))
    ]
    if beside_text := ranges_beside_targets(zone_document):
        notes.append(beside_text)
    plan = zone_document["plan"]
    if zone_document["measured"]:
        notes.append(zone_document["measured"])
    if plan is not None:
        cost_parts_text = ", ".join(
            f"{cost_name} {cost_text(plan[cost_name])}"
            for cost_name in ("fees", "impact", "skew", "gas", "approvals")
            if cost_name != "approvals" or float(plan[cost_name])
        )
        notes.append(
            f"A plan saves {cost_text(plan['saved_risk'])} {numeraire} of risk and costs"
            f" {cost_text(plan['cost'])}: {cost_parts_text}"
        )
    figure_table.note = "\n".join(notes)
    return figure_table


def decision_notice(document: Document) -> Notice:
    """Return the decision and its reason; while a status is paused or a proposal waits, first that."""
    kind = document["decision"]["kind"]
    title = {"adjustliquidity": "liquidity", "adjustfutures": "futures"}.get(kind, kind)
    reason = document["decision"]["reason"].removeprefix(f"{title}: ")
    waits_text = document.get("waits_for")
    if document.get("paused") and document.get("pause_reason"):
        why_text = document["pause_reason"].removeprefix("paused ")
        without_text = f"waits: {waits_text}" if waits_text else f"{title}: {reason}"
        return Notice(f"{why_text}. Without the pause: {without_text}", "paused", "yellow")
    if waits_text:
        return Notice(f"{waits_text}. Without it: {title}: {reason}", "waits", "yellow")
    return Notice(reason, title, KIND_STYLES.get(kind, "white"))


def format_trigger(trigger_document: Document) -> str:
    """Describe the trigger in one line."""
    clauses = [f"Trigger: {trigger_document['text']}, to {trigger_document['destination']}"]
    if trigger_document["bands"]:
        clauses.append(f"bands of single assets: {trigger_document['bands']}")
    if trigger_document["only"]:
        clauses.append(f"only = {trigger_document['only']}: {trigger_document['only_text']}")
    if trigger_document["next"]:
        clauses.append(f"next {trigger_document['next']}")
    return "; ".join(clauses)


def excluded_holdings_table(holdings: Sequence[Document]) -> FigureTable:
    """Return a table of excluded holdings."""
    return table(
        "Excluded",
        ("asset", "why"),
        ("amount",),
        column_order=("asset", "amount", "why"),
        rows=((holding["symbol"], holding["amount"], holding["why"]) for holding in holdings),
    )


def transfers_table(transfers: Sequence[Document]) -> FigureTable:
    """Return a table of transfers, newest first."""
    figure_table = table("Unexplained balance changes", ("id", "change", "status"))
    for transfer in transfers:
        status = (
            "counted as a loss until confirmed" if transfer["counts_as_loss"] else "unconfirmed"
        )
        figure_table.add_row(
            str(transfer["id"] or ""),
            safe_text(transfer["text"], "bold red" if transfer["halts"] else ""),
            transfer["kind"] or status,
        )
    return figure_table
