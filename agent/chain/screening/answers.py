"""What the answers to the calls of the token screen mean: the record of a trial, and single calls.
An answer that a node could not give says nothing about a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from agent.chain.refusals import is_revert
from agent.chain.rpc import RpcCall, RpcFault, Transport, parse_bytes
from agent.errors import ErrorCode, Retryable
from agent.model import TokenFinding
from agent.units import BPS

RECORD_BYTES = 385
RECORD_FORMAT = 1
TOO_LITTLE_GAS = 4
"""Status of a trial that the node gave too little gas; no token can cause it."""
_UNREAD_BALANCE = 2**256 - 1
SHARE_ROUNDING_RAW = 2
"""Base units by which share-based tokens round a transfer."""
ScreenResult = tuple[TokenFinding, str]


class TransferOutcome(Enum):
    """A token's answer to a transfer call. The first five have the numbers of ScreenHand."""

    FAILED = 0
    SILENT = 1
    TRUE = 2
    FALSE = 3
    ODD = 4
    UNTRIED = 5


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial of TokenScreen: base units lent, balances after each transfer, hooks called (see
    contracts/src/TokenScreen.sol).
    """

    status: int
    lent_raw: int
    pool_balance_before: int
    arrived_raw: int
    pool_balance_after_loan: int
    transfer_outcome: TransferOutcome
    forwarded_raw: int
    first_remainder: int
    approve_outcome: TransferOutcome
    transfer_from_outcome: TransferOutcome
    pool_balance_after: int
    second_remainder: int
    hook_count: int


def decode_record(page_bytes: bytes) -> TrialRecord:
    """Decode the record of one trial. Raises Retryable if the bytes are malformed."""
    if len(page_bytes) != 1 + RECORD_BYTES or page_bytes[0] != RECORD_FORMAT:
        raise Retryable(
            "the endpoint's answer to the token screen is malformed",
            "it must allow eth_call of creation code",
        )
    status = page_bytes[1]
    record_words = [int.from_bytes(page_bytes[2 + 32 * i : 34 + 32 * i], "big") for i in range(12)]
    if status > 4 or max(record_words[4], record_words[7], record_words[8]) > 4:
        raise Retryable("the endpoint's answer to the token screen has an unknown status")
    return TrialRecord(
        status=status,
        lent_raw=record_words[0],
        pool_balance_before=record_words[1],
        arrived_raw=record_words[2],
        pool_balance_after_loan=record_words[3],
        transfer_outcome=TransferOutcome(record_words[4]),
        forwarded_raw=record_words[5],
        first_remainder=record_words[6],
        approve_outcome=TransferOutcome(record_words[7]),
        transfer_from_outcome=TransferOutcome(record_words[8]),
        pool_balance_after=record_words[9],
        second_remainder=record_words[10],
        hook_count=record_words[11],
    )


def judge_trial(trial_record: TrialRecord) -> ScreenResult:
    """Return the finding of one trial; UNKNOWN if the pool did not lend, so that further calls
    decide.
    """
    if trial_record.status in _EARLY_END_RESULTS:
        return _EARLY_END_RESULTS[trial_record.status]
    trial_balances_raw = (
        trial_record.pool_balance_before,
        trial_record.arrived_raw,
        trial_record.pool_balance_after_loan,
        trial_record.forwarded_raw,
        trial_record.first_remainder,
        trial_record.pool_balance_after,
        trial_record.second_remainder,
    )
    if _UNREAD_BALANCE in trial_balances_raw:
        return TokenFinding.UNREADABLE, "a balance during the transfer"
    outcome_by_function = {
        "transfer": trial_record.transfer_outcome,
        "approve": trial_record.approve_outcome,
        "transferFrom": trial_record.transfer_from_outcome,
    }
    for function_name, outcome in outcome_by_function.items():
        if outcome is TransferOutcome.FALSE:
            return TokenFinding.FALSE_RETURNING, f"{function_name} returned false"
        if outcome is TransferOutcome.ODD:
            return (
                TokenFinding.FALSE_RETURNING,
                f"{function_name} returned neither true nor empty data",
            )
    for function_name, outcome in outcome_by_function.items():
        if outcome is TransferOutcome.FAILED:
            reason = f"{function_name} of {trial_record.lent_raw} base units paid by a pool reverts"
            return TokenFinding.HONEYPOT, reason
    if trial_record.hook_count:
        return TokenFinding.CALLBACK, "sender and recipient are called on transfer"
    return _judge_balances(trial_record, TransferOutcome.SILENT in outcome_by_function.values())


_EARLY_END_RESULTS: dict[int, ScreenResult] = {
    1: (TokenFinding.UNKNOWN, "the pool could not transfer it"),
    2: (TokenFinding.UNKNOWN, "the pool holds none of it"),
    3: (TokenFinding.UNREADABLE, "the pool's balance"),
    TOO_LITTLE_GAS: (TokenFinding.UNKNOWN, "the endpoint allows too little gas"),
}
"""Statuses of a trial that ended before the first transfer."""


def _judge_balances(trial_record: TrialRecord, is_silent: bool) -> ScreenResult:
    """Return the finding of a trial by comparing every balance change with the transfer."""
    transfer_stages = (
        ("a pool transfers it", trial_record.lent_raw, trial_record.arrived_raw),
        ("it is forwarded", trial_record.arrived_raw, trial_record.forwarded_raw),
        (
            "it is sold to a pool",
            trial_record.forwarded_raw,
            trial_record.pool_balance_after - trial_record.pool_balance_after_loan,
        ),
    )
    stage, sent_raw, received_raw = max(
        transfer_stages, key=lambda transfer_stage: transfer_stage[1] - transfer_stage[2]
    )
    if received_raw < 0:
        reason = f"its pool holds {-received_raw} base units less when {stage}"
        return TokenFinding.FEE_ON_TRANSFER, reason
    if sent_raw - received_raw > SHARE_ROUNDING_RAW:
        lost_bps = -(-(sent_raw - received_raw) * BPS // sent_raw)
        reason = f"of {sent_raw} base units {received_raw} arrive when {stage}, {lost_bps} bps less"
        return TokenFinding.FEE_ON_TRANSFER, reason
    is_exact = (
        all(sent_raw == received_raw for _, sent_raw, received_raw in transfer_stages)
        and not trial_record.first_remainder
        and not trial_record.second_remainder
    )
    if (
        not is_exact
        or trial_record.pool_balance_before - trial_record.pool_balance_after_loan
        != trial_record.lent_raw
    ):
        return TokenFinding.REBASING, "balances do not change by the amount transferred"
    return (TokenFinding.NO_RETURN_VALUE if is_silent else TokenFinding.CLEAN), ""


SUCCESS_OUTCOMES = (TransferOutcome.TRUE, TransferOutcome.SILENT)
NOT_TRUE_OUTCOMES = (TransferOutcome.FALSE, TransferOutcome.ODD)


def transfer_outcome(answer: object) -> TransferOutcome | None:
    """Return a token's answer to a call by eth_call; None if it is no answer of the token, because
    the node could not run it, or its answer is not bytes.
    """
    if isinstance(answer, RpcFault):
        return TransferOutcome.FAILED if is_revert(answer) else None
    try:
        return_data = parse_bytes(answer, "a call")
    except Retryable:
        return None
    if not return_data:
        return TransferOutcome.SILENT
    match int.from_bytes(return_data, "big") if len(return_data) == 32 else None:
        case 1:
            return TransferOutcome.TRUE
        case 0:
            return TransferOutcome.FALSE
        case _:
            return TransferOutcome.ODD


_RATE_LIMIT_CODES = (-32005, 429)
"""Error codes of a call that a node refuses because of its limits while it answers others of the
batch (EIP-1474, and common use)."""


def require_answers(
    transport: Transport,
    calls: Sequence[RpcCall],
    answers: Sequence[object],
    is_answered: Callable[[object], bool],
) -> list[object]:
    """Return the answers; a call without one by `is_answered` is repeated once. Raises Retryable if
    it has none again, or for a rate limit, since neither says anything about a token.
    """
    for answer in answers:
        _require_no_rate_limit(transport, answer)
    repeated_indexes = [index for index, answer in enumerate(answers) if not is_answered(answer)]
    if not repeated_indexes:
        return list(answers)
    complete_answers = list(answers)
    repeated_answers = transport.batch([calls[index] for index in repeated_indexes])
    for index, answer in zip(repeated_indexes, repeated_answers, strict=True):
        _require_no_rate_limit(transport, answer)
        if not is_answered(answer):
            raise Retryable(
                f"{transport.name} cannot run the token screen: {_fault_text(answer)}",
                "try again, or use another endpoint: it must allow eth_call of creation code and"
                " from any address",
                code=ErrorCode.SCREEN,
            )
        complete_answers[index] = answer
    return complete_answers


def transfer_outcomes(
    transport: Transport, calls: Sequence[RpcCall], answers: Sequence[object]
) -> list[TransferOutcome]:
    """Return a token's answers to these calls; one that the node could not run is repeated. Raises
    Retryable.
    """
    complete_answers = require_answers(
        transport, calls, answers, lambda answer: transfer_outcome(answer) is not None
    )
    return [
        outcome for answer in complete_answers if (outcome := transfer_outcome(answer)) is not None
    ]


def is_trial_answer(answer: object) -> bool:
    """Return whether the node ran a trial, with enough gas for it."""
    try:
        return decode_record(parse_bytes(answer, "the token screen")).status != TOO_LITTLE_GAS
    except Retryable:
        return False


def _require_no_rate_limit(transport: Transport, answer: object) -> None:
    if isinstance(answer, RpcFault) and answer.code in _RATE_LIMIT_CODES:
        raise Retryable(
            f"{transport.name} refused part of the token screen: {answer.message}",
            "send fewer requests, or use another endpoint",
            code=ErrorCode.RATE_LIMIT,
        )


def _fault_text(answer: object) -> str:
    """Return a fault's message, or what is wrong with an answer that is none."""
    if isinstance(answer, RpcFault):
        return answer.message
    if answer == "0x":
        return "it returned no data where the code returns some"
    return "its answer is malformed, or it allows too little gas"
