"""A pause and its end on the dashboard: while its reads of the store and the chain take for ever, and without a run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.app import dashboard
from agent.app.controls.queue import list_controls, submit_control
from agent.app.records import kill_switch
from agent.config.load import load_config
from agent.model import ControlKind, ControlOrigin, ControlSubmission, RequestKind, RequestState
from agent.store.files.locks import service_lock
from agent.wiring import open_store_offline, store_file
from agent.wiring.transactor import wallet_locks
from tests.support import agents
from tests.support.dashboards import until
from tests.support.pages.pauses import busy_site, config
from tests.support.sites import Site

__all__ = ["busy_site", "config"]

BANNER = "nothing is sent. Reason:"


def shows(site: Site, path: str, words: str, cookie: str) -> bool:
    return words in site.ask(path, Cookie=cookie)[2].decode()


def wait_until_shown(site: Site, path: str, words: str, cookie: str) -> None:
    until(lambda: shows(site, path, words, cookie))


def test_pause__by_another_process_is_shown_before_any_read_ends(busy_site: Site, config: Path) -> None:
    cookie = busy_site.enter()
    assert shows(busy_site, "/", "Traded in the next cycle.", cookie)
    kill_switch.pause(config, "lunch")
    for path, words in (("/", f"{BANNER} lunch"), ("/", "Not traded: paused."), ("/", "while paused"), ("/history", f"{BANNER} lunch")):
        wait_until_shown(busy_site, path, words, cookie)
    kill_switch.resume(config, lambda _: True)
    wait_until_shown(busy_site, "/", "Traded in the next cycle.", cookie)
    config.with_name("mine.db.paused").touch()
    wait_until_shown(busy_site, "/", f"{BANNER} {config.with_name('mine.db.paused')} exists", cookie)


def test_pause__of_the_page_is_on_the_next_page(busy_site: Site) -> None:
    cookie = busy_site.enter()
    assert shows(busy_site, "/", 'id="b-pause"', cookie)
    code, _, _ = busy_site.post("/controls/pause", {"csrf": busy_site.token(cookie), "reason": "smoke", "hard": ""}, cookie)
    assert code == 303
    for path in ("/", "/controls"):
        assert shows(busy_site, path, f"{BANNER} smoke", cookie), path
        assert not shows(busy_site, path, 'id="b-pause"', cookie), path


def test_pause__is_shown_while_the_status_cannot_be_read(busy_site: Site, config: Path) -> None:
    busy_site.board.documents = {}
    kill_switch.pause(config, "lunch")
    wait_until_shown(busy_site, "/", f"{BANNER} lunch", busy_site.enter())


def resumed(site: Site, config: Path, pause_age_s: int) -> tuple[str, str, bool]:
    """Pause, press Resume, and return state and code of the control, and whether the agent is paused."""
    cookie = site.enter()
    with open_store_offline(load_config(config)) as (_, switch):
        switch.pause("lunch", int(time.time()) - pause_age_s)
    assert site.post("/controls/resume", {"csrf": site.token(cookie)}, cookie)[0] == 303
    control = list_controls(config)["controls"][0]
    assert (control["kind"], control["requested_by"]) == ("resume", "ann")
    with open_store_offline(load_config(config)) as (_, switch):
        is_paused = switch.is_paused() is not False
    assert shows(site, "/", BANNER, cookie) is is_paused
    return control["state"], control["code"], is_paused


def test_resume__takes_effect_at_once_without_a_run(busy_site: Site, config: Path) -> None:
    assert resumed(busy_site, config, 10) == ("done", "", False)


def test_resume__waits_for_the_run_that_serves_the_wallet(busy_site: Site, config: Path) -> None:
    with service_lock(wallet_locks(load_config(config))):
        assert resumed(busy_site, config, 10) == ("queued", "", True)


def test_resume__takes_effect_after_a_killed_run(busy_site: Site, config: Path) -> None:
    config.with_name("mine.db.service.pid").write_text(f"{os.getpid()}\n")
    assert resumed(busy_site, config, 10) == ("done", "", False)


def test_resume__waits_for_a_run_of_another_container(busy_site: Site, config: Path) -> None:
    with service_lock(wallet_locks(load_config(config))):
        config.with_name("mine.db.service.pid").write_text("4194305\n")
        assert resumed(busy_site, config, 10) == ("queued", "", True)


def test_resume__lifts_no_newer_pause(busy_site: Site, config: Path) -> None:
    assert resumed(busy_site, config, -30) == ("refused", "paused_since", True)


def test_resume__lifts_no_stop(busy_site: Site, config: Path) -> None:
    with open_store_offline(load_config(config)) as (store, _):
        store.requests.record(RequestKind.STOP, (), None, False, 1)
    assert resumed(busy_site, config, 10)[::2] == ("refused", True)


def test_shown_pause__has_a_stop_until_it_is_resumed(config: Path) -> None:
    with open_store_offline(load_config(config)) as (store, _):
        request = store.requests.record(RequestKind.STOP, (), None, True, 1)
    markers = [dashboard.change_marker(str(config))]
    stop = {"done": False, "since": "1970-01-01 00:00:01 UTC", "to_stable": True, "to": None}
    assert kill_switch.shown_pause(config)["stop"] == stop
    with open_store_offline(load_config(config)) as (store, _):
        store.requests.end(request.id, RequestState.DONE, 61)
    markers.append(dashboard.change_marker(str(config)))
    assert kill_switch.shown_pause(config)["stop"] == {**stop, "done": True, "since": "1970-01-01 00:01:01 UTC"}
    kill_switch.resume(config, lambda _: True)
    markers.append(dashboard.change_marker(str(config)))
    assert "stop" not in kill_switch.shown_pause(config)
    assert len(set(markers)) == 3, "pages read again after each"


def test_controls__of_no_run_are_shown_as_expired(config: Path) -> None:
    request = ControlSubmission(ControlKind.RESUME, (), "ann", ControlOrigin.API)
    submit_control(config, request, now=lambda: time.time() - 301)
    submit_control(config, request)
    assert [control["state"] for control in list_controls(config)["controls"]] == ["queued", "expired"]


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")], ids=["file", "link to nothing"])
def test_shown_pause__creates_no_store_and_sees_the_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = agents.config(tmp_path)
    store = store_file(load_config(path))
    assert not store.exists()
    assert kill_switch.shown_pause(path)["paused"] is False
    pause = store.with_name(f"{store.name}.paused")
    make(pause)
    assert kill_switch.shown_pause(path) == {"paused": True, "pause_reason": f"{pause} exists", "pause_hard": False, "pause_signed": []}
    assert not store.exists(), "a page creates no store"
