"""Stored accounts of positions, strategies and cash: changes of liquidity positions by mined
intents, discovered positions with the owner's decision; bookings, states and NAV per share of
strategies; the account of portfolio.use_cash, and the transfers and payouts that it does not
contain yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, func, or_, select, update

from agent import codec
from agent.amm.lp.positions import position_change
from agent.errors import OperatorNeeded
from agent.model import (
    CashAccount,
    CashMemory,
    ExternalTransfer,
    Intent,
    IntentKind,
    IntentState,
    LpPositionChange,
    NavPoint,
    Receipt,
    StrategyBooking,
    StrategyBookingKind,
    StrategyLedger,
    StrategyState,
)
from agent.ports import Grant
from agent.store import database
from agent.store.accounts import balances
from agent.store.database import (
    Database,
    all_rows,
    column_values,
    decode_json,
    insert_new_rows,
    insert_rows,
    max_value,
    upsert_rows,
)
from agent.store.tables import (
    ExternalTransactionRow,
    ExternalTransferRow,
    FoundPositionRow,
    IntentRow,
    LiquidityRow,
    NavPointRow,
    StrategyBookingRow,
    StrategyRow,
)
from agent.store.transitions import CONSUMED, OPEN
from agent.units import NATIVE

UNDECIDED, TAKEN, FORGOTTEN = "undecided", "taken", "forgotten"
POSITIONS_SCANNED = "positions_looked"
"""Key that is set once the wallet was scanned, after the store was created or adopted."""


def positions_moved_since(db: Connection, after: int | None) -> set[str]:
    """Return the names of positions that intents after that number changed; empty without a
    number.
    """
    if after is None:
        return set()
    changes = column_values(db, _own_beyond(), of=after)
    return {database.decode_json(LpPositionChange, text).name for text in changes}


def undecided_positions(db: Connection) -> tuple[str, ...]:
    """Return the names of positions that await the owner's decision."""
    return tuple(column_values(db, _undecided()))


def require_position_scan(db: Connection) -> None:
    """Require a new scan for positions, after foreign use of the wallet."""
    database.delete_facts(db, POSITIONS_SCANNED)


def record_change(db: Connection, row: IntentRow, wallet: str, receipt: Receipt | None) -> None:
    """Record the position change of a liquidity action from its receipt; delete it if there is no
    receipt.
    """
    action = database.decode_json(Grant, database.decompress_text(row.grant_z)).action
    change = None
    if receipt is not None and action is not None:
        change = position_change(action, receipt, wallet)
    if change is None:
        db.execute(_without_position(), {"of": row.id})
    else:
        upsert_rows(db, LiquidityRow, [{"intent_id": row.id, "move_json": codec.dumps(change)}])


@dataclass(frozen=True, slots=True)
class PositionStore:
    """Liquidity positions; each method is a transaction of its own."""

    db: Database

    def changes(self) -> tuple[LpPositionChange, ...]:
        """Return the changes of the agent's positions, oldest first: adopted positions, then the
        changes by mined intents since a position was forgotten or adopted.
        """
        with self.db.read("read liquidity positions") as db:
            found = {row.name: row for row in all_rows(db, _positions_found(), FoundPositionRow)}
            taken = [
                database.decode_json(LpPositionChange, row.move_json)
                for row in found.values()
                if row.verdict == TAKEN and row.move_json is not None
            ]
            own = []
            for text, seq in db.execute(_positions_own()):
                move = database.decode_json(LpPositionChange, text)
                verdict = found.get(move.name)
                if verdict is None or verdict.verdict == UNDECIDED or seq > verdict.after_seq:
                    own.append(move)
            return (*taken, *own)

    def scanned(self) -> bool:
        """True if the wallet was scanned since the store was created or adopted."""
        with self.db.read("read liquidity positions") as db:
            return database.find_fact(db, POSITIONS_SCANNED) is not None

    def record(self, names: Iterable[str], now_s: int) -> None:
        """Record positions that await the owner's decision."""
        with self.db.write("write liquidity positions") as db:
            known = {row.name for row in all_rows(db, _positions_found(), FoundPositionRow)}
            fresh = [name for name in dict.fromkeys(names) if name not in known]
            insert_rows(
                db,
                FoundPositionRow,
                [
                    {
                        "name": name,
                        "verdict": UNDECIDED,
                        "move_json": None,
                        "after_seq": 0,
                        "at_s": now_s,
                    }
                    for name in fresh
                ],
            )
            database.write_facts(db, {POSITIONS_SCANNED: 1})

    def decide(self, name: str, move: LpPositionChange | None, now_s: int) -> None:
        """Record the owner's decision on a position: with its mint `move` it counts from now on;
        None ignores it.
        """
        with self.db.write("write a liquidity position") as db:
            verdict, text = (FORGOTTEN, None) if move is None else (TAKEN, codec.dumps(move))
            row = {
                "name": name,
                "verdict": verdict,
                "move_json": text,
                "after_seq": max_value(db, IntentRow.seq),
                "at_s": now_s,
            }
            upsert_rows(db, FoundPositionRow, [row])


_without_position = cache(
    lambda: delete(LiquidityRow).where(LiquidityRow.intent_id == bindparam("of"))
)
_positions_found = cache(lambda: select(FoundPositionRow))


@cache
def _undecided() -> Select[Any]:
    return (
        select(FoundPositionRow.name)
        .where(FoundPositionRow.verdict == UNDECIDED)
        .order_by(FoundPositionRow.name)
    )


@cache
def _positions_own() -> Select[str, int]:
    """Select position changes of mined intents with the intents' numbers, oldest first."""
    query = select(LiquidityRow.move_json, IntentRow.seq).join(
        IntentRow, IntentRow.id == LiquidityRow.intent_id
    )
    return query.order_by(IntentRow.seq)


@cache
def _own_beyond() -> Select[Any]:
    """Select position changes of intents with a sequence number above `of`."""
    return (
        _positions_own()
        .with_only_columns(LiquidityRow.move_json)
        .where(IntentRow.seq > bindparam("of"))
    )


STRATEGIES_VERSION = "sleeves_turn"
BOOKED_TO_INTENT = "sleeves_after"
"""Key of the newest transaction that was settled when the accounts were opened: the opening
balances include it and all earlier ones.
"""
BOOKED_TO_TRANSFER = "sleeves_flow_after"
TRANSFERS_STRATEGY = "sleeves_flows_to"
HOUR_S = 3_600
FOLD_AT = 500
"""Number of transfer bookings above which they are merged into one."""
_NAMED = "folded flows"
_FOLDING = ("flow ", "aside ", _NAMED)
_CONSUMED = tuple(state.value for state in CONSUMED)
_OPEN = tuple(state.value for state in OPEN)


@dataclass(frozen=True, slots=True)
class StrategyStore:
    """Accounts of strategies; each method is one transaction. If a reorg removes a block, the
    bookings of its transactions are removed.
    """

    db: Database

    def ledger(self) -> StrategyLedger:
        """Return the accounts of strategies, and the wallet's unbooked changes."""
        with self.db.read("read the books of strategies") as db:
            facts = database.read_facts(
                db, TRANSFERS_STRATEGY, STRATEGIES_VERSION, BOOKED_TO_INTENT, BOOKED_TO_TRANSFER
            )
            bookings = tuple(map(_booking, column_values(db, _bookings())))
            states = tuple(
                decode_json(StrategyState, text) for text in column_values(db, _states())
            )
            return StrategyLedger(
                bookings=bookings,
                states=states,
                intents=_intents(db, bookings, int(facts.get(BOOKED_TO_INTENT) or 0)),
                flows=_unbooked_transfers(db, bookings, int(facts.get(BOOKED_TO_TRANSFER) or 0)),
                earlier=_unbooked_external(db, bookings),
                flows_to=facts.get(TRANSFERS_STRATEGY) or None,
                turn=int(facts.get(STRATEGIES_VERSION) or 0),
            )

    def record_bookings(self, bookings: Sequence[StrategyBooking], at_version: int) -> bool:
        """Record bookings; return False, with nothing written, if another process wrote since
        `at_version`.
        """
        with self.db.write("write the books of strategies") as db:
            if database.fact_number(db, STRATEGIES_VERSION) != at_version:
                return False
            for booking in bookings:
                if booking.kind is StrategyBookingKind.OPEN:
                    _mark_opening(db)
            insert_rows(
                db,
                StrategyBookingRow,
                [
                    {"source": booking.source, "booking_json": codec.dumps(booking)}
                    for booking in bookings
                ],
            )
            database.write_facts(db, {STRATEGIES_VERSION: at_version + 1})
            _fold(db)
            return True

    def record_states(
        self, states: Sequence[StrategyState], points: Mapping[str, NavPoint]
    ) -> None:
        """Record states of strategies, and the first NAV per share of each hour."""
        with self.db.write("write the unit values of strategies") as db:
            upsert_rows(
                db,
                StrategyRow,
                [{"name": state.name, "state_json": codec.dumps(state)} for state in states],
            )
            rows = [
                {
                    "name": name,
                    "hour": point.at_s // HOUR_S,
                    "at_s": point.at_s,
                    "unit": str(point.unit),
                    "health_index": str(point.index),
                }
                for name, point in points.items()
            ]
            insert_new_rows(db, NavPointRow, rows)

    def nav_points(self, name: str, since_s: int) -> tuple[NavPoint, ...]:
        """Return the NAV per share of a strategy since that time, oldest first."""
        with self.db.read("read the unit values of strategies") as db:
            rows = all_rows(db, _points(), NavPointRow, name=name, hour=since_s // HOUR_S)
            return tuple(
                NavPoint(row.at_s, _whole(row.unit), _whole(row.health_index))
                for row in rows
                if row.at_s >= since_s
            )

    def forget(self, names: Sequence[str]) -> None:
        """Delete states and NAV of closed strategies, because a name may be reused."""
        with self.db.write("forget strategies that were closed") as db:
            for row in (StrategyRow, NavPointRow):
                db.execute(delete(row).where(row.name.in_(names)))

    def route_transfers(self, name: str | None) -> None:
        """Set the strategy that receives later deposits and withdrawals; None splits them by
        capital.
        """
        with self.db.write("save which strategy receives deposits") as db:
            database.write_facts(db, {TRANSFERS_STRATEGY: name or ""})


@lru_cache(maxsize=16_384)
def _booking(text: str) -> StrategyBooking:
    """Parse a booking from its JSON; cached, because every cycle reads all bookings."""
    return decode_json(StrategyBooking, text)


def _mark_opening(db: Connection) -> None:
    """Record that the opening balances contain all earlier transactions."""
    first_open = db.scalar(select(func.min(IntentRow.seq)).where(IntentRow.state.in_(_OPEN)))
    after = max_value(db, IntentRow.seq) if first_open is None else first_open - 1
    database.write_facts(
        db, {BOOKED_TO_INTENT: after, BOOKED_TO_TRANSFER: max_value(db, ExternalTransferRow.seq)}
    )


def _fold(db: Connection) -> None:
    """Merge bookings of old transfers into one, because anyone can send any number of transfers."""
    if (db.scalar(_foldable_count()) or 0) < FOLD_AT:
        return
    rows = all_rows(db, _foldable().order_by(StrategyBookingRow.seq), StrategyBookingRow)
    loose = [(row, _booking(row.booking_json)) for row in rows]
    newest = max((booking.block for _, booking in loose), default=0)
    old = [
        (row, booking)
        for row, booking in loose
        if booking.block <= newest - balances.FOLD_DEPTH_BLOCKS
    ]
    if len(old) < FOLD_AT:
        return
    total: dict[tuple[str, str], int] = {}
    for _, booking in old:
        for name, token, raw in booking.changes:
            total[name, token] = total.get((name, token), 0) + raw
    flows = [_transfer_id(booking.source) for _, booking in old]
    database.write_facts(
        db, {BOOKED_TO_TRANSFER: max([database.fact_number(db, BOOKED_TO_TRANSFER), *flows])}
    )
    changes = tuple((name, token, raw) for (name, token), raw in sorted(total.items()) if raw)
    last = old[-1][1]
    folded = codec.dumps(
        StrategyBooking(_NAMED, StrategyBookingKind.FLOW, last.block, last.at_s, changes)
    )
    numbers = [row.seq for row, _ in old]
    for start in range(1, len(numbers), FOLD_AT):
        db.execute(
            delete(StrategyBookingRow).where(
                StrategyBookingRow.seq.in_(numbers[start : start + FOLD_AT])
            )
        )
    db.execute(
        update(StrategyBookingRow)
        .where(StrategyBookingRow.seq == numbers[0])
        .values(source=_NAMED, booking_json=folded)
    )


def _transfer_id(source: str) -> int:
    return int(source.removeprefix("flow ")) if source.startswith("flow ") else 0


def _intents(db: Connection, bookings: Sequence[StrategyBooking], after: int) -> tuple[Intent, ...]:
    """Return mined transactions that are not booked yet, oldest first."""
    if not bookings:
        return ()
    known, opened = {booking.source for booking in bookings}, bookings[0].block
    rows = [row for row in all_rows(db, _mined(), IntentRow, after=after) if row.id not in known]
    intents = [database.intent_from_row(row) for row in rows]
    return tuple(
        intent
        for intent in intents
        if intent.receipt is not None and intent.receipt.block_number > opened
    )


def _unbooked_transfers(
    db: Connection, bookings: Sequence[StrategyBooking], after: int
) -> tuple[ExternalTransfer, ...]:
    if not bookings:
        return ()
    booked = [_transfer_id(booking.source) for booking in bookings]
    return balances.transfers_after(db, max([after, *booked]))


def _unbooked_external(
    db: Connection, bookings: Sequence[StrategyBooking]
) -> tuple[tuple[str, int, tuple[tuple[str, int], ...]], ...]:
    """Return unbooked transactions that the wallet sent without this store since the accounts were
    opened.
    """
    if not bookings:
        return ()
    known = {booking.source for booking in bookings}
    rows = all_rows(db, _outside(), ExternalTransactionRow, block=bookings[0].block)
    return tuple(
        (row.tx_hash, row.block_number, balances.parse_changes(row))
        for row in rows
        if row.tx_hash not in known
    )


def _whole(text: str) -> int:
    try:
        return int(Fraction(text))
    except (ValueError, ZeroDivisionError) as error:
        raise OperatorNeeded(
            f"store: a NAV per share is damaged: {error}", "restore a backup"
        ) from None


_bookings = cache(lambda: select(StrategyBookingRow.booking_json).order_by(StrategyBookingRow.seq))
_states = cache(lambda: select(StrategyRow.state_json).order_by(StrategyRow.name))
_foldable = cache(
    lambda: select(StrategyBookingRow).where(
        or_(*(StrategyBookingRow.source.startswith(name) for name in _FOLDING))
    )
)
_foldable_count = cache(lambda: _foldable().with_only_columns(func.count()))


@cache
def _points() -> Select[Any]:
    since = NavPointRow.name == bindparam("name"), NavPointRow.hour >= bindparam("hour")
    return select(NavPointRow).where(*since).order_by(NavPointRow.hour)


@cache
def _mined() -> Select[Any]:
    """Select mined intents with a sequence number above `after`."""
    mined = (
        IntentRow.seq > bindparam("after"),
        IntentRow.state.in_(_CONSUMED),
        IntentRow.receipt_json.is_not(None),
    )
    return select(IntentRow).where(*mined).order_by(IntentRow.seq)


@cache
def _outside() -> Select[Any]:
    """Select external transactions of the wallet mined after `block`."""
    return (
        select(ExternalTransactionRow)
        .where(ExternalTransactionRow.block_number > bindparam("block"))
        .order_by(ExternalTransactionRow.block_number)
    )


ACCOUNT = "cash_account"
VERSION = "cash_turn"


@dataclass(frozen=True, slots=True)
class CashStore:
    """The account of portfolio.use_cash; each method is one transaction."""

    db: Database

    def read(self, token: str, block: int) -> CashMemory:
        """Return the account with the changes of `token` up to the block. The changes of another
        token's account are empty, because that account is opened anew.
        """
        with self.db.read("read the account of portfolio.use_cash") as db:
            facts = database.read_facts(db, ACCOUNT, VERSION)
            turn = database.parse_fact_number(VERSION, facts.get(VERSION))
            text = facts.get(ACCOUNT)
            account = decode_json(CashAccount, text) if text else None
            external = all_rows(db, _external(), ExternalTransactionRow, block=block)
            hashes = tuple(row.tx_hash for row in external)
            newest = db.scalar(_newest_transfer(), {"block": block}) or 0
            if account is None or account.token != token:
                intent = max_value(db, IntentRow.seq)
                return CashMemory(None, (), (), newest, intent, hashes, turn)
            changes = [
                (flow.block, flow.delta_raw)
                for flow in balances.transfers_after(db, account.transfer)
                if flow.token == token and flow.block <= block
            ]
            counted = frozenset(account.external)
            changes += [
                (row.block_number, raw)
                for row in external
                if row.tx_hash not in counted and (raw := _payment(row, token))
            ]
            paid, intent = _paid(db, account.intent, token, self.db.wallet, self.db.coin)
            return CashMemory(
                account,
                tuple(raw for _, raw in sorted(changes, key=lambda change: change[0])),
                paid,
                max(newest, account.transfer),
                intent,
                hashes,
                turn,
            )

    def record(self, account: CashAccount, turn: int) -> bool:
        """Store the account; return False, with nothing written, if it was written after `turn`."""
        with self.db.write("write the account of portfolio.use_cash") as db:
            if database.fact_number(db, VERSION) != turn:
                return False
            database.write_facts(db, {ACCOUNT: codec.dumps(account), VERSION: turn + 1})
            return True

    def forget(self) -> None:
        """Delete the account, because without portfolio.use_cash no cash is excluded."""
        with self.db.read("read the account of portfolio.use_cash") as db:
            if database.find_fact(db, ACCOUNT) is None:
                return
        with self.db.write("forget the account of portfolio.use_cash") as db:
            turn = database.fact_number(db, VERSION)
            database.delete_facts(db, ACCOUNT)
            database.write_facts(db, {VERSION: turn + 1})


def _payment(row: ExternalTransactionRow, token: str) -> int:
    """Return the change of `token` by an external transaction that moved no other token; 0 for a
    trade, which moves the agent's own part.
    """
    moved = {
        address: raw for address, raw in balances.parse_changes(row) if address != NATIVE and raw
    }
    return moved[token] if moved.keys() == {token} else 0


def _paid(
    db: Connection, after: int, token: str, wallet: str, coin: str
) -> tuple[tuple[int, ...], int]:
    """Return the amounts of `token` in final payouts after that intent, and the number of the
    newest payout before the first open one. Other payouts do not count: a reorg may undo them.
    """
    paid, newest = [], after
    for row in all_rows(db, _payouts(), IntentRow, of=after):
        if row.state in {state.value for state in OPEN}:
            break
        newest = row.seq
        if row.state == IntentState.FINAL.value:
            paid.append(-database.intent_from_row(row).changes(wallet, coin).get(token, 0))
    return tuple(raw for raw in paid if raw > 0), newest


@cache
def _external() -> Select[Any]:
    return (
        select(ExternalTransactionRow)
        .where(ExternalTransactionRow.block_number <= bindparam("block"))
        .order_by(ExternalTransactionRow.block_number)
    )


@cache
def _newest_transfer() -> Select[Any]:
    return select(func.max(ExternalTransferRow.seq)).where(
        ExternalTransferRow.block_number <= bindparam("block")
    )


@cache
def _payouts() -> Select[Any]:
    later = IntentRow.seq > bindparam("of"), IntentRow.kind == IntentKind.PAYOUT.value
    return select(IntentRow).where(*later).order_by(IntentRow.seq)
