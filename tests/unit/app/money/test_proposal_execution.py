"""The wait for the transaction that executes a proposal, of which an earlier one at its nonce may be mined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from agent import codec
from agent.app.cycles import ignore_progress
from agent.app.money.proposal_execution import await_receipt
from agent.errors import Retryable
from agent.execution.submission.submitter import Submitter
from agent.model import ProposalExecution
from agent.ports import TransactionStatus
from tests.support.text import raises_code
from tests.support.transactions import Bench, bench, receipt, tx

HASHES = ("0x03", "0x02", "0x01")
OWN = "0x0b"
BESIDE = "0x0a"
EXECUTION = ProposalExecution("0xe", tx(7), HASHES[0], HASHES[1:])


@pytest.fixture
def setup(tmp_path: Any) -> Bench:
    return bench(tmp_path)


def submitter_of(setup: Bench, status_of: Any) -> Submitter:
    setup.chain.status_of = status_of  # type: ignore[method-assign]
    return cast(Submitter, setup.executor()._submitter)


@pytest.mark.parametrize("mined", HASHES)
def test_receipt__is_that_of_whichever_was_mined(setup: Bench, mined: str) -> None:
    def status_of(tx_hash: str) -> TransactionStatus:
        is_mined = tx_hash == mined
        return TransactionStatus("mined" if is_mined else "unknown", receipt(mined, 7, "0x07") if is_mined else None)

    assert await_receipt(submitter_of(setup, status_of), EXECUTION, ignore_progress).tx_hash == mined


@pytest.mark.parametrize(
    ("own_status", "other_status", "reported"),
    [
        pytest.param(0, 1, BESIDE, id="other executed it, own reverted"),
        pytest.param(None, 1, BESIDE, id="other executed it, own is pending"),
        pytest.param(1, 0, OWN, id="own executed it, other reverted"),
        pytest.param(0, None, OWN, id="own reverted, other is pending"),
    ],
)
def test_receipt__is_that_of_the_account_that_executed(
    setup: Bench, own_status: int | None, other_status: int | None, reported: str
) -> None:
    status_by_hash = {OWN: own_status, BESIDE: other_status}

    def status_of(tx_hash: str) -> TransactionStatus:
        status = status_by_hash[tx_hash]
        mined = None if status is None else replace(receipt(tx_hash, 7, "0x07"), status=status)
        return TransactionStatus("pending" if status is None else "mined", mined)

    execution = ProposalExecution("0xb", tx(7), OWN, beside=(ProposalExecution("0xa", tx(3), BESIDE),))
    stored = codec.loads(ProposalExecution, codec.dumps(execution))
    assert await_receipt(submitter_of(setup, status_of), stored, ignore_progress).tx_hash == reported


def test_receipt__that_does_not_come_names_the_ways_out(setup: Bench) -> None:
    submitter = submitter_of(setup, lambda _: TransactionStatus("pending", None))
    with raises_code(Retryable, "not_mined", HASHES[0], "--key"):
        await_receipt(submitter, EXECUTION, ignore_progress)
