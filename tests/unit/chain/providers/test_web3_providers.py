"""web3 over our providers does nothing of what plain web3 does with odd answers, redirects, retries, keys and hashes."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from web3 import Web3

from agent.chain.endpoints import EndpointPool
from agent.chain.providers.checked import CheckedProvider, open_web3, read_batch
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.providers.one_block import BlockProvider
from agent.chain.providers.quorum import QuorumProvider
from agent.chain.rpc import CallFailed, RpcCall, block_ref_at_hash
from agent.chain.sender import NodeSender
from agent.errors import OperatorNeeded, Retryable, TrimtabError
from agent.model import SignedTx
from tests.support.endpoints import Answerer, Reply, erring, good, methods, serve
from tests.support.fakes.transport import BLOCK, HEAD_JSON, ScriptedTransport
from tests.support.text import raises_code

SECRET = "s3cr3t-api-key-0123456789"
OWNER = Web3.to_checksum_address("0x" + "11" * 20)
SIGNED = SignedTx(b"\x02" * 40, "0x" + "ab" * 32)


def provider(url: str, attempts: int = 3) -> EndpointProvider:
    return EndpointProvider(f"{url}/v3/{SECRET}?token={SECRET}", "alpha", 30.0, attempts=attempts, sleep=lambda _s: None)


def changed(change: Callable[[list[Any]], Any]) -> Answerer:
    """Answers 0x1, 0x2, 0x3 to a batch, changed as a whole."""

    def answer(request: Any) -> Reply:
        answers = [{"jsonrpc": "2.0", "id": call["id"], "result": hex(i + 1)} for i, call in enumerate(request)]
        return Reply(json.dumps(change(answers)).encode())

    return answer


def formatted_balances(line: CheckedProvider) -> list[Any]:
    w3 = open_web3(line)
    with w3.batch_requests() as batch:
        for _ in range(3):
            batch.add(w3.eth.get_balance(OWNER))
        return list(batch.execute())


def checked_balances(line: CheckedProvider) -> list[Any]:
    return [int(raw, 16) for raw in read_batch(line, [("eth_getBalance", [OWNER, "latest"])] * 3)]


both_batches = pytest.mark.parametrize("balances", [formatted_balances, checked_balances])


WRONG_BATCHES: dict[str, Callable[[list[Any]], Any]] = {
    "the first is missing": lambda answers: answers[1:],
    "the last is missing": lambda answers: answers[:2],
    "one too many": lambda answers: [*answers, {**answers[0], "id": 99}],
    "ids of other requests": lambda answers: [{**answer, "id": answer["id"] + 1_000} for answer in answers],
    "one id thrice": lambda answers: [{**answer, "id": answers[0]["id"]} for answer in answers],
    "no ids": lambda answers: [{"jsonrpc": "2.0", "result": answer["result"]} for answer in answers],
    "null ids": lambda answers: [{**answer, "id": None} for answer in answers],
    "text ids": lambda answers: [{**answer, "id": str(answer["id"])} for answer in answers],
    "nothing": lambda answers: [],
    "no objects": lambda answers: ["0x1"] * 3,
}


@both_batches
@pytest.mark.parametrize("change", WRONG_BATCHES.values(), ids=WRONG_BATCHES)
def test_a_batch_whose_ids_are_not_ours_has_no_values(
    change: Callable[[list[Any]], Any], balances: Callable[[CheckedProvider], list[Any]]
) -> None:
    with serve(changed(change)) as server, raises_code(Retryable, "answer"):
        balances(provider(server.url, attempts=1))


@both_batches
def test_values_of_a_batch_are_matched_by_id_in_any_order(balances: Callable[[CheckedProvider], list[Any]]) -> None:
    with serve(changed(lambda answers: answers[::-1])) as server:
        assert balances(provider(server.url)) == [1, 2, 3]
        assert len(server.seen) == 1


QUANTITIES: list[Any] = [
    "0x",
    "-0x1",
    "0x-1",
    "0x_1",
    "0x1_0",
    " 0x1 ",
    "0x1\n",
    "1",
    7,
    7.5,
    True,
    None,
    "",
    "0x" + "f" * 65,
    [1],
    {"a": 1},
]
DATA: list[Any] = ["0xabc", "abcd", "0xzz", "0x_ab", "0x ab", None, 7, True, "", [1, 2], {}]
BLOCKS: list[Any] = [
    {name: value for name, value in HEAD_JSON.items() if name != "hash"},
    {**HEAD_JSON, "hash": None},
    {**HEAD_JSON, "hash": "0x" + "cd" * 31},
    {**HEAD_JSON, "number": "-0x1"},
    {**HEAD_JSON, "number": "0x_1"},
    {**HEAD_JSON, "timestamp": "100"},
    {**HEAD_JSON, "baseFeePerGas": "0x"},
    None,
    [1],
    "0x1",
]
READS: dict[str, tuple[Callable[[Web3], Any], RpcCall, list[Any]]] = {
    "balance": (lambda w3: w3.eth.get_balance(OWNER), ("eth_getBalance", [OWNER, "latest"]), QUANTITIES),
    "gas price": (lambda w3: w3.eth.gas_price, ("eth_gasPrice", []), QUANTITIES),
    "nonce": (lambda w3: w3.eth.get_transaction_count(OWNER), ("eth_getTransactionCount", [OWNER, "latest"]), QUANTITIES),
    "priority fee": (lambda w3: w3.eth.max_priority_fee, ("eth_maxPriorityFeePerGas", []), QUANTITIES),
    "slot": (lambda w3: w3.eth.get_storage_at(OWNER, 0), ("eth_getStorageAt", [OWNER, "0x0", "latest"]), QUANTITIES),
    "call": (lambda w3: w3.eth.call({"to": OWNER, "data": "0x"}), ("eth_call", [{"to": OWNER, "data": "0x"}, "latest"]), DATA),
    "block": (lambda w3: w3.eth.get_block("latest"), ("eth_getBlockByNumber", ["latest", False]), BLOCKS),
}


@pytest.mark.parametrize("way", ["alone", "in a batch", "unformatted"])
@pytest.mark.parametrize("read", READS)
def test_a_malformed_answer_is_an_error_before_web3_formats_it(read: str, way: str) -> None:
    ask, call, raw = READS[read]
    for answer in raw:
        line = QuorumProvider(EndpointPool([ScriptedTransport("alpha", **{call[0]: answer})], 1))
        w3 = open_web3(line)
        with raises_code(Retryable, "answer"):
            if way == "alone":
                ask(w3)
            elif way == "unformatted":
                read_batch(line, [call])
            else:
                with w3.batch_requests() as batch:
                    batch.add(ask(w3))
                    batch.execute()


@pytest.mark.parametrize("answer", ["-0x1", "0x_1", None])
def test_one_endpoint_alone_is_as_strict(answer: object) -> None:
    with serve(good(lambda method, params: answer)) as server, raises_code(Retryable, "answer"):
        open_web3(provider(server.url)).eth.get_balance(OWNER)


def test_of_a_block_web3_gets_the_fields_that_were_checked() -> None:
    node = ScriptedTransport("alpha", eth_getBlockByNumber={**HEAD_JSON, "difficulty": "nonsense", "extraData": 7, "baseFeePerGas": None})
    line = QuorumProvider(EndpointPool([node], 1))
    block = open_web3(line).eth.get_block("latest")
    assert {**block, "hash": block["hash"].to_0x_hex()} == {"number": 16, "hash": BLOCK, "timestamp": 100}
    assert read_batch(line, [("eth_getBlockByNumber", ["latest", False])]) == [{"number": "0x10", "hash": BLOCK, "timestamp": "0x64"}]


def test_two_calls_are_two_requests() -> None:
    with serve(good()) as server:
        w3 = open_web3(provider(server.url))
        assert (w3.eth.get_balance(OWNER), w3.eth.gas_price) == (1, 1)
        assert [methods(request) for request in server.seen] == [["eth_getBalance"], ["eth_gasPrice"]]


@pytest.mark.parametrize(
    "reply", [Reply(b"", status=503), Reply(b"", cut="reset"), Reply(b"", cut="close")], ids=["503", "reset", "closed"]
)
def test_signed_transaction__is_sent_once_whatever_happens(reply: Reply) -> None:
    with serve(lambda request: reply) as server:
        with raises_code(Retryable, "unknown_if_sent") as caught:
            NodeSender(provider(server.url)).send(SIGNED)
        assert [methods(request) for request in server.seen] == [["eth_sendRawTransaction"]]
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_web3_itself_can_send_nothing() -> None:
    with serve(good()) as server:
        w3 = open_web3(provider(server.url))
        with pytest.raises(NotImplementedError, match="eth_sendRawTransaction"):
            w3.eth.send_raw_transaction(SIGNED.signed_bytes)
        with pytest.raises(KeyError, match="eth_sendRawTransaction"):
            read_batch(provider(server.url), [("eth_sendRawTransaction", ["0x02"])])
        assert server.seen == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect__is_followed_by_no_transaction_or_read(status: int) -> None:
    with serve(good()) as elsewhere, serve(lambda request: Reply(b"", status=status, headers={"Location": elsewhere.url})) as server:
        with raises_code(TrimtabError, "access"):
            NodeSender(provider(server.url)).send(SIGNED)
        with raises_code(OperatorNeeded, "access"):
            open_web3(provider(server.url)).eth.get_balance(OWNER)
        assert elsewhere.seen == []


ECHO = Reply(json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": f"bad /v3/{SECRET} http://a/{SECRET}"}}).encode())


@pytest.mark.parametrize(
    "reply", [Reply(b"", status=503), Reply(b"", cut="reset"), Reply(b"<html>", status=200), Reply(b"no", status=401), ECHO]
)
def test_no_error_of_a_read_by_web3_shows_the_key_of_an_endpoint(reply: Reply) -> None:
    with serve(lambda request: reply) as server:
        line = provider(server.url)
        with pytest.raises(TrimtabError) as caught:
            open_web3(line).eth.get_balance(OWNER)
        error_text = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(line) + repr(line)
        assert SECRET not in error_text
        assert "alpha" in error_text


def test_a_contract_call_at_a_hash_stays_at_the_hash() -> None:
    abi = [{"type": "function", "name": "f", "stateMutability": "view", "inputs": [], "outputs": [{"name": "", "type": "uint256"}]}]
    with serve(good(lambda method, params: "0x" + "00" * 31 + "07")) as server:
        w3 = open_web3(BlockProvider(provider(server.url), BLOCK))
        assert w3.eth.contract(OWNER, abi=abi).functions.f().call() == 7
        (requests,) = server.seen
        assert (requests["method"], requests["params"][1]) == ("eth_call", block_ref_at_hash(BLOCK))
        assert set(requests["params"][0]) == {"to", "data"}


LOOKUP = "0x556f1830" + "".join(word.rjust(64, "0") for word in (OWNER[2:], "a0", "e0", "00", "e0")) + "00" * 96


def test_an_offchain_lookup_fetches_nothing() -> None:
    """CCIP-read would ask any address that a contract names."""
    with serve(erring({"code": 3, "message": "execution reverted", "data": LOOKUP})) as server:
        line = provider(server.url)
        for web3_provider in (line, QuorumProvider(EndpointPool([line], 1)), BlockProvider(line, BLOCK)):
            w3 = open_web3(web3_provider)
            assert web3_provider.global_ccip_read_enabled is False
            with pytest.raises(CallFailed, match="refused eth_call: execution reverted"):
                w3.eth.call({"to": OWNER, "data": "0x"})
        assert len(server.seen) == 3


def test_read__is_repeated_with_the_answer_s_values() -> None:
    replies = iter([Reply(b"", status=503)])
    with serve(lambda request: next(replies, None) or good(lambda method, params: "0x5")(request)) as server:
        assert open_web3(provider(server.url)).eth.get_balance(OWNER) == 5
        assert len(server.seen) == 2
