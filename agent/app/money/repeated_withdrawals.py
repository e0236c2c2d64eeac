"""Whether a new withdrawal repeats one that is open or was requested just before."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from agent.errors import ErrorCode, Refused
from agent.model import OwnerRequest, Payment, RequestKind, RequestState
from agent.units import BPS, DAY_S, format_time

RECENT_S = 3_600
"""Seconds after its request and its end in which a paid withdrawal is still compared: a command that
was interrupted, or lost its answer, is repeated within them.
"""
UNKNOWN_PAYMENT_S = 30 * DAY_S
"""Seconds in which a withdrawal is compared that an unknown transaction may have paid: the payouts of
the last 24 h are unknown too, so that it is often requested again a day later.
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
    pro_rata_raw: int = 0,
    released_by_adoption: Container[int] = (),
) -> OwnerRequest | None:
    """Return the newest request that pays the same to the same address, or sets it aside: an open
    one, or one paid that was requested or ended at most RECENT_S before the chain time `now_s`; or a
    released one with recent payments, which `paid_of_released` has by number of the request, if one
    is among these; or one of `released_by_adoption`, numbers of requests that an unknown transaction
    may have paid, within UNKNOWN_PAYMENT_S. Two shares of every asset, whose totals are
    `pro_rata_raw`, are the same only if the totals are. None without one.
    """

    def pays_same(request: OwnerRequest) -> bool:
        if pro_rata_raw and request.pro_rata_raw:
            return pro_rata_raw == request.pro_rata_raw
        return _are_equal(request.payments, payments)

    def is_compared(request: OwnerRequest) -> bool:
        past_s = now_s - max(request.asked_s, request.ended_s or 0)
        if request.state is RequestState.RELEASED:
            return past_s <= UNKNOWN_PAYMENT_S and request.id in released_by_adoption
        return request.state is RequestState.OPEN or past_s <= RECENT_S

    released_payments = paid_of_released or {}
    candidates = [
        request
        for request in requests
        if request.kind is RequestKind.WITHDRAW
        and (payout_address is None or request.to in (None, payout_address))
        and (
            not {*released_payments.get(request.id, ())}.isdisjoint(payments)
            or (is_compared(request) and pays_same(request))
            or (0 < pro_rata_raw == request.pro_rata_raw and released_payments.get(request.id))
        )
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


def paid_in_text(paid_hashes: Sequence[str]) -> str:
    """Return " in " and the transactions that paid a withdrawal; "" without one. `paid_hashes` has one
    for each payment, "" for an unpaid one.
    """
    hashes = [tx_hash for tx_hash in paid_hashes if tx_hash]
    return f" in {', '.join(hashes)}" if hashes else ""


def repeat_text(
    request: OwnerRequest,
    paid_hashes: Sequence[str] = (),
    paid_s: int | None = None,
    is_released_by_adoption: bool = False,
) -> str:
    """Describe the withdrawal that is repeated. `paid_hashes` as in `paid_in_text`; `paid_s` is when
    its newest payment was recorded, Unix seconds, None if unknown.
    """
    paid_in = paid_in_text(paid_hashes)
    is_partly_paid = bool(paid_in) and not all(paid_hashes)
    same_text = "part of the same" if is_partly_paid else "the same"
    if paid_in and paid_s is not None:
        paid_in += f", recorded {format_time(paid_s)}"
    if request.state is RequestState.OPEN:
        action_text = "sets aside" if request.to is None else "pays"
        paid_text = f", already {'partly ' * is_partly_paid}paid{paid_in}" if paid_in else ""
        return f"withdrawal {request.id} is open and {action_text} the same{paid_text}"
    if _may_be_paid_unknown(request, paid_hashes, is_released_by_adoption):
        known_text = f"has paid {same_text}{paid_in}, and may have paid the rest" if paid_in else ""
        return (
            f"withdrawal {request.id}, released when the nonce was adopted,"
            f" {known_text or 'may have paid the same'} in a transaction that this store does not know"
        )
    released_text = ", since released," if request.state is RequestState.RELEASED else ""
    return f"withdrawal {request.id}{released_text} has paid {same_text}{paid_in}"


def repeat_refusal(
    request: OwnerRequest,
    paid_hashes: Sequence[str] = (),
    paid_s: int | None = None,
    is_released_by_adoption: bool = False,
) -> Refused:
    """Return the refusal of a withdrawal that repeats this one, with the commands that continue it
    and that pay a second time. Arguments as in `repeat_text`.
    """
    remedy = "to withdraw a second time: the same with --again"
    if _may_be_paid_unknown(request, paid_hashes, is_released_by_adoption):
        remedy = f"look for it in a block explorer; {remedy}"
    if request.state is RequestState.OPEN:
        address_option = " --to ADDRESS" if request.to is None else ""
        remedy = f"to continue it: trimtab withdraw --resume {request.id}{address_option}; {remedy}"
    message = repeat_text(request, paid_hashes, paid_s, is_released_by_adoption)
    return Refused(message, remedy=remedy, code=ErrorCode.REPEATED_PAYMENT)


def _may_be_paid_unknown(
    request: OwnerRequest, paid_hashes: Sequence[str], is_released_by_adoption: bool
) -> bool:
    """Return whether a transaction that the store does not know may have paid an unpaid part."""
    is_released = is_released_by_adoption and request.state is RequestState.RELEASED
    return is_released and not all(paid_hashes)
