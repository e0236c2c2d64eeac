"""Files and names as people bring them: a byte order mark, another encoding, one bad entry, a coin's name, a cron nickname."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.config.load import UNSAVED_REMEDY, load_config, load_config_text
from agent.config.networks.other_names import name_remedy
from agent.config.writing import edits
from agent.config.writing.profile import read_profile
from agent.config.writing.token_lists import read_token_list
from agent.errors import ConfigError
from agent.model import Cron
from agent.policy.triggers.schedules import next_cron_time
from tests.support.agents import OTHER, config, profile

MARK = b"\xef\xbb\xbf"


# --- Encodings.


def test_a_config_with_a_byte_order_mark_is_loaded_and_edited(tmp_path: Path) -> None:
    path = config(tmp_path)
    plain = load_config(path)
    path.write_bytes(MARK + path.read_bytes())
    assert load_config(path).config == plain.config
    changed = edits.apply_changes(path.read_text(), edits.parse_changes(("policy.cooldown=3h",), (), (), ()))
    assert load_config_text(changed, path, "edited").config.policy.cooldown == 3 * 3_600


def test_profile_and_list_with_a_byte_order_mark__are_read(tmp_path: Path) -> None:
    loaded = load_config(config(tmp_path))
    assert read_profile(MARK + profile(tmp_path).read_bytes(), "theirs", loaded).table.assets
    assert read_token_list(token_list(tmp_path, entry(), start=MARK), 1).tokens[0].symbol == "UNI"


@pytest.mark.parametrize(
    ("content", "word"),
    [("x = 1".encode("utf-16"), "UTF-16"), ("x = 'é'".encode("latin-1"), "not UTF-8 at byte 5"), (b"\xfe\xff\0x", "UTF-16")],
)
@pytest.mark.parametrize("reader", ["config", "profile", "token list"])
def test_another_encoding_is_named_with_its_remedy(tmp_path: Path, content: bytes, word: str, reader: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    path.chmod(0o600)
    readers: dict[str, Callable[[], object]] = {
        "config": lambda: load_config(path),
        "profile": lambda: read_profile(content, "theirs", load_config(config(tmp_path))),
        "token list": lambda: read_token_list(path, 1),
    }
    with pytest.raises(ConfigError) as caught:
        readers[reader]()
    assert f"the text is {word}; save it as UTF-8" in caught.value.message
    assert "codec" not in str(caught.value)


# --- Token lists.


def entry(**changes: Any) -> dict[str, Any]:
    return {"chainId": 1, "symbol": "UNI", "address": OTHER, "decimals": 18} | changes


def token_list(folder: Path, *entries: object, start: bytes = b"") -> Path:
    path = folder / "list.json"
    path.write_bytes(start + json.dumps({"tokens": entries}).encode())
    return path


BAD_ENTRIES = {
    "no decimals": ({"chainId": 1, "symbol": "BAD", "address": OTHER}, "decimals of 'BAD': None"),
    "decimals of text": (entry(symbol="BAD", decimals="many"), "decimals of 'BAD': 'many'"),
    "too many decimals": (entry(decimals=256), "decimals of 'UNI': 256"),
    "a short address": (entry(address="0x12"), "'UNI': "),
    "an address that is a number": (entry(address=12), "address of 'UNI': 12"),
    "a symbol that is a list": (entry(symbol=["UNI"]), "symbol: ['UNI']"),
    "no chain": ({"symbol": "UNI"}, "chainId: not a number"),
    "a number": (7, "chainId: not a number"),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_one_bad_entry_is_left_out_and_named(tmp_path: Path, case: str) -> None:
    bad, word = BAD_ENTRIES[case]
    listed = read_token_list(token_list(tmp_path, entry(), bad, entry(symbol="AAVE", decimals="18")), 1)
    assert [(token.symbol, token.decimals) for token in listed.tokens] == [("UNI", 18), ("AAVE", 18)]
    (warning,) = listed.warnings
    assert f"left out entry 2: {word}" in warning
    assert "Error" not in warning, "no words of Python"


@pytest.mark.parametrize("symbol", ["UN\u0406", "\x1b[31mU", "U" * 17, ""], ids=ascii)
def test_token_with_an_unsafe_symbol__is_left_out_and_named(tmp_path: Path, symbol: str) -> None:
    listed = read_token_list(token_list(tmp_path, entry(symbol=symbol), entry()), 1)
    assert [token.symbol for token in listed.tokens] == ["UNI"]
    (warning,) = listed.warnings
    assert "left out entry 1: symbol: not 1 to 16 letters" in warning
    assert not symbol or symbol not in warning.partition("entry 1")[2]


def test_a_list_of_unsafe_symbols_only_has_no_tokens_and_warns(tmp_path: Path) -> None:
    listed = read_token_list(token_list(tmp_path, entry(symbol="UN\u0406"), entry(symbol="\x1b[31mU")), 1)
    assert listed.tokens == ()
    assert listed.warnings[0].endswith(", and 1 more")


def test_entries_of_other_chains_are_not_judged(tmp_path: Path) -> None:
    assert read_token_list(token_list(tmp_path, entry(), entry(chainId=10, decimals="many")), 1).warnings == ()


@pytest.mark.parametrize("document", [[], {"tokens": {}}, {"tokens": None}, 7])
def test_what_is_no_list_is_named(tmp_path: Path, document: object) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="it has no list named tokens"):
        read_token_list(path, 1)


# --- Names of coins.


@pytest.mark.parametrize(
    ("symbol", "chain_id", "remedy"),
    [
        pytest.param("MATIC", 137, "write WPOL, or native for the coin itself", id="former name of Polygon's coin"),
        pytest.param("POL", 137, "write WPOL, or native for the coin itself", id="Polygon's coin"),
        pytest.param("ETH", 1, "write WETH, or native for the coin itself", id="ether on Ethereum"),
        pytest.param("ETH", 137, "write WETH", id="ether on Polygon"),
        pytest.param("wbtc", 1, "write WBTC", id="small letters"),
        pytest.param("BNB", 56, "write WBNB, or native for the coin itself", id="BNB"),
        pytest.param("NOSUCH", 1, "", id="unknown symbol"),
        pytest.param("ETH", 999_999, "", id="unknown chain"),
    ],
)
def test_a_coin_is_told_by_the_name_of_its_token(symbol: str, chain_id: int, remedy: str) -> None:
    assert name_remedy(symbol, chain_id) == remedy


# --- Schedules.


@pytest.mark.parametrize(
    ("nickname", "fields"),
    [("@monthly", "0 0 1 * *"), ("@WEEKLY", "0 0 * * 0"), ("@daily", "0 0 * * *"), ("@midnight", "0 0 * * *"), ("@hourly", "0 * * * *"),
     ("@yearly", "0 0 1 1 *"), ("@annually", "0 0 1 1 *")],
)  # fmt: skip
def test_a_cron_nickname_is_its_five_fields(nickname: str, fields: str) -> None:
    for after_s in (1_700_000_000, 1_709_164_800):
        assert next_cron_time(Cron(nickname, "UTC"), after_s) == next_cron_time(Cron(fields, "UTC"), after_s)


@pytest.mark.parametrize("name", ["@reboot", "@fortnightly", "monthly"])
def test_another_name_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(ConfigError, match="has 1 field") as caught:
        next_cron_time(Cron(name, "UTC"), 1_700_000_000)
    assert '"0 9 * * 1-5"' in caught.value.remedy


# --- Remedies of what no file holds.


def test_remedy_of_an_unwritten_config__names_no_file(tmp_path: Path) -> None:
    path = config(tmp_path)
    wrong = path.read_text().replace("50%", "40%")
    with pytest.raises(ConfigError) as unsaved:
        load_config_text(wrong, path, "the edited config", remedy=UNSAVED_REMEDY)
    assert unsaved.value.remedy == "nothing was written; correct what you gave"
    path.write_text(wrong)
    with pytest.raises(ConfigError) as saved:
        load_config(path)
    assert saved.value.remedy == "correct these keys, then run trimtab doctor"
