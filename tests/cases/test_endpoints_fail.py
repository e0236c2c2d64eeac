"""A whole rebalance on anvil while one of three endpoints is dead, slow, busy, behind or lying: done exactly once, and it is named."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.app.start.doctor.checks import doctor
from agent.app.start.trust import pin_all
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.rpc import Transport
from agent.config.loaded import LoadedConfig
from agent.errors import Refused, Retryable
from agent.localchain import LocalChain
from agent.localchain.nodes import free_port
from tests.support.agents import ROOMY, Changes, agent_config, fund, purse, reopened_agent, require_exact, require_rebalance, yes
from tests.support.endpoints import Answerer, Reply, altering_answerer, methods, passing_on, serve
from tests.support.markets.endpoints import endpoint_of
from tests.support.text import mentions, raises_code

TWO = {"WETH": "50%", "USDC": "50%"}
YEAR_S = 365 * 86_400
TIMEOUT_S = 0.4
SEND = "eth_sendRawTransaction"
Sick = Callable[[str], Answerer]
"""From the node's URL to a server in front of it."""


def lying(alter: Callable[[str, list[Any], Any], Any]) -> Sick:
    return lambda url: altering_answerer(url, alter)


def instead(reply: Callable[[], Reply]) -> Sick:
    return lambda url: lambda request: reply()


def hanging(url: str) -> Answerer:
    """Never answers in time; lets go a little later so that no thread stays."""
    return lambda request: Reply(b"{}", delay_s=2 * TIMEOUT_S)


def accepts_and_breaks_off(url: str) -> Answerer:
    """The node has the transaction, and the connection ends before it can say so."""
    forward = passing_on(url)

    def answer(request: Any) -> Reply:
        reply = forward(request)
        return Reply(reply.body[:5], claimed_length=5_000) if SEND in methods(request) else reply

    return answer


def keeps_back(url: str) -> Answerer:
    """Says that it took the transaction, and shows it to nobody."""
    forward = passing_on(url)

    def answer(request: Any) -> Reply:
        if SEND in methods(request):
            return Reply(b'{"jsonrpc": "2.0", "id": %d, "result": "0x%s"}' % (request["id"], b"ab" * 32))
        return forward(request)

    return answer


def late(url: str) -> Answerer:
    """A node that stopped following the chain."""
    forward = passing_on(url)

    def answer(request: Any) -> Reply:
        calls = request if isinstance(request, list) else [request]
        back = [{**call, "params": ["0x9" if param == "latest" else param for param in call["params"]]} for call in calls]
        return forward(back if isinstance(request, list) else back[0])

    return answer


def nonces(method: str, params: list[Any], answer: Any) -> Any:
    return hex(int(answer, 16) + 7) if method == "eth_getTransactionCount" else answer


def pending(method: str, params: list[Any], answer: Any) -> Any:
    return hex(int(answer, 16) + 7) if method == "eth_getTransactionCount" and params[1] == "pending" else answer


def failed_receipts(method: str, params: list[Any], answer: Any) -> Any:
    return {**answer, "status": "0x0", "logs": []} if method == "eth_getTransactionReceipt" and answer else answer


def no_receipts(method: str, params: list[Any], answer: Any) -> Any:
    return None if method in ("eth_getTransactionReceipt", "eth_getTransactionByHash") else answer


def much_gas(method: str, params: list[Any], answer: Any) -> Any:
    return hex(29_000_000) if method == "eth_estimateGas" else answer


def little_gas(method: str, params: list[Any], answer: Any) -> Any:
    return hex(21_000) if method == "eth_estimateGas" else answer


def every_call(method: str, params: list[Any], answer: Any) -> Any:
    return "0x" + "00" * 32 if method == "eth_call" else answer


def future(method: str, params: list[Any], answer: Any) -> Any:
    newest = method == "eth_getBlockByNumber" and params[0] == "latest"
    return {**answer, "timestamp": hex(int(answer["timestamp"], 16) + YEAR_S)} if newest else answer


def ahead(method: str, params: list[Any], answer: Any) -> Any:
    return {**answer, "number": "0xffffff"} if method == "eth_getBlockByNumber" and answer else answer


def other_blocks(method: str, params: list[Any], answer: Any) -> Any:
    return {**answer, "hash": "0x" + "ee" * 32} if method == "eth_getBlockByNumber" and answer else answer


def other_chain(method: str, params: list[Any], answer: Any) -> Any:
    return "0x5" if method == "eth_chainId" else answer


SICK: dict[str, tuple[Sick, str]] = {
    "hangs": (hanging, "did not answer within"),
    "too many requests": (instead(lambda: Reply(b"", status=429, headers={"Retry-After": "300"})), "HTTP 429"),
    "overloaded": (instead(lambda: Reply(b"<html>", status=503)), "HTTP 503"),
    "behind": (late, "blocks behind"),
    "breaks off after it accepted": (accepts_and_breaks_off, "closed the connection"),
    "keeps transactions back": (keeps_back, ""),
    "nonces": (lying(nonces), "differs in the wallet's nonce"),
    "pending nonces": (lying(pending), ""),
    "failed receipts": (lying(failed_receipts), "differs in a receipt"),
    "no receipts": (lying(no_receipts), ""),
    "much gas": (lying(much_gas), ""),
    "little gas": (lying(little_gas), ""),
    "every call": (lying(every_call), "differs in"),
    "head of next year": (lying(future), "differs in the header"),
    "head of nobody": (lying(ahead), "differs in"),
    "other blocks": (lying(other_blocks), "differs in"),
    "another chain": (lying(other_chain), ""),
}
"""The sickness, and words by which the record tells of it. Having lost a transaction, or an estimate, is no lie that could be told."""


def healthy(chain: LocalChain) -> tuple[EndpointProvider, EndpointProvider]:
    return endpoint_of(chain.url or "", "alpha"), endpoint_of(chain.url or "", "beta")


def dead() -> EndpointProvider:
    return endpoint_of(f"http://127.0.0.1:{free_port()}", "sick")


def two_must_agree(chain: LocalChain, folder: Path, lines: Sequence[Transport], changes: Changes | None = None) -> LoadedConfig:
    """A config of these endpoints; everything was pinned while all was well."""
    rpc = [{"url": "http://127.0.0.1:1", "operator": line.operator} for line in lines]
    loaded = agent_config(chain, folder, {**ROOMY, "chain.rpc": rpc, "chain.quorum": 2, **(changes or {})}, TWO)
    pin_all(loaded, healthy(chain))
    return loaded


@pytest.fixture
def drifted(anvil_chain: LocalChain) -> LocalChain:
    """A wallet with something to rebalance, on a chain with some blocks."""
    fund(anvil_chain, {"WETH": 60_000, "USDC": 30_000})
    anvil_chain.mine(30)
    return anvil_chain


def require_done(chain: LocalChain, folder: Path, lines: Sequence[Transport], changes: Changes | None = None) -> dict[str, Any]:
    """One rebalance: done once, to the wei. The record of the first endpoint, with what was shown meanwhile under "shown"."""
    before = purse(chain)
    balances = list[str]()
    with reopened_agent(chain, two_must_agree(chain, folder, lines, changes), lines) as agent:
        outcome = require_rebalance(agent, progress=balances.append)
        require_exact(chain, outcome, before)
        assert all(
            endpoint_document["state"] == "in service"
            for endpoint_document in agent.endpoints()
            if endpoint_document["operator"] in ("alpha", "beta")
        )
        return agent.endpoints()[0] | {"shown": balances}


ALIKE = (
    "overloaded",
    "pending nonces",
    "little gas",
    "much gas",
    "head of nobody",
    "head of next year",
    "other blocks",
    "another chain",
    "breaks off after it accepted",
    "no receipts",
)
"""Each resembles another of SICK, or is met elsewhere by two endpoints or three."""


@pytest.mark.parametrize(
    "sickness", [pytest.param(sickness, marks=pytest.mark.slow) if sickness in ALIKE else sickness for sickness in SICK]
)
def test_rebalance__is_done_once_whatever_one_of_three_does(drifted: LocalChain, tmp_path: Path, sickness: str) -> None:
    sick, sick_answer = SICK[sickness]
    with serve(sick(drifted.url or "")) as server:
        timeout_s = TIMEOUT_S if sickness == "hangs" else 10.0
        record = require_done(drifted, tmp_path, [endpoint_of(server.url, "sick", timeout_s), *healthy(drifted)])
    assert record["operator"] == "sick"
    assert sick_answer in record["why"]
    if sickness not in ("hangs", "too many requests", "overloaded"):
        assert any(SEND in methods(request) for request in server.seen), "it never had the transaction"
    if sickness == "failed receipts":
        assert mentions(record["shown"], "sick", "127.0.0.1", "receipt")
    if sickness == "too many requests":
        assert len(server.seen) == 1, "it asked to be left alone"
        assert record["state"] == "is rate limiting"


@pytest.mark.parametrize("place", [0, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 2))])
def test_it_does_not_matter_which_of_three_endpoints_is_dead(drifted: LocalChain, tmp_path: Path, place: int) -> None:
    lines: list[Transport] = [*healthy(drifted)]
    lines.insert(place, dead())
    require_done(drifted, tmp_path, lines)


def test_unacknowledged_transaction__is_followed_and_not_repeated(drifted: LocalChain, tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(serve(accepts_and_breaks_off(drifted.url or ""))) for _ in range(3)]
        lines = [endpoint_of(server.url, operator) for server, operator in zip(servers, ("a", "b", "c"), strict=True)]
        require_done(drifted, tmp_path, lines)
        sent = [sum(SEND in methods(request) for request in server.seen) for server in servers]
    assert all(count <= 2 for count in sent), "an approval and a swap, each once"


def test_private_endpoint__hides_the_transaction_from_public_ones(drifted: LocalChain, tmp_path: Path) -> None:
    with ExitStack() as stack:
        relay, *public = (stack.enter_context(serve(passing_on(drifted.url or ""))) for _ in range(3))
        lines = [endpoint_of(server.url, operator) for server, operator in zip(public, ("a", "b"), strict=True)]
        require_done(drifted, tmp_path, lines, {"execution.submit_url": relay.url})
    assert not any(SEND in methods(request) for server in public for request in server.seen)
    assert [methods(request) for request in relay.seen] == [[SEND], [SEND]]


@pytest.mark.slow
def test_private_endpoint_down__sends_nothing_public(drifted: LocalChain, tmp_path: Path) -> None:
    before = purse(drifted)
    down = True
    forward = passing_on(drifted.url or "")
    with ExitStack() as stack:
        relay = stack.enter_context(serve(lambda request: Reply(b"", status=503) if down else forward(request)))
        public = [stack.enter_context(serve(passing_on(drifted.url or ""))) for _ in range(2)]
        lines = [endpoint_of(server.url, operator) for server, operator in zip(public, ("a", "b"), strict=True)]
        loaded = two_must_agree(drifted, tmp_path, lines, {"execution.submit_url": relay.url})
        with reopened_agent(drifted, loaded, lines) as agent:
            with raises_code(Retryable, "not_mined"):
                agent.rebalance(send=True, confirm=yes)
            assert purse(drifted) == before
            down = False
            require_rebalance(agent)
            mined = [intent.tx.nonce for intent in agent.context.store.journal.intents() if intent.receipt is not None]
    assert sorted(mined) == list(range(before.nonce, purse(drifted).nonce))
    assert not any(SEND in methods(request) for server in public for request in server.seen)


@pytest.mark.parametrize("sickness", ["dead", "nonces", "every call", "other blocks"])
def test_with_one_of_two_nothing_is_sent(drifted: LocalChain, tmp_path: Path, sickness: str) -> None:
    before = purse(drifted)
    with ExitStack() as stack:
        honest = stack.enter_context(serve(passing_on(drifted.url or "")))
        url = (
            f"http://127.0.0.1:{free_port()}"
            if sickness == "dead"
            else stack.enter_context(serve(SICK[sickness][0](drifted.url or ""))).url
        )
        lines = [endpoint_of(url, "sick"), endpoint_of(honest.url, "alpha")]
        loaded = two_must_agree(drifted, tmp_path, lines)
        with pytest.raises((Retryable, Refused), match=r"sick|1 of 2"), reopened_agent(drifted, loaded, lines) as agent:
            agent.rebalance(send=True, confirm=yes)
        assert not any(SEND in methods(request) for request in honest.seen)
    assert purse(drifted) == before


def test_doctor__names_the_ill_and_fails_only_if_too_few_are_well(drifted: LocalChain, tmp_path: Path) -> None:
    drifted.node.mine_at(int(time.time()))  # the doctor goes by the machine's clock, and this chain may have rested for minutes
    with serve(late(drifted.url or "")) as behind, serve(altering_answerer(drifted.url or "", every_call)) as liar:
        lines = [endpoint_of(behind.url, "slow"), endpoint_of(liar.url, "liar"), *healthy(drifted)]
        loaded = two_must_agree(drifted, tmp_path, lines)
        doctor_document = doctor(loaded, lines, drifted.clock.now_s)
        rows = [(row["check"], row["state"]) for row in doctor_document["checks"] if row["state"] != "ok"]
        assert rows == [("endpoint slow", "warn"), ("endpoint slow", "warn"), ("endpoint liar", "warn")]
        assert doctor_document["exit"] == 0
        assert [(endpoint["operator"], bool(endpoint["why"])) for endpoint in doctor_document["endpoints"]] == [
            ("slow", True),
            ("liar", True),
            ("alpha", False),
            ("beta", False),
        ]
        few = [endpoint_of(drifted.url or "", "alpha"), dead()]
        refused = doctor(two_must_agree(drifted, tmp_path / "few", few), few, drifted.clock.now_s)
    assert ("endpoint sick", "fail") in [(row["check"], row["state"]) for row in refused["checks"]]
    assert refused["exit"] == Retryable.exit_code


def test_status_names_who_was_outvoted(drifted: LocalChain, tmp_path: Path) -> None:
    with serve(altering_answerer(drifted.url or "", every_call)) as liar:
        lines = [endpoint_of(liar.url, "liar"), *healthy(drifted)]
        with reopened_agent(drifted, two_must_agree(drifted, tmp_path, lines), lines) as agent:
            status = agent.status()
    assert [(item.subject, item.address) for item in status.step_input.snapshot.unreadable_items] == [("endpoint", "liar")]
    assert [(endpoint["operator"], bool(endpoint["why"])) for endpoint in status.endpoints] == [
        ("liar", True),
        ("alpha", False),
        ("beta", False),
    ]
