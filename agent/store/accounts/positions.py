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
from agent.errors import ErrorCode, Refused
from agent.model import (
    CashAccount,
    CashMemory,
    IntentKind,
    IntentState,
    LpPositionChange,
    Receipt,
    as_lp_action,
)
from agent.ports import Grant
from agent.store.accounts import balances
from agent.store.database.connection import Database
from agent.store.database.facts import (
    ADOPTION_SEQ_KEY,
    delete_facts,
    fact_number,
    find_fact,
    parse_fact_number,
    read_facts,
    write_facts,
)
from agent.store.database.rows import decode_json, decompress_text, intent_from_row
from agent.store.database.statements import (
    all_rows,
    column_values,
    insert_rows,
    max_value,
    upsert_rows,
)
from agent.store.tables import (
    EXTERNAL_ORDER,
    ExternalTransactionRow,
    ExternalTransferRow,
    FoundPositionRow,
    IntentRow,
    PositionChangeRow,
)
from agent.store.transitions import ENDED_IN_BLOCK_STATE_NAMES, OPEN_STATE_NAMES
from agent.units import NATIVE

UNDECIDED = "undecided"
ADOPTED = "taken"
FORGOTTEN = "forgotten"
"""Verdicts of the owner on discovered positions."""
OWN_CHANGE = "own"
"""Stands in place of a verdict in rows of changes by mined intents."""
POSITIONS_SCANNED = "positions_looked"
"""Key that is set once the wallet was scanned, after the store was created or adopted."""


def moved_position_names(db: Connection, after_seq: int | None) -> set[str]:
    """Return the names of positions that intents after that number changed; empty without a
    number.
    """
    if after_seq is None:
        return set()
    changes_json = column_values(db, _select_own_changes_after(), after_seq=after_seq)
    return {decode_json(LpPositionChange, change_json).name for change_json in changes_json}


def undecided_position_names(db: Connection) -> tuple[str, ...]:
    """Return the names of positions that await the owner's decision."""
    return tuple(column_values(db, _select_undecided()))


def request_position_scan(db: Connection) -> None:
    """Require a new scan for positions, after foreign use of the wallet."""
    delete_facts(db, POSITIONS_SCANNED)


def update_position_change(
    db: Connection, row: IntentRow, wallet: str, receipt: Receipt | None
) -> None:
    """Record the position change of a liquidity action from its receipt; delete it if there is no
    receipt.
    """
    action = decode_json(Grant, decompress_text(row.grant_z)).layer_action
    change = None
    if receipt is not None and action is not None:
        change = position_change(as_lp_action(action), receipt, wallet)
    if change is None:
        db.execute(delete(PositionChangeRow).where(PositionChangeRow.intent_id == row.id))
    else:
        upsert_rows(
            db, PositionChangeRow, [{"intent_id": row.id, "change_json": codec.dumps(change)}]
        )


@dataclass(frozen=True, slots=True)
class PositionStore:
    """Liquidity positions; each method is a transaction of its own."""

    db: Database

    def changes(self) -> tuple[LpPositionChange, ...]:
        """Return the changes of the agent's positions, oldest first: adopted positions, then the
        changes by mined intents since a position was forgotten or adopted.
        """
        with self.db.read("read liquidity positions") as db:
            change_rows = db.execute(_select_changes()).all()
        decision_seq_by_name = {
            row.name: row.seq for row in change_rows if row.verdict in (ADOPTED, FORGOTTEN)
        }
        changes_by_verdict: dict[str, list[LpPositionChange]] = {ADOPTED: [], OWN_CHANGE: []}
        for row in change_rows:
            if row.verdict in changes_by_verdict and row.change_json is not None:
                change = decode_json(LpPositionChange, row.change_json)
                if row.verdict == ADOPTED or row.seq > decision_seq_by_name.get(change.name, -1):
                    changes_by_verdict[row.verdict].append(change)
        return (*changes_by_verdict[ADOPTED], *changes_by_verdict[OWN_CHANGE])

    def is_scanned(self) -> bool:
        """True if the wallet was scanned since the store was created or adopted."""
        with self.db.read("read liquidity positions") as db:
            return find_fact(db, POSITIONS_SCANNED) is not None

    def record_scan(self, position_names: Iterable[str], now_s: int) -> None:
        """Record positions that await the owner's decision."""
        with self.db.write("write liquidity positions") as db:
            known_names = {
                row.name for row in all_rows(db, select(FoundPositionRow), FoundPositionRow)
            }
            new_names = [name for name in dict.fromkeys(position_names) if name not in known_names]
            insert_rows(
                db,
                FoundPositionRow,
                [
                    {
                        "name": name,
                        "verdict": UNDECIDED,
                        "change_json": None,
                        "after_intent_seq": 0,
                        "at_s": now_s,
                    }
                    for name in new_names
                ],
            )
            write_facts(db, {POSITIONS_SCANNED: 1})

    def require_settled(self, name: str) -> None:
        """Raise Refused while a transaction of the agent that changes the position has not
        ended.
        """
        with self.db.read("read liquidity positions") as db:
            _require_settled(db, name)

    def record_decision(self, name: str, mint: LpPositionChange | None, now_s: int) -> None:
        """Record the owner's decision on a position: with its mint `mint` it counts from now on;
        None ignores it. Raises Refused as `require_settled`.
        """
        with self.db.write("write a liquidity position") as db:
            _require_settled(db, name)
            verdict, mint_json = (FORGOTTEN, None) if mint is None else (ADOPTED, codec.dumps(mint))
            row = {
                "name": name,
                "verdict": verdict,
                "change_json": mint_json,
                "after_intent_seq": max_value(db, IntentRow.seq),
                "at_s": now_s,
            }
            upsert_rows(db, FoundPositionRow, [row])


def _require_settled(db: Connection, name: str) -> None:
    for row in all_rows(db, _select_open_actions(), IntentRow):
        action = decode_json(Grant, decompress_text(row.grant_z)).layer_action
        if action is not None and as_lp_action(action).name == name:
            raise Refused(
                f"position {name}: transaction {row.tx_hash or row.id} that changes it has not ended",
                remedy="repeat this once it is final; trimtab txs lists it",
                code=ErrorCode.OPEN_TRANSACTION,
            )


@cache
def _select_open_actions() -> Select[Any]:
    return select(IntentRow).where(
        IntentRow.kind == IntentKind.LIQUIDITY.value, IntentRow.state.in_(OPEN_STATE_NAMES)
    )


@cache
def _select_undecided() -> Select[Any]:
    return (
        select(FoundPositionRow.name)
        .where(FoundPositionRow.verdict == UNDECIDED)
        .order_by(FoundPositionRow.name)
    )


@cache
def _select_own_changes() -> Select[str, int]:
    """Select position changes of mined intents with the intents' numbers, oldest first."""
    select_changes = select(PositionChangeRow.change_json, IntentRow.seq).join(
        IntentRow, IntentRow.id == PositionChangeRow.intent_id
    )
    return select_changes.order_by(IntentRow.seq)


@cache
def _select_changes() -> CompoundSelect[*tuple[Any, ...]]:
    """Select discovered positions, and position changes of mined intents, each with an intent's
    number and oldest first.
    """
    discovered_rows = select(
        FoundPositionRow.name,
        FoundPositionRow.verdict,
        FoundPositionRow.change_json,
        FoundPositionRow.after_intent_seq.label("seq"),
    )
    own_rows = _select_own_changes().with_only_columns(
        literal("").label("name"),
        literal(OWN_CHANGE).label("verdict"),
        PositionChangeRow.change_json,
        IntentRow.seq,
    )
    return union_all(discovered_rows, own_rows.order_by(None)).order_by("seq", "name")


@cache
def _select_own_changes_after() -> Select[Any]:
    """Select position changes of intents with a number above `after_seq`."""
    return (
        _select_own_changes()
        .with_only_columns(PositionChangeRow.change_json)
        .where(IntentRow.seq > bindparam("after_seq"))
    )


CASH_ACCOUNT = "cash_account"
"""Key of the CashAccount as JSON."""
CASH_VERSION = "cash_turn"
"""Key of the number of writes of the account."""


@dataclass(frozen=True, slots=True)
class CashStore:
    """The account of portfolio.use_cash; each method is one transaction."""

    db: Database

    def read(self, token: str, block: int) -> CashMemory:
        """Return the account with the changes of `token` up to the block. The changes of another
        token's account are empty, because that account is opened anew.
        """
        with self.db.read("read the account of portfolio.use_cash") as db:
            facts = read_facts(db, CASH_ACCOUNT, CASH_VERSION)
            version = parse_fact_number(CASH_VERSION, facts.get(CASH_VERSION))
            account_json = facts.get(CASH_ACCOUNT)
            account = decode_json(CashAccount, account_json) if account_json else None
            external_rows = all_rows(
                db, _select_external_until(), ExternalTransactionRow, block=block
            )
            external_hashes = tuple(row.tx_hash for row in external_rows)
            last_transfer_id = (
                db.scalar(
                    select(func.max(ExternalTransferRow.seq)).where(
                        ExternalTransferRow.block_number <= block
                    )
                )
                or 0
            )
            if account is None or account.token != token:
                last_intent_seq = max_value(db, IntentRow.seq)
                return CashMemory(
                    None, (), (), last_transfer_id, last_intent_seq, external_hashes, version
                )
            blocks_and_changes_raw = [
                (transfer.block, transfer.delta_raw)
                for transfer in balances.transfers_after(db, account.newest_transfer_id)
                if transfer.token == token and transfer.block <= block
            ]
            counted_hashes = frozenset(account.counted_tx_hashes)
            blocks_and_changes_raw += [
                (row.block_number, change_raw)
                for row in external_rows
                if row.tx_hash not in counted_hashes
                and (change_raw := _external_payment(row, token))
            ]
            payouts_raw, last_intent_seq = _payout_amounts(
                db, account.newest_intent_seq, token, self.db.wallet, self.db.wrapped_native
            )
            return CashMemory(
                account,
                tuple(
                    change_raw
                    for _, change_raw in sorted(
                        blocks_and_changes_raw, key=lambda block_and_change: block_and_change[0]
                    )
                ),
                payouts_raw,
                max(last_transfer_id, account.newest_transfer_id),
                last_intent_seq,
                external_hashes,
                version,
            )

    def record(self, account: CashAccount, version: int) -> bool:
        """Store the account; return False, with nothing written, if it was written after
        `version`.
        """
        with self.db.write("write the account of portfolio.use_cash") as db:
            if fact_number(db, CASH_VERSION) != version:
                return False
            write_facts(db, {CASH_ACCOUNT: codec.dumps(account), CASH_VERSION: version + 1})
            return True

    def forget(self) -> None:
        """Delete the account, because without portfolio.use_cash no cash is excluded."""
        with self.db.read("read the account of portfolio.use_cash") as db:
            if find_fact(db, CASH_ACCOUNT) is None:
                return
        with self.db.write("forget the account of portfolio.use_cash") as db:
            version = fact_number(db, CASH_VERSION)
            delete_facts(db, CASH_ACCOUNT)
            write_facts(db, {CASH_VERSION: version + 1})


def _external_payment(row: ExternalTransactionRow, token: str) -> int:
    """Return the change of `token` by an external transaction that moved no other token; 0 for a
    trade, which moves the agent's own part.
    """
    moved_raw_by_token = {
        moved_token: moved_raw
        for moved_token, moved_raw in balances.parse_changes(row.changes_json)
        if moved_token != NATIVE and moved_raw
    }
    return moved_raw_by_token[token] if moved_raw_by_token.keys() == {token} else 0


def _payout_amounts(
    db: Connection, after_seq: int, token: str, wallet: str, wrapped_native: str
) -> tuple[tuple[int, ...], int]:
    """Return the amounts of `token` in final payouts after that intent, and the number of the
    newest payout before the first that may still be mined: an open one, or a dropped one whose nonce
    is free, which its signer may execute late. Other payouts do not count: a reorg may undo them.
    """
    payouts_raw = []
    last_payout_seq = after_seq
    for row in all_rows(db, _select_payouts_after(), IntentRow, after_seq=after_seq):
        if row.state in OPEN_STATE_NAMES or not _is_nonce_used(db, row):
            break
        last_payout_seq = row.seq
        if row.state == IntentState.FINAL.value:
            payouts_raw.append(
                -intent_from_row(row).balance_changes(wallet, wrapped_native).get(token, 0)
            )
    return tuple(payout_raw for payout_raw in payouts_raw if payout_raw > 0), last_payout_seq


def _is_nonce_used(db: Connection, row: IntentRow) -> bool:
    """Return whether a transaction has the nonce of an intent for good, one of the journal or, by
    adoption, a foreign one.
    """
    if row.state in ENDED_IN_BLOCK_STATE_NAMES:
        return True
    if row.seq <= fact_number(db, ADOPTION_SEQ_KEY):
        return True
    return db.scalar(_select_ended_at_nonce(), {"nonce": row.nonce}) is not None


@cache
def _select_ended_at_nonce() -> Select[Any]:
    return (
        select(IntentRow.seq)
        .where(
            IntentRow.nonce == bindparam("nonce"),
            IntentRow.state.in_(ENDED_IN_BLOCK_STATE_NAMES),
        )
        .limit(1)
    )


@cache
def _select_external_until() -> Select[Any]:
    return (
        select(ExternalTransactionRow)
        .where(ExternalTransactionRow.block_number <= bindparam("block"))
        .order_by(*EXTERNAL_ORDER)
    )


@cache
def _select_payouts_after() -> Select[Any]:
    conditions = IntentRow.seq > bindparam("after_seq"), IntentRow.kind == IntentKind.PAYOUT.value
    return select(IntentRow).where(*conditions).order_by(IntentRow.seq)
