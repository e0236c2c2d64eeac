"""Token screen: simulate the transfers of every token of a plan, at its amounts, accounts and
block.

Uses eth_call, and eth_getLogs for a balance that changed: pools lend the tokens to the contract
TokenScreen, and single calls run as the wallet, a pool or the router, since eth_call allows any
sender. docs/tokens.md lists what is detected and what is not.
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
RECORD_FORMAT = 1
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
    lent: int
    pool_before: int
    arrived: int
    pool_after_loan: int
    transfer: TransferOutcome
    passed_on: int
    first_remainder: int
    approve: TransferOutcome
    transfer_from: TransferOutcome
    pool_after: int
    second_remainder: int
    hooks: int


def decode_record(page: bytes) -> TrialRecord:
    """Decode the record of one trial. Raises Retryable if the bytes are malformed."""
    if len(page) != 1 + RECORD_BYTES or page[0] != RECORD_FORMAT:
        raise Retryable(
            "the endpoint's answer to the token screen is malformed",
            "it must allow eth_call of creation code",
        )
    status = page[1]
    words = [int.from_bytes(page[2 + 32 * i : 34 + 32 * i], "big") for i in range(12)]
    if status > 4 or max(words[4], words[7], words[8]) > 4:
        raise Retryable("the endpoint's answer to the token screen has an unknown status")
    return TrialRecord(
        status=status,
        lent=words[0],
        pool_before=words[1],
        arrived=words[2],
        pool_after_loan=words[3],
        transfer=TransferOutcome(words[4]),
        passed_on=words[5],
        first_remainder=words[6],
        approve=TransferOutcome(words[7]),
        transfer_from=TransferOutcome(words[8]),
        pool_after=words[9],
        second_remainder=words[10],
        hooks=words[11],
    )


def judge_trial(record: TrialRecord) -> ScreenResult:
    """Return the finding of one trial; UNKNOWN if the pool did not lend, so that further calls
    decide.
    """
    if record.status in _EARLY_END_RESULTS:
        return _EARLY_END_RESULTS[record.status]
    balances = (
        record.pool_before,
        record.arrived,
        record.pool_after_loan,
        record.passed_on,
        record.first_remainder,
        record.pool_after,
        record.second_remainder,
    )
    if _UNREAD_BALANCE in balances:
        return TokenFinding.UNREADABLE, "a balance during the transfer"
    answers = {
        "transfer": record.transfer,
        "approve": record.approve,
        "transferFrom": record.transfer_from,
    }
    for function, answer in answers.items():
        if answer is TransferOutcome.FALSE:
            return TokenFinding.FALSE_RETURNING, f"{function} returned false"
        if answer is TransferOutcome.ODD:
            return TokenFinding.FALSE_RETURNING, f"{function} returned neither true nor empty data"
    for function, answer in answers.items():
        if answer is TransferOutcome.FAILED:
            message = f"{function} of {record.lent} base units paid by a pool reverts"
            return TokenFinding.HONEYPOT, message
    if record.hooks:
        return TokenFinding.CALLBACK, "sender and recipient are called on transfer"
    return _judge_balances(record, TransferOutcome.SILENT in answers.values())


_EARLY_END_RESULTS: dict[int, ScreenResult] = {
    1: (TokenFinding.UNKNOWN, "the pool could not transfer it"),
    2: (TokenFinding.UNKNOWN, "the pool holds none of it"),
    3: (TokenFinding.UNREADABLE, "the pool's balance"),
    4: (TokenFinding.UNKNOWN, "the endpoint allows too little gas"),
}
"""Statuses of a trial that ended before the first transfer."""


def _judge_balances(record: TrialRecord, is_silent: bool) -> ScreenResult:
    """Return the finding of a trial by comparing every balance change with the transfer."""
    steps = (
        ("a pool transfers it", record.lent, record.arrived),
        ("it is forwarded", record.arrived, record.passed_on),
        ("it is sold to a pool", record.passed_on, record.pool_after - record.pool_after_loan),
    )
    stage, sent_raw, received_raw = max(steps, key=lambda step: step[1] - step[2])
    if sent_raw - received_raw > SHARE_ROUNDING_RAW:
        lost_bps = -(-(sent_raw - received_raw) * BPS // sent_raw)
        message = (
            f"of {sent_raw} base units {received_raw} arrive when {stage}, {lost_bps} bps less"
        )
        return TokenFinding.FEE_ON_TRANSFER, message
    is_exact = (
        all(sent_raw == received_raw for _, sent_raw, received_raw in steps)
        and not record.first_remainder
        and not record.second_remainder
    )
    if not is_exact or record.pool_before - record.pool_after_loan != record.lent:
        return TokenFinding.REBASING, "balances do not change by the amount transferred"
    return (TokenFinding.NO_RETURN_VALUE if is_silent else TokenFinding.CLEAN), ""


def transfer_outcome(answer: object) -> TransferOutcome | None:
    """Return a token's answer to a call by eth_call; None if the node could not run it."""
    if isinstance(answer, RpcFault):
        return TransferOutcome.FAILED if _is_revert(answer) else None
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


def _is_revert(fault: RpcFault) -> bool:
    """Return whether the call ran and failed. The texts differ between nodes."""
    text = fault.message.lower()
    revert_words = ("revert", "invalid opcode", "out of gas", "outofgas", "stack", "invalid jump")
    return fault.code == 3 or bool(fault.data) or any(phrase in text for phrase in revert_words)


UNLISTED_ADDRESS = "0x000000000000000000000000000000007472696D"
"""Address that no blocklist is expected to contain."""
_PAUSED_SELECTOR = bytes.fromhex("5c975abb")
_LIST_VIEWS = ("fe575a87", "e47d6060", "dbac26e9", "fbac3951", "59bf1abe")
"""isBlacklisted, isBlackListed, blacklisted, isBlocked, getBlackListStatus, all (address)."""
TRANSFER = bytes.fromhex("a9059cbb")
TRANSFER_FROM = bytes.fromhex("23b872dd")
_NOT_TRUE_RESULT = (
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
    transport: Transport,
    snapshot: Snapshot,
    move: TokenMove,
    result: ScreenResult,
    failed_calls: Sequence[FailedCall],
    block_ref: object,
) -> ScreenResult:
    """Return the finding of one token whose trial or single calls failed, with one more request."""
    if result[0] is not TokenFinding.UNKNOWN and not result[0].is_tradable:
        return result
    bad_outcomes = (TransferOutcome.FALSE, TransferOutcome.ODD)
    if any(call.outcome in bad_outcomes for call in failed_calls):
        return _NOT_TRUE_RESULT
    wallet, label_by_address = snapshot.owner, {snapshot.owner: "the wallet"}
    for tested_move in (move, *(call.move for call in failed_calls)):
        label_by_address[tested_move.pool.contract] = f"pool {tested_move.pool.contract}"
        label_by_address.setdefault(tested_move.payee or wallet, "the router")
        label_by_address.setdefault(tested_move.spender or wallet, "the router")
    view_calls = [CallItem(move.token, _PAUSED_SELECTOR)]
    view_calls += [
        CallItem(move.token, address_call(bytes.fromhex(view), address))
        for address in label_by_address
        for view in _LIST_VIEWS
    ]
    pages = LensPages(view_calls)
    balance_raw = next(
        (holding.raw for holding in snapshot.holdings if holding.token == move.token), 0
    )
    calls = [
        transfer_call(move.token, move.pool.contract, UNLISTED_ADDRESS, move.raw, block_ref),
        transfer_call(move.token, wallet, UNLISTED_ADDRESS, min(balance_raw, move.raw), block_ref),
        transfer_from_call(move.token, UNLISTED_ADDRESS, wallet, move.pool.contract, 0, block_ref),
    ]
    calls += pages.calls(block_ref)
    replies = pages.complete(transport, calls, transport.batch(calls))
    pool_outcome, wallet_outcome, nobody_outcome = (
        transfer_outcome(answer) for answer in replies[:3]
    )
    view_answers = [answer_uint(answer) for answer in pages.decode(replies[3:])]
    if view_answers[0] == 1:
        return TokenFinding.PAUSED, "paused() returns true"
    for index, label in enumerate(label_by_address.values()):
        if 1 in view_answers[1 + index * len(_LIST_VIEWS) : 1 + (index + 1) * len(_LIST_VIEWS)]:
            return TokenFinding.BLOCKLISTED, f"{label} is on its blocklist"
    if pool_outcome in bad_outcomes or wallet_outcome in bad_outcomes:
        return _NOT_TRUE_RESULT
    if result[0] is TokenFinding.UNKNOWN:
        return _not_lent_result(move, result, pool_outcome, wallet_outcome if balance_raw else None)
    return _blocklist_result(result, failed_calls, nobody_outcome)


def _not_lent_result(
    move: TokenMove,
    result: ScreenResult,
    pool_outcome: TransferOutcome | None,
    wallet_outcome: TransferOutcome | None,
) -> ScreenResult:
    """Return the finding for a token that the pool did not lend."""
    if pool_outcome is not TransferOutcome.FAILED:
        return result
    if wallet_outcome in _SUCCESS_OUTCOMES:
        return TokenFinding.BLOCKLISTED, f"pool {move.pool.contract} cannot send it"
    if wallet_outcome is None:
        return TokenFinding.PAUSED, "pools cannot send it"
    return TokenFinding.PAUSED, "neither pools nor the wallet can send it"


def _blocklist_result(
    result: ScreenResult, failed_calls: Sequence[FailedCall], nobody_outcome: TransferOutcome | None
) -> ScreenResult:
    """Return the finding for a token that transfers between other addresses, but not for an address
    of the plan.
    """
    for call in failed_calls:
        if call.outcome is None:
            return TokenFinding.UNKNOWN, "the endpoint cannot run a call from that address"
        pool = call.move.pool.contract
        if call.role == "payee":
            return (
                TokenFinding.BLOCKLISTED,
                f"{call.move.payee} cannot receive it from pool {pool}",
            )
        if call.role == "wallet":
            return TokenFinding.BLOCKLISTED, f"the wallet cannot send it to pool {pool}"
        if nobody_outcome in _SUCCESS_OUTCOMES:
            return TokenFinding.BLOCKLISTED, f"{call.move.spender} cannot spend it"
    # The token rejects a transfer of zero, and there is no allowance yet to test with.
    return result


BLOCKS_BACK = 64
"""Number of blocks back to the balance that transfers have to explain. Nodes keep 128 states."""
TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
_SHARE_VIEWS = {
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

    transport: Transport
    wrapped_native: str

    def __call__(self, step: StepInput, plan: Plan) -> tuple[ScreenedToken, ...]:
        """Return a finding for each token that the plan transfers, usually with one request. Raises
        Retryable.
        """
        return self.screen(step, plan_token_moves(step, plan))

    def screen(self, step: StepInput, moves: tuple[TokenMove, ...]) -> tuple[ScreenedToken, ...]:
        """Return a finding for each token of the transfers."""
        largest_by_token = list(largest_moves(moves).values())
        if not largest_by_token:
            return ()
        block_ref: dict[str, object] = {
            "blockHash": step.snapshot.head.hash,
            "requireCanonical": True,
        }
        trial_calls = [_trial_call(move, block_ref) for move in largest_by_token]
        single_calls = [
            call for move in moves for call in _single_calls(step.snapshot, move, block_ref)
        ]
        trait_pages = LensPages(
            [item for move in largest_by_token for item in _trait_items(step.snapshot, move.token)]
        )
        balance_call = address_call(BALANCE_OF, step.snapshot.owner)
        balance_pages = LensPages([CallItem(move.token, balance_call) for move in largest_by_token])
        earlier_balance_calls = balance_pages.calls(hex(_earlier_block(step.snapshot)))
        trait_calls = trait_pages.calls(block_ref)
        answers = iter(
            self.transport.batch(
                [
                    *trial_calls,
                    *earlier_balance_calls,
                    *(call for _, _, call in single_calls),
                    *trait_calls,
                ]
            )
        )
        results = self._trial_results(
            largest_by_token, [next(answers) for _ in trial_calls], block_ref
        )
        earlier_balances = _earlier_balances(
            balance_pages, [next(answers) for _ in earlier_balance_calls]
        )
        replies = [_require_no_rate_limit(self.transport, next(answers)) for _ in single_calls]
        all_failed_calls = [
            FailedCall(move, role, outcome)
            for (move, role, _), reply in zip(single_calls, replies, strict=True)
            if (outcome := transfer_outcome(reply)) not in _SUCCESS_OUTCOMES
        ]
        trait_answers = trait_pages.decode(
            trait_pages.complete(self.transport, trait_calls, list(answers))
        )
        screened_tokens = []
        for index, move in enumerate(largest_by_token):
            failed_calls = [call for call in all_failed_calls if call.move.token == move.token]
            result = results[index]
            if result[0] is TokenFinding.UNKNOWN or failed_calls:
                result = explain_failure(
                    self.transport, step.snapshot, move, result, failed_calls, block_ref
                )
            if result[0].is_tradable:
                result = (
                    _judge_traits(trait_answers[4 * index : 4 * index + 4])
                    or self._find_rebasing(step, move.token, earlier_balances[index])
                    or result
                )
            screened_tokens.append(ScreenedToken(move.token, *result))
        return tuple(screened_tokens)

    def _trial_results(
        self, moves: Sequence[TokenMove], answers: Sequence[object], block_ref: object
    ) -> list[ScreenResult]:
        """Return the result of each trial. A trial that the node refused is repeated, and is
        UNKNOWN if refused again. Raises Retryable if the node refuses all, since that says nothing
        about a token.
        """
        results = [_trial_result(self.transport, answer) for answer in answers]
        refused_trials = [index for index, result in enumerate(results) if result is None]
        if refused_trials:
            repeated = self.transport.batch(
                [_trial_call(moves[index], block_ref) for index in refused_trials]
            )
            for index, answer in zip(refused_trials, repeated, strict=True):
                results[index] = _trial_result(self.transport, answer)
        if not any(results):
            raise Retryable(
                f"{self.transport.name} refuses the token screen",
                "it must allow eth_call of creation code",
                code=ErrorCode.SCREEN,
            )
        return [
            result or (TokenFinding.UNKNOWN, "the endpoint refuses the screen")
            for result in results
        ]

    def _find_rebasing(
        self, step: StepInput, token: str, earlier_raw: int | None
    ) -> ScreenResult | None:
        """Return REBASING if the wallet's balance changed over the last blocks without transfers,
        else None, also if the node lacks that state or the logs.

        The check can exclude a token but never clear it.
        """
        current_raw = next(
            (holding.raw for holding in step.snapshot.holdings if holding.token == token), None
        )
        if (
            token == self.wrapped_native
            or current_raw is None
            or earlier_raw in (None, current_raw)
        ):
            return None
        wallet = hex_data(address_word(step.snapshot.owner))
        log_filter = {
            "address": token,
            "fromBlock": hex(_earlier_block(step.snapshot) + 1),
            "toBlock": hex(step.snapshot.head.number),
        }
        calls: list[RpcCall] = [
            ("eth_getLogs", [{**log_filter, "topics": topics}])
            for topics in ([TRANSFER_TOPIC, None, wallet], [TRANSFER_TOPIC, wallet])
        ]
        received_raw, sent_raw = (_transferred_raw(logs) for logs in self.transport.batch(calls))
        if (
            earlier_raw is None
            or received_raw is None
            or sent_raw is None
            or earlier_raw + received_raw - sent_raw == current_raw
        ):
            return None
        return (
            TokenFinding.REBASING,
            f"since block {_earlier_block(step.snapshot)} the wallet's balance changed by"
            f" {current_raw - earlier_raw - received_raw + sent_raw} base units without a transfer",
        )


_RATE_LIMIT_CODES = (-32005, 429)
"""Error codes of a call that a node refuses because of its limits while it answers others of the
batch (EIP-1474, and common use)."""
_SUCCESS_OUTCOMES = (TransferOutcome.TRUE, TransferOutcome.SILENT)


def _trial_call(move: TokenMove, block_ref: object) -> RpcCall:
    """Return a call of TokenScreen's creation code for one token. Each token gets its own call,
    since state persists within a call and a token can prevent rollback.
    """
    addresses = bytes.fromhex(move.token[2:]) + bytes.fromhex(move.pool.contract[2:])
    loan = addresses + bytes([move.pool_flags]) + min(move.raw, 2**128 - 1).to_bytes(16, "big")
    request = bytes([1]) + loan
    argument = uint_word(32) + uint_word(len(request)) + request + bytes(-len(request) % 32)
    return (
        "eth_call",
        [{"data": own_artifact("TokenScreen").bytecode + argument.hex()}, block_ref],
    )


def _trial_result(transport: Transport, answer: object) -> ScreenResult | None:
    """Return the result of a trial; None if the node refused the call."""
    if isinstance(_require_no_rate_limit(transport, answer), RpcFault):
        return None
    return judge_trial(decode_record(parse_bytes(answer, "the token screen")))


def _require_no_rate_limit(transport: Transport, answer: object) -> object:
    """Return the answer. Raises Retryable for a rate limit, which says nothing about a token."""
    if isinstance(answer, RpcFault) and answer.code in _RATE_LIMIT_CODES:
        raise Retryable(
            f"{transport.name} refused part of the token screen: {answer.message}",
            "send fewer requests, or use another endpoint",
            code=ErrorCode.RATE_LIMIT,
        )
    return answer


def _single_calls(
    snapshot: Snapshot, move: TokenMove, block_ref: object
) -> list[tuple[TokenMove, str, RpcCall]]:
    """Return calls from the real sender of each token, as (transfer, role, call), within the
    balance and the allowance.
    """
    token, pool, wallet = move.token, move.pool.contract, snapshot.owner
    calls = []
    if move.payee is not None:
        calls.append((move, "payee", transfer_call(token, pool, move.payee, move.raw, block_ref)))
    balance_raw = next((holding.raw for holding in snapshot.holdings if holding.token == token), 0)
    if move.spender is not None and balance_raw > 0:
        raw = min(move.raw, balance_raw)
        calls.append((move, "wallet", transfer_call(token, wallet, pool, raw, block_ref)))
        allowances = {
            (allowance.token, allowance.spender): allowance.raw
            for allowance in reversed(snapshot.allowances)
        }
        spendable_raw = min(raw, allowances.get((token, move.spender), 0))
        calls.append(
            (
                move,
                "spender",
                transfer_from_call(token, move.spender, wallet, pool, spendable_raw, block_ref),
            )
        )
    return calls


def transfer_call(token: str, sender: str, to: str, raw: int, block_ref: object) -> RpcCall:
    """Return a call of transfer by `sender`."""
    data = TRANSFER + address_word(to) + uint_word(raw)
    return "eth_call", [{"from": sender, "to": token, "data": hex_data(data)}, block_ref]


def transfer_from_call(
    token: str, spender: str, sender: str, to: str, raw: int, block_ref: object
) -> RpcCall:
    """Return a call of transferFrom by `spender`."""
    data = TRANSFER_FROM + address_word(sender) + address_word(to) + uint_word(raw)
    return "eth_call", [{"from": spender, "to": token, "data": hex_data(data)}, block_ref]


def _trait_items(snapshot: Snapshot, token: str) -> list[CallItem]:
    """Return calls of functions that only share-based or ERC-777 tokens have."""
    owner = snapshot.owner
    calls = (
        address_call(_SHARE_VIEWS["sharesOf"], owner),
        address_call(_SHARE_VIEWS["scaledBalanceOf"], owner),
        _SHARE_VIEWS["gonsForBalance"] + uint_word(10**6),
        _GRANULARITY,
    )
    return [CallItem(token, data) for data in calls]


def _judge_traits(answers: Sequence[LensAnswer]) -> ScreenResult | None:
    for name, answer in zip(_SHARE_VIEWS, answers, strict=False):
        if isinstance(answer_uint(answer), int):
            return TokenFinding.REBASING, f"its balances are shares: {name}()"
    if isinstance(answer_uint(answers[3]), int):
        return TokenFinding.CALLBACK, "it is an ERC-777 token: granularity()"
    return None


def _earlier_block(snapshot: Snapshot) -> int:
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


def _transferred_raw(logs: object) -> int | None:
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
