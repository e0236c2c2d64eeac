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
    4: (TokenFinding.UNKNOWN, "the endpoint allows too little gas"),
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
    message = fault.message.lower()
    revert_phrases = ("revert", "invalid opcode", "out of gas", "outofgas", "stack", "invalid jump")
    return (
        fault.code == 3
        or bool(fault.revert_data)
        or any(phrase in message for phrase in revert_phrases)
    )


UNLISTED_ADDRESS = "0x000000000000000000000000000000007472696D"
"""Address that no blocklist is expected to contain."""
_PAUSED_SELECTOR = bytes.fromhex("5c975abb")
_BLOCKLIST_VIEWS = ("fe575a87", "e47d6060", "dbac26e9", "fbac3951", "59bf1abe")
"""isBlacklisted, isBlackListed, blacklisted, isBlocked, getBlackListStatus, all (address)."""
TRANSFER_SELECTOR = bytes.fromhex("a9059cbb")
TRANSFER_FROM_SELECTOR = bytes.fromhex("23b872dd")
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
    trial_result: ScreenResult,
    failed_calls: Sequence[FailedCall],
    block_ref: object,
) -> ScreenResult:
    """Return the finding of one token whose trial or single calls failed, with one more request."""
    if trial_result[0] is not TokenFinding.UNKNOWN and not trial_result[0].is_tradable:
        return trial_result
    not_true_outcomes = (TransferOutcome.FALSE, TransferOutcome.ODD)
    if any(failed_call.outcome in not_true_outcomes for failed_call in failed_calls):
        return _NOT_TRUE_RESULT
    wallet, label_by_address = snapshot.owner, {snapshot.owner: "the wallet"}
    for tested_move in (move, *(failed_call.move for failed_call in failed_calls)):
        label_by_address[tested_move.pool.contract] = f"pool {tested_move.pool.contract}"
        label_by_address.setdefault(tested_move.payee or wallet, "the router")
        label_by_address.setdefault(tested_move.spender or wallet, "the router")
    view_calls = [CallItem(move.token, _PAUSED_SELECTOR)]
    view_calls += [
        CallItem(move.token, address_call(bytes.fromhex(view_selector), address))
        for address in label_by_address
        for view_selector in _BLOCKLIST_VIEWS
    ]
    view_pages = LensPages(view_calls)
    balance_raw = next(
        (holding.raw for holding in snapshot.holdings if holding.token == move.token), 0
    )
    calls = [
        transfer_call(move.token, move.pool.contract, UNLISTED_ADDRESS, move.raw, block_ref),
        transfer_call(move.token, wallet, UNLISTED_ADDRESS, min(balance_raw, move.raw), block_ref),
        transfer_from_call(move.token, UNLISTED_ADDRESS, wallet, move.pool.contract, 0, block_ref),
    ]
    calls += view_pages.calls(block_ref)
    replies = view_pages.requery_unread(transport, calls, transport.batch(calls))
    pool_outcome, wallet_outcome, unlisted_outcome = (
        transfer_outcome(answer) for answer in replies[:3]
    )
    view_answers = [answer_uint(answer) for answer in view_pages.decode(replies[3:])]
    if view_answers[0] == 1:
        return TokenFinding.PAUSED, "paused() returns true"
    for address_index, address_label in enumerate(label_by_address.values()):
        if (
            1
            in view_answers[
                1 + address_index * len(_BLOCKLIST_VIEWS) : 1
                + (address_index + 1) * len(_BLOCKLIST_VIEWS)
            ]
        ):
            return TokenFinding.BLOCKLISTED, f"{address_label} is on its blocklist"
    if pool_outcome in not_true_outcomes or wallet_outcome in not_true_outcomes:
        return _NOT_TRUE_RESULT
    if trial_result[0] is TokenFinding.UNKNOWN:
        return _not_lent_result(
            move, trial_result, pool_outcome, wallet_outcome if balance_raw else None
        )
    return _blocklist_result(trial_result, failed_calls, unlisted_outcome)


def _not_lent_result(
    move: TokenMove,
    trial_result: ScreenResult,
    pool_outcome: TransferOutcome | None,
    wallet_outcome: TransferOutcome | None,
) -> ScreenResult:
    """Return the finding for a token that the pool did not lend."""
    if pool_outcome is not TransferOutcome.FAILED:
        return trial_result
    if wallet_outcome in _SUCCESS_OUTCOMES:
        return TokenFinding.BLOCKLISTED, f"pool {move.pool.contract} cannot send it"
    if wallet_outcome is None:
        return TokenFinding.PAUSED, "pools cannot send it"
    return TokenFinding.PAUSED, "neither pools nor the wallet can send it"


def _blocklist_result(
    trial_result: ScreenResult,
    failed_calls: Sequence[FailedCall],
    unlisted_outcome: TransferOutcome | None,
) -> ScreenResult:
    """Return the finding for a token that transfers between other addresses, but not for an address
    of the plan.
    """
    for failed_call in failed_calls:
        if failed_call.outcome is None:
            return TokenFinding.UNKNOWN, "the endpoint cannot run a call from that address"
        pool = failed_call.move.pool.contract
        if failed_call.role == "payee":
            return (
                TokenFinding.BLOCKLISTED,
                f"{failed_call.move.payee} cannot receive it from pool {pool}",
            )
        if failed_call.role == "wallet":
            return TokenFinding.BLOCKLISTED, f"the wallet cannot send it to pool {pool}"
        if unlisted_outcome in _SUCCESS_OUTCOMES:
            return TokenFinding.BLOCKLISTED, f"{failed_call.move.spender} cannot spend it"
    # The token rejects a transfer of zero, and there is no allowance yet to test with.
    return trial_result


BLOCKS_BACK = 64
"""Number of blocks back to the balance that transfers have to explain. Nodes keep 128 states."""
TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
_SHARE_VIEWS = {
    "sharesOf": bytes.fromhex("f5eb42dc"),
    "scaledBalanceOf": bytes.fromhex("1da24f3e"),
    "gonsForBalance": bytes.fromhex("1bd39674"),
}
_GRANULARITY_SELECTOR = bytes.fromhex("556f0dc7")


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
        largest_token_moves = list(largest_moves(moves).values())
        if not largest_token_moves:
            return ()
        block_ref: dict[str, object] = {
            "blockHash": step.snapshot.head.hash,
            "requireCanonical": True,
        }
        trial_calls = [_trial_call(move, block_ref) for move in largest_token_moves]
        single_calls = [
            call for move in moves for call in _single_calls(step.snapshot, move, block_ref)
        ]
        trait_pages = LensPages(
            [
                trait_item
                for move in largest_token_moves
                for trait_item in _trait_items(step.snapshot, move.token)
            ]
        )
        balance_call = address_call(BALANCE_OF, step.snapshot.owner)
        balance_pages = LensPages(
            [CallItem(move.token, balance_call) for move in largest_token_moves]
        )
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
        trial_results = self._trial_results(
            largest_token_moves, [next(answers) for _ in trial_calls], block_ref
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
            trait_pages.requery_unread(self.transport, trait_calls, list(answers))
        )
        screened_tokens = []
        for token_index, move in enumerate(largest_token_moves):
            failed_calls = [call for call in all_failed_calls if call.move.token == move.token]
            screen_result = trial_results[token_index]
            if screen_result[0] is TokenFinding.UNKNOWN or failed_calls:
                screen_result = explain_failure(
                    self.transport, step.snapshot, move, screen_result, failed_calls, block_ref
                )
            if screen_result[0].is_tradable:
                screen_result = (
                    _judge_traits(trait_answers[4 * token_index : 4 * token_index + 4])
                    or self._find_rebasing(step, move.token, earlier_balances[token_index])
                    or screen_result
                )
            screened_tokens.append(ScreenedToken(move.token, *screen_result))
        return tuple(screened_tokens)

    def _trial_results(
        self, moves: Sequence[TokenMove], answers: Sequence[object], block_ref: object
    ) -> list[ScreenResult]:
        """Return the result of each trial. A trial that the node refused is repeated, and is
        UNKNOWN if refused again. Raises Retryable if the node refuses all, since that says nothing
        about a token.
        """
        trial_results = [_trial_result(self.transport, answer) for answer in answers]
        refused_trial_indexes = [
            trial_index
            for trial_index, trial_result in enumerate(trial_results)
            if trial_result is None
        ]
        if refused_trial_indexes:
            repeated_answers = self.transport.batch(
                [
                    _trial_call(moves[trial_index], block_ref)
                    for trial_index in refused_trial_indexes
                ]
            )
            for trial_index, answer in zip(refused_trial_indexes, repeated_answers, strict=True):
                trial_results[trial_index] = _trial_result(self.transport, answer)
        if not any(trial_results):
            raise Retryable(
                f"{self.transport.name} refuses the token screen",
                "it must allow eth_call of creation code",
                code=ErrorCode.SCREEN,
            )
        return [
            trial_result or (TokenFinding.UNKNOWN, "the endpoint refuses the screen")
            for trial_result in trial_results
        ]

    def _find_rebasing(
        self, step: StepInput, token: str, earlier_balance_raw: int | None
    ) -> ScreenResult | None:
        """Return REBASING if the wallet's balance changed over the last blocks without transfers,
        else None, also if the node lacks that state or the logs.

        The check can exclude a token but never clear it.
        """
        current_balance_raw = next(
            (holding.raw for holding in step.snapshot.holdings if holding.token == token), None
        )
        if (
            token == self.wrapped_native
            or current_balance_raw is None
            or earlier_balance_raw in (None, current_balance_raw)
        ):
            return None
        wallet_topic = hex_data(address_word(step.snapshot.owner))
        log_filter = {
            "address": token,
            "fromBlock": hex(_earlier_block(step.snapshot) + 1),
            "toBlock": hex(step.snapshot.head.number),
        }
        calls: list[RpcCall] = [
            ("eth_getLogs", [{**log_filter, "topics": topics}])
            for topics in ([TRANSFER_TOPIC, None, wallet_topic], [TRANSFER_TOPIC, wallet_topic])
        ]
        received_raw, sent_raw = (_transferred_raw(logs) for logs in self.transport.batch(calls))
        if (
            earlier_balance_raw is None
            or received_raw is None
            or sent_raw is None
            or earlier_balance_raw + received_raw - sent_raw == current_balance_raw
        ):
            return None
        return (
            TokenFinding.REBASING,
            f"since block {_earlier_block(step.snapshot)} the wallet's balance changed by"
            f" {current_balance_raw - earlier_balance_raw - received_raw + sent_raw} base units without a transfer",
        )


_RATE_LIMIT_CODES = (-32005, 429)
"""Error codes of a call that a node refuses because of its limits while it answers others of the
batch (EIP-1474, and common use)."""
_SUCCESS_OUTCOMES = (TransferOutcome.TRUE, TransferOutcome.SILENT)


def _trial_call(move: TokenMove, block_ref: object) -> RpcCall:
    """Return a call of TokenScreen's creation code for one token. Each token gets its own call,
    since state persists within a call and a token can prevent rollback.
    """
    loan_addresses = bytes.fromhex(move.token[2:]) + bytes.fromhex(move.pool.contract[2:])
    packed_loan = (
        loan_addresses + bytes([move.pool_flags]) + min(move.raw, 2**128 - 1).to_bytes(16, "big")
    )
    request = bytes([1]) + packed_loan
    constructor_argument = (
        uint_word(32) + uint_word(len(request)) + request + bytes(-len(request) % 32)
    )
    return (
        "eth_call",
        [{"data": own_artifact("TokenScreen").bytecode + constructor_argument.hex()}, block_ref],
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
        tested_raw = min(move.raw, balance_raw)
        calls.append((move, "wallet", transfer_call(token, wallet, pool, tested_raw, block_ref)))
        allowance_raw_by_key = {
            (allowance.token, allowance.spender): allowance.raw
            for allowance in reversed(snapshot.allowances)
        }
        spendable_raw = min(tested_raw, allowance_raw_by_key.get((token, move.spender), 0))
        calls.append(
            (
                move,
                "spender",
                transfer_from_call(token, move.spender, wallet, pool, spendable_raw, block_ref),
            )
        )
    return calls


def transfer_call(
    token: str, sender: str, recipient: str, amount_raw: int, block_ref: object
) -> RpcCall:
    """Return a call of transfer by `sender`."""
    calldata = TRANSFER_SELECTOR + address_word(recipient) + uint_word(amount_raw)
    return "eth_call", [{"from": sender, "to": token, "data": hex_data(calldata)}, block_ref]


def transfer_from_call(
    token: str, spender: str, sender: str, recipient: str, amount_raw: int, block_ref: object
) -> RpcCall:
    """Return a call of transferFrom by `spender`."""
    calldata = (
        TRANSFER_FROM_SELECTOR
        + address_word(sender)
        + address_word(recipient)
        + uint_word(amount_raw)
    )
    return "eth_call", [{"from": spender, "to": token, "data": hex_data(calldata)}, block_ref]


def _trait_items(snapshot: Snapshot, token: str) -> list[CallItem]:
    """Return calls of functions that only share-based or ERC-777 tokens have."""
    owner = snapshot.owner
    trait_calldata = (
        address_call(_SHARE_VIEWS["sharesOf"], owner),
        address_call(_SHARE_VIEWS["scaledBalanceOf"], owner),
        _SHARE_VIEWS["gonsForBalance"] + uint_word(10**6),
        _GRANULARITY_SELECTOR,
    )
    return [CallItem(token, calldata) for calldata in trait_calldata]


def _judge_traits(answers: Sequence[LensAnswer]) -> ScreenResult | None:
    for view_name, answer in zip(_SHARE_VIEWS, answers, strict=False):
        if isinstance(answer_uint(answer), int):
            return TokenFinding.REBASING, f"its balances are shares: {view_name}()"
    if isinstance(answer_uint(answers[3]), int):
        return TokenFinding.CALLBACK, "it is an ERC-777 token: granularity()"
    return None


def _earlier_block(snapshot: Snapshot) -> int:
    return max(0, snapshot.head.number - BLOCKS_BACK)


def _earlier_balances(pages: LensPages, answers: Sequence[object]) -> list[int | None]:
    """Return balances at an earlier block; None without an answer."""
    balances_raw: list[int | None] = []
    for page_items, page_answer in zip(pages.pages, answers, strict=True):
        if isinstance(page_answer, RpcFault):
            balances_raw += [None] * len(page_items)
            continue
        page_balances_raw = map(
            answer_uint, decode_page(page_items, parse_bytes(page_answer, "earlier balances"))
        )
        balances_raw += [
            None if isinstance(balance_raw, CallStatus) else balance_raw
            for balance_raw in page_balances_raw
        ]
    return balances_raw


def _transferred_raw(logs: object) -> int | None:
    """Return the total of Transfer events, base units; None if the node returned no usable logs."""
    if not isinstance(logs, list):
        return None
    total_raw = 0
    for log in logs:
        if not isinstance(log, dict) or len(log.get("topics", ())) != 3:
            return None
        transfer_raw = word_of(log.get("data"))
        if transfer_raw is None:
            return None
        total_raw += transfer_raw
    return total_raw
