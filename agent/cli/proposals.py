"""Commands about proposals to the owners of a Safe: proposal list, show, sign, collect, execute, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent import app as api
from agent.cli import money
from agent.cli.display.hints import completed_hints
from agent.cli.display.terminal import (
    emit,
    err,
    exact_text,
    is_interactive,
    out,
    require_answerable,
    safe_text,
    say,
    say_whole,
)
from agent.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    GroupedOption,
    Heading,
    Send,
    Yes,
    command_group,
)
from agent.errors import EXIT_REFUSED, OUTCOME_EXIT_CODES
from agent.figures import as_sentence, reader_text
from agent.units import format_time, rough_duration, share_of

if TYPE_CHECKING:
    from rich.console import Console

    from agent.app.documents.proposals import (
        ProposalDocument,
        ProposalExecutionDocument,
        ProposalFileDocument,
    )

KEY = GroupedOption(
    "--key",
    ("keystore", "keyring", "key_env", "test_account"),
    numbers={"test_account": range(10)},
)
KeySource = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        help="Source of the key: keystore=FILE, keyring=SERVICE/NAME, key_env=VARIABLE or"
        " test_account=NUMBER; without it the key is typed.",
    ),
]
ProposalId = Annotated[
    str | None,
    typer.Argument(
        help="Refuse unless the proposal with this id is the one that waits; a rejection waits in place"
        " of what it rejects."
    ),
]
proposal_group = command_group(
    Heading.TRADE,
    65,
    "proposal",
    "Proposals to the owners of a Safe: sign and execute them. trimtab cancel --send withdraws one, or"
    " proposes its rejection.",
)


@proposal_group.command("list")
def list_open(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Lists the proposals that wait, with their signatures."""
    with money.open_for_command(config, send=False, yes=True) as (agent, spinner):
        document = api.list_proposals(agent)

        def show() -> None:
            proposals = document["proposals"]
            last_nonce = proposals[-1]["nonce"] if proposals else None
            for proposal in proposals:
                is_rejected = proposal["nonce"] == last_nonce and proposal is not proposals[-1]
                is_rejected &= proposal["state"] not in ("used", "expired")
                void_text = f"{proposal['state']}; void once its rejection below is executed"
                _show_proposal(out, proposal, void_text if is_rejected else "")
            if document["held_up"]:
                out.print(
                    safe_text(f"{as_sentence(document['held_up'])}.", "yellow"), soft_wrap=True
                )
            if not document["proposals"]:
                say("No proposal waits.")

        with spinner.hidden():
            emit(document, as_json, show)


@proposal_group.command("show")
def show_file(
    file: Annotated[
        Path,
        typer.Argument(
            help="File of a Safe's proposal, from wallet.proposals, its typed data, or a file of trimtab"
            " proposal export."
        ),
    ],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Shows what the call in a proposal's file does, and computes its hash. Needs no chain; without the
    config, addresses have no names. Exit code 10 if no proposal of the config's Safe has this hash, or
    it must not be signed now, as far as the store knows: prices are not read.
    """
    document = api.read_proposal_file(file, config)

    def show() -> None:
        say(
            f"Call {document['nonce']} of the Safe {document['safe']} on chain {document['chain_id']}"
        )
        for line in document["calls"]:
            out.print(exact_text(f"  {line}"), soft_wrap=True)
        if document["why"]:
            out.print(exact_text(f"  why: {reader_text(document['why'])}"), soft_wrap=True)
        say_whole(f"Hash, computed from this call: {document['safe_tx_hash']}")
        say(_advice_for_file(document))

    emit(document, as_json, show)
    is_refused = document["waits"] is False or bool(document["fault"])
    raise typer.Exit(EXIT_REFUSED if is_refused else 0)


def _advice_for_file(document: ProposalFileDocument) -> str:
    """Return what to compare the hash with: a wallet computes the same from a file that was changed."""
    if document["waits"]:
        named_text = f'It is the proposal {document["id"]} ("{document["description"]}")'
        if document["fault"]:
            return f"{named_text}, which {document['fault']}: do not sign it."
        rejected_text = f" {as_sentence(document['rejected'])}." if document["rejected"] else ""
        return (
            f"{named_text}, which waits.{rejected_text} Its prices are not checked here: sign it only if"
            " trimtab proposal list calls it waiting and your wallet shows the same hash."
        )
    if document["config_chain_id"] not in (None, document["chain_id"]):
        return (
            f"The Safe of the config is on chain {document['config_chain_id']}, this call is for chain"
            f" {document['chain_id']}: do not sign it."
        )
    if document["ending"]:
        return f"{document['ending']}; do not sign it."
    if document["waits"] is False:
        return (
            "No proposal that waits here has this hash: do not sign it, compare it with trimtab proposal"
            " list."
        )
    return (
        "Compare it with what proposal list shows on the agent's machine: your wallet shows this hash"
        " for a changed file too."
    )


@proposal_group.command()
def sign(
    proposal: ProposalId = None,
    key: KeySource = None,
    export: Annotated[
        bool,
        typer.Option(
            "--export",
            help="Sign nothing; print the typed data for a wallet with eth_signTypedData_v4.",
        ),
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Signs the proposal that waits as one owner of the Safe, and records the signature.

    The call comes from the journal, the signer's rules judge it again, and the Safe must return the
    same hash. Nothing is sent, but wallet.safe_service gets the signature.
    """
    with money.open_for_command(config, send=False, yes=yes) as (agent, spinner):
        if export:
            emit(api.proposal_typed_data(agent, proposal), True, lambda: None)
            return

        earlier_owners: list[str] = []

        def confirm(unsigned_proposal: ProposalDocument) -> bool:
            earlier_owners.extend(unsigned_proposal["signed_by"])
            if yes or not is_interactive():
                _show_proposal(err, unsigned_proposal)
                require_answerable(yes)
            return yes or spinner.ask("Sign this?", lambda: _show_proposal(err, unsigned_proposal))

        with spinner.hidden():  # the key may be typed
            document = api.sign_proposal(agent, KEY.parse(key), proposal, confirm)
        signed_text = "Signed by"
        if document["owner"] in earlier_owners:
            signed_text = "Signed already by"
        result_text = (
            f"{signed_text} {document['owner']}: {document['description']} ({document['id']}),"
            f" hash {document['safe_tx_hash']}\nSignature: {document['signature']}"
        )
        if not document["signature"]:
            result_text = "Not signed."
        emit(document, as_json, lambda: _show_signatures(document, result_text))
    raise typer.Exit(0 if document["signature"] else EXIT_REFUSED)


@proposal_group.command()
def collect(
    signatures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE_OR_SIGNATURE]...",
            help="Optional, one or more: 0x and 130 hex digits that the owner's wallet shows after"
            " signing what trimtab proposal sign --export prints, or a file with them or with what"
            " trimtab proposal sign --json printed. Default: those that wallet.safe_service has, if"
            " the config names it.",
        ),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Adds signatures of other owners to the proposal that waits, all or none; without arguments
    those of the Safe's transaction service.

    Owners whose keys trimtab can read use trimtab proposal sign instead, which records itself.
    """
    with money.open_for_command(config, send=False, yes=True) as (agent, spinner):
        if signatures:
            document = api.collect_signatures(agent, signatures)
        else:
            document = api.collect_from_service(agent)
        result_lines = [f"Added: {', '.join(document['added']) or 'none'}"]
        result_lines += [f"Left out: {reason}" for reason in document["left_out"]]
        with spinner.hidden():
            emit(document, as_json, lambda: _show_signatures(document, "\n".join(result_lines)))


@proposal_group.command()
def execute(
    proposal: ProposalId = None,
    key: KeySource = None,
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Simulates the execution of the signed proposal; with --send sends it from the key's account,
    which pays the gas.
    """
    loaded_config = api.load_config(config)
    if send:
        require_answerable(yes)
    with money.open_for_command(loaded_config, send=False, yes=yes) as (agent, spinner):
        is_sent_now = False

        def confirm(planned_execution: ProposalExecutionDocument) -> bool:
            nonlocal is_sent_now
            is_sent_now = True
            return yes or spinner.ask(
                "Execute this?", lambda: _show_execution(err, planned_execution)
            )

        with spinner.hidden():
            document = api.execute_proposal(
                agent,
                KEY.parse(key),
                proposal,
                send=send,
                confirm=confirm,
                progress=spinner.update,
            )
            emit(document, as_json, lambda: _show_execution(out, document, is_sent_now))
    raise typer.Exit(OUTCOME_EXIT_CODES.get(document["outcome"], 0))


@proposal_group.command("export")
def export_file(proposal: ProposalId = None, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Prints the proposal that waits as a file for the Transaction Builder of the Safe's website."""
    with money.open_for_command(config, send=False, yes=True) as (agent, spinner):
        document = api.export_proposal(agent, proposal)
        with spinner.hidden():
            err.print(exact_text(document["meta"]["description"]))
            emit(document, True, lambda: None)


def _show_proposal(console: Console, document: ProposalDocument, state_text: str = "") -> None:
    from agent.app.documents.proposals import EXECUTED_PREFIX

    expires_s = document["expires_s"]
    is_used = document["state"] == "used" or state_text == "executed"
    is_executed = document["ending"].startswith(EXECUTED_PREFIX)
    shown_state = state_text or ("executed" if is_executed else document["state"])
    lines = [f"{document['description']} ({shown_state}, {document['id']})"]
    if document["ending"]:
        lines.append(f"  {document['ending']}")
    if not state_text and document["state"] in ("used", "expired"):
        lines.append(completed_hints("  trimtab status names the command that settles it"))
    if document["why"]:
        lines.append(f"  why: {reader_text(document['why'])}")
    lines += [f"  {line}" for line in document["in_words"]]
    if (cost := document["cost"]) is not None:
        lines.append(_cost_text(document, cost))
    lines += [
        f"  nonce {document['nonce']} of the Safe {document['safe']}",
        f"  hash {document['safe_tx_hash']}",
        f"  signatures: {_signature_count(document)} {' '.join(document['signed_by'])}".rstrip(),
        f"  proposed {rough_duration(document['age_s'])} ago" + _executable_text(document, is_used),
    ]
    if not is_used and document["executable_until_s"] is None and expires_s is not None:
        lines.append(f"  trimtab waits for it until {format_time(expires_s)}")
    if document["failure"] and not is_used:
        failure_text = (
            "would fail now" if document["state"] == "failing" else "must not be signed now"
        )
        lines.append(f"  {failure_text}: {reader_text(document['failure'])}")
        if not state_text and document["state"] in ("failing", "stale"):
            command = (
                "trimtab pause --hard --send" if document["paused"] else "trimtab cancel --send"
            )
            withdrawal_text = f"{command} withdraws it, or proposes its rejection"
            lines.append(completed_hints(f"  enough signatures still count: {withdrawal_text}"))
    if (
        document["paused"] and not is_used and not state_text
    ):  # no end of a pause revives a rejected one
        lines.append(
            completed_hints(
                f"  paused: it is neither signed nor executed here until {_unpause(document)}"
            )
        )
    for line in lines:
        console.print(exact_text(line), soft_wrap=True)


def _executable_text(document: ProposalDocument, is_used: bool) -> str:
    """Return until when the chain accepts the call with enough signatures; "" once its nonce is used."""
    if is_used:
        return ""
    if (until_s := document["executable_until_s"]) is not None:
        return f", executable until {format_time(until_s)}"
    return f", executable until another call uses nonce {document['nonce']}"


def _unpause(document: ProposalDocument) -> str:
    """Return the command that lets a pause sign and execute it: what only undoes needs no end of the
    pause.
    """
    undoes = document["purpose"] == "cancel" or all(
        call["spender"] and call["amount_raw"] == "0" for call in document["calls"]
    )
    return "trimtab pause --hard --send" if undoes else "trimtab resume"


def _cost_text(document: ProposalDocument, cost: str) -> str:
    """Return cost, worst case and weights of the plan, as they were when it was proposed."""
    from agent.cli.display.plan_tables import WORST_CASE_TEXT
    from agent.cli.display.tables import bps_percent_text, cost_text

    unit = document["numeraire"]
    plan_text = f"  cost when proposed: {cost_text(cost)} {unit}"
    if document["worst_case"] is not None:
        worst_case_text = cost_text(document["worst_case"])
        plan_text += f", at worst {worst_case_text} {unit} ({WORST_CASE_TEXT})"
    plan_text += "; the gas in it is paid by who executes it"
    weights_text = ", ".join(
        f"{symbol} {bps_percent_text(bps)}" for symbol, bps in document["weights_after_bps"].items()
    )
    return f"{plan_text}; weights after: {weights_text}" if weights_text else plan_text


def _signature_count(document: ProposalDocument, unit: str = "") -> str:
    return share_of(len(document["signed_by"]), document["threshold"], unit)


def _show_signatures(document: ProposalDocument, result_text: str) -> None:
    say(result_text)
    is_complete = len(document["signed_by"]) >= document["threshold"]
    next_text = f"trimtab proposal execute {document['id']}"
    if not is_complete:
        next_text = f"another owner signs: trimtab proposal sign {document['id']}, or trimtab proposal collect"
    if document["paused"]:
        next_text = f"{_unpause(document)}, then {next_text}"
    if document["state"] != "waiting":
        next_text = (
            f"do not execute it while it is {document['state']}; trimtab proposal list says why"
        )
    say(f"{_signature_count(document, ' signatures')} are collected. Next: {next_text}")


def _show_execution(
    console: Console, document: ProposalExecutionDocument, is_sent_now: bool = True
) -> None:
    from agent.cli.display.tables import coins

    state_text = "executed" if document["outcome"] == "executed" else ""
    _show_proposal(console, document, state_text)
    executed_text = f"Executed in transaction {document['transaction']}."
    if not is_sent_now:
        executed_text = (
            f"Already executed in transaction {document['transaction']}; nothing was sent."
        )
    cost_text = f"at most {coins(document['max_cost_wei'], 18)} of native coin for gas"
    planned_text = f"It can be executed, for {cost_text}. Add --send."
    if document["transaction"]:
        planned_text = (
            f"Sent in transaction {document['transaction']}, which is not mined yet. Add --send to wait"
            " for it."
        )
    next_text = document["next_command"]
    if document["purpose"] == "cancel" and next_text.startswith("trimtab rebalance"):
        next_text = (
            f"trimtab edit, if what was rejected is not wanted; {next_text} plans anew, and may propose"
            " the same"
        )
    result_text = {
        "planned": planned_text,
        "declined": f"Not executed; it would cost {cost_text}.",
        "executed": f"{executed_text} Next: {next_text}",
        "failed": f"Reverted in {document['transaction']}; run it again.",
    }[document["outcome"]]
    console.print(safe_text(result_text), soft_wrap=True)
