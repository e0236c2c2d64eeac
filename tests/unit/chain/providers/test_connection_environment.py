"""What the environment says of an endpoint's connection."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.chain.providers.endpoint import EndpointProvider
from tests.support.endpoints import Reply, good, rpc_answer, serve


def test_the_environments_proxy_is_used_as_it_was_when_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(good()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        line = EndpointProvider("http://node.invalid/", "alpha", 1.0, attempts=1)
        monkeypatch.delenv("http_proxy")
        line.call("eth_blockNumber", [])
        assert len(proxy.seen) == 1  # node.invalid has no address


def test_each_request_has_its_own_length_and_the_newest_cookies() -> None:
    """Endpoints that spread their load by a cookie keep us at one node."""
    turns = iter(["node=a", "", "node=b", ""])

    def answer(request: Any) -> Reply:
        cookie = next(turns)
        return Reply(
            json.dumps(rpc_answer(request, lambda method, params: "0x1")).encode(), headers={"Set-Cookie": cookie} if cookie else {}
        )

    with serve(answer) as server:
        line = EndpointProvider(server.url.replace("http://", "http://user:word@"), "alpha", 5.0, attempts=1)
        for size in (0, 3_000, 0, 10):
            line.call("eth_call", ["0" * size])
        assert [header["Cookie"] for header in server.headers] == [None, "node=a", "node=a", "node=b"]
        assert [len(request["params"][0]) for request in server.seen] == [0, 3_000, 0, 10]
        assert {header["Content-Type"] for header in server.headers} == {"application/json"}
        assert {header["Authorization"] for header in server.headers} == {"Basic dXNlcjp3b3Jk"}
