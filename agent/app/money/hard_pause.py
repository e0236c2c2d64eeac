"""Hard pause: pause at once, show pending transactions and allowances, act once confirmed (T14)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from agent import wiring
from agent.app.agent import open_agent
from agent.app.cycles import Progress, ignore_progress
from agent.app.documents import fill
from agent.app.documents.owner import HANDED_OVER_ADVICE, CancelAndRevokeDocument, HardPauseDocument
from agent.app.documents.plans import transaction_document
from agent.app.records.kill_switch import pause_by_file
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.errors import ErrorCode, OperatorNeeded, TrimtabError
from agent.execution.approvals import (
    PendingAndAllowances,
    cancellable_intents,
)
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import StepOutcome
from agent.store.files.locks import LockHeld, require_trusted_writers
from agent.venues.allowances import unread_allowances
from agent.wiring.signed_proposals import cancel_effects, signed_proposal_texts


@dataclass(frozen=True, slots=True)
class HardPauseReport:
    """Result of a hard pause.

    `outcome` is None if this command sent nothing. `is_hard` is the state of the switch;
    `lock_holder` names the process that holds the wallet's lock and cancels instead.
    `rejection_text` is about a proposal that can still be executed, and its rejection;
    `signed_texts` are about recorded signatures, `cancel_texts` say what a dry run would do with
    proposals.
    """

    reason: str
    is_hard: bool
    pending_and_allowances: PendingAndAllowances
    outcome: StepOutcome | None = None
    lock_holder: str = ""
    rejection_text: str = ""
    signed_texts: tuple[str, ...] = ()
    cancel_texts: tuple[str, ...] = ()


def pause_hard(
    config: LoadedConfig | Path | str,
    reason: str,
    *,
    send: bool,
    is_confirmed: bool,
    confirm: Callable[[HardPauseReport], bool],
    progress: Progress = ignore_progress,
) -> HardPauseReport:
    """Pause, show what a hard pause would cancel and revoke, and pause hard once confirmed.

    A soft pause stops all sending while the chain is read and the owner decides; with `send` and
    `is_confirmed` the pause is hard from the start. Pending transactions are cancelled and
    allowances revoked by this command, or by the run that holds the wallet.
    """
    with ExitStack() as stack:
        try:
            loaded_config = load_config(config, checks_permissions=False)
            _, kill_switch = stack.enter_context(wiring.open_store_offline(loaded_config))
        except TrimtabError as error:
            message = f"paused by {pause_by_file(config, error)}, but not hard: {error.message}"
            raise OperatorNeeded(
                message,
                f"{error.remedy}; then trimtab pause --hard again",
                code=ErrorCode.HARD_PAUSE,
            ) from error
        kill_switch.pause(reason, int(time.time()), hard=send and is_confirmed)
    progress("Paused. Reading the chain")
    require_trusted_writers(loaded_config.path, "config")
    with open_agent(loaded_config) as agent:
        open_items = agent.pending_and_allowances()
        chain_nonce = open_items.step_input.snapshot.nonce_latest
        store = agent.context.store
        intents = () if send else cancellable_intents(store.journal)
        effects = cancel_effects(loaded_config, store, intents)
        report = HardPauseReport(
            reason,
            agent.context.kill_switch.is_hard(),
            open_items,
            signed_texts=signed_proposal_texts(store, chain_nonce),
            cancel_texts=tuple(effect.text for effect in effects),
        )
        if send and (is_confirmed or confirm(report)):
            agent.context.kill_switch.pause(reason, int(time.time()), hard=True)
            report = replace(report, is_hard=True)
            try:
                report = replace(report, outcome=agent.cancel_and_revoke(reason, progress))
            except LockHeld as error:
                report = replace(report, lock_holder=error.message)
            except AwaitingExternalSignature as awaiting:
                rejection_text = f"{awaiting.message}\nWhat to do: {awaiting.remedy}"
                report = replace(report, rejection_text=rejection_text)
            except TrimtabError as error:
                error.message = (
                    f"paused hard, but not all is cancelled and revoked: {error.message}"
                )
                raise
        return replace(report, signed_texts=signed_proposal_texts(store, chain_nonce))


def hard_pause_document(report: HardPauseReport, send: bool) -> HardPauseDocument:
    """Return the document of a hard pause."""
    open_item_fields = fill(CancelAndRevokeDocument, report.pending_and_allowances)
    unread_texts = unread_allowances(report.pending_and_allowances.step_input)
    is_nothing_open = not open_item_fields["cancel"] and not open_item_fields["revoke"]
    is_clear = is_nothing_open and not unread_texts and not report.signed_texts
    remaining_texts = (*unread_texts, *report.signed_texts)
    if report.outcome is not None:
        clear_text = "done" if report.signed_texts else "clear"
        outcome = report.outcome.kind.value.replace("halt", clear_text)
        lines = [report.outcome.reason, *report.signed_texts]
    elif report.rejection_text:
        outcome = "unfinished"
        lines = [report.rejection_text, *remaining_texts]
    elif report.lock_holder and not is_clear:
        outcome = "handed over"
        lines = [report.lock_holder, HANDED_OVER_ADVICE, *remaining_texts]
    elif is_clear:
        outcome = "clear"
        lines = ["no pending transactions, no open allowances"]
    elif is_nothing_open and unread_texts:
        outcome = "unknown"
        lines = ["paused", *remaining_texts, "trimtab pause --hard again"]
    elif send:
        outcome = "declined"
        lines = ["not confirmed, but paused", *remaining_texts]
    else:
        outcome = "planned"
        advice = "; it ".join(
            ("to cancel and revoke: trimtab pause --hard --send", *report.cancel_texts)
        )
        lines = ["paused", *remaining_texts, advice]
    intents = () if report.outcome is None else report.outcome.transactions
    transactions = [transaction_document(intent) for intent in intents]
    return fill(
        HardPauseDocument,
        report,
        paused=True,
        outcome=outcome,
        message="\n".join(lines),
        transactions=transactions,
        **open_item_fields,
    )
