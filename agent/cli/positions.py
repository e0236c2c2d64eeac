"""Commands about orders, liquidity positions and strategies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent import app as api
from agent.cli.display.terminal import (
    READING_CHAIN_TEXT,
    Document,
    ask,
    emit,
    err,
    is_interactive,
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
    Yes,
    command_group,
    mark_paper,
    paper_or_live,
)
from agent.errors import EXIT_REFUSED, ConfigError
from agent.figures import columns
from agent.units import format_bps, minute_text

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from agent.cli.display.tables import FigureTable
    from agent.config.loaded import LoadedConfig


orders_group = command_group(
    Heading.TRADE,
    70,
    "orders",
    "Entry prices, stop losses, take profits, trailing stops and price alerts.",
    has_default=True,
)
Subject = Annotated[str, typer.Argument(help="Symbol of an asset, portfolio, or all.")]
LEVEL_HINT = 'A price such as 1500, a distance such as 10%, or "off".'


@orders_group.callback()
def orders(
    context: typer.Context,
    config: ConfigPath = DEFAULT_CONFIG,
    paper: OnPaper = False,
    as_json: AsJson = False,
) -> None:
    """Lists all orders with level, current price, distance, stage and the time it began. Changes
    nothing.
    """
    if context.invoked_subcommand is not None:
        if paper:
            raise ConfigError(
                "--paper: here it lists the paper portfolio's orders",
                "of arm and disarm write it behind them; levels are those of the config",
            )
        return
    from agent.cli.display.order_tables import show_orders

    with show_spinner(READING_CHAIN_TEXT), api.open_agent(paper_or_live(config, paper)) as agent:
        document = mark_paper(api.standing_orders(agent), paper)
    emit(document, as_json, lambda: show_orders(document))


@orders_group.command("set")
def set_(
    subject: Annotated[str, typer.Argument(help="Symbol of an asset, or portfolio.")],
    entry: Annotated[
        str | None, typer.Option(help=f"Buy only at or below it. {LEVEL_HINT}")
    ] = None,
    stop_loss: Annotated[
        str | None, typer.Option(help=f"Sell all of it at or below. {LEVEL_HINT}")
    ] = None,
    take_profit: Annotated[
        str | None, typer.Option(help=f"Sell all of it at or above. {LEVEL_HINT}")
    ] = None,
    trailing_stop: Annotated[
        str | None,
        typer.Option(
            help="Sell all of it this far below its highest price: 10%, or 300 in the numeraire, or"
            ' "off".'
        ),
    ] = None,
    alert_above: Annotated[
        str | None, typer.Option(help=f"Send a message at or above it. {LEVEL_HINT}")
    ] = None,
    alert_below: Annotated[
        str | None, typer.Option(help=f"Send a message at or below it. {LEVEL_HINT}")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Shows changed order levels, asks, and writes them to the config file. A run uses them before
    it acts again; trimtab orders lists them.
    """
    levels_by_kind = {
        "entry": entry,
        "stop_loss": stop_loss,
        "take_profit": take_profit,
        "trailing_stop": trailing_stop,
        "alert_above": alert_above,
        "alert_below": alert_below,
    }
    given_levels = {kind: level for kind, level in levels_by_kind.items() if level is not None}
    if not given_levels:
        raise ConfigError(
            "orders set: no level given",
            f"for example: trimtab orders set {subject} --stop-loss 10%",
        )
    with show_spinner(READING_CHAIN_TEXT) as spinner:

        def confirm_levels(document: Document, implausible_levels: Sequence[str]) -> bool:
            if yes or (implausible_levels and not is_interactive()):
                return yes
            require_answerable(yes)
            with spinner.hidden():
                for line in (*document["notes"], *_level_lines(document)):
                    note(line)
                hint = ' A share is "12%".' if implausible_levels else ""
                return ask(f"Write {'this' if len(document['changes']) == 1 else 'these'}?{hint}")

        document = api.set_orders(config, subject, given_levels, confirm_levels)

    def show() -> None:
        for line in document["notes"]:
            note(f"note: {line}")
        for line in _level_lines(document):
            say(line)
        if not document["changes"]:
            say("The config already has this value.")
        else:
            note(
                "A running trimtab run applies it before it acts again, a paper run when it is"
                " started again. A new order is armed by its"
                " next cycle, or by trimtab rebalance, also without --send."
            )

    emit(document, as_json, show)


def _level_lines(document: Document) -> list[str]:
    return [
        f"{kind} of {document['subject']}: {old_level or 'off'} -> {new_level or 'off'}"
        for kind, (old_level, new_level) in document["changes"].items()
    ]


@orders_group.command()
def arm(
    subject: Subject,
    config: ConfigPath = DEFAULT_CONFIG,
    paper: OnPaper = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Re-arms orders. The next cycle sets their levels from the current price, and the next
    rebalance buys the asset back.
    """
    _change_orders("arm", subject, paper_or_live(config, paper), yes, as_json)


@orders_group.command()
def disarm(
    subject: Subject,
    kind: Annotated[
        list[str] | None,
        typer.Option("--only", help="A kind, such as stop_loss or alert_above; repeatable."),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    paper: OnPaper = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Disarms orders until re-armed. The next rebalance buys back the assets that they sold."""
    _change_orders("disarm", subject, paper_or_live(config, paper), yes, as_json, kind or ())


def _change_orders(
    verb: str,
    subject: str,
    config: LoadedConfig | Path,
    yes: bool,
    as_json: bool,
    kinds: list[str] | tuple[str, ...] = (),
) -> None:
    from agent.model import OrderKind

    kind_names = [kind.value for kind in OrderKind]
    if unknown_kinds := [kind for kind in kinds if kind not in kind_names]:
        raise ConfigError(
            f"--only: {unknown_kinds[0]!r} is not a kind of order",
            f"choose from {', '.join(kind_names)}",
        )
    require_answerable(yes)
    with show_spinner(READING_CHAIN_TEXT) as spinner, api.open_agent(config) as agent:
        with spinner.hidden():
            if not yes and not ask(
                f"{verb.capitalize()} the orders of {subject}? The next rebalance buys back the"
                " assets that they sold, one with an armed entry only at or below it"
            ):
                raise typer.Exit(EXIT_REFUSED)
        document: Document
        if verb == "arm":
            document = api.arm_orders(agent, subject)
        else:
            document = api.disarm_orders(agent, subject, [OrderKind(kind) for kind in kinds])
        with spinner.hidden():
            emit(document, as_json, lambda: _show_order_changes(document))


def _show_order_changes(document: Document) -> None:
    is_armed = "armed" in document
    for order in document["armed" if is_armed else "disarmed"]:
        state_text = "is armed at the next cycle" if is_armed else "is disarmed"
        say(f"{order['kind']} of {order['subject']} {state_text}")
    subjects_with_entry = {
        order["subject"] for order in document.get("armed", ()) if order["kind"] == "entry"
    }
    for subject in document["reenabled"]:
        condition = ", only at or below its entry" if subject in subjects_with_entry else ""
        say(f"The next rebalance buys back what was sold of {subject}{condition}")
    for stale_text in document["stale"]:
        note(stale_text)


lp_group = command_group(Heading.TRADE, 60, "lp", "Liquidity positions.", has_default=True)


@lp_group.callback()
def lp(
    context: typer.Context, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False
) -> None:
    """Lists liquidity positions: value, impermanent loss so far and expected, fees, loss versus
    rebalancing; and ignored positions.
    """
    if context.invoked_subcommand is not None:
        return
    from agent.app.positions.holdings import liquidity_document

    with show_spinner(READING_CHAIN_TEXT), api.open_agent(config) as agent:
        report = api.read_liquidity_report(agent)
    document = liquidity_document(report)
    emit(document, as_json, lambda: show_liquidity(document))


@lp_group.command()
def take(
    number: Annotated[str, typer.Argument(help="Number of a V3 position of the wallet.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Starts counting a position as the agent's own, for example after restoring a store."""
    with show_spinner(READING_CHAIN_TEXT), api.open_agent(config) as agent:
        document = api.adopt_position(agent, number)
    emit(
        document,
        as_json,
        lambda: say(f"{document['position']} now counts as part of the portfolio."),
    )


@lp_group.command()
def forget(
    which: Annotated[str, typer.Argument(help="Number of a V3 position, or address of a pair.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Stops counting a position that was given away or should be ignored. Sends nothing."""
    document = api.forget_position(config, which)
    emit(document, as_json, lambda: say(f"{document['position']} is no longer counted."))


def show_liquidity(document: Document) -> None:
    """Print positions, forecasts, totals with their limits, and ignored positions."""
    if document["positions"]:
        out.print(_positions_table(document))
        out.print(_payouts_table(document))
        out.print(_forecasts_table(document))
    elif document["unreadable"]:
        say("No confirmed liquidity position could be read.")
    else:
        say("The config lists no liquidity positions.")
    if document["targets"]:
        out.print(_targets_table(document))
    for total_key, title in (("expected_loss", "Expected loss"), ("weight", "In liquidity")):
        say(f"{title}: {_total_text(document[total_key], document['numeraire'])}")
    for message in (*document["unreadable"], *document["warnings"]):
        out.print(safe_text(f"Note: {message}", "yellow"))
    for position in document["ignored"]:
        tokens_text = " and ".join(position["tokens"])
        out.print(
            safe_text(
                f"Ignored, not confirmed in the config: {position['position']}, liquidity"
                f" {position['liquidity']} of {tokens_text}",
                "yellow",
            )
        )
    if document["ignored_more"]:
        out.print(
            safe_text(
                f"Ignored, not read: {document['ignored_more']} more balances or positions",
                "yellow",
            )
        )


def _positions_table(document: Document) -> FigureTable:
    from agent.cli.display import tables

    return tables.document_table(
        f"Liquidity at block {document['block']}, in {document['numeraire']}",
        columns(
            "PositionDocument",
            "position",
            "state",
            "value",
            "hold_value",
            "loss",
            "loss_bps",
            "fees",
            "lvr_per_day",
            "pool_deviation_bps",
        ),
        document["positions"],
        {"position": _position_cell},
    )


def _targets_table(document: Document) -> FigureTable:
    from agent.cli.display import tables

    def pool_text(target: Document) -> str:
        return f"{'/'.join(target['tokens'])} {target['fee_pips'] / 10_000:g} %"

    def due_text(target: Document) -> str:
        skipped_texts = (f"skipped: {reason}" for reason in target["skipped_reasons"])
        return "; ".join((*target["due_reasons"], *skipped_texts)) or "at its target share"

    return tables.document_table(
        "Liquidity targets",
        columns(
            "LiquidityTargetDocument",
            "pool",
            "share_bps",
            "width_bps",
            "weight_bps",
            "value",
            "fees",
            "due_reasons",
        ),
        document["targets"],
        {"pool": pool_text, "due_reasons": due_text},
    )


def _payouts_table(document: Document) -> FigureTable:
    from agent.cli.display import tables

    table = tables.table(
        "Payout of a withdrawal now, in base units",
        ("position", "token"),
        ("liquidity", "uncollected fees"),
    )
    for position in document["positions"]:
        for symbol in position["tokens"]:
            table.add_row(
                _position_cell(position),
                symbol,
                position["redeemable_raw"][symbol],
                position["fees_raw"][symbol],
            )
    return table


def _forecasts_table(document: Document) -> FigureTable:
    from agent.cli.display import tables

    move_headers = [
        f"{forecast['move_bps'] / 100:+g} %"
        for forecast in next(
            (position["forecasts"] for position in document["positions"] if position["forecasts"]),
            [],
        )
    ]
    table = tables.table(
        f"Future impermanent loss, in {document['numeraire']}",
        ("position", "price move"),
        (*move_headers, "expected"),
    )
    for position in document["positions"]:
        if position["forecasts"]:
            losses = (tables.money_text(forecast["loss"]) for forecast in position["forecasts"])
            table.add_row(
                _position_cell(position),
                position["forecasts"][0]["moving"],
                *losses,
                tables.money_text(position["expected_loss"]),
            )
    return table


def _total_text(document: Document, numeraire: str) -> str:
    from agent.cli.display import tables

    if document["value"] is None or document["share_bps"] is None:
        return "unknown"
    limit_text = "no limit"
    if document["limit_bps"] is not None:
        limit_text = f"limit {format_bps(document['limit_bps'])}"
    exceeded_text = "" if document["within"] else ", exceeded"
    return (
        f"{tables.money_text(document['value'])} {numeraire}, {float(document['share_bps']) / 100:.2f} %"
        f" of the portfolio, {limit_text}{exceeded_text}"
    )


def _position_cell(position: Document) -> Any:
    venue = position["venue"].removeprefix("uniswap_")
    cell_text = f"{'/'.join(position['tokens'])} {venue}"
    if position["token_id"] is not None:
        cell_text += f" #{position['token_id']}"
    return safe_text(cell_text)


strategies_group = command_group(
    Heading.TRADE,
    50,
    "strategies",
    "Several strategies over one wallet: capital, returns, health.",
    has_default=True,
)


@strategies_group.callback()
def strategies(
    context: typer.Context, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False
) -> None:
    """Shows capital, share, unit value, return, Sharpe ratio and state of each strategy, and the
    netting among them.
    """
    if context.invoked_subcommand is not None:
        return

    with show_spinner(READING_CHAIN_TEXT), api.open_agent(config) as agent:
        document = api.strategies(agent)
    emit(document, as_json, lambda: show_strategies(out, document))


@strategies_group.command()
def apply(config: ConfigPath = DEFAULT_CONFIG, yes: Yes = False, as_json: AsJson = False) -> None:
    """Reconciles the strategies' ledgers with wallet and config after confirmation: opens, closes
    and splits strategies in kind.
    """
    with api.open_agent(config) as agent, show_spinner(READING_CHAIN_TEXT) as spinner:

        def confirm(document: Document) -> bool:
            require_answerable(yes)  # here, since there may be no question
            if yes:
                return True
            with spinner.hidden():
                err.print(safe_text(document["why"]))
                show_strategies(err, document)
                return ask("Adopt these ledgers?")

        document = api.reconcile_strategies(agent, confirm)
    emit(document, as_json, lambda: _show_applied_ledgers(document))
    raise typer.Exit(0 if document["applied"] else EXIT_REFUSED)


@strategies_group.command("deposits-to")
def deposits_to(
    name: Annotated[str, typer.Argument(help="Name of a strategy, or all.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Sets the strategy that receives deposits and pays withdrawals; with all, every strategy
    shares them in proportion to its capital.
    """
    document = api.route_transfers(config, name)
    receiving_strategy = document["flows_to"]
    message = "Deposits and withdrawals are now shared by capital."
    if receiving_strategy is not None:
        message = f"{receiving_strategy} now gets deposits and pays withdrawals."
    emit(document, as_json, lambda: say(message))


def show_strategies(console: Console, document: Document) -> None:
    """Print a document of strategies."""
    from agent.cli.display import tables

    unit = document["numeraire"]
    console.print(
        tables.document_table(
            f"Strategies at block {document['block']}: {tables.money_text(document['total_value'])} {unit}",
            columns(
                "StrategyDocument",
                "name",
                "state",
                "since_s",
                "capital",
                "share_bps",
                "target_share_bps",
            ),
            document["strategies"],
            {
                "state": lambda strategy: safe_text(
                    strategy["state"], "yellow" if strategy["state"] == "paused" else "green"
                ),
                "since_s": lambda strategy: minute_text(strategy["since_s"]),
            },
        )
    )
    console.print(
        tables.document_table(
            "Performance",
            columns("StrategyDocument", "name", "unit_value", "return_bps", "sharpe", "costs"),
            document["strategies"],
            {"sharpe": lambda strategy: strategy["sharpe"] or "unknown"},
        )
    )
    for strategy in document["strategies"]:
        console.print(holdings_table(strategy, unit))
        if futures_weights := strategy.get("futures"):
            targets_text = ", ".join(
                f"{symbol} {tables.bps_percent_text(weight_bps)}"
                for symbol, weight_bps in futures_weights.items()
            )
            state_text = "no futures while paused" if strategy["state"] == "paused" else "futures"
            console.print(
                safe_text(
                    f"{strategy['name']}: {state_text}, targets {targets_text} of its target notional"
                )
            )
        if strategy["state_reason"]:
            console.print(
                safe_text(
                    f"{strategy['name']} is {strategy['state']}: {strategy['state_reason']}",
                    "yellow",
                )
            )
    if document["fault"]:
        console.print(safe_text(document["fault"], "bold red"))
    for line in netting_lines(document["together"], unit):
        console.print(safe_text(line))


def holdings_table(document: Document, unit: str) -> Any:
    """Return a table of one strategy's holdings and weights."""
    from agent.cli.display import tables

    return tables.document_table(
        f"{document['name']}, in {unit}",
        columns("StrategyHoldingDocument", "symbol", "amount", "value", "weight_bps", "target_bps"),
        document["holdings"],
    )


def netting_lines(document: Document | None, unit: str) -> list[str]:
    """Return sentences on internal netting between strategies; empty if there is none."""
    if document is None:
        return []
    lines = [f"{strategy_name}: {reason}" for strategy_name, reason in document["reasons"].items()]
    lines += [
        f"Internal: {capital_move['from']} transfers {capital_move['value']} {unit} of capital to {capital_move['to']}"
        for capital_move in document["capital_moved"]
    ]
    lines += [
        f"{token['symbol']}: {token['bought']} {unit} to buy, {token['sold']} to sell; {token['crossed']}"
        f" netted internally, {token['net']} left for the market"
        for token in document["netted"]
    ]
    if (saved_fees := document["saved_fees"]) != "0":
        lines.append(
            f"Netted internally: {document['crossed']} {unit}; pool fees saved: at least {saved_fees} {unit}"
        )
    return lines


def _show_applied_ledgers(document: Document) -> None:
    show_strategies(out, document)
    say("The ledgers are adopted." if document["applied"] else "Nothing was changed.")
