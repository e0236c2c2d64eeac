"""Limits on consecutive failures, and the back-off of a failing exit, which outlasts an attacker
who makes it revert (T6, T20).
"""

from __future__ import annotations

from agent.model import History

MAX_REVERTS_IN_ROW = 3
"""Consecutive reverts after which the operator must act: each burns gas, and three are no
accident."""
MAX_APPROVALS_IN_ROW = 8
"""Steps of approvals without a swap after which the operator must act: each approves and revokes,
at the price of gas."""
FIRST_WAIT_S, LONGEST_WAIT_S = 60, 3_600
"""Number of failures before an exit waits, its first wait in chain seconds, doubled per failure,
and the longest.
"""


def too_many(reverts: int, approvals: int) -> bool:
    """True if consecutive failures stop the agent until the owner resumes it."""
    return reverts >= MAX_REVERTS_IN_ROW or approvals >= MAX_APPROVALS_IN_ROW


def is_stopped(history: History) -> bool:
    """True if rebalances and liquidity moves towards targets wait for the owner."""
    return history.failures_stop or too_many(history.reverts_in_row, history.approvals_in_row)


def retry_wait_s(history: History) -> int:
    """Chain time that an exit waits after the newest failure; 0 while few enough failed."""
    if not too_many(history.reverts_in_row, history.approvals_in_row):
        return 0
    more = history.reverts_in_row - MAX_REVERTS_IN_ROW
    if more < 0:
        more = history.approvals_in_row - MAX_APPROVALS_IN_ROW
    return min(FIRST_WAIT_S << min(more, 16), LONGEST_WAIT_S)
