"""Tries out every token that a plan moves, at its amounts and its block: whether what goes in comes out, for us, here, now.

Nothing needs the node's good will beyond eth_call: the pools themselves lend the tokens (TokenScreen), and single calls run as
the wallet, a pool or the router, which eth_call allows anybody. docs/tokens.md says what this shows, and what it cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.artifacts import own
from agent.chain.abi import BALANCE_OF, address_call, address_word, word
from agent.chain.ask import complete, page_calls
from agent.chain.lens import Answer, CallItem, Status, decode, pages, uint
from agent.chain.rpc import RpcFault, Transport
from agent.chain.screen_causes import Suspect, explain
from agent.chain.screen_moves import Move, largest, moves
from agent.chain.screen_words import Answered, Result, answered, records, tried, word_of
from agent.chain.wire import Call, hex_data, octets
from agent.errors import Retryable
from agent.model import Finding, Plan, ScreenedToken, StepInput

TRIES_PER_CALL = 1
"""What one token does stays in its own call: a hand keeps what it heard, and a token can see to it that this is not undone."""
BLOCKS_BACK = 64
"""Over so many blocks a wallet's balance must have changed by its transfers alone; nodes keep 128 states."""
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
    """Screens tokens through one line. `wrapped_native` changes balances by deposits too, without a transfer."""

    line: Transport
    wrapped_native: str

    def __call__(self, step: StepInput, plan: Plan) -> tuple[ScreenedToken, ...]:
        """One finding for each token that the plan moves, in one request where nothing is wrong. Raises Retryable."""
        return self.screen(step, moves(step, plan))

    def screen(self, step: StepInput, found: tuple[Move, ...]) -> tuple[ScreenedToken, ...]:
        """The same for given moves."""
        chosen = list(largest(found).values())
        if not chosen:
            return ()
        at: dict[str, object] = {"blockHash": step.snapshot.head.hash, "requireCanonical": True}
        asked, single = _tries(chosen, at), [call for move in found for call in _single(step, move, at)]
        habits = [item for move in chosen for item in _habits(step, move.token)]
        sized = pages(habits)
        balances = [CallItem(move.token, address_call(BALANCE_OF, step.snapshot.owner)) for move in chosen]
        past = page_calls(balances, pages(balances), hex(_since(step)))
        told = iter(self.line.batch([*asked, *past, *(call for _, _, call in single), *page_calls(habits, sized, at)]))
        results = self._tried(chosen, [next(told) for _ in asked], at)
        before = _before(balances, [next(told) for _ in past])
        moved = [_in_time(self.line, next(told)) for _ in single]
        suspects = [
            Suspect(move, who, how) for (move, who, _), one in zip(single, moved, strict=True) if (how := answered(one)) not in _FINE
        ]
        seen = complete(self.line, habits, sized, list(told), at)
        screened = []
        for number, move in enumerate(chosen):
            about = [one for one in suspects if one.move.token == move.token]
            result = results[number]
            if result[0] is Finding.UNKNOWN or about:
                result = explain(self.line, step, move, result, about, at)
            if result[0].accepted:
                result = _habit(seen[4 * number : 4 * number + 4]) or self._moved_alone(step, move.token, before[number]) or result
            screened.append(ScreenedToken(move.token, *result))
        return tuple(screened)

    def _tried(self, chosen: Sequence[Move], told: Sequence[object], at: object) -> list[Result]:
        """What became of each try. What the node refused is asked once more; refused again a token may be why, and is UNKNOWN.

        Raises Retryable where it refuses all: that says nothing of tokens, and none must be left alone, and others traded, for it.
        """
        results: list[Result | None] = []
        for start, answer in zip(range(0, len(chosen), TRIES_PER_CALL), told, strict=True):
            results += _read(_in_time(self.line, answer), min(TRIES_PER_CALL, len(chosen) - start))
        refused = [number for number, result in enumerate(results) if result is None]
        if refused:
            again = self.line.batch([_tries([chosen[number]], at)[0] for number in refused])
            for number, answer in zip(refused, again, strict=True):
                (results[number],) = _read(_in_time(self.line, answer), 1)
        if not any(results):
            raise Retryable(f"{self.line.name} refuses the token screen", "it must allow eth_call of creation code")
        return [result or (Finding.UNKNOWN, "the endpoint refuses the screen") for result in results]

    def _moved_alone(self, step: StepInput, token: str, then: int | None) -> Result | None:
        """REBASING where the wallet's balance changed over the last blocks by something else than transfers.

        Nothing where the node has no such state any more, or no logs: this looks back, and is no ground to trust a token.
        """
        now = next((held.raw for held in step.snapshot.holdings if held.token == token), None)
        if token == self.wrapped_native or now is None or then in (None, now):
            return None
        wallet = hex_data(address_word(step.snapshot.owner))
        span = {"address": token, "fromBlock": hex(_since(step) + 1), "toBlock": hex(step.snapshot.head.number)}
        asked: list[Call] = [
            ("eth_getLogs", [{**span, "topics": topics}]) for topics in ([TRANSFER_TOPIC, None, wallet], [TRANSFER_TOPIC, wallet])
        ]
        came, went = (_sum(logs) for logs in self.line.batch(asked))
        if then is None or came is None or went is None or then + came - went == now:
            return None
        return (
            Finding.REBASING,
            f"since block {_since(step)} the wallet's balance changed by {now - then - came + went} base units without a transfer",
        )


_LIMITED = (-32005, 429)
"""Codes of a call that a node refuses because of its limits, among others that it answers (EIP-1474, and usage)."""
_FINE = (Answered.TRUE, Answered.SILENT)


def _tries(chosen: Sequence[Move], at: object) -> list[Call]:
    """Calls of TokenScreen's creation code, some tokens each."""
    found: list[Call] = []
    for start in range(0, len(chosen), TRIES_PER_CALL):
        part = chosen[start : start + TRIES_PER_CALL]
        request = bytes([len(part)]) + b"".join(_packed(move) for move in part)
        argument = word(32) + word(len(request)) + request + bytes(-len(request) % 32)
        found.append(("eth_call", [{"data": own("TokenScreen").bytecode + argument.hex()}, at]))
    return found


def _packed(move: Move) -> bytes:
    addresses = bytes.fromhex(move.token[2:]) + bytes.fromhex(move.pool.address[2:])
    return addresses + bytes([move.kind]) + min(move.raw, 2**128 - 1).to_bytes(16, "big")


def _read(answer: object, count: int) -> list[Result | None]:
    """What `count` tries of one call say; None each where the node refused it."""
    if isinstance(answer, RpcFault):
        return [None] * count
    return [tried(record) for record in records(octets(answer, "the token screen"), count)]


def _in_time(line: Transport, answer: object) -> object:
    """The answer, unless it only says that too much is asked now: then Retryable, since that says nothing of a token."""
    if isinstance(answer, RpcFault) and answer.code in _LIMITED:
        raise Retryable(f"{line.name} refuses a part of the token screen: {answer.message}", "ask less often, or use another endpoint")
    return answer


def _single(step: StepInput, move: Move, at: object) -> list[tuple[Move, str, Call]]:
    """Calls as whoever really moves the token: (move, who, call). Nothing is asked that the balance does not allow."""
    wallet, found = step.snapshot.owner, []
    if move.payee is not None:
        found.append((move, "payee", transfer(move.token, move.pool.address, move.payee, move.raw, at)))
    held = next((held.raw for held in step.snapshot.holdings if held.token == move.token), 0)
    if move.spender is not None and held > 0:
        raw = min(move.raw, held)
        found.append((move, "wallet", transfer(move.token, wallet, move.pool.address, raw, at)))
        open_raw = next((a.raw for a in step.snapshot.allowances if (a.token, a.spender) == (move.token, move.spender)), 0)
        found.append((move, "spender", transfer_from(move.token, move.spender, wallet, move.pool.address, min(raw, open_raw), at)))
    return found


def transfer(token: str, sender: str, to: str, raw: int, at: object) -> Call:
    """A transfer of `raw` base units to `to`, as `sender`."""
    return "eth_call", [{"from": sender, "to": token, "data": hex_data(TRANSFER + address_word(to) + word(raw))}, at]


def transfer_from(token: str, spender: str, sender: str, to: str, raw: int, at: object) -> Call:
    """The same by the hand of `spender`: transferFrom."""
    data = TRANSFER_FROM + address_word(sender) + address_word(to) + word(raw)
    return "eth_call", [{"from": spender, "to": token, "data": hex_data(data)}, at]


def _habits(step: StepInput, token: str) -> list[CallItem]:
    """Functions that only tokens with such habits have."""
    owner = step.snapshot.owner
    asked = [address_call(_BY_SHARES["sharesOf"], owner), address_call(_BY_SHARES["scaledBalanceOf"], owner)]
    return [CallItem(token, data) for data in (*asked, _BY_SHARES["gonsForBalance"] + word(10**6), _GRANULARITY)]


def _habit(told: Sequence[Answer]) -> Result | None:
    for name, answer in zip(_BY_SHARES, told, strict=False):
        if isinstance(uint(answer), int):
            return Finding.REBASING, f"it counts in shares: {name}()"
    if isinstance(uint(told[3]), int):
        return Finding.CALLBACK, "it is an ERC-777 token: granularity()"
    return None


def _since(step: StepInput) -> int:
    return max(0, step.snapshot.head.number - BLOCKS_BACK)


def _before(items: Sequence[CallItem], told: Sequence[object]) -> list[int | None]:
    """Balances at an earlier block; None where there is no answer (any more)."""
    found: list[int | None] = []
    for page, answer in zip(pages(items), told, strict=True):
        asked = [items[index] for index in page]
        read = [Status.FAILED] * len(asked) if isinstance(answer, RpcFault) else decode(asked, octets(answer, "earlier balances"))
        values = [uint(one) for one in read]
        found += [value if isinstance(value, int) else None for value in values]
    return found


def _sum(logs: object) -> int | None:
    """Base units that Transfer events moved; None where the node has no logs for us."""
    if not isinstance(logs, list):
        return None
    amounts = [word_of(log.get("data")) if isinstance(log, dict) and len(log.get("topics", ())) == 3 else None for log in logs]
    return sum(raw for raw in amounts if raw is not None) if None not in amounts else None
