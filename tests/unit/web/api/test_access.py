"""Tokens of the API: what they open, what they never open, and what is kept of them."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigError, OperatorNeeded

if (find_spec("fastapi") is None or find_spec("uvicorn") is None) and not os.environ.get("CI"):
    pytest.skip("the API needs the extra dashboard", allow_module_level=True)

from agent.web.access import Access
from agent.web.api import gate
from agent.web.api.gate import API_PREFIX
from agent.web.api.routes import specification
from agent.web.api.tokens import FILE_SUFFIX, TokenFile
from agent.web.app_modules import dashboard, step_history
from agent.web.document_cache import CacheProcess
from agent.web.reach import Reach
from tests.support.api import Client
from tests.support.constants import DAY_S
from tests.support.dashboards import Served, StaticDocumentCache

NOW_S = 1_800_000_000
OPERATIONS = [
    (method.upper(), API_PREFIX + path.replace("{step}", "s1").replace("{control}", "0" * 32), operation["description"].split("`")[1])
    for path, methods in json.loads(specification())["paths"].items()
    for method, operation in methods.items()
    if "servers" not in operation
]
"""Method, path and scope of each operation that the OpenAPI document names below PREFIX."""


class GivenBoard(StaticDocumentCache):
    """A board whose answers are given too."""

    async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: Any) -> Any:
        if function is step_history.history:
            return {"steps": [{"step": f"s{number}"} for number in range(arguments[0])], "gradual_executions": [], "values": []}
        return {"read": function.__name__, "with": list(arguments)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    board = GivenBoard("none.toml", tmp_path_factory.mktemp("api") / "trimtab.db")
    board.documents = {
        "status": {"value": "1.50", "endpoints": [{"operator": "a"}]},
        "orders": {},
        "alerts": {},
        "plan": {"outcome": "hold"},
        "positions": {"error": "why", "raised": OperatorNeeded("positions: unknown", "look at the venue")},
    }
    board.read_s_by_function = dict.fromkeys((dashboard.live_documents, dashboard.plan_document), time.monotonic())
    with Served(board=board) as server:
        yield Client(server)


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Rates are the subject of one test only."""
    if "limit" not in request.node.name:
        monkeypatch.setattr(gate.RateLimit, "count_call", lambda _: 0)


def token(server: Client, *scopes: str, lifetime_s: int = DAY_S, at_s: int | None = None) -> str:
    """A new token."""
    now_s = int(time.time()) if at_s is None else at_s
    return TokenFile(server.served.board.store_path).add(f"t{time.monotonic_ns()}", scopes, lifetime_s, now_s)[1]


def bearer(text: str) -> str:
    return f"Bearer {text}"


def test_only_a_hash_is_kept_in_a_private_file(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / "a.db")
    entry, text = tokens.add("ci", ["plan", "read", "read"], 90 * DAY_S, NOW_S)
    assert tokens.path.name == f"a.db{FILE_SUFFIX}"
    assert tokens.path.stat().st_mode & 0o777 == 0o600
    kept = tokens.path.read_text()
    assert text.split("_", 2)[2] not in kept
    assert [scope.value for scope in entry.scopes] == ["read", "plan"]
    assert "sha256" not in entry.document(NOW_S)
    assert tokens.find(text) == entry
    assert entry.state(NOW_S) == "active"
    assert entry.state(NOW_S + 90 * DAY_S) == "expired"
    assert tokens.revoke("ci", NOW_S + 1).state(NOW_S + 1) == "revoked"
    assert TokenFile(tmp_path / "a.db").tokens()[0].revoked_s == NOW_S + 1


def test_revocation__can_be_repeated(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / "a.db")
    tokens.add("ci", ["read"], DAY_S, NOW_S)
    tokens.add("old", ["read"], DAY_S, NOW_S)
    for _ in range(2):
        assert tokens.revoke("ci", NOW_S + 1).revoked_s == NOW_S + 1
    tokens.add("ci", ["read"], DAY_S, NOW_S + 2)
    assert tokens.revoke("ci", NOW_S + 3).revoked_s == NOW_S + 3
    for name, now_s in (("old", NOW_S + DAY_S), ("unknown", NOW_S)):
        with pytest.raises(ConfigError, match="no active token"):
            tokens.revoke(name, now_s)


def test_revocation__ends_every_token_of_its_name(tmp_path: Path) -> None:
    """After the clock is set back, an expired one is active again beside its successor."""
    tokens = TokenFile(tmp_path / "a.db")
    texts = [tokens.add(name, ["control"], 100, now_s)[1] for name, now_s in (("ci", NOW_S), ("other", NOW_S), ("ci", NOW_S + 200))]
    assert tokens.revoke("ci", NOW_S + 50).created_s == NOW_S + 200
    found_tokens = [tokens.find(text) for text in texts]
    assert [token and token.state(NOW_S + 50) for token in found_tokens] == ["revoked", "active", "revoked"]


def test_revocation__ends_expired_tokens_of_its_name(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / "a.db")
    for now_s in (NOW_S, NOW_S + 200):
        tokens.add("ci", ["control"], 100, now_s)
    tokens.revoke("ci", NOW_S + 250)
    assert [token.state(NOW_S + 50) for token in tokens.tokens()] == ["revoked", "revoked"], "the clock is set back"


@pytest.mark.parametrize(
    ("name", "scopes", "lifetime_s", "field"),
    [
        pytest.param("a b", ["read"], 9, "NAME", id="space"),
        pytest.param("", ["read"], 9, "NAME", id="no name"),
        pytest.param("x" * 33, ["read"], 9, "NAME", id="too long"),
        pytest.param("taken", ["read"], 9, "NAME", id="repeated name"),
        pytest.param("a", [], 9, "--scope", id="no scope"),
        pytest.param("a", ["admin"], 9, "--scope", id="unknown scope"),
        pytest.param("a", ["read"], 0, "--expires", id="no lifetime"),
        pytest.param("a", ["read"], 367 * DAY_S, "--expires", id="lifetime too long"),
    ],
)
def test_a_token_out_of_range_is_not_added(tmp_path: Path, name: str, scopes: list[str], lifetime_s: int, field: str) -> None:
    tokens = TokenFile(tmp_path / "a.db")
    tokens.add("taken", ["read"], DAY_S, NOW_S)
    with pytest.raises(ConfigError) as refused:
        tokens.add(name, scopes, lifetime_s, NOW_S)
    assert refused.value.field == field
    assert len(tokens.tokens()) == 1


def test_full_file__drops_the_oldest_ended_tokens_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.web.api.tokens.MAX_TOKENS", 4)
    tokens = TokenFile(tmp_path / "a.db")
    lifetimes = {"oldest": 90 * DAY_S, "expired": 1, "revoked": 90 * DAY_S, "late": 1}
    texts = {name: tokens.add(name, ["read"], lifetime_s, NOW_S)[1] for name, lifetime_s in lifetimes.items()}
    tokens.revoke("revoked", NOW_S + 1)
    for name in ("new", "newer", "newest"):
        texts[name] = tokens.add(name, ["read"], DAY_S, NOW_S + 2)[1]
        assert tokens.find(texts["oldest"]) is not None
    assert [token.name for token in tokens.tokens()] == ["oldest", "new", "newer", "newest"]
    with pytest.raises(ConfigError, match="4 tokens are active"):
        tokens.add("one-more", ["read"], DAY_S, NOW_S + 3)
    assert all(tokens.find(texts[name]) is not None for name in ("oldest", "new", "newer", "newest"))


def test_a_wrong_secret_and_an_unknown_id_are_compared_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = TokenFile(tmp_path / "a.db")
    _, text = tokens.add("ci", ["read"], DAY_S, NOW_S)
    compared: list[int] = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(len(a)) or real(a, b))
    wrong = (text[:-1] + ("A" if text[-1] != "A" else "B"), f"trimtab_{'0' * 16}_{text.split('_', 2)[2]}", "", "trimtab", "\udcff")
    assert [tokens.find(answer) for answer in wrong] == [None] * len(wrong)
    assert compared == [32] * len(wrong)


@pytest.mark.parametrize("method_path_scope", OPERATIONS, ids=" ".join)
def test_each_call_takes_its_own_scope_and_no_other(server: Client, method_path_scope: tuple[str, str, str]) -> None:
    method, path, scope = method_path_scope
    body = "{}" if method == "POST" else None
    assert server.ask(path, method, body).code == "token_missing"
    others = [own_scope for own_scope in ("read", "plan", "control") if own_scope != scope]
    refused = server.ask(path, method, body, Authorization=bearer(token(server, *others)))
    assert (refused.status, refused.code) == (403, "scope")
    assert server.ask(path, method, body, Authorization=bearer(token(server, scope))).status not in (401, 403)


@pytest.mark.parametrize(
    ("networks", "address", "is_served"),
    [
        pytest.param((), "203.0.113.7", True, id="any network"),
        pytest.param(("203.0.113.7",), "203.0.113.7", True, id="own address"),
        pytest.param(("203.0.113.7",), "203.0.113.8", False, id="other address"),
        pytest.param(("10.0.0.0/8", "2001:db8::/32"), "10.255.255.255", True, id="last of its network"),
        pytest.param(("10.0.0.0/8", "2001:db8::/32"), "11.0.0.0", False, id="first beyond its network"),
        pytest.param(("10.0.0.0/8", "2001:db8::/32"), "2001:db8::1", True, id="second network"),
        pytest.param(("10.0.0.0/8", "2001:db8::/32"), "2001:db9::1", False, id="beyond the second network"),
        pytest.param(("0.0.0.0/0",), "", False, id="no address"),
        pytest.param(("0.0.0.0/0",), "localhost", False, id="name for an address"),
    ],
)
def test_token_serves_its_networks_alone(tmp_path: Path, networks: tuple[str, ...], address: str, *, is_served: bool) -> None:
    TokenFile(tmp_path / "a.db").add("ci", ["read"], DAY_S, NOW_S, networks)
    (api_token,) = TokenFile(tmp_path / "a.db").tokens()
    assert api_token.document(NOW_S)["networks"] == [*map(str, map(ip_network, networks))]
    assert api_token.serves(address) == is_served


@pytest.mark.parametrize("network", ["localhost", "10.0.0.1/8", "10.0.0.0/33", "", "300.0.0.1"])
def test_invalid_network_of_a_token_is_refused(tmp_path: Path, network: str) -> None:
    tokens = TokenFile(tmp_path / "a.db")
    with pytest.raises(ConfigError) as refused:
        tokens.add("ci", ["read"], DAY_S, NOW_S, ["10.0.0.0/8", network])
    assert refused.value.field == "--from"
    assert tokens.tokens() == ()


@pytest.mark.parametrize(("network", "status"), [("127.0.0.0/8", 200), ("127.0.0.1", 200), ("10.0.0.0/8", 403), ("127.0.0.2", 403)])
def test_call_from_outside_the_token_s_networks__is_refused(server: Client, network: str, status: int) -> None:
    tokens = TokenFile(server.served.board.store_path)
    _, token_text = tokens.add(f"t{time.monotonic_ns()}", ["read"], DAY_S, int(time.time()), [network])
    answer = server.ask(API_PREFIX + "/status", Authorization=bearer(token_text))
    assert (answer.status, answer.code if status == 403 else "address") == (status, "address")


def test_token_limit__counts_no_call_from_outside_its_networks(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / "a.db")
    _, text = tokens.add("ci", ["read"], DAY_S, NOW_S, ["10.0.0.0/8"])
    token_gate = gate.Gate(lambda *_: asyncio.sleep(0), tokens, lambda: NOW_S, lambda: 0.0)

    def code(address: str) -> str:
        try:
            token_gate.admit({"headers": [(b"authorization", bearer(text).encode())], "address": address})
        except gate.ApiError as error:
            return error.code
        return ""

    codes = [code("192.0.2.1") for _ in range(gate.BURST + 1)]
    assert codes == ["address"] * gate.INVALID_BURST + ["rate_limit"] * (gate.BURST + 1 - gate.INVALID_BURST)
    assert [code("10.0.0.1") for _ in range(gate.BURST + 1)] == [""] * gate.BURST + ["rate_limit"]


def test_a_stolen_read_token_only_reads(server: Client) -> None:
    """No other verb, path, spelling of a path, or way to pass the token gets further."""
    stolen = bearer(token(server, "read"))
    reading = {path for method, path, scope in OPERATIONS if method == "GET" and scope == "read"}
    for path in (
        *reading,
        f"{API_PREFIX}/plan",
        f"{API_PREFIX}/controls",
        f"{API_PREFIX}/nothing",
        f"{API_PREFIX}//plan",
        f"{API_PREFIX}/status/../plan",
    ):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "HEAD", "CONNECT"):
            answer = server.ask(path, method, "{}" if method != "GET" else None, Authorization=stolen)
            if not (method == "GET" and path in reading):
                assert answer.status in (400, 403, 404, 405), (method, path)
    override = {"X-HTTP-Method-Override": "POST", "X-Original-URL": "/api/v1/plan", "X-Forwarded-Host": "evil", "Cookie": "session=1"}
    assert server.ask(f"{API_PREFIX}/plan", Authorization=stolen, **override).code == "scope"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic dDp0", "Bearer trimtab_", "bearer x y", "Bearer " + "A" * 5_000])
def test_what_is_no_token_opens_nothing(server: Client, header: str) -> None:
    answer = server.ask(f"{API_PREFIX}/status", Authorization=header)
    assert (answer.status, answer.code) == (401, "token_unknown")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_expired_and_revoked_tokens__are_refused_at_once(server: Client) -> None:
    assert server.ask(f"{API_PREFIX}/status", Authorization=bearer(token(server, "read", at_s=NOW_S // 2))).code == "token_expired"
    tokens = TokenFile(server.served.board.store_path)
    entry, text = tokens.add("leaked", ["read"], DAY_S, int(time.time()))
    assert server.ask(f"{API_PREFIX}/status", Authorization=bearer(text)).status == 200
    tokens.revoke(entry.name, int(time.time()))
    assert server.ask(f"{API_PREFIX}/status", Authorization=bearer(text)).code == "token_revoked"


def test_a_token_in_the_address_is_refused_and_not_repeated(server: Client) -> None:
    text = token(server, "read")
    for path in (f"/status?token={text}", f"/explain/{text}", f"/history?access_token={text}", "/status?a=%74rimtab_" + text[8:]):
        answer = server.ask(API_PREFIX + path, Authorization=bearer(text))
        assert (answer.status, answer.code) == (400, "token_in_url")
        assert text.encode() not in answer.body


def test_readable_or_damaged_file__opens_nothing(server: Client) -> None:
    text = token(server, "read")
    path = server.served.board.store_path.with_name(server.served.board.store_path.name + FILE_SUFFIX)
    kept = path.read_bytes()
    path.chmod(0o640)
    refused = server.ask(f"{API_PREFIX}/status", Authorization="Bearer x")
    assert (refused.code, str(path).encode() in refused.body) == ("file", False)
    assert "trimtab token list" in refused.json["remedy"]
    path.chmod(0o600)
    for damage in (b"", b"[]", b'{"version": 2, "tokens": []}', kept.replace(b'"sha256": "', b'"sha256": "0'), kept[:-9]):
        path.write_bytes(damage)
        answer = server.ask(f"{API_PREFIX}/status", Authorization=bearer(text))
        assert (answer.status, answer.code) == (503, "damaged")
    path.write_bytes(kept)
    assert server.ask(f"{API_PREFIX}/status", Authorization=bearer(text)).status == 200


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("expires_s", "2027"),
        ("expires_s", None),
        ("expires_s", 10**30),
        ("created_s", None),
        ("revoked_s", "x"),
        ("name", None),
        ("id", 7),
    ],
)
def test_entry_of_another_type__is_damage(tmp_path: Path, key: str, value: object) -> None:
    tokens = TokenFile(tmp_path / "a.db")
    tokens.add("ci", ["read"], DAY_S, NOW_S)
    tokens_document = json.loads(tokens.path.read_text())
    tokens_document["tokens"][0][key] = value
    tokens.path.write_text(json.dumps(tokens_document))
    with pytest.raises(OperatorNeeded, match="is damaged"):
        TokenFile(tmp_path / "a.db").tokens()


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_what_is_no_file__opens_nothing_and_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    tokens = TokenFile(tmp_path / "a.db")
    if kind == "folder":
        tokens.path.mkdir()
    elif kind == "link":
        tokens.path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(tokens.path, 0o600)
    descriptors: list[int] = []
    real_open = os.open
    monkeypatch.setattr(os, "open", lambda *given, **named: descriptors.append(real_open(*given, **named)) or descriptors[-1])
    with pytest.raises((ConfigError, OperatorNeeded)) as refused:
        tokens.find("")
    assert refused.value.code == ("damaged" if kind == "pipe" else "file")
    assert len(descriptors) == (kind != "link")
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


@pytest.fixture
def rare_refill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a machine of any speed ask a whole burst before another call is allowed."""
    count_call = gate.RateLimit.count_call

    def count_at_a_low_rate(limit: gate.RateLimit) -> int:
        monkeypatch.setattr(limit, "_calls_per_s", 0.001)
        return count_call(limit)

    monkeypatch.setattr(gate.RateLimit, "count_call", count_at_a_low_rate)


@pytest.mark.usefixtures("rare_refill")
def test_token_limits__are_apart_and_wrong_tokens_slow_none(server: Client) -> None:
    path = f"{API_PREFIX}/status"
    first_question = bearer(token(server, "read"))
    other = bearer(token(server, "read"))
    documents = [server.ask(path, Authorization=first_question) for _ in range(gate.BURST + 2)]
    assert {answer.status for answer in documents[: gate.BURST]} == {200}
    assert (documents[-1].status, documents[-1].code) == (429, "rate_limit")
    assert int(documents[-1].headers["retry-after"]) >= 1
    wrong = [server.ask(path, Authorization="Bearer x").status for _ in range(gate.INVALID_BURST + 2)]
    assert set(wrong[: gate.INVALID_BURST]) == {401}
    assert wrong[-1] == 429
    assert server.ask(path, Authorization=other).status == 200


def test_a_rate_limit_refills_in_time() -> None:
    now = [0.0]
    limit = gate.RateLimit(30, 2, lambda: now[0])
    assert [limit.count_call() for _ in range(3)] == [0, 0, 3], "a call every two seconds"
    now[0] = 1.5
    assert limit.count_call() == 1, "three quarters of a call"
    now[0] = 3.0
    assert [limit.count_call() for _ in range(2)] == [0, 2]
    now[0] = 60.0
    assert [limit.count_call() for _ in range(3)] == [0, 0, 3], "no more than the burst"


def test_a_rebound_name_reaches_no_call(server: Client) -> None:
    refused = server.ask(f"{API_PREFIX}/status", Host="evil.example", Authorization=bearer(token(server, "read")))
    assert (refused.status, refused.code) == (421, "misdirected_request")


def test_a_long_body_is_refused_before_it_is_parsed(server: Client) -> None:
    text = bearer(token(server, "read", "control"))
    assert server.ask(f"{API_PREFIX}/controls", "POST", " " * (gate.MAX_BODY_BYTES + 1), Authorization=text).code == "body"


def test_a_body_that_does_not_arrive_is_not_waited_for(server: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BODY_TIMEOUT_S", 0.05)
    with socket.create_connection(("127.0.0.1", server.served.port), timeout=10) as link:
        head = f"POST {API_PREFIX}/controls HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer(token(server, 'control'))}\r\n"
        link.sendall(f"{head}Content-Length: 10\r\n\r\n{{".encode())
        assert link.recv(100).startswith(b"HTTP/1.1 408")


def test_dripping_body__is_not_waited_for(server: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BODY_TIMEOUT_S", 0.2)
    with socket.create_connection(("127.0.0.1", server.served.port), timeout=0.05) as link:
        link.sendall(f"POST {API_PREFIX}/openapi.json HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60\r\n\r\n".encode())
        answer = b""
        for _ in range(20):
            link.sendall(b" ")
            with suppress(TimeoutError):
                answer = link.recv(100)
                break
        assert answer.startswith(b"HTTP/1.1 408")


def test_an_unchanged_document_is_not_sent_again(server: Client) -> None:
    text = bearer(token(server, "read"))
    first = server.ask(f"{API_PREFIX}/status", Authorization=text)
    assert first.json == server.served.board.documents["status"]
    assert int(first.headers["age"]) < 60
    tag = first.headers["etag"]
    for known in (tag, f'"x", {tag}', "*"):
        again = server.ask(f"{API_PREFIX}/status", Authorization=text, If_None_Match=known)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert server.ask(f"{API_PREFIX}/status", Authorization=text, If_None_Match='W/"x"').status == 200


def test_pages_of_history_lead_to_older_steps(server: Client) -> None:
    text = bearer(token(server, "read"))
    page = server.ask(f"{API_PREFIX}/history?limit=3", Authorization=text)
    assert page.headers["link"] == f'<{API_PREFIX}/history?limit=3&before=s2>; rel="next"'
    assert server.ask(f"{API_PREFIX}/endpoints", Authorization=text).json == {"endpoints": [{"operator": "a"}]}


@pytest.mark.parametrize(
    "path",
    [
        "/history?limit=0",
        "/history?limit=x",
        "/history?before=..%2f",
        "/pnl?period=hour",
        "/explain/a%20b",
        "/status?a=1",
        "/history?limit=1&limit=2",
    ],
)
def test_invalid_parameters_are_named_and_not_repeated(server: Client, path: str) -> None:
    answer = server.ask(API_PREFIX + path, Authorization=bearer(token(server, "read")))
    assert (answer.status, answer.code) == (422, "parameter")


def test_failures_carry_their_code_and_remedy(server: Client) -> None:
    text = bearer(token(server, "read"))
    failed = server.ask(f"{API_PREFIX}/positions", Authorization=text)
    assert (failed.status, failed.code, failed.json["remedy"]) == (503, "operator", "look at the venue")
    missing = server.ask(f"{API_PREFIX}/margin", Authorization=text)
    assert (missing.status, missing.code) == (404, "not_configured")


def test_specification__needs_no_token_and_is_the_routes(server: Client) -> None:
    from scripts.make.openapi import openapi_text

    assert server.ask(f"{API_PREFIX}/openapi.json").body == specification()
    assert specification() == openapi_text().encode(), "a document or a call has changed: .venv/bin/python scripts/make/openapi.py --write"


def test_every_answer_is_typed_to_its_last_field() -> None:
    document = json.loads(specification())

    def untyped(schema: Any, place: str) -> list[str]:
        if isinstance(schema, list):
            return [untyped_place for number, part in enumerate(schema) for untyped_place in untyped(part, f"{place}.{number}")]
        if not isinstance(schema, dict):
            return []
        bare = schema == {} or (schema.get("type") == "object" and "properties" not in schema and not schema.get("additionalProperties"))
        rows = schema.get("type") == "array" and "items" not in schema and "prefixItems" not in schema
        deeper = [untyped_place for name, part in schema.items() for untyped_place in untyped(part, f"{place}.{name}")]
        return [place] * (bare or rows or schema.get("additionalProperties") is True) + deeper

    assert untyped(document["components"]["schemas"], "schemas") == []
    answers = {
        (path, method, code): [body["schema"] for body in answer.get("content", {}).values()]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for code, answer in operation["responses"].items()
    }
    assert all(schemas for (_, _, code), schemas in answers.items() if code != "304")
    assert untyped(list(answers.values()), "answers") == []


def test_a_session_opens_no_call_and_a_token_no_page(server: Client) -> None:
    access = Access(Reach())
    access.set_users({1: ("owner", False)})
    session = {"Cookie": f"{access.reach.cookie_name}={access.begin_session(1)}"}
    with Served(access, GivenBoard("none.toml", server.served.board.store_path)) as page_server:
        client = Client(page_server)
        assert client.ask("/alerts", **session).status == 200
        assert client.ask(f"{API_PREFIX}/status", **session).code == "token_missing"
        every = bearer(token(server, "read", "plan", "control"))
        assert client.ask("/alerts", Authorization=every).status == 303
        assert client.ask(f"{API_PREFIX}/explain", Authorization=every).status == 200


@pytest.mark.parametrize(("scope", "loads"), [("read", False), ("control", True)])
def test_pause_queue__is_loaded_at_the_start_if_a_token_may(tmp_path: Path, scope: str, loads: bool) -> None:
    loaded: list[CacheProcess] = []

    class WatchedBoard(GivenBoard):
        async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: Any) -> Any:
            loaded.append(process)

    board = WatchedBoard("none.toml", tmp_path / "trimtab.db")
    TokenFile(board.store_path).add("a", [scope], DAY_S, int(time.time()))
    with Served(board=board) as server:
        assert Client(server).ask(f"{API_PREFIX}/openapi.json").status == 200
    assert loaded == [CacheProcess.CONTROLS] * loads
