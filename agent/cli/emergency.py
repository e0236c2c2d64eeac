"""Emergency and shutdown commands, and controls: pause, resume, stop, revoke, rehearse, controls,
request.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from agent import app as api
from agent.cli import money
from agent.cli.display.several import PortfolioAnswer, answer_for_each
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
from agent.cli.money import show_remedies, show_sent, show_trade_plan
from agent.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    ConfigPaths,
    Heading,
    Send,
    Verbose,
    Yes,
    command,
)
from agent.errors import (
    EXIT_OK,
    EXIT_REFUSED,
    EXIT_RETRYABLE,
    EXIT_USAGE,
    OUTCOME_EXIT_CODES,
    ConfigError,
    TrimtabError,
)
from agent.figures import as_sentence, pause_text

if TYPE_CHECKING:
    from rich.console import Console

    from agent.app import Agent
    from agent.app.money.hard_pause import HardPauseReport
    from agent.app.money.rehearsal import Rehearsal
    from agent.app.money.revocation import RevocationReport
    from agent.app.money.shutdown import ShutdownReport
    from agent.cli.display.tables import FigureTable
    from agent.model import ControlArguments, ControlKind


@command(Heading.TROUBLE, 10)
def pause(
    reason: Annotated[
        str, typer.Option("--reason", help="Reason, shown with the pause.")
    ] = "paused by trimtab pause",
    hard: Annotated[
        bool,
        typer.Option("--hard", help="Also cancel pending transactions and set allowances to zero."),
    ] = False,
    send: Send = False,
    yes: Yes = False,
    config: ConfigPaths = None,
    as_json: AsJson = False,
) -> None:
    """Stops all sending at once, until resume. Sent transactions are still watched.

    With --hard it also shows pending transactions and open allowances, and with --send cancels and
    revokes them; a running trimtab run does this instead.
    """
    from agent.app.documents import fill, owner
    from agent.app.money import hard_pause
    from agent.fleet.configs import find_configs

    if not hard:
        if send or yes:
            raise ConfigError(
                "--send and --yes need --hard: a soft pause sends nothing",
                "omit them, or add --hard",
            )
        answer_for_each(config, as_json, lambda path: _pause_softly(path, reason))
        return
    config_paths = find_configs(config)
    if len(config_paths) > 1:
        _pause_but_not_hard(
            config_paths, reason, "for one config at a time", "pause each with --hard"
        )
    if send and not yes and not is_interactive():
        _pause_but_not_hard(
            config_paths,
            reason,
            "a confirmation is needed, and there is no terminal to ask",
            "add --yes, or run it in a terminal",
        )
    with show_spinner("Pausing") as spinner:

        def confirm(report: HardPauseReport) -> bool:
            exposure = report.pending_and_allowances
            if not exposure.pending_intents and not exposure.open_allowances:
                return True

            def show() -> None:
                err.print(_cancel_and_revoke_table(fill(owner.CancelAndRevokeDocument, exposure)))
                for signed_text in report.signed_texts:
                    note(as_sentence(signed_text))

            return spinner.ask("Paused. Cancel and revoke all of this?", show)

        report = api.pause_hard(
            config_paths[0],
            reason,
            send=send,
            is_confirmed=yes,
            confirm=confirm,
            progress=spinner.update,
        )
    hard_pause_document = hard_pause.hard_pause_document(report, send)
    emit(hard_pause_document, as_json, lambda: _show_pause(hard_pause_document))
    raise typer.Exit(
        {**OUTCOME_EXIT_CODES, "handed over": EXIT_RETRYABLE}.get(hard_pause_document["outcome"], 0)
    )


def _pause_but_not_hard(
    config_paths: Sequence[Path], reason: str, hindrance: str, remedy: str
) -> NoReturn:
    """Pause softly, and raise ConfigError with what hinders the hard pause, naming the configs that
    are paused, those that an earlier pause keeps hard paused, and those that are not paused.
    """
    names_by_result: dict[str, list[str]] = {}
    failure_texts = []
    for path in config_paths:
        try:
            document = api.pause(path, reason)
        except TrimtabError as error:
            failure_texts.append(f"{path.name}: {error.message}")
        else:
            result = "still hard paused" if document["hard"] else "paused, but not hard"
            names_by_result.setdefault(result, []).append(path.name)
    parts = [f"--hard: {hindrance}"]
    parts += [f"{result}: {', '.join(names)}" for result, names in names_by_result.items()]
    if failure_texts:
        parts.append(f"not paused: {'; '.join(failure_texts)}")
    raise ConfigError("; ".join(parts), remedy)


def _pause_softly(config: Path, reason: str) -> PortfolioAnswer:
    document = api.pause(config, reason)

    def show() -> None:
        paused = "Still paused hard" if document["hard"] else "Paused"
        scope_text = as_sentence(pause_text(document["hard"]))
        say(f"{paused}: {document['reason']}. {scope_text} until: trimtab resume")
        for signed_text in document.get("signed", ()):
            note(as_sentence(signed_text))

    if "store" in document:
        note(f"Paused by file only: {document['store']}")
    return PortfolioAnswer(document, show)


@command(Heading.TROUBLE, 20)
def resume(config: ConfigPaths = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Lifts the pause, and ends a stop. Asks first if the stop sells everything."""

    def confirm(message: str) -> bool:
        require_answerable(yes)
        return yes or ask(f"{as_sentence(message)}. Resume?")

    answer_for_each(
        config,
        as_json,
        lambda path: _resumed(path, confirm),
    )


def _resumed(config: Path, confirm: Callable[[str], bool]) -> PortfolioAnswer:
    document = api.resume(config, confirm)

    def show() -> None:
        say("Resumed.")
        for rejected_text in document.get("rejected", ()):
            note(as_sentence(rejected_text))

    return PortfolioAnswer(document, show)


def _show_pause(hard_pause_document: Document) -> None:
    from agent.cli.display import status_tables

    kind_text = (
        "hard" if hard_pause_document["hard"] else "soft; hard only once confirmed with --send"
    )
    say(
        f"Paused ({kind_text}): {hard_pause_document['reason']}."
        f" {as_sentence(pause_text(hard_pause_document['hard']))} until: trimtab resume"
    )
    if hard_pause_document["outcome"] in ("planned", "declined", "handed over"):
        out.print(_cancel_and_revoke_table(hard_pause_document))
    if hard_pause_document["transactions"]:
        out.print(status_tables.transactions_table(hard_pause_document))
    say(f"{hard_pause_document['outcome']}: {hard_pause_document['message']}")


def _cancel_and_revoke_table(document: Document) -> FigureTable:
    """Return a table of transactions to cancel and allowances to revoke."""
    from agent.cli.display import tables

    table = tables.table(
        "To cancel and revoke",
        ("", "what", "of"),
        rows=(
            (
                "cancel",
                transaction["note"],
                f"{transaction['hash'] or 'not sent'}, nonce {transaction['nonce']}",
            )
            for transaction in document["cancel"]
        ),
    )
    for allowance in document["revoke"]:
        table.add_row(
            "to zero",
            f"allowance of {allowance['symbol']}",
            f"{allowance['holder']} {allowance['spender']}",
        )
    return table


@command(Heading.MONEY, 40)
def stop(
    to_stable: Annotated[
        bool,
        typer.Option(
            "--to-stable", help="Sell everything for the numeraire, after withdrawing liquidity."
        ),
    ] = False,
    send_to: Annotated[
        str | None,
        typer.Option("--send-to", help="Pay the remaining balances to this confirmed address."),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Ends the bot: cancels pending transactions, sets allowances to zero, and sells and pays out
    if asked. Resumes an interrupted stop.

    run and rebalance then refuse until trimtab resume.
    """
    from agent.app.documents import fill, owner
    from agent.app.money import shutdown

    with money.open_for_command(config, send=send, yes=yes) as (agent, spinner):

        def show(console: Console, document: Document) -> None:
            _show_shutdown(console, document, agent, verbose=verbose)

        def confirm(report: ShutdownReport) -> bool:
            if yes and not report.to_stable and report.payout_address is None:
                return True  # no question delays a shutdown that neither sells nor pays out
            return money.ask_owner(
                agent,
                spinner,
                fill(owner.ShutdownDocument, report, agent.portfolio),
                show,
                "Stop the bot like this?",
                yes=yes,
            )

        report = shutdown.stop(
            agent,
            to_stable=to_stable,
            send_to=send_to,
            send=send,
            confirm=confirm,
            progress=spinner.update,
        )
        document = fill(owner.ShutdownDocument, report, agent.portfolio)
        money.show_result(spinner, document, show, as_json=as_json)
    exit_without_rest = EXIT_REFUSED if document["unsold"] or document["unrevoked"] else EXIT_OK
    raise typer.Exit(OUTCOME_EXIT_CODES.get(document["state"], exit_without_rest))


@command(Heading.TROUBLE, 70)
def revoke(
    tokens: Annotated[
        list[str] | None,
        typer.Argument(help="Symbols or addresses; every token of the config by default."),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Lists the allowances of routers, position managers and Permit2; with --send sets them to
    zero.
    """
    from agent.app.documents import fill, owner
    from agent.app.money import revocation

    with money.open_for_command(config, send=send, yes=yes) as (agent, spinner):

        def confirm(report: RevocationReport) -> bool:
            return yes or spinner.ask(
                "Set all of this to zero?",
                lambda: _show_revocation(err, fill(owner.RevocationDocument, report)),
            )

        report = revocation.revoke(
            agent, tokens or (), send=send, confirm=confirm, progress=spinner.update
        )
        document = fill(owner.RevocationDocument, report)
        money.show_result(spinner, document, _show_revocation, as_json=as_json)
    raise typer.Exit(OUTCOME_EXIT_CODES.get(document["state"], 0))


@command(Heading.SET_UP, 60)
def rehearse(
    token: Annotated[
        str | None, typer.Option("--token", help="Asset to trade; default: the largest target.")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Swaps the smallest allowed amount out and back, and compares both swaps with the
    prediction.
    """
    from agent.app.money import rehearsal

    with money.open_for_command(config, send=send, yes=yes) as (agent, spinner):

        def show(console: Console, document: Document) -> None:
            _show_rehearsal(console, document, agent)

        def confirm(round_trip: Rehearsal) -> bool:
            return money.ask_owner(
                agent,
                spinner,
                rehearsal.rehearsal_document(round_trip, agent),
                show,
                "Trade this round trip?",
                yes=yes,
            )

        if send:
            agent.require_not_stopped()
        document = rehearsal.rehearsal_document(
            rehearsal.rehearse_trade(
                agent, token, send=send, confirm=confirm, progress=spinner.update
            ),
            agent,
        )
        money.show_result(spinner, document, show, as_json=as_json)
    raise typer.Exit(OUTCOME_EXIT_CODES.get(document["state"], 0))


def _show_shutdown(
    console: Console, shutdown_document: Document, agent: Agent, *, verbose: bool
) -> None:
    from agent.cli.display import tables
    from agent.model import RequestState

    if shutdown_document["state"] == "planned":
        table = tables.table(
            "To stop",
            ("", "what"),
            rows=(("cancel", transaction["note"]) for transaction in shutdown_document["cancel"]),
        )
        for allowance in shutdown_document["revoke"]:
            table.add_row(
                "to zero",
                f"allowance of {allowance['symbol']}, {allowance['holder']} {allowance['spender']}",
            )
        table.add_row(
            "sell",
            "everything for the numeraire" if shutdown_document["to_stable"] else "nothing",
        )
        for payment in shutdown_document["payments"]:
            table.add_row(
                "pay", f"{payment['amount']} {payment['symbol']} to {shutdown_document['to']}"
            )
        console.print(table)
        _show_sales(console, shutdown_document, agent, verbose=verbose)
        _show_sales_total(console, shutdown_document, agent)
    show_sent(console, shutdown_document)
    for line in (
        shutdown_document["remaining"]
        if shutdown_document["state"] not in ("planned", "declined")
        else ()
    ):
        console.print(safe_text(f"stays in the wallet: {line}"))
    if shutdown_document["excluded"]:
        console.print(safe_text(shutdown_document["excluded"]))
    if shutdown_document["futures"]:
        console.print(safe_text(f"Futures: {shutdown_document['futures']}", "yellow"))
    if shutdown_document["state"] == "planned":
        if shutdown_document["reason"]:
            console.print(
                safe_text(f"The stop goes ahead; {shutdown_document['reason']}", "yellow")
            )
        if console is out:
            request = agent.context.store.requests.active_stop()
            is_done = request is not None and request.state is RequestState.DONE
            parts = ("cancel", "revoke", "sales", "payments")
            if is_done and not any(shutdown_document[part] for part in parts):
                say("It is stopped, and nothing is left to do. trimtab resume restarts trading.")
            else:
                say("Dry run: nothing was sent. Add --send to stop the bot.")
    else:
        console.print(safe_text(f"{shutdown_document['state']}: {shutdown_document['reason']}"))
    show_remedies(console, shutdown_document)


def _show_sales(
    console: Console, shutdown_document: Document, agent: Agent, *, verbose: bool
) -> None:
    """Print the plan of each sale."""
    for sale_index, sale in enumerate(shutdown_document["sales"]):
        sale_figures = dict(sale)
        if sale_index:
            sale_figures.pop("futures", None)  # the account is the same in each sale
        if _planned_sale_count(shutdown_document) > 1:
            sale_figures["weights_after_bps"] = {}  # each counts itself alone
        show_trade_plan(console, sale_figures, agent, verbose=verbose)


def _planned_sale_count(shutdown_document: Document) -> int:
    return sum(sale["outcome"] == "planned" for sale in shutdown_document["sales"])


def _show_sales_total(console: Console, shutdown_document: Document, agent: Agent) -> None:
    """Print cost, worst case and weights of several sales together."""
    from agent.cli.display.plan_tables import weights_text
    from agent.cli.display.tables import cost_text

    total = shutdown_document["sales_total"]
    sale_count = _planned_sale_count(shutdown_document)
    if total is None or sale_count < 2:
        return
    unit = agent.portfolio.numeraire.label
    worst_case = total["worst_case"]
    worst_case_text = "unknown" if worst_case is None else f"{cost_text(worst_case)} {unit}"
    console.print(
        safe_text(
            f"All {sale_count} sales: cost {cost_text(total['cost'])} {unit}, worst case {worst_case_text};"
            f" weights after them: {weights_text(total['weights_after_bps'])}"
        )
    )


def _show_revocation(console: Console, document: Document) -> None:
    from agent.cli.display import tables

    if document["allowances"]:
        console.print(
            tables.table(
                "Open allowances",
                ("token", "by", "spender"),
                ("base units",),
                column_order=("token", "base units", "by", "spender"),
                rows=(
                    (
                        allowance["symbol"],
                        allowance["raw"] or "cannot be read",
                        allowance["holder"],
                        allowance["spender"],
                    )
                    for allowance in document["allowances"]
                ),
            )
        )
    show_sent(console, document)
    message_by_state = {
        "clear": "No open allowances of known contracts.",
        "planned": "Add --send to set this to zero.",
    }
    console.print(
        safe_text(
            message_by_state.get(document["state"], f"{document['state']}: {document['reason']}")
        )
    )


def _show_rehearsal(console: Console, rehearsal_document: Document, agent: Agent) -> None:
    from agent.app.documents.plans import decimals_by_label as token_decimals
    from agent.cli.display import tables
    from agent.units import decimal_text

    if rehearsal_document["state"] in ("planned", "refused"):
        show_trade_plan(console, rehearsal_document["plan"], agent)
    if rehearsal_document["legs"]:
        decimals_by_symbol = token_decimals(agent.portfolio)
        column_names = (
            "sold",
            "predicted",
            "realised",
            "slippage bps",
            "gas predicted",
            "gas used",
        )
        table = tables.table("Round trip", ("",), column_names)
        for leg in rehearsal_document["legs"]:
            decimals_out = decimals_by_symbol[leg["token_out"]]
            table.add_row(
                f"{leg['token_in']} for {leg['token_out']}",
                decimal_text(int(leg["amount_in_raw"]), decimals_by_symbol[leg["token_in"]]),
                *(
                    decimal_text(int(leg[amount_key]), decimals_out)
                    for amount_key in ("predicted_raw", "realised_raw")
                ),
                f"{leg['slippage_bps']:.2f}",
                str(leg["gas_predicted"]),
                str(leg["gas_used"]),
            )
        console.print(table)
        unit = rehearsal_document["numeraire"]
        console.print(
            safe_text(
                f"It cost {tables.cost_text(rehearsal_document['cost'])} {unit}, gas and approvals included; predicted:"
                f" {tables.cost_text(rehearsal_document['predicted_cost'])} {unit}"
            )
        )
    show_sent(console, rehearsal_document)
    if rehearsal_document["state"] == "planned":
        if console is out:
            say("Dry run: nothing was sent. Add --send to trade the round trip.")
    else:
        console.print(safe_text(f"{rehearsal_document['state']}: {rehearsal_document['verdict']}"))


@command(Heading.LOOK, 75)
def controls(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show this many.")] = 20,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Lists controls (requests from dashboard, API, phone, or trimtab request), newest first, and
    the plan that waits for a confirmation.
    """
    document = api.list_controls(config, limit)
    emit(document, as_json, lambda: _show_controls(document))


@command(Heading.TROUBLE, 30)
def request(
    kind: Annotated[
        str,
        typer.Argument(
            help=(
                "pause, resume, rebalance, confirm, invest, withdraw, edit, stop, device or holdings."
            )
        ),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="Options of that command as NAME=VALUE: amount=500 to=0x…"),
    ] = None,
    plan: Annotated[
        str, typer.Option("--plan", help="Confirm the plan shown earlier with this hash.")
    ] = "",
    config: ConfigPath = DEFAULT_CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Queues a control for a running trimtab run --send: shows the plan, asks, and queues the
    confirmation of this plan. No key is loaded here.

    pause, resume, device, and stop without options are queued at once, without a plan. Without a
    terminal anything else only shows its plan, unless --yes or --plan (exit code 2).
    """
    from agent.app.controls import queue
    from agent.model import ControlKind

    control_arguments = tuple(_parse_argument(argument_text) for argument_text in arguments or ())
    control_kind = queue.parse_kind(kind)
    is_bare_stop = control_kind is ControlKind.STOP and not control_arguments
    if control_kind in queue.KINDS_WITHOUT_PLAN or is_bare_stop:
        if plan:
            raise ConfigError(f"--plan: {kind} has no plan to confirm like this", "omit it")
        _queue_control(config, control_kind, control_arguments, "", as_json=as_json)
        return
    if not plan:
        with show_spinner(READING_CHAIN_TEXT) as spinner:
            preview = api.preview_control(config, control_kind, control_arguments)
            with spinner.hidden():
                if preview["state"] == "refused":
                    emit(preview, as_json, lambda: say(f"Refused: {preview['reason']}"))
                    raise typer.Exit(EXIT_REFUSED)
                if not yes and not is_interactive():
                    emit(preview, as_json, lambda: _show_plan(out, preview))
                    note("Nothing was queued: a confirmation is needed. Add --yes, or --plan HASH.")
                    raise typer.Exit(EXIT_USAGE)
                if not yes:
                    _show_plan(err, preview)
                    if not ask("Queue the confirmation of this plan?"):
                        raise typer.Exit(EXIT_REFUSED)
        plan = preview["plan_hash"]
    _queue_control(config, control_kind, control_arguments, plan, as_json=as_json)


def _queue_control(
    config: Path, kind: ControlKind, arguments: ControlArguments, plan_hash: str, *, as_json: bool
) -> None:
    from agent.model import ControlOrigin, ControlSubmission

    submission = ControlSubmission(kind, arguments, getpass.getuser(), ControlOrigin.CLI, plan_hash)
    control = api.submit_control(config, submission)
    control_document = api.find_control(config, control.id)

    def show() -> None:
        if control_document["state"] == "done":
            say(f"Done: {kind.value}.")
            return
        say(f"Queued as {control.id}. trimtab controls shows its result.")

    emit(control_document, as_json, show)


def _parse_argument(argument_text: str) -> tuple[str, str]:
    argument_name, equals_sign, argument_value = argument_text.partition("=")
    if not equals_sign:
        raise ConfigError(f"{argument_text!r}: is not NAME=VALUE", "for example amount=500")
    return argument_name.strip(), argument_value.strip()


def _show_plan(console: Console, control_plan: Document) -> None:
    console.print(safe_text(f"{control_plan['kind']}: plan {control_plan['plan_hash']}"))
    for line in (*control_plan["document"].get("changes", ()), *control_plan["moves"]):
        console.print(safe_text(f"  {line}"))
    if repeat_text := control_plan["document"].get("repeats"):
        console.print(safe_text(f"  {repeat_text}", "yellow"))


def _show_controls(controls_document: Document) -> None:
    from agent.cli.display import tables

    if (pending_plan := controls_document["waiting"]) is not None:
        _show_plan(out, pending_plan)
        say("It waits for a confirmation: trimtab request confirm")
    if not controls_document["controls"]:
        say("No controls yet.")
    else:
        table = tables.table("Controls", ("requested", "control", "by", "state", "reason"))
        for control in controls_document["controls"]:
            description = " ".join(
                [
                    control["kind"],
                    *(f"{pair['name']}={pair['value']}" for pair in control["arguments"]),
                ]
            )
            table.add_row(
                control["requested"],
                description,
                f"{control['requested_by']} ({control['origin']})",
                control["state"],
                f"{control['code']}: {control['reason']}" if control["code"] else control["reason"],
            )
        out.print(table)
    if not controls_document["served"]:
        note("No trimtab run --send serves this wallet, so queued controls expire.")
