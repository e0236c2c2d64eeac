"""How the documents look to people: Rich tables for holdings, plans, costs, verdicts, transactions."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

Document = dict[str, Any]
BAR_CELLS = 20


def bps(value: int) -> str:
    """4250 -> 42.50 %."""
    return f"{value / 100:.2f} %"


def amount(text: str, places: int = 6) -> str:
    """A decimal string with thousands separators, cut to `places` for reading."""
    whole, _, part = text.lstrip("-").partition(".")
    shown = part[:places].rstrip("0")
    return ("-" if text.startswith("-") else "") + f"{int(whole or 0):,}" + (f".{shown}" if shown else "")


def _bar(weight_bps: int, target_bps: int, outside: bool) -> Text:
    """Weight as a bar, the target as a mark in it."""
    filled, mark = round(weight_bps / 10_000 * BAR_CELLS), round(target_bps / 10_000 * BAR_CELLS)
    cells = ["█" if i < filled else "░" for i in range(BAR_CELLS)]
    cells[min(mark, BAR_CELLS - 1)] = "┃"
    return Text("".join(cells), style="red" if outside else "green")


def holdings(document: Document, title: str = "Holdings") -> Table:
    """Balances, prices, weights against targets and bands."""
    table = Table(
        title=f"{title} at block {document['block']}: {amount(document['total_value'], 2)} {document['numeraire']}", title_justify="left"
    )
    for name in ("token", "amount", "price", "value", "weight", "target", "band", ""):
        table.add_column(name, justify="left" if name in ("token", "") else "right")
    for item in document["holdings"]:
        low, high = item["band_bps"]
        weight = item["weight_bps"]
        outside = not low <= weight <= high
        table.add_row(
            item["symbol"],
            amount(item["amount"]),
            amount(item["price"], 4),
            amount(item["value"], 2),
            Text(bps(weight), style="bold red" if outside else ""),
            bps(item["target_bps"]),
            f"{low / 100:g}-{high / 100:g}" if (low, high) != (0, 10_000) else "none",
            _bar(weight, item["target_bps"], outside),
        )
    return table


def decision(document: Document) -> Panel:
    """What would be done, and why."""
    kind = document["decision"]["kind"]
    style = {"hold": "green", "rebalance": "yellow", "halt": "red"}.get(kind, "white")
    return Panel(Text(document["decision"]["reason"]), title=kind, border_style=style, title_align="left")


def legs(document: Document, decimals: dict[str, int]) -> Table:
    """The swaps of a plan."""
    table = Table(title="Swaps", title_justify="left")
    for name in ("#", "pool", "sell", "buy", "at least", "fee", "impact"):
        table.add_column(name, justify="left" if name in ("#", "pool") else "right")
    for number, leg in enumerate(document["legs"], 1):
        sold, bought = decimals[leg["token_in"]], decimals[leg["token_out"]]
        venue = leg["venue"].removeprefix("uniswap_")
        table.add_row(
            str(number) + (" ↳" if leg["source"] == "router" else ""),
            f"{venue} {leg['pool'][:6]}…{leg['pool'][-4:]}",
            f"{amount(_coins(leg['amount_in_raw'], sold))} {leg['token_in']}",
            f"{amount(_coins(leg['amount_out_raw'], bought))} {leg['token_out']}",
            amount(_coins(leg["min_out_raw"], bought)),
            f"{leg['fee_pips'] / 10_000:g} %",
            f"{leg['impact_bps']} bps",
        )
    return table


def costs(document: Document) -> Table:
    """What the plan costs, in the numeraire."""
    table = Table(title="Cost", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name in ("fees", "impact", "skew", "gas", "total"):
        table.add_row(name, amount(document["cost"][name], 4), style="bold" if name == "total" else "")
    table.add_row("turnover", amount(document["turnover"], 2))
    if document.get("gap_bps") is not None:
        table.add_row("gap to the optimum", f"{document['gap_bps']:.3f} bps")
    return table


def verdicts(document: Document) -> Table:
    """Every guard, passed or not."""
    table = Table(title="Guards", title_justify="left")
    for name in ("guard", "measured", "limit", ""):
        table.add_column(name)
    for item in document["verdicts"]:
        mark = Text("ok", style="green") if item["passed"] else Text("refused", style="bold red")
        table.add_row(item["guard"], item["measured"], item["limit"], mark)
    return table


def weights(before: dict[str, int], after: dict[str, int], targets: dict[str, int], title: str = "Weights") -> Table:
    """Weights before and after, beside the targets."""
    table = Table(title=title, title_justify="left")
    for name in ("token", "before", "after", "target"):
        table.add_column(name, justify="left" if name == "token" else "right")
    for symbol, value in before.items():
        table.add_row(symbol, bps(value), bps(after[symbol]) if symbol in after else "", bps(targets[symbol]) if symbol in targets else "")
    return table


def transactions(document: Document) -> Table:
    """What was sent."""
    table = Table(title="Transactions", title_justify="left")
    for name in ("kind", "nonce", "status", "block", "gas", "hash"):
        table.add_column(name, justify="right" if name in ("nonce", "block", "gas") else "left")
    for item in document["transactions"]:
        style = {"final": "green", "mined": "green", "reverted": "red"}.get(item["status"], "yellow")
        table.add_row(
            item["kind"], str(item["nonce"]), Text(item["status"], style=style), str(item["block"]), f"{item['gas_used']:,}", item["hash"]
        )
    return table


def realised(document: Document, decimals: dict[str, int]) -> Table:
    """Planned against realised change of each balance."""
    table = Table(title="Planned against realised", title_justify="left")
    for name in ("token", "planned", "realised", "difference (base units)"):
        table.add_column(name, justify="left" if name == "token" else "right")
    for item in document["realised"]:
        places = decimals[item["symbol"]]
        planned, got = item["planned_raw"], item["realised_raw"]
        table.add_row(item["symbol"], amount(_coins(planned, places)), amount(_coins(got, places)), str(int(got) - int(planned)))
    return table


def skipped(document: Document) -> RenderableType:
    """What the plan leaves undone."""
    lines = [Text(f"Left out: {item['what']}: {item['why']}", style="yellow") for item in document["skipped"]]
    return Group(*lines)


def show_plan(console: Console, document: Document, decimals: dict[str, int]) -> None:
    """A whole plan."""
    console.print(decision(document))
    if document["legs"]:
        console.print(legs(document, decimals))
        console.print(costs(document))
    if document["verdicts"]:
        console.print(verdicts(document))
    if document["skipped"]:
        console.print(skipped(document))
    if document["outcome"] == "refused":
        console.print(Panel(Text(document["reason"]), title="refused: nothing was sent", border_style="red", title_align="left"))


def _coins(raw: str, decimals: int) -> str:
    from agent.units import decimal_text

    return decimal_text(int(raw), decimals)


def parameters(found: dict[str, str]) -> Table:
    """Every parameter that binds what is about to be sent."""
    table = Table(title="Parameters", title_justify="left", show_header=False)
    table.add_column()
    table.add_column()
    for name, value in found.items():
        table.add_row(name, Text(value))
    return table
