"""[alerts] in trimtab.toml: mistakes are named, addresses stand in the environment and are secrets."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apprise
import pytest
import tomlkit

from agent.app import alert_channels
from agent.app.settings.devices import require_usable_targets
from agent.config.load import load_config, parse_config
from agent.config.tables.alerts import EVENTS, AlertsTable
from agent.config.variables import VARIABLES_KEY, Variables
from agent.errors import ConfigError
from agent.model import AlertKind, AlertMessage
from agent.observe.notify import drain_channels
from agent.store.opening import open_store
from tests.support import agents
from tests.support.alert_receivers import ReceivedMessages, webhook
from tests.support.configs.samples import config_text
from tests.support.pages_of_docs import FENCE
from tests.support.text import raises_field


def with_alerts(block: str) -> str:
    """The template's config with this table in place of its own."""
    document = tomlkit.parse(config_text())
    document.pop("alerts")
    return f"{tomlkit.dumps(document)}\n{block}"


def portfolio_with(folder: Path, targets: dict[str, str], *, has_key: bool = False, **alerts: object) -> Path:
    """Write a config whose targets have these variables by name, with more keys of [alerts], and with a key in place of a keystore."""
    file = agents.config(folder)
    document: Any = tomlkit.parse(file.read_text())
    if has_key:
        del document["wallet"]["keystore"]
        document["wallet"]["key_env"] = "KEY"
    document["alerts"] |= alerts | {"targets": [{"name": name, "url_env": variable} for name, variable in targets.items()]}
    file.write_text(tomlkit.dumps(document))
    return file


def set_variables(folder: Path, **values: str) -> None:
    """Set variables in the folder's .env."""
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    (folder / ".env").chmod(0o600)


def alerts_table(table: dict[str, object], **variables: str) -> AlertsTable:
    return AlertsTable.model_validate(table, context={VARIABLES_KEY: Variables(variables)})


def test_every_long_part_of_an_address_is_taken_out_of_log_lines() -> None:
    address = "tgram://123456789:AAF-secret-token/87654321/?format=text"
    secrets = set(alerts_table({"targets": [{"name": "chat", "url_env": "T"}]}, T=address).secrets())
    assert {"123456789", "AAF-secret-token", "87654321"} <= secrets


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"targets": [{"name": "a", "url": "json://x"}]}, "url"),
        ({"targets": [{"name": "a", "url_env": "https://hooks.example/canary"}]}, "url_env"),
        ({"targets": [{"name": "a b", "url_env": "A"}]}, "name"),
        ({"targets": [{"name": "a", "url_env": "A"}, {"name": "a", "url_env": "B"}]}, "given twice"),
        ({"targets": [{"name": "a", "url_env": "A", "events": ["halt"]}], "events": ["price"]}, "alerts.events does not"),
        ({"events": ["weather"]}, "events"),
        ({"quiet": "22:00-07:00"}, "timezone"),
        ({"quiet": "25:00-07:00", "timezone": "UTC"}, "not a daily time span"),
        ({"quiet": "07:00-07:00", "timezone": "UTC"}, "not a daily time span"),
        ({"quiet": "22:00-07:00", "timezone": "Europe/Atlantis"}, "unknown time zone"),
        ({"timezone": "UTC"}, "without quiet hours"),
        ({"urgent": ["halt"]}, "without quiet hours"),
        (
            {"urgent": ["halt"], "events": ["error"], "quiet": "22:00-07:00", "timezone": "UTC"},
            "urgent has 'halt', but alerts.events does not",
        ),
        ({"cooldowns": {"halt": "1h"}, "events": ["error"]}, "cooldowns has 'halt', but alerts.events does not"),
        ({"timeout": "0s"}, "timeout"),
        ({"timeout": "1h"}, "timeout"),
        ({"attempts": 0}, "attempts"),
        ({"digest": "month"}, "digest"),
        ({"digest": "day", "events": ["halt"]}, "does not have 'digest'"),
        ({"cooldown": "soon"}, "cooldown"),
        ({"cooldowns": {"weather": "1h"}}, "cooldowns"),
        ({"label": "<b>"}, "label"),
    ],
)
def test_a_mistake_in_the_table_is_named(table: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(with_alerts(tomlkit.dumps({"alerts": table})))
    assert words in str(refused.value)
    assert "canary" not in str(refused.value)


def test_a_variable_that_is_not_set_is_named_when_the_run_begins(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'trimtab.db'}", 31337, "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266")
    table = alerts_table({"targets": [{"name": "a", "url_env": "NOT_SET"}]}, SET="json://x")
    with raises_field("alerts.targets.url_env", "NOT_SET"):
        alert_channels.open_notifier(table, store.alerts, lambda _: None)
    assert alert_channels.open_notifier(AlertsTable(), store.alerts, lambda _: None) is None
    store.close()


def test_rules_are_those_of_the_table() -> None:
    table = {"events": ["halt", "error"], "cooldown": "5m", "cooldowns": {"error": "2m"}, "repeat": "1d"}
    rules = alert_channels.alert_rules(alerts_table(table))
    assert rules.kinds == {AlertKind.HALT, AlertKind.ERROR}
    assert (rules.cooldown_s, rules.cooldown_s_by_kind, rules.repeat_s) == (300, {AlertKind.ERROR: 120}, 86_400)


@pytest.mark.parametrize(("table", "key"), [("alerts", "low_gas"), ("limits", "native_floor")])
def test_low_gas__too_many_decimals_are_named_by_their_own_key(table: str, key: str) -> None:
    document = tomlkit.parse(config_text())
    document.setdefault(table, {})[key] = "0.0" + 18 * "1"
    with raises_field(f"{table}.{key}", "more than 18 decimal places"):
        alert_channels.low_gas_wei(SimpleNamespace(config=parse_config(tomlkit.dumps(document))))  # type: ignore[arg-type]  # of a LoadedConfig


def test_low_gas__is_reported_below_its_limit_or_the_floor() -> None:
    document = tomlkit.parse(config_text())
    document["limits"]["native_floor"] = "0.01"  # type: ignore[index]  # a table
    assert alert_channels.low_gas_wei(SimpleNamespace(config=parse_config(tomlkit.dumps(document)))) == 10**16  # type: ignore[arg-type]  # of a LoadedConfig
    document["alerts"] = {"low_gas": "0.05"}
    assert alert_channels.low_gas_wei(SimpleNamespace(config=parse_config(tomlkit.dumps(document)))) == 5 * 10**16  # type: ignore[arg-type]  # of a LoadedConfig


def test_sink_that_apprise_lacks_is_one_function() -> None:
    received = []

    @apprise.decorators.notify(on="noticeboard")
    def _pin_up(body: str, title: str, *_args: object, **_more: object) -> None:
        received.append((title, body))

    board = {"name": "board", "url_env": "BOARD", "events": ["halt"]}
    table = alerts_table({"targets": [board]}, BOARD="noticeboard://office")
    (subscription,) = alert_channels.open_subscriptions(table, None)
    assert subscription.kinds == {AlertKind.HALT}
    subscription.channel.put(AlertMessage(0, "board", AlertKind.HALT, "prices are stale", 1))
    assert [delivery.failure_reason for delivery in drain_channels([subscription.channel], 30)] == [""]
    assert received == [("trimtab: halted", "prices are stale")]


def test_docs_have_a_row_for_each_event() -> None:
    page = (Path(__file__).parents[3] / "docs" / "alerts.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(EVENTS)


def test_the_template_and_the_docs_show_a_table_that_can_be_read() -> None:
    page = (Path(__file__).parents[3] / "docs" / "alerts.md").read_text(encoding="utf-8")
    blocks = [block for language, block in FENCE.findall(page) if language == "toml"]
    assert blocks
    for block in blocks:
        assert parse_config(with_alerts(block)).alerts.targets


@pytest.mark.parametrize(
    ("variable", "address", "words"),
    [
        ("HOOK", "", "environment variable HOOK is not set"),
        ("HOOK", "https://canary.example", "has no address supported by apprise"),
        ("KEY", "json://canary.example", "KEY of mail holds a key"),
        ("TRIMTAB_KEYSTORE_PASSWORD", "json://canary.example", "holds a key"),
        ("HOOK", "json://canary.example", ""),
    ],
    ids=["unset", "no address", "key", "password", "usable"],
)
def test_targets_of_a_control__need_an_address_in_their_variable(tmp_path: Path, variable: str, address: str, words: str) -> None:
    file = portfolio_with(tmp_path, {"mail": variable}, has_key=True)
    set_variables(tmp_path, **{variable: address})
    loaded = load_config(file)
    with pytest.raises(ConfigError, match=words) if words else nullcontext() as refused:
        require_usable_targets(loaded)
    assert "canary" not in str(refused)


def test_test_of_one_target__is_sent_to_it_alone(tmp_path: Path) -> None:
    box = ReceivedMessages()
    other = ReceivedMessages()
    file = portfolio_with(tmp_path, {"mail": "A", "phone": "B"})
    with webhook(box) as address, webhook(other) as other_address:
        set_variables(tmp_path, A=address, B=other_address)
        delivered = {"name": "phone", "delivered": True, "why": ""}
        assert alert_channels.send_test_alerts(file, "phone") == {"reached": True, "targets": [delivered]}
    assert (len(box.items), [item["text"] for item in other.items]) == (0, [alert_channels.TEST_MESSAGE])


def test_test_of_an_unknown_target__names_it_and_those_there_are(tmp_path: Path) -> None:
    file = portfolio_with(tmp_path, {"mail": "A", "phone": "B"})
    with raises_field("alerts.targets", "'fone'") as refused:
        alert_channels.send_test_alerts(file, "fone")
    assert refused.value.remedy == "choose from mail, phone"


@pytest.mark.parametrize("attempts", [1, 6, 10])
def test_test_of_a_refusing_target__says_so(tmp_path: Path, attempts: int) -> None:
    file = portfolio_with(tmp_path, {"mail": "A"}, timeout="1s", attempts=attempts)
    box = ReceivedMessages(failing=20)
    with webhook(box) as address:
        set_variables(tmp_path, A=address)
        [target] = alert_channels.send_test_alerts(file)["targets"]
    assert (target["why"], box.tries) == ("not accepted", 1)
