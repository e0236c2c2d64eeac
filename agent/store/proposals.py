"""Proposals to external signers."""

from __future__ import annotations

from dataclasses import dataclass

from agent.store import database
from agent.store.database import Database

PROPOSAL = "proposal:"


@dataclass(frozen=True, slots=True)
class ProposalStore:
    """The block at which each intent was proposed to an external signer."""

    db: Database

    def mark_proposed(self, intent_id: str, since_block: int) -> None:
        """Record the block at which an intent was proposed."""
        with self.db.write("record a proposal") as db:
            database.write_facts(db, {PROPOSAL + intent_id: since_block})

    def proposed(self) -> dict[str, int]:
        """Return the block of each proposal by intent id, dropped intents included."""
        with self.db.read("read the proposals") as db:
            return {
                key.removeprefix(PROPOSAL): int(value)
                for key, value in database.facts_with_prefix(db, PROPOSAL)
            }
