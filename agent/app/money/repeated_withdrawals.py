"""Whether a new withdrawal repeats one that is open or was requested just before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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
    paid_of_released: Mapping[int, Sequence[Payment]] | None = None,
) -> OwnerRequest | None:
    """Return the newest request that pays the same to the same address, or sets it aside: an open
    one, or one paid that was requested or ended at most RECENT_S before the chain time `now_s`; or a
    released one with one of these payments in `paid_of_released`, which has recent payments by number
    of the request. None without one.
    """
    released_payments = paid_of_released or {}
    candidates = [
        request
        for request in requests
        if request.kind is RequestKind.WITHDRAW
        and (payout_address is None or request.to in (None, payout_address))
        and (
            not {*released_payments.get(request.id, ())}.isdisjoint(payments)
            or (_is_compared(request, now_s) and _are_equal(request.payments, payments))
        )
    ]
    return max(candidates, key=lambda request: request.id, default=None)


def _is_compared(request: OwnerRequest, now_s: int) -> bool:
    is_recent = now_s - max(request.asked_s, request.ended_s or 0) <= RECENT_S
    return request.state is RequestState.OPEN or (request.state is RequestState.DONE and is_recent)


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


def repeat_text(request: OwnerRequest | None, paid_in: str = "") -> str:
    """Describe the withdrawal that is repeated; empty without one. `paid_in` is " in " and the
    transactions that paid it, if any.
    """
    if request is None:
        return ""
    if request.state is not RequestState.OPEN:
        released_text = ", since released," if request.state is RequestState.RELEASED else ""
        return f"withdrawal {request.id}{released_text} has paid the same within the last hour{paid_in}"
    action_text = "sets aside" if request.to is None else "pays"
    paid_text = f", already paid{paid_in}" if paid_in else ""
    return f"withdrawal {request.id} is open and {action_text} the same{paid_text}"


def repeat_refusal(request: OwnerRequest, paid_in: str = "") -> Refused:
    """Return the refusal of a withdrawal that repeats this one, with the commands that continue it
    and that pay a second time. `paid_in` as in `repeat_text`.
    """
    remedy = "to withdraw a second time: the same with --again"
    if request.state is RequestState.OPEN:
        address_option = " --to ADDRESS" if request.to is None else ""
        remedy = f"to continue it: trimtab withdraw --resume {request.id}{address_option}; {remedy}"
    message = repeat_text(request, paid_in)
    return Refused(message, remedy=remedy, code=ErrorCode.REPEATED_PAYMENT)
