"""Stored accounting of the wallet: expected balances, external transfers, and external
transactions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, literal_column, select, update

from agent.errors import ConfigError, ErrorCode, OperatorNeeded
from agent.model import (
    ACCEPTED_KINDS,
    NON_LOSS_KINDS,
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
from agent.store.accounts import ledger_sums
from agent.store.accounts.nonces import dropped_proposal_nonce
from agent.store.database.connection import Database
from agent.store.database.errors import damaged_row_error
from agent.store.database.facts import (
    delete_facts,
    fact_number,
    find_fact,
    parse_fact_number,
    read_facts,
    select_with_facts,
    write_facts,
)
from agent.store.database.rows import intent_from_row, parse_whole
from agent.store.database.statements import (
    all_rows,
    column_values,
    first_row,
    insert_rows,
    upsert_rows,
)
from agent.store.tables import (
    ExternalTransactionRow,
    ExternalTransferRow,
    IntentRow,
    OpeningBalanceRow,
)
from agent.store.transitions import NONCE_USED_STATE_NAMES, OPEN_STATE_NAMES
from agent.units import DAY_S

PRIOR_DAY_FAILED = "day_asked_s"
"""Key of the chain time at which the wallet's earlier transactions could first not be read."""
PRIOR_DAY_READ = "day_known"
"""Key of the wallet's next nonce when its earlier transactions were read."""


def forget_prior_day(db: Connection, nonce: int) -> bool:
    """Mark the prior day as unknown after foreign use of the wallet; return False if recorded
    transactions reach the next `nonce`.
    """
    if find_fact(db, PRIOR_DAY_READ) == str(nonce):
        return False
    delete_facts(db, PRIOR_DAY_READ, PRIOR_DAY_FAILED)
    return True


def parse_changes(changes_json: str) -> tuple[tuple[str, int], ...]:
    """Return the balance changes of an external transaction, signed base units by token."""
    try:
        return tuple(
            sorted(
                (token, int(delta_text)) for token, delta_text in json.loads(changes_json).items()
            )
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise OperatorNeeded(
            f"store: an entry is damaged: {error}", "restore a backup, compare it with the chain"
        ) from None


LAST_FOLDED_INTENT = "folded_seq"
"""Key of the newest intent included in the openings; it and all earlier intents are final beyond
any reorg that is followed.
"""
BALANCES_VERSION = "books_turn"
"""Key of the number of writes of the openings."""
ACCEPTED_DEPOSITS = "accepted_flows"
"""Key of the most recently accepted deposits, each as number:chain time."""
BLOCKED_SINCE = "rose_s"
"""Key of the chain time of the first deposit in ACCEPTANCE_WINDOW_S that blocked trades; deleted once
the owner explains the last that does.
"""
EXCLUDED_UP_TO = "excluded"
"""Key of the newest transfer when deposits were last excluded above portfolio.max_live_value;
transfers up to it stay excluded.
"""
FOLD_DEPTH_BLOCKS = 256
"""Depth in blocks from which a final transaction becomes part of the opening: four times the depth
of the deepest reorg that is followed.
"""
MAX_RECENT_TRANSFERS = 1_000
"""Number of newest transfers searched for those of the last 24 h. A header from the future could
hide transfers from a search by time.
"""
MAX_ID = 2**63 - 1
"""The largest SQLite integer; no transfer has it as id."""
MAX_OPEN_TRANSFERS = 50
"""Number of newest open transfers in a step, plus as many that halt and as many losses."""
_ACCEPTED_KIND_NAMES = tuple(kind.value for kind in ACCEPTED_KINDS)
INCREASE_KINDS = (ExternalTransferKind.DEPOSIT, ExternalTransferKind.GIFT)
DECREASE_KINDS = (ExternalTransferKind.WITHDRAWAL, ExternalTransferKind.LOSS)
"""Kinds that the owner may assign to an increase and to a decrease; the first is the default."""
IS_DECREASE = ExternalTransferRow.delta_raw.like(literal_column("'-%'"))
"""Condition of decreases; SQLite uses their index only if the condition is identical."""


@dataclass(frozen=True, slots=True)
class _StoredBalances:
    """Openings, and the intents and external transactions that are not yet included in them for
    good. `last_folded_seq` is the newest intent that is included, `version` the number of writes of
    the openings, `dropped_nonce` the next nonce if a proposal at it was given up.
    """

    last_folded_seq: int
    version: int
    dropped_nonce: int | None
    intent_rows: Sequence[IntentRow]
    opening_rows: Sequence[OpeningBalanceRow]
    external_changes: tuple[OwnBalanceChange, ...]


def _read_stored(db: Connection) -> _StoredBalances:
    external_rows = db.execute(_select_external_transactions()).all()
    last_folded_seq = parse_fact_number(LAST_FOLDED_INTENT, external_rows[0].folded)
    return _StoredBalances(
        last_folded_seq,
        parse_fact_number(BALANCES_VERSION, external_rows[0].version),
        external_rows[0].dropped_nonce,
        all_rows(db, _select_intents_after(), IntentRow, after_seq=last_folded_seq),
        all_rows(db, _select_openings(), OpeningBalanceRow),
        tuple(
            OwnBalanceChange(token, delta_raw, row.block_number)
            for row in external_rows
            if row.tx_hash is not None
            for token, delta_raw in parse_changes(row.changes_json)
        ),
    )


def expected_balances(db: Connection, wallet: str, wrapped_native: str) -> ExpectedBalances:
    """Return openings, own changes and transfers, which give the expected balances."""
    return _expected_balances(db, _read_stored(db), wallet, wrapped_native)


def _expected_balances(
    db: Connection, stored_balances: _StoredBalances, wallet: str, wrapped_native: str
) -> ExpectedBalances:
    unsettled_nonces = [
        row.nonce
        for row in stored_balances.intent_rows
        if row.state in OPEN_STATE_NAMES and row.state not in NONCE_USED_STATE_NAMES
    ]
    if stored_balances.dropped_nonce is not None:
        unsettled_nonces.append(stored_balances.dropped_nonce)
    transfers = newest_transfers(db, MAX_RECENT_TRANSFERS)
    if len(transfers) == MAX_RECENT_TRANSFERS:
        unpriced_losses = _transfers_oldest_first(db, _select_unpriced_losses(), MAX_OPEN_TRANSFERS)
        transfers = _merged_transfers((*transfers, *unpriced_losses, *open_transfers(db)))
    own_changes = (
        change
        for row in stored_balances.intent_rows
        for change in _own_changes(row, wallet, wrapped_native)
    )
    return ExpectedBalances(
        openings=tuple(
            OpeningBalance(row.token, parse_whole(row.raw, "an opening balance"), row.block_number)
            for row in stored_balances.opening_rows
        ),
        own_changes=(*stored_balances.external_changes, *own_changes),
        transfers=transfers,
        unsettled_nonce=min(unsettled_nonces, default=None),
        version=stored_balances.version,
    )


def _record_transfer(db: Connection, transfer: ExternalTransfer, now_s: int) -> None:
    if (
        transfer.blocks_trading and transfer.delta_raw > 0
    ):  # blocks trades from now on, if no earlier one does
        since_s = blocked_since_s(read_facts(db, BLOCKED_SINCE))
        if since_s is None or not since_s <= transfer.chain_s < since_s + ACCEPTANCE_WINDOW_S:
            write_facts(db, {BLOCKED_SINCE: transfer.chain_s})
    if transfer.id:
        _update_transfer_row(db, transfer, now_s)
        return
    ledger_sums.add_transfer(db, transfer.token, transfer.delta_raw)
    row = {
        "token": transfer.token,
        "delta_raw": str(transfer.delta_raw),
        "value": None if transfer.value is None else str(transfer.value),
        "since_block": transfer.since_block,
        "block_number": transfer.block,
        "chain_s": transfer.chain_s,
        "blocks_trading": transfer.exceeds_jump_limit,
        "kind": None if transfer.kind is None else transfer.kind.value,
        "classified_s": None,
    }
    insert_rows(db, ExternalTransferRow, [row])
    if transfer.undone_ids:
        conditions = (
            ExternalTransferRow.seq.in_(transfer.undone_ids),
            ExternalTransferRow.kind.is_(None),
        )
        db.execute(
            update(ExternalTransferRow)
            .where(*conditions)
            .values(kind=ExternalTransferKind.UNDONE.value)
        )


def blocked_since_s(facts: Mapping[str, str]) -> int | None:
    """Return the chain time of the first deposit that shares the wait (fact BLOCKED_SINCE); None
    without one.
    """
    if BLOCKED_SINCE not in facts:
        return None
    return parse_fact_number(BLOCKED_SINCE, facts[BLOCKED_SINCE])


def excluded_deposits(db: Connection, facts: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """Return the excluded deposits (fact EXCLUDED_UP_TO), base units by token."""
    last_id = parse_fact_number(EXCLUDED_UP_TO, facts.get(EXCLUDED_UP_TO))
    return sum_unexplained_deposits(db, last_id) if last_id else ()


def sum_unexplained_deposits(db: Connection, last_id: int = MAX_ID) -> tuple[tuple[str, int], ...]:
    """Return the unexplained deposits up to the transfer `last_id`, base units by token."""
    return _sum_by_token(
        (token, parse_whole(delta_text, "a flow"))
        for token, delta_text in db.execute(
            select(ExternalTransferRow.token, ExternalTransferRow.delta_raw).where(
                ExternalTransferRow.kind.is_(None), ~IS_DECREASE, ExternalTransferRow.seq <= last_id
            )
        )
    )


def sum_open_deposits(
    db: Connection, shown_transfers: Sequence[ExternalTransfer]
) -> tuple[tuple[str, int], ...]:
    """Return all unexplained deposits, base units by token; `shown_transfers` are those of
    `open_transfers`, which has all of them if there are few.
    """
    if len(shown_transfers) >= MAX_OPEN_TRANSFERS:
        return sum_unexplained_deposits(db)
    return _sum_by_token(
        (transfer.token, transfer.delta_raw)
        for transfer in shown_transfers
        if transfer.delta_raw > 0
    )


def _sum_by_token(changes: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    sum_raw_by_token: dict[str, int] = {}
    for token, delta_raw in changes:
        sum_raw_by_token[token] = sum_raw_by_token.get(token, 0) + delta_raw
    return tuple(sorted(sum_raw_by_token.items()))


def _update_transfer_row(db: Connection, transfer: ExternalTransfer, now_s: int) -> None:
    """Update value and acceptance of an open transfer; of one that is explained, perhaps meanwhile,
    only the value that it lacks.
    """
    row = first_row(db, _select_transfer(), ExternalTransferRow, row_seq=transfer.id)
    if row is None or (row.kind is not None and row.value is not None):
        return
    ledger_sums.add_transfer(db, transfer.token, 0)  # this changes the ledger's entries
    value_text = None if transfer.value is None else str(transfer.value)
    if row.kind is not None:
        db.execute(_update_transfer(), {"row_seq": transfer.id, "value": value_text})
        return
    acceptance_columns: dict[str, object] = {}
    if transfer.kind in ACCEPTED_KINDS:
        acceptance_columns = {"kind": transfer.kind.value, "classified_s": now_s}
        earlier_accepted = _parse_accepted(read_facts(db, ACCEPTED_DEPOSITS))[
            1 - MAX_OPEN_TRANSFERS :
        ]
        write_facts(
            db,
            {
                ACCEPTED_DEPOSITS: " ".join(
                    f"{seq}:{at_s}" for seq, at_s in (*earlier_accepted, (transfer.id, now_s))
                )
            },
        )
    db.execute(
        _update_transfer(),
        {
            "row_seq": transfer.id,
            "value": value_text,
            "blocks_trading": transfer.exceeds_jump_limit,
            "chain_s": transfer.chain_s,
            **acceptance_columns,
        },
    )


def accepted_deposits(
    db: Connection, facts: Mapping[str, str], chain_now_s: int
) -> tuple[ExternalTransfer, ...]:
    """Return the deposits accepted in the last 24 h of chain time and not reclassified since (fact
    ACCEPTED_DEPOSITS), oldest first, at most MAX_OPEN_TRANSFERS.
    """
    transfer_rows = (
        first_row(db, _select_transfer(), ExternalTransferRow, row_seq=seq)
        for seq, at_s in _parse_accepted(facts)
        if at_s > chain_now_s - DAY_S
    )
    return tuple(
        _transfer_from_row(row)
        for row in transfer_rows
        if row is not None and row.kind in _ACCEPTED_KIND_NAMES
    )


def _parse_accepted(facts: Mapping[str, str]) -> list[tuple[int, int]]:
    id_and_time_texts = (
        accepted_text.split(":") for accepted_text in facts.get(ACCEPTED_DEPOSITS, "").split()
    )
    try:
        return [(int(seq), int(at_s)) for seq, at_s in id_and_time_texts]
    except ValueError:
        raise damaged_row_error(f"the fact {ACCEPTED_DEPOSITS}") from None


def _merged_transfers(transfers: Sequence[ExternalTransfer]) -> tuple[ExternalTransfer, ...]:
    """Return each transfer once, oldest first."""
    transfer_by_id = {transfer.id: transfer for transfer in transfers}
    return tuple(transfer_by_id[transfer_id] for transfer_id in sorted(transfer_by_id))


def newest_transfers(db: Connection, limit: int) -> tuple[ExternalTransfer, ...]:
    """Return the newest `limit` transfers, classified ones included, oldest first."""
    return _transfers_oldest_first(db, _select_newest_transfers(), limit)


def transfers_after(db: Connection, after_id: int) -> tuple[ExternalTransfer, ...]:
    """Return transfers recorded after that id, classified ones included, oldest first."""
    return tuple(
        _transfer_from_row(row)
        for row in all_rows(
            db,
            select(ExternalTransferRow)
            .where(ExternalTransferRow.seq > after_id)
            .order_by(ExternalTransferRow.seq),
            ExternalTransferRow,
        )
    )


def open_transfers(db: Connection) -> tuple[ExternalTransfer, ...]:
    """Return unexplained transfers, oldest first: the newest MAX_OPEN_TRANSFERS, plus as many of
    the newest that halt and of the newest losses, so that dust cannot hide them.
    """
    newest_open_transfers = _transfers_oldest_first(
        db, _select_unexplained_transfers(), MAX_OPEN_TRANSFERS
    )
    if len(newest_open_transfers) < MAX_OPEN_TRANSFERS:
        return newest_open_transfers
    halting_transfers, decrease_transfers = (
        _transfers_oldest_first(db, select_newest_first, MAX_OPEN_TRANSFERS)
        for select_newest_first in (_select_unexplained_halting(), _select_unexplained_decreases())
    )
    return _merged_transfers([*newest_open_transfers, *halting_transfers, *decrease_transfers])


def _transfers_oldest_first(
    db: Connection, select_newest_first: Select[Any], limit: int
) -> tuple[ExternalTransfer, ...]:
    transfer_rows = all_rows(db, select_newest_first, ExternalTransferRow, limit=limit)
    return tuple(_transfer_from_row(row) for row in reversed(transfer_rows))


@dataclass(frozen=True, slots=True)
class LostValue:
    """Value of decreases that the owner has not classified as withdrawals: in the last 24 h of
    chain time, and in total. `unknown_reason` is the reason if the value of the last 24 h cannot be
    calculated, otherwise empty.
    """

    last_day_value: Fraction
    total: Fraction
    unknown_reason: str


def lost_value(db: Connection, chain_now_s: int) -> LostValue:
    """Sum the losses whose value is known."""
    lost_last_day = Fraction(0)
    lost_total = Fraction(0)
    unknown_reason = ""
    for row in all_rows(db, _select_decreases(), ExternalTransferRow):
        transfer = _transfer_from_row(row)
        is_recent = transfer.chain_s > chain_now_s - DAY_S
        if transfer.is_loss and transfer.value is None:
            if is_recent:
                unknown_reason = unpriced_loss_reason(transfer, transfer.token)
        elif transfer.is_loss and transfer.value is not None:
            lost_total -= transfer.value
            lost_last_day -= transfer.value if is_recent else 0
    return LostValue(lost_last_day, lost_total, unknown_reason)


def _own_changes(row: IntentRow, wallet: str, wrapped_native: str) -> list[OwnBalanceChange]:
    if row.state not in NONCE_USED_STATE_NAMES:
        return []
    intent: Intent = intent_from_row(row)
    return [
        OwnBalanceChange(token, raw, block_number(intent))
        for token, raw in sorted(intent.balance_changes(wallet, wrapped_native).items())
    ]


def block_number(intent: Intent) -> int:
    """Return the block of a transaction; 0 without one."""
    return 0 if intent.receipt is None else intent.receipt.block_number


def _transfer_from_row(row: ExternalTransferRow) -> ExternalTransfer:
    try:
        kind = None if row.kind is None else ExternalTransferKind(row.kind)
        transfer_value = None if row.value is None else Fraction(row.value)
        delta_raw = int(row.delta_raw)
    except (ValueError, ZeroDivisionError) as error:
        raise OperatorNeeded(
            f"store: a flow is damaged: {error}", "restore a backup, compare it with the chain"
        ) from None
    return ExternalTransfer(
        row.seq,
        row.token,
        delta_raw,
        transfer_value,
        row.since_block,
        row.block_number,
        row.chain_s,
        row.blocks_trading,
        kind,
    )


_select_external_transactions = cache(
    lambda: (
        select_with_facts(
            select(ExternalTransactionRow), folded=LAST_FOLDED_INTENT, version=BALANCES_VERSION
        )
        .add_columns(dropped_proposal_nonce().label("dropped_nonce"))
        .order_by("block_number", "nonce")
    )
)
_select_openings = cache(lambda: select(OpeningBalanceRow).order_by(OpeningBalanceRow.token))
_select_intents_after = cache(
    lambda: select(IntentRow).where(IntentRow.seq > bindparam("after_seq")).order_by(IntentRow.seq)
)
_select_transfer = cache(
    lambda: select(ExternalTransferRow).where(ExternalTransferRow.seq == bindparam("row_seq"))
)
_update_transfer = cache(
    lambda: update(ExternalTransferRow).where(ExternalTransferRow.seq == bindparam("row_seq"))
)
_select_newest_transfers = cache(
    lambda: (
        select(ExternalTransferRow)
        .order_by(ExternalTransferRow.seq.desc())
        .limit(bindparam("limit"))
    )
)
_select_unexplained_transfers = cache(
    lambda: _select_newest_transfers().where(ExternalTransferRow.kind.is_(None))
)
_select_unexplained_halting = cache(
    lambda: _select_unexplained_transfers().where(ExternalTransferRow.blocks_trading)
)
_select_blocking_deposit = cache(
    lambda: (
        select(ExternalTransferRow.seq)
        .where(ExternalTransferRow.kind.is_(None), ExternalTransferRow.blocks_trading, ~IS_DECREASE)
        .limit(1)
    )
)
_select_unexplained_decreases = cache(lambda: _select_unexplained_transfers().where(IS_DECREASE))
_select_unpriced_losses = cache(
    lambda: _select_newest_transfers().where(
        IS_DECREASE,
        ExternalTransferRow.value.is_(None),
        func.coalesce(ExternalTransferRow.kind, "").not_in([kind.value for kind in NON_LOSS_KINDS]),
    )
)
_select_decreases = cache(lambda: select(ExternalTransferRow).where(IS_DECREASE))


@dataclass(frozen=True, slots=True)
class BalanceStore:
    """Balances, external transfers and external transactions; each method is one transaction.
    Transactions at least `fold_depth_blocks` deep become part of the openings.
    """

    db: Database
    fold_depth_blocks: int = FOLD_DEPTH_BLOCKS

    def expected(self) -> ExpectedBalances:
        """Return the expected balances and the newest transfers."""
        return self.db.query(
            "read the books", expected_balances, self.db.wallet, self.db.wrapped_native
        )

    def record(
        self,
        snapshot: Snapshot,
        balances: Mapping[str, int],
        transfers: Sequence[ExternalTransfer],
        version: int,
    ) -> bool:
        """Record unexplained transfers, and `balances` as the new openings.

        Returns False, with nothing written, if another process wrote since `version`.
        """
        with self.db.write("write the books") as db:
            stored_balances = _read_stored(db)
            if stored_balances.version != version:
                return False
            self._write_openings(db, stored_balances, snapshot.head.number, balances)
            for transfer in transfers:
                _record_transfer(db, transfer, snapshot.head.timestamp_s)
            return True

    def record_explained(
        self,
        snapshot: Snapshot,
        balances: Mapping[str, int],
        is_explained: Callable[[ExpectedBalances], bool],
    ) -> tuple[ExpectedBalances, bool]:
        """Record `balances` as the new openings if the stored ones explain them. Return the stored
        ones, and whether they do. In a run the new ones are written at the end of the look, unless
        another process wrote openings first; until then the stored ones explain as much.
        """
        balances_expected = self.expected()
        if not is_explained(balances_expected):
            return balances_expected, False

        def write_openings(db: Connection) -> None:
            stored_balances = _read_stored(db)
            if stored_balances.version == balances_expected.version:
                self._write_openings(db, stored_balances, snapshot.head.number, balances)

        self.db.write_later("write the books", write_openings)
        return balances_expected, True

    def _write_openings(
        self,
        db: Connection,
        stored_balances: _StoredBalances,
        head_block: int,
        balances: Mapping[str, int],
    ) -> None:
        """Write the balances at that block as openings, with the newest intent that they contain
        permanently.
        """
        last_folded_seq = stored_balances.last_folded_seq
        block_by_nonce = dict[int, int]()
        # A replaced intent may still be mined as long as a reorg can remove the transaction that
        # took its nonce.
        for row in stored_balances.intent_rows:
            block = block_number(intent_from_row(row))
            block_by_nonce[row.nonce] = max(block_by_nonce.get(row.nonce, 0), block)
        kept_openings = {
            row.token: (parse_whole(row.raw, "an opening balance"), row.block_number)
            for row in stored_balances.opening_rows
            if row.token not in balances
        }
        new_openings = dict(kept_openings)
        for row in stored_balances.intent_rows:
            if (
                row.state in OPEN_STATE_NAMES
                or block_by_nonce[row.nonce] > head_block - self.fold_depth_blocks
            ):
                break
            last_folded_seq = row.seq
            for change in _own_changes(row, self.db.wallet, self.db.wrapped_native):
                # An unread balance keeps its opening, which must include this change too.
                if change.token in new_openings:
                    raw, block = new_openings[change.token]
                    new_openings[change.token] = (raw + change.delta_raw, block)
        unfolded_raw_by_token: dict[str, int] = {}
        unfolded_changes = (
            change
            for row in stored_balances.intent_rows
            if row.seq > last_folded_seq
            for change in _own_changes(row, self.db.wallet, self.db.wrapped_native)
        )
        for change in (*stored_balances.external_changes, *unfolded_changes):
            if change.block <= head_block:
                unfolded_raw_by_token[change.token] = (
                    unfolded_raw_by_token.get(change.token, 0) + change.delta_raw
                )
        new_openings |= {
            token: (raw - unfolded_raw_by_token.get(token, 0), head_block)
            for token, raw in balances.items()
        }
        opening_rows = [
            {"token": token, "raw": str(raw), "block_number": block}
            for token, (raw, block) in new_openings.items()
            if kept_openings.get(token) != (raw, block)
        ]
        upsert_rows(db, OpeningBalanceRow, opening_rows)
        write_facts(
            db, {LAST_FOLDED_INTENT: last_folded_seq, BALANCES_VERSION: stored_balances.version + 1}
        )

    def transfers(self, limit: int = 1000) -> tuple[ExternalTransfer, ...]:
        """Return the newest transfers, explained ones included, oldest first."""
        with self.db.read("read the flows") as db:
            return newest_transfers(db, limit)

    def unexplained_transfers(self) -> tuple[ExternalTransfer, ...]:
        """Return all transfers that are not explained, oldest first."""
        with self.db.read("read the flows") as db:
            return _transfers_oldest_first(db, _select_unexplained_transfers(), MAX_ID)

    def classify(
        self, transfer_id: int | None, kind: ExternalTransferKind | None, now_s: int
    ) -> tuple[ExternalTransfer, ...]:
        """Record the owner's classification of an open or accepted transfer; without an id, of all
        open transfers.

        Without a kind each gets the default of its direction. After the last deposit that blocks
        trades, the next one waits anew. Raises ConfigError if the transfer is
        unknown or already classified, or if the kind does not fit its direction.
        """
        with self.db.write("classify a flow") as db:
            select_transfers = select(ExternalTransferRow).order_by(ExternalTransferRow.seq)
            if transfer_id is None:
                select_transfers = select_transfers.where(ExternalTransferRow.kind.is_(None))
            else:
                select_transfers = select_transfers.where(
                    ExternalTransferRow.seq == min(transfer_id, MAX_ID)
                )
            transfer_rows = all_rows(db, select_transfers, ExternalTransferRow)
            if transfer_id is not None and not transfer_rows:
                raise ConfigError(
                    f"flow {transfer_id} is not in the store",
                    "see trimtab flows",
                    code=ErrorCode.UNKNOWN,
                )
            classified_transfers = []
            ends_block = False
            for row in transfer_rows:
                if row.kind not in (None, *_ACCEPTED_KIND_NAMES):
                    raise ConfigError(
                        f"flow {transfer_id} is already confirmed as {row.kind}",
                        "see trimtab flows --all",
                        code=ErrorCode.FLOW_CONFIRMED,
                    )
                allowed_kinds = (
                    INCREASE_KINDS if parse_whole(row.delta_raw, "a flow") > 0 else DECREASE_KINDS
                )
                if kind is not None and kind not in allowed_kinds:
                    allowed_names = " or ".join(
                        allowed_kind.value for allowed_kind in allowed_kinds
                    )
                    raise ConfigError(
                        f"--as {kind.value}: flow {row.seq}"
                        f" is {'an increase' if allowed_kinds is INCREASE_KINDS else 'a decrease'}, so it can only"
                        f" be a {allowed_names}"
                    )
                chosen_kind = kind or allowed_kinds[0]
                ledger_sums.add_transfer(db, row.token, 0)  # this changes the ledger's entries
                db.execute(
                    _update_transfer(),
                    {"row_seq": row.seq, "kind": chosen_kind.value, "classified_s": now_s},
                )
                transfer = _transfer_from_row(row)
                ends_block |= transfer.blocks_trading and transfer.delta_raw > 0
                classified_transfers.append(replace(transfer, kind=chosen_kind))
            if ends_block and db.scalar(_select_blocking_deposit()) is None:
                delete_facts(db, BLOCKED_SINCE)
            return tuple(classified_transfers)

    def is_prior_day_known(self, chain_now_s: int) -> bool:
        """True if all transactions of the last 24 h are known: they were read from the chain, or 24
        h have passed since the first attempt.
        """
        with self.db.read("read the books") as db:
            facts = read_facts(db, PRIOR_DAY_READ, PRIOR_DAY_FAILED)
            return PRIOR_DAY_READ in facts or (
                PRIOR_DAY_FAILED in facts
                and chain_now_s
                >= parse_fact_number(PRIOR_DAY_FAILED, facts[PRIOR_DAY_FAILED]) + DAY_S
            )

    def mark_prior_day_failed(self, chain_now_s: int) -> None:
        """Record the first time at which the chain could not supply earlier transactions."""

        def write_first_failure(db: Connection) -> None:
            if find_fact(db, PRIOR_DAY_FAILED) is None:
                write_facts(db, {PRIOR_DAY_FAILED: chain_now_s})

        with self.db.read("read the books") as db:
            if find_fact(db, PRIOR_DAY_FAILED) is not None:
                return
        self.db.write_later("write the books", write_first_failure)

    def record_prior_day(self, transactions: Sequence[ExternalTransaction], nonce: int) -> None:
        """Record transactions that this store did not send, up to the wallet's next `nonce`; the
        last 24 h are known from here on.

        Each opening includes the balance of its token up to its block, so only later transactions
        can explain a change of it.
        """
        with self.db.write("write the books") as db:
            block_by_token = {
                row.token: row.block_number
                for row in all_rows(db, _select_openings(), OpeningBalanceRow)
            }
            newest_block = max(block_by_token.values(), default=MAX_ID)
            known_hashes = {*column_values(db, select(ExternalTransactionRow.tx_hash))}
            new_rows = []
            for tx in transactions:
                select_own_intent = (
                    select(IntentRow.id).where(IntentRow.tx_hash == tx.tx_hash).limit(1)
                )
                if tx.tx_hash in known_hashes or db.scalar(select_own_intent) is not None:
                    continue
                known_hashes.add(tx.tx_hash)
                later_changes = {
                    token: str(raw)
                    for token, raw in tx.changes
                    if tx.block > block_by_token.get(token, newest_block)
                }
                new_rows.append(
                    {
                        "tx_hash": tx.tx_hash,
                        "chain_s": tx.chain_s,
                        "turnover": str(tx.turnover),
                        "loss": str(tx.loss),
                        "gas_wei": str(tx.gas_wei),
                        "block_number": tx.block,
                        "nonce": tx.nonce,
                        "changes_json": json.dumps(later_changes),
                        "outflow": str(tx.outflow),
                    }
                )
            insert_rows(db, ExternalTransactionRow, new_rows)
            write_facts(db, {PRIOR_DAY_READ: nonce})

    def exclude_unexplained_deposits(self, newest_id: int) -> None:
        """Record that every unexplained deposit up to the transfer `newest_id` is excluded until
        classified.
        """

        def write_newest_transfer(db: Connection) -> None:
            excluded_id = max(newest_id, fact_number(db, EXCLUDED_UP_TO))
            write_facts(db, {EXCLUDED_UP_TO: excluded_id})

        self.db.write_later("exclude deposits", write_newest_transfer)
