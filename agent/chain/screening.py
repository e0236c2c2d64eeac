"""Token screen: simulate the transfers of every token of a plan, at its amounts, accounts and
block.

Uses eth_call only: pools lend the tokens to the contract TokenScreen, and single calls run as the
wallet, a pool or the router, since eth_call allows any sender. docs/tokens.md lists what is
detected and what is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from agent.artifacts import own_artifact
from agent.chain.lens import (
    BALANCE_OF,
    CallItem,
    CallStatus,
    LensAnswer,
    LensPages,
    address_call,
    address_word,
    answer_uint,
    decode_page,
    uint_word,
)
from agent.chain.rpc import RpcCall, RpcFault, Transport, hex_data, parse_bytes
from agent.chain.tokens import TokenMove, largest_moves, plan_token_moves
from agent.errors import ErrorCode, Retryable
from agent.model import Plan, ScreenedToken, Snapshot, StepInput, TokenFinding
from agent.units import BPS

RECORD_BYTES = 385
FORMAT = 1
_UNKNOWN = 2**256 - 1
SHARES = 2
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
    lent: int
    pool_before: int
    came: int
    pool_lent: int
    transfer: TransferOutcome
    passed_on: int
    kept: int
    approve: TransferOutcome
    transfer_from: TransferOutcome
    pool_after: int
    left: int
    hooks: int


def decode_record(page: bytes) -> TrialRecord:
    """Decode the record of one trial. Raises Retryable if the bytes are malformed."""
    if len(page) != 1 + RECORD_BYTES or page[0] != FORMAT:
        raise Retryable(
            "the endpoint's answer to the token screen is malformed",
            "it must allow eth_call of creation code",
        )
    status = page[1]
    w = [int.from_bytes(page[2 + 32 * i : 34 + 32 * i], "big") for i in range(12)]
    if status > 4 or max(w[4], w[7], w[8]) > 4:
        raise Retryable("the endpoint's answer to the token screen has an unknown status")
    return TrialRecord(
        status=status,
        lent=w[0],
        pool_before=w[1],
        came=w[2],
        pool_lent=w[3],
        transfer=TransferOutcome(w[4]),
        passed_on=w[5],
        kept=w[6],
        approve=TransferOutcome(w[7]),
        transfer_from=TransferOutcome(w[8]),
        pool_after=w[9],
        left=w[10],
        hooks=w[11],
    )


def judge_trial(record: TrialRecord) -> ScreenResult:
    """Return the finding of one trial; UNKNOWN if the pool did not lend, so that further calls
    decide.
    """
    if record.status in _NO_TRIAL:
        return _NO_TRIAL[record.status]
    balances = (
        record.pool_before,
        record.came,
        record.pool_lent,
        record.passed_on,
        record.kept,
        record.pool_after,
        record.left,
    )
    if _UNKNOWN in balances:
        return TokenFinding.UNREADABLE, "a balance during the transfer"
    answers = {
        "transfer": record.transfer,
        "approve": record.approve,
        "transferFrom": record.transfer_from,
    }
    for name, answer in answers.items():
        if answer is TransferOutcome.FALSE:
            return TokenFinding.FALSE_RETURNING, f"{name} returned false"
        if answer is TransferOutcome.ODD:
            return TokenFinding.FALSE_RETURNING, f"{name} returned neither true nor empty data"
    for name, answer in answers.items():
        if answer is TransferOutcome.FAILED:
            message = f"{name} of {record.lent} base units paid by a pool reverts"
            return TokenFinding.HONEYPOT, message
    if record.hooks:
        return TokenFinding.CALLBACK, "sender and recipient are called on transfer"
    return _balanced(record, TransferOutcome.SILENT in answers.values())


_NO_TRIAL: dict[int, ScreenResult] = {
    1: (TokenFinding.UNKNOWN, "the pool could not transfer it"),
    2: (TokenFinding.UNKNOWN, "the pool holds none of it"),
    3: (TokenFinding.UNREADABLE, "the pool's balance"),
    4: (TokenFinding.UNKNOWN, "the endpoint allows too little gas"),
}
"""Statuses of a trial that ended before the first transfer."""


def _balanced(record: TrialRecord, silent: bool) -> ScreenResult:
    """Return the finding of a trial by comparing every balance change with the transfer."""
    steps = (
        ("a pool transfers it", record.lent, record.came),
        ("it is forwarded", record.came, record.passed_on),
        ("it is sold to a pool", record.passed_on, record.pool_after - record.pool_lent),
    )
    when, sent, received = max(steps, key=lambda step: step[1] - step[2])
    if sent - received > SHARES:
        lost_bps = -(-(sent - received) * BPS // sent)
        message = f"of {sent} base units {received} arrive when {when}, {lost_bps} bps less"
        return TokenFinding.FEE_ON_TRANSFER, message
    exact = all(sent == got for _, sent, got in steps) and not record.kept and not record.left
    if not exact or record.pool_before - record.pool_lent != record.lent:
        return TokenFinding.REBASING, "balances do not change by the amount transferred"
    return (TokenFinding.NO_RETURN_VALUE if silent else TokenFinding.CLEAN), ""


def transfer_outcome(answer: object) -> TransferOutcome | None:
    """Return a token's answer to a call by eth_call; None if the node could not run it."""
    if isinstance(answer, RpcFault):
        return TransferOutcome.FAILED if _reverted(answer) else None
    if answer == "0x":
        return TransferOutcome.SILENT
    match word_of(answer):
        case 1:
            return TransferOutcome.TRUE
        case 0:
            return TransferOutcome.FALSE
        case _:
            return TransferOutcome.ODD


def word_of(answer: object) -> int | None:
    """Parse an answer of one word; None for any other answer."""
    try:
        return int.from_bytes(parse_bytes(answer, "a word", 32), "big")
    except Retryable:
        return None


def _reverted(fault: RpcFault) -> bool:
    """Return whether the call ran and failed. The texts differ between nodes."""
    text = fault.message.lower()
    ran = ("revert", "invalid opcode", "out of gas", "outofgas", "stack", "invalid jump")
    return fault.code == 3 or bool(fault.data) or any(word in text for word in ran)


NOBODY = "0x000000000000000000000000000000007472696D"
"""Address that no blocklist is expected to contain."""
_PAUSED = bytes.fromhex("5c975abb")
_LISTS = ("fe575a87", "e47d6060", "dbac26e9", "fbac3951", "59bf1abe")
"""isBlacklisted, isBlackListed, blacklisted, isBlocked, getBlackListStatus, all (address)."""
TRANSFER = bytes.fromhex("a9059cbb")
TRANSFER_FROM = bytes.fromhex("23b872dd")
_NOT_TRUE = (
    TokenFinding.FALSE_RETURNING,
    "a transfer returned false, or neither true nor empty data",
)


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A failed single call: its transfer, the role of the tested address ("payee", "wallet",
    "spender"), and the result.
    """

    move: TokenMove
    role: str
    outcome: TransferOutcome | None


def explain_failure(
    line: Transport,
    snapshot: Snapshot,
    move: TokenMove,
    result: ScreenResult,
    failed: Sequence[FailedCall],
    at: object,
) -> ScreenResult:
    """Return the finding of one token whose trial or single calls failed, with one more request."""
    if result[0] is not TokenFinding.UNKNOWN and not result[0].accepted:
        return result
    not_true = (TransferOutcome.FALSE, TransferOutcome.ODD)
    if any(call.outcome in not_true for call in failed):
        return _NOT_TRUE
    wallet, labels = snapshot.owner, {snapshot.owner: "the wallet"}
    for tested in (move, *(call.move for call in failed)):
        labels[tested.pool.address] = f"pool {tested.pool.address}"
        labels.setdefault(tested.payee or wallet, "the router")
        labels.setdefault(tested.spender or wallet, "the router")
    items = [CallItem(move.token, _PAUSED)]
    items += [
        CallItem(move.token, address_call(bytes.fromhex(view), address))
        for address in labels
        for view in _LISTS
    ]
    pages = LensPages(items)
    balance_raw = next(
        (holding.raw for holding in snapshot.holdings if holding.token == move.token), 0
    )
    calls = [
        transfer(move.token, move.pool.address, NOBODY, move.raw, at),
        transfer(move.token, wallet, NOBODY, min(balance_raw, move.raw), at),
        transfer_from(move.token, NOBODY, wallet, move.pool.address, 0, at),
    ]
    calls += pages.calls(at)
    replies = pages.complete(line, calls, line.batch(calls))
    by_pool, by_wallet, by_nobody = (transfer_outcome(answer) for answer in replies[:3])
    flags = [answer_uint(answer) for answer in pages.decode(replies[3:])]
    if flags[0] == 1:
        return TokenFinding.PAUSED, "paused() returns true"
    for number, label in enumerate(labels.values()):
        if 1 in flags[1 + number * len(_LISTS) : 1 + (number + 1) * len(_LISTS)]:
            return TokenFinding.BLOCKLISTED, f"{label} is on its blocklist"
    if by_pool in not_true or by_wallet in not_true:
        return _NOT_TRUE
    if result[0] is TokenFinding.UNKNOWN:
        return _not_lent(move, result, by_pool, by_wallet if balance_raw else None)
    return _blocklisted_role(result, failed, by_nobody)


def _not_lent(
    move: TokenMove,
    result: ScreenResult,
    by_pool: TransferOutcome | None,
    by_wallet: TransferOutcome | None,
) -> ScreenResult:
    """Return the finding for a token that the pool did not lend."""
    if by_pool is not TransferOutcome.FAILED:
        return result
    if by_wallet in _SUCCESS:
        return TokenFinding.BLOCKLISTED, f"pool {move.pool.address} cannot send it"
    if by_wallet is None:
        return TokenFinding.PAUSED, "pools cannot send it"
    return TokenFinding.PAUSED, "neither pools nor the wallet can send it"


def _blocklisted_role(
    result: ScreenResult, failed: Sequence[FailedCall], by_nobody: TransferOutcome | None
) -> ScreenResult:
    """Return the finding for a token that transfers between other addresses, but not for an address
    of the plan.
    """
    for call in failed:
        if call.outcome is None:
            return TokenFinding.UNKNOWN, "the endpoint cannot run a call from that address"
        pool = call.move.pool.address
        if call.role == "payee":
            return (
                TokenFinding.BLOCKLISTED,
                f"{call.move.payee} cannot receive it from pool {pool}",
            )
        if call.role == "wallet":
            return TokenFinding.BLOCKLISTED, f"the wallet cannot send it to pool {pool}"
        if by_nobody in _SUCCESS:
            return TokenFinding.BLOCKLISTED, f"{call.move.spender} cannot spend it"
    # The token rejects a transfer of zero, and there is no allowance yet to test with.
    return result


BLOCKS_BACK = 64
"""Blocks over which a wallet's balance may change only by transfers. Nodes keep 128 states."""
TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
_BY_SHARES = {
    "sharesOf": bytes.fromhex("f5eb42dc"),
    "scaledBalanceOf": bytes.fromhex("1da24f3e"),
    "gonsForBalance": bytes.fromhex("1bd39674"),
}
_GRANULARITY = bytes.fromhex("556f0dc7")


@dataclass(frozen=True, slots=True)
class TokenScreen:
    """Screens tokens through one transport. `wrapped_native` may change balances by deposits,
    without a transfer.
    """

    line: Transport
    wrapped_native: str

    def __call__(self, step: StepInput, plan: Plan) -> tuple[ScreenedToken, ...]:
        """Return a finding for each token that the plan transfers, usually with one request. Raises
        Retryable.
        """
        return self.screen(step, plan_token_moves(step, plan))

    def screen(self, step: StepInput, moves: tuple[TokenMove, ...]) -> tuple[ScreenedToken, ...]:
        """Return a finding for each token of the transfers."""
        largest = list(largest_moves(moves).values())
        if not largest:
            return ()
        at: dict[str, object] = {"blockHash": step.snapshot.head.hash, "requireCanonical": True}
        trials = [_trial_call(move, at) for move in largest]
        single = [call for move in moves for call in _single_calls(step.snapshot, move, at)]
        traits = LensPages(
            [item for move in largest for item in _trait_calls(step.snapshot, move.token)]
        )
        owned = address_call(BALANCE_OF, step.snapshot.owner)
        balances = LensPages([CallItem(move.token, owned) for move in largest])
        past = balances.calls(hex(_since(step.snapshot)))
        trait_calls = traits.calls(at)
        answers = iter(
            self.line.batch([*trials, *past, *(call for _, _, call in single), *trait_calls])
        )
        results = self._trial_results(largest, [next(answers) for _ in trials], at)
        earlier = _earlier_balances(balances, [next(answers) for _ in past])
        replies = [_without_limit(self.line, next(answers)) for _ in single]
        failed = [
            FailedCall(move, role, outcome)
            for (move, role, _), reply in zip(single, replies, strict=True)
            if (outcome := transfer_outcome(reply)) not in _SUCCESS
        ]
        trait_answers = traits.decode(traits.complete(self.line, trait_calls, list(answers)))
        screened = []
        for number, move in enumerate(largest):
            failed_calls = [call for call in failed if call.move.token == move.token]
            result = results[number]
            if result[0] is TokenFinding.UNKNOWN or failed_calls:
                result = explain_failure(self.line, step.snapshot, move, result, failed_calls, at)
            if result[0].accepted:
                result = (
                    _trait(trait_answers[4 * number : 4 * number + 4])
                    or self._rebased(step, move.token, earlier[number])
                    or result
                )
            screened.append(ScreenedToken(move.token, *result))
        return tuple(screened)

    def _trial_results(
        self, moves: Sequence[TokenMove], answers: Sequence[object], at: object
    ) -> list[ScreenResult]:
        """Return the result of each trial. A trial that the node refused is repeated, and is
        UNKNOWN if refused again. Raises Retryable if the node refuses all, since that says nothing
        about a token.
        """
        results = [_trial_result(self.line, answer) for answer in answers]
        refused = [number for number, result in enumerate(results) if result is None]
        if refused:
            repeated = self.line.batch([_trial_call(moves[number], at) for number in refused])
            for number, answer in zip(refused, repeated, strict=True):
                results[number] = _trial_result(self.line, answer)
        if not any(results):
            raise Retryable(
                f"{self.line.name} refuses the token screen",
                "it must allow eth_call of creation code",
                code=ErrorCode.SCREEN,
            )
        return [
            result or (TokenFinding.UNKNOWN, "the endpoint refuses the screen")
            for result in results
        ]

    def _rebased(self, step: StepInput, token: str, before: int | None) -> ScreenResult | None:
        """Return REBASING if the wallet's balance changed over the last blocks without transfers,
        else None, also if the node lacks that state or the logs.

        The check can exclude a token but never clear it.
        """
        now = next(
            (holding.raw for holding in step.snapshot.holdings if holding.token == token), None
        )
        if token == self.wrapped_native or now is None or before in (None, now):
            return None
        wallet = hex_data(address_word(step.snapshot.owner))
        span = {
            "address": token,
            "fromBlock": hex(_since(step.snapshot) + 1),
            "toBlock": hex(step.snapshot.head.number),
        }
        calls: list[RpcCall] = [
            ("eth_getLogs", [{**span, "topics": topics}])
            for topics in ([TRANSFER_TOPIC, None, wallet], [TRANSFER_TOPIC, wallet])
        ]
        received, sent = (_transferred(logs) for logs in self.line.batch(calls))
        if before is None or received is None or sent is None or before + received - sent == now:
            return None
        return (
            TokenFinding.REBASING,
            f"since block {_since(step.snapshot)} the wallet's balance changed by"
            f" {now - before - received + sent} base units without a transfer",
        )


_LIMITED = (-32005, 429)
"""Error codes of a call that a node refuses because of its limits while it answers others of the
batch (EIP-1474, and common use)."""
_SUCCESS = (TransferOutcome.TRUE, TransferOutcome.SILENT)


def _trial_call(move: TokenMove, at: object) -> RpcCall:
    """Return a call of TokenScreen's creation code for one token. Each token gets its own call,
    since state persists within a call and a token can prevent rollback.
    """
    addresses = bytes.fromhex(move.token[2:]) + bytes.fromhex(move.pool.address[2:])
    packed = addresses + bytes([move.kind]) + min(move.raw, 2**128 - 1).to_bytes(16, "big")
    request = bytes([1]) + packed
    argument = uint_word(32) + uint_word(len(request)) + request + bytes(-len(request) % 32)
    return ("eth_call", [{"data": own_artifact("TokenScreen").bytecode + argument.hex()}, at])


def _trial_result(line: Transport, answer: object) -> ScreenResult | None:
    """Return the result of a trial; None if the node refused the call."""
    if isinstance(_without_limit(line, answer), RpcFault):
        return None
    return judge_trial(decode_record(parse_bytes(answer, "the token screen")))


def _without_limit(line: Transport, answer: object) -> object:
    """Return the answer. Raises Retryable for a rate limit, which says nothing about a token."""
    if isinstance(answer, RpcFault) and answer.code in _LIMITED:
        raise Retryable(
            f"{line.name} refused part of the token screen: {answer.message}",
            "send fewer requests, or use another endpoint",
            code=ErrorCode.RATE_LIMIT,
        )
    return answer


def _single_calls(
    snapshot: Snapshot, move: TokenMove, at: object
) -> list[tuple[TokenMove, str, RpcCall]]:
    """Return calls from the real sender of each token, as (transfer, role, call), within the
    balance and the allowance.
    """
    token, pool, wallet = move.token, move.pool.address, snapshot.owner
    calls = []
    if move.payee is not None:
        calls.append((move, "payee", transfer(token, pool, move.payee, move.raw, at)))
    balance_raw = next((holding.raw for holding in snapshot.holdings if holding.token == token), 0)
    if move.spender is not None and balance_raw > 0:
        raw = min(move.raw, balance_raw)
        calls.append((move, "wallet", transfer(token, wallet, pool, raw, at)))
        allowances = {
            (allowance.token, allowance.spender): allowance.raw
            for allowance in reversed(snapshot.allowances)
        }
        spent = min(raw, allowances.get((token, move.spender), 0))
        calls.append((move, "spender", transfer_from(token, move.spender, wallet, pool, spent, at)))
    return calls


def transfer(token: str, sender: str, to: str, raw: int, at: object) -> RpcCall:
    """Return a call of transfer by `sender`."""
    data = TRANSFER + address_word(to) + uint_word(raw)
    return "eth_call", [{"from": sender, "to": token, "data": hex_data(data)}, at]


def transfer_from(token: str, spender: str, sender: str, to: str, raw: int, at: object) -> RpcCall:
    """Return a call of transferFrom by `spender`."""
    data = TRANSFER_FROM + address_word(sender) + address_word(to) + uint_word(raw)
    return "eth_call", [{"from": spender, "to": token, "data": hex_data(data)}, at]


def _trait_calls(snapshot: Snapshot, token: str) -> list[CallItem]:
    """Return calls of functions that only share-based or ERC-777 tokens have."""
    owner = snapshot.owner
    calls = (
        address_call(_BY_SHARES["sharesOf"], owner),
        address_call(_BY_SHARES["scaledBalanceOf"], owner),
        _BY_SHARES["gonsForBalance"] + uint_word(10**6),
        _GRANULARITY,
    )
    return [CallItem(token, data) for data in calls]


def _trait(answers: Sequence[LensAnswer]) -> ScreenResult | None:
    for name, answer in zip(_BY_SHARES, answers, strict=False):
        if isinstance(answer_uint(answer), int):
            return TokenFinding.REBASING, f"its balances are shares: {name}()"
    if isinstance(answer_uint(answers[3]), int):
        return TokenFinding.CALLBACK, "it is an ERC-777 token: granularity()"
    return None


def _since(snapshot: Snapshot) -> int:
    return max(0, snapshot.head.number - BLOCKS_BACK)


def _earlier_balances(pages: LensPages, answers: Sequence[object]) -> list[int | None]:
    """Return balances at an earlier block; None without an answer."""
    balances: list[int | None] = []
    for items, answer in zip(pages.pages, answers, strict=True):
        if isinstance(answer, RpcFault):
            balances += [None] * len(items)
            continue
        values = map(answer_uint, decode_page(items, parse_bytes(answer, "earlier balances")))
        balances += [None if isinstance(value, CallStatus) else value for value in values]
    return balances


def _transferred(logs: object) -> int | None:
    """Return the total of Transfer events, base units; None if the node returned no usable logs."""
    if not isinstance(logs, list):
        return None
    total_raw = 0
    for log in logs:
        if not isinstance(log, dict) or len(log.get("topics", ())) != 3:
            return None
        raw = word_of(log.get("data"))
        if raw is None:
            return None
        total_raw += raw
    return total_raw
