"""Budgets and movements: use of limits by finished intents, and its sums over the last 24 h of
chain time, in the history that a step reads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from sqlalchemy import Connection, bindparam, delete, select

from agent.errors import ErrorCode, OperatorNeeded
from agent.layers import stores
from agent.model import (
    Budgets,
    CashFlows,
    Execution,
    Failures,
    History,
    Intent,
    IntentKind,
    IntentState,
    OrderStates,
    Rebalance,
    Receipt,
    Reviews,
    TokenRefusal,
    execution_under_way,
)
from agent.store import orders, requests
from agent.store.accounts import balances, ledger, ledger_sums
from agent.store.accounts.budget_rows import (
    UNTRIGGERED_SWAP,
    newest_successes,
    select_booked_loss,
    turnover_sum,
)
from agent.store.accounts.failure_streaks import (
    FAILURE_STOP_KEY,
    RESUMED_SEQ_KEY,
    exit_failures,
    failure_streak,
    record_failure_stop,
)
from agent.store.accounts.intent_plans import find_intent_row, grant_of_intent, plan_of_intent
from agent.store.database.connection import Database
from agent.store.database.facts import parse_fact_number, read_facts, write_facts
from agent.store.database.rows import decode_optional, parse_fraction, parse_whole
from agent.store.database.statements import (
    all_rows,
    column_values,
    first_row,
    insert_rows,
    is_one_of,
    max_value,
)
from agent.store.executions import open_executions, read_purchase
from agent.store.prices import PRICE_FAULT
from agent.store.tables import (
    BudgetUseRow,
    EntryRow,
    ExternalTransactionRow,
    IntentRow,
    MovementRow,
    StepRow,
)
from agent.units import DAY_S, NATIVE

LAST_REVIEW = "last_review_s"
"""Key of the chain time of the last review of the portfolio."""
REVIEW_DELAY = "delay_ppm"
"""Key of the random delay of the next review, in millionths of the longest."""
SCHEDULE_REVIEWS = "reviews"
"""Key of the last review of each schedule, as JSON."""
MAX_REVIEWS = 32
"""Largest number of stored schedules; the oldest beyond it are dropped."""
DEPEGGED_TOKENS = "depegged"
"""Key of the dollar tokens that left their peg and have not returned."""
UNREADABLE_BALANCES = "unread"
"""Key of the assets whose balance cannot be read, each as address:chain time of the first
failure.
"""
SUBMISSION_REFUSALS = "late"
"""Key of the exits refused at submission, as JSON."""
IGNORED_APPROVALS = "ignored_approvals"
"""Key of the tokens that ignored their approvals, as JSON."""
DEMANDED_TIP = "demanded_tip"
"""Key of the tip that nodes demanded when they refused a lower one, as wei:seconds."""
_BUDGET_KINDS = tuple(
    dict.fromkeys((*(kind.value for kind in IntentKind), UNTRIGGERED_SWAP, *stores.BUDGET_KINDS))
)
"""All budget kinds; with a condition on them SQLite uses the index."""
HISTORY_KEYS = (
    *(
        LAST_REVIEW,
        REVIEW_DELAY,
        SCHEDULE_REVIEWS,
        DEPEGGED_TOKENS,
        UNREADABLE_BALANCES,
        SUBMISSION_REFUSALS,
        IGNORED_APPROVALS,
        DEMANDED_TIP,
        PRICE_FAULT,
        orders.ORDERS_VERSION_KEY,
        orders.NAV_PER_SHARE_KEY,
        ledger_sums.LOSS_TOTAL,
    ),
    *(
        balances.ACCEPTED_DEPOSITS,
        balances.BLOCKED_SINCE,
        balances.EXCLUDED_UP_TO,
        FAILURE_STOP_KEY,
        RESUMED_SEQ_KEY,
    ),
)
"""Keys of the facts in a history."""
_NON_TRADE_KINDS = (IntentKind.APPROVE.value, IntentKind.CANCEL.value)


@dataclass(frozen=True, slots=True)
class BudgetStore:
    """Budgets and movements; each method is a transaction of its own."""

    db: Database

    def history(self, chain_now_s: int) -> History:
        """Return the history: sums of the last 24 h of chain time, and the state that decisions
        need.

        Budgets dated in the future count too, so that a wrong clock cannot reset them (T6). Gains
        do not offset losses. Unexplained decreases count as losses unless the owner has classified
        them as withdrawals. External transactions count with their losses and payouts.
        """
        return self.db.query_until(
            "read the budgets", _history, chain_now_s, self.db.wallet, self.db.wrapped_native
        )

    def execution(self, chain_now_s: int) -> Execution | None:
        """Return the execution under way over several steps; None without one."""
        with self.db.read("read the executions") as db:
            if not open_executions(db):
                return None
            purchase = read_purchase(db, self.db.wallet, self.db.wrapped_native)
            layer_states = stores.read_own_states(
                db, self.db.wallet, self.db.wrapped_native, chain_now_s
            )
            return execution_under_way(purchase, layer_states)

    def book_intent(
        self,
        intent: Intent,
        turnover: Fraction,
        loss: Fraction,
        gas_wei: int,
        chain_s: int,
        outflow: Fraction = Fraction(0),
    ) -> None:
        """Add a finished intent to the budgets, and its balance changes to the movements.

        Does nothing for an intent that is already booked, or whose receipt in the journal differs
        because another process has seen a reorg.
        """
        with self.db.write("book a transaction") as db:
            row = find_intent_row(db, intent.id)
            stored_receipt = decode_optional(Receipt, None if row is None else row.receipt_json)
            if (
                stored_receipt != intent.receipt
                or db.scalar(select_booked_loss(), {"intent_id": intent.id}) is not None
            ):
                return
            succeeded = intent.state is not IntentState.REVERTED and (
                intent.receipt is None or intent.receipt.status == 1
            )
            budget_row = {
                "intent_id": intent.id,
                "kind": _budget_kind(db, intent),
                "succeeded": succeeded,
                "chain_s": chain_s,
                "turnover": str(turnover),
                "loss": str(loss),
                "gas_wei": str(gas_wei),
                "outflow": str(outflow) if outflow else None,
            }
            insert_rows(db, BudgetUseRow, [budget_row])
            ledger_sums.add_loss(db, loss)
            ledger_sums.advance_settled_seq(db)
            if not succeeded or intent.kind is IntentKind.APPROVE:
                facts = read_facts(db, SUBMISSION_REFUSALS, IGNORED_APPROVALS)
                record_failure_stop(db, _refusal_seq_by_token(facts))
            insert_rows(db, MovementRow, _movement_rows(self.db, intent, chain_s))

    def mark_review(
        self, chain_s: int, delay_ppm: int = 0, schedule_names: Sequence[str] = ()
    ) -> None:
        """Record the last review of the portfolio, its schedules, and the random delay of the next
        review, in millionths of the longest.
        """

        def write_review(db: Connection) -> None:
            facts: dict[str, object] = {LAST_REVIEW: chain_s, REVIEW_DELAY: delay_ppm}
            if schedule_names:
                previous_reviews = _parse_reviews(read_facts(db, SCHEDULE_REVIEWS))
                updated_reviews = [
                    (schedule_name, at_s)
                    for schedule_name, at_s in previous_reviews
                    if schedule_name not in schedule_names
                ]
                updated_reviews += [(schedule_name, chain_s) for schedule_name in schedule_names]
                facts[SCHEDULE_REVIEWS] = json.dumps(updated_reviews[-MAX_REVIEWS:])
            write_facts(db, facts)

        self.db.write_later("write the review", write_review)

    def mark_depegged(self, tokens: Sequence[str]) -> None:
        """Record the dollar tokens that left their peg and have not returned."""
        facts: dict[str, object] = {DEPEGGED_TOKENS: " ".join(tokens)}
        self.db.write_later("write depegged tokens", lambda db: write_facts(db, facts))

    def mark_unreadable(self, failures: Sequence[tuple[str, int]]) -> None:
        """Record the assets whose balance cannot be read, with the time of the first failure."""
        failures_text = " ".join(f"{token}:{at_s}" for token, at_s in failures)
        facts: dict[str, object] = {UNREADABLE_BALANCES: failures_text}
        self.db.write_later("write unreadable balances", lambda db: write_facts(db, facts))

    def demanded_tip_wei(self, now_s: int) -> int:
        """Return the tip that nodes demanded when they refused a lower one, wei per unit of gas; 0
        if none did within a day.
        """
        with self.db.read("read the demanded tip") as db:
            return _demanded_tip(read_facts(db, DEMANDED_TIP), now_s)[0]

    def mark_demanded_tip(self, tip_wei: int, now_s: int) -> None:
        """Record the tip that nodes demand, wei per unit of gas. It holds for a day."""
        with self.db.write("write the demanded tip") as db:
            write_facts(db, {DEMANDED_TIP: f"{tip_wei}:{now_s}"})

    def refusals(self) -> tuple[tuple[TokenRefusal, ...], tuple[TokenRefusal, ...]]:
        """Return the stored exits refused at submission, and the tokens that ignored their
        approvals.
        """
        with self.db.read("read the refusals") as db:
            facts = read_facts(db, SUBMISSION_REFUSALS, IGNORED_APPROVALS)
            return (
                _parse_refusals(facts, SUBMISSION_REFUSALS),
                _parse_refusals(facts, IGNORED_APPROVALS),
            )

    def mark_submission_refusals(self, refusals: Sequence[TokenRefusal]) -> None:
        """Replace the stored exits refused at submission; earlier approvals for them do not count
        as failures.
        """
        with self.db.write("write exits refused at submission") as db:
            _write_refusals(db, SUBMISSION_REFUSALS, refusals)

    def mark_ignored_approvals(self, refusals: Sequence[TokenRefusal]) -> None:
        """Replace the stored tokens that ignored their approvals, which do not count as failures."""
        with self.db.write("write ignored approvals") as db:
            _write_refusals(db, IGNORED_APPROVALS, refusals)


def _budget_kind(db: Connection, intent: Intent) -> str:
    """Return the budget kind of an intent: UNTRIGGERED_SWAP for a swap whose plan has no trigger of
    the policy. A swap without a plan counts as a rebalance.
    """
    if (layer := stores.layer_of_kind(intent.kind)) is not None:
        return layer.budget_kind(grant_of_intent(db, intent.id))
    if intent.kind is not IntentKind.SWAP:
        return str(intent.kind.value)
    plan = plan_of_intent(db, intent.id)
    if plan is None or not isinstance(plan.decision, Rebalance) or plan.decision.by_trigger:
        return IntentKind.SWAP.value
    return UNTRIGGERED_SWAP


def unbook_intent(db: Connection, intent: Intent) -> None:
    """Remove an intent from budgets, movements and ledger after a reorg removed its block."""
    if (loss := db.scalar(select_booked_loss(), {"intent_id": intent.id})) is not None:
        ledger_sums.add_loss(db, parse_fraction(loss), -1)
        db.execute(delete(BudgetUseRow).where(BudgetUseRow.intent_id == intent.id))
    if (
        entry_row := first_row(db, ledger.select_entry(), EntryRow, intent_id=intent.id)
    ) is not None:
        ledger_sums.add_moves(
            db, entry_row.book_number, ledger.parse_wallet_moves(entry_row.wallet_moves_json), -1
        )
        db.execute(delete(EntryRow).where(EntryRow.intent_id == intent.id))
    for layer in stores.LAYERS:
        layer.unbook(db, intent.id)
    if intent.receipt is not None:
        db.execute(delete(MovementRow).where(MovementRow.tx_hash == intent.receipt.tx_hash))


def _loss_sum(losses: Iterable[str]) -> Fraction:
    """Return the sum of stored losses, numeraire base units; gains do not offset them."""
    return sum((max(Fraction(0), parse_fraction(loss)) for loss in losses), Fraction(0))


def _history(
    db: Connection, chain_now_s: int, wallet: str, wrapped_native: str
) -> tuple[History, float]:
    """Return the history, and the chain time up to which it is valid without a write."""
    facts = read_facts(db, *HISTORY_KEYS)
    own_rows = all_rows(db, _select_recent_budgets(), BudgetUseRow, since=chain_now_s - DAY_S)
    refusal_seq_by_token = _refusal_seq_by_token(facts)
    streak = failure_streak(db, facts, refusal_seq_by_token)
    external_rows = all_rows(db, _select_external_transactions(), ExternalTransactionRow)
    recent_rows: list[BudgetUseRow | ExternalTransactionRow] = [
        *own_rows,
        *(row for row in external_rows if row.chain_s > chain_now_s - DAY_S),
    ]
    turnover_rows = [
        row
        for row in recent_rows
        if getattr(row, "kind", "") not in stores.UNCOUNTED_TURNOVER_KINDS
    ]
    newest_success_s_by_kind = newest_successes(db, _BUDGET_KINDS)
    pending_requests = requests.withdrawals_and_stop(db)
    unexplained_losses = balances.lost_value(db, chain_now_s)
    unexplained_transfers = balances.open_transfers(db)
    demanded_tip_wei, demanded_until_s = _demanded_tip(facts, chain_now_s)
    history = History(
        reviews=Reviews(
            last_rebalance_s=newest_success_s_by_kind[IntentKind.SWAP.value],
            last_review_s=parse_fact_number(LAST_REVIEW, facts[LAST_REVIEW])
            if facts.get(LAST_REVIEW)
            else None,
            by_schedule=_parse_reviews(facts),
            delay_ppm=parse_fact_number(REVIEW_DELAY, facts.get(REVIEW_DELAY)),
        ),
        budgets=Budgets(
            turnover_24h=turnover_sum(turnover_rows),
            turnover_frees_s=min(
                (row.chain_s + DAY_S for row in turnover_rows if parse_fraction(row.turnover)),
                default=None,
            ),
            loss_24h=_loss_sum(row.loss for row in recent_rows) + unexplained_losses.last_day_value,
            loss_total=ledger_sums.loss_total(facts)
            + _loss_sum(row.loss for row in external_rows)
            + unexplained_losses.total,
            gas_24h_wei=sum(parse_whole(row.gas_wei, "a budget entry") for row in recent_rows),
            outflow_24h=sum(
                (parse_fraction(row.outflow) for row in recent_rows if row.outflow is not None),
                Fraction(0),
            ),
            decrease_24h=unexplained_losses.last_day_value,
            decrease_total=unexplained_losses.total,
            non_trade_loss_24h=_loss_sum(
                row.loss for row in own_rows if not row.succeeded or row.kind in _NON_TRADE_KINDS
            ),
            reverted_loss_total=_loss_sum(column_values(db, _select_losses_of_reverts())),
            unknown_reason=unexplained_losses.unknown_reason,
            unpriced_falls_reason=unexplained_losses.unknown_reason,
        ),
        failures=Failures(
            reverts_in_row=streak.reverts,
            approval_cycles_in_row=streak.approving_cycle_count,
            is_stopped=streak.is_stopped,
            failed_exits=exit_failures(db, facts, refusal_seq_by_token, own_rows, chain_now_s),
            submission_refusals=_parse_refusals(facts, SUBMISSION_REFUSALS),
            ignored_approvals=_parse_refusals(facts, IGNORED_APPROVALS),
        ),
        cash_flows=CashFlows(
            unexplained_transfers=unexplained_transfers,
            accepted_deposits=balances.accepted_deposits(db, facts, chain_now_s),
            unexplained_increases_raw=balances.sum_open_deposits(db, unexplained_transfers),
            first_increase_s=balances.blocked_since_s(facts),
            excluded_increases_raw=balances.excluded_deposits(db, facts),
            purchase=read_purchase(db, wallet, wrapped_native),
            pending_payments=requests.unpaid_payments(db, pending_requests),
        ),
        orders=OrderStates(
            states=orders.read_orders(db),
            version=parse_fact_number(
                orders.ORDERS_VERSION_KEY, facts.get(orders.ORDERS_VERSION_KEY)
            ),
            nav_per_share=orders.nav_per_share(db, facts),
        ),
        layers=stores.read_states(
            db, wallet, wrapped_native, chain_now_s, own_rows, newest_success_s_by_kind
        ),
        started_s=db.scalar(_select_first_step_s()),
        stop_reason=requests.stop_reason(pending_requests),
        depegged_tokens=tuple(facts.get(DEPEGGED_TOKENS, "").split()),
        unread_since_s_by_token=_parse_unreadable(facts),
        price_fault=facts.get(PRICE_FAULT, ""),
        demanded_tip_wei=demanded_tip_wei,
    )
    cash_flows = history.cash_flows
    time_dependences = (
        history.started_s is None,
        cash_flows.purchase is not None,
        any(layer_state.changes_with_time for layer_state in history.layers),
        cash_flows.unexplained_transfers,
        cash_flows.accepted_deposits,
        history.budgets.decrease_24h,
        history.budgets.unknown_reason,
        any(failed_exit.at_s == chain_now_s for failed_exit in history.failures.failed_exits),
    )
    if any(time_dependences):
        return history, chain_now_s
    return history, min((demanded_until_s, *(row.chain_s + DAY_S for row in recent_rows)))


def _demanded_tip(facts: Mapping[str, str], now_s: int) -> tuple[int, float]:
    """Return the demanded tip, wei per unit of gas, and the second from which it is forgotten; 0
    without one.
    """
    if not (tip_and_time_text := facts.get(DEMANDED_TIP)):
        return 0, math.inf
    tip_text, _, at_text = tip_and_time_text.partition(":")
    tip_wei = parse_whole(tip_text, DEMANDED_TIP)
    until_s = parse_whole(at_text, DEMANDED_TIP) + DAY_S
    return (0, math.inf) if until_s <= now_s else (tip_wei, until_s)


def _parse_unreadable(facts: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    token_and_time_texts = (
        pair_text.partition(":") for pair_text in facts.get(UNREADABLE_BALANCES, "").split()
    )
    return tuple(
        (token, parse_whole(since_text, UNREADABLE_BALANCES))
        for token, _, since_text in token_and_time_texts
    )


def _parse_reviews(facts: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    try:
        return tuple(
            (str(schedule_name), int(at_s))
            for schedule_name, at_s in json.loads(facts.get(SCHEDULE_REVIEWS) or "[]")
        )
    except (ValueError, TypeError) as error:
        raise OperatorNeeded(
            f"store: the reviews are damaged: {error}",
            "restore a backup",
            code=ErrorCode.DAMAGED,
        ) from None


def _write_refusals(db: Connection, key: str, refusals: Sequence[TokenRefusal]) -> None:
    newest_seq = max_value(db, IntentRow.seq)
    refusal_rows = [
        (refusal.token, refusal.at_s, refusal.refusal_count, refusal.why, newest_seq)
        for refusal in refusals
    ]
    write_facts(db, {key: json.dumps(refusal_rows)})


def _refusals_and_seqs(facts: Mapping[str, str], key: str) -> list[tuple[TokenRefusal, int]]:
    """Return each stored refusal, with the number of the newest intent at that time."""
    try:
        stored_rows = json.loads(facts.get(key) or "[]")
        return [
            (TokenRefusal(str(token), int(at_s), int(refusal_count), str(why)), int(seq))
            for token, at_s, refusal_count, why, seq in stored_rows
        ]
    except (ValueError, TypeError) as error:
        raise OperatorNeeded(
            f"store: the refused exits are damaged: {error}", "restore a backup"
        ) from None


def _parse_refusals(facts: Mapping[str, str], key: str) -> tuple[TokenRefusal, ...]:
    return tuple(refusal for refusal, _ in _refusals_and_seqs(facts, key))


def _refusal_seq_by_token(facts: Mapping[str, str]) -> dict[str, int]:
    """Return the number of the newest intent at the time of each token's last refusal."""
    seq_by_token: dict[str, int] = {}
    for key in (SUBMISSION_REFUSALS, IGNORED_APPROVALS):
        for refusal, seq in _refusals_and_seqs(facts, key):
            seq_by_token[refusal.token] = max(seq, seq_by_token.get(refusal.token, 0))
    return seq_by_token


def mark_resumed(db: Connection) -> None:
    """Clear failure streaks, exits refused at submission and ignored approvals, which the owner has
    reviewed.
    """
    write_facts(
        db,
        {
            SUBMISSION_REFUSALS: "",
            IGNORED_APPROVALS: "",
            FAILURE_STOP_KEY: "",
            RESUMED_SEQ_KEY: max_value(db, IntentRow.seq),
        },
    )


def _movement_rows(
    store_database: Database, intent: Intent, chain_s: int
) -> list[dict[str, object]]:
    """Return the balance changes of the wallet from the receipt of an intent, in signed base units:
    tokens by events, native coin sent or unwrapped, gas. Only the Withdrawal events of the wrapped
    native coin count, because any contract may emit one.
    """
    receipt = intent.receipt
    if receipt is None:
        return []
    wallet = store_database.wallet
    token_changes = [
        (token, delta_raw, intent.kind.value)
        for token, delta_raw in sorted(receipt.net_transfers(wallet).items())
        if delta_raw
    ]
    if native_wei := intent.native_change_wei(wallet, store_database.wrapped_native):
        token_changes.append((NATIVE, native_wei, intent.kind.value))
    if receipt.gas_cost_wei:
        token_changes.append((NATIVE, -receipt.gas_cost_wei, "gas"))
    return [
        {
            "token": token,
            "delta_raw": str(delta_raw),
            "kind": kind,
            "block_number": receipt.block_number,
            "chain_s": chain_s,
            "tx_hash": receipt.tx_hash,
        }
        for token, delta_raw, kind in token_changes
    ]


_select_recent_budgets = cache(
    lambda: select(BudgetUseRow).where(BudgetUseRow.chain_s > bindparam("since"))
)
_select_external_transactions = cache(lambda: select(ExternalTransactionRow))
_select_first_step_s = cache(lambda: select(StepRow.now_s).order_by(StepRow.seq).limit(1))
_select_losses_of_reverts = cache(
    lambda: select(BudgetUseRow.loss).where(
        is_one_of(BudgetUseRow.kind, _BUDGET_KINDS), BudgetUseRow.succeeded.is_(False)
    )
)
