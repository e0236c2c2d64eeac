"""Stored orders: conditional orders with NAV per share, gradual executions, and limit orders.

An order is written before anything is done about it. The start of an execution is written once, and
its progress follows from the receipts. A slice is recorded before anything of it is sent, with the
draw for the slice after it. It is done once a swap of its step is in a block; a reorg that removes
the block undoes it, and a restart finds both as they were.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, bindparam, delete, select, update

from agent import codec
from agent.errors import ConfigError, ErrorCode, OperatorNeeded, Refused
from agent.model import (
    BudgetCarryover,
    ConditionalOrder,
    ExecutionProgress,
    GradualExecution,
    History,
    Intent,
    IntentKind,
    LimitOrder,
    NavPerShare,
    PurchaseKind,
    SliceDraw,
)
from agent.policy.gradual_execution import carried_budget, slice_wait_s
from agent.store import database, records
from agent.store.database import (
    Database,
    all_rows,
    column_values,
    first_row,
    insert_rows,
    upsert_rows,
)
from agent.store.records import decode_json
from agent.store.tables import (
    BudgetRow,
    ExecutionSliceRow,
    GradualExecutionRow,
    IntentRow,
    OrderRow,
)
from agent.store.transitions import CONSUMED
from agent.units import NATIVE

T = TypeVar("T")

# --- Conditional orders and NAV per share.


ORDERS_VERSION = "orders_turn"
"""Key of how often orders were written: two processes do not write over each other."""
NAV_PER_SHARE = "unit_value"


@dataclass(frozen=True, slots=True)
class OrderStore:
    """Orders by token and kind; each method is a transaction of its own."""

    db: Database

    def standing(self) -> tuple[tuple[ConditionalOrder, ...], int]:
        """All orders, and their version, to be passed back when they are written."""
        with self.db.read("read the orders") as db:
            return read_orders(db), orders_version(db)

    def update(
        self, orders: Sequence[ConditionalOrder], unit_value: NavPerShare | None, at_version: int
    ) -> bool:
        """Write the states of orders, and delete those not among them; writing the same twice
        changes nothing.

        False, and nothing written, if another process wrote them since `at_version`.
        """
        with self.db.read("read the orders") as db:
            if _same(db, orders, unit_value):
                return True
        with self.db.write("write the orders") as db:
            if orders_version(db) != at_version:
                return False
            kept = {(order.token, order.kind.value) for order in orders}
            for row in all_rows(db, _orders(), OrderRow):
                if (row.token, row.kind) not in kept:
                    db.execute(
                        delete(OrderRow).where(
                            OrderRow.token == row.token, OrderRow.kind == row.kind
                        )
                    )
            rows = [
                {"token": order.token, "kind": order.kind.value, "order_json": codec.dumps(order)}
                for order in orders
            ]
            upsert_rows(db, OrderRow, rows)
            value = (
                {}
                if unit_value is None
                else {NAV_PER_SHARE: codec.dumps(replace(unit_value, lost=Fraction(0)))}
            )
            database.write_facts(db, {**value, ORDERS_VERSION: at_version + 1})
            return True


def read_orders(db: Connection) -> tuple[ConditionalOrder, ...]:
    """All orders, by token and kind."""
    return tuple(
        decode_json(ConditionalOrder, row.order_json) for row in all_rows(db, _orders(), OrderRow)
    )


def nav_per_share(db: Connection, facts: Mapping[str, str]) -> NavPerShare | None:
    """NAV per share by the fact NAV_PER_SHARE, with the loss of the agent's transactions since;
    None before it was written.
    """
    if NAV_PER_SHARE not in facts:
        return None
    kept = decode_json(NavPerShare, facts[NAV_PER_SHARE])
    return replace(
        kept, lost=sum(map(Fraction, column_values(db, _losses(), since=kept.at_s)), Fraction(0))
    )


def orders_version(db: Connection) -> int:
    """Number of times the orders were written."""
    return database.fact_number(db, ORDERS_VERSION)


def _same(db: Connection, orders: Sequence[ConditionalOrder], value: NavPerShare | None) -> bool:
    kept = database.find_fact(db, NAV_PER_SHARE)
    now = None if kept is None else decode_json(NavPerShare, kept)
    updated = now if value is None else replace(value, lost=Fraction(0))
    return now == updated and sorted(map(codec.dumps, orders)) == sorted(
        map(codec.dumps, read_orders(db))
    )


_orders = cache(lambda: select(OrderRow).order_by(OrderRow.token, OrderRow.kind))
_losses = cache(lambda: select(BudgetRow.loss).where(BudgetRow.chain_s > bindparam("since")))


# --- Gradual executions and limit orders.


SLICE_DRAW = "draw"
"""Key of the draw for the first slice of an execution that has not begun."""
EXECUTION, ORDER = "campaign", "order"
NEWEST = 20
"""Campaigns that ended, of which the newest that was no top-up starts the cooldown."""
OPEN = "open"
_CONSUMED = tuple(state.value for state in CONSUMED)


@dataclass(frozen=True, slots=True)
class PastGradualExecution:
    """A gradual execution for display; `state` is "open" or "ended", with the reason in `why`."""

    underway: ExecutionProgress
    state: str
    why: str
    ended_s: int | None


@dataclass(frozen=True, slots=True)
class GradualExecutionStore:
    """Gradual executions and limit orders; each method is a transaction of its own."""

    db: Database

    def store_next_draw(self, draw: SliceDraw) -> None:
        """Store the draw for the first slice of the next execution, unless there is one already."""
        with self.db.write("write a draw down") as db:
            if database.find_fact(db, SLICE_DRAW) is None:
                database.write_facts(db, {SLICE_DRAW: f"{draw.size_ppm} {draw.wait_ppm}"})

    def begin(self, execution: GradualExecution) -> str:
        """Record an execution and return its id; its first draw is used up.

        Raises OperatorNeeded while another is open, unless a purchase replaces it: the rest of an
        earlier purchase is part of it.
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
                    "another correction is under way already",
                    "let it end, or end it: trimtab limit --cancel ID",
                    code=ErrorCode.EXECUTION_OPEN,
                )
            database.delete_facts(db, SLICE_DRAW)
            return _add(db, EXECUTION, execution.began_s, codec.dumps(execution))

    def begin_slice(
        self, campaign_id: str, number: int, step_id: str, at_s: int, draw: SliceDraw
    ) -> None:
        """Record a slice, or another attempt at it, before it is sent; `draw` is for the slice
        after it, drawn once for all attempts.

        `at_s` is the chain time it is planned at. Raises Refused if the execution or order is not
        open: it was ended meanwhile.
        """
        with self.db.write("record a slice") as db:
            if campaign_id not in [row.id for row in _open(db)]:
                raise Refused(
                    "the gradual execution ended in the meantime",
                    remedy="try again; see trimtab limit",
                    code=ErrorCode.EXECUTION_ENDED,
                )
            before = first_row(db, _tries(), ExecutionSliceRow, of=campaign_id, number=number)
            used = draw if before is None else SliceDraw(before.size_ppm, before.wait_ppm)
            row = {"campaign_id": campaign_id, "number": number, "step_id": step_id, "at_s": at_s}
            insert_rows(
                db,
                ExecutionSliceRow,
                [row | {"size_ppm": used.size_ppm, "wait_ppm": used.wait_ppm}],
            )

    def end(self, campaign_id: str, state: str, why: str, chain_s: int) -> bool:
        """End an execution or an order; False if none of that id is open."""
        with self.db.write("record the end of a gradual execution") as db:
            rows = [row for row in _open(db) if row.id == campaign_id]
            for row in rows:
                _end(db, row, state, why, chain_s)
            return bool(rows)

    def newest(self, limit: int = 20) -> tuple[PastGradualExecution, ...]:
        """The newest executions, newest first."""
        with self.db.read("read the campaigns") as db:
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
        """Execution or order, and number, of the slice that a step attempted; None if it attempted
        none.
        """
        with self.db.read("read the slices") as db:
            row = first_row(db, _by_step(), ExecutionSliceRow, of=step_id)
            return None if row is None else (row.campaign_id, row.number)

    # orders
    def add_limit_order(self, order: LimitOrder) -> LimitOrder:
        """Record an order and return it with its id."""
        with self.db.write("write an order down") as db:
            return replace(
                order, id=_add(db, ORDER, order.begun_s, codec.dumps(replace(order, id="")))
            )

    def limit_orders(self, limit: int = 1000) -> tuple[LimitOrder, ...]:
        """The newest limit orders, ended ones too, oldest first. An order whose swap is in a block
        is filled.
        """
        with self.db.read("read the orders") as db:
            return tuple(
                reversed(
                    [
                        _order(db, row)
                        for row in all_rows(
                            db, _newest(), GradualExecutionRow, kind=ORDER, limit=limit
                        )
                    ]
                )
            )


def with_gradual_execution(
    db: Connection, wallet: str, coin: str, history: History, chain_now_s: int
) -> History:
    """Return the history with the execution under way, the end and carryover of the last one, and
    the stored draw.
    """
    rows = _open(db, EXECUTION)
    drawn = database.find_fact(db, SLICE_DRAW)
    over = all_rows(db, _over(), GradualExecutionRow)
    ended = (
        row.ended_s
        for row in over
        if _loaded(GradualExecution, row).purchase is not PurchaseKind.TOP_UP
    )
    return replace(
        history,
        campaign=_progress(db, rows[0], wallet, coin) if rows else None,
        campaign_ended_s=next(ended, None),
        draw=None if drawn is None else _draw(drawn),
        spent=None if rows else _shared_budget_spent(db, wallet, coin, chain_now_s),
    )


def _shared_budget_spent(
    db: Connection, wallet: str, coin: str, chain_now_s: int
) -> BudgetCarryover | None:
    """Budget that the newest ended execution has used and shares with the next; None once its time
    is over.
    """
    row = first_row(db, _ended(), GradualExecutionRow)
    if row is None:
        return None
    execution = _loaded(GradualExecution, row)
    if execution.purchase is not None:
        return None
    until_s = execution.expires_s if execution.before is None else execution.before.until_s
    return (
        carried_budget(_progress(db, row, wallet, coin), row.why) if chain_now_s < until_s else None
    )


def _progress(
    db: Connection, row: GradualExecutionRow, wallet: str, coin: str
) -> ExecutionProgress:
    """Progress of an execution: slices by the swaps in blocks, value and loss by the receipts of
    all its transactions.
    """
    execution = _loaded(GradualExecution, row)
    rounds = all_rows(db, _rounds(), ExecutionSliceRow, of=row.id)
    mined = _mined(db, [one.step_id for one in rounds])
    swapped = {
        intent.step_id for intent in mined if intent.kind is IntentKind.SWAP and intent.succeeded
    }
    done = {one.number: one for one in rounds if one.step_id in swapped}
    newest = done[max(done)] if done else None
    prices = dict(execution.arrival) | {NATIVE: dict(execution.arrival).get(coin, Fraction(0))}
    draw = execution.first if newest is None else SliceDraw(newest.size_ppm, newest.wait_ppm)
    return ExecutionProgress(
        id=row.id,
        campaign=execution,
        done=len(done),
        moved=sum(
            (_moved(intent, wallet, prices) for intent in mined if intent.step_id in swapped),
            Fraction(0),
        ),
        spent=-sum((_value(intent.changes(wallet, coin), prices) for intent in mined), Fraction(0)),
        next_s=execution.began_s if newest is None else newest.at_s + slice_wait_s(execution, draw),
        draw=draw,
        sold=(
            _sold([intent for intent in mined if intent.step_id in swapped], wallet, coin)
            if execution.purchase is not None
            else ()
        ),
    )


def _sold(intents: Sequence[Intent], wallet: str, coin: str) -> tuple[tuple[str, int], ...]:
    """Base units by token that the wallet gave, native coin as its wrapped token."""
    given: dict[str, int] = {}
    for intent in intents:
        for token, raw in intent.changes(wallet, coin).items():
            known = coin if token == NATIVE else token
            given[known] = given.get(known, 0) - raw
    return tuple(sorted((token, raw) for token, raw in given.items() if raw > 0))


def _moved(intent: Intent, wallet: str, prices: dict[str, Fraction]) -> Fraction:
    net = {} if intent.receipt is None else intent.receipt.net(wallet)
    return _value({token: abs(raw) for token, raw in net.items()}, prices) / 2


def _value(changes: dict[str, int], prices: dict[str, Fraction]) -> Fraction:
    return sum(
        (raw * prices.get(token, Fraction(0)) for token, raw in changes.items()), Fraction(0)
    )


def _mined(db: Connection, steps: Iterable[str]) -> Sequence[Intent]:
    given = list(steps)
    if not given:
        return []
    query = (
        select(IntentRow)
        .where(IntentRow.step_id.in_(given), IntentRow.state.in_(_CONSUMED))
        .order_by(IntentRow.seq)
    )
    return [records.intent_from_row(row) for row in all_rows(db, query, IntentRow)]


def _open(db: Connection, kind: str | None = None) -> list[GradualExecutionRow]:
    return [row for row in all_rows(db, _opened(), GradualExecutionRow) if kind in (None, row.kind)]


def _end(db: Connection, row: GradualExecutionRow, state: str, why: str, at_s: int | None) -> None:
    db.execute(_change(), {"of": row.seq, "state": state, "why": why, "ended_s": at_s})


def _add(db: Connection, kind: str, begun_s: int, body: str) -> str:
    made = uuid.uuid4().hex[:12]
    insert_rows(
        db,
        GradualExecutionRow,
        [
            {
                "id": made,
                "kind": kind,
                "begun_s": begun_s,
                "body_json": body,
                "state": OPEN,
                "why": "",
            }
        ],
    )
    return made


def _order(db: Connection, row: GradualExecutionRow) -> LimitOrder:
    order = replace(_loaded(LimitOrder, row), id=row.id, state=row.state, why=row.why)
    steps = [one.step_id for one in all_rows(db, _rounds(), ExecutionSliceRow, of=row.id)]
    filled = [one for one in _mined(db, steps) if one.kind is IntentKind.SWAP and one.succeeded]
    return replace(order, state="filled", why=f"by {filled[-1].tx_hash}") if filled else order


def _draw(text: str) -> SliceDraw:
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
_rounds = cache(
    lambda: (
        select(ExecutionSliceRow)
        .where(ExecutionSliceRow.campaign_id == bindparam("of"))
        .order_by(ExecutionSliceRow.seq)
    )
)
_tries = cache(lambda: _rounds().where(ExecutionSliceRow.number == bindparam("number")).limit(1))
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
_over = cache(lambda: _of_kind().where(GradualExecutionRow.ended_s.is_not(None)).limit(NEWEST))
_ended = cache(lambda: _of_kind().where(GradualExecutionRow.state != OPEN).limit(1))


@cache
def _newest() -> Select[Any]:
    newest_first = (
        select(GradualExecutionRow)
        .where(GradualExecutionRow.kind == bindparam("kind"))
        .order_by(GradualExecutionRow.seq.desc())
    )
    return newest_first.limit(bindparam("limit"))
