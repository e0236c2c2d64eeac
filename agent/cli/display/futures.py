"""Tables of a simulated futures book, and of its stress scenarios."""

from __future__ import annotations

from datetime import UTC, datetime

from agent.cli.display.output import Document, out, say

PROFIT = (
    ("price", ""),
    ("slippage", "-"),
    ("funding", "-"),
    ("fees", "-"),
    ("penalties", "-"),
    ("insured", ""),
)
"""Components of a profit, with "-" for those that reduce it."""
NAMES = {"penalties": "liquidation penalties", "insured": "the venue's insurance"}
BOOKS = ("agent", "held")


def show_book(made: Document) -> None:
    """Print the books with and without the agent."""
    from agent.cli.display.tables import money, table

    books = [made[name] for name in BOOKS]
    shown = table(f"Futures, {made['bars']} bars", ("what",), BOOKS)
    shown.add_row("start value", *(money(made["start_value"]) for _ in books))
    shown.add_row("final value", *(money(book["final_value"]) for book in books))
    for name, sign in PROFIT:
        parts = [book["profit"][name] for book in books]
        if sign or any(part != "0" for part in parts):
            texts = [_negated(part) if sign else part for part in parts]
            shown.add_row(f"from {NAMES.get(name, name)}", *map(money, texts))
    for name, key in (("Sharpe ratio", "sharpe"), ("maximum drawdown", "max_drawdown")):
        shown.add_row(name, *(_figure(key, book["figures"][key]) for book in books))
    shown.add_row("highest leverage", *(_multiple(book["max_leverage"]) for book in books))
    shown.add_row(
        f"bars above {_multiple(made['max_leverage'])}",
        *(
            f"{book['bars_above_limit']} ({book['longest_above_limit']} consecutive)"
            for book in books
        ),
    )
    shown.add_row("orders filled", *(str(len(book["fills"])) for book in books))
    shown.add_row("liquidations", *(str(len(book["liquidations"])) for book in books))
    out.print(shown)
    for name, book in zip(BOOKS, books, strict=True):
        _show_events(name, book)
    for hedge in made["hedges"]:
        _show_hedge(hedge)
    for note in made["notes"]:
        say(note)
    say(
        f"futures config {made['config_hash'][:16]}, data {made['data_hash'][:16]},"
        f" seed {made['seed']}"
    )


def show_futures_stress(made: Document) -> None:
    """Print losses and liquidations of both books by scenario."""
    from agent.cli.display.tables import table

    shown = table(
        f"Futures, {made['bars']} bars; losses of {', '.join(BOOKS)} as shares of the start value",
        ("case",),
        (
            "paths",
            *(f"{kind} {name}" for kind in ("mean", "worst", "liquidated") for name in BOOKS),
        ),
    )
    for case in made["cases"]:
        books = [case[name] for name in BOOKS]
        shown.add_row(
            case["name"],
            str(case["paths"]),
            *(f"{float(book[key]):.2%}" for key in ("mean_loss", "worst_loss") for book in books),
            *(str(book["liquidated_paths"]) for book in books),
        )
    out.print(shown)
    longest = max(made["cases"], key=lambda case: int(case["agent"]["longest_above_limit"]))
    say(
        f"The agent's book was above {_multiple(made['max_leverage'])} for"
        f" {longest['agent']['longest_above_limit']} consecutive bars at most ({longest['name']})."
    )
    say(
        f"futures config {made['config_hash'][:16]}, data {made['data_hash'][:16]},"
        f" seed {made['seed']}"
    )


def _show_events(name: str, book: Document) -> None:
    from agent.cli.display.tables import money

    for one in book["liquidations"][:1]:
        day = datetime.fromtimestamp(one["time"], UTC)
        say(f"{name}: first liquidated on {day:%Y-%m-%d %H:%M} UTC")
    if book["deposited"] != "0":
        say(f"{name}: {money(book['deposited'])} deposited from the wallet")
    for why, times in {**book["unfilled"], **book["refused"]}.items():
        say(f"{name}: {times} orders unfilled or reduced: {why}")


def _show_hedge(one: Document) -> None:
    from agent.cli.display.tables import money

    until = "still open"
    if one["closed"] is not None:
        until = f"closed {datetime.fromtimestamp(one['closed'], UTC):%Y-%m-%d %H:%M}: {one['end']}"
    earned = "unknown, a part was liquidated" if one["profit"] is None else money(one["profit"])
    opened = datetime.fromtimestamp(one["opened"], UTC)
    say(
        f"hedge of {one['size'].lstrip('-')} {one['symbol']}, opened {opened:%Y-%m-%d %H:%M} UTC,"
        f" {until}; earned excluding funding: {earned}"
    )


def _negated(text: str) -> str:
    if text == "0":
        return text
    return text.removeprefix("-") if text.startswith("-") else f"-{text}"


def _multiple(text: str | None) -> str:
    return "unlimited" if text is None else f"{float(text):.2f}x"


def _figure(key: str, value: str | None) -> str:
    if value is None:
        return "–"
    return f"{float(value):.2f}" if key == "sharpe" else f"{float(value):.2%}"
