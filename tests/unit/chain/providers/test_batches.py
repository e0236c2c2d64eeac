"""Providers that limit the calls of a request: read in smaller batches, which are remembered, in two requests where they permit it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import wait_none

from agent.chain.providers import endpoint as endpoint_provider
from agent.chain.providers.batches import smaller_batch
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.rpc import EndpointOverloaded, RpcCall, RpcFault
from agent.errors import ErrorCode, PassingFault, Retryable
from tests.support.endpoints import Answerer, Reply, erring, rpc_answer, serve

KEY_REFUSED = "invalid api key"
CALLS: list[RpcCall] = [("eth_getBalance", ["0x" + "11" * 20, hex(number)]) for number in range(40)]


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_provider, "_BACKOFF", wait_none())


def right(request: Any) -> Reply:
    return Reply(json.dumps(rpc_answer(request, lambda method, params: params[1])).encode())


def whole(message: str, code: int = -32600, status: int = 200) -> Answerer:
    """One error object for the whole request."""
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}).encode()
    return lambda request: Reply(body, status=status)


def refused(message: str, code: int = -32005, **options: Any) -> Answerer:
    """The error for each call."""
    return erring({"code": code, "message": message}, **options)


def answers_too_large(request: Any) -> Reply:
    """The answers of the first half, then geth's error for the rest."""
    answers = rpc_answer(request, lambda method, params: params[1])
    for answer in answers[len(answers) // 2 :]:
        del answer["result"]
        answer["error"] = {"code": -32003, "message": "response too large"}
    return Reply(json.dumps(answers).encode())


def limited(limit: int, refuse: Answerer) -> Answerer:
    """A provider that answers up to `limit` calls a request."""
    return lambda request: refuse(request) if isinstance(request, list) and len(request) > limit else right(request)


def line(url: str) -> EndpointProvider:
    return EndpointProvider(f"{url}/v2/s3cr3t-key", "alpha")


REFUSALS: dict[str, tuple[int, Answerer, list[int]]] = {
    "max": (10, whole("batch size too large, max 10"), [40, 10, 10, 10, 10]),
    "maximum requests, 400": (15, whole("maximum 15 requests", status=400), [40, 15, 15, 10]),
    "free plan, 403": (3, whole("Batch of more than 3 requests are not allowed on free tier", -32000, 403), [40] + [3] * 13 + [1]),
    "calls, 413": (25, whole("the maximum number of calls in one batch is 25", -32600, 413), [40, 25, 15]),
    "limit, 429": (20, whole("Too many batch requests: the limit is 20", 429, 429), [40, 20, 20]),
    "500": (20, whole("batch limit of 20 exceeded, got 40", -32000, 500), [40, 20, 20]),
    "two numbers": (20, whole("plan 2: a batch may have at most 20 calls", -32000), [40, 20, 20]),
    "two numbers, the larger is none": (5, whole("max batch size is 5 (15 on plan 2)"), [40, 15] + [5] * 8),
    "no number": (10, whole("batch too large"), [40, 20, 10, 10, 10, 10]),
    "page, 413": (20, lambda request: Reply(b"<html>413 Request Entity Too Large</html>", status=413), [40, 20, 20]),
    "first of a list": (10, refused("batch too large", -32600, most=1), [40, 20, 10, 10, 10, 10]),
    "each of a list": (10, refused("Batch limit exceeded: 10"), [40, 10, 10, 10, 10]),
    "each of a list, 429": (10, refused("max batch size is 10", status=429), [40, 10, 10, 10, 10]),
    "answers too large": (10, answers_too_large, [40, 20, 10, 10, 10, 10]),
    "no batches": (1, whole("batch requests are not supported"), [40] + [1] * 40),
}


def sizes(bodies: list[Any]) -> list[int]:
    return [len(request) if isinstance(request, list) else 1 for request in bodies]


@pytest.mark.parametrize(("limit", "refuse", "expected"), REFUSALS.values(), ids=REFUSALS)
def test_batch__refused_for_its_size__is_split_and_remembered(limit: int, refuse: Answerer, expected: list[int]) -> None:
    with serve(limited(limit, refuse)) as server:
        provider = line(server.url)
        assert provider.batch(CALLS) == [params[1] for _, params in CALLS]
        assert sizes(server.seen) == expected
        assert provider.max_batch == max(size for size in expected if size <= limit)
        server.seen.clear()
        assert provider.batch(CALLS[: limit + 1]) == [params[1] for _, params in CALLS[: limit + 1]]
        assert sizes(server.seen) == [limit, 1], "the limit is known"
        server.seen.clear()
        provider.batch(CALLS[:limit])
        assert sizes(server.seen) == [limit]
        assert provider.request_count == len(expected) + 3


def test_batch__accepted__is_one_request() -> None:
    with serve(right) as server:
        provider = line(server.url)
        provider.batch(CALLS)
        assert sizes(server.seen) == [40]
        assert provider.max_batch is None


def test_batch__limit_falls__is_split_further() -> None:
    limits = [20]

    def answer(request: Any) -> Reply:
        return limited(limits[0], whole(f"batch size too large, max {limits[0]}"))(request)

    with serve(answer) as server:
        provider = line(server.url)
        provider.batch(CALLS)
        limits[0] = 8
        assert provider.batch(CALLS) == [params[1] for _, params in CALLS]
        assert provider.max_batch == 8


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("rate limit exceeded: 10 requests per second", -32005),
        ("daily request limit of 100000 requests exceeded", -32005),
        ("Too Many Requests", 429),
        ("your app has exceeded its compute units per second capacity", 429),
        ("monthly limit of 10 calls per month", 429),
    ],
)
def test_batch__refused_for_its_rate__is_not_split(message: str, code: int) -> None:
    with serve(whole(message, code, 429)) as server:
        provider = line(server.url)
        with pytest.raises(EndpointOverloaded, match="HTTP 429") as caught:
            provider.batch(CALLS)
        assert message in caught.value.message
        assert sizes(server.seen) == [40] * 3
        assert provider.max_batch is None


def test_batch__refused_at_any_size__is_the_provider_s_error() -> None:
    with serve(whole("batch size too large, max 10", status=413)) as server:
        provider = line(server.url)
        with pytest.raises((Retryable, PassingFault), match="batch size too large"):
            provider.batch(CALLS)
        assert provider.max_batch is None
        assert len(server.seen) < 10


def one_error_of_many(request: Any) -> Reply:
    answers = rpc_answer(request, lambda method, params: params[1])
    answers[0] = {"jsonrpc": "2.0", "id": request[0]["id"], "error": {"code": -32000, "message": "batch too large, max 1"}}
    return Reply(json.dumps(answers).encode())


@pytest.mark.parametrize(
    ("answer", "fault_count"),
    [(refused("execution reverted: batch too large, max 1", 3), 40), (one_error_of_many, 1)],
    ids=["reverts of a token with any text", "one call of many"],
)
def test_batch__calls_that_speak_of_batches__are_not_split(answer: Answerer, fault_count: int) -> None:
    with serve(answer) as server:
        faults = [isinstance(answer, RpcFault) for answer in line(server.url).batch(CALLS)]
        assert faults == [True] * fault_count + [False] * (40 - fault_count)
        assert sizes(server.seen) == [40]


def test_batch__transactions__are_never_sent_again() -> None:
    sends: list[RpcCall] = [("eth_sendRawTransaction", [hex(number)]) for number in range(4)]
    with serve(whole("batch size too large, max 2")) as server, pytest.raises(Retryable, match="max 2"):
        line(server.url).batch(sends)
    assert sizes(server.seen) == [4]


@pytest.mark.parametrize("status", [400, 404, 413, 500, 503])
def test_answer__json_rpc_with_another_status__is_read(status: int) -> None:
    """One call, an error with its id: the node's reason, not the proxy's."""
    with serve(refused("header not found", -32000, status=status)) as server:
        assert line(server.url).batch(CALLS[:1]) == [RpcFault(-32000, "header not found")]


def test_answer__json_rpc_with_status_429__is_an_overload() -> None:
    with (
        serve(refused("header not found", -32000, status=429)) as server,
        pytest.raises(EndpointOverloaded, match="header not found"),
    ):
        line(server.url).batch(CALLS[:1])


@pytest.mark.parametrize(
    ("body", "status", "code", "reason"),
    [
        pytest.param(
            b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"invalid api key"}}',
            401,
            ErrorCode.ACCESS,
            KEY_REFUSED,
            id="JSON-RPC error",
        ),
        pytest.param(b'{"error":"invalid api key"}', 403, ErrorCode.ACCESS, KEY_REFUSED, id="error as text"),
        pytest.param(b'{"error":"invalid api key"}', 400, ErrorCode.ACCESS, KEY_REFUSED, id="error as text at 400"),
        pytest.param(b'{"message":"invalid api key"}', 404, ErrorCode.ACCESS, KEY_REFUSED, id="message at the top"),
        pytest.param(b'{"error":{"message":"invalid api key"}}', 503, ErrorCode.ENDPOINT, KEY_REFUSED, id="message in an error"),
        pytest.param(b"[]", 400, ErrorCode.ACCESS, "", id="empty list is no answer"),
        pytest.param(b'{"error":"no such key s3cr3t-key"}', 403, ErrorCode.ACCESS, "no such key", id="reason that repeats the key"),
    ],
)
def test_refusal__of_another_server__has_its_reason_and_no_key(body: bytes, status: int, code: str, reason: str) -> None:
    kind = PassingFault if code == ErrorCode.ACCESS else Retryable
    with serve(lambda request: Reply(body, status=status)) as server, pytest.raises(kind) as caught:
        line(server.url).batch(CALLS)
    assert caught.value.code == code
    assert f"HTTP {status}" in caught.value.message
    assert reason in caught.value.message
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "code", "size"),
    [
        pytest.param("batch size too large, max 10", -32600, 10, id="max"),
        pytest.param("Batch size 40 exceeds the limit of 15", -32000, 15, id="limit of"),
        pytest.param("maximum 25 requests", -32600, 25, id="maximum"),
        pytest.param("You can only send 3 items per batch", -32000, 3, id="items a batch"),
        pytest.param("error 429: at most 20 calls", -32005, 20, id="at most"),
        pytest.param("The maximum batch size is 10.", -32600, 10, id="maximum with a full stop"),
        pytest.param("batch too large", -32600, 20, id="no number"),
        pytest.param("response too large", -32003, 20, id="response too large"),
        pytest.param("transaction rejected", -32003, 0, id="transaction rejected"),
        pytest.param("batching is disabled for this key", -32000, 1, id="disabled"),
        pytest.param("Batch requests aren't supported", -32601, 1, id="not supported"),
        pytest.param("batch call failed: unknown block", -32000, 0, id="unknown block"),
        pytest.param("invalid batch request", -32600, 0, id="invalid"),
        pytest.param("header not found", -32000, 0, id="header not found"),
        pytest.param("execution reverted: batch too large, max 1", 3, 0, id="revert"),
        pytest.param("maximum 40 requests", -32600, 0, id="as many as sent"),
        pytest.param("maximum 39 requests", -32600, 39, id="one less than sent"),
        pytest.param("limit of 10 requests per second", -32005, 0, id="requests a second"),
        pytest.param("rate limit of 10 requests", -32005, 0, id="rate limit"),
        pytest.param("error -5: batch too large", -32000, 20, id="code in the text"),
        pytest.param("batch too large: 1.5 MB", -32000, 20, id="megabytes in the text"),
        pytest.param("answer exceeds the limit of 10 MB", -32000, 0, id="answer too large"),
    ],
)
def test_smaller_batch__message_of_a_provider__has_its_limit(message: str, code: int, size: int) -> None:
    assert smaller_batch(RpcFault(code, message), 40) == size


@pytest.mark.parametrize(("call_count", "size"), [(1, 0), (2, 1), (3, 1)])
def test_smaller_batch__no_number__is_half(call_count: int, size: int) -> None:
    assert smaller_batch(RpcFault(-32000, "batch too large"), call_count) == size


@pytest.mark.parametrize("message", ["batch requests are not supported", "batch too large", "maximum 1 requests"])
def test_smaller_batch__single_call__is_none(message: str) -> None:
    assert smaller_batch(RpcFault(-32000, message), 1) == 0


@given(st.text(max_size=60), st.integers(-40_000, 500), st.integers(0, 200))
def test_smaller_batch__any_message__is_smaller_or_none(message: str, code: int, call_count: int) -> None:
    size = smaller_batch(RpcFault(code, message), call_count)
    assert size == 0 or 0 < size < call_count
