"""What the environment says of an endpoint's connection."""

from __future__ import annotations

import pytest

from agent.chain.rpc import HttpTransport
from tests.endpoints import good, serve


def test_the_environments_proxy_is_used_as_it_was_when_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(good()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        line = HttpTransport("http://node.invalid/", "alpha", 1.0, attempts=1)
        monkeypatch.delenv("http_proxy")
        line.call("eth_blockNumber", [])
        assert len(proxy.seen) == 1  # node.invalid has no address
