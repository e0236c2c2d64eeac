"""Deposits: find them, invest them after confirmation, and classify external transfers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent import engine, wiring
from agent.app.agent import Agent
from agent.app.cycles import Progress, ignore_progress
from agent.app.documents.steps import transfer_document
from agent.config.load import load_config
from agent.errors import ConfigError
from agent.execution import evaluation
from agent.execution.approvals import current_step_input
from agent.execution.settlement import settle_mined
from agent.execution.step_context import OutcomeKind, StepOutcome, StepReaders
from agent.model import (
    ExecutionProgress,
    ExternalTransfer,
    ExternalTransferKind,
    History,
    Invest,
    Snapshot,
    StepInput,
)
from agent.planning.requests import proposer
from agent.policy import gradual_execution
from agent.policy.cash_flows import balance_changes, transfers
from agent.policy.drift import compute_drifts
from agent.reference import reference_prices
from agent.units import NATIVE

if TYPE_CHECKING:
    from agent.app.documents.records import ConfirmedTransfersDocument, TransfersDocument


@dataclass(frozen=True, slots=True)
class InvestmentReport:
    """New deposits, and the plan that invests them or its result.

    `outcome` is None without deposits. `left` are deposits that are not invested, for lack of room
    in portfolio.max_live_value or because the owner selected others. `told` is True once the
    deposits are recorded. `rest` is the unfinished top-up, None once everything is invested.
    """

    step_input: StepInput
    came: tuple[ExternalTransfer, ...]
    outcome: StepOutcome | None
    told: bool = False
    rest: ExecutionProgress | None = None
    left: tuple[ExternalTransfer, ...] = ()

    @property
    def wallet(self) -> str:
        """Address to deposit to: the agent's own wallet."""
        return self.step_input.snapshot.owner


Confirm = Callable[[InvestmentReport], bool]


def invest(
    agent: Agent,
    *,
    only: Collection[int] = (),
    send: bool = False,
    confirm: Confirm,
    progress: Progress = ignore_progress,
) -> InvestmentReport:
    """Find deposits since the last comparison of balances.

    With `send` and a confirmation they are recorded and invested. Losses are handled by `trimtab
    flows`. If portfolio.max_live_value has no room for all deposits, the oldest that fit are
    invested; `only` names the transfers to invest instead. Raises Refused if none fits, ConfigError
    if a number does not belong to a deposit.
    """
    context = agent.context
    if not send:
        found = _find_deposits(current_step_input(context.readers, context.store), only)
        if not found.came:
            return found
        readers = _deposit_readers(context.readers, found)
        return replace(
            found, outcome=evaluation.evaluate(readers, proposer(_invest_request(found)))
        )
    recorded = False

    def record_if_confirmed(outcome: StepOutcome) -> bool:
        nonlocal recorded
        if not confirm(replace(found, outcome=outcome)):
            return False
        _confirm_deposits(agent, found.came)
        recorded = True
        return True

    def answer(outcome: StepOutcome) -> bool:
        return outcome.kind is OutcomeKind.PLANNED and record_if_confirmed(outcome)

    with wiring.open_actors(context, answer, progress) as actors:
        actors.executor.reconcile()
        found = _find_deposits(current_step_input(context.readers, context.store), only)
        if not found.came:
            return found
        outcome = engine.run_step(
            _deposit_readers(context.readers, found), _invest_request(found), context.store, actors
        )
        if outcome.kind is OutcomeKind.HOLD:  # too small for a trade, but still a deposit
            record_if_confirmed(outcome)
        return replace(found, outcome=outcome, told=recorded, rest=_open_top_up(agent, outcome))


def _invest_request(found: InvestmentReport) -> Invest:
    active = transfers.active_purchase(found.step_input)
    amounts = tuple(_raw(found.step_input, found.came).items())
    return Invest(amounts, "" if active is None else active.id)


def _open_top_up(agent: Agent, outcome: StepOutcome) -> ExecutionProgress | None:
    """Return the unfinished top-up, if any; record a finished one as ended."""
    step = agent.context.readers.step_input_at((outcome.after or outcome.step_input).snapshot)
    active = transfers.active_purchase(step)
    if active is None:
        return None
    prices = reference_prices(step).by_token
    decided = gradual_execution.decide_slice(step, compute_drifts(step, prices), prices)
    if decided is None or not decided.ended:
        return active
    agent.context.store.executions.end(
        active.id, "ended", decided.ended, step.snapshot.head.timestamp_s
    )
    return None


def _find_deposits(step: StepInput, only: Collection[int]) -> InvestmentReport:
    assets = {asset.token.address: asset for asset in step.portfolio.assets}
    coin = step.portfolio.wrapped_native in assets and assets[step.portfolio.wrapped_native].native
    ours = tuple(
        flow
        for flow in step.history.flows
        if flow.delta_raw > 0 and (flow.token in assets or (coin and flow.token == NATIVE))
    )
    if strange := sorted({*only} - {flow.id for flow in ours}):
        raise ConfigError(
            f"--flow {strange[0]}: no unexplained deposit has this number",
            "trimtab flows lists them",
        )
    came = transfers.investable_deposits(
        step, [flow for flow in ours if not only or flow.id in only]
    )
    return InvestmentReport(step, came, None, left=tuple(flow for flow in ours if flow not in came))


def _raw(step: StepInput, flows: tuple[ExternalTransfer, ...]) -> dict[str, int]:
    """Return the base units of each asset in these transfers; native coin counts as its wrapped
    token.
    """
    came: dict[str, int] = {}
    for flow in flows:
        token = step.portfolio.wrapped_native if flow.token == NATIVE else flow.token
        came[token] = came.get(token, 0) + flow.delta_raw
    return came


def _confirm_deposits(agent: Agent, came: tuple[ExternalTransfer, ...]) -> None:
    """Record the deposits before any of them is spent."""
    for flow in came:
        if flow.id:
            agent.context.store.balances.classify(
                flow.id, ExternalTransferKind.DEPOSIT, agent.context.clock.now_s()
            )


def _deposit_readers(readers: StepReaders, found: InvestmentReport) -> StepReaders:
    """Return readers that treat these transfers as deposits before the owner has classified them.

    Other deposits are ignored, whatever their value: they are not invested and do not block the
    investment. Losses are unaffected.
    """
    known, came = {flow.id for flow in (*found.came, *found.left)}, Counter[str]()
    for flow in found.came:
        came[flow.token] += flow.delta_raw
    left = _raw(found.step_input, found.left)

    def assemble(snapshot: Snapshot, history: History) -> StepInput:
        step = balance_changes.restore_excluded(readers.assemble(snapshot, history))
        rises = tuple((token, raw - came[token]) for token, raw in step.history.rises)
        flows = tuple(flow for flow in step.history.flows if flow.id not in known)
        step = replace(
            step,
            history=replace(step.history, flows=flows, rises=rises, left_rises=rises),
            aside_raw=(),
        )
        return balance_changes.exclude_unexplained_rises(
            balance_changes.exclude_amounts(step, left, balance_changes.NOT_REQUESTED)
        )

    return replace(readers, assemble=assemble)


# --- External transfers: list them, and classify them.


NAMES = tuple(
    kind.value
    for kind in (
        ExternalTransferKind.DEPOSIT,
        ExternalTransferKind.WITHDRAWAL,
        ExternalTransferKind.GIFT,
        ExternalTransferKind.LOSS,
    )
)
"""Kinds that the owner may assign."""


def list_transfers(agent: Agent, everything: bool = False, limit: int = 1000) -> TransfersDocument:
    """Compare the balances now, record unexplained changes, and list the open transfers; with
    `everything` also the classified ones.
    """
    readers, store = agent.context.readers, agent.context.store
    snapshot = readers.reader.snapshot()
    present = partial(readers.step_input_at, snapshot)
    settle_mined(store, snapshot, present)
    step = present()
    chosen = [
        flow for flow in reversed(store.balances.transfers(limit)) if everything or flow.is_open
    ]
    unwritten = [flow for flow in step.history.flows if flow.id == 0]
    return {
        "block": snapshot.head.number,
        "numeraire": step.portfolio.numeraire.label,
        "halts": balance_changes.halt_reason(step),
        "flows": [transfer_document(step, flow) for flow in (*unwritten, *chosen)],
    }


def confirm_transfers(
    config: Path | str, number: str, kind: str | None = None
) -> ConfirmedTransfersDocument:
    """Record the owner's classification of open transfers; `number` is an id or "all". Raises
    ConfigError for an invalid number or kind.
    """
    if number != "all" and not number.isdecimal():
        raise ConfigError(
            f"flow: {number!r} is not the id of a transfer", "see trimtab flows, or write all"
        )
    if kind is not None and kind not in NAMES:
        raise ConfigError(f"--as: {kind!r} is unknown", f"choose from {', '.join(NAMES)}")
    with wiring.open_store_offline(load_config(config)) as (store, _):
        classified = store.balances.classify(
            None if number == "all" else int(number),
            None if kind is None else ExternalTransferKind(kind),
            int(time.time()),
        )
    return {
        "confirmed": [
            {"id": flow.id, "as": flow.kind.value if flow.kind else None} for flow in classified
        ]
    }
