"""Stored gradual executions and limit orders.

The start of an execution is stored once; its progress is derived from receipts. A slice is stored
before any of its transactions is sent, with the draw for the next slice. It counts as done while a
swap of its step is in a block; a reorg that removes the block undoes that. A restart derives the
same progress.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, bindparam, select, update

from agent import codec
from agent.errors import ConfigError, ErrorCode, OperatorNeeded, Refused
from agent.layers.gradual.policy import carried_budget, slice_wait_s
from agent.layers.gradual.state import (
    BudgetCarryover,
    ExecutionProgress,
    GradualExecution,
    GradualState,
    SliceDraw,
)
from agent.model import (
    Intent,
    IntentKind,
    LimitOrder,
    PurchaseKind,
)
from agent.store import database
from agent.store.database import (
    Database,
    all_rows,
    first_row,
    insert_rows,
)
from agent.store.tables import (
    ExecutionSliceRow,
    GradualExecutionRow,
    IntentRow,
)
from agent.store.transitions import CONSUMED
from agent.units import NATIVE

T = TypeVar("T")

# --- Gradual executions and limit orders.


SLICE_DRAW = "draw"
"""Key of the draw for the first slice of the next execution."""
EXECUTION, ORDER = "campaign", "order"
NEWEST = 20
"""Number of ended executions searched for the newest that was not a top-up: the cooldown counts
from its end.
"""
OPEN = "open"
_CONSUMED = tuple(state.value for state in CONSUMED)


@dataclass(frozen=True, slots=True)
class PastGradualExecution:
    """A gradual execution; `state` is "open", "ended" or "cancelled", with the reason in `why`."""

    underway: ExecutionProgress
    state: str
    why: str
    ended_s: int | None


@dataclass(frozen=True, slots=True)
class GradualExecutionStore:
    """Gradual executions and limit orders; each method is a transaction of its own."""

    db: Database

    def store_next_draw(self, draw: SliceDraw) -> None:
        """Store the draw for the first slice of the next execution, unless one is stored."""
        with self.db.write("record a draw") as db:
            if database.find_fact(db, SLICE_DRAW) is None:
                database.write_facts(db, {SLICE_DRAW: f"{draw.size_ppm} {draw.wait_ppm}"})

    def begin(self, execution: GradualExecution) -> str:
        """Record an execution, delete the stored draw, and return the id.

        A purchase ends an open execution, whose remainder it includes. Raises OperatorNeeded if
        any other execution is open.
        """
        with self.db.write("record a gradual execution") as db:
            if execution.purchase is not None:
                for row in _open(db, EXECUTION):
                    _end(
                        db,
                        row,
                        "ended",
                        f"a {execution.purchase.value} goes first",
                        execution.began_s,
                    )
            if _open(db, EXECUTION):
                raise OperatorNeeded(
                    "another gradual execution is open already",
                    "wait until it ends, or end it: trimtab limit --cancel ID",
                    code=ErrorCode.EXECUTION_OPEN,
                )
            database.delete_facts(db, SLICE_DRAW)
            return _add(db, EXECUTION, execution.began_s, codec.dumps(execution))

    def begin_slice(
        self, campaign_id: str, number: int, step_id: str, at_s: int, draw: SliceDraw
    ) -> None:
        """Record an attempt at a slice before it is sent; `draw` is for the next slice; the draw of
        the first attempt counts.

        `at_s` is the chain time of the plan. Raises Refused if the execution or order has ended.
        """
        with self.db.write("record a slice") as db:
            if campaign_id not in [row.id for row in _open(db)]:
                raise Refused(
                    "the gradual execution has ended in the meantime",
                    remedy="try again; see trimtab limit",
                    code=ErrorCode.EXECUTION_ENDED,
                )
            first = first_row(db, _attempts(), ExecutionSliceRow, of=campaign_id, number=number)
            used = draw if first is None else SliceDraw(first.size_ppm, first.wait_ppm)
            row = {"campaign_id": campaign_id, "number": number, "step_id": step_id, "at_s": at_s}
            insert_rows(
                db,
                ExecutionSliceRow,
                [row | {"size_ppm": used.size_ppm, "wait_ppm": used.wait_ppm}],
            )

    def end(self, campaign_id: str, state: str, why: str, chain_s: int) -> bool:
        """End an execution or an order; return False if none with this id is open."""
        with self.db.write("record the end of a gradual execution") as db:
            rows = [row for row in _open(db) if row.id == campaign_id]
            for row in rows:
                _end(db, row, state, why, chain_s)
            return bool(rows)

    def newest(self, limit: int = 20) -> tuple[PastGradualExecution, ...]:
        """Return the newest executions, newest first."""
        with self.db.read("read the executions") as db:
            return tuple(
                PastGradualExecution(
                    _progress(db, row, self.db.wallet, self.db.coin),
                    row.state,
                    row.why,
                    row.ended_s,
                )
                for row in all_rows(db, _newest(), GradualExecutionRow, kind=EXECUTION, limit=limit)
            )

    def slice_of_step(self, step_id: str) -> tuple[str, int] | None:
        """Return execution or order, and number, of the slice that a step attempted; None without a
        slice.
        """
        with self.db.read("read the slices") as db:
            row = first_row(db, _by_step(), ExecutionSliceRow, of=step_id)
            return None if row is None else (row.campaign_id, row.number)

    def add_limit_order(self, order: LimitOrder) -> LimitOrder:
        """Record an order and return it with its id."""
        with self.db.write("record an order") as db:
            body = codec.dumps(replace(order, id=""))
            return replace(order, id=_add(db, ORDER, order.begun_s, body))

    def limit_orders(self, limit: int = 1000) -> tuple[LimitOrder, ...]:
        """Return the newest limit orders, ended ones included, oldest first. An order is filled
        once its swap is in a block.
        """
        with self.db.read("read the orders") as db:
            rows = all_rows(db, _newest(), GradualExecutionRow, kind=ORDER, limit=limit)
            return tuple(_order(db, row) for row in reversed(rows))


def read_state(db: Connection, wallet: str, coin: str, chain_now_s: int) -> GradualState:
    """Return the open execution, the end and carryover of the last one, and the stored draw."""
    rows = _open(db, EXECUTION)
    draw = database.find_fact(db, SLICE_DRAW)
    ends = (
        row.ended_s
        for row in all_rows(db, _with_end(), GradualExecutionRow)
        if _loaded(GradualExecution, row).purchase is not PurchaseKind.TOP_UP
    )
    return GradualState(
        progress=_progress(db, rows[0], wallet, coin) if rows else None,
        ended_s=next(ends, None),
        draw=None if draw is None else _parse_draw(draw),
        carried=None if rows else _shared_budget_spent(db, wallet, coin, chain_now_s),
    )


def _shared_budget_spent(
    db: Connection, wallet: str, coin: str, chain_now_s: int
) -> BudgetCarryover | None:
    """Return the budget that the newest ended execution used and shares with the next; None once it
    has expired.
    """
    row = first_row(db, _ended(), GradualExecutionRow)
    if row is None:
        return None
    execution = _loaded(GradualExecution, row)
    if execution.purchase is not None:
        return None
    until_s = execution.expires_s if execution.before is None else execution.before.until_s
    if chain_now_s >= until_s:
        return None
    return carried_budget(_progress(db, row, wallet, coin), row.why)


def _progress(
    db: Connection, row: GradualExecutionRow, wallet: str, coin: str
) -> ExecutionProgress:
    """Return the progress of an execution: slices from the mined swaps, value and loss from the
    receipts of all its transactions.
    """
    execution = _loaded(GradualExecution, row)
    attempts = all_rows(db, _slices(), ExecutionSliceRow, of=row.id)
    mined = _mined(db, [attempt.step_id for attempt in attempts])
    swaps = [intent for intent in mined if intent.kind is IntentKind.SWAP and intent.succeeded]
    steps = {intent.step_id for intent in swaps}
    executed = [intent for intent in mined if intent.step_id in steps]
    done = {attempt.number: attempt for attempt in attempts if attempt.step_id in steps}
    draw, next_s = execution.first, execution.began_s
    if done:
        newest = done[max(done)]
        draw = SliceDraw(newest.size_ppm, newest.wait_ppm)
        next_s = newest.at_s + slice_wait_s(execution, draw)
    prices = dict(execution.arrival) | {NATIVE: dict(execution.arrival).get(coin, Fraction(0))}
    return ExecutionProgress(
        id=row.id,
        campaign=execution,
        done=len(done),
        moved=sum((_moved(intent, wallet, prices) for intent in executed), Fraction(0)),
        spent=-sum((_value(intent.changes(wallet, coin), prices) for intent in mined), Fraction(0)),
        next_s=next_s,
        draw=draw,
        sold=() if execution.purchase is None else _sold(executed, wallet, coin),
    )


def _sold(intents: Sequence[Intent], wallet: str, coin: str) -> tuple[tuple[str, int], ...]:
    """Return the base units by token that the wallet sold; native coin counts as its
    wrapped token.
    """
    sold: dict[str, int] = {}
    for intent in intents:
        for token, raw in intent.changes(wallet, coin).items():
            asset = coin if token == NATIVE else token
            sold[asset] = sold.get(asset, 0) - raw
    return tuple(sorted((token, raw) for token, raw in sold.items() if raw > 0))


def _moved(intent: Intent, wallet: str, prices: dict[str, Fraction]) -> Fraction:
    net = {} if intent.receipt is None else intent.receipt.net(wallet)
    return _value({token: abs(raw) for token, raw in net.items()}, prices) / 2


def _value(changes: dict[str, int], prices: dict[str, Fraction]) -> Fraction:
    return sum(
        (raw * prices.get(token, Fraction(0)) for token, raw in changes.items()), Fraction(0)
    )


def _mined(db: Connection, steps: Iterable[str]) -> Sequence[Intent]:
    step_ids = list(steps)
    if not step_ids:
        return []
    query = (
        select(IntentRow)
        .where(IntentRow.step_id.in_(step_ids), IntentRow.state.in_(_CONSUMED))
        .order_by(IntentRow.seq)
    )
    return [database.intent_from_row(row) for row in all_rows(db, query, IntentRow)]


def _open(db: Connection, kind: str | None = None) -> list[GradualExecutionRow]:
    return [row for row in all_rows(db, _opened(), GradualExecutionRow) if kind in (None, row.kind)]


def _end(db: Connection, row: GradualExecutionRow, state: str, why: str, at_s: int | None) -> None:
    db.execute(_change(), {"of": row.seq, "state": state, "why": why, "ended_s": at_s})


def _add(db: Connection, kind: str, begun_s: int, body: str) -> str:
    number = uuid.uuid4().hex[:12]
    row = {"id": number, "kind": kind, "begun_s": begun_s, "body_json": body}
    insert_rows(db, GradualExecutionRow, [row | {"state": OPEN, "why": ""}])
    return number


def _order(db: Connection, row: GradualExecutionRow) -> LimitOrder:
    order = replace(_loaded(LimitOrder, row), id=row.id, state=row.state, why=row.why)
    attempts = all_rows(db, _slices(), ExecutionSliceRow, of=row.id)
    mined = _mined(db, [attempt.step_id for attempt in attempts])
    swaps = [intent for intent in mined if intent.kind is IntentKind.SWAP and intent.succeeded]
    if not swaps:
        return order
    return replace(order, state="filled", why=f"by {swaps[-1].tx_hash}")


def _parse_draw(text: str) -> SliceDraw:
    try:
        size, wait = map(int, text.split())
    except ValueError as error:
        raise OperatorNeeded(
            f"store: a draw is damaged: {error}",
            "restore a backup, compare it with the chain",
            code=ErrorCode.DAMAGED,
        ) from None
    return SliceDraw(size, wait)


def _loaded(cls: type[T], row: GradualExecutionRow) -> T:
    try:
        return codec.loads(cls, row.body_json)
    except ConfigError as error:
        raise OperatorNeeded(
            f"store: {row.kind} {row.id} is damaged: {error.message}", "restore a backup"
        ) from None


_opened = cache(
    lambda: (
        select(GradualExecutionRow)
        .where(GradualExecutionRow.state == OPEN)
        .order_by(GradualExecutionRow.seq)
    )
)
_change = cache(
    lambda: update(GradualExecutionRow).where(GradualExecutionRow.seq == bindparam("of"))
)
_slices = cache(
    lambda: (
        select(ExecutionSliceRow)
        .where(ExecutionSliceRow.campaign_id == bindparam("of"))
        .order_by(ExecutionSliceRow.seq)
    )
)
_attempts = cache(lambda: _slices().where(ExecutionSliceRow.number == bindparam("number")).limit(1))
_by_step = cache(
    lambda: select(ExecutionSliceRow).where(ExecutionSliceRow.step_id == bindparam("of")).limit(1)
)
_of_kind = cache(
    lambda: (
        select(GradualExecutionRow)
        .where(GradualExecutionRow.kind == EXECUTION)
        .order_by(GradualExecutionRow.seq.desc())
    )
)
_with_end = cache(lambda: _of_kind().where(GradualExecutionRow.ended_s.is_not(None)).limit(NEWEST))
_ended = cache(lambda: _of_kind().where(GradualExecutionRow.state != OPEN).limit(1))


@cache
def _newest() -> Select[Any]:
    newest_first = (
        select(GradualExecutionRow)
        .where(GradualExecutionRow.kind == bindparam("kind"))
        .order_by(GradualExecutionRow.seq.desc())
    )
    return newest_first.limit(bindparam("limit"))
