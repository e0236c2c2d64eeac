"""New configs: several in a folder have stores of their own, and a network is known by its name in any case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent import wiring
from agent.app.start.guide import InitAnswers, check_setup
from agent.app.start.setup import NewConfig, find_preset, require_endpoints, write_new_config
from agent.config.load import load_config
from tests.support.constants import WALLET
from tests.support.text import raises_field

NEW_CONFIG = NewConfig("ethereum", WALLET, [("WETH", "50%"), ("USDC", "50%")], endpoints=[("RPC_A", "alpha"), ("RPC_B", "beta")])


def store_names(path: Path) -> tuple[str, str]:
    """Names of the live store and of the paper store of a new config."""
    write_new_config(path, NEW_CONFIG)
    loaded_config = load_config(path)
    live_file = wiring.store_file(loaded_config)
    paper_file = wiring.store_file(replace(loaded_config, is_paper=True))
    return live_file.name, paper_file.name


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("trimtab.toml", ("trimtab.db", "paper.db")),
        ("other.toml", ("other.db", "other.paper.db")),
        ("OTHER-2.toml", ("OTHER-2.db", "OTHER-2.paper.db")),
        ("paper.toml", ("trimtab.db", "paper.db")),
        ("a?b.toml", ("trimtab.db", "paper.db")),
    ],
)
def test_new_config__names_its_stores_like_itself(tmp_path: Path, file: str, names: tuple[str, str]) -> None:
    assert store_names(tmp_path / file) == names


@pytest.mark.parametrize("store_name", ["other.db", "other.paper.db"])
def test_new_config__warns_of_a_store_that_exists(tmp_path: Path, store_name: str) -> None:
    (tmp_path / store_name).touch()
    document = write_new_config(tmp_path / "other.toml", NEW_CONFIG)
    assert any(warning.startswith(f"store.url: {store_name} exists already") for warning in document["warnings"])


@pytest.mark.parametrize("network", ["Base", "BASE", "base"])
def test_network__is_known_in_any_case(tmp_path: Path, network: str) -> None:
    assert InitAnswers().with_network(network).network == "base"
    write_new_config(tmp_path / "trimtab.toml", replace(NEW_CONFIG, network=network))
    assert load_config(tmp_path / "trimtab.toml").config.chain.chain_id == 8453


@pytest.mark.parametrize("network", ["local.toml", "elsewhere/local.toml", "elsewhere/local"])
def test_network_file__that_is_missing_is_sought_in_a_named_folder(network: str) -> None:
    with raises_field("--network", f"not found in {Path.cwd()}"):
        find_preset(network)
    with raises_field("--network", "'mainnet' is not known"):
        find_preset("mainnet")


def refusal_by_options(endpoints: list[tuple[str, str]], folder: Path) -> str:
    with raises_field("--rpc") as refused:
        write_new_config(folder / "trimtab.toml", replace(NEW_CONFIG, endpoints=endpoints))
    return str(refused.value)


def refusal_in_the_dialogue(endpoints: list[tuple[str, str]], folder: Path) -> str:
    with raises_field("endpoints") as refused:
        InitAnswers().with_network("ethereum").with_endpoints(" ".join("=".join(pair) for pair in endpoints))
    return str(refused.value)


def refusal_on_a_page(endpoints: list[tuple[str, str]], folder: Path) -> str:
    return str(check_setup({"endpoints": " ".join("=".join(pair) for pair in endpoints)})["errors"]["endpoints"])


@pytest.mark.parametrize("refusal", [refusal_by_options, refusal_in_the_dialogue, refusal_on_a_page])
@pytest.mark.parametrize(
    ("endpoints", "reason"),
    [
        pytest.param([("RPC_A", "alpha")], "two different operators are needed", id="one operator"),
        pytest.param([("RPC_A", "alpha"), ("RPC_B", "alpha")], "two different operators are needed", id="one operator twice"),
        pytest.param([("RPC_A", "alpha"), ("RPC_A", "beta")], "a variable is named twice", id="one variable"),
    ],
)
def test_endpoints__are_refused_alike_however_a_config_is_written(
    tmp_path: Path, refusal: Callable[..., str], endpoints: list[tuple[str, str]], reason: str
) -> None:
    text = refusal(endpoints, tmp_path)
    assert reason in text.lower()
    assert ("add an endpoint of a second provider" in text.lower()) == reason.startswith("two")
    assert not [*tmp_path.iterdir()]


def test_endpoints__an_only_one_is_enough_for_a_local_chain() -> None:
    require_endpoints([("RPC_A", "local")], "endpoints", is_local=True)
