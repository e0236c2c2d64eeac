"""Commands about deposits and withdrawals: invest, withdraw, flows, flows confirm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent import app as api
from agent.cli.display.terminal import (
    READING_CHAIN_TEXT,
    Document,
    Spinner,
    ask_with_changes,
    emit,
    err,
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
    Send,
    Verbose,
    Yes,
    command,
    command_group,
)
from agent.errors import OUTCOME_EXIT_CODES, ConfigError
from agent.figures import as_sentence, replace_pool_addresses

if TYPE_CHECKING:
    from rich.console import Console

    from agent.app import Agent
    from agent.app.money.transfers import InvestmentReport
    from agent.app.withdrawals.withdrawal_run import WithdrawalReport
    from agent.config.loaded import LoadedConfig


DocumentPrinter = Callable[["Console", Document], None]
"""Prints a document: to stderr before a question, to stdout at the end."""


@contextmanager
def open_for_command(
    config: Path | LoadedConfig, *, send: bool, yes: bool
) -> Iterator[tuple[Agent, Spinner]]:
    """Open the agent and a progress display. With `send` proposals booked as executed are noted on
    stderr.

    Raises ConfigError up front for a wrong config, or if a question could not be answered.
    """
    loaded_config = api.load_config(config)
    if send:
        require_answerable(yes)
    with api.open_agent(loaded_config) as agent, show_spinner(READING_CHAIN_TEXT) as spinner:
        first_nonce = agent.context.store.journal.expected_nonce()
        try:
            yield agent, spinner
        finally:
            if send:
                _note_executions(agent, first_nonce)


@contextmanager
def noting_executions(agent: Agent) -> Iterator[dict[str, object]]:
    """Yield fields of a command's document, which has at the end of the block which proposals were
    booked as executed in it; of a block that fails they are noted on stderr.
    """
    from agent.wiring.waiting_proposals import execution_texts

    store = agent.context.store
    first_nonce = store.journal.expected_nonce()
    fields: dict[str, object] = {}
    try:
        yield fields
    except BaseException:
        _note_executions(agent, first_nonce)
        raise
    if texts := execution_texts(store, first_nonce):
        fields["booked_proposals"] = texts


def _note_executions(agent: Agent, first_nonce: int | None) -> None:
    from agent.wiring.waiting_proposals import execution_texts

    for execution_text in execution_texts(agent.context.store, first_nonce):
        note(f"Booked: {execution_text}")


def proposes(agent: Agent) -> bool:
    """Return whether an external signer, such as the owners of a Safe, signs what is proposed."""
    return agent.context.config.wallet.mode == "propose"


def dry_run_text(agent: Agent | None, action_text: str = "sign and send") -> str:
    """Return how a plan that was only shown is carried out, or what it waits for. `action_text` is what
    --send does with it where trimtab signs.
    """
    if agent is None or not proposes(agent):
        return f"Dry run: nothing was sent. Add --send to {action_text}."
    from agent.wiring.waiting_proposals import open_proposal_intents

    for intent in open_proposal_intents(agent.context.store):
        return (
            f'Dry run. The proposal {intent.id} ("{intent.note}") waits, and nothing else is proposed'
            " meanwhile: trimtab status says what it waits for."
        )
    dry_run_text = "Dry run: nothing was proposed. Add --send to propose it"
    if not agent.context.config.wallet.safe:
        return f"{dry_run_text}."
    return f"{dry_run_text} to the owners. Who executes it pays its gas, not the Safe."


def ask_owner(
    agent: Agent,
    spinner: Spinner,
    document: Document,
    show: DocumentPrinter,
    question: str,
    *,
    yes: bool,
) -> bool:
    """Ask for confirmation after showing the document and manual config changes; `yes` skips the
    question.
    """
    from agent.app import config_versions

    if yes:
        return config_versions.confirm_without_asking(agent.context)
    with spinner.hidden():
        show(err, document)
        return config_versions.confirm_changes(
            agent.context, lambda lines: ask_with_changes(lines, question)
        )


def show_result(
    spinner: Spinner, document: Document, show: DocumentPrinter, *, as_json: bool
) -> None:
    """Print the result of a command as JSON or tables."""
    with spinner.hidden():
        emit(document, as_json, lambda: show(out, document))


@command(Heading.MONEY, 10)
def invest(
    flow: Annotated[
        list[int] | None, typer.Option("--flow", help="Invest only this flow number; repeatable.")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Finds new deposits; with --send confirms and invests them. Buys the underweight assets.

    Send tokens of the portfolio to the agent's wallet, then run this.
    """
    from agent.app.money import transfers

    with open_for_command(config, send=send, yes=yes) as (agent, spinner):

        def show(console: Console, document: Document) -> None:
            _show_investing(console, document, agent, with_hint=not send, verbose=verbose)

        def confirm(report: InvestmentReport) -> bool:
            question = "Confirm this as a deposit and invest it?"
            return ask_owner(
                agent,
                spinner,
                transfers.investment_document(report, agent, is_sent=send),
                show,
                question,
                yes=yes,
            )

        if send:
            agent.require_not_stopped()
        investment = transfers.invest(
            agent, transfer_ids=flow or (), send=send, confirm=confirm, progress=spinner.update
        )
        document = transfers.investment_document(investment, agent, is_sent=send)
        show_result(spinner, document, show, as_json=as_json)
    raise typer.Exit(OUTCOME_EXIT_CODES.get(document["outcome"], 0))


@command(Heading.MONEY, 20)
def withdraw(
    amount: Annotated[
        str | None,
        typer.Argument(help="Amount in whole coins; without it, withdrawals are listed."),
    ] = None,
    token: Annotated[
        str | None, typer.Option("--in", help="Asset to withdraw; default: the numeraire.")
    ] = None,
    pro_rata: Annotated[
        bool,
        typer.Option("--pro-rata", help="Withdraw the same share of every asset, AMOUNT in value."),
    ] = False,
    to: Annotated[
        str | None,
        typer.Option("--to", help="Confirmed payout address; without it, the amount is set aside."),
    ] = None,
    resume: Annotated[
        int | None, typer.Option("--resume", help="Continue the open withdrawal with this number.")
    ] = None,
    release: Annotated[
        int | None,
        typer.Option(
            "--release", help="Cancel an open withdrawal; the amount returns to the portfolio."
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Although an equal withdrawal is open, or was paid within the hour."
        ),
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Withdraws money to a confirmed address, exactly once. Covers a shortfall by selling the
    most overweight assets first.
    """
    from agent.app.documents import fill, owner
    from agent.app.money import transfers

    if sum(option_value is not None for option_value in (amount, resume, release)) > 1:
        raise ConfigError("AMOUNT, --resume and --release cannot be combined", "use one of them")
    if amount is None and (token is not None or pro_rata or again):
        raise ConfigError(
            "--in, --pro-rata and --again need an AMOUNT", "give the amount in whole coins"
        )
    if amount is None and resume is None and (to is not None or (send and release is None)):
        raise ConfigError("AMOUNT is missing", "give the amount in whole coins, or --resume NUMBER")
    with open_for_command(config, send=send, yes=yes) as (agent, spinner):
        if amount is None and resume is None:
            if release is not None:
                transfers.release_withdrawal(agent, release, spinner.update)
            requests_document: Document = {"withdrawals": transfers.list_withdrawals(agent)}
            with spinner.hidden():
                emit(requests_document, as_json, lambda: _show_requests(requests_document, release))
            raise typer.Exit

        def show(console: Console, document: Document) -> None:
            _show_withdrawing(console, document, agent, verbose=verbose)

        def confirm(report: WithdrawalReport) -> bool:
            return ask_owner(
                agent,
                spinner,
                fill(owner.WithdrawalDocument, report, agent.portfolio),
                show,
                "Withdraw this a second time?" if report.repeats else "Withdraw this?",
                yes=yes,
            )

        if resume is not None:
            withdrawal = transfers.resume_withdrawal(
                agent, resume, to=to, send=send, confirm=confirm, progress=spinner.update
            )
        else:
            withdrawal = transfers.withdraw(
                agent,
                transfers.WithdrawalRequest(
                    amount or "", token, pro_rata, to, again=again or not yes
                ),
                send=send,
                confirm=confirm,
                progress=spinner.update,
            )
        document = fill(owner.WithdrawalDocument, withdrawal, agent.portfolio)
        show_result(spinner, document, show, as_json=as_json)
    raise typer.Exit(OUTCOME_EXIT_CODES.get(document["state"], 0))


def show_trade_plan(
    console: Console, plan: Document, agent: Agent, *, verbose: bool = False
) -> None:
    """Print the sale that precedes the withdrawal."""
    from agent.app.documents.plans import decimals_by_label
    from agent.cli.display import plan_tables

    plan_tables.show_plan(
        console,
        plan,
        decimals_by_label(agent.portfolio),
        verbose=verbose,
        details_option="--verbose",
    )


def _with_pool_names(reason: str, plan: Document | None) -> str:
    """Return the text with the plan's pools by name instead of address."""
    return reason if plan is None else replace_pool_addresses(reason, plan["pools"])


def show_remedies(console: Console, document: Document) -> None:
    """Print the remedy for each exceeded limit."""
    for remedy in document["remedies"]:
        console.print(safe_text(f"  What to do: {remedy}"))


def show_sent(console: Console, document: Document) -> None:
    """Print the sent transactions, if any."""
    from agent.cli.display import status_tables

    if document["transactions"]:
        console.print(status_tables.transactions_table(document))


def _show_requests(document: Document, released_number: int | None) -> None:
    from agent.app.withdrawals.payment_states import END_TEXTS, RELEASE_CONDITION
    from agent.cli.display import tables

    if not document["withdrawals"]:
        say("No withdrawals yet. To request one: trimtab withdraw AMOUNT --to ADDRESS")
        return
    table = tables.table("Withdrawals", ("no.", "state", "amount", "to", "paid in"))
    for request in document["withdrawals"]:
        first_cells = (str(request["number"]), _state_text(request))
        for payment in request["payments"]:
            amount_text = f"{payment['amount']} {payment['symbol']}"
            table.add_row(
                *first_cells, amount_text, request["to"] or "set aside", payment["paid_in"]
            )
            first_cells = ("", "")
        if request["number"] == released_number:
            say(_release_text(request))
    out.print(table)
    for request in document["withdrawals"]:
        if request["state"] == "open" and END_TEXTS.keys() & {*_unpaid_states(request)}:
            number = request["number"]
            ways = [
                f"trimtab withdraw --resume {number} --send proposes it anew",
                f"trimtab withdraw --release {number} returns it to the portfolio{RELEASE_CONDITION}",
            ]
            if "rejected" in _unpaid_states(request):  # what the owners did not want comes last
                ways.reverse()
            say(f"Withdrawal {number}: {', '.join(ways)}.")


def _unpaid_states(request: Document) -> list[str]:
    """Return the different states of the unpaid payments for which there was a transaction."""
    states = dict.fromkeys(payment["state"] for payment in request["payments"])
    return [state for state in states if state not in ("paid", "unpaid")]


def _state_text(request: Document) -> str:
    """Return how far a withdrawal is; the state of one that is done, or not paid at all."""
    state: str = request["state"]
    is_paid = [bool(payment["paid_in"]) for payment in request["payments"]]
    if all(is_paid) and state != "done":
        return f"{state}, then paid" if state == "released" else f"{state}, paid"
    if state == "open" and request["parts"] is not None:
        state = str(request["parts"]["text"])
    is_partly_paid = any(is_paid) and not all(is_paid)
    return ", ".join((state, *["partly paid"] * is_partly_paid, *_unpaid_states(request)))


def _release_text(request: Document) -> str:
    """Return what of a released withdrawal stays paid, and what returns to the portfolio."""
    texts = []
    for payment in sorted(request["payments"], key=lambda payment: not payment["paid_in"]):
        amount_text = f"{payment['amount']} {payment['symbol']}"
        if payment["paid_in"]:
            texts.append(f"{amount_text} stays paid in {payment['paid_in']}")
        else:
            texts.append(f"{amount_text} returns to the portfolio")
        if payment["state"] in ("cancelled", "expired"):
            texts.append(
                "trimtab cancel --send can reject its payment if owners of a Safe have signed it"
            )
    return f"Withdrawal {request['number']}: {'; '.join(texts)}."


def _is_reason_shown(document: Document) -> bool:
    """True if the sale of a refused withdrawal was shown with the same reason."""
    sale = document["sale"]
    return bool(
        sale is not None and sale["outcome"] == "refused" and sale["reason"] == document["reason"]
    )


def _show_withdrawing(console: Console, document: Document, agent: Agent, *, verbose: bool) -> None:
    from agent.cli.display import tables

    if document["sale"] is not None and document["state"] in ("planned", "refused"):
        show_trade_plan(console, document["sale"], agent, verbose=verbose)
        sale = document["sale"]
        if document["state"] == "planned" and sale["reason"] != sale["decision"]["reason"]:
            console.print(safe_text(_with_pool_names(sale["reason"], sale)))
    table = tables.table(
        "Payments" if document["to"] else "Set aside",
        ("asset", "to"),
        ("amount",),
        column_order=("asset", "amount", "to"),
        rows=(
            (payment["symbol"], payment["amount"], document["to"] or "stays in the wallet")
            for payment in document["payments"]
        ),
    )
    if document["payments"]:
        console.print(table)
    show_sent(console, document)
    if document["excluded"]:
        console.print(safe_text(document["excluded"]))
    if document["repeats"] and document["state"] == "planned":
        console.print(safe_text(f"Attention: {document['repeats']}.", "yellow"))
    if document["state"] == "planned" and document["reason"]:
        console.print(safe_text(f"Attention: {document['reason']}.", "yellow"))
    if document["state"] == "planned":
        if console is out:
            action_text = "pay" if document["to"] else "set it aside"
            if document["sale"]:
                action_text = f"sell and {action_text}"
            say(dry_run_text(agent, action_text))
    elif document["state"] == "refused" and _is_reason_shown(document):
        console.print(safe_text("refused, for the reason above"))
    else:
        reason = _with_pool_names(document["reason"], document["sale"])
        console.print(safe_text(f"{document['state']}: {reason}"))
    show_remedies(console, document)


def _show_investing(
    console: Console, document: Document, agent: Agent, *, with_hint: bool, verbose: bool
) -> None:
    from agent.cli.display import tables

    purchase = document["purchase"]
    if not document["deposits"]:
        console.print(safe_text("No new deposit was found."))
        if purchase is not None:
            _show_purchase(console, purchase, agent)
        if document["reason"]:
            console.print(safe_text(document["reason"]))
        console.print(
            safe_text(
                "A deposit that is confirmed already is traded by trimtab rebalance --send. To invest"
                f" another, send tokens of the portfolio to {document['wallet']} on chain"
                f" {document['chain_id']}, then run this again."
            )
        )
        return
    for title, transfers in (
        ("New deposits", document["deposits"]),
        ("Excluded", document["uninvested"]),
    ):
        table = tables.table(
            title,
            ("no.", "transfer"),
            rows=((str(transfer["id"] or ""), transfer["text"]) for transfer in transfers),
        )
        if transfers:
            console.print(table)
    if document["uninvested"]:
        console.print(
            safe_text(
                "These exceed portfolio.max_live_value, or --flow excluded them. --flow NUMBER"
                " selects another deposit."
            )
        )
    if document["outcome"] in ("planned", "refused") and document["plan"] is not None:
        show_trade_plan(console, document["plan"], agent, verbose=verbose)
    show_sent(console, document)
    if purchase is not None:
        _show_purchase(console, purchase, agent)
    elif document["outcome"] not in ("planned", "refused"):
        reason = _with_pool_names(document["reason"], document["plan"])
        console.print(safe_text(f"{document['outcome']}: {reason}"))
    if with_hint and console is out:
        say(
            "Dry run: nothing was recorded or sent. Add --send to confirm the deposit and invest"
            " it."
        )


def _show_purchase(console: Console, purchase: Document, agent: Agent) -> None:
    """Print the progress of an open purchase and the commands that continue and end it."""
    from agent.cli.display import plan_tables

    console.print(
        safe_text(
            f"{plan_tables.format_execution(purchase, agent.portfolio.numeraire.label)}. trimtab run"
            f" --send continues it; trimtab limit --cancel {purchase['id']} ends it, and its rest counts as drift."
        )
    )


flows_group = command_group(
    Heading.MONEY, 30, "flows", "Balance changes not made by the agent.", has_default=True
)


@flows_group.callback()
def flows(
    context: typer.Context,
    config: ConfigPath = DEFAULT_CONFIG,
    everything: Annotated[bool, typer.Option("--all", help="Include explained changes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compares balances with the ledger and lists unexplained changes."""
    if context.invoked_subcommand is not None:
        return

    with show_spinner("Reading the chain"), api.open_agent(config) as agent:
        document = api.list_transfers(agent, everything)
    emit(document, as_json, lambda: show_transfers(document))


@flows_group.command()
def confirm(
    number: Annotated[str, typer.Argument(help="Number of the change from trimtab flows, or all.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="deposit or gift for an increase, withdrawal or loss for a decrease.",
            show_default=False,
        ),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Confirms a balance change: a deposit or a withdrawal by default. A withdrawal is not a
    loss.
    """
    document = api.classify_transfers(config, number, kind)

    def show() -> None:
        for change in document["confirmed"]:
            say(f"Flow {change['id']}: {change['as']}.")
        if not document["confirmed"]:
            say("All balance changes are explained.")

    emit(document, as_json, show)


def show_transfers(document: Document) -> None:
    """Print a list of transfers."""
    if not document["flows"]:
        say(as_sentence(f"{document['halts'] or 'all balance changes are explained'}."))
        return
    from agent.cli.display.status_tables import transfers_table

    out.print(transfers_table(document["flows"]))
    if document["halts"]:
        halts_text = as_sentence(document["halts"])
        if any(flow["halts"] for flow in document["flows"]):
            halts_text = (
                "Buying and rebalancing are halted until these are confirmed: trimtab flows"
                " confirm NUMBER, or all"
            )
        out.print(safe_text(halts_text, "bold red"))
