"""`trimtab paper` as it is typed: no key, nothing sent, books of its own, beside a live agent, and what going live begins with."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from agent import app as api
from agent import wiring
from agent.app.controls.queue import submit_for_user
from agent.app.dashboard import stored_documents
from agent.chain.providers.endpoint import EndpointProvider
from agent.config.load import load_config
from agent.errors import ConfigError, Refused
from agent.model import Control, ControlKind, ControlOrigin, ControlSubmission
from agent.ports.users import UsersPlace
from agent.signing import keys
from agent.store.files.locks import wallet_lock
from agent.store.files.secret import ensure_secret
from agent.store.files.users import open_user_file
from agent.wiring import transactor
from tests.cli.tools import SECRET, Desk, blocks, forked
from tests.support.commands.sending import nonce
from tests.support.text import mentions

PAPER = "PAPER"


def store_bytes(desk: Desk) -> dict[str, bytes]:
    """The live store's files."""
    return {path.name: path.read_bytes() for path in desk.config.parent.glob("trimtab.db*") if not path.name.endswith("-shm")}


@pytest.fixture
def keyless(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A config whose key cannot be had: its keystore is missing, and whoever asks for a key fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a key was asked for")

    desk.edit(("test_account = 0", 'keystore = "missing.json"'))
    monkeypatch.setattr(keys, "load_key", refuse)
    return desk


def test_paper__trades_without_a_key_outside_chain_and_store(keyless: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    methods: set[str] = set()
    batch = EndpointProvider.batch

    def listened(self: EndpointProvider, calls: list[tuple[str, list[object]]]) -> object:
        methods.update(method for method, _ in calls)
        return batch(self, calls)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.setattr(EndpointProvider, "batch", listened)
    keyless.ask("history")
    before = nonce(keyless)
    nonce_before = keyless.holdings()
    live = store_bytes(keyless)
    with blocks(keyless.about["url"]):
        result = keyless.run("paper", "--once", "--json", "--record", str(keyless.config.parent / "steps"))
    assert result.code == 0, result.why
    assert PAPER in result.err
    done = result.json
    assert (done["outcome"], done["book_kind"]) == ("done", "paper")
    assert [sent["status"] for sent in done["transactions"]] == ["final"] * len(done["transactions"])
    assert all(item["planned_raw"] == item["realised_raw"] for item in done["realised"])
    assert (nonce(keyless), keyless.holdings()) == (before, nonce_before)
    assert store_bytes(keyless) == live, "the live store was written"
    assert not [method for method in methods if "send" in method.lower() or "sign" in method.lower() or "account" in method.lower()], (
        methods
    )
    assert {step["result"] for step in api.replay(keyless.config.parent / "steps")["steps"]} == {"same"}
    assert SECRET not in "".join(path.read_text() for path in (keyless.config.parent / "steps").iterdir())

    status = keyless.ask("status", "--paper")
    assert status["book_kind"] == "paper"
    assert "book_kind" not in keyless.ask("status")
    assert {item["symbol"]: item["weight_bps"] for item in status["holdings"]} == done["weights_after_bps"]
    history = keyless.ask("history", "--paper")["steps"]
    assert any(step["outcome"] == "done" for step in history)
    assert "swap" in " ".join(keyless.ask("explain", history[0]["step"], "--paper")["sentences"])
    (period,) = keyless.ask("pnl", "--paper", "--now")["periods"]
    assert period["rebalances"] == 1
    assert float(period["costs"]["gas"]) > 0
    exported = keyless.ask("export", "--paper", "--out", str(keyless.config.parent / "out"))
    assert {file["name"] for file in exported["files"]} >= {"ledger.csv"}
    assert keyless.ask("history")["steps"] == [], "live history knows nothing of it"
    with blocks(keyless.about["url"]):
        assert keyless.ask("paper", "--once")["outcome"] == "hold"


def test_wallet_signed_elsewhere__trades_on_paper_unproposed(desk: Desk) -> None:
    desk.edit(("test_account = 0", 'mode = "propose"'))
    with blocks(desk.about["url"]):
        assert desk.ask("paper", "--once")["outcome"] == "done"
    assert not (desk.config.parent / "proposals").exists()


def test_it_begins_with_a_value_or_with_amounts_and_only_once(keyless: Desk) -> None:
    assert "paper books" in keyless.ask("status", "--paper", want=2)["error"]["message"]
    assert not (keyless.config.parent / "paper.db").exists(), "asking made none"
    assert "paper" not in keyless.run("status").err
    assert mentions(keyless.ask("paper", "--once", "--value", "10", "--start", "WETH=1", want=2)["error"]["message"], "--value", "--start")
    assert keyless.ask("paper", "--once", "--value", "5000")["outcome"] == "hold"
    for command in ("status", "history", "plan"):
        assert "LIVE: this is the wallet on the chain. The paper portfolio beside it: add --paper." in keyless.run(command).err
        assert "LIVE" not in keyless.run(command, "--paper").err
    status = keyless.ask("status", "--paper")
    assert abs(float(status["total_value"]) - 5_000) < 1
    planned = keyless.ask("plan", "--paper")
    assert (planned["outcome"], planned["book_kind"]) == ("hold", "paper")
    assert keyless.ask("plan")["outcome"] == "planned"
    assert "--paper" in keyless.ask("plan", "--paper", "--input", "x.json", want=2)["error"]["message"]
    assert all(abs(item["drift_bps"]) <= 1 for item in status["holdings"])
    assert "apply to its first run only" in keyless.ask("paper", "--once", "--value", "6000", want=2)["error"]["message"]
    for path in keyless.config.parent.glob("paper.db*"):
        path.unlink()
    assert "NOSUCH" in keyless.ask("paper", "--once", "--start", "NOSUCH=1", want=2)["error"]["message"]
    keyless.ask("paper", "--once", "--start", "WETH=0.5,USDC=1500.25", "--native", "0", want=10)  # nothing for gas
    amount_by_symbol = {item["symbol"]: item["amount"] for item in keyless.ask("status", "--paper")["holdings"]}
    assert (amount_by_symbol["WETH"], amount_by_symbol["USDC"]) == ("0.5", "1500.25")
    assert "(details: --verbose)" in keyless.run("paper", "--once").out
    detailed = keyless.run("paper", "--once", "--verbose")
    assert detailed.code == 10, detailed.why
    assert mentions(detailed.out, "price_impact", "oracle_deviation"), "guards that passed are shown"


def test_empty_wallet__starts_no_paper_books(keyless: Desk) -> None:
    keyless.edit((keyless.about["wallet"], "0x000000000000000000000000000000000000c0Fe"))
    refused = keyless.ask("paper", "--once", want=2)["error"]
    assert refused["message"] == "the wallet holds none of the portfolio's assets"
    assert refused["remedy"].endswith("trimtab paper --start USDC=500")
    with blocks(keyless.about["url"]):
        keyless.ask("paper", "--once", "--start", "USDC=500")  # as the remedy says, without starting over
    assert keyless.ask("status", "--paper")["book_kind"] == "paper"


@pytest.mark.slow
def test_a_live_agent_and_paper_hold_each_other_up_in_nothing(desk: Desk) -> None:
    desk.config.write_text(desk.config.read_text() + '\n[service]\nwallet_wait = "1s"\n')
    live = transactor.wallet_locks(load_config(desk.config))
    with wallet_lock(live), blocks(desk.about["url"]):
        assert desk.ask("paper", "--once")["outcome"] == "done"
    with wallet_lock(transactor.wallet_locks(api.paper_config(desk.config))):
        assert desk.ask("rebalance", "--send", "--yes")["outcome"] == "done"
        assert "already acts" in desk.ask("paper", "--once", want=12)["error"]["message"]


def test_going_live__opens_new_books_and_never_the_paper_ones(desk: Desk) -> None:
    desk.ask("paper", "--once", "--value", "777")
    assert desk.ask("rebalance", "--send", "--yes")["outcome"] == "done"
    live = desk.ask("pnl")
    paper = desk.ask("pnl", "--paper")
    documents = stored_documents(desk.config)
    assert (documents["pnl"]["all"]["value"], documents["paper"]["pnl"]["all"]["value"]) == (live["value"], paper["value"])
    assert 10_100 < float(live["value"]) < 10_300, "what the wallet manages"
    assert float(live["gas_money"]) > 29_000, "its ten coins for gas, beside it"
    assert 770 < float(paper["value"]) < 780, "what it was told to begin with"
    assert 2_900 < float(paper["gas_money"]) < 3_100, "a coin for gas, beside it"
    assert desk.ask("books", "check")["sound"]
    folder = desk.config.parent
    for path in folder.glob("trimtab.db*"):
        path.unlink()
    shutil.copy(folder / "paper.db", folder / "trimtab.db")
    for words in (("status",), ("rebalance", "--send", "--yes"), ("pnl",), ("run", "--once", "--send", "--yes")):
        assert "paper data" in desk.ask(*words, want=12)["error"]["message"]


def test_single_paper_step__says_which_block_it_waits_for(desk: Desk) -> None:
    run = forked(desk, "paper", "--once", "--json")
    end = time.monotonic() + 60
    while ": waiting to be mined\n" not in (run.err.read_text() if run.err.exists() else ""):
        assert time.monotonic() < end, run.err.read_text()
        time.sleep(0.05)
    with blocks(desk.about["url"]):
        output = run.ended()
    assert (output.code, output.json["outcome"]) == (0, "done"), output.why
    waits = [line for line in output.err.splitlines() if "waiting" in line]
    assert len(set(waits)) == len(waits) <= len(output.json["transactions"]), output.err


def test_paper_control__ends_the_run_and_takes_nothing_else(desk: Desk) -> None:
    users = desk.config.with_name("users")
    open_user_file(users).add("ann", "hash", "A" * 32, False, 1)

    def ask(kind: str, *arguments: tuple[str, str]) -> str:
        request = ControlSubmission(ControlKind(kind), arguments, "ann", ControlOrigin.DASHBOARD)
        return submit_for_user(str(desk.config), UsersPlace(str(users)), 1, request, "::1", on_paper=True)

    desk.ask("history")
    live = store_bytes(desk)
    run = forked(desk, "paper", "--value", "5000", "--every", "1h", "--json")
    assert run.document()["outcome"] == "hold"
    for kind, arguments in (("edit", (("set", "policy.cooldown=1h"),)), ("pause", (("hard", "yes"),)), ("stop", (("to-stable", "yes"),))):
        with pytest.raises(ConfigError, match="not on paper"):
            ask(kind, *arguments)
    paper = api.paper_config(desk.config)
    now_s = int(time.time())
    edit = Control("e" * 32, ControlKind.EDIT, (("set", "policy.cooldown=1h"),), "", "ann", ControlOrigin.API, now_s, now_s + 60)
    with wiring.open_store_offline(paper) as (store, _):  # as if the request had not been checked
        store.controls.queue(edit.sealed(ensure_secret(wiring.store_file(paper))))
    ask("stop")
    ended = run.ended()
    assert ended.code == 0, ended.err
    assert "Control edit by ann refused (paper): edit: not on paper, or not with these options" in ended.err
    assert f"Stopped by ann (dashboard). trimtab paper --config {desk.config} starts it again." in ended.err
    assert {**store_bytes(desk), "trimtab.db-wal": b""} == {**live, "trimtab.db-wal": b""}, "the live store was written"
    with pytest.raises(Refused, match="no paper run goes on"):
        ask("stop")
    assert [(event.kind.value, event.detail) for event in open_user_file(users).events(2)] == [
        ("control_refused", "paper stop paper"),
        ("control", "paper stop"),
    ]
    assert desk.ask("paper", "--once")["outcome"] == "hold"


def test_live_store__is_refused_as_paper_books_and_the_reverse(desk: Desk) -> None:
    folder = desk.config.parent
    desk.ask("history")
    shutil.copy(folder / "trimtab.db", folder / "paper.db")
    assert "live data" in desk.ask("paper", "--once", want=12)["error"]["message"]
    desk.edit(("sqlite:///trimtab.db", "sqlite:///paper.db"))
    assert mentions(desk.ask("status", want=2)["error"]["message"], "store.url", "paper.db")


def test_what_is_not_simulated_is_refused_at_the_start(desk: Desk) -> None:
    desk.edit(('router = "swap_router_02"', 'router = "rebalancer"'))
    assert "SwapRouter02" in desk.ask("paper", "--once", want=2)["error"]["message"]


def test_it_tells_nobody_but_its_own_terminal(desk: Desk) -> None:
    """No alert, no heartbeat and no report: those are the live agent's."""
    text = desk.config.read_text().partition("\n[service]")[0]
    desk.config.write_text(text + '\n[service]\nheartbeat_url = "http://127.0.0.1:9/beat"\n')
    result = desk.run("paper", "--once", "--value", "5000", "--log-format", "json")
    assert result.code == 0, result.why
    logged = [json.loads(line) for line in result.err.splitlines() if line.startswith("{")]
    assert logged[0]["book_kind"] == "paper"
    assert not {"heartbeat failed", "alert"} & {line["event"] for line in logged}
    assert desk.ask("health", want=15)["state"] == "none"


def test_steps_of_paper_lie_in_a_folder_of_their_own(desk: Desk, tmp_path: Path) -> None:
    desk.config.write_text(desk.config.read_text() + '\n[record]\ndir = "steps"\n')
    desk.ask("paper", "--once", "--value", "5000")
    desk.ask("run", "--once")
    store_kinds = [json.loads(path.read_text())["store_kind"] for path in sorted((tmp_path / "steps").rglob("step-*.json"))]
    assert sorted(store_kinds) == ["live", "paper"]
    assert {path.parent.name for path in (tmp_path / "steps").rglob("step-*.json")} == {"steps", "paper"}
    result = desk.run("replay", str(tmp_path / "steps"))
    assert result.code == 0
    assert "1 same, 0 reworded, 0 different" in result.out
