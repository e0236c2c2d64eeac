"""Forms of the controls: the fields that are read, the form again as typed, and no secret in it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.app.settings.shown import settings_document
from agent.config.load import load_config_text
from agent.config.writing.edits import apply_changes, parse_changes
from agent.errors import ConfigError
from agent.units import parse_raw
from agent.web.controls import FIELDS_BY_KIND, form_arguments, requested_review
from agent.web.sessions import PlanReview
from tests.support import agents
from tests.support.dashboards import (
    DEVICES,
    HOSTILE,
    MARKUP,
    golden_document,
)
from tests.support.pages.controls import queued
from tests.support.sites import Site


def test_each_form_has_the_fields_that_are_read_from_it(site: Site) -> None:
    cookie = site.enter()
    forms = dict[str, set[str]]()
    site.board.documents["controls"] = {"controls": [], "served": True, "waiting": {"moves": []}}
    site.board.documents["devices"] = DEVICES
    for page, is_paused in (("/", False), ("/controls", False), ("/controls", True), ("/alerts", False), ("/settings", False),
                            ("/strategies", False), ("/liquidity", False)):  # fmt: skip
        site.board.documents["status"]["paused"] = is_paused
        text = site.ask(page, Cookie=cookie)[2].decode()
        for kind, form in re.findall(r'<form [^>]*action="/controls/([a-z]+)">(.*?)</form>', text, re.S):
            forms.setdefault(kind, set()).update(map(unescape, re.findall(r'<(?:input|select|textarea) [^>]*?name="([^"]+)"', form)))
    assert all("csrf" in names for names in forms.values())
    names_by_kind = {
        kind: {name for name in names if not name.startswith(("target:", "set:", "was:"))} - {"csrf", "form"}
        for kind, names in forms.items()
    }
    assert names_by_kind == {kind: set(names) for kind, names in FIELDS_BY_KIND.items()}
    targets = {f"{part}:{symbol}" for part in ("target", "was") for symbol in (HOSTILE, "B")}
    assert {field for field in forms["edit"] if ":" in field} == targets | {f"set:{MARKUP}", f"was:{MARKUP}"}


def edit_error(config: Path, *arguments: tuple[str, str]) -> str:
    """What is said of an edit of the config with these arguments."""
    pairs = {name: [text for key, text in arguments if key == name] for name in ("set", "target")}
    with pytest.raises(ConfigError) as error:
        load_config_text(
            apply_changes(config.read_text(), parse_changes(pairs["set"], pairs["target"], (), ())), config, "the edited config"
        )
    return str(error.value)


def amount_error(_: Path, *arguments: tuple[str, str]) -> str:
    with pytest.raises(ConfigError) as error:
        parse_raw(dict(arguments)["amount"], 6, "AMOUNT")
    return str(error.value)


WEIGHTS = {"target:WETH": "40,00", "was:WETH": "50.00", "target:USDC": "50.00", "was:USDC": "50.00"}


@pytest.mark.parametrize(
    ("kind", "typed", "error_of", "marked"),
    [
        ("withdraw", {"form": "withdraw", "amount": "60,5", "in": "WETH", "pro-rata": "yes"}, amount_error, {"amount"}),
        ("edit", {"form": "weights", **WEIGHTS, "target:WETH": "40.00"}, edit_error, {"sum", "target:WETH", "target:USDC"}),
        ("edit", {"form": "weights", **WEIGHTS, "target:WETH": "forty"}, edit_error, {"target:WETH"}),
        ("edit", {"form": "weights", "set": "policy.colour=blue"}, edit_error, {"set"}),
        ("edit", {"form": "weights", "set": "12h"}, lambda *_: "--set KEY=VALUE: invalid form", {"set"}),
        ("edit", {"form": "orders", "asset": "WETH", "stop_loss": "cheap", "entry": "1500"}, edit_error, {"stop_loss"}),
        ("edit", {"form": "orders", "stop_loss": "20", "entry": "1500"}, lambda *_: "stop_loss of WETH: at 20.0000 USDC", {"stop_loss"}),
        (
            "edit",
            {"form": "edit-limits", "set:limits.slippage": "far", "was:limits.slippage": "0.3 %"},
            edit_error,
            {"set:limits.slippage"},
        ),
        ("edit", {"form": "target", "alert-target": "phone", "url_env": "not a name", "event": "error"}, None, {"url_env"}),
        ("stop", {"form": "stop", "to-stable": "yes"}, lambda *_: "no answer from two operators", set()),
    ],
    ids=["amount", "sum", "share", "setting", "no key", "order", "far order", "limit", "variable", "no field"],
)  # fmt: skip
def test_form_that_cannot_be_planned__is_shown_again_as_typed(
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    typed: dict[str, str],
    error_of: Callable[..., str] | None,
    marked: set[str],
) -> None:
    config = agents.config(tmp_path, targets="WETH=50% USDC=50%")
    settings: Any = settings_document(config)
    limits = next(part for part in settings["sections"] if part["title"] == "Limits")
    limits["editable"] = ["limits.slippage"]
    monkeypatch.setitem(site.board.documents, "settings", settings)
    monkeypatch.setitem(site.board.documents, "status", golden_document("25-status"))
    request = requested_review(kind, {name: [text] for name, text in typed.items()} | {"csrf": ["x"]})
    request.error = request.error or error_of(config, *request.arguments)  # type: ignore[misc]  # the variable has an error by itself
    assert request.marked_fields == marked
    cookie = site.enter()
    session = site.access.find_session(cookie.partition("=")[2], touch=False)
    session.reviews["again"] = request
    text = site.ask("/controls/review/again", Cookie=cookie)[2].decode()
    (form,) = re.findall(rf'<form class="form" method="post" action="/controls/{kind}">(.*?)</form>', text, re.S)
    tag_by_name = {name: tag for tag in re.findall(r"<(?:input|select)[^>]*>", form) for name in re.findall(r' name="([^"]+)"', tag)}
    for name, typed_text in typed.items():
        if name in ("asset", "in"):
            assert f"<option selected>{typed_text}<" in form
        elif tag_by_name[name].startswith('<input id="c-'):
            assert " checked" in tag_by_name[name]
        elif name != "event":
            assert f'value="{"" if name in marked and name == "url_env" else typed_text}"' in tag_by_name[name]
    assert {name for name, tag in tag_by_name.items() if 'aria-invalid="true"' in tag} == marked - {"sum"}
    assert ('<output id="sum" class="down">90.00 %<' in form) is ("sum" in marked)
    assert 'id="e-review" class="alarm"' in text
    assert "popover" not in form


def test_secret_that_was_typed__is_not_in_the_form_again(site: Site) -> None:
    for typed in ("policy.cooldown=https://canary.example/key", "canary" + "a" * 64):
        assert requested_review("edit", {"form": ["weights"], "set": [typed]}).form_fields == {"form": ["weights"]}
    assert requested_review("edit", {"form": ["profile"], "profile": ["a" * 64]}).form_fields["profile"] == ["a" * 64]


TYPED_KEY = "0x" + "c4" * 32


TYPED_URL = "https://canary.example/key"


TYPED_PHRASE = " ".join(["canary"] * 12)


@pytest.mark.parametrize(
    ("kind", "field_name", "typed_text"),
    [
        pytest.param("edit", "set", f'alerts.label="{TYPED_KEY}"', id="setting"),
        pytest.param("edit", "set:alerts.targets.phone", TYPED_URL, id="field of a setting"),
        pytest.param("edit", "alert-target", TYPED_PHRASE, id="name of an alert target"),
        pytest.param("withdraw", "to", TYPED_KEY, id="address"),
    ],
)
@pytest.mark.parametrize("paper", ["", "yes"], ids=["live", "paper"])
def test_secret_that_was_typed__is_neither_kept_nor_submitted(
    site: Site, monkeypatch: pytest.MonkeyPatch, kind: str, field_name: str, typed_text: str, paper: str
) -> None:
    calls = list[object]()
    monkeypatch.setattr(site.board, "call", lambda *arguments: calls.append(arguments))
    cookie = site.enter()
    form = {"csrf": site.token(cookie), "form": "weights", field_name: typed_text, "amount": "5", "paper": paper}

    headers = site.post(f"/controls/{kind}", form, cookie)[1]

    text = site.ask(headers["location"], Cookie=cookie)[2].decode()
    assert "so it was not kept" in text
    session = site.access.find_session(cookie.partition("=")[2], touch=False)
    (kept,) = session.reviews.values()
    assert "c4c4" not in repr(kept)
    assert "canary" not in repr(kept)
    assert calls == []


def test_subscription_of_a_device__is_no_typed_secret() -> None:
    fields = {"endpoint": ["https://push.example/x"], "key": ["k"], "auth": ["a" * 64], "page": ["/"]}
    assert dict(requested_review("device", fields).arguments) == {name: texts[0] for name, texts in fields.items()}


def test_refused_request__shows_its_form_until_it_is_queued() -> None:
    request = PlanReview("withdraw", (), form_fields={"form": ["withdraw"], "amount": ["50"]})
    assert not request.asks_again, "not planned yet"
    request.plan_document = {"plan_hash": "ab", "reason": ""}
    assert not request.asks_again
    request.plan_document = {"plan_hash": "", "reason": "insufficient balance: short by 5"}
    assert (request.asks_again, request.marked_fields) == (True, {"amount"})
    request.is_queued = True
    assert not request.asks_again


def test_form__gives_what_is_filled_in_and_changed_targets() -> None:
    assert form_arguments("pause", {"reason": [" smoke "], "hard": ["yes"], "csrf": ["x"]}) == (("reason", "smoke"), ("hard", "yes"))
    assert form_arguments("withdraw", {"amount": ["5"], "in": [""], "to": [" "]}) == (("amount", "5"),)
    fields = {"target:WETH": ["35 %"], "was:WETH": ["40.00"], "target:USDC": ["60.00"], "was:USDC": ["60.00"], "in-slices": ["yes"]}
    assert form_arguments("edit", fields) == (("in-slices", "yes"), ("target", "WETH=35%"))
    order = {"asset": ["WETH"], "stop_loss": [" 20% "], "entry": ["1500"], "band": [""]}
    levels = (("set", 'portfolio.assets.WETH.stop_loss="20%"'), ("set", 'portfolio.assets.WETH.entry="1500"'))
    assert form_arguments("edit", order) == levels
    alert = (("set", 'portfolio.assets.WETH.alert_above="off"'),)
    assert form_arguments("edit", {"asset": ["WETH"], "alert_above": ["off"], "alert_below": [""]}) == alert
    assert form_arguments("edit", {"asset": ["WETH"]}) == ()
    target = {"alert-target": ["phone"], "url_env": ["PHONE"], "event": ["error", "halt"]}
    variable = ("set", 'alerts.targets.phone.url_env="PHONE"')
    assert form_arguments("edit", target) == (variable, ("set", 'alerts.targets.phone.events="error, halt"'))
    del target["event"]
    assert form_arguments("edit", target) == (variable, ("set", 'alerts.targets.phone.events="all"'))
    for typed in ("40", "40%", " 40 % "):
        assert form_arguments("edit", {"target:WETH": [typed]}) == (("target", "WETH=40%"),), "its field shows the sign"
    bare = {"set:lp.targets.0.share": ["40"], "was:lp.targets.0.share": ["20%"]}
    assert form_arguments("edit", bare) == (("set", 'lp.targets.0.share="40"'),), "refused later, since a share needs its unit"
    assert form_arguments("edit", {"set:alerts.targets.phone": ["off"]}) == (("set", 'alerts.targets.phone="off"'),)


@pytest.mark.parametrize("typed", ["json://canary.example/hook", f"canary{'a' * 58}", "", "canary canary"])
def test_address_in_place_of_a_variable__is_repeated_nowhere(site: Site, config: Path, typed: str) -> None:
    cookie = site.enter()
    before = queued(config)
    form = {"csrf": site.token(cookie), "alert-target": "phone", "url_env": typed}
    _, headers, _ = site.post("/controls/edit", form, cookie)
    text = site.ask(headers["location"], Cookie=cookie)[2].decode()
    assert "not the name of an environment variable" in text
    assert "canary" not in text
    assert queued(config) == before
