"""What trying a token out means: the record of TokenScreen and the answers to single calls, as a finding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from agent.chain.wire import RpcFault, octets
from agent.errors import Retryable
from agent.model import Finding
from agent.units import BPS

RECORD_BYTES = 385
FORMAT = 1
_UNKNOWN = 2**256 - 1
SHARES = 2
"""Base units by which tokens that count in shares round a transfer."""
Result = tuple[Finding, str]


class Answered(Enum):
    """How a token answered a call that moves something; the first five as ScreenHand numbers them."""

    FAILED = 0
    SILENT = 1
    TRUE = 2
    FALSE = 3
    ODD = 4
    UNTRIED = 5


@dataclass(frozen=True, slots=True)
class Record:
    """One try of TokenScreen: base units lent, balances on the way (see contracts/src/TokenScreen.sol), hooks heard."""

    status: int
    lent: int
    pool_before: int
    came: int
    pool_lent: int
    transfer: Answered
    passed_on: int
    kept: int
    approve: Answered
    transfer_from: Answered
    pool_after: int
    left: int
    hooks: int


def records(page: bytes, count: int) -> list[Record]:
    """The records of one answer. Raises Retryable when the bytes are not an answer to `count` tries."""
    if len(page) != 1 + count * RECORD_BYTES or page[0] != FORMAT:
        raise Retryable("the endpoint's answer to the token screen is not its format", "it must allow eth_call of creation code")
    found = []
    for number in range(count):
        at = 1 + number * RECORD_BYTES
        w = [int.from_bytes(page[at + 1 + 32 * i : at + 33 + 32 * i], "big") for i in range(12)]
        if page[at] > 4 or max(w[4], w[7], w[8]) > 4:
            raise Retryable("the endpoint's answer to the token screen has an unknown status")
        moves = (Answered(w[4]), Answered(w[7]), Answered(w[8]))
        found.append(Record(page[at], w[0], w[1], w[2], w[3], moves[0], w[5], w[6], moves[1], moves[2], w[9], w[10], w[11]))
    return found


def tried(record: Record) -> Result:
    """What one try says. A pool that did not lend is UNKNOWN: why, further questions have to say."""
    if record.status == 4:
        return Finding.UNKNOWN, "the endpoint gives too little gas"
    if record.status == 3:
        return Finding.UNREADABLE, "the pool's balance"
    if record.status == 2:
        return Finding.UNKNOWN, "the pool holds none of it"
    if record.status == 1:
        return Finding.UNKNOWN, "the pool could not pay it out"
    balances = (record.pool_before, record.came, record.pool_lent, record.passed_on, record.kept, record.pool_after, record.left)
    if _UNKNOWN in balances:
        return Finding.UNREADABLE, "a balance in the middle of a transfer"
    answers = {"transfer": record.transfer, "approve": record.approve, "transferFrom": record.transfer_from}
    for name, answer in answers.items():
        if answer in (Answered.FALSE, Answered.ODD):
            return Finding.FALSE_RETURNING, f"{name} answered {'false' if answer is Answered.FALSE else 'neither true nor nothing'}"
    for name, answer in answers.items():
        if answer is Answered.FAILED:
            return Finding.HONEYPOT, f"{name} of {record.lent} base units that a pool had paid reverts"
    if record.hooks:
        return Finding.CALLBACK, "whoever sends or receives is called"
    return _balanced(record, Answered.SILENT in answers.values())


def _balanced(record: Record, silent: bool) -> Result:
    """Whether every balance changed by what was moved."""
    steps = (
        ("a pool pays", record.lent, record.came),
        ("it is passed on", record.came, record.passed_on),
        ("it is sold into a pool", record.passed_on, record.pool_after - record.pool_lent),
    )
    lost = max(sent - got for _, sent, got in steps)
    if lost > SHARES:
        when, sent, got = max(steps, key=lambda one: one[1] - one[2])
        return Finding.FEE_ON_TRANSFER, f"of {sent} base units {got} arrive when {when}, {-(-(sent - got) * BPS // sent)} bps less"
    exact = all(sent == got for _, sent, got in steps) and not record.kept and not record.left
    if not exact or record.pool_before - record.pool_lent != record.lent:
        return Finding.REBASING, "balances do not change by what is moved"
    return (Finding.NO_RETURN_VALUE if silent else Finding.CLEAN), ""


def answered(answer: object) -> Answered | None:
    """How a token answered a call by eth_call; None where the node could not run it."""
    if isinstance(answer, RpcFault):
        return Answered.FAILED if _reverted(answer) else None
    if answer == "0x":
        return Answered.SILENT
    word = word_of(answer)
    return Answered.ODD if word not in (0, 1) else Answered.TRUE if word else Answered.FALSE


def word_of(answer: object) -> int | None:
    """The one word of an answer; None when it is something else."""
    try:
        return int.from_bytes(octets(answer, "a word", 32), "big")
    except Retryable:
        return None


def _reverted(fault: RpcFault) -> bool:
    """Whether the call ran and failed; nodes word it differently."""
    text = fault.message.lower()
    ran = ("revert", "invalid opcode", "out of gas", "outofgas", "stack", "invalid jump")
    return fault.code == 3 or bool(fault.data) or any(word in text for word in ran)
