"""Which state of an intent may follow which: the whole table, and nothing else decides it."""

from __future__ import annotations

from agent.model import IntentState

_PLANNED, _SIGNED, _BROADCAST, _MINED = IntentState.PLANNED, IntentState.SIGNED, IntentState.BROADCAST, IntentState.MINED
_FINAL, _REVERTED, _REPLACED, _CANCELLED = IntentState.FINAL, IntentState.REVERTED, IntentState.REPLACED, IntentState.CANCELLED

TRANSITIONS: dict[IntentState, frozenset[IntentState]] = {
    # written down, not signed; dropped when signing is refused or the process died before it
    _PLANNED: frozenset({_SIGNED, _CANCELLED}),
    # hash known, bytes only in memory; dropped when they never left and may not leave any more
    _SIGNED: frozenset({_BROADCAST, _CANCELLED}),
    # the bytes may be anywhere; each resend is a row of its own, and only a final hash on the nonce ends it
    _BROADCAST: frozenset({_BROADCAST, _MINED, _REPLACED, _CANCELLED}),
    # in a block; a reorganisation moves it to another block or back to the mempool
    _MINED: frozenset({_MINED, _BROADCAST, _FINAL, _REVERTED}),
    _FINAL: frozenset(),
    _REVERTED: frozenset(),
    _REPLACED: frozenset(),
    _CANCELLED: frozenset(),
}

OPEN: frozenset[IntentState] = frozenset(state for state, following in TRANSITIONS.items() if following)
"""States that reconciliation still has to resolve."""

CONSUMED: frozenset[IntentState] = frozenset({_MINED, _FINAL, _REVERTED})
"""States in which the chain has used up the nonce."""


def allowed(before: IntentState, after: IntentState) -> bool:
    """Whether an intent in `before` may move to `after`."""
    return after in TRANSITIONS[before]
