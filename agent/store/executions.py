"""Stored executions that take several steps: purchases in parts, limit orders, and those of layers.

The start of an execution is stored once; its progress is derived from receipts. An attempt at a
part is stored before any of its transactions is sent. A part counts as done while a swap of its
step is in a block; a reorg that removes the block undoes that. A restart derives the same progress.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, cached_property
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Select, bindparam, select, update

from agent import codec
from agent.errors import ConfigError, ErrorCode, OperatorNeeded, Refused
from agent.model import ExecutionState, Intent, IntentKind, LimitOrder, Purchase, PurchaseProgress
from agent.store.database.connection import Database
from agent.store.database.rows import intent_from_row
from agent.store.database.statements import all_rows, insert_rows
from agent.store.tables import ExecutionAttemptRow, ExecutionRow, IntentRow
from agent.store.transitions import NONCE_USED_STATE_NAMES
from agent.units import NATIVE

T = TypeVar("T")
P_co = TypeVar("P_co", covariant=True)
ORDER = "order"
PURCHASE = "purchase"
"""Kinds of executions; a layer adds its own."""


@dataclass(frozen=True, slots=True)
class StoredExecution(Generic[P_co]):
    """An execution and its progress; `why` is the reason of its state, `seq` counts all executions."""

    seq: int
    progress: P_co
    state: ExecutionState
    why: str


@dataclass(frozen=True)
class ExecutionAttempts:
    """Attempts at the parts of an execution. `mined_intents` are all transactions of their steps
    that used a nonce, failed ones too.
    """

    attempts: Sequence[ExecutionAttemptRow]
    mined_intents: Sequence[Intent]

    @cached_property
    def successful_swaps(self) -> list[Intent]:
        """Successful swaps."""
        return [
            intent
            for intent in self.mined_intents
            if intent.kind is IntentKind.SWAP and intent.succeeded
        ]

    @cached_property
    def trading_attempt_by_part(self) -> dict[int, ExecutionAttemptRow]:
        """The attempt that traded each part, by number."""
        step_ids = {intent.step_id for intent in self.successful_swaps}
        return {
            attempt.part_number: attempt for attempt in self.attempts if attempt.step_id in step_ids
        }

    @property
    def newest_trading_attempt(self) -> ExecutionAttemptRow | None:
        """The attempt that traded the last part; None before the first."""
        return (
            self.trading_attempt_by_part[max(self.trading_attempt_by_part)]
            if self.trading_attempt_by_part
            else None
        )

    @property
    def _trading_step_intents(self) -> list[Intent]:
        step_ids = {intent.step_id for intent in self.successful_swaps}
        return [intent for intent in self.mined_intents if intent.step_id in step_ids]

    def moved_value(
        self, wallet: str, wrapped_native: str, prices: Mapping[str, Fraction]
    ) -> Fraction:
        """Return the value moved at these prices by token, without gas: half of all changes."""
        moved_values = (
            abs(raw) * prices.get(token, Fraction(0))
            for intent in self._trading_step_intents
            for token, raw in intent.traded_raw_by_token(wallet, wrapped_native).items()
        )
        return sum(moved_values, Fraction(0)) / 2

    def lost_value(
        self, wallet: str, wrapped_native: str, prices: Mapping[str, Fraction]
    ) -> Fraction:
        """Return the value lost at these prices, gas of every mined transaction included."""
        native_price_by_token = {NATIVE: prices.get(wrapped_native, Fraction(0))}
        balance_changes = (
            intent.balance_changes(wallet, wrapped_native) for intent in self.mined_intents
        )
        return -sum(
            (
                _value_at(change_raw_by_token, {**prices, **native_price_by_token})
                for change_raw_by_token in balance_changes
            ),
            Fraction(0),
        )

    def sold_raw_by_token(self, wallet: str, wrapped_native: str) -> tuple[tuple[str, int], ...]:
        """Return the base units by token that the wallet sold, gas included; native coin counts as
        its wrapped token.
        """
        net_sold_raw: dict[str, int] = {}
        for intent in self._trading_step_intents:
            for token, change_raw in intent.balance_changes(wallet, wrapped_native).items():
                sold_token = wrapped_native if token == NATIVE else token
                net_sold_raw[sold_token] = net_sold_raw.get(sold_token, 0) - change_raw
        return tuple(
            sorted(
                (token, change_raw) for token, change_raw in net_sold_raw.items() if change_raw > 0
            )
        )


@dataclass(frozen=True, slots=True)
class ExecutionStore:
    """Executions in several steps; each method is a transaction of its own."""

    db: Database

    def begin_purchase(self, terms: Purchase) -> str:
        """Record a purchase and return its id. It ends an open purchase or gradual execution, whose
        remainder it includes.
        """
        with self.db.write("record a purchase") as db:
            for row in open_executions(db):
                if row.kind != ORDER:
                    end_execution(
                        db,
                        row,
                        ExecutionState.ENDED,
                        f"a {terms.kind.value} goes first",
                        terms.began_s,
                    )
            return add_execution(db, PURCHASE, terms.began_s, codec.dumps(terms))

    def begin_attempt(self, execution_id: str, part_number: int, step_id: str, at_s: int) -> None:
        """Record an attempt at a part before it is sent; `at_s` is the chain time of the plan.
        Raises Refused if the execution has ended.
        """
        with self.db.write("record an attempt") as db:
            add_attempt(db, execution_id, part_number, step_id, at_s)

    def end(self, execution_id: str, state: ExecutionState, why: str, chain_s: int) -> bool:
        """End an execution; return False if none with this id is open."""
        with self.db.write("record the end of an execution") as db:
            execution_rows = [row for row in open_executions(db) if row.id == execution_id]
            for row in execution_rows:
                end_execution(db, row, state, why, chain_s)
            return bool(execution_rows)

    def open_execution_ids(self) -> tuple[str, ...]:
        """Return the ids of all open executions, oldest first."""
        with self.db.read("read the executions") as db:
            return tuple(row.id for row in open_executions(db))

    def purchases(self, limit: int = 20) -> tuple[StoredExecution[PurchaseProgress], ...]:
        """Return the newest purchases, newest first."""
        wallet = self.db.wallet
        wrapped_native = self.db.wrapped_native
        with self.db.read("read the purchases") as db:
            return tuple(
                StoredExecution(
                    row.seq,
                    _purchase_from_row(db, row, wallet, wrapped_native),
                    ExecutionState(row.state),
                    row.why,
                )
                for row in newest_executions(db, PURCHASE, limit)
            )

    def add_limit_order(self, order: LimitOrder) -> LimitOrder:
        """Record an order and return it with its id."""
        with self.db.write("record an order") as db:
            terms_json = codec.dumps(replace(order, id=""))
            return replace(order, id=add_execution(db, ORDER, order.begun_s, terms_json))

    def find_equal_order(self, order: LimitOrder, since_s: int) -> LimitOrder | None:
        """Return the newest order that sells the same amount of the same tokens at the same price,
        and is open when `order` begins, or filled and not ended before `since_s` of chain time; None
        without one.
        """
        terms = _order_terms(order)
        with self.db.read("read the orders") as db:
            for row in newest_executions(db, ORDER, 1000):
                if row.ended_s is not None and row.ended_s < since_s:
                    continue
                earlier_order = _order_from_row(db, row)
                is_open = (
                    earlier_order.state is ExecutionState.OPEN
                    and earlier_order.until_s > order.begun_s
                )
                is_equal = _order_terms(earlier_order) == terms
                if is_equal and (is_open or earlier_order.state is ExecutionState.FILLED):
                    return earlier_order
        return None

    def open_limit_orders(self) -> tuple[LimitOrder, ...]:
        """Return all limit orders that have not been ended, oldest first; a filled one is, by its
        swap, until the run ends it.
        """
        with self.db.read("read the open orders") as db:
            return tuple(_order_from_row(db, row) for row in open_executions(db, ORDER))

    def limit_orders(self, limit: int = 1000) -> tuple[LimitOrder, ...]:
        """Return the newest limit orders, ended ones included, oldest first. An order is filled
        once its swap is in a block.
        """
        with self.db.read("read the orders") as db:
            return tuple(
                _order_from_row(db, row) for row in reversed(newest_executions(db, ORDER, limit))
            )


def read_purchase(db: Connection, wallet: str, wrapped_native: str) -> PurchaseProgress | None:
    """Return the active purchase; None without one."""
    purchase_rows = open_executions(db, PURCHASE)
    return (
        _purchase_from_row(db, purchase_rows[0], wallet, wrapped_native) if purchase_rows else None
    )


def _purchase_from_row(
    db: Connection, row: ExecutionRow, wallet: str, wrapped_native: str
) -> PurchaseProgress:
    terms = load_terms(Purchase, row)
    attempts = read_attempts(db, row)
    arrival_price_by_token = dict(terms.arrival_prices)
    return PurchaseProgress(
        id=row.id,
        terms=terms,
        parts_done=len(attempts.trading_attempt_by_part),
        moved_value=attempts.moved_value(wallet, wrapped_native, arrival_price_by_token),
        lost_value=attempts.lost_value(wallet, wrapped_native, arrival_price_by_token),
        next_s=terms.began_s
        if attempts.newest_trading_attempt is None
        else attempts.newest_trading_attempt.at_s + terms.interval_s,
        sold_raw_by_token=attempts.sold_raw_by_token(wallet, wrapped_native),
    )


def _order_terms(order: LimitOrder) -> tuple[str, str, int, Fraction]:
    return (order.token_in, order.token_out, order.amount_in_raw, order.price)


def _order_from_row(db: Connection, row: ExecutionRow) -> LimitOrder:
    order = replace(
        load_terms(LimitOrder, row), id=row.id, state=ExecutionState(row.state), why=row.why
    )
    swaps = read_attempts(db, row).successful_swaps
    if not swaps:
        return order
    return replace(order, state=ExecutionState.FILLED, why=f"by {swaps[-1].tx_hash}")


def _is_open_order(db: Connection, row: ExecutionRow) -> bool:
    return _order_from_row(db, row).state is ExecutionState.OPEN


def open_executions(db: Connection, execution_kind: str | None = None) -> list[ExecutionRow]:
    """Return the open executions of a kind, or of every kind, oldest first."""
    return [
        row
        for row in all_rows(db, _select_open(), ExecutionRow)
        if execution_kind in (None, row.kind)
    ]


def newest_executions(db: Connection, execution_kind: str, limit: int) -> Sequence[ExecutionRow]:
    """Return the newest executions of a kind, newest first."""
    return all_rows(db, _select_newest(), ExecutionRow, kind=execution_kind, limit=limit)


def add_execution(db: Connection, execution_kind: str, began_s: int, terms_json: str) -> str:
    """Add an open execution with its terms as JSON; return its id."""
    execution_id = uuid.uuid4().hex[:12]
    row = {"id": execution_id, "kind": execution_kind, "begun_s": began_s, "terms_json": terms_json}
    insert_rows(db, ExecutionRow, [row | {"state": ExecutionState.OPEN.value, "why": ""}])
    return execution_id


def end_execution(
    db: Connection, row: ExecutionRow, state: ExecutionState, why: str, at_s: int | None
) -> None:
    """End an execution at this chain time."""
    db.execute(
        _update_execution(),
        {"row_seq": row.seq, "state": state.value, "why": why, "ended_s": at_s},
    )


def add_attempt(
    db: Connection,
    execution_id: str,
    part_number: int,
    step_id: str,
    at_s: int,
    **draw_columns: int,
) -> None:
    """Add an attempt at a part; `draw_columns` are the columns of a random draw for the next one.
    Raises Refused if the execution has ended.
    """
    execution_rows = [row for row in open_executions(db) if row.id == execution_id]
    if not any(row.kind != ORDER or _is_open_order(db, row) for row in execution_rows):
        raise Refused(
            "the execution has ended in the meantime",
            remedy="try again; see trimtab limit",
            code=ErrorCode.EXECUTION_ENDED,
        )
    row = {
        "execution_id": execution_id,
        "part_number": part_number,
        "step_id": step_id,
        "at_s": at_s,
    }
    insert_rows(db, ExecutionAttemptRow, [row | {"size_ppm": 0, "wait_ppm": 0} | draw_columns])


def read_attempts(db: Connection, row: ExecutionRow) -> ExecutionAttempts:
    """Return the attempts at an execution's parts with their mined transactions."""
    attempts = all_rows(
        db,
        select(ExecutionAttemptRow)
        .where(ExecutionAttemptRow.execution_id == row.id)
        .order_by(ExecutionAttemptRow.seq),
        ExecutionAttemptRow,
    )
    step_ids = [attempt.step_id for attempt in attempts]
    if not step_ids:
        return ExecutionAttempts((), ())
    select_mined = (
        select(IntentRow)
        .where(IntentRow.step_id.in_(step_ids), IntentRow.state.in_(NONCE_USED_STATE_NAMES))
        .order_by(IntentRow.seq)
    )
    mined_intents = [
        intent_from_row(intent_row) for intent_row in all_rows(db, select_mined, IntentRow)
    ]
    return ExecutionAttempts(attempts, mined_intents)


def load_terms(cls: type[T], row: ExecutionRow) -> T:
    """Return an execution's terms. Raises OperatorNeeded if they are damaged."""
    try:
        return codec.loads(cls, row.terms_json)
    except ConfigError as error:
        raise OperatorNeeded(
            f"store: {row.kind} {row.id} is damaged: {error.message}", "restore a backup"
        ) from None


def _value_at(raw_by_token: Mapping[str, int], prices: Mapping[str, Fraction]) -> Fraction:
    return sum(
        (raw * prices.get(token, Fraction(0)) for token, raw in raw_by_token.items()), Fraction(0)
    )


_select_open = cache(
    lambda: (
        select(ExecutionRow)
        .where(ExecutionRow.state == ExecutionState.OPEN.value)
        .order_by(ExecutionRow.seq)
    )
)
_update_execution = cache(
    lambda: update(ExecutionRow).where(ExecutionRow.seq == bindparam("row_seq"))
)


@cache
def _select_newest() -> Select[Any]:
    select_newest_first = (
        select(ExecutionRow)
        .where(ExecutionRow.kind == bindparam("kind"))
        .order_by(ExecutionRow.seq.desc())
    )
    return select_newest_first.limit(bindparam("limit"))
