"""The guided set-up in the browser: who may open it, what it says to what is typed, and the config that it writes."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import AsyncMock, Mock
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

import pytest

if (find_spec("fastapi") is None or find_spec("uvicorn") is None) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.app.start import guide, past_prices
from agent.app.start.guide import InitAnswers, baskets, check_setup, write_setup
from agent.app.start.past_results import PAST_BASIS
from agent.app.start.setup import LocalStart
from agent.config.load import load_config
from agent.config.writing.portfolio_templates import find_template
from agent.errors import ConfigError, Retryable, TrimtabError
from agent.figures import format_figure
from agent.fleet import paper_run, practice
from agent.ports.users import UsersPlace
from agent.web import pages, server, setup
from agent.web.access import KEY_TYPED_TEXT
from agent.web.pages import unbroken_text
from agent.web.server import serve_setup
from tests.cli.tools import first_document, start
from tests.support.commands.init import WALLET
from tests.support.dashboards import MARKUP, PATIENCE_S, InProcessAppProcess, StaticDocumentCache, until
from tests.support.pages.setups import ANSWERS, SetupBrowser
from tests.support.text import mentions, raises_field

KEY = "0x" + "4f" * 32
PHRASE = "test test test test test test test test test test test junk"


def answered() -> InitAnswers:
    """The answers of ANSWERS, but cash and alerts."""
    return InitAnswers().with_wallet(WALLET).with_endpoints("RPC_A=alpha RPC_B=beta").with_basket("moderate", baskets("ethereum"))


def without_spans(html: str) -> str:
    return re.sub("</?span>", "", html)


def test_paper__begins_below_the_ceiling_without_a_limit_of_cash(tmp_path: Path) -> None:
    texts = dict(pair for fields in ANSWERS.values() for pair in fields.items()) | {"cash": "all"}
    commands = write_setup(str(tmp_path / "trimtab.toml"), texts)["next"]
    assert [command for command in commands if " --once --start USDC=666 " in command]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SetupBrowser]:
    monkeypatch.setattr(setup, "AppProcess", InProcessAppProcess)
    with SetupBrowser(tmp_path / "trimtab.toml") as setup_browser:
        yield setup_browser


def test_unknown_step__leads_a_browser_home(desk: SetupBrowser) -> None:
    desk.enter()
    for path in ("/setup/none", "/none"):
        code, headers, body = desk.ask(path, Cookie=desk.cookie, Accept="text/html")
        assert (code, headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert b'<a href="/">To the first page</a>' in body


def test_config__is_that_of_init_and_next_commands_follow(desk: SetupBrowser, tmp_path: Path) -> None:
    desk.enter()
    path = desk.ask("/", Cookie=desk.cookie)[1]["location"]
    for page, fields in ANSWERS.items():
        assert path == page
        assert desk.ask(page, Cookie=desk.cookie)[0] == 200
        code, headers, body = desk.post(page, fields)
        assert code == 303, body
        path = headers["location"]
    review = desk.text(path)
    assert path == "/setup/review"
    assert not list(tmp_path.iterdir())
    for expected_text in (
        WALLET,
        "RPC_A=alpha (not set yet), RPC_B=beta (not set yet)",
        "moderate",
        "1,000 USDC",
        "TRIMTAB_ALERTS (not set yet)",
    ):
        assert expected_text in review
    assert "RPC_A, RPC_B: not set in this server, which needs them to start on paper" in review
    [csrf] = set(re.findall('name="csrf" value="([^"]+)"', desk.ask(path, Cookie=desk.cookie)[2].decode()))
    assert desk.post(path, {})[1]["location"] == "/setup/done"
    written = tmp_path / "trimtab.toml"
    same = tmp_path / "same" / "trimtab.toml"
    same.parent.mkdir()
    answered().with_cash("1,000").with_alert("TRIMTAB_ALERTS").write(same)
    assert written.read_bytes() == same.read_bytes()
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    done = without_spans(desk.text("/setup/done"))
    option = re.escape(f" --config {written}")
    steps = [unescape(command) for command in re.findall("<li><code>(.*?)</code>", done)]
    beginnings = ["export RPC_A=", "export RPC_B=", "trimtab doctor", "trimtab trust", "trimtab paper", "trimtab run", "trimtab serve"]
    steps.pop(next(number for number, line in enumerate(steps) if line.startswith("trimtab wallet import")))
    for line, begin in zip(steps, beginnings, strict=True):
        assert line.startswith(begin), line
        assert begin[0] == "e" or re.search(option, line), line
        assert "(" not in line, "a comment in it would break the copied line"
    assert f"trimtab paper --config {written} --once --start USDC=1000</code>" in done
    assert re.search(f'trimtab trust{option}</code> <span class="soft">\\(asks before it pins', done)
    assert f"In {Path.cwd()}." in done, "the commands name the config as it was given"
    assert "keeps 0.05 of it" in done
    assert "With 1,000 USDC: not worth it here at 1 gwei" in done
    assert "At most 1,500 USDC are managed" in done
    for page in (*ANSWERS, "/setup/review"):
        assert desk.ask(page, Cookie=desk.cookie)[1]["location"] == "/setup/done"
        assert desk.post(page, {})[0] == 403, "no page shows a form any more"
        code, headers, _ = desk.post(page, {**ANSWERS.get(page, {}), "csrf": csrf})  # a form from before, in another tab
        assert (code, headers["location"]) == (303, "/setup/done")
    assert written.read_bytes() == same.read_bytes()


def test_the_export_of_a_local_chain_has_its_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guide, "local_start", lambda _: LocalStart(WALLET, "http://127.0.0.1:8545", {}, {}))
    answers = {"wallet": WALLET, "endpoints": "RPC_A=alpha RPC_B=beta", "basket": "moderate"}
    document = guide.write_setup(str(tmp_path / "trimtab.toml"), answers)
    assert document["next"][0] == "export RPC_A=http://127.0.0.1:8545  (endpoint of operator alpha)"


@pytest.mark.parametrize(
    ("basket", "waits"),
    [
        pytest.param("market-cap", True, id="waits for the choice"),
        pytest.param("equal", False, id="chosen from targets"),
        pytest.param("60/40", False, id="no allocator"),
    ],
)
def test_first_purchase__waits_for_a_choice_where_the_basket_does(basket: str, waits: bool) -> None:
    new_config = answered().with_basket(basket, baskets("ethereum"))
    assert ("buys nothing before" in find_template(basket).about) is waits
    for notes in (new_config.costs()["notes"], new_config.year_costs()):
        assert (
            any(note.startswith("Until the agent has chosen its targets, it buys nothing. The first purchase") for note in notes) is waits
        )
        assert any(note.startswith("The first purchase goes to the targets at once") for note in notes) is not waits


def test_basket_with_another_s_holdings__says_the_difference() -> None:
    same_as = {basket["name"]: basket["same_as"] for basket in check_setup({"network": "ethereum"})["baskets"]}
    assert same_as["small"] == "Holds the same as 60/40; its limits: turnover 30%, daily turnover 30%"
    assert (same_as["60/40"], same_as["moderate"]) == ("", "")


def test_basket__is_shown_with_its_past_and_least_capital(desk: SetupBrowser) -> None:
    desk.enter()
    desk.post("/setup/wallet", ANSWERS["/setup/wallet"])
    text = desk.text("/setup/basket")
    rows = {
        re.findall('name="basket" value="([^"]+)"', row)[0]: row for row in text.split('<div class="basket">') if 'name="basket"' in row
    }
    known = baskets("ethereum")
    assert len(known) > 5
    for template_name in known:
        assert template_name.past_result is not None
        ratios = (
            "return",
            "return_of_holding",
            "max_drawdown",
            "max_drawdown_of_holding",
            "worst_month_return",
            "worst_month_return_of_holding",
        )
        result = template_name.past_result
        assert re.findall('<td class="n">(.*?)</td>', rows[template_name.name]) == [
            *(format_figure(result[name], "ratio+").replace(" ", "\u00a0") for name in ratios),  # type: ignore[literal-required]
            *(str(result["rebalances"]), "–"),
            *(f"{result['costs']} of {result['value']}", "–"),
        ]
        marks = (unbroken_text(" ".join(template_name.targets[0])), template_name.minimum_capital, "2021:", "<details>")
        holdings, minimum, past, rest = (rows[template_name.name].index(mark) for mark in marks)
        assert holdings < minimum < past < rest, "the rest is folded"
        for amount in template_name.minimum_capitals.values():
            assert amount is None or amount in rows[template_name.name][rest:]
        about = template_name.about.partition("; --")[0].replace(" %", "\u00a0%")
        assert f"{about[0].upper()}{about[1:]}</span>" in rows[template_name.name]
    assert "Minimum capital, USDC" in text
    assert PAST_BASIS.replace(" %", "\u00a0%") in text


def test_network__is_chosen_and_cards_say_what_is_held(desk: SetupBrowser) -> None:
    desk.enter()
    assert 'name="network" list="networks" value=""' in desk.text("/setup/wallet")
    code, _, body = desk.post("/setup/wallet", ANSWERS["/setup/wallet"] | {"network": ""})
    assert code == 422
    assert b"No network is chosen. Choose from ethereum, " in body
    desk.post("/setup/wallet", ANSWERS["/setup/wallet"])
    cards = desk.text("/setup/basket")
    for words in ("60\u00a0% large coins, 40\u00a0% stable", "The same share of each token, one of them stable"):
        assert f'<span class="line">{words}</span>' in cards
    assert "--stable" not in cards, "no option of a command"
    assert cards.count('<p class="soft">Fell at worst by ') == cards.count('<div class="basket">') > 5
    assert "Fell at worst by 45.47\u00a0% in 2021 and 58.42\u00a0% in 2022</p>" in cards
    assert "No past result" not in cards
    for name in ("60/40", "small"):
        assert f'<p class="soft">Template {name}</p>' in cards
    desk.post("/setup/basket", {"basket": "small"})
    desk.post("/setup/cash", {"cash": "500"})
    assert "<dd>WETH 30\u00a0% WBTC 30\u00a0% USDC 40\u00a0% (small) " in desk.text("/setup/review")


def test_own_weights_make_the_basket(desk: SetupBrowser, tmp_path: Path) -> None:
    desk.enter()
    desk.post("/setup/wallet", ANSWERS["/setup/wallet"])
    code, _, body = desk.post("/setup/basket", {"basket": "own", "share:WETH": "60", "share:USDC": "30"})
    assert code == 422
    assert "sum to 90\u00a0%, 10\u00a0% is missing" in body.decode()
    assert b'value="60"' in body
    assert b'value="own" checked' in body
    assert "sum to 105.5\u00a0%, 5.5\u00a0% too much" in desk.post("/setup/basket", {"share:USDC": "45.5"})[2].decode()
    desk.post("/setup/basket", {"share:USDC": "40 %"})
    for typed, why, marked in (
        ({"share:WETH": "60,5"}, "WETH: &#39;60,5&#39; is not a share in percent. Write 0 to 100, with a point", ["WETH"]),
        (
            {"share:WETH": "x", "share:USDC": "-5"},
            "WETH: &#39;x&#39; is not a share in percent; USDC: &#39;-5&#39; is not a share in percent.",
            ["WETH", "USDC"],
        ),
        ({"share:WETH": "60", "share:USDC": "-5"}, "USDC: &#39;-5&#39; is not a share in percent. Write 0 to 100, with a point", ["USDC"]),
        ({"share:WETH": "60", "share:USDC": "30"}, "sum to 90\u00a0%, 10\u00a0% is missing. Make them sum to 100\u00a0%.", []),
        ({"share:WETH": "100", "share:USDC": ""}, "The shares lack USDC, the unit of account. Give USDC a share, 0\u00a0% for none.", []),
        ({"share:WETH": "", "share:USDC": "100"}, "are of USDC alone: there is nothing to trade. Give another token a share.", []),
    ):
        code, _, raw = desk.post("/setup/basket", {"basket": "own", **typed})
        body = raw.decode()
        assert code == 422
        assert why in body
        assert 'href="#e-basket"' in body
        assert body.index('id="s-1"') < body.index('id="e-basket"') < body.index("They sum to 100"), "the message is at the sum"
        assert f'name="share:WETH" value="{typed["share:WETH"]}' in body
        assert re.findall('name="share:([^"]*)"[^>]* aria-describedby="e-basket" aria-invalid="true"', body) == marked
        assert "WETH=50%" not in body, "no words of the terminal"
    assert desk.post("/setup/basket", {"share:WETH": "60", "share:USDC": "40 %", "basket": ""})[0] == 303, "typed weights choose it"
    desk.post("/setup/cash", {})
    assert "WETH 60\u00a0% USDC 40\u00a0%" in desk.text("/setup/review")
    desk.post("/setup/review", {})
    portfolio = load_config(tmp_path / "trimtab.toml").config.portfolio
    assert {asset.symbol: asset.target for asset in portfolio.assets} == {"WETH": 6_000, "USDC": 4_000}
    assert portfolio.use_cash is None


@pytest.mark.parametrize(
    "typed",
    [{"share:WETH": "70", "share:USDC": "10"}, {"share:USDC": "100"}, {"share:WETH": "x"}],
    ids=["two weights", "the numeraire", "no share"],
)
def test_own_weights_beside_a_chosen_basket__are_refused(desk: SetupBrowser, typed: dict[str, str]) -> None:
    desk.enter()
    desk.post("/setup/wallet", ANSWERS["/setup/wallet"])
    code, _, body = desk.post("/setup/basket", {"basket": "60/40", **typed})
    assert code == 422
    assert "Own weights are typed, and 60/40 is chosen. Choose My own weights, or empty their fields." in body.decode()
    for nothing in ("0", "0%", " 0.0 %"):
        emptied = dict.fromkeys(typed, nothing)
        assert desk.post("/setup/basket", {"basket": "60/40", **emptied})[0] == 303


def test_basket_chosen_after_own_weights__takes_their_place(desk: SetupBrowser) -> None:
    """The form still has them, without a script that could empty the fields."""
    desk.enter()
    desk.post("/setup/wallet", ANSWERS["/setup/wallet"])
    typed = {"share:WETH": "60,5", "share:USDC": "40"}
    assert desk.post("/setup/basket", {"basket": "own", **typed})[0] == 422
    assert desk.post("/setup/basket", {"basket": "60/40", **typed})[0] == 303
    desk.post("/setup/cash", ANSWERS["/setup/cash"])
    assert "60/40" in desk.text("/setup/review")


def test_last_page__says_whether_the_amount_is_worth_it(desk: SetupBrowser, tmp_path: Path) -> None:
    desk.enter()
    for path, fields in {**ANSWERS, "/setup/cash": {"cash": "3000"}}.items():
        desk.post(path, fields)
    review = desk.text("/setup/review")
    assert "With 3,000 USDC: not worth it here at 1 gwei and an assumed pool fee of 0.3\u00a0%, only from 19,380 USDC." in review
    assert "To make it worth it" in review
    assert "The first purchase goes to the targets at once: it waits for no trigger" in review
    assert review.index('<p class="alarm" role="note">With 3,000') < review.index("Is it worth it?")
    assert review.count("not worth it here at 1 gwei") == 1
    assert '<button class="quiet">Write the config' in review
    assert "4,500 USDC at most are managed" in review, "half more than the cash, so that gains are not refused"
    desk.post("/setup/cash", {"ceiling": "-1"})
    assert desk.ask("/", Cookie=desk.cookie)[1]["location"] == "/setup/cash"
    code, _, body = desk.post("/setup/cash", {"cash": "3000", "ceiling": "2000"})
    assert code == 422
    assert b"2000 is below the 3000 of cash to use" in body
    desk.post("/setup/cash", {"cash": "3000", "ceiling": "3,500"})
    assert "3,500 USDC at most" in desk.text("/setup/review")
    desk.post("/setup/review", {})
    config = load_config(tmp_path / "trimtab.toml").config
    assert (config.portfolio.max_live_value, config.limits.payout_per_day) == ("3500", "3500")


def test_each_field_says_what_is_wrong_and_nothing_typed_is_lost(desk: SetupBrowser) -> None:
    desk.enter()
    code, _, body = desk.post("/setup/wallet", {"network": "mainnet", "wallet": MARKUP, "endpoints": "RPC_A=alpha"})
    text = body.decode()
    assert code == 422
    assert MARKUP not in text
    assert MARKUP in unescape(text)
    for field in ("network", "wallet", "endpoints"):
        assert f'id="e-{field}"' in text
        assert f'href="#f-{field}"' in text
        assert f'aria-describedby="e-{field} h-{field}" aria-invalid="true"' in text
    assert 'value="mainnet"' in text
    assert 'value="RPC_A=alpha"' in text
    assert "Two different operators" in text
    assert desk.ask("/setup/basket", Cookie=desk.cookie)[1]["location"] == "/setup/wallet"  # not before its turn
    desk.post("/setup/wallet", ANSWERS["/setup/wallet"])
    code, _, body = desk.post("/setup/basket", {})
    assert code == 422
    assert b"No basket is chosen" in body
    desk.post("/setup/basket", {"basket": "equal"})
    assert desk.post("/setup/cash", {"cash": "-5"})[0] == 422
    desk.post("/setup/cash", {"cash": "250"})
    assert "250 USDC" in desk.text("/setup/review")
    assert desk.post("/setup/wallet", {**ANSWERS["/setup/wallet"], "wallet": "0x12"})[0] == 422  # changed afterwards
    assert desk.post("/setup/review", {})[0] in (303, 403)
    assert desk.ask("/", Cookie=desk.cookie)[1]["location"] == "/setup/wallet"
    assert 'value="0x12"' in desk.text("/setup/wallet")


def test_keys_and_addresses_are_refused_and_never_repeated(desk: SetupBrowser) -> None:
    desk.enter()
    for page, field, secret in (
        ("wallet", "wallet", KEY), ("wallet", "network", KEY[2:]), ("wallet", "wallet", PHRASE),
        ("wallet", "endpoints", "https://rpc.example/key"), ("cash", "alert", "mailto://me:secret@example.org"), ("cash", "cash", KEY),
        ("wallet", "network", "https://rpc.example/key"), ("wallet", "wallet", "https://rpc.example/key"),
        ("wallet", "wallet", PHRASE.replace(" ", ", ")), ("wallet", "wallet", KEY[:-3]), ("wallet", "endpoints", "rpc.example/v3/key"),
        ("wallet", "endpoints", f"RPC_A={'4f' * 16} RPC_B=beta"), ("basket", "basket", "https://rpc.example/key"),
        ("cash", "cash", "https://rpc.example/key"), ("cash", "alert", "me:secret@example.org"),
    ):  # fmt: skip
        for path, answer in ANSWERS.items():
            if path == f"/setup/{page}":
                break
            desk.post(path, answer)
        code, _, body = desk.post(f"/setup/{page}", {**ANSWERS[f"/setup/{page}"], field: secret})
        assert code == 422
        assert f'id="e-{field}"' in body.decode()
        for place in (body.decode(), desk.text(f"/setup/{page}"), repr(vars(desk.pages))):
            assert secret not in place
        assert desk.ask("/", Cookie=desk.cookie)[1]["location"] == f"/setup/{page}"


def test_mail_address__stays_in_the_field(desk: SetupBrowser) -> None:
    desk.enter()
    for path in ("/setup/wallet", "/setup/basket"):
        desk.post(path, ANSWERS[path])
    code, _, body = desk.post("/setup/cash", {"cash": "1000", "alert": "me@example.com"})
    assert code == 422
    assert 'value="me@example.com"' in body.decode()


def test_answers_that_cannot_be_checked_lead_nowhere(desk: SetupBrowser, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.enter()
    for path, fields in ANSWERS.items():
        desk.post(path, fields)

    async def fail(*_: object) -> None:
        raise TrimtabError("the process ended", "try again")

    monkeypatch.setattr(desk.pages._writing_process, "call", fail)
    for path in ("/", "/setup/wallet", "/setup/review"):
        code, _, body = desk.ask(path, Cookie=desk.cookie)
        assert (code, body) == (503, b"503: the process ended (try again)\n")


WORDS = PHRASE.split()
DIGITS_KEY = "0x" + "90" * 32


@pytest.mark.parametrize(
    "typed",
    [
        pytest.param(json.dumps(WORDS), id="a list of JSON"),
        pytest.param("_".join(WORDS), id="joined by _"),
        pytest.param("_".join(WORDS).upper(), id="a name of 12 words"),
        pytest.param("/".join(WORDS), id="joined by a slash"),
        pytest.param(" ".join(f"{number}={word}" for number, word in enumerate(WORDS)), id="numbered"),
        pytest.param("".join(word.capitalize() + "·" for word in WORDS), id="joined by a dot"),
        pytest.param("的 一 是 在 不 了 有 和 人 这 中 大", id="in Chinese"),
        pytest.param(f"{DIGITS_KEY[:34]} {DIGITS_KEY[34:]}", id="a key of two halves"),
        pytest.param(f"{DIGITS_KEY[:34]} 0x{DIGITS_KEY[34:]}", id="halves of their own"),
        pytest.param(":".join(DIGITS_KEY[2 + start : 10 + start] for start in range(0, 64, 8)), id="a key of eight parts"),
        pytest.param('["' + '","'.join(DIGITS_KEY[2:]) + '"]', id="a key of single digits"),
    ],
)
def test_a_key_or_phrase_is_refused_however_it_is_punctuated(typed: str) -> None:
    for field in ("wallet", "endpoints"):
        texts, refusals = setup.field_texts(setup.QUESTION_PAGES[0], {field: [typed]})
        assert texts == {field: ""}
        assert refusals == {field: KEY_TYPED_TEXT}


@pytest.mark.parametrize(
    ("page", "field", "typed"),
    [
        pytest.param(0, "network", "/" + "/".join(["folder"] * 14) + "/trimtab.toml", id="a deep path"),
        pytest.param(0, "wallet", "0x1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b", id="an address of twenty letters"),
        pytest.param(0, "wallet", "0x" + "abc1" * 10, id="an address of runs of three letters"),
        pytest.param(0, "wallet", "0x" + "ab" * 20, id="an address of letters alone"),
        pytest.param(0, "endpoints", " ".join(f"RPC_MAINNET_{name}=operator{name}" for name in "ABCDEFGHIJKLMN"), id="14 endpoints"),
        pytest.param(0, "endpoints", ", ".join(f"RPC_MAINNET_{name}" for name in ("ALPHA", "BETA", "GAMMA", "DELTA")), id="no operators"),
        pytest.param(1, "share:WETH", "33.333333333333333333333333333333333333333333333333333333", id="a long weight"),
        pytest.param(2, "cash", "1,000,000.00", id="cash"),
        pytest.param(2, "alert", "TRIMTAB_ALERTS_OF_THE_BOT_ON_MY_HOME_SERVER", id="a long name"),
    ],
)
def test_an_ordinary_setting_is_no_key(page: int, field: str, typed: str) -> None:
    assert setup.field_texts(setup.QUESTION_PAGES[page], {field: [typed]}) == ({field: typed}, {})


def test_only_the_answers_that_the_page_showed_are_written(desk: SetupBrowser, tmp_path: Path) -> None:
    desk.enter()
    for path, fields in ANSWERS.items():
        desk.post(path, fields)
    answer_hashes = re.findall('name="answers_hash" value="([^"]+)"', desk.text("/setup/review"))
    desk.post("/setup/cash", {"cash": "", "alert": ""})  # in another tab: all of the cash
    code, _, body = desk.post("/setup/review", {"answers_hash": "".join(answer_hashes)})
    assert code == 409
    assert b"all USDC" in body
    assert b"changed" in body
    assert not list(tmp_path.iterdir())
    assert desk.post("/setup/review", {})[1]["location"] == "/setup/done"


def test_only_the_printed_address_opens_it_and_once(desk: SetupBrowser) -> None:
    for path in ("/", *ANSWERS, "/setup/review", "/setup/done"):
        assert desk.ask(path)[1]["location"] == "/login"
        code, headers, _ = desk.ask(path, "POST", "", Origin=f"http://localhost:{desk.port}")
        assert code == 303
        assert headers["location"].startswith("/login?")
    for path in ("/login", "/login?token=", f"{desk.opening}x", desk.opening[:-1]):
        code, headers, body = desk.ask(path)
        assert code == 403
        assert not headers["set-cookie"]
        assert "<h1>Not opened</h1>" in body.decode()
        assert "trimtab.toml" not in body.decode()
    for _ in range(2):  # a preview of the link uses nothing up
        code, headers, body = desk.ask(desk.opening)
        assert code == 200
        assert b"Begin" in body
        assert b"/setup/" not in body
        assert not headers["set-cookie"]
    code, _, body = desk.ask("/login", "POST", "token=x", Origin=f"http://localhost:{desk.port}")
    assert code == 403
    assert b"<h1>Not opened</h1>" in body
    for foreign in ({"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        assert desk.begin(**foreign)[0] == 403
    code, headers, _ = desk.begin()
    assert code == 303
    assert headers["location"] == "/"
    assert "HttpOnly" in headers["set-cookie"]
    assert "SameSite=strict" in headers["set-cookie"]
    assert desk.ask(desk.opening)[0] == desk.begin()[0] == 403
    cookie = headers["set-cookie"].split(";")[0]
    assert desk.ask(desk.opening, Cookie=cookie)[1]["location"] == "/"
    assert desk.ask("/setup/wallet", Cookie=cookie)[0] == 200
    assert desk.ask("/setup/nothing", Cookie=cookie)[0] == 404


def test_used_address__is_replaced_in_the_terminal_when_needed(desk: SetupBrowser) -> None:
    printed: list[str] = []
    desk.pages.show_address(printed.append, "http://localhost/")
    for _ in range(2):  # not used yet, so no other
        assert desk.ask("/login")[0] == 403
    assert printed == [f"http://localhost{desk.opening}"]
    desk.enter()
    assert len(printed) == 1
    for _ in range(2):
        code, _, body = desk.ask("/login")
        assert code == 403
        assert b"this page has a new one printed there" in body
    first, second = printed
    assert second != first
    assert desk.begin()[0] == 403
    desk.opening = second.removeprefix("http://localhost")
    code, headers, _ = desk.begin()
    assert code == 303
    assert desk.ask("/setup/wallet", Cookie=headers["set-cookie"].split(";")[0])[0] == 200


def test_forms_of_other_pages_and_hosts_change_nothing(desk: SetupBrowser) -> None:
    desk.enter()
    before = repr(desk.pages._answers)
    for headers, code in (
        ({"Host": "evil.example"}, 421), ({"Origin": "https://evil.example"}, 403), ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Cookie": ""}, 303),
    ):  # fmt: skip
        assert desk.post("/setup/wallet", ANSWERS["/setup/wallet"], **headers)[0] == code
    assert desk.post("/setup/wallet", {**ANSWERS["/setup/wallet"], "csrf": "x"})[0] == 403
    assert repr(desk.pages._answers) == before


def test_a_file_that_is_there_is_never_changed(desk: SetupBrowser, tmp_path: Path) -> None:
    desk.enter()
    for path, fields in ANSWERS.items():
        desk.post(path, fields)
    (tmp_path / "trimtab.toml").write_text("mine")
    code, _, body = desk.post("/setup/review", {})
    assert code == 409
    assert b"exists already" in body
    assert (tmp_path / "trimtab.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("host", "file_name", "reason"),
    [
        pytest.param("127.0.0.1", "mine.toml", "mine.toml: exists already", id="file exists"),
        pytest.param("0.0.0.0", "b.toml", "--host 0.0.0.0: --setup is for this machine alone", id="another host"),
        pytest.param("127.0.0.1", "none/b.toml", "none/b.toml: its folder does not exist", id="no folder"),
    ],
)
def test_setup__is_refused_where_it_may_not_be_served(tmp_path: Path, host: str, file_name: str, reason: str) -> None:
    (tmp_path / "mine.toml").write_text("mine")
    with pytest.raises(ConfigError, match=re.escape(reason)):
        serve_setup(tmp_path / file_name, host, 0, print)


def test_port_in_use__is_refused_before_the_ledger_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trimtab.toml").touch()
    monkeypatch.setattr(server, "_has_paper_books", lambda _: pytest.fail("the ledger was read, which takes seconds"))
    with socket.create_server(("127.0.0.1", 0)) as other, raises_field("--port", "is in use"):
        serve_setup(tmp_path / "trimtab.toml", "127.0.0.1", other.getsockname()[1], print)


@pytest.mark.parametrize(
    ("called_as", "on_path", "program"),
    [
        pytest.param(".venv/bin/trimtab", None, ".venv/bin/trimtab", id="in a folder"),
        pytest.param("/usr/bin/trimtab", "/usr/bin/trimtab", "trimtab", id="on the path"),
        pytest.param("/my place/trimtab", "/usr/bin/trimtab", "'/my place/trimtab'", id="another on the path"),
        pytest.param("/usr/bin/pytest", None, "trimtab", id="another program"),
    ],
)
def test_commands__are_called_as_this_one_was(
    desk: SetupBrowser, monkeypatch: pytest.MonkeyPatch, called_as: str, on_path: str | None, program: str
) -> None:
    monkeypatch.setattr(sys, "argv", [called_as, "serve"])
    monkeypatch.setattr(pages.shutil, "which", lambda _: on_path)
    assert pages.program_name() == program
    desk.pages._template = pages.page_environment().get_template("setup.html")
    assert f"<code>{program} serve" in unescape(desk.ask("/login")[2].decode())


def test_a_local_chain_needs_no_endpoints_of_its_own() -> None:
    checks = check_setup({"network": "nowhere.toml"})
    assert checks["baskets"] == []
    assert checks["tokens"] == []
    assert "trimtab localchain" in checks["errors"]["network"]


class NoChain:
    """A process of a chain that cannot start."""

    is_alive = False

    def __init__(self, *_: object) -> None: ...

    def wait(self) -> str:
        raise ConfigError("Practice needs anvil: it is not installed", "install the npm packages again")

    def stop(self) -> None: ...


def test_practice_that_cannot_start__says_why_on_the_form(desk: SetupBrowser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "ServingProcess", NoChain)
    desk.enter()
    form = desk.text("/setup/wallet")
    assert form.index("Practice: a chain on this machine, no account, no money") < form.index('id="f-network"')
    assert "Invented prices, which stand still until you move one" in form
    assert re.findall('<option value="(.*?)">', form)[:2] == ["practice", "ethereum"]
    code, _, body = desk.post("/setup/wallet", {"network": " Practice "})
    assert code == 422
    text = unescape(body.decode())
    assert 'id="e-network">Practice needs anvil: it is not installed (install the npm packages again)' in text
    assert 'name="network" list="networks" value="practice"' in text
    assert desk.post("/setup/wallet", ANSWERS["/setup/wallet"])[1]["location"] == "/setup/basket"


def test_copy_of_a_live_chain__lends_no_contracts(tmp_path: Path) -> None:
    """Its config would be one of the live chain, with the routers of whoever wrote the file."""
    answered().write(tmp_path / "a.toml")
    text = (tmp_path / "a.toml").read_text()
    (tmp_path / "copy.toml").write_text(text.replace("[chain]\n", "[chain]\nfork = true\n", 1))
    checks = check_setup({"network": str(tmp_path / "copy.toml")})
    assert "not the config of a local chain" in checks["errors"]["network"]
    assert checks["tokens"] == []


def refuse_variable(_: str) -> None:
    """Fail as a config without its endpoint's variable does."""
    raise ConfigError("RPC_A is not set", "set it")


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Paper trading of which only the calls are kept: no chain, and a run that ends at once."""
    calls: list[str] = []

    def fail(_: str) -> None:
        calls.append("run")
        raise Retryable("the chain is away", "start it")

    monkeypatch.setattr(paper_run, "begin_on_paper", lambda _: calls.append("begin"))
    monkeypatch.setattr(paper_run, "paper_books", lambda _: (str(tmp_path / "paper.db"), UsersPlace(str(tmp_path / "paper.db.users"))))
    monkeypatch.setattr(paper_run, "run_on_paper", fail)
    monkeypatch.setattr(setup, "DocumentCache", StaticDocumentCache)
    return calls


@pytest.mark.parametrize(
    ("names", "unset"),
    [((), ["RPC_A", "RPC_B"]), (("RPC_A",), ["RPC_B"]), (("RPC_A", "RPC_B"), [])],
    ids=["none set", "first set", "all set"],
)
def test_review__names_the_variables_that_the_server_lacks(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], unset: list[str]
) -> None:
    for name in names:
        monkeypatch.setenv(name, "https://rpc.example")
    assert check_setup({"network": "base", "endpoints": "RPC_A=alpha RPC_B=beta"})["unset_variables"] == unset


def test_start_on_paper__follows_the_config_to_the_overview(desk: SetupBrowser, paper: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    desk.enter()
    assert re.findall('<li><span class="soft">(.*?)</span>', desk.text("/setup/wallet")) == [
        "Basket and weights",
        "Cash and alerts",
        "Check and write",
    ]
    for choice in ("Practice with imaginary money", "Trade real money"):
        assert choice in desk.text("/setup/wallet")
    token = dict(re.findall('name="(csrf)" value="([^"]+)"', desk.text("/setup/wallet")))
    assert desk.post("/setup/done", token)[1]["location"] == "/"
    assert paper == []
    for path, fields in {**ANSWERS, "/setup/review": {}}.items():
        desk.post(path, fields)
    assert "It begins with the cash, and with one native coin" in desk.text("/setup/done")
    assert "is in no total. For tax it shares its lots with the wrapped coin, the oldest first" in desk.text("/setup/done")
    assert (
        "or until Stop: Start on paper then continues its ledger. Config and paper ledger stay; after a restart of this server"
        in desk.text("/setup/done")
    )
    assert desk.post("/setup/done", {"csrf": "x"})[0] == 403
    assert desk.post("/setup/done", {}, Origin="https://evil.example")[0] == 403
    assert paper == []
    with monkeypatch.context() as patched:
        patched.setattr(paper_run, "begin_on_paper", refuse_variable)
        code, _, body = desk.post("/setup/done", {})
    assert code == 409
    assert b"It did not start" in body
    assert b"RPC_A is not set (set it)" in body
    assert b"It cannot read a variable that is exported while it runs: write that into .env beside the config" in body
    assert b"Practice with imaginary money" not in body, "a live network is no practice"
    code, headers, _ = desk.post("/setup/done", {})
    assert (code, headers["location"], paper) == (303, "/", ["begin", "run"])
    overview = desk.text("/")
    assert "On paper, with imaginary money" in overview
    assert 'action="/controls/rebalance"' in overview
    assert "Log out" not in overview, "the one session cannot be opened again"
    assert 'popovertarget="weights"' not in overview
    assert "On paper, weights, orders and limits are those of the config, which a paper run reads only when it starts" in overview
    assert "Stop…</button>" in overview
    assert '<a href="/setup/done#t-lacks">How to change and try them in a terminal</a>' in overview
    assert desk.ask("/")[1]["location"] == "/login"
    assert "The paper run has ended: the chain is away (start it)" in desk.text("/setup/done")
    on_paper = desk.text("/setup/done")
    assert '<a href="/">Open its Overview</a>' in on_paper
    assert "<h1>Your portfolio on paper</h1>" in on_paper
    assert '<p class="brand"><a href="/">Overview</a></p>' in on_paper
    commands = re.findall(
        "<code>(.*?)</code>", without_spans(desk.text("/setup/done")).partition('id="t-try"')[2].partition("</section>")[0]
    )
    assert [" ".join(command.split()[1:3]) for command in commands if command.startswith("trimtab ")] == [
        "localchain --network",
        "edit --set",
        "trust --config",
        "withdraw 10",
        "alerts test",
    ]
    assert "trimtab run" in desk.text("/setup/done")
    desk.post("/setup/done", {})
    assert paper == ["begin", "run", "begin", "run"], "started again"


def written_config(desk: SetupBrowser) -> Path:
    """The config that a browser has answered and written."""
    desk.enter()
    for path, fields in {**ANSWERS, "/setup/review": {}}.items():
        desk.post(path, fields)
    return desk.config


def test_config_that_cannot_start__is_taken_back_for_other_answers(desk: SetupBrowser) -> None:
    config = written_config(desk)
    code = desk.post("/setup/done", {"again": "yes"})[0]
    assert (code, config.exists()) == (303, False)
    assert 'value="RPC_A=alpha RPC_B=beta"' in desk.text("/setup/wallet"), "the answers stay"
    desk.post("/setup/wallet", {**ANSWERS["/setup/wallet"], "network": "base"})
    desk.post("/setup/basket", {"basket": "moderate"})
    assert desk.post("/setup/review", {})[1]["location"] == "/setup/done"
    assert load_config(config).config.chain.chain_id == 8453


@pytest.mark.parametrize(
    ("changed_file", "reason"),
    [
        pytest.param("trimtab.toml", "was changed meanwhile", id="another config"),
        pytest.param("paper.db", "has a ledger already", id="ledger on paper"),
        pytest.param("trimtab.db", "has a ledger already", id="live ledger"),
    ],
)
def test_config_with_a_reason_to_stay__is_not_taken_back(desk: SetupBrowser, changed_file: str, reason: str) -> None:
    config = written_config(desk)
    assert config.name == "trimtab.toml"
    with config.with_name(changed_file).open("a") as file:
        file.write("# mine")
    text = config.read_text()
    code, _, body = desk.post("/setup/done", {"again": "yes"})
    assert (code, config.read_text()) == (409, text)
    assert reason in body.decode()


def test_a_paper_portfolio_goes_on_with_the_next_server(paper: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "AppProcess", InProcessAppProcess)
    with SetupBrowser(tmp_path / "trimtab.toml", continues=True) as desk:
        assert paper == ["run"]
        assert b"config and paper ledger are kept" in desk.ask("/login", Cookie="trimtab=old")[2]
        begin = desk.text(desk.opening)
        assert "<h1>Your portfolio on paper</h1>" in begin
        assert f"{tmp_path}/trimtab.toml</code> goes on with its ledger" in begin
        assert "Continue" in begin
        desk.enter()
        assert "On paper, with imaginary money" in desk.text("/")
        for path in (*ANSWERS, "/setup/review"):
            assert desk.ask(path, Cookie=desk.cookie)[1]["location"] == "/setup/done"
        done = desk.text("/setup/done")
    assert "Your portfolio on paper" in done
    assert f"trimtab run --send --config {tmp_path}/trimtab.toml" in without_spans(done)


class PracticeChain(NoChain):
    """The process of a chain that serves its config file at once."""

    is_alive = True

    def wait(self) -> str:
        return "chain.toml"


@pytest.fixture
def local_chain_file(tmp_path: Path) -> str:
    """The config file of a chain on this machine, which nothing serves."""
    file = tmp_path / "chain" / "local.toml"
    file.parent.mkdir()
    replace(answered(), wallet="0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266").write(file)
    text = file.read_text()
    for pattern, setting in (
        ("^chain_id = 1", "chain_id = 31337"),
        ('^url_env = "RPC_A"', 'url = "http://127.0.0.1:8545"'),
        ('^keystore = "wallet.json"', "test_account = 0"),
    ):
        text, count = re.subn(pattern, setting, text, flags=re.MULTILINE)
        assert count == 1, pattern
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("rejected", [{"wallet": "0x123"}, {"endpoints": "no-variable"}, {"wallet": "0x123", "endpoints": "RPC_A=a b=c=d"}])
@pytest.mark.parametrize("typed", [{}, {"wallet": "0x123", "endpoints": "RPC_A"}], ids=["button", "typed"])
def test_practice_takes_its_own_wallet__instead_of_a_rejected_answer(
    desk: SetupBrowser, monkeypatch: pytest.MonkeyPatch, local_chain_file: str, rejected: dict[str, str], typed: dict[str, str]
) -> None:
    monkeypatch.setattr(setup, "ServingProcess", PracticeChain)
    monkeypatch.setattr(PracticeChain, "wait", lambda _: local_chain_file)
    desk.enter()
    assert desk.post("/setup/wallet", {"network": "base", **rejected})[0] == 422
    code, headers, body = desk.post("/setup/wallet", {"network": "practice", **typed})
    assert (code, headers.get("location")) == (303, "/setup/basket"), body
    form = desk.text("/setup/wallet")
    assert 'name="wallet" value=""' in form
    assert 'name="endpoints" value=""' in form


def test_key_typed_beside_practice__is_still_refused(desk: SetupBrowser, monkeypatch: pytest.MonkeyPatch, local_chain_file: str) -> None:
    monkeypatch.setattr(setup, "ServingProcess", PracticeChain)
    monkeypatch.setattr(PracticeChain, "wait", lambda _: local_chain_file)
    desk.enter()
    code, _, body = desk.post("/setup/wallet", {"network": "practice", "wallet": KEY})
    assert code == 422
    assert KEY_TYPED_TEXT in unescape(body.decode())


@pytest.mark.parametrize("basket", ["small", "conservative", "60/40"])
def test_config_of_practice__has_the_turnover_limits_of_its_chain(
    desk: SetupBrowser, monkeypatch: pytest.MonkeyPatch, local_chain_file: str, basket: str
) -> None:
    chain_file = Path(local_chain_file)
    text, count = re.subn('^daily_turnover = "60%"', 'daily_turnover = "70%"', chain_file.read_text(), flags=re.MULTILINE)
    assert count == 1
    chain_file.write_text(text)
    monkeypatch.setattr(setup, "ServingProcess", PracticeChain)
    monkeypatch.setattr(PracticeChain, "wait", lambda _: local_chain_file)
    desk.enter()
    for path, fields in {
        "/setup/wallet": {"network": "practice"},
        "/setup/basket": {"basket": basket},
        "/setup/cash": {"cash": "5000"},
    }.items():
        code, _, body = desk.post(path, fields)
        assert code == 303, body
    assert "The imaginary USDC that the portfolio begins with" in desk.text("/setup/cash")
    form = desk.text("/setup/wallet")
    assert "Chosen now." in form
    assert 'name="network" list="networks" value=""' in form
    review = desk.text("/setup/review").replace("\u00a0", " ")
    assert re.findall('href="/setup/[a-z]+#f-([a-z]+)"', review) == ["network", "basket", "cash", "ceiling", "alert"]
    assert "in place of the basket's: at most 30 % of the value in a rebalance, 70 % of the value a day." in review
    if basket == "small":  # the card names no limits that do not hold here
        assert "Holds the same as 60/40." in desk.text("/setup/basket").replace("\u00a0", " ")
    assert desk.post("/setup/review", {})[1]["location"] == "/setup/done"
    limits = load_config(desk.config).config.limits
    assert (limits.turnover, limits.daily_turnover) == (3_000, 7_000)


def test_basket_of_unknown_supplies__is_not_offered_and_writes_nothing(
    desk: SetupBrowser, monkeypatch: pytest.MonkeyPatch, local_chain_file: str
) -> None:
    monkeypatch.setattr(setup, "ServingProcess", PracticeChain)
    monkeypatch.setattr(PracticeChain, "wait", lambda _: local_chain_file)
    desk.enter()
    desk.post("/setup/wallet", {"network": "practice"})
    assert 'value="market-cap"' not in desk.text("/setup/basket")
    assert desk.post("/setup/basket", {"basket": "market-cap"})[0] == 422
    with pytest.raises(ConfigError, match="no supply of WETH"):
        replace(answered(), network=local_chain_file, endpoints=(), template="market-cap", targets=()).write(desk.config)
    assert not desk.config.exists()


@pytest.mark.parametrize("failing", ["build_policy", "build_layer_settings", "offline_portfolio"])
def test_config_whose_rules_cannot_be_built__is_not_written(desk: SetupBrowser, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def fail(*_: object) -> None:
        raise ConfigError("portfolio.weights: no such rule", "choose another")

    monkeypatch.setattr(past_prices, failing, fail)
    with pytest.raises(ConfigError, match="no such rule"):
        answered().write(desk.config)
    assert not desk.config.exists()


def test_review_of_another_network__names_no_limits_of_a_chain(desk: SetupBrowser) -> None:
    desk.enter()
    for path, fields in ANSWERS.items():
        desk.post(path, fields)
    assert "Practice has limits" not in desk.text("/setup/review")


@pytest.mark.parametrize("kept_ledger", ["", "old-7-mine.paper.db"])
def test_practice_begins_anew_with_the_next_server__and_names_the_ledger_that_is_kept(
    paper: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_ledger: str
) -> None:
    monkeypatch.setattr(setup, "AppProcess", InProcessAppProcess)
    monkeypatch.setattr(setup, "ServingProcess", PracticeChain)
    document = {"port": 8545, "tokens": ["WETH"], "ledger": "mine.paper.db"}
    monkeypatch.setattr(practice, "practice_document", lambda _: document)
    monkeypatch.setattr(practice, "kept_ledger", lambda _: kept_ledger)
    with SetupBrowser(tmp_path / "mine.toml", continues=True) as desk:
        until(lambda: paper == ["begin", "run"])
        refusal = desk.ask("/login", Cookie="trimtab=old")[2].decode()
        begin = desk.text(desk.opening)
        desk.enter()
        done = desk.text("/setup/done")
        again = desk.ask(f"/{desk.pages.opening_path}", Cookie="trimtab=old")[2].decode()
    assert "mine.toml</code> is as it was, with its ledger: this server has not restarted." in again
    assert "a new chain" not in again
    for text in (refusal, begin, done):
        assert "a new chain and a new paper ledger" in text
        assert not mentions(text, "loses nothing")
        assert not mentions(text, "goes on with")
        assert not mentions(text, "ledger are kept")
    for text in (begin, done):
        assert ("The ledger before is kept as" in text) is bool(kept_ledger)
        assert kept_ledger in text
    assert "old-NUMBER-mine.paper.db" in done, "where the next restart keeps this one"


def test_change_of_the_config__is_said_to_end_a_run_that_goes_on(paper: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "AppProcess", InProcessAppProcess)
    with SetupBrowser(tmp_path / "trimtab.toml", continues=True) as desk:
        assert paper == ["run"]
        monkeypatch.setattr(type(desk.pages), "_paper_state", setup.RUNNING)
        desk.enter()
        done = desk.text("/setup/done")
    assert "The paper run ends by the change, or else by Stop on the Overview; then press Start on paper here" in done


def test_cash_page__says_that_paper_sends_no_alerts(desk: SetupBrowser) -> None:
    desk.enter()
    for path in ("/setup/wallet", "/setup/basket"):
        desk.post(path, ANSWERS[path])
    hint = desk.text("/setup/cash").partition('id="h-alert"')[2].partition("</small>")[0]
    assert "Paper trading sends no alerts" in hint


@pytest.mark.parametrize(
    ("state", "run", "says"),
    [
        pytest.param(setup.RUNNING, {"next_cycle": "2026-05-01T10:20:30Z"}, "at the next check, at 10:20:30 UTC", id="next check known"),
        pytest.param(setup.RUNNING, {"next_cycle": None}, "at the next check", id="next check unknown"),
        pytest.param(setup.RUNNING, {"error": "not read"}, "at the next check", id="status not read"),
        pytest.param("The paper run has ended.", {"next_cycle": "2026-05-01T10:20:30Z"}, "once it is started again", id="ended"),
    ],
)
def test_when_a_moved_price_is_read(state: str, run: dict[str, str | None], says: str) -> None:
    assert setup.next_reading_text(state, {"run": run}) == says
    assert setup.next_reading_text(setup.RUNNING, {}) == "at the next check", "no document yet"


def refuse_move(*_: str) -> str:
    raise Retryable("the chain is away")


def test_page_of_a_chain_that_starts__opens_itself_again(paper: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "AppProcess", InProcessAppProcess)
    monkeypatch.setattr(setup, "ServingProcess", PracticeChain)
    is_served = threading.Event()
    monkeypatch.setattr(PracticeChain, "wait", lambda _: str(is_served.wait(PATIENCE_S)))
    document = {"port": 8545, "tokens": ["WETH", "cbBTC"], "ledger": "mine.paper.db"}
    monkeypatch.setattr(practice, "practice_document", lambda _: document)
    monkeypatch.setattr(practice, "kept_ledger", lambda _: "")
    with SetupBrowser(tmp_path / "mine.toml", continues=True) as desk:
        desk.enter()
        starting = desk.text("/setup/done")
        is_served.set()
        until(lambda: paper == ["begin", "run"])
        done = desk.text("/setup/done")
        assert (
            "Start on paper then continues its chain and ledger. The config stays; a restart of this server begins with a new chain" in done
        )
        monkeypatch.setattr(practice, "move_price", lambda *_: "4320.0")
        monkeypatch.setattr(setup.DocumentCache, "_follow_changes", AsyncMock())
        monkeypatch.setattr(setup.DocumentCache, "refresh", refresh := Mock())
        code, headers, _ = desk.post("/setup/done", {"token": "cbBTC", "move": "+20%"})
        assert (code, headers["location"], refresh.call_count) == (303, "/setup/done", 1)
        moved = desk.text("/setup/done")
        moved_before = desk.text("/setup/done")
        monkeypatch.setattr(practice, "move_price", refuse_move)
        refused = desk.post("/setup/done", {"token": "WETH", "move": "+20%"})[2].decode()
    assert "moved to" not in moved_before, "said once, since its time passes"
    assert [re.findall("<option selected>(.*?)</option>", page) for page in (done, moved, moved_before, refused)] == [
        [], ["cbBTC"], ["cbBTC"], ["WETH"],
    ]  # fmt: skip
    assert "cbBTC moved to 4,320.00 USD. The pages show it at once; the paper run acts on it once it is started again" in moved
    targets = [
        int(share)
        for share in re.findall("=([0-9]+)%", re.sub("<[^>]*>", "", done).partition(" edit --target ")[2].partition("--config")[0])
    ]
    assert (len(targets), sum(targets)) == (3, 100), "each asset of the portfolio has its target"
    assert "Its chain starts" in starting
    assert '<meta http-equiv="refresh" content="2">' in starting
    assert "Move a price" not in starting
    assert "refresh" not in done
    assert "The paper run has ended: the chain is away" in done
    assert "It begins with the cash" not in done, "its ledger goes on"
    assert "Move a price" in done, "the chain is served while no paper run goes on"
    assert "may find feed and pools apart, and then halts trading (limits.oracle_deviation) until the next check" in done


@pytest.mark.slow
def test_the_command_prints_the_address_and_writes_the_file(tmp_path: Path) -> None:
    process = start("serve", "--setup", "--port", "0", "--json", "--config", str(tmp_path / "mine.toml"))
    try:
        address = first_document(process)["url"]
        browser = build_opener(HTTPCookieProcessor())
        origin, _, token = address.partition("/login?token=")
        assert b"Begin" in browser.open(address).read()
        text = browser.open(Request(f"{origin}/login", urlencode({"token": token}).encode(), {"Origin": origin})).read().decode()
        for path, fields in {**ANSWERS, "/setup/review": dict[str, str]()}.items():
            hidden = dict(re.findall('type="hidden" name="([a-z_]+)" value="([^"]+)"', text))
            text = browser.open(Request(origin + path, urlencode({**hidden, **fields}).encode(), {"Origin": origin})).read().decode()
        assert "trimtab doctor" in text
        assert load_config(tmp_path / "mine.toml").config.wallet.address == WALLET
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0
