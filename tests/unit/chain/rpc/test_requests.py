"""One HTTP request per batch, and every failure of an endpoint an error that says what to do and shows no secret."""

from __future__ import annotations

import json
import socket
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from agent.chain.providers.endpoint import MAX_RESPONSE_BYTES, EndpointProvider, retry_after_s
from agent.chain.rpc import CallFailed, EndpointOverloaded, RpcFault, scrub
from agent.errors import ConfigError, PassingFault, Retryable, TrimtabError
from agent.localchain.nodes import free_port
from tests.support.endpoints import Answerer, Reply, erring, good, rpc_answer, serve
from tests.support.text import raises_code

SECRET = "s3cr3t-api-key-0123456789"
ELSEWHERE = {"Location": "http://127.0.0.1/elsewhere"}
BLOCK_NUMBER: list[tuple[str, list[Any]]] = [("eth_blockNumber", [])]


def transport(url: str, **options: Any) -> EndpointProvider:
    options = {"timeout_s": 1.0, "attempts": 1, "sleep": lambda _s: None, **options}
    return EndpointProvider(f"{url}/v3/{SECRET}?token={SECRET}", "alpha", **options)


def failure(answer: Answerer, **options: Any) -> TrimtabError:
    with serve(answer) as server, pytest.raises(TrimtabError) as caught:
        transport(server.url, **options).batch([("eth_blockNumber", []), ("eth_chainId", [])])
    assert SECRET not in ("".join(traceback.format_exception(caught.value)) + repr(caught.value))
    assert "alpha" in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    return caught.value


def test_batch__is_one_request_matched_by_id() -> None:
    def shuffled(request: Any) -> Reply:
        return Reply(json.dumps(rpc_answer(request, lambda method, params: params[0])[::-1]).encode())

    with serve(shuffled) as server:
        line = transport(server.url)
        assert line.batch([("eth_call", [i]) for i in range(7)]) == list(range(7))
        assert line.request_count == len(server.seen) == 1


def test_ids_are_never_used_twice() -> None:
    with serve(good()) as server:
        line = transport(server.url)
        line.batch([("eth_blockNumber", []), ("eth_chainId", [])])
        line.call("eth_blockNumber", [])
        ids = [request["id"] for seen in server.seen for request in (seen if isinstance(seen, list) else [seen])]
        assert len(set(ids)) == 3


def test_an_empty_batch_asks_nothing() -> None:
    line = EndpointProvider("http://127.0.0.1:1", "alpha")
    assert line.batch([]) == []
    assert line.request_count == 0


def test_refused_call__is_a_fault_in_its_place_alone() -> None:
    def second_fails(request: Any) -> Reply:
        answers = rpc_answer(request, lambda method, params: method)
        del answers[1]["result"]
        answers[1]["error"] = {"code": 3, "message": "execution reverted: STF", "data": "0x08c379a0"}
        return Reply(json.dumps(answers).encode())

    with serve(second_fails) as server:
        answers = transport(server.url).batch([("eth_chainId", []), ("eth_call", []), ("eth_gasPrice", [])])
    assert answers == ["eth_chainId", RpcFault(3, "execution reverted: STF", "0x08c379a0"), "eth_gasPrice"]


def test_a_single_call_raises_with_the_fault() -> None:
    with serve(erring({"code": 3, "message": "no"})) as server, pytest.raises(CallFailed) as caught:
        transport(server.url).call("eth_call", [])
    assert caught.value.fault == RpcFault(3, "no", "")


def test_an_endpoint_that_is_down_is_worth_another_try() -> None:
    with raises_code(Retryable, "unreachable") as caught:
        transport(f"http://127.0.0.1:{free_port()}").batch(BLOCK_NUMBER)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None, "the library's error holds the URL"


@pytest.mark.parametrize(
    ("reply", "timeout_s", "word", "limit_s"),
    [
        (Reply(b"[]", delay_s=3), 0.2, "0.2 s", 3.5),
        (Reply(b" " * 200, parts=200, pause_s=0.02), 0.3, "", 4.5),
        (Reply(b" " * 200, 302, ELSEWHERE, parts=200, pause_s=0.02), 0.3, "longer than 0.3 s", 4.5),
    ],
    ids=["slow", "trickles in", "redirect that trickles in"],
)
def test_an_answer_that_is_slow_is_given_up_in_time(reply: Reply, timeout_s: float, word: str, limit_s: float) -> None:
    started = time.monotonic()
    error = failure(lambda request: reply, timeout_s=timeout_s)
    assert isinstance(error, Retryable)
    assert word in str(error)
    assert time.monotonic() - started < limit_s


NO_JSON = {
    "garbage": b"not json at all",
    "truncated": b'[{"jsonrpc": "2.0", "id": 1, "resu',
    "empty": b"",
    "binary": b"\xff\xfe\x00",
    "nested": b"[" * 200_000,
    "nested objects": b'{"a":' * 200_000,
    "escaped quotes without end": b"[" + b"[]," * 70 + b'"' + b'\\"' * 400_000,
}
NO_PLACES = ["http://[", "//[::1", "http://x:99999999/", "\xff\xfe", "", "file:///etc", "http://" + "a" * 300]
"""requests parses the address of redirects, too, that it does not follow."""
NO_BATCHES = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "batch not allowed"}}
FAILURES: dict[str, tuple[Reply, type[TrimtabError], str]] = {
    "too large": (Reply(b"[" + b" " * 300_000), Retryable, "100000 bytes"),
    "redirect too large": (Reply(b" " * 300_000, 302, ELSEWHERE), TrimtabError, "100000 bytes"),
    **{name: (Reply(sent), Retryable, "not JSON") for name, sent in NO_JSON.items()},
    "breaks off": (Reply(b"[{", claimed_length=5_000), Retryable, ""),
    "web page": (Reply(b"<!doctype html><title>Welcome to nginx!</title>"), PassingFault, "web page"),
    **{str(status): (Reply(b"no", status, ELSEWHERE), PassingFault, str(status)) for status in (401, 403, 404, 302)},
    **{f"redirect to {place!r}": (Reply(b"", 302, {"Location": place}), PassingFault, "302") for place in NO_PLACES},
    **{str(status): (Reply(b"<html>busy</html>", status), Retryable, str(status)) for status in (429, 500, 502, 503)},
    "no batches": (Reply(json.dumps(NO_BATCHES).encode()), Retryable, "batch not"),
}


@pytest.mark.parametrize(("reply", "kind", "word"), FAILURES.values(), ids=FAILURES)
def test_an_answer_that_is_none_is_an_error_that_says_why(reply: Reply, kind: type[TrimtabError], word: str) -> None:
    """A Retryable may pass; a PassingFault needs the operator."""
    error = failure(lambda request: reply, max_response_bytes=100_000 if "bytes" in word else MAX_RESPONSE_BYTES)
    assert isinstance(error, kind)
    assert word in str(error)


def test_a_large_batch_is_not_taken_for_a_deep_one() -> None:
    def nested(method: str, params: list[Any]) -> Any:
        return {"text": '[[[{{{ "\\', "list": [[params]]}

    with serve(good(nested)) as server:
        answers = transport(server.url).batch([("eth_call", [i]) for i in range(500)])
    assert answers[499] == nested("eth_call", [499])


def test_a_server_that_does_not_speak_tls_may_pass() -> None:
    """It answers to a line that it cannot read, or waits for the end of one: the greeting has a line's end by chance."""
    with serve(lambda request: Reply(b"[]")) as server:
        provider = EndpointProvider(server.url.replace("http:", "https:"), "alpha", 1.0, attempts=1)
        with pytest.raises(Retryable, match=r"cannot be reached|did not answer"):
            provider.call("eth_chainId", [])


def test_a_name_that_does_not_resolve_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(Retryable, match="cannot be reached"):
        EndpointProvider("https://rpc.example.org/v3/key", "alpha", 1.0, attempts=1).call("eth_chainId", [])


@pytest.mark.parametrize(
    "change",
    [
        lambda answers: answers[:1],
        lambda answers: [answers[0], answers[0]],
        lambda answers: [{**answer, "id": answer["id"] + 1000} for answer in answers],
        lambda answers: [{**answer, "id": str(answer["id"])} for answer in answers],
        lambda answers: [{**answer, "id": True} for answer in answers],
        lambda answers: [*answers, {"jsonrpc": "2.0", "id": 999, "result": "0x1"}],
        lambda answers: [{"jsonrpc": "2.0", "id": answer["id"]} for answer in answers],
        lambda answers: ["0x1", "0x1"],
        lambda answers: "0x1",
        lambda answers: {"result": "0x1"},
        lambda answers: [*answers, {**answers[0], "result": "0x2"}],
        lambda answers: [{**answers[0], "id": True}, answers[1]],
    ],
    ids=[
        "missing",
        "twice",
        "foreign",
        "text",
        "bool",
        "extra",
        "no result",
        "no objects",
        "a string",
        "not a list",
        "another result",
        "true for 1",
    ],
)
def test_answers_that_do_not_fit_the_questions_are_not_used(change: Any) -> None:
    error = failure(lambda request: Reply(json.dumps(change(rpc_answer(request, lambda method, params: "0x1"))).encode()))
    assert isinstance(error, Retryable)


def flaky(failures: int, failure: Reply = Reply(b"", 429)) -> Answerer:  # noqa: B008  # never changed
    failures_left: Iterator[int] = iter(range(failures))
    return lambda request: failure if next(failures_left, None) is not None else good()(request)


def test_reads__are_tried_again_after_growing_varied_pauses() -> None:
    pauses: list[float] = []
    with serve(flaky(2)) as server:
        line = transport(server.url, attempts=3, sleep=pauses.append)
        assert line.batch(BLOCK_NUMBER) == ["0x1"]
        assert line.request_count == len(server.seen) == 3
    assert len(pauses) == 2
    assert all(0 <= pause <= 2 for pause in pauses)


def test_reads_end_in_the_error_when_every_try_fails() -> None:
    with serve(flaky(99)) as server:
        line = transport(server.url, attempts=3)
        with raises_code(Retryable, "rate_limit", "429"):
            line.batch(BLOCK_NUMBER)
        assert line.request_count == 3


@pytest.mark.parametrize("status", [429, 503])
def test_a_short_wait_that_is_asked_for_is_waited_for(status: int) -> None:
    pauses = list[float]()
    with serve(flaky(1, Reply(b"", status, {"Retry-After": "2"}))) as server:
        assert transport(server.url, attempts=3, sleep=pauses.append).batch(BLOCK_NUMBER) == ["0x1"]
    assert pauses == [2.0]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("patience", ["30", "Thu, 01 Jan 1970 00:17:10 GMT"])
def test_longer_pause__leaves_the_endpoint_alone_and_says_how_long(status: int, patience: str) -> None:
    with serve(lambda request: Reply(b"", status=status, headers={"Retry-After": patience})) as server:
        line = transport(server.url, attempts=3, wall_clock=lambda: 1_000.0)
        with pytest.raises(EndpointOverloaded) as caught:
            line.batch(BLOCK_NUMBER)
        assert (caught.value.retry_after_s, line.request_count) == (30.0, 1)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("\u00b2", None),
        ("9" * 65, None),
        ("Thu, 99 Foo 1970", None),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("9" * 60, 86_400.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
    ],
)
def test_a_wait_is_believed_within_reason(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, 1_000.0) == seconds


@pytest.mark.parametrize("zone", ["", " -0000", " GMT"])
def test_a_date_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        seconds = retry_after_s(f"Thu, 01 Jan 1970 00:16:50{zone}", 1_000.0)
    time.tzset()
    assert seconds == 10.0


@pytest.mark.parametrize("method", ["eth_sendRawTransaction", "eth_sendTransaction", "anvil_mine", "something_new"])
def test_what_is_not_known_to_be_a_read_is_asked_once(method: str) -> None:
    with serve(flaky(1)) as server:
        line = transport(server.url, attempts=3)
        with raises_code(Retryable, "rate_limit"):
            line.batch([("eth_blockNumber", []), (method, [])])
        assert len(server.seen) == 1


def test_node_s_words__are_made_harmless_without_secrets() -> None:
    words = f"\x1b[31mbad\x1b[0m <b>[red]</b> =cmd| see https://node.example/{SECRET} or {SECRET}\nnext" + "x" * 500

    with serve(erring({"code": 1, "message": words})) as server:
        faults = transport(server.url).batch([("eth_call", []), ("eth_call", [])])
    for fault in faults:
        assert SECRET not in fault.message
        assert not set(fault.message) & set("\x1b[]<>=|\n")
        assert len(fault.message) <= 200


@pytest.mark.parametrize(
    "secrets",
    [
        pytest.param(["alpha-key", "alpha-key-9876"], id="shorter first"),
        pytest.param(["alpha-key-9876", "alpha-key"], id="longer first"),
    ],
)
def test_of_a_secret_that_holds_another_nothing_is_left(secrets: list[str]) -> None:
    assert scrub("refused alpha-key-9876 and alpha-key", secrets) == "refused (secret) and (secret)"


def test_a_secret_counts_from_six_characters_on() -> None:
    assert scrub("refused abcdef", ["abcdef"]) == "refused (secret)"
    assert scrub("refused abcde", ["abcde", ""]) == "refused abcde", "a short part of a URL, such as a version, is in many words"


@pytest.mark.parametrize("error", ["text", None, 7, {"code": "x"}, {"message": {"a": 1}}, {"data": {"data": "0xAB"}}])
def test_odd_errors_are_faults_too(error: Any) -> None:
    with serve(erring(error, result="0x1")) as server:
        answer = transport(server.url).batch(BLOCK_NUMBER)[0]
    assert answer == "0x1" if error is None else isinstance(answer, RpcFault)


@pytest.mark.parametrize("url", [f"ftp://h/{SECRET}", SECRET, f"http:///{SECRET}", f"http://h:99999/{SECRET}", f"http://[{SECRET}", ""])
def test_a_url_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EndpointProvider(url, "alpha")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "place"),
    [
        pytest.param("http://user:word@127.0.0.1:8545/secret?key=1", "127.0.0.1:8545", id="all parts"),
        pytest.param("http://localhost:1", "localhost:1", id="localhost"),
        pytest.param("http://[::1]:8545", "[::1]:8545", id="IPv6"),
        pytest.param("http://127.0.0.1", "127.0.0.1", id="no port"),
        pytest.param("https://node.example:8545/secret", "node.example", id="a remote host"),
    ],
)
def test_local_endpoint_s_name__has_its_port_and_no_secret(url: str, place: str) -> None:
    assert EndpointProvider(url, "local").name == f"endpoint 'local' at {place}"


def test_a_transport_shows_operator_and_host_only() -> None:
    line = EndpointProvider(f"https://user:{SECRET}@node.example:8545/v3/{SECRET}?k={SECRET}", "alpha")
    assert repr(line) == "EndpointProvider(endpoint 'alpha' at node.example)"
