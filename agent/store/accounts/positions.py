"""Stored accounts of positions and cash: changes of liquidity positions by mined intents,
discovered positions with the owner's decision; the account of portfolio.use_cash, and the transfers
and payouts that it does not contain yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    CompoundSelect,
    Connection,
    Select,
    bindparam,
    delete,
    func,
    literal,
    select,
    union_all,
)

from agent import codec
from agent.amm.lp.own_changes import position_change
from agent.model import (
    CashAccount,
    CashMemory,
    IntentKind,
    IntentState,
    LpPositionChange,
    Receipt,
    lp_action,
)
from agent.ports import Grant
from agent.store import database
from agent.store.accounts import balances
from agent.store.database import (
    Database,
    all_rows,
    column_values,
    decode_json,
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
)
from agent.store.transitions import OPEN
from agent.units import NATIVE

UNDECIDED, TAKEN, FORGOTTEN = "undecided", "taken", "forgotten"
OWN = "own"
"""Stands for a verdict with the changes by mined intents."""
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
        change = position_change(lp_action(action), receipt, wallet)
    if change is None:
        db.execute(delete(LiquidityRow).where(LiquidityRow.intent_id == row.id))
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
            rows = db.execute(_changes()).all()
        decided = {row.name: row.seq for row in rows if row.verdict in (TAKEN, FORGOTTEN)}
        moves: dict[str, list[LpPositionChange]] = {TAKEN: [], OWN: []}
        for row in rows:
            if row.verdict in moves and row.move_json is not None:
                move = database.decode_json(LpPositionChange, row.move_json)
                if row.verdict == TAKEN or row.seq > decided.get(move.name, -1):
                    moves[row.verdict].append(move)
        return (*moves[TAKEN], *moves[OWN])

    def scanned(self) -> bool:
        """True if the wallet was scanned since the store was created or adopted."""
        with self.db.read("read liquidity positions") as db:
            return database.find_fact(db, POSITIONS_SCANNED) is not None

    def record(self, names: Iterable[str], now_s: int) -> None:
        """Record positions that await the owner's decision."""
        with self.db.write("write liquidity positions") as db:
            known_names = {
                row.name for row in all_rows(db, select(FoundPositionRow), FoundPositionRow)
            }
            new_names = [name for name in dict.fromkeys(names) if name not in known_names]
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
                    for name in new_names
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
def _changes() -> CompoundSelect[*tuple[Any, ...]]:
    """Select discovered positions, and position changes of mined intents, each with an intent's
    number and oldest first.
    """
    discovered_rows = select(
        FoundPositionRow.name,
        FoundPositionRow.verdict,
        FoundPositionRow.move_json,
        FoundPositionRow.after_seq.label("seq"),
    )
    own_rows = _positions_own().with_only_columns(
        literal("").label("name"),
        literal(OWN).label("verdict"),
        LiquidityRow.move_json,
        IntentRow.seq,
    )
    return union_all(discovered_rows, own_rows.order_by(None)).order_by("seq", "name")


@cache
def _own_beyond() -> Select[Any]:
    """Select position changes of intents with a sequence number above `of`."""
    return (
        _positions_own()
        .with_only_columns(LiquidityRow.move_json)
        .where(IntentRow.seq > bindparam("of"))
    )


CASH_ACCOUNT = "cash_account"
CASH_VERSION = "cash_turn"


@dataclass(frozen=True, slots=True)
class CashStore:
    """The account of portfolio.use_cash; each method is one transaction."""

    db: Database

    def read(self, token: str, block: int) -> CashMemory:
        """Return the account with the changes of `token` up to the block. The changes of another
        token's account are empty, because that account is opened anew.
        """
        with self.db.read("read the account of portfolio.use_cash") as db:
            facts = database.read_facts(db, CASH_ACCOUNT, CASH_VERSION)
            version = database.parse_fact_number(CASH_VERSION, facts.get(CASH_VERSION))
            text = facts.get(CASH_ACCOUNT)
            account = decode_json(CashAccount, text) if text else None
            external_rows = all_rows(db, _external(), ExternalTransactionRow, block=block)
            hashes = tuple(row.tx_hash for row in external_rows)
            newest = (
                db.scalar(
                    select(func.max(ExternalTransferRow.seq)).where(
                        ExternalTransferRow.block_number <= block
                    )
                )
                or 0
            )
            if account is None or account.token != token:
                newest_intent_seq = max_value(db, IntentRow.seq)
                return CashMemory(None, (), (), newest, newest_intent_seq, hashes, version)
            changes = [
                (flow.block, flow.delta_raw)
                for flow in balances.transfers_after(db, account.transfer)
                if flow.token == token and flow.block <= block
            ]
            known_hashes = frozenset(account.external)
            changes += [
                (row.block_number, raw)
                for row in external_rows
                if row.tx_hash not in known_hashes and (raw := _payment(row, token))
            ]
            paid_amounts, newest_intent_seq = _paid_amounts(
                db, account.intent, token, self.db.wallet, self.db.coin
            )
            return CashMemory(
                account,
                tuple(raw for _, raw in sorted(changes, key=lambda change: change[0])),
                paid_amounts,
                max(newest, account.transfer),
                newest_intent_seq,
                hashes,
                version,
            )

    def record(self, account: CashAccount, version: int) -> bool:
        """Store the account; return False, with nothing written, if it was written after `version`."""
        with self.db.write("write the account of portfolio.use_cash") as db:
            if database.fact_number(db, CASH_VERSION) != version:
                return False
            database.write_facts(
                db, {CASH_ACCOUNT: codec.dumps(account), CASH_VERSION: version + 1}
            )
            return True

    def forget(self) -> None:
        """Delete the account, because without portfolio.use_cash no cash is excluded."""
        with self.db.read("read the account of portfolio.use_cash") as db:
            if database.find_fact(db, CASH_ACCOUNT) is None:
                return
        with self.db.write("forget the account of portfolio.use_cash") as db:
            version = database.fact_number(db, CASH_VERSION)
            database.delete_facts(db, CASH_ACCOUNT)
            database.write_facts(db, {CASH_VERSION: version + 1})


def _payment(row: ExternalTransactionRow, token: str) -> int:
    """Return the change of `token` by an external transaction that moved no other token; 0 for a
    trade, which moves the agent's own part.
    """
    moved_raw = {
        address: raw for address, raw in balances.parse_changes(row) if address != NATIVE and raw
    }
    return moved_raw[token] if moved_raw.keys() == {token} else 0


def _paid_amounts(
    db: Connection, after: int, token: str, wallet: str, coin: str
) -> tuple[tuple[int, ...], int]:
    """Return the amounts of `token` in final payouts after that intent, and the number of the
    newest payout before the first open one. Other payouts do not count: a reorg may undo them.
    """
    amounts, newest_seq = [], after
    for row in all_rows(db, _payouts(), IntentRow, of=after):
        if row.state in {state.value for state in OPEN}:
            break
        newest_seq = row.seq
        if row.state == IntentState.FINAL.value:
            amounts.append(-database.intent_from_row(row).changes(wallet, coin).get(token, 0))
    return tuple(raw for raw in amounts if raw > 0), newest_seq


@cache
def _external() -> Select[Any]:
    return (
        select(ExternalTransactionRow)
        .where(ExternalTransactionRow.block_number <= bindparam("block"))
        .order_by(ExternalTransactionRow.block_number)
    )


@cache
def _payouts() -> Select[Any]:
    conditions = IntentRow.seq > bindparam("of"), IntentRow.kind == IntentKind.PAYOUT.value
    return select(IntentRow).where(*conditions).order_by(IntentRow.seq)
