"""Budgets and movements: consumption of finished intents, and its sums over the last 24 hours of
chain time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any, cast

from sqlalchemy import Connection, Select, bindparam, delete, select

from agent.errors import ErrorCode, OperatorNeeded
from agent.model import (
    ExitFailures,
    History,
    Intent,
    IntentKind,
    IntentState,
    Plan,
    Rebalance,
    Receipt,
    SubmissionRefusal,
    UnsignedTx,
)
from agent.policy import failures
from agent.ports import Grant
from agent.store import database, orders, requests
from agent.store.accounts import balances, ledger, ledger_sums, positions
from agent.store.database import (
    Database,
    all_rows,
    column_values,
    first_row,
    insert_rows,
    max_value,
)
from agent.store.records import Movement, decode_json, decompress_text
from agent.store.tables import (
    BudgetRow,
    EntryRow,
    ExternalTransactionRow,
    IntentRow,
    MovementRow,
    StepRow,
    StrategyBookingRow,
)
from agent.store.transitions import CONSUMED
from agent.units import NATIVE

# --- Streaks of failed transactions: their number, their start, and the stop that holds until the
# owner resumes.


FEW = 20
"""Number of transactions read at once, newest first."""
RESUMED_AFTER = "resumed_after"
"""Key of the newest intent's number when the owner last resumed: failures up to it are cleared."""
STOP = "failures_stop"
"""Key of the reason why consecutive failures stop the agent; empty otherwise."""
_CONSUMED = tuple(state.value for state in CONSUMED)
_TRADES = (IntentKind.SWAP.value, IntentKind.LIQUIDITY.value)
"""Kinds that trade; all others, approvals above all, serve them."""


@dataclass(frozen=True, slots=True)
class FailureStreak:
    """Reverts of the wallet, and steps that approved or revoked, since the last success; `stops` is
    True if the limit was reached since the owner resumed.
    """

    reverts: int
    approvals: int
    stops: bool


def failure_streak(
    db: Connection, facts: Mapping[str, str], refusals: Mapping[str, int]
) -> FailureStreak:
    """Count the wallet's consecutive failures by the facts STOP and RESUMED_AFTER.

    `refusals` is the number of the newest intent by token; approvals of a token up to it do not
    count.
    """
    return FailureStreak(*_counted(_since_success(db, facts, refusals)), bool(facts.get(STOP)))


def exit_failures(
    db: Connection,
    facts: Mapping[str, str],
    refusals: Mapping[str, int],
    recent: Sequence[BudgetRow],
    chain_now_s: int,
) -> tuple[ExitFailures, ...]:
    """Return the failures of each exit in the last 24 h of chain time, since it last succeeded or
    the owner resumed, the newest first.

    `recent` are the budgets of that time. A revert that is not booked yet counts as of now. The
    plan of an intent names its exit (policy/failures.py); another exit's success ends nothing.
    """
    resumed = int(facts.get(RESUMED_AFTER) or 0)
    failed = _newest_reverts(db, resumed, recent, chain_now_s)
    approvals = [one.intent_id for one in recent if one.kind == IntentKind.APPROVE.value]
    if not failed and len(approvals) < failures.MAX_APPROVALS_IN_ROW:
        return ()
    done = [one.intent_id for one in recent if one.succeeded and one.kind in _EXIT_KINDS]
    at_s = {one.intent_id: one.chain_s for one in recent} | failed
    streaks: dict[str, _ExitStreak] = {}
    for one in _intents(db, {*failed, *approvals, *done}, resumed):
        plan = _plan(db, one.id)
        if plan is None or not (name := failures.exit_name(plan)):
            continue
        streak = streaks.setdefault(name, _ExitStreak())
        if one.kind == IntentKind.APPROVE.value:
            token = decode_json(UnsignedTx, one.tx_json).to
            if token in name.split() and one.seq > refusals.get(token, 0):
                streak.add(one, at_s[one.id])
        elif _reverted(one):
            streak.add(one, at_s[one.id])
        else:
            streak.ended = True
    return tuple(
        ExitFailures(name, one.reverts, len(one.approving), one.newest_s)
        for name, one in streaks.items()
        if one.newest_s
    )


@dataclass(slots=True)
class _ExitStreak:
    """Failures of one exit, counted from the newest intent back to its last success."""

    reverts: int = 0
    approving: set[str] = field(default_factory=set)
    newest_s: int = 0
    ended: bool = False

    def add(self, one: IntentRow, at_s: int) -> None:
        """Count an intent before those already counted."""
        if self.ended:
            return
        self.reverts += _reverted(one)
        self.approving |= {one.step_id} if one.kind == IntentKind.APPROVE.value else set()
        self.newest_s = self.newest_s or at_s


def _newest_reverts(
    db: Connection, resumed: int, recent: Sequence[BudgetRow], chain_now_s: int
) -> dict[str, int]:
    """Return the chain time of each revert among the budgets `recent`, or not booked yet, by
    intent.
    """
    booked_s = {one.intent_id: one.chain_s for one in recent}
    found: dict[str, int] = {}
    newest_first = db.execute(_maybe_reverted(), {"resumed": resumed}).yield_per(FEW)
    for one in cast("Iterable[IntentRow]", newest_first):
        if one.id not in booked_s and db.scalar(_loss(), {"of": one.id}) is not None:
            break  # booked, and older
        if _reverted(one):
            found[one.id] = booked_s.get(one.id, chain_now_s)
    newest_first.close()
    return found


def _intents(db: Connection, ids: set[str], resumed: int) -> list[IntentRow]:
    """Return these intents since the owner resumed, newest first."""
    found = all_rows(db, select(IntentRow).where(IntentRow.id.in_(ids)), IntentRow)
    return sorted((one for one in found if one.seq > resumed), key=lambda one: -one.seq)


def record_failure_stop(db: Connection, refusals: Mapping[str, int]) -> None:
    """Record that the failure limit was reached: exits continue, and one that succeeds must not
    release rebalances.
    """
    if failures.too_many(
        *_counted(_since_success(db, database.read_facts(db, RESUMED_AFTER), refusals))
    ):
        database.write_facts(db, {STOP: 1})


def _counted(found: list[IntentRow]) -> tuple[int, int]:
    """Number of reverts, and of steps that approved or revoked."""
    return sum(map(_reverted, found)), len(
        {one.step_id for one in found if one.kind == IntentKind.APPROVE.value}
    )


def _since_success(
    db: Connection, facts: Mapping[str, str], refusals: Mapping[str, int]
) -> list[IntentRow]:
    """Intents mined after the last successful swap or liquidity action and after the owner last
    resumed, newest first.

    Only such a success ends a streak. Cancels neither count nor interrupt it. Approvals that
    succeed do not interrupt it, since each new attempt may need one. Approvals for exits refused
    before sending do not count: their attempts are bounded elsewhere
    (agent/policy/exits.py), and one that never succeeds must not stop the others.
    """
    found: list[IntentRow] = []
    # A few at a time, in table order: the streak ends soon, and years of transactions precede it.
    newest_first = db.execute(
        _newest_first(), {"resumed": int(facts.get(RESUMED_AFTER) or 0)}
    ).yield_per(FEW)
    for one in cast("Iterable[IntentRow]", newest_first):
        if one.state not in _CONSUMED or one.kind == IntentKind.CANCEL.value:
            continue
        if one.kind in _TRADES and not _reverted(one):
            break
        if (
            not refusals
            or one.kind != IntentKind.APPROVE.value
            or one.seq > refusals.get(decode_json(UnsignedTx, one.tx_json).to, 0)
        ):
            found.append(one)
    newest_first.close()
    return found


def _reverted(one: IntentRow) -> bool:
    return one.receipt_json is not None and decode_json(Receipt, one.receipt_json).status != 1


_maybe_reverted = cache(
    lambda: (
        select(IntentRow)
        .where(IntentRow.state.in_((IntentState.REVERTED.value, IntentState.MINED.value)))
        .where(IntentRow.seq > bindparam("resumed"))
        .order_by(IntentRow.seq.desc())
    )
)
_newest_first = cache(
    lambda: (
        select(IntentRow).where(IntentRow.seq > bindparam("resumed")).order_by(IntentRow.seq.desc())
    )
)


DAY_S = 86_400
LAST_REVIEW = "last_review_s"
DELAY = "delay_ppm"
REVIEWS = "reviews"
"""Key of the schedules and when each was reviewed last, as JSON."""
MOST_REVIEWS = 32
"""Schedules that are remembered, the newest: those of a config long gone are forgotten."""
DEPEGGED = "depegged"
UNREADABLE_BALANCES = "unread"
"""Key of the assets whose balance could not be read, each as address:chain time since when."""
SUBMISSION_REFUSALS = "late"
"""Key of the exits that were refused when about to be sent, as JSON."""
UNTRIGGERED_SWAP = "swap_besides"
"""Budget kind of a swap that no trigger asked for: an exit, a withdrawal, an investment, one by
hand."""
_EXIT_KINDS = (UNTRIGGERED_SWAP, IntentKind.LIQUIDITY.value, IntentKind.UNWRAP.value)
"""Budget kinds of what may reduce risk."""
_KINDS = (*(kind.value for kind in IntentKind), UNTRIGGERED_SWAP)
"""Every kind of a budget: named so that few are read by their index."""
META_KEYS = (
    *(
        LAST_REVIEW,
        DELAY,
        REVIEWS,
        DEPEGGED,
        UNREADABLE_BALANCES,
        SUBMISSION_REFUSALS,
        orders.ORDERS_VERSION,
        orders.NAV_PER_SHARE,
        ledger_sums.LOSS_TOTAL,
    ),
    *(balances.ACCEPTED, balances.RISE_SINCE, balances.LEFT_ALONE, STOP, RESUMED_AFTER),
)
"""Keys of the facts in a history."""
_NO_TRADES = (IntentKind.APPROVE.value, IntentKind.CANCEL.value)


@dataclass(frozen=True, slots=True)
class BudgetStore:
    """Budgets and movements; each method is a transaction of its own."""

    db: Database

    def history(self, chain_now_s: int) -> History:
        """Sum all entries younger than 24 h of chain time; entries from the future count too, so no
        clock resets a budget (T6).

        A gain makes no room for later losses. Balance losses that no owner has called a withdrawal
        count as losses, and so do losses of transactions from before this store; their outgoing
        transfers count as paid out.
        """
        return self.db.query_until(
            "read the budgets", _history, chain_now_s, self.db.wallet, self.db.coin
        )

    def book(
        self,
        intent: Intent,
        turnover: Fraction,
        loss: Fraction,
        gas_wei: int,
        chain_s: int,
        outflow: Fraction = Fraction(0),
    ) -> None:
        """Add a finished intent to budgets, and its balance changes to the movements; a second call
        for it changes nothing.

        Nothing changes either if the journal has another receipt by now: another process has seen a
        reorg meanwhile.
        """
        with self.db.write("book a transaction") as db:
            known = db.scalar(_receipt(), {"of": intent.id})
            if (
                db.scalar(_loss(), {"of": intent.id}) is not None
                or (None if known is None else decode_json(Receipt, known)) != intent.receipt
            ):
                return
            succeeded = intent.state is not IntentState.REVERTED and (
                intent.receipt is None or intent.receipt.status == 1
            )
            budget = {
                "intent_id": intent.id,
                "kind": _kind(db, intent),
                "succeeded": succeeded,
                "chain_s": chain_s,
                "turnover": str(turnover),
                "loss": str(loss),
                "gas_wei": str(gas_wei),
                "outflow": str(outflow) if outflow else None,
            }
            insert_rows(db, BudgetRow, [budget])
            ledger_sums.add_loss(db, loss)
            ledger_sums.advance_settled(db)
            if not succeeded or intent.kind is IntentKind.APPROVE:
                record_failure_stop(
                    db, _submission_refusal_seqs(database.read_facts(db, SUBMISSION_REFUSALS))
                )
            rows = [
                {
                    "token": movement.token,
                    "delta_raw": str(movement.delta_raw),
                    "kind": movement.kind,
                    "block_number": movement.block_number,
                    "chain_s": movement.chain_s,
                    "tx_hash": movement.tx_hash,
                }
                for movement in movements(intent, self.db.wallet, self.db.coin, chain_s)
            ]
            insert_rows(db, MovementRow, rows)

    def movements(self, limit: int = 1000) -> tuple[Movement, ...]:
        """The newest known changes of balances, newest first."""
        with self.db.read("read movements") as db:
            rows = all_rows(
                db, select(MovementRow).order_by(MovementRow.seq.desc()).limit(limit), MovementRow
            )
            return tuple(
                Movement(r.token, int(r.delta_raw), r.kind, r.block_number, r.chain_s, r.tx_hash)
                for r in rows
            )

    def last_rebalance(self) -> int | None:
        """Chain time of the newest successful swap that a trigger of the policy asked for."""
        with self.db.read("read the last rebalance") as db:
            return _newest(db, IntentKind.SWAP)

    def mark_review(self, chain_s: int, delay_ppm: int = 0, reviews: Sequence[str] = ()) -> None:
        """Record the last review of the portfolio, its schedules, and the delay of the next
        review.
        """
        with self.db.write("write the review") as db:
            reviewed: dict[str, object] = {LAST_REVIEW: chain_s, DELAY: delay_ppm}
            if reviews:
                before = _reviews(database.read_facts(db, REVIEWS))
                known = [(name, at_s) for name, at_s in before if name not in reviews] + [
                    (name, chain_s) for name in reviews
                ]
                reviewed[REVIEWS] = json.dumps(known[-MOST_REVIEWS:])
            database.write_facts(db, reviewed)

    def mark_depegged(self, tokens: Sequence[str]) -> None:
        """Record the dollar tokens that left their peg and have not returned."""
        with self.db.write("write who left the peg") as db:
            database.write_facts(db, {DEPEGGED: " ".join(tokens)})

    def mark_unread(self, since_s: Sequence[tuple[str, int]]) -> None:
        """Record the assets whose balance cannot be read, and since when."""
        with self.db.write("write which balances are unknown") as db:
            database.write_facts(
                db, {UNREADABLE_BALANCES: " ".join(f"{token}:{at_s}" for token, at_s in since_s)}
            )

    def mark_submission_refusals(self, found: Sequence[SubmissionRefusal]) -> None:
        """Replace the stored exits refused before sending; approvals for them up to now count in no
        streak.
        """
        with self.db.write("write what was refused late") as db:
            _mark_submission_refusals(db, found)


def _kind(db: Connection, intent: Intent) -> str:
    """Budget kind of an intent: a swap that no trigger of the policy asked for is kept apart from a
    rebalance.

    Decided by the plan of its grant, else of its step; without either it counts as a rebalance.
    """
    if intent.kind is not IntentKind.SWAP:
        return str(intent.kind.value)
    plan = _plan(db, intent.id)
    if plan is None or not isinstance(plan.decision, Rebalance) or plan.decision.by_trigger:
        return IntentKind.SWAP.value
    return UNTRIGGERED_SWAP


def _plan(db: Connection, intent_id: str) -> Plan | None:
    """Return the plan of an intent's grant, else of its step; None without either."""
    found = db.execute(_plans(), {"of": intent_id}).one_or_none()
    if found is None:
        return None
    plan = decode_json(Grant, decompress_text(found.grant_z)).plan
    if plan is None and found.plan_z is not None:
        plan = decode_json(Plan, decompress_text(found.plan_z))
    return plan


def unbook_intent(db: Connection, intent: Intent) -> None:
    """Remove an intent from budgets, movements and ledger: a reorg took the block of its
    receipt.
    """
    if (loss := db.scalar(_loss(), {"of": intent.id})) is not None:
        ledger_sums.add_loss(db, _fraction(loss), -1)
        db.execute(delete(BudgetRow).where(BudgetRow.intent_id == intent.id))
    if (entered := first_row(db, ledger.select_entry(), EntryRow, of=intent.id)) is not None:
        ledger_sums.add_moves(db, entered.book, ledger.parse_wallet_moves(entered.wallet_json), -1)
        db.execute(delete(EntryRow).where(EntryRow.intent_id == intent.id))
    db.execute(delete(StrategyBookingRow).where(StrategyBookingRow.source == intent.id))
    if intent.receipt is not None:
        db.execute(delete(MovementRow).where(MovementRow.tx_hash == intent.receipt.tx_hash))


def movements(intent: Intent, wallet: str, coin: str, chain_s: int) -> tuple[Movement, ...]:
    """Balance changes of `wallet` by the receipt of `intent`: tokens by events, native coin sent or
    unwrapped, gas.

    Only `coin` counts as unwrapped native coin: any contract may emit a Withdrawal.
    """
    receipt = intent.receipt
    if receipt is None:
        return ()
    changes = [
        (token, delta, intent.kind.value)
        for token, delta in sorted(receipt.net(wallet).items())
        if delta
    ]
    if native_wei := intent.coins(wallet, coin):
        changes.append((NATIVE, native_wei, intent.kind.value))
    if receipt.gas_cost_wei:
        changes.append((NATIVE, -receipt.gas_cost_wei, "gas"))
    return tuple(
        Movement(token, delta, kind, receipt.block_number, chain_s, receipt.tx_hash)
        for token, delta, kind in changes
    )


def _history(db: Connection, chain_now_s: int, wallet: str, coin: str) -> tuple[History, float]:
    """Return what BudgetStore.history returns, and the chain time until which it stays the same
    without a write.
    """
    facts = database.read_facts(db, *META_KEYS)
    own = all_rows(db, _spent(), BudgetRow, since=chain_now_s - DAY_S)
    refusals = _submission_refusals(facts)
    row = failure_streak(db, facts, _seqs(refusals))
    before = all_rows(db, _earlier(), ExternalTransactionRow)
    rows: list[BudgetRow | ExternalTransactionRow] = [
        *own,
        *(one for one in before if one.chain_s > chain_now_s - DAY_S),
    ]
    fell = balances.lost_value(db, chain_now_s)
    lost_before = sum((max(Fraction(0), _fraction(one.loss)) for one in before), Fraction(0))
    found = History(
        last_rebalance_s=_newest(db, IntentKind.SWAP),
        last_review_s=int(facts[LAST_REVIEW]) if facts.get(LAST_REVIEW) else None,
        turnover_24h=sum((_fraction(row.turnover) for row in rows), Fraction(0)),
        loss_24h=sum((max(Fraction(0), _fraction(row.loss)) for row in rows), fell.day),
        gas_24h_wei=sum(int(row.gas_wei) for row in rows),
        reverts_in_row=row.reverts,
        approvals_in_row=row.approvals,
        failed_exits=exit_failures(db, facts, _seqs(refusals), own, chain_now_s),
        failures_stop=row.stops,
        last_liquidity_s=_newest(db, IntentKind.LIQUIDITY),
        started_s=db.scalar(_started()),
        flows=balances.open_transfers(db),
        unknown=fell.unknown,
        undecided=positions.undecided_positions(db),
        delay_ppm=int(facts.get(DELAY) or 0),
        orders=orders.read_orders(db),
        orders_turn=database.parse_fact_number(
            orders.ORDERS_VERSION, facts.get(orders.ORDERS_VERSION)
        ),
        unit_value=orders.nav_per_share(db, facts),
        depegged=tuple(facts.get(DEPEGGED, "").split()),
        loss_total=ledger_sums.loss_total(facts) + lost_before + fell.total,
        outflow_24h=sum(
            (_fraction(row.outflow) for row in rows if row.outflow is not None), Fraction(0)
        ),
        claims=requests.open_claims(db),
        stopped=requests.stop_reason(db),
        reviews=_reviews(facts),
        unread=tuple(
            (token, int(since))
            for token, since in (
                one.split(":") for one in facts.get(UNREADABLE_BALANCES, "").split()
            )
        ),
        late=tuple(one for one, _ in refusals),
        fell_24h=fell.day,
        fell_total=fell.total,
        accepted=balances.accepted_deposits(db, facts, chain_now_s),
        rises=balances.unexplained_rises(db),
        rose_s=balances.rise_since_s(facts),
        left_rises=balances.left_rises(db, facts),
        wasted_24h_wei=sum(
            int(row.gas_wei) for row in own if not row.succeeded or row.kind in _NO_TRADES
        ),
        wasted_wei=sum(map(int, column_values(db, _wasted()))),
    )
    found = orders.with_gradual_execution(db, wallet, coin, found, chain_now_s)
    passing = (
        found.campaign,
        found.spent,
        found.flows,
        found.accepted,
        found.fell_24h,
        found.unknown,
        any(one.at_s == chain_now_s for one in found.failed_exits),
    )
    until = min((row.chain_s + DAY_S for row in rows), default=math.inf)
    return found, chain_now_s if found.started_s is None or any(passing) else until


def _reviews(facts: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    try:
        return tuple(
            (str(name), int(at_s)) for name, at_s in json.loads(facts.get(REVIEWS) or "[]")
        )
    except (ValueError, TypeError) as error:
        raise OperatorNeeded(
            f"store: what it remembers of reviews is damaged: {error}",
            "restore a backup",
            code=ErrorCode.DAMAGED,
        ) from None


def _mark_submission_refusals(db: Connection, found: Sequence[SubmissionRefusal]) -> None:
    newest = max_value(db, IntentRow.seq)
    database.write_facts(
        db,
        {
            SUBMISSION_REFUSALS: json.dumps(
                [(one.token, one.at_s, one.times, one.why, newest) for one in found]
            )
        },
    )


def _submission_refusals(facts: Mapping[str, str]) -> list[tuple[SubmissionRefusal, int]]:
    """Each refusal with the number of the newest intent by then."""
    try:
        known = json.loads(facts.get(SUBMISSION_REFUSALS) or "[]")
        return [
            (SubmissionRefusal(str(token), int(at_s), int(times), str(why)), int(seq))
            for token, at_s, times, why, seq in known
        ]
    except (ValueError, TypeError) as error:
        raise OperatorNeeded(
            f"store: what it remembers of exits is damaged: {error}", "restore a backup"
        ) from None


def _submission_refusal_seqs(facts: Mapping[str, str]) -> dict[str, int]:
    return _seqs(_submission_refusals(facts))


def _seqs(refusals: Sequence[tuple[SubmissionRefusal, int]]) -> dict[str, int]:
    """Number of the newest intent at the time of refusal, by refused token."""
    return {one.token: seq for one, seq in refusals}


def _newest(db: Connection, kind: IntentKind) -> int | None:
    found: int | None = db.scalar(_done(), {"kind": kind.value})
    return found


def mark_resumed(db: Connection) -> None:
    """Clear failure streaks and exits refused before sending: the owner has reviewed them."""
    _mark_submission_refusals(db, ())
    database.write_facts(db, {STOP: "", RESUMED_AFTER: max_value(db, IntentRow.seq)})


def _fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise OperatorNeeded(
            f"store: a budget entry is damaged: {error}",
            "restore a backup, compare it with the chain",
            code=ErrorCode.DAMAGED,
        ) from None


_receipt = cache(lambda: select(IntentRow.receipt_json).where(IntentRow.id == bindparam("of")))
_loss = cache(lambda: select(BudgetRow.loss).where(BudgetRow.intent_id == bindparam("of")))
_spent = cache(lambda: select(BudgetRow).where(BudgetRow.chain_s > bindparam("since")))
_earlier = cache(lambda: select(ExternalTransactionRow))
_started = cache(lambda: select(StepRow.now_s).order_by(StepRow.seq).limit(1))
_wasted = cache(
    lambda: select(BudgetRow.gas_wei).where(
        BudgetRow.kind.in_(_KINDS), BudgetRow.succeeded.is_(False)
    )
)


@cache
def _plans() -> Select[bytes, bytes | None]:
    """Select the grant of an intent, and the plan of its step."""
    return (
        select(IntentRow.grant_z, StepRow.plan_z)
        .join(StepRow, IntentRow.step_id == StepRow.id)
        .where(IntentRow.id == bindparam("of"))
    )


@cache
def _done() -> Select[Any]:
    """Select the chain times of successes of a kind, newest first."""
    done = select(BudgetRow.chain_s).where(
        BudgetRow.kind == bindparam("kind"), BudgetRow.succeeded.is_(True)
    )
    return done.order_by(BudgetRow.chain_s.desc()).limit(1)
