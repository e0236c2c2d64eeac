"""Tests of agent/chain/screening/answers.py: what a trial and a call mean; a node that could not run them says nothing of the token."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.lens import uint_word
from agent.chain.rpc import RpcFault
from agent.chain.screening.answers import (
    RECORD_BYTES,
    RECORD_FORMAT,
    SHARE_ROUNDING_RAW,
    TransferOutcome,
    TrialRecord,
    decode_record,
    is_trial_answer,
    judge_trial,
    transfer_outcome,
)
from agent.errors import Retryable
from agent.model import TokenFinding
from tests.support.chain_reads.token_pages import FAIR, F, T, page

UNREAD = 2**256 - 1
RECORD = TrialRecord(3, 1, 2, 3, 4, T.ODD, 6, 7, T.FALSE, T.TRUE, 10, 11, 12)
OUTCOMES = ("transfer_outcome", "approve_outcome", "transfer_from_outcome")


# --- The record of a trial


@pytest.mark.parametrize("record", [RECORD, replace(RECORD, status=4)], ids=["each word", "highest status"])
def test_record_is_read_word_by_word(record: TrialRecord) -> None:
    assert len(page(record)) == 1 + RECORD_BYTES
    assert decode_record(page(record)) == record


@pytest.mark.parametrize(
    "page_bytes",
    [b"", page(RECORD)[:-1], page(RECORD) + b"\0", bytes([RECORD_FORMAT + 1]) + page(RECORD)[1:]],
    ids=["nothing", "one byte less", "one byte more", "another format"],
)
def test_record_of_another_form_is_malformed(page_bytes: bytes) -> None:
    with pytest.raises(Retryable, match="malformed"):
        decode_record(page_bytes)


@pytest.mark.parametrize("changes", [{"status": 5}, *({name: T.UNTRIED} for name in OUTCOMES)], ids=["status", *OUTCOMES])
def test_record_with_an_unknown_status_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Retryable, match="unknown status"):
        decode_record(page(replace(RECORD, **changes)))  # type: ignore[arg-type]  # field names


@given(st.binary(max_size=2 * RECORD_BYTES))
def test_record_of_random_bytes_is_refused(page_bytes: bytes) -> None:
    if len(page_bytes) == 1 + RECORD_BYTES and page_bytes[0] == RECORD_FORMAT:
        return
    with pytest.raises(Retryable, match="answer to the token screen is malformed"):
        decode_record(page_bytes)


WORDS = st.sampled_from((0, 1, 1_000)) | st.integers(0, 2**256 - 1)


@given(st.lists(WORDS, min_size=12, max_size=12), st.integers(0, 255))
def test_record_of_random_words_is_tradable_only_if_exact(words: list[int], status: int) -> None:
    page_bytes = bytes([RECORD_FORMAT, status]) + b"".join(map(uint_word, words))
    try:
        record = decode_record(page_bytes)
    except Retryable:
        return

    finding, _ = judge_trial(record)

    assert not finding.is_tradable or (
        record.arrived_raw == record.lent_raw == record.forwarded_raw and record.pool_balance_after == record.pool_balance_before
    )


@pytest.mark.parametrize(("status", "is_answer"), [(0, True), (1, True), (2, True), (3, True), (4, False)])
def test_trial_ran_unless_it_had_too_little_gas(status: int, is_answer: bool) -> None:
    assert is_trial_answer("0x" + page(replace(FAIR, status=status)).hex()) is is_answer


def test_trial_that_reverts_did_not_run() -> None:
    assert not is_trial_answer(RpcFault(3, "execution reverted"))


# --- The finding of a trial

FEE_RAW = SHARE_ROUNDING_RAW + 1
BALANCES = (
    "pool_balance_before",
    "arrived_raw",
    "pool_balance_after_loan",
    "forwarded_raw",
    "first_remainder",
    "pool_balance_after",
    "second_remainder",
)


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        pytest.param({}, F.CLEAN, id="exact"),
        *(pytest.param({name: T.SILENT}, F.NO_RETURN_VALUE, id=f"{name} silent") for name in OUTCOMES),
        pytest.param({"status": 1}, F.UNKNOWN, id="not lent"),
        pytest.param({"status": 2}, F.UNKNOWN, id="nothing to lend"),
        pytest.param({"status": 3}, F.UNREADABLE, id="pool's balance unread"),
        pytest.param({"status": 4}, F.UNKNOWN, id="too little gas"),
        *(pytest.param({name: UNREAD}, F.UNREADABLE, id=f"{name} unread") for name in BALANCES),
        *(pytest.param({name: T.FALSE}, F.FALSE_RETURNING, id=f"{name} false") for name in OUTCOMES),
        *(pytest.param({name: T.ODD}, F.FALSE_RETURNING, id=f"{name} odd") for name in OUTCOMES),
        *(pytest.param({name: T.FAILED}, F.HONEYPOT, id=f"{name} failed") for name in OUTCOMES),
        pytest.param({"transfer_outcome": T.FAILED, "transfer_from_outcome": T.FALSE}, F.FALSE_RETURNING, id="failed and false"),
        pytest.param({"hook_count": 1}, F.CALLBACK, id="hook"),
        pytest.param({"arrived_raw": 1_000 - FEE_RAW}, F.FEE_ON_TRANSFER, id="fee of the loan"),
        pytest.param({"forwarded_raw": 1_000 - FEE_RAW}, F.FEE_ON_TRANSFER, id="fee when forwarded"),
        pytest.param({"pool_balance_after": 50_000 - FEE_RAW}, F.FEE_ON_TRANSFER, id="fee of the sale"),
        pytest.param(
            {"arrived_raw": 950, "forwarded_raw": 950, "pool_balance_after": 49_950}, F.FEE_ON_TRANSFER, id="fee of the loan alone"
        ),
        pytest.param({"pool_balance_after": 47_000}, F.FEE_ON_TRANSFER, id="pool loses at the sale"),
        pytest.param({"forwarded_raw": 0, "pool_balance_after": 47_000}, F.FEE_ON_TRANSFER, id="pool loses, nothing forwarded"),
        pytest.param(
            {"arrived_raw": 0, "forwarded_raw": 0, "pool_balance_after": 47_000}, F.FEE_ON_TRANSFER, id="pool loses, nothing arrives"
        ),
        pytest.param({"arrived_raw": 1_000 - SHARE_ROUNDING_RAW}, F.REBASING, id="loan rounded"),
        pytest.param({"forwarded_raw": 999}, F.REBASING, id="forwarded rounded"),
        pytest.param({"arrived_raw": 999, "forwarded_raw": 998, "pool_balance_after": 49_998}, F.REBASING, id="rounded twice"),
        pytest.param({"arrived_raw": 1_001}, F.REBASING, id="more arrives"),
        pytest.param({"pool_balance_after": 50_001}, F.REBASING, id="pool ends with more"),
        pytest.param({"first_remainder": 1}, F.REBASING, id="first remainder"),
        pytest.param({"second_remainder": 1}, F.REBASING, id="second remainder"),
        pytest.param({"pool_balance_before": 50_001}, F.REBASING, id="pool pays more"),
        pytest.param({"pool_balance_before": 49_999}, F.REBASING, id="pool pays less"),
    ],
)
def test_trial_is_judged_by_every_answer_and_balance(changes: dict[str, object], finding: TokenFinding) -> None:
    trial_finding, detail = judge_trial(replace(FAIR, **changes))  # type: ignore[arg-type]  # field names

    assert trial_finding is finding
    assert bool(detail) is not finding.is_tradable


LARGE = replace(FAIR, lent_raw=30_001, arrived_raw=30_001, forwarded_raw=30_001, pool_balance_after_loan=19_999, pool_balance_after=50_000)


@pytest.mark.parametrize(
    ("record", "detail"),
    [
        pytest.param(
            replace(FAIR, arrived_raw=990), "of 1000 base units 990 arrive when a pool transfers it, 100 bps less", id="of the loan"
        ),
        pytest.param(
            replace(FAIR, forwarded_raw=997), "of 1000 base units 997 arrive when it is forwarded, 30 bps less", id="when forwarded"
        ),
        pytest.param(
            replace(LARGE, pool_balance_after=49_970),
            "of 30001 base units 29971 arrive when it is sold to a pool, 10 bps less",
            id="of the sale, rounded up",
        ),
    ],
)
def test_fee_on_transfer_is_named_in_basis_points(record: TrialRecord, detail: str) -> None:
    assert judge_trial(record) == (F.FEE_ON_TRANSFER, detail)


def test_pool_that_a_sale_takes_from_is_named_with_its_loss() -> None:
    _, detail = judge_trial(replace(FAIR, forwarded_raw=0, pool_balance_after=47_000))

    assert detail == "its pool holds 2000 base units less when it is sold to a pool"


@pytest.mark.parametrize("finding", TokenFinding)
def test_finding_has_a_remedy_if_it_shuts_a_token_out(finding: TokenFinding) -> None:
    assert finding.description
    assert bool(finding.remedy) is not finding.is_tradable


# --- A single call


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        pytest.param("0x", T.SILENT, id="no data"),
        pytest.param("0x" + uint_word(1).hex(), T.TRUE, id="true"),
        pytest.param("0x" + uint_word(0).hex(), T.FALSE, id="false"),
        pytest.param("0x" + uint_word(2).hex(), T.ODD, id="two"),
        pytest.param("0x01", T.ODD, id="one byte"),
        pytest.param("0x" + (uint_word(0) + uint_word(1)).hex(), T.ODD, id="two words"),
        pytest.param(RpcFault(3, "execution failed"), T.FAILED, id="code of geth"),
        pytest.param(RpcFault(-32015, "VM execution error."), T.FAILED, id="code of Nethermind"),
        pytest.param(RpcFault(-32000, "no", "0x08c379a0"), T.FAILED, id="data of a revert"),
    ],
)
def test_call_that_ran_has_an_outcome(answer: object, outcome: TransferOutcome) -> None:
    assert transfer_outcome(answer) is outcome


@pytest.mark.parametrize(
    "message",
    [
        "revert",
        "execution reverted: paused",
        "invalid opcode: INVALID",
        "out of gas",
        "Out Of Gas",
        "OutOfGas",
        "MemoryOOG",
        "MemoryLimitOOG",
        "PrecompileOOG",
        "InvalidOperandOOG",
        "invalid jump destination",
        "stack underflow (0 <=> 1)",
        "stack limit reached 1024 (1023)",
        "write protection",
        "return data out of bounds",
        "gas uint64 overflow",
        "EVM error: CreateContractSizeLimit",
    ],
)
def test_call_failed_by_the_words_of_each_node(message: str) -> None:
    assert transfer_outcome(RpcFault(-32000, message)) is T.FAILED


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(None, id="null"),
        pytest.param(7, id="a number"),
        pytest.param("<html>", id="a page"),
        pytest.param("0x0", id="half a byte"),
        pytest.param("0x" + "z" * 64, id="no hex"),
        *(
            pytest.param(fault, id=fault.message)
            for fault in (
                RpcFault(-32000, "EVM error: database error: header not found"),
                RpcFault(-32000, "header not found"),
                RpcFault(-32000, "missing trie node", "0x"),
                RpcFault(-32000, "unknown account"),
                RpcFault(-32603, "Internal error"),
                RpcFault(-32601, "the method eth_call does not exist"),
                RpcFault(-32000, "execution aborted (timeout = 5s)"),
                RpcFault(-32000, "goroutine stack exceeds its limit"),
                RpcFault(-32000, "quota of blockchain.googleapis.com exceeded"),
            )
        ),
    ],
)
def test_call_that_did_not_run_has_no_outcome(answer: object) -> None:
    assert transfer_outcome(answer) is None
