"""Transition table of intents: event, state before and after, and guard of each transition.
docs/journal.md shows it as a diagram. A transition that is not in the table, or that its guard
refuses, has no effect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.model import IntentEvent, IntentKind, IntentState, Receipt

_PLANNED, _SIGNED, _BROADCAST, _MINED = (
    IntentState.PLANNED,
    IntentState.SIGNED,
    IntentState.BROADCAST,
    IntentState.MINED,
)
_FINAL, _REVERTED, _REPLACED, _CANCELLED = (
    IntentState.FINAL,
    IntentState.REVERTED,
    IntentState.REPLACED,
    IntentState.CANCELLED,
)


@dataclass(frozen=True, slots=True)
class TransitionFacts:
    """Facts about an intent at a transition, and the data of the transition itself.

    `may_have_left` is True if it was ever BROADCAST, so its bytes may have been sent. `winner` is the kind
    of the intent that ended in a block among those that share its nonce by replacement. `adopted`
    is True if the operator has since adopted a nonce. `stored_receipt` is the receipt in the store, `receipt`
    that of the transition.
    """

    tx_hash: str | None
    may_have_left: bool = False
    winner: IntentKind | None = None
    adopted: bool = False
    stored_receipt: Receipt | None = None
    receipt: Receipt | None = None


Guard = Callable[[TransitionFacts], str | None]
"""Function that returns why a transition is refused; None if it is allowed."""


def _refuse_unless(allowed: bool, why: str) -> str | None:
    if allowed:
        return None
    return why


def _hash_known(facts: TransitionFacts) -> str | None:
    return _refuse_unless(facts.tx_hash is not None, "without a hash")


def _never_left(facts: TransitionFacts) -> str | None:
    return _refuse_unless(not facts.may_have_left, "once its bytes may have left")


def _own_receipt(facts: TransitionFacts) -> str | None:
    if facts.receipt is None:
        return "without a receipt"
    if facts.receipt.tx_hash != facts.tx_hash:
        return "by the receipt of another transaction"
    return None


def _another_block(facts: TransitionFacts) -> str | None:
    if (why := _own_receipt(facts)) is not None:
        return why
    return _refuse_unless(
        facts.receipt != facts.stored_receipt, "by the receipt that it has already"
    )


def _since_adoption(facts: TransitionFacts) -> str | None:
    return _refuse_unless(not facts.adopted, "since the operator has adopted a nonce")


def _another_block_since_adoption(facts: TransitionFacts) -> str | None:
    return _since_adoption(facts) or _another_block(facts)


def _succeeded(facts: TransitionFacts) -> str | None:
    receipt = facts.receipt or facts.stored_receipt
    return _refuse_unless(
        receipt is not None and receipt.status == 1, "without the receipt of a success"
    )


def _failed(facts: TransitionFacts) -> str | None:
    receipt = facts.receipt or facts.stored_receipt
    return _refuse_unless(
        receipt is not None and receipt.status != 1, "without the receipt of a revert"
    )


def _lost(facts: TransitionFacts) -> str | None:
    nonce_is_used = facts.adopted or (
        facts.winner is not None and facts.winner is not IntentKind.CANCEL
    )
    return _refuse_unless(nonce_is_used, "while nothing else at its nonce is final")


def _yielded(facts: TransitionFacts) -> str | None:
    return _refuse_unless(facts.winner is IntentKind.CANCEL, "while no cancel of it is final")


def _undecided(facts: TransitionFacts) -> str | None:
    if not facts.may_have_left:
        return "since its bytes never left"
    if facts.winner is not None:
        return "while another transaction at its nonce is final"
    return _since_adoption(facts)


@dataclass(frozen=True, slots=True)
class TransitionRule:
    """One row of the table; `when` is the guard as text."""

    before: IntentState
    event: IntentEvent
    after: IntentState
    when: str
    guard: Guard


_E = IntentEvent
TRANSITION_RULES: tuple[TransitionRule, ...] = (
    TransitionRule(_PLANNED, _E.SIGN, _SIGNED, "with the hash of the signed bytes", _hash_known),
    TransitionRule(_PLANNED, _E.DROP, _CANCELLED, "its bytes never left", _never_left),
    TransitionRule(_SIGNED, _E.SEND, _BROADCAST, "its hash is on disk", _hash_known),
    TransitionRule(_SIGNED, _E.DROP, _CANCELLED, "its bytes never left", _never_left),
    TransitionRule(_BROADCAST, _E.SEND, _BROADCAST, "the same bytes once more", _hash_known),
    TransitionRule(_BROADCAST, _E.MINE, _MINED, "with the receipt of its own hash", _own_receipt),
    TransitionRule(
        _BROADCAST,
        _E.LOSE,
        _REPLACED,
        "another that shares its nonce is final, or the operator adopted a later nonce",
        _lost,
    ),
    TransitionRule(
        _BROADCAST, _E.YIELD, _CANCELLED, "a cancel that shares its nonce is final", _yielded
    ),
    TransitionRule(_MINED, _E.MINE, _MINED, "with a receipt of another block", _another_block),
    TransitionRule(_MINED, _E.UNMINE, _BROADCAST, "its hash is known", _hash_known),
    TransitionRule(_MINED, _E.CONFIRM, _FINAL, "its receipt says success", _succeeded),
    TransitionRule(_MINED, _E.FAIL, _REVERTED, "its receipt says revert", _failed),
    TransitionRule(
        _FINAL,
        _E.MINE,
        _MINED,
        "with a receipt of another block, and nothing was adopted since",
        _another_block_since_adoption,
    ),
    TransitionRule(_FINAL, _E.UNMINE, _BROADCAST, "nothing was adopted since", _since_adoption),
    TransitionRule(
        _REVERTED,
        _E.MINE,
        _MINED,
        "with a receipt of another block, and nothing was adopted since",
        _another_block_since_adoption,
    ),
    TransitionRule(_REVERTED, _E.UNMINE, _BROADCAST, "nothing was adopted since", _since_adoption),
    TransitionRule(
        _REPLACED,
        _E.REOPEN,
        _BROADCAST,
        "its bytes left, nothing at its nonce is final any more, nothing was adopted since",
        _undecided,
    ),
    TransitionRule(
        _CANCELLED,
        _E.REOPEN,
        _BROADCAST,
        "its bytes left, nothing at its nonce is final any more, nothing was adopted since",
        _undecided,
    ),
)
"""Rows of the table: at most one per state and event, and at most one per pair of states."""

RULE_BY_EVENT: dict[tuple[IntentState, IntentEvent], TransitionRule] = {
    (row.before, row.event): row for row in TRANSITION_RULES
}
_BETWEEN: dict[tuple[IntentState, IntentState], TransitionRule] = {
    (row.before, row.after): row for row in TRANSITION_RULES
}

TRANSITIONS: dict[IntentState, frozenset[IntentState]] = {
    state: frozenset(row.after for row in TRANSITION_RULES if row.before is state)
    for state in IntentState
}

OPEN: frozenset[IntentState] = frozenset({_PLANNED, _SIGNED, _BROADCAST, _MINED})
"""States that reconciliation still has to resolve. The others change only by a reorg."""

CONSUMED: frozenset[IntentState] = frozenset({_MINED, _FINAL, _REVERTED})
"""States in which the nonce is used on the chain."""

ENDED_IN_BLOCK: frozenset[IntentState] = frozenset({_FINAL, _REVERTED})
"""Final states of transactions in a block."""


def is_allowed(before: IntentState, after: IntentState) -> bool:
    """True if the table has a transition from `before` to `after`; its guard may still refuse."""
    return (before, after) in _BETWEEN


def find_rule(before: IntentState, to: IntentState | IntentEvent) -> TransitionRule:
    """Return the row of a transition to a state, or by an event. Raises ValueError if there is
    none.
    """
    if isinstance(to, IntentEvent):
        rule = RULE_BY_EVENT.get((before, to))
        refusal = f"cannot be moved by {to.value} in state {before.value}"
    else:
        rule = _BETWEEN.get((before, to))
        refusal = f"cannot go from {before.value} to {to.value}"
    if rule is None:
        raise ValueError(refusal)
    return rule
