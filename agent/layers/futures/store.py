"""Stored state of futures: budgets of the last 24 h, the newest emergency, and hedges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from sqlalchemy import Connection, Row, Select, bindparam, select

from agent.layers.futures.policy.hedge_closing import hedges_after_fill
from agent.layers.futures.state import FuturesState
from agent.model import (
    FuturesGrant,
    Hedge,
    IntentKind,
    MarginDeposit,
    OrderCancel,
    PerpOrder,
    Receipt,
    StopOrder,
)
from agent.ports import Grant
from agent.ports.perpetuals import futures_grant
from agent.store.accounts.budget_rows import turnover_sum
from agent.store.database.rows import decode_json, decompress_text, parse_whole
from agent.store.tables import BudgetUseRow, IntentRow

FUTURES_REDUCTION = "futures_reduction"
"""Budget kind of a futures reduction outside of emergencies; its turnover is the notional, which
turnover limits ignore.
"""
FUTURES_EMERGENCY = "futures_emergency"
"""Budget kind of a position closed ahead of liquidation."""
FUTURES_DEPOSIT = "futures_deposit"
"""Budget kind of a margin deposit; its turnover is the collateral, which turnover limits ignore
too.
"""
FUTURES_RESTING = "futures_resting"
"""Budget kind of stops, limit orders and their cancels, none of which changes a hedge."""
FUTURES_BUDGET_KINDS = (
    IntentKind.FUTURES.value,
    FUTURES_REDUCTION,
    FUTURES_EMERGENCY,
    FUTURES_DEPOSIT,
    FUTURES_RESTING,
)
"""Budget kinds of futures actions."""
MAX_RESTING_READ = 100
"""Number of newest stops, limit orders and cancels among which the newest limit order is searched."""


def read_state(
    db: Connection, budget_rows: Sequence[BudgetUseRow], newest_s_by_kind: Mapping[str, int | None]
) -> FuturesState:
    """Return the state from the budget rows of the last 24 h and from the newest orders;
    `newest_s_by_kind` are the chain times of the newest success of each budget kind.
    """
    return FuturesState(
        turnover_sum([row for row in budget_rows if row.kind == FUTURES_REDUCTION]),
        turnover_sum([row for row in budget_rows if row.kind == FUTURES_DEPOSIT]),
        sum(
            parse_whole(row.gas_wei, "a budget entry")
            for row in budget_rows
            if row.kind == FUTURES_EMERGENCY
        ),
        newest_s_by_kind[FUTURES_EMERGENCY],
        _stored_hedges(db, newest_s_by_kind),
        _stored_set_goals(db, newest_s_by_kind),
    )


def budget_kind(grant: Grant) -> str:
    """Return the budget kind of a futures action: FUTURES_REDUCTION for a reduction,
    FUTURES_EMERGENCY in an emergency, FUTURES_DEPOSIT for a margin deposit, FUTURES_RESTING for a
    stop, a limit order or a cancel.
    """
    layer_grant = futures_grant(grant)
    if layer_grant is None:
        return IntentKind.FUTURES.value
    if layer_grant.is_emergency:
        return FUTURES_EMERGENCY
    if is_resting(layer_grant):
        return FUTURES_RESTING
    if isinstance(layer_grant.action, MarginDeposit):
        return FUTURES_DEPOSIT
    is_reduction = isinstance(layer_grant.action, PerpOrder) and layer_grant.action.is_reduce_only
    return FUTURES_REDUCTION if is_reduction else IntentKind.FUTURES.value


def reduced_market(grant: Grant) -> str:
    """Return the market of a reduction; empty for any other action."""
    layer_grant = futures_grant(grant)
    if layer_grant is None or not isinstance(layer_grant.action, PerpOrder):
        return ""
    return layer_grant.action.market if layer_grant.action.is_reduce_only else ""


def is_resting_row(row: IntentRow) -> bool:
    """True for a futures action that `is_resting`."""
    if row.kind != IntentKind.FUTURES.value:
        return False
    layer_grant = futures_grant(decode_json(Grant, decompress_text(row.grant_z)))
    return layer_grant is not None and is_resting(layer_grant)


def is_resting(grant: FuturesGrant) -> bool:
    """True for a stop, a limit order, or a cancel of one."""
    action = grant.action
    if isinstance(action, PerpOrder):
        return action.kind.can_rest
    return isinstance(action, StopOrder | OrderCancel)


def _stored_hedges(db: Connection, newest_s_by_kind: Mapping[str, int | None]) -> tuple[Hedge, ...]:
    """Return the hedges after the newest successful futures action, from its grant and its
    fills.
    """
    newest_order_rows = _newest_rows(
        db, newest_s_by_kind, [kind for kind in FUTURES_BUDGET_KINDS if kind != FUTURES_RESTING]
    )
    if not newest_order_rows:
        return ()
    row = newest_order_rows[-1]
    layer_grant = futures_grant(decode_json(Grant, decompress_text(row.grant_z)))
    if (
        layer_grant is None
        or not isinstance(layer_grant.action, PerpOrder)
        or row.receipt_json is None
    ):
        return () if layer_grant is None else layer_grant.hedges
    order = layer_grant.action
    fills = decode_json(Receipt, row.receipt_json).fills
    fill_sizes_raw = [fill.size_raw for fill in fills if fill.market == order.market]
    return hedges_after_fill(layer_grant, sum(fill_sizes_raw) if fill_sizes_raw else order.size_raw)


def _stored_set_goals(
    db: Connection, newest_s_by_kind: Mapping[str, int | None]
) -> tuple[tuple[str, int], ...]:
    """Return the goals of the set to which the newest successful order belongs; limit orders count,
    deposits, stops and cancels do not.
    """
    goals: tuple[tuple[str, int], ...] = ()
    order_seq = 0
    for row in _newest_rows(
        db, newest_s_by_kind, [kind for kind in FUTURES_BUDGET_KINDS if kind != FUTURES_RESTING]
    ):
        if (layer_grant := _order_grant(row.grant_z)) is not None:
            goals = layer_grant.set_goals
            order_seq = int(row.seq)
    if newest_s_by_kind[FUTURES_RESTING] is None:
        return goals
    # Stops and cancels are of the same kind as limit orders, and may be newer.
    for grant_z in db.scalars(_select_resting_after(), {"order_seq": order_seq}):
        if (layer_grant := _order_grant(grant_z)) is not None:
            return layer_grant.set_goals
    return goals


def _order_grant(grant_z: bytes) -> FuturesGrant | None:
    """Return the grant of an order that trades; None for any other action."""
    layer_grant = futures_grant(decode_json(Grant, decompress_text(grant_z)))
    is_order = layer_grant is not None and isinstance(layer_grant.action, PerpOrder)
    return layer_grant if is_order else None


@cache
def _select_resting_after() -> Select[bytes]:
    """Select the grants of successful stops, limit orders and cancels after an intent, newest first:
    at most MAX_RESTING_READ.
    """
    return (
        select(IntentRow.grant_z)
        .join(BudgetUseRow, BudgetUseRow.intent_id == IntentRow.id)
        .where(
            BudgetUseRow.kind == FUTURES_RESTING,
            BudgetUseRow.succeeded.is_(True),
            IntentRow.seq > bindparam("order_seq"),
        )
        .order_by(IntentRow.seq.desc())
        .limit(MAX_RESTING_READ)
    )


def _newest_rows(
    db: Connection, newest_s_by_kind: Mapping[str, int | None], kinds: Iterable[str]
) -> list[Row[int, bytes, str | None]]:
    """Return the newest successful intent of each of these budget kinds, oldest first."""
    rows = [
        row
        for kind in kinds
        if newest_s_by_kind[kind] is not None
        and (row := db.execute(_select_newest_order(), {"kind": kind}).one_or_none()) is not None
    ]
    return sorted(rows, key=lambda row: int(row.seq))


@cache
def _select_newest_order() -> Select[int, bytes, str | None]:
    """Select the newest successful intent of a budget kind: its number, grant and receipt."""
    return (
        select(IntentRow.seq, IntentRow.grant_z, IntentRow.receipt_json)
        .join(BudgetUseRow, BudgetUseRow.intent_id == IntentRow.id)
        .where(BudgetUseRow.kind == bindparam("kind"), BudgetUseRow.succeeded.is_(True))
        .order_by(BudgetUseRow.chain_s.desc(), IntentRow.seq.desc())
        .limit(1)
    )
