"""Ports to venues of perpetual futures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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
    UnsignedTx,
)
from agent.ports.execution import Grant, Signer


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


@runtime_checkable
class OrderSigner(Signer, Protocol):
    """Signer of orders at an off-chain venue."""

    def require_signable(self, tx: UnsignedTx, grant: Grant) -> str:
        """Return the client order id of an order that the rules allow. Raises Refused."""

    def sign_orders(self, orders: Sequence[tuple[UnsignedTx, Grant]]) -> SignedTx:
        """Return one signed action of all orders, with the nonce and expiry of the first. Raises
        Refused with the failed rule.
        """


@runtime_checkable
class OrderVenue(PerpVenue, Protocol):
    """An off-chain venue, which accepts each signed order once, by the order's nonce, and takes
    several orders in one action, each with a client order id of its own.
    """

    def draft_companion(
        self, account: MarginAccount, order: PerpOrder, first_draft: PerpActionDraft, number: int
    ) -> PerpActionDraft:
        """Return order `number` (from 1) of an action that begins with `first_draft`: it has the
        same expiry and a nonce of its own, by which its client order id is derived. Raises Refused
        for an order that the venue would always reject.
        """

    def post_orders(self, signed: SignedTx, count: int) -> Sequence[str]:
        """Post an action of `count` orders, once. Return the venue's reason for each order that it
        rejected, or whose signer it does not know, else an empty text. Raises Retryable if orders may have been executed.
        """

    def read_promptly(self, snapshot: Snapshot) -> Snapshot:
        """Return what `read` returns, without a wait for a venue that limits or fails requests:
        what would have to wait is left out, and the account unknown if it is needed for that.
        """

    @property
    def has_left_out_reads(self) -> bool:
        """True if the last reading left out something because the venue limits or fails requests."""

    def wait_for_budget(self) -> None:
        """Wait until the venue's budget of requests allows a whole reading."""

    def require_approved_key(self, until_s: int, *, is_reduction: bool = False) -> None:
        """Raise Refused with the code `agent_key` unless the key may trade for the account until
        `until_s`. For a reduction, a resting stop or a cancel the last known approval is enough.
        """
