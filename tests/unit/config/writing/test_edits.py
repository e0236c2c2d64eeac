"""Edits of a config's text keep every comment, say what is not there, and hide what is secret from the versions that are kept."""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent.app.settings.shown import settings_document
from agent.config.load import parse_config
from agent.config.networks.presets import ETHEREUM_PRESET, TemplateAsset
from agent.config.redaction import config_diff, redacted_text
from agent.config.writing.config_file import write_config
from agent.config.writing.edits import ConfigChanges, apply_changes, parse_changes
from agent.config.writing.template import render_config
from agent.errors import ConfigError
from agent.foreign_text import read_toml
from tests.support.bands import with_bands

WETH, WBTC, USDC, LINK = (next(t for t in ETHEREUM_PRESET.tokens if t.symbol == symbol) for symbol in ("WETH", "WBTC", "USDC", "LINK"))
ASSETS = [TemplateAsset(t.symbol, t.address, share, t.feed) for t, share in ((WETH, "50%"), (WBTC, "20%"), (USDC, "30%"))]
TEXT = with_bands(render_config(ETHEREUM_PRESET, "0x" + "11" * 20, ASSETS, [], "USDC", [("RPC_A", "one"), ("RPC_B", "two")]))
KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
PHRASE = "legal winner thank year wave sausage worth useful legal winner thank yellow"


def edited(**options: list[str]) -> str:
    options_given = {"sets": [], "targets": [], "adds": [], "removes": []} | options
    return apply_changes(
        TEXT, parse_changes(options_given["sets"], options_given["targets"], options_given["adds"], options_given["removes"])
    )


def comments(text: str) -> list[str]:
    return [line[line.index("#") :] for line in text.splitlines() if "#" in line]


def test_parameters_weights_and_tokens__change_and_comments_stay() -> None:
    text = edited(
        sets=["policy.cooldown=2h", "policy.trigger.relative=15%", "limits.turnover=off", "portfolio.assets.WETH.reserve=1.5"],
        targets=["WETH=40%", "USDC=25%"],
        adds=[f"LINK={LINK.address}:15%"],
    )
    assert comments(text) == comments(TEXT)
    config = parse_config(text)
    assert (config.policy.cooldown, config.policy.trigger.relative, config.limits.turnover) == (7_200, 1_500, None)  # type: ignore[union-attr]
    assert [(a.symbol, a.target, a.reserve) for a in config.portfolio.assets] == [
        ("WETH", 4_000, "1.5"), ("WBTC", 2_000, "0"), ("USDC", 2_500, "0"), ("LINK", 1_500, "0"),
    ]  # fmt: skip
    assert config.portfolio.assets[3].feed == LINK.feed
    gone = [line for line in difflib.unified_diff(TEXT.splitlines(), text.splitlines(), n=0, lineterm="") if re.match("-[^-]", line)]
    assert len(gone) == 6, "nothing but the lines of these keys changed"


def test_a_text_in_quotes_replaces_a_text_without_them() -> None:
    once = edited(sets=['portfolio.assets.WETH.band="10%rel"'])
    twice = apply_changes(once, parse_changes(['portfolio.assets.WETH.band="15%rel"'], [], [], []))
    assert [tomllib.loads(text)["portfolio"]["assets"][0]["band"] for text in (once, twice)] == ["10%rel", "15%rel"]
    assert edited(sets=['policy.cooldown="2h"']) == edited(sets=["policy.cooldown=2h"])


READ_ONLY_SETTINGS = {"portfolio.weights", "execution.submit_url", "chain.rpc", "chain.quorum", "chain.explorer", "wallet.payout_addresses"}
"""Settings that are shown in words, and have no such key or a value of another form."""


@pytest.mark.parametrize("quote", ["", '"'], ids=["command", "form"])
def test_each_setting_is_read_as_it_is_shown(tmp_path: Path, quote: str) -> None:
    path = tmp_path / "trimtab.toml"
    text = apply_changes(
        TEXT, parse_changes(["limits.head_age=75s", "limits.first_purchase=2h", "limits.pool_min_value=12345.5"], [], [], [])
    )
    path.write_text(text)
    settings = [setting for section in settings_document(path)["sections"] for setting in section["settings"]]
    editable = [setting for setting in settings if setting["key"] not in READ_ONLY_SETTINGS]
    assert {"1 min 15 s", "2 h", "0.05 native", "10 USDC", "feed, twap"} <= {setting["value"] for setting in editable}
    for setting in editable:
        for value_text in (setting["value"], setting["value"].replace("%", "\u00a0%")):
            edited_text = apply_changes(text, parse_changes([f"{setting['key']}={quote}{value_text}{quote}"], [], [], []))
            assert parse_config(edited_text) == parse_config(text), setting


@pytest.mark.parametrize(
    "assignment",
    [
        "limits.min_trade=10 native",
        "limits.min_trade=1,000",
        "limits.min_trade=1,00 USDC",
        "limits.gas_per_day=0.05 USDC",
        "portfolio.use_cash=5 WETH",
        "portfolio.assets.WETH.reserve=100 USDC",
    ],
)
def test_amount_in_another_coin_is_refused(assignment: str) -> None:
    with pytest.raises(ConfigError, match="is not an amount"):
        parse_config(apply_changes(TEXT, parse_changes([assignment], [], [], [])))


@pytest.mark.parametrize(("shown", "stored"), [("1,000 USDC", "1000"), ("1,234,567.5 USDC", "1234567.5"), ("1.25 USDC", "1.25")])
def test_amount_is_read_with_the_separators_that_the_page_shows(shown: str, stored: str) -> None:
    text = apply_changes(TEXT, parse_changes([f"limits.min_trade={shown}"], [], [], []))
    assert tomllib.loads(text)["limits"]["min_trade"] == stored


def test_reserve_is_read_in_its_own_coin() -> None:
    """A reserve of 100 USDC of WETH would else be one of 100 WETH."""
    text = apply_changes(
        TEXT, parse_changes(["portfolio.assets.WETH.reserve=1.5 WETH", "portfolio.assets.USDC.reserve=7 USDC"], [], [], [])
    )
    assets = tomllib.loads(text)["portfolio"]["assets"]
    assert {asset["symbol"]: asset["reserve"] for asset in assets if asset["reserve"] != "0"} == {"WETH": "1.5", "USDC": "7"}


@pytest.mark.parametrize("key", ["stop_loss", "take_profit", "trailing_stop"])
def test_order_of_the_portfolio__is_set_by_the_name_that_the_config_has(key: str) -> None:
    text = edited(sets=[f"portfolio.orders.{key}=20%"])
    parse_config(text)
    assert read_toml(text)["portfolio"]["orders"] == {key: "20%"}
    assert comments(text) == comments(TEXT)


def test_a_token_is_removed_with_its_lines_alone() -> None:
    text = edited(removes=["WBTC"], targets=["WETH=70%"])
    assert [a.symbol for a in parse_config(text).portfolio.assets] == ["WETH", "USDC"]
    assert set(comments(TEXT)) == set(comments(text)), "comments behind it stay"
    last = apply_changes(TEXT, ConfigChanges(removed_symbols=("USDC",)))
    assert "[reference]" in last
    assert [a["symbol"] for a in tomllib.loads(last)["portfolio"]["assets"]] == ["WETH", "WBTC"]


@pytest.mark.parametrize(
    ("sets", "table"),
    [
        (["portfolio.orders.stop_loss=20%"], {"portfolio": {"orders": {"stop_loss": "20%"}}}),
        (["tax.method=fifo", "tax.year_limit=off"], {"tax": {"method": "fifo", "year_limit": "off"}}),
        (["alerts.digest=day"], {"alerts": {"digest": "day"}}),
    ],
    ids=["orders", "tax", "digest"],
)
def test_table_that_is_only_a_comment__is_added(sets: list[str], table: dict[str, Any]) -> None:
    text = edited(sets=sets)
    parse_config(text)
    document = tomllib.loads(text)
    ((name, keys),) = table.items()
    assert keys.items() <= document[name].items()
    assert set(comments(TEXT)) == set(comments(text))


def test_added_table_that_lacks_a_key__is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match=r"telegram\.token_env"):
        parse_config(edited(sets=["telegram.chats=[4711]"]))


def test_what_does_not_validate_is_refused_whole() -> None:
    for options, why in (
        ({"targets": ["WETH=60%"]}, "targets sum to 110 %"),
        ({"sets": ["policy.cooldwon=2h"]}, "unknown key"),
        ({"sets": ["policy.cooldown=soon"]}, "not a duration"),
        ({"removes": ["USDC"], "targets": ["WETH=80%"]}, "numeraire"),
        ({"sets": ["limits.daily_loss=2"]}, "daily_loss"),
    ):
        with pytest.raises(ConfigError, match=why):
            parse_config(edited(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"targets": ["DOGE=10%"]}, "not an asset"),
        ({"targets": ["WETH=forty"]}, "WETH"),
        ({"removes": ["DOGE"]}, "not an asset"),
        ({"adds": [f"LINK={LINK.address}"]}, "share is missing"),
        ({"adds": ["LINK=0x12:10%"]}, "not an address"),
        ({"adds": [f"WETH={LINK.address}:10%"]}, "already an asset"),
        ({"adds": [f"CHAIN={WBTC.address}:10%"]}, "already an asset"),
        ({"adds": ["LINK=0x" + "22" * 20 + ":10%"]}, "the known token with that symbol"),
        ({"adds": ["L1NK=0x" + "22" * 20 + ":10%"]}, "looks like"),
        ({"adds": ["[red]x=0x" + "22" * 20 + ":10%"]}, "symbol"),
        ({"sets": ["policy.nowhere.key=1"]}, "there is no 'nowhere'"),
        ({"sets": ["portfolio.assets.DOGE.reserve=1"]}, "there is no 'DOGE'"),
        ({"sets": ["portfolio.assets=1"]}, None),
        ({"sets": ["limits"]}, "invalid form"),
        ({"sets": ["wallet.payout_addresses="]}, "wallet.payout_addresses has no value"),
        ({"targets": ["WETH="]}, "WETH has no value"),
    ],
)
def test_what_is_not_there_or_not_understood_is_said(options: dict[str, list[str]], why: str | None) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_config(edited(**options))


def edited_in_turn(*sets: str, text: str = TEXT) -> str:
    """The text after these edits one after another, each of which gives a valid config."""
    for assignment in sets:
        text = apply_changes(text, parse_changes([assignment], [], [], []))
        parse_config(text)
    return text


def target_tables(*sets: str, text: str = TEXT) -> list[dict[str, object]]:
    targets: list[dict[str, object]] = tomllib.loads(edited_in_turn(*sets, text=text))["alerts"].get("targets", [])
    return targets


MAIL = "alerts.targets.mail.url_env=TRIMTAB_MAIL"
PHONE = 'alerts.targets.my.phone.url_env="P"'


@pytest.mark.parametrize(
    ("sets", "tables"),
    [
        ([MAIL], [{"name": "mail", "url_env": "TRIMTAB_MAIL"}]),
        ([MAIL, PHONE], [{"name": "mail", "url_env": "TRIMTAB_MAIL"}, {"name": "my.phone", "url_env": "P"}]),
        ([PHONE, 'alerts.targets.my.phone.events="error, halt"'], [{"name": "my.phone", "url_env": "P", "events": ["error", "halt"]}]),
        ([MAIL, "alerts.targets.mail.events=error", "alerts.targets.mail.events=all"], [{"name": "mail", "url_env": "TRIMTAB_MAIL"}]),
        ([MAIL, PHONE, "alerts.targets.mail=off"], [{"name": "my.phone", "url_env": "P"}]),
        ([MAIL, 'alerts.targets.mail="off"'], []),
    ],
    ids=["new", "beside another", "events", "all events", "one removed", "last removed"],
)  # fmt: skip
def test_alert_targets__are_added_changed_and_removed_by_name(sets: list[str], tables: list[dict[str, object]]) -> None:
    assert target_tables(*sets) == tables
    assert comments(edited_in_turn(*sets)) == comments(TEXT)


@pytest.mark.parametrize("assignment", ["alerts.targets.mail=off", "alerts.targets.mail.colour=red", "alerts.targets.url_env=P"])
def test_alert_target_that_is_not_there__is_refused(assignment: str) -> None:
    with pytest.raises(ConfigError, match="no such alert target"):
        target_tables(assignment)


def test_alert_target_in_a_line__gets_another_beside_it() -> None:
    text = TEXT.replace("[alerts]", '[alerts]\ntargets = [{ name = "a", url_env = "A" }]')
    assert [target["name"] for target in target_tables(MAIL, text=text)] == ["a", "mail"]


def test_a_symbol_or_name_with_a_dot_is_one_name() -> None:
    text = TEXT.replace('symbol = "WBTC"', 'symbol = "USDC.e"')
    text += '\n[[strategies]]\nname = "a.b"\nweights = { WETH = "50%", "USDC.e" = "50%" }\n'
    text += 'limits = { USDC = { min = "1%" }, "USDC.e" = { min = "1%" } }\n'
    sets = [
        "portfolio.assets.USDC.e.reserve=7",
        "portfolio.assets.USDC.reserve=8",
        "strategies.a.b.share=9%",
        "strategies.a.b.weights.USDC.e=1%",
        "strategies.a.b.limits.USDC.e.max=2%",
        "strategies.a.b.limits.USDC.max=3%",
    ]
    document = tomllib.loads(apply_changes(text, parse_changes(sets, [], [], [])))
    assert {asset["symbol"]: asset["reserve"] for asset in document["portfolio"]["assets"]} == {"WETH": "0", "USDC.e": "7", "USDC": "8"}
    (strategy,) = document["strategies"]
    assert strategy.pop("limits") == {"USDC": {"min": "1%", "max": "3%"}, "USDC.e": {"min": "1%", "max": "2%"}}
    assert strategy == {"name": "a.b", "share": "9%", "weights": {"WETH": "50%", "USDC.e": "1%"}}


def test_wrong_checksum__is_shown_with_the_right_one() -> None:
    wrong = LINK.address[:-1] + LINK.address[-1].swapcase()
    with pytest.raises(ConfigError, match=rf"{wrong}.*checksum.*{LINK.address}"):
        parse_changes([], [], [f"LINK={wrong}:10%"], [])
    for spelt in (LINK.address.lower(), "0x" + LINK.address[2:].upper()):
        assert parse_changes([], [], [f"LINK={spelt}:10%"], []).added_assets[0][1] == LINK.address


def test_an_address_without_quotes_is_told_to_need_them() -> None:
    bare = TEXT.replace(f'address = "{WETH.address}"', f"address = {WETH.address}")
    with pytest.raises(ConfigError, match=rf"portfolio\.assets\.WETH\.address.*{WETH.address.lower()} is a number.*quotes"):
        parse_config(bare)


def test_an_address_that_is_set_stays_a_text() -> None:
    text = edited(sets=[f"portfolio.assets.USDC.feed_of_old={LINK.address}", f"execution.rebalancer={LINK.address}"])
    document = tomllib.loads(text)
    assert document["portfolio"]["assets"][2]["feed_of_old"] == document["execution"]["rebalancer"] == LINK.address


@pytest.mark.parametrize(
    "arguments",
    ["chain.rpc.0.url=https://rpc.example/v1/canary7f3a", f"wallet.key_env={KEY}", "execution.submit_url=x", f"wallet.keystore={PHRASE}"],
)
def test_secret_on_the_command_line__is_refused_unrepeated(arguments: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_changes([arguments], [], [], [])
    message = refused.value.message + refused.value.remedy
    assert "canary" not in message
    assert KEY not in message
    assert "sausage" not in message


def test_no_kept_version_holds_a_secret_wherever_it_was_written() -> None:
    secrets = ("canary7f3a", KEY, "sausage worth", "hunter2")
    text = TEXT.replace('url_env = "RPC_A"', 'url = "https://rpc.example/v1/canary7f3a"')
    text = text.replace('submit_url = ""', 'submit_url = "https://user:hunter2@relay.example"')
    text = text.replace('keystore = "wallet.json"', f'keystore = "{PHRASE}"  # {PHRASE}; {KEY}; wss://x/canary7f3a')
    text += f'\nspare = ["0x{KEY}", {{ inner = "https://a/canary7f3a" }}]\n"https://b/canary7f3a" = 1\n'
    text_kept = redacted_text(tomllib.loads(text))
    assert all(secret in text for secret in secrets)
    assert not [secret for secret in secrets if secret in text_kept]
    assert "#" not in text_kept
    assert tomllib.loads(text_kept)["limits"] == tomllib.loads(text)["limits"]
    assert tomllib.loads(text_kept)["store"]["url"] == "sqlite:///trimtab.db"


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        pytest.param("https://one.example/key", "https://two.example/key", "execution.submit_url", id="address"),
        pytest.param("0x" + "a" * 64, "0x" + "b" * 64, "wallet.key_env", id="key"),
        pytest.param(PHRASE, PHRASE.replace("sausage", "banana"), "wallet.keystore", id="recovery phrase"),
        pytest.param("a" * 64, "b" * 64, "signals.mine.sha256", id="hash of a file, which is none"),
    ],
)
def test_changed_secret__is_named_by_its_key(before: str, after: str, path: str) -> None:
    table, _, key = path.rpartition(".")
    kept_before, kept_after = (redacted_text(tomllib.loads(f'[{table}]\n{key} = "{value}"')) for value in (before, after))
    removed, added = config_diff(kept_before, kept_after)
    assert removed.startswith(f'- {path} = "')
    assert added.startswith(f'+ {path} = "')
    assert (after in added) == path.endswith("sha256")


def test_hash_of_a_file__is_set_on_the_command_line() -> None:
    assert parse_changes([f"signals.mine.sha256={'a' * 64}"], [], [], []).key_settings == (("signals.mine.sha256", "a" * 64),)


def test_config_behind_a_link__stays_behind_it(tmp_path: Path) -> None:
    config = tmp_path / "etc" / "main.toml"
    config.parent.mkdir()
    config.write_text("before")
    link = tmp_path / "trimtab.toml"
    link.symlink_to(config)
    write_config(link, "after")
    assert (link.is_symlink(), config.read_text()) == (True, "after")


def test_versions_are_told_apart_by_the_keys_that_changed() -> None:
    changed = edited(sets=["policy.cooldown=2h"], targets=["WETH=45%", "USDC=35%"])
    before, after = (redacted_text(tomllib.loads(config)) for config in (TEXT, changed))
    assert config_diff(before, before) == ()
    assert set(config_diff(before, after)) == {
        '- portfolio.assets.WETH.target = "50%"', '+ portfolio.assets.WETH.target = "45%"', '- portfolio.assets.USDC.target = "30%"',
        '+ portfolio.assets.USDC.target = "35%"', '- policy.cooldown = "1h"', '+ policy.cooldown = "2h"',
    }  # fmt: skip


@pytest.mark.parametrize("targets", [("WETH=40%", "WETH=40%"), ("WETH=40%", "USDC=60%", "WETH=50%")])
def test_target_of_one_asset_twice__is_refused(targets: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="--target: WETH is given twice"):
        parse_changes((), targets, (), ())


def test_key_set_twice__is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--set: limits\.turnover is given twice"):
        parse_changes(["limits.turnover=1%", "limits.turnover=100%"], (), (), ())


@pytest.mark.parametrize("value", ['{ any = "70%" }', '{ any = "70%", WETH = "60%" }'])
def test_text_becomes_a_table__where_the_key_takes_both(value: str) -> None:
    text = apply_changes(TEXT.replace("# max_weight = ", 'max_weight = "60%"\n# ', 1), ConfigChanges((("limits.max_weight", value),)))
    assert tomllib.loads(text)["limits"]["max_weight"] == tomllib.loads(f"x = {value}")["x"]
    parse_config(text)
