"""Ports to venues of perpetual futures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agent.model import (
    FuturesAction,
    FuturesGrant,
    Intent,
    MarginAccount,
    PerpOrder,
    PerpQuote,
    Receipt,
    SignedTx,
    Snapshot,
)
from agent.ports.execution import Grant


def futures_grant(grant: Grant) -> FuturesGrant | None:
    """Return what a grant permits in futures; None if nothing."""
    return grant.layer_grant if isinstance(grant.layer_grant, FuturesGrant) else None


def granted_action(grant: Grant) -> FuturesAction | None:
    """Return the futures action that a grant permits; None if none."""
    permission = futures_grant(grant)
    return None if permission is None else permission.action


@dataclass(frozen=True, slots=True)
class PerpActionDraft:
    """An order or margin move in the form of its venue. `data` is 0x-hex: calldata, or the action
    to sign. `nonce` is the venue's nonce (None: the wallet's next nonce on the chain). The venue
    rejects the order after `deadline_s`.
    """

    to: str
    data: str
    deadline_s: int
    nonce: int | None = None


class PerpVenue(Protocol):
    """A venue of perpetual futures."""

    def read(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with the margin account, or with the reason why it is unknown."""

    def quote(self, account: MarginAccount, order: PerpOrder) -> PerpQuote:
        """Return the amounts that the order would exchange now within its bound, for a part of its
        size if the venue fills orders partially. Raises Refused if nothing would fill, Retryable if
        the venue does not answer.
        """

    def draft(self, account: MarginAccount, action: FuturesAction, now_s: int) -> PerpActionDraft:
        """Return an order or margin move in the venue's form, valid from chain time `now_s`. Raises
        Refused if the venue does not support it or would always reject it.
        """

    def outcome(self, intent: Intent) -> Receipt | None:
        """Return the receipt of a sent order with its fills; None while its outcome is open. Raises
        Retryable.
        """


class OrderVenue(PerpVenue, Protocol):
    """An off-chain venue, which accepts each signed order once, by the order's nonce."""

    def require_approved_key(self, until_s: int) -> None:
        """Raise Refused with the code `agent_key` unless the key may trade for the account until
        `until_s`.
        """

    def post(self, signed: SignedTx) -> str:
        """Post a signed order, once. Return the venue's reason if it rejected the order or does not
        know the signer, else an empty text. Raises Retryable if the order may have been executed.
        """
