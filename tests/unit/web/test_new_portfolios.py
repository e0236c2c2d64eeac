"""Further portfolios from the page: what is written, by whom, and that nothing else is."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from html import unescape
from importlib.util import find_spec
from itertools import chain, product
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

import pytest
import tomlkit

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.app.settings import new_portfolios as asked
from agent.app.settings.new_portfolios import MAX_PORTFOLIOS, check_portfolio, write_portfolio
from agent.config.load import load_config
from agent.config.writing.copies import copy_text
from agent.errors import ConfigError
from agent.store import open_store
from agent.store.files.users import open_user_file
from agent.web import access, new_portfolios, portfolios
from tests.cli.tools import first_document, start
from tests.support import agents
from tests.support.dashboards import InProcessAppProcess, StaticDocumentCache, until
from tests.support.pages.folders import COPY, NEW, OWN_WALLET, ServedFolder
from tests.support.pages.portfolios import ServedPortfolios
from tests.support.sites import HASH, PASSWORD
from tests.support.text import raises_field

BASKET = {
    "name": "calm",
    "network": "base",
    "wallet": OWN_WALLET,
    "endpoints": "RPC_A=alpha RPC_B=beta",
    "basket": "moderate",
    "cash": "500",
}


def shown_hash(page: str) -> str:
    """The hash in the form of a page that shows what would be written."""
    [hashes] = re.findall('name="sha256" value="([0-9a-f]{64})"', page)
    return str(hashes)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedFolder]:
    for module in (access, new_portfolios, portfolios):
        monkeypatch.setattr(module, "AppProcess", InProcessAppProcess)
    monkeypatch.setattr(access, "POLL_S", 0.02)
    monkeypatch.setattr(portfolios, "OPEN_RETRY_S", 0.02)
    monkeypatch.setattr(portfolios, "DocumentCache", StaticDocumentCache)
    with ServedFolder(tmp_path) as served_folder:
        yield served_folder


def test_copy__is_written_once_confirmed_and_served_with_a_store(folder: ServedFolder) -> None:
    cookie = folder.enter(0)
    before = folder.files()
    listed = folder.ask("/", Cookie=cookie)[2].decode()
    assert f'action="{COPY}"' in listed
    assert f'action="{NEW}"' in listed
    status, _, page = folder.send(COPY, cookie, name="variant", wallet=OWN_WALLET)
    assert status == 200
    for expected_text in (
        f"{folder.folder}/variant.toml",
        "WETH 50\u00a0% USDC 50\u00a0%",
        f"<dd>{OWN_WALLET}</dd>",
        "<dd>mine</dd>",
        "none, so on paper",
    ):
        assert expected_text in page
    assert folder.files() == before, "nothing is written before the confirmation"
    status, headers, _ = folder.send(COPY, cookie, name="variant", wallet=OWN_WALLET, sha256=shown_hash(page))
    assert (status, headers["location"]) == (303, "/p/mine/portfolios/next?name=variant")
    assert folder.files() == {*before, "variant.toml", "variant"}
    written = folder.folder / "variant.toml"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    loaded = load_config(written)
    source = load_config(folder.folder / "mine.toml")
    assert loaded.live_store_url == f"sqlite:///{folder.folder}/variant/trimtab.db"
    assert loaded.keystore_path == folder.folder / "variant" / "wallet.json"
    assert not list((folder.folder / "variant").iterdir()), "neither key nor store"
    same = {"wallet": source.config.wallet, "store": source.config.store}
    assert loaded.config.model_copy(update=same) == source.config
    page_text = unescape(folder.ask(headers["location"], Cookie=cookie)[2].decode())
    assert "trimtab wallet import <span>--keystore</span> " in page_text, "written as the other commands, with the program's path"
    following = re.sub("</?span>", "", page_text)
    assert f"trimtab paper --config {written} --value 666" in following
    assert "past prices" not in following
    text = written.read_text()
    written.write_text(re.sub(r"^trigger = .*$", 'trigger = { kind = "drawdown", fall = "20%", within = "6h" }', text, flags=re.M))
    with_event = unescape(folder.ask(headers["location"], Cookie=cookie)[2].decode())
    assert f"6 h of past prices of WETH are needed: trimtab trust --config {written} reads them" in with_event
    written.write_text(text)
    assert f"trimtab wallet import --keystore {folder.folder}/variant/wallet.json" in following
    events = open_user_file(Path(folder.opened.users_place.file)).events(1)
    assert [(event.kind, event.user, event.detail) for event in events] == [("control", "ann", "copy variant")]
    until(lambda: "trimtab trust" in folder.ask("/", Cookie=cookie)[2].decode())  # a busy machine reads it later
    open_store(loaded.store_url, 1, loaded.config.wallet.address, loaded.config.chain.wrapped_native).close()
    until(lambda: folder.ask("/p/variant/alerts")[0] == 200)


def test_basket_portfolio__is_that_of_init_in_its_own_folder(folder: ServedFolder) -> None:
    cookie = folder.enter(0)
    first = unescape(folder.ask(NEW, Cookie=cookie)[2].decode())
    assert "NOT_SET_A=one NOT_SET_B=two" in first
    assert "A proposal; choose the one on which the wallet has its money." in first
    assert load_config(folder.folder / "mine.toml").config.wallet.address in first
    _, _, page = folder.send(NEW, cookie, **BASKET)
    for expected_text in ("500 USDC", "RPC_A=alpha (not set yet)", "moderate", "With 500 USDC:"):
        assert expected_text in page
    assert folder.send(NEW, cookie, **BASKET, sha256=shown_hash(page))[0] == 303
    config = load_config(folder.folder / "calm.toml").config
    assert (config.chain.chain_id, config.portfolio.use_cash, config.store.url) == (8453, "500", "sqlite:///calm/trimtab.db")
    assert config.wallet.keystore == "calm/wallet.json"


def test_cards_are_of_the_network_that_was_checked(folder: ServedFolder) -> None:
    cookie = folder.enter(0)
    pages = [unescape(folder.ask(NEW, Cookie=cookie)[2].decode()), unescape(folder.send(NEW, cookie, **BASKET)[2])]
    for page, network in zip(pages, ("ethereum", "base"), strict=True):
        assert f"These are the baskets of {network}." in page
        assert set(re.findall(r"</strong> USDC on (\w+)", page)) == {network}
        assert "Holds the same as 60/40; its limits:" in page


@pytest.mark.parametrize(
    ("field", "answer", "remedy"),
    [
        pytest.param("cash", "1e9", "Write 1000, or all.", id="cash too large"),
        pytest.param("endpoints", "RPC_A=alpha", "for example RPC_URL_1=alchemy RPC_URL_2=infura", id="endpoint without a number"),
    ],
)
def test_a_wrong_answer_is_corrected_in_its_field(folder: ServedFolder, field: str, answer: str, remedy: str) -> None:
    cookie = folder.enter(0)
    files_before = folder.files()
    status, _, page = folder.send(NEW, cookie, **(BASKET | {field: answer}))
    assert status == 422
    assert f'id="e-{field}"' in page
    assert remedy in page
    assert "trimtab doctor" not in page
    assert folder.files() == files_before


def test_a_portfolio_with_the_wallet_of_another_gets_no_keystore(folder: ServedFolder) -> None:
    cookie = folder.enter(0)
    wallet = load_config(folder.folder / "mine.toml").config.wallet.address
    _, _, page = folder.send(COPY, cookie, name="twin", wallet=wallet)
    assert "on paper only" in page
    assert folder.send(COPY, cookie, name="twin", wallet=wallet, sha256=shown_hash(page))[0] == 303
    assert load_config(folder.folder / "twin.toml").keystore_path is None
    following = folder.ask("/p/mine/portfolios/next?name=twin", Cookie=cookie)[2].decode()
    assert "wallet import" not in following
    assert "on paper only" in following
    assert "This server starts no run: its pages follow the store that trimtab trust begins." in following


UNREADABLE = {"not TOML": b"[wallet]\naddress = \n", "not text": b"\xff\xfe[wallet]", "too deep": b"x = " + b"[" * 99}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_wallet__is_not_taken_while_another_config_cannot_be_read(folder: ServedFolder, content: bytes) -> None:
    (folder.folder / "torn.toml").write_bytes(content)
    status, _, page = folder.send(COPY, folder.enter(0), name="twin", wallet=OWN_WALLET)
    assert status == 422
    assert "another portfolio has this wallet is unknown: torn.toml cannot be read" in page
    assert not (folder.folder / "twin.toml").exists()


REFUSED_NAMES = [
    "", ".", "..", "../x", "/etc/x", "a/b", "a\\b", "%2e%2e%2fx", ".x", "x.toml", "A", "é", "a b", "a--b", "-a", "a-", "a\0", "a" * 41,
    "mine", "gone", "kept",
]  # fmt: skip


def test_a_name_that_is_not_plain_or_is_taken_is_refused(folder: ServedFolder) -> None:
    (folder.folder / "kept").mkdir()
    cookie = folder.enter(0)
    before = folder.files()
    forms = ((COPY, {"wallet": OWN_WALLET}), (NEW, BASKET))
    unread: dict[str, str] = {}
    read = {"sha256": "0" * 64}
    for name, (path, fields), sha256 in chain(product(REFUSED_NAMES, forms, [unread]), product(REFUSED_NAMES[-3:], forms, [read])):
        status, _, page = folder.send(path, cookie, **{**fields, "name": name, **sha256})
        assert (status, 'id="e-name"' in page, 'name="sha256"' in page) == (422, True, False), (name, path)
    assert folder.files() == before
    assert folder.ask("/p/mine/portfolios/next?name=" + "..%2Fmine", Cookie=cookie)[0] == 404


def test_a_path_as_network_is_never_opened(folder: ServedFolder) -> None:
    (folder.folder / "local.toml").write_text("x = 1")
    mode = (folder.folder / "local.toml").stat().st_mode
    status, _, page = folder.send(NEW, folder.enter(0), **{**BASKET, "network": str(folder.folder / "local.toml")})
    assert status == 422
    assert "Choose from ethereum, base" in page
    assert (folder.folder / "local.toml").stat().st_mode == mode


def test_a_key_that_is_typed_is_not_repeated(folder: ServedFolder) -> None:
    key = "0x" + "4f" * 32
    status, _, page = folder.send(COPY, folder.enter(0), name="b", wallet=key)
    assert status == 422
    assert key not in page
    assert "it was not kept" in page


def test_what_changed_since_it_was_shown_is_not_written(folder: ServedFolder) -> None:
    cookie = folder.enter(0)
    before = folder.files()
    _, _, page = folder.send(COPY, cookie, name="b", wallet=OWN_WALLET)
    source = folder.folder / "mine.toml"
    source.write_text(source.read_text().replace('cooldown = "1h"', 'cooldown = "2h"', 1))
    for fields in ({"name": "b"}, {"name": "c"}):
        status, _, refused = folder.send(COPY, cookie, **fields, wallet=OWN_WALLET, sha256=shown_hash(page))
        assert status == 409
        assert "the answers changed" in refused
    assert folder.files() == before
    source.write_text("[chain]\n")
    status, _, body = folder.ask(COPY, Cookie=cookie)
    assert (status, b"mine.toml" in body) == (503, True)
    assert folder.files() == before


@pytest.mark.parametrize("path", [COPY, NEW])
def test_user_who_may_control__alone_adds_one_by_its_form(folder: ServedFolder, path: str) -> None:
    cookie = folder.enter(0)
    before = folder.files()
    reader = f"{cookie.partition('=')[0]}={folder.opened.begin_session(2)}"
    fields = {"name": "b", "wallet": OWN_WALLET}
    token = folder.csrf(path, cookie)
    assert folder.post(path, fields, cookie)[0] == 403
    assert folder.post(path, {**fields, "csrf": "x"}, cookie)[0] == 403
    assert folder.post(path, {**fields, "csrf": token}, reader)[0] == 403
    assert folder.post(path, {**fields, "csrf": folder.csrf("/p/mine/alerts", reader)}, reader)[0] == 403
    assert folder.post(path, {**fields, "csrf": token}, "")[1]["location"] == "/p/mine/login?to=/controls&unsent=1"
    foreign = {"Origin": "http://evil.example", "Cookie": cookie}
    assert folder.ask(path, "POST", f"csrf={token}&name=b", **foreign)[0] == 403
    status, _, body = folder.ask(path, Cookie=reader)
    assert (status, b"trimtab user add NAME" in body) == (403, True)
    listed = folder.ask("/", Cookie=reader)[2].decode()
    assert "/portfolios/" not in listed
    assert "trimtab user add NAME" in listed
    assert folder.ask("/p/mine/portfolios/next?name=b", Cookie=reader)[0] == 404
    assert folder.files() == before


def test_without_users_or_a_folder_the_page_says_what_to_do(tmp_path: Path) -> None:
    with ServedFolder(tmp_path, users=0) as folder:
        text = folder.ask("/")[2].decode()
        assert "/portfolios/" not in text
        assert "trimtab user add NAME" in text
        assert folder.ask(COPY)[0] == 403
        assert folder.post(COPY, {"name": "b"}, "")[0] == 405
        assert "form-action 'none'" in folder.ask("/")[1]["content-security-policy"]
    with ServedPortfolios(tmp_path, ("mine", "gone"), users=1) as shelf:
        cookie = shelf.enter(0)
        _, headers, body = shelf.ask("/", Cookie=cookie)
        assert b"trimtab serve <span>--config</span> FOLDER" in body
        assert b"/portfolios/" not in body
        assert "form-action 'self'" in headers["content-security-policy"], "else a browser refuses to pause and to stop"
        assert shelf.ask(COPY, Cookie=cookie)[0] == 404


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return agents.config(tmp_path)


def copy_arguments(source: Path, folder: Path, **more: str) -> tuple[str, str, bool, dict[str, str], list[str]]:
    """Arguments of a copy named b."""
    return str(folder), str(source), True, {"name": "b", "wallet": OWN_WALLET, **more}, []


@pytest.mark.parametrize("obstacle", [lambda path: path.symlink_to("nowhere"), lambda path: path.write_text("kept")])
def test_a_file_that_appears_meanwhile_is_not_overwritten(
    source: Path, monkeypatch: pytest.MonkeyPatch, obstacle: Callable[[Path], object]
) -> None:
    arguments = copy_arguments(source, source.parent)
    document = check_portfolio(*arguments)
    path = source.with_name("b.toml")
    before = asked.create_file

    def create_late(target: Path, content: bytes) -> None:
        obstacle(target)
        before(target, content)

    monkeypatch.setattr(asked, "create_file", create_late)
    with pytest.raises(ConfigError) as refused:
        write_portfolio(*arguments, document["sha256"])
    assert "exists already" in str(refused.value)
    assert path.is_symlink() or path.read_text() == "kept"
    assert {path.name for path in source.parent.iterdir()} == {"mine.toml", "b.toml"}


def test_unwritable_folder__is_named_with_the_remedy(source: Path) -> None:
    fields = {**BASKET, "name": "b"}
    document = check_portfolio("/proc", str(source), False, fields, [])
    with pytest.raises(ConfigError) as refused:
        write_portfolio("/proc", str(source), False, fields, [], document["sha256"])
    assert "/proc/b.toml: cannot be written" in str(refused.value)
    assert "let the account of trimtab serve write" in refused.value.remedy


def test_a_copy_from_another_folder_and_one_too_many_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError) as refused:
        check_portfolio(*copy_arguments(source, tmp_path / "other"))
    assert "serve its folder" in refused.value.remedy
    (tmp_path / ".practice-a.toml").write_text(copy_text(source.read_text(), "a", OWN_WALLET, has_own_wallet=True))
    for number in range(MAX_PORTFOLIOS - 2):
        (tmp_path / f"{number}.toml").touch()
    check_document = check_portfolio(*copy_arguments(source, tmp_path))
    assert check_document["errors"] == {}, "a hidden file is no portfolio"
    assert "none can be added" not in check_document["answer_texts"]["key"]
    (tmp_path / "last.toml").touch()
    assert "Remove one" in check_portfolio(*copy_arguments(source, tmp_path))["errors"]["name"]


def test_a_copy_names_the_addresses_that_it_may_pay(source: Path) -> None:
    assert check_portfolio(*copy_arguments(source, source.parent))["answer_texts"]["payouts to"] == "none"
    source.write_text(re.sub("(?m)^payout_addresses = .*", f'payout_addresses = ["{agents.OTHER}"]', source.read_text()))
    assert check_portfolio(*copy_arguments(source, source.parent))["answer_texts"]["payouts to"].lower() == agents.OTHER.lower()


def test_a_config_that_its_reader_refuses_is_not_written(source: Path) -> None:
    source.write_text(source.read_text().replace('target = "50%"', 'target = "40%"', 1))
    with raises_field("portfolio.assets"):
        check_portfolio(*copy_arguments(source, source.parent))


def test_copy__has_no_key_position_or_exclusive_setting(source: Path) -> None:
    document: Any = tomlkit.parse(source.read_text())
    address = document["wallet"]["address"]
    document["wallet"] |= {"mode": "propose", "safe": True, "proposals": "p", "key_env": "KEY"}
    document["portfolio"]["positions"] = [{"kind": "uniswap_v3", "token_id": 1}]
    document["service"]["heartbeat_url_env"] = "BEAT"
    document["telegram"] = {"token_env": "BOT", "chats": [1]}
    document["record"] = {"dir": "steps", "keep_files": 1, "keep_megabytes": 1}
    document["futures"] = {"venue": "hyperliquid", "account": address, "agent_key_env": "AGENT", "delegate": address, "agent_name": "a"}
    for wallet, own, key in ((OWN_WALLET, True, {"keystore": "b/wallet.json"}), (address.lower(), False, {})):
        copy = tomlkit.parse(copy_text(tomlkit.dumps(document), "b", wallet, own)).unwrap()
        assert copy["wallet"] == {"address": wallet, "payout_addresses": [], **key}
        assert "positions" not in copy["portfolio"]
        assert "heartbeat_url_env" not in copy["service"]
        assert "telegram" not in copy
        assert copy["record"]["dir"] == "b/steps"
        assert copy["futures"] == {"venue": "hyperliquid", "agent_name": "a"} | ({} if own else {"account": address, "delegate": address})
        assert copy["store"]["url"] == "sqlite:///b/trimtab.db"


@pytest.mark.slow
def test_command__lists_a_folder_of_one_and_adds_a_copy(tmp_path: Path) -> None:
    import pyotp

    loaded = load_config(agents.config(tmp_path))
    secret = pyotp.random_base32()
    open_store(loaded.store_url, 1, loaded.config.wallet.address, loaded.config.chain.wrapped_native).close()
    open_user_file(tmp_path / "mine.db.users").add("ann", HASH, secret, False, 1)
    process = start("serve", "--port", "0", "--json", "--config", str(tmp_path))
    try:
        document = first_document(process)
        assert [portfolio["name"] for portfolio in document["portfolios"]] == ["mine"]
        browser = build_opener(HTTPCookieProcessor())
        origin = document["url"].rstrip("/")

        def send(path: str, **fields: str) -> str:
            csrf = re.findall('name="csrf" value="([^"]+)"', browser.open(origin + path).read().decode())[0]
            if path.endswith("login"):  # the form may have taken longer than a code is valid
                fields["code"] = pyotp.TOTP(secret).now()
            return str(
                browser.open(Request(origin + path, urlencode({"csrf": csrf, **fields}).encode(), {"Origin": origin})).read().decode()
            )

        send("/p/mine/login", name="ann", password=PASSWORD)
        page = send(COPY, name="b", wallet=OWN_WALLET)
        assert "trimtab paper <span>--config" in send(COPY, name="b", wallet=OWN_WALLET, sha256=shown_hash(page))
        assert "trimtab trust --config" in browser.open(origin).read().decode()
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert load_config(tmp_path / "b.toml").keystore_path == tmp_path / "b" / "wallet.json"
