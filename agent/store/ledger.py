"""Budgets and movements: what finished intents used up, and the sums over the last 24 hours of chain time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from agent.errors import OperatorNeeded
from agent.model import History, Intent, IntentKind, IntentState, LateRefusal, Plan, Rebalance, Receipt
from agent.ports import Grant
from agent.store import balances, failed, ledger_rows, orders, positions, requests, running
from agent.store.ledger_tables import EntryRow
from agent.store.records import Movement, loaded, unpacked
from agent.store.sleeve_rows import SleeveBookingRow
from agent.store.tables import BudgetRow, EarlierRow, IntentRow, Meta, MovementRow, Step
from agent.units import NATIVE

DAY_S = 86_400
LAST_REVIEW = "last_review_s"
DELAY = "delay_ppm"
REVIEWS = "reviews"
"""Key of the schedules and when each was reviewed last, as JSON."""
MOST_REVIEWS = 32
"""Schedules that are remembered, the newest: those of a config long gone are forgotten."""
DEPEGGED = "depegged"
UNREAD = "unread"
"""Key of the assets whose balance could not be read, each as address:chain time since when."""
LATE = "late"
"""Key of the exits that were refused when about to be sent, as JSON."""
SWAP_BESIDES = "swap_besides"
"""Kind of a budget of a swap that is no rebalance of the policy: an exit, a withdrawal, an investment, one by hand."""
_KINDS = (*(kind.value for kind in IntentKind), SWAP_BESIDES)
"""Every kind of a budget: named so that few are read by their index."""
_NO_TRADES = (IntentKind.APPROVE.value, IntentKind.CANCEL.value)


def book(
    session: Session,
    wallet: str,
    coin: str,
    intent: Intent,
    turnover: Fraction,
    loss: Fraction,
    gas_wei: int,
    chain_s: int,
    outflow: Fraction = Fraction(0),
) -> None:
    """Adds one intent to the budgets, and what its receipt moved to the movements; once per intent, then nothing changes.

    Nothing either where the journal has another receipt by now: another process has seen a reorganisation meanwhile.
    """
    known = session.scalar(select(IntentRow.receipt_json).where(IntentRow.id == intent.id))
    if session.get(BudgetRow, intent.id) is not None or (None if known is None else loaded(Receipt, known)) != intent.receipt:
        return
    succeeded = intent.state is not IntentState.REVERTED and (intent.receipt is None or intent.receipt.status == 1)
    session.add(
        BudgetRow(
            intent_id=intent.id,
            kind=_kind(session, intent),
            succeeded=succeeded,
            chain_s=chain_s,
            turnover=str(turnover),
            loss=str(loss),
            gas_wei=str(gas_wei),
            outflow=str(outflow) if outflow else None,
        )
    )
    running.lost(session, loss)
    running.settle(session)
    if not succeeded or intent.kind is IntentKind.APPROVE:
        failed.note(session, _late_seqs(session))
    for movement in movements(intent, wallet, coin, chain_s):
        session.add(
            MovementRow(
                token=movement.token,
                delta_raw=str(movement.delta_raw),
                kind=movement.kind,
                block_number=movement.block_number,
                chain_s=movement.chain_s,
                tx_hash=movement.tx_hash,
            )
        )


def _kind(session: Session, intent: Intent) -> str:
    """What a budget calls an intent: a swap that no trigger of the policy asked for is told from a rebalance.

    By the plan of its grant, else of its step; one that is not known by either counts as a rebalance.
    """
    if intent.kind is not IntentKind.SWAP:
        return str(intent.kind.value)
    query = select(IntentRow.grant_z, Step.plan_z).join(Step, IntentRow.step_id == Step.id).where(IntentRow.id == intent.id)
    found = session.execute(query).one_or_none()
    plan = None if found is None else loaded(Grant, unpacked(found.grant_z)).plan
    if plan is None and found is not None and found.plan_z is not None:
        plan = loaded(Plan, unpacked(found.plan_z))
    if plan is None or not isinstance(plan.decision, Rebalance) or plan.decision.by_trigger:
        return IntentKind.SWAP.value
    return SWAP_BESIDES


def unbook(session: Session, intent: Intent) -> None:
    """Takes an intent out of budgets, movements and ledger: a reorganisation took the block of its receipt."""
    if (spent := session.get(BudgetRow, intent.id)) is not None:
        running.lost(session, _fraction(spent.loss), -1)
        session.delete(spent)
    if (entered := session.get(EntryRow, intent.id)) is not None:
        running.add(session, entered.book, ledger_rows.moved(entered.wallet_json), -1)
        session.delete(entered)
    session.execute(delete(SleeveBookingRow).where(SleeveBookingRow.source == intent.id))
    if intent.receipt is not None:
        session.execute(delete(MovementRow).where(MovementRow.tx_hash == intent.receipt.tx_hash))


def movements(intent: Intent, wallet: str, coin: str, chain_s: int) -> tuple[Movement, ...]:
    """What the receipt of `intent` changed in the balances of `wallet`: tokens by their events, native coin sent or unwrapped, gas.

    Native coin is unwrapped of `coin` alone: any contract may emit a Withdrawal.
    """
    receipt = intent.receipt
    if receipt is None:
        return ()
    changes = [(token, delta, intent.kind.value) for token, delta in sorted(receipt.net(wallet).items()) if delta]
    if native_wei := intent.coins(wallet, coin):
        changes.append((NATIVE, native_wei, intent.kind.value))
    if receipt.gas_cost_wei:
        changes.append((NATIVE, -receipt.gas_cost_wei, "gas"))
    return tuple(Movement(token, delta, kind, receipt.block_number, chain_s, receipt.tx_hash) for token, delta, kind in changes)


def history(session: Session, chain_now_s: int) -> History:
    """Sums of all entries younger than 24 h of chain time; entries from the future count too, so no clock resets a budget (T6).

    A trade that gained makes no room for later losses. Falls of balances that nobody has called a withdrawal are losses, and so
    is what transactions from before this store lost; what those gave away counts as paid out.
    """
    own = session.scalars(select(BudgetRow).where(BudgetRow.chain_s > chain_now_s - DAY_S)).all()
    row = failed.row(session, _late_seqs(session), chain_now_s)
    rows = [*own, *session.scalars(select(EarlierRow).where(EarlierRow.chain_s > chain_now_s - DAY_S))]
    fell, unpriced = balances.lost(session, chain_now_s)
    return History(
        last_rebalance_s=last_rebalance(session),
        last_review_s=_last_review(session),
        turnover_24h=sum((_fraction(row.turnover) for row in rows), Fraction(0)),
        loss_24h=sum((max(Fraction(0), _fraction(row.loss)) for row in rows), fell),
        gas_24h_wei=sum(int(row.gas_wei) for row in rows),
        reverts_in_row=row.reverts,
        approvals_in_row=row.approvals,
        failed_s=row.newest_s,
        failures_stop=row.stops,
        last_liquidity_s=_newest(session, IntentKind.LIQUIDITY),
        started_s=session.scalar(select(Step.now_s).order_by(Step.seq).limit(1)),
        flows=balances.opened(session),
        unknown=unpriced,
        undecided=positions.undecided(session),
        delay_ppm=int(_meta(session, DELAY) or 0),
        orders=orders.found(session),
        orders_turn=orders.turn(session),
        unit_value=orders.unit_value(session),
        depegged=tuple(_meta(session, DEPEGGED).split()),
        loss_total=_loss_total(session),
        outflow_24h=sum((_fraction(row.outflow) for row in rows if row.outflow is not None), Fraction(0)),
        claims=requests.claims(session),
        stopped=requests.stopped_words(session),
        reviews=_reviews(session),
        unread=tuple((token, int(since)) for token, since in (one.split(":") for one in _meta(session, UNREAD).split())),
        late=tuple(one for one, _ in _late(session)),
        fell_24h=fell,
        fell_total=balances.lost(session, None)[0],
        accepted=balances.accepted(session, chain_now_s),
        rises=balances.rises(session),
        rose_s=balances.rose_s(session),
        wasted_24h_wei=sum(int(row.gas_wei) for row in own if not row.succeeded or row.kind in _NO_TRADES),
        wasted_wei=sum(
            map(int, session.scalars(select(BudgetRow.gas_wei).where(BudgetRow.kind.in_(_KINDS), BudgetRow.succeeded.is_(False))))
        ),
    )


def mark_review(session: Session, chain_s: int, delay_ppm: int, reviews: Sequence[str]) -> None:
    """Remembers a review at `chain_s`, and for the schedules in `reviews` that it was theirs."""
    session.merge(Meta(key=LAST_REVIEW, value=str(chain_s)))
    session.merge(Meta(key=DELAY, value=str(delay_ppm)))
    if reviews:
        known = [(name, at_s) for name, at_s in _reviews(session) if name not in reviews] + [(name, chain_s) for name in reviews]
        session.merge(Meta(key=REVIEWS, value=json.dumps(known[-MOST_REVIEWS:])))


def _reviews(session: Session) -> tuple[tuple[str, int], ...]:
    try:
        return tuple((str(name), int(at_s)) for name, at_s in json.loads(_meta(session, REVIEWS) or "[]"))
    except (ValueError, TypeError) as error:
        raise OperatorNeeded(f"store: what it remembers of reviews is damaged: {error}", "restore a backup") from None


def mark_late(session: Session, found: Sequence[LateRefusal]) -> None:
    """Remembers exits that were refused when about to be sent, and no others; what was approved for them by now counts in no row."""
    newest = _newest_intent(session)
    session.merge(Meta(key=LATE, value=json.dumps([(one.token, one.at_s, one.times, one.why, newest) for one in found])))


def _late(session: Session) -> list[tuple[LateRefusal, int]]:
    """Each with the number of the newest intent by then."""
    try:
        known = json.loads(_meta(session, LATE) or "[]")
        return [(LateRefusal(str(token), int(at_s), int(times), str(why)), int(seq)) for token, at_s, times, why, seq in known]
    except (ValueError, TypeError) as error:
        raise OperatorNeeded(f"store: what it remembers of exits is damaged: {error}", "restore a backup") from None


def _late_seqs(session: Session) -> dict[str, int]:
    """By token that was refused late, the number of the newest intent by then."""
    return {one.token: seq for one, seq in _late(session)}


def _loss_total(session: Session) -> Fraction:
    """What everything lost since the store began, as history counts a day's; what gained makes no room."""
    earlier = sum((max(Fraction(0), _fraction(text)) for text in session.scalars(select(EarlierRow.loss))), Fraction(0))
    return running.loss_total(session) + earlier + balances.lost(session, None)[0]


def last_rebalance(session: Session) -> int | None:
    """Chain time of the newest swap that the policy's trigger asked for and that succeeded."""
    return _newest(session, IntentKind.SWAP)


def _newest(session: Session, kind: IntentKind) -> int | None:
    done = select(BudgetRow.chain_s).where(BudgetRow.kind == kind.value, BudgetRow.succeeded.is_(True))
    return session.scalar(done.order_by(BudgetRow.chain_s.desc()).limit(1))


def _last_review(session: Session) -> int | None:
    found = _meta(session, LAST_REVIEW)
    return int(found) if found else None


def _meta(session: Session, key: str) -> str:
    row = session.get(Meta, key)
    return "" if row is None else row.value


def resumed(session: Session) -> None:
    """The owner has looked at what failed: rows of failures start anew, and what was refused late is tried again."""
    mark_late(session, ())
    failed.forget(session, _newest_intent(session))


def _newest_intent(session: Session) -> int:
    return session.scalar(select(func.max(IntentRow.seq))) or 0


def _fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise OperatorNeeded(f"store: a budget entry is damaged: {error}", "restore a backup, compare it with the chain") from None
