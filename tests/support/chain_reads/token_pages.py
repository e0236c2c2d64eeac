"""Answers of a token screen."""

from __future__ import annotations

from agent.chain.lens import uint_word
from agent.chain.screening.answers import RECORD_FORMAT, TransferOutcome, TrialRecord
from agent.model import TokenFinding

F = TokenFinding
T = TransferOutcome
FAIR = TrialRecord(0, 1_000, 50_000, 1_000, 49_000, T.TRUE, 1_000, 0, T.TRUE, T.TRUE, 50_000, 0, 0)


def page(record: TrialRecord) -> bytes:
    words = (
        record.lent_raw, record.pool_balance_before, record.arrived_raw, record.pool_balance_after_loan,
        record.transfer_outcome.value, record.forwarded_raw, record.first_remainder,
        record.approve_outcome.value, record.transfer_from_outcome.value,
        record.pool_balance_after, record.second_remainder, record.hook_count,
    )  # fmt: skip
    return bytes([RECORD_FORMAT, record.status]) + b"".join(uint_word(word) for word in words)
