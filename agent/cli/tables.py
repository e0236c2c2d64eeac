"""How the documents look to people: Rich tables for holdings, plans, costs, verdicts, transactions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from agent.cli import actions, flows, triggers
from agent.cli.bar import BAR_CELLS, FEWEST_CELLS, Bar
from agent.cli.output import cell
from agent.units import decimal_text

Document = dict[str, Any]
_ADDRESS = re.compile("0x[0-9a-fA-F]{40}")
KIND_STYLES = {"hold": "green", "rebalance": "yellow", "adjustliquidity": "yellow", "halt": "red"}
STATE_STYLES = {"final": "green", "mined": "green", "reverted": "red", "cancelled": "yellow", "replaced": "red"}


def bps(value: int) -> str:
    """4250 -> 42.50 %."""
    return f"{value / 100:.2f} %"


def amount(text: str, places: int = 6) -> str:
    """A decimal string with thousands separators, cut to `places` for reading; what is then zero has no sign."""
    whole, _, part = text.lstrip("-").partition(".")
    shown = part[:places].rstrip("0")
    below = text.startswith("-") and (int(whole or 0) or shown)
    return ("-" if below else "") + f"{int(whole or 0):,}" + (f".{shown}" if shown else "")


def money(text: str) -> str:
    """A decimal string with thousands separators and two places, cut, for reading."""
    return "{0}.{2:0<2}".format(*amount(text, 2).partition("."))


def brief(text: str) -> str:
    """A decimal string at six significant figures, two places at least, for reading; the JSON has them all."""
    whole, _, part = text.lstrip("-").partition(".")
    figures = len(whole) if int(whole or 0) else -(len(part) - len(part.lstrip("0")))
    return amount(text, max(2, 6 - figures))


def table(title: str, left: Sequence[str], right: Sequence[str] = (), *, order: Sequence[str] = ()) -> Table:
    """An empty table; `left` and `right` name the columns by alignment, `order` their order (left first unless given)."""
    made = Table(title=cell(title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, header_style="dim", padding=(0, 1, 0, 0))
    for name in order or (*left, *right):
        made.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=name in right)
    return made


def holdings(document: Document, title: str = "Holdings") -> Table:
    """Balances, prices, weights against targets and bands."""
    total = f"{money(document['total_value'])} {document['numeraire']}"
    full_bps = max((max(item["weight_bps"], item["target_bps"]) for item in document["holdings"]), default=0)
    made = table(
        f"{title} at block {document['block']}: {total}", ("token",), ("amount", "price", "value", "weight", "target", "band"), order=()
    )
    made.add_column("", ratio=1, min_width=FEWEST_CELLS, max_width=BAR_CELLS)
    for item in document["holdings"]:
        low, high = item["band_bps"]
        outside = not low <= item["weight_bps"] <= high
        made.add_row(
            cell(item["symbol"]),
            amount(item["amount"]),
            amount(item["price"], 4),
            money(item["value"]),
            cell(bps(item["weight_bps"]), "bold red" if outside else ""),
            bps(item["target_bps"]),
            f"{low / 100:g}-{high / 100:g}" if (low, high) != (0, 10_000) else "none",
            Bar(item["weight_bps"], item["target_bps"], full_bps, outside),
        )
    return made


def show_status(console: Console, document: Document) -> None:
    """A whole status."""
    if document["holdings"]:
        console.print(holdings(document))
        in_positions = [
            f"{_coins(item['lp_raw'], item['decimals'])} {item['symbol']}" for item in document["holdings"] if item["lp_raw"] != "0"
        ]
        if in_positions:
            console.print(cell(f"Values and weights count what lies in liquidity positions too: {', '.join(in_positions)} (trimtab lp)"))
    console.print(cell(native(document["native"])))
    console.print(cell(triggers.line(document["trigger"])))
    for item in document["quarantined"]:
        console.print(cell(f"Not readable: {item['item']} {item['address']}: {item['why']}", "yellow"))
    for one in document["screen"]:
        console.print(cell(f"In quarantine: {one['symbol']} {one['why']}. {one['remedy']}", "yellow"))
    for warning in document["warnings"]:
        console.print(cell(f"Note: {warning}", "yellow"))
    if document["flows"]:
        console.print(flows.table(document["flows"]))
    if document["paused"]:
        paused = f"Paused{' hard' * document['pause_hard']}: {document['pause_reason']}. Nothing is sent until: trimtab resume"
        console.print(cell(paused, "bold yellow"))
    if document["zone"] is not None:
        console.print(zone(document["zone"], document["numeraire"]))
    console.print(decision(document))


def native(found: Document) -> str:
    """The native coin in one sentence."""
    kept = "" if found["kept_wei"] == "0" else f", of which {_coins(found['kept_wei'], 18)} are kept for gas"
    beside = f"Native coin: {amount(_coins(found['native_wei'], 18))}{kept}"
    refill = "" if found["top_up_wei"] is None else f"; refilled up to {_coins(found['top_up_wei'], 18)} by unwrapping"
    if not found["counts"]:
        return f"{beside}; it pays gas and does not count{refill}"
    return f"{beside}; with {amount(_coins(found['wrapped_raw'] or '0', 18))} wrapped it is the {found['symbol']} of the portfolio{refill}"


def zone(found: Document, numeraire: str) -> Table:
    """To where each asset is brought back, beyond what it is moved, what standing off costs, and a plan on the scales."""
    risk = f"{amount(found['risk'], 4)} {numeraire} of risk within {found['horizon_s'] / 86_400:g} d"
    made = table(f"Zone: standing off the targets costs {risk}", ("token",), ("brought back to", "moved beyond"))
    for item in found["assets"]:
        edges = (item["no_trade_bps"], item["trigger_bps"])
        made.add_row(cell(item["symbol"]), *(f"{low / 100:g}-{high / 100:g} %" for low, high in edges))
    plan, told = found["plan"], [found["measured"]] if found["measured"] else []
    if plan is not None:
        parts = ", ".join(f"{name} {amount(plan[name], 4)}" for name in ("fees", "impact", "skew", "gas", "approvals"))
        told.append(f"A plan saves {amount(plan['saved_risk'], 4)} {numeraire} of risk and costs {amount(plan['cost'], 4)}: {parts}")
    made.caption, made.caption_justify = "\n".join(told), "left"
    return made


def decision(document: Document) -> Panel:
    """What would be done, and why."""
    kind = document["decision"]["kind"]
    title = {"adjustliquidity": "liquidity"}.get(kind, kind)
    return _panel(document["decision"]["reason"], title, KIND_STYLES.get(kind, "white"))


def _panel(text: str, title: str, style: str) -> Panel:
    return Panel(cell(text), title=cell(title, f"bold {style}"), border_style=style, title_align="left", box=box.ROUNDED)


def legs(document: Document, decimals: dict[str, int]) -> Table:
    """The swaps of a plan."""
    made = table("Swaps", ("#", "pool"), ("sell", "buy", "at least", "fee", "impact"))
    made.columns[1].no_wrap = True
    for number, leg in enumerate(document["legs"], 1):
        sold, bought = decimals[leg["token_in"]], decimals[leg["token_out"]]
        venue = leg["venue"].removeprefix("uniswap_")
        made.add_row(
            str(number) + (" ↳" if leg["source"] == "router" else ""),
            f"{venue} {_short(leg['pool'])}",
            cell(f"{brief(_coins(leg['amount_in_raw'], sold))} {leg['token_in']}"),
            cell(f"{brief(_coins(leg['amount_out_raw'], bought))} {leg['token_out']}"),
            brief(_coins(leg["min_out_raw"], bought)),
            f"{leg['fee_pips'] / 10_000:g}%",
            f"{leg['impact_bps']} bps",
        )
    return made


def show_quote(console: Console, document: Document, decimals: dict[str, int]) -> None:
    """A whole quote."""
    console.print(legs(document, decimals))
    sold, bought = document["token_in"], document["token_out"]
    given, got = (
        amount(_coins(document[key], decimals[token]), 18) for key, token in (("amount_in_raw", sold), ("amount_out_raw", bought))
    )
    console.print(cell(f"{given} {sold} would pay {got} {bought}; fees {amount(document['fee'])} {document['numeraire']}"))


def costs(document: Document) -> Table:
    """What the plan costs, in the numeraire."""
    made = table(f"Cost in {document['numeraire']}", ("part",), ("amount",))
    made.show_header = False
    for name in ("fees", "impact", "skew", "gas", "total"):
        made.add_row(name, amount(document["cost"][name], 4), style="bold" if name == "total" else "")
    made.add_row("turnover", money(document["turnover"]))
    if document.get("gap_bps") is not None:
        made.add_row("gap to the proven best", f"{document['gap_bps']:.3f} bps of turnover")
    return made


def verdicts(document: Document) -> Table:
    """Every guard, passed or not."""
    made = table("Guards", ("", "guard", "measured", "limit"))
    for item in document["verdicts"]:
        mark = cell("✓", "green") if item["passed"] else cell("refused", "bold red")
        measured = _ADDRESS.sub(lambda found: _short(found[0]), item["measured"]) if item["passed"] else item["measured"]
        made.add_row(mark, cell(item["guard"]), cell(measured), cell(item["limit"]))
    return made


def weights(before: dict[str, int], after: dict[str, int], targets: dict[str, int], title: str = "Weights") -> Table:
    """Weights before and after, beside the targets."""
    made = table(title, ("token",), ("before", "after", "target"))
    for symbol, value in before.items():
        made.add_row(
            cell(symbol), bps(value), bps(after[symbol]) if symbol in after else "", bps(targets[symbol]) if symbol in targets else ""
        )
    return made


def transactions(document: Document) -> Table:
    """What was sent."""
    made = table(
        "Transactions", ("kind", "status", "hash"), ("nonce", "block", "gas"), order=("kind", "nonce", "status", "block", "gas", "hash")
    )
    for item in document["transactions"]:
        mined = item["block"] is not None and item["block"] >= 0
        made.add_row(
            item["kind"],
            str(item["nonce"]),
            cell(item["status"], STATE_STYLES.get(item["status"], "yellow")),
            str(item["block"]) if mined else "",
            f"{item['gas_used']:,}" if mined else "",
            cell(item["hash"]),
        )
    return made


def realised(document: Document, decimals: dict[str, int]) -> Table:
    """Planned against realised change of each balance."""
    made = table("Planned against realised", ("token",), ("planned", "realised", "difference in base units"))
    for item in document["realised"]:
        places = decimals[item["symbol"]]
        planned, got = item["planned_raw"], item["realised_raw"]
        made.add_row(cell(item["symbol"]), amount(_coins(planned, places)), amount(_coins(got, places)), str(int(got) - int(planned)))
    return made


def show_plan(console: Console, document: Document, decimals: dict[str, int], with_decision: bool = True) -> None:
    """A whole plan."""
    if with_decision:
        console.print(decision(document))
    if document["legs"]:
        console.print(legs(document, decimals))
    if document["actions"]:
        console.print(actions.table(document["actions"], decimals))
        say_next = "After each of them everything is looked at and planned anew; what then follows is sent too, within the same limits."
        console.print(cell(say_next))
    if document["legs"] or document["actions"]:
        console.print(costs(document))
    if document["zone"] is not None:
        console.print(zone(document["zone"], document["numeraire"]))
    if document["flows"]:
        console.print(flows.table(document["flows"]))
    if document["verdicts"]:
        console.print(verdicts(document))
    for item in document["skipped"]:
        console.print(cell(f"Left out: {item['what']}: {item['why']}", "yellow"))
    if document["outcome"] == "refused":
        console.print(_panel(document["reason"], "refused: nothing was exchanged", "red"))


def parameters(found: dict[str, str]) -> Table:
    """Every parameter that binds what is about to be sent."""
    made = table("Parameters", ("name", "value"))
    made.show_header = False
    for name, value in found.items():
        made.add_row(name, cell(value))
    return made


def checks(document: Document) -> Table:
    """Doctor's checks."""
    marks = {"ok": cell("✓", "green"), "warn": cell("note", "yellow"), "fail": cell("fails", "bold red")}
    made = table("Doctor", ("", "check", "found", "what to do"))
    for row in document["checks"]:
        made.add_row(marks[row["state"]], cell(row["check"]), cell(row["found"]), cell(row["remedy"]))
    return made


def contracts(document: Document) -> Table:
    """What trust would pin."""
    styles = {"new": "yellow", "CHANGED": "bold red"}
    made = table(f"Contracts at block {document['block']}", ("state", "address", "what"))
    for row in document["contracts"]:
        state = cell(row["state"], styles.get(row["state"], ""))
        made.add_row(state, cell(row["address"]), cell(row["what"]))
    return made


def _short(hexed: str) -> str:
    return f"{hexed[:6]}…{hexed[-4:]}"


def _coins(raw: str, decimals: int) -> str:
    return decimal_text(int(raw), decimals)
