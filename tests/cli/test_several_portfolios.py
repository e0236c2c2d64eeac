"""status, history, pause, resume and health of one portfolio or of a folder of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent import wiring
from agent.app.records import kill_switch
from agent.config.load import load_config
from agent.localchain import LocalChain
from tests.cli.tools import CommandResult
from tests.support.agents import config
from tests.support.fleets import add_portfolio
from tests.support.text import mentions
from tests.support.workers import bring_to_present

Bare = Callable[..., CommandResult]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two portfolios, each with a store of its own."""
    own_folder = tmp_path / "clients"
    own_folder.mkdir(mode=0o700)
    for name in ("ada", "bob"):
        config(own_folder, name)
    return own_folder


def test_a_folder_is_paused_and_resumed_whole(bare: Bare, folder: Path) -> None:
    paused = bare("pause", "--config", str(folder), "--reason", "holidays", "--json").json
    assert [(portfolio["portfolio"], portfolio["reason"]) for portfolio in paused["portfolios"]] == [
        ("ada", "holidays"),
        ("bob", "holidays"),
    ]
    result = bare("resume", "--config", str(folder), "--yes")
    assert result.out.split() == ["ada:", "Resumed.", "bob:", "Resumed."]


def test_one_that_cannot_be_read_is_named_and_stops_no_other(bare: Bare, folder: Path) -> None:
    (folder / "ada.toml").write_text("[portfolio\n")
    result = bare("history", "--config", str(folder), "--json")
    assert result.code == 2
    broken, sound = result.json["portfolios"]
    assert (broken["portfolio"], broken["error"]["kind"]) == ("ada", "ConfigError")
    assert (sound["portfolio"], sound["steps"]) == ("bob", [])


def test_health_of_a_folder_is_that_of_the_worst(bare: Bare, folder: Path) -> None:
    bare("pause", "--config", str(folder))
    result = bare("health", "--config", str(folder), "--json")
    assert result.code == 15
    assert [portfolio["ok"] for portfolio in result.json["portfolios"]] == [False, False]


def test_status_of_a_folder_is_that_of_each_wallet(bare: Bare, anvil_chain: LocalChain, tmp_path: Path) -> None:
    folder = tmp_path / "clients"
    folder.mkdir(mode=0o700)
    for account, (name, usd) in enumerate({"ada": 5_000, "bob": 8_000}.items(), start=5):
        path = add_portfolio(anvil_chain, tmp_path, name, account, {"WETH": usd, "USDC": 5_000}, {"store.url": f"sqlite:///{name}.db"})
        path.rename(folder / path.name)
    bring_to_present(anvil_chain)
    answer = bare("status", "--config", str(folder), "--json")
    documents = answer.json["portfolios"]
    assert [document["portfolio"] for document in documents] == ["ada", "bob"]
    assert [document["decision"]["kind"] for document in documents] == ["hold", "rebalance"]
    (folder / "bob.toml").write_text("[portfolio\n")
    answer = bare("status", "--config", str(folder), "--json")
    sound, broken = answer.json["portfolios"]
    assert (answer.code, sound["decision"]["kind"], broken["error"]["kind"]) == (2, "hold", "ConfigError")


def test_single_file__has_its_document_and_a_folder_a_list(bare: Bare, folder: Path) -> None:
    (folder / "ada.toml").unlink()
    assert bare("pause", "--config", str(folder / "bob.toml"), "--json").json["paused"] is True
    assert [portfolio["portfolio"] for portfolio in bare("pause", "--config", str(folder), "--json").json["portfolios"]] == ["bob"]


def pauses(folder: Path) -> dict[str, object]:
    """Whether each portfolio of a folder is paused, and hard."""
    states = {name: kill_switch.shown_pause(folder / f"{name}.toml") for name in ("ada", "bob")}
    return {name: (state["paused"], state["pause_hard"]) for name, state in states.items()}


def test_hard_pause_of_several__pauses_all_but_none_hard(bare: Bare, folder: Path) -> None:
    result = bare("pause", "--hard", "--config", str(folder), "--json")
    assert result.code == 2
    assert mentions(result.json["error"]["message"], "one config at a time", "paused, but not hard: ada.toml, bob.toml")
    assert pauses(folder) == {"ada": (True, False), "bob": (True, False)}


def test_hard_pause_without_a_terminal__pauses_but_not_hard(bare: Bare, folder: Path) -> None:
    result = bare("pause", "--hard", "--send", "--config", str(folder / "bob.toml"), "--json")
    assert result.code == 2
    assert mentions(result.json["error"]["message"], "no terminal to ask", "paused, but not hard: bob.toml")
    assert mentions(result.json["error"]["remedy"], "--yes")
    assert pauses(folder) == {"ada": (False, False), "bob": (True, False)}


@pytest.mark.parametrize(
    ("names", "result_text"),
    [
        pytest.param(("ada", "bob"), "paused, but not hard: ada.toml; still hard paused: bob.toml", id="several"),
        pytest.param(("bob",), "terminal to ask; still hard paused: bob.toml", id="no terminal"),
    ],
)
def test_hard_pause_of_a_hard_paused__says_that_it_still_is(bare: Bare, folder: Path, names: tuple[str, ...], result_text: str) -> None:
    with wiring.open_store_offline(load_config(folder / "bob.toml")) as (_, switch):
        switch.pause("earlier", 0, hard=True)
    paths = [part for name in names for part in ("--config", str(folder / f"{name}.toml"))]
    message = bare("pause", "--hard", "--send", *paths, "--json").json["error"]["message"]
    assert message.endswith(result_text)
    assert pauses(folder) == {"ada": ("ada" in names, False), "bob": (True, True)}


def test_hard_pause_of_several__names_those_that_are_not_paused(bare: Bare, folder: Path) -> None:
    sound = (folder / "ada.toml").read_text()
    (folder / "ada.toml").write_text("[portfolio\n")
    message = bare("pause", "--hard", "--config", str(folder), "--json").json["error"]["message"]
    assert mentions(message, "paused, but not hard: bob.toml", "not paused: ada.toml: ")
    (folder / "ada.toml").write_text(sound)
    assert pauses(folder) == {"ada": (False, False), "bob": (True, False)}


@pytest.mark.parametrize(
    ("words", "named", "remedy"),
    [
        (("--once",), "--once", "omit it"),
        (("--verbose",), "--verbose", "omit it"),
        (("--record", "steps"), "--record", "omit it"),
        (("--send",), "questions", "add --yes, or --offer"),
    ],
)
def test_a_run_of_several_takes_no_option_of_one(bare: Bare, folder: Path, words: tuple[str, ...], named: str, remedy: str) -> None:
    result = bare("run", "--config", str(folder), *words, "--json")
    error = result.json["error"]
    assert result.code == 2
    assert error["message"] == f"several portfolios run without {named}"
    assert remedy in error["remedy"]
