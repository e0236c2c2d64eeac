"""A withdrawal that repeats another: the same payment, open or just paid, by whichever address or way it was requested."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.app.money.repeated_withdrawals import RECENT_S, UNKNOWN_PAYMENT_S, find_repeated, repeat_refusal
from agent.model import OwnerRequest, Payment, RequestKind, RequestState
from tests.support.text import mentions

USDC = "0x" + "a" * 40
WETH = "0x" + "b" * 40
HOME = "0x" + "1" * 40
OTHER = "0x" + "2" * 40
NOW_S = 1_000_000
PAID = (Payment(USDC, 500),)
SHARES = (Payment(USDC, 10_000), Payment(WETH, 2_000))


def request(
    payments: tuple[Payment, ...] = PAID,
    to: str | None = HOME,
    state: RequestState = RequestState.OPEN,
    asked_s: int = 5,
    ended_s: int | None = None,
) -> OwnerRequest:
    return OwnerRequest(3, RequestKind.WITHDRAW, payments, to, False, state, asked_s, ended_s=ended_s)


REPEATS = {
    "open since long": (request(), PAID, HOME),
    "paid within the hour": (request(state=RequestState.DONE, asked_s=NOW_S - RECENT_S), PAID, HOME),
    "raised over hours, paid within the hour": (request(state=RequestState.DONE, ended_s=NOW_S - RECENT_S), PAID, HOME),
    "set aside, now paid": (request(to=None), PAID, HOME),
    "paid, now set aside as well": (request(), PAID, None),
    "set aside twice": (request(to=None), PAID, None),
    "native coin": (request((Payment(WETH, 7, native=True),)), (Payment(WETH, 7, native=True),), HOME),
    "shares at moved prices": (request(SHARES), (Payment(USDC, 10_500), Payment(WETH, 1_900)), HOME),
    "shares in another order": (request(SHARES), SHARES[::-1], HOME),
}
NEW = {
    "paid an hour ago": (request(state=RequestState.DONE, asked_s=NOW_S - RECENT_S - 1), PAID, HOME),
    "raised over hours, paid an hour ago": (request(state=RequestState.DONE, ended_s=NOW_S - RECENT_S - 1), PAID, HOME),
    "released": (request(state=RequestState.RELEASED), PAID, HOME),
    "one base unit more": (request(), (Payment(USDC, 501),), HOME),
    "another asset": (request(), (Payment(WETH, 500),), HOME),
    "the coin in place of its token": (request((Payment(WETH, 7),)), (Payment(WETH, 7, native=True),), HOME),
    "another address": (request(), PAID, OTHER),
    "one asset more": (request(), (*PAID, Payment(WETH, 1)), HOME),
    "shares beyond the tolerance": (request(SHARES), (Payment(USDC, 10_501), Payment(WETH, 2_000)), HOME),
}


@pytest.mark.parametrize("case", REPEATS)
def test_find_repeated__returns_an_equal_withdrawal(case: str) -> None:
    earlier, payments, to = REPEATS[case]
    assert find_repeated([earlier], payments, to, NOW_S) == earlier


@pytest.mark.parametrize("case", NEW)
def test_find_repeated__is_none_for_another_withdrawal(case: str) -> None:
    earlier, payments, to = NEW[case]
    assert find_repeated([earlier], payments, to, NOW_S) is None


@pytest.mark.parametrize(
    ("paid", "to", "is_repeated"),
    [
        pytest.param(SHARES[:1], HOME, True, id="one share was paid"),
        pytest.param(SHARES[:1], None, True, id="to set it aside"),
        pytest.param(SHARES[:1], OTHER, False, id="to another address"),
        pytest.param((Payment(USDC, 9_999),), HOME, False, id="one base unit less was paid"),
        pytest.param((), HOME, False, id="nothing was paid"),
    ],
)
def test_find_repeated__compares_what_a_released_withdrawal_paid(paid: tuple[Payment, ...], to: str | None, is_repeated: bool) -> None:
    released = request(SHARES, state=RequestState.RELEASED)
    assert (find_repeated([released], SHARES, to, NOW_S, {3: paid}) == released) is is_repeated


@pytest.mark.parametrize(
    ("state", "asked_s", "paid", "total_raw", "is_repeated"),
    [
        pytest.param(RequestState.OPEN, 5, (), 1_000, True, id="open"),
        pytest.param(RequestState.DONE, NOW_S - RECENT_S, (), 1_000, True, id="paid within the hour"),
        pytest.param(RequestState.DONE, NOW_S - RECENT_S - 1, (), 1_000, False, id="paid an hour ago"),
        pytest.param(RequestState.RELEASED, 5, SHARES[:1], 1_000, True, id="released, one share paid"),
        pytest.param(RequestState.RELEASED, 5, (), 1_000, False, id="released, nothing paid"),
        pytest.param(RequestState.OPEN, 5, (), 1_001, False, id="one base unit more in total"),
        pytest.param(RequestState.OPEN, 5, (), 0, False, id="of one asset"),
    ],
)
def test_find_repeated__compares_the_total_of_shares_whose_prices_moved(
    state: RequestState, asked_s: int, paid: tuple[Payment, ...], total_raw: int, is_repeated: bool
) -> None:
    earlier = replace(request(SHARES, state=state, asked_s=asked_s), pro_rata_raw=1_000)
    payments = (Payment(USDC, 12_000), Payment(WETH, 1_500))
    repeated = find_repeated([earlier], payments, HOME, NOW_S, {3: paid}, total_raw)
    assert (repeated == earlier) is is_repeated
    assert find_repeated([earlier], payments, OTHER, NOW_S, {3: paid}, total_raw) is None


@pytest.mark.parametrize(
    ("earlier_raw", "total_raw", "is_repeated"),
    [
        pytest.param(1_000, 1_040, False, id="another total"),
        pytest.param(1_000, 1_000, True, id="same total"),
        pytest.param(0, 1_040, True, id="earlier total unknown"),
    ],
)
def test_find_repeated__tells_two_totals_apart_within_the_tolerance(earlier_raw: int, total_raw: int, is_repeated: bool) -> None:
    """Amounts of shares, 4 % apart, are otherwise the same at prices that moved."""
    earlier = replace(request(SHARES), pro_rata_raw=earlier_raw)
    payments = tuple(replace(payment, raw=payment.raw * 104 // 100) for payment in SHARES)
    assert (find_repeated([earlier], payments, HOME, NOW_S, pro_rata_raw=total_raw) == earlier) is is_repeated


@pytest.mark.parametrize(
    ("age_s", "payments", "is_repeated"),
    [
        pytest.param(0, PAID, True, id="released just before"),
        pytest.param(UNKNOWN_PAYMENT_S, PAID, True, id="released a month ago"),
        pytest.param(UNKNOWN_PAYMENT_S + 1, PAID, False, id="released before"),
        pytest.param(0, (Payment(USDC, 501),), False, id="another amount"),
    ],
)
def test_find_repeated__compares_what_an_unknown_transaction_may_have_paid(
    age_s: int, payments: tuple[Payment, ...], is_repeated: bool
) -> None:
    earlier = request(state=RequestState.RELEASED, ended_s=NOW_S)
    assert (find_repeated([earlier], payments, HOME, NOW_S + age_s, released_by_adoption={3}) == earlier) is is_repeated
    assert find_repeated([earlier], payments, HOME, NOW_S + age_s, released_by_adoption={4}) is None


def test_refusal__says_that_an_unknown_payment_is_to_be_looked_for() -> None:
    released = request(state=RequestState.RELEASED)
    adopted = "withdrawal 3, released when the nonce was adopted,"
    assert mentions(str(repeat_refusal(released, ("",), None, True)), adopted, "may have paid the same", "block explorer", "--again")
    partly_paid_text = str(repeat_refusal(released, ("0x1", ""), 86_400, True))
    assert mentions(partly_paid_text, f"{adopted} has paid part of the same in 0x1, recorded 1970-01-02", "may have paid the rest")
    assert mentions(partly_paid_text, "block explorer", "--again")


@pytest.mark.parametrize(
    ("state", "hashes", "is_released_by_adoption", "text"),
    [
        pytest.param(
            RequestState.DONE, ("0x1",), False, "withdrawal 3 has paid the same in 0x1, recorded 1970-01-02 00:00:00 UTC", id="paid"
        ),
        pytest.param(
            RequestState.RELEASED, ("0x1", ""), False, "3, since released, has paid part of the same in 0x1, recorded", id="partly paid"
        ),
        pytest.param(RequestState.RELEASED, ("0x1",), True, "3, since released, has paid the same in 0x1, recorded", id="paid, adopted"),
        pytest.param(RequestState.OPEN, ("0x1", ""), False, "3 is open and pays the same, already partly paid in 0x1, recorded", id="open"),
    ],
)
def test_refusal__dates_a_payment_and_looks_for_no_other(
    state: RequestState, hashes: tuple[str, ...], is_released_by_adoption: bool, text: str
) -> None:
    refusal = str(repeat_refusal(request(state=state), hashes, 86_400, is_released_by_adoption))
    assert text in refusal
    assert "hour" not in refusal
    assert "explorer" not in refusal


def test_find_repeated__ignores_a_stop() -> None:
    stop = OwnerRequest(3, RequestKind.STOP, PAID, HOME, True, RequestState.OPEN, 5)
    assert find_repeated([stop], PAID, HOME, NOW_S) is None


def test_refusal__names_the_command_that_continues() -> None:
    assert "--resume 3;" in str(repeat_refusal(request()))
    assert "--resume 3 --to ADDRESS" in str(repeat_refusal(request(to=None)))
    assert "--resume" not in str(repeat_refusal(request(state=RequestState.DONE)))
