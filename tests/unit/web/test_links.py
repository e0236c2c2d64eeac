"""A signed link opens the login page and then the controls; alone, altered or expired it does nothing."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

import pyotp

from agent.app.controls.queue import link_key
from agent.config.load import load_config
from agent.model import PlanLink
from agent.store.files.secret import ensure_secret
from agent.wiring import store_file
from tests.support.agents import config
from tests.support.sites import PASSWORD, Site

KEY = b"k" * 32
PLAN = "0123456789abcdef"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site") / "trimtab.db.users") as site:
        site.access.link_key = KEY
        yield site


def link(until_s: int | None = None, key: bytes = KEY) -> str:
    return PlanLink(PLAN, int(time.time()) + 300 if until_s is None else until_s).query(key)


def test_link__leads_to_login_then_to_the_controls(site: Site) -> None:
    code, headers, body = site.ask(f"/login?to=/controls&{link()}")
    page = body.decode()
    assert code == 200
    assert 'id="link"' in page
    assert PLAN in page
    assert 'id="password"' in page
    assert "trimtab-1=" not in headers["set-cookie"].replace("trimtab-1-form=", ""), "no session without a login"
    (csrf,) = re.findall(r'name="csrf" value="([^"]+)"', page)
    (action,) = re.findall(r'action="([^"]+)"', page)
    fields = {"csrf": csrf, "name": "ann", "password": PASSWORD, "code": pyotp.TOTP(site.secrets["ann"]).now()}
    code, headers, _ = site.post(action, fields, headers["set-cookie"].split(";")[0])
    assert (code, headers["location"]) == (303, "/controls")
    assert site.ask(f"/login?to=/controls&{link()}", Cookie=site.enter())[1]["location"] == "/controls"


@pytest.mark.parametrize(
    "query",
    [
        link(1),
        link(key=b"x" * 32),
        link().replace(PLAN, "f" * 16),
        link().replace("until=1", "until=2"),
        "plan=%3Cscript%3E&until=1&sig=a",
        "plan=" + PLAN,
        "next=https://example.org",
    ],
)
def test_altered_or_expired_link__is_a_plain_login_that_says_so(site: Site, query: str) -> None:
    code, _, body = site.ask(f"/login?to=/controls&{query}")
    assert code == 200
    assert b'id="link"' not in body
    assert b"script" not in body
    assert (b'id="why"' in body) is ("sig" in query)


def test_without_a_key_no_link_is_genuine() -> None:
    plan_link = PlanLink(PLAN, 10**11)
    assert plan_link.is_genuine(KEY, plan_link.signature(KEY), 1)
    assert not plan_link.is_genuine(b"", plan_link.signature(b""), 1)


def test_the_key_is_of_the_installation_and_seals_no_control(tmp_path: Path) -> None:
    path = config(tmp_path)
    assert link_key(path) == link_key(path) != ensure_secret(store_file(load_config(path)))
    assert link_key(path) != link_key(config(tmp_path / "", "other"))
