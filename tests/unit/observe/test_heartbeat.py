"""The heartbeat that a run sends cannot harm it; and the keys of [service]."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from agent.config.tables.service import ServiceTable
from agent.config.variables import VARIABLES_KEY, Variables
from agent.errors import ConfigError
from agent.observe.watch import Heartbeat, HttpMethod
from tests.support.records.listeners import listener


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("answer", "failures"), [(200, 0), (204, 0), (302, 1), (404, 1), (500, 1)])
def test_heartbeat__asks_once_and_names_failures_without_its_url(method: HttpMethod, answer: int, failures: int) -> None:
    warnings: list[str] = []
    with listener(answer) as (address, heard):
        heart = Heartbeat(f"{address}/ping/canary7f3a", method, warnings.append, timeout_s=60)
        heart.beat()
        heart.wait_until_sent(60)
        assert heard == [(method, "/ping/canary7f3a")]
    assert len(warnings) == failures
    assert "canary" not in "".join(warnings) + repr(heart)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/canary7f3a", "http://nowhere.invalid/canary7f3a", "http://[/canary7f3a", "http://\ud800/canary7f3a"]
)
def test_unanswered_address__is_reported_and_harms_nothing(url: str) -> None:
    warnings: list[str] = []
    heart = Heartbeat(url, "GET", warnings.append)
    heart.beat()
    heart.wait_until_sent(60)
    assert len(warnings) == 1
    assert "canary" not in warnings[0]


def test_a_listener_that_never_answers_holds_up_no_look() -> None:
    warnings: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        heart = Heartbeat(f"http://127.0.0.1:{deaf.getsockname()[1]}/", "GET", warnings.append, timeout_s=2)
        heart.beat()
        heart.beat()
        assert len(warnings) == 1
        assert "heartbeat" in warnings[0]
        heart.wait_until_sent(60)
        assert len(warnings) == 2


def test_heartbeat__without_a_thread_is_reported_and_sent_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    warnings: list[str] = []
    with listener(200) as (address, heard):
        heart = Heartbeat(address, "GET", warnings.append, timeout_s=60)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            heart.beat()
            heart.beat()
            heart.wait_until_sent(60)
        assert warnings == ["the system could not start a thread for the heartbeat"] * 2
        heart.beat()
        heart.wait_until_sent(60)
    assert len(heard) == 1
    assert len(warnings) == 2


# the config
def table(**keys: object) -> ServiceTable:
    return ServiceTable.model_validate(keys)


@pytest.mark.parametrize(
    "keys",
    [
        {"heartbeat_url": "ftp://x"},
        {"heartbeat_url": "https://x", "heartbeat_url_env": "X"},
        {"heartbeat_method": "PUT"},
        {"hang_after": "5s"},
        {"wallet_wait": "2h"},
        {"wallet_wait": "0s"},
        {"log_format": "xml"},
        {"keep_steps": 1},
        {"unknown": 1},
    ],
)
def test_mistakes_are_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        table(**keys)


def test_heartbeat_url__is_from_the_environment_and_unrepeated() -> None:
    def with_heartbeat(url: str) -> ServiceTable:
        return ServiceTable.model_validate({"heartbeat_url_env": "HEARTBEAT"}, context={VARIABLES_KEY: Variables(HEARTBEAT=url)})

    service_table = with_heartbeat("https://hc.example/canary7f3a")
    assert service_table.read_heartbeat_url() == "https://hc.example/canary7f3a"
    with pytest.raises(ConfigError) as caught:
        with_heartbeat("canary7f3a").read_heartbeat_url()
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(table(heartbeat_url="https://hc.example/canary7f3a")) + json.dumps(str(service_table))
