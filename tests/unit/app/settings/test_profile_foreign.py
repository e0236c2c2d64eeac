"""What a profile may not carry is refused by name, wherever it stands; so are other chains, other files and what is no profile (T16)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from agent import app as api
from agent.config.schema import Config
from agent.errors import ConfigError
from tests.support.agents import OTHER, config, profile, taken_over
from tests.support.text import raises_field


def leaves(model: type[BaseModel], place: str = "") -> Iterator[str]:
    """Every key of a model and the models in it."""
    for name, field in model.model_fields.items():
        inner = list(models_in(field.annotation))
        where = f"{place}.{name}" if place else name
        if not inner:
            yield where
        for part in inner:
            yield from leaves(part, where)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for argument in getattr(annotation, "__args__", ()):
        yield from models_in(argument)


FOREIGN = sorted({place for place in leaves(Config) if not place.startswith(("policy.", "limits."))})


def test_the_keys_of_the_config_are_all_tried() -> None:
    assert len(FOREIGN) > 80
    assert {
        "wallet.payout_addresses",
        "chain.rpc.url",
        "venues.router",
        "execution.rebalancer",
        "store.url",
        "wallet.key_env",
    } <= set(FOREIGN)
    assert SecretStr not in FOREIGN


@pytest.mark.parametrize("place", FOREIGN)
def test_config_key_of_no_profile__is_refused_by_name(place: str, tmp_path: Path) -> None:
    path = config(tmp_path)
    before = path.read_bytes()
    table: Any = "https://evil.example/x"
    top, *rest = place.split(".")
    for name in reversed(rest):
        table = {name: table}
    with pytest.raises(ConfigError) as refused:
        taken_over(path, profile(tmp_path, **{top: table}))
    assert f"{place}" in refused.value.message
    assert "evil" not in str(refused.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("table", "key"),
    [
        *(("assets", key) for key in ("feed", "feed_max_age", "decimals", "reserve", "native", "rebasing", "stop_loss", "entry", "router")),
        *(("policy", key) for key in ("confirm_blocks", "jitter", "router")),
        *(("weights", key) for key in ("supplies", "url")),
        *(("limits", key) for key in ("payout_addresses", "max_live_value", "single_operator")),
        *(("profile", key) for key in ("router", "url", "wallet")),
    ],
)
def test_foreign_key_in_a_profile_table__is_refused_by_name(table: str, key: str, tmp_path: Path) -> None:
    path = config(tmp_path)
    raw = tomllib.loads(profile(tmp_path).read_text())
    raw.setdefault(table, {"kind": "fixed"})
    (raw[table][0] if table == "assets" else raw[table])[key] = "0x" + "11" * 20
    with pytest.raises(ConfigError, match=rf"{table}\.{key}"):
        taken_over(path, profile(tmp_path, **raw))


def test_foreign_key_in_a_trigger_or_its_risk__is_refused_by_name(tmp_path: Path) -> None:
    policy = {"trigger": {"kind": "threshold", "absolute": "5%", "router": OTHER}, "destination": "target", "cooldown": "2h"}
    with raises_field("policy.trigger.router", "unknown key"):
        taken_over(config(tmp_path), profile(tmp_path, policy=policy))


# other files
def test_a_profile_of_another_chain_is_refused(tmp_path: Path) -> None:
    file = profile(tmp_path, profile={"format": 1, "chain_id": 10, "numeraire": "USDC"})
    with raises_field("profile.chain_id", "chain 10", "chain 1"):
        taken_over(config(tmp_path), file)


def test_a_file_can_be_pinned_by_its_hash(tmp_path: Path) -> None:
    path = config(tmp_path)
    file = profile(tmp_path)
    digest = api.import_profile(path, api.ProfileSource(file), lambda *_: False)["sha256"]
    file.write_text(file.read_text() + "\n")
    for pinned, says in ((digest, "is pinned"), ("beef", "not a SHA-256")):
        with pytest.raises(ConfigError, match=says):
            taken_over(path, file, sha256=pinned)
    assert taken_over(path, profile(tmp_path), sha256=digest.upper())["editing"].state == "written"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff", "not a profile"),
        (b"x = [", "not a profile"),
        (b"x = " + b"[" * 50_000, "not a profile"),
        (b"#" * 70_000, "larger than"),
        (b"", "missing"),
        (b'[profile]\nformat = 2\nchain_id = 1\nnumeraire = "USDC"', "profile.format"),
    ],
)
def test_what_is_no_profile_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        taken_over(config(tmp_path), file)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"assets": [{"symbol": "WETH", "target": "60%"}, {"symbol": "USDC", "target": "30%"}]}, "targets sum to 90 %"),
        ({"assets": [{"symbol": "WETH", "target": "50%"}, {"symbol": "WETH", "target": "50%"}]}, "given twice"),
        ({"assets": [{"symbol": "WETH", "address": "0x12", "target": "50%"}, {"symbol": "USDC", "target": "50%"}]}, "not an address"),
        ({"policy": {"trigger": {"kind": "time", "every": "1m"}, "destination": "target", "cooldown": "1h"}}, "policy.trigger"),
        ({"policy": {"trigger": {"kind": "threshold"}, "destination": "target", "cooldown": "1h"}}, "needs absolute or relative"),
        ({"limits": {"turnover": "lots"}}, "turnover"),
        ({"policy": None}, r"policy: missing \(use a file written by"),
        ({"assets": [{"symbol": "A" * 65, "target": "50%"}, {"symbol": "USDC", "target": "50%"}]}, "symbol: write at most 64 characters"),
    ],
)
def test_a_mistake_in_a_profile_is_named_and_nothing_is_written(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = config(tmp_path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=words):
        taken_over(path, profile(tmp_path, **changes))
    assert path.read_bytes() == before
