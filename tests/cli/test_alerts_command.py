"""trimtab alerts on a real chain: alert prices as status weighs them, a rebalance told by mail and webhook, nothing told twice."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from decimal import Decimal

import pytest

from agent.observe.notify import UNANSWERED_REASON
from tests.cli.tools import Desk
from tests.support.alert_receivers import ReceivedMessages, mailbox, silent, webhook
from tests.support.commands.native_coin import ETHER, change_native_coin
from tests.support.text import mentions

TARGETS = """
[alerts]
attempts = 1
timeout = "5s"
cooldown = "1h"
label = "mine"
[[alerts.targets]]
name = "hook"
url_env = "ALERT_HOOK"
[[alerts.targets]]
name = "mail"
url_env = "ALERT_MAIL"
events = ["rebalance", "halt", "error"]
"""
CANARY = "canary-of-an-address"


def with_targets(desk: Desk, more: str = "") -> None:
    desk.config.write_text(desk.config.read_text() + TARGETS + more)


def date_books_yesterday(desk: Desk) -> None:
    """Date the books of the first cycle an hour before midnight, UTC, and repeat its valuation at the end of that day."""
    midnight_s = int(time.time()) // 86_400 * 86_400
    with closing(sqlite3.connect(desk.config.parent / "trimtab.db")) as store, store:
        store.execute("UPDATE books SET opened_s = ?", (midnight_s - 3_600,))
        store.execute("UPDATE book_openings SET chain_s = ?, block_number = block_number - 2", (midnight_s - 3_600,))
        store.execute("UPDATE valuations SET chain_s = ?, block_number = block_number - 2", (midnight_s - 3_600,))
        values = "book_number, block_number + 1, ?, value, holdings_z"
        store.execute(
            f"INSERT INTO valuations (book_number, block_number, chain_s, value, holdings_z) SELECT {values} FROM valuations",
            (midnight_s - 1,),
        )


def test_run__reports_what_it_did_and_a_second_repeats_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = ReceivedMessages()
    mail = ReceivedMessages()
    with webhook(hook, CANARY) as hook_url, mailbox(mail) as mail_url:
        monkeypatch.setenv("ALERT_HOOK", hook_url)
        monkeypatch.setenv("ALERT_MAIL", mail_url)
        first = desk.run("run", "--once")
        assert first.code == 0, first.why
        date_books_yesterday(desk)
        with_targets(desk)
        desk.edit(("[alerts]\nattempts", '[alerts]\ndigest = "day"\nattempts'))
        before = desk.ask("alerts")
        outside = [asset["symbol"] for asset in before["assets"] if asset["side"] != "inside"]
        assert len(outside) > 1, "the served chain begins drifted"
        dry = desk.run("run", "--once", "--log-format", "json")
        assert dry.code == 0, dry.why
        hook.until(2)
        result = desk.run("run", "--once", "--send", "--yes", "--log-format", "json")
        assert result.code == 0, result.why
        hook.until(3)
        mail.until(1)
        count = len(hook.items)
        again = desk.run("run", "--once", "--log-format", "json")
        assert again.code in (0, 10), again.why
        assert CANARY not in result.err + again.err
        after = desk.ask("alerts")
    assert [item["title"].split()[-1] for item in hook.items] == ["band", "week", "rebalanced"], "one message a cause"
    assert mentions(
        hook.texts[1], "T23:00:00Z to", "T23:59:59Z: value 10,200.00 USDC, profit 0.00 (+0.00 %)", "trades: 0, refusals: 0, alerts: 0."
    )
    assert "would sell" in hook.texts[0]
    assert "cost" in hook.texts[0]
    assert mentions(hook.texts[0], "trimtab rebalance --config", "--send")
    assert "Rebalance completed" in mail.texts[0]
    assert "sold" in mail.texts[0]
    assert "trimtab explain" in mail.texts[0]
    assert len(mail.items) == 1
    assert hook.texts[count:] == [], "nothing of it is new to the second run"
    targets = {target["name"]: target for target in after["targets"]}
    assert {name: (target["failures_in_row"], target["waiting"], target["ready"]) for name, target in targets.items()} == {
        "hook": (0, 0, True),
        "mail": (0, 0, True),
    }
    assert targets["hook"]["delivered"]
    assert {item["event"] for item in after["last"]} == {"price", "rebalance", "digest"}
    assert all(asset["side"] == "inside" for asset in after["assets"])


def test_paused_run__goes_on_reading_booking_and_alerting(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = ReceivedMessages()
    with webhook(hook, CANARY) as hook_url:
        monkeypatch.setenv("ALERT_HOOK", hook_url)
        monkeypatch.setenv("ALERT_MAIL", hook_url)
        assert desk.run("run", "--once").code == 0
        date_books_yesterday(desk)
        with_targets(desk)
        assert desk.run("pause", "--reason", "away").code == 0
        wallet = desk.about["wallet"]
        change_native_coin(desk, ETHER)
        nonce = desk.node.rpc("eth_getTransactionCount", wallet, "latest")
        result = desk.run("run", "--once", "--send", "--yes", "--log-format", "json")
        assert (result.code, desk.node.rpc("eth_getTransactionCount", wallet, "latest")) == (10, nonce), result.why
        hook.until(1)
    assert [item["title"].split()[-1] for item in hook.items] == ["paused"]
    booked = desk.ask("books", "journal")["entries"][0]
    assert booked["postings"][0] | {"value": ""} == {
        "account": "assets:wallet", "token": "native", "raw": str(ETHER), "decimals": 18, "value": "",
    }  # fmt: skip
    history = desk.ask("history")
    assert history["steps"][0]["transactions"] == []
    today = desk.ask("pnl", "--period", "day")["periods"][-1]
    assert (today["trades"], today["refusals"], today["alerts"]) == (0, 1, 1), "the refused look and the alert of the pause"
    assert len(history["values"]) == 3, "those of yesterday, and one while it was paused"


def test_a_price_alert_is_sent_once_and_shown_until_it_is_off(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = ReceivedMessages()
    with webhook(hook, CANARY) as hook_url:
        monkeypatch.setenv("ALERT_HOOK", hook_url)
        monkeypatch.setenv("ALERT_MAIL", hook_url)
        with_targets(desk)
        assert desk.ask("orders", "set", "--yes", "WETH", "--alert-above", "2900", "--alert-below", "50%")["changes"] == {
            "alert_above": [None, "2900"],
            "alert_below": [None, "50%"],
        }
        for _ in range(2):
            assert desk.run("run", "--once").code == 0
            hook.until(2)
    texts = [text for text in hook.texts if "WETH above" in text]
    assert len(texts) == 1, "the second run repeats nothing"
    assert mentions(texts[0], "WETH above 2,900.00 USDC: fired at 3,000.00 USDC")
    rows = {row["kind"]: row for row in desk.ask("orders")["orders"]}
    assert (rows["alert_above"]["stage"], rows["alert_above"]["fired_at"]) == ("fired", "3000")
    assert (rows["alert_below"]["stage"], rows["alert_below"]["level"]) == ("armed", "1500")
    (holding,) = (holding for holding in desk.ask("status")["holdings"] if holding["symbol"] == "WETH")
    assert holding["price_alerts"][1] == "WETH below 1,500.00 USDC: armed"
    assert mentions(
        desk.run("status").out, "Price alert: WETH above 2,900.00 USDC: fired at 3,000.00 USDC", "WETH below 1,500.00 USDC: armed"
    )
    desk.ask("orders", "set", "--yes", "WETH", "--alert-above", "off", "--alert-below", "off")
    assert desk.ask("orders")["orders"] == []


def test_alert_prices__are_those_of_the_bands(desk: Desk) -> None:
    document = desk.ask("alerts")
    holding_by_symbol = {item["symbol"]: item for item in desk.ask("status")["holdings"]}
    for asset in document["assets"]:
        assert asset["band_bps"] == holding_by_symbol[asset["symbol"]]["band_bps"]
        assert asset["weight_bps"] == holding_by_symbol[asset["symbol"]]["weight_bps"]
        if asset["symbol"] == "USDC":
            assert asset["alert_low"] is asset["alert_high"] is None, "its price is always 1"
            continue
        low, price, high = (Decimal(asset[name]) for name in ("alert_low", "price", "alert_high"))
        assert low < high
        assert asset["side"] == ("below" if price < low else "above" if price > high else "inside")
    assert document["targets"] == []
    words = desk.run("alerts")
    assert mentions(words.out, "Alert prices", "below", "distance", "17.0562")
    assert "alert targets" in words.out


def test_a_test_reaches_each_target_or_names_the_one_it_did_not(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = ReceivedMessages()
    with webhook(hook, CANARY) as hook_url, silent() as gone:
        monkeypatch.setenv("ALERT_HOOK", hook_url)
        monkeypatch.setenv("ALERT_MAIL", hook_url)
        with_targets(desk)
        assert desk.ask("alerts", "test") == {
            "reached": True,
            "targets": [{"name": "hook", "delivered": True, "why": ""}, {"name": "mail", "delivered": True, "why": ""}],
        }
        monkeypatch.setenv("ALERT_MAIL", gone.replace("never", CANARY))
        desk.edit(('timeout = "5s"', 'timeout = "1s"'))
        failed = desk.ask("alerts", "test", want=11)
        assert failed["targets"][1] == {"name": "mail", "delivered": False, "why": UNANSWERED_REASON}
        words = desk.run("alerts", "test")
        assert (words.code, CANARY in words.out + words.err) == (11, False)
        assert mentions(words.out, "mail", "NOT delivered")
    assert [item["title"] for item in hook.items] == ["mine: test"] * 4


def test_test_without_a_target_or_variable__says_what_to_write(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "alerts.targets" in desk.ask("alerts", "test", want=2)["error"]["message"]
    with_targets(desk)
    monkeypatch.delenv("ALERT_HOOK", raising=False)
    for command in (("alerts", "test"), ("run", "--once")):
        assert "ALERT_HOOK" in desk.ask(*command, want=2)["error"]["message"]
    assert [target["ready"] for target in desk.ask("alerts")["targets"]] == [False, False]
