"""The corpus of foreign text at every place where text comes in from outside (T17), and look-alikes in token lists (T16)."""

from __future__ import annotations

import hashlib
import json
import logging
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from agent.app.start.setup import NewConfig, write_new_config
from agent.chain.rpc import parse_fault, scrub
from agent.chain.tokens import symbol_text
from agent.cli.display.terminal import escape_control_codes
from agent.config.load import parse_config
from agent.errors import ConfigError, Retryable, TrimtabError
from agent.observe.logs import LineFormatter, LogStyle, Redactor
from agent.units import safe_label
from tests.support.constants import WALLET
from tests.support.foreign_text import CORPUS, LOOK_ALIKES
from tests.support.text import raises_field

PLACE = "0x7D1AfA7B718fb893dB30A3aBc0Cfc608AaCfeBB0"
ALL = pytest.mark.parametrize("text", CORPUS.values(), ids=CORPUS)
RPC = [("RPC_A", "one"), ("RPC_B", "two")]
HALF = [("WETH", "50%"), ("USDC", "50%")]


def harmless(text: str) -> bool:
    return all(char.isprintable() for char in text)


def abi_string(text: str) -> bytes:
    raw = text.encode()
    return (32).to_bytes(32, "big") + len(raw).to_bytes(32, "big") + raw + bytes(-len(raw) % 32)


@ALL
def test_a_symbol_from_the_chain_is_shown_as_the_address(text: str) -> None:
    assert safe_label(symbol_text(abi_string(text)), PLACE) == PLACE
    assert safe_label(symbol_text(text.encode()[:32].ljust(32, b"\0")), PLACE) in (PLACE, text.rstrip("\0"))
    assert safe_label(text, PLACE) == PLACE


@ALL
def test_node_s_error__is_reduced_to_harmless_characters(text: str) -> None:
    for error_data in (text, {"code": text, "message": text, "data": text}, {"message": {"x": text}}, [text]):
        fault = parse_fault(error_data)
        assert harmless(fault.message)
        assert not set('<>[]{}"`$=@|\\&') & set(fault.message)
        assert "evil.example" not in fault.message or "://" not in fault.message
        assert len(fault.message) <= 200
        assert fault.revert_data == "" or fault.revert_data.startswith("0x")
    assert harmless(scrub(text))


@ALL
def test_error__carries_nothing_that_steers_or_never_ends(text: str) -> None:
    for error in (TrimtabError(text, text), ConfigError(f"--x: {text!r}"), Retryable(text)):
        for text_shown in (error.message, error.remedy, str(error), *map(str, error.args)):
            assert all(harmless(line) for line in text_shown.split("\n"))
            assert max(map(len, text_shown.split(" "))) <= 700
    assert all(harmless(line) for line in escape_control_codes(text).replace("\t", "\n").split("\n")) or "\u0351" in text


@ALL
def test_a_value_in_the_config_is_named_without_steering(text: str) -> None:
    written = json.dumps(text)
    for document in (f"[chain]\nchain_id = {written}\n", f"[{written}]\nx = 1\n", f"[wallet]\naddress = {written}\n"):
        with pytest.raises(ConfigError) as refused:
            parse_config(document)
        assert all(harmless(line) for line in str(refused.value).split("\n"))
        assert len(str(refused.value)) < 20_000


def listed(folder: Path, *symbols: str, chain_id: int = 1) -> Path:
    path = folder / "list.json"
    entries = [{"chainId": chain_id, "symbol": symbol, "name": symbol, "address": PLACE, "decimals": 18} for symbol in symbols]
    path.write_text(json.dumps({"name": symbols[0], "tokens": entries}))
    return path


def test_a_token_lists_names_reach_no_config(tmp_path: Path) -> None:
    path = listed(tmp_path, *CORPUS.values(), "GOOD")
    config = tmp_path / "trimtab.toml"
    document = write_new_config(config, NewConfig("ethereum", WALLET, [*HALF[:1], (PLACE, "25%"), ("USDC", "25%")], "USDC", RPC, path))
    assert document["assets"][1]["symbol"] == "GOOD"
    for text in (config.read_text(), json.dumps(document)):
        assert "EVIL" not in text
        assert harmless(text.replace("\n", ""))
    assert {asset["symbol"] for asset in tomllib.loads(config.read_text())["portfolio"]["assets"]} == {"WETH", "GOOD", "USDC"}


@ALL
def test_nothing_of_it_names_a_target_or_an_operator(text: str, tmp_path: Path) -> None:
    for targets, rpc in (([*HALF, (text, "0%")], RPC), (HALF, [("RPC_A", text), ("RPC_B", "two")]), (HALF, [(text, "one"), RPC[1]])):
        with pytest.raises(ConfigError) as refused:
            write_new_config(tmp_path / "trimtab.toml", NewConfig("ethereum", WALLET, targets, "USDC", rpc))
        assert all(harmless(line) for line in str(refused.value).split("\n"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LOOK_ALIKES, ids=ascii)
def test_look_alike__is_refused_by_name_in_a_list_or_not(name: str, tmp_path: Path) -> None:
    for path in (None, listed(tmp_path, name, "GOOD")):
        with raises_field("--target", "looks like"):
            write_new_config(tmp_path / "trimtab.toml", NewConfig("ethereum", WALLET, [("WETH", "50%"), (name, "50%")], "WETH", RPC, path))
    assert not (tmp_path / "trimtab.toml").exists()


def test_two_names_of_a_list_that_are_drawn_alike_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    other = "0x1f9840a85d5aF5bf1D1762F925BDADdC4201F984"
    entries = [{"chainId": 1, "symbol": s, "address": a, "decimals": 18} for s, a in (("UNI", other), ("UNl", PLACE))]
    path.write_text(json.dumps({"tokens": entries}))
    for name in ("UNI", "UNl"):
        with raises_field("--target", "looks like"):
            write_new_config(tmp_path / "trimtab.toml", NewConfig("ethereum", WALLET, [("USDC", "50%"), (name, "50%")], "USDC", RPC, path))
    for address in (other, PLACE):
        config = tmp_path / f"{address}.toml"
        assert (
            write_new_config(config, NewConfig("ethereum", WALLET, [("USDC", "50%"), (address, "50%")], "USDC", RPC, path))["assets"][1][
                "address"
            ]
            == address
        )


def test_a_list_is_pinned_by_its_hash(tmp_path: Path) -> None:
    path = listed(tmp_path, "GOOD")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    init_document = write_new_config(tmp_path / "a.toml", NewConfig("ethereum", WALLET, HALF, "USDC", RPC, path, digest.upper()))
    assert init_document["token_list_sha256"] == digest
    path.write_text(path.read_text() + " ")
    for pinned, says in ((digest, "its SHA-256 is"), ("beef", "not a SHA-256"), ("\x1b[31m", "not a SHA-256")):
        with pytest.raises(ConfigError, match=says):
            write_new_config(tmp_path / "b.toml", NewConfig("ethereum", WALLET, HALF, "USDC", RPC, path, pinned))
    with raises_field("--token-list-sha256", "list"):
        write_new_config(tmp_path / "b.toml", NewConfig("ethereum", WALLET, HALF, "USDC", RPC, None, digest))
    assert not (tmp_path / "b.toml").exists()


def test_a_list_of_another_chain_is_refused(tmp_path: Path) -> None:
    with raises_field("--token-list", "chain 1"):
        write_new_config(tmp_path / "a.toml", NewConfig("ethereum", WALLET, HALF, "USDC", RPC, listed(tmp_path, "GOOD", chain_id=10)))


@ALL
def test_a_line_of_the_log_stays_one_harmless_line(text: str) -> None:
    for style in get_args(LogStyle):
        line = LineFormatter(style, Redactor()).format(logging.makeLogRecord({"msg": text, "fields": {"reason": text, "names": [text]}}))
        assert "\n" not in line
        assert harmless(line)
        assert line.isascii()
