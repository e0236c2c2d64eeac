"""What the doctor finds at endpoints: a wrong clock of this machine, limits on calls, and no reads at a block's hash."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tenacity import wait_none

from agent.app.start.doctor.checks import doctor
from agent.app.start.doctor.endpoint_checks import PROBED_CALLS, EndpointProbe, probe_endpoints
from agent.chain.endpoints import Endpoint
from agent.chain.providers import endpoint as endpoint_provider
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.rpc import HASHED_HEADER_FIELDS
from agent.errors import EXIT_RETRYABLE
from tests.support.configs.samples import config_text
from tests.support.endpoints import Answerer, Reply, forged_header, good, rpc_answer, serve
from tests.support.fakes.transport import HEAD_JSON

HEAD_S = 0x64
CHAIN_ID = 0x7A69


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_provider, "_BACKOFF", wait_none())


def node(method: str, params: list[Any]) -> Any:
    return {"eth_chainId": hex(CHAIN_ID), "eth_getBlockByNumber": HEAD_JSON, "eth_getBalance": "0x0"}[method]


def healthy(request: Any) -> Reply:
    return Reply(json.dumps(rpc_answer(request, node)).encode())


def probed(answer: Answerer, now_s: float = HEAD_S, is_local: bool = False) -> EndpointProbe:
    chain: Any = SimpleNamespace(chain_id=CHAIN_ID, is_local=is_local, min_operators=1, max_lag_blocks=3)
    with serve(answer) as server:
        (probe,) = probe_endpoints([Endpoint(EndpointProvider(server.url, "alpha", attempts=1))], chain, lambda: now_s)
    return probe


@pytest.mark.parametrize(
    ("skew_s", "warning"),
    [
        (0, ""),
        (-4, ""),
        (-5, "at least 5 s slow"),
        (-9, "at least 9 s slow"),
        (-30, "at least 30 s slow"),
        (9, ""),
        (16, ""),
        (17, "17 s old: it lags, or this machine's clock is fast"),
        (30, "30 s old"),
        (600, "10 min old"),
    ],
)
def test_doctor__machines_clock_is_wrong__warns(skew_s: int, warning: str) -> None:
    probe = probed(healthy, HEAD_S + skew_s)
    assert probe.head_number == 0x10
    texts = [text for text, _ in probe.warnings]
    assert (warning in texts[0]) if warning else texts == []


def test_doctor__two_of_three_endpoints_stand_still__names_both() -> None:
    """By the time of the block that two agree on, the third may well have the newest one."""
    stale_s = 600
    chain: Any = SimpleNamespace(chain_id=CHAIN_ID, is_local=False, min_operators=2, max_lag_blocks=3)

    fields = {name: "0x0" if is_number else "0x" + "11" * 32 for name, is_number in HASHED_HEADER_FIELDS}

    def newest(method: str, params: list[Any]) -> Any:
        if method != "eth_getBlockByNumber":
            return node(method, params)
        age_s = 0 if params[0] == "latest" else stale_s - 2 * (int(params[0], 16) - 0x10)
        return forged_header({**fields, "number": "0x10", "timestamp": hex(HEAD_S + stale_s - age_s)}, (stale_s - age_s) // 2)

    with serve(healthy) as first, serve(healthy) as second, serve(good(newest)) as third:
        servers = (("alpha", first), ("beta", second), ("gamma", third))
        endpoints = [Endpoint(EndpointProvider(server.url, name, attempts=1)) for name, server in servers]
        probes = probe_endpoints(endpoints, chain, lambda: HEAD_S + stale_s)
    assert [probe.is_lagging for probe in probes] == [True, True, False]
    assert [probe.exit_code for probe in probes[:2]] == [EXIT_RETRYABLE] * 2


@pytest.mark.parametrize("is_local", [False, True], ids=["live", "local"])
def test_doctor__clock_31_s_slow__uses_no_endpoint(is_local: bool) -> None:
    probe = probed(healthy, HEAD_S - 31, is_local)
    assert probe.head_number is None
    assert "31 s in the future" in probe.finding


@pytest.mark.parametrize("skew_s", [600, -5, -30], ids=["rests", "is mined fast", "is mined as fast as may be"])
def test_doctor__local_chain_s_own_time__does_not_warn(skew_s: int) -> None:
    probe = probed(healthy, HEAD_S + skew_s, is_local=True)
    assert probe.head_number == 0x10
    assert probe.warnings == ()


@pytest.mark.parametrize("other_chain_id", [CHAIN_ID - 1, CHAIN_ID + 1])
def test_doctor__endpoint_of_another_chain__is_not_used(other_chain_id: int) -> None:
    def other_node(method: str, params: list[Any]) -> Any:
        return hex(other_chain_id) if method == "eth_chainId" else node(method, params)

    probe = probed(good(other_node))
    assert probe.head_number is None
    assert f"chain {other_chain_id}, but chain.chain_id is {CHAIN_ID}" in probe.finding


def test_doctor__warning_about_an_endpoint__is_a_row_of_its_own(tmp_path: Path) -> None:
    config = tmp_path / "trimtab.toml"
    config.write_text(config_text())

    def ethereum(method: str, params: list[Any]) -> Any:
        return "0x1" if method == "eth_chainId" else node(method, params)

    with serve(good(ethereum)) as server:
        document = doctor(config, [EndpointProvider(server.url, "alpha", attempts=1)], lambda: HEAD_S - 9)
    rows = [(row["state"], row["remedy"]) for row in document["checks"] if row["check"] == "endpoint alpha"]
    assert rows == [("ok", ""), ("warn", "set this machine's clock (NTP)")]


@pytest.mark.parametrize("limit", [1, 10, PROBED_CALLS - 1])
def test_doctor__endpoint_limits_calls__names_the_limit(limit: int) -> None:
    def answer(request: Any) -> Reply:
        if isinstance(request, list) and len(request) > limit:
            error = {"code": -32600, "message": f"batch size too large, max {limit}"}
            return Reply(json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode(), status=413)
        return healthy(request)

    ((text, remedy),) = probed(answer).warnings
    assert f"at most {limit} calls in a request" in text
    assert remedy


def test_doctor__endpoint_takes_the_calls_asked__does_not_warn() -> None:
    sizes: list[int] = []

    def answer(request: Any) -> Reply:
        sizes.append(len(request) if isinstance(request, list) else 1)
        return healthy(request)

    assert probed(answer).warnings == ()
    assert sizes == [1, 1, 1, PROBED_CALLS]


def test_doctor__endpoint_refuses_for_another_reason__warns() -> None:
    def answer(request: Any) -> Reply:
        return Reply(b"", status=503) if isinstance(request, list) else healthy(request)

    ((text, _),) = probed(answer).warnings
    assert f"refuses {PROBED_CALLS} calls" in text
    assert "HTTP 503" in text


@pytest.mark.parametrize(
    ("code", "message", "reads"),
    [
        pytest.param(-32602, "invalid params", False, id="invalid params"),
        pytest.param(-32602, "too many arguments, want at most 1", False, id="too many arguments"),
        pytest.param(-32000, "the block tag is not a string", False, id="tag is no string"),
        pytest.param(
            -32000, "invalid argument 1: json: cannot unmarshal object into Go value of type string", False, id="object for a string"
        ),
        pytest.param(-32000, "Invalid params: block tag is not a string", False, id="prefixed message"),
        pytest.param(-32000, "header not found", True, id="header not found"),
        pytest.param(-32000, "hash 0xcd is not currently canonical", True, id="not canonical"),
        pytest.param(-32603, "internal error", True, id="internal error"),
    ],
)
def test_doctor__endpoint_refuses_a_blocks_hash__names_eip_1898(code: int, message: str, reads: bool) -> None:
    def answer(request: Any) -> Reply:
        if not isinstance(request, list) and request["method"] == "eth_getBalance":
            assert request["params"][1] == {"blockHash": HEAD_JSON["hash"], "requireCanonical": True}
            return Reply(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": message}}).encode())
        return healthy(request)

    probe = probed(answer)
    assert (probe.head_number is not None) is reads
    assert ("EIP-1898" in probe.finding) is not reads
