"""The wait for the transaction that executes a proposal, of which an earlier one at its nonce may be mined."""

from __future__ import annotations

from typing import Any, cast

import pytest

from agent.app.cycles import ignore_progress
from agent.app.money.proposal_execution import await_receipt
from agent.errors import Retryable
from agent.execution.submission.submitter import Submitter
from agent.model import ProposalExecution
from agent.ports import TransactionStatus
from tests.support.text import raises_code
from tests.support.transactions import Bench, bench, receipt, tx

HASHES = ("0x03", "0x02", "0x01")
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


def test_receipt__that_does_not_come_names_the_ways_out(setup: Bench) -> None:
    submitter = submitter_of(setup, lambda _: TransactionStatus("pending", None))
    with raises_code(Retryable, "not_mined", HASHES[0], "--key"):
        await_receipt(submitter, EXECUTION, ignore_progress)
