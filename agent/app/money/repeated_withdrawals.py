"""Whether a new withdrawal repeats one that is open or was requested just before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.errors import ErrorCode, Refused
from agent.model import OwnerRequest, Payment, RequestKind, RequestState
from agent.units import BPS

RECENT_S = 3_600
"""Seconds after its request and its end in which a paid withdrawal is still compared: a command that
was interrupted, or lost its answer, is repeated within them.
"""
SHARE_TOLERANCE_BPS = 500
"""Difference of an amount up to which payments of several assets are equal, because their amounts
follow from prices.
"""


def find_repeated(
    requests: Iterable[OwnerRequest],
    payments: Sequence[Payment],
    payout_address: str | None,
    now_s: int,
) -> OwnerRequest | None:
    """Return the newest request that pays the same to the same address, or sets it aside: an open
    one, or one paid that was requested or ended at most RECENT_S before the chain time `now_s`. None
    without one.
    """
    candidates = [
        request
        for request in requests
        if request.kind is RequestKind.WITHDRAW
        and (
            request.state is RequestState.OPEN
            or (
                request.state is RequestState.DONE
                and now_s - max(request.asked_s, request.ended_s or 0) <= RECENT_S
            )
        )
        and (payout_address is None or request.to in (None, payout_address))
        and _are_equal(request.payments, payments)
    ]
    return max(candidates, key=lambda request: request.id, default=None)


def _are_equal(earlier_payments: Sequence[Payment], payments: Sequence[Payment]) -> bool:
    earlier_raw = {(payment.token, payment.native): payment.raw for payment in earlier_payments}
    current_raw = {(payment.token, payment.native): payment.raw for payment in payments}
    if earlier_raw.keys() != current_raw.keys():
        return False
    tolerance_bps = SHARE_TOLERANCE_BPS if len(current_raw) > 1 else 0
    return all(
        abs(raw - earlier_raw[key]) * BPS <= earlier_raw[key] * tolerance_bps
        for key, raw in current_raw.items()
    )


def repeat_text(request: OwnerRequest | None) -> str:
    """Describe the withdrawal that is repeated; empty without one."""
    if request is None:
        return ""
    if request.state is RequestState.DONE:
        return f"withdrawal {request.id} has paid the same within the last hour"
    action_text = "sets aside" if request.to is None else "pays"
    return f"withdrawal {request.id} is open and {action_text} the same"


def repeat_refusal(request: OwnerRequest) -> Refused:
    """Return the refusal of a withdrawal that repeats this one, with the commands that continue it
    and that pay a second time.
    """
    remedy = "to withdraw a second time: the same with --again"
    if request.state is RequestState.OPEN:
        address_option = " --to ADDRESS" if request.to is None else ""
        remedy = f"to continue it: trimtab withdraw --resume {request.id}{address_option}; {remedy}"
    return Refused(repeat_text(request), remedy=remedy, code=ErrorCode.REPEATED_PAYMENT)
