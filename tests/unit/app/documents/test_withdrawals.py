"""Documents of withdrawals: what is set aside, and how far a withdrawal in parts is."""

from __future__ import annotations

from agent.app.documents import fill
from agent.app.documents.owner import WithdrawalRequestDocument
from agent.app.documents.status import ReservedPaymentDocument
from agent.model.transactions import OwnerRequest, Payment, PendingPayment, RequestKind, RequestState, WithdrawalProgress
from tests.support.builders import step_input, token

PAYMENT = Payment(token("USDC").address, 700)


def test_a_payment_that_is_set_aside_names_its_withdrawal() -> None:
    document = fill(ReservedPaymentDocument, PendingPayment(7, PAYMENT), step_input(values={"WETH": 5_000, "USDC": 5_000}).portfolio)
    assert document == {"withdrawal": 7, "symbol": "USDC", "raw": "700"}


def test_withdrawal_in_parts__shows_how_many_and_the_next() -> None:
    request = OwnerRequest(7, RequestKind.WITHDRAW, (PAYMENT,), None, False, RequestState.OPEN, 90, WithdrawalProgress(3, 1, 1_000, 9_000))
    document = fill(WithdrawalRequestDocument, request, step_input(values={"WETH": 5_000, "USDC": 5_000}).portfolio, payments=[])
    parts = document["parts"]
    assert parts is not None
    assert {key: parts[key] for key in ("count", "done", "next_s", "until_s")} == {"count": 3, "done": 1, "next_s": 1_000, "until_s": 9_000}  # type: ignore[literal-required]
    assert parts["text"].startswith("1 of about 3 parts raised")
    assert (
        fill(WithdrawalRequestDocument, OwnerRequest(7, RequestKind.WITHDRAW, (), None, False, RequestState.OPEN, 90), payments=[])["parts"]
        is None
    )
