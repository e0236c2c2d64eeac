"""What a try of a token means: every way in which balances and answers may differ from what was moved has its name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.rpc import RpcFault
from agent.chain.screening.answers import RECORD_BYTES, TransferOutcome, TrialRecord, decode_record, judge_trial, transfer_outcome
from agent.errors import Retryable
from agent.model import TokenFinding

RAW = 10**18
GOOD = TrialRecord(0, RAW, 10 * RAW, RAW, 9 * RAW, TransferOutcome.TRUE, RAW, 0, TransferOutcome.TRUE, TransferOutcome.TRUE, 10 * RAW, 0, 0)
UNREAD = 2**256 - 1


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({}, TokenFinding.CLEAN),
        ({"transfer_outcome": TransferOutcome.SILENT, "transfer_from_outcome": TransferOutcome.SILENT}, TokenFinding.NO_RETURN_VALUE),
        ({"approve_outcome": TransferOutcome.SILENT}, TokenFinding.NO_RETURN_VALUE),
        (
            {"arrived_raw": RAW * 95 // 100, "forwarded_raw": RAW * 95 // 100, "pool_balance_after": 9 * RAW + RAW * 95 // 100},
            TokenFinding.FEE_ON_TRANSFER,
        ),
        ({"forwarded_raw": RAW - 3, "pool_balance_after": 10 * RAW - 3}, TokenFinding.FEE_ON_TRANSFER),
        ({"pool_balance_after": 9 * RAW + RAW // 2}, TokenFinding.FEE_ON_TRANSFER),
        ({"forwarded_raw": 0, "pool_balance_after": 7 * RAW}, TokenFinding.FEE_ON_TRANSFER),
        ({"arrived_raw": 0, "forwarded_raw": 0, "pool_balance_after": 7 * RAW}, TokenFinding.FEE_ON_TRANSFER),
        ({"pool_balance_after": 7 * RAW}, TokenFinding.FEE_ON_TRANSFER),
        ({"arrived_raw": RAW - 1, "forwarded_raw": RAW - 2, "pool_balance_after": 10 * RAW - 2}, TokenFinding.REBASING),
        ({"arrived_raw": RAW + 5, "forwarded_raw": RAW + 5, "pool_balance_after": 10 * RAW + 5}, TokenFinding.REBASING),
        ({"first_remainder": 1}, TokenFinding.REBASING),
        ({"second_remainder": 7}, TokenFinding.REBASING),
        ({"pool_balance_after_loan": 9 * RAW + 1, "pool_balance_after": 10 * RAW + 1}, TokenFinding.REBASING),
        ({"transfer_outcome": TransferOutcome.FALSE}, TokenFinding.FALSE_RETURNING),
        ({"transfer_from_outcome": TransferOutcome.ODD}, TokenFinding.FALSE_RETURNING),
        ({"approve_outcome": TransferOutcome.FALSE}, TokenFinding.FALSE_RETURNING),
        ({"transfer_outcome": TransferOutcome.FAILED, "forwarded_raw": 0}, TokenFinding.HONEYPOT),
        ({"transfer_from_outcome": TransferOutcome.FAILED, "pool_balance_after": 9 * RAW}, TokenFinding.HONEYPOT),
        ({"approve_outcome": TransferOutcome.FAILED}, TokenFinding.HONEYPOT),
        ({"hook_count": 1}, TokenFinding.CALLBACK),
        ({"arrived_raw": UNREAD}, TokenFinding.UNREADABLE),
        ({"pool_balance_after": UNREAD}, TokenFinding.UNREADABLE),
        ({"status": 1}, TokenFinding.UNKNOWN),
        ({"status": 2}, TokenFinding.UNKNOWN),
        ({"status": 3}, TokenFinding.UNREADABLE),
        ({"status": 4}, TokenFinding.UNKNOWN),
    ],
)
def test_a_try_has_one_finding(changes: dict[str, object], finding: TokenFinding) -> None:
    judged, detail = judge_trial(replace(GOOD, **changes))  # type: ignore[arg-type]  # names of fields, checked by replace
    assert judged is finding
    assert bool(detail) != judged.is_tradable


WORDS = st.sampled_from((0, 1, 1_000)) | st.integers(0, 2**256 - 1)


@given(st.lists(WORDS, min_size=12, max_size=12), st.integers(0, 255))
def test_node_answer__ends_in_a_finding_or_retryable(words: list[int], status: int) -> None:
    page = bytes([1, status]) + b"".join(word.to_bytes(32, "big") for word in words)
    try:
        record = decode_record(page)
    except Retryable:
        return
    finding, _ = judge_trial(record)
    assert not finding.is_tradable or (
        record.arrived_raw == record.lent_raw == record.forwarded_raw and record.pool_balance_after == record.pool_balance_before
    )


def test_loss_of_a_pool_that_a_sale_takes_from__is_named() -> None:
    _, detail = judge_trial(replace(GOOD, forwarded_raw=0, pool_balance_after=7 * RAW))
    assert detail == f"its pool holds {2 * RAW} base units less when it is sold to a pool"


@given(st.binary(max_size=2 * RECORD_BYTES))
def test_bytes_that_are_no_answer_are_refused(page: bytes) -> None:
    if len(page) == 1 + RECORD_BYTES and page[0] == 1:
        return
    with pytest.raises(Retryable):
        decode_record(page)


@pytest.mark.parametrize(
    ("answer", "means"),
    [
        ("0x", TransferOutcome.SILENT),
        ("0x" + "0" * 63 + "1", TransferOutcome.TRUE),
        ("0x" + "0" * 64, TransferOutcome.FALSE),
        ("0x" + "0" * 63 + "2", TransferOutcome.ODD),
        ("0x01", TransferOutcome.ODD),
        (None, None),
        ("0x" + "z" * 64, None),
        (RpcFault(3, "execution reverted"), TransferOutcome.FAILED),
        (RpcFault(-32000, "execution reverted: paused"), TransferOutcome.FAILED),
        (RpcFault(-32000, "invalid opcode: INVALID"), TransferOutcome.FAILED),
        (RpcFault(-32015, "VM execution error.", "0x08c379a0"), TransferOutcome.FAILED),
        (RpcFault(-32601, "the method is not available"), None),
        (RpcFault(-32000, "unknown account"), None),
    ],
)
def test_single_call_s_answer__differs_from_a_node_that_cannot(answer: object, means: TransferOutcome | None) -> None:
    assert transfer_outcome(answer) is means


def test_finding_that_shuts_a_token_out__says_what_to_do() -> None:
    for finding in TokenFinding:
        assert finding.description
        assert bool(finding.remedy) != finding.is_tradable
