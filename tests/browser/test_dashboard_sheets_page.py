"""Controls of the Overview and their sheets, by keyboard: Tab stays inside while one is open, also after a live update has replaced its
button, and Cancel closes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.app.settings.shown import settings_document
from agent.errors import ConfigError
from agent.web import controls as web_controls
from agent.web.controls import requested_review
from agent.web.reading import AppProcess
from tests.browser.chromium import AXE, PHONE, WIDE, patient_context, violations
from tests.support import agents
from tests.support.dashboards import CONTROLS, golden_document
from tests.support.pages.reviews import review
from tests.support.pages.setup_keys import tab_to, type_into
from tests.support.sites import Site
from tests.support.worlds import missing

FOCUSED = "document.activeElement.id || document.activeElement.textContent"
CUT_CHOICES = """name => [...document.querySelectorAll(`#${name} select`)].flatMap(select => [...select.options].filter(option => {
  const style = getComputedStyle(select), context = document.createElement("canvas").getContext("2d");
  context.font = `${style.fontSize} ${style.fontFamily}`;
  const arrow = 24, inside = select.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - arrow;
  return !option.text.startsWith("0x") && context.measureText(option.text).width > inside;
}).map(option => option.text))"""
"""Choices whose words are wider than their field; an address is known by its first characters."""
LABELS_UNDER_BOXES = """[...document.querySelectorAll(":popover-open .check")].filter(line => {
  const box = line.querySelector("input").getBoundingClientRect();
  return [...line.querySelector("label").getClientRects()].some(rect => rect.left < box.right + 4);
}).map(line => line.textContent)"""
"""Labels that touch their box, or go on below it."""
FIELDS = ["f-reason", "c-pause-hard", "Pause", "Cancel"]
"""What the sheet of a pause has, in its order; the button that pauses has the focus first."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "trimtab.db.users") as site:
        yield site


@pytest.fixture
def page(site: Site, chromium: Any) -> Iterator[Any]:
    """The Overview of a user, with the sheet of a pause open."""
    address = f"http://localhost:{site.port}"
    with patient_context(chromium, viewport={"width": WIDE[0], "height": WIDE[1]}, base_url=address, bypass_csp=True) as context:
        context.add_cookies([{"name": "trimtab-1", "value": site.enter().partition("=")[2], "url": address}])
        page = context.new_page()
        page.goto("/")
        page.click("#b-pause")
        page.wait_for_selector("#pause:popover-open")
        yield page


def replace_button(site: Site, page: Any) -> None:
    """Let a live update replace the button that has opened the sheet."""
    page.evaluate("document.getElementById('b-pause').dataset.old = 'yes'")
    site.loop.call_soon_threadsafe(site.board.announce_change)
    page.wait_for_selector("#b-pause:not([data-old])")


def focused_by(page: Any, key: str, count: int) -> list[str]:
    focused = []
    for _ in range(count):
        page.keyboard.press(key)
        focused.append(page.evaluate(FOCUSED))
    return focused


@pytest.mark.parametrize("is_replaced", [False, True], ids=["button there", "button replaced"])
def test_tab_goes_round_inside_an_open_sheet(site: Site, page: Any, is_replaced: bool) -> None:
    if is_replaced:
        replace_button(site, page)
    assert page.evaluate(FOCUSED) == FIELDS[0]
    assert focused_by(page, "Tab", 6) == [*FIELDS[1:], *FIELDS[:3]]
    assert focused_by(page, "Shift+Tab", 2) == [FIELDS[1], FIELDS[0]]


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
@pytest.mark.parametrize(
    ("path", "name"),
    [("/", "weights"), ("/", "withdraw"), ("/", "orders"), ("/", "stop"), ("/settings", "profile")],
    ids=["weights", "withdraw", "orders", "stop", "profile"],
)
def test_sheet__keeps_the_focus_and_fits_the_screen(
    site: Site, page: Any, path: str, name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    monkeypatch.setitem(site.board.documents, "settings", settings_document(agents.config(tmp_path, targets="WETH=60% USDC=40%")))
    monkeypatch.setitem(site.board.documents, "status", golden_document("25-status"))
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(path)
    tab_to(page, f"[popovertarget={name}]")
    opener = page.evaluate("document.activeElement.id")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#{name}:popover-open")
    assert violations(page) == []
    bounds = page.evaluate(f"document.querySelector('#{name}').getBoundingClientRect().toJSON()")
    assert min(bounds["left"], bounds["top"]) >= 0, bounds
    assert (bounds["right"] <= size[0], bounds["bottom"] <= size[1]) == (True, True), bounds
    submit_bottom = page.evaluate(f"document.querySelector('#{name} button:not([type])').getBoundingClientRect().bottom")
    assert submit_bottom <= bounds["bottom"], "the button is seen before any scrolling"
    assert page.evaluate(CUT_CHOICES, name) == []
    assert page.evaluate(LABELS_UNDER_BOXES) == []
    is_inside = f"document.querySelector('#{name}').contains(document.activeElement)"
    page.keyboard.press("Tab")
    first = page.evaluate(FOCUSED)
    around = [page.evaluate(is_inside)]
    while (focused := focused_by(page, "Tab", 1)) != [first] and len(around) < 30:
        around.append(page.evaluate(is_inside))
    assert focused == [first], "Tab goes round"
    assert all(around)
    assert len(around) > 2
    page.click(f"#{name} button:has-text('Cancel')")
    assert page.locator(f"#{name}:popover-open").count() == 0
    page.focus(f"#{opener}")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == opener


class RefusingProcess(AppProcess):
    """A process that refuses to plan what was typed."""

    async def call(self, function: Any, *arguments: Any) -> Any:
        """Raise an error that names what was typed."""
        typed = dict(arguments[-1])
        if "amount" in typed:
            raise ConfigError(f"AMOUNT: {typed['amount']!r} is not a number", "write 60.5")
        key, _, value = typed["set"].partition("=")
        raise ConfigError(f"the edited config: {key}: {value.strip(chr(34))!r} is not valid", "write another")


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
@pytest.mark.parametrize(
    ("sheet", "field", "typed", "corrected"),
    [
        ("withdraw", "amount", "60,5", "60.5"),
        ("orders", "stop_loss", "cheap", "1500"),
        ("weights", "set", "policy.cooldown=soon", "policy.cooldown=12h"),
    ],
    ids=["withdraw", "orders", "setting"],
)
def test_form__that_cannot_be_planned_is_corrected_by_keyboard(
    chromium: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sheet: str,
    field: str,
    typed: str,
    corrected: str,
    size: tuple[int, int],
) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    monkeypatch.setattr(web_controls, "AppProcess", RefusingProcess)
    document = settings_document(agents.config(tmp_path, targets="WETH=60% USDC=40%"))
    with Site(tmp_path / "trimtab.db.users") as site:
        site.board.documents |= {"settings": document, "status": golden_document("25-status")}
        cookie = site.enter()
        session = site.access.find_session(cookie.partition("=")[2], touch=False)
        assert session is not None
        address = f"http://localhost:{site.port}"
        view = {"width": size[0], "height": size[1]}
        with patient_context(chromium, viewport=view, base_url=address, bypass_csp=True) as context:
            context.add_cookies([{"name": "trimtab-1", "value": cookie.partition("=")[2], "url": address}])
            page = context.new_page()
            page.goto("/")
            tab_to(page, f"[popovertarget={sheet}]")
            page.keyboard.press("Enter")
            page.wait_for_selector(f"#{sheet}:popover-open")
            if not page.locator(f"#f-{field}:focus").count():
                tab_to(page, f"#f-{field}")
            page.keyboard.type(typed)
            page.keyboard.press("Enter")
            page.wait_for_selector("#e-review")
            assert page.input_value(f"#f-{field}") == typed
            assert page.get_attribute(f"#f-{field}", "aria-invalid") == "true"
            assert "e-review" in page.get_attribute(f"#f-{field}", "aria-describedby")
            assert page.locator("[aria-invalid]").count() == 1
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert violations(page) == []
            refused_at = page.url
            type_into(page, f"#f-{field}", corrected)
            page.keyboard.press("Enter")
            page.wait_for_url(lambda url: url != refused_at)
            assert corrected in str(list(session.reviews.values())[-1].arguments)


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
def test_guards__are_counted_and_unfold_by_keyboard(site: Site, page: Any, size: tuple[int, int]) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    plan = golden_document("04-plan")
    cookie = "=".join(next((entry["name"], entry["value"]) for entry in page.context.cookies() if entry["name"] == "trimtab-1"))
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(review(site, cookie, "rebalance", {"plan_hash": "ab" * 32, "reason": "", "moves": [], "document": plan}))
    off = sum(verdict["limit"] == "off" for verdict in plan["verdicts"])
    assert page.inner_text("#d-guards summary") == f"Guards: {len(plan['verdicts']) - off} passed, {off} off"
    tab_to(page, "#d-guards summary")
    page.keyboard.press("Enter")
    assert page.locator("#d-guards td:text-is('–'):visible").count() == off
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations(page) == []


def test_escape_closes_the_sheet_and_tab_is_free_again(page: Any) -> None:
    page.keyboard.press("Escape")
    page.wait_for_selector("#pause:not(:popover-open)", state="attached")
    assert not set(focused_by(page, "Tab", 3)) & set(FIELDS[:2])


def test_cancel_closes_the_sheet_and_sends_nothing(page: Any) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    assert focused_by(page, "Tab", 3)[-1] == "Cancel"
    page.keyboard.press("Enter")
    page.wait_for_selector("#pause:not(:popover-open)", state="attached")
    assert page.evaluate(FOCUSED) == "b-pause", "the focus goes back to where it was"
    assert sent == []


def test_what_is_sent__is_said_before_the_answer(page: Any) -> None:
    page.evaluate("document.addEventListener('submit', event => event.preventDefault())")  # so that no answer comes
    page.keyboard.press("Enter")
    page.wait_for_selector("#pause [role=status]:has-text('Under way: Pause.')")
    assert violations(page) == []


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
def test_withdraw__pays_to_an_address_of_the_config(site: Site, page: Any, size: tuple[int, int]) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    addresses = [f"0x{number:040x}" for number in (1, 2)]
    site.board.documents["settings"] = {**site.board.documents["settings"], "payout_addresses": addresses}
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.reload()
    page.click("#b-withdraw")
    page.wait_for_selector("#withdraw:popover-open")
    assert page.locator("#f-to option").all_inner_texts() == ["Nobody: it is set aside in the wallet", *addresses]
    page.focus("#f-to")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#f-to") == addresses[0]
    assert page.evaluate("document.querySelector('#withdraw').scrollWidth <= innerWidth")
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.click("#b-stop")
    assert page.locator("#f-send-to option").all_inner_texts() == ["Nobody: the wallet keeps it", *addresses]


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
@pytest.mark.parametrize(("state", "says"), [("queued", "queued until the run"), ("taken", "carried out now"), ("done", "")])
def test_rebalance__says_what_is_under_way(site: Site, page: Any, size: tuple[int, int], state: str, says: str) -> None:
    control = {**CONTROLS["controls"][0], "kind": "confirm", "requested_by": "ann", "state": state}
    site.board.documents["controls"] = {**CONTROLS, "waiting": None, "controls": [control]}
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.reload()
    assert page.is_disabled("#b-rebalance") is bool(says)
    assert page.is_enabled("#b-pause")
    assert (f"Under way: confirm, requested by ann at {control['requested']} UTC, {says}" in page.inner_text("main")) is bool(says)
    tab_to(page, "#b-pause")
    assert violations(page) == []


def test_alert_prices__of_the_numeraire_are_dashes(site: Site, page: Any) -> None:
    assert site.board.documents["status"]["numeraire"] == "USDC"
    for path in ("/assets", "/alerts"):
        page.goto(path)
        row = page.inner_text("table:has(th:has-text('Leaves band below')) tr:has(th:has-text('USDC'))").split()
        assert row.count("–") == 4, "its price is 1 whatever moves"


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
def test_settings__folds_open_by_keyboard_and_outlive_an_update(site: Site, page: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    document: Any = settings_document(agents.config(tmp_path, targets="WETH=60% USDC=40%"))
    document["sections"][0]["editable"] = [document["sections"][0]["settings"][0]["key"]]
    site.board.documents["settings"] = document
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto("/settings")
    folds = page.locator("details[id^=d-s]")
    assert folds.count() > 5
    assert page.locator("details[open]").count() == 0
    assert page.evaluate("document.documentElement.scrollHeight") < 1_800, "unfolded it has 9,371 px on a phone"
    assert violations(page) == []
    for mark in ("d-s0", "d-s1", "d-s1"):
        page.focus(f"#{mark} summary")
        page.keyboard.press("Enter")
    page.wait_for_selector("#d-s0[open] td")
    page.evaluate("document.getElementById('d-s0').dataset.old = 'yes'")
    site.loop.call_soon_threadsafe(site.board.announce_change)
    page.wait_for_selector("#d-s0[open]:not([data-old]) td")
    assert page.locator("details[open]").count() == 1, "what was folded again stays so"
    assert violations(page) == []
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every(part => part.scrollWidth <= part.clientWidth)")
    addresses = page.evaluate("[...document.querySelectorAll('td.hash data')].map(address => address.getClientRects().length)")
    assert set(addresses) == {1}, "each on one line"


@pytest.mark.parametrize(
    ("typed", "sum_text", "message"),
    [
        ("50", "90.00 %: 10.00 % missing", "The targets sum to 90.00 %: 10.00 % missing."),
        ("70", "110.00 %: 10.00 % too much", "The targets sum to 110.00 %: 10.00 % too much."),
        ("60,5", "unknown", "Write a number, such as 60.5."),
    ],
    ids=["missing", "too much", "comma"],
)
def test_weights__that_do_not_sum_up_stay_in_their_form(page: Any, typed: str, sum_text: str, message: str) -> None:
    page.keyboard.press("Escape")
    page.click("#b-weights")
    page.fill("#w-1", typed)
    assert page.inner_text("#sum.down") == sum_text
    page.click("#weights button:has-text('Review')")
    assert page.input_value("#w-1:invalid") == typed
    assert page.evaluate("document.getElementById('w-1').validationMessage") == message
    assert page.evaluate("location.pathname") == "/"
    page.fill("#w-1", "60 %")
    assert page.inner_text("#sum:not(.down)") == "100.00 %"
    assert page.evaluate("document.querySelector('#weights form').checkValidity()")


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
@pytest.mark.parametrize("scripts", [True, False], ids=["script", "no script"])
def test_wrong_weights__are_shown_again_to_correct(site: Site, chromium: Any, tmp_path: Path, size: tuple[int, int], scripts: bool) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    document: Any = settings_document(agents.config(tmp_path, targets="WETH=60% USDC=40%"))
    site.board.documents["settings"] = document
    cookie = site.enter()
    session = site.access.find_session(cookie.partition("=")[2], touch=False)
    assert session is not None
    fields = {"form": "weights", "target:WETH": "50", "was:WETH": "60.00", "target:USDC": "40.00", "was:USDC": "40.00", "in-slices": "yes"}
    request = requested_review("edit", {name: [text] for name, text in fields.items()})
    request.error = "the edited config: portfolio.assets: targets sum to 90 %, not 100 %; add 10 %"
    session.reviews["again"] = request
    address = f"http://localhost:{site.port}"
    view = {"width": size[0], "height": size[1]}
    with patient_context(chromium, viewport=view, base_url=address, bypass_csp=scripts, java_script_enabled=scripts) as context:
        context.add_cookies([{"name": "trimtab-1", "value": cookie.partition("=")[2], "url": address}])
        page = context.new_page()
        page.goto("/controls/review/again")
        assert [page.input_value(f"#w-{number}") for number in (1, 2)] == ["50", "40.00"]
        assert page.get_attribute("#w-1", "aria-invalid") == "true"
        assert page.inner_text("#sum") == "90.00 %"
        assert page.is_checked("#c-weights-in-slices")
        if scripts:
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert violations(page) == []
        page.focus("#w-1")
        page.fill("#w-1", "60")
        page.keyboard.press("Enter")
        page.wait_for_url("**/controls/review/*")
        page.wait_for_url(lambda url: not url.endswith("again"))
        assert len(session.reviews) == 2
