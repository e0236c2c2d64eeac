"""Which intents were shown to somebody who signs elsewhere, since which block, and the folder in which they lie for him."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.errors import OperatorNeeded
from agent.store import meta
from agent.store.accounts import Accounts
from agent.store.alerts import Alerts
from agent.store.allocations import Allocations
from agent.store.bookkeeping import Bookkeeping
from agent.store.campaigns import Campaigns
from agent.store.orders import StandingOrders
from agent.store.prices import Prices
from agent.store.requests import Requests
from agent.store.sleeves import Sleeves
from agent.store.versions import Versions

PREFIX = "proposal:"


class Proposals(Accounts, Alerts, Allocations, Bookkeeping, Campaigns, Prices, Requests, Sleeves, StandingOrders, Versions):
    """Implements ports.ProposalBook in the facts of the store."""

    def mark_proposed(self, intent_id: str, since_block: int) -> None:
        """Remembers that an intent is shown from that block on."""
        with self._write("write a proposal down") as db:
            meta.write(db, {PREFIX + intent_id: since_block})

    def proposed(self) -> dict[str, int]:
        """Since which block each was shown, by the id of its intent; those that were given up too."""
        with self._read("read the proposals") as db:
            return {key.removeprefix(PREFIX): int(value) for key, value in meta.beginning(db, PREFIX)}


@dataclass(frozen=True, slots=True)
class FileOutbox:
    """ports.Outbox: one file for each proposal, for its owner's eyes alone."""

    folder: Path

    def put(self, name: str, text: str) -> str:
        """See ports.Outbox; a file that is there whole is left as it is."""
        path, draft = self._path(name), self.folder / f".{name}.{secrets.token_hex(6)}.draft"
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            if path.exists() and path.read_bytes() == text.encode():
                return str(path)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            raise OperatorNeeded(
                f"the proposal {path} cannot be written ({error.strerror})", "make room there, then run it again"
            ) from None
        finally:
            with suppress(OSError):
                draft.unlink()
        return str(path)

    def take_back(self, name: str) -> None:
        """See ports.Outbox."""
        with suppress(OSError):
            self._path(name).unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"
