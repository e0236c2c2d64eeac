"""An endpoint that is down, slow, on another chain, or answers with garbage: told apart, never a traceback, nothing sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tenacity import wait_none

from agent.chain.providers import endpoint as endpoint_provider
from agent.localchain.nodes import free_port
from tests.cli.tools import Desk
from tests.support.commands.endpoints import move_to
from tests.support.endpoints import Reply, good, passing_on, serve

COMMANDS = (
    ("status",),
    ("quote", "--in", "WETH", "--out", "USDC", "--amount", "1"),
    ("plan",),
    ("rebalance", "--send", "--yes"),
    ("trust",),
)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tries as ever, without the pauses between them, which tests/unit/chain/rpc/test_requests.py measures."""
    monkeypatch.setattr(endpoint_provider, "_BACKOFF", wait_none())


def require_error(desk: Desk, code: int, *words: str) -> None:
    for command in COMMANDS:
        document = desk.ask(*command, want=code)
        for word in words:
            assert word in document["error"]["message"], document
    doctor = desk.ask("doctor", want=code)
    assert any(row["check"].startswith("endpoint") and row["state"] == "fail" for row in doctor["checks"])


def test_an_endpoint_that_is_down_may_come_back(desk: Desk) -> None:
    move_to(desk, f"http://127.0.0.1:{free_port()}")
    require_error(desk, 11, "cannot be reached")


def test_another_chain_needs_a_person(desk: Desk) -> None:
    with serve(another_chain(desk.about["url"])) as other:
        move_to(desk, other.url)
        doctor = desk.ask("doctor", want=12)
        assert any("chain 5" in row["finding"] for row in doctor["checks"])
        for command in COMMANDS:
            error = desk.ask(*command, want=12)["error"]
            assert "chain 5" in error["message"] or "31337" in error["message"], error
        assert not any(call["method"] == "eth_sendRawTransaction" for request in other.seen for call in _calls(request))


def _calls(request: Any) -> list[Any]:
    return request if isinstance(request, list) else [request]


def another_chain(url: str) -> Callable[[Any], Reply]:
    """The node at `url`, which says that it is chain 5."""
    forward = passing_on(url)

    def answer(request: Any) -> Reply:
        reply = json.loads(forward(request).body)
        for call, answer in zip(_calls(request), _calls(reply), strict=True):
            if call["method"] == "eth_chainId":
                answer["result"] = "0x5"
        return Reply(json.dumps(reply).encode())

    return answer


@pytest.mark.parametrize(
    ("answer", "codes"),
    [
        (lambda request: Reply(b"\x00\x01 not json"), (11,)),
        (lambda request: Reply(b"<html><title>Welcome</title></html>"), (12,)),
        (lambda request: Reply(b"", status=401), (12,)),
        (lambda request: Reply(b"", status=503), (11,)),
        (lambda request: Reply(b"[]"), (11,)),
        (lambda request: Reply(b"[" * 200_000), (11,)),
        (good(lambda method, params: None), (2, 11, 12)),
        (good(lambda method, params: "0x"), (2, 11, 12)),
        (good(lambda method, params: {"timestamp": [], "number": "\x1b[2J"}), (2, 11, 12)),
        (good(lambda method, params: "0x7a69" if method == "eth_chainId" else "0x" + "ff" * 64), (2, 11, 12)),
    ],
    ids=["bytes", "web page", "no access", "overloaded", "empty batch", "brackets", "null", "empty hex", "objects", "ones"],
)
def test_garbage_is_an_error_with_a_reason(desk: Desk, answer: Callable[[Any], Reply], codes: tuple[int, ...]) -> None:
    with serve(answer) as bad:
        move_to(desk, bad.url)
        for command in (*COMMANDS, ("doctor",)):
            result = desk.run(*command, "--json")
            assert result.code in codes, result
            assert "\x1b" not in result.out + result.err


def test_an_error_text_of_the_node_steers_no_terminal(desk: Desk) -> None:
    forward = passing_on(desk.about["url"])

    def answer(request: Any) -> Reply:
        if any(call["method"] == "eth_call" for call in _calls(request)):
            body = [
                {"jsonrpc": "2.0", "id": c["id"], "error": {"code": -32000, "message": "\x1b[2J\x1b]0;owned\x07 [bold]"}}
                for c in _calls(request)
            ]
            return Reply(json.dumps(body if isinstance(request, list) else body[0]).encode())
        return forward(request)

    with serve(answer) as rude:
        move_to(desk, rude.url)
        for command in COMMANDS:
            result = desk.run(*command)  # the runner itself looks for control codes
            assert result.code in (2, 11, 12)


def test_two_endpoints_of_one_operator_count_once(desk: Desk) -> None:
    """On a chain that is not local two operators must agree; a second URL of the same one does not help."""
    text = desk.config.read_text()
    endpoint = text[text.index("[[chain.rpc]]") : text.index("[wallet]")]
    desk.edit((endpoint, endpoint + endpoint), ("chain_id = 31337", "chain_id = 777"), ("test_account = 0\n", ""))
    desk.edit(("sqlite:///trimtab.db", "sqlite:///other.db"))
    desk.node.rpc("anvil_setChainId", 777)
    try:
        error = desk.ask("status", want=2)["error"]
        assert "1 operator(s)" in error["message"]
        assert "single_operator" in error["remedy"]
        assert any(row["check"] == "quorum" and row["state"] == "fail" for row in desk.ask("doctor", want=2)["checks"])
    finally:
        desk.node.rpc("anvil_setChainId", 31337)
