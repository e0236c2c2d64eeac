"""Under which heading of `trimtab --help` each command stands."""

from __future__ import annotations

import typer

PANELS = {
    "Try it, without a key": ("demo", "localchain", "whatif"),
    "Set up": ("init", "templates", "doctor", "trust", "wallet", "rehearse"),
    "Look": ("status", "plan", "quote", "history", "explain", "pnl", "alerts"),
    "Trade: nothing is sent without --send": ("rebalance", "run", "swap", "limit", "orders", "strategies", "lp"),
    "Money in, money out, the end": ("invest", "withdraw", "flows", "stop"),
    "When something is wrong": ("pause", "resume", "txs", "cancel", "reconcile", "adopt", "revoke", "db"),
    "On recorded prices, and on paper": ("backtest", "tune", "stress", "paper", "replay"),
    "Settings, data, books": ("edit", "export-profile", "import-profile", "weights", "prices", "oracle", "books", "export"),
}
"""Headings in their order, with the commands below each."""


def arrange(app: typer.Typer) -> None:
    """Puts every command of the app below its heading. Raises KeyError for one without a heading.

    Typer lists commands before groups, and headings by their first command: each heading has one that is no group.
    """
    places = {name: panel for panel, names in PANELS.items() for name in names}
    order = list(places)
    named = {id(info): info.name or _name(info) for info in app.registered_commands}
    for info in app.registered_commands:
        info.rich_help_panel = places[named[id(info)]]
    app.registered_commands.sort(key=lambda info: order.index(named[id(info)]))
    for group in app.registered_groups:
        group.rich_help_panel = places[str(group.name)]


def _name(info: typer.models.CommandInfo) -> str:
    """As Typer makes it of the function's name."""
    if info.callback is None:
        raise ValueError("a command without a function")
    return info.callback.__name__.strip("_").replace("_", "-")
