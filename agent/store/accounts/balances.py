"""Expected balances of the wallet and unexplained changes: external transfers, external
transactions, unknown positions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, literal_column, select, update

from agent.errors import ConfigError, OperatorNeeded
from agent.model import (
    ExpectedBalances,
    ExternalTransaction,
    ExternalTransfer,
    ExternalTransferKind,
    Intent,
    OpeningBalance,
    OwnBalanceChange,
    Snapshot,
)
from agent.policy.cash_flows.balance_changes import ACCEPTANCE_WINDOW_S, unpriced_loss_reason
from agent.store import database, records
from agent.store.accounts import ledger_sums
from agent.store.database import (
    Database,
    all_rows,
    column_values,
    first_row,
    insert_rows,
    max_value,
    upsert_rows,
)
from agent.store.tables import (
    ExternalTransactionRow,
    ExternalTransferRow,
    IntentRow,
    OpeningRow,
)
from agent.store.transitions import CONSUMED, OPEN

# --- Transactions from before this store, or while another store held the wallet: read from the
# chain.


DAY_S = 86_400
ASKED = "day_asked_s"
"""Chain time of the first query for the wallet's earlier transactions; the store knows later ones
itself.
"""
KNOWN = "day_known"


def forget_prior_day(db: Connection, nonce: int) -> bool:
    """Forget the prior day after foreign use of the wallet, unless the recorded transactions reach
    this next `nonce`.
    """
    if database.find_fact(db, KNOWN) == str(nonce):
        return False
    database.delete_facts(db, KNOWN, ASKED)
    return True


def prior_changes(db: Connection) -> tuple[OwnBalanceChange, ...]:
    """Balance changes of external transactions, as far as openings do not contain them."""
    rows = all_rows(db, _changes(), ExternalTransactionRow)
    return tuple(
        OwnBalanceChange(token, raw, row.block_number)
        for row in rows
        for token, raw in parse_changes(row)
    )


def parse_changes(row: ExternalTransactionRow) -> tuple[tuple[str, int], ...]:
    """Balance changes of one external transaction: base units with sign by token."""
    try:
        return tuple(
            sorted((token, int(raw)) for token, raw in json.loads(row.changes_json).items())
        )
    except (ValueError, AttributeError) as error:
        raise OperatorNeeded(
            f"store: an entry is damaged: {error}", "restore a backup, compare it with the chain"
        ) from None


_changes = cache(
    lambda: select(ExternalTransactionRow).order_by(ExternalTransactionRow.block_number)
)


@cache
def _young() -> Select[Any]:
    """Select one external transaction of the last 24 h whose payouts are unknown."""
    young = (
        ExternalTransactionRow.chain_s > bindparam("since"),
        ExternalTransactionRow.outflow.is_(None),
    )
    return select(ExternalTransactionRow.tx_hash).where(*young).limit(1)


FOLDED_TO = "folded_seq"
"""Key of the newest intent that openings contain already: it and all before it are final and
deep."""
BALANCES_VERSION = "books_turn"
ACCEPTED = "accepted_flows"
"""Key of the rises that were accepted last, each as number:chain time when."""
RISE_SINCE = "rose_s"
LEFT_ALONE = "left_alone"
"""Newest flow when increases were last excluded above portfolio.max_live_value; those up to it stay
excluded.
"""
"""Key of the chain time since which unexplained deposits have continuously held something back."""
FOLD_DEPTH_BLOCKS = 256
"""Depth in blocks from which a final transaction is part of the opening: four times the deepest
reorg that is followed."""
RECENT = 1_000
"""Number of newest transfers searched for those of the last 24 h; by count, since a header from the
future would hide others by time.
"""
MOST = 2**63 - 1
"""The largest number that SQLite takes; no flow has it."""
SHOWN = 50
"""Largest number of open transfers in a step."""
_CONSUMED = frozenset(state.value for state in CONSUMED)
_OPEN = frozenset(state.value for state in OPEN)
RISES = (ExternalTransferKind.DEPOSIT, ExternalTransferKind.GIFT)
FALLS = (ExternalTransferKind.WITHDRAWAL, ExternalTransferKind.LOSS)
"""Kinds that an owner may assign to an increase, and to a decrease; the first is the default."""
FELL = ExternalTransferRow.delta_raw.like(literal_column("'-%'"))
"""Must equal the index condition of decreases, or SQLite does not use it."""


def expected_balances(db: Connection, wallet: str, coin: str) -> ExpectedBalances:
    """Return everything that balances are compared with."""
    facts = database.read_facts(db, FOLDED_TO, BALANCES_VERSION)
    rows = _behind(db, database.parse_fact_number(FOLDED_TO, facts.get(FOLDED_TO)))
    unsettled = [row.nonce for row in rows if row.state in _OPEN and row.state not in _CONSUMED]
    openings = all_rows(db, _openings(), OpeningRow)
    newest = newest_transfers(db, RECENT)
    return ExpectedBalances(
        openings=tuple(
            OpeningBalance(row.token, int(row.raw), row.block_number) for row in openings
        ),
        own=(*prior_changes(db), *(change for row in rows for change in _own(row, wallet, coin))),
        flows=newest if len(newest) < RECENT else _merged((*newest, *open_transfers(db))),
        unsettled_nonce=min(unsettled, default=None),
        turn=database.parse_fact_number(BALANCES_VERSION, facts.get(BALANCES_VERSION)),
    )


def _record_transfer(db: Connection, flow: ExternalTransfer, now_s: int) -> None:
    if flow.holds and flow.delta_raw > 0:
        _began(db, flow.chain_s)
    if flow.id:
        _amend(db, flow, now_s)
        return
    ledger_sums.add_transfer(db, flow.token, flow.delta_raw)
    new = {
        "token": flow.token,
        "delta_raw": str(flow.delta_raw),
        "value": None if flow.value is None else str(flow.value),
        "since_block": flow.since_block,
        "block_number": flow.block,
        "chain_s": flow.chain_s,
        "halts": flow.halts,
        "kind": None if flow.kind is None else flow.kind.value,
        "told_s": None,
    }
    insert_rows(db, ExternalTransferRow, [new])
    if flow.undoes:
        undone = ExternalTransferRow.seq.in_(flow.undoes), ExternalTransferRow.kind.is_(None)
        db.execute(
            update(ExternalTransferRow)
            .where(*undone)
            .values(kind=ExternalTransferKind.UNDONE.value)
        )


def _began(db: Connection, at_s: int) -> None:
    """Record the start of a wait: a deposit has been blocked since then, or since an earlier
    one.
    """
    known = rise_since_s(database.read_facts(db, RISE_SINCE))
    if known is None or not known <= at_s < known + ACCEPTANCE_WINDOW_S:
        database.write_facts(db, {RISE_SINCE: at_s})


def rise_since_s(facts: Mapping[str, str]) -> int | None:
    """Chain time since which unexplained deposits are held back, from the fact ROSE; None without
    one.
    """
    return int(facts[RISE_SINCE]) if RISE_SINCE in facts else None


def left_rises(db: Connection, facts: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """Return excluded deposits, by the fact LEFT_ALONE, base units by token."""
    until = database.parse_fact_number(LEFT_ALONE, facts.get(LEFT_ALONE))
    return unexplained_rises(db, until) if until else ()


def unexplained_rises(db: Connection, until: int = MOST) -> tuple[tuple[str, int], ...]:
    """Unexplained deposits up to that transfer, base units by token."""
    sums: dict[str, int] = {}
    for token, raw in db.execute(_rises(), {"until": until}):
        sums[token] = sums.get(token, 0) + int(raw)
    return tuple(sorted(sums.items()))


def _amend(db: Connection, flow: ExternalTransfer, now_s: int) -> None:
    """Update the value and acceptance of an open transfer; one classified meanwhile stays so."""
    row = first_row(db, _by_number(), ExternalTransferRow, of=flow.id)
    if row is None or row.kind is not None:
        return
    ledger_sums.add_transfer(db, flow.token, 0)  # the ledger's entries have changed
    value = None if flow.value is None else str(flow.value)
    changes: dict[str, object] = {}
    if flow.kind is ExternalTransferKind.ACCEPTED:
        changes = {"kind": flow.kind.value, "told_s": now_s}
        known = _accepted(database.read_facts(db, ACCEPTED))[1 - SHOWN :]
        database.write_facts(
            db, {ACCEPTED: " ".join(f"{seq}:{at_s}" for seq, at_s in (*known, (flow.id, now_s)))}
        )
    db.execute(
        _change(),
        {"of": flow.id, "value": value, "halts": flow.halts, "chain_s": flow.chain_s, **changes},
    )


def accepted_deposits(
    db: Connection, facts: Mapping[str, str], chain_now_s: int
) -> tuple[ExternalTransfer, ...]:
    """Deposits accepted in the last 24 h of chain time, by the fact ACCEPTED: the newest SHOWN
    without those reclassified since, oldest first.
    """
    rows = (
        first_row(db, _by_number(), ExternalTransferRow, of=seq)
        for seq, at_s in _accepted(facts)
        if at_s > chain_now_s - DAY_S
    )
    return tuple(
        _transfer(row)
        for row in rows
        if row is not None and row.kind == ExternalTransferKind.ACCEPTED.value
    )


def _accepted(facts: Mapping[str, str]) -> list[tuple[int, int]]:
    found = (one.split(":") for one in facts.get(ACCEPTED, "").split())
    return [(int(seq), int(at_s)) for seq, at_s in found]


def _merged(found: Sequence[ExternalTransfer]) -> tuple[ExternalTransfer, ...]:
    """Return each transfer once, oldest first."""
    by_id = {flow.id: flow for flow in found}
    return tuple(by_id[number] for number in sorted(by_id))


def newest_transfers(db: Connection, limit: int) -> tuple[ExternalTransfer, ...]:
    """Return the newest `limit` transfers, classified ones included, oldest first."""
    return _found(db, _newest(), limit)


def transfers_after(db: Connection, flow_id: int) -> tuple[ExternalTransfer, ...]:
    """Return transfers recorded after that id, classified ones included, oldest first."""
    return tuple(_transfer(row) for row in all_rows(db, _after(), ExternalTransferRow, of=flow_id))


def open_transfers(db: Connection) -> tuple[ExternalTransfer, ...]:
    """Unexplained transfers, oldest first: all that halt, all losses, and the newest of the rest.

    Losses are always included, so an attacker who sends dust cannot hide one.
    """
    newest = _found(db, _waiting(), SHOWN)
    if len(newest) < SHOWN:
        return newest
    return _merged(
        [*newest, *(flow for query in (_halting(), _fallen()) for flow in _found(db, query, SHOWN))]
    )


def _found(db: Connection, newest_first: Select[Any], limit: int) -> tuple[ExternalTransfer, ...]:
    return tuple(
        reversed(
            [_transfer(row) for row in all_rows(db, newest_first, ExternalTransferRow, limit=limit)]
        )
    )


@dataclass(frozen=True, slots=True)
class LostValue:
    """Value of losses that no owner has called a withdrawal: of the last 24 h of chain time, and of
    all time.

    `unknown` is the reason why the value of the last 24 h cannot be calculated, if so.
    """

    day: Fraction
    total: Fraction
    unknown: str


def lost_value(db: Connection, chain_now_s: int) -> LostValue:
    """Sum the unexplained losses whose value is known."""
    day, total, unknown = Fraction(0), Fraction(0), ""
    for row in all_rows(db, _falls(), ExternalTransferRow):
        flow = _transfer(row)
        recent = flow.chain_s > chain_now_s - DAY_S
        if flow.is_loss and flow.value is None:
            unknown = unpriced_loss_reason(flow) if recent else unknown
        elif flow.is_loss and flow.value is not None:
            total -= flow.value
            day -= flow.value if recent else 0
    return LostValue(day, total, unknown)


def _behind(db: Connection, folded: int) -> Sequence[IntentRow]:
    return all_rows(db, _later(), IntentRow, of=folded)


def _own(row: IntentRow, wallet: str, coin: str) -> list[OwnBalanceChange]:
    if row.state not in _CONSUMED:
        return []
    intent: Intent = records.intent_from_row(row)
    block = 0 if intent.receipt is None else intent.receipt.block_number
    return [
        OwnBalanceChange(token, raw, block)
        for token, raw in sorted(intent.changes(wallet, coin).items())
    ]


def _block(row: IntentRow) -> int:
    """Block of a transaction, 0 if it was never in one."""
    intent = records.intent_from_row(row)
    return 0 if intent.receipt is None else intent.receipt.block_number


def _transfer(row: ExternalTransferRow) -> ExternalTransfer:
    try:
        kind = None if row.kind is None else ExternalTransferKind(row.kind)
        value = None if row.value is None else Fraction(row.value)
        delta = int(row.delta_raw)
    except (ValueError, ZeroDivisionError) as error:
        raise OperatorNeeded(
            f"store: a flow is damaged: {error}", "restore a backup, compare it with the chain"
        ) from None
    return ExternalTransfer(
        row.seq,
        row.token,
        delta,
        value,
        row.since_block,
        row.block_number,
        row.chain_s,
        row.halts,
        kind,
    )


_openings = cache(lambda: select(OpeningRow).order_by(OpeningRow.token))
_later = cache(
    lambda: select(IntentRow).where(IntentRow.seq > bindparam("of")).order_by(IntentRow.seq)
)
_by_number = cache(
    lambda: select(ExternalTransferRow).where(ExternalTransferRow.seq == bindparam("of"))
)
_change = cache(
    lambda: update(ExternalTransferRow).where(ExternalTransferRow.seq == bindparam("of"))
)
_after = cache(
    lambda: (
        select(ExternalTransferRow)
        .where(ExternalTransferRow.seq > bindparam("of"))
        .order_by(ExternalTransferRow.seq)
    )
)
_newest = cache(
    lambda: (
        select(ExternalTransferRow)
        .order_by(ExternalTransferRow.seq.desc())
        .limit(bindparam("limit"))
    )
)
_waiting = cache(lambda: _newest().where(ExternalTransferRow.kind.is_(None)))
_halting = cache(lambda: _waiting().where(ExternalTransferRow.halts))
_fallen = cache(lambda: _waiting().where(FELL))
_falls = cache(lambda: select(ExternalTransferRow).where(FELL))
_rises = cache(
    lambda: select(ExternalTransferRow.token, ExternalTransferRow.delta_raw).where(
        ExternalTransferRow.kind.is_(None), ~FELL, ExternalTransferRow.seq <= bindparam("until")
    )
)


# --- Expected balances and external transfers: the accounting part of the store.


@dataclass(frozen=True, slots=True)
class BalanceStore:
    """Balances, transfers, and transactions from before this store; each method is one
    transaction.
    """

    db: Database

    def expected(self) -> ExpectedBalances:
        """Expected balances and the newest transfers."""
        return self.db.query("read the books", expected_balances, self.db.wallet, self.db.coin)

    def record(
        self,
        snapshot: Snapshot,
        balances: Mapping[str, int],
        flows: Sequence[ExternalTransfer],
        turn: int,
    ) -> bool:
        """Record unexplained transfers and the `balances` as the new basis.

        False, and nothing written, if another process wrote since that version.
        """
        with self.db.write("write the books") as db:
            facts = database.read_facts(db, FOLDED_TO, BALANCES_VERSION)
            if database.parse_fact_number(BALANCES_VERSION, facts.get(BALANCES_VERSION)) != turn:
                return False
            folded = database.parse_fact_number(FOLDED_TO, facts.get(FOLDED_TO))
            folded = self._open_at(db, snapshot.head.number, balances, folded)
            database.write_facts(db, {FOLDED_TO: folded, BALANCES_VERSION: turn + 1})
            for flow in flows:
                _record_transfer(db, flow, snapshot.head.timestamp_s)
            ledger_sums.advance_settled(db)
            return True

    def _open_at(self, db: Connection, head: int, balances: Mapping[str, int], folded: int) -> int:
        """Write the balances at that block as openings; return the newest intent that they contain
        for good.
        """
        rows = _behind(db, folded)
        ends: dict[int, int] = {}
        for row in (
            rows
        ):  # a replaced one may still be mined while a reorg can remove the one that won its nonce
            ends[row.nonce] = max(ends.get(row.nonce, 0), _block(row))
        carried = {
            row.token: (int(row.raw), row.block_number)
            for row in all_rows(db, _openings(), OpeningRow)
            if row.token not in balances
        }
        changed = dict(carried)
        for row in rows:
            if row.state in _OPEN or ends[row.nonce] > head - FOLD_DEPTH_BLOCKS:
                break
            folded = row.seq
            for change in _own(row, self.db.wallet, self.db.coin):
                if (
                    change.token in changed
                ):  # an unread balance keeps its opening, which has to include this too
                    raw, block = changed[change.token]
                    changed[change.token] = (raw + change.delta_raw, block)
        own: dict[str, int] = {}
        behind = (
            change
            for row in rows
            if row.seq > folded
            for change in _own(row, self.db.wallet, self.db.coin)
        )
        for change in (*prior_changes(db), *behind):
            if change.block <= head:
                own[change.token] = own.get(change.token, 0) + change.delta_raw
        changed |= {token: (raw - own.get(token, 0), head) for token, raw in balances.items()}
        fresh = (
            (token, raw, block)
            for token, (raw, block) in changed.items()
            if carried.get(token) != (raw, block)
        )
        upsert_rows(
            db,
            OpeningRow,
            [
                {"token": token, "raw": str(raw), "block_number": block}
                for token, raw, block in fresh
            ],
        )
        return folded

    def transfers(self, limit: int = 1000) -> tuple[ExternalTransfer, ...]:
        """The newest transfers, explained ones too, oldest first."""
        with self.db.read("read the flows") as db:
            return newest_transfers(db, limit)

    def classify(
        self, flow_id: int | None, kind: ExternalTransferKind | None, now_s: int
    ) -> tuple[ExternalTransfer, ...]:
        """Record the owner's classification of a transfer: an open one, or an accepted one.

        Without an id all open ones, without a kind the default kind. Raises ConfigError if the
        transfer is unknown or not open, or if the kind does not fit its direction.
        """
        with self.db.write("write what a flow was") as db:
            query = select(ExternalTransferRow).order_by(ExternalTransferRow.seq)
            wanted = (
                ExternalTransferRow.kind.is_(None)
                if flow_id is None
                else ExternalTransferRow.seq == min(flow_id, MOST)
            )
            rows = all_rows(db, query.where(wanted), ExternalTransferRow)
            if flow_id is not None and not rows:
                raise ConfigError(f"flow {flow_id} is not in the store", "see trimtab flows")
            classified = []
            for row in rows:
                if row.kind not in (None, ExternalTransferKind.ACCEPTED.value):
                    raise ConfigError(
                        f"flow {flow_id} is already confirmed as {row.kind}",
                        "see trimtab flows --all",
                    )
                fitting = RISES if int(row.delta_raw) > 0 else FALLS
                if kind is not None and kind not in fitting:
                    names = " or ".join(one.value for one in fitting)
                    raise ConfigError(
                        f"--as {kind.value}: flow {row.seq}"
                        f" {'rose' if fitting is RISES else 'fell'}, so it was a {names}"
                    )
                named = kind or fitting[0]
                db.execute(_change(), {"of": row.seq, "kind": named.value, "told_s": now_s})
                classified.append(replace(_transfer(row), kind=named))
            return tuple(classified)

    def prior_day_known(self, chain_now_s: int) -> bool:
        """True if all of the last 24 h is known: read from the chain, or 24 h have passed since the
        first attempt.

        False for rows from before store version 0015, which recorded no payouts: the chain is read
        once more.
        """
        with self.db.read("read the books") as db:
            if db.scalar(_young(), {"since": chain_now_s - DAY_S}) is not None:
                return False
            known = database.read_facts(db, KNOWN, ASKED)
            return KNOWN in known or (ASKED in known and chain_now_s >= int(known[ASKED]) + DAY_S)

    def mark_day_asked(self, chain_now_s: int) -> None:
        """Record the first time the chain could not answer for earlier transactions."""
        with self.db.write("write the books") as db:
            if database.find_fact(db, ASKED) is None:
                database.write_facts(db, {ASKED: chain_now_s})

    def record_prior_day(self, found: Sequence[ExternalTransaction], nonce: int) -> None:
        """Record transactions that this store did not send, up to the wallet's next `nonce`; the
        last 24 h are known from here on.

        Balances were taken or compared up to the block of the openings: only later transactions
        explain a change.
        """
        with self.db.write("write the books") as db:
            counted = db.scalar(select(func.max(OpeningRow.block_number)))
            paid_out = {one.tx_hash: str(one.outflow) for one in found}
            for untold in column_values(
                db,
                select(ExternalTransactionRow.tx_hash).where(
                    ExternalTransactionRow.outflow.is_(None)
                ),
            ):
                db.execute(
                    update(ExternalTransactionRow)
                    .where(ExternalTransactionRow.tx_hash == untold)
                    .values(outflow=paid_out.get(untold, "0"))
                )
            known = {*column_values(db, select(ExternalTransactionRow.tx_hash))}
            rows = []
            for one in found:
                ours = (
                    db.scalar(select(IntentRow.id).where(IntentRow.tx_hash == one.tx_hash).limit(1))
                    is not None
                )
                if not ours and one.tx_hash not in known:
                    known.add(one.tx_hash)
                    fresh = counted is not None and one.block > counted
                    rows.append(
                        {
                            "tx_hash": one.tx_hash,
                            "chain_s": one.chain_s,
                            "turnover": str(one.turnover),
                            "loss": str(one.loss),
                            "gas_wei": str(one.gas_wei),
                            "block_number": one.block,
                            "changes_json": json.dumps(
                                {token: str(raw) for token, raw in one.changes if fresh}
                            ),
                            "outflow": str(one.outflow),
                        }
                    )
            insert_rows(db, ExternalTransactionRow, rows)
            database.write_facts(db, {KNOWN: nonce})

    def mark_left_alone(self) -> None:
        """Record that every unexplained deposit is excluded until classified."""
        with self.db.write("write what is left alone") as db:
            database.write_facts(db, {LEFT_ALONE: max_value(db, ExternalTransferRow.seq)})
