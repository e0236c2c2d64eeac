"""Transition table of intents: event, state before and after, and guard of each transition.
docs/journal.md shows it as a diagram. A transition that is not in the table, or that its guard
refuses, has no effect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.model import IntentEvent, IntentKind, IntentState, Receipt

_PLANNED = IntentState.PLANNED
_SIGNED = IntentState.SIGNED
_BROADCAST = IntentState.BROADCAST
_MINED = IntentState.MINED
_FINAL = IntentState.FINAL
_REVERTED = IntentState.REVERTED
_REPLACED = IntentState.REPLACED
_CANCELLED = IntentState.CANCELLED


@dataclass(frozen=True, slots=True)
class PastFacts:
    """What has happened to an intent and at its nonce before a transition.

    `may_have_been_sent` is True if it was ever BROADCAST, so its bytes may have been sent.
    `final_peer_kind` is the kind of the intent that ended in a block among those that share its
    nonce by replacement.
    """

    may_have_been_sent: bool = False
    final_peer_kind: IntentKind | None = None


@dataclass(frozen=True, slots=True)
class TransitionFacts:
    """Data of a transition and of its intent. `is_nonce_adopted` is True if the operator has since
    adopted a nonce. `stored_receipt` is the receipt in the store, `receipt` that of the transition.
    `read_past` is called only by guards that need it: an intent that ends as usual meets none of
    them.
    """

    tx_hash: str | None
    is_nonce_adopted: bool = False
    stored_receipt: Receipt | None = None
    receipt: Receipt | None = None
    read_past: Callable[[], PastFacts] = PastFacts


Guard = Callable[[TransitionFacts], str | None]
"""Function that returns why a transition is refused; None if it is allowed."""


def _refuse_unless(is_allowed_now: bool, refusal: str) -> str | None:
    if is_allowed_now:
        return None
    return refusal


def _hash_guard(facts: TransitionFacts) -> str | None:
    return _refuse_unless(facts.tx_hash is not None, "without a hash")


def _late_hash_guard(facts: TransitionFacts) -> str | None:
    return _hash_guard(facts) or _never_left_guard(facts) or _no_adoption_guard(facts)


def _never_left_guard(facts: TransitionFacts) -> str | None:
    return _refuse_unless(not facts.read_past().may_have_been_sent, "once its bytes may have left")


def _own_receipt_guard(facts: TransitionFacts) -> str | None:
    if facts.receipt is None:
        return "without a receipt"
    if facts.receipt.tx_hash != facts.tx_hash:
        return "by the receipt of another transaction"
    return None


def _other_block_guard(facts: TransitionFacts) -> str | None:
    if (refusal := _own_receipt_guard(facts)) is not None:
        return refusal
    return _refuse_unless(
        facts.receipt != facts.stored_receipt, "by the receipt that it has already"
    )


def _no_adoption_guard(facts: TransitionFacts) -> str | None:
    return _refuse_unless(not facts.is_nonce_adopted, "since the operator has adopted a nonce")


def _other_block_without_adoption_guard(facts: TransitionFacts) -> str | None:
    return _no_adoption_guard(facts) or _other_block_guard(facts)


def _success_guard(facts: TransitionFacts) -> str | None:
    receipt = facts.receipt or facts.stored_receipt
    return _refuse_unless(
        receipt is not None and receipt.status == 1, "without the receipt of a success"
    )


def _revert_guard(facts: TransitionFacts) -> str | None:
    receipt = facts.receipt or facts.stored_receipt
    return _refuse_unless(
        receipt is not None and receipt.status != 1, "without the receipt of a revert"
    )


def _lost_nonce_guard(facts: TransitionFacts) -> str | None:
    nonce_is_used = facts.is_nonce_adopted or (
        facts.read_past().final_peer_kind not in (None, IntentKind.CANCEL)
    )
    return _refuse_unless(nonce_is_used, "while nothing else at its nonce is final")


def _cancel_guard(facts: TransitionFacts) -> str | None:
    return _refuse_unless(
        facts.read_past().final_peer_kind is IntentKind.CANCEL, "while no cancel of it is final"
    )


def _reopening_guard(facts: TransitionFacts) -> str | None:
    past = facts.read_past()
    if not past.may_have_been_sent:
        return "since its bytes never left"
    if past.final_peer_kind is not None:
        return "while another transaction at its nonce is final"
    return _no_adoption_guard(facts)


@dataclass(frozen=True, slots=True)
class TransitionRule:
    """One row of the table; `condition` is the guard as text."""

    state_before: IntentState
    event: IntentEvent
    state_after: IntentState
    condition: str
    guard: Guard


_Event = IntentEvent
TRANSITION_RULES: tuple[TransitionRule, ...] = (
    TransitionRule(
        _PLANNED, _Event.SIGN, _SIGNED, "with the hash of the signed bytes", _hash_guard
    ),
    TransitionRule(_PLANNED, _Event.DROP, _CANCELLED, "its bytes never left", _never_left_guard),
    TransitionRule(_SIGNED, _Event.SEND, _BROADCAST, "its hash is on disk", _hash_guard),
    TransitionRule(_SIGNED, _Event.DROP, _CANCELLED, "its bytes never left", _never_left_guard),
    TransitionRule(
        _BROADCAST,
        _Event.SEND,
        _BROADCAST,
        "the same bytes once more, or why no node took them",
        _hash_guard,
    ),
    TransitionRule(
        _BROADCAST, _Event.MINE, _MINED, "with the receipt of its own hash", _own_receipt_guard
    ),
    TransitionRule(
        _BROADCAST,
        _Event.LOSE,
        _REPLACED,
        "another that shares its nonce is final, or the operator adopted a later nonce",
        _lost_nonce_guard,
    ),
    TransitionRule(
        _BROADCAST,
        _Event.YIELD,
        _CANCELLED,
        "a cancel that shares its nonce is final",
        _cancel_guard,
    ),
    TransitionRule(
        _MINED, _Event.MINE, _MINED, "with a receipt of another block", _other_block_guard
    ),
    TransitionRule(_MINED, _Event.UNMINE, _BROADCAST, "its hash is known", _hash_guard),
    TransitionRule(_MINED, _Event.CONFIRM, _FINAL, "its receipt says success", _success_guard),
    TransitionRule(_MINED, _Event.FAIL, _REVERTED, "its receipt says revert", _revert_guard),
    TransitionRule(
        _FINAL,
        _Event.MINE,
        _MINED,
        "with a receipt of another block, and nothing was adopted since",
        _other_block_without_adoption_guard,
    ),
    TransitionRule(
        _FINAL, _Event.UNMINE, _BROADCAST, "nothing was adopted since", _no_adoption_guard
    ),
    TransitionRule(
        _REVERTED,
        _Event.MINE,
        _MINED,
        "with a receipt of another block, and nothing was adopted since",
        _other_block_without_adoption_guard,
    ),
    TransitionRule(
        _REVERTED, _Event.UNMINE, _BROADCAST, "nothing was adopted since", _no_adoption_guard
    ),
    TransitionRule(
        _REPLACED,
        _Event.REOPEN,
        _BROADCAST,
        "its bytes left, nothing at its nonce is final any more, nothing was adopted since",
        _reopening_guard,
    ),
    TransitionRule(
        _CANCELLED,
        _Event.SIGN,
        _SIGNED,
        "its external signer sent it after all, nothing was adopted since",
        _late_hash_guard,
    ),
    TransitionRule(
        _CANCELLED,
        _Event.REOPEN,
        _BROADCAST,
        "its bytes left, nothing at its nonce is final any more, nothing was adopted since",
        _reopening_guard,
    ),
)
"""Rows of the table: at most one per state and event, and at most one per pair of states."""

RULE_BY_EVENT: dict[tuple[IntentState, IntentEvent], TransitionRule] = {
    (rule.state_before, rule.event): rule for rule in TRANSITION_RULES
}
_RULE_BY_STATES: dict[tuple[IntentState, IntentState], TransitionRule] = {
    (rule.state_before, rule.state_after): rule for rule in TRANSITION_RULES
}

TRANSITIONS: dict[IntentState, frozenset[IntentState]] = {
    state: frozenset(rule.state_after for rule in TRANSITION_RULES if rule.state_before is state)
    for state in IntentState
}

OPEN_STATES: frozenset[IntentState] = frozenset({_PLANNED, _SIGNED, _BROADCAST, _MINED})
"""States that reconciliation still has to resolve. The others change only by a reorg."""

NONCE_USED_STATES: frozenset[IntentState] = frozenset({_MINED, _FINAL, _REVERTED})
"""States in which the nonce is used on the chain."""

ENDED_IN_BLOCK_STATES: frozenset[IntentState] = frozenset({_FINAL, _REVERTED})
"""Final states of transactions in a block."""

OPEN_STATE_NAMES = tuple(sorted(state.value for state in OPEN_STATES))
NONCE_USED_STATE_NAMES = tuple(sorted(state.value for state in NONCE_USED_STATES))
ENDED_IN_BLOCK_STATE_NAMES = tuple(sorted(state.value for state in ENDED_IN_BLOCK_STATES))
"""Those states as the store writes them, in the order of the alphabet: that of a set differs by
process."""


def find_rule(
    state_before: IntentState, state_or_event: IntentState | IntentEvent
) -> TransitionRule:
    """Return the row of a transition to a state, or by an event. Raises ValueError if there is
    none.
    """
    if isinstance(state_or_event, IntentEvent):
        rule = RULE_BY_EVENT.get((state_before, state_or_event))
        refusal = f"cannot be moved by {state_or_event.value} in state {state_before.value}"
    else:
        rule = _RULE_BY_STATES.get((state_before, state_or_event))
        refusal = f"cannot go from {state_before.value} to {state_or_event.value}"
    if rule is None:
        raise ValueError(refusal)
    return rule
