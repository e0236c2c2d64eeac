"""Streaks of failed transactions, which stop rebalances until the owner acts, and the failures of
each exit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import cast

from sqlalchemy import Connection, bindparam, select

from agent.layers import stores
from agent.model import ExitFailures, IntentKind, IntentState, Receipt, UnsignedTx
from agent.policy import failures
from agent.store.accounts.budget_rows import UNTRIGGERED_SWAP, select_booked_loss
from agent.store.accounts.intent_plans import grant_of_intent, plan_of_intent
from agent.store.database.facts import parse_fact_number, read_facts, write_facts
from agent.store.database.rows import decode_json
from agent.store.database.statements import all_rows, is_one_of
from agent.store.tables import BudgetUseRow, IntentRow, StepRow
from agent.store.transitions import NONCE_USED_STATE_NAMES

IN_BATCHES = {"yield_per": 20}
"""How many transactions are read at once, newest first; a server sends no more."""
RESUMED_SEQ_KEY = "resumed_after"
"""Key of the newest intent's number when the owner last resumed; failures up to it do not count."""
FAILURE_STOP_KEY = "failures_stop"
"""Key that is set while consecutive failures stop rebalances."""
_TRADE_KINDS = (IntentKind.SWAP.value, IntentKind.LIQUIDITY.value, IntentKind.FUTURES.value)
"""Kinds of intents that trade."""
_EXIT_KINDS = (
    UNTRIGGERED_SWAP,
    IntentKind.LIQUIDITY.value,
    IntentKind.UNWRAP.value,
    *stores.BUDGET_KINDS,
)
"""Budget kinds that exits may have."""


@dataclass(frozen=True, slots=True)
class FailureStreak:
    """Reverts of the wallet, and cycles that approved or revoked, since the last success;
    `is_stopped` is True if the limit was reached since the owner resumed.
    """

    reverts: int
    approving_cycle_count: int
    is_stopped: bool


def failure_streak(
    db: Connection, facts: Mapping[str, str], refusal_seq_by_token: Mapping[str, int]
) -> FailureStreak:
    """Count the wallet's consecutive failures, with the facts of FAILURE_STOP_KEY and RESUMED_SEQ_KEY.
    `refusal_seq_by_token` has an intent's number by token; approvals of the token up to it do not
    count.
    """
    intent_rows = _rows_since_success(db, facts, refusal_seq_by_token)
    return FailureStreak(*_count_failures(db, intent_rows), bool(facts.get(FAILURE_STOP_KEY)))


def exit_failures(
    db: Connection,
    facts: Mapping[str, str],
    refusal_seq_by_token: Mapping[str, int],
    recent_budget_uses: Sequence[BudgetUseRow],
    chain_now_s: int,
) -> tuple[ExitFailures, ...]:
    """Return the failures of each exit in the last 24 h of chain time, since it last succeeded or
    the owner resumed, newest first.

    `recent_budget_uses` are the rows of the table of budgets (what each intent used of the limits)
    of that time. A revert without such a row counts as if it happened now. An intent's plan
    determines its exit (policy/failures.py); the success of another exit does not end a streak.
    """
    resumed_after_seq = _resumed_after_seq(facts)
    revert_s_by_intent = _recent_revert_times(
        db, resumed_after_seq, recent_budget_uses, chain_now_s
    )
    approval_ids = [
        budget_use.intent_id
        for budget_use in recent_budget_uses
        if budget_use.kind == IntentKind.APPROVE.value
    ]
    if not revert_s_by_intent and len(approval_ids) < failures.MAX_APPROVALS_IN_ROW:
        return ()
    successful_ids = [
        exit_budget_use.intent_id
        for exit_budget_use in recent_budget_uses
        if exit_budget_use.succeeded and exit_budget_use.kind in _EXIT_KINDS
    ]
    chain_s_by_intent = {
        budget_use.intent_id: budget_use.chain_s for budget_use in recent_budget_uses
    } | revert_s_by_intent
    streak_by_exit: dict[str, _ExitStreak] = {}
    conditions = (
        IntentRow.id.in_({*revert_s_by_intent, *approval_ids, *successful_ids}),
        IntentRow.seq > resumed_after_seq,
    )
    intents_query = select(IntentRow).where(*conditions).order_by(IntentRow.seq.desc())
    intent_rows = all_rows(db, intents_query, IntentRow)
    cycle_by_step = _cycles_of_approvals(db, intent_rows)
    for row in intent_rows:
        plan = plan_of_intent(db, row.id)
        if plan is None or not (exit_name := failures.exit_name(plan)):
            continue
        if (layer := stores.layer_of_kind(IntentKind(row.kind))) is not None:
            # several orders of a plan may be sent together, each an exit of its own
            exit_name = layer.exit_name(grant_of_intent(db, row.id)) or exit_name
        streak = streak_by_exit.setdefault(exit_name, _ExitStreak())
        if row.kind == IntentKind.APPROVE.value:
            token = decode_json(UnsignedTx, row.tx_json).to
            if token in exit_name.split() and row.seq > refusal_seq_by_token.get(token, 0):
                streak.add(row, chain_s_by_intent[row.id], cycle_by_step[row.step_id])
        elif _is_reverted(row):
            streak.add(row, chain_s_by_intent[row.id])
        else:
            streak.is_ended = True
    return tuple(
        ExitFailures(
            exit_name,
            streak.reverts,
            len(streak.approving_cycles),
            streak.newest_s,
            streak.free_reverts,
        )
        for exit_name, streak in streak_by_exit.items()
        if streak.newest_s
    )


@dataclass(slots=True)
class _ExitStreak:
    """Failures of one exit, counted from the newest intent back to its last success."""

    reverts: int = 0
    free_reverts: int = 0
    """Those of them that cost no gas."""
    approving_cycles: set[str] = field(default_factory=set)
    newest_s: int = 0
    is_ended: bool = False

    def add(self, row: IntentRow, at_s: int, approving_cycle: str = "") -> None:
        """Count an intent that is older than those counted before; `approving_cycle` is the cycle
        of an approval.
        """
        if self.is_ended:
            return
        self.reverts += _is_reverted(row)
        self.free_reverts += _is_reverted(row) and _is_free(row)
        if approving_cycle:
            self.approving_cycles.add(approving_cycle)
        self.newest_s = self.newest_s or at_s


def _recent_revert_times(
    db: Connection,
    resumed_after_seq: int,
    recent_budget_uses: Sequence[BudgetUseRow],
    chain_now_s: int,
) -> dict[str, int]:
    """Return the chain time by intent of each revert that is in `recent_budget_uses`, or in
    none.
    """
    booked_s_by_intent = {
        budget_use.intent_id: budget_use.chain_s for budget_use in recent_budget_uses
    }
    revert_s_by_intent: dict[str, int] = {}
    newest_intents = db.execute(
        _select_maybe_reverted(), {"resumed": resumed_after_seq}, execution_options=IN_BATCHES
    )
    for row in cast("Iterable[IntentRow]", newest_intents):
        if (
            row.id not in booked_s_by_intent
            and db.scalar(select_booked_loss(), {"intent_id": row.id}) is not None
        ):
            break  # its budget is too old
        if _is_reverted(row):
            revert_s_by_intent[row.id] = booked_s_by_intent.get(row.id, chain_now_s)
    newest_intents.close()
    return revert_s_by_intent


def record_failure_stop(db: Connection, refusal_seq_by_token: Mapping[str, int]) -> None:
    """Record the stop of rebalances if the failure limit was reached. Exits continue, and their
    success does not lift the stop.
    """
    intent_rows = _rows_since_success(db, read_facts(db, RESUMED_SEQ_KEY), refusal_seq_by_token)
    if failures.too_many_failures(*_count_failures(db, intent_rows)):
        write_facts(db, {FAILURE_STOP_KEY: 1})


def _count_failures(db: Connection, intent_rows: list[IntentRow]) -> tuple[int, int]:
    """Return the number of reverts, and of cycles that approved or revoked."""
    return sum(map(_is_reverted, intent_rows)), len(
        {*_cycles_of_approvals(db, intent_rows).values()}
    )


def _resumed_after_seq(facts: Mapping[str, str]) -> int:
    return parse_fact_number(RESUMED_SEQ_KEY, facts.get(RESUMED_SEQ_KEY))


def _cycles_of_approvals(db: Connection, intent_rows: Iterable[IntentRow]) -> dict[str, str]:
    """Return the cycle of each step that approved or revoked; a step without a cycle stands for
    itself.
    """
    step_ids = {row.step_id for row in intent_rows if row.kind == IntentKind.APPROVE.value}
    if not step_ids:
        return {}
    step_rows = db.execute(_select_cycles(), {"step_ids": list(step_ids)})
    return {row.id: row.cycle_id or row.id for row in step_rows}


def _rows_since_success(
    db: Connection, facts: Mapping[str, str], refusal_seq_by_token: Mapping[str, int]
) -> list[IntentRow]:
    """Return the intents mined since the last successful swap, liquidity action or futures action
    and since the owner resumed, newest first.

    Only such a success ends a streak. Cancels do not count, nor do changes of resting stops, which
    trade nothing and cost no gas. Successful approvals count, since each
    new attempt may need one, but not those for exits refused before sending: their attempts are
    bounded in agent/policy/orders/blocked_exits.py, and an exit that never succeeds must not stop
    the others.
    """
    intent_rows: list[IntentRow] = []
    # Streaks are short and the table is long, so rows are fetched in small batches.
    newest_intents = db.execute(
        _select_since_resumed(),
        {"resumed": _resumed_after_seq(facts)},
        execution_options=IN_BATCHES,
    )
    for row in cast("Iterable[IntentRow]", newest_intents):
        if (
            row.state not in NONCE_USED_STATE_NAMES
            or row.kind == IntentKind.CANCEL.value
            or any(layer.is_resting(row) for layer in stores.LAYERS)
        ):
            continue
        if row.kind in _TRADE_KINDS and not _is_reverted(row):
            break
        if (
            not refusal_seq_by_token
            or row.kind != IntentKind.APPROVE.value
            or row.seq > refusal_seq_by_token.get(decode_json(UnsignedTx, row.tx_json).to, 0)
        ):
            intent_rows.append(row)
    newest_intents.close()
    return intent_rows


def _is_reverted(row: IntentRow) -> bool:
    return row.receipt_json is not None and decode_json(Receipt, row.receipt_json).status != 1


def _is_free(row: IntentRow) -> bool:
    """True for an intent whose receipt names no cost of gas, such as an order at a venue."""
    return row.receipt_json is not None and not decode_json(Receipt, row.receipt_json).gas_cost_wei


_select_cycles = cache(
    lambda: select(StepRow.id, StepRow.cycle_id).where(
        StepRow.id.in_(bindparam("step_ids", expanding=True))
    )
)
_select_maybe_reverted = cache(
    lambda: (
        select(IntentRow)
        .where(is_one_of(IntentRow.state, (IntentState.REVERTED.value, IntentState.MINED.value)))
        .where(IntentRow.seq > bindparam("resumed"))
        .order_by(IntentRow.seq.desc())
    )
)
_select_since_resumed = cache(
    lambda: (
        select(IntentRow).where(IntentRow.seq > bindparam("resumed")).order_by(IntentRow.seq.desc())
    )
)
