"""Hard pause: pause at once, show pending transactions and allowances, act once confirmed (T14)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from agent import wiring
from agent.app.agent import open_agent
from agent.app.cycles import Progress, ignore_progress
from agent.app.documents import fill
from agent.app.documents.owner import HANDED_OVER, ExposedDocument, HardPauseDocument
from agent.app.documents.plans import transaction
from agent.app.records.kill_switch import pause_by_file
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.errors import ErrorCode, OperatorNeeded, TrimtabError
from agent.execution.approvals import (
    OpenExposure,
)
from agent.execution.step_context import StepOutcome
from agent.store.files.locks import LockHeld, require_private


@dataclass(frozen=True, slots=True)
class HardPauseReport:
    """Result of a hard pause.

    `outcome` is None if this command sent nothing. `hard` is the state of the switch; `held` names
    the process that holds the wallet's lock and cancels instead.
    """

    reason: str
    hard: bool
    found: OpenExposure
    outcome: StepOutcome | None = None
    held: str = ""


def pause_hard(
    config: LoadedConfig | Path | str,
    reason: str,
    *,
    send: bool,
    sure: bool,
    confirm: Callable[[OpenExposure], bool],
    progress: Progress = ignore_progress,
) -> HardPauseReport:
    """Pause, show what a hard pause would cancel and revoke, and pause hard once confirmed.

    A soft pause stops all sending while the chain is read and the owner decides; with `send` and
    `sure` the pause is hard from the start. Pending transactions are cancelled and allowances
    revoked by this command, or by the run that holds the wallet.
    """
    with ExitStack() as stack:
        try:
            loaded = load_config(config, guarded=False)
            _, switch = stack.enter_context(wiring.open_store_offline(loaded))
        except TrimtabError as error:
            message = f"paused by {pause_by_file(config, error)}, but not hard: {error.message}"
            raise OperatorNeeded(
                message,
                f"{error.remedy}; then trimtab pause --hard again",
                code=ErrorCode.HARD_PAUSE,
            ) from error
        switch.pause(reason, int(time.time()), hard=send and sure)
    require_private(loaded.path, "config")
    with open_agent(loaded) as agent:
        exposure = agent.open_exposure()
        if not send or not (sure or confirm(exposure)):
            return HardPauseReport(reason, agent.context.switch.is_hard(), exposure)
        agent.context.switch.pause(reason, int(time.time()), hard=True)
        try:
            return HardPauseReport(
                reason, True, exposure, agent.cancel_and_revoke(reason, progress)
            )
        except LockHeld as held:
            return HardPauseReport(reason, True, exposure, held=held.message)


def hard_pause_document(halted: HardPauseReport, send: bool) -> HardPauseDocument:
    """Return the document of a hard pause."""
    exposure = fill(ExposedDocument, halted.found)
    clear = not exposure["cancel"] and not exposure["revoke"]
    if halted.outcome is not None:
        outcome, message = halted.outcome.kind.value.replace("halt", "clear"), halted.outcome.reason
    elif halted.held and not clear:
        outcome, message = "handed over", f"{halted.held}; {HANDED_OVER}"
    elif clear:
        outcome, message = "clear", "no pending transactions, no open allowances"
    elif send:
        outcome, message = "declined", "not confirmed, but paused"
    else:
        outcome, message = "planned", "paused; to cancel and revoke: trimtab pause --hard --send"
    sent = () if halted.outcome is None else halted.outcome.transactions
    transactions = [transaction(intent) for intent in sent]
    return fill(
        HardPauseDocument,
        halted,
        paused=True,
        outcome=outcome,
        told=message,
        transactions=transactions,
        **exposure,
    )
