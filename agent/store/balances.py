"""What the wallet's balances should be, and the changes that nobody made: written down, found again, told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, literal_column, select, update

from agent.errors import ConfigError, OperatorNeeded
from agent.model import Books, Flow, FlowKind, Intent, Opening, OwnChange, Snapshot
from agent.policy.flows import SPELL_S, unpriced_fall
from agent.store import earlier, meta, records, running
from agent.store.statements import add, every, first, highest, put
from agent.store.tables import FlowRow, IntentRow, OpeningRow
from agent.store.transitions import CONSUMED, OPEN

FOLDED = "folded_seq"
"""Key of the newest intent that openings contain already: it and all before it are final and deep."""
TURN = "books_turn"
ACCEPTED = "accepted_flows"
"""Key of the rises that were accepted last, each as number:chain time when."""
ROSE = "rose_s"
LEFT_ALONE = "left_alone"
"""The newest flow when rises were last left alone above portfolio.max_live_value: those up to it stay so."""
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


def books(db: Connection, wallet: str, coin: str) -> Books:
    """Everything that balances are compared with."""
    facts = meta.read(db, FOLDED, TURN)
    rows = _behind(db, meta.whole(FOLDED, facts.get(FOLDED)))
    unsettled = [row.nonce for row in rows if row.state in _OPEN and row.state not in _CONSUMED]
    openings = every(db, _openings(), OpeningRow)
    newest = flows(db, RECENT)
    return Books(
        openings=tuple(Opening(row.token, int(row.raw), row.block_number) for row in openings),
        own=(*earlier.changes(db), *(change for row in rows for change in _own(row, wallet, coin))),
        flows=newest if len(newest) < RECENT else _merged((*newest, *opened(db))),
        unsettled_nonce=min(unsettled, default=None),
        turn=meta.whole(TURN, facts.get(TURN)),
    )


def note(db: Connection, wallet: str, coin: str, snapshot: Snapshot, balances: Mapping[str, int], found: Sequence[Flow], turn: int) -> bool:
    """Writes flows down, and what balances are to be from here on. False, and nothing written, when the books of that turn are
    no longer those of now: another process was faster.
    """
    facts = meta.read(db, FOLDED, TURN)
    if meta.whole(TURN, facts.get(TURN)) != turn:
        return False
    folded = meta.whole(FOLDED, facts.get(FOLDED))
    rows = _behind(db, folded)
    ends: dict[int, int] = {}
    for row in rows:  # what was replaced or cancelled may still be mined, as long as a reorganisation can take what won its nonce
        ends[row.nonce] = max(ends.get(row.nonce, 0), _block(row))
    carried = {row.token: (int(row.raw), row.block_number) for row in every(db, _openings(), OpeningRow) if row.token not in balances}
    changed = dict(carried)
    for row in rows:
        if row.state in _OPEN or ends[row.nonce] > snapshot.head.number - DEEP:
            break
        folded = row.seq
        for change in _own(row, wallet, coin):  # a balance that was not read now keeps its opening, which has to contain this too
            if change.token in changed:
                raw, block = changed[change.token]
                changed[change.token] = (raw + change.delta_raw, block)
    own: dict[str, int] = {}
    behind = (change for row in rows if row.seq > folded for change in _own(row, wallet, coin))
    for change in (*earlier.changes(db), *behind):
        if change.block <= snapshot.head.number:
            own[change.token] = own.get(change.token, 0) + change.delta_raw
    head = snapshot.head.number
    changed |= {token: (raw - own.get(token, 0), head) for token, raw in balances.items()}
    fresh = ((token, raw, block) for token, (raw, block) in changed.items() if carried.get(token) != (raw, block))
    put(db, OpeningRow, [{"token": token, "raw": str(raw), "block_number": block} for token, raw, block in fresh])
    meta.write(db, {FOLDED: folded, TURN: turn + 1})
    for flow in found:
        if flow.holds and flow.delta_raw > 0:
            _began(db, flow.chain_s)
        if flow.id:
            _amend(db, flow, snapshot.head.timestamp_s)
            continue
        running.flowed(db, flow.token, flow.delta_raw)
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
        add(db, FlowRow, [new])
        if flow.undoes:
            undone = FlowRow.seq.in_(flow.undoes), FlowRow.kind.is_(None)
            db.execute(update(FlowRow).where(*undone).values(kind=FlowKind.UNDONE.value))
    running.settle(db)
    return True


def _began(db: Connection, at_s: int) -> None:
    """A rise holds something back: the wait began with it, or with one before."""
    known = rose_s(meta.read(db, ROSE))
    if known is None or not known <= at_s < known + SPELL_S:
        meta.write(db, {ROSE: at_s})


def rose_s(facts: Mapping[str, str]) -> int | None:
    """Chain time since which such rises have held something back, by the fact ROSE; None where none has."""
    return int(facts[ROSE]) if ROSE in facts else None


def mark_left_alone(db: Connection) -> None:
    """Remembers which rises are left alone: all until now."""
    meta.write(db, {LEFT_ALONE: highest(db, FlowRow.seq)})


def left_rises(db: Connection, facts: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """Which of the rises are left alone, by the fact LEFT_ALONE, base units by token."""
    until = meta.whole(LEFT_ALONE, facts.get(LEFT_ALONE))
    return rises(db, until) if until else ()


def rises(db: Connection, until: int = MOST) -> tuple[tuple[str, int], ...]:
    """What rose up to that flow and nobody has explained, base units by token."""
    sums: dict[str, int] = {}
    for token, raw in db.execute(_rises(), {"until": until}):
        sums[token] = sums.get(token, 0) + int(raw)
    return tuple(sorted(sums.items()))


def _amend(db: Connection, flow: Flow, now_s: int) -> None:
    """Writes the value that an open flow has by now, and whether it is accepted; one that was explained meanwhile stays so."""
    row = first(db, _by_number(), FlowRow, of=flow.id)
    if row is None or row.kind is not None:
        return
    running.flowed(db, flow.token, 0)  # entries of the ledger are others now
    value = None if flow.value is None else str(flow.value)
    told: dict[str, object] = {}
    if flow.kind is FlowKind.ACCEPTED:
        told = {"kind": flow.kind.value, "told_s": now_s}
        known = _accepted(meta.read(db, ACCEPTED))[1 - SHOWN :]
        meta.write(db, {ACCEPTED: " ".join(f"{seq}:{at_s}" for seq, at_s in (*known, (flow.id, now_s)))})
    db.execute(_change(), {"of": flow.id, "value": value, "halts": flow.halts, "chain_s": flow.chain_s, **told})


def accepted(db: Connection, facts: Mapping[str, str], chain_now_s: int) -> tuple[Flow, ...]:
    """Rises that were accepted as deposits in the last 24 h of chain time, by the fact ACCEPTED: the newest SHOWN, but those renamed
    since; oldest first.
    """
    rows = (first(db, _by_number(), FlowRow, of=seq) for seq, at_s in _accepted(facts) if at_s > chain_now_s - DAY_S)
    return tuple(_flow(row) for row in rows if row is not None and row.kind == FlowKind.ACCEPTED.value)


def _accepted(facts: Mapping[str, str]) -> list[tuple[int, int]]:
    found = (one.split(":") for one in facts.get(ACCEPTED, "").split())
    return [(int(seq), int(at_s)) for seq, at_s in found]


def _merged(found: Sequence[Flow]) -> tuple[Flow, ...]:
    """Each once, oldest first."""
    by_id = {flow.id: flow for flow in found}
    return tuple(by_id[number] for number in sorted(by_id))


def flows(db: Connection, limit: int) -> tuple[Flow, ...]:
    """The newest `limit` flows, explained ones too, oldest first."""
    return _found(db, _newest(), limit)


def flows_after(db: Connection, flow_id: int) -> tuple[Flow, ...]:
    """Flows that were written down after that one, explained ones too, oldest first."""
    return tuple(_flow(row) for row in every(db, _after(), FlowRow, of=flow_id))


def opened(db: Connection) -> tuple[Flow, ...]:
    """What nobody has explained, oldest first: all that halts, what fell, and the newest of the rest. Anybody may send dust as often
    as he likes, and hides no loss by it.
    """
    newest = _found(db, _waiting(), SHOWN)
    if len(newest) < SHOWN:
        return newest
    return _merged([*newest, *(flow for query in (_halting(), _fallen()) for flow in _found(db, query, SHOWN))])


def _found(db: Connection, newest_first: Select[Any], limit: int) -> tuple[Flow, ...]:
    return tuple(reversed([_flow(row) for row in every(db, newest_first, FlowRow, limit=limit)]))


def tell(db: Connection, flow_id: int | None, kind: FlowKind | None, now_s: int) -> tuple[Flow, ...]:
    """Writes down what a flow was, on the owner's word: an open one, or one that was accepted. Without an id every open one, without
    a kind the plainest.

    Raises ConfigError for a flow that is not there or not open, and for a kind that does not fit its direction.
    """
    query = select(FlowRow).order_by(FlowRow.seq)
    wanted = FlowRow.kind.is_(None) if flow_id is None else FlowRow.seq == min(flow_id, MOST)
    rows = every(db, query.where(wanted), FlowRow)
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
        named = kind or fitting[0]
        db.execute(_change(), {"of": row.seq, "kind": named.value, "told_s": now_s})
        told.append(replace(_flow(row), kind=named))
    return tuple(told)


@dataclass(frozen=True, slots=True)
class Lost:
    """Value of falls that no owner has called a withdrawal: of the last 24 h of chain time, and of all time; and why the first
    cannot be told, if so.
    """

    day: Fraction
    total: Fraction
    unknown: str


def lost(db: Connection, chain_now_s: int) -> Lost:
    """What fell, as far as it is worth something that is known."""
    day, total, unknown = Fraction(0), Fraction(0), ""
    for row in every(db, _falls(), FlowRow):
        flow = _flow(row)
        recent = flow.chain_s > chain_now_s - DAY_S
        if flow.is_loss and flow.value is None:
            unknown = unpriced_fall(flow) if recent else unknown
        elif flow.is_loss and flow.value is not None:
            total -= flow.value
            day -= flow.value if recent else 0
    return Lost(day, total, unknown)


def _behind(db: Connection, folded: int) -> Sequence[IntentRow]:
    return every(db, _later(), IntentRow, of=folded)


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


def _flow(row: FlowRow) -> Flow:
    try:
        kind = None if row.kind is None else FlowKind(row.kind)
        value = None if row.value is None else Fraction(row.value)
        delta = int(row.delta_raw)
    except (ValueError, ZeroDivisionError) as error:
        raise OperatorNeeded(f"store: a flow is damaged: {error}", "restore a backup, compare it with the chain") from None
    return Flow(row.seq, row.token, delta, value, row.since_block, row.block_number, row.chain_s, row.halts, kind)


_openings = cache(lambda: select(OpeningRow).order_by(OpeningRow.token))
_later = cache(lambda: select(IntentRow).where(IntentRow.seq > bindparam("of")).order_by(IntentRow.seq))
_by_number = cache(lambda: select(FlowRow).where(FlowRow.seq == bindparam("of")))
_change = cache(lambda: update(FlowRow).where(FlowRow.seq == bindparam("of")))
_after = cache(lambda: select(FlowRow).where(FlowRow.seq > bindparam("of")).order_by(FlowRow.seq))
_newest = cache(lambda: select(FlowRow).order_by(FlowRow.seq.desc()).limit(bindparam("limit")))
_waiting = cache(lambda: _newest().where(FlowRow.kind.is_(None)))
_halting = cache(lambda: _waiting().where(FlowRow.halts))
_fallen = cache(lambda: _waiting().where(FELL))
_falls = cache(lambda: select(FlowRow).where(FELL))
_rises = cache(lambda: select(FlowRow.token, FlowRow.delta_raw).where(FlowRow.kind.is_(None), ~FELL, FlowRow.seq <= bindparam("until")))
