"""The API on the local chain: each document is that of its command, and schemathesis finds no answer that the OpenAPI document denies."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if (find_spec("fastapi") is None or find_spec("uvicorn") is None) and not os.environ.get("CI"):
    pytest.skip("the API needs the extra dashboard", allow_module_level=True)

from agent.web.api import gate
from agent.web.api.gate import API_PREFIX, PROBE_PATHS
from tests.cli.tools import CommandResult, Desk, forked
from tests.support.api import Client
from tests.support.commands.documents import without_latency
from tests.support.dashboards import InProcessDocumentCache, Served


@pytest.fixture
def traded(desk: Desk) -> Iterator[None]:
    """A store with a rebalance, a cycle and an order, and a run that waits for its second cycle."""
    desk.ask("rebalance", "--send", "--yes")
    desk.ask("orders", "set", "--yes", "WETH", "--stop-loss", "20%")
    run = forked(desk, "run", "--every", "1h", "--send", "--yes")
    end = time.monotonic() + 120
    while desk.run("health", "--ready").code != 0:
        assert time.monotonic() < end
    yield
    run.told(signal.SIGTERM)
    assert run.ended().code == 0


@pytest.fixture
def server(desk: Desk) -> Iterator[Client]:
    """The API, by a token that may do everything."""
    desk.ask("plan")
    token_document = desk.ask("token", "add", "test", "--scope", "read", "--scope", "plan", "--scope", "control")
    with Served(board=InProcessDocumentCache(str(desk.config), desk.config.with_name("trimtab.db"))) as server:
        yield Client(server, token_document["token"])


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate.RateLimit, "count_call", lambda _: 0)


def is_sent_as_nothing(value: Any) -> bool:
    """Whether a parameter is absent from the address: an empty list or object, or one of those alone."""
    inside = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list) and all(map(is_sent_as_nothing, inside))


def examine(server: Client, examples: int) -> int:
    """Call each operation of the OpenAPI document with valid and invalid parameters; return the number of calls."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, assume, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation import GenerationMode

    home = f"http://localhost:{server.served.port}"
    schema = schemathesis.openapi.from_url(f"{home}{API_PREFIX}/openapi.json")
    schema.config.update(base_url=f"{home}{API_PREFIX}")
    schema.config.checks.negative_data_rejection.expected_statuses.append("413")  # too long for its schema, and for the server
    called = set[tuple[str, str]]()
    calls = 0
    bearer = {"Authorization": f"Bearer {server.token}"}
    for api_operation in schema.get_all_operations():
        operation = api_operation.ok()
        modes = [GenerationMode.POSITIVE]
        if operation.query or operation.body:
            modes.append(GenerationMode.NEGATIVE)
        for mode in modes:

            @settings(
                max_examples=examples if operation.query or operation.path_parameters or operation.body else 1,
                deadline=None, database=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy(generation_mode=mode))
            def call(case: Any) -> None:
                nonlocal calls
                assume(not any(map(is_sent_as_nothing, (case.query or {}).values())))
                calls += 1
                called.add((case.method.lower(), case.path))
                probe = case.path in PROBE_PATHS
                declared = [not_a_server_error] if probe else []  # 503 is the answer about a run that is paused
                case.call_and_validate(headers=bearer, base_url=home if probe else home + API_PREFIX, excluded_checks=declared)

            call()
    operations = schema.raw_schema["paths"].items()
    assert called == {(method, path) for path, methods in operations for method in methods}
    return calls


@pytest.mark.usefixtures("unlimited", "traded")
def test_document__is_that_of_its_command_and_of_openapi(desk: Desk, server: Client) -> None:
    commands: dict[str, tuple[str, ...]] = {
        "/status": ("status",), "/plan": ("plan",), "/history?limit=2": ("history", "--limit", "2"), "/explain": ("explain",),
        "/pnl?period=day&benchmark=WETH&last=3": ("pnl", "--period", "day", "--benchmark", "WETH", "--limit", "3"),
        "/orders": ("orders",), "/alerts": ("alerts",),
    }  # fmt: skip
    document_by_command = {path: server.ask(API_PREFIX + path) for path in commands}
    commands["/explain"] += (document_by_command["/explain"].json["step"],)  # the commands below write newer steps
    for path, command in commands.items():
        assert without_latency(document_by_command[path].json) == without_latency(desk.ask(*command)), path
    older = document_by_command["/history?limit=2"].headers["link"].split("<")[1].split(">")[0]
    assert server.ask(older).json["steps"] == desk.ask("history", "--limit", "4")["steps"][2:]
    assert server.ask(f"{API_PREFIX}/explain/{'0' * 26}").code == "unknown"
    assert server.ask(f"{API_PREFIX}/history?before=none").code == "unknown"
    assert server.ask(f"{API_PREFIX}/pnl?benchmark=NONE").code == "unknown"
    assert server.ask(f"{API_PREFIX}/positions").code == "not_configured"
    assert examine(server, 2) >= 15
    assert desk.ask("token", "revoke", "test")["state"] == "revoked"
    assert [token["state"] for token in desk.ask("token", "list")["tokens"]] == ["revoked"]
    assert server.ask(f"{API_PREFIX}/status").code == "token_revoked"
    events = [(event["event"], event["user"], event["detail"]) for event in desk.ask("user", "log")["events"]]
    assert events == [("token_revoked", "test", ""), ("token_added", "test", "read plan control")]


def test_control__is_queued_once_and_binds_the_shown_plan(desk: Desk, server: Client) -> None:
    server.token = desk.ask("token", "add", "steers", "--scope", "control", "--scope", "read")["token"]
    assert server.ask(f"{API_PREFIX}/controls", "POST", '{"kind": "pause"}').code == "parameter", "it needs an Idempotency-Key"
    unshown = server.ask(f"{API_PREFIX}/controls", "POST", json.dumps({"kind": "rebalance", "plan_hash": "0" * 64}), Idempotency_Key="a")
    assert (unshown.status, unshown.code) == (409, "not_shown")
    edit = {"kind": "edit", "arguments": [{"name": "target", "value": "WETH=29%"}, {"name": "target", "value": "USDC=21%"}]}
    document = server.ask(f"{API_PREFIX}/controls/preview", "POST", json.dumps(edit))
    assert document.status == 200
    assert document.json["state"] == "planned"
    body = json.dumps({**edit, "plan_hash": document.json["plan_hash"]})
    first, again = (server.ask(f"{API_PREFIX}/controls", "POST", body, Idempotency_Key="b") for _ in range(2))
    assert first.status == again.status == 202
    assert first.json == again.json
    assert (first.json["origin"], first.json["requested_by"], first.json["state"]) == ("api", "steers", "queued")
    assert server.ask(first.headers["location"]).json == first.json
    other = server.ask(f"{API_PREFIX}/controls", "POST", '{"kind": "resume"}', Idempotency_Key="b")
    assert (other.status, other.code) == (409, "key_used")
    assert len(server.ask(f"{API_PREFIX}/controls").json["controls"]) == 1

    paused = server.ask(
        f"{API_PREFIX}/controls", "POST", '{"kind": "pause", "arguments": [{"name": "reason", "value": "x"}]}', Idempotency_Key="c"
    )
    assert paused.json["state"] == "done"
    assert desk.ask("status")["paused"]
    desk.ask("resume")
    server.ask(f"{API_PREFIX}/controls", "POST", '{"kind": "pause", "arguments": [{"name": "reason", "value": "x"}]}', Idempotency_Key="c")
    assert not desk.ask("status")["paused"], "a repeated request does not pause again"
    assert without_latency(server.ask(f"{API_PREFIX}/controls?limit=5").json) == without_latency(desk.ask("controls", "--limit", "5"))


@pytest.mark.slow
@pytest.mark.usefixtures("unlimited", "traded")
def test_schemathesis__finds_no_answer_that_openapi_denies(server: Client) -> None:
    assert examine(server, 300) >= 1_000


@pytest.mark.slow
def test_futures_are_those_of_their_commands(bare: Callable[..., CommandResult], futures_chain: tuple[Path, dict[str, Any]]) -> None:
    config = futures_chain[0]

    def told(*words: str) -> Any:
        return bare(*words, "--config", str(config), "--json").json

    told("plan")
    token_document = told("token", "add", "futures", "--scope", "read")
    with Served(board=InProcessDocumentCache(str(config), config.with_name("local.db"))) as server:
        client = Client(server, token_document["token"])
        for command in ("positions", "margin", "funding", "status"):
            assert without_latency(client.ask(f"{API_PREFIX}/{command}").json) == without_latency(told(command)), command
