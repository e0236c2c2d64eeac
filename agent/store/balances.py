"""What the wallet's balances should be, and the changes that nobody made: written down, found again, told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from sqlalchemy import Select, literal_column, select
from sqlalchemy.orm import Session

from agent.errors import ConfigError, OperatorNeeded
from agent.model import Books, Flow, FlowKind, Intent, Opening, OwnChange, Snapshot
from agent.policy.flows import SPELL_S, unpriced_fall
from agent.store import earlier, records, running
from agent.store.tables import FlowRow, IntentRow, Meta, OpeningRow
from agent.store.transitions import CONSUMED, OPEN

FOLDED = "folded_seq"
"""Key of the newest intent that openings contain already: it and all before it are final and deep."""
TURN = "books_turn"
ACCEPTED = "accepted_flows"
"""Key of the rises that were accepted last, each as number:chain time when."""
ROSE = "rose_s"
"""Key of the chain time since which rises that nobody explains have held something back, one after another."""
DEEP = 256
"""Blocks below the head from which on a final transaction is part of the opening: four times the deepest reorganisation that
is followed."""
DAY_S = 86_400
RECENT = 1_000
"""Flows that are looked through for those of the last 24 h; in numbers, since a header from the future would hide others by time."""
MOST = 2**63 - 1
"""The largest number that SQLite takes; no flow has it."""
SHOWN = 50
"""Open flows that a step sees."""
_CONSUMED = frozenset(state.value for state in CONSUMED)
_OPEN = frozenset(state.value for state in OPEN)
RISES = (FlowKind.DEPOSIT, FlowKind.GIFT)
FALLS = (FlowKind.WITHDRAWAL, FlowKind.LOSS)
"""What an owner may call a change that went up, and one that went down; the first is meant when nothing is said."""
FELL = FlowRow.delta_raw.like(literal_column("'-%'"))
"""Word for word what the index of falls says, or SQLite does not use it."""


def books(session: Session, wallet: str, coin: str) -> Books:
    """Everything that balances are compared with."""
    rows = _behind(session, _number(session, FOLDED))
    unsettled = [row.nonce for row in rows if row.state in _OPEN and row.state not in _CONSUMED]
    openings = session.scalars(select(OpeningRow).order_by(OpeningRow.token))
    newest = flows(session, RECENT)
    return Books(
        openings=tuple(Opening(row.token, int(row.raw), row.block_number) for row in openings),
        own=(*earlier.changes(session), *(change for row in rows for change in _own(row, wallet, coin))),
        flows=newest if len(newest) < RECENT else _merged((*newest, *opened(session))),
        unsettled_nonce=min(unsettled, default=None),
        turn=_number(session, TURN),
    )


def note(
    session: Session, wallet: str, coin: str, snapshot: Snapshot, balances: Mapping[str, int], found: Sequence[Flow], turn: int
) -> bool:
    """Writes flows down, and what balances are to be from here on. False, and nothing written, when the books of that turn are
    no longer those of now: another process was faster.
    """
    if _number(session, TURN) != turn:
        return False
    folded = _number(session, FOLDED)
    rows = _behind(session, folded)
    ends: dict[int, int] = {}
    for row in rows:  # what was replaced or cancelled may still be mined, as long as a reorganisation can take what won its nonce
        ends[row.nonce] = max(ends.get(row.nonce, 0), _block(row))
    for row in rows:
        if row.state in _OPEN or ends[row.nonce] > snapshot.head.number - DEEP:
            break
        folded = row.seq
        for change in _own(row, wallet, coin):  # a balance that was not read now keeps its opening, which has to contain this too
            opening = session.get(OpeningRow, change.token)
            if opening is not None and change.token not in balances:
                opening.raw = str(int(opening.raw) + change.delta_raw)
    own: dict[str, int] = {}
    behind = (change for row in _behind(session, folded) for change in _own(row, wallet, coin))
    for change in (*earlier.changes(session), *behind):
        if change.block <= snapshot.head.number:
            own[change.token] = own.get(change.token, 0) + change.delta_raw
    for token, raw in balances.items():
        session.merge(OpeningRow(token=token, raw=str(raw - own.get(token, 0)), block_number=snapshot.head.number))
    session.merge(Meta(key=FOLDED, value=str(folded)))
    session.merge(Meta(key=TURN, value=str(turn + 1)))
    for flow in found:
        if flow.holds and flow.delta_raw > 0:
            _began(session, flow.chain_s)
        if flow.id:
            _amend(session, flow, snapshot.head.timestamp_s)
            continue
        running.flowed(session, flow.token, flow.delta_raw)
        session.add(
            FlowRow(
                token=flow.token,
                delta_raw=str(flow.delta_raw),
                value=None if flow.value is None else str(flow.value),
                since_block=flow.since_block,
                block_number=flow.block,
                chain_s=flow.chain_s,
                halts=flow.halts,
                kind=None if flow.kind is None else flow.kind.value,
                told_s=None,
            )
        )
        for fell in session.scalars(select(FlowRow).where(FlowRow.seq.in_(flow.undoes), FlowRow.kind.is_(None))):
            fell.kind = FlowKind.UNDONE.value
    running.settle(session)
    return True


def _began(session: Session, at_s: int) -> None:
    """A rise holds something back: the wait began with it, or with one before."""
    known = rose_s(session)
    if known is None or not known <= at_s < known + SPELL_S:
        session.merge(Meta(key=ROSE, value=str(at_s)))


def rose_s(session: Session) -> int | None:
    """Chain time since which such rises have held something back; None where none has."""
    row = session.get(Meta, ROSE)
    return None if row is None else int(row.value)


def rises(session: Session) -> tuple[tuple[str, int], ...]:
    """What rose and nobody has explained, base units by token."""
    sums: dict[str, int] = {}
    for token, raw in session.execute(select(FlowRow.token, FlowRow.delta_raw).where(FlowRow.kind.is_(None), ~FELL)):
        sums[token] = sums.get(token, 0) + int(raw)
    return tuple(sorted(sums.items()))


def _amend(session: Session, flow: Flow, now_s: int) -> None:
    """Writes the value that an open flow has by now, and whether it is accepted; one that was explained meanwhile stays so."""
    row = session.get(FlowRow, flow.id)
    if row is None or row.kind is not None:
        return
    running.flowed(session, flow.token, 0)  # entries of the ledger are others now
    row.value, row.halts, row.chain_s = None if flow.value is None else str(flow.value), flow.halts, flow.chain_s
    if flow.kind is FlowKind.ACCEPTED:
        row.kind, row.told_s = flow.kind.value, now_s
        known = _accepted(session)[1 - SHOWN :]
        session.merge(Meta(key=ACCEPTED, value=" ".join(f"{seq}:{at_s}" for seq, at_s in (*known, (flow.id, now_s)))))


def accepted(session: Session, chain_now_s: int) -> tuple[Flow, ...]:
    """Rises that were accepted as deposits in the last 24 h of chain time, the newest SHOWN, but those renamed since; oldest first."""
    rows = [session.get(FlowRow, seq) for seq, at_s in _accepted(session) if at_s > chain_now_s - DAY_S]
    return tuple(_flow(row) for row in rows if row is not None and row.kind == FlowKind.ACCEPTED.value)


def _accepted(session: Session) -> list[tuple[int, int]]:
    row = session.get(Meta, ACCEPTED)
    found = (one.split(":") for one in ("" if row is None else row.value).split())
    return [(int(seq), int(at_s)) for seq, at_s in found]


def _merged(found: Sequence[Flow]) -> tuple[Flow, ...]:
    """Each once, oldest first."""
    by_id = {flow.id: flow for flow in found}
    return tuple(by_id[number] for number in sorted(by_id))


def flows(session: Session, limit: int) -> tuple[Flow, ...]:
    """The newest `limit` flows, explained ones too, oldest first."""
    return _found(session, select(FlowRow).order_by(FlowRow.seq.desc()).limit(limit))


def flows_after(session: Session, flow_id: int) -> tuple[Flow, ...]:
    """Flows that were written down after that one, explained ones too, oldest first."""
    return tuple(_flow(row) for row in session.scalars(select(FlowRow).where(FlowRow.seq > flow_id).order_by(FlowRow.seq)))


def opened(session: Session) -> tuple[Flow, ...]:
    """What nobody has explained, oldest first: all that halts, what fell, and the newest of the rest. Anybody may send dust as often
    as he likes, and hides no loss by it.
    """
    waiting = select(FlowRow).where(FlowRow.kind.is_(None)).order_by(FlowRow.seq.desc())
    newest = _found(session, waiting.limit(SHOWN))
    if len(newest) < SHOWN:
        return newest
    queries = (waiting.where(FlowRow.halts), waiting.where(FELL))
    return _merged([*newest, *(flow for query in queries for flow in _found(session, query.limit(SHOWN)))])


def _found(session: Session, query: Select[FlowRow]) -> tuple[Flow, ...]:
    return tuple(reversed([_flow(row) for row in session.scalars(query)]))


def tell(session: Session, flow_id: int | None, kind: FlowKind | None, now_s: int) -> tuple[Flow, ...]:
    """Writes down what a flow was, on the owner's word: an open one, or one that was accepted. Without an id every open one, without
    a kind the plainest.

    Raises ConfigError for a flow that is not there or not open, and for a kind that does not fit its direction.
    """
    query = select(FlowRow).order_by(FlowRow.seq)
    wanted = FlowRow.kind.is_(None) if flow_id is None else FlowRow.seq == min(flow_id, MOST)
    rows = list(session.scalars(query.where(wanted)))
    if flow_id is not None and not rows:
        raise ConfigError(f"flow {flow_id} is not in the store", "see trimtab flows")
    told = []
    for row in rows:
        if row.kind not in (None, FlowKind.ACCEPTED.value):
            raise ConfigError(f"flow {flow_id} was told already: {row.kind}", "see trimtab flows --all")
        fitting = RISES if int(row.delta_raw) > 0 else FALLS
        if kind is not None and kind not in fitting:
            names = " or ".join(one.value for one in fitting)
            raise ConfigError(f"--as {kind.value}: flow {row.seq} {'rose' if fitting is RISES else 'fell'}, so it was a {names}")
        row.kind, row.told_s = (kind or fitting[0]).value, now_s
        told.append(_flow(row))
    return tuple(told)


def lost(session: Session, chain_now_s: int | None) -> tuple[Fraction, str]:
    """Value of all falls of the last 24 h of chain time that no owner has called a withdrawal, and why it cannot be told, if so.

    Without a time those of all time.
    """
    total, unknown = Fraction(0), ""
    falls = select(FlowRow).where(FELL)
    for row in session.scalars(falls if chain_now_s is None else falls.where(FlowRow.chain_s > chain_now_s - DAY_S)):
        flow = _flow(row)
        if flow.is_loss and flow.value is None:
            unknown = unpriced_fall(flow)
        elif flow.is_loss and flow.value is not None:
            total += -flow.value
    return total, unknown


def _behind(session: Session, folded: int) -> list[IntentRow]:
    return list(session.scalars(select(IntentRow).where(IntentRow.seq > folded).order_by(IntentRow.seq)))


def _own(row: IntentRow, wallet: str, coin: str) -> list[OwnChange]:
    if row.state not in _CONSUMED:
        return []
    intent: Intent = records.intent(row)
    block = 0 if intent.receipt is None else intent.receipt.block_number
    return [OwnChange(token, raw, block) for token, raw in sorted(intent.changes(wallet, coin).items())]


def _block(row: IntentRow) -> int:
    """Block of a transaction, 0 for one that never came into any."""
    intent = records.intent(row)
    return 0 if intent.receipt is None else intent.receipt.block_number


def _number(session: Session, key: str) -> int:
    row = session.get(Meta, key)
    return 0 if row is None else int(row.value)


def _flow(row: FlowRow) -> Flow:
    try:
        kind = None if row.kind is None else FlowKind(row.kind)
        value = None if row.value is None else Fraction(row.value)
        delta = int(row.delta_raw)
    except (ValueError, ZeroDivisionError) as error:
        raise OperatorNeeded(f"store: a flow is damaged: {error}", "restore a backup, compare it with the chain") from None
    return Flow(row.seq, row.token, delta, value, row.since_block, row.block_number, row.chain_s, row.halts, kind)
