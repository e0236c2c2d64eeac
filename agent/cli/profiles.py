"""Commands that change the config or exchange profiles: edit, templates, export-profile,
import-profile.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from agent import app as api
from agent.cli.display.terminal import (
    READING_CHAIN_TEXT,
    Document,
    ask,
    emit,
    err,
    is_interactive,
    out,
    require_answerable,
    safe_text,
    say,
    show_spinner,
)
from agent.cli.money import show_sent
from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Heading, Verbose, Yes, command
from agent.errors import EXIT_OK, EXIT_REFUSED, EXIT_USAGE, ConfigError
from agent.figures import replace_pool_addresses
from agent.units import format_bps

if TYPE_CHECKING:
    from rich.console import Console

    from agent.app import Agent
    from agent.app.documents.owner import TemplateDocument
    from agent.app.settings.editing import EditReport
    from agent.cli.display.tables import FigureTable
    from agent.config.writing.edits import ConfigChanges
    from agent.execution.step_context import StepOutcome


@command(Heading.SET_UP, 20)
def templates(
    network: Annotated[str, typer.Option("--network", help="Chain.")] = "ethereum",
    value: Annotated[
        str, typer.Option("--value", help="Dollars for which the loss by costs and drift is shown.")
    ] = "10000",
    as_json: AsJson = False,
) -> None:
    """Lists the portfolio templates of init: holdings, triggers, limits, costs and drift."""
    from agent.cli.display import past_results, tables

    document = api.templates(network, value)

    def show() -> None:
        table = tables.table(f"Templates on {network}", ("name", "holdings", "trigger", "limits"))
        for template in document["templates"]:
            holdings_text = ", ".join(
                f"{token['symbol']} {token['target']}" for token in template["tokens"]
            )
            class_shares_text = ", ".join(
                f"{name} {format_bps(share_bps)}"
                for name, share_bps in template["shares_bps"].items()
            )
            policy_text = (
                f"{template['policy']['trigger']['kind']},"
                f" {template['policy']['trigger']['strictness']}; cooldown"
                f" {template['policy']['cooldown']}"
            )
            limits_text = ", ".join(
                f"{name} {parameter_text}" for name, parameter_text in template["limits"].items()
            )
            if template["futures_notional"]:
                limits_text += f"\nfutures at most {template['futures_notional']} of spot"
            if template["weights"]:
                holdings_text += (
                    f"\nthen by {template['weights']['kind']} every {template['weights']['every']}"
                )
            if template["past"] is not None:
                holdings_text += f"\n{past_results.past_result_text(template['past'])}; {past_results.past_costs_text(template['past'])}"
            if template["other_years"]:
                holdings_text += f"\n{past_results.past_years_text(template['other_years'])}"
            table.add_row(
                safe_text(template["name"], "bold"),
                f"{template['about']}\n{class_shares_text}\n{holdings_text}",
                policy_text,
                limits_text,
            )
        out.print(table)
        template_capitals = [
            (template["name"], template["minimum_capitals"].values())
            for template in document["templates"]
        ]
        gas_row = ("gas price, gwei", *document["gas_gwei"].values())
        out.print(
            tables.table(
                "Minimum capital on an ordinary day, USDC",
                ("template",),
                tuple(document["gas_gwei"]),
                rows=[
                    *(
                        (name, *(capital or "none" for capital in capital_amounts))
                        for name, capital_amounts in template_capitals
                    ),
                    gas_row,
                ],
            )
        )
        out.print(_loss_table(document["templates"], value))
        say(
            "Losses count drift at the template's strictness, relaxed at 0.3 of normal and strict at"
            " 3 times it: compare those of one strictness."
        )
        say(f"Futures: {document['futures']}.")
        say(
            f"Past results: {api.PAST_BASIS}, with the starting weights where an allocator needs"
            " other data. Other years are on prices that cannot be packaged:"
            f" {api.OTHER_YEARS_BASIS}. They say nothing about the future."
        )
        say(
            "To start from one: trimtab init --template NAME --wallet ADDRESS --rpc"
            " VARIABLE=OPERATOR"
        )

    emit(document, as_json, show)


def _loss_table(templates: list[TemplateDocument], value: str) -> FigureTable:
    """Return a table of about what each template loses a year, beside another trigger."""
    from agent.cli.display import tables

    loss_rows = []
    for template in templates:
        loss = template["tracking_loss"]
        if loss is None or loss["own"] is None:
            continue
        own = loss["own"]
        (other, *_) = loss["others"]
        loss_rows.append(
            (
                template["name"],
                f"{own['policy']}, {template['policy']['trigger']['strictness']}",
                own["costs_bps"],
                own["drift_bps"],
                own["loss_bps"],
                f"{loss['money']} {loss['unit']}",
                f"{other['policy']} {other['loss_bps']}",
            )
        )
    return tables.table(
        f"About the loss behind a perfect tracker, bps a year with {value} USDC",
        ("template", "trigger"),
        ("costs", "drift", "loss", "money", "instead"),
        rows=loss_rows,
    )


@command(Heading.DATA, 20)
def export_profile(
    file: Annotated[Path, typer.Argument(help="The file to write; an existing file is refused.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Exports weights, trigger, bands, cooldown and limits, and nothing else, to a file that can be
    shared.
    """
    document = api.export_profile(config, file)

    def show() -> None:
        say(f"Written: {document['profile']}")
        say(f"SHA-256: {document['sha256']}; pin it with --sha256 when importing")
        if document["skipped"]:
            say(f"Not part of a profile, skipped: {', '.join(document['skipped'])}")

    emit(document, as_json, show)


@command(Heading.DATA, 30)
def import_profile(
    file: Annotated[
        str, typer.Argument(help="A file that export-profile wrote, or its https address.")
    ],
    sha256: Annotated[
        str | None,
        typer.Option("--sha256", help="Expected SHA-256 of the file; required for an address."),
    ] = None,
    token_list: Annotated[
        Path | None, typer.Option("--token-list", help="Token list file for more symbols.")
    ] = None,
    token_list_sha256: Annotated[
        str | None, typer.Option("--token-list-sha256", help="Expected SHA-256 of the token list.")
    ] = None,
    sell_others: Annotated[
        bool, typer.Option("--sell-others", help="Sell assets that are not in the profile.")
    ] = False,
    in_slices: Annotated[
        bool,
        typer.Option("--in-slices", help="Allow a transition in slices, each within the limits."),
    ] = False,
    past: Annotated[
        bool | None,
        typer.Option(
            "--past/--no-past",
            help="Backtest the result on the packaged prices of 2021.",
            show_default="at a terminal, without --yes",
        ),
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option("--prices", help="Backtest it on each year of prices too: CSV or Parquet."),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Imports weights, trigger and tighter limits of a profile. Shows the transition and asks;
    sends nothing.
    """
    from agent.app.documents import plans
    from agent.app.settings import editing

    is_answerable = yes or is_interactive()  # before the spinner takes over the terminal
    with_past_result = is_interactive() and not yes if past is None else past
    is_tested = with_past_result or prices is not None
    with show_spinner(
        "Testing the result, reading the chain" if is_tested else READING_CHAIN_TEXT
    ) as spinner:

        def confirm_import(changes: Document, report: EditReport, agent: Agent | None) -> bool:
            if yes:
                return agent is None or editing.accept_edit(report, agent)
            with spinner.hidden():
                _show_import(err, changes)
                decimals_by_symbol = (
                    None if agent is None else plans.decimals_by_label(agent.portfolio)
                )
                show_editing(err, editing.edit_document(report), decimals_by_symbol)
                return ask("Write this?")

        document = api.import_profile(
            config,
            api.ProfileSource(file, sha256, token_list, token_list_sha256),
            confirm_import if is_answerable else None,
            sell_others=sell_others,
            in_slices=in_slices,
            past_prices=api.PastResultPrices(with_past_result, prices),
        )
        document.update(editing.edit_document(document.pop("editing")))

    def show() -> None:
        _show_import(out, document)
        show_editing(out, document, None)

    emit(document, as_json, show)
    raise typer.Exit(_edit_exit_code(document["state"]))


def _show_import(console: Console, document: Document) -> None:
    from agent.cli.display import past_results, tables

    table = tables.table("Targets", ("token", "address", "found in"), ("before", "after"))
    for asset in document["assets"]:
        old_target_text = "none" if asset["before_bps"] is None else format_bps(asset["before_bps"])
        table.add_row(
            asset["symbol"],
            asset["address"],
            asset["source"],
            old_target_text,
            format_bps(asset["after_bps"]),
        )
        if asset["differs"]:
            table.add_row(
                "",
                safe_text(f"in the profile {asset['profile_address']}", "bold red"),
                "not used",
                "",
                "",
            )
    console.print(table)
    for excluded_asset in document["excluded"]:
        console.print(
            safe_text(
                f"{excluded_asset['symbol']} ({format_bps(excluded_asset['before_bps'])}) is no longer managed; its"
                " balance is not touched."
            )
        )
    for note in document["notes"]:
        console.print(safe_text(f"note: {note}", "yellow"))
    if document["past"] is not None:
        console.print(safe_text(past_results.past_result_text(document["past"], with_basis=True)))
    if document["other_years"]:
        years_text = past_results.past_years_text(document["other_years"])
        console.print(
            safe_text(f"{years_text}; {document['other_years'][0]['basis']}; not a forecast")
        )
    if document["minimum_capital"]:
        console.print(
            safe_text(f"Minimum capital on an ordinary day: {document['minimum_capital']}")
        )
    table = tables.table(
        "Trigger and limits",
        ("key", "yours", "profile", "result"),
        rows=(
            (policy_change["key"], policy_change["before"], policy_change["after"], "adopted")
            for policy_change in document["policy"]
        ),
    )
    for limit in document["limits"]:
        adoption_text = f"adopted: {limit['why']}" if limit["taken"] else f"kept: {limit['why']}"
        table.add_row(
            limit["key"],
            limit["yours"],
            limit["profile"],
            safe_text(adoption_text, "" if limit["taken"] else "dim"),
        )
    console.print(table)


@command(Heading.DATA, 10)
def edit(
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, such as policy.cooldown=2h.")
    ] = None,
    targets: Annotated[
        list[str] | None, typer.Option("--target", help="SYMBOL=SHARE, such as WETH=40%.")
    ] = None,
    adds: Annotated[
        list[str] | None, typer.Option("--add", help="SYMBOL=ADDRESS:SHARE, a new asset.")
    ] = None,
    removes: Annotated[
        list[str] | None,
        typer.Option("--remove", help="SYMBOL; its target is set to 0 % while it is held."),
    ] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Confirm the file after a manual change.")
    ] = False,
    in_slices: Annotated[
        bool,
        typer.Option("--in-slices", help="Allow a transition in slices, each within the limits."),
    ] = False,
    keep_holdings: Annotated[
        bool,
        typer.Option("--keep-holdings", help="Keep the balance of a removed asset in the wallet."),
    ] = False,
    send: Annotated[
        bool, typer.Option("--send", help="With --remove: sell the balance, then remove the asset.")
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Changes tokens, weights and parameters. Shows the transition, asks, and writes the whole
    config. Without options it opens $EDITOR.

    Nothing is sent without --send. A run uses the new config at its next cycle, or ends if a table
    changed that it reads only at start. Without a terminal it only shows the change, unless --yes
    (exit code 2).
    """
    from agent.app.documents import plans
    from agent.app.settings import editing
    from agent.cli.portfolio import confirmer
    from agent.config.writing.edits import apply_changes, parse_changes

    changes = parse_changes(sets or (), targets or (), adds or (), removes or ())
    _require_agreeing_options(changes, confirm=confirm, keep_holdings=keep_holdings, send=send)
    if send:
        require_answerable(yes)
    is_answerable = yes or is_interactive()
    with show_spinner(READING_CHAIN_TEXT) as spinner:

        def edit_text(config_text: str) -> str:
            if confirm:
                return config_text
            if changes.has_changes:
                return apply_changes(config_text, changes)
            with spinner.hidden():
                return _edit_in_editor(config_text)

        def confirm_report(report: EditReport, agent: Agent) -> bool:
            if yes:
                return editing.accept_edit(report, agent)
            return spinner.ask(
                "Confirm this?" if confirm else "Write this?",
                lambda: show_editing(
                    err,
                    editing.edit_document(report),
                    plans.decimals_by_label(agent.portfolio),
                    verbose=verbose,
                    next_cycle=report.next_cycle,
                ),
            )

        confirm_edit = confirm_report if is_answerable else None
        options = editing.EditOptions(
            in_slices, keep_holdings, pins_new=True, is_unreviewed=yes, by_hand_only=confirm
        )
        if changes.removed_symbols:

            def ask_for_sale(agent: Agent, outcome: StepOutcome) -> bool:
                return confirmer(agent, yes, spinner, verbose=verbose)(outcome)

            report = editing.remove_assets(
                config,
                changes,
                options,
                confirm=confirm_edit,
                sale=editing.RemovalSale(ask_for_sale, spinner.update) if send else None,
            )
        else:
            report = editing.edit(
                config, editing.TextEdit(edit_text), options, confirm=confirm_edit
            )
        document = editing.edit_document(report)
        with spinner.hidden():
            decimals_by_symbol = None
            if verbose and report.transition is not None and document["state"] == "planned":
                decimals_by_symbol = plans.decimals_by_label(report.transition.step_input.portfolio)
            emit(
                document,
                as_json,
                lambda: show_editing(
                    out,
                    document,
                    decimals_by_symbol,
                    verbose=verbose,
                    next_cycle=report.next_cycle,
                ),
            )
    raise typer.Exit(_edit_exit_code(document["state"]))


def _edit_exit_code(state: str) -> int:
    """Return the exit code of an edit: also if it could only be shown, since nobody can answer."""
    if state == "planned":
        return EXIT_USAGE
    return EXIT_REFUSED if state in ("declined", "unfinished") else EXIT_OK


def _require_agreeing_options(
    changes: ConfigChanges, *, confirm: bool, keep_holdings: bool, send: bool
) -> None:
    """Raise ConfigError for options of an edit that contradict each other, or change nothing."""
    if confirm and (changes.has_changes or keep_holdings):
        raise ConfigError(
            "--confirm: takes the file as it is, and no option that changes it",
            "omit --set, --target, --add, --remove and --keep-holdings",
        )
    if not confirm and not changes.has_changes and not is_interactive():
        raise ConfigError(
            "no change given, and no terminal for an editor",
            "use --set, --target, --add, --remove or --confirm",
        )
    if send and not changes.removed_symbols:
        raise ConfigError(
            "--send needs --remove", "omit --send; a run uses the edited config in its next cycle"
        )
    if send and keep_holdings:
        raise ConfigError(
            "--send: sells the balance that --keep-holdings leaves in the wallet",
            "omit one of them",
        )


def _edit_in_editor(config_text: str) -> str:
    """Return the text as saved in $EDITOR from an owner-only file; unchanged if nothing was
    saved.
    """
    try:
        return click.edit(config_text, extension=".toml") or config_text
    except click.ClickException as error:
        raise ConfigError(
            f"$EDITOR: {error.format_message()}", "nothing was changed; set EDITOR, or use --set"
        ) from None


def show_editing(
    console: Console,
    document: Document,
    decimals_by_symbol: dict[str, int] | None,
    *,
    verbose: bool = False,
    next_cycle: StepOutcome | None = None,
) -> None:
    """Print an edit, and what the next cycle would do with it if that is known. If the decimals of
    its tokens are given, also print its plan.
    """
    if document["state"] == "unchanged":
        console.print(safe_text("Nothing changes."))
        for line in document["warnings"]:
            console.print(safe_text(f"note: {line}", "yellow"))
        return
    _show_changes(console, document)
    if document["transition"] is not None:
        _show_transition(console, document, decimals_by_symbol, verbose)
    if next_cycle is not None and document["state"] == "planned":
        console.print(safe_text(_next_cycle_text(next_cycle)))
    for line in document["warnings"]:
        console.print(safe_text(f"note: {line}", "yellow"))
    show_sent(console, document)
    _show_state(console, document)


def _next_cycle_text(next_cycle: StepOutcome) -> str:
    """Return what a cycle would do now with an edit; of trades also how far they go."""
    from agent.app.documents.plans import plan_document
    from agent.cli.display import plan_tables, tables

    document = plan_document(next_cycle)
    text = f"A cycle now, with this edit: {next_cycle.kind.value}: {next_cycle.reason.removeprefix('refused: ')}"
    if document["outcome"] == "refused" or not document["legs"]:
        return text
    return (
        f"{text}. It trades {tables.money_text(document['turnover'])} {document['numeraire']} for"
        f" {tables.cost_text(document['cost']['total'])} {document['numeraire']}; weights after it:"
        f" {plan_tables.weights_text(document['weights_after_bps'])}"
    )


CONTRACT_STYLES = {"unchanged": "", "new": "yellow"}


def _show_changes(console: Console, document: Document) -> None:
    """Print changed lines, new tokens and their contracts."""
    from agent.cli.display import tables

    for title, lines in (
        ("Earlier edits, confirmed with this one:", document["earlier_edits"]),
        ("Changes:", document["changes"]),
    ):
        if lines:
            console.print(title)
        for line in lines:
            console.print(safe_text(line, "green" if line.startswith("+") else "red"))
    for line in document["token_notes"]:
        console.print(safe_text(line))
    if document["contracts"]:
        console.print(
            tables.table(
                "Contracts of new tokens",
                ("state", "address", "role", "liquidity", "code hash"),
                rows=(
                    (
                        safe_text(
                            contract["state"], CONTRACT_STYLES.get(contract["state"], "bold red")
                        ),
                        contract["address"],
                        contract["role"],
                        contract["liquidity"],
                        contract["code_hash"],
                    )
                    for contract in document["contracts"]
                ),
            )
        )


def _show_transition(
    console: Console, document: Document, decimals_by_symbol: dict[str, int] | None, verbose: bool
) -> None:
    """Print the plan of the whole way to an edit's targets, which a trigger may go in part or not
    now, and its cost.
    """
    from agent.cli.display import plan_tables, tables

    plan = document["transition"]
    unit = plan["numeraire"]
    transition_summary = replace_pool_addresses(plan["reason"], plan["pools"])
    if plan["legs"]:
        if decimals_by_symbol is not None:
            console.print("The whole way to the targets:")
            plan_tables.show_plan(
                console, plan, decimals_by_symbol, verbose=verbose, details_option="--verbose"
            )
        transition_summary = (
            f"{tables.money_text(plan['turnover'])} {unit} of turnover for"
            f" {tables.cost_text(plan['cost']['total'])} {unit}"
        )
    console.print(
        safe_text(
            f"The whole way to the targets: {transition_summary}; rebalances within limits.turnover: {document['rebalance_count']}"
        )
    )


def _show_state(console: Console, document: Document) -> None:
    """Print whether the edit was written, and the next commands."""
    if document["state"] == "unfinished":
        console.print(safe_text(document["reason"], "yellow"))
    elif document["state"] in ("written", "removed"):
        backup_note = ""
        if document["backup"] is not None:
            backup_note = f"; the previous file is {document['backup']}"
        adoption_note = (
            ""
            if document["restart"]
            else " A running trimtab run uses it from its next cycle, a paper run once it is started again; it may end by the change."
        )
        console.print(safe_text(f"Written{backup_note}.{adoption_note}"))
        for line in document["next"]:
            console.print(safe_text(f"Next: {line}"))
    elif console is out:
        hint = ""
        if document["state"] == "planned":
            hint = ": a confirmation is needed, and there is no terminal to ask. Add --yes, or run it in a terminal"
        say(f"Nothing was written{hint}.")
