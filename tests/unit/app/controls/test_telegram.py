"""The Telegram bot against a local server of the Bot API: who may ask, codes that work once, and nothing twice after a restart."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import wiring
from agent.app.controls import telegram
from agent.app.controls.messages import control_end_text, plan_text
from agent.app.controls.queue import link_key
from agent.app.controls.telegram import TelegramBot
from agent.app.documents.controls import sealed_with_document
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.config.tables.telegram import TelegramTable
from agent.errors import ConfigError, PassingFault, Refused, Retryable
from agent.model import Control, ControlArguments, ControlEvent, ControlKind, ControlOrigin, ControlState, PlanLink, ShownPlan
from agent.store.controls import MAX_TRIES, MAX_UPDATE_GAP_S, ControlStateChange, PhoneCode, TelegramBotStore
from agent.store.files.locks import service_lock
from agent.store.files.secret import ensure_secret
from tests.support.agents import config
from tests.support.telegram_server import TOKEN, BotApi, bot_api, code_in, failure, running
from tests.support.text import mentions

ME = 4711
OTHER = 666
HASH = "ab" * 32


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[BotApi]:
    """A server of this test alone: an answer on its way when a bot ends would arrive in the next test."""
    monkeypatch.setenv("TRIMTAB_TELEGRAM", TOKEN)
    monkeypatch.setattr(telegram, "FIRST_RETRY_S", 0.02)
    with bot_api() as api:
        yield api


class FakeControlQueue:
    """Stands for the queue: notes what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.arguments: list[ControlArguments] = []
        self.hash = HASH
        self.refuses = False
        self.is_served = True
        self.entered, self.go = threading.Event(), threading.Event()
        self.go.set()

    def status(self) -> dict[str, Any]:
        self._wait()
        holdings = [{"symbol": "WETH", "weight_bps": 6_000, "target_bps": 5_000}]
        decided = {"kind": "hold", "reason": "inside its bands"}
        return {"total_value": "1000", "numeraire": "USDC", "block": 7, "paused": False, "holdings": holdings, "decision": decided}

    def _wait(self) -> None:
        self.entered.set()
        assert self.go.wait(90)

    def plan(self) -> dict[str, Any]:
        self._wait()
        cost = {"total": "1.2", "fees": "0.7", "impact": "0.1", "skew": "0", "gas": "0.2", "approvals": "0.2"}
        tax = {"gain": "31.5", "currency": "EUR", "method": "fifo", "left_this_year": None}
        document = {"numeraire": "USDC", "cost": cost, "worst_case": "2.9", "tax": tax, "verdicts": []}
        return {"kind": "rebalance", "plan_hash": self.hash, "reason": "", "moves": ["-0.1 WETH", "+300 USDC"], "document": document}

    def submit(self, kind: ControlKind, plan_hash: str, asked_by: str, arguments: ControlArguments = ()) -> bool:
        if self.refuses:
            raise Refused("the plan was not shown", remedy="show it again")
        self.asked.append((kind.value, plan_hash, asked_by))
        self.arguments.append(arguments)
        return self.is_served


def configured(folder: Path, api: BotApi) -> LoadedConfig:
    path = config(folder)
    table = f'[telegram]\ntoken_env = "TRIMTAB_TELEGRAM"\nchats = [{ME}]\napi = "{api.url}"\npoll = "1s"\n'
    path.write_text(path.read_text() + table)
    return load_config(path)


@pytest.fixture
def loaded(api: BotApi, tmp_path: Path) -> LoadedConfig:
    return configured(tmp_path, api)


@pytest.fixture
def desk() -> FakeControlQueue:
    return FakeControlQueue()


@pytest.fixture
def bot(loaded: LoadedConfig, desk: FakeControlQueue) -> Iterator[TelegramBot]:
    """A running bot over the desk; the test begins with what it has to write."""
    with running(loaded, desk, desk.go.set) as telegram_bot:
        yield telegram_bot


def test_the_bot_says_that_it_started_only_after_its_checks(api: BotApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_TELEGRAM", "1:" + "a" * 35)
    loaded = configured(tmp_path, api)
    started = list[str]()
    with pytest.raises(ConfigError, match="token"):
        telegram.serve_telegram(loaded, lambda: started.append("started"))
    with pytest.raises(ConfigError, match="telegram"):
        telegram.serve_telegram(config(tmp_path, "plain"), lambda: started.append("started"))
    assert started == []


@pytest.mark.usefixtures("bot")
def test_plan__is_confirmed_by_its_code_once_for_its_hash(api: BotApi, desk: FakeControlQueue) -> None:
    api.write(ME, "/plan")
    ((chat, text),) = api.until(1)
    assert chat == ME
    assert mentions(text, "worst case 2.90 USDC", "31.50 EUR", "-0.1 WETH", HASH[:12])
    assert "Cost 1.20 USDC (fees 0.70, impact 0.10, gas 0.20, approvals 0.20);" in text
    desk.hash = "cd" * 32  # a newer plan changes nothing about the shown one
    for number in (2, 3):
        api.write(ME, f"/confirm {code_in(text)}")
        api.until(number)
    assert desk.asked == [("rebalance", HASH, f"telegram {ME}")]
    assert mentions(api.sent[1][1], "queued")
    assert mentions(api.sent[2][1], "not done")


def test_plan_message__has_a_signed_link_to_the_dashboard(api: BotApi, tmp_path: Path) -> None:
    path = configured(tmp_path, api).path
    path.write_text(path.read_text() + 'dashboard = "https://trimtab.example.org"\n')
    desk = FakeControlQueue()
    with running(load_config(path), desk, desk.go.set):
        api.write(ME, "/plan")
        text = api.until(1)[0][1]
    links = re.findall(r"https://trimtab\.example\.org/login\?to=/controls&plan=([0-9a-f]+)&until=([0-9]+)&sig=([0-9a-f]{64})", text)
    ((plan, until, signature),) = links
    assert plan == HASH[:16]
    assert PlanLink(plan, int(until)).is_genuine(link_key(path), signature, time.time())


def test_codes__expire_belong_to_a_chat_and_end_after_mistakes(loaded: LoadedConfig) -> None:
    with wiring.open_store_offline(loaded) as (store, _):
        phone = store.telegram_bot
        code = PhoneCode(ME, "right", "rebalance", HASH, 1_000)
        phone.store_code(code, 900)
        assert phone.use_code(OTHER, "right", 900) is None
        assert phone.use_code(ME, "right", 1_000) is None
        assert phone.use_code(ME, "right", 999) == code
        assert phone.use_code(ME, "right", 999) is None
        phone.store_code(code, 900)
        phone.store_code(PhoneCode(ME, "newer", "rebalance", "", 1_000), 900)
        assert phone.use_code(ME, "right", 900) is None, "a newer code of its kind ends the older"
        phone.store_code(code, 900)
        assert [phone.use_code(ME, "wrong", 900) for _ in range(MAX_TRIES)] == [None] * MAX_TRIES
        assert phone.use_code(ME, "right", 900) is None


def test_codes_of_other_kinds__stay_open_and_end_after_mistakes(loaded: LoadedConfig) -> None:
    with wiring.open_store_offline(loaded) as (store, _):
        phone = store.telegram_bot
        codes = [PhoneCode(ME, kind, kind, "", 1_000) for kind in ("resume", "rebalance", "confirm")]
        for code in codes:
            phone.store_code(code, 900)
        assert [phone.use_code(ME, code.digest, 900) for code in codes] == codes
        for code in codes:
            phone.store_code(code, 900)
        assert [phone.use_code(ME, "wrong", 900) for _ in range(MAX_TRIES)] == [None] * MAX_TRIES
        assert [phone.use_code(ME, code.digest, 900) for code in codes] == [None] * 3


@pytest.mark.usefixtures("bot")
@pytest.mark.parametrize("has_file", [True, False])
def test_resume__refuses_a_code_older_than_a_pause(api: BotApi, loaded: LoadedConfig, desk: FakeControlQueue, has_file: bool) -> None:
    api.write(ME, "/resume")
    code = code_in(api.until(1)[0][1])
    with wiring.open_store_offline(loaded) as (store, switch):
        if has_file:
            switch.pause("depeg", int(time.time()))
        else:
            store.pause_switch.pause("depeg", int(time.time()), False)
    api.write(ME, f"/resume {code}")
    assert mentions(api.until(2)[1][1], "not done", "pause", "/resume")
    assert desk.asked == []


def test_resume__takes_a_code_newer_than_the_pause(api: BotApi, loaded: LoadedConfig, desk: FakeControlQueue) -> None:
    with wiring.open_store_offline(loaded) as (_, switch):
        switch.pause("depeg", int(time.time()) - 1)
    with running(loaded, desk, desk.go.set):
        api.write(ME, "/resume")
        api.write(ME, f"/resume {code_in(api.until(1)[0][1])}")
        assert mentions(api.until(2)[1][1], "queued")
    assert desk.asked == [("resume", "", f"telegram {ME}")]


@pytest.mark.usefixtures("bot")
def test_pause__is_at_once_and_resume_needs_a_code(api: BotApi, desk: FakeControlQueue) -> None:
    desk.go.clear()
    api.write(ME, "/status")
    assert desk.entered.wait(90)
    api.write(ME, "/pause")
    assert mentions(api.until(1)[0][1], "paused")
    assert desk.asked == [("pause", "", f"telegram {ME}")]
    desk.go.set()
    assert mentions(api.until(2)[1][1], "1,000.00 USDC", "WETH 60.00 %")
    api.write(ME, "/resume")
    code = code_in(api.until(3)[2][1])
    api.write(ME, f"/confirm {code}")  # a code of one command is none of another's, and is used up
    api.write(ME, f"/resume {code}")
    api.until(5)
    assert len(desk.asked) == 1
    api.write(ME, "/resume")
    api.write(ME, f"/resume {code_in(api.until(6)[5][1])}")
    api.until(7)
    assert desk.asked[1:] == [("resume", "", f"telegram {ME}")]


@pytest.mark.usefixtures("bot")
def test_strangers_and_groups__are_ignored_and_reported_once(api: BotApi, desk: FakeControlQueue) -> None:
    for _ in range(3):
        api.write(OTHER, "/pause <b>evil</b>")
    api.write(ME, "/pause", kind="group")
    api.until(2)
    assert api.quiet() == 2
    assert desk.asked == []
    assert [chat for chat, _ in api.sent] == [ME, ME]
    assert mentions(api.sent[0][1], str(OTHER))
    assert "evil" not in str(api.sent)


PERSON = {"id": OTHER, "is_bot": False, "first_name": "B"}
BOT = {"id": OTHER, "is_bot": True, "first_name": "B", "username": "b_bot"}
NOT_WRITTEN = [
    ("/pause", {"forward_origin": {"type": "user", "date": 1, "sender_user": PERSON}}, "forwarded"),
    ("/pause", {"forward_origin": {"type": "hidden_user", "date": 1, "sender_user_name": "B"}}, "forwarded"),
    ("/pause", {"forward_origin": {"type": "channel", "date": 1, "chat": {"id": -5, "type": "channel"}, "message_id": 1}}, "forwarded"),
    ("/pause", {"forward_date": 1, "forward_from": PERSON}, "forwarded"),
    ("/pause", {"forward_sender_name": "B", "forward_date": 1}, "forwarded"),
    ("/pause", {"is_automatic_forward": True}, "forwarded"),
    ("/pause", {"via_bot": BOT}, "bot"),
    ("/pause", {"from": BOT}, "bot"),
    ("/pause", {"from": PERSON}, "another sender"),
    ("/pause", {"sender_business_bot": BOT, "business_connection_id": "x"}, "bot"),
    ("/pause", {"is_from_offline": True}, "scheduled"),
    ("/pause", {"edit_date": 1_700_000_000}, "edited"),
    ("/pause@other_bot", {}, "@other_bot"),
    ("/pause@trimtab_bot@other_bot", {}, "@trimtab_bot@other_bot"),
]


@pytest.mark.parametrize(("text", "fields", "reason"), NOT_WRITTEN, ids=str)
@pytest.mark.usefixtures("bot")
def test_what_the_owner_did_not_write_to_this_bot_is_no_command(
    api: BotApi, desk: FakeControlQueue, text: str, fields: dict[str, Any], reason: str
) -> None:
    api.write(ME, text, **fields)
    assert mentions(api.until(1)[0][1], "not done", reason)
    api.write(ME, "/pause@Trimtab_Bot")
    api.until(2)
    assert desk.asked == [("pause", "", f"telegram {ME}")]


@pytest.mark.parametrize("place", ["edited_message", "channel_post", "business_message"])
@pytest.mark.usefixtures("bot")
def test_updates_of_another_kind_are_no_commands(api: BotApi, desk: FakeControlQueue, place: str) -> None:
    api.write(ME, "/pause", place=place)
    api.write(ME, " ")
    api.write(ME, "/help")
    api.until(1)
    assert api.quiet() == 1
    assert desk.asked == []


@pytest.mark.parametrize("age_s", [-90, -86_400 * 365, telegram.MAX_AGE_S + 60, 86_400 * 365])
@pytest.mark.usefixtures("bot")
def test_message_from_the_future_or_long_past__is_not_done(api: BotApi, desk: FakeControlQueue, age_s: int) -> None:
    api.write(ME, "/pause", age_s=age_s)
    assert mentions(api.until(1)[0][1], "not done", "minutes old" if age_s > 0 else "in the future")
    assert desk.asked == []


def test_killed_and_restarted_it_does_nothing_twice(api: BotApi, loaded: LoadedConfig, desk: FakeControlQueue) -> None:
    desk.go.clear()
    with running(loaded, desk, desk.go.set):
        api.write(ME, "/status")
        assert desk.entered.wait(90)  # killed in the middle of an answer
    pending = list(api.pending)
    before = len(api.sent)
    with running(loaded, desk, desk.go.set):
        with api.changed:
            api.write(ME, "/pause")
            delivered = list(api.pending)
        api.until(before + 1)
    api.pending = pending + api.pending  # Telegram delivers again what was not acknowledged
    with running(loaded, desk, desk.go.set):
        assert api.quiet() == before + 1
        with api.changed:
            api.again = delivered  # and once more what was
            api.changed.notify_all()
        assert api.quiet() == before + 1
        assert not api.again
    assert desk.asked == [("pause", "", f"telegram {ME}")]


def test_update_numbers__begin_anew_after_a_week_or_false_clock(loaded: LoadedConfig) -> None:
    with wiring.open_store_offline(loaded) as (store, _):
        phone = store.telegram_bot
        assert phone.mark_update_handled(900, 1_000)
        assert not phone.mark_update_handled(900, 1_001)
        assert not phone.mark_update_handled(5, 1_000 + MAX_UPDATE_GAP_S)
        assert phone.mark_update_handled(5, 1_001 + MAX_UPDATE_GAP_S)
        assert phone.last_update_number(1_001 + MAX_UPDATE_GAP_S) == 5
        assert phone.mark_update_handled(900, 10**9 + 365 * 86_400), "the clock was far ahead for a moment"
        assert phone.mark_update_handled(5, 10**9)
        assert not phone.mark_update_handled(5, 10**9 - 60)


@pytest.mark.slow
def test_bot_api_failures__are_waited_out_and_show_no_token(api: BotApi, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "trimtab")  # a command of an earlier test in this process may have silenced it
    api.failures += [
        failure("getUpdates", 429, "Too Many Requests: retry after 0", retry_after=0),
        failure("getUpdates", 409, "Conflict: terminated by other getUpdates request"),
        failure("getUpdates", 502, "Bad Gateway"),
        failure("sendMessage", 429, "Too Many Requests: retry after 0", retry_after=0),
        failure("sendMessage", 500, "Internal Server Error"),
    ]
    with running(configured(tmp_path, api), FakeControlQueue()):
        api.write(ME, "/help")
        api.until(1)
        api.failures.append(failure("sendMessage", 403, "Forbidden: bot was blocked by the user"))
        api.write(ME, "/help")
        api.write(ME, "/help")
        api.until(2)
        assert api.quiet() == 2
        assert api.failures == []
    assert TOKEN not in caplog.text
    assert TOKEN.split(":")[1] not in caplog.text
    assert mentions(caplog.text, "another process polls")


def test_a_refused_token_ends_the_bot_and_is_not_shown(api: BotApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = TOKEN.replace("AAH", "BBH")
    monkeypatch.setenv("TRIMTAB_TELEGRAM", wrong)
    with pytest.raises(ConfigError) as caught:
        telegram.serve_telegram(configured(tmp_path, api))
    assert caught.value.field == "telegram.token_env"
    assert wrong not in str(caught.value)
    assert wrong.split(":")[1] not in str(caught.value)


def waiting_offer(loaded: LoadedConfig, desk: FakeControlQueue) -> ShownPlan:
    plan = ShownPlan(ControlKind.CONFIRM, (), (("decision", "rebalance"),), (("WETH", -5, 1),), 10)
    return sealed_with_document(plan, desk.plan()["document"], ("-0.5 WETH",), 10, ensure_secret(wiring.store_file(loaded)))


def test_a_waiting_plan_and_the_end_of_its_control_are_told_once(api: BotApi, loaded: LoadedConfig, desk: FakeControlQueue) -> None:
    waiting = waiting_offer(loaded, desk)

    def control(number: int, origin: ControlOrigin) -> Control:
        return Control(f"{number:032x}", ControlKind.CONFIRM, (), waiting.hash, f"telegram {ME}", origin, 1, 10)

    with wiring.open_store_offline(loaded) as (store, _):
        store.controls.store_offer(waiting)
        with running(loaded, desk, desk.go.set):
            assert mentions(api.until(1)[0][1], "waiting", "Cost 1.20 USDC")
            assert code_in(api.sent[0][1])
            for number, origin in enumerate((ControlOrigin.TELEGRAM, ControlOrigin.API), 1):
                row = store.controls.queue(control(number, origin))
                store.controls.finish([ControlStateChange(row, ControlState.REFUSED, "slippage", "too dear")], 5)
            assert mentions(api.until(2)[1][1], "confirm refused", "slippage")
        with running(loaded, desk, desk.go.set):
            assert api.quiet() == 2


def test_waiting_plan__is_announced_as_offered_while_no_chain_answers(
    api: BotApi, loaded: LoadedConfig, desk: FakeControlQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = waiting_offer(loaded, desk)

    def plan() -> dict[str, Any]:
        raise Retryable("no endpoint answers")

    monkeypatch.setattr(desk, "plan", plan)
    with wiring.open_store_offline(loaded) as (store, _), running(loaded, desk, desk.go.set):
        store.controls.store_offer(waiting)
        text = api.until(1)[0][1]
        assert mentions(text, "waiting", "-0.5 WETH", waiting.hash[:12])
        api.write(ME, f"/confirm {code_in(text)}")
        api.until(2)
    assert desk.asked == [("confirm", waiting.hash, f"telegram {ME}")]


def test_waiting_plan__that_was_altered_is_not_announced(api: BotApi, loaded: LoadedConfig, desk: FakeControlQueue) -> None:
    with wiring.open_store_offline(loaded) as (store, _), running(loaded, desk, desk.go.set):
        store.controls.store_offer(replace(waiting_offer(loaded, desk), shown_at_s=11))
        assert api.quiet() == 0


def test_waiting_plan__is_announced_once_its_code_is_stored(
    api: BotApi, loaded: LoadedConfig, desk: FakeControlQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = fail_first(monkeypatch, "store_code", 1)
    with wiring.open_store_offline(loaded) as (store, _), running(loaded, desk, desk.go.set):
        store.controls.store_offer(waiting_offer(loaded, desk))
        assert mentions(api.until(1)[0][1], "waiting")
        assert api.quiet() == 1
    assert faults == []


def test_waiting_plan__is_shown_without_an_endpoint(loaded: LoadedConfig, desk: FakeControlQueue) -> None:
    waiting = waiting_offer(loaded, desk)
    with wiring.open_store_offline(loaded) as (store, _):
        store.controls.store_offer(waiting)
    document = telegram.QueueActions(loaded, []).plan()
    assert document["plan_hash"] == waiting.hash
    assert document["moves"] == ["-0.5 WETH"]


def fail_first(monkeypatch: pytest.MonkeyPatch, method: str, count: int) -> list[PassingFault]:
    """Let the first calls of this method of the bot's store fail; return the failures to come."""
    faults = [PassingFault("store: cannot be written: database is locked")] * count
    call = getattr(TelegramBotStore, method)

    def failing(store: TelegramBotStore, *arguments: Any) -> Any:
        if faults:
            raise faults.pop()
        return call(store, *arguments)

    monkeypatch.setattr(TelegramBotStore, method, failing)
    return faults


@pytest.mark.parametrize("method", ["last_update_number", "mark_update_handled", "last_reported_number"])
def test_store_fault__is_waited_out(
    api: BotApi, loaded: LoadedConfig, desk: FakeControlQueue, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    faults = fail_first(monkeypatch, method, 3)
    with running(loaded, desk, desk.go.set):
        api.write(ME, "/pause")
        assert mentions(api.until(1)[0][1], "paused")
        api.quiet()
    assert desk.asked == [("pause", "", f"telegram {ME}")]
    assert faults == []


@pytest.mark.usefixtures("bot")
@pytest.mark.parametrize("command", ["/Plan", "/STATUS", "/status@trimtab_bot"])
def test_pause__waits_behind_no_read_of_the_chain(api: BotApi, desk: FakeControlQueue, command: str) -> None:
    desk.go.clear()
    api.write(ME, command)
    assert desk.entered.wait(90)
    api.write(ME, "/Pause")
    assert mentions(api.until(1)[0][1], "paused")
    desk.go.set()


@pytest.mark.usefixtures("bot")
@pytest.mark.parametrize(
    ("words", "reason"), [("now", "now"), ("WETH\u200b  is\nfalling", "WETH is falling"), ("x" * 900, "x" * telegram.MAX_REASON_LENGTH)]
)
def test_pause__takes_further_words_as_its_reason(api: BotApi, desk: FakeControlQueue, words: str, reason: str) -> None:
    api.write(ME, f"/pause {words}")
    assert mentions(api.until(1)[0][1], "paused")
    assert desk.asked == [("pause", "", f"telegram {ME}")]
    assert desk.arguments == [(("reason", f"{reason} (telegram {ME})"),)]


@pytest.mark.usefixtures("bot")
@pytest.mark.parametrize("text", ["pause", "/paus", "/status now"])
def test_unknown_command__says_that_nothing_was_done(api: BotApi, desk: FakeControlQueue, text: str) -> None:
    api.write(ME, text)
    assert mentions(api.until(1)[0][1], "not done", "/pause")
    assert desk.asked == []


@pytest.mark.usefixtures("bot")
def test_pause__names_the_signatures_that_it_cannot_take_back(api: BotApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telegram, "unstopped_texts", lambda _: ("signatures of the proposal i7: 2",))
    api.write(ME, "/pause")
    assert mentions(api.until(1)[0][1], "paused", "signatures of the proposal i7: 2")


@pytest.mark.usefixtures("bot")
def test_an_error_is_answered_with_its_remedy(api: BotApi, desk: FakeControlQueue) -> None:
    desk.refuses = True
    api.write(ME, "/pause")
    assert mentions(api.until(1)[0][1], "not done", "show it again")


@pytest.mark.parametrize(("funding", "part"), [("0.4", ", funding 0.40"), ("0", ""), (None, "")])
def test_plan_text__has_all_parts_of_the_cost(desk: FakeControlQueue, funding: str | None, part: str) -> None:
    plan_document = desk.plan()
    if funding is not None:
        plan_document["document"]["cost"]["funding"] = funding
    assert f"(fees 0.70, impact 0.10, gas 0.20, approvals 0.20{part});" in plan_text(plan_document)


def configured_chats(loaded: LoadedConfig, chats: str) -> None:
    loaded.path.write_text(re.sub("chats = .*", f"chats = {chats}", loaded.path.read_text()))


@pytest.mark.usefixtures("bot")
def test_chat__that_the_config_drops_is_a_stranger_at_once(api: BotApi, loaded: LoadedConfig, desk: FakeControlQueue) -> None:
    api.write(ME, "/help")
    api.until(1)
    configured_chats(loaded, f"[{OTHER}]")
    for chat in (ME, OTHER):  # a new chat needs a restart
        api.write(chat, "/pause")
    assert api.quiet(1.0) == 1
    assert desk.asked == []


@pytest.mark.usefixtures("bot")
def test_chat__dropped_with_the_table_gets_no_waiting_plan(api: BotApi, loaded: LoadedConfig, desk: FakeControlQueue) -> None:
    loaded.path.write_text(loaded.path.read_text().split("[telegram]")[0])
    with wiring.open_store_offline(loaded) as (store, _):
        store.controls.store_offer(waiting_offer(loaded, desk))
    assert api.quiet(1.0) == 0


@pytest.mark.usefixtures("bot")
def test_chat__may_pause_while_the_config_is_invalid(api: BotApi, loaded: LoadedConfig, desk: FakeControlQueue) -> None:
    configured_chats(loaded, "[")
    api.write(ME, "/pause")
    assert mentions(api.until(1)[0][1], "paused")


def test_actions__follow_the_edited_config_and_pause_without(loaded: LoadedConfig) -> None:
    actions = telegram.QueueActions(loaded.path, [])
    loaded.path.write_text("[")
    with pytest.raises(ConfigError, match="not valid TOML"):
        actions.submit(ControlKind.RESUME, "", f"telegram {ME}")
    actions.submit(ControlKind.PAUSE, "", f"telegram {ME}")
    with wiring.open_store_offline(loaded) as (_, switch):
        assert switch.is_paused()


@pytest.mark.usefixtures("bot")
@pytest.mark.parametrize(
    ("command", "is_served", "words"),
    [
        pytest.param("/plan", True, ("queued for trimtab run --send", "reported here"), id="plan, run active"),
        pytest.param("/plan", False, ("no run is active", "start trimtab run --send within 5 minutes"), id="plan, no run"),
        pytest.param("/resume", False, ("no run is active", "reported here"), id="resume, no run"),
    ],
)
def test_accepted_code__says_whether_a_run_takes_it(
    api: BotApi, desk: FakeControlQueue, command: str, is_served: bool, words: tuple[str, ...]
) -> None:
    desk.is_served = is_served
    api.write(ME, command)
    code = code_in(api.until(1)[0][1])
    api.write(ME, f"/{'resume' if command == '/resume' else 'confirm'} {code}")
    assert mentions(api.until(2)[1][1], *words)


def test_resume__is_done_at_once_without_a_run(loaded: LoadedConfig) -> None:
    with wiring.open_store_offline(loaded) as (store, switch):
        switch.pause("depeg", int(time.time()) - 60)
        assert telegram.QueueActions(loaded).submit(ControlKind.RESUME, "", f"telegram {ME}") is False
        assert not switch.is_paused()
        assert store.controls.newest()[0].state is ControlState.DONE


def test_resume__is_left_to_the_run_that_serves(loaded: LoadedConfig) -> None:
    with wiring.open_store_offline(loaded) as (store, switch):
        switch.pause("depeg", int(time.time()) - 60)
        with service_lock(wiring.wallet_locks(loaded)):
            assert telegram.QueueActions(loaded).submit(ControlKind.RESUME, "", f"telegram {ME}") is True
        assert switch.is_paused()
        assert store.controls.newest()[0].state is ControlState.QUEUED


def test_texts_name_refusals_and_repeat_no_markup() -> None:
    preview = {
        "plan_hash": "",
        "reason": "",
        "moves": (),
        "document": {"verdicts": [{"guard": "turnover", "passed": False}], "reason": "<b>no</b>"},
    }
    assert mentions(plan_text(preview), "refused by turnover", "tax: not configured")
    assert "<" not in plan_text(preview)
    event = ControlEvent(1, "id", "confirm", "telegram", "x", "failed", "deadline", "", 5)
    assert mentions(control_end_text(event), "confirm failed", "deadline")


@pytest.mark.parametrize(
    "keys",
    [
        {"chats": []},
        {"chats": [-100123]},
        {"chats": ["4711"]},
        {"api": "http://example.org"},
        {"poll": "2m"},
        {"code_ttl": "1h"},
        {"token_env": "123456:secret"},
        {"dashboard": "http://example.org"},
    ],
)
def test_a_wrong_setting_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(keys))):
        TelegramTable.model_validate({"token_env": "TRIMTAB_TELEGRAM", "chats": [ME], **keys})
