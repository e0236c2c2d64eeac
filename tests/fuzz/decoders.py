"""What nodes, files and calldata say, as bytes that anyone may have chosen: each decoder is a target that fails only in our own words.

A target takes bytes and returns, or raises an error of agent.errors: anything else is a defect. Answers of nodes are bodies of
HTTP answers, one to a line, which a question gets one after the other.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent import codec
from agent.chain import history, receipts, snapshot
from agent.chain import tokens as proxies
from agent.chain.endpoints import EndpointPool
from agent.chain.lens import decode_page, split_into_pages
from agent.chain.pools import own_positions
from agent.chain.pools.positions import resolve_positions
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.rpc import Transport, parse_quantity
from agent.chain.safe import SafeContract
from agent.chain.screening import TokenScreen
from agent.chain.second_quote import build_quoter
from agent.chain.sender import QuorumSender
from agent.chain.snapshot import ChainReader
from agent.chain.tokens import read_tokens
from agent.chain.watch import SnapshotScope, snapshot_parts, snapshot_questions
from agent.errors import Retryable, TrimtabError
from agent.model import ConfirmedPosition, Head, Plan, SignedTx, StepInput, UnsignedTx
from agent.ports import Grant
from agent.signing import calldata as calls
from agent.signing import liquidity as liquidity_calldata
from agent.signing import rules
from agent.signing.remote_key import RemoteKey
from agent.units import Token
from agent.venues.calldata import require_own_rebalancer
from agent.venues.discovery import discover_pools
from agent.venues.kinds.uniswap_v2 import UniswapV2
from agent.venues.kinds.uniswap_v3 import UniswapV3
from tests.support.fakes.clock import FakeClock
from tests.support.signables import SIGNABLES
from tests.support.signing import NONCES, WALLET

CRASHES = Path(__file__).parent / "crashes"
NOW_S = 1_800_000_000
Target = Callable[[bytes], object]


@dataclass(frozen=True)
class Scene:
    """What the recorded questions were about."""

    chain_id: int
    owner: str
    watch: SnapshotScope
    tokens: tuple[Token, ...]
    v2: UniswapV2
    v3: UniswapV3
    manager: str
    position: ConfirmedPosition
    rebalancer: str
    wrapped_native: str
    head: Head
    nonce: int
    mined: str
    tx: UnsignedTx
    step: StepInput
    plan: Plan


class ScriptedProvider(EndpointProvider):
    """A node that answers with given bodies, one after the other, whatever it is asked."""

    def __init__(self, bodies: list[bytes]) -> None:
        super().__init__("http://127.0.0.1:1", "canned", attempts=1)
        self._bodies = iter(bodies)

    def _post(self, request_body: bytes) -> tuple[int, bytes, str | None]:
        del request_body
        answer = next(self._bodies, None)
        if answer is None:
            raise Retryable("nothing more to say")
        return 200, answer, None


def _endpoint_pool(line: Transport) -> EndpointPool:
    return EndpointPool([line], 1)


def _sender(line: Transport, at: Scene) -> QuorumSender:
    return QuorumSender(_endpoint_pool(line), at.chain_id)


def _factories(at: Scene) -> Mapping[str, str]:
    return {"uniswap_v2": at.v2.factory, "uniswap_v3": at.v3.factory}


def _amm_venues(at: Scene) -> tuple[UniswapV2, UniswapV3]:
    return at.v2, at.v3


def second_quotes(line: Transport, at: Scene) -> list[int]:
    """What the venues' contracts and uniswap-python say of each leg."""
    unanimous_quoter = build_quoter(line, [at.v2, at.v3])
    return [unanimous_quoter.quote(leg, leg.amount_in_raw, at.head.hash) for leg in at.plan.legs]


Question = Callable[[Transport, Scene], object]
QUESTIONS: dict[str, Question] = {
    "snapshot": lambda line, at: ChainReader([line], at.chain_id, at.watch, FakeClock(NOW_S), 1).snapshot(),
    "tokens": lambda line, at: read_tokens(line, [token.address for token in at.tokens]),
    "pools": lambda line, at: discover_pools(line, _amm_venues(at), at.tokens, ()),
    "position": lambda line, at: resolve_positions(line, [at.position], _factories(at)),
    "strays": lambda line, at: own_positions.find_unsolicited_positions(line, at.owner, at.manager, at.watch.pools, (), "latest"),
    "our_code": lambda line, at: require_own_rebalancer(line, at.rebalancer),
    "proxies": lambda line, at: proxies.find_proxies(line, [token.address for token in at.tokens]),
    "past": lambda line, at: snapshot.read_past_prices(_endpoint_pool(line), at.watch, at.head, 2),
    "last_day": lambda line, at: history.recent_transactions(_endpoint_pool(line), at.owner, at.head, at.nonce),
    "used_by": lambda line, at: receipts.find_tx_by_nonce(_endpoint_pool(line), at.owner, at.nonce - 1, 0, at.head.number),
    "executed_in": lambda line, at: receipts.find_safe_execution(
        _endpoint_pool(line),
        at.owner,
        at.mined,
        lambda node, block: parse_quantity(node.call("eth_getTransactionCount", [at.owner, hex(block)]), "nonce") >= at.nonce,
        at.head.number - 5,
        at.head.number,
    ),
    "screen": lambda line, at: TokenScreen(line, at.wrapped_native)(at.step, at.plan),
    "second_quote": second_quotes,
    "safe_nonce": lambda line, at: SafeContract(line, at.owner).nonce(),
    "safe_hash": lambda line, at: SafeContract(line, at.owner).require_hash(at.tx),
    "safe_known": lambda line, at: SafeContract(line, at.owner).require_supported(),
    "head": lambda line, at: _sender(line, at).head(),
    "nonces": lambda line, at: _sender(line, at).nonces(at.owner),
    "block_hash": lambda line, at: _sender(line, at).block_hash(at.head.number),
    "look": lambda line, at: _sender(line, at).status_of(at.mined),
    "simulate": lambda line, at: _sender(line, at).simulate(at.tx, at.owner),
    "send": lambda line, at: _sender(line, at).send(SignedTx(b"\x02", at.mined)),
}
"""What is asked of nodes."""


def question_target(question: Question, at: Scene) -> Target:
    """A question as a target."""
    return lambda data: question(ScriptedProvider(data.split(b"\n")), at)


def lens_page(at: Scene) -> Target:
    """A page of the lens as bytes, and what becomes of it."""
    items = [question.item for question in snapshot_questions(at.watch)]
    assert len(split_into_pages(items)) == 1, "the page that was recorded is the only one"
    return lambda data: snapshot_parts(at.watch, decode_page(items, data))


def text_target(kind: object) -> Target:
    """A type of the model as text."""
    return lambda data: codec.loads(kind, data.decode("utf-8", errors="replace"))


def calldata(data: bytes) -> None:
    """Calldata through every decoder of it."""
    for decoder in (calls.decode, liquidity_calldata.decode):
        try:
            decoder(data)
        except TrimtabError:
            continue


def signed(data: bytes) -> None:
    """Calldata in the place of that of each transaction that may be signed."""
    for signable in SIGNABLES.values():
        try:
            rules.require_signable(replace(signable.tx, data="0x" + data.hex()), signable.grant, signable.rules, NONCES)
        except TrimtabError:
            continue


def key_service(data: bytes) -> object:
    """What a service that signs digests answers."""
    return RemoteKey(WALLET, lambda _: data).sign_transaction(next(iter(SIGNABLES.values())).tx)


def targets(at: Scene) -> dict[str, Target]:
    """All of them, by name."""
    return {
        **{name: question_target(question, at) for name, question in QUESTIONS.items()},
        "lens_page": lens_page(at),
        "step_input": text_target(StepInput),
        "plan": text_target(Plan),
        "grant": text_target(Grant),
        "calldata": calldata,
        "signed": signed,
        "key_service": key_service,
    }


def survives(target: Target, data: bytes) -> None:
    """Raises whatever is no error of ours."""
    try:
        target(data)
    except TrimtabError:
        return


def crashes(name: str) -> list[bytes]:
    """What once broke a target."""
    return [path.read_bytes() for path in sorted((CRASHES / name).glob("*"))]


INTERESTING = (
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b"0",
    b"-1",
    b"1e999",
    b'"0x"',
    b'"0x0"',
    b'"0x' + b"f" * 64 + b'"',
    b'"0xzz"',
    b'"\xff"',
)
"""What may stand in the place of a value."""
_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+|null|true|false')


def mutations(data: bytes, draw: random.Random) -> Iterator[bytes]:
    """The same bytes changed in some way, without end: values of JSON, single bytes, cuts, doublings."""
    values = [match.span() for match in itertools.islice(_VALUE.finditer(data), 2_000)]
    while True:
        raw = bytearray(data)
        for _ in range(draw.choice((1, 1, 2, 5))):
            at = draw.randrange(len(raw) + 1)
            way = draw.randrange(6)
            if way <= 1 and values:
                start, end = draw.choice(values)
                raw[start:end] = draw.choice(INTERESTING)
            elif way == 2:
                raw[at : at + 1] = bytes([draw.randrange(256)])
            elif way == 3:
                raw[at : at + draw.choice((1, 32, 500))] = b""
            elif way == 4:
                raw[at:at] = raw[at : at + draw.choice((1, 32, 64))]
            else:
                raw[at : at + 32] = draw.choice((bytes(32), b"\xff" * 32, (1).to_bytes(32, "big"), b"0" * 32, b"f" * 32))
        yield bytes(raw)
