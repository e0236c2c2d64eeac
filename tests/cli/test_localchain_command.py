"""`trimtab localchain` and `trimtab demo`: ready for every command, nobody's files overwritten."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn
from urllib.request import urlopen

import pytest

from agent.app import local
from agent.app.local import CONFIG_MARKER, DEMO_BANNER, publish_config, recorded_days
from agent.app.start.past_results import template_result
from agent.config.networks import BASE
from agent.errors import ConfigError
from agent.localchain import nodes
from agent.localchain.nodes import free_port
from agent.model.rollups import LOCAL_OP_STACK_ID
from tests.cli.documents import require_declared
from tests.cli.tools import CommandResult, Desk, attach, first_document, forked_in, start
from tests.support.text import mentions


def test_it_says_what_there_is(served: tuple[Path, dict[str, Any]]) -> None:
    config, about = served
    require_declared(("localchain",), about)
    assert about["chain_id"] == 31337
    assert about["config"] == str(config)
    assert len(about["tokens"]) >= 5
    assert len(about["pools"]) >= 8
    assert config.read_text().startswith(CONFIG_MARKER)
    assert config.stat().st_mode & 0o777 == 0o600


def require_passed(doctor: dict[str, Any], *, warnings: tuple[str, ...] = ()) -> None:
    assert {row["check"]: row["state"] for row in doctor["checks"] if row["state"] != "ok"} == dict.fromkeys(warnings, "warn"), doctor


def test_the_config_it_writes_passes_the_doctor(desk: Desk) -> None:
    """10,200 dollars are below the minimum total at anvil's 1 gwei, and the doctor says so until a correction is made."""
    require_passed(desk.ask("doctor"), warnings=("minimum total",))


def test_wallet__starts_drifted_for_the_first_rebalance(desk: Desk) -> None:
    assert desk.ask("status")["decision"]["kind"] == "rebalance"


@pytest.mark.parametrize("options", [(), ("--network", "base")])
def test_a_taken_port_is_named_before_anything_is_deployed(
    bare: Callable[..., CommandResult], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr(nodes.subprocess, "Popen", None)  # no anvil starts
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = bare("localchain", *options, "--port", str(port), "--json")
    assert result.code == 2
    assert mentions(result.error["message"], str(port), "Address already in use")
    assert "port" in result.error["remedy"]


@pytest.mark.parametrize(
    "option", [("--futures",), ("--network", "base"), pytest.param(("--futures", "--network", "base"), id="futures beside a network")]
)
def test_a_safe_is_on_the_plain_chain_alone(bare: Callable[..., CommandResult], option: tuple[str, ...]) -> None:
    result = bare("localchain", "--safe", *option, "--json")
    assert result.code == 2
    assert "cannot be combined" in result.error["message"]


def moving(desk: Desk, *moves: str) -> tuple[str, ...]:
    words = [word for move in moves for word in ("--move", move)]
    return ("localchain", "--port", desk.about["url"].rpartition(":")[2], *words)


@pytest.mark.slow
def test_a_moved_market_makes_the_agent_act(desk: Desk) -> None:
    desk.ask("rebalance", "--send", "--yes")
    desk.edit(('cooldown = "10s"', 'cooldown = "0s"'))
    assert desk.ask("status")["decision"]["kind"] == "hold"
    result = desk.run(*moving(desk, "WBTC=+30%"), "--json")
    assert result.json == {"moved": {"WBTC": "+30%"}, "prices_usd": {"WBTC": "78000.0"}}
    assert desk.node.now_s() <= time.time(), "the clock is not ahead"
    status_document = desk.ask("status")
    assert {item["symbol"]: item["price"] for item in status_document["holdings"]}["WBTC"] == "78000"
    assert status_document["decision"]["kind"] == "rebalance"
    # A rebalance was just worth its cost, so the doctor does not warn of the minimum total.
    assert [row for row in desk.ask("doctor")["checks"] if row["state"] != "ok"] == []
    planned = desk.ask("plan")
    deviation = next(item for item in planned["verdicts"] if item["guard"] == "oracle_deviation")
    assert deviation["passed"]
    assert float(deviation["measured"].split(" bps")[0]) < 20, "means follow feeds"
    done = desk.ask("rebalance", "--send", "--yes")
    assert done["outcome"] == "done"
    assert 2_250 <= done["weights_after_bps"]["WBTC"] <= 2_750, "within its band"


@pytest.mark.parametrize(
    ("move", "part"), [("WBTC=30", "--move: 'WBTC=30'"), ("DOGE=+5%", "'DOGE' is not a token of this chain"), ("WETH=-99%", "WETH=-99%")]
)
def test_a_move_that_is_none_is_named(desk: Desk, move: str, part: str) -> None:
    result = desk.run(*moving(desk, move), "--json")
    assert result.code == 2
    assert part in result.error["message"]


def test_a_move_without_a_chain_says_how_to_start_one(bare: Callable[..., CommandResult]) -> None:
    result = bare("localchain", "--port", str(free_port()), "--move", "WBTC=+30%", "--json")
    assert (result.code, "local chain" in result.error["message"]) == (2, True)


def test_a_config_or_store_of_somebody_else_is_never_overwritten(bare: Callable[..., CommandResult], tmp_path: Path) -> None:
    mine = tmp_path / "trimtab.toml"
    mine.write_text("[chain]\nchain_id = 1\n")
    result = bare("localchain", "--port", str(free_port()), "--write-config", str(mine), "--json")
    assert result.code == 2
    assert mentions(result.error["message"], "nothing", "changed")
    assert mine.read_text() == "[chain]\nchain_id = 1\n"
    (tmp_path / "other.db").write_bytes(b"a journal")
    result = bare("localchain", "--port", str(free_port()), "--write-config", str(tmp_path / "other.toml"), "--json")
    assert result.code == 2
    assert (tmp_path / "other.db").read_bytes() == b"a journal"
    result = bare("localchain", "--port", str(free_port()), "--write-config", str(tmp_path / "none" / "x.toml"), "--json")
    assert result.code == 2
    assert "not exist" in result.error["message"]
    result = bare("localchain", "--port", str(free_port()), "--write-config", str(tmp_path / "own.db"), "--json")
    assert (result.code, "the store beside it would have this name" in result.error["message"]) == (2, True)
    assert not (tmp_path / "own.db").exists()


def test_config_of_a_running_chain__is_not_replaced(
    served: tuple[Path, dict[str, Any]], bare: Callable[..., CommandResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, about = served
    began = list[int]()
    monkeypatch.setattr(local, "serve", lambda port, *_: began.append(port))
    before = config.read_text()
    journal = sorted(config.parent.iterdir())
    result = bare("localchain", "--port", str(free_port()), "--write-config", str(config), "--json")
    used = about["url"].rpartition(":")[2]
    assert result.code == 2
    assert mentions(result.error["message"], str(config), f"port {used}")
    assert "another file" in result.error["remedy"]
    assert (config.read_text(), sorted(config.parent.iterdir()), began) == (before, journal, [])
    ended = tmp_path / "ended.toml"  # nothing answers there any more
    ended.write_text(before.replace(f":{used}", f":{free_port()}"))
    for path in (ended, tmp_path / "new.toml"):
        assert bare("localchain", "--port", str(port := free_port()), "--write-config", str(path)).code == 0
        assert began.pop() == port


def test_a_second_served_chain_takes_the_place_of_the_first(desk: Desk, bare: Callable[..., CommandResult], tmp_path: Path) -> None:
    """Its store begins anew: the nonces and blocks of the first are not its own."""
    config = tmp_path / "again.toml"
    chain = attach(desk)
    publish_config(chain, config, chain.config_text())
    assert bare("rebalance", "--config", str(config), "--json").code == 0
    publish_config(chain, config, chain.config_text())
    assert bare("history", "--config", str(config), "--json").json["steps"] == []
    assert list(tmp_path.glob("old-*-again.db"))


def test_ctrl_c_ends_it_and_its_chain(tmp_path: Path) -> None:
    process = forked_in(tmp_path, "localchain", "--port", str(free_port()), "--json")
    host, port = process.document()["url"].removeprefix("http://").split(":")
    process.told(signal.SIGINT)
    output = process.ended(20)
    assert output.code == 0
    assert "Traceback" not in output.err
    with pytest.raises(OSError, match=r"refused|reset"):
        http.client.HTTPConnection(host, int(port), timeout=2).request("POST", "/", "{}")


def test_the_demo_tells_the_whole_story(bare: Callable[..., CommandResult], tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    result = bare("demo", "--json", "--svg", str(picture))
    assert result.code == 0
    document = result.json
    weights = {item["symbol"]: item["weight_bps"] for item in document["drifted"]["holdings"]}
    assert weights == {"WBTC": 5800, "WETH": 2700, "USDC": 1500}, "the proportions of worked case W2"
    assert document["before"]["decision"]["kind"] == "hold"
    assert document["drifted"]["decision"]["kind"] == "rebalance"
    assert all(verdict["passed"] for verdict in document["plan"]["verdicts"])
    assert document["rebalance"]["outcome"] == "done"
    assert [sent["kind"] for sent in document["rebalance"]["transactions"]].count("swap") == 1
    assert all(item["planned_raw"] == item["realised_raw"] for item in document["rebalance"]["realised"])
    for symbol, target in (("WBTC", 5000), ("WETH", 3000), ("USDC", 2000)):
        assert abs(document["rebalance"]["weights_after_bps"][symbol] - target) <= 10
    assert document["next"]["decision"]["kind"] == "hold"
    assert document["next"]["reason"]
    assert "https://" not in picture.read_text().replace("https://www.textualize.io", ""), "the picture fetches something"
    drawn = " ".join(ElementTree.fromstring(picture.read_text()).itertext()).replace("\xa0", " ")
    for words in (
        "each on target",
        "market moves",
        "WBTC at 58 %",
        "Swaps",
        "Cost",
        "Guards",
        "Planned against realised",
        "within their ranges",
    ):
        assert words in drawn


def test_base_demo__pays_the_data_fee_and_tells_a_year_s_cost(bare: Callable[..., CommandResult]) -> None:
    """500 dollars on the real GasPriceOracle; the year is the stored measurement of scripts/make/past_results.py."""
    result = bare("demo", "--network", "base", "--json")
    assert result.code == 0, result.why
    document = result.json
    require_declared(("demo",), document)
    assert document["before"]["total_value"] == "500"
    assert {item["symbol"] for item in document["before"]["holdings"]} == {"WETH", "cbBTC", "USDC"}
    assert document["rebalance"]["outcome"] == "done", document["rebalance"]["reason"]
    assert all(item["planned_raw"] == item["realised_raw"] for item in document["rebalance"]["realised"])
    cost = document["plan"]["cost"]
    sent = document["rebalance"]["transactions"]
    assert 0 < float(cost["data_fee"]) < float(cost["gas"]) + float(cost["approvals"]) < float(cost["total"]) < 0.1
    swap = next(transaction for transaction in sent if transaction["kind"] == "swap")
    assert 0.5 < int(swap["data_fee_wei"]) / BASE.fees.data_fee_wei < 2
    assert all(int(transaction["data_fee_wei"]) > 0 for transaction in sent)
    assert document["next"]["decision"]["kind"] == "hold", document["next"]["reason"]
    stored = template_result("base", "small")
    assert stored is not None
    assert mentions(document["year"], f"{stored['rebalances']} rebalances", f"{stored['costs']} USDC", "500 USDC", "base")
    assert document["year"].split(" (")[0] in (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--network", "polygon"), id="no stand-in"),
        pytest.param(("--network", "base", "--serve"), id="in the browser"),
        pytest.param(("--network", "base", "--futures"), id="futures"),
    ],
)
def test_demo_of_a_network__that_it_cannot_show_is_refused(bare: Callable[..., CommandResult], options: tuple[str, ...]) -> None:
    refused = bare("demo", *options, "--json")
    assert refused.code == 2
    assert "--network" in refused.error["message"]


def test_base_demo__needs_anvil(bare: Callable[..., CommandResult], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.artifacts.platform.system", lambda: "Plan 9")
    without_anvil = bare("demo", "--network", "base", "--json")
    assert (without_anvil.code, "needs no anvil" in without_anvil.error["remedy"]) == (2, True)


def test_stand_in_of_base__rebalances_books_and_moves_with_its_fees(bare: Callable[..., CommandResult], tmp_path: Path) -> None:
    """500 dollars: a rebalance that is sent, books that equal the chain, a market that moves."""
    config = tmp_path / "base.toml"
    process = forked_in(tmp_path, "localchain", "--network", "base", "--port", str(free_port()), "--write-config", str(config), "--json")
    try:
        about = process.document()
        require_declared(("localchain",), about)
        assert about["chain_id"] == LOCAL_OP_STACK_ID
        assert config.read_text().startswith(CONFIG_MARKER)
        on = ("--config", str(config), "--json")
        sent = bare("rebalance", "--send", "--yes", *on)
        assert (sent.code, sent.json["outcome"]) == (0, "done"), sent.why
        assert all(int(transaction["data_fee_wei"]) > 0 for transaction in sent.json["transactions"])
        assert all(row["planned_raw"] == row["realised_raw"] for row in sent.json["realised"])
        checked = bare("books", "check", *on)
        assert checked.code == 0, checked.why
        (tmp_path / "own").mkdir()
        own = bare("init", "--network", str(config), "--template", "small", "--config", str(tmp_path / "own" / "trimtab.toml"), "--json")
        assert own.code == 0, own.why
        (warning,) = [text for text in own.json["warnings"] if "the same wallet" in text]
        assert warning.startswith(f"wallet.address: {config} is a config of the same wallet"), "the new one has the same name"
        written = tomllib.loads((tmp_path / "own" / "trimtab.toml").read_text())
        assert [asset["target"] for asset in written["portfolio"]["assets"]] == ["30%", "30%", "40%"]
        limits = {"gas_price": "1 gwei", "gas_per_day": "0.002", "native_floor": "0.002", "native_top_up": "0.004"}
        for config_document in (tomllib.loads(config.read_text()), written):
            assert {key: config_document["limits"].get(key) for key in limits} == limits
        moved = bare("localchain", "--port", about["url"].rpartition(":")[2], "--move", "cbBTC=+60%", "--json")
        assert (moved.code, moved.json["prices_usd"]["cbBTC"]) == (0, "96000.0"), moved.why
        for body in ("no request", "{}", "[]"):
            connection = http.client.HTTPConnection(about["url"].removeprefix("http://"))
            connection.request("POST", "/", body)
            assert connection.getresponse().status == 400, body
            connection.close()
    finally:
        process.told(signal.SIGTERM)
        assert process.ended(20).code == 0


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--network", "polygon"), id="no stand-in"),
        pytest.param(("--network", "base", "--futures"), id="futures"),
    ],
)
def test_localchain_of_a_network__that_it_has_not_is_refused(bare: Callable[..., CommandResult], options: tuple[str, ...]) -> None:
    refused = bare("localchain", *options, "--json")
    assert refused.code == 2
    assert "--network" in refused.error["message"]


@pytest.mark.slow
def test_the_futures_demo_reduces_ahead_of_liquidation_twice(bare: Callable[..., CommandResult]) -> None:
    """W3's book on the real contracts: what the agent keeps is below its limit, what is left alone is liquidated."""
    result = bare("demo", "--futures", "--json")
    assert result.code == 0, result.why
    document = result.json
    assert [sent["kind"] for sent in document["opened"]["transactions"]].count("futures") == 2
    assert {row["symbol"]: row["side"] for row in document["positions"]["positions"]} == {"WETH": "long", "WBTC": "long"}
    assert len(document["crashes"]) == 2
    for crash in document["crashes"]:
        assert "max_leverage" in {limit["limit"] for limit in crash["margin"]["limits"] if limit["broken"]}
        assert crash["rebalance"]["outcome"] == "done", crash["rebalance"]["reason"]
        assert not [limit for limit in crash["after"]["limits"] if limit["broken"]]
    assert [crash["untouched"]["is_liquidated"] for crash in document["crashes"]] == [False, True]
    assert float(document["funding"]["pending"]) > 0
    assert document["final"]["futures"]["broken"] == []
    assert {row["symbol"] for row in document["remaining"]["positions"]} == {"WETH", "WBTC"}


def test_the_futures_demo_says_how_its_contracts_are_installed(bare: Callable[..., CommandResult], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> NoReturn:
        raise ConfigError("npm ci failed")

    monkeypatch.setattr("agent.app.local.npm_root", missing)
    result = bare("demo", "--futures", "--json")
    assert (result.code, result.error["remedy"]) == (2, "in the checkout: .venv/bin/python scripts/make/npm_install.py --dev")


@pytest.fixture
def with_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages of the page are found, whether they are installed or not."""
    monkeypatch.setattr("agent.web.server.find_spec", lambda _: True)


@pytest.mark.usefixtures("with_dashboard")
def test_browser_demo__names_a_taken_port(bare: Callable[..., CommandResult]) -> None:
    with socket.socket() as taken_socket:
        taken_socket.bind(("127.0.0.1", 0))
        taken_socket.listen()
        port = str(taken_socket.getsockname()[1])
        result = bare("demo", "--serve", "--port", port, "--json")
    assert (result.code, result.error["message"]) == (2, f"--port {port}: is in use")


@pytest.mark.usefixtures("with_dashboard")
def test_browser_demo__has_no_futures(bare: Callable[..., CommandResult]) -> None:
    result = bare("demo", "--serve", "--futures", "--json")
    assert result.code == 2
    assert "--futures" in result.error["message"]


@pytest.mark.usefixtures("with_dashboard")
def test_browser_demo__names_a_missing_anvil(bare: Callable[..., CommandResult], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.artifacts.platform.system", lambda: "Plan 9")
    result = bare("demo", "--serve", "--port", "0", "--json")
    assert result.code == 2
    assert "anvil" in result.error["message"]
    assert "needs no anvil" in result.error["remedy"]


def test_browser_demo__names_missing_packages_before_anvil(bare: Callable[..., CommandResult], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.artifacts.platform.system", lambda: "Plan 9")
    monkeypatch.setattr("agent.web.server.find_spec", lambda _: None)
    result = bare("demo", "--serve", "--port", "0", "--json")
    assert result.code == 2
    assert "trimtab[dashboard]" in result.error["remedy"]


def test_browser_demo__replays_recorded_prices_by_the_week() -> None:
    days = recorded_days()
    assert len(days) == 53
    assert (days[0].date, days[1].date, days[-1].date) == ("2021-01-01", "2021-01-08", "2021-12-31")
    assert days[0].prices == {"WBTC": Fraction("29022.4"), "WETH": Fraction("738.617")}
    assert "recorded prices of 2021" in DEMO_BANNER
    assert "no real money" in DEMO_BANNER


@pytest.mark.slow
def test_browser_demo__rebalances_and_leaves_nothing_behind() -> None:
    process = start("demo", "--serve", "--port", "0", "--json")
    try:
        about = first_document(process)
        require_declared(("demo",), about)
        chain = tomllib.loads(Path(about["config"]).read_text())["chain"]["rpc"][0]["url"]
        until = time.monotonic() + 90
        page = ""
        while ">swap<" not in page:
            assert time.monotonic() < until, page
            time.sleep(0.5)
            with urlopen(f"{about['url']}history", timeout=10) as answer:
                page = answer.read().decode()
            assert f"{DEMO_BANNER} Replayed so far: prices of 1 Jan 2021 to " in page
        with urlopen(f"{about['url']}health", timeout=10) as answer:
            assert json.load(answer)["state"] == "running"
        for _ in range(2):  # the second comes while it removes what it started
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        out, output = process.communicate(timeout=20)  # until no process of its holds the other end
        assert (process.returncode, out, "Traceback" in output) == (0, "", False), output
        assert not Path(about["config"]).parent.exists()
        for address in (about["url"], chain):
            with pytest.raises(OSError, match="refused"):
                urlopen(address, timeout=2)
    finally:
        process.kill()
        process.wait()
