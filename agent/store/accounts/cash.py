"""Stored account of portfolio.use_cash, and the transfers and payouts that it does not contain
yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, select

from agent import codec
from agent.model import CashAccount, CashMemory, IntentKind, IntentState
from agent.store import database
from agent.store.accounts import balances
from agent.store.database import Database, all_rows, decode_json, max_value
from agent.store.tables import ExternalTransactionRow, ExternalTransferRow, IntentRow
from agent.store.transitions import OPEN
from agent.units import NATIVE

ACCOUNT = "cash_account"
VERSION = "cash_turn"


@dataclass(frozen=True, slots=True)
class CashStore:
    """Implements ports.CashJournal; each method is one transaction."""

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
        """Delete the account: without portfolio.use_cash nothing is left alone."""
        with self.db.read("read the account of portfolio.use_cash") as db:
            if database.find_fact(db, ACCOUNT) is None:
                return
        with self.db.write("forget the account of portfolio.use_cash") as db:
            turn = database.fact_number(db, VERSION)
            database.delete_facts(db, ACCOUNT)
            database.write_facts(db, {VERSION: turn + 1})


def _payment(row: ExternalTransactionRow, token: str) -> int:
    """Return what a transaction without this store paid or brought in `token` alone; 0 for a trade,
    which moves the agent's own part.
    """
    moved = {
        address: raw for address, raw in balances.parse_changes(row) if address != NATIVE and raw
    }
    return moved[token] if moved.keys() == {token} else 0


def _paid(
    db: Connection, after: int, token: str, wallet: str, coin: str
) -> tuple[tuple[int, ...], int]:
    """Return what final payouts after that intent paid in `token`, and the newest one before the
    first open one. Only a final payout makes room, because a reorg may undo any other.
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
