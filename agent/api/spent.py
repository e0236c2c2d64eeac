"""What past steps really cost, by the ledger, and how weights went over time; from the store alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from agent.books.performance import costs
from agent.books.sheets import Names, utc, weights_bps
from agent.model import Intent
from agent.units import value_text

if TYPE_CHECKING:
    from agent.store.store import Store

Document = dict[str, Any]


class Spent:
    """What transactions cost by their entries, and what tokens are called."""

    def __init__(self, store: Store) -> None:
        known = store.named_tokens()
        self._store = store
        self._names = None if known is None else Names({token.address: token for token in known.tokens}, known.numeraire)

    def cost(self, intents: Iterable[Intent]) -> dict[str, str] | None:
        """Fees, impact, gas and their sum of these transactions in the numeraire; None while none of them is final."""
        found = self._store.entries_of(intent.id for intent in intents)
        if not found or self._names is None:
            return None
        spent, places = costs(found), self._names.numeraire.decimals
        parts = {"fees": spent.fees, "impact": spent.impact, "gas": spent.gas, "total": spent.total}
        return {name: value_text(value, places) for name, value in parts.items()}

    def values(self, limit: int) -> list[Document]:
        """The newest looks that were written down, newest first: the value of the managed portfolio, and each token's share of it."""
        if self._names is None:
            return []
        names = self._names
        return [
            {
                "time": utc(found.chain_s),
                "block": found.block,
                "value": value_text(found.managed, names.numeraire.decimals),
                "weights_bps": {names.label(token): bps for token, bps in weights_bps(found).items()},
            }
            for found in self._store.newest_valuations(limit)
        ]
