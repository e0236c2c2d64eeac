"""Commands about the journal and the store: history, explain, txs, cancel, reconcile, adopt, db."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated

import typer

from agent import app as api
from agent.cli.display.several import PortfolioAnswer, answer_for_each
from agent.cli.display.terminal import (
    READING_CHAIN_TEXT,
    Document,
    ask,
    emit,
    err,
    note,
    out,
    require_answerable,
    safe_text,
    say,
    show_spinner,
    spaced_time,
)
from agent.cli.money import open_for_command
from agent.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    ConfigPaths,
    Heading,
    OnPaper,
    Send,
    Yes,
    command,
    command_group,
    mark_paper,
    paper_or_live,
)
from agent.errors import EXIT_REFUSED, EXIT_RETRYABLE
from agent.figures import columns
from agent.units import price_text

if TYPE_CHECKING:
    from agent.cli.display.tables import FigureTable


GWEI_DECIMALS = 9
MAX_REASON_LENGTH = 120
"""Characters of a reason in a list of steps. `explain` shows the whole reason."""


@command(Heading.LOOK, 40)
def history(
    config: ConfigPaths = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=10_000, help="Number of steps, newest first.")
    ] = 20,
    configs: Annotated[
        bool, typer.Option("--configs", help="List config versions instead.")
    ] = False,
    version: Annotated[
        int | None,
        typer.Option("--config-version", help="Show one config version and its changes."),
    ] = None,
    paper: OnPaper = False,
    as_json: AsJson = False,
) -> None:
    """Lists past steps with decisions and transactions. With --configs lists config versions,
    without secrets.
    """
    from agent.app import config_versions
    from agent.cli import ledger
    from agent.cli.display import plan_tables

    def ask_for_steps(path: Path) -> PortfolioAnswer:
        document = mark_paper(api.history(paper_or_live(path, paper), limit), paper)

        def show() -> None:
            out.print(steps_table(document))
            _note_limit(len(document["steps"]), limit)
            if out.is_terminal and any(
                len(step["reason"]) > MAX_REASON_LENGTH for step in document["steps"]
            ):
                note("Long reasons are truncated; trimtab explain STEP shows them in full.")
            if document["gradual_executions"]:
                out.print(plan_tables.executions_table(document["gradual_executions"]))
            ledger.show_costs_and_weights(out, document)

        return PortfolioAnswer(document, show)

    def ask_for_configs(path: Path) -> PortfolioAnswer:
        if version is not None:
            config_version = config_versions.show_version(paper_or_live(path, paper), version)
            return PortfolioAnswer(config_version, lambda: _show_version(config_version))
        versions = config_versions.list_versions(paper_or_live(path, paper), limit)
        return PortfolioAnswer(versions, lambda: _show_versions(versions))

    shows_configs = configs or version is not None
    answer_for_each(config, as_json, ask_for_configs if shows_configs else ask_for_steps)


@command(Heading.LOOK, 50)
def explain(
    step: Annotated[
        str | None,
        typer.Argument(help="Id of a step from history; default: the newest."),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    paper: OnPaper = False,
    as_json: AsJson = False,
) -> None:
    """Explains a past step: snapshot, decision, reason, transactions, result."""
    document = mark_paper(api.explain(paper_or_live(config, paper), step), paper)

    def show() -> None:
        for line in document["sentences"]:
            say(line)

    emit(document, as_json, show)


def steps_table(document: Document) -> FigureTable:
    """Return a table of past steps. Long reasons are truncated at a terminal only."""
    from agent.cli.display.tables import document_table

    def transactions_text(step: Document) -> str:
        return ", ".join(
            f"{transaction['kind']} {transaction['status']}" for transaction in step["transactions"]
        )

    def reason_text(step: Document) -> str:
        reason: str = step["reason"]
        return shorten(reason, MAX_REASON_LENGTH, placeholder=" …") if out.is_terminal else reason

    return document_table(
        "Steps, newest first",
        columns("PastStepDocument", "step", "time", "outcome", "transactions", "reason"),
        document["steps"],
        {"transactions": transactions_text, "reason": reason_text},
    )


@command(Heading.TROUBLE, 30)
def txs(
    config: ConfigPath = DEFAULT_CONFIG,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=10_000, help="Number of rows, newest first.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Lists recorded transactions with their outcome, and those still pending. Reads only the
    store.
    """
    document = api.transactions(config, limit)

    def show() -> None:
        _show_transactions(document)
        _note_limit(len(document["transactions"]), limit)

    emit(document, as_json, show)


@command(Heading.TROUBLE, 40)
def cancel(
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Cancels pending transactions (same nonce, higher fee). Without --send it only shows them.

    What waits for an external signer it withdraws; if enough owners of a Safe have signed, it proposes
    a rejection for them to sign, with exit code 11.

    With --send, exit code 11 while a cancel is not yet mined; otherwise 0.
    """
    pending_document = api.pending_transactions(config)
    if not pending_document["transactions"] or not send:
        emit(
            pending_document,
            as_json,
            lambda: _show_pending(pending_document, pending_document["advice"]),
        )
        raise typer.Exit
    if not yes:
        require_answerable(yes)
        err.print(_transactions_table(pending_document))
        err.print(safe_text(pending_document["advice"]))
        if not ask("Cancel this?"):
            emit(pending_document, as_json, lambda: say("Nothing was sent."))
            raise typer.Exit(EXIT_REFUSED)
    with api.open_agent(config) as agent, show_spinner("Cancelling") as spinner:
        document = api.cancel(agent, progress=spinner.update)
    emit(
        document,
        as_json,
        lambda: _show_pending(
            document, "Some are still pending: repeat trimtab cancel --send, or trimtab reconcile"
        ),
    )
    raise typer.Exit(EXIT_RETRYABLE if document["waiting"] else 0)


@command(Heading.TROUBLE, 50)
def reconcile(
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Settles the journal against the chain and books mined transactions. With --send it resends or
    cancels lost and late transactions.

    Exit code 0 if nothing is pending, 11 if a transaction is, 12 if an operator is needed.
    """
    if send and not yes:
        require_answerable(yes)
        pending_document = api.pending_transactions(config)
        if pending_document["transactions"]:
            err.print(_transactions_table(pending_document))
        if not ask("Resend lost transactions and cancel late ones?"):
            emit(pending_document, as_json, lambda: say("Nothing was sent."))
            raise typer.Exit(EXIT_REFUSED)
    with open_for_command(config, send=True, yes=True) as (agent, spinner):
        document = api.reconcile(agent, send=send, progress=spinner.update)
    emit(
        document,
        as_json,
        lambda: _show_pending(
            document,
            "To resend lost transactions and cancel late ones: trimtab reconcile --send",
        ),
    )
    raise typer.Exit(EXIT_RETRYABLE if document["waiting"] else 0)


def _show_pending(document: Document, hint: str) -> None:
    """Print the transactions with their counts, the number booked, and `hint` if any is pending."""
    if document["transactions"]:
        _show_transactions(document)
    if document.get("booked"):
        say(f"Booked: {document['booked']}.")
    for withdrawn_text in document.get("withdrawn", ()):
        note(withdrawn_text)
    if document["waiting"]:
        note(hint)
    else:
        say("No pending transactions.")


def _show_transactions(document: Document) -> None:
    from agent.model import NOT_ACCEPTED_PREFIX

    if not document["transactions"]:
        say("No transaction is recorded.")
        return
    out.print(_transactions_table(document))
    for transaction in document["transactions"]:
        last_note = transaction["moves"][-1]["note"] if transaction.get("moves") else ""
        if transaction["open"] and last_note.startswith(NOT_ACCEPTED_PREFIX):
            say(f"Nonce {transaction['nonce']}: {last_note}")
    say(f"{document['waiting']} pending, {document['confirming']} awaiting confirmations.")


def gas_price_text(transaction: Document) -> str:
    """Return the price paid for each unit of gas, in gwei; of a transaction that is not mined, its
    maximum; "" if the wallet paid none, as for a Safe's proposal, whose executor pays.
    """
    price_wei = transaction["gas_price_wei"] or transaction["max_fee_wei"]
    if price_wei == "0":
        return ""
    return price_text(Fraction(price_wei), 0, GWEI_DECIMALS, 3)


def _transactions_table(document: Document) -> FigureTable:
    from agent.cli.display import status_tables, tables

    figure_table = tables.table(
        "Transactions",
        ("kind", "status", "hash", "what"),
        ("nonce", "block", "gwei"),
        column_order=("nonce", "kind", "status", "gwei", "block", "what", "hash"),
    )
    for transaction in document["transactions"]:
        status = transaction["status"]
        description = transaction["note"]
        if (resting_order := transaction.get("order")) is not None:
            status = "resting"
            description += f"; {resting_order['filled']} of {resting_order['size']} filled, until {spaced_time(resting_order['expires'])}"
        hash_text = transaction["hash"] or f"not sent; id {transaction['id']}"
        if execution_hash := transaction.get("execution"):
            hash_text = f"execution sent: {execution_hash}"
        figure_table.add_row(
            str(transaction["nonce"]),
            transaction["kind"],
            safe_text(status, status_tables.STATE_STYLES.get(status, "yellow")),
            gas_price_text(transaction),
            "" if transaction["block"] is None else str(transaction["block"]),
            description,
            hash_text,
        )
    return figure_table


Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]
db_group = command_group(Heading.TROUBLE, 80, "db", "The store: back up, restore, check, copy.")


@db_group.command()
def backup(
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    config: ConfigPath = DEFAULT_CONFIG,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Writes a consistent copy of the store, even during a run. It contains no key and no signed
    transaction.
    """
    document = api.backup_store(config, path, force)
    emit(
        document,
        as_json,
        lambda: say(f"Copied to {document['backup']} ({document['bytes']:,} bytes)."),
    )


@db_group.command()
def restore(
    path: Annotated[Path, typer.Argument(help="A file that db backup wrote.")],
    config: ConfigPath = DEFAULT_CONFIG,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Restores a backup. Nothing is sent until trimtab adopt; with --force the old store is kept
    beside it.
    """
    document = api.restore_store(config, path, force)

    def show() -> None:
        say(f"Restored to {document['store']}.")
        if document["kept"] is not None:
            say(f"The previous store is kept as {document['kept']}.")
        say("Nothing is sent until: trimtab adopt")

    emit(document, as_json, show)


@db_group.command()
def check(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Checks the whole store for damage."""
    document = api.check_store(config)
    copy_note = ""
    if document["copy"] is not None:
        copy_note = f", a copy ({document['copy']}) not yet adopted"
    check_text = (
        f"{document['store']} is intact: version {document['version']}, wallet {document['wallet']},"
        f" chain {document['chain_id']}{copy_note}."
    )
    emit(document, as_json, lambda: say(check_text))


@db_group.command()
def copy(
    url: Annotated[str, typer.Argument(help="The database to copy into, such as store.url.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Copies the store into another database, from SQLite to PostgreSQL or back, and compares every
    row. Stop the run first; the config stays as it is.
    """
    document = api.copy_store(config, url)

    def show() -> None:
        say(f"Copied and compared {sum(document['rows'].values()):,} rows.")
        say(f"Next: {document['next']}.")
        say(f"Each machine needs the secret: {document['secret']}")

    emit(document, as_json, show)


@command(Heading.TROUBLE, 60)
def adopt(
    config: ConfigPath = DEFAULT_CONFIG,
    nothing_lost: Annotated[
        bool,
        typer.Option(
            "--nothing-lost",
            help="Confirm that the wallet had no losses in the last 24 h outside this store.",
        ),
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Resyncs to the wallet's current nonce after another program used the wallet or the store was
    restored. Sends nothing.
    """
    if not yes:
        require_answerable(yes)
        note("Stop every other program that uses this wallet: two senders could trade twice.")
        if not ask("Continue from the chain's current nonce?"):
            nothing: Document = {"nonce": None, "wallet": None, "released": [], "transactions": []}
            emit(nothing, as_json, lambda: say("Nothing was adopted."))
            raise typer.Exit(EXIT_REFUSED)
    from agent.app.records import adoption

    with api.open_agent(config) as agent, show_spinner(READING_CHAIN_TEXT):
        document = adoption.adopt(agent, nothing_lost=nothing_lost)

    def show() -> None:
        say(f"Adopted: the next transaction has nonce {document['nonce']}.")
        for transaction in document["transactions"]:
            say(f"Nonce {transaction['nonce']}: {_adopted_text(transaction, document['wallet'])}.")
        for number in document["released"]:
            say(
                f"Withdrawal {number} is released, and a transaction that the store does not know may"
                " have paid it: look for it before you withdraw again."
            )
        if nothing_lost:
            say("Confirmed: nothing was lost in the last 24 h outside this store.")
        if any(transaction["intent"] is None for transaction in document["transactions"]):
            say(
                "Next: trimtab flows lists what they changed; trimtab flows confirm NUMBER, or all,"
                " explains it."
            )

    emit(document, as_json, show)


def _adopted_text(transaction: Document, wallet: str | None) -> str:
    """Return what an adopted transaction of the wallet moved, with its hash."""
    if not transaction["hash"]:
        return "the endpoints do not show its transaction; look for it in a block explorer"
    wallet_texts = []
    for transfer in transaction["transfers"]:
        amount_text = f"{transfer['amount']} {transfer['symbol']}"
        if transfer["amount"] is None:
            amount_text = f"{transfer['raw']} base units of the token {transfer['token']}"
        wallet_texts.append(
            f"sent {amount_text} to {transfer['recipient']}"
            if transfer["sender"] == wallet
            else f"received {amount_text} from {transfer['sender']}"
        )
    moved_text = ", ".join(wallet_texts) or "moved no tokens"
    own_text = (
        "" if transaction["intent"] is None else f". It is the proposal {transaction['intent']}"
    )
    return f"{transaction['hash']} {moved_text}{own_text}"


def _note_limit(count: int, limit: int) -> None:
    """Note that older rows may be missing."""
    if count == limit:
        note(f"At most the newest {limit} are shown; --limit shows more.")


def _show_versions(document: Document) -> None:
    """Print one line for each version."""
    from agent.cli.display import tables

    table = tables.table("Versions of the config", ("no.", "time", "how", "digest"))
    for version in document["configs"]:
        current_note = " (current)" if version["digest"] == document["present"] else ""
        table.add_row(
            str(version["number"]),
            version["time"],
            version["how"],
            version["digest"][:16] + current_note,
        )
    out.print(table)
    if document["confirmed"] not in (None, document["present"]):
        say("The current config is not confirmed: trimtab edit --confirm")


def _show_version(document: Document) -> None:
    """Print the changes of a version, then its text."""
    say(f"Version {document['number']} ({document['how']}), {document['digest']}")
    if document["before"] is not None:
        say(f"Changed since version {document['before']}:")
        for line in document["changes"] or ["only comments or secrets"]:
            say(f"  {line}")
    say("")
    for line in (document["text"] or "text not stored").splitlines():
        say(line)
