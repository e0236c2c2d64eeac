"""Last purchases of tokens, from the recorded movements of the wallet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, select

from agent.model import IntentKind
from agent.store.accounts.balances import parse_changes
from agent.store.database.connection import Database
from agent.store.database.rows import parse_fraction, parse_whole
from agent.store.database.statements import all_rows
from agent.store.tables import ExternalTransactionRow, MovementRow

ANY_TOKEN = ""
"""Stands for the token of a purchase whose token is unknown."""


@dataclass(frozen=True, slots=True)
class HoldingStore:
    """Purchases; each method is a transaction of its own."""

    db: Database

    def last_purchases_s(self, after_s: int) -> dict[str, int]:
        """Return the chain time of the last purchase of each token after `after_s`, by address.

        A trade of the wallet that this store did not send counts as the agent's, because its store
        may be lost; if it is unknown what that trade bought, its time is that of ANY_TOKEN.
        """
        with self.db.read("read the last purchases") as db:
            swap_movements = all_rows(db, _select_swaps(), MovementRow, after_s=after_s)
            tokens_and_times_s = [
                (row.token, row.chain_s)
                for row in swap_movements
                if parse_whole(row.delta_raw, "a movement") > 0
            ]
            for row in all_rows(
                db, _select_external_transactions(), ExternalTransactionRow, after_s=after_s
            ):
                if parse_fraction(row.turnover) > 0:
                    bought_tokens = [
                        token for token, raw in parse_changes(row.changes_json) if raw > 0
                    ]
                    tokens_and_times_s += [
                        (token, row.chain_s) for token in bought_tokens or [ANY_TOKEN]
                    ]
        last_s_by_token: dict[str, int] = {}
        for token, bought_s in tokens_and_times_s:
            last_s_by_token[token] = max(bought_s, last_s_by_token.get(token, bought_s))
        return last_s_by_token


@cache
def _select_swaps() -> Select[Any]:
    """Select what swaps moved after a time."""
    return select(MovementRow).where(
        MovementRow.kind == IntentKind.SWAP.value, MovementRow.chain_s > bindparam("after_s")
    )


@cache
def _select_external_transactions() -> Select[Any]:
    """Select the transactions after a time that this store did not send."""
    return select(ExternalTransactionRow).where(
        ExternalTransactionRow.chain_s > bindparam("after_s")
    )
