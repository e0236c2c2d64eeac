"""Nonces of the wallet according to the journal."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, Select, func, select

from agent.model import FIRST_VENUE_NONCE, IntentState
from agent.store.database.facts import (
    ADOPTION_SEQ_KEY,
    fact_expression,
    fact_number_expression,
    parse_fact_number,
)
from agent.store.database.statements import is_one_of
from agent.store.tables import FactRow, IntentRow
from agent.store.transitions import NONCE_USED_STATE_NAMES

ADOPTED_NONCE_KEY = "adopted_nonce"
"""Key of the nonce that the operator last adopted."""
PROPOSAL_KEY_PREFIX = "proposal:"
"""Prefix of the key of a proposed intent in the facts table."""


def expected_nonce(db: Connection) -> int | None:
    """Return the adopted nonce, or one more than the highest nonce used on the chain since then."""
    adopted_nonce, adoption_seq, highest_used_nonce = db.execute(_select_nonces()).one()
    if adopted_nonce is None or adoption_seq is None:
        return None
    return max(
        parse_fact_number(ADOPTED_NONCE_KEY, adopted_nonce),
        -1 if highest_used_nonce is None else highest_used_nonce + 1,
    )


@cache
def _select_nonces() -> Select[*tuple[Any, ...]]:
    """Select the adopted nonce, the newest intent at that time, and the highest nonce used since."""
    adopted_facts = (fact_expression(key) for key in (ADOPTED_NONCE_KEY, ADOPTION_SEQ_KEY))
    return select(*adopted_facts, _last_used_nonce())


def _last_used_nonce() -> ScalarSelect[int]:
    """Return the highest nonce used since the adoption, as an expression for a statement. SQLite walks
    the index down to the first match instead of sorting all rows.
    """
    is_later = IntentRow.seq + 0 > fact_number_expression(ADOPTION_SEQ_KEY)
    conditions = (
        is_one_of(func.coalesce(IntentRow.state, ""), NONCE_USED_STATE_NAMES),
        is_later,
        is_on_chain(),
    )
    last_used_nonce = (
        select(IntentRow.nonce).where(*conditions).order_by(IntentRow.nonce.desc()).limit(1)
    )
    return last_used_nonce.correlate(None).scalar_subquery()


def is_on_chain() -> ColumnElement[bool]:
    """Return the condition that an intent is not an order of an off-chain venue."""
    return IntentRow.nonce < FIRST_VENUE_NONCE


def dropped_proposal_nonce() -> ScalarSelect[int]:
    """Return, as an expression for a statement, the next nonce if a proposal at it was given up, which
    its owners may have sent after all; NULL without one.
    """
    return (
        select(func.min(IntentRow.nonce))
        .join(FactRow, FactRow.key == PROPOSAL_KEY_PREFIX + IntentRow.id)
        .where(
            IntentRow.nonce >= fact_number_expression(ADOPTED_NONCE_KEY),
            IntentRow.nonce > func.coalesce(_last_used_nonce(), -1),
            is_on_chain(),
            IntentRow.state == IntentState.CANCELLED.value,
            IntentRow.tx_hash.is_(None),
        )
        .scalar_subquery()
    )
