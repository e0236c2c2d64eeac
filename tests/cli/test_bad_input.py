"""Whatever is wrong in the config, on the command line or in a file: named with its field, nothing done, exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.artifacts import own_artifact
from agent.localchain.world import WHALE_INDEX, dev_accounts
from tests.cli.tools import Desk
from tests.support.text import mentions

NOWHERE = "0x00000000000000000000000000000000DeaDBeef"
WHALE_ADDRESS = dev_accounts()[WHALE_INDEX].address


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        pytest.param("[store]", "[nonsense]\nx = 1\n[store]", ("nonsense", "unknown key"), id="unknown table"),
        pytest.param('target = "30%"', 'target = "20%"', ("90 %", "add 10 %"), id="weights below a whole"),
        pytest.param('target = "30%"', "target = 30", ("above 1 and has no unit",), id="target without unit"),
        pytest.param('slippage = "0.3%"\n', "", ("limits.slippage: missing",), id="missing slippage"),
        pytest.param("test_account = 0", f'keyring = "{"ab" * 32}"', ("wallet.keyring", "service/name"), id="key as a keyring"),
        pytest.param("test_account = 0", f'key_env = "{"ab" * 32}"', ("not the name of an environment variable",), id="key as a variable"),
        pytest.param("chain_id = 31337", 'chain_id = "one"', ("chain.chain_id",), id="chain id as text"),
        pytest.param("[chain]", "[chain", ("not valid TOML",), id="broken TOML"),
    ],
)
def test_a_mistake_in_the_config_is_named_by_every_command(desk: Desk, old: str, new: str, words: tuple[str, ...]) -> None:
    desk.edit((old, new))
    for command in (("status",), ("plan",), ("rebalance", "--send", "--yes"), ("history",), ("resume",), ("stop",)):
        document = desk.ask(*command, want=2)
        for word in words:
            assert word in document["error"]["message"]
        assert "ab" * 32 not in json.dumps(document)
    assert desk.ask("doctor", want=2)["checks"][0]["state"] == "fail"
    result = desk.run("status")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Wrong input")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(
            ("--remove", "WBTC", "--target", "WETH=70%", "--keep-holdings", "--send"), ("--send", "--keep-holdings"), id="keep and sell"
        ),
        pytest.param(("--confirm", "--keep-holdings"), ("--confirm", "--keep-holdings"), id="confirm and keep"),
        pytest.param(("--confirm", "--remove", "WBTC"), ("--confirm", "--remove"), id="confirm and remove"),
        pytest.param(("--set", "policy.cooldown=2h", "--send"), ("--send needs --remove",), id="nothing to sell"),
    ],
)
def test_edit__refuses_options_that_contradict_each_other(desk: Desk, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    before = desk.config.read_text()
    error = desk.ask("edit", *options, "--yes", want=2)["error"]
    assert all(word in f"{error['message']} {error['remedy']}" for word in words)
    assert desk.config.read_text() == before


def test_a_config_with_an_invalid_key_still_pauses(desk: Desk) -> None:
    good = desk.config.read_text()
    file = desk.config.with_name("trimtab.db.paused")
    desk.ask("run", "--once")
    desk.config.write_text(good + '\n[nonsense]\nlisten = "127.0.0.1:9464"\n')
    paused = desk.ask("pause", "--reason", "an upgrade")
    assert paused["paused"]
    assert str(file) in paused["reason"]
    assert "nonsense" in paused["store"]
    assert file.exists()
    hard = desk.ask("pause", "--hard", want=12)["error"]
    assert mentions(hard["message"], str(file), "not hard", "nonsense")
    desk.ask("resume", want=2)
    desk.config.write_text(good)
    assert desk.ask("status")["paused"], "by the process of the older version too, which looks for the same file"
    desk.ask("resume")
    assert not file.exists()
    assert not desk.ask("status")["paused"]


def test_config_without_a_store__names_the_file_that_pauses(desk: Desk) -> None:
    good = desk.config.read_text()
    folder = desk.config.parent
    for old, new, name in (
        ("[chain]", "[chain", "trimtab.db"),
        ('"sqlite:///trimtab.db"', "7", "trimtab.db"),
        ("[chain]", '[chain # "sqlite:///books/old.db"', "trimtab.db"),
    ):
        desk.config.write_text(good.replace(old, new))
        for words in (("pause",), ("pause", "--hard")):
            assert f"touch {folder / name}.paused" in desk.ask(*words, want=2)["error"]["remedy"]
    desk.config.write_text(good.replace("trimtab.db", "my books/a.db").replace("[chain]", "[chain"))
    assert f"touch '{folder}/my books/a.db'.paused" in desk.ask("pause", want=2)["error"]["remedy"]
    assert not list(folder.rglob("*.paused"))


def test_an_address_given_twice_or_mistyped_is_named(desk: Desk) -> None:
    weth = desk.about["tokens"]["WETH"]
    usdc = desk.about["tokens"]["USDC"]
    text = desk.config.read_text()
    desk.config.write_text(text.replace(f'symbol = "USDC"\naddress = "{usdc}"', f'symbol = "USDC"\naddress = "{weth}"'))
    assert mentions(desk.ask("status", want=2)["error"]["message"], f"{weth}", "twice")
    wrong = weth[:2] + "".join(
        c.swapcase() if i == next(j for j, d in enumerate(weth[2:]) if d.isalpha()) else c for i, c in enumerate(weth[2:])
    )
    desk.config.write_text(text.replace(f'symbol = "WETH"\naddress = "{weth}"', f'symbol = "WETH"\naddress = "{wrong}"'))
    assert "wrong checksum" in desk.ask("status", want=2)["error"]["message"]


def test_a_missing_or_unreadable_config_says_what_to_do(desk: Desk, tmp_path: Path) -> None:
    error = desk.ask("status", "--config", str(tmp_path / "none.toml"), want=2)["error"]
    assert "trimtab init" in error["remedy"]
    (tmp_path / "empty").mkdir()
    assert "no *.toml file" in desk.ask("status", "--config", str(tmp_path / "empty"), want=2)["error"]["message"]
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert "be read" in desk.ask("status", "--config", str(tmp_path / "binary.toml"), want=2)["error"]["message"]


def replace_token(desk: Desk, symbol: str, address: str) -> None:
    desk.edit((f'symbol = "{symbol}"\naddress = "{desk.about["tokens"][symbol]}"', f'symbol = "{symbol}"\naddress = "{address}"'))


def test_a_token_without_code_is_named(desk: Desk) -> None:
    replace_token(desk, "LINK", NOWHERE)
    error = desk.ask("status", want=2)["error"]
    assert NOWHERE in error["message"]
    assert "address" in error["remedy"]


def test_decimals_that_disagree_are_named(desk: Desk) -> None:
    usdc = desk.about["tokens"]["USDC"]
    desk.edit((f'symbol = "USDC"\naddress = "{usdc}"', f'symbol = "USDC"\ndecimals = 18\naddress = "{usdc}"'))
    message = desk.ask("status", want=2)["error"]["message"]
    assert "USDC" in message
    assert mentions(message, "6 decimals", "18")
    assert desk.ask("doctor", want=2)["checks"][-1]["state"] == "fail"
    desk.edit(("decimals = 18", "decimals = 6"))
    assert desk.run("status").code == 0


def test_a_pool_of_foreign_tokens_is_refused(desk: Desk) -> None:
    tokens = desk.about["tokens"]
    pool = desk.about["pools"]["v3 LINK/USDC 10000"]
    text = desk.config.read_text()
    start = text.index('[[portfolio.assets]]\nsymbol = "LINK"')
    end = text.index("[reference]")
    text = text[:start] + text[end:].replace("fee_tiers =", f'pools = ["{pool}"]\nfee_tiers =', 1)
    desk.config.write_text(text.replace('target = "30%"', 'target = "40%"'))
    error = desk.ask("status", want=2)["error"]
    assert pool in error["message"]
    assert tokens["LINK"] in error["message"]
    assert "portfolio.hubs" in error["remedy"]


def test_a_pair_without_a_pool_is_refused_with_what_would_help(desk: Desk) -> None:
    lonely = deploy(desk, "TestToken", ["string", "string", "uint8"], ["Lonely", "LONE", 18])
    replace_token(desk, "LINK", lonely)
    error = desk.ask("status", want=2)["error"]
    assert "no pool" in error["message"]
    assert "LINK" in error["message"]
    assert "hub" in error["remedy"]


def test_a_quote_between_two_tokens_without_a_route_is_refused(desk: Desk) -> None:
    desk.edit(('pool_min_value = "50000"', 'pool_min_value = "900000000"'))
    error = desk.ask("quote", "--in", "WETH", "--out", "USDC", "--amount", "1", want=10)["error"]
    assert (error["kind"], error["code"]) == ("Refused", "route")
    assert "limits.pool_min_value" in error["remedy"]


def deploy(desk: Desk, name: str, types: list[str], values: list[Any]) -> str:
    """A contract of ours on the served chain, deployed by the whale."""
    from eth_abi.abi import encode

    data = own_artifact(name).bytecode + encode(types, values).hex()
    desk.node.rpc("anvil_impersonateAccount", WHALE_ADDRESS)
    tx = desk.node.rpc(
        "eth_sendTransaction", {"from": WHALE_ADDRESS, "data": data if data.startswith("0x") else "0x" + data, "gas": hex(5_000_000)}
    )
    receipt = desk.node.w3.eth.wait_for_transaction_receipt(tx, poll_latency=0.01)
    assert receipt["status"] == 1
    return str(receipt["contractAddress"])


QUOTE = ("quote", "--in", "WETH", "--out", "USDC", "--amount")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("quote", "--in", "WETH", "--out", "NOSUCH", "--amount", "1"), ("--out", "'NOSUCH'", "WETH, WBTC, USDC")),
        (("quote", "--in", "\x1b[31mW", "--out", "USDC", "--amount", "1"), ("--in", "not a configured token")),
        (("swap", "--in", "WETH", "--out", "WETH", "--amount", "1"), ("the same",)),
        ((*QUOTE, "-1"), ("--amount", "'-1'", "plain decimal")),
        ((*QUOTE, "minus one"), ("--amount", "'minus one'")),
        ((*QUOTE, "1e3"), ("--amount", "'1e3'")),
        ((*QUOTE, "0"), ("--amount", "must be above 0")),
        ((*QUOTE, "0.0000000000000000001"), ("--amount", "more than 18 decimal places")),
        (("quote", "--in", "USDC", "--out", "WETH", "--amount", "0.0000001"), ("--amount", "more than 6 decimal places")),
        ((*QUOTE, "1" + "0" * 70), ("--amount", "digits before the point")),
        ((*QUOTE, "1", "--pool", "0x1234"), ("--pool", "not an address")),
        ((*QUOTE, "1", "--pool", NOWHERE), ("pool", NOWHERE)),
        (("quote", "--in", "WETH"), ("Missing option",)),
        (("run", "--once", "--every", "soon"), ("--every", "'soon'")),
        (("run", "--once", "--every", "0s"), ("--every",)),
        (("explain", "no-such-step"), ("no-such-step", "trimtab history")),
        (("proposal", "reject"), ("No such command 'reject'.", "write trimtab cancel --send")),
        (("proposal", "approve"), ("write trimtab proposal sign",)),
        (("proposal", "send"), ("write trimtab proposal execute --send",)),
        (("flows", "confirm", "1", "2"), ("too many arguments", "write trimtab flows confirm NUMBER;")),
        (("proposal", "nonsense"), ("No such command", "see trimtab proposal --help")),
        (("cancel", "--limit"), ("No such option", "trimtab cancel --help")),
        (("import-profile",), ("Missing argument", "trimtab import-profile --help")),
        (("withdraw", "-5"), ("AMOUNT must be above 0", "trimtab withdraw --help")),
        (("withdraw", "-500.5"), ("AMOUNT must be above 0",)),
        (("status", "-5"), ("No such option",)),
        (("status", "--colour"), ("No such option",)),
    ],
    ids=lambda part: " ".join(part).encode("unicode_escape").decode()[:60] if isinstance(part, tuple) else "",
)
def test_a_mistake_on_the_command_line_is_named(desk: Desk, command: tuple[str, ...], words: tuple[str, ...]) -> None:
    document = desk.ask(*command, want=2)
    for word in words:
        assert word in document["error"]["message"] + document["error"]["remedy"]
    result = desk.run(*command)
    assert (result.code, result.out) == (2, "")
    assert result.err


def test_more_than_the_wallet_holds_cannot_be_sold(desk: Desk) -> None:
    refused = desk.ask("swap", "--in", "WETH", "--out", "USDC", "--amount", "5", "--send", "--yes", want=10)
    assert any(verdict["guard"] == "balance" and not verdict["passed"] for verdict in refused["verdicts"])


@pytest.mark.parametrize("name", ["none/x.json", "."], ids=["folder missing", "a folder"])
def test_an_input_that_cannot_be_saved_is_named(desk: Desk, tmp_path: Path, name: str) -> None:
    error = desk.ask("plan", "--save-input", str(tmp_path / name), want=2)["error"]
    assert error["message"].startswith(f"--save-input {tmp_path / name}: ")


@pytest.fixture(scope="module")
def input_texts() -> list[str]:
    """The input of the served chain, once the first test has saved it."""
    return []


@pytest.fixture
def saved_input(desk: Desk, tmp_path: Path, input_texts: list[str]) -> Path:
    path = tmp_path / "input.json"
    if not input_texts:
        desk.ask("plan", "--save-input", str(path))
        input_texts.append(path.read_text())
    path.write_text(input_texts[0])
    return path


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda content: content[: len(content) // 2], id="cut in the middle"),
        pytest.param(lambda _: b"[]", id="a list"),
        pytest.param(lambda _: b"{}", id="no fields"),
        pytest.param(lambda _: b"\xff\xfe\x00\x01", id="no text"),
        pytest.param(lambda _: b"[" * 100_000, id="deeply nested"),
        pytest.param(lambda content: content.replace(b"9", b"x"), id="letters in numbers"),
    ],
)
def test_a_damaged_input_file_is_named(desk: Desk, saved_input: Path, damage: Callable[[bytes], bytes]) -> None:
    saved_input.write_bytes(damage(saved_input.read_bytes()))
    error = desk.ask("plan", "--input", str(saved_input), want=2)["error"]
    assert error["message"].startswith(f"--input {saved_input}: ")


@pytest.mark.parametrize("name", ["none.json", "."], ids=["file missing", "a folder"])
def test_an_input_that_cannot_be_read_is_named(desk: Desk, tmp_path: Path, name: str) -> None:
    error = desk.ask("plan", "--input", str(tmp_path / name), want=2)["error"]
    assert error["message"].startswith(f"--input {tmp_path / name}: ")


def numbers(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all numbers in a document, those in strings too."""
    if isinstance(value, dict):
        return [number for key, inner in value.items() for number in numbers(inner, (*path, key))]
    if isinstance(value, list):
        return [number for key, inner in enumerate(value) for number in numbers(inner, (*path, key))]
    return [path] if isinstance(value, int) or (isinstance(value, str) and value.isdigit()) else []


@pytest.mark.parametrize("spacing", [-1, 0, 16_384])
def test_a_tick_spacing_that_no_pool_has_is_refused_at_once(desk: Desk, saved_input: Path, tmp_path: Path, spacing: int) -> None:
    document = json.loads(saved_input.read_text())
    pool = next(pool for pool in document["snapshot"]["pools"] if "tick_spacing" in pool)
    pool["tick_spacing"] = spacing
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(document))
    error = desk.ask("plan", "--input", str(changed), want=2)["error"]
    assert mentions(error["message"], f"{pool['address']}", f"{spacing}")


@pytest.mark.parametrize("nth", [29, pytest.param(10, marks=pytest.mark.slow)])
def test_contradicting_input__never_ends_in_a_defect(desk: Desk, saved_input: Path, tmp_path: Path, nth: int) -> None:
    """Every so many-th number of the file in turn is zero, negative or enormous; the command decides or refuses, and never breaks."""
    document = json.loads(saved_input.read_text())
    changed = tmp_path / "changed.json"
    for i, path in enumerate(numbers(document)[::nth]):
        copy = json.loads(saved_input.read_text())
        place = copy
        for key in path[:-1]:
            place = place[key]
        wild = (0, -1, 10**40)[i % 3]
        place[path[-1]] = wild if isinstance(place[path[-1]], int) else str(wild)
        changed.write_text(json.dumps(copy))
        result = desk.run("plan", "--input", str(changed), "--json")
        assert result.code in (0, 2, 10), (path, wild, result)
