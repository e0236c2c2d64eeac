"""What a try of a token means: every way in which balances and answers may differ from what was moved has its name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.screening import RECORD_BYTES, Answered, Record, answered, records, tried
from agent.chain.wire import RpcFault
from agent.errors import Retryable
from agent.model import Finding

RAW = 10**18
GOOD = Record(0, RAW, 10 * RAW, RAW, 9 * RAW, Answered.TRUE, RAW, 0, Answered.TRUE, Answered.TRUE, 10 * RAW, 0, 0)
UNREAD = 2**256 - 1


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({}, Finding.CLEAN),
        ({"transfer": Answered.SILENT, "transfer_from": Answered.SILENT}, Finding.NO_RETURN_VALUE),
        ({"approve": Answered.SILENT}, Finding.NO_RETURN_VALUE),
        ({"came": RAW * 95 // 100, "passed_on": RAW * 95 // 100, "pool_after": 9 * RAW + RAW * 95 // 100}, Finding.FEE_ON_TRANSFER),
        ({"passed_on": RAW - 3, "pool_after": 10 * RAW - 3}, Finding.FEE_ON_TRANSFER),
        ({"pool_after": 9 * RAW + RAW // 2}, Finding.FEE_ON_TRANSFER),
        ({"came": RAW - 1, "passed_on": RAW - 2, "pool_after": 10 * RAW - 2}, Finding.REBASING),
        ({"came": RAW + 5, "passed_on": RAW + 5, "pool_after": 10 * RAW + 5}, Finding.REBASING),
        ({"kept": 1}, Finding.REBASING),
        ({"left": 7}, Finding.REBASING),
        ({"pool_lent": 9 * RAW + 1, "pool_after": 10 * RAW + 1}, Finding.REBASING),
        ({"transfer": Answered.FALSE}, Finding.FALSE_RETURNING),
        ({"transfer_from": Answered.ODD}, Finding.FALSE_RETURNING),
        ({"approve": Answered.FALSE}, Finding.FALSE_RETURNING),
        ({"transfer": Answered.FAILED, "passed_on": 0}, Finding.HONEYPOT),
        ({"transfer_from": Answered.FAILED, "pool_after": 9 * RAW}, Finding.HONEYPOT),
        ({"approve": Answered.FAILED}, Finding.HONEYPOT),
        ({"hooks": 1}, Finding.CALLBACK),
        ({"came": UNREAD}, Finding.UNREADABLE),
        ({"pool_after": UNREAD}, Finding.UNREADABLE),
        ({"status": 1}, Finding.UNKNOWN),
        ({"status": 2}, Finding.UNKNOWN),
        ({"status": 3}, Finding.UNREADABLE),
        ({"status": 4}, Finding.UNKNOWN),
    ],
)
def test_a_try_has_one_finding(changes: dict[str, object], finding: Finding) -> None:
    found, detail = tried(replace(GOOD, **changes))  # type: ignore[arg-type]  # names of fields, checked by replace
    assert found is finding
    assert bool(detail) != found.accepted


@given(st.lists(st.integers(0, 2**256 - 1), min_size=12, max_size=12), st.integers(0, 255))
def test_no_answer_of_a_node_ends_in_anything_but_a_finding_or_retryable(words: list[int], status: int) -> None:
    page = bytes([1, status]) + b"".join(word.to_bytes(32, "big") for word in words)
    try:
        (record,) = records(page, 1)
    except Retryable:
        return
    found, _ = tried(record)
    assert not found.accepted or (record.came == record.lent == record.passed_on and record.pool_after == record.pool_before)


@given(st.binary(max_size=2 * RECORD_BYTES))
def test_bytes_that_are_no_answer_are_refused(page: bytes) -> None:
    if len(page) == 1 + RECORD_BYTES and page[0] == 1:
        return
    with pytest.raises(Retryable):
        records(page, 1)


@pytest.mark.parametrize(
    ("answer", "means"),
    [
        ("0x", Answered.SILENT),
        ("0x" + "0" * 63 + "1", Answered.TRUE),
        ("0x" + "0" * 64, Answered.FALSE),
        ("0x" + "0" * 63 + "2", Answered.ODD),
        ("0x01", Answered.ODD),
        (None, Answered.ODD),
        ("0x" + "z" * 64, Answered.ODD),
        (RpcFault(3, "execution reverted"), Answered.FAILED),
        (RpcFault(-32000, "execution reverted: paused"), Answered.FAILED),
        (RpcFault(-32000, "invalid opcode: INVALID"), Answered.FAILED),
        (RpcFault(-32015, "VM execution error.", "0x08c379a0"), Answered.FAILED),
        (RpcFault(-32601, "the method is not available"), None),
        (RpcFault(-32000, "unknown account"), None),
    ],
)
def test_an_answer_to_a_single_call_is_told_apart_from_a_node_that_cannot_run_it(answer: object, means: Answered | None) -> None:
    assert answered(answer) is means


def test_every_finding_that_shuts_a_token_out_says_what_can_be_done() -> None:
    for finding in Finding:
        assert finding.words
        assert bool(finding.remedy) != finding.accepted
