"""Proposals of intents to external signers: blocks, signatures and executions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from agent import codec
from agent.model import ProposalExecution
from agent.store.accounts.nonces import PROPOSAL_KEY_PREFIX
from agent.store.database.connection import Database
from agent.store.database.errors import damaged_row_error
from agent.store.database.facts import (
    fact_text,
    facts_with_prefix,
    find_fact,
    parse_fact_number,
    write_facts,
)
from agent.store.database.rows import decode_json, decode_optional
from agent.store.files.pause import PauseCheck, read_pause

SIGNATURES_KEY_PREFIX = "signatures:"
"""Prefix of the key of the signatures of a proposed intent, as JSON by owner."""
EXECUTION_KEY_PREFIX = "execution:"
"""Prefix of the key of the newest transaction that executes a proposed intent."""


@dataclass(frozen=True, slots=True)
class ProposalStore:
    """The block at which each intent was proposed to an external signer, the signatures of a Safe's
    owners, and the transaction that executes its call. A signature is public once it is executed.
    """

    db: Database

    def mark_proposed(self, intent_id: str, proposal_block: int) -> None:
        """Record the block at which an intent was proposed."""
        with self.db.write("record a proposal") as db:
            write_facts(db, {PROPOSAL_KEY_PREFIX + intent_id: proposal_block})

    def proposal_blocks(self) -> dict[str, int]:
        """Return the block of each proposal by intent id, dropped intents included."""
        with self.db.read("read the proposals") as db:
            return {
                fact_key.removeprefix(PROPOSAL_KEY_PREFIX): parse_fact_number(fact_key, block_text)
                for fact_key, block_text in facts_with_prefix(db, PROPOSAL_KEY_PREFIX)
            }

    def add_signatures(self, intent_id: str, signature_by_owner: Mapping[str, bytes]) -> None:
        """Record owners' signatures of a proposal, beside those of other owners."""
        with self.db.write("record signatures") as db:
            signatures_json = _signatures_json(db, intent_id)
            for owner, signature in signature_by_owner.items():
                signatures_json[owner] = signature.hex()
            fact_key = SIGNATURES_KEY_PREFIX + intent_id
            write_facts(db, {fact_key: json.dumps(signatures_json)})

    def signatures(self, intent_id: str) -> dict[str, bytes]:
        """Return the signatures of a proposal by owner."""
        with self.db.read("read signatures") as db:
            signatures_json = _signatures_json(db, intent_id)
        try:
            return {
                owner: bytes.fromhex(signature_hex)
                for owner, signature_hex in signatures_json.items()
            }
        except ValueError as error:
            raise damaged_row_error(str(error)) from None

    def record_execution(
        self, intent_id: str, execution: ProposalExecution, require_running: PauseCheck
    ) -> None:
        """Record the transaction that executes a proposal, before it is sent; not if
        `require_running` raises.
        """
        with self.db.write("record an execution") as db:
            require_running(read_pause(db))
            fact_key = EXECUTION_KEY_PREFIX + intent_id
            write_facts(db, {fact_key: codec.dumps(execution)})

    def execution(self, intent_id: str) -> ProposalExecution | None:
        """Return the newest transaction that executes a proposal; None if there is none."""
        with self.db.read("read an execution") as db:
            return decode_optional(
                ProposalExecution, find_fact(db, EXECUTION_KEY_PREFIX + intent_id)
            )


def _signatures_json(db: Connection, intent_id: str) -> dict[str, str]:
    signatures_json = fact_text(db, SIGNATURES_KEY_PREFIX + intent_id) or "{}"
    return dict(decode_json(dict[str, str], signatures_json))
