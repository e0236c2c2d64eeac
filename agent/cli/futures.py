"""Futures commands: positions, margin, funding, hedge, delegate, deleverage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent import app as api
from agent.cli.display.terminal import (
    READING_CHAIN_TEXT,
    emit,
    err,
    hidden_prompt,
    note,
    out,
    safe_text,
    show_spinner,
)
from agent.cli.money import ask_owner, open_for_command, show_result
from agent.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    Heading,
    OnPaper,
    PrintStyle,
    Send,
    Verbose,
    Yes,
    command,
    mark_paper,
    paper_or_live,
)
from agent.cli.portfolio import confirmer, show_outcome
from agent.errors import EXIT_OK, EXIT_REFUSED, OUTCOME_EXIT_CODES, ConfigError

if TYPE_CHECKING:
    from agent.app import Agent
    from agent.app.cycles import Confirm, Progress
    from agent.app.documents.futures_report import FuturesReport
    from agent.cli.display.terminal import Document
    from agent.execution.step_context import StepOutcome


@command(Heading.LOOK, 70)
def positions(
    config: ConfigPath = DEFAULT_CONFIG, paper: OnPaper = False, as_json: AsJson = False
) -> None:
    """Lists open futures positions with entry, mark, profit, funding and liquidation price."""
    from agent.app.documents import futures as documents
    from agent.cli.display import futures_tables

    document: Document = mark_paper(
        documents.positions_document(_read_futures_report(config, paper)), paper
    )
    emit(document, as_json, lambda: out.print(futures_tables.futures_positions_table(document)))
    raise typer.Exit(_report_unknown_account(document, as_json))


@command(Heading.LOOK, 80)
def margin(
    deposit: Annotated[
        str | None, typer.Option("--deposit", help="Deposit this much collateral, in whole coins.")
    ] = None,
    withdraw: Annotated[
        str | None,
        typer.Option(
            "--withdraw", help="Withdraw this much free margin to the wallet, or all of it: all."
        ),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    paper: OnPaper = False,
    send: Send = False,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Shows the margin account with its limits, and the orders that the agent would plan. Deposits
    or withdraws margin.
    """
    from agent.app.documents import futures as documents
    from agent.app.positions import margin_moves
    from agent.cli.display import futures_tables

    if deposit is not None and withdraw is not None:
        raise ConfigError("--deposit and --withdraw cannot be combined", "use one of them")
    amount_text = withdraw if deposit is None else deposit
    if paper and amount_text is not None:
        raise ConfigError(
            "--paper is read-only: margin cannot be moved manually on paper", "omit --paper"
        )
    if amount_text is None:
        if send:
            raise ConfigError("--send needs --deposit or --withdraw", "for example --deposit 100")
        document: Document = mark_paper(
            documents.margin_document(_read_futures_report(config, paper)), paper
        )
        emit(document, as_json, lambda: futures_tables.show_margin(out, document))
        raise typer.Exit(_report_unknown_account(document, as_json))

    def request_move(agent: Agent, confirm: Confirm, progress: Progress) -> StepOutcome:
        return margin_moves.move_margin(
            agent,
            amount_text,
            is_deposit=deposit is not None,
            send=send,
            confirm=confirm,
            progress=progress,
        )

    request_text = "withdraws margin" if deposit is None else "deposits margin"
    style = PrintStyle(as_json, verbose)
    raise typer.Exit(_carry_out(config, request_move, style, send, yes, request_text))


@command(Heading.TRADE, 60)
def deleverage(
    to: Annotated[
        str | None,
        typer.Option("--to", help="Leverage to reduce to, such as 2x; 0x closes every position."),
    ] = None,
    market: Annotated[
        str | None,
        typer.Option("--market", help="Reduce in this market only; without --to, close it."),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Reduces futures positions, all by the same share or in one market, under the same guards."""
    from agent.app.positions import futures

    def request_reduction(agent: Agent, confirm: Confirm, progress: Progress) -> StepOutcome:
        return futures.deleverage(agent, to, market, send=send, confirm=confirm, progress=progress)

    def warn(agent: Agent) -> None:
        if reopening_text := futures.reopening_note(agent, to):
            note(reopening_text)

    style = PrintStyle(as_json, verbose)
    raise typer.Exit(
        _carry_out(config, request_reduction, style, send, yes, "reduces futures positions", warn)
    )


@command(Heading.TRADE, 70)
def delegate(
    end: Annotated[bool, typer.Option("--end", help="End the delegate's right to trade.")] = False,
    days: Annotated[
        int | None,
        typer.Option(
            "--days",
            min=1,
            max=179,
            help="On Hyperliquid: days for which the key may trade.",
            show_default="90",
        ),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Lets another key trade for the margin account, without the right to withdraw. The key is that
    of futures.delegate, on Hyperliquid a new agent key.
    """
    from agent.app.positions import margin_moves
    from agent.app.start import venue
    from agent.cli.display import futures_tables

    if end and days is not None:
        raise ConfigError("--days and --end cannot be combined", "use one of them")
    with open_for_command(config, send=send, yes=yes) as (agent, spinner):
        if venue.uses_agent_key(agent):
            document: Document = venue.approve_agent_key(
                agent,
                days,
                revokes=end,
                send=send,
                confirm=lambda approval: ask_owner(
                    agent,
                    spinner,
                    approval,
                    futures_tables.show_key_approval,
                    "Sign and send this?",
                    yes=yes,
                ),
                ask=hidden_prompt(),
            )
            show_result(spinner, document, futures_tables.show_key_approval, as_json=as_json)
            raise typer.Exit(OUTCOME_EXIT_CODES.get(document["outcome"], EXIT_OK))
    if days is not None:
        raise ConfigError("--days: only Hyperliquid agent keys expire", "omit it")

    def request_change(agent: Agent, confirm: Confirm, progress: Progress) -> StepOutcome:
        return margin_moves.change_delegate(
            agent, is_revoked=end, send=send, confirm=confirm, progress=progress
        )

    request_text = "ends the delegate's right to trade" if end else "lets the delegate trade"
    style = PrintStyle(as_json, verbose)
    raise typer.Exit(_carry_out(config, request_change, style, send, yes, request_text))


@command(Heading.LOOK, 90)
def funding(
    days: Annotated[
        int, typer.Option("--days", min=1, max=3_660, help="Number of recorded days.")
    ] = 7,
    config: ConfigPath = DEFAULT_CONFIG,
    paper: OnPaper = False,
    as_json: AsJson = False,
) -> None:
    """Shows the funding of each market: daily rate, pending, and expected over 30 days.

    Also the funding paid or received today, and by day and market.
    """
    from agent.app.documents import futures as documents
    from agent.cli.display import futures_tables

    with show_spinner(READING_CHAIN_TEXT), api.open_agent(paper_or_live(config, paper)) as agent:
        document: Document = documents.funding_document(*api.futures_funding(agent, days))
    document = mark_paper(document, paper)
    emit(document, as_json, lambda: futures_tables.show_funding(out, document))
    raise typer.Exit(_report_unknown_account(document, as_json))


@command(Heading.TRADE, 35)
def hedge(
    asset: Annotated[str, typer.Argument(help="Asset that is above its target.")],
    ratio: Annotated[
        str,
        typer.Option("--ratio", help="Share of the excess to short; default: as in the config."),
    ] = "",
    close: Annotated[bool, typer.Option("--close", help="Close the asset's hedge.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Shorts part of an overweight asset instead of selling it, and compares the costs of both.
    With --close it closes the short.
    """
    from agent.app.positions import futures

    def request_hedge(agent: Agent, confirm: Confirm, progress: Progress) -> StepOutcome:
        return futures.hedge(
            agent, asset, ratio, close=close, send=send, confirm=confirm, progress=progress
        )

    request_text = f"closes the hedge of {asset}" if close else f"hedges {asset}"
    style = PrintStyle(as_json, verbose)
    raise typer.Exit(_carry_out(config, request_hedge, style, send, yes, request_text))


def _carry_out(
    config: Path,
    request_step: Callable[[Agent, Confirm, Progress], StepOutcome],
    style: PrintStyle,
    send: bool,
    yes: bool,
    request_text: str,
    warn: Callable[[Agent], None] = lambda _: None,
) -> int:
    """Carry out an owner's request, print its outcome, and return the exit code. `warn` prints any
    warnings.
    """
    with open_for_command(config, send=send, yes=yes) as (agent, spinner):
        confirm = confirmer(agent, yes, spinner, verbose=style.verbose)
        outcome = request_step(agent, confirm, spinner.update)
        with spinner.hidden():
            exit_code = show_outcome(
                outcome,
                agent,
                style,
                send_allowed=send,
                extra_fields=_refused_request_fields(outcome, request_text),
            )
            if exit_code == EXIT_OK:
                warn(agent)
            return exit_code


def _refused_request_fields(outcome: StepOutcome, request_text: str) -> dict[str, object]:
    """Return the owner's request as the decision to print, if the outcome was refused without a
    plan. The step's own decision does not concern the request.
    """
    from agent.model import AdjustFutures, decision_name

    if outcome.plan is not None or outcome.kind is not api.OutcomeKind.REFUSED:
        return {}
    return {
        "decision": {
            "kind": decision_name(AdjustFutures),
            "reason": f"the owner {request_text}",
            "outcome": outcome.kind.value,
        }
    }


def _read_futures_report(config: Path, paper: bool) -> FuturesReport:
    with show_spinner(READING_CHAIN_TEXT), api.open_agent(paper_or_live(config, paper)) as agent:
        return api.current_futures_report(agent)


def _report_unknown_account(document: Document, as_json: bool) -> int:
    """Return the exit code; if the account is unknown, print the reason first."""
    if not document["unknown"]:
        return EXIT_OK
    if not as_json:
        err.print(safe_text(f"The margin account is unknown: {document['unknown']}", "bold red"))
    return EXIT_REFUSED
