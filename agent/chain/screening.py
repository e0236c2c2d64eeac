"""Token screen: simulate the transfer of every token of a plan, at its amounts, accounts and block.

It needs only eth_call: the pools themselves lend the tokens (TokenScreen), and single calls run as
the wallet, a pool or the router, which eth_call allows for any sender. docs/tokens.md describes its
reach and limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from agent.amm.v3.pool import V3Pool
from agent.artifacts import own_artifact
from agent.chain.lens import (
    BALANCE_OF,
    CallItem,
    CallStatus,
    LensAnswer,
    address_call,
    address_word,
    answer_uint,
    complete_answers,
    decode_page,
    page_calls,
    split_into_pages,
    uint_word,
)
from agent.chain.rpc import RpcCall, RpcFault, Transport, hex_data, parse_bytes
from agent.errors import ErrorCode, Retryable
from agent.model import LegFunding, Plan, Pool, Provide, ScreenedToken, StepInput, TokenFinding
from agent.units import BPS, NATIVE

# --- Moves of each token in a plan: from pools to recipients, and from senders into pools.


@dataclass(frozen=True, slots=True)
class TokenMove:
    """`raw` base units of a token that a pool pays to `payee`, or that `spender` takes from the
    wallet. One of both is set; a sale of a router balance from an earlier leg has neither.
    """

    token: str
    pool: Pool
    raw: int
    payee: str | None = None
    spender: str | None = None

    @property
    def kind(self) -> int:
        """Return flags for TokenScreen: bit 0 the token is token1, bit 1 the pool is V3."""
        return (self.token == self.pool.token1) + 2 * isinstance(self.pool, V3Pool)


def plan_token_moves(step: StepInput, plan: Plan) -> tuple[TokenMove, ...]:
    """Everything that legs exchange and that is provided as liquidity, in the plan's order."""
    return tuple(move for move in (*_legs(step, plan), *_provided(step, plan)) if move.raw > 0)


def _legs(step: StepInput, plan: Plan) -> Iterator[TokenMove]:
    pools = {pool.address: pool for pool in step.snapshot.pools}
    router, wallet = step.execution.router, step.snapshot.owner
    for leg in plan.legs:
        pool = pools.get(leg.pool)
        if pool is None or NATIVE in (leg.token_in, leg.token_out):
            continue  # wrapping: the wrapped token is tested at its swap
        yield TokenMove(
            leg.token_in,
            pool,
            leg.amount_in_raw,
            spender=router if leg.source is LegFunding.WALLET else None,
        )
        yield TokenMove(
            leg.token_out,
            pool,
            leg.amount_out_raw,
            payee=wallet if leg.sink is LegFunding.WALLET else router,
        )


def _provided(step: StepInput, plan: Plan) -> Iterator[TokenMove]:
    pools = {pool.address: pool for pool in step.snapshot.pools}
    for action in plan.actions:
        pool = pools.get(action.pool)
        if isinstance(action, Provide) and pool is not None:
            for token, raw in zip((action.token0, action.token1), action.desired_raw, strict=True):
                yield TokenMove(token, pool, raw, spender=action.contract)


def initial_token_moves(step: StepInput) -> tuple[TokenMove, ...]:
    """Return a transfer of each token without a plan: the wallet's balance, or a hundredth of its
    deepest pool, both ways.
    """
    held = {holding.token: holding.raw for holding in step.snapshot.holdings}
    found = []
    for token in (*(asset.token for asset in step.portfolio.assets), *step.portfolio.hubs):
        depths = [
            (pool.depth(token.address), pool)
            for pool in step.snapshot.pools
            if token.address in (pool.token0, pool.token1)
        ]
        deepest_raw, pool = max(depths, key=lambda one: one[0], default=(0, None))
        raw = min(held.get(token.address, 0) or deepest_raw // 100, deepest_raw // 2)
        if pool is not None and raw > 0:
            found.append(
                TokenMove(token.address, pool, raw, step.snapshot.owner, step.execution.router)
            )
    return tuple(found)


def largest_moves(found: tuple[TokenMove, ...]) -> dict[str, TokenMove]:
    """The largest move of each token."""
    chosen: dict[str, TokenMove] = {}
    for move in found:
        if move.token not in chosen or move.raw > chosen[move.token].raw:
            chosen[move.token] = move
    return chosen


# --- Findings of trials: the record of TokenScreen and the answers to single calls, as a finding.


RECORD_BYTES = 385
FORMAT = 1
_UNKNOWN = 2**256 - 1
SHARES = 2
"""Base units by which share-based tokens round a transfer."""
ScreenResult = tuple[TokenFinding, str]


class TransferOutcome(Enum):
    """A token's answer to a call that moves it; the first five are numbered as in ScreenHand."""

    FAILED = 0
    SILENT = 1
    TRUE = 2
    FALSE = 3
    ODD = 4
    UNTRIED = 5


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial of TokenScreen: base units lent, balances on the way (see
    contracts/src/TokenScreen.sol), hooks called.
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


def decode_records(page: bytes, count: int) -> list[TrialRecord]:
    """The records of one answer. Raises Retryable if the bytes are not an answer to `count`
    tries.
    """
    if len(page) != 1 + count * RECORD_BYTES or page[0] != FORMAT:
        raise Retryable(
            "the endpoint's answer to the token screen is not its format",
            "it must allow eth_call of creation code",
        )
    found = []
    for number in range(count):
        at = 1 + number * RECORD_BYTES
        w = [int.from_bytes(page[at + 1 + 32 * i : at + 33 + 32 * i], "big") for i in range(12)]
        if page[at] > 4 or max(w[4], w[7], w[8]) > 4:
            raise Retryable("the endpoint's answer to the token screen has an unknown status")
        moves = (TransferOutcome(w[4]), TransferOutcome(w[7]), TransferOutcome(w[8]))
        found.append(
            TrialRecord(
                page[at],
                w[0],
                w[1],
                w[2],
                w[3],
                moves[0],
                w[5],
                w[6],
                moves[1],
                moves[2],
                w[9],
                w[10],
                w[11],
            )
        )
    return found


def judge_trial(record: TrialRecord) -> ScreenResult:
    """Return the finding of one trial. A pool that did not lend is UNKNOWN, which further calls
    resolve.
    """
    if record.status == 4:
        return TokenFinding.UNKNOWN, "the endpoint gives too little gas"
    if record.status == 3:
        return TokenFinding.UNREADABLE, "the pool's balance"
    if record.status == 2:
        return TokenFinding.UNKNOWN, "the pool holds none of it"
    if record.status == 1:
        return TokenFinding.UNKNOWN, "the pool could not pay it out"
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
        return TokenFinding.UNREADABLE, "a balance in the middle of a transfer"
    answers = {
        "transfer": record.transfer,
        "approve": record.approve,
        "transferFrom": record.transfer_from,
    }
    for name, answer in answers.items():
        if answer in (TransferOutcome.FALSE, TransferOutcome.ODD):
            return (
                TokenFinding.FALSE_RETURNING,
                (
                    f"{name} answered"
                    f" {'false' if answer is TransferOutcome.FALSE else 'neither true nor nothing'}"
                ),
            )
    for name, answer in answers.items():
        if answer is TransferOutcome.FAILED:
            return (
                TokenFinding.HONEYPOT,
                f"{name} of {record.lent} base units that a pool had paid reverts",
            )
    if record.hooks:
        return TokenFinding.CALLBACK, "sender and recipient are called on transfer"
    return _balanced(record, TransferOutcome.SILENT in answers.values())


def _balanced(record: TrialRecord, silent: bool) -> ScreenResult:
    """Return the finding of a trial by comparing every balance change with the amount moved."""
    steps = (
        ("a pool pays", record.lent, record.came),
        ("it is passed on", record.came, record.passed_on),
        ("it is sold into a pool", record.passed_on, record.pool_after - record.pool_lent),
    )
    lost = max(sent - got for _, sent, got in steps)
    if lost > SHARES:
        when, sent, got = max(steps, key=lambda one: one[1] - one[2])
        return (
            TokenFinding.FEE_ON_TRANSFER,
            (
                f"of {sent} base units {got} arrive when {when}, {-(-(sent - got) * BPS // sent)}"
                " bps less"
            ),
        )
    exact = all(sent == got for _, sent, got in steps) and not record.kept and not record.left
    if not exact or record.pool_before - record.pool_lent != record.lent:
        return TokenFinding.REBASING, "balances do not change by what is moved"
    return (TokenFinding.NO_RETURN_VALUE if silent else TokenFinding.CLEAN), ""


def transfer_outcome(answer: object) -> TransferOutcome | None:
    """Return a token's answer to a call by eth_call; None if the node could not run it."""
    if isinstance(answer, RpcFault):
        return TransferOutcome.FAILED if _reverted(answer) else None
    if answer == "0x":
        return TransferOutcome.SILENT
    word = word_of(answer)
    return (
        TransferOutcome.ODD
        if word not in (0, 1)
        else TransferOutcome.TRUE
        if word
        else TransferOutcome.FALSE
    )


def word_of(answer: object) -> int | None:
    """Return the single word of an answer; None for any other answer."""
    try:
        return int.from_bytes(parse_bytes(answer, "a word", 32), "big")
    except Retryable:
        return None


def _reverted(fault: RpcFault) -> bool:
    """True if the call ran and failed; nodes word it differently."""
    text = fault.message.lower()
    ran = ("revert", "invalid opcode", "out of gas", "outofgas", "stack", "invalid jump")
    return fault.code == 3 or bool(fault.data) or any(word in text for word in ran)


# --- Reasons why a token does not move: paused for all, closed to one address, or known only to its
# issuer.


NOBODY = "0x000000000000000000000000000000007472696D"
"""An address that no blocklist has reason to contain."""
_PAUSED = bytes.fromhex("5c975abb")
_LISTS = ("fe575a87", "e47d6060", "dbac26e9", "fbac3951", "59bf1abe")
"""isBlacklisted, isBlackListed, blacklisted, isBlocked, getBlackListStatus, all (address)."""
_TRANSFER, _TRANSFER_FROM = bytes.fromhex("a9059cbb"), bytes.fromhex("23b872dd")


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A single call that failed: its move, its party ("payee", "wallet", "spender"), and the
    result.
    """

    move: TokenMove
    who: str
    how: TransferOutcome | None


def explain_failure(
    line: Transport,
    step: StepInput,
    move: TokenMove,
    result: ScreenResult,
    suspects: Sequence[FailedCall],
    at: object,
) -> ScreenResult:
    """Return the finding of one token whose trial or single calls failed, with one more request."""
    if result[0] is not TokenFinding.UNKNOWN and not result[0].accepted:
        return result
    if any(one.how in (TransferOutcome.FALSE, TransferOutcome.ODD) for one in suspects):
        return (
            TokenFinding.FALSE_RETURNING,
            "a transfer answered false, or neither true nor nothing",
        )
    wallet, places = step.snapshot.owner, {step.snapshot.owner: "the wallet"}
    for one in (move, *(suspect.move for suspect in suspects)):
        places |= {
            one.pool.address: f"pool {one.pool.address}",
            one.payee or wallet: places.get(one.payee or wallet, "the router"),
        }
        places |= {one.spender or wallet: places.get(one.spender or wallet, "the router")}
    items = [CallItem(move.token, _PAUSED)]
    items += [
        CallItem(move.token, address_call(bytes.fromhex(view), address))
        for address in places
        for view in _LISTS
    ]
    sized = split_into_pages(items)
    held = next((held.raw for held in step.snapshot.holdings if held.token == move.token), 0)
    calls = [
        _as(
            move.token,
            move.pool.address,
            _TRANSFER + address_word(NOBODY) + uint_word(move.raw),
            at,
        ),
        _as(
            move.token,
            wallet,
            _TRANSFER + address_word(NOBODY) + uint_word(min(held, move.raw)),
            at,
        ),
        _as(
            move.token,
            NOBODY,
            _TRANSFER_FROM + address_word(wallet) + address_word(move.pool.address) + uint_word(0),
            at,
        ),
    ]
    replies = line.batch([*calls, *page_calls(items, sized, at)])
    by_pool, by_wallet, by_nobody = (transfer_outcome(answer) for answer in replies[:3])
    errors = [
        answer_uint(answer) for answer in complete_answers(line, items, sized, replies[3:], at)
    ]
    if errors[0] == 1:
        return TokenFinding.PAUSED, "paused() returns true"
    for number, place in enumerate(places.values()):
        if 1 in errors[1 + number * len(_LISTS) : 1 + (number + 1) * len(_LISTS)]:
            return TokenFinding.BLOCKLISTED, f"{place} is on its list"
    if TransferOutcome.FALSE in (by_pool, by_wallet) or TransferOutcome.ODD in (by_pool, by_wallet):
        return (
            TokenFinding.FALSE_RETURNING,
            "a transfer answered false, or neither true nor nothing",
        )
    if result[0] is TokenFinding.UNKNOWN:
        return _not_lent(move, result, by_pool, by_wallet if held else None)
    return _refused(result, suspects, by_nobody)


def _as(token: str, sender: str, data: bytes, at: object) -> RpcCall:
    return "eth_call", [{"from": sender, "to": token, "data": hex_data(data)}, at]


def _not_lent(
    move: TokenMove,
    result: ScreenResult,
    by_pool: TransferOutcome | None,
    by_wallet: TransferOutcome | None,
) -> ScreenResult:
    """The pool did not lend it."""
    if by_pool is not TransferOutcome.FAILED:
        return result
    if by_wallet in (TransferOutcome.TRUE, TransferOutcome.SILENT):
        return TokenFinding.BLOCKLISTED, f"pool {move.pool.address} may not send it"
    return (
        TokenFinding.PAUSED,
        "pools cannot send it" if by_wallet is None else "neither pools nor the wallet can send it",
    )


def _refused(
    result: ScreenResult, suspects: Sequence[FailedCall], by_nobody: TransferOutcome | None
) -> ScreenResult:
    """Return the finding of a token that moves between unrelated addresses but not for an address
    of the plan.
    """
    for one in suspects:
        if one.how is None:
            return TokenFinding.UNKNOWN, "the endpoint runs no call from there"
        if one.who == "payee":
            return (
                TokenFinding.BLOCKLISTED,
                f"{one.move.payee} may not receive it from pool {one.move.pool.address}",
            )
        if one.who == "wallet":
            return (
                TokenFinding.BLOCKLISTED,
                f"the wallet may not send it into pool {one.move.pool.address}",
            )
        if by_nobody in (TransferOutcome.TRUE, TransferOutcome.SILENT):
            return TokenFinding.BLOCKLISTED, f"{one.move.spender} may not spend it"
    return result  # a token that moves no zero: nothing was approved yet, so nothing more could be tried


TRIES_PER_CALL = 1
"""One token per call: a call keeps state between tokens, and a token can prevent rollback."""
BLOCKS_BACK = 64
"""Blocks over which a wallet's balance may change by transfers alone; nodes keep 128 states."""
TRANSFER = bytes.fromhex("a9059cbb")
TRANSFER_FROM = bytes.fromhex("23b872dd")
TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
_BY_SHARES = {
    "sharesOf": bytes.fromhex("f5eb42dc"),
    "scaledBalanceOf": bytes.fromhex("1da24f3e"),
    "gonsForBalance": bytes.fromhex("1bd39674"),
}
_GRANULARITY = bytes.fromhex("556f0dc7")


@dataclass(frozen=True, slots=True)
class TokenScreen:
    """Screens tokens through one line. `wrapped_native` changes balances by deposits too, without a
    transfer.
    """

    line: Transport
    wrapped_native: str

    def __call__(self, step: StepInput, plan: Plan) -> tuple[ScreenedToken, ...]:
        """One finding for each token that the plan moves, in one request where nothing is wrong.
        Raises Retryable.
        """
        return self.screen(step, plan_token_moves(step, plan))

    def screen(self, step: StepInput, found: tuple[TokenMove, ...]) -> tuple[ScreenedToken, ...]:
        """Return the findings for given moves."""
        chosen = list(largest_moves(found).values())
        if not chosen:
            return ()
        at: dict[str, object] = {"blockHash": step.snapshot.head.hash, "requireCanonical": True}
        asked, single = (
            _tries(chosen, at),
            [call for move in found for call in _single(step, move, at)],
        )
        habits = [item for move in chosen for item in _habits(step, move.token)]
        sized = split_into_pages(habits)
        balances = [
            CallItem(move.token, address_call(BALANCE_OF, step.snapshot.owner)) for move in chosen
        ]
        past = page_calls(balances, split_into_pages(balances), hex(_since(step)))
        answers = iter(
            self.line.batch(
                [*asked, *past, *(call for _, _, call in single), *page_calls(habits, sized, at)]
            )
        )
        results = self._tried(chosen, [next(answers) for _ in asked], at)
        before = _before(balances, [next(answers) for _ in past])
        moved = [_in_time(self.line, next(answers)) for _ in single]
        suspects = [
            FailedCall(move, who, how)
            for (move, who, _), one in zip(single, moved, strict=True)
            if (how := transfer_outcome(one)) not in _FINE
        ]
        seen = complete_answers(self.line, habits, sized, list(answers), at)
        screened = []
        for number, move in enumerate(chosen):
            about = [one for one in suspects if one.move.token == move.token]
            result = results[number]
            if result[0] is TokenFinding.UNKNOWN or about:
                result = explain_failure(self.line, step, move, result, about, at)
            if result[0].accepted:
                result = (
                    _habit(seen[4 * number : 4 * number + 4])
                    or self._moved_alone(step, move.token, before[number])
                    or result
                )
            screened.append(ScreenedToken(move.token, *result))
        return tuple(screened)

    def _tried(
        self, chosen: Sequence[TokenMove], answers: Sequence[object], at: object
    ) -> list[ScreenResult]:
        """Return the result of each trial; one that the node refused is repeated alone, and UNKNOWN
        if refused again. Raises Retryable if the node refuses all: that says nothing about tokens,
        and must exclude none.
        """
        results: list[ScreenResult | None] = []
        for start, answer in zip(range(0, len(chosen), TRIES_PER_CALL), answers, strict=True):
            results += _read(_in_time(self.line, answer), min(TRIES_PER_CALL, len(chosen) - start))
        refused = [number for number, result in enumerate(results) if result is None]
        if refused:
            again = self.line.batch([_tries([chosen[number]], at)[0] for number in refused])
            for number, answer in zip(refused, again, strict=True):
                (results[number],) = _read(_in_time(self.line, answer), 1)
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

    def _moved_alone(self, step: StepInput, token: str, then: int | None) -> ScreenResult | None:
        """Return REBASING if the wallet's balance changed over the last blocks other than by
        transfers. None if the node lacks that state or the logs. Looking back can exclude a token
        but never clear it.
        """
        now = next((held.raw for held in step.snapshot.holdings if held.token == token), None)
        if token == self.wrapped_native or now is None or then in (None, now):
            return None
        wallet = hex_data(address_word(step.snapshot.owner))
        span = {
            "address": token,
            "fromBlock": hex(_since(step) + 1),
            "toBlock": hex(step.snapshot.head.number),
        }
        asked: list[RpcCall] = [
            ("eth_getLogs", [{**span, "topics": topics}])
            for topics in ([TRANSFER_TOPIC, None, wallet], [TRANSFER_TOPIC, wallet])
        ]
        came, went = (_sum(logs) for logs in self.line.batch(asked))
        if then is None or came is None or went is None or then + came - went == now:
            return None
        return (
            TokenFinding.REBASING,
            (
                f"since block {_since(step)} the wallet's balance changed by"
                f" {now - then - came + went} base units without a transfer"
            ),
        )


_LIMITED = (-32005, 429)
"""Codes of a call that a node refuses because of its limits, among others that it answers
(EIP-1474, and usage)."""
_FINE = (TransferOutcome.TRUE, TransferOutcome.SILENT)


def _tries(chosen: Sequence[TokenMove], at: object) -> list[RpcCall]:
    """Calls of TokenScreen's creation code, some tokens each."""
    found: list[RpcCall] = []
    for start in range(0, len(chosen), TRIES_PER_CALL):
        part = chosen[start : start + TRIES_PER_CALL]
        request = bytes([len(part)]) + b"".join(_packed(move) for move in part)
        argument = uint_word(32) + uint_word(len(request)) + request + bytes(-len(request) % 32)
        found.append(
            ("eth_call", [{"data": own_artifact("TokenScreen").bytecode + argument.hex()}, at])
        )
    return found


def _packed(move: TokenMove) -> bytes:
    addresses = bytes.fromhex(move.token[2:]) + bytes.fromhex(move.pool.address[2:])
    return addresses + bytes([move.kind]) + min(move.raw, 2**128 - 1).to_bytes(16, "big")


def _read(answer: object, count: int) -> list[ScreenResult | None]:
    """Return the results of `count` trials of one call; None each if the node refused it."""
    if isinstance(answer, RpcFault):
        return [None] * count
    return [
        judge_trial(record)
        for record in decode_records(parse_bytes(answer, "the token screen"), count)
    ]


def _in_time(line: Transport, answer: object) -> object:
    """Return the answer; raise Retryable for a rate limit, which says nothing about a token."""
    if isinstance(answer, RpcFault) and answer.code in _LIMITED:
        raise Retryable(
            f"{line.name} refuses a part of the token screen: {answer.message}",
            "ask less often, or use another endpoint",
            code=ErrorCode.RATE_LIMIT,
        )
    return answer


def _single(step: StepInput, move: TokenMove, at: object) -> list[tuple[TokenMove, str, RpcCall]]:
    """Return calls as the real sender of each token: (move, role, call). None exceeds the
    balance.
    """
    wallet, found = step.snapshot.owner, []
    if move.payee is not None:
        found.append(
            (move, "payee", transfer(move.token, move.pool.address, move.payee, move.raw, at))
        )
    held = next((held.raw for held in step.snapshot.holdings if held.token == move.token), 0)
    if move.spender is not None and held > 0:
        raw = min(move.raw, held)
        found.append((move, "wallet", transfer(move.token, wallet, move.pool.address, raw, at)))
        open_raw = next(
            (
                a.raw
                for a in step.snapshot.allowances
                if (a.token, a.spender) == (move.token, move.spender)
            ),
            0,
        )
        found.append(
            (
                move,
                "spender",
                transfer_from(
                    move.token, move.spender, wallet, move.pool.address, min(raw, open_raw), at
                ),
            )
        )
    return found


def transfer(token: str, sender: str, to: str, raw: int, at: object) -> RpcCall:
    """A transfer of `raw` base units to `to`, as `sender`."""
    return "eth_call", [
        {
            "from": sender,
            "to": token,
            "data": hex_data(TRANSFER + address_word(to) + uint_word(raw)),
        },
        at,
    ]


def transfer_from(token: str, spender: str, sender: str, to: str, raw: int, at: object) -> RpcCall:
    """Return a call of transferFrom by `spender`."""
    data = TRANSFER_FROM + address_word(sender) + address_word(to) + uint_word(raw)
    return "eth_call", [{"from": spender, "to": token, "data": hex_data(data)}, at]


def _habits(step: StepInput, token: str) -> list[CallItem]:
    """Functions that only tokens with such habits have."""
    owner = step.snapshot.owner
    asked = [
        address_call(_BY_SHARES["sharesOf"], owner),
        address_call(_BY_SHARES["scaledBalanceOf"], owner),
    ]
    return [
        CallItem(token, data)
        for data in (*asked, _BY_SHARES["gonsForBalance"] + uint_word(10**6), _GRANULARITY)
    ]


def _habit(answers: Sequence[LensAnswer]) -> ScreenResult | None:
    for name, answer in zip(_BY_SHARES, answers, strict=False):
        if isinstance(answer_uint(answer), int):
            return TokenFinding.REBASING, f"it counts in shares: {name}()"
    if isinstance(answer_uint(answers[3]), int):
        return TokenFinding.CALLBACK, "it is an ERC-777 token: granularity()"
    return None


def _since(step: StepInput) -> int:
    return max(0, step.snapshot.head.number - BLOCKS_BACK)


def _before(items: Sequence[CallItem], answers: Sequence[object]) -> list[int | None]:
    """Return balances at an earlier block; None without an answer."""
    found: list[int | None] = []
    for page, answer in zip(split_into_pages(items), answers, strict=True):
        asked = [items[index] for index in page]
        read = (
            [CallStatus.FAILED] * len(asked)
            if isinstance(answer, RpcFault)
            else decode_page(asked, parse_bytes(answer, "earlier balances"))
        )
        values = [answer_uint(one) for one in read]
        found += [value if isinstance(value, int) else None for value in values]
    return found


def _sum(logs: object) -> int | None:
    """Base units that Transfer events moved; None if the node has no logs for us."""
    if not isinstance(logs, list):
        return None
    amounts = [
        (
            word_of(log.get("data"))
            if isinstance(log, dict) and len(log.get("topics", ())) == 3
            else None
        )
        for log in logs
    ]
    return sum(raw for raw in amounts if raw is not None) if None not in amounts else None
