"""Controls: sealed, bound to what was shown, taken once, finished once; the audit log only grows."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest
from sqlalchemy import update

from agent.app.controls import queue, runner
from agent.app.controls.messages import control_alerts
from agent.app.controls.queue import MAX_SHOWN_AGE_S
from agent.app.controls.shown_plans import format_moves, require_no_widening, shown_step, shown_withdrawal
from agent.app.documents.controls import shown_plan_document
from agent.app.research.offline import plan_step_input
from agent.app.withdrawals.withdrawal_run import WithdrawalReport, WithdrawalState
from agent.config.load import load_config, load_config_text
from agent.config.schema import Config
from agent.config.writing.edits import ConfigChanges, apply_changes
from agent.errors import ConfigError, OperatorNeeded, PassingFault, Refused
from agent.execution.step_context import StepOutcome
from agent.layers.futures.state import with_policy
from agent.model import (
    Control,
    ControlCode,
    ControlEvent,
    ControlKind,
    ControlOrigin,
    ControlState,
    ControlSubmission,
    Intent,
    IntentKind,
    IntentState,
    Payment,
    ShownPlan,
    StepInput,
)
from agent.model.futures import DelegateChange, FuturesPlan, MarginAccount, MarginDeposit, MarginWithdrawal, PerpOrder, PerpOrderKind
from agent.model.liquidity import Collect
from agent.ports.paper import PaperConfig
from agent.reference import reference_prices
from agent.store import Store, open_store
from agent.store.controls import MAX_QUEUED, MAX_SHOWN_PLANS, ControlStateChange, ControlStore
from agent.store.files.secret import ensure_secret, secret_path
from agent.store.tables import ControlRow
from agent.units import NATIVE, decimal_text
from tests.support import agents, builders
from tests.support.bands import with_bands
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.steps import FUTURES_POLICY, book
from tests.support.stores import store_fixture
from tests.support.text import raises_code
from tests.support.transactions import new_store, receipt, tx

SECRET = b"s" * 32
PLAN = ShownPlan(ControlKind.REBALANCE, (), (("futures", "none"),), (("0xA", -1_000, 10), ("0xB", 2_000, 20)), 5, "{}")


def control(number: int = 1, **changes: object) -> Control:
    control = Control(f"{number:032x}", ControlKind.RESUME, (("flow", "1"),), "ab", "owner", ControlOrigin.API, 1_000, 1_300)
    return replace(control, **changes).sealed(SECRET)  # type: ignore[arg-type]  # fields by name


store = store_fixture()


OTHERS: dict[str, object] = {
    "id": "f" * 32, "kind": ControlKind.STOP, "arguments": (("flow", "2"),), "plan_hash": "", "asked_by": "ownes",
    "origin": ControlOrigin.CLI, "asked_at_s": 1_001, "expires_at_s": 1_301, "seal": "0" * 64,
}  # fmt: skip


# --- The seal.


@pytest.mark.parametrize("name", [field.name for field in fields(Control)])
def test_a_seal_covers_every_field(name: str) -> None:
    genuine = control()
    assert genuine.is_genuine(SECRET)
    assert not genuine.is_genuine(b"t" * 32)
    assert not replace(genuine, **{name: OTHERS[name]}).is_genuine(SECRET)  # type: ignore[arg-type]  # fields by name


def test_fields_cannot_be_moved_into_one_another() -> None:
    first_control = control(arguments=(("a", "b"),))
    for other in ((("ab", ""),), (("a", 'b"]],["'),), (), (("a", "b"), ("", ""))):
        assert replace(control(arguments=other), seal=first_control.seal).is_genuine(SECRET) is False
    assert control(seal="é").seal == control().seal
    assert not replace(control(), seal="é").is_genuine(SECRET), "a seal that is no ASCII is compared too"


# --- What was shown.


@pytest.mark.parametrize("change", [{"shown_at_s": 6}, {"after_control": 1}, {"shown_json": "{} "}], ids=repr)
def test_seal_of_a_shown_plan_covers_when_it_was_shown(change: dict[str, object]) -> None:
    sealed = PLAN.sealed(SECRET)
    assert sealed.is_genuine(SECRET)
    assert not replace(sealed, **change).is_genuine(SECRET)  # type: ignore[arg-type]  # fields by name


def test_a_hash_covers_what_binds_and_nothing_else() -> None:
    assert replace(PLAN, shown_at_s=9).hash == PLAN.hash
    for changed in (
        replace(PLAN, kind=ControlKind.STOP),
        replace(PLAN, arguments=(("a", "b"),)),
        replace(PLAN, binding_texts=()),
        replace(PLAN, shown_json='{"a": 1}'),
        replace(PLAN, amounts=PLAN.amounts[:1]),
        replace(PLAN, amounts=(("0xA", -1_000, 11), PLAN.amounts[1])),
    ):
        assert changed.hash != PLAN.hash


@pytest.mark.parametrize(
    ("shown_plan", "named"),
    [
        (PLAN, ""),
        (replace(PLAN, amounts=(("0xA", -1_010, 0), ("0xB", 1_980, 0))), ""),
        (replace(PLAN, amounts=(("0xA", -1_011, 0), ("0xB", 2_000, 0))), "0xA"),
        (replace(PLAN, amounts=(("0xA", -1_000, 0),)), "0xB"),
        (replace(PLAN, amounts=(*PLAN.amounts, ("0xC", 1, 10**9))), "0xC"),
        (replace(PLAN, binding_texts=()), "futures"),
        (replace(PLAN, binding_texts=(*PLAN.binding_texts, ("to", "0x1"))), "to"),
        (replace(PLAN, arguments=(("a", "b"),)), "another request"),
        (replace(PLAN, kind=ControlKind.STOP), "another request"),
    ],
)  # fmt: skip
def test_a_plan_may_differ_by_its_tolerances_only(shown_plan: ShownPlan, named: str) -> None:
    difference = PLAN.difference(shown_plan)
    assert (named in difference) if named else difference == ""


# --- The store, in a file and in memory.


def test_a_control_is_taken_once_and_finished_once(store: Store) -> None:
    assert store.controls.log_number_and_time() == (0, 0)
    number = store.controls.queue(control())
    assert store.controls.has_queued()
    assert store.controls.queued_controls()[0].control == control()
    assert store.controls.take(number, 1_010)
    assert not store.controls.take(number, 1_011)
    assert not store.controls.has_queued()
    assert [numbered_control.number for numbered_control in store.controls.taken_controls()] == [number]
    end = ControlStateChange(number, ControlState.DONE, "", "paid", (("transaction", "0x1"),))
    store.controls.finish([end], 1_020)
    store.controls.finish([ControlStateChange(number, ControlState.REFUSED)], 1_021)
    (record,) = store.controls.newest()
    assert (record.state, record.reason, record.result_pairs, record.changed_s) == (ControlState.DONE, "paid", end.result, 1_020)
    assert store.controls.find(control().id) == record
    assert store.controls.find("no") is None
    assert [event.state for event in store.controls.events()] == ["queued", "taken", "done"]
    assert [event.state for event in store.controls.events(after=2)] == ["done"]
    assert store.controls.log_number_and_time() == (3, 1_020)


def test_of_several_processes_one_takes_a_control(tmp_path: Path) -> None:
    stores = [new_store("file", tmp_path) for _ in range(4)]
    numbers = [stores[0].controls.queue(control(number)) for number in range(10)]
    with ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(lambda store: [store.controls.take(number, 1_010) for number in numbers], stores))
    assert [sum(takings) for takings in zip(*taken, strict=True)] == [1] * 10
    for store in stores:
        store.close()


def test_controls_come_in_the_order_of_their_requests(store: Store) -> None:
    for number in (3, 1, 2):
        store.controls.queue(control(number))
    assert [numbered_control.control.id[-1] for numbered_control in store.controls.queued_controls() if numbered_control.control] == [
        "3",
        "1",
        "2",
    ]
    assert [control.control.id[-1] for control in store.controls.newest(2)] == ["2", "1"]


def test_a_row_set_back_to_queued_is_not_taken_again(store: Store) -> None:
    number = store.controls.queue(control())
    assert store.controls.take(number, 1_010)
    store.controls.finish([ControlStateChange(number, ControlState.DONE)], 1_020)
    with store.db.write("alter") as db:
        db.execute(update(ControlRow).values(state="queued"))
    assert store.controls.has_queued()
    assert not store.controls.take(number, 1_030)


def test_an_id_is_queued_once(store: Store) -> None:
    store.controls.queue(control())
    with raises_code(OperatorNeeded, "store", "UNIQUE constraint failed: controls.id"):
        store.controls.queue(control())


@pytest.mark.parametrize("column", ["kind", "origin", "arguments_json"])
def test_a_damaged_row_is_reported_and_never_raises(store: Store, column: str) -> None:
    number = store.controls.queue(control())
    with store.db.write("alter") as db:
        db.execute(update(ControlRow).values({column: '{"a": 1'}))
    (numbered_control,) = store.controls.queued_controls()
    assert (numbered_control.number, numbered_control.control) == (number, None)
    store.controls.finish([ControlStateChange(number, ControlState.REFUSED, ControlCode.SEAL)], 1_000)
    assert not store.controls.has_queued()
    assert store.controls.newest() == ()
    assert store.controls.events()[-1].code == "seal"


@pytest.mark.parametrize("statement", ["UPDATE control_log SET reason = 'x'", "DELETE FROM control_log"])
def test_the_audit_log_only_grows(store: Store, statement: str) -> None:
    store.controls.queue(control())
    with pytest.raises(OperatorNeeded, match="only grows"), store.db.write("alter the log") as db:
        db.exec_driver_sql(statement)
    assert len(store.controls.events()) == 1


def test_a_full_queue_refuses_with_its_reason(store: Store) -> None:
    for number in range(MAX_QUEUED):
        store.controls.queue(control(number))
    with raises_code(Refused, ControlCode.QUEUE_FULL) as refused:
        store.controls.queue(control(MAX_QUEUED))
    assert refused.value.guards == ("control_queue",)
    store.controls.finish([ControlStateChange(store.controls.queued_controls()[0].number, ControlState.EXPIRED)], 2_000)
    store.controls.queue(control(MAX_QUEUED))


def test_one_plan_waits_and_shown_plans_are_bounded(store: Store) -> None:
    assert store.controls.offered_plan() is None
    assert store.controls.shown_plan(PLAN.hash) is None
    store.controls.store_offer(PLAN)
    other = replace(PLAN, binding_texts=())
    store.controls.record_shown(PLAN)
    assert store.controls.offered_plan() == PLAN, "showing it again leaves it waiting"
    store.controls.store_offer(other)
    assert store.controls.offered_plan() == other
    assert store.controls.shown_plan(PLAN.hash) is None
    for number in range(MAX_SHOWN_PLANS + 3):
        store.controls.record_shown(replace(PLAN, binding_texts=(("n", str(number)),), shown_at_s=number))
    assert store.controls.shown_plan(replace(PLAN, binding_texts=(("n", "2"),)).hash) is None
    assert store.controls.shown_plan(replace(PLAN, binding_texts=(("n", "3"),)).hash) is not None
    assert store.controls.offered_plan() == other
    store.controls.end_offer()
    assert store.controls.offered_plan() is None


# --- The secret beside the store.


def test_the_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "trimtab.db"
    secret_text = ensure_secret(file)
    assert len(secret_text) == 32
    assert ensure_secret(file) == secret_text
    path = secret_path(file)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [*tmp_path.iterdir()] == [path]
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        ensure_secret(file)
    path.chmod(0o600)
    path.write_text("ab")
    with raises_code(OperatorNeeded, "file"):
        ensure_secret(file)


def test_secret_that_cannot_be_written__error_says_written(tmp_path: Path) -> None:
    with pytest.raises(OperatorNeeded, match=r"trimtab\.db\.secret cannot be written: "):
        ensure_secret(tmp_path / "absent" / "trimtab.db")


def test_processes_that_begin_at_once_agree_on_the_secret(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert len(set(pool.map(ensure_secret, [tmp_path / "trimtab.db"] * 16))) == 1


# --- Submission.


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return agents.config(tmp_path)


@pytest.fixture
def queue_store(config: Path) -> Iterator[Store]:
    """The store of the config's queue."""
    loaded = load_config(config)
    opened = open_store(loaded.store_url, 1, loaded.config.wallet.address, loaded.config.chain.wrapped_native)
    yield opened
    opened.close()


def submitted(config: Path, kind: str, *arguments: tuple[str, str], now: Callable[[], float] = time.time, **more: object) -> Control:
    request = {"asked_by": "owner", "origin": ControlOrigin.CLI} | more
    return queue.submit_control(config, ControlSubmission(queue.parse_kind(kind), arguments, **request), now=now)  # type: ignore[arg-type]


def test_a_request_is_sealed_and_queued(config: Path) -> None:
    control = submitted(config, "resume", lifetime_s=60, now=lambda: 5_000.9)
    assert (control.asked_at_s, control.expires_at_s, control.kind) == (5_000, 5_060, ControlKind.RESUME)
    assert control.is_genuine(ensure_secret(config.parent / "mine.db"))
    document = queue.list_controls(config)
    assert (document["queued"], document["waiting"], document["served"]) == (1, None, False)
    assert document["controls"] == [queue.find_control(config, control.id)]
    assert document["controls"][0]["state"] == "expired", "no run took it in its minute"
    assert json.dumps(document)


def test_a_pause_takes_effect_without_a_run(config: Path, queue_store: Store) -> None:
    submitted(config, "pause", ("reason", "smoke"), ("hard", "yes"))
    assert (queue_store.pause_switch.read().reason, queue_store.pause_switch.read().hard) == ("smoke", True)
    assert [event.state for event in queue_store.controls.events()] == ["done"]
    assert not queue_store.controls.has_queued()


DEVICE = {"endpoint": "https://web.push.apple.com/secret", "key": "B" + "A" * 86, "auth": "s" * 22, "page": "/alerts"}
BAD = [
    ("dance", [], "kind"), ("resume", [("reason", "x")], "'reason'"), ("pause", [("hard", "true")], "hard"),
    ("pause", [("reason", "a"), ("reason", "b")], "reason"), ("pause", [("reason", "x" * 5_000)], "arguments"),
    ("pause", [("reason", "a\nb")], "arguments"), ("invest", [("flow", "-1")], "flow"), ("invest", [("flow", "٣")], "flow"),
    ("invest", [("flow", "9" * 30)], "flow"), ("withdraw", [], "amount"), ("withdraw", [("amount", "0")], "amount"),
    ("withdraw", [("amount", "1e3")], "amount"), ("withdraw", [("amount", "1"), ("resume", "1")], "amount"),
    ("withdraw", [("amount", "1"), ("in", "DOGE")], "in"), ("withdraw", [("amount", "1"), ("in", "WETH"), ("pro-rata", "yes")], "in"),
    ("withdraw", [("resume", "1"), ("in", "WETH")], "resume"), ("withdraw", [("amount", "1"), ("to", agents.OTHER)], "to"),
    ("withdraw", [("amount", "1"), ("to", "0x1")], "to"), ("stop", [("send-to", agents.OTHER)], "send-to"), ("edit", [], "edit"),
    ("edit", [("set", "limits")], "--set"), ("edit", [("add", "LINK=0x1:1%")], "'add'"),
    ("edit", [("target", "WETH=40%"), ("send", "yes")], "'send'"), ("edit", [("set", "chain.rpc.0.url=http://x")], "--set"),
    *(("device", [*(DEVICE | {name: value}).items()], name) for name, value in (
        ("endpoint", "http://a.org/b"), ("endpoint", "https://me@a.org/b"), ("endpoint", "https://a.org\\@b.org/c"), ("endpoint", "https://A.org/b"),
        ("endpoint", "https://a.org/" + "b" * 1_501), ("endpoint", ""), ("key", "A" * 87), ("key", "B" * 86), ("auth", "a" * 23),
        ("page", "//evil.org/alerts"), ("page", "https://evil.org/alerts"), ("page", "/p/../alerts"), ("remove", "0" * 16),
    )),
    ("device", [], "endpoint"), ("rebalance", [], "plan_hash"), ("confirm", [], "plan_hash"), ("stop", [("to-stable", "yes")], "plan_hash"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "arguments", "field"), BAD)
def test_a_bad_request_names_its_field_and_stores_nothing(
    config: Path, queue_store: Store, kind: str, arguments: list[tuple[str, str]], field: str
) -> None:
    with pytest.raises(ConfigError) as error:
        submitted(config, kind, *arguments)
    assert error.value.message.startswith(field)
    assert error.value.remedy
    assert queue_store.controls.events() == ()


@pytest.mark.parametrize(
    ("more", "field"), [({"asked_by": ""}, "asked_by"), ({"asked_by": "a\x1b"}, "asked_by"),
                        ({"lifetime_s": 0}, "lifetime"), ({"lifetime_s": 901}, "lifetime")],
)  # fmt: skip
def test_requester_and_lifetime_are_checked(config: Path, more: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        submitted(config, "resume", **more)


def test_a_device_is_queued_and_only_its_service_shown(config: Path) -> None:
    control = submitted(config, "device", *DEVICE.items())
    assert dict(control.arguments) == DEVICE
    assert queue.find_control(config, control.id)["arguments"] == [{"name": "endpoint", "value": "web.push.apple.com"}]
    dashboard_controls = queue.dashboard_controls(str(config))
    assert dashboard_controls["devices"] == {"key": "", "devices": []}
    assert not any(DEVICE[name] in str(dashboard_controls) for name in ("endpoint", "key", "auth"))


def test_plan__is_confirmed_only_for_its_own_request(config: Path, queue_store: Store) -> None:
    now_s = int(time.time())
    secret = ensure_secret(config.parent / "mine.db")
    stop = replace(PLAN, kind=ControlKind.STOP, arguments=(("to-stable", "yes"),), shown_at_s=now_s)
    old = replace(stop, shown_json="old", shown_at_s=now_s - MAX_SHOWN_AGE_S - 5).sealed(secret)
    queue_store.controls.record_shown(old)
    future = replace(stop, shown_json="future", shown_at_s=now_s + MAX_SHOWN_AGE_S + 5).sealed(secret)
    queue_store.controls.record_shown(future)
    forged = replace(stop, shown_json="forged")
    queue_store.controls.record_shown(forged.sealed(b"x" * 32))
    stop = stop.sealed(secret)
    queue_store.controls.record_shown(stop)
    assert submitted(config, "stop", *stop.arguments, plan_hash=stop.hash).plan_hash == stop.hash
    submitted(config, "stop")
    for kind, arguments, plan_hash in (
        ("stop", (), stop.hash),
        ("rebalance", (), stop.hash),
        ("rebalance", (), "0" * 64),
        ("stop", stop.arguments, forged.hash),
        ("stop", stop.arguments, old.hash),
        ("stop", stop.arguments, future.hash),
    ):
        with raises_code(Refused, ControlCode.NOT_SHOWN):
            submitted(config, kind, *arguments, plan_hash=plan_hash)
    with pytest.raises(ConfigError, match="plan_hash"):
        submitted(config, "resume", plan_hash=stop.hash)
    assert len(queue_store.controls.events()) == 2


def test_a_shown_plan_is_confirmed_once_also_with_another_key(config: Path, queue_store: Store) -> None:
    now_s = int(time.time())
    secret = ensure_secret(config.parent / "mine.db")
    stop = replace(PLAN, kind=ControlKind.STOP, arguments=(("to-stable", "yes"),), shown_at_s=now_s).sealed(secret)
    queue_store.controls.record_shown(stop)
    first = submitted(config, "stop", *stop.arguments, plan_hash=stop.hash, key="a")
    assert submitted(config, "stop", *stop.arguments, plan_hash=stop.hash, key="a") == first
    for key in ("b", ""):
        with raises_code(Refused, ControlCode.PLAN_USED):
            submitted(config, "stop", *stop.arguments, plan_hash=stop.hash, key=key)
    (queued,) = queue_store.controls.queued_controls()
    queue_store.controls.finish([ControlStateChange(queued.number, ControlState.REFUSED, "slippage")], now_s)
    submitted(config, "stop", *stop.arguments, plan_hash=stop.hash, key="c")  # nothing was sent for the first
    later = replace(stop, shown_at_s=now_s + 60, after_control=queue_store.controls.newest_number()).sealed(secret)
    queue_store.controls.record_shown(later)
    assert later.hash == stop.hash
    submitted(config, "stop", *stop.arguments, plan_hash=stop.hash, now=lambda: now_s + 61)  # shown again


# --- Edits.


def edited(folder: Path, changes: str) -> tuple[Config, Config]:
    """A config before and after an edit that changes it, in the notation of `trimtab edit`."""
    before = agents.config(folder, template="moderate", numeraire="USDC")
    before.write_text(with_bands(before.read_text()))
    text = before.read_text()
    key, _, value = changes.partition("=")
    after = apply_changes(text, ConfigChanges(key_settings=((key, value),)))
    configs = load_config_text(text, before, "a").config, load_config_text(after, before, "b").config
    assert configs[0] != configs[1]
    return configs


@pytest.mark.parametrize(
    "change",
    ["policy.cooldown=9h", "limits.daily_turnover=9%", "limits.turnover=5%", "limits.payout_per_day=1", "limits.balance_jump=1%",
     "portfolio.max_live_value=10", "portfolio.assets.WETH.band=10%rel", "portfolio.assets.WETH.stop_loss=10%",
     "portfolio.assets.WETH.alert_above=9000", "portfolio.assets.WETH.alert_below=20%", "alerts.targets.mail.url_env=TRIMTAB_MAIL"],
)  # fmt: skip
def test_an_edit_may_change_what_permits_no_more(tmp_path: Path, change: str) -> None:
    require_no_widening(*edited(tmp_path, change))


@pytest.mark.parametrize(
    "change",
    ["limits.slippage=0.9%", "limits.turnover=off", "limits.payout_per_day=999999", "limits.min_trade=1", "limits.native_floor=0.001",
     "portfolio.max_live_value=off", "policy.confirm_blocks=0", "chain.confirmations=1", "execution.deadline=29m",
     "service.wallet_wait=5s", "reference.feed_max_age=9d", "portfolio.assets.WETH.feed_max_age=9d", "limits.token_screen=off",
     "alerts.cooldown=9d"],
)  # fmt: skip
def test_an_edit_may_not_permit_more(tmp_path: Path, change: str) -> None:
    with raises_code(Refused, ControlCode.WIDENS) as refused:
        require_no_widening(*edited(tmp_path, change))
    assert refused.value.verdicts[0].measured_text == change.partition("=")[0]


def test_an_edit_may_neither_add_payees_tokens_nor_acceptances(tmp_path: Path) -> None:
    config = load_config(agents.config(tmp_path)).config
    portfolio = config.portfolio
    wallet = config.wallet
    capped = config.limits.model_copy(update={"max_weight": {"any": 5_000}})
    config = config.model_copy(update={"limits": capped})
    token = portfolio.assets[0].model_copy(update={"symbol": "DOGE"})
    for key, changes in (
        ("wallet.payout_addresses", {"wallet": wallet.model_copy(update={"payout_addresses": [agents.OTHER]})}),
        ("portfolio.assets.DOGE", {"portfolio": portfolio.model_copy(update={"assets": [*portfolio.assets, token]})}),
        ("limits.i_accept", {"limits": capped.model_copy(update={"i_accept": ["slippage"]})}),
        ("limits.max_weight", {"limits": capped.model_copy(update={"max_weight": {"any": 9_000}})}),
        ("limits.max_weight", {"limits": capped.model_copy(update={"max_weight": None})}),
        ("limits.max_weight", {"limits": capped.model_copy(update={"max_weight": {"any": 5_000, "WETH": 9_000}})}),
    ):
        with pytest.raises(Refused) as refused:
            require_no_widening(config, config.model_copy(update=changes))
        assert refused.value.verdicts[0].measured_text == key
    fewer = {"portfolio": portfolio.model_copy(update={"assets": portfolio.assets[:1]})}
    require_no_widening(config, config.model_copy(update=fewer))
    lower = {"limits": capped.model_copy(update={"max_weight": {"any": 5_000, "WETH": 4_000}})}
    require_no_widening(config, config.model_copy(update=lower))


# --- Alerts.


def test_refused_and_failed_controls__alert_once_a_reason() -> None:
    def event(number: int, state: str, code: str) -> ControlEvent:
        return ControlEvent(number, "x", "evil", "api", "mallory", state, code, "buy http://evil", 5)

    events = [
        event(1, "queued", ""), event(2, "refused", "seal"), event(3, "refused", "seal"), event(4, "failed", "interrupted"),
        event(5, "done", ""), event(6, "refused", "see http://evil"), event(7, "expired", "expired"),
    ]  # fmt: skip
    alerts = control_alerts(events)
    assert [alert.key for alert in alerts] == ["control:x", "control:refused:seal", "control:failed:interrupted", "control:refused:"]
    assert alerts[1].text.startswith("2 controls")
    assert not any("evil" in alert.text or "mallory" in alert.text for alert in alerts)
    assert control_alerts(events[:1]) == ()


def test_a_store_that_cannot_be_opened_is_paused_by_its_file(config: Path) -> None:
    (config.parent / "mine.db").write_text("not a store")
    (config.parent / "mine.db").chmod(0o600)
    submitted(config, "pause")
    assert (config.parent / "mine.db.paused").exists()
    with raises_code(OperatorNeeded, "store"):
        submitted(config, "pause", ("hard", "yes"))


def test_pause__that_cannot_be_recorded_says_that_it_took_effect(config: Path, queue_store: Store) -> None:
    ensure_secret(config.parent / "mine.db")
    secret_path(config.parent / "mine.db").chmod(0o644)
    with pytest.raises(PassingFault, match="paused, but the request is not recorded: secret: others may read"):
        submitted(config, "pause")
    assert queue_store.pause_switch.read().paused
    assert queue_store.controls.events() == ()


def unreadable(*_: object) -> None:
    raise PassingFault("read the controls: database is locked")


@pytest.mark.parametrize("key", ["", "a key"], ids=["no key", "key"])
def test_pause__needs_no_readable_log(config: Path, queue_store: Store, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setattr(ControlStore, "find", unreadable)
    submitted(config, "pause", key=key)
    assert queue_store.pause_switch.read().paused
    assert [event.state for event in queue_store.controls.events()] == ["done"]


@pytest.mark.parametrize(("is_paper", "command"), [(True, "trimtab paper"), (False, "trimtab run --send")], ids=["paper", "live"])
def test_expired_control__names_the_run_that_would_take_it(config: Path, is_paper: bool, command: str) -> None:
    source = PaperConfig(config) if is_paper else config
    submission = ControlSubmission(ControlKind.RESUME, (), "owner", ControlOrigin.CLI)
    control = queue.submit_control(source, submission, now=lambda: 5_000)
    document = queue.find_control(source, control.id)
    assert document["reason"] == f"no run took it in its time: start {command}, then ask again"
    assert queue.list_controls(source)["controls"] == [document]


def test_served__on_a_database_that_does_not_answer_is_unknown(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock file of this machine says nothing about the others."""
    monkeypatch.setattr(queue, "sqlite_path", lambda _: None)
    monkeypatch.setattr(queue.wiring, "open_store_offline", unreadable)
    monkeypatch.setattr(queue, "is_service_locked", lambda _: True)
    assert not queue.is_served(load_config(config))


def test_pause__with_the_key_of_an_earlier_one_is_that_one(config: Path) -> None:
    first = submitted(config, "pause", key="a key")
    assert submitted(config, "pause", key="a key") == first


# --- What binds of a plan.


def planned(step: StepInput | None = None, **changes: object) -> StepOutcome:
    """Return the outcome of a step that sells WETH, with these fields of its plan."""
    outcome = plan_step_input(step or builders.step_input(values={"WETH": 7_000, "USDC": 3_000}))
    assert outcome.plan is not None
    assert outcome.plan.legs
    return replace(outcome, plan=replace(outcome.plan, **changes))  # type: ignore[arg-type]  # fields by name


def shown_rebalance(**changes: object) -> ShownPlan:
    """Return what is shown of that step, with these fields of its plan."""
    return shown_step(ControlKind.REBALANCE, planned(**changes))


def test_amounts__are_the_wallet_s_within_a_twentieth() -> None:
    outcome = planned()
    plan = outcome.plan
    prices = reference_prices(outcome.step_input).price_by_token
    assert plan is not None
    shown_plan = shown_step(ControlKind.REBALANCE, outcome)
    assert {name: raw for name, raw, _ in shown_plan.amounts} == plan.wallet_changes()
    for name, _, tolerance in shown_plan.amounts:
        assert tolerance <= plan.turnover / 20 / prices[name] < tolerance + 1
    assert shown_plan.difference(shown_step(ControlKind.REBALANCE, outcome)) == ""
    assert format_moves(shown_plan, outcome.step_input.portfolio)[0].split()[1] in ("WETH", "USDC")


def native_steps() -> tuple[StepInput, StepInput]:
    """Two steps of a wallet of native coin that sells some of it, at blocks with other prices."""
    step = builders.step_input(values={"WETH": 7_000, "USDC": 3_000})
    weth = step.portfolio.asset(step.portfolio.wrapped_native)
    portfolio = replace(step.portfolio, assets=tuple(replace(asset, includes_native=asset == weth) for asset in step.portfolio.assets))
    holdings = tuple(replace(holding, raw=0) if holding.token == weth.token.address else holding for holding in step.snapshot.holdings)
    (weth_raw,) = (holding.raw for holding in step.snapshot.holdings if holding.token == weth.token.address)
    first, second = (
        replace(step, portfolio=portfolio, snapshot=replace(step.snapshot, holdings=holdings, native_wei=weth_raw + more_wei))
        for more_wei in (10**18, 10**18 + 10**15)
    )
    return first, second


def test_sale_of_native_coin__is_shown_in_coins_and_binds_like_its_wrapped_token() -> None:
    first, second = (shown_step(ControlKind.REBALANCE, planned(step)) for step in native_steps())
    (native_raw, tolerance) = next((raw, tolerance) for name, raw, tolerance in first.amounts if name == NATIVE)
    assert first.amounts != second.amounts
    assert first.difference(second) == ""
    assert 0 < tolerance <= abs(native_raw) // 20 + 1
    assert f"{decimal_text(native_raw, 18)} native" in format_moves(first, native_steps()[0].portfolio)


@pytest.mark.parametrize(("payout_address", "moves"), [("0xHome", ["pay 50 USDC"]), (None, ["set aside 50 USDC"])], ids=["paid", "kept"])
def test_shown_withdrawal__says_pay_only_with_an_address(payout_address: str | None, moves: list[str]) -> None:
    step = builders.step_input(values={"WETH": 7_000, "USDC": 3_000})
    payment = Payment(step.portfolio.numeraire.address, 50 * 10**6)
    plan = shown_withdrawal((), WithdrawalReport(step, (payment,), payout_address, None, (), WithdrawalState.PLANNED, ""))
    texts = format_moves(plan, step.portfolio)
    assert shown_plan_document(plan, {}, texts)["moves"] == moves
    assert shown_plan_document(plan, {}, texts, "limits.payout_per_day")["moves"] == []


@pytest.mark.parametrize(
    ("action", "move"),
    [(MarginDeposit(50 * 10**6), "margin deposit 50 USDC"), (MarginWithdrawal(5 * 10**5), "margin withdrawal 0.5 USDC")],
    ids=["deposit", "withdrawal"],
)
def test_margin__is_shown_in_coins_of_its_collateral(action: MarginDeposit | MarginWithdrawal, move: str) -> None:
    outcome = planned(layers=(FuturesPlan((), "drift", "", (action,)),))
    step = with_policy(outcome.step_input, replace(FUTURES_POLICY, collateral=outcome.step_input.portfolio.numeraire.address))
    assert move in format_moves(shown_step(ControlKind.REBALANCE, replace(outcome, step_input=step)), step.portfolio)


@pytest.mark.parametrize(
    ("account", "moves"),
    [
        (book(10_000, 2 * E18), ["futures -1.5 ETH", "futures reduce 0.5 ETH"]),
        (None, [f"futures ETH {-3 * E18 // 2}", f"futures ETH reduce {E18 // 2}"]),
    ],
    ids=["known account", "unknown account"],
)
def test_orders__are_shown_in_coins_of_their_market(account: MarginAccount | None, moves: list[str]) -> None:
    orders = (
        PerpOrder("ETH", -3 * E18 // 2, PerpOrderKind.MARKET, 1, False),
        PerpOrder("ETH", E18 // 2, PerpOrderKind.MARKET, 1, True),
    )
    outcome = planned(layers=(FuturesPlan(orders, "drift", ""),))
    texts = format_moves(shown_step(ControlKind.REBALANCE, outcome), outcome.step_input.portfolio, account)
    assert [text for text in texts if text.startswith("futures")] == moves


def test_unseen_liquidity_futures_and_delegates__are_differences() -> None:
    shown_plan = shown_rebalance()
    collect = Collect("uniswap_v3", "0xManager", 7, "0xPool", "0xA", "0xB", (1_000, 2_000), 90_000, "fees")

    def futures(*orders: PerpOrder, account: tuple[MarginDeposit | DelegateChange, ...] = ()) -> FuturesPlan:
        return FuturesPlan(orders, "leverage", "", account)

    order = PerpOrder("0xMarket", 1_000, PerpOrderKind.MARKET, 1, False)
    for changes, named in (
        ({"layer_actions": (collect,)}, "collect uniswap_v3 #7 0xA"),
        ({"layers": (futures(order),)}, "futures 0xMarket"),
        ({"layers": (futures(account=(MarginDeposit(5),)),)}, "margin deposit"),
        ({"layers": (futures(account=(DelegateChange("0xD", True),)),)}, "delegate"),
    ):
        other = shown_rebalance(**changes)
        assert shown_plan.difference(other).startswith(named)
        assert other.difference(shown_plan).startswith(named)
        assert other.difference(other) == ""
    before = shown_rebalance(layers=(futures(order),))
    assert before.difference(shown_rebalance(layers=(futures(replace(order, size_raw=1_050)),))) == ""
    assert before.difference(shown_rebalance(layers=(futures(replace(order, size_raw=1_051)),))).startswith("futures 0xMarket")
    assert before.difference(shown_rebalance(layers=(futures(replace(order, is_reduce_only=True)),))).startswith("futures 0xMarket")


@pytest.mark.parametrize("outcome", ["hold", "done", "paid"])
def test_control_that_traded_nothing__says_so_and_why(outcome: str) -> None:
    check = runner.PlanCheck(PLAN, lambda: False)
    assert check.accept(PLAN, lambda: True)
    end = runner._control_end(1, runner.ControlResult(outcome, "all within their ranges"), check)
    assert end.state is ControlState.DONE
    assert end.reason == ("nothing was traded: all within their ranges" if outcome == "hold" else "all within their ranges")


def test_shown_plan_that_a_hold_replaced__is_not_done() -> None:
    end = runner._control_end(1, runner.ControlResult("hold", "a cycle has traded since"), runner.PlanCheck(PLAN, lambda: False))
    assert (end.state, end.reason) == (ControlState.REFUSED, "the confirmed plan was not carried out: a cycle has traded since")


@pytest.mark.parametrize(
    ("kind", "status", "created_s", "is_named"),
    [
        (IntentKind.SWAP, 1, 5, True),
        (IntentKind.FUTURES, 1, 9, True),
        (IntentKind.SWAP, 1, 4, False),
        (IntentKind.SWAP, 0, 9, False),
        (IntentKind.APPROVE, 1, 9, False),
    ],
    ids=["swap", "order", "before it was shown", "reverted", "approval"],
)
def test_trade_since_a_plan_was_shown__is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch, kind: IntentKind, status: int, created_s: int, is_named: bool
) -> None:
    tx_hash = f"0x12ab{'0' * 56}34cd"
    intent = Intent("i", "s", kind, IntentState.MINED, tx(0), "", created_s, None, tx_hash, receipt(tx_hash, 1, "0x1", status))
    monkeypatch.setattr(type(store.journal), "intents", lambda _: (intent,))
    trade_text = runner._trade_since(store, PLAN.shown_at_s)
    assert trade_text.startswith("a cycle has traded since the plan was shown, at 1970-01-01") is is_named
    assert (" in transaction 0x12ab…34cd; now " in trade_text) is is_named


@pytest.mark.parametrize("outcome", ["declined", "failed", "hold"])
@pytest.mark.parametrize("kinds", [(), (IntentKind.APPROVE,)], ids=["nothing", "approval"])
def test_confirmed_plan_that_traded_nothing__is_not_done(outcome: str, kinds: tuple[IntentKind, ...]) -> None:
    end = end_with_further_plan(outcome, *kinds)
    assert end.state is (ControlState.FAILED if kinds or outcome == "failed" else ControlState.REFUSED)
    assert "not carried out" in end.reason
    assert "simulation refused WETH" in end.reason


@pytest.mark.parametrize(
    ("outcome", "state"), [("done", ControlState.DONE), ("declined", ControlState.DONE), ("failed", ControlState.FAILED)]
)
@pytest.mark.parametrize("kind", [IntentKind.SWAP, IntentKind.LIQUIDITY, IntentKind.FUTURES])
def test_confirmed_plan_before_another__ends_with_its_reason(outcome: str, state: ControlState, kind: IntentKind) -> None:
    end = end_with_further_plan(outcome, IntentKind.APPROVE, kind)
    assert end.state is state
    assert "simulation refused WETH" in end.reason
    assert ("remainder" in end.reason) is (state is ControlState.DONE)


def end_with_further_plan(outcome: str, *kinds: IntentKind) -> ControlStateChange:
    check = runner.PlanCheck(PLAN, lambda: False)
    assert check.accept(PLAN, lambda: True)
    assert not check.accept(PLAN, lambda: True)
    intents = tuple(Intent("i", "s", kind, IntentState.FINAL, tx(0), "", 0, None, "0x1", receipt("0x1", 1, "0x1")) for kind in kinds)
    return runner._control_end(1, runner.ControlResult(outcome, "simulation refused WETH", intents), check)
