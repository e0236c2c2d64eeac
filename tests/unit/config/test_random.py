"""Any document at all: it loads, or one ConfigError names what is wrong with which key. Never another exception."""

from __future__ import annotations

import tempfile
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from agent.config.build import build_execution, build_limits, build_policy, build_portfolio, build_reference
from agent.config.liquidity import build_targets
from agent.config.load import load_config, parse_config
from agent.config.schema import Config
from agent.config.weights import build_allocator
from agent.errors import ConfigError
from tests.support.configs.keys import BASES, PLACES, Path_
from tests.support.configs.lp_targets import REFS
from tests.support.configs.samples import config_text, tokens
from tests.support.samples import examples

FOLDER = Path(tempfile.mkdtemp())
(FOLDER / "supplies.csv").write_text("symbol,supply,as_of\nWETH,120500000,2026-11-01\n")
LONGEST = 20_000
"""An error that a terminal can show, whatever stood in the file."""


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
HOSTILE = st.sampled_from(
    (
        *(
            "\x1b[31m",
            "\u202e",
            "<script>",
            "=1+1",
            "a" * 100_000,
            "9" * 5_000,
            "9" * 5_000 + "%",
            "1e400",
            "-0",
            "NaN",
            "off",
            "on",
            "",
            " ",
        ),
        *("\u0661%", "\u00bd", "0x" + "0" * 40, "native", "9" * 40 + "d", "0.00000001 gwei", "9" * 400 + "gwei", "100%", "10000bps"),
        *("0%", "5%", "* * * * *", "0 0 31 2 *", "0s", "Mars/Phobos", "../../etc/passwd"),
    )
)
NUMBERS = st.one_of(st.integers(), st.integers(-(2**63), 2**63 - 1), st.sampled_from([10**30, -1, 0, 1, 2**256, -(10**400)]), st.floats())
LEAVES = st.one_of(st.booleans(), NUMBERS, TEXT, HOSTILE, st.datetimes())
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6)


def everything(config: Config) -> None:
    """What is made of a config once tokens and pools are known."""
    portfolio = build_portfolio(config, tokens())
    build_limits(config, portfolio.numeraire)
    build_reference(config)
    build_policy(config)
    build_execution(config, ())
    build_targets(config, portfolio, REFS)
    build_allocator(config.portfolio.weights, portfolio, FOLDER, chain_id=config.chain.chain_id)


def attempt(document: str) -> str:
    """The error's text, empty where the document loads. Any other exception fails the test."""
    try:
        everything(parse_config(document))
    except ConfigError as error:
        message = str(error)
        assert error.message
        assert error.exit_code == 2
        assert len(message) < LONGEST
        assert message.replace("\n", "").isprintable(), ascii(message)
        return message
    return ""


@examples(60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large])
@given(st.sampled_from(PLACES), VALUES)
@example((BASES[0], ("limits", "slippage")), "9" * 5_000)
@example((BASES[0], ("chain", "chain_id")), "x" * 100_000)
def test_a_value_of_any_kind_in_any_place_loads_or_is_named(where: tuple[dict[str, Any], Path_], value: object) -> None:
    base, place = where
    document = deepcopy(base)
    table: Any = document
    for part in place[:-1]:
        table = table[part]
    table[place[-1]] = value
    try:
        written = tomlkit.dumps(document)
    except (ValueError, TypeError):
        return  # TOML cannot write it
    intent = attempt(written)
    if intent and "not valid TOML" not in intent:
        named = [str(part) for part in place if isinstance(part, str)]
        assert any(part in intent for part in named), f"{place}: {intent}"


@given(st.sampled_from(PLACES), st.sampled_from(["remove", "rename", "add"]), TEXT)
def test_a_missing_or_unknown_key_loads_or_is_named(where: tuple[dict[str, Any], Path_], how: str, name: str) -> None:
    base, place = where
    document = deepcopy(base)
    table: Any = document
    for part in place[:-1]:
        table = table[part]
    if not isinstance(table, dict):
        return
    new = name or "unknown"
    if new in table:
        return
    if how != "add":
        moved = table.pop(place[-1])
    if how != "remove":
        table[new] = moved if how == "rename" else 1
    intent = attempt(tomlkit.dumps(document))
    if how == "remove":
        assert not intent or str(place[-1]) in intent or any(str(part) in intent for part in place), intent


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_at_all_is_refused_in_words(document: str) -> None:
    assert attempt(document)


@given(st.data())
def test_changed_template__loads_or_is_refused(data: st.DataObject) -> None:
    whole = config_text()
    at = data.draw(st.integers(0, len(whole)))
    attempt(whole[:at] + data.draw(TEXT) + whole[data.draw(st.integers(at, min(len(whole), at + 40))) :])


@given(raw=st.binary(max_size=200))
def test_a_file_of_any_bytes_is_refused_in_words(raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path: Path = tmp_path_factory.mktemp("bytes") / "trimtab.toml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError):
        load_config(path)


@pytest.mark.parametrize("base", range(len(BASES)))
def test_what_is_written_again_by_a_toml_library_means_the_same(base: int) -> None:
    again = parse_config(tomlkit.dumps(BASES[base]))
    assert again == parse_config(tomlkit.dumps(tomllib.loads(tomlkit.dumps(BASES[base]))))
    everything(again)
