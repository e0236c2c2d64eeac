"""Port of a futures venue: the margin account, quotes, orders, and what became of an order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agent.model import Intent, Receipt, SignedTx, Snapshot
from agent.model.futures import FuturesAction, MarginAccount, PerpOrder, PerpQuote


@dataclass(frozen=True, slots=True)
class PerpOrderDraft:
    """An order, or a move of margin, as its venue takes it. `data` is 0x-hex: calldata, or the action that is signed.

    `nonce` is the venue's own; None for the wallet's next one on the chain. After `deadline_s` the
    venue does not take the order.
    """

    to: str
    data: str
    deadline_s: int
    nonce: int | None = None


class PerpVenue(Protocol):
    """A venue of perpetual futures."""

    def read(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with the margin account, or with the reason why it is not known."""

    def quote(self, account: MarginAccount, order: PerpOrder) -> PerpQuote:
        """Return what the order would exchange now within its bound; a part of its size if the
        venue fills orders in part. Raises Refused if nothing would fill, Retryable.
        """

    def draft(self, account: MarginAccount, action: FuturesAction, now_s: int) -> PerpOrderDraft:
        """Return an order, or a move of margin, as the venue takes it, valid from chain time `now_s`.
        Raises Refused for one that the venue does not have or turns down whenever it arrives.
        """

    def outcome(self, intent: Intent) -> Receipt | None:
        """Return the receipt of a sent order with its fills; None while its outcome is open. Raises
        Retryable.
        """


class OrderVenue(PerpVenue, Protocol):
    """A venue beside the chain: it takes each signed order by its own nonce, once."""

    def require_agent(self, until_s: int) -> None:
        """Raise Refused with the code `agent_key` unless the key may trade for the account until
        then.
        """

    def post(self, signed: SignedTx) -> str:
        """Post a signed order, once. Return the venue's reason if it judged and turned it down,
        or does not know its signer, else an empty text. Raises Retryable without an answer.
        """
