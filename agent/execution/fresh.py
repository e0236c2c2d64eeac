"""What a step reads through, and reading until enough was seen: our own last transaction, and the blocks that confirm a price."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from agent.errors import Retryable
from agent.model import Head, History, PastPrices, Snapshot, StepInput, V3Pool
from agent.policy import confirm, order_moves, quarantine
from agent.policy.decide import decide
from agent.ports import Clock, EvidenceSource, Journal, Reader
from agent.reference import depegged, reference_prices

LOOKS = 10
PAUSE_S = 2.0
"""Together twenty seconds: more than a block of any chain this is for."""


class CaughtUp:
    """ports.Reader whose snapshots are at or after every transaction that the journal knows to be mined."""

    def __init__(self, reader: Reader, journal: Journal, clock: Clock) -> None:
        self._reader = reader
        self._journal = journal
        self._clock = clock

    def snapshot(self) -> Snapshot:
        """See ports.Reader. Raises Retryable when the endpoints that agree stay behind."""
        ours = self._journal.expected_nonce() or 0
        found = self._reader.snapshot()
        for _ in range(LOOKS):
            if found.nonce_latest >= ours:
                return found
            self._clock.sleep(PAUSE_S)
            found = self._reader.snapshot()
        raise Retryable(
            f"the endpoints agree on block {found.head.number} only, which is behind our transaction of nonce {ours - 1}",
            "try again when the slower endpoint has caught up",
        )

    def past(self, head: Head, blocks: int) -> tuple[PastPrices, ...]:
        """See ports.Reader."""
        return self._reader.past(head, blocks)

    def deeper(self, snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
        """See ports.Reader."""
        return self._reader.deeper(snapshot, pools)


class Further:
    """Reads more ticks of all V3 pools of a step, once: a second time it could read no more."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._done = False

    def __call__(self, step: StepInput) -> StepInput | None:
        """The step with more ticks; None where they were read already, there are no more, or endpoints do not agree on them."""
        if self._done:
            return None
        self._done = True
        pools = [pool.address for pool in step.snapshot.pools if isinstance(pool, V3Pool)]
        try:
            snapshot = self._reader.deeper(step.snapshot, pools)
        except Retryable:
            return None
        return None if snapshot.pools == step.snapshot.pools else replace(step, snapshot=snapshot)


@dataclass(frozen=True, slots=True)
class Eyes:
    """What a step reads through: chain, memory, evidence. `assemble` adds the owner's wishes to a snapshot.

    `chance` gives numbers in [0, 1) that nobody can foresee.
    """

    reader: Reader
    assemble: Callable[[Snapshot, History], StepInput]
    history: Callable[[int], History]
    evidence: EvidenceSource
    clock: Clock
    chance: Callable[[], float]

    def assembled(self, snapshot: Snapshot) -> StepInput:
        """What a step decides from at that snapshot, by what is remembered now."""
        return self.assemble(snapshot, self.history(snapshot.head.timestamp_s))


def observed(eyes: Eyes, step: StepInput, journal: Journal | None = None) -> StepInput:
    """The same with the blocks before it, where prices make it act and policy.confirm_blocks wants them to agree.

    Dollars that left their peg, or came back, are written down: what was off has to come closer than what never was. So are
    balances that could not be read: what stays unread for long is left alone. So is what came above the ceiling, which stays left
    alone. And so is how every order stands, before anything is done about it.
    """
    if journal is not None and (off := depegged(step, reference_prices(step))) != step.history.depegged:
        journal.mark_depegged(off)
    if journal is not None and (unread := quarantine.unread(step)) != step.history.unread:
        journal.mark_unread(unread)
    if journal is not None and step.aside and step.history.left_rises != step.history.rises:
        journal.mark_left_alone()
    stirs = order_moves.stirring(step)
    if stirs or confirm.wants(step, lambda other: decide(other).asks):
        past = eyes.reader.past(step.snapshot.head, step.policy.confirm_blocks)
        snapshot = replace(step.snapshot, past=past)
        step = _anew(eyes, step, snapshot) if stirs else replace(step, snapshot=snapshot)
    if journal is not None and (step.history.orders or step.history.unit_value is not None or step.portfolio.orders.terms):
        history = step.history
        if not journal.move_orders(history.orders, history.unit_value, history.orders_turn):
            raise Retryable("orders were changed while the chain was read", "look again")
    return step


def _anew(eyes: Eyes, step: StepInput, snapshot: Snapshot) -> StepInput:
    """The step from the same block with those before it: orders that they confirm move, and targets with them."""
    found = eyes.assemble(snapshot, eyes.history(snapshot.head.timestamp_s))
    before = step.history
    history = replace(found.history, last_rebalance_s=before.last_rebalance_s, last_liquidity_s=before.last_liquidity_s)
    return replace(found, history=history, spend_caps=step.spend_caps, spent_gas_wei=step.spent_gas_wei, acted=step.acted)
